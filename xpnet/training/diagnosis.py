"""Where the first infinite or NaN value of a training came from."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import plain_namespace
from xpnet.nn.summary import watched_calls


def first_bad_batch(
    net: Any, state: Any, step: Callable, batches: Iterable[tuple[Any, Any]], optimizer: Any
) -> tuple[int, str] | None:
    """Take the steps of an epoch again, up to the first whose loss is infinite or NaN.

    Parameters
    ----------
    net, state : tree
        The network and the state of the optimizer before the first batch. They are not changed.
    step : callable
        As `fit` takes it; it may write over the network and the state that it is given.
    batches : iterable of (array, array)
    optimizer : optimizer

    Returns
    -------
    (int, str) or None
        The number of the batch, counted from 0, and the place of the first bad value; None if there is none
        this time, as a callback changed the steps.
    """
    for number, (x, y) in enumerate(batches):
        after, state, value, _ = step(*copied((net, state)), x, y, optimizer)
        if not _is_finite(value):
            return number, _first_bad_place(net, x, y)
        net = after
    return None


def copied(values: Any) -> Any:
    """Return a tree with arrays of its own."""
    return tree.map(_copy, values, state=True)


def _copy(x: Any) -> Any:
    return x.copy() if type(x) is numpy.ndarray else plain_namespace(x).asarray(x, copy=True)


def _first_bad_place(net: Any, x: Any, y: Any) -> str:
    if not all(map(_is_finite, tree.leaves(x))):
        return "x"
    net = tree.map(lambda leaf: leaf, net, state=True)
    names = {id(module): f"{path} {type(module).__name__}" for path, module in tree.named_branches(net)}
    bad = []

    def note(module: Any, output: Any) -> None:
        if not all(_is_finite(leaf) for leaf in tree.leaves(output)):
            weights = all(_is_finite(leaf) for leaf in tree.leaves(module))
            bad.append(f"the {'output' if weights else 'weights'} of {names[id(module)].strip()}")

    with watched_calls(tree.branches(net), note):
        net(x)
    return bad[0] if bad else "the loss" if all(map(_is_finite, tree.leaves(y))) else "y"


def _is_finite(x: Any) -> bool:
    if not tree.is_array(x):
        return x - x == 0  # a Python number
    xp = plain_namespace(x)
    is_number = xp.isdtype(x.dtype, ("real floating", "complex floating"))
    return not is_number or bool(xp.all(xp.isfinite(x)))
