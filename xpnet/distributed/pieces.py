"""How arrays are cut into pieces, of which each process has one, and what becomes of the pieces by MPI.

The arrays stay where they are. Every process sends its elements of a piece to the process that has it, or its
own piece to all, in messages between pairs: MPI's own Reduce_scatter took nine times as long, and needs one
stretch of memory.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy

# Pieces begin and end at multiples of so many elements, 64 bytes of float32, as processors like them.
_MULTIPLE = 16

# A message has at most so many elements, which are still in the cache when they are added up; shorter ones
# travel together, up to so many.
_AT_ONCE, _TOGETHER = 2**17, 2**14

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


@dataclass(frozen=True)
class _Message:
    """What travels at once: a stretch of one array, or short ones of several arrays of one dtype.

    Attributes
    ----------
    dtype : numpy.dtype
    parts : list of (int, slice, slice)
        The number of each array, its elements, and where they are in the message.
    """

    dtype: numpy.dtype
    parts: list[tuple[int, slice, slice]]

    @property
    def size(self) -> int:
        return int(self.parts[-1][2].stop)

    def of(self, arrays: Arrays) -> numpy.ndarray:
        """Return the message from arrays with one axis: a view of one, or a copy of parts of several."""
        if len(self.parts) == 1:
            number, place, _ = self.parts[0]
            return arrays[number][place]
        return numpy.concatenate([arrays[number][place] for number, place, _ in self.parts])


class _Under:
    """The messages of an operation under one tag, as a ``with`` block that waits for them at the end."""

    # What was on its way where a block was left by an exception, Ctrl-C, say: MPI may still read and write
    # there.
    cut_off: ClassVar[list[list[Any]]] = []

    def __init__(self, communicator: Any, tag: int) -> None:
        self._communicator, self._tag = communicator, tag
        self._requests: list[Any] = []

    def send(self, content: numpy.ndarray, other: int) -> None:
        self._requests.append(self._communicator.Isend(_bytes(content), other, self._tag))

    def receive(self, buffer: numpy.ndarray, other: int) -> None:
        self._requests.append(self._communicator.Irecv(_bytes(buffer), other, self._tag))

    def receive_now(self, buffer: numpy.ndarray, other: int) -> None:
        self._communicator.Recv(_bytes(buffer), other, self._tag)

    def __enter__(self) -> "_Under":
        return self

    def __exit__(self, error: Any, *_: object) -> None:
        if error is None and self._requests:
            type(self._requests[0]).Waitall(self._requests)
        elif self._requests:
            self.cut_off.append(self._requests)


class Exchange:
    """What the processes send each other of some arrays in pieces, found once.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
    pieces : Pieces
    dtypes : sequence of numpy.dtype
    """

    def __init__(self, communicator: Any, pieces: Pieces, dtypes: Sequence[numpy.dtype]) -> None:
        rank, size = communicator.rank, communicator.size
        self._communicator, self._rank, self._dtypes = communicator, rank, dtypes
        # From the next one on, so that not all begin with the same.
        self._others = [(rank + distance) % size for distance in range(1, size)]
        self._slices = pieces.slices(rank)
        self._messages = [self._of(pieces, each) for each in range(size)]

    def _of(self, pieces: Pieces, rank: int) -> list[_Message]:
        """Return the messages that are the piece of a process."""
        messages: list[_Message] = []
        for number, place in pieces.stretches(rank, _AT_ONCE):
            dtype, size = self._dtypes[number], place.stop - place.start
            last = messages[-1] if messages and messages[-1].dtype == dtype else None
            start = last.size if last and last.size + size <= _TOGETHER else 0
            if last is None or not start:
                last = _Message(dtype, [])
                messages.append(last)
            last.parts.append((number, place, slice(start, start + size)))
        return messages

    def add_up(self, arrays: Arrays, results: Arrays, tag: int = 0) -> None:
        """Add up the arrays of all processes, each in the piece that it has.

        Parameters
        ----------
        arrays, results : sequence of numpy.ndarray
            Whole arrays, and where the elements of this process go, one after the other. Numbers of two bytes
            are added up in float32, and travel as they are.
        tag : int, default=0
            By which messages are told from those of another operation that was cut off.
        """
        whole = [*map(_elements, arrays)]
        with _Under(self._communicator, tag) as under, numpy.errstate(all="ignore"):  # as MPI's own sums
            for other in self._others:
                for message in self._messages[other]:
                    under.send(message.of(whole), other)
            for message in self._messages[self._rank]:
                self._add_up(message, under, whole, results)

    def _add_up(self, message: _Message, under: "_Under", whole: Arrays, results: Arrays) -> None:
        """Add what others send for a message of this process."""
        received, wide = numpy.empty(message.size, message.dtype), travels_as(message.dtype)
        given = [whole[number][place] for number, place, _ in message.parts]
        into = [results[number][self._here(number, place)] for number, place, _ in message.parts]
        totals = into if message.dtype == wide else [numpy.empty(x.shape, wide) for x in into]
        for other in self._others:
            under.receive_now(received, other)
            for x, (*_, there), total in zip(given, message.parts, totals, strict=True):
                so_far = x if other == self._others[0] else total
                numpy.add(so_far, received[there], out=total, dtype=wide)
        for x, total in zip(into, totals, strict=True):
            if x is not total:
                x[...] = total

    def join(self, arrays: Arrays, results: Arrays, tag: int = 0, root: int | None = None) -> None:
        """Put together whole arrays of the pieces that the processes have.

        Parameters
        ----------
        arrays, results : sequence of numpy.ndarray
            The elements of this process, and where whole arrays go.
        tag : int, default=0
            See `add_up`.
        root : int or None
            The process that gets them; None for all. The others give no ``results``.
        """
        own, whole, received = [*map(_elements, arrays)], [x.reshape(-1) for x in results], []
        with _Under(self._communicator, tag) as under:
            for other in self._others if whole else ():
                for message in self._messages[other]:
                    is_one = len(message.parts) == 1
                    buffer = message.of(whole) if is_one else numpy.empty(message.size, message.dtype)
                    under.receive(buffer, other)
                    received += [] if is_one else [(message, buffer)]
            for message in self._messages[self._rank]:
                here = [(number, self._here(number, place), there) for number, place, there in message.parts]
                content = _Message(message.dtype, here).of(own)
                for other in [other for other in self._others if root in (None, other)]:
                    under.send(content, other)
            for x, place, piece in zip(whole, self._slices, own, strict=False):
                if not numpy.may_share_memory(x[place], piece):  # as a plan makes it there already
                    x[place] = piece
        for message, buffer in received:
            for number, place, there in message.parts:
                whole[number][place] = buffer[there]

    def _here(self, number: int, place: slice) -> slice:
        """Return where elements of an array are among those that this process has."""
        start = self._slices[number].start
        return slice(place.start - start, place.stop - start)


def travels_as(dtype: numpy.dtype) -> numpy.dtype:
    """Return the dtype in which numbers are added up: MPI has none of two bytes."""
    return numpy.dtype("float32") if dtype.kind in "fV" and dtype.itemsize == 2 else dtype.newbyteorder("=")


def _elements(x: numpy.ndarray) -> numpy.ndarray:
    return numpy.ascontiguousarray(x).reshape(-1)


def _bytes(x: numpy.ndarray) -> numpy.ndarray:
    return x.view("uint8")
