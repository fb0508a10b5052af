"""Sorting and searching."""

from typing import Any, NamedTuple

from xpnet.autodiff.primitive import composite, function


def _sort_back(xp: Any, g: Any, _y: Any, x: Any, *, axis: int, **options: Any) -> Any:
    """Send the gradients back by the inverse of the permutation that sorted the values."""
    order = xp.argsort(x, axis=axis, **options)
    return xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis)


@function(_sort_back)
def sort(call: Any, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return call(x, axis=axis, descending=descending, stable=stable)


# -- what is there several times: each value has the gradient of the first of its occurrences ----------------


class UniqueAll(NamedTuple):
    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    values: Any
    inverse_indices: Any


@composite
def unique_all(xp: Any, x: Any, /) -> UniqueAll:
    x, plain = xp.asarray(x), xp.plain
    values, inverse = plain.unique_inverse(x.value)
    # Sorted by the value that they are, the first of each stands where its number would be put in.
    places = plain.reshape(inverse, (-1,))
    order = plain.argsort(places, stable=True)
    places = plain.take(places, order, axis=0)
    each = plain.arange(values.shape[0], dtype=places.dtype, device=x.device)
    first = plain.searchsorted(places, each, side="left")
    counts = plain.searchsorted(places, each, side="right") - first
    indices = xp.lift(plain.take(order, first, axis=0))
    values = xp.take(xp.reshape(x, (-1,)), indices, axis=0)
    return UniqueAll(values, indices, xp.lift(inverse), xp.lift(plain.astype(counts, order.dtype)))


@composite
def unique_counts(xp: Any, x: Any, /) -> UniqueCounts:
    found = unique_all(xp, x)
    return UniqueCounts(found.values, found.counts)


@composite
def unique_inverse(xp: Any, x: Any, /) -> UniqueInverse:
    found = unique_all(xp, x)
    return UniqueInverse(found.values, found.inverse_indices)


@composite
def unique_values(xp: Any, x: Any, /) -> Any:
    return unique_all(xp, x).values


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


@function(compute=lambda xp, x1, x2, sorter=None, *, side: xp.searchsorted(x1, x2, side=side, sorter=sorter))
def searchsorted(call: Any, x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Any:
    return call(x1, x2, *(() if sorter is None else (sorter,)), side=side)


@function()
def isin(call: Any, x1: Any, x2: Any, /, *, invert: bool = False) -> Any:
    return call(x1, x2, invert=invert)


@function()
def all(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


@function()
def any(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)
