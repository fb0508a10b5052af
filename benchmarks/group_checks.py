"""Checks of `smoke.py` of groups of processes: NCCL on one GPU, and on two, and graphs around an exchange."""

import threading

import numpy
from checks import assert_close, check, on_gpu

import xpnet
from xpnet import losses, nn, optim
from xpnet.distributed import Group
from xpnet.distributed.nccl import Nccl, nccl_problem, nccl_status, new_identity
from xpnet.distributed.pieces import Pieces

DTYPES = ("float32", "float64", "float16", "int32")
SHAPES = [(), (3,), (40, 5), (0, 2)]


class Twice:
    """Stands for two processes that have the same arrays, of which others know nothing."""

    rank, size, timeout = 0, 2, 60.0

    def __init__(self):
        self.watch, self.settle, self.exchanges = self, int, 0

    def between_gpus(self, _kind, _arrays):
        return None

    def compute(self, _kind, _root, _about, arrays):
        self.exchanges += 1
        return [2 * x for x in arrays]


@check
def graphs_around_an_exchange(device):
    group = Group(Twice())
    x, y = (numpy.random.default_rng(seed).normal(size=(5, 3)).astype("float32") for seed in range(2))

    def trained(group, spec, jit):
        net = xpnet.to_device(nn.Sequential(nn.Dense(3, 4, seed=0), nn.Tanh(), nn.Dense(4, 3, seed=1)), spec)
        optimizer = optim.chain(optim.clip_by_global_norm(0.1), optim.Adam(0.1))
        state, inputs = optimizer.init(net), [xpnet.asarray(each, device=spec) for each in (x, y)]

        def step(net, state, x, y):
            loss, gradients = xpnet.value_and_grad(lambda net: losses.mse(net(x), y))(net)
            return *optimizer.update(group.mean(gradients), state, net), group.mean(loss)

        recorded = xpnet.jit(step, donate=("net", "state")) if jit else step
        for _ in range(6):
            net, state, loss = recorded(net, state, *inputs)
        return recorded, loss, net

    step, *found = trained(group, device.device, True)
    _, *expected = trained(Group(), "cpu", False)
    assert group.processes.exchanges == 2 * 6
    assert "captured as a CUDA graph" in step.explain(), step.explain().splitlines()[-1]
    for a, b in zip(xpnet.tree.leaves(found), xpnet.tree.leaves(expected), strict=True):
        assert_close(a, xpnet.to_numpy(b), 1000, 1.0)


def of_rank(rank, shape, dtype):
    return (numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape) % 7 + rank).astype(dtype)


def try_all(gpus, size, rank, array):
    """Do each operation on a GPU, and compare it with NumPy."""
    pieces = Pieces.of(SHAPES, size)
    own = pieces.slices(rank)
    for dtype in DTYPES:
        everyone = [[of_rank(r, shape, dtype) for shape in SHAPES] for r in range(size)]
        given = [array(x) for x in everyone[rank]]
        sums = [sum(each).astype(dtype) for each in zip(*everyone, strict=True)]
        for x, y in zip(gpus.compute("sum", 0, None, given), sums, strict=True):
            assert_close(x, y)
        for x, *each in zip(gpus.compute("gather", 0, None, given), *everyone, strict=True):
            assert_close(x, numpy.stack(each))
        for x, y in zip(gpus.compute("broadcast", size - 1, None, given), everyone[-1], strict=True):
            assert_close(x, y)
        parts = gpus.compute("sum in pieces", 0, pieces, given)
        for x, y, place in zip(parts, sums, own, strict=True):
            assert_close(x, y.reshape(-1)[place])
        for x, y in zip(gpus.compute("join", 0, pieces, parts), sums, strict=True):
            assert_close(x, y)
    assert gpus.problem(60.0) == ""


@on_gpu
def nccl_on_one_gpu(device):
    if problem := nccl_problem():
        return problem
    gpus = Nccl(new_identity(), 0, 1, device.device.native)
    try_all(gpus, 1, 0, device.array)
    device.finish()
    return f"NCCL {nccl_status()}"


@on_gpu
def nccl_on_two_gpus(_device):
    import cupy

    if (problem := nccl_problem()) or cupy.cuda.runtime.getDeviceCount() < 2:
        return problem or "there is one GPU"
    identity, errors = new_identity(), []

    def work(rank):
        try:
            with cupy.cuda.Device(rank) as device:
                try_all(Nccl(identity, rank, 2, device), 2, rank, cupy.asarray)
                device.synchronize()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return "two GPUs"
