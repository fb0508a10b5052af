"""Trainings of several processes: ``mpiexec -n 2 python trainings.py NAME`` calls the function NAME."""

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import callbacks, losses, metrics, nn, optim

group = xpnet.distributed.world()
rank, size = group.rank, group.size
random = np.random.default_rng(0)
X = random.normal(size=(103, 4))
Y = np.sin(X.sum(axis=1, keepdims=True)) + 0.1 * random.normal(size=(103, 1))
LABELS = (Y[:, 0] > 0).astype("int64") + (Y[:, 0] > 0.5)
WEIGHTS = random.uniform(size=103)


def network(*layers, outputs=1):
    return nn.Sequential(nn.Dense(4, 16, seed=0), *layers, nn.Dense(16, outputs, seed=1))


def doubled(net):
    """Return a network whose floating-point numbers are all of double precision."""
    return xpnet.tree.map(lambda x: x.astype("float64") if x.dtype.kind == "f" else x, net, state=True)


REGRESSION = {"x": X, "y": Y, "loss": losses.mse, "optimizer": optim.Adam(1e-2), "batch_size": 20}
OUTLYING = REGRESSION | {"y": np.where(np.arange(103)[:, None] == 77, 300.0, Y)}  # in the share of one
CLASSES = REGRESSION | {"y": LABELS, "loss": losses.cross_entropy}

# What is trained, by a name: a network, and what `fit` is given, over more than a hundred steps.
KINDS = {
    "plain": lambda: (network(nn.Tanh()), REGRESSION | {"metrics": [metrics.r2], "validation": 0.2}),
    "eager": lambda: (network(nn.Tanh()), REGRESSION | {"jit": False}),
    "dropout": lambda: (network(nn.Tanh(), nn.Dropout(0.3, seed=2)), REGRESSION),
    "norm": lambda: (network(nn.BatchNorm(16), nn.ReLU()), REGRESSION | {"validation": (X[:50], Y[:50])}),
    "norm accumulated": lambda: (
        network(nn.BatchNorm(16), nn.Tanh(), nn.Dropout(0.2, seed=2)),
        REGRESSION | {"accumulate": 2, "epochs": 40},
    ),
    "clipped": lambda: (
        network(nn.Tanh()),
        REGRESSION | {"optimizer": optim.chain(optim.clip_by_global_norm(0.05), optim.SGD(0.5))},
    ),
    "weighted": lambda: (
        network(nn.BatchNorm(16), nn.Tanh(), outputs=3),
        CLASSES
        | {"sample_weight": WEIGHTS, "class_weight": {0: 0.3, 2: 4.0}, "metrics": [metrics.accuracy]}
        | {"validation": (X[:31], LABELS[:31], WEIGHTS[:31])},
    ),
    "ignoring": lambda: (
        network(nn.Tanh(), outputs=3),
        CLASSES
        | {"loss": functools.partial(losses.cross_entropy, ignore_index=1), "accumulate": 3, "epochs": 60}
        | {"metrics": [metrics.accuracy.ignoring(1)]},
    ),
    "blocks": lambda: (network(nn.Tanh()), REGRESSION | {"shuffle": "blocks", "block_size": 3}),
    "few": lambda: (
        network(nn.BatchNorm(16), nn.Dropout(0.2, seed=3)),
        REGRESSION | {"batch_size": 101, "epochs": 50},
    ),
    "resumed": lambda: (
        network(nn.BatchNorm(16), nn.Tanh(), nn.Dropout(0.2, seed=2)),
        REGRESSION | {"metrics": [metrics.r2, metrics.mean_absolute_error], "validation": 0.1},
    ),
    "float16 with steps that are skipped": lambda: (
        network(nn.Tanh()),
        {name: x.astype("float32") if name in "xy" else x for name, x in OUTLYING.items()}
        | {"precision": "float16"},
    ),
    "float16": lambda: (
        network(nn.Tanh()),
        {name: x.astype("float32") if name in "xy" else x for name, x in REGRESSION.items()}
        | {"precision": "float16"},
    ),
}


def same_on_all(values):
    """Check that all processes have the same, bit for bit."""
    everyone = group.gather_objects(xpnet.tree.leaves(values, state=True))
    for others in everyone:
        for x, y in zip(others, everyone[0], strict=True):
            np.testing.assert_array_equal(x, y)


def fitted(kind, spec="cpu", **others):
    net, options = KINDS[kind]()
    net = xpnet.to_device(doubled(net) if "float16" not in kind else net, spec)
    given = {"epochs": 20, "seed": 0, "group": group, "progress": False}
    return net, xpnet.fit(net, **given | options | others)


