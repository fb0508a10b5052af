"""Operators of ONNX as functions of the standard.

Each entry of `NODES` is ``compute(xp, node, *values)``, which returns an array or several. What a node
needs to know as numbers (shapes, axes) is read with `_integers`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, pi, prod, sqrt
from typing import Any

import numpy
from onnx import helper

from xpnet.autodiff import extended_namespace
from xpnet.autodiff.windows import count_windows
from xpnet.backends import asarray, concrete, device_of, special_functions

NODES: dict[str, Callable] = {}

# The most numbers that a node makes of few: a file must not fill the memory.
_MOST = 2**26

# The most steps of a loop, so that a file does not take for ever.
_MOST_STEPS = 2**16


@dataclass(frozen=True, eq=False)
class Node:
    """A call of an operator.

    Attributes
    ----------
    kind, name : str
        The operator, and the name of the node in the file.
    inputs, outputs : tuple of str
        Names; an input that is left out has the name "".
    attributes : dict
    opset : int
        The version of the operators.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def __call__(self, xp: Any, values: list[Any]) -> Sequence[Any]:
        try:
            result = NODES[self.kind](xp, self, *_together(values))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if type(error).__module__.startswith("xpnet"):
                raise
            raise ValueError(
                f"{self.name}, a {self.kind}, cannot take what it receives: {error!r}."
            ) from error
        return result if isinstance(result, tuple | list) else (result,)

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


@dataclass(frozen=True, eq=False)
class Body:
    """The nodes of one step of a loop.

    Attributes
    ----------
    nodes : list of Node
    arrays : dict of str to numpy.ndarray
    inputs, outputs : list of str
    outer : list of str
        What it reads of the graph around it.
    """

    nodes: list[Node]
    arrays: dict[str, numpy.ndarray]
    inputs: list[str]
    outputs: list[str]
    outer: list[str]


def compute(xp: Any, nodes: Sequence[Node], values: dict[str, Any]) -> None:
    """Compute nodes one after the other, from values by their names, and add the results to them."""
    for node in nodes:
        results = node(xp, [values[name] if name else None for name in node.inputs])
        values.update(zip(node.outputs, results, strict=False))


def _together(values: list[Any]) -> list[Any]:
    """Bring arrays of the host to the device of the others, if there are others."""
    where = next((device_of(x) for x in values if x is not None and not isinstance(x, numpy.ndarray)), None)
    if where is None or where.library.spec == "cpu":
        return values
    return [asarray(x, device=where) if _is_data(x) else x for x in values]


def _is_data(x: Any) -> bool:
    # Small arrays of integers are shapes and axes.
    return isinstance(x, numpy.ndarray) and not (x.dtype.kind == "i" and x.ndim <= 1)


def _operator(*names: str) -> Callable:
    def declare(compute: Callable) -> Callable:
        NODES.update(dict.fromkeys(names, compute))
        return compute

    return declare


def _integers(x: Any) -> list[int]:
    return [int(number) for number in numpy.reshape(numpy.asarray(x), (-1,))]


def _namespace(xp: Any, x: Any) -> Any:
    """Return the namespace of an array, which may be one of the host beside others."""
    return x.__array_namespace__() if isinstance(concrete(x), numpy.ndarray) else xp


def _dtype(xp: Any, kind: int) -> Any:
    return getattr(xp, numpy.dtype(helper.tensor_dtype_to_np_dtype(kind)).name)


# -- elementwise functions --------------------------------------------------------------------------------

_SAME = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan",
    "Atanh": "atanh", "BitwiseNot": "bitwise_invert", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh",
    "Exp": "exp", "Floor": "floor", "Identity": "positive", "IsInf": "isinf", "IsNaN": "isnan", "Log": "log",
    "Neg": "negative", "Not": "logical_not", "Round": "round", "Sign": "sign", "Sin": "sin", "Sinh": "sinh",
    "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
    "And": "logical_and", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less",
    "LessOrEqual": "less_equal", "MatMul": "matmul", "Or": "logical_or", "Xor": "logical_xor",
    "Add": "add", "Mul": "multiply", "Pow": "pow", "Sub": "subtract", "Where": "where",
}  # fmt: skip


def _same(name: str) -> Callable:
    return lambda xp, _node, *values: getattr(_namespace(xp, values[0]), name)(*values)


