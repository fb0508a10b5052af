"""How what native code does is divided among threads: into parts, and rounds of these.

What stands for a call is a `Work`, which can be done in parts. A part that reads or writes what only one part
before it has written or read is put behind that: a product's rows, their bias, their activation, the product
behind it are one part, which one thread does while they are in its cache. A part that needs several others
begins a new round, in which all parts may be done at once.

How many parts there are depends on shapes alone. So results have the same bits for any number of threads, as
also products are divided in the same way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from xpnet.replay.plans.table import LONGEST, Row

# Nanoseconds. Below, a second thread gains nothing: a table is not divided. Parts take so long at least, and
# so long at most, that other threads find some.
WORTH_IT, SHORTEST, LONGEST_PART = 50_000, 15_000, LONGEST // 8
_GROUP = 16
# So many works are compared with each other, which takes the square of the time.
_COMPARED = 500
# How many parts there are at most, unless they would take longer than the longest.
MOST = 8


class Region(NamedTuple):
    """Bytes that are read or written: so many from each beginning, in a stretch of memory.

    Attributes
    ----------
    array : str or None
        The name of the array that is handed in; None for the plan's own memory.
    start, stop : int
        Of the whole stretch, in bytes.
    every, width : int
        Of so many bytes, the first ones, counted from the start; 0 and 0 for all of them.
    """

    array: str | None
    start: int
    stop: int
    every: int = 0
    width: int = 0

    @classmethod
    def of(
        cls, array: str | None, start: int, shape: Sequence[int], strides: Sequence[int], itemsize: int
    ) -> "Region":
        """Return what the elements of an array take, the first of which starts at a byte."""
        axes = sorted((abs(step), length) for length, step in zip(shape, strides, strict=True) if length > 1)
        start += sum((n - 1) * min(step, 0) for n, step in zip(shape, strides, strict=True))
        width = itemsize
        while axes and axes[0][0] <= width:
            step, length = axes.pop(0)
            width = max(width, step * (length - 1) + width)
        stop = start + width + sum(step * (length - 1) for step, length in axes)
        return cls(array, start, stop, axes[0][0], width) if len(axes) == 1 else cls(array, start, stop)

    def meets(self, other: "Region") -> bool:
        """Say whether two may have bytes in common."""
        if self.array != other.array or self.stop <= other.start or other.stop <= self.start:
            return False
        if not self.every or self.every != other.every:
            return True
        behind = (other.start - self.start) % self.every
        return behind < self.width or self.every - behind < other.width


class Piece(NamedTuple):
    """A row, with what it reads and writes."""

    row: Row
    reads: Sequence[Region]
    writes: Sequence[Region]


@dataclass(frozen=True)
class Work:
    """What native code does in place of a call.

    Attributes
    ----------
    name : str
        Of the function.
    nanoseconds : float
        About how long one thread takes.
    count : int
        In how many pieces it can be done at most, one for each of its rows, say; 1 if only as a whole.
    piece : callable
        Returns what does those from one number up to another.
    divided : callable or None
        Returns pieces for about so many threads, and where they are cut if they follow one another, where
        other pieces are better than those that are alike.
    """

    name: str
    nanoseconds: float
    count: int
    piece: Callable[[int, int], Piece]
    divided: Callable[[int], tuple[Sequence[Piece], list[int] | None]] | None = None

    def cut(self, bounds: Sequence[int]) -> list[Piece]:
        """Return the pieces between numbers."""
        return [self.piece(first, last) for first, last in pairwise(bounds)]


@dataclass
class Part:
    """Rows that are done one after the other by one thread."""

    pieces: list[Piece]
    nanoseconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.nanoseconds = sum(piece.row.nanoseconds for piece in self.pieces)

    @property
    def rows(self) -> list[Row]:
        return [piece.row for piece in self.pieces]

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.nanoseconds += piece.row.nanoseconds


@dataclass(eq=False)
class _Group:
    """The parts of a work, and of what was put behind them.

    Attributes
    ----------
    bounds : list of int or None
        Where the work was cut; None if it is whole, or was cut in another way.
    """

    parts: list[Part]
    bounds: list[int] | None
    names: list[str] = field(default_factory=list)


class Round(NamedTuple):
    """Parts that may be done at once, the longest first, and the names of what they do."""

    parts: list[Part]
    names: list[str]

    @property
    def nanoseconds(self) -> float:
        return sum(part.nanoseconds for part in self.parts)


def stretches(works: Sequence[Work], *, together: Callable[[], bool] = lambda: True) -> list[list[Round]]:
    """Divide works into rounds, and these into stretches of which none takes too long.

    Parameters
    ----------
    works : sequence of Work
    together : callable
        Says whether several threads may go through rounds; only asked where that is worth while.
    """
    found: list[list[Round]] = []
    left = 0.0
    some = (works[start : start + _COMPARED] for start in range(0, len(works), _COMPARED))
    for each in _short(each for those in some for each in _divided(those, together)):
        left -= each.nanoseconds
        if not found or left < 0:
            found.append([])
            left = LONGEST - each.nanoseconds
        found[-1].append(each)
    return found


def _divided(works: Sequence[Work], together: Callable[[], bool]) -> Iterable[Round]:
    """Divide works into rounds if several threads gain from it: if there is much to do, not in trifles."""
    times = [work.nanoseconds for work in works]
    if sum(times) >= WORTH_IT and max(times) >= 2 * SHORTEST and together():
        return _rounds(works)
    return _one_by_one(works)


def _one_by_one(works: Iterable[Work]) -> Iterator[Round]:
    """Leave works whole, but for those that take too long."""
    for work in works:
        for piece in _pieces(work, -(-int(work.nanoseconds) // LONGEST))[0]:
            yield Round([Part([piece])], [work.name])


def _short(rounds: Iterable[Round]) -> Iterator[Round]:
    """Divide rounds that take too long."""
    for each in rounds:
        some: list[Part] = []
        for part in each.parts:
            if some and sum(x.nanoseconds for x in (*some, part)) > LONGEST:
                yield Round(some, each.names)
                some = []
            some.append(part)
        yield Round(some, each.names)


def _rounds(works: Sequence[Work]) -> list[Round]:
    """Put each work into the first round that it can be in: behind parts that it needs, or in the one after.

    So an optimizer moves the rows of a weight as soon as their gradient is there.
    """
    rounds: list[list[_Group]] = []
    for work in works:
        whole = work.piece(0, work.count)
        needed: list[_Group] = []
        after = len(rounds)
        while after and not needed:
            after -= 1
            needed = [group for group in rounds[after] if any(_needs(whole, x) for x in group.parts)]
        first = after + bool(needed)
        if needed and _put_behind(work, whole, needed, rounds[after]):
            continue
        for groups in rounds[first:]:
            if _nanoseconds(groups) + work.nanoseconds <= LONGEST:
                break
        else:
            groups = []
            rounds.append(groups)
        pieces, bounds = _for_threads(work)
        groups.append(_Group([Part([piece]) for piece in pieces], bounds, [work.name]))
    return [*map(_round, rounds)]


def _nanoseconds(groups: Iterable[_Group]) -> float:
    return sum(part.nanoseconds for group in groups for part in group.parts)


def _round(groups: list[_Group]) -> Round:
    parts = [part for group in groups for part in group.parts]
    names = [name for group in groups for name in group.names]
    return Round(sorted(parts, key=lambda part: -part.nanoseconds), names)


def _put_behind(work: Work, whole: Piece, needed: Sequence[_Group], groups: list[_Group]) -> bool:
    """Put a work behind the parts of a round that it needs, if each of its pieces needs one of them alone."""
    group = _together(needed)
    if group is None or _nanoseconds(groups) + work.nanoseconds > LONGEST:
        return False
    if len(group.parts) == 1:
        pieces = [whole] if len(_for_threads(work)[0]) == 1 else []
    else:
        pieces = _like(work, group.bounds)
    if len(pieces) != len(group.parts) or any(
        _needs(piece, part) for i, piece in enumerate(pieces) for j, part in enumerate(group.parts) if i != j
    ):
        return False
    for piece, part in zip(pieces, group.parts, strict=True):
        part.add(piece)
    group.names.append(work.name)
    groups[:] = [*(each for each in groups if each not in needed), group]
    return True


def _together(groups: Sequence[_Group]) -> _Group | None:
    """Return groups as one, each part of which has one of each; None if they are cut at different places."""
    first, *others = groups
    if not others:
        return first
    for other in others:
        if first.bounds is None or other.bounds is None or not _alike(first.bounds, other.bounds):
            return None
    parts = [
        Part([piece for part in some for piece in part.pieces])
        for some in zip(*(group.parts for group in groups), strict=True)
    ]
    return _Group(parts, first.bounds, [name for group in groups for name in group.names])


def _alike(bounds_1: Sequence[int], bounds_2: Sequence[int]) -> bool:
    """Say whether two are cut at the same fractions."""
    return len(bounds_1) == len(bounds_2) and all(
        a * bounds_2[-1] == b * bounds_1[-1] for a, b in zip(bounds_1, bounds_2, strict=True)
    )


def _for_threads(work: Work) -> tuple[Sequence[Piece], list[int] | None]:
    """Return pieces of a work for several threads, and where it is cut if they follow one another."""
    number = max(min(MOST, int(work.nanoseconds / SHORTEST)), -(-int(work.nanoseconds) // LONGEST_PART))
    return _pieces(work, number)


def _pieces(work: Work, number: int) -> tuple[Sequence[Piece], list[int] | None]:
    """Return about so many pieces of a work, and where it is cut if they follow one another."""
    if work.divided and number > 1:
        return work.divided(number)
    bounds = evenly(work.count, number)
    return work.cut(bounds), bounds


def evenly(count: int, number: int) -> list[int]:
    """Return where to cut so many into about so many pieces of one length, but for the last.

    Where the last one is shorter, that length is a multiple of 16 or less than 16, as loops take in several
    elements at once.
    """
    number = max(1, min(number, count))
    length = -(-count // number)
    if count % number and length >= _GROUP:
        length = min(count, length + -length % _GROUP)
    return [*range(0, count, length), count]


def _like(work: Work, bounds: list[int] | None) -> list[Piece]:
    """Return the pieces that a work has if it is cut where another one is; none if it cannot be."""
    if bounds is None or work.count < len(bounds) - 1:
        return []
    places = [divmod(bound * work.count, bounds[-1]) for bound in bounds]
    return [] if any(rest for _, rest in places) else work.cut([place for place, _ in places])


def _needs(piece: Piece, part: Part) -> bool:
    """Say whether a piece must be done behind a part: one of them writes what the other one needs."""
    return any(
        a.meets(b)
        for before in part.pieces
        for reads, writes in (
            (piece.reads, before.writes),
            (piece.writes, before.reads),
            (piece.writes, before.writes),
        )
        for a in reads
        for b in writes
    )
