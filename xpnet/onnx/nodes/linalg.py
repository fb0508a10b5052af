"""Products and normalizations from operators of ONNX."""

from typing import Any

import numpy

from xpnet.onnx.nodes.node import Node, check_size, check_together, namespace_of, operator


@operator("MatMul")
def _matmul(xp: Any, _node: Node, a: Any, b: Any) -> Any:
    together = numpy.broadcast_shapes(tuple(a.shape[:-2]), tuple(b.shape[:-2]))
    check_size((*together, *a.shape[-2:-1], *(b.shape[-1:] if len(b.shape) > 1 else ())))
    return namespace_of(xp, a).matmul(a, b)


@operator("Gemm")
def _gemm(xp: Any, node: Node, a: Any, b: Any, c: Any = None) -> Any:
    a = a.T if node.get("transA") else a
    b = b.T if node.get("transB") else b
    check_size((a.shape[0], b.shape[1]))
    if c is not None:
        check_size(numpy.broadcast_shapes((a.shape[0], b.shape[1]), tuple(c.shape)))
    result = a @ b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    result = result if alpha == 1 else alpha * result
    return result if c is None else result + (c if beta == 1 else beta * c)


@operator("Einsum")
def _einsum(xp: Any, node: Node, a: Any, b: Any) -> Any:
    left, right, result = node.get("equation").replace(" ", "").replace("->", ",").split(",")
    if (len(left), len(right)) != (len(a.shape), len(b.shape)):
        raise ValueError(f"{node.name} needs as many axes as {node.get('equation')} has letters.")
    both = [letter for letter in left if letter in right]
    if set(both) & set(result) or set(result) != set(left + right) - set(both):
        raise ValueError(f"{node.name} is a sum over {node.get('equation')}, which xpnet does not have.")
    axes = [left.index(letter) for letter in both], [right.index(letter) for letter in both]
    order = [letter for letter in left + right if letter not in both]
    lengths = dict(zip(left + right, (*a.shape, *b.shape), strict=True))
    check_size([lengths[letter] for letter in order])
    return xp.permute_dims(xp.tensordot(a, b, axes=axes), tuple(order.index(letter) for letter in result))


@operator("Det")
def _det(xp: Any, _node: Node, x: Any) -> Any:
    return xp.linalg.det(x)


def per_channel(xp: Any, x: Any, like: Any) -> Any:
    """Give an array of channels the axes of arrays of shape (batch, channels, ...)."""
    return xp.reshape(x, (-1, *(1,) * (len(like.shape) - 2)))


@operator("BatchNormalization")
def _batch_norm(xp: Any, node: Node, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    check_together(x, *(per_channel(xp, y, x) for y in (scale, bias, mean, variance)))
    scale, bias, mean, variance = (per_channel(xp, y, x) for y in (scale, bias, mean, variance))
    return (x - mean) * (scale / xp.sqrt(variance + node.get("epsilon", 1e-5))) + bias


@operator("LayerNormalization")
def _layer_norm(xp: Any, node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    axes = tuple(range(node.get("axis", -1) % len(x.shape), len(x.shape)))
    error = x - xp.mean(x, axis=axes, keepdims=True)
    variance = xp.mean(error * error, axis=axes, keepdims=True)
    check_together(x, *(y for y in (scale, bias) if y is not None))
    result = error / xp.sqrt(variance + node.get("epsilon", 1e-5)) * scale
    return result if bias is None else result + bias
