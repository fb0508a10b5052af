"""How NumPy does each function in memory that is there: the steps that plans for NumPy are made of.

To add a function, write its `Step` below `lowering`. What is not listed is an elementwise function of
NumPy's, or is called as it was recorded.
"""

from collections.abc import Callable
from typing import Any

import numpy

from xpnet.autodiff.scatter import may_repeat
from xpnet.replay.functions import FUNCTIONS
from xpnet.replay.graph import Operation, Variable, substitute
from xpnet.replay.kernels import python
from xpnet.replay.plans import numba
from xpnet.replay.plans.plan import Source, Step, call

Lowering = Callable[[Source, Operation], Step | None]
LOWERINGS: dict[str, Lowering] = {}


def lowering(*names: str) -> Callable[[Lowering], Lowering]:
    """Declare how a function is done in a buffer; the decorated function returns None where it cannot be."""

    def declare(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return declare


def elementwise(source: Source, operation: Operation) -> Step | None:
    known = isinstance(operation.function, numpy.ufunc)  # SciPy's
    ufunc = operation.function if known else getattr(numpy, operation.name, None)
    arguments = operation.arguments
    if not isinstance(ufunc, numpy.ufunc) or ufunc.signature or operation.options:
        return None
    if ufunc.nout != 1 or ufunc.nin != len(arguments):
        return None
    name = source.constant(ufunc, operation.name.replace(".", "_"))
    result = operation.result
    line = f"{name}({source.items(*arguments)}, out={source.text(result)})"
    return Step(operation, [line], in_place=tuple(operation.inputs))


_REDUCTIONS = {
    name: getattr(numpy, FUNCTIONS[name].total[0]).reduce
    for name in ("all", "any", "max", "min", "prod", "sum")
}


@lowering(*_REDUCTIONS)
def _reduction(source: Source, operation: Operation) -> Step | None:
    x, *rest = operation.arguments
    options = operation.options
    if rest or not x.shape or options.keys() - {"axis", "dtype", "keepdims"}:
        return None
    axis, keepdims = options.get("axis"), options.get("keepdims", False)
    reduce = source.constant(_REDUCTIONS[operation.name], operation.name)
    dtype = source.constant(operation.result.dtype, str(operation.result.dtype))
    arguments = source.items(x, tuple(axis) if isinstance(axis, list) else axis)
    return Step(operation, [f"{reduce}({arguments}, {dtype}, {source.items(operation.result, keepdims)})"])


@lowering("matmul")
def _matmul(source: Source, operation: Operation) -> Step | None:
    x1, x2 = operation.arguments
    matrices = len(x1.shape) == len(x2.shape) == 2 and x1.dtype == x2.dtype
    # `dot` of two matrices calls BLAS as `matmul` does, half a microsecond sooner.
    function = numpy.dot if matrices else numpy.matmul
    name = source.constant(function, function.__name__)
    return Step(operation, [f"{name}({source.items(x1, x2, operation.result)})"])


def _as_array(x: Any, dtype: Any) -> Any:
    return numpy.asarray(x).astype(dtype) if isinstance(x, bool | int | float | complex) else x


_BITS = {4: numpy.dtype(numpy.int32), 8: numpy.dtype(numpy.int64)}


@lowering("where")
def _where(source: Source, operation: Operation) -> Step | None:
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
        return _where_by_copies(source, operation, x1, x2)
    number = source.constant(bits, str(bits))
    result = f"{source.text(operation.result)}.view({number})"
    first, second = (
        f"{source.text(x)}.view({number})" if type(x) is Variable else source.constant(x.view(bits))
        for x in (x1, x2)
    )
    multiply = source.constant(numpy.multiply, "multiply")
    in_place = (x1,) if type(x1) is Variable and x1 is not x2 else ()
    if type(x2) is not Variable and not x2.view(bits).any():
        return Step(operation, [f"{multiply}({first}, {source.text(condition)}, out={result})"], in_place)
    xor = source.constant(numpy.bitwise_xor, "bitwise_xor")
    lines = [
        f"{xor}({first}, {second}, out={result})",
        f"{multiply}({result}, {source.text(condition)}, out={result})",
        f"{xor}({result}, {second}, out={result})",
    ]
    return Step(operation, lines, in_place)


def _where_by_copies(source: Source, operation: Operation, x1: Any, x2: Any) -> Step:
    copy = source.constant(numpy.copyto, "copyto")
    result = source.text(operation.result)
    in_place = (x2,) if type(x2) is Variable and x2 is not x1 else ()
    return Step(
        operation,
        [
            f"{copy}({result}, {source.text(x2)})",
            f"{copy}({result}, {source.items(x1)}, where={source.text(operation.arguments[0])})",
        ],
        in_place=in_place,
        copied=x2 if in_place else None,
    )


@lowering("astype")
def _astype(source: Source, operation: Operation) -> Step:
    copy = source.constant(numpy.copyto, "copyto")
    result, x = operation.result, operation.arguments[0]
    return Step(operation, [f'{copy}({source.items(result, x)}, casting="unsafe")'])


@lowering("concat", "stack")
def _concat(source: Source, operation: Operation) -> Step | None:
    arrays, *rest = operation.arguments
    axis = operation.options.get("axis", 0)
    if rest or axis is None:
        return None
    name = {"concat": "concatenate", "stack": "stack"}[operation.name]
    function = source.constant(getattr(numpy, name), name)
    return Step(operation, [f"{function}({source.items(list(arrays), axis, operation.result)})"])


@lowering("setitem")
def _setitem(source: Source, operation: Operation) -> Step:
    x, key, values = operation.arguments
    copy = source.constant(numpy.copyto, "copyto")
    result = operation.result
    lines = [
        f"{copy}({source.items(result, x)})",
        f"{source.text(result)}[{source.text(key)}] = {source.text(values)}",
    ]
    inputs = operation.inputs
    in_place = (x,) if type(x) is Variable and inputs.count(x) == 1 else ()
    return Step(operation, lines, in_place=in_place, copied=x if in_place else None)


@lowering("scatter_add")
def _scatter_add(source: Source, operation: Operation) -> Step:
    values, key, _shape = operation.arguments
    result = source.text(operation.result)
    repeats = may_repeat(numpy, substitute(key, lambda v: numpy.empty(v.shape, v.dtype)))
    line = f"{result}[{source.text(key)}] = {source.text(values)}"
    if repeats:
        line = f"{source.constant(numpy.add.at, 'add_at')}({result}, {source.items(key, values)})"
    return Step(operation, [f"{result}[...] = 0", line])


@lowering("add_windows")
def _add_windows(source: Source, operation: Operation) -> Step:
    if numba.numba_is_there() and operation.result.dtype.name in ("float32", "float64"):
        name = source.constant(numba.compiled(python.add_windows(operation)), "add_windows")
        return Step(operation, [f"{name}({source.items(*operation.arguments, operation.result)})"])
    options = "".join(f", {key}={source.text(value)}" for key, value in operation.options.items())
    name = source.constant(operation.function, "add_windows")
    arguments = source.text(operation.arguments[0])
    return Step(operation, [f"{name}({arguments}{options}, out={source.text(operation.result)})"])


@lowering("getitem")
def _getitem(source: Source, operation: Operation) -> Step:
    x, key = operation.arguments
    return Step(operation, [f"{source.text(operation.result)}[...] = {source.text(x)}[{source.text(key)}]"])


@lowering("reshape")
def _reshape(source: Source, operation: Operation) -> Step:
    x, *_ = operation.arguments
    result = source.text(operation.result)
    return Step(operation, [f"{result}.reshape({x.shape})[...] = {source.text(x)}"])


@lowering("mean")
def _mean(source: Source, operation: Operation) -> Step | None:
    x, *rest = operation.arguments
    axis, keepdims = operation.options.get("axis"), operation.options.get("keepdims", False)
    if rest or not x.shape or x.dtype.name not in ("float32", "float64"):
        return None
    add, divide = source.constant(numpy.add.reduce, "add_reduce"), source.constant(numpy.divide, "divide")
    result = operation.result
    axis = tuple(axis) if isinstance(axis, list) else axis
    # An array, as a Python number would be converted each time.
    number = numpy.asarray(x.size // max(result.size, 1), x.dtype)
    lines = [
        f"{add}({source.items(x, axis, None, result, keepdims)})",
        f"{divide}({source.items(result, number, result)})",
    ]
    return Step(operation, lines)


@lowering("take_along_axis")
def _take_along_axis(source: Source, operation: Operation) -> Step | None:
    x, indices, *rest = operation.arguments
    axis = (*rest, operation.options.get("axis", -1))[0] % len(x.shape)
    if any(x.shape[a] != indices.shape[a] for a in range(len(x.shape)) if a != axis):
        return None  # they are broadcast
    grid = list(numpy.ogrid[tuple(slice(size) for size in operation.result.shape)])
    key = tuple(indices if a == axis else each for a, each in enumerate(grid))
    return Step(operation, [f"{source.text(operation.result)}[...] = {source.text(x)}[{source.text(key)}]"])


def view(source: Source, operation: Operation) -> Step:
    """Write a view by the attribute or method that makes it soonest."""
    x, result = map(source.text, (operation.inputs[0], operation.result))
    made = {
        "matrix_transpose": f"{x}.mT",
        "reshape": f"{x}.reshape({operation.result.shape})",
        "asarray": x,  # that it is a view says that there is nothing to change
        "astype": x,
    }.get(operation.name.removeprefix("linalg."))
    return Step(operation, [f"{result} = {made}"]) if made else call(source, operation)
