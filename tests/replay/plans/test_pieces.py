"""Pieces that are joined are made where the joined arrays are, if these are written over arguments."""

from types import SimpleNamespace

import numpy as np
import pytest

import xpnet
from xpnet import nn, optim
from xpnet.autodiff import extended_namespace
from xpnet.distributed import Group
from xpnet.distributed.operation import JOIN, Operation
from xpnet.distributed.pieces import Pieces


class First:
    """Stands for two processes, of which the other one has the same gradients, and sevens."""

    rank, size = 0, 2

    def __init__(self):
        self.watch, self.settle, self.joined_there = SimpleNamespace(timeout=1.0), int, []

    def of_pieces(self, kind, _about, pieces, _dtypes):
        slices = pieces.slices(self.rank)

        def add_up(results, arrays):
            for x, y, own in zip(arrays, results, slices, strict=True):
                y[...] = 2 * x.reshape(-1)[own]

        def join(results, arrays):
            for x, y, own in zip(arrays, results, slices, strict=True):
                if x.size:
                    self.joined_there.append(np.shares_memory(x, y))
                y.reshape(-1)[own.stop :] = 7.0
                y.reshape(-1)[own] = x.reshape(-1)

        return join if kind == JOIN else add_up


processes = First()
group = Group(processes)
SHAPES = [(4, 8), (16,), (9, 7), (3,)]
PIECES = Pieces.of(SHAPES, 2)  # all of the first, most of the third, and nothing of the last are here
ARRAYS = [np.random.default_rng(n).normal(size=shape).astype("f") for n, shape in enumerate(SHAPES)]


def own(xp, x, n):
    return xp.reshape(x, (-1,))[PIECES.slices(0)[n]]


def moved(arrays, change=lambda _xp, piece, _n: piece * 2 - 1):
    xp = extended_namespace(*arrays)
    pieces = [change(xp, own(xp, x, n), n) for n, x in enumerate(arrays)]
    return pieces, xp.collective(*pieces, operation=Operation(group, JOIN, pieces=PIECES))


def plainly(arrays):
    return moved(arrays)[1], ()


def read_later(arrays):
    """The arguments are read once more behind what moves them."""
    pieces, joined = moved(arrays)
    xp = extended_namespace(*arrays)
    return joined, [xp.sum(x) + xp.sum(piece) for x, piece in zip(arrays, pieces, strict=True)]


def from_elsewhere(arrays):
    """The pieces are made of others than those that they become."""
    return moved(arrays, lambda xp, piece, _n: xp.flip(piece) + 0.5)[1], ()


def seen_before(arrays):
    """A view of what was moved is read before it is joined, as for a norm."""
    xp = extended_namespace(*arrays)
    pieces = [own(xp, x, n) * 2 - 1 for n, x in enumerate(arrays)]
    views = [xp.reshape(piece, (-1, 1)) for piece in pieces]
    norms = [(xp.sum(x[1:, ...] * x[:-1, ...]), xp.vecdot(x, x, axis=0)) for x in views]
    return xp.collective(*pieces, operation=Operation(group, JOIN, pieces=PIECES)), norms


def read_between(arrays):
    """The arguments are read once more between what moves them and the joining."""
    xp = extended_namespace(*arrays)
    pieces = [own(xp, x, n) * 2 - 1 for n, x in enumerate(arrays)]
    sums = [xp.sum(x) for x in arrays]
    return xp.collective(*pieces, operation=Operation(group, JOIN, pieces=PIECES)), sums


def shifted(arrays):
    """The pieces are made of as many elements of the same arrays, at other places."""
    xp = extended_namespace(*arrays)
    pieces = [own(xp, x, n) * 1 for n, x in enumerate(arrays)]
    pieces[2] = xp.reshape(arrays[2], (-1,))[20 : 20 + pieces[2].shape[0]] * 2
    return xp.collective(*pieces, operation=Operation(group, JOIN, pieces=PIECES)), ()


def returned(arrays):
    pieces, joined = moved(arrays)
    return joined, pieces


@pytest.mark.parametrize(
    ("f", "is_there"),
    [
        (plainly, [True] * 3),
        (read_later, [False] * 3),
        (read_between, [False] * 3),
        (from_elsewhere, [False] * 3),
        (shifted, [True, True, False]),
        (seen_before, [False] * 3),
        (returned, [False] * 3),
    ],
)
def test_results_are_those_without_a_plan(f, is_there):
    pytest.importorskip("numba")
    expected = f([x.copy() for x in ARRAYS])
    recorded = xpnet.jit(f, donate=("arrays",))
    for _ in range(3):
        processes.joined_there.clear()
        found = recorded([x.copy() for x in ARRAYS])
        assert processes.joined_there == is_there
        for x, y in zip(xpnet.tree.leaves(found), xpnet.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)


def test_arguments_that_are_not_donated_stay():
    recorded = xpnet.jit(plainly)
    arrays = [x.copy() for x in ARRAYS]
    for _ in range(2):
        found, _ = recorded(arrays)
        for x, y, before in zip(found, arrays, ARRAYS, strict=True):
            np.testing.assert_array_equal(y, before)
            assert not np.shares_memory(x, y)


@pytest.mark.parametrize("check", ["0", "1"])
def test_an_optimizer_in_pieces(check, monkeypatch):
    monkeypatch.setenv("XPNET_CHECK", check)
    net = nn.Sequential(nn.Dense(3, 20, seed=0), nn.ReLU(), nn.Dense(20, 2, seed=1))
    x, y = np.ones((5, 3), "f"), np.ones((5, 2), "f")
    optimizer = group.shard(optim.Adam(0.1))

    def step(net, state):
        gradients = xpnet.grad(lambda net: xpnet.losses.mse(net(x), y))(net)
        return optimizer.update(gradients, state, net)

    recorded, (eager, eager_state) = xpnet.jit(step, donate=("net", "state")), (net, optimizer.init(net))
    net, state = xpnet.tree.map(np.copy, (net, optimizer.init(net)), state=True)
    for _ in range(4):
        net, state = recorded(net, state)
        eager, eager_state = step(eager, eager_state)
    for a, b in zip(xpnet.tree.leaves((net, state)), xpnet.tree.leaves((eager, eager_state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
