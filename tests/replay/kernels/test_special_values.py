"""Replays give what the library gives for zeros of both signs, infinity and NaN, whatever the dtypes."""

from itertools import combinations_with_replacement, product

import numpy
import pytest

import xpnet
from tests.replay.cases import assert_identical
from xpnet.replay.functions import COMPARISONS

DTYPES = ["float32", "float64", "int8", "int32", "int64", "uint8", "uint64", "bool"]

# Functions whose results are the same bits on any processor. Which zero `maximum` takes of two is not.
OF_ONE = [
    "abs",
    "ceil",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "logical_not",
    "negative",
    "positive",
    "reciprocal",
]
OF_ONE += ["round", "sign", "sqrt", "square", "trunc", "bitwise_invert"]
OF_TWO = [
    "add",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "copysign",
    "divide",
    "equal",
    "greater",
    "less_equal",
]
OF_TWO += [
    "greater_equal",
    "less",
    "logical_and",
    "logical_or",
    "logical_xor",
    "multiply",
    "not_equal",
    "subtract",
]


def special(dtype):
    """Return numbers of a dtype with which something may go wrong."""
    dtype = numpy.dtype(dtype)
    if dtype.kind == "b":
        return numpy.asarray([False, True])
    if dtype.kind == "f":
        # None of which, nor what becomes of two of them, is too small to be normal and not zero.
        return numpy.asarray(
            [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -0.5, 300, -1e10, 1e-25, 1e30],
            dtype,
        )
    limits = numpy.iinfo(dtype)
    return numpy.unique(numpy.asarray([limits.min, limits.max, 0, 1, 2, 3, 100], dtype))


def check(functions, *arrays):
    """Compare those of some functions that the library has for such arrays, all of them in one recording."""
    xp = xpnet.array_namespace(*arrays)
    known = {}
    with numpy.errstate(all="ignore"):
        for name, f in functions.items():
            try:
                f(xp, *arrays)
            except (OverflowError, TypeError):
                continue
            known[name] = f

        def all_of_them(*arrays):
            xp = xpnet.array_namespace(*arrays)
            results = {name: f(xp, *arrays) for name, f in known.items()}
            # Read again, so that each of them is a part of a loop.
            return results, {name: xp.where(xp.equal(y, y), y, y) for name, y in results.items()}

        expected, recorded = all_of_them(*arrays), xpnet.jit(all_of_them)
        for _ in range(2):
            for found, right in zip(recorded(*arrays), expected, strict=True):
                for name in known:
                    assert_identical(found[name], right[name], name)
    return set(known)


def named(names):
    return {name: lambda xp, *arrays, name=name: getattr(xp, name)(*arrays) for name in names}


def pairs(dtype, other):
    return (x.reshape(-1) for x in numpy.meshgrid(special(dtype), special(other)))


@pytest.mark.plans("numpy", "numba")
def test_functions(kind_of_plan):
    x, y = pairs("float32", "float32")
    assert {"add", "equal", "logical_or"} <= check(named(OF_TWO), x, y)
    assert {"abs", "logical_not", "sqrt"} <= check(named(OF_ONE), x)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "other"), list(combinations_with_replacement(DTYPES, 2)))
def test_functions_of_two_dtypes(dtype, other, kind_of_plan):
    x, y = pairs(dtype, other)
    check(named(OF_TWO), x, y)
    check(named(OF_ONE), x)
    numbers = [True, 2, -1, 0.0, -0.0, 2.5, numpy.nan, numpy.inf]
    functions = {f"{name}, {n}": lambda xp, x, name=name, n=n: getattr(xp, name)(x, n)
                 for name, n in product(OF_TWO, numbers)}  # fmt: skip
    check(functions, x)


@pytest.mark.parametrize("dtype", ["float64", "int8", "int32", "uint8", "uint64"])
def test_where_with_a_condition_of_numbers(dtype, kind_of_plan):
    condition = special(dtype)
    x = numpy.linspace(-3, 3, len(condition))
    f = lambda xp, c, x: xp.where(c, x * 2, x)
    assert check({"where": f, "0.0": lambda xp, c, x: xp.where(c, x, 0.0)}, condition, x)


@pytest.mark.parametrize(("dtype", "number"), [("int32", 2**40), ("int8", 300), ("uint8", -1), ("bool", 2)])
def test_comparisons_with_numbers_that_a_dtype_does_not_have(dtype, number, kind_of_plan):
    functions = {name: lambda xp, x, name=name: getattr(xp, name)(x, number) for name in COMPARISONS}
    assert check(functions, special(dtype)) == COMPARISONS


def test_a_rectified_zero_is_positive(kind_of_plan):
    x = special("float32")
    check({"relu": lambda xp, x: xp.maximum(x, 0), "its inverse": lambda xp, x: 1 / xp.maximum(x, 0)}, x)
    check(
        {"max": lambda xp, x: abs(xp.maximum(x, x[::-1])), "min": lambda xp, x: abs(xp.minimum(x, x[::-1]))},
        x,
    )


def test_totals(kind_of_plan):
    """Of pairs of numbers, so that the order does not matter: -0.0 and -0.0 are 0.0 together."""
    x = numpy.stack(list(pairs("float32", "float32")), axis=1)
    functions = {}
    for name, axis in product(["sum", "mean", "max", "min"], [0, 1, None]):
        size = slice(None) if axis == 1 else slice(3, 5)  # one zero of each sign

        def f(xp, x, name=name, axis=axis, size=size):
            y = getattr(xp, name)(x[size] * 1, axis=axis)
            return abs(y) if name in ("max", "min") else y

        functions[f"{name}, {axis}"] = f
    assert len(check(functions, x)) == len(functions)


@pytest.mark.plans("numpy", "numba")
def test_sums_of_negative_zeros(kind_of_plan):
    functions = {
        f"{name}, {axis}": lambda xp, x, name=name, axis=axis: getattr(xp, name)(x * 1, axis=axis)
        for name, axis in product(["sum", "mean"], [0, 1, None])
    }
    assert len(check(functions, numpy.full((3, 9), -0.0))) == 6
