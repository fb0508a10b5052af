"""Metrics with weights of examples and classes, without ignored targets, and of one of several outputs."""

import functools
import math
import pickle

import numpy as np
import pytest
import sklearn.metrics as reference
from helpers import on

import xpnet
from training.cases import X, Y, classifier, train
from xpnet import losses, metrics, nn, optim
from xpnet.training.arguments import metrics_of
from xpnet.training.metric import to_host
from xpnet.training.metrics.functions import as_metric
from xpnet.training.weights import counted_class_weights, listed_class_weights

random = np.random.default_rng(0)
NUMBER = 60
SCORES = random.normal(size=(NUMBER, 4))
LABELS = random.integers(4, size=NUMBER)
OUTPUTS = random.normal(size=(NUMBER, 3))
TARGETS = 7 + OUTPUTS + 0.5 * random.normal(size=(NUMBER, 3))
YES = (OUTPUTS + random.normal(size=OUTPUTS.shape) > 0) * 1.0
WEIGHTS = random.random(NUMBER) * (random.random(NUMBER) > 0.3)
SEQUENCES = random.normal(size=(NUMBER, 5, 4))
OF_SEQUENCES = random.integers(4, size=(NUMBER, 5))
MASK = random.random((NUMBER, 5)) > 0.4
MASK[20:30] = False  # a batch of which nothing counts, perhaps
OF_CLASSES = np.asarray([0.5, 0.0, 2.0, 3.0])


def top_2(labels, scores, sample_weight):
    return reference.top_k_accuracy_score(
        labels, scores, k=2, sample_weight=sample_weight, labels=np.arange(scores.shape[-1])
    )


def right(labels, scores, sample_weight):
    return reference.accuracy_score(labels, scores.argmax(-1), sample_weight=sample_weight)


def binary(answers, logits, sample_weight):
    answers, logits = answers.reshape(-1), logits.reshape(-1)
    return reference.accuracy_score(answers > 0, logits > 0, sample_weight=np.repeat(sample_weight, 3))


# A metric, what scikit-learn has for it, outputs and targets.
CASES = {
    "accuracy": (metrics.accuracy, right, SCORES, LABELS),
    "top 2": (metrics.top_k_accuracy(2), top_2, SCORES, LABELS),
    "binary accuracy": (metrics.binary_accuracy, binary, OUTPUTS, YES),
    "mean absolute error": (metrics.mean_absolute_error, reference.mean_absolute_error, OUTPUTS, TARGETS),
    "root mean squared error": (
        metrics.root_mean_squared_error,
        reference.root_mean_squared_error,
        OUTPUTS,
        TARGETS * [1.0, 5.0, 1.0],
    ),
    "r2": (metrics.r2, reference.r2_score, OUTPUTS + 7, TARGETS),
    "r2 of one column": (metrics.r2, reference.r2_score, OUTPUTS[:, 0] + 7, TARGETS[:, 0]),
    "mean squared error": (as_metric(losses.mse), reference.mean_squared_error, OUTPUTS, TARGETS),
}


def over_batches(metric, device, outputs, targets, weights=None, ends=(16, 32, 48), **options):
    """Return what a metric is over batches that end at these rows."""
    totals = None
    for start, end in zip((0, *ends), (*ends, len(targets)), strict=True):
        parts = [None if x is None else on(device, x[start:end]) for x in (outputs, targets, weights)]
        new = to_host(metric.batch_totals(*parts, **options))
        totals = new if totals is None else metric.merge(totals, new)
    return metric.of(totals)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("case", CASES)
