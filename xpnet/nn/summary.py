"""The table of a network's layers."""

import contextlib
import functools
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xpnet import tree
from xpnet.backends import asarray, device, device_of, use_device


@dataclass(frozen=True)
class Row:
    """One call of a layer.

    Attributes
    ----------
    layer : str
        Its path and class.
    output_shape : tuple of int
        Without the batch axis.
    parameters : int
        How many numbers it is made of, without those of the modules inside.
    frozen : bool or tuple of str
        Whether they are frozen, or the names of the attributes that are.
    """

    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    frozen: bool | tuple[str, ...] = False


@dataclass(frozen=True)
class Summary:
    """The layers of a network in the order of their calls, and the numbers of parameters: all, and frozen."""

    rows: tuple[Row, ...]
    parameters: int
    frozen: int = 0

    def __str__(self) -> str:
        cells = [("layer", "output", "parameters", "")]
        cells += [
            (r.layer, _shape(r.output_shape), f"{r.parameters:,}", _frozen(r.frozen)) for r in self.rows
        ]
        totals = {"total": self.parameters}
        if self.frozen:
            totals |= {"trained": self.parameters - self.frozen, "frozen": self.frozen}
        cells += [(name, "", f"{number:,}", "") for name, number in totals.items()]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        rule = "─" * (sum(widths) + 4)
        lines = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in cells
        ]
        end = len(self.rows) + 1
        return "\n".join([lines[0], rule, *lines[1:end], rule, *lines[end:]])

    __repr__ = __str__


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['batch', *map(str, shape)])})"


def _frozen(frozen: bool | tuple[str, ...]) -> str:
    if isinstance(frozen, tuple):
        return f"frozen: {', '.join(frozen)}"
    return "frozen" if frozen else ""


def _number(leaves: list[Any]) -> int:
    """Return how many numbers the arrays among some leaves hold."""
    return sum(math.prod(leaf.shape) for leaf in leaves if tree.is_array(leaf))


def _own_parameters(module: tree.Branch) -> int:
    """Return the number of parameters of a module, without those of the modules inside."""
    attributes = {name: value for name, value in vars(module).items() if name not in module.state}
    return _number(tree.outside_branches(attributes))


def summarize(net: Any, input_shape: tuple[int, ...], dtype: str | None) -> Summary:
    """Call a copy of a network on one example of zeros, and note what each layer returns."""
    copy = tree.copied(net).eval()
    # Layers are the modules without modules inside, and those that have parameters beside such modules.
    layers = [part for part in tree.branches(copy) if _own_parameters(part) or len(tree.branches(part)) == 1]
    names = layer_names(copy)
    arrays = tree.leaves(copy, state=True)
    where = device_of(arrays[0]) if arrays else device()
    parameters = tree.leaves(net, frozen=True)
    kind = dtype or (str(parameters[0].dtype).rpartition(".")[2] if parameters else "float32")
    rows: list[Row] = []

    def note(module: Any, output: Any) -> None:
        if tree.is_array(output):
            shape, number = tuple(output.shape[1:]), _own_parameters(module)
            rows.append(Row(names[id(module)], shape, number, module.frozen))

    with use_device(where):
        x = asarray([0.0], device=where, dtype=kind)
        x = where.namespace.broadcast_to(
            where.namespace.reshape(x, (1,) * (1 + len(input_shape))), (1, *input_shape)
        )
        with watched_calls(layers, note):
            copy(x)
    number = _number(parameters)
    return Summary(tuple(rows), number, number - _number(tree.leaves(net)))


def layer_names(net: Any) -> dict[int, str]:
    """Return the path and class of each module of a network, by its `id`."""
    return {
        id(module): f"{path} {type(module).__name__}".strip() for path, module in tree.named_branches(net)
    }


_watchers: dict[int, Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]] = {}


class _Watched(tree.Branch):
    """The class that a watched module has before its own: it tells of calls."""

    def __init_subclass__(cls) -> None:
        tree.register_branch(cls)  # and nothing that the other class does with those derived from it

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        call = super().__call__  # type: ignore[misc]
        watcher = _watchers.pop(id(self), None)
        if watcher is None:  # called by itself
            return call(*inputs, **options)
        try:
            return watcher(call, inputs, options)
        finally:
            _watchers[id(self)] = watcher


@functools.cache
def _watched(cls: Any) -> Any:
    """Return a class like another one whose objects can be watched."""
    if issubclass(cls, _Watched):  # of a copy of what is watched already
        return cls
    names = {name: getattr(cls, name) for name in ("__doc__", "__module__", "__qualname__")}
    return types.new_class(cls.__name__, (_Watched, cls), exec_body=lambda space: space.update(names))


@contextlib.contextmanager
def watched_calls(
    modules: list[Any],
    note: Callable[[Any, Any], None] = lambda _module, _output: None,
    enter: Callable[[Any, tuple[Any, ...]], None] = lambda _module, _inputs: None,
) -> Iterator[None]:
    """Report the calls of some modules: of a copy of a network that nothing else calls meanwhile.

    ``enter(module, inputs)`` comes before each, with its inputs, ``note(module, output)`` behind.
    """

    def watcher(module: Any) -> Callable[..., Any]:
        def watch(call: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
            enter(module, (*inputs, *options.values()))
            output = call(*inputs, **options)
            note(module, output)
            return output

        return watch

    own: dict[int, tuple[Any, Any]] = {
        id(module): (module, type(module)) for module in modules if callable(module)
    }
    try:
        for module, cls in own.values():
            _watchers[id(module)] = watcher(module)
            object.__setattr__(module, "__class__", _watched(cls))
        yield
    finally:
        for module, cls in own.values():
            object.__setattr__(module, "__class__", cls)
            _watchers.pop(id(module), None)