def library(spec, folder):
    """A training on another library than NumPy."""
    if spec == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    net, history = fitted("norm accumulated", spec, epochs=4)
    keep(f"{folder}/{size}.npz", xpnet.to_numpy(net), history)


def keep(path, net, history):
    same_on_all([net, {name: np.asarray(values) for name, values in history.items()}])
    if rank == 0:
        np.savez(path, *xpnet.tree.leaves(net, state=True), **history)


def all_kinds(folder, *, shard=False):
    for kind in KINDS:
        keep(f"{folder}/{kind}.npz", *fitted(kind, shard=shard))


def sharded(folder):
    all_kinds(folder, shard=True)


# -- files -------------------------------------------------------------------------------------------------


class StopAt(xpnet.callbacks.Callback):
    """Ends a training in the middle of an epoch, on all processes."""

    def __init__(self, step):
        self._step = step

    def step_end(self, run):
        if run.step == self._step:
            raise EOFError


def interrupted(folder, *others):
    """Train up to a step in the middle of an epoch, of which there is a checkpoint."""
    checkpoint = callbacks.Checkpoint(f"{folder}/{{step}}.safetensors", every=4, keep=2)
    with contextlib.suppress(EOFError):
        given = [checkpoint, callbacks.CSVLogger(f"{folder}/table.csv"), StopAt(33)]
        fitted("resumed", callbacks=given, shard="shard" in others)
    if rank == 0:
        assert sorted(path.name for path in Path(folder).iterdir()) == [
            "30.safetensors",
            "32.safetensors",
            "table.csv",
        ]


def resumed(folder, *others):
    """Go on, with a path that rank 0 alone can read."""
    path = f"{folder}/32.safetensors" if rank == 0 else "nowhere.safetensors"
    table = callbacks.CSVLogger(f"{folder}/table.csv" if rank == 0 else "/nowhere/table.csv")
    shard = "shard" in others
    keep(f"{folder}/found.npz", *fitted("resumed", resume=path, callbacks=[table], shard=shard))


def undisturbed(folder):
    keep(f"{folder}/expected.npz", *fitted("resumed"))


def killed_again(folder, seed):
    """Train, from a checkpoint if there is one, and kill one process at some moment, fifty times.

    The state of the optimizer is in pieces by turns.
    """
    path, kills = Path(folder) / "training.safetensors", int(seed)
    random = np.random.default_rng(kills)
    victim, is_early = random.integers(size), random.uniform() < 0.2
    after = random.uniform(0, 0.3 if is_early else 0.03)

    class Kill(xpnet.callbacks.Callback):
        def start(self, run):
            if is_early:
                self._wait()

        def step_end(self, run):
            if not is_early and not self._waits:
                self._wait()
            time.sleep(0.01)

        _waits = False

        def _wait(self):
            self._waits = True
            if victim == rank and kills < 50:
                threading.Timer(after, os.kill, [os.getpid(), signal.SIGKILL]).start()

    options = {"callbacks": [callbacks.Checkpoint(path, every=1), Kill()], "shard": kills % 2 == 1}
    keep(f"{folder}/found.npz", *fitted("resumed", resume=path if path.exists() else None, **options))


def states(folder):
    """A training goes on with a state of the optimizer, whole or in pieces, and leaves its piece."""
    kept = {}

    def keep_state(run):
        kept["state"] = xpnet.tree.map(np.copy, run.optimizer_state)

    net, _ = fitted("plain", epochs=2, callbacks=[keep_state])
    whole, start = kept["state"], xpnet.tree.map(np.copy, net)
    for name, options in {
        "plain": {},
        "whole": {"shard": True},
        "optimizer": {"optimizer": group.shard(REGRESSION["optimizer"])},
        "pieces": {"shard": True},
    }.items():
        net = xpnet.tree.map(np.copy, start)
        given = REGRESSION | {"optimizer_state": whole, "epochs": 3, "seed": 1, "progress": False}
        if name == "pieces":
            given["optimizer_state"] = group.shard(REGRESSION["optimizer"]).cut(whole, net)
        history = xpnet.fit(net, **given | options, group=group, callbacks=[keep_state])
        keep(f"{folder}/{name}.npz", net, history)
        numbers = sum(x.size for x in xpnet.tree.leaves(kept["state"]["transforms"]))
        of_all = int(group.sum(np.asarray(numbers)))
        assert of_all == 2 * sum(x.size for x in xpnet.tree.leaves(net)) * (size if name == "plain" else 1)
    # That of rank 0, where others have another one, or none.
    net = xpnet.tree.map(np.copy, start)
    given = REGRESSION | {"optimizer_state": None if rank else whole, "epochs": 3, "seed": 1}
    keep(f"{folder}/first.npz", net, xpnet.fit(net, **given, group=group, shard=True, progress=False))
    pieces = None if rank else group.shard(REGRESSION["optimizer"]).cut(whole, net)
    with pytest.raises(xpnet.errors.ProcessesDisagreeError, match="its piece on rank 0 and none on rank 1"):
        fitted("plain", optimizer_state=pieces, shard=True)
    with pytest.raises(ValueError, match="takes steps with that group"):
        fitted("plain", optimizer=group.shard(optim.SGD(0.1)), group=None)


