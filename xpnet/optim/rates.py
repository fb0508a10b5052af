"""The learning rates in the state of an optimizer: one, or one for each group of parameters."""

import math
from collections.abc import Sequence
from typing import Any

from array_api_compat import device

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import concrete, is_known, is_on_host
from xpnet.settings import at_least_zero


def rates_of(state: Any) -> tuple[Any, ...]:
    """Return the learning rates in a state, which may be that of an optimizer of one's own, and have none."""
    holders = state.get("groups", [state]) if isinstance(state, dict) else None
    if not isinstance(holders, list):
        return ()
    if not all(isinstance(holder, dict) and "learning_rate" in holder for holder in holders):
        return ()
    return tuple(holder["learning_rate"] for holder in holders)


def with_rates(state: Any, rates: Sequence[Any]) -> Any:
    """Return a state with other learning rates, as many as `rates_of` returns."""
    if "groups" not in state:
        return state | {"learning_rate": rates[0]}
    pairs = zip(state["groups"], rates, strict=True)
    return state | {"groups": [group | {"learning_rate": rate} for group, rate in pairs]}


def as_rate(rate: Any, like: Any) -> Any:
    """Return a learning rate as an array like another, such as the step, as which it stands in a state.

    Raises
    ------
    ValueError
        If it is no number of at least 0; an array on a device is not looked at, but for its shape.
    """
    if tree.is_array(rate) and rate.shape != ():
        raise ValueError(f"learning_rate must be a number, received an array of shape {tuple(rate.shape)}.")
    if is_on_host(rate) and is_on_host(like):
        if rate.dtype.kind != "f" or not 0 <= float(rate) < math.inf:
            at_least_zero("learning_rate", rate)  # which says what it must be
    elif not tree.is_array(rate) or is_on_host(concrete(rate)) is not is_on_host(concrete(like)):
        value = at_least_zero("learning_rate", rate) if is_known(rate) else rate
        return array_namespace(like).asarray(value, dtype=like.dtype, device=device(like))
    return rate if rate.dtype == like.dtype else array_namespace(rate).astype(rate, like.dtype)
