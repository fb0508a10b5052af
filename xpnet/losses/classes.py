"""Losses of classes, whose outputs are scores of any size: one of several classes, and yes or no."""

import functools
import math
from typing import Any

from xpnet.autodiff import array_namespace, stop_gradient
from xpnet.backends import at_least_single, is_known
from xpnet.indices import safe_indices
from xpnet.losses.checks import check_class_targets, check_floating, check_not_empty, check_probabilities
from xpnet.losses.noting import note_call
from xpnet.losses.numbers import alike
from xpnet.losses.reduction import Reduction, reduced
from xpnet.losses.weights import arrays_among, class_weights, example_weights, hidden, without
from xpnet.settings import at_least_zero, integer, up_to_one
from xpnet.tree import Array


def cross_entropy(
    logits: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Array:
    r"""Return the cross-entropy between a network's class scores and the true classes.

    With the log-probabilities :math:`\log p_{nc} = z_{nc} - \log \sum_k e^{z_{nk}}` of the logits :math:`z`,
    weights of classes :math:`w` and of examples :math:`v` (1 by default) and label smoothing :math:`\alpha`,

    .. math:: \ell_n = -v_n \sum_c w_c \, t_{nc} \log p_{nc},
        \qquad t_{nc} = (1 - \alpha) \, q_{nc} + \alpha / C,

    where :math:`q_{nc}` are the target probabilities: for an integer label :math:`y_n`, 1 at the class
    :math:`y_n` and 0 elsewhere. The mean is :math:`\sum_n \ell_n / \sum_n v_n w_{y_n}` for integer labels,
    and :math:`\sum_n \ell_n / \sum_n v_n` for probabilities; where what is divided by is 0, it is 0.

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
    sample_weight : array or sequence of shape (batch,), or with more axes of the labels, optional
        How much each row counts, or a mask of bools.
    ignore_index : int, optional
        The label of rows that count for nothing, as if their weight was 0: that of padding, say.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses :math:`\ell_n`, of shape (...).

    Returns
    -------
    array
        In the dtype of the logits. Any other integer label that is no class gives NaN.

    Raises
    ------
    ValueError
        If the shapes do not fit, the batch is empty, the labels of one number a row are not integers, the
        logits are not floating-point numbers, or an option is out of range; if ``ignore_index`` is given for
        probabilities.

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
    xp = array_namespace(logits, labels, *arrays_among(class_weight, sample_weight))
    _check_rows(xp, logits, labels)
    smoothing = up_to_one("label_smoothing", label_smoothing)
    scores, dtype = logits, logits.dtype
    logits, classes = at_least_single(xp, logits), logits.shape[-1]
    if class_weight is not None:
        class_weight = class_weights(xp, class_weight, classes, logits)
    if sample_weight is not None:
        sample_weight = example_weights(xp, sample_weight, logits.shape[:-1], logits)
        (labels,) = hidden(xp, sample_weight, labels)
    if ignore_index is None:
        note_call(cross_entropy, scores, labels)
    else:
        ignore_index = integer("ignore_index", ignore_index)
        note_call(functools.partial(cross_entropy, ignore_index=ignore_index), scores, labels)
        labels, sample_weight = _without_ignored(xp, labels, sample_weight, logits, ignore_index)
    if sample_weight is not None:
        (logits,) = hidden(xp, sample_weight, logits)

    # With the largest logit of each row at 0, no exp overflows. The shift changes no result, so no gradient.
    shifted = logits - stop_gradient(xp.max(logits, axis=-1, keepdims=True))
    log_total = xp.log(xp.sum(xp.exp(shifted), axis=-1))  # the log-probabilities are shifted - log_total

    def against(probabilities: Array) -> Array:
        surprise = (xp.expand_dims(log_total, axis=-1) - shifted) * probabilities
        return xp.sum(surprise if class_weight is None else surprise * class_weight, axis=-1)

    of_labels = None
    if len(labels.shape) < len(logits.shape):
        labels, weights = _labels_and_weights(xp, labels, class_weight, log_total, classes)
        chosen = xp.take_along_axis(shifted, xp.expand_dims(labels, axis=-1), axis=-1)
        losses = (log_total - xp.squeeze(chosen, axis=-1)) * weights
        of_labels = None if class_weight is None else weights
    else:
        losses = against(xp.astype(labels, logits.dtype, copy=False))
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * against(1 / classes)
    return reduced(xp, losses, reduction, dtype, sample_weight, of_labels)


def _check_rows(xp: Any, logits: Any, labels: Any) -> None:
    """Check that there are logits, and a label or probabilities for each row of them."""
    check_floating(xp, logits, "logits")
    rows, received = tuple(logits.shape[:-1]), tuple(labels.shape)
    if not rows or received not in (rows, tuple(logits.shape)):
        raise ValueError(
            "cross_entropy needs logits of shape (batch, ..., classes), and labels of shape (batch, ...), "
            "numbers of classes, or of the shape of the logits, their probabilities; received logits of "
            f"shape {tuple(logits.shape)} and labels of shape {received}. "
            + (
                f"labels[..., 0] has the shape {rows}."
                if received == (*rows, 1)
                else "Reshape one of them; nn.Flatten makes a row of what a network has for each example."
            )
        )
    check_not_empty(logits)
    if received == rows and not xp.isdtype(labels.dtype, "integral"):
        raise ValueError(
            f"labels of shape (batch,) must be integers, numbers of classes, received {labels.dtype}. "
            "Convert them with xpnet.asarray(labels, dtype='int64'), without those that are missing, or use "
            "another loss for a regression."
        )


def _without_ignored(
    xp: Any, labels: Any, sample_weight: Any, logits: Any, ignore_index: int
) -> tuple[Any, Any]:
    """Return labels without those that are ignored, and weights of 0 there."""
    if len(labels.shape) == len(logits.shape):
        raise ValueError(
            "ignore_index is for labels, numbers of classes, received probabilities, of shape "
            f"{tuple(labels.shape)}. Give the rows that shall not count a sample_weight of 0."
        )
    labels, counts = without(xp, labels, ignore_index)
    if sample_weight is None:
        return labels, xp.astype(counts, logits.dtype)
    return labels, xp.where(counts, sample_weight, xp.zeros_like(sample_weight))


def _labels_and_weights(xp: Any, labels: Any, class_weight: Any, rows: Any, classes: int) -> tuple[Any, Any]:
    """Return labels that are safe to look up with, and the weight of each row: NaN for what is no class."""
    labels, valid = safe_indices(xp, labels, classes)
    if class_weight is None:
        weights = xp.ones_like(rows)
    else:
        weights = xp.reshape(xp.take(class_weight, xp.reshape(labels, (-1,)), axis=0), labels.shape)
    return labels, xp.where(valid, weights, math.nan)


def binary_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    positive_weight: Any = 1.0,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    r"""Return the cross-entropy between scores for "yes" and the true answers.

    With the probabilities :math:`p = 1 / (1 + e^{-z})` of the logits :math:`z`, targets :math:`t` and the
    weight :math:`w` of the positive answers,

    .. math:: \ell = -w \, t \log p - (1 - t) \log (1 - p),

    computed as :math:`(1 - t) \, z + (1 + (w - 1) \, t) \log (1 + e^{-z})`, which is right for logits of any
    size. With weights :math:`v` of examples, and :math:`c_0` and :math:`c_1` of no and yes, a loss counts
    :math:`u = v \, (c_0 (1 - t) + c_1 t)`, and the mean is :math:`\sum u \, \ell / \sum u`, and 0 where all
    :math:`u` are 0. So ``class_weight`` is in what is divided by, and ``positive_weight`` is not.

    Parameters
    ----------
    logits : array of shape (batch, ...)
        Scores of any size, a network's output without a sigmoid.
    targets : array of the same shape
        1 for yes, 0 for no, or the probability of yes. They are converted to the dtype of the logits.
    positive_weight : float or array, default=1.0
        How much a yes counts against a no; an array has one number for each output, the shape (...).
    class_weight : array or sequence of two numbers, optional
        How much a no counts, and how much a yes.
    sample_weight : array or sequence of shape (batch,), or with more axes of the logits, optional
        How much each loss counts, or a mask of bools.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, times their weights, of the shape of the logits.

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
    arrays = arrays_among(class_weight, sample_weight) + ([] if one_weight else [positive_weight])
    xp = array_namespace(logits, targets, *arrays)
    scores, dtype = logits, logits.dtype
    logits, answers, sample_weight = alike(
        xp, logits, targets, sample_weight, "binary_cross_entropy", "logits"
    )
    note_call(binary_cross_entropy, scores, targets if sample_weight is None else answers)
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
        softplus = softplus * (1 + (positive_weight - 1) * answers)
    losses = (1 - answers) * logits + softplus
    if class_weight is not None:
        of_no_and_yes = class_weights(xp, class_weight, 2, logits)
        class_weight = of_no_and_yes[0] * (1 - answers) + of_no_and_yes[1] * answers
        losses = losses * class_weight
    return reduced(xp, losses, reduction, dtype, sample_weight, class_weight)


# What `fit` looks at before it changes anything: `check_targets` is called once with all targets, and outputs
# that are probabilities are refused in front of what takes logits.
cross_entropy.check_targets = check_class_targets  # type: ignore[attr-defined]
binary_cross_entropy.check_targets = lambda _, targets: check_probabilities(targets)  # type: ignore[attr-defined]
cross_entropy.takes_logits = binary_cross_entropy.takes_logits = True  # type: ignore[attr-defined]
