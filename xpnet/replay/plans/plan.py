"""A plan: recorded operations as the source of one straight Python function.

`Plan` calls each function as it was recorded, on any library. `MemoryPlan` lets functions write into memory
that is laid out beforehand (`memory.py`); `cpu.py` and `cuda.py` say how each operation is done there.
"""

import linecache
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, Protocol

import numpy

from xpnet.backends import copied
from xpnet.cached import cached_property
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.kernels.fusion import fuse
from xpnet.replay.kernels.kernel import Kernel, Target
from xpnet.replay.plans.check import Check
from xpnet.replay.plans.memory import Layout, Prototypes, last_readers
from xpnet.replay.plans.step import CALL, COPY, KERNEL, VIEW, Call, Consecutive, Item, Member, Source, Step

_numbers = count()

Variables = Sequence[Variable]
Over = dict[Variable, Variable]  # results, each with what it is written over


class Plan:
    """A graph, as a function that can be called again and again.

    Parameters
    ----------
    graph : Graph
    over : list of Variable or None
        For each output, the input that it may be written over.
    like : array
        An array of the library and the device.

    Attributes
    ----------
    source : str
        The function.
    rounds : bool
        Whether it rounds the operands of products by its own means, where `jit` is asked for a precision.
    may_fail : bool
        Whether making one depends on what is installed, so that a `Plan` of calls may take its place.
    """

    rounds = False
    may_fail = False
    # Says of a tuple of arrays whether any is not what the plan was made for, or must be copied for `run`.
    is_unusual: Callable[[tuple], int] | None = None

    def __init__(self, graph: Graph, over: list[Variable | None], like: Any) -> None:  # noqa: ARG002
        self.graph = graph
        self._build(over)

    def _build(self, _over: list[Variable | None]) -> None:
        graph = self.graph
        text = self._text = Source(self._names())
        last = last_readers([operation.inputs for operation in graph.operations], graph.returned)
        lines = []
        for step, operation in enumerate(graph.operations):
            lines.append(text.line(Call.of(operation)))
            used = [*operation.inputs, *operation.results]
            done = [x for x in dict.fromkeys(used) if last.get(x, step) == step]
            if done:  # or it would stay in memory until the end
                lines.append(f"del {text.items(done)}")
        code = self._compile(lines)
        self._replay = self._function(code, dict(text.constants))

    def _output(self, x: Any, _again: bool) -> Any:
        """Return what is returned for an output: a variable, which may be there again, or a constant."""
        # A constant is the caller's own.
        return x if type(x) is Variable else Call(CALL, copied, (x,), "copied")

    def explain(self) -> str:
        """Describe the plan: what was recorded, and the function."""
        graph = self.graph
        _, *lines, _ = self.source.splitlines()
        steps = sum(not line.startswith("    if ") for line in lines)
        return (
            f"{graph.recorded} functions recorded, {len(graph.operations)} left after sharing and leaving "
            f"out, {steps} steps\n{self.source}"
        )

    def _names(self) -> dict[Variable, str]:
        names = {x: f"x_{x.number}" for x in self.graph.variables}
        return names | {x: f"input_{x.number}" for x in self.graph.inputs}

    def _compile(self, lines: list[str]) -> Any:
        """Write the function, so that a traceback shows its lines."""
        outputs = self.graph.outputs
        again = (any(x is y for y in outputs[:index]) for index, x in enumerate(outputs))
        values = tuple(map(self._output, outputs, again))
        arguments = ", ".join(map(self._text.text, self.graph.inputs))
        body = "\n    ".join([*lines, f"return {self._text.text(values)}"])
        self.source = f"def replay({arguments}):\n    {body}\n"
        filename = f"<xpnet plan {next(_numbers)}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(True), filename)
        weakref.finalize(self, linecache.cache.pop, filename, None).atexit = False
        return compile(self.source, filename, "exec")

    def _function(self, code: Any, names: dict[str, Any]) -> Callable:
        names["__name__"] = __name__  # by which `calling_line` tells it from code of the user's
        exec(code, names)
        return names["replay"]

    def __call__(self, inputs: Sequence, *, keep: bool = False) -> tuple:  # noqa: ARG002
        """Return the outputs for other inputs; with ``keep``, none of these is overwritten."""
        return self.run(inputs)

    def run(self, inputs: Sequence) -> tuple:
        """Return the outputs for inputs that the function takes as they are."""
        return self._replay(*inputs)


