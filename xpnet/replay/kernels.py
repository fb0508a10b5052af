"""Chains of elementwise functions as one loop: what is computed for one element, and in which order.

A `Kernel` is a description that knows no library. It goes through an array of some rows and columns, in which
every other array is *full* (an element for each), a *row* (repeated for each row), a *column* (repeated along
each row) or a *number*. A row may be gone through several times: what is known only at its end, such as its
sum, can be used the next time. `loops.py` renders it for numba.
"""

from collections.abc import Callable, Iterable
from math import inf, prod
from typing import Any, NamedTuple

import numpy

from xpnet.replay.graph import Operation, Variable

# One element of each function. All arguments have been converted to the dtype in which it computes.
ELEMENT = {
    "abs": "abs({0})",
    "add": "{0} + {1}",
    "astype": "{0}",
    "bitwise_and": "{0} & {1}",
    "bitwise_invert": "~{0}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "divide": "{0} / {1}",
    "equal": "{0} == {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "logical_and": "{0} and {1}",
    "logical_not": "not {0}",
    "logical_or": "{0} or {1}",
    "maximum": "{0} if ({0} >= {1} or {0} != {0}) else {1}",  # NaN in either gives NaN
    "minimum": "{0} if ({0} <= {1} or {0} != {0}) else {1}",
    "multiply": "{0} * {1}",
    "negative": "-{0}",
    "not_equal": "{0} != {1}",
    "reciprocal": "1 / {0}",
    "sqrt": "sqrt({0})",
    "square": "{0} * {0}",
    "subtract": "{0} - {1}",
    "where": "{1} if {0} else {2}",
}
# These are faster in NumPy, which computes several elements at once, unless there are only a few.
FEW = 512
ELEMENT_OF_FEW = {
    "cos": "cos({0})",
    "exp": "exp({0})",
    "expm1": "expm1({0})",
    "log": "log({0})",
    "log1p": "log1p({0})",
    "pow": "{0} ** {1}",
    "sin": "sin({0})",
    "tanh": "tanh({0})",
}
COMPARISONS = frozenset({"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"})
_DTYPES = frozenset({"float32", "float64", "bool"})
_INTEGERS = frozenset({"int32", "int64"})
# What cannot overflow or divide by zero, which numba and NumPy do differently with integers.
_OF_INTEGERS = COMPARISONS | {"maximum", "minimum", "where"}

FULL, ROW, COLUMN, NUMBER = "full", "row", "column", "number"

# Functions that leave a row, a column or a number: how a total takes in an element, and what it starts from.
# Sums that leave a column or a number are computed in double precision.
REDUCTIONS = {
    "max": (ELEMENT["maximum"], "-inf"),
    "mean": (ELEMENT["add"], "0.0"),  # and divided at the end
    "min": (ELEMENT["minimum"], "inf"),
    "sum": (ELEMENT["add"], "0.0"),
}
# Up to this number of elements, but for sums that leave a row. NumPy takes longer to start, and then takes in
# several elements at once.
MOST_REDUCED = 16_384
# A loop that adds to a single number takes in several at once, too. Beyond, NumPy's sums of sums are more
# exact.
MOST_ADDED = 1_048_576

