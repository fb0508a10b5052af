"""Metrics: what to watch besides the loss. `xpnet.training.metric` says how one adds up over batches."""

import functools
import math
from numbers import Real
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.losses import check_labels
from xpnet.settings import count
from xpnet.training.destination import length
from xpnet.training.metric import Metric, attribute_of, wide

__all__ = [
    "Metric",
    "accuracy",
    "binary_accuracy",
    "mean_absolute_error",
    "r2",
    "root_mean_squared_error",
    "top_k_accuracy",
]


def as_metric(metric: Any) -> Metric:
    """Return a metric; a function of outputs and targets becomes its mean over the batches.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(metric, Metric):
        return metric
    must = "a metric is one of xpnet.metrics or a function (outputs, targets) → number"
    if not callable(metric):
        known = isinstance(metric, str) and metric in __all__ and metric != "Metric"
        raise TypeError(f"{must}, received {metric!r}.{f' Write xpnet.metrics.{metric}.' if known else ''}")
    if metric is top_k_accuracy:
        raise TypeError(f"{must}, received top_k_accuracy, which makes one. Write top_k_accuracy(5).")
    name = attribute_of(metric, "__name__") or type(metric).__name__

    def totals(outputs: Any, targets: Any) -> tuple[Any, ...]:
        number, examples = metric(outputs, targets), length(targets)
        if not (isinstance(number, Real) or (tree.is_array(number) and not number.shape)):
            kind = f"shape {tuple(number.shape)}" if tree.is_array(number) else type(number).__name__
            raise TypeError(f"a metric must return one number for a batch, received {kind} from {name}.")
        return wide(number) * examples, examples

    checks = {"check_targets": attribute_of(metric, "check_targets")}
    return Metric(name, totals, _ratio, takes_logits=bool(attribute_of(metric, "takes_logits")), **checks)


# -- what metrics share ------------------------------------------------------------------------------------


def _ratio(total: float, number: float) -> float:
    return total / number


def _check_arrays(name: str, **values: Any) -> None:
    for what, value in values.items():
        if not tree.is_array(value):
            several = any(map(tree.is_array, tree.leaves(value)))
            choose = f'metrics.{name}.of_part("name", lambda outputs, targets: (outputs[0], targets)), say'
            raise TypeError(
                f"{name} compares one array of outputs with one of targets, received {what} of type "
                f"{type(value).__name__}. "
                + (f"Choose one of the arrays: {choose}." if several else "`xpnet.asarray` makes an array.")
            )
        if 0 in value.shape or not value.shape:
            raise ValueError(
                f"{name} needs at least one example, on the first axis, received {what} of shape "
                f"{tuple(value.shape)}."
            )
        if array_namespace(value).isdtype(value.dtype, "complex floating"):
            raise TypeError(f"{name} compares real numbers, received {what} of {value.dtype}.")
    numbers = [value.shape[0] for value in values.values()]
    if len(set(numbers)) > 1:
        received = " and ".join(f"{number} {what}" for number, what in zip(numbers, values, strict=True))
        raise ValueError(f"{name} needs as many targets as outputs, received {received}.")


# -- classes -----------------------------------------------------------------------------------------------


def share_totals(outputs: Any, right: Any, weights: Any = None) -> tuple[Any, ...]:
    """Return the totals of a share of what is right: how much is, how much there is, and how many are NaN."""
    xp = array_namespace(outputs, right)
    unknown = xp.count_nonzero(outputs != outputs)
    if weights is None:
        return xp.count_nonzero(right), math.prod(right.shape), unknown
    weights = wide(weights)
    return xp.sum(xp.where(right, weights, xp.zeros_like(weights))), xp.sum(weights), unknown


def share(right: float, number: float, unknown: float) -> float:
    """Return what is right as a share, or NaN if an output is NaN, which is neither right nor wrong."""
    return math.nan if unknown or not number else right / number


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", ()))


def _check_scores_of_batch(name: str, outputs: Any, targets: Any) -> None:
    """Check shapes alone, as the rest was looked at before."""
    shape, received = _shape(outputs), _shape(targets)
    if len(shape) < 2 or 0 in shape or shape[-1] == 1 or received not in (shape, shape[:-1]):
        _check_scores(name, outputs, targets)


def _check_scores(name: str, outputs: Any, targets: Any) -> None:
    """Check shapes and dtypes of scores of classes and of labels or probabilities, without reading them."""
    _check_arrays(name, outputs=outputs, targets=targets)
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
    _check_scores(name, outputs, _as_many(outputs, targets))
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


def _as_many(outputs: Any, targets: Any) -> Any:
    """Return as many of all targets as there are outputs in a batch, if these are arrays at all."""
    arrays = all(tree.is_array(x) and x.shape for x in (outputs, targets))
    return targets[: min(outputs.shape[0], targets.shape[0]), ...] if arrays else targets


def _labels(targets: Any, outputs: Any) -> Any:
    """Return labels that can be compared with any number of classes, of probabilities the most probable."""
    xp = array_namespace(targets)
    if len(targets.shape) == len(outputs.shape):
        return xp.argmax(wide(targets), axis=-1)
    return xp.astype(targets, xp.__array_namespace_info__().default_dtypes()["indexing"], copy=False)


def _accuracy(outputs: Any, targets: Any) -> tuple[Any, ...]:
    _check_scores_of_batch("accuracy", outputs, targets)
    xp = array_namespace(outputs, targets)
    return share_totals(outputs, xp.argmax(outputs, axis=-1) == _labels(targets, outputs))


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


def _top_k_accuracy(k: int, outputs: Any, targets: Any) -> tuple[Any, ...]:
    _check_scores_of_batch(f"top_k_accuracy({k})", outputs, targets)
    xp = array_namespace(outputs, targets)
    labels = xp.expand_dims(_labels(targets, outputs), axis=-1)
    classes = xp.arange(outputs.shape[-1], dtype=labels.dtype, device=outputs.device)
    own = classes == labels
    score = xp.sum(xp.where(own, outputs, xp.zeros_like(outputs)), axis=-1, keepdims=True)
    before = (outputs > score) | ((outputs == score) & (classes < labels))
    return share_totals(outputs, xp.any(own, axis=-1) & (xp.count_nonzero(before, axis=-1) < k))


# -- yes or no, and numbers --------------------------------------------------------------------------------


def _check_shapes_of_batch(name: str, outputs: Any, targets: Any) -> None:
    """Check shapes alone, as the rest was looked at before."""
    shape = _shape(outputs)
    if not shape or 0 in shape or shape != _shape(targets):
        _check_shapes(name, outputs, targets)


def _check_shapes(name: str, outputs: Any, targets: Any) -> None:
    _check_arrays(name, outputs=outputs, targets=targets)
    shape, received = tuple(outputs.shape), tuple(targets.shape)
    if shape != received:
        raise ValueError(
            f"{name} needs outputs and targets of one shape, received {shape} and {received}. Targets of "
            "shape (batch,) belong to outputs of shape (batch,): reshape them to (batch, 1), or the outputs "
            "to (batch,). For labels beside a score for each class use metrics.accuracy."
        )


def _check_all_shapes(name: str, outputs: Any, targets: Any) -> None:
    _check_shapes(name, outputs, _as_many(outputs, targets))


def _check_answers(outputs: Any, targets: Any) -> None:
    _check_all_shapes("binary_accuracy", outputs, targets)
    xp = array_namespace(targets)
    numbers = targets if xp.isdtype(targets.dtype, "numeric") else xp.astype(targets, xp.int8)
    low, high = float(xp.min(numbers)), float(xp.max(numbers))
    if not (low >= -1 and high <= 1):
        raise ValueError(
            "binary_accuracy needs targets of 1 for yes and 0 or -1 for no, received targets from "
            f"{low:g} to {high:g}. For several classes use metrics.accuracy with an output for each, for "
            "numbers metrics.r2."
        )


def _binary_accuracy(outputs: Any, targets: Any) -> tuple[Any, ...]:
    _check_shapes_of_batch("binary_accuracy", outputs, targets)
    return share_totals(outputs, (outputs > 0) == (wide(targets) > 0.5))


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


def _columns(outputs: Any, targets: Any) -> tuple[Any, Any]:
    """Return both with the axes (batch, columns), in the widest precision."""
    xp = array_namespace(outputs, targets)
    shape = (outputs.shape[0], math.prod(outputs.shape[1:]))
    return xp.reshape(wide(outputs), shape), xp.reshape(wide(targets), shape)


def _absolute_errors(outputs: Any, targets: Any) -> tuple[Any, ...]:
    _check_shapes_of_batch("mean_absolute_error", outputs, targets)
    xp = array_namespace(outputs, targets)
    return xp.sum(xp.abs(wide(outputs) - wide(targets))), math.prod(outputs.shape)


mean_absolute_error = Metric(
    "mean_absolute_error",
    _absolute_errors,
    _ratio,
    """The mean of the absolute differences of outputs and targets of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.mean_absolute_error(np.asarray([2.0, 4.0]), np.asarray([1.0, 1.0]))
    2.0
    """,
    check_targets=functools.partial(_check_all_shapes, "mean_absolute_error"),
)


def _squared_errors(outputs: Any, targets: Any) -> tuple[Any, ...]:
    _check_shapes_of_batch("root_mean_squared_error", outputs, targets)
    predicted, true = _columns(outputs, targets)
    xp = array_namespace(predicted)
    return xp.sum((predicted - true) ** 2, axis=0), true.shape[0]


def _mean_root(errors: numpy.ndarray, number: float) -> float:
    return float(numpy.mean(numpy.sqrt(errors / number)))


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
    check_targets=functools.partial(_check_all_shapes, "root_mean_squared_error"),
)


def _r2_totals(outputs: Any, targets: Any) -> tuple[Any, ...]:
    """Return for each column its squared errors, and number, mean and squared deviations of the targets.

    The mean is in two parts, a number near it and the sum of the deviations from that: the difference of two
    means of 20,000 would have few digits in single precision.
    """
    _check_shapes_of_batch("r2", outputs, targets)
    predicted, true = _columns(outputs, targets)
    xp = array_namespace(predicted)
    number = true.shape[0]
    first = true[:1, ...]  # of which equal targets do not differ at all
    center = first + xp.mean(true - first, axis=0, keepdims=True)
    deviations = true - center
    total = xp.sum(deviations, axis=0)
    spread = xp.sum((deviations - total / number) ** 2, axis=0)
    return xp.sum((predicted - true) ** 2, axis=0), number, center[0, ...], total, spread


def _merge_r2(totals: tuple[Any, ...], more: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge means and squared deviations.

    T. F. Chan, G. H. Golub and R. J. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances, 1979.
    """
    errors, number, center, total, spread = totals
    other_errors, other_number, other_center, other_total, other_spread = more
    between = other_center - center
    difference = between + (other_total / other_number - total / number)
    together = number + other_number
    return (
        errors + other_errors,
        together,
        center,
        total + other_total + other_number * between,
        spread + other_spread + difference**2 * (number * other_number / together),
    )


def mean_r2(errors: numpy.ndarray, spread: numpy.ndarray) -> float:
    """Return the mean R² of columns, of squared errors and squared deviations from the mean.

    A column whose targets are all equal has 1 if they are hit exactly, else 0, as in scikit-learn.
    """
    constant = spread == 0
    each = 1 - errors / numpy.where(constant, 1.0, spread)
    missed = numpy.where(numpy.isnan(errors), math.nan, 0.0)
    return float(numpy.mean(numpy.where(constant, numpy.where(errors == 0, 1.0, missed), each)))


def _r2_result(errors: Any, number: float, _center: Any, _total: Any, spread: Any) -> float:
    return mean_r2(errors, spread) if number >= 2 else math.nan


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
    check_targets=functools.partial(_check_all_shapes, "r2"),
)
