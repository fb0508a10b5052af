"""A kernel as a loop in Python, which numba compiles: its source.

The text of one element of each function is in `xpnet/replay/functions.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy

from xpnet.replay.functions import CHOICES, COMPARISONS, PICK, REDUCTIONS, SCATTER, row_of
from xpnet.replay.graph import Operation, Variable
from xpnet.replay.kernels.kernel import COLUMN, FULL, NUMBER, ROW, Kernel, Part, Target
from xpnet.replay.kernels.passes import Passes, indented

# Transcendental functions that `elementary.py` lacks are faster in NumPy, which computes several elements at
# once, unless there are only as few as these.
FEW = 512
# The elements that a row has beyond a multiple of what registers take in are computed one by one. With more
# elements than these, that takes longer than a loop of its own for such a function, without rows.
LANES, SHORT, FEW_IN_SHORT_ROWS = 16, 64, 100
_DTYPES = frozenset({"float32", "float64", "bool"})
_INTEGERS = frozenset({"int32", "int64", "uint32"})
_SHIFTS = frozenset({"bitwise_left_shift", "bitwise_right_shift"})
# What has no case that numba and NumPy do differently with integers, such as a division by zero. Each result
# is cut to the length of its dtype, as numba computes with 64 bits.
_OF_INTEGERS = COMPARISONS | CHOICES | _SHIFTS | {"add", "multiply", "negative", "square", "subtract"}
_OF_INTEGERS |= {"bitwise_and", "bitwise_invert", "bitwise_or", "bitwise_xor"}

# Up to this number of elements, but for sums that leave a row, and totals along rows. NumPy takes longer to
# start, and then takes in several elements at once.
MOST_REDUCED = 16_384
# Up to this number for sums of all elements or of columns, which take as long as NumPy does, and no array of
# what is added. Beyond, nothing may take too long for Ctrl-C.
MOST_ADDED = 8_388_608
# From how many elements on threads should be able to share a loop.
MANY = 65_536
# How many elements of a long sum are made before they are added up, at most: a chunk of them.
CHUNK = 1_024
SUMS = frozenset(name for name, (take_in, _) in REDUCTIONS.items() if take_in == "add")


def is_elementary(operation: Operation) -> bool:
    """Say whether a function is one of `elementary.py`."""
    return row_of(operation.name).kind == "elementary" and operation.result.dtype.name == "float32"


def _text(operation: Operation) -> str | None:
    row, result = row_of(operation.name), operation.result
    if is_elementary(operation):
        return f"elementary.{row.name.removeprefix('special.')}({{0}})"
    if row.kind in ("elementary", "transcendental") and result.size > FEW:
        return None
    if operation.name in _SHIFTS and not _is_within(operation.arguments[1], operation.result.dtype):
        return None
    return row.python or None


def _is_within(bits: Any, dtype: numpy.dtype) -> bool:
    """Say whether a shift is by a number that is known, and smaller than elements are long."""
    bits = bits.item() if getattr(bits, "shape", None) == () and hasattr(bits, "item") else bits
    return type(bits) is int and 0 <= bits < 8 * dtype.itemsize


def _dtypes(operation: Operation) -> frozenset[str]:
    name = operation.name
    # What becomes of 1e30 as an integer, no one says.
    from_integers = name == "astype" and operation.arguments[0].dtype.kind != "f"
    return _DTYPES | _INTEGERS if name in _OF_INTEGERS or from_integers else _DTYPES


def _can_total(operation: Operation, kind: str) -> bool:
    if kind == COLUMN:
        return True
    return operation.arguments[0].size <= (MOST_ADDED if operation.name in SUMS else MOST_REDUCED)


def _accepts(kernel: Kernel) -> bool:
    """Refuse three things in a loop over rows.

    Sums of all elements, as a chunk of such a sum may end within a row; elementary functions of many elements
    in short rows; and sums over many rows that leave them, beside what each row needs as a whole, as threads
    could neither share the rows nor the columns.
    """
    short = kernel.columns % LANES and kernel.columns < SHORT and kernel.size > FEW_IN_SHORT_ROWS
    if short and any(is_elementary(p.operation) and kernel.kinds[p.result] == FULL for p in kernel.parts):
        return False
    if kernel.size >= MANY and kernel.is_by_rows and not {ROW, NUMBER}.isdisjoint(kernel.made):
        return False
    left = [p for p in kernel.parts if p.operation.name in SUMS and kernel.kinds[p.result] == NUMBER]
    return not kernel.columns or all(kernel.kinds[p.read[0][0]] == COLUMN for p in left)


# A loop over many more arrays is no faster: the processor follows a limited number of streams, and the
# compiler checks each pair for overlap. A loop of many more operations takes long to compile.
TARGET = Target(12, 64, _text, _dtypes, _can_total, _accepts, shortest=8)


class PythonSource(Passes):
    """The source of a kernel in Python, for numba. Its parameters are those of `Passes`, and one more.

    All arrays have one axis: numba compiles once for all shapes, and in half of the time. The arrays, the
    numbers, ``size`` and, where there are rows, ``columns`` and ``across``, the elements from one row to the
    next, stand in this order in words at an address. The function returns 0, or 1 if an index is none; the
    index is put into the word behind the others.
    """

    def __init__(self, kernel: Kernel, outputs: Sequence[Variable], over: dict[Variable, Variable]) -> None:
        self._overwritten = set(over.values())
        self._chunks: list[str] = []  # lines behind each chunk of a loop, for sums of all elements
        super().__init__(kernel, outputs, over)

    def _takes_row(self, part: Part) -> bool:
        of_row = self.kernel.kinds[part.result] == COLUMN
        return super()._takes_row(part) or (of_row and self._takes_in_at_once(part))

    def _index(self, x: Variable) -> str:
        kind = self.kernel.kinds[x]
        if kind == FULL and self.kernel.columns:
            return self._index_in_row(*self._start_and_step(x))
        return {FULL: "i", ROW: "j", COLUMN: "i", NUMBER: "0"}[kind]

    def _start_and_step(self, x: Variable) -> tuple[int, int | str]:
        """Return where the first row of a full variable starts, and how far apart its rows are."""
        view = self.kernel.views.get(x)
        return (view.start, view.axes[0][1]) if view else (0, "across")

    def _index_in_row(self, start: int, step: int | str, column: str = "j") -> str:
        # numba would ask of other numbers whether they are negative, and compute one element at a time.
        return f"uint64({super()._index_in_row(start, step, column)})"

    def _store(self, place: str, value: str) -> str:
        return f"{place} = {value}"

    def _cast(self, dtype: numpy.dtype, value: str) -> str:
        return f"{_name(dtype)}({value})"

    def _assign(self, _dtype: numpy.dtype, name: str, value: str) -> str:
        return f"{name} = {value}"

    def _row(self, x: Variable, name: str) -> tuple[str, str]:
        return name, self._index_in_row(*self._start_and_step(x), "0")

    def _keep(self, x: Variable, name: str) -> tuple[str, str]:
        return self._buffer(name, "columns", x), "uint64(0)"

    def _text(self, part: Part, lines: list[str]) -> str:
        x, name = part.result, part.operation.name
        if name == PICK:
            (array, start), index = self._rows[part.read[0][0]], self._values[part.read[1][0]]
            stop = [f"store(received, {index})", "return 1"]
            lines += [f"if not -columns <= {index} < columns:", *indented(stop)]
            return f"{array}[{start} + uint64({index} % columns)]"
        if name == SCATTER:
            element, index = (self._values[x] for x, _ in part.read)
            return f"{element} if j == {index} or j == {index} + columns else {_name(x.dtype)}(0)"
        text = _text(part.operation) or ""
        return self._cast(x.dtype, text.format(*(argument for argument, _ in self._arguments(part))))

    def _total(self, number: int, part: Part) -> None:
        """Write how a total takes in elements: one after the other, or all of them once they are there."""
        x, (source, _) = part.result, part.read[0]
        kind, dtype = self.kernel.kinds[x], _name(x.dtype)
        function, start = REDUCTIONS[part.operation.name]
        start = f"{dtype}({start})"
        total = self._stores[x] if kind == ROW else f"t{number}"
        behind = self._before[self._pass[x]] if kind == COLUMN else self._behind
        if self._takes_in_at_once(part):
            if kind == COLUMN:
                array, place = self._rows[source]
                adds = part.operation.name in SUMS
                function = f"{start} + add_up" if adds else f"{part.operation.name}_of_{dtype}"
                behind.append(f"{total} = {function}({array}, {place}, {place} + uint64(columns))")
            else:
                totals = self._buffer(f"b{number}", "64", x)
                self._chunks.append(f"put({self._sum_of_chunk(number, source)}, {totals}, number, halves)")
                behind.append(f"{total} = {start} + {totals}[0]")
        else:
            if kind == ROW:
                self._first += ["for j in range(columns):", f"    {total} = {start}"]
            else:
                first = self._before[self._pass.get(source, 0)] if kind == COLUMN else self._first
                first.append(f"{total} = {start}")
            take_in = row_of(function).python.format(total, self._values[source])
            self._where(source).append(f"{total} = {dtype}({take_in})")
        divisor = self._divisor(part)
        if kind == ROW:
            if divisor:
                self._behind += ["for j in range(columns):", f"    {total} = {dtype}({total} / {divisor})"]
            return
        if divisor:
            total = f"({total}) / {divisor}"
        self._values[x] = f"v{number}"
        behind.append(f"v{number} = {dtype}({total})")
        if x in self._stores:
            behind.append(f"{self._stores[x]} = v{number}")

    def _takes_in_at_once(self, part: Part) -> bool:
        """Say whether a total is one of elements that are there: NumPy's sum of fewer than eight is not."""
        kind, name = self.kernel.kinds[part.result], part.operation.name
        if kind == COLUMN and self.kernel.columns >= 8:
            return name in SUMS or name in ("max", "min")
        return kind == NUMBER and name in SUMS

    def _sum_of_chunk(self, number: int, source: Variable) -> str:
        if source in self._inputs and source not in self._overwritten:
            return f"add_up({self._inputs[source]}, uint64(first), uint64(end))"
        array = self._buffer(f"s{number}", str(CHUNK), source)
        first = "first" if self.kernel.columns else "uint64(first)"
        self._where(source).append(f"{array}[i - {first}] = {self._values[source]}")
        return f"add_up({array}, uint64(0), uint64(end - first))"

    def _buffer(self, name: str, count: str, like: Variable) -> str:
        """Return an array for elements of a variable."""
        self._first.append(f"{name} = empty({count}, {_name(like.dtype)})")
        return name

    def _put_together(self, names: dict[Variable, str]) -> str:
        kernel = self.kernel
        over = "rows" if kernel.columns else "size"
        first, end = ("first", "end") if self._chunks else ("0", over)
        if kernel.columns:
            each = self._lines_of_row("for j in range(columns):")
        else:  # unsigned, as a place is
            each, first, end = self._inside[0], f"uint64({first})", f"uint64({end})"
        body = [f"for i in range({first}, {end}):", *indented(each)] if each else []
        if self._chunks:
            lines = [f"end, halves = end_of_chunk(first, {over}, {CHUNK})", *body, *self._chunks]
            lines += ["number += 1 - halves", "first = end"]
            body = ["first = number = 0", f"while first < {over}:", *indented(lines)]
        head = ["rows = size // columns"] if kernel.columns else []
        return "\n".join(
            [*self._head(names), *indented([*head, *self._first, *body, *self._behind, "return 0"]), ""]
        )

    def _head(self, names: dict[Variable, str]) -> list[str]:
        """Return the first lines: arrays, numbers and sizes are words at an address."""
        arrays = {name: x for x, name in names.items()}
        numbers = [f"c{index}" for index in range(len(self.numbers))]
        sizes = ["size", *(["columns", "across"] if self.kernel.columns else [])]
        read = {name: f"array(load(words + {{}}), {_name(x.dtype)})" for name, x in arrays.items()}
        read |= dict.fromkeys(numbers, "float_at(words + {})") | dict.fromkeys(sizes, "load(words + {})")
        lines = [f"{name} = {text.format(8 * index)}" for index, (name, text) in enumerate(read.items())]
        lines.append(f"received = words + {8 * len(lines)}")
        return ["def kernel(words):", *indented(lines)]


def _name(dtype: numpy.dtype) -> str:
    return "bool_" if dtype.kind == "b" else dtype.name