class JaxPlan(Plan):
    """A plan that JAX compiles, but for outputs that are inputs, such as frozen weights, which it copies."""

    def _output(self, x: Any, again: bool) -> Any:
        return super()._output(x, again) if self._number(x) is None else None

    def _number(self, x: Any) -> int | None:
        """Return the number of an output among the inputs; None of what is computed, and of a constant."""
        return self.graph.inputs.index(x) if type(x) is Variable and x in self.graph.inputs else None

    def _function(self, code: Any, names: dict[str, Any]) -> Callable:
        import jax

        compiled = jax.jit(super()._function(code, names))
        numbers = [*map(self._number, self.graph.outputs)]

        def replay(*inputs: Any) -> tuple:
            computed = zip(numbers, compiled(*inputs), strict=True)
            return tuple(y if number is None else inputs[number] for number, y in computed)

        return replay


class Runtime(Protocol):
    """What a plan in memory asks of a processor.

    Attributes
    ----------
    alignment : int
        Bytes, of which the places of buffers are multiples.
    has_numbers : bool
        Whether functions give numbers, which cannot be written to, in place of arrays without axes.
    empty : callable or None
        Makes an array of a shape and a dtype for a result that is returned; None where plans copy buffers.
    """

    alignment: int
    has_numbers: bool
    empty: Callable | None

    def memory(self, nbytes: int) -> Any:
        """Return memory."""

    def array(self, memory: Any, offset: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in a part of memory."""

    def contiguous(self, arrays: Sequence) -> list:
        """Return arrays with their elements one after the other."""

    def copies(self, arrays: Sequence) -> list:
        """Return copies of arrays."""


class MemoryPlan(Plan):
    """A plan that computes into memory of its own.

    Arrays that are handed in are read where they are; donated ones are written to. Views of buffers are made
    once.

    Attributes
    ----------
    buffers : dict of Variable to (int, int)
        Where in the plan's memory each buffer is: its first byte, and its number of bytes.
    nbytes : int
        The size of the plan's memory.
    """

    _runtime: Runtime
    _target: Target | None  # what may be put together in kernels
    _stored_as: Callable[[Any], Any] = staticmethod(lambda dtype: dtype)  # what is in memory for a dtype

    # Variables that stand for arrays which are known, with these.
    _constants: Mapping[Variable, Any] = MappingProxyType({})

    # -- what differs from one processor to another -------------------------------------------------------

    @cached_property
    def _idle(self) -> list[Callable]:
        """Functions with memory of their own that are not running."""
        return []

    def _lower(self, operation: Operation) -> Step:
        """Return what an operation becomes, and add its results to the prototypes."""
        raise NotImplementedError

    def _kernel(self, kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
        """Return the function of a kernel, and its arguments: first of all the arrays.

        ``over`` has the results that are written over an input, each with that.
        """
        raise NotImplementedError

    def _in_order(self, steps: list[Step], donated: Collection[Variable]) -> list[Step]:  # noqa: ARG002
        """Return the steps in the order in which they are done, given what may be written over arguments."""
        return steps

    def _at_once(self, calls: list[Call]) -> list[Call]:
        """Return what calls kernels of which none needs what another one makes."""
        return calls

    def _works(self, step: Step, call: Call) -> Sequence:  # noqa: ARG002
        """Return what native code does in place of a call; nothing if Python calls the function."""
        return ()

    def _native_lines(self, works: Sequence) -> list[str]:  # noqa: ARG002
        """Return the lines that let native code do some steps."""
        return []

    def _native_names(self, memory: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return what those lines name, for a plan's memory."""
        return {}

    def _check(self) -> Check | None:
        """Return what compares each step with what was recorded; None where nothing does."""
        return None

    def _must_copy(self, inputs: list) -> list[int]:
        """Return which of the arguments that are written over must be copied first, by their numbers.

        They are read-only, or something else may have a part of their memory.
        """
        raise NotImplementedError

    # -- making it ----------------------------------------------------------------------------------------

    def _build(self, over: list[Variable | None]) -> None:
        graph, runtime, target = self.graph, self._runtime, self._target
        self._prototypes = Prototypes([*graph.inputs, *self._constants], self._stored_as)
        steps = [self._lower(operation) for operation in graph.operations]
        steps = self._fused(steps, target) if target else steps

        def is_array(x: Variable) -> bool:
            return bool(x.shape) or not runtime.has_numbers

        donated = {x: y for x, y in zip(graph.outputs, over, strict=True) if y is not None and is_array(y)}
        steps = self._in_order(steps, donated)
        returned = dict.fromkeys(self._prototypes.root[x] for x in graph.returned if is_array(x))
        anew = [*returned] if runtime.empty else []
        self._layout = Layout(graph, steps, self._prototypes, donated, anew, runtime.alignment)
        self.buffers, self.nbytes = self._layout.buffers, self._layout.nbytes
        self._write(steps)
        self._prototypes.clear()  # they were needed for their layout alone
        written = self._layout.over.values()
        self._written = [index for index, x in enumerate(graph.inputs) if x in written]

    def _fused(self, steps: list[Step], target: Target) -> list[Step]:
        """Put elementwise steps together in kernels."""
        groups = fuse(self.graph, *self._prototypes.for_kernels(target.shortest), target)
        step_of = dict(zip(self.graph.operations, steps, strict=True))
        reads = [group.kernel.inputs if group.kernel else group.operations[0].inputs for group in groups]
        last = last_readers(reads, self.graph.returned)
        fused = []
        for index, group in enumerate(groups):
            kernel = group.kernel
            if kernel:
                results = [o.result for o in group.operations if last.get(o.result, -1) > index]
                fused.append(Step(kernel.inputs, results, in_place=kernel.in_place, kernel=kernel))
            else:
                fused.append(step_of[group.operations[0]])
        return fused

    def _names(self) -> dict[Variable, str]:
        names = super()._names()
        # A result that is written over an argument has the argument's name.
        return names | {x: names[y] for x, y in self._layout.over.items()}

    def _write(self, steps: list[Step]) -> None:
        layout = self._layout
        lasting = {x for x in self._prototypes.root if layout.is_in_buffer(x)}
        text = self._text = Source(self._names())
        # What is done at each step, and what native code does in place of each call.
        calls = [self._calls(step) for step in steps]
        works = [[self._works(step, call) for call in each] for step, each in zip(steps, calls, strict=True)]
        named = self._in_python = self._named(steps, works)
        self._native_steps = sum(bool(native) for each in works for native in each)
        left = layout.left_behind()
        self._once: list[str] = []
        lines = [
            text.line(Call(CALL, self._runtime.empty, (x.shape, x.dtype), "empty", results=(x,)))
            for x in layout.anew
        ]
        for x, (_, argument, start) in layout.inside.items():
            part = Item(Member(argument, "reshape", (-1,)), slice(start, start + x.size))
            lines.append(text.line(Call(VIEW, None, (part,), results=(x,))))
        check = self._check()
        if check:
            text.constants["check"] = check
            lines.append(f"check.begin({text.items(self.graph.inputs)})")
        stretch: list[Any] = []
        for index, step in enumerate(steps):
            written = [text.line(call) for call in calls[index]]
            for line, native in zip(written, works[index], strict=True):
                if native or (step.is_view and named.isdisjoint(step.results)):
                    stretch += native
                    lines.append(f"# {line}")
                elif step.is_view:
                    (self._once if step.results[0] in lasting else lines).append(line)
                else:
                    lines += [*self._native_lines(stretch), line]
                    stretch = []
            if check and not step.is_view and step.results:
                what = text.constant((f"step {index}, {'; '.join(written)}", step.results), "made")
                lines += self._native_lines(stretch)
                lines.append(f"check.compare(*{what}, ({text.items(step.results)}, ))")
                stretch = []
            done = named.intersection(left.get(index, ()))
            if done:
                lines.append(f"del {text.items(sorted(done, key=lambda x: x.number))}")
        self._code = self._compile([*lines, *self._native_lines(stretch)])

    def _named(self, steps: Sequence[Step], works: Sequence[Sequence]) -> set[Variable]:
        """Return the variables that lines of Python name, of which views are made for no one else."""
        named = set(self.graph.returned)
        for step, native in zip(reversed(steps), reversed(works), strict=True):
            if not all(native) and (not step.is_view or not named.isdisjoint(step.results)):
                named.update(step.inputs, step.results)
        return named

    def _calls(self, step: Step) -> list[Call]:
        """Return the calls of a step without those that have nothing to do."""
        kernels = [self._call(part, part.kernel) for part in step.parts if part.kernel]
        calls = self._at_once(kernels) if kernels else step.calls
        if step.consecutive and not self._layout.are_consecutive(step.results):
            calls = [call._replace(arguments=[*map(_apart, call.arguments)]) for call in calls]
        return [call for call in calls if not self._is_there_already(call)]

    def _call(self, step: Step, kernel: Kernel) -> Call:
        """Return the call of a kernel."""
        over = self._layout.written_over(step)
        arrays = [*kernel.handed_in, *(x for x in step.results if x not in over)]
        function, arguments = self._kernel(kernel, step.results, over, arrays)
        names = "_".join(dict.fromkeys(part.operation.name for part in kernel.parts)).replace(".", "_")
        return Call(KERNEL, function, arguments, names)

    def _is_there_already(self, call: Call) -> bool:
        """Say whether a call copies an array to a result that takes over its memory."""
        if call.kind != COPY or call.options:
            return False
        target, value = call.arguments
        return type(target) is type(value) is Variable and self._layout.shares(target, value)

    # -- running it ---------------------------------------------------------------------------------------

    def _bind(self) -> Callable:
        """Return the function with memory of its own."""
        runtime, text = self._runtime, self._text
        memory = runtime.memory(self.nbytes)
        names = dict(text.constants)
        names |= {name: runtime.memory(nbytes) for name, nbytes in text.scratch.items()}
        for x, (offset, _) in self.buffers.items():
            names[text.text(x)] = runtime.array(memory, offset, x.shape, self._stored_as(x.dtype))
        for name, arrays in text.joined.items():
            start, end = self.buffers[arrays[0]][0], self.buffers[arrays[-1]][0] + arrays[-1].nbytes
            dtype = numpy.dtype(self._stored_as(arrays[0].dtype))
            names[name] = runtime.array(memory, start, ((end - start) // dtype.itemsize,), dtype)
        for line in self._once:
            exec(line, names)
        names |= self._native_names(memory)
        return self._function(self._code, names)

    def __call__(self, inputs: Sequence, *, keep: bool = False) -> tuple:
        """Return the outputs for other inputs; with ``keep``, none of these is overwritten."""
        inputs = self._runtime.contiguous(inputs)
        if self._written:
            for index in self._written if keep else self._must_copy(inputs):
                (inputs[index],) = self._runtime.copies([inputs[index]])
        return self.run(inputs)

    def run(self, inputs: Sequence) -> tuple:
        """Return the outputs for inputs that the function takes as they are, and may write over."""
        idle = self._idle
        try:
            replay = idle.pop()
        except IndexError:
            replay = self._bind()
        outputs = replay(*inputs)
        idle.append(replay)
        return outputs

    def explain(self) -> str:
        """Describe the plan: what was recorded, the memory, and the function."""
        layout, alone = self._layout, sum(x.nbytes for x in self.buffers)
        summary = (
            f"{len(self.buffers)} buffers in {self.nbytes:,} bytes, of {alone:,} if each had its own; "
            f"{len(self._once)} views made once; {len(layout.over)} results written over arguments, "
            f"{len(layout.anew)} into new arrays"
        )
        buffers = (
            f"    {self._text.text(x)}: {x.dtype} {x.shape}, {size} bytes from {start}"
            for x, (start, size) in self.buffers.items()
        )
        return "\n".join([super().explain(), summary, *buffers])


def _apart(x: Any) -> Any:
    """Return arrays that are not one after the other."""
    return tuple(x.arrays) if type(x) is Consecutive else x


def first_line(error: Exception) -> str:
    """Name an error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
