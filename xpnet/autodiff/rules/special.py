"""Special functions, with the names of `scipy.special`, computed by `xpnet.backends.special_functions`.

Those whose names begin with an underscore are xpnet's own, and what rules are made of: `special_parts.py` has
them. The derivatives are those of NIST's Digital Library of Mathematical Functions, https://dlmf.nist.gov.
That of a distribution function is the density, and that of its inverse 1 over it.
"""

import math
import operator
from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature
from typing import Any

from xpnet.autodiff.primitive import Primitive, Rule, composite, function, no_rule
from xpnet.autodiff.rules import special_parts
from xpnet.autodiff.rules.elementwise import logistic
from xpnet.autodiff.rules.special_parts import floats, nan_outside
from xpnet.backends import at_least_single, in_dtype

_ROOT_PI = math.sqrt(math.pi)
_ROOT_2_PI = math.sqrt(2 * math.pi)


def special(declaration: str, *, compute: Callable | None = None, **rules: Rule) -> None:
    """Declare an elementwise function as ``special("xlogy(x, y)", x=rule, y=rule)``.

    An argument that is not named has no rule; what stands behind ``*`` is a parameter and no array.
    """
    name, _, rest = declaration.removesuffix(")").partition("(")
    arrays, _, parameters = rest.partition(", *, ")
    names = arrays.split(", ")

    def define(call: Any, *arrays: Any, **parameters: Any) -> Any:
        return call(*arrays, **parameters)

    define.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(one, Parameter.POSITIONAL_ONLY) for one in ("call", *names)]
        + [Parameter(one, Parameter.KEYWORD_ONLY) for one in parameters.split(", ") if one]
    )
    if compute is None and len(names) > 1:
        compute = partial(_beside_numbers, name)
    given = [rules.get(one, no_rule) for one in names]
    Primitive(f"special.{name}", given, define=define, compute=compute)


def _beside_numbers(name: str, xp: Any, *values: Any) -> Any:
    """Call a function so that numbers leave the dtype of the arrays; SciPy computes some in double then."""
    value = getattr(xp.special, name)(*values)
    arrays = [x for x in values if hasattr(x, "dtype")]
    floating = ("real floating", "complex floating")
    if len(arrays) == len(values) or not all(xp.isdtype(x.dtype, floating) for x in arrays):
        return value
    return xp.astype(value, xp.result_type(*arrays), copy=False)


def part(declaration: str, **rules: Rule) -> None:
    """Declare a function of `special_parts.py`, with an underscore before its name."""
    compute = getattr(special_parts, declaration.partition("(")[0])
    special(f"_{declaration}", compute=compute, **rules)


# -- logistic functions -------------------------------------------------------------------------------------

special("expit(x)", x=lambda xp, g, _y, x: g * xp.special._logistic_density(x))
special("log_expit(x)", x=lambda xp, g, _y, x: g * logistic(xp, -x))
part("logistic_density(x)", x=lambda xp, g, y, x: -g * y * xp.tanh(0.5 * x))
special("logit(x)", x=lambda xp, g, _y, x: nan_outside(xp, (x >= 0) & (x <= 1), g / x + g / (1 - x)))

# -- the error function and the normal distribution ---------------------------------------------------------

