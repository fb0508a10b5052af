"""Metrics of classes: which share of labels is right."""

import functools
import math
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.indices import safe_indices
from xpnet.losses import check_labels
from xpnet.losses.weights import arrays_among, class_weights, example_weights, expanded
from xpnet.settings import count
from xpnet.training.metric import Metric, wide, wide_dtype
from xpnet.training.metrics.checks import (
    as_many,
    check_all_shapes,
    check_arrays,
    check_shapes_of_batch,
    shape_of,
)


def share_totals(outputs: Any, right: Any, weights: Any = None) -> tuple[Any, ...]:
    """Return the totals of a share of what is right: how much is, how much there is, and how many are NaN.

    Weights have the first axes of what is right. What has the weight 0 may be NaN.
    """
    xp = array_namespace(outputs, right, *arrays_among(weights))
    unknown = outputs != outputs
    if weights is None:
        return xp.count_nonzero(right), math.prod(right.shape), xp.count_nonzero(unknown)
    weights = xp.broadcast_to(expanded(xp, wide(weights), len(right.shape)), right.shape)
    unknown = unknown & expanded(xp, weights != 0, len(outputs.shape))
    weight_of_right = xp.sum(xp.where(right, weights, xp.zeros_like(weights)))
    return weight_of_right, xp.sum(weights), xp.count_nonzero(unknown)


def share(right: float, number: float, unknown: float) -> float:
    """Return what is right as a share, or NaN if an output is NaN, which is neither right nor wrong."""
    return math.nan if unknown or not number else right / number


def _check_scores_of_batch(name: str, outputs: Any, targets: Any) -> None:
    """Check shapes alone, as the rest was looked at before."""
    shape, received = shape_of(outputs), shape_of(targets)
    if len(shape) < 2 or 0 in shape or shape[-1] == 1 or received not in (shape, shape[:-1]):
        _check_scores(name, outputs, targets)


def _check_scores(name: str, outputs: Any, targets: Any) -> None:
    """Check shapes and dtypes of scores of classes and of labels or probabilities, without reading them."""
    check_arrays(name, outputs=outputs, targets=targets)
    shape, received = tuple(outputs.shape), tuple(targets.shape)
    several = len(shape) > 1 and shape[-1] > 1
    integral = array_namespace(targets).isdtype(targets.dtype, "integral")
    if several and (received == shape or (received == shape[:-1] and integral)):
        return
    together = f"received outputs of shape {shape} and targets of shape {received}"
    if not several:
        raise ValueError(
            f"{name} needs a score for each of at least two classes, {together}. For yes or no by one score "
            "use metrics.binary_accuracy, for numbers metrics.r2 or metrics.mean_absolute_error."
        )
    if received != shape[:-1]:
        raise ValueError(
            f"{name} needs outputs of shape (batch, ..., classes) and labels of shape (batch, ...), or "
            f"probabilities of the shape of the outputs, {together}. Reshape the targets: targets[:, 0] has "
            "the shape (batch,)."
        )
    raise ValueError(
        f"{name} needs integers as labels, numbers of classes, received {targets.dtype}. Convert them with "
        "xpnet.asarray(labels, dtype='int64'), or use metrics.r2 for a regression."
    )


def _check_classes(name: str, outputs: Any, targets: Any) -> None:
    """Check all targets beside the outputs of a batch, and read them."""
    _check_scores(name, outputs, as_many(outputs, targets))
    if len(targets.shape) < len(outputs.shape):
        check_labels(_labels(targets, outputs), outputs.shape[-1])  # torch has no minimum of uint64
        return
    xp = array_namespace(targets)
    numbers = targets if xp.isdtype(targets.dtype, "numeric") else xp.astype(targets, xp.int8)
    sums = xp.astype(xp.sum(numbers, axis=-1), xp.float32)
    low, least, most = float(xp.min(numbers)), float(xp.min(sums)), float(xp.max(sums))
    # Probabilities of bfloat16 sum to 1 within a hundredth, several labels that are true to a whole number. A
    # row of zeros, which counts for nothing in `cross_entropy`, has no class that is right or wrong.
    if not (low >= 0 and abs(least - 1) < 0.01 and abs(most - 1) < 0.01):
        raise ValueError(
            f"{name} needs targets that are labels or, in the shape of the outputs, probabilities of at "
            f"least 0 with a sum of 1 in each row, received numbers from {low:g} with sums from {least:g} to "
            f"{most:g}. For labels of which several may be true use metrics.binary_accuracy, for numbers "
            "metrics.r2."
        )


def _labels(targets: Any, outputs: Any) -> Any:
    """Return labels that can be compared with any number of classes, of probabilities the most probable."""
    xp = array_namespace(targets)
    if len(targets.shape) == len(outputs.shape):
        return xp.argmax(wide(targets), axis=-1)
    return xp.astype(targets, xp.__array_namespace_info__().default_dtypes()["indexing"], copy=False)


def _weights_of_rows(xp: Any, labels: Any, classes: int, sample_weight: Any, class_weight: Any) -> Any:
    """Return how much each label counts; None if all count alike."""
    dtype, weights = wide_dtype(labels), None
    if sample_weight is not None:
        weights = example_weights(xp, sample_weight, labels.shape, labels, dtype)
    if class_weight is not None:
        of_class = class_weights(xp, class_weight, classes, labels, dtype)
        labels, _ = safe_indices(xp, labels, classes)
        of_rows = xp.reshape(xp.take(of_class, xp.reshape(labels, (-1,)), axis=0), labels.shape)
        weights = of_rows if weights is None else of_rows * weights
    return weights


