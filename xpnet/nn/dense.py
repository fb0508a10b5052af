"""Layers that connect every input with every output."""

from numbers import Integral
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.backends import asarray, device
from xpnet.nn.initializers import Initializer, he_normal
from xpnet.nn.module import Module
from xpnet.random import Seed, host_generator


class Dense(Module):
    """A dense layer: ``y = x @ weight + bias``.

    Parameters
    ----------
    in_features : int
        Number of inputs.
    out_features : int
        Number of outputs, the neurons of the layer.
    bias : bool, default=True
        Whether to add a bias, which starts at zero.
    weight_init : callable, default=he_normal
        One of `xpnet.nn.initializers`.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn. One seed gives the same weights on every library and device;
        None gives different ones each time.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    weight : array, shape (in_features, out_features)
    bias : array, shape (out_features,), or None

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.Dense(4, 3, seed=0)
    >>> layer(np.ones((2, 4), dtype="float32")).shape
    (2, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        weight_init: Initializer = he_normal,
        seed: Seed = None,
        dtype: str = "float32",
    ) -> None:
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a positive integer, received {value!r}.")
        here = device()
        shape = (in_features, out_features)
        weight = weight_init(shape, host_generator(seed))
        if tuple(getattr(weight, "shape", ())) != shape:
            raise ValueError(
                f"weight_init must return an array of shape {shape}, received "
                f"{tuple(getattr(weight, 'shape', ())) or type(weight).__name__}."
            )
        self.weight = asarray(weight, device=here, dtype=dtype)
        if not here.namespace.isdtype(self.weight.dtype, ("real floating", "complex floating")):
            raise ValueError(
                f'a layer learns floating-point numbers, received dtype={dtype!r}. Try "float32".'
            )
        self.bias = asarray([0.0] * out_features, device=here, dtype=dtype) if bias else None

    def __call__(self, x: Any) -> Any:
        """Compute the outputs.

        Parameters
        ----------
        x : array, shape (..., in_features)

        Returns
        -------
        array, shape (..., out_features)

        Raises
        ------
        ValueError
            If the last axis of x has another length.
        TypeError
            If x holds no floating-point numbers.
        MixedArraysError
            If x is of another library or on another device than the weight.
        """
        xp = array_namespace(x, self.weight)
        expected = self.weight.shape[0]
        if len(x.shape) == 0 or x.shape[-1] != expected:
            received = x.shape[-1] if len(x.shape) else "an array without axes"
            raise ValueError(
                f"expected {expected} features on the last axis, received {received}. The layer is "
                f"Dense({expected}, {self.weight.shape[1]}), x has the shape {tuple(x.shape)}. Make the "
                "layer for as many features as x has, or give it other features."
            )
        if x.dtype != self.weight.dtype and not xp.isdtype(x.dtype, ("real floating", "complex floating")):
            raise TypeError(
                f"a dense layer needs floating-point numbers, received {x.dtype}. Convert x with "
                "xpnet.asarray(x, dtype='float32')."
            )
        # One product of two matrices: with more axes, libraries multiply matrix by matrix.
        rows = x if len(x.shape) <= 2 else xp.reshape(x, (-1, expected))
        y = xp.matmul(rows, self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y if len(x.shape) <= 2 else xp.reshape(y, (*x.shape[:-1], y.shape[-1]))
