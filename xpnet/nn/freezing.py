"""Freezing: parts of a network that training leaves as they are."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from xpnet import tree
from xpnet.selection import Where, chosen

T = TypeVar("T")


def freeze(net: T, where: Where = "") -> T:
    """Keep parts of a network as they are in training.

    What is frozen is no parameter any more: `xpnet.grad` gives no gradient for it, and optimizers neither
    step nor decay it. A module whose parameters are all frozen behaves as in use: `BatchNorm` takes its
    running statistics and leaves them as they are, and `Dropout` does nothing, also where it stands between
    the frozen layers of such a module.

    Parameters
    ----------
    net : Module or tree
        The network, or a dict, list or tuple of such.
    where : str, sequence of str or callable, default=""
        What to freeze: the path of a module or of an array, such as ``"layers.0"`` or ``"layers.0.weight"``,
        or several of them; or ``where(path, array)``, which says it of each parameter, frozen or not. By
        default everything. See `xpnet.tree.paths` with ``frozen=True``.

    Returns
    -------
    Module or tree
        The network itself. The attribute ``frozen`` of its modules says what is frozen in each.

    Raises
    ------
    ValueError
        If a path, or the function, chooses nothing; if it chooses a part of an attribute that holds several
        arrays, an attribute that holds arrays beside modules, or an array that stands in no module. Nothing
        is changed then.
    TypeError
        If ``where`` is neither.

    Examples
    --------
    >>> from xpnet import nn, tree
    >>> net = nn.Sequential(nn.Dense(4, 8), nn.Dropout(0.5), nn.Dense(8, 2))
    >>> tree.paths(nn.freeze(net, "layers.0"))
    ['layers.2.weight', 'layers.2.bias']
    >>> tree.paths(nn.freeze(net, lambda path, array: len(array.shape) > 1))
    ['layers.2.bias']
    """
    return _change(net, where, to_frozen=True)


def unfreeze(net: T, where: Where = "") -> T:
    """Let training change parts of a network again.

    Parameters
    ----------
    net : Module or tree
        The network, or a dict, list or tuple of such.
    where : str, sequence of str or callable, default=""
        What to unfreeze, see `freeze`. By default everything.

    Returns
    -------
    Module or tree
        The network itself. A module none of whose parameters is frozen any more behaves as in training again,
        with the layers such as `Dropout` in it, unless `Module.eval` was called.

    Raises
    ------
    ValueError
        If a path, or the function, chooses nothing, or a part of an attribute that holds several arrays.
        Nothing is changed then.
    TypeError
        If ``where`` is neither.

    Examples
    --------
    >>> from xpnet import nn, tree
    >>> net = nn.Sequential(nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 2)).freeze()
    >>> tree.paths(nn.unfreeze(net, "layers.2"))
    ['layers.2.weight', 'layers.2.bias']
    """
    return _change(net, where, to_frozen=False)


class _Place(NamedTuple):
    """Where a parameter is: in which attribute of which branch, and where in there."""

    branch: int
    attribute: str
    inside: str


def _change(net: T, where: Where, *, to_frozen: bool) -> T:
    """Freeze or unfreeze what is chosen, after a check of all of it."""
    parameters = tree.paths(net, frozen=True)
    places = _places(net, parameters)
    branches = {id(branch): branch for branch in tree.branches(net)}
    own = {number: {place for place in places.values() if place.branch == number} for number in branches}
    inside = {
        number: {place for part in tree.branches(branch) for place in own[id(part)]}
        for number, branch in branches.items()
    }
    empty = {path: id(branch) for path, branch in tree.named_branches(net) if not inside[id(branch)]}
    named = _chosen(where, parameters, tree.leaves(net, frozen=True), empty)
    if to_frozen and (outside := next((path for path in named if path not in {*places, *empty}), None)):
        raise ValueError(
            f"an array that is frozen must stand in a module, received {outside or 'one'}, which stands in "
            "none. Put it into a module, or give the function to be differentiated what is trained alone."
        )
    changed = {places[path] for path in named if path in places}
    frozen = {*places.values()} - {places[path] for path in tree.paths(net) if path in places}
    after = frozen | changed if to_frozen else frozen - changed

    # Modules whose parameters are all alike from now on, with all inside them: also layers without any.
    alike = after if to_frozen else {*places.values()} - after
    whole = {
        id(part)
        for number, branch in branches.items()
        if inside[number] <= alike and inside[number] & changed
        for part in tree.branches(branch)
    } | {empty[path] for path in named if path in empty}
    settings: list[tuple[Any, Any]] = []
    for number, branch in branches.items():
        if number in whole or own[number]:
            setting = to_frozen if number in whole else _setting(branch, own[number], after)
            if setting:
                tree.frozen_attributes(branch, setting)  # which raises what is wrong with it
            settings.append((branch, setting))
    for branch, setting in settings:
        branch.frozen = setting
        if setting == type(branch).frozen:
            del branch.frozen
    return net


def _places(net: Any, parameters: Iterable[str]) -> dict[str, _Place]:
    """Return where the parameters that stand in modules are, by their paths; of shared modules, twice."""
    places = {}
    for path, branch in tree.named_branches(net):
        attributes = {name: x for name, x in vars(branch).items() if tree.is_child_of(branch, name)}
        leaves, structure = tree.flatten(attributes, state=True, is_leaf=tree.is_branch)
        for leaf, (attribute, *keys) in zip(leaves, structure.paths(), strict=True):
            if not tree.is_branch(leaf):
                text = ".".join(map(str, [*([path] if path else []), attribute, *keys]))
                places[text] = _Place(id(branch), attribute, ".".join(map(str, keys)))
    return {path: places[path] for path in parameters if path in places}


def _chosen(where: Where, parameters: list[str], arrays: list[Any], empty: Iterable[str]) -> list[str]:
    """Return the paths of the parameters that are chosen, and of modules without some: by paths alone."""
    if callable(where):
        names = parameters
    else:
        names = [*parameters, *empty]
        arrays = [*arrays, *(None for _ in empty)]
    return [name for name, is_in in zip(names, chosen(where, names, arrays), strict=True) if is_in]


def _setting(branch: tree.Branch, own: set[_Place], frozen: set[_Place]) -> bool | tuple[str, ...]:
    """Return what `frozen` is of a branch, given the places of its own parameters, and of all frozen ones."""
    names = {place.attribute for place in own & frozen}
    for name in sorted(names):
        if part := {place for place in own - frozen if place.attribute == name}:
            raise ValueError(
                f"an attribute with several arrays is frozen or not as a whole, received a part of {name} of "
                f"a {type(branch).__name__}, without {min(part).inside}. Choose {name} as a whole, or hold "
                "each array in an attribute or a module of its own."
            )
    if own <= frozen:
        return True
    return tuple(name for name in vars(branch) if name in names) or False
