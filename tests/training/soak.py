"""Long runs: memory stays flat, and the loss finite.

``python tests/training/soak.py 10_000 1_000_000`` does so many fits and so many steps (`nox -s soak`). A
small part is part of the suite.
"""

import gc
import itertools
import math
import os
import sys
from pathlib import Path

import numpy as np

import xpnet
from xpnet import losses, nn, optim

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident():
    """Return the bytes of memory that the process has, without what is free to be collected."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def network(seed=0):
    return nn.Sequential(
        nn.Dense(4, 8, seed=seed), nn.ReLU(), nn.Dropout(0.1, seed=seed), nn.Dense(8, 2, seed=seed)
    )


def data(examples):
    random = np.random.default_rng(0)
    x = random.normal(size=(examples, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64")


def fits(number):
    """Train one network after the other; return the growth of memory behind a first quarter."""
    x, y = data(20)
    memory, objects = [], []
    for index in range(number):
        if index % (number // 4) == 0:
            memory.append(resident())
            objects.append(len(gc.get_objects()))
        net = network(index)
        history = xpnet.fit(
            net, x, y, loss=losses.cross_entropy, optimizer=optim.Adam(0.01), epochs=1, batch_size=8,
            seed=index, validation=0.2, metrics=[xpnet.metrics.accuracy], jit=index % 2 == 0, progress=False,
        )  # fmt: skip
        xpnet.predict(net, x)
        assert math.isfinite(history["loss"][0])
    # What each fit leaves behind grows in all quarters; what others of the process make once, in one of them.
    assert min(after - before for before, after in itertools.pairwise(objects[1:])) <= 0
    return memory[-1] - memory[1]


def steps(number):
    """Train one network for many steps; return the growth of memory behind a first quarter."""
    x, y = data(2000)
    memory = []

    class Note(xpnet.callbacks.Callback):
        def epoch_end(self, run):
            memory.append(resident())
            assert math.isfinite(run.history["loss"][-1])
            for leaf in xpnet.tree.leaves(run.net):
                assert np.isfinite(leaf).all()

    epochs = max(number * 4 // 2000, 4)
    xpnet.fit(
        network(), x, y, loss=losses.cross_entropy, optimizer=optim.AdamW(1e-3), epochs=epochs, batch_size=4,
        seed=0, callbacks=[Note()], progress=False,
    )  # fmt: skip
    return memory[-1] - memory[len(memory) // 4]


if __name__ == "__main__":
    for name, run, number in (("fits", fits, int(sys.argv[1])), ("steps", steps, int(sys.argv[2]))):
        growth = run(number)
        print(f"{number} {name}: memory grew by {growth / 2**20:.1f} MiB behind the first quarter")
        if growth > 2**23:
            sys.exit(f"{name} leave memory behind")
