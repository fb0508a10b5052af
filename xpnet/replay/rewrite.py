"""Rewrites of a graph that hold for every library: what is done once or not at all, rounding, and functions
in terms of others.

- `simplified` drops operations that lead to no output (dead code), does equal ones once (common
  subexpressions), and leaves broadcasting to elementwise functions;
- `expand` and `converted` put plain array code in the place of functions;
- `in_precision` rounds the operands of matrix products.
"""

import functools
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

import numpy

from xpnet.replay.functions import BETWEEN_PROCESSES, BROADCASTING, PRODUCTS, REARRANGEMENTS, VIEWS
from xpnet.replay.graph import Graph, Instead, Operation, Variable, substitute, variables_in
from xpnet.replay.precision import rounded
from xpnet.replay.record import Recorded, RecordingNamespace, output
from xpnet.replay.same.data import data


def simplified(graph: Graph) -> Graph:
    """Return a graph that does the same with fewer operations."""
    return without_dead(_broadcast_late(_without_repeats(graph)))


def without_dead(graph: Graph) -> Graph:
    """Leave out what leads to no output, but for what other processes wait for."""
    needed = set(variables_in(graph.outputs))
    dead = []
    for operation in reversed(graph.operations):
        if needed.isdisjoint(operation.results) and operation.name not in BETWEEN_PROCESSES:
            dead.append(operation)
        else:
            needed.update(operation.inputs)
    return graph.replace(dict.fromkeys(dead, ()))


def _without_repeats(graph: Graph) -> Graph:
    """Do once what was recorded several times with the same arguments.

    Arrays whose memory the caller gets, themselves or by a view, stay two, as one of them may be written to.
    Of two equal views of one array, one is enough. What processes do together is done as often as on each of
    them: on others, it may not be equal.
    """
    visible = set(graph.returned)
    for operation in reversed(graph.operations):
        if _may_be_view(operation) and not visible.isdisjoint(operation.results):
            visible.update(operation.inputs)
    first: dict[Any, Operation] = {}

    def change(operation: Operation) -> Instead | None:
        if operation.name in BETWEEN_PROCESSES:
            return None
        key = operation.name, data((operation.arguments, operation.options), _identity)
        before = first.setdefault(key, operation)
        if before is operation:
            return None
        both_visible = not (visible.isdisjoint(before.results) or visible.isdisjoint(operation.results))
        return None if both_visible and not _may_be_view(operation) else ((), before.results)

    return graph.rewritten(change)


def _may_be_view(operation: Operation) -> bool:
    return operation.shares or operation.name in VIEWS


def _identity(value: Any) -> Any:
    return type(value), id(value)


def _broadcast_late(graph: Graph) -> Graph:
    """Let elementwise functions broadcast their arguments, in place of functions before them."""

    def before_broadcast(x: Any) -> Any:
        """Return what was broadcast to make an array; of a constant with equal elements, one of them."""
        if isinstance(x, numpy.ndarray) and x.size > 1:
            one = x.reshape(-1)[:1]
            return one.reshape(()) if _all_are(x, one) else x
        maker = graph.makers.get(x) if type(x) is Variable else None
        if maker is None or maker.name != "broadcast_to" or type(maker.arguments[0]) is not Variable:
            return x
        return before_broadcast(maker.arguments[0])

    def change(operation: Operation) -> Instead | None:
        if operation.name not in BROADCASTING:
            return None
        small = tuple(map(before_broadcast, operation.arguments))
        shapes = [x.shape for x in small if hasattr(x, "shape")]
        is_same = all(a is b for a, b in zip(small, operation.arguments, strict=True))
        if is_same or numpy.broadcast_shapes(*shapes) != operation.result.shape:
            return None
        return [replace(operation, arguments=small)], operation.results

    return graph.rewritten(change)


def _all_are(x: numpy.ndarray, one: numpy.ndarray) -> bool:
    """Say whether all elements are the same, bit for bit: -0.0 is not 0.0, and NaN is NaN."""
    return x.tobytes() == one.tobytes() * x.size


