"""Functions in terms of others, as plain array code, for those who have no counterpart: ONNX, and kernels.

`rewrite.expand` records it, and puts it in the place of a function. Some of it is what gives a function its
gradient, too.
"""

from collections.abc import Callable
from math import inf, log, pi, sqrt
from typing import Any

import numpy

from xpnet.autodiff.primitive import COMPOSITES


def _if_floats(define: Callable[..., Any]) -> Callable[..., Any]:
    """Leave a function as it is unless it computes with real floating-point numbers."""

    def decompose(xp: Any, *arrays: Any, **options: Any) -> Any:
        is_float = xp.isdtype(xp.result_type(*arrays), "real floating")
        return define(xp, *arrays, **options) if is_float else NotImplemented

    return decompose


# -- elementwise functions --------------------------------------------------------------------------------


def _is_negative(xp: Any, x: Any) -> Any:
    """Say whether there is a minus, also before zero."""
    return xp.logical_or(x < 0, xp.reciprocal(x) < 0)


def _isfinite(xp: Any, x: Any) -> Any:
    return xp.abs(xp.astype(x, xp.int32) if xp.isdtype(x.dtype, "bool") else x) < inf


def _copysign(xp: Any, x: Any, sign: Any) -> Any:
    return xp.where(_is_negative(xp, sign), -xp.abs(x), xp.abs(x))


def _atan2(xp: Any, y: Any, x: Any) -> Any:
    # Where the quotient would be no number: two zeros, and two infinite lengths.
    far = xp.logical_and(xp.isinf(y), xp.isinf(x))
    angle = xp.atan(xp.where(far, xp.sign(y) / xp.sign(x), y / x))
    turned = xp.where(y == 0, 0.0, angle) + _copysign(xp, xp.asarray(pi, dtype=y.dtype), y)
    return xp.where(_is_negative(xp, x), turned, xp.where(y == 0, y, angle))


def _times_log(xp: Any, x: Any, y: Any) -> Any:
    """Return x log(y), which is 0 where x is."""
    return xp.where(x == 0, 0.0, x * xp.log(y))


def _shifted(shift: Callable[..., Any]) -> Callable[..., Any]:
    def decompose(xp: Any, x: Any, by: Any) -> Any:
        if xp.result_type(x, by) == xp.uint64:  # powers are of integers with a sign
            return NotImplemented
        x, by = (xp.astype(each, xp.int64) if hasattr(each, "dtype") else each for each in (x, by))
        return shift(xp, x, xp.pow(2, by))

    return decompose


# -- reductions, searching and norms ----------------------------------------------------------------------


