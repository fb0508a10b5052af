"""What is added up over processes stands one after the other in a plan's memory, where that does no harm."""

from types import SimpleNamespace

import numpy as np
import pytest

import xpnet
from xpnet import nn, optim
from xpnet.distributed import Group
from xpnet.distributed.processes import one_after_other


class Double:
    """Stands for two processes that have the same arrays."""

    rank, size = 0, 2

    def __init__(self):
        self.watch = SimpleNamespace(timeout=1.0)
        self.settle, self.sums = int, []

    def compute(self, kind, _root, _about, arrays):
        assert kind in ("sum", "mean")
        return [2 * x for x in arrays]

    def adding(self, _kind, _about, kinds):
        if len({dtype for dtype, _ in kinds}) > 1:
            return None

        def add(arrays):
            self.sums.append(arrays)
            with np.errstate(all="ignore"):  # between the arrays there is anything
                for x in [arrays] if isinstance(arrays, np.ndarray) else arrays:
                    x *= 2

        return add


processes = Double()
group = Group(processes)
X, Y = (np.random.default_rng(seed).normal(size=(5, 3)).astype("float32") for seed in range(2))


def gradients(x, y):
    xp = xpnet.array_namespace(x, y)
    a, b, c = group.sum([x @ y.mT, xp.sum(x * y, axis=0), x * 3])
    return xp.sum(a) + xp.sum(b * 2), c + 1, b * 0.5


def one_variable_twice(x, y):
    z = x + y
    return [s * 1 for s in group.sum([x * y, z, z])]


def needed_later(x, y):
    z = x * y
    first, second = group.sum([z, y * 2])
    return first + z, second * z


def again_and_again(x, y):
    first = group.sum([y * x])[0]
    return [s + x for s in group.sum(group.sum([x * 2, first]))]


# Functions of two arrays, and whether what they add up is one array in the plan.
KINDS = {
    "products, sums and loops": (gradients, True),
    "one variable twice": (one_variable_twice, True),
    "views": (lambda x, y: [s - y.mT for s in group.sum([(x * 2).mT, (y + 1).mT])], True),
    "arguments": (lambda x, y: [s * y for s in group.sum([x, y])], True),
    "what is needed later": (needed_later, True),
    "the mean": (lambda x, y: group.mean([x * y, x + y]), True),
    "again and again": (again_and_again, True),
    "results": (lambda x, y: group.sum([x * y, x + y]), False),
    "a view of a result": (lambda x, y: [group.sum([x * y, x + y])[0][1:, :]], False),
    "empty ones": (lambda x, y: [s + 1 for s in group.sum([x[:0, :] * 2, y * 2, y[:, :0] * 2])], True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_without_a_plan(kind):
    f, is_one = KINDS[kind]
    recorded = xpnet.jit(f)
    for shift in range(3):
        x, y = X + shift, Y - shift
        processes.sums.clear()
        found = recorded(x, y)
        assert [isinstance(x, np.ndarray) for x in processes.sums] == [is_one] * len(processes.sums)
        assert processes.sums
        for a, b in zip(xpnet.tree.leaves(found), xpnet.tree.leaves(f(x, y)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_array_equal(x, X + shift)
        np.testing.assert_array_equal(y, Y - shift)


def test_gradients_are_made_where_they_are_added_up():
    net = nn.Sequential(nn.Dense(3, 4, seed=0), nn.ReLU(), nn.Dense(4, 3, seed=1))
    optimizer = optim.chain(group.average(), optim.Adam(0.1))

    def step(net, state):
        gradients = xpnet.grad(lambda net: xpnet.losses.mse(net(X), Y))(net)
        return optimizer.update(gradients, state, net)

    recorded, (eager, eager_state) = xpnet.jit(step, donate=("net", "state")), (net, optimizer.init(net))
    net, state = xpnet.tree.map(np.copy, (net, optimizer.init(net)), state=True)
    for _ in range(5):
        net, state = recorded(net, state)
        eager, eager_state = step(eager, eager_state)
    for a, b in zip(xpnet.tree.leaves(net), xpnet.tree.leaves(eager), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    source = recorded.explain()
    assert source.count("add_up(joined_") == 1
    assert "copyto" not in source


def test_memory_beside_a_plan_is_laid_out_as_in_one():
    f, _ = KINDS["empty ones"]
    processes.sums.clear()
    xpnet.jit(f)(X, Y)
    (in_plan,) = processes.sums
    memory, parts = one_after_other([(X.dtype, shape) for shape in ((0, 3), (5, 3), (5, 0))])
    assert memory.shape == in_plan.shape
    assert [x.shape for x in parts] == [(0, 3), (5, 3), (5, 0)]
