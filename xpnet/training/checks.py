"""What is checked before a training, or a prediction, changes or computes anything."""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from xpnet import tree
from xpnet.backends import is_on_host, plain_namespace
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.losses.checks import NothingCountsError
from xpnet.losses.weights import check_weight_values
from xpnet.nn.summary import layer_names, watched_calls
from xpnet.replay.record import RecordingNamespace
from xpnet.replay.same.facts import Facts
from xpnet.replay.same.outside import ArrayFromOutsideError
from xpnet.training.metric import Metric, attribute_of, check_targets_of

_log = logging.getLogger("xpnet")

# -- the loss ----------------------------------------------------------------------------------------------


def check_number(value: Any) -> None:
    """Check that the value of a loss is one real number."""
    received = f"a value of the type {type(value).__name__}"
    if tree.is_array(value):
        is_real = not plain_namespace(value).isdtype(value.dtype, "complex floating")
        if value.shape == () and is_real:
            return
        received = f"an array of shape {tuple(value.shape)}" if is_real else f"an array of {value.dtype}"
    elif isinstance(value, int | float):
        return
    error = ValueError if tree.is_array(value) else TypeError
    raise error(
        "the loss must return one number, an array of shape () that is not complex, or a sum and what it is "
        f"to be divided by, received {received}. "
        'Return the mean over the batch; the losses of xpnet do so unless they are told reduction="none".'
    )


