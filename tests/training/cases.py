"""A small network and data for it, for the tests of training."""

import numpy as np
from helpers import network

import xpnet
from xpnet import losses, optim

random = np.random.default_rng(0)
X = random.normal(size=(60, 3))
Y = (X @ [1.0, -2.0, 0.5] > 0).astype("int64")


def classifier(seed=0):
    return network(3, 8, 2, seed=seed)


def train(net, x=X, y=Y, **options):
    settings = {
        "loss": losses.cross_entropy,
        "optimizer": optim.Adam(0.02),
        "epochs": 3,
        "batch_size": 16,
        "seed": 0,
        "progress": False,
    }
    return xpnet.fit(net, x, y, **(settings | options))


def weights(net):
    return [np.array(x) for x in xpnet.tree.leaves(xpnet.to_numpy(net))]


def same(a, b):
    """Say whether two lists of arrays are equal, bit for bit."""
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
