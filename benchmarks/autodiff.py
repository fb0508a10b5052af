"""What an operation costs, forward and with its gradient: xpnet beside its peers and plain NumPy.

Each row is a chain of one kind of operation, on arrays of 4 or of 1,000,000 elements (float64). All
libraries run in one process on one thread, and are timed in turn within each round, so that a slow moment of
the machine meets all of them. The aims: ahead of each peer on small arrays, at most half of autograd's time
there, and on large arrays a forward pass within 1.3 times NumPy's.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import time
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before the libraries are loaded, which read it once

import autograd
import autograd.numpy
import numpy
import torch

import xpnet

try:  # needs Python 3.12
    import advect
except ImportError:
    advect = None

torch.set_num_threads(1)

# side of the square arrays: (operations in a chain, rounds). So many operations that what a call of `grad`
# costs does not matter.
SIZES = {2: (1000, 15), 1000: (20, 7)}
OPERATIONS = {  # name: (one or more operations on x with constant weights w, how many they are)
    "tanh(x)": (lambda xp, x, _w: xp.tanh(x), 1),
    "x * 0.9 + x": (lambda xp, x, _w: x * 0.9 + x, 2),
    "w @ x": (lambda xp, x, w: w @ x, 1),
    "x - x[0]": (lambda xp, x, _w: x - x[0], 2),
    "x - sum(x)": (lambda xp, x, _w: x - xp.sum(x), 2),
    "x + tanh(sin(x) * x)": (lambda xp, x, _w: x + xp.tanh(xp.sin(x) * x), 4),
}
FORWARD, BOTH = "forward", "forward and backward"
PEERS = ["autograd", "torch", *(["advect"] if advect else [])]


def chain(xp, operation, repetitions, w):
    def f(x):
        functions = xp or x.__array_namespace__()
        for _ in range(repetitions):
            x = operation(functions, x, w)
        return functions.sum(x)

    return f


def torch_grad(f, x):
    return torch.autograd.grad(f(x), x)[0]


def competitors(operation, repetitions, x, w):
    """Return for each mode and library a function that runs the chain once."""

    def f(xp, w=w):
        return chain(xp, operation, repetitions, w)

    ours, theirs, tensors = f(None), f(autograd.numpy), f(torch, torch.asarray(w))
    tensor = torch.asarray(x).requires_grad_()
    plain = {"numpy": lambda: f(numpy)(x)}
    forward = {
        "xpnet": lambda: xpnet.vjp(ours, x),
        "autograd": lambda: autograd.make_vjp(theirs)(x),
        "torch": lambda: tensors(tensor),
    }
    both = {
        "xpnet": lambda: xpnet.grad(ours)(x),
        "autograd": lambda: autograd.grad(theirs)(x),
        "torch": lambda: torch_grad(tensors, tensor),
    }
    if advect:
        forward["advect"] = lambda: advect.vjp(f(numpy))(x)
        both["advect"] = lambda: advect.grad(f(numpy))(x)
    expected = both["xpnet"]()
    for name, gradient in both.items():
        numpy.testing.assert_allclose(gradient(), expected, rtol=1e-8, err_msg=name)
    return {FORWARD: plain | forward, BOTH: plain | both}


def measure(functions, operations, rounds):
    """Return the microseconds an operation of each competitor, one number a round."""
    times = {name: [] for name in functions}
    gc.disable()  # as timeit does: how often it runs depends on what else is in memory
    for _ in range(rounds + 1):
        for name, function in functions.items():
            gc.collect()
            start = time.perf_counter()
            result = function()
            times[name].append((time.perf_counter() - start) / operations * 1e6)
            del result
    gc.enable()
    return {name: rest for name, (_, *rest) in times.items()}  # the first round warms up


def rows():
    for side, (operations, rounds) in SIZES.items():
        x = numpy.linspace(0.1, 0.9, side**2).reshape(side, side)
        w = numpy.linspace(-0.5, 0.5, side**2).reshape(side, side) / side
        for name, (operation, count) in OPERATIONS.items():
            for mode, functions in competitors(operation, operations // count, x, w).items():
                times = measure(functions, operations, rounds)
                ratios = {}
                for peer in times.keys() - {"xpnet"}:
                    each = [a / b for a, b in zip(times["xpnet"], times[peer], strict=True)]
                    low, *_, high = statistics.quantiles(each, n=10)
                    ratios[peer] = {"median": statistics.median(each), "low": low, "high": high}
                yield {
                    "elements": side**2,
                    "operation": name,
                    "mode": mode,
                    "microseconds": {name: statistics.median(values) for name, values in times.items()},
                    "ratios": ratios,
                }


def aims(table):
    """Say for each aim what the worst ratio is, and whether that meets it."""

    def worst(small, mode, peers, limit):
        chosen = (row for row in table if (row["elements"] == 4) == small and row["mode"] == mode)
        found = [
            (ratio["median"], row["operation"], peer)
            for row in chosen
            for peer, ratio in row["ratios"].items()
            if peer in peers
        ]
        ratio, *where = max(found)
        return {"limit": limit, "worst": ratio, "where": where, "met": ratio <= limit}

    return {
        "small arrays, forward and backward, against each peer": worst(True, BOTH, PEERS, 1.0),
        "small arrays, forward alone, against each peer": worst(True, FORWARD, PEERS, 1.0),
        "small arrays, forward and backward, against autograd": worst(True, BOTH, ["autograd"], 0.5),
        "large arrays, forward, against numpy": worst(False, FORWARD, ["numpy"], 1.3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FOLDER", help="write the results there")
    folder = parser.parse_args().json
    peers = ["numpy", *PEERS]
    versions = {name: importlib.metadata.version(name) for name in peers}
    versions |= {"xpnet": xpnet.__version__, "python": platform.python_version()}
    print(f"µs an operation, medians; in brackets xpnet's time divided by the library's. {versions}")
    print(f"{'':47}{'xpnet':>8}" + "".join(f"{peer:>16}" for peer in peers))
    table = []
    for row in rows():
        table.append(row)
        times, ratios = row["microseconds"], row["ratios"]
        cells = "".join(f"{times[peer]:9.2f} ({ratios[peer]['median']:4.2f})" for peer in peers)
        print(f"{row['elements']:>7} {row['operation']:20} {row['mode']:21}{times['xpnet']:6.2f}{cells}")
    found = aims(table)
    for aim, result in found.items():
        verdict = "met" if result["met"] else "NOT met"
        where = ", ".join(result["where"])
        print(f"{aim}: at most {result['limit']}, the worst is {result['worst']:.2f} ({where}): {verdict}")
    if folder:
        (Path(folder) / "autodiff-cpu.json").write_text(
            json.dumps({"versions": versions, "aims": found, "rows": table}, indent=1)
        )


if __name__ == "__main__":
    main()
