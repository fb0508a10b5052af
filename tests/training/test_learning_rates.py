"""Learning rates that callbacks set: those that fall when nothing improves."""

import numpy as np
import pytest

import xpnet
from training.cases import classifier, same, train, weights
from xpnet import optim
from xpnet.training import Run
from xpnet.training.callbacks import Callback, Checkpoint, CSVLogger, LearningRateSchedule, ReduceLROnPlateau

RATE = 0.5


def rates_of(callback, values, rate=RATE):
    """Return the learning rate after each epoch of a training in which a score has some values."""
    net, optimizer = xpnet.tree.map(lambda x: x.astype("float64"), classifier()), optim.SGD(rate)
    run = Run(net, optimizer, optimizer.init(net), len(values), ("score",))
    callback.start(run)
    rates = []
    for value in values:
        run.history.add({"score": value})
        callback.epoch_end(run)
        rates.append(float(run.learning_rates[0]))
    return rates


def test_rate_falls_when_nothing_improves():
    callback = ReduceLROnPlateau("score", mode="max", factor=0.5, patience=2, min_delta=0.1, cooldown=1)
    values = [1.0, 2.0, 2.05, 2.1, 2.0, 2.0, 2.0, 2.5, 2.5, float("nan"), 3.0]
    falls = [False, False, False, True, False, False, True, False, False, True, False]
    assert rates_of(callback, values) == [RATE * 0.5 ** sum(falls[: n + 1]) for n in range(len(falls))]


def test_rate_does_not_fall_below_the_minimum():
    settings = {"mode": "min", "factor": 0.5, "patience": 1}
    assert rates_of(ReduceLROnPlateau("score", minimum=0.2, **settings), [1.0] * 4) == [0.5, 0.25, 0.2, 0.2]
    assert rates_of(ReduceLROnPlateau("score", minimum=1.0, **settings), [1.0] * 3) == [0.5, 0.5, 0.5]


@pytest.mark.peers
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(10))
def test_rate_falls_as_that_of_pytorch(seed, mode):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(seed)
    # Few values, so that some are equal, with a trend, and some that are no numbers.
    values = np.round(random.normal(size=300).cumsum() / 4, 1)
    values[random.uniform(size=300) < 0.02] = np.nan
    patience, cooldown = int(random.integers(1, 5)), int(random.integers(0, 4))
    min_delta, factor = float(random.choice([0.0, 0.1, 0.3])), float(random.uniform(0.5, 0.99))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode,
        factor=factor,
        patience=patience - 1,
        threshold=min_delta,
        threshold_mode="abs",
        cooldown=cooldown,
        min_lr=1e-3,
        eps=0.0,
    )
    expected = []
    for value in values:
        scheduler.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    callback = ReduceLROnPlateau(
        "score",
        mode=mode,
        factor=factor,
        patience=patience,
        min_delta=min_delta,
        cooldown=cooldown,
        minimum=1e-3,
    )
    found = rates_of(callback, values.tolist())
    assert len(set(found)) > 5
    np.testing.assert_allclose(found, expected, rtol=1e-12)


class Rates(Callback):
    """Notes the learning rate of each step, and ends a training after one as Ctrl-C does."""

    def __init__(self, last=None):
        self.last, self.rates = last, []

    def step_end(self, run):
        self.rates.append(float(xpnet.to_numpy(run.optimizer_state["learning_rate"])))
        if run.step == self.last:
            raise KeyboardInterrupt


def plateau():
    return ReduceLROnPlateau("loss", factor=0.25, patience=2, min_delta=10.0, cooldown=2)


def test_rate_of_the_steps_falls(device):
    rates = Rates()
    train(classifier(), optimizer=optim.SGD(0.5), batch_size=60, epochs=8, callbacks=[plateau(), rates])
    assert rates.rates == [0.5, 0.5, 0.5, *[0.125] * 4, 0.03125]


@pytest.mark.parametrize("step", [2, 4, 7])  # in the epochs that count, and in those that do not
def test_resumed_plateau_is_the_uninterrupted_one(tmp_path, step):
    path, expected, net = tmp_path / "run.safetensors", classifier(), classifier()
    settings = {"optimizer": optim.SGD(0.5), "batch_size": 60, "epochs": 12}
    train(expected, callbacks=[plateau()], **settings)
    train(classifier(), callbacks=[plateau(), Checkpoint(path), Rates(step + 1)], **settings)
    train(net, callbacks=[plateau()], resume=path, **settings)
    assert same(weights(net), weights(expected))


