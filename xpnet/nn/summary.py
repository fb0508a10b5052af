"""The table of a network's layers."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xpnet import tree
from xpnet.backends import asarray, device, device_of, use_device


@dataclass(frozen=True)
class Row:
    """One call of a layer: its place and class, its output's shape without the batch axis, its parameters."""

    layer: str
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """The layers of a network in the order of their calls, and the number of all parameters."""

    rows: tuple[Row, ...]
    parameters: int

    def __str__(self) -> str:
        cells = [("layer", "output", "parameters")]
        cells += [(r.layer, _shape(r.output_shape), f"{r.parameters:,}") for r in self.rows]
        cells += [("total", "", f"{self.parameters:,}")]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in cells]
        rule = "─" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    __repr__ = __str__


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['batch', *map(str, shape)])})"


def count_parameters(net: Any) -> int:
    """Return the number of trained numbers in a tree."""
    return sum(math.prod(leaf.shape) for leaf in tree.leaves(net) if tree.is_array(leaf))


def _own_parameters(module: tree.Branch) -> int:
    """Return the number of trained numbers in a module, without those of the modules inside."""
    attributes = {name: value for name, value in vars(module).items() if name not in module.state}
    return count_parameters(tree.outside_branches(attributes))


def summarize(net: Any, input_shape: tuple[int, ...], dtype: str | None) -> Summary:
    """Call a copy of a network on one example of zeros, and note what each layer returns."""
    copy = tree.copied(net).eval()
    # Layers are the modules without modules inside, and those that have parameters beside such modules.
    layers = [part for part in tree.branches(copy) if _own_parameters(part) or len(tree.branches(part)) == 1]
    names = layer_names(copy)
    arrays = tree.leaves(copy, state=True)
    where = device_of(arrays[0]) if arrays else device()
    parameters = tree.leaves(copy)
    kind = dtype or (str(parameters[0].dtype).rpartition(".")[2] if parameters else "float32")
    rows: list[Row] = []

    def note(module: Any, output: Any) -> None:
        if tree.is_array(output):
            rows.append(Row(names[id(module)], tuple(output.shape[1:]), _own_parameters(module)))

    with use_device(where):
        x = asarray([0.0], device=where, dtype=kind)
        x = where.namespace.broadcast_to(
            where.namespace.reshape(x, (1,) * (1 + len(input_shape))), (1, *input_shape)
        )
        with watched_calls(layers, note):
            copy(x)
    return Summary(tuple(rows), count_parameters(net))


def layer_names(net: Any) -> dict[int, str]:
    """Return the path and class of each module of a network, by its `id`."""
    return {
        id(module): f"{path} {type(module).__name__}".strip() for path, module in tree.named_branches(net)
    }


_watching = threading.RLock()


@contextlib.contextmanager
def watched_calls(
    modules: list[Any],
    note: Callable[[Any, Any], None] = lambda _module, _output: None,
    enter: Callable[[Any, tuple[Any, ...]], None] = lambda _module, _inputs: None,
) -> Iterator[None]:
    """Report the calls of some modules.

    ``enter(module, inputs)`` comes before each, with its inputs, ``note(module, output)`` behind.
    """
    modules = [module for module in modules if callable(module)]
    waiting = {id(module) for module in modules}

    def watch(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: Any, *inputs: Any, **options: Any) -> Any:
            if id(module) not in waiting:  # not one of them, or called as super().__call__ from its own call
                return original(module, *inputs, **options)
            waiting.remove(id(module))
            enter(module, (*inputs, *options.values()))
            output = original(module, *inputs, **options)
            waiting.add(id(module))
            note(module, output)
            return output

        return call

    with _watching:
        # The class that defines a module's call may be one that it inherits from.
        classes = {next(c for c in type(m).__mro__ if "__call__" in vars(c)) for m in modules}
        originals = {cls: vars(cls)["__call__"] for cls in classes}
        try:
            for cls, original in originals.items():
                cls.__call__ = watch(original)  # type: ignore[method-assign]
            yield
        finally:
            for cls, original in originals.items():
                cls.__call__ = original  # type: ignore[method-assign]
