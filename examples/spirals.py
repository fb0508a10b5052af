"""Playing with a network: how its decision between two spirals grows as it learns, as an animation."""

import argparse
import math
import os
from pathlib import Path

import numpy
from matplotlib import colormaps
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

import xpnet
from xpnet import callbacks, losses, metrics, nn, optim

TICKS = numpy.linspace(-1.2, 1.2, 150, dtype="float32")
PLANE = numpy.stack(numpy.meshgrid(TICKS, TICKS), axis=-1)  # all places that are asked about: (150, 150, 2)


def spirals(number, turns, random):
    """Return places on two spirals, with noise, of shape (2 * number, 2), and which spiral each is of."""
    radius = numpy.sqrt(random.uniform(0.005, 1, number))
    angle = 2 * math.pi * turns * radius
    arm = numpy.stack([radius * numpy.cos(angle), radius * numpy.sin(angle)], axis=-1)
    places = numpy.concatenate([arm, -arm]) + random.normal(0, 0.02, (2 * number, 2))
    return places, numpy.repeat([0, 1], number)[:, None]


class Film(callbacks.Callback):
    """Takes a picture of what the network answers all over the plane, more often at first than later."""

    def __init__(self, x, y, path, epochs, pictures):
        self.path, self.writer = path, PillowWriter(fps=12)
        self.epochs = {round(epochs ** (i / pictures)) for i in range(pictures + 1)}
        self.figure = Figure(figsize=(9, 5), layout="constrained")
        left, right = self.figure.subplots(1, 2, width_ratios=(5, 4))
        colors = {"cmap": colormaps["RdBu"].resampled(15), "vmin": -0.3, "vmax": 1.3}  # few: a small file
        self.image = left.imshow(PLANE[:, :, 0], origin="lower", extent=(-1.2, 1.2, -1.2, 1.2), **colors)
        left.scatter(*x.T, c=y[:, 0], cmap="RdBu", edgecolor="white", linewidth=0.5, s=20)
        left.set_axis_off()
        self.title = left.set_title("")
        self.curve = right.plot([], [], color="tab:gray")[0]
        right.set(xscale="log", xlim=(1, epochs), ylim=(0, 0.8), xlabel="epoch", ylabel="loss")

    def start(self, _run):
        self.writer.setup(self.figure, self.path, dpi=72)

    def epoch_end(self, run):
        if run.epoch in self.epochs:
            scores = xpnet.predict(run.net, PLANE.reshape(-1, 2))
            self.image.set_data(xpnet.to_numpy(nn.Sigmoid()(scores)).reshape(PLANE.shape[:2]))
            self.title.set_text(f"epoch {run.epoch}: {run.history['binary_accuracy'][-1]:.0%} are right")
            self.curve.set_data(range(1, run.epoch + 1), run.history["loss"])
            self.writer.grab_frame()

    def end(self, _run):
        for _ in range(24):  # the last picture stays for a while
            self.writer.grab_frame()
        self.writer.finish()


def main(options):
    random = numpy.random.default_rng(options.seed)
    turns = 1 if options.small else 2
    x, y = spirals(200, turns, random)
    x_test, y_test = spirals(1000, turns, random)
    net = nn.Sequential(
        nn.Dense(2, 32, seed=random),
        nn.Tanh(),
        nn.Dense(32, 32, seed=random),
        nn.Tanh(),
        nn.Dense(32, 1, seed=random),  # above 0 for the blue spiral, below 0 for the red
    )
    epochs = options.epochs or (150 if options.small else 1000)
    path = options.output / "spirals.gif"
    xpnet.fit(
        net,
        x,
        y,
        loss=losses.binary_cross_entropy,
        optimizer=optim.Adam(optim.cosine(1e-2, steps=epochs * math.ceil(len(x) / 64))),
        epochs=epochs,
        batch_size=64,
        metrics=[metrics.binary_accuracy],
        callbacks=[Film(x, y, path, epochs, pictures=20 if options.small else 70)],
        seed=random,
    )
    accuracy = metrics.binary_accuracy(xpnet.to_numpy(xpnet.predict(net, x_test)), y_test)
    print(f"device    {xpnet.device().spec}")
    print(f"accuracy  {accuracy:.1%} of {len(x_test)} other places")
    print(f"files     spirals.gif in {options.output}")
    assert accuracy > (0.9 if options.small else 0.98)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the animation goes")
    parser.add_argument("--small", action="store_true", help="an easier task, and a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
