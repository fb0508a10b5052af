"""What a recording took in, and whether it is the same at another call.

A recording is replayed only where everything that went into it is known to be the same:

- *arrays among the arguments* stand for others of the same library, device, shape and dtype;
- *everything else* that a function was given, or that it and the functions it calls read from outside
  (cells, globals, defaults, attributes, methods), is compared, by type and value and in its order;
- *arrays from outside* are constants: they were copied, and are not compared. Those of a module are refused
  when they are used, as networks are trained, and the recording would go on with the old ones.

`Facts` goes through all that once and writes down what must hold. `key` makes one value of the facts, to find
a recording among many; `xpnet.replay.match` a function that checks them within microseconds.
"""

import dis
import functools
import sys
import sysconfig
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import numpy

from xpnet import tree
from xpnet.backends import library_of
from xpnet.errors import NotRecordableError

# -- data: numbers, texts, and containers of them ------------------------------------------------------------

_BY_VALUE = frozenset({type(None), bool, int, str, bytes, type(...), type(NotImplemented), range})


class NotDataError(Exception):
    """Something is neither a number nor a text, nor a container of such."""


def _refuse(_value: Any) -> Any:
    raise NotDataError


def data(value: Any, other: Callable[[Any], Any] = _refuse) -> Any:
    """Describe numbers, texts and containers of them: equal for the same ones, and to be hashed.

    To Python, 1, 1.0 and True are equal, as are 0.0 and -0.0, dicts of another order and sets of another
    order, while NaN is not equal to itself. Here it is the other way round.

    Parameters
    ----------
    value : object
    other : callable, optional
        Describes what is none of these. By default, `NotDataError` is raised.
    """
    kind: Any = type(value)
    if kind in _BY_VALUE:
        return kind, value
    if kind is float:
        return kind, value.hex()
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if kind in (list, tuple, set, frozenset):
        return kind, tuple([data(item, other) for item in value])
    if kind is dict:
        return kind, tuple([(data(key, other), data(item, other)) for key, item in value.items()])
    if kind is slice:
        return kind, data((value.start, value.stop, value.step), other)
    if names := _settings_of(kind):
        return kind, tuple([data(getattr(value, name), other) for name in names])
    return other(value)


@functools.cache
def _settings_of(kind: Any) -> tuple[str, ...]:
    """Return the fields of xpnet's own classes of settings, such as optimizers."""
    parameters = getattr(kind, "__dataclass_params__", None)
    frozen = parameters is not None and parameters.frozen and _is_installed(kind)
    return tuple(field.name for field in fields(kind)) if frozen else ()


def _is_constant(value: Any) -> bool:
    """Say whether data can never change."""
    kind: Any = type(value)
    if kind in (tuple, frozenset):
        return all(map(_is_constant, value))
    if names := _settings_of(kind):
        return all(_is_constant(getattr(value, name)) for name in names)
    return kind not in (list, set, dict)


def _is_short(value: Any) -> bool:
    """Say whether a container is compared faster part by part than as a whole."""
    return type(value) in (list, dict) and 0 < len(value) <= 16


# -- facts ---------------------------------------------------------------------------------------------------


class _Object:
    """An object that is compared by its identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _Device:
    """A device, which has no hash in every library."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Device) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(str(self.value))


class Step(NamedTuple):
    """How to come from a part to one inside it.

    Attributes
    ----------
    how : {"item", "attribute", "vars", "cell", "reduced", "object"}
        The last one is where a way begins that does not begin with the arguments.
    what : object
        The key, the index, the name, the number of the cell, or an `_Object`.
    name : str
        What people call it, if anything.
    """

    how: str
    what: Any = None
    name: str = ""


Place = tuple[Step, ...]


class Fact(NamedTuple):
    """Something that must hold of a part.

    Attributes
    ----------
    place : tuple of Step
        Where the part is; an empty one is the whole.
    test : str
        What is compared, see `xpnet.replay.match`.
    expected : object
    """

    place: Place
    test: str
    expected: Any


class _Reached(NamedTuple):
    """How a part was reached, which says what becomes of arrays.

    Attributes
    ----------
    by : {"tree", "setting", "outside"}
        Among the arguments, as a part of their tree or as something that a part holds; or from a function.
    owner : str
        What the arrays belong to, if they are refused as constants.
    """

    by: str
    owner: str = ""


_OUTSIDE = _Reached("outside")


