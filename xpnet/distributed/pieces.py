"""How arrays are cut into pieces, of which each process has one, and what becomes of the pieces by MPI.

The arrays stay where they are. Every process sends its elements of a piece to the process that has it, or its
own piece to all, in messages between pairs: MPI's own Reduce_scatter took nine times as long, and needs one
stretch of memory.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

# Pieces begin and end at multiples of so many elements, 64 bytes of float32, as processors like them.
_MULTIPLE = 16

# So many elements are added up at once, which are still in the cache then, and a message has at most so many.
_AT_ONCE, _OF_MESSAGE = 2**17, 2**27

Arrays = Sequence[numpy.ndarray]


@dataclass(frozen=True)
class Pieces:
    """Arrays, one after the other, cut into pieces of one length, of which each process has one.

    `Pieces.of` makes it. What a process has of an array are neighbouring elements, in the order of C: all, or
    none, of most arrays.

    Attributes
    ----------
    shapes : tuple of tuple of int
        Of the arrays.
    starts : tuple of int
        Where each of them begins, in elements.
    length : int
        How many elements each process has; the last ones may have fewer.
    """

    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    length: int

    @classmethod
    def of(cls, shapes: Iterable[tuple[int, ...]], size: int) -> "Pieces":
        """Cut arrays of some shapes for so many processes."""
        shapes, starts, end = tuple(shapes), list[int](), 0
        for shape in shapes:
            starts.append(end)
            end += _rounded_up(math.prod(shape))
        return cls(shapes, tuple(starts), _rounded_up(-(-end // size)))

    def at(self, numbers: Sequence[int]) -> "Pieces":
        """Return the same for some of the arrays, by their numbers, which may come again."""
        return Pieces(
            tuple(self.shapes[n] for n in numbers), tuple(self.starts[n] for n in numbers), self.length
        )

    def slices(self, rank: int) -> list[slice]:
        """Return which elements of each array are those of a process."""
        found = []
        for shape, start in zip(self.shapes, self.starts, strict=True):
            ends = ((rank + n) * self.length - start for n in range(2))
            found.append(slice(*(min(max(end, 0), math.prod(shape)) for end in ends)))
        return found

    def stretches(self, rank: int, most: int) -> Iterator[tuple[int, slice]]:
        """Yield the elements of a process in stretches of at most so many, each with the array's number."""
        for number, own in enumerate(self.slices(rank)):
            for start in range(own.start, own.stop, most):
                yield number, slice(start, min(start + most, own.stop))


def _rounded_up(elements: int) -> int:
    return -(-elements // _MULTIPLE) * _MULTIPLE


def add_up(communicator: Any, pieces: Pieces, arrays: Arrays, results: Arrays) -> None:
    """Add up the arrays of all processes, each in the piece that it has.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
    pieces : Pieces
    arrays, results : sequence of numpy.ndarray
        Whole arrays, and where the elements of this process go, one after the other. Numbers of two bytes are
        added up in float32, and travel as they are.
    """
    rank, others = communicator.rank, _others(communicator)
    whole = [_flat(x) for x in arrays]
    requests = [
        communicator.Isend(_bytes(whole[number][place]), other)
        for other in others
        for number, place in pieces.stretches(other, _AT_ONCE)
    ]
    starts = [own.start for own in pieces.slices(rank)]
    for number, place in pieces.stretches(rank, _AT_ONCE):
        x, start = whole[number][place], starts[number]
        result = results[number][place.start - start : place.stop - start]
        received = numpy.empty_like(x)
        wide = travels_as(x.dtype)
        total = result if x.dtype == wide else numpy.empty(x.shape, wide)
        for other in others:
            communicator.Recv(_bytes(received), other)
            numpy.add(x if other == others[0] else total, received, out=total, dtype=wide)
        if total is not result:
            result[...] = total
    _wait(requests)


def join(communicator: Any, pieces: Pieces, arrays: Arrays, results: Arrays, root: int | None = None) -> None:
    """Put together whole arrays of the pieces that the processes have.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
    pieces : Pieces
    arrays, results : sequence of numpy.ndarray
        The elements of this process, and where whole arrays go.
    root : int or None
        The process that gets them; None for all. The others give no ``results``.
    """
    others = _others(communicator)
    whole, own, requests = [x.reshape(-1) for x in results], [*map(_flat, arrays)], []
    for other in others if results else ():
        for number, place in pieces.stretches(other, _OF_MESSAGE):
            requests.append(communicator.Irecv(_bytes(whole[number][place]), other))
    slices = pieces.slices(communicator.rank)
    for other in [x for x in others if root in (None, x)]:
        for number, place in pieces.stretches(communicator.rank, _OF_MESSAGE):
            start = slices[number].start
            message = own[number][place.start - start : place.stop - start]
            requests.append(communicator.Isend(_bytes(message), other))
    for x, place, piece in zip(whole, slices, own, strict=False):
        if not numpy.may_share_memory(x[place], piece):  # as a plan makes it there already
            x[place] = piece
    _wait(requests)


def travels_as(dtype: numpy.dtype) -> numpy.dtype:
    """Return the dtype in which numbers are added up: MPI has none of two bytes."""
    return numpy.dtype("float32") if dtype.kind in "fV" and dtype.itemsize == 2 else dtype.newbyteorder("=")


def _others(communicator: Any) -> list[int]:
    """Return the ranks of the other processes, from the next one on, so that not all begin with the same."""
    rank, size = communicator.rank, communicator.size
    return [(rank + distance) % size for distance in range(1, size)]


def _flat(x: numpy.ndarray) -> numpy.ndarray:
    return numpy.ascontiguousarray(x).reshape(-1)


def _bytes(x: numpy.ndarray) -> numpy.ndarray:
    return x.view("uint8")


def _wait(requests: list[Any]) -> None:
    if requests:
        type(requests[0]).Waitall(requests)
