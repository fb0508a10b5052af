"""The estimators beside scikit-learn's: the same curves, attributes, errors and warnings."""

import inspect
import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from helpers import half_of_the_digits
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import (
    check_classifiers_multilabel_output_format_predict_proba,
    parametrize_with_checks,
)

import xpnet
from xpnet import callbacks
from xpnet.sklearn import MLPClassifier, MLPRegressor

# Trainings of a few epochs do not converge. Until 1.7, scikit-learn asks SciPy for what that is to remove.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning"),
]

TOLERANCE = half_of_the_digits("float64")  # of weights, losses and scores, after a training
OURS = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}
X, Y = load_digits(return_X_y=True)
X, Y = X[:600] / 16, Y[:600]
X_REG, Y_REG = load_diabetes(return_X_y=True)
X_REG, Y_REG = 20 * X_REG, Y_REG / 100
SEVERAL = np.stack([Y_REG, Y_REG**2, 1 - Y_REG], axis=1)
LABELS = np.stack([Y % 2, Y > 4, Y % 3 == 0], axis=1).astype(int)
WEIGHTS = np.random.default_rng(0).random(600)

CASES = {
    "classes": ("MLPClassifier", X, Y, {}),
    "unscaled inputs": ("MLPClassifier", 160 * X, Y, {}),
    "two hidden layers": ("MLPClassifier", X, Y, {"hidden_layer_sizes": (30, 20), "activation": "tanh"}),
    "until it stops": ("MLPClassifier", X, Y, {"max_iter": 200, "tol": 0.02}),
    "identity": ("MLPClassifier", X, Y, {"activation": "identity", "alpha": 2.0}),
    "adam": ("MLPClassifier", X, Y, {"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-3}),
    "logistic": (
        "MLPClassifier",
        X,
        Y,
        {"activation": "logistic", "solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5},
    ),
    "adaptive": (
        "MLPClassifier",
        X,
        Y,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "tol": 0.05,
            "learning_rate_init": 0.1,
            "max_iter": 200,
            "n_iter_no_change": 3,
        },
    ),
    "momentum": ("MLPClassifier", X, Y, {"solver": "sgd", "nesterovs_momentum": False, "shuffle": False}),
    "no momentum": ("MLPClassifier", X, Y, {"solver": "sgd", "momentum": 0, "batch_size": 64}),
    "early stopping": ("MLPClassifier", X, Y, {"early_stopping": True, "max_iter": 60}),
    "two classes": ("MLPClassifier", X, Y % 2, {"early_stopping": True}),
    "labels": ("MLPClassifier", X, LABELS, {"early_stopping": True}),
    "words": ("MLPClassifier", X, np.asarray(["even", "odd"])[Y % 2], {}),
    "lbfgs": ("MLPClassifier", X, Y, {"solver": "lbfgs"}),
    "lbfgs, labels": ("MLPClassifier", X, LABELS, {"solver": "lbfgs"}),
    "regression": ("MLPRegressor", X_REG, Y_REG, {"early_stopping": True}),
    "several outputs": ("MLPRegressor", X_REG, SEVERAL, {"early_stopping": True}),
    "poisson": ("MLPRegressor", X_REG, Y_REG, {"loss": "poisson", "early_stopping": True}),
    "lbfgs, regression": ("MLPRegressor", X_REG, SEVERAL, {"solver": "lbfgs"}),
    "lbfgs, poisson": ("MLPRegressor", X_REG, Y_REG, {"solver": "lbfgs", "loss": "poisson"}),
}


def both(name, options):
    options = {"max_iter": 12, "random_state": 0, "hidden_layer_sizes": (20,)} | options
    return getattr(neural_network, name)(**options), OURS[name](**options)


def assert_same_training(ours, theirs, x):
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=TOLERANCE)
    for name in ("t_", "n_outputs_", "n_layers_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_"):
        expected = getattr(theirs, name, None)
        assert (getattr(ours, name, None) is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_allclose(
                getattr(ours, name), expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
    for a, b in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
    for name in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(theirs, name):
            found, expected = getattr(ours, name)(x), getattr(theirs, name)(x)
            assert found.dtype == expected.dtype
            if found.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=TOLERANCE)
            else:
                assert np.array_equal(found, expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_same_curve_and_predictions(case, weighted):
    name, x, y, options = CASES[case]
    theirs, ours = both(name, options)
    weights = WEIGHTS[: len(y)] if weighted else None
    assert ours.fit(x, y, weights) is ours
    theirs.fit(x, y, weights)
    assert_same_training(ours, theirs, x)
    assert ours.score(x, y, weights) == pytest.approx(theirs.score(x, y, weights), rel=TOLERANCE)


@pytest.mark.parametrize("name", OURS)
def test_same_parameters(name):
    ours = inspect.signature(OURS[name]).parameters
    theirs = inspect.signature(getattr(neural_network, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for parameter in theirs:
        assert (ours[parameter].default, ours[parameter].kind) == (
            theirs[parameter].default,
            theirs[parameter].kind,
        )


@parametrize_with_checks([MLPClassifier(max_iter=60), MLPRegressor(max_iter=60)])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
def test_lbfgs_is_as_sure_of_labels_as_scikit_learns():
    """One check of several labels needs probabilities below 1, and is failed by both classes alike."""
    for peer in (MLPClassifier, neural_network.MLPClassifier):
        with pytest.raises(AssertionError, match="strictly ordered"):
            check_classifiers_multilabel_output_format_predict_proba(peer.__name__, peer(solver="lbfgs"))


@pytest.mark.parametrize("container", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse(container, solver):
    theirs, ours = both("MLPClassifier", {"solver": solver})
    assert_same_training(ours.fit(container(X), Y), theirs.fit(container(X), Y), container(X))


@pytest.mark.parametrize("targets", ["classes", "labels"])
@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"early_stopping": True}])
def test_sparse_with_few_elements(options, targets):
    few = scipy.sparse.random_array((600, 300), density=0.02, rng=np.random.default_rng(0), format="csr")
    theirs, ours = both("MLPClassifier", options)
    y = {"classes": Y, "labels": LABELS}[targets]
    assert_same_training(ours.fit(few, y, WEIGHTS), theirs.fit(few, y, WEIGHTS), few)
    assert_same_training(ours, theirs, few[:1])


def test_sparse_lbfgs_goes_through_the_data_in_parts(monkeypatch):
    monkeypatch.setattr("xpnet.sklearn.lbfgs.NUMBERS_IN_BATCH", 64 * 100)
    theirs, ours = both("MLPClassifier", {"solver": "lbfgs"})
    sparse = scipy.sparse.csr_array(X)
    assert_same_training(ours.fit(sparse, Y, WEIGHTS), theirs.fit(sparse, Y, WEIGHTS), sparse)


@pytest.mark.parametrize("options", [{}, {"solver": "sgd", "learning_rate": "invscaling"}])
@pytest.mark.parametrize("case", ["classes", "two classes", "labels", "several outputs"])
def test_partial_fit(case, options):
    name, x, y, _ = CASES[case]
    theirs, ours = both(name, options)
    classes = {} if name == "MLPRegressor" else {"classes": range(3) if y.ndim == 2 else np.unique(y)}
    for rows in (slice(0, 250), slice(250, 260), slice(100, 400), slice(0, 250)):
        for estimator in (theirs, ours):
            estimator.partial_fit(x[rows], y[rows], **classes)
    assert_same_training(ours, theirs, x)


def test_partial_fit_goes_on_after_fit():
    theirs, ours = both("MLPClassifier", {})
    for estimator in (theirs, ours):
        estimator.fit(X, Y).partial_fit(X, Y)
    assert_same_training(ours, theirs, X)


def test_another_solver_begins_anew():
    ours = MLPClassifier(random_state=0).partial_fit(X, Y, classes=range(10))
    for options in ({"solver": "sgd"}, {"momentum": 0.0}, {"solver": "adam"}):
        ours.set_params(**options).partial_fit(X, Y)
    assert len(ours.loss_curve_) == 4


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_start(solver, early_stopping):
    theirs, ours = both(
        "MLPClassifier", {"warm_start": True, "solver": solver, "early_stopping": early_stopping}
    )
    for estimator in (theirs, ours):
        estimator.fit(X, Y).set_params(max_iter=5).fit(X, Y)
    if early_stopping and solver != "lbfgs":  # there, scikit-learn trains on in its best weights
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=TOLERANCE)
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=TOLERANCE)
    else:
        assert_same_training(ours, theirs, X)


def test_float32_stays():
    theirs, ours = both("MLPClassifier", {})
    x = X.astype("float32")
    ours.fit(x, Y), theirs.fit(x, Y)
    assert {a.dtype for a in ours.coefs_ + ours.intercepts_} == {np.dtype("float32")}
    assert ours.predict_proba(x).dtype == np.float32
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=half_of_the_digits("float32"))


