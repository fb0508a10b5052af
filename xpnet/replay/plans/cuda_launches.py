"""Kernels of one text in one launch: each block finds out which of them it belongs to.

So does torch's `multi_tensor_apply` for optimizers; here it is done for any kernels, of one grid after the
other. What is not the same for all of them is handed in as a list, by value, which a captured graph keeps.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from xpnet.replay.kernels.c import CudaSource, Grid, function
from xpnet.replay.plans.step import Call

# Bytes that the parameters of a kernel may take. Newer devices take more, from CUDA 12.1 on.
MOST_BYTES = 4096


class Launch(NamedTuple):
    """How a kernel is launched: what a call has in the place of its function, before that is compiled.

    Attributes
    ----------
    kernel : CudaSource
    grid : Grid
    source : str
        Of the kernel, or of one that does the work of several.
    """

    kernel: CudaSource
    grid: Grid
    source: str


def together(calls: Iterable[Call]) -> list[Call]:
    """Return as few calls as can do the work of some, whose functions are launches.

    None needs what another one makes. Those of one text become one, if that can take all their arguments.
    """
    alike: dict[str, list[Call]] = {}
    for call in calls:
        alike.setdefault(call.function.source, []).append(call)
    joint = []
    for same in alike.values():
        # By their texts, as 0.0 is equal to -0.0.
        apart = [len(set(map(repr, column))) > 1 for column in _columns(same)]
        most = (MOST_BYTES // 8 - apart.count(False)) // (apart.count(True) + 1)
        pieces = -(-len(same) // most)  # about as long as each other: one text may serve them
        joint += [_one(same[number::pieces], apart) for number in range(pieces)]
    return joint


def _columns(calls: Sequence[Call]) -> Iterable[tuple]:
    return zip(*(call.arguments for call in calls), strict=True)


def _one(calls: Sequence[Call], apart: Sequence[bool]) -> Call:
    """Return one call for several of one text, given which arguments are not the same in all of them."""
    call = calls[0]
    if len(calls) == 1:
        return call
    grids = [each.function.grid for each in calls]
    *first, blocks = accumulate((x * y for (x, y), _, _ in grids), initial=0)
    columns = zip(_columns(calls), apart, strict=True)
    arguments = [first, *([*column] if differs else column[0] for column, differs in columns)]
    # With more threads than it asks for, a kernel does the same.
    grid = Grid((blocks, 1), max(grid.threads for grid in grids), 0)
    kernel = call.function.kernel
    launch = Launch(kernel, grid, _source(kernel, len(calls), apart))
    return call._replace(function=launch, arguments=arguments)


def _source(kernel: CudaSource, number: int, apart: Sequence[bool]) -> str:
    """Return the source that does the work of a number of kernels."""
    parameters, own = ["LISTS const Each<Index> first"], []  # the first block of each
    for parameter, differs in zip(kernel.parameters, apart, strict=True):
        kind, _, name = parameter.rpartition(" ")
        if differs:
            own.append(f"{parameter} = each_{name}.of[which];")
            parameter = f"LISTS const Each<{kind.removesuffix(' __restrict__')}> each_{name}"
        parameters.append(parameter)
    lines = [
        "unsigned int which = 0;",
        f"for (unsigned int step = {1 << (number - 1).bit_length() >> 1}; step; step /= 2)",
        f"    if (which + step < {number} && first.of[which + step] <= blockIdx.x) which += step;",
        f"const unsigned int end = which + 1 < {number} ? first.of[which + 1] : gridDim.x;",
        "const unsigned int start = first.of[which], number = blockIdx.x - start;",
        f"const unsigned int beside = {kernel.strips or 'end - start'};",
        "const Place block = {number % beside, number / beside}, blocks = {beside, (end - start) / beside};",
        *own,
    ]
    each = f"template <class T> struct Each {{ T of[{number}]; }};"
    return f"{each}\n{function(parameters, [*lines, *kernel.body])}"
