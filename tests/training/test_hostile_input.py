"""Data and functions that are not as they should be: an error that changes nothing, or the right result."""

import numpy as np
import pytest

import xpnet
from training.cases import X, Y, classifier, same, train, weights
from xpnet import losses, metrics, nn, optim
from xpnet.training.callbacks import Callback, EarlyStopping


def trained(x=X, y=Y, **options):
    net = classifier()
    train(net, x, y, **options)
    return weights(net)


def frozen(x):
    x = np.array(x)
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (frozen(X), frozen(Y)),
        (np.asfortranarray(X), Y),
        (np.repeat(X, 2, axis=0)[::2], np.repeat(Y, 2)[::2]),
        (X[::-1][::-1], Y),
        (X.astype(">f8"), Y.astype(">i8")),
        (X.tolist(), Y.tolist()),
        (list(X), tuple(Y)),
        (X.astype(object), Y.astype(object)),
        (np.ma.masked_array(X), np.ma.masked_greater(Y, 1)),
    ],
    ids=[
        "read-only",
        "columns first",
        "every second",
        "reversed",
        "other bytes",
        "lists",
        "sequences",
        "objects",
        "masked nowhere",
    ],
)
def test_layout_of_data_does_not_matter(device, x, y):
    before = np.array(x).tobytes()
    assert same(trained(x, y), trained())
    assert np.array(x).tobytes() == before


@pytest.mark.parametrize(
    "places", [("cpu", "strict:device1"), ("strict", "cpu"), ("strict:device2", "strict")]
)
def test_data_on_other_devices_are_moved(device, places):
    x, y = xpnet.asarray(X, device=places[0]), xpnet.asarray(Y, device=places[1])
    assert same(trained(x, y), trained())


def test_network_on_two_devices(device):
    net = classifier()
    net[2].weight = xpnet.asarray(net[2].weight, device="strict:device2")
    before = weights(net)
    with pytest.raises(xpnet.errors.MixedArraysError, match="must share a library and a device"):
        train(net)
    assert same(weights(net), before)


@pytest.mark.parametrize("batch_size", [60, 10**6, 10**18])
def test_batch_of_all_examples(device, batch_size):
    assert same(trained(batch_size=batch_size), trained(batch_size=60))


@pytest.mark.parametrize("rows", [1, 2])
def test_very_few_examples(device, rows):
    assert np.isfinite(trained(X[:rows], Y[:rows])[0]).all()
    assert xpnet.predict(classifier(), X[:rows]).shape == (rows, 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X[:, None]}, ValueError, r"logits|labels"),
        ({"x": X[:, :2]}, ValueError, "expected 3 features on the last axis, received 2"),
        ({"x": X[:, 0]}, ValueError, "expected 3 features on the last axis, received 16"),
        ({"x": 3.0}, ValueError, "x must have an axis of examples, received a single number"),
        (
            {"x": (X > 0).astype("int64")},
            TypeError,
            r"Dense\(3, 8\) needs floating-point numbers, received .*int64",
        ),
        ({"x": X > 0}, TypeError, r"Dense\(3, 8\) needs floating-point numbers, received .*bool"),
        ({"x": X.astype(str)}, TypeError, "x must hold numbers in rows of equal length"),
        ({"x": [[1.0], [1.0, 2.0]]}, (TypeError, ValueError), "inhomogeneous|rows of equal length"),
        ({"x": [[None, 1.0, 2.0]] * 60}, TypeError, "x must hold numbers .*, received missing values, None"),
        ({"y": [*"ab"] * 30}, TypeError, r"y must hold .* text such as 'a'.*numpy.unique\(y, return_inverse"),
        (
            {"x": np.ma.masked_greater(X, 2)},
            TypeError,
            r"x must hold .* in which 1 are masked.*x\.filled\(value\)",
        ),
        ({"y": np.ma.masked_equal(Y, 1)}, TypeError, "y must hold .* are masked"),
        (
            {"validation": (list(np.ma.masked_greater(X, 2)), Y)},
            TypeError,
            "x of validation must .* 1 are masked",
        ),
        ({"x": None}, (TypeError, ValueError), "x must hold numbers|single number"),
        # What ReLU cannot do, PyTorch says in its own words.
        ({"x": X + 1j}, (TypeError, ValueError, RuntimeError), "real floating-point numbers|complex"),
        ({"y": Y.astype("float64")}, ValueError, r"labels of shape \(batch,\) must be integers"),
        ({"y": Y + 1}, ValueError, "labels must be from 0 to 1 for 2 classes"),
        ({"y": Y - 1}, ValueError, "labels must be from 0 to 1 for 2 classes"),
        ({"y": Y + 2**40}, ValueError, "labels must be from 0 to 1 for 2 classes"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "at least one example"),
        ({"y": Y[:59]}, ValueError, "received 60 in x and 59 in y"),
        ({"x": np.where(X > 1, np.inf, X)}, FloatingPointError, "epoch 1, batch 1, first in x at row 16, "),
        ({"x": np.where(X > 1, np.nan, X)}, FloatingPointError, "epoch 1, batch 1, first in x at row 16, "),
        ({"loss": lambda outputs, _: outputs}, ValueError, r"one number, an array of shape \(\)"),
        (
            {"loss": lambda outputs, y: losses.cross_entropy(outputs, y, reduction="none")},
            ValueError,
            "one number",
        ),
        ({"loss": lambda outputs, y: None}, (TypeError, ValueError), "array|number"),
    ],
)
def test_wrong_input_changes_nothing(device, changes, error, message):
    net = classifier()
    before = weights(net)
    with np.errstate(all="ignore"), pytest.raises(error, match=message):
        train(net, **changes)
    assert same(weights(net), before)