def _accuracy(
    outputs: Any, targets: Any, sample_weight: Any = None, class_weight: Any = None
) -> tuple[Any, ...]:
    _check_scores_of_batch("accuracy", outputs, targets)
    xp = array_namespace(outputs, targets, *arrays_among(sample_weight, class_weight))
    labels = _labels(targets, outputs)
    right = xp.argmax(outputs, axis=-1) == labels
    if sample_weight is None and class_weight is None:
        return share_totals(outputs, right)
    weights = _weights_of_rows(xp, labels, outputs.shape[-1], sample_weight, class_weight)
    return share_totals(outputs, right, weights)


accuracy = Metric(
    "accuracy",
    _accuracy,
    share,
    """The share of labels, of shape (batch, ...), that are the class of the largest output, of shape
    (batch, ..., classes). Targets of the shape of the outputs are probabilities, whose largest is the label.

    Among equal outputs the first is the largest. If an output is NaN, so is the metric.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.accuracy(np.asarray([[2.0, 1.0], [0.0, 3.0]]), np.asarray([0, 0]))
    0.5
    """,
    check_targets=functools.partial(_check_classes, "accuracy"),
)


def top_k_accuracy(k: int = 5) -> Metric:
    """Make the metric: the share of labels that are among the k largest outputs.

    Among equal outputs the first are the largest, so that k = 1 is `accuracy`. If an output is NaN, so is
    the metric.

    Parameters
    ----------
    k : int, default=5

    Returns
    -------
    Metric
        Of outputs of shape (batch, ..., classes) and labels of shape (batch, ...), or probabilities of the
        shape of the outputs.

    Raises
    ------
    ValueError
        If k is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> scores = np.asarray([[0.1, 0.7, 0.2], [0.8, 0.1, 0.3]])
    >>> xpnet.metrics.top_k_accuracy(2)(scores, np.asarray([2, 1]))
    0.5
    """
    k = count("k", k)
    name = f"top_{k}_accuracy"

    check_targets = functools.partial(_check_classes, f"top_k_accuracy({k})")
    return Metric(name, functools.partial(_top_k_accuracy, k), share, check_targets=check_targets)


def _top_k_accuracy(
    k: int, outputs: Any, targets: Any, sample_weight: Any = None, class_weight: Any = None
) -> tuple[Any, ...]:
    _check_scores_of_batch(f"top_k_accuracy({k})", outputs, targets)
    xp = array_namespace(outputs, targets, *arrays_among(sample_weight, class_weight))
    of_rows = _labels(targets, outputs)
    labels = xp.expand_dims(of_rows, axis=-1)
    classes = xp.arange(outputs.shape[-1], dtype=labels.dtype, device=outputs.device)
    own = classes == labels
    score = xp.sum(xp.where(own, outputs, xp.zeros_like(outputs)), axis=-1, keepdims=True)
    before = (outputs > score) | ((outputs == score) & (classes < labels))
    right = xp.any(own, axis=-1) & (xp.count_nonzero(before, axis=-1) < k)
    if sample_weight is None and class_weight is None:
        return share_totals(outputs, right)
    weights = _weights_of_rows(xp, of_rows, outputs.shape[-1], sample_weight, class_weight)
    return share_totals(outputs, right, weights)


def _check_answers(outputs: Any, targets: Any) -> None:
    check_all_shapes("binary_accuracy", outputs, targets)
    xp = array_namespace(targets)
    numbers = targets if xp.isdtype(targets.dtype, "numeric") else xp.astype(targets, xp.int8)
    low, high = float(xp.min(numbers)), float(xp.max(numbers))
    if not (low >= -1 and high <= 1):
        raise ValueError(
            "binary_accuracy needs targets of 1 for yes and 0 or -1 for no, received targets from "
            f"{low:g} to {high:g}. For several classes use metrics.accuracy with an output for each, for "
            "numbers metrics.r2."
        )


def _binary_accuracy(
    outputs: Any, targets: Any, sample_weight: Any = None, class_weight: Any = None
) -> tuple[Any, ...]:
    check_shapes_of_batch("binary_accuracy", outputs, targets)
    yes = wide(targets) > 0.5
    right = (outputs > 0) == yes
    if sample_weight is None and class_weight is None:
        return share_totals(outputs, right)
    xp = array_namespace(outputs, targets, *arrays_among(sample_weight, class_weight))
    return share_totals(outputs, right, _weights_of_rows(xp, yes, 2, sample_weight, class_weight))


binary_accuracy = Metric(
    "binary_accuracy",
    _binary_accuracy,
    share,
    """The share of logits with the right sign: positive where the target is yes, else not.

    A target above 0.5 is a yes, so that 0 and 1, -1 and 1, and probabilities can be targets. Outputs and
    targets have one shape. If an output is NaN, so is the metric.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.binary_accuracy(np.asarray([2.0, -1.0]), np.asarray([1.0, 1.0]))
    0.5
    """,
    check_targets=_check_answers,
    takes_logits=True,
)