NODES.update({kind: _same(name) for kind, name in _SAME.items()})
NODES["Identity"] = lambda xp, _node, x: x
NODES["Dropout"] = lambda xp, _node, x, *_: x
NODES["Relu"] = lambda xp, _node, x: xp.maximum(x, 0)
NODES["Reciprocal"] = lambda xp, _node, x: 1 / x
NODES["Sigmoid"] = lambda xp, _node, x: 0.5 + 0.5 * xp.tanh(0.5 * x)
NODES["Softplus"] = lambda xp, _node, x: xp.logaddexp(x, xp.zeros_like(x))
NODES["Softsign"] = lambda xp, _node, x: x / (1 + xp.abs(x))
NODES["LeakyRelu"] = lambda xp, node, x: xp.where(x > 0, x, node.get("alpha", 0.01) * x)
NODES["PRelu"] = lambda xp, _node, x, slope: xp.where(x > 0, x, slope * x)
NODES["HardSigmoid"] = lambda xp, node, x: xp.clip(
    node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0.0, 1.0
)
NODES["HardSwish"] = lambda xp, _node, x: x * xp.clip(x / 6 + 0.5, 0.0, 1.0)


def _elu(xp: Any, x: Any, alpha: float) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


NODES["Elu"] = lambda xp, node, x: _elu(xp, x, node.get("alpha", 1.0))
NODES["Selu"] = lambda xp, node, x: (
    node.get("gamma", 1.0507009873554805) * _elu(xp, x, node.get("alpha", 1.6732632423543772))
)


@_operator("Erf")
def _erf(xp: Any, _node: Node, x: Any) -> Any:
    special = xp.special if hasattr(xp, "special") else special_functions(xp)
    return special.erf(x)


@_operator("Gelu")
def _gelu(xp: Any, node: Node, x: Any) -> Any:
    if node.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + xp.tanh(sqrt(2 / pi) * (x + 0.044715 * (x * x * x))))
    return 0.5 * x * (1 + _erf(xp, node, x * sqrt(0.5)))


@_operator("Div")
def _div(xp: Any, _node: Node, a: Any, b: Any) -> Any:
    xp = _namespace(xp, a)
    if xp.isdtype(a.dtype, "integral"):  # towards 0
        quotient = xp.abs(a) // xp.abs(b)
        return xp.where((a < 0) ^ (b < 0), -quotient, quotient)
    return a / b


@_operator("Mod")
def _mod(xp: Any, node: Node, a: Any, b: Any) -> Any:
    if node.get("fmod", 0):
        return a - b * xp.trunc(a / b)
    return _namespace(xp, a).remainder(a, b)


@_operator("Max", "Min", "Sum", "Mean")
def _several(xp: Any, node: Node, *values: Any) -> Any:
    xp = _namespace(xp, values[0])
    result = values[0]
    for x in values[1:]:
        match node.kind:
            case "Max":
                result = xp.maximum(result, x)
            case "Min":
                result = xp.minimum(result, x)
            case _:
                result = result + x
    return result / len(values) if node.kind == "Mean" else result


