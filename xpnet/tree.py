"""Trees: nested dicts, lists, tuples and modules with arrays at their leaves.

A thin layer over `optree <https://optree.readthedocs.io>`_. A tree can be read in two ways:

- its *parameters*, what training changes (the default);
- *everything*: the parameters and the state that modules carry (``state=True``).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple

import array_api_compat
import optree

__all__ = [
    "flatten",
    "is_array",
    "leaves",
    "map",
    "paths",
    "unflatten",
]

_PARAMETERS = "xpnet.parameters"
_EVERYTHING = "xpnet.everything"


def _view(state: bool) -> str:
    return _EVERYTHING if state else _PARAMETERS


def flatten(tree: Any, *, state: bool = False) -> tuple[list, Any]:
    """Return the leaves of a tree in a fixed order, and its structure.

    Examples
    --------
    >>> from xpnet import tree
    >>> leaves, structure = tree.flatten({"a": 1.0, "b": [2.0, 3.0]})
    >>> leaves
    [1.0, 2.0, 3.0]
    """
    return optree.tree_flatten(tree, namespace=_view(state))


def unflatten(structure: Any, leaves: list) -> Any:
    """Build a tree of the given structure around new leaves.

    Examples
    --------
    >>> from xpnet import tree
    >>> leaves, structure = tree.flatten({"a": 1.0, "b": [2.0, 3.0]})
    >>> tree.unflatten(structure, [10.0, 20.0, 30.0])
    {'a': 10.0, 'b': [20.0, 30.0]}
    """
    return optree.tree_unflatten(structure, leaves)


def leaves(tree: Any, *, state: bool = False) -> list:
    """Return the leaves of a tree in a fixed order.

    Examples
    --------
    >>> from xpnet import nn, tree
    >>> [leaf.shape for leaf in tree.leaves(nn.Dense(2, 3))]
    [(2, 3), (3,)]
    """
    return optree.tree_leaves(tree, namespace=_view(state))


def paths(tree: Any, *, state: bool = False) -> list[str]:
    """Return a readable name for each leaf, such as ``layers.0.weight``.

    Examples
    --------
    >>> from xpnet import nn, tree
    >>> tree.paths(nn.Sequential(nn.Dense(2, 3), nn.ReLU()))
    ['layers.0.weight', 'layers.0.bias']
    """
    return [".".join(str(key) for key in path) for path in optree.tree_paths(tree, namespace=_view(state))]


def map(function: Callable, tree: Any, *rest: Any, state: bool = False) -> Any:
    """Apply a function to each leaf, together with the leaves at the same places of other trees.

    Raises
    ------
    ValueError
        If one of the other trees has another structure than the first.

    Examples
    --------
    >>> from xpnet import tree
    >>> tree.map(lambda weight, slope: weight - 0.1 * slope, {"w": 1.0}, {"w": 5.0})
    {'w': 0.5}
    """
    return optree.tree_map(function, tree, *rest, namespace=_view(state))


class Branch:
    """An object whose attributes take part in trees. `xpnet.nn.Module` is one.

    Attributes that hold an array, another branch, or a container with one of those are its children. The
    names in ``state`` are children only where everything is asked for. All other attributes are settings:
    they are copied along as they are.
    """

    state: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        # State carries no gradient: a traced array must not outlive its transform in a plain module. A module
        # that was passed to the transform is a traced copy, whose state is traced, too.
        if name in self.state and name in vars(self) and not hasattr(vars(self)[name], "node"):
            value = getattr(value, "value", value) if hasattr(value, "node") else value
        super().__setattr__(name, value)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        register: Callable = optree.register_pytree_node  # typed for collections alone
        for view in (_PARAMETERS, _EVERYTHING):
            register(cls, partial(_flatten_branch, view=view), _unflatten_branch, namespace=view)


class _Settings:
    """What a branch holds besides its children.

    Two trees fit together if they have the same classes and the same children; where everything is asked
    for, the settings have to agree too.
    """

    def __init__(
        self, cls: type, names: tuple[str, ...], values: dict[str, Any], order: tuple[str, ...], strict: bool
    ) -> None:
        self.cls, self.names, self.values, self.order, self.strict = cls, names, values, order, strict

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Settings):
            return NotImplemented
        same = self.cls is other.cls and self.names == other.names
        names = self.values.keys() | other.values.keys()
        return same and (not self.strict or all(self._value(name) == other._value(name) for name in names))

    def _value(self, name: str) -> Any:
        return self.values.get(name, getattr(self.cls, name, None))

    def __hash__(self) -> int:
        return hash((self.cls, self.names))

    def __repr__(self) -> str:
        return f"{self.cls.__name__}({', '.join(self.names)})"


def _flatten_branch(branch: Branch, view: str) -> tuple[list, _Settings, tuple[str, ...]]:
    attributes = vars(branch)
    everything = view == _EVERYTHING
    state = type(branch).state
    # A branch rebuilt around other leaves (shapes, say) remembers which attributes were its children.
    known = attributes.get("_children", ())
    names, children, values = [], [], {}
    for name, value in attributes.items():
        if everything if name in state else name in known or is_child(value):
            names.append(name)
            children.append(value)
        elif name != "_children":
            values[name] = value
    settings = _Settings(type(branch), tuple(names), values, tuple(attributes), everything)
    return children, settings, settings.names


def _unflatten_branch(settings: _Settings, children: list) -> Branch:
    branch: Branch = object.__new__(settings.cls)
    attributes = vars(branch)
    # The order of the attributes is that of the children, and has to stay in every view.
    attributes.update(dict.fromkeys(settings.order))
    attributes.update(settings.values)
    attributes.update(zip(settings.names, children, strict=True))
    attributes["_children"] = settings.names
    return branch


class Node(NamedTuple):
    """A node of a tree.

    Attributes
    ----------
    parts : list of (object, object)
        What is directly inside, in the order of its leaves: a key, an index, or the name of an attribute, and
        what is there.
    build : callable
        Takes other such parts, without their keys, and returns a node like this one.
    """

    parts: list[tuple[Any, Any]]
    build: Callable[[list], Any]


def node(value: Any) -> Node | None:
    """Return what is directly inside of a node of a tree; None for a leaf."""
    if optree.tree_is_leaf(value, namespace=_EVERYTHING):
        return None
    children, metadata, entries, build = optree.tree_flatten_one_level(value, namespace=_EVERYTHING)
    return Node([*zip(entries, children, strict=True)], partial(build, metadata))


def is_child_of(branch: Branch, name: str) -> bool:
    """Say whether an attribute of a branch is a child of it where everything is asked for."""
    attributes = vars(branch)
    return name in branch.state or name in attributes.get("_children", ()) or is_child(attributes[name])


def is_child(value: Any) -> bool:
    """Say whether an attribute of a branch is one of its children: whether it holds arrays or branches."""
    kind = type(value)
    known = _CHILDREN.get(kind)
    if known is None:
        if isinstance(value, _CONTAINERS):
            return any(is_child(item) for item in (value.values() if isinstance(value, dict) else value))
        known = _CHILDREN[kind] = isinstance(value, Branch) or is_array(value)
    return known


def is_array(value: Any) -> bool:
    """Say whether a value is an array of any library that follows the array API standard.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import tree
    >>> tree.is_array(np.ones(3)), tree.is_array([1.0, 2.0])
    (True, False)
    """
    kind = type(value)
    known = _ARRAY_TYPES.get(kind)
    if known is None:
        _refuse_other_rules(kind)
        # A class of arrays has their attributes, too.
        is_object = not isinstance(value, type)
        known = _ARRAY_TYPES[kind] = is_object and array_api_compat.is_array_api_obj(value)
    return known


def _refuse_other_rules(kind: type) -> None:
    """Raise an error for arrays of NumPy's that follow rules of their own, which are lost on the way."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] == "numpy" and base.__name__ in ("MaskedArray", "matrix"):
            instead = "x.filled(value)" if base.__name__ == "MaskedArray" else "numpy.asarray(x)"
            lost = "mask" if base.__name__ == "MaskedArray" else "product, x * y,"
            raise TypeError(
                f"an array must be of the array API standard, received a {kind.__module__}.{kind.__name__}, "
                f"whose {lost} would be lost. Pass {instead}."
            )


