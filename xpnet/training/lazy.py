"""Data that are indexed and not loaded: files, and objects that make one example at a time."""

import contextvars
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy

from xpnet.backends import as_numbers, column_names, columns_of, library_of, unmasked
from xpnet.training.destination import Destination, is_sparse, noted

# Bytes, and rows, that are read and left out where the next row that is asked for is no further away: one
# read takes less time than two.
_GAP_BYTES, _GAP_ROWS = 2**16, 64

# As many rows as runs of them must have on average to be read as slices, not all by their numbers.
_LONG_RUN = 4

# Sequences in memory, which become an array as a whole.
_IN_MEMORY = (list, tuple, range, str, bytes, bytearray, memoryview)


def is_indexed(data: Any) -> bool:
    """Say whether data are an array that is read in parts: of HDF5, zarr or Dask, or a memory map."""
    if isinstance(data, numpy.ndarray):
        return isinstance(data, numpy.memmap) and data.ndim > 0
    has_all = all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__"))
    # A column of pandas, and what lends its memory, is an array already.
    in_memory = hasattr(data, "iloc") or hasattr(data, "__array_interface__") or is_sparse(data)
    if not has_all or in_memory or library_of(data) is not None or isinstance(data, type):
        return False
    try:
        numpy.dtype(data.dtype)
    except TypeError:
        if hasattr(data, "to_numpy"):  # a column of polars
            return False
    return data.shape is None or len(data.shape) > 0


def is_of_items(data: Any) -> bool:
    """Say whether data are an object that makes one example at a time, as data sets of PyTorch are."""
    if isinstance(data, (numpy.ndarray, *_IN_MEMORY, type)) or is_sparse(data):
        return False
    has_both = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    return has_both and not (is_like_array(data) or has_keys(data)) and columns_of(data) is None


def has_keys(data: Any) -> bool:
    """Say whether data are found by keys, as those in a group of zarr are, which is no Mapping."""
    return isinstance(data, Mapping) or callable(getattr(data, "keys", None))


def is_like_array(data: Any) -> bool:
    """Say whether data are an array of some library, or lend NumPy their memory, as `array.array` does."""
    if any(hasattr(data, name) for name in ("__array__", "__array_interface__", "shape")):
        return True
    try:
        memoryview(data)
    except (BufferError, TypeError, ValueError):
        return False
    return True


class Lazy:
    """What stands in a data set for an array that is read in parts.

    Attributes
    ----------
    shape : tuple of int
        Of all of it.
    dtype : numpy.dtype
        In which it is read.
    """

    def __init__(self, number: int, example: numpy.ndarray, destination: Destination) -> None:
        self.shape = (number, *example.shape)
        self.dtype = destination.host_dtype(example.dtype)


