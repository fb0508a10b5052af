"""Special functions of arrays of any library, with gradients.

They have the names, arguments and values of `scipy.special`, and take plain arrays, traced ones and numbers
beside them. `xpnet.autodiff.rules.special` has their gradients.

Whatever else SciPy has under these names is here too, without a gradient: ``xpnet.special.wofz``, say.
"""

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

from xpnet import tree
from xpnet.autodiff.namespace import TracedNamespace, array_namespace, traced_namespace
from xpnet.autodiff.primitive import PRIMITIVES, no_rule
from xpnet.autodiff.tracer import Tracer
from xpnet.backends import device, is_numpy_number, special_functions
from xpnet.tree import Array

__all__ = [
    "bdtr",
    "bdtrc",
    "bdtri",
    "beta",
    "betainc",
    "betaincc",
    "betainccinv",
    "betaincinv",
    "betaln",
    "boxcox",
    "boxcox1p",
    "cbrt",
    "chdtr",
    "chdtrc",
    "chdtri",
    "digamma",
    "entr",
    "erf",
    "erfc",
    "erfcinv",
    "erfcx",
    "erfi",
    "erfinv",
    "exp1",
    "exp2",
    "exp10",
    "expi",
    "expit",
    "expm1",
    "fdtr",
    "fdtrc",
    "fdtri",
    "gamma",
    "gammainc",
    "gammaincc",
    "gammainccinv",
    "gammaincinv",
    "gammaln",
    "gdtr",
    "gdtrc",
    "huber",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "inv_boxcox",
    "inv_boxcox1p",
    "j0",
    "j1",
    "k0",
    "k1",
    "kl_div",
    "kolmogi",
    "kolmogorov",
    "log1p",
    "log_expit",
    "log_ndtr",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "nbdtr",
    "nbdtrc",
    "nbdtri",
    "ndtr",
    "ndtri",
    "ndtri_exp",
    "pdtr",
    "pdtrc",
    "pdtri",
    "poch",
    "polygamma",
    "pseudo_huber",
    "psi",
    "rel_entr",
    "rgamma",
    "sinc",
    "softmax",
    "stdtr",
    "stdtrit",
    "xlog1py",
    "xlogy",
    "y0",
    "y1",
    "zeta",
]


def _call(name: str, *arguments: Any, **options: Any) -> Any:
    """Call a special function of the namespace of its arguments, plain or traced."""
    arrays = [x for x in arguments if tree.is_array(x)]
    # Beside arrays of any other library, NumPy's numbers are numbers.
    others = [x for x in arrays if not is_numpy_number(x)] or arrays
    if not others:
        received = ", ".join(type(x).__name__ for x in arguments)
        raise TypeError(
            f"special.{name} needs an array among its arguments, received {received}. xpnet.asarray "
            "makes one."
        )
    xp = array_namespace(*others)
    if isinstance(xp, TracedNamespace):
        return getattr(xp.special, name)(*arguments, **options)
    # The traced namespace has what a library lacks; without a gradient, it records nothing.
    result = getattr(traced_namespace(xp).special, name)(*arguments, **options)
    return tree.map(lambda x: x.value if type(x) is Tracer else x, result)


def __dir__() -> list[str]:
    return __all__


