"""The table of docs/conformance.md is that of the code."""

import runpy
from pathlib import Path

import pytest

from xpnet.autodiff.primitive import PRIMITIVES

DOCS = Path(__file__).parents[1] / "docs"
make = runpy.run_path(str(DOCS / "make_conformance.py"))
SPECS = {"numpy": "cpu", "strict": "strict", "torch": "torch", "jax": "jax"}


def table():
    lines = (DOCS / "conformance.md").read_text("utf-8").splitlines()
    header, _, *body = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return header, body


def test_the_table_is_not_stale(pytestconfig):
    header, body = table()
    assert header[3:] == list(make["LIBRARIES"])
    specs = [SPECS[name] for name in pytestconfig.libraries if name in SPECS]
    columns = [3 + list(make["LIBRARIES"].values()).index(spec) for spec in specs]
    written = [[*row[:3], *(row[column] for column in columns)] for row in body]
    assert written == make["rows"](specs), "run `python docs/make_conformance.py`"


def test_the_table_has_the_whole_standard():
    assert len(make["functions"]("")) == 133 + len(make["ALSO"][""])
    _, body = table()
    assert all(row[4] == "yes" for row in body)  # array-api-strict has all of it


@pytest.mark.parametrize("name", [name for name in PRIMITIVES if "." in name and "._" not in name])
def test_extensions_have_no_functions_of_their_own(name):
    extension, function = name.split(".")
    assert function in make["functions"](extension)
