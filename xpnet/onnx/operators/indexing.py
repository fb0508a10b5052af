"""Indexing."""

from typing import Any

import numpy

from xpnet.onnx.operators.declare import BEFORE_ALL, BEHIND_ALL, arguments, is_bool, one_value, says, sliced
from xpnet.onnx.recorded import Size
from xpnet.replay.graph import Operation


@says("getitem")
def _getitem(w: Any, operation: Operation) -> Any:
    x, key = operation.arguments
    keys = list(key) if isinstance(key, tuple) else [key]
    taken = sum(item is not None and item is not ... for item in keys)
    rest = [slice(None)] * (len(w.shape(x)) - taken)
    place = next((index for index, item in enumerate(keys) if item is ...), len(keys))
    keys[place : place + 1] = rest
    slices, gathered, added = {}, [], []
    axis = result_axis = 0
    for item in keys:
        if item is None:
            added.append(result_axis)
            result_axis += 1
            continue
        if isinstance(item, slice):
            if any(type(end) is Size for end in (item.start, item.stop, item.step)):
                return NotImplemented
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
    arrays = [item for _, item in gathered if w.shape(item)]
    if arrays and len(gathered) > 1:  # several arrays are taken together
        return NotImplemented
    name = sliced(w, x, slices) if slices else w.tensor(x)
    for place, item in reversed(gathered):
        name = w.node("Gather", name, w.tensor(item, None if hasattr(item, "dtype") else "int64"), axis=place)
    if added:
        name = w.node("Unsqueeze", name, numpy.asarray(added, dtype="int64"))
    return name if slices or gathered or added else w.node("Identity", name)


@says("take")
def _take(w: Any, operation: Operation) -> str:
    x, indices, axis = arguments(operation, "x", "indices", axis=0)
    return w.node("Gather", x, w.tensor(indices, "int64"), axis=0 if axis is None else axis)


@says("take_along_axis")
def _take_along_axis(w: Any, operation: Operation) -> Any:
    x, indices, axis = arguments(operation, "x", "indices", axis=-1)
    if w.shape(x)[:axis] != w.shape(indices)[:axis]:  # which ONNX does not broadcast
        return NotImplemented
    return w.node("GatherElements", x, w.tensor(indices, "int64"), axis=axis)


@says("setitem")
def _setitem(w: Any, operation: Operation) -> Any:
    x, key, values = operation.arguments
    lengths, rank = w.shape(x), len(w.shape(x))
    keys = list(key) if isinstance(key, tuple) else [key]
    place = next((index for index, item in enumerate(keys) if item is ...), len(keys))
    keys[place : place + 1] = [slice(None)] * (rank - sum(item is not ... for item in keys))
    if not all(isinstance(item, slice | int) for item in keys):
        return NotImplemented
    if any(type(end) is Size for item in keys if isinstance(item, slice) for end in (item.start, item.stop)):
        return NotImplemented
    changed = {axis: item for axis, item in enumerate(keys) if item != slice(None)}
    if not all(isinstance(lengths[axis], int) for axis in changed):
        return NotImplemented
    # Which places of an axis are written to; a number is a slice of length one.
    chosen = {axis: numpy.arange(lengths[axis])[item].reshape(-1) for axis, item in changed.items()}
    own = list(w.shape(values))
    name = w.tensor(values, operation.result.dtype)
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
        return w.node("Pad", name, border.reshape(-1), w.tensor(fill, operation.result.dtype))
    mask = numpy.ones((1,) * rank, dtype=bool)
    for axis, places in chosen.items():
        source = numpy.zeros(lengths[axis], dtype="int64")
        source[places] = numpy.arange(len(places))
        if own and own[axis] != 1:
            name = w.node("Gather", name, source, axis=axis)
        here = numpy.isin(numpy.arange(lengths[axis]), places)
        mask = mask & here.reshape(-1, *(1,) * (rank - 1 - axis))
    return w.node("Where", mask, name, w.tensor(x, operation.result.dtype))
