"""How NumPy does each function in memory that is there: the steps that plans for NumPy are made of.

To add a function, write its `Step` below `lowering`. What is not listed is an elementwise function of
NumPy's, or is called as it was recorded.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy

from xpnet.autodiff.scatter import may_repeat
from xpnet.replay.functions import FUNCTIONS
from xpnet.replay.graph import Operation, Variable, substitute
from xpnet.replay.kernels import python
from xpnet.replay.plans.step import (
    ADD,
    ADD_WINDOWS,
    CALL,
    COPY,
    PRODUCT,
    VIEW,
    Call,
    Consecutive,
    Item,
    Member,
    Step,
)

Lowering = Callable[[Operation], Step | None]
LOWERINGS: dict[str, Lowering] = {}

ALL = ...  # the key of all elements


def lowering(*names: str) -> Callable[[Lowering], Lowering]:
    """Declare how a function is done in a buffer; the decorated function returns None where it cannot be."""

    def declare(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return declare


def _call(function: Any, *arguments: Any, name: str = "", **options: Any) -> Call:
    return Call(CALL, function, arguments, name or function.__name__, options)


def _copy(target: Any, value: Any, name: str = "copyto", **options: Any) -> Call:
    return Call(COPY, numpy.copyto, (target, value), name, options)


def elementwise(operation: Operation) -> Step | None:
    """Let a ufunc write into the result, and copy what any other function with a text for kernels makes."""
    own, arguments = operation.function, operation.arguments  # SciPy's are ufuncs, too
    ufunc = own if isinstance(own, numpy.ufunc) else getattr(numpy, operation.name, None)
    if operation.options:
        return None
    if not isinstance(ufunc, numpy.ufunc):
        made = Call.of(operation)._replace(results=())
        return Step.of(operation, _copy(operation.result, made)) if python.TARGET.text(operation) else None
    if ufunc.signature or ufunc.nout != 1 or ufunc.nin != len(arguments):
        return None
    name = operation.name.replace(".", "_")
    call = _call(ufunc, *arguments, name=name, out=operation.result)
    return Step.of(operation, call, in_place=operation.inputs)


_REDUCTIONS = {
    row.name: getattr(numpy, row.total[0]).reduce
    for row in FUNCTIONS.values()
    if row.kind == "reduction" and row.name != "mean"  # which is divided at the end
}


def _axis_and_keepdims(operation: Operation) -> tuple[Any, bool]:
    axis = operation.options.get("axis")
    return tuple(axis) if isinstance(axis, list) else axis, operation.options.get("keepdims", False)


@lowering(*_REDUCTIONS)
def _reduction(operation: Operation) -> Step | None:
    x, *rest = operation.arguments
    if rest or not x.shape or operation.options.keys() - {"axis", "dtype", "keepdims"}:
        return None
    axis, keepdims = _axis_and_keepdims(operation)
    reduce, result = _REDUCTIONS[operation.name], operation.result
    return Step.of(operation, _call(reduce, x, axis, result.dtype, result, keepdims, name=operation.name))


@lowering("collective")
def _collective(operation: Operation) -> Step | None:
    """Add up the arrays of all processes where the results are, in which the arrays are made or copied.

    Pieces are exchanged from arrays that are anywhere into the results.
    """
    if len(operation.arguments) > len(operation.inputs):  # of constants it makes copies
        return None
    exchange = operation.options["operation"].into_results([x.dtype for x in operation.inputs])
    if exchange is not None:
        step = Step.of(operation, _call(exchange, operation.results, operation.inputs, name="exchange"))
        return replace(step, inside=_inside(operation))
    add = operation.options["operation"].in_place([(x.dtype, x.shape) for x in operation.results])
    if add is None:
        return None
    copies = [_copy(y, x) for y, x in zip(operation.results, operation.inputs, strict=True)]
    step = Step.of(operation, *copies, _call(add, Consecutive(operation.results), name="add_up"))
    return replace(step, consecutive=True)


def _inside(operation: Operation) -> list[tuple[Variable, Variable, int]]:
    """Return where pieces are in what is joined of them."""
    starts = operation.options["operation"].starts()
    each = zip(operation.inputs, operation.results, starts, strict=True) if starts else ()
    return [(x, y, start * x.dtype.itemsize) for x, y, start in each]


@lowering("matmul")
def _matmul(operation: Operation) -> Step | None:
    x1, x2 = operation.arguments
    matrices = len(x1.shape) == len(x2.shape) == 2 and x1.dtype == x2.dtype
    # `dot` of two matrices calls BLAS as `matmul` does, half a microsecond sooner.
    function = numpy.dot if matrices else numpy.matmul
    return Step.of(operation, Call(PRODUCT, function, (x1, x2, operation.result), function.__name__))


def _as_array(x: Any, dtype: Any) -> Any:
    return numpy.asarray(x).astype(dtype) if isinstance(x, bool | int | float | complex) else x


def _seen_as(dtype: Any, x: Any) -> Any:
    return Member(x, "view", (dtype,)) if type(x) is Variable else x.view(dtype)


_BITS = {4: numpy.dtype(numpy.int32), 8: numpy.dtype(numpy.int64)}


@lowering("where")
def _where(operation: Operation) -> Step | None:
    """Choose by arithmetic on the bits, without a branch for each element: where(c, x, y) = (x ^ y) * c ^ y.

    Where the condition is true for every other element, say, that takes a twentieth of NumPy's time. A
    condition that is not boolean, of which any number but zero is true, NumPy goes through itself.
    """
    condition, *values = operation.arguments
    if numpy.dtype(getattr(condition, "dtype", type(condition))) != bool:
        return None
    dtype = operation.result.dtype
    x1, x2 = (_as_array(x, dtype) for x in values)
    bits = _BITS.get(dtype.itemsize)
    if dtype.kind == "c" or not bits or {x1.dtype, x2.dtype} != {dtype}:
        return _where_by_copies(operation, condition, x1, x2)
    result, first, second = (_seen_as(bits, x) for x in (operation.result, x1, x2))
    into = partial(_call, out=result)
    if type(x2) is not Variable and not x2.view(bits).any():
        calls = [into(numpy.multiply, first, condition)]
    else:
        calls = [
            into(numpy.bitwise_xor, first, second),
            into(numpy.multiply, result, condition),
            into(numpy.bitwise_xor, result, second),
        ]
    return Step.of(operation, *calls, in_place=(x1,) if type(x1) is Variable and x1 is not x2 else ())


def _where_by_copies(operation: Operation, condition: Any, x1: Any, x2: Any) -> Step:
    return Step.of(
        operation,
        _copy(operation.result, x2),
        _copy(operation.result, x1, where=condition),
        in_place=(x2,) if type(x2) is Variable and x2 is not x1 else (),
    )


@lowering("asarray", "astype")
def _astype(operation: Operation) -> Step:
    return Step.of(operation, _copy(operation.result, operation.arguments[0], casting="unsafe"))


@lowering("vecdot", "linalg.vecdot")
def _vecdot(operation: Operation) -> Step | None:
    x1, x2 = operation.arguments
    of_rows = operation.options.get("axis", -1) == -1 and operation.result.dtype.kind == "f"
    if not of_rows or operation.options.keys() - {"axis"}:
        return None
    return Step.of(operation, Call(PRODUCT, numpy.vecdot, (x1, x2, operation.result), "vecdot"))


@lowering("concat", "stack")
def _concat(operation: Operation) -> Step | None:
    arrays, *rest = operation.arguments
    result, axis = operation.result, operation.options.get("axis", 0)
    if rest or axis is None:
        return None
    before, place, copies = (slice(None),) * (axis % len(result.shape)), 0, []
    for x in arrays:
        end = place + (x.shape[axis] if operation.name == "concat" else 1)
        part = slice(place, end) if operation.name == "concat" else place
        copies.append(_copy(Item(result, (*before, part)), x))
        place = end
    return Step.of(operation, *copies)


@lowering("setitem")
def _setitem(operation: Operation) -> Step:
    x, key, values = operation.arguments
    result = operation.result
    in_place = (x,) if type(x) is Variable and operation.inputs.count(x) == 1 else ()
    return Step.of(
        operation, _copy(result, x), _copy(Item(result, key), values, operation.name), in_place=in_place
    )


@lowering("scatter_add")
def _scatter_add(operation: Operation) -> Step:
    values, key, _shape = operation.arguments
    result = operation.result
    repeats = may_repeat(numpy, substitute(key, lambda v: numpy.empty(v.shape, v.dtype)))
    put = _copy(Item(result, key), values, operation.name)
    if repeats:
        put = Call(ADD, numpy.add.at, (result, key, values), "add_at")
    return Step.of(operation, _copy(Item(result, ALL), 0), put)


@lowering("add_windows")
def _add_windows(operation: Operation) -> Step:
    (windows,), result = operation.arguments, operation.result
    options = {**operation.options, "out": result}
    return Step.of(operation, Call(ADD_WINDOWS, operation.function, (windows,), "add_windows", options))


@lowering("getitem")
def _getitem(operation: Operation) -> Step:
    return Step.of(operation, _copy(Item(operation.result, ALL), Item(*operation.arguments), operation.name))


@lowering("take")
def _take(operation: Operation) -> Step | None:
    x, indices, *rest = operation.arguments
    axis = operation.options.get("axis")
    is_one = getattr(indices, "dtype", numpy.dtype(bool)).kind in "iu" and len(indices.shape) == 1
    if rest or not is_one or (axis is None and len(x.shape) != 1):
        return None
    key = (*[slice(None)] * ((axis or 0) % len(x.shape)), indices)
    return Step.of(operation, _copy(Item(operation.result, ALL), Item(x, key), operation.name))


@lowering("reshape")
def _reshape(operation: Operation) -> Step:
    x, *_ = operation.arguments
    return Step.of(operation, _copy(Item(Member(operation.result, "reshape", (x.shape,)), ALL), x))


@lowering("mean")
def _mean(operation: Operation) -> Step | None:
    x, *rest = operation.arguments
    if rest or not x.shape or x.dtype.name not in ("float32", "float64"):
        return None
    axis, keepdims = _axis_and_keepdims(operation)
    result = operation.result
    # An array, as a Python number would be converted each time.
    number = numpy.asarray(x.size // max(result.size, 1), x.dtype)
    add = _call(numpy.add.reduce, x, axis, None, result, keepdims, name="add_reduce")
    return Step.of(operation, add, _call(numpy.divide, result, number, result))


@lowering("take_along_axis")
def _take_along_axis(operation: Operation) -> Step | None:
    x, indices, *rest = operation.arguments
    axis = (*rest, operation.options.get("axis", -1))[0] % len(x.shape)
    if any(x.shape[a] != indices.shape[a] for a in range(len(x.shape)) if a != axis):
        return None  # they are broadcast
    grid = list(numpy.ogrid[tuple(slice(size) for size in operation.result.shape)])
    key = tuple(indices if a == axis else each for a, each in enumerate(grid))
    return Step.of(operation, _copy(Item(operation.result, ALL), Item(x, key), operation.name))


def view(operation: Operation) -> Step:
    """Make a view by the attribute or method that makes it soonest."""
    x, result = operation.inputs[0], operation.result
    made = {
        "matrix_transpose": Member(x, "mT"),
        "reshape": Member(x, "reshape", (result.shape,)),
        "asarray": x,  # that it is a view says that there is nothing to change
        "astype": x,
    }.get(operation.short_name)
    call = Call.of(operation, VIEW) if made is None else Call(VIEW, None, (made,), results=(result,))
    return Step.of(operation, call)
