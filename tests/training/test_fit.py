import copy
import json
import logging
import math
import pickle
import re

import numpy as np
import pytest
import scipy.sparse
from helpers import assert_on, assert_same, half_of_the_digits, rounding
from sklearn.datasets import load_digits

import xpnet
from training.cases import X, Y, classifier, same, train, weights
from xpnet import losses, optim
from xpnet.nn import Dense, Dropout, ReLU, Sequential

TOLERANCE = half_of_the_digits("float32")  # of weights and losses about 1, after a training


def test_learns(device):
    net = classifier()
    history = train(net, epochs=25, metrics=[xpnet.metrics.accuracy])
    assert len(history) == 25
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["accuracy"][-1] > 0.9
    outputs = xpnet.predict(net, X)
    assert_on(outputs, device, "float32", (60, 2))
    assert (xpnet.to_numpy(outputs).argmax(-1) == Y).mean() > 0.9


def test_agrees_with_a_loop_by_hand(device):
    fitted, by_hand = classifier(), classifier()
    history = train(fitted, optimizer=optim.SGD(0.1, momentum=0.9), epochs=2)

    order = np.random.default_rng(0)
    optimizer = optim.SGD(0.1, momentum=0.9)
    state = optimizer.init(by_hand)
    for epoch in range(2):
        rows, total = order.permutation(60), 0.0
        for start in range(0, 60, 16):
            batch = rows[start : start + 16]
            x = xpnet.asarray(X[batch], device=device, dtype="float32")
            y = xpnet.asarray(Y[batch], device=device)
            value, gradients = xpnet.value_and_grad(lambda net, x, y: losses.cross_entropy(net(x), y))(
                by_hand, x, y
            )
            by_hand, state = optimizer.update(gradients, state, by_hand)
            total += float(value) * len(batch)
        assert history["loss"][epoch] == pytest.approx(total / 60, rel=TOLERANCE)
    for a, b in zip(weights(fitted), weights(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def test_same_training_on_every_library(device):
    here, on_cpu = classifier(), xpnet.to_device(classifier(), "cpu")
    history, expected = train(here), train(on_cpu)
    assert history["loss"] == pytest.approx(expected["loss"], rel=TOLERANCE)
    for a, b in zip(weights(here), weights(on_cpu), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def test_one_seed_gives_the_same_training():
    runs = []
    for seed in (0, 0, 1):
        net = Sequential(Dense(3, 8, seed=0), Dropout(0.3, seed=1), Dense(8, 2, seed=2))
        train(net, seed=seed)
        runs.append(weights(net)[0])
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_network_keeps_its_objects_and_its_mode(device):
    net = classifier().eval()
    layers = list(net)
    train(net)
    assert list(net) == layers
    assert not net.training
    assert all(not layer.training for layer in net)


def test_dropout_is_active_in_training_only(device):
    net = Sequential(Dense(3, 8, seed=0), Dropout(0.5, seed=1), Dense(8, 2, seed=2))
    train(net, validation=(X, Y), epochs=2)
    assert xpnet.to_numpy(net[1].random_state)[1] == 2 * 4  # a draw a step: 4 batches in each of 2 epochs
    first, second = xpnet.predict(net, X), xpnet.predict(net, X)
    assert np.array_equal(xpnet.to_numpy(first), xpnet.to_numpy(second))
    assert xpnet.to_numpy(net[1].random_state)[1] == 8


def test_validation(device):
    net = classifier()
    history = train(net, X[:40], Y[:40], validation=(X[40:], Y[40:]), metrics=[xpnet.metrics.accuracy])
    assert set(history) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}
    outputs = xpnet.to_numpy(xpnet.predict(net, X[40:]))
    assert history["validation_accuracy"][-1] == pytest.approx((outputs.argmax(-1) == Y[40:]).mean())
    held_out = losses.cross_entropy(outputs, Y[40:])
    assert history["validation_loss"][-1] == pytest.approx(float(held_out), rel=rounding(100, "float32"))


def test_validation_share_is_never_trained_on():
    seen = []

    class Spy(Dense):
        def __call__(self, x):
            if self.training:
                seen.append(np.asarray(x.value)[:, 0])
            return super().__call__(x)

    train(Spy(3, 2, seed=0), validation=0.25, epochs=3, jit=False)
    assert len(np.unique(np.concatenate(seen))) == 45


def test_losses_are_read_at_the_end_of_an_epoch(monkeypatch):
    steps, reads = [], []
    read = xpnet.training.totals.to_host
    monkeypatch.setattr(xpnet.training.totals, "to_host", lambda x: reads.append(steps[-1]) or read(x))

    class Count(xpnet.callbacks.Callback):
        def step_end(self, run):
            steps.append(run.step)

    train(classifier(), epochs=5, batch_size=4, callbacks=[Count()])
    assert sorted(set(reads)) == [15, 30, 45, 60, 75]


def test_callbacks_see_every_step_and_epoch(device):
    calls = []

    class Log(xpnet.callbacks.Callback):
        def start(self, run):
            calls.append(("start", run.step))

        def epoch_start(self, run):
            calls.append(("epoch_start", run.epoch))

        def step_end(self, run):
            calls.append(("step", run.step))

        def epoch_end(self, run):
            calls.append(("epoch", run.epoch, round(run.history["loss"][-1], 6)))
            run.stop = run.epoch == 2

        def end(self, run):
            calls.append(("end", run.step))

    history = train(classifier(), callbacks=[Log()], batch_size=30, epochs=5)
    rounded = [round(value, 6) for value in history["loss"]]
    assert calls == [
        ("start", 0),
        ("epoch_start", 1),
        ("step", 1),
        ("step", 2),
        ("epoch", 1, rounded[0]),
        ("epoch_start", 2),
        ("step", 3),
        ("step", 4),
        ("epoch", 2, rounded[1]),
        ("end", 4),
    ]


def test_early_stopping_restores_the_best_weights():
    best = {}

    class Sabotage(xpnet.callbacks.Callback):
        """Makes epochs after the third worse, and notes the weights of the third."""

        def epoch_end(self, run):
            if run.epoch == 3:
                best["weights"] = weights(run.net)
            if run.epoch >= 3:
                run.net = xpnet.tree.map(lambda x: 0 * x, run.net)

    net = classifier()
    stopping = xpnet.callbacks.EarlyStopping("validation_loss", patience=2)
    history = train(net, validation=(X, Y), epochs=50, callbacks=[stopping, Sabotage()])
    assert len(history) == 5
    assert stopping.best_epoch == 3
    for a, b in zip(weights(net), best["weights"], strict=True):
        assert np.array_equal(a, b)


def test_early_stopping_of_a_metric_looks_for_the_largest():
    stopping = xpnet.callbacks.EarlyStopping("accuracy", patience=1)
    history = train(classifier(), metrics=[xpnet.metrics.accuracy], epochs=40, callbacks=[stopping])
    assert history["accuracy"][stopping.best_epoch - 1] == max(history["accuracy"])


def test_learning_rate_schedule(device):
    rates = []

    class Log(xpnet.callbacks.Callback):
        def step_end(self, run):
            rates.append(float(xpnet.to_numpy(run.optimizer_state["learning_rate"])))

    schedule = xpnet.callbacks.LearningRateSchedule(lambda epoch: 0.1 * 0.5**epoch)
    net, by_hand = classifier(), classifier()
    train(net, optimizer=optim.SGD(1.0), callbacks=[schedule, Log()], batch_size=30, epochs=2)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05], rel=rounding(1, "float32"))
    train(by_hand, optimizer=optim.SGD(lambda step: 0.1 * 0.5 ** (step // 2)), batch_size=30, epochs=2)
    for a, b in zip(weights(net), weights(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def test_two_learning_rate_schedules_are_one_too_many():
    schedule = xpnet.callbacks.LearningRateSchedule(lambda epoch: 0.1)
    with pytest.raises(ValueError, match=r"an optimizer whose learning rate is a number.*Use one of the two"):
        train(classifier(), optimizer=optim.SGD(lambda step: 0.1), callbacks=[schedule])


def test_metrics_and_losses_of_half_precision_do_not_overflow():
    half = xpnet.tree.map(lambda x: x.astype("float16"), Dense(3, 2, seed=0))
    x = np.repeat(X, 200, axis=0).astype("float16")
    y = np.repeat(Y, 200)
    history = train(
        half, x, y, epochs=1, batch_size=4, optimizer=optim.SGD(0.0), metrics=[xpnet.metrics.accuracy]
    )
    expected = (xpnet.predict(half, x).argmax(-1) == y).mean()
    assert history["accuracy"] == pytest.approx([expected])
    assert math.isfinite(history["loss"][0])


def test_a_callback_that_raises_is_heard_and_leaves_a_usable_network():
    class Broken(xpnet.callbacks.Callback):
        def epoch_end(self, run):
            raise RuntimeError("of my own")

    net = classifier()
    with pytest.raises(RuntimeError, match="of my own"):
        train(net, callbacks=[Broken()])
    assert all(type(x) is np.ndarray for x in xpnet.tree.leaves(net))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X[:, :2]}, ValueError, "expected 3 features on the last axis, received 2"),
        ({"y": Y + 1}, ValueError, "labels"),
        ({"y": Y - 1}, ValueError, "labels"),
        ({"y": Y[:59]}, ValueError, "received 60 in x and 59 in y"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "at least one example"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer, received 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, received 0"),
        ({"batch_size": 1.5}, ValueError, "batch_size must be a positive integer, received 1.5"),
        ({"validation": X}, TypeError, r"validation must be \(x, y\), .* or a share"),
        ({"validation": (X, Y + 1)}, ValueError, "labels"),
        ({"metrics": ["accuracy"]}, TypeError, "a metric is one of xpnet.metrics"),
        ({"loss": "mse"}, TypeError, "loss must be a function, such as xpnet.losses.*received 'mse'"),
        ({"optimizer": "adam"}, TypeError, r"optimizer must be an optimizer, such as .*received 'adam'"),
        (
            {"optimizer": optim.Adam},
            TypeError,
            r"optimizer must be an optimizer, such as .*received the class Adam",
        ),
        ({"metrics": xpnet.metrics.accuracy}, TypeError, r"metrics must be a list.*Write metrics=\[...\]"),
        ({"metrics": [xpnet.metrics.accuracy] * 2}, ValueError, "each metric needs a name of its own"),
        ({"x": X * np.nan}, FloatingPointError, "the loss must stay finite, but is nan in epoch 1"),
        ({"loss": lambda outputs, _: outputs}, ValueError, r"one number, an array of shape \(\)"),
        (
            {"callbacks": [xpnet.callbacks.EarlyStopping("validation_loss")]},
            ValueError,
            "monitor must be a value of the history, one of loss; received 'validation_loss'",
        ),
    ],
)
def test_bad_input_changes_nothing(device, changes, error, message):
    net = classifier()
    before = weights(net)
    with pytest.raises(error, match=message):
        train(net, **changes)
    for a, b in zip(weights(net), before, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "mae"}, 'whether mae shall be small or large must be said: mode="min" or'),
        ({"patience": 0}, "patience must be a positive integer, received 0"),
        ({"min_delta": -1.0}, "min_delta must be at least 0, received -1.0"),
        ({"mode": "least"}, 'mode must be "min" or "max", received \'least\''),
    ],
)
def test_bad_early_stopping(options, message):
    with pytest.raises(ValueError, match=message):
        xpnet.callbacks.EarlyStopping(**options)


