"""What a plan asks of the processor: memory of NumPy's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy


class Cpu:
    """The processor, as plans see it: a `Runtime`."""

    alignment = 64  # bytes: a line of its cache
    has_numbers = True
    empty: Callable | None = staticmethod(numpy.empty)

    def memory(self, nbytes: int) -> numpy.ndarray:
        """Return memory that begins at a line of the cache."""
        memory = numpy.empty(nbytes + self.alignment, numpy.uint8)
        return memory[-memory.ctypes.data % self.alignment :]

    def array(self, memory: numpy.ndarray, offset: int, shape: tuple[int, ...], dtype: Any) -> numpy.ndarray:
        """Return an array in a part of memory."""
        return numpy.ndarray(shape, dtype, memory, offset)

    def contiguous(self, arrays: Sequence) -> list[numpy.ndarray]:
        """Return arrays with their elements one after the other, and aligned; numbers become arrays."""
        found = []
        for x in arrays:  # a comprehension would be one more call of Python's
            if type(x) is not numpy.ndarray or not x.flags.carray:  # which says that it is writeable, too
                x = numpy.require(numpy.asarray(x), requirements=["C", "A"])
            found.append(x)
        return found

    def copies(self, arrays: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
        """Return copies of arrays."""
        return [x.copy() for x in arrays]
