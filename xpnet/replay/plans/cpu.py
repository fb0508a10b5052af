"""A plan for NumPy: the recorded operations as one straight Python function over memory laid out beforehand.

What `lowerings.py` does not know is called as it was recorded, and gives an array of its own.
"""

from collections.abc import Callable
from typing import Any

import numpy

from xpnet.replay.functions import VIEWS
from xpnet.replay.graph import Operation, Variable
from xpnet.replay.kernels import python
from xpnet.replay.kernels.kernel import NUMBER, Kernel, Target
from xpnet.replay.kernels.python import MOST_REDUCED, Loop
from xpnet.replay.plans import numba
from xpnet.replay.plans.cpu_steps import LOWERINGS, elementwise, view
from xpnet.replay.plans.memory import MemoryPlan
from xpnet.replay.plans.plan import Step, call

# From how many elements on a loop is shared among the cores. BLAS keeps its threads busy for some time after
# a product, so that other threads gain nothing before.
PARALLEL = 8_388_608


def _copied(*arrays: numpy.ndarray) -> list[numpy.ndarray]:
    return [x.copy() for x in arrays]


class NumpyPlan(MemoryPlan):
    """A plan that computes into memory of NumPy's."""

    def _build(self, over: list[Variable | None]) -> None:
        self._flat: dict[Variable, str] = {}  # buffers and views of them, as kernels see them, made once
        super()._build(over)
        self._idle: list[Callable] = []

    @property
    def target(self) -> Target | None:
        return python.TARGET if numba.numba_is_there() else None

    def _is_worth_it(self, step: Step, kernel: Kernel) -> bool:
        small = kernel.size <= MOST_REDUCED or kernel.kinds[step.operation.result] == NUMBER
        return len(step.lines) > 1 or bool(kernel.views) or (kernel.has_totals and small)

    def _new(self, x: Variable) -> str:
        dtype = self._constants.constant(x.dtype, str(x.dtype))
        return f"{self._constants.constant(numpy.empty, 'empty')}({x.shape}, {dtype})"

    def _lower(self, operation: Operation) -> Step:
        if (operation.shares or operation.name in VIEWS) and self._is_view(operation):
            self._view.add(operation)
            return view(self._constants, operation)
        step = LOWERINGS.get(operation.name, elementwise)(self._constants, operation)
        if step is None:
            step = call(self._constants, operation)
            if operation.shares:  # of several arguments, say: what is not a view of one is a copy of its own
                copy = self._constants.constant(_copied, "copied")
                results = self._constants.items(*operation.results)
                step.lines.append(f"[{results}] = {copy}({results})")
            self._fresh.update(operation.results)
        for x in operation.results:
            self._root[x] = x
            self._prototypes[x] = numpy.empty(x.shape, x.dtype)
        return step

    def _kernel_line(self, step: Step) -> str:
        kernel, operation = step.kernel, step.operation
        assert kernel
        alias = self._written_over(step)
        loop = Loop(kernel, operation.results, alias, parallel=False)
        function = numba.compiled(loop.source)
        if kernel.size >= PARALLEL and not kernel.has_totals:
            parallel = Loop(kernel, operation.results, alias, parallel=True)
            function = numba.on_all_cores(numba.compiled(parallel.source), function)
        names = "_".join(dict.fromkeys(part.operation.name for part in kernel.parts))
        name = self._constants.constant(function, names)
        rest = [x for x in operation.results if x not in alias]
        arrays = [self._with_one_axis(x) for x in (*kernel.handed_in, *rest)]
        sizes = [kernel.size, *([kernel.columns] if kernel.columns else [])]
        return f"{name}({', '.join([*arrays, self._constants.items(*loop.numbers, *sizes)])})"

    def _with_one_axis(self, x: Variable) -> str:
        """Return the text of an array, all elements one after the other."""
        if len(x.shape) == 1:
            return self._constants.text(x)
        if self._place.get(x, self._root[x]) in self.sizes:
            return self._flat.setdefault(x, f"flat_{x.number}")
        return f"{self._constants.text(x)}.reshape(-1)"

    def _outputs(self) -> list[str]:
        texts, seen = [], set()
        for x in self.graph.outputs:
            texts.append(self._output(x))
            if type(x) is Variable and x.shape:
                if x in seen:  # what the function makes twice is two arrays
                    texts[-1] += ".copy()"
                seen.add(x)
        return texts

    def _output(self, x: Any) -> str:
        if type(x) is not Variable:  # a copy, as the caller may write to it, or donate it
            return f"{self._constants.constant(x)}.copy()"
        text = self._constants.text(x)
        return f"{text}[()]" if not x.shape and self._root[x] in self.sizes else text

    def _bind(self) -> Callable:
        """Return the function with memory of its own."""
        memory = numpy.empty(self.nbytes + self.alignment, numpy.uint8)
        start = -memory.ctypes.data % self.alignment
        names = dict(self._constants.constants)
        for x, (offset, _) in self.sizes.items():
            names[self._name(x)] = numpy.ndarray(x.shape, x.dtype, memory, start + offset)
        for line in self._once:
            exec(line, names)
        for x, name in self._flat.items():
            names[name] = names[self._name(x)].reshape(-1)
        return self._function(self._code, names)

    def __call__(self, inputs: list[numpy.ndarray], *, keep: bool = False) -> tuple:
        """Return the outputs for other inputs; with ``keep``, none of these is overwritten."""
        inputs = [
            x if type(x) is numpy.ndarray and x.flags.c_contiguous else numpy.asarray(x, order="C")
            for x in inputs
        ]
        # Copies of those of the inputs to be overwritten that cannot be, or of which another one has a part.
        if self._written:
            numbers = {id(x) for x in inputs}
            bases = [x.base for x in inputs]
            parts = {id(base) for base in bases}
            foreign = any(base is not None and type(base) is not numpy.ndarray for base in bases)
            for index in self._written:
                x = inputs[index]
                if (
                    keep
                    or len(numbers) < len(inputs)
                    or bases[index] is not None
                    or id(x) in parts
                    or not x.flags.writeable
                    or (foreign and any(numpy.may_share_memory(x, y) for y in inputs if y is not x))
                ):
                    inputs[index] = x.copy()
        try:
            replay = self._idle.pop()
        except IndexError:
            replay = self._bind()
        outputs = replay(*inputs)
        self._idle.append(replay)
        return outputs
