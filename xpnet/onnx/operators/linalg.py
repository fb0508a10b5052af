"""Products, and what else of matrices ONNX has."""

from math import inf
from typing import Any

import numpy

from xpnet.onnx.operators.declare import arguments, reshaped, says
from xpnet.onnx.operators.reductions import norm
from xpnet.replay.graph import Operation


@says("vecdot")
def _vecdot(w: Any, operation: Operation) -> str:
    a, b, axis = arguments(operation, "x1", "x2", axis=-1)
    dtype = operation.result.dtype
    return w.node(
        "ReduceSum", w.node("Mul", w.tensor(a, dtype), w.tensor(b, dtype)), numpy.asarray([axis]), keepdims=0
    )


@says("tensordot")
def _tensordot(w: Any, operation: Operation) -> str:
    a, b, axes = arguments(operation, "x1", "x2", axes=2)
    rank_a, rank_b = len(w.shape(a)), len(w.shape(b))
    if isinstance(axes, int):
        axes = tuple(range(rank_a - axes, rank_a)), tuple(range(axes))
    letters = [chr(ord("a") + place) for place in range(rank_a + rank_b)]
    left, right = letters[:rank_a], letters[rank_a:]
    for i, j in zip(*axes, strict=True):
        right[j] = left[i]
    both = set(left) & set(right)
    result = [letter for letter in (*left, *right) if letter not in both]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    dtype = operation.result.dtype
    return w.node("Einsum", w.tensor(a, dtype), w.tensor(b, dtype), equation=equation)


@says("outer")
def _outer(w: Any, operation: Operation) -> str:
    a, b = (w.tensor(x, operation.result.dtype) for x in operation.arguments)
    column = w.node("Unsqueeze", a, numpy.asarray([1]))
    return w.node("Mul", column, w.node("Unsqueeze", b, numpy.asarray([0])))


@says("det")
def _det(w: Any, operation: Operation) -> str:
    return w.node("Det", operation.arguments[0])


@says("cross")
def _cross(w: Any, operation: Operation) -> str:
    a, b, axis = arguments(operation, "x1", "x2", axis=-1)
    dtype = operation.result.dtype

    def turned(x: Any, order: list[int]) -> str:
        return w.node("Gather", w.tensor(x, dtype), numpy.asarray(order, dtype="int64"), axis=axis)

    forward, backward = [1, 2, 0], [2, 0, 1]
    return w.node(
        "Sub",
        w.node("Mul", turned(a, forward), turned(b, backward)),
        w.node("Mul", turned(a, backward), turned(b, forward)),
    )


@says("diagonal", "trace")
def _diagonal(w: Any, operation: Operation) -> Any:
    x, offset = arguments(operation, "x", offset=0)
    *others, rows, columns = w.shape(x)
    if not isinstance(rows, int) or not isinstance(columns, int):
        return NotImplemented
    places = numpy.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    flat = reshaped(w, w.tensor(x), (*others, rows * columns))
    found = w.node("Gather", flat, places.astype("int64"), axis=-1)
    if operation.name.endswith("diagonal"):
        return found
    name = w.cast(found, operation.result.dtype)
    return w.node("ReduceSum", name, numpy.asarray([-1], dtype="int64"), keepdims=0)


@says("matrix_power")
def _matrix_power(w: Any, operation: Operation) -> Any:
    x, number = arguments(operation, "x", "n")
    if number < 0:  # of the inverse, which ONNX does not have
        return NotImplemented
    if number == 0:
        one = numpy.eye(operation.result.shape[-1], dtype=operation.result.dtype)
        return w.node("Expand", one, w.lengths(w.shape(x)))
    power, result = w.tensor(x), None
    while number:  # by squaring
        if number % 2:
            result = power if result is None else w.node("MatMul", result, power)
        number //= 2
        power = w.node("MatMul", power, power) if number else power
    return w.node("Identity", result)


@says("matrix_norm")
def _matrix_norm(w: Any, operation: Operation) -> Any:
    x, keepdims, order = arguments(operation, "x", keepdims=False, ord="fro")
    rank = len(w.shape(x))
    if order == "fro":
        return norm(w, x, operation.result.dtype, [rank - 2, rank - 1], keepdims, 2)
    if order not in (1, -1, inf, -inf):  # the others are of singular values
        return NotImplemented
    summed, left = (rank - 2, rank - 1) if abs(order) == 1 else (rank - 1, rank - 2)
    sums = norm(w, x, operation.result.dtype, [summed], True, 1)
    kind = "ReduceMax" if order > 0 else "ReduceMin"
    found = w.node(kind, sums, numpy.asarray([left], dtype="int64"), keepdims=1)
    return found if keepdims else w.node("Squeeze", found, numpy.asarray([rank - 2, rank - 1], dtype="int64"))
