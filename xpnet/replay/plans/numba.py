"""Native code that numba compiles: making functions of their source."""

import ctypes
import hashlib
import importlib.resources
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from xpnet.replay.plans import numba_files
from xpnet.replay.plans.table import objects_are_readable

# The compiler is given no liberties: it may not round a product and a sum together, nor add up in another
# order, so that x * y - x * y is 0 and a sum has the digits that it has in NumPy.
_HEADER = """\
from math import *
from numpy import empty
from numba import float32, float64, int8, int16, int32, int64, uint32, uint64, bool_
from xpnet.replay.kernels import elementary
from xpnet.replay.kernels.sums import add_up, end_of_chunk, put
from xpnet.replay.kernels.sums import max_of_float32, max_of_float64, min_of_float32, min_of_float64
from xpnet.replay.plans.native import array, float_at, load, store


"""
_MODULES = (
    "kernels/elementary.py",
    "kernels/sums.py",
    *(
        f"plans/{name}.py"
        for name in (
            "copies",
            "native",
            "native_copies",
            "native_pool",
            "native_products",
            "pool",
            "products",
            "table",
        )
    ),
)


@cache
def numba_is_there() -> bool:
    """Say whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def why_not() -> str:
    """Return why native code cannot do what plans ask for; "" if it can."""
    if not numba_is_there():
        return "numba is not installed"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        # Threads would share the words in which `native.is_unusual` looks arrays up.
        return "this Python runs threads without the interpreter's lock"
    return "" if objects_are_readable() else "this Python keeps arrays in memory in another way than is known"


@cache
def native(source: str, *arguments: str) -> Any:
    """Return a function of C with an ``address``: that of a source which takes the address of its words."""
    return numba_files.c_function(_text(source), *(arguments or ("int64",)))


class Driver(NamedTuple):
    """Functions that go through tables, see `native.py`.

    Attributes
    ----------
    run, run_long : callable
        Take the address of a table and a tuple of arrays. During a long one, other threads of Python go on.
    is_unusual : callable
        Takes the address of a table of `of_arguments` and a tuple of arrays.
    """

    run: Callable[[int, tuple], int]
    run_long: Callable[[int, tuple], int]
    is_unusual: Callable[[int, tuple], int]


@cache
def driver() -> Driver:
    """Compile the functions that go through tables."""
    run, is_unusual = (
        native(f"from xpnet.replay.plans.native import {name} as kernel", "int64", "int64")
        for name in ("run", "is_unusual")
    )
    kinds = (ctypes.PYFUNCTYPE, run), (ctypes.CFUNCTYPE, run), (ctypes.PYFUNCTYPE, is_unusual)
    functions = []
    for kind, function in kinds:
        functions.append(kind(ctypes.c_int64, ctypes.c_int64, ctypes.py_object)(function.address))
        vars(functions[-1])["compiled"] = function  # whose address is valid as long as it is there
    return Driver(*functions)


def _text(source: str) -> str:
    return f"# with what is in {_contained()}\n{_HEADER}{source}"


@cache
def _contained() -> str:
    """Return what changes with the modules whose functions compiled code contains."""
    folder = importlib.resources.files("xpnet").joinpath("replay")
    text = b"".join(folder.joinpath(*path.split("/")).read_bytes() for path in _MODULES)
    return hashlib.sha256(text).hexdigest()[:16]
