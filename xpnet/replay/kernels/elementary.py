"""Elementary functions of float32, for loops of numba, which import this module when they are compiled.

numba calls a library for these, once for each element. Here they are plain arithmetic without branches, so
that the compiler computes several elements at once, within whatever loop they stand in. No product is rounded
together with a sum, so that the digits are the same on every processor. Each result is within two units in
the last place of the true one; `nox -s every-float32` tries all arguments.

Exponentials compute in float32, as most networks need them for each element. The others compute in float64
and round once, at the end: that is simpler, and takes twice as long.

The coefficients are those of ``mpmath.chebyfit``, which interpolates at Chebyshev's nodes: of a function that
is named beside them, between ends that are named, the highest power first.
"""

from collections.abc import Callable
from functools import reduce
from math import copysign, e, inf, log2, nan, sqrt
from math import log as log_of_number
from typing import Any
from zlib import crc32

from numba import njit
from numpy import float32, float64, int32, uint64

# (expm1(r) - r) / r^2 from -log(2) / 2 to log(2) / 2; the error of expm1 is 2^-26 there.
EXPM1 = (0.0013926176, 0.008363173, 0.041666556, 0.16666578, 0.5)

# (tanh(x) / x - 1) / x^2 as a polynomial in x^2, from 0 to 0.35^2; the error of tanh(x) / x is 2^-29.
TANH = (0.019837985, -0.053815942, 0.13332963, -0.3333333)

# log1p(f) / f from sqrt(1 / 2) - 1 to sqrt(2) - 1; the error is 2^-30.
LOG1P = (
    0.06572327158522023,
    -0.11620648400270368,
    0.11945878227356821,
    -0.12420821262732773,
    0.1421229125042129,
    -0.16666555575670008,
    0.20002535640193383,
    -0.2500006237443588,
    0.3333330266101698,
    -0.49999999414017127,
    1.0000000006010195,
)

# erf(sqrt(t)) / sqrt(t) from 0 to 16; the error is 2^-30.
ERF = (
    -1.0548464362586713e-19,
    1.6461895742303097e-17,
    -1.1993082074153928e-15,
    5.4356112290351737e-14,
    -1.7253461499408076e-12,
    4.100805217492259e-11,
    -7.636661364063587e-10,
    1.1537478453888524e-08,
    -1.4552772506912044e-07,
    1.5683418988651658e-06,
    -1.4672344524186108e-05,
    0.00011994699833029545,
    -0.0008538059114803299,
    0.005222814849914871,
    -0.026865362575235727,
    0.11283761831412821,
    -0.3761263450602224,
    1.1283791660116205,
)

_compiled = njit(error_model="numpy")


def _polynomial(coefficients: tuple[float, ...], dtype: type = float64) -> Callable[[Any], Any]:
    """Return a polynomial, written out: with a loop in it, the one around it would not be vectorized."""
    terms = [f"{dtype.__name__}({coefficient!r})" for coefficient in coefficients]
    text = reduce(lambda higher, lower: f"({higher}) * x + {lower}", terms)
    polynomial = eval(f"lambda x: {text}")
    # In machine code, what is called alike is one.
    polynomial.__qualname__ = f"polynomial_{crc32(text.encode())}"
    return _compiled(polynomial)


@_compiled
def _limited(x: Any, low: Any, high: Any) -> Any:
    """Return a number, or the limit that it is beyond; NaN stays."""
    return high if x > high else low if x < low else x


# -- exponentials -------------------------------------------------------------------------------------------

_expm1_of_rest = _polynomial(EXPM1, float32)
_tanh_of_square = _polynomial(TANH, float32)

ONE = float32(1)
LOG2_E = float32(log2(e))
# log(2) in two parts. The first has 15 digits, so that its product with a whole number up to 185 is exact.
LOG_2_FIRST = float32(0.693145751953125)
LOG_2_REST = float32(log_of_number(2) - 0.693145751953125)
# A float32 has 23 digits behind the first one, and before them n + 127 for a number from 2^n on.
DIGITS, BIAS = int32(23), int32(127)
# What is added to this is rounded to a whole number, which is the difference of the bits.
ROUNDING = float32(1.5 * 2**23)
BITS_OF_ROUNDING = ROUNDING.view(int32)

# Below and above these, exp is 0 or infinity in float32, expm1 -1 or infinity, and tanh of positive ones 1.
OF_EXP, OF_EXPM1, OF_TANH = [(float32(low), float32(high)) for low, high in ((-104, 89), (-18, 89), (0, 10))]
SMALL = float32(0.35)
FAR = int32(64)  # 2^-64 is nothing beside 1


