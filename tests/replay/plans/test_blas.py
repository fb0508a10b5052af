"""The functions for products are found in the library that NumPy calls, by their names on each system."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from xpnet.replay.plans import blas

DTYPES = {"s": "float32", "d": "float64"}
KINDS = "gemm", "gemv", "dot"
LARGE, SMALL = 2**63 - 1, 2**31 - 1


def library(pattern, name="a library", start=1):
    """A library with the six functions, which are called like this."""
    names = [pattern.format(letter + kind) for kind in KINDS for letter in DTYPES]
    return blas.Library(name, {name: start + at for at, name in enumerate(names)}.get)


@pytest.fixture
def found(monkeypatch):
    """What is found in some libraries."""

    def find(*libraries):
        monkeypatch.setattr(blas, "_libraries", lambda: libraries)
        monkeypatch.setattr(blas, "_file", lambda address: "")
        return blas.find.__wrapped__()

    return find


@pytest.mark.parametrize(
    ("pattern", "largest"),
    [
        ("scipy_cblas_{}64_", LARGE),  # NumPy's wheels for Linux, macOS and Windows
        ("scipy_cblas_{}", SMALL),  # for Windows on Arm
        ("cblas_{}$NEWLAPACK$ILP64", LARGE),  # Accelerate
        ("cblas_{}$NEWLAPACK", SMALL),
        ("cblas_{}64_", LARGE),  # OpenBLAS of distributions
        ("cblas_{}_64", LARGE),  # MKL
        ("cblas_{}", SMALL),  # conda's, of OpenBLAS, MKL or BLIS
    ],
)
def test_functions_are_found_by_their_names(found, pattern, largest):
    at = found(blas.Library("of C", {}.get), library(pattern))
    assert at.name == pattern.format("?gemm") + " of a library"
    assert at.largest == largest
    pairs = [(kind, dtype) for kind in KINDS for dtype in DTYPES.values()]
    assert at.addresses == {pair: 1 + number for number, pair in enumerate(pairs)}


def test_large_integers_are_preferred(found):
    """Accelerate has all functions twice, and the old ones for programs of earlier times."""
    both = library("cblas_{}"), library("cblas_{}$NEWLAPACK$ILP64", start=11)
    assert found(*both).addresses == found(*both[::-1]).addresses == found(both[1]).addresses


def test_what_lacks_a_function_is_not_taken(found):
    whole = library("cblas_{}")
    part = blas.Library("part", lambda name: None if "ddot" in name else 1)
    assert found(part, whole).name == "cblas_?gemm of a library"


def test_the_reason_names_what_was_looked_for(found):
    reason = found(library("zblas_{}"))
    assert isinstance(reason, str)
    assert "scipy_cblas_?gemm64_" in reason
    assert "has no functions" in reason


def test_a_build_of_numpy_that_says_nothing_of_its_library(found, monkeypatch):
    monkeypatch.setattr(blas.numpy, "show_config", lambda mode: {})
    assert "has no functions" in found()


def test_the_library_of_this_machine_has_a_name():
    """Each way in which NumPy is installed here shows its library."""
    at = blas.find()
    assert isinstance(at, blas.Blas), at
    assert " of " in at.name
    assert at.name[-1] != " "


# -- Windows, where a library shows its own functions alone -------------------------------------------------

FILE = (
    b"MZ\0\0KERNEL32.dll\0\0libscipy_openblas64_-9e3e5a42.dll\0VCRUNTIME140.dll\0python311.dll\0"
    b"text about other.dlls\0kernel32.DLL\0"
)


def test_the_names_of_libraries_in_a_file():
    names = ["KERNEL32.dll", "libscipy_openblas64_-9e3e5a42.dll", "VCRUNTIME140.dll", "python311.dll"]
    assert blas._names_of_libraries(FILE) == [*names, "kernel32.DLL"]


@pytest.mark.skipif(sys.platform == "win32", reason="a stand-in for Windows")
def test_on_windows_the_loaded_libraries_of_numpys_own_are_asked(monkeypatch, tmp_path):
    path = tmp_path / "_multiarray_umath.pyd"
    path.write_bytes(FILE)
    handles = {"KERNEL32.dll": 1, "libscipy_openblas64_-9e3e5a42.dll": 2, "python311.dll": 3}
    loaded = []

    class Windows(SimpleNamespace):
        def __init__(self, name, handle):
            loaded.append((name, handle))
            super().__init__(_name=name)
            if handle == 2:
                for number, each in enumerate(f"scipy_cblas_{d}{kind}64_" for kind in KINDS for d in DTYPES):
                    setattr(self, each, ctypes.c_void_p(100 + number))

    def handle_of(name):
        return handles.get(name)

    monkeypatch.setattr(
        ctypes, "WinDLL", lambda name: SimpleNamespace(GetModuleHandleW=handle_of), raising=False
    )
    monkeypatch.setattr(blas.ctypes, "CDLL", Windows)
    monkeypatch.setattr(blas.sys, "platform", "win32")
    monkeypatch.setattr(blas._multiarray_umath, "__file__", str(path))
    at = blas.find.__wrapped__()
    assert at.name == "scipy_cblas_?gemm64_ of libscipy_openblas64_-9e3e5a42.dll"
    assert sorted(at.addresses.values()) == [*range(100, 106)]
    assert loaded == [*handles.items()]  # nothing is loaded that was not


@pytest.mark.parametrize(("kind", "expected"), [(0, None), (1, ("", "64_")), (2, None)])
def test_a_copy_is_made_of_a_library_with_threads_of_its_own(kind, expected, monkeypatch):
    """Those of OpenMP, one library would change for all others."""
    loaded = SimpleNamespace(
        openblas_set_num_threads64_=lambda number: None, openblas_get_parallel64_=lambda: kind
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda file: loaded)
    assert blas._affixes("a file") == expected


def test_a_copy_that_cannot_be_kept_is_made_for_one_process(tmp_path):
    if isinstance(reason := blas.without_threads(), str):
        pytest.skip(reason)
    (tmp_path / "no folder").touch()
    (tmp_path / "temporary").mkdir()
    environment = {"XPNET_CACHE_DIR": str(tmp_path / "no folder"), "TMPDIR": str(tmp_path / "temporary")}
    code = """
from xpnet.replay.plans import blas
found, alone = blas.find(), blas.without_threads()
print(alone.addresses.keys() == found.addresses.keys(), alone.addresses != found.addresses)
"""
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment).stdout
    assert printed == "True True\n"
    assert not [*(tmp_path / "temporary").iterdir()]
