"""Groups of GPUs, on a stand-in for CuPy and NCCL: ``mpiexec -n 2 python gpus.py NAME`` calls the function.

Its arrays are NumPy's, and its NCCL moves what is at an address by MPI.
"""

import ctypes
import itertools
import logging
import sys
import time
from types import ModuleType, SimpleNamespace

import array_api_compat
import numpy as np
from mpi4py import MPI

import xpnet
from xpnet import optim
from xpnet.distributed import operation
from xpnet.distributed.shard import Sharded

group = xpnet.distributed.world()
rank, size = group.rank, group.size
ranks = np.arange(size)


class Device:
    entered = [None]  # noqa: RUF012

    def __init__(self, number=None):
        self.id = rank if number is None else number
        self.pci_bus_id = f"0000:{self.id}"

    def __eq__(self, other):
        return self.id == other.id

    __hash__ = None

    def __enter__(self):
        Device.entered.append(self.id)

    def __exit__(self, *_):
        Device.entered.pop()


class Array(np.ndarray):
    device = Device()
    data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))


def array(x):
    return np.ascontiguousarray(x).view(Array).reshape(np.shape(x))


class Event:
    hangs = False

    def __init__(self, disable_timing):
        assert disable_timing

    def record(self, stream):
        assert stream.ptr == 7

    @property
    def done(self):
        return not self.hangs


class NcclCommunicator:
    problem = None
    calls = 0

    def __init__(self, count, identity, own):
        assert (count, identity, own) == (size, "the identity", rank)
        self._communicator = MPI.COMM_WORLD.Dup()

    def check_async_error(self):
        if self.problem:
            raise RuntimeError(self.problem)

    def _memory(self, pointer, count, kind):
        nbytes = count * np.dtype(kind).itemsize
        return np.frombuffer((ctypes.c_char * nbytes).from_address(pointer), kind)

    def _called(self, stream):
        assert stream == 7
        assert Device.entered[-1] == rank
        NcclCommunicator.calls += 1

    def allReduce(self, source, target, count, kind, what, stream):
        self._called(stream)
        assert what == "the sum"
        self._communicator.Allreduce(self._memory(source, count, kind), self._memory(target, count, kind))

    def broadcast(self, source, target, count, kind, root, stream):
        self._called(stream)
        memory = self._memory(target, count, kind)
        memory[...] = self._memory(source, count, kind)
        self._communicator.Bcast(memory, root)

    def allGather(self, source, target, count, kind, stream):
        self._called(stream)
        self._communicator.Allgather(
            self._memory(source, count, kind), self._memory(target, size * count, kind)
        )

    def reduceScatter(self, source, target, count, kind, what, stream):
        self._called(stream)
        assert what == "the sum"
        whole = self._memory(source, size * count, kind)
        self._communicator.Reduce_scatter_block(whole, self._memory(target, count, kind))


