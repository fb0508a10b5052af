"""No step of a training waits for the device: it reads no value and copies nothing to the host."""

import itertools
import math
import sys
import threading

import numpy as np
import pytest

import xpnet
from xpnet import losses, metrics, nn, optim
from xpnet.training.callbacks import Callback, ExponentialMovingAverage

STEPS, BATCH = 50, 8
random = np.random.default_rng(0)
X = random.normal(size=(STEPS * BATCH, 6)).astype("float32")
Y = random.integers(0, 3, STEPS * BATCH)

# What reads values of an array, whatever the library, or waits for a stream.
READING = [
    *("__bool__", "__float__", "__int__", "__index__", "__complex__", "__array__"),
    *("item", "tolist", "numpy", "cpu", "get", "to_device", "synchronize"),
]


class Watch(Callback):
    """Counts what reads the values of arrays, from the end of the first step to that of the last."""

    def __init__(self, device, monkeypatch):
        self.reads, self.watching = [], False
        kinds = [type(device.namespace.empty(0, device=device.native))]
        if device.library.spec == "cuda":
            import cupy

            kinds += [cupy.cuda.Stream, cupy.cuda.Event]
        for kind, name in itertools.product(kinds, READING):
            if hasattr(kind, name):
                monkeypatch.setattr(kind, name, self._noted(name, getattr(kind, name)))
        convert = device.library.to_numpy
        noted = self._noted("to_numpy", convert)
        object.__setattr__(device.library, "to_numpy", noted)
        self.undo = lambda: object.__setattr__(device.library, "to_numpy", convert)

    def _noted(self, name, original):
        def noted(*arguments, **options):
            result = original(*arguments, **options)
            if self.watching:  # a refusal, such as that of a number with a point as an index, reads nothing
                self.reads.append(name)
            return result

        return noted

    def step_end(self, run):
        self.watching = 1 <= run.step < STEPS
        self.steps = run.step


@pytest.fixture
def watch(device, monkeypatch):
    if device.library.spec == "cpu":
        pytest.skip("NumPy computes at once, and its arrays cannot be watched")
    # In an epoch of many seconds, as on a slow machine, `fit` looks at the loss now and then.
    monkeypatch.setattr(sys.modules["xpnet.training.loop"], "_LOOK", math.inf)
    watch = Watch(device, monkeypatch)
    yield watch
    watch.undo()


def dense():
    return [
        *(nn.Dense(6, 8, seed=0), nn.BatchNorm(8), nn.GELU(), nn.Dropout(0.2, seed=1)),
        *(nn.Dense(8, 8, seed=2), nn.LayerNorm(8), nn.ReLU(), nn.Dense(8, 3, seed=3)),
    ]


def others():
    return [
        *(nn.Lambda(as_images), nn.Conv2d(1, 2, 2, seed=0), nn.MaxPool((1, 2)), nn.SiLU()),
        *(nn.Lambda(as_sequences), nn.LSTM(2, 4, seed=1), nn.TransformerBlock(4, 2, causal=True, seed=2)),
        *(nn.Flatten(), nn.Dense(4, 3, seed=3)),
    ]


def as_images(x):
    return xpnet.array_namespace(x).reshape(x, (-1, 2, 3, 1))


def as_sequences(x):
    return xpnet.array_namespace(x).reshape(x, (x.shape[0], -1, 2))


def train(watch, layers=dense, y=Y, **options):
    settings = {"loss": losses.cross_entropy, "optimizer": optim.Adam(0.01), "callbacks": [watch]}
    settings |= {"epochs": 1, "batch_size": BATCH, "seed": 0} | options
    history = xpnet.fit(nn.Sequential(*layers()), X, y, **settings)
    assert watch.steps == STEPS
    assert history["loss"][0] < 2
    assert watch.reads == []


def test_reading_is_noticed(device, watch):
    class Read(Callback):
        def step_end(self, run):
            if run.step == 7:
                run.totals.results()

    with pytest.raises(AssertionError):
        train(watch, callbacks=[watch, Read()])
    assert "to_numpy" in watch.reads


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("layers", [dense, others])
def test_no_step_waits(device, watch, jit, layers):
    if device.library.spec == "jax" and layers is others and not jit:
        pytest.skip("JAX compiles each function by itself, for a minute; other libraries show it")
    watched = [metrics.accuracy, metrics.top_k_accuracy(2)]
    train(watch, layers, jit=jit, metrics=watched, validation=(X[:9], Y[:9]))


@pytest.mark.parametrize("jit", [False, True])
def test_no_metric_waits(device, watch, jit):
    columns = [metrics.r2, metrics.root_mean_squared_error, metrics.mean_absolute_error]
    answers = metrics.binary_accuracy.of_part("one", lambda outputs, y: (outputs[:, :1], y[:, :1]))
    y = np.eye(3, dtype="float32")[Y]
    watched = [*columns, answers, metrics.accuracy, lambda outputs, y: abs(outputs - y)[0, 0]]
    train(watch, y=y, loss=losses.mse, jit=jit, metrics=watched)


OPTIMIZERS = {
    "SGD": optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "AdamW, clipped, with a schedule": optim.chain(
        optim.clip_by_global_norm(1.0), optim.AdamW(optim.warmup_cosine(1e-2, warmup_steps=5, steps=STEPS))
    ),
    "RMSprop": optim.RMSprop(1e-3),
    "Lion": optim.Lion(optim.step_decay(1e-3, every=10)),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_waits(device, watch, jit, name):
    train(watch, optimizer=OPTIMIZERS[name], jit=jit)


@pytest.mark.parametrize("jit", [False, True])
def test_no_average_waits(device, watch, jit):
    train(watch, jit=jit, callbacks=[ExponentialMovingAverage(warmup=True), watch])


LOSSES = {
    "smoothed and weighted": lambda outputs, y: losses.cross_entropy(
        outputs, y, label_smoothing=0.1, class_weight=[1.0, 2.0, 1.0]
    ),
    "binary": lambda outputs, y: losses.binary_cross_entropy(outputs[:, 0], y == 1),
    "huber": lambda outputs, y: losses.huber(outputs[:, 0], y),
    "squared": lambda outputs, y: losses.mse(outputs[:, 0], y),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits(device, watch, jit, name):
    train(watch, loss=LOSSES[name], jit=jit)


# -- a real GPU -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("layers", [dense, others])
def test_the_host_goes_on_while_the_gpu_is_held_up(cuda, jit, layers):
    """Hold the GPU up until the host has asked for some steps more: it never would if it waited for one."""
    import cupy

    class HoldUp(Callback):
        def step_end(self, run):
            if run.step == 3:
                self.let_go, self.in_time = threading.Event(), []
                hold = lambda _: self.in_time.append(self.let_go.wait(30))
                cupy.cuda.get_current_stream().launch_host_func(hold, None)
            if run.step == 3 + 5:  # CUDA has room for about a thousand calls that were not begun
                self.let_go.set()

    held, steps = HoldUp(), xpnet.training.Steps(losses.cross_entropy, jit=jit)
    x, y = X[: 16 * BATCH], Y[: 16 * BATCH]
    net = nn.Sequential(*layers())
    for callbacks in ([], [held]):  # kernels are compiled, and memory is found, in the first
        xpnet.fit(
            net, x, y, loss=steps, optimizer=optim.Adam(0.01), epochs=1, batch_size=BATCH, callbacks=callbacks
        )
    assert held.in_time == [True]
