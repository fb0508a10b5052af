"""A training that is refused leaves an estimator as it was."""

import copy

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import xpnet
from xpnet import callbacks, nn, optim, tree
from xpnet.errors import NoGradientError
from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 3


class Fails(callbacks.Callback):
    """A callback that raises, at the end of an epoch or at the start of the training."""

    def __init__(self, epoch=0):
        self.epoch = epoch

    def start(self, run):
        if not self.epoch:
            raise RuntimeError("at the start")

    def epoch_end(self, run):
        if run.epoch == self.epoch:
            raise RuntimeError("at the end of an epoch")


def mistakes(outputs, y):
    xp = xpnet.array_namespace(outputs)
    return xp.astype(xp.argmax(outputs, axis=-1) != y, outputs.dtype)


def no_array(outputs, y):
    return None


# Parameters with which any training is refused, and what else `fit` is given.
REFUSED = {
    "NaN": ({}, {"X": np.where(X > 1, np.nan, X)}),
    "one axis": ({}, {"X": X[:, 0]}),
    "lengths": ({}, {"y": Y[1:]}),
    "no y": ({}, {"y": None}),
    "continuous y": ({}, {"y": Y + 0.5}),
    "weights": ({}, {"sample_weight": np.ones(3)}),
    "weights of zero": ({}, {"sample_weight": np.zeros(60)}),
    "weights of classes": ({"class_weight": {0: True}}, {}),
    "unknown classes": ({"class_weight": {7: 1, 0: 2}}, {}),
    "a device": ({"device": "abacus"}, {}),
    "class of optimizers": ({"optimizer": optim.Adam}, {}),
    "optimizer and schedule": ({"optimizer": optim.SGD(0.1), "schedule": optim.constant(0.1)}, {}),
    "one axis of validation": ({"validation_data": (X[:, 0], Y)}, {}),
    "features of validation": ({"validation_data": (X[:, 1:], Y)}, {}),
    "no pair": ({"validation_data": (X,)}, {}),
    "classes of validation": ({"validation_data": (X, Y + 1)}, {}),
    "NaN of validation": ({"validation_data": (X * np.nan, Y)}, {}),
    "a loss without a gradient": ({"loss": mistakes}, {}),
    "no loss": ({"loss": no_array}, {}),
}
# What scikit-learn looks at in the first part only.
PARAMETERS = {
    "a parameter": ({"alpha": -1.0}, {}),
    "a width": ({"hidden_layer_sizes": (5.0,)}, {}),
}
REFUSED_IN_BATCHES = {
    "a callback": ({"callbacks": [Fails()]}, {}),
}
# What is looked at when a training begins anew.
REFUSED_ANEW = {
    "activations": ({"activation": ["tanh", "tanh"]}, {}),
    "an activation": ({"activation": ["swish"]}, {}),
    "dropout": ({"dropout": [0.1, 0.2]}, {}),
    "dropout and lbfgs": ({"dropout": 0.1, "solver": "lbfgs"}, {}),
    "no network": ({"module": lambda n, m: 3}, {}),
    "outputs": ({"module": lambda n, m: nn.Dense(n, m + 1, seed=0)}, {}),
    "a small validation set": ({"early_stopping": True, "validation_fraction": 0.01}, {}),
    "rates": ({"learning_rate_init": 1e300, "solver": "sgd", "batch_size": 10}, {}),
}
# What a training that goes on refuses.
REFUSED_LATER = {
    "features": ({}, {"X": X[:, 1:]}),
    "names of features": ({}, {"X": "with other names"}),
    "another class": ({}, {"y": Y + 1}),
    "several labels": ({}, {"y": np.stack([Y == 0, Y == 1], axis=1)}),
}
REFUSED_PARTS = {
    "no classes": ({}, {"classes": None}),
    "other classes": ({}, {"classes": [0, 1]}),
    "early stopping": ({"early_stopping": True}, {}),
    "balanced": ({"class_weight": "balanced"}, {}),
}
ANEW = REFUSED | PARAMETERS | REFUSED_IN_BATCHES | REFUSED_ANEW
LATER = REFUSED | REFUSED_IN_BATCHES | REFUSED_LATER
# Parameters, how it was trained before, how it is trained, and what is refused then.
STATES = {
    "new": ({}, None, "fit", ANEW),
    "fitted": ({}, "fit", "fit", ANEW),
    "going on": ({"warm_start": True}, "fit", "fit", LATER | PARAMETERS),
    "new, in parts": ({}, None, "partial_fit", REFUSED | PARAMETERS | REFUSED_PARTS),
    "in parts": ({}, "partial_fit", "partial_fit", LATER),
    "lbfgs": ({"warm_start": True, "solver": "lbfgs"}, "fit", "fit", REFUSED | PARAMETERS | REFUSED_LATER),
}


def state_of(estimator, x):
    """Return all attributes but the parameters, copied, and the predictions."""
    parameters = estimator.get_params(deep=False)
    attributes = {name: value for name, value in vars(estimator).items() if name not in parameters}
    try:
        return attributes, copy.deepcopy(attributes), estimator.predict_proba(x)
    except NotFittedError:
        return attributes, copy.deepcopy(attributes), None