def replaced(folder):
    """A callback replaces the optimizer by one with the same state."""

    def replace(run):
        if run.epoch == 2:
            run.optimizer = optim.Adam(1e-3, beta1=0.5)

    for name, shard in (("plain", False), ("whole", True)):
        keep(f"{folder}/{name}.npz", *fitted("plain", epochs=4, callbacks=[replace], shard=shard))


def stuck():
    """A mean of squares that is infinite in the piece of the last process alone."""

    def steep(outputs, _targets):
        return xpnet.array_namespace(outputs).mean(outputs) * 1e20

    options = {"loss": steep, "optimizer": optim.Adam(1e-2), "epochs": 1, "progress": False}
    x, y = (X * 1e-30).astype("float32"), Y.astype("float32")  # so that those of the first weights are small
    xpnet.fit(network(), x, y, **options, group=group, shard=True)


# -- estimators of scikit-learn's kind -----------------------------------------------------------------------


def estimators(folder):
    from xpnet.sklearn import MLPClassifier, MLPRegressor

    weights = np.where(np.arange(103) % 3, WEIGHTS, 0.0)
    settings = {"group": group, "random_state": 0, "max_iter": 30, "batch_size": 20, "tol": 0.0}
    settings |= {"hidden_layer_sizes": 16, "dropout": 0.2, "batch_norm": True, "alpha": 0.1}
    for name, estimator in {
        "classifier": MLPClassifier(**settings, class_weight={0: 0.5}),
        "stopping": MLPClassifier(**settings, early_stopping=True),
        "regressor": MLPRegressor(**settings, solver="sgd", learning_rate="invscaling"),
        "weighted": MLPRegressor(**settings),
    }.items():
        given = {"sample_weight": weights} if name in ("classifier", "weighted") else {}
        estimator.fit(X, LABELS if isinstance(estimator, MLPClassifier) else Y[:, 0], **given)
        same_on_all([*estimator.coefs_, np.asarray(estimator.loss_curve_)])
        arrays = {"coef": estimator.coefs_[0], "loss": estimator.loss_curve_, "last": estimator.coefs_[1]}
        if name == "stopping":
            arrays["scores"] = estimator.validation_scores_
        if rank == 0:
            np.savez(f"{folder}/{name}.npz", **arrays)


def unseeded_estimators():
    from xpnet.sklearn import MLPClassifier

    estimator = MLPClassifier(8, max_iter=3, early_stopping=True, group=group).fit(X, LABELS)
    same_on_all([*estimator.coefs_, np.asarray(estimator.loss_curve_)])


def orders():
    """Examples in an order that each process draws for itself."""
    random = np.random.default_rng(rank)
    fitted("plain", shuffle=random.permutation)


# -- batches from outside ----------------------------------------------------------------------------------


class Batches:
    """Batches of which a process gives its own rows, unevenly: two, and what is left, by turns."""

    def __init__(self, stateful=False):
        self.done = 0
        if stateful:
            self.state_dict, self.load_state_dict = self._state_dict, self._load_state_dict

    def _state_dict(self):
        return {"done": self.done}

    def _load_state_dict(self, state):
        self.done = state["done"]

    def __iter__(self):
        for start in range(20 * self.done, 100, 20):
            self.done += 1
            cuts = [start, *(start + 2 + n for n in range(size - 1)), start + 20]
            own = slice(cuts[rank], cuts[rank + 1])
            yield X[own], Y[own]
        self.done = 0


