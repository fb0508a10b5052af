"""What a file says besides arrays: values in terms of JSON, each of which comes back equal and of its type.

A description names layers of `xpnet.nn`, networks of `xpnet.onnx`, optimizers and functions of xpnet's, and
nothing else of what could be called. What stands for code of the user's can be described, but is not made
from a file.
"""

import math
import reprlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import numpy

from xpnet import losses, nn, optim, tree
from xpnet.errors import OF_WRONG_VALUES
from xpnet.files.tensors import OF_NUMPY, from_bytes, is_numpy_dtype
from xpnet.nn import initializers
from xpnet.optim.transforms import Transform
from xpnet.random import check_host_state

# How deep lists, dicts and modules may stand in each other. Reading takes more of Python's stack than
# writing, so that without a limit there would be files that cannot be read.
_DEPTH = 100

# The longest integer, in bits: Python reads no longer ones from text than the process allows.
_LONGEST_INTEGER = 1024

_CONTAINERS: dict[type, str] = {list: "list", tuple: "tuple", dict: "dict", OrderedDict: "ordered_dict"}

# Where the functions and classes are that a file may name, besides the layers of `xpnet.nn`.
_PACKAGES = (losses, optim)
_MODULES = (
    initializers,
    *(x for package in _PACKAGES for x in vars(package).values() if isinstance(x, ModuleType)),
)

# What comes from files of ONNX. It needs the package onnx, which is imported with it, where it is asked for.
_OF_ONNX = {
    "xpnet.onnx.importing.Network",
    "xpnet.onnx.nodes.node.Body",
    "xpnet.onnx.nodes.node.Constant",
    "xpnet.onnx.nodes.node.Node",
}

# What files from before call by another name.
_RENAMED = {
    "xpnet.onnx.importing.Graph": "xpnet.onnx.importing.Network",
    "xpnet.optim.optimizers.Chain": "xpnet.optim.optimizer.Chain",
}


