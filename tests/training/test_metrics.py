import math

import numpy as np
import pytest
import sklearn.metrics as reference

import xpnet
from xpnet.training.metrics import Metric, Totals, as_metric

random = np.random.default_rng(0)
LOGITS = random.normal(size=(37, 4))
LABELS = random.integers(4, size=37)
OUTPUTS = random.normal(size=(37, 2))
TARGETS = OUTPUTS + 0.3 * random.normal(size=(37, 2))

CASES = {
    "accuracy": (
        xpnet.metrics.accuracy,
        LOGITS,
        LABELS,
        reference.accuracy_score(LABELS, LOGITS.argmax(-1)),
    ),
    "accuracy of probabilities": (
        xpnet.metrics.accuracy,
        LOGITS,
        np.eye(4)[LABELS],
        reference.accuracy_score(LABELS, LOGITS.argmax(-1)),
    ),
    "top 2": (
        xpnet.metrics.top_k_accuracy(2),
        LOGITS,
        LABELS,
        reference.top_k_accuracy_score(LABELS, LOGITS, k=2),
    ),
    "binary accuracy": (
        xpnet.metrics.binary_accuracy,
        OUTPUTS,
        (TARGETS > 0) * 1.0,
        np.mean((OUTPUTS > 0) == (TARGETS > 0)),
    ),
    "mean absolute error": (
        xpnet.metrics.mean_absolute_error,
        OUTPUTS,
        TARGETS,
        reference.mean_absolute_error(TARGETS, OUTPUTS),
    ),
    "root mean squared error": (
        xpnet.metrics.root_mean_squared_error,
        OUTPUTS,
        TARGETS,
        reference.root_mean_squared_error(TARGETS.ravel(), OUTPUTS.ravel()),
    ),
    "r2": (xpnet.metrics.r2, OUTPUTS, TARGETS, reference.r2_score(TARGETS.ravel(), OUTPUTS.ravel())),
}


@pytest.mark.parametrize("case", CASES)
def test_value(device, case):
    metric, outputs, targets, expected = CASES[case]
    outputs, targets = xpnet.asarray(outputs, device=device), xpnet.asarray(targets, device=device)
    assert metric(outputs, targets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_sum_over_uneven_batches_is_exact(device, case):
    metric, outputs, targets, expected = CASES[case]
    totals = Totals([metric])
    for rows in (slice(0, 16), slice(16, 32), slice(32, None)):
        part = xpnet.asarray(outputs[rows], device=device), xpnet.asarray(targets[rows], device=device)
        totals.add(xpnet.asarray(float(rows.start), device=device), *part)
    results = totals.results()
    assert results[metric.name] == pytest.approx(expected, rel=1e-12)
    assert results["loss"] == pytest.approx((16 * 16 + 32 * 5) / 37)


def test_r2_of_constant_targets_is_nan():
    assert math.isnan(xpnet.metrics.r2(np.ones((3, 1)), np.ones((3, 1))))


def test_a_logit_of_0_is_not_positive():
    assert xpnet.metrics.binary_accuracy(np.asarray([0.0, 0.0, 0.5]), np.asarray([0.0, 0.0, 1.0])) == 1
    assert xpnet.metrics.binary_accuracy(np.asarray([0.0, -0.0]), np.asarray([1.0, 1.0])) == 0


def test_function_is_averaged_over_examples():
    metric = as_metric(lambda outputs, targets: abs(outputs - targets).mean())
    assert isinstance(metric, Metric)
    totals = Totals([metric])
    totals.add(0.0, np.asarray([1.0, 2.0, 3.0]), np.zeros(3))
    totals.add(0.0, np.asarray([10.0]), np.zeros(1))
    assert totals.results()[metric.name] == pytest.approx(16 / 4)


@pytest.mark.parametrize(
    "metric", [xpnet.metrics.r2, xpnet.metrics.mean_absolute_error, xpnet.metrics.binary_accuracy]
)
def test_shapes_that_would_broadcast_are_refused(metric):
    with pytest.raises(ValueError, match=r"received \(5, 1\) and \(5,\).*reshape"):
        metric(np.zeros((5, 1)), np.zeros(5))


def test_bad_metrics():
    with pytest.raises(TypeError, match=r"one of xpnet.metrics or a function.*received 'accuracy'"):
        as_metric("accuracy")
    with pytest.raises(ValueError, match="k must be at least 1, received 0"):
        xpnet.metrics.top_k_accuracy(0)