def assert_unchanged(estimator, x, before):
    attributes, _, predicted = state_of(estimator, x)
    assert attributes.keys() == before[0].keys()
    assert not any(part.training for part in tree.branches(attributes.get("network_")))
    for name, value in attributes.items():
        assert value is before[0][name], name
        if isinstance(value, list):  # to which nothing was added
            assert repr(value) == repr(before[1][name]), name
    assert (predicted is None) == (before[2] is None)
    assert predicted is None or np.array_equal(predicted, before[2])


CASES = [(state, name) for state, (_, _, _, refused) in STATES.items() for name in refused]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("state", "name"), CASES)
def test_a_refused_training_changes_nothing(state, name):
    options, first, method, refused = STATES[state]
    bad, data = refused[name]
    x = X
    if name == "names of features":
        x = pytest.importorskip("pandas").DataFrame(X, columns=list("abcd"))
        data = {"X": x.rename(columns={"a": "z"})}

    def make():
        estimator = MLPClassifier(hidden_layer_sizes=(3,), max_iter=3, random_state=0, **options)
        return estimator if first is None else train(estimator, first)

    def train(estimator, how, **data):
        classes = {"classes": range(3)} if how == "partial_fit" else {}
        return getattr(estimator, how)(**({"X": x, "y": Y} | classes | data))

    estimator = make()
    before, parameters = state_of(estimator, x), estimator.get_params()
    with pytest.raises((ValueError, TypeError, RuntimeError, NoGradientError)):
        train(estimator.set_params(**bad), method, **data)
    assert_unchanged(estimator, x, before)
    # It trains as if nothing had been.
    again = train(estimator.set_params(**{key: parameters[key] for key in bad}), method)
    assert np.array_equal(again.predict_proba(x), train(make(), method).predict_proba(x))


@pytest.mark.parametrize(
    "y", [Y.astype(str), np.asarray(["2020-01-01", "2021-01-01"], "M8[D]")[Y % 2]], ids=["text", "dates"]
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_targets_of_a_regression_that_are_no_numbers(y, method):
    estimator = MLPRegressor(hidden_layer_sizes=(3,), max_iter=3)
    with pytest.raises(TypeError, match="y must be a dense array of numbers, received an array of"):
        getattr(estimator, method)(X, y)
    assert not hasattr(estimator, "n_features_in_")


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_targets_of_a_regression_for_another_network(method):
    estimator = MLPRegressor(hidden_layer_sizes=(3,), max_iter=3, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="as many outputs as before, 1, received targets for 2"):
        getattr(estimator, method)(X, np.stack([Y, Y], axis=1))
    assert estimator.predict(X).shape == (60,)
    with pytest.raises(
        ValueError, match="targets like those of the training, received 2 columns in place of 1"
    ):
        estimator.set_params(validation_data=(X, np.stack([Y, Y], axis=1))).fit(X, Y)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ((X * np.nan, Y), "Input X contains NaN"),
        ((X[:, 1:], Y), "X has 3 features"),
        (([["free"] * 4] * 60, Y), "could not convert string to float: 'free'"),
        ((X, Y[1:]), "inconsistent numbers of samples"),
        ((X, Y + 1), "`y` has classes not in"),
    ],
    ids=["NaN", "features", "text", "lengths", "classes"],
)
def test_what_is_wrong_with_validation_data_says_so(held_out, message):
    with pytest.raises(ValueError, match=f"validation_data must fit the training: .*{message}"):
        MLPClassifier(hidden_layer_sizes=(3,), validation_data=held_out).fit(X, Y)


@pytest.mark.parametrize(
    "optimizer", [optim.Adam, optim.clip_by_global_norm(1.0)], ids=["class", "transform"]
)
def test_what_is_no_optimizer(optimizer):
    with pytest.raises(TypeError, match=r"optimizer must be an optimizer, such as xpnet.optim.Adam\(1e-3\)"):
        MLPClassifier(hidden_layer_sizes=(3,), optimizer=optimizer).fit(X, Y)


def test_what_is_learned_before_an_error_stays():
    estimator = MLPClassifier(hidden_layer_sizes=(3,), max_iter=9, random_state=0, callbacks=[Fails(epoch=2)])
    with pytest.raises(RuntimeError, match="at the end of an epoch"):
        estimator.fit(X, Y)
    expected = MLPClassifier(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(X, Y)
    assert estimator.loss_curve_ == expected.loss_curve_
    assert np.array_equal(estimator.predict_proba(X), expected.predict_proba(X))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_training_that_goes_on_and_diverges_at_once(method):
    """The best weights of all would be others than the last."""
    options = {"hidden_layer_sizes": (3,), "max_iter": 9, "random_state": 0, "warm_start": True}
    options |= {"solver": "sgd", "batch_size": 10, "learning_rate_init": 3.0}
    estimator = MLPClassifier(**options).fit(X, Y)
    assert np.argmin(estimator.loss_curve_) < 8
    before = state_of(estimator, X)
    with pytest.raises(ValueError, match=r"in epoch 1: lower .*The weights from before are kept"):
        getattr(estimator, method)(1e200 * X, Y)
    assert_unchanged(estimator, X, before)


def test_early_stopping_begins_when_it_is_asked_for():
    """What only one way to stop counts is there when a training goes on with the other."""
    estimator = MLPClassifier(hidden_layer_sizes=(3,), max_iter=3, random_state=0, warm_start=True)
    for early_stopping in (False, True, False):
        estimator.set_params(early_stopping=early_stopping).fit(X, Y)
    assert len(estimator.loss_curve_) == 9
    assert len(estimator.validation_scores_) == 3
