"""Matrix products within a table: calls of functions of BLAS by their addresses. See `products.py`."""

from typing import Any

from llvmlite import ir
from numba import int32, njit, types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from xpnet.replay.plans.native import array, load
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


@intrinsic
def _foreign(_context: Any, result: Any, _function: Any, arguments: Any) -> Any:
    """Call a function of C at an address with a tuple of arguments; it returns a number, or None nothing."""
    returned = types.void if result is types.none else result.instance_type

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        given = [context.get_value_type(each) for each in arguments.types]
        to = ir.VoidType() if returned is types.void else context.get_value_type(returned)
        address = builder.inttoptr(values[1], ir.FunctionType(to, given).as_pointer())
        called = builder.call(address, unpack_tuple(builder, values[2]))
        return context.get_dummy_value() if returned is types.void else called

    return returned(result, types.int64, arguments), generate


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
            _foreign(None, function, (*matrices, one, x1, step_1, x2, step_2, zero, result, step_3))
        elif kind == _GEMV:
            matrix = by_rows, transposed_1, size_1, size_2
            _foreign(None, function, (*matrix, one, x1, step_1, x2, step_2, zero, result, step_3))
        else:
            array(result, dtype)[0] = _foreign(dtype, function, (size_3, x1, step_1, x2, step_2))
    return 0
