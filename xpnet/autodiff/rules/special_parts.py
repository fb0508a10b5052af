"""What the rules of the special functions are made of: functions that SciPy keeps to itself or has not.

Each is right to a few roundings over the whole range of the dtype, as far as that is in its arguments: where
a formula would subtract nearly equal numbers, over- or underflow, another one stands in its place. Their own
derivatives, in `special.py`, are made of them again, and are as exact in gradients of gradients.

DLMF is NIST's Digital Library of Mathematical Functions, https://dlmf.nist.gov.
"""

import math
from typing import Any

_ROOT_HALF_PI = math.sqrt(math.pi / 2)


def floats(xp: Any, x: Any, like: Any) -> Any:
    """Return a parameter, which may be a number or an array of integers, as an array of numbers."""
    if not hasattr(x, "dtype"):
        return x + xp.zeros_like(like)
    return x if xp.isdtype(x.dtype, "real floating") else xp.astype(x, like.dtype)


def _horner(coefficients: Any, x: Any) -> Any:
    """Return a polynomial, whose coefficients begin with that of the highest power."""
    value = coefficients[0] + 0 * x
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def nan_outside(xp: Any, inside: Any, value: Any) -> Any:
    """Return a derivative where the function is defined, else NaN, as are the derivatives of that."""
    return value * xp.where(inside, xp.ones_like(value), xp.nan)


# -- logistic and normal distributions ----------------------------------------------------------------------


def logistic_density(xp: Any, x: Any) -> Any:
    """Return the derivative of expit."""
    small = xp.exp(-xp.abs(x))  # expit has 0 in its place where exp(x) is too large
    return small / (1 + small) / (1 + small)


def exp_of_square(xp: Any, x: Any, tail: Any) -> Any:
    """Return exp(x²), from erfc(x), which is known to more figures than x²."""
    return xp.where(tail == 0, xp.inf, xp.special.erfcx(x) / xp.where(tail == 0, 1.0, tail))


def mills_ratio(xp: Any, x: Any) -> Any:
    """Return the normal distribution function over its density; infinite from 38 on."""
    return _ROOT_HALF_PI * xp.special.erfcx(x * -math.sqrt(0.5))


def hazard(xp: Any, x: Any) -> Any:
    """Return the normal density over its distribution function, the derivative of log_ndtr."""
    return 1 / mills_ratio(xp, x)


def tail_ratio(xp: Any, x: Any, *, n: int) -> Any:
    """Return q_n, where q_0 is the Mills ratio and q_n = 1 / ((n + 1) q_{n + 1} - x).

    They are ratios of the repeated integrals of the normal distribution function (DLMF 7.18, in terms of
    erfc). Below -1.6 they are a continued fraction (7.18(v)); above, where that would take long, the equation
    is turned round.
    """
    steps = 120
    left = xp.where(x < -1.6, xp.where(x > -1e9, x, -1e9), -1.6)
    ratio = (left + xp.sqrt(left * left + 4.0 * (n + steps))) / (2.0 * (n + steps))
    for k in range(n + steps, n, -1):
        ratio = 1 / (k * ratio - left)
    ratio = xp.where(x > -1e9, ratio, -1 / xp.where(x > -1e9, -1.0, x))
    right = x + hazard(xp, x)
    for k in range(2, n + 1):
        right = (1 / right + x) / k
    return xp.where(x < -1.6, ratio, right)


# -- the gamma function and its relatives -------------------------------------------------------------------

# Bernoulli's numbers B_2, B_4, …, and the series of DLMF 5.11.1 and 5.11.2, in powers of 1 / x².
_BERNOULLI = [
    *(1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66),
    *(-691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330),
]
_STIRLING = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1)][::-1]


