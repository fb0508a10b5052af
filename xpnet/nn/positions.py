"""Layers that tell the positions of a sequence apart.

Both are made of waves: feature pair i of F turns by ``1 / 10000^(2 i / F)`` radians from a position to the
next.
"""

import math
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.backends import is_known
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_axes, check_features
from xpnet.settings import count, integer, is_integer, positive
from xpnet.tree import Array


def _even(features: int) -> int:
    features = count("features", features)
    if features % 2:
        raise ValueError(f"features must be even, two for each wave, received {features}.")
    return features


def _angles(xp: Any, x: Any, start: Any, base: float) -> Any:
    """Return the angles of the positions of x, of shape (..., length, features): (length, features / 2)."""
    length, half = x.shape[-2], x.shape[-1] // 2
    like = {"dtype": x.dtype, "device": x.device}
    waves = xp.exp(xp.arange(half, **like) * (-math.log(base) / half))
    positions = xp.arange(length, **like)
    # Where a sequence goes on, its start is an array, so that `jit` replays with other ones.
    is_array_elsewhere = is_integer(start) and not is_known(start)
    start = xp.astype(start, x.dtype) if is_array_elsewhere else integer("start", start)
    return xp.expand_dims(positions + start, axis=-1) * waves


class SinusoidalPositions(Module):
    """Add to each position sines and cosines of its own.

    ``y[t, 2 i] = x[t, 2 i] + sin(t w_i)`` and ``y[t, 2 i + 1] = x[t, 2 i + 1] + cos(t w_i)`` with
    ``w_i = base^(-2 i / features)``.

    A. Vaswani et al., Attention Is All You Need, 2017.

    Parameters
    ----------
    features : int
        An even number.
    base : float, default=10000.0
        How much longer the last wave is than the first.

    Raises
    ------
    ValueError
        If features is odd; when called, if x has not the axes (batch, length, features).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.SinusoidalPositions(4)(np.zeros((1, 3, 4)))[0].round(2)
    array([[ 0.  ,  1.  ,  0.  ,  1.  ],
           [ 0.84,  0.54,  0.01,  1.  ],
           [ 0.91, -0.42,  0.02,  1.  ]])
    """

    def __init__(self, features: int, *, base: float = 10000.0) -> None:
        self.features = _even(features)
        self.base = positive("base", base)

    def __call__(self, x: Array, *, start: int | Array = 0) -> Array:
        """Add the waves to x, of shape (batch, length, features); ``start`` is the position of the first."""
        xp = array_namespace(x)
        layer = f"SinusoidalPositions({self.features})"
        check_axes(x, ("batch", "length", "features"), layer)
        check_features(x, self.features, layer)
        angles = _angles(xp, x, start, self.base)
        waves = xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1)
        return x + xp.reshape(waves, x.shape[1:])


class RotaryPositions(Module):
    """Turn pairs of features by an angle that grows with the position.

    Feature i and feature ``features / 2 + i`` are the coordinates of a point, which position t turns by
    ``t base^(-2 i / features)``. The product of two vectors then depends on how far apart their positions
    are, not on where they are.

    J. Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.

    Parameters
    ----------
    features : int
        An even number.
    base : float, default=10000.0
        How much longer the last wave is than the first.

    Raises
    ------
    ValueError
        If features is odd; when called, if the last axis of x has another length, or there is none before it.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.RotaryPositions(2)(np.asarray([[1.0, 0.0], [1.0, 0.0]])).round(2)  # turned by 0, and by 1 radian
    array([[1.  , 0.  ],
           [0.54, 0.84]])
    """

    def __init__(self, features: int, *, base: float = 10000.0) -> None:
        self.features = _even(features)
        self.base = positive("base", base)

    def __call__(self, x: Array, *, start: int | Array = 0) -> Array:
        """Turn x, of shape (..., length, features); ``start`` is the position of the first."""
        xp = array_namespace(x)
        layer = f"RotaryPositions({self.features})"
        check_features(x, self.features, layer)
        if len(x.shape) < 2:
            raise ValueError(
                f"{layer} needs the axes (..., length, features), received an array of shape "
                f"{tuple(x.shape)}."
            )
        angles = _angles(xp, x, start, self.base)
        cos, sin = xp.cos(angles), xp.sin(angles)
        half = self.features // 2
        first, second = x[..., :half], x[..., half:]
        return xp.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)
