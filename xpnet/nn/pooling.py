"""Layers that put what is near each other into one number. Channels stand on the last axis."""

import functools
import math
from collections.abc import Callable
from typing import Any

from xpnet.autodiff import array_namespace, extended_namespace
from xpnet.nn.convolution import Padding, Size, check_padding, check_windows, ends, padded, per_axis
from xpnet.nn.masks import filling_of_rows, without_hidden
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_features
from xpnet.tree import Array

_AXES = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}


def _inner_axes(x: Any, layer: str) -> tuple[str, ...]:
    """Return the names of the axes between the batch and the channels."""
    if len(x.shape) not in _AXES:
        raise ValueError(
            f"{layer} needs the axes (batch, length, channels) or (batch, height, width, channels), received "
            f"an array of shape {tuple(x.shape)}. expand_dims or reshape add an axis that is missing."
        )
    check_features(x, x.shape[-1], layer)
    return _AXES[len(x.shape)]


def _places(x: Any, layer: str) -> tuple[int, ...]:
    """Return which axes are between the batch and the channels."""
    return tuple(range(1, 1 + len(_inner_axes(x, layer))))


def _any_axes(value: Any) -> tuple[str, ...]:
    """Return names for the axes of a setting, before it is known how many the input has."""
    return _AXES.get(len(value) + 2, _AXES[4]) if isinstance(value, tuple | list) else ("length",)


def _setting(value: Any, check: Callable[..., Any], *rest: Any) -> Any:
    """Return a setting after a check: one for all axes, or one for each."""
    checked = check(value, _any_axes(value), *rest)
    return checked if isinstance(value, str | tuple | list) else checked[0]