def polygamma(xp: Any, x: Any, *, n: int) -> Any:
    """Return the n-th derivative of digamma, left of 0 by reflection (DLMF 5.15.6).

    SciPy's adds up ever more terms there.
    """
    if n == 0:
        return xp.special.digamma(x)
    value = xp.special.polygamma(n, xp.where(x < 0, 1 - x, x))
    value = xp.astype(value, x.dtype, copy=False)
    # The n-th derivative of the cotangent, a polynomial in it.
    coefficients = [0, 1]
    for _ in range(n):  # that of the cotangent itself is -(1 + its square)
        slope = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [-(low + high) for low, high in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    part = xp.where(x < 0, x - xp.round(x), 0.25)
    cotangent = xp.cos(math.pi * part) / xp.sin(math.pi * part)
    added = math.pi ** (n + 1) * _horner([float(c) for c in coefficients[::-1]], cotangent)
    return xp.where(x < 0, (-1) ** n * value - added, value)


def rgamma_derivative(xp: Any, x: Any) -> Any:
    """Return the derivative of 1 / gamma(x), which is smooth where gamma has a pole.

    It is -digamma(x) / gamma(x), on the left by reflection of both (DLMF 5.5.3 and 5.5.4).
    """
    left = x < 0.5
    near = xp.round(x)
    part = xp.where(left, x - near, 0.25) * math.pi
    sign = 1 - 2 * xp.remainder(near, 2 * xp.ones_like(near))
    mirrored, right = xp.where(left, 1 - x, 1.0), xp.where(left, 1.0, x)
    psi = xp.special.digamma(mirrored)
    reflected = xp.special.gamma(mirrored) * sign * (xp.cos(part) - psi * xp.sin(part) / math.pi)
    return xp.where(left, reflected, -xp.special.digamma(right) * xp.special.rgamma(right))


def polygamma_difference(xp: Any, a: Any, b: Any, *, n: int) -> Any:
    """Return the n-th derivative of digamma at a + b less that at a, to all figures for positive a and b.

    By recurrence (DLMF 5.15.5) and the asymptotic series (5.11.2, 5.15.9).
    """
    a, b = floats(xp, a, b), floats(xp, b, a)
    near = (a > 0) & (b > 0)
    # It is that of x + 8 less a sum, and from 8 on log(x), for n = 0, and a series: their differences, each.
    x, d = xp.where(near, a, 1.0), xp.where(near, b, 1.0)
    power = [float(math.factorial(n)), *[0.0] * (n + 1)]
    value = sum(_difference(x + k, d, power) for k in range(8))
    series = dict.fromkeys(range(n + 21), 0.0) | {
        n: math.gamma(n) if n else 0.0,
        n + 1: math.factorial(n) / 2,
    }
    for k, bernoulli in enumerate(_BERNOULLI, 1):
        series[2 * k + n] = bernoulli * math.factorial(2 * k + n - 1) / math.factorial(2 * k)
    value = value + _difference(x + 8, d, [series[k] for k in range(n + 20, -1, -1)])
    value = xp.log1p(d / (x + 8)) - value if n == 0 else (-1) ** (n + 1) * value
    other = polygamma(xp, xp.where(near, 1.0, a + b), n=n) - polygamma(xp, xp.where(near, 1.0, a), n=n)
    return xp.where(near, value, other)


def _difference(x: Any, d: Any, coefficients: list[float]) -> Any:
    """Return a polynomial in 1 / (x + d) less that in 1 / x, without subtracting one from the other."""
    p, q = 1 / x, 1 / (x + d)
    value, slope = coefficients[0] + 0 * q, 0 * q
    for coefficient in coefficients[1:]:
        slope = slope * p + value
        value = value * q + coefficient
    return -slope * (d * q * p)


def _scale(xp: Any, a: Any) -> Any:
    """Return a^a exp(-a) / gamma(a), from 8 on by Stirling's series (DLMF 5.11.1)."""
    small = a < 8
    low, high = xp.where(small, a, 8.0), xp.where(small, 8.0, a)
    inverse = 1 / high
    series = _horner(_STIRLING, inverse * inverse) * inverse
    below = low**low * xp.exp(-low) / xp.special.gamma(low)
    return xp.where(small, below, xp.sqrt(high / (2 * math.pi)) * xp.exp(-series))


# Of 2 (artanh(r) - r) / r³, in powers of r² (DLMF 4.38).
_LOGARITHM = [2 / (2 * k + 3) for k in range(16)][::-1]


def _power(xp: Any, a: Any, x: Any, away: Any) -> Any:
    """Return (x / a)^a exp(a - x) / x: 1 / a at x = a, and falling to both sides; `away` is x - a."""
    ratio = x / a
    is_low, is_high = ratio < 0.6, ratio > 1.5
    # Far below a: one power of a number below 1, which 1 / x is taken into.
    part = xp.where(is_low, ratio, 0.5)
    rise = xp.exp(1 - part)
    base = part * rise
    low = base ** xp.where(is_low, a - 1, 1.0) * rise / a
    # Near a: (x - a) / a less the logarithm of the ratio, as a series.
    near = xp.where(is_low | is_high, a, x)
    u = xp.where(is_low | is_high, 0 * x, away) / a
    r = u / (2 + u)
    middle = xp.exp(-a * (u * r - r * r * r * _horner(_LOGARITHM, r * r))) / near
    # Far above: the exponents are no larger than what x itself tells of the result.
    far = xp.where(is_high, x, a)
    high = xp.exp(a * xp.log(xp.where(is_high & xp.isfinite(ratio), ratio, 1.0)) + (a - far)) / far
    value = xp.where(is_low, low, xp.where(is_high, high, middle))
    return xp.where(x >= 0, value, xp.nan)


def gamma_density(xp: Any, a: Any, x: Any) -> Any:
    """Return x^(a - 1) exp(-x) / gamma(a), the derivative of gammainc (DLMF 8.8.13).

    As its value at x = a times what it falls to from there, neither of which overflows, as in C. Loader, Fast
    and accurate computation of binomial probabilities, 2000.
    """
    a = floats(xp, a, x)
    return _scale(xp, a) * _power(xp, a, x, x - a)


def beta_density(xp: Any, a: Any, b: Any, x: Any, rest: Any) -> Any:
    """Return x^(a - 1) rest^(b - 1) / beta(a, b), the derivative of betainc, where x + rest is 1.

    Made of three densities of the gamma distribution (see `gamma_density`).
    """
    a, b = floats(xp, a, x), floats(xp, b, x)
    n = a + b
    away = b * x - a * rest  # n * x - a, where x + rest is 1 to more figures than x and rest have together
    first = _scale(xp, a) / _scale(xp, n) * (n * _power(xp, a, n * x, away))
    return first * (_scale(xp, b) * (n * _power(xp, b, n * rest, -away)))


def f_parts(xp: Any, dfn: Any, dfd: Any, x: Any) -> tuple[Any, ...]:
    """Return the parameters a, b of the beta distribution, x as one for that, and what x is less than 1."""
    a, b = 0.5 * floats(xp, dfn, x), 0.5 * floats(xp, dfd, x)
    ratio = a / b * x
    rest = 1 / (1 + ratio)
    return a, b, ratio * rest, rest


def f_density(xp: Any, dfn: Any, dfd: Any, x: Any) -> Any:
    """Return the density of the F distribution, the derivative of fdtr."""
    a, b, share, rest = f_parts(xp, dfn, dfd, x)
    return beta_density(xp, a, b, share, rest) * rest * (rest * (a / b))


def student_density(xp: Any, df: Any, t: Any) -> Any:
    """Return the density of Student's t distribution, the derivative of stdtr."""
    df = floats(xp, df, t)
    df = xp.where(df > 1e30, 1e30, df)  # from there on it is the normal distribution
    a = df / 2
    n = a + 0.5
    constant = xp.sqrt(n / df / math.pi) * xp.exp(a * xp.log1p(0.5 / a) - 0.5) * _scale(xp, a) / _scale(xp, n)
    ratio = xp.abs(t) / xp.sqrt(df)
    inner = xp.where(ratio < 1, ratio, 1.0)
    near = xp.exp(-n * xp.log1p(inner * inner))
    root = xp.hypot(xp.where(ratio < 1, 1.0, ratio), xp.ones_like(ratio))
    return constant * xp.where(ratio < 1, near, root**-df / root)


def kolmogorov_density(xp: Any, x: Any) -> Any:
    """Return minus the derivative of kolmogorov, of one of two series that converge at once.

    They are those of G. Marsaglia, W. W. Tsang and J. Wang, Evaluating Kolmogorov's distribution, 2003.
    """
    odd = [(2 * k - 1) ** 2 * math.pi**2 / 8 for k in range(1, 5)]
    y = xp.where(x < 0.8, xp.where(x > 0.03, x, 0.03), 0.8)
    low = sum(xp.exp(-c / (y * y)) * (2 * c / (y * y) - 1) for c in odd) * math.sqrt(2 * math.pi) / (y * y)
    z = xp.where(x < 0.8, 0.8, x)
    high = sum((-1) ** (k - 1) * k * k * xp.exp(-2 * k * k * z * z) for k in range(1, 6)) * 8 * z
    return xp.where(x > 0.03, xp.where(x < 0.8, low, high), 0 * x)


# -- Bessel functions ---------------------------------------------------------------------------------------


def bessel_quotient(xp: Any, x: Any, *, n: int, sign: int) -> Any:
    """Return I_n(x) / x^n, or with the sign -1 J_n(x) / x^n.

    Near 0 by its series (DLMF 10.25.2 and 10.2.2), else by recurrence (10.29.1 and 10.6.1).
    """
    near = xp.abs(x) < 2
    z = xp.where(near, x, 1.0)
    terms = [sign**k / (4**k * math.factorial(k) * math.factorial(n + k)) for k in range(14)]
    series = _horner(terms[::-1], z * z) / 2**n
    z = xp.where(near, 2.0, x)
    before, value = (xp.special.i0(z), xp.special.i1(z)) if sign > 0 else (xp.special.j0(z), xp.special.j1(z))
    largest = value
    for k in range(1, n):
        before, value = value, sign * (before - 2 * k * value / z)
    for _ in range(n):
        value = value / z
    value = xp.where(xp.isinf(largest), xp.inf, value)  # not the difference of two that are infinite
    return xp.where(near, series, value)


def bessel_moment(xp: Any, x: Any, *, n: int) -> Any:
    """Return the mean of (1 - cos t)^n exp(-x (1 - cos t)) over the circle, for x from 0 on.

    For n = 0 it is i0e(x) (DLMF 10.32.1), and each derivative is minus the next of them. All that is added up
    is positive: below 25 at points on the circle, of which few are enough, above the terms of the asymptotic
    series, which for n = 0 is that of DLMF 10.40.1.
    """
    points = 64
    near = x < 25
    z = xp.where(near, x, 0.0)
    total = 0 * z
    for k in range(points):
        height = 2 * math.sin(math.pi * (k + 0.5) / (2 * points)) ** 2
        total = total + height**n * xp.exp(-z * height)
    z = xp.where(near, 25.0, x)
    terms = [1.0]
    for k in range(24):
        terms.append(terms[-1] * (k + 0.5) * (k + n + 0.5) / (2 * (k + 1)))
    first = math.gamma(n + 0.5) / (math.pi * math.sqrt(2))
    far = first * _horner(terms[::-1], 1 / z) / xp.sqrt(z) / z**n
    return xp.where(near, total / points, far)


def exp_quotient(xp: Any, x: Any, *, n: int) -> Any:
    """Return exp(x) / x^n, also where exp(x) alone is too large."""
    root = xp.exp(0.5 * x)
    for _ in range(n):
        root = root / x
    return root * xp.exp(0.5 * x)


def sinc_quotient(xp: Any, x: Any, *, n: int) -> Any:
    """Return j_n(x) / x^n, with the spherical Bessel functions, of which j_0 is sin(x) / x.

    Near 0 by its series (DLMF 10.53.1), else by recurrence (10.51.1).
    """
    near = xp.abs(x) < n + 1
    z = xp.where(near, x, 1.0)
    terms = [math.prod(range(1, 2 * n + 2, 2))]
    for k in range(1, 16 + 4 * n):
        terms.append(terms[-1] * -2 * k * (2 * n + 2 * k + 1))
    series = _horner([1 / term for term in reversed(terms)], z * z)
    z = xp.where(near, 1.0, x)
    before, value = xp.cos(z) / z, xp.sin(z) / z
    for k in range(n):
        before, value = value, (2 * k + 1) * value / z - before
    for _ in range(n):
        value = value / z
    return xp.where(near, series, value)


# -- logarithms and quotients -------------------------------------------------------------------------------


def quotient(xp: Any, x1: Any, x2: Any) -> Any:
    """Return x1 / x2, the derivative of x1 log(x2): 0 where both are 0, NaN where there is no logarithm."""
    x1, x2 = floats(xp, x1, x2), floats(xp, x2, x1)
    return x1 / xp.where((x1 == 0) & (x2 == 0), 1.0, xp.where((x1 != 0) & (x2 < 0), xp.nan, x2))


def soft_clip(xp: Any, delta: Any, r: Any) -> Any:
    """Return the derivative of pseudo_huber, which goes from r to delta where r is large."""
    delta = floats(xp, delta, r)
    return nan_outside(xp, delta > 0, r * (delta / xp.hypot(r, delta)))


def log_ratio(xp: Any, x1: Any, x2: Any) -> Any:
    """Return log(x1 / x2), also where the quotient is too large or too small for the dtype."""
    x1, x2 = floats(xp, x1, x2), floats(xp, x2, x1)
    ratio = x1 / x2
    smallest = float(xp.finfo(ratio.dtype).smallest_normal)
    fits = (ratio >= smallest) & (ratio < xp.inf)
    both = (x1 > 0) & (x2 > 0)
    apart = xp.log(xp.where(both, x1, 1.0)) - xp.log(xp.where(both, x2, 1.0))
    usual = xp.log(xp.where((x1 < 0) | (x2 < 0), xp.nan, xp.where(both & ~fits, 1.0, ratio)))
    return xp.where(both & ~fits, apart, usual)
