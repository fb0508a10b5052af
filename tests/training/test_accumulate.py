"""A step of several batches is that of one batch with all their examples."""

import functools
import itertools

import numpy as np
import pytest
from helpers import network

import xpnet
from training.cases import X, Y, classifier, same, train, weights
from xpnet import callbacks, losses, metrics, nn, optim
from xpnet.training import Steps

random = np.random.default_rng(1)
LABELS = random.integers(0, 3, size=96)
INPUTS = random.normal(size=(96, 4))
WEIGHTS = random.uniform(0, 3, size=96) * (random.uniform(size=96) > 0.4)
IGNORED = np.where(random.uniform(size=96) < 0.5, -100, LABELS)

ignoring = functools.partial(losses.cross_entropy, ignore_index=-100)


def total_and_weights(outputs, targets, sample_weight):
    """A loss of somebody's own: the sum and what it is divided by."""
    each = losses.cross_entropy(outputs, targets, reduction="none") ** 2
    xp = xpnet.array_namespace(each, sample_weight)
    return xp.sum(each * sample_weight), xp.sum(sample_weight)


def through_a_function(outputs, targets):
    return losses.cross_entropy(outputs, targets, ignore_index=-100)


CASES = {
    "plain": {},
    "sample_weight": {"sample_weight": WEIGHTS},
    "class_weight": {"class_weight": {0: 3.0, 2: 0.25}},
    "both": {"sample_weight": WEIGHTS, "class_weight": "balanced"},
    "ignored": {"loss": ignoring, "y": IGNORED},
    "ignored, in a function": {"loss": through_a_function, "y": IGNORED},
    "ignored and weighted": {"loss": ignoring, "y": IGNORED, "sample_weight": WEIGHTS},
    "of one's own": {"loss": total_and_weights, "sample_weight": WEIGHTS},
    "smaller last batch": {"x": INPUTS[:93], "y": LABELS[:93]},
    "left out": {"x": INPUTS[:85], "y": LABELS[:85], "drop_last": True},
    "momentum and clipping": {
        "optimizer": optim.chain(optim.clip_by_global_norm(0.1), optim.SGD(0.1, momentum=0.9))
    },
}


def fitted(device, batch_size, accumulate=1, **options):
    with xpnet.use_device(device):
        net = network(4, 16, 3, dtype="float64")
    settings = {"x": INPUTS, "y": LABELS, "epochs": 2, "validation": 0.25} | options
    settings["validation"] = None if "x" in options else settings["validation"]
    history = train(net, batch_size=batch_size, accumulate=accumulate, **settings)
    return weights(net), history


@pytest.mark.parametrize(
    ("case", "jit"),
    [*((case, True) for case in CASES), ("both", False), ("ignored and weighted", False)],
    ids=[*CASES, "both, without jit", "ignored and weighted, without jit"],
)
def test_four_batches_are_one(device, case, jit):
    options = {"metrics": [metrics.accuracy.ignoring(-100)]} | CASES[case]
    expected, history = fitted(device, 24, jit=jit, **options)
    found, accumulated = fitted(device, 6, 4, jit=jit, **options)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert accumulated.keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(accumulated[name], values, rtol=1e-9)


def test_batches_of_one_example(device, caplog):
    few = {"x": INPUTS[:16], "y": LABELS[:16]}
    (one, _), (other, _) = fitted(device, 4, **few), fitted(device, 1, 4, **few)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert not caplog.records


@pytest.mark.parametrize("is_mean", [True, False])
def test_a_loss_that_is_no_mean_over_its_batch_is_told(caplog, is_mean):
    def loss(outputs, targets):
        xp = xpnet.array_namespace(outputs)
        each = losses.cross_entropy(outputs, targets, reduction="none")
        return xp.mean(each) if is_mean else 0.01 * xp.sum(each)

    fitted(xpnet.device("cpu"), 8, 2, loss=loss, x=INPUTS[:16], y=LABELS[:16])
    assert ("is not the mean of those of its parts" in caplog.text) == (not is_mean)


def test_a_loss_that_takes_no_half_of_a_batch():
    def loss(outputs, targets):
        if targets.shape[0] < 8:
            raise ZeroDivisionError
        return losses.cross_entropy(outputs, targets)

    _, history = fitted(xpnet.device("cpu"), 8, 2, loss=loss, x=INPUTS[:16], y=LABELS[:16])
    assert len(history) == 2


def test_a_batch_that_counts_for_nothing_moves_nothing(device):
    labels = IGNORED.copy()
    labels[:24] = -100
    options = {"loss": ignoring, "y": labels, "shuffle": False}
    expected, history = fitted(device, 24, **options)
    found, accumulated = fitted(device, 6, 4, **options)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(accumulated["loss"], history["loss"], rtol=1e-9)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_lower_precision_gives_about_the_same(precision):
    def loss_of(batch_size, accumulate):
        options = {"batch_size": batch_size, "accumulate": accumulate, "precision": precision}
        return train(network(4, 16, 3), INPUTS, LABELS, **options)["loss"]

    np.testing.assert_allclose(loss_of(8, 4), loss_of(32, 1), rtol=0.01)


def test_weights_of_float16_do_not_overflow():
    x, y = INPUTS.astype("float16"), LABELS
    nets = [network(4, 16, 3, dtype="float16") for _ in range(2)]
    train(nets[0], 1000 * x, y, batch_size=96, optimizer=optim.SGD(1e-6))
    train(nets[1], 1000 * x, y, batch_size=24, accumulate=4, optimizer=optim.SGD(1e-6))
    assert all(np.isfinite(leaf).all() for leaf in weights(nets[1]))
    assert all(np.allclose(a, b, atol=1e-2) for a, b in zip(*map(weights, nets), strict=True))