@_compiled
def _split(x: Any) -> Any:
    """Return expm1(r) and n of x = n log(2) + r, where n is the nearest whole number."""
    rounded = float32(x * LOG2_E + ROUNDING)
    n = rounded - ROUNDING
    rest = (x - n * LOG_2_FIRST) - n * LOG_2_REST
    return rest + rest * rest * _expm1_of_rest(rest), int32(rounded.view(int32) - BITS_OF_ROUNDING)


@_compiled
def _power_of_two(n: Any) -> Any:
    return int32((n + BIAS) << DIGITS).view(float32)


@_compiled
def _scaled(x: Any, n: Any) -> Any:
    """Return x 2^n, by two factors: 2^n alone can be out of reach."""
    half = n >> int32(1)
    return x * _power_of_two(half) * _power_of_two(n - half)


@_compiled
def exp(x: float32) -> float32:
    """Return e^x."""
    less_one, n = _split(_limited(x, *OF_EXP))
    return _scaled(less_one + ONE, n)


@_compiled
def expm1(x: float32) -> float32:
    """Return e^x - 1, without cancellation."""
    less_one, n = _split(_limited(x, *OF_EXPM1))
    power = _power_of_two(-min(n, FAR))
    return float32(copysign(_scaled(less_one - (power - ONE), n), x))


@_compiled
def tanh(x: float32) -> float32:
    """Return the hyperbolic tangent, expm1(2x) / (expm1(2x) + 2), and near 0 a polynomial."""
    size = _limited(abs(x), *OF_TANH)
    square = size * size
    small = size + size * square * _tanh_of_square(square)
    less_one, n = _split(size + size)
    power = _power_of_two(-n)
    above = less_one - (power - ONE)  # as the divisor below, times 2^-n
    large = above / (above + (power + power))
    return float32(copysign(large if size >= SMALL else small, x))


@_compiled
def expit(x: float32) -> float32:
    """Return the logistic function, 1 / (1 + e^-x), or e^x / (1 + e^x) where that would overflow."""
    power = float64(exp(-abs(x)))
    return float32((power if x < 0 else 1.0) / (1.0 + power))


# -- logarithms and the error function ----------------------------------------------------------------------

_log1p_of_rest, _erf_of_root = map(_polynomial, (LOG1P, ERF))

LOG_2 = log_of_number(2)
# A float64 has 52 digits behind the first one, and before them n + 1023 for a number from 2^n on.
WIDE_DIGITS = uint64(52)
WIDE_ONE, EXPONENT = uint64(1023) << WIDE_DIGITS, uint64(0xFFF) << WIDE_DIGITS
# With a whole number in its lowest bits, this is the sum of 2^52 and that.
TO_NUMBER = uint64(1023 + 52) << WIDE_DIGITS
# Added to the bits of a number, this divides it by sqrt(1 / 2), but for the digits.
BY_ROOT_HALF = WIDE_ONE - float64(sqrt(0.5)).view(uint64)
DENORMAL = 0x00800000  # float32 of fewer bits are denormal


@_compiled
def _wide(x: Any) -> Any:
    """Return a number as a float64, denormal or not.

    A processor that takes denormal numbers for zero does so in a conversion, too. These have the value of
    their bits times that of the lowest one.
    """
    wide, size = float64(x), int32(float32(x).view(int32) & 0x7FFFFFFF)
    return copysign(float64(size) * 2.0**-149, wide) if size < DENORMAL else wide


@_compiled
def _log(x: Any, less_one: Any) -> Any:
    """Return the logarithm of x = 2^n (1 + f), where 1 + f is from sqrt(1 / 2) to sqrt(2).

    That x - 1 is handed in serves log1p: x may have lost the digits of a small one.
    """
    bits = float64(x).view(uint64)
    quotient = bits + BY_ROOT_HALF  # which has the n of x
    minus_n = (2.0**52 + 1023.0) - uint64((quotient >> WIDE_DIGITS) | TO_NUMBER).view(float64)
    rest = uint64(bits - (quotient & EXPONENT) + WIDE_ONE).view(float64) - 1.0
    rest = less_one if minus_n == 0.0 else rest
    result = rest * _log1p_of_rest(rest) - minus_n * LOG_2  # -0 - 0 is -0
    result = result if x < inf else x
    return result if x > 0.0 or x != x else -inf if x == 0.0 else nan


@_compiled
def log(x: float32) -> float32:
    """Return the natural logarithm."""
    wide = _wide(x)
    return float32(_log(wide, wide - 1.0))


@_compiled
def log1p(x: float32) -> float32:
    """Return the natural logarithm of 1 + x."""
    wide = float64(x)
    return float32(_log(1.0 + wide, wide))


@_compiled
def erf(x: float32) -> float32:
    """Return the error function, which is 1 in float32 from 4 on."""
    limited = _limited(_wide(x), -4.0, 4.0)
    return float32(limited * _erf_of_root(limited * limited))
