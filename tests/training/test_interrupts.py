"""Ctrl-C at any moment, and losses that turn NaN: the weights that are left are whole."""

import math
import signal
import sys
import threading

import numpy as np
import pytest

import xpnet
from training.cases import X, Y, classifier, train, weights
from xpnet import losses
from xpnet.nn import Dense, ReLU, Sequential
from xpnet.training.callbacks import Callback
from xpnet.training.destination import Destination


def test_interrupt_keeps_weights_and_history():
    class Interrupt(Callback):
        ended = False

        def step_end(self, run):
            if run.step == 6:  # in the second epoch of four steps
                self.weights = weights(run.net)
                signal.raise_signal(signal.SIGINT)

        def end(self, run):
            self.ended = True

    net, interrupt = classifier(), Interrupt()
    history = train(net, callbacks=[interrupt])
    assert history.interrupted
    assert len(history) == 1
    assert interrupt.ended
    for a, b in zip(weights(net), interrupt.weights, strict=True):
        assert np.array_equal(a, b)


calls = 0


def pressing(moment, function, number=signal.SIGINT):
    """Call a function, and raise a signal, that of Ctrl-C, at the n-th call that Python makes meanwhile."""
    global calls
    calls = 0

    def count(*_):
        global calls
        calls += 1
        if calls == moment:
            signal.raise_signal(number)

    sys.setprofile(count)
    try:
        return function()
    finally:
        sys.setprofile(None)


class Calls(Callback):
    """Notes how many calls were made when each step ended."""

    def __init__(self):
        self.at = []

    def step_end(self, run):
        self.at.append(calls)


class Steps(Callback):
    """Notes the weights after each step, as they are in a training without interruptions."""

    def __init__(self):
        self.weights = []

    def start(self, run):
        self.weights.append(weights(run.net))

    def step_end(self, run):
        self.weights.append(weights(run.net))


def trained(net, *callbacks, jit):
    return train(net, callbacks=callbacks, epochs=2, batch_size=30, validation=(X, Y), jit=jit)


