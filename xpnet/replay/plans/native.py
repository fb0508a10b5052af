"""Native code that goes through a table of steps: what numba compiles once, for all plans.

A table is a stretch of words of 64 bits. It begins with the words that are named here; behind them stand the
*places*, words that are filled in at each call as they depend on arrays that are handed in, and the *rows*.
A row is the address of a function, the number of its words, and these words: addresses of operands, sizes,
numbers. The function is given the address of its words, and returns 0 unless something is wrong.

The modules that compiled code is made of are compared with it before it is used again: see `numba.py`.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import carray, float64, njit, types
from numba.extending import intrinsic

# Words of a table before its places: how many places and rows there are, what stopped it (0, or the number of
# the row, from 1), and the processor's settings for numbers, as they were and as they are meanwhile.
PLACES, ROWS, STOPPED, BEFORE, WITHIN, HEAD = range(6)
# Words of a place: what is filled in, the number of the array, and how many bytes behind its beginning.
WORD, ARRAY, OFFSET, PLACE = range(4)

# Where Python's objects have what is read of them: the length and the items of a tuple, and the address of
# the elements of an array, which is the first field of NumPy's structure. `numba.py` tries it.
TUPLE_ITEMS, ARRAY_DATA = tuple.__basicsize__, object.__basicsize__

_WORD = ir.IntType(64)


@intrinsic
def load(_context: Any, _address: Any) -> Any:
    """Return the word at an address."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()))

    return types.int64(types.int64), generate


@intrinsic
def store(_context: Any, _address: Any, _value: Any) -> Any:
    """Put a word at an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], _WORD.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def call(_context: Any, _function: Any, _words: Any) -> Any:
    """Call the function at an address with the address of its words."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(_WORD, [_WORD]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], function), [arguments[1]])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def pointer(_context: Any, _address: Any) -> Any:
    """Return an address as what `carray` takes."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


# How many elements an array is said to have at least: no one asks, as no index is counted from the end.
_MANY = 2**40


@njit(error_model="numpy")
def array(address: int, dtype: Any) -> Any:
    """Return the elements at an address as an array with one axis."""
    return carray(pointer(address), _MANY, dtype)


@njit(error_model="numpy")
def float_at(address: int) -> float:
    """Return the number of float64 at an address."""
    return array(address, float64)[0]


# -- numbers too small to be normal -----------------------------------------------------------------------

# Arithmetic with them takes a hundred times as long: a training whose loss has gone to zero takes eight times
# as long. They become zero within a table, as in JAX. Of the processor's register: bits to set for that.
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("arm64", "aarch64")
FLUSH = 0x8040 if _X86 else 1 << 24 if _ARM else 0


@intrinsic
def get_settings(_context: Any, _address: Any) -> Any:
    """Put the processor's settings for arithmetic at an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if _X86:
            _call_x86("llvm.x86.sse.stmxcsr", builder, arguments[0])
        elif _ARM:
            get = _function("llvm.aarch64.get.fpcr", builder, _WORD)
            builder.store(builder.call(get, []), builder.inttoptr(arguments[0], _WORD.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def set_settings(_context: Any, _address: Any) -> Any:
    """Let the processor have the settings at an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if _X86:
            _call_x86("llvm.x86.sse.ldmxcsr", builder, arguments[0])
        elif _ARM:
            settings = builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()))
            builder.call(_function("llvm.aarch64.set.fpcr", builder, ir.VoidType(), _WORD), [settings])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _function(name: str, builder: Any, result: Any, *arguments: Any) -> Any:
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _call_x86(name: str, builder: Any, address: Any) -> None:
    of_bytes = ir.IntType(8).as_pointer()
    function = _function(name, builder, ir.VoidType(), of_bytes)
    builder.call(function, [builder.inttoptr(address, of_bytes)])


# -- the driver -------------------------------------------------------------------------------------------


def run(table: int, arrays: int) -> int:
    """Go through a table with a tuple of arrays; return 0, or the number of the row that stopped it."""
    place = table + 8 * HEAD
    for _ in range(load(table + 8 * PLACES)):
        item = load(arrays + TUPLE_ITEMS + 8 * load(place + 8 * ARRAY))
        store(load(place + 8 * WORD), load(item + ARRAY_DATA) + load(place + 8 * OFFSET))
        place += 8 * PLACE
    store(table + 8 * STOPPED, 0)
    get_settings(table + 8 * BEFORE)
    store(table + 8 * WITHIN, load(table + 8 * BEFORE) | FLUSH)
    set_settings(table + 8 * WITHIN)
    row = place
    for index in range(load(table + 8 * ROWS)):
        if call(load(row), row + 16) != 0:
            store(table + 8 * STOPPED, index + 1)
            break
        row += 16 + 8 * load(row + 8)
    set_settings(table + 8 * BEFORE)
    return load(table + 8 * STOPPED)