def from_batches(folder):
    net = doubled(network(nn.BatchNorm(16), nn.Tanh(), nn.Dropout(0.3, seed=2)))
    given = {"loss": losses.mse, "optimizer": optim.Adam(1e-2), "group": group, "progress": False}
    given |= {"epochs": 10, "metrics": [metrics.r2]}
    keep(f"{folder}/batches.npz", net, xpnet.fit(net, Batches(), validation=lambda: iter(Batches()), **given))
    keep(f"{folder}/array.npz", net, xpnet.fit(net, Batches(), validation=(X[:50], Y[:50]), **given))


def uneven():
    batches = [(X[:4], Y[:4])] * (3 + rank)
    net = doubled(network())
    options = {"loss": losses.mse, "optimizer": optim.SGD(0.1), "progress": False}
    xpnet.fit(net, lambda: iter(batches), group=group, **options)


def same_batches():
    net = doubled(network())
    options = {"loss": losses.mse, "optimizer": optim.SGD(0.1), "epochs": 1, "progress": False}
    xpnet.fit(net, [(X[:4], Y[:4])], group=group, **options)


# -- what processes see ------------------------------------------------------------------------------------


def seeds():
    """What no seed says is that of rank 0."""
    net = nn.Sequential(nn.Dense(4, 8), nn.Dropout(0.5), nn.Dense(8, 1))
    history = xpnet.fit(net, **REGRESSION, group=group, epochs=3, progress=False)
    same_on_all([net, history["loss"]])


def logs():
    """One process shows how a training goes."""
    fitted("plain", epochs=2, progress=True)


def nan(*others):
    """A value of one process, which all are told."""
    x, shard = X.copy(), "shard" in others
    x[77, 2] = np.nan  # the share of one process
    before = doubled(network(nn.BatchNorm(16)))
    net = xpnet.tree.map(np.copy, before, state=True)
    try:
        xpnet.fit(net, **REGRESSION | {"x": x}, group=group, seed=0, progress=False, shard=shard)
    except FloatingPointError as error:
        messages = group.gather_objects(str(error))
        assert "first in x at row 77, column 2, which is nan" in messages[0], messages
        assert set(messages) == {messages[0]}
    else:
        raise AssertionError
    same_on_all([net, before])
    for x, y in zip(*(xpnet.tree.leaves(each, state=True) for each in (net, before)), strict=True):
        np.testing.assert_array_equal(x, y)
    fitted("plain", epochs=1)  # the group is as good as before


def nan_in_validation():
    x = X[:30].copy()
    x[29, 0] = np.nan
    fitted("plain", validation=(x, Y[:30]))


def nan_in_batches():
    x = X[:20].copy()
    if rank == size - 1:
        x[5, 1] = np.nan
    net = doubled(network())
    batches = [(X[20 + rank : 30], Y[20 + rank : 30]), (x, Y[:20])]
    xpnet.fit(net, batches, loss=losses.mse, optimizer=optim.SGD(0.1), group=group, progress=False)


def nan_with_groups_of_ones_own():
    """Layers and optimizers with a group, too, do not wait for a process that looks for a bad value alone."""
    net = doubled(nn.Sequential(nn.Dense(4, 8, seed=0), nn.BatchNorm(8, group=group), nn.Dense(8, 1, seed=1)))
    x = X[:20].copy()
    if rank == size - 1:
        x[5, 1] = np.nan
    batches = [(X[20 + rank : 30], Y[20 + rank : 30]), (x, Y[:20])]
    options = {"loss": losses.mse, "optimizer": optim.chain(group.average(), optim.SGD(0.1))}
    xpnet.fit(net, batches, **options, group=group, progress=False)


def bad_index():
    """An index that one process meets, of which the others do not know, behind a layer that exchanges."""
    random = np.random.default_rng(0)
    x = random.integers(0, 5, size=(40, 3))
    x[33, 1] = 17

    class Shifted(nn.Module):
        def __init__(self):
            self.embedding, self.norm = nn.Embedding(12, 4, seed=0), nn.BatchNorm(4)
            self.dense = nn.Dense(4, 1, seed=1)

        def __call__(self, x):
            xp = xpnet.array_namespace(x, self.dense.weight)
            return self.dense(self.norm(xp.mean(self.embedding(x * 1), axis=1)))

    options = {"loss": losses.mse, "optimizer": optim.SGD(0.1), "shuffle": False, "batch_size": 20}
    xpnet.fit(doubled(Shifted()), x, Y[:40], **options, group=group, progress=False)


def weights_overflow():
    fitted("plain", optimizer=optim.SGD(1e9), metrics=[])


