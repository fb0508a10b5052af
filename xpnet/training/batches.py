"""Data sets and their batches, and how these come to the device of a network, such as a GPU."""

import contextlib
import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any, TypeAlias

import numpy

from xpnet import tree
from xpnet.backends import (
    Device,
    as_numbers,
    asarray,
    device_of,
    library_of,
    numpy_dtype,
    unmasked,
    use_device,
)
from xpnet.nn.sparse import SparseRows

_log = logging.getLogger("xpnet")

# From the numbers of some rows to these in another order.
Order: TypeAlias = Callable[[numpy.ndarray], numpy.ndarray]

# Bytes up to which an array is converted, looked through or moved at once.
BYTES_AT_ONCE = 2**28

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
    these copies runs while the step before it does.

    Parameters
    ----------
    values : dict of str to array, sequence, sparse matrix of SciPy, or dict of such
        What belongs together, by the names that error messages use, such as ``{"x": x, "y": y}``. The first
        axis is that of the examples.
    where : Device
        Where the batches go.
    dtype : dtype
        To which floating-point numbers are converted.
    sparse : bool, default=False
        Whether batches of the first of the values stay sparse, if it is sparse and few elements are not zero.
    warn : bool, default=False
        Whether the log warns of columns whose numbers the conversion makes the same.

    Attributes
    ----------
    names : tuple of str
        The names of the values.
    columns : dict of str to list
        The columns of data frames, by names such as ``"x"`` and ``"x['a']"``.

    Raises
    ------
    ValueError
        If there are no examples, or not equally many of each.
    TypeError
        If a sequence cannot be made an array of numbers.
    """

    def __init__(
        self, values: dict[str, Any], where: Device, dtype: Any, *, sparse: bool = False, warn: bool = False
    ) -> None:
        self.where = where
        self._dtype = dtype
        self._host_dtype = numpy_dtype(dtype, where)
        self.columns: dict[str, list[Any]] = {}
        lengths: dict[str, int] = {}

        def prepared(name: str, value: Any) -> Any:
            if isinstance(value, dict) and not _is_sparse(value):  # one kind of sparse matrices is a dict
                return {key: prepared(f"{name}[{key!r}]", part) for key, part in value.items()}
            if hasattr(value, "columns"):
                self.columns[name] = list(value.columns)
            array = _readable(name, value, where)
            if warn:
                self._warn_of_rounding(name, array)
            array = self._ready(array)
            lengths[name] = array.shape[0]
            return array

        self.names = tuple(values)
        self.values = [prepared(name, value) for name, value in values.items()]
        x = self.values[0]
        if sparse and _is_sparse(x) and len(x.shape) == 2 and x.nnz <= SPARSE_SHARE * prod(x.shape):
            self.values[0] = _FewElements(x)
        if len(set(lengths.values())) > 1:
            text = " and ".join(f"{length} in {name}" for name, length in lengths.items())
            raise ValueError(f"there must be as many examples of each, received {text}.")
        number = next(iter(lengths.values()))
        if number == 0:
            raise ValueError(f"there must be at least one example, received none in {' and '.join(lengths)}.")
        self.rows = numpy.arange(number)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def stays_sparse(self) -> bool:
        """Whether batches of the first of the values are sparse."""
        return isinstance(self.values[0], _FewElements)

    def _ready(self, array: Any) -> Any:
        """Convert a data set of moderate size in the host's memory once, not batch by batch."""
        on_host = type(array) is numpy.ndarray and self.where.library.spec == "cpu"  # no memory-mapped file
        if on_host and array.dtype.kind == "f" and array.nbytes <= BYTES_AT_ONCE:
            return array.astype(self._dtype, copy=False)
        return array

    def _warn_of_rounding(self, name: str, array: Any) -> None:
        """Warn of the first column whose numbers are nearly all the same in the dtype of the network."""
        dtype = self._host_dtype
        if type(array) is not numpy.ndarray or array.dtype.kind != "f" or array.nbytes > BYTES_AT_ONCE:
            return
        if array.dtype.itemsize <= dtype.itemsize or not array.size:
            return
        low, high = array.min(axis=0), array.max(axis=0)
        step = numpy.finfo(dtype).eps * numpy.maximum(abs(low), abs(high))
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

    def settle(self) -> "Examples":
        """Move data on the host to the device, once and for all, if they are small beside its free memory.

        Sparse matrices stay: as dense ones they would be many times as large.
        """
        free = self.where.library.free_memory(self.where.native)
        hosts = [leaf for leaf in tree.leaves(self.values) if isinstance(leaf, numpy.ndarray)]
        needed = sum(array.size * self._host_dtype_of(array).itemsize for array in hosts)
        if free is not None and needed <= RESIDENT_SHARE * free:
            with use_device(self.where):
                self.values = tree.map(self._settled, self.values)
        return self

    def _settled(self, array: Any) -> Any:
        """Return an array on the device, moved in parts, so that the host's memory holds no second one."""
        if not isinstance(array, numpy.ndarray):
            return array
        rows = max(1, BYTES_AT_ONCE * len(array) // max(array.nbytes, 1))
        first = self._moved(array[:rows])
        if rows >= len(array):
            return first
        xp = self.where.namespace
        moved = xp.empty(array.shape, dtype=first.dtype, device=self.where.native)
        moved[:rows, ...] = first
        for start in range(rows, len(array), rows):
            part = slice(start, min(start + rows, len(array)))
            moved[part, ...] = self._moved(array[part])
        return moved

    def _moved(self, array: Any) -> Any:
        """Return an array of the host on the device."""
        if not isinstance(array, numpy.ndarray) or self.where.library.spec == "cpu":
            return array
        floating = array.dtype.kind == "f"
        array = array.astype(self._host_dtype_of(array), copy=False)
        return asarray(array, device=self.where, dtype=self._dtype if floating else None)

    def _host_dtype_of(self, array: Any) -> numpy.dtype:
        """Return the dtype of a batch, as far as NumPy has it. `jit` takes no other order of bytes."""
        return self._host_dtype if array.dtype.kind == "f" else array.dtype.newbyteorder("=")

    def split(self, share: float, random: "numpy.random.Generator") -> "tuple[Examples, Examples]":
        """Return the examples without a random share of them, and that share."""
        number = round(share * len(self))
        if not 0 < number < len(self):
            raise ValueError(
                f"a share must leave at least one example on either side, received {share} of {len(self)}."
            )
        order = random.permutation(self.rows)
        return self._only(order[number:]), self._only(order[:number])

    def _only(self, rows: numpy.ndarray) -> "Examples":
        part = copy.copy(self)
        part.rows = rows
        return part

    def batches(
        self, batch_size: int, rows: "numpy.ndarray | None" = None, *, first: int = 0
    ) -> Iterator[tuple[Any, ...]]:
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
        rows = (self.rows if rows is None else self._checked(rows))[first * batch_size :]
        # Several small batches are gathered at once, as that takes hardly longer than for one.
        bytes_of_one = 8 * batch_size * sum(map(_elements, self.values))
        together = batch_size * max(1, GATHERED_BYTES // max(bytes_of_one, 1))
        together = batch_size if self.stays_sparse else together
        for gathered in self._uploaded(self._gathered(rows, together)):
            number = length(gathered[0])
            for begin in range(0, number, batch_size):
                part = slice(begin, min(begin + batch_size, number))
                yield tuple(_part(value, part) for value in gathered)

    def _gathered(self, rows: numpy.ndarray, together: int) -> Iterator[list[Any]]:
        """Yield so many rows at a time of all values: of those on the host there, of others on the device."""
        there = any(not _is_on_host(leaf) for leaf in tree.leaves(self.values))
        order = asarray(rows, device=self.where) if there else rows
        for start in range(0, len(rows), together):
            part = slice(start, min(start + together, len(rows)))
            yield [self._taken(value, rows[part], order[part]) for value in self.values]

    def _checked(self, given: Any) -> numpy.ndarray:
        """Return rows in an order from outside. On a device, no index out of range would be noticed."""
        rows, number = numpy.asarray(given), tree.leaves(self.values)[0].shape[0]
        is_index = rows.dtype.kind in "iu" and rows.ndim == 1
        if not is_index or (len(rows) and not 0 <= rows.min() <= rows.max() < number):
            received = f"{rows.min()} to {rows.max()}" if is_index else f"{rows.dtype} of shape {rows.shape}"
            raise IndexError(
                f"rows must be from 0 to {number - 1}, received {received}. A function given as shuffle "
                "returns the rows that it is given, in another order."
            )
        return rows

    def _taken(self, array: Any, rows: numpy.ndarray, order: Any) -> Any:
        if isinstance(array, dict):
            return {key: self._taken(part, rows, order) for key, part in array.items()}
        if isinstance(array, _FewElements):
            return array.batch(rows, self._host_dtype_of(array))
        if _is_on_host(array):
            some = array[rows].toarray() if _is_sparse(array) else array.take(rows, axis=0)
            return some.astype(self._host_dtype_of(some), copy=False)
        xp = self.where.namespace
        some = xp.take(array, order, axis=0)
        if some.dtype == self._dtype or not xp.isdtype(some.dtype, "real floating"):
            return some
        return asarray(some, device=self.where, dtype=self._dtype)

    def _uploaded(self, groups: Iterable[list[Any]]) -> Iterator[list[Any]]:
        """Move what was gathered on the host; where the library can, one ahead of what is computed."""
        on_host = any(_is_on_host(leaf) for leaf in tree.leaves(self.values))
        if self.where.library.uploads is None or not on_host:
            yield from (tree.map(self._moved, group) for group in groups)
            return
        with contextlib.closing(self.where.library.uploads()) as uploads:
            under_way: deque[tuple[Any, Callable[[], list[Any]]]] = deque()
            for group in groups:
                leaves, structure = tree.flatten(group)
                under_way.append((structure, uploads.begin(leaves)))
                if len(under_way) > 1:
                    structure, ready = under_way.popleft()
                    yield tree.unflatten(structure, ready())
            for structure, ready in under_way:
                yield tree.unflatten(structure, ready())


def length(batch: Any) -> int:
    """Return the number of examples in an array or in a dict of them."""
    while isinstance(batch, dict):
        batch = next(iter(batch.values()))
    return int(batch.shape[0])


def _elements(value: Any) -> int:
    """Return the number of elements of one example."""
    return sum(map(_elements, value.values())) if isinstance(value, dict) else prod(value.shape[1:])


def _is_on_host(data: Any) -> bool:
    return isinstance(data, numpy.ndarray | _FewElements) or _is_sparse(data)


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


def _is_sparse(data: Any) -> bool:
    """Say whether data are a sparse matrix of SciPy, which then is loaded, or one that is used like it."""
    return hasattr(data, "toarray") and hasattr(data, "tocsr")


def _readable(name: str, data: Any, where: Device) -> Any:
    """Return data as an array on the device, where it is already, as a NumPy array, or by rows if sparse."""
    if _is_sparse(data):
        return data.tocsr()
    data = unmasked(data, name)
    library = library_of(data)
    if library is None or (device_of(data) == where and isinstance(data, numpy.ndarray)):
        array = as_numbers(data, name)
    elif device_of(data) == where:
        array = data
    else:
        array = as_numbers(numpy.asarray(library.to_numpy(data)), name)
    if len(array.shape) == 0:
        raise ValueError(f"{name} must have an axis of examples, received a single number.")
    return array
