"""Trees: nested dicts, lists, tuples, dataclasses and modules with arrays at their leaves.

A thin layer over `optree <https://optree.readthedocs.io>`_. A tree can be read in three ways:

- its *parameters*, what training changes (the default);
- with those that are *frozen*, which training does not change (``frozen=True``);
- *everything*: all parameters, and the state that modules carry (``state=True``).

A dataclass that holds arrays is like a dict of its fields. One without arrays is a leaf: an optimizer, say.
"""

import builtins
import dataclasses
import gc
import threading
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import array_api_compat
import optree

from xpnet.selection import some

__all__ = [
    "flatten",
    "is_array",
    "leaves",
    "map",
    "paths",
    "unflatten",
]

# For people who read annotations: to a type checker, an array of just any library is like any object.
Array: TypeAlias = Any  # of a library that follows the array API standard, traced or recorded
Tree: TypeAlias = Any  # dicts, lists, tuples, dataclasses and modules with arrays at their leaves

_PARAMETERS = "xpnet.parameters"
_WITH_FROZEN = "xpnet.with_frozen"
_EVERYTHING = "xpnet.everything"
_VIEWS = (_PARAMETERS, _WITH_FROZEN, _EVERYTHING)


def _view(state: bool, frozen: bool = False) -> str:
    return _EVERYTHING if state else _WITH_FROZEN if frozen else _PARAMETERS


def flatten(
    tree: Tree, *, state: bool = False, frozen: bool = False, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[Any], Any]:
    """Return the leaves of a tree in a fixed order, and its structure.

    Parameters
    ----------
    tree : tree
    state : bool, default=False
        Whether all arrays of modules are among the leaves: their state and what is frozen, too.
    frozen : bool, default=False
        Whether the parameters that are frozen are among the leaves, see `xpnet.nn.freeze`.
    is_leaf : callable, optional
        Says of a node whether it is to be taken as a leaf.

    Examples
    --------
    >>> from xpnet import tree
    >>> leaves, structure = tree.flatten({"a": 1.0, "b": [2.0, 3.0]})
    >>> leaves
    [1.0, 2.0, 3.0]
    """
    return _flatten(tree, _view(state, frozen), is_leaf)


def _flatten(tree: Any, view: str, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Any]:
    leaves, structure = optree.tree_flatten(tree, is_leaf, namespace=view)
    # To optree, a dataclass is a leaf until its class is registered. It holds others, perhaps.
    while not {type(leaf) for leaf in leaves} <= _CHILDREN.keys() and _register_dataclasses(leaves):
        leaves, structure = optree.tree_flatten(tree, is_leaf, namespace=view)
    return leaves, structure


def unflatten(structure: Any, leaves: list[Any]) -> Tree:
    """Build a tree of the given structure around new leaves.

    Examples
    --------
    >>> from xpnet import tree
    >>> leaves, structure = tree.flatten({"a": 1.0, "b": [2.0, 3.0]})
    >>> tree.unflatten(structure, [10.0, 20.0, 30.0])
    {'a': 10.0, 'b': [20.0, 30.0]}
    """
    return optree.tree_unflatten(structure, leaves)


def leaves(tree: Tree, *, state: bool = False, frozen: bool = False) -> list[Any]:
    """Return the leaves of a tree in a fixed order, see `flatten`.

    Examples
    --------
    >>> from xpnet import nn, tree
    >>> [leaf.shape for leaf in tree.leaves(nn.Dense(2, 3))]
    [(2, 3), (3,)]
    """
    return _flatten(tree, _view(state, frozen))[0]


def paths(tree: Tree, *, state: bool = False, frozen: bool = False) -> list[str]:
    """Return a readable name for each leaf of `flatten`, such as ``layers.0.weight``.

    Examples
    --------
    >>> from xpnet import nn, tree
    >>> tree.paths(nn.Sequential(nn.Dense(2, 3), nn.ReLU()))
    ['layers.0.weight', 'layers.0.bias']
    """
    return [_text(path) for path in _flatten(tree, _view(state, frozen))[1].paths()]


def _text(path: tuple[Any, ...]) -> str:
    return ".".join(str(key) for key in path)


def map(function: Callable[..., Any], tree: Tree, *rest: Tree, state: bool = False) -> Tree:
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
    leaves, structure = _flatten(tree, _view(state))
    others = [structure.flatten_up_to(other) for other in rest]
    return structure.unflatten(builtins.map(function, leaves, *others))


