"""Losses: how far a network's output is from what it should be.

Each loss takes the network's output first and the targets second, and returns the mean over the batch unless
told otherwise. A loss never waits for a device, so a label that is out of range raises no error there. It
turns the loss and its gradient into NaN. `check_labels` looks at the labels once, before training.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

from array_api_compat import device

from xpnet import tree
from xpnet.arrays import concrete
from xpnet.autodiff import array_namespace, stop_gradient
from xpnet.backends import asarray, at_least_single, in_dtype, is_known
from xpnet.indices import safe_indices
from xpnet.settings import at_least_zero, count, positive, up_to_one
from xpnet.tree import Array

__all__ = [
    "binary_cross_entropy",
    "check_labels",
    "check_probabilities",
    "cross_entropy",
    "huber",
    "mae",
    "mse",
]

Reduction = Literal["mean", "sum", "none"]

_noted: ContextVar[list[tuple[Callable[..., Any], Any, Any]] | None] = ContextVar("_noted", default=None)


@contextlib.contextmanager
def noted_calls() -> Iterator[list[tuple[Callable[..., Any], Any, Any]]]:
    """Note the losses on logits that are called inside a ``with`` block, with their logits and targets."""
    noted: list[tuple[Callable[..., Any], Any, Any]] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def _note(loss: Callable[..., Any], logits: Any, targets: Any) -> None:
    noted = _noted.get()
    if noted is not None:
        noted.append((loss, concrete(logits), concrete(targets)))


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    class_weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    r"""Return the cross-entropy between a network's class scores and the true classes.

    With the log-probabilities :math:`\log p_{nc} = z_{nc} - \log \sum_k e^{z_{nk}}` of the logits :math:`z`,
    class weights :math:`w` (1 by default) and label smoothing :math:`\alpha`,

    .. math:: \ell_n = -\sum_c w_c \, t_{nc} \log p_{nc},
        \qquad t_{nc} = (1 - \alpha) \, q_{nc} + \alpha / C,

    where :math:`q_{nc}` are the target probabilities: for an integer label :math:`y_n`, 1 at the class
    :math:`y_n` and 0 elsewhere. The mean is :math:`\sum_n \ell_n / \sum_n w_{y_n}` for integer labels, and
    :math:`\sum_n \ell_n / N` for probabilities.

    Parameters
    ----------
    logits : array of shape (..., classes)
        Scores of any size, a network's output without a softmax; usually of shape (batch, classes).
    labels : array of integers of shape (...), or array of shape (..., classes)
        The true classes, numbered from 0, in any integer dtype; or the probability of each class.
    label_smoothing : float, default=0.0
        The share of the probability, from 0 to 1, that is spread evenly over all classes.
    class_weight : array or sequence of shape (classes,), optional
        How much each class counts.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses :math:`\ell_n`, of shape (...).

    Returns
    -------
    array
        In the dtype of the logits. An integer label that is no class gives NaN.

    Raises
    ------
    ValueError
        If the shapes do not fit, the batch is empty, the labels of one number a row are not integers, the
        logits are not floating-point numbers, or an option is out of range.

    References
    ----------
    Label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016,
    https://arxiv.org/abs/1512.00567.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> logits = np.asarray([[2.0, 1.0, 0.0], [0.0, 5.0, 0.0]])
    >>> float(losses.cross_entropy(logits, np.asarray([0, 1])).round(4))
    0.2105
    """
    weight_arrays = [class_weight] if tree.is_array(class_weight) else []
    xp = array_namespace(logits, labels, *weight_arrays)
    _note(cross_entropy, logits, labels)
    _check_floating(xp, logits, "logits")
    *rows, classes = logits.shape
    if not rows or tuple(labels.shape) not in (tuple(rows), tuple(logits.shape)):
        raise ValueError(
            "cross_entropy needs logits of shape (batch, ..., classes), and labels of shape (batch, ...), "
            "numbers of classes, or of the shape of the logits, their probabilities; received logits of "
            f"shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)}. "
            + (
                f"labels[..., 0] has the shape {tuple(rows)}."
                if tuple(labels.shape) == (*rows, 1)
                else "Reshape one of them; nn.Flatten makes a row of what a network has for each example."
            )
        )
    _check_not_empty(logits)
    smoothing = up_to_one("label_smoothing", label_smoothing)
    dtype, logits = logits.dtype, at_least_single(xp, logits)
    if class_weight is not None:
        if isinstance(class_weight, tuple | list):
            class_weight = [at_least_zero("class_weight", w) if is_known(w) else w for w in class_weight]
        class_weight = xp.asarray(class_weight, dtype=logits.dtype, device=device(logits))
        if tuple(class_weight.shape) != (classes,):
            raise ValueError(
                f"class_weight must have one number for each of the {classes} classes, received shape "
                f"{tuple(class_weight.shape)}."
            )

    # With the largest logit of each row at 0, no exp overflows. The shift changes no result, so no gradient.
    shifted = logits - stop_gradient(xp.max(logits, axis=-1, keepdims=True))
    log_total = xp.log(xp.sum(xp.exp(shifted), axis=-1))  # the log-probabilities are shifted - log_total

    def against(probabilities: Array) -> Array:
        surprise = (xp.expand_dims(log_total, axis=-1) - shifted) * probabilities
        return xp.sum(surprise if class_weight is None else surprise * class_weight, axis=-1)

    if len(labels.shape) == len(rows):
        labels, weights = _labels_and_weights(xp, labels, class_weight, log_total, classes)
        chosen = xp.take_along_axis(shifted, xp.expand_dims(labels, axis=-1), axis=-1)
        losses = (log_total - xp.squeeze(chosen, axis=-1)) * weights
    else:
        losses = against(xp.astype(labels, logits.dtype, copy=False))
        weights = None
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * against(1 / classes)
    if reduction == "mean" and class_weight is not None and weights is not None:
        return in_dtype(xp, xp.sum(losses) / xp.sum(weights), dtype)
    return _reduce(xp, losses, reduction, dtype)


def _labels_and_weights(xp: Any, labels: Any, class_weight: Any, rows: Any, classes: int) -> tuple[Any, Any]:
    """Return labels that are safe to look up with, and the weight of each row: NaN for what is no class."""
    if not xp.isdtype(labels.dtype, "integral"):
        raise ValueError(
            f"labels of shape (batch,) must be integers, numbers of classes, received {labels.dtype}. "
            "Convert them with xpnet.asarray(labels, dtype='int64'), without those that are missing, or use "
            "another loss for a regression."
        )
    labels, valid = safe_indices(xp, labels, classes)
    if class_weight is None:
        weights = xp.ones_like(rows)
    else:
        weights = xp.reshape(xp.take(class_weight, xp.reshape(labels, (-1,)), axis=0), labels.shape)
    return labels, xp.where(valid, weights, math.nan)


def binary_cross_entropy(
    logits: Array, targets: Array, *, positive_weight: Any = 1.0, reduction: Reduction = "mean"
) -> Array:
    r"""Return the cross-entropy between scores for "yes" and the true answers.

    With the probabilities :math:`p = 1 / (1 + e^{-z})` of the logits :math:`z`, targets :math:`t` and the
    weight :math:`w` of the positive answers,

    .. math:: \ell = -w \, t \log p - (1 - t) \log (1 - p),

    computed as :math:`(1 - t) \, z + (1 + (w - 1) \, t) \log (1 + e^{-z})`, which is right for logits of any
    size.

    Parameters
    ----------
    logits : array of shape (batch, ...)
        Scores of any size, a network's output without a sigmoid.
    targets : array of the same shape
        1 for yes, 0 for no, or the probability of yes. They are converted to the dtype of the logits.
    positive_weight : float or array, default=1.0
        How much a yes counts against a no; an array has one number for each output, the shape (...).
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, of the shape of the logits.

    Returns
    -------
    array
        In the dtype of the logits.

    Raises
    ------
    ValueError
        If the shapes do not fit, the batch is empty, or the logits are not floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> float(losses.binary_cross_entropy(np.asarray([0.0, 3.0]), np.asarray([1, 1])).round(4))
    0.3709
    """
    one_weight = is_known(positive_weight) and getattr(positive_weight, "shape", ()) == ()
    xp = array_namespace(logits, targets, *([] if one_weight else [positive_weight]))
    _note(binary_cross_entropy, logits, targets)
    dtype = logits.dtype
    logits, targets = _alike(xp, logits, targets, "binary_cross_entropy", "logits")
    if one_weight:
        positive_weight = at_least_zero("positive_weight", positive_weight)
    else:
        if tuple(positive_weight.shape) != tuple(logits.shape[1:]):
            raise ValueError(
                f"positive_weight must have one number for each output, of shape {tuple(logits.shape[1:])}, "
                f"received shape {tuple(positive_weight.shape)}."
            )
        positive_weight = xp.astype(positive_weight, logits.dtype, copy=False)
    # logaddexp(-z, 0), and not max(-z, 0) + log1p(exp(-|z|)), whose gradient is lost at z = 0.
    softplus = xp.logaddexp(-logits, xp.zeros_like(logits))
    if not one_weight or positive_weight != 1:
        softplus = softplus * (1 + (positive_weight - 1) * targets)
    return _reduce(xp, (1 - targets) * logits + softplus, reduction, dtype)


def mse(predictions: Array, targets: Array, *, reduction: Reduction = "mean") -> Array:
    r"""Return the squared error :math:`\ell = (\hat y - y)^2`.

    Parameters
    ----------
    predictions : array of shape (batch, ...)
        A network's output.
    targets : array of the same shape
        They are converted to the dtype of the predictions.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, of the shape of the predictions.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes differ, the batch is empty, or the predictions are not floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> float(losses.mse(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0])))
    4.5
    """
    xp = array_namespace(predictions, targets)
    dtype = predictions.dtype
    predictions, targets = _alike(xp, predictions, targets, "mse")
    return _reduce(xp, xp.square(predictions - targets), reduction, dtype)


def mae(predictions: Array, targets: Array, *, reduction: Reduction = "mean") -> Array:
    r"""Return the absolute error :math:`\ell = |\hat y - y|`.

    Parameters
    ----------
    predictions : array of shape (batch, ...)
        A network's output.
    targets : array of the same shape
        They are converted to the dtype of the predictions.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, of the shape of the predictions.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes differ, the batch is empty, or the predictions are not floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> float(losses.mae(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0])))
    1.5
    """
    xp = array_namespace(predictions, targets)
    dtype = predictions.dtype
    predictions, targets = _alike(xp, predictions, targets, "mae")
    return _reduce(xp, xp.abs(predictions - targets), reduction, dtype)


def huber(predictions: Array, targets: Array, *, delta: float = 1.0, reduction: Reduction = "mean") -> Array:
    r"""Return an error that is squared where it is small and absolute where it is large.

    With the error :math:`e = \hat y - y`,

    .. math:: \ell = \begin{cases} e^2 / 2 & |e| \le \delta \\ \delta \, (|e| - \delta / 2) & |e| > \delta
        \end{cases}

    Parameters
    ----------
    predictions : array of shape (batch, ...)
        A network's output.
    targets : array of the same shape
        They are converted to the dtype of the predictions.
    delta : float, default=1.0
        Where the two pieces meet.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, of the shape of the predictions.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes differ, the batch is empty, the predictions are not floating-point numbers, or ``delta``
        is not positive.

    References
    ----------
    Huber, "Robust Estimation of a Location Parameter", 1964.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> float(losses.huber(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0])))
    1.25
    """
    xp = array_namespace(predictions, targets)
    delta = positive("delta", delta)
    dtype = predictions.dtype
    predictions, targets = _alike(xp, predictions, targets, "huber")
    error = predictions - targets
    small = xp.clip(error, -delta, delta)
    return _reduce(xp, small * (error - small / 2), reduction, dtype)


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
    _check_not_empty(labels)
    if not xp.isdtype(labels.dtype, "integral"):
        raise ValueError(
            f"labels must be integers, numbers of classes, received {labels.dtype}. Convert them with "
            "xpnet.asarray(labels, dtype='int64')."
        )
    _check_several(classes)
    low, high = int(xp.min(labels)), int(xp.max(labels))
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1} for {classes} classes, received labels from {low} to "
            f"{high}. Number the classes from 0, or give the network an output for each class."
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
    _check_not_empty(targets)
    if xp.isdtype(targets.dtype, "bool"):
        return
    low, high = float(xp.min(targets)), float(xp.max(targets))
    if math.isnan(low):
        place = int(xp.argmax(xp.astype(xp.reshape(xp.isnan(targets), (-1,)), xp.int8)))
        row = place // math.prod(targets.shape[1:])
        raise ValueError(
            f"targets must be probabilities from 0 to 1, received targets that hold NaN, first in row {row}. "
            "Leave out the examples whose answer is not known."
        )
    if low < 0 or high > 1:
        raise ValueError(
            f"targets must be probabilities from 0 to 1, received targets from {low:g} to {high:g}. Write 1 "
            "for yes and 0 for no."
        )


def _alike(xp: Any, predictions: Any, targets: Any, loss: str, name: str = "predictions") -> tuple[Any, Any]:
    """Return both in the dtype to compute in, after a check that they fit together.

    That is the dtype of the predictions, or single precision where it is narrower: float16 has no square of
    256, and no sum of 70,000 ones.
    """
    shape, received = tuple(predictions.shape), tuple(targets.shape)
    if shape != received:
        advice = "Give both one shape."
        if shape == (*received, 1):
            advice = f"Give both one shape; targets[..., None] has the shape {shape}."
        elif shape[:-1] == received and xp.isdtype(targets.dtype, "integral"):
            advice = "Give both one shape, or use xpnet.losses.cross_entropy for numbers of classes."
        raise ValueError(
            f"{loss} needs {name} and targets of the same shape, received {shape} and {received}. {advice}"
        )
    _check_floating(xp, predictions, name)
    _check_not_empty(predictions)
    predictions = at_least_single(xp, predictions)
    return predictions, xp.astype(targets, predictions.dtype, copy=False)


def _check_floating(xp: Any, x: Any, name: str) -> None:
    if not xp.isdtype(x.dtype, "real floating"):
        raise ValueError(
            f"{name} must be real floating-point numbers, received {x.dtype}. The network's output comes "
            "first, the targets second."
        )


def _check_not_empty(x: Any) -> None:
    if 0 in x.shape:
        raise ValueError(f"at least one example is needed, received an array of shape {tuple(x.shape)}.")


def _reduce(xp: Any, losses: Any, reduction: str, dtype: Any) -> Any:
    """Return the losses of the examples, or what is asked for of them, in the dtype of the predictions."""
    if reduction == "mean":
        losses = xp.mean(losses)
    elif reduction == "sum":
        losses = xp.sum(losses)
    elif reduction != "none":
        raise ValueError(f'reduction must be "mean", "sum" or "none", received {reduction!r}.')
    return in_dtype(xp, losses, dtype)


def _check_several(classes: int) -> None:
    if classes == 1:
        raise ValueError(
            "cross_entropy needs an output for each class, received 1 output. Give the network 2 outputs, or "
            "use xpnet.losses.binary_cross_entropy with targets of shape (batch, 1)."
        )


# How far above 1 probabilities may add up that were rounded: to bfloat16, which has the fewest digits, say.
_ROUNDED = 0.01


def _check_class_targets(outputs: Any, targets: Any) -> None:
    if len(targets.shape) < len(outputs.shape):
        check_labels(targets, outputs.shape[-1])
        return
    _check_several(outputs.shape[-1])
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


# What `fit` looks at before it changes anything: `check_targets` is called once with all targets, and outputs
# that are probabilities are refused in front of what takes logits.
cross_entropy.check_targets = _check_class_targets  # type: ignore[attr-defined]
binary_cross_entropy.check_targets = lambda _, targets: check_probabilities(targets)  # type: ignore[attr-defined]
cross_entropy.takes_logits = binary_cross_entropy.takes_logits = True  # type: ignore[attr-defined]