def expand(graph: Graph, decompositions: Mapping[str, Callable], xp: Any, device: Any) -> Graph:
    """Put plain array code in the place of functions.

    Parameters
    ----------
    graph : Graph
    decompositions : mapping of str to callable
        For the name of a function, ``f(xp, *arguments, **options)``: the same in terms of other functions, as
        ``{"hypot": lambda xp, a, b: xp.sqrt(a * a + b * b)}``. It returns NotImplemented where the function
        is to stay. It sees shapes and dtypes: what the values are is not known.
    xp : namespace
        The library's own.
    device : device
        Where the arrays are.
    """
    namespace = _ExpandingNamespace(xp, decompositions)

    def recorded(x: Variable) -> Recorded:
        zero = xp.zeros((), dtype=x.dtype, device=device)
        return Recorded(xp.broadcast_to(zero, x.shape), x, namespace)

    def change(operation: Operation) -> Instead | None:
        decompose = decompositions.get(operation.short_name)
        if decompose is None:
            return None
        namespace.operations.clear()
        arguments, options = substitute((operation.arguments, operation.options), recorded)
        with numpy.errstate(all="ignore"):  # the values are zeros
            made = namespace.record(decompose, namespace, *arguments, **options)
        if made is NotImplemented:
            return None
        made = [
            x if x.dtype == y.dtype else namespace.astype(x, y.dtype)
            for x, y in zip(made if operation.several else [made], operation.results, strict=True)
        ]
        operations = [
            replace(
                each,
                layer=operation.layer,
                called=operation.called,
                precision=operation.precision if each.name in PRODUCTS else each.precision,
            )
            for each in namespace.operations
        ]
        return operations, [output(x) for x in made]

    return graph.rewritten(change)


class _ExpandingNamespace(RecordingNamespace):
    """A recording namespace that records plain array code for functions, also inside such code."""

    def __init__(self, xp: Any, decompositions: Mapping[str, Callable]) -> None:
        super().__init__(xp)
        self._decompositions = decompositions

    def call(self, name: str, function: Any, arguments: tuple, options: dict) -> Any:
        decompose = self._decompositions.get(name.removeprefix("linalg."))
        made = decompose(self, *arguments, **options) if decompose else NotImplemented
        return super().call(name, function, arguments, options) if made is NotImplemented else made


def converted(graph: Graph, names: Container[str], xp: Any) -> Graph:
    """Convert all arguments of the functions of some names to the dtype of the result."""

    def change(operation: Operation) -> Instead | None:
        if operation.short_name not in names:
            return None
        dtype, new = operation.result.dtype, list[Operation]()

        def convert(x: Any) -> Any:
            if type(x) is not Variable or x.dtype == dtype:
                return x if type(x) is Variable else xp.asarray(x, dtype=dtype)
            y = Variable(x.shape, dtype)
            new.append(
                replace(
                    operation,
                    name="astype",
                    function=xp.astype,
                    arguments=(x, dtype),
                    options={},
                    results=(y,),
                )
            )
            return y

        arguments = tuple(map(convert, operation.arguments))
        return [*new, replace(operation, arguments=arguments)], operation.results

    return graph.rewritten(change)


def in_precision(graph: Graph, precision: str, xp: Any, device: Any, *, by_plan: bool) -> Graph:
    """Give the products of a graph operands of another precision.

    Each product of float32 arrays has the precision as its attribute then, and its operands are results of
    operations named ``rounded``, or views of such. An array that several products read is rounded once.

    Parameters
    ----------
    graph : Graph
    precision : str
    xp : namespace
        The library's own.
    device : device
        Where the arrays are.
    by_plan : bool
        Whether these operations stay for the plan to do, or are put in as functions of the standard.
    """
    known: dict[Variable, Variable] = {}

    def of(x: Any, operations: list[Operation]) -> Any:
        """Return what stands for an operand: a view of what is rounded, for a view."""
        if type(x) is not Variable:
            return rounded(xp, x, precision=precision)
        if x not in known:
            maker, result = graph.makers.get(x), Variable(x.shape, x.dtype)
            base = _rearranged(maker) if maker else None
            if maker and base:
                new = replace(maker.reading({base: of(base, operations)}), results=(result,))
            else:
                function = functools.partial(rounded, xp)
                new = Operation("rounded", function, (x,), {"precision": precision}, (result,))
            known[x] = result
            operations.append(new)
        return known[x]

    def change(operation: Operation) -> Instead | None:
        if operation.name == "scan_arrays":
            body = operation.options["body"].in_precision(precision)
            return [replace(operation, options=operation.options | {"body": body})], operation.results
        if operation.name not in PRODUCTS or any(x.dtype != xp.float32 for x in operation.arguments):
            return None
        new: list[Operation] = []
        operands = tuple(of(x, new) for x in operation.arguments)
        return [*new, replace(operation, arguments=operands, precision=precision)], operation.results

    lowered = without_dead(graph.rewritten(change))
    return lowered if by_plan else expand(lowered, {"rounded": rounded}, xp, device)


def _rearranged(operation: Operation) -> Variable | None:
    """Return the array whose elements a result has, if none of them is left out."""
    base = operation.base
    has_all = operation.name in REARRANGEMENTS and base is not None and base.size <= operation.result.size
    return base if has_all else None
