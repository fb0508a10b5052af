import logging
import math

import numpy
import pytest
from helpers import rounding
from sklearn.datasets import load_digits

import xpnet
from training.cases import X, Y, classifier, train, weights
from xpnet import losses, nn, optim
from xpnet.training.callbacks import Callback, Checkpoint, LearningRateSchedule

PRECISIONS = ["float32", "tf32", "float16", "bfloat16"]


class Watch(Callback):
    """Keep the weights and some of the state of the optimizer after each step."""

    def __init__(self):
        self.weights, self.state = [], []

    def step_end(self, run):
        self.weights.append(weights(run.net))
        names = ("loss_scale", "finite_steps", "step")
        self.state.append([float(run.optimizer_state[name]) for name in names])


def digits(precision, *, seed, epochs=15):
    """Return the share of digits that a network has right which it has not seen."""
    x, y = load_digits(return_X_y=True)
    rows = numpy.random.default_rng(seed).permutation(len(x))
    x, y = x[rows] / 16, y[rows]
    net = nn.Sequential(nn.Dense(64, 64, seed=seed), nn.ReLU(), nn.Dense(64, 10, seed=seed + 1))
    rate = optim.cosine(4e-3, steps=epochs * math.ceil(1350 / 32))
    train(
        net, x[:1350], y[:1350], optimizer=optim.Adam(rate), epochs=epochs, batch_size=32, precision=precision
    )
    return (xpnet.to_numpy(xpnet.predict(net, x[1350:])).argmax(axis=1) == y[1350:]).mean()


@pytest.mark.slow
def test_the_digits_are_learned_as_well_in_each_precision():
    accuracy = {name: numpy.mean([digits(name, seed=seed) for seed in range(3)]) for name in PRECISIONS}
    assert accuracy["float32"] > 0.97
    assert all(abs(value - accuracy["float32"]) < 0.005 for value in accuracy.values()), accuracy


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_a_training_in_a_precision_is_nearly_that_in_float32(device, precision):
    exact, net = classifier(), classifier()
    expected, history = train(exact), train(net, precision=precision)
    # Each example errs by a few eps of its own sign, which is 0.8 % in bfloat16: their mean by less.
    assert history["loss"] == pytest.approx(expected["loss"], rel=0.02)
    if precision != "tf32" or not device.spec.startswith("cuda"):  # there it is permitted, and no more
        assert history["loss"] != expected["loss"]
    for a, b in zip(weights(net), weights(exact), strict=True):
        assert a.dtype == numpy.float32
        assert abs(a - b).max() < 0.05


def test_steps_that_overflow_are_skipped_and_the_scale_falls(device):
    watch, net = Watch(), classifier()
    before = weights(net)
    optimizer = optim.LossScaling(optim.Adam(0.02), initial_scale=2.0**24, growth_interval=3)
    history = train(net, optimizer=optimizer, epochs=4, callbacks=[watch], precision="float16")
    assert all(map(math.isfinite, history["loss"]))  # a step that is skipped has a loss
    assert watch.state[0] == [2.0**23, 0, 0]
    skipped = 0
    state = [2.0**24, 0, 0]
    for (scale, finite, steps), now in zip(watch.state, watch.weights, strict=True):
        is_same = all((a == b).all() for a, b in zip(before, now, strict=True))
        if scale < state[0]:
            assert is_same
            assert (scale, finite, steps) == (state[0] / 2, 0, state[2])
            skipped += 1
        else:
            assert not is_same
            grows = state[1] == 2
            assert (scale, finite) == ((2 * state[0], 0) if grows else (state[0], state[1] + 1))
            assert steps == state[2] + 1
        before, state = now, [scale, finite, steps]
    assert 3 <= skipped < len(watch.state) - 5


def test_an_activation_that_overflows_is_an_error(device):
    """The loss itself is NaN then, whatever it is multiplied with."""
    net = classifier()
    before = weights(net)
    large = X * [1e5, 1, 1]
    with pytest.raises(FloatingPointError, match=r"in epoch 1, batch 1.* above 65504 .*bfloat16"):
        train(net, large, precision="float16")
    assert all((a == b).all() for a, b in zip(before, weights(net), strict=True))
    train(net, large, precision="bfloat16")