def moments_of_a_training(jit, many):
    """Return the weights after each step, and moments of the training, counted in Python's calls."""
    steps, ended = Steps(), Calls()
    trained(classifier(), steps, jit=jit)  # also loads what is loaded at the first call
    pressing(0, lambda: trained(classifier(), ended, jit=jit))
    # Most calls record the first step. Some moments are before the ends of the others, and so inside these.
    moments = {
        *range(1, calls, max(calls // (20 * many), 1)),
        *(at - k for at in ended.at for k in range(-150, 150, 75 // many)),
    }
    return steps.weights, sorted(moments)


# Before and after the training, a signal may meet Python while it closes a generator, which swallows it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("many", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment_leaves_whole_weights(jit, many):
    steps, moments = moments_of_a_training(jit, many)
    usual = signal.getsignal(signal.SIGINT)
    ends = set()
    for moment in moments:
        net = classifier()
        try:
            history = pressing(moment, lambda net=net: trained(net, Calls(), jit=jit))
        except KeyboardInterrupt:  # before the training or after it
            history = None
        left = weights(net)
        found = [k for k, each in enumerate(steps) if all(map(np.array_equal, left, each))]
        assert found, f"weights of no step, at call {moment}"
        ends.add((found[0], history is not None and history.interrupted))
        assert signal.getsignal(signal.SIGINT) is usual
    # The numbers of calls differ a little from run to run, so that not each step need be met.
    assert len({step for step, interrupted in ends if interrupted}) >= 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("many", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_handler_that_raises_at_any_moment_leaves_whole_weights(jit, many):
    steps, moments = moments_of_a_training(jit, many)
    usual, ended = signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)), 0
    try:
        for moment in moments:
            net = classifier()
            try:
                pressing(moment, lambda net=net: trained(net, Calls(), jit=jit), signal.SIGTERM)
            except SystemExit:
                ended += 1
            left = weights(net)
            assert any(all(map(np.array_equal, left, each)) for each in steps), f"at call {moment}"
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert ended > len(moments) // 2


def test_an_exception_inside_a_step_goes_back_to_the_epoch_before(device):
    steps, calls = Steps(), []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) == 1 + 6:  # the first call tries the loss, before the training
            raise RuntimeError("of my own")
        return losses.cross_entropy(outputs, targets)

    class End(Callback):
        def end(self, run):
            self.at = run.epoch, run.batch, run.step, run.whole

    net, end = classifier(), End()
    with pytest.raises(RuntimeError, match="of my own"):
        train(net, loss=loss, callbacks=[steps, end], jit=False)
    assert all(map(np.array_equal, weights(net), steps.weights[4]))
    assert end.at == (1, 0, 4, True)


def test_ctrl_c_inside_a_step_waits_for_its_end(device):
    steps, calls = Steps(), []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) == 1 + 6:  # the first call tries the loss, before the training
            signal.raise_signal(signal.SIGINT)
        return losses.cross_entropy(outputs, targets)

    net = classifier()
    assert train(net, loss=loss, callbacks=[steps], jit=False).interrupted
    assert len(steps.weights) == 1 + 6
    assert all(map(np.array_equal, weights(net), steps.weights[6]))


def test_ctrl_c_ends_a_validation(device):
    class Press(xpnet.nn.Module):
        """Presses Ctrl-C with each batch in use, and notes it."""

        def __call__(self, x):
            if not self.training and started:
                pressed.append(1)
                signal.raise_signal(signal.SIGINT)
            return x

    class Start(Callback):
        def start(self, run):  # network and loss were tried before
            started.append(1)

    started, pressed, steps = [], [], Steps()
    net = Sequential(Dense(3, 2, seed=0), Press())
    history = train(net, validation=(X, Y), callbacks=[Start(), steps], jit=False)
    assert history.interrupted
    assert len(history) == 0
    assert len(pressed) == 1
    assert all(map(np.array_equal, weights(net), steps.weights[4]))


class PressAt(Callback):
    """Presses Ctrl-C at the end of a step or of an epoch."""

    def __init__(self, *, step=None, epoch=None):
        self.step, self.epoch = step, epoch

    def step_end(self, run):
        if run.step == self.step:
            signal.raise_signal(signal.SIGINT)

    def epoch_end(self, run):
        if run.epoch == self.epoch:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_at_the_end_of_an_epoch_takes_no_further_step(device):
    steps, net = Steps(), classifier()
    history = train(net, callbacks=[steps, PressAt(epoch=1)])
    assert history.interrupted
    assert len(history) == 1
    assert len(steps.weights) == 1 + 4


def test_weights_are_handed_over_if_the_end_of_a_callback_raises(device):
    class Fail(Callback):
        def end(self, run):
            raise RuntimeError("of my own")

    steps, net = Steps(), classifier()
    with pytest.raises(RuntimeError, match="of my own"):
        train(net, callbacks=[steps, PressAt(step=6), Fail()])
    assert all(map(np.array_equal, weights(net), steps.weights[6]))


def test_weights_are_handed_over_if_a_handler_raises_meanwhile(device, monkeypatch):
    assign, steps, net = xpnet.tree.assign, Steps(), classifier()

    def exit_once(*trees):
        monkeypatch.setattr(xpnet.tree, "assign", assign)
        sys.exit(3)

    monkeypatch.setattr(xpnet.tree, "assign", exit_once)
    with pytest.raises(SystemExit):
        train(net, callbacks=[steps, PressAt(step=2)])
    assert all(map(np.array_equal, weights(net), steps.weights[2]))


def test_a_handler_that_raises_while_the_training_goes_back(device, monkeypatch):
    go_back, steps, net = xpnet.training.Run.go_back, Steps(), classifier()

    def exit_once(run):
        monkeypatch.setattr(xpnet.training.Run, "go_back", go_back)
        sys.exit(3)

    def loss(outputs, targets):
        if len(steps.weights) == 1 + 5:
            raise RuntimeError("inside the sixth step")
        return losses.cross_entropy(outputs, targets)

    monkeypatch.setattr(xpnet.training.Run, "go_back", exit_once)
    with pytest.raises(FloatingPointError):
        train(net, loss=loss, callbacks=[steps], jit=False)
    assert all(map(np.array_equal, weights(net), steps.weights[4]))


def test_ctrl_c_at_each_line_of_a_loop_of_ones_own():
    optimizer, x = xpnet.optim.Adam(0.02), X.astype("float32")

    def step(net, state):
        gradients = xpnet.grad(lambda net: losses.cross_entropy(net(x), Y))(net)
        return optimizer.update(gradients, state, net)

    step, lines, passed = xpnet.jit(step, donate=("net", "state")), 0, []

    def loop(moment):
        """Take three steps, and press Ctrl-C at the n-th line of their replays; return all the weights."""
        nonlocal lines
        lines = 0

        def trace(frame, event, _):
            nonlocal lines
            if frame.f_code.co_filename.startswith("<xpnet plan"):
                lines += event == "line"
                if lines == moment and event == "line":
                    signal.raise_signal(signal.SIGINT)
                return trace
            return None

        net = classifier()
        state, passed[:] = optimizer.init(net), [weights(net)]
        sys.settrace(trace)
        try:
            with xpnet.training.Interrupts() as interrupts:
                for _ in range(3):
                    net, state = step(net, state)
                    passed.append(weights(net))
                    interrupts.act()
        finally:
            sys.settrace(None)
            passed.append(weights(net))

    loop(0)  # which records
    loop(0)
    whole, number = passed[:-1], lines
    assert number >= 2 * 3  # native code does most of a step, as one line
    for moment in range(1, number + 1):
        with pytest.raises(KeyboardInterrupt):
            loop(moment)
        steps = -(-moment * 3 // number)
        assert len(passed) == steps + 2
        assert all(map(np.array_equal, passed[-1], whole[steps]))


def test_second_ctrl_c_does_not_wait(device):
    class Hang(Callback):
        def step_end(self, run):
            if run.step == 6:
                signal.raise_signal(signal.SIGINT)
                assert run.step == 6  # the first is put off
                signal.raise_signal(signal.SIGINT)
                pytest.fail("the second was put off too")

    steps, net = Steps(), classifier()
    history = train(net, callbacks=[steps, Hang()])
    assert history.interrupted
    # Those from before the second epoch, as the step may have been in the middle of its work.
    assert all(map(np.array_equal, weights(net), steps.weights[4]))


def test_handler_of_ones_own_is_asked():
    pressed = []
    usual = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:

        class Press(Callback):
            def step_end(self, run):
                if run.step in (2, 5):
                    signal.raise_signal(signal.SIGINT)

        history = train(classifier(), callbacks=[Press()])
    finally:
        signal.signal(signal.SIGINT, usual)
    assert pressed == [1, 1]
    assert len(history) == 3
    assert not history.interrupted


def test_no_lock_is_left_for_other_threads():
    destination = Destination(xpnet.device("cpu"), np.dtype("float32"))
    found = []
    lock = getattr(vars(Destination)["is_host"], "lock", threading.RLock())  # which Ctrl-C may leave locked
    with lock:
        thread = threading.Thread(target=lambda: found.append(destination.is_host), daemon=True)
        thread.start()
        thread.join(timeout=20)
    assert found == [True]


def test_fit_in_another_thread():
    net, by_itself, histories = classifier(), classifier(), []
    thread = threading.Thread(target=lambda: histories.append(train(net)))
    thread.start()
    thread.join()
    assert histories[0]["loss"] == train(by_itself)["loss"]


# -- losses that turn NaN ---------------------------------------------------------------------------------


def test_a_loss_that_diverges_goes_back_to_the_epoch_before():
    good = {}

    class Break(Callback):
        def epoch_end(self, run):
            good["weights"] = weights(run.net)
            adam = run.optimizer_state["transforms"][0]
            adam["mean"] = [np.full_like(mean, np.inf) for mean in adam["mean"]]

    net = classifier()
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            FloatingPointError,
            match=r"nan in epoch 2, batch 2, first in the weights of layers.0 Dense\. Lower",
        ),
    ):
        train(net, callbacks=[Break()], epochs=5)
    for a, b in zip(weights(net), good["weights"], strict=True):
        assert np.array_equal(a, b)