_ARRAY_TYPES: dict[type, bool] = {}

# Whether an attribute of a class is a child, whatever is in it.
_CHILDREN: dict[type, bool] = {}

# Tuples of classes, as a union would be made anew at each question.
_CONTAINERS = (dict, list, tuple)
_INNER = (Branch, *_CONTAINERS)


def named_branches(value: Any, path: str = "") -> Iterator[tuple[str, Branch]]:
    """Yield all branches of a tree with their paths, each before those inside it."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Branch):
        yield path, value
        items = vars(value).items()
    elif isinstance(value, dict):
        items = sorted(value.items(), key=lambda item: str(item[0]))
    elif isinstance(value, _CONTAINERS):
        items = enumerate(value)
    for key, item in items:
        if isinstance(item, _INNER):
            yield from named_branches(item, f"{path}.{key}" if path else str(key))


def branches(value: Any) -> list[Branch]:
    """Return all branches of a tree, each before those inside it."""
    found: list[Branch] = []
    rest: list[Any] = [value] if isinstance(value, _INNER) else []
    while rest:
        part = rest.pop()
        items: Iterable[Any] = part
        if isinstance(part, Branch):
            found.append(part)
            items = vars(part).values()
        elif isinstance(part, dict):
            items = (part[key] for key in sorted(part, key=str))
        rest += [item for item in items if isinstance(item, _INNER)][::-1]
    return found


def copy_state(source: Any, target: Any) -> None:
    """Write the state of one tree's branches to the branches of a tree of the same structure."""
    for new, old in zip(branches(source), branches(target), strict=True):
        for name in old.state:
            if name in vars(new):
                setattr(old, name, vars(new)[name])