def test_a_scaled_loss_is_reported_as_it_is(device):
    exact = train(classifier(), epochs=1)["loss"]
    assert train(classifier(), epochs=1, precision="float16")["loss"] == pytest.approx(
        exact, rel=rounding(10, "float16")
    )
    scaling = optim.LossScaling(optim.Adam(0.02))
    assert train(classifier(), epochs=1, optimizer=scaling)["loss"] == pytest.approx(
        exact, rel=rounding(100, "float32")
    )


@pytest.mark.parametrize("step", [None, 6])
def test_a_resumed_training_has_the_scale_that_it_had(tmp_path, device, step):
    optimizer = optim.LossScaling(optim.Adam(0.02), initial_scale=2.0**24, growth_interval=3)
    options = {"optimizer": optimizer, "epochs": 4, "precision": "float16"}
    expected, watch = classifier(), Watch()
    history = train(expected, **options, callbacks=[watch])
    path = tmp_path / "run.safetensors"

    class Stop(Callback):
        order = 2000

        def step_end(self, run):
            if run.step == (step or 8):
                raise RuntimeError

    net, again = classifier(), Watch()
    with pytest.raises(RuntimeError):
        train(net, **options, callbacks=[Checkpoint(path, every=step), Stop()])
    resumed = classifier(seed=7)
    assert train(resumed, **options, resume=path, callbacks=[again])["loss"] == history["loss"]
    assert again.state == watch.state[-len(again.state) :]
    assert all((a == b).all() for a, b in zip(weights(resumed), weights(expected), strict=True))


def test_a_learning_rate_schedule_and_a_state_to_go_on_from(device):
    kept = {}

    class Keep(Callback):
        def end(self, run):
            kept.update(run.optimizer_state)

    def go_on(**options):
        schedule = LearningRateSchedule(lambda epoch: 0.01 / (epoch + 1))
        train(net, **options, optimizer_state=kept or None, epochs=2, callbacks=[schedule, Keep()])
        return kept

    net = classifier()
    state = dict(go_on())
    assert "loss_scale" not in state
    state = dict(go_on(precision="float16"))
    assert float(state["loss_scale"]) == 65536
    assert float(state["step"]) == 16
    assert float(state["learning_rate"]) == pytest.approx(0.005, rel=rounding(10, "float32"))
    assert float(go_on()["step"]) == 24


def test_steps_know_their_precision(device):
    steps = xpnet.training.Steps(losses.cross_entropy, precision="bfloat16")
    one, other = classifier(), classifier()
    train(one, loss=steps)
    train(other, precision="bfloat16")
    assert all((a == b).all() for a, b in zip(weights(one), weights(other), strict=True))
    with pytest.raises(
        ValueError, match=r"that of the steps, 'bfloat16', received 'float16'.*Steps\(loss, prec"
    ):
        train(one, loss=steps, precision="float16")


def test_validation_is_of_the_precision(device):
    scores = {}
    for precision in ("float32", "bfloat16"):
        history = train(classifier(), optimizer=optim.SGD(0.0), validation=(X, Y), precision=precision)
        scores[precision] = history["validation_loss"][0]
    assert scores["bfloat16"] == pytest.approx(scores["float32"], rel=0.01)  # about eps
    assert scores["bfloat16"] != scores["float32"]


def test_precisions_that_there_are_not():
    net = classifier()
    before = weights(net)
    with pytest.raises(ValueError, match=r"precision='float16' needs jit=True"):
        train(net, precision="float16", jit=False)
    with pytest.raises(ValueError, match=r"precision must be one of .*received 'double'"):
        train(net, precision="double")
    assert all((a == b).all() for a, b in zip(before, weights(net), strict=True))


def test_what_cannot_be_recorded_says_that_the_precision_is_lost(caplog):
    def loss(outputs, targets):
        value = losses.cross_entropy(outputs, targets)
        return value if value > 0 else -value

    with caplog.at_level(logging.WARNING):
        train(classifier(), loss=loss, precision="bfloat16")
    assert "without jit, which is slower, and in float32 in place of bfloat16." in caplog.text
