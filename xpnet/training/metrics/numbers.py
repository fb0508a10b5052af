"""Metrics of numbers: how far outputs are from targets."""

import functools
import math
from typing import Any

import numpy

from xpnet.autodiff import array_namespace
from xpnet.losses.weights import arrays_among, example_weights, hidden
from xpnet.training.metric import Metric, added, ratio, wide
from xpnet.training.metrics.checks import check_all_shapes, check_shapes_of_batch


def _columns(outputs: Any, targets: Any, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Return both with the axes (batch, columns), in the widest precision, and their weights or None.

    What has the weight 0 is 0.
    """
    xp = array_namespace(outputs, targets, *arrays_among(sample_weight))
    shape = (outputs.shape[0], math.prod(outputs.shape[1:]))
    predicted, true = wide(outputs), wide(targets)
    if sample_weight is None:
        return xp.reshape(predicted, shape), xp.reshape(true, shape), None
    weights = example_weights(xp, sample_weight, outputs.shape, predicted)
    weights = xp.broadcast_to(weights, outputs.shape)
    each = (*hidden(xp, weights, predicted, true), weights)
    predicted, true, weights = (xp.reshape(x, shape) for x in each)
    return predicted, true, weights


def _absolute_errors(outputs: Any, targets: Any, sample_weight: Any = None) -> tuple[Any, ...]:
    check_shapes_of_batch("mean_absolute_error", outputs, targets)
    xp = array_namespace(outputs, targets)
    if sample_weight is None:
        return xp.sum(xp.abs(wide(outputs) - wide(targets))), math.prod(outputs.shape)
    predicted, true, weights = _columns(outputs, targets, sample_weight)
    return xp.sum(weights * xp.abs(predicted - true)), xp.sum(weights)


mean_absolute_error = Metric(
    "mean_absolute_error",
    _absolute_errors,
    ratio,
    """The mean of the absolute differences of outputs and targets of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.mean_absolute_error(np.asarray([2.0, 4.0]), np.asarray([1.0, 1.0]))
    2.0
    """,
    check_targets=functools.partial(check_all_shapes, "mean_absolute_error"),
)


def _squared_errors(outputs: Any, targets: Any, sample_weight: Any = None) -> tuple[Any, ...]:
    check_shapes_of_batch("root_mean_squared_error", outputs, targets)
    predicted, true, weights = _columns(outputs, targets, sample_weight)
    xp = array_namespace(predicted)
    errors = (predicted - true) ** 2
    if weights is None:
        return xp.sum(errors, axis=0), true.shape[0]
    return xp.sum(weights * errors, axis=0), xp.sum(weights, axis=0)


def _mean_root(errors: numpy.ndarray, number: Any) -> float:
    """Return the mean of the roots of the columns in which something counts, NaN if that is none."""
    counts = numpy.broadcast_to(number, errors.shape) > 0
    return float(numpy.mean(numpy.sqrt(errors / number)[counts])) if counts.any() else math.nan


root_mean_squared_error = Metric(
    "root_mean_squared_error",
    _squared_errors,
    _mean_root,
    """The root of the mean of the squared differences of outputs and targets of one shape.

    Of several outputs for each example, the mean of their roots.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.root_mean_squared_error(np.asarray([1.0, 7.0]), np.asarray([0.0, 0.0]))
    5.0
    """,
    check_targets=functools.partial(check_all_shapes, "root_mean_squared_error"),
)


def _r2_totals(outputs: Any, targets: Any, sample_weight: Any = None) -> tuple[Any, ...]:
    """Return for each column its squared errors, and number, mean and squared deviations of the targets.

    The mean is in two parts, a number near it and the sum of the deviations from that: the difference of two
    means of 20,000 would have few digits in single precision. With weights the number is their sum, and how
    many targets count comes last.
    """
    check_shapes_of_batch("r2", outputs, targets)
    predicted, true, weights = _columns(outputs, targets, sample_weight)
    if weights is not None:
        return _weighted_r2_totals(predicted, true, weights)
    xp = array_namespace(predicted)
    number = true.shape[0]
    first = true[:1, ...]  # of which equal targets do not differ at all
    center = first + xp.mean(true - first, axis=0, keepdims=True)
    deviations = true - center
    total = xp.sum(deviations, axis=0)
    spread = xp.sum((deviations - total / number) ** 2, axis=0)
    return xp.sum((predicted - true) ** 2, axis=0), number, center[0, ...], total, spread


def _weighted_r2_totals(predicted: Any, true: Any, weights: Any) -> tuple[Any, ...]:
    xp = array_namespace(predicted)
    counts, number = weights > 0, xp.sum(weights, axis=0)
    none = number == 0
    divisor = xp.where(none, xp.ones_like(number), number)
    # One of those that count, of which equal targets do not differ at all.
    largest = xp.max(xp.where(counts, true, xp.full_like(true, -math.inf)), axis=0)
    largest = xp.where(none, xp.zeros_like(largest), largest)
    center = largest + xp.sum(weights * (true - largest), axis=0) / divisor
    deviations = true - center
    total = xp.sum(weights * deviations, axis=0)
    spread = xp.sum(weights * (deviations - total / divisor) ** 2, axis=0)
    errors = xp.sum(weights * (predicted - true) ** 2, axis=0)
    return errors, number, center, total, spread, xp.count_nonzero(counts, axis=0)


# In place of a number of 0, of targets whose sum is 0, too.
_LEAST = float(numpy.finfo("float64").tiny)


def _merge_r2(totals: tuple[Any, ...], more: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge means and squared deviations.

    T. F. Chan, G. H. Golub and R. J. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances, 1979.
    """
    errors, number, center, total, spread, *counts = totals
    other_errors, other_number, other_center, other_total, other_spread, *other_counts = more
    center = numpy.where(number == 0, other_center, center)
    between = other_center - center
    mean, other_mean = (
        total / numpy.maximum(number, _LEAST),
        other_total / numpy.maximum(other_number, _LEAST),
    )
    difference = between + (other_mean - mean)
    together = number + other_number
    return (
        errors + other_errors,
        together,
        center,
        total + other_total + other_number * between,
        spread + other_spread + difference**2 * (number * other_number / numpy.maximum(together, _LEAST)),
        *added(tuple(counts), tuple(other_counts)),
    )


def mean_r2(errors: numpy.ndarray, spread: numpy.ndarray) -> float:
    """Return the mean R² of columns, of squared errors and squared deviations from the mean.

    A column whose targets are all equal has 1 if they are hit exactly, else 0, as in scikit-learn.
    """
    constant = spread == 0
    each = 1 - errors / numpy.where(constant, 1.0, spread)
    missed = numpy.where(numpy.isnan(errors), math.nan, 0.0)
    return float(numpy.mean(numpy.where(constant, numpy.where(errors == 0, 1.0, missed), each)))


def _r2_result(errors: Any, number: Any, _center: Any, _total: Any, spread: Any, counts: Any = None) -> float:
    """Return the mean R² of the columns in which at least two targets count, NaN if that is none."""
    several = numpy.broadcast_to(number if counts is None else counts, errors.shape) >= 2
    return mean_r2(errors[several], spread[several]) if several.any() else math.nan


r2 = Metric(
    "r2",
    _r2_totals,
    _r2_result,
    """R²: 1 minus the squared errors over the squared deviations of the targets from their mean.

    Outputs and targets have one shape. Of several outputs for each example, the mean of their R². Where all
    targets are equal it is 1 if all are hit exactly, else 0; of fewer than two examples it is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.r2(np.asarray([1.0, 2.0]), np.asarray([1.0, 3.0]))
    0.5
    """,
    merge=_merge_r2,
    check_targets=functools.partial(check_all_shapes, "r2"),
)
