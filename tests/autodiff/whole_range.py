"""Gradients over the whole range of a dtype, against exact values from mpmath.

To check a function, add an `Exact` to a table: the function, the points, and its derivatives in mpmath. The
rules are the same on every library, whose own functions differ in the last digits and at subnormal numbers:
these checks run on NumPy.
"""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import mpmath
import numpy

import xpnet

DTYPES = ("float32", "float64")

Points = Callable[[str], numpy.ndarray]


def span(low: float = -numpy.inf, high: float = numpy.inf, *, near: tuple = (), number: int = 24) -> Points:
    """Return the points of a dtype between two numbers, these left out.

    Parameters
    ----------
    low, high : float
    near : tuple of float
        Where points lie close together: at distances that go down to the spacing of the dtype.
    number : int
        How many points of each sign go from the smallest to the largest number, equally far apart in their
        logarithms.
    """

    def points(dtype: str) -> numpy.ndarray:
        limits = numpy.finfo(dtype)
        exponents = numpy.linspace(limits.minexp - limits.nmant, limits.maxexp - 1e-3, number)
        sizes = numpy.exp2(exponents).astype(dtype)
        distances = numpy.exp2(-numpy.linspace(1, limits.nmant, 8))
        close = [center * (1 + sign * distances) for center in near for sign in (-1, 0, 1)]
        # In double precision, numbers that are left out could be rounded to the ends.
        every = numpy.concatenate([-sizes, sizes, *close]).astype(dtype)
        return numpy.unique(every[(every > low) & (every < high)])

    return points


class Exact:
    """A function with its exact derivatives.

    Parameters
    ----------
    call : callable
        ``call(xp, *arrays)``, an elementwise function.
    points : tuple of callable
        For each argument what `span` returns. All combinations are checked.
    derivatives : dict
        Functions of mpmath's numbers, by the arguments with respect to which is differentiated, in this
        order: ``(0,)`` for the first derivative with respect to the first argument, ``(0, 1)`` for the
        derivative of that with respect to the second. A point where one of them raises ZeroDivisionError
        is left out.
    roundings : int
        How many roundings the result may be off by. NumPy's functions err by up to 4 of them on some
        processors, and a rule of second order multiplies several.
    moved : int
        By how many roundings the arguments may seem to be off, for rules that have to read the result of a
        function, or to call one, which magnifies them.
    scale : float
        What the error is relative to, if that is more than the derivative itself: 1 for a rule that
        subtracts from 1, say.
    """

    def __init__(
        self,
        call: Callable,
        points: tuple[Points, ...],
        derivatives: dict[tuple[int, ...], Callable],
        *,
        roundings: int = 32,
        moved: int = 0,
        scale: float = 0.0,
    ) -> None:
        self._call = call
        self._points = points
        self._derivatives = derivatives
        self._roundings = roundings
        self._moved = moved
        self._scale = scale

    def _value(self, *arrays: Any) -> Any:
        return self._call(xpnet.array_namespace(*arrays), *arrays)

    def check(self, dtype: str) -> None:
        """Assert that all derivatives are right at all points, with a list of the points that are not."""
        grid = numpy.meshgrid(*[points(dtype) for points in self._points], indexing="ij")
        arrays = [x.ravel() for x in grid]
        wrong = []
        with numpy.errstate(all="ignore"), mpmath.workdps(60), xpnet.use_device("cpu"):
            for arguments, exact in self._derivatives.items():
                derivative: Callable = self._value
                for argument in arguments:
                    derivative = _partial(derivative, argument)
                received = derivative(*arrays)
                assert received.dtype == numpy.dtype(dtype)
                for one, *point in zip(received, *arrays, strict=True):
                    expected, error = self._expected(exact, point, dtype)
                    if not _agrees(float(one), expected, error, dtype):
                        place = ", ".join(map(repr, map(float, point)))
                        right = mpmath.nstr(expected, 17)
                        wrong.append(f"{arguments} at ({place}): expected {right}, received {float(one)!r}")
        assert not wrong, "\n".join([f"{len(wrong)} are wrong:", *wrong[:40]])

    def _expected(self, exact: Callable, point: list, dtype: str) -> tuple[Any, Any]:
        """Return the exact derivative, and how far from it one may be that was computed."""
        limits = numpy.finfo(dtype)
        eps = mpmath.mpf(float(limits.eps))
        numbers = [mpmath.mpf(float(x)) for x in point]
        try:
            expected = exact(*numbers)
        except ZeroDivisionError:
            return mpmath.nan, 0
        error = self._roundings * (eps * max(abs(expected), self._scale) + float(limits.smallest_subnormal))
        for i, sign in itertools.product(range(len(numbers)), (-1, 1) if self._moved else ()):
            moved = [x * (1 + sign * eps) if j == i else x for j, x in enumerate(numbers)]
            with contextlib.suppress(ZeroDivisionError):
                error += self._moved * abs(exact(*moved) - expected)
        return expected, error


def _partial(f: Callable, argument: int) -> Callable:
    """Return the derivative of an elementwise function: no element depends on another."""
    return xpnet.grad(lambda *x: xpnet.array_namespace(*x).sum(f(*x)), argument)


def _agrees(received: float, expected: Any, error: Any, dtype: str) -> bool:
    if mpmath.isnan(expected):
        return True
    largest = float(numpy.finfo(dtype).max)
    if numpy.isinf(received):  # a number that does not fit is infinite, with its sign
        return bool(received * mpmath.sign(expected) > 0 and abs(expected) + error > largest)
    return bool(abs(received - expected) <= error)
