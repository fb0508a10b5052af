"""Steps of a plan as a table that native code goes through, without Python in between.

Steps that follow one another and that native code can do are a `Stretch`: one line of a plan's function. Its
table is an array of words of 64 bits, made for each memory that the function is bound to. It begins with the
words that are named below. Behind them stand the *places*, words that are filled in at each call, as they are
addresses in arrays that are handed in; and the *rows*, one for each step: the address of a function, the
number of its words, and these words, which are addresses of operands, sizes and numbers. The function is
given the address of its words, and returns 0 unless something is wrong.
"""

import ctypes
import sys
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy

from xpnet.replay.graph import Variable

# Words of a table before its places: how many places and rows there are, the class `numpy.ndarray`, what
# stopped it (0, or the number of the row, from 1), and the processor's settings for arithmetic, as they were
# and as they are meanwhile. The others are for threads that go through it together, see `native_pool.py`:
# where those are, how many rounds there are and where they are, how many parts the largest one has, and the
# number of the last run; how long one thread takes, until when it is left to one, and for how long it is if
# several take longer, in nanoseconds; and two words for the clock.
PLACES, ROWS, CLASS, STOPPED, BEFORE, WITHIN = range(6)
POOL, ROUNDS, FIRST_ROUND, MOST_PARTS, RUN, ALONE, AGAIN, PENALTY, STARTED = range(6, 15)
HEAD = STARTED + 2
# Words of a round, in two lines of the cache, as threads write to both: how many parts are claimed, how many
# there are, where they are, and how many rows the table has up to its end; and how many are done. What
# is counted begins at the number of the run times so many.
CLAIMED, PARTS, FIRST_PART, ROWS_UNTIL, DONE, ROUND = 0, 1, 2, 3, 8, 16
RUN_APART = 1 << 24
# Of a part: where its first row is, how many rows it has, and how many there are in the table before it.
FIRST_ROW, ROWS_OF_PART, ROWS_BEFORE, PART = range(4)
# Words of a place: the address of what is filled in, the number of the array, and how many bytes behind its
# beginning.
WORD, ARRAY, OFFSET, PLACE = range(4)

# Where objects of Python have what native code reads, in bytes: a tuple its items; an array, whose fields
# never move, its elements, how many axes it has, its shape, what it views, its dtype and its flags; and a
# number its element itself.
ITEMS = tuple.__basicsize__
TYPE, ELEMENTS, DIMENSIONS, SHAPE, BASE, DTYPE, FLAGS = (
    object.__basicsize__ + behind for behind in (-8, 0, 8, 16, 32, 40, 48)
)
# Of NumPy's flags: that elements stand one after the other where they should, and that they may be written.
IN_ORDER, WRITEABLE = 0x101, 0x400
# Nanoseconds. Longer ones let other threads of Python go on meanwhile, which costs up to 5 ms if these do not
# stop on their own; the longest end in time for someone who presses Ctrl-C.
SHORT, LONGEST = 50_000, 30_000_000


class Row(NamedTuple):
    """What native code does at one step.

    Attributes
    ----------
    function : object
        With the ``address`` of a function of C that is given the address of its words, and returns whether it
        is stopped.
    words : sequence of Variable, Behind, numpy.ndarray, int or float
        Variables stand for the addresses of their first elements, and so do constant arrays.
    nanoseconds : float
        About how long it takes.
    problem : str
        What to say if it is stopped, with ``{}`` for the last of its words.
    """

    function: Any
    words: Sequence[Any]
    nanoseconds: float
    problem: str = ""


class Behind(NamedTuple):
    """What is some bytes behind the first element of a variable."""

    variable: Variable
    nbytes: int


class Where(NamedTuple):
    """Where a variable begins: in the plan's memory, or in an array that is handed in under a name."""

    array: str | None
    offset: int