def test_weighted_metrics_are_those_of_scikit_learn(device, case, dtype):
    metric, theirs, outputs, targets = CASES[case]
    weights = (3 * WEIGHTS).astype(dtype)
    expected = theirs(targets, outputs, sample_weight=weights.astype("float64"))
    places = [on(device, x) for x in (outputs, targets, weights)]
    assert metric(*places) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    for seed in range(3):
        ends = sorted(np.random.default_rng(seed).choice(np.arange(1, NUMBER), size=5, replace=False))
        received = over_batches(metric, device, outputs, targets, weights, ends=tuple(ends))
        assert received == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_weights_of_one_change_nothing(device, case):
    metric, _, outputs, targets = CASES[case]
    for ones in (np.ones(NUMBER), np.ones(NUMBER, dtype=bool)):
        received = over_batches(metric, device, outputs, targets, ones)
        assert received == pytest.approx(over_batches(metric, device, outputs, targets), rel=1e-13)
    assert metric(outputs, targets, sample_weight=[2.0] * NUMBER) == pytest.approx(metric(outputs, targets))


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
@pytest.mark.parametrize("case", list(CASES)[:-1])
def test_what_counts_for_nothing_may_be_anything(device, case, garbage):
    metric, _, outputs, targets = CASES[case]
    some = WEIGHTS > 0
    outputs, targets = outputs.copy(), targets.copy()
    outputs[~some] = garbage
    targets[~some] = garbage if targets.dtype.kind == "f" else -1
    received = over_batches(metric, device, outputs, targets, WEIGHTS)
    expected = over_batches(metric, device, outputs[some], targets[some], WEIGHTS[some], ends=())
    assert received == pytest.approx(expected, rel=1e-13)
    assert math.isfinite(received)


@pytest.mark.parametrize("case", list(CASES)[:-1])
def test_nan_that_counts_is_seen(device, case):
    metric, _, outputs, targets = CASES[case]
    outputs = outputs.copy()
    outputs[np.flatnonzero(WEIGHTS)[3]] = math.nan
    assert math.isnan(over_batches(metric, device, outputs, targets, WEIGHTS))


