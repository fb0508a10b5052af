"""Sorting and searching."""

from typing import Any

from xpnet.autodiff.primitive import Primitive, function


def _sort_back(xp: Any, g: Any, _y: Any, x: Any, *, axis: int, **options: Any) -> Any:
    """Send the gradients back by the inverse of the permutation that sorted the values."""
    order = xp.argsort(x, axis=axis, **options)
    return xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis)


@function(_sort_back)
def sort(call: Any, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return call(x, axis=axis, descending=descending, stable=stable)


# Functions whose results do not change with small changes of their inputs.
for name in (
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "count_nonzero",
    "isin",
    "nonzero",
    "searchsorted",
):
    Primitive(name)