class Stretch:
    """Steps that native code does in one call.

    Parameters
    ----------
    rounds : sequence of sequence of sequence of Row
        Rounds of parts of rows: all parts of a round may be done at once.
    where : callable
        Returns where a variable begins.

    Attributes
    ----------
    arrays : list of str
        The names of the arrays that are handed in.
    nanoseconds : float
        About how long it takes.
    is_divided : bool
        Whether several threads can go through it.
    """

    def __init__(self, rounds: Sequence[Sequence[Sequence[Row]]], where: Callable[[Variable], Where]) -> None:
        self._rows = [row for parts in rounds for part in parts for row in part]
        self.nanoseconds = sum(row.nanoseconds for row in self._rows)
        self.is_divided = any(len(parts) > 1 for parts in rounds)
        self._constants: list[numpy.ndarray] = []
        self._starts: list[int] = []  # of the words of each row
        names: dict[str, int] = {}
        places: list[int] = []
        words: list[int] = []
        in_memory: list[int] = []
        for row in self._rows:
            words += [row.function.address, len(row.words)]
            self._starts.append(len(words))
            for word in row.words:
                value = word
                if type(word) in (Variable, Behind):
                    variable, behind = word if type(word) is Behind else (word, 0)
                    array, offset = where(variable)
                    value = offset + behind
                    if array is None:
                        in_memory.append(len(words))
                    else:
                        places += [len(words), names.setdefault(array, len(names)), value]
                        value = 0
                elif isinstance(word, numpy.ndarray):
                    self._constants.append(word)
                    value = word.ctypes.data
                elif type(word) is float:
                    value = int(numpy.float64(word).view(numpy.int64))
                words.append(value)
        self.arrays = [*names]
        before = HEAD + len(places)
        self._template = numpy.zeros(before + len(words), numpy.int64)
        self._template[[PLACES, ROWS, CLASS]] = len(places) // PLACE, len(self._rows), id(numpy.ndarray)
        self._template[HEAD:before] = places
        self._template[before:] = words
        self._in_memory = numpy.asarray(in_memory, numpy.int64) + before
        # A place has the address of its word, once the table has one.
        self._places = numpy.arange(HEAD, before, PLACE)
        self._starts = [start + before for start in self._starts]
        self._before = before
        self._rounds = [[len(part) for part in parts] for parts in rounds]

    def bind(self, memory: numpy.ndarray, pool: Any = None) -> "Table":
        """Return the table for a plan's memory, and for the threads that go through it together."""
        words = self._template.copy()
        words[self._in_memory] += memory.ctypes.data
        words[self._places] = words.ctypes.data + 8 * (self._before + words[self._places])
        if pool is None:
            return Table(self, words)
        rounds, parts = self._divided(words.ctypes.data)
        words[[POOL, ROUNDS, FIRST_ROUND]] = pool.address, len(rounds), rounds.ctypes.data
        words[MOST_PARTS] = most = max(map(len, self._rounds))
        pool.most = max(pool.most, most)
        return Table(self, words, (rounds, parts), pool)

    def _divided(self, address: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return the words of the rounds and of their parts, for a table at an address."""
        parts = numpy.zeros((sum(map(len, self._rounds)), PART), numpy.int64)
        memory = numpy.zeros(ROUND * len(self._rounds) + 8, numpy.int64)
        rounds = memory[-memory.ctypes.data % 64 // 8 :][: ROUND * len(self._rounds)]
        rounds = rounds.reshape(-1, ROUND)
        rows = number = 0
        for counts, words in zip(self._rounds, rounds, strict=True):
            words[[PARTS, FIRST_PART]] = len(counts), parts[number:].ctypes.data
            for count in counts:
                # The address of a row and the number of its words stand before these.
                parts[number] = address + 8 * (self._starts[rows] - 2), count, rows
                rows += count
                number += 1
            words[ROWS_UNTIL] = rows
        return rounds, parts

    def error(self, words: numpy.ndarray) -> Exception:
        """Return what stopped a table with these words."""
        number = int(words[STOPPED]) - 1
        row = self._rows[number]
        return IndexError(row.problem.format(words[self._starts[number] + len(row.words) - 1]))


class Table:
    """A stretch in memory.

    Attributes
    ----------
    address : int
        Of its words.
    """

    def __init__(
        self, stretch: Stretch, words: numpy.ndarray, rounds: Sequence[numpy.ndarray] = (), pool: Any = None
    ) -> None:
        self._stretch, self._words = stretch, words
        self._rounds, self._pool = rounds, pool
        self.address = words.ctypes.data

    def __del__(self) -> None:
        if self._pool is not None:
            self._pool.keep(self.address, (self._words, self._rounds))

    def error(self) -> Exception:
        """Return what stopped it."""
        return self._stretch.error(self._words)


# Words of the table by which arguments are looked at: the class `numpy.ndarray`, how many arguments there
# are, and how many words there are behind, a power of two, to look up arrays in.
OF_NUMPY, COUNT, SIZE, FOUND = range(4)
# Words for each argument, behind those: the class of NumPy's number that it may be, whether it is written
# over, its dtype, and how many axes it has. Its shape stands behind them.
NUMBER, WRITTEN, OF_DTYPE, NDIM, ROW = range(5)


def of_arguments(
    inputs: Sequence[Variable], written: Collection[Variable], numbers: Collection[Variable]
) -> numpy.ndarray:
    """Return the table by which the arguments of a plan are looked at: what each of them must be.

    Parameters
    ----------
    inputs : sequence of Variable
    written : collection of Variable
        Those that are written over.
    numbers : collection of Variable
        Those that may be numbers of NumPy's in place of arrays.
    """
    size = 1 << (2 * len(written)).bit_length()
    words = [id(numpy.ndarray), len(inputs), size, *[0] * size]
    for x in inputs:
        kind = x.dtype.type
        # A class of numbers with fields says nothing about these.
        number = id(kind) if x in numbers and x not in written and numpy.dtype(kind) == x.dtype else 0
        words += [number, x in written, id(x.dtype), len(x.shape), *x.shape]
    return numpy.asarray(words, numpy.int64)


@cache
def objects_are_readable() -> bool:
    """Say whether objects are in memory as native code reads them."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    x = numpy.ones((2, 3))
    views = [x[1:], x.T]
    views[0].flags.writeable = False
    arrays = (x, *views)
    read = ctypes.c_int64.from_address
    numbers = [numpy.asarray(1, dtype)[()] for dtype in "?bBhHiIlLqQefdFD"]
    if any(ctypes.string_at(id(n) + ELEMENTS, n.itemsize) != n.tobytes() for n in numbers):
        return False
    return all(
        read(id(y) + TYPE).value == id(numpy.ndarray)
        and read(id(y) + ELEMENTS).value == y.ctypes.data
        and read(id(y) + BASE).value == (0 if y is x else id(x))
        and read(id(y) + DTYPE).value == id(y.dtype)
        and read(id(y) + DIMENSIONS).value & 0xFFFFFFFF == y.ndim
        and all(read(read(id(y) + SHAPE).value + 8 * axis).value == n for axis, n in enumerate(y.shape))
        and (read(id(y) + FLAGS).value & IN_ORDER == IN_ORDER) == y.flags.c_contiguous
        and bool(read(id(y) + FLAGS).value & WRITEABLE) == y.flags.writeable
        and read(id(arrays) + ITEMS + 8 * index).value == id(y)
        for index, y in enumerate(arrays)
    )
