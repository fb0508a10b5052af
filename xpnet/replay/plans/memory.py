"""A plan in memory that is laid out beforehand, for libraries whose functions can write where they are told.

Each operation becomes a *step*, a line or two of the function's source. Where an array would be made anew at
each call, the step writes into a *buffer*; views of buffers are made once. Arrays that are handed in are read
where they are; donated ones are written to.
"""

from typing import Any

import numpy

from xpnet.replay.graph import Operation, Variable, substitute
from xpnet.replay.kernels.fusion import fuse
from xpnet.replay.kernels.kernel import FULL, Kernel, Target, View
from xpnet.replay.plans.plan import Plan, Step


def _alike(a: Variable, b: Variable) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


class MemoryPlan(Plan):
    """A plan that computes into memory of its own.

    Attributes
    ----------
    sizes : dict of Variable to (int, int)
        Where in the plan's memory each buffer is: its first byte, and its number of bytes.
    nbytes : int
        The size of the plan's memory.
    """

    alignment = 64  # bytes: a line of the processor's cache
    # Whether functions give numbers, which cannot be written to, in place of arrays without axes.
    has_numbers = True

    @property
    def target(self) -> Target | None:
        """What may be put together in kernels; None for nothing."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Note where the arguments are."""
        self._prototypes: dict[Variable, numpy.ndarray] = {
            x: numpy.empty(x.shape, x.dtype) for x in self.graph.inputs
        }
        # Whose memory a variable is in.
        self._root: dict[Variable, Variable] = {x: x for x in self.graph.inputs}
        self._fresh: set[Variable] = set(self.graph.inputs)  # not in a buffer of the plan
        self._view: set[Operation] = set()

    def _build(self, over: list[Variable | None]) -> None:
        graph = self.graph
        self._begin()
        whole = [self._lower(operation) for operation in graph.operations]
        steps = self._fused(whole, self.target) if self.target else whole
        self._last = self._lifetimes(steps)
        self._place = self._donate(steps, over)
        self._written = [index for index, x in enumerate(graph.inputs) if x in self._place.values()]
        self._allocate(steps)
        self._write(steps)
        self._prototypes.clear()  # they were needed for their layout alone

    # -- what each operation becomes ----------------------------------------------------------------------

    def _lower(self, operation: Operation) -> Step:
        """Return what an operation becomes, and note where its results are."""
        raise NotImplementedError

    def _is_worth_it(self, step: Step, kernel: Kernel) -> bool:  # noqa: ARG002
        """Say whether a single operation is faster as a kernel of its own."""
        return True

    def _kernel_line(self, step: Step) -> str:
        """Return the call of a kernel."""
        raise NotImplementedError

    def _new(self, x: Variable) -> str:
        """Return what makes an array for a result that is returned; nothing where a buffer is copied."""
        raise NotImplementedError

    def _called(self, operation: Operation) -> Any:
        """Return the function of an operation that is a view, for arrays of NumPy's."""
        return operation.function

    def _outputs(self) -> list[str]:
        """Return the text of each output."""
        raise NotImplementedError

    def _prototype(self, value: Any) -> Any:
        return substitute(value, self._prototypes.__getitem__)

    def _is_view(self, operation: Operation) -> bool:
        """Say whether all results of an operation are views of its one argument, when it is called here."""
        inputs = operation.inputs
        if len(inputs) != 1:
            return False
        arguments, options = self._prototype(operation.arguments), self._prototype(operation.options)
        with numpy.errstate(all="ignore"):  # the values are whatever was in memory
            result = self._called(operation)(*arguments, **options)
        results = list(result) if operation.several else [result]
        base = self._prototypes[inputs[0]]
        if not all(isinstance(x, numpy.ndarray) and numpy.may_share_memory(x, base) for x in results):
            return False
        for x, prototype in zip(operation.results, results, strict=True):
            self._prototypes[x] = prototype
            self._root[x] = self._root[inputs[0]]
        return True

    def _fused(self, steps: list[Step], target: Target) -> list[Step]:
        """Put elementwise steps together in kernels."""
        contiguous = {
            x
            for x, prototype in self._prototypes.items()
            if prototype.flags.c_contiguous and not self._comes_from_a_call(self._root[x])
        }
        origin: dict[Variable, Variable] = {}
        for operation in self.graph.operations:
            if operation in self._view and len(operation.results) == 1:
                x, base = operation.result, operation.inputs[0]
                same = x.size == base.size and x.dtype == base.dtype
                if same and contiguous.issuperset((x, base)):
                    origin[x] = origin.get(base, base)
        step_of = {step.operation: step for step in steps}
        apart = {
            x: view
            for x, root in self._root.items()
            if root in contiguous
            and x not in contiguous
            and (view := View.of(root, self._prototypes[root], self._prototypes[x]))
            and (view.columns >= target.shortest)
        }
        groups = fuse(self.graph, contiguous, origin, apart, target)
        for group in groups:
            alone = step_of[group.operations[0]] if len(group.operations) == 1 else None
            if alone and group.kernel and not self._is_worth_it(alone, group.kernel):
                group.kernel = None
        last: dict[Variable, int] = {}
        for index, group in enumerate(groups):
            read = group.kernel.inputs if group.kernel else group.operations[0].inputs
            last.update(dict.fromkeys(read, index))
        last.update(dict.fromkeys(self.graph.returned, len(groups)))
        fused = []
        for index, group in enumerate(groups):
            kernel = group.kernel
            if kernel is None:
                fused.append(step_of[group.operations[0]])
                continue
            results = tuple(o.result for o in group.operations if last.get(o.result, -1) > index)
            operation = Operation("fused", None, tuple(kernel.inputs), {}, results, several=True)
            fused.append(Step(operation, [], tuple(kernel.in_place), kernel))
        return fused

    # -- where each variable lives ------------------------------------------------------------------------

    def _lifetimes(self, steps: list[Step]) -> dict[Variable, int]:
        """Return the number of the last step that reads each variable's memory."""
        last = {}
        for index, step in enumerate(steps):
            for x in step.operation.inputs:
                last[self._root[x]] = index
        last.update({self._root[x]: len(steps) for x in self.graph.returned})
        return last

    def _comes_from_a_call(self, root: Variable) -> bool:
        """Say whether an array is made anew by a function, in a layout that only a call shows."""
        return root in self._fresh and root in self.graph.makers

    def _donate(self, steps: list[Step], over: list[Variable | None]) -> dict[Variable, Variable]:
        """Choose the outputs that are written over a donated input."""
        wanted = {
            x: y
            for x, y in zip(self.graph.outputs, over, strict=True)
            if y is not None and (y.shape or not self.has_numbers)
        }
        place = {}
        for index, step in enumerate(steps):
            for x in step.operation.results:
                y = wanted.get(x)
                if y is None or x in self._fresh or self._root[x] is not x or not _alike(x, y):
                    continue
                if self._last.get(y, -1) < index or self._can_take(y, x, step, index):
                    place[x] = y
        return place

    def _allocate(self, steps: list[Step]) -> None:
        """Lay out the buffers in the plan's memory; one that is done with makes room for others."""
        ends = {self._root[x] for x in self.graph.returned if x.shape or not self.has_numbers}
        # An array that is returned must not be overwritten by the next call; a number is copied.
        self._returned = {
            x: self._new(x) for x in ends if x not in self._fresh and x not in self._place and self._new(x)
        }
        memory = _Memory(self.alignment)
        self.sizes: dict[Variable, tuple[int, int]] = {}
        for index, step in enumerate(steps):
            if step.operation not in self._view:
                for x in step.operation.results:
                    if x in self._fresh or x in self._place or x in self._returned:
                        continue
                    candidates = (v for v in step.in_place if v in self.sizes)
                    taken = next((v for v in candidates if self._can_take(v, x, step, index)), None)
                    if taken is None:
                        self.sizes[x] = memory.take(max(x.nbytes, 1))
                    else:
                        self.sizes[x] = self.sizes[taken]
                        self._last[taken] = -1  # it is the new one's to free
            for x in {self._root[v] for v in (*step.operation.inputs, *step.operation.results)}:
                if x in self.sizes and self._last.get(x, index) == index:
                    memory.free(*self.sizes[x])
        self.nbytes = memory.size

    def _can_take(self, taken: Variable, x: Variable, step: Step, index: int) -> bool:
        """Say whether a result may be written over an input, which nothing else needs."""
        if step.kernel and step.kernel.kinds[x] != FULL:
            return False
        alone = all(v is taken for v in step.operation.inputs if self._root[v] is taken)
        last = self._last.get(taken, -1)
        return last == index and _alike(taken, x) and taken in step.in_place and alone

    def _shares(self, x: Variable, y: Variable) -> bool:
        """Say whether a result is written over an input."""
        y = self._place.get(y, y)
        return self._place.get(x, x) is y or (x in self.sizes and self.sizes[x] == self.sizes.get(y))

    def _written_over(self, step: Step) -> dict[Variable, Variable]:
        """Return the results of a step that are written over an input, each with that input."""
        pairs = ((x, v) for x in step.operation.results for v in reversed(step.in_place))
        return {x: v for x, v in pairs if self._shares(x, v)}

    # -- the function -------------------------------------------------------------------------------------

    def _name(self, x: Variable) -> str:
        if x in self._place:
            return self._name(self._place[x])
        return super()._name(x)

    def _write(self, steps: list[Step]) -> None:
        names = {f"v{x.number}": self._name(x) for x in self._root}
        left = self._left_behind(steps)
        once: list[str] = []
        lines: list[str] = []
        lines += [f"{self._name(x)} = {new}" for x, new in self._returned.items()]
        for step in steps:
            if step.kernel:
                step.lines = [self._kernel_line(step)]
            root = self._root[step.operation.result]
            constant = step.operation in self._view and root in self.sizes
            source = [line.format_map(names) for line in step.lines]
            if step.copied and self._shares(step.operation.result, step.copied):
                source = source[1:]
            (once if constant else lines).extend(source)
            if left.get(step.operation):
                lines.append(f"del {', '.join(map(self._name, left[step.operation]))}")
        self._once = once
        outputs = [text.format_map(names) for text in self._outputs()]
        self._code = self._compile(lines, outputs)

    def _left_behind(self, steps: list[Step]) -> dict[Operation, list[Variable]]:
        """Return for each operation the arrays not in the plan's memory that nothing needs behind it."""
        left: dict[Operation, list[Variable]] = {}
        for x, root in self._root.items():
            if self._comes_from_a_call(root):
                last = self._last.get(root, -1)
                if 0 <= last < len(steps):
                    left.setdefault(steps[last].operation, []).append(x)
        return left

    def explain(self) -> str:
        """Describe the plan: what was recorded, the memory, and the function."""
        alone = sum(x.nbytes for x in self.sizes)
        return "\n".join(
            [
                super().explain(),
                f"{len(self.sizes)} buffers in {self.nbytes:,} bytes, of {alone:,} if each had its own; "
                f"{len(self._once)} views made once; {len(self._place)} results written over arguments, "
                f"{len(self._returned)} into new arrays",
                *(
                    f"    {self._name(x)}: {x.dtype} {x.shape}, {size} bytes from {start}"
                    for x, (start, size) in self.sizes.items()
                ),
            ]
        )


class _Memory:
    """Which parts of a stretch of memory are in use: first fit, and neighbours that are free are joined."""

    def __init__(self, alignment: int) -> None:
        self.size = 0
        self._alignment = alignment
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> tuple[int, int]:
        size = -(-size // self._alignment) * self._alignment
        fitting = [part for part in self._free if part[1] >= size]
        if fitting:
            offset, length = min(fitting, key=lambda part: part[1])
            self._free.remove((offset, length))
            if length > size:
                self.free(offset + size, length - size)
            return offset, size
        if self._free and sum(self._free[-1]) == self.size:  # the last part grows
            offset, _ = self._free.pop()
        else:
            offset = self.size
        self.size = offset + size
        return offset, size

    def free(self, offset: int, size: int) -> None:
        parts = sorted([*self._free, (offset, size)])
        joined = [parts[0]]
        for start, length in parts[1:]:
            before, before_length = joined[-1]
            if before + before_length == start:
                joined[-1] = (before, before_length + length)
            else:
                joined.append((start, length))
        self._free = joined
