"""Data sets of which batches are made: what can be indexed, in memory, on a device, or in a file."""

import copy
import logging
import math
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import chain, pairwise
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import Device, asarray, column_names
from xpnet.distributed import Group
from xpnet.errors import ProcessesDisagreeError
from xpnet.nn.sparse import SparseRows
from xpnet.share import Share, share_of
from xpnet.training.destination import BYTES_AT_ONCE, Destination, digest_of_all, is_sparse, length, noted
from xpnet.training.lazy import IndexedArray, Items, Lazy, Reader, is_indexed, is_of_items, map_named
from xpnet.training.orders import Blocks, Order

_log = logging.getLogger("xpnet")

# The share of elements up to which a sparse product is faster than a dense one.
SPARSE_SHARE = 1 / 20

# How many numbers a column must have between its least and its greatest one.
NUMBERS_IN_RANGE = 256

# Bytes up to which batches are gathered together.
GATHERED_BYTES = 2**20

# The part of a device's free memory that a data set may take as a whole. Beside it stand the network and the
# state of its optimizer, twice each while an epoch runs, what a step computes, and the data for validation. A
# larger data set loses little by going up batch by batch, as these copies run while the steps do.
RESIDENT_SHARE = 1 / 4


class Examples:
    """A data set, of which batches are made on the device of a network.

    Data on that device stay there. All others stay on the host, unless `settle` moves them, and go up batch
    by batch, so that a data set may be larger than the memory of the device. Where the library can, each of
    these copies runs while the step before it does. What is indexed and not loaded is read batch by batch,
    the next one on a thread.

    Parameters
    ----------
    values : dict of str to data, or Items
        What belongs together, by the names that error messages use, such as ``{"x": x, "y": y}``: arrays,
        sequences, sparse matrices of SciPy, what `IndexedArray` or `Items` read, or dicts of such. The first
        axis is that of the examples.
    where : Device
        Where the batches go.
    dtype : dtype
        To which floating-point numbers are converted.
    batch_size : int, default=32
        The number of examples in a batch; the last of an epoch may be smaller.
    sparse : bool, default=False
        Whether batches of the first of the values stay sparse, if it is sparse and few elements are not zero.
    warn : bool, default=False
        Whether the log warns of columns whose numbers the conversion makes the same.

    Attributes
    ----------
    names : tuple of str
        The names of the values.
    values : list of arrays, sparse matrices and `Lazy`, or dicts of such
    rows : array of int
        Which of the examples these are.
    columns : dict of str to list
        The columns of data frames, by names such as ``"x"`` and ``"x['a']"``.
    order : Order or None
        Puts the rows in the order of an epoch. None leaves them as they stand.
    drop_last : bool
        Whether an epoch leaves out what is too little for a whole step.
    accumulate : int
        How many batches make a step.
    group : Group or None
        Processes that go through the same epochs together: each has its share of each batch, and reads that.
    check : callable or None
        Is called with what is read of each of the values that is not loaded, and None for the others.

    Raises
    ------
    ValueError
        If there are no examples, or not equally many of each.
    TypeError
        If a sequence cannot be made an array of numbers.
    """

    def __init__(
        self,
        values: dict[str, Any] | Items,
        where: Device,
        dtype: Any,
        *,
        batch_size: int = 32,
        sparse: bool = False,
        warn: bool = False,
    ) -> None:
        self.destination = Destination(where, dtype)
        self.batch_size = batch_size
        self.columns: dict[str, list[Any]] = {}
        self.order: Order | None = None
        self.drop_last, self.accumulate = False, 1
        self.group: Group | None = None
        self.check: Callable[..., None] | None = None
        self._sources: list[IndexedArray | Items] = []
        lengths: dict[str, int] = {}

        def prepared(name: str, value: Any) -> Any:
            if is_indexed(value):
                array = IndexedArray(name, value, self.destination)
                if array.columns is not None:
                    self.columns[name] = array.columns
                self._sources.append(array)
                [value] = array.values
            elif is_of_items(value):
                self._sources.append(Items([name], value, _only_part, self.destination))
                [value] = self._sources[-1].values
            else:
                given, value = value, self.destination.readable(name, value)
                if (names := column_names(given)) is not None:
                    self.columns[name] = names
                if warn:
                    self._warn_of_rounding(name, value)
                value = self._ready(value)
            lengths[name] = length(value)
            return value

        if isinstance(values, Items):
            self.names, self.values = tuple(values.names), values.values
            self._sources.append(values)
            lengths = dict.fromkeys(self.names, len(values))
        else:
            self.names = tuple(values)
            self.values = [map_named(prepared, *item) for item in values.items()]
        x = self.values[0]
        if sparse and is_sparse(x) and len(x.shape) == 2 and x.nnz <= SPARSE_SHARE * math.prod(x.shape):
            self.values[0] = _FewElements(x)
        if len(set(lengths.values())) > 1:
            text = " and ".join(f"{length} in {name}" for name, length in lengths.items())
            raise ValueError(f"there must be as many examples of each, received {text}.")
        number = next(iter(lengths.values()))
        if number == 0:
            raise ValueError(f"there must be at least one example, received none in {' and '.join(lengths)}.")
        self.rows = self._in_order = numpy.arange(number)
        self._leaves = tree.leaves(self.values)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def number(self) -> int:
        """How many examples an epoch has."""
        return self._whole(len(self))

    def _whole(self, rows: int) -> int:
        """Return how many of so many rows are in an epoch."""
        return rows - (rows % (self.batch_size * self.accumulate) if self.drop_last else 0)

    @property
    def settings(self) -> dict[str, int]:
        """What is the same when a training goes on."""
        blocks = {"block_size": self.order.block_size} if isinstance(self.order, Blocks) else {}
        dropped = {"drop_last": 1} if self.drop_last else {}
        return {"examples": len(self), "batch_size": self.batch_size, **blocks, **dropped}

    def join(self, group: Group) -> None:
        """Go through the epochs together with other processes."""
        self.group = group

    def digest(self) -> int | None:
        """Return a number that tells these examples from others.

        What is read is told by its first and last rows. It is None for an object that makes examples, which
        may be others each time; sparse matrices are left out.
        """
        if any(isinstance(source, Items) for source in self._sources):
            return None
        rows = self.rows[[0, -1]]
        read = self._read(rows, len(rows))
        arrays = [leaf if tree.is_array(leaf) else read.get(id(leaf)) for leaf in self._leaves]
        return digest_of_all([x for x in arrays if x is not None])

    def check_steps(self) -> None:
        """Check that an epoch has whole steps.

        Raises
        ------
        ValueError
            If it has none, or if its batches are no multiple of those that make one.
        """
        batches = math.ceil(self.number / self.batch_size)
        if not batches:
            raise ValueError(
                f"drop_last needs enough examples for a step, {self.batch_size * self.accumulate}, received "
                f"{len(self)}. Choose a smaller batch_size or accumulate."
            )
        check_accumulate(batches, self.accumulate)

    @property
    def elements(self) -> int:
        """The number of elements of an example."""
        return sum(math.prod(leaf.shape[1:]) for leaf in self._leaves)

    @property
    def is_loaded(self) -> bool:
        """Whether all values are in memory, on whatever device."""
        return not self._sources

    def own(self, *values: Any) -> list[Any]:
        """Return a list of loaded values for these rows alone, if they are not all that there are."""
        if len(self.rows) == self._leaves[0].shape[0] or not self.is_loaded:
            return []
        order = self._on_device(self.rows)
        return [tree.map(lambda leaf: self._taken(leaf, self.rows, order, {}), values)]

    @property
    def stays_sparse(self) -> bool:
        """Whether batches of the first of the values are sparse."""
        return isinstance(self.values[0], _FewElements)

    def _ready(self, array: Any) -> Any:
        """Convert a data set of moderate size in the host's memory once, not batch by batch."""
        on_host = type(array) is numpy.ndarray and self.destination.is_host
        if on_host and array.dtype.kind == "f" and array.nbytes <= BYTES_AT_ONCE:
            return self.destination.converted(array)
        return array

    def _warn_of_rounding(self, name: str, array: Any) -> None:
        """Warn of the first column whose numbers are nearly all the same in the dtype of the network."""
        dtype = self.destination.floating
        if type(array) is not numpy.ndarray or array.dtype.kind != "f" or array.nbytes > BYTES_AT_ONCE:
            return
        if array.dtype.itemsize <= dtype.itemsize or not array.size:
            return
        low, high = array.min(axis=0), array.max(axis=0)
        step = numpy.finfo(dtype).eps * numpy.maximum(abs(low), abs(high))
        with numpy.errstate(invalid="ignore"):  # of columns that are infinite
            lost = numpy.argwhere((low < high) & (high - low < NUMBERS_IN_RANGE * step))
        if len(lost):
            index = tuple(int(i) for i in lost[0])
            column = f", column {self.columns[name][index[0]]!r}" if name in self.columns else ""
            column = column or (f", column {index[0] if len(index) == 1 else index}" if index else "")
            _log.warning(
                "xpnet: %s%s goes from %r to %r, where numbers of %s are %.2g apart: most of its differences "
                "are lost. Subtract its mean first, or give the network dtype=%r.",
                *(name, column, float(low[index]), float(high[index]), dtype, float(step[index])),
                str(array.dtype),
            )

    def warn_of_chunks(self) -> None:
        """Warn that rows are drawn one by one from what is read in chunks."""
        number = self._leaves[0].shape[0]
        source = max(self._sources, key=lambda source: source.rows_in_chunk, default=None)
        if source is not None and 1 < source.rows_in_chunk < number:
            _log.warning(
                "xpnet: %s has chunks of %d rows, and shuffle=True may read one of them for each row: "
                'shuffle="blocks" takes less time.',
                *(source.names[0], source.rows_in_chunk),
            )

    def settle(self) -> "Examples":
        """Move data on the host to the device, once and for all, if they are small beside its free memory.

        Sparse matrices stay: as dense ones they would be many times as large.
        """
        where, host_dtype = self.destination.where, self.destination.host_dtype
        free = where.library.free_memory(where.native)
        hosts = [leaf for leaf in self._leaves if isinstance(leaf, numpy.ndarray)]
        needed = sum(array.size * host_dtype(array.dtype).itemsize for array in hosts)
        if free is not None and needed <= RESIDENT_SHARE * free:
            self.values = tree.map(self.destination.settled, self.values)
            self._leaves = tree.leaves(self.values)
        return self

    def split(self, share: float, random: "numpy.random.Generator") -> "tuple[Examples, Examples]":
        """Return the examples without a random share of them, and that share."""
        number = round(share * len(self))
        if not 0 < number < len(self):
            raise ValueError(
                f"a share must leave at least one example on either side, received {share} of {len(self)}."
            )
        order = random.permutation(self.rows)
        # What is put aside is gone through in the order in which a file is read.
        return self._only(order[number:]), self._only(numpy.sort(order[:number]))

    def _only(self, rows: numpy.ndarray) -> "Examples":
        part = copy.copy(self)
        part.rows = part._in_order = rows
        return part

    # -- batches --------------------------------------------------------------------------------------------

    def first(self) -> tuple[tuple[Any, ...], list[Any]]:
        """Return a batch, and what is known of all values: of those that are not loaded the batch's.

        Of several processes, each has its share of it.
        """
        rows = self.rows[: self.batch_size]
        if self.group is not None:
            share = share_of(self.group, len(rows))
            rows = rows[share.start : share.start + share.number]
        read = self._read(rows, len(rows))
        group = self._group(rows, self._on_device(rows), read)
        with closing(self.destination.uploaded([group], from_host=self._goes_up, ahead=0)) as moved:
            batch = next(moved)
        return tuple(batch), [self._known(value, read, value) for value in self.values]

    def begin(self) -> None:
        """Put the rows in the order of a new epoch."""
        rows = self.rows if self.order is None else self._checked(self.order(self.rows))
        self._in_order = rows[: self._whole(len(rows))]
        if self.group is not None:
            orders = self.group.gather_objects(zlib.crc32(self._in_order.tobytes()))
            if len({*orders}) > 1:
                other = next(rank for rank, order in enumerate(orders) if order != orders[0])
                raise ProcessesDisagreeError(
                    "all processes must put the examples in the same order, received another one on rank "
                    f"{other} than on rank 0. Give shuffle a function that depends on nothing but the rows."
                )

    def epoch(self, first: int = 0) -> Generator[tuple[Any, ...], None, None]:
        """Yield the batches of an epoch from a later one on, each time the same until the next one begins."""
        rows, ends = self._in_order, _ends(len(self._in_order), self.batch_size)
        blocks, most = None, 0
        if isinstance(self.order, Blocks):
            blocks = numpy.append(self.order.ends[self.order.ends < len(rows)], len(rows))
            most = self.order.block_size
        if self.group is not None:
            places, ends = self._own_places()
            rows = rows[places]
            blocks = None if blocks is None else numpy.unique(numpy.searchsorted(places, blocks))
        return self._batches(rows, ends, first, blocks, most)

    def share(self, number: int, _batch: Any) -> Share | None:
        """Return which examples of a batch of the epoch are those of this process; None if all are."""
        if self.group is None:
            return None
        return share_of(self.group, min(self.batch_size, len(self._in_order) - number * self.batch_size))

    def _own_places(self) -> "tuple[numpy.ndarray, numpy.ndarray]":
        """Return the places of this process's examples in the order of the epoch, and where batches end."""
        full, rest = divmod(len(self._in_order), self.batch_size)
        usual, last = share_of(self.group, self.batch_size), share_of(self.group, rest)
        begins = self.batch_size * numpy.arange(full)[:, None] + usual.start
        places = (begins + numpy.arange(usual.number)).ravel()
        of_last = self.batch_size * full + last.start + numpy.arange(last.number)
        ends = numpy.append(_ends(len(places), usual.number), len(places) + last.number)
        return numpy.append(places, of_last), ends[: full + (rest > 0)]

    comes_again = True

    # What to look at where a loss is NaN, but not in the steps when they are taken again.
    unexplained = "or look at what callbacks change: the steps alone stay finite"

    def again(self, first: int = 0) -> Generator[tuple[int, tuple[Any, ...]], None, None]:
        """Yield the batches of the epoch once more, with their numbers."""
        with closing(self.epoch(first)) as batches:
            yield from enumerate(batches, first)

    def place(self, batch: int, number: int) -> str:
        """Say which example of a batch of the epoch it is."""
        share = self.share(batch, None)
        first = batch * self.batch_size + (share.start if share is not None else 0)
        return f"row {self._in_order[first + number]}"

    def state(self) -> Any:
        """Return what a checkpoint keeps: nothing, as the order is drawn again."""
        return None

    def close(self) -> None:
        """Close what was opened, which is nothing: who opened a file closes it."""

    def batches(
        self, batch_size: int, rows: "numpy.ndarray | None" = None, *, first: int = 0
    ) -> Generator[tuple[Any, ...], None, None]:
        """Yield batches of all values; the last may be smaller.

        Parameters
        ----------
        batch_size : int
            The number of examples in a batch.
        rows : array of int, optional
            The rows in the order in which they come; by default as they stand.
        first : int, default=0
            The batch to begin with.
        """
        rows = self.rows if rows is None else self._checked(rows)
        return self._batches(rows, _ends(len(rows), batch_size), first)

    def _batches(
        self,
        rows: numpy.ndarray,
        ends: numpy.ndarray,
        first: int,
        blocks: numpy.ndarray | None = None,
        most: int = 0,
    ) -> Generator[tuple[Any, ...], None, None]:
        """Yield the batches that end at some places of the rows, read in blocks that end at others."""
        if first >= len(ends):
            return
        # Several small batches are gathered at once, as that takes hardly longer than for one.
        size = int(ends[0])
        together = max(1, GATHERED_BYTES // max(8 * size * self.elements, 1))
        in_blocks = blocks is not None or all(source.is_mapped for source in self._sources)
        if self.stays_sparse or not in_blocks:
            together = 1
        start = int(ends[first - 1]) if first else 0
        stops = numpy.append(ends[first + together - 1 : -1 : together], ends[-1])
        pieces = stops if blocks is None else blocks
        groups = self._gathered(rows, start, stops, pieces, most or together * size)
        uploaded = self.destination.uploaded(groups, from_host=self._goes_up, ahead=1)
        with closing(groups), closing(uploaded) as moved:
            for gathered in moved:
                stop = start + length(gathered[0])
                begin = start
                while begin < stop:
                    part = slice(begin - start, int(ends[first]) - start)
                    yield tuple(_part(value, part) for value in gathered)
                    begin, first = int(ends[first]), first + 1
                start = stop

    def _gathered(
        self, rows: numpy.ndarray, start: int, stops: numpy.ndarray, ends: numpy.ndarray, most: int
    ) -> Generator[list[Any], None, None]:
        """Yield rows of all values up to each stop: of those on the host there, of others on the device.

        What is not loaded is read from end to end, and no more than so many rows at once.
        """
        order = self._on_device(rows)
        pieces = pairwise(chain([start], (int(end) for end in ends if end > start)))
        with closing(Reader(lambda begin, end: self._read(rows[begin:end], most), pieces)) as reader:
            for begin, end in pairwise(chain([start], map(int, stops))):
                read = reader.take(begin, end) if self._sources else {}
                yield self._group(rows[begin:end], order[begin:end], read)

    def _on_device(self, rows: numpy.ndarray) -> Any:
        """Return rows where they are to be taken by."""
        there = not all(map(_is_on_host, self._leaves))
        return asarray(rows, device=self.destination.where) if there else rows

    def _read(self, rows: numpy.ndarray, most: int) -> dict[int, numpy.ndarray]:
        """Return some rows of all arrays on the host, by their identity, if some of them are not loaded."""
        found: dict[int, numpy.ndarray] = {}
        for source in self._sources:
            with noted(f"It was raised where {' and '.join(source.names)} are read, {_span(rows)}."):
                found |= zip(map(id, source.leaves), source.read(rows, most), strict=True)
        for leaf in self._leaves if self._sources else ():
            if isinstance(leaf, numpy.ndarray):
                found[id(leaf)] = self.destination.converted(leaf.take(rows, axis=0))
        if self.check is not None and found:
            with noted(f"It is about {_span(rows)}."):
                self.check(*(self._known(value, found, None) for value in self.values))
        return found

    def _known(self, value: Any, read: dict[int, numpy.ndarray], loaded: Any) -> Any:
        """Return what was read of a value that is not loaded; of another one what is given."""
        if not any(isinstance(leaf, Lazy) for leaf in tree.leaves(value)):
            return loaded
        return tree.map(lambda leaf: read.get(id(leaf), leaf), value)

    def _group(self, rows: numpy.ndarray, order: Any, read: dict[int, numpy.ndarray]) -> list[Any]:
        """Return some rows of all values; of the arrays that were read already, what was read."""
        return [self._taken(value, rows, order, read) for value in self.values]

    def _taken(self, array: Any, rows: numpy.ndarray, order: Any, read: dict[int, numpy.ndarray]) -> Any:
        if isinstance(array, dict):
            return {key: self._taken(part, rows, order, read) for key, part in array.items()}
        if id(array) in read:
            return read[id(array)]
        if isinstance(array, _FewElements):
            return array.batch(rows, self.destination.host_dtype(array.dtype))
        if _is_on_host(array):
            return self.destination.converted(array[rows] if is_sparse(array) else array.take(rows, axis=0))
        return self.destination.converted(self.destination.where.namespace.take(array, order, axis=0))

    @property
    def _goes_up(self) -> bool:
        return any(map(_is_on_host, self._leaves))

    def _checked(self, given: Any) -> numpy.ndarray:
        """Return rows in an order from outside. On a device, no index out of range would be noticed."""
        rows, number = numpy.asarray(given), self._leaves[0].shape[0]
        is_index = rows.dtype.kind in "iu" and rows.ndim == 1
        if not is_index or (len(rows) and not 0 <= rows.min() <= rows.max() < number):
            received = f"{rows.min()} to {rows.max()}" if is_index else f"{rows.dtype} of shape {rows.shape}"
            raise IndexError(
                f"rows must be from 0 to {number - 1}, received {received}. A function given as shuffle "
                "returns the rows that it is given, in another order."
            )
        return rows


def _only_part(item: Any) -> list[Any]:
    """Return an example that is one array, or one dict of such."""
    if isinstance(item, tuple) and any(getattr(part, "shape", ()) for part in item):
        raise TypeError(
            f"each example must be an array or a dict of such, received a tuple of {len(item)}. Return "
            "x alone; or leave y out, where the data set gives pairs (x, y)."
        )
    return [item]


def check_accumulate(batches: int, accumulate: int) -> None:
    """Check that all batches of an epoch are in whole steps of so many."""
    if batches % accumulate:
        raise ValueError(
            f"an epoch must have a multiple of accumulate={accumulate} batches, received {batches}. Choose "
            "another of the two, or leave the last ones out: with drop_last=True, or where batches are made."
        )


def _ends(rows: int, batch_size: int) -> numpy.ndarray:
    """Return where batches end, of which the last may be smaller."""
    return numpy.minimum(batch_size * numpy.arange(1, math.ceil(rows / batch_size) + 1), rows)


def _span(rows: numpy.ndarray) -> str:
    return f"{len(rows)} rows from {rows.min()} to {rows.max()}"


def _is_on_host(data: Any) -> bool:
    return isinstance(data, numpy.ndarray | _FewElements | Lazy) or is_sparse(data)


def _part(value: Any, rows: slice) -> Any:
    if isinstance(value, dict):
        return {key: _part(array, rows) for key, array in value.items()}
    return value if isinstance(value, SparseRows) else value[rows, ...]


class _FewElements:
    """A sparse matrix whose batches stay sparse.

    All batches of so many rows have as many elements as the fullest rows could have together, of which the
    last are zeros: arrays of one shape, so that a recording serves them all.
    """

    def __init__(self, matrix: Any) -> None:
        self.shape, self.dtype = matrix.shape, matrix.dtype
        self._matrix = matrix
        self._counts = numpy.sort(numpy.diff(matrix.indptr))

    def batch(self, rows: numpy.ndarray, dtype: numpy.dtype) -> SparseRows:
        part = self._matrix[rows]
        # More only if a row comes several times, as in a bootstrap.
        elements = max(1, int(self._counts[-len(rows) :].sum()), part.nnz)

        def padded(values: numpy.ndarray, dtype: numpy.dtype) -> numpy.ndarray:
            array = numpy.zeros(elements, dtype)
            array[: len(values)] = values
            return array

        numbers = padded(numpy.repeat(numpy.arange(len(rows)), numpy.diff(part.indptr)), part.indices.dtype)
        columns = padded(part.indices, part.indices.dtype)
        return SparseRows(padded(part.data, dtype), numbers, columns, (len(rows), self.shape[1]))
