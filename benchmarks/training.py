"""A training step, a prediction and a whole fit: xpnet beside its peers, and the matrix products alone.

Each library runs in a process of its own, with the same number of threads, and waits for its turn: the
processes are timed one after the other within each round, so that a slow moment of the machine meets all of
them. A training step is forward, backward and Adam, in float32, on a batch that lies in memory.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

STEPS = {  # widths of the layers, batch
    "64-32-10, batch 32": ((64, 32, 10), 32),
    "784-128-10, batch 128": ((784, 128, 10), 128),
    "784-512-512-10, batch 256": ((784, 512, 512, 10), 256),
    "1024-2048-2048-1000, batch 512": ((1024, 2048, 2048, 1000), 512),
}
PREDICTIONS = {
    "predict 784-128-10, batch 1": ((784, 128, 10), 1),
    "predict 784-128-10, batch 1024": ((784, 128, 10), 1024),
}
FITS = {  # batch, epochs
    "fit of the digits, 64-100-10, batch 32, 20 epochs": (32, 20),
    "fit of the digits, 64-100-10, batch 200, 100 epochs": (200, 100),
}
# At most these parts of the best peer's time; with numba and without.
AIMS = dict(zip(STEPS, ((0.6, 0.8), (0.8, 1.0), (0.95, 1.3), (1.05, 1.2)), strict=True))
FLOORS = dict(zip(list(STEPS)[2:], (1.25, 1.1), strict=True))
# Seconds between two turns, in which the threads of the last library, which wait actively, fall asleep.
PAUSE = 0.3
OTHER_AIMS = [
    (next(iter(PREDICTIONS)), "torch", 0.5),
    *((case, "scikit-learn", 0.2) for case in FITS),
]
OURS = ("xpnet", "xpnet without numba")
FLOOR = "matrix products"


# -- the libraries: each returns a function that does one step, one prediction or one fit -----------------


class Xpnet:
    packages = ("numpy", "numba")

    def net(self, sizes):
        from xpnet import nn

        layers = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers += [nn.Dense(inputs, outputs, seed=i), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def step(self, sizes, x, y):
        import xpnet

        optimizer = xpnet.optim.Adam(1e-3)

        def step(net, state, x, y):
            def loss(net, x, y):
                return xpnet.losses.cross_entropy(net(x), y)

            value, gradient = xpnet.value_and_grad(loss)(net, x, y)
            net, state = optimizer.update(gradient, state, net)
            return net, state, value

        step = xpnet.jit(step, donate=("net", "state"))
        net = self.net(sizes)
        state = optimizer.init(net)

        def run():
            nonlocal net, state
            net, state, _ = step(net, state, x, y)

        return run

    def predict(self, sizes, x):
        import xpnet

        net = self.net(sizes)
        forward = xpnet.jit(lambda net, x: net(x))
        return lambda: forward(net, x)

    def fit(self, x, y, batch_size, epochs):
        import xpnet

        settings = {"batch_size": batch_size, "epochs": epochs, "seed": 0, "progress": False}

        def run():
            loss, optimizer = xpnet.losses.cross_entropy, xpnet.optim.Adam(1e-3)
            xpnet.fit(self.net((64, 100, 10)), x, y, loss=loss, optimizer=optimizer, **settings)

        return run


class XpnetWithoutNumba(Xpnet):
    packages = ("numpy",)

    def __init__(self):
        import xpnet.replay.plans.numba

        xpnet.replay.plans.numba.numba_is_there = lambda: False


class Torch:
    packages = ("torch",)

    def __init__(self):
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def net(self, sizes):
        import torch

        layers = []
        for inputs, outputs in pairwise(sizes):
            layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
        return self.compiled(torch.nn.Sequential(*layers[:-1]))

    def compiled(self, f):
        return f

    def step(self, sizes, x, y):
        import torch

        net = self.net(sizes)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
        x, y = torch.asarray(x), torch.asarray(y)

        def run():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

        return run

    def predict(self, sizes, x):
        import torch

        net = self.net(sizes)
        x = torch.asarray(x)

        def run():
            with torch.inference_mode():
                return net(x)

        return run


class TorchCompiled(Torch):
    def compiled(self, f):
        import torch

        return torch.compile(f)


class Jax:
    packages = ("jax",)

    def parameters(self, sizes):
        import jax

        keys = jax.random.split(jax.random.key(0), len(sizes))
        pairs = zip(keys, pairwise(sizes), strict=False)
        return [
            (jax.random.normal(key, pair) / pair[0] ** 0.5, jax.numpy.zeros(pair[1])) for key, pair in pairs
        ]

    def forward(self, parameters, x):
        import jax

        for w, b in parameters[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = parameters[-1]
        return x @ w + b

    def state(self, parameters):
        import jax
        from jax import numpy as jnp

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(())

    def adam(self, parameters, g, state):
        import jax
        from jax import numpy as jnp

        mean, square, number = state
        number = number + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, g)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, g)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**number) / (1 - 0.9**number)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), parameters, mean, square
        )
        return parameters, (mean, square, number)

    def step(self, sizes, x, y):
        import jax
        from jax import numpy as jnp

        parameters = self.parameters(sizes)
        state = self.state(parameters)

        def loss(parameters, x, y):
            logits = jax.nn.log_softmax(self.forward(parameters, x))
            return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=-1))

        def step(parameters, state, x, y):
            value, g = jax.value_and_grad(loss)(parameters, x, y)
            parameters, state = self.adam(parameters, g, state)
            return parameters, state, value

        step = jax.jit(step, donate_argnums=(0, 1))
        x, y = jnp.asarray(x), jnp.asarray(y)

        def run():
            nonlocal parameters, state
            parameters, state, value = step(parameters, state, x, y)
            value.block_until_ready()

        return run

    def predict(self, sizes, x):
        import jax

        parameters = self.parameters(sizes)
        forward, x = jax.jit(self.forward), jax.numpy.asarray(x)
        return lambda: forward(parameters, x).block_until_ready()


class ScikitLearn:
    packages = ("scikit-learn",)

    def estimator(self, sizes, batch_size, epochs=1):
        from sklearn.neural_network import MLPClassifier

        until_the_end = {"max_iter": epochs, "tol": 0, "n_iter_no_change": 10**6}
        return MLPClassifier(sizes[1:-1], alpha=0, batch_size=batch_size, random_state=0, **until_the_end)

    def step(self, sizes, x, y):
        estimator = self.estimator(sizes, len(x))
        classes = range(sizes[-1])
        return lambda: estimator.partial_fit(x, y, classes=classes)

    def predict(self, sizes, x):
        import numpy

        estimator = self.estimator(sizes, 32)
        estimator.partial_fit(
            numpy.zeros((32, sizes[0]), "float32"), range(32), classes=range(sizes[-1] + 32)
        )
        return lambda: estimator.predict_proba(x)

    def fit(self, x, y, batch_size, epochs):
        import warnings

        warnings.simplefilter("ignore")  # that the epochs were too few
        return lambda: self.estimator((64, 100, 10), batch_size, epochs).fit(x, y)


class Thinc:
    packages = ("thinc",)

    def model(self, sizes):
        from thinc.api import Relu, Softmax, chain

        *hidden, last = sizes[1:]
        return chain(*(Relu(width) for width in hidden), Softmax(last))

    def step(self, sizes, x, y):
        import numpy
        from thinc.api import Adam

        model, optimizer = self.model(sizes), Adam(1e-3)
        target = numpy.eye(sizes[-1], dtype="float32")[y]
        model.initialize(x, target)

        def run():
            outputs, backward = model.begin_update(x)
            backward((outputs - target) / len(x))
            model.finish_update(optimizer)

        return run

    def predict(self, sizes, x):
        import numpy

        model = self.model(sizes)
        model.initialize(x, numpy.zeros((len(x), sizes[-1]), "float32"))
        return lambda: model.predict(x)


class Floor:
    packages = ("numpy",)

    def step(self, sizes, x, _y):
        import numpy

        random = numpy.random.default_rng(0)
        arrays = [x, *(random.random((len(x), n), dtype="float32") for n in sizes[1:])]
        weights = [random.random(pair, dtype="float32") for pair in pairwise(sizes)]
        forward = [(a, w, numpy.empty_like(b)) for a, w, b in zip(arrays, weights, arrays[1:], strict=False)]
        backward = [
            (a.T, b, numpy.empty_like(w)) for a, w, b in zip(arrays, weights, arrays[1:], strict=False)
        ]
        backward += [
            (b, w.T, numpy.empty_like(a))
            for a, w, b in zip(arrays[1:], weights[1:], arrays[2:], strict=False)
        ]

        def run():
            for a, b, out in (*forward, *backward):
                numpy.dot(a, b, out)

        return run


LIBRARIES = {
    OURS[0]: Xpnet,
    OURS[1]: XpnetWithoutNumba,
    "torch": Torch,
    "torch.compile": TorchCompiled,
    "JAX": Jax,
    "scikit-learn": ScikitLearn,
    "Thinc": Thinc,
    FLOOR: Floor,
}


# -- a library's process ------------------------------------------------------------------------------------


def serve(prepare, *, finish=lambda: None, others=None, missing=(AttributeError, ImportError)):
    """Prepare cases and time them, as the lines of the input ask."""
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                run = prepare(request["case"])
                for _ in range(3):
                    run()
                finish()
                answer = {}
            elif "times" in request:
                for _ in range(request["times"] // 2 + 1):  # until all is awake and in the caches again
                    run()
                finish()
                start = time.perf_counter()
                for _ in range(request["times"]):
                    run()
                host = time.perf_counter() - start
                finish()
                seconds = time.perf_counter() - start
                answer = {"seconds": seconds / request["times"], "host": host / request["times"]}
            else:
                answer = others[request["other"]]()
        except missing as error:
            answer = {"missing": str(error) or repr(error)}
        print(json.dumps(answer), file=real_output, flush=True)


def prepare(library, case):
    """Return what a library does in a case."""
    import numpy

    if case in FITS:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return library.fit((x / 16).astype("float32"), y, *FITS[case])
    random = numpy.random.default_rng(0)
    sizes, batch = (STEPS | PREDICTIONS)[case]
    x = random.normal(size=(batch, sizes[0])).astype("float32")
    y = random.integers(0, sizes[-1], size=batch)
    return library.step(sizes, x, y) if case in STEPS else library.predict(sizes, x)


class Process:
    """A library in a process of its own."""

    def __init__(self, *command, threads, **variables):
        threaded = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = os.environ | dict.fromkeys(threaded, str(threads)) | variables
        environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
        self._process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, **request):
        with contextlib.suppress(BrokenPipeError):  # which is said when it is to answer
            print(json.dumps(request), file=self._process.stdin, flush=True)

    def answer(self, seconds=None):
        """Return the answer to what was sent, or what is missing where it takes longer."""
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self._process.kill()
            return {"missing": f"it took over {seconds} s"}
        try:
            return json.loads(self._process.stdout.readline())
        except json.JSONDecodeError:
            return {"missing": f"the process ended with {self._process.wait()}"}

    def ask(self, **request):
        self.send(**request)
        return self.answer()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def measure(processes, rounds, seconds):
    """Return the times of each library that prepared a case, one a round; those that fail are left out."""
    number, times = {}, {name: [] for name in processes}

    def timed(name, count):
        answer = processes[name].ask(times=count)
        if "missing" in answer:
            print(f"  {name} is left out: {answer['missing']}", file=sys.stderr)
            del times[name]
        return answer.get("seconds")

    for name in processes:
        once = timed(name, 1)
        number[name] = once and max(1, round(seconds / max(once, 1e-7)))
    for _ in range(rounds):
        for name in list(times):
            time.sleep(PAUSE)
            if found := timed(name, number[name]):
                times[name].append(found)
    return times


def row(case, times):
    """Return medians, spread, and ratios to the best peer and to the matrix products."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    peers = [name for name in medians if name not in (*OURS, FLOOR)]
    best = min(peers, key=medians.__getitem__, default=None)
    ratios = {}
    for ours in (name for name in OURS if name in times):
        for other in dict.fromkeys(name for name in (best, "torch", "scikit-learn", FLOOR) if name in times):
            each = sorted(a / b for a, b in zip(times[ours], times[other], strict=True))
            low, high = each[len(each) // 10], each[-1 - len(each) // 10]
            ratios.setdefault(ours, {})[other] = {"median": statistics.median(each), "low": low, "high": high}
    return {"case": case, "seconds": medians, "best": best, "ratios": ratios}


def aims(results):
    """Say for each aim what was measured."""
    rows = {result["case"]: result for result in results}
    for case, limits in AIMS.items():
        for ours, limit in zip(OURS, limits, strict=True):
            if case in rows:
                yield case, f"{ours} of the best peer", limit, rows[case]["ratios"][ours][rows[case]["best"]]
    for case, limit in FLOORS.items():
        if case in rows:
            yield case, f"{OURS[0]} of the matrix products", limit, rows[case]["ratios"][OURS[0]][FLOOR]
    for case, peer, limit in OTHER_AIMS:
        if case in rows:
            yield case, f"{OURS[0]} of {peer}", limit, rows[case]["ratios"][OURS[0]][peer]


def show(result):
    print(f"\n{result['case']}")
    for name, seconds in sorted(result["seconds"].items(), key=lambda item: item[1]):
        ratios = "".join(
            f"   {ratio['median']:.2f} of {other} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            for other, ratio in result["ratios"].get(name, {}).items()
        )
        print(f"  {name:20} {seconds * 1e6:12,.1f} µs{ratios}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FOLDER", help="write the results there")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each library")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="that each library runs in a round")
    parser.add_argument("--only", default="", help="run the cases whose names contain this")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(functools.partial(prepare, LIBRARIES[options.serve]()))
        return
    processes = {name: Process(__file__, "--serve", name, threads=options.threads) for name in LIBRARIES}
    packages = sorted({package for library in LIBRARIES.values() for package in library.packages})
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {"python": platform.python_version()}
    print(f"medians of {options.rounds} rounds, {options.threads} threads each. {versions}")
    results = []
    for case in (*STEPS, *PREDICTIONS, *FITS):
        if options.only in case:
            able = {name: each for name, each in processes.items() if "missing" not in each.ask(case=case)}
            results.append(row(case, measure(able, options.rounds, options.seconds)))
            show(results[-1])
    for process in processes.values():
        process.close()
    print()
    found_aims = [
        {
            "case": case,
            "what": what,
            "limit": limit,
            "median": ratio["median"],
            "met": ratio["median"] <= limit,
        }
        for case, what, limit, ratio in aims(results)
    ]
    for aim in found_aims:
        met = "met" if aim["met"] else "NOT met"
        print(f"{aim['case']}, {aim['what']}: at most {aim['limit']}, measured {aim['median']:.2f}: {met}")
    if options.json:
        found = {
            "versions": versions,
            "threads": options.threads,
            "aims": found_aims,
            "rows": results,
        }
        (Path(options.json) / "training-cpu.json").write_text(json.dumps(found, indent=1))


# In a library's process, answers alone go there.
real_output, sys.stdout = sys.stdout, sys.stdout if "--serve" not in sys.argv else sys.stderr

if __name__ == "__main__":
    main()
