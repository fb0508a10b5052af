"""Estimators as files: what is saved comes back equal, with its type, or is refused by name."""

import copy
import enum
import functools
import json
import math
import os
import pickle
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pandas
import pytest
import sklearn
from helpers import assert_on
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import xpnet
from xpnet import callbacks, losses, nn, optim
from xpnet.files.networks import read_parts, write_parts
from xpnet.files.tensors import pack, read
from xpnet.optim.bound import Bound
from xpnet.optim.grouping import Groups
from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.arange(40) % 4
SETTINGS = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}


def classifier(**options):
    return MLPClassifier(**(SETTINGS | options))


def regressor(**options):
    return MLPRegressor(**(SETTINGS | options))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes most of the time
    return tmp_path / "estimator.safetensors"


def through_a_file(estimator, path, **options):
    estimator.save(path, **options)
    return type(estimator).load(path)


def refused(estimator, path):
    """Save an estimator; return why that is refused, or nothing."""
    try:
        estimator.save(path)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def assert_equal(a, b):
    """Equal, and of the same types all the way down."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    elif isinstance(a, dict):
        assert_equal([*a.items()], [*b.items()])
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert_equal((a.shape, a.ravel().tolist()), (b.shape, b.ravel().tolist()))
    elif isinstance(a, np.ndarray | np.generic):
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, nn.Module):
        assert_equal({**vars(a)}, {**vars(b)})
    elif sparse.issparse(a):
        assert_equal(a.toarray(), b.toarray())
    elif isinstance(a, np.random.RandomState):
        assert_equal(a.get_state(legacy=False), b.get_state(legacy=False))
    elif isinstance(a, float):
        assert a.hex() == b.hex()
    else:
        assert a == b


# -- parameters --------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: int
    second: int


class Number(enum.IntEnum):
    THREE = 3


class Text(str):
    pass


class Own(nn.Module):
    def __call__(self, x):
        return x


CIRCLE: list = []
CIRCLE.append(CIRCLE)

# What a file can say and what it cannot; which of them a parameter takes is its own affair.
ANYTHING = [
    None, True, False, 0, 1, 3, 2**80, -1, 0.5, -0.0, 1e-3, math.inf, math.nan, 1j,
    "auto", "tanh", "sgd", "adaptive", "focal", "huber",
    "é\ud800", b"x", np.int64(3), np.int8(1), np.uint8(7), np.float32(0.1), np.float64(0.25),
    np.bool_(True), np.str_("relu"), np.longdouble(0.5), np.complex64(1j), np.datetime64("2020-02-02"),
    np.bytes_(b"adam"), np.str_(""), (), [], {}, (4, 2), [4, 2], (np.int64(5),), [np.float32(0.1)], (0.25,),
    ("tanh",), [nn.ReLU()], [[4], (2,)], {0: 2.0, 1: 1},
    {np.int64(0): np.float32(2), "a": 1, True: 3, None: 1, 0.5: 1}, {(1, 2): 3}, OrderedDict(a=1),
    np.asarray([4, 2]), np.asarray([0.1], dtype="float32"), np.asarray(0.5), np.asarray(["a"], dtype="U7"),
    np.asarray(["2020"], dtype="M8[Y]"), np.asarray([1, "a", None], dtype=object),
    np.asarray([nn.ReLU(), nn.ReLU()]),
    np.asarray([[4]], order="F"), np.asarray([4], dtype=">i8"), np.asarray([1j]),
    np.zeros(2, dtype=[("a", "i4")]), np.asarray([np.longdouble(1)]), np.matrix([[4]]),
    np.ma.masked_array([4], mask=[False]), np.rec.array([(4,)]), Pair(4, 2), Number.THREE, Text("relu"),
    {1, 2}, frozenset({3}), range(2, 4), slice(1), CIRCLE, object(), int, len, lambda x: x, Own(), Own,
    nn.ReLU(), nn.LeakyReLU(np.float32(0.5)),
    nn.Sequential(nn.Dense(3, 4, seed=0), nn.Dropout(0.5, seed=1)), nn.Lambda(abs), nn.Dense, losses.huber,
    losses.cross_entropy, functools.partial(losses.huber, delta=2.0), optim.Adam(0.1),
    optim.AdamW(optim.cosine(1e-3, steps=9)), optim.SGD(np.float64(0.5), momentum=0.9),
    optim.chain(optim.clip_by_global_norm(1.0), optim.Lion(1e-3)), optim.LossScaling(optim.Adam(0.1)),
    optim.groups((optim.biases_and_norms, {"beta1": 0.5}), optim.Adam(0.1)),
    optim.one_cycle(0.1, steps=10), optim.constant(1), xpnet.device("cpu"), np.random.RandomState(3),
    np.random.default_rng(0), [callbacks.EarlyStopping("loss")], (X, Y), [X.tolist(), Y.tolist()],
    (X.astype("float32"), np.asarray(["a", "b"])[Y % 2]), (pandas.DataFrame(X), Y),
    (sparse.csr_array(X), Y),
]  # fmt: skip


# Of which types some parameters are kept, at the least.
KEPT = {
    "activation": {str, list, tuple, nn.ReLU, nn.LeakyReLU},
    "alpha": {float, np.float32, np.float64, int},
    "class_weight": {dict, OrderedDict, type(None)},
    "device": {str, type(xpnet.device("cpu")), type(None)},
    "hidden_layer_sizes": {tuple, list, int, np.int64, np.ndarray},
    "loss": {str, type(losses.huber)},
    "max_iter": {int, np.int64, np.int8, np.uint8},
    "optimizer": {optim.Adam, optim.AdamW, optim.SGD, optim.LossScaling, Groups},
    "random_state": {int, np.int64, np.random.RandomState, type(None)},
    "schedule": {type(optim.constant(1)), type(None)},
    "shuffle": {bool, np.bool_},
    "validation_data": {tuple, list, type(None)},
}
PARAMETERS = [(make, name) for make in (classifier, regressor) for name in make().get_params()]


@functools.cache
def fitted_by(make):
    return make().fit(X, Y)


@pytest.mark.parametrize(("make", "name"), PARAMETERS)
def test_parameters_come_back_equal_or_are_refused_by_name(make, name, path):
    fitted = fitted_by(make)
    default, kept = fitted.get_params(), set()
    for value in ANYTHING:
        path.unlink(missing_ok=True)
        estimator = copy.copy(fitted).set_params(**{name: value})
        refusal = refused(estimator, path)
        if refusal:
            assert name in refusal
            assert not path.exists()
            continue
        found = type(fitted).load(path)
        assert_equal(found.get_params(), default | {name: value})
        np.testing.assert_array_equal(found.predict(X), fitted.predict(X))
        kept.add(type(value))
    assert kept >= KEPT.get(name, set())
    assert kept


TRAININGS = {
    "class weights": {"class_weight": {np.int64(0): np.float32(5), 1: 1, np.int8(2): 0.5, 3: np.float64(2)}},
    "widths": {"hidden_layer_sizes": (np.int64(5), 4), "dropout": [np.float32(0.1), 0.2], "batch_norm": True},
    "activations": {"hidden_layer_sizes": [4, 4], "activation": ["tanh", nn.ELU(0.5)]},
    "optimizer": {"optimizer": optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(optim.constant(0.1)))},
    "schedule": {"schedule": optim.one_cycle(0.1, steps=10)},
    "loss": {"loss": losses.cross_entropy},
    "random state": {"random_state": np.random.RandomState(5)},
    "module": {"module": nn.Sequential(nn.Dense(3, 6, seed=0), nn.Dropout(0.2, seed=1), nn.Dense(6, 4))},
    "validation": {"validation_data": (X[:9], Y[:9]), "early_stopping": True},
}  # fmt: skip


@pytest.mark.parametrize("options", TRAININGS.values(), ids=TRAININGS)
def test_a_clone_of_what_was_loaded_fits_to_the_same_weights(options, path):
    estimator = classifier(**options).fit(X, Y)
    loaded = clone(through_a_file(estimator, path)).fit(X, Y)
    again = clone(estimator).fit(X, Y)
    assert_equal(loaded.coefs_, again.coefs_)
    assert loaded.loss_curve_ == again.loss_curve_


# -- what was fitted ---------------------------------------------------------------------------------------

LABELS = {
    "integers": np.asarray([3, 1, 2, 9]),
    "small integers": np.asarray([3, 1, 2, 9], dtype="int8"),
    "texts": np.asarray(["a", "bb", "c", "é"], dtype="U9"),
    "two texts": np.asarray(["no", "yes", "no", "yes"]),
    "objects": np.asarray(["a", "bb", "c", "d"], dtype=object),
    "bools": np.asarray([True, False, True, True]),
    "numbers": np.asarray([1.0, 2.0, 3.0, 5.0]),
    "dates": np.asarray(["2020-01-01", "2021-01-01", "2022-01-01", "1969-07-20"], dtype="datetime64[D]"),
    "one class": np.asarray([7, 7, 7, 7]),
    "sparse": sparse.csr_matrix([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]]),
    "several": np.asarray([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels(labels, path):
    estimator = classifier(calibrate=True, validation_fraction=0.3).fit(X, labels[Y])
    loaded = through_a_file(estimator, path)
    assert_equal(loaded.classes_, estimator.classes_)
    for method in ("predict", "predict_proba"):
        assert_equal(getattr(loaded, method)(X), getattr(estimator, method)(X))
    loaded.set_params(calibrate=False).partial_fit(X, labels[Y])


MORE = {
    "frame": lambda: classifier().fit(pandas.DataFrame(X, columns=["a", "b", "ß"]), Y),
    "poisson": lambda: regressor(loss="poisson", early_stopping=True).fit(X, Y),
    "quantiles": lambda: regressor(loss="quantile", quantile=(0.1, np.float32(0.5))).fit(X, X[:, 0]),
    "several outputs": lambda: regressor().fit(X, X),
    "lbfgs": lambda: classifier(solver="lbfgs").fit(X, Y),
    "sgd": lambda: classifier(solver="sgd", learning_rate="adaptive").fit(X, Y),
    "float32": lambda: classifier().fit(X.astype("float32"), Y),
    "images": lambda: classifier(
        module=nn.Sequential(nn.Conv2d(1, 2, 2, seed=0), nn.Flatten(), nn.Dense(8, 4, seed=1))
    ).fit(np.arange(360.0).reshape(40, 3, 3, 1) % 7, Y),
}


@pytest.mark.parametrize("fit", MORE.values(), ids=MORE)
def test_attributes(fit, path):
    estimator = fit()
    loaded = through_a_file(estimator, path)
    names = {name for name in vars(estimator) if name.endswith("_") and name not in ("network_", "device")}
    assert {name for name in vars(loaded) if name.endswith("_") and name != "network_"} == names
    for name in names:
        assert_equal(getattr(loaded, name), getattr(estimator, name))


GOING_ON = {
    "adam": {},
    "sgd": {"solver": "sgd"},
    "stopping": {"early_stopping": True, "validation_data": (X[:9], Y[:9])},
    "decay": {"weight_decay": 0.1, "optimizer": optim.RMSprop(0.01)},
    "layers": {"batch_norm": True, "dropout": 0.2},
    "groups": {"optimizer": optim.groups((optim.biases_and_norms, {"beta1": 0.5}), optim.Adam(0.1))},
}


@pytest.mark.parametrize("options", GOING_ON.values(), ids=GOING_ON)
def test_partial_fit_goes_on_as_if_nothing_had_happened(options, path):
    estimator = classifier(**options)
    for _ in range(3):
        estimator.partial_fit(X, Y, classes=range(4))
    loaded = through_a_file(estimator, path)
    for each in (estimator, loaded):
        for _ in range(3):
            each.partial_fit(X, Y)
    assert_equal(loaded.coefs_, estimator.coefs_)
    assert loaded.loss_curve_ == estimator.loss_curve_


def test_requests_for_metadata(path):
    estimator = classifier().fit(X, Y)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight="weights")
    loaded = through_a_file(estimator, path)
    for method, requests in (("fit", {"sample_weight": True}), ("score", {"sample_weight": "weights"})):
        assert getattr(loaded.get_metadata_routing(), method).requests == requests


def test_epochs_without_improvement_are_counted_on(path):
    estimator = classifier(tol=10.0, n_iter_no_change=5, validation_data=(X, Y), early_stopping=True)
    for _ in range(4):  # the first improves on nothing
        estimator.partial_fit(X, Y, classes=range(4))
    loaded = through_a_file(estimator, path)
    for _ in range(3):
        assert not estimator.stopped_
        for each in (estimator, loaded):
            each.partial_fit(X, Y)
        assert loaded.stopped_ == estimator.stopped_
    assert estimator.stopped_


def test_a_small_file_for_use(path):
    estimator = classifier(hidden_layer_sizes=(400,)).fit(X, Y)
    estimator.save(path)
    whole = path.stat().st_size
    small = through_a_file(estimator, path, include_optimizer=False)
    assert path.stat().st_size < 0.5 * whole
    assert_equal(small.predict_proba(X), estimator.predict_proba(X))
    small.partial_fit(X, Y)
    with pytest.raises(ValueError, match="include_optimizer must be True or False"):
        estimator.save(path, include_optimizer="no")


def test_device_of_a_loaded_estimator(device, path):
    estimator = classifier(device="cpu").fit(X.astype("float32"), Y)
    estimator.save(path)
    loaded = MLPClassifier.load(path, device=device.spec)
    assert_on(loaded.coefs_[0], device, "float32")
    assert loaded.device == device.spec
    assert (xpnet.to_numpy(loaded.predict(X)) == estimator.predict(X)).mean() > 0.9
    loaded.save(path)
    loaded.partial_fit(X.astype("float32"), Y)


def test_module_of_another_library(device, path):
    with xpnet.use_device(device):
        module = nn.Sequential(nn.Dense(3, 4, seed=0, dtype="float32"))
    estimator = classifier(module=module, device=device.spec).fit(X.astype("float32"), Y)
    loaded = through_a_file(estimator, path)
    assert_equal(xpnet.to_numpy(loaded.module), xpnet.to_numpy(module))


# -- refusals ----------------------------------------------------------------------------------------------


def test_what_cannot_be_saved_leaves_the_old_file(path):
    with pytest.raises(NotFittedError):
        MLPClassifier().save(path)
    estimator = classifier().fit(X, Y)
    estimator.save(path)
    before = path.read_bytes()
    for name, value, reason in (
        ("loss", lambda outputs, y: losses.cross_entropy(outputs, y), "holds the function <lambda>"),
        ("module", Own(), r"holds the module .*Own"),
        ("callbacks", [callbacks.EarlyStopping("loss")], "received EarlyStopping"),
        ("max_iter", -1, "max_iter"),
        ("note_", 5, "note_, 5, is none of those that fit leaves"),
        ("classes_", np.asarray([1j]), "classes_, .* received complex128"),
        ("n_layers_", 5, "n_layers_, 5, would come back as 3"),
        ("network_", None, "network_, None, is no network"),
        ("coefs_", None, "coefs_, None, is not one array for each of 2 dense layers"),
        ("coefs_", ["x", "y"], r"coefs_, \['x', 'y'\], and intercepts_ are no weights: .* received text"),
        ("coefs_", estimator.coefs_[:1], "coefs_, .* is not one array for each of 2 dense layers"),
        ("coefs_", [np.ones((3, 7)), np.ones((7, 4))], "network_ is not the dense layers"),
        ("intercepts_", [[0.0]], "intercepts_, .* is not one array for each of 2 dense layers"),
        ("n_features_in_", 5, r"for 5 features \(n_features_in_\)"),
        ("n_outputs_", 5, r"with n_outputs_=5"),
    ):
        other = pickle.loads(pickle.dumps(estimator))
        setattr(other, name, value)
        with pytest.raises((TypeError, ValueError), match=rf"(?s){reason}"):
            other.save(path)
        assert path.read_bytes() == before


def test_optimizer_that_does_not_fit_its_state(path):
    estimator = classifier(optimizer=optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(0.1))).fit(X, Y)
    estimator.set_params(optimizer=optim.chain(optim.clip_by_global_norm(1.0), optim.RMSprop(0.1)))
    with pytest.raises(TypeError, match=r"optimizer, .* is another than that whose state there is"):
        estimator.save(path)
    estimator.save(path, include_optimizer=False)
    assert MLPClassifier.load(path).optimizer == estimator.optimizer


def test_a_device_that_there_is_not_is_no_damage(path):
    classifier().fit(X, Y).save(path)
    with pytest.raises(ValueError, match=r'^a device spec is one of .* received "gpu"'):
        MLPClassifier.load(path, device="gpu")


def test_load_refuses_other_files(path):
    regressor(max_iter=1).fit(X, Y).save(path)
    with pytest.raises(ValueError, match=r"that MLPClassifier.save wrote, received one of MLPRegressor"):
        MLPClassifier.load(path)
    xpnet.save(nn.Dense(2, 3), path)
    with pytest.raises(ValueError, match=r"received one of xpnet.save"):
        MLPClassifier.load(path)


def test_a_network_alone_can_be_read(path):
    estimator = classifier().fit(X, Y)
    estimator.save(path)
    net = xpnet.load(path)
    np.testing.assert_array_equal(net(X).argmax(1), estimator.predict(X))


def altered(path, change):
    """Alter what a file says of an estimator, and make its checksum right again."""
    arrays, metadata = read(path)
    inner = json.loads(metadata["xpnet"])
    entries = dict(inner["estimator"]["dict"])
    change(entries, dict(entries["fitted"]["dict"]))
    inner["estimator"]["dict"] = [*map(list, entries.items())]
    values = {name: tensor.values for name, tensor in arrays.items()}
    path.write_bytes(b"".join(pack(values, {"xpnet": json.dumps(inner)})))


def set_fitted(name, value):
    def change(entries, fitted):
        entries["fitted"]["dict"] = [*map(list, (fitted | {name: value}).items())]

    return change


def set_parameter(name, value):
    def change(entries, _):
        parameters = dict(map(tuple, entries["parameters"]["dict"])) | {name: value}
        entries["parameters"]["dict"] = [*map(list, parameters.items())]

    return change


DAMAGE = {
    "text of a gigabyte": set_fitted("classes_", {"numpy": "<U500000000", "bytes": ""}),
    "array of a gigabyte": set_fitted("classes_", {"objects": [], "shape": [2**40]}),
    "another attribute": set_fitted("predict", 1),
    "an attribute of Python's": set_fitted("__class__", "int"),
    "classes of another number": set_fitted("classes_", {"objects": [1, 2], "shape": [2]}),
    "no classes": set_fitted("classes_", [1, 2, 3, 4]),
    "a text for a number": set_fitted("n_iter_", "three"),
    "a number below zero": set_fitted("n_iter_", -1),
    "another number of features": set_fitted("n_features_in_", 10**12),
    "another number of outputs": set_fitted("n_outputs_", 3),
    "an unknown link": set_fitted("out_activation_", "__import__"),
    "a temperature below zero": set_fitted("temperature_", -1.0),
    "nested deeply": set_fitted("loss_curve_", functools.reduce(lambda x, _: {"list": [x]}, range(150), 0)),
    "a parameter twice": lambda entries, _: entries["parameters"]["dict"].append(["alpha", 1.0]),
    "an unknown parameter": lambda entries, _: entries["parameters"]["dict"].append(["path", "x"]),
    "a parameter out of range": set_parameter("alpha", -1.0),
    "no parameters": lambda entries, _: entries.pop("parameters"),
    "nothing of the classes": lambda entries, fitted: entries.__setitem__(
        "fitted", {"dict": [[name, x] for name, x in fitted.items() if name != "classes_"]}
    ),
    "nothing fitted": lambda entries, _: entries.__setitem__("fitted", {"dict": []}),
    "other labels": lambda entries, _: entries.__setitem__("labels", "binary"),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files(change, path):
    classifier().fit(X, Y).save(path)
    altered(path, lambda entries, fitted: None)
    MLPClassifier.load(path)
    altered(path, change)
    with pytest.raises(ValueError, match=r"damaged"):
        MLPClassifier.load(path)


def test_a_network_that_fits_nothing_else_in_the_file(path, device):
    estimator = classifier().fit(X, Y)
    estimator.save(path)
    about = read_parts(path).load("estimator", device="cpu")
    in_itself = nn.Dense(3, 4)
    in_itself.bias = np.zeros(7, dtype="float32")
    others = [in_itself, nn.ReLU(), {"net": estimator.network_}, estimator.coefs_[0]]
    for net in (nn.Dense(4, 4), nn.Dense(3, 5), *others):
        write_parts(path, {"net": net, "estimator": about})
        with pytest.raises(ValueError, match=r"is damaged"):
            MLPClassifier.load(path, device=device.spec)


def test_layers_that_fit_does_not_make_are_not_run(path, monkeypatch):
    estimator = classifier().fit(X, Y)
    estimator.save(path)
    about = read_parts(path).load("estimator", device="cpu")
    monkeypatch.setattr(nn.Concatenate, "__call__", lambda *_: pytest.fail("it was run"))
    twice = nn.Concatenate(nn.ReLU(), nn.ReLU())  # thirty of them make gigabytes of a number
    write_parts(path, {"net": nn.Sequential(nn.Dense(3, 4), twice), "estimator": about})
    with pytest.raises(ValueError, match=r"damaged.* network_ is not the dense layers"):
        MLPClassifier.load(path)
    about["parameters"]["module"] = nn.Sequential(twice)  # of the user's, who runs it
    write_parts(path, {"net": nn.Sequential(nn.Dense(3, 4), twice), "estimator": about})
    MLPClassifier.load(path)


def test_arrays_of_layers_that_would_fill_the_memory(path):
    estimator = classifier(batch_norm=True).fit(X, Y)
    estimator.save(path)
    about = read_parts(path).load("estimator", device="cpu")
    for layer, name in (
        (0, "bias"),
        (1, "weight"),
        (1, "bias"),
        (1, "running_mean"),
        (1, "running_variance"),
    ):
        net = pickle.loads(pickle.dumps(estimator.network_))
        setattr(net[layer], name, np.ones((5, 1)))
        write_parts(path, {"net": net, "estimator": about})
        with pytest.raises(ValueError, match=r"damaged.* network_ is not the dense layers"):
            MLPClassifier.load(path)


def test_optimizers_are_not_run(path):
    estimator = classifier(schedule=optim.constant(0.1)).fit(X, Y)
    estimator.save(path)
    parts = read_parts(path)
    names = ("estimator", "improvement", "best", "optimizer")
    about, *rest = (parts.load(name, device="cpu") for name in names)
    state = rest[-1]
    # An initial value of a weight in the place of a learning rate: of any size.
    shape, chance = (30, 30), np.random.RandomState(0)
    about["parameters"]["schedule"] = Bound(nn.initializers._uniform, (shape, chance))
    before = chance.get_state(legacy=False)
    write_parts(path, dict(zip(names, (about, *rest), strict=True), net=estimator.network_))
    assert_equal(MLPClassifier.load(path).schedule.settings[1].get_state(legacy=False), before)
    about["parameters"]["schedule"] = None
    for wrong in ((), {}, {"step": state["step"]}):
        write_parts(path, dict(zip(names, (about, *rest[:-1], wrong), strict=True), net=estimator.network_))
        with pytest.raises(ValueError, match=r"damaged.*the state must be one of this optimizer"):
            MLPClassifier.load(path)
    other = state | {"transforms": ({"mean": [], "mean_square": []},)}
    write_parts(path, dict(zip(names, (about, *rest[:-1], other), strict=True), net=estimator.network_))
    loaded = MLPClassifier.load(path)
    with pytest.raises(ValueError, match=r"the state must be one of this optimizer"):
        loaded.partial_fit(X, Y)
    assert_equal(loaded.predict(X), estimator.predict(X))


@pytest.mark.parametrize("classes", [[3, 1, 0, 2], [0, 1, 2, 2]], ids=["another order", "one twice"])
def test_classes_that_fit_does_not_leave(classes, path):
    estimator = classifier().fit(X, Y)
    estimator.save(path)
    about = read_parts(path).load("estimator", device="cpu")
    about["fitted"]["classes_"] = np.asarray(classes)
    write_parts(path, {"net": estimator.network_, "estimator": about})
    with pytest.raises(ValueError, match=r"damaged.* are not those of multiclass labels"):
        MLPClassifier.load(path)


@pytest.mark.parametrize("count", [-1, "three", 0.5, None])
def test_epochs_without_improvement_that_are_no_number(count, path):
    estimator = classifier().fit(X, Y)
    estimator.save(path)
    about = read_parts(path).load("estimator", device="cpu")
    write_parts(path, {"net": estimator.network_, "estimator": about, "improvement": count})
    with pytest.raises(ValueError, match=r"damaged.* is no number of epochs without improvement"):
        MLPClassifier.load(path)


def test_layer_whose_setting_is_no_number(path):
    estimator = classifier(activation="leaky_relu").fit(X, Y)
    estimator.save(path)
    about = read_parts(path).load("estimator", device="cpu")
    estimator.network_[1].negative_slope = "steep"
    write_parts(path, {"net": estimator.network_, "estimator": about})
    with pytest.raises(ValueError, match=r"damaged.* network_ is not the dense layers"):
        MLPClassifier.load(path)


@pytest.mark.parametrize("state", [{"pos": 2**31}, {"pos": -1}, {"pos": 625}, {"key": np.zeros(3, "uint32")}])
def test_state_of_a_random_generator_that_would_read_elsewhere(state, path):
    estimator = classifier(random_state=np.random.RandomState(0)).fit(X, Y)
    estimator.save(path)

    def change(entries, _):
        parameters = dict(map(tuple, entries["parameters"]["dict"]))
        inner = dict(map(tuple, parameters["random_state"]["random_state"]["dict"]))["state"]["dict"]
        for pair in inner:
            if pair[0] in state:
                value = state[pair[0]]
                pair[1] = value if isinstance(value, int) else {"objects": [0, 0, 0], "shape": [3]}

    altered(path, change)
    with pytest.raises(ValueError, match="damaged"):
        MLPClassifier.load(path)