@cache  # one object for each function, which pickle asks for
def __getattr__(name: str) -> Any:
    known = special_functions(device("cpu").namespace)
    if name.startswith("_") or not callable(getattr(known, name, None)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def call(*arguments: Any, **options: Any) -> Any:
        return _call(name, *arguments, **options)

    call.__name__ = call.__qualname__ = name
    return call


def _documented(*example: Any, gives: float) -> Callable[..., Any]:
    """Complete the docstring of a function: its arguments, which of them have gradients, and an example."""

    def complete(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        parameters = signature(function).parameters
        names, settings = list(parameters), [n for n, p in parameters.items() if p.annotation is int]
        arrays = [n for n in names if n not in settings]
        given = [
            f"np.asarray({x!r})" if n in arrays else repr(x) for n, x in zip(names, example, strict=True)
        ]
        alone = len(arrays) == 1
        together = "" if alone else ", in shapes that fit together, at least one of them an array"
        about = [
            f"{', '.join(arrays)} : array{'' if alone else ' or number'}",
            f"    Of real floating-point numbers{together}.",
        ]
        shape = f"of ``{arrays[0]}``" if alone else "that the arguments have together"
        for n in settings:
            about.insert(0 if n == names[0] else len(about), f"{n} : int")
        sections = [
            *_section("Parameters", *about),
            *_section("Returns", "array", f"    Of the shape {shape}."),
            *_section("Notes", _about_gradients(name)),
            *_section("Examples", ">>> import numpy as np", ">>> from xpnet import special"),
            f">>> round(float(special.{name}({', '.join(given)})), {_digits(gives)})",
            repr(gives),
        ]
        function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n" + "\n".join(
            f"    {line}".rstrip() for line in sections
        )
        function.__doc__ += "\n    "
        return function

    return complete


def _section(title: str, *lines: str) -> list[str]:
    return ["", title, "-" * len(title), *lines]


def _digits(x: float) -> int:
    return len(repr(x).partition(".")[2])


def gradients_of(name: str) -> list[str] | None:
    """Return the arguments of a function that have a gradient, or None where all have."""
    primitive = PRIMITIVES.get(f"special.{name}")
    if primitive is None or no_rule not in primitive.rules:
        return None
    assert primitive.define
    names = list(signature(primitive.define).parameters)[1:]
    return [one for one, rule in zip(names, primitive.rules, strict=True) if rule is not no_rule]


def _about_gradients(name: str) -> str:
    having = gradients_of(name)
    if having is None:
        return f"It has a gradient. The function is that of `scipy.special.{name}`."
    return (
        f"It has a gradient for {' and '.join(having)}. Where that for another argument is needed, it is an\n"
        f"    error. The function is that of `scipy.special.{name}`."
    )


# -- logistic functions -------------------------------------------------------------------------------------


@_documented(0.5, gives=0.6225)
def expit(x: Array, /) -> Array:
    """Return the logistic function, 1 / (1 + exp(-x))."""
    return _call("expit", x)


@_documented(0.5, gives=-0.4741)
def log_expit(x: Array, /) -> Array:
    """Return the logarithm of `expit`, without underflow."""
    return _call("log_expit", x)


@_documented(0.6, gives=0.4055)
def logit(x: Array, /) -> Array:
    """Return the inverse of `expit`, log(x / (1 - x)), for x from 0 to 1."""
    return _call("logit", x)


# -- the error function and the normal distribution ---------------------------------------------------------


@_documented(0.5, gives=0.5205)
def erf(x: Array, /) -> Array:
    """Return the error function, 2 / sqrt(pi) times the integral of exp(-t²) from 0 to x."""
    return _call("erf", x)


@_documented(0.5, gives=0.4795)
def erfc(x: Array, /) -> Array:
    """Return 1 - erf(x), without cancellation."""
    return _call("erfc", x)


@_documented(0.5, gives=0.6157)
def erfcx(x: Array, /) -> Array:
    """Return exp(x²) erfc(x), without underflow."""
    return _call("erfcx", x)


@_documented(0.5, gives=0.615)
def erfi(x: Array, /) -> Array:
    """Return the imaginary error function, 2 / sqrt(pi) times the integral of exp(t²) from 0 to x."""
    return _call("erfi", x)


@_documented(0.5, gives=0.4769)
def erfinv(x: Array, /) -> Array:
    """Return the inverse of `erf`, for x from -1 to 1."""
    return _call("erfinv", x)


@_documented(0.5, gives=0.4769)
def erfcinv(x: Array, /) -> Array:
    """Return the inverse of `erfc`, for x from 0 to 2."""
    return _call("erfcinv", x)


@_documented(0.5, gives=0.6915)
def ndtr(x: Array, /) -> Array:
    """Return the distribution function of the standard normal distribution."""
    return _call("ndtr", x)


@_documented(0.5, gives=-0.3689)
def log_ndtr(x: Array, /) -> Array:
    """Return the logarithm of `ndtr`, without underflow."""
    return _call("log_ndtr", x)


@_documented(0.7, gives=0.5244)
def ndtri(p: Array, /) -> Array:
    """Return the quantiles of the standard normal distribution, the inverse of `ndtr`."""
    return _call("ndtri", p)


@_documented(-0.5, gives=0.2703)
def ndtri_exp(y: Array, /) -> Array:
    """Return the inverse of `log_ndtr`, for y up to 0."""
    return _call("ndtri_exp", y)


# -- the gamma function and its relatives -------------------------------------------------------------------


@_documented(0.5, gives=1.772)
def gamma(x: Array, /) -> Array:
    """Return the gamma function, the integral of t^(x - 1) exp(-t) from 0 to infinity."""
    return _call("gamma", x)


@_documented(0.5, gives=0.5642)
def rgamma(x: Array, /) -> Array:
    """Return 1 / gamma(x), which is 0 where gamma has a pole."""
    return _call("rgamma", x)


@_documented(0.5, gives=0.5724)
def gammaln(x: Array, /) -> Array:
    """Return the logarithm of the absolute value of `gamma`."""
    return _call("gammaln", x)


@_documented(0.5, gives=-1.964)
def digamma(x: Array, /) -> Array:
    """Return the derivative of `gammaln`."""
    return _call("digamma", x)


@_documented(0.5, gives=-1.964)
def psi(x: Array, /) -> Array:
    """Return `digamma`, by its other name."""
    return _call("psi", x)


@_documented(1, 0.5, gives=4.935)
def polygamma(n: int, x: Array, /) -> Array:
    """Return the n-th derivative of `digamma`, for an integer n."""
    return _call("polygamma", n, x)


@_documented(2.5, 3, gives=1.881)
def multigammaln(a: Array, d: int, /) -> Array:
    """Return the logarithm of the multivariate gamma function, for an integer d and a > (d - 1) / 2."""
    return _call("multigammaln", a, d)


@_documented(0.5, 2.0, gives=1.333)
def beta(a: Array, b: Array, /) -> Array:
    """Return the beta function, gamma(a) gamma(b) / gamma(a + b)."""
    return _call("beta", a, b)


@_documented(0.5, 2.0, gives=0.2877)
def betaln(a: Array, b: Array, /) -> Array:
    """Return the logarithm of the absolute value of `beta`."""
    return _call("betaln", a, b)


@_documented(0.5, 2.0, gives=0.75)
def poch(z: Array, m: Array, /) -> Array:
    """Return Pochhammer's symbol, gamma(z + m) / gamma(z)."""
    return _call("poch", z, m)


@_documented(2.5, 1.5, gives=0.5903)
def zeta(x: Array, q: Array, /) -> Array:
    """Return Hurwitz' zeta function, the sum of (k + q)^-x over k from 0 on."""
    return _call("zeta", x, q)


# -- the gamma distribution and its relatives ---------------------------------------------------------------


@_documented(1.5, 0.5, gives=0.1987)
def gammainc(a: Array, x: Array, /) -> Array:
    """Return the regularized lower incomplete gamma function.

    The distribution function of the gamma distribution.
    """
    return _call("gammainc", a, x)


@_documented(1.5, 0.5, gives=0.8013)
def gammaincc(a: Array, x: Array, /) -> Array:
    """Return 1 - gammainc(a, x), without cancellation."""
    return _call("gammaincc", a, x)


@_documented(1.5, 0.5, gives=1.183)
def gammaincinv(a: Array, y: Array, /) -> Array:
    """Return the x for which gammainc(a, x) is y."""
    return _call("gammaincinv", a, y)


@_documented(1.5, 0.5, gives=1.183)
def gammainccinv(a: Array, y: Array, /) -> Array:
    """Return the x for which gammaincc(a, x) is y."""
    return _call("gammainccinv", a, y)


@_documented(3.0, 0.5, gives=0.08111)
def chdtr(v: Array, x: Array, /) -> Array:
    """Return the distribution function of the chi-squared distribution with v degrees of freedom."""
    return _call("chdtr", v, x)


@_documented(3.0, 0.5, gives=0.9189)
def chdtrc(v: Array, x: Array, /) -> Array:
    """Return 1 - chdtr(v, x), without cancellation."""
    return _call("chdtrc", v, x)


@_documented(3.0, 0.5, gives=2.366)
def chdtri(v: Array, p: Array, /) -> Array:
    """Return the x for which chdtrc(v, x) is p."""
    return _call("chdtri", v, p)


@_documented(2.0, 1.5, 0.5, gives=0.4276)
def gdtr(a: Array, b: Array, x: Array, /) -> Array:
    """Return the distribution function of the gamma distribution, gammainc(b, a x)."""
    return _call("gdtr", a, b, x)


@_documented(2.0, 1.5, 0.5, gives=0.5724)
def gdtrc(a: Array, b: Array, x: Array, /) -> Array:
    """Return 1 - gdtr(a, b, x), without cancellation."""
    return _call("gdtrc", a, b, x)


@_documented(2.0, 1.5, gives=0.8088)
def pdtr(k: Array, m: Array, /) -> Array:
    """Return the distribution function of the Poisson distribution with the mean m."""
    return _call("pdtr", k, m)


@_documented(2.0, 1.5, gives=0.1912)
def pdtrc(k: Array, m: Array, /) -> Array:
    """Return 1 - pdtr(k, m), without cancellation."""
    return _call("pdtrc", k, m)


@_documented(2.0, 0.5, gives=2.674)
def pdtri(k: Array, y: Array, /) -> Array:
    """Return the m for which pdtr(k, m) is y."""
    return _call("pdtri", k, y)


# -- the beta distribution and its relatives ----------------------------------------------------------------


@_documented(1.5, 2.0, 0.5, gives=0.6187)
def betainc(a: Array, b: Array, x: Array, /) -> Array:
    """Return the regularized incomplete beta function.

    The distribution function of the beta distribution.
    """
    return _call("betainc", a, b, x)


@_documented(1.5, 2.0, 0.5, gives=0.3813)
def betaincc(a: Array, b: Array, x: Array, /) -> Array:
    """Return 1 - betainc(a, b, x), without cancellation."""
    return _call("betaincc", a, b, x)


@_documented(1.5, 2.0, 0.5, gives=0.4136)
def betaincinv(a: Array, b: Array, y: Array, /) -> Array:
    """Return the x for which betainc(a, b, x) is y."""
    return _call("betaincinv", a, b, y)


@_documented(1.5, 2.0, 0.5, gives=0.4136)
def betainccinv(a: Array, b: Array, y: Array, /) -> Array:
    """Return the x for which betaincc(a, b, x) is y."""
    return _call("betainccinv", a, b, y)


@_documented(3.0, 4.0, 0.5, gives=0.2978)
def fdtr(dfn: Array, dfd: Array, x: Array, /) -> Array:
    """Return the distribution function of the F distribution."""
    return _call("fdtr", dfn, dfd, x)


@_documented(3.0, 4.0, 0.5, gives=0.7022)
def fdtrc(dfn: Array, dfd: Array, x: Array, /) -> Array:
    """Return 1 - fdtr(dfn, dfd, x), without cancellation."""
    return _call("fdtrc", dfn, dfd, x)


@_documented(3.0, 4.0, 0.5, gives=0.9405)
def fdtri(dfn: Array, dfd: Array, p: Array, /) -> Array:
    """Return the x for which fdtr(dfn, dfd, x) is p."""
    return _call("fdtri", dfn, dfd, p)


@_documented(3.0, 0.5, gives=0.6743)
def stdtr(df: Array, t: Array, /) -> Array:
    """Return the distribution function of Student's t distribution."""
    return _call("stdtr", df, t)


@_documented(3.0, 0.7, gives=0.5844)
def stdtrit(df: Array, p: Array, /) -> Array:
    """Return the t for which stdtr(df, t) is p."""
    return _call("stdtrit", df, p)


@_documented(1.0, 3, 0.4, gives=0.648)
def bdtr(k: Array, n: Array, p: Array, /) -> Array:
    """Return the distribution function of the binomial distribution, for n trials of the probability p."""
    return _call("bdtr", k, n, p)


@_documented(1.0, 3, 0.4, gives=0.352)
def bdtrc(k: Array, n: Array, p: Array, /) -> Array:
    """Return 1 - bdtr(k, n, p), without cancellation."""
    return _call("bdtrc", k, n, p)


@_documented(1.0, 3, 0.4, gives=0.5671)
def bdtri(k: Array, n: Array, y: Array, /) -> Array:
    """Return the p for which bdtr(k, n, p) is y."""
    return _call("bdtri", k, n, y)


@_documented(1, 3, 0.4, gives=0.1792)
def nbdtr(k: Array, n: Array, p: Array, /) -> Array:
    """Return the probability of up to k failures before n successes, each of the probability p."""
    return _call("nbdtr", k, n, p)


@_documented(1, 3, 0.4, gives=0.8208)
def nbdtrc(k: Array, n: Array, p: Array, /) -> Array:
    """Return 1 - nbdtr(k, n, p), without cancellation."""
    return _call("nbdtrc", k, n, p)


@_documented(1, 3, 0.4, gives=0.5555)
def nbdtri(k: Array, n: Array, y: Array, /) -> Array:
    """Return the p for which nbdtr(k, n, p) is y."""
    return _call("nbdtri", k, n, y)


# -- the Kolmogorov distribution ----------------------------------------------------------------------------


@_documented(0.8, gives=0.5441)
def kolmogorov(y: Array, /) -> Array:
    """Return the probability that sqrt(n) times Kolmogorov's statistic exceeds y, for large samples of n."""
    return _call("kolmogorov", y)


@_documented(0.5, gives=0.8276)
def kolmogi(p: Array, /) -> Array:
    """Return the inverse of `kolmogorov`."""
    return _call("kolmogi", p)


# -- Bessel functions ---------------------------------------------------------------------------------------


@_documented(0.5, gives=1.063)
def i0(x: Array, /) -> Array:
    """Return the modified Bessel function of order 0."""
    return _call("i0", x)


@_documented(0.5, gives=0.645)
def i0e(x: Array, /) -> Array:
    """Return exp(-abs(x)) i0(x), without overflow."""
    return _call("i0e", x)


@_documented(0.5, gives=0.2579)
def i1(x: Array, /) -> Array:
    """Return the modified Bessel function of order 1."""
    return _call("i1", x)


@_documented(0.5, gives=0.1564)
def i1e(x: Array, /) -> Array:
    """Return exp(-abs(x)) i1(x), without overflow."""
    return _call("i1e", x)


@_documented(0.5, gives=0.9385)
def j0(x: Array, /) -> Array:
    """Return the Bessel function of the first kind of order 0."""
    return _call("j0", x)


@_documented(0.5, gives=0.2423)
def j1(x: Array, /) -> Array:
    """Return the Bessel function of the first kind of order 1."""
    return _call("j1", x)


@_documented(0.5, gives=-0.4445)
def y0(x: Array, /) -> Array:
    """Return the Bessel function of the second kind of order 0."""
    return _call("y0", x)


@_documented(0.5, gives=-1.471)
def y1(x: Array, /) -> Array:
    """Return the Bessel function of the second kind of order 1."""
    return _call("y1", x)


@_documented(0.5, gives=0.9244)
def k0(x: Array, /) -> Array:
    """Return the modified Bessel function of the second kind of order 0."""
    return _call("k0", x)


@_documented(0.5, gives=1.656)
def k1(x: Array, /) -> Array:
    """Return the modified Bessel function of the second kind of order 1."""
    return _call("k1", x)


# -- exponentials, powers and their like --------------------------------------------------------------------


@_documented(0.5, gives=1.414)
def exp2(x: Array, /) -> Array:
    """Return 2^x."""
    return _call("exp2", x)


@_documented(0.5, gives=3.162)
def exp10(x: Array, /) -> Array:
    """Return 10^x."""
    return _call("exp10", x)


@_documented(0.5, gives=0.6487)
def expm1(x: Array, /) -> Array:
    """Return exp(x) - 1, without cancellation."""
    return _call("expm1", x)


@_documented(0.5, gives=0.4055)
def log1p(x: Array, /) -> Array:
    """Return log(1 + x), without cancellation."""
    return _call("log1p", x)


@_documented(0.5, gives=0.5598)
def exp1(x: Array, /) -> Array:
    """Return the exponential integral, that of exp(-t) / t from x to infinity."""
    return _call("exp1", x)


@_documented(0.5, gives=0.4542)
def expi(x: Array, /) -> Array:
    """Return the exponential integral, that of exp(t) / t from minus infinity to x."""
    return _call("expi", x)


@_documented(0.5, gives=0.7937)
def cbrt(x: Array, /) -> Array:
    """Return the cube root."""
    return _call("cbrt", x)


@_documented(0.5, gives=0.6366)
def sinc(x: Array, /) -> Array:
    """Return sin(pi x) / (pi x), and 1 at 0."""
    return _call("sinc", x)


@_documented(0.5, 2.0, gives=-0.375)
def boxcox(x: Array, lmbda: Array, /) -> Array:
    """Return the transformation of Box and Cox, (x^lmbda - 1) / lmbda, or log(x) for lmbda = 0."""
    return _call("boxcox", x, lmbda)


@_documented(0.5, 2.0, gives=0.625)
def boxcox1p(x: Array, lmbda: Array, /) -> Array:
    """Return boxcox(1 + x, lmbda), without cancellation."""
    return _call("boxcox1p", x, lmbda)


@_documented(0.5, 2.0, gives=1.414)
def inv_boxcox(y: Array, lmbda: Array, /) -> Array:
    """Return the inverse of `boxcox`."""
    return _call("inv_boxcox", y, lmbda)


@_documented(0.5, 2.0, gives=0.4142)
def inv_boxcox1p(y: Array, lmbda: Array, /) -> Array:
    """Return the inverse of `boxcox1p`."""
    return _call("inv_boxcox1p", y, lmbda)


@_documented(1.0, 1.5, gives=1.0)
def huber(delta: Array, r: Array, /) -> Array:
    """Return Huber's loss: r² / 2 where abs(r) is at most delta, else delta (abs(r) - delta / 2)."""
    return _call("huber", delta, r)


@_documented(1.0, 1.5, gives=0.8028)
def pseudo_huber(delta: Array, r: Array, /) -> Array:
    """Return a smooth kind of Huber's loss, delta² (sqrt(1 + (r / delta)²) - 1)."""
    return _call("pseudo_huber", delta, r)


# -- entropies ----------------------------------------------------------------------------------------------


@_documented(0.5, gives=0.3466)
def entr(x: Array, /) -> Array:
    """Return -x log(x), and 0 at 0."""
    return _call("entr", x)


@_documented(0.5, 2.0, gives=-0.6931)
def rel_entr(x: Array, y: Array, /) -> Array:
    """Return x log(x / y), and 0 where x is 0."""
    return _call("rel_entr", x, y)


@_documented(0.5, 2.0, gives=0.8069)
def kl_div(x: Array, y: Array, /) -> Array:
    """Return x log(x / y) - x + y, and y where x is 0."""
    return _call("kl_div", x, y)


@_documented(0.5, 2.0, gives=0.3466)
def xlogy(x: Array, y: Array, /) -> Array:
    """Return x log(y), and 0 where x is 0."""
    return _call("xlogy", x, y)


@_documented(0.5, 2.0, gives=0.5493)
def xlog1py(x: Array, y: Array, /) -> Array:
    """Return x log(1 + y), and 0 where x is 0."""
    return _call("xlog1py", x, y)


# -- sums of exponentials -----------------------------------------------------------------------------------


def logsumexp(x: Array, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """Return log(sum(exp(x))), without overflow.

    Parameters
    ----------
    x : array
        Of real floating-point numbers.
    axis : int, tuple of int or None
        What to add up along; None is all of it.
    keepdims : bool
        Whether the axes stay, with the length 1.

    Returns
    -------
    array
        Minus infinity where nothing is added up.

    Notes
    -----
    It has a gradient, `softmax`. The function is that of `scipy.special.logsumexp`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import special
    >>> round(float(special.logsumexp(np.asarray([1000.0, 1001.0]))), 4)
    1001.3133
    """
    return _call("logsumexp", x, axis=axis, keepdims=keepdims)


def softmax(x: Array, /, *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return exp(x) / sum(exp(x)), without overflow.

    Parameters
    ----------
    x : array
        Of real floating-point numbers.
    axis : int, tuple of int or None
        What to add up along; None is all of it.

    Returns
    -------
    array
        Of the shape of ``x``.

    Notes
    -----
    It has a gradient. The function is that of `scipy.special.softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import special
    >>> special.softmax(np.asarray([1000.0, 1001.0])).round(4)
    array([0.2689, 0.7311])
    """
    return _call("softmax", x, axis=axis)


def log_softmax(x: Array, /, *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return the logarithm of `softmax`, without underflow.

    Parameters
    ----------
    x : array
        Of real floating-point numbers.
    axis : int, tuple of int or None
        What to add up along; None is all of it.

    Returns
    -------
    array
        Of the shape of ``x``.

    Notes
    -----
    It has a gradient. The function is that of `scipy.special.log_softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import special
    >>> special.log_softmax(np.asarray([1000.0, 1001.0])).round(4)
    array([-1.3133, -0.3133])
    """
    return _call("log_softmax", x, axis=axis)
