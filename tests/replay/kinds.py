"""The kinds of plans that tests go through."""

import pytest

from tests.replay.host import COMPILER, Host, plan_on

# NumPy without and with loops of numba, and a stand-in for a CUDA device.
KINDS = ["numpy", "numba", "cuda"]


def use(kind, monkeypatch, **options):
    """Let plans be of one kind while a test runs; return the stand-in, for ``"cuda"``, with such options."""
    if kind == "cuda":
        if COMPILER is None:
            pytest.skip("no C++ compiler")
        host = Host(**options)
        plan = plan_on(host)
        monkeypatch.setattr("xpnet.replay.plans._plan_of", lambda _: plan)
        return host
    if kind == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr("xpnet.replay.plans.numba.numba_is_there", lambda: kind == "numba")
    return None