@cache
def _named() -> dict[str, Any]:
    named = {name: getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    for module in _MODULES:
        for x in vars(module).values():
            if isinstance(x, type | FunctionType) and x.__module__ == module.__name__:
                named[_full_name(x)] = x
    return named


def _known(name: str) -> Any:
    """Return the class or function of xpnet's that a file calls by some name; None if there is none."""
    name = _RENAMED.get(name, name)
    if name in _OF_ONNX:
        module, _, name = name.rpartition(".")
        return getattr(import_module(module), name)
    found = _named().get(name)
    if found is None and name.startswith("xpnet.optim."):  # from before, when it stood in another module
        found = _named().get(f"xpnet.optim.{name.rpartition('.')[2]}")
    return found


def _name_of(x: Any) -> str:
    """Return the name of a class or function: of a layer of `xpnet.nn` the short one, else the full one."""
    is_short = _named().get(x.__name__) is x
    return x.__name__ if is_short else _full_name(x)


def _full_name(x: Any) -> str:
    packages = (package for package in _PACKAGES if getattr(package, x.__qualname__, None) is x)
    public = next(packages, None)  # in whatever module of it x stands
    return f"{public.__name__ if public else x.__module__}.{x.__qualname__}"


def _fields(cls: Any) -> tuple[str, ...] | None:
    """Return the names of the settings that a class of xpnet's is made of, which it checks; else None."""
    if cls is Transform:
        return Transform._fields
    known = isinstance(cls, type) and is_dataclass(cls) and _known(_name_of(cls)) is cls
    return tuple(field.name for field in fields(cls)) if known else None


def describe(value: Any, path: str, arrays: dict[str, Any], *, scalars: bool = False) -> Any:
    """Describe a value in terms of JSON, and collect its arrays by their paths.

    Parameters
    ----------
    value : object
    path : str
        Where the value is; the names of its arrays begin with it.
    arrays : dict of str to array
        To which the arrays are added.
    scalars : bool, default=False
        Whether numbers of NumPy's come back as such. In a network they are arrays of shape (), as of other
        libraries.

    Raises
    ------
    TypeError
        If there is something that cannot be described.
    ValueError
        If two arrays have the same name, or something is nested too deeply.
    """
    return _Describer(arrays, scalars).describe(value, path)


class _Describer:
    def __init__(self, arrays: dict[str, Any], scalars: bool) -> None:
        self.arrays, self.scalars = arrays, scalars
        self.depth = 0

    def describe(self, value: Any, path: str) -> Any:
        if self.depth > _DEPTH:
            raise ValueError(
                f"what a file holds must be nested at most {_DEPTH} times, received more at {path[:80]}…. "
                "Put it into fewer lists and dicts inside each other."
            )
        self.depth += 1
        try:
            return self._describe(value, path)
        finally:
            self.depth -= 1

    def _describe(self, value: Any, path: str) -> Any:
        kind: Any = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int and value.bit_length() <= _LONGEST_INTEGER:
            return value
        if kind is int:
            raise ValueError(
                f"integers in a file have at most {_LONGEST_INTEGER} bits, received more at {path}."
            )
        if kind is float:  # of which JSON cannot say all
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is bytes:
            return {"bytes": value.hex()}
        if isinstance(value, list | tuple) and _fields(kind) is None:
            return self._container(value, self._items(value, path), path)
        if isinstance(value, dict):
            pairs = [[self._key(key, path), self.describe(x, _in(path, key))] for key, x in value.items()]
            return self._container(value, pairs, path)
        if isinstance(value, numpy.generic) and (self.scalars or value.dtype.kind in OF_NUMPY):
            return self._number(value, path)
        if kind is numpy.ndarray and value.dtype == object:
            return {"objects": self._items(value.ravel().tolist(), path), "shape": list(value.shape)}
        if tree.is_array(value):
            if path in self.arrays:
                raise ValueError(f"two arrays have the name {path}: rename one of the keys with a dot in it.")
            self.arrays[path] = value
            return {"array": path}
        return self._describe_object(value, kind, path)

    def _describe_object(self, value: Any, kind: Any, path: str) -> Any:
        if isinstance(value, tree.Branch):
            return self._module(value, kind, path)
        names = _fields(kind)
        if names is not None:
            attributes = {name: getattr(value, name) for name in names}
            return {"settings": _name_of(kind), "attributes": self._attributes(attributes, path)}
        if tree.is_dataclass(value):
            attributes = _public(tree.attributes_of(value))
            return {"dataclass": _name_of(kind), "attributes": self._attributes(attributes, path)}
        if kind is numpy.random.RandomState and value.get_state(legacy=False)["bit_generator"] == "MT19937":
            return {"random_state": self.describe(value.get_state(legacy=False), path)}
        if isinstance(value, int | float | str | bytes):  # a member of an enumeration, say
            return {"object": _full_name(kind)}
        if isinstance(value, FunctionType) and _known(_name_of(value)) is value:
            return {"function": _name_of(value)}
        if callable(value):
            return {"function": getattr(value, "__name__", _full_name(kind))}
        raise _not_described(value, path)

    def _module(self, value: Any, kind: Any, path: str) -> dict[str, Any]:
        attributes, name = _public(vars(value)), _name_of(kind)
        for attribute in attributes:
            if _known(name) is kind and _hides(kind, attribute):
                raise ValueError(
                    f"an attribute in a file must not hide a part of its class, received {attribute!r} of a "
                    f"{kind.__name__} at {path or 'the root'}. Give it another name."
                )
        return {"module": name, "attributes": self._attributes(attributes, path)}

    def _items(self, items: Any, path: str) -> list:
        return [self.describe(item, _in(path, index)) for index, item in enumerate(items)]

    def _attributes(self, attributes: dict[str, Any], path: str) -> dict[str, Any]:
        return {name: self.describe(x, _in(path, name)) for name, x in attributes.items()}

    def _container(self, value: Any, parts: list, path: str) -> dict[str, Any]:
        kind = type(value)
        if kind in _CONTAINERS:
            return {_CONTAINERS[kind]: parts}
        if tree.node(value) is None and names_of_arrays(parts):  # which `into` would not find
            raise TypeError(
                "arrays in a file stand in lists, tuples, dicts and modules, received some in a "
                f"{kind.__name__} at {path or 'the root'}, into which trees do not look. Put them into "
                f"a plain one: {'dict' if isinstance(value, dict) else 'list'}(x)."
            )
        return {"object": _full_name(kind), "parts": parts}

    def _key(self, key: Any, path: str) -> Any:
        if not _is_key(key):
            raise TypeError(
                f"the keys of a dict in a file are numbers and strings, received {key!r} at "
                f"{path or 'the root'}."
            )
        return self._number(key, path) if isinstance(key, numpy.generic) else self.describe(key, path)

    def _number(self, value: Any, path: str) -> dict[str, str]:
        """Describe a text of NumPy's, or a number or a date by its bytes."""
        dtype = value.dtype.newbyteorder("<")
        if dtype.kind == "U" and len(str(value)) == len(value):  # else NumPy drops zeros at the end
            return {"numpy": "str", "text": str(value)}
        if dtype.kind in "US" or not is_numpy_dtype(dtype.str):
            raise _not_described(value, path)
        return {"numpy": dtype.str, "bytes": numpy.asarray(value, dtype=dtype).tobytes().hex()}


def _not_described(value: Any, path: str) -> TypeError:
    return TypeError(
        "a file holds arrays, numbers, strings, bytes, bools, None and NumPy's dates, and lists, tuples and "
        f"dicts of them, received {type(value).__name__} at {path or 'the root'}. Convert it, with str, list "
        "or numpy.datetime64, say, or leave it out."
    )


def _is_key(key: Any) -> bool:
    return key is None or type(key) in (bool, int, float, str) or isinstance(key, numpy.generic)


def _public(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out private settings, which are no part of a file. Private arrays are."""
    return {name: x for name, x in attributes.items() if name[:1] != "_" or tree.is_child(x)}


def _hides(cls: type, name: str) -> bool:
    """Say whether an attribute of an object would stand for a method or an inner part of its class."""
    of_class = getattr(cls, name, None)
    return name.startswith("__") or callable(of_class) or isinstance(of_class, property)


def _in(path: str, key: Any) -> str:
    return f"{path}.{key}" if path and path[-1] != "/" else f"{path}{key}"


def names_of_arrays(description: Any) -> set[str]:
    """Return the names of the arrays that a description speaks of."""
    names, rest = set(), [description]
    while rest:
        match rest.pop():
            case {"array": str(name)}:
                names.add(name)
            case dict(inside):
                rest += inside.values()
            case list(inside):
                rest += inside
    return names


def build(description: Any, array: Callable[[str], Any]) -> Any:
    """Make what was described.

    Parameters
    ----------
    description : object
        Of JSON.
    array : callable
        Returns the array of a name; raises KeyError if there is none.

    Raises
    ------
    ValueError
        If it is no description, or needs code of the user's.
    """
    return _Builder(array).build(description)


class CodeNeededError(ValueError):
    """Something stands for code that is not xpnet's, and is not made from a file.

    Attributes
    ----------
    what : str
    """

    def __init__(self, what: str, why: str = "and code is not read from files") -> None:
        super().__init__(
            f"the file has a {what}, {why}. Make what was saved anew, of the same structure, and read the "
            "arrays of the file with xpnet.load(path, into=net)."
        )
        self.what = what


class _DamagedError(ValueError):
    def __init__(self, description: Any) -> None:
        # Which may be long, and nested more deeply than Python goes.
        super().__init__(f"the file's description is damaged at {reprlib.repr(description)[:80]}.")


class _Builder:
    def __init__(self, array: Callable[[str], Any]) -> None:
        self.array = array
        self.depth = 0

    def build(self, description: Any) -> Any:
        if self.depth > _DEPTH:
            raise _DamagedError("nested too deeply")
        self.depth += 1
        try:
            return self._build(description)
        except (CodeNeededError, _DamagedError):
            raise
        except OF_WRONG_VALUES as error:
            raise _DamagedError(description) from error
        finally:
            self.depth -= 1

    def _build(self, description: Any) -> Any:
        match description:
            case None | bool() | int() | float() | str():
                return description
            case {"array": str(name)}:
                return self.array(name)
            case {"module": str(name), "attributes": dict(attributes)}:
                return self._module(name, attributes)
            case {"settings": str(name), "attributes": dict(attributes)}:
                cls = _known(name)
                names = _fields(cls)
                if names is not None and attributes.keys() == {*names}:
                    return cls(**self._values(attributes))
            case {"tuple": list(items)}:
                return tuple(map(self.build, items))
            case {"list": list(items)}:
                return list(map(self.build, items))
            case {"dict": list(pairs)}:
                return self._dict(pairs)
            case {"ordered_dict": list(pairs)}:
                return OrderedDict(self._dict(pairs))
            case {"float": "nan" | "inf" | "-inf" as text}:
                return float(text)
            case {"numpy": "str", "text": str(text)}:
                return numpy.str_(text)
            case {"numpy": str(dtype), "bytes": str(text)}:
                return from_bytes(bytes.fromhex(text), (), dtype)[()]
            case {"bytes": str(text)}:
                return bytes.fromhex(text)
            case {"objects": list(items), "shape": list(shape)}:
                values = numpy.empty(len(items), dtype=object)
                for index, item in enumerate(items):  # one by one, as lists in a list would be an array
                    values[index] = self.build(item)
                return values.reshape(shape)
            case {"random_state": state}:
                return _random_state(self.build(state))
            case {"function": str(name)}:
                function = _known(name)
                if isinstance(function, FunctionType):
                    return function
                raise CodeNeededError(f"function {name}")
            case {"dataclass": str(name)}:
                raise CodeNeededError(f"dataclass {name}")
            case {"object": str(name)}:
                raise CodeNeededError(name)
        raise _DamagedError(description)

    def _values(self, attributes: dict[str, Any]) -> dict[str, Any]:
        return {name: self.build(value) for name, value in attributes.items()}

    def _dict(self, pairs: list) -> dict[Any, Any]:
        made = {self.build(key): self.build(item) for key, item in pairs}
        if len(made) != len(pairs) or not all(map(_is_key, made)):
            raise _DamagedError(pairs)
        return made

    def _module(self, name: str, attributes: dict[str, Any]) -> Any:
        """Make a module around its attributes, none of which stands for a method or an inner part."""
        cls = _known(name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise CodeNeededError(f"module {name}", "which is not one of xpnet.nn")
        values = self._values(attributes)
        for key in values:
            if key not in _public(values) or _hides(cls, key):
                raise _DamagedError(f"{cls.__name__}.{key}")  # not the value, which may not even have a text
        module: Any = object.__new__(cls)
        if hasattr(cls, "__setstate__"):  # which checks them, as Python's protocol for objects of any origin
            module.__setstate__(values)
        else:
            vars(module).update(values)
        return module


def _random_state(state: Any) -> Any:
    check_host_state(state)
    made = numpy.random.RandomState()
    made.set_state(state)
    return made
