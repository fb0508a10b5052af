"""Tables: numbers and a category in, and three quantiles out, so that the answer comes with a band.

How far diabetes has gone after a year, from nine measurements and the sex of a patient. For each quantile q
the network learns the value that a share q of patients stays below: an error counts q times where the
truth is above, and 1 - q times where it is below (R. Koenker and G. Bassett, Regression Quantiles, 1978).
"""

import argparse
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import xpnet
from xpnet import callbacks, nn, optim

QUANTILES = 0.1, 0.5, 0.9


def quantile_loss(outputs, targets):
    xp, total = xpnet.array_namespace(outputs, targets), 0
    for i, q in enumerate(QUANTILES):
        error = targets[:, 0] - outputs[:, i]
        total = total + xp.mean(xp.maximum(q * error, (q - 1) * error))
    return total


class Patients(nn.Module):
    """From a table whose last column is a category to quantiles: (batch, 10) → (batch, 3)."""

    def __init__(self, seed):
        self.sex = nn.Embedding(2, 4, seed=seed)  # four learned numbers for each category
        self.layers = nn.Sequential(
            nn.Dense(9 + 4, 32, seed=seed), nn.SiLU(), nn.Dropout(0.3, seed=seed), nn.Dense(32, 3, seed=seed)
        )

    def __call__(self, x):
        xp = xpnet.array_namespace(x)
        category = self.sex(xp.astype(x[:, 9], xp.int64))
        low, step, rest = (self.layers(xp.concat([x[:, :9], category], axis=-1))[:, i] for i in range(3))
        # Each quantile lies above the one before, by a positive number.
        middle = low + xp.log(1 + xp.exp(step))
        return xp.stack([low, middle, middle + xp.log(1 + xp.exp(rest))], axis=-1)


def main(options):
    table, y = load_diabetes(return_X_y=True, scaled=False)
    sex = table[:, 1:2] - 1  # 0 or 1
    table, y = numpy.delete(table, 1, axis=1), y[:, None]
    parts = train_test_split(table, sex, y, test_size=0.3, random_state=0)
    x, x_test, sex, sex_test, y, y_test = parts
    scaler, y_scaler = StandardScaler().fit(x), StandardScaler().fit(y)
    x = numpy.hstack([scaler.transform(x), sex]).astype("float32")
    x_test = numpy.hstack([scaler.transform(x_test), sex_test]).astype("float32")

    random = numpy.random.default_rng(options.seed)
    net = Patients(random)
    history = xpnet.fit(
        net,
        x,
        y_scaler.transform(y),
        loss=quantile_loss,
        optimizer=optim.AdamW(2e-3, weight_decay=0.05),
        epochs=options.epochs or (100 if options.small else 300),
        batch_size=32,
        validation=0.2,
        callbacks=[callbacks.EarlyStopping(patience=30)],
        seed=random,
    )
    low, middle, high = y_scaler.inverse_transform(xpnet.to_numpy(xpnet.predict(net, x_test))).T
    truth = y_test[:, 0]
    inside = ((low <= truth) & (truth <= high)).mean()
    error, constant = abs(truth - middle).mean(), abs(truth - numpy.median(y)).mean()

    figure = Figure(figsize=(11, 5), layout="constrained")
    axis, order = figure.subplots(), numpy.argsort(middle)
    axis.fill_between(range(len(order)), low[order], high[order], alpha=0.3, label="8 of 10 should lie here")
    axis.plot(middle[order], label="the median that the network gives")
    axis.plot(truth[order], "k.", label=f"the truth: {inside:.0%} inside")
    axis.set(xlabel="patients, by what the network gives", ylabel="progression of diabetes")
    axis.legend()
    figure.savefig(options.output / "tables.png", dpi=110)
    print(f"device    {xpnet.device().spec}, {len(history['loss'])} epochs")
    print(f"band      {inside:.0%} of {len(truth)} other patients inside; 80% were aimed at")
    print(f"error     {error:.1f} on average, {constant:.1f} with the same number for all")
    print(f"files     tables.png in {options.output}")
    assert 0.68 <= inside <= 0.92
    assert error < 0.8 * constant


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
