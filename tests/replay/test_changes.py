"""Random programs that change something between calls of a function do the same with `jit` as without."""

import pytest

from replay.programs import Drawing, fault, smallest, working

PROGRAMS = 60


def pytest_generate_tests(metafunc):
    number = metafunc.config.getoption("--examples") or PROGRAMS
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(number))


def test_programs(device, seed, monkeypatch):
    monkeypatch.setattr("xpnet.replay.loops.numba_is_there", lambda: False)
    lines = working(Drawing(seed).program(), device)
    if fault(lines, device):
        lines = smallest(lines, device)
        pytest.fail("\n".join([*lines, fault(lines, device)]))
