"""The gradients of elementwise functions from the smallest to the largest numbers."""

import mpmath as mp
import numpy
import pytest

from autodiff.whole_range import DTYPES, Exact, span

HALF_PI = float(numpy.pi / 2)

everywhere = span(near=(-1.0, 1.0))
angles = span(near=(-HALF_PI, HALF_PI, 2 * HALF_PI))
positive = span(0.0, near=(1.0,))
inside = span(-1.0, 1.0, near=(-1.0, 1.0))
# For functions of two numbers: all pairs are checked.
numbers = span(number=8, fit=1)
cubes = span(number=8, fit=3)  # which the second derivatives of most of them have


def unary(name, points, first, second, **options):
    return Exact(lambda xp, x: getattr(xp, name)(x), (points,), {(0,): first, (0, 0): second}, **options)


def binary(name, points, derivatives, **options):
    return Exact(lambda xp, x1, x2: getattr(xp, name)(x1, x2), points, derivatives, **options)


def power(n):
    """A power with a number as the exponent."""
    n = float(n) if n % 1 else int(n)
    return Exact(
        lambda xp, x: x**n,
        (everywhere if isinstance(n, int) else positive,),
        {(0,): lambda x: n * x ** (n - 1), (0, 0): lambda x: n * (n - 1) * x ** (n - 2)},
    )


def _sigmoid(x1, x2):
    """The derivative of logaddexp for x1."""
    return 1 / (1 + mp.exp(x2 - x1))


