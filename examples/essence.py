"""From one neuron to a network that has learned something: five steps, each printed and checked."""

import argparse
import itertools
import os
from pathlib import Path

from matplotlib.figure import Figure

import xpnet
from xpnet.nn import Dense, ReLU, Sequential, initializers


def array(values):
    return xpnet.asarray(values, dtype="float32")  # on the device that --device names


def show(step, result, expected):
    print(f"\n{step}\n{xpnet.to_numpy(result)}")
    assert abs(xpnet.to_numpy(result - array(expected))).max() < 1e-4


def lesson(steps, path):
    # A neuron multiplies each input by a weight, and adds it all up, with a number of its own, the bias.
    show("1. A neuron", array([1, 2, 3, 2.5]) @ array([0.2, -0.27, -0.5, 1.0]) + 2.0, 2.66)

    # A layer is several neurons with the same inputs. Its outputs are the inputs of the next layer.
    # Here a row of W1 is a neuron, hence W1.T. In xpnet a column is one: Dense computes x @ weight + bias.
    x = array([[1, 2, 3, 2.5], [2.0, 5.0, -1.0, 2.0], [-1.5, 2.7, 3.3, -0.8]])
    W1 = array([[-0.2, -0.27, -0.5, 1.0], [0.5, 0.91, -0.5, -0.33], [0.2, 0.8, -0.5, 1.0]])
    W2 = array([[0.2, -0.27, -0.5], [0.5, 0.91, -0.5], [-0.44, 0.8, -0.5]])
    outputs = (x @ W1.T + array([2, 3, 0.5])) @ W2.T + array([-1, 3, 0.5])
    expected = [[-3.00665, 5.20545, 0.2516], [-6.4153, 8.3099, 2.302], [-2.02747, 5.62761, 3.58856]]
    show("2. Two layers of three neurons, on three examples at once", outputs, expected)

    # ReLU makes negative numbers 0. Without such a bend in between, two layers could do no more than one.
    show("3. ReLU", ReLU()(array([0, 2, -1, 3.3, 2.7, 1.1, 2.2, -100])), [0, 2, 0, 3.3, 2.7, 1.1, 2.2, 0])

    # A new layer has random weights, here 0.10 times numbers from 0 to 1, and biases of 0.
    layer = Dense(4, 5, weight_init=initializers.uniform(0, 0.1), seed=0)
    show("4. A layer of five neurons, then ReLU", ReLU()(layer(x)), x @ layer.weight)
    try:
        Dense(2, 5)(x)
    except ValueError as error:
        message = str(error)
    print(f"A layer made for 2 inputs says: {message}\n")
    assert "expected 2 features on the last axis, received 4" in message

    # The task to learn: answer 1 for points that lie inside a circle, and 0 for those outside.
    x = array(list(itertools.product([step / 6 - 1 for step in range(13)], repeat=2)))
    y = array(x[:, :1] ** 2 + x[:, 1:] ** 2 < 0.5)
    net = Sequential(Dense(2, 8, seed=0), ReLU(), Dense(8, 1, seed=1))

    def loss(net):  # how far the answers are from the right ones: squared, on average
        error = net(x) - y
        return xpnet.array_namespace(error).mean(error**2)

    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    draw(axes[:, 0], net, x, y, "before")
    for step in range(1, steps + 1):
        value, gradient = xpnet.value_and_grad(loss)(net)  # the gradient: how each weight changes the loss
        net = xpnet.tree.map(lambda weight, slope: weight - 0.1 * slope, net, gradient)  # a step downhill
        if step in (1, steps // 10, steps):
            print(f"5. Learning, step {step:4}: loss {float(value):.3f}")
    draw(axes[:, 1], net, x, y, f"after {steps} steps")
    figure.savefig(path, dpi=120)
    assert float(value) < 0.12
    print(f"The network before and after: {path}")


def draw(axes, net, x, y, title):  # above the network, below its answers at all points of the plane
    places = [[(i, -(row + 1) / (size + 1)) for row in range(size)] for i, size in enumerate((2, 8, 1))]
    for layer, left, right in ((net[0], places[0], places[1]), (net[2], places[1], places[2])):
        weights = xpnet.to_numpy(layer.weight).flat
        for (start, end), weight in zip(itertools.product(left, right), weights, strict=True):
            color = "tab:blue" if weight > 0 else "tab:red"
            axes[0].plot(*zip(start, end, strict=True), color=color, linewidth=5 * abs(weight), alpha=0.7)
        axes[0].scatter(*zip(*left, *right, strict=True), s=300, c="white", edgecolors="black", zorder=3)
    axes[0].set_xticks(range(3), ["2 inputs", "8 neurons with ReLU", "1 output"])
    axes[0].set(title=f"{title}\nweights: blue above 0, red below, thick if large", yticks=(), frame_on=False)
    ticks = [step / 50 - 1.2 for step in range(121)]
    answers = xpnet.to_numpy(net(array([(a, b) for b in ticks for a in ticks]))).reshape(121, 121)
    axes[1].pcolormesh(ticks, ticks, answers, cmap="RdBu", vmin=-0.5, vmax=1.5)
    axes[1].contour(ticks, ticks, answers, levels=[0.5], colors="black")
    places, colors = xpnet.to_numpy(x).T, xpnet.to_numpy(y)[:, 0]
    axes[1].scatter(*places, s=20, c=colors, cmap="coolwarm_r", edgecolors="white")
    axes[1].set(title="answers: blue 1, red 0; dots: the truth", xlabel="input 1", ylabel="input 2", aspect=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int, help="how many steps to learn for")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the picture goes")
    parser.add_argument("--small", action="store_true", help="learn for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        lesson(options.epochs or (300 if options.small else 2000), options.output / "essence.png")
