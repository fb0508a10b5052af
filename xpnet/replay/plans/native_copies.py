"""Copies within a table: elements along any axes, all of them or by indices. See `copies.py`."""

from typing import Any

from numba import int32, int64, njit, uint64

from xpnet.replay.plans.copies import (
    ADDRESS,
    APART,
    AXES,
    AXIS,
    BETWEEN,
    COUNT,
    INDEXED,
    INDICES,
    ITEMSIZE,
    LENGTH,
    NUMBER,
    NUMBER_OF_AXES,
    OF_TARGET,
    OFFSET,
    OPERAND,
    STEP,
)
from xpnet.replay.plans.native import array, load, store


@njit(error_model="numpy")
def _index(words: int, number: int) -> int:
    """Return one of the indices."""
    place = load(words + 8 * INDICES) + load(words + 8 * (INDICES + 1)) + number * load(words + 8 * BETWEEN)
    if load(words + 8 * ITEMSIZE) == 4:
        return int64(array(place, int32)[0])
    return load(place)


@njit(error_model="numpy")
def _first_that_is_none(words: int) -> int:
    """Return the number of the first index that is none, or how many there are."""
    count, length = load(words + 8 * COUNT), load(words + 8 * INDEXED)
    for number in range(count):
        if not -length <= _index(words, number) < length:
            return number
    return count


@njit(error_model="numpy")
def _copy_rows(target: int, source: int, axis: int, dtype: Any, itemsize: int, adds: bool) -> None:
    """Copy what lies along the last two axes."""
    rows, columns = load(axis + 8 * LENGTH), load(axis + 8 * (AXIS + LENGTH))
    next_1, next_2 = load(axis + 8 * STEP), load(axis + 8 * (STEP + 1))
    step_1, step_2 = load(axis + 8 * (AXIS + STEP)), load(axis + 8 * (AXIS + STEP + 1))
    for _ in range(rows):
        to, what = array(target, dtype), array(source, dtype)
        if step_1 == itemsize and step_2 == itemsize:
            for column in range(uint64(columns)):
                to[column] = to[column] + what[column] if adds else what[column]
        elif step_1 == itemsize and step_2 == 0:
            value = what[0]
            for column in range(uint64(columns)):
                to[column] = to[column] + value if adds else value
        else:
            at_1, at_2 = target, source
            for _ in range(columns):
                value = array(at_2, dtype)[0]
                array(at_1, dtype)[0] = array(at_1, dtype)[0] + value if adds else value
                at_1 += step_1
                at_2 += step_2
        target += next_1
        source += next_2


@njit(error_model="numpy")
def _copy_axes(target: int, source: int, words: int, dtype: Any, itemsize: int, adds: bool) -> None:
    """Copy what lies along all axes: those before the last two are counted like the digits of a number."""
    outer = load(words + 8 * NUMBER_OF_AXES) - 2
    first, axis = words + 8 * AXES, words + 8 * (AXES + AXIS * outer)
    while True:
        _copy_rows(target, source, axis, dtype, itemsize, adds)
        digit = axis
        while True:
            if digit == first:
                return
            digit -= 8 * AXIS
            number, length = load(digit + 8 * NUMBER) + 1, load(digit + 8 * LENGTH)
            step_1, step_2 = load(digit + 8 * STEP), load(digit + 8 * (STEP + 1))
            if number < length:
                store(digit + 8 * NUMBER, number)
                target += step_1
                source += step_2
                break
            store(digit + 8 * NUMBER, 0)
            target -= (length - 1) * step_1
            source -= (length - 1) * step_2


@njit(error_model="numpy")
def copy(words: int, dtype: Any, itemsize: int, adds: bool) -> int:
    """Do the copies of a row, of elements of a dtype, or add them to what is there.

    It returns 1, before anything is written, if an index is none; the index is put into the last word.
    """
    target = load(words + 8 * ADDRESS) + load(words + 8 * OFFSET)
    source = load(words + 8 * (OPERAND + ADDRESS)) + load(words + 8 * (OPERAND + OFFSET))
    count, length = load(words + 8 * COUNT), load(words + 8 * INDEXED)
    if not length:
        _copy_axes(target, source, words, dtype, itemsize, adds)
        return 0
    number = _first_that_is_none(words)
    if number < count:
        store(words + 8 * (AXES + AXIS * load(words + 8 * NUMBER_OF_AXES)), _index(words, number))
        return 1
    apart_1, apart_2 = load(words + 8 * APART), load(words + 8 * (APART + 1))
    of_target = load(words + 8 * OF_TARGET)
    for number in range(count):
        index = _index(words, number)
        index += length if index < 0 else 0
        at_1, at_2 = (index, number) if of_target else (number, index)
        _copy_axes(target + at_1 * apart_1, source + at_2 * apart_2, words, dtype, itemsize, adds)
    return 0