EXACT = {
    # -- arithmetic
    "divide": binary(
        "divide",
        (numbers, numbers),
        {
            (0,): lambda _x1, x2: 1 / x2,
            (1,): lambda x1, x2: -x1 / x2**2,
            (0, 1): lambda _x1, x2: -1 / x2**2,
            (1, 0): lambda _x1, x2: -1 / x2**2,
            (1, 1): lambda x1, x2: 2 * x1 / x2**3,
        },
    ),
    "reciprocal": unary("reciprocal", everywhere, lambda x: -1 / x**2, lambda x: 2 / x**3),
    "square": unary("square", everywhere, lambda x: 2 * x, lambda _: mp.mpf(2)),
    "sqrt": unary("sqrt", positive, lambda x: 1 / (2 * mp.sqrt(x)), lambda x: -1 / (4 * mp.sqrt(x) ** 3)),
    **{f"power {n}": power(n) for n in (0, 1, 2, 3, 5, -1, -2, 0.5, -0.5, 1.5)},
    "pow": binary(
        "pow",
        (span(0.1, 10.0, near=(1.0,)), span(-20.0, 20.0, near=(1.0, 2.0), number=4)),
        {
            (0,): lambda x1, x2: x2 * x1 ** (x2 - 1),
            (1,): lambda x1, x2: x1**x2 * mp.log(x1),
            (0, 0): lambda x1, x2: x2 * (x2 - 1) * x1 ** (x2 - 2),
            (0, 1): lambda x1, x2: x1 ** (x2 - 1) * (1 + x2 * mp.log(x1)),
            (1, 0): lambda x1, x2: x1 ** (x2 - 1) * (1 + x2 * mp.log(x1)),
            (1, 1): lambda x1, x2: x1**x2 * mp.log(x1) ** 2,
        },
        scale=lambda x1, x2: x1 ** (x2 - 1),  # of the mixed derivatives, which are sums
    ),
    # -- exponentials and logarithms
    "exp": unary("exp", everywhere, mp.exp, mp.exp),
    "expm1": unary("expm1", everywhere, mp.exp, mp.exp),
    "log": unary("log", positive, lambda x: 1 / x, lambda x: -1 / x**2),
    "log1p": unary("log1p", span(-1.0, near=(-1.0, 1.0)), lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2),
    "log2": unary("log2", positive, lambda x: 1 / (x * mp.log(2)), lambda x: -1 / (x**2 * mp.log(2))),
    "log10": unary("log10", positive, lambda x: 1 / (x * mp.log(10)), lambda x: -1 / (x**2 * mp.log(10))),
    "logaddexp": binary(
        "logaddexp",
        (span(number=4), span(number=4)),
        {
            (0,): lambda x1, x2: _sigmoid(x1, x2),
            (1,): lambda x1, x2: _sigmoid(x2, x1),
            (0, 0): lambda x1, x2: _sigmoid(x1, x2) * _sigmoid(x2, x1),
            (0, 1): lambda x1, x2: -_sigmoid(x1, x2) * _sigmoid(x2, x1),
            (1, 0): lambda x1, x2: -_sigmoid(x1, x2) * _sigmoid(x2, x1),
            (1, 1): lambda x1, x2: _sigmoid(x1, x2) * _sigmoid(x2, x1),
        },
        moved=1,  # the difference of two numbers is rounded
    ),
    # -- trigonometric and hyperbolic functions
    "sin": unary("sin", angles, mp.cos, lambda x: -mp.sin(x)),
    "cos": unary("cos", angles, lambda x: -mp.sin(x), lambda x: -mp.cos(x)),
    "tan": unary("tan", angles, lambda x: mp.sec(x) ** 2, lambda x: 2 * mp.sec(x) ** 2 * mp.tan(x)),
    "asin": unary("asin", inside, lambda x: 1 / mp.sqrt(1 - x * x), lambda x: x / mp.sqrt(1 - x * x) ** 3),
    "acos": unary("acos", inside, lambda x: -1 / mp.sqrt(1 - x * x), lambda x: -x / mp.sqrt(1 - x * x) ** 3),
    "atan": unary("atan", span(fit=4), lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2),
    "sinh": unary("sinh", everywhere, mp.cosh, mp.sinh),
    "cosh": unary("cosh", everywhere, mp.sinh, mp.cosh),
    "tanh": unary(
        "tanh",
        everywhere,
        lambda x: mp.sech(x) ** 2,
        lambda x: -2 * mp.sech(x) ** 2 * mp.tanh(x),
        scale=lambda _: 1,
    ),
    "asinh": unary(
        "asinh", everywhere, lambda x: 1 / mp.sqrt(1 + x * x), lambda x: -x / mp.sqrt(1 + x * x) ** 3
    ),
    "acosh": unary(
        "acosh",
        span(1.0, near=(1.0,)),
        lambda x: 1 / mp.sqrt(x * x - 1),
        lambda x: -x / mp.sqrt(x * x - 1) ** 3,
    ),
    "atanh": unary("atanh", inside, lambda x: 1 / (1 - x * x), lambda x: 2 * x / (1 - x * x) ** 2),
    "atan2": binary(
        "atan2",
        (numbers, numbers),
        {(0,): lambda x1, x2: x2 / (x1**2 + x2**2), (1,): lambda x1, x2: -x1 / (x1**2 + x2**2)},
    ),
    "atan2 twice": binary(
        "atan2",
        (cubes, cubes),
        {
            (0, 0): lambda x1, x2: -2 * x1 * x2 / (x1**2 + x2**2) ** 2,
            (0, 1): lambda x1, x2: (x1**2 - x2**2) / (x1**2 + x2**2) ** 2,
            (1, 0): lambda x1, x2: (x1**2 - x2**2) / (x1**2 + x2**2) ** 2,
            (1, 1): lambda x1, x2: 2 * x1 * x2 / (x1**2 + x2**2) ** 2,
        },
        scale=lambda x1, x2: 1 / (x1**2 + x2**2),
    ),
    "hypot": binary(
        "hypot",
        (numbers, numbers),
        {(0,): lambda x1, x2: x1 / mp.hypot(x1, x2), (1,): lambda x1, x2: x2 / mp.hypot(x1, x2)},
    ),
    "hypot twice": binary(
        "hypot",
        (cubes, cubes),
        {
            (0, 0): lambda x1, x2: x2**2 / mp.hypot(x1, x2) ** 3,
            (0, 1): lambda x1, x2: -x1 * x2 / mp.hypot(x1, x2) ** 3,
            (1, 0): lambda x1, x2: -x1 * x2 / mp.hypot(x1, x2) ** 3,
            (1, 1): lambda x1, x2: x1**2 / mp.hypot(x1, x2) ** 3,
        },
        scale=lambda x1, x2: 1 / mp.hypot(x1, x2),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_gradients(name, dtype):
    EXACT[name].check(dtype)
