"""Infinite and NaN values: nobody gets such weights, and it is said where they came from."""

import contextlib
import logging
import math

import numpy as np
import pytest

import xpnet
from training.cases import X, Y, classifier, same, train, weights
from xpnet import losses, optim
from xpnet.nn import BatchNorm, Dense, ReLU, Sequential
from xpnet.training.callbacks import Callback, Checkpoint, EarlyStopping


def with_infinite_gradient(outputs, labels):
    """A finite loss whose gradient is NaN, as that of the square root at 0."""
    xp = xpnet.array_namespace(outputs)
    return losses.cross_entropy(outputs, labels) + xp.sum(xp.sqrt(outputs * 0))


class Spy(Callback):
    """Notes whether what it sees after an epoch is finite."""

    def __init__(self):
        self.epochs = []

    def epoch_end(self, run):
        self.epochs.append(all(np.isfinite(leaf).all() for leaf in weights(run.net)))


@pytest.mark.parametrize("jit", [False, True])
def test_weights_of_the_last_step_are_looked_at(device, tmp_path, jit):
    net, spy, path = classifier(), Spy(), tmp_path / "net.safetensors"
    train(net, epochs=1, callbacks=[Checkpoint(path)])
    good, before = path.read_bytes(), weights(net)
    message = (
        r"^the weights must stay finite, but are not in epoch 1, batch 1, first in layers\.0\.weight\. "
        r"Lower the learning rate.* xpnet\.raise_on_nan names it\. The network has the weights from before"
    )
    options = {"loss": with_infinite_gradient, "epochs": 1, "batch_size": 60, "jit": jit}
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=message):
        train(net, callbacks=[spy, Checkpoint(path)], **options)
    assert same(weights(net), before)
    assert path.read_bytes() == good
    assert spy.epochs == []


def test_a_search_for_the_bad_value_that_fails_leaves_good_weights():
    class Recorded(xpnet.nn.Module):
        """Is trained recorded only, and not step by step as in the search."""

        def __call__(self, x):
            if self.training and type(x) is np.ndarray:
                raise RuntimeError("of my own")
            return x

    net = Sequential(Dense(3, 2, seed=0), Recorded())
    before = weights(net)
    with np.errstate(all="ignore"), pytest.raises(RuntimeError, match="of my own"):
        train(net, loss=lambda outputs, _: outputs[0, 0] * math.inf, epochs=1)
    assert same(weights(net), before)


class Spoil(Callback):
    """Makes the step after so many end with infinite weights."""

    def __init__(self, step):
        self.step = step

    def step_end(self, run):
        if run.step == self.step:
            adam = run.optimizer_state["transforms"][0]
            adam["mean"] = [mean * math.inf for mean in adam["mean"]]


@pytest.mark.parametrize("jit", [False, True])
def test_a_checkpoint_inside_an_epoch_looks_at_the_weights(device, tmp_path, jit):
    net, path = classifier(), tmp_path / "{step}"
    before = weights(net)
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            FloatingPointError, match=r"are not in epoch 1\. Lower the learning rate, or look at what callb"
        ),
    ):
        # The steps that are taken again have the learning rate from before, so that no place is found.
        train(net, callbacks=[Spoil(2), Checkpoint(path, every=1)], batch_size=10, jit=jit)
    assert same(weights(net), before)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "2"]
    for file in tmp_path.iterdir():
        assert all(np.isfinite(leaf).all() for leaf in weights(xpnet.load(file)))


@pytest.mark.parametrize("batch_size", [16, 60])
def test_state_is_looked_at(device, batch_size):
    net = Sequential(Dense(3, 8, seed=0), BatchNorm(8), Dense(8, 2, seed=1))
    x = X * 1e25  # whose variance is infinite in float32, and whose loss is finite
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"first in layers\.1\.running_variance\. Scale x\."),
    ):
        train(net, x, epochs=1, batch_size=batch_size)
    assert xpnet.to_numpy(net[1].running_variance).max() == 1


