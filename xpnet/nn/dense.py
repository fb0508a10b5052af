"""Layers that connect every input with every output."""

from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.nn.initializers import Initializer, he_normal
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_features, drawn, filled
from xpnet.nn.sparse import SparseRows
from xpnet.random import Seed, host_generator
from xpnet.settings import count, flag
from xpnet.tree import Array


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

    takes_sparse = True  # see `Module`

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
        in_features, out_features = count("in_features", in_features), count("out_features", out_features)
        self.weight = drawn(weight_init, (in_features, out_features), host_generator(seed), dtype)
        self.bias = filled(0.0, out_features, dtype) if flag("bias", bias) else None

    def __call__(self, x: Array) -> Array:
        """Compute the outputs.

        Parameters
        ----------
        x : array, shape (..., in_features)
            Or a batch of a sparse matrix of SciPy's, as `xpnet.fit` makes it.

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
        y = x @ self.weight if isinstance(x, SparseRows) else self._product(x)
        return y if self.bias is None else y + self.bias

    def _product(self, x: Any) -> Any:
        xp = array_namespace(x, self.weight)
        expected = self.weight.shape[0]
        check_features(x, expected, f"Dense({expected}, {self.weight.shape[1]})")
        # One product of two matrices: with more axes, libraries multiply matrix by matrix.
        rows = x if len(x.shape) <= 2 else xp.reshape(x, (-1, expected))
        y = xp.matmul(rows, self.weight)
        return y if len(x.shape) <= 2 else xp.reshape(y, (*x.shape[:-1], y.shape[-1]))
