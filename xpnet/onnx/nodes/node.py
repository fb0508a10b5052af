"""Nodes of a file, and how operators of ONNX are declared."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy
from onnx import helper

from xpnet.backends import asarray, concrete, device_of

NODES: dict[str, Callable] = {}

# What a run may take, so that a file can neither fill the memory nor take for ever: the most numbers that a
# node makes, beside some for each of those that go in, and the most steps of all loops, also those in loops.
MOST_NUMBERS, TIMES = 2**20, 1000
MOST_STEPS = 2**16


@dataclass
class Bounds:
    """What is left to a run."""

    numbers: int = MOST_NUMBERS
    steps: int = MOST_STEPS


_bounds: ContextVar[Bounds] = ContextVar("bounds of a run")


@dataclass(frozen=True, eq=False)
class Node:
    """A call of an operator.

    Attributes
    ----------
    kind, name : str
        The operator, and the name of the node in the file.
    inputs, outputs : tuple of str
        Names; an input that is left out has the name "".
    attributes : dict
    opset : int
        The version of the operators.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def __call__(self, xp: Any, values: list[Any]) -> Sequence[Any]:
        try:
            result = NODES[self.kind](xp, self, *_together(values))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if type(error).__module__.startswith("xpnet"):
                raise
            raise ValueError(
                f"{self.name}, a {self.kind}, cannot take what it receives: {error!r}."
            ) from error
        return result if isinstance(result, tuple | list) else (result,)

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


@dataclass(frozen=True, eq=False)
class Body:
    """The nodes of a file, or of one step of a loop.

    Attributes
    ----------
    nodes : list of Node
    arrays : dict of str to numpy.ndarray
        Initializers and constants.
    trained : set of str
        Which of them are trained.
    inputs, outputs : list of str
    outer : list of str
        What it reads of the graph around it.
    """

    nodes: list[Node]
    arrays: dict[str, numpy.ndarray]
    trained: set[str]
    inputs: list[str]
    outputs: list[str]
    outer: list[str]


@contextmanager
def bounded_run(values: dict[str, Any]) -> Iterator[None]:
    """Bound what is computed inside a ``with`` block from arrays: the inputs and the weights."""
    numbers = sum(prod(x.shape) for x in values.values())
    token = _bounds.set(Bounds(MOST_NUMBERS + TIMES * numbers))
    try:
        yield
    finally:
        _bounds.reset(token)


def bounds() -> Bounds:
    """Return what is left to the run under way."""
    return _bounds.get()


def compute(xp: Any, nodes: Sequence[Node], values: dict[str, Any]) -> None:
    """Compute nodes one after the other, from values by their names, and add the results to them."""
    for node in nodes:
        results = node(xp, [values[name] if name else None for name in node.inputs])
        values.update(zip(node.outputs, results, strict=False))


def _together(values: list[Any]) -> list[Any]:
    """Bring arrays of the host to the device of the others, if there are others."""
    where = next((device_of(x) for x in values if x is not None and not isinstance(x, numpy.ndarray)), None)
    if where is None or where.library.spec == "cpu":
        return values
    return [asarray(x, device=where) if _is_data(x) else x for x in values]


def _is_data(x: Any) -> bool:
    # Small arrays of integers are shapes and axes.
    return isinstance(x, numpy.ndarray) and not (x.dtype.kind == "i" and x.ndim <= 1)


def operator(*names: str) -> Callable:
    def declare(compute: Callable) -> Callable:
        NODES.update(dict.fromkeys(names, compute))
        return compute

    return declare


def integers(x: Any) -> list[int]:
    return [int(number) for number in numpy.reshape(numpy.asarray(x), (-1,))]


def namespace_of(xp: Any, x: Any) -> Any:
    """Return the namespace of an array, which may be one of the host beside others."""
    return x.__array_namespace__() if isinstance(concrete(x), numpy.ndarray) else xp


def beside(x: Any, other: Any) -> Any:
    """Return an array of the host on the device of another one, if that is elsewhere."""
    is_far = isinstance(x, numpy.ndarray) and not isinstance(other, numpy.ndarray)
    return asarray(x, device=device_of(other)) if is_far else x


def dtype_of(xp: Any, kind: int) -> Any:
    return getattr(xp, numpy.dtype(helper.tensor_dtype_to_np_dtype(kind)).name)


def check_size(shape: Sequence[int]) -> None:
    """Refuse to make an array that is out of proportion to what goes into the network."""
    if prod(shape) > bounds().numbers:
        raise ValueError(
            f"a node may make {bounds().numbers} numbers of the inputs and weights that there are, received "
            f"the shape {tuple(shape)}."
        )


def check_together(*arrays: Any) -> None:
    """Refuse to broadcast arrays to one that is out of proportion."""
    check_size(numpy.broadcast_shapes(*(tuple(x.shape) for x in arrays)))