def test_network_has_its_weights_when_callbacks_see_the_end_of_an_epoch(device):
    net, seen = classifier(), []

    class Look(xpnet.callbacks.Callback):
        def epoch_end(self, run):
            seen.append(same(weights(net), weights(run.net)))

    before = weights(net)
    train(net, callbacks=[Look()], epochs=2)
    assert seen == [True, True]
    assert not same(weights(net), before)


def test_progress_bar_shows_loss_metrics_and_speed(capsys, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **(options | {"disable": False}))
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    train(classifier(), metrics=[xpnet.metrics.accuracy], epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert bars[0].n == bars[0].total == 120
    assert "epoch 2/2" in shown
    assert "loss=" in shown
    assert "accuracy=" in shown
    assert "samples/s" in shown


@pytest.mark.parametrize("known", [True, False])
def test_progress_bar_of_batches(monkeypatch, known):
    """What they have in all is said from the beginning, as far as it is known, and rightly after an epoch."""
    import tqdm.auto

    bars, totals = [], []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **(options | {"disable": False}))
            bars.append(self)

    class Look(xpnet.callbacks.Callback):
        def epoch_start(self, run):
            totals.append(bars[0].total)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    batches = [(X[start : start + 16], Y[start : start + 16]) for start in range(0, 60, 16)]
    data = batches if known else lambda: iter(batches)
    train(classifier(), data, None, batch_size=None, epochs=2, callbacks=[Look()], progress=True)
    assert totals == [2 * 4 * 16 if known else None, 120]
    assert bars[0].n == 120


