"""Where the first infinite or NaN value of a training came from."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import plain_namespace, to_numpy
from xpnet.distributed import Group
from xpnet.nn.sparse import SparseRows
from xpnet.nn.summary import layer_names, watched_calls
from xpnet.training.data import Data
from xpnet.training.finite import are_finite, became_bad, has_points, is_finite
from xpnet.training.networks import deep_copied, evaluation_copy
from xpnet.training.run import Run
from xpnet.training.steps import Batch, Steps

_log = logging.getLogger("xpnet")


@dataclass(frozen=True)
class BadValue:
    """Where the first bad value is.

    Attributes
    ----------
    name : str
        ``"x"`` or ``"y"``, with the keys of dicts behind it; else what was computed.
    advice : str
        What to do.
    index : tuple of int
        Where in the data it is: the number of the example in its batch, and those of the other axes.
    value : str
        The value of data.
    """

    name: str
    advice: str
    index: tuple[int, ...] = ()
    value: str = ""


BACK = "The network has the weights from before this epoch."
AFTER_CALLBACK = ", after a callback changed them. The network has the weights from before."
# What is bad where it is not known what made it so.
_UNKNOWN = _LOSS, _OTHERS = "the loss", "the data of another process"
_FILL = "Leave such examples out, or fill their values in. "
_SLOWER = "Lower the learning rate, or scale x and y. "
_SCALE = "Scale x. "
_GRADIENT = (
    "Lower the learning rate; or is there a gradient that is infinite where the loss is not, as that of a "
    "square root at 0? xpnet.raise_on_nan names it. "
)


def first_bad_step(
    run: Run,
    steps: Steps,
    batches: Iterable[tuple[int, Batch]],
    names: Sequence[str],
    accumulate: int = 1,
    on_any: Callable[[Any], bool] = bool,
) -> tuple[int, BadValue] | None:
    """Take the steps of an epoch again, up to the first that is bad.

    Parameters
    ----------
    run : Run
        Where it was before the first of the batches. It is not changed.
    steps : Steps
    batches : iterable of (int, Batch)
        Their numbers, counted from 0, and they.
    names : sequence of str
        What inputs and targets are called.
    accumulate : int, default=1
        How many batches make a step.
    on_any : callable, optional
        Says whether something holds on any of the processes that take these steps together, as each sees its
        share of the batches alone.

    Returns
    -------
    (int, BadValue) or None
        The number of the batch, counted from 0, and the first bad value: in the data of a step, if they made
        its loss or a weight bad; else what made a loss bad; else a weight. None if there is none this time,
        as a callback changed the steps.
    """

    def steps_from(before: tuple[Any, Any, Any], ends: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Return what takes a step from here, and what says whether one from here is good."""

        def take(*batch: Any) -> tuple[Any, ...]:
            net, state, sums = deep_copied(before)
            return steps.take(net, state, sums, run.optimizer_in_steps, batch, ends=ends)

        def is_good(*batch: Any) -> bool:
            after, _, _, loss, *_ = take(*batch)
            return not on_any(not is_finite(loss) or became_bad(after, before[0]))

        return take, is_good

    net, state, sums, weights = run.net, run.optimizer_state, None, None
    for number, batch in batches:
        take, is_good = steps_from((net, state, sums), (number + 1) % accumulate == 0)
        after, state, sums, loss, *_ = take(*batch)
        bad = became_bad(after, net)
        if on_any(not is_finite(loss)):
            found = _first_bad_datum(is_good, batch, names, on_any) or _first_bad_output(net, batch)
            if weights is not None and found is not None and found.name.startswith("the weights"):
                found = replace(found, advice=_GRADIENT)  # the loss of the step that made them was finite
            return number, found or BadValue(_LOSS, _SLOWER)
        if bad and weights is None:
            found = _first_bad_datum(is_good, batch, names, on_any)
            if found is not None:
                return number, found
            weights = number, BadValue(bad, _GRADIENT if bad in tree.paths(net) else _SCALE)
        net = after
    return weights


def first_bad_evaluation(
    net: Any,
    evaluate: Callable[..., Any],
    batches: Iterable[tuple[int, Batch]],
    names: Sequence[str],
) -> tuple[int, BadValue] | None:
    """Do for the evaluation of a network what `first_bad_step` does for its training."""

    def is_good(*batch: Any) -> bool:
        return is_finite(evaluate(net, *batch[:3], None)[0])  # by this process alone

    for number, batch in batches:
        if not is_good(*batch):
            found = _first_bad_datum(is_good, batch, names) or _first_bad_output(net, batch)
            return number, found or BadValue(_LOSS, _SLOWER)
    return None


def first_bad_data(batches: Iterable[tuple[int, Batch]], names: Sequence[str]) -> tuple[int, BadValue] | None:
    """Return the first bad value of batches by themselves, and the number of its batch."""
    for number, (x, y, *_) in batches:
        for name, data in zip(names, (x, y), strict=False):
            for found in _bad_data(name, data):
                return number, found
    return None


