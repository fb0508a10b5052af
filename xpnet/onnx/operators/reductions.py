"""Reductions, and searching and sorting."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy

from xpnet.onnx.operators.declare import OPERATORS, arguments, axes_of, is_bool, says
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
    lengths = [w.shape(x)[axis] for axis in axes]
    if correction and not all(isinstance(length, int) for length in lengths):
        return NotImplemented
    error = w.node("Sub", x, _reduced(w, "ReduceMean", x, axes, True))
    result = _reduced(w, "ReduceMean", w.node("Mul", error, error), axes, keepdims)
    if correction:
        number = prod(lengths)
        result = w.node("Mul", result, w.tensor(number / (number - correction), operation.result.dtype))
    return w.node("Sqrt", result) if operation.name == "std" else result


@says("argmax", "argmin")
def _argmax(w: Any, operation: Operation) -> Any:
    x, axis, keepdims = arguments(operation, "x", axis=None, keepdims=False)
    kind = "ArgMax" if operation.name == "argmax" else "ArgMin"
    if axis is None:
        if keepdims:
            return NotImplemented
        flat = w.node("Reshape", x, numpy.asarray([-1]))
        return w.node(kind, flat, axis=0, keepdims=0)
    return w.node(kind, x, axis=axes_of(w, x, axis)[0], keepdims=int(keepdims))


@says("cumulative_sum")
def _cumulative_sum(w: Any, operation: Operation) -> Any:
    x, axis, initial = arguments(operation, "x", axis=None, include_initial=False)
    if initial:
        return NotImplemented
    axis = 0 if axis is None else axis
    return w.node("CumSum", w.tensor(x, operation.result.dtype), numpy.asarray(axis))


@says("vector_norm")
def _vector_norm(w: Any, operation: Operation) -> Any:
    x, axis, keepdims, order = arguments(operation, "x", axis=None, keepdims=False, ord=2)
    kind = {1: "ReduceL1", 2: "ReduceL2"}.get(order)
    return _reduced(w, kind, x, axes_of(w, x, axis), keepdims) if kind else NotImplemented
