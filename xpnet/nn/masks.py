"""Sequences of different lengths: masks, which are True where there is something, and what they hide."""

import math
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.backends import is_on_host
from xpnet.nn.parameters import check_axes
from xpnet.settings import count
from xpnet.tree import Array, is_array


def mask_of_lengths(lengths: Array, length: int) -> Array:
    """Return the mask of sequences that stand at the beginning of their rows, with padding behind.

    Parameters
    ----------
    lengths : array of integers, shape (batch,)
        How many positions of each row there are, from 1 to the length.
    length : int
        How many positions a row has.

    Returns
    -------
    array of bool, shape (batch, length)
        True where there is something, False where there is padding.

    Raises
    ------
    ValueError
        If ``lengths`` has other axes, or holds, as an array of NumPy outside of `jit`, one out of range;
        elsewhere, a longer one counts as the whole row.
    TypeError
        If ``lengths`` holds no integers.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.mask_of_lengths(np.asarray([1, 3]), 4)
    array([[ True, False, False, False],
           [ True,  True,  True, False]])
    """
    length = count("length", length)
    if not is_array(lengths) or not array_namespace(lengths).isdtype(lengths.dtype, "integral"):
        received = getattr(lengths, "dtype", type(lengths).__name__)
        raise TypeError(
            f"lengths must be an array of integers, received {received}. xpnet.asarray([3, 5]) makes one."
        )
    if len(lengths.shape) != 1:
        raise ValueError(f"lengths must have the axis (batch,), received the shape {tuple(lengths.shape)}.")
    xp = array_namespace(lengths)
    if is_on_host(lengths) and not ((lengths >= 1) & (lengths <= length)).all():
        raise ValueError(
            f"lengths must be from 1 to {length}, received some from {lengths.min()} to {lengths.max()}. "
            "Leave out empty sequences, and make rows as long as the longest."
        )
    positions = xp.arange(length, device=lengths.device)
    return positions < xp.expand_dims(xp.astype(lengths, positions.dtype), axis=1)


def check_mask(mask: Any, shape: tuple[int, ...], layer: str) -> None:
    """Check that a mask is an array of bool with the axes (batch, length) of what it is for.

    Raises
    ------
    ValueError
        If its shape is another.
    TypeError
        If it is no array of bool.
    """
    if not is_array(mask) or not array_namespace(mask).isdtype(mask.dtype, "bool"):
        received = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(
            f"the mask of {layer} must be an array of bool, True where there is something, received "
            f"{received}. A comparison makes one, such as indices != 0."
        )
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(
            f"the mask of {layer} must have the axes (batch, length), here {tuple(shape)}, received the "
            f"shape {tuple(mask.shape)}. Behind a layer that changes the length, no mask from before it "
            "fits: call the layers one by one, each with its own."
        )


def filling_of_rows(x: Any, mask: Any, layer: str) -> Any:
    """Return what stands in each row in place of what is hidden: 0, and NaN where that is the whole row.

    Parameters
    ----------
    x : array, shape (batch, length, features)
    mask : array of bool, shape (batch, length)
    layer : str
        For error messages.

    Returns
    -------
    array, shape (batch,)

    Raises
    ------
    ValueError
        If x or the mask has another shape, or it hides a whole row and that can be seen without waiting.
    TypeError
        If x holds no floating-point numbers, or the mask is no array of bool.
    """
    check_axes(x, ("batch", "length", "features"), layer)
    check_mask(mask, x.shape[:2], layer)
    seen = array_namespace(mask).any(mask, axis=1)
    if is_on_host(seen) and not seen.all():
        raise ValueError(
            f"the mask of {layer} must be True somewhere in each row, received one that hides row "
            f"{int(seen.argmin())} whole. Leave out empty sequences, with x[mask.any(axis=1)]."
        )
    xp = array_namespace(x, mask)
    return xp.where(seen, xp.zeros(seen.shape, dtype=x.dtype, device=x.device), math.nan)


def without_hidden(x: Any, mask: Any, layer: str) -> Any:
    """Return x, of shape (batch, length, features), without what a mask hides: see `filling_of_rows`.

    A product with 0 would not do: 0 times NaN is NaN, also in a gradient.
    """
    filling = filling_of_rows(x, mask, layer)
    xp = array_namespace(x, mask)
    filling = xp.reshape(filling, (-1, 1, 1))
    return xp.where(xp.expand_dims(mask, axis=-1), x, filling)
