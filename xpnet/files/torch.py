"""The parameters of PyTorch networks, in networks of xpnet, and the other way."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import Device, device_of, to_numpy
from xpnet.files.fitting import Misfit, checked_names, explained, misfits
from xpnet.files.flattened import flattened_channels, reordered
from xpnet.files.layouts import Match, matches
from xpnet.files.pickled import is_pickled, unpickle
from xpnet.files.tensors import Tensor, dtype_name, pack, unpack
from xpnet.writing import replace

# The ends of names that stand for files of `torch.save`.
_OF_TORCH_SAVE = (".pt", ".pth", ".bin")


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
        A file that ``torch.save(torch_net.state_dict(), path)`` wrote, in the format of PyTorch 1.6 and
        newer, or ``safetensors.torch.save_file(torch_net.state_dict(), path)``. PyTorch need not be
        installed, and no code is run from the file. Of a checkpoint, the one value is taken that is a dict
        of tensors.
    into : Module
        The network, whose parameters are replaced, and the running statistics of `nn.BatchNorm`. Layers lay
        out their arrays here in another way than there (PyTorch's dense weights have the shape
        (out_features, in_features), and its attention has three layers in one array), which is changed on
        the way. Known are `nn.Dense`, `nn.Conv1d`, `nn.Conv2d`, `nn.ConvTranspose2d`, `nn.LSTM` and `nn.GRU`
        of any number of layers and directions, `nn.MultiHeadAttention`, and all layers whose arrays are the
        same, such as `nn.Embedding` and the normalizations.
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
    normalizations (that of RMSNorm has another default there). PyTorch's GELU is `nn.GELU` with
    ``approximate=False``, and that with ``approximate="tanh"`` is the default. `nn.AvgPool` is that with
    ``count_include_pad=False``, and `nn.MultiHeadAttention` that without ``add_zero_attn``. LSTM and GRU that
    have no biases there, with ``bias=False``, have biases of 0 here.

    `nn.TransformerBlock` is PyTorch's TransformerEncoderLayer with ``norm_first=True`` and the same
    activation. That with ``norm_first=False``, the default there, has the same arrays and no counterpart. Its
    layers have other names: ``names={"attention_norm": "norm1", "attention": "self_attn", "dense_norm":
    "norm2", "expand": "linear1", "contract": "linear2"}``, with the place of the block in front of each.

    Numbers get the dtype of the network where that holds them all: float16 and bfloat16 become float32.
    Nothing is rounded. For a network of a narrower dtype, convert there: ``torch_net.half().state_dict()``.

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
        If ``path`` is no path, or ``channels`` or ``names`` no mapping.
    ValueError
        If the file cannot be read or would run code, or has no array for a parameter, one more, or one of
        another shape, or of a dtype with numbers that the network's does not have; if ``names`` or
        ``channels`` does not fit the network, or ``channels`` lacks a layer that may read a flattened image.
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
    file = _read(path)
    names = checked_names(names, into)
    leaves, structure = tree.flatten(into, state=True)
    old = dict(zip(tree.paths(into, state=True), leaves, strict=True))
    fitting = _fitting(path, file, into, names, old)
    flattened = flattened_channels(into, {} if channels is None else channels)
    new: dict[str, Any] = {}
    for match in fitting:
        dtype = dtype_name(old[match.here[0]])
        made = match.load(_in_dtype(file[there], dtype) for there in match.there)
        for name, values in zip(match.here, made, strict=True):
            target = device_of(old[name]) if device is None else device
            # An array of its own, of which the file holds nothing.
            values = numpy.array(reordered(values, flattened.get(name, 1)), order="C")
            new[name] = Tensor(values, dtype).on(target)
    tree.assign(tree.unflatten(structure, [new.get(name, x) for name, x in old.items()]), into)
    return into


def save_torch(
    net: Any,
    path: str | os.PathLike[str],
    *,
    names: Mapping[str, str] | None = None,
    channels: Mapping[str, int] | None = None,
) -> None:
    """Write the parameters of a network to a file from which PyTorch reads them.

    ``torch_net.load_state_dict(safetensors.torch.load_file(path))`` reads them into a network of PyTorch's of
    the same structure. This is the inverse of `load_torch`, which reads the file, too, and gives the same
    numbers, bit for bit.

    Parameters
    ----------
    net : Module
        The network, on any library and device. It is not changed. Layers are those that `load_torch` knows.
        What is frozen is written like all else.
    path : path
        The file, in the safetensors format, such as ``"out.safetensors"``: no name that stands for a file of
        ``torch.save``, with the end ``.pt``, ``.pth`` or ``.bin``. It is written as `save` does.
    names : mapping of str to str, optional
        From the names of layers here to their names there, as of `load_torch`.
    channels : mapping of str to int, optional
        From the names of layers to the channels of the image that is flattened in front of them, as of
        `load_torch`.

    Raises
    ------
    TypeError
        If ``channels`` or ``names`` is no mapping, or an array has a dtype that the format has not.
    ValueError
        If ``path`` has the end ``.pt``, ``.pth`` or ``.bin``, ``names`` or ``channels`` does not fit the
        network, two arrays would have the same name there, or
        ``channels`` lacks a layer that may read a flattened image. Nothing is written then.
    OSError
        If the file cannot be written.

    Notes
    -----
    Settings are not in the file: see the notes of `load_torch`. The state of `nn.Dropout`, which PyTorch does
    not have, is left out, and ``num_batches_tracked`` of its batch normalization, which xpnet does not have,
    is 0. Of the two biases of PyTorch's LSTM, the second is 0. It must have biases there. Attention is one
    layer there, with three in one array; where ``names`` names its parts, ``{"attention.query": "q_proj"}``,
    they are layers of their own.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.numpy import load_file
    >>> import xpnet
    >>> net = xpnet.nn.Sequential(xpnet.nn.Dense(2, 3, seed=0))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = f"{directory}/torch.safetensors"
    ...     xpnet.save_torch(net, path, names={"layers.0": "fc1"})
    ...     {name: x.shape for name, x in load_file(path).items()}
    {'fc1.bias': (3,), 'fc1.weight': (3, 2)}
    """
    if (file_name := Path(path)).suffix.lower() in _OF_TORCH_SAVE:
        other = str(file_name.with_suffix(".safetensors"))
        raise ValueError(
            "path must not have the name of a file that torch.load reads, as this is one of safetensors, "
            f"received {path}. Write {other}, which PyTorch reads with "
            f'torch_net.load_state_dict(safetensors.torch.load_file("{other}")).'
        )
    names = checked_names(names, net)
    flattened = flattened_channels(net, {} if channels is None else channels)
    arrays = dict(zip(tree.paths(net, state=True), tree.leaves(net, state=True), strict=True))
    file: dict[str, Tensor] = {}
    written: dict[str, str] = {}
    for match in matches(net, names):
        if written.keys() & set(match.here) or _is_named_inside(match, names):
            continue
        given = []
        for name in match.here:
            written[name] = match.place
            x = to_numpy(arrays[name])
            given.append(reordered(x, len(x) // flattened[name]) if name in flattened else x)
        dtype = dtype_name(arrays[match.here[0]]) if match.here else "int64"
        for there, values in zip(match.there, match.save(given), strict=True):
            if there in file:
                raise ValueError(
                    f"each array must have a name of its own there, received {there} for two, one of them "
                    f"in {match.place or 'the network'}. Give their layers other names={{...}}."
                )
            file[there] = Tensor(values, dtype)
    replace(path, pack(file, {"format": "pt"}))


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path must be that of a file, received {type(path).__name__}. In PyTorch, write one, "
            'torch.save(torch_net.state_dict(), "weights.pt").'
        )
    content = Path(path).read_bytes()
    return unpickle(content, path) if is_pickled(content) else unpack(content, path)[0]


def _fitting(
    path: Any, file: Mapping[str, Tensor], net: Any, names: Mapping[str, str], arrays: Mapping[str, Any]
) -> list[Match]:
    """Return what the arrays of a network are in a file, after a check that all fit."""
    fitting: list[Match] = []
    likeliest: dict[str, Match] = {}
    found: set[str] = set()
    used: set[str] = set()
    wrong: list[Misfit] = []
    for match in matches(net, names):
        for name in match.here:
            likeliest.setdefault(name, match)
        if not file.keys() >= set(match.there) or found & set(match.here):
            continue
        used.update(match.there)
        if match.here:
            found.update(match.here)
            fitting.append(match)
            wrong += misfits(match, arrays, [file[there] for there in match.there])
    unused = [name for name in file if name not in used]
    left = {name: likeliest[name] for name in arrays if name not in found}
    parameters = tree.paths(net, frozen=True)  # state of a module of one's own need not be there
    missing = dict.fromkeys(m for name, m in left.items() if m.layer is not None or name in parameters)
    if missing or unused or wrong:
        raise ValueError(explained(path, arrays, file, missing, unused, wrong))
    return fitting


def _in_dtype(x: Tensor, dtype: str) -> Any:
    """Return the values of an array in a dtype that holds them; bfloat16 is float32 in NumPy."""
    return x.values if dtype == "bfloat16" else x.values.astype(dtype, copy=False)


def _is_named_inside(match: Match, names: Mapping[str, str]) -> bool:
    """Say whether a part of the layer has a name of its own, with the array in it."""
    inside = f"{match.place}." if match.place else ""
    return any(
        name != match.place and name.startswith(inside) and array.startswith(f"{name}.")
        for name in names
        for array in match.here
    )
