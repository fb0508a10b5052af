"""A training step of a convolutional network and of a transformer, beside PyTorch, and how long recording is.

Forward, cross-entropy, backward and Adam, in float32, on a batch in memory, with one thread and with two. All
take turns, with a pause and a step that is not counted before each turn, as threads of PyTorch and BLAS wait
actively for a while.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

THREADS = 1, 2
os.environ |= {f"{name}_NUM_THREADS": str(max(THREADS)) for name in ("OPENBLAS", "OMP", "MKL")}

import numpy
from machine import description, keep

import xpnet
from xpnet import losses, nn, optim

random = numpy.random.default_rng(0)
ENTRIES, WIDTH, HEADS, LENGTH, BLOCKS = 256, 128, 4, 128, 4
AIMS = {"convolutions": 1.5, "transformer": 1.3}  # at most this part of PyTorch's time
GAINS = {"convolutions": 1.5, "transformer": 1.6}  # so many times as fast with a second thread, at least
PAUSE = 0.3


def convolutions():
    """28 × 28 images in batches of 128, convolutions of 16 and 32 channels."""
    import torch
    from torch import nn as tn

    x, y = random.normal(size=(128, 28, 28, 1)).astype("float32"), random.integers(0, 10, 128)
    ours = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding="same", seed=0), nn.ReLU(), nn.MaxPool(2)),
        *(nn.Conv2d(16, 32, 3, padding="same", seed=1), nn.ReLU(), nn.MaxPool(2)),
        *(nn.Flatten(), nn.Dense(7 * 7 * 32, 10, seed=2)),
    )
    theirs = tn.Sequential(
        *(tn.Conv2d(1, 16, 3, padding="same"), tn.ReLU(), tn.MaxPool2d(2)),
        *(tn.Conv2d(16, 32, 3, padding="same"), tn.ReLU(), tn.MaxPool2d(2)),
        *(tn.Flatten(), tn.Linear(7 * 7 * 32, 10)),
    )
    return (ours, x, y), (theirs, torch.tensor(x).movedim(-1, 1).contiguous(), torch.tensor(y))


def transformer():
    """Sequences of 128 bytes in batches of 16, 4 blocks of a width of 128, which see what is before them."""
    import torch
    from torch import nn as tn

    x, y = random.integers(0, ENTRIES, (2, 16, LENGTH))
    blocks = [nn.TransformerBlock(WIDTH, HEADS, causal=True, seed=i) for i in range(BLOCKS)]
    ends = nn.LayerNorm(WIDTH), nn.Dense(WIDTH, ENTRIES, seed=5), nn.Lambda(rows_of)
    ours = nn.Sequential(nn.Embedding(ENTRIES, WIDTH, seed=6), *blocks, *ends)

    class Block(tn.Module):
        def __init__(self):
            super().__init__()
            self.norms = tn.ModuleList(tn.LayerNorm(WIDTH) for _ in range(2))
            self.inputs, self.output = tn.Linear(WIDTH, 3 * WIDTH), tn.Linear(WIDTH, WIDTH)
            self.expand, self.contract = tn.Linear(WIDTH, 4 * WIDTH), tn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            parts = self.inputs(self.norms[0](x)).chunk(3, -1)
            heads = [part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts]
            y = tn.functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.output(y.transpose(1, 2).flatten(2))
            y = tn.functional.gelu(self.expand(self.norms[1](x)), approximate="tanh")
            return x + self.contract(y)

    ends = tn.LayerNorm(WIDTH), tn.Linear(WIDTH, ENTRIES), tn.Flatten(0, 1)
    theirs = tn.Sequential(tn.Embedding(ENTRIES, WIDTH), *(Block() for _ in range(BLOCKS)), *ends)
    y = y.reshape(-1)
    return (ours, x, y), (theirs, torch.tensor(x), torch.tensor(y))


def rows_of(x):
    return xpnet.array_namespace(x).reshape(x, (-1, x.shape[-1]))


def our_step(net, x, y, device):
    net, x, y = xpnet.to_device((net, x, y), device)
    optimizer = optim.Adam(1e-3)
    state = optimizer.init(net)

    def loss(net, x, y):
        return losses.cross_entropy(net(x), y)

    def step(net, state, x, y):
        value, gradient = xpnet.value_and_grad(loss)(net, x, y)
        return *optimizer.update(gradient, state, net), value

    step = xpnet.jit(step, donate=("net", "state"))

    def run():
        nonlocal net, state
        net, state, _ = step(net, state, x, y)

    return run


def their_step(net, x, y, device):
    import torch

    net, x, y = net.to(device), x.to(device), y.to(device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def run():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run


def wait(device):
    """Wait for what is computed on the device by either library, as both use its default stream."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def with_threads(step, number):
    """Return what prepares a turn with so many threads, and does a step of it."""
    import torch

    def prepare():
        xpnet.set_threads(number)
        torch.set_num_threads(number)

    return prepare, step


