"""Taking the arrays out of the arguments of a call, and putting those of a result into its tree.

`tree.flatten` and `tree.unflatten` can do it for any tree. But what a plan was recorded for is known, and
functions for just that need a fraction of the time, which counts for small networks. Their source is written
here. `matcher` also checks the facts of `facts.py`, which must hold for a plan to serve a call.
"""

import copy
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import array_api_compat
import numpy

from xpnet import tree
from xpnet.replay.same.data import data, data_of_array, has_items, snapshot
from xpnet.replay.same.facts import Access, Fact, Facts, Place, apart, stands_for_others
from xpnet.replay.same.objects import is_empty, names_of, reduced


class _Writer:
    """The lines of a function, and the objects that they name."""

    def __init__(self, **constants: Any) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = constants
        self._named = {id(value): name for name, value in constants.items()}

    def _constant(self, value: Any) -> str:
        """Return the name of an object."""
        name = self._named.setdefault(id(value), f"constant_{len(self.constants)}")
        self.constants[name] = value
        return name

    def _literal(self, value: Any) -> str:
        return repr(value) if type(value) in (int, str) else self._constant(value)

    def function(self, head: str, body: Iterable[str]) -> Callable[..., Any]:
        """Return the function that the lines make."""
        exec(f"def {head}:\n" + "".join(f"    {line}\n" for line in body), self.constants)
        return self.constants[head.partition("(")[0]]


def matcher(
    facts: Facts, others: Iterable[Place] = (), is_unusual: Callable[[tuple], int] | None = None
) -> Callable[[Any], tuple[tuple, tuple, bool] | None]:
    """Return a function that checks what must hold of arguments, and takes the arrays out of them.

    Parameters
    ----------
    facts : Facts
    others : iterable of Place
        What else is to be taken out.
    is_unusual : callable, optional
        Says of the arrays whether any is not what it was when this was recorded, or may be not. If none is,
        they need not be compared one by one.

    Returns
    -------
    callable
        ``match(values)`` returns the arrays, in the order of `tree.leaves`, the other parts, and whether no
        array is unusual; or None if a fact does not hold.
    """

    def is_later(fact: Fact) -> bool:
        """Say whether it is one of an array of NumPy's own class, which seldom has to be looked at."""
        usual = (numpy.ndarray, numpy.generic)
        return is_unusual is not None and fact.test == "array" and fact.expected[0] in usual

    writer = _Checks(fact for fact in facts.facts if not is_later(fact))
    arrays, rest = ("".join(f"{writer.part(place)}, " for place in each) for each in (facts.arrays, others))
    if is_unusual is None:
        return writer.matching(f"({arrays}), ({rest}), False")
    writer.constants["is_unusual"] = is_unusual
    writer.lines += [f"arrays = {arrays}", f"if not is_unusual(arrays): return arrays, ({rest}), True"]
    for fact in filter(is_later, facts.facts):
        writer.check(fact)
    return writer.matching(f"arrays, ({rest}), False")


def alike(value: Any) -> Callable[[Any], bool | None]:
    """Return a function that tells what is of the same kind: what may share recordings.

    Functions may read other things from outside. What cannot be compared has to be the same object.
    """
    return _Checks(Facts(value, refuse=False).inside()).matching("True")


# What objects have as long as they live, so that it is looked up once.
_LASTING: dict[str, Any] = {
    "__closure__": types.FunctionType,
    "__dict__": (type, types.ModuleType),
    "__globals__": types.FunctionType,
}