class Facts:
    """What must hold of arguments and of a function, so that what was recorded with them may be replayed.

    Parameters
    ----------
    values : tree
        The arguments.
    function : callable, optional
    refuse : bool, default=True
        Whether what cannot be compared is refused, and not known by its identity.

    Attributes
    ----------
    facts : dict of Fact to bool
        In the order in which they are to be checked, and whether they are about something from outside.
    arrays : list of Place
        Where the arrays are that stand for others, in the order of `tree.leaves`.
    settings : dict of int to Place
        Where the arguments hold objects that are no arrays and may change, by their identity.
    owned, constants : dict of int to str
        The arrays from outside that modules hold, and all others, by their identity, with names for people.

    Raises
    ------
    NotRecordableError
        If there is something among the arguments that cannot be compared.
    """

    def __init__(self, values: Any, function: Any = None, *, refuse: bool = True) -> None:
        self._refuse = refuse
        self._names: set[str] = set()  # the attributes that functions of the user's name
        while True:
            names = self._names.copy()
            self.facts: dict[Fact, bool] = {}
            self.arrays: list[Place] = []
            self.settings: dict[int, Place] = {}
            self.owned: dict[int, str] = {}
            self.constants: dict[int, str] = {}
            self._seen: dict[int, tuple[Place, Any]] = {}
            self._visit(values, (), _Reached("tree"))
            if function is not None:
                self._visit(function, (Step("object", _Object(function)),), _OUTSIDE)
            if self._names == names:  # otherwise functions were found that name more attributes
                break

    @property
    def reads_arrays(self) -> bool:
        """Whether there are arrays that do not stand for others, and are not compared."""
        return bool(self.owned or self.constants)

    def is_from_outside(self, value: Any) -> bool:
        """Say whether a value came from outside or cannot change. From now on, it must be the same object."""
        if id(value) in self._seen:
            self.facts[Fact(self._seen[id(value)][0], "is", _Object(value))] = True
            return True
        return _is_fixed(value) or (_data_or_none(value) is not None and _is_constant(value))

    def outside(self) -> dict[int, Any]:
        """Return the objects that functions read from outside, by their identity."""
        return {number: value for number, (_, value) in self._seen.items() if number not in self.settings}

    def keep(self, others: "Facts") -> None:
        """Leave out what the function changed itself while it was recorded: what does not hold in others."""
        self.facts = {
            fact: is_outside
            for fact, is_outside in self.facts.items()
            if not is_outside or fact in others.facts
        }

    def fix(self, place: Place, number: int) -> None:
        """Compare an array of the arguments by its value, too: it was used as a size."""
        self.facts[Fact(place, "number", number)] = False

    def separate(self, places: list[Place], values: Any) -> None:
        """Let some arrays share no memory with others: they were written to.

        Raises
        ------
        NotRecordableError
            If they do so now.
        """
        numbers = tuple(map(self.arrays.index, places))
        self.facts[Fact((), "apart", (tuple(self.arrays), numbers))] = False
        arrays = [x for x in tree.leaves(values, state=True) if tree.is_array(x)]
        if not apart(arrays, numbers):
            raise NotRecordableError(
                "an array that a function under xpnet.jit writes to must share no memory with its other "
                f"arguments, received {_name(places[0])}, which does. Write x = x + y in place of x += y, or "
                "pass a copy."
            )

    def inside(self) -> list[Fact]:
        """Return what must hold of the values alone, not of what functions read from outside."""
        return [fact for fact, is_outside in self.facts.items() if not is_outside]

    def _hold(self, place: Place, test: str, expected: Any, reached: _Reached) -> None:
        self.facts[Fact(place, test, expected)] = reached.by == "outside"

    def _visit(self, value: Any, place: Place, reached: _Reached) -> None:
        """Write down what must hold of a part."""
        if tree.is_array(value):
            self._array(value, place, reached)
        elif _is_fixed(value):
            self._hold(place, "is", _Object(value), reached)
            if isinstance(value, type):
                self._class(value)
            elif isinstance(value, types.ModuleType):
                self._module(value)
        elif _is_constant(value) and (described := _data_or_none(value)) is not None:
            self._hold(place, "constant_data", _Described(described, value), reached)
        elif (
            not (_is_short(value) and reached.by != "outside")
            and (described := _data_or_none(value)) is not None
        ):
            self._seen[id(value)] = place, value
            self._setting(value, place, reached)
            self._hold(place, "data", _Described(described, value), reached)
        elif id(value) in self._seen and reached.by != "tree":
            self._hold(place, "same_part", self._seen[id(value)][0], reached)
        else:
            self._seen[id(value)] = place, value
            self._setting(value, place, reached)
            self._inside(value, place, reached)

    def _setting(self, value: Any, place: Place, reached: _Reached) -> None:
        if reached.by == "setting" or (reached.by == "tree" and tree.node(value) is None):
            self.settings[id(value)] = place

    def _inside(self, value: Any, place: Place, reached: _Reached) -> None:
        """Write down what must hold of the parts of a part."""
        kind = type(value)
        if place[-1:] != (Step("object", _Object(value)),):  # which cannot be of another type
            self._hold(place, "type", _Object(kind), reached)
        if isinstance(value, tree.Branch):
            self._branch(value, place, reached)
        elif (node := tree.node(value)) is not None:
            self._node(value, node.parts, place, reached)
        elif kind is types.FunctionType:
            self._function(value, place, reached)
        elif kind is types.MethodType:
            self._attribute(value, "__func__", place, reached)
            self._attribute(value, "__self__", place, _OUTSIDE)
        elif kind is functools.partial:
            for name in ("func", "args", "keywords"):
                self._attribute(value, name, place, reached)
        elif callable(value) and "__wrapped__" in getattr(value, "__dict__", ()) and _is_installed(kind):
            self._attribute(value, "__wrapped__", place, reached)  # `jit`, `functools.lru_cache`
        else:
            self._object(value, place, reached)

    def _array(self, value: Any, place: Place, reached: _Reached) -> None:
        if reached.by == "tree":
            self.arrays.append(place)
            self._hold(place, "array", kind_of_array(value), reached)
            library = library_of(value)
            if library and library.defaults:
                self._hold((Step("object", _Object(library)),), "defaults", library.defaults(), reached)
        elif reached.by == "outside":
            (self.owned if reached.owner else self.constants)[id(value)] = _name(place, reached.owner)
        elif isinstance(value, numpy.ndarray):
            self._hold(place, "elements", _Described(elements(value), value), reached)
        elif self._refuse:
            raise NotRecordableError(
                f"xpnet.jit takes arrays in modules, dataclasses, dicts, lists and tuples, received "
                f"{_name(place, reached.owner)}, whose class is none of these. Pass a dict or a dataclass."
            )
        else:
            self._hold(place, "is", _Object(value), reached)

    def _branch(self, value: tree.Branch, place: Place, reached: _Reached) -> None:
        names = names_of(vars(value))
        inside = (*place, Step("vars"))
        self._hold(inside, "names", names, reached)
        self._class(type(value))
        owner = type(value).__name__
        by = "setting" if reached.by == "tree" else reached.by
        for name in names:
            is_leaf = reached.by == "tree" and tree.is_child_of(value, name)
            rest = reached if is_leaf else _Reached(by, reached.owner or owner)
            self._visit(vars(value)[name], (*inside, Step("item", name, name)), rest)

    def _node(self, value: Any, parts: list, place: Place, reached: _Reached) -> None:
        if is_dataclass(value):
            self._dataclass(value, parts, place, reached)
            return
        if isinstance(value, dict):
            self._hold(place, "keys", _Described(data([*value], _Object), [*value]), reached)
        else:
            self._hold(place, "length", len(parts), reached)
        for entry, item in parts:
            self._visit(item, (*place, Step("item", entry, str(entry))), reached)

    def _dataclass(self, value: Any, parts: list, place: Place, reached: _Reached) -> None:
        self._class(type(value))
        if hasattr(value, "__dict__"):
            self._hold((*place, Step("vars")), "names", names_of(vars(value)), reached)
        for name, item in parts:
            self._visit(item, (*place, Step("attribute", name, name)), reached)
        setting = _Reached("setting" if reached.by == "tree" else reached.by, type(value).__name__)
        for name in tree.attributes_of(value).keys() - {name for name, _ in parts} - {"_children"}:
            self._visit(getattr(value, name), (*place, Step("attribute", name, name)), setting)

    def _attribute(self, value: Any, name: str, place: Place, reached: _Reached) -> None:
        self._visit(getattr(value, name), (*place, Step("attribute", name)), reached)

    def _function(self, function: types.FunctionType, place: Place, reached: _Reached) -> None:
        """Look at what a function reads from outside."""
        code = function.__code__
        self._hold((*place, Step("attribute", "__code__")), "code", _Object(code), reached)
        for name in ("__defaults__", "__kwdefaults__"):
            if getattr(function, name):
                self._attribute(function, name, place, _OUTSIDE)
        for number, (name, cell) in enumerate(zip(code.co_freevars, function.__closure__ or (), strict=True)):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned to yet
                continue
            self._visit(content, (*place, Step("cell", number, name)), _OUTSIDE)
        if _is_installed(function):
            return
        names, globals_named = _names_in(code)
        self._names |= names
        space = (*place, Step("attribute", "__globals__"))
        for name in globals_named:
            if name not in function.__globals__:  # a function of Python's, or one that is not there yet
                self._hold(space, "lacks", name, _OUTSIDE)
            else:
                self._visit(function.__globals__[name], (*space, Step("item", name, name)), _OUTSIDE)
        if vars(function):
            self._attributes(vars(function), (*place, Step("vars")), _OUTSIDE)

    def _attributes(self, attributes: Any, place: Place, reached: _Reached) -> None:
        """Look at those attributes that functions name."""
        for name in [*attributes]:
            if name in self._names:
                self._visit(attributes[name], (*place, Step("item", name, name)), reached)

    def _module(self, module: types.ModuleType) -> None:
        """Look at what functions name of a module of the user's."""
        if id(module) in self._seen or _is_installed(module):
            return
        place = (Step("object", _Object(module)),)
        self._seen[id(module)] = place, module
        self._attributes(vars(module), (*place, Step("vars")), _OUTSIDE)

    def _class(self, cls: type) -> None:
        """Look at the methods of a class of the user's, and at its attributes that functions name."""
        for each in cls.__mro__:
            if id(each) in self._seen or _is_installed(each):
                continue
            whole = (Step("object", _Object(each)),)
            self._seen[id(each)] = whole, each
            place = (*whole, Step("vars"))
            self._hold(place, "names", names_of(vars(each)), _OUTSIDE)
            for name in names_of(vars(each)):
                value = vars(each)[name]
                is_operator = name[:2] == "__" and type(value) is types.FunctionType
                if not is_operator and (name not in self._names or name[:2] == "__"):
                    continue
                inside = (*place, Step("item", name, name))
                if isinstance(value, staticmethod | classmethod):
                    self._attribute(value, "__func__", inside, _OUTSIDE)
                elif isinstance(value, property):
                    self._attribute(value, "fget", inside, _OUTSIDE)
                else:
                    self._visit(value, inside, _OUTSIDE)

    def _object(self, value: Any, place: Place, reached: _Reached) -> None:
        """Look at an object of a class that is not known here."""
        kind = type(value)
        outside = reached.by == "outside"
        known = is_dataclass(value) or kind is types.SimpleNamespace
        way = _way_into(value)
        # What a logger or a file does is no part of a recording.
        unknown = way == "unknown" and (outside or not self._refuse)
        if way == "none" or unknown or (outside and _is_installed(kind) and not known):
            self._hold(place, "is", _Object(value), reached)
            return
        if way == "unknown":
            raise NotRecordableError(
                f"xpnet.jit compares what is no array with what it was when recording, and a {kind.__name__} "
                f"cannot be compared; received one as {_name(place)}. Pass what is needed of it: arrays, "
                "numbers, texts, functions, and containers of them."
            )
        self._class(kind)
        if not outside:
            reached = _Reached("setting", kind.__name__)
        if way == "reduced":
            self._visit(reduced(value), (*place, Step("reduced")), reached)
            return
        for name in _names_of_slots(kind):
            if hasattr(value, name):
                self._visit(getattr(value, name), (*place, Step("attribute", name, name)), reached)
            else:
                self._hold(place, "unset", name, reached)
        if hasattr(value, "__dict__"):
            named = outside and not is_dataclass(value) and self._names.isdisjoint(_ALL_ATTRIBUTES)
            self._attributes_of(value, (*place, Step("vars")), reached, named=named)

    def _attributes_of(self, value: Any, place: Place, reached: _Reached, *, named: bool) -> None:
        """Look at the attributes of an object, or at those only that functions name."""
        kind = type(value)
        # What a property keeps follows from the rest.
        kept = {
            name for name in vars(value) if isinstance(getattr(kind, name, None), functools.cached_property)
        }
        attributes = {name: item for name, item in vars(value).items() if name not in kept}
        if named:
            self._attributes(attributes, place, reached)
            for name in sorted(self._names):
                if name not in vars(value) and hasattr(kind, name):
                    self._hold(place, "lacks", name, reached)
            return
        if not kept:
            self._hold(place, "names", tuple(attributes), reached)
        for name, item in attributes.items():
            self._visit(item, (*place, Step("item", name, name)), reached)


