"""How recordings look into objects of Python's: functions, classes, modules, and objects of any class."""

import copyreg
import functools
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy

# What stands for an attribute or a cell whose content is not known.
UNKNOWN = object()

# What an object does without: in a module that came out of a tree, which attributes were its children; in a
# class, its annotations, which Python 3.14 makes when they are asked for, and what copying an object found.
_NOTES = frozenset(
    {"_children", "__annotate_func__", "__annotations__", "__annotations_cache__", "__slotnames__"}
)


def names_of(attributes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of attributes that say what an object does."""
    return tuple([name for name in attributes if name not in _NOTES])


def is_fixed(value: Any) -> bool:
    """Say whether an object can never be another one inside: a class, a module, a function in C."""
    if isinstance(value, type | types.ModuleType | Enum | numpy.ufunc | weakref.ref):
        return True
    if isinstance(value, types.BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType)
    return isinstance(value, types.FunctionType) and not value.__closure__ and is_installed(value)


def way_into(value: Any) -> str:
    """Say how an object can be looked at.

    Returns
    -------
    {"attributes", "reduced", "none", "unknown"}
        By its attributes; as pickle takes it apart, which is how objects that are written in C say what is in
        them; by its identity, as there is but one such object; or not at all.
    """
    kind = type(value)
    if kind is object:
        return "none"
    if kind in _taken_apart():
        return "reduced"
    try:
        made = value.__reduce_ex__(4)
    except Exception:  # whatever a class of the user's raises
        return "unknown"
    if isinstance(made, str):
        return "none"
    plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return "attributes" if plain and made[1] == (kind,) and not any(made[3:]) else "reduced"


def _taken_apart() -> Mapping[type, Callable]:
    """Return how objects of some classes are taken apart that do not say so themselves."""
    return {types.MappingProxyType: lambda value: [dict(value)], **copyreg.dispatch_table}


def reduced(value: Any) -> list:
    """Take an object apart as pickle does."""
    reduce = _taken_apart().get(type(value))
    parts = reduce(value) if reduce else value.__reduce_ex__(4)
    return [[*part] if isinstance(part, Iterator) else part for part in parts]


def names_of_slots(kind: type) -> list[str]:
    names = []
    for cls in kind.__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{cls.__name__.lstrip('_')}{name}" if is_private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def contents_of_cells(function: types.FunctionType) -> Iterator[tuple[int, str, Any]]:
    """Yield the numbers, names and contents of the cells of a function, `UNKNOWN` for an empty one."""
    names = function.__code__.co_freevars
    for number, (name, cell) in enumerate(zip(names, function.__closure__ or (), strict=True)):
        yield number, name, UNKNOWN if is_empty(cell) else cell.cell_contents


def is_empty(cell: types.CellType) -> bool:
    """Say whether a cell has not been assigned to yet."""
    try:
        cell.cell_contents  # noqa: B018  # which raises
    except ValueError:
        return True
    return False


def owners(value: Any) -> list:
    """Return an object and the classes of the user's that it belongs to."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    return [value, *(each for each in kinds if not is_installed(each))]


def static(value: Any, name: str) -> Any:
    """Return an attribute, if that can be told without running code of the user's."""
    attributes = getattr(value, "__dict__", {})
    if name in attributes:
        return attributes[name]
    found = next((vars(each)[name] for each in type(value).__mro__ if name in vars(each)), UNKNOWN)
    return getattr(value, name, UNKNOWN) if isinstance(found, types.MemberDescriptorType) else UNKNOWN


def is_cached_property(value: Any, name: str) -> bool:
    """Say whether an attribute is one that `functools.cached_property` keeps."""
    return isinstance(getattr(type(value), name, None), functools.cached_property)


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    schemes = sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(kind, scheme) for scheme in schemes for kind in kinds}
    return (Path(__file__).parents[2], *map(Path, folders))


@functools.cache
def _is_installed_file(path: str) -> bool:
    return path.startswith("<frozen ") or any(
        Path(path).is_relative_to(each) for each in _installed_folders()
    )


def is_installed(value: Any) -> bool:
    """Say whether a class, a function or a module belongs to Python, to xpnet or to an installed package.

    Their code is what it is; what their functions read from outside is not looked at.
    """
    if isinstance(value, types.ModuleType):
        return _is_package_installed(value.__name__.partition(".")[0])
    if isinstance(value, types.FunctionType):  # to which `functools.wraps` gives the module of another one
        return _is_installed_file(value.__code__.co_filename)
    module, name = value.__module__, value.__qualname__
    if not isinstance(module, str) or not _is_package_installed(module.partition(".")[0]):
        return False
    # A class that was made by `exec` may say anything.
    return "<locals>" in name or _reached_by(sys.modules.get(module), name) is value


def _reached_by(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


@functools.cache
def _is_package_installed(name: str) -> bool:
    if name == "builtins" or name in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and file is not None and _is_installed_file(file)
