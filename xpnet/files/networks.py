"""Networks and other trees as files: the arrays and a description of the rest in one safetensors file.

Reading a file runs no code from it: see `xpnet.files.description`.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from xpnet import tree
from xpnet.backends import Device, device, device_of
from xpnet.files.description import build, describe, names_of_arrays
from xpnet.files.tensors import Tensor, kind, pack, unpack
from xpnet.tree import Tree
from xpnet.writing import replace

_VERSION = 1

_device = device  # some of these functions have a parameter of that name


def save(net: Tree, path: str | os.PathLike[str]) -> None:
    """Write a network, or any tree, to a safetensors file.

    Parameters
    ----------
    net : Module or tree
        The network, or the state of an optimizer, or any dict, list or tuple of arrays and modules, on any
        library and device. It is not changed.
    path : path
        The file. It is written beside its place, flushed to disk and then moved there, so that an
        interruption leaves an older file whole. One network gives one file, byte for byte, from every
        library and device.

    Raises
    ------
    TypeError
        If a leaf or an attribute of a module is neither an array nor a number, string, bool, None, function,
        or container of those, so that it cannot be described; or if its dtype is complex128.
    ValueError
        If what is written could not be read again: two arrays have the same name, as a dict has a key with a
        dot in it; a key is ``"__metadata__"`` or half a character; something is nested more than 100 times;
        an attribute hides a method of a layer.
    OSError
        If the file cannot be written: the disk is full, or the directory is not yours to write to.

    Notes
    -----
    Modules of one's own are saved, too, and so are named tuples and other containers of one's own; `load`
    needs ``into=`` for them. Optimizers, schedules and losses of xpnet's come back as they are.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import xpnet
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     xpnet.save({"scale": np.asarray([1.0, 2.0]), "steps": 3}, f"{directory}/scale.safetensors")
    ...     xpnet.load(f"{directory}/scale.safetensors")
    {'scale': array([1., 2.]), 'steps': 3}
    """
    write_parts(path, {"net": net})


def load(path: str | os.PathLike[str], *, device: str | Device | None = None, into: Any = None) -> Any:
    """Read a network, or any tree, from a file that `save` or `xpnet.callbacks.Checkpoint` wrote.

    Parameters
    ----------
    path : path
        The file.
    device : str, Device or None
        Where the arrays go. None is the current device, or that of ``into``.
    into : Module or tree, optional
        A network of the same structure, whose arrays are replaced. Needed for networks with modules or
        functions of one's own, since no code is read from the file.

    Returns
    -------
    Module or tree
        What was saved; ``into`` if that is a module, else a tree like ``into``. Arrays of bfloat16 become
        float32 on a library that has no bfloat16.

    Raises
    ------
    ValueError
        If the file is no file of `save`, is damaged, needs ``into``, or does not fit it. Nothing is changed
        then.
    ImportError
        If it holds a network that came from ONNX, and the package onnx is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import xpnet
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     xpnet.save(xpnet.nn.Dense(2, 3), f"{directory}/net.safetensors")
    ...     net = xpnet.load(f"{directory}/net.safetensors", device="cpu")
    >>> net
    Dense(weight: float32 (2, 3), bias: float32 (3,))
    """
    return read_parts(path).load("net", device=device, into=into)


def write_parts(path: str | os.PathLike[str], parts: dict[str, Any]) -> None:
    """Write several trees to one file, of which `load` reads the one named "net"."""
    replace(path, pack_parts(parts))


def pack_parts(parts: dict[str, Any]) -> list[Any]:
    """Return the content of the file that `write_parts` writes, in pieces of bytes."""
    arrays: dict[str, Any] = {}
    described = {  # the settings of an estimator may be numbers of NumPy's
        name: describe(part, _root(name), arrays, scalars=name == "estimator") for name, part in parts.items()
    }
    return pack(arrays, {"xpnet": json.dumps({"version": _VERSION, **described}, allow_nan=False)})


def _root(part: str) -> str:
    """Return what the names of a part's arrays begin with; those of a network are as other programs want."""
    return "" if part == "net" else f"{part}/"