@pytest.mark.parametrize("case", CASES)
def test_batches_of_which_nothing_counts(device, case):
    metric, _, outputs, targets = CASES[case]
    weights = np.where(np.arange(NUMBER) // 16 % 2 == 1, WEIGHTS, 0.0)  # not the first, and not the third
    received = over_batches(metric, device, outputs, targets, weights)
    assert received == pytest.approx(over_batches(metric, device, outputs, targets, weights, ends=()))
    assert math.isnan(over_batches(metric, device, outputs, targets, 0 * weights))


def test_weighted_r2_of_constant_targets(device):
    """Exactly 1 or 0, as without weights, also where batches of which nothing counts are between."""
    random = np.random.default_rng(1)
    values = 10.0 ** random.uniform(-2, 9, size=50)
    targets = np.broadcast_to(values, (NUMBER, 50)).copy()
    weights = np.where(np.arange(NUMBER) < 16, 0.0, random.random(NUMBER) + 0.1)
    targets[:3] = 5.0  # which counts for nothing
    for outputs, expected in [(targets, 1.0), (2 * targets, 0.0)]:
        for ends in ((), (16, 20, 50), (30,)):
            assert over_batches(metrics.r2, device, outputs, targets, weights, ends=ends) == expected


def test_weighted_r2_of_fewer_than_two_examples_is_nan(device):
    outputs, targets, weights = OUTPUTS + 7, TARGETS, np.zeros(NUMBER)
    weights[5] = 3.0
    assert math.isnan(over_batches(metrics.r2, device, outputs, targets, weights))
    weights[50] = 0.25
    assert not math.isnan(over_batches(metrics.r2, device, outputs, targets, weights))


# -- sequences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.top_k_accuracy(2)], ids=lambda x: x.name)
def test_masks_of_sequences(device, metric):
    expected = metric(SEQUENCES[MASK], OF_SEQUENCES[MASK])
    outputs, targets = on(device, SEQUENCES), on(device, OF_SEQUENCES)
    assert metric(outputs, targets, on(device, MASK)) == pytest.approx(expected, rel=1e-13)
    for garbage in (-1, -100, 2):
        ignored = np.where(MASK, np.where(OF_SEQUENCES == 2, 1, OF_SEQUENCES), garbage)
        expected = metric(SEQUENCES[MASK], ignored[MASK])
        ignoring = metric.ignoring(garbage)
        assert ignoring.name == metric.name
        assert ignoring(outputs, on(device, ignored)) == pytest.approx(expected, rel=1e-13)
        assert over_batches(ignoring, device, SEQUENCES, ignored, ends=(20, 30)) == pytest.approx(expected)
        by_example = metric(SEQUENCES[MASK], ignored[MASK], np.repeat(WEIGHTS, 5).reshape(-1, 5)[MASK])
        for weights in (WEIGHTS, np.broadcast_to(WEIGHTS[:, None], MASK.shape).copy()):
            received = over_batches(ignoring, device, SEQUENCES, ignored, weights)
            assert received == pytest.approx(by_example, rel=1e-13)


def test_masks_of_numbers_in_sequences(device):
    outputs = random.normal(size=(NUMBER, 5, 2))
    targets = outputs + random.normal(size=outputs.shape)
    error = over_batches(metrics.mean_absolute_error, device, outputs, targets, MASK)
    assert error == pytest.approx(abs(outputs - targets)[MASK].mean())
    roots, each = [], []
    for position in range(5):
        rows = MASK[:, position]
        roots.append(reference.root_mean_squared_error(targets[rows, position], outputs[rows, position]))
        each.append(reference.r2_score(targets[rows, position], outputs[rows, position]))
    root = over_batches(metrics.root_mean_squared_error, device, outputs, targets, MASK)
    assert root == pytest.approx(np.mean(roots))
    assert over_batches(metrics.r2, device, outputs, targets, MASK) == pytest.approx(np.mean(each))
    mask = MASK & (np.arange(5) < 4)  # a position that no sequence has
    assert over_batches(metrics.r2, device, outputs, targets, mask) == pytest.approx(np.mean(each[:4]))
    root = over_batches(metrics.root_mean_squared_error, device, outputs, targets, mask)
    assert root == pytest.approx(np.mean(roots[:4]))


def test_ignoring_looks_at_all_targets(device):
    outputs, labels = on(device, SCORES), np.where(WEIGHTS == 0, -1, LABELS)
    look = metrics.accuracy.ignoring(-1).check_targets
    look(outputs[:9, ...], on(device, labels))
    with pytest.raises(ValueError, match=r"labels must be from 0 to 3 .* from 0 to 4"):
        look(outputs, on(device, np.where(labels == 3, 4, labels)))
    with pytest.raises(ValueError, match=r"labels must be from 0 to 3 .* from -1 to 3"):
        metrics.accuracy.ignoring(-2).check_targets(outputs, on(device, labels))
    with pytest.raises(ValueError, match="at least one target must count, received -1 alone"):
        look(outputs, on(device, 0 * labels - 1))
    with pytest.raises(TypeError, match="targets that are an array, received dict"):
        look(outputs, {"y": labels})
    for wrong in ("pad", None, math.nan):
        with pytest.raises(ValueError, match="index must be a finite number"):
            metrics.accuracy.ignoring(wrong)


def test_ignored_numbers(device):
    targets = np.where(WEIGHTS == 0, -999.0, TARGETS[:, 0])
    received = over_batches(metrics.r2.ignoring(-999), device, OUTPUTS[:, 0] + 7, targets)
    some = WEIGHTS > 0
    assert received == pytest.approx(reference.r2_score(targets[some], OUTPUTS[some, 0] + 7), rel=1e-12)


# -- classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_weights_of_classes(device, weights):
    given = {"class_weight": on(device, OF_CLASSES)}
    each = OF_CLASSES[LABELS] * (1.0 if weights is None else weights)
    for metric, theirs in [(metrics.accuracy, right), (metrics.top_k_accuracy(2), top_2)]:
        expected = theirs(LABELS, SCORES, each)
        assert over_batches(metric, device, SCORES, LABELS, weights, **given) == pytest.approx(expected)
        probabilities = np.eye(4)[LABELS]
        received = over_batches(metric, device, SCORES, probabilities, weights, **given)
        assert received == pytest.approx(expected)
    of_answers = np.where(YES > 0.5, 3.0, 0.5) * (1.0 if weights is None else weights[:, None])
    expected = reference.accuracy_score(YES.ravel(), OUTPUTS.ravel() > 0, sample_weight=of_answers.ravel())
    received = over_batches(metrics.binary_accuracy, device, OUTPUTS, YES, weights, class_weight=[0.5, 3.0])
    assert received == pytest.approx(expected)


def test_losses_as_metrics_count_by_what_they_divide_by(device):
    labels = np.where(WEIGHTS == 0, -100, LABELS)
    loss = functools.partial(losses.cross_entropy, ignore_index=-100)
    for options in ({}, {"class_weight": list(OF_CLASSES)}):
        expected = float(loss(SCORES, labels, **options))
        received = over_batches(as_metric(loss), device, SCORES, labels, ends=(16, 17, 40), **options)
        assert received == pytest.approx(expected, rel=1e-13)
    expected = float(loss(SCORES, labels, sample_weight=WEIGHTS))
    assert over_batches(as_metric(loss), device, SCORES, labels, WEIGHTS) == pytest.approx(expected)
    assert as_metric(loss)(SCORES, labels) == pytest.approx(float(loss(SCORES, labels)))


def test_functions_with_weights(device):
    def error(outputs, targets, sample_weight=None):
        e = abs(outputs - targets)[..., 0]
        xp = xpnet.array_namespace(e)
        return xp.mean(e) if sample_weight is None else xp.sum(sample_weight * e) / xp.sum(sample_weight)

    weights = WEIGHTS + 0.1
    expected = np.average(abs(OUTPUTS - TARGETS)[:, 0], weights=weights)
    assert over_batches(as_metric(error), device, OUTPUTS, TARGETS, weights) == pytest.approx(expected)
    assert as_metric(error)(OUTPUTS, TARGETS) == pytest.approx(abs(OUTPUTS - TARGETS)[:, 0].mean())


# -- several outputs ---------------------------------------------------------------------------------------


def test_metrics_of_keys(device):
    found = metrics_of({"digit": metrics.accuracy, "size": [metrics.r2, losses.mse], 3: (metrics.r2,)})
    assert [metric.name for metric in found] == ["digit_accuracy", "size_r2", "size_mse", "3_r2"]
    digit, size = on(device, SCORES), on(device, OUTPUTS)
    outputs = {"digit": digit, "size": size, 3: size}
    targets = {"digit": on(device, LABELS), "size": on(device, TARGETS), 3: on(device, TARGETS)}
    weights = on(device, WEIGHTS)
    expected = [metrics.accuracy(SCORES, LABELS, WEIGHTS), metrics.r2(OUTPUTS, TARGETS, WEIGHTS)]
    received = [metric(outputs, targets, weights) for metric in found]
    assert received[:2] == pytest.approx(expected)
    assert received[3] == received[1]
    assert found[0](digit, targets) == found[0](outputs, targets["digit"]) == found[0](outputs, targets)
    assert pickle.loads(pickle.dumps(found[0]))(outputs, targets) == found[0](outputs, targets)
    (ignoring,) = metrics_of({"digit": metrics.accuracy.ignoring(0)})
    assert ignoring(outputs, targets) == metrics.accuracy.ignoring(0)(digit, targets["digit"])


def test_keys_that_are_none(device):
    (metric,) = metrics_of({"digit": metrics.accuracy})
    x, y = on(device, SCORES), on(device, LABELS)
    for outputs, targets, message in [
        (x, y, "need outputs or targets that are dicts, received the key 'digit' and no dict. Give a list"),
        ({"a": x}, y, r"received 'digit' beside outputs with \['a'\]\. Rename it"),
        (x, {"b": y}, r"received 'digit' beside targets with \['b'\]"),
        ({"digit": x}, {"b": y}, r"received 'digit' beside targets with \['b'\]"),
    ]:
        for call in (metric, metric.check_targets, metric.batch_totals):
            with pytest.raises(ValueError, match=message):
                call(outputs, targets)
    with pytest.raises(TypeError, match="a metric is one of xpnet"):
        metrics_of({"digit": "accuracy"})


class TwoHeads(nn.Module):
    def __init__(self):
        self.digit, self.size = nn.Dense(3, 2, seed=0), nn.Dense(3, 1, seed=1)

    def __call__(self, x):
        return {"digit": self.digit(x), "size": self.size(x)}


def test_fit_takes_metrics_of_keys(device):
    y = {"digit": Y, "size": X[:, :1]}
    history = train(
        TwoHeads(),
        y=y,
        loss=lambda outputs, y: losses.cross_entropy(outputs["digit"], y["digit"]),
        metrics={"digit": metrics.accuracy, "size": [metrics.r2]},
        validation=(X[:20], {"digit": Y[:20], "size": X[:20, :1]}),
    )
    assert {"digit_accuracy", "size_r2", "validation_digit_accuracy", "validation_size_r2"} <= history.keys()
    with pytest.raises(ValueError, match="received 'shape' beside outputs with"):
        train(
            TwoHeads(), y=y, loss=lambda o, y: losses.mse(o["size"], y["size"]), metrics={"shape": metrics.r2}
        )


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric", [metrics.r2, metrics.mean_absolute_error, metrics.root_mean_squared_error], ids=lambda x: x.name
)
def test_numbers_have_no_classes(device, metric):
    part = metric.of_part("part", lambda outputs, targets: (outputs, targets))
    for each in (metric, part, metric.ignoring(-1)):
        with pytest.raises(TypeError, match=f"the metric {metric.name} takes no class_weight"):
            each.batch_totals(on(device, OUTPUTS), on(device, TARGETS), class_weight=[1.0, 2.0])


