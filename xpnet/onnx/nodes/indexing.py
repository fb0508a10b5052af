"""Indexing from operators of ONNX."""

from collections.abc import Sequence
from math import prod
from typing import Any

from xpnet.autodiff import extended_namespace
from xpnet.onnx.nodes.node import Node, beside, check_size, integers, namespace_of, operator


@operator("Slice")
def _slice(
    xp: Any, node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    starts, ends = (integers(node.get(name, v)) for name, v in (("starts", starts), ("ends", ends)))
    axes = node.get("axes", axes)
    axes = range(len(starts)) if axes is None else [axis % len(x.shape) for axis in integers(axes)]
    steps = [1] * len(starts) if steps is None else integers(steps)
    key = [slice(None)] * len(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = x.shape[axis]
        start, end = (n + length if n < 0 else n for n in (start, end))
        if step < 0:
            # Not every library takes a negative step. In the array turned around the last place is the first.
            x, start, end = xp.flip(x, axis=axis), length - 1 - max(start, 0), length - 1 - end
        start, end = (min(max(n, 0), length) for n in (start, end))
        key[axis] = slice(start, end, abs(step))
    return x[tuple(key)]


@operator("Gather")
def _gather(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    x, indices = beside(x, indices), beside(indices, x)
    own, length = namespace_of(xp, x), x.shape[axis]
    check_size((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    indices = own.where(indices < 0, indices + length, indices)
    if len(indices.shape) == 1:
        return own.take(x, indices, axis=axis)
    taken = own.take(x, own.reshape(indices, (-1,)), axis=axis)
    return own.reshape(taken, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    x, indices = beside(x, indices), beside(indices, x)
    own = namespace_of(xp, x)
    indices = own.where(indices < 0, indices + x.shape[axis], indices)
    return own.take_along_axis(x, indices, axis=axis)


def _rows(xp: Any, lengths: Sequence[int], columns: Sequence[Any]) -> Any:
    """Number the places of the first axes of an array, from what the indices say of each of these axes."""
    rows: Any = 0
    for length, column in zip(lengths, columns, strict=True):
        rows = rows * length + xp.where(column < 0, column + length, column)
    return rows


def _rows_of(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    """Number the places that the last axis of an array of indices names."""
    depth = indices.shape[-1]
    if not 0 < depth <= len(x.shape) or node.get("batch_dims"):
        raise ValueError(f"{node.name} needs indices of the first axes, received {tuple(indices.shape)}.")
    return _rows(xp, x.shape[:depth], [indices[..., axis] for axis in range(depth)])


@operator("GatherND")
def _gather_nd(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    x, indices = beside(x, indices), beside(indices, x)
    own = namespace_of(xp, x)
    rest = tuple(x.shape[indices.shape[-1] :])
    rows = _rows_of(own, node, x, indices)
    check_size((*rows.shape, *rest))
    taken = own.take(own.reshape(x, (-1, *rest)), own.reshape(rows, (-1,)), axis=0)
    return own.reshape(taken, (*rows.shape, *rest))


@operator("ScatterND")
def _scatter_nd(xp: Any, node: Node, x: Any, indices: Any, updates: Any) -> Any:
    x, indices = beside(x, updates), beside(indices, updates)
    own = namespace_of(xp, x)
    rest = tuple(x.shape[indices.shape[-1] :])
    rows = own.reshape(_rows_of(own, node, x, indices), (-1,))
    changed = _scattered(own, node, own.reshape(x, (-1, *rest)), rows, own.reshape(updates, (-1, *rest)))
    return own.reshape(changed, x.shape)


@operator("ScatterElements")
def _scatter_elements(xp: Any, node: Node, x: Any, indices: Any, updates: Any) -> Any:
    x, indices = beside(x, updates), beside(indices, updates)
    own = namespace_of(xp, x)
    rank = len(x.shape)
    columns: list[Any] = []
    for place, length in enumerate(indices.shape):
        count = own.arange(length, dtype=indices.dtype, device=x.device)
        columns.append(own.reshape(count, (-1, *(1,) * (rank - 1 - place))))
    columns[node.get("axis", 0) % rank] = indices
    flat = (own.reshape(each, (-1,)) for each in (x, _rows(own, x.shape, columns), updates))
    return own.reshape(_scattered(own, node, *flat), x.shape)


def _scattered(xp: Any, node: Node, x: Any, rows: Any, updates: Any) -> Any:
    """Write or add to rows of an array."""
    reduction = node.get("reduction", "none")
    if reduction not in ("none", "add") or xp.isdtype(x.dtype, "bool"):
        raise ValueError(f"{node.name} writes or adds numbers, received {reduction} of {x.dtype}.")
    scatter_add = extended_namespace(updates).scatter_add
    added = scatter_add(updates, (rows,), tuple(x.shape))
    if reduction == "add":
        return x + added
    written = scatter_add(xp.ones_like(updates), (rows,), tuple(x.shape)) > 0
    return xp.where(written, added, x)


@operator("ai.onnx.ml.ArrayFeatureExtractor")
def _array_feature_extractor(xp: Any, _node: Node, x: Any, indices: Any) -> Any:
    x = beside(x, indices)
    own = namespace_of(xp, x)
    check_size((prod(x.shape[:-1]), *indices.shape))
    return own.take(own.reshape(x, (-1, x.shape[-1])), own.reshape(indices, (-1,)), axis=-1)
