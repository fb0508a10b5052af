"""Random programs that change something between calls of a function do the same with `jit` as without.

A program is named by its seed. One that fails is shown with all left out that it fails without, too.
"""

import logging

import pytest

import xpnet
from replay.same.programs import Drawing, Run, fault, smallest, working
from xpnet.errors import NotRecordableError

PROGRAMS = {"jax": 10}  # JAX compiles for seconds what others record in no time
OTHERS = 60


def pytest_generate_tests(metafunc):
    fewest = min(PROGRAMS.get(name, OTHERS) for name in metafunc.config.libraries)
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--examples") or fewest))


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setattr("xpnet.replay.plans.numba.numba_is_there", lambda: False)


def check(lines, device):
    if fault(lines, device):
        lines = smallest(lines, device)
        pytest.fail("\n".join([*lines, "", str(fault(lines, device))]), pytrace=False)


@pytest.mark.usefixtures("without_numba")
def test_programs(device, seed):
    check(working(Drawing(seed).program(), device), device)


@pytest.mark.parametrize("number", range(4))
def test_programs_with_numba(number):  # which compiles each of them for seconds
    pytest.importorskip("numba")
    with xpnet.use_device("cpu") as device:
        check(working(Drawing(-1 - number).program(), device), device)


def careless(f, **_):
    """Stand in the place of `jit`, and give what the first call gave from then on."""
    results = []

    def call(*arguments):
        results[:] = results or [f(*arguments)]
        return results[0]

    return call


@pytest.mark.usefixtures("without_numba")
def test_programs_find_what_is_not_compared(monkeypatch):
    monkeypatch.setattr(xpnet, "jit", careless)
    with xpnet.use_device("cpu") as device:
        found = [fault(working(Drawing(seed).program(), device), device) for seed in range(20)]
    assert sum(map(bool, found)) > 10


@pytest.mark.usefixtures("without_numba")
def test_most_calls_are_recorded(caplog):
    caplog.set_level(logging.ERROR)
    errors = []
    with xpnet.use_device("cpu") as device:
        for seed in range(20):
            run = Run(xpnet.jit, device, working(Drawing(seed).program(), device))
            errors += [error for _, error in run.calls]
    assert sum(error is not None for error in errors) < len(errors) / 5
    assert sum(isinstance(error, NotRecordableError) for error in errors) < len(errors) / 10
