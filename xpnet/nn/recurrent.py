"""Layers that go through a sequence and remember."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from xpnet.autodiff import array_namespace
from xpnet.nn.dense import Dense
from xpnet.nn.initializers import glorot_uniform, orthogonal
from xpnet.nn.masks import check_mask, filling_of_rows
from xpnet.nn.module import Module
from xpnet.nn.parameters import check_axes, check_features
from xpnet.random import Seed, host_generator
from xpnet.replay import scan
from xpnet.settings import count, flag
from xpnet.tree import Array

State = dict[str, Any]


def _sigmoid(x: Any) -> Any:
    return 0.5 + 0.5 * array_namespace(x).tanh(0.5 * x)


def _parts(x: Any, number: int) -> list[Any]:
    """Cut the last axis into parts of the same length."""
    width = x.shape[-1] // number
    return [x[..., i * width : (i + 1) * width] for i in range(number)]


def _lstm(state: State, x: Any, weight: Any) -> tuple[State, Any]:
    xp = array_namespace(x, weight)
    gates = x + xp.matmul(state["output"], weight)
    write, forget, new, read = _parts(gates, 4)
    memory = _sigmoid(forget) * state["memory"] + _sigmoid(write) * xp.tanh(new)
    output = _sigmoid(read) * xp.tanh(memory)
    return {"memory": memory, "output": output}, output


def _gru(state: State, x: Any, weight: Any, bias: Any) -> tuple[State, Any]:
    xp = array_namespace(x, weight)
    reset, keep, new = _parts(x, 3)
    own_reset, own_keep, own_new = _parts(xp.matmul(state["output"], weight) + bias, 3)
    new = xp.tanh(new + _sigmoid(reset + own_reset) * own_new)
    keep = _sigmoid(keep + own_keep)
    output = (1 - keep) * new + keep * state["output"]
    return {"output": output}, output


def _kept(cell: Callable[..., Any], state: State, x: tuple[Any, Any], *weights: Any) -> tuple[State, Any]:
    """Do a step where the mask is True; elsewhere, the state stays."""
    inputs, there = x
    xp = array_namespace(inputs)
    after, _ = cell(state, inputs, *weights)
    after = {name: xp.where(there, after[name], state[name]) for name in state}
    return after, after["output"]


class _Recurrent(Module):
    """What recurrent layers share: a dense layer of the input, and one of the output of the step before."""

    parts: ClassVar[int]
    remembers: ClassVar[tuple[str, ...]]
    cell: ClassVar[Callable[..., Any]]
    # Of networks from files that were written before there were more.
    backward: "_Recurrent | None" = None
    above: "_Recurrent | None" = None

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        seed: Seed = None,
        dtype: str = "float32",
    ) -> None:
        in_features, features = count("in_features", in_features), count("features", features)
        layers, bidirectional = count("layers", layers), flag("bidirectional", bidirectional)
        random, out = host_generator(seed), self.parts * features
        options: dict[str, Any] = {"seed": random, "dtype": dtype}
        self.input = Dense(in_features, out, weight_init=glorot_uniform, **options)
        own_bias = self.remembers == ("output",)
        self.recurrent = Dense(features, out, bias=own_bias, weight_init=orthogonal(), **options)
        # LSTM or GRU, whatever a class of one's own does besides.
        kind: Any = next(cls for cls in type(self).__mro__ if "cell" in vars(cls))
        if bidirectional:
            self.backward = kind(in_features, features, **options)
        if layers > 1:
            options |= {"layers": layers - 1, "bidirectional": bidirectional}
            self.above = kind((1 + bidirectional) * features, features, **options)

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Go through whole sequences.

        Parameters
        ----------
        x : array, shape (batch, length, in_features)
        mask : array of bool, shape (batch, length), optional
            True where there is something, as `mask_of_lengths` makes it. Elsewhere, x is not read, not even
            NaN, the state stays as it was, and the output is that of the position before.

        Returns
        -------
        array, shape (batch, length, features), or (batch, length, 2 * features) if bidirectional
            The output of each position, which knows those before: ``y[:, -1, :]`` is that of the last which
            the mask shows, also in front of padding (PyTorch's packed sequences have 0 there). Behind them,
            on the last axis, are the outputs of the other direction, which begins with the last position:
            ``y[:, 0, features:]`` knows all. Its outputs are 0 at padding behind a sequence.

        Raises
        ------
        ValueError
            If x has not the axes (batch, length, in_features), or no positions; if the mask has not the axes
            (batch, length), or hides a whole row. Outside of NumPy and under `jit`, where nobody looks at
            its values, such a row gives NaN.
        TypeError
            If x holds no floating-point numbers, or the mask anything but bool.
        """
        self._check(x)
        y = self._through(x, self._start(x, mask), mask)[0]
        if self.backward is not None:
            xp = array_namespace(y)
            turned = None if mask is None else xp.flip(mask, axis=1)
            back = self.backward(xp.flip(x, axis=1), mask=turned)
            y = xp.concat([y, xp.flip(back, axis=1)], axis=-1)
        return y if self.above is None else self.above(y, mask=mask)

    def new_state(self, x: Array) -> State:
        """Return the state before the first position of x: zeros, of shape (batch, features).

        Of several layers, ``state["above"]`` is the state of those above the first.
        """
        start = self._start(x)
        return start if self.above is None else {**start, "above": self.above.new_state(x)}

    def step(self, x: Array, state: State | None, *, mask: Array | None = None) -> tuple[Array, State]:
        """Go on with sequences.

        Parameters
        ----------
        x : array, shape (batch, length, in_features)
            The next positions, often one.
        state : dict of array, or None
            What the step before has returned; None at the beginning.
        mask : array of bool, shape (batch, length), optional
            As in a call, but for rows that are hidden whole: their state stays.

        Returns
        -------
        y : array, shape (batch, length, features)
        state : dict of array, each of shape (batch, features)
            As from `new_state`.

        Raises
        ------
        ValueError
            As in a call, or if the layer is bidirectional: one direction begins with the end.
        TypeError
            As in a call.
        """
        if self.backward is not None:
            raise ValueError(
                f"a layer that goes on step by step must read forward, {self._name()} is bidirectional and "
                "reads from the end, too. Call it with whole sequences."
            )
        self._check(x)
        state = self.new_state(x) if state is None else state
        y, after = self._through(x, {name: state[name] for name in self.remembers}, mask)
        if self.above is None:
            return y, after
        y, above = self.above.step(y, state["above"], mask=mask)
        return y, {**after, "above": above}

    def _name(self) -> str:
        return f"{type(self).__name__}({self.input.weight.shape[0]}, {self.recurrent.weight.shape[0]})"

    def _check(self, x: Any) -> None:
        check_axes(x, ("batch", "length", "features"), self._name())
        check_features(x, self.input.weight.shape[0], self._name())

    def _start(self, x: Any, mask: Any = None) -> State:
        weight = self.recurrent.weight
        xp, shape = array_namespace(x, weight), (x.shape[0], weight.shape[0])
        dtype = xp.result_type(x, weight)
        # An array for each name: whoever writes into one changes no other.
        state = {name: xp.zeros(shape, dtype=dtype, device=x.device) for name in self.remembers}
        if mask is None:
            return state
        filling = xp.expand_dims(filling_of_rows(x, mask, self._name()), axis=1)
        return {name: zeros + filling for name, zeros in state.items()}

    def _through(self, x: Any, state: State, mask: Any) -> tuple[Any, State]:
        """Go through sequences with the first layer, forward."""
        xp = array_namespace(x, self.input.weight, *([] if mask is None else [mask]))
        cell, weights = type(self).cell, (self.recurrent.weight, self.recurrent.bias)
        if mask is not None:  # what is hidden is 0, so that it gives no NaN to a gradient
            check_mask(mask, x.shape[:2], self._name())
            mask = xp.expand_dims(mask, axis=-1)
            x = xp.where(mask, x, 0.0)
        # One product for all positions; what is left for the steps depends on the step before.
        steps = xp.permute_dims(self.input(x), (1, 0, 2))
        if mask is not None:
            cell, steps = partial(_kept, cell), (steps, xp.permute_dims(mask, (1, 0, 2)))
        state, y = scan(cell, state, steps, *(w for w in weights if w is not None))
        return xp.permute_dims(y, (1, 0, 2)), state


