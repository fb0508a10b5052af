"""Where batches go: the device of a network, the dtype there, and the way from the host."""

import contextlib
import math
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import (
    Device,
    as_numbers,
    asarray,
    device_of,
    has_bool_columns,
    library_of,
    numpy_dtype,
    to_numpy,
    unmasked,
    use_device,
)
from xpnet.cached import cached_property

# Bytes up to which an array is converted, looked through or moved at once.
BYTES_AT_ONCE = 2**28


@dataclass(frozen=True)
class Destination:
    """Where the batches of a network go.

    Parameters
    ----------
    where : Device
    dtype : dtype
        To which floating-point numbers are converted.
    """

    where: Device
    dtype: Any

    @cached_property
    def is_host(self) -> bool:
        return self.where.library.spec == "cpu"

    @cached_property
    def floating(self) -> numpy.dtype:
        """The dtype of floating-point numbers, as far as NumPy has it."""
        return numpy_dtype(self.dtype, self.where)

    def host_dtype(self, dtype: numpy.dtype) -> numpy.dtype:
        """Return the dtype in which a batch goes up. `jit` takes no other order of bytes."""
        return self.floating if dtype.kind == "f" else dtype.newbyteorder("=")

    def readable(self, name: str, data: Any) -> Any:
        """Return data as an array on the device, where it is already, as a NumPy array, or by rows if sparse.

        Raises
        ------
        TypeError, ValueError
            If data are not numbers, or one number alone. The error calls them by the name.
        """
        if is_sparse(data):
            return data.tocsr()
        data = unmasked(data, name)
        library = library_of(data)
        if library is None or isinstance(data, numpy.ndarray):
            array = self.numbers(name, data)
        elif device_of(data) == self.where:
            array = data
        else:
            array = as_numbers(numpy.asarray(library.to_numpy(data)), name)
        if len(array.shape) == 0:
            raise ValueError(
                f"{name} must have an axis of examples, received a single number. Examples that come one by "
                "one are made batches by a DataLoader, or by fit, of an object with __len__ and __getitem__."
            )
        return array

    def numbers(self, name: str, data: Any) -> numpy.ndarray:
        """Return data on the host as an array of numbers, in which bools of a data frame are 0 and 1."""
        array = as_numbers(data, name)
        if array.dtype.kind in "biu" and has_bool_columns(data):  # beside other numbers or alone
            return array.astype(self.floating)
        return array

    def converted(self, array: Any) -> Any:
        """Return an array of some examples, on the host or on the device, in the dtype that it has there."""
        if is_sparse(array):
            array = array.toarray()
        if isinstance(array, numpy.ndarray):
            return array.astype(self.host_dtype(array.dtype), copy=False)
        if array.dtype == self.dtype or not self.where.namespace.isdtype(array.dtype, "real floating"):
            return array
        return asarray(array, device=self.where, dtype=self.dtype)

    def moved(self, array: Any) -> Any:
        """Return an array of the host on the device."""
        if not isinstance(array, numpy.ndarray) or self.is_host:
            return array
        floating = array.dtype.kind == "f"
        array = array.astype(self.host_dtype(array.dtype), copy=False)
        return asarray(array, device=self.where, dtype=self.dtype if floating else None)

    def settled(self, array: Any) -> Any:
        """Return an array on the device, moved in parts, so that the host's memory holds no second one."""
        if not isinstance(array, numpy.ndarray):
            return array
        rows = max(1, BYTES_AT_ONCE * len(array) // max(array.nbytes, 1))
        with use_device(self.where):
            first = self.moved(array[:rows])
            if rows >= len(array):
                return first
            xp = self.where.namespace
            moved = xp.empty(array.shape, dtype=first.dtype, device=self.where.native)
            moved[:rows, ...] = first
            for start in range(rows, len(array), rows):
                part = slice(start, min(start + rows, len(array)))
                moved[part, ...] = self.moved(array[part])
        return moved

    def uploaded(
        self, groups: Iterable[list[Any]], *, from_host: bool, ahead: int
    ) -> Generator[list[Any], None, None]:
        """Move groups of arrays from the host; where the library can, so many ahead of what is computed."""
        if self.where.library.uploads is None or not from_host:
            yield from (tree.map(self.moved, group) for group in groups)
            return
        with contextlib.closing(self.where.library.uploads()) as uploads:
            under_way: deque[tuple[Any, Callable[[], list[Any]]]] = deque()
            for group in groups:
                leaves, structure = tree.flatten(group)
                under_way.append((structure, uploads.begin(leaves)))
                if len(under_way) > ahead:
                    structure, ready = under_way.popleft()
                    yield tree.unflatten(structure, ready())
            for structure, ready in under_way:
                yield tree.unflatten(structure, ready())


@contextlib.contextmanager
def noted(text: str) -> Iterator[None]:
    """Add to errors of data which of them they are about."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


def is_sparse(data: Any) -> bool:
    """Say whether data are a sparse matrix of SciPy, which then is loaded, or one that is used like it."""
    return hasattr(data, "toarray") and hasattr(data, "tocsr")


def digest_of(batch: Any, before: int = 0) -> int:
    """Return a number that tells batches up to this one, by their first and last examples, from others."""
    for leaf in tree.leaves(batch):
        if isinstance(leaf, numpy.ndarray):  # other devices would have to be waited for
            before = zlib.crc32(leaf[0].tobytes() + leaf[-1].tobytes(), before)
    return before


def digest_of_all(values: Any) -> int:
    """Return a number that tells arrays from others, of whatever device; of large ones by both ends."""
    found = 0
    for leaf in tree.leaves(values, state=True):
        is_large = 8 * math.prod(leaf.shape) > BYTES_AT_ONCE
        parts = (leaf[:1, ...], leaf[-1:, ...]) if is_large else (leaf,)
        for part in parts:
            found = zlib.crc32(to_numpy(part).tobytes(), found)
    return found


def length(batch: Any) -> int:
    """Return the number of examples in an array or in a dict of them."""
    while isinstance(batch, dict):
        batch = next(iter(batch.values()))
    return int(batch.shape[0])
