"""Matrix products of operands with fewer digits, as the matrix units of a GPU compute them: the operands are
rounded, and the products are added up in float32.

A plan that has such units rounds by its own means. For others, rounding is written with functions of the
standard, so that a training behaves the same on any library.
"""

from typing import Any, NamedTuple


class Format(NamedTuple):
    """A format of floating-point numbers within those of float32.

    Attributes
    ----------
    digits : int
        How many binary digits a number has, with the one in front of the point.
    smallest : float
        The smallest number with so many; below, the last digit stands for the same as here.
    limit : float
        From here on, numbers are rounded to infinity.
    """

    digits: int
    smallest: float
    limit: float


FORMATS = {
    "tf32": Format(11, 2.0**-126, 2.0**128 - 2.0**116),
    "float16": Format(11, 2.0**-14, 65520.0),
    "bfloat16": Format(8, 2.0**-126, 2.0**128 - 2.0**119),
}

PRECISIONS = ("float32", *FORMATS)


def check_precision(precision: Any) -> None:
    """Check that a precision is one that products can be computed in."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, received {precision!r}.")


def rounded(xp: Any, x: Any, *, precision: str) -> Any:
    """Round float32 to the nearest number of another format; halfway, to that with an even last digit.

    Adding 2^s c to x, where c is near to x, leaves no room for the last s digits, and the processor rounds
    them away. For the even digit, c must be even: it is x, rounded like that without this condition. That
    is the splitting of Veltkamp and Dekker, done twice.

    References
    ----------
    Dekker, "A floating-point technique for extending the available precision", 1971,
    https://doi.org/10.1007/BF01397083.
    """
    digits, smallest, limit = FORMATS[precision]
    factor = 2.0 ** (24 - digits)
    large = 2.0**64  # a power whose products with the factor are finite
    size = xp.abs(x)
    is_small = size < large
    y = xp.minimum(xp.where(is_small, size, size * (1 / large)), large)
    c = y * factor
    c = factor * xp.maximum((c + y) - c, smallest)
    y = (c + y) - c
    y = xp.where(is_small, y, y * large)
    y = xp.where(size >= limit, xp.inf, y)
    return xp.where(x < 0, -y, y)
