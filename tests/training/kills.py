"""Trainings that are killed at random moments, of training and of writing, and resumed.

``python tests/training/kills.py 200`` kills 200 times; `nox -s kills` runs it. A part of the kills is part of
the suite.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import xpnet

EPOCHS, EVERY = 30, 5


def run(directory, mode):
    """Train, or go on with the training in a directory."""
    data = np.random.default_rng(0)
    x = data.normal(size=(320, 20)).astype("float32")
    y = (x @ data.normal(size=20) > 0).astype("int64")
    net = xpnet.nn.Sequential(
        # Wide, so that a good part of the time goes into writing.
        xpnet.nn.Dense(20, 400, seed=0),
        xpnet.nn.ReLU(),
        xpnet.nn.Dropout(0.2, seed=1),
        xpnet.nn.Dense(400, 2, seed=2),
    )
    path = Path(directory) / "run.safetensors"
    xpnet.fit(
        net,
        x,
        y,
        loss=xpnet.losses.cross_entropy,
        optimizer=xpnet.optim.Adam(1e-3),
        epochs=EPOCHS,
        batch_size=16,
        validation=0.25,
        seed=3,
        progress=False,
        jit=mode == "jit",
        callbacks=[xpnet.callbacks.Checkpoint(path, every=EVERY), Started()],
        resume=path if path.exists() else None,
    )
    xpnet.save(net, Path(directory) / "final.safetensors")


class Started(xpnet.callbacks.Callback):
    """Says that the training has begun, so that the kill does not come while Python starts."""

    def epoch_start(self, run):
        print("training", flush=True)

    def step_end(self, run):
        if run.batch == 1 or run.batch % EVERY == 1:
            print("training", flush=True)


def survive(directory, mode, *, number, seed):
    """Kill trainings, and check what they left; return the number of kills, and of those while writing."""
    moments = random.Random(seed)
    whole = Path(directory) / "whole"
    whole.mkdir()
    child(whole, mode).communicate()
    expected = (whole / "final.safetensors").read_bytes()
    place, killed, writing, done, finished = Path(directory) / "killed", 0, 0, 0, 0
    place.mkdir()
    while killed < number or not finished:
        process = child(place, mode)
        # With jit, the first line comes before the step is recorded, and a later one among the replays.
        for _ in range(moments.choice([1, 2, 3, 5, 8])):
            process.stdout.readline()
        if killed < number:
            time.sleep(moments.choice([moments.uniform(0.0, 0.02), moments.uniform(0.0, 0.3)]))
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            killed += 1
            writing += any(file.suffix == ".part" for file in place.iterdir())
            step = steps_of(place / "run.safetensors")
            assert step >= done, f"went back from step {done} to {step}"
            done = step
        else:
            assert process.returncode == 0, "the training failed"
            finished += 1
            assert (place / "final.safetensors").read_bytes() == expected, "another result than without kills"
            left = {file.name for file in place.iterdir()}
            # The next training removes what one had begun to write; `xpnet.save` at its end is on its own.
            left = {name for name in left if not re.fullmatch(r"final\.safetensors\..*\.part", name)}
            assert left == {"run.safetensors", "final.safetensors"}, f"left behind: {left}"
            for file in place.iterdir():
                file.unlink()
            done = 0
    return killed, writing


def steps_of(path):
    """Return how many steps the training in a file has done, after a look at the whole of it."""
    if not path.exists():
        return 0
    from xpnet.files.networks import read_parts

    return read_parts(path).load("training", device="cpu")["step"]


def child(directory, mode):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, "run", str(directory), mode]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(*sys.argv[2:])
    else:
        for mode in ("eager", "jit"):
            with tempfile.TemporaryDirectory() as directory:
                killed, writing = survive(directory, mode, number=int(sys.argv[1]) // 2, seed=1)
            print(
                f"{mode}: killed {killed} times, {writing} of them while writing; no damaged file, no lost "
                "epoch, the result of one run"
            )
