"""Predictions: what is returned does not depend on how many examples make a batch."""

from dataclasses import dataclass
from typing import Any

import numpy
import pytest
from helpers import assert_on, assert_same
from scipy import sparse

import xpnet
from xpnet import nn, tree


@dataclass
class Result:
    scores: Any
    rest: Any


class Returns(nn.Module):
    """A dense layer, and what a function makes of its output."""

    def __init__(self, function, name=None):
        self.dense, self.function, self.name = nn.Dense(3, 2, seed=0), function, name
        self.takes_sparse = True

    def __call__(self, x):
        return self.function(self.dense(x if self.name is None else x[self.name]))


STRUCTURES = {
    "array": lambda y: y,
    "tuple": lambda y: (y, y[:, 0]),
    "list": lambda y: [y * 2],
    "dict": lambda y: {"scores": y, "first": y[:, :1]},
    "dataclass": lambda y: Result(y, {"twice": y * 2}),
    "nested": lambda y: {"a": (y, [y[:, 0], None]), "b": Result(y * 3, None)},
    "booleans": lambda y: (y > 0, y),
}
X = numpy.random.default_rng(0).normal(size=(10, 3)).astype("float32")
X[X < 0] = 0


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_outputs_are_put_together_leaf_by_leaf(device, kind, jit):
    net = Returns(STRUCTURES[kind])
    expected = net(xpnet.asarray(X, device=device))
    for batch_size in (1, 4, 10, 64):  # the last batch of four has two
        outputs = xpnet.predict(net, X, batch_size=batch_size, jit=jit)
        assert type(outputs) is type(expected) or tree.is_array(expected)
        assert tree.flatten(outputs)[1] == tree.flatten(expected)[1]
        for leaf, right in zip(tree.leaves(outputs), tree.leaves(expected), strict=True):
            assert_on(leaf, device, shape=tuple(right.shape))
            assert_same(leaf, right)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_of_dicts_and_sparse_matrices(device, batch_size, jit):
    net = Returns(STRUCTURES["nested"], "numbers")
    expected = net({"numbers": xpnet.asarray(X, device=device)})
    x = {"numbers": X, "other": X[:, :1]}
    few = numpy.zeros((10, 200), dtype="float32")
    few[:, :3] = X
    wide = Returns(STRUCTURES["nested"])
    wide.dense = nn.Dense(200, 2, seed=0)
    pairs = [
        (xpnet.predict(net, x, batch_size=batch_size, jit=jit), expected),
        (
            xpnet.predict(wide, sparse.csr_matrix(few), batch_size=batch_size, jit=jit),
            wide(xpnet.asarray(few, device=device)),
        ),
    ]
    for outputs, right in pairs:
        for one, other in zip(tree.leaves(outputs), tree.leaves(right), strict=True):
            assert_same(one, other)


def mean_of_all(y):
    return xpnet.array_namespace(y).mean(y)


REFUSED = [
    (mean_of_all, ValueError, r"received the shape \(\) for"),
    (lambda y: (y, y.mT), ValueError, r"received the shape \(2, \d+\) at 1 for"),
    (lambda y: {"y": y, "rest": [y[:1, :]]}, ValueError, r"received the shape \(1, 2\) at rest.0 for"),
    (lambda y: Result(y, mean_of_all(y)), ValueError, r"received the shape \(\) at rest for"),
    (lambda y: (y, 3), TypeError, "received int at 1 for"),
    (lambda y: {"y": y, "name": "scores"}, TypeError, "received str at name for"),
    (lambda _: 0.5, TypeError, "received float for"),
]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("batch_size", [4, 10, 64])
@pytest.mark.parametrize(("function", "error", "message"), REFUSED)
def test_what_cannot_be_put_together_is_refused(device, function, error, message, batch_size, jit):
    number = min(batch_size, 10)
    with pytest.raises(error, match=f"each must be an array .*{message} {number} examples. Call"):
        xpnet.predict(Returns(function), X, batch_size=batch_size, jit=jit)


@pytest.mark.parametrize("jit", [False, True])
def test_another_structure_for_the_last_batch_is_refused(device, jit):
    net = Returns(lambda y: (y, y) if y.shape[0] == 4 else (y, None))
    with pytest.raises(ValueError, match="outputs of one structure for all batches, received"):
        xpnet.predict(net, X, batch_size=4, jit=jit)
    assert xpnet.predict(net, X[:8], batch_size=4, jit=jit)[1].shape == (8, 2)


def test_none_stays_none(device):
    for batch_size in (4, 64):
        assert xpnet.predict(Returns(lambda _: None), X, batch_size=batch_size) is None
