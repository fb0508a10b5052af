"""What a recording took in, and whether it is the same at another call.

A recording is replayed only where everything that went into it is known to be the same:

- *arrays among the arguments* stand for others of the same library, device, shape and dtype;
- *everything else* that a function was given, or that it and the functions it calls read from outside
  (closures, which Python keeps in *cells*, globals, defaults, attributes, methods), is compared, by type and
  value and in its order;
- *arrays from outside* are constants: they were copied, and are not compared. Those of a module are refused
  when they are used, as networks are trained, and the recording would go on with the old ones.

`Facts` goes through all that once and writes down what must hold. `match.py` makes a function that checks it
within microseconds, and `key` one value.
"""

import functools
import sys
import types
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, NamedTuple

import array_api_compat
import numpy

from xpnet import tree
from xpnet.arrays import ArrayObject
from xpnet.backends import library_of
from xpnet.errors import NotRecordableError
from xpnet.replay.same.code import inner, names_of_globals, references
from xpnet.replay.same.data import Identity, data, data_of_array, data_or_none, is_constant
from xpnet.replay.same.objects import (
    UNKNOWN,
    contents_of_cells,
    is_cached_property,
    is_fixed,
    is_installed,
    names_of,
    names_of_slots,
    owners,
    reduced,
    static,
    way_into,
)


def _is_short(value: Any) -> bool:
    """Say whether a container is compared faster part by part than as a whole."""
    return type(value) in (list, dict) and 0 < len(value) <= 16


