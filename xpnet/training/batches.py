"""Data sets and their batches."""

import copy
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, TypeAlias

import numpy

from xpnet.backends import Device, asarray, device_of, library_of
from xpnet.nn.sparse import SparseRows

# From the numbers of some rows to these in another order.
Order: TypeAlias = Callable[[numpy.ndarray], numpy.ndarray]

# Bytes up to which a data set is converted as a whole.
MODERATE = 2**28

# The share of elements up to which a sparse product is faster than a dense one.
FEW = 1 / 20

# Bytes up to which batches are gathered together.
GATHERED = 2**20


class Examples:
    """A data set, of which batches are made on the device of a network.

    Data on that device stay there. All others stay on the host and are moved batch by batch, so that a data
    set may be larger than the memory of the device.

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

    Raises
    ------
    ValueError
        If there are no examples, or not equally many of each.
    TypeError
        If a sequence cannot be made an array of numbers.
    """

    def __init__(self, values: dict[str, Any], where: Device, dtype: Any, *, sparse: bool = False) -> None:
        self.where = where
        self._dtype = dtype
        lengths: dict[str, int] = {}

        def read(name: str, value: Any) -> Any:
            if isinstance(value, dict):
                return {key: read(f"{name}[{key!r}]", part) for key, part in value.items()}
            array = self._ready(_readable(name, value, where))
            lengths[name] = array.shape[0]
            return array

        self.values = [read(name, value) for name, value in values.items()]
        if sparse and _is_sparse(self.values[0]) and self.values[0].nnz <= FEW * prod(self.values[0].shape):
            self.values[0] = _FewElements(self.values[0])
        if len(set(lengths.values())) > 1:
            text = " and ".join(f"{length} in {name}" for name, length in lengths.items())
            raise ValueError(f"there must be as many examples of each, received {text}.")
        length = next(iter(lengths.values()))
        if length == 0:
            raise ValueError(f"there must be at least one example, received none in {' and '.join(lengths)}.")
        self.rows = numpy.arange(length)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def stays_sparse(self) -> bool:
        """Whether batches of the first of the values are sparse."""
        return isinstance(self.values[0], _FewElements)

    def _ready(self, array: Any) -> Any:
        """Convert a data set of moderate size in the host's memory once, not batch by batch."""
        on_host = type(array) is numpy.ndarray and self.where.library.spec == "cpu"  # no memory-mapped file
        if on_host and array.dtype.kind == "f" and array.nbytes <= MODERATE:
            return array.astype(self._dtype, copy=False)
        return array

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
        rows = (self.rows if rows is None else rows)[first * batch_size :]
        # Several small batches are gathered at once, as that takes hardly longer than for one.
        bytes_of_one = 8 * batch_size * sum(map(_elements, self.values))
        together = batch_size * max(1, GATHERED // max(bytes_of_one, 1))
        together = batch_size if self.stays_sparse else together
        for start in range(0, len(rows), together):
            some = rows[start : start + together]
            gathered = [self._batch(value, some) for value in self.values]
            for begin in range(0, len(some), batch_size):
                part = slice(begin, min(begin + batch_size, len(some)))
                yield tuple(_part(value, part) for value in gathered)

    def _batch(self, array: Any, rows: numpy.ndarray) -> Any:
        if isinstance(array, dict):
            return {key: self._batch(part, rows) for key, part in array.items()}
        if isinstance(array, _FewElements):
            return array.batch(rows, self.where, self._dtype)
        if _is_sparse(array):
            return asarray(array[rows].toarray(), device=self.where, dtype=self._dtype)
        if isinstance(array, numpy.ndarray):
            batch = array.take(rows, axis=0)
            floating = batch.dtype.kind == "f"
            if self.where.library.spec == "cpu":
                # jit takes no numbers in the order of bytes of another machine.
                return batch.astype(self._dtype if floating else batch.dtype.newbyteorder("="), copy=False)
        else:
            xp = self.where.namespace
            batch = xp.take(array, asarray(rows, device=self.where), axis=0)
            floating = xp.isdtype(batch.dtype, "real floating")
        return asarray(batch, device=self.where, dtype=self._dtype if floating else None)


def length(batch: Any) -> int:
    """Return the number of examples in an array or in a dict of them."""
    while isinstance(batch, dict):
        batch = next(iter(batch.values()))
    return batch.shape[0]


def _elements(value: Any) -> int:
    """Return the number of elements of one example."""
    return sum(map(_elements, value.values())) if isinstance(value, dict) else prod(value.shape[1:])


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
        self.shape = matrix.shape
        self._matrix = matrix
        self._counts = numpy.sort(numpy.diff(matrix.indptr))

    def batch(self, rows: numpy.ndarray, where: Device, dtype: Any) -> SparseRows:
        part = self._matrix[rows]
        elements = max(1, int(self._counts[-len(rows) :].sum()))

        def padded(values: numpy.ndarray, dtype: Any = None) -> Any:
            array = numpy.zeros(elements, values.dtype)
            array[: len(values)] = values
            return asarray(array, device=where, dtype=dtype)

        numbers = numpy.arange(len(rows), dtype=part.indices.dtype)
        places = padded(numpy.repeat(numbers, numpy.diff(part.indptr))), padded(part.indices)
        return SparseRows(padded(part.data, dtype), *places, (len(rows), self.shape[1]))


def _is_sparse(data: Any) -> bool:
    """Say whether data are a sparse matrix of SciPy, which then is loaded, or one that is used like it."""
    return hasattr(data, "toarray") and hasattr(data, "tocsr")


def _readable(name: str, data: Any, where: Device) -> Any:
    """Return data as an array on the device, where it is already, as a NumPy array, or by rows if sparse."""
    if _is_sparse(data):
        return data.tocsr()
    library = library_of(data)
    if library is not None and device_of(data) == where:
        array = data
    else:
        array = numpy.asarray(data if library is None else library.to_numpy(data))
    if isinstance(array, numpy.ndarray) and array.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} must hold numbers in rows of equal length, received {array.dtype} values such as "
            f"{array.reshape(-1)[:1]}. Encode text and categories as numbers first."
        )
    if len(array.shape) == 0:
        raise ValueError(f"{name} must have an axis of examples, received a single number.")
    return array
