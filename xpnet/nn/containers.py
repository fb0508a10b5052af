"""Modules made of other modules or functions."""

from collections.abc import Callable, Iterator
from typing import Any, overload

from xpnet.autodiff import array_namespace
from xpnet.nn.module import Module, block
from xpnet.settings import integer
from xpnet.tree import Array


class Lambda(Module):
    """A function as a layer.

    Parameters
    ----------
    function : callable
        From array to array.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> net = nn.Sequential(lambda x: x / 255, nn.Dense(2, 3))  # a function becomes a Lambda
    >>> net[0]
    Lambda(function: <lambda>)
    >>> nn.Lambda(abs)(np.asarray([-1.0, 2.0]))
    array([1., 2.])
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        if not callable(function):
            raise TypeError(f"Lambda needs a function of an array, received {function!r}.")
        self.function = function

    def __call__(self, x: Array) -> Array:
        return self.function(x)


def _check_taken(net: Module, layers: tuple[Module, ...], mask: Any) -> None:
    """Check that there is no mask, or a layer that takes it."""
    if mask is not None and not net.takes_mask:
        names = ", ".join(type(layer).__name__ for layer in layers) or "no layers"
        raise TypeError(
            "a mask needs a layer that takes it, such as LSTM, MultiHeadAttention or GlobalAvgPool, received "
            f"one for a {type(net).__name__} of {names}. Call it without the mask."
        )


def _with_mask(layer: Module, x: Any, mask: Any) -> Any:
    """Call a layer, with the mask if there is one that it takes."""
    return layer(x) if mask is None or not layer.takes_mask else layer(x, mask=mask)


class Sequential(Module):
    """Layers one after the other: the output of each is the input of the next.

    ``net[0]`` is a layer, and ``net[:2]`` a `Sequential` of the same first two.

    A mask, of shape (batch, length), goes to all the layers that take one: ``net(x, mask=mask)``.

    Parameters
    ----------
    *layers : Module or callable
        The layers. A plain function becomes a `Lambda`.

    Examples
    --------
    >>> import xpnet
    >>> from xpnet.nn import Dense, ReLU, Sequential
    >>> Sequential(Dense(64, 32, seed=0), ReLU(), Dense(32, 10, seed=1)).summary((64,))
    layer           output       parameters
    ───────────────────────────────────────
    layers.0 Dense  (batch, 32)       2,080
    layers.1 ReLU   (batch, 32)           0
    layers.2 Dense  (batch, 10)         330
    ───────────────────────────────────────
    total                             2,410
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        for layer in layers:
            if not callable(layer) or isinstance(layer, type):
                raise TypeError(
                    "Sequential takes layers one by one, Sequential(Dense(2, 3), ReLU()), "
                    f"received {layer!r}."
                )
        self.layers = tuple(layer if isinstance(layer, Module) else Lambda(layer) for layer in layers)

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        return any(layer.takes_sparse for layer in self.layers[:1])

    @property
    def takes_mask(self) -> bool:  # type: ignore[override]
        return any(layer.takes_mask for layer in self.layers)

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        _check_taken(self, self.layers, mask)
        for layer in self.layers:
            x = _with_mask(layer, x, mask)
        return x

    def __repr__(self) -> str:
        return block("Sequential", {str(index): repr(layer) for index, layer in enumerate(self.layers)})

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | slice) -> Module:
        """Return a layer, or for a slice a `Sequential` of the same layers, which share their arrays."""
        if isinstance(index, slice):
            part = Sequential(*self.layers[index])
            if "training" in vars(self):
                part.training = vars(self)["training"]
            return part
        try:
            return self.layers[index]
        except IndexError:
            raise IndexError(
                f"a Sequential of {len(self)} layers has no layer {index}. Count from 0, or from -1 backward."
            ) from None


class Residual(Module):
    """Add what a layer makes of its input to the input: ``x + layer(x)``.

    K. He et al., Deep Residual Learning for Image Recognition, 2015.

    Parameters
    ----------
    *layers : Module or callable
        One layer, or several that stand one after the other. Their output must have the shape of the input.
    shortcut : Module or callable, optional
        Takes the place of the input in the sum, ``shortcut(x) + layer(x)``, where the layer changes the
        shape: a `Dense` or a `Conv2d` with a kernel of size 1.

    Raises
    ------
    ValueError
        When called, if the two that are added differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> block = nn.Residual(nn.Dense(4, 4), nn.ReLU())
    >>> block(np.ones((2, 4))).shape
    (2, 4)
    >>> wider = nn.Residual(nn.Dense(4, 8), shortcut=nn.Dense(4, 8))
    >>> wider(np.ones((2, 4))).shape
    (2, 8)
    """

    def __init__(self, *layers: Callable[[Any], Any], shortcut: Callable[[Any], Any] | None = None) -> None:
        self.inner = Sequential(*layers)
        self.shortcut = Sequential() if shortcut is None else Sequential(shortcut)

    @property
    def takes_mask(self) -> bool:  # type: ignore[override]
        return self.inner.takes_mask or self.shortcut.takes_mask

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        _check_taken(self, self.inner.layers + self.shortcut.layers, mask)
        y, x = _with_mask(self.inner, x, mask), _with_mask(self.shortcut, x, mask)
        if tuple(x.shape) != tuple(y.shape):
            raise ValueError(
                f"the output of the layers in Residual must have the shape of what it is added to, "
                f"{tuple(x.shape)}, received {tuple(y.shape)}. Give it a shortcut that changes the shape."
            )
        return x + y


class Concatenate(Module):
    """Give the input to several layers, and join their outputs along an axis.

    Parameters
    ----------
    *layers : Module or callable
        Each is given the same input; ``lambda x: x`` keeps the input itself.
    axis : int, default=-1
        The axis to join along, by default the features.

    Raises
    ------
    ValueError
        When called, if the outputs lack the axis, or differ in the length of another one.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> layer = nn.Concatenate(nn.Dense(4, 8), lambda x: x)
    >>> layer(np.ones((2, 4))).shape
    (2, 12)
    """

    def __init__(self, *layers: Callable[[Any], Any], axis: int = -1) -> None:
        if not layers:
            raise ValueError("Concatenate needs at least one layer, received none.")
        self.layers = Sequential(*layers).layers
        self.axis = integer("axis", axis)

    @property
    def takes_mask(self) -> bool:  # type: ignore[override]
        return any(layer.takes_mask for layer in self.layers)

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        _check_taken(self, self.layers, mask)
        parts = [_with_mask(layer, x, mask) for layer in self.layers]
        shapes = [tuple(part.shape) for part in parts]
        ndim = len(shapes[0])
        if not -ndim <= self.axis < ndim:
            raise ValueError(
                f"the outputs of the layers in Concatenate must have an axis {self.axis}, received shapes "
                f"{shapes}."
            )
        axis = self.axis % ndim
        rest = {(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}
        if len(rest) > 1:
            raise ValueError(
                f"the outputs of the layers in Concatenate must agree in all axes but {self.axis}, received "
                f"shapes {shapes}."
            )
        return array_namespace(*parts).concat(parts, axis=axis)


class Flatten(Module):
    """Put all axes but the first, the batch, into one: (batch, ...) → (batch, features).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.Flatten()(np.ones((5, 28, 28, 1))).shape
    (5, 784)
    """

    def __call__(self, x: Array) -> Array:
        features = 1
        for size in x.shape[1:]:
            features *= size
        return array_namespace(x).reshape(x, (x.shape[0], features))