class LSTM(_Recurrent):
    """Long short-term memory: gates decide what a memory keeps, takes in, and shows.

    With σ for the sigmoid function, ``*`` for products element by element, and the columns of the weights in
    the order write, forget, new, read:

    ``memory[t] = σ(forget) * memory[t - 1] + σ(write) * tanh(new)``,
    ``y[t] = σ(read) * tanh(memory[t])``, where
    ``(write, forget, new, read) = x[t] @ input.weight + input.bias + y[t - 1] @ recurrent.weight``.

    S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, 1997; with the forget gate of F. A. Gers,
    J. Schmidhuber and F. Cummins, Learning to Forget, 2000.

    PyTorch adds two biases in each layer and steps both, so that their sum moves twice as fast in training.

    Parameters
    ----------
    in_features : int
        Number of inputs of each position.
    features : int
        Number of outputs of each position, and of cells of memory.
    layers : int, default=1
        How many layers stand above each other: each reads the outputs of the one below.
    bidirectional : bool, default=False
        Whether each layer reads the sequence also from its end, with weights of its own, and has twice as
        many outputs: those forward, and behind them those backward.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    input : Dense
        With a weight of shape (in_features, 4 * features), and a bias.
    recurrent : Dense
        With a weight of shape (features, 4 * features).
    backward : LSTM or None
        The layer that reads from the end.
    above : LSTM or None
        The layers above the first.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.LSTM(3, 8, seed=0)
    >>> x = np.ones((2, 50, 3), dtype="float32")
    >>> layer(x).shape
    (2, 50, 8)
    >>> layer = xpnet.nn.LSTM(3, 8, layers=2, bidirectional=True, seed=0)
    >>> layer(x, mask=xpnet.nn.mask_of_lengths(np.asarray([50, 20]), 50)).shape
    (2, 50, 16)
    """

    parts = 4
    remembers = ("memory", "output")
    cell = staticmethod(_lstm)


