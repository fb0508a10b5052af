"""Elementwise functions: arithmetic, powers, exponentials, trigonometry, comparisons.

What a rule receives, ``xp, g, y`` and the inputs, is said in `xpnet.autodiff.primitive`.
"""

import cmath
import math
from typing import Any

from xpnet.autodiff.primitive import Primitive, binary, composite, function, unary
from xpnet.autodiff.rules.kinks import is_traced, subgradient

# -- arithmetic ---------------------------------------------------------------------------------------------

binary("add", lambda xp, g, _y, _x1, _x2: g, lambda xp, g, _y, _x1, _x2: g)
binary("subtract", lambda xp, g, _y, _x1, _x2: g, lambda xp, g, _y, _x1, _x2: -g)
binary("multiply", lambda xp, g, _y, _x1, x2: g * x2, lambda xp, g, _y, x1, _x2: g * x1)
binary("divide", lambda xp, g, _y, _x1, x2: g / x2, lambda xp, g, y, _x1, x2: -g * y / x2)
binary("floor_divide")
binary(
    "remainder",
    lambda xp, g, _y, _x1, _x2: g,
    lambda xp, g, _y, x1, x2: -g * xp.floor_divide(x1, x2),
)
unary("negative", lambda xp, g, _y, _x: -g)
unary("positive", lambda xp, g, _y, _x: g)
unary("reciprocal", lambda xp, g, y, _x: -g * y * y)
unary("square", lambda xp, g, _y, x: g * (2 * x))
unary("sqrt", lambda xp, g, y, _x: g / (2 * y))


def _pow_x1(xp: Any, g: Any, _y: Any, x1: Any, x2: Any) -> Any:
    if isinstance(x2, int | float | complex):
        return g * (x2 * x1 ** (x2 - 1)) if x2 != 0 else 0 * g
    at_zero = x2 == 0  # 0 ** -1 would be infinite
    if is_traced(xp):  # the derivative of other powers by x2 needs it
        at_zero = at_zero & (x1 == 0)
    slope = x2 * x1 ** (xp.where(at_zero, xp.ones_like(x2), x2) - 1)
    return subgradient(xp, g, slope, lambda: (_is_steep(xp, x1, x2), x2))


def _is_steep(xp: Any, x1: Any, x2: Any) -> Any:
    """Say where derivatives of ``x1 ** x2`` by both are infinite or unknown."""
    return (x1 == 0) & (xp.abs(x2) <= 1)


def _pow_x2(xp: Any, g: Any, y: Any, x1: Any, x2: Any) -> Any:
    if isinstance(x1, int | float | complex):
        if x1 == 0:  # 0 ** x2 does not change with x2, where it is finite
            return g * (0 * y)
        if isinstance(x1, complex) or xp.isdtype(y.dtype, "complex floating"):
            return g * y * cmath.log(x1)
        return g * y * (math.log(x1) if x1 > 0 else math.nan)
    slope = y * xp.log(xp.where(x1 == 0, xp.ones_like(x1), x1))
    return subgradient(xp, g, slope, lambda: (_is_steep(xp, x1, x2), x1 + x2))


binary("pow", _pow_x1, _pow_x2)

# -- exponentials and logarithms ----------------------------------------------------------------------------

unary("exp", lambda xp, g, y, _x: g * y)
unary("expm1", lambda xp, g, _y, x: g * xp.exp(x))  # y + 1 would have no figures left where y is near -1
unary("log", lambda xp, g, _y, x: g / x)
unary("log1p", lambda xp, g, _y, x: g / (1 + x))
unary("log2", lambda xp, g, _y, x: g / x / math.log(2))
unary("log10", lambda xp, g, _y, x: g / x / math.log(10))


def logistic(xp: Any, x: Any) -> Any:
    """Return ``1 / (1 + exp(-x))``, for rules, computed without overflow and with all figures."""
    if is_traced(xp):  # as a function of its own, as its steps have kinks
        return xp.logistic(x)
    return xp.exp(xp.minimum(x, 0.0)) / (1 + xp.exp(-xp.abs(x)))


Primitive("logistic", [lambda xp, g, y, x: g * y * logistic(xp, -x)], compute=logistic)
binary(
    "logaddexp",
    lambda xp, g, _y, x1, x2: g * logistic(xp, x1 - x2),
    lambda xp, g, _y, x1, x2: g * logistic(xp, x2 - x1),
)

# -- trigonometric and hyperbolic functions -----------------------------------------------------------------


def one_less_square(xp: Any, x: Any) -> Any:
    """Return 1 - x², for rules: as a product, since the difference would lose figures near ±1."""
    if is_traced(xp):  # as a function of its own, as the derivative of the product loses figures near 0
        return xp.one_less_square(x)
    return (1 - x) * (1 + x)


Primitive("one_less_square", [lambda xp, g, _y, x: -2 * g * x], compute=one_less_square)


def _asinh(xp: Any, g: Any, _y: Any, x: Any) -> Any:
    if xp.isdtype(x.dtype, "complex floating"):
        return g / xp.sqrt(x * x + 1)
    return g / xp.hypot(x, xp.ones_like(x))  # whose square could be infinite


