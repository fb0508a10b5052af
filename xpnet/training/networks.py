"""Networks as trainings and predictions take them: where they are, copies, and recordings."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import Device, device, device_of, plain_namespace
from xpnet.errors import NotRecordableError
from xpnet.nn import Module
from xpnet.replay import jit
from xpnet.replay.same.match import alike
from xpnet.settings import described

_log = logging.getLogger("xpnet")

# How many kinds of networks are remembered: with their recordings, or as such that cannot be recorded.
KINDS = 64


def place_of(net: Any) -> tuple[Device, Any]:
    """Return the device and the dtype of a network; of one without arrays, the current device and float32.

    Raises
    ------
    TypeError
        If it is no network.
    """
    if not isinstance(net, Module):
        raise _no_network(net)
    parameters = tree.leaves(net, frozen=True)
    arrays = parameters or tree.leaves(net, state=True)
    where = device_of(arrays[0]) if arrays else device()
    return where, parameters[0].dtype if parameters else where.namespace.float32


def _no_network(net: Any) -> TypeError:
    if isinstance(net, type):
        instead = f"Make one of the class: {net.__name__}(...)."
    elif isinstance(net, list | tuple):
        instead = "Write xpnet.nn.Sequential(*layers)."
    elif callable(net):
        instead = (
            "xpnet.nn.Lambda makes one of a function without parameters; write one with some as a Module."
        )
    else:
        instead = "It comes first, before the data."
    return TypeError(f"net must be a network, an xpnet.nn.Module, received {described(net)}. {instead}")


def evaluation_copy(net: Any) -> Any:
    """Return a copy of a network that behaves as in use; the arrays are shared."""
    return tree.copied(net).eval()


def training_copy(net: Any) -> Any:
    """Return a copy of a network that behaves as in training; the arrays are shared.

    A part that is in use stays so, unless all of the network is.
    """
    copy = tree.copied(net)
    parts = tree.branches(copy)
    return copy if any(getattr(part, "training", False) for part in parts) else copy.train()


def deep_copied(values: Any) -> Any:
    """Return a tree with arrays of its own."""
    return tree.map(_copy, values, state=True)


def _copy(x: Any) -> Any:
    # A step may write over what it is given, on JAX too, where it is lost then.
    return x.copy() if type(x) is numpy.ndarray else plain_namespace(x).asarray(x, copy=True)


def jit_where_possible(
    f: Callable[..., Any], *, donate: Sequence[str] = (), precision: str = "float32"
) -> Callable[..., Any]:
    """Return a function of a network by `jit`, or as it is for networks with which it cannot be recorded."""
    recorded: Any = jit(f, donate=donate, precision=precision)
    without = "" if precision == "float32" else f", and in float32 in place of {precision}"
    refused: list[Callable[..., Any]] = []  # tell the kinds of networks that cannot be recorded

    @functools.wraps(f)
    def call(net: Any, *arguments: Any) -> Any:
        if not any(is_like(net) for is_like in refused):
            try:
                return recorded(net, *arguments)
            except NotRecordableError as error:
                _log.warning("xpnet: this runs without jit, which is slower%s. %s", without, error)
                refused[:] = [like(net), *refused][:KINDS]
        return f(net, *arguments)

    return call


def like(net: Any) -> Callable[[Any], Any]:
    """Return what tells networks like one; one that nobody can compare is like no other."""
    try:
        return alike(net)
    except NotRecordableError:
        return lambda other: other is net