def test_no_progress_makes_no_bar(monkeypatch):
    # One of tqdm's that shows nothing takes a lock, which a signal's handler that raises may leave locked.
    monkeypatch.setattr("tqdm.auto.tqdm", None)
    train(classifier(), epochs=1, progress=False)


def test_progress_bar_stays_out_of_a_log(capsys):
    train(classifier(), progress=True)  # what pytest captures is no terminal
    assert capsys.readouterr().err == ""


def test_real_digits():
    data = load_digits()
    x, y = data.data / 16, data.target
    net = Sequential(Dense(64, 64, seed=0), ReLU(), Dense(64, 10, seed=1))
    train(net, x[:1300], y[:1300], epochs=15, batch_size=32, optimizer=optim.Adam(3e-3))
    accuracy = (xpnet.predict(net, x[1300:]).argmax(-1) == y[1300:]).mean()
    assert accuracy > 0.9


def test_predict(device):
    net = classifier()
    whole = xpnet.predict(net, X, batch_size=100)
    parts = xpnet.predict(net, list(X), batch_size=7)
    assert_on(parts, device, "float32", (60, 2))
    assert_same(parts, whole)
    with pytest.raises(ValueError, match="at least one example"):
        xpnet.predict(net, X[:0])
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        xpnet.predict(net, X, batch_size=-1)


