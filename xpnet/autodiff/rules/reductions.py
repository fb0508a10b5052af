"""Functions that reduce or accumulate along axes: sums, products, statistics."""

import math
from typing import Any

from xpnet.autodiff.primitive import function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.rules.kinks import subgradient
from xpnet.backends import at_least_single


def reduced_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the reduced axes as non-negative numbers."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    return tuple(int(a) % ndim for a in axes)


def spread(xp: Any, reduced: Any, x: Any, axis: Any) -> Any:
    """Stretch the result of a reduction over the axes that it reduced, to the shape of ``x``."""
    if reduced.shape != ():
        axes = reduced_axes(axis, len(x.shape))
        kept = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
        reduced = xp.reshape(reduced, kept)
    return xp.broadcast_to(reduced, x.shape)


def count(x: Any, axis: Any) -> int:
    """Return how many elements each result of a reduction was made from."""
    return math.prod(x.shape[a] for a in reduced_axes(axis, len(x.shape)))


def _over(g: Any, number: float) -> Any:
    """Return ``g / number``, also where the dtype of ``g`` has no such number: float16 ends at 65,504."""
    if number <= 2**15:
        return g / number
    half = 2.0 ** (math.frexp(number)[1] // 2)
    return g / (number / half) / half


@function(lambda xp, g, _y, _x, *, axis, **_: spread(xp, g, _x, axis))
def sum(call: Any, x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, dtype=dtype, keepdims=keepdims)


@function(lambda xp, g, _y, _x, *, axis, **_: spread(xp, _over(g, count(_x, axis)), _x, axis))
def mean(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


def _deviation(xp: Any, x: Any, axis: Any) -> Any:
    return conj(xp, x - xp.mean(x, axis=axis, keepdims=True))


def _var(xp: Any, g: Any, _y: Any, x: Any, *, axis: Any, correction: float, **_: Any) -> Any:
    g = _over(g, (count(x, axis) - correction) / 2)
    return spread(xp, g, x, axis) * _deviation(xp, x, axis)


@function(_var)
def var(call: Any, x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    return call(x, axis=axis, correction=correction, keepdims=keepdims)


def _std(xp: Any, g: Any, y: Any, x: Any, *, axis: Any, correction: float, keepdims: bool) -> Any:
    wide = at_least_single(xp, x)
    if wide is not x:  # the sum of the squares may have been infinite
        x, y = wide, xp.std(wide, axis=axis, correction=correction, keepdims=keepdims)
    # Where all elements are equal there is no derivative, and 0 is returned. The second subtraction makes it
    # so where their mean was rounded.
    deviation = _deviation(xp, x, axis)
    deviation = deviation - xp.mean(deviation, axis=axis, keepdims=True)
    slope = deviation / spread(xp, xp.where(y == 0, xp.ones_like(y), y), x, axis)
    g = _over(g, count(x, axis) - correction)
    return subgradient(xp, spread(xp, g, x, axis), slope, lambda: (spread(xp, y == 0, x, axis), x), axis=axis)


@function(_std)
def std(call: Any, x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    return call(x, axis=axis, correction=correction, keepdims=keepdims)


def _extremum(xp: Any, g: Any, y: Any, x: Any, *, axis: Any, keepdims: bool) -> Any:
    """Share the gradient among the elements that are equal to the extremum. NaN is equal to none.

    The shares are constants, not chosen slopes of a kink: in softmaxes the gradient of the shift by the
    largest element is 0, as it does not count, and NaN at equal elements would say that it may.
    """
    ties = x == spread(xp, y, x, axis)
    shares = xp.astype(ties, at_least_single(xp, y).dtype)
    if math.prod(x.shape) <= 2**24:  # to which float32 counts
        number = xp.sum(shares, axis=axis, keepdims=keepdims)
    else:
        number = xp.astype(xp.count_nonzero(ties, axis=axis, keepdims=keepdims), shares.dtype)
    return spread(xp, g / xp.where(number == 0, math.nan, number), x, axis) * shares


@function(_extremum)
def max(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


@function(_extremum)
def min(call: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, keepdims=keepdims)


def _products_before(xp: Any, x: Any) -> Any:
    """Return, for each element of the last axis, the product of those before it."""
    return xp.cumulative_prod(x, axis=-1, include_initial=True)[..., :-1]


def _prod(xp: Any, g: Any, _y: Any, x: Any, *, axis: Any, **_: Any) -> Any:
    """Multiply, for each element, the elements before it and those behind it: right where some are zero."""
    axes = reduced_axes(axis, len(x.shape))
    order = (*(a for a in range(len(x.shape)) if a not in axes), *axes)
    moved = xp.permute_dims(x, order)
    rows = xp.reshape(moved, (*moved.shape[: len(order) - len(axes)], count(x, axis)))
    before = _products_before(xp, rows)
    behind = xp.flip(_products_before(xp, xp.flip(rows, axis=-1)), axis=-1)
    others = xp.reshape(before * behind, moved.shape)
    inverse = tuple(order.index(a) for a in range(len(order)))
    return spread(xp, g, x, axis) * xp.permute_dims(others, inverse)


@function(_prod)
def prod(call: Any, x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    return call(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _cumulative_sum(xp: Any, g: Any, _y: Any, _x: Any, *, axis: Any, include_initial: bool, **_: Any) -> Any:
    axis = 0 if axis is None else axis
    if include_initial:
        g = xp.take(g, xp.arange(1, g.shape[axis], device=g.device), axis=axis)
    return xp.flip(xp.cumulative_sum(xp.flip(g, axis=axis), axis=axis), axis=axis)


@function(_cumulative_sum)
def cumulative_sum(
    call: Any, x: Any, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    return call(x, axis=axis, dtype=dtype, include_initial=include_initial)


def _cumulative_prod(xp: Any, g: Any, _y: Any, x: Any, *, axis: Any, include_initial: bool, **_: Any) -> Any:
    """Return ``before_k s_k``, where ``s_k = g_k + x_(k+1) s_(k+1)``: right where some elements are zero.

    Each step of the loop doubles the number of terms that ``s`` has of this recurrence.
    """
    axis = 0 if axis is None else axis
    x, s = xp.moveaxis(x, axis, -1), xp.moveaxis(g, axis, -1)
    if include_initial:
        s = s[..., 1:]
    before = _products_before(xp, x)
    size = x.shape[-1]
    factors = _shift(xp, x, 1) if size else x
    step = 1
    while step < size:
        s = s + factors * _shift(xp, s, step)
        factors = factors * _shift(xp, factors, step)
        step *= 2
    return xp.moveaxis(before * s, -1, axis)


def _shift(xp: Any, x: Any, step: int) -> Any:
    """Move the last axis to the left and fill up with zeros."""
    return xp.concat([x[..., step:], xp.zeros_like(x[..., :step])], axis=-1)


@function(_cumulative_prod)
def cumulative_prod(
    call: Any, x: Any, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    return call(x, axis=axis, dtype=dtype, include_initial=include_initial)
