"""How PyTorch names and lays out the arrays of a network, in both directions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy

from xpnet import nn, tree
from xpnet.backends import to_numpy

# Takes the layer and some arrays, and returns others.
_Change: TypeAlias = Callable[..., Iterable[numpy.ndarray]]


class _Layout(NamedTuple):
    """Arrays of a layer here, and those of PyTorch that say the same.

    Attributes
    ----------
    here, there : tuple of str
        Their names in the layer.
    load : callable
        Makes those here of those there.
    save : callable
        Makes those there of those here.
    """

    here: tuple[str, ...]
    there: tuple[str, ...]
    load: _Change
    save: _Change


class Match(NamedTuple):
    """A `_Layout` of one layer of a network, with the names that the arrays have in the whole network.

    Attributes
    ----------
    place : str
        The name of the layer.
    layer : Module or None
        None where an array is copied as it is, as nothing is known of the layer.
    layout : _Layout
    here, there : tuple of str
    """

    place: str
    layer: Any
    layout: _Layout
    here: tuple[str, ...]
    there: tuple[str, ...]

    def load(self, arrays: Iterable[numpy.ndarray]) -> list[numpy.ndarray]:
        """Make the arrays here of those of PyTorch."""
        return [*self.layout.load(self.layer, *arrays)]

    def save(self, arrays: Iterable[numpy.ndarray]) -> list[numpy.ndarray]:
        """Make the arrays of PyTorch of those here."""
        return [*self.layout.save(self.layer, *arrays)]


def _same(_layer: Any, *arrays: numpy.ndarray) -> Iterable[numpy.ndarray]:
    return arrays


def _copy(here: str, there: str) -> _Layout:
    return _Layout((here,), (there,), _same, _same)


def _inputs_first(x: numpy.ndarray) -> numpy.ndarray:
    """Turn a weight of shape (out, in, ...) into one of shape (..., in, out)."""
    return x.transpose(*range(2, x.ndim), 1, 0) if x.ndim > 1 else x


def _outputs_first(x: numpy.ndarray) -> numpy.ndarray:
    """Turn a weight of shape (..., in, out) into one of shape (out, in, ...)."""
    return x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)) if x.ndim > 1 else x


def _weight(here: str = "weight", there: str = "weight") -> _Layout:
    return _Layout(
        (here,), (there,), lambda _layer, x: (_inputs_first(x),), lambda _layer, x: (_outputs_first(x),)
    )


def _from_transposed(layer: Any, x: numpy.ndarray) -> Iterable[numpy.ndarray]:
    """Turn a weight of shape (in, out / groups, ...) into one of shape (..., in / groups, out)."""
    parts = numpy.split(x, layer.groups)
    yield numpy.concatenate([part.transpose(*range(2, x.ndim), 0, 1) for part in parts], axis=-1)


def _to_transposed(layer: Any, x: numpy.ndarray) -> Iterable[numpy.ndarray]:
    """Turn a weight of shape (..., in / groups, out) into one of shape (in, out / groups, ...)."""
    parts = numpy.split(x, layer.groups, axis=-1)
    yield numpy.concatenate([part.transpose(x.ndim - 2, x.ndim - 1, *range(x.ndim - 2)) for part in parts])


def _stacked(here: tuple[str, ...], there: str) -> _Layout:
    """Return how several layers stand in one array."""
    return _Layout(
        here,
        (there,),
        lambda _layer, x: map(_inputs_first, numpy.split(x, len(here))),
        lambda _layer, *arrays: (numpy.concatenate([*map(_outputs_first, arrays)]),),
    )


def _recurrent(layer: Any) -> Iterator[_Layout]:
    """Return the layouts of all layers and directions. The gates stand in the same order there."""
    number, below = 0, ""
    while layer is not None:
        for direction, there in (("", f"l{number}"), ("backward.", f"l{number}_reverse")):
            here = f"{below}{direction}"
            yield _weight(f"{here}input.weight", f"weight_ih_{there}")
            yield _weight(f"{here}recurrent.weight", f"weight_hh_{there}")
            yield from _biases(here, there, layer)
        number, below, layer = number + 1, f"{below}above.", layer.above


def _biases(here: str, there: str, layer: Any) -> Iterator[_Layout]:
    """Return the layouts of the biases of a recurrent layer, which has two there, or with bias=False none."""
    names = f"bias_ih_{there}", f"bias_hh_{there}"
    zeros = numpy.zeros(layer.input.weight.shape[-1], "float32")
    if layer.recurrent.bias is None:
        biases: tuple[str, ...] = (f"{here}input.bias",)
        # What is added to -0 stays as it is, also another -0.
        yield _Layout(
            biases, names, lambda _layer, x, y: (x + y,), lambda _layer, x: (x, numpy.full_like(x, -0.0))
        )
    else:
        biases = f"{here}input.bias", f"{here}recurrent.bias"
        yield _Layout(biases, names, _same, _same)
    yield _Layout(biases, (), lambda _layer: [zeros] * len(biases), _nothing)


def _nothing(_layer: Any, *_arrays: numpy.ndarray) -> Iterable[numpy.ndarray]:
    return ()


def _always(*layouts: _Layout) -> Callable[[Any], Iterable[_Layout]]:
    return lambda _layer: layouts


_WEIGHT = _always(_weight())
_PROJECTIONS = ("query", "key", "value")

# Where PyTorch lays out or names the arrays of a layer in another way, by the layer's class. Of two layouts
# of an array, the second is for files without the arrays of the first.
_LAYOUTS: dict[type, Callable[[Any], Iterable[_Layout]]] = {
    nn.Dense: _WEIGHT,
    nn.Conv1d: _WEIGHT,
    nn.Conv2d: _WEIGHT,
    nn.ConvTranspose2d: _always(_Layout(("weight",), ("weight",), _from_transposed, _to_transposed)),
    nn.BatchNorm: _always(
        _copy("running_mean", "running_mean"),
        _copy("running_variance", "running_var"),
        # What PyTorch counts, and no prediction depends on.
        _Layout((), ("num_batches_tracked",), _nothing, lambda _layer: (numpy.zeros((), "int64"),)),
    ),
    nn.Dropout: _always(
        _Layout(("random_state",), (), lambda layer: (to_numpy(layer.random_state),), _nothing)
    ),
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.MultiHeadAttention: _always(
        _stacked(tuple(f"{name}.weight" for name in _PROJECTIONS), "in_proj_weight"),
        _stacked(tuple(f"{name}.bias" for name in _PROJECTIONS), "in_proj_bias"),
        _weight("output.weight", "out_proj.weight"),
        _copy("output.bias", "out_proj.bias"),
    ),
}


def matches(net: Any, names: Mapping[str, str]) -> Iterator[Match]:
    """Yield what the arrays of a network may be in PyTorch, the likeliest first.

    What is known of a layer comes before what is known of the layers in it, and a plain copy last.

    Parameters
    ----------
    net : Module
    names : mapping of str to str
        From the names of layers here to those there.
    """
    modules = dict(tree.named_branches(net))
    arrays = tree.paths(net, state=True)
    known = set(arrays)
    for place, module in modules.items():
        kind = next((kind for kind in type(module).__mro__ if kind in _LAYOUTS), None)
        for layout in () if kind is None else _LAYOUTS[kind](module):
            here = tuple(f"{place}.{name}" if place else name for name in layout.here)
            if known.issuperset(here):  # a bias may be missing
                names_there = (_name_there(place, name, modules, names) for name in layout.there)
                yield Match(place, module, layout, here, tuple(names_there))
    for name in arrays:
        place, _, attribute = name.rpartition(".")
        name_there = _name_there(place, attribute, modules, names)
        yield Match(place, None, _copy(attribute, attribute), (name,), (name_there,))


def _name_there(module: str, attribute: str, modules: dict[str, Any], names: Mapping[str, str]) -> str:
    """Return the name that PyTorch gives to an array of a module."""
    parts = [names.get("", "")]
    place = ""
    for part in module.split(".") if module else []:
        # A network that holds nothing but its layers names them by their numbers.
        if not (part == "layers" and type(modules.get(place)) is nn.Sequential):
            parts.append(part)
        place = f"{place}.{part}" if place else part
        if place in names:
            parts = [names[place]]
    return ".".join(filter(None, [*parts, attribute]))
