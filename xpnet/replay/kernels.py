"""Chains of elementwise functions as one loop: what is computed for one element, and the loops around it.

A `Kernel` is a description that knows no shapes and no library: instructions on one element of each array,
in which an array is *full* (an element for each), a *row* (repeated for each row), a *column* (repeated along
each row) or a *number*. It is rendered here as a loop for numba.
"""

import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

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
FEW = 32
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
_COMPARISONS = frozenset({"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"})
_DTYPES = frozenset({"float32", "float64", "bool"})
_INTEGERS = frozenset({"int32", "int64"})
# What cannot overflow or divide by zero, which numba and NumPy do differently with integers.
_OF_INTEGERS = _COMPARISONS | {"maximum", "minimum", "where"}

FULL, ROW, COLUMN, NUMBER = "full", "row", "column", "number"

# Functions that can stand at the end of a kernel: how a total takes in an element, and what it starts from.
# Sums that leave a column or a number are computed in double precision.
REDUCTIONS = {
    "max": (ELEMENT["maximum"], "-inf"),
    "min": (ELEMENT["minimum"], "inf"),
    "sum": (ELEMENT["add"], "0.0"),
}
# Up to this number of elements, but for sums that leave a row. NumPy takes longer to start, and then takes in
# several elements at once.
MOST_REDUCED = 16_384


