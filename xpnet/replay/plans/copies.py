"""Copies as rows of a table: from where to where elements go along each axis, and by which indices.

A copy goes through the axes of two operands at once. Axes along which one step serves are one, and those
along which the target's elements are closest come last, so that most copies are of long runs. One axis of the
target, or of what is copied, may be *indexed*: indices say where each element along it is. Values may also be
added to what is there.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy

from xpnet.replay.plans import numba, products
from xpnet.replay.plans.products import Operand
from xpnet.replay.plans.table import LONGEST, Row

# The words of a row: the target and what is copied, each with its address and how many bytes behind it it
# begins; the indices, too, the bytes of each and to the next one, how many there are, how long the axis is
# that they are for, 0 if there are none, and whether that is the target's; for each operand the bytes from
# one element along that axis to the next; and the number of axes. Behind them stand the axes, the first one
# first, and a word for an index that is none.
ADDRESS, OFFSET, OPERAND = range(3)
INDICES = 2 * OPERAND
ITEMSIZE, BETWEEN, COUNT, INDEXED, OF_TARGET, APART = range(INDICES + OPERAND, INDICES + OPERAND + 6)
NUMBER_OF_AXES = APART + 2
AXES = NUMBER_OF_AXES + 1
# Of an axis: its length, for each operand the bytes to the next element, and a word to count in.
LENGTH, STEP, NUMBER, AXIS = 0, 1, 3, 4

# In a nanosecond, a copy moves about so many bytes. A run of elements that stand one after the other takes so
# many nanoseconds more, and so does each element that stands by itself.
MOVED, RUN = 32, 1

# What elements are copied as, by their bytes, and what can be added.
_COPIED = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}
_ADDED = frozenset({"float32", "float64"})


class Indices(NamedTuple):
    """What says where elements are along an axis.

    Attributes
    ----------
    array : Operand
        With one axis.
    axis : int
        Which axis of the operand that they are for, also counted from its end.
    of_target : bool
        Whether this is the target.
    name : str
        Of the function that was given them.
    """

    array: Operand
    axis: int
    of_target: bool
    name: str


class _Axis(NamedTuple):
    length: int
    step_1: int
    step_2: int


def rows_of_windows(
    target: Operand, windows: Operand, strides: Sequence[int], dilations: Sequence[int]
) -> list[Row]:
    """Return what makes zeros and adds windows into them, see `xpnet.autodiff.windows.add_windows`.

    Each sum is added up as in a loop over the windows: numbers of windows and places within them vary in
    turns, so that one part of the target after the other is written.
    """
    zero = numpy.zeros((), target.dtype)
    first, *inner, last = target.strides
    count = len(inner)
    steps = [first]
    for step, stride, dilation in zip(inner, strides, dilations, strict=True):
        steps += [step * stride, step * dilation]
    axes = [0, *(axis for each in range(1, 1 + count) for axis in (each, each + count)), 2 * count + 1]
    shape = tuple(windows.shape[axis] for axis in axes)
    windows = windows._replace(shape=shape, strides=tuple(windows.strides[axis] for axis in axes))
    seen = target._replace(shape=shape, strides=(*steps, last))
    added = rows(seen, windows, adds=True, in_order=True)
    return [*rows(target, products.operand(zero)._replace(word=zero)), *added] if added else []


def rows(
    target: Operand,
    value: Operand,
    indices: Indices | None = None,
    *,
    adds: bool = False,
    in_order: bool = False,
) -> list[Row]:
    """Return what copies a value, or adds it to what is there; nothing where NumPy must do it.

    The value is broadcast to the shape of the target. With ``in_order``, the last axis varies fastest, also
    where others are closer in memory.
    """
    dtype = target.dtype
    name = dtype.name if adds else _COPIED.get(dtype.itemsize)
    fits = value.dtype == dtype and len(value.shape) <= len(target.shape)
    if not fits or name is None or (adds and name not in _ADDED):
        return []
    words: list[Any] = [target.word, target.offset, value.word, value.offset]
    if indices is None:
        axes = _axes(target, value)
        words += [0] * (NUMBER_OF_AXES - len(words))
        problem, count = "", 1
    else:
        array, axis, of_target, function = indices
        if array.dtype.name not in ("int32", "int64") or len(array.shape) != 1:
            return []
        (count,) = array.shape
        whole = target if of_target else value
        axis %= len(whole.shape)
        length, behind = whole.shape[axis], len(whole.shape) - axis
        if not length:
            return []
        whole = whole._replace(shape=(*whole.shape[:axis], count, *whole.shape[axis + 1 :]))
        axes = _axes(whole, value) if of_target else _axes(target, whole)
        indexed = axes.pop(len(axes) - behind)
        words += [array.word, array.offset, array.dtype.itemsize, *array.strides, count, length, of_target]
        apart = whole.strides[axis]  # also of a single index
        words += [apart, indexed.step_2] if of_target else [indexed.step_1, apart]
        problem = f"an index of {function} must be from {-length} to {length - 1}; received {{}}"
    size = count * prod(axis.length for axis in axes)
    axes = _joined(axes if in_order else sorted(axes, key=lambda axis: -abs(axis.step_1)))
    is_run = axes[-1].step_1 == dtype.itemsize and axes[-1].step_2 in (0, dtype.itemsize)
    nanoseconds = size * dtype.itemsize / MOVED + RUN * (size / axes[-1].length if is_run else size)
    if not size or nanoseconds > LONGEST:
        return []
    words += [len(axes)]
    words += [word for axis in axes for word in (*axis, 0)]
    return [Row(_function(name, dtype.itemsize, adds), [*words, 0], nanoseconds, problem)]


def _axes(target: Operand, value: Operand) -> list[_Axis]:
    """Return along which axes a value goes to a target, to whose shape it is broadcast."""
    more = len(target.shape) - len(value.shape)
    lengths = (1,) * more + value.shape
    steps = [
        0 if length == 1 else step for length, step in zip(lengths, (0,) * more + value.strides, strict=True)
    ]
    return list(map(_Axis, target.shape, target.strides, steps))


def _joined(axes: Sequence[_Axis]) -> list[_Axis]:
    """Return two axes or more, with those as one along which one step serves."""
    found: list[_Axis] = []
    for axis in axes:
        if axis.length == 1:
            continue
        together = found and found[-1][1:] == (axis.length * axis.step_1, axis.length * axis.step_2)
        found.append(axis._replace(length=axis.length * found.pop().length) if together else axis)
    return [_Axis(1, 0, 0)] * (2 - len(found)) + found


def _function(dtype: str, itemsize: int, adds: bool) -> Any:
    return numba.native(f"""\
from xpnet.replay.plans.native_copies import copy


def kernel(words):
    return copy(words, {dtype}, {itemsize}, {adds})
""")
