"""The functions of the standard as operators of ONNX.

Each entry of `OPERATORS` is ``write(w, operation)``: it writes nodes with a `Writer` and returns the name of
the result, or NotImplemented where ONNX cannot say what the operation does.
"""

from collections.abc import Callable
from math import log, prod
from typing import Any

import numpy

from xpnet.autodiff.windows import count_windows
from xpnet.onnx.recorded import Filled, Size
from xpnet.replay.graph import Operation, Variable

OPERATORS: dict[str, Callable] = {}


def _says(*names: str) -> Callable:
    """Declare how functions of some names are written."""

    def declare(write: Callable) -> Callable:
        OPERATORS.update(dict.fromkeys(names, write))
        return write

    return declare


def _is_float(dtype: Any) -> bool:
    return numpy.dtype(dtype).kind == "f"


def _is_bool(dtype: Any) -> bool:
    return numpy.dtype(dtype).kind == "b"


def _arguments(operation: Operation, *names: str, **defaults: Any) -> list[Any]:
    """Return the arguments of a call by name, whether they were given by position or by keyword."""
    given = dict(zip(names, operation.arguments, strict=False)) | operation.options
    return [
        given.get(name, defaults.get(name)) for name in (*names, *(n for n in defaults if n not in names))
    ]


# -- elementwise functions --------------------------------------------------------------------------------

_ONE = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "bitwise_invert": "BitwiseNot", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
    "exp": "Exp", "floor": "Floor", "isnan": "IsNaN", "isinf": "IsInf", "logical_not": "Not", "log": "Log",
    "negative": "Neg", "positive": "Identity", "reciprocal": "Reciprocal", "round": "Round", "sign": "Sign",
    "sin": "Sin", "sinh": "Sinh", "special.erf": "Erf", "special.expit": "Sigmoid", "sqrt": "Sqrt",
    "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip

_SAME_FOR_INTEGERS = {"ceil", "floor", "round", "trunc"}


def _one(kind: str) -> Callable:
    def write(w: Any, operation: Operation) -> Any:
        (x,) = operation.arguments
        if not _is_float(w.dtype(x)):
            if operation.name in _SAME_FOR_INTEGERS:
                return w.node("Identity", x)
            if operation.name == "bitwise_invert" and _is_bool(w.dtype(x)):
                return w.node("Not", x)
            if operation.name in ("isnan", "isinf"):
                return NotImplemented
        if _is_bool(operation.result.dtype):
            return w.node(kind, w.tensor(x, bool) if operation.name == "logical_not" else x)
        return w.node(kind, w.tensor(x, operation.result.dtype))

    return write


OPERATORS.update({name: _one(kind) for name, kind in _ONE.items()})


def _common(w: Any, values: Any) -> Any:
    """Return the dtype in which arrays and numbers are compared: that of the arrays."""
    arrays = [w.dtype(x) for x in values if hasattr(x, "dtype")]
    return numpy.result_type(*arrays) if arrays else w.dtype(values[0])


def _two(kind: str, comparison: bool = False) -> Callable:
    def write(w: Any, operation: Operation) -> str:
        values = operation.arguments
        dtype = _common(w, values) if comparison else operation.result.dtype
        return w.node(kind, *(w.tensor(x, dtype) for x in values))

    return write


OPERATORS.update(
    {
        "add": _two("Add"), "subtract": _two("Sub"), "multiply": _two("Mul"), "divide": _two("Div"),
        "pow": _two("Pow"), "maximum": _two("Max"), "minimum": _two("Min"), "logical_and": _two("And"),
        "logical_or": _two("Or"), "logical_xor": _two("Xor"),
        "equal": _two("Equal", True), "less": _two("Less", True), "less_equal": _two("LessOrEqual", True),
        "greater": _two("Greater", True), "greater_equal": _two("GreaterOrEqual", True),
    }
)  # fmt: skip


def _bits(of_integers: str, of_truths: str) -> Callable:
    def write(w: Any, operation: Operation) -> str:
        dtype = operation.result.dtype
        kind = of_truths if _is_bool(dtype) else of_integers
        return w.node(kind, *(w.tensor(x, dtype) for x in operation.arguments))

    return write


