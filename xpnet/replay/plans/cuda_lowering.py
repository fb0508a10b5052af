"""A graph in terms of what kernels and products on CUDA know, so that all of it can be captured.

CuPy's own products go to cuBLAS, which cannot be, and its functions allocate memory.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy

from xpnet import tree
from xpnet.replay.decompositions import DECOMPOSITIONS
from xpnet.replay.functions import BROADCASTING, IN_ORDER, REDUCTIONS
from xpnet.replay.graph import Graph, Instead, Operation, Variable
from xpnet.replay.kernels.kernel import pattern
from xpnet.replay.plans.cuda_products import Matrix, as_matrices, is_product, operand_shapes
from xpnet.replay.rewrite import expand


def with_constants_handed_in(graph: Graph) -> tuple[Graph, list]:
    """Return a graph in which constant arrays are arguments behind all others, and these arrays.

    Kernels and products then read them as any other.
    """
    arrays: dict[int, tuple[Variable, Any]] = {}

    def as_argument(x: Any) -> Any:
        if not tree.is_array(x) or not x.shape:
            return x
        return arrays.setdefault(id(x), (Variable(tuple(x.shape), x.dtype), x))[0]

    operations = [
        replace(each, arguments=tuple(map(as_argument, each.arguments))) for each in graph.operations
    ]
    variables = [x for x, _ in arrays.values()]
    result = Graph([*graph.inputs, *variables], operations, graph.outputs, graph.recorded)
    return result, [array for _, array in arrays.values()]


# -- whatever the axes and shapes are -----------------------------------------------------------------------


def lowered(graph: Graph, xp: Any, device: Any) -> Graph:
    """Return a graph of functions that kernels and products know.

    A `tensordot` is a product of matrices, and a `vecdot` a sum of products. What is neither a row nor a
    column of a result is repeated, as a view, to all of it; axes of a total that stand between others are put
    beside each other; what is unstacked is views.

    Parameters
    ----------
    graph : Graph
    xp : namespace
        The library's own.
    device : device
        Where the arrays are.
    """
    made: dict[str, Callable] = {
        "tensordot": _tensordot,
        "unstack": DECOMPOSITIONS["unstack"],
        "vecdot": _vecdot,
    }
    shaped = {name: _with_axes_beside_each_other(name) for name in REDUCTIONS}
    shaped |= {name: _with_operands_repeated(name) for name in BROADCASTING}
    return expand(expand(graph, made, xp, device), shaped | {"getitem": _as_view}, xp, device)


def _is_real(x: Any) -> bool:
    return tree.is_array(x) and x.dtype.name in ("float32", "float64")


def _tensordot(xp: Any, x: Any, y: Any, *, axes: Any = 2) -> Any:
    if not (_is_real(x) and _is_real(y)):
        return NotImplemented
    of_x, of_y = (range(-axes, 0), range(axes)) if isinstance(axes, int) else axes
    inner = [axis % x.ndim for axis in of_x], [axis % y.ndim for axis in of_y]
    rows = [axis for axis in range(x.ndim) if axis not in inner[0]]
    columns = [axis for axis in range(y.ndim) if axis not in inner[1]]
    length = prod(x.shape[axis] for axis in inner[0])
    shape = *(x.shape[axis] for axis in rows), *(y.shape[axis] for axis in columns)
    first = xp.reshape(xp.permute_dims(x, (*rows, *inner[0])), (prod(shape[: len(rows)]), length))
    second = xp.reshape(xp.permute_dims(y, (*inner[1], *columns)), (length, prod(shape[len(rows) :])))
    return xp.reshape(xp.matmul(first, second), shape)


def _vecdot(xp: Any, x: Any, y: Any, **options: Any) -> Any:
    of_reals = _is_real(x) and _is_real(y)  # kernels have no totals of others
    return DECOMPOSITIONS["vecdot"](xp, x, y, **options) if of_reals else NotImplemented


def _as_view(_xp: Any, x: Any, key: Any) -> Any:
    """Let a single element be a view, as it is with CuPy, and with NumPy behind an ellipsis."""
    key = key if type(key) is tuple else (key,)
    return NotImplemented if any(k is ... for k in key) else x[(*key, ...)]


def _with_axes_beside_each_other(name: str) -> Callable:
    def total(xp: Any, x: Any, *rest: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        if rest or axis is None or not _is_real(x) or options.keys() - {"dtype"}:
            return NotImplemented
        axes = sorted(a % x.ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))
        kept = [a for a in range(x.ndim) if a not in axes]
        first, last = tuple(range(len(axes))), tuple(range(len(kept), x.ndim))
        if tuple(axes) in (first, last):
            return NotImplemented
        # Where the last axis stays, threads beside each other read numbers beside each other.
        order, axis = ((*axes, *kept), first) if kept[-1] == x.ndim - 1 else ((*kept, *axes), last)
        result = getattr(xp, name)(xp.permute_dims(x, order), axis=axis, **options)
        lengths = [1 if a in axes else length for a, length in enumerate(x.shape) if keepdims or a in kept]
        return xp.reshape(result, tuple(lengths))

    return total


def _with_operands_repeated(name: str) -> Callable:
    def elementwise(xp: Any, *arguments: Any, **options: Any) -> Any:
        shape = numpy.broadcast_shapes(*(x.shape for x in arguments if tree.is_array(x)))
        whole, rows = [], 0
        for x in arguments:
            found = pattern(x.shape, shape) if tree.is_array(x) else ("", 0)
            if found is None or found[1] not in (0, rows or found[1]):  # rows of one kernel are of one length
                x = xp.broadcast_to(x, shape)
            else:
                rows = rows or found[1]
            whole.append(x)
        if all(x is y for x, y in zip(whole, arguments, strict=True)):
            return NotImplemented
        return getattr(xp, name)(*whole, **options)

    return elementwise


# -- whatever lies where in memory --------------------------------------------------------------------------


def with_copies(graph: Graph, xp: Any, layout: Callable[[Variable], numpy.ndarray]) -> Graph:
    """Return a graph in which what must be in order is copied, by kernels.

    That are operands of products that are no matrices equally far apart, and what `reshape` cannot make a
    view of. ``layout`` returns an array that lies in memory as a variable does.
    """
    copies: dict[tuple[Variable, tuple[int, ...]], Variable] = {}

    def change(operation: Operation) -> Instead | None:
        new: list[Operation] = []

        def in_order(x: Variable, shape: tuple[int, ...]) -> Variable:
            if (x, shape) not in copies:
                new.extend(_copied(x, shape, xp))
                copies[x, shape] = new[-1].result
            return copies[x, shape]

        if is_product(operation):
            shapes = operand_shapes(*(x.shape for x in operation.arguments))
            arguments = tuple(
                x if Matrix.of(as_matrices(layout(x), shape)) else in_order(x, shape)
                for x, shape in zip(operation.arguments, shapes, strict=True)
            )
            return [*new, replace(operation, arguments=arguments)], operation.results
        if operation.name == "reshape":
            x, y = operation.arguments[0], operation.result
            if x.size and not numpy.may_share_memory(layout(x), layout(y)):
                copied = in_order(x, x.shape)
                return [*new, replace(operation, arguments=(copied, y.shape), options={})], [y]
        return None

    return graph.rewritten(change)


def _copied(x: Variable, shape: tuple[int, ...], xp: Any) -> list[Operation]:
    """Return what copies an array as it is repeated to a shape: see `as_matrices`."""
    operations: list[Operation] = []

    def add(
        name: str, function: Callable, *arguments: Any, shape: tuple[int, ...], **options: Any
    ) -> Variable:
        result = Variable(shape, x.dtype)
        operations.append(Operation(name, function, arguments, options, (result,)))
        return result

    y = x
    if len(x.shape) == 1 and len(shape) > 1 and shape[-1] == 1:
        y = add("expand_dims", xp.expand_dims, y, shape=(*x.shape, 1), axis=1)
    if y.shape != shape:
        y = add("broadcast_to", xp.broadcast_to, y, shape, shape=shape)
    add(IN_ORDER, _copy, y, shape=shape)
    return operations


def _copy(x: Any) -> Any:
    return x.copy()