def test_history(tmp_path):
    history = xpnet.History()
    assert len(history) == 0
    history.add({"loss": 2.0, "validation_loss": 3.0})
    history.add({"loss": 1.0, "validation_loss": math.nan})
    assert len(history) == 2
    assert list(history) == ["loss", "validation_loss"]
    assert history["loss"] == [2.0, 1.0]
    assert history.last()["loss"] == 1.0
    assert repr(history) == "History(2 epochs; last: loss=1, validation_loss=nan)"
    with pytest.raises(KeyError, match="the history has loss, validation_loss; received 'accuracy'"):
        history["accuracy"]
    with pytest.raises(KeyError, match="the history has nothing yet; received 'loss'"):
        xpnet.History()["loss"]
    figure = history.plot(tmp_path / "curves.png")
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["training", "validation"]
    assert list(lines[0].get_ydata()) == [2.0, 1.0]
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_history_has_numbers_of_pythons():
    history = xpnet.History()
    history.add({"loss": np.float32(0.5)})
    assert json.dumps(history) == '{"loss": [0.5]}'


def test_a_history_is_a_dict():
    values = {"loss": [2.0, 1.0, 0.5], "accuracy": [0.1, 0.2, 0.3]}
    history = xpnet.History(values)
    assert isinstance(history, dict)
    assert history == values == dict(history) == {**history} == json.loads(json.dumps(history))
    assert list(history.items()) == list(values.items())
    assert (len(history), len(dict(history)), len(history.keys())) == (3, 2, 2)
    assert "loss" in history
    assert "accuracy" in history
    assert history.get("mae") is None
    history.interrupted = True
    for other in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert type(other) is xpnet.History
        assert other == history
        assert other.interrupted
    copy.deepcopy(history).add({"loss": 0.0})
    assert len(history) == 3


def test_a_history_is_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(train(classifier(), metrics=[xpnet.metrics.accuracy]))
    assert frame.shape == (3, 2)
    assert list(frame.columns) == ["loss", "accuracy"]
    assert frame["loss"].is_monotonic_decreasing