special("erf(x)", x=lambda xp, g, _y, x: g * (2 / _ROOT_PI) * xp.exp(-x * x))
special("erfc(x)", x=lambda xp, g, _y, x: g * (-2 / _ROOT_PI) * xp.exp(-x * x))
special("erfi(x)", x=lambda xp, g, _y, x: g * (2 / _ROOT_PI) * xp.exp(x * x))
special(
    "erfcx(x)", x=lambda xp, g, y, x: g * (-math.sqrt(2) * y * xp.special._tail_ratio(x * -math.sqrt(2), n=1))
)
special("erfinv(x)", x=lambda xp, g, y, _x: g * (_ROOT_PI / 2) * xp.exp(y * y))
special("erfcinv(x)", x=lambda xp, g, y, x: g * (-_ROOT_PI / 2) * xp.special._exp_of_square(y, x))
special("ndtr(x)", x=lambda xp, g, _y, x: g * xp.exp(-0.5 * x * x) / _ROOT_2_PI)
special("log_ndtr(x)", x=lambda xp, g, _y, x: g * xp.special._hazard(x))
special(
    "ndtri(p)", p=lambda xp, g, y, p: g * _ROOT_2_PI * xp.special._exp_of_square(y * -math.sqrt(0.5), 2 * p)
)
special("ndtri_exp(y)", y=lambda xp, g, y, _x: g * xp.special._mills_ratio(y))
part(
    "exp_of_square(x, tail)",
    x=lambda xp, g, y, x, _tail: 2 * g * x * y,
    tail=lambda xp, g, _y, _x, _tail: 0 * g,
)
part("mills_ratio(x)", x=lambda xp, g, y, x: g * y * xp.special._tail_ratio(x, n=1))
part("hazard(x)", x=lambda xp, g, y, x: -g * y * xp.special._tail_ratio(x, n=1))
part(
    "tail_ratio(x, *, n)",
    x=lambda xp, g, y, x, *, n: g * y * ((n + 1) * xp.special._tail_ratio(x, n=n + 1) - n * y),
)

# -- the gamma function and its relatives -------------------------------------------------------------------

special("gamma(x)", x=lambda xp, g, y, x: g * y * xp.special.digamma(x))
special("rgamma(x)", x=lambda xp, g, _y, x: g * special_parts.rgamma_derivative(xp, x))
special("gammaln(x)", x=lambda xp, g, _y, x: g * xp.special.digamma(x))
for _name in ("digamma", "psi"):
    special(f"{_name}(x)", x=lambda xp, g, _y, x: g * xp.special._polygamma(x, n=1))
part("polygamma(x, *, n)", x=lambda xp, g, _y, x, *, n: g * xp.special._polygamma(x, n=n + 1))
part(
    "polygamma_difference(a, b, *, n)",
    a=lambda xp, g, _y, a, b, *, n: g * xp.special._polygamma_difference(a, b, n=n + 1),
    b=lambda xp, g, _y, a, b, *, n: g * xp.special._polygamma(a + b, n=n + 1),
)


def _digamma_difference(xp: Any, a: Any, b: Any) -> Any:
    return xp.special._polygamma_difference(a, b, n=0)


@composite(extension="special")
def polygamma(xp: Any, n: int, x: Any, /) -> Any:
    return xp.special._polygamma(x, n=operator.index(n))


@composite(extension="special")
def multigammaln(xp: Any, a: Any, d: int, /) -> Any:
    constant = d * (d - 1) / 4 * math.log(math.pi)
    total = sum((xp.special.gammaln(a - 0.5 * j) for j in range(1, d)), xp.special.gammaln(a) + constant)
    return nan_outside(xp, a > (d - 1) / 2, total)


special(
    "betaln(a, b)",
    a=lambda xp, g, _y, a, b: -g * _digamma_difference(xp, a, b),
    b=lambda xp, g, _y, a, b: -g * _digamma_difference(xp, b, a),
)
special(
    "beta(a, b)",
    a=lambda xp, g, y, a, b: -g * y * _digamma_difference(xp, a, b),
    b=lambda xp, g, y, a, b: -g * y * _digamma_difference(xp, b, a),
)
special(
    "poch(z, m)",
    z=lambda xp, g, y, z, m: g * y * _digamma_difference(xp, z, m),
    m=lambda xp, g, y, z, m: g * y * xp.special.digamma(z + m),
)
special(
    "zeta(x, q)",
    q=lambda xp, g, _y, x, q: nan_outside(xp, floats(xp, x, q) > 1, -g * x * xp.special.zeta(x + 1, q)),
)

# -- the gamma distribution and its relatives ---------------------------------------------------------------


def _half(xp: Any, degrees: Any, like: Any) -> Any:
    """Return half of the degrees of freedom, which may be whole numbers."""
    return 0.5 * floats(xp, degrees, like)


