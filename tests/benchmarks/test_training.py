"""The libraries of the training benchmark do the same, and its aims are of what it measures."""

import importlib.util
import sys
from pathlib import Path

import pytest

import xpnet.replay.plans.numba

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# The packages of all but those that take long to compile: the benchmark itself compares all.
PACKAGES = {
    "xpnet": "numpy", "xpnet without numba": "numpy", "torch": "torch", "JAX": "jax",
    "scikit-learn": "sklearn",
}  # fmt: skip


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    # Under its name, which a folder of tests has, too.
    spec = importlib.util.spec_from_file_location("training", BENCHMARKS / "training.py")
    training = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "training", training)
    spec.loader.exec_module(training)
    # One of the libraries takes it away.
    monkeypatch.setattr(xpnet.replay.plans.numba, "numba_is_there", xpnet.replay.plans.numba.numba_is_there)
    return training


@pytest.mark.parametrize("case", ["a classifier", "a regressor"])
def test_libraries_come_to_the_same_losses(training, case):
    found = {}
    for name in training.CHECKS[case].libraries:
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]):
            found[name] = training.losses(training.LIBRARIES[name](), training.CHECKS[case])
    first, *others = found.values()
    assert others
    assert first[-1] < 0.9 * first[0]  # it learns
    assert not any(training.differ(each, first) for each in others)


def test_losses_that_differ(training):
    assert training.differ([1.0, 0.5], [1.0, 0.5001])
    assert not training.differ([1.0, 0.5], [1.0, 0.50001])


def test_aims_are_of_what_is_measured(training):
    for case, threads, ours, other, _ in training.AIMS:
        assert threads == 2 if case not in training.TRAININGS else threads in training.TRAININGS[case].threads
        libraries = training.TRAININGS[case].libraries if case in training.TRAININGS else training.ALL
        assert {ours, other} <= {*libraries, training.BEST}
    names = {name for step in (training.TRAININGS | training.CHECKS).values() for name in step.libraries}
    assert names == training.LIBRARIES.keys()


def rows(training, times):
    """Return rows of one round."""
    return [
        training.row(training.named(case, threads), {name: [each] for name, each in seconds.items()})
        for (case, threads), seconds in times.items()
    ]


def test_aims(training):
    few, many = training.DEEP
    found = training.aims(
        rows(
            training,
            {
                (training.SMALL, 1): {"xpnet": 1.0, "JAX": 8.0, "PyTensor": 5.0},
                (training.SMALL, 2): {"xpnet": 2.0, "xpnet before": 1.0, "torch": 8.0, "JAX": 4.0},
                (few, 1): {"xpnet": 1.0},
                (many, 1): {"xpnet": 90.0, "torch": 1.0},
            },
        )
    )
    assert [(aim["case"], aim["what"], aim["median"], aim["met"]) for aim in found] == [
        ("64-32-10, batch 32, 1 thread", "xpnet of JAX", 0.125, False),
        ("64-32-10, batch 32, 1 thread", "xpnet of PyTensor", 0.2, True),
        ("64-32-10, batch 32, 2 threads", "xpnet of the best peer", 0.5, True),
        ("64-32-10, batch 32, 2 threads", "xpnet of xpnet before", 2.0, False),
        ("1000 layers 8-8, tanh, batch 16, 1 thread", "xpnet, a layer, of one of 10", 0.9, True),
    ]


def test_a_small_step_is_taken_apart(training, monkeypatch):
    for name in ("OPENBLAS", "OMP", "MKL"):  # which it sets for its process
        monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
    import small_step

    case = training.TRAININGS[small_step.CASES[0]]
    parts = small_step.parts(*training.Xpnet().training(case, training.RATE), *training.batch_of(case))
    for part in parts.values():
        assert part() is not None


def test_what_a_second_thread_gains(training):
    import tables

    times = {
        (training.SMALL, 1): {"xpnet": 3.0, "torch": 8.0},
        (training.SMALL, 2): {"xpnet": 2.0, "JAX": 4.0},
    }
    gained = training.second_thread(rows(training, times))
    assert gained == {training.SMALL: {"xpnet": 1.5}}
    text = tables.tables({"versions": {}, "rows": rows(training, times), "aims": [], "second_thread": gained})
    assert (
        f"| times as fast with a second thread | xpnet |\n| --- | --- |\n| {training.SMALL} | 1.50 |" in text
    )


def test_results_become_tables(training):
    import tables

    found = rows(training, {("64-32-10", 1): {"xpnet": 1e-6, "PyTensor": 2e-6}, ("8-8", 1): {"xpnet": 1e-3}})
    text = tables.tables({"versions": {"python": "3.12"}, "rows": found, "aims": []})
    assert "\n| µs | xpnet | PyTensor |\n" in text
    assert "\n| 64-32-10, 1 thread | 1.0 | 2.0 |\n| 8-8, 1 thread | 1,000 | – |\n" in text