def test_weights_put_in_by_hand_are_used():
    theirs, ours = both("MLPClassifier", {})
    for estimator in (theirs, ours):
        estimator.fit(X, Y)
        estimator.coefs_[1] = 2 * estimator.coefs_[1]
        estimator.intercepts_[0][:] = 0
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=TOLERANCE)


@pytest.mark.parametrize("copy", [lambda x: pickle.loads(pickle.dumps(x)), clone, "joblib"])
def test_copies(copy, tmp_path):
    ours = MLPClassifier(max_iter=5, random_state=0).fit(X, Y)
    expected = MLPClassifier(max_iter=5, random_state=0).fit(X, Y).partial_fit(X, Y)
    if copy == "joblib":
        joblib.dump(ours, tmp_path / "mlp.joblib")
        copied = joblib.load(tmp_path / "mlp.joblib")
    else:
        copied = copy(ours)
    if copy is clone:
        assert not hasattr(copied, "coefs_")
        copied.fit(X, Y)
    assert np.array_equal(copied.predict_proba(X), ours.predict_proba(X))
    copied.partial_fit(X, Y)
    assert np.array_equal(copied.predict_proba(X), expected.predict_proba(X))


def test_pipeline_grid_search_and_cross_validation():
    theirs, ours = (make_pipeline(StandardScaler(), each) for each in both("MLPClassifier", {}))
    assert np.array_equal(cross_val_score(ours, X, Y, cv=3), cross_val_score(theirs, X, Y, cv=3))
    search = GridSearchCV(ours, {"mlpclassifier__hidden_layer_sizes": [(2,), (30,)]}, cv=3, n_jobs=2)
    search.fit(X, Y)
    assert search.best_params_ == {"mlpclassifier__hidden_layer_sizes": (30,)}
    assert "MLPClassifier" in search._repr_html_()