def reduces(operation: Operation) -> tuple[str, int] | None:
    """Return what a reduction leaves, and how many trailing axes make a row; None for any other function.

    A reduction of the trailing axes leaves a column, one of the leading axes a row, and one of all a number.
    """
    if operation.name not in REDUCTIONS:
        return None
    x, *rest = operation.arguments
    result, options = operation.result, operation.options
    if rest or type(x) is not Variable or x.dtype.name not in ("float32", "float64"):
        return None
    if not x.size or x.dtype != result.dtype or options.keys() - {"axis", "dtype", "keepdims"}:
        return None
    ndim, axis = len(x.shape), options.get("axis")
    given = range(ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    axes = sorted(a % ndim for a in given)
    number = len(axes)
    found = None
    if axes and axes == list(range(ndim)):
        found = NUMBER, 0
    elif axes and axes == list(range(number)):
        found = ROW, ndim - number
    elif axes and axes == list(range(ndim - number, ndim)):
        found = COLUMN, number
    adds_rows = found is not None and found[0] == ROW and operation.name == "sum"
    return found if x.size <= MOST_REDUCED or adds_rows else None


def is_elementwise(operation: Operation) -> bool:
    """Say whether a function can be part of a kernel."""
    name, result = operation.name, operation.results[0]
    if reduces(operation):
        return True
    if name == "astype":
        arguments = operation.arguments[:1]
    else:
        few = name in ELEMENT_OF_FEW and result.size <= FEW
        if (name not in ELEMENT and not few) or operation.options:
            return False
        arguments = operation.arguments
    dtypes = _DTYPES | _INTEGERS if name in _OF_INTEGERS else _DTYPES
    return result.dtype.name in dtypes and all(_fits(x, dtypes) for x in arguments)


def _fits(x: Any, dtypes: frozenset[str]) -> bool:
    if isinstance(x, bool | int | float):
        return True
    if type(x) is not Variable and getattr(x, "shape", ()) != ():
        return False  # a constant array, which is rare, would have to be handed in
    return hasattr(x, "dtype") and x.dtype.name in dtypes


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
    shape : tuple of int
        The shape of the results.
    operations : list of Operation
        In order.
    columns : int
        How many trailing axes make a row; 0 where nothing is a row or a column.
    """

    def __init__(self, shape: tuple[int, ...], operations: list[Operation], columns: int) -> None:
        self.shape = shape
        self.operations = operations
        self.columns = columns

    @classmethod
    def of(cls, operations: list[Operation]) -> "Kernel | None":
        """Return the kernel of some operations, or None if they do not fit in one loop."""
        operations = sorted(operations, key=lambda o: o.result.number)
        totals = {o.result: found for o in operations if (found := reduces(o))}
        read = {x for operation in operations for x in operation.inputs}
        if not read.isdisjoint(totals):
            return None  # a total is there only behind the loop
        shape = _shape(operations[0])
        columns = {found[1] for found in totals.values()}
        for operation in operations:
            if _shape(operation) != shape or not prod(shape):
                return None
            for x in operation.inputs:
                repeated = pattern(x.shape, shape)
                if repeated is None:
                    return None
                columns.add(repeated[1])
        columns.discard(0)
        if len(columns) > 1 or (totals and all(x.shape != shape for x in read)):
            return None
        return cls(shape, operations, max(columns, default=0))

    @property
    def totals(self) -> dict[Variable, tuple[Operation, str]]:
        """The results of reductions: with the reduction, and what it leaves."""
        return {o.result: (o, found[0]) for o in self.operations if (found := reduces(o))}

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def inputs(self) -> list[Variable]:
        """The variables that are read and not made here."""
        made = {operation.result for operation in self.operations}
        read = [x for operation in self.operations for x in operation.inputs if x not in made]
        return list(dict.fromkeys(read))

    @property
    def arrays(self) -> list[Variable]:
        """What a loop at least goes through: its inputs, and the last result."""
        return [*(x for x in self.inputs if x.size > 1), self.operations[-1].result]

    def render(self, outputs: list[Variable], alias: dict[Variable, Variable], *, parallel: bool) -> str:
        """Return the source of a function of the inputs and then the outputs.

        ``alias`` has the inputs that an output is written over: they are handed in once.
        """
        names = {x: f"a{index}" for index, x in enumerate(self.inputs)}
        stores = {x: names[alias[x]] if x in alias else f"o{index}" for index, x in enumerate(outputs)}
        totals = self.totals
        kinds = {name: pattern(x.shape, self.shape) or (FULL, 0) for x, name in names.items()}
        kind_of = {name: kind for name, (kind, _) in kinds.items()}
        kind_of |= {store: totals[x][1] if x in totals else FULL for x, store in stores.items()}
        index = {FULL: "[i, j]" if self.columns else "[i]", ROW: "[j]", COLUMN: "[i]", NUMBER: "[0]"}

        # The lines before the loop over the rows; in each row, before and behind the loop over its elements,
        # and in that loop; and behind all. Without rows, there is one loop over the elements.
        first: list[str] = []
        before: list[str] = []
        inside: list[str] = []
        behind: list[str] = []
        last: list[str] = []
        for name, kind in kind_of.items():
            shape = "(rows, columns)" if kind == FULL and self.columns else f"{name}.size"
            first.append(f"{name} = {name}.reshape({shape})")
        values: dict[Variable, str] = {}
        for x, name in names.items():
            where = {NUMBER: first, COLUMN: before}.get(kind_of[name], inside)
            where.append(f"{name}_ = {name}{index[kind_of[name]]}")
            values[x] = f"{name}_"
        for number, operation in enumerate(self.operations):
            if operation.result not in totals:
                inside.append(f"v{number} = {_instruction(operation, values)}")
                values[operation.result] = f"v{number}"
        for number, (x, (operation, kind)) in enumerate(totals.items()):
            take_in, start = REDUCTIONS[operation.name]
            dtype = x.dtype.name
            element = values[operation.inputs[0]]
            if kind == ROW:
                place = f"{stores[x]}[j]"
                first += ["for j in range(columns):", f"    {stores[x]}[j] = {dtype}({start})"]
                inside.append(f"{place} = {dtype}({take_in.format(place, element)})")
                continue
            total = f"t{number}"
            wide = "float64" if operation.name == "sum" else dtype
            {COLUMN: before, NUMBER: first}[kind].append(f"{total} = {wide}({start})")
            inside.append(f"{total} = {wide}({take_in.format(total, f'{wide}({element})')})")
            {COLUMN: behind, NUMBER: last}[kind].append(f"{stores[x]}{index[kind]} = {dtype}({total})")
        inside += [f"{stores[x]}{index[FULL]} = {values[x]}" for x in outputs if x not in totals]

        arguments = [*names.values(), *(store for store in stores.values() if store not in names.values())]
        some_full = next(name for name, kind in kind_of.items() if kind == FULL)
        loop = "prange" if parallel else "range"
        if self.columns:
            arguments.append("columns")
            head = [f"rows = {some_full}.size // columns"]
            row = [*before, "for j in range(columns):", *_indent(inside), *behind]
            body = [f"for i in {loop}(rows):", *_indent(row)]
        else:
            head = [f"size = {some_full}.size"]
            body = [f"for i in {loop}(size):", *_indent(inside)]
        decorator = f"@njit(cache=CACHE, parallel={parallel}, error_model='numpy', fastmath=FAST)"
        lines = [decorator, f"def kernel({', '.join(arguments)}):"]
        return "\n".join([*lines, *_indent([*head, *first, *body, *last]), ""])


def _shape(operation: Operation) -> tuple[int, ...]:
    """Return the shape of the loop that an operation needs."""
    return operation.inputs[0].shape if reduces(operation) else operation.result.shape


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _instruction(operation: Operation, values: dict[Variable, str]) -> str:
    """Return the expression of one element of an operation's result, of the dtype that it has."""
    arguments = operation.arguments[:1] if operation.name == "astype" else operation.arguments
    result = operation.result.dtype
    if operation.name in _COMPARISONS:
        dtype = numpy.result_type(*[x.dtype if hasattr(x, "dtype") else x for x in arguments])
        dtypes = [dtype] * len(arguments)
    elif operation.name == "astype":
        dtypes = [arguments[0].dtype]
    elif operation.name == "where":
        dtypes = [numpy.dtype(bool), result, result]
    else:
        dtypes = [result] * len(arguments)
    texts = [_operand(x, dtype, values) for x, dtype in zip(arguments, dtypes, strict=True)]
    element = (ELEMENT.get(operation.name) or ELEMENT_OF_FEW[operation.name]).format(*texts)
    return f"{result.name if result.name != 'bool' else 'bool_'}({element})"


def _operand(x: Any, dtype: numpy.dtype, values: dict[Variable, str]) -> str:
    name = dtype.name if dtype.name != "bool" else "bool_"
    if type(x) is Variable:
        return values[x] if x.dtype == dtype else f"{name}({values[x]})"
    number = x.item() if hasattr(x, "item") else x
    return f"{name}({number!r})"


# Of the liberties that a compiler may be given, only the one to round a product and a sum together. With
# others, x / tiny would become x * (1 / tiny), and (x + y) - y would become x.
_HEADER = """\
from math import cos, exp, expm1, inf, log, log1p, nan, sin, sqrt, tanh
from numba import njit, prange, float32, float64, int32, int64, bool_
CACHE = {cache}
FAST = {{"contract"}}


"""


@cache
def numba_is_there() -> bool:
    """Say whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@cache
def _choose_threads() -> None:
    """Let numba use threads of its own that sleep while they wait.

    Those of OpenMP wait actively, which they do at the expense of BLAS: a step took ten times as long.
    """
    import numba

    if "NUMBA_THREADING_LAYER" not in os.environ:
        # Ignored if threads are running already.
        numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]


@cache
def compiled(source: str) -> Callable:
    """Return the function of a rendered kernel. numba keeps what it compiled from a file between runs."""
    import hashlib  # here, as these would be a good part of the time that importing xpnet takes
    import tempfile

    _choose_threads()
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"xpnet_kernel_{digest}"
    text = _HEADER.format(cache=True) + source
    try:
        folder = cache_folder()
        path = folder / f"{name}.py"
        if not path.exists() or path.read_text() != text:
            with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False) as file:
                file.write(text)
            os.replace(file.name, path)
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification
        assert specification.loader
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
        return module.kernel
    except OSError:  # nowhere to keep it
        names: dict[str, Any] = {}
        exec(_HEADER.format(cache=False) + source, names)
        return names["kernel"]


def cache_folder() -> Path:
    """Return the folder for compiled kernels: ``XPNET_CACHE_DIR``, or the user's cache."""
    base = os.environ.get("XPNET_CACHE_DIR") or Path.home() / ".cache" / "xpnet"
    folder = Path(base) / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# numba's threads are one team: two Python threads must not use it at once, and a forked process has none.
_team = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked, _team
    _forked, _team = True, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def on_all_cores(parallel: Callable, serial: Callable) -> Callable:
    """Return a function that runs a kernel with threads where that is possible."""

    def call(*arguments: Any) -> None:
        if _forked:
            serial(*arguments)
        else:
            with _team:
                parallel(*arguments)

    return call