class GRU(_Recurrent):
    """The gated recurrent unit: gates decide what of the output is kept and what a new one looks at.

    With σ for the sigmoid function, ``*`` for products element by element, and the columns of the weights in
    the order reset, keep, new:

    ``y[t] = (1 - σ(keep)) * tanh(new) + σ(keep) * y[t - 1]``, where reset and keep are the sums, and new is
    ``new of the input + σ(reset) * new of the output``, of
    ``x[t] @ input.weight + input.bias`` and ``y[t - 1] @ recurrent.weight + recurrent.bias``.

    K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
    Translation, 2014; the reset gate behind the product, as in the libraries for GPUs.

    Parameters
    ----------
    in_features : int
        Number of inputs of each position.
    features : int
        Number of outputs of each position.
    layers : int, default=1
        How many layers stand above each other: each reads the outputs of the one below.
    bidirectional : bool, default=False
        Whether each layer reads the sequence also from its end, with weights of its own, and has twice as
        many outputs: those forward, and behind them those backward.
    seed : int, numpy.random.Generator or None
        From which the initial weights are drawn.
    dtype : str, default="float32"
        The dtype of the parameters.

    Attributes
    ----------
    input : Dense
        With a weight of shape (in_features, 3 * features), and a bias.
    recurrent : Dense
        With a weight of shape (features, 3 * features), and a bias.
    backward : GRU or None
        The layer that reads from the end.
    above : GRU or None
        The layers above the first.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> layer = xpnet.nn.GRU(3, 8, seed=0)
    >>> layer(np.ones((2, 50, 3), dtype="float32")).shape
    (2, 50, 8)
    """

    parts = 3
    remembers = ("output",)
    cell = staticmethod(_gru)