# What an object does without: in a module that came out of a tree, which attributes were its children; in a
# class, its annotations, which Python 3.14 makes when they are asked for, and what copying an object found.
_NOTES = frozenset(
    {"_children", "__annotate_func__", "__annotations__", "__annotations_cache__", "__slotnames__"}
)


def names_of(attributes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of attributes that say what an object does."""
    return tuple([name for name in attributes if name not in _NOTES])


# With one of these, a function can read attributes that it does not name.
_ALL_ATTRIBUTES = frozenset({"__dict__", "dir", "getattr", "hasattr", "vars"})


class _Described:
    """Data, compared by their description."""

    __slots__ = ("description", "value")

    def __init__(self, description: Hashable, value: Any) -> None:
        self.description, self.value = description, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Described) and self.description == other.description

    def __hash__(self) -> int:
        return hash(self.description)


def key(value: Any) -> tuple[Fact, ...]:
    """Describe a value so that two with equal descriptions serve one recording; it can be hashed.

    Raises
    ------
    NotRecordableError
        If there is something in it that cannot be compared.
    """
    return tuple(Facts(value).facts)


def kind_of_array(x: Any) -> tuple:
    """Return what must be the same for arrays to stand for each other."""
    if isinstance(x, numpy.generic) or (type(x) is numpy.ndarray and not x.shape):
        return numpy.generic, (), x.dtype
    if isinstance(x, numpy.ndarray):
        return type(x), x.shape, x.dtype
    weak = getattr(x, "weak_type", False)  # of JAX: it gives way to the dtype of another one
    return type(x), tuple(x.shape), x.dtype, _Device(array_api_compat.device(x)), weak


def apart(arrays: list, written: tuple[int, ...]) -> bool:
    """Say whether the arrays with some numbers share no memory with others."""

    def shares(x: Any, y: Any) -> bool:
        hosted = isinstance(x, numpy.ndarray) and isinstance(y, numpy.ndarray)
        return x is y or (hosted and numpy.may_share_memory(x, y))

    return not any(shares(arrays[i], y) for i in written for j, y in enumerate(arrays) if j != i)


def elements(x: numpy.ndarray) -> Hashable:
    """Describe a NumPy array by its values."""
    values = data(x.tolist(), _Object) if x.dtype.hasobject else x.tobytes()
    return type(x), x.shape, x.dtype, values


def _name(place: Place, owner: str = "") -> str:
    """Return what people call a part."""
    names = [step.name for step in place if step.name]
    if place and place[0].how == "item" and len(names) > 1:  # of the arguments by position, or by name
        names = [f"argument {names[1]}", *names[2:]]
    name = ".".join(names) or "an argument"
    return f"{name} of a {owner}" if owner else name


def _data_or_none(value: Any) -> Any:
    try:
        return data(value)
    except (NotDataError, RecursionError):
        return None


def _is_fixed(value: Any) -> bool:
    """Say whether an object can never be another one inside: classes, modules, functions in C, dtypes."""
    if isinstance(value, type | types.ModuleType | Enum | numpy.ufunc | numpy.dtype):
        return True
    if isinstance(value, types.BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType)
    return isinstance(value, types.FunctionType) and not value.__closure__ and _is_installed(value)


def _way_into(value: Any) -> str:
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
    try:
        made = value.__reduce_ex__(4)
    except Exception:  # whatever a class of the user's raises
        return "unknown"
    if isinstance(made, str):
        return "none"
    plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return "attributes" if plain and made[1] == (kind,) and not any(made[3:]) else "reduced"


def reduced(value: Any) -> list:
    """Take an object apart as pickle does."""
    return [[*part] if isinstance(part, Iterator) else part for part in value.__reduce_ex__(4)]


def _names_of_slots(kind: type) -> list[str]:
    names = []
    for cls in kind.__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{cls.__name__.lstrip('_')}{name}" if is_private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


@functools.cache
def _names_in(code: types.CodeType) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the attributes and the globals that a function names, with the functions inside it."""
    attributes: set[str] = set()
    names: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names[instruction.argval] = None
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(instruction.argval)
    for constant in code.co_consts:
        # What `getattr` may be given; and `match`, which has its names in a tuple.
        texts = constant if isinstance(constant, tuple) else (constant,)
        attributes.update(text for text in texts if isinstance(text, str))
        if isinstance(constant, types.CodeType):
            inner, inner_names = _names_in(constant)
            attributes |= inner
            names.update(dict.fromkeys(inner_names))
    return frozenset(attributes | names.keys()), tuple(names)


def _is_installed(value: Any) -> bool:
    """Say whether a class, a function or a module belongs to Python, to xpnet or to an installed package.

    Their code is what it is; what their functions read from outside is not looked at.
    """
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return isinstance(name, str) and _is_package_installed(name.partition(".")[0])


@functools.cache
def _is_package_installed(name: str) -> bool:
    if name in ("xpnet", "builtins") or name in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    schemes = sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(kind, scheme) for scheme in schemes for kind in kinds}
    return name != "__main__" and any(Path(file).is_relative_to(folder) for folder in folders)