class Exploding(xpnet.nn.Module):
    """Makes an infinity of large inputs."""

    def __call__(self, x):
        xp = xpnet.array_namespace(x)
        return xp.where(x > 1e6, xp.inf, x)


def bad_rows(rows, value=math.inf):
    x = np.array(X)
    x[rows] = value
    return x


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"x": bad_rows([7], math.nan)}, r"x at row 7, column 0, which is nan\. Leave such examples out"),
        ({"x": bad_rows([7], 1e300)}, r"x at row 7, column 0, which is inf in float32\. Leave"),
        ({"x": bad_rows([7], 1e8)}, r"the output of layers\.1 Exploding\. Lower"),
        (
            {"loss": lambda outputs, y: losses.mse(outputs, y), "y": bad_rows([7])[:, :2]},
            r"y at row 7, column 0, which is inf in float32\. Leave",
        ),
        ({"loss": lambda outputs, y: outputs[0, 0] * math.inf}, r"the loss\. Lower"),
    ],
)
def test_place_of_the_first_bad_value_is_named(device, jit, changes, place):
    net = Sequential(Dense(3, 8, seed=0), Exploding(), ReLU(), Dense(8, 2, seed=1))
    before = weights(net)
    order = np.random.default_rng(0).permutation(60)
    batch = 1 if place.startswith("the loss") else 1 + list(order).index(7) // 16
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=rf"in epoch 1, batch {batch}, first in {place}"),
    ):
        train(net, jit=jit, **changes)
    assert all(map(np.array_equal, weights(net), before))


def test_a_bad_loss_ends_a_long_epoch(monkeypatch):
    monkeypatch.setattr(sys.modules["xpnet.training.loop"], "_LOOK", 0.0)
    steps = Steps()
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="epoch 1, batch 3, first in x"),
    ):
        train(
            classifier(),
            bad_rows([*np.random.default_rng(0).permutation(60)[2:3]]),
            batch_size=1,
            callbacks=[steps],
        )
    assert len(steps.weights) - 1 == 3


def test_a_callback_that_changes_the_steps(monkeypatch):
    class Break(Callback):
        def step_end(self, run):
            if run.step == 6:
                run.net = xpnet.tree.map(lambda x: x * math.nan, run.net)

    with pytest.raises(FloatingPointError, match=r"is nan in epoch 2\. Lower"):
        train(classifier(), callbacks=[Break()])
