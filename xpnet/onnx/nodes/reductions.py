"""Reductions, and searching and sorting, from operators of ONNX."""

from typing import Any

from xpnet.onnx.nodes.node import Node, integers, namespace_of, operator


def _axes(node: Node, x: Any, axes: Any = None) -> tuple[int, ...]:
    axes = node.get("axes", axes)
    if axes is None or not len(integers(axes)):
        return () if node.get("noop_with_empty_axes") else tuple(range(len(x.shape)))
    return tuple(axis % len(x.shape) for axis in integers(axes))


@operator(
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
def _reduce(xp: Any, node: Node, x: Any, axes: Any = None) -> Any:
    xp = namespace_of(xp, x)
    options = {"axis": _axes(node, x, axes), "keepdims": bool(node.get("keepdims", 1))}
    match node.kind:
        case "ReduceL1":
            return xp.sum(xp.abs(x), **options)
        case "ReduceL2":
            return xp.sqrt(xp.sum(x * x, **options))
        case "ReduceLogSum":
            return xp.log(xp.sum(x, **options))
        case "ReduceLogSumExp":
            largest = xp.max(x, axis=options["axis"], keepdims=True)
            total = xp.log(xp.sum(xp.exp(x - largest), axis=options["axis"], keepdims=True)) + largest
            return total if options["keepdims"] else xp.squeeze(total, axis=options["axis"])
        case "ReduceSumSquare":
            return xp.sum(x * x, **options)
    result = getattr(xp, node.kind.removeprefix("Reduce").lower())(x, **options)
    return result if result.dtype == x.dtype else xp.astype(result, x.dtype)


@operator("ArgMax", "ArgMin")
def _argmax(xp: Any, node: Node, x: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    found = getattr(xp, node.kind.lower())(
        xp.flip(x, axis=axis) if node.get("select_last_index") else x, axis=axis
    )
    found = x.shape[axis] - 1 - found if node.get("select_last_index") else found
    return xp.expand_dims(found, axis=axis) if node.get("keepdims", 1) else found


@operator("CumSum")
def _cumsum(xp: Any, node: Node, x: Any, axis: Any) -> Any:
    if node.get("exclusive") or node.get("reverse"):
        raise ValueError(f"{node.name} is a sum that is exclusive or reversed, which xpnet does not have.")
    return xp.cumulative_sum(x, axis=integers(axis)[0] % len(x.shape), dtype=x.dtype)


@operator("Softmax", "LogSoftmax")
def _softmax(xp: Any, node: Node, x: Any) -> Any:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    axes: Any = axis if node.opset >= 13 else tuple(range(axis % len(x.shape), len(x.shape)))
    shifted = x - xp.max(x, axis=axes, keepdims=True)
    total = xp.sum(xp.exp(shifted), axis=axes, keepdims=True)
    return xp.exp(shifted) / total if node.kind == "Softmax" else shifted - xp.log(total)


@operator("TopK")
def _top_k(xp: Any, node: Node, x: Any, k: Any) -> Any:
    axis = node.get("axis", -1) % len(x.shape)
    order = xp.argsort(x, axis=axis, descending=bool(node.get("largest", 1)), stable=True)
    order = order[(*(slice(None),) * axis, slice(integers(k)[0]), ...)]
    return xp.take_along_axis(x, order, axis=axis), order