class Broken:
    def epoch_end(self, run):
        pass


class Keras(Callback):
    """Has a method by the name that Keras gives it."""

    def on_epoch_end(self, epoch, logs):
        pass


PAIR_OR_SHARE = r"validation must be \(x, y\), .*, or a share of the examples between 0 and 1, received"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        *(
            ({"validation": share}, ValueError, PAIR_OR_SHARE + " ")
            for share in (np.nan, 0, 0.0, 1, 1.0, 1.5, -0.1, np.float32(1), np.inf)
        ),
        ({"validation": True}, TypeError, PAIR_OR_SHARE + " True"),
        ({"validation": "0.2"}, TypeError, PAIR_OR_SHARE + " '0.2'"),
        ({"validation": X}, TypeError, PAIR_OR_SHARE + " ndarray"),
        ({"validation": {"x": X, "y": Y}}, TypeError, PAIR_OR_SHARE + " dict"),
        ({"validation": (X, Y, Y, Y)}, TypeError, PAIR_OR_SHARE + " a tuple of 4"),
        (
            {"callbacks": EarlyStopping("loss")},
            TypeError,
            r"callbacks must be a list, .*callbacks=\[\.\.\.\]",
        ),
        ({"callbacks": None}, TypeError, "callbacks must be a list, received None"),
        ({"callbacks": [EarlyStopping]}, TypeError, "each of callbacks .* received the class EarlyStopping"),
        (
            {"callbacks": [lambda epoch, logs: None]},
            TypeError,
            r"must take the run alone, function\(run\), received function\(epoch, logs\)",
        ),
        ({"callbacks": [nn.ReLU()]}, TypeError, "each of callbacks must be .* received ReLU"),
        (
            {"callbacks": [Keras()]},
            TypeError,
            "received Keras with on_epoch_end, which nobody would",
        ),
        ({"y": None}, TypeError, "y must be the targets, received None beside ndarray. .* Pass x again"),
        ({"validation": (X,)}, TypeError, PAIR_OR_SHARE + " a tuple of 1[.]$"),
        ({"shuffle": np.True_, "epochs": True}, ValueError, "epochs must be a positive integer"),
        (
            {"callbacks": [EarlyStopping()]},
            ValueError,
            r"received 'validation_loss'\. For this one, pass validation=\(x, y\) or a share to fit",
        ),
        ({"callbacks": ["early"]}, TypeError, "each of callbacks must be .* received 'early'"),
        ({"callbacks": [Broken()]}, TypeError, "received Broken. A subclass of Callback has the methods"),
        (
            {"metrics": "accuracy"},
            TypeError,
            r"metrics must be a list, received 'accuracy'. Write metrics=\[",
        ),
        ({"metrics": None}, TypeError, "metrics must be a list, received None"),
        ({"metrics": {"a": metrics.accuracy}}, ValueError, "need outputs or targets that are dicts, .* 'a'"),
        ({"loss": Broken}, TypeError, "loss must be a function, .* received the class Broken"),
        ({"loss": None}, TypeError, "loss must be a function, .* received None"),
        ({"optimizer": {}}, TypeError, "optimizer must be an optimizer, .* received dict"),
        (
            {"optimizer": optim.clip_by_global_norm(1.0)},
            TypeError,
            r"optimizer must be .* received Transform. Write xpnet.optim.chain\(transform, optimizer\)",
        ),
        ({"optimizer_state": "0.1"}, TypeError, "optimizer_state must be .*, dict, received '0.1'"),
        ({"optimizer_state": {}}, ValueError, "the state must be one of this optimizer"),
        ({"optimizer_state": optim.SGD(0.1).init(classifier())}, ValueError, "with 1 transforms, received 0"),
        ({"shuffle": 1}, TypeError, "shuffle must be True, False or a function of the rows, received int"),
        ({"shuffle": lambda rows: rows - 1}, IndexError, "rows must be from 0 to 59, received -1 to 58"),
        ({"shuffle": lambda rows: rows > 3}, IndexError, "rows must be from 0 to 59, received bool of shape"),
    ],
)
def test_wrong_arguments_change_nothing(device, changes, error, message):
    net = classifier()
    before = weights(net)
    with pytest.raises(error, match=message):
        train(net, **changes)
    assert same(weights(net), before)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (type(classifier()), r"the class Sequential. Make one of the class: Sequential\(\.\.\.\)"),
        (classifier().layers, r"tuple. Write xpnet.nn.Sequential\(\*layers\)"),
        (lambda x: x, "function. xpnet.nn.Lambda makes one"),
        (X, "ndarray. It comes first"),
        (None, "None. It comes first"),
    ],
    ids=["class", "layers", "function", "data", "none"],
)
def test_what_is_no_network(device, net, message):
    for use in (train, lambda net: xpnet.predict(net, X)):
        with pytest.raises(TypeError, match=f"net must be a network, an xpnet.nn.Module, received {message}"):
            use(net)


