"""Reductions, and searching and sorting."""

from collections.abc import Callable
from math import inf
from typing import Any

import numpy

from xpnet.onnx.operators.declare import (
    OPERATORS,
    arguments,
    as_indices,
    axes_of,
    is_bool,
    is_float,
    reshaped,
    says,
    sliced,
)
from xpnet.onnx.recorded import Filled
from xpnet.replay.graph import Operation


def _reduced(w: Any, kind: str, x: Any, axes: list[int], keepdims: bool) -> str:
    if not axes:
        return w.node("Identity", x)
    return w.node(kind, x, numpy.asarray(axes, dtype="int64"), keepdims=int(keepdims))


def _reduction(kind: str) -> Callable:
    def write(w: Any, operation: Operation) -> Any:
        x, axis, _, keepdims = arguments(operation, "x", "axis", "dtype", keepdims=False)
        dtype = operation.result.dtype
        if is_bool(dtype):
            return NotImplemented
        return _reduced(w, kind, w.tensor(x, dtype), axes_of(w, x, axis), keepdims)

    return write


OPERATORS.update(
    {name: _reduction(f"Reduce{name.title()}") for name in ("max", "mean", "min", "prod", "sum")}
)


@says("any", "all")
def _truths(w: Any, operation: Operation) -> str:
    x, axis, keepdims = arguments(operation, "x", axis=None, keepdims=False)
    kind = "ReduceMax" if operation.name == "any" else "ReduceMin"
    numbers = w.cast(w.tensor(x, bool), "int32")
    return w.cast(_reduced(w, kind, numbers, axes_of(w, x, axis), keepdims), bool)


@says("count_nonzero")
def _count_nonzero(w: Any, operation: Operation) -> str:
    x, axis, keepdims = arguments(operation, "x", axis=None, keepdims=False)
    numbers = w.cast(w.tensor(x, bool), operation.result.dtype)
    return _reduced(w, "ReduceSum", numbers, axes_of(w, x, axis), keepdims)


@says("var", "std")
def _var(w: Any, operation: Operation) -> Any:
    x, axis, correction, keepdims = arguments(operation, "x", axis=None, correction=0.0, keepdims=False)
    axes = axes_of(w, x, axis)
    error = w.node("Sub", x, _reduced(w, "ReduceMean", x, axes, True))
    result = _reduced(w, "ReduceMean", w.node("Mul", error, error), axes, keepdims)
    if correction:
        dtype = operation.result.dtype
        number = w.node("ReduceProd", w.lengths([w.shape(x)[axis] for axis in axes]), keepdims=0)
        number = w.cast(number, dtype)
        less = w.node("Sub", number, w.tensor(correction, dtype))
        result = w.node("Mul", result, w.node("Div", number, less))
    return w.node("Sqrt", result) if operation.name == "std" else result


@says("argmax", "argmin")
def _argmax(w: Any, operation: Operation) -> Any:
    x, axis, keepdims = arguments(operation, "x", axis=None, keepdims=False)
    kind = "ArgMax" if operation.name == "argmax" else "ArgMin"
    if axis is None:
        found = w.node(kind, _flat(w, x), axis=0, keepdims=0)
        return reshaped(w, found, (1,) * len(w.shape(x))) if keepdims else found
    return w.node(kind, x, axis=axes_of(w, x, axis)[0], keepdims=int(keepdims))


@says("cumulative_sum", "cumulative_prod")
def _cumulative(w: Any, operation: Operation) -> Any:
    x, axis, initial = arguments(operation, "x", axis=None, include_initial=False)
    (axis,) = axes_of(w, x, 0 if axis is None else axis)
    shape, dtype = w.shape(x), operation.result.dtype
    name, length = w.tensor(x, dtype), shape[axis]

    def joined(first: int, number: int, rest: str) -> str:
        """Write an array behind others that are filled with one number."""
        filled = Filled(dtype.type(first), (*shape[:axis], number, *shape[axis + 1 :]))
        return w.node("Concat", filled, rest, axis=axis)

    if operation.name == "cumulative_sum":
        name = w.node("CumSum", name, numpy.asarray(axis))
        return joined(0, 1, name) if initial else name
    if not isinstance(length, int):
        return NotImplemented
    step = 1
    while step < length:  # each takes in the product that ends `step` places before
        earlier = sliced(w, name, {axis: (0, length - step, 1)})
        name = w.node("Mul", name, joined(1, step, earlier))
        step *= 2
    return joined(1, 1, name) if initial else name


