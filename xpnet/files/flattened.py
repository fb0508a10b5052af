"""Which layers read a flattened image, whose features stand in another order in PyTorch.

An image is (batch, height, width, channels) here and (batch, channels, height, width) there. Flattened, the
feature of channel c at place p is number ``p * channels + c`` here and ``c * places + p`` there, so that the
number of channels is all that must be known. Layers that stand one behind the other say it. Code of the
user's between them, a ``__call__`` or a `Lambda`, is not read: it may flatten an image, or make one. Behind
such code, a layer reads no flattened image if it has as many inputs as features are known from before, for
an image has more; else the user must say what it reads.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy

from xpnet import nn, tree
from xpnet.settings import is_integer


class _Order(NamedTuple):
    """In what order PyTorch has the features that come out of a layer.

    Attributes
    ----------
    channels : int or None
        They are a flattened image of so many channels: 1 where they are not, or the order is the same. None
        where it is not known.
    image : int or None
        They are the channels of an image, so many, which stand behind the batch there; or `_LAST`, where they
        stand on the last axis there, too. None where it is not known.
    widths : tuple of int
        As many features are in the same order as here, also behind code that is not read: flattened images
        have more. The first is the number of those that come out.
    maker : (str, int) or None
        The dense layer that they come from, and how many it makes.
    """

    channels: int | None = 1
    image: int | None = None
    widths: tuple[int, ...] = ()
    maker: tuple[str, int] | None = None


_LAST = 0
_SEQUENCE = _Order(image=_LAST)


def _same(order: _Order) -> _Order:
    return order


def _behind_code(order: _Order) -> _Order:
    return order._replace(channels=None, image=None)


def _flattened(order: _Order) -> _Order:
    channels = order.channels
    if channels == 1:
        channels = 1 if order.image == _LAST else order.image
    # The widths stay: as many features as an image had channels are an image of one place.
    return order._replace(channels=channels, image=_LAST)


def _last(order: _Order) -> _Order:
    """Return what is known where PyTorch has the features on the last axis: it may have moved them there."""
    return order if order.image == _LAST else order._replace(image=None)


def _behind_batch(order: _Order, channels: int | None = None) -> _Order:
    """Return what is known where PyTorch has the features behind the batch: it may have moved them there."""
    if order.image == _LAST:
        return order._replace(image=None)
    return order._replace(image=channels) if order.image is None else order


def _one_of_image(order: _Order) -> _Order:
    return _SEQUENCE._replace(widths=order.widths)


# What layers without arrays make of it.
_FORMS: dict[type, Callable[[_Order], _Order]] = {
    **dict.fromkeys((nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.Sigmoid, nn.SiLU, nn.Tanh), _same),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Dropout), _same),
    **dict.fromkeys((nn.SinusoidalPositions, nn.RotaryPositions), _same),
    **dict.fromkeys((nn.MaxPool, nn.AvgPool), _behind_batch),
    **dict.fromkeys((nn.GlobalAvgPool, nn.GlobalMaxPool), _one_of_image),
    nn.Flatten: _flattened,
    nn.ByteReader: lambda _order: _SEQUENCE,
}


class _Reader(NamedTuple):
    """A kind of layer with an array for the features that it reads.

    Attributes
    ----------
    widths : callable
        From the layer to the numbers of features that go in and come out.
    arrays : tuple of str
        The arrays that have an element or a row for each feature that goes in. None where a change of their
        order would not do.
    """

    widths: Callable[[Any], tuple[int, int]]
    arrays: tuple[str, ...] = ()


def _normalization(*arrays: str) -> _Reader:
    return _Reader(lambda layer: (layer.weight.shape[0],) * 2, arrays)


def _of_recurrent(layer: Any) -> tuple[int, int]:
    directions = 1 if layer.backward is None else 2
    return layer.input.weight.shape[0], directions * layer.recurrent.weight.shape[0]


_READERS: dict[type, _Reader] = {
    nn.Dense: _Reader(lambda layer: layer.weight.shape, ("weight",)),
    nn.BatchNorm: _normalization("weight", "bias", "running_mean", "running_variance"),
    nn.LayerNorm: _normalization("weight", "bias"),
    nn.RMSNorm: _normalization("weight"),
    nn.GroupNorm: _normalization(),
    **dict.fromkeys((nn.LSTM, nn.GRU), _Reader(_of_recurrent, ("input.weight", "backward.input.weight"))),
    nn.MultiHeadAttention: _Reader(lambda layer: layer.query.weight.shape),
    nn.TransformerBlock: _Reader(lambda layer: layer.attention.query.weight.shape),
}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
_NORMALIZATIONS = (nn.BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_CONTAINERS = (nn.Sequential, nn.Residual, nn.Concatenate)
_WITH_ARRAYS = (nn.Dense, nn.Embedding, *_NORMALIZATIONS, *_CONVOLUTIONS)
_KINDS = (*_FORMS, *_READERS, *_WITH_ARRAYS, *_CONTAINERS)
# A network without any of these gets the arrays that it gets in PyTorch.
_OF_IMAGES = (*_CONVOLUTIONS, nn.MaxPool, nn.AvgPool, nn.GlobalAvgPool, nn.GlobalMaxPool)


def flattened_channels(net: Any, said: Mapping[str, int]) -> dict[str, int]:
    """Find the arrays that belong to the features of a flattened image.

    Parameters
    ----------
    net : Module
    said : mapping of str to int
        The ``channels`` of `load_torch`.

    Returns
    -------
    dict of str to int
        From the names of arrays, whose first axis these features are, to the number of channels.

    Raises
    ------
    TypeError
        If ``said`` is no mapping.
    ValueError
        If it is not known of all layers, or ``said`` does not fit the network.
    """
    if not isinstance(said, Mapping):
        raise TypeError(f'channels must be a mapping such as {{"fc1": 64}}, received {said!r}.')
    modules = dict(tree.named_branches(net))
    for name, channels in said.items():
        if name not in modules:
            raise ValueError(
                f"channels must name layers of the network, received {name!r}. The names are "
                f"{', '.join(filter(None, modules))}."
            )
        if not (is_integer(channels) and channels >= 1):
            raise ValueError(
                f"channels must be positive integers, received {channels!r} for {name!r}. Say how many "
                "channels the image has that is flattened in front of the layer, or 1 where none is."
            )
    walk = _Walk(said)
    of_images = any(isinstance(module, _OF_IMAGES) for module in modules.values())
    order = walk.follow(net, "", _Order() if of_images else _SEQUENCE)
    if order.channels not in (1, None) and "" not in said:
        walk.unknown.append(
            f"what comes out, a flattened image of {order.channels} channels, may stand in another order"
        )
    if walk.unknown and (of_images or any(isinstance(module, nn.Flatten) for module in modules.values())):
        raise ValueError(
            f"it cannot be told whether {', and whether '.join(walk.unknown)}. PyTorch has images in the "
            "order (channels, height, width), which must be brought into the order (height, width, "
            'channels). Say channels={"fc1": 64} for a layer fc1 behind a flattened image of 64 channels, '
            'and channels={"fc1": 1} where none is flattened, or where the network itself has it in '
            'PyTorch\'s order. channels={"": 1} says this of all layers of which it cannot be told.'
        )
    for name, channels in said.items():
        if channels != 1 and name not in walk.readers:
            raise ValueError(
                f"channels must name dense layers, normalizations, LSTM or GRU, received {name!r} with an "
                f"image of {channels} channels. Name the layer that reads it, or say 1 where none does."
            )
    return walk.arrays


class _Walk:
    """Follow the features through a network.

    Attributes
    ----------
    arrays : dict of str to int
        The arrays that belong to the features of a flattened image, and its number of channels.
    readers : set of str
        The layers that may read one.
    unknown : list of str
        What cannot be told.
    """

    def __init__(self, said: Mapping[str, int]) -> None:
        self.said = said
        self.arrays: dict[str, int] = {}
        self.readers: set[str] = set()
        self.unknown: list[str] = []

    def follow(self, module: Any, name: str, order: _Order) -> _Order:
        """Return the order of what comes out of a part of the network."""
        kind = next((kind for kind in type(module).__mro__ if kind in _KINDS), None)
        if kind is not None and type(module).__call__ is kind.__call__:
            return self._known(kind, module, name, order)
        # Code of the user's: its layers are taken to stand one behind the other, with other code between.
        if (
            kind is None
            and order.channels not in (1, None)
            and any(map(tree.is_array, vars(module).values()))
            and not self._said_around(name)
        ):
            self.unknown.append(f"{name} reads a flattened image with arrays of its own")
        order = _behind_code(order)
        if kind in _WITH_ARRAYS:
            order = _behind_code(self._known(kind, module, name, order))
        for part in _parts(module, name):
            order = _behind_code(self.follow(*part, order))
        return order

    def _known(self, kind: Any, module: Any, name: str, order: _Order) -> _Order:
        if kind in _FORMS:
            return _FORMS[kind](order)
        if kind in _READERS:
            return self._reader(kind, module, name, order)
        if kind in _CONVOLUTIONS:
            return self._convolution(module, order)
        if kind is nn.Embedding:
            return _SEQUENCE._replace(widths=(module.weight.shape[1],))
        if kind is nn.Residual:
            insides = {"inner": module.inner, "shortcut": module.shortcut}
            return self._joined(module, name, [self.follow(*part, order) for part in _parts(insides, name)])
        layers = _parts(module.layers, _within(name, "layers"))
        if kind is nn.Concatenate:
            return self._joined(module, name, [self.follow(*part, order) for part in layers])
        for part in layers:
            order = self.follow(*part, order)
        return order

    def _reader(self, kind: Any, layer: Any, name: str, order: _Order) -> _Order:
        reader = _READERS[kind]
        inputs, outputs = reader.widths(layer)
        channels = self._channels(name, inputs, order)
        if channels != 1:
            if inputs % channels:
                raise ValueError(
                    f"{_called(name)} reads {inputs} features, which are no flattened image of {channels} "
                    f"channels. Say channels={{{name!r}: …}} with the number of its channels, a divisor of "
                    f"{inputs}, or 1 where no image is flattened."
                )
            if not reader.arrays:
                raise ValueError(
                    f"{_called(name)}, {kind.__name__}, reads a flattened image of {channels} channels in "
                    "another order than in PyTorch, and no order of its arrays makes up for that. Bring the "
                    "image into PyTorch's order, (batch, channels, height, width), before it is flattened, "
                    f"and say channels={{{name!r}: 1}}."
                )
            self.arrays.update({_within(name, array): channels for array in reader.arrays})
        if reader.arrays:
            self.readers.add(name)
        if kind in _NORMALIZATIONS:
            if channels != 1:
                return order._replace(channels=channels, image=_LAST, widths=())
            order = order._replace(channels=1, widths=(inputs,))
            return _behind_batch(order, inputs) if kind in (nn.BatchNorm, nn.GroupNorm) else _last(order)
        if kind is not nn.Dense:
            return _SEQUENCE._replace(widths=(outputs,))
        # Another layer may read what this one reads: the parts of attention, say. If it reads fewer features
        # than come out of this one, it does not read these flattened.
        widths = (outputs, inputs) if channels == 1 and inputs < outputs else (outputs,)
        return _last(_Order(1, order.image, widths, (name, outputs)))

    def _channels(self, name: str, inputs: int, order: _Order) -> int:
        """Return how many channels the flattened image has that a layer reads, 1 if none."""
        if name in self.said:
            return int(self.said[name])
        if order.channels is not None:
            return 1 if order.channels == inputs else order.channels
        if inputs not in order.widths and not self._said_around(name):
            self.unknown.append(f"{_called(name)} reads a flattened image with its {inputs} inputs")
        return 1

    def _said_around(self, name: str) -> bool:
        """Say whether the layer, or a module around it, is said to read features in PyTorch's order."""
        parts = name.split(".")
        return any(".".join(parts[:end]) in self.said for end in range(len(parts) + 1))

    def _convolution(self, layer: Any, order: _Order) -> _Order:
        *_, width, outputs = layer.weight.shape
        inputs = width * layer.groups
        if order.channels is None and order.maker is not None:
            name, made = order.maker
            if made != inputs and not self._said_around(name):
                self.unknown.append(
                    f"the {made} outputs of {name} become an image (these stay in PyTorch's order: reshape "
                    "them to (batch, channels, height, width), and move the channels to the end)"
                )
        return _Order(1, outputs, (outputs,))

    def _joined(self, module: Any, name: str, ways: list[_Order]) -> _Order:
        """Return the order of features that a `Residual` adds, or a `Concatenate` joins."""
        channels, images = {way.channels for way in ways}, [way.image for way in ways]
        added = isinstance(module, nn.Residual)
        if len(channels - {None}) > 1 or (not added and channels - {1, None}):
            raise ValueError(
                f"{_called(name)} {'adds' if added else 'joins'} a flattened image and other features, in "
                "another order than PyTorch. Bring the image into PyTorch's order, (batch, channels, height, "
                "width), before it is flattened."
            )
        maker = next((way.maker for way in ways if way.maker is not None), None)
        same = channels.pop() if len(channels) == 1 else None
        if added:
            widths = tuple(width for width in ways[0].widths if all(width in way.widths for way in ways))
            # What is added has the same axes in PyTorch, too, so that one says it of both.
            known = set(images) - {None}
            return _Order(same, known.pop() if same == 1 and len(known) == 1 else None, widths, maker)
        if module.axis != -1:
            return _Order(None, None, (), maker)
        widths = (sum(way.widths[0] for way in ways),) if all(way.widths for way in ways) else ()
        return _Order(same, sum(image or 0 for image in images) if all(images) else None, widths, maker)


def _called(name: str) -> str:
    return name or "the network"


def _within(name: str, attribute: str) -> str:
    return f"{name}.{attribute}" if name else attribute


def _parts(value: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Yield the modules in a module, list or dict that are in no other in it, with their names."""
    before = ""
    for place, part in tree.named_branches(value, name):
        if part is not value and not (before and place.startswith(f"{before}.")):
            before = place
            yield part, place


def reordered(x: numpy.ndarray, channels: int) -> numpy.ndarray:
    """Bring the first axis from the order (channels, places) into the order (places, channels)."""
    if x.ndim == 0 or len(x) % channels:  # another shape than the layer's, which is refused
        return x
    return x.reshape(channels, len(x) // channels, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
