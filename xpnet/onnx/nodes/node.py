"""Nodes of a file, and how operators of ONNX are declared."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy
from onnx import defs, helper

from xpnet.backends import asarray, concrete, device_of
from xpnet.cached import cached_property
from xpnet.errors import OF_WRONG_VALUES
from xpnet.scopes import having

NODES: dict[str, Callable] = {}

# What an array of a file may be made of: the dtypes of the standard, float16, and texts as objects.
DTYPES = {
    name: numpy.dtype(name).newbyteorder("<")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128", "object",
    )
}  # fmt: skip

# The operators that take texts, which are names of classes: they move what is there, and make no longer ones.
_OF_TEXTS = {
    "ArrayFeatureExtractor", "Concat", "Equal", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip

# What a run may take, so that a file can neither fill the memory nor take for ever: the most numbers that a
# node makes, with some for each of those that go in, and how many times that is kept for later nodes; the
# most numbers that all nodes read and make, where a call of a node counts as some; and the most steps of all
# loops, also of those in loops.
MOST_NUMBERS, TIMES, KEPT = 2**20, 1000, 8
MOST_WORK, WORK_TIMES, CALL_WORK = 2**27, 100_000, 1000
MOST_STEPS = 2**16


@dataclass
class Bounds:
    """What is left to a run."""

    numbers: int
    kept: int
    work: int
    steps: int = MOST_STEPS

    def take(self, read: Sequence[Any], made: Sequence[Any]) -> None:
        """Count what a node read and made, which is kept.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        made_now = numbers_in(made)
        self.kept -= made_now
        self.work -= CALL_WORK + numbers_in(read) + made_now
        if self.kept < 0 or self.work < 0:
            raise ValueError(
                "what a network computes and keeps must be in proportion to its inputs and weights, received "
                "one that goes far beyond that."
            )


def numbers_in(arrays: Iterable[Any]) -> int:
    total = 0
    for x in arrays:  # no generator, as this runs at each node of each call
        if x is not None:
            total += prod(x.shape)
    return total


_bounds: ContextVar[Bounds] = ContextVar("bounds of a run", default=Bounds(0, 0, 0))  # noqa: B039 - all take more than it has


@dataclass(frozen=True)
class Constant:
    """An array of the host as a setting of a network: it is compared by its elements, and no part of a tree.

    ``numpy.asarray(constant)`` is the array.

    Attributes
    ----------
    dtype : str
    shape : tuple of int
    content : bytes or tuple of str
        The elements in the order of C: little-endian numbers, or texts.
    """

    dtype: str
    shape: tuple[int, ...]
    content: bytes | tuple[str, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"a constant is of {', '.join(DTYPES)}, received {self.dtype!r}.")
        if not _is_tuple_of(int, self.shape) or min(self.shape, default=0) < 0:
            raise ValueError(f"the shape of a constant is a tuple of integers, received {self.shape!r}.")
        of_texts = self.dtype == "object"
        number = prod(self.shape) * (1 if of_texts else DTYPES[self.dtype].itemsize)
        right = _is_tuple_of(str, self.content) if of_texts else type(self.content) is bytes
        if not right or len(self.content) != number:
            raise ValueError(f"a constant {self} needs {number} {'texts' if of_texts else 'bytes'}.")
        if self.dtype == "bool" and not {*self.content} <= {0, 1}:
            raise ValueError("the bytes of truths are 0 and 1, received others.")
        numpy.asarray(self)  # NumPy has limits of its own

    @classmethod
    def of(cls, x: numpy.ndarray) -> "Constant":
        content = tuple(x.ravel()) if x.dtype.hasobject else x.astype(DTYPES[x.dtype.name]).tobytes()
        return cls(x.dtype.name, tuple(x.shape), content)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        if isinstance(self.content, bytes):
            stored = numpy.ndarray(self.shape, DTYPES[self.dtype], self.content)
        else:
            stored = numpy.asarray(self.content, dtype=object).reshape(self.shape)
        return numpy.array(stored, dtype=dtype or self.dtype, copy=copy)

    def __repr__(self) -> str:
        return f"{self.dtype} {self.shape}"


