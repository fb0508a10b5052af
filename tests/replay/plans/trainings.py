"""A small training, as plans for CUDA are tested with."""

import numpy

import xpnet
from xpnet import losses, nn, optim


def train(net, *, optimizer=None, steps=5, features=4, batch=8):
    """Return the losses and the network of a training on random data, and the step."""
    optimizer = optimizer or optim.Adam(0.01)

    def step(net, state, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), loss

    step = xpnet.jit(step, donate=("net", "state"))
    random = numpy.random.default_rng(0)
    state, values = optimizer.init(net), []
    # All at once, so that no two batches are at one place.
    xs = [random.normal(size=(batch, features)).astype("float32") for _ in range(steps)]
    ys = [random.integers(0, 3, size=batch) for _ in range(steps)]
    for x, y in zip(xs, ys, strict=True):
        net, state, loss = step(net, state, x, y)
        values.append(loss)
    return values, net, step


def dense(depth=3, *, bias=True):
    layers = []
    for seed in range(depth - 1):
        layers += [nn.Dense(4 if seed == 0 else 5, 5, bias=bias, seed=seed), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dense(5, 3, seed=depth))
