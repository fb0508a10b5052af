"""Copies as works for a table: from where to where elements go along each axis, and by which indices.

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
from xpnet.replay.plans.rounds import Piece, Region, Work
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
    """

    array: Operand
    axis: int
    of_target: bool


class _Axis(NamedTuple):
    length: int
    step_1: int
    step_2: int


def works_of_windows(
    target: Operand, windows: Operand, strides: Sequence[int], dilations: Sequence[int]
) -> list[Work]:
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
    added = works(seen, windows, name="add_windows", adds=True, in_order=True)
    zeros = works(target, products.operand(zero)._replace(word=zero), name="zeros")
    return [*zeros, *added] if added else []


def works(
    target: Operand,
    value: Operand,
    indices: Indices | None = None,
    *,
    name: str = "copyto",
    adds: bool = False,
    in_order: bool = False,
) -> list[Work]:
    """Return what copies a value, or adds it to what is there; nothing where NumPy must do it.

    The value is broadcast to the shape of the target. With ``in_order``, the last axis varies fastest, also
    where others are closer in memory. The name is that of the function, for people.
    """
    dtype = target.dtype
    elements = dtype.name if adds else _COPIED.get(dtype.itemsize)
    fits = value.dtype == dtype and len(value.shape) <= len(target.shape)
    if not fits or elements is None or (adds and elements not in _ADDED):
        return []
    by: list[_By] = []
    if indices is None:
        axes = _axes(target, value)
    else:
        array, axis, of_target = indices
        if array.dtype.name not in ("int32", "int64") or len(array.shape) != 1:
            return []
        whole = target if of_target else value
        axis %= len(whole.shape)
        length, behind = whole.shape[axis], len(whole.shape) - axis
        if not length:
            return []
        shape = (*whole.shape[:axis], *array.shape, *whole.shape[axis + 1 :])
        seen = whole._replace(shape=shape)
        axes = _axes(seen, value) if of_target else _axes(target, seen)
        # Along a single index, too, there is a step.
        along = axes.pop(len(axes) - behind)
        along = along._replace(**{"step_1" if of_target else "step_2": whole.strides[axis]})
        by = [_By(array, along, length, of_target)]
    axes = _joined(axes if in_order else sorted(axes, key=lambda axis: -abs(axis.step_1)))
    copy = _Copy(target, value, axes, by, _function(elements, dtype.itemsize, adds), name)
    return [copy.work] if copy.nanoseconds and copy.nanoseconds <= LONGEST * copy.count else []


class _By(NamedTuple):
    """Indices, the axis that they are along with what the two operands have there, and how many there are."""

    array: Operand
    axis: _Axis
    length: int
    of_target: bool


class _Copy:
    """A copy, which can be done in pieces along one axis.

    That is the axis of indices, unless these are the target's: several may be the same one. Else it is the
    first one that has several elements, or of those beside such indices the longest.

    Attributes
    ----------
    nanoseconds : float
        About how long it takes; 0 if nothing is copied.
    count : int
        How long that axis is; 1 if elements of one piece may be those of another one.
    """

    def __init__(
        self, target: Operand, value: Operand, axes: list[_Axis], by: list[_By], function: Any, name: str
    ) -> None:
        self._target, self._value, self._axes, self._by = target, value, axes, by
        self._function, self._name = function, name
        self._itemsize = target.dtype.itemsize
        self.nanoseconds = self._nanoseconds(axes) * (by[0].axis.length if by else 1)
        of_target = any(each.of_target for each in by)
        several = [number for number, axis in enumerate(axes) if axis.length > 1]
        self._cut: int | None = None  # the number of the axis; that of indices has none
        along = by[0].axis if by and not of_target else None
        if several and along is None:
            longest = max(several, key=lambda number: axes[number].length)
            self._cut = longest if of_target else several[0]
            along = axes[self._cut]
        written = [each.axis._replace(length=each.length) if of_target else each.axis for each in by]
        is_apart = along is not None and _are_apart([*axes, *written], along, self._itemsize)
        self.count = along.length if along is not None and is_apart else 1

    @property
    def work(self) -> Work:
        return Work(self._name, self.nanoseconds, self.count, self._piece)

    def _nanoseconds(self, axes: Sequence[_Axis]) -> float:
        size, last = prod(axis.length for axis in axes), axes[-1]
        is_run = last.step_1 == self._itemsize and last.step_2 in (0, self._itemsize)
        return size * self._itemsize / MOVED + RUN * (size / max(last.length, 1) if is_run else size)

    def _piece(self, first: int, last: int) -> Piece:
        """Return what copies a part along the axis; all of it if it is one piece."""
        axes, problem = [*self._axes], ""
        first_1 = first_2 = 0  # bytes
        words_of_indices: list[Any] = [0] * (NUMBER_OF_AXES - INDICES)
        read, seen_1, seen_2, times = [], [], [], 1
        if self.count > 1 and self._cut is not None:
            along = axes[self._cut]
            first_1, first_2 = first * along.step_1, first * along.step_2
            axes[self._cut] = along._replace(length=last - first)
        for array, along, length, of_target in self._by:
            step, times, start = array.strides[0], along.length, 0
            if self.count > 1 and self._cut is None:
                start, times, first_1 = first, last - first, first * along.step_1
            words_of_indices = [array.word, array.offset + start * step, array.dtype.itemsize, step]
            words_of_indices += [times, length, of_target, along.step_1, along.step_2]
            problem = f"an index of {self._name} must be from {-length} to {length - 1}; received {{}}"
            read.append(_region(array, 0, [_Axis(along.length, step, step)], 0))
            seen_1.append(along._replace(length=length if of_target else times))
            seen_2.append(along._replace(length=along.length if of_target else length))
        words = [self._target.word, self._target.offset + first_1]
        words += [self._value.word, self._value.offset + first_2, *words_of_indices]
        words += [len(axes), *(word for axis in axes for word in (*axis, 0)), 0]
        read.append(_region(self._value, first_2, [*axes, *seen_2], 1))
        written = _region(self._target, first_1, [*axes, *seen_1], 0)
        return Piece(Row(self._function, words, self._nanoseconds(axes) * times, problem), read, [written])


def _are_apart(axes: Sequence[_Axis], along: _Axis, itemsize: int) -> bool:
    """Say whether no element of a target is written for two places along an axis.

    They are not if its step is over all within it, and so is that of each axis with a longer one.
    """
    extent, is_found = itemsize, False
    for axis in sorted(axes, key=lambda axis: abs(axis.step_1)):
        if axis.length > 1:
            is_found |= axis is along
            if is_found and abs(axis.step_1) < extent:
                return False
            extent += abs(axis.step_1) * (axis.length - 1)
    return True


def _region(x: Operand, behind: int, axes: Sequence[_Axis], number: int) -> Region:
    """Return what a copy reads or writes of an operand, the first or the second one."""
    shape, strides = [axis.length for axis in axes], [axis[1 + number] for axis in axes]
    return Region.of(x.begins.array, x.begins.offset + behind, shape, strides, x.dtype.itemsize)


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
