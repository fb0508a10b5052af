"""Convolutions of sequences and images. Channels stand on the last axis, as features do everywhere.

All places of the kernel in one image are rows of a matrix, so that a convolution is one product of two
matrices.
"""

import math
from typing import Any, ClassVar, TypeAlias

from xpnet.autodiff import extended_namespace
from xpnet.autodiff.windows import count_windows
from xpnet.nn.initializers import Initializer, he_normal
from xpnet.nn.masks import without_hidden
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_axes, drawn, filled
from xpnet.random import Seed, host_generator
from xpnet.settings import count, flag, is_integer
from xpnet.tree import Array

Size: TypeAlias = int | tuple[int, ...]
Padding: TypeAlias = str | Size


def per_axis(value: Size, names: tuple[str, ...], what: str, least: int = 1) -> tuple[int, ...]:
    """Return a setting for each axis, from one for all or one for each.

    Raises
    ------
    ValueError
        If there is another number of them, or one is no integer or below ``least``.
    """
    values: Any = (value,) * len(names) if is_integer(value) else value
    if not isinstance(values, tuple | list) or len(values) != len(names):
        raise ValueError(
            f"{what} must be an integer or one for each of {', '.join(names)}, received {value!r}."
        )
    if not all(is_integer(v) and v >= least for v in values):
        raise ValueError(f"{what} must be integers of at least {least}, received {value!r}.")
    return tuple(int(v) for v in values)


