"""Indexing as operators of ONNX."""

from typing import Any

import numpy

from xpnet.autodiff.scatter import is_basic
from xpnet.onnx.operators.declare import (
    BEFORE_ALL,
    BEHIND_ALL,
    arguments,
    as_indices,
    axes_of,
    is_bool,
    one_value,
    reshaped,
    says,
    sliced,
)
from xpnet.onnx.recorded import Filled, Size
from xpnet.replay.graph import Operation, Variable


@says("getitem")
def _getitem(w: Any, operation: Operation) -> Any:
    x, key = operation.arguments
    return _at(w, w.tensor(x), w.shape(x), key)


def _items(key: Any, rank: int) -> list[Any]:
    """Return what a key says of each axis: slices, integers, and None for a new axis."""
    keys: list[Any] = []
    for item in key if type(key) is tuple else (key,):
        array = numpy.asarray(item) if isinstance(item, list) else item
        # A mask that is known beforehand is a list of places.
        is_mask = isinstance(array, numpy.ndarray) and is_bool(array.dtype)
        keys += array.nonzero() if is_mask else [array]
    taken = sum(item is not None and item is not ... for item in keys)
    place = next((index for index, item in enumerate(keys) if item is ...), len(keys))
    keys[place : place + 1] = [slice(None)] * (rank - taken)
    return keys


def _at(w: Any, x: str, shape: tuple, key: Any) -> Any:
    """Write ``x[key]``."""
    keys = _items(key, len(shape))
    slices, gathered, added = {}, [], []
    axis = result_axis = 0
    for item in keys:
        if item is None:
            added.append(result_axis)
            result_axis += 1
            continue
        if isinstance(item, slice):
            step = 1 if item.step is None else item.step
            start = item.start if item.start is not None else 0 if step > 0 else BEHIND_ALL
            stop = item.stop if item.stop is not None else BEHIND_ALL if step > 0 else BEFORE_ALL
            if (start, stop, step) != (0, BEHIND_ALL, 1):
                slices[axis] = (start, stop, step)
            result_axis += 1
        elif is_bool(w.dtype(item)):
            return NotImplemented
        else:
            gathered.append((axis, item))
            result_axis += len(w.shape(item))
        axis += 1
    name = sliced(w, x, slices) if slices else x
    if len(gathered) > 1 and any(w.shape(item) for _, item in gathered):
        return NotImplemented if added else _together(w, name, len(shape), gathered)
    for place, item in reversed(gathered):
        name = w.node("Gather", name, as_indices(w, item), axis=place)
    if added:
        name = w.node("Unsqueeze", name, numpy.asarray(added, dtype="int64"))
    return name if slices or gathered or added else w.node("Identity", name)


def _together(w: Any, x: str, rank: int, gathered: list[tuple[int, Any]]) -> str:
    """Write what several arrays of indices take, one element for the indices at each place."""
    axes = [axis for axis, _ in gathered]
    others = [axis for axis in range(rank) if axis not in axes]
    items = [w.tensor(item, "int64") for _, item in gathered]
    nothing = items[0]
    for item in items[1:]:
        nothing = w.node("Add", nothing, item)
    nothing = w.node("Mul", nothing, numpy.asarray(0))  # zeros of the shape that they have together
    last = numpy.asarray([-1])
    columns = [w.node("Unsqueeze", w.node("Add", item, nothing), last) for item in items]
    found = w.node(
        "GatherND", w.node("Transpose", x, perm=[*axes, *others]), w.node("Concat", *columns, axis=-1)
    )
    # The axes of the indices come first, unless those that they stand for are neighbours.
    front = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    number = max(len(w.shape(item)) for _, item in gathered)
    order = [*range(number, number + front), *range(number), *range(number + front, number + len(others))]
    return w.node("Transpose", found, perm=order) if front else found


@says("take")
def _take(w: Any, operation: Operation) -> str:
    x, indices, axis = arguments(operation, "x", "indices", axis=0)
    return w.node("Gather", x, as_indices(w, indices), axis=0 if axis is None else axis)


@says("take_along_axis")
def _take_along_axis(w: Any, operation: Operation) -> Any:
    x, indices, axis = arguments(operation, "x", "indices", axis=-1)
    (axis,) = axes_of(w, x, axis)
    names = []
    for array, name in ((x, w.tensor(x)), (indices, as_indices(w, indices))):  # ONNX does not broadcast them
        own, target = w.shape(array), list(w.shape(operation.result))
        target[axis] = own[axis]
        names.append(name if list(own) == target else w.node("Expand", name, w.lengths(target)))
    return w.node("GatherElements", *names, axis=axis)


