"""On CUDA, what several processes do together stands between graphs."""

import numpy as np
import pytest

import xpnet
from xpnet import nn, optim
from xpnet.distributed import Group


class Twice:
    """Stands for two processes that have the same arrays, whose exchange no graph may have."""

    rank, size = 0, 2

    def __init__(self, host):
        self._host, self.watch, self.settle, self.exchanges = host, self, int, 0
        self.timeout = 1.0

    def compute(self, kind, _root, _about, arrays):
        assert kind in ("sum", "mean")
        assert not self._host.is_capturing()
        self.exchanges += 1
        return [2 * x for x in arrays]


def test_a_training_is_captured_around_its_exchange(on_host):
    host = on_host()
    group = Group(Twice(host))
    x, y = (np.random.default_rng(seed).normal(size=(5, 3)).astype("float32") for seed in range(2))

    def trained(group, steps, jit):
        net = nn.Sequential(nn.Dense(3, 4, seed=0), nn.Tanh(), nn.Dense(4, 3, seed=1))
        optimizer = optim.chain(optim.clip_by_global_norm(0.1), optim.Adam(0.1))
        state = optimizer.init(net)

        def step(net, state):
            loss, gradients = xpnet.value_and_grad(lambda net: xpnet.losses.mse(net(x), y))(net)
            return *optimizer.update(group.mean(gradients), state, net), group.mean(loss)

        recorded = xpnet.jit(step, donate=("net", "state")) if jit else step
        losses = []
        for _ in range(steps):
            net, state, loss = recorded(net, state)
            losses.append(float(loss))
        return net, losses, recorded

    net, losses, step = trained(group, 8, True)
    assert group.processes.exchanges == 2 * 8
    assert host.graphs == 3  # before the gradients are exchanged, before the loss is, and behind both
    assert step.explain().count("yield lambda: assign(") == 2
    expected, expected_losses, _ = trained(Group(), 8, False)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for a, b in zip(*map(xpnet.tree.leaves, (net, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_error_between_graphs_is_raised(on_host):
    on_host()

    class Failing(Twice):
        def compute(self, *arguments):
            if self.exchanges == 5:
                raise xpnet.errors.ProcessesDisagreeError("others went elsewhere")
            return super().compute(*arguments)

    group = Group(Failing(on_host()))
    step = xpnet.jit(lambda x: group.sum(x * 2) + 1)
    for _ in range(5):
        np.testing.assert_array_equal(step(np.ones(3)), [5.0] * 3)
    with pytest.raises(xpnet.errors.ProcessesDisagreeError):
        step(np.ones(3))