def turns(ways, rounds, seconds, device):
    """Return the times of the steps of each, in milliseconds: on a GPU, of a turn the mean."""
    times = [[] for _ in ways]
    for _ in range(rounds):
        for (prepare, step), found in zip(ways, times, strict=True):
            prepare()
            time.sleep(PAUSE)
            step()
            wait(device)
            together = 1
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                for _ in range(together):
                    step()
                wait(device)
                taken = (time.perf_counter() - start) / together
                if together == 1 and device != "cpu":
                    together = max(1, round(seconds / taken))  # and what one step took, alone, does not count
                else:
                    found.append(1e3 * taken)
    return times


def batched(times):
    """Return the times of xpnet and PyTorch with each number of threads."""
    return zip(times[::2], times[1::2], strict=True)


def recording(make, length, device):
    """Return the seconds that the first step with a recurrent layer takes, once its loops are compiled."""
    net, x = make(32, 64, seed=0), numpy.ones((16, length, 32), dtype="float32")
    net, x = xpnet.to_device((net, x), device)
    step = xpnet.jit(xpnet.grad(lambda net, x: xpnet.array_namespace(x).mean(net(x) ** 2)))
    start = time.perf_counter()
    step(net, x)
    wait(device)
    return time.perf_counter() - start


def main():
    try:
        import torch  # noqa: F401 - to say so before anything is measured
    except ModuleNotFoundError as error:
        sys.exit(f"PyTorch is what this is compared with, and it is missing: {error}. Run pip install torch.")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--json", type=Path, help="a folder for the figures")
    options = parser.parse_args()
    figures = {}

    def note(name, found):
        figures[name] = found
        if options.json:  # each time, as the next one may fail
            keep(
                options.json / f"networks-{options.device}.json",
                description(options.device) | {"milliseconds": figures},
            )

    numbers = THREADS if options.device == "cpu" else THREADS[-1:]
    for case in (convolutions, transformer):
        ours, theirs = case()
        steps = our_step(*ours, options.device), their_step(*theirs, options.device)
        ways = [with_threads(step, number) for number in numbers for step in steps]
        times = turns(ways, options.rounds, options.seconds, options.device)
        medians = {}
        for number, some in zip(numbers, batched(times), strict=True):
            name = case.__name__ if number == numbers[-1] else f"{case.__name__}, {number} thread"
            one, other = medians[number] = [statistics.median(each) for each in some]
            least = [min(each) for each in some]
            note(name, {"xpnet": one, "torch": other, "least": least})
            print(
                f"{name:<24} xpnet {one:6.1f} ms, torch {other:6.1f} ms: {one / other:.2f}, "
                f"aim {AIMS[case.__name__]} (least {least[0] / least[1]:.2f})"
            )
        if len(numbers) > 1:
            gains = [one / two for one, two in zip(medians[1], medians[2], strict=True)]
            print(
                f"    a second thread: xpnet {gains[0]:.2f} times as fast, aim {GAINS[case.__name__]}, "
                f"torch {gains[1]:.2f}"
            )
    for make in (nn.LSTM, nn.GRU):
        recording(make, 5, options.device)
        note(make.__name__, {length: recording(make, length, options.device) for length in (5, 50, 500)})
        texts = (f"{length} positions {seconds:.2f} s" for length, seconds in figures[make.__name__].items())
        print(f"first step of {make.__name__}: {', '.join(texts)}")


if __name__ == "__main__":
    main()
