"""Products of matrices, vectors and tensors, diagonals and norms."""

import math
from typing import Any

from xpnet.autodiff.primitive import Primitive, binary, composite, function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.rules.kinks import subgradient
from xpnet.autodiff.rules.reductions import reduced_axes, spread
from xpnet.backends import at_least_single, in_dtype


def _matmul_x1(xp: Any, g: Any, _y: Any, _x1: Any, x2: Any) -> Any:
    if len(x2.shape) == 1:  # (..., i, k) @ (k,) -> (..., i)
        return xp.expand_dims(g, axis=-1) * x2
    if len(_x1.shape) == 1:  # (k,) @ (..., k, j) -> (..., j)
        return xp.matmul(xp.expand_dims(g, axis=-2), x2.mT)[..., 0, :]
    return xp.matmul(g, x2.mT)


def _matmul_x2(xp: Any, g: Any, _y: Any, x1: Any, _x2: Any) -> Any:
    if len(x1.shape) == 1:
        if len(_x2.shape) == 1:  # (k,) @ (k,) -> ()
            return g * x1
        return xp.expand_dims(x1, axis=-1) * xp.expand_dims(g, axis=-2)  # (k,) @ (..., k, j) -> (..., j)
    if len(_x2.shape) == 1:  # (..., i, k) @ (k,) -> (..., i)
        return xp.matmul(x1.mT, xp.expand_dims(g, axis=-1))[..., 0]
    if len(_x2.shape) == 2 and len(x1.shape) > 2:  # one product over the whole batch, not one a matrix
        rows = math.prod(x1.shape[:-1])
        x1 = xp.reshape(x1, (rows, x1.shape[-1]))
        g = xp.reshape(g, (rows, g.shape[-1]))
    return xp.matmul(x1.mT, g)


binary("matmul", _matmul_x1, _matmul_x2)


def _vecdot_x1(xp: Any, g: Any, _y: Any, _x1: Any, x2: Any, *, axis: int) -> Any:
    return conj(xp, xp.expand_dims(g, axis=axis) * x2)  # vecdot conjugates its first argument


def _vecdot_x2(xp: Any, g: Any, _y: Any, x1: Any, _x2: Any, *, axis: int) -> Any:
    return xp.expand_dims(g, axis=axis) * conj(xp, x1)


