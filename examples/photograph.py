"""RGB: a network that learns a photograph. It is told a place in the image, and answers with the colour.

Dense layers alone learn slow changes only. So a place is first told as waves: sines and cosines of its
coordinates in many directions and lengths (M. Tancik et al., Fourier Features Let Networks Learn High
Frequency Functions in Low Dimensional Domains, 2020). The result has no pixels: it can be asked anywhere.
"""

import argparse
import math
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images

import xpnet
from xpnet import losses, nn, optim


class Waves(nn.Module):
    """Waves of random directions: (..., 2) → (..., 2 * number). They are drawn once, and not trained."""

    state = ("waves",)

    def __init__(self, number, spread, seed):
        waves = seed.normal(0, 2 * math.pi * spread, (2, number))
        self.waves = xpnet.asarray(waves, device=xpnet.device(), dtype="float32")

    def __call__(self, places):
        xp = xpnet.array_namespace(places, self.waves)
        angles = places @ self.waves
        return xp.concat([xp.sin(angles), xp.cos(angles)], axis=-1)


def grid(height, width):
    """Return the coordinates of pixels, from 0 to 1: an array of shape (height * width, 2)."""
    rows, columns = (numpy.arange(height) + 0.5) / height, (numpy.arange(width) + 0.5) / width
    return numpy.stack(numpy.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype("float32")


def main(options):
    photograph = load_sample_images().images[0]  # of 427 × 640 pixels
    step = 6 if options.small else 3
    truth = (photograph[::step, ::step] / 255).astype("float32")
    height, width, _ = truth.shape
    places, colours = grid(height, width), truth.reshape(-1, 3)

    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        Waves(128, spread=8, seed=random),
        nn.Dense(256, 192, seed=random),
        nn.ReLU(),
        nn.Dense(192, 192, seed=random),
        nn.ReLU(),
        nn.Dense(192, 3, seed=random),
        nn.Sigmoid(),  # a colour is red, green and blue, each from 0 to 1
    )
    print(net.summary(input_shape=(2,)))

    epochs = options.epochs or (30 if options.small else 80)
    history = xpnet.fit(
        net,
        places,
        colours,
        loss=losses.mse,
        optimizer=optim.Adam(optim.cosine(5e-3, steps=epochs * math.ceil(len(places) / 512))),
        epochs=epochs,
        batch_size=512,
        seed=random,
    )
    learned = xpnet.to_numpy(xpnet.predict(net, places)).reshape(truth.shape)
    ratio = -10 * math.log10(((learned - truth) ** 2).mean())  # in decibels: 20 is blurred, 30 is good
    finer = xpnet.to_numpy(xpnet.predict(net, grid(2 * height, 2 * width))).reshape(2 * height, 2 * width, 3)
    draw(truth, learned, finer, history, ratio, options.output / "photograph.png")
    print(f"device    {xpnet.device().spec}")
    print(f"PSNR      {ratio:.1f} dB for {width} × {height} pixels")
    print(f"files     photograph.png in {options.output}")
    assert ratio >= (24 if options.small else 28)


def draw(truth, learned, finer, history, ratio, path):
    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplots(2, 2).flat
    titles = ["the photograph", f"what the network learned: {ratio:.1f} dB", "asked for twice as many pixels"]
    for axis, image, title in zip(axes, (truth, learned, finer), titles, strict=False):
        axis.imshow(image.clip(0, 1))
        axis.set_title(title)
        axis.set_axis_off()
    axes[3].plot(-10 * numpy.log10(history["loss"]))
    axes[3].set(title="how it learned", xlabel="epoch", ylabel="PSNR in dB", box_aspect=2 / 3)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="fewer pixels, and a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
