"""What several processes do: ``mpiexec -n 2 python programs.py NAME`` calls the function of that name."""

import os
import signal
import sys
import time

import numpy as np

import xpnet
from xpnet import nn, optim

group = xpnet.distributed.world()
rank, size = group.rank, group.size
ranks = np.arange(size)


def total(x):
    return xpnet.array_namespace(x).sum(x)


def equal(found, expected, dtype="float64"):
    found = xpnet.to_numpy(found)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def operations(spec):
    if spec == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    x = xpnet.asarray([1.0, 2.0 + rank], device=spec, dtype="float64")
    whole = np.asarray([np.ones(size), 2.0 + ranks]).T  # that of each rank
    equal(group.sum(x), whole.sum(axis=0))
    equal(group.mean(x), whole.mean(axis=0))
    equal(group.gather(x), whole)
    for root in range(size):
        equal(group.broadcast(x, root), whole[root])
    equal(x, whole[rank])
    equal(group.sum(x[0]), size)
    numbers = xpnet.asarray([rank, 3], device=spec, dtype="int32")
    equal(group.sum(numbers), [ranks.sum(), 3 * size], "int32")
    equal(group.gather(numbers), [[r, 3] for r in ranks], "int32")
    truths = xpnet.asarray([rank == 0, True], device=spec)
    equal(group.broadcast(truths), [True, True], "bool")
    equal(group.gather(truths[0]), ranks == 0, "bool")
    step = xpnet.jit(lambda x: (group.mean(x) * 2, group.gather(x)))
    for _ in range(2):
        mean, each = step(x)
        equal(mean, 2 * whole.mean(axis=0))
        equal(each, whole)
    if spec == "torch":
        narrow = group.mean(xpnet.asarray([1.0 + rank], device=spec, dtype="bfloat16"))
        assert str(narrow.dtype) == "torch.bfloat16"
        np.testing.assert_array_equal(xpnet.to_numpy(narrow), [1 + (size - 1) / 2])
    gradient = xpnet.jit(xpnet.grad(lambda x: total(group.sum(x * x))))
    equal(gradient(x), 2 * whole[rank] * size)


def trees():
    tree = {"a": [np.full((2, 1), rank, dtype="float32"), np.full(3, 2.0 + rank)], "b": np.asarray(rank)}
    found = group.sum(tree)
    equal(found["a"][0], [[ranks.sum()]] * 2, "float32")
    equal(found["a"][1], [(2 + ranks).sum()] * 3)
    equal(found["b"], ranks.sum(), "int64")
    found = group.gather({"empty": np.zeros((0, 2)), "wide": np.full((2, 2), rank, dtype=">f4")})
    assert found["empty"].shape == (size, 0, 2)
    np.testing.assert_array_equal(found["wide"], np.broadcast_to(ranks[:, None, None], (size, 2, 2)))
    mixed = {"a": np.asarray(rank == 0), "b": np.full(3, 0.5 + rank)}  # which begins behind a single byte
    for found, r in (
        (group.broadcast(mixed), 0),
        (xpnet.tree.map(lambda x: x[-1, ...], group.gather(mixed)), size - 1),
    ):
        assert found["b"].flags.aligned
        np.testing.assert_array_equal(found["b"], np.full(3, 0.5 + r))
        np.testing.assert_array_equal(found["a"], r == 0)
    # Numbers of two bytes are added up in float32: 2048 + 1 is none of float16.
    narrow = np.asarray([2048.0 if rank == 0 else 1.0], dtype="float16")
    expected = np.float16(np.float32(2048 + size - 1) / np.float32(size))
    np.testing.assert_array_equal(group.mean(narrow), [expected])


def networks():
    net = nn.Sequential(nn.Dense(2, 3, seed=rank), nn.BatchNorm(3), nn.Dropout(0.5, seed=rank))
    net(np.full((4, 2), rank, dtype="float32"))  # each has statistics of its own
    same = group.broadcast(net)
    for x in xpnet.tree.leaves(same, state=True):
        seen = group.gather(x)
        np.testing.assert_array_equal(seen, np.broadcast_to(seen[0], seen.shape))
    for x, y in zip(xpnet.tree.leaves(net), xpnet.tree.leaves(group.mean(net)), strict=True):
        np.testing.assert_allclose(group.gather(x).mean(axis=0), y, rtol=1e-6)


