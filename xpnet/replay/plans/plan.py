"""A plan: recorded operations as the source of one straight Python function.

The one here calls each function as it was recorded, on any library. `cpu.py` and `cuda.py` do better.
"""

import linecache
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import isfinite
from typing import Any

from xpnet.backends import copied
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.kernels.kernel import Kernel

_numbers = count()


@dataclass
class Step:
    """An operation, as lines of source.

    Attributes
    ----------
    operation : Operation
    lines : list of str
        They name variables as ``{v7}``, to be filled in when it is known where each one is.
    in_place : tuple of Variable
        Inputs whose memory the result may take over, if nothing else needs them any more.
    kernel : Kernel or None
        What stands for the lines, which depend on the memory that is shared.
    copied : Variable or None
        The input that the first line copies to the result, which is left out if they share memory.
    """

    operation: Operation
    lines: list[str]
    in_place: tuple[Variable, ...] = ()
    kernel: Kernel | None = None
    copied: Variable | None = None


class Source:
    """What lowerings write with: variables, constants and literals as text."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}

    def constant(self, value: Any, name: str = "constant") -> str:
        """Return the name of a constant: one like this, with a number if others are called so."""
        names = (f"{name}_{number}" if number > 1 else name for number in count(1))
        return next(each for each in names if self.constants.setdefault(each, value) is value)

    def text(self, value: Any) -> str:
        """Return the source of an argument."""
        if type(value) is Variable:
            return f"{{v{value.number}}}"
        if type(value) in (list, tuple):
            items = "".join(f"{self.text(item)}, " for item in value)
            return f"[{items}]" if type(value) is list else f"({items})"
        if value is None or value is ... or type(value) in (bool, int):
            return repr(value)
        if type(value) is slice:
            return f"slice({self.items(value.start, value.stop, value.step)})"
        if type(value) is float and isfinite(value):
            return repr(value)
        return self.constant(value)

    def items(self, *values: Any) -> str:
        return ", ".join(map(self.text, values))


def call(source: Source, operation: Operation) -> Step:
    """Call a function as it was recorded."""
    names = "".join(f"{source.text(x)}, " for x in operation.results)
    function = source.constant(operation.function, operation.name.replace(".", "_"))
    options = "".join(f", {key}={source.text(value)}" for key, value in operation.options.items())
    call = f"{function}({source.items(*operation.arguments)}{options})"
    return Step(operation, [f"{names if operation.several else names[:-2]} = {call}"])


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

    def __init__(self, graph: Graph, over: list[Variable | None], like: Any) -> None:  # noqa: ARG002
        self.graph = graph
        self._constants = Source()
        self._build(over)

    def _build(self, _over: list[Variable | None]) -> None:
        graph = self.graph
        last = {x: step for step, operation in enumerate(graph.operations) for x in operation.inputs}
        last.update(dict.fromkeys(graph.returned, len(graph.operations)))
        lines = []
        for step, operation in enumerate(graph.operations):
            lines += call(self._constants, operation).lines
            used = [*operation.inputs, *operation.results]
            done = [x for x in dict.fromkeys(used) if last.get(x, step) == step]
            if done:  # or it would stay in memory until the end
                lines.append(f"del {self._constants.items(*done)}")
        names = {f"v{x.number}": self._name(x) for x in graph.variables}
        outputs = [self._output(x) for x in graph.outputs]
        code = self._compile([x.format_map(names) for x in lines], [x.format_map(names) for x in outputs])
        self._replay = self._function(code, dict(self._constants.constants))

    def _output(self, x: Any) -> str:
        if type(x) is Variable:
            return self._constants.text(x)
        return f"{self._constants.constant(copied)}({self._constants.constant(x)})"  # it is the caller's own

    def explain(self) -> str:
        """Describe the plan: what was recorded, and the function."""
        graph = self.graph
        return (
            f"{graph.recorded} functions recorded, {len(graph.operations)} left after sharing and leaving "
            f"out, {self.source.count(chr(10)) - 2} steps\n{self.source}"
        )

    def _name(self, x: Variable) -> str:
        return f"{'x' if x in self.graph.makers else 'input'}_{x.number}"

    def _compile(self, lines: list[str], outputs: list[str]) -> Any:
        """Write the function, so that a traceback shows its lines."""
        arguments = ", ".join(self._name(x) for x in self.graph.inputs)
        returned = "".join(f"{x}, " for x in outputs)
        body = "\n    ".join([*lines, f"return ({returned})"])
        self.source = f"def replay({arguments}):\n    {body}\n"
        filename = f"<xpnet plan {next(_numbers)}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(True), filename)
        weakref.finalize(self, linecache.cache.pop, filename, None).atexit = False
        return compile(self.source, filename, "exec")

    def _function(self, code: Any, names: dict[str, Any]) -> Callable:
        exec(code, names)
        return names["replay"]

    def __call__(self, inputs: list, *, keep: bool = False) -> tuple:  # noqa: ARG002
        """Return the outputs for other inputs; with ``keep``, none of these is overwritten."""
        return self._replay(*inputs)


class JaxPlan(Plan):
    """A plan that JAX compiles."""

    def _function(self, code: Any, names: dict[str, Any]) -> Callable:
        import jax

        return jax.jit(super()._function(code, names))


def first_line(error: Exception) -> str:
    """Name an error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
