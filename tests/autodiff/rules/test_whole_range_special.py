"""The gradients of special functions from the smallest to the largest numbers, and near special points."""

import mpmath
import numpy
import pytest
from mpmath import mpf

import xpnet.special
from autodiff.whole_range import DTYPES, Exact, span


def normal(points):
    """Return the points that are no subnormal numbers, of which half are one rounding apart."""
    return lambda dtype: numpy.asarray(
        [x for x in points(dtype) if abs(x) >= 16 * numpy.finfo(dtype).smallest_normal], dtype
    )


inside = span(-1, 1, near=(-1.0, -0.5, 0.5, 1.0), number=12)
shares = normal(span(0, 1, near=(0.5, 1.0), number=12))
positive = normal(span(0, near=(1.0, 2.0, 10.0), number=16))
modest = normal(span(1e-30, 1e3, number=10))
several = normal(span(0, 1e38, near=(1.0,), number=10))
ordinary = span(1e-3, 1e20, near=(1.0, 2.0, 10.0), number=50)
everywhere = span(near=(-10.0, -1.0, 1.0, 2.0, 10.0, 30.0), number=16)
left_of_poles = normal(span(-30, near=(-2.5, -0.5, 1.0, 1.5, 8.0), number=12))


def exactly(name, points, *derivatives, before=(), behind=(), **options):
    """Return the check of a function of one argument, among numbers, by its derivatives."""
    return Exact(
        lambda _xp, x: getattr(xpnet.special, name)(*before, x, *behind),
        (points,),
        {(0,) * order: derivative for order, derivative in enumerate(derivatives, 1)},
        **options,
    )


def both(name, *derivatives, twice=(), points=(several, several), **options):
    """Return the check of a function of two arguments, by its gradient and the diagonal of its Hessian."""
    return Exact(
        lambda _xp, x, y: getattr(xpnet.special, name)(x, y),
        points,
        {
            (i,) * order: one
            for order, all_of in ((1, derivatives), (2, twice))
            for i, one in enumerate(all_of)
        },
        **options,
    )


def density(x):
    return mpmath.npdf(x)


def hazard(x):
    """The normal density over its distribution function, far out by its continued fraction."""
    if x > -50:
        return mpmath.npdf(x) / mpmath.ncdf(x)
    return tail(x) - x


def tail(x):
    """hazard(x) + x, whose figures cancel far out."""
    if x > -50:
        return mpmath.npdf(x) / mpmath.ncdf(x) + x
    ratio = mpf(0)
    for k in range(300, 0, -1):
        ratio = 1 / ((k + 1) * ratio - x)
    return ratio


def logistic(x):
    with mpmath.workdps(400):
        return 1 / (mpmath.exp(-x) + 2 + mpmath.exp(x)) if abs(x) < 1e4 else mpmath.exp(-abs(x))


def logistic_slope(x):
    return -logistic(x) * mpmath.tanh(x / 2)


def erfcx_slope(x):
    y = tail(-x * mpmath.sqrt(2))
    return -mpmath.sqrt(2) * y * erfcx(x)


def erfcx(x):
    return mpmath.sqrt(2 / mpmath.pi) / hazard(-x * mpmath.sqrt(2))


def gamma_density(a, x):
    a, x = mpf(a), mpf(x)
    return mpmath.exp((a - 1) * mpmath.log(x) - x - mpmath.loggamma(a))


def beta_density(a, b, x):
    a, b, x = mpf(a), mpf(b), mpf(x)
    total = mpmath.loggamma(a + b) - mpmath.loggamma(a) - mpmath.loggamma(b)
    return mpmath.exp((a - 1) * mpmath.log(x) + (b - 1) * mpmath.log1p(-x) + total)


def student_density(df, t):
    df = mpf(df)
    scale = mpmath.exp(mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2)) / mpmath.sqrt(df * mpmath.pi)
    return scale * mpmath.exp(-(df + 1) / 2 * mpmath.log1p(t * t / df))


def f_density(dfn, dfd, x):
    with mpmath.workdps(700):
        ratio = mpf(dfn) / dfd * x
        return beta_density(dfn / 2, dfd / 2, ratio / (1 + ratio)) / (1 + ratio) ** 2 * mpf(dfn) / dfd


