"""Predictions in batches."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from xpnet import tree
from xpnet.backends import Device, device, device_of, use_device
from xpnet.errors import NotRecordableError
from xpnet.nn import Module
from xpnet.replay import jit as record
from xpnet.replay.match import alike
from xpnet.settings import count, described
from xpnet.training.batches import Examples

_log = logging.getLogger("xpnet")

# How many kinds of networks are remembered: with their recordings, or as such that cannot be recorded.
_KINDS = 64


def place_of(net: Any) -> tuple[Device, Any]:
    """Return the device and the dtype of a network; of one without arrays, the current device and float32.

    Raises
    ------
    TypeError
        If it is no network.
    """
    if not isinstance(net, Module):
        raise _no_network(net)
    parameters = tree.leaves(net)
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
    return tree.map(lambda x: x, net, state=True).eval()


def jit_where_possible(f: Callable, *, donate: Sequence[str] = (), precision: str = "float32") -> Callable:
    """Return a function of a network by `jit`, or as it is for networks with which it cannot be recorded."""
    recorded: Any = record(f, donate=donate, precision=precision)
    without = "" if precision == "float32" else f", and in float32 in place of {precision}"
    refused: list[Callable] = []  # tell the kinds of networks that cannot be recorded

    @functools.wraps(f)
    def call(net: Any, *arguments: Any) -> Any:
        if not any(is_like(net) for is_like in refused):
            try:
                return recorded(net, *arguments)
            except NotRecordableError as error:
                _log.warning("xpnet: this runs without jit, which is slower%s. %s", without, error)
                refused[:] = [_like(net), *refused][:_KINDS]
        return f(net, *arguments)

    return call


def predict(net: Any, x: Any, *, batch_size: int = 1024, jit: bool = True) -> Any:
    """Compute the outputs of a network, in batches.

    Parameters
    ----------
    net : Module
        It behaves as in use (no dropout) and is not changed.
    x : array or sequence, shape (examples, ...)
        The inputs, anywhere, or a sparse matrix of SciPy, see `fit`. They are moved to the device of the
        network batch by batch, and floating-point numbers are converted to its dtype.
    batch_size : int, default=1024
    jit : bool, default=True
        Whether to record the network once for each shape of a batch and replay it, see `xpnet.jit`.

    Returns
    -------
    array, shape (examples, ...)
        The outputs, on the device of the network.

    Raises
    ------
    ValueError
        If x is empty or batch_size not positive.

    Examples
    --------
    >>> import xpnet
    >>> xpnet.predict(xpnet.nn.Dense(2, 3, seed=0), [[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 3)
    """
    batch_size = count("batch_size", batch_size)
    where, dtype = place_of(net)
    examples = Examples({"x": x}, where, dtype, sparse=net.takes_sparse)
    net = evaluation_copy(net)
    with use_device(where):
        output = _replayed(net) if jit else _output
        outputs = [output(net, batch) for (batch,) in examples.batches(batch_size)]
        return outputs[0] if len(outputs) == 1 else where.namespace.concat(outputs, axis=0)


def _output(net: Any, x: Any) -> Any:
    return net(x)


def _like(net: Any) -> Callable[[Any], Any]:
    """Return what tells networks like one; one that nobody can compare is like no other."""
    try:
        return alike(net)
    except NotRecordableError:
        return lambda other: other is net


# The recordings of each kind of networks, and what tells the kind; the latest first.
_recordings: list[tuple[Callable, Callable]] = []


def _replayed(net: Any) -> Callable:
    """Return the recordings of the networks like one."""
    found = next((known for known in _recordings if known[0](net)), None)
    found = found or (_like(net), jit_where_possible(_output))
    if found is not next(iter(_recordings), None):
        _recordings[:] = [found, *(known for known in _recordings if known is not found)][:_KINDS]
    return found[1]