OPERATORS["bitwise_and"] = _bits("BitwiseAnd", "And")
OPERATORS["bitwise_or"] = _bits("BitwiseOr", "Or")
OPERATORS["bitwise_xor"] = _bits("BitwiseXor", "Xor")


@_says("not_equal")
def _not_equal(w: Any, operation: Operation) -> str:
    dtype = _common(w, operation.arguments)
    return w.node("Not", w.node("Equal", *(w.tensor(x, dtype) for x in operation.arguments)))


def _floats(define: Callable) -> Callable:
    """Declare a function of floating-point arrays by ``define(node, number, *inputs)``."""

    def write(w: Any, operation: Operation) -> Any:
        dtype = operation.result.dtype
        values = [w.tensor(x, dtype) for x in operation.arguments]
        if not _is_float(dtype):
            return NotImplemented
        return define(w.node, lambda number: w.tensor(number, dtype), *values)

    return write


OPERATORS.update(
    {
        # tanh(x / 2) (exp(x) + 1), which keeps the digits of small x.
        "expm1": _floats(
            lambda node, n, x: node(
                "Mul", node("Tanh", node("Mul", x, n(0.5))), node("Add", node("Exp", x), n(1.0))
            )
        ),
        "log1p": _floats(lambda node, n, x: node("Log", node("Add", x, n(1.0)))),
        "log2": _floats(lambda node, n, x: node("Mul", node("Log", x), n(1 / log(2)))),
        "log10": _floats(lambda node, n, x: node("Mul", node("Log", x), n(1 / log(10)))),
        "logaddexp": _floats(
            lambda node, n, a, b: node(
                "Add",
                node("Max", a, b),
                node("Log", node("Add", node("Exp", node("Neg", node("Abs", node("Sub", a, b)))), n(1.0))),
            )
        ),
        "hypot": _floats(
            lambda node, _n, a, b: node("Sqrt", node("Add", node("Mul", a, a), node("Mul", b, b)))
        ),
        "special.log1p": _floats(lambda node, n, x: node("Log", node("Add", x, n(1.0)))),
        "special.exp2": _floats(lambda node, n, x: node("Pow", n(2.0), x)),
    }
)


