"""Shapes and manipulation from operators of ONNX."""

from itertools import accumulate
from math import prod
from typing import Any

import numpy

from xpnet.onnx.nodes.node import Node, check_size, integers, namespace_of, operator


@operator("Shape")
def _shape(xp: Any, node: Node, x: Any) -> Any:
    return numpy.asarray(x.shape[node.get("start", 0) : node.get("end")], dtype="int64")


@operator("Reshape")
def _reshape(xp: Any, node: Node, x: Any, shape: Any = None) -> Any:
    lengths = integers(node.get("shape", shape))
    if not node.get("allowzero"):
        lengths = [x.shape[axis] if length == 0 else length for axis, length in enumerate(lengths)]
    return namespace_of(xp, x).reshape(x, tuple(lengths))


@operator("Flatten")
def _flatten(xp: Any, node: Node, x: Any) -> Any:
    axis = node.get("axis", 1) % (len(x.shape) + 1)
    return xp.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@operator("Transpose")
def _transpose(xp: Any, node: Node, x: Any) -> Any:
    return namespace_of(xp, x).permute_dims(x, tuple(node.get("perm") or reversed(range(len(x.shape)))))


@operator("Squeeze")
def _squeeze(xp: Any, node: Node, x: Any, axes: Any = None) -> Any:
    axes = node.get("axes", axes)
    ones = [axis for axis, length in enumerate(x.shape) if length == 1]
    return namespace_of(xp, x).squeeze(x, axis=tuple(ones if axes is None else integers(axes)))


@operator("Unsqueeze")
def _unsqueeze(xp: Any, node: Node, x: Any, axes: Any = None) -> Any:
    axes = integers(node.get("axes", axes))
    for axis in sorted(axis % (len(x.shape) + len(axes)) for axis in axes):
        x = namespace_of(xp, x).expand_dims(x, axis=axis)
    return x


@operator("Expand")
def _expand(xp: Any, _node: Node, x: Any, shape: Any) -> Any:
    shape = numpy.broadcast_shapes(tuple(x.shape), tuple(integers(shape)))
    check_size(shape)
    return namespace_of(xp, x).broadcast_to(x, shape)


@operator("Concat")
def _concat(xp: Any, node: Node, *values: Any) -> Any:
    check_size([sum(prod(x.shape) for x in values)])
    return namespace_of(xp, values[0]).concat(list(values), axis=node.get("axis"))


@operator("Split")
def _split(xp: Any, node: Node, x: Any, split: Any = None) -> Any:
    axis, split = node.get("axis", 0) % len(x.shape), node.get("split", split)
    number = len(node.outputs)
    size = -(-x.shape[axis] // number)
    sizes = [size] * number if split is None else integers(split)
    if len(sizes) != number:
        raise ValueError(f"{node.name} splits into {number} parts, received {len(sizes)} lengths.")
    ends = accumulate(sizes)
    return [
        x[(*(slice(None),) * axis, slice(end - length, end), ...)]
        for end, length in zip(ends, sizes, strict=True)
    ]


@operator("Tile")
def _tile(xp: Any, _node: Node, x: Any, repeats: Any) -> Any:
    repeats = tuple(integers(repeats))
    check_size([a * b for a, b in zip(x.shape, repeats, strict=True)])
    return namespace_of(xp, x).tile(x, repeats)


@operator("Trilu")
def _trilu(xp: Any, node: Node, x: Any, k: Any = None) -> Any:
    number = 0 if k is None else integers(k)[0]
    return (xp.triu if node.get("upper", 1) else xp.tril)(x, k=number)


@operator("Range")
def _range(xp: Any, _node: Node, start: Any, limit: Any, step: Any) -> Any:
    first, last, by = (numpy.asarray(x).item() for x in (start, limit, step))
    check_size([max(int((last - first) / by), 0)])
    return numpy.arange(first, last, by, dtype=numpy.asarray(start).dtype)


@operator("Constant")
def _constant(xp: Any, node: Node) -> Any:
    ((name, value),) = node.attributes
    kinds = {"value_float": "float32", "value_floats": "float32", "value_string": "O", "value_strings": "O"}
    return numpy.asarray(value, dtype=kinds.get(name))


@operator("ConstantOfShape")
def _constant_of_shape(xp: Any, node: Node, shape: Any) -> Any:
    value = numpy.asarray(node.get("value", numpy.float32(0))).reshape(-1)[0]
    check_size(integers(shape))
    return numpy.full(tuple(integers(shape)), value)
