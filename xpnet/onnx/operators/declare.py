"""How functions of the standard are declared as operators of ONNX, and what they share."""

from collections.abc import Callable
from typing import Any

import numpy

from xpnet.onnx.recorded import Filled, Size
from xpnet.replay.graph import Operation

OPERATORS: dict[str, Callable] = {}


def says(*names: str) -> Callable:
    """Declare how functions of some names are written."""

    def declare(write: Callable) -> Callable:
        OPERATORS.update(dict.fromkeys(names, write))
        return write

    return declare


def is_float(dtype: Any) -> bool:
    return numpy.dtype(dtype).kind == "f"


def is_bool(dtype: Any) -> bool:
    return numpy.dtype(dtype).kind == "b"


def arguments(operation: Operation, *names: str, **defaults: Any) -> list[Any]:
    """Return the arguments of a call by name, whether they were given by position or by keyword."""
    given = dict(zip(names, operation.arguments, strict=False)) | operation.options
    return [
        given.get(name, defaults.get(name)) for name in (*names, *(n for n in defaults if n not in names))
    ]


def axes_of(w: Any, x: Any, axis: Any) -> list[int]:
    """Return the axes that an argument names, counted from the front."""
    rank = len(w.shape(x))
    axes = range(rank) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return [axis % rank for axis in axes]


def reshaped(w: Any, x: Any, shape: Any) -> str:
    """Write a change of shape."""
    # One length that depends on the batch is the one that is left.
    if sum(type(size) is Size for size in shape) == 1 and -1 not in shape and 0 not in shape:
        shape = [-1 if type(size) is Size else size for size in shape]
    return w.node("Reshape", x, w.lengths(shape), **({"allowzero": 1} if 0 in shape else {}))


BEHIND_ALL = 2**31 - 1
BEFORE_ALL = -(2**31)


def sliced(w: Any, x: Any, slices: dict[int, tuple[int | Size, int | Size, int | Size]]) -> str:
    """Write slices along some axes: first, end and step of each."""
    starts, ends, steps = (w.lengths(column) for column in zip(*slices.values(), strict=True))
    return w.node("Slice", x, starts, ends, numpy.asarray(list(slices), dtype="int64"), steps)


def as_indices(w: Any, x: Any) -> str:
    """Write integers with which elements are taken."""
    return w.tensor(x) if w.dtype(x) in (numpy.int32, numpy.int64) else w.tensor(x, "int64")


def one_value(x: Any) -> Any:
    """Return the one value that all elements of a constant have, or None."""
    if type(x) is Filled:
        return x.value
    if isinstance(x, numpy.ndarray) and x.size and (x == x.reshape(-1)[0]).all():
        return x.reshape(-1)[0]
    return None
