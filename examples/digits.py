"""Handwritten digits: train a network, test it, save it, and look at its mistakes."""

import argparse
import functools
import math
import os
import time
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import xpnet
from xpnet import losses, metrics, nn, optim


def main(options):
    # 1,797 digits of 8 × 8 pixels, each pixel from 0 (white) to 16 (black). A quarter is kept for the test.
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x / 16, y, test_size=0.25, stratify=y, random_state=0)

    # One generator draws the weights of all layers, and the order of the digits in training.
    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        nn.Dense(64, 128, seed=random),
        nn.ReLU(),
        nn.Dense(128, 128, seed=random),
        nn.ReLU(),
        nn.Dense(128, 10, seed=random),  # a score for each of the ten digits
    )
    print(net.summary(input_shape=(64,)))

    epochs = options.epochs or (5 if options.small else 30)
    rate = optim.cosine(2e-3, steps=epochs * math.ceil(len(x) / 32))  # large steps first, then smaller ones
    start = time.perf_counter()
    history = xpnet.fit(
        net,
        x,
        y,
        loss=functools.partial(losses.cross_entropy, label_smoothing=0.1),  # teaches to doubt a little
        optimizer=optim.Adam(rate),
        epochs=epochs,
        batch_size=32,
        validation=(x_test, y_test),  # only watched: the training does not use it
        metrics=[metrics.accuracy],
        seed=random,
    )
    seconds = time.perf_counter() - start

    probabilities = xpnet.to_numpy(nn.Softmax()(xpnet.predict(net, x_test)))
    accuracy = (probabilities.argmax(axis=1) == y_test).mean()
    xpnet.save(net, options.output / "digits.safetensors")
    reloaded = xpnet.load(options.output / "digits.safetensors")
    again = xpnet.to_numpy(nn.Softmax()(xpnet.predict(reloaded, x_test)))
    assert abs(again - probabilities).max() < 1e-6

    history.plot(options.output / "digits_learning.png")
    draw_mistakes(x_test, y_test, probabilities, options.output / "digits_mistakes.png")
    print(f"device    {xpnet.device().spec}")
    print(f"accuracy  {accuracy:.4f} on {len(y_test)} digits that the network had not seen")
    print(f"training  {seconds:.1f} seconds for {epochs} epochs")
    print(f"files     digits.safetensors, digits_learning.png, digits_mistakes.png in {options.output}")
    assert accuracy >= (0.9 if options.small else 0.97)


def draw_mistakes(images, labels, probabilities, path):
    guesses = probabilities.argmax(axis=1)
    wrong = (guesses != labels).nonzero()[0]
    rows = max(1, math.ceil(min(len(wrong), 12) / 4))
    figure = Figure(figsize=(13, 0.8 + 2 * rows), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(labels)} digits are taken for another (at most twelve are shown)")
    axes = figure.subplots(rows, 8, squeeze=False)
    for axis in axes.flat[2 * len(wrong) :]:
        axis.remove()
    for index, left, right in zip(wrong, axes.flat[::2], axes.flat[1::2], strict=False):
        label, guess = labels[index], guesses[index]
        left.imshow(images[index].reshape(8, 8), cmap="gray_r")
        left.set_title(f"this is a {label}", color="tab:blue")
        left.set_axis_off()
        colors = ["tab:blue" if i == label else "tab:red" if i == guess else "gray" for i in range(10)]
        right.bar(range(10), probabilities[index], color=colors)
        right.set_title(f"taken for a {guess}", color="tab:red")
        right.set(xticks=range(10), ylim=(0, 1), yticks=(0, 1), ylabel="probability")
    figure.savefig(path, dpi=120)


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