def watched_outputs(net: Any, x: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Call a network; also return each output of a layer that gives probabilities, with the layer's name."""
    layers = [part for part in tree.branches(net) if getattr(part, "gives_probabilities", False)]
    if not layers:
        return net(x), []
    names = layer_names(net)
    found: list[tuple[str, Any]] = []

    def note(layer: Any, output: Any) -> None:
        found.extend((names[id(layer)], leaf) for leaf in tree.leaves(output))

    with watched_calls(layers, note):
        return net(x), found


def check_logits(takers: list[tuple[Any, list[Any]]], probabilities: list[tuple[str, Any]]) -> None:
    """Check that nothing that takes logits is given what is probabilities already.

    Parameters
    ----------
    takers : list of (callable or Metric, list of array)
        A loss or metric, and the arrays of which it takes some for logits. All would have to be
        probabilities, as it is not known which.
    probabilities : list of (str, array)
        What layers that give probabilities returned, see `watched_outputs`.

    Raises
    ------
    ValueError
        If a layer made them. What only looks like them gives a warning.
    """
    for taker, arrays in takers:
        layers = [next((name for name, p in probabilities if _has_values_of(x, p)), None) for x in arrays]
        if not arrays or not all(
            layer or _adds_up_to_one(x) for layer, x in zip(layers, arrays, strict=True)
        ):
            continue
        received, out = "rows of numbers from 0 to 1 that add up to 1, as probabilities do", "a softmax"
        if layers[0]:
            received, out = f"probabilities, the output of the layer {layers[0]}", "that layer"
        name = attribute_of(taker, "__name__") or type(taker).__name__
        text = (
            f"{name} takes logits, scores of any size, and makes probabilities of them by itself; received "
            f"{received}. Leave {out} out of the network, and apply it to what predict returns; the "
            "estimators do that by themselves."
        )
        if isinstance(taker, Metric):
            text = (
                f"{taker.name} takes logits, of which it counts those above 0 as yes; received {received}. "
                f"Leave {out} or the metric out, or write a function of outputs and targets for it."
            )
        if layers[0]:
            raise ValueError(text)
        _log.warning("xpnet: %s", text)
        return


def check_noted_targets(noted: list[tuple[Callable[..., Any], Any, Any]], y: Any, all_targets: Any) -> None:
    """Let losses that were called inside another one look at all targets, or at what was made of a batch."""
    known = {id(part): whole for part, whole in zip(tree.leaves(y), tree.leaves(all_targets), strict=True)}
    for loss, logits, targets in noted:
        check_targets_of(loss)(logits, known.get(id(targets), targets))


def _has_values_of(x: Any, probabilities: Any) -> bool:
    """Say whether an array is another one, perhaps in another shape or precision."""
    if x is probabilities:
        return True
    if not tree.is_array(x) or math.prod(x.shape) != math.prod(probabilities.shape):
        return False
    xp = plain_namespace(x)
    values = xp.astype(xp.reshape(probabilities, (-1,)), x.dtype, copy=False)
    return bool(xp.all(xp.reshape(x, (-1,)) == values))


def _adds_up_to_one(x: Any) -> bool:
    """Say whether each row of an array is a distribution over at least two classes."""
    if not tree.is_array(x) or len(x.shape) < 2 or x.shape[-1] < 2:
        return False
    xp = plain_namespace(x)
    if not xp.isdtype(x.dtype, "real floating") or not bool(xp.all(x >= 0)):
        return False
    # A rounding for each number that is added up, and some in the softmax, perhaps in single precision.
    tolerance = (x.shape[-1] + 4) * max(float(xp.finfo(x.dtype).eps), 2.0**-23)
    return bool(xp.all(xp.abs(xp.sum(x, axis=-1) - 1) <= tolerance))


def read_from_outside(loss: Callable[..., Any], net: Any) -> tuple[dict[int, str], str | None]:
    """Return the arrays of a network that modules hold which a loss can reach, and one that it reads."""
    trained = {id(leaf) for leaf in tree.leaves(net)}
    facts = Facts((), loss)
    owned = {number: name for number, name in facts.owned.items() if number in trained}
    return owned, next((name for number, name in facts.constants.items() if number in trained), None)


def check_reach(
    loss: Callable[..., Any], owned: dict[int, str], found: str | None, outputs: Any, y: Any
) -> None:
    """Check that a loss does not read the network from outside, where its arrays have no gradient."""
    if owned and not found:
        recording = RecordingNamespace(plain_namespace(tree.leaves(outputs)[0]))
        recording.owned = owned
        try:
            recording.record(loss, *tree.map(recording.lift, (outputs, y)))
        except ArrayFromOutsideError as error:
            found = f"{error.owner}, at {error.line}"
        except NotRecordableError:  # it cannot be told
            return
    if found:
        raise NoGradientError(
            f"the loss must be a function of outputs and targets, received one that reads {found}: from "
            "outside, where what is trained has no gradient. Return what the loss needs from the network, "
            "beside its outputs, or use weight_decay of the optimizer."
        )


# -- the inputs --------------------------------------------------------------------------------------------

# Which layers read which arrays: numbers among the layers that check, and names of arrays.
Reads = set[tuple[int, str]]


def named_arrays(x: Any, name: str = "x") -> dict[str, Any]:
    """Return the arrays in inputs by names such as ``x['category']``, without sparse ones."""
    if isinstance(x, dict):
        parts = [named_arrays(part, f"{name}[{key!r}]") for key, part in x.items()]
        return {path: array for part in parts for path, array in part.items()}
    return {name: x} if tree.is_array(x) else {}


def checking_layers(net: Any) -> list[Any]:
    """Return the layers with a method ``check_all_inputs(x)``, such as `xpnet.nn.Embedding`."""
    return [module for module in tree.branches(net) if hasattr(module, "check_all_inputs")]


def check_inputs(net: Any, batch: Any, arrays: dict[str, Any], name: str = "x") -> Reads:
    """Let layers look at all inputs that reach them as they are: x itself, or an item of x.

    What the network makes of its inputs, a column of x, say, is not looked at.

    Parameters
    ----------
    net : Module
        A network in use. If it has layers that check, it is called with the batch, to see what they read.
    batch : array or dict
        A batch of the inputs, where the network is.
    arrays : dict of str to array
        All inputs, wherever they are, by `named_arrays`; those that are left out are not looked at.
    name : str, default="x"
        What they are called there.

    Returns
    -------
    set of (int, str)
        Which layers read which arrays, for `check_reads`.

    Raises
    ------
    IndexError, TypeError
        What a layer raises. A note names the array.
    """
    layers = checking_layers(net)
    reads: Reads = set()
    if not layers or not arrays:
        return reads
    numbers = {id(layer): number for number, layer in enumerate(layers)}
    names = {id(array): path for path, array in named_arrays(batch, name).items() if path in arrays}

    def enter(layer: Any, inputs: tuple[Any, ...]) -> None:
        new = {(numbers[id(layer)], names[id(x)]) for x in inputs if id(x) in names}
        check_reads(layers, arrays, new - reads)  # before the layer sees the batch, which is a part of them
        reads.update(new)

    with watched_calls(layers, enter=enter):
        net(batch)
    return reads


def check_reads(layers: list[Any], arrays: dict[str, Any], reads: Reads) -> None:
    """Let layers look at the arrays that they are known to read, see `check_inputs`."""
    for number, name in reads:
        try:
            layers[number].check_all_inputs(arrays[name])
        except (IndexError, TypeError) as error:
            error.add_note(f"They are in {name}.")
            raise


def check_of_parts(
    net: Any,
    reads: Reads,
    looks: Sequence[Callable[[Any], None]] = (),
    name: str = "x",
    *,
    weighted: bool = False,
) -> Callable[..., None] | None:
    """Return what looks at data that are read in parts, as was done with the first part; None if nothing is.

    Parameters
    ----------
    net : Module
    reads : set of (int, str)
        Which layers look at which inputs, see `check_inputs`.
    looks : sequence of callable
        What looks at targets.
    name : str, default="x"
        What the inputs are called.
    weighted : bool, default=False
        Whether weights of examples are looked at.

    Returns
    -------
    callable or None
        ``check(x, y, sample_weight)``, each of which may be None. Other arrays than those on the host are not
        looked at.
    """
    if not reads and not looks and not weighted:
        return None
    layers = checking_layers(net)

    def check(x: Any, y: Any = None, sample_weight: Any = None) -> None:
        arrays = {key: array for key, array in named_arrays(x, name).items() if is_on_host(array)}
        check_reads(layers, arrays, {(layer, key) for layer, key in reads if key in arrays})
        if y is not None and all(map(is_on_host, tree.leaves(y))):
            for look in looks:
                with suppress(NothingCountsError):  # a part may be ignored as a whole
                    look(y)
        if sample_weight is not None and is_on_host(sample_weight):
            check_weight_values("sample_weight", sample_weight)

    return check