@function(_vecdot_x1, _vecdot_x2)
def vecdot(call: Any, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return call(x1, x2, axis=axis)


def _contracted(axes: Any, ndim1: int, ndim2: int) -> tuple[list[int], list[int]]:
    """Return the axes of both arrays that `tensordot` sums over, as non-negative numbers."""
    if isinstance(axes, int):
        return list(range(ndim1 - axes, ndim1)), list(range(axes))
    axes1, axes2 = ((a,) if isinstance(a, int) else a for a in axes)
    return [a % ndim1 for a in axes1], [a % ndim2 for a in axes2]


def _tensordot_x1(xp: Any, g: Any, _y: Any, _x1: Any, x2: Any, *, axes: Any) -> Any:
    axes1, axes2 = _contracted(axes, len(_x1.shape), len(x2.shape))
    free1 = [a for a in range(len(_x1.shape)) if a not in axes1]
    free2 = [a for a in range(len(x2.shape)) if a not in axes2]
    # The result has the free axes of x1, then x2's contracted axes in x2's order.
    product = xp.tensordot(g, x2, axes=(list(range(len(free1), len(free1) + len(free2))), free2))
    order = free1 + [axes1[axes2.index(a)] for a in sorted(axes2)]
    return xp.permute_dims(product, tuple(order.index(a) for a in range(len(order))))


def _tensordot_x2(xp: Any, g: Any, _y: Any, x1: Any, _x2: Any, *, axes: Any) -> Any:
    axes1, axes2 = _contracted(axes, len(x1.shape), len(_x2.shape))
    free1 = [a for a in range(len(x1.shape)) if a not in axes1]
    free2 = [a for a in range(len(_x2.shape)) if a not in axes2]
    product = xp.tensordot(x1, g, axes=(free1, list(range(len(free1)))))
    order = [axes2[axes1.index(a)] for a in sorted(axes1)] + free2
    return xp.permute_dims(product, tuple(order.index(a) for a in range(len(order))))


@function(_tensordot_x1, _tensordot_x2)
def tensordot(call: Any, x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    return call(x1, x2, axes=axes)


# -- diagonals and products of the extension ----------------------------------------------------------------


def _diagonal_back(xp: Any, g: Any, _y: Any, _x: Any, *, offset: int) -> Any:
    rows, columns = _x.shape[-2:]
    before = max(-offset, 0)
    zeros = [xp.zeros((*g.shape[:-1], n), dtype=g.dtype, device=g.device) for n in (before, rows)]
    by_row = xp.concat([zeros[0], g, zeros[1]], axis=-1)[..., :rows]
    return by_row[..., None] * xp.eye(rows, columns, k=offset, dtype=g.dtype, device=g.device)


@function(_diagonal_back, extension="linalg")
def diagonal(call: Any, x: Any, /, *, offset: int = 0) -> Any:
    return call(x, offset=offset)


@composite(extension="linalg")
def trace(xp: Any, x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return xp.sum(xp.linalg.diagonal(x, offset=offset), axis=-1, dtype=dtype)


@composite(extension="linalg")
def outer(xp: Any, x1: Any, x2: Any, /) -> Any:
    return xp.expand_dims(x1, -1) * xp.expand_dims(x2, 0)


@function(
    lambda xp, g, _y, _x1, x2, *, axis: xp.linalg.cross(*xp.broadcast_arrays(x2, g), axis=axis),
    lambda xp, g, _y, x1, _x2, *, axis: xp.linalg.cross(*xp.broadcast_arrays(g, x1), axis=axis),
    extension="linalg",
)
def cross(call: Any, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return call(x1, x2, axis=axis)


# -- norms --------------------------------------------------------------------------------------------------


def _compute_norm(xp: Any, x: Any, *, axis: Any, keepdims: bool, ord: float) -> Any:
    """Return the norm of the elements beside the largest, times that: their own powers may overflow."""
    narrow = xp.abs(x)
    sizes = at_least_single(xp, narrow)
    if 0 in x.shape:
        zeros = xp.sum(sizes, axis=axis, keepdims=keepdims)
        return in_dtype(xp, zeros if ord > 0 else zeros + math.inf, narrow.dtype)
    scale = (xp.max if ord > 0 else xp.min)(sizes, axis=axis, keepdims=True)
    ratios = sizes / xp.where((scale == 0) | xp.isinf(scale), 1.0, scale)
    if ord < 0:
        ratios = xp.where(sizes == 0, math.inf, ratios)
    total = xp.sum(ratios**ord, axis=axis, keepdims=True)
    y = scale * xp.where(total == 0, 1.0, total) ** (1 / ord)  # 0 where the scale is 0 or infinite
    y = in_dtype(xp, y, narrow.dtype)
    return y if keepdims else xp.squeeze(y, axis=reduced_axes(axis, len(x.shape)))


def _norm(xp: Any, g: Any, y: Any, x: Any, *, axis: Any, ord: float, **_: Any) -> Any:
    # A norm that has overflowed does not tell the slopes. At the tip of one of a positive order all are 0.
    length = xp.where(y == 0, 1.0, xp.where(xp.isinf(y), math.nan, y))
    length = spread(xp, length, x, axis)
    if ord == 2:
        slope = conj(xp, x) / length
    else:
        sizes, tip = xp.abs(x), spread(xp, y == 0, x, axis)
        signs = conj(xp, x) / xp.where(sizes == 0, xp.ones_like(sizes), sizes)
        ratios = xp.where(tip, 1.0, sizes / length)
        if ord < 1:  # infinite where an element is 0, of either sign
            ratios = xp.where(ratios == 0, math.nan, ratios)
        slope = signs * ratios ** (ord - 1)
        slope = xp.where(tip, 0.0, slope) if ord < 0 else slope
    return subgradient(xp, spread(xp, g, x, axis), slope, lambda: (spread(xp, y == 0, x, axis), x), axis=axis)


Primitive("p_norm", (_norm,), compute=_compute_norm)


@composite(extension="linalg")
def vector_norm(xp: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    if isinstance(ord, int | float) and ord not in (0, 1, math.inf, -math.inf):
        return xp.p_norm(x, axis=axis, keepdims=keepdims, ord=ord)
    size = xp.abs(x)
    if ord == math.inf:
        return xp.max(size, axis=axis, keepdims=keepdims)
    if ord == -math.inf:
        return xp.min(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return xp.sum(xp.astype(x != 0, size.dtype), axis=axis, keepdims=keepdims)
    if ord == 1:
        return xp.sum(size, axis=axis, keepdims=keepdims)
    total = xp.sum(size**ord, axis=axis, keepdims=keepdims)  # an array, which may have a gradient
    return xp.where(total == 0, 0.0, xp.where(total == 0, 1.0, total) ** (1 / ord))


_MATRIX_NORMS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


@composite(extension="linalg")
def matrix_norm(xp: Any, x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    if ord == "fro":
        return xp.linalg.vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in _MATRIX_NORMS:
        raise ValueError(f"ord must be one of {', '.join(map(repr, _MATRIX_NORMS))}, received {ord!r}.")
    if ord == "nuc":
        norm = xp.sum(xp.linalg.svdvals(x), axis=-1)
    else:
        if abs(ord) == 2:
            sizes = xp.linalg.svdvals(x)
        else:
            sizes = xp.sum(xp.abs(x), axis=-2 if abs(ord) == 1 else -1)
        norm = (xp.max if ord > 0 else xp.min)(sizes, axis=-1)
    return norm[..., None, None] if keepdims else norm