class _Pooling(Module):
    """What the poolings share: the settings and the windows."""

    def __init__(self, size: Size, *, stride: Size | None = None, padding: Padding = "valid") -> None:
        self.size = _setting(size, per_axis, "size")
        self.stride = None if stride is None else _setting(stride, per_axis, "stride")
        self.padding = _setting(padding, check_padding)

    def _along_each_axis(self, x: Any, border: float, reduce: Callable[[Any], Any]) -> Any:
        """Reduce the windows of one axis after the other, which is fewer than those of all axes at once.

        ``reduce`` takes windows of shape (before, count, size, behind), and reduces the third axis.
        """
        xp, layer = extended_namespace(x), repr(self)
        names = _inner_axes(x, layer)
        sizes = per_axis(self.size, names, "size")
        strides = sizes if self.stride is None else per_axis(self.stride, names, "stride")
        once = (1,) * len(names)
        padding = (
            self.padding if isinstance(self.padding, str) else per_axis(self.padding, names, "padding", 0)
        )
        if not isinstance(padding, str) and any(2 * p > n for p, n in zip(padding, sizes, strict=True)):
            raise ValueError(
                f"the padding of {layer} must be at most half the size, received {padding} for {sizes}: a "
                "window could lie outside of the image."
            )
        x = padded(xp, x, ends(padding, x.shape[1:-1], sizes, strides, once), border)
        check_windows(x.shape[1:-1], sizes, once, names, x, layer)
        for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True), start=1):
            before, length, behind = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
            flat = xp.reshape(x, (math.prod(before), length, math.prod(behind)))
            if size == stride and length % size == 0:  # then windows are no more than another shape
                w = xp.reshape(flat, (flat.shape[0], length // size, size, flat.shape[2]))
            else:
                w = xp.windows(flat, sizes=(size,), strides=(stride,), dilations=(1,))
            x = xp.reshape(reduce(w), (*before, w.shape[1], *behind))
        return x


def _largest(w: Any) -> Any:
    """Return the largest element along the third axis, of equal ones the first."""
    xp = array_namespace(w)
    # As `max` would share the gradient of equal ones, which takes longer.
    return functools.reduce(lambda largest, part: xp.maximum(part, largest), xp.unstack(w, axis=2))


class MaxPool(_Pooling):
    """The largest number of each window, channel by channel.

    Where several are equally large, one of them has the gradient.

    Parameters
    ----------
    size : int or tuple of int
        The size of a window: of each axis between the batch and the channels, or one for all.
    stride : int or tuple of int, optional
        From where one window begins to where the next one does; by default the size, so that no two windows
        overlap.
    padding : "valid", "same", int or tuple of int, default="valid"
        How much is put around the image, as for `Conv2d`. It is never the largest.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if x has not the axes (batch, length, channels) or
        (batch, height, width, channels), or is smaller than a window.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.nn.MaxPool(2)(np.ones((10, 28, 28, 3), dtype="float32")).shape
    (10, 14, 14, 3)
    """

    def __call__(self, x: Array) -> Array:
        return self._along_each_axis(x, -float("inf"), _largest)


class AvgPool(_Pooling):
    """The mean of each window, channel by channel.

    Parameters
    ----------
    size, stride
        As for `MaxPool`.
    padding : "valid", "same", int or tuple of int, default="valid"
        How much is put around the image, as for `Conv2d`. It does not count: the mean is over what the image
        has in a window.

    Raises
    ------
    ValueError
        As for `MaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.nn.AvgPool(2)(np.ones((10, 28, 28, 3), dtype="float32")).shape
    (10, 14, 14, 3)
    """

    def __call__(self, x: Array) -> Array:
        xp = array_namespace(x)
        if self.padding == "valid":
            return self._along_each_axis(x, 0.0, lambda w: xp.mean(w, axis=2))
        ones = xp.ones((1, *x.shape[1:-1], 1), dtype=x.dtype, device=x.device)
        # Means rather than sums, which float16 may not have.
        mean, share = (self._along_each_axis(each, 0.0, lambda w: xp.mean(w, axis=2)) for each in (x, ones))
        return mean / share


class GlobalAvgPool(Module):
    """The mean of each channel over all places: (batch, ..., channels) → (batch, channels).

    Of sequences, (batch, length, channels), a mask of shape (batch, length) says which places count.

    M. Lin, Q. Chen and S. Yan, Network In Network, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.GlobalAvgPool()(np.ones((5, 7, 7, 32))).shape
    (5, 32)
    >>> mask = nn.mask_of_lengths(np.asarray([2]), 3)
    >>> nn.GlobalAvgPool()(np.asarray([[[1.0], [2.0], [99.0]]]), mask=mask)
    array([[1.5]])
    """

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        xp, axes = array_namespace(x), _places(x, "GlobalAvgPool()")
        if mask is None:
            return xp.mean(x, axis=axes)
        x = without_hidden(x, mask, "GlobalAvgPool()")
        # Means rather than sums, which float16 may not have.
        share = xp.mean(xp.astype(mask, x.dtype), axis=1, keepdims=True)
        return xp.mean(x, axis=1) / share


class GlobalMaxPool(Module):
    """The largest number of each channel over all places: (batch, ..., channels) → (batch, channels).

    Where several are equally large, they share the gradient. Of sequences, (batch, length, channels), a mask
    of shape (batch, length) says which places count.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.GlobalMaxPool()(np.ones((5, 7, 7, 32))).shape
    (5, 32)
    >>> mask = nn.mask_of_lengths(np.asarray([2]), 3)
    >>> nn.GlobalMaxPool()(np.asarray([[[1.0], [2.0], [99.0]]]), mask=mask)
    array([[2.]])
    """

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        xp, axes = array_namespace(x), _places(x, "GlobalMaxPool()")
        if mask is None:
            return xp.max(x, axis=axes)
        filling = filling_of_rows(x, mask, "GlobalMaxPool()")
        x = xp.where(xp.expand_dims(mask, axis=-1), x, -math.inf)
        return xp.max(x, axis=1) + xp.expand_dims(filling, axis=1)
