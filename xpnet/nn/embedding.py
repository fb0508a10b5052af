"""Layers that read integers: a vector for each entry of a table."""

from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.nn.initializers import Initializer, normal
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_positive, drawn
from xpnet.random import Seed, host_generator


class Embedding(Module):
    """A table with a vector for each entry: ``y = weight[indices]``.

    Parameters
    ----------
    entries : int
        How many entries the table has: words, bytes, categories.
    features : int
        The length of each vector.
    weight_init : callable, default=initializers.normal(1.0)
        One of `xpnet.nn.initializers`.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn.
    dtype : str, default="float32"
        The dtype of the weight.

    Attributes
    ----------
    weight : array, shape (entries, features)

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.Embedding(256, 16, seed=0)
    >>> layer(np.array([[104, 105], [33, 33]])).shape
    (2, 2, 16)
    """

    def __init__(
        self,
        entries: int,
        features: int,
        *,
        weight_init: Initializer = normal(1.0),  # noqa: B008 -- a function, which nothing changes
        seed: Seed = None,
        dtype: str = "float32",
    ) -> None:
        check_positive(entries=entries, features=features)
        self.weight = drawn(weight_init, (entries, features), host_generator(seed), dtype)

    def __call__(self, indices: Any) -> Any:
        """Look up vectors.

        Parameters
        ----------
        indices : array of integers, shape (...)
            Each from 0 to entries - 1. Whether they are is not checked on a GPU or under `jit`, as this would
            wait for the values.

        Returns
        -------
        array, shape (..., features)

        Raises
        ------
        TypeError
            If the indices are no integers.
        """
        xp = array_namespace(indices, self.weight)
        entries, features = self.weight.shape
        if not xp.isdtype(indices.dtype, "integral"):
            raise TypeError(
                f"Embedding({entries}, {features}) needs integers, the numbers of entries, received "
                f"{indices.dtype}. Convert them with xpnet.asarray(x, dtype='int64')."
            )
        flat = xp.reshape(indices, (-1,))
        return xp.reshape(xp.take(self.weight, flat, axis=0), (*indices.shape, features))