def test_metadata_routing():
    with sklearn.config_context(enable_metadata_routing=True):
        ours = MLPClassifier().set_fit_request(sample_weight=True).set_partial_fit_request(classes=True)
        assert ours.get_metadata_routing().fit.requests == {"sample_weight": True}
        scores = []
        for each in both("MLPClassifier", {}):
            each.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            scores.append(cross_val_score(each, X, Y, cv=2, params={"sample_weight": WEIGHTS}))
            assert not np.array_equal(scores[-1], cross_val_score(each, X, Y, cv=2))
    assert np.array_equal(*scores)


def test_set_output_of_a_pipeline():
    pytest.importorskip("pandas")
    _, ours = both("MLPRegressor", {})
    pipeline = make_pipeline(StandardScaler(), ours).set_output(transform="pandas").fit(X_REG, Y_REG)
    names = list(pipeline[:-1].get_feature_names_out())
    assert list(ours.feature_names_in_) == names
    assert pipeline.predict(X_REG).shape == Y_REG.shape


def test_feature_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X_REG, columns=[f"column {i}" for i in range(10)])
    ours = MLPRegressor(max_iter=3, early_stopping=True).fit(frame, Y_REG)
    assert list(ours.feature_names_in_) == list(frame.columns)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        ours.predict(X_REG)


def test_verbose(capsys):
    theirs, ours = both(
        "MLPClassifier", {"verbose": True, "early_stopping": True, "tol": 0.5, "n_iter_no_change": 2}
    )
    theirs.fit(X, Y)
    expected = capsys.readouterr().out
    ours.fit(X, Y)
    assert capsys.readouterr().out == expected


def test_ctrl_c_keeps_what_is_learned():
    class CtrlC(callbacks.Callback):
        def epoch_start(self, run):
            if run.epoch == 31:
                raise KeyboardInterrupt

    ours = MLPClassifier(callbacks=[CtrlC()], random_state=0)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        ours.fit(X, Y)
    assert ours.n_iter_ == 30
    assert ours.score(X, Y) > 0.5


# -- bad input -----------------------------------------------------------------------------------------------

BAD = {
    "NaN": (np.where(X[0, 2] == X, np.nan, X), Y),
    "infinite": (np.where(X[0, 2] == X, np.inf, X), Y),
    "one axis": (X[0], Y),
    "lengths": (X, Y[:-1]),
    "no examples": (X[:0], Y[:0]),
    "no y": (X, None),
    "text": (np.full((600, 2), "a"), Y),
    "complex": (X * 1j, Y),
    "y NaN": (X, np.where(Y == 0, np.nan, Y)),
    "continuous classes": (X, Y + 0.5),
    "weights": (X, Y, WEIGHTS[:-1]),
    "weights NaN": (X, Y, np.full(600, np.nan)),
    "weights of two axes": (X, Y, np.ones((600, 2))),
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_as_scikit_learns(name, case):
    theirs, ours = both(name, {"max_iter": 1})
    outcomes = []
    for estimator in (theirs, ours):
        try:
            estimator.fit(*BAD[case])
            outcomes.append(None)
        except Exception as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]
    assert hasattr(ours, "coefs_") == (outcomes[0] is None)