def copied(tree: Tree) -> Tree:
    """Return a tree with branches of its own, which share the arrays."""
    return map(lambda leaf: leaf, tree, state=True)


class Branch:
    """An object whose attributes take part in trees. `xpnet.nn.Module` is one.

    Attributes that hold an array, another branch, or a container with one of those are its children. The
    names in ``state`` are children only where everything is asked for, and so are the attributes with arrays
    that are ``frozen``: all for True, or those in a tuple of names. All other attributes are settings: they
    are copied along as they are.
    """

    state: ClassVar[tuple[str, ...]] = ()
    frozen: bool | tuple[str, ...] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.state, str):
            raise TypeError(f"state must be a tuple of names, received {cls.state!r}. Try ({cls.state!r},).")
        register_branch(cls)


def register_branch(cls: type[Branch]) -> None:
    """Make nodes of the objects of a class. Each class that is derived from `Branch` is registered so."""
    register: Callable[..., Any] = optree.register_pytree_node  # typed for collections alone
    for view in _VIEWS:
        register(cls, partial(_flatten_branch, view=view), _unflatten_branch, namespace=view)


class _Settings:
    """What a branch or dataclass holds besides its children.

    Two trees fit together if they have the same classes and the same children, whatever the settings.
    """

    def __init__(
        self, cls: type, names: tuple[str, ...], values: dict[str, Any], order: tuple[str, ...]
    ) -> None:
        self.cls, self.names, self.values, self.order = cls, names, values, order

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Settings):
            return NotImplemented
        return self.cls is other.cls and self.names == other.names

    def __hash__(self) -> int:
        return hash((self.cls, self.names))

    def __repr__(self) -> str:
        return f"{self.cls.__name__}({', '.join(self.names)})"


def _flatten_branch(branch: Branch, view: str) -> tuple[list[Any], _Settings, tuple[str, ...]]:
    attributes = vars(branch)
    everything = view == _EVERYTHING
    state = type(branch).state
    # A branch rebuilt around other leaves (shapes, say) remembers which attributes were its children.
    known = attributes.get("_children", ())
    left_out: Iterable[str] = () if everything else state
    if view == _PARAMETERS and branch.frozen:
        left_out = {*state, *frozen_attributes(branch, branch.frozen)}
    names, children, values = [], [], {}
    for name, value in attributes.items():
        if name not in left_out and (name in state or name in known or is_child(value)):
            names.append(name)
            children.append(value)
        elif name != "_children":
            values[name] = value
    settings = _Settings(type(branch), tuple(names), values, tuple(attributes))
    return children, settings, settings.names


def frozen_attributes(branch: Branch, frozen: bool | tuple[str, ...]) -> list[str]:
    """Return the attributes of a branch that are frozen by a setting: those with arrays, not with branches.

    Raises
    ------
    ValueError
        If the setting names no attribute, or an attribute that would be frozen in part.
    """
    attributes, known = vars(branch), vars(branch).get("_children", ())
    own = [name for name in attributes if name not in branch.state]
    children = [name for name in own if name in known or is_child(attributes[name])]
    if frozen is True:
        names = children
    elif not isinstance(frozen, tuple) or not {*frozen} <= {*own}:
        arrays = [name for name in children if outside_branches(attributes[name])]
        raise ValueError(
            "frozen must be True, False or a tuple of names of the attributes with arrays of a "
            f"{type(branch).__name__}, {', '.join(arrays) or 'which has none'}; received {frozen!r}. Call "
            "its freeze(), or xpnet.nn.freeze(net, where)."
        )
    else:
        names = [*frozen]
    return [name for name in names if _is_frozen_whole(branch, name, by_name=frozen is not True)]


def _is_frozen_whole(branch: Branch, name: str, *, by_name: bool) -> bool:
    """Say whether an attribute of a frozen branch holds arrays alone; branches are frozen by themselves."""
    value = vars(branch)[name]
    if is_array(value):
        return True
    parts = [value] if isinstance(value, Branch) else _flatten(value, _EVERYTHING, is_branch)[0]
    if not any(isinstance(part, Branch) for part in parts):
        return True
    if by_name or any(is_array(part) for part in parts):
        raise ValueError(
            "an attribute is frozen as a whole if it holds arrays and no modules, received "
            f"{name} of a {type(branch).__name__}, which holds modules. Freeze these by their own paths, and "
            "put arrays beside them into a module of their own."
        )
    return False


