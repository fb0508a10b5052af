"""Gradients of gradients at kinks: NaN where they would be wrong.

At a kink, as `abs` has at 0, a rule gives one of many slopes, mostly 0. Its own derivative knows nothing of
the others, and is 0 as well. That is wrong where the whole is smooth: `abs(x) ** 2` is curved at 0 too.
"""

import math
from collections.abc import Callable
from typing import Any

from xpnet.autodiff.primitive import Primitive


def is_traced(xp: Any) -> bool:
    """Say whether a rule runs in a sweep of higher order."""
    return getattr(xp, "plain", None) is not None


def subgradient(
    xp: Any,
    g: Any,
    slope: Any,
    kink: Callable[[], tuple[Any, Any]],
    *,
    axis: Any = (),
    corner: bool = False,
    transposed: bool = False,
) -> Any:
    """Return ``g * slope``, in the rule of a function with kinks.

    Parameters
    ----------
    xp : namespace
    g : array
        The gradient that arrives.
    slope : array
        The derivative of the function, and what was chosen for it at the kinks.
    kink : callable
        Returns where the kinks are, an array of booleans, and what moves away from them: the function's
        input, or what changes with it. It is called in sweeps of higher order only.
    axis : int, tuple of int or None, default=()
        The axes along which the elements have a kink together, as those of a norm have; None means all.
    corner : bool, default=False
        Whether the function is straight on all sides of the kink, as `abs` is. Then it has the second
        derivative 0 there, but where ``g`` is 0, as the whole may be smooth. At the tip of a norm it is
        infinite.
    transposed : bool, default=False
        Whether this is the derivative of such a product with respect to ``g``. What was ``g`` then arrives
        from the other side.
    """
    if is_traced(xp):
        return xp.subgradient(g, slope, *kink(), axis=axis, corner=corner, transposed=transposed)
    return g * slope


def _moved(
    xp: Any,
    v: Any,
    _y: Any,
    g: Any,
    _slope: Any,
    at: Any,
    _x: Any,
    *,
    axis: Any,
    corner: bool,
    transposed: bool,
) -> Any:
    g, v = (v, g) if transposed else (g, v)
    return nan_where(xp, at & (g == 0) if corner else at, v, axis=axis)


Primitive(
    "subgradient",
    (
        lambda xp, v, _y, _g, slope, at, x, *, axis, corner, transposed: subgradient(
            xp, v, slope, lambda: (at, x), axis=axis, corner=corner, transposed=not transposed
        ),
        lambda xp, v, _y, g, _slope, _at, _x, **_: v * g,
        None,
        _moved,
    ),
    compute=lambda _xp, g, slope, _at, _x, **_: g * slope,
)


def nan_where(xp: Any, undefined: Any, g: Any, *, axis: Any = ()) -> Any:
    """Return the product of ``g`` and a derivative that is NaN at some places, 0 at the others.

    It is 0 wherever ``g`` is, in all elements along the axes: what does not count may be undefined.
    """
    if is_traced(xp):
        return xp.nan_where(undefined, g, axis=axis)
    counts = g != 0
    if axis != ():
        counts = xp.any(counts, axis=axis, keepdims=True)
    return xp.where(undefined & counts, math.nan, xp.zeros_like(g))


Primitive(
    "nan_where",
    (None, lambda xp, g, _y, undefined, _g, *, axis: nan_where(xp, undefined, g, axis=axis)),
    compute=nan_where,
)