def moment(n, x):
    """The mean of (1 - cos t)^n exp(-x (1 - cos t))."""
    first = mpmath.mpf(2) ** n * mpmath.gamma(n + mpf(0.5)) / mpmath.sqrt(mpmath.pi) / mpmath.factorial(n)
    if x < 100:
        return first * mpmath.hyp1f1(n + mpf(0.5), n + 1, -2 * x)
    terms = [mpmath.rf(mpf(0.5), k) * mpmath.rf(n + mpf(0.5), k) / mpmath.factorial(k) for k in range(40)]
    total = sum(term / (2 * x) ** k for k, term in enumerate(terms))
    return mpmath.gamma(n + mpf(0.5)) / mpmath.pi / mpmath.sqrt(2) / x ** (n + mpf(0.5)) * total


def bessel(n, x):
    return mpmath.besseli(n, x) if abs(x) > 1e-20 else (x / 2) ** n / mpmath.factorial(n)


def trigamma(x):
    return mpmath.polygamma(1, x)


def difference(a, b):
    """digamma(a) - digamma(a + b), which are as good as equal where b is small."""
    if b < a * mpf(10) ** -70:
        return -b * trigamma(a)
    with mpmath.workdps(140):
        return mpmath.digamma(a) - mpmath.digamma(a + b)


def trigamma_difference(a, b):
    """trigamma(a) - trigamma(a + b)."""
    if b < a * mpf(10) ** -70:
        return -b * mpmath.polygamma(2, a)
    with mpmath.workdps(140):
        return trigamma(a) - trigamma(a + b)


def rgamma_curve(x):
    with mpmath.workdps(140):
        return mpmath.diff(mpmath.rgamma, x, 2)


def beta_function(a, b):
    with mpmath.workdps(140):
        return mpmath.exp(mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b))


def beta_curve(a, b):
    return beta_function(a, b) * (difference(a, b) ** 2 + trigamma_difference(a, b))


def f_slope(dfn, dfd, x):
    with mpmath.workdps(700):
        ratio = mpf(dfn) / dfd * x
        share, rest = ratio / (1 + ratio), 1 / (1 + ratio)
        return f_density(dfn, dfd, x) * (mpf(dfn) / 2 * rest - mpf(dfd) / 2 * share - 1) / x


