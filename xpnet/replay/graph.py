"""What was recorded: operations between variables, and how they are made fewer before a plan is built."""

import re
from collections.abc import Callable, Iterator
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy
from numpy import broadcast_shapes

from xpnet.replay.functions import BROADCASTING, VIEWS, WITHOUT_ARITHMETIC
from xpnet.replay.same.data import data

_numbers = count()


class Variable:
    """An array of a plan, of which the shape and the dtype are known before the replay.

    Attributes
    ----------
    number : int
        Its name, in the order of recording.
    shape : tuple of int
    dtype : dtype
    operation : Operation or None
        What makes it; None for an input.
    """

    __slots__ = ("dtype", "number", "operation", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any, operation: "Operation | None" = None) -> None:
        self.number = next(_numbers)
        self.shape = shape
        self.dtype = dtype
        self.operation = operation

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        bits = re.search(r"\d+$", str(self.dtype))  # not every library says how long an element is
        return self.size * (int(bits[0]) // 8 if bits else 1)

    def __repr__(self) -> str:
        return f"%{self.number}"


class Operation:
    """A call of a function of a library.

    Attributes
    ----------
    name : str
        The function's name in the standard, such as ``"linalg.qr"``.
    function : callable or None
        It takes the library's arrays.
    arguments : tuple
        Variables, constant arrays, numbers and anything else, also in lists and tuples.
    options : dict
        The keyword arguments.
    inputs : list of Variable
        The variables among the arguments, in order; one that is read twice is listed twice.
    results : list of Variable
    several : bool
        Whether the function returns a sequence of arrays.
    shares : bool
        Whether a result was a view of an argument.
    precision : str
        Of a matrix product: what its operands were rounded to.
    """

    __slots__ = (
        "arguments", "function", "inputs", "name", "options", "precision", "results", "several", "shares",
    )  # fmt: skip

    def __init__(self, name: str, function: Any, arguments: Any, options: Any, several: bool) -> None:
        self.name = name
        self.function = function
        self.arguments = arguments
        self.options = options
        self.inputs = list(_variables((arguments, options)))
        self.results: list[Variable] = []
        self.several = several
        self.shares = False
        self.precision = "float32"

    @property
    def result(self) -> Variable:
        return self.results[0]

    def substitute(self, change: "Callable[[Variable], Any]") -> None:
        """Put something else in the place of each variable that is read."""
        self.arguments = substitute(self.arguments, change)
        self.options = substitute(self.options, change)
        self.inputs = list(_variables((self.arguments, self.options)))

    def __repr__(self) -> str:
        results = ", ".join(map(repr, self.results))
        return f"{results} = {self.name}({', '.join(map(repr, self.inputs))})"


def made(name: str, function: Any, arguments: tuple, options: dict, results: list[Variable]) -> Operation:
    """Return an operation that was not recorded, with its results."""
    operation = Operation(name, function, arguments, options, len(results) > 1)
    operation.results = results
    for x in results:
        x.operation = x.operation or operation
    return operation


def _before_broadcast(x: Any) -> Any:
    """Return what was broadcast to make an array; of a constant with equal elements, one of them."""
    if isinstance(x, numpy.ndarray) and x.size > 1:
        one = x.reshape(-1)[:1]
        return one.reshape(()) if _all_are(x, one) else x
    made_by = x.operation if type(x) is Variable else None
    if made_by is None or made_by.name != "broadcast_to" or type(made_by.arguments[0]) is not Variable:
        return x
    return _before_broadcast(made_by.arguments[0])


def _all_are(x: numpy.ndarray, one: numpy.ndarray) -> bool:
    """Say whether all elements are the same, bit for bit: -0.0 is not 0.0, and NaN is NaN."""
    return x.tobytes() == one.tobytes() * x.size


def _variables(value: Any) -> Iterator[Variable]:
    if type(value) is Variable:
        yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from _variables(item)
    elif type(value) is dict:
        yield from _variables(tuple(value.values()))


def substitute(value: Any, change: Callable[[Variable], Any]) -> Any:
    """Put something else in the place of each variable in the arguments of an operation."""
    if type(value) is Variable:
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(substitute(item, change) for item in value)
    if type(value) is dict:
        return {key: substitute(item, change) for key, item in value.items()}
    return value


class Cost(NamedTuple):
    """What one run takes.

    Attributes
    ----------
    floating_point_operations : int
        Additions, multiplications and so on; a function such as `exp` of one number counts as one.
    bytes : int
        What all functions read and write, each by itself: those in one loop need less.
    """

    floating_point_operations: int
    bytes: int


def _arithmetic(operation: Operation) -> int:
    result = operation.results[0]
    if operation.name in ("matmul", "product"):
        return 2 * result.size * operation.arguments[0].shape[-1]
    if operation.name in WITHOUT_ARITHMETIC:
        return 0
    return max([result.size, *(x.size for x in operation.inputs)])


class Graph:
    """Operations in an order in which they can be done, with what goes in and what comes out.

    Attributes
    ----------
    inputs : list of Variable
    operations : list of Operation
    outputs : list
        Variables, and constants.
    """

    def __init__(self, inputs: list[Variable], operations: list[Operation], outputs: list[Any]) -> None:
        self.inputs = inputs
        self.operations = operations
        self.outputs = outputs
        self.recorded = len(operations)
        self._share()
        self._broadcast_late()
        self.remove_dead()

    @property
    def variables(self) -> list[Variable]:
        """All variables: the inputs and the results of the operations."""
        return [*self.inputs, *(x for operation in self.operations for x in operation.results)]

    @property
    def returned(self) -> list[Variable]:
        """The variables among the outputs."""
        return [x for x in self.outputs if type(x) is Variable]

    def number(self) -> None:
        """Number the variables anew, in the order of the operations, which is the order within kernels."""
        for x in self.variables:
            x.number = next(_numbers)

    def cost(self) -> Cost:
        """Count the arithmetic and the memory traffic of one run."""
        operations = bytes_moved = 0
        for operation in self.operations:
            read = [x for x in operation.inputs if operation.name not in VIEWS]
            written = [x for x in operation.results if operation.name not in VIEWS]
            bytes_moved += sum(x.nbytes for x in (*read, *written))
            operations += _arithmetic(operation)
        return Cost(operations, bytes_moved)

    def _share(self) -> None:
        """Do once what was recorded several times with the same arguments."""
        first: dict[Any, Operation] = {}
        same: dict[Variable, Variable] = {}
        kept = []
        for operation in self.operations:
            if not same.keys().isdisjoint(operation.inputs):
                operation.substitute(lambda v: same.get(v, v))
            key = operation.name, data((operation.arguments, operation.options), _identity)
            before = first.setdefault(key, operation)
            if before is operation:
                kept.append(operation)
            else:
                same.update(zip(operation.results, before.results, strict=True))
        self.operations = kept
        self.outputs = substitute(self.outputs, lambda v: same.get(v, v))

    def _broadcast_late(self) -> None:
        """Let elementwise functions broadcast their arguments, in place of functions before them."""
        for operation in self.operations:
            if operation.name not in BROADCASTING:
                continue
            small = tuple(_before_broadcast(x) for x in operation.arguments)
            if any(a is not b for a, b in zip(small, operation.arguments, strict=True)):
                shapes = [x.shape for x in small if hasattr(x, "shape")]
                if broadcast_shapes(*shapes) == operation.result.shape:
                    operation.arguments = small
                    operation.substitute(lambda x: x)

    def remove_dead(self) -> None:
        """Leave out what leads to no output."""
        needed = set(_variables(self.outputs))
        kept = []
        for operation in reversed(self.operations):
            if not needed.isdisjoint(operation.results):
                kept.append(operation)
                needed.update(operation.inputs)
        self.operations = kept[::-1]


def _identity(value: Any) -> Any:
    return type(value), id(value)