def _unflatten_branch(settings: _Settings, children: list[Any]) -> Branch:
    branch: Branch = object.__new__(settings.cls)
    attributes = vars(branch)
    # The order of the attributes is that of the children, and has to stay in every view.
    attributes.update(dict.fromkeys(settings.order))
    attributes.update(settings.values)
    attributes.update(zip(settings.names, children, strict=True))
    attributes["_children"] = settings.names
    return branch


def _register_dataclasses(leaves: list[Any]) -> bool:
    """Make nodes of the dataclasses with arrays among some leaves, and say whether there were any."""
    found = False
    for leaf in leaves:
        if type(leaf) not in _CHILDREN and is_dataclass(leaf):
            found = True
            _register(type(leaf))
    return found


_registered: set[type] = set()
_registering = threading.Lock()


def _register(cls: type) -> None:
    register: Callable[..., Any] = optree.register_pytree_node
    with _registering:
        if cls not in _registered:
            for view in _VIEWS:
                register(cls, _flatten_dataclass, _unflatten_dataclass, namespace=view)
            _registered.add(cls)


_FIELDS: dict[type, tuple[str, ...] | None] = {}


def _fields(cls: type) -> tuple[str, ...] | None:
    """Return the names of the fields of a dataclass; None of a class whose objects are no such nodes."""
    if cls not in _FIELDS:
        _FIELDS[cls] = _look_up_fields(cls)
    return _FIELDS[cls]


def _look_up_fields(cls: type) -> tuple[str, ...] | None:
    if not dataclasses.is_dataclass(cls) or issubclass(cls, Branch) or hasattr(cls, "__array_namespace__"):
        return None
    try:
        object.__new__(cls)
    except TypeError:  # an exception or a dict as well, which is more than its fields
        return None
    return tuple(field.name for field in dataclasses.fields(cls))


def _flatten_dataclass(node: Any) -> tuple[list[Any], _Settings, tuple[str, ...]]:
    attributes = attributes_of(node)
    # As of a branch, the other attributes with arrays are children, and remembered.
    known = {*(_fields(type(node)) or ()), *attributes.pop("_children", ())}
    children = {name: value for name, value in attributes.items() if name in known or is_child(value)}
    values = {name: value for name, value in attributes.items() if name not in children}
    order = tuple(name for name in getattr(node, "__dict__", ()) if name != "_children")
    settings = _Settings(type(node), tuple(children), values, order)
    return list(children.values()), settings, settings.names


def _unflatten_dataclass(settings: _Settings, children: list[Any]) -> Any:
    node: Any = object.__new__(settings.cls)
    attributes = settings.values | dict(zip(settings.names, children, strict=True))
    if settings.order:
        vars(node).update((name, attributes.pop(name)) for name in settings.order)
    for name, value in attributes.items():
        object.__setattr__(node, name, value)  # of slots; it may be frozen
    others = tuple(name for name in settings.names if name not in (_fields(settings.cls) or ()))
    if others:
        vars(node)["_children"] = others
    return node


def attributes_of(node: Any) -> dict[str, Any]:
    """Return the attributes of a branch, or those of a dataclass: its fields, then all others."""
    if isinstance(node, Branch):
        return vars(node)
    fields = {name: getattr(node, name) for name in _fields(type(node)) or () if hasattr(node, name)}
    return fields | getattr(node, "__dict__", {})


def is_dataclass(value: Any) -> bool:
    """Say whether a value is a dataclass that is a node of trees: whether it holds arrays or branches."""
    return _fields(type(value)) is not None and is_child(value)


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
    build: Callable[[list[Any]], Any]


def node(value: Any) -> Node | None:
    """Return what is directly inside of a node of a tree; None for a leaf."""
    if is_dataclass(value):
        _register(type(value))
    if optree.tree_is_leaf(value, namespace=_EVERYTHING):
        return None
    children, metadata, entries, build = optree.tree_flatten_one_level(value, namespace=_EVERYTHING)
    return Node([*zip(entries, children, strict=True)], partial(build, metadata))


def is_child_of(branch: Branch, name: str) -> bool:
    """Say whether an attribute of a branch is a child of it where everything is asked for."""
    attributes = vars(branch)
    children = attributes.get("_children", ())
    return name in branch.state or name in children or is_child(attributes[name])


def is_child(value: Any) -> bool:
    """Say whether an attribute of a branch is one of its children: whether it holds arrays or branches."""
    known = _CHILDREN.get(type(value))
    return _holds_children(value, {}) if known is None else known


