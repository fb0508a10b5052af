"""A kernel as a loop of numba: its source, and calling it with threads or without."""

import importlib.util
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy

from xpnet.replay import kernel_files
from xpnet.replay.graph import Operation, Variable
from xpnet.replay.kernels import (
    COLUMN,
    COMPARISONS,
    FULL,
    NUMBER,
    PICK,
    PLACE,
    REDUCTIONS,
    ROW,
    STACK,
    Kernel,
    Part,
    Target,
)
from xpnet.replay.passes import Passes

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
_DTYPES = frozenset({"float32", "float64", "bool"})
_INTEGERS = frozenset({"int32", "int64"})
# What cannot overflow or divide by zero, which numba and NumPy do differently with integers.
_OF_INTEGERS = COMPARISONS | {"maximum", "minimum", "where"}

# Up to this number of elements, but for sums that leave a row. NumPy takes longer to start, and then takes in
# several elements at once.
MOST_REDUCED = 16_384
# A loop that adds to a single number takes in several at once, too. Beyond, NumPy's sums of sums are more
# exact.
MOST_ADDED = 1_048_576


def _can_make(operation: Operation) -> bool:
    name, result = operation.name, operation.result
    if name in (PICK, PLACE, STACK):
        return result.dtype.name in _DTYPES
    few = name in ELEMENT_OF_FEW and result.size <= FEW
    dtypes = _DTYPES | _INTEGERS if name in _OF_INTEGERS else _DTYPES
    arguments = operation.arguments[:1] if name == "astype" else operation.arguments
    known = name in ELEMENT or few
    return known and result.dtype.name in dtypes and all(_fits(x, dtypes) for x in arguments)


def _fits(x: Any, dtypes: frozenset[str]) -> bool:
    return isinstance(x, bool | int | float) or (hasattr(x, "dtype") and x.dtype.name in dtypes)


def _can_total(operation: Operation, kind: str) -> bool:
    if kind == ROW and operation.name in ("sum", "mean"):
        return operation.name == "sum"
    adds_all = kind == NUMBER and operation.name in ("sum", "mean")
    return operation.arguments[0].size <= (MOST_ADDED if adds_all else MOST_REDUCED)


# A loop over many more arrays is no faster: the processor follows a limited number of streams, and the
# compiler checks each pair for overlap. A loop of many more operations takes long to compile.
TARGET = Target(12, 64, _can_make, _can_total, accepts=lambda _: True, shortest=8)