class Parts:
    """What is in a file: trees by name.

    Attributes
    ----------
    path : path
        The file, for error messages.
    """

    def __init__(self, path: Any, arrays: dict[str, Tensor], described: dict[str, Any]) -> None:
        self.path = path
        self._arrays, self._described = arrays, described

    def __contains__(self, name: str) -> bool:
        return name in self._described

    def load(self, name: str, *, device: str | Device | None = None, into: Any = None) -> Any:
        """Return one of the trees, as `load` does."""
        description = self._described[name]
        if into is not None:
            names = names_of_arrays(description)
            arrays = {key: x for key, x in self._arrays.items() if key in names}
            return _fill(into, arrays, _root(name), device, self.path)
        target = _device(device)
        # An array that is named many times is moved once.
        return build(description, cache(lambda key: self._arrays[key].on(target)))

    def with_pieces(self, name: str, pieces: Mapping[str, tuple[tuple[int, ...], slice]]) -> "Parts":
        """Return the same with some elements, one after the other, in the place of arrays of a tree.

        ``pieces`` has, by their paths, the shapes that these arrays must have, and which elements.
        """
        arrays = dict(self._arrays)
        for path, (shape, place) in pieces.items():
            whole = arrays.get(f"{_root(name)}{path}")
            if whole is not None and whole.values.shape == shape:
                values = whole.values.reshape(-1)[place]
                arrays[f"{_root(name)}{path}"] = whole._replace(values=values)
        return Parts(self.path, arrays, self._described)


def read_parts(path: str | os.PathLike[str]) -> Parts:
    """Read a file that `write_parts` wrote.

    Raises
    ------
    ValueError
        If it is no such file, or is damaged.
    """
    return unpack_parts(Path(path).read_bytes(), path)


def unpack_parts(content: bytes, path: Any) -> Parts:
    """Read the content of a file, as `read_parts` does; the path is for error messages."""
    arrays, metadata = unpack(content, path)
    try:
        described = json.loads(metadata["xpnet"])
        version = described.pop("version")
        described["net"]
        if type(version) is not int:
            raise TypeError("its version is not a number")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a file that xpnet.save wrote, but it cannot be read as one: {error!r}. The "
            "arrays of another program can be read with safetensors, those of PyTorch with xpnet.load_torch."
        ) from None
    if version != _VERSION:
        raise ValueError(f"{path} has the format {version}, this xpnet reads {_VERSION}. Update xpnet.")
    return Parts(path, arrays, described)


def _fill(into: Any, arrays: dict[str, Tensor], root: str, spec: str | Device | None, path: Any) -> Any:
    expected: dict[str, Any] = {}
    describe(into, root, expected)
    wrong = sorted(expected.keys() ^ arrays.keys())
    new: dict[str, Any] = {}
    if not wrong:
        new = {name: arrays[name].on(device_of(x) if spec is None else spec) for name, x in expected.items()}
        wrong = [name for name, x in expected.items() if kind(x) != kind(new[name])]
    if wrong:
        name = wrong[0]
        in_file = arrays[name].kind if name in arrays else "nothing"
        in_net = kind(expected[name]) if name in expected else "nothing"
        raise ValueError(
            f"the network must fit the file {path}: at {name} it has {in_net}, the file {in_file}."
        )
    leaves, structure = tree.flatten(into, state=True)
    names = [f"{root}{name}" for name in tree.paths(into, state=True)]
    if unreached := sorted(new.keys() - set(names)):
        raise ValueError(
            f"the arrays of into= must be leaves of a tree, received {unreached[0]}, which is none: trees "
            "do not look into lists and dicts of your own classes, arrays of objects or random states, nor "
            "at keys that are empty or end in /. Read it without into=, or put it into a plain dict."
        )
    filled = tree.unflatten(structure, [new.get(name, x) for name, x in zip(names, leaves, strict=True)])
    if isinstance(into, tree.Branch):
        tree.assign(filled, into)
        return into
    return filled