part(
    "gamma_density(a, x)",
    a=lambda xp, g, y, a, x: g * y * (xp.log(x) - xp.special.digamma(a)),
    x=lambda xp, g, y, a, x: g * y * (a - 1) / x - g * y,
)
special("gammainc(a, x)", x=lambda xp, g, _y, a, x: g * xp.special._gamma_density(a, x))
special("gammaincc(a, x)", x=lambda xp, g, _y, a, x: -g * xp.special._gamma_density(a, x))
special("gammaincinv(a, y)", y=lambda xp, g, y, a, _p: g / xp.special._gamma_density(a, y))
special("gammainccinv(a, y)", y=lambda xp, g, y, a, _p: -g / xp.special._gamma_density(a, y))
special(
    "chdtr(v, x)", x=lambda xp, g, _y, v, x: 0.5 * g * xp.special._gamma_density(_half(xp, v, x), 0.5 * x)
)
special(
    "chdtrc(v, x)", x=lambda xp, g, _y, v, x: -0.5 * g * xp.special._gamma_density(_half(xp, v, x), 0.5 * x)
)
special(
    "chdtri(v, p)", p=lambda xp, g, y, v, _p: -2 * g / xp.special._gamma_density(_half(xp, v, y), 0.5 * y)
)
special(
    "gdtr(a, b, x)",
    a=lambda xp, g, _y, a, b, x: g * x * xp.special._gamma_density(b, a * x),
    x=lambda xp, g, _y, a, b, x: g * a * xp.special._gamma_density(b, a * x),
)
special(
    "gdtrc(a, b, x)",
    a=lambda xp, g, _y, a, b, x: -g * x * xp.special._gamma_density(b, a * x),
    x=lambda xp, g, _y, a, b, x: -g * a * xp.special._gamma_density(b, a * x),
)
special("pdtr(k, m)", m=lambda xp, g, _y, k, m: -g * xp.special._gamma_density(_counted(xp, k, m) + 1, m))
special("pdtrc(k, m)", m=lambda xp, g, _y, k, m: g * xp.special._gamma_density(_counted(xp, k, m) + 1, m))
special("pdtri(k, y)", y=lambda xp, g, y, k, _p: -g / xp.special._gamma_density(_counted(xp, k, y) + 1, y))


def _counted(xp: Any, k: Any, like: Any) -> Any:
    """Return a number of events as an array of whole numbers, of the dtype of another."""
    return xp.floor(floats(xp, k, like))


# -- the beta distribution and its relatives ----------------------------------------------------------------

part(
    "beta_density(a, b, x, rest)",
    a=lambda xp, g, y, a, b, x, _rest: g * y * (xp.log(x) + _digamma_difference(xp, a, b)),
    b=lambda xp, g, y, a, b, _x, rest: g * y * (xp.log(rest) + _digamma_difference(xp, b, a)),
    x=lambda xp, g, y, a, _b, x, _rest: g * y * (a - 1) / x,
    rest=lambda xp, g, y, _a, b, _x, rest: g * y * (b - 1) / rest,
)
special("betainc(a, b, x)", x=lambda xp, g, _y, a, b, x: g * xp.special._beta_density(a, b, x, 1 - x))
special("betaincc(a, b, x)", x=lambda xp, g, _y, a, b, x: -g * xp.special._beta_density(a, b, x, 1 - x))
special("betaincinv(a, b, y)", y=lambda xp, g, y, a, b, _p: g / xp.special._beta_density(a, b, y, 1 - y))
special("betainccinv(a, b, y)", y=lambda xp, g, y, a, b, _p: -g / xp.special._beta_density(a, b, y, 1 - y))


def _slope_of_f(xp: Any, g: Any, y: Any, dfn: Any, dfd: Any, x: Any) -> Any:
    a, b, share, rest = special_parts.f_parts(xp, dfn, dfd, x)
    # Twice the same number, from that of share and rest which has more figures.
    return g * y * xp.where(share < 0.5, a - 1 - (a + b) * share, (a + b) * rest - (b + 1)) / x