def _holds_children(value: Any, seen: dict[int, Any]) -> bool:
    kind = type(value)
    if isinstance(value, dict):
        items: Iterable[Any] = value.values()
    elif isinstance(value, _CONTAINERS):
        items = value
    elif _fields(kind) is not None:
        items = attributes_of(value).values()
    else:
        _CHILDREN[kind] = isinstance(value, Branch) or is_array(value)
        return _CHILDREN[kind]
    if id(value) in seen:  # settings may go in a circle
        return False
    seen[id(value)] = value
    for item in items:
        known = _CHILDREN.get(type(item))
        if _holds_children(item, seen) if known is None else known:
            return True
    return False


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
        known = _ARRAY_TYPES[kind] = is_object and _is_array_object(value)
    return known


def _is_array_object(value: Any) -> bool:
    try:
        return bool(array_api_compat.is_array_api_obj(value))
    except Exception:  # a dict whose keys are attributes raises KeyError when it is asked for one
        return False


def _refuse_other_rules(kind: type) -> None:
    """Raise an error for arrays of NumPy's that follow rules of their own, which are lost on the way."""
    for base in kind.__mro__:
        module = str(base.__module__)  # which a class that Cython made has as a descriptor
        if module.partition(".")[0] == "numpy" and base.__name__ in ("MaskedArray", "matrix"):
            instead = "x.filled(value)" if base.__name__ == "MaskedArray" else "numpy.asarray(x)"
            lost = "mask" if base.__name__ == "MaskedArray" else "product, x * y,"
            raise TypeError(
                f"an array must be of the array API standard, received a {kind.__module__}.{kind.__name__}, "
                f"whose {lost} would be lost. Pass {instead}."
            )


_ARRAY_TYPES: dict[type, bool] = {}

# Whether an attribute of a class is a child, whatever is in it. Not of containers and dataclasses.
_CHILDREN: dict[type, bool] = {}

# A tuple of classes, as a union would be made anew at each question.
_CONTAINERS = (dict, list, tuple, deque)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return the keys and values of a node of a tree in the order of its paths; of another value, none."""
    if isinstance(value, Branch):
        return vars(value).items()
    if isinstance(value, dict):
        return sorted(value.items(), key=lambda item: str(item[0]))
    if isinstance(value, _CONTAINERS):
        return enumerate(value)
    return attributes_of(value).items() if is_dataclass(value) else ()


def _nodes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield all branches and dataclasses of a tree with their paths, each before those inside it."""
    if isinstance(value, Branch) or is_dataclass(value):
        yield path, value
    for key, item in _items(value):
        if isinstance(item, Branch) or type(item) not in _CHILDREN:
            yield from _nodes(item, f"{path}.{key}" if path else str(key))


def named_branches(value: Any, path: str = "") -> Iterator[tuple[str, Branch]]:
    """Yield all branches of a tree with their paths, each before those inside it."""
    return (pair for pair in _nodes(value, path) if isinstance(pair[1], Branch))


def branches(value: Any) -> list[Branch]:
    """Return all branches of a tree, each before those inside it."""
    found: list[Branch] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Branch]) -> None:
    # As `named_branches`, in a third of the time: it is called at each step of a training.
    items: Iterable[Any]
    if isinstance(value, Branch):
        found.append(value)
        items = vars(value).values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        items = (item for _, item in _items(value))
    for item in items:
        if isinstance(item, Branch) or type(item) not in _CHILDREN:
            _collect(item, found)


def copy_state(source: Any, target: Any) -> None:
    """Write the state of one tree's branches to the branches of a tree of the same structure."""
    for new, old in zip(branches(source), branches(target), strict=True):
        for name in old.state:
            if name in vars(new):
                setattr(old, name, vars(new)[name])


def check_trained(tree: Any) -> None:
    """Check that there is something to train in a tree.

    Raises
    ------
    ValueError
        If there are no arrays, or all are frozen.
    """
    if leaves(tree):
        return
    if frozen := paths(tree, frozen=True):
        raise ValueError(
            "at least one parameter must be trained, received a network whose parameters are all frozen, "
            f"{some(frozen)}. Call unfreeze() of the network or of the part that is to be trained, or "
            f"xpnet.nn.unfreeze(net, {frozen[-1]!r})."
        )
    raise ValueError(
        "an optimizer needs at least one parameter, received a tree without arrays. Pass the network, or a "
        "dict or list of arrays."
    )