_PI = mpmath.pi
_ROOT = 2 / mpmath.sqrt(_PI)
moderate = span(-25, 25, near=(-3.0, 3.0), number=16)
EXACT = {
    "expit": exactly("expit", everywhere, logistic, logistic_slope),
    "log_expit": exactly("log_expit", everywhere, lambda x: 1 / (1 + mpmath.exp(x)), lambda x: -logistic(x)),
    "logit": exactly(
        "logit", shares, lambda x: 1 / x / (1 - x), lambda x: 1 / (1 - x) ** 2 - 1 / x**2, moved=4
    ),
    "erf": exactly(
        "erf", everywhere, lambda x: _ROOT * mpmath.exp(-x * x),
        lambda x: -2 * x * _ROOT * mpmath.exp(-x * x),
        moved=2,
    ),
    "erfi": exactly("erfi", moderate, lambda x: _ROOT * mpmath.exp(x * x), moved=2),
    "erfcx": exactly("erfcx", span(-20, near=(1.0, 2.0, 5.0)), erfcx_slope, moved=4),
    "erfinv": exactly(
        "erfinv", inside, lambda x: mpmath.exp(mpmath.erfinv(x) ** 2) / _ROOT, moved=4,
    ),
    "ndtr": exactly("ndtr", everywhere, density, lambda x: -x * density(x), moved=2),
    "log_ndtr": exactly("log_ndtr", everywhere, hazard, lambda x: -hazard(x) * tail(x), moved=4),
    "gamma": exactly(
        "gamma", left_of_poles, lambda x: mpmath.gamma(x) * mpmath.digamma(x), roundings=64, moved=64
    ),
    "rgamma": exactly(
        "rgamma", left_of_poles, lambda x: mpmath.diff(mpmath.rgamma, x), rgamma_curve, roundings=64, moved=64
    ),
    "gammaln": exactly("gammaln", left_of_poles, mpmath.digamma, trigamma, moved=64),
    "digamma": exactly(
        "digamma", left_of_poles, trigamma, lambda x: mpmath.polygamma(2, x), moved=8, roundings=64
    ),
    "i0": exactly("i0", moderate, lambda x: bessel(1, x), lambda x: (bessel(0, x) + bessel(2, x)) / 2),
    "i1": exactly(
        "i1", moderate, lambda x: (bessel(0, x) + bessel(2, x)) / 2,
        lambda x: (3 * bessel(1, x) + bessel(3, x)) / 4,
    ),
    "i0e": exactly(
        "i0e", everywhere, lambda x: -mpmath.sign(x) * moment(1, abs(x)), lambda x: moment(2, abs(x))
    ),
    "i1e": exactly(
        "i1e", everywhere, lambda x: moment(2, abs(x)) - moment(1, abs(x)),
        lambda x: mpmath.sign(x) * (moment(2, abs(x)) - moment(3, abs(x))), moved=8,
    ),
    "j0": exactly("j0", moderate, lambda x: -mpmath.besselj(1, x), scale=lambda _: 0.1),
    "j1": exactly(
        "j1", moderate, lambda x: mpmath.besselj(1, x, derivative=1),
        lambda x: mpmath.besselj(1, x, derivative=2), moved=32,
    ),
    "sinc": exactly(
        "sinc", span(-3, 3, near=(-1.5, 0.25, 0.5, 1.5)),
        lambda x: mpmath.diff(lambda t: mpmath.sinc(_PI * t), x) if abs(x) > 1e-4 else -_PI**2 * x / 3 * (
            1 - (_PI * x) ** 2 / 10 + (_PI * x) ** 4 / 280 - (_PI * x) ** 6 / 15120),
        moved=8,
    ),
    "cbrt": exactly(
        "cbrt", positive, lambda x: mpmath.cbrt(x) / x / 3, lambda x: -2 * mpmath.cbrt(x) / x**2 / 9
    ),
    "pseudo_huber": exactly(
        "pseudo_huber", everywhere, lambda r: r / mpmath.hypot(1, r / 0.75),
        lambda r: 1 / mpmath.hypot(1, r / 0.75) ** 3, before=(0.75,), moved=2,
    ),
    "expi": exactly(
        "expi", span(-80, 713, near=(1.0, 10.0, 200.0)), lambda x: mpmath.exp(x) / x,
        lambda x: mpmath.exp(x) * (x - 1) / x**2, moved=4,
    ),
    "inv_boxcox1p": exactly("inv_boxcox1p", moderate, mpmath.exp, behind=(0.0,), moved=4),
    "entr": exactly("entr", positive, lambda x: -mpmath.log(x) - 1, lambda x: -1 / x),
    "xlogy": both("xlogy", lambda x, y: mpmath.log(y), lambda x, y: x / y),
    "xlog1py": both("xlog1py", lambda x, y: mpmath.log1p(y), lambda x, y: x / (1 + y)),
    "rel_entr": both("rel_entr", lambda x, y: mpmath.log(x / y) + 1, lambda x, y: -x / y, moved=2),
    "kl_div": both("kl_div", lambda x, y: mpmath.log(x / y), lambda x, y: 1 - x / y, moved=2),
    "betaln": both("betaln", difference, lambda a, b: difference(b, a)),
    "betaln-twice": both(
        "betaln", twice=(trigamma_difference, lambda a, b: trigamma_difference(b, a)), points=(modest, modest)
    ),
    "beta": both(
        "beta", lambda a, b: beta_function(a, b) * difference(a, b),
        lambda a, b: beta_function(a, b) * difference(b, a),
        twice=(beta_curve, lambda a, b: beta_curve(b, a)), points=(modest, modest),
        roundings=8192,  # of which SciPy's own value loses most
    ),
    **{
        f"gammainc-{a}": exactly(
            "gammainc", positive, lambda x, a=a: gamma_density(a, x), before=(a,), moved=4
        )
        for a in (0.25, 1.0, 2.0, 7.5, 20.0, 1024.0, 1048576.0)
    },
    **{
        f"gammainc-{a}-twice": exactly(
            "gammainc", ordinary, lambda x, a=a: gamma_density(a, x),
            lambda x, a=a: gamma_density(a, x) * (a - 1 - x) / x, before=(a,), moved=4,
        )
        for a in (0.25, 1.0, 2.0, 7.5)
    },
    **{
        f"betainc-{a}-{b}": exactly(
            "betainc", shares, lambda x, a=a, b=b: beta_density(a, b, x), before=(a, b), moved=4
        )
        for a, b in ((0.25, 0.5), (1.0, 1.0), (2.0, 5.0), (30.0, 0.5), (1024.0, 2048.0))
    },
    **{
        f"stdtr-{df}": exactly(
            "stdtr", everywhere, lambda t, df=df: student_density(df, t),
            lambda t, df=df: -student_density(df, t) * (df + 1) * t / (df + t * t), before=(df,), moved=4,
        )
        for df in (0.5, 1.0, 3.0, 30.0, 1048576.0)
    },
    **{
        f"fdtr-{dfn}-{dfd}": exactly(
            "fdtr", ordinary, lambda x, dfn=dfn, dfd=dfd: f_density(dfn, dfd, x), before=(dfn, dfd), moved=4
        )
        for dfn, dfd in ((1.0, 1.0), (2.0, 5.0), (10.0, 3.0), (64.0, 256.0))
    },
    **{
        f"fdtr-{dfn}-{dfd}-twice": exactly(
            "fdtr", span(0.05, 1e5, near=(1.0, 2.0, 10.0), number=50),
            lambda x, dfn=dfn, dfd=dfd: f_density(dfn, dfd, x),
            lambda x, dfn=dfn, dfd=dfd: f_slope(dfn, dfd, x), before=(dfn, dfd), moved=4,
        )
        for dfn, dfd in ((1.0, 1.0), (2.0, 5.0), (10.0, 3.0), (2.0**50, 0.5), (0.5, 2.0**50), (4.0, 2.0**-80))
    },
    "chdtrc": exactly("chdtrc", positive, lambda x: -gamma_density(1.5, x / 2) / 2, before=(3.0,), moved=4),
    "kolmogorov": exactly(
        "kolmogorov", span(0.3, 8, near=(0.8, 2.0, 4.0)),
        lambda x: -8 * x * sum(
            (-1) ** (k - 1) * k * k * mpmath.exp(-2 * k * k * x * x) for k in range(1, 40)),
        moved=4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_gradients(name, dtype):
    EXACT[name].check(dtype)


# -- inverses: what a rule reads is a result of SciPy's, of which the gradient can be no better -------------

INVERSES = {
    "erfcinv": ((), lambda y: -mpmath.exp(y * y) / _ROOT),
    "ndtri": ((), lambda y: 1 / density(y)),
    "gammaincinv": ((2.5,), lambda y: 1 / gamma_density(2.5, y)),
    "gammainccinv": ((2.5,), lambda y: -1 / gamma_density(2.5, y)),
    "betaincinv": ((1.5, 2.5), lambda y: 1 / beta_density(1.5, 2.5, y)),
    "stdtrit": ((3.0,), lambda y: 1 / student_density(3.0, y)),
    "fdtri": ((3.0, 4.0), lambda y: 1 / f_density(3.0, 4.0, y)),
    "chdtri": ((3.0,), lambda y: -2 / gamma_density(1.5, y / 2)),
}


@pytest.mark.parametrize("name", INVERSES)
def test_gradients_of_inverses(name):
    before, exact = INVERSES[name]
    p = numpy.asarray([1e-200, 1e-100, 1e-20, 1e-3, 0.25, 0.5, 0.75, 0.999])
    with xpnet.use_device("cpu"), mpmath.workdps(60):
        y = getattr(xpnet.special, name)(*before, p)
        found = xpnet.grad(lambda p: numpy.ones(8) @ getattr(xpnet.special, name)(*before, p))(p)
        for one, at, place in zip(found, y, p, strict=True):
            near = [exact(mpf(float(at)) * (1 + k * mpf(2) ** -52)) for k in (-8, 0, 8)]
            error = abs(near[1]) * mpf(2) ** -46 + abs(near[2] - near[0])
            assert abs(mpf(float(one)) - near[1]) <= error, place


def test_inverses_in_the_tails_keep_more_figures_than_their_results_tell():
    p = numpy.asarray([1e-200, 1e-100, 1e-20, 1e-3, 0.25])
    with xpnet.use_device("cpu"), mpmath.workdps(60):
        of_erfc = xpnet.grad(lambda p: numpy.ones(5) @ xpnet.special.erfcinv(p))(p)
        of_normal = xpnet.grad(lambda p: numpy.ones(5) @ xpnet.special.ndtri(p / 2))(p)
        for place, first, second, start in zip(p, of_erfc, of_normal, xpnet.special.erfcinv(p), strict=True):
            y = mpmath.findroot(lambda y, place=place: mpmath.erfc(y) / mpf(float(place)) - 1, start)
            exact = mpmath.exp(y * y) * mpmath.sqrt(mpmath.pi) / 2
            assert abs(mpf(float(first)) / -exact - 1) <= mpf(2) ** -46
            assert abs(mpf(float(second)) / (mpmath.sqrt(2) * exact) - 1) <= mpf(2) ** -46
