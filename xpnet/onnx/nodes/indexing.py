"""Indexing."""

from typing import Any

import numpy

from xpnet.backends import asarray, device_of
from xpnet.onnx.nodes.node import Node, integers, namespace_of, operator


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
        if step > 0:
            start, end = (min(max(n + length if n < 0 else n, 0), length) for n in (start, end))
            key[axis] = slice(start, end, step)
        else:
            start = min(start + length if start < 0 else start, length - 1)
            end = max(end + length if end < 0 else end, -1)
            key[axis] = slice(start, None if end == -1 else end, step)
    return x[tuple(key)]


@operator("Gather")
def _gather(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    own = namespace_of(xp, x)
    if isinstance(indices, numpy.ndarray) and not isinstance(x, numpy.ndarray):
        indices = asarray(indices, device=device_of(x))
    length = x.shape[axis]
    indices = own.where(indices < 0, indices + length, indices)
    if len(indices.shape) == 1:
        return own.take(x, indices, axis=axis)
    taken = own.take(x, own.reshape(indices, (-1,)), axis=axis)
    return own.reshape(taken, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    indices = xp.where(indices < 0, indices + x.shape[axis], indices)
    return xp.take_along_axis(x, indices, axis=axis)


@operator("ai.onnx.ml.ArrayFeatureExtractor")
def _array_feature_extractor(xp: Any, _node: Node, x: Any, indices: Any) -> Any:
    if isinstance(x, numpy.ndarray) and not isinstance(indices, numpy.ndarray):
        x = asarray(x, device=device_of(indices))
    own = namespace_of(xp, x)
    return own.take(own.reshape(x, (-1, x.shape[-1])), own.reshape(indices, (-1,)), axis=-1)
