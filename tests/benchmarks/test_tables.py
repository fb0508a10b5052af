"""The pages say what the results show, and of what no GPU showed that it did not."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
README = BENCHMARKS.parent / "README.md"

FOUND = {
    "device": {"name": "NVIDIA X1", "driver_version": "580.1", "memory.total": "81559"},
    "date": "2030-01-02",
    "versions": {"python": "3.12.3", "cupy-cuda13x": "14.2.0", "numpy": "2.5.2"},
    "minutes": 6,
    "problem": "",
    "parts": {
        "smoke": {
            "outcome": "failed", "passed": 75, "failed": 2, "left": [],
            "failures": [{"kind": "AssertionError: `x`", "count": 2, "names": ["one", "two"], "error": ""}],
            "notes": {"products in float64, RELU": {"refused": [[1, 1, 1]], "of": 125}},
        },
        "digits": {"outcome": "passed"},
        "training": {"outcome": "cut off", "cut off": ["training"]},
        "tests": {"outcome": "cut off", "passed": 3412, "failed": 0, "left": ["tests/test_a.py"]},
        "networks": {"outcome": "not run"},
    },
}  # fmt: skip
ROW = {
    "case": "64-32-10", "seconds": {"xpnet": 20e-6, "torch": 0.3}, "host": {"xpnet": 5e-6, "torch": 0.2},
    "memory": {"xpnet": 2**29, "torch": None}, "missing": {"JAX": "No module named 'jax'"},
}  # fmt: skip
AIM = {"case": "64-32-10", "what": "xpnet of the best peer", "limit": 1.0, "median": 0.5, "met": True}


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import tables

    return tables


@pytest.fixture
def pages(tables, tmp_path):
    """Return a function that returns the pages for results, by their names."""

    def of(**results):
        for name, found in results.items():
            (tmp_path / f"{name.replace('_', '-')}.json").write_text(json.dumps(found))
        return {path.name: text for path, text in tables.pages(tmp_path).items()}

    return of


def test_the_pages_agree_with_the_results(tables):
    for path, text in tables.pages().items():
        message = f"{path.name} is not what `python benchmarks/tables.py` writes"
        assert path.read_text("utf-8") == text, message


def test_every_page_has_its_place(tables):
    for name in ("cuda.md", "performance.md"):
        text = (BENCHMARKS.parent / "docs" / name).read_text("utf-8")
        assert text.count(tables.BEGIN) == text.count(tables.END) == 1
    assert README.read_text("utf-8").count("\n| CuPy |") == 1


def test_without_results_the_pages_say_that_nothing_was_shown(pages):
    found = pages()
    assert "never ran on a GPU yet" in found["cuda.md"]
    assert "No GPU has measured anything yet" in found["performance.md"]
    assert "| **never ran on a GPU yet** |" in found["README.md"]


def test_what_a_gpu_showed_is_named_with_what_it_was(pages):
    found = pages(gpu_cuda=FOUND)
    text = found["cuda.md"]
    assert "never ran" not in text
    assert "NVIDIA X1, driver 580.1, Python 3.12.3, CuPy 14.2.0, NumPy 2.5.2, 2030-01-02" in text
    for line in (
        "| smoke | failed, 75 passed, 2 failed | `one`, `two` |",
        "| digits | passed |  |",
        "| training | cut off | `training` |",
        "| tests | cut off, 3,412 passed | `tests/test_a.py` |",
        "| networks | not run | all of it |",
        "- 2 × `AssertionError: x`",
        "- products in float64, RELU: 1 of 125 shapes",
    ):
        assert f"\n{line}\n" in text
    line = "| CuPy | 14.2.0 | NVIDIA X1, Python 3.12.3, 2030-01-02 | cut off, 3,412 passed | passed |"
    assert f"\n{line}\n" in found["README.md"]
    # Nothing but that line is another one.
    before, after = README.read_text("utf-8").splitlines(), found["README.md"].splitlines()
    assert [b[:8] for a, b in zip(before, after, strict=True) if a != b] == ["| CuPy |"]
    assert (
        "Not all was run: it was stopped." in pages(gpu_cuda=FOUND | {"problem": "it was stopped"})["cuda.md"]
    )


def test_what_a_gpu_measured(pages):
    training = {key: FOUND[key] for key in ("device", "date", "versions")} | {"rows": [ROW], "aims": [AIM]}
    networks = {key: FOUND[key] for key in ("device", "date", "versions")}
    networks["milliseconds"] = {"transformer": {"xpnet": 2.0, "torch": 4.0}, "LSTM": {"5": 0.1}}
    text = pages(training_cuda=training, networks_cuda=networks)["performance.md"]
    assert "measured anything yet" not in text
    for line in (
        "| µs | xpnet | torch |",
        "| 64-32-10 | 20.0 | 300,000 |",
        "| 64-32-10 | 5.0 | 200,000 |",
        "| 64-32-10 | 512 | – |",
        "| 64-32-10: xpnet of the best peer | 1 | 0.50 | met |",
        "| transformer | 2.0 | 4.0 | 0.50 |",
        "Left out: JAX (64-32-10): No module named 'jax'.",
    ):
        assert f"\n{line}\n" in text
    assert text.count("NVIDIA X1") == 2
