"""What works with scikit-learn's classes works with xpnet's, and gives the same: one table.

Each line builds something of the estimators that one of the two modules makes, with numbers of NumPy's as
settings.
"""

import copy
import io
import pickle
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import sklearn
from helpers import half_of_the_digits
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import RFE, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer
from sklearn.inspection import DecisionBoundaryDisplay, partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, RANSACRegressor
from sklearn.metrics import get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import get_tags

import xpnet.sklearn

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning"),
]

TOLERANCE = half_of_the_digits("float64")  # of what comes out of a training

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(72, 4))
Y = np.digitize(X[:, 0] + X[:, 1] ** 2 + 0.1 * RANDOM.normal(size=72), [0.3, 1.5])
TWO = Y == 1
WORDS = np.asarray(["low", "middle", "very high"])[Y]
LABELS = np.stack([Y == 0, X[:, 2] > 0], axis=1).astype(int)
CLASSES = np.stack([Y, (Y + 1) % 3], axis=1)
NUMBERS = X[:, 0] + X[:, 1] ** 2
SEVERAL = np.stack([NUMBERS, X[:, 2] * X[:, 3]], axis=1)
WEIGHTS = RANDOM.random(72)
MISSING = np.where(RANDOM.random(X.shape) < 0.2, np.nan, X)
HALF = np.where(np.arange(72) % 2, Y, -1)  # the classes of every second example

SETTINGS = {
    "hidden_layer_sizes": np.asarray([5]),
    "max_iter": np.int64(6),
    "random_state": np.int32(0),
    "learning_rate_init": np.float64(0.02),
    "batch_size": np.uint8(12),
}


def estimators(module):
    """Return functions that make the estimators of a module."""
    return SimpleNamespace(
        classifier=lambda **options: module.MLPClassifier(**SETTINGS | options),
        regressor=lambda **options: module.MLPRegressor(**SETTINGS | options),
    )


OURS, THEIRS = estimators(xpnet.sklearn), estimators(neural_network)


def probabilities(estimator, y=Y, x=X, **weights):
    return estimator.fit(x, y, **weights).predict_proba(x)


def predictions(estimator, y=Y, x=X, **weights):
    return estimator.fit(x, y, **weights).predict(x)


def searched(search, y=Y, **weights):
    search.fit(X, y, **weights)
    return search.best_params_, search.cv_results_["mean_test_score"], search.predict(X)


def scores(results):
    return {name: values for name, values in results.items() if name.endswith("_score")}


def first_weights(estimator):
    return np.abs(estimator.coefs_[0]).sum(axis=1)


