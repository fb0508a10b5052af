"""Manipulation."""

from typing import Any

import numpy

from xpnet.onnx.operators.declare import (
    BEFORE_ALL,
    BEHIND_ALL,
    arguments,
    axes_of,
    is_float,
    reshaped,
    says,
    sliced,
)
from xpnet.replay.graph import Operation


@says("reshape")
def _reshape(w: Any, operation: Operation) -> str:
    x, shape, _ = arguments(operation, "x", "shape", copy=None)
    return reshaped(w, x, shape if isinstance(shape, tuple | list) else (shape,))


@says("broadcast_to")
def _broadcast_to(w: Any, operation: Operation) -> str:
    x, shape = arguments(operation, "x", "shape")
    own = (*(None,) * (len(shape) - len(w.shape(x))), *w.shape(x))
    # Where it has the length already, 1 keeps it.
    return w.node("Expand", x, w.lengths([1 if a == b else b for a, b in zip(own, shape, strict=True)]))


@says("expand_dims")
def _expand_dims(w: Any, operation: Operation) -> str:
    x, axis = arguments(operation, "x", axis=0)
    axes = axis if isinstance(axis, tuple) else (axis,)
    return w.node("Unsqueeze", x, numpy.asarray(axes, dtype="int64"))


@says("squeeze")
def _squeeze(w: Any, operation: Operation) -> str:
    x, axis = arguments(operation, "x", "axis")
    return w.node("Squeeze", x, numpy.asarray(axes_of(w, x, axis), dtype="int64"))


@says("permute_dims")
def _permute_dims(w: Any, operation: Operation) -> str:
    x, axes = arguments(operation, "x", "axes")
    return w.node("Transpose", x, perm=axes_of(w, x, tuple(axes)))


