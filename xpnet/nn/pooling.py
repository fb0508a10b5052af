"""Layers that put what is near each other into one number. Channels stand on the last axis."""

from typing import Any

from xpnet.autodiff import array_namespace, extended_namespace
from xpnet.nn.convolution import Padding, Size, check_padding, check_windows, ends, padded, per_axis
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_features

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


def _any_axes(value: Any) -> tuple[str, ...]:
    """Return names for the axes of a setting, before it is known how many the input has."""
    return _AXES.get(len(value) + 2, _AXES[4]) if isinstance(value, tuple | list) else ("length",)


class _Pooling(Module):
    """What the poolings share: the settings and the windows."""

    def __init__(self, size: Size, *, stride: Size | None = None, padding: Padding = "valid") -> None:
        for name, value in (("size", size), ("stride", size if stride is None else stride)):
            per_axis(value, _any_axes(value), name)
        check_padding(padding, _any_axes(padding))
        self.size = size
        self.stride = stride
        self.padding = padding

    def _windows(self, xp: Any, x: Any, border: float) -> tuple[Any, tuple[int, ...]]:
        """Return the windows, and the axes of the elements of each."""
        layer = repr(self)
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
        added = ends(padding, x.shape[1:-1], sizes, strides, once)
        x = padded(xp, x, added, border)
        check_windows(x.shape[1:-1], sizes, once, names, x, layer)
        inner = tuple(range(1 + len(names), 1 + 2 * len(names)))
        return xp.windows(x, sizes=sizes, strides=strides, dilations=once), inner


class MaxPool(_Pooling):
    """The largest number of each window, channel by channel.

    Where several are equally large, they share the gradient.

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

    def __call__(self, x: Any) -> Any:
        xp = extended_namespace(x)
        w, inner = self._windows(xp, x, -float("inf"))
        return xp.max(w, axis=inner)


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

    def __call__(self, x: Any) -> Any:
        xp = extended_namespace(x)
        w, inner = self._windows(xp, x, 0.0)
        if self.padding == "valid":
            return xp.mean(w, axis=inner)
        ones = xp.ones((1, *x.shape[1:-1], 1), dtype=x.dtype, device=x.device)
        return xp.sum(w, axis=inner) / xp.sum(self._windows(xp, ones, 0.0)[0], axis=inner)


class GlobalAvgPool(Module):
    """The mean of each channel over all places: (batch, ..., channels) → (batch, channels).

    M. Lin, Q. Chen and S. Yan, Network In Network, 2013.
    """

    def __call__(self, x: Any) -> Any:
        names = _inner_axes(x, "GlobalAvgPool()")
        return array_namespace(x).mean(x, axis=tuple(range(1, 1 + len(names))))
