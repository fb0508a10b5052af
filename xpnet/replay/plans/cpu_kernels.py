"""Kernels on the processor: loops that numba compiles, as rows of a table."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from xpnet.replay.functions import row_of
from xpnet.replay.graph import Variable
from xpnet.replay.kernels.kernel import FULL, NUMBER, ROW, Kernel
from xpnet.replay.kernels.python import PythonSource
from xpnet.replay.plans import numba
from xpnet.replay.plans.plan import Over, Variables
from xpnet.replay.plans.rounds import Piece, Region, Work
from xpnet.replay.plans.step import Call
from xpnet.replay.plans.table import Behind, Row, Where

# How many columns are done together: loops over fewer take longer.
COLUMNS = 32


def compiled(kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
    """Return the function of a kernel and its arguments: the arrays, numbers and sizes."""
    loop = PythonSource(kernel, results, over)
    sizes = [kernel.size, kernel.columns, kernel.columns] if kernel.columns else [kernel.size]
    return numba.native(loop.source), [*arrays, *loop.numbers, *sizes]


def work(kernel: Kernel, call: Call, results: Sequence[Variable], where: Callable[[Variable], Where]) -> Work:
    """Return what calls a kernel in a table.

    Parameters
    ----------
    kernel : Kernel
    call : Call
        Of the function, with its arguments.
    results : sequence of Variable
        What it makes, also over its inputs.
    where : callable
        Returns where a variable begins.
    """
    pieces = _Pieces(kernel, call, results, where)
    return Work(call.name, _nanoseconds(kernel, kernel.size), pieces.count, pieces.of)


class _Pieces:
    """A kernel in pieces: for some of its rows or elements, or for some columns of all rows.

    All rows are added to what is a row or a number. The pieces of a kernel that makes rows have some columns,
    unless what is made needs whole rows, too.

    Attributes
    ----------
    count : int
        How many pieces there are at most.
    """

    def __init__(
        self, kernel: Kernel, call: Call, results: Sequence[Variable], where: Callable[[Variable], Where]
    ) -> None:
        self._kernel, self._call, self._results, self._where = kernel, call, results, where
        self._arrays = [x for x in call.arguments if type(x) is Variable]
        # What is read or written in each of them.
        self._seen = [*kernel.inputs, *self._arrays[len(kernel.inputs) :]]
        self._width = kernel.columns or 1
        self._rows = kernel.size // self._width
        made = kernel.made
        self._by_columns = ROW in made and made <= {FULL, ROW} and not kernel.is_by_rows
        columns = ceil(kernel.columns / COLUMNS) if self._by_columns else 1
        self.count = columns if made.intersection((ROW, NUMBER)) else self._rows

    def of(self, first: int, last: int) -> Piece:
        """Return what does the pieces from one number up to another."""
        kernel, width = self._kernel, self._width
        rows, columns = (first, last), (0, width)
        if self._by_columns:
            rows, columns = (0, self._rows), (first * COLUMNS, min(last * COLUMNS, width))
        elif self.count == 1:
            rows = 0, self._rows
        words = list(self._call.arguments)
        size = (rows[1] - rows[0]) * (columns[1] - columns[0])
        if size < kernel.size:
            for number, (array, x) in enumerate(zip(self._arrays, self._seen, strict=True)):
                words[number] = Behind(array, self._place(x, rows[0], columns[0]) * x.dtype.itemsize)
            if kernel.columns:
                words[-3:] = size, columns[1] - columns[0], width
            else:
                words[-1] = size
        problem = f"an index of take_along_axis must be from {-width} to {width - 1}; received {{}}"
        row = Row(self._call.function, [*words, 0], _nanoseconds(kernel, size), problem)
        read, written = (
            [self._region(x, rows, columns) for x in variables]
            for variables in (kernel.inputs, self._results)
        )
        return Piece(row, read, written)

    def _step(self, x: Variable) -> int:
        """Return how many elements its rows are apart; 0 where the same serve all rows."""
        if x in self._kernel.views:
            return self._kernel.views[x].axes[0][1]
        return 0 if self._kernel.kinds[x] in (ROW, NUMBER) else x.size // self._rows

    def _has_columns(self, x: Variable) -> bool:
        return bool(self._kernel.columns) and self._kernel.kinds[x] in (FULL, ROW)

    def _place(self, x: Variable, row: int, column: int) -> int:
        """Return how many elements behind the first one a row of a variable begins, at a column."""
        return row * self._step(x) + column * self._has_columns(x)

    def _region(self, x: Variable, rows: tuple[int, int], columns: tuple[int, int]) -> Region:
        """Return what is read or written of a variable."""
        view, step, itemsize = self._kernel.views.get(x), self._step(x), x.dtype.itemsize
        array, start = self._where(view.base if view else x)
        start += ((view.start if view else 0) + self._place(x, rows[0], columns[0])) * itemsize
        if self._has_columns(x):
            length = columns[1] - columns[0]
        else:  # also of what has several arrays beside each other
            length = step or x.size
        number = rows[1] - rows[0] if step else 1
        return Region.of(array, start, (number, length), (step * itemsize, itemsize), itemsize)


def _nanoseconds(kernel: Kernel, size: int) -> float:
    """Return about how long so many elements take on a processor that is none of the fastest."""
    slow = sum(row_of(part.operation.name).kind in ("elementary", "transcendental") for part in kernel.parts)
    return size * (0.1 * len(kernel.parts) + 2 * slow)
