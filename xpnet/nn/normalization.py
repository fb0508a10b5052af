"""Layers that bring their input to mean 0 and variance 1, or to a root mean square of 1.

All of them read the features on the last axis.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from xpnet.autodiff import array_namespace, stop_gradient
from xpnet.backends import at_least_single, in_dtype
from xpnet.distributed.group import Group, check_group
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_features, filled
from xpnet.settings import at_least_zero, count, up_to_one
from xpnet.share import current_share
from xpnet.tree import Array


def _standardized(
    xp: Any, x: Any, axes: tuple[int, ...], epsilon: float, of_all: Callable[[Any], Any] = lambda mean: mean
) -> tuple[Any, Any, Any]:
    """Return ``(x - mean) / sqrt(variance + epsilon)``, the mean and the variance along some axes.

    A mean is what `of_all` makes of that of x.
    """
    wide = at_least_single(xp, x)  # squares of float16 overflow above 255
    mean = of_all(_mean(xp, wide, axes))
    centered = wide - mean
    variance = of_all(_mean(xp, centered * centered, axes))
    y = centered * (1 / xp.sqrt(variance + epsilon))
    return in_dtype(xp, y, x.dtype), mean, variance


def _mean(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Return the mean along some axes, one after the other from the last.

    Libraries add up row by row, and a sum of the 262,144 positions in a batch of 64 images would lose a
    thousandth in single precision; 64 sums of 4,096 lose hardly a digit.
    """
    for axis in reversed(axes):
        x = xp.mean(x, axis=axis, keepdims=True)
    return x


class _Normalization(Module):
    """What the layers below share: a weight and a bias for each feature.

    Attributes
    ----------
    weight : array, shape (features,)
        It starts at 1.
    bias : array, shape (features,)
        It starts at 0.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5, dtype: str = "float32") -> None:
        features = count("features", features)
        self.epsilon = at_least_zero("epsilon", epsilon)
        self.weight = filled(1.0, features, dtype)
        self.bias = filled(0.0, features, dtype)

    def _namespace(self, x: Any) -> Any:
        """Check the input, and return the namespace in which to compute."""
        xp = array_namespace(x, self.weight)
        features = self.weight.shape[0]
        check_features(x, features, f"{type(self).__name__}({features})")
        return xp


class BatchNorm(_Normalization):
    """Normalize each feature over the batch: ``(x - mean) / sqrt(variance + epsilon) * weight + bias``.

    In training, the mean and the variance are those of all axes but the last (the batch, and the height and
    width of images), and the running statistics move towards them. In use (`eval`), they are the running
    statistics.

    S. Ioffe and C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift, 2015.

    Parameters
    ----------
    features : int
        The length of the last axis.
    momentum : float, default=0.1
        How far a batch moves the running statistics, to ``(1 - momentum) * running + momentum * batch``.
    epsilon : float, default=1e-5
        Keeps a feature that does not vary from dividing by 0.
    dtype : str, default="float32"
        The dtype of parameters and state.
    group : Group, optional
        Processes that have a part of the batch each, see `xpnet.distributed`: the statistics are those of the
        batch of all. `fit` with a group does that for all layers. A file of the network does not say it.

    Attributes
    ----------
    weight : array, shape (features,)
        It starts at 1.
    bias : array, shape (features,)
        It starts at 0.
    running_mean : array, shape (features,)
        State. It starts at 0.
    running_variance : array, shape (features,)
        State: of the unbiased variance, the sum of squares divided by the number of values less one. It
        starts at 1.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the last axis has another length, or if in training a
        feature has fewer than two values.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.BatchNorm(3)
    >>> y = layer(np.random.default_rng(0).normal(5, 2, size=(100, 3)).astype("float32"))
    >>> bool(abs(y.mean()) < 1e-5), bool(layer.running_mean[0] > 0)
    (True, True)
    """

    state = ("running_mean", "running_variance")

    # Private, as a network need not be used where it was trained.
    _group: Group | None = None

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        dtype: str = "float32",
        group: Group | None = None,
    ) -> None:
        features = count("features", features)
        super().__init__(features, epsilon=epsilon, dtype=dtype)
        if group is not None:
            self._group = check_group(group)
        self.momentum = up_to_one("momentum", momentum)
        self.running_mean = filled(0.0, features, dtype)
        self.running_variance = filled(1.0, features, dtype)

    def __call__(self, x: Array) -> Array:
        """Normalize x, of shape (batch, ..., features)."""
        xp = self._namespace(x)
        if not self.training:
            scale = self.weight / xp.sqrt(self.running_variance + self.epsilon)
            return (x - self.running_mean) * scale + self.bias
        number, group = math.prod(x.shape[:-1]), self._group_of_batch()
        if number < 2 and group is None:
            raise ValueError(
                f"BatchNorm needs at least two values of each feature in training, received x of shape "
                f"{tuple(x.shape)}. Give it a larger batch (the last of an epoch may be smaller), or call "
                "eval() to use the running statistics."
            )
        flat = x if len(x.shape) == 2 else xp.reshape(x, (x.shape[0], -1, x.shape[-1]))
        axes = tuple(range(len(flat.shape) - 1))
        if group is None:
            y, mean, variance = _standardized(xp, flat, axes, self.epsilon)
            variance = variance * (number / (number - 1))
        else:
            own = xp.full((), float(number), dtype=at_least_single(xp, flat).dtype, device=flat.device)
            all_of_them = group.sum(own)
            of_all = partial(_mean_of_all, group, own / all_of_them)
            y, mean, variance = _standardized(xp, flat, axes, self.epsilon, of_all)
            # There are two or more, but what stands for their number while this is recorded.
            variance = variance * (all_of_them / xp.maximum(all_of_them - 1, xp.ones_like(all_of_them)))
        self.running_mean = self._moved(xp, self.running_mean, mean)
        self.running_variance = self._moved(xp, self.running_variance, variance)
        return xp.reshape(y * self.weight + self.bias, x.shape)

    def _group_of_batch(self) -> Group | None:
        """Return the processes of which each has a part of the batch; None if all of it is here."""
        share = current_share()
        if share is not None:
            return None if share.is_whole else share.group
        return self._group if self._group is not None and self._group.size > 1 else None

    def _moved(self, xp: Any, running: Any, batch: Any) -> Any:
        """Move a running statistic towards that of the batch, in its own dtype."""
        batch = xp.reshape(stop_gradient(batch), running.shape)
        batch = xp.astype(batch, running.dtype, copy=False)
        return (1 - self.momentum) * running + self.momentum * batch


def _mean_of_all(group: Group, part: Any, mean: Any) -> Any:
    """Return the mean over the values of all processes, of which those here are a part."""
    return group.sum(mean * part)


class LayerNorm(_Normalization):
    """Normalize each position over its features: ``(x - mean) / sqrt(variance + epsilon) * weight + bias``.

    J. L. Ba, J. R. Kiros and G. E. Hinton, Layer Normalization, 2016.

    Parameters
    ----------
    features : int
        The length of the last axis.
    epsilon : float, default=1e-5
        Keeps features that are all equal from dividing by 0.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    weight : array, shape (features,)
        It starts at 1.
    bias : array, shape (features,)
        It starts at 0.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the last axis has another length.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.LayerNorm(4)(np.asarray([[1.0, 2.0, 3.0, 4.0]])).round(2)
    array([[-1.34, -0.45,  0.45,  1.34]])
    """

    def __call__(self, x: Array) -> Array:
        """Normalize x, of shape (..., features)."""
        xp = self._namespace(x)
        return _standardized(xp, x, (-1,), self.epsilon)[0] * self.weight + self.bias


class RMSNorm(_Normalization):
    """Divide by the root mean square of the features: ``x / sqrt(mean(x²) + epsilon) * weight``.

    B. Zhang and R. Sennrich, Root Mean Square Layer Normalization, 2019.

    Parameters
    ----------
    features : int
        The length of the last axis.
    epsilon : float, default=1e-5
        Keeps features that are all 0 from dividing by 0.
    dtype : str, default="float32"
        The dtype of the weight.

    Attributes
    ----------
    weight : array, shape (features,)
        It starts at 1.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the last axis has another length.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.RMSNorm(2)(np.asarray([[3.0, 4.0]])).round(2)
    array([[0.85, 1.13]])
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5, dtype: str = "float32") -> None:
        super().__init__(features, epsilon=epsilon, dtype=dtype)
        self.bias = None

    def __call__(self, x: Array) -> Array:
        """Divide x, of shape (..., features)."""
        xp = self._namespace(x)
        wide = at_least_single(xp, x)
        square = xp.mean(wide * wide, axis=-1, keepdims=True)
        y = wide * (1 / xp.sqrt(square + self.epsilon))
        return in_dtype(xp, y, x.dtype) * self.weight


