"""The examples in docstrings, in the README and in the manual run, and the reference is complete."""

import doctest
import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import xpnet
from xpnet import backends

MODULES = [module.name for module in pkgutil.walk_packages(xpnet.__path__, "xpnet.")]
README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
PROSE = [*sorted(README.parent.glob("*.md")), *sorted(DOCS.glob("*.md"))]
PAGES = [path for path in PROSE if "```python" in path.read_text("utf-8") and path != README]

# The modules whose `__all__` are the public names.
PUBLIC = {
    "xpnet": xpnet,
    "xpnet.callbacks": xpnet.callbacks,
    "xpnet.metrics": xpnet.metrics,
    **{
        name: importlib.import_module(name)
        for name in (
            "xpnet.distributed",
            "xpnet.errors",
            "xpnet.losses",
            "xpnet.nn",
            "xpnet.nn.initializers",
            "xpnet.onnx",
            "xpnet.optim",
            "xpnet.sklearn",
            "xpnet.special",
            "xpnet.training",
            "xpnet.tree",
        )
    },
}


def public_names():
    """Yield each public name, as it is written in the reference, with what it names."""
    seen = set()
    for module, contents in PUBLIC.items():
        for name in contents.__all__:
            value = getattr(contents, name)
            # Type aliases have no page; what is there under two names is listed under the first.
            if not inspect.ismodule(value) and not hasattr(value, "__origin__") and id(value) not in seen:
                seen.add(id(value))
                yield f"{module}.{name}", value


def test_reference_has_every_public_name():
    listed = re.findall(r"^   (xpnet\.[\w.]+)$", (DOCS / "reference.rst").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(name for name, _ in public_names())


def test_every_public_name_has_an_example():
    assert {name for name, value in public_names() if ">>> " not in (value.__doc__ or "")} == set()


def test_examples_of_metrics():
    # doctest looks at functions and classes, and a metric is neither.
    for name, value in public_names():
        if isinstance(value, xpnet.metrics.Metric):
            assert value.__doc__ != xpnet.metrics.Metric.__doc__
            example = doctest.DocTestParser().get_doctest(value.__doc__, {}, name, None, 0)
            assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem == "pipeline" else path for path in PAGES],
    ids=lambda path: path.stem,
)
def test_code_of_the_manual(path, tmp_path, monkeypatch):
    if path.stem == "cuda" and (problem := backends.cuda_problem()):
        pytest.skip(problem)
    for package in ("skl2onnx", "skops") if path.stem == "pipeline" else ():
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        exec(block, names)


OF_LIBRARIES = {
    "xpnet.replay.plans.cuda_runtime": "cupy",
    "xpnet.backends.cupy_special": "cupy",
    "xpnet.backends.torch_special": "torch",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.peers) if name in OF_LIBRARIES else name
        for name in MODULES
        if not name.endswith("__main__")
    ],
)
def test_docstrings(name):
    if name in OF_LIBRARIES:
        pytest.importorskip(OF_LIBRARIES[name])
    if name == "xpnet.sklearn.converters":
        pytest.importorskip("skl2onnx")
    with xpnet.use_device("cpu"):
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_docs_of_the_estimators():
    text = (DOCS / "sklearn.md").read_text("utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert names["classifier"].stopped_
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+) \| (`[^|]+`) \|", text, re.MULTILINE)
    shown = {}
    for row in rows:
        parameters, defaults = (re.findall(r"`\"?([^`]+?)\"?`", cell) for cell in row)
        shown |= dict(zip(parameters, defaults, strict=False))
    for estimator in (names["MLPClassifier"], names["MLPRegressor"]):
        for name, value in estimator().get_params().items():
            assert shown[name] == str(value) or name == "loss", name


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"([^\n]*)\n\n?```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    made, names = {}, {}
    for sentence, block in blocks:
        if "from above" not in sentence:  # a block runs alone unless the line in front of it says otherwise
            names = {}
        exec(block, names)
        made |= names
    assert made["history"]["validation_accuracy"][-1] > 0.95
    assert (tmp_path / "digits.safetensors").exists()
    assert made["gradient"].inner.weight.shape == (3, 3)


def test_what_is_said_to_be_installed_can_be():
    sources = [path for folder in ("xpnet", "examples") for path in (README.parent / folder).rglob("*.py")]
    texts = [path.read_text("utf-8") for path in (*PROSE, *sources)]
    texts += [backends.cupy.how_to_install(cuda) for cuda in (12, 13)]
    commands = [command for text in texts for command in re.findall(r"pip install ([^`#\n]+)", text)]
    # xpnet is installed from a copy of the repository. In an index, its name may be a stranger's.
    assert [command for command in commands if "xpnet" in command] == []
    groups = [group for command in commands for group in re.findall(r'"\.\[([\w,]+)\]"', command)]
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| [\w, -]+ \| .* \|$", README.read_text("utf-8"), re.MULTILINE
    )
    listed = {extra for row in rows for extra in re.findall(r"\w+", row)}
    project = tomllib.loads((README.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert listed == set(project["optional-dependencies"])
    assert {extra for group in groups for extra in group.split(",")} <= listed


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_links_lead_to_files(path):
    # What the manual is built from is not there before; Sphinx checks those links, and the parts of pages.
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
    files = [link for link in links if not link.startswith(("generated/", "pictures/"))]
    assert [link for link in files if not (path.parent / link).exists()] == []


def test_rows_of_reliability_are_tests():
    text = (DOCS / "reliability.md").read_text("utf-8")
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| what", "| ---"))
    ]
    assert len(rows) > 20
    for row in rows:
        file, name = re.fullmatch(r"\|.*\| `([\w/]+\.py)::(\w+)` \|", row).groups()
        assert f"def {name}(" in (README.parent / "tests" / file).read_text("utf-8"), row
