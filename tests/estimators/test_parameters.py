"""Parameters of the estimators: which numbers they take, and what is refused by name."""

from numbers import Integral

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from xpnet.sklearn import MLPClassifier, MLPRegressor
from xpnet.sklearn.parameters import Number, Numbers

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3))
Y = np.arange(40) % 3
SETTINGS = {"hidden_layer_sizes": (5, 4), "max_iter": 4, "random_state": 0, "batch_size": 16}
STOPS = {"max_iter": 30, "n_iter_no_change": 1}
SGD = {"solver": "sgd", "learning_rate_init": 0.1}

# A number, and the other parameters with which it matters.
NUMBERS = {
    "hidden_layer_sizes": (7, {}),
    "alpha": (0.3, {}),
    "batch_size": (7, {}),
    "learning_rate_init": (0.003, {}),
    "power_t": (0.3, SGD | {"learning_rate": "invscaling"}),
    "max_iter": (3, {}),
    "random_state": (3, {}),
    # In float32, one less 1e-8 is one.
    "tol": (1e-8, STOPS | {"learning_rate_init": 1e-9, "batch_size": 40}),
    "momentum": (0.7, SGD),
    "validation_fraction": (0.3, {"early_stopping": True}),
    "beta_1": (0.7, {}),
    "beta_2": (0.7, {}),
    "epsilon": (0.1, {}),
    "n_iter_no_change": (2, STOPS | {"tol": 10.0}),
    "max_fun": (3, {"solver": "lbfgs"}),
    "dropout": (0.3, {}),
    "weight_decay": (0.3, {}),
    "quantile": (0.3, {"loss": "quantile"}),
}
CONSTRAINTS = MLPClassifier._parameter_constraints | MLPRegressor._parameter_constraints
TAKES_NUMBERS = {
    name: next(each for each in kinds if isinstance(each, Number))
    for name, kinds in CONSTRAINTS.items()
    if any(isinstance(each, Number) for each in kinds)
}


def trained(options):
    """Return an estimator that has these parameters, trained."""
    estimator = MLPRegressor if options.get("loss") == "quantile" else MLPClassifier
    return clone(estimator(**SETTINGS | options)).fit(X, Y)


def assert_same_fit(found, expected):
    assert (found.n_iter_, found.loss_) == (expected.n_iter_, expected.loss_)
    for a, b in zip(found.coefs_, expected.coefs_, strict=True):
        assert np.array_equal(a, b)


def test_all_numbers_are_tried():
    assert NUMBERS.keys() == TAKES_NUMBERS.keys()


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpy_train_as_pythons(name):
    value, others = NUMBERS[name]
    kinds = [np.int64, np.uint8] if isinstance(value, int) else [np.float64, np.float32]
    value = kinds[1](value).item()  # one that all kinds have, such as 0.10000000149011612
    expected = trained(others | {name: value})
    for same in (*(kind(value) for kind in kinds), np.asarray(kinds[1](value))):
        assert_same_fit(trained(others | {name: same}), expected)
    without = trained(others | ({"tol": 0.0} if name == "tol" else {}))
    assert (without.n_iter_, without.loss_) != (expected.n_iter_, expected.loss_)  # the number matters


SEVERAL = [
    ("hidden_layer_sizes", (5, 4), [(np.int64(5), 4), [np.uint8(5), np.int32(4)], range(5, 3, -1)]),
    ("hidden_layer_sizes", [5, 4], [np.array([5, 4]), np.array([5, 4], "uint8")]),
    ("hidden_layer_sizes", (), [[], np.array([], int)]),
    ("dropout", [0.5, 0.25], [(np.float32(0.5), 0.25), np.array([0.5, 0.25], "float16")]),
    ("dropout", [0, 0.5], [[np.int64(0), np.float32(0.5)]]),
    ("quantile", (0.25, 0.5), [[np.float32(0.25), 0.5], np.array([0.25, 0.5], "float32")]),
    ("activation", ["relu", "tanh"], [np.array(["relu", "tanh"]), (np.str_("relu"), "tanh")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "same"), SEVERAL, ids=lambda value: str(value)[:20])
def test_sequences_of_numbers(name, value, same):
    others = {"loss": "quantile"} if name == "quantile" else {}
    expected = trained(others | {name: value})
    for each in same:
        found = trained(others | {name: each})
        assert_same_fit(found, expected)
        assert np.array_equal(found.predict(X), expected.predict(X))
        assert name in repr(found)


FLAGS = [name for name, kinds in CONSTRAINTS.items() if kinds in (["boolean"], ["verbose"])]


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_numpy(name):
    for flag in (True, False):
        assert_same_fit(trained({name: np.bool_(flag)}), trained({name: flag}))


def test_numbers_without_an_end():
    for infinite in (np.inf, np.float64(np.inf), np.float32(np.inf)):
        assert trained({"n_iter_no_change": infinite, "max_iter": 30, "tol": 10.0}).n_iter_ == 30


NO_NUMBERS = [
    True,
    False,
    np.True_,
    "1",
    None,
    np.nan,
    1j,
    np.array([[0.1]]),
    {0.1},
    {0.1: 0.1},
    ("0.1",),
    "0.1",
    -1,
]
NO_INTEGERS = [2.0, np.float64(2.0), 2.5, 0]


@pytest.mark.parametrize("name", TAKES_NUMBERS)
def test_what_is_no_such_number_is_refused(name):
    constraint = TAKES_NUMBERS[name]
    wrong = NO_NUMBERS + (NO_INTEGERS if constraint.type is Integral else [])
    wrong = [value for value in wrong if not (name == "random_state" and value in (None, 0))]
    if isinstance(constraint, Numbers):
        wrong += [[value] for value in wrong] + [np.asarray([value]) for value in (True, -1, np.nan, "1")]
    for value in wrong:
        estimator = MLPRegressor(loss="quantile") if name == "quantile" else MLPClassifier()
        with pytest.raises(InvalidParameterError, match=rf"(?s)The '{name}' parameter of .* must be .*Got"):
            estimator.set_params(**{name: value}).fit(X, Y)
        assert not hasattr(estimator, "n_features_in_")


def test_as_many_as_there_are_layers():
    for name, value in (("dropout", np.array([0.1])), ("activation", np.array(["relu"] * 3))):
        with pytest.raises(
            ValueError, match=f"{name} as a list must have one entry for each of the 2 hidden"
        ):
            trained({name: value})
    with pytest.raises(ValueError, match="quantile must have at least one number, received an empty list"):
        trained({"loss": "quantile", "quantile": []})