def check_unshared(tree: Any) -> None:
    """Check that nothing that is trained stands at two places of a tree: it would be trained apart.

    Raises
    ------
    ValueError
        Naming both places.
    """
    places: dict[int, str] = {}
    arrays = leaves(tree, frozen=True)
    numbers = [id(part) for part in [*branches(tree), *arrays]]
    if len(set(numbers)) == len(numbers):
        return  # without a search for paths, as is usual
    trained = {id(leaf) for leaf in leaves(tree)}
    parts = [(path, branch) for path, branch in named_branches(tree) if leaves(branch)]
    names = zip(paths(tree, frozen=True), arrays, strict=True)
    for path, part in [*parts, *((path, leaf) for path, leaf in names if id(leaf) in trained)]:
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
    if is_array(old) or not is_child(old):
        return new
    parts, structure = _flatten(old, _PARAMETERS, is_branch)
    pairs = zip(parts, structure.flatten_up_to(new), strict=True)
    return structure.unflatten([a if is_branch(a) else b for a, b in pairs])


def is_branch(value: Any) -> bool:
    """Say whether a value is a branch."""
    return isinstance(value, Branch)


def outside_branches(tree: Any) -> list[Any]:
    """Return the leaves of a tree that stand in no branch."""
    return [leaf for leaf in _flatten(tree, _EVERYTHING, is_branch)[0] if not isinstance(leaf, Branch)]


# What no array is hidden in.
_EMPTY = frozenset({bool, int, float, complex, str, bytes, type(None), type})

# What computes when it is asked, which is after the function that made it.
_LATER = (Iterator, AsyncIterator, Awaitable)

# What an object refers to without holding it as a value of its own.
_SURROUNDINGS = (type, types.ModuleType, types.CodeType, types.FrameType, types.TracebackType)

# How many of the objects inside another one are looked at.
_LIMIT = 10_000


def hidden_array(tree: Any, kind: type) -> str | None:
    """Return in words what hides an array of a class inside a tree, or None.

    Trees see what is in containers, dataclasses and branches. In any other object, and in the settings of a
    branch, an array stays as it is, whatever is done with those of the tree. An iterator counts in any case.
    """
    leaves, structure = _flatten(tree, _EVERYTHING)
    for number, leaf in enumerate(leaves):
        if type(leaf) in _EMPTY or is_array(leaf):
            continue
        if isinstance(leaf, _LATER) or _is_hidden_in(leaf, kind):
            return _hiding(leaf, _text(structure.paths()[number]), kind)
    for path, node in _nodes(tree, ""):
        for name, value in attributes_of(node).items():
            if type(value) not in _EMPTY and not is_child(value) and _is_hidden_in(value, kind):
                return _hiding(value, f"{path}.{name}" if path else name, kind)
    return None


def _is_hidden_in(value: Any, kind: type) -> bool:
    """Say whether an object holds an array of a class somewhere: follow what refers to what, for a while."""
    seen = {id(value): value}
    parts = deque([value])
    while parts:
        part = parts.popleft()
        surroundings = getattr(part, "__globals__", None) if isinstance(part, types.FunctionType) else None
        for inner in gc.get_referents(part):
            if isinstance(inner, kind):
                return True
            known = type(inner) in _EMPTY or id(inner) in seen or inner is surroundings
            if known or isinstance(inner, _SURROUNDINGS):
                continue
            if len(seen) == _LIMIT:
                return False
            seen[id(inner)] = inner
            parts.append(inner)
    return False


def _hiding(value: Any, path: str, kind: type) -> str:
    """Describe an object that hides an array."""
    name = value.__qualname__ if isinstance(value, types.FunctionType | types.GeneratorType) else ""
    text = " ".join(part for part in (type(value).__name__, name, f"at {path}" if path else "") if part)
    if isinstance(value, _LATER):
        return f"{text}, which computes later what it yields"
    hiding = (name for name, x in _members(value) if isinstance(x, kind) or _is_hidden_in(x, kind))
    attribute = next(hiding, None)
    return f"{text}, which holds an array" + (f" in its attribute {attribute}" if attribute else "")


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object stores in attributes, in slots too. No property is computed."""
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        for name, member in vars(cls).items():
            is_slot = isinstance(member, types.MemberDescriptorType) and name != "__globals__"
            if is_slot and hasattr(value, name):
                yield name, getattr(value, name)