@_says("square")
def _square(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    return w.node("Mul", x, x)


@_says("trunc")
def _trunc(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    if not _is_float(w.dtype(x)):
        return w.node("Identity", x)
    return w.node("Mul", w.node("Sign", x), w.node("Floor", w.node("Abs", x)))


@_says("isfinite")
def _isfinite(w: Any, operation: Operation) -> Any:
    (x,) = operation.arguments
    if not _is_float(w.dtype(x)):
        return NotImplemented
    return w.node("Not", w.node("Or", w.node("IsNaN", x), w.node("IsInf", x)))


@_says("remainder", "floor_divide")
def _remainder(w: Any, operation: Operation) -> str:
    dtype = operation.result.dtype
    a, b = (w.tensor(x, dtype) for x in operation.arguments)
    if _is_float(dtype):
        quotient = w.node("Floor", w.node("Div", a, b))
        return quotient if operation.name == "floor_divide" else w.node("Sub", a, w.node("Mul", quotient, b))
    rest = w.node("Mod", a, b)
    return rest if operation.name == "remainder" else w.node("Div", w.node("Sub", a, rest), b)


@_says("where")
def _where(w: Any, operation: Operation) -> str:
    condition, a, b = operation.arguments
    dtype = operation.result.dtype
    return w.node("Where", w.tensor(condition, bool), w.tensor(a, dtype), w.tensor(b, dtype))


@_says("clip")
def _clip(w: Any, operation: Operation) -> str:
    x, low, high = _arguments(operation, "x", "min", "max")
    dtype = operation.result.dtype
    name = w.tensor(x, dtype)
    name = name if low is None else w.node("Max", name, w.tensor(low, dtype))
    name = name if high is None else w.node("Min", name, w.tensor(high, dtype))
    return w.node("Identity", name) if low is None and high is None else name


@_says("astype", "asarray")
def _astype(w: Any, operation: Operation) -> str:
    return w.cast(w.tensor(operation.arguments[0]), operation.result.dtype)


# -- reductions -------------------------------------------------------------------------------------------


def _axes(w: Any, x: Any, axis: Any) -> list[int]:
    rank = len(w.shape(x))
    axes = range(rank) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return [axis % rank for axis in axes]


def _reduced(w: Any, kind: str, x: Any, axes: list[int], keepdims: bool) -> str:
    if not axes:
        return w.node("Identity", x)
    return w.node(kind, x, numpy.asarray(axes, dtype="int64"), keepdims=int(keepdims))


def _reduction(kind: str) -> Callable:
    def write(w: Any, operation: Operation) -> Any:
        x, axis, _, keepdims = _arguments(operation, "x", "axis", "dtype", keepdims=False)
        dtype = operation.result.dtype
        if _is_bool(dtype):
            return NotImplemented
        return _reduced(w, kind, w.tensor(x, dtype), _axes(w, x, axis), keepdims)

    return write


OPERATORS.update(
    {name: _reduction(f"Reduce{name.title()}") for name in ("max", "mean", "min", "prod", "sum")}
)


@_says("any", "all")
def _truths(w: Any, operation: Operation) -> str:
    x, axis, keepdims = _arguments(operation, "x", axis=None, keepdims=False)
    kind = "ReduceMax" if operation.name == "any" else "ReduceMin"
    numbers = w.cast(w.tensor(x, bool), "int32")
    return w.cast(_reduced(w, kind, numbers, _axes(w, x, axis), keepdims), bool)


@_says("count_nonzero")
def _count_nonzero(w: Any, operation: Operation) -> str:
    x, axis, keepdims = _arguments(operation, "x", axis=None, keepdims=False)
    numbers = w.cast(w.tensor(x, bool), operation.result.dtype)
    return _reduced(w, "ReduceSum", numbers, _axes(w, x, axis), keepdims)


@_says("var", "std")
def _var(w: Any, operation: Operation) -> Any:
    x, axis, correction, keepdims = _arguments(operation, "x", axis=None, correction=0.0, keepdims=False)
    axes = _axes(w, x, axis)
    lengths = [w.shape(x)[axis] for axis in axes]
    if correction and not all(isinstance(length, int) for length in lengths):
        return NotImplemented
    error = w.node("Sub", x, _reduced(w, "ReduceMean", x, axes, True))
    result = _reduced(w, "ReduceMean", w.node("Mul", error, error), axes, keepdims)
    if correction:
        number = prod(lengths)
        result = w.node("Mul", result, w.tensor(number / (number - correction), operation.result.dtype))
    return w.node("Sqrt", result) if operation.name == "std" else result


@_says("argmax", "argmin")
def _argmax(w: Any, operation: Operation) -> Any:
    x, axis, keepdims = _arguments(operation, "x", axis=None, keepdims=False)
    kind = "ArgMax" if operation.name == "argmax" else "ArgMin"
    if axis is None:
        if keepdims:
            return NotImplemented
        flat = w.node("Reshape", x, numpy.asarray([-1]))
        return w.node(kind, flat, axis=0, keepdims=0)
    return w.node(kind, x, axis=_axes(w, x, axis)[0], keepdims=int(keepdims))


@_says("cumulative_sum")
def _cumulative_sum(w: Any, operation: Operation) -> Any:
    x, axis, initial = _arguments(operation, "x", axis=None, include_initial=False)
    if initial:
        return NotImplemented
    axis = 0 if axis is None else axis
    return w.node("CumSum", w.tensor(x, operation.result.dtype), numpy.asarray(axis))


@_says("vector_norm")
def _vector_norm(w: Any, operation: Operation) -> Any:
    x, axis, keepdims, order = _arguments(operation, "x", axis=None, keepdims=False, ord=2)
    kind = {1: "ReduceL1", 2: "ReduceL2"}.get(order)
    return _reduced(w, kind, x, _axes(w, x, axis), keepdims) if kind else NotImplemented


# -- manipulation -----------------------------------------------------------------------------------------


def _reshaped(w: Any, x: Any, shape: Any) -> str:
    # One length that depends on the batch is the one that is left.
    if sum(type(size) is Size for size in shape) == 1 and -1 not in shape and 0 not in shape:
        shape = [-1 if type(size) is Size else size for size in shape]
    return w.node("Reshape", x, w.lengths(shape), **({"allowzero": 1} if 0 in shape else {}))


@_says("reshape")
def _reshape(w: Any, operation: Operation) -> str:
    x, shape, _ = _arguments(operation, "x", "shape", copy=None)
    return _reshaped(w, x, shape if isinstance(shape, tuple | list) else (shape,))


@_says("broadcast_to")
def _broadcast_to(w: Any, operation: Operation) -> str:
    x, shape = _arguments(operation, "x", "shape")
    own = (*(None,) * (len(shape) - len(w.shape(x))), *w.shape(x))
    # Where it has the length already, 1 keeps it.
    return w.node("Expand", x, w.lengths([1 if a == b else b for a, b in zip(own, shape, strict=True)]))


@_says("expand_dims")
def _expand_dims(w: Any, operation: Operation) -> str:
    x, axis = _arguments(operation, "x", axis=0)
    axes = axis if isinstance(axis, tuple) else (axis,)
    return w.node("Unsqueeze", x, numpy.asarray(axes, dtype="int64"))


@_says("squeeze")
def _squeeze(w: Any, operation: Operation) -> str:
    x, axis = _arguments(operation, "x", "axis")
    return w.node("Squeeze", x, numpy.asarray(_axes(w, x, axis), dtype="int64"))


@_says("permute_dims")
def _permute_dims(w: Any, operation: Operation) -> str:
    x, axes = _arguments(operation, "x", "axes")
    return w.node("Transpose", x, perm=_axes(w, x, tuple(axes)))


@_says("matrix_transpose")
def _matrix_transpose(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    rank = len(w.shape(x))
    return w.node("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


@_says("moveaxis")
def _moveaxis(w: Any, operation: Operation) -> str:
    x, source, target = _arguments(operation, "x", "source", "destination")
    source, target = _axes(w, x, source), _axes(w, x, target)
    order = [axis for axis in range(len(w.shape(x))) if axis not in source]
    for place, axis in sorted(zip(target, source, strict=True)):
        order.insert(place, axis)
    return w.node("Transpose", x, perm=order)


@_says("concat")
def _concat(w: Any, operation: Operation) -> str:
    arrays, axis = _arguments(operation, "arrays", axis=0)
    names = [w.tensor(x, operation.result.dtype) for x in arrays]
    if axis is None:
        names, axis = [w.node("Reshape", name, numpy.asarray([-1])) for name in names], 0
    return w.node("Concat", *names, axis=axis)


@_says("stack")
def _stack(w: Any, operation: Operation) -> str:
    arrays, axis = _arguments(operation, "arrays", axis=0)
    axis %= len(operation.result.shape)
    place = numpy.asarray([axis], dtype="int64")
    names = [w.node("Unsqueeze", w.tensor(x, operation.result.dtype), place) for x in arrays]
    return w.node("Concat", *names, axis=axis)


@_says("unstack")
def _unstack(w: Any, operation: Operation) -> list[str]:
    x, axis = _arguments(operation, "x", axis=0)
    number = len(operation.results)
    return [w.node("Gather", x, numpy.asarray(index), axis=axis) for index in range(number)]


@_says("flip")
def _flip(w: Any, operation: Operation) -> str:
    x, axis = _arguments(operation, "x", axis=None)
    return _sliced(w, x, dict.fromkeys(_axes(w, x, axis), (-1, _BEFORE_ALL, -1)))


@_says("roll")
def _roll(w: Any, operation: Operation) -> Any:
    x, shift, axis = _arguments(operation, "x", "shift", axis=None)
    if axis is None:
        return NotImplemented
    pairs = zip(axis, shift, strict=True) if isinstance(axis, tuple) else [(axis, shift)]
    for place, by in pairs:
        length = w.shape(operation.arguments[0])[place]
        if not isinstance(length, int):
            return NotImplemented
        cut = -by % length
        parts = [_sliced(w, x, {place: (cut, _BEHIND_ALL, 1)}), _sliced(w, x, {place: (0, cut, 1)})]
        x = w.node("Concat", *parts, axis=place)
    return x


@_says("tile")
def _tile(w: Any, operation: Operation) -> str:
    x, repeats = _arguments(operation, "x", "repetitions")
    rank = len(w.shape(x))
    if len(repeats) > rank:
        axes = numpy.arange(len(repeats) - rank)
        x = w.node("Unsqueeze", x, axes)
    return w.node("Tile", x, numpy.asarray((1,) * (rank - len(repeats)) + tuple(repeats), dtype="int64"))


@_says("tril", "triu")
def _tril(w: Any, operation: Operation) -> str:
    x, k = _arguments(operation, "x", k=0)
    return w.node("Trilu", x, numpy.asarray(k), upper=int(operation.name == "triu"))


@_says("sort", "argsort")
def _sort(w: Any, operation: Operation) -> Any:
    x, axis, descending, _ = _arguments(operation, "x", axis=-1, descending=False, stable=True)
    length = w.shape(x)[axis]
    if not _is_float(w.dtype(x)) and w.dtype(x) not in (numpy.int64, numpy.int32):
        return NotImplemented
    number = w.lengths((length,))
    values, indices = w.node("TopK", x, number, axis=axis, largest=int(descending), results=2)
    return values if operation.name == "sort" else indices


# -- indexing ---------------------------------------------------------------------------------------------

_BEHIND_ALL = 2**31 - 1
_BEFORE_ALL = -(2**31)


def _sliced(w: Any, x: Any, slices: dict[int, tuple[int, int, int]]) -> str:
    """Write slices along some axes: first, end and step of each."""
    columns = zip(*slices.values(), strict=True)
    starts, ends, steps = (numpy.asarray(column, dtype="int64") for column in columns)
    return w.node("Slice", x, starts, ends, numpy.asarray(list(slices), dtype="int64"), steps)


@_says("getitem")
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
            start = item.start if item.start is not None else 0 if step > 0 else _BEHIND_ALL
            stop = item.stop if item.stop is not None else _BEHIND_ALL if step > 0 else _BEFORE_ALL
            if (start, stop, step) != (0, _BEHIND_ALL, 1):
                slices[axis] = (start, stop, step)
            result_axis += 1
        elif _is_bool(w.dtype(item)):
            return NotImplemented
        else:
            gathered.append((axis, item))
            result_axis += len(w.shape(item))
        axis += 1
    arrays = [item for _, item in gathered if w.shape(item)]
    if arrays and len(gathered) > 1:  # several arrays are taken together
        return NotImplemented
    name = _sliced(w, x, slices) if slices else w.tensor(x)
    for place, item in reversed(gathered):
        name = w.node("Gather", name, w.tensor(item, None if hasattr(item, "dtype") else "int64"), axis=place)
    if added:
        name = w.node("Unsqueeze", name, numpy.asarray(added, dtype="int64"))
    return name if slices or gathered or added else w.node("Identity", name)


@_says("take")
def _take(w: Any, operation: Operation) -> str:
    x, indices, axis = _arguments(operation, "x", "indices", axis=0)
    return w.node("Gather", x, w.tensor(indices, "int64"), axis=0 if axis is None else axis)


@_says("take_along_axis")
def _take_along_axis(w: Any, operation: Operation) -> Any:
    x, indices, axis = _arguments(operation, "x", "indices", axis=-1)
    if w.shape(x)[:axis] != w.shape(indices)[:axis]:  # which ONNX does not broadcast
        return NotImplemented
    return w.node("GatherElements", x, w.tensor(indices, "int64"), axis=axis)


@_says("setitem")
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
    fill, together = _one_value(x), all((numpy.diff(places) == 1).all() for places in chosen.values())
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


def _one_value(x: Any) -> Any:
    """Return the one value that all elements of a constant have, or None."""
    if type(x) is Filled:
        return x.value
    if isinstance(x, numpy.ndarray) and x.size and (x == x.reshape(-1)[0]).all():
        return x.reshape(-1)[0]
    return None


# -- windows ----------------------------------------------------------------------------------------------


@_says("windows")
def _windows(w: Any, operation: Operation) -> Any:
    x, sizes, strides, dilations = _arguments(operation, "x", "sizes", "strides", "dilations")
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


@_says("add_windows")
def _add_windows(w: Any, operation: Operation) -> Any:
    x, shape, strides, dilations = _arguments(operation, "w", "shape", "strides", "dilations")
    rank, (batch, *lengths, channels) = len(strides), shape
    counts, sizes = w.shape(x)[1 : 1 + rank], w.shape(x)[1 + rank : -1]
    numbers = all(isinstance(length, int) for length in (*lengths, *sizes, channels))
    if not numbers or counts != count_windows(tuple(lengths), sizes, strides, dilations):
        return NotImplemented
    places = range(1, 1 + 2 * rank)
    columns = w.node("Transpose", x, perm=[0, 1 + 2 * rank, *places[rank:], *places[:rank]])
    columns = _reshaped(w, columns, (batch, channels * prod(sizes), prod(counts)))
    lengths, sizes = (numpy.asarray(each, dtype="int64") for each in (lengths, sizes))
    y = w.node("Col2Im", columns, lengths, sizes, strides=strides, dilations=dilations)
    return w.node("Transpose", y, perm=[0, *range(2, 2 + rank), 1])


def _operation(x: Any, *names: str) -> Operation | None:
    """Return the operation that makes a variable, if it has one of some names."""
    made_by = x.operation if type(x) is Variable else None
    return made_by if made_by is not None and made_by.name in names else None


def _windows_in_rows(x: Any) -> Operation | None:
    """Return the windows that are the rows of a matrix, as convolutions multiply them."""
    turned = _operation(x, "matrix_transpose", "linalg.matrix_transpose")
    shaped = _operation(turned.arguments[0] if turned else x, "reshape")
    given = shaped.arguments[0] if shaped else None
    moved = _operation(given, "permute_dims") if turned else None
    found = _operation(moved.arguments[0] if moved else given, "windows")
    if found is None or bool(turned) != bool(moved):
        return None
    if moved:
        axes = _arguments(moved, "x", "axes")[1]
        rank = len(found.options["sizes"])
        if tuple(axes) != (*range(1 + rank, 2 + 2 * rank), *range(1 + rank)):
            return None
    inside = prod(found.options["sizes"]) * found.result.shape[-1]
    return found if len(x.shape) == 2 and x.shape[1] == inside else None


@_says("matmul")
def _matmul(w: Any, operation: Operation) -> str:
    a, b = operation.arguments
    windows, dtype = _windows_in_rows(a), operation.result.dtype
    if windows is None or dtype != numpy.float32:  # onnxruntime has convolutions of float32 alone
        return _two("MatMul")(w, operation)
    (x,), options = windows.arguments, windows.options
    rank, out = len(options["sizes"]), w.shape(b)[-1]
    shape = (*options["sizes"], w.shape(x)[-1], out)
    flat = _operation(b, "reshape")
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


# -- loops ------------------------------------------------------------------------------------------------


@_says("scan_arrays")
def _scan_arrays(w: Any, operation: Operation) -> list[str]:
    return w.loop(operation.options["body"], operation.arguments, operation.results)


# -- products ---------------------------------------------------------------------------------------------


@_says("vecdot")
def _vecdot(w: Any, operation: Operation) -> str:
    a, b, axis = _arguments(operation, "x1", "x2", axis=-1)
    dtype = operation.result.dtype
    return w.node(
        "ReduceSum", w.node("Mul", w.tensor(a, dtype), w.tensor(b, dtype)), numpy.asarray([axis]), keepdims=0
    )


@_says("tensordot")
def _tensordot(w: Any, operation: Operation) -> str:
    a, b, axes = _arguments(operation, "x1", "x2", axes=2)
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


@_says("outer")
def _outer(w: Any, operation: Operation) -> str:
    a, b = (w.tensor(x, operation.result.dtype) for x in operation.arguments)
    column = w.node("Unsqueeze", a, numpy.asarray([1]))
    return w.node("Mul", column, w.node("Unsqueeze", b, numpy.asarray([0])))