@pytest.mark.parametrize(
    "metric",
    [
        metrics.Metric("own", lambda outputs, targets: (1.0,), lambda x: x),
        as_metric(functools.wraps(max)(lambda outputs, targets: 0.5)),
        as_metric(max),
    ],
    ids=["totals", "function", "built in"],
)
def test_metrics_that_know_nothing_of_weights(metric):
    message = (
        rf"the metric {metric.name} takes no sample_weight, received one\. Leave out one of the two; .* "
        r"f\(outputs, targets, sample_weight=None\)"
    )
    for each in (metric, metric.of_part("part", lambda outputs, targets: (outputs, targets))):
        with pytest.raises(TypeError, match=message):
            each.batch_totals(OUTPUTS, TARGETS, WEIGHTS)
        with pytest.raises(TypeError, match=message):
            each(OUTPUTS, TARGETS, WEIGHTS)


@pytest.mark.parametrize("case", CASES)
def test_weights_that_do_not_fit(device, case):
    metric, _, outputs, targets = CASES[case]
    outputs, targets = on(device, outputs), on(device, targets)
    for wrong, message in [
        (WEIGHTS[:5], r"each of the 60 examples"),
        (0 * WEIGHTS, "received 0 for all 60"),
        (WEIGHTS - 1, "finite numbers of at least 0"),
        (np.where(WEIGHTS == 0, math.nan, WEIGHTS), "received nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric(outputs, targets, on(device, wrong))
    with pytest.raises(ValueError, match=r"sample_weight must have the shape \(60,\)"):
        metric.batch_totals(outputs, targets, on(device, np.ones((NUMBER, 1, 1))))


# -- weights of classes in a training ----------------------------------------------------------------------


def test_class_weights(device):
    labels = np.asarray([0, 0, 0, 1, 2, 2])
    balanced = [6 / (3 * 3), 6 / 3, 6 / (3 * 2), 1.0]
    assert counted_class_weights("balanced", on(device, labels), 4).tolist() == balanced
    # What is ignored is not counted, and weights of yes or no may be written as any number.
    assert counted_class_weights("balanced", on(device, np.append(labels, [-100, 9])), 4).tolist() == balanced
    answers = on(device, np.asarray([[0.0], [1.0], [1.0], [1.0]]))
    assert counted_class_weights("balanced", answers, 2).tolist() == [4 / 2, 4 / (2 * 3)]
    assert counted_class_weights({0: 2, 3: 0.5}, labels, 4).tolist() == [2.0, 1.0, 1.0, 0.5]
    assert counted_class_weights({np.int64(1): np.float32(2)}, labels, 2).tolist() == [1.0, 2.0]
    assert listed_class_weights([1, 2, 0, 3.5]).tolist() == [1.0, 2.0, 0.0, 3.5]
    assert listed_class_weights(on(device, OF_CLASSES)).tolist() == OF_CLASSES.tolist()


@pytest.mark.parametrize(
    ("class_weight", "error", "message"),
    [
        ("even", TypeError, "a dict of classes and weights, .* received 'even'"),
        (3.0, TypeError, "a dict of classes and weights, .* received float"),
        ({4: 1.0}, ValueError, "numbers of classes as its keys, from 0 to 2, received 4"),
        ({"cat": 1.0}, ValueError, "from 0 to 2, received 'cat'"),
        ({0: -1.0}, ValueError, "finite number of at least 0 for each class, received -1.0 for 0"),
        ({0: "2"}, ValueError, "finite number of at least 0 for each class, received '2' for 0"),
        ([1.0, -2.0, 1.0], ValueError, "finite numbers of at least 0, received -2, first in row 1"),
        ([0.0, 0.0, 0.0], ValueError, "more than 0 for a class, received 0 for all 3"),
        ({0: 0, 1: 0, 2: 0}, ValueError, "more than 0 for a class, received 0 for all 3"),
    ],
    ids=str,
)
def test_class_weights_that_are_none(class_weight, error, message):
    checked = listed_class_weights
    if isinstance(class_weight, dict):
        checked = functools.partial(counted_class_weights, labels=LABELS, classes=3)
    with pytest.raises(error, match=message):
        checked(class_weight)


def test_balanced_weights_of_what_is_no_label():
    for wrong in ([0.5, 0.25], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="targets that are numbers of classes, or 0 and 1"):
            counted_class_weights("balanced", np.asarray(wrong), 2)


# -- labels that are ignored, in fit -----------------------------------------------------------------------

IGNORED = np.where(np.arange(60) % 3 == 0, -100, Y)
IGNORING = functools.partial(losses.cross_entropy, ignore_index=-100)
WAYS = {"partial": IGNORING, "lambda": lambda outputs, y: losses.cross_entropy(outputs, y, ignore_index=-100)}


@pytest.mark.parametrize("loss", WAYS.values(), ids=WAYS)
def test_fit_knows_what_is_ignored(device, loss):
    history = train(classifier(), y=IGNORED, loss=loss, metrics=[metrics.accuracy.ignoring(-100)], epochs=20)
    assert history["accuracy"][-1] > 0.8
    wrong = np.where(np.arange(60) == 59, 2, IGNORED)
    for y, message in [
        (wrong, "labels must be from 0 to 1 for 2 classes, received labels from 0 to 2"),
        (0 * Y - 100, "at least one target must count, received -100 alone"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(classifier(), y=y, loss=loss)
    with pytest.raises(ValueError, match="received labels from -100 to 1"):
        train(classifier(), y=IGNORED, loss=lambda outputs, y: losses.cross_entropy(outputs, y))


@pytest.mark.parametrize("loss", WAYS.values(), ids=WAYS)
def test_batches_that_are_ignored_as_a_whole(device, loss):
    batches = [(X[start : start + 15], IGNORED[start : start + 15]) for start in range(0, 60, 15)]
    batches[2] = (batches[2][0], batches[2][1] * 0 - 100)
    net = classifier()
    settings = {"loss": loss, "optimizer": optim.SGD(0.1), "metrics": [metrics.accuracy.ignoring(-100)]}
    history = xpnet.fit(net, batches, epochs=2, progress=False, **settings)
    assert np.isfinite(history["loss"]).all()
    batches[2][1][4] = 7
    with pytest.raises(ValueError, match="received labels from 0 to 7"):
        xpnet.fit(net, batches, epochs=2, progress=False, **settings)