def test_what_was_infinite_before_is_no_error(device):
    class Masked(xpnet.nn.Module):
        state = ("mask",)

        def __init__(self):
            self.dense = Dense(3, 3, seed=0)
            self.mask = xpnet.asarray([0.0, 0.0, -math.inf], dtype="float32")

        def __call__(self, x):
            return self.dense(x) + self.mask

    net = Masked()
    assert math.isfinite(train(net)["loss"][-1])
    assert xpnet.to_numpy(net.mask)[-1] == -math.inf


def test_a_bad_value_is_named_by_its_place_in_the_data(device):
    def message(x, y=Y, match="", net=None, **options):
        with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=match) as caught:
            train(net or classifier(), x, y, **options)
        assert "learning rate" not in str(caught.value)

    x = np.array(X)
    x[41, 2] = -math.inf
    message(x, match=r"first in x at row 41, column 2, which is -inf in float32\. Leave such examples out")
    x[41, 2] = math.nan
    message(x, match="first in x at row 41, column 2, which is nan")
    images = np.zeros((60, 2, 3))
    images[17, 1, 2] = math.nan
    net = Sequential(xpnet.nn.Flatten(), Dense(6, 2, seed=0))
    message(images, match=r"first in x at row 17, \(1, 2\), which is nan", net=net)
    y = np.array(X[:, 0])
    y[5] = math.nan
    first = {"loss": lambda outputs, y: losses.mse(outputs[:, 0], y), "optimizer": optim.SGD(0.01)}
    message(X, y, match="first in y at row 5, which is nan", **first)
    both = {"x": x, "y": y} | first
    message(**both, match="first in [xy] at row (5|41)", batch_size=60)


@pytest.mark.parametrize("batch_size", [7, 60])
def test_a_bad_value_that_reaches_the_gradient_alone_is_named(device, batch_size):
    def masked(outputs, y):  # its gradient at NaN is 0 times NaN
        xp = xpnet.array_namespace(outputs, y)
        return xp.mean(xp.where(xp.isnan(y), 0.0, (outputs[:, 0] - y) ** 2))

    y = np.array(X[:, 0])
    y[11] = math.nan
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"must stay finite, .*first in y at row 11, which"),
    ):
        train(classifier(), X, y, loss=masked, batch_size=batch_size, shuffle=False)

    class Filled(Dense):
        def __call__(self, x):
            xp = xpnet.array_namespace(x)
            y = super().__call__(x)
            return xp.where(xp.isnan(y), 0.0, y)

    x = np.array(X)
    x[11, 2] = math.nan
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="first in x at row 11, column 2, which is nan"),
    ):
        train(Filled(3, 2, seed=0), x, batch_size=batch_size, shuffle=False)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_bad_value_in_an_epoch_that_is_resumed_is_named(tmp_path, resumed):
    class Keep(Callback):
        def end(self, run):
            self.at = run.epoch, run.batch, run.step, run.totals.sums is None

    x, order = np.array(X), np.random.default_rng(0).permutation(60)
    row = order[7 * 6 + 2]  # in the eighth batch of ten
    options = {"batch_size": 6, "epochs": 1}
    train(classifier(), callbacks=[Checkpoint(tmp_path / "{step}", every=1)], **options)
    x[row, 2] = math.nan
    keep = Keep()
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=rf"epoch 1, batch 8, first in x at row {row}, column 2"),
    ):
        train(classifier(), x, callbacks=[keep], resume=tmp_path / "5" if resumed else None, **options)
    assert keep.at == ((1, 5, 5, False) if resumed else (0, 0, 0, True))