def stored(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


def frame(**more):
    return pytest.importorskip("pandas").DataFrame(X, columns=list("abcd")).assign(**more)


PIPELINES = {
    "Pipeline": lambda m: probabilities(make_pipeline(StandardScaler(), m.classifier())),
    "Pipeline, weights": lambda m: probabilities(
        make_pipeline(StandardScaler(), m.classifier()), mlpclassifier__sample_weight=WEIGHTS
    ),
    "ColumnTransformer": lambda m: probabilities(
        make_pipeline(
            make_column_transformer(
                (StandardScaler(), list("abcd")), (TfidfVectorizer(), "text"), (OneHotEncoder(), ["kind"])
            ),
            m.classifier(),
        ),
        x=frame(text=WORDS, kind=Y),
    ),
    "FeatureUnion": lambda m: predictions(
        make_pipeline(make_union(StandardScaler(), PolynomialFeatures()), m.regressor()), NUMBERS
    ),
    "text": lambda m: probabilities(make_pipeline(TfidfVectorizer(), m.classifier()), x=WORDS),
    "set_output": lambda m: (
        make_pipeline(StandardScaler(), m.classifier())
        .set_output(transform="pandas")
        .fit(frame(), Y)[-1]
        .feature_names_in_
    ),
    "IterativeImputer": lambda m: IterativeImputer(m.regressor(), max_iter=2).fit_transform(MISSING),
}
SEARCHES = {
    "GridSearchCV": lambda m: searched(
        GridSearchCV(
            m.classifier(),
            {
                "hidden_layer_sizes": np.arange(2, 4),
                "alpha": np.logspace(-3, 0, 2),
                "max_iter": np.asarray([2, 5]),
                "shuffle": np.asarray([True, False]),
            },
            cv=2,
        )
    ),
    "GridSearchCV, sequences": lambda m: searched(
        GridSearchCV(
            m.regressor(),
            {
                "hidden_layer_sizes": [(np.int64(2),), [3, 2], range(2, 4)],
                "solver": np.asarray(["lbfgs", "sgd"]),
            },
            cv=2,
        ),
        NUMBERS,
    ),
    "RandomizedSearchCV": lambda m: searched(
        RandomizedSearchCV(
            m.classifier(),
            {
                "alpha": scipy.stats.loguniform(1e-4, 1),
                "hidden_layer_sizes": scipy.stats.randint(2, 5),
                "momentum": scipy.stats.uniform(),
                "power_t": scipy.stats.uniform(),
                "solver": ["sgd", "adam"],
                "learning_rate": ["invscaling", "adaptive"],
            },
            n_iter=4,
            cv=2,
            random_state=0,
        )
    ),
    "HalvingGridSearchCV": lambda m: searched(
        HalvingGridSearchCV(m.classifier(), {"alpha": np.logspace(-3, 0, 3)}, cv=2, random_state=0)
    ),
    "HalvingGridSearchCV, epochs": lambda m: searched(
        HalvingGridSearchCV(
            m.classifier(),
            {"alpha": np.logspace(-3, 0, 3)},
            cv=2,
            random_state=0,
            resource="max_iter",
            max_resources=6,
        )
    ),
}
VALIDATION = {
    "cross_validate": lambda m: scores(
        cross_validate(m.classifier(), X, Y, cv=3, scoring=["accuracy", "roc_auc_ovr", "neg_log_loss"])
    ),
    **{
        f"cross_val_predict, {method}, {name}": lambda m, method=method, y=y: cross_val_predict(
            m.classifier(), X, y, cv=2, method=method
        )
        for method in ("predict", "predict_proba", "predict_log_proba")
        for name, y in (("classes", Y), ("labels", LABELS))
    },
    "cross_val_predict, numbers": lambda m: cross_val_predict(m.regressor(), X, SEVERAL, cv=2),
    "learning_curve": lambda m: learning_curve(m.classifier(), X, Y, cv=2, train_sizes=[0.5, 1.0]),
    "learning_curve, parts": lambda m: learning_curve(
        m.classifier(), X, Y, cv=2, train_sizes=[0.5, 1.0], exploit_incremental_learning=True
    ),
    "validation_curve": lambda m: validation_curve(
        m.classifier(), X, Y, cv=2, param_name="max_iter", param_range=np.arange(2, 5)
    ),
    "permutation_test_score": lambda m: permutation_test_score(
        m.classifier(), X, Y, cv=2, n_permutations=2, random_state=0
    ),
    "scorers": lambda m: [
        scorer(m.classifier().fit(X, TWO), X, TWO)
        for scorer in (get_scorer("f1"), make_scorer(roc_auc_score, response_method="predict_proba"))
    ],
    "score, weights": lambda m: [
        estimator.fit(X, y, WEIGHTS).score(X, y, WEIGHTS)
        for estimator, y in ((m.classifier(), Y), (m.classifier(), LABELS), (m.regressor(), SEVERAL))
    ],
}
ENSEMBLES = {
    "StackingClassifier": lambda m: probabilities(
        StackingClassifier(
            [("a", LogisticRegression()), ("b", m.classifier())], m.classifier(), cv=2, passthrough=True
        ),
        WORDS,
    ),
    "StackingClassifier, labels": lambda m: predictions(
        StackingClassifier([("a", m.classifier())], m.classifier(), cv=2), LABELS
    ),
    "StackingRegressor": lambda m: predictions(
        StackingRegressor([("a", m.regressor())], m.regressor(), cv=2), NUMBERS, sample_weight=WEIGHTS
    ),
    "StackingRegressor, fitted": lambda m: predictions(
        StackingRegressor([("a", m.regressor().fit(X, NUMBERS))], cv="prefit"), NUMBERS
    ),
    "VotingClassifier": lambda m: probabilities(
        VotingClassifier([("a", m.classifier()), ("b", m.classifier(alpha=1))], voting="soft"),
        WORDS,
        sample_weight=WEIGHTS,
    ),
    "VotingRegressor": lambda m: predictions(
        VotingRegressor([("a", m.regressor()), ("b", m.regressor(alpha=1))]), NUMBERS, sample_weight=WEIGHTS
    ),
    "BaggingClassifier": lambda m: probabilities(
        BaggingClassifier(m.classifier(), 3, max_features=0.5, random_state=0), WORDS, sample_weight=WEIGHTS
    ),
    "BaggingRegressor": lambda m: predictions(
        BaggingRegressor(m.regressor(), 3, random_state=0), NUMBERS, scipy.sparse.csr_array(X)
    ),
    "AdaBoostClassifier": lambda m: probabilities(
        AdaBoostClassifier(m.classifier(max_iter=30), n_estimators=3, random_state=0)
    ),
    "AdaBoostRegressor": lambda m: predictions(
        AdaBoostRegressor(m.regressor(), n_estimators=3, random_state=0), NUMBERS
    ),
}
PROBABILITIES = {
    **{
        f"CalibratedClassifierCV, {method}, {ensemble}": lambda m, method=method, ensemble=ensemble: (
            probabilities(
                CalibratedClassifierCV(m.classifier(), method=method, cv=2, ensemble=ensemble),
                WORDS,
                sample_weight=WEIGHTS,
            )
        )
        for method in ("sigmoid", "isotonic", "temperature")
        for ensemble in (True, False)
    },
    "CalibratedClassifierCV, frozen": lambda m: probabilities(
        CalibratedClassifierCV(FrozenEstimator(m.classifier().fit(X, TWO))), TWO
    ),
    "FixedThresholdClassifier": lambda m: predictions(
        FixedThresholdClassifier(m.classifier(), threshold=0.3), TWO
    ),
    "TunedThresholdClassifierCV": lambda m: predictions(
        TunedThresholdClassifierCV(m.classifier(), cv=2, random_state=0), TWO
    ),
}
SEVERAL_TARGETS = {
    "OneVsRestClassifier": lambda m: probabilities(OneVsRestClassifier(m.classifier())),
    "OneVsRestClassifier, labels": lambda m: probabilities(OneVsRestClassifier(m.classifier()), LABELS),
    "OneVsRestClassifier, parts": lambda m: (
        OneVsRestClassifier(m.classifier()).partial_fit(X, Y, classes=range(3)).predict_proba(X)
    ),
    "OneVsOneClassifier": lambda m: predictions(OneVsOneClassifier(m.classifier()), WORDS),
    "OutputCodeClassifier": lambda m: predictions(
        OutputCodeClassifier(m.classifier(), random_state=0), WORDS
    ),
    "MultiOutputClassifier": lambda m: probabilities(MultiOutputClassifier(m.classifier()), CLASSES),
    "MultiOutputClassifier, parts": lambda m: (
        MultiOutputClassifier(m.classifier()).partial_fit(X, CLASSES, classes=[range(3)] * 2).predict(X)
    ),
    "MultiOutputRegressor": lambda m: predictions(
        MultiOutputRegressor(m.regressor()), SEVERAL, sample_weight=WEIGHTS
    ),
    "ClassifierChain": lambda m: probabilities(ClassifierChain(m.classifier(), cv=2), LABELS),
    "RegressorChain": lambda m: predictions(RegressorChain(m.regressor()), SEVERAL),
    "TransformedTargetRegressor": lambda m: predictions(
        TransformedTargetRegressor(m.regressor(), transformer=StandardScaler()),
        SEVERAL,
        sample_weight=WEIGHTS,
    ),
    "SelfTrainingClassifier": lambda m: probabilities(
        SelfTrainingClassifier(m.classifier(), threshold=0.5, max_iter=2), HALF
    ),
    "RANSACRegressor": lambda m: predictions(
        RANSACRegressor(m.regressor(), min_samples=20, max_trials=2, random_state=0),
        NUMBERS,
        sample_weight=WEIGHTS,
    ),
}
INSPECTION = {
    "permutation_importance": lambda m: permutation_importance(
        m.classifier().fit(X, Y), X, Y, n_repeats=2, random_state=0
    )["importances"],
    "partial_dependence": lambda m: partial_dependence(
        m.classifier().fit(X, Y), X, [0], kind="individual", grid_resolution=5
    )["individual"],
    "SelectFromModel": lambda m: (
        SelectFromModel(m.classifier(), importance_getter=first_weights).fit(X, Y).get_support()
    ),
    "SequentialFeatureSelector": lambda m: (
        SequentialFeatureSelector(m.classifier(), n_features_to_select=1, cv=2).fit(X, Y).get_support()
    ),
    "RFE": lambda m: RFE(m.regressor(), importance_getter=first_weights).fit(X, NUMBERS).ranking_,
    "get_tags": lambda m: [repr(get_tags(each)) for each in (m.classifier(), m.regressor())],
    "repr": lambda m: [repr(m.classifier()), repr(clone(m.classifier(hidden_layer_sizes=[np.int64(3), 4])))],
    "diagram": lambda m: "hidden_layer_sizes" in make_pipeline(m.classifier())._repr_html_(),
    **{
        f"copy by {name}": lambda m, copied=copied: (
            copied(m.classifier().fit(X, WORDS)).partial_fit(X, WORDS).predict_proba(X)
        )
        for name, copied in (
            ("copy", copy.copy),
            ("deepcopy", copy.deepcopy),
            ("pickle", lambda estimator: pickle.loads(pickle.dumps(estimator))),
            ("joblib", stored),
            ("clone", lambda estimator: clone(estimator).fit(X, WORDS)),
        )
    },
}
SAME = PIPELINES | SEARCHES | VALIDATION | ENSEMBLES | PROBABILITIES | SEVERAL_TARGETS | INSPECTION


def assert_alike(found, expected):
    assert type(found) is type(expected)
    if scipy.sparse.issparse(expected):
        found, expected = found.toarray(), expected.toarray()
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_alike(a, b)
    elif np.asarray(expected).dtype.kind == "f":
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    else:
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", SAME)
def test_gives_the_same(name):
    if "temperature" in name and not hasattr(sklearn.calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn does not calibrate by a temperature")
    assert_alike(SAME[name](OURS), SAME[name](THEIRS))


def weighted(estimator):
    return estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)


ROUTED = {
    "GridSearchCV": lambda m: searched(
        GridSearchCV(weighted(m.classifier()), {"alpha": [1e-3, 1.0]}, cv=2), sample_weight=WEIGHTS
    ),
    "Pipeline": lambda m: probabilities(
        make_pipeline(StandardScaler().set_fit_request(sample_weight=True), weighted(m.classifier())),
        sample_weight=WEIGHTS,
    ),
    "cross_validate": lambda m: scores(
        cross_validate(weighted(m.classifier()), X, Y, cv=2, params={"sample_weight": WEIGHTS})
    ),
    "StackingClassifier": lambda m: probabilities(
        StackingClassifier([("a", weighted(m.classifier()))], weighted(m.classifier()), cv=2),
        sample_weight=WEIGHTS,
    ),
    "CalibratedClassifierCV": lambda m: probabilities(
        CalibratedClassifierCV(weighted(m.classifier()), cv=2), sample_weight=WEIGHTS
    ),
    "OneVsRestClassifier": lambda m: (
        OneVsRestClassifier(m.classifier().set_partial_fit_request(sample_weight=True))
        .partial_fit(X, Y, classes=range(3), sample_weight=WEIGHTS)
        .predict_proba(X)
    ),
    "ClassifierChain": lambda m: probabilities(
        ClassifierChain(weighted(m.classifier())), LABELS, sample_weight=WEIGHTS
    ),
    "TransformedTargetRegressor": lambda m: predictions(
        TransformedTargetRegressor(weighted(m.regressor())), NUMBERS, sample_weight=WEIGHTS
    ),
    "requests": lambda m: str(m.classifier().set_partial_fit_request(classes=True).get_metadata_routing()),
}


@pytest.mark.parametrize("name", ROUTED)
def test_routes_weights_to_the_same(name):
    with sklearn.config_context(enable_metadata_routing=True):
        assert_alike(ROUTED[name](OURS), ROUTED[name](THEIRS))


# Targets of each kind, and whether pandas makes them.
TARGETS = {
    "words": lambda _: WORDS,
    "objects": lambda _: WORDS.astype(object),
    "list": lambda _: WORDS.tolist(),
    "bools": lambda _: TWO,
    "list of bools": lambda _: TWO.tolist(),
    "float32": lambda _: Y.astype("float32"),
    "uint8": lambda _: Y.astype("uint8"),
    "negative": lambda _: Y - 5,
    "far apart": lambda _: Y * 10**12,
    "dates": lambda _: np.asarray(["2020-01-01", "2021-01-01", "2022-01-01"], "datetime64[D]")[Y],
    "one class": lambda _: np.full(72, "only"),
    "one column": lambda _: Y[:, None],
    "labels": lambda _: LABELS,
    "labels, bools": lambda _: LABELS.astype(bool),
    "labels, sparse": lambda _: scipy.sparse.csr_array(LABELS),
    "labels, one is nowhere": lambda _: np.c_[LABELS, np.zeros(72, int)],
    "series": lambda pandas: pandas.Series(WORDS, index=np.arange(72)[::-1]),
    "categories": lambda pandas: pandas.Series(pandas.Categorical(WORDS)),
    "categories of numbers": lambda pandas: pandas.Categorical(Y),
    "nullable integers": lambda pandas: pandas.Series(Y, dtype="Int64"),
    "nullable bools": lambda pandas: pandas.Series(TWO, dtype="boolean"),
    "strings of pandas": lambda pandas: pandas.Series(WORDS, dtype="string"),
    "times": lambda pandas: pandas.Series(pandas.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01"])[Y]),
    "frame of labels": lambda pandas: pandas.DataFrame(LABELS, columns=["a", "b"]),
    # and what is refused
    "fractions": lambda _: Y + 0.5,
    "several classes": lambda _: CLASSES,
    "integers as objects": lambda _: Y.astype(object),
    "bytes": lambda _: WORDS.astype("S"),
    "mixed": lambda _: np.asarray([1, "a", 2.5], object)[Y],
    "None": lambda _: np.asarray([None, "a", "b"], object)[Y],
    "NaN": lambda _: np.where(Y == 1, np.nan, Y),
    "complex": lambda _: Y * 1j,
    "of pandas, missing": lambda pandas: pandas.Series(Y, dtype="Int64").mask(Y == 1),
}
NEEDS_PANDAS = ("series", "categor", "nullable", "pandas", "times", "frame")


def outcome(f, *args):
    """Return what a function returns, or the type of its error and what it says."""
    try:
        return f(*args)
    except Exception as error:
        return type(error).__name__, str(error)


def fitted_to(estimator, x, y, **classes):
    estimator.fit(x, y) if not classes else estimator.partial_fit(x, y, **classes)
    p = [estimator.predict_proba(x)] if hasattr(estimator, "predict_proba") else []
    return getattr(estimator, "classes_", None), estimator.predict(x), estimator.score(x, y), *p


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of scikit-learn's score
@pytest.mark.parametrize("name", TARGETS)
def test_targets_of_each_kind(name):
    needs_pandas = any(word in name for word in NEEDS_PANDAS)
    y = TARGETS[name](pytest.importorskip("pandas") if needs_pandas else None)
    assert_alike(outcome(fitted_to, OURS.classifier(), X, y), outcome(fitted_to, THEIRS.classifier(), X, y))
    classes = outcome(np.unique, y)
    found, expected = (
        outcome(lambda m: fitted_to(m.classifier(), X, y, classes=classes), m) for m in (OURS, THEIRS)
    )
    assert_alike(found, expected)


INPUTS = {
    "float32": lambda _: X.astype("float32"),
    "float16": lambda _: X.astype("float16"),
    "integers": lambda _: (10 * X).astype(int),
    "bools": lambda _: X > 0,
    "list": lambda _: X.tolist(),
    "objects": lambda _: X.astype(object),
    "other order": lambda _: np.asfortranarray(X),
    "backwards": lambda _: X[::-1],
    "other bytes": lambda _: X.astype(">f8"),
    "csr": lambda _: scipy.sparse.csr_array(X),
    "csc": lambda _: scipy.sparse.csc_matrix(X),
    "coo, float32": lambda _: scipy.sparse.coo_array(X.astype("float32")),
    "sparse integers": lambda _: scipy.sparse.csr_array((3 * X).astype(int)),
    "frame": lambda pandas: pandas.DataFrame(X, columns=list("abcd")),
    "frame, float32": lambda pandas: pandas.DataFrame(X.astype("float32"), columns=list("abcd")),
    "frame, nullable": lambda pandas: pandas.DataFrame(X, columns=list("abcd")).astype("Float64"),
    "frame, numbers as names": lambda pandas: pandas.DataFrame(X),
    # and what is refused
    "one axis": lambda _: X[:, 0],
    "three axes": lambda _: X[:, :, None],
    "no features": lambda _: X[:, :0],
    "NaN": lambda _: MISSING,
    "infinite": lambda _: np.where(X > 1, np.inf, X),
    "complex": lambda _: X * 1j,
    "words": lambda _: np.full(X.shape, "word"),
    "frame, missing": lambda pandas: pandas.DataFrame(MISSING, columns=list("abcd")),
    "frame, mixed names": lambda pandas: pandas.DataFrame(X, columns=[0, "a", 1, "b"]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_each_kind(name):
    x = INPUTS[name](pytest.importorskip("pandas") if "frame" in name else None)
    single = "float32" in name  # in which the two round differently
    found, expected = (outcome(fitted_to, m.classifier(), x, Y) for m in (OURS, THEIRS))
    if single:
        assert [each.dtype for each in found[:2]] == [each.dtype for each in expected[:2]]
        assert found[3].dtype == expected[3].dtype == np.float32
        np.testing.assert_allclose(found[3], expected[3], rtol=half_of_the_digits("float32"))
    else:
        assert_alike(found, expected)


def test_names_of_features():
    x = frame()
    others = (x[list("dcba")], x.rename(columns={"a": "z"}), x[["a"]], x.assign(e=1.0))
    results = []
    for m in (OURS, THEIRS):
        estimator = m.classifier().fit(x, Y)
        results.append([outcome(estimator.predict, other) for other in others])
        results[-1] += [outcome(estimator.partial_fit, other, Y) for other in others]
        results[-1] += [list(estimator.feature_names_in_), estimator.predict_proba(x)]
    assert_alike(*results)


@pytest.mark.slow
def test_processes_give_the_same():
    results = []
    for m in (OURS, THEIRS):
        search = GridSearchCV(m.classifier(), {"alpha": np.logspace(-3, 0, 2)}, cv=2, n_jobs=2)
        bag = BaggingRegressor(m.regressor(), 4, n_jobs=2, random_state=0)
        results.append((searched(search), bag.fit(X, NUMBERS).predict(X)))
    assert_alike(*results)


def test_boundaries_of_decisions():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    results = []
    for m in (OURS, THEIRS):
        for y in (Y, TWO, WORDS):
            estimator = m.classifier().fit(X[:, :2], y)
            display = DecisionBoundaryDisplay.from_estimator(estimator, X[:, :2], grid_resolution=10)
            results.append(display.response)
    pyplot.close("all")
    assert_alike(results[:3], results[3:])


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"batch_size": 1000}], ids=str)
def test_warnings_point_to_the_call(options):
    with pytest.warns(UserWarning, match="onverge|batch_size") as record:
        OURS.classifier(**options).fit(X, Y)
    assert {warning.filename for warning in record} == {__file__}