def check_unshared(tree: Any) -> None:
    """Check that no array and no branch stands at two places of a tree: they would be trained apart.

    Raises
    ------
    ValueError
        Naming both places.
    """
    places: dict[int, str] = {}
    numbers = [id(part) for part in [*branches(tree), *leaves(tree)]]
    if len(set(numbers)) == len(numbers):
        return  # without a search for paths, as is usual
    parts = [(path, branch) for path, branch in named_branches(tree) if leaves(branch)]
    for path, part in [*parts, *zip(paths(tree), leaves(tree), strict=True)]:
        if id(part) in places:
            raise ValueError(
                "a layer or array must stand at one place of a network, received the same "
                f"{type(part).__name__} at {places[id(part)]} and {path}. Make two of them, or hold it once "
                "in a module of your own and call it twice."
            )
        places[id(part)] = path


def assign(source: Any, target: Any) -> None:
    """Write the arrays of one tree's branches into the branches of a tree of the same structure."""
    for new, old in zip(branches(source), branches(target), strict=True):
        state = new.state
        for name, value in vars(new).items():
            if name in state or is_child(value):
                setattr(old, name, _merge(value, vars(old)[name]))


def _merge(new: Any, old: Any) -> Any:
    """Return ``new`` with the branches of ``old`` in it, which are assigned to one by one."""
    if isinstance(old, Branch):
        return old
    if isinstance(old, dict):
        merged = old.copy()  # of the same class, in the same order
        merged.update({key: _merge(new[key], value) for key, value in old.items()})
        return merged
    if isinstance(old, list | tuple):
        items = [_merge(a, b) for a, b in zip(new, old, strict=True)]
        return old._make(items) if hasattr(old, "_make") else type(old)(items)
    return new