def pressed(name):
    """Ctrl-C, or what a launcher makes of it, on one process ends the training on all after one step."""
    number, steps = getattr(signal, name), []

    class Press(xpnet.callbacks.Callback):
        def step_end(self, run):
            steps.append(run.step)
            if run.step == 23 and rank == size - 1:
                os.kill(os.getpid(), number)
                time.sleep(0.1)

    net, history = fitted("norm", callbacks=[Press()])
    assert history.interrupted
    same_on_all([net, np.asarray(steps)])
    assert steps[-1] == 23
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    fitted("plain", epochs=1)


def diverging():
    """A callback that changes the weights on one process."""

    def change(run):
        if rank == size - 1 and run.epoch == 2:
            run.net = xpnet.tree.map(lambda x: x + 0.01, run.net)

    fitted("plain", callbacks=[change])


def diverging_before_an_epoch():
    """Weights, or a rate, that one process changes where each moves a piece."""

    class Change(xpnet.callbacks.Callback):
        def epoch_start(self, run):
            if rank == size - 1 and run.epoch == 2:
                run.net = xpnet.tree.map(lambda x: x + 0.01, run.net)

    fitted("plain", callbacks=[Change()], shard=True)


def diverging_rate():
    class Change(xpnet.callbacks.Callback):
        def step_end(self, run):
            if rank == size - 1 and run.step == 2:
                run.set_learning_rate(0.5)

    fitted("plain", callbacks=[Change()], shard=True)


def own_statistics():
    """A layer whose state is that of the share of each process."""

    class Centered(nn.Module):
        state = ("mean",)

        def __init__(self):
            self.mean, self.dense = np.zeros(4), nn.Dense(4, 1, seed=0)

        def __call__(self, x):
            xp = xpnet.array_namespace(x, self.mean)
            self.mean = xp.mean(x, axis=0)
            return self.dense(x - self.mean)

    xpnet.fit(doubled(Centered()), **REGRESSION, group=group, seed=0, progress=False)


def nothing_to_resume():
    fitted("plain", resume="nowhere.safetensors")


def no_mean():
    def total(outputs, targets):
        return 0.01 * xpnet.array_namespace(outputs).sum((outputs - targets) ** 2)

    fitted("plain", loss=total, epochs=1, metrics=[])


def stops():
    """A callback of one process ends the training of all after the epoch."""
    epochs = []

    class Stop(xpnet.callbacks.Callback):
        def epoch_end(self, run):
            epochs.append(run.epoch)
            run.stop = rank == size - 1 and run.epoch == 4

    fitted("plain", callbacks=[Stop()])
    assert epochs == [1, 2, 3, 4]


def raises():
    class Raise(xpnet.callbacks.Callback):
        def step_end(self, run):
            if run.step == 7 and rank == size - 1:
                raise ValueError("wrong step")

    fitted("plain", callbacks=[Raise()])


def wrong_labels():
    """What is wrong on all is told once."""
    fitted("weighted", y=LABELS + 1)


def differ(what):
    shorter = slice(None, 102 if rank == size - 1 else None)
    one = int(rank == size - 1)
    others = {
        "network": {"net": doubled(network(*[nn.Dense(16, 16, seed=2)] * one))},
        "layers": {"net": doubled(network(nn.Tanh() if one else nn.ReLU()))},
        "length": {"x": X[shorter], "y": Y[shorter]},
        "rows": {"x": X[::-1] if one else X},
        "batch size": {"batch_size": 20 + one},
        "rate": {"optimizer": optim.Adam(1e-2 * (1 + one))},
        "seed": {"seed": one},
        "a seed": {"seed": 0 if one else None},
        "epochs": {"epochs": 3 + one},
        "loss": {"loss": functools.partial(losses.huber, delta=1.0 + one)},
        "class weight": {"class_weight": {0: 1.0 + one}, "y": LABELS, "loss": losses.cross_entropy},
        "last row": {"x": np.concatenate([X[:-2], X[-2:-1] + one, X[-1:]])},
        "callback": {"callbacks": [callbacks.ReduceLROnPlateau(factor=0.5 - 0.1 * one)]},
        "resume": {"resume": "nowhere.safetensors" if one else None},
        "callbacks": {"callbacks": [callbacks.EarlyStopping("loss")] * one},
        "shard": {"shard": bool(one)},
    }[what]
    net = doubled(network(outputs=3 if what == "class weight" else 1))
    xpnet.fit(**{"net": net, "group": group, "progress": False} | REGRESSION | others)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    globals()[sys.argv[1]](*sys.argv[2:])
    print("passed", flush=True)
