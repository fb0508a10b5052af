"""A group of one process, as it is without MPI, and what is wrong whatever the number of processes."""

import math
import pickle

import numpy as np
import pytest
from helpers import run_python

import xpnet
from xpnet import nn, optim
from xpnet.distributed import processes, world
from xpnet.distributed.pieces import Pieces

group = xpnet.distributed.world()
X = np.ones((4, 1), dtype="float32")


@pytest.mark.parametrize("name", ["sum", "mean", "broadcast"])
def test_what_one_process_has_is_what_all_have(device, name):
    x = xpnet.asarray([1.0, 2.0], device=device)
    y = getattr(group, name)({"x": x})["x"]
    assert (y.dtype, device.library.to_numpy(y).tolist()) == (x.dtype, [1.0, 2.0])
    if device.spec != "jax":  # whose arrays cannot be written to
        y[0] = 5.0
        assert device.library.to_numpy(x).tolist() == [1.0, 2.0]  # it is an array of its own
    assert group.gather(x).shape == (1, 2)


def test_there_is_one_group():
    assert world() is group
    assert (group.rank, group.size, repr(group)) == (0, 1, "Group(rank=0, size=1)")
    assert pickle.loads(pickle.dumps(group)) is group
    optimizer = optim.chain(group.average(), optim.SGD(0.1))
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer


def test_an_optimizer_of_one_process_is_as_without_a_group():
    params, grads = {"x": np.asarray([[1.0, 2.0]])}, {"x": np.asarray([[3.0, -4.0]])}
    optimizer, sharded = optim.Adam(0.1), group.shard(optim.Adam(0.1))
    states = [each.init(params) for each in (optimizer, sharded)]
    found = [
        each.update(grads, state, params) for each, state in zip((optimizer, sharded), states, strict=True)
    ]
    for x, y in zip(*map(xpnet.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(x, y)
    state = found[1][1]
    assert sharded.whole(state, params) is state
    assert sharded.cut(state, params) == state


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_each_element_is_in_the_piece_of_one_process(size):
    shapes = [(3, 70), (), (5,), (0, 2), (64,), (1, 1, 33)]
    pieces = Pieces.of(shapes, size)
    for number, shape in enumerate(shapes):
        owners = np.zeros(math.prod(shape))
        for rank in range(size):
            own = pieces.slices(rank)[number]
            assert own.start % 16 == 0 or own.start == owners.size
            owners[own] += 1
            parts = [part for n, part in pieces.stretches(rank, 7) if n == number]
            assert [n for part in parts for n in range(part.start, part.stop)] == [
                *range(own.start, own.stop)
            ]
        assert (owners == 1).all()
    lengths = [sum(own.stop - own.start for own in pieces.slices(rank)) for rank in range(size)]
    assert max(lengths) <= sum(map(math.prod, shapes)) / size + 16 * len(shapes)
    assert pieces.at([2, 0, 2]).slices(0) == [pieces.slices(0)[n] for n in (2, 0, 2)]


def test_steps_are_those_without_a_group():
    x = np.eye(3, dtype="float32")

    def trained(optimizer):
        net = nn.Dense(3, 3, seed=0)
        state = optimizer.init(net)

        @xpnet.jit
        def step(net, state):
            gradients = xpnet.grad(lambda net: xpnet.losses.mse(net(x), x))(net)
            return optimizer.update(gradients, state, net)

        for _ in range(3):
            net, state = step(net, state)
        return net.weight

    alone = trained(optim.Adam(0.1))
    np.testing.assert_array_equal(trained(optim.chain(group.average(), optim.Adam(0.1))), alone)


def test_a_training_is_that_without_a_group():
    x = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")

    def trained(**options):
        net = nn.Sequential(nn.Dense(3, 3, seed=0), nn.BatchNorm(3), nn.Dropout(0.2, seed=1))
        options |= {"loss": xpnet.losses.mse, "optimizer": optim.Adam(0.1), "seed": 0, "progress": False}
        history = xpnet.fit(net, x, x, **options)
        return [*xpnet.tree.leaves(net, state=True), np.asarray(history["loss"])]

    for one, other in zip(trained(), trained(group=group), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_training_takes_a_group_and_nothing_else():
    with pytest.raises(TypeError, match=r"group must be xpnet\.distributed\.world\(\), received int"):
        xpnet.fit(nn.Dense(1, 1), X, X, loss=xpnet.losses.mse, optimizer=optim.SGD(0.1), group=4)


def test_python_s_objects_of_one_process():
    assert group.largest(3) == 3
    assert group.gather_objects("a") == ["a"]


def test_gradients_and_recordings():
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.sum(group.sum(x * x) + group.mean(x) + group.gather(x)[0, ...] + group.broadcast(x))

    x = np.asarray([1.0, -2.0])
    np.testing.assert_array_equal(xpnet.grad(f)(x), 2 * x + 3)
    np.testing.assert_array_equal(xpnet.jit(xpnet.grad(f))(x), 2 * x + 3)
    np.testing.assert_array_equal(xpnet.hvp(f, (x,), (np.ones(2),))[0], [2.0, 2.0])


def test_a_step_of_scan_must_not_come_to_an_operation():
    x = np.ones(3)

    def f(x):
        return xpnet.scan(lambda carried, x: (carried + group.sum(x), x), x[0], x)[0]

    for call in (f, xpnet.jit(f), xpnet.grad(f)):
        with pytest.raises(xpnet.errors.NotRecordableError, match="the step of scan must not come to an"):
            call(x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: group.sum(2.0),
            TypeError,
            "sum over a group takes arrays, received float: 2.0. xpnet.asarray",
        ),
        (lambda: group.mean({"a": "b"}), TypeError, "mean over a group takes arrays, received str: 'b'"),
        (lambda: group.mean(np.ones(2, int)), TypeError, "arrays of floating-point numbers, received int64"),
        (lambda: group.sum(np.ones(2, bool)), TypeError, "arrays of numbers, received bool. Convert them"),
        (lambda: group.broadcast(np.ones(2), 1), ValueError, "root must be a rank, from 0 to 0, received 1"),
        (
            lambda: group.broadcast(np.ones(2), True),
            ValueError,
            "root must be a rank, from 0 to 0, received True",
        ),
        (lambda: setattr(group, "timeout", 0), ValueError, "timeout must be"),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        call()
    assert group.timeout == 600


def test_a_launcher_of_another_mpi_is_told(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setattr(processes, "find_mpi", lambda: (None, "mpi4py is not installed. Install it."))
    with pytest.raises(RuntimeError, match="received 4 of a launcher of which each is alone: mpi4py is not"):
        processes.mpi_of_processes()

    class Mpi:
        class COMM_WORLD:
            size = 1

        @staticmethod
        def Get_library_version():
            return "MPICH Version: 4.3\nand more"

    monkeypatch.setattr(processes, "find_mpi", lambda: (Mpi, ""))
    with pytest.raises(RuntimeError, match=r"mpi4py uses MPICH Version: 4\.3, and the launcher"):
        processes.mpi_of_processes()


def test_mpi_is_started_by_nobody_who_does_not_ask():
    assert "mpi4py" not in run_python(
        "-c", "import sys, xpnet; print([n for n in sys.modules if 'mpi4py' in n])"
    )