BAD_PARAMETERS = [
    {"hidden_layer_sizes": -1},
    {"activation": "abc"},
    {"solver": "newton"},
    {"alpha": -1},
    {"batch_size": 0},
    {"learning_rate": "fast"},
    {"learning_rate_init": 0},
    {"max_iter": -3},
    {"shuffle": "yes"},
    {"tol": -1},
    {"momentum": 2},
    {"validation_fraction": 1.0},
    {"beta_1": 1},
    {"epsilon": 0},
    {"n_iter_no_change": 0},
    {"random_state": "seed"},
]


def test_weights_of_zero():
    with pytest.raises(ValueError, match="at least one non-zero number"):
        MLPClassifier().fit(X, Y, np.zeros(600))
    # A batch whose examples count for nothing leaves the rest alone.
    weights = np.r_[np.ones(400), np.zeros(200)]
    options = {"shuffle": False, "solver": "sgd", "momentum": 0.0, "alpha": 0.0, "random_state": 0}
    some = MLPClassifier(max_iter=5, **options).fit(X, Y, weights)
    without = MLPClassifier(max_iter=5, **options).fit(X[:400], Y[:400])
    np.testing.assert_allclose(some.coefs_[0], without.coefs_[0], atol=TOLERANCE)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("options", BAD_PARAMETERS, ids=str)
def test_bad_parameters(name, options):
    for estimator in both(name, options):
        with pytest.raises(InvalidParameterError, match=f"The '{next(iter(options))}' parameter"):
            estimator.fit(X, Y)


def test_not_fitted():
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)
    with pytest.raises(NotFittedError):
        MLPRegressor().predict(X)


def test_classes_of_partial_fit():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(X, Y)
    ours = MLPClassifier().partial_fit(X[:50], Y[:50], classes=range(10))
    with pytest.raises(ValueError, match="`y` has classes not in"):
        ours.partial_fit(X[:1], [17])
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        MLPClassifier(early_stopping=True).partial_fit(X, Y, classes=range(10))


def test_number_of_features():
    ours = MLPClassifier(max_iter=2).fit(X, Y)
    with pytest.raises(ValueError, match="X has 63 features, but MLPClassifier is expecting 64"):
        ours.predict(X[:, 1:])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        ours.predict(np.full((1, 64), np.nan))


@pytest.mark.parametrize("name", OURS)
def test_constant_targets_and_a_single_example(name):
    for x, y in ((X, np.ones(600, int)), (X[:1], Y[:1])):
        theirs, ours = both(name, {})
        assert_same_training(ours.fit(x, y), theirs.fit(x, y), x)


def test_column_of_targets_warns():
    with pytest.warns(DataConversionWarning):
        MLPRegressor(max_iter=1).fit(X_REG, Y_REG[:, None])
    with pytest.warns(UserWarning, match="batch_size"):
        MLPRegressor(max_iter=1, batch_size=1000).fit(X_REG, Y_REG)


def test_not_converged_warns():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPClassifier(max_iter=2).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        MLPClassifier(max_iter=2, solver="lbfgs").fit(X, Y)


DIVERGES = {"solver": "sgd", "activation": "identity", "learning_rate_init": 1.0, "random_state": 0}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_keeps_the_best_weights():
    ours = MLPRegressor(**DIVERGES)
    with pytest.raises(ValueError, match=r"non-finite.*in epoch \d+: lower learning_rate_init from 1.0"):
        ours.fit(X_REG, 100 * Y_REG)
    assert all(np.isfinite(w).all() for w in ours.coefs_)
    best = int(np.argmin(ours.loss_curve_)) + 1
    again = MLPRegressor(**DIVERGES, max_iter=best).fit(X_REG, 100 * Y_REG)
    assert np.array_equal(ours.coefs_[0], again.coefs_[0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("own", ["optimizer", "schedule"])
def test_divergence_names_where_the_rate_is_from(own):
    rate = {"optimizer": xpnet.optim.SGD(1e4), "schedule": lambda _step: 1e4}[own]
    with pytest.raises(ValueError, match=f"lower the learning rate of the {own}, or scale X"):
        MLPRegressor(**DIVERGES | {own: rate}).fit(X_REG, 100 * Y_REG)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_with_early_stopping():
    ours = MLPRegressor(**DIVERGES, early_stopping=True)
    with pytest.warns(ConvergenceWarning, match="no longer finite in epoch"):
        ours.fit(X_REG, 100 * Y_REG)
    assert np.isnan(ours.validation_scores_[-1])
    assert all(np.isfinite(w).all() for w in ours.coefs_)
