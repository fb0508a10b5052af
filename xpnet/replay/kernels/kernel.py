"""Chains of elementwise functions as one loop: what is computed for one element, and in which order.

A `Kernel` is a description that knows no library. It goes through an array of some rows and columns, in which
every other array is *full* (an element for each), a *row* (repeated for each row), a *column* (repeated along
each row) or a *number*. A row may be gone through several times: what is known only at its end, such as its
sum, can be used the next time. What is read may be a view, and full ones may be *stacked* into the rows of a
larger array. `python.py` renders it for numba, `c.py` for CUDA.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy

from xpnet import tree
from xpnet.backends import to_numpy
from xpnet.replay.functions import COMPARISONS, PICK, REDUCTIONS, SCATTER, STACK
from xpnet.replay.graph import Operation, Variable

FULL, ROW, COLUMN, NUMBER, STACKED = "full", "row", "column", "number", "stacked"


class View(NamedTuple):
    """Where the elements of a view are in the array that it is a view of, counted in elements.

    Attributes
    ----------
    base : Variable
        Its elements stand one after the other.
    start : int
        Where the first element is.
    axes : tuple of (int, int)
        How many elements there are along each axis, and from one to the next; the last axis varies fastest.
        Those along which one step serves are one axis.
    """

    base: Variable
    start: int
    axes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, base: Variable, whole: numpy.ndarray, view: numpy.ndarray) -> "View | None":
        """Describe an array that lies in another one, whose elements stand one after the other."""
        if view.dtype != whole.dtype or not view.size:
            return None
        axes: list[tuple[int, int]] = []
        for n, stride in zip(view.shape, view.strides, strict=True):
            step = stride // view.itemsize
            if n > 1:
                together = axes and axes[-1][1] == n * step
                axes.append((axes.pop()[0] * n, step) if together else (n, step))
        start = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return cls(base, start // view.itemsize, tuple(axes))

    @property
    def columns(self) -> int:
        """How long its rows are, where they are equally far apart and each is one stretch; else 0."""
        return self.axes[1][0] if len(self.axes) == 2 and self.axes[1][1] == 1 else 0

    def index_of(self, row: str, column: str, columns: int) -> str:
        """Return the text of where an element is, by its row and its column among so many."""
        lengths = [prod(n for n, _ in self.axes[number:]) for number in range(len(self.axes) + 1)]
        if columns in lengths:
            first = lengths.index(columns)
            terms = [*_steps(row, self.axes[:first]), *_steps(column, self.axes[first:])]
        else:
            terms = _steps(f"({row} * {columns} + {column})", self.axes)
        return " + ".join([*terms, str(self.start)])


def _steps(number: str, axes: tuple[tuple[int, int], ...]) -> list[str]:
    """Return the steps along each axis to the element with a number."""
    steps, behind = [], 1
    for axis, (n, step) in reversed(list(enumerate(axes))):
        index = number if behind == 1 else f"{number} / {behind}"
        if step:
            steps.append(f"{index} % {n} * {step}" if axis else f"{index} * {step}")
        behind *= n
    return steps[::-1]


class Target(NamedTuple):
    """What can be written for a processor, and is worth it.

    Attributes
    ----------
    most_arrays, most_operations : int
        In one kernel.
    text : callable
        Returns the text of one element of an operation; None if there is none, or it is not worth it.
    dtypes : callable
        Returns the names of the dtypes that an operation can have.
    can_total : callable
        Says so of a reduction, given what it leaves.
    accepts : callable
        Says whether a kernel can be written as a whole.
    shortest : int
        How many elements the rows of a view must have, and those of a stack, as the library is as fast with
        shorter ones; 0 where any view can be read, whatever its rows.
    """

    most_arrays: int
    most_operations: int
    text: Callable[[Operation], str | None]
    dtypes: Callable[[Operation], Container[str]]
    can_total: Callable[[Operation, str], bool]
    accepts: "Callable[[Kernel], bool]"
    shortest: int

    def can_make(self, operation: Operation) -> bool:
        """Say whether the elements of an operation can be computed one by one."""
        dtypes = self.dtypes(operation)
        if operation.result.dtype.name not in dtypes:
            return False
        return operation.name in (PICK, SCATTER, STACK) or (
            self.text(operation) is not None
            and all(
                x.dtype.name in dtypes if hasattr(x, "dtype") else isinstance(x, bool | int | float)
                for x in elements(operation)
            )
        )


def elements(operation: Operation) -> tuple:
    """Return those arguments of an elementwise function of which it reads elements."""
    return operation.arguments[:1] if operation.name == "astype" else operation.arguments


class Part(NamedTuple):
    """An operation as a part of a kernel.

    Attributes
    ----------
    operation : Operation
    result : Variable
    size : int
        The number of elements that it goes through.
    columns : int
        How many of them make a row; 0 where nothing is a row or a column.
    read : tuple of (Variable, str)
        What is read, and as what it is repeated: full, row, column or number.
    kind : str
        What the result is.
    views : dict of Variable to View
        The views among what is read.
    """

    operation: Operation
    result: Variable
    size: int
    columns: int
    read: tuple[tuple[Variable, str], ...]
    kind: str = FULL
    views: Mapping[Variable, View] = {}


def part_of(
    operation: Operation,
    origin: Callable[[Variable], Variable],
    strided: Mapping[Variable, View],
    target: Target,
) -> Part | None:
    """Return what an operation is in a kernel; None if it cannot be in one.

    ``origin`` gives the variable whose elements another one has in the same order, in another shape, and
    ``strided`` where the elements of a view are that do not stand one after the other.
    """
    if operation.name in REDUCTIONS:
        part = _reduction(operation)
        can = part is not None and target.can_total(operation, part.kind)
    else:
        can = target.can_make(operation)
        special = {PICK: _pick, SCATTER: _scatter, STACK: _stack}
        part = special.get(operation.name, _elementwise)(operation) if can else None
    if part is None or not part.size or not can:
        return None
    views = {x: strided[x] for x, _ in part.read if x in strided}
    columns = {part.columns}
    if target.shortest:
        columns |= {view.columns for view in views.values()}
        if any(x in views and kind != FULL for x, kind in part.read):
            return None
        if part.kind == STACKED and part.columns < target.shortest:
            return None
    columns.discard(0)
    if len(columns) > 1:
        return None
    read = tuple((origin(x), kind) for x, kind in part.read)
    return part._replace(read=read, columns=max(columns, default=0), views=views)


def _reduction(operation: Operation) -> Part | None:
    """A reduction of trailing axes leaves a column, one of leading axes a row, and one of all a number."""
    x, *rest = operation.arguments
    result, options = operation.result, operation.options
    if rest or type(x) is not Variable or x.dtype.name not in ("float32", "float64"):
        return None
    if x.dtype != result.dtype or options.keys() - {"axis", "dtype", "keepdims"}:
        return None
    ndim, axis = len(x.shape), options.get("axis")
    given = range(ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    axes = sorted(a % ndim for a in given)
    number = len(axes)
    if not axes:
        return None
    if prod(size for a, size in enumerate(x.shape) if a not in axes) == 1:
        kind, columns = NUMBER, 0
    elif axes == list(range(number)):
        kind, columns = ROW, prod(x.shape[number:])
    elif axes == list(range(ndim - number, ndim)):
        kind, columns = COLUMN, prod(x.shape[ndim - number :])
    else:
        return None
    return Part(operation, result, x.size, columns, ((x, FULL),), kind)


def _elementwise(operation: Operation) -> Part | None:
    """A function of elements reads each argument as it is repeated to the shape of the result."""
    result = operation.result
    if operation.options and operation.name != "astype":
        return None
    arguments = elements(operation)
    if any(type(x) is not Variable and getattr(x, "shape", ()) != () for x in arguments):
        return None  # a constant array, which is rare, would have to be handed in
    if operation.name in COMPARISONS and not _fit_together(arguments):
        return None
    read, columns = [], set()
    for x in operation.inputs:
        repeated = pattern(x.shape, result.shape)
        if repeated is None:
            return None
        kind, axes = repeated
        read.append((x, kind))
        columns.add(prod(result.shape[-axes:]) if axes else 0)
    columns.discard(0)
    if len(columns) > 1:
        return None
    return Part(operation, result, result.size, max(columns, default=0), tuple(read))


def _fit_together(arguments: tuple) -> bool:
    """Say whether arrays of integers can have the numbers that they are compared with: uint8 has no 300."""
    numbers = [x for x in arguments if type(x) is int]
    limits = [numpy.iinfo(x.dtype.name) for x in arguments if hasattr(x, "dtype") and "int" in x.dtype.name]
    return all(limit.min <= number <= limit.max for number in numbers for limit in limits)


def _pick(operation: Operation) -> Part | None:
    """`take_along_axis` of one element in each row leaves a column: the logit of the label, say."""
    x, indices, *rest = operation.arguments
    axis = (*rest, operation.options.get("axis", -1))[0]
    if type(x) is not Variable or not _is_index(indices, x.shape) or axis not in (-1, len(x.shape) - 1):
        return None
    return Part(operation, operation.result, x.size, x.shape[-1], ((x, FULL), (indices, COLUMN)), COLUMN)


def _scatter(operation: Operation) -> Part | None:
    """The gradient of that: `scatter_add` of one element into each row of zeros."""
    values, key, shape = operation.arguments
    shape = tuple(shape)
    if type(key) is not tuple or len(key) != len(shape) or type(values) is not Variable:
        return None
    *others, indices = key
    if not _is_index(indices, shape) or values.shape != indices.shape:
        return None
    rows = numpy.ogrid[tuple(slice(size) for size in shape)][:-1]
    if not all(
        tree.is_array(x) and numpy.array_equal(to_numpy(x), y) for x, y in zip(others, rows, strict=True)
    ):
        return None
    read = ((values, COLUMN), (indices, COLUMN))
    return Part(operation, operation.result, prod(shape), shape[-1], read)


def _stack(operation: Operation) -> Part | None:
    """A `stack` stores the rows of its arrays beside each other."""
    arrays, *rest = operation.arguments
    result, axis = operation.result, operation.options.get("axis", 0)
    if rest or not all(type(x) is Variable and x.dtype == result.dtype for x in arrays):
        return None
    columns = prod(arrays[0].shape[axis % len(result.shape) :])
    return Part(operation, result, arrays[0].size, columns, tuple((x, FULL) for x in arrays), STACKED)


def _is_index(indices: Any, shape: tuple[int, ...]) -> bool:
    """Say whether these can be the numbers of one element in each row."""
    is_one = type(indices) is Variable and indices.shape == (*shape[:-1], 1)
    return is_one and len(shape) > 1 and shape[-1] > 1 and indices.dtype.name in ("int32", "int64")


def pattern(shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[str, int] | None:
    """Return how an array is repeated to a larger shape, and how many trailing axes a row has (0: any)."""
    if shape == whole:
        return FULL, 0
    if prod(shape) == 1:
        return NUMBER, 0
    shape = (1,) * (len(whole) - len(shape)) + tuple(shape)
    for columns in range(1, len(whole)):
        lead, trail = shape[:-columns], shape[-columns:]
        if prod(lead) == 1 and trail == whole[-columns:]:
            return ROW, columns
        if prod(trail) == 1 and lead == whole[:-columns]:
            return COLUMN, columns
    return None


class Kernel:
    """What is computed for each element.

    Attributes
    ----------
    parts : list of Part
        In order.
    size, columns : int
        The number of elements, and how many of them make a row; 0 where nothing is a row or a column.
    kinds : dict of Variable to str
        What each variable is: full, row, column, number or stacked.
    views : dict of Variable to View
        The inputs that are views.
    """

    def __init__(self, parts: list[Part], size: int, columns: int, kinds: dict[Variable, str]) -> None:
        self.parts = parts
        self.size = size
        self.columns = columns
        self.kinds = kinds
        self.views = {x: view for part in parts for x, view in part.views.items()}

    @classmethod
    def of(cls, parts: Iterable[Part]) -> "Kernel | None":
        """Return the kernel of some operations, or None if they do not fit in one loop."""
        parts = sorted(parts, key=lambda part: part.result.number)
        size = max(part.size for part in parts)
        several = {part.columns for part in parts if part.size == size} - {0}
        if len(several) > 1:
            return None
        columns = max(several, default=0)
        rows = size // columns if columns else 0
        kinds: dict[Variable, str] = {}
        for part in parts:
            # An operation on a column is done once for each row.
            on_a_column = part.size < size
            if on_a_column and (part.size != rows or part.columns):
                return None
            for x, kind in (*part.read, (part.result, part.kind)):
                if on_a_column and kind == FULL:
                    kind = COLUMN
                if kinds.setdefault(x, kind) != kind:
                    return None
        made = {part.result for part in parts}
        for part in parts:
            for x, _ in part.read:
                if x in made and kinds[x] in (ROW, NUMBER, STACKED):
                    return None  # it is there only behind the loop
        return cls(parts, size, columns, kinds)

    @property
    def has_totals(self) -> bool:
        """Whether what is computed for one element depends on others, or is added to what others share."""
        return any(part.operation.name in REDUCTIONS or part.operation.name == PICK for part in self.parts)

    @property
    def made(self) -> set[str]:
        """What kinds its results are."""
        return {self.kinds[part.result] for part in self.parts}

    @property
    def is_by_rows(self) -> bool:
        """Whether what is made for one element depends on others in its row, or is the same for all of it."""
        return COLUMN in self.made or any(part.operation.name in (PICK, SCATTER) for part in self.parts)

    @property
    def inputs(self) -> list[Variable]:
        """The variables that are read and not made here."""
        made = {part.result for part in self.parts}
        return list(dict.fromkeys(x for part in self.parts for x, _ in part.read if x not in made))

    @property
    def in_place(self) -> list[Variable]:
        """The inputs that a full result may be written over, as each element is read before."""
        picked = {part.read[0][0] for part in self.parts if part.operation.name == PICK}
        return [x for x in self.inputs if self.kinds[x] == FULL and x not in picked and x not in self.views]

    @property
    def handed_in(self) -> list[Variable]:
        """The arrays that the inputs are in."""
        return [self.views[x].base if x in self.views else x for x in self.inputs]

    @property
    def arrays(self) -> list[Variable]:
        """What a loop at least goes through: its inputs, and the last result."""
        return [*(x for x in self.inputs if x.size > 1), self.parts[-1].result]