class _Device:
    """A device, which has no hash in every library."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Device) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(str(self.value))


class Access(NamedTuple):
    """How to come from a part to one inside it.

    Attributes
    ----------
    how : {"item", "attribute", "vars", "cell", "reduced", "object"}
        The last one is where a way begins that does not begin with the arguments.
    what : object
        The key, the index, the name, the number of the cell, or an `Identity`.
    name : str
        What people call it, if anything.
    """

    how: str
    what: Any = None
    name: str = ""


Place = tuple[Access, ...]


class Fact(NamedTuple):
    """Something that must hold of a part.

    Attributes
    ----------
    place : tuple of Access
        Where the part is; an empty one is the whole.
    test : str
        What is compared: the method of `match._Checks` of that name, after an underscore, writes how. With
        "items", the parts of a list or a tuple are reached as well.
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
    branches : dict of int to Place
        Where the modules of the arguments are, by their identity.
    settings : dict of int to Place
        Where the arguments hold objects that are no arrays and may change, by their identity.
    owned, constants : dict of int to str
        The arrays from outside that modules hold, and all others, by their identity, with names for people.
    holder : str
        Which attribute of an object holds a traced or recorded array, for people; empty if none does.

    Raises
    ------
    NotRecordableError
        If there is something among the arguments that cannot be compared.
    """

    def __init__(self, values: Any, function: Any = None, *, refuse: bool = True) -> None:
        self._refuse = refuse
        self._descriptions: dict[int, tuple[Any, Any]] = {}  # of containers, which may be long
        # The attributes that functions of the user's name: of anything, and of objects by their identity.
        self._names: set[str] = set()
        self._named: set[tuple[int, str]] = set()
        # Again, as long as functions are found that name more attributes: these may have been passed by.
        found = -1
        while found != len(self._names) + len(self._named):
            found = len(self._names) + len(self._named)
            self.facts: dict[Fact, bool] = {}
            self.arrays: list[Place] = []
            self.branches: dict[int, Place] = {}
            self.settings: dict[int, Place] = {}
            self.owned: dict[int, str] = {}
            self.constants: dict[int, str] = {}
            self.holder = ""
            self._seen: dict[int, tuple[Place, Any]] = {}
            # What functions have as their first argument, by their identity: an object, or its class.
            self._bound: dict[int, Any] = {}
            self._root = function.__func__ if isinstance(function, types.MethodType) else function
            try:
                self._of_arguments = True
                self._visit(values, (), _Reached("tree"))
                self._of_arguments = False
                if function is not None:
                    self._visit(function, (Access("object", Identity(function)),), _OUTSIDE)
            except RecursionError:
                raise NotRecordableError(
                    "xpnet.jit compares what is no array, received something that is nested more deeply than "
                    "Python goes. Pass it without so many objects inside each other."
                ) from None

    @property
    def reads_arrays(self) -> bool:
        """Whether there are arrays that do not stand for others, and are not compared."""
        return bool(self.owned or self.constants)

    def must_be_same(self, value: Any) -> bool:
        """Let a value that came from outside be the same object from now on, and say whether it is one."""
        if id(value) in self._seen and not is_fixed(value):
            self.facts[Fact(self._seen[id(value)][0], "is", Identity(value))] = True
            return True
        return is_fixed(value) or (data_or_none(value) is not None and is_constant(value))

    def outside(self) -> dict[int, Any]:
        """Return the objects that functions read from outside, by their identity."""
        return {number: value for number, (_, value) in self._seen.items() if number not in self.settings}

    def found(self, kinds: type | tuple[type, ...]) -> list:
        """Return the objects of some classes that were looked at."""
        return [value for _, value in self._seen.values() if isinstance(value, kinds)]

    def leave_out_changed(self, after: "Facts") -> list[str]:
        """Leave out what the function changed itself while it was recorded: what does not hold afterwards.

        Returns
        -------
        list of str
            The numbers among it, by their names for people.
        """
        changed = [fact for fact, is_outside in self.facts.items() if is_outside and fact not in after.facts]
        for fact in changed:
            del self.facts[fact]
        numbers = [
            fact for fact in changed if fact.test == "constant_data" and _is_number(fact.expected.value)
        ]
        return [_name(fact.place) for fact in numbers if Access("reduced") not in fact.place]

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
        """Write down a fact."""
        self.facts[Fact(place, test, expected)] = reached.by == "outside"

    def _visit(self, value: Any, place: Place, reached: _Reached) -> None:
        """Write down what must hold of a part."""
        if tree.is_array(value):
            self._array(value, place, reached)
        elif is_fixed(value):
            self._hold(place, "is", Identity(value), reached)
            if isinstance(value, type):
                self._named.update((id(owner), name) for owner in owners(value) for name in _OF_MAKING)
                self._class(value)
            elif isinstance(value, Enum):
                self._class(type(value))
            elif isinstance(value, types.ModuleType):
                self._module(value)
        elif (described := self._described(value, reached)) is not None:
            constant = is_constant(value)
            self._hold(place, "constant_data" if constant else "data", _Described(described, value), reached)
            if not constant:
                self._seen[id(value)] = place, value
                self._setting(value, place, reached)
        elif id(value) in self._seen:
            self._hold(place, "same_part", self._seen[id(value)][0], reached)
        else:
            if reached.by != "tree" or tree.node(value) is None:
                self._seen[id(value)] = place, value
            self._setting(value, place, reached)
            self._inside(value, place, reached)

    def _described(self, value: Any, reached: _Reached) -> Any:
        """Return the description of data; None for what is looked at part by part."""
        # What a function writes to a container from outside, it writes to the whole.
        if _is_short(value) and reached.by != "outside":
            return None
        if type(value) not in (list, dict, set, tuple, frozenset):
            return data_or_none(value)
        if id(value) not in self._descriptions:
            self._descriptions[id(value)] = data_or_none(value), value
        return self._descriptions[id(value)][0]

    def _setting(self, value: Any, place: Place, reached: _Reached) -> None:
        if reached.by == "setting" or (reached.by == "tree" and tree.node(value) is None):
            self.settings[id(value)] = place

    def _inside(self, value: Any, place: Place, reached: _Reached) -> None:
        """Write down what must hold of the parts of a part."""
        kind = type(value)
        if place[-1:] != (Access("object", Identity(value)),):  # which cannot be of another type
            self._hold(place, "type", Identity(kind), reached)
        if isinstance(value, tree.Branch):
            self._branch(value, place, reached)
        elif (node := tree.node(value)) is not None:
            self._node(value, node.parts, place, reached)
        elif kind is types.FunctionType:
            self._function(value, place, reached)
        elif kind is types.MethodType:
            self._bound[id(value.__func__)] = value.__self__
            self._attribute(value, "__func__", place, reached)
            self._attribute(value, "__self__", place, _OUTSIDE)
        elif kind is types.BuiltinMethodType:  # of a container, say
            self._attribute(value, "__name__", place, reached)
            self._attribute(value, "__self__", place, _OUTSIDE)
        elif kind is functools.partial:
            for name in ("func", "args", "keywords"):
                self._attribute(value, name, place, _OUTSIDE)
        elif callable(value) and "__wrapped__" in getattr(value, "__dict__", ()) and is_installed(kind):
            self._attribute(value, "__wrapped__", place, reached)  # `jit`, `functools.lru_cache`
        else:
            self._object(value, place, reached)

    def _array(self, value: Any, place: Place, reached: _Reached) -> None:
        # A number that is read from outside is as one of Python's.
        kinds: dict[str, Any] = {"tree": (), "outside": numpy.generic, "setting": numpy.ndarray}
        if not stands_for_others(value) or isinstance(value, kinds[reached.by]):
            self._hold(place, "elements", _Described(data_of_array(value), value), reached)
            if reached.by == "tree":
                self.settings[id(value)] = place
        elif reached.by == "tree":
            self.arrays.append(place)
            self._hold(place, "array", kind_of_array(value), reached)
            library = library_of(value)
            if library and library.defaults:
                self._hold((Access("object", Identity(library)),), "defaults", library.defaults(), reached)
        elif reached.by == "outside":
            if self._of_arguments:  # another function, or another class, may come with another one
                self._hold(place, "is", Identity(value), reached)
            if isinstance(value, ArrayObject) and place[-2:-1] == (Access("vars"),):
                self.holder = self.holder or _name(place)
            (self.owned if reached.owner else self.constants)[id(value)] = _name(place, reached.owner)
        elif self._refuse:
            raise NotRecordableError(
                f"xpnet.jit takes arrays in modules, dataclasses, dicts, lists and tuples, received "
                f"{_name(place, reached.owner)}, whose class is none of these. Pass a dict or a dataclass."
            )
        else:
            self._hold(place, "is", Identity(value), reached)

    def _branch(self, value: tree.Branch, place: Place, reached: _Reached) -> None:
        names = names_of(vars(value))
        inside = (*place, Access("vars"))
        self._hold(inside, "names", names, reached)
        self._class(type(value))
        if reached.by == "tree":
            self.branches[id(value)] = place
        owner = type(value).__name__
        by = "setting" if reached.by == "tree" else reached.by
        for name in names:
            is_leaf = reached.by == "tree" and tree.is_child_of(value, name)
            rest = reached if is_leaf else _Reached(by, reached.owner or owner)
            self._visit(vars(value)[name], (*inside, Access("item", name, name)), rest)

    def _node(self, value: Any, parts: list, place: Place, reached: _Reached) -> None:
        if is_dataclass(value):
            self._dataclass(value, parts, place, reached)
            return
        if isinstance(value, dict):
            self._hold(place, "keys", _Described(data([*value], Identity), [*value]), reached)
        elif type(value) in (list, tuple):
            self._hold(place, "items", (type(value), len(parts)), reached)
        else:
            self._hold(place, "length", len(parts), reached)
        for entry, item in parts:
            self._visit(item, (*place, Access("item", entry, str(entry))), reached)

    def _dataclass(self, value: Any, parts: list, place: Place, reached: _Reached) -> None:
        self._class(type(value))
        if hasattr(value, "__dict__"):
            self._hold((*place, Access("vars")), "names", names_of(vars(value)), reached)
        for name, item in parts:
            self._visit(item, (*place, Access("attribute", name, name)), reached)
        setting = _Reached("setting" if reached.by == "tree" else reached.by, type(value).__name__)
        children = {name for name, _ in parts}
        for name in (name for name in names_of(tree.attributes_of(value)) if name not in children):
            self._visit(getattr(value, name), (*place, Access("attribute", name, name)), setting)

    def _attribute(self, value: Any, name: str, place: Place, reached: _Reached) -> None:
        self._visit(getattr(value, name), (*place, Access("attribute", name)), reached)

    def _function(self, function: types.FunctionType, place: Place, reached: _Reached) -> None:
        """Look at what a function reads from outside: its defaults, its closure and globals that it names."""
        code = function.__code__
        self._hold((*place, Access("attribute", "__code__")), "code", Identity(code), reached)
        for name in ("__defaults__", "__kwdefaults__"):
            if getattr(function, name):
                self._attribute(function, name, place, _OUTSIDE)
        for number, name, content in contents_of_cells(function):
            if name == "__class__":  # for `super`: where the function stands
                continue
            if content is UNKNOWN:
                self._hold(place, "empty_cell", number, _OUTSIDE)
            else:
                self._visit(content, (*place, Access("cell", number, name)), _OUTSIDE)
        if is_installed(function):
            return
        space = (*place, Access("attribute", "__globals__"))
        for name in names_of_globals(code):
            if name not in function.__globals__:  # a function of Python's, or one that is not there yet
                self._hold(space, "lacks", name, _OUTSIDE)
            else:
                self._visit(function.__globals__[name], (*space, Access("item", name, name)), _OUTSIDE)
        self._read(code, function)
        if vars(function):
            self._attributes(function, (*place, Access("vars")), _OUTSIDE)

    def _read(self, code: types.CodeType, function: types.FunctionType) -> None:
        """Find out which attributes a function names, and those inside it, and of what."""
        first = code.co_varnames[:1] if code is function.__code__ and code.co_argcount else ()
        cells = {name: content for _, name, content in contents_of_cells(function)}
        for named in references(code):
            value: Any = UNKNOWN
            if named.name in _ALL_ATTRIBUTES:
                self._names.add(named.name)
            if named.kind == "global":
                value = function.__globals__.get(named.name, UNKNOWN)
            elif named.kind == "cell":
                value = cells.get(named.name, UNKNOWN)
            elif named.kind == "module":
                value = sys.modules.get(named.name, UNKNOWN)
                if isinstance(value, types.ModuleType):
                    self._module(value)
            elif named.is_argument and (named.name,) == first and id(function) in self._bound:
                value = self._bound[id(function)]
            elif named.is_argument and function is self._root and code is function.__code__:
                continue  # which is compared as a whole
            self._follow(value, named.attributes)
        for each in inner(code):
            self._read(each, function)

    def _follow(self, value: Any, attributes: tuple[str, ...]) -> None:
        """Note which attributes are read, one from the other, beginning with those of a value."""
        for number, name in enumerate(attributes):
            if value is UNKNOWN:  # any object may be meant
                self._names.update(attributes[number:])
                return
            self._named.update((id(owner), name) for owner in owners(value))
            value = static(value, name)

    def _is_named(self, value: Any, name: str) -> bool:
        return name in self._names or any((id(owner), name) in self._named for owner in owners(value))

    def _attributes(self, value: Any, place: Place, reached: _Reached) -> None:
        """Look at those attributes that functions name."""
        for name, item in [*vars(value).items()]:
            if self._is_named(value, name):
                self._visit(item, (*place, Access("item", name, name)), reached)

    def _module(self, module: types.ModuleType) -> None:
        """Look at what functions name of a module of the user's."""
        if not is_installed(module) and id(module) not in self._seen:
            place = (Access("object", Identity(module)), Access("vars"))
            self._seen[id(module)] = place, module
            self._attributes(module, place, _OUTSIDE)

    def _class(self, cls: type) -> None:
        """Look at the methods of a class of the user's, and at its attributes that functions name."""
        kinds: tuple[type, ...] = cls.__mro__ + type.__getattribute__(type(cls), "__mro__")
        for each in kinds:
            if is_installed(each) or id(each) in self._seen:
                continue
            place = (Access("object", Identity(each)), Access("vars"))
            self._seen[id(each)] = place, each
            names = names_of(vars(each))
            self._hold(place, "class_names", (names, tuple(vars(each))), _OUTSIDE)
            for name in names:
                value = vars(each)[name]
                is_function = type(value) is types.FunctionType or hasattr(value, "__wrapped__")
                is_operator = name[:2] == "__" and is_function and name not in _OF_MAKING
                if is_operator or self._is_named(each, name):
                    self._member(value, each, (*place, Access("item", name, name)))

    def _member(self, value: Any, cls: type, place: Place) -> None:
        """Look at an attribute of a class: a function, what Python makes one of, or something else."""
        for kinds, attribute in _MADE_OF_FUNCTIONS:
            if isinstance(value, kinds):
                self._bound[id(getattr(value, attribute))] = cls
                self._attribute(value, attribute, place, _OUTSIDE)
                return
        self._bound[id(value)] = cls
        self._visit(value, place, _OUTSIDE)

    def _object(self, value: Any, place: Place, reached: _Reached) -> None:
        """Look at an object of a class that is not known here."""
        kind = type(value)
        outside = reached.by == "outside"
        way = way_into(value)
        if way == "none" or (way == "unknown" and (outside or not self._refuse)):
            self._hold(place, "is", Identity(value), reached)
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
            self._visit(reduced(value), (*place, Access("reduced")), reached)
            return
        for name in names_of_slots(kind):
            if hasattr(value, name):
                self._visit(getattr(value, name), (*place, Access("attribute", name, name)), reached)
            else:
                self._hold(place, "unset", name, reached)
        if hasattr(value, "__dict__"):
            inside = (*place, Access("vars"))
            whole = not outside or isinstance(value, _CONTAINERS) or is_dataclass(value)
            if whole or not self._names.isdisjoint(_ALL_ATTRIBUTES):
                self._all_attributes(value, inside, reached)
            else:
                self._attributes(value, inside, reached)
                for name in sorted(dir(kind)):
                    if name not in vars(value) and self._is_named(value, name):
                        self._hold(inside, "lacks", name, reached)

    def _all_attributes(self, value: Any, place: Place, reached: _Reached) -> None:
        # What an optimizer keeps of what it computed follows from its settings.
        kept = {name for name in vars(value) if is_installed(type(value)) and is_cached_property(value, name)}
        attributes = {name: item for name, item in vars(value).items() if name not in kept}
        if not kept:
            self._hold(place, "names", tuple(attributes), reached)
        for name, item in attributes.items():
            self._visit(item, (*place, Access("item", name, name)), reached)


