"""Functions in terms of others, so that kernels and products can do them, which are captured as a graph."""

import copy
import operator
from collections.abc import Callable
from math import prod
from typing import Any

import numpy

from xpnet import tree
from xpnet.replay.functions import BROADCASTING, COPY, REDUCTIONS
from xpnet.replay.graph import Graph, Operation, Variable, made
from xpnet.replay.kernels.kernel import pattern
from xpnet.replay.plans.cuda_products import Matrix, as_matrices, is_product, operand_shapes


def with_constants_handed_in(graph: Graph) -> tuple[Graph, list]:
    """Return a graph in which constant arrays are arguments behind all others, and these arrays.

    Kernels and products then read them as any other.
    """
    result = copy.copy(graph)
    result.operations = []
    arrays: dict[int, tuple[Variable, Any]] = {}

    def as_argument(x: Any) -> Any:
        if not tree.is_array(x) or not x.shape:
            return x
        return arrays.setdefault(id(x), (Variable(tuple(x.shape), x.dtype), x))[0]

    for operation in graph.operations:
        arguments = list(map(as_argument, operation.arguments))
        result.operations.append(_with_arguments(operation, arguments))
    result.inputs = [*graph.inputs, *(x for x, _ in arrays.values())]
    return result, [array for _, array in arrays.values()]


def _with_arguments(operation: Operation, arguments: list) -> Operation:
    """Return an operation with other arguments; what was recorded stays as it is."""
    new = Operation(
        operation.name, operation.function, tuple(arguments), operation.options, operation.several
    )
    new.results, new.precision = operation.results, operation.precision
    return new


# -- whatever the axes and shapes are -----------------------------------------------------------------------


def lowered(graph: Graph, xp: Any) -> Graph:
    """Return a graph of functions that kernels and products know.

    A `tensordot` is a product of matrices, and a `vecdot` a sum of products: CuPy's own go to cuBLAS, which
    cannot be captured. What is neither a row nor a column of a result is repeated, as a view, to all of it;
    axes of a total that stand between others are put beside each other; what is unstacked is views. ``xp`` is
    the namespace of the functions.
    """
    lower = {"getitem": _getitem, "tensordot": _tensordot, "unstack": _unstack, "vecdot": _vecdot}
    lower |= dict.fromkeys(REDUCTIONS, _reduction) | dict.fromkeys(BROADCASTING, _elementwise)
    result = copy.copy(graph)
    result.operations = []
    for operation in graph.operations:
        lower_one = lower.get(operation.name.removeprefix("linalg."))
        result.operations += lower_one(operation, xp) if lower_one else [operation]
    result.number()
    return result


def _is_real(x: Any) -> bool:
    return type(x) is Variable and x.dtype.name in ("float32", "float64")


def _elementwise(operation: Operation, xp: Any) -> list[Operation]:
    shape, repeated, arguments, rows = operation.result.shape, [], [], 0
    for x in operation.arguments:
        found = pattern(x.shape, shape) if type(x) is Variable else ("", 0)
        if found is None or found[1] not in (0, rows or found[1]):  # rows of one kernel are of one length
            whole = Variable(shape, x.dtype)
            repeated.append(made("broadcast_to", xp.broadcast_to, (x, shape), {}, [whole]))
            x = whole
        else:
            rows = rows or found[1]
        arguments.append(x)
    return [*repeated, _with_arguments(operation, arguments)] if repeated else [operation]


