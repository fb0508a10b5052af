"""Copies by native code are those of NumPy, wherever elements are, and whatever indices say."""

import ctypes

import numpy
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from xpnet.autodiff import windows
from xpnet.replay.plans import copies
from xpnet.replay.plans.copies import Indices
from xpnet.replay.plans.products import operand
from xpnet.replay.plans.rounds import evenly

pytest.importorskip("numba")
random = numpy.random.default_rng(0)


def run(works, number=1):
    """Do works, in so many pieces where it can be, and return what each one returns, with its last word."""
    assert works
    returned = []
    for row in (piece.row for work in works for piece in work.cut(evenly(work.count, number))):
        words = [x.ctypes.data if isinstance(x, numpy.ndarray) else x for x in row.words]
        words = numpy.asarray(words, numpy.int64)
        function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(row.function.address)
        returned.append((function(words.ctypes.data), words[-1]))
    return returned


def drawn(*shape, dtype="float32"):
    return random.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def framed(shape, dtype):
    """Return an array with elements around it that must stay, and all of them."""
    whole = numpy.full([n + 2 for n in shape], 77).astype(dtype)
    return whole[(..., *(slice(1, -1) for _ in shape))], whole


def a_key(random, shape):
    """Return slices of any direction."""
    steps = random.choice([-2, -1, 1, 2], len(shape)).tolist()
    return (..., *(slice(None, None, step) for step in steps))


def check(target, value):
    """Copy into a part of an array, and assert that it is done as NumPy does."""
    before = target.copy()
    works = copies.works(operand(target), operand(value))
    target[...] = value
    expected = target.copy()
    for number in (1, 2, 3):
        target[...] = before
        assert all(returned == 0 for returned, _ in run(works, number))
        numpy.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("seed", range(60))
def test_any_axes_and_strides(seed):
    random = numpy.random.default_rng(seed)
    dtype = random.choice(["float32", "float64", "bool", "int16", "complex64", "uint8"])
    shape = random.integers(1, 7, random.integers(0, 5)).tolist()
    value = drawn(*shape, dtype=dtype).transpose(random.permutation(len(shape)))
    value = value[a_key(random, value.shape)]
    target, whole = framed(value.shape, dtype)
    frame = numpy.ones(whole.shape, bool)
    frame[(..., *(slice(1, -1) for _ in target.shape))] = False
    check(target, value)
    check(target[a_key(random, target.shape)][..., None], numpy.ones((1,), dtype))
    assert (whole[frame] == numpy.asarray(77).astype(dtype)).all()


def test_broadcast_and_overlapping_values():
    x = drawn(40)
    check(numpy.empty((5, 36), "float32"), sliding_window_view(x, 36))
    check(numpy.empty((9, 4), "float32"), as_strided(x, (9, 4), (0, 4)))
    check(numpy.empty((3, 9, 4), "float32"), drawn(9, 1))
    check(numpy.empty((3, 9, 4), "float32"), drawn(4))
    check(numpy.zeros((3, 9), "float32").T, drawn(1))


def test_axes_are_joined():
    def axes(target, value):
        (work,) = copies.works(operand(target), operand(value))
        behind = work.piece(0, work.count).row.words[copies.AXES : -1]
        return [tuple(behind[start : start + 3]) for start in range(0, len(behind), copies.AXIS)]

    x = drawn(4, 5, 6)
    assert axes(numpy.empty_like(x), x) == [(1, 0, 0), (120, 4, 4)]
    assert axes(numpy.empty_like(x), x[::-1]) == [(4, 120, -120), (30, 4, 4)]
    # What is closest in the target varies fastest.
    assert axes(numpy.empty((6, 4, 5), "float32").transpose(1, 2, 0), x) == [(6, 80, 4), (20, 4, 24)]


@pytest.mark.parametrize("refused", [
    (drawn(3), drawn(3, dtype="float64")),
    (drawn(3, dtype="complex128"), drawn(3, dtype="complex128")),
    (drawn(0, 3), drawn(0, 3)),
    (drawn(3), drawn(1, 3)),
])  # fmt: skip
def test_what_numpy_must_copy(refused):
    assert copies.works(*map(operand, refused)) == []


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("index", [[3, -1, 0, 3, -4, 2, 3], [2], [-1, -1]])
def test_indices(axis, dtype, adds, index):
    index = numpy.asarray(index, dtype)[::-1]
    by = Indices(operand(index), axis, False)
    x = random.normal(size=(4, 4, 4)).astype("float32").transpose(2, 0, 1)
    expected = numpy.take(x, index, axis)
    for number in (1, 3):
        found = numpy.zeros_like(expected)
        run(copies.works(operand(found), operand(x), by), number)
        assert found.tobytes() == expected.tobytes()

    values = random.normal(size=expected.shape).astype("float32")
    key = (*[slice(None)] * (axis % 3), index)
    expected, found = x.copy(), x.copy()
    if adds:
        numpy.add.at(expected, key, values)
    else:
        expected[key] = values
    run(copies.works(operand(found), operand(values), by._replace(of_target=True), adds=adds))
    assert found.tobytes() == expected.tobytes()


def test_one_value_is_added_to_all():
    x = drawn(3, 4)
    expected = x + 5
    run(copies.works(operand(x), operand(numpy.full(1, 5, x.dtype)), adds=True))
    numpy.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("wrong", [4, -5, 2**40, -(2**63)])
def test_an_index_that_is_none_changes_nothing(wrong):
    index = numpy.asarray([0, 1, wrong, 7])
    x, values = drawn(4, 3), drawn(4, 3) + 1
    before = x.copy()
    for of_target in (False, True):
        by = Indices(operand(index), 0, of_target)
        assert run(copies.works(operand(x), operand(values), by)) == [(1, wrong)]
        numpy.testing.assert_array_equal(x, before)


def test_there_are_no_indices_of_an_empty_axis():
    by = Indices(operand(numpy.asarray([0])), 0, False)
    assert copies.works(operand(drawn(1, 3)), operand(drawn(0, 3)), by) == []


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (3, 5, 4, 2, 1, 0)])
@pytest.mark.parametrize(
    ("sizes", "strides", "dilations"),
    [((3, 2), (1, 1), (1, 1)), ((2, 3), (2, 1), (1, 2)), ((2, 2), (3, 3), (1, 1))],
)
def test_windows_are_added_in_the_order_of_numpy(sizes, strides, dilations, order):
    options = {"strides": strides, "dilations": dilations}
    shape = (2, 7, 11, 3)
    like = windows.windows(numpy, numpy.empty(shape, "float32"), sizes=sizes, **options)
    parts = [like.shape[axis] for axis in order]
    w = random.normal(size=parts).astype("float32").transpose(numpy.argsort(order))
    expected = windows.add_windows(numpy, w, shape=shape, **options)
    for number in (1, 2):
        found = numpy.full(shape, numpy.nan, "float32")
        run(copies.works_of_windows(operand(found), operand(w), **options), number)
        assert found.tobytes() == expected.tobytes()