def gradients():
    """Each gradient is that of the sum over all ranks, by differences of that sum."""
    x = np.asarray([0.5, -1.0, 2.0]) + rank
    weight = np.asarray([1.0, 3.0, -2.0]) * (rank + 1)
    last = size - 1
    for operation in (group.sum, group.mean, lambda x: group.broadcast(x, last), group.gather):

        def f(x, operation=operation):
            y = operation({"a": x * x, "b": x})
            return total(y["a"] * weight) + total(y["b"] * y["b"] * weight)

        def of_all(x, f=f):
            return float(group.sum(f(x)))

        found = xpnet.grad(f)(x)
        equal(xpnet.jit(xpnet.grad(f))(x), found)
        for r in ranks:  # each process in its turn moves one of its numbers
            for index in range(3):
                step = np.zeros(3)
                step[index] = 1e-3 * (r == rank)
                difference = (of_all(x + step) - of_all(x - step)) / 2e-3
                if r == rank:
                    np.testing.assert_allclose(found[index], difference, rtol=1e-9)

        def slope(x, f=f):
            return total(xpnet.grad(f)(x) * weight)

        equal(xpnet.jit(xpnet.grad(slope))(x), xpnet.grad(slope)(x))
    # A loss that every rank has whole counts as often as there are ranks.
    equal(xpnet.grad(lambda x: group.sum(total(x * x)))(x), 2 * x * size)
    equal(xpnet.grad(lambda x: group.mean(total(x * x)))(x), 2 * x)


def recorded():
    """Ranks that record at other calls than others still come to the same operations."""
    step = xpnet.jit(lambda x, y: (group.sum(x) + total(y), group.mean(total(y))))
    for call in range(6):
        x = np.asarray([1.0 + rank])
        y = np.ones(1 + (call + rank) % 3)  # each rank meets these shapes at other times
        added, mean = step(x, y)
        equal(added, [(1.0 + ranks).sum() + y.size])
        equal(mean, np.mean(1 + (call + ranks) % 3))
    constant = np.asarray([1.0, 2.0]) * (rank + 1)
    equal(
        xpnet.jit(lambda x: group.sum(constant) + x)(np.ones(2)), 1 + np.asarray([1, 2]) * (1 + ranks).sum()
    )


def normalized():
    """The statistics of a layer with a group are those of the batch of all, also where parts differ."""
    random = np.random.default_rng(0)
    x, factor = random.normal(3, 2, size=(9, 3)), random.normal(size=(9, 3))
    cuts = [0, *(2 + n for n in range(size - 1)), 9]
    own = slice(cuts[rank], cuts[rank + 1])

    def made(**options):
        return nn.BatchNorm(3, dtype="float64", **options)

    def f(layer, x, factor):
        return total(layer(x) * factor)

    for transform in (xpnet.grad, lambda f, **options: xpnet.jit(xpnet.grad(f, **options))):
        one, several = made(), made(group=group)
        expected = transform(f, argnums=(0, 1))(one, x, factor)
        found = transform(f, argnums=(0, 1))(several, x[own], factor[own])
        np.testing.assert_allclose(found[1], expected[1][own], rtol=1e-9, atol=1e-12)
        for of_all, part in zip(*map(xpnet.tree.leaves, (expected[0], found[0])), strict=True):
            np.testing.assert_allclose(group.sum(part), of_all, rtol=1e-9, atol=1e-12)
    one, several = made(), made(group=group)
    np.testing.assert_allclose(several(x[own]), one(x)[own], rtol=1e-12)
    for name in one.state:
        np.testing.assert_allclose(getattr(several, name), getattr(one, name), rtol=1e-12)


def eager_or_recorded():
    """One process adds up where the arrays of its plan are, another one as the function is written."""

    def f(x, y, z):
        found = group.sum({"x": x * 2, "y": y + 1, "z": z * 1})
        mean = group.mean([x * 1, z * 2])
        return found["x"] * 1, found["y"] * 1, found["z"] * 1, mean[0], xpnet.array_namespace(z).sum(mean[1])

    for shapes in (((3,), (5, 7), ()), ((0, 2), (17,), (0,)), ((129,), (1,), (0,))):
        arguments = [np.full(shape, 1.0 + rank) for shape in shapes]
        for shift in range(size):
            own = xpnet.jit(f) if (rank + shift) % 2 else f
            for _ in range(2):
                x, y, z, mean, summed = own(*arguments)
                equal(x, np.full(shapes[0], 2 * (1 + ranks).sum()))
                equal(y, np.full(shapes[1], (2 + ranks).sum()))
                equal(z, np.full(shapes[2], (1 + ranks).sum()))
                equal(mean, np.full(shapes[0], np.mean(1 + ranks)))
                equal(summed, z.size * 2 * np.mean(1 + ranks))


