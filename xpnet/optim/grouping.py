"""Groups of parameters, each with an optimizer of its own."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from xpnet import tree
from xpnet.cached import cached_property
from xpnet.optim.optimizer import Chain, Optimizer
from xpnet.optim.scaling import LossScaling
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import Arrays, Transform, check_state, other_state
from xpnet.selection import Where, chosen, name_of, some
from xpnet.settings import described

__all__ = ["biases_and_norms", "groups"]


def biases_and_norms(_path: str, parameter: Any) -> bool:
    """Say whether a parameter has fewer than two axes, as biases and the scales of normalizations have.

    Weight decay is to keep products small, and these have none. It is for `groups`.

    Parameters
    ----------
    _path : str
        Where the parameter is.
    parameter : array

    Examples
    --------
    >>> from xpnet import optim
    >>> no_decay = (optim.biases_and_norms, {"weight_decay": 0.0})
    >>> optimizer = optim.groups(no_decay, optim.AdamW(1e-3, weight_decay=0.1))
    """
    return len(parameter.shape) < 2


@dataclass(frozen=True, repr=False)
class _Paths:
    """Chooses parameters by their paths, as something of a name did."""

    name: str
    paths: frozenset[str]

    def __repr__(self) -> str:
        return self.name

    def __call__(self, path: str, _parameter: Any) -> bool:
        return path in self.paths


@dataclass(frozen=True)
class Groups(Optimizer):
    """Optimizers of groups of parameters; `groups` makes it.

    Attributes
    ----------
    groups : tuple of (str or tuple of str or callable, Optimizer)
    rest : Optimizer or None
        Of the parameters that are in none of the groups. There may be no such parameters.
    root : str
        The path of the part of the tree in which the paths of the groups are.
    """

    groups: tuple[tuple[Where, Optimizer], ...]
    rest: Optimizer | None = None
    root: str = ""

    _holds = ("transforms", "groups")

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError(
                "groups needs at least one pair (where, optimizer), received none. For example: "
                'groups(("layers.0", Adam(1e-5)), Adam(1e-3)).'
            )
        for optimizer in self.optimizers:
            _check_optimizer(optimizer)

    @cached_property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Return the optimizer of each group, and that of the rest."""
        of_groups = tuple(optimizer for _, optimizer in self.groups)
        return of_groups if self.rest is None else (*of_groups, self.rest)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return what errors call the groups."""
        of_groups = tuple(name_of(where) for where, _ in self.groups)
        return of_groups if self.rest is None else (*of_groups, "the rest")

    @property
    def learning_rate(self) -> tuple[float | Schedule, ...]:  # type: ignore[override]
        return tuple(optimizer.learning_rate for optimizer in self.optimizers)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        return ()

    def chosen(self, params: Any) -> Optimizer:
        paths = self._paths(params)
        places = self._places(tree.leaves(params), params)
        groups = zip(self.groups, places, strict=False)
        chosen = tuple(
            (_Paths(name_of(where), frozenset(_at(of_group, paths))), optimizer)
            for (where, optimizer), of_group in groups
        )
        return replace(self, groups=chosen)

    def _paths(self, params: Any) -> list[str]:
        paths: list[str] = tree.paths(params)
        return [path.removeprefix(f"{self.root}.") for path in paths] if self.root else paths

    def _places(self, leaves: Arrays, params: Any) -> list[list[int]]:
        """Return the positions of the parameters of each group.

        Raises
        ------
        ValueError
            If a pair chooses none, or a parameter is in none or in two.
        """
        paths = self._paths(params)
        with _noted("Parameters that are frozen are in no group."):
            places = [_true(chosen(where, paths, leaves)) for where, _ in self.groups]
        owner: dict[int, int] = {}
        for number, positions in enumerate(places):
            for position in positions:
                if position in owner:
                    raise ValueError(
                        f"groups must not overlap, received {paths[position] or 'the root'} in both "
                        f"{self.names[owner[position]]} and {self.names[number]}. Choose it in one of them."
                    )
                owner[position] = number
        left = [position for position in range(len(leaves)) if position not in owner]
        if self.rest is None and left:
            raise ValueError(
                f"each parameter must be in a group, received {some([paths[position] for position in left])} "
                "in none. Add an optimizer at the end, which takes the rest, or freeze what is not to be "
                "trained."
            )
        return places if self.rest is None else [*places, left]

    def _first_rates(self, leaves: Arrays, step: Any, params: Any) -> dict[str, Any]:
        pairs = zip(self.optimizers, self._places(leaves, params), strict=True)
        return {"groups": [optimizer._first(_at(places, leaves), step, None) for optimizer, places in pairs]}

    def _checked_rates(self, state: dict[str, Any], step: Any) -> dict[str, Any]:
        if "learning_rate" in state:
            raise ValueError(
                "each group has a learning rate of its own in the state, received one for all. Assign "
                'state["groups"][0]["learning_rate"], and those of the other groups.'
            )
        states = state["groups"]
        if not isinstance(states, list) or len(states) != len(self.optimizers):
            received = len(states) if isinstance(states, list) else type(states).__name__
            raise other_state(f"with {len(self.optimizers)} groups, received {received}")
        checked = []
        for optimizer, each, name in zip(self.optimizers, states, self.names, strict=True):
            with _about(name):
                check_state(each, *optimizer.last._holds)
                checked.append(optimizer._checked(each, step))
        return {"groups": checked}

    def _move(
        self, gradients: Arrays, state: dict[str, Any], leaves: Arrays, step: Any, params: Any
    ) -> tuple[Arrays, dict[str, Any]]:
        moved, states = list(leaves), []
        parts = zip(self._places(leaves, params), self.optimizers, state["groups"], self.names, strict=True)
        for places, optimizer, before, name in parts:
            with _about(name):
                of_group = _at(places, gradients), before, _at(places, leaves)
                part, after = optimizer._update(*of_group, step, None)
            for position, x in zip(places, part, strict=True):
                moved[position] = x
            states.append(after)
        return moved, {"groups": states}


def groups(*groups: Any) -> Optimizer:
    """Give groups of parameters optimizers of their own, or other settings of one.

    Parameters
    ----------
    *groups : (where, optimizer) or (where, dict)
        Which parameters, and what moves them. ``where`` is the path of one, as of `xpnet.tree.paths`, or of a
        part of the network for all in it; a list of these; or ``where(path, array)``, which says it of one by
        its path, shape and dtype, such as `biases_and_norms`. A dict of settings makes another of the
        optimizer at the end: ``{"weight_decay": 0.0}``. In place of the last pair there may be an optimizer
        alone, which takes the rest, if anything is left.

    Returns
    -------
    Optimizer
        Its state has, in place of a learning rate, a list ``"groups"`` with the state of each in the order
        given, that of the rest at the end. Their learning rates can be changed there:
        ``state["groups"][0]["learning_rate"] = 5e-5``.

    Raises
    ------
    TypeError
        If something is no such pair, or a part of one is not what it should be.
    ValueError
        If there are no groups, an optimizer alone stands before the end, or there are no such settings. By
        `Optimizer.init`, if a pair chooses no parameters, or a parameter is in two groups, or in none.

    Notes
    -----
    In a group, `clip_by_global_norm` sees the gradients of that group. To clip those of all together, put it
    in front: ``chain(clip_by_global_norm(1.0), groups(...))``. `LossScaling` goes around.

    Examples
    --------
    Fine-tuning: small steps in the first layer, none of the decay on biases and norms.

    >>> from xpnet import optim
    >>> optimizer = optim.groups(("layers.0", optim.Adam(1e-5)), optim.Adam(optim.cosine(1e-3, steps=1000)))
    >>> no_decay = (optim.biases_and_norms, {"weight_decay": 0.0})
    >>> optimizer = optim.groups(no_decay, optim.AdamW(1e-3, weight_decay=0.1))
    """
    rest = groups[-1] if groups and isinstance(groups[-1], Optimizer) else None
    pairs = groups if rest is None else groups[:-1]
    return Groups(tuple(_group(pair, rest) for pair in pairs), rest)


def _group(pair: Any, rest: Optimizer | None) -> tuple[Where, Optimizer]:
    if isinstance(pair, Optimizer):
        raise ValueError(
            f"an optimizer alone takes the rest and must stand at the end, received {pair} before it. Write "
            "(where, optimizer)."
        )
    if not isinstance(pair, tuple | list) or isinstance(pair, Transform) or len(pair) != 2:
        raise TypeError(
            "each of groups must be a pair (where, optimizer) or (where, dict of settings), received "
            f"{described(pair)}. The last may be an optimizer alone."
        )
    where, optimizer = pair
    if not isinstance(where, str) and isinstance(where, Iterable):
        where = tuple(where)
    if isinstance(optimizer, dict):
        optimizer = _with(_template(rest, where), optimizer)
    return where, optimizer


def _template(rest: Optimizer | None, where: Any) -> Optimizer:
    if rest is None:
        raise ValueError(
            "a dict of settings needs an optimizer alone at the end, to make another of, received one for "
            f"{name_of(where)} and no such optimizer. Write groups((where, {{...}}), Adam(1e-3))."
        )
    return rest


def _with(optimizer: Optimizer, settings: dict[str, Any]) -> Optimizer:
    """Return an optimizer with other settings; of a chain, that at its end gets them."""
    if isinstance(optimizer, Chain):
        return replace(optimizer, optimizer=_with(optimizer.optimizer, settings))
    names: list[str] = [field.name for field in fields(optimizer)] if is_dataclass(optimizer) else []
    if unknown := [name for name in settings if name not in names]:
        raise ValueError(
            f"settings of {type(optimizer).__name__} are {', '.join(names) or 'none'}; received "
            f"{', '.join(map(repr, unknown))}."
        )
    changed: Optimizer = replace(optimizer, **settings)  # type: ignore[type-var]
    return changed


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        instead = ""
        if isinstance(optimizer, Transform):
            instead = " Write chain(transform, optimizer)."
        elif isinstance(optimizer, LossScaling):
            instead = " Put LossScaling around groups."
        raise TypeError(
            "each group needs an optimizer, such as Adam(1e-3), or a dict of settings, received "
            f"{described(optimizer)}.{instead}"
        )
    if isinstance(optimizer.last, Groups):
        raise TypeError(
            "the optimizer of a group must be without groups of its own, received some. Put all pairs into "
            "one call of groups."
        )


def _true(found: list[bool]) -> list[int]:
    return [position for position, is_in in enumerate(found) if is_in]


def _at(places: list[int], arrays: Arrays) -> Arrays:
    return [arrays[position] for position in places]


@contextmanager
def _noted(note: str) -> Iterator[None]:
    """Add a note to errors."""
    try:
        yield
    except ValueError as error:
        error.add_note(note)
        raise


def _about(name: str) -> AbstractContextManager[None]:
    return _noted(f"This is about the group {name}.")
