"""The BLAS library that NumPy calls: where its functions for products are, for native code.

Where threads of plans divide products, each calls a library that has no threads: a copy of OpenBLAS's file,
which the system loads as another library. NumPy's own is left alone, with the threads that the caller chose.
"""

import ctypes
import filecmp
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

from xpnet import threads, writing
from xpnet.replay.plans import numba_files

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
    pattern : str
        The names of its functions, with ``{}`` for their names in BLAS.
    file : str
        The library's, where the system can say; else "".
    has_threads : bool
        Whether it may compute in other threads than that which calls.
    """

    name: str
    largest: int
    addresses: dict[tuple[str, str], int]
    pattern: str
    file: str = ""
    has_threads: bool = True


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
            addresses = _addresses(library, name)
            if len(addresses) == 3 * len(_LETTERS):
                file = _file(addresses[GEMM, "float32"])
                of = Path(file).name or library.name
                return Blas(f"{name.format('?gemm')} of {of}", largest, addresses, name, file)
    known = ", ".join(name.format("?gemm") for name in NAMES)
    return f"the library that NumPy calls for products, {_built_with()}, has no functions {known}"


def _addresses(library: Library, name: str) -> dict[tuple[str, str], int]:
    """Return the functions of a library that have such names."""
    return {
        (kind, dtype): address
        for kind in (GEMM, GEMV, DOT)
        for dtype, letter in _LETTERS.items()
        if (address := library.address(name.format(letter + kind)))
    }


# How OpenBLAS calls functions that say how many threads it has, with the prefix and suffix of the others.
_GET, _SET = "{}openblas_get_num_threads{}", "{}openblas_set_num_threads{}"
# Its threads: 0 for none, 1 for its own. Those of OpenMP, 2, it shares with all libraries of the process.
_KIND, _PTHREADS = "{}openblas_get_parallel{}", 1
_VARIABLE = "OPENBLAS_NUM_THREADS"
_AFFIXES = [("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "_64"), ("", "")]
# The beginning of the name of a copy, which threadpoolctl is not to take for NumPy's own.
_PREFIX = "libxpnet_openblas"


@cache
def without_threads() -> Blas | str:
    """Return the same functions in a copy of the library that has no threads, or why there is none."""
    found = find()
    if isinstance(found, str):
        return found
    affixes = _affixes(found.file) if sys.platform == "linux" else None
    if affixes is None:
        return f"{found.name} is not known to work without threads of its own"
    try:
        loaded = _copy_of(Path(found.file))
    except OSError as error:
        return f"{found.file} cannot be copied and loaded: {error}"
    addresses = _addresses(_library(loaded), found.pattern)
    getattr(loaded, _SET.format(*affixes))(1)
    if len(addresses) < len(found.addresses) or getattr(loaded, _GET.format(*affixes))() != 1:
        return f"a copy of {found.file} does not work without threads"
    return found._replace(addresses=addresses, has_threads=False)


def _affixes(file: str) -> tuple[str, str] | None:
    """Return with what the functions of an OpenBLAS are called, if it was built with threads of its own.

    Others may not be called by several at once.
    """
    if not file:
        return None
    loaded = ctypes.CDLL(file)  # which it is already
    for each in _AFFIXES:
        if hasattr(loaded, _SET.format(*each)) and getattr(loaded, _KIND.format(*each), int)() == _PTHREADS:
            return each
    return None


def _copy_of(file: Path) -> ctypes.CDLL:
    """Load a copy of a library's file, which stays in the folder for compiled functions if there is one."""
    status = file.stat()
    about = repr((str(file), status.st_size, status.st_mtime_ns)).encode()
    name = f"{_PREFIX}_{hashlib.sha256(about).hexdigest()[:16]}.so"
    try:
        path = numba_files.folder() / name
        if not _is_ours(path) or not filecmp.cmp(path, file, shallow=False):
            path.unlink(missing_ok=True)
            writing.replace(path, [file.read_bytes()], mode=stat.S_IRUSR | stat.S_IWUSR)
        return _loaded(path)
    except OSError:
        # Some systems do not remove a file that is loaded.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            return _loaded(Path(shutil.copyfile(file, Path(temporary, name))))


def _is_ours(path: Path) -> bool:
    try:
        numba_files.check_owner(path, path.stat())
    except OSError:
        return False
    return True


def _loaded(path: Path) -> ctypes.CDLL:
    """Load a library that reads, while it is loaded, that it shall start no threads."""
    threads.default()  # which is not to read this
    before = os.environ.get(_VARIABLE)
    try:
        os.environ[_VARIABLE] = "1"
        return ctypes.CDLL(str(path))
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


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
    """Return the file of the library that an address is in, where the system can say."""
    place = _Place()
    dladdr = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "dladdr", None)
    if dladdr is None or not dladdr(ctypes.c_void_p(address), ctypes.byref(place)):
        return ""
    return (place.file or b"").decode(errors="replace")


def _built_with() -> str:
    try:
        return str(numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])  # type: ignore[index]
    except (KeyError, TypeError):
        return "which is not named"
