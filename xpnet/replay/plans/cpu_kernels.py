"""Kernels on the processor: loops that numba compiles, as rows of a table."""

from collections.abc import Callable, Sequence
from typing import Any

from xpnet.replay.functions import row_of
from xpnet.replay.graph import Variable
from xpnet.replay.kernels.kernel import NUMBER, ROW, Kernel
from xpnet.replay.kernels.python import PythonSource
from xpnet.replay.plans import numba
from xpnet.replay.plans.plan import Over, Variables
from xpnet.replay.plans.rounds import Piece, Region, Work
from xpnet.replay.plans.step import Call
from xpnet.replay.plans.table import Behind, Row, Where


def compiled(kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
    """Return the function of a kernel and its arguments: the arrays, numbers and sizes."""
    loop = PythonSource(kernel, results, over)
    sizes = [kernel.size, kernel.columns] if kernel.columns else [kernel.size]
    return numba.native(loop.source), [*arrays, *loop.numbers, *sizes]


def work(kernel: Kernel, call: Call, results: Sequence[Variable], where: Callable[[Variable], Where]) -> Work:
    """Return what calls a kernel in a table, each piece for some of its rows, or of its elements.

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
    columns = kernel.columns or 1
    rows = kernel.size // columns
    made = {kernel.kinds[part.result] for part in kernel.parts}
    together = rows if made.intersection((ROW, NUMBER)) else 1  # all rows are added to these
    problem = f"an index of take_along_axis must be from {-columns} to {columns - 1}; received {{}}"
    arrays = [x for x in call.arguments if type(x) is Variable]
    steps = _steps(kernel, arrays[len(kernel.inputs) :])

    def regions(variables: Sequence[Variable], first: int, last: int) -> list[Region]:
        return [_region(kernel, x, first, last, where) for x in variables]

    def piece(first: int, last: int) -> Piece:
        first, last = first * together, last * together
        words, size = list(call.arguments), (last - first) * columns
        if size < kernel.size:
            pairs = zip(arrays, steps, strict=True)
            words[: len(arrays)] = [Behind(x, first * step * x.dtype.itemsize) for x, step in pairs]
            words[-2 if kernel.columns else -1] = size
        row = Row(call.function, [*words, 0], _nanoseconds(kernel, size), problem)
        return Piece(row, regions(kernel.inputs, first, last), regions(results, first, last))

    return Work(call.name, _nanoseconds(kernel, kernel.size), rows // together, piece)


def _steps(kernel: Kernel, results: Sequence[Variable]) -> list[int]:
    """Return for each array how many elements its rows are apart; 0 where the same serve all rows."""
    return [_step(kernel, x) for x in (*kernel.inputs, *results)]


def _step(kernel: Kernel, x: Variable) -> int:
    if x in kernel.views:
        return kernel.views[x].axes[0][1]
    return 0 if kernel.kinds[x] in (ROW, NUMBER) else x.size // (kernel.size // (kernel.columns or 1))


def _region(kernel: Kernel, x: Variable, first: int, last: int, where: Callable[[Variable], Where]) -> Region:
    """Return what some rows of a kernel read or write of a variable."""
    view, step = kernel.views.get(x), _step(kernel, x)
    array, start = where(view.base if view else x)
    length = (kernel.columns or 1) if view else step or x.size  # of what there is for a row
    begin = view.start if view else 0
    rows = [begin + row * step for row in (first, max(first, last - 1))]
    itemsize = x.dtype.itemsize
    return Region(array, start + min(rows) * itemsize, start + (max(rows) + length) * itemsize)


def _nanoseconds(kernel: Kernel, size: int) -> float:
    """Return about how long so many elements take on a processor that is none of the fastest."""
    slow = sum(row_of(part.operation.name).kind in ("elementary", "transcendental") for part in kernel.parts)
    return size * (0.1 * len(kernel.parts) + 2 * slow)