def training(path):
    """A hundred steps with a part of each batch, in a loop of one's own."""
    random = np.random.default_rng(0)
    x = random.normal(size=(480, 4))
    y = np.sin(x.sum(axis=1, keepdims=True))
    layers = (nn.Dense(4, 16, seed=0), nn.Tanh(), nn.Dense(16, 1, seed=1))
    net = xpnet.tree.map(lambda x: x.astype("float64"), nn.Sequential(*layers))
    optimizer = optim.chain(group.average(), optim.clip_by_global_norm(0.1), optim.Adam(1e-2))

    @xpnet.jit
    def step(net, state, x, y):
        loss, gradients = xpnet.value_and_grad(lambda net: xpnet.losses.mse(net(x), y))(net)
        return *optimizer.update(gradients, state, net), group.mean(loss)

    state, losses = optimizer.init(net), []
    for _ in range(100):
        rows = random.choice(480, 48, replace=False)[rank::size]
        net, state, loss = step(net, state, x[rows], y[rows])
        losses.append(float(loss))
    if rank == 0:
        np.savez(path, losses, *xpnet.tree.leaves(net))


# -- mistakes and accidents -------------------------------------------------------------------------------


def kinds():
    group.sum(np.ones(3))
    if rank == 0:
        group.sum(np.ones(3))
    else:
        group.mean(np.ones(3))


def shapes():
    group.sum(np.ones(3 + rank))


def fourth():
    group.sum([np.ones(2)] * 3 + [np.ones(2 + rank)] * 2)


def orders():
    group.sum(np.ones(2, dtype="<f8" if rank == 0 else ">f8"))


def keys():
    group.sum({"a": np.ones(2), "b" if rank == 0 else "z": np.ones(2)})


def forgotten():
    """The loss of one process does not depend on what is added up."""

    def loss(x):
        added = group.sum(x)
        return total(added if rank == 0 else x)

    xpnet.grad(loss)(np.ones(1))
    group.sum(np.ones(1))


def crossed():
    """The losses depend on different results."""

    def loss(x):
        first = group.sum(x["a"])
        second = group.sum(x["b"])
        return total(first if rank == 0 else second)

    xpnet.jit(xpnet.grad(loss))({"a": np.ones(1), "b": np.ones(1)})


def forked():
    child = os.fork()
    if child == 0:
        try:
            group.sum(np.ones(2))
        except RuntimeError as error:
            os._exit(7 if "received one in a process that one of these started" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (7 if size > 1 else 1)
    equal(group.sum(np.ones(2)), [size, size])


def silent():
    """A process that waits, and can print nothing, still ends all."""
    group.timeout = 2.0
    if rank == 1:
        time.sleep(600)
    sys.stdout.close()
    sys.stderr = None
    group.sum(np.ones(2))


def late():
    """A process came late once. Which one does not come later is told all the same."""
    group.timeout = 6.0
    if rank == 1:
        time.sleep(4)
    group.sum(np.ones(2))
    if rank == 0:
        time.sleep(600)
    group.sum(np.ones(2))


def roots():
    group.broadcast(np.ones(3), rank)


def uneven():
    for _ in range(2 + rank):
        group.sum(np.ones(3))


def caught_at_the_end():
    """Who catches that another one has ended does not wait for it at its own end."""
    if rank == 0:
        try:
            group.sum(np.ones(3))
        except xpnet.errors.ProcessesDisagreeError:
            assert size > 1


def ends():
    if rank == 1:
        sys.exit("no data")
    group.sum(np.ones(3))


def raises():
    if rank == 1:
        raise ValueError("wrong data")
    group.sum(np.ones(3))


def killed():
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    group.sum(np.ones(3))


def stopped():
    group.timeout = 2.0
    group.sum(np.ones(3))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    group.sum(np.ones(3))


def caught():
    group.timeout = 2.0
    try:
        if rank == 1:
            raise ValueError("wrong data")
        group.sum(np.ones(3))
    except ValueError:
        time.sleep(600)


def handled():
    """An error that all can handle: the group is as good as before."""
    try:
        group.sum(np.ones(3 + rank))
    except xpnet.errors.ProcessesDisagreeError:
        assert size > 1
    equal(group.sum(np.ones(2)), [size, size])


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("passed", flush=True)