def test_of_two_bad_values_the_one_to_blame_is_named(device):
    class Filled(Dense):
        def __call__(self, x):
            xp = xpnet.array_namespace(x)
            return super().__call__(xp.where(xp.isnan(x), 0.0, x))

    x, y = np.array(X), np.array(X[:, :2])
    x[3, 1] = y[5, 0] = math.nan
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="first in y at row 5, column 0, which is nan"),
    ):
        train(Filled(3, 2, seed=0), x, y, loss=lambda outputs, y: losses.mse(outputs, y), batch_size=60)


def test_what_ends_a_training_leaves_no_bad_weights(device):
    class End(Callback):
        def __init__(self, what):
            self.what = what

        def step_end(self, run):
            if run.step == 2:
                raise self.what

    for what in (KeyboardInterrupt(), RuntimeError("of my own"), SystemExit(1)):
        net = classifier()
        before = weights(net)
        with np.errstate(all="ignore"), contextlib.suppress(RuntimeError, SystemExit):
            history = train(net, np.where(X > 1, np.nan, X), callbacks=[End(what)])
            assert history.interrupted
        assert same(weights(net), before)


@pytest.mark.parametrize("moment", ["start", "epoch_start", "epoch_end", "end"])
def test_weights_that_a_callback_makes_bad_at_any_moment(device, moment):
    def spoil(run):
        run.net = xpnet.tree.map(lambda x: x * math.nan, run.net)

    callback, stopping, net = Callback(), EarlyStopping("loss"), classifier()
    setattr(callback, moment, spoil)
    before = weights(net)
    callbacks = [callback] if moment == "end" else [callback, stopping]  # which has good ones in the end
    with pytest.raises(FloatingPointError, match=r"after a callback changed them\. The network has the"):
        train(net, callbacks=callbacks, epochs=1)
    assert all(np.isfinite(leaf).all() for leaf in weights(net))
    assert same(weights(net), before) == (moment in ("start", "epoch_start"))


def test_going_back_keeps_what_a_callback_assigned_before_the_epoch(device):
    class Assign(Callback):
        def epoch_start(self, run):
            run.net = xpnet.tree.map(lambda x: x * 2, run.net)
            self.assigned = weights(run.net)

        def step_end(self, run):
            if run.epoch == 2:
                raise FloatingPointError("of my own")

    net, assign = classifier(), Assign()
    with pytest.raises(FloatingPointError, match="of my own"):
        train(net, callbacks=[assign])
    assert same(weights(net), assign.assigned)


def test_weights_that_a_callback_made_bad_are_looked_at(device, tmp_path):
    class Break(Callback):
        def epoch_end(self, run):
            good.append(weights(run.net))
            if run.epoch == 2:
                run.net = xpnet.tree.map(lambda x: x * math.nan, run.net)

    for callbacks in ([Break()], [Break(), Checkpoint(tmp_path / "{epoch}")]):
        net, good = classifier(), []
        with pytest.raises(FloatingPointError, match="are not in epoch 2, after a callback changed them"):
            train(net, callbacks=callbacks, epochs=2)
        assert same(weights(net), good[1])
    assert [file.name for file in tmp_path.iterdir()] == ["1"]


def test_a_callback_sees_no_weights_that_another_made_bad(device):
    class Break(Callback):
        def epoch_end(self, run):
            run.net = xpnet.tree.map(lambda x: x * math.nan, run.net)

    spy = Spy()
    with pytest.raises(FloatingPointError, match="are not in epoch 1, after a callback changed them"):
        train(classifier(), callbacks=[spy, Break(), spy])
    assert spy.epochs == [True]


def test_weights_that_a_callback_makes_bad_at_the_start_of_a_resumed_epoch(device, tmp_path):
    class Break(Callback):
        def start(self, run):
            run.net = xpnet.tree.map(lambda x: x * math.nan, run.net)

    net, path = classifier(), tmp_path / "{step}"
    train(classifier(), callbacks=[Checkpoint(path, every=2)], epochs=1)
    with pytest.raises(FloatingPointError, match="are not in epoch 1, after a callback changed them"):
        train(net, callbacks=[Break()], resume=tmp_path / "2", epochs=1)
    assert same(weights(net), weights(xpnet.load(tmp_path / "2")))