class Loop(Passes):
    """The source of a kernel in Python, for numba.

    All arrays are handed in with one axis: numba compiles once for all shapes, and in half of the time.

    Parameters
    ----------
    kernel : Kernel
    outputs : list of Variable
        What is stored.
    alias : dict of Variable to Variable
        The inputs that an output is written over: they are handed in once.
    parallel : bool
        Whether the rows are shared among the cores.
    """

    def __init__(
        self, kernel: Kernel, outputs: list[Variable], alias: dict[Variable, Variable], *, parallel: bool
    ) -> None:
        self._parallel = parallel
        super().__init__(kernel, outputs, alias)

    def _place(self, x: Variable) -> str:
        kind = self.kernel.kinds[x]
        if kind == FULL and self.kernel.columns:
            return self._place_of_row(*self._start_and_step(x))
        return {FULL: "i", ROW: "j", COLUMN: "i", NUMBER: "0"}[kind]

    def _start_and_step(self, x: Variable) -> tuple[int, int | str]:
        """Return where the first row of a full variable starts, and how far apart its rows are."""
        view = self.kernel.views.get(x)
        return (view.start, view.axes[0][1]) if view else (0, "columns")

    def _place_of_row(self, start: int, step: int | str, column: str = "j") -> str:
        # numba would ask of other numbers whether they are negative, and compute one element at a time.
        return f"uint64({super()._place_of_row(start, step, column)})"

    def _store(self, place: str, value: str) -> str:
        return f"{place} = {value}"

    def _cast(self, dtype: numpy.dtype, value: str) -> str:
        return f"{_name(dtype)}({value})"

    def _load(self, x: Variable, name: str, element: str) -> None:
        kind = self.kernel.kinds[x]
        self._values[x] = f"{name}_"
        self._rows[x] = f"{name}[{self._place_of_row(*self._start_and_step(x), '{} % columns')}]"
        where = {NUMBER: [self._first], COLUMN: [self._before[0]]}.get(kind, self._inside)
        for number, lines in enumerate(where):
            if kind != FULL or number in self._readers.get(x, ()):
                lines.append(f"{name}_ = {element}")

    def _make(self, number: int, part: Part) -> None:
        """Write how an element is made."""
        x, value = part.result, f"v{number}"
        full = self.kernel.kinds[x] == FULL
        lines = (self._inside if full else self._before)[self._pass[x]]
        if part.operation.name == PICK:
            row, index = part.read[0][0], self._values[part.read[1][0]]
            problem = "the indices of take_along_axis must be smaller than the axis is long."
            lines += [f"if not -columns <= {index} < columns:", f'    raise IndexError("{problem}")']
            lines.append(f"{value} = {self._rows[row].format(index)}")
        elif part.operation.name == PLACE:
            element, index = (self._values[x] for x, _ in part.read)
            zero = f"{_name(x.dtype)}(0)"
            lines.append(f"{value} = {element} if j == {index} or j == {index} + columns else {zero}")
        else:
            name = part.operation.name
            texts = [text for text, _ in self._arguments(part)]
            element = (ELEMENT.get(name) or ELEMENT_OF_FEW[name]).format(*texts)
            lines.append(f"{value} = {self._cast(x.dtype, element)}")
        self._values[x] = value
        if x in self._stores:
            lines.append(self._store(self._stores[x], value))
        if self._is_kept(x):
            self._first.append(f"k{number} = empty(columns, {_name(x.dtype)})")
            self._rows[x] = f"k{number}[{{}}]"
            lines.append(f"k{number}[j] = {value}")
            for later in self._inside[self._pass[x] + 1 :]:
                later.append(f"{value} = k{number}[j]")

    def _total(self, number: int, part: Part) -> None:
        """Write how a total takes in the elements, one after the other."""
        x, (source, _) = part.result, part.read[0]
        kinds, dtype = self.kernel.kinds, _name(x.dtype)
        function, start = REDUCTIONS[part.operation.name]
        take_in = ELEMENT[function]
        when = self._pass.get(source, 0)
        lines = (self._inside if kinds[source] == FULL else self._before)[when]
        element = self._values[source]
        if kinds[x] == ROW:
            store = self._stores[x]
            self._first += ["for j in range(columns):", f"    {store} = {dtype}({start})"]
            lines.append(f"{store} = {dtype}({take_in.format(store, element)})")
            return
        total = f"t{number}"
        wide = "float64" if start == "0.0" else dtype
        (self._before[when] if kinds[x] == COLUMN else self._first).append(f"{total} = {wide}({start})")
        # Rows are short, and few of their elements can be added up at once.
        several = start == "0.0" and kinds[x] == NUMBER and kinds[source] == FULL
        take_in = "add({0}, {1})" if several else f"{wide}({take_in})"
        lines.append(f"{total} = " + take_in.format(total, f"{wide}({element})"))
        if part.operation.name == "mean":
            along = "columns" if kinds[x] == COLUMN else "size" if kinds[source] == FULL else "rows"
            total += f" / {along}"
        behind = self._before[when + 1] if kinds[x] == COLUMN else self._behind
        self._values[x] = f"v{number}"
        behind.append(f"v{number} = {dtype}({total})")
        if x in self._stores:
            behind.append(f"{self._stores[x]} = v{number}")

    def _put_together(self, names: dict[Variable, str]) -> str:
        kernel = self.kernel
        numbers = [f"c{index}" for index in range(len(self.numbers))]
        sizes = ["size", *(["columns"] if kernel.columns else [])]
        arguments = [*dict.fromkeys(names.values()), *numbers, *sizes]
        loop = "prange" if self._parallel else "range"
        if kernel.columns:
            row = []
            for before, inside in zip(self._before, self._inside, strict=False):
                row += [*before, "for j in range(columns):", *_indent(inside)] if inside else before
            body = [f"for i in {loop}(rows):", *_indent([*row, *self._before[-1]])]
        else:
            body = [f"for i in {loop}(size):", *_indent(self._inside[0])]
        head = ["rows = size // columns"] if kernel.columns else []
        decorator = f"@njit(cache=CACHE, parallel={self._parallel}, error_model='numpy', fastmath=FAST)"
        lines = [decorator, f"def kernel({', '.join(arguments)}):"]
        return "\n".join([*lines, *_indent([*head, *self._first, *body, *self._behind]), ""])


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _name(dtype: numpy.dtype) -> str:
    return "bool_" if dtype.kind == "b" else dtype.name


# Of the liberties that a compiler may be given, only the one to round a product and a sum together. With
# others, x / tiny would become x * (1 / tiny), and (x + y) - y would become x. Only totals may be
# added up in another order, several elements at once.
_HEADER = """\
from math import cos, exp, expm1, inf, log, log1p, nan, sin, sqrt, tanh
from numpy import empty
from numba import njit, prange, float32, float64, int32, int64, uint64, bool_
CACHE = {cache}
FAST = {{"contract"}}


@njit(cache=CACHE, fastmath={{"reassoc"}})
def add(total, element):
    return total + element


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
    if "NUMBA_THREADING_LAYER" not in os.environ:
        # Ignored if threads are running already.
        kernel_files.load_numba().config.THREADING_LAYER = "workqueue"


@cache
def compiled(source: str) -> Callable:
    """Return the function of a rendered kernel."""
    _choose_threads()
    return kernel_files.function(_HEADER.format(cache=False) + source)  # not in numba's own cache


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