# One element of each row, and zeros but for one element of each row.
PICK, PLACE = "take_along_axis", "scatter_add"


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
    """

    operation: Operation
    result: Variable
    size: int
    columns: int
    read: tuple[tuple[Variable, str], ...]
    kind: str = FULL


def part_of(operation: Operation, origin: Callable[[Variable], Variable]) -> Part | None:
    """Return what an operation is in a kernel; None if it cannot be in one.

    ``origin`` gives the variable whose elements another one has in the same order, in another shape.
    """
    make = {PICK: _pick, PLACE: _place}.get(operation.name)
    make = make or (_reduction if operation.name in REDUCTIONS else _elementwise)
    part = make(operation)
    if part is None or not part.size:
        return None
    return part._replace(read=tuple((origin(x), kind) for x, kind in part.read))


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
    if axes == list(range(ndim)):
        kind, columns = NUMBER, 0
    elif axes == list(range(number)):
        kind, columns = ROW, prod(x.shape[number:])
    elif axes == list(range(ndim - number, ndim)):
        kind, columns = COLUMN, prod(x.shape[ndim - number :])
    else:
        return None
    adds = operation.name in ("sum", "mean")
    most = inf if adds and kind == ROW else MOST_ADDED if adds and kind == NUMBER else MOST_REDUCED
    if x.size > most or (kind == ROW and operation.name == "mean"):
        return None
    return Part(operation, result, x.size, columns, ((x, FULL),), kind)


def _elementwise(operation: Operation) -> Part | None:
    name, result = operation.name, operation.result
    arguments = operation.arguments[:1] if name == "astype" else operation.arguments
    few = name in ELEMENT_OF_FEW and result.size <= FEW
    if (name not in ELEMENT and not few) or (operation.options and name != "astype"):
        return None
    dtypes = _DTYPES | _INTEGERS if name in _OF_INTEGERS else _DTYPES
    if result.dtype.name not in dtypes or not all(_fits(x, dtypes) for x in arguments):
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


def _fits(x: Any, dtypes: frozenset[str]) -> bool:
    if isinstance(x, bool | int | float):
        return True
    if type(x) is not Variable and getattr(x, "shape", ()) != ():
        return False  # a constant array, which is rare, would have to be handed in
    return hasattr(x, "dtype") and x.dtype.name in dtypes


def _pick(operation: Operation) -> Part | None:
    x, indices, *rest = operation.arguments
    axis = (*rest, operation.options.get("axis", -1))[0]
    if type(x) is not Variable or not _is_index(indices, x.shape) or axis not in (-1, len(x.shape) - 1):
        return None
    if x.dtype.name not in _DTYPES:
        return None
    return Part(operation, operation.result, x.size, x.shape[-1], ((x, FULL), (indices, COLUMN)), COLUMN)


def _place(operation: Operation) -> Part | None:
    values, key, shape = operation.arguments
    shape = tuple(shape)
    if type(key) is not tuple or len(key) != len(shape) or type(values) is not Variable:
        return None
    *others, indices = key
    if not _is_index(indices, shape) or values.shape != indices.shape or values.dtype.name not in _DTYPES:
        return None
    rows = numpy.ogrid[tuple(slice(size) for size in shape)][:-1]
    if not all(
        type(x) is numpy.ndarray and numpy.array_equal(x, y) for x, y in zip(others, rows, strict=True)
    ):
        return None
    read = ((values, COLUMN), (indices, COLUMN))
    return Part(operation, operation.result, prod(shape), shape[-1], read)


def _is_index(indices: Any, shape: tuple[int, ...]) -> bool:
    """Say whether these can be the numbers of one element in each row."""
    is_one = type(indices) is Variable and indices.shape == (*shape[:-1], 1)
    return is_one and len(shape) > 1 and shape[-1] > 1 and indices.dtype.name in _INTEGERS


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
        What each variable is: full, row, column or number.
    """

    def __init__(self, parts: list[Part], size: int, columns: int, kinds: dict[Variable, str]) -> None:
        self.parts = parts
        self.size = size
        self.columns = columns
        self.kinds = kinds

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
                if x in made and kinds[x] in (ROW, NUMBER):
                    return None  # it is there only behind the loop
        return cls(parts, size, columns, kinds)

    @property
    def has_totals(self) -> bool:
        """Whether what is computed for one element depends on others, or is added to what others share."""
        return any(part.operation.name in REDUCTIONS or part.operation.name == PICK for part in self.parts)

    @property
    def inputs(self) -> list[Variable]:
        """The variables that are read and not made here."""
        made = {part.result for part in self.parts}
        return list(dict.fromkeys(x for part in self.parts for x, _ in part.read if x not in made))

    @property
    def in_place(self) -> list[Variable]:
        """The inputs that a full result may be written over, as each element is read before."""
        picked = {part.read[0][0] for part in self.parts if part.operation.name == PICK}
        return [x for x in self.inputs if self.kinds[x] == FULL and x not in picked]

    @property
    def arrays(self) -> list[Variable]:
        """What a loop at least goes through: its inputs, and the last result."""
        return [*(x for x in self.inputs if x.size > 1), self.parts[-1].result]
