"""A plan for NumPy: functions and loops that write into memory laid out beforehand.

What `cpu_steps.py` does not know is called as it was recorded, and gives an array of its own.
"""

from types import NoneType
from typing import Any

import numpy

from xpnet.replay.functions import VIEWS
from xpnet.replay.graph import Operation, Variable
from xpnet.replay.kernels import python
from xpnet.replay.kernels.kernel import NUMBER, Kernel
from xpnet.replay.kernels.python import MOST_REDUCED, PythonSource
from xpnet.replay.plans import numba
from xpnet.replay.plans.cpu_runtime import Cpu
from xpnet.replay.plans.cpu_steps import LOWERINGS, elementwise, view
from xpnet.replay.plans.plan import MemoryPlan, Over, Variables
from xpnet.replay.plans.step import CALL, Call, Flat, Item, Member, Step

# From how many elements on a loop is shared among the cores. BLAS keeps its threads busy for some time after
# a product, so that other threads gain nothing before.
PARALLEL = 8_388_608

# What the memory of an array is NumPy's by; memory of others may be seen by arrays that do not say so.
_OF_NUMPY = {NoneType, numpy.ndarray}


def _copied(*arrays: numpy.ndarray) -> list[numpy.ndarray]:
    return [x.copy() for x in arrays]


class CpuPlan(MemoryPlan):
    """A plan that computes into memory of NumPy's."""

    _runtime = Cpu()

    def _build(self, over: list[Variable | None]) -> None:
        self._target = python.TARGET if numba.numba_is_there() else None
        super()._build(over)

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

    def _is_worth_it(self, step: Step, kernel: Kernel) -> bool:
        if python.is_elementary(kernel.parts[0].operation):
            return True
        small = kernel.size <= MOST_REDUCED or kernel.kinds[step.results[0]] == NUMBER
        return len(step.calls) > 1 or bool(kernel.views) or (kernel.has_totals and small)

    def _kernel(self, kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
        loop = PythonSource(kernel, results, over, parallel=False)
        several = kernel.size >= PARALLEL and not kernel.has_totals
        parallel = PythonSource(kernel, results, over, parallel=True).source if several else ""
        sizes = [kernel.size, *([kernel.columns] if kernel.columns else [])]
        return self._runtime.kernel(loop.source, parallel), [*map(Flat, arrays), *loop.numbers, *sizes]

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