@_operator("Clip")
def _clip(xp: Any, node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = node.get("min", low), node.get("max", high)
    x = x if low is None else xp.maximum(x, low)
    return x if high is None else xp.minimum(x, high)


@_operator("Cast")
def _cast(xp: Any, node: Node, x: Any) -> Any:
    xp = _namespace(xp, x)
    return xp.astype(x, _dtype(xp, node.get("to")))


# -- reductions -------------------------------------------------------------------------------------------


def _axes(node: Node, x: Any, axes: Any = None) -> tuple[int, ...]:
    axes = node.get("axes", axes)
    if axes is None or not len(_integers(axes)):
        return () if node.get("noop_with_empty_axes") else tuple(range(len(x.shape)))
    return tuple(axis % len(x.shape) for axis in _integers(axes))


@_operator(
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
def _reduce(xp: Any, node: Node, x: Any, axes: Any = None) -> Any:
    xp = _namespace(xp, x)
    options = {"axis": _axes(node, x, axes), "keepdims": bool(node.get("keepdims", 1))}
    match node.kind:
        case "ReduceL1":
            return xp.sum(xp.abs(x), **options)
        case "ReduceL2":
            return xp.sqrt(xp.sum(x * x, **options))
        case "ReduceSumSquare":
            return xp.sum(x * x, **options)
    result = getattr(xp, node.kind.removeprefix("Reduce").lower())(x, **options)
    return result if result.dtype == x.dtype else xp.astype(result, x.dtype)


@_operator("ArgMax", "ArgMin")
def _argmax(xp: Any, node: Node, x: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    found = getattr(xp, node.kind.lower())(
        xp.flip(x, axis=axis) if node.get("select_last_index") else x, axis=axis
    )
    found = x.shape[axis] - 1 - found if node.get("select_last_index") else found
    return xp.expand_dims(found, axis=axis) if node.get("keepdims", 1) else found


@_operator("CumSum")
def _cumsum(xp: Any, node: Node, x: Any, axis: Any) -> Any:
    if node.get("exclusive") or node.get("reverse"):
        raise ValueError(f"{node.name} is a sum that is exclusive or reversed, which xpnet does not have.")
    return xp.cumulative_sum(x, axis=_integers(axis)[0] % len(x.shape), dtype=x.dtype)


@_operator("Softmax", "LogSoftmax")
def _softmax(xp: Any, node: Node, x: Any) -> Any:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    axes: Any = axis if node.opset >= 13 else tuple(range(axis % len(x.shape), len(x.shape)))
    shifted = x - xp.max(x, axis=axes, keepdims=True)
    total = xp.sum(xp.exp(shifted), axis=axes, keepdims=True)
    return xp.exp(shifted) / total if node.kind == "Softmax" else shifted - xp.log(total)


@_operator("TopK")
def _top_k(xp: Any, node: Node, x: Any, k: Any) -> Any:
    axis = node.get("axis", -1) % len(x.shape)
    order = xp.argsort(x, axis=axis, descending=bool(node.get("largest", 1)), stable=True)
    order = order[(*(slice(None),) * axis, slice(_integers(k)[0]), ...)]
    return xp.take_along_axis(x, order, axis=axis), order


# -- products and normalization ---------------------------------------------------------------------------


@_operator("Gemm")
def _gemm(xp: Any, node: Node, a: Any, b: Any, c: Any = None) -> Any:
    a = a.T if node.get("transA") else a
    b = b.T if node.get("transB") else b
    result = a @ b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    result = result if alpha == 1 else alpha * result
    return result if c is None else result + (c if beta == 1 else beta * c)


@_operator("Einsum")
def _einsum(xp: Any, node: Node, a: Any, b: Any) -> Any:
    left, right, result = node.get("equation").replace(" ", "").replace("->", ",").split(",")
    both = [letter for letter in left if letter in right]
    if set(both) & set(result) or set(result) != set(left + right) - set(both):
        raise ValueError(f"{node.name} is a sum over {node.get('equation')}, which xpnet does not have.")
    axes = [left.index(letter) for letter in both], [right.index(letter) for letter in both]
    order = [letter for letter in left + right if letter not in both]
    return xp.permute_dims(xp.tensordot(a, b, axes=axes), tuple(order.index(letter) for letter in result))


def _per_channel(xp: Any, x: Any, like: Any) -> Any:
    return xp.reshape(x, (-1, *(1,) * (len(like.shape) - 2)))


@_operator("BatchNormalization")
def _batch_norm(xp: Any, node: Node, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    scale, bias, mean, variance = (_per_channel(xp, y, x) for y in (scale, bias, mean, variance))
    return (x - mean) * (scale / xp.sqrt(variance + node.get("epsilon", 1e-5))) + bias


@_operator("LayerNormalization")
def _layer_norm(xp: Any, node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    axes = tuple(range(node.get("axis", -1) % len(x.shape), len(x.shape)))
    error = x - xp.mean(x, axis=axes, keepdims=True)
    variance = xp.mean(error * error, axis=axes, keepdims=True)
    result = error / xp.sqrt(variance + node.get("epsilon", 1e-5)) * scale
    return result if bias is None else result + bias


# -- windows ----------------------------------------------------------------------------------------------


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
    places = product(*(range(0, size, d) for size, d in zip(sizes, dilations, strict=True)))
    return [
        x[(..., *(slice(i, i + (n - 1) * s + 1, s) for i, n, s in zip(place, lengths, strides, strict=True)))]
        for place in places
    ]


def _padded(xp: Any, x: Any, before: Sequence[int], behind: Sequence[int], fill: Any) -> Any:
    xp = _namespace(xp, x)
    for axis, numbers in enumerate(zip(before, behind, strict=True)):
        parts = [x]
        for place, number in zip((0, len(parts)), numbers, strict=True):
            if number:
                shape = (*x.shape[:axis], number, *x.shape[axis + 1 :])
                _check_size(shape)
                if isinstance(fill, float | int):
                    edge = xp.full(shape, fill, dtype=x.dtype, device=x.device)
                else:  # an array with one element
                    edge = xp.broadcast_to(xp.reshape(fill, (1,) * len(shape)), shape)
                parts.insert(place and len(parts), edge)
        x = xp.concat(parts, axis=axis) if len(parts) > 1 else x
    return x


@_operator("Conv")
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
    return result if bias is None else result + _per_channel(xp, bias, x)


@_operator("Col2Im")
def _col2im(xp: Any, node: Node, x: Any, image: Any, block: Any) -> Any:
    lengths, sizes = tuple(_integers(image)), tuple(_integers(block))
    ones = [1] * len(sizes)
    strides, dilations = tuple(node.get("strides", ones)), tuple(node.get("dilations", ones))
    if any(node.get("pads", [])) or min([*lengths, *sizes, *strides, *dilations]) < 1:
        raise ValueError(f"{node.name} has pads or lengths below 1, which xpnet does not have.")
    channels, rank = x.shape[1] // prod(sizes), len(sizes)
    shape = (x.shape[0], *lengths, channels)
    _check_size(shape)
    counts = count_windows(lengths, sizes, strides, dilations)
    w = xp.reshape(x, (x.shape[0], channels, *sizes, *counts))
    w = xp.permute_dims(w, (0, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank), 1))
    y = extended_namespace(w).add_windows(w, shape=shape, strides=strides, dilations=dilations)
    return xp.moveaxis(y, -1, 1)


@_operator("MaxPool", "AveragePool")
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


@_operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(xp: Any, node: Node, x: Any) -> Any:
    reduce = xp.mean if node.kind == "GlobalAveragePool" else xp.max
    return reduce(x, axis=tuple(range(2, len(x.shape))), keepdims=True)


@_operator("Pad")
def _pad(xp: Any, node: Node, x: Any, pads: Any = None, value: Any = 0.0, axes: Any = None) -> Any:
    pads = _integers(node.get("pads", pads))
    if node.get("mode", "constant") != "constant" or axes is not None or min(pads) < 0:
        raise ValueError(f"{node.name} pads in a way that xpnet does not have: by a constant on all axes.")
    fill = node.get("value", 0.0) if value is None else value
    half = len(pads) // 2
    return _padded(xp, x, pads[:half], pads[half:], fill)


# -- loops ------------------------------------------------------------------------------------------------


@_operator("Scan")
def _scan(xp: Any, node: Node, *values: Any) -> list[Any]:
    body, number = node.get("body"), node.get("num_scan_inputs")
    others = node.attributes.keys() - {"body", "num_scan_inputs"}
    end = len(values) - len(body.outer)
    if others or not 0 < number <= end or len(body.inputs) != end:
        raise ValueError(
            f"{node.name} is a loop of a kind that xpnet does not have: forward along the first axis of one "
            f"or more sequences, without {', '.join(sorted(others)) or 'another number of inputs'}."
        )
    carried, sequences = list(values[: end - number]), values[end - number : end]
    length, left = sequences[0].shape[0], []
    if not 0 < length <= _MOST_STEPS:
        raise ValueError(f"{node.name} goes through 1 to {_MOST_STEPS} elements, received {length}.")
    for t in range(length):
        known = {**body.arrays, **dict(zip(body.outer, values[end:], strict=True))}
        known.update(zip(body.inputs, [*carried, *(x[t, ...] for x in sequences)], strict=True))
        compute(xp, body.nodes, known)
        outputs = [known[name] for name in body.outputs]
        carried, results = outputs[: len(carried)], outputs[len(carried) :]
        left.append(results)
    return [*carried, *(xp.stack(each) for each in zip(*left, strict=True))]


# -- shapes -----------------------------------------------------------------------------------------------


def _check_size(shape: Sequence[int]) -> None:
    if prod(shape) > _MOST:
        raise ValueError(
            f"a node of a file makes at most {_MOST} numbers of few, received the shape {shape}."
        )


@_operator("Shape")
def _shape(xp: Any, node: Node, x: Any) -> Any:
    return numpy.asarray(x.shape[node.get("start", 0) : node.get("end")], dtype="int64")


@_operator("Reshape")
def _reshape(xp: Any, node: Node, x: Any, shape: Any = None) -> Any:
    lengths = _integers(node.get("shape", shape))
    if not node.get("allowzero"):
        lengths = [x.shape[axis] if length == 0 else length for axis, length in enumerate(lengths)]
    return _namespace(xp, x).reshape(x, tuple(lengths))


@_operator("Flatten")
def _flatten(xp: Any, node: Node, x: Any) -> Any:
    axis = node.get("axis", 1) % (len(x.shape) + 1)
    return xp.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@_operator("Transpose")
def _transpose(xp: Any, node: Node, x: Any) -> Any:
    return _namespace(xp, x).permute_dims(x, tuple(node.get("perm") or reversed(range(len(x.shape)))))


@_operator("Squeeze")
def _squeeze(xp: Any, node: Node, x: Any, axes: Any = None) -> Any:
    axes = node.get("axes", axes)
    ones = [axis for axis, length in enumerate(x.shape) if length == 1]
    return _namespace(xp, x).squeeze(x, axis=tuple(ones if axes is None else _integers(axes)))


@_operator("Unsqueeze")
def _unsqueeze(xp: Any, node: Node, x: Any, axes: Any = None) -> Any:
    axes = _integers(node.get("axes", axes))
    for axis in sorted(axis % (len(x.shape) + len(axes)) for axis in axes):
        x = _namespace(xp, x).expand_dims(x, axis=axis)
    return x


@_operator("Expand")
def _expand(xp: Any, _node: Node, x: Any, shape: Any) -> Any:
    shape = numpy.broadcast_shapes(tuple(x.shape), tuple(_integers(shape)))
    _check_size(shape)
    return _namespace(xp, x).broadcast_to(x, shape)


@_operator("Concat")
def _concat(xp: Any, node: Node, *values: Any) -> Any:
    return _namespace(xp, values[0]).concat(list(values), axis=node.get("axis"))


@_operator("Split")
def _split(xp: Any, node: Node, x: Any, split: Any = None) -> Any:
    axis, split = node.get("axis", 0) % len(x.shape), node.get("split", split)
    number = len(node.outputs)
    size = -(-x.shape[axis] // number)
    sizes = [size] * number if split is None else _integers(split)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [
        x[(*(slice(None),) * axis, slice(end - length, end), ...)]
        for end, length in zip(ends, sizes, strict=True)
    ]


@_operator("Slice")
def _slice(
    xp: Any, node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    starts, ends = (_integers(node.get(name, v)) for name, v in (("starts", starts), ("ends", ends)))
    axes = node.get("axes", axes)
    axes = range(len(starts)) if axes is None else [axis % len(x.shape) for axis in _integers(axes)]
    steps = [1] * len(starts) if steps is None else _integers(steps)
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


@_operator("Gather")
def _gather(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    own = _namespace(xp, x)
    if isinstance(indices, numpy.ndarray) and not isinstance(x, numpy.ndarray):
        indices = asarray(indices, device=device_of(x))
    length = x.shape[axis]
    indices = own.where(indices < 0, indices + length, indices)
    if len(indices.shape) == 1:
        return own.take(x, indices, axis=axis)
    taken = own.take(x, own.reshape(indices, (-1,)), axis=axis)
    return own.reshape(taken, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@_operator("GatherElements")
def _gather_elements(xp: Any, node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % len(x.shape)
    indices = xp.where(indices < 0, indices + x.shape[axis], indices)
    return xp.take_along_axis(x, indices, axis=axis)


@_operator("ai.onnx.ml.ArrayFeatureExtractor")
def _array_feature_extractor(xp: Any, _node: Node, x: Any, indices: Any) -> Any:
    if isinstance(x, numpy.ndarray) and not isinstance(indices, numpy.ndarray):
        x = asarray(x, device=device_of(indices))
    own = _namespace(xp, x)
    return own.take(own.reshape(x, (-1, x.shape[-1])), own.reshape(indices, (-1,)), axis=-1)


@_operator("Tile")
def _tile(xp: Any, _node: Node, x: Any, repeats: Any) -> Any:
    repeats = tuple(_integers(repeats))
    _check_size([a * b for a, b in zip(x.shape, repeats, strict=True)])
    return _namespace(xp, x).tile(x, repeats)


@_operator("Trilu")
def _trilu(xp: Any, node: Node, x: Any, k: Any = None) -> Any:
    number = 0 if k is None else _integers(k)[0]
    return (xp.triu if node.get("upper", 1) else xp.tril)(x, k=number)


@_operator("Range")
def _range(xp: Any, _node: Node, start: Any, limit: Any, step: Any) -> Any:
    first, last, by = (numpy.asarray(x).item() for x in (start, limit, step))
    _check_size([max(int((last - first) / by), 0)])
    return numpy.arange(first, last, by, dtype=numpy.asarray(start).dtype)


@_operator("Constant")
def _constant(xp: Any, node: Node) -> Any:
    (value,) = node.attributes.values()
    return numpy.asarray(value, dtype="float32" if "float" in next(iter(node.attributes)) else None)


@_operator("ConstantOfShape")
def _constant_of_shape(xp: Any, node: Node, shape: Any) -> Any:
    value = numpy.asarray(node.get("value", numpy.zeros(1, dtype="float32"))).reshape(-1)[0]
    _check_size(_integers(shape))
    return numpy.full(tuple(_integers(shape)), value)
