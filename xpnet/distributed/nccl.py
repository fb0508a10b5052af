"""Operations of a group between GPUs, by NCCL: arrays of CuPy's go from one to another without the host.

It is written for `cupy.cuda.nccl` of CuPy 14 with NCCL 2.27 and later, whose names and signatures were read
in the installed packages, and was tried with a stand-in for them alone: no GPU has run it yet.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from xpnet.backends.cupy import how_to_install
from xpnet.distributed.operation import BROADCAST, GATHER, MEAN, SUM, SUM_IN_PIECES
from xpnet.distributed.pieces import Pieces, travels_as

# The dtypes that are added up, by NCCL's names; a complex number is two of them.
_NUMBERS = {
    **{name: f"NCCL_{name.upper()}" for name in ("int8", "uint8", "int32", "uint32", "int64", "uint64")},
    **{"float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64"},
    **{"complex64": "NCCL_FLOAT32", "complex128": "NCCL_FLOAT64"},
}
_ADDS = (SUM, MEAN, SUM_IN_PIECES)


def nccl_problem() -> str:
    """Return why there is no NCCL here, with the command that would mend it, or nothing."""
    try:
        from cupy.cuda import nccl
    except Exception as error:  # it may lack CUDA, too
        return f"CuPy cannot be imported ({type(error).__name__}: {error}). {how_to_install()} installs it."
    if nccl.available:
        return ""
    return "CuPy finds no NCCL. `pip install nvidia-nccl-cu13` (or cu12, as CuPy) installs it."


def nccl_status() -> str:
    """Say which NCCL there is, or why there is none and what would mend that."""
    problem = nccl_problem()
    if problem:
        return f"not usable: {problem}"
    from cupy.cuda import nccl

    version = nccl.get_version()
    return f"{version // 10_000}.{version // 100 % 100}.{version % 100}"


def new_identity() -> Any:
    """Return by what the processes of a group find each other, made by one of them."""
    from cupy.cuda import nccl

    return nccl.get_unique_id()


class Nccl:
    """The GPUs of all processes, one for each.

    Parameters
    ----------
    identity : object
        What `new_identity` returned on one process.
    rank, size : int
    device : cupy.cuda.Device
        The GPU of this process.
    """

    def __init__(self, identity: Any, rank: int, size: int, device: Any) -> None:
        from cupy.cuda import nccl

        self._nccl, self.rank, self.size, self.device = nccl, rank, size, device
        with device:
            self._communicator = nccl.NcclCommunicator(size, identity, rank)
        self._under_way: deque[tuple[float, Any]] = deque()  # since when, and an event behind each operation
        self._moved = time.monotonic()  # when the last one ended, as far as is known
        self._lock = threading.Lock()

    def takes(self, kind: str, arrays: Sequence[Any]) -> bool:
        """Say whether an operation can be done with arrays of some dtypes: what is moved has any."""
        return kind not in _ADDS or all(travels_as(x.dtype).name in _NUMBERS for x in arrays)

    def compute(self, kind: str, root: int, pieces: Pieces | None, arrays: Sequence[Any]) -> list[Any]:
        """Do an operation, and return its results, which are there when the current stream comes to them."""
        with self.device:
            return self._computed(kind, root, pieces, arrays)

    def _computed(self, kind: str, root: int, pieces: Pieces | None, arrays: Sequence[Any]) -> list[Any]:
        import cupy

        self._waited()  # so that it forgets
        stream = cupy.cuda.get_current_stream()
        travels = [x.astype(travels_as(x.dtype), copy=False) if kind in _ADDS else x for x in arrays]
        given = [*map(cupy.ascontiguousarray, travels)]
        if pieces is not None:
            found = self._of_pieces(kind, pieces, given, stream.ptr)
        else:
            found = [cupy.empty((self.size, *x.shape) if kind == GATHER else x.shape, x.dtype) for x in given]
            self._nccl.groupStart()
            for x, y in zip(given, found, strict=True):
                if x.size:
                    self._call(kind, root, x, y, stream.ptr)
            self._nccl.groupEnd()
        event = cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        self._under_way.append((time.monotonic(), event))
        return [y.astype(x.dtype, copy=False) for x, y in zip(arrays, found, strict=True)]

    def problem(self, timeout: float) -> str:
        """Return what went wrong on the GPUs meanwhile, or that nothing went on for some seconds."""
        try:
            with self.device:
                self._communicator.check_async_error()
                waited = self._waited()
        except Exception as error:  # of CUDA, too
            return f"an exchange between GPUs failed: {error}"
        return f"an exchange between GPUs did not end within {timeout:g} s" if waited > timeout else ""

    def _waited(self) -> float:
        """Forget what has ended, and return for how many seconds nothing did, if anything is under way."""
        now = time.monotonic()
        with self._lock:  # as another thread looks, too
            while self._under_way and self._under_way[0][1].done:
                self._under_way.popleft()
                self._moved = now
            return now - max(self._moved, self._under_way[0][0]) if self._under_way else 0.0

    def _call(self, kind: str, root: int, x: Any, y: Any, stream: int) -> None:
        communicator, (source, target) = self._communicator, (x.data.ptr, y.data.ptr)
        if kind in (SUM, MEAN):
            communicator.allReduce(source, target, *self._numbers(x), self._nccl.NCCL_SUM, stream)
        elif kind == BROADCAST:
            communicator.broadcast(source, target, x.nbytes, self._nccl.NCCL_UINT8, root, stream)
        else:
            communicator.allGather(source, target, x.nbytes, self._nccl.NCCL_UINT8, stream)

    def _numbers(self, x: Any) -> tuple[int, int]:
        """Return how many numbers an array has for NCCL, and their kind."""
        return x.size * (1 + (x.dtype.kind == "c")), getattr(self._nccl, _NUMBERS[x.dtype.name])

    def _of_pieces(self, kind: str, pieces: Pieces, arrays: list[Any], stream: int) -> list[Any]:
        """Add up in pieces, or join pieces, all of a dtype in one stretch of memory."""
        found: list[Any] = [None] * len(arrays)
        for dtype in dict.fromkeys(x.dtype for x in arrays):
            numbers = [n for n, x in enumerate(arrays) if x.dtype == dtype]
            of_dtype = self._add_up if kind == SUM_IN_PIECES else self._join
            results = of_dtype(pieces.at(numbers), [arrays[n] for n in numbers], stream)
            for n, y in zip(numbers, results, strict=True):
                found[n] = y
        return found

    def _add_up(self, pieces: Pieces, arrays: list[Any], stream: int) -> list[Any]:
        import cupy

        whole = cupy.zeros(pieces.length * self.size, arrays[0].dtype)
        for x, start in zip(arrays, pieces.starts, strict=True):
            whole[start : start + x.size] = x.reshape(-1)
        own = cupy.empty(pieces.length, whole.dtype)
        if own.size:
            count, kind = self._numbers(own)
            arguments = whole.data.ptr, own.data.ptr, count, kind, self._nccl.NCCL_SUM, stream
            self._communicator.reduceScatter(*arguments)
        return [own[place].copy() for place in self._places(pieces)]

    def _join(self, pieces: Pieces, arrays: list[Any], stream: int) -> list[Any]:
        import cupy

        own = cupy.zeros(pieces.length, arrays[0].dtype)
        for x, place in zip(arrays, self._places(pieces), strict=True):
            own[place] = x
        whole = cupy.empty(pieces.length * self.size, own.dtype)
        if own.size:
            kind = self._nccl.NCCL_UINT8
            self._communicator.allGather(own.data.ptr, whole.data.ptr, own.nbytes, kind, stream)
        each = zip(pieces.starts, pieces.shapes, strict=True)
        return [whole[start : start + math.prod(shape)].reshape(shape).copy() for start, shape in each]

    def _places(self, pieces: Pieces) -> list[slice]:
        """Return where in its piece this process has its elements of each array."""
        begin = self.rank * pieces.length
        return [
            slice(start + own.start - begin, start + own.stop - begin)
            for start, own in zip(pieces.starts, pieces.slices(self.rank), strict=True)
        ]
