"""What was recorded: operations between variables, as a graph that is rewritten and never patched."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from math import isqrt, prod
from typing import Any, NamedTuple

from xpnet.cached import cached_property
from xpnet.replay.functions import PRODUCTS, VIEWS, WITHOUT_ARITHMETIC

_numbers = count()


class Variable:
    """An array of a plan, of which the shape and the dtype are known before the replay.

    Attributes
    ----------
    number : int
        Its name, in the order of the operations.
    shape : tuple of int
    dtype : dtype
    """

    __slots__ = ("dtype", "number", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.number = next(_numbers)
        self.shape = shape
        self.dtype = dtype

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        length = getattr(self.dtype, "itemsize", None)
        if length is None:  # not every library says how long an element is
            bits = re.search(r"\d+$", str(self.dtype))
            length = int(bits[0]) // 8 if bits else 1
        return self.size * int(length)

    def __repr__(self) -> str:
        return f"%{self.number}"


@dataclass(eq=False, slots=True, repr=False)
class Operation:
    """A call of a function of a library. `dataclasses.replace` makes one like it, of other arguments, say.

    Graphs share operations, so that none is changed. (A frozen dataclass would take three times as long to
    make.)

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
    results : tuple of Variable
    several : bool
        Whether the function returns a sequence of arrays.
    shares : bool
        Whether a result was a view of an argument.
    precision : str
        Of a matrix product: what its operands were rounded to.
    layer : str
        Of a network, that called it, if that is known.
    called : str
        The function that was called, in whose place it stands; by default its own name.
    inputs : tuple of Variable
        The variables among the arguments, in order; one that is read twice is listed twice.
    """

    name: str
    function: Any
    arguments: tuple
    options: dict[str, Any]
    results: tuple[Variable, ...]
    several: bool = False
    shares: bool = False
    precision: str = "float32"
    layer: str = ""
    called: str = ""
    inputs: tuple[Variable, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = tuple(variables_in((self.arguments, self.options)))
        self.called = self.called or self.name

    @property
    def result(self) -> Variable:
        return self.results[0]

    @property
    def short_name(self) -> str:
        """The name without `linalg`, some of whose functions stand in the main namespace, too."""
        return self.name.removeprefix("linalg.")

    @property
    def base(self) -> Variable | None:
        """The first argument, if no other variable is read: what a view of one array is a view of."""
        alone = len(self.inputs) == 1
        return next((x for x in self.arguments[:1] if alone and x is self.inputs[0]), None)

    def reading(self, instead: Mapping[Variable, Any]) -> "Operation":
        """Return the operation that reads something else in the place of some variables."""
        if instead.keys().isdisjoint(self.inputs):
            return self
        arguments, options = substitute((self.arguments, self.options), lambda x: instead.get(x, x))
        return replace(self, arguments=arguments, options=options)

    def __repr__(self) -> str:
        results = ", ".join(map(repr, self.results))
        return f"{results} = {self.name}({', '.join(map(repr, self.inputs))})"


def variables_in(value: Any) -> list[Variable]:
    """Return the variables among arguments, in lists, tuples and dicts too."""
    found: list[Variable] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Variable]) -> None:
    kind = type(value)
    if kind is Variable:
        found.append(value)
    elif kind is tuple or kind is list:
        for item in value:
            _gather(item, found)
    elif kind is dict:
        for item in value.values():
            _gather(item, found)


def _is_variable(x: Any) -> bool:
    return type(x) is Variable


def substitute(value: Any, change: Callable[[Any], Any], is_one: Callable[[Any], bool] = _is_variable) -> Any:
    """Put something else in the place of each variable in the arguments of a function, or of what is one."""
    kind = type(value)
    if kind in (list, tuple):
        return kind([substitute(item, change, is_one) for item in value])
    if kind is dict:
        return {key: substitute(item, change, is_one) for key, item in value.items()}
    if kind is slice:
        return slice(*substitute((value.start, value.stop, value.step), change, is_one))
    return change(value) if is_one(value) else value


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
    if operation.name in PRODUCTS:
        first, second = (x.shape for x in operation.arguments[:2])
        if operation.short_name != "tensordot":
            return 2 * result.size * first[-1]
        # Whatever the axes are: of sizes n k, k m and n m, the product is (n k m) squared.
        return 2 * isqrt(result.size * prod(first) * prod(second))
    if operation.name in WITHOUT_ARITHMETIC:
        return 0
    return max([result.size, *(x.size for x in operation.inputs)])


# What stands in the place of an operation: others, and what stands in the place of its results.
Instead = tuple[Sequence[Operation], Sequence[Any]]


class Graph:
    """Operations in an order in which they can be done, with what goes in and what comes out.

    Graphs share variables, and a new one numbers them anew.

    Attributes
    ----------
    inputs : tuple of Variable
    operations : tuple of Operation
    outputs : tuple
        Variables, and constants.
    recorded : int
        How many operations there were before it was rewritten.
    """

    def __init__(
        self,
        inputs: Iterable[Variable],
        operations: Iterable[Operation],
        outputs: Iterable[Any],
        recorded: int | None = None,
    ) -> None:
        self.inputs, self.operations, self.outputs = tuple(inputs), tuple(operations), tuple(outputs)
        self.recorded = len(self.operations) if recorded is None else recorded
        made = (operation.results for operation in self.operations)
        for x in chain(self.inputs, *made):  # in order, which is the order within kernels, too
            x.number = next(_numbers)

    @property
    def variables(self) -> list[Variable]:
        """All variables: the inputs and the results of the operations."""
        return [*self.inputs, *self.makers]

    @property
    def returned(self) -> list[Variable]:
        """The variables among the outputs."""
        return [x for x in self.outputs if type(x) is Variable]

    @cached_property
    def makers(self) -> dict[Variable, Operation]:
        """The operation that makes each variable; the inputs have none."""
        return {x: operation for operation in self.operations for x in operation.results}

    @cached_property
    def readers(self) -> dict[Variable, list[Operation]]:
        """The operations that read each variable, in order."""
        readers: dict[Variable, list[Operation]] = {x: [] for x in self.variables}
        for operation in self.operations:
            for x in operation.inputs:
                readers[x].append(operation)
        return readers

    def only_reader(self, x: Variable) -> Operation | None:
        """Return the operation that reads a variable, if nothing else does and it is not returned."""
        readers = self.readers[x]
        return readers[0] if len(readers) == 1 and x not in self.returned else None

    def rewritten(self, change: Callable[[Operation], Instead | None]) -> "Graph":
        """Return a graph in which others stand in the place of operations.

        Parameters
        ----------
        change : callable
            ``change(operation)`` returns the operations that stand in its place and, for each of its results,
            what stands in the place of that; None where it stays. It is called for one after the other, in
            whose arguments what was put in the place of others stands already.
        """
        instead: dict[Variable, Any] = {}
        operations: list[Operation] = []
        for operation in self.operations:
            operation = operation.reading(instead)
            changed = change(operation)
            if changed is None:
                operations.append(operation)
                continue
            new, results = changed
            operations += new
            pairs = zip(operation.results, results, strict=True)
            instead.update((x, y) for x, y in pairs if x is not y)
        outputs = substitute(self.outputs, lambda x: instead.get(x, x))
        return Graph(self.inputs, operations, outputs, self.recorded)

    def replace(self, instead: Mapping[Operation, Sequence[Operation]]) -> "Graph":
        """Return a graph in which others stand in the place of operations, and make their results."""
        operations = [new for each in self.operations for new in instead.get(each, [each])]
        return Graph(self.inputs, operations, self.outputs, self.recorded)

    def cost(self) -> Cost:
        """Count the arithmetic and the memory traffic of one run."""
        operations = bytes_moved = 0
        for operation in self.operations:
            read = [x for x in operation.inputs if operation.name not in VIEWS]
            written = [x for x in operation.results if operation.name not in VIEWS]
            bytes_moved += sum(x.nbytes for x in (*read, *written))
            operations += _arithmetic(operation)
        return Cost(operations, bytes_moved)
