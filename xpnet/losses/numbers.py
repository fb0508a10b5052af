"""Losses of numbers: squared, absolute, and what is between them."""

from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.backends import at_least_single
from xpnet.losses.checks import check_floating, check_not_empty
from xpnet.losses.reduction import Reduction, reduced
from xpnet.losses.weights import arrays_among, example_weights, hidden
from xpnet.settings import positive
from xpnet.tree import Array


def mse(
    predictions: Array,
    targets: Array,
    *,
    sample_weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    r"""Return the squared error :math:`\ell = (\hat y - y)^2`.

    Parameters
    ----------
    predictions : array of shape (batch, ...)
        A network's output.
    targets : array of the same shape
        They are converted to the dtype of the predictions.
    sample_weight : array or sequence of shape (batch,), or with more axes of the predictions, optional
        How much each loss counts, or a mask of bools. The mean is :math:`\sum w \ell / \sum w`, and 0 where
        all weights are 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, times their weights, of the shape of the predictions.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes differ or that of the weights does not fit, the batch is empty, or the predictions are
        not floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> float(losses.mse(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0])))
    4.5
    """
    xp = array_namespace(predictions, targets, *arrays_among(sample_weight))
    dtype = predictions.dtype
    predictions, targets, weights = alike(xp, predictions, targets, sample_weight, "mse")
    return reduced(xp, xp.square(predictions - targets), reduction, dtype, weights)


def mae(
    predictions: Array,
    targets: Array,
    *,
    sample_weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    r"""Return the absolute error :math:`\ell = |\hat y - y|`.

    Parameters
    ----------
    predictions : array of shape (batch, ...)
        A network's output.
    targets : array of the same shape
        They are converted to the dtype of the predictions.
    sample_weight : array or sequence of shape (batch,), or with more axes of the predictions, optional
        How much each loss counts, or a mask of bools. The mean is :math:`\sum w \ell / \sum w`, and 0 where
        all weights are 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, times their weights, of the shape of the predictions.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes differ or that of the weights does not fit, the batch is empty, or the predictions are
        not floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> float(losses.mae(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0])))
    1.5
    """
    xp = array_namespace(predictions, targets, *arrays_among(sample_weight))
    dtype = predictions.dtype
    predictions, targets, weights = alike(xp, predictions, targets, sample_weight, "mae")
    return reduced(xp, xp.abs(predictions - targets), reduction, dtype, weights)


def huber(
    predictions: Array,
    targets: Array,
    *,
    delta: float = 1.0,
    sample_weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
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
    sample_weight : array or sequence of shape (batch,), or with more axes of the predictions, optional
        How much each loss counts, or a mask of bools. The mean is :math:`\sum w \ell / \sum w`, and 0 where
        all weights are 0.
    reduction : {"mean", "sum", "none"}, default="mean"
        "none" returns the losses, times their weights, of the shape of the predictions.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes differ or that of the weights does not fit, the batch is empty, the predictions are not
        floating-point numbers, or ``delta`` is not positive.

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
    xp = array_namespace(predictions, targets, *arrays_among(sample_weight))
    delta = positive("delta", delta)
    dtype = predictions.dtype
    predictions, targets, weights = alike(xp, predictions, targets, sample_weight, "huber")
    error = predictions - targets
    small = xp.clip(error, -delta, delta)
    return reduced(xp, small * (error - small / 2), reduction, dtype, weights)


def alike(
    xp: Any, predictions: Any, targets: Any, sample_weight: Any, loss: str, name: str = "predictions"
) -> tuple[Any, Any, Any]:
    """Return both in the dtype to compute in, and the weights, after a check that they fit together.

    That is the dtype of the predictions, or single precision where it is narrower: float16 has no square of
    256, and no sum of 70,000 ones. What has the weight 0 is 0.
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
    check_floating(xp, predictions, name)
    check_not_empty(predictions)
    predictions = at_least_single(xp, predictions)
    targets = xp.astype(targets, predictions.dtype, copy=False)
    if sample_weight is None:
        return predictions, targets, None
    weights = example_weights(xp, sample_weight, shape, predictions)
    return *hidden(xp, weights, predictions, targets), weights
