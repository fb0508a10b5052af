"""A plan for NumPy: functions and loops that write into memory laid out beforehand.

What `cpu_steps.py` does not know is called as it was recorded, and gives an array of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy

from xpnet.replay.functions import ELEMENTWISE, VIEWS, row_of
from xpnet.replay.graph import Graph, Instead, Operation, Variable
from xpnet.replay.kernels import python
from xpnet.replay.kernels.kernel import Kernel
from xpnet.replay.plans import cpu_kernels, numba, pool, products, rounds
from xpnet.replay.plans.check import Check, check_is_on
from xpnet.replay.plans.cpu_runtime import Cpu
from xpnet.replay.plans.cpu_steps import LOWERINGS, elementwise, view
from xpnet.replay.plans.cpu_works import Works
from xpnet.replay.plans.plan import MemoryPlan, Over, Variables
from xpnet.replay.plans.pool import Pool
from xpnet.replay.plans.rounds import Round, Work
from xpnet.replay.plans.step import CALL, Call, Item, Member, Step
from xpnet.replay.plans.table import SHORT, Stretch, Where, of_arguments
from xpnet.threads import get_threads

# With nothing to do where there are no elements.
_OF_ELEMENTS = ELEMENTWISE | VIEWS


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


def _described(each: Round) -> str:
    """Return what is done in a round, for people."""
    times = ", ".join(f"{part.nanoseconds / 1000:.0f}" for part in each.parts)
    names = ", ".join(dict.fromkeys(each.names))
    if len(each.parts) > 1:
        return f"{len(each.parts)} parts at once, of about {times} us: {names}"
    why = "is too short for several" if each.nanoseconds < 2 * rounds.SHORTEST else "cannot be divided"
    return f"1 part, of about {times} us, as it {why}: {names}"


def _pool_of(stretch: Stretch) -> Pool | None:
    """Return the threads for a stretch that is divided, or during which other threads of Python may fork."""
    is_long = stretch.nanoseconds >= SHORT and not pool.why_not()
    return pool.pool() if stretch.is_divided or is_long else None


class CpuPlan(MemoryPlan):
    """A plan that computes into memory of NumPy's."""

    _runtime = Cpu()

    def _build(self, over: list[Variable | None]) -> None:
        self._target = None if numba.why_not() else python.TARGET
        self._stretches: list[Stretch] = []
        self._rounds: list[str] = []  # what each is, for people
        recorded = self.graph
        self.graph, self._constants = _with_constants(recorded)
        super()._build(over)
        self.graph = recorded  # of which `explain` and `jit(f).cost()` tell
        if self._target:
            inputs = self.graph.inputs
            numbers = {x for x in inputs if x.shape == () and x not in self._in_python}
            self._arguments = of_arguments(inputs, {inputs[index] for index in self._written}, numbers)
            self.is_unusual = partial(numba.driver().is_unusual, self._arguments.ctypes.data)

    def _lower(self, operation: Operation) -> Step:
        prototypes = self._prototypes
        may_share = operation.shares or operation.name in VIEWS
        if may_share and prototypes.add_views(operation, operation.function):
            return view(operation)
        nothing = operation.result.size == 0 and operation.name in _OF_ELEMENTS
        lower = Step.of if nothing else LOWERINGS.get(operation.name, elementwise)
        step = lower(operation)
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
        return cpu_kernels.compiled(kernel, results, over, arrays)

    def _works(self, step: Step, call: Call) -> Sequence[Work]:
        return Works(self._prototypes, self._where).of(call, step) if self._target else ()

    def _native_lines(self, works: Sequence[Work]) -> list[str]:
        lines = []
        for found in rounds.stretches(works, together=lambda: not products.one_thread()):
            stretch = Stretch([[part.rows for part in each.parts] for each in found], self._where)
            self._stretches.append(stretch)
            run = self._text.constant(self._run(stretch), "run")
            number, arrays = len(self._stretches), "".join(f"{name}, " for name in stretch.arrays)
            if stretch.is_divided:
                self._rounds += [f"    run(address_{number}, ...), {_described(each)}" for each in found]
            lines.append(f"if {run}(address_{number}, ({arrays})): raise steps_{number}.error()")
        return lines

    def _run(self, stretch: Stretch) -> Callable[[int, tuple], int]:
        """Return what goes through a stretch."""
        if _pool_of(stretch):
            return pool.driver()
        driver = numba.driver()
        return driver.run if stretch.nanoseconds < SHORT else driver.run_long

    def _where(self, x: Variable) -> Where:
        root, offset = self._prototypes.root[x], self._prototypes.offset(x)
        if root in self.buffers:
            return Where(None, self.buffers[root][0] + offset)
        return Where(self._text.text(root), offset)

    def _native_names(self, memory: numpy.ndarray) -> dict[str, Any]:
        tables = [stretch.bind(memory, _pool_of(stretch)) for stretch in self._stretches]
        names: dict[str, Any] = {f"steps_{number}": table for number, table in enumerate(tables, start=1)}
        names |= {f"address_{number}": table.address for number, table in enumerate(tables, start=1)}
        return names | {self._text.text(x): array for x, array in self._constants.items()}

    def _names(self) -> dict[Variable, str]:
        return super()._names() | {x: f"array_{x.number}" for x in self._constants}

    def _check(self) -> Check | None:
        return Check(self.graph, self._constants) if check_is_on() else None

    def _must_copy(self, inputs: list[numpy.ndarray]) -> list[int]:
        bases = [x.base for x in inputs]
        parts = set(map(id, bases))
        twice = len(set(map(id, inputs))) < len(inputs)
        # Memory that is not NumPy's may be seen by arrays that do not say so.
        foreign = any(type(x) is not numpy.ndarray or x.base is not None for x in bases if x is not None)
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

    def explain(self) -> str:
        """Describe the plan: what was recorded, the function, the memory, and what native code does."""
        if self._target is None:
            native = numba.why_not()
        else:
            library = products.library()
            by = library if isinstance(library, str) else library.name
            native = (
                f"{self._native_steps} steps (lines with #, but for views), each done by the next run(...); "
                f"{len(self._stretches)} of these. Products: {by}. Threads: {self._threads()}"
            )
        return "\n".join([super().explain(), f"native code: {native}", *self._rounds])

    def _threads(self) -> str:
        """Say how many threads go through tables, or why one does."""
        if self._rounds:
            return f"{get_threads()} at most, for the parts of"
        why = "what there is to do is too little for a second one, in trifles, or cannot be divided"
        return f"one, as {products.one_thread() or why}"
