"""A training step, a prediction and a whole fit: xpnet beside its peers, and the matrix products alone.

Each library runs in a process of its own, with the same number of threads, and waits for its turn: the
processes are timed one after the other within each round, so that a slow moment of the machine meets all of
them. A training step is forward, loss, backward and Adam, in float32, on a batch that lies in memory. All
libraries start from the same weights, and before anything is timed, they must come to the same losses.

`--before FOLDER` measures another checkout of xpnet beside this one.
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
import warnings
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

OURS = ("xpnet", "xpnet without numba")
BEFORE = "xpnet before"
FLOOR = "matrix products"
COMPILERS = (*OURS, BEFORE, "torch", "torch.compile", "JAX", "JAX synchronous")
TINY = (*COMPILERS, "PyTensor")
ALL = (*COMPILERS, "scikit-learn", "Thinc", FLOOR)


class Step(NamedTuple):
    """A training step: of a classifier with ReLU, or of a regressor with tanh."""

    sizes: tuple  # widths of the layers
    batch: int
    libraries: tuple = ALL
    threads: tuple = (1, 2)
    regression: bool = False
    scale: float = 1  # of the inputs


STEPS = {
    "64-32-10, batch 32": Step((64, 32, 10), 32, (*ALL, "PyTensor")),
    "784-128-10, batch 128": Step((784, 128, 10), 128),
    "784-512-512-10, batch 256": Step((784, 512, 512, 10), 256),
    "1024-2048-2048-1000, batch 512": Step((1024, 2048, 2048, 1000), 512),
}
TANH = {
    f"2-16-16-1, tanh, batch {batch}": Step((2, 16, 16, 1), batch, TINY, (1,), regression=True)
    for batch in (16, 1000)
}
DEEP = {
    f"{count} layers 8-8, tanh, batch 16": Step((8,) * (count + 1), 16, libraries, (1,), regression=True)
    for count, libraries in (
        (10, COMPILERS),
        (1000, (*OURS, BEFORE, "torch")),  # the others compile for minutes
    )
}
# Of inputs as small as these, the gradient for the first layer is some 1e-21, and its mean square denormal.
DENORMAL = {
    "784-128-10, batch 128, denormal squares in Adam": Step(
        (784, 128, 10), 128, (*OURS, BEFORE, "torch", "JAX", "JAX synchronous"), (1,), scale=1e-18
    )
}
TRAININGS = STEPS | TANH | DEEP | DENORMAL
PREDICTIONS = {
    "predict 784-128-10, batch 1": ((784, 128, 10), 1),
    "predict 784-128-10, batch 1024": ((784, 128, 10), 1024),
}
FITS = {  # batch, epochs
    "fit of the digits, 64-100-10, batch 32, 20 epochs": (32, 20),
    "fit of the digits, 64-100-10, batch 200, 100 epochs": (200, 100),
}
# In each of them, all libraries must come to the same losses.
CHECKS = {
    "a classifier": Step((5, 4, 3), 7, (*ALL, "PyTensor")),
    "a regressor": Step((3, 4, 4, 2), 7, TINY, regression=True),
}
# With a usual one, the loss of a batch that is seen a hundred thousand times goes to zero, and Adam's state
# becomes denormal. On some processors, arithmetic on such numbers takes many times as long, but not in JAX,
# which takes them for zero: what is timed would be how soon each library comes there. One case is about that.
RATE = 1e-7
# Seconds between two turns, in which the threads of the last library, which wait actively, fall asleep.
PAUSE = 0.3

# xpnet is to take at most such a part of the time of another library, or of the best peer.
BEST = "the best peer"
SMALL, MIDDLE, LARGE, LARGEST = STEPS
AIMS = [  # case, threads, which xpnet, of what, at most
    (SMALL, 1, OURS[0], "JAX", 0.11),
    (SMALL, 1, OURS[0], "PyTensor", 0.5),
    (next(iter(TANH)), 1, OURS[0], "torch", 0.1),
    (SMALL, 2, OURS[0], BEST, 0.6),
    (SMALL, 2, OURS[1], BEST, 0.8),
    (MIDDLE, 2, OURS[0], BEST, 0.45),
    (MIDDLE, 2, OURS[0], FLOOR, 1.15),
    (MIDDLE, 2, OURS[1], BEST, 1.0),
    (LARGE, 2, OURS[0], BEST, 0.85),
    (LARGE, 2, OURS[1], BEST, 1.3),
    (LARGE, 2, OURS[0], FLOOR, 1.15),
    (LARGEST, 2, OURS[0], BEST, 1.0),
    (LARGEST, 2, OURS[1], BEST, 1.2),
    (LARGEST, 2, OURS[0], FLOOR, 1.1),
    (next(iter(PREDICTIONS)), 2, OURS[0], "torch", 0.5),
    *((case, 2, OURS[0], "scikit-learn", 0.2) for case in FITS),
    *((case, threads, OURS[0], BEFORE, 1.0) for case, step in STEPS.items() for threads in step.threads),
]


def named(case, threads):
    return f"{case}, {threads} thread{'s' * (threads > 1)}"


# -- the libraries: each returns a function that does one step, one prediction or one fit -----------------


def weights(sizes):
    """Return the weights and biases that all libraries start from."""
    import numpy

    random = numpy.random.default_rng(1)
    pairs = [(random.normal(size=pair) / pair[0] ** 0.5, numpy.zeros(pair[1])) for pair in pairwise(sizes)]
    return [(w.astype("float32"), b.astype("float32")) for w, b in pairs]


class Xpnet:
    packages = ("numpy", "numba")

    def net(self, sizes, *, regression=False):
        import xpnet
        from xpnet import nn

        layers = []
        for w, b in weights(sizes):
            dense = nn.Dense(*w.shape, seed=0)
            dense.weight, dense.bias = xpnet.asarray(w), xpnet.asarray(b)
            layers += [dense, nn.Tanh() if regression else nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def training(self, case, rate):
        """Return a step under `jit`, and the network and the state that it begins with."""
        import xpnet

        optimizer = xpnet.optim.Adam(rate)
        loss_of = xpnet.losses.mse if case.regression else xpnet.losses.cross_entropy

        def step(net, state, x, y):
            def loss(net, x, y):
                return loss_of(net(x), y)

            value, gradient = xpnet.value_and_grad(loss)(net, x, y)
            net, state = optimizer.update(gradient, state, net)
            return net, state, value

        net = self.net(case.sizes, regression=case.regression)
        return xpnet.jit(step, donate=("net", "state")), net, optimizer.init(net)

    def step(self, case, x, y, rate):
        step, net, state = self.training(case, rate)

        def run():
            nonlocal net, state
            net, state, value = step(net, state, x, y)
            return value

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

    def net(self, sizes, *, regression=False):
        import torch

        layers = []
        for w, b in weights(sizes):
            linear = torch.nn.Linear(*w.shape)
            state = {"weight": torch.asarray(w.T), "bias": torch.asarray(b)}
            linear.load_state_dict(state)
            layers += [linear, torch.nn.Tanh() if regression else torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def compiled(self, f):
        return f

    def step(self, case, x, y, rate):
        import torch

        net = self.net(case.sizes, regression=case.regression)
        optimizer = torch.optim.Adam(net.parameters(), rate, fused=True)
        loss_of = torch.nn.functional.mse_loss if case.regression else torch.nn.functional.cross_entropy
        loss = self.compiled(lambda x, y: loss_of(net(x), y))
        x, y = torch.asarray(x), torch.asarray(y)

        def run():
            optimizer.zero_grad()
            value = loss(x, y)
            value.backward()
            optimizer.step()
            return value

        return run

    def predict(self, sizes, x):
        import torch

        net = self.compiled(self.net(sizes))
        x = torch.asarray(x)

        def run():
            with torch.inference_mode():
                return net(x)

        return run


class TorchCompiled(Torch):
    def compiled(self, f):
        import torch

        # What it compiled for other cases counts as versions of the same function, of which it makes eight.
        torch.compiler.reset()
        return torch.compile(f)


class Jax:
    packages = ("jax",)

    def parameters(self, sizes):
        import jax

        return jax.tree.map(jax.numpy.array, weights(sizes))

    def forward(self, parameters, x, activation=None):
        import jax

        for w, b in parameters[:-1]:
            x = (activation or jax.nn.relu)(x @ w + b)
        w, b = parameters[-1]
        return x @ w + b

    def state(self, parameters):
        import jax
        from jax import numpy as jnp

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(())

    def adam(self, parameters, g, state, rate):
        import jax
        from jax import numpy as jnp

        mean, square, number = state
        number = number + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, g)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, g)
        root = jnp.sqrt(1 - 0.999**number)
        rate = rate * root / (1 - 0.9**number)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8 * root), parameters, mean, square
        )
        return parameters, (mean, square, number)

    def step(self, case, x, y, rate):
        import jax
        from jax import numpy as jnp

        parameters = self.parameters(case.sizes)
        state = self.state(parameters)

        def loss(parameters, x, y):
            if case.regression:
                return jnp.mean(jnp.square(self.forward(parameters, x, jnp.tanh) - y))
            logits = jax.nn.log_softmax(self.forward(parameters, x))
            return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=-1))

        def step(parameters, state, x, y):
            value, g = jax.value_and_grad(loss)(parameters, x, y)
            parameters, state = self.adam(parameters, g, state, rate)
            return parameters, state, value

        step = jax.jit(step, donate_argnums=(0, 1))
        x, y = jnp.asarray(x), jnp.asarray(y)

        def run():
            nonlocal parameters, state
            parameters, state, value = step(parameters, state, x, y)
            return value.block_until_ready()

        return run

    def predict(self, sizes, x):
        import jax

        parameters = self.parameters(sizes)
        forward, x = jax.jit(self.forward), jax.numpy.asarray(x)
        return lambda: forward(parameters, x).block_until_ready()


class JaxSynchronous(Jax):
    """Computes on the thread that calls it, which takes small steps less time."""

    def __init__(self):
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)


class PyTensor:
    packages = ("pytensor",)

    def step(self, case, x, y, rate):
        import numpy
        import pytensor
        from pytensor import tensor as pt

        # Adam's state is a mean and a mean square for each array, and the number of the step.
        arrays = [array for pair in weights(case.sizes) for array in pair]
        zeros = [numpy.zeros_like(array) for array in arrays]
        values = [*arrays, *zeros, *map(numpy.copy, zeros), numpy.zeros((), "float32")]
        inputs = [pt.tensor(dtype=v.dtype.name, shape=v.shape) for v in (*values, x, y)]
        *state, x_in, y_in = inputs
        n = len(arrays)
        parameters, means, squares, number = state[:n], state[n : 2 * n], state[2 * n : -1], state[-1]

        def dense(x, i):
            return x @ parameters[2 * i] + parameters[2 * i + 1]

        hidden, last = x_in, len(case.sizes) - 2
        for i in range(last):
            hidden = pt.tanh(dense(hidden, i)) if case.regression else pt.maximum(dense(hidden, i), 0)
        outputs = dense(hidden, last)
        if case.regression:
            loss = pt.mean(pt.square(outputs - y_in))
        else:
            loss = -pt.mean(pt.special.log_softmax(outputs, axis=-1)[pt.arange(case.batch), y_in])
        gradients = pytensor.grad(loss, parameters)

        # Numbers of Python's would make the corrections float64.
        one, beta1, beta2, epsilon, rate = map(numpy.float32, (1, 0.9, 0.999, 1e-8, rate))
        number = number + one
        root = pt.sqrt(one - beta2**number)
        rate, epsilon = rate * root / (one - beta1**number), epsilon * root
        means = [beta1 * m + (one - beta1) * g for m, g in zip(means, gradients, strict=True)]
        squares = [beta2 * v + (one - beta2) * g * g for v, g in zip(squares, gradients, strict=True)]
        each = zip(parameters, means, squares, strict=True)
        parameters = [p - rate * m / (pt.sqrt(v) + epsilon) for p, m, v in each]

        # The fastest of the ways to call it: a state that goes in and comes out, written over, and the
        # compiled function without the checks around it. With shared variables, 64-32-10 takes 1.07 of that.
        results = [*parameters, *means, *squares, number, loss]
        step = pytensor.function(
            [pytensor.In(v, borrow=True, mutable=True) for v in state] + [x_in, y_in],
            [pytensor.Out(v, borrow=True) for v in results],
            mode="NUMBA",
        ).vm.jit_fn

        def run():
            nonlocal values
            *values, value = step(*values, x, y)
            return value

        return run


class ScikitLearn:
    packages = ("scikit-learn",)

    def estimator(self, sizes, batch_size, epochs=1, **more):
        from sklearn.neural_network import MLPClassifier

        settings = {"alpha": 0, "batch_size": batch_size, "random_state": 0} | more
        until_the_end = {"max_iter": epochs, "tol": 0, "n_iter_no_change": 10**6}
        return MLPClassifier(sizes[1:-1], **settings, **until_the_end)

    def step(self, case, x, y, rate):
        estimator = self.estimator(case.sizes, len(x), shuffle=False, learning_rate_init=rate)
        classes = range(case.sizes[-1])

        def run():
            estimator.partial_fit(x, y, classes=classes)
            return estimator.loss_

        run()  # which draws weights, and makes the optimizer for them
        for (w, b), w_there, b_there in zip(
            weights(case.sizes), estimator.coefs_, estimator.intercepts_, strict=True
        ):
            w_there[...], b_there[...] = w, b
        del estimator._optimizer  # so that it begins anew
        return run

    def predict(self, sizes, x):
        import numpy

        estimator = self.estimator(sizes, 32)
        estimator.partial_fit(
            numpy.zeros((32, sizes[0]), "float32"), range(32), classes=range(sizes[-1] + 32)
        )
        return lambda: estimator.predict_proba(x)

    def fit(self, x, y, batch_size, epochs):
        warnings.simplefilter("ignore")  # that the epochs were too few
        return lambda: self.estimator((64, 100, 10), batch_size, epochs).fit(x, y)


class Thinc:
    packages = ("thinc",)

    def model(self, sizes):
        from thinc.api import Relu, Softmax, chain

        *hidden, last = sizes[1:]
        return chain(*(Relu(width) for width in hidden), Softmax(last))

    def step(self, case, x, y, rate):
        import numpy
        from thinc.api import Adam

        # Without what the others do not do either.
        model, optimizer = self.model(case.sizes), Adam(rate, grad_clip=0, use_averages=False)
        target = numpy.eye(case.sizes[-1], dtype="float32")[y]
        rows = numpy.arange(len(x))
        model.initialize(x, target)
        for layer, (w, b) in zip(model.layers, weights(case.sizes), strict=True):
            layer.set_param("W", numpy.ascontiguousarray(w.T))
            layer.set_param("b", b)

        def run():
            outputs, backward = model.begin_update(x)
            backward((outputs - target) / len(x))
            model.finish_update(optimizer)
            return -numpy.log(outputs[rows, y]).mean()

        return run

    def predict(self, sizes, x):
        import numpy

        model = self.model(sizes)
        model.initialize(x, numpy.zeros((len(x), sizes[-1]), "float32"))
        return lambda: model.predict(x)


class Floor:
    packages = ("numpy",)

    def step(self, case, x, _y, _rate):
        import numpy

        random, sizes = numpy.random.default_rng(0), case.sizes
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
    BEFORE: Xpnet,
    "torch": Torch,
    "torch.compile": TorchCompiled,
    "JAX": Jax,
    "JAX synchronous": JaxSynchronous,
    "PyTensor": PyTensor,
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


def batch_of(case):
    """Return inputs and targets for a training step."""
    import numpy

    random = numpy.random.default_rng(0)
    x = (random.normal(size=(case.batch, case.sizes[0])) * case.scale).astype("float32")
    if case.regression:
        return x, random.normal(size=(case.batch, case.sizes[-1])).astype("float32")
    return x, random.integers(0, case.sizes[-1], size=case.batch)


def prepare(library, case):
    """Return what a library does in a case."""
    import numpy

    if case in TRAININGS:
        return library.step(TRAININGS[case], *batch_of(TRAININGS[case]), RATE)
    if case in FITS:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return library.fit((x / 16).astype("float32"), y, *FITS[case])
    sizes, batch = PREDICTIONS[case]
    x = numpy.random.default_rng(0).normal(size=(batch, sizes[0])).astype("float32")
    return library.predict(sizes, x)


def losses(library, case, steps=10):
    """Return the losses of the first steps of a training that changes them."""
    warnings.simplefilter("ignore")  # that a number is taken out of PyTorch's record
    run = library.step(case, *batch_of(case), 0.05)
    return [float(run()) for _ in range(steps)]


def differ(losses, others):
    """Say whether losses are not the same but for rounding."""
    return any(abs(a - b) > 1e-4 * abs(b) for a, b in zip(losses, others, strict=True))


class Process:
    """A library in a process of its own."""

    def __init__(self, *command, threads, **variables):
        threaded = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = os.environ | dict.fromkeys(threaded, str(threads)) | variables
        environment["NPROC"] = str(threads)  # which is JAX's name for it
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
    """Return medians, spread, and the ratios of xpnet to its best peer and to each other library."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in medians if is_peer(name)), key=medians.__getitem__, default=None)
    ratios = {}
    for ours in (name for name in OURS if name in times):
        for other in (name for name in times if name not in OURS):
            each = sorted(a / b for a, b in zip(times[ours], times[other], strict=True))
            low, high = each[len(each) // 10], each[-1 - len(each) // 10]
            ratios.setdefault(ours, {})[other] = {"median": statistics.median(each), "low": low, "high": high}
    return {"case": case, "seconds": medians, "best": best, "ratios": ratios}


def is_peer(name):
    return name not in (*OURS, BEFORE, FLOOR)


def aims(rows):
    """Yield for each aim what was measured; of what was not measured there is none."""
    for case, what, limit, value in _measured({found["case"]: found for found in rows}):
        yield {"case": case, "what": what, "limit": limit, "median": value, "met": value <= limit}


def _measured(rows):
    for case, threads, ours, other, limit in AIMS:
        found = rows.get(named(case, threads))
        if found:
            ratios = found["ratios"].get(ours, {})
            name = found["best"] if other == BEST else other
            if name in ratios:
                yield found["case"], f"{ours} of {other}", limit, ratios[name]["median"]
    few, many = (rows.get(named(case, 1), {"seconds": {}})["seconds"].get(OURS[0]) for case in DEEP)
    if few and many:
        yield named(list(DEEP)[1], 1), "xpnet, a layer, of one of 10", 1.0, many / few / 100


def second_thread(rows):
    """Return for each case how many times as fast each library is with two threads as with one."""
    seconds = {found["case"]: found["seconds"] for found in rows}
    found = {}
    for case in TRAININGS:
        one, two = (seconds.get(named(case, threads), {}) for threads in (1, 2))
        if ratios := {name: one[name] / two[name] for name in one if name in two}:
            found[case] = ratios
    return found


def ratios_text(result, name):
    """Return the ratios that are shown behind a library's time."""
    return "".join(
        f"   {ratio['median']:.2f} of {other} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        for other, ratio in result["ratios"].get(name, {}).items()
        if other in (result["best"], "torch", BEFORE, FLOOR)
    )


def show(result):
    print(f"\n{result['case']}")
    for name, seconds in sorted(result["seconds"].items(), key=lambda item: item[1]):
        print(f"  {name:20} {seconds * 1e6:12,.1f} µs{ratios_text(result, name)}")


def check(processes):
    """Stop where libraries do not come to the same losses."""
    for case, step in CHECKS.items():
        found = {}
        for name in (name for name in step.libraries if name in processes and name != FLOOR):
            answer = processes[name].ask(other=case)
            if "missing" in answer:
                print(f"{name} did not train {case}: {answer['missing']}")
                continue
            found[name] = answer["losses"]
            first = next(iter(found))
            if differ(found[name], found[first]):
                sys.exit(f"{case}: the losses of {first} are {found[first]}, those of {name} {found[name]}")


def rows_of(threads, options):
    """Yield what was measured with so many threads."""
    cases = {name: step.libraries for name, step in TRAININGS.items() if threads in step.threads}
    if threads == 2:
        cases |= dict.fromkeys((*PREDICTIONS, *FITS), ALL)
    cases = {case: libraries for case, libraries in cases.items() if options.only in named(case, threads)}
    processes = {}
    for name in dict.fromkeys(name for libraries in cases.values() for name in libraries):
        before = {"PYTHONPATH": options.before} if name == BEFORE else {}
        if options.before or name != BEFORE:
            processes[name] = Process(__file__, "--serve", name, threads=threads, **before)
    check(processes)
    for case, libraries in cases.items():
        able = {}
        for name in (name for name in libraries if name in processes):
            start = time.perf_counter()
            answer = processes[name].ask(case=case)
            if "missing" not in answer:
                able[name] = processes[name]
            elif case in TRAININGS:  # in which each is to take part
                print(f"{name} is left out of {case}: {answer['missing']}")
            if (seconds := time.perf_counter() - start) > 2:
                print(f"{name} prepared {case} in {seconds:.0f} s")
        yield row(named(case, threads), measure(able, options.rounds, options.seconds))
    for process in processes.values():
        process.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FOLDER", help="write the results there")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of xpnet to compare with")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="that each library runs in a round")
    parser.add_argument("--only", default="", help="run the cases whose names contain this")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        library = LIBRARIES[options.serve]()
        checks = {name: lambda step=step: {"losses": losses(library, step)} for name, step in CHECKS.items()}
        serve(functools.partial(prepare, library), others=checks)
        return
    packages = sorted({package for library in LIBRARIES.values() for package in library.packages})
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {"python": platform.python_version()}
    print(f"medians of {options.rounds} rounds. {versions}")
    results = []
    for threads in (1, 2):
        for found in rows_of(threads, options):
            results.append(found)
            show(found)
    print("\ntimes as fast with a second thread")
    gained = second_thread(results)
    for case, ratios in gained.items():
        print(f"  {case}: {', '.join(f'{name} {ratio:.2f}' for name, ratio in ratios.items())}")
    print()
    found_aims = list(aims(results))
    for aim in found_aims:
        met = "met" if aim["met"] else "NOT met"
        print(f"{aim['case']}, {aim['what']}: at most {aim['limit']}, measured {aim['median']:.2f}: {met}")
    if options.json:
        found = {"versions": versions, "aims": found_aims, "rows": results, "second_thread": gained}
        (Path(options.json) / "training-cpu.json").write_text(json.dumps(found, indent=1))


# In a library's process, answers alone go there.
real_output, sys.stdout = sys.stdout, sys.stdout if "--serve" not in sys.argv else sys.stderr

if __name__ == "__main__":
    main()
