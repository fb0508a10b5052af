"""What an operation on a tiny array costs, forward and with its gradient: xpnet, HIPS autograd, plain NumPy.

Each row is a chain of one kind of operation. The competitors are timed in turn within each round, so that a
slow moment of the machine meets all of them. The aim: at most half of autograd's time.
"""

import argparse
import gc
import importlib.metadata
import json
import platform
import statistics
import time
from pathlib import Path

import autograd
import autograd.numpy
import numpy

import xpnet

OPERATIONS = 1000  # so many that what a call of `grad` costs does not matter
AIM = 0.5
X = numpy.linspace(0.1, 0.9, 3)
W = numpy.linspace(-0.5, 0.5, 9).reshape(3, 3)
NAMESPACES = (lambda x: x.__array_namespace__(), lambda _: autograd.numpy, lambda _: numpy)
MIXES = {  # name: (one or more operations on x, how many they are)
    "unary (tanh)": (lambda xp, x: xp.tanh(x), 1),
    "binary (x * 0.9 + x)": (lambda xp, x: x * 0.9 + x, 2),
    "matmul (3×3 @ 3)": (lambda xp, x: xp.matmul(W, x), 1),
    "getitem (x[::-1])": (lambda xp, x: x[::-1], 1),
    "sum and subtract": (lambda xp, x: x - xp.sum(x), 2),
    "mixed (sin, *, tanh, +)": (lambda xp, x: x + xp.tanh(xp.sin(x) * x), 4),
}


def chain(xp_of, operation, count):
    def f(x):
        xp = xp_of(x)
        for _ in range(OPERATIONS // count):
            x = operation(xp, x)
        return xp.sum(x)

    return f


def competitors(operation, count):
    """Return for each mode and library a function that runs the chain once."""
    ours, theirs, plain = (chain(xp_of, operation, count) for xp_of in NAMESPACES)
    gradients = {"xpnet": xpnet.grad(ours), "autograd": autograd.grad(theirs)}
    numpy.testing.assert_allclose(gradients["xpnet"](X), gradients["autograd"](X))
    forward = {"xpnet": lambda x: xpnet.vjp(ours, x), "autograd": autograd.make_vjp(theirs)}
    return {"forward": forward | {"numpy": plain}, "forward + backward": gradients | {"numpy": plain}}


def measure(functions, rounds=15, repetitions=3):
    """Return the microseconds an operation of each competitor, one number a round."""
    times = {name: [] for name in functions}
    gc.disable()  # as timeit does: how often it runs depends on what else is in memory
    for _ in range(rounds + 1):
        for name, function in functions.items():
            gc.collect()
            start = time.perf_counter()
            for _ in range(repetitions):
                function(X)
            times[name].append((time.perf_counter() - start) / repetitions / OPERATIONS * 1e6)
    gc.enable()
    return {name: rest for name, (_, *rest) in times.items()}  # the first round warms up


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="PATH", help="write the results here")
    path = parser.parse_args().json
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "autograd")}
    versions |= {"xpnet": xpnet.__version__, "python": platform.python_version()}
    print(f"µs an operation, medians; ratio to autograd, with its 10th and 90th percentile. {versions}")
    print(f"{'':45} {'numpy':>6} {'xpnet':>6} {'autograd':>8}  ratio")
    rows = []
    for mix, (operation, count) in MIXES.items():
        for mode, functions in competitors(operation, count).items():
            times = measure(functions)
            ratios = [a / b for a, b in zip(times["xpnet"], times["autograd"], strict=True)]
            low, *_, high = statistics.quantiles(ratios, n=10)
            medians = {name: statistics.median(values) for name, values in times.items()}
            row = {"mix": mix, "mode": mode, "microseconds": medians, "ratio": statistics.median(ratios)}
            rows.append(row | {"low": low, "high": high})
            numbers = f"{medians['numpy']:6.2f} {medians['xpnet']:6.2f} {medians['autograd']:8.2f}"
            print(f"{mix:25} {mode:19} {numbers}  {row['ratio']:.2f} ({low:.2f} to {high:.2f})")
    worst = max(row["ratio"] for row in rows if row["mode"] != "forward")
    met = "met" if worst <= AIM else "NOT met"
    print(f"aim: at most {AIM} of autograd, forward + backward. The worst is {worst:.2f}: {met}.")
    if path:
        Path(path).write_text(json.dumps({"versions": versions, "aim": met, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
