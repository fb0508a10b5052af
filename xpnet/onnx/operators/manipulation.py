"""Manipulation as operators of ONNX."""

from typing import Any

import numpy

from xpnet.onnx.operators.declare import (
    BEHIND_ALL,
    arguments,
    axes_of,
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
    x, axis = arguments(operation, "x", "axis", axis=0)
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


@says("tril", "triu")
def _tril(w: Any, operation: Operation) -> str:
    x, k = arguments(operation, "x", k=0)
    return w.node("Trilu", x, numpy.asarray(k), upper=int(operation.name == "triu"))