def test_callbacks_see_whole_steps(device):
    seen = []

    class Note(callbacks.Callback):
        def step_end(self, run):
            seen.append((run.step, run.batch, run.whole))

    with xpnet.use_device(device):
        train(classifier(), X[:48], Y[:48], batch_size=8, accumulate=3, epochs=2, callbacks=[Note()])
    assert seen == [(1, 3, True), (2, 6, True), (3, 3, True), (4, 6, True)]


def test_a_training_goes_on_in_the_middle_of_an_epoch(device, tmp_path):
    options = {
        "batch_size": 4,
        "accumulate": 2,
        "sample_weight": np.arange(60.0),
        "epochs": 2,
        "drop_last": True,
    }
    path = tmp_path / "{step}.safetensors"
    with xpnet.use_device(device):
        net, resumed = classifier(), classifier()
        train(net, callbacks=[callbacks.Checkpoint(path, every=1)], **options)
        train(resumed, resume=tmp_path / "5.safetensors", callbacks=[callbacks.Checkpoint(path)], **options)
    assert same(weights(resumed), weights(net))
    with pytest.raises(ValueError, match=r"resume needs .*'accumulate': 2.* received .*'batch_size': 8"):
        train(resumed, resume=tmp_path / "5.safetensors", **options | {"accumulate": 1, "batch_size": 8})


def test_normalization_sees_each_batch_by_itself(device):
    with xpnet.use_device(device):
        net = nn.Sequential(nn.BatchNorm(3), nn.Dense(3, 2, seed=0))
        train(net, X[:32], Y[:32], batch_size=8, accumulate=4, epochs=1, shuffle=False)
    mean = np.zeros(3)
    for start in range(0, 32, 8):
        mean = 0.9 * mean + 0.1 * X[start : start + 8].mean(axis=0)
    np.testing.assert_allclose(xpnet.to_numpy(net[0].running_mean), mean, rtol=1e-5)


def test_the_same_steps_serve_with_and_without():
    steps = Steps(losses.cross_entropy)
    nets = [classifier() for _ in range(3)]
    train(nets[0], loss=steps, batch_size=30)
    train(nets[1], loss=steps, batch_size=15, accumulate=2)
    train(nets[2], loss=steps, batch_size=30)
    assert same(weights(nets[0]), weights(nets[2]))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(weights(nets[0]), weights(nets[1]), strict=True))


OUTSIDE = {"y": None, "batch_size": None}


def batches(number):
    return [(X[start : start + 4], Y[start : start + 4]) for start in range(0, 4 * number, 4)]


def generated(number):
    return lambda: itertools.islice(iter(batches(number)), number)


def test_batches_from_outside(device):
    with xpnet.use_device(device):
        nets = [classifier() for _ in range(3)]
        options = OUTSIDE | {"accumulate": 2}
        train(nets[0], X[:48], Y[:48], batch_size=8, shuffle=False)
        train(nets[1], batches(12), **options)
        train(nets[2], generated(12), **options)
    assert same(weights(nets[1]), weights(nets[2]))
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(weights(nets[0]), weights(nets[1]), strict=True))


def test_a_nan_is_found_in_its_batch(device):
    x = X.copy()
    x[37, 1] = np.nan
    with xpnet.use_device(device):
        net = classifier()
        before = weights(net)
        with pytest.raises(FloatingPointError, match="epoch 1, batch 8, first in x at row 37, column 1"):
            train(net, x, batch_size=5, accumulate=4, shuffle=False)
    assert same(weights(net), before)


def test_ctrl_c_waits_for_the_end_of_a_step(monkeypatch):
    net = classifier()
    seen = []

    class Press(callbacks.Callback):
        def epoch_start(self, run):
            xpnet.training.interrupts.Interrupts.act = lambda *_, **__: seen.append(run.whole)

    monkeypatch.setattr(xpnet.training.interrupts.Interrupts, "act", lambda *_, **__: None)
    train(net, batch_size=10, accumulate=3, epochs=1, callbacks=[Press()])
    assert seen
    assert all(seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10, "accumulate": 4}, "a multiple of accumulate=4 batches, received 6. .* drop_last"),
        ({"batch_size": 16, "accumulate": 5, "drop_last": True}, "for a step, 80, received 60"),
        ({"batch_size": 61, "drop_last": True}, "enough examples for a step, 61, received 60"),
        ({"accumulate": 0}, "accumulate must be a positive integer, received 0"),
        ({"accumulate": 2.5}, "accumulate must be a positive integer, received 2.5"),
        (OUTSIDE | {"x": batches(5), "accumulate": 2}, "accumulate=2 batches, received 5"),
        (OUTSIDE | {"x": generated(5), "accumulate": 2}, "accumulate=2 batches, received 5"),
        (
            OUTSIDE | {"x": batches(5), "drop_last": True},
            "drop_last must be left out where batches come from outside",
        ),
        (
            {"loss": lambda o, t, sample_weight: 2 * losses.cross_entropy(o, t, sample_weight=sample_weight)}
            | {"sample_weight": np.ones(60), "accumulate": 2},
            r"say what its mean was divided by, received one number, .*\(total, weights\)",
        ),
        (
            {"loss": functools.partial(losses.cross_entropy, reduction="sum"), "accumulate": 2},
            "received one number, or a sum",
        ),
        (
            {"loss": lambda o, t: 2 * through_a_function(o, t), "accumulate": 2},
            r"say what its mean was divided by, received one number",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "changes",
)  # fmt: skip
def test_bad_input_changes_nothing(device, changes, message):
    with xpnet.use_device(device):
        net = classifier()
        before = weights(net)
        with pytest.raises(ValueError, match=message):
            train(net, **changes)
    assert same(weights(net), before)
    assert net.training
