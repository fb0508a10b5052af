"""A plan for NumPy: functions and loops that write into memory laid out beforehand.

What `cpu_steps.py` does not know is called as it was recorded, and gives an array of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import NoneType
from typing import Any

import numpy

from xpnet.autodiff.scatter import is_basic
from xpnet.replay.functions import VIEWS, row_of
from xpnet.replay.graph import Graph, Instead, Operation, Variable
from xpnet.replay.kernels import python
from xpnet.replay.kernels.kernel import Kernel
from xpnet.replay.kernels.python import PythonSource
from xpnet.replay.plans import copies, numba, products
from xpnet.replay.plans.copies import Indices
from xpnet.replay.plans.cpu_runtime import Cpu
from xpnet.replay.plans.cpu_steps import LOWERINGS, elementwise, view
from xpnet.replay.plans.plan import MemoryPlan, Over, Variables
from xpnet.replay.plans.products import Operand
from xpnet.replay.plans.step import (
    ADD,
    ADD_WINDOWS,
    CALL,
    COPY,
    KERNEL,
    PRODUCT,
    Call,
    Flat,
    Item,
    Member,
    Step,
)
from xpnet.replay.plans.table import Row, Stretch, Where, objects_are_readable, of_arguments

# From how many elements on a loop is shared among the cores. BLAS keeps its threads busy for some time after
# a product, so that other threads gain nothing before.
PARALLEL = 8_388_608

# What the memory of an array is NumPy's by; memory of others may be seen by arrays that do not say so.
_OF_NUMPY = {NoneType, numpy.ndarray}


def _copied(*arrays: numpy.ndarray) -> list[numpy.ndarray]:
    return [x.copy() for x in arrays]


def _with_constants(graph: Graph) -> tuple[Graph, dict[Variable, numpy.ndarray]]:
    """Let functions of elements read constant arrays as variables, so that kernels are handed them."""
    found: dict[int, tuple[Variable, numpy.ndarray]] = {}

    def named(x: Any) -> Any:
        if not isinstance(x, numpy.ndarray) or not x.shape:
            return x
        if id(x) not in found:
            found[id(x)] = Variable(x.shape, x.dtype), numpy.require(x, requirements=["C", "ALIGNED"])
        return found[id(x)][0]

    def change(operation: Operation) -> Instead | None:
        if len(operation.inputs) == len(operation.arguments) or not row_of(operation.name).python:
            return None
        arguments = tuple(map(named, operation.arguments))
        return [replace(operation, arguments=arguments)], operation.results

    rewritten = graph.rewritten(change)
    return (rewritten if found else graph), dict(found.values())


def _without_indices(x: Any) -> tuple[Any, list[tuple[Any, int]]]:
    """Return something with all elements along an axis in place of those by indices, and these with the axis.

    An axis behind an ellipsis is counted from the end. What has no indices, or several, stays as it is.
    """
    key = x.key if type(x) is Item else ()
    keys = key if type(key) is tuple else (key,)
    arrays = [number for number, key in enumerate(keys) if getattr(key, "shape", ())]
    others = [key for key in keys if not getattr(key, "shape", ())]
    if len(arrays) != 1 or not all(key is None or key is ... or type(key) is slice for key in others):
        return x, []
    (number,) = arrays
    axis = number - len(keys) if ... in keys[:number] else number
    return Item(x.array, (*keys[:number], slice(None), *keys[number + 1 :])), [(keys[number], axis)]


class CpuPlan(MemoryPlan):
    """A plan that computes into memory of NumPy's."""

    _runtime = Cpu()

    def _build(self, over: list[Variable | None]) -> None:
        self._target = python.TARGET if numba.numba_is_there() and objects_are_readable() else None
        self._stretches: list[Stretch] = []
        recorded = self.graph
        self.graph, self._constants = _with_constants(recorded)
        super()._build(over)
        self.graph = recorded
        self._arguments = of_arguments(len(self.graph.inputs), self._written)
        self._arguments_at = self._arguments.ctypes.data

    def _lower(self, operation: Operation) -> Step:
        prototypes = self._prototypes
        may_share = operation.shares or operation.name in VIEWS
        if may_share and prototypes.add_views(operation, operation.function):
            return view(operation)
        step = LOWERINGS.get(operation.name, elementwise)(operation)
        for x in operation.results:
            prototypes.add(x)
        if step is not None:
            return step
        prototypes.made_by_calls.update(operation.results)
        calls = [Call.of(operation)]
        if operation.shares:  # of several arguments, say: what is not a view of one is a copy of its own
            results = operation.results
            calls.append(Call(CALL, _copied, results, "copied", results=results, several=True))
        return Step.of(operation, *calls)

    def _kernel(self, kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
        parallel = kernel.size >= PARALLEL and not kernel.has_totals
        loop = PythonSource(kernel, results, over, parallel=parallel)
        sizes = [kernel.size, *([kernel.columns] if kernel.columns else [])]
        if parallel:
            return numba.on_all_cores(loop.source), [*map(Flat, arrays), *loop.numbers, *sizes]
        return numba.native(loop.source), [*arrays, *loop.numbers, *sizes]

    def _rows(self, step: Step, call: Call) -> Sequence[Row]:
        if self._target is None:
            return ()
        if call.kind == PRODUCT:
            library = products.library()
            operands = [x for x in map(self._operand, call.arguments) if x is not None]
            if isinstance(library, str) or len(operands) < len(call.arguments):
                return ()
            if call.function is numpy.vecdot:
                operands = [*products.as_matrices(*operands)]
            return products.rows(library, *operands)
        if call.kind == COPY and call.options.keys() <= {"casting"}:
            target, value = call.arguments
            return self._copy(target, value, call.name)
        if call.kind == ADD:
            target, key, value = call.arguments
            return self._copy(Item(target, key), value, call.name, adds=True)
        if call.kind == ADD_WINDOWS:
            target, windows = self._operand(call.options["out"]), self._operand(call.arguments[0])
            if target is None or windows is None:
                return ()
            return copies.rows_of_windows(target, windows, call.options["strides"], call.options["dilations"])
        if call.kind == KERNEL and step.kernel and hasattr(call.function, "address"):
            size, columns = step.kernel.size, step.kernel.columns
            problem = f"the indices of take_along_axis must be smaller than the axis is long, {columns}"
            return [Row(call.function, [*call.arguments, 0], size * len(step.kernel.parts), problem)]
        return ()

    def _copy(self, target: Any, value: Any, name: str, *, adds: bool = False) -> Sequence[Row]:
        """Return what native code does in place of a copy, or of adding to what is there."""
        (target, of_target), (value, of_value) = _without_indices(target), _without_indices(value)
        place = self._operand(target)
        if place is not None and isinstance(value, bool | int | float | numpy.generic):
            value = numpy.full((), value, place.dtype)
        given = self._operand(value)
        if place is None or given is None or (of_target and of_value):
            return ()
        indices = None
        for array, axis in (*of_target, *of_value):
            found = self._operand(array)
            if found is None:
                return ()
            indices = Indices(found, axis, bool(of_target), name)
        return copies.rows(place, given, indices, adds=adds)

    def _operand(self, x: Any) -> Operand | None:
        """Return where what a call names is; None if only a call shows that."""
        base, whole, seen = self._seen(x)
        if seen is None:
            return None
        offset = seen.ctypes.data - whole.ctypes.data
        begins = self._where(base) if type(base) is Variable else id(base)
        return Operand(base, (begins, offset), seen.shape, seen.strides, seen.dtype, offset)

    def _seen(self, x: Any) -> tuple[Any, Any, numpy.ndarray | None]:
        """Return which variable or constant something is a part of, an array like it, and that part of this.

        The part is None where only a call shows it.
        """
        prototypes = self._prototypes
        match x:
            case Variable() if prototypes.root[x] not in prototypes.made_by_calls:
                return x, prototypes[x], prototypes[x]
            case numpy.ndarray() if x.flags.aligned:
                return x, x, x
            case Item(array, key) if is_basic(keys := key if type(key) is tuple else (key,)):
                base, like, seen = self._seen(array)
                # With an ellipsis, one element is an array, too.
                part = None if seen is None else seen[keys if ... in keys else (*keys, ...)]
            case Member(array, name, arguments):
                base, like, seen = self._seen(array)
                part = getattr(seen, name, None)
                part = part if part is None or arguments is None else part(*arguments)
            case _:
                return None, None, None
        shares = isinstance(part, numpy.ndarray) and numpy.may_share_memory(part, like)
        return base, like, part if shares else None

    def _run(self, rows: Sequence[Row]) -> list[str]:
        if not rows:
            return []
        stretch = Stretch(rows, self._where)
        self._stretches.append(stretch)
        number = len(self._stretches)
        function = self._text.constant(
            getattr(numba.driver(), "run" if stretch.is_short else "run_long"), "run"
        )
        arrays = "".join(f"{name}, " for name in stretch.arrays)
        return [f"if {function}(address_{number}, ({arrays})): raise steps_{number}.error()"]

    def _where(self, x: Variable) -> Where:
        root, offset = self._prototypes.root[x], self._prototypes.offset(x)
        if root in self.buffers:
            return Where(None, self.buffers[root][0] + offset)
        return Where(self._text.text(root), offset)

    def _bound(self, memory: numpy.ndarray) -> dict[str, Any]:
        tables = [stretch.bind(memory) for stretch in self._stretches]
        names: dict[str, Any] = {f"steps_{number}": table for number, table in enumerate(tables, start=1)}
        names |= {f"address_{number}": table.address for number, table in enumerate(tables, start=1)}
        return names | {self._text.text(x): array for x, array in self._constants.items()}

    def _names(self) -> dict[Variable, str]:
        return super()._names() | {x: f"array_{x.number}" for x in self._constants}

    def _prepared(self, inputs: list, keep: bool) -> list:
        usual = self._target and not keep and not numba.driver().is_unusual(self._arguments_at, inputs)
        return inputs if usual else super()._prepared(inputs, keep)

    def _must_copy(self, inputs: list[numpy.ndarray]) -> list[int]:
        bases = [x.base for x in inputs]
        parts = set(map(id, bases))
        twice = len(set(map(id, inputs))) < len(inputs)
        foreign = not _OF_NUMPY.issuperset(map(type, bases))
        return [
            index
            for index in self._written
            if twice
            or bases[index] is not None
            or id(x := inputs[index]) in parts
            or not x.flags.writeable
            or (foreign and any(numpy.may_share_memory(x, y) for y in inputs if y is not x))
        ]

    def _output(self, x: Any, again: bool) -> Any:
        if type(x) is not Variable or (again and x.shape):
            # The caller may write to a constant, or donate it; and what a function makes twice is two arrays.
            return Member(x, "copy", ())
        # A number is read from its buffer.
        return x if x.shape or not self._layout.is_in_buffer(x) else Item(x, ())
