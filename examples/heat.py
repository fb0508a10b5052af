"""Science: a network that obeys an equation, and one that finds a number in it from noisy measurements.

Heat spreads along a rod by du/dt = c d²u/dx², with both ends kept at 0 and a sine at the beginning; the
exact solution is known. The network never sees it: its loss is how far its derivatives are from the
equation (M. Raissi, P. Perdikaris and G. E. Karniadakis, Physics-informed neural networks, 2019).
"""

import argparse
import math
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from tqdm import trange

import xpnet
from xpnet import nn, optim

CONDUCTIVITY = 0.1


def exact(t, x):
    return numpy.exp(-CONDUCTIVITY * math.pi**2 * t) * numpy.sin(math.pi * x)


class Rod(nn.Module):
    """The temperature at times and places, arrays of one shape, and a conductivity, as its logarithm / 10."""

    def __init__(self, seed):
        options = {"weight_init": nn.initializers.glorot_normal, "seed": seed}
        first, second, last = (nn.Dense(*sizes, **options) for sizes in ((2, 32), (32, 32), (32, 1)))
        self.layers = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)
        self.log_conductivity = xpnet.asarray(math.log(0.5) / 10, device=xpnet.device(), dtype="float32")

    def __call__(self, t, x):
        xp = xpnet.array_namespace(t, x)
        inner = self.layers(xp.stack([t, x], axis=-1))[..., 0]
        # The beginning and the ends are built in, so that the equation is all that is left to learn.
        return xp.sin(math.pi * x) + t * x * (1 - x) * inner


def equation(net, t, x, conductivity):
    """Return how far the network is from the equation: the mean square of du/dt - c d²u/dx²."""

    def total(t, x):  # each temperature depends on its own time and place alone
        return add(net(t, x))

    def total_slope(t, x):
        return add(xpnet.grad(total, argnums=1)(t, x))

    by_time, curvature = xpnet.grad(total)(t, x), xpnet.grad(total_slope, argnums=1)(t, x)
    return add((by_time - conductivity * curvature) ** 2) / t.shape[0]


def add(values):
    return xpnet.array_namespace(values).sum(values)


def solve(loss, net, arrays, steps):
    optimizer = optim.Adam(optim.cosine(5e-3, steps=steps))
    state = optimizer.init(net)

    def step(net, state, *arrays):
        value, gradient = xpnet.value_and_grad(loss)(net, *arrays)
        return *optimizer.update(gradient, state, net), value

    step = xpnet.jit(step, donate=("net", "state"))
    for _ in trange(steps, disable=None):
        net, state, _value = step(net, state, *arrays)
    return net


def on_device(arrays):
    return [xpnet.asarray(x, device=xpnet.device(), dtype="float32") for x in arrays]


def main(options):
    random, steps = numpy.random.default_rng(options.seed), 300 if options.small else 2000
    points = on_device(random.uniform(size=(2, 400)))
    net = solve(lambda net, t, x: equation(net, t, x, CONDUCTIVITY), Rod(random), points, steps)

    # The other way round: 60 noisy measurements are known, and the conductivity is not.
    places = random.uniform(size=(2, 60))
    noisy = exact(*places) + random.normal(0, 0.02, size=60)

    def both(net, t, x, *data):
        conductivity = xpnet.array_namespace(net.log_conductivity).exp(10 * net.log_conductivity)
        error = add((net(data[0], data[1]) - data[2]) ** 2) / len(noisy)
        return equation(net, t, x, conductivity) + 100 * error  # the data count for more

    found = solve(both, Rod(random), [*points, *on_device([*places, noisy])], steps)
    conductivity = math.exp(10 * float(xpnet.to_numpy(found.log_conductivity)))
    grid = numpy.meshgrid(*[numpy.linspace(0, 1, 101)] * 2, indexing="ij")
    learned = xpnet.to_numpy(net(*on_device(grid)))
    error = abs(off := learned - exact(*grid)).max()
    axes = (figure := Figure(figsize=(13, 4), layout="constrained")).subplots(1, 3)
    titles = "what the network found", f"how far off: at most {error:.4f}", f"found c = {conductivity:.3f}"
    for axis, values, title in zip(axes, (learned, off, learned), titles, strict=True):
        style = {"cmap": "RdBu_r", "vmin": -error, "vmax": error} if axis is axes[1] else {"cmap": "inferno"}
        figure.colorbar(axis.imshow(values.T, origin="lower", extent=(0, 1, 0, 1), aspect="auto", **style))
        axis.set(title=title, xlabel="time", ylabel="place")
    axes[2].scatter(*places, c=noisy, cmap="inferno", vmin=0, vmax=1, edgecolor="white")
    figure.savefig(options.output / "heat.png", dpi=110)
    print(f"heat.png in {options.output}: error {error:.4f} at most, conductivity {conductivity:.4f}")
    assert error < (0.03 if options.small else 0.005)
    assert abs(conductivity - CONDUCTIVITY) < (0.02 if options.small else 0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="train for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
