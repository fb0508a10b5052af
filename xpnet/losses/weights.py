"""How much examples and classes count: what weights must be like, and what does not count at all."""

import math
from typing import Any

import numpy
from array_api_compat import device

from xpnet import tree
from xpnet.autodiff.transforms import carries_gradient
from xpnet.backends import is_known, is_on_host
from xpnet.settings import at_least_zero, described


def arrays_among(*values: Any) -> list[Any]:
    """Return those that are arrays, whose library must be that of the others."""
    return [value for value in values if tree.is_array(value)]


def example_weights(xp: Any, sample_weight: Any, shape: tuple[int, ...], like: Any, dtype: Any = None) -> Any:
    """Return the weights of losses, with as many axes, after a check.

    Parameters
    ----------
    xp : namespace
    sample_weight : array or sequence, shape (batch,), or more of the first axes of the losses
        A bool says whether something counts.
    shape : tuple of int
        That of the losses.
    like : array
        On whose device the weights are, in its dtype if no other is given.
    dtype : dtype, optional

    Raises
    ------
    ValueError
        If the shape does not fit, or where values can be looked at without waiting, one is negative, infinite
        or NaN.
    TypeError
        If they are no array of real numbers.
    """
    dtype = like.dtype if dtype is None else dtype
    if isinstance(sample_weight, tuple | list):
        sample_weight = numpy.asarray(sample_weight)
        check_weight_values("sample_weight", sample_weight)
        sample_weight = xp.asarray(sample_weight.tolist(), dtype=dtype, device=device(like))
    elif not tree.is_array(sample_weight):
        raise TypeError(
            f"sample_weight must be an array or a list of numbers, received {described(sample_weight)}. "
            "xpnet.asarray makes an array."
        )
    elif is_on_host(sample_weight):
        check_weight_values("sample_weight", sample_weight)
    own = tuple(sample_weight.shape)
    if not own or own != tuple(shape[: len(own)]):
        raise ValueError(
            f"sample_weight must have the shape ({shape[0]},), a number for each example, or more axes of "
            f"the losses, whose shape is {tuple(shape)}; received shape {own}."
            + (f" sample_weight[..., 0] has the shape {own[:-1]}." if own == (*shape, 1) else "")
        )
    if xp.isdtype(sample_weight.dtype, "complex floating"):
        raise TypeError(f"sample_weight must be real numbers, received {sample_weight.dtype}.")
    return expanded(xp, xp.astype(sample_weight, dtype, copy=False), len(shape))


def expanded(xp: Any, x: Any, axes: int) -> Any:
    """Return an array with as many axes, the new ones at the end."""
    missing = axes - len(x.shape)
    return xp.reshape(x, (*x.shape, *[1] * missing)) if missing else x


def check_weight_values(name: str, values: Any) -> None:
    """Check weights on the host: numbers that are finite and not negative, or bools.

    Raises
    ------
    ValueError
        Naming the first row in which that does not hold.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers or bools, received {values.dtype}.")
    wrong = ~(numpy.isfinite(values) & (values >= 0))
    if wrong.any():
        place = int(numpy.argmax(wrong))
        row = place // math.prod(values.shape[1:])
        raise ValueError(
            f"{name} must be finite numbers of at least 0, received {values.flat[place]:g}, first in row "
            f"{row}. Give the weight 0 to what shall not count."
        )


def class_weights(xp: Any, class_weight: Any, classes: int, like: Any, dtype: Any = None) -> Any:
    """Return how much each class counts, shape (classes,), after a check.

    Parameters
    ----------
    xp : namespace
    class_weight : array or sequence of shape (classes,)
    classes : int
    like : array
        On whose device the weights are, in its dtype if no other is given.
    dtype : dtype, optional

    Raises
    ------
    ValueError
        If there is not one for each class, or, where values can be looked at without waiting, one is
        negative, infinite or NaN.
    TypeError
        If they are no array or sequence.
    """
    if isinstance(class_weight, tuple | list):
        class_weight = [at_least_zero("class_weight", w) if is_known(w) else w for w in class_weight]
    elif not tree.is_array(class_weight):
        raise TypeError(
            f"class_weight must be an array or a list with a number for each of the {classes} classes, "
            f'received {described(class_weight)}. A dict of classes and weights, or "balanced", is for fit.'
        )
    elif is_on_host(class_weight):
        check_weight_values("class_weight", class_weight)
    dtype = like.dtype if dtype is None else dtype
    class_weight = xp.asarray(class_weight, dtype=dtype, device=device(like))
    if tuple(class_weight.shape) != (classes,):
        raise ValueError(
            f"class_weight must have one number for each of the {classes} classes, received shape "
            f"{tuple(class_weight.shape)}."
        )
    return class_weight


def without(xp: Any, targets: Any, index: Any) -> tuple[Any, Any]:
    """Return targets with 0 in place of those that are ignored, and which ones count."""
    if xp.isdtype(targets.dtype, "integral"):  # an uint8 cannot be compared with -100
        indexing = xp.__array_namespace_info__().default_dtypes()["indexing"]
        targets = xp.astype(targets, indexing, copy=False)
    counts = targets != index
    return xp.where(counts, targets, xp.zeros_like(targets)), counts


def hidden(xp: Any, weights: Any, *arrays: Any) -> list[Any]:
    """Return arrays with 0 in place of what has the weight 0.

    So whatever stands there, NaN too, reaches neither sums nor gradients: NaN * 0 is NaN. Of weights that are
    differentiated nothing is hidden, as the gradient of one that is 0 is the loss there.

    Parameters
    ----------
    xp : namespace
    weights : array
        Its axes are the first ones of the arrays.
    *arrays : array
    """
    if carries_gradient(weights):
        return [xp.astype(x, x.dtype, copy=False) for x in arrays]  # as arrays of the traced namespace
    counts = weights != 0
    return [xp.where(expanded(xp, counts, len(x.shape)), x, xp.zeros_like(x)) for x in arrays]
