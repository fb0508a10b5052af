"""Some of the arrays of a tree, chosen by their paths or by a function."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

# A path, such as "layers.0" or "layers.0.weight", several of them, or a function of path and array.
Where: TypeAlias = str | Sequence[str] | Callable[[str, Any], bool]


def chosen(where: Where, paths: Sequence[str], arrays: Sequence[Any]) -> list[bool]:
    """Say of each array whether it is chosen.

    Parameters
    ----------
    where : str, sequence of str or callable
        The path of an array, or of a part of the tree for all arrays in it, ``""`` for all there are; several
        of these; or ``where(path, array)``, which says it of one.
    paths, arrays : sequence
        What to choose from, see `xpnet.tree.paths`.

    Raises
    ------
    ValueError
        If a path, or the function, chooses nothing.
    TypeError
        If ``where`` is neither.
    """
    if callable(where):
        found = [bool(where(path, array)) for path, array in zip(paths, arrays, strict=True)]
        if not any(found):
            raise ValueError(
                f"{name_of(where)} must be true of at least one array, received false for all "
                f"{len(found)}: {some(paths)}. It is given the path and the array."
            )
        return found
    names = [where] if isinstance(where, str) else where
    names = list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            'a part of a network is chosen by a path such as "layers.0", a list of them, or a function of '
            f"path and array; received {where!r}."
        )
    if not names:
        raise ValueError(f"at least one path must be given, received {where!r}. There are {some(paths)}.")
    for name in names:
        if not any(_is_in(path, name) for path in paths):
            raise ValueError(
                f"each path must name something, received {name!r}.{advice(name, path_prefixes(paths))}"
            )
    return [any(_is_in(path, name) for name in names) for path in paths]


def _is_in(path: str, name: str) -> bool:
    return not name or path == name or path.startswith(f"{name}.")


def name_of(where: Where) -> str:
    """Return what errors call a choice."""
    return getattr(where, "__name__", repr(where)) if callable(where) else repr(where)


def advice(name: str, names: Sequence[str]) -> str:
    """Return a sentence that says which names there are near one that is none of them."""
    near = difflib.get_close_matches(name, names, n=3)
    return f" Is {' or '.join(near)} meant?" if near else f" There are {some(names)}."


def path_prefixes(paths: Sequence[str]) -> list[str]:
    """Return all paths that lead to some paths, and these, each once."""
    parts = [path.split(".") for path in paths]
    return list(dict.fromkeys(".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)))


def some(names: Iterable[str]) -> str:
    """Return the first of some names in a text."""
    names = list(names)
    shown = ", ".join(names[:6])
    return f"{shown}, and {len(names) - 6} more" if len(names) > 6 else shown or "none"