@pytest.mark.parametrize(
    "callback", [plateau(), LearningRateSchedule(lambda epoch: 0.1)], ids=["plateau", "schedule"]
)
def test_a_schedule_beside_another_is_refused(callback):
    net = classifier()
    before = weights(net)
    with pytest.raises(
        ValueError, match=r"needs an optimizer whose learning rate is a number.*one of the two"
    ):
        train(net, optimizer=optim.SGD(lambda step: 0.1), callbacks=[callback])
    assert same(weights(net), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1.0}, r"factor must be above 0 and below 1, received 1\.0"),
        ({"factor": 0}, "factor must be above 0 and below 1, received 0"),
        ({"patience": 0}, "patience must be a positive integer, received 0"),
        ({"cooldown": -1}, "cooldown must be an integer of at least 0, received -1"),
        ({"minimum": -0.1}, r"minimum must be at least 0, received -0\.1"),
        ({"min_delta": -0.1}, r"min_delta must be at least 0, received -0\.1"),
        ({"mode": "least"}, 'mode must be "min" or "max", received \'least\''),
        ({"monitor": "score"}, "whether score shall be small or large must be said"),
    ],
)
def test_bad_plateau(options, message):
    with pytest.raises(ValueError, match=message):
        ReduceLROnPlateau(**options)


def test_plateau_of_an_unknown_value():
    with pytest.raises(
        ValueError, match=r"one of loss; received 'validation_loss'\. For this one, pass validation"
    ):
        train(classifier(), callbacks=[ReduceLROnPlateau()])


# -- optimizers of one's own --------------------------------------------------------------------------------


class Plain:
    """An optimizer of one's own, whose state has no learning rate that others know of."""

    def __init__(self, state):
        self.state = state

    def init(self, params):
        return self.state

    def update(self, grads, state, params):
        return xpnet.tree.map(lambda p, g: p - 0.1 * g, params, grads), state


STATES = {
    "nothing": (),
    "a tuple": (np.zeros(3),),
    "None": None,
    "another dict": {"momentum": np.zeros(3)},
    "other groups": {"groups": np.zeros(3)},
    "groups without": {"groups": [{"momentum": np.zeros(3)}]},
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_an_optimizer_without_learning_rates(tmp_path, state):
    path, found = tmp_path / "log.csv", []
    table = CSVLogger(path)
    note = lambda run: found.append(run.learning_rates)
    history = train(classifier(), optimizer=Plain(state), callbacks=[table, note], epochs=2)
    assert found == [(), ()]
    assert path.read_text().splitlines()[0] == "epoch,loss"
    assert [float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]] == history["loss"]


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize(
    "callback",
    [plateau(), LearningRateSchedule(lambda epoch: 0.1), lambda run: run.set_learning_rate([])],
    ids=["plateau", "schedule", "set"],
)
def test_a_learning_rate_that_is_not_there_is_not_set(state, callback):
    net = classifier()
    before = weights(net)
    with pytest.raises(ValueError, match=r"the optimizer must keep a learning rate in its state .*Plain"):
        train(net, optimizer=Plain(state), callbacks=[callback])
    assert callable(callback) or same(weights(net), before)


def test_an_optimizer_of_ones_own_with_a_learning_rate(tmp_path):
    class Own(Plain):
        def update(self, grads, state, params):
            return xpnet.tree.map(lambda p, g: p - state["learning_rate"] * g, params, grads), state

    state = {"learning_rate": np.asarray(0.1, dtype="float32")}
    net, expected, path = classifier(), classifier(), tmp_path / "log.csv"
    halve = LearningRateSchedule(lambda epoch: 0.5**epoch)
    train(net, optimizer=Own(state), callbacks=[halve, CSVLogger(path)])
    train(expected, optimizer=optim.SGD(0.1), callbacks=[halve])
    assert same(weights(net), weights(expected))
    assert [line.split(",")[-1] for line in path.read_text().splitlines()] == [
        "learning_rate",
        "1.0",
        "0.5",
        "0.25",
    ]


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (-0.1, "at least 0"),
        (np.asarray(-0.1), "at least 0"),
        ([np.ones(2)], "an array of shape"),
        ([], "received 0"),
    ],
    ids=["negative", "a negative array", "several", "none"],
)
def test_what_is_no_rate_is_not_set(rate, message):
    net, optimizer = classifier(), optim.SGD(0.1)
    run = Run(net, optimizer, optimizer.init(net), 1, ("loss",))
    with pytest.raises(ValueError, match=message):
        run.set_learning_rate(rate)
    assert float(run.learning_rates[0]) == np.float32(0.1)


def test_a_number_in_the_state_of_ones_own_optimizer_is_no_array():
    run = Run(classifier(), Plain(None), {"learning_rate": 0.1}, 1, ("loss",))
    assert run.learning_rates == ()
    with pytest.raises(ValueError, match="must keep a learning rate in its state"):
        run.set_learning_rate(0.5)
