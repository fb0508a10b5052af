"""Predictions in batches."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from xpnet import tree
from xpnet.backends import is_on_host, use_device
from xpnet.settings import flag
from xpnet.training.checks import (
    Reads,
    check_inputs,
    check_of_parts,
    check_reads,
    checking_layers,
    named_arrays,
)
from xpnet.training.data import Data, inputs
from xpnet.training.destination import length
from xpnet.training.networks import KINDS, evaluation_copy, jit_where_possible, like, place_of


def predict(net: Any, x: Any, *, batch_size: int | None = None, jit: bool = True) -> Any:
    """Compute the outputs of a network, in batches.

    Parameters
    ----------
    net : Module
        It behaves as in use (no dropout) and is not changed.
    x : array, data frame or sequence, shape (examples, ...), or dict; or examples or batches
        The inputs, anywhere, as `fit` takes them. They are moved to the device of the network batch by batch,
        and floating-point numbers are converted to its dtype. Of examples, and of batches from outside, that
        are pairs ``(x, y)``, or dicts with these keys, y is left out.
    batch_size : int, optional
        The number of examples in a batch, 1,024 if it is not given.
    jit : bool, default=True
        Whether to record the network once for each shape of a batch and replay it, see `xpnet.jit`.

    Returns
    -------
    array, shape (examples, ...), or tree of such
        The outputs, on the device of the network: of one that returns a tuple, list, dict or dataclass of
        arrays, each of these. None stays None.

    Raises
    ------
    ValueError
        If x is empty or batch_size not positive; if the first axis of an output is not that of the examples,
        or the network returns another structure for one batch than for another.
    TypeError
        If an output is no array.
    IndexError
        If x, or an item of it, holds indices that an `nn.Embedding` refuses. This is known of data on the
        host; elsewhere, and of what the network makes of x, such indices give NaN.

    Examples
    --------
    >>> import xpnet
    >>> xpnet.predict(xpnet.nn.Dense(2, 3, seed=0), [[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 3)
    """
    jit = flag("jit", jit)
    where, dtype = place_of(net)
    with use_device(where), closing(inputs(net, (where, dtype), x, batch_size)) as data:
        net = evaluation_copy(net)
        output, reads = _of_kind(net) if jit else (_output, _reads_of(net))
        if reads is not None:
            _check_inputs(net, data, reads)
        parts: list[list[Any]] = []
        structure: Any = None
        with closing(data.epoch()) as batches:
            for (batch,) in batches:
                outputs = output(net, batch)
                leaves, found = tree.flatten(outputs)
                _check_outputs(leaves, outputs, length(batch))
                structure = found if structure is None else structure
                if found != structure:
                    raise ValueError(
                        "a network must return outputs of one structure for all batches, received "
                        f"{structure} and {found}. Change the network, or call net.eval()(x) yourself."
                    )
                parts.append(leaves)
        if len(parts) == 1:
            return outputs
        return tree.unflatten(
            structure, [where.namespace.concat(leaf, axis=0) for leaf in zip(*parts, strict=True)]
        )


def _output(net: Any, x: Any) -> Any:
    return net(x)


def _check_outputs(leaves: list[Any], outputs: Any, examples: int) -> None:
    """Check that outputs can be put together with those of other batches, also if there are no others."""
    for number, leaf in enumerate(leaves):
        is_array = tree.is_array(leaf)
        if is_array and tuple(leaf.shape[:1]) == (examples,):
            continue
        path = tree.paths(outputs)[number]
        received = f"the shape {tuple(leaf.shape)}" if is_array else type(leaf).__name__
        error = ValueError if is_array else TypeError
        raise error(
            "predict puts the outputs of batches together along their first axis, so each must be an array "
            f"of shape (examples, ...), received {received}{f' at {path}' if path else ''} for {examples} "
            "examples. Call net.eval()(x) yourself, or leave it out of what the network returns."
        )


# Of each kind of networks: what tells it, its recordings, and which layers check which inputs, by what the
# inputs are like; None if none does. The latest comes first.
_kinds: list[tuple[Callable[..., Any], Callable[..., Any], dict[Any, Reads] | None]] = []


def _reads_of(net: Any) -> dict[Any, Reads] | None:
    return {} if checking_layers(net) else None


def _of_kind(net: Any) -> tuple[Callable[..., Any], dict[Any, Reads] | None]:
    """Return what is known of the networks like one."""
    found = next((known for known in _kinds if known[0](net)), None)
    found = found or (like(net), jit_where_possible(_output), _reads_of(net))
    if found is not next(iter(_kinds), None):
        _kinds[:] = [found, *(known for known in _kinds if known is not found)][:KINDS]
    return found[1:]


def _check_inputs(net: Any, data: Data, known: dict[Any, Reads]) -> None:
    """Let layers look at all inputs that are on the host. What they read is found out once."""
    layers = checking_layers(net)
    (batch,), (x,) = data.first()
    arrays = {name: array for name, array in named_arrays(x).items() if is_on_host(array)}
    form = tuple((name, array.ndim, array.dtype) for name, array in arrays.items())
    if form in known:
        check_reads(layers, arrays, known[form])
    else:
        known[form] = check_inputs(net, batch, arrays)
    data.check = check_of_parts(net, known[form])
