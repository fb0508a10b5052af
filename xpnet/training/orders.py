"""In which order examples come."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy

from xpnet.settings import count, described, is_bool

# From the numbers of some rows to these in another order.
Order: TypeAlias = Callable[[numpy.ndarray], numpy.ndarray]

# How many blocks are shuffled together.
_BLOCKS_TOGETHER = 16

# Elements of the examples in a block: a read of a megabyte costs no more for each byte than a larger one, and
# blocks that are shuffled together are in memory together. Of fewer examples, a block is a share: not even a
# small file is read whole.
_ELEMENTS_OF_BLOCK = 2**18
_BLOCKS = 64


class Blocks:
    """An order in which a file can be read in large parts.

    Blocks of neighbouring rows are shuffled; and then, so many blocks at a time, the rows in them. The order
    depends on the number of rows, the size of the blocks and the random numbers, and on nothing else.

    Parameters
    ----------
    block_size : int
        How many rows are a block.
    random : numpy.random.Generator

    Attributes
    ----------
    ends : array of int
        Where those end that are shuffled together, in the order that was made last: a file is read so far.
    """

    def __init__(self, block_size: int, random: "numpy.random.Generator") -> None:
        self.block_size, self._random = block_size, random
        self.ends = numpy.empty(0, int)

    def __call__(self, rows: numpy.ndarray) -> numpy.ndarray:
        rows, size = numpy.sort(rows), self.block_size
        blocks = self._random.permutation(-(-len(rows) // size))
        places = (size * blocks[:, None] + numpy.arange(size)).reshape(-1)
        order: numpy.ndarray = rows[places[places < len(rows)]]
        ends = numpy.cumsum(numpy.minimum(size, len(rows) - size * blocks))  # the last block may be smaller
        self.ends = numpy.append(ends[_BLOCKS_TOGETHER - 1 : -1 : _BLOCKS_TOGETHER], len(rows))
        for start, end in pairwise([0, *self.ends]):
            self._random.shuffle(order[start:end])
        return order


def default_block_size(rows: int, elements: int) -> int:
    """Return how many rows are a block, if nothing else is said, for examples of so many elements."""
    return max(1, min(_ELEMENTS_OF_BLOCK // max(1, elements), -(-rows // _BLOCKS)))


def order_of(
    shuffle: Any, block_size: Any, *, rows: int, elements: int, random: "numpy.random.Generator"
) -> Order:
    """Return the function that puts so many rows, with so many elements each, in the order of an epoch."""
    if block_size is not None:
        block_size = count("block_size", block_size)
        if not (isinstance(shuffle, str) and shuffle == "blocks"):
            raise ValueError(
                f'block_size must go with shuffle="blocks", received {block_size} with shuffle={shuffle!r}.'
            )
    if isinstance(shuffle, str) and shuffle == "blocks":
        return Blocks(min(block_size or default_block_size(rows, elements), rows), random)
    if is_bool(shuffle):
        return random.permutation if shuffle else numpy.sort
    if not callable(shuffle):
        raise TypeError(
            'if it is not "blocks", shuffle must be True, False or a function of the rows, received '
            f"{described(shuffle)}."
        )
    order: Order = shuffle
    return order
