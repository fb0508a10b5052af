"""Attention, and the transformer's block that is made of it."""

import math
from collections.abc import Callable
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.backends import asarray, device_of, is_on_host
from xpnet.nn.activations import GELU, Softmax
from xpnet.nn.containers import Sequential
from xpnet.nn.dense import Dense
from xpnet.nn.dropout import Dropout
from xpnet.nn.initializers import Initializer, glorot_uniform
from xpnet.nn.masks import without_hidden
from xpnet.nn.module import Module
from xpnet.nn.normalization import LayerNorm
from xpnet.nn.parameters import check_axes, check_features
from xpnet.nn.positions import RotaryPositions
from xpnet.random import Seed, host_generator
from xpnet.settings import count, flag
from xpnet.tree import Array

Cache = dict[str, Any]
_AXES = ("batch", "length", "features")


class MultiHeadAttention(Module):
    """Attention: each position takes in what others have, weighted by how well they fit its question.

    ``softmax(q kᵀ / sqrt(width)) v`` in each head, where q, k and v are dense layers of the input, and a
    dense layer of the results of all heads together.

    A. Vaswani et al., Attention Is All You Need, 2017.

    Parameters
    ----------
    features : int
        The length of the last axis.
    heads : int
        How many heads; it divides the number of features, and each has a part of them as its width.
    causal : bool, default=False
        Whether a position sees itself and those before it only.
    rotary : bool, default=False
        Whether questions and keys are turned by their positions: see `RotaryPositions`.
    bias : bool, default=True
        Whether the four dense layers have a bias.
    weight_init : callable, default=glorot_uniform
        One of `xpnet.nn.initializers`.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    query, key, value, output : Dense
        Each with a weight of shape (features, features).

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.MultiHeadAttention(16, 4, causal=True, seed=0)
    >>> layer(np.ones((2, 10, 16), dtype="float32")).shape
    (2, 10, 16)
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        causal: bool = False,
        rotary: bool = False,
        bias: bool = True,
        weight_init: Initializer = glorot_uniform,
        seed: Seed = None,
        dtype: str = "float32",
    ) -> None:
        features, self.heads = count("features", features), count("heads", heads)
        if features % self.heads:
            raise ValueError(f"heads must divide the {features} features, received {self.heads}.")
        self.causal = flag("causal", causal)
        self.positions = RotaryPositions(features // self.heads) if flag("rotary", rotary) else None
        options: dict[str, Any] = {"bias": bias, "weight_init": weight_init, "dtype": dtype}
        random = host_generator(seed)
        self.query = Dense(features, features, seed=random, **options)
        self.key = Dense(features, features, seed=random, **options)
        self.value = Dense(features, features, seed=random, **options)
        self.output = Dense(features, features, seed=random, **options)

    def __call__(self, x: Array, context: Array | None = None, *, mask: Array | None = None) -> Array:
        """Attend from each position of x to those of the context.

        Parameters
        ----------
        x : array, shape (batch, length, features)
            What asks.
        context : array, shape (batch, context length, features), optional
            What is asked; by default x itself.
        mask : array of bool, shape (batch, context length), optional
            True where the context counts, False where it only fills up: there, it is not read, not even
            NaN. A position that sees nothing of the context, as it is causal, takes in nothing.

        Returns
        -------
        array, shape (batch, length, features)

        Raises
        ------
        ValueError
            If x or the context has other axes or another number of features, or the mask another shape, or
            if it hides a whole row. Outside of NumPy and under `jit`, where nobody looks at its values, such
            a row gives NaN.
        TypeError
            If x holds no floating-point numbers, or the mask anything but bool.
        """
        known = x if context is None else context
        xp = self._namespace(x, known)
        seen = None
        if self.causal:
            seen = self._before(xp, x.shape[1], known.shape[1], 0, x.device)
        if mask is not None:
            known = without_hidden(known, mask, self._name())
            there = xp.reshape(mask, (mask.shape[0], 1, 1, mask.shape[1]))
            seen = there if seen is None else seen & there
        x, context = (known if context is None else x), known
        keys, values = self._heads(xp, self.key(context)), self._heads(xp, self.value(context))
        if self.positions is not None:
            keys = self.positions(keys)
        return self._attend(xp, x, keys, values, seen, 0, is_masked=mask is not None)

    def new_cache(self, batch: int, length: int) -> Cache:
        """Return the memory of a sequence that `step` goes through, with room for so many positions.

        Returns
        -------
        dict of array
            ``keys`` and ``values`` of shape (batch, heads, length, width), and ``length``, an int32 without
            axes: how many positions are there so far.
        """
        batch, length = count("batch", batch), count("length", length)
        weight = self.key.weight
        where, xp = device_of(weight), array_namespace(weight)
        shape = (batch, self.heads, length, weight.shape[1] // self.heads)
        empty = [xp.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2)]
        return {"keys": empty[0], "values": empty[1], "length": asarray(0, device=where, dtype="int32")}

    def step(self, x: Array, cache: Cache) -> tuple[Array, Cache]:
        """Go on with a sequence: attend from new positions to those before, which the cache remembers.

        The result is that of a causal call with the whole sequence, and needs the new positions only. All
        shapes stay the same from step to step, so `jit` records once.

        Parameters
        ----------
        x : array, shape (batch, length, features)
            The new positions, often one.
        cache : dict of array
            From `new_cache` or the step before.

        Returns
        -------
        y : array, shape (batch, length, features)
            NaN at positions for which the cache has no room, but see below.
        cache : dict of array
            With the new positions.

        Raises
        ------
        IndexError
            If the cache, one of NumPy arrays outside of `jit`, has no room for all of them.
        """
        xp = self._namespace(x, x)
        start, room, new = xp.asarray(cache["length"]), cache["keys"].shape[2], x.shape[1]
        valid = None
        if not is_on_host(start):
            valid = start + xp.arange(new, dtype=start.dtype, device=x.device) < room
        elif start + new > room:
            raise IndexError(
                f"a cache must have room for all positions of a sequence, received one for {room} and "
                f"positions up to {start + new}. Make a longer one, new_cache(batch, length)."
            )
        keys, values = self._heads(xp, self.key(x)), self._heads(xp, self.value(x))
        if self.positions is not None:
            keys = self.positions(keys, start=start)
        # Which of the new positions each place takes, by a comparison: the standard assigns to no array of
        # places.
        source = xp.arange(room, dtype=start.dtype, device=x.device) - start
        is_new = xp.reshape((source >= 0) & (source < new), (room, 1))
        source = xp.clip(source, 0, new - 1)
        keys = xp.where(is_new, xp.take(keys, source, axis=2), cache["keys"])
        values = xp.where(is_new, xp.take(values, source, axis=2), cache["values"])
        seen = self._before(xp, new, room, start, x.device)
        y = self._attend(xp, x, keys, values, seen, start)
        y = y if valid is None else xp.where(xp.expand_dims(valid, axis=-1), y, math.nan)
        return y, {"keys": keys, "values": values, "length": start + new}

    def _name(self) -> str:
        return f"MultiHeadAttention({self.query.weight.shape[0]}, {self.heads})"

    def _namespace(self, x: Any, context: Any) -> Any:
        for each in (x, context):
            check_axes(each, _AXES, self._name())
            check_features(each, self.query.weight.shape[0], self._name())
        return array_namespace(x, context, self.query.weight)

    def _heads(self, xp: Any, x: Any) -> Any:
        """From (batch, length, features) to (batch, heads, length, width)."""
        batch, length, features = x.shape
        return xp.permute_dims(
            xp.reshape(x, (batch, length, self.heads, features // self.heads)), (0, 2, 1, 3)
        )

    def _before(self, xp: Any, length: int, known: int, start: Any, device: Any) -> Any:
        """Say which positions each one sees, those up to itself: an array of bool, shape (length, known)."""
        here = xp.expand_dims(xp.arange(length, device=device) + start, axis=1)
        return xp.expand_dims(xp.arange(known, device=device), axis=0) <= here

    def _attend(
        self, xp: Any, x: Any, keys: Any, values: Any, seen: Any, start: Any, *, is_masked: bool = False
    ) -> Any:
        query = self._heads(xp, self.query(x) * (1 / math.sqrt(keys.shape[-1])))
        if self.positions is not None:
            query = self.positions(query, start=start)
        scores = xp.matmul(query, xp.matrix_transpose(keys))
        if seen is not None:
            # Finite, so that a position that sees nothing gets numbers.
            scores = xp.where(seen, scores, float(xp.finfo(scores.dtype).min))
        weights = Softmax()(scores)
        if is_masked:  # and then nothing of them
            weights = xp.where(seen, weights, 0.0)
        y = xp.matmul(weights, values)
        return self.output(xp.reshape(xp.permute_dims(y, (0, 2, 1, 3)), x.shape))


class TransformerBlock(Module):
    """A block of a transformer: attention, then two dense layers; the input of each is normalized and added.

    ``x = x + attention(norm(x))`` and then ``x = x + dense(gelu(dense(norm(x))))``.

    A. Vaswani et al., Attention Is All You Need, 2017; normalized before as in R. Xiong et al., On Layer
    Normalization in the Transformer Architecture, 2020.

    PyTorch's TransformerEncoderLayer is the same with ``norm_first=True``. Its norm1, self_attn, norm2,
    linear1 and linear2 are attention_norm, attention, dense_norm, expand and contract here.

    Parameters
    ----------
    features : int
        The length of the last axis.
    heads : int
        How many heads; it divides the number of features.
    hidden : int, optional
        The width between the two dense layers; by default four times the features.
    causal : bool, default=False
        Whether a position sees itself and those before it only.
    rotary : bool, default=False
        Whether positions are told apart by `RotaryPositions`.
    dropout : float, default=0.0
        The rate of `Dropout` of what is added.
    activation : Module or callable, optional
        What stands between the two dense layers; by default `GELU`. PyTorch's ``activation="gelu"`` is
        ``GELU(approximate=False)``.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn.
    dtype : str, default="float32"
        The dtype of the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> block = xpnet.nn.TransformerBlock(16, 4, causal=True, seed=0)
    >>> block(np.ones((2, 10, 16), dtype="float32")).shape
    (2, 10, 16)
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        hidden: int | None = None,
        causal: bool = False,
        rotary: bool = False,
        dropout: float = 0.0,
        activation: Callable[[Any], Any] | None = None,
        seed: Seed = None,
        dtype: str = "float32",
    ) -> None:
        random = host_generator(seed)
        features = count("features", features)
        hidden = 4 * features if hidden is None else count("hidden", hidden)
        self.attention_norm = LayerNorm(features, dtype=dtype)
        self.attention = MultiHeadAttention(
            features, heads, causal=causal, rotary=rotary, seed=random, dtype=dtype
        )
        self.dense_norm = LayerNorm(features, dtype=dtype)
        self.expand = Dense(features, hidden, weight_init=glorot_uniform, seed=random, dtype=dtype)
        (self.activation,) = Sequential(GELU() if activation is None else activation).layers
        self.contract = Dense(hidden, features, weight_init=glorot_uniform, seed=random, dtype=dtype)
        self.dropout = Dropout(dropout, seed=random)

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Transform x, of shape (batch, length, features); the mask is that of `MultiHeadAttention`.

        What the mask hides is read as 0, so that it gives no NaN to any gradient.
        """
        if mask is not None:
            x = without_hidden(x, mask, f"TransformerBlock({x.shape[-1]}, {self.attention.heads})")
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask))
        return self._dense(x)

    def new_cache(self, batch: int, length: int) -> Cache:
        """Return the memory of a sequence: see `MultiHeadAttention.new_cache`."""
        return self.attention.new_cache(batch, length)

    def step(self, x: Array, cache: Cache) -> tuple[Array, Cache]:
        """Go on with a sequence: see `MultiHeadAttention.step`."""
        y, cache = self.attention.step(self.attention_norm(x), cache)
        return self._dense(x + self.dropout(y)), cache

    def _dense(self, x: Any) -> Any:
        y = self.contract(self.activation(self.expand(self.dense_norm(x))))
        return x + self.dropout(y)
