"""The BLAS library that NumPy calls: where its functions for products are, for native code.

It is the library that is loaded already, with the threads that the caller has chosen: nothing is set here.
"""

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

# How functions of CBLAS are called, and the largest of the integers that they take. OpenBLAS in NumPy's
# wheels has a prefix, and a suffix where its integers have 64 bits, as have Accelerate and MKL. Where a name
# says nothing they may have 64 bits, too: they are passed as such in any case, see `native_products.py`.
NAMES = {
    "scipy_cblas_{}64_": 2**63 - 1,
    "cblas_{}64_": 2**63 - 1,
    "cblas_{}$NEWLAPACK$ILP64": 2**63 - 1,
    "cblas_{}_64": 2**63 - 1,
    "scipy_cblas_{}": 2**31 - 1,
    "cblas_{}$NEWLAPACK": 2**31 - 1,
    "cblas_{}": 2**31 - 1,
}
# A product of two matrices, of a matrix and a vector, and of two vectors.
GEMM, GEMV, DOT = "gemm", "gemv", "dot"
_LETTERS = {"float32": "s", "float64": "d"}


class Blas(NamedTuple):
    """The functions of a library.

    Attributes
    ----------
    name : str
        Of its functions and of the library, for people.
    largest : int
        The largest integer that they take.
    addresses : dict of (str, str) to int
        Of each function, by `GEMM`, `GEMV` or `DOT` and the name of a dtype.
    """

    name: str
    largest: int
    addresses: dict[tuple[str, str], int]


class Library(NamedTuple):
    """A library that is loaded: its name, and what returns the address of a function, or None."""

    name: str
    address: Callable[[str], int | None]


@cache
def find() -> Blas | str:
    """Return the functions that NumPy calls, or why they cannot be called."""
    try:
        libraries = list(_libraries())
    except (AttributeError, OSError) as error:  # a program may have NumPy in one file with Python
        return f"the library that NumPy calls for products cannot be asked: {error}"
    for name, largest in NAMES.items():
        for library in libraries:
            addresses = {
                (kind, dtype): address
                for kind in (GEMM, GEMV, DOT)
                for dtype, letter in _LETTERS.items()
                if (address := library.address(name.format(letter + kind)))
            }
            if len(addresses) == 3 * len(_LETTERS):
                of = _file(addresses[GEMM, "float32"]) or library.name
                return Blas(f"{name.format('?gemm')} of {of}", largest, addresses)
    known = ", ".join(name.format("?gemm") for name in NAMES)
    return f"the library that NumPy calls for products, {_built_with()}, has no functions {known}"


def _libraries() -> Iterator[Library]:
    """Yield the libraries that NumPy's own asks for."""
    path = Path(_multiarray_umath.__file__)
    if sys.platform != "win32":
        # Elsewhere, a function is looked for in all libraries that one depends on, too.
        yield _library(ctypes.CDLL(str(path)))
        return
    handle_of = ctypes.WinDLL("kernel32").GetModuleHandleW
    handle_of.argtypes, handle_of.restype = [ctypes.c_wchar_p], ctypes.c_void_p
    for name in _names_of_libraries(path.read_bytes()):
        handle = handle_of(name)
        if handle:
            yield _library(ctypes.CDLL(name, handle=handle))


def _library(loaded: ctypes.CDLL) -> Library:
    def address(name: str) -> int | None:
        function = getattr(loaded, name, None)
        return function and ctypes.cast(function, ctypes.c_void_p).value

    return Library(Path(loaded._name).name, address)


def _names_of_libraries(file: bytes) -> list[str]:
    """Return the names of libraries that stand in a file, with those that it asks for among them."""
    found = re.findall(rb"[\w.+-]+\.dll(?=\0)", file, re.IGNORECASE)
    return list(dict.fromkeys(name.decode("ascii") for name in found))


class _Place(ctypes.Structure):
    """What ``dladdr`` says of an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("beginning", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _file(address: int) -> str:
    """Return the name of the library that an address is in, where the system can say."""
    place = _Place()
    dladdr = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "dladdr", None)
    if dladdr is None or not dladdr(ctypes.c_void_p(address), ctypes.byref(place)):
        return ""
    return Path((place.file or b"").decode(errors="replace")).name


def _built_with() -> str:
    try:
        return str(numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])  # type: ignore[index]
    except (KeyError, TypeError):
        return "which is not named"
