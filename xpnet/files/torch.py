"""The parameters of PyTorch networks, in networks of xpnet."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy

from xpnet import nn, tree
from xpnet.backends import Device, device_of
from xpnet.files.flattened import flattened_channels, reordered
from xpnet.files.tensors import Tensor, kind, read


def _inputs_first(_layer: Any, x: numpy.ndarray) -> numpy.ndarray:
    """Turn a weight of shape (out, in, ...) into one of shape (..., in, out)."""
    return x.transpose(*range(2, x.ndim), 1, 0) if x.ndim > 1 else x


def _transposed(layer: Any, x: numpy.ndarray) -> numpy.ndarray:
    """Turn a weight of shape (in, out / groups, ...) into one of shape (..., in / groups, out)."""
    if x.ndim < 3 or len(x) % layer.groups:
        return x
    width = len(x) // layer.groups
    parts = [x[start : start + width] for start in range(0, len(x), width)]
    return numpy.concatenate([part.transpose(*range(2, x.ndim), 0, 1) for part in parts], axis=-1)


def _part(index: int) -> Callable[..., Any]:
    """Return how to take one of the three layers that stand in one array."""
    return lambda layer, x: _inputs_first(layer, numpy.array_split(numpy.atleast_1d(x), 3)[index])


def _same(_layer: Any, x: numpy.ndarray) -> numpy.ndarray:
    return x


def _sum(_layer: Any, *arrays: numpy.ndarray) -> numpy.ndarray:
    return sum(arrays[1:], arrays[0])


# What an array is made of: how, and the names of the arrays of PyTorch in the layer.
_Source = tuple[Callable[..., numpy.ndarray], tuple[str, ...]]

_INPUTS_FIRST: dict[str, _Source] = {"weight": (_inputs_first, ("weight",))}
_RECURRENT: dict[str, _Source] = {
    "input.weight": (_inputs_first, ("weight_ih_l0",)),
    "recurrent.weight": (_inputs_first, ("weight_hh_l0",)),
}

# Where PyTorch lays out or names the arrays of a layer in another way, by the layer's class.
_SOURCES: dict[type, dict[str, _Source]] = {
    nn.Dense: _INPUTS_FIRST,
    nn.Conv1d: _INPUTS_FIRST,
    nn.Conv2d: _INPUTS_FIRST,
    nn.ConvTranspose2d: {"weight": (_transposed, ("weight",))},
    nn.BatchNorm: {
        "running_mean": (_same, ("running_mean",)),
        "running_variance": (_same, ("running_var",)),
    },
    # The gates stand in the same order.
    nn.LSTM: {**_RECURRENT, "input.bias": (_sum, ("bias_ih_l0", "bias_hh_l0"))},
    nn.GRU: {
        **_RECURRENT,
        "input.bias": (_same, ("bias_ih_l0",)),
        "recurrent.bias": (_same, ("bias_hh_l0",)),
    },
    nn.MultiHeadAttention: {
        f"{layer}.{array}": (_part(index), (f"in_proj_{array}",))
        for index, layer in enumerate(("query", "key", "value"))
        for array in ("weight", "bias")
    }
    | {
        "output.weight": (_inputs_first, ("out_proj.weight",)),
        "output.bias": (_same, ("out_proj.bias",)),
    },
}

# What PyTorch counts, and no prediction depends on.
_UNUSED = "num_batches_tracked"


def load_torch(
    path: str | os.PathLike[str],
    *,
    into: Any,
    names: Mapping[str, str] | None = None,
    channels: Mapping[str, int] | None = None,
    device: str | Device | None = None,
) -> Any:
    """Read the parameters of a PyTorch network into a network of the same structure.

    Parameters
    ----------
    path : path
        A safetensors file that ``safetensors.torch.save_file(torch_net.state_dict(), path)`` wrote.
    into : Module
        The network, whose parameters are replaced, and the running statistics of `nn.BatchNorm`. Layers lay
        out their arrays here in another way than there (PyTorch's dense weights have the shape
        (out_features, in_features), and its attention has three layers in one array), which is changed on
        the way. Known are `nn.Dense`, `nn.Conv1d`, `nn.Conv2d`, `nn.ConvTranspose2d`, `nn.LSTM` and `nn.GRU`
        of one layer and direction, `nn.MultiHeadAttention`, and all layers whose arrays are the same, such
        as `nn.Embedding` and the normalizations.
    names : mapping of str to str, optional
        From the names of layers here to their names there, such as ``{"layers.0": "fc1"}``. What is not in
        it has the same name there, and the layers of a `Sequential`, here ``layers.0``, are there ``0``.
    channels : mapping of str to int, optional
        From the names of layers here to the number of channels of the image that is flattened in front of
        them, such as ``{"fc1": 64}``, or 1 where none is. Needed where the network does not show it: see the
        notes.
    device : str, Device or None
        Where the parameters go. None leaves each where it is.

    Returns
    -------
    Module
        ``into``. State that PyTorch does not have, such as the random state of `nn.Dropout`, stays.

    Notes
    -----
    Settings are not in the file: padding, strides, groups, causal attention, momentum and epsilon of
    normalizations (that of RMSNorm has another default there). `nn.GELU` is PyTorch's with
    ``approximate="tanh"``, `nn.AvgPool` with ``count_include_pad=False``, `nn.MultiHeadAttention` without
    ``add_zero_attn``, and `nn.TransformerBlock` its TransformerEncoderLayer with ``norm_first=True`` and this
    GELU.

    Images are (batch, channels, height, width) there and (batch, height, width, channels) here, so that a
    layer behind a flattened image has its inputs in another order, into which they are brought. In a
    `Sequential`, with `Residual` and `Concatenate` in it, the layers in front say how many channels the image
    has. It is not known of what is flattened before any of them, or by code of your own, a ``__call__`` or a
    `Lambda`, which is not read. So a layer that stands behind such code must have as many inputs as the layer
    before it has outputs, or be named in ``channels``. A network without convolutions and pooling is taken to
    get the very arrays that it gets in PyTorch.
    Layers are taken in the order in which a module holds them. Arrays that modules of your own hold are
    copied as they are.

    In ``channels={"fc1": 64, "": 1}``, the name of a module, or ``""`` for the network, with 1 stands for all
    layers in it of which it is not known. 1 is also right where your code brings an image into PyTorch's
    order before it is flattened. The outputs of a dense layer that become an image stay in PyTorch's order:
    reshape them to (batch, channels, height, width), and move the channels to the end.

    Raises
    ------
    TypeError
        If ``channels`` is no mapping.
    ValueError
        If the file cannot be read, or has no array for a parameter, one more, or one of another shape or
        dtype; if ``channels`` does not fit the network, or lacks a layer that may read a flattened image.
        Nothing is changed then.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> import xpnet
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = f"{directory}/torch.safetensors"
    ...     save_file({"fc.weight": np.asarray([[1.0, 2.0]], dtype="float32")}, path)
    ...     net = xpnet.nn.Dense(2, 1, bias=False)
    ...     xpnet.load_torch(path, into=net, names={"": "fc"}).weight
    array([[1.],
           [2.]], dtype=float32)
    """
    arrays, _ = read(path)
    flattened = flattened_channels(into, {} if channels is None else channels)
    modules = dict(tree.named_branches(into))
    trained = set(tree.paths(into, frozen=True))
    leaves, structure = tree.flatten(into, state=True)
    used = {name for name in arrays if name.rpartition(".")[2] == _UNUSED}
    for index, (name, old) in enumerate(zip(tree.paths(into, state=True), leaves, strict=True)):
        sources = list(_sources(name, modules, names or {}))
        found = next((source for source in sources if arrays.keys() >= set(source[1])), None)
        if found is None and name not in trained and len(sources) == 1:
            continue  # state that PyTorch does not have
        if found is None:
            missing = [there for there in sources[0][1] if there not in arrays]
            raise ValueError(
                f"{path} has no array {missing[0]} for {name}, but {', '.join(sorted(arrays))}. Say the "
                'names of layers there with names={"layers.0": "fc1"}.'
            )
        layer, places, make = found
        used.update(places)
        given = [arrays[there] for there in places]
        alike = len({x.kind for x in given}) == 1
        if alike:
            values = reordered(make(layer, *(x.values for x in given)), flattened.get(name, 1))
            new = Tensor(values, given[0].dtype)
            leaves[index] = new.on(device_of(old) if device is None else device)
        if not alike or kind(leaves[index]) != kind(old):
            raise ValueError(
                f"the network must fit the file {path}: {name} is {kind(old)}, {', '.join(places)} in the "
                f"file is {', '.join(x.kind for x in given)}."
            )
    if arrays.keys() - used:
        raise ValueError(
            f"the network must fit the file {path}, which has {', '.join(sorted(arrays.keys() - used))} "
            "besides. Give the network the layers that use them."
        )
    tree.assign(tree.unflatten(structure, leaves), into)
    return into


def _sources(
    name: str, modules: dict[str, Any], names: Mapping[str, str]
) -> Iterator[tuple[Any, list[str], Callable[..., numpy.ndarray]]]:
    """Yield what an array may be made of: its layer, the names there, and how.

    What is known of a layer comes before what is known of the layers in it, and a plain copy last.
    """
    parts = name.split(".")
    for end in range(len(parts)):
        module, attribute = ".".join(parts[:end]), ".".join(parts[end:])
        kinds = type(modules.get(module)).__mro__
        source = next((_SOURCES[kind] for kind in kinds if kind in _SOURCES), {}).get(attribute)
        if source is not None:
            make, known = source
            yield modules[module], [_name_there(module, there, modules, names) for there in known], make
    module, _, attribute = name.rpartition(".")
    yield modules.get(module), [_name_there(module, attribute, modules, names)], _same


def _name_there(module: str, attribute: str, modules: dict[str, Any], names: Mapping[str, str]) -> str:
    """Return the name that PyTorch gives to an array of a module."""
    parts = [names[""]] if names.get("") else []
    place = ""
    for part in module.split(".") if module else []:
        # A network that holds nothing but its layers names them by their numbers.
        if not (part == "layers" and type(modules.get(place)) is nn.Sequential):
            parts.append(part)
        place = f"{place}.{part}" if place else part
        if place in names:
            parts = [names[place]]
    return ".".join([*parts, attribute])
