"""Tables: is a tumour malignant? 30 measurements of the nuclei of its cells in, a probability out.

What made the network say so is told by gradients: how its answer changes with each measurement.
"""

import argparse
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import xpnet
from xpnet import losses, metrics, nn, optim


def main(options):
    data = load_breast_cancer()
    malignant = 1 - data.target
    parts = train_test_split(data.data, malignant, test_size=0.4, stratify=malignant, random_state=0)
    x, x_test, y, y_test = parts
    scaler = StandardScaler().fit(x)  # networks learn best from numbers of size 1
    x, x_test = scaler.transform(x), scaler.transform(x_test)

    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        nn.Dense(30, 32, seed=random),
        nn.SiLU(),
        nn.Dropout(0.2, seed=random),
        nn.Dense(32, 1, seed=random),  # a score: above 0 for malignant, below 0 for benign
    )
    xpnet.fit(
        net,
        x,
        y[:, None],
        loss=losses.binary_cross_entropy,
        optimizer=optim.AdamW(3e-3, weight_decay=1.0),
        epochs=options.epochs or (20 if options.small else 60),
        batch_size=32,
        validation=(x_test, y_test[:, None]),  # only watched: the training does not use it
        metrics=[metrics.binary_accuracy],
        seed=random,
    )
    probability = xpnet.to_numpy(nn.Sigmoid()(xpnet.predict(net, x_test)))[:, 0]
    linear = LogisticRegression().fit(x, y).predict_proba(x_test)[:, 1]
    accuracy, accuracy_linear = (((answer > 0.5) == y_test).mean() for answer in (probability, linear))
    # How often a malignant tumour gets a higher probability than a benign one.
    order, order_linear = (roc_auc_score(y_test, answer) for answer in (probability, linear))

    def total(x, net):  # each score depends on its own row alone
        return xpnet.array_namespace(x).sum(net(x))

    slopes = xpnet.grad(total)(xpnet.asarray(x_test, device=xpnet.device(), dtype="float32"), net.eval())
    slopes = xpnet.to_numpy(slopes).mean(axis=0)
    draw(probability, y_test, accuracy, slopes, data.feature_names, options.output / "cancer.png")
    print(f"device          {xpnet.device().spec}")
    print(
        f"network         {accuracy:.1%} of {len(y_test)} other tumours right, {order:.4f} in the right order"
    )
    print(f"linear model    {accuracy_linear:.1%} right, {order_linear:.4f} in the right order")
    print(f"files           cancer.png in {options.output}")
    assert accuracy >= 0.94
    assert order > order_linear - 0.005


def draw(probability, malignant, accuracy, slopes, names, path):
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    groups = {"benign": probability[malignant == 0], "malignant": probability[malignant == 1]}
    left.hist(groups.values(), bins=20, range=(0, 1), color=["tab:blue", "tab:red"], label=list(groups))
    left.axvline(0.5, color="gray", linestyle="--")
    left.set(xlabel="probability that the tumour is malignant", ylabel="tumours", yscale="log")
    left.set(title=f"tumours that it had not seen: {accuracy:.1%} on the right side")
    left.legend(frameon=False, loc="upper center")

    # Ten properties of nuclei: the mean of all, its error, and the mean of the three worst.
    limit, properties = abs(slopes).max(), [name.removeprefix("mean ") for name in names[:10]]
    image = right.imshow(slopes.reshape(3, 10).T, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    right.set_xticks(range(3), ["mean", "error", "worst"])
    right.set_yticks(range(10), properties)
    right.set(title="what speaks for malignant (red)")
    figure.colorbar(image, label="change of the score with one deviation more")
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