def first_of_all(group: Group, found: tuple[int, BadValue] | None, data: Data) -> tuple[bool, str]:
    """Say what the processes found that `first_bad_step` or `first_bad_evaluation` looked for.

    Returns
    -------
    bool
        Whether it is in the data.
    str
        The text of `explained`, of the one that found the most in the first batch.
    """
    is_datum = found is not None and bool(found[1].index)
    number = math.inf if found is None else found[0]
    what = 3 if found is None else 0 if is_datum else 2 if found[1].name in _UNKNOWN else 1
    everyone = group.gather_objects((number, what, group.rank, explained(found, data)))
    _, what, _, text = min(everyone)
    return what == 0, text


def explained(found: tuple[int, BadValue] | None, data: Data) -> str:
    """Say what `first_bad_step` or `first_bad_evaluation` found in data, to follow an error's text."""
    if found is None:
        return f". Lower the learning rate, {data.unexplained}. "
    batch, value = found
    place = value.name
    if value.index:
        number, *others = value.index
        place += f" at {data.place(batch, number)}"
        if len(others) == 1:
            columns = data.columns.get(value.name)
            place += f", column {others[0] if columns is None else repr(columns[others[0]])}"
        elif others:
            place += f", {tuple(others)}"
        place += f", which is {value.value}"
    return f", batch {batch + 1}, first in {place}. {value.advice}"


def check_validation(
    run: Run, loss: float, data: Data, evaluate: Callable[..., Any], batches: Iterable[tuple[int, Batch]]
) -> None:
    """Raise an error if bad values in the data for validation made its loss bad; else warn of such a loss."""
    earlier = run.history["validation_loss"] if len(run.history) else []
    if math.isfinite(loss) or not all(map(math.isfinite, earlier)):  # said already
        return
    found = first_bad_evaluation(evaluation_copy(run.net), evaluate, batches, data.names)
    is_datum, text = first_of_all(run.group, found, data)
    text = f"but is {loss} in epoch {run.epoch}{text}"
    if is_datum:
        raise FloatingPointError(f"the validation loss must be finite, {text}{BACK}")
    _log.warning("xpnet: the validation loss should be finite, %s", text)


def _first_bad_datum(
    is_good: Callable[..., bool], batch: Batch, names: Sequence[str], on_any: Callable[[Any], bool] = bool
) -> BadValue | None:
    """Return the first bad value in the data of a batch that is not good, if it is to blame.

    A network may know what to do with NaN in its inputs, and a loss with NaN in targets. So the data are to
    blame only if all is good without their bad values. Each process sees its own, and is told of others.
    """
    x, y, *others = batch
    bad_x, bad_y = (next(_bad_data(name, data), None) for name, data in zip(names, (x, y), strict=False))
    any_y = on_any(bad_y)
    if not (on_any(bad_x) or any_y) or not is_good(_without_bad(x), _without_bad(y), *others):
        return None
    is_y = any_y and is_good(x, _without_bad(y), *others)
    return (bad_y if is_y else bad_x) or BadValue(_OTHERS, _FILL)


def _first_bad_output(net: Any, batch: Batch) -> BadValue | None:
    # Of several processes, each looks by itself: those without a bad value could not wait for others.
    x, net = batch[0], tree.copied(net) if batch[-1] is None else evaluation_copy(net)
    names, bad = layer_names(net), []

    def note(module: Any, output: Any) -> None:
        if not are_finite(tree.leaves(output)):
            weights = are_finite(tree.leaves(module, frozen=True))
            bad.append(f"the {'output' if weights else 'weights'} of {names[id(module)]}")

    def enter(module: Any, inputs: tuple[Any, ...]) -> None:
        for array in filter(tree.is_array, inputs if hasattr(module, "check_all_inputs") else ()):
            module.check_all_inputs(array)

    try:
        with watched_calls(tree.branches(net), note, enter):
            net(x)
    except IndexError as error:  # indices that the network takes out of x
        return BadValue(f"what a layer refuses: {str(error).rstrip('.')}", "")
    return BadValue(bad[0], _SLOWER) if bad else None


def _bad_data(name: str, data: Any) -> Iterator[BadValue]:
    """Yield the first infinite or NaN value of each array of a batch."""
    if isinstance(data, dict):
        for key, part in data.items():
            yield from _bad_data(f"{name}[{key!r}]", part)
    elif not are_finite(tree.leaves(data)):
        sparse = isinstance(data, SparseRows)
        array = to_numpy(data.values if sparse else data)
        index = tuple(int(i) for i in numpy.argwhere(~numpy.isfinite(array))[0])
        value = f"{array[index]}" if numpy.isnan(array[index]) else f"{array[index]} in {array.dtype}"
        if sparse:
            index = tuple(int(to_numpy(places)[index]) for places in (data.rows, data.columns))
        yield BadValue(name, _FILL, index, value)


def _without_bad(data: Any) -> Any:
    """Return data with 0 in the place of what is infinite or NaN."""

    def filled(x: Any) -> Any:
        xp = plain_namespace(x)
        return xp.where(xp.isfinite(x), x, xp.zeros_like(x)) if has_points(x) else x

    return tree.map(filled, data)
