"""Products of matrices, vectors and tensors."""

import math
from typing import Any

from xpnet.autodiff.primitive import binary, function
from xpnet.autodiff.rules.elementwise import conj


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