@pytest.mark.parametrize("share", [np.float32(0.25), np.float64(0.25), np.asarray(0.25)], ids=repr)
def test_numbers_of_numpy_as_a_share(device, share):
    assert same(trained(validation=share), trained(validation=0.25))


def test_validation_in_a_list(device):
    net = classifier()
    assert "validation_loss" in train(net, validation=[X, Y])


def test_a_callback_need_not_be_a_subclass(device):
    class Counting:
        order = steps = 0

        def __getattr__(self, name):
            return lambda *_: None

        def step_end(self, run):
            self.steps += 1

    callback = Counting()
    train(classifier(), callbacks=(callback,))
    assert callback.steps == 12


@pytest.mark.parametrize("hook", ["start", "epoch_start", "step_end", "epoch_end", "end"])
def test_callback_that_raises(device, hook):
    """It is heard, and the network has the weights of the last step or of the last epoch."""

    class Steps(Callback):
        weights = None

        def start(self, run):
            self.weights = [weights(run.net)]

        def step_end(self, run):
            self.weights.append(weights(run.net))

    def broken(run):
        if run.step in (0, 4, 5) or hook == "end":
            raise RuntimeError("of my own")

    net, steps, callback = classifier(), Steps(), Callback()
    setattr(callback, hook, broken)
    with pytest.raises(RuntimeError, match="of my own"):
        train(net, callbacks=[steps, callback])
    assert same(weights(net), steps.weights[-1])
    for x in xpnet.tree.leaves(net):
        assert xpnet.backends.device_of(x) == device