class IndexedArray:
    """An array that is indexed.

    Parameters
    ----------
    name : str
        What errors call it.
    data : array-like
        It has a ``shape``, a ``dtype``, and ``__getitem__`` with slices and, if it can, ascending rows.
    destination : Destination
        In whose dtypes rows are read.

    Attributes
    ----------
    values : list of Lazy
        What stands for it.
    leaves : list of Lazy
    columns : list or None
        The names of the columns, if rows are records.
    is_mapped : bool
        Whether rows can be had as quickly as from memory, wherever they are.
    rows_in_chunk : int
        How many rows are read together, also where one of them is asked for.
    """

    def __init__(self, name: str, data: Any, destination: Destination) -> None:
        self.names, self._data = [name], data
        self.is_mapped = isinstance(data, numpy.memmap)
        shape = (0,) if data.shape is None else tuple(data.shape)  # an empty dataset of HDF5 has none
        number = shape[0]
        if not isinstance(number, int | numpy.integer):
            raise ValueError(
                f"{name} must have a known number of rows, received the shape {shape}. Dask "
                "finds it by compute_chunk_sizes()."
            )
        self.rows_in_chunk = _rows_in_chunk(data)
        # Not what the attributes say: as an array of numbers, a structured one has another axis.
        self._destination, self.columns = destination, None
        examples = numpy.empty(shape)
        if number:
            with noted(f"It was raised where the first row of {name} is read."):
                first = data[0:1]
                examples, self.columns = self._numbers(first)[0], column_names(first)
        self._lazy = Lazy(int(number), examples, destination)
        self.values = self.leaves = [self._lazy]
        self._takes_rows = True

    def read(self, rows: numpy.ndarray, most: int) -> list[numpy.ndarray]:
        """Return some rows, as a list of one array, without reading more than so many at once."""
        result = numpy.empty((len(rows), *self._lazy.shape[1:]), self._lazy.dtype)
        order = numpy.argsort(rows, kind="stable")
        ascending = rows[order]
        gap = max(1, min(_GAP_ROWS, _GAP_BYTES * len(result) // max(1, result.nbytes)))
        parts = [0, *(numpy.flatnonzero(numpy.diff(ascending) > gap) + 1), len(rows)]
        if self._takes_rows and len(rows) < _LONG_RUN * (len(parts) - 1):
            by_numbers = self._by_numbers(ascending, most)
            if by_numbers is not None:
                result[order] = by_numbers
                return [result]
        for begin, end in pairwise(parts):
            while begin < end:
                stop = begin + int(numpy.searchsorted(ascending[begin:end], ascending[begin] + most))
                result[order[begin:stop]] = self._slice(ascending[begin:stop])
                begin = stop
        return [result]

    def _by_numbers(self, ascending: numpy.ndarray, most: int) -> numpy.ndarray | None:
        """Return rows that were asked for by their numbers; None if data do not take these."""
        different = numpy.unique(ascending)  # HDF5 takes none twice
        parts = [different[start : start + most] for start in range(0, len(different), most)]
        try:
            found = numpy.concatenate([self._part(part, len(part)) for part in parts])
        except (IndexError, NotImplementedError, TypeError, ValueError):
            self._takes_rows = False
            return None
        return found[numpy.searchsorted(different, ascending)]

    def _slice(self, ascending: numpy.ndarray) -> numpy.ndarray:
        """Return rows by reading all from the first to the last."""
        start, stop = int(ascending[0]), int(ascending[-1]) + 1
        part = self._part(slice(start, stop), stop - start)
        return part if len(ascending) == stop - start else part[ascending - start]

    def _part(self, index: Any, number: int) -> numpy.ndarray:
        part = self._numbers(self._data[index])
        shape, dtype = (number, *self._lazy.shape[1:]), self._lazy.dtype
        if part.shape != shape or not _becomes(part.dtype, dtype):
            raise ValueError(
                f"{self.names[0]} must give {dtype} of shape {shape} for {number} of its rows, received "
                f"{part.dtype} of shape {part.shape}."
            )
        return part

    def _numbers(self, rows: Any) -> numpy.ndarray:
        return self._destination.numbers(self.names[0], _to_numpy(self.names[0], rows))


def _rows_in_chunk(data: Any) -> int:
    chunks = getattr(data, "chunks", None)
    # Dask says how many are in each chunk, others how many are in all of them.
    return int(numpy.max(chunks[0])) if isinstance(chunks, tuple) else 1


class Items:
    """An object that makes one example at a time.

    Parameters
    ----------
    names : sequence of str
        What errors call the parts of an example, of which the last may be missing.
    data : object with ``__len__`` and ``__getitem__``
        From the number of an example, counted from 0, to it. ``__getitems__``, if there is one, takes a list
        of numbers.
    parts : callable
        From what it returns to the parts: numbers, arrays, or dicts of such.
    destination : Destination
        In whose dtypes examples are read.

    Attributes
    ----------
    values : list of Lazy, or dicts of such
        What stands for each part.
    leaves : list of Lazy
    """

    is_mapped = False
    rows_in_chunk = 1

    def __init__(
        self, names: Sequence[str], data: Any, parts: Callable[[Any], Sequence[Any]], destination: Destination
    ) -> None:
        self._names, self._data, self._parts = names, data, parts
        number, self._lazy = len(data), dict[str, Lazy]()

        def prepared(name: str, value: Any) -> Lazy:
            example = on_host(name, [value])[0]
            self._lazy[name] = Lazy(number, example, destination)
            return self._lazy[name]

        with noted(f"It was raised where the first example of {' and '.join(names[:2])} is read."):
            example = parts(data[0]) if number else [numpy.empty(0)] * len(names)
        self.names = list(names[: len(example)])
        self.values = [map_named(prepared, *part) for part in zip(self.names, example, strict=True)]
        self.leaves = list(self._lazy.values())

    def __len__(self) -> int:
        return len(self._data)

    def read(self, rows: numpy.ndarray, _most: int) -> list[numpy.ndarray]:
        """Return an array of some examples for each leaf."""
        numbers = rows.tolist()
        get = getattr(self._data, "__getitems__", None)
        items = [self._data[number] for number in numbers] if get is None else get(numbers)
        found: dict[str, list[Any]] = {name: [] for name in self._lazy}

        def add(name: str, value: Any) -> None:
            found.setdefault(name, []).append(value)

        for item in items:
            for name, part in zip(self._names, self._parts(item), strict=False):
                map_named(add, name, part)
        return [self._stacked(name, values, rows) for name, values in found.items()]

    def _stacked(self, name: str, values: list[Any], rows: numpy.ndarray) -> numpy.ndarray:
        array = on_host(name, values)
        lazy = self._lazy.get(name)
        if lazy is not None and array.shape == (len(rows), *lazy.shape[1:]):  # noqa: SIM102
            if _becomes(array.dtype, lazy.dtype):
                return array.astype(lazy.dtype, copy=False)
        expected = "nothing of that name" if lazy is None else f"{lazy.dtype} of shape {lazy.shape[1:]}"
        raise ValueError(
            f"all examples must have parts like those of the first one, for {name} {expected}; received "
            f"{len(values)} of {array.dtype} and shape {array.shape[1:]} in the {len(rows)} examples from "
            f"{rows.min()} to {rows.max()}."
        )


class Reader:
    """Reads data in the order of an epoch, one piece ahead on a thread.

    Parameters
    ----------
    read : callable
        From the beginning and the end of a piece to its arrays by some keys.
    pieces : iterable of (int, int)
        Beginnings and ends, each of which is that of the next.
    """

    def __init__(self, read: Callable[[int, int], dict[Any, Any]], pieces: Iterable[tuple[int, int]]) -> None:
        self._pieces = _ahead((begin, end, read(begin, end)) for begin, end in pieces)
        self._begin, self._end, self._arrays = 0, 0, dict[Any, Any]()

    def take(self, start: int, stop: int) -> dict[Any, Any]:
        """Return the arrays from one place to another; each call goes on where the last one ended."""
        parts = []
        while True:
            if start >= self._end:
                self._begin, self._end, self._arrays = next(self._pieces)
            part = slice(start - self._begin, min(stop, self._end) - self._begin)
            parts.append({key: array[part] for key, array in self._arrays.items()})
            if stop <= self._end:
                break
            start = self._end
        if len(parts) == 1:
            return parts[0]
        return {key: numpy.concatenate([part[key] for part in parts]) for key in parts[0]}

    def close(self) -> None:
        """End the thread, after what it reads."""
        self._pieces.close()


def _ahead(items: Iterator[Any]) -> Generator[Any, None, None]:
    """Yield items, of which the next one is made on a thread meanwhile, in the context of the caller."""
    process, end = os.getpid(), object()
    run: Callable[..., Any] = contextvars.copy_context().run
    with ThreadPoolExecutor(1, thread_name_prefix="xpnet-reading") as threads:
        under_way = threads.submit(run, next, items, end)
        while (item := under_way.result()) is not end:
            under_way = threads.submit(run, next, items, end)
            yield item
            if os.getpid() != process:  # the thread is in the other one, and this would wait for ever
                raise RuntimeError(
                    "data must be read in the process that began to, received a fork of it. Call fit or "
                    "predict there anew, with files that are opened there."
                )


def _becomes(dtype: numpy.dtype, other: numpy.dtype) -> bool:
    """Say whether numbers may become those of another dtype: integers only where none changes."""
    return numpy.can_cast(dtype, other, "same_kind" if other.kind == "f" else "safe")


def on_host(name: str, data: Any) -> numpy.ndarray:
    """Return numbers of any library, or a list of such, as a NumPy array."""
    if isinstance(data, list):
        data = [_to_numpy(name, each) for each in data]
        return as_numbers(numpy.stack(data) if _are_alike(data) else data, name)
    return as_numbers(_to_numpy(name, data), name)


def _to_numpy(name: str, data: Any) -> Any:
    data = unmasked(data, name)
    library = library_of(data)
    return data if library is None else library.to_numpy(data)


def _are_alike(data: list[Any]) -> bool:
    return all(isinstance(each, numpy.ndarray) and each.shape == data[0].shape for each in data)


def map_named(function: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """Apply a function to a value and its name, or to those in a dict: ``"x['a']"`` and what it is."""
    if isinstance(value, Mapping) and not is_sparse(value):  # one kind of sparse matrices is a dict
        return {key: map_named(function, f"{name}[{key!r}]", part) for key, part in value.items()}
    return function(name, value)
