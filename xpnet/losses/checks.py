"""What targets must be like: checks that read all of them, once, before a training."""

import math
from typing import Any

import numpy

from xpnet.autodiff import array_namespace
from xpnet.backends import asarray, to_numpy
from xpnet.losses.weights import check_weight_values, without
from xpnet.settings import count
from xpnet.tree import Array


class NothingCountsError(ValueError):
    """All targets are left out."""


def check_labels(labels: Array, classes: int) -> None:
    """Check that all labels are numbers of classes.

    This reads from the device, so call it once on the whole data set and not at every step.

    Parameters
    ----------
    labels : array or sequence of integers
        Of any shape and library.
    classes : int
        The number of classes.

    Raises
    ------
    ValueError
        If there are no labels, they are not integers, or one is not from 0 to ``classes`` - 1; or if
        ``classes`` is no positive integer.

    Examples
    --------
    >>> from xpnet import losses
    >>> losses.check_labels([0, 2, 1], 3)
    """
    labels, classes = asarray(labels), count("classes", classes)
    xp = array_namespace(labels)
    check_not_empty(labels)
    if not xp.isdtype(labels.dtype, "integral"):
        raise ValueError(
            f"labels must be integers, numbers of classes, received {labels.dtype}. Convert them with "
            "xpnet.asarray(labels, dtype='int64')."
        )
    check_several(classes)
    low, high = int(xp.min(labels)), int(xp.max(labels))
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1} for {classes} classes, received labels from {low} to "
            f"{high}. Number the classes from 0, or give the network an output for each class."
            + (
                f" Labels that shall not count: cross_entropy(..., ignore_index={low}), "
                f"metrics.accuracy.ignoring({low})."
                if low < 0
                else ""
            )
        )


def check_probabilities(targets: Array) -> None:
    """Check that all targets are probabilities.

    This reads from the device, so call it once on the whole data set and not at every step.

    Parameters
    ----------
    targets : array or sequence
        Of any shape and library.

    Raises
    ------
    ValueError
        If there are no targets, or one is NaN or not from 0 to 1.

    Examples
    --------
    >>> from xpnet import losses
    >>> losses.check_probabilities([0.0, 0.5, 1.0])
    """
    targets = asarray(targets)
    xp = array_namespace(targets)
    check_not_empty(targets)
    if xp.isdtype(targets.dtype, "bool"):
        return
    low, high = float(xp.min(targets)), float(xp.max(targets))
    if math.isnan(low):
        place = int(xp.argmax(xp.astype(xp.reshape(xp.isnan(targets), (-1,)), xp.int8)))
        row = place // math.prod(targets.shape[1:])
        raise ValueError(
            f"targets must be probabilities from 0 to 1, received targets that hold NaN, first in row {row}. "
            "Leave out the examples whose answer is not known, or write 0 there and give it the weight 0."
        )
    if low < 0 or high > 1:
        raise ValueError(
            f"targets must be probabilities from 0 to 1, received targets from {low:g} to {high:g}. Write 1 "
            "for yes and 0 for no."
        )


def check_weights(sample_weight: Array, examples: int) -> None:
    """Check that weights are finite numbers of at least 0, one for each example, and not all 0.

    This reads from the device, so call it once on the whole data set and not at every step.

    Parameters
    ----------
    sample_weight : array or sequence of shape (examples,) or (examples, ...)
        Of numbers or bools, of any library.
    examples : int
        How many there are.

    Raises
    ------
    ValueError
        If there are more or fewer, one is negative, infinite or NaN, or all are 0; or if ``examples`` is no
        positive integer.

    Examples
    --------
    >>> from xpnet import losses
    >>> losses.check_weights([0.5, 2.0, 0.0], 3)
    """
    weights, examples = numpy.asarray(to_numpy(asarray(sample_weight))), count("examples", examples)
    if weights.shape[:1] != (examples,):
        raise ValueError(
            f"sample_weight must have a number for each of the {examples} examples, on its first axis, "
            f"received shape {weights.shape}. Give what shall count as usual the weight 1."
        )
    check_weight_values("sample_weight", weights)
    if not weights.any():
        raise NothingCountsError(
            f"sample_weight must be more than 0 for at least one example, received 0 for all {examples}. "
            "Without weights, all count alike."
        )


def check_floating(xp: Any, x: Any, name: str) -> None:
    if not xp.isdtype(x.dtype, "real floating"):
        raise ValueError(
            f"{name} must be real floating-point numbers, received {x.dtype}. The network's output comes "
            "first, the targets second."
        )


def check_not_empty(x: Any) -> None:
    if 0 in x.shape:
        raise ValueError(f"at least one example is needed, received an array of shape {tuple(x.shape)}.")


def check_several(classes: int) -> None:
    if classes == 1:
        raise ValueError(
            "cross_entropy needs an output for each class, received 1 output. Give the network 2 outputs, or "
            "use xpnet.losses.binary_cross_entropy with targets of shape (batch, 1)."
        )


# How far above 1 probabilities may add up that were rounded: to bfloat16, which has the fewest digits, say.
_ROUNDED = 0.01


def check_class_targets(outputs: Any, targets: Any, *, ignore_index: int | None = None) -> None:
    """Check labels or probabilities of classes. Labels of ``ignore_index`` are left out."""
    if len(targets.shape) < len(outputs.shape):
        labels = targets if ignore_index is None else counting_targets(targets, ignore_index)
        check_labels(labels, outputs.shape[-1])
        return
    check_several(outputs.shape[-1])
    check_probabilities(targets)
    xp = array_namespace(targets)
    total = float(xp.max(xp.sum(xp.astype(targets, xp.float32, copy=False), axis=-1)))
    if total > 1 + _ROUNDED:
        raise ValueError(
            "cross_entropy is for classes that exclude each other, whose probabilities add up to at most 1 "
            f"in each row; received targets of which a row adds up to {total:g}. Use "
            "xpnet.losses.binary_cross_entropy where several classes may be true, or divide each row by its "
            "sum."
        )


def counting_targets(targets: Any, ignored: Any) -> Any:
    """Return targets with 0 in place of those that are ignored, after a check that others are left."""
    check_not_empty(targets)
    xp = array_namespace(targets)
    targets, counts = without(xp, targets, ignored)
    if not bool(xp.any(counts)):
        raise NothingCountsError(
            f"at least one target must count, received {ignored!r} alone, which is ignored. Look at how the "
            "targets were made, or ignore another number."
        )
    return targets
