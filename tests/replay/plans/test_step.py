"""What a plan does, as data, and how that is written as Python."""

import numpy
import pytest

from xpnet.replay.graph import Operation, Variable
from xpnet.replay.plans.step import (
    CALL,
    COPY,
    KERNEL,
    PRODUCT,
    VIEW,
    Call,
    Item,
    Member,
    Scratch,
    Source,
    Step,
)

FLOAT = numpy.dtype("float32")
X, Y, ROW = (Variable(shape, FLOAT) for shape in ((2, 3), (2, 3), (3,)))


def loop(*_):
    """Stand for a kernel."""


@pytest.fixture
def source():
    return Source({X: "x", Y: "y", ROW: "row"})


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (Call(PRODUCT, numpy.dot, (X, Y, ROW), "dot"), "dot(x, y, row)"),
        (Call(KERNEL, loop, (X, Y, ROW, 6), "multiply_add"), "multiply_add(x, y, row, 6)"),
        (Call(CALL, numpy.add, (X, 1.5), "add", {"out": Y}), "add(x, 1.5, out=y)"),
        (Call(CALL, numpy.sort, (X,), "sort", results=(Y,)), "y = sort(x)"),
        (Call(CALL, divmod, (X, 2), "divmod", results=(Y, ROW), several=True), "y, row, = divmod(x, 2)"),
        (Call(CALL, len, ([X, Y], (X,), None, "text", True), "len"), "len([x, y], (x,), None, 'text', True)"),
        (Call(CALL, numpy.empty, ((2, 3), FLOAT), "empty", results=(X,)), "x = empty((2, 3), float32)"),
        (Call(COPY, numpy.copyto, (X, Y), "copyto"), "copyto(x, y)"),
        (Call(COPY, numpy.copyto, (Item(X, ...), Item(Y, (0, 1)))), "x[...] = y[(0, 1)]"),
        (Call(VIEW, None, (Member(X, "mT"),), results=(Y,)), "y = x.mT"),
        (Call(CALL, len, (slice(1, None, 2),), "len"), "len(slice(1, None, 2))"),
        (Call(CALL, len, (Member(X, "copy", ()),), "len"), "len(x.copy())"),
        (Call(VIEW, None, (Member(X, "reshape", ((3, 2),)),), results=(Y,)), "y = x.reshape((3, 2))"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_a_call_is_a_line(source, call, line):
    assert source.line(call) == line


def test_a_recorded_operation_is_a_call(source):
    split = Operation("linalg.split", numpy.split, (X, 2), {"axis": 1}, (Y, ROW), several=True)
    assert source.line(Call.of(split)) == "y, row, = linalg_split(x, 2, axis=1)"
    assert Call.of(split, VIEW).kind == VIEW


def test_functions_and_arrays_are_constants_with_names(source):
    one, other = numpy.ones(3), numpy.ones(3)
    lines = [source.text(Call(CALL, f, (x,), "f")) for f in (numpy.sin, numpy.cos) for x in (one, other)]
    assert lines == ["f(constant)", "f(constant_2)", "f_2(constant)", "f_2(constant_2)"]
    assert source.constants == {"f": numpy.sin, "f_2": numpy.cos, "constant": one, "constant_2": other}


def test_numbers_that_cannot_be_written_out_are_constants(source):
    assert source.items((float("nan"), numpy.float64(1.5), 1.5)) == "constant, constant_2, 1.5"


def test_memory_of_one_name_is_as_large_as_the_largest(source):
    for nbytes in (10, 30, 20):
        assert source.text(Scratch("workspace", nbytes)) == "workspace"
    assert source.scratch == {"workspace": 30}


def test_a_step_is_a_view_or_none():
    view = Call(VIEW, None, (Member(X, "mT"),), results=(Y,))
    assert Step([X], [Y], [view]).is_view
    assert not Step([X], [Y]).is_view
    assert not Step([X], [Y], [Call(COPY, numpy.copyto, (Y, X))]).is_view
