"""What becomes of the losses of a batch: their mean, their sum, or what they are."""

import math
from typing import Any, Literal

from xpnet.backends import in_dtype
from xpnet.losses.noting import note_denominator

Reduction = Literal["mean", "sum", "none"]


def reduced(
    xp: Any,
    losses: Any,
    reduction: str,
    dtype: Any,
    sample_weight: Any = None,
    class_weight: Any = None,
) -> Any:
    """Return the losses of the examples, or what is asked for of them, in the dtype of the predictions.

    Parameters
    ----------
    xp : namespace
    losses : array
        Times the weights of their classes.
    reduction : {"mean", "sum", "none"}
    dtype : dtype
    sample_weight : array, optional
        With as many axes as the losses, which do not have it in them yet.
    class_weight : array, optional
        The weights that the losses have in them, of the same shape.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", received {reduction!r}.')
    weights = class_weight
    if sample_weight is not None:
        losses = losses * sample_weight
        weights = sample_weight if class_weight is None else class_weight * sample_weight
    if reduction == "none":
        return in_dtype(xp, losses, dtype)
    if reduction == "sum":
        total = in_dtype(xp, xp.sum(losses), dtype)
        note_denominator(total, None, True)
        return total
    if weights is None:
        mean, denominator = xp.mean(losses), math.prod(losses.shape)
    else:
        mean, denominator = _weighted_mean(xp, losses, weights)
    mean = in_dtype(xp, mean, dtype)
    note_denominator(mean, denominator, weights is not None)
    return mean


def _weighted_mean(xp: Any, losses: Any, weights: Any) -> tuple[Any, Any]:
    """Return the mean of losses with their weights in them, 0 where all weights are, and their sum."""
    total = xp.sum(weights)
    each = math.prod(losses.shape) // math.prod(weights.shape)  # how many losses share a weight
    total = total if each == 1 else total * each
    nothing = total == 0
    mean = xp.sum(losses) / xp.where(nothing, xp.ones_like(total), total)
    return xp.where(nothing, xp.zeros_like(mean), mean), total
