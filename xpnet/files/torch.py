"""The parameters of PyTorch networks, in networks of xpnet."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from xpnet import nn, tree
from xpnet.backends import Device, device_of
from xpnet.files.tensors import Tensor, kind, read


def _inputs_first(x: numpy.ndarray) -> numpy.ndarray:
    """Turn a weight of shape (out, in, ...) into one of shape (..., in, out)."""
    return x.transpose(*range(2, x.ndim), 1, 0)


# Where PyTorch lays out the arrays of a layer in another way, by the layer's class and the array's name.
_LAYOUTS: dict[tuple[type, str], Callable[[numpy.ndarray], numpy.ndarray]] = {
    (nn.Dense, "weight"): _inputs_first,
}


def load_torch(
    path: str | os.PathLike,
    *,
    into: Any,
    names: Mapping[str, str] | None = None,
    device: str | Device | None = None,
) -> Any:
    """Read the parameters of a PyTorch network into a network of the same structure.

    Parameters
    ----------
    path : path
        A safetensors file that ``safetensors.torch.save_file(torch_net.state_dict(), path)`` wrote.
    into : Module
        The network, whose parameters are replaced. Dense weights are transposed on the way: PyTorch's have
        the shape (out_features, in_features).
    names : mapping of str to str, optional
        From the names of layers here to their names there, such as ``{"layers.0": "fc1"}``. What is not in
        it has the same name there, and the layers of a `Sequential`, here ``layers.0``, are there ``0``.
    device : str, Device or None
        Where the parameters go. None leaves each where it is.

    Returns
    -------
    Module
        ``into``. State that PyTorch does not have, such as the random state of `nn.Dropout`, stays.

    Raises
    ------
    ValueError
        If the file cannot be read, or has no array for a parameter, one more, or one of another shape or
        dtype. Nothing is changed then.

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
    modules = dict(tree.named_branches(into))
    new: dict[str, Any] = {}
    used = set()
    for name, old in zip(tree.paths(into), tree.leaves(into), strict=True):
        module, _, attribute = name.rpartition(".")
        there = _name_there(module, attribute, modules, names or {})
        if there not in arrays:
            raise ValueError(
                f"{path} has no array {there} for {name}, but {', '.join(sorted(arrays))}. Say the names of "
                'layers there with names={"layers.0": "fc1"}.'
            )
        used.add(there)
        found = arrays[there]
        layout = _LAYOUTS.get((type(modules.get(module)), attribute))
        if layout is not None and found.values.ndim >= 2:
            found = Tensor(layout(found.values), found.dtype)
        new[name] = found.on(device_of(old) if device is None else device)
        if kind(new[name]) != kind(old):
            raise ValueError(
                f"the network must fit the file {path}: {name} is {kind(old)}, {there} in the file is "
                f"{arrays[there].kind}."
            )
    if arrays.keys() - used:
        raise ValueError(
            f"the network must fit the file {path}, which has {', '.join(sorted(arrays.keys() - used))} "
            "besides. Give the network the layers that use them."
        )
    structure = tree.flatten(into)[1]
    tree.assign(tree.unflatten(structure, list(new.values())), into)
    return into


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