def install(available=True):
    nccl = ModuleType("cupy.cuda.nccl")
    kinds = ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float32", "float64")
    nccl.__dict__.update({f"NCCL_{kind.upper()}": kind for kind in kinds}, NCCL_SUM="the sum")
    nccl.__dict__.update(
        available=available,
        get_unique_id=lambda: "the identity",
        NcclCommunicator=NcclCommunicator,
        groupStart=int,
        groupEnd=int,
    )
    cuda = ModuleType("cupy.cuda")
    stream = SimpleNamespace(ptr=7)
    cuda.__dict__.update(nccl=nccl, Device=Device, Event=Event, get_current_stream=lambda: stream)
    cupy = ModuleType("cupy")
    cupy.__dict__.update(
        cuda=cuda,
        ascontiguousarray=array,
        empty=lambda shape, dtype: array(np.full(shape, 77, dtype)),
        zeros=lambda shape, dtype: array(np.zeros(shape, dtype)),
    )
    sys.modules |= {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.nccl": nccl}
    array_api_compat.is_cupy_array = lambda x: isinstance(x, Array)
    operation.device_of = lambda _x: xpnet.device("cpu")


def same(found, expected):
    assert type(found) is Array
    assert found.dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(found, expected)


def operations():
    install()
    dtypes = ("float32", "float64", "int32", "int64", "uint8", "complex64", "complex128", "float16")
    for dtype, shape in itertools.product(dtypes, [(), (3,), (4, 5), (0, 2)]):
        x = (np.arange(np.prod(shape, dtype=int)).reshape(shape) + rank).astype(dtype)
        of_each = [(np.arange(x.size).reshape(shape) + r).astype(dtype) for r in ranks]
        before, calls = array(x.copy()), NcclCommunicator.calls
        same(group.sum(before), sum(of_each).astype(dtype))
        assert NcclCommunicator.calls == calls + (x.size > 0)
        same(group.gather(before), np.stack(of_each))
        for root in ranks:
            same(group.broadcast({"x": before}, root)["x"], of_each[root])
        if before.dtype.kind in "fc":
            same(group.mean(before), (sum(of_each) / size).astype(dtype))
        same(before, x)
    turned = array(np.arange(12.0).reshape(3, 4)).T  # of which the elements do not stand one after the other
    same(group.sum([turned])[0], np.arange(12.0).reshape(3, 4).T * size)
    calls = NcclCommunicator.calls
    found = group.sum(array(np.ones(3, "int16")))  # which NCCL cannot add up
    np.testing.assert_array_equal(xpnet.to_numpy(np.asarray(found)), [size] * 3)
    assert NcclCommunicator.calls == calls
    same(group.broadcast(array(np.asarray([rank == 0, True]))), [True, True])


def sharded():
    """Pieces on GPUs are those on the host."""
    install()
    params = {
        "weight": np.arange(35.0).reshape(5, 7),
        "half": np.linspace(0, 1, 40).astype("float16"),
        "single": np.linspace(-1, 1, 33).astype("float32").reshape(3, 11),
        "number": np.asarray(3.0),
    }
    optimizer = Sharded(optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(0.1)), group)
    found, expected = xpnet.tree.map(array, params), params
    states = [optimizer.init(each) for each in (found, expected)]
    for step in range(3):
        gradients = {name: (x * (1 + rank) + step).astype(x.dtype) for name, x in params.items()}
        calls = NcclCommunicator.calls
        found, states[0] = optimizer.update(xpnet.tree.map(array, gradients), states[0], found)
        assert NcclCommunicator.calls > calls
        expected, states[1] = optimizer.update(gradients, states[1], expected)
    for x, y in zip(*map(xpnet.tree.leaves, (found, expected)), strict=True):
        assert type(x) is Array
        np.testing.assert_allclose(x, y, rtol=1e-3 if x.dtype == "float16" else 1e-6)
    for x, y in zip(*map(xpnet.tree.leaves, states), strict=True):
        assert x.shape == y.shape


def one_gpu():
    """Two processes with the same GPU exchange through the memory of the host."""
    install()
    Array.device = Device(0)
    x = group.sum(array(np.ones(3)))
    np.testing.assert_array_equal(np.asarray(x), [size] * 3)
    assert NcclCommunicator.calls == 0


def without_nccl():
    install(available=rank == 0)
    group.sum(array(np.ones(3)))
    assert NcclCommunicator.calls == 0


def mixed():
    install()
    group.sum(array(np.ones(3)))
    group.sum(np.ones(3) if rank else array(np.ones(3)))


def another_gpu():
    install()
    group.sum(array(np.ones(3)))
    Array.device = Device(5)
    group.sum(array(np.ones(3)))


def fails():
    install()
    group.timeout = 4.0
    group.sum(array(np.ones(3)))
    if rank == 1:
        NcclCommunicator.problem = "remote process exited"
    time.sleep(30)


def hangs():
    install()
    group.timeout = 2.0
    Event.hangs = rank == 1
    group.sum(array(np.ones(3)))
    time.sleep(30)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    globals()[sys.argv[1]](*sys.argv[2:])
    print("passed", flush=True)
