"""Modules made of other modules or functions."""

from collections.abc import Callable, Iterator
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.nn.module import Module, block


class Lambda(Module):
    """A function as a layer.

    Parameters
    ----------
    function : callable
        From array to array.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        if not callable(function):
            raise TypeError(f"Lambda needs a function of an array, received {function!r}.")
        self.function = function

    def __call__(self, x: Any) -> Any:
        return self.function(x)


class Sequential(Module):
    """Layers one after the other: the output of each is the input of the next.

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

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __repr__(self) -> str:
        return block("Sequential", {str(index): repr(layer) for index, layer in enumerate(self.layers)})

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]


class Flatten(Module):
    """Put all axes but the first, the batch, into one: (batch, ...) → (batch, features)."""

    def __call__(self, x: Any) -> Any:
        features = 1
        for size in x.shape[1:]:
            features *= size
        return array_namespace(x).reshape(x, (x.shape[0], features))