def test_a_bad_value_is_named_by_its_column_in_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.array(X), columns=["age", "height", "weight"])
    frame.loc[7, "height"] = math.nan
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="first in x at row 7, column 'height', which is nan"),
    ):
        train(classifier(), frame)


def test_a_network_that_knows_nan_is_not_told_about_it(device):
    class Filled(Dense):
        def __call__(self, x):
            xp = xpnet.array_namespace(x)
            return super().__call__(xp.where(xp.isnan(x), 0.0, x))

    x = np.array(X)
    x[3, 1] = math.nan
    net = Sequential(Filled(3, 8, seed=0), ReLU(), Dense(8, 2, seed=1))
    assert math.isfinite(train(net, x)["loss"][-1])
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"first in the loss\. Lower the learning rate"),
    ):
        train(net, x, loss=lambda outputs, _: outputs[0, 0] * math.inf)


@pytest.mark.parametrize("share", [False, True])
def test_bad_values_in_the_data_for_validation_are_named(device, share):
    net, x, stopping = classifier(), np.array(X), EarlyStopping(patience=2)
    before = weights(net)
    if share:  # the row is that of x, and not that of the share
        order = np.random.default_rng(0).permutation(60)
        x[order[4], 1] = math.nan
        options, place = {"validation": 0.2}, rf"x at row {order[4]}, column 1"
    else:
        x[50, 1] = math.nan
        options, place = {"validation": (x[40:], Y[40:])}, "x of validation at row 10, column 1"
        x = x[:40]
    match = (
        rf"^the validation loss must be finite, but is nan in epoch 1, batch 1, first in {place}, which is"
    )
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=match) as caught:
        train(net, x, Y[: len(x)], callbacks=[stopping], **options)
    assert "learning rate" not in str(caught.value)
    assert same(weights(net), before)


def test_a_validation_loss_that_is_infinite_by_itself_is_warned_of(device, caplog):
    class InfiniteInUse(xpnet.nn.Module):
        def __call__(self, x):
            return x if self.training else x * math.inf

    net = Sequential(Dense(3, 2, seed=0), InfiniteInUse())
    stopping = EarlyStopping(patience=2)
    with np.errstate(all="ignore"), caplog.at_level(logging.WARNING, "xpnet"):
        history = train(net, validation=(X, Y), epochs=5, callbacks=[stopping])
    assert len(history) == 2
    assert stopping.best_epoch == 0
    first, last = (record.getMessage() for record in caplog.records)
    assert "validation loss should be finite, but is nan in epoch 1, batch 1, first in the output of" in first
    assert "no epoch was the best, as validation_loss was nan to the last" in last


def test_an_optimizer_that_stopped_to_move_weights_is_warned_of(device, caplog):
    def loss(outputs, _):
        return losses.mse(outputs, 0 * outputs) * 1e20

    with np.errstate(all="ignore"), caplog.at_level(logging.WARNING, "xpnet"):
        train(classifier(), loss=loss, epochs=1)
    message = caplog.records[-1].getMessage()
    assert "transforms.0.mean_square.0 of the optimizer's state is infinite or NaN" in message
    caplog.clear()
    train(classifier(), epochs=1)
    assert not caplog.records


def test_a_layer_that_is_in_use_stays_so(device):
    net = Sequential(Dense(3, 8, seed=0), BatchNorm(8), Dense(8, 2, seed=1))
    net[1].eval()
    train(net)
    assert xpnet.to_numpy(net[1].running_mean).tolist() == [0.0] * 8
    assert [part.training for part in net] == [True, False, True]
    net.eval()  # all of it: as after predictions
    train(net)
    assert xpnet.to_numpy(net[1].running_mean).any()
    assert not net.training
