"""Sums in NumPy's order, and extremes, for loops of numba, which import this module when they are compiled.

NumPy adds up what stands one after the other in parts of up to 128 elements, each as eight sums of every
eighth element. What is longer is halved, at a multiple of eight, until it is such a part. So the mean of
equal numbers and the sum of numbers that cancel are what they are in NumPy, on any processor.
"""

from collections.abc import Callable
from typing import Any

import numpy
from numba import njit

# An index is unsigned, or numba would ask whether it is negative.
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT = map(numpy.uint64, range(1, 9))
SIXTEEN, MOST = map(numpy.uint64, (16, 128))


@njit(error_model="numpy")
def add_up(x: Any, start: numpy.uint64, end: numpy.uint64) -> Any:
    """Return the sum of the elements of an array from one place up to another."""
    if end - start > MOST:
        middle = start + (end - start) // SIXTEEN * EIGHT
        return add_up(x, start, middle) + add_up(x, middle, end)
    total = x[start]
    rest = start + ONE
    if end - start >= EIGHT:
        t1, t2, t3 = x[start + ONE], x[start + TWO], x[start + THREE]
        t4, t5, t6, t7 = x[start + FOUR], x[start + FIVE], x[start + SIX], x[start + SEVEN]
        rest = end - (end - start) % EIGHT
        for k in range(start + EIGHT, rest, EIGHT):
            total += x[k]
            t1 += x[k + ONE]
            t2 += x[k + TWO]
            t3 += x[k + THREE]
            t4 += x[k + FOUR]
            t5 += x[k + FIVE]
            t6 += x[k + SIX]
            t7 += x[k + SEVEN]
        total = ((total + t1) + (t2 + t3)) + ((t4 + t5) + (t6 + t7))
    for k in range(rest, end):
        total += x[k]
    return total


@njit(error_model="numpy")
def end_of_chunk(first: int, count: int, most: int) -> tuple[int, int]:
    """Return where the chunk ends that begins at a place, of at most so many elements, and halves with it."""
    start, end, halves = 0, count, 0
    while end - start > most:
        middle = start + (end - start) // 16 * 8
        if first < middle:
            end, halves = middle, 0
        else:
            start, halves = middle, halves + 1
    return end, halves


@njit(error_model="numpy")
def put(total: Any, totals: Any, number: int, halves: int) -> None:
    """Add the sum of a chunk to those of the halves before it that end there; put it behind the others."""
    for _ in range(halves):
        number -= 1
        total = totals[number] + total
    totals[number] = total


def _extreme(choose: Callable, dtype: type, integer: type) -> Callable:
    """Return a function of the largest or smallest element from one place of an array up to another.

    That is NaN if one element is. The function compares integers, as the compiler then takes in several
    elements at once: the bits of a number, all but the sign turned around where it is negative, are in the
    order of the numbers.
    """
    sign = integer(8 * dtype().itemsize - 1)
    size = numpy.iinfo(integer).max  # all bits but the sign
    infinity = dtype(numpy.inf).view(integer)
    first = numpy.iinfo(integer).min if choose is max else size

    def extreme(x: Any, start: numpy.uint64, end: numpy.uint64) -> Any:
        found, largest = integer(first), integer(0)
        for k in range(start, end):
            bits = dtype(x[k]).view(integer)
            found = choose(found, bits ^ ((bits >> sign) & integer(size)))
            largest = max(largest, bits & integer(size))
        result = integer(found ^ ((found >> sign) & integer(size))).view(dtype)
        return dtype(numpy.nan) if largest > infinity else result

    # In machine code, what is called alike is one.
    extreme.__qualname__ = f"{choose.__name__}_of_{dtype.__name__}"
    return njit(error_model="numpy")(extreme)


max_of_float32 = _extreme(max, numpy.float32, numpy.int32)
min_of_float32 = _extreme(min, numpy.float32, numpy.int32)
max_of_float64 = _extreme(max, numpy.float64, numpy.int64)
min_of_float64 = _extreme(min, numpy.float64, numpy.int64)
