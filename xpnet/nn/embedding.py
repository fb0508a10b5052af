"""Layers that read integers: a vector for each entry of a table."""

import math
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.backends import is_on_host
from xpnet.indices import check_indices, safe_indices
from xpnet.nn.initializers import Initializer, normal
from xpnet.nn.module import Module
from xpnet.nn.parameters import drawn
from xpnet.random import Seed, host_generator
from xpnet.settings import count
from xpnet.tree import Array


class Embedding(Module):
    """A table with a vector for each entry: ``y = weight[indices]``.

    An index that is no entry, such as the -1 that pandas writes for a missing category, is an error where it
    can be looked at without waiting. Elsewhere it gives NaN, of which no entry's gradient has a part. `fit`
    and `predict` look at all indices that reach the layer as they are: x itself, or an item of x.

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
        entries, features = count("entries", entries), count("features", features)
        self.weight = drawn(weight_init, (entries, features), host_generator(seed), dtype)

    def check_all_inputs(self, indices: Array) -> None:
        """Check that all indices are entries. `fit` and `predict` call it once with all that they are given.

        This reads from the device.

        Parameters
        ----------
        indices : array of integers, shape (...)

        Raises
        ------
        TypeError
            If the indices are no integers.
        IndexError
            If one is negative or too large.
        """
        self._check_dtype(indices)
        check_indices(indices, self.weight.shape[0], self._name)

    def __call__(self, indices: Array) -> Array:
        """Look up vectors.

        Parameters
        ----------
        indices : array of integers, shape (...)
            Each from 0 to entries - 1.

        Returns
        -------
        array, shape (..., features)
            NaN for an index that is out of range, but see below.

        Raises
        ------
        TypeError
            If the indices are no integers.
        IndexError
            If one is out of range, and they are a NumPy array outside of `jit` and `grad`.
        """
        xp = array_namespace(indices, self.weight)
        entries, features = self.weight.shape
        self._check_dtype(indices)
        valid = None
        if is_on_host(indices):
            check_indices(indices, entries, self._name)
        else:
            indices, valid = safe_indices(xp, indices, entries)
        rows = xp.take(self.weight, xp.reshape(indices, (-1,)), axis=0)
        y = xp.reshape(rows, (*indices.shape, features))
        # A product with NaN would be faster, and put NaN into the gradient of the first entry.
        return y if valid is None else xp.where(xp.expand_dims(valid, axis=-1), y, math.nan)

    @property
    def _name(self) -> str:
        entries, features = self.weight.shape
        return f"Embedding({entries}, {features})"

    def _check_dtype(self, indices: Any) -> None:
        if not array_namespace(indices).isdtype(indices.dtype, "integral"):
            raise TypeError(
                f"{self._name} needs integers, the numbers of entries, received {indices.dtype}. Convert "
                "them with xpnet.asarray(x, dtype='int64')."
            )