def _truths(name: str) -> Callable[..., Any]:
    def decompose(xp: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        numbers = xp.astype(xp.astype(x, xp.bool), xp.int32)
        return xp.astype(getattr(xp, name)(numbers, axis=axis, keepdims=keepdims), xp.bool)

    return decompose


def _count_nonzero(xp: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return xp.sum(xp.astype(xp.astype(x, xp.bool), xp.int64), axis=axis, keepdims=keepdims)


def _isin(xp: Any, a: Any, b: Any, *, invert: bool = False) -> Any:
    found = xp.any(xp.expand_dims(a, axis=-1) == xp.reshape(b, (-1,)), axis=-1)
    return xp.logical_not(found) if invert else found


def _searchsorted(xp: Any, x1: Any, x2: Any, *, side: str = "left", sorter: Any = None) -> Any:
    """Count the sorted numbers that are smaller."""
    x1 = x1 if sorter is None else xp.take(x1, sorter, axis=0)
    before = (xp.less if side == "left" else xp.less_equal)(x1, xp.expand_dims(x2, axis=-1))
    return xp.sum(xp.astype(before, xp.int64), axis=-1)


def _vector_norm(xp: Any, x: Any, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    along = {"axis": axis, "keepdims": keepdims}
    size = xp.abs(x)
    if ord in (inf, -inf):
        return xp.max(size, **along) if ord > 0 else xp.min(size, **along)
    if ord in (0, 1):
        return xp.sum(size if ord else xp.sign(size), **along)
    if ord == 2:
        return xp.sqrt(xp.sum(x * x, **along))
    return xp.pow(xp.sum(xp.pow(size, ord), **along), 1 / ord)


# -- products and matrices --------------------------------------------------------------------------------


def _vecdot(xp: Any, x1: Any, x2: Any, *, axis: int = -1) -> Any:
    products = xp.multiply(x1, x2)
    if xp.isdtype(products.dtype, "complex floating"):
        return NotImplemented
    return xp.sum(products, axis=axis, dtype=products.dtype)


def _cross(xp: Any, x1: Any, x2: Any, *, axis: int = -1) -> Any:
    forward, backward = xp.asarray([1, 2, 0]), xp.asarray([2, 0, 1])
    return xp.take(x1, forward, axis=axis) * xp.take(x2, backward, axis=axis) - (
        xp.take(x1, backward, axis=axis) * xp.take(x2, forward, axis=axis)
    )


def _diagonal(xp: Any, x: Any, *, offset: int = 0) -> Any:
    *others, rows, columns = x.shape
    places = numpy.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    return xp.take(xp.reshape(x, (*others, rows * columns)), xp.asarray(places), axis=-1)


def _matrix_power(xp: Any, x: Any, n: int) -> Any:
    if n > 0:
        return COMPOSITES["linalg.matrix_power"](xp, x, n)
    one = xp.eye(x.shape[-1], dtype=xp.int32)
    return NotImplemented if n else xp.astype(xp.where(x == 0, one, one), x.dtype)  # of the shape of x


# -- manipulation -----------------------------------------------------------------------------------------


def _along(x: Any, axis: int, key: Any) -> Any:
    """Return ``x[key]`` along an axis."""
    return x[(*(slice(None),) * (axis % x.ndim), key, ...)]


def _flip(_xp: Any, x: Any, *, axis: Any = None) -> Any:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    turned = {each % x.ndim for each in axes}
    return x[tuple(slice(None, None, -1 if each in turned else None) for each in range(x.ndim))]


def _stack(xp: Any, arrays: Any, *, axis: int = 0) -> Any:
    return xp.concat([xp.expand_dims(x, axis=axis) for x in arrays], axis=axis)


def _unstack(_xp: Any, x: Any, *, axis: int = 0) -> list[Any]:
    return [_along(x, axis, number) for number in range(x.shape[axis])]


def _repeat(xp: Any, x: Any, repeats: Any, *, axis: int | None = None) -> Any:
    if not isinstance(repeats, int):
        return NotImplemented
    x, axis = (xp.reshape(x, (-1,)), 0) if axis is None else (x, axis % x.ndim)
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    tiled = xp.tile(xp.expand_dims(x, axis=axis + 1), (*(1,) * (axis + 1), repeats, *(1,) * len(behind)))
    return xp.reshape(tiled, (*before, repeats * x.shape[axis], *behind))


def _full(xp: Any, shape: Any, fill_value: Any, *, dtype: Any = None, **_device: Any) -> Any:
    shape = shape if isinstance(shape, tuple | list) else (shape,)
    return xp.broadcast_to(xp.asarray(fill_value, dtype=dtype), shape)


def _full_like(xp: Any, x: Any, fill_value: Any, *, dtype: Any = None, **_device: Any) -> Any:
    return _full(xp, x.shape, fill_value, dtype=dtype or x.dtype)


def _linspace(
    xp: Any, start: Any, stop: Any, num: int, *, dtype: Any = None, endpoint: bool = True, **_device: Any
) -> Any:
    found = xp.result_type(start, stop)
    dtype = dtype or (found if xp.isdtype(found, "real floating") else xp.float64)
    start, stop = (xp.asarray(x, dtype=dtype) for x in (start, stop))
    share = numpy.linspace(0, 1, num, endpoint=endpoint, dtype=dtype)
    return start + (stop - start) * share.reshape(-1, *(1,) * max(start.ndim, stop.ndim))


# Functions that compute in the dtype of their result, to which all arguments have been converted.
IN_DTYPE_OF_RESULT: dict[str, Callable[..., Any]] = {
    "atan2": _atan2,
    "copysign": _copysign,
    # tanh(x / 2) (exp(x) + 1), which keeps the digits of small x.
    "expm1": lambda xp, x: xp.tanh(0.5 * x) * (xp.exp(x) + 1.0),
    "hypot": lambda xp, a, b: xp.sqrt(a * a + b * b),
    "log10": lambda xp, x: xp.log(x) * (1 / log(10)),
    "log1p": lambda xp, x: xp.log(x + 1.0),
    "log2": lambda xp, x: xp.log(x) * (1 / log(2)),
    "logaddexp": lambda xp, a, b: xp.maximum(a, b) + xp.log(xp.exp(-xp.abs(a - b)) + 1.0),
    "matrix_norm": COMPOSITES["linalg.matrix_norm"],
    "special.entr": lambda xp, x: -_times_log(xp, x, x),
    "special.erfc": lambda xp, x: 1.0 - xp.special.erf(x),
    "special.exp2": lambda xp, x: xp.pow(2.0, x),
    "special.kl_div": lambda xp, x, y: _times_log(xp, x, x / y) - x + y,
    "special.log1p": lambda xp, x: xp.log(x + 1.0),
    "special.logit": lambda xp, x: xp.log(x / (1.0 - x)),
    "special.ndtr": lambda xp, x: 0.5 * (1.0 - xp.special.erf(x * -sqrt(0.5))),
    "special.rel_entr": lambda xp, x, y: _times_log(xp, x, x / y),
    "special.xlog1py": lambda xp, x, y: _times_log(xp, x, y + 1.0),
    "special.xlogy": _times_log,
    "vector_norm": _vector_norm,
}

DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    **{name: _if_floats(define) for name, define in IN_DTYPE_OF_RESULT.items()},
    # What autodiff takes apart as well.
    **{
        name: COMPOSITES.get(name) or COMPOSITES[f"linalg.{name}"]
        for name in ("broadcast_arrays", "clip", "diff", "meshgrid", "outer", "trace")
    },
    # Other elementwise functions.
    "bitwise_left_shift": _shifted(lambda _xp, x, factor: x * factor),
    "bitwise_right_shift": _shifted(lambda xp, x, factor: xp.floor_divide(x, factor)),
    "conj": _if_floats(lambda _xp, x: x),
    "floor_divide": _if_floats(lambda xp, a, b: xp.floor(a / b)),
    "isfinite": _isfinite,
    "not_equal": lambda xp, a, b: xp.logical_not(xp.equal(a, b)),
    "real": _if_floats(lambda _xp, x: x),
    "remainder": _if_floats(lambda xp, a, b: a - xp.floor(a / b) * b),
    "signbit": _if_floats(_is_negative),
    "square": lambda _xp, x: x * x,
    "trunc": _if_floats(lambda xp, x: xp.sign(x) * xp.floor(xp.abs(x))),
    # Reductions and searching.
    "all": _truths("min"),
    "any": _truths("max"),
    "count_nonzero": _count_nonzero,
    "isin": _isin,
    "searchsorted": _searchsorted,
    # Products and matrices.
    "cross": _cross,
    "diagonal": _diagonal,
    "matrix_power": _matrix_power,
    "vecdot": _vecdot,
    # Manipulation.
    "flip": _flip,
    "full": _full,
    "full_like": _full_like,
    "linspace": _linspace,
    "repeat": _repeat,
    "stack": _stack,
    "unstack": _unstack,
}  # fmt: skip
