"""Functions that xpnet has beside the standard, as operators of ONNX: windows, and loops."""

from math import prod
from typing import Any

import numpy

from xpnet.autodiff.windows import count_windows
from xpnet.onnx.operators.declare import arguments, reshaped, says
from xpnet.onnx.operators.elementwise import direct
from xpnet.replay.graph import Operation, Variable


@says("windows")
def _windows(w: Any, operation: Operation) -> Any:
    x, sizes, strides, dilations = arguments(operation, "x", "sizes", "strides", "dilations")
    lengths, rank = w.shape(x)[1:-1], len(sizes)
    if not all(isinstance(length, int) for length in lengths):
        return NotImplemented
    counts = count_windows(lengths, sizes, strides, dilations)
    for axis in range(rank)[::-1]:  # each becomes two, so that the last comes first
        starts = strides[axis] * numpy.arange(counts[axis])
        inside = dilations[axis] * numpy.arange(sizes[axis])
        x = w.node("Gather", x, starts[:, None] + inside, axis=1 + axis)
    pairs = range(1, 1 + 2 * rank)
    return w.node("Transpose", x, perm=[0, *pairs[::2], *pairs[1::2], 1 + 2 * rank])


@says("add_windows")
def _add_windows(w: Any, operation: Operation) -> Any:
    x, shape, strides, dilations = arguments(operation, "w", "shape", "strides", "dilations")
    rank, (batch, *lengths, channels) = len(strides), shape
    counts, sizes = w.shape(x)[1 : 1 + rank], w.shape(x)[1 + rank : -1]
    numbers = all(isinstance(length, int) for length in (*lengths, *sizes, channels))
    if not numbers or counts != count_windows(tuple(lengths), sizes, strides, dilations):
        return NotImplemented
    places = range(1, 1 + 2 * rank)
    columns = w.node("Transpose", x, perm=[0, 1 + 2 * rank, *places[rank:], *places[:rank]])
    columns = reshaped(w, columns, (batch, channels * prod(sizes), prod(counts)))
    lengths, sizes = (numpy.asarray(each, dtype="int64") for each in (lengths, sizes))
    y = w.node("Col2Im", columns, lengths, sizes, strides=strides, dilations=dilations)
    return w.node("Transpose", y, perm=[0, *range(2, 2 + rank), 1])


def _operation(w: Any, x: Any, name: str) -> Operation | None:
    """Return the operation that makes a variable, if it has a name."""
    maker = w.makers.get(x) if type(x) is Variable else None
    return maker if maker is not None and maker.short_name == name else None


def _windows_in_rows(w: Any, x: Any) -> Operation | None:
    """Return the windows that are the rows of a matrix, as convolutions multiply them."""
    turned = _operation(w, x, "matrix_transpose")
    shaped = _operation(w, turned.arguments[0] if turned else x, "reshape")
    given = shaped.arguments[0] if shaped else None
    moved = _operation(w, given, "permute_dims") if turned else None
    found = _operation(w, moved.arguments[0] if moved else given, "windows")
    if found is None or bool(turned) != bool(moved):
        return None
    if moved:
        axes = arguments(moved, "x", "axes")[1]
        rank = len(found.options["sizes"])
        if tuple(axes) != (*range(1 + rank, 2 + 2 * rank), *range(1 + rank)):
            return None
    inside = prod(found.options["sizes"]) * found.result.shape[-1]
    return found if len(x.shape) == 2 and x.shape[1] == inside else None


@says("matmul")
def _matmul(w: Any, operation: Operation) -> str:
    a, b = operation.arguments
    windows, dtype = _windows_in_rows(w, a), operation.result.dtype
    if windows is None or dtype != numpy.float32:  # onnxruntime has convolutions of float32 alone
        return direct(w, operation)
    (x,), options = windows.arguments, windows.options
    rank, out = len(options["sizes"]), w.shape(b)[-1]
    shape = (*options["sizes"], w.shape(x)[-1], out)
    flat = _operation(w, b, "reshape")
    if flat is not None and w.shape(flat.arguments[0]) == shape:
        weight = w.tensor(flat.arguments[0], dtype)
    else:
        weight = w.node("Reshape", w.tensor(b, dtype), w.lengths(shape))
    y = w.node(
        "Conv",
        w.node("Transpose", w.tensor(x, dtype), perm=[0, 1 + rank, *range(1, 1 + rank)]),
        w.node("Transpose", weight, perm=[1 + rank, rank, *range(rank)]),
        strides=options["strides"],
        dilations=options["dilations"],
    )
    y = w.node("Transpose", y, perm=[0, *range(2, 2 + rank), 1])
    return w.node("Reshape", y, numpy.asarray([-1, out]))


@says("scan_arrays")
def _scan_arrays(w: Any, operation: Operation) -> Any:
    step = operation.options["body"]
    if not step.sequences:  # which a loop of ONNX needs
        return NotImplemented
    return w.loop(step, operation.arguments, operation.results)