def _reduction(operation: Operation, xp: Any) -> list[Operation]:
    x, *rest = operation.arguments
    options = operation.options
    axis = options.get("axis")
    if rest or axis is None or not _is_real(x) or options.keys() - {"axis", "dtype", "keepdims"}:
        return [operation]
    ndim = len(x.shape)
    axes = sorted(a % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    kept = [a for a in range(ndim) if a not in axes]
    first, last = tuple(range(len(axes))), tuple(range(len(kept), ndim))
    if tuple(axes) in (first, last):
        return [operation]
    if kept[-1] == ndim - 1:  # threads beside each other read numbers beside each other
        order, axis = (*axes, *kept), first
    else:
        order, axis = (*kept, *axes), last
    turned = Variable(tuple(x.shape[a] for a in order), x.dtype)
    total = Variable(tuple(x.shape[a] for a in kept), operation.result.dtype)
    options = {key: value for key, value in options.items() if key == "dtype"} | {"axis": axis}
    return [
        made("permute_dims", xp.permute_dims, (x, order), {}, [turned]),
        made(operation.name, operation.function, (turned,), options, [total]),
        made("reshape", xp.reshape, (total, operation.result.shape), {}, operation.results),
    ]


def _getitem(operation: Operation, _xp: Any) -> list[Operation]:
    """Let a single element be a view, as it is with CuPy, and with NumPy behind an ellipsis."""
    x, key = operation.arguments
    key = key if type(key) is tuple else (key,)
    return [operation if any(k is ... for k in key) else _with_arguments(operation, [x, (*key, ...)])]


def _unstack(operation: Operation, _xp: Any) -> list[Operation]:
    x, *_ = operation.arguments
    before = (slice(None),) * (operation.options.get("axis", 0) % len(x.shape))
    return [
        made("getitem", operator.getitem, (x, (*before, number, ...)), {}, [part])
        for number, part in enumerate(operation.results)
    ]


def _vecdot(operation: Operation, xp: Any) -> list[Operation]:
    if not all(map(_is_real, operation.arguments)):
        return [operation]
    x, y = operation.arguments
    products = Variable(numpy.broadcast_shapes(x.shape, y.shape), operation.result.dtype)
    multiply = made("multiply", xp.multiply, (x, y), {}, [products])
    axis = operation.options.get("axis", -1)
    total = made("sum", xp.sum, (products,), {"axis": axis}, operation.results)
    return [*_elementwise(multiply, xp), *_reduction(total, xp)]


def _tensordot(operation: Operation, xp: Any) -> list[Operation]:
    if not all(map(_is_real, operation.arguments)):
        return [operation]
    both, axes = operation.arguments, operation.options.get("axes", 2)
    axes = (range(-axes, 0), range(axes)) if isinstance(axes, int) else axes
    operations, matrices = [], []
    for x, chosen, is_second in zip(both, axes, (False, True), strict=True):
        inner = [axis % len(x.shape) for axis in chosen]
        outer = [axis for axis in range(len(x.shape)) if axis not in inner]
        order = (*inner, *outer) if is_second else (*outer, *inner)
        turned = Variable(tuple(x.shape[axis] for axis in order), x.dtype)
        sizes = prod(x.shape[axis] for axis in outer), prod(x.shape[axis] for axis in inner)
        matrix = Variable(sizes[::-1] if is_second else sizes, x.dtype)
        operations += [
            made("permute_dims", xp.permute_dims, (x, order), {}, [turned]),
            made("reshape", xp.reshape, (turned, matrix.shape), {}, [matrix]),
        ]
        matrices.append(matrix)
    result = operation.result
    product = Variable((matrices[0].shape[0], matrices[1].shape[1]), result.dtype)
    multiply = made("matmul", xp.matmul, tuple(matrices), {}, [product])
    multiply.precision = operation.precision
    return [*operations, multiply, made("reshape", xp.reshape, (product, result.shape), {}, [result])]


# -- whatever lies where in memory --------------------------------------------------------------------------


def with_copies(graph: Graph, xp: Any, layout: Callable[[Variable], numpy.ndarray]) -> Graph:
    """Return a graph in which what must be in order is copied, by kernels.

    That are operands of products that are no matrices equally far apart, and what `reshape` cannot make a
    view of. ``layout`` returns an array that lies in memory as a variable does.
    """
    result = copy.copy(graph)
    result.operations = []
    copies: dict[tuple[Variable, tuple[int, ...]], Variable] = {}

    def in_order(x: Variable, shape: tuple[int, ...]) -> Variable:
        if (x, shape) not in copies:
            *views, copied = _copied(x, shape, xp)
            result.operations += [*views, copied]
            copies[x, shape] = copied.result
        return copies[x, shape]

    for operation in graph.operations:
        if is_product(operation):
            shapes = operand_shapes(*(x.shape for x in operation.arguments))
            arguments = [
                x if Matrix.of(as_matrices(layout(x), shape)) else in_order(x, shape)
                for x, shape in zip(operation.arguments, shapes, strict=True)
            ]
            operation = _with_arguments(operation, arguments)
        elif operation.name == "reshape":
            x, y = operation.arguments[0], operation.result
            if x.size and not numpy.may_share_memory(layout(x), layout(y)):
                operation = made("reshape", xp.reshape, (in_order(x, x.shape), y.shape), {}, [y])
        result.operations.append(operation)
    result.number()
    return result


def _copied(x: Variable, shape: tuple[int, ...], xp: Any) -> list[Operation]:
    """Return what copies an array as it is repeated to a shape: see `as_matrices`."""
    operations = []
    if len(x.shape) == 1 and len(shape) > 1 and shape[-1] == 1:
        column = Variable((*x.shape, 1), x.dtype)
        operations.append(made("expand_dims", xp.expand_dims, (x,), {"axis": 1}, [column]))
        x = column
    if x.shape != shape:
        whole = Variable(shape, x.dtype)
        operations.append(made("broadcast_to", xp.broadcast_to, (x, shape), {}, [whole]))
        x = whole
    return [*operations, made(COPY, _copy, (x,), {}, [Variable(shape, x.dtype)])]


def _copy(x: Any) -> Any:
    return x.copy()