def test_order_from_outside(device):
    orders = []

    def backwards(rows):
        orders.append(rows)
        return rows[::-1]

    net, reversed_data = classifier(), classifier()
    train(net, shuffle=backwards, epochs=2)
    train(reversed_data, X[::-1].copy(), Y[::-1].copy(), shuffle=False, epochs=2)
    assert [list(rows) for rows in orders] == [list(range(60))] * 2
    for a, b in zip(weights(net), weights(reversed_data), strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(TypeError, match="shuffle must be True, False or a function of the rows"):
        train(net, shuffle="yes")


def test_dicts_of_inputs_targets_and_outputs(device):
    class Two(Dense):
        def __call__(self, x):
            return {"logits": super().__call__(x["x"])}

    def weighted(outputs, targets):
        return losses.mse(outputs["logits"][:, 0] * targets["weights"], targets["y"] * targets["weights"])

    net = Two(3, 2, seed=0)
    y = {"y": X @ [1.0, -2.0, 0.5], "weights": np.r_[np.ones(30), np.zeros(30)]}
    history = train(net, {"x": X}, y, loss=weighted, optimizer=optim.SGD(0.2), epochs=60)
    assert history["loss"][-1] < 1e-6
    y["y"][30:] = 17.0  # these count for nothing
    assert train(net, {"x": X}, y, loss=weighted, optimizer=optim.SGD(0.2))["loss"][0] < 1e-6


def test_steps_are_recorded_once():
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        return losses.cross_entropy(outputs, targets)

    steps = xpnet.training.Steps(loss)
    nets = [classifier(), classifier()]
    histories = [train(nets[0], loss=steps, validation=0.2)]
    recorded = len(calls)
    histories.append(train(nets[1], loss=steps, validation=0.2))
    assert len(calls) == recorded
    assert histories[0]["validation_loss"] == histories[1]["validation_loss"]


def test_learning_rate_can_be_set():
    class Still(xpnet.callbacks.Callback):
        def epoch_end(self, run):
            run.set_learning_rate(0.0)

    net, once = classifier(), classifier()
    train(net, callbacks=[Still()], epochs=5)
    train(once, epochs=1)
    assert np.array_equal(weights(net)[0], weights(once)[0])


def test_optimizer_state_to_go_on_from(device):
    class Keep(xpnet.callbacks.Callback):
        def end(self, run):
            self.state = run.optimizer_state

    keep, net, whole = Keep(), classifier(), classifier()
    train(net, epochs=2, shuffle=False, callbacks=[keep])
    train(net, epochs=3, shuffle=False, optimizer_state=keep.state)
    train(whole, epochs=5, shuffle=False)
    assert np.array_equal(weights(net)[0], weights(whole)[0])


def test_steps_try_a_network_and_a_loss_once_for_each_kind_of_arrays():
    tried = []

    class Watched(xpnet.nn.Dense):
        def __call__(self, x):
            if not self.training:
                tried.append(x.shape)
            return super().__call__(x)

    steps = xpnet.training.Steps(xpnet.losses.mse)
    for examples in (4, 4, 3, 4):
        net, x = Watched(2, 1, seed=0), np.ones((examples, 2))
        options = {"optimizer": xpnet.optim.SGD(0.1), "epochs": 1, "progress": False}
        xpnet.fit(net, x, x[:, :1], loss=steps, **options)
    assert tried == [(4, 2), (3, 2)]
    with pytest.raises(ValueError, match="features"):
        xpnet.fit(Watched(2, 1, seed=0), x[:, :1], x[:, :1], loss=steps, **options)


def test_a_network_whose_first_layer_is_dense_reads_sparse_batches(device):
    x = scipy.sparse.random_array((50, 80), density=0.02, rng=np.random.default_rng(0))
    y = np.arange(50) % 3

    class Own(xpnet.nn.Module):  # which gets dense batches, as it does not say that it takes others
        def __init__(self, net):
            self.net = net

        def __call__(self, x):
            assert tuple(x.shape)[1] == 80
            return self.net(xpnet.array_namespace(x).abs(x) * 0 + x)

    made = [Sequential(Dense(80, 5, seed=0), ReLU(), Dense(5, 3, seed=1)) for _ in range(2)]
    nets = made[0], Own(made[1])
    assert nets[0].takes_sparse
    assert not nets[1].takes_sparse
    options = {"loss": losses.cross_entropy, "optimizer": optim.Adam(0.01), "epochs": 3, "batch_size": 16}
    histories = [xpnet.fit(net, x, y, seed=0, progress=False, validation=0.2, **options) for net in nets]
    for name in ("loss", "validation_loss"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=TOLERANCE)
    outputs = [xpnet.to_numpy(xpnet.predict(net, x)) for net in nets]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match="expected 80 features on the last axis, received 79"):
        xpnet.predict(nets[0], x.tocsr()[:, :79])


