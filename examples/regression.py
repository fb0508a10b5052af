"""A number to predict: how far diabetes has gone after a year, from ten measurements of a patient.

With 442 patients, the difficulty is not to learn too much. Without dropout and weight decay, the network
remembers its patients, and is worse on others than a linear model. With them, it is about as good.
"""

import argparse
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import xpnet
from xpnet import callbacks, losses, metrics, nn, optim


def main(options):
    x, y = load_diabetes(return_X_y=True)
    # Networks give an array (patients, outputs), here with one output, so y gets a second axis, too.
    x, x_test, y, y_test = train_test_split(x, y[:, None], test_size=0.25, random_state=0)

    # Networks learn best from numbers of size 1. Mean and spread are those of the training part.
    x_scaler, y_scaler = StandardScaler().fit(x), StandardScaler().fit(y)
    x, x_test = x_scaler.transform(x), x_scaler.transform(x_test)

    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        nn.Dense(10, 64, seed=random),
        nn.ReLU(),
        nn.Dropout(0.5, seed=random),  # in training, drops half of the numbers, so that none is relied on
        nn.Dense(64, 1, seed=random),
    )
    print(net.summary(input_shape=(10,)))

    # A fifth of the training part is not trained with. When the loss there has not fallen for 20 epochs, the
    # training ends, and the network gets back the weights of its best epoch.
    stopping = callbacks.EarlyStopping(patience=20)
    history = xpnet.fit(
        net,
        x,
        y_scaler.transform(y),
        loss=losses.mse,
        optimizer=optim.AdamW(3e-3, weight_decay=1.0),  # pulls the weights to 0
        epochs=options.epochs or (30 if options.small else 300),
        validation=0.2,
        metrics=[metrics.r2],
        callbacks=[stopping],
        seed=random,
    )
    history.plot(options.output / "regression_learning.png")

    predicted = y_scaler.inverse_transform(xpnet.to_numpy(xpnet.predict(net, x_test)))
    linear = LinearRegression().fit(x, y).predict(x_test)
    scores = {"network": metrics.r2(predicted, y_test), "linear model": metrics.r2(linear, y_test)}
    draw(y_test, {"network": predicted, "linear model": linear}, scores, options.output / "regression.png")

    print(f"device        {xpnet.device().spec}")
    print(f"training      {len(history)} epochs, the best was {stopping.best_epoch}")
    for name, score in scores.items():
        print(f"{name:12}  R² = {score:.3f} on {len(y_test)} patients that were kept for the test")
    print(f"pictures      regression.png, regression_learning.png in {options.output}")
    assert scores["network"] > scores["linear model"] - 0.05


def draw(y, predictions, scores, path):
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for (upper, lower), (name, predicted) in zip(axes.T, predictions.items(), strict=True):
        upper.plot([0, 350], [0, 350], color="gray", linewidth=1)
        upper.scatter(predicted, y, s=16, alpha=0.7)
        upper.set(title=f"{name}: R² = {scores[name]:.3f}")
        lower.axhline(0, color="gray", linewidth=1)
        lower.scatter(predicted, y - predicted, s=16, alpha=0.7)
        lower.set(xlabel="predicted progression")
    axes[0, 0].set(ylabel="true progression")
    axes[1, 0].set(ylabel="true − predicted")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int, help="at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the pictures go")
    parser.add_argument("--small", action="store_true", help="train for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