@says("setitem")
def _setitem(w: Any, operation: Operation) -> Any:
    x, key, values = operation.arguments
    dtype = operation.result.dtype
    if type(key) is Variable and is_bool(key.dtype):
        if w.shape(values) or len(w.shape(key)) != len(w.shape(x)):
            return NotImplemented
        return w.node("Where", key, w.tensor(values, dtype), w.tensor(x, dtype))
    written = _pasted(w, x, key, values, dtype)
    return _scattered(w, x, key, values, dtype, "none") if written is NotImplemented else written


@says("scatter_add")
def _scatter_add(w: Any, operation: Operation) -> Any:
    values, key, shape = operation.arguments
    dtype = operation.result.dtype
    zeros = Filled(dtype.type(0), tuple(shape))
    if is_basic(key if type(key) is tuple else (key,)):  # no place is named twice
        written = _pasted(w, zeros, key, values, dtype)
        if written is not NotImplemented:
            return written
    return _scattered(w, zeros, key, values, dtype, "add")


def _scattered(w: Any, x: Any, key: Any, values: Any, dtype: Any, reduction: str) -> Any:
    """Write values to places that are known when the file is run: they are numbered, and taken by the key."""
    shape = w.shape(x)
    number = w.node("ReduceProd", w.lengths(shape), keepdims=0)
    numbers = w.node("Range", numpy.asarray(0), number, numpy.asarray(1))
    places = _at(w, reshaped(w, numbers, shape), shape, key)
    if places is NotImplemented:
        return places
    values = w.node("Expand", w.tensor(values, dtype), w.node("Shape", places))
    flat = numpy.asarray([-1])
    pairs = (w.node("Reshape", each, flat) for each in (w.tensor(x, dtype), places, values))
    return reshaped(w, w.node("ScatterElements", *pairs, axis=0, reduction=reduction), shape)


def _pasted(w: Any, x: Any, key: Any, values: Any, dtype: Any) -> Any:
    """Write values to slices that are known beforehand."""
    lengths, rank = w.shape(x), len(w.shape(x))
    keys = _items(key, rank)
    if not all(type(item) in (slice, int) for item in keys):
        return NotImplemented
    if any(type(end) is Size for item in keys if isinstance(item, slice) for end in (item.start, item.stop)):
        return NotImplemented
    changed = {axis: item for axis, item in enumerate(keys) if item != slice(None)}
    if not all(isinstance(lengths[axis], int) for axis in changed):
        return NotImplemented
    # Which places of an axis are written to; a number is a slice of length one.
    chosen = {axis: numpy.arange(lengths[axis])[item].reshape(-1) for axis, item in changed.items()}
    own = list(w.shape(values))
    name = w.tensor(values, dtype)
    if own:
        # Axes of length one: in the place of numbers, and in front.
        numbers = [axis for axis, item in changed.items() if isinstance(item, int)]
        others = [axis for axis in range(rank) if axis not in numbers]
        added = sorted([*numbers, *others[: len(others) - len(own)]])
        name = w.node("Unsqueeze", name, numpy.asarray(added)) if added else name
        for axis in added:
            own.insert(axis, 1)
    written = [len(chosen[axis]) if axis in chosen else lengths[axis] for axis in range(rank)]
    if 0 in written:
        return w.node("Identity", w.tensor(x))
    fill, together = one_value(x), all((numpy.diff(places) == 1).all() for places in chosen.values())
    if own == written and fill is not None and together:  # a border
        border = numpy.zeros((2, rank), dtype="int64")
        for axis, places in chosen.items():
            border[:, axis] = places[0], lengths[axis] - 1 - places[-1]
        return w.node("Pad", name, border.reshape(-1), w.tensor(fill, dtype))
    mask = numpy.ones((1,) * rank, dtype=bool)
    for axis, places in chosen.items():
        source = numpy.zeros(lengths[axis], dtype="int64")
        source[places] = numpy.arange(len(places))
        if own and own[axis] != 1:
            name = w.node("Gather", name, source, axis=axis)
        here = numpy.isin(numpy.arange(lengths[axis]), places)
        mask = mask & here.reshape(-1, *(1,) * (rank - 1 - axis))
    return w.node("Where", mask, name, w.tensor(x, dtype))
