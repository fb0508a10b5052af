"""Data sets and their batches."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy

from xpnet.backends import Device, asarray, device_of, library_of

# Bytes up to which a data set is converted as a whole.
MODERATE = 2**28


class Examples:
    """A data set, of which batches are made on the device of a network.

    Data on that device stay there. All others stay on the host and are moved batch by batch, so that a data
    set may be larger than the memory of the device.

    Parameters
    ----------
    arrays : dict of str to array or sequence
        What belongs together, by the names that error messages use, such as ``{"x": x, "y": y}``. The first
        axis is that of the examples.
    where : Device
        Where the batches go.
    dtype : dtype
        To which floating-point numbers are converted.

    Raises
    ------
    ValueError
        If there are no examples, or not equally many of each.
    TypeError
        If a sequence cannot be made an array of numbers.
    """

    def __init__(self, arrays: dict[str, Any], where: Device, dtype: Any) -> None:
        self.where = where
        self._dtype = dtype
        self.arrays = [self._ready(_readable(name, array, where)) for name, array in arrays.items()]
        lengths = {name: array.shape[0] for name, array in zip(arrays, self.arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            text = " and ".join(f"{length} in {name}" for name, length in lengths.items())
            raise ValueError(f"there must be as many examples of each, received {text}.")
        length = next(iter(lengths.values()))
        if length == 0:
            raise ValueError(f"there must be at least one example, received none in {' and '.join(arrays)}.")
        self._rows = numpy.arange(length)

    def __len__(self) -> int:
        return len(self._rows)

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
        order = random.permutation(self._rows)
        return self._only(order[number:]), self._only(order[:number])

    def _only(self, rows: numpy.ndarray) -> "Examples":
        part = copy.copy(self)
        part._rows = rows
        return part

    def batches(
        self, batch_size: int, random: "numpy.random.Generator | None" = None, *, first: int = 0
    ) -> Iterator[tuple[Any, ...]]:
        """Yield batches of all arrays; the last may be smaller.

        Parameters
        ----------
        batch_size : int
            The number of examples in a batch.
        random : numpy.random.Generator, optional
            Draws a new order of the examples; without it, they come as they stand.
        first : int, default=0
            The batch to begin with.
        """
        rows = self._rows if random is None else random.permutation(self._rows)
        for start in range(first * batch_size, len(rows), batch_size):
            yield tuple(self._batch(array, rows[start : start + batch_size]) for array in self.arrays)

    def _batch(self, array: Any, rows: numpy.ndarray) -> Any:
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


def _readable(name: str, data: Any, where: Device) -> Any:
    """Return data as an array on the device, where it is already, or as a NumPy array."""
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
