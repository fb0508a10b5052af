"""Fine-tuning: a network that PyTorch trained on other digits, and a few examples of the new ones.

It knows small pictures of MNIST: `files/mnist_torch.py` has trained it, and its file is read without PyTorch.
Those of scikit-learn are from other people, and made in another way. How far does it get, and how far a
network that begins with nothing?
"""

import argparse
import os
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import xpnet
from xpnet import losses, nn, optim

FILE = Path(__file__).parent / "files" / "mnist.pt"


def network(random):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False, seed=random),
        nn.BatchNorm(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False, seed=random),
        nn.BatchNorm(32),
        nn.ReLU(),
        nn.MaxPool(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False, seed=random),
        nn.BatchNorm(32),
        nn.ReLU(),
        nn.MaxPool(2),
        nn.Flatten(),
        head(),
    )


def head():
    return nn.Dense(128, 10, weight_init=nn.initializers.zeros)  # begins without an opinion


def from_scratch(random):
    return network(random), optim.Adam(3e-3)


def new_head(random):
    net = xpnet.load_torch(FILE, into=network(random))
    net = nn.Sequential(*net[:-1], head())
    net.freeze()
    net[-1].unfreeze()
    return net, optim.Adam(3e-3)


def fine_tuned(random):
    net, _ = new_head(random)
    net[7].unfreeze()  # the last convolution moves, too, in small steps
    return net, optim.groups(("layers.7", {"learning_rate": 3e-4}), optim.Adam(3e-3))


WAYS = {"from scratch": from_scratch, "a new last layer": new_head, "fine-tuned": fine_tuned}


def accuracy(net, x, y):
    return (xpnet.to_numpy(xpnet.predict(net, x)).argmax(axis=-1) == y).mean()


def main(options):
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1)
    numbers, draws, steps = ((1, 5), 2, 60) if options.small else ((1, 2, 5, 10, 20), 5, 100)
    found = {name: numpy.zeros((len(numbers), draws)) for name in WAYS}
    for draw in range(draws):
        order = numpy.random.default_rng(options.seed + draw).permutation(len(x))
        for row, number in enumerate(numbers):
            # All get the same examples, so many of each digit, as many steps, and all others as the test.
            chosen = numpy.concatenate([order[y[order] == digit][:number] for digit in range(10)])
            rest = numpy.setdiff1d(order, chosen)
            for name, make in WAYS.items():
                net, optimizer = make(numpy.random.default_rng(draw))
                settings = {"epochs": steps // -(-len(chosen) // 32), "batch_size": 32, "seed": draw}
                settings |= {"loss": losses.cross_entropy, "optimizer": optimizer, "progress": False}
                xpnet.fit(net, x[chosen], y[chosen], **settings)
                found[name][row, draw] = accuracy(net, x[rest], y[rest])
        print(f"draw {draw + 1} of {draws}", flush=True)
    as_it_came = accuracy(xpnet.load_torch(FILE, into=network(0)), x, y)
    print("examples of each digit  " + "  ".join(f"{number:5}" for number in numbers))
    for name, accuracies in {"as it came": numpy.full((1, 1), as_it_came), **found}.items():
        print(f"{name:22}  " + "  ".join(f"{mean:5.3f}" for mean in accuracies.mean(axis=1)))
    draw_picture(numbers, found, as_it_came, options.output / "finetune.png")
    print(f"file  finetune.png in {options.output}")
    assert found["fine-tuned"][0].mean() > found["from scratch"][0].mean() + 0.05


def draw_picture(numbers, found, as_it_came, path):
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    axis.axhline(as_it_came, color="black", linestyle=":", label="as it came from PyTorch")
    for color, (name, accuracies) in zip(("tab:gray", "tab:blue", "tab:red"), found.items(), strict=True):
        axis.plot(numbers, accuracies.mean(axis=1), "o-", color=color, label=name)
        axis.fill_between(numbers, accuracies.min(axis=1), accuracies.max(axis=1), color=color, alpha=0.15)
    axis.set(xscale="log", xticks=numbers, xticklabels=numbers, xlabel="examples of each digit")
    axis.set(ylabel="share of all other digits that is recognized (mean, worst, best)")
    axis.minorticks_off()
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="fewer draws and steps")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
