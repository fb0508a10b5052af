"""Kernels that numba compiles: making functions of their source, and calling them with threads or without."""

import hashlib
import importlib.resources
import importlib.util
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from xpnet.replay.plans import numba_files

# The compiler is given no liberties: it may not round a product and a sum together, nor add up in another
# order, so that x * y - x * y is 0 and a sum has the digits that it has in NumPy.
_HEADER = """\
from math import *
from numpy import empty
from numba import njit, prange, float32, float64, int32, int64, uint64, bool_
from xpnet.replay.kernels import elementary
from xpnet.replay.kernels.sums import add_up, end_of_chunk, put
from xpnet.replay.kernels.sums import max_of_float32, max_of_float64, min_of_float32, min_of_float64


"""


@cache
def numba_is_there() -> bool:
    """Say whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@cache
def _choose_threads() -> None:
    """Let numba use threads of its own that sleep while they wait.

    Those of OpenMP wait actively, which they do at the expense of BLAS: a step took ten times as long.
    """
    if "NUMBA_THREADING_LAYER" not in os.environ:
        # Ignored if threads are running already.
        numba_files.load_numba().config.THREADING_LAYER = "workqueue"


@cache
def compiled(source: str) -> Callable:
    """Return the function of a rendered kernel."""
    _choose_threads()
    return numba_files.function(f"# with functions of {_functions()}\n{_HEADER}{source}")


@cache
def _functions() -> str:
    """Return what changes with the modules of functions that compiled loops, which are kept, contain."""
    folder = importlib.resources.files("xpnet.replay.kernels")
    texts = b"".join(folder.joinpath(name).read_bytes() for name in ("elementary.py", "sums.py"))
    return hashlib.sha256(texts).hexdigest()[:16]


# numba's threads are one team: two Python threads must not use it at once, and a forked process has none.
_team = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked, _team
    _forked, _team = True, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def on_all_cores(parallel: Callable, serial: Callable) -> Callable:
    """Return a function that runs a kernel with threads where that is possible."""

    def call(*arguments: Any) -> None:
        if _forked:
            serial(*arguments)
        else:
            with _team:
                parallel(*arguments)

    return call