unary("sin", lambda xp, g, _y, x: g * xp.cos(x))
unary("cos", lambda xp, g, _y, x: -g * xp.sin(x))
unary("tan", lambda xp, g, y, _x: g + g * y * y)
unary("asin", lambda xp, g, _y, x: g / xp.sqrt(one_less_square(xp, x)))
unary("acos", lambda xp, g, _y, x: -g / xp.sqrt(one_less_square(xp, x)))
unary("atan", lambda xp, g, _y, x: g / (1 + x * x))
unary("sinh", lambda xp, g, _y, x: g * xp.cosh(x))
unary("cosh", lambda xp, g, _y, x: g * xp.sinh(x))
unary("tanh", lambda xp, g, y, _x: g - g * y * y)
unary("asinh", _asinh)
unary("acosh", lambda xp, g, _y, x: g / (xp.sqrt(x - 1) * xp.sqrt(x + 1)))
unary("atanh", lambda xp, g, _y, x: g / one_less_square(xp, x))


def _atan2(xp: Any, g: Any, x: Any, x1: Any, x2: Any) -> Any:
    """Return ``g * x / (x1² + x2²)``, whose squares could be infinite or 0."""
    length = xp.hypot(x1, x2)
    return g * (x / length) / length


binary(
    "atan2",
    lambda xp, g, _y, x1, x2: _atan2(xp, g, x2, x1, x2),
    lambda xp, g, _y, x1, x2: _atan2(xp, -g, x1, x1, x2),
)
binary(
    "hypot",
    lambda xp, g, y, x1, _x2: g * (x1 / y),
    lambda xp, g, y, _x1, x2: g * (x2 / y),
)

# -- magnitude, sign and selection --------------------------------------------------------------------------


def conj(xp: Any, x: Any) -> Any:
    """Conjugate complex numbers, without a copy of real ones."""
    return xp.conj(x) if xp.isdtype(x.dtype, "complex floating") else x


def _abs(xp: Any, g: Any, y: Any, x: Any) -> Any:
    if x.dtype == y.dtype:  # real numbers: the absolute value of complex ones is real
        return subgradient(xp, g, xp.sign(x), lambda: (x == 0, x), corner=True)
    return subgradient(xp, g, xp.conj(x) / xp.where(y == 0, xp.ones_like(y), y), lambda: (y == 0, x))


unary("abs", _abs)


def _sign(xp: Any, g: Any, y: Any, x: Any) -> Any:
    if not xp.isdtype(x.dtype, "complex floating"):
        return 0 * g
    # z / abs(z) changes with the phase of z alone.
    size = xp.abs(x)
    slope = xp.where(size == 0, 0.0, 1 / xp.where(size == 0, xp.ones_like(size), size))
    return subgradient(xp, g - conj(xp, y) * xp.real(y * g), slope, lambda: (size == 0, x))


unary("sign", _sign)
unary("signbit")
binary(
    "copysign",
    lambda xp, g, y, x1, _x2: xp.where(xp.signbit(x1) == xp.signbit(y), g, -g),
    lambda xp, g, _y, _x1, _x2: 0 * g,
)
binary("nextafter", lambda xp, g, _y, _x1, _x2: g, lambda xp, g, _y, _x1, _x2: 0 * g)
# Where both are equal, the gradient goes to the second: maximum(x, 0), a ReLU, has the derivative 0 at 0.
# Where one is NaN, too: plans take ReLUs into products, which note where x > 0.
binary(
    "maximum",
    lambda xp, g, _y, x1, x2: xp.where(x1 > x2, g, 0.0),
    lambda xp, g, _y, x1, x2: xp.where(x1 > x2, 0.0, g),
)
binary(
    "minimum",
    lambda xp, g, _y, x1, x2: xp.where(x1 < x2, g, 0.0),
    lambda xp, g, _y, x1, x2: xp.where(x1 < x2, 0.0, g),
)


@composite
def clip(xp: Any, x: Any, /, min: Any = None, max: Any = None) -> Any:
    y = x if min is None else xp.maximum(x, min)
    y = y if max is None else xp.minimum(y, max)
    return xp.asarray(x, copy=True) if y is x else xp.astype(y, x.dtype, copy=False)


@function(
    None,
    lambda xp, g, _y, condition, _x1, _x2: xp.where(condition, g, 0.0),
    lambda xp, g, _y, condition, _x1, _x2: xp.where(condition, 0.0, g),
)
def where(call: Any, condition: Any, x1: Any, x2: Any, /) -> Any:
    return call(condition, x1, x2)


# -- complex numbers ----------------------------------------------------------------------------------------
#
# In the sweep, gradients of complex values are conjugated: see `xpnet.autodiff.backward`.

unary("conj", lambda xp, g, _y, _x: conj(xp, g))
unary("real", lambda xp, g, _y, _x: g)
unary("imag", lambda xp, g, _y, _x: g * -1j)

# -- rounding, tests, comparisons, logic and bits: no gradient ----------------------------------------------

for name in (
    "ceil",
    "floor",
    "round",
    "trunc",
    "isfinite",
    "isinf",
    "isnan",
    "logical_not",
    "bitwise_invert",
):
    unary(name)
for name in (
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_left_shift",
    "bitwise_right_shift",
):
    binary(name)