def check_padding(padding: Padding, names: tuple[str, ...]) -> Any:
    """Return "same" or "valid", or how much to add at both ends of each axis.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if not isinstance(padding, str):
        return per_axis(padding, names, "padding", least=0)
    if padding not in ("same", "valid"):
        raise ValueError(f'padding must be "same", "valid" or integers, received {padding!r}.')
    return padding


def ends(padding: Any, lengths: Any, sizes: Any, strides: Any, dilations: Any) -> list[tuple[int, int]]:
    """Return how much to add before and behind each axis."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding == "same":
        each = zip(lengths, sizes, strides, dilations, strict=True)
        added = [max((-(-n // s) - 1) * s + d * (size - 1) + 1 - n, 0) for n, size, s, d in each]
        return [(total // 2, total - total // 2) for total in added]
    return [(n, n) for n in padding]


def padded(xp: Any, x: Array, added: list[tuple[int, int]], value: float = 0.0) -> Array:
    """Put a border around the inner axes of an array."""
    if not any(map(any, added)):
        return x
    inner = [before + n + behind for n, (before, behind) in zip(x.shape[1:-1], added, strict=True)]
    key = [slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], added, strict=True)]
    border = xp.full((x.shape[0], *inner, x.shape[-1]), value, dtype=x.dtype, device=x.device)
    return xp.setitem(border, (slice(None), *key, slice(None)), x)


def check_windows(
    lengths: Any, sizes: Any, dilations: Any, names: tuple[str, ...], x: Array, layer: str
) -> None:
    """Check that a window fits into each axis, with the border."""
    for name, length, size, dilation in zip(names, lengths, sizes, dilations, strict=True):
        if (reach := dilation * (size - 1) + 1) > length:
            raise ValueError(
                f"{layer} needs a {name} of at least {reach}, received {length} with the padding; x has the "
                f'shape {tuple(x.shape)}. Use padding="same", or fewer layers that make the {name} smaller.'
            )


def _product(xp: Any, w: Any, weight: Any) -> Any:
    """Multiply windows, of shape (batch, *counts, *sizes, channels), and weights: (windows, channels out)."""
    axes = len(weight.shape) - 2
    inside = math.prod(weight.shape[:-1])
    matrix = xp.reshape(weight, (inside, weight.shape[-1]))
    if w.shape[-1] * w.shape[-2] >= w.shape[axes]:
        return xp.matmul(xp.reshape(w, (-1, inside)), matrix)
    # With few channels, what stands together in memory is longer along the image than in a window, and the
    # transposed matrix is several times faster to write.
    inner = tuple(range(1 + axes, 2 + 2 * axes))
    columns = xp.reshape(xp.permute_dims(w, (*inner, *range(1 + axes))), (inside, -1))
    return xp.matmul(xp.matrix_transpose(columns), matrix)


def _grouped(xp: Any, rows: Any, weight: Any, groups: int) -> Any:
    """Multiply rows and weights group by group.

    From (rows, places, channels in) and (places, channels in of a group, channels out) to
    (rows, channels out).
    """
    number, places, channels = rows.shape
    width, out = channels // groups, weight.shape[-1]
    rows = xp.permute_dims(xp.reshape(rows, (number, places, groups, width)), (2, 0, 1, 3))
    weight = xp.permute_dims(xp.reshape(weight, (places, width, groups, out // groups)), (2, 0, 1, 3))
    flat = xp.reshape(rows, (groups, number, places * width))
    y = xp.matmul(flat, xp.reshape(weight, (groups, places * width, out // groups)))
    return xp.reshape(xp.permute_dims(y, (1, 0, 2)), (number, out))


class _Convolution(Module):
    """What the convolutions share: the settings, the weight and the bias."""

    axes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        stride: Size = 1,
        padding: Padding = "valid",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: Initializer = he_normal,
        seed: Seed = None,
        dtype: str = "float32",
    ) -> None:
        in_channels, out_channels = count("in_channels", in_channels), count("out_channels", out_channels)
        groups = count("groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels, received groups={groups} for "
                f"{in_channels} and {out_channels}."
            )
        self.stride = per_axis(stride, self.axes, "stride")
        self.padding = check_padding(padding, self.axes)
        self.dilation = per_axis(dilation, self.axes, "dilation")
        self.groups = groups
        kernel = per_axis(kernel_size, self.axes, "kernel_size")
        shape = (*kernel, in_channels // groups, out_channels)
        self.weight = drawn(weight_init, shape, host_generator(seed), dtype)
        self.bias = filled(0.0, out_channels, dtype) if flag("bias", bias) else None

    def _name(self) -> str:
        *kernel, width, out = self.weight.shape
        return f"{type(self).__name__}({width * self.groups}, {out}, {tuple(kernel)})"

    def _namespace(self, x: Any) -> Any:
        """Check the input, and return the namespace in which to compute."""
        xp = extended_namespace(x, self.weight)
        channels = self.weight.shape[-2] * self.groups
        check_axes(x, ("batch", *self.axes, "channels"), self._name())
        if x.shape[-1] != channels:
            raise ValueError(
                f"expected {channels} channels on the last axis, received {x.shape[-1]}. The layer is "
                f"{self._name()}, x has the shape {tuple(x.shape)}. Where the channels stand elsewhere, "
                "bring them to the end with moveaxis."
            )
        return xp

    def __call__(self, x: Array) -> Array:
        xp = self._namespace(x)
        *kernel, _, out = self.weight.shape
        settings = tuple(kernel), self.stride, self.dilation
        x = padded(xp, x, ends(self.padding, x.shape[1:-1], *settings))
        check_windows(x.shape[1:-1], kernel, self.dilation, self.axes, x, self._name())
        counts = count_windows(x.shape[1:-1], *settings)
        w = xp.windows(x, sizes=tuple(kernel), strides=self.stride, dilations=self.dilation)
        if self.groups == 1:
            y = _product(xp, w, self.weight)
        else:
            rows = xp.reshape(w, (x.shape[0] * math.prod(counts), math.prod(kernel), x.shape[-1]))
            y = _grouped(xp, rows, self.weight, self.groups)
        y = xp.reshape(y, (x.shape[0], *counts, out))
        return y if self.bias is None else y + self.bias


class Conv1d(_Convolution):
    """A convolution of sequences: ``y[t] = sum_k x[stride * t + dilation * k] @ weight[k] + bias``.

    x has the shape (batch, length, channels). See `Conv2d` for the parameters; of those for each axis, there
    is one here. What a mask of shape (batch, length) hides counts as 0, as what "same" puts around does.

    Attributes
    ----------
    weight : array, shape (kernel length, in_channels / groups, out_channels)
    bias : array, shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.Conv1d(3, 8, 5, padding="same", seed=0)
    >>> layer(np.ones((2, 100, 3), dtype="float32")).shape
    (2, 100, 8)
    """

    axes = ("length",)

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        return super().__call__(x if mask is None else without_hidden(x, mask, self._name()))


class Conv2d(_Convolution):
    """A convolution of images: each output is a weighted sum of a window of the input, over all channels.

    ``y[i, j] = sum_{k, l} x[stride * i + dilation * k, stride * j + dilation * l] @ weight[k, l] + bias``, in
    the way of all libraries for networks a correlation, as the kernel is not flipped.

    Parameters
    ----------
    in_channels : int
        Number of channels of the input.
    out_channels : int
        Number of channels of the output.
    kernel_size : int or tuple of int
        The height and width of the window.
    stride : int or tuple of int, default=1
        From where one window begins to where the next one does.
    padding : "valid", "same", int or tuple of int, default="valid"
        How many zeros are put around the image. "valid" puts none; "same" as many that the output has the
        height and width of the input, divided by the stride and rounded up; a number puts so many at either
        end.
    dilation : int or tuple of int, default=1
        From one element of a window to the next.
    groups : int, default=1
        The channels are divided into so many groups, each with weights of its own.
    bias : bool, default=True
        Whether to add a bias, which starts at zero.
    weight_init : callable, default=he_normal
        One of `xpnet.nn.initializers`.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    weight : array, shape (kernel height, kernel width, in_channels / groups, out_channels)
    bias : array, shape (out_channels,), or None

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if x has not the axes (batch, height, width, channels), has
        another number of channels, or is smaller than a window.
    TypeError
        When called, if x holds no floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.Conv2d(3, 16, 3, stride=2, padding="same", seed=0)
    >>> layer(np.ones((10, 32, 32, 3), dtype="float32")).shape
    (10, 16, 16, 16)
    """

    axes = ("height", "width")


class ConvTranspose2d(_Convolution):
    """The transpose of a convolution: each input adds its part to a window of the output.

    With a stride, the output is larger than the input by that factor. It is the adjoint of `Conv2d`, whose
    gradient it computes, and also called a deconvolution.

    ``y[stride * i + dilation * k, stride * j + dilation * l] += x[i, j] @ weight[k, l]`` for all i, j, k and
    l, and a bias.

    M. D. Zeiler et al., Deconvolutional Networks, 2010.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, groups, bias, weight_init, seed, dtype
        As for `Conv2d`.
    padding : "valid", "same", int or tuple of int, default="valid"
        How much is cut off the output. "valid" cuts nothing; "same" as much that the output has the height
        and width of the input times the stride; a number cuts so much at both ends.

    Attributes
    ----------
    weight : array, shape (kernel height, kernel width, in_channels / groups, out_channels)
    bias : array, shape (out_channels,), or None

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if x has not the axes (batch, height, width, channels) or
        has another number of channels, or if nothing would be left.
    TypeError
        When called, if x holds no floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.ConvTranspose2d(16, 3, 4, stride=2, padding="same", seed=0)
    >>> layer(np.ones((10, 16, 16, 16), dtype="float32")).shape
    (10, 32, 32, 3)
    """

    axes = ("height", "width")

    def __call__(self, x: Array) -> Array:
        xp = self._namespace(x)
        *kernel, width, out = self.weight.shape
        batch, *lengths, channels = x.shape
        places, groups = math.prod(kernel), self.groups
        # The channels of a group come to all places of its windows: (channels in, places * channels out).
        weight = xp.reshape(self.weight, (places, width, groups, out // groups))
        weight = xp.permute_dims(weight, (1, 2, 0, 3))
        weight = xp.reshape(weight, (1, width, groups * places * (out // groups)))
        y = _grouped(xp, xp.reshape(x, (-1, 1, channels)), weight, groups)
        y = xp.reshape(y, (y.shape[0], groups, places, out // groups))
        w = xp.reshape(xp.permute_dims(y, (0, 2, 1, 3)), (batch, *lengths, *kernel, out))
        each = list(zip(lengths, kernel, self.stride, self.dilation, strict=True))
        whole = [(n - 1) * s + d * (size - 1) + 1 for n, size, s, d in each]
        wanted, before = self._cut(whole, [n * s for n, _, s, _ in each])
        larger = [max(n, start + left) for n, start, left in zip(whole, before, wanted, strict=True)]
        y = xp.add_windows(w, shape=(batch, *larger, out), strides=self.stride, dilations=self.dilation)
        key = [slice(start, start + left) for start, left in zip(before, wanted, strict=True)]
        y = y[(slice(None), *key, slice(None))]
        return y if self.bias is None else y + self.bias

    def _cut(self, whole: list[int], same: list[int]) -> tuple[list[int], list[int]]:
        """Return what is left of each axis, and where it begins."""
        if self.padding == "same":
            return same, [max(n - left, 0) // 2 for n, left in zip(whole, same, strict=True)]
        cut = (0,) * len(whole) if self.padding == "valid" else self.padding
        wanted = [n - 2 * p for n, p in zip(whole, cut, strict=True)]
        for name, n, left in zip(self.axes, whole, wanted, strict=True):
            if left < 1:
                raise ValueError(
                    f"{self._name()} must leave something of the {name}, received a padding of {cut} for "
                    f"{n}. Use a smaller padding."
                )
        return wanted, list(cut)
