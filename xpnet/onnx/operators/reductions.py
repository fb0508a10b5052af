"""Reductions, and searching and sorting, as operators of ONNX."""

from typing import Any

import numpy

from xpnet.onnx.operators.declare import (
    arguments,
    axes_of,
    is_bool,
    is_float,
    reshaped,
    says,
    sliced,
)
from xpnet.onnx.recorded import Filled
from xpnet.replay.functions import FUNCTIONS, row_of
from xpnet.replay.graph import Operation


def _reduced(w: Any, kind: str, x: Any, axes: list[int], keepdims: bool) -> str:
    if not axes:
        return w.node("Identity", x)
    return w.node(kind, x, numpy.asarray(axes, dtype="int64"), keepdims=int(keepdims))


@says(*(row.name for row in FUNCTIONS.values() if row.kind == "reduction" and row.onnx))
def _reduction(w: Any, operation: Operation) -> Any:
    x, axis, _, keepdims = arguments(operation, "x", "axis", "dtype", keepdims=False)
    dtype = operation.result.dtype
    if is_bool(dtype):
        return NotImplemented
    kind = row_of(operation.name).operators[dtype.kind]
    return _reduced(w, kind, w.tensor(x, dtype), axes_of(w, x, axis), keepdims)


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


def _flat(w: Any, x: Any) -> str:
    return w.node("Reshape", x, numpy.asarray([-1], dtype="int64"))


@says("sort", "argsort")
def _sort(w: Any, operation: Operation) -> Any:
    x, axis, descending, _ = arguments(operation, "x", axis=-1, descending=False, stable=True)
    length = w.shape(x)[axis]
    if not is_float(w.dtype(x)) and w.dtype(x) not in (numpy.int64, numpy.int32):
        return NotImplemented
    number = w.lengths((length,))
    values, indices = w.node("TopK", x, number, axis=axis, largest=int(descending), results=2)
    return values if operation.name == "sort" else indices