# With one of these, a function can read attributes that it does not name.
_ALL_ATTRIBUTES = frozenset({"__dict__", "dir", "getattr", "hasattr", "vars"})

# What Python calls to make an object, or to show one, and not when an object is used.
_OF_MAKING = frozenset({"__init__", "__init_subclass__", "__new__", "__post_init__", "__repr__", "__str__"})

# Of these, all is compared: what is in them is not named by attributes.
_CONTAINERS = Mapping, Sequence, Set

# What Python makes of functions that stand in a class, and where these are.
_MADE_OF_FUNCTIONS = (
    ((staticmethod, classmethod), "__func__"),
    (property, "fget"),
    ((functools.cached_property, functools.partialmethod), "func"),
)


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


def stands_for_others(x: Any) -> bool:
    """Say whether an argument is an array that stands for others, a *dynamic* one: its values may change.

    An array of texts or dates does not: it is compared.
    """
    is_of_numbers = not isinstance(x, numpy.ndarray | numpy.generic) or x.dtype.kind not in "MOSUm"
    return is_of_numbers and tree.is_array(x)


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
    pairs = ((arrays[i], y) for i in written for j, y in enumerate(arrays) if j != i)
    return not any(x is y or share_memory(x, y) for x, y in pairs)


def share_memory(x: Any, y: Any) -> bool:
    """Say whether two arrays of NumPy's may have memory in common; those of others do not say."""
    return isinstance(x, numpy.ndarray) and isinstance(y, numpy.ndarray) and numpy.may_share_memory(x, y)


def _name(place: Place, owner: str = "") -> str:
    """Return what people call a part."""
    names = [step.name for step in place if step.name]
    if place and place[0].how == "item" and len(names) > 1:  # of the arguments by position, or by name
        names = [f"argument {names[1]}", *names[2:]]
    name = ".".join(names) or "an argument"
    return f"{name} of a {owner}" if owner else name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) and not isinstance(value, bool)
