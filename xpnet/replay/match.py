"""Taking the arrays out of the arguments of a call, and putting those of a result into its tree.

`tree.flatten` and `tree.unflatten` can do it for any tree. But what a plan was recorded for is known, and
functions for just that need a fraction of the time, which counts for small networks. Their source is written
here. `matcher` also tells whether a plan serves other arguments.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy

from xpnet import tree


class _NoMatchError(Exception):
    """There is something in the tree that only `tree.flatten` knows about."""


def matcher(values: Any) -> Callable[[Any], list | None] | None:
    """Return a function that takes the leaves out of trees like a given one.

    Parameters
    ----------
    values : tree
        With NumPy arrays at its leaves, and anything else, which must be equal in other trees.

    Returns
    -------
    callable or None
        ``match(values)`` returns the arrays, in the order of `tree.leaves`, or None if the tree is another
        one: in its structure, in the shapes or dtypes of its arrays, or in anything else. None where such a
        function cannot be written.
    """
    writer = _Checks()
    try:
        writer.visit("values", values)
    except _NoMatchError:
        return None
    body = [*writer.lines, f"return [{', '.join(writer.arrays)}]"]
    source = "def match(values):\n" + "".join(f"    {line}\n" for line in body)
    names: dict[str, Any] = writer.constants
    exec(source, names)
    match = names["match"]

    def safe(values: Any) -> list | None:
        try:
            return match(values)
        except (AttributeError, IndexError, KeyError, TypeError):  # a part is missing
            return None

    expected = [x for x in tree.leaves(values, state=True) if tree.is_array(x)]
    found = safe(values)
    agrees = found is not None and len(found) == len(expected)
    return safe if agrees and all(a is b for a, b in zip(found, expected, strict=True)) else None  # type: ignore[arg-type]


class _Source:
    """The lines of a function, and the objects that they name."""

    def __init__(self, **constants: Any) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = constants

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name


class _Checks(_Source):
    """Writes the checks of a tree, part by part."""

    def __init__(self) -> None:
        super().__init__(same=same, numbers=(numpy.ndarray, numpy.generic))
        self.arrays: list[str] = []
        self._count = 0

    def visit(self, place: str, value: Any) -> None:
        """Write the checks of what stands at a place, an expression."""
        name = self._name()
        kind = type(value)
        self.lines.append(f"{name} = {place}")
        if isinstance(value, numpy.ndarray | numpy.generic):
            shape, dtype, array = value.shape, self._constant(value.dtype), self._constant(kind)
            number = isinstance(value, numpy.generic) or not shape
            wrong = f"type({name}) is not {array}" if not number else f"not isinstance({name}, numbers)"
            self._unless(f"{wrong} or {name}.shape != {shape} or {name}.dtype != {dtype}")
            self.arrays.append(name)
        elif tree.is_array(value):
            raise _NoMatchError
        elif isinstance(value, tree.Branch):
            self._branch(name, value)
        elif kind is dict:
            self._unless(f"type({name}) is not dict or len({name}) != {len(value)}")
            for key in sorted(value) if _can_sort(value) else value:
                self.visit(f"{name}[{self._constant(key)}]", value[key])
        elif kind in (list, tuple) or hasattr(value, "_fields"):
            self._unless(f"type({name}) is not {self._constant(kind)} or len({name}) != {len(value)}")
            for index, item in enumerate(value):
                self.visit(f"{name}[{index}]", item)
        elif value is not None and not tree.is_leaf(value):
            raise _NoMatchError  # another container
        else:
            self._equal(name, value)

    def _branch(self, name: str, branch: tree.Branch) -> None:
        attributes = vars(branch)
        size = len(attributes) - ("_children" in attributes)
        self._unless(f"type({name}) is not {self._constant(type(branch))}")
        self.lines.append(f"{name} = {name}.__dict__")
        self._unless(f"len({name}) - ('_children' in {name}) != {size}")
        for key, value in attributes.items():
            if key != "_children":
                self.visit(f"{name}[{key!r}]", value)

    def _equal(self, name: str, value: Any) -> None:
        if _can_change(value):
            self._unless(f"not same({name}, {self._constant(copy.copy(value))})")
        else:
            constant = self._constant(value)
            self._unless(f"{name} is not {constant} and not same({name}, {constant})")

    def _unless(self, condition: str) -> None:
        self.lines.append(f"if {condition}: return None")

    def _name(self) -> str:
        self._count += 1
        return f"part_{self._count}"


def builder(structure: Any, leaves: list) -> Callable[[Sequence], Any]:
    """Return a function that puts arrays into a tree.

    Parameters
    ----------
    structure : structure of a tree
        As `tree.flatten` returns it.
    leaves : list
        The leaves. In the place of those that are arrays, others will stand.

    Returns
    -------
    callable
        ``build(arrays)`` returns the tree.
    """
    places = [index for index, leaf in enumerate(leaves) if tree.is_array(leaf)]
    template = list(leaves)
    for number, place in enumerate(places):
        template[place] = _Place(number)
    try:
        writer = _Builder()
        result = writer.text(tree.unflatten(structure, template))
    except _NoMatchError:

        def build(arrays: Sequence) -> Any:
            filled = template.copy()
            for place, array in zip(places, arrays, strict=True):
                filled[place] = array
            return tree.unflatten(structure, filled)

        return build
    source = "def build(x):\n" + "".join(f"    {line}\n" for line in [*writer.lines, f"return {result}"])
    exec(source, writer.constants)
    return writer.constants["build"]


class _Place(NamedTuple):
    """Where an array will stand."""

    number: int


class _Builder(_Source):
    """Writes the expressions that make a tree anew."""

    def __init__(self) -> None:
        super().__init__(new=object.__new__)

    def text(self, value: Any) -> str:
        """Return the expression of a part of the tree."""
        kind = type(value)
        if kind is _Place:
            return f"x[{value.number}]"
        if isinstance(value, tree.Branch):
            name = f"part_{len(self.lines)}"
            self.lines.append(f"{name} = new({self._constant(kind)})")
            children = vars(value).get("_children", ())
            items = (
                f"{key!r}: {self.text(item) if key in children else self._constant(item)}"
                for key, item in vars(value).items()
            )
            self.lines.append(f"{name}.__dict__ = {{{', '.join(items)}}}")
            return name
        if kind is dict:
            return f"{{{', '.join(f'{self._constant(key)}: {self.text(x)}' for key, x in value.items())}}}"
        if kind is list:
            return f"[{', '.join(map(self.text, value))}]"
        if kind is tuple:
            return f"({''.join(f'{self.text(x)}, ' for x in value)})"
        if hasattr(value, "_fields"):
            return f"{self._constant(kind)}({', '.join(map(self.text, value))})"
        if value is not None and not tree.is_leaf(value):
            raise _NoMatchError  # another container
        return self._constant(value)


def _can_sort(value: dict) -> bool:
    try:
        sorted(value)
    except TypeError:
        return False
    return True


def _can_change(value: Any) -> bool:
    """Say whether an object may be equal to another one now and not later: a set, or a dataclass."""
    fixed = isinstance(value, bool | int | float | complex | str | bytes | tuple | frozenset | None)
    return not fixed and type(value).__eq__ is not object.__eq__


def same(a: Any, b: Any) -> bool:
    """Say whether two settings are the same; 0.0 and -0.0 are equal and are not."""
    if type(a) is not type(b):
        return False
    return repr(a) == repr(b) if isinstance(a, float | complex) else (a == b) is True
