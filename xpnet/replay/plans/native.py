"""Native code that goes through a table: what numba compiles once, for all plans.

What a table is says `table.py`. Compiled code that is kept is compared with these modules before it is used
again: see `numba.py`.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import carray, float64, njit, types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from xpnet.replay.plans.table import (
    ARRAY,
    BASE,
    BEFORE,
    CLASS,
    COUNT,
    DIMENSIONS,
    DTYPE,
    ELEMENTS,
    FLAGS,
    FOUND,
    HEAD,
    IN_ORDER,
    ITEMS,
    NDIM,
    NUMBER,
    OF_DTYPE,
    OF_NUMPY,
    OFFSET,
    PLACE,
    PLACES,
    ROW,
    ROWS,
    SHAPE,
    SIZE,
    STOPPED,
    TYPE,
    WORD,
    WRITEABLE,
    WRITTEN,
)

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


@intrinsic
def foreign(_context: Any, result: Any, _function: Any, arguments: Any) -> Any:
    """Call a function of C at an address with a tuple of arguments; it returns a number, or None nothing."""
    returned = types.void if result is types.none else result.instance_type

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        given = [context.get_value_type(each) for each in arguments.types]
        to = ir.VoidType() if returned is types.void else context.get_value_type(returned)
        address = builder.inttoptr(values[1], ir.FunctionType(to, given).as_pointer())
        called = builder.call(address, unpack_tuple(builder, values[2]))
        return context.get_dummy_value() if returned is types.void else called

    return returned(result, types.int64, arguments), generate


# -- what several threads look at -------------------------------------------------------------------------

# All of these are in one order for all threads.
_ORDER = "seq_cst"


@intrinsic
def atomic_load(_context: Any, _address: Any) -> Any:
    """Return the word at an address that another thread may write to."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _WORD.as_pointer()), _ORDER, 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(_context: Any, _address: Any, _value: Any) -> Any:
    """Put a word where another thread may read it."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        builder.store_atomic(arguments[1], place, _ORDER, 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _changed(operation: str) -> Any:
    """Return what changes a word at an address, and returns what was there."""

    @intrinsic
    def change(_context: Any, _address: Any, _value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], _WORD.as_pointer())
            return builder.atomic_rmw(operation, place, arguments[1], _ORDER)

        return types.int64(types.int64, types.int64), generate

    return change


atomic_add, exchange = _changed("add"), _changed("xchg")


@intrinsic
def put_if(_context: Any, _address: Any, _expected: Any, _value: Any) -> Any:
    """Put a word at an address if there is what is expected, and say whether it was."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        found = builder.cmpxchg(place, arguments[1], arguments[2], _ORDER, _ORDER)
        return builder.extract_value(found, 1)

    return types.bool_(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(_context: Any) -> Any:
    """Tell the processor that this thread waits for another one."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if _X86:
            builder.call(_function("llvm.x86.sse2.pause", builder, ir.VoidType()), [])
        elif _ARM:
            number = ir.IntType(32)
            builder.call(_function("llvm.aarch64.hint", builder, ir.VoidType(), number), [number(1)])
        return context.get_dummy_value()

    return types.void(), generate


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


@njit(error_model="numpy")
def flush_denormals(place: int) -> None:
    """Let arithmetic of this thread make zeros of what is too small; put the settings before at a place.

    The word behind it is for those that they become.
    """
    get_settings(place)
    store(place + 8, load(place) | FLUSH)
    set_settings(place + 8)


def _function(name: str, builder: Any, result: Any, *arguments: Any) -> Any:
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _call_x86(name: str, builder: Any, address: Any) -> None:
    of_bytes = ir.IntType(8).as_pointer()
    function = _function(name, builder, ir.VoidType(), of_bytes)
    builder.call(function, [builder.inttoptr(address, of_bytes)])


# -- the driver -------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def put_places(table: int, arrays: int) -> None:
    """Fill in addresses in a tuple of arrays."""
    place = table + 8 * HEAD
    for _ in range(load(table + 8 * PLACES)):
        elements = load(arrays + ITEMS + 8 * load(place + 8 * ARRAY)) + ELEMENTS
        if load(elements - ELEMENTS + TYPE) == load(table + 8 * CLASS):
            elements = load(elements)  # of a number of NumPy's, they are in the object itself
        store(load(place + 8 * WORD), elements + load(place + 8 * OFFSET))
        place += 8 * PLACE


@njit(error_model="numpy")
def go(table: int) -> None:
    """Do the rows of a table, one after the other."""
    store(table + 8 * STOPPED, 0)
    flush_denormals(table + 8 * BEFORE)
    row = table + 8 * (HEAD + PLACE * load(table + 8 * PLACES))
    for index in range(load(table + 8 * ROWS)):
        if call(load(row), row + 16) != 0:
            store(table + 8 * STOPPED, index + 1)
            break
        row += 16 + 8 * load(row + 8)
    set_settings(table + 8 * BEFORE)


def run(table: int, arrays: int) -> int:
    """Go through a table with a tuple of arrays; return 0, or the number of the row that stopped it."""
    put_places(table, arrays)
    go(table)
    return load(table + 8 * STOPPED)


# -- what arguments are -----------------------------------------------------------------------------------


def is_unusual(table: int, arrays: int) -> int:
    """Return 1 if any of a tuple of arrays is not what a plan was made for, or may have to be copied first.

    The table is one of `of_arguments`.
    """
    of_numpy, count, size = load(table + 8 * OF_NUMPY), load(table + 8 * COUNT), load(table + 8 * SIZE)
    found = table + 8 * FOUND
    row = first = found + 8 * size
    any_written = False
    for index in range(size):
        store(found + 8 * index, 0)
    for index in range(count):
        x = load(arrays + ITEMS + 8 * index)
        ndim = load(row + 8 * NDIM)
        if load(x + TYPE) != of_numpy:
            if load(x + TYPE) != load(row + 8 * NUMBER):
                return 1
        elif (
            load(x + FLAGS) & IN_ORDER != IN_ORDER
            or load(x + DTYPE) != load(row + 8 * OF_DTYPE)
            or load(x + DIMENSIONS) & 0xFFFFFFFF != ndim
        ):
            return 1
        else:
            for axis in range(ndim):
                if load(load(x + SHAPE) + 8 * axis) != load(row + 8 * (ROW + axis)):
                    return 1
            if load(row + 8 * WRITTEN):
                any_written = True
                slot = _slot(found, size, x)
                if load(x + BASE) or not load(x + FLAGS) & WRITEABLE or load(slot):
                    return 1
                store(slot, x)
        row += 8 * (ROW + ndim)
    if not any_written:
        return 0
    row = first
    for index in range(count):
        x = load(arrays + ITEMS + 8 * index)
        if load(x + TYPE) == of_numpy:
            base = load(x + BASE)
            if base and (
                load(base + TYPE) != of_numpy or load(base + BASE) or load(_slot(found, size, base))
            ):
                return 1
            if not load(row + 8 * WRITTEN) and load(_slot(found, size, x)):
                return 1
        row += 8 * (ROW + load(row + 8 * NDIM))
    return 0


@njit(error_model="numpy")
def _slot(found: int, size: int, x: int) -> int:
    """Return where an object is, or would be put, among those that were found."""
    index = x >> 4
    while True:
        slot = found + 8 * (index & (size - 1))
        if load(slot) == x or load(slot) == 0:
            return slot
        index += 1