part("f_density(dfn, dfd, x)", x=_slope_of_f)
special("fdtr(dfn, dfd, x)", x=lambda xp, g, _y, dfn, dfd, x: g * xp.special._f_density(dfn, dfd, x))
special("fdtrc(dfn, dfd, x)", x=lambda xp, g, _y, dfn, dfd, x: -g * xp.special._f_density(dfn, dfd, x))
special("fdtri(dfn, dfd, p)", p=lambda xp, g, y, dfn, dfd, _p: g / xp.special._f_density(dfn, dfd, y))


def _slope_of_student(xp: Any, g: Any, y: Any, df: Any, t: Any) -> Any:
    df = floats(xp, df, t)
    return -g * y * (1 + 1 / df) * t / (1 + t * t / df)


part("student_density(df, t)", t=_slope_of_student)
special("stdtr(df, t)", t=lambda xp, g, _y, df, t: g * xp.special._student_density(df, t))
special("stdtrit(df, p)", p=lambda xp, g, y, df, _p: g / xp.special._student_density(df, y))


def _successes(xp: Any, k: Any, n: Any, p: Any) -> Any:
    """Return minus the derivative of bdtr, the distribution function of the binomial distribution."""
    k, n = _counted(xp, k, p), floats(xp, n, p)
    return xp.special._beta_density(k + 1, n - k, p, 1 - p)


def _failures(xp: Any, k: Any, n: Any, p: Any) -> Any:
    """Return the derivative of nbdtr, the distribution function of the negative binomial distribution."""
    k, n = _counted(xp, k, p), floats(xp, n, p)
    return xp.special._beta_density(n, k + 1, p, 1 - p)


special("bdtr(k, n, p)", p=lambda xp, g, _y, k, n, p: -g * _successes(xp, k, n, p))
special("bdtrc(k, n, p)", p=lambda xp, g, _y, k, n, p: g * _successes(xp, k, n, p))
special("bdtri(k, n, y)", y=lambda xp, g, y, k, n, _p: -g / _successes(xp, k, n, y))
special("nbdtr(k, n, p)", p=lambda xp, g, _y, k, n, p: g * _failures(xp, k, n, p))
special("nbdtrc(k, n, p)", p=lambda xp, g, _y, k, n, p: -g * _failures(xp, k, n, p))
special("nbdtri(k, n, y)", y=lambda xp, g, y, k, n, _p: g / _failures(xp, k, n, y))

# -- the Kolmogorov distribution ----------------------------------------------------------------------------

special("kolmogorov(y)", y=lambda xp, g, _y, x: -g * special_parts.kolmogorov_density(xp, x))
special("kolmogi(p)", p=lambda xp, g, y, _p: -g / special_parts.kolmogorov_density(xp, y))

# -- Bessel functions ---------------------------------------------------------------------------------------

part(
    "bessel_quotient(x, *, n, sign)",
    x=lambda xp, g, _y, x, *, n, sign: sign * g * x * xp.special._bessel_quotient(x, n=n + 1, sign=sign),
)
part("bessel_moment(x, *, n)", x=lambda xp, g, _y, x, *, n: -g * xp.special._bessel_moment(x, n=n + 1))


def _slope_of_i1(xp: Any, g: Any, _y: Any, x: Any) -> Any:
    first, second = [xp.special._bessel_quotient(x, n=n, sign=1) for n in (1, 2)]
    return g * (first + x * x * second)


special("i0(x)", x=lambda xp, g, _y, x: g * xp.special.i1(x))
special("i1(x)", x=_slope_of_i1)
special("i0e(x)", x=lambda xp, g, _y, x: -g * xp.sign(x) * xp.special._bessel_moment(xp.abs(x), n=1))
special("i1e(x)", x=lambda xp, g, _y, x: g * _slope_of_i1e(xp, xp.abs(x)))
special("j0(x)", x=lambda xp, g, _y, x: -g * xp.special.j1(x))
special("j1(x)", x=lambda xp, g, _y, x: g * (xp.special.j0(x) - xp.special._bessel_quotient(x, n=1, sign=-1)))
special("y0(x)", x=lambda xp, g, _y, x: -g * xp.special.y1(x))
special("y1(x)", x=lambda xp, g, y, x: g * (xp.special.y0(x) - y / x))
special("k0(x)", x=lambda xp, g, _y, x: -g * xp.special.k1(x))
special("k1(x)", x=lambda xp, g, y, x: -g * (xp.special.k0(x) + y / x))