class _Checks(_Writer):
    """Writes how facts are checked, and how their parts are reached."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        super().__init__(
            apart=apart,
            data=data,
            device=array_api_compat.device,
            data_of_array=data_of_array,
            has_items=has_items,
            is_empty=is_empty,
            names_of=names_of,
            ndarray=numpy.ndarray,
            number=numpy.generic,
            reduced=reduced,
        )
        self._parts: dict[Place, str] = {(): "values"}
        for fact in facts:
            self.check(fact)

    def matching(self, result: str) -> Callable[[Any], Any]:
        """Return a function that gives a result, or None if a fact does not hold."""
        lines = [*self.lines, f"return {result}"]
        # An exception tells that a part is missing, or that an object of another class cannot be compared.
        body = ["try:", *(f"    {line}" for line in lines), "except Exception:", "    return None"]
        return self.function("match(values)", body)

    def part(self, place: Place) -> str:
        """Return the name of a part, after the lines that reach it."""
        if place not in self._parts:
            text = self._reached(place[-1], place[:-1])
            if text in self.constants:
                self._parts[place] = text
            else:
                self.lines.append(f"{self._new(place)} = {text}")
        return self._parts[place]

    def _reached(self, step: Access, place: Place) -> str:
        """Return the expression of what is one step from a place."""
        if step.how == "object":
            return self._constant(step.what.value)
        whole = self.part(place)
        if step.how == "item":
            return f"{whole}[{self._literal(step.what)}]"
        if step.how == "reduced":
            return f"reduced({whole})"
        name = {"cell": "__closure__", "vars": "__dict__"}.get(step.how, step.what)
        known = self.constants.get(whole)
        if isinstance(known, _LASTING.get(name, ())):
            text = self._constant(getattr(known, name))
        else:
            text = f"{whole}.{name}"
        return f"{text}[{step.what}].cell_contents" if step.how == "cell" else text

    def _new(self, place: Place) -> str:
        """Return a name for a part that the next line reaches."""
        self._parts[place] = f"part_{len(self._parts)}"
        return self._parts[place]

    def check(self, fact: Fact) -> None:
        """Write that a fact must hold."""
        part = self.part(fact.place)
        if fact.test == "items":  # taken all at once, which raises where there are more, or fewer
            _, length = fact.expected
            places = ((*fact.place, Access("item", index, str(index))) for index in range(length))
            self.lines.append(f"[{', '.join(map(self._new, places))}] = {part}")
        else:
            wrong = getattr(self, f"_{fact.test}")(part, fact.expected)
            self.lines.append(f"if {wrong}: return None")

    # -- what does not hold, for each test ----------------------------------------------------------------

    def _is(self, part: str, expected: Any) -> str:
        return f"{part} is not {self._constant(expected.value)}"

    def _same_part(self, part: str, expected: Place) -> str:
        return f"{part} is not {self.part(expected)}"

    def _type(self, part: str, expected: Any) -> str:
        return f"type({part}) is not {self._constant(expected.value)}"

    def _length(self, part: str, expected: int) -> str:
        return f"len({part}) != {expected}"

    def _code(self, part: str, expected: Any) -> str:
        code = self._constant(expected.value)
        return f"{part} is not {code} and {part} != {code}"

    def _names(self, part: str, expected: tuple[str, ...]) -> str:
        # First what is sooner compared: the attributes of a module that came out of a tree, or was in none.
        usual = self._constant(([*expected, "_children"], [*expected]))
        return f"[*{part}] not in {usual} and names_of({part}) != {self._constant(expected)}"

    def _class_names(self, part: str, expected: tuple) -> str:
        names, everything = expected
        usual = f"[*{part}] != {self._constant([*everything])}"
        return f"{usual} and names_of({part}) != {self._constant(names)}"

    def _lacks(self, part: str, expected: str) -> str:
        return f"{expected!r} in {part}"

    def _unset(self, part: str, expected: str) -> str:
        return f"hasattr({part}, {expected!r})"

    def _empty_cell(self, part: str, expected: int) -> str:
        return f"not is_empty({part}.__closure__[{expected}])"

    def _keys(self, part: str, expected: Any) -> str:
        keys, kinds = expected.value, [*map(type, expected.value)]
        wrong = f"[*{part}] != {self._constant(keys)}"
        if set(kinds) == {str}:
            return wrong
        return f"[*map(type, {part})] != {self._constant(kinds)} or {wrong}"  # 1 and True are equal

    def _data(self, part: str, expected: Any) -> str:
        if expected.value in ([], {}):  # no keywords, as is usual
            return f"type({part}) is not {type(expected.value).__name__} or {part}"
        wrong = f"data({part}) != {self._constant(expected.description)}"
        kind = type(expected.value)
        items = snapshot(expected.value) if kind in (list, dict, set) else None
        if items is None:
            return wrong
        return f"not has_items({part}, {self._constant(kind)}, {self._constant(items)}) and {wrong}"

    def _constant_data(self, part: str, expected: Any) -> str:
        return f"{part} is not {self._constant(expected.value)} and {self._data(part, expected)}"

    def _array(self, part: str, expected: tuple) -> str:
        kind, shape, dtype, *rest = expected
        known = self._constant(dtype)
        wrong = f"{part}.shape != {shape} or ({part}.dtype is not {known} and {part}.dtype != {known})"
        if kind is not numpy.generic:
            wrong = f"type({part}) is not {self._constant(kind)} or {wrong}"
        else:
            wrong = f"not (type({part}) is ndarray or isinstance({part}, number)) or {wrong}"
            if numpy.dtype(dtype.type) == dtype:  # the class of a number says all
                wrong = f"type({part}) is not {self._constant(dtype.type)} and ({wrong})"
        if rest:
            place, weak = rest
            wrong += f" or device({part}) != {self._constant(place.value)}"
            wrong += f" or getattr({part}, 'weak_type', False) is not {weak}" if weak is not None else ""
        return wrong

    def _apart(self, _part: str, expected: tuple) -> str:
        places, written = expected
        return f"not apart([{', '.join(map(self.part, places))}], {written})"

    def _defaults(self, part: str, expected: Any) -> str:
        return f"{part}.defaults() != {self._constant(expected)}"

    def _elements(self, part: str, expected: Any) -> str:
        return f"data_of_array({part}) != {self._constant(expected.description)}"

    def _number(self, part: str, expected: int) -> str:
        return f"{part} != {expected}"


def builder(
    structure: Any, leaves: list, written: list[tuple[tree.Branch, str]], facts: Facts
) -> tuple[Callable[[Sequence, Sequence], Any], dict[Place, Any]]:
    """Return a function that puts arrays into a tree.

    Parameters
    ----------
    structure : structure of a tree
        As `tree.flatten` returns it, of a pair: what is returned, and a list of what is written.
    leaves : list
        The leaves. In the place of those that are arrays, others will stand.
    written : list of (tree.Branch, str)
        To which attributes of modules among the arguments.
    facts : Facts
        Of the arguments: what the tree holds of these is taken from them each time.

    Returns
    -------
    build : callable
        ``build(arrays, others)`` returns the first of the pair, and writes what is in the second.
    others : dict of Place to object
        Which parts of the arguments it needs, and what is there now.
    """
    template = list(leaves)
    names: list[str] = []
    for index in (index for index, leaf in enumerate(leaves) if stands_for_others(leaf)):
        names.append(f"array_{len(names)}")
        template[index] = _Array(names[-1])
    writer = _Builder(facts)
    returned, values = tree.unflatten(structure, template)
    result = writer.text(returned)
    writes = [
        f"setattr({writer.other(facts.branches[id(branch)], branch)}, {name!r}, {writer.text(value)})"
        for (branch, name), value in zip(written, values, strict=True)
    ]
    body = [f"[{', '.join(names)}] = arrays", *writer.lines, f"result = {result}", *writes, "return result"]
    return writer.function("build(arrays, others)", body), writer.others


class _Array(NamedTuple):
    """Where an array will stand."""

    name: str


class _Builder(_Writer):
    """Writes the expressions that make a tree anew."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(new=object.__new__, copied=_copied)
        self._facts = facts
        self._outside = facts.outside()
        self._numbers: dict[Place, int] = {}
        self.others: dict[Place, Any] = {}

    def text(self, value: Any) -> str:
        """Return the expression of a part of the tree."""
        kind = type(value)
        if kind is _Array:
            return value.name
        if isinstance(value, tree.Branch):
            children = vars(value).get("_children", ())
            items = {
                key: self.text(item) if key in children else self._setting(item)
                for key, item in vars(value).items()
            }
            name = f"part_{len(self.lines)}"
            # Not by `__setattr__`, which may do anything.
            self.lines += [f"{name} = new({self._constant(kind)})", f"attributes = {name}.__dict__"]
            self.lines += [f"attributes[{key!r}] = {item}" for key, item in items.items()]
            return name
        if kind in (dict, list, tuple):
            return self._container(value, self.text)
        node = tree.node(value)
        if node is None or value is None:
            return self._setting(value)
        return f"{self._constant(node.build)}([{', '.join(self.text(x) for _, x in node.parts)}])"

    def _container(self, value: Any, text: Callable[[Any], str]) -> str:
        """Return the expression of a dict, a list or a tuple, from those of what is in it."""
        if type(value) is dict:
            return f"{{{', '.join(f'{self._literal(key)}: {text(item)}' for key, item in value.items())}}}"
        items = "".join(f"{text(item)}, " for item in value)
        return f"[{items}]" if type(value) is list else f"({items})"

    def _setting(self, value: Any) -> str:
        """Return the expression of something that is no array."""
        if id(value) in self._facts.settings:
            return self.other(self._facts.settings[id(value)], value)
        constant = self._constant(value)
        if self._facts.must_be_same(value):
            return constant
        # What the function made, and may be changed, is made anew each time.
        if type(value) in (dict, list, tuple):
            return self._container(value, self._setting)
        copied = self._constant(_copied(value, self._outside))
        return f"copied({copied}, {self._constant(self._outside)})"

    def other(self, place: Place, value: Any) -> str:
        """Return the expression of a part of the arguments."""
        self.others[place] = value
        return f"others[{self._numbers.setdefault(place, len(self._numbers))}]"


def _copied(value: Any, outside: dict[int, Any]) -> Any:
    """Copy an object that a function made, but not what it holds from outside."""
    try:
        return copy.deepcopy(value, outside.copy())
    except Exception:  # there are objects that cannot be copied
        return value
