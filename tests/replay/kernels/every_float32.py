"""How far the functions of `elementary.py` are from the true values, for each float32 that there is.

``python tests/replay/kernels/every_float32.py`` tries all (`nox -s every-float32`), also where the processor
takes denormal numbers for zero, and writes the worst of each function. A sample is part of the suite.
"""

import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import llvmlite.ir
import numpy
import scipy.special
from numba import njit, types
from numba.extending import intrinsic

from xpnet.replay.kernels import elementary

# The true values: of float64, which has twice as many digits.
TRUE = {name: getattr(numpy, name) for name in ("exp", "expm1", "log", "log1p", "tanh")}
TRUE |= {name: getattr(scipy.special, name) for name in ("expit", "erf")}
AT_MOST = 2.0  # units in the last place
SMALLEST = float(numpy.finfo("float32").tiny)  # that is not denormal
FLUSHED = 0x8040  # the bits of MXCSR by which denormal results, and arguments, are zero
EXPONENT = numpy.uint64(0x7FF << 52)  # the bits of a float64 that say which power of two it begins with
CAN_FLUSH = platform.machine() in ("x86_64", "AMD64")


def _of_mxcsr(name):
    """Return a function that hands an address to an instruction for the register MXCSR."""

    @intrinsic
    def call(_context, _address):
        def generate(_context, builder, _signature, arguments):
            byte = llvmlite.ir.PointerType(llvmlite.ir.IntType(8))
            function = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [byte])
            function = builder.module.declare_intrinsic(f"llvm.x86.sse.{name}", (), function)
            builder.call(function, [builder.inttoptr(arguments[0], byte)])

        return types.void(types.intp), generate

    return njit(lambda address: call(address))


@cache
def _loop(name):
    function = getattr(elementary, name)

    @njit(error_model="numpy")
    def loop(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    return loop


@cache
def _register():
    return _of_mxcsr("stmxcsr"), _of_mxcsr("ldmxcsr")


def computed(name, x, *, flushed):
    """Return what a loop of numba computes, with denormal numbers or without."""
    y, loop = numpy.empty_like(x), _loop(name)
    if not flushed:
        loop(x, y)
        return y
    loop(x[:0], y[:0])  # compiled before
    read, write = _register()
    register = numpy.zeros(2, numpy.int32)
    read(register.ctypes.data)
    register[1] = register[0] | FLUSHED
    write(register[1:].ctypes.data)
    try:
        loop(x, y)
    finally:
        write(register.ctypes.data)
    return y


@njit(error_model="numpy")
def errors(y, true, expected, flushed):
    """Return how many units in the last place each number is from the true one: infinity where it is wrong.

    A zero must have its sign. ``expected`` are the true values, rounded.
    """
    found = numpy.empty(y.size)
    for i in range(y.size):
        size = abs(true[i])
        if true[i] != true[i] or size == numpy.inf or abs(expected[i]) == numpy.inf or size == 0:
            same = y[i] == expected[i] and numpy.signbit(y[i]) == numpy.signbit(true[i])
            found[i] = 0.0 if same or (true[i] != true[i] and y[i] != y[i]) else numpy.inf
        elif flushed and y[i] == 0 and size < SMALLEST:
            found[i] = 0.0 if numpy.signbit(y[i]) == numpy.signbit(true[i]) else numpy.inf
        else:
            bits = numpy.float64(max(size, SMALLEST)).view(numpy.uint64)
            power = numpy.uint64(bits & EXPONENT).view(numpy.float64)
            error = abs(y[i] - true[i]) / (power * 2.0**-23)
            found[i] = error if error == error else numpy.inf
    return found


def worst(name, x):
    """Return for both modes the largest error of a function, and where it is."""
    with numpy.errstate(all="ignore"):
        true = TRUE[name](x.astype("float64"))
        expected = true.astype("float32")
    found = []
    for flushed in (False, True)[: 1 + CAN_FLUSH]:
        error = errors(computed(name, x, flushed=flushed), true, expected, flushed)
        found.append((float(error.max()), float(x[error.argmax()])))
    return found


def _of_bits(name, first, end, step=1 << 16):
    largest = [(0.0, 0.0)] * (1 + CAN_FLUSH)
    for start in range(first, end, step):
        x = numpy.arange(start, start + step, dtype="uint32").view("float32")
        largest = list(map(max, largest, worst(name, x)))
    return largest


def main():
    parts = 64
    ends = [number * (2**32 // parts) for number in range(parts + 1)]
    print(f"{'':8}{'worst':>8} at {'':16}{'flushed':>8} at", flush=True)
    wrong = False
    with ProcessPoolExecutor() as pool:
        for name in TRUE:
            found = pool.map(_of_bits, [name] * parts, ends[:-1], ends[1:])
            largest = [max(each) for each in zip(*found, strict=True)]
            wrong |= any(error > AT_MOST for error, _ in largest)
            print(f"{name:8}" + "".join(f"{error:8.4f} at {at!r:<16}" for error, at in largest), flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