def _slope_of_i1e(xp: Any, size: Any) -> Any:
    return xp.special._bessel_moment(size, n=2) - xp.special._bessel_moment(size, n=1)


# -- exponential integrals, powers and their like -----------------------------------------------------------

special("exp1(x)", x=lambda xp, g, _y, x: nan_outside(xp, x >= 0, -g * xp.exp(-x) / x))
special("expi(x)", x=lambda xp, g, _y, x: g * xp.special._exp_quotient(x, n=1))
part(
    "exp_quotient(x, *, n)",
    x=lambda xp, g, _y, x, *, n: g * (xp.special._exp_quotient(x, n=n + 1) * (x - n)),
)
special("exp2(x)", x=lambda xp, g, y, _x: g * math.log(2) * y)
special("exp10(x)", x=lambda xp, g, y, _x: g * math.log(10) * y)
special("cbrt(x)", x=lambda xp, g, y, _x: g / (3 * y * y))
part("sinc_quotient(x, *, n)", x=lambda xp, g, _y, x, *, n: -g * x * xp.special._sinc_quotient(x, n=n + 1))
special(
    "sinc(x)", x=lambda xp, g, _y, x: g * (-(math.pi**2)) * x * xp.special._sinc_quotient(math.pi * x, n=1)
)


@composite(extension="special")
def expm1(xp: Any, x: Any, /) -> Any:
    return xp.expm1(x)


@composite(extension="special")
def log1p(xp: Any, x: Any, /) -> Any:
    return xp.log1p(x)


special(
    "boxcox(x, lmbda)",
    x=lambda xp, g, _y, x, lmbda: nan_outside(xp, x >= 0, g * x ** (floats(xp, lmbda, x) - 1)),
)
special(
    "boxcox1p(x, lmbda)",
    x=lambda xp, g, _y, x, lmbda: g * xp.exp((floats(xp, lmbda, x) - 1) * xp.log1p(x)),
)
special("inv_boxcox(y, lmbda)", y=lambda xp, g, y, _x, lmbda: g * y ** (1 - floats(xp, lmbda, y)))
special(
    "inv_boxcox1p(y, lmbda)",
    y=lambda xp, g, _y, x, lmbda: g * xp.special.inv_boxcox(x, lmbda) ** (1 - floats(xp, lmbda, x)),
)


def _slope_of_soft_clip(xp: Any, g: Any, _y: Any, delta: Any, r: Any) -> Any:
    delta = floats(xp, delta, r)
    share = delta / xp.hypot(r, delta)
    return nan_outside(xp, delta > 0, g * share * share * share)


special(
    "huber(delta, r)",
    delta=lambda xp, g, _y, delta, r: nan_outside(
        xp, delta >= 0, g * xp.maximum(xp.abs(floats(xp, r, delta)) - delta, 0.0)
    ),
    r=lambda xp, g, _y, delta, r: g * _clipped(xp, floats(xp, delta, r), r),
)
special("pseudo_huber(delta, r)", r=lambda xp, g, _y, delta, r: g * xp.special._soft_clip(delta, r))
part("soft_clip(delta, r)", r=_slope_of_soft_clip)


def _clipped(xp: Any, delta: Any, r: Any) -> Any:
    return nan_outside(xp, delta >= 0, xp.maximum(xp.minimum(r, delta), -delta))


# -- entropies ----------------------------------------------------------------------------------------------

