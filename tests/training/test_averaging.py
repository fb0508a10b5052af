"""Averages of the weights, which the network gets in the end."""

import copy
import pickle

import numpy as np
import pytest
from helpers import needs_float16, rounding

import xpnet
from training.cases import X, classifier, same, train, weights
from xpnet import optim
from xpnet.nn import BatchNorm, Dense, Sequential
from xpnet.training.callbacks import Callback, Checkpoint, EarlyStopping, ExponentialMovingAverage


class Keep(Callback):
    """Keeps the weights before the first step and after each."""

    def start(self, run):
        self.weights = [weights(run.net)]

    def step_end(self, run):
        self.weights.append(weights(run.net))


class At(Callback):
    """Does something after a step."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def step_end(self, run):
        if run.step == self.step:
            self.what(run)


def press(_run):
    raise KeyboardInterrupt


def spoil(run):
    run.net = xpnet.tree.map(lambda x: x * float("nan"), run.net)


def normalizing():
    return Sequential(Dense(3, 8, seed=0), BatchNorm(8), Dense(8, 2, seed=1))


def averaged(kept, decay, warmup=False):
    """Return the average of weights as it is written in the docstring, in double precision."""
    means = [x.astype("float64") for x in kept[0]]
    for steps, new in enumerate(kept[1:]):
        share = min(decay, (1 + steps) / (10 + steps)) if warmup else decay
        means = [share * mean + (1 - share) * x for mean, x in zip(means, new, strict=True)]
    return means


def assert_averaged(net, kept, decay, warmup=False):
    for x, mean in zip(weights(net), averaged(kept, decay, warmup), strict=True):
        scale = max(np.abs(mean).max(), 1)
        np.testing.assert_allclose(x, mean, rtol=0, atol=rounding(4 * len(kept), "float32", scale))


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_network_gets_the_average_of_the_weights(device, decay, warmup):
    net, kept, average = classifier(), Keep(), ExponentialMovingAverage(decay, warmup=warmup)
    train(net, callbacks=[kept, average])
    assert len(kept.weights) == 1 + 3 * 4
    assert_averaged(net, kept.weights, decay, warmup)
    assert same(weights(average.net), weights(net))
    assert len(average._averaged._recordings) == 1  # also with a smaller last batch


@pytest.mark.peers
def test_average_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    net = xpnet.tree.map(lambda x: x.astype("float64"), classifier())
    kept, average = Keep(), ExponentialMovingAverage(0.98)
    train(net, callbacks=[kept, average], epochs=25)
    assert len(kept.weights) == 1 + 100
    model = torch.nn.ParameterList([torch.asarray(x) for x in kept.weights[0]])
    expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    for new in kept.weights:
        for parameter, x in zip(model, new, strict=True):
            parameter.data = torch.asarray(x)
        expected.update_parameters(model)  # the first time, it takes them as they are
    for x, mean in zip(weights(net), expected.module, strict=True):
        np.testing.assert_allclose(x, mean.detach().numpy(), rtol=1e-9)


def test_network_is_there_at_any_time(device):
    """With the state of the network as it is, and with arrays that no later step writes over."""
    average, seen, net = ExponentialMovingAverage(0.5), [], normalizing()

    class Look(Callback):
        def step_end(self, run):
            seen.append((average.net, weights(average.net), xpnet.to_numpy(run.net[1].running_mean).copy()))

        def end(self, run):
            seen.append((average.net, weights(average.net), xpnet.to_numpy(run.net[1].running_mean).copy()))

    train(net, callbacks=[Look(), average, Look()], epochs=2)
    for now, then, mean in [*seen, (average.net, weights(net), xpnet.to_numpy(net[1].running_mean))]:
        assert same(weights(now), then)
        assert np.array_equal(xpnet.to_numpy(now[1].running_mean), mean)
        assert not now.training
        assert not now[1].training
    assert not same(seen[0][1], seen[1][1])
    assert not np.array_equal(seen[0][2], seen[-1][2])


def test_weights_may_stay_those_of_the_last_step():
    net, kept, average = classifier(), Keep(), ExponentialMovingAverage(0.8, replace_weights=False)
    train(net, callbacks=[kept, average])
    assert same(weights(net), kept.weights[-1])
    assert_averaged(average.net, kept.weights, 0.8)


def test_average_of_half_precision_does_not_stand_still(device, xp):
    needs_float16(xp)
    net, kept = xpnet.tree.map(lambda x: xp.astype(x, xp.float16), Dense(3, 2, seed=0)), Keep()

    class Grow(Callback):
        """Makes the weights a fifth larger: in float16, a thousandth of that is too little to be added."""

        def epoch_start(self, run):
            if run.epoch == 1:
                run.net = xpnet.tree.map(lambda x: 1.2 * x, run.net)

    callbacks = [Grow(), kept, ExponentialMovingAverage(0.999)]
    train(net, X.astype("float16"), callbacks=callbacks, optimizer=optim.SGD(0.0), batch_size=1, epochs=5)
    mean, first = averaged(kept.weights, 0.999)[0], kept.weights[0][0]
    tolerance = rounding(2, "float16", np.abs(mean).max())
    assert np.abs(mean - first).max() > 10 * tolerance
    assert weights(net)[0].dtype == np.float16
    np.testing.assert_allclose(weights(net)[0], mean, rtol=0, atol=tolerance)


# -- what cuts a training off -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
def test_a_training_that_goes_back_takes_the_average_along(device, is_first):
    net, kept, average = classifier(), Keep(), ExponentialMovingAverage(0.8)
    callbacks = [average, At(6, spoil)] if is_first else [At(6, spoil), average]
    with pytest.raises(FloatingPointError, match="in epoch 2"):
        train(net, callbacks=[kept, *callbacks], jit=False)
    assert_averaged(net, kept.weights[:5], 0.8)
    assert same(weights(average.net), weights(net))


@pytest.mark.parametrize("is_first", [True, False])
def test_ctrl_c_keeps_the_average_of_the_steps_so_far(is_first):
    net, kept, average = classifier(), Keep(), ExponentialMovingAverage(0.8)
    callbacks = [average, At(6, press)] if is_first else [At(6, press), average]
    assert train(net, callbacks=[kept, *callbacks]).interrupted
    assert_averaged(net, kept.weights[: 7 if is_first else 6], 0.8)


def test_an_average_that_is_cut_off_is_not_taken():
    net, kept, average = classifier(), Keep(), ExponentialMovingAverage(0.8)

    def cut_off(run):
        def averaged(mean, *_arguments):
            mean["weights"][0][...] = 7.0
            raise SystemExit

        average._averaged = averaged

    with pytest.raises(SystemExit):
        train(net, callbacks=[kept, At(6, cut_off), average])
    assert_averaged(net, kept.weights[:5], 0.8)


@pytest.mark.parametrize("step", [3, 4, 6])  # inside of an epoch, and at the end of one
@pytest.mark.parametrize("warmup", [False, True])
def test_resumed_average_is_the_uninterrupted_one(tmp_path, device, step, warmup):
    path, expected = tmp_path / "run.safetensors", normalizing()
    train(expected, callbacks=[ExponentialMovingAverage(0.8, warmup=warmup)])
    average = ExponentialMovingAverage(0.8, warmup=warmup)
    stop = At(step + 1, press)
    assert train(normalizing(), callbacks=[average, Checkpoint(path, every=1), stop]).interrupted
    # The same object, or a new one.
    for again in (average, ExponentialMovingAverage(0.8, warmup=warmup)):
        net = normalizing()
        train(net, callbacks=[again], resume=path)
        assert same(weights(net), weights(expected))


def test_a_training_that_is_resumed_inside_of_an_epoch_goes_back_to_there(tmp_path):
    path, kept, net = tmp_path / "run.safetensors", Keep(), classifier()
    average = ExponentialMovingAverage(0.8)
    train(classifier(), callbacks=[kept, average, Checkpoint(path, every=1), At(7, press)])
    with pytest.raises(FloatingPointError, match="in epoch 2"):
        train(net, callbacks=[average, At(8, spoil)], resume=path, jit=False)
    assert_averaged(net, kept.weights[:7], 0.8)


def test_average_of_other_arrays_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    average = ExponentialMovingAverage()
    train(classifier(), callbacks=[average, Checkpoint(path)], epochs=1)

    class Other(Callback):
        def start(self, run):
            average._average["weights"][0] = average._average["weights"][0][:1, :]

    with pytest.raises(ValueError, match=r"no state for ExponentialMovingAverage\.0 that fits"):
        train(classifier(), callbacks=[average, Other()], resume=path)


# -- with others, and again ---------------------------------------------------------------------------------


def test_each_training_has_its_own_average():
    average, net, expected = ExponentialMovingAverage(0.8), classifier(1), classifier(1)
    train(classifier(), callbacks=[average])
    copies = [copy.deepcopy(average), pickle.loads(pickle.dumps(average))]
    train(expected, callbacks=[ExponentialMovingAverage(0.8)])
    train(net, callbacks=[average])
    assert same(weights(net), weights(expected))
    for each in copies:
        assert same(weights(each.net), weights(copies[0].net))
        assert not same(weights(each.net), weights(net))


@pytest.mark.parametrize("is_first", [True, False])
def test_of_average_and_best_weights_the_later_is_taken(is_first):
    net, kept, average = classifier(), Keep(), ExponentialMovingAverage(0.8)
    stopping = EarlyStopping("loss", patience=2, min_delta=10.0)  # the first epoch is the best
    train(net, epochs=9, callbacks=[kept, *([average, stopping] if is_first else [stopping, average])])
    assert len(kept.weights) == 1 + 3 * 4
    assert_averaged(average.net, kept.weights, 0.8)
    expected = kept.weights[4] if is_first else weights(average.net)
    assert same(weights(net), expected)


def test_no_network_before_a_training():
    with pytest.raises(ValueError, match=r"received none so far\. Pass this callback to fit first"):
        _ = ExponentialMovingAverage().net


@pytest.mark.parametrize("decay", [1, -0.1, 1.5])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=f"decay must be at least 0 and less than 1, received {decay}"):
        ExponentialMovingAverage(decay)
