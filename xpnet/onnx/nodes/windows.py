"""Convolutions and pooling from operators of ONNX."""

from collections.abc import Sequence
from itertools import product
from math import inf, prod
from typing import Any

from xpnet.autodiff import extended_namespace
from xpnet.autodiff.windows import count_windows
from xpnet.onnx.nodes.linalg import per_channel
from xpnet.onnx.nodes.node import Node, check_size, check_together, integers, namespace_of, operator


def _windows(xp: Any, node: Node, x: Any, kernel: Sequence[int], fill: float) -> list[Any]:
    """Return for each place of a kernel what it sees: arrays of shape (batch, channels, *out)."""
    rank = len(kernel)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    sizes = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = node.get("pads", [0] * (2 * rank))
    auto = node.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        needed = [
            max((-(-length // s) - 1) * s + size - length, 0)
            for length, s, size in zip(x.shape[2:], strides, sizes, strict=True)
        ]
        small, large = [n // 2 for n in needed], [n - n // 2 for n in needed]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    if node.get("ceil_mode") or min([*pads, 0]) < 0 or min([*strides, *dilations]) < 1:
        raise ValueError(f"{node.name} rounds its size up or has negative pads, which xpnet does not have.")
    x = _padded(xp, x, [0, 0, *pads[:rank]], [0, 0, *pads[rank:]], fill)
    lengths = [(n - size) // s + 1 for n, size, s in zip(x.shape[2:], sizes, strides, strict=True)]
    if min(lengths) < 1:
        raise ValueError(f"{node.name} has a kernel of {kernel}, larger than its input {tuple(x.shape)}.")
    check_size((prod(kernel), *x.shape[:2], *lengths))
    places = product(*(range(0, size, d) for size, d in zip(sizes, dilations, strict=True)))
    return [
        x[(..., *(slice(i, i + (n - 1) * s + 1, s) for i, n, s in zip(place, lengths, strides, strict=True)))]
        for place in places
    ]


def _padded(xp: Any, x: Any, before: Sequence[int], behind: Sequence[int], fill: Any) -> Any:
    xp = namespace_of(xp, x)
    for axis, numbers in enumerate(zip(before, behind, strict=True)):
        parts = [x]
        for place, number in zip((0, len(parts)), numbers, strict=True):
            if number:
                shape = (*x.shape[:axis], number, *x.shape[axis + 1 :])
                check_size(shape)
                if isinstance(fill, float | int):
                    edge = xp.full(shape, fill, dtype=x.dtype, device=x.device)
                else:  # an array with one element
                    edge = xp.broadcast_to(xp.reshape(fill, (1,) * len(shape)), shape)
                parts.insert(place and len(parts), edge)
        x = xp.concat(parts, axis=axis) if len(parts) > 1 else x
    return x


@operator("Conv")
def _conv(xp: Any, node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    kernel = tuple(weight.shape[2:])
    groups = node.get("group", 1)
    outputs, channels = weight.shape[:2]
    if x.shape[1] != channels * groups or outputs % groups or len(kernel) != len(x.shape) - 2:
        raise ValueError(f"{node.name} needs {channels * groups} channels, received {tuple(x.shape)}.")
    seen = xp.stack(_windows(xp, node, x, kernel, 0.0), axis=2)  # (batch, channels, places, *out)
    flat = xp.reshape(weight, (outputs, channels, prod(kernel)))
    share = outputs // groups
    parts = [
        xp.tensordot(
            flat[group * share : (group + 1) * share, ...],
            seen[:, group * channels : (group + 1) * channels, ...],
            axes=((1, 2), (1, 2)),
        )
        for group in range(groups)
    ]
    result = parts[0] if groups == 1 else xp.concat(parts, axis=0)
    result = xp.moveaxis(result, 0, 1)
    check_together(result, *([] if bias is None else [per_channel(xp, bias, x)]))
    return result if bias is None else result + per_channel(xp, bias, x)


@operator("Col2Im")
def _col2im(xp: Any, node: Node, x: Any, image: Any, block: Any) -> Any:
    lengths, sizes = tuple(integers(image)), tuple(integers(block))
    ones = [1] * len(sizes)
    strides, dilations = tuple(node.get("strides", ones)), tuple(node.get("dilations", ones))
    if any(node.get("pads", [])) or min([*lengths, *sizes, *strides, *dilations]) < 1:
        raise ValueError(f"{node.name} has pads or lengths below 1, which xpnet does not have.")
    channels, rank = x.shape[1] // prod(sizes), len(sizes)
    shape = (x.shape[0], *lengths, channels)
    check_size(shape)
    counts = count_windows(lengths, sizes, strides, dilations)
    w = xp.reshape(x, (x.shape[0], channels, *sizes, *counts))
    w = xp.permute_dims(w, (0, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank), 1))
    y = extended_namespace(w).add_windows(w, shape=shape, strides=strides, dilations=dilations)
    return xp.moveaxis(y, -1, 1)


@operator("MaxPool", "AveragePool")
def _pool(xp: Any, node: Node, x: Any) -> Any:
    kernel = node.get("kernel_shape")
    if node.kind == "MaxPool":
        seen = _windows(xp, node, x, kernel, -inf)
        return xp.max(xp.stack(seen, axis=0), axis=0)
    total = xp.sum(xp.stack(_windows(xp, node, x, kernel, 0.0), axis=0), axis=0)
    if node.get("count_include_pad"):
        return total / prod(kernel)
    ones = xp.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    return total / xp.sum(xp.stack(_windows(xp, node, ones, kernel, 0.0), axis=0), axis=0)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(xp: Any, node: Node, x: Any) -> Any:
    reduce = xp.mean if node.kind == "GlobalAveragePool" else xp.max
    return reduce(x, axis=tuple(range(2, len(x.shape))), keepdims=True)


@operator("Pad")
def _pad(xp: Any, node: Node, x: Any, pads: Any = None, value: Any = 0.0, axes: Any = None) -> Any:
    pads = integers(node.get("pads", pads))
    if node.get("mode", "constant") != "constant" or axes is not None or min(pads) < 0:
        raise ValueError(f"{node.name} pads in a way that xpnet does not have: by a constant on all axes.")
    fill = node.get("value", 0.0) if value is None else value
    half = len(pads) // 2
    return _padded(xp, x, pads[:half], pads[half:], fill)
