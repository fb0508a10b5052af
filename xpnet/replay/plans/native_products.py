"""Matrix products within a table: calls of functions of BLAS by their addresses. See `products.py`."""

from typing import Any

from numba import int32, njit

from xpnet.replay.plans.native import array, foreign, load
from xpnet.replay.plans.products import (
    ADDRESS,
    APART,
    AXES,
    AXIS,
    FIRST,
    FUNCTION,
    KIND,
    KINDS,
    LAST,
    LENGTH,
    NUMBER_OF_AXES,
    OFFSET,
    OPERAND,
    OPERANDS,
    SIZES,
    STEP,
    TRANSPOSED_1,
    TRANSPOSED_2,
)

_GEMM, _GEMV = KINDS["gemm"], KINDS["gemv"]
_BY_ROWS = 101  # CBLAS's number


@njit(error_model="numpy")
def _addresses(words: int, number: int) -> tuple[int, int, int]:
    """Return where the operands of one of several products begin."""
    place = words + 8 * OPERANDS
    x1 = load(place + 8 * ADDRESS) + load(place + 8 * OFFSET)
    place += 8 * OPERAND
    x2 = load(place + 8 * ADDRESS) + load(place + 8 * OFFSET)
    place += 8 * OPERAND
    result = load(place + 8 * ADDRESS) + load(place + 8 * OFFSET)
    axis = words + 8 * AXES
    for _ in range(load(words + 8 * NUMBER_OF_AXES)):
        length = load(axis + 8 * LENGTH)
        index, number = number % length, number // length
        apart = axis + 8 * APART
        x1 += index * load(apart)
        x2 += index * load(apart + 8)
        result += index * load(apart + 16)
        axis += 8 * AXIS
    return x1, x2, result


@njit(error_model="numpy")
def multiply(words: int, dtype: Any) -> int:
    """Do the products of a row, of numbers of a dtype.

    Sizes and steps are passed as integers of 64 bits. A function that takes 32 reads the lower half of a
    register, or of the eight bytes that an argument has on the stack. Apple's systems pack them there,
    but each stands behind a pointer, so that it begins at the same place.
    """
    function, kind = load(words + 8 * FUNCTION), load(words + 8 * KIND)
    transposed_1, transposed_2 = int32(load(words + 8 * TRANSPOSED_1)), int32(load(words + 8 * TRANSPOSED_2))
    sizes, step = words + 8 * SIZES, words + 8 * (OPERANDS + STEP)
    size_1, size_2, size_3 = load(sizes), load(sizes + 8), load(sizes + 16)
    step_1, step_2, step_3 = load(step), load(step + 8 * OPERAND), load(step + 16 * OPERAND)
    by_rows, one, zero = int32(_BY_ROWS), dtype(1), dtype(0)
    for number in range(load(words + 8 * FIRST), load(words + 8 * LAST)):
        x1, x2, result = _addresses(words, number)
        if kind == _GEMM:
            matrices = by_rows, transposed_1, transposed_2, size_1, size_2, size_3
            foreign(None, function, (*matrices, one, x1, step_1, x2, step_2, zero, result, step_3))
        elif kind == _GEMV:
            matrix = by_rows, transposed_1, size_1, size_2
            foreign(None, function, (*matrix, one, x1, step_1, x2, step_2, zero, result, step_3))
        else:
            array(result, dtype)[0] = foreign(dtype, function, (size_3, x1, step_1, x2, step_2))
    return 0