part(
    "quotient(x1, x2)",
    x1=lambda xp, g, _y, _x1, x2: g / x2,
    x2=lambda xp, g, y, _x1, x2: -xp.special._quotient(g * y, x2),
)
part("log_ratio(x1, x2)", x1=lambda xp, g, _y, x1, _x2: g / x1, x2=lambda xp, g, _y, _x1, x2: -g / x2)
special("entr(x)", x=lambda xp, g, _y, x: -g * (xp.log(x) + 1))
special(
    "xlogy(x, y)",
    x=lambda xp, g, _y, _x1, x2: g * xp.log(floats(xp, x2, g)),
    y=lambda xp, g, _y, x1, x2: g * xp.special._quotient(x1, x2),
)
special(
    "xlog1py(x, y)",
    x=lambda xp, g, _y, _x1, x2: g * xp.log1p(floats(xp, x2, g)),
    y=lambda xp, g, _y, x1, x2: g * xp.special._quotient(x1, 1 + x2),
)


def _share(xp: Any, x1: Any, x2: Any) -> Any:
    x1 = floats(xp, x1, x2)
    return xp.special._quotient(nan_outside(xp, (x1 >= 0) & (x2 >= 0), x1), x2)


special(
    "rel_entr(x, y)",
    x=lambda xp, g, _y, x1, x2: g * (xp.special._log_ratio(x1, x2) + 1),
    y=lambda xp, g, _y, x1, x2: -g * _share(xp, x1, x2),
)
special(
    "kl_div(x, y)",
    x=lambda xp, g, _y, x1, x2: g * xp.special._log_ratio(x1, x2),
    y=lambda xp, g, _y, x1, x2: g * (1 - _share(xp, x1, x2)),
)

# -- sums of exponentials -----------------------------------------------------------------------------------


def _shifted(xp: Any, x: Any, axis: Any) -> tuple[Any, Any, Any]:
    """Return what to subtract, a finite constant, what is left, and the sum of its exponentials."""
    x = _in_single(xp, x)
    largest = _largest(xp.plain, xp.lift(x).value, axis)
    left = xp.subtract(x, largest)
    return largest, left, xp.sum(xp.exp(left), axis=axis, keepdims=True)


def _largest(xp: Any, x: Any, axis: Any) -> Any:
    """Return the largest elements, or 0 where they are infinite, and where there are none."""
    if 0 in x.shape:
        return 0.0
    largest = xp.max(x, axis=axis, keepdims=True)
    return xp.where(xp.isfinite(largest), largest, 0.0)


def _in_single(xp: Any, x: Any) -> Any:
    """Return floating-point numbers in single precision at least: float16 has no sum of 65,520 ones."""
    return at_least_single(xp, x) if xp.isdtype(x.dtype, "real floating") else x


def _narrowed(xp: Any, y: Any, x: Any) -> Any:
    """Return a result in the dtype of an input of floating-point numbers."""
    return in_dtype(xp, y, x.dtype) if xp.isdtype(x.dtype, "real floating") else y


@composite(extension="special")
def logsumexp(xp: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    largest, _, total = _shifted(xp, x, axis)
    result = _narrowed(xp, xp.log(total) + largest, x)
    if keepdims:
        return result
    return xp.squeeze(result, axis=tuple(range(len(x.shape))) if axis is None else axis)


def _compute_softmax(xp: Any, x: Any, *, axis: Any) -> Any:
    wide = _in_single(xp, x)
    exponentials = xp.exp(wide - _largest(xp, wide, axis))
    return _narrowed(xp, exponentials / xp.sum(exponentials, axis=axis, keepdims=True), x)


@function(
    lambda xp, g, y, _x, *, axis: y * (g - xp.sum(g * y, axis=axis, keepdims=True)),
    compute=_compute_softmax,
    extension="special",
)
def softmax(call: Any, x: Any, /, *, axis: Any = None) -> Any:
    return call(x, axis=axis)


@composite(extension="special")
def log_softmax(xp: Any, x: Any, /, *, axis: Any = None) -> Any:
    _, left, total = _shifted(xp, x, axis)
    return _narrowed(xp, left - xp.log(total), x)
