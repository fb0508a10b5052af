"""Classes of the classifier: how much each counts, and examples that lack some of them."""

import numpy as np
import pytest
from helpers import half_of_the_digits
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss
from sklearn.utils import compute_class_weight, compute_sample_weight

from xpnet.sklearn import MLPClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning"),
]

X, Y = load_iris(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(150)[:80]
X, Y = X[ORDER] - X.mean(axis=0), Y[ORDER]
LABELS = np.stack([Y == 0, Y < 2], axis=1).astype(int)
WORDS = np.asarray(["one", "three", "two"])
DATES = np.asarray(["2020-01-01", "2021-01-01", "2022-01-01"], "datetime64[D]")
TOLERANCE = half_of_the_digits("float64")  # of losses, after a training


def classifier(**options):
    return MLPClassifier(**({"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0} | options))


# -- how much each class counts ------------------------------------------------------------------------------

# Targets, the weights of classes, and those of the examples that they give.
WEIGHTS = {
    "Python's": (Y, {0: 1, 1: 2, 2: 0.5}, np.asarray([1, 2, 0.5])[Y]),
    "NumPy's": (Y, {np.int64(1): np.float32(2), np.uint8(2): np.float16(0.5)}, np.asarray([1, 2, 0.5])[Y]),
    "some": (Y, {np.uint8(1): np.int64(3)}, np.asarray([1, 3, 1])[Y]),
    "none": (Y, {}, np.ones(80)),
    "more than there are": (Y, {0: 1, 1: 2, 2: 3, 3: 4}, 1.0 + Y),
    "a class that does not count": (Y, {0: 0, 1: 2}, np.asarray([0, 2, 1])[Y]),
    "floats": (Y.astype("float32"), {1.0: 2.0}, np.asarray([1, 2, 1])[Y]),
    "bools": (Y == 1, {False: 1, True: 2}, 1.0 + (Y == 1)),
    "bools of NumPy": (Y == 1, {np.True_: np.float32(2)}, 1.0 + (Y == 1)),
    "words": (WORDS[Y], {"one": 1, np.str_("three"): 2}, np.asarray([1, 2, 1])[Y]),
    "digits as words": (Y.astype(str), {"1": 2}, np.asarray([1, 2, 1])[Y]),
    "objects": (WORDS[Y].astype(object), {"two": 0.5}, np.asarray([1, 1, 0.5])[Y]),
    "dates": (DATES[Y], {DATES[1]: 2}, np.asarray([1, 2, 1])[Y]),
    "balanced": (Y, "balanced", compute_sample_weight("balanced", Y)),
    "balanced, two": (Y == 1, "balanced", compute_sample_weight("balanced", Y == 1)),
    "balanced, labels": (LABELS, "balanced", compute_sample_weight("balanced", LABELS)),
    "balanced, a label that is everywhere": (
        np.c_[LABELS, np.ones(80, int)],
        "balanced",
        compute_sample_weight("balanced", LABELS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTS)
def test_classes_count_as_their_examples_would(case):
    y, class_weight, weights = WEIGHTS[case]
    for more in (None, 1.0 + np.arange(80) % 2):
        both = weights if more is None else weights * more
        found = clone(classifier(class_weight=class_weight)).fit(X, y, more)
        np.testing.assert_allclose(
            found.loss_curve_, classifier().fit(X, y, both).loss_curve_, rtol=TOLERANCE
        )
    if isinstance(class_weight, dict):
        found = classifier(class_weight=class_weight).partial_fit(X, y, classes=np.unique(y))
        expected = classifier().partial_fit(X, y, weights, classes=np.unique(y))
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=TOLERANCE)


BAD_WEIGHTS = [
    (Y, {0: True}, r"class_weight must have a finite number of at least 0 for each class, received True"),
    (Y, {0: "2"}, "received '2' for 0"),
    (Y, {0: None}, "received None for 0"),
    (Y, {0: -1}, "received -1 for 0"),
    (Y, {0: np.nan}, "received nan for 0"),
    (Y, {0: np.inf}, "received inf for 0"),
    (Y, {0: 1, 7: 2}, r"which are \[0, 1, 2\]; received \[0, 7\], where \[1, 2\] are missing"),
    (Y, {"0": 1}, r"where \[0, 1, 2\] are missing"),
    (Y, {(0, 1): 1}, r"where \[0, 1, 2\] are missing"),
    (WORDS[Y], {0: 1}, "where .* are missing"),
    (DATES[Y], {"one": 1}, "where .* are missing"),
    (LABELS, {0: 1, 1: 2}, r'several labels. Use class_weight="balanced", or sample_weight'),
    (Y, {0: 0, 1: 0, 2: 0}, "at least one non-zero number, .* for the examples of fit"),
    (Y, [1, 2, 3], "The 'class_weight' parameter"),
    (Y, "even", "The 'class_weight' parameter"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("y", "class_weight", "message"), BAD_WEIGHTS, ids=[str(case[1]) for case in BAD_WEIGHTS]
)
def test_what_does_not_say_how_much_classes_count(y, class_weight, message):
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=class_weight).fit(X, y)


# -- examples that lack a class ------------------------------------------------------------------------------

SOME = (Y == 0) | ((Y == 1) & (np.arange(80) % 2 == 0))
# Targets, and of each class how much it counts.
LACKING = {
    "three": (Y, None, np.ones(3)),
    "three, dict": (Y, {0: 1.0, 1: 2.0, 2: 3.0}, np.arange(3) + 1.0),
    "three, balanced": (Y, "balanced", compute_class_weight("balanced", classes=np.arange(3), y=Y)),
    "words, dict": (WORDS[Y], {"one": 1.0, "three": 2.0, "two": 3.0}, np.arange(3) + 1.0),
    "two, dict": (Y == 2, {False: 2.0, True: 3.0}, np.asarray([2.0, 3.0])),
    "two, balanced": (Y == 2, "balanced", compute_class_weight("balanced", classes=np.arange(2), y=Y == 2)),
}


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("case", LACKING)
def test_validation_data_that_lack_a_class(case, warm_start):
    y, class_weight, weights = LACKING[case]
    options = {"class_weight": class_weight, "warm_start": warm_start}
    watched = classifier(validation_data=(X[SOME], y[SOME]), **options).fit(X, y)
    assert watched.loss_curve_ == classifier(**options).fit(X, y).loss_curve_
    # A class counts in the validation as it does in the training.
    numbers = np.searchsorted(watched.classes_, y[SOME])
    p = watched.predict_proba(X[SOME])
    expected = log_loss(numbers, p, sample_weight=weights[numbers], labels=range(len(weights)))
    assert watched.validation_loss_curve_[-1] == pytest.approx(expected, rel=TOLERANCE)
    if warm_start:
        watched.fit(X, y)
        assert len(watched.validation_loss_curve_) == 12


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_validation_data_that_lack_a_label(class_weight):
    labels = np.c_[LABELS, np.zeros(80, int)]  # one that is nowhere in training counts as 1
    lacking = np.c_[LABELS[SOME] * [1, 0], np.ones(SOME.sum(), int)]
    found = classifier(class_weight=class_weight, validation_data=(X[SOME], lacking), warm_start=True).fit(
        X, labels
    )
    p = found.predict_proba(X[SOME])
    each = -np.log(np.where(lacking == 1, p, 1 - p)).sum(axis=1)
    weights = np.ones(SOME.sum())
    if class_weight:
        for column in range(2):
            of_class = compute_class_weight("balanced", classes=np.arange(2), y=labels[:, column])
            weights *= of_class[lacking[:, column]]
    expected = np.average(each, weights=weights)
    assert found.validation_loss_curve_[-1] == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("class_weight", [None, {0: 1, 1: 2, 2: 3}])
@pytest.mark.parametrize("watch", ["early_stopping", "calibrate"])
def test_validation_data_that_lack_a_class_decide(watch, class_weight):
    x, y = X[SOME], np.where(np.arange(SOME.sum()) % 4 == 0, 1 - Y[SOME], Y[SOME])  # a quarter of them wrong
    weights = np.ones(len(y)) if class_weight is None else 1.0 + y
    options = {"class_weight": class_weight, "validation_data": (x, y), "warm_start": True}
    options |= {"max_iter": 40, "learning_rate_init": 0.05}
    found = classifier(**options, **{watch: True}).fit(X, Y)
    if watch == "early_stopping":
        assert found.best_validation_score_ == pytest.approx(found.score(x, y, weights))
        return
    logits = np.log(found.predict_proba(x))  # at the temperature, at which they are least surprising
    surprise = []
    for change in (0.98, 1.0, 1.02):
        p = np.exp(logits * change)
        p /= p.sum(axis=1, keepdims=True)
        surprise.append(log_loss(y, p, sample_weight=weights, labels=range(3)))
    assert min(surprise) == surprise[1]


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 2.0, 2: 3.0}])
def test_parts_that_lack_a_class(class_weight, warm_start):
    weights = None if class_weight is None else 1.0 + Y
    found, expected = classifier(class_weight=class_weight, warm_start=warm_start), classifier()
    for rows in (SOME, Y == 2, Y != 0):
        found.partial_fit(X[rows], Y[rows], classes=range(3))
        expected.partial_fit(X[rows], Y[rows], None if weights is None else weights[rows], classes=range(3))
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=TOLERANCE)
    watched = classifier(early_stopping=True, validation_data=(X[SOME], Y[SOME]), class_weight=class_weight)
    watched.partial_fit(X, Y, classes=range(3)).partial_fit(X[Y == 0], Y[Y == 0])
    assert len(watched.validation_scores_) == 2


def test_all_classes_are_needed_to_go_on_with_fit():
    found = classifier(warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="the same classes as in the previous call to fit"):
        found.fit(X[SOME], Y[SOME])


UNSEEN = {
    "another number": (Y, Y + 1, "`y` has classes not in"),
    "words": (Y, WORDS[Y], "classes|Mix of label"),
    "fractions": (Y, Y - 0.5, "Unknown label type"),
    "three of two": (Y == 2, Y, "`y` has classes not in"),
    "labels of classes": (
        Y,
        LABELS,
        r"y must have the shape \(examples,\) as in the training before, received \(80, 2\)",
    ),
    "classes of labels": (
        LABELS,
        Y % 2,
        r"y must have the shape \(examples, labels\) as in the training before, received \(80,\)",
    ),
    "more labels": (LABELS, np.c_[LABELS, LABELS], "`y` has classes not in"),
    "fewer labels": (np.c_[LABELS, LABELS], LABELS, "mismatch with the labels"),
}


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("case", UNSEEN)
def test_validation_data_with_a_class_that_was_never_seen(case, warm_start):
    y, validation, message = UNSEEN[case]
    with pytest.raises(ValueError, match=message):
        classifier(validation_data=(X, validation), warm_start=warm_start).fit(X, y)


def test_validation_data_that_do_not_count():
    with pytest.raises(ValueError, match="received only zeros for the examples of validation_data"):
        classifier(class_weight={0: 0, 1: 1, 2: 2}, validation_data=(X[Y == 0], Y[Y == 0])).fit(X, Y)
