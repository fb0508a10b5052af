"""Special functions, with the names of `scipy.special`, computed by `xpnet.backends.special_functions`."""

import math
from typing import Any

from xpnet.autodiff.primitive import binary, composite, function, unary

_ROOT_PI = math.sqrt(math.pi)
_ROOT_2_PI = math.sqrt(2 * math.pi)

# -- logistic functions -------------------------------------------------------------------------------------

unary("special.expit", lambda xp, g, y, _x: g * y * (1 - y))
unary("special.logit", lambda xp, g, _y, x: g / (x * (1 - x)))

# -- the error function and the normal distribution ---------------------------------------------------------

unary("special.erf", lambda xp, g, _y, x: g * (2 / _ROOT_PI) * xp.exp(-x * x))
unary("special.erfc", lambda xp, g, _y, x: g * (-2 / _ROOT_PI) * xp.exp(-x * x))
unary("special.erfinv", lambda xp, g, y, _x: g * (_ROOT_PI / 2) * xp.exp(y * y))
unary("special.ndtr", lambda xp, g, _y, x: g * xp.exp(-0.5 * x * x) / _ROOT_2_PI)
unary("special.log_ndtr", lambda xp, g, y, x: g * xp.exp(-0.5 * x * x - y) / _ROOT_2_PI)
unary("special.ndtri", lambda xp, g, y, _x: g * _ROOT_2_PI * xp.exp(0.5 * y * y))

# -- the gamma function and its relatives -------------------------------------------------------------------

unary("special.gamma", lambda xp, g, y, x: g * y * xp.special.digamma(x))
unary("special.gammaln", lambda xp, g, _y, x: g * xp.special.digamma(x))
unary("special.digamma", lambda xp, g, _y, x: g * xp.special.polygamma(1, x))


@function(
    lambda xp, g, _y, x, *, n: g * xp.special.polygamma(n + 1, x),
    compute=lambda xp, x, *, n: xp.special.polygamma(n, x),
    extension="special",
)
def polygamma(call: Any, n: int, x: Any, /) -> Any:
    return call(x, n=n)


@composite(extension="special")
def betaln(xp: Any, a: Any, b: Any, /) -> Any:
    return xp.special.gammaln(a) + xp.special.gammaln(b) - xp.special.gammaln(xp.add(a, b))


# -- Bessel functions ---------------------------------------------------------------------------------------


def _over(xp: Any, y: Any, x: Any) -> Any:
    """Return y / x, and at 0, where i1 is x / 2, one half."""
    return xp.where(x == 0, 0.5 * xp.ones_like(x), y / xp.where(x == 0, xp.ones_like(x), x))


unary("special.i0", lambda xp, g, _y, x: g * xp.special.i1(x))
unary("special.i0e", lambda xp, g, y, x: g * (xp.special.i1e(x) - xp.sign(x) * y))
unary("special.i1", lambda xp, g, y, x: g * (xp.special.i0(x) - _over(xp, y, x)))
unary("special.i1e", lambda xp, g, y, x: g * (xp.special.i0e(x) - xp.sign(x) * y - _over(xp, y, x)))

# -- entropies ----------------------------------------------------------------------------------------------

unary("special.entr", lambda xp, g, _y, x: -g * (xp.log(x) + 1))
binary(
    "special.xlogy",
    lambda xp, g, _y, _x1, x2: g * xp.log(x2),
    lambda xp, g, _y, x1, x2: g * x1 / x2,
)
binary(
    "special.xlog1py",
    lambda xp, g, _y, _x1, x2: g * xp.log1p(x2),
    lambda xp, g, _y, x1, x2: g * x1 / (1 + x2),
)


@composite(extension="special")
def rel_entr(xp: Any, x1: Any, x2: Any, /) -> Any:
    return xp.special.xlogy(x1, xp.divide(x1, x2))


@composite(extension="special")
def kl_div(xp: Any, x1: Any, x2: Any, /) -> Any:
    return rel_entr(xp, x1, x2) - x1 + x2


# -- sums of exponentials -----------------------------------------------------------------------------------


@composite(extension="special")
def logsumexp(xp: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    largest = xp.max(x, axis=axis, keepdims=True)
    largest = xp.lift(xp.plain.where(xp.plain.isfinite(largest.value), largest.value, 0.0))
    result = xp.log(xp.sum(xp.exp(xp.subtract(x, largest)), axis=axis, keepdims=True)) + largest
    if keepdims:
        return result
    return xp.squeeze(result, axis=tuple(range(len(x.shape))) if axis is None else axis)


@composite(extension="special")
def softmax(xp: Any, x: Any, /, *, axis: Any = None) -> Any:
    return xp.exp(log_softmax(xp, x, axis=axis))


@composite(extension="special")
def log_softmax(xp: Any, x: Any, /, *, axis: Any = None) -> Any:
    return xp.subtract(x, logsumexp(xp, x, axis=axis, keepdims=True))
