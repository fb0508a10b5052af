"""A kernel as a loop of numba: its source, and compiling it once for all runs."""

import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy

from xpnet.replay.graph import Variable
from xpnet.replay.kernels import (
    COLUMN,
    COMPARISONS,
    ELEMENT,
    ELEMENT_OF_FEW,
    FULL,
    NUMBER,
    PICK,
    PLACE,
    REDUCTIONS,
    ROW,
    Kernel,
    Part,
)


class Loop:
    """The source of a kernel, as a function of its inputs, outputs, numbers and size.

    A row is gone through in several *passes* if something is known only at its end, as the largest element
    that a softmax subtracts. What is made in one pass and read in a later one is kept in a row of its own.

    Parameters
    ----------
    kernel : Kernel
    outputs : list of Variable
        What is stored.
    alias : dict of Variable to Variable
        The inputs that an output is written over: they are handed in once.
    parallel : bool
        Whether the rows are shared among the cores.

    Attributes
    ----------
    numbers : list of float
        Constants that are handed in, so that one compiled loop serves other sizes of a batch.
    source : str
    """

    def __init__(
        self, kernel: Kernel, outputs: list[Variable], alias: dict[Variable, Variable], *, parallel: bool
    ) -> None:
        self.kernel = kernel
        self.numbers: list[float] = []
        inputs = {x: f"a{index}" for index, x in enumerate(kernel.inputs)}
        stores = {x: inputs[alias[x]] if x in alias else f"o{index}" for index, x in enumerate(outputs)}
        index = {FULL: "i, j" if kernel.columns else "i", ROW: "j", COLUMN: "i", NUMBER: "0"}
        self._stores = {x: f"{name}[{index[kernel.kinds[x]]}]" for x, name in stores.items()}
        # The pass in which a full variable is made, and before which any other is; and in which it is read.
        self._pass: dict[Variable, int] = {}
        self._readers: dict[Variable, set[int]] = {}
        self._last = 0
        self._schedule()
        for x in alias:
            self._readers.setdefault(x, set()).add(self._last)
        # Lines before all rows, before each pass through a row, in each pass, and behind all rows.
        self._first: list[str] = []
        self._before: list[list[str]] = [[] for _ in range(self._last + 2)]
        self._inside: list[list[str]] = [[] for _ in range(self._last + 1)]
        self._behind: list[str] = []
        self._values: dict[Variable, str] = {}
        self._rows: dict[Variable, str] = {}  # where an element of the present row is, by its number
        for x, name in inputs.items():
            self._load(x, name, f"{name}[{index[kernel.kinds[x]]}]")
        over = {x: self._stores.pop(x) for x in alias}
        for number, part in enumerate(kernel.parts):
            write = self._total if part.operation.name in REDUCTIONS else self._make
            write(number, part)
        # At the end of the last pass: by then, the input that was there has been read.
        self._inside[-1] += [f"{place} = {self._values[x]}" for x, place in over.items()]
        self.source = self._put_together({**inputs, **stores}, parallel=parallel)

    def _schedule(self) -> None:
        """Find out what must wait for the end of which pass."""
        kinds = self.kernel.kinds
        for part in self.kernel.parts:
            ready = max((self._pass.get(x, 0) for x, _ in part.read), default=0)
            elements = [x for x, _ in part.read if kinds[x] == FULL]
            if part.operation.name == PICK:  # the whole row must be there
                ready = max([ready, *(self._pass[x] + 1 for x in elements if x in self._pass)])
            elif elements or kinds[part.result] == FULL:
                self._last = max(self._last, ready)
            for x in elements:
                self._readers.setdefault(x, set()).add(ready)
            behind = bool(elements) and kinds[part.result] == COLUMN and part.operation.name != PICK
            self._pass[part.result] = ready + behind

    def _load(self, x: Variable, name: str, element: str) -> None:
        kind = self.kernel.kinds[x]
        self._values[x] = f"{name}_"
        self._rows[x] = f"{name}[i, {{}}]"
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
            lines.append(f"{value} = {self._instruction(part)}")
        self._values[x] = value
        if x in self._stores:
            lines.append(f"{self._stores[x]} = {value}")
        if full and max(self._readers.get(x, {0})) > self._pass[x]:
            self._first.append(f"k{number} = empty(columns, {_name(x.dtype)})")
            self._rows[x] = f"k{number}[{{}}]"
            lines.append(f"k{number}[j] = {value}")
            for later in self._inside[self._pass[x] + 1 :]:
                later.append(f"{value} = k{number}[j]")

    def _total(self, number: int, part: Part) -> None:
        """Write how a total takes in the elements, one after the other."""
        x, (source, _) = part.result, part.read[0]
        kinds, dtype = self.kernel.kinds, _name(x.dtype)
        take_in, start = REDUCTIONS[part.operation.name]
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

    def _instruction(self, part: Part) -> str:
        """Return the expression of one element of a function's result, of the dtype that it has."""
        operation = part.operation
        name, result = operation.name, operation.result.dtype
        arguments = operation.arguments[:1] if name == "astype" else operation.arguments
        if name in COMPARISONS:
            dtype = numpy.result_type(*[x.dtype if hasattr(x, "dtype") else x for x in arguments])
            dtypes = [dtype] * len(arguments)
        elif name == "astype":
            dtypes = [arguments[0].dtype]
        elif name == "where":
            dtypes = [numpy.dtype(bool), result, result]
        else:
            dtypes = [result] * len(arguments)
        read = iter(part.read)
        texts = []
        for x, dtype in zip(arguments, dtypes, strict=True):
            if type(x) is Variable:
                value = self._values[next(read)[0]]
                texts.append(value if x.dtype == dtype else f"{_name(dtype)}({value})")
            elif hasattr(x, "item"):
                texts.append(f"{_name(dtype)}(c{len(self.numbers)})")
                self.numbers.append(x.item())
            else:
                texts.append(f"{_name(dtype)}({x!r})")
        return f"{_name(result)}({(ELEMENT.get(name) or ELEMENT_OF_FEW[name]).format(*texts)})"

    def _put_together(self, names: dict[Variable, str], *, parallel: bool) -> str:
        kernel = self.kernel
        shape = {
            FULL: "(rows, columns)" if kernel.columns else "size",
            ROW: "columns",
            COLUMN: "rows",
            NUMBER: "1",
        }
        kinds = {name: kernel.kinds[x] for x, name in names.items()}
        numbers = [f"c{index}" for index in range(len(self.numbers))]
        arguments = [*kinds, *numbers, "size", *(["columns"] if kernel.columns else [])]
        loop = "prange" if parallel else "range"
        if kernel.columns:
            row = []
            for before, inside in zip(self._before, self._inside, strict=False):
                row += [*before, "for j in range(columns):", *_indent(inside)] if inside else before
            body = [f"for i in {loop}(rows):", *_indent([*row, *self._before[-1]])]
        else:
            body = [f"for i in {loop}(size):", *_indent(self._inside[0])]
        head = ["rows = size // columns"] if kernel.columns else []
        head += [f"{name} = {name}.reshape({shape[kind]})" for name, kind in kinds.items()]
        decorator = f"@njit(cache=CACHE, parallel={parallel}, error_model='numpy', fastmath=FAST)"
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
from numba import njit, prange, float32, float64, int32, int64, bool_
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