@dataclass(frozen=True)
class Node:
    """A call of an operator.

    Attributes
    ----------
    kind, name : str
        The operator, and the name of the node in the file.
    inputs, outputs : tuple of str
        Names; an input that is left out has the name "".
    attributes : tuple of (str, value)
        Of the kinds that the operator has in ONNX: an integer, a float, a string, a tuple of those, a
        `Constant` or a `Body`.
    opset : int
        The version of the operators.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...]
    opset: int

    def __post_init__(self) -> None:
        if self.kind not in NODES:
            raise ValueError(f"xpnet has no operator {self.kind!r}. It has {', '.join(sorted(NODES))}.")
        names = _is_tuple_of(str, self.inputs, self.outputs, (self.name,))
        if not names or not _is_tuple_of(tuple, self.attributes):
            raise ValueError(f"a {self.kind} has a name, names of inputs and outputs, and attributes.")
        kinds = _kinds_of_attributes(self.kind, self.opset)
        for name, value in self.attributes:
            if not _is_of_kind(value, kinds.get(name)):
                kind = type(value).__name__
                raise ValueError(f"{self.name}, a {self.kind}, has no attribute {name!r} of {kind}.")

    def __call__(self, xp: Any, values: list[Any]) -> Sequence[Any]:
        if not self.takes_texts:
            for x in values:
                if type(x) is numpy.ndarray and x.dtype.hasobject:
                    raise ValueError(f"{self.name}, a {self.kind}, computes with numbers, received texts.")
        try:
            result = NODES[self.kind](xp, self, *_together(values))
        except OF_WRONG_VALUES as error:
            if type(error).__module__.startswith("xpnet"):
                raise
            raise ValueError(
                f"{self.name}, a {self.kind}, cannot take what it receives: {error!r}."
            ) from error
        return result if isinstance(result, tuple | list) else (result,)

    @cached_property
    def takes_texts(self) -> bool:
        return self.kind.rpartition(".")[2] in _OF_TEXTS

    def get(self, name: str, default: Any = None) -> Any:
        return next((value for key, value in self.attributes if key == name), default)


@dataclass(frozen=True)
class Body:
    """The nodes of a file, or of one step of a loop.

    Attributes
    ----------
    nodes : tuple of Node
        In the order in which they are computed.
    inputs, outputs : tuple of str
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _is_tuple_of(Node, self.nodes) or not _is_tuple_of(str, self.inputs, self.outputs):
            raise ValueError("a body needs nodes, and names of inputs and outputs, received others.")

    def __repr__(self) -> str:
        return f"{len(self.nodes)} nodes"

    @cached_property
    def outer(self) -> tuple[str, ...]:
        """What it reads and is neither among its inputs nor made by a node before."""
        known = {"", *self.inputs}
        found: dict[str, None] = {}
        for names, made in (*((node.inputs, node.outputs) for node in self.nodes), (self.outputs, ())):
            found.update((name, None) for name in names if name not in known)
            known.update(made)
        return tuple(found)

    @cached_property
    def unread(self) -> tuple[tuple[str, ...], ...]:
        """For each node what was made by a node and is not read behind this one."""
        made = {name for node in self.nodes for name in node.outputs}
        read, found = {"", *self.outputs}, []
        for node in reversed(self.nodes):
            found.append(tuple(({*node.inputs, *node.outputs} & made) - read))
            read.update(node.inputs)
        return tuple(reversed(found))


def _is_tuple_of(kind: type, *values: Any) -> bool:
    """Say whether values are tuples of a type itself: True is no integer here."""
    return all(type(value) is tuple and {*map(type, value)} <= {kind} for value in values)


_OF = defs.OpSchema.AttrType
# The types of attributes, and whether there is one or a tuple.
_KINDS: dict[Any, tuple[type, bool]] = {
    _OF.INT: (int, False), _OF.FLOAT: (float, False), _OF.STRING: (str, False), _OF.TENSOR: (Constant, False),
    _OF.GRAPH: (Body, False), _OF.INTS: (int, True), _OF.FLOATS: (float, True), _OF.STRINGS: (str, True),
}  # fmt: skip


def _kinds_of_attributes(kind: str, opset: int) -> dict[str, Any]:
    """Return the kinds of the attributes that an operator may have, as ONNX declares them."""
    if type(opset) is not int or opset < 1:
        raise ValueError(f"the version of operators is an integer from 1 on, received {opset!r}.")
    return _declared(kind, min(opset, defs.onnx_opset_version()))


@cache
def _declared(kind: str, opset: int) -> dict[str, Any]:
    domain, _, name = kind.rpartition(".")
    try:
        schema = defs.get_schema(name, opset, domain)
    except defs.SchemaError:
        raise ValueError(f"ONNX has no operator {kind} in version {opset}.") from None
    return {name: attribute.type for name, attribute in schema.attributes.items()}


def _is_of_kind(value: Any, kind: Any) -> bool:
    if kind not in _KINDS:
        return False
    of, several = _KINDS[kind]
    items = value if several else (value,)
    return _is_tuple_of(of, items) and (of is not int or all(-(2**63) <= item < 2**63 for item in items))


def bounded_run(values: dict[str, Any]) -> AbstractContextManager[None]:
    """Bound what is computed inside a ``with`` block from arrays: the inputs and the weights."""
    given = numbers_in(values.values())
    numbers = MOST_NUMBERS + TIMES * given
    return having(_bounds, Bounds(numbers, KEPT * numbers, MOST_WORK + WORK_TIMES * given))


def bounds() -> Bounds:
    """Return what is left to the run under way."""
    return _bounds.get()


def compute(xp: Any, body: Body, values: dict[str, Any]) -> list[Any]:
    """Compute nodes one after the other, from values by their names, and return the outputs."""
    left = bounds()
    kept = left.kept
    try:
        for node, unread in zip(body.nodes, body.unread, strict=True):
            given = [values[name] if name else None for name in node.inputs]
            results = node(xp, given)
            left.take(given, results)
            values.update(zip(node.outputs, results, strict=False))
            left.kept += numbers_in([values.pop(name, None) for name in unread])
        left.kept = kept
        return [values[name] for name in body.outputs]
    except KeyError as error:  # of a name, as nodes raise none
        (name,) = error.args
        raise ValueError(f"a node must read what is made before it, received {name}, which is not.") from None


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
