"""Sorting and searching."""

from typing import Any

from xpnet.autodiff.primitive import function


def _sort_back(xp: Any, g: Any, _y: Any, x: Any, *, axis: int, **options: Any) -> Any:
    """Send the gradients back by the inverse of the permutation that sorted the values."""
    order = xp.argsort(x, axis=axis, **options)
    return xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis)


@function(_sort_back)
def sort(call: Any, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return call(x, axis=axis, descending=descending, stable=stable)


# -- functions whose results do not change with small changes of their inputs -------------------------------


@function()
def argsort(call: Any, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return call(x, axis=axis, descending=descending, stable=stable)


@function()
def argmax(call: Any, x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


@function()
def argmin(call: Any, x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


@function()
def count_nonzero(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


@function()
def nonzero(call: Any, x: Any, /) -> Any:
    return call(x)


@function()
def searchsorted(call: Any, x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Any:
    return call(x1, x2, side=side, sorter=sorter)


@function()
def isin(call: Any, x1: Any, x2: Any, /, *, invert: bool = False) -> Any:
    return call(x1, x2, invert=invert)


@function()
def all(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


@function()
def any(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)