class GroupNorm(_Normalization):
    """Normalize each example over groups of its features: those of one group at all positions together.

    ``(x - mean) / sqrt(variance + epsilon) * weight + bias``, with the mean and the variance of a group. With
    one feature a group this is called instance normalization.

    Y. Wu and K. He, Group Normalization, 2018.

    Parameters
    ----------
    groups : int
        How many groups; it divides the number of features.
    features : int
        The length of the last axis.
    epsilon : float, default=1e-5
        Keeps a group that does not vary from dividing by 0.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    weight : array, shape (features,)
        It starts at 1.
    bias : array, shape (features,)
        It starts at 0.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if x has no axis before the last, or the last has another
        length.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> x = np.random.default_rng(0).normal(5, 2, size=(8, 10, 10, 6))  # (batch, height, width, features)
    >>> y = nn.GroupNorm(3, 6)(x)
    >>> bool(abs(y[0, ..., :2].mean()) < 1e-6)
    True
    """

    def __init__(self, groups: int, features: int, *, epsilon: float = 1e-5, dtype: str = "float32") -> None:
        self.groups, features = count("groups", groups), count("features", features)
        super().__init__(features, epsilon=epsilon, dtype=dtype)
        if features % self.groups:
            raise ValueError(f"groups must divide the {features} features, received {self.groups}.")

    def __call__(self, x: Array) -> Array:
        """Normalize x, of shape (batch, ..., features)."""
        xp = self._namespace(x)
        features = x.shape[-1]
        if len(x.shape) < 2:
            raise ValueError(
                f"GroupNorm needs the axes (batch, ..., features), received an array of shape "
                f"{tuple(x.shape)}. Add the axis of the batch with expand_dims."
            )
        grouped = (x.shape[0], math.prod(x.shape[1:-1]), self.groups, features // self.groups)
        y = _standardized(xp, xp.reshape(x, grouped), (1, 3), self.epsilon)[0]
        return xp.reshape(y, x.shape) * self.weight + self.bias