@says("matrix_transpose")
def _matrix_transpose(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    rank = len(w.shape(x))
    return w.node("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


@says("moveaxis")
def _moveaxis(w: Any, operation: Operation) -> str:
    x, source, target = arguments(operation, "x", "source", "destination")
    source, target = axes_of(w, x, source), axes_of(w, x, target)
    order = [axis for axis in range(len(w.shape(x))) if axis not in source]
    for place, axis in sorted(zip(target, source, strict=True)):
        order.insert(place, axis)
    return w.node("Transpose", x, perm=order)


@says("concat")
def _concat(w: Any, operation: Operation) -> str:
    arrays, axis = arguments(operation, "arrays", axis=0)
    names = [w.tensor(x, operation.result.dtype) for x in arrays]
    if axis is None:
        names, axis = [w.node("Reshape", name, numpy.asarray([-1])) for name in names], 0
    return w.node("Concat", *names, axis=axis)


@says("stack")
def _stack(w: Any, operation: Operation) -> str:
    arrays, axis = arguments(operation, "arrays", axis=0)
    axis %= len(operation.result.shape)
    place = numpy.asarray([axis], dtype="int64")
    names = [w.node("Unsqueeze", w.tensor(x, operation.result.dtype), place) for x in arrays]
    return w.node("Concat", *names, axis=axis)


@says("unstack")
def _unstack(w: Any, operation: Operation) -> list[str]:
    x, axis = arguments(operation, "x", axis=0)
    number = len(operation.results)
    return [w.node("Gather", x, numpy.asarray(index), axis=axis) for index in range(number)]


@says("flip")
def _flip(w: Any, operation: Operation) -> str:
    x, axis = arguments(operation, "x", axis=None)
    return sliced(w, x, dict.fromkeys(axes_of(w, x, axis), (-1, BEFORE_ALL, -1)))


@says("roll")
def _roll(w: Any, operation: Operation) -> Any:
    x, shift, axis = arguments(operation, "x", "shift", axis=None)
    if axis is None:
        return NotImplemented
    return _rolled(w, x, dict(zip(axis, shift, strict=True) if isinstance(axis, tuple) else [(axis, shift)]))


@says("fft.fftshift", "fft.ifftshift")
def _fftshift(w: Any, operation: Operation) -> Any:
    x, axes = arguments(operation, "x", axes=None)
    lengths = {axis: w.shape(x)[axis] for axis in axes_of(w, x, axes)}
    if not all(isinstance(length, int) for length in lengths.values()):
        return NotImplemented
    forward = operation.name == "fft.fftshift"
    return _rolled(w, x, {axis: n // 2 if forward else -(n // 2) for axis, n in lengths.items()})


def _rolled(w: Any, x: Any, shifts: dict[int, int]) -> Any:
    shape = w.shape(x)
    for place, by in shifts.items():
        length = shape[place]
        if not isinstance(length, int):  # it may be less than the shift
            return NotImplemented
        cut = -by % length
        parts = [sliced(w, x, {place: (cut, BEHIND_ALL, 1)}), sliced(w, x, {place: (0, cut, 1)})]
        x = w.node("Concat", *parts, axis=place)
    return x


@says("tile")
def _tile(w: Any, operation: Operation) -> str:
    x, repeats = arguments(operation, "x", "repetitions")
    rank = len(w.shape(x))
    if len(repeats) > rank:
        axes = numpy.arange(len(repeats) - rank)
        x = w.node("Unsqueeze", x, axes)
    return w.node("Tile", x, numpy.asarray((1,) * (rank - len(repeats)) + tuple(repeats), dtype="int64"))


@says("repeat")
def _repeat(w: Any, operation: Operation) -> Any:
    x, number, axis = arguments(operation, "x", "repeats", axis=None)
    shape = operation.result
    if not isinstance(number, int):
        return NotImplemented
    if axis is None:
        x, axis, rank = w.node("Reshape", x, numpy.asarray([-1])), 0, 1
    else:
        rank = len(w.shape(x))
    place = axis % rank + 1
    repeats = numpy.ones(rank + 1, dtype="int64")
    repeats[place] = number
    apart = w.node("Unsqueeze", x, numpy.asarray([place], dtype="int64"))
    return reshaped(w, w.node("Tile", apart, repeats), w.shape(shape))


@says("diff")
def _diff(w: Any, operation: Operation) -> Any:
    x, axis, number, before, behind = arguments(operation, "x", axis=-1, n=1, prepend=None, append=None)
    (axis,) = axes_of(w, x, axis)
    parts = [w.tensor(part, operation.result.dtype) for part in (before, x, behind) if part is not None]
    name = w.node("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]
    for _ in range(number):
        after = sliced(w, name, {axis: (1, BEHIND_ALL, 1)})
        name = w.node("Sub", after, sliced(w, name, {axis: (0, -1, 1)}))
    return name if number else w.node("Identity", name)


@says("broadcast_arrays")
def _broadcast_arrays(w: Any, operation: Operation) -> list[str]:
    shape = w.lengths(w.shape(operation.result))
    return [w.node("Expand", x, shape) for x in operation.arguments]


@says("meshgrid")
def _meshgrid(w: Any, operation: Operation) -> list[str]:
    rank = len(operation.arguments)
    own = list(range(rank))  # which axis belongs to which array
    if operation.options.get("indexing", "xy") == "xy" and rank > 1:
        own[:2] = 1, 0
    results = []
    for place, x, result in zip(own, operation.arguments, operation.results, strict=True):
        axes = [axis for axis in range(rank) if axis != place]
        name = w.node("Unsqueeze", x, numpy.asarray(axes, dtype="int64")) if axes else w.tensor(x)
        results.append(w.node("Expand", name, w.lengths(w.shape(result))))
    return results


@says("full", "full_like")
def _full(w: Any, operation: Operation) -> str:
    _, value = arguments(operation, "shape", "fill_value")
    return w.node("Expand", w.tensor(value, operation.result.dtype), w.lengths(w.shape(operation.result)))


@says("linspace")
def _linspace(w: Any, operation: Operation) -> Any:
    start, stop, number, endpoint = arguments(operation, "start", "stop", "num", endpoint=True)
    dtype, rank = operation.result.dtype, len(operation.result.shape)
    if not isinstance(number, int) or not is_float(dtype):
        return NotImplemented
    share = numpy.linspace(0, 1, number, endpoint=endpoint, dtype=dtype).reshape(-1, *(1,) * (rank - 1))
    first = w.tensor(start, dtype)
    return w.node("Add", first, w.node("Mul", w.node("Sub", w.tensor(stop, dtype), first), share))


@says("tril", "triu")
def _tril(w: Any, operation: Operation) -> str:
    x, k = arguments(operation, "x", k=0)
    return w.node("Trilu", x, numpy.asarray(k), upper=int(operation.name == "triu"))