@pytest.mark.parametrize("sparse", [True, False])
def test_a_bad_value_in_a_sparse_matrix_or_in_a_dict_is_found(sparse):
    class Second(xpnet.nn.Dense):
        def __call__(self, x):
            return super().__call__(x["b"])

    x = np.zeros((8, 40))
    x[5, 7] = np.nan
    net = Dense(40, 1, seed=0) if sparse else Second(40, 1, seed=0)
    with pytest.raises(FloatingPointError, match="epoch 1, batch 2, first in x"):
        xpnet.fit(
            net,
            scipy.sparse.csr_array(x) if sparse else {"b": x},
            x[:, :1],
            loss=losses.mse,
            optimizer=optim.SGD(0.1),
            batch_size=4,
            shuffle=False,
            progress=False,
        )


@pytest.mark.parametrize("density", [0.02, 0.5])
@pytest.mark.parametrize("kind", ["int64", "bool"])
def test_a_dense_layer_takes_no_integers_however_many_elements_are_zero(device, density, kind):
    x = scipy.sparse.random_array((50, 80), density=density, rng=np.random.default_rng(0)) > 0
    net = Dense(80, 1, seed=0)
    with pytest.raises(TypeError, match=f"floating-point numbers.* received .*{kind}"):
        train(net, x.astype(kind), np.ones((50, 1)), loss=losses.mse)


def test_a_network_in_half_precision_takes_sparse_matrices():
    x = scipy.sparse.random_array((50, 80), density=0.02, rng=np.random.default_rng(0))
    nets = [xpnet.tree.map(lambda w: w.astype("float16"), Dense(80, 1, seed=0)) for _ in range(2)]
    for net, data in zip(nets, (x, x.toarray()), strict=True):
        train(net, data, np.ones((50, 1)), loss=losses.mse, optimizer=optim.SGD(0.1))
    for a, b in zip(weights(nets[0]), weights(nets[1]), strict=True):
        assert a.dtype == np.float16
        np.testing.assert_allclose(a, b, rtol=0, atol=rounding(12, "float16", abs(b).max()))  # once a step


def test_a_layer_that_does_something_else_with_its_input_than_the_class_above_gets_it_dense(device):
    class Doubled(Dense):
        def __call__(self, x):
            return super().__call__(2 * x)

    class Squared(Sequential):
        def __call__(self, x):
            return super().__call__(x**2)

    class Renamed(Dense):
        pass

    class Taking(Dense):
        takes_sparse = True

        def __call__(self, x):
            return -super().__call__(x)

    x = scipy.sparse.random_array((50, 80), density=0.02, rng=np.random.default_rng(0))
    for net in (Doubled(80, 1, seed=0), Squared(Dense(80, 1, seed=0)), Sequential(Doubled(80, 1, seed=0))):
        assert not net.takes_sparse
        train(net, x, np.ones((50, 1)), loss=losses.mse)
    assert Renamed(80, 1, seed=0).takes_sparse
    assert Taking(80, 1, seed=0).takes_sparse


def test_columns_that_are_lost_in_the_dtype_of_the_network_are_warned_of(caplog):
    def warnings(x, y=Y, **options):
        caplog.clear()
        net = Dense(3, 2, seed=0, dtype=options.pop("dtype", "float32"))
        with caplog.at_level(logging.WARNING, "xpnet"):
            train(net, x, y, epochs=1, **options)
        return [record.getMessage() for record in caplog.records]

    seconds = np.array(X)
    seconds[:, 1] += 1.7e9
    (message,) = warnings(seconds)
    assert re.match(
        r"xpnet: x, column 1 goes from 1699999\d+\.\d+ to 1700000\d+\.\d+, where numbers of", message
    )
    assert "float32 are 2e+02 apart: most of its differences are lost. Subtract its mean first" in message
    assert warnings(seconds, dtype="float64") == []
    assert warnings(seconds.astype("float32")) == []  # what is lost was lost before
    assert warnings(20000 + 10 * X) == []
    assert warnings(np.ones((60, 3))) == []
    (message,) = warnings(X, seconds[:, 1], loss=lambda outputs, y: losses.mse(outputs[:, 0], y))
    assert message.startswith("xpnet: y goes from 16999")
