"""Networks and other trees as files: the arrays and a description of the rest in one safetensors file.

Reading a file runs no code from it: the description names layers of `xpnet.nn` and their settings, and
nothing else.
"""

import json
import math
import os
from typing import Any

from xpnet import nn, tree
from xpnet.backends import Device, device, device_of
from xpnet.files.tensors import Tensor, kind, read, write

_VERSION = 1
_LAYERS = {name: getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type)}


def save(net: Any, path: str | os.PathLike) -> None:
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
        If a dict has a key with a dot in it, such that two arrays have the same name.
    OSError
        If the file cannot be written: the disk is full, or the directory is not yours to write to.

    Notes
    -----
    Modules of one's own are saved, too; `load` needs ``into=`` for them.

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


def load(path: str | os.PathLike, *, device: str | Device | None = None, into: Any = None) -> Any:
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


def write_parts(path: str | os.PathLike, parts: dict[str, Any]) -> None:
    """Write several trees to one file, of which `load` reads the one named "net"."""
    arrays: dict[str, Any] = {}
    described = {name: _describe(part, _root(name), arrays) for name, part in parts.items()}
    write(path, arrays, {"xpnet": json.dumps({"version": _VERSION, **described}, allow_nan=False)})


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
        if into is not None:
            root = _root(name)
            arrays = {key: x for key, x in self._arrays.items() if key.startswith(root)}
            if not root:  # the names of the other parts begin with theirs
                others = tuple(_root(other) for other in self._described if other != name)
                arrays = {key: x for key, x in arrays.items() if not key.startswith(others)}
            return _fill(into, arrays, root, device, self.path)
        target = _device(device)
        try:
            return _build(self._described[name], {key: x.on(target) for key, x in self._arrays.items()})
        except RecursionError:
            raise ValueError(f"{self.path} is damaged: its description is nested too deeply.") from None


def read_parts(path: str | os.PathLike) -> Parts:
    """Read a file that `write_parts` wrote.

    Raises
    ------
    ValueError
        If it is no such file, or is damaged.
    """
    arrays, metadata = read(path)
    try:
        content = json.loads(metadata["xpnet"])
        version = content.pop("version")
        content["net"]
        if type(version) is not int:
            raise TypeError("its version is not a number")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a file that xpnet.save wrote, but it cannot be read as one: {error!r}. The "
            "arrays of another program can be read with safetensors, those of PyTorch with xpnet.load_torch."
        ) from None
    if version != _VERSION:
        raise ValueError(f"{path} has the format {version}, this xpnet reads {_VERSION}. Update xpnet.")
    return Parts(path, arrays, content)


_device = device  # some of these functions have a parameter of that name


def _describe(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """Describe a value in terms of JSON, and collect the arrays by their paths."""

    def inside(key: Any) -> str:
        return f"{path}.{key}" if path and path[-1] != "/" else f"{path}{key}"

    if tree.is_array(value):
        if path in arrays:
            raise ValueError(f"two arrays have the name {path}: rename one of the keys with a dot in it.")
        arrays[path] = value
        return {"array": path}
    if isinstance(value, tree.Branch) or tree.is_dataclass(value):
        attributes = tree.attributes_of(value)
        # Private settings are no part of a file, private arrays are.
        described = {name: x for name, x in attributes.items() if name[0] != "_" or tree.is_child(x)}
        attributes = {name: _describe(x, inside(name), arrays) for name, x in described.items()}
        node = "module" if isinstance(value, tree.Branch) else "dataclass"
        return {node: _class_name(type(value)), "attributes": attributes}
    if isinstance(value, list | tuple):
        items = [_describe(item, inside(index), arrays) for index, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        pairs = [[_key(key, path), _describe(item, inside(key), arrays)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}  # which JSON cannot say
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        return {"function": getattr(value, "__name__", repr(value))}
    raise TypeError(
        f"a file holds arrays, numbers, strings, bools and None, received {type(value).__name__} at "
        f"{path or 'the root'}."
    )


def _key(key: Any, path: str) -> Any:
    if not isinstance(key, bool | int | str | None):
        raise TypeError(
            f"the keys of a dict in a file are strings and integers, received {key!r} at "
            f"{path or 'the root'}."
        )
    return key


def _class_name(cls: type) -> str:
    """Return the name of a layer of `xpnet.nn`, or the full name of a class of one's own."""
    return cls.__name__ if _LAYERS.get(cls.__name__) is cls else f"{cls.__module__}.{cls.__qualname__}"


def _build(description: Any, arrays: dict[str, Any]) -> Any:
    match description:
        case {"array": str(name)} if name in arrays:
            return arrays[name]
        case {"module": str(name), "attributes": dict(attributes)}:
            if name not in _LAYERS:
                raise ValueError(
                    f"the file has a module {name}, which is not one of xpnet.nn. Make the network yourself "
                    "and read the file with xpnet.load(path, into=net)."
                )
            return _module(_LAYERS[name], {key: _build(value, arrays) for key, value in attributes.items()})
        case {"tuple": list(items)}:
            return tuple(_build(item, arrays) for item in items)
        case {"list": list(items)}:
            return [_build(item, arrays) for item in items]
        case {"dict": list(pairs)} if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            if all(isinstance(key, bool | int | str | None) for key, _ in pairs):
                return {key: _build(item, arrays) for key, item in pairs}
        case {"float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"function": name}:
            raise _needs_into(f"function {name}")
        case {"dataclass": name}:
            raise _needs_into(f"dataclass {name}")
        case None | bool() | int() | float() | str():
            return description
    raise _damaged(description)


def _needs_into(what: str) -> ValueError:
    return ValueError(
        f"the file has a {what}, and code is not read from files. Make the network yourself and read the "
        "file with xpnet.load(path, into=net)."
    )


def _damaged(description: Any) -> ValueError:
    return ValueError(f"the file's description of the network is damaged at {str(description)[:80]}.")


def _module(cls: type, attributes: dict[str, Any]) -> Any:
    """Make a module around its attributes, none of which stands for a method or an inner working of its."""
    for name, value in attributes.items():
        of_class = getattr(cls, name, None)
        private = name.startswith("_") and not tree.is_child(value)
        if private or name.startswith("__") or callable(of_class) or isinstance(of_class, property):
            raise _damaged(f"{cls.__name__}.{name}")  # not the value, which may not even have a text
    module: Any = object.__new__(cls)
    vars(module).update(attributes)
    return module


def _fill(into: Any, arrays: dict[str, Tensor], root: str, spec: str | Device | None, path: Any) -> Any:
    expected: dict[str, Any] = {}
    _describe(into, root, expected)
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
    names = tree.paths(into, state=True)
    filled = tree.unflatten(
        structure,
        [new[f"{root}{name}"] if tree.is_array(x) else x for name, x in zip(names, leaves, strict=True)],
    )
    if isinstance(into, tree.Branch):
        tree.assign(filled, into)
        return into
    return filled
