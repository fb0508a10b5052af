"""Kernels on the processor: loops that numba compiles, as rows of a table, or shared among the cores."""

from collections.abc import Sequence
from typing import Any

from xpnet.replay.functions import row_of
from xpnet.replay.graph import Variable
from xpnet.replay.kernels.kernel import NUMBER, ROW, Kernel
from xpnet.replay.kernels.python import PythonSource
from xpnet.replay.plans import numba
from xpnet.replay.plans.plan import Over, Variables
from xpnet.replay.plans.step import Call, Member
from xpnet.replay.plans.table import LONGEST, Behind, Row

# From how many elements on a loop is shared among the cores. BLAS keeps its threads busy for some time after
# a product, so that other threads gain nothing before.
PARALLEL = 8_388_608


def compiled(kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
    """Return the function of a kernel and its arguments: the arrays, numbers and sizes."""
    parallel = kernel.size >= PARALLEL and not kernel.has_totals
    loop = PythonSource(kernel, results, over, parallel=parallel)
    if parallel:
        steps = _steps(kernel, [x for x in results if x not in over])
        function = numba.on_all_cores(loop.source, steps, kernel.columns, _rows_at_once(kernel))
        # Arrays are handed in with one axis, see `PythonSource`.
        flat = [x if len(x.shape) == 1 else Member(x, "reshape", (-1,)) for x in arrays]
        return function, [*flat, *loop.numbers, kernel.size]
    sizes = [kernel.size, kernel.columns] if kernel.columns else [kernel.size]
    return numba.native(loop.source), [*arrays, *loop.numbers, *sizes]


def rows(kernel: Kernel, call: Call) -> list[Row]:
    """Return what calls a kernel in a table; nothing if cores share it.

    One that takes long is several rows, each for a part of its own rows.
    """
    if not hasattr(call.function, "address"):
        return []
    columns = kernel.columns or 1
    count, most = kernel.size // columns, _rows_at_once(kernel)
    problem = f"an index of take_along_axis must be from {-columns} to {columns - 1}; received {{}}"
    arrays = [x for x in call.arguments if type(x) is Variable]
    steps = _steps(kernel, arrays[len(kernel.inputs) :])
    found = []
    for first in range(0, count, most):
        words, size = list(call.arguments), min(most, count - first) * columns
        if size < kernel.size:
            pairs = zip(arrays, steps, strict=True)
            words[: len(arrays)] = [Behind(x, first * step * x.dtype.itemsize) for x, step in pairs]
            words[-2 if kernel.columns else -1] = size
        found.append(Row(call.function, [*words, 0], _nanoseconds(kernel, size), problem))
    return found


def _steps(kernel: Kernel, results: Sequence[Variable]) -> list[int]:
    """Return for each array how many elements its rows are apart; 0 where the same serve all rows."""
    count = kernel.size // (kernel.columns or 1)
    return [
        kernel.views[x].axes[0][1] if x in kernel.views
        else 0 if kernel.kinds[x] in (ROW, NUMBER)
        else x.size // count
        for x in (*kernel.inputs, *results)
    ]  # fmt: skip


def _rows_at_once(kernel: Kernel) -> int:
    """Return of how many rows a kernel takes no longer than someone who presses Ctrl-C may wait."""
    made = {kernel.kinds[part.result] for part in kernel.parts}
    if made.intersection((ROW, NUMBER)):  # to which all rows are added
        return kernel.size
    return max(1, int(LONGEST / _nanoseconds(kernel, kernel.columns or 1)))


def _nanoseconds(kernel: Kernel, size: int) -> float:
    """Return about how long so many elements take on a processor that is none of the fastest."""
    slow = sum(row_of(part.operation.name).kind in ("elementary", "transcendental") for part in kernel.parts)
    return size * (0.1 * len(kernel.parts) + 2 * slow)