@says("vector_norm")
def _vector_norm(w: Any, operation: Operation) -> Any:
    x, axis, keepdims, order = arguments(operation, "x", axis=None, keepdims=False, ord=2)
    return norm(w, x, operation.result.dtype, axes_of(w, x, axis), keepdims, order)


def norm(w: Any, x: Any, dtype: Any, axes: list[int], keepdims: bool, order: float) -> str:
    """Write the norm of vectors."""
    x = w.tensor(x, dtype)
    if order in (1, 2):
        return _reduced(w, f"ReduceL{order:.0f}", x, axes, keepdims)
    size = w.node("Abs", x)
    if order in (inf, -inf):
        return _reduced(w, "ReduceMax" if order > 0 else "ReduceMin", size, axes, keepdims)
    if order == 0:
        return _reduced(w, "ReduceSum", w.node("Sign", size), axes, keepdims)
    total = _reduced(w, "ReduceSum", w.node("Pow", size, w.tensor(order, dtype)), axes, keepdims)
    return w.node("Pow", total, w.tensor(1 / order, dtype))


@says("special.logsumexp")
def _logsumexp(w: Any, operation: Operation) -> Any:
    x, axis, keepdims = arguments(operation, "x", axis=None, keepdims=False)
    if set(operation.options) - {"axis", "keepdims"}:
        return NotImplemented
    return _reduced(w, "ReduceLogSumExp", w.tensor(x, operation.result.dtype), axes_of(w, x, axis), keepdims)


@says("special.softmax", "special.log_softmax")
def _softmax(w: Any, operation: Operation) -> Any:
    x, axis = arguments(operation, "x", axis=None)
    if not isinstance(axis, int):
        return NotImplemented
    kind = "Softmax" if operation.name == "special.softmax" else "LogSoftmax"
    return w.node(kind, w.tensor(x, operation.result.dtype), axis=axis)


@says("isin")
def _isin(w: Any, operation: Operation) -> str:
    a, b, invert = arguments(operation, "x1", "x2", invert=False)
    dtype = numpy.result_type(w.dtype(a), w.dtype(b))
    last = numpy.asarray([-1], dtype="int64")
    same = w.node("Equal", w.node("Unsqueeze", w.tensor(a, dtype), last), _flat(w, w.tensor(b, dtype)))
    found = w.cast(w.node("ReduceMax", w.cast(same, "int32"), last, keepdims=0), bool)
    return w.node("Not", found) if invert else found


def _flat(w: Any, x: Any) -> str:
    return w.node("Reshape", x, numpy.asarray([-1], dtype="int64"))


@says("searchsorted")
def _searchsorted(w: Any, operation: Operation) -> str:
    """Write how many of the sorted numbers are smaller."""
    sorted_x, x, side, sorter = arguments(operation, "x1", "x2", side="left", sorter=None)
    dtype = numpy.result_type(w.dtype(sorted_x), w.dtype(x))
    name = w.tensor(sorted_x, dtype)
    name = name if sorter is None else w.node("Gather", name, as_indices(w, sorter))
    last = numpy.asarray([-1], dtype="int64")
    kind = "Less" if side == "left" else "LessOrEqual"
    before = w.node(kind, name, w.node("Unsqueeze", w.tensor(x, dtype), last))
    return w.node("ReduceSum", w.cast(before, operation.result.dtype), last, keepdims=0)


@says("sort", "argsort")
def _sort(w: Any, operation: Operation) -> Any:
    x, axis, descending, _ = arguments(operation, "x", axis=-1, descending=False, stable=True)
    length = w.shape(x)[axis]
    if not is_float(w.dtype(x)) and w.dtype(x) not in (numpy.int64, numpy.int32):
        return NotImplemented
    number = w.lengths((length,))
    values, indices = w.node("TopK", x, number, axis=axis, largest=int(descending), results=2)
    return values if operation.name == "sort" else indices
