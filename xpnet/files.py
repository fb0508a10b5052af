"""Networks as files: the arrays and a description of the network in one safetensors file.

Reading a file runs no code from it: the description names layers of `xpnet.nn` and their settings, and
nothing else.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy
import safetensors
import safetensors.numpy

from xpnet import nn, tree
from xpnet.backends import Device, asarray, device, device_of, to_numpy

_VERSION = 1
_LAYERS = {name: getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type)}


def save(net: Any, path: str | os.PathLike) -> None:
    """Write a network to a safetensors file.

    Parameters
    ----------
    net : Module
        The network, on any library and device. It is not changed.
    path : path
        The file. It is written beside its place and then moved there, so that an interruption leaves an older
        file whole.

    Raises
    ------
    TypeError
        If an attribute of a module is neither an array nor a number, string, bool, None, function, or
        container of those, so that it cannot be described.
    ValueError
        If a dict has a key with a dot in it, such that two arrays have the same name.

    Notes
    -----
    Modules of one's own are saved, too; `load` needs ``into=`` for them.
    """
    arrays: dict[str, Any] = {}
    description = _describe(net, "", arrays)
    metadata = {"xpnet": json.dumps({"version": _VERSION, "net": description})}
    path = Path(path)
    # safetensors writes the memory as it lies, whatever the order of the axes.
    in_order = {name: numpy.asarray(to_numpy(x), order="C") for name, x in arrays.items()}
    data = safetensors.numpy.save(in_order, metadata)
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike, *, device: str | Device | None = None, into: Any = None) -> Any:
    """Read a network from a file that `save` wrote.

    Parameters
    ----------
    path : path
        The file.
    device : str, Device or None
        Where the network goes. None is the current device, or that of ``into``.
    into : Module, optional
        A network of the same structure, whose arrays are replaced. Needed for networks with modules or
        functions of one's own, since no code is read from the file.

    Returns
    -------
    Module
        The network; ``into`` if it was given.

    Raises
    ------
    ValueError
        If the file is no file of `save`, needs ``into``, or does not fit it. Nothing is changed then.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = json.loads(metadata["xpnet"])
        version, description = content["version"], content["net"]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must be a file that xpnet.save wrote, but it cannot be read as one: {error!r}."
        ) from None
    if version != _VERSION:
        raise ValueError(f"{path} has the format {version}, this xpnet reads {_VERSION}. Update xpnet.")
    if into is None:
        target = _device(device)
        return _build(description, {name: asarray(x, device=target) for name, x in arrays.items()})
    return _fill(into, arrays, device, path)


_device = device  # `load` has a parameter of that name


def _describe(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """Describe a value in terms of JSON, and collect the arrays by their paths."""

    def inside(key: Any) -> str:
        return f"{path}.{key}" if path else str(key)

    if tree.is_array(value):
        if path in arrays:
            raise ValueError(f"two arrays have the name {path}: rename one of the keys with a dot in it.")
        arrays[path] = value
        return {"array": path}
    if isinstance(value, tree.Branch):
        # Private settings are no part of a file, private arrays are.
        described = {name: x for name, x in vars(value).items() if name[0] != "_" or tree.is_child(x)}
        attributes = {name: _describe(x, inside(name), arrays) for name, x in described.items()}
        return {"module": _class_name(type(value)), "attributes": attributes}
    if isinstance(value, list | tuple):
        items = [_describe(item, inside(index), arrays) for index, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        return {"dict": {str(key): _describe(item, inside(key), arrays) for key, item in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        return {"function": getattr(value, "__name__", repr(value))}
    raise TypeError(
        f"a file holds arrays, numbers, strings, bools and None, received {type(value).__name__} at {path}."
    )


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
            module = object.__new__(_LAYERS[name])
            vars(module).update({key: _build(value, arrays) for key, value in attributes.items()})
            return module
        case {"tuple": list(items)}:
            return tuple(_build(item, arrays) for item in items)
        case {"list": list(items)}:
            return [_build(item, arrays) for item in items]
        case {"dict": dict(items)}:
            return {key: _build(item, arrays) for key, item in items.items()}
        case {"function": name}:
            raise ValueError(
                f"the file has a function {name}, and code is not read from files. Make the network yourself "
                "and read the file with xpnet.load(path, into=net)."
            )
        case None | bool() | int() | float() | str():
            return description
    raise ValueError(f"the file's description of the network is damaged at {str(description)[:80]}.")


def _kind(x: Any) -> str:
    return f"{str(x.dtype).rpartition('.')[2]} {tuple(x.shape)}"


def _fill(net: Any, arrays: dict[str, Any], spec: str | Device | None, path: Any) -> Any:
    expected: dict[str, Any] = {}
    _describe(net, "", expected)
    wrong = sorted(expected.keys() ^ arrays.keys()) or [
        name for name, x in expected.items() if _kind(x) != _kind(arrays[name])
    ]
    if wrong:
        name = wrong[0]
        in_file = _kind(arrays[name]) if name in arrays else "nothing"
        in_net = _kind(expected[name]) if name in expected else "nothing"
        raise ValueError(
            f"the network must fit the file {path}: at {name} it has {in_net}, the file {in_file}."
        )
    leaves, structure = tree.flatten(net, state=True)
    names = tree.paths(net, state=True)
    new = [
        asarray(arrays[name], device=device_of(x) if spec is None else spec) if tree.is_array(x) else x
        for name, x in zip(names, leaves, strict=True)
    ]
    tree.assign(tree.unflatten(structure, new), net)
    return net
