"""Taking the arrays out of the arguments of a call, and putting those of a result into its tree.

`tree.flatten` and `tree.unflatten` can do it for any tree. But what a plan was recorded for is known, and
functions for just that need a fraction of the time, which counts for small networks. Their source is written
here. `matcher` also checks the facts of `facts.py`, which must hold for a plan to serve a call.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import array_api_compat
import numpy

from xpnet import tree
from xpnet.replay.same.data import data, data_of_array, has_items, snapshot
from xpnet.replay.same.facts import Fact, Facts, Place, apart, stands_for_others
from xpnet.replay.same.objects import is_empty, names_of, reduced


class _Writer:
    """The lines of a function, and the objects that they name."""

    def __init__(self, **constants: Any) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = constants

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name


def matcher(facts: Facts, settings: Iterable[Place] = ()) -> Callable[[Any], tuple[list, list] | None]:
    """Return a function that checks what must hold of arguments, and takes the arrays out of them.

    Parameters
    ----------
    facts : Facts
    settings : iterable of Place
        What else is to be taken out.

    Returns
    -------
    callable
        ``match(values)`` returns the arrays, in the order of `tree.leaves`, and the settings; or None if a
        fact does not hold.
    """
    writer = _Checks(facts.facts)
    arrays, others = ([writer.part(place) for place in places] for places in (facts.arrays, settings))
    return writer.function(f"[{', '.join(arrays)}], [{', '.join(others)}]")


def alike(value: Any) -> Callable[[Any], bool | None]:
    """Return a function that tells what is of the same kind: what may share recordings.

    Functions may read other things from outside. What cannot be compared has to be the same object.
    """
    return _Checks(Facts(value, refuse=False).inside()).function("True")


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
            numbers=(numpy.ndarray, numpy.generic),
            reduced=reduced,
        )
        self._parts: dict[Place, str] = {(): "values"}
        for fact in facts:
            self._check(fact)

    def function(self, result: str) -> Callable[[Any], Any]:
        """Return a function that gives a result, or None if a fact does not hold."""
        body = [*self.lines, f"return {result}"]
        exec("def match(values):\n" + "".join(f"    {line}\n" for line in body), self.constants)
        match = self.constants["match"]

        def safe(values: Any) -> Any:
            try:
                return match(values)
            except Exception:  # a part is missing, or an object of another class cannot be compared
                return None

        return safe

    def part(self, place: Place) -> str:
        """Return the name of a part, after the lines that reach it."""
        if place not in self._parts:
            step = place[-1]
            if step.how == "object":
                self._parts[place] = self._constant(step.what.value)
                return self._parts[place]
            whole = self.part(place[:-1])
            if step.how == "cell":
                text = f"{whole}.__closure__[{step.what}].cell_contents"
            elif step.how == "item":
                text = f"{whole}[{self._literal(step.what)}]"
            elif step.how == "reduced":
                text = f"reduced({whole})"
            else:
                text = f"{whole}.{'__dict__' if step.how == 'vars' else step.what}"
            self._parts[place] = name = f"part_{len(self._parts)}"
            self.lines.append(f"{name} = {text}")
        return self._parts[place]

    def _check(self, fact: Fact) -> None:
        """Write that a fact must hold."""
        part = self.part(fact.place)
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
        # First what is sooner compared, and usually so: the attributes of a module that came out of a tree.
        with_children = f"[*{part}] != {self._constant([*expected, '_children'])}"
        return f"{with_children} and names_of({part}) != {self._constant(expected)}"

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
        is_number = kind is numpy.generic
        wrong = (
            f"not isinstance({part}, numbers)" if is_number else f"type({part}) is not {self._constant(kind)}"
        )
        wrong += f" or {part}.shape != {shape} or {part}.dtype != {self._constant(dtype)}"
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

    def _literal(self, value: Any) -> str:
        return repr(value) if type(value) in (int, str) else self._constant(value)


def builder(
    structure: Any, leaves: list, facts: Facts
) -> tuple[Callable[[list, list], Any], dict[Place, Any]]:
    """Return a function that puts arrays into a tree.

    Parameters
    ----------
    structure : structure of a tree
        As `tree.flatten` returns it.
    leaves : list
        The leaves. In the place of those that are arrays, others will stand.
    facts : Facts
        Of the arguments: what the tree holds of these is taken from them each time.

    Returns
    -------
    build : callable
        ``build(arrays, settings)`` returns the tree.
    settings : dict of Place to object
        Which parts of the arguments it needs, and what is there now.
    """
    template = list(leaves)
    for number, place in enumerate(index for index, leaf in enumerate(leaves) if stands_for_others(leaf)):
        template[place] = _Array(number)
    writer = _Builder(facts)
    result = writer.text(tree.unflatten(structure, template))
    body = [*writer.lines, f"return {result}"]
    exec("def build(x, settings):\n" + "".join(f"    {line}\n" for line in body), writer.constants)
    return writer.constants["build"], writer.settings


class _Array(NamedTuple):
    """Where an array will stand."""

    number: int


class _Builder(_Writer):
    """Writes the expressions that make a tree anew."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(new=object.__new__, copied=_copied)
        self._facts = facts
        self.settings: dict[Place, Any] = {}

    def text(self, value: Any) -> str:
        """Return the expression of a part of the tree."""
        kind = type(value)
        if kind is _Array:
            return f"x[{value.number}]"
        if isinstance(value, tree.Branch):
            name = f"part_{len(self.lines)}"
            self.lines.append(f"{name} = new({self._constant(kind)})")
            children = vars(value).get("_children", ())
            items = (
                f"{key!r}: {self.text(item) if key in children else self._setting(item)}"
                for key, item in vars(value).items()
            )
            self.lines.append(f"{name}.__dict__ = {{{', '.join(items)}}}")
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
            return f"{{{', '.join(f'{self._constant(key)}: {text(item)}' for key, item in value.items())}}}"
        items = "".join(f"{text(item)}, " for item in value)
        return f"[{items}]" if type(value) is list else f"({items})"

    def _setting(self, value: Any) -> str:
        """Return the expression of something that is no array."""
        if id(value) in self._facts.settings:
            place = self._facts.settings[id(value)]
            self.settings[place] = value
            return f"settings[{[*self.settings].index(place)}]"
        constant = self._constant(value)
        if self._facts.must_be_same(value):
            return constant
        # What the function made, and may be changed, is made anew each time.
        if type(value) in (dict, list, tuple):
            return self._container(value, self._setting)
        outside = self._constant(self._facts.outside())
        return f"copied({self._constant(_copied(value, self._facts.outside()))}, {outside})"


def _copied(value: Any, outside: dict[int, Any]) -> Any:
    """Copy an object that a function made, but not what it holds from outside."""
    try:
        return copy.deepcopy(value, outside.copy())
    except Exception:  # there are objects that cannot be copied
        return value
