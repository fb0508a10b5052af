"""Handwritten digits in several processes: ``mpiexec -n 2 python examples/processes.py``.

Each process computes with its share of every batch, and their gradients, added up, move all of their networks
alike. So the training is that of one process, in less time where the network is large; this one is small.
"""

import argparse
import os
import time
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import xpnet
from xpnet import losses, metrics, nn, optim

group = xpnet.distributed.world()  # of this process alone, if it was not started by mpiexec


def train(options, group):
    # All processes have all examples, and the same seeds; `fit` lets each read its own.
    x, y = load_digits(return_X_y=True)
    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        nn.Dense(64, 128, seed=random, dtype="float64"),
        nn.BatchNorm(128, dtype="float64"),  # over the batch of all
        nn.ReLU(),
        nn.Dropout(0.2, seed=random),  # each draws its part of the same random numbers
        nn.Dense(128, 10, seed=random, dtype="float64"),
    )
    start = time.perf_counter()
    history = xpnet.fit(
        net,
        x / 16,
        y,
        loss=losses.cross_entropy,
        optimizer=optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(1e-3)),
        epochs=options.epochs or (5 if options.small else 20),
        batch_size=100,  # of all together: the last batch of an epoch has 42
        validation=0.2,
        metrics=[metrics.accuracy],
        seed=random,
        group=group,
    )
    return history, time.perf_counter() - start


def main(options):
    several, seconds = train(options, group)
    if group.rank > 0:
        return  # the others wait for rank 0 at the end of the program
    alone, seconds_alone = train(options, None)

    differences = [abs(a - b) for a, b in zip(several["loss"], alone["loss"], strict=True)]
    draw(several, alone, differences, options.output / "processes.png")

    print(f"processes     {group.size}", "" if group.size > 1 else "(mpiexec -n 2 python processes.py)")
    print(f"training      {seconds:.1f} s, {seconds_alone:.1f} s in one process")
    print(f"accuracy      {several['validation_accuracy'][-1]:.3f} on digits that were put aside")
    print(f"loss          differs from that of one process by at most {max(differences):.1e}")
    print(f"picture       processes.png in {options.output}")
    assert max(differences) < 1e-6
    assert several["validation_accuracy"][-1] > 0.9


def draw(several, alone, differences, path):
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(alone) + 1)
    for name, label in (("loss", "training"), ("validation_loss", "put aside")):
        (line,) = left.plot(epochs, alone[name], linewidth=5, alpha=0.4, label=f"{label}, one process")
        color = line.get_color()
        left.plot(epochs, several[name], "--", color=color, label=f"{label}, {group.size} together")
    left.set(xlabel="epoch", ylabel="loss", title="The same curve")
    left.legend()
    # Rounding alone: a double-precision number of size 1 is known to 1e-16.
    right.semilogy(epochs, [max(difference, 1e-17) for difference in differences], "o-")
    right.set(xlabel="epoch", title="The difference of the training losses", ylim=(1e-17, 1e-6))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int, help="so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the picture goes")
    parser.add_argument("--small", action="store_true", help="train for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
