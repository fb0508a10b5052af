"""What is done with each batch of a training, to be recorded once and replayed."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from xpnet import tree
from xpnet.autodiff import array_namespace, stop_gradient, value_and_grad
from xpnet.autodiff.transforms import carries_gradient
from xpnet.backends import at_least_single, in_dtype
from xpnet.distributed.shard import Sharded
from xpnet.errors import NoGradientError
from xpnet.losses import check_weights, noted_calls, noted_denominators
from xpnet.losses.checks import NothingCountsError
from xpnet.optim import LossScaling
from xpnet.optim.transforms import each_dtype
from xpnet.replay.same.facts import Facts
from xpnet.settings import flag
from xpnet.share import Share, using_share
from xpnet.training.checks import (
    check_inputs,
    check_logits,
    check_noted_targets,
    check_number,
    check_of_parts,
    check_reach,
    named_arrays,
    read_from_outside,
    watched_outputs,
)
from xpnet.training.data import Data
from xpnet.training.destination import length
from xpnet.training.metric import Metric, attribute_of, check_targets_of
from xpnet.training.networks import evaluation_copy, jit_where_possible
from xpnet.training.totals import NO_WEIGHTS

_log = logging.getLogger("xpnet")

# A batch: x, y, what loss and metrics are given beside outputs and targets, by name; and which share of a
# batch of several processes it is, None if it is all of it.
Batch: TypeAlias = tuple[Any, Any, dict[str, Any], Share | None]

# How many kinds of networks and batches `Steps` remember.
_TRIED = 8


class Steps:
    """What `fit` does with each batch for a loss, to be kept from one training to the next.

    A training records its steps anew unless it is given those of another one: for many short trainings of
    networks of the same shape that costs more than the training itself.

    Parameters
    ----------
    loss : callable
        ``loss(outputs, targets)``, see `fit`.
    jit : bool, default=True
        Whether to record the steps once and replay them, see `xpnet.jit`.
    precision : {"float32", "tf32", "float16", "bfloat16"}, default="float32"
        What the operands of matrix products are rounded to, see `fit`.

    Raises
    ------
    ValueError
        If there is no such precision, or a lower one is asked for without `jit`.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> steps = xpnet.training.Steps(xpnet.losses.mse)
    >>> for seed in range(3):  # the second and third training record nothing
    ...     net, optimizer = xpnet.nn.Dense(2, 2, seed=seed), xpnet.optim.SGD(0.1)
    ...     history = xpnet.fit(net, np.eye(2), np.eye(2), loss=steps, optimizer=optimizer, progress=False)
    """

    def __init__(
        self, loss: Callable[[Any, Any], Any], *, jit: bool = True, precision: str = "float32"
    ) -> None:
        if not flag("jit", jit) and precision != "float32":
            raise ValueError(
                f"precision={precision!r} needs jit=True, as it is a step that was recorded whose products "
                "are rounded; received jit=False. Leave one of the two away."
            )
        self.loss, self.precision = loss, precision
        self._tried: list[tuple[list[Any], bool, bool]] = []  # the latest first
        self._whole, self._part, self._end = _training_steps(loss, self.optimizer)
        self.evaluate = _evaluation_step(loss)
        if jit:
            donate = ("net", "optimizer_state")
            self._whole = jit_where_possible(self._whole, donate=donate, precision=precision)
            self._part = jit_where_possible(self._part, donate=("sums",), precision=precision)
            self._end = jit_where_possible(self._end, donate=(*donate, "sums"), precision=precision)
            self.evaluate = jit_where_possible(self.evaluate, precision=precision)

    def optimizer(self, optimizer: Any) -> Any:
        """Return what takes the steps of an optimizer: in float16, one that scales the loss."""
        if isinstance(optimizer, Sharded):
            inner = self.optimizer(optimizer.optimizer)
            return optimizer if inner is optimizer.optimizer else replace(optimizer, optimizer=inner)
        if self.precision != "float16" or isinstance(optimizer, LossScaling):
            return optimizer
        return LossScaling(optimizer)

    def take(
        self, net: Any, optimizer_state: Any, sums: Any, optimizer: Any, batch: Batch, *, ends: bool
    ) -> tuple[Any, ...]:
        """Take a step with a batch; or add a batch to a step that is taken when one ends it.

        Parameters
        ----------
        net, optimizer_state : tree
            They may be written over.
        sums : tree or None
            What the last batch returned, None if it ended a step.
        optimizer : optimizer
        batch : Batch
        ends : bool
            Whether the batch ends a step.

        Returns
        -------
        net, optimizer_state, sums : tree
            What goes on.
        value : array
            The loss of the batch, a mean.
        outputs : tree
        denominator : array or None
            What it was divided by, if that is not the number of examples.
        """
        if ends and sums is None:
            net, optimizer_state, *found = self._whole(net, optimizer_state, optimizer, *batch)
            return net, optimizer_state, None, *found
        scale = _scale(self.optimizer(optimizer), optimizer_state)
        net, sums, *found = self._part(net, sums, scale, *batch)
        if ends:
            share = batch[-1]
            group = None if share is None else share.group
            net, optimizer_state = self._end(net, optimizer_state, sums, optimizer, group)
            sums = None
        return net, optimizer_state, sums, *found

    def check(
        self,
        net: Any,
        data: Sequence[Data],
        metrics: Sequence[Metric] = (),
        weights: Mapping[str, Any] = NO_WEIGHTS,
        *,
        in_parts: bool = False,
    ) -> None:
        """Try network and loss on a batch, and let loss and metrics look at all targets.

        That is done before anything changes, but for data that are not loaded: these are looked at when they
        are read. What went well once is not tried again with arrays of the same shapes and dtypes.

        Raises
        ------
        ValueError, TypeError
            If the loss is not one number, or targets or weights are wrong, or not taken by the loss or a
            metric, or what takes logits is given probabilities.
        IndexError
            If a layer refuses indices in the inputs.
        NoGradientError
            If the loss reads the parameters of the network from outside.
        """
        watching: list[Callable[..., Any]] = [self.loss, *metrics]
        on_logits = [each for each in watching if attribute_of(each, "takes_logits")]
        found = [check_targets_of(each) for each in watching]
        checks = [check_targets for check_targets in found if check_targets is not None]
        in_use = evaluation_copy(net)
        noted: list[tuple[Callable[..., Any], Any, Any]] = []
        for each in data:
            name, looks = each.names[0], list[Callable[[Any], None]]()
            try:
                (x, y, *weight), (all_x, all_y, *all_weights) = each.first()
                given = with_weights(weights, weight)
                parts = [(all_y, all_weights), *each.own(all_y, all_weights)]
                # Of what is read in parts, nothing may count in the first.
                nothing = () if each.is_loaded else (NothingCountsError,)
                for w, number in ((w, length(y)) for y, ws in parts for w in ws):
                    with contextlib.suppress(*nothing):
                        check_weights(w, number)
                reads = check_inputs(in_use, x, named_arrays(all_x, name), name)
                check_taken(self.loss, given)
                kind = Facts((net, x, y, given), refuse=False).inside(), bool(on_logits), in_parts
                read = read_from_outside(self.loss, net)
                is_new = kind not in self._tried or any(read)
                if is_new or noted or checks or given:
                    outputs, probabilities = watched_outputs(in_use, x)
                    looks += [partial(_look, check_targets, outputs) for check_targets in checks]
                if is_new or noted:  # in the data for training, say, so that the others are looked at, too
                    with noted_calls() as noted:
                        value, denominator = measured(self.loss, outputs, y, given)
                    if found[0] is None:
                        looks.append(partial(check_noted_targets, noted, y))
                if is_new:
                    check_number(value)
                    if in_parts and denominator is _UNKNOWN:
                        raise ValueError(UNKNOWN_DENOMINATOR)
                    if in_parts:
                        _warn_of_no_mean(self.loss, value, outputs, y, given)
                    takers: list[tuple[Any, list[Any]]] = [
                        (taker, tree.leaves(outputs)) for taker in on_logits
                    ]
                    takers += [(loss, [logits]) for loss, logits, _ in noted]
                    check_logits(takers, probabilities)
                    check_reach(partial(self.loss, **given), *read, outputs, y)
                for metric in metrics if given else ():
                    metric.batch_totals(outputs, y, **given)  # which refuses weights that it does not take
                for look, targets in ((look, targets) for targets, _ in parts for look in looks):
                    with contextlib.suppress(*nothing):
                        look(targets)
            except (IndexError, TypeError, ValueError) as error:
                if name != "x":
                    error.add_note("This is about the data for validation.")
                raise
            each.check = check_of_parts(in_use, reads, looks, name, weighted=bool(weight))
            self._tried = [kind, *(other for other in self._tried if other != kind)][:_TRIED]


NO_DEPENDENCE = (
    "the loss must have a gradient in the parameters of the network, received one that does not depend on "
    "them, or only through functions without a gradient, such as argmax, comparisons and stop_gradient. "
    "Compute it from the outputs with functions that have one: xpnet.losses.cross_entropy, say, in place of "
    "the share of mistakes, which may be among the metrics."
)


def check_taken(loss: Callable[..., Any], weights: Mapping[str, Any]) -> None:
    """Check that a loss takes the weights that there are, by their names, and has none of these already."""
    bound = [name for name in weights if name in getattr(loss, "keywords", {})]
    if bound:
        raise ValueError(
            f"{bound[0]} must be given once, received it in the loss, a partial, and by fit, which would "
            "take its place. Leave out one of them."
        )
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a function that does not say
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    missing = [name for name in weights if name not in parameters]
    if missing:
        name = attribute_of(loss, "__name__") or type(loss).__name__
        raise TypeError(
            f"with {missing[0]}, the loss must take it, as those of xpnet do: loss(outputs, targets, "
            f"{missing[0]}=None); received {name}({', '.join(parameters)})."
        )


def _warn_of_no_mean(
    loss: Callable[..., Any], value: Any, outputs: Any, y: Any, weights: Mapping[str, Any]
) -> None:
    """Warn of a loss of a batch that is not the mean of those of its parts, of which steps are made."""
    number = length(y)
    if number < 2:
        return

    def cut(rows: slice, values: Any) -> Any:
        def part(leaf: Any) -> Any:
            return leaf[rows, ...] if tree.is_array(leaf) and leaf.shape[:1] == (number,) else leaf

        return tree.map(part, values)

    total, counted = 0.0, 0.0
    for rows in (slice(number // 2), slice(number // 2, None)):
        given = {name: cut(rows, x) if name == "sample_weight" else x for name, x in weights.items()}
        try:
            mean, denominator = measured(loss, cut(rows, outputs), cut(rows, y), given)
        except Exception:  # a loss of somebody's own that needs more examples: it cannot be told
            return
        counts = len(range(number)[rows]) if denominator is None else float(denominator)
        total, counted = total + (float(mean) * counts if counts else 0.0), counted + counts
    expected, found = float(value), total / counted if counted else 0.0
    if abs(found - expected) > 1e-3 * abs(expected):
        _log.warning(
            "xpnet: the loss of a batch is not the mean of those of its parts: it is %.4g, and theirs %.4g. "
            "With accumulate, and in several processes, what is trained with is the mean over the parts.",
            expected,
            found,
        )


def _look(check_targets: Callable[..., Any], outputs: Any, targets: Any) -> None:
    """Check targets beside the outputs of a batch, of which a part of the targets may have fewer examples."""

    def cut(leaf: Any) -> Any:
        return leaf[:number, ...] if tree.is_array(leaf) and leaf.shape[:1] > (number,) else leaf

    number = length(targets)
    check_targets(tree.map(cut, outputs), targets)


def with_weights(weights: Mapping[str, Any], sample_weight: Sequence[Any]) -> dict[str, Any]:
    """Return what loss and metrics are given beside outputs and targets; of weighted examples theirs."""
    return {**weights, "sample_weight": sample_weight[0]} if sample_weight else dict(weights)


UNKNOWN_DENOMINATOR = (
    "with accumulate or a group, a loss with weights must say what its mean was divided by, received one "
    "number, or a sum. Return what a loss of xpnet returns, without a term or factor of your own; or two "
    "numbers, the sum of the losses and what it is to be divided by: (total, weights)."
)

# What `measured` returns where a loss with weights does not say what it was divided by.
_UNKNOWN = object()


def measured(loss: Callable[..., Any], outputs: Any, y: Any, weights: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the loss of a batch, and what its mean was divided by; None for the number of examples.

    It is known of a loss of xpnet's, also through a function that returns what that returns, and of one that
    returns both.
    """
    with noted_denominators() as noted:
        value = loss(outputs, y, **weights)
    if isinstance(value, tuple) and len(value) == 2:
        total, denominator = value
        xp = array_namespace(total)
        denominator = _in_kind(xp, denominator, total)
        return total / _nonzero(xp, denominator), denominator
    for result, denominator, is_weighted in noted:
        if result is value and denominator is not None:
            return value, denominator if is_weighted else None
    is_weighted = bool(weights) or any(is_weighted for *_, is_weighted in noted)
    return value, _UNKNOWN if is_weighted else None


def _part_of_batch(value: Any, denominator: Any, share: Share) -> tuple[Any, Any]:
    """Return which part the loss of a share is of that of the batch, and what the latter is divided by."""
    if denominator is _UNKNOWN:
        raise ValueError(UNKNOWN_DENOMINATOR)
    if denominator is None:
        return share.number / (share.batch * share.copies), share.batch
    xp = array_namespace(value)
    own = _in_kind(xp, stop_gradient(denominator), at_least_single(xp, value)) / share.copies
    of_batch = share.group.sum(own)
    return in_dtype(xp, own / _nonzero(xp, of_batch), value.dtype), of_batch


def _in_kind(xp: Any, number: Any, like: Any) -> Any:
    """Return a number, or an array of shape (), in the dtype and on the device of another one."""
    return xp.astype(number, like.dtype) if tree.is_array(number) else xp.full_like(like, number)


def _nonzero(xp: Any, denominator: Any) -> Any:
    """Return what can be divided by: where nothing counts, the sum is 0 as well."""
    return xp.where(denominator == 0, xp.ones_like(denominator), denominator)


def _training_steps(
    loss: Callable[..., Any], scaled: Callable[[Any], Any]
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return what is done with a batch that is a step, with one that is a part of it, and at its end."""

    def batch_loss(
        net: Any, scale: Any, x: Any, y: Any, weights: Any, share: Share | None
    ) -> tuple[Any, Any]:
        with using_share(share):
            outputs = net(x)
            value, denominator = measured(loss, outputs, y, weights)
        if not carries_gradient(value):
            raise NoGradientError(NO_DEPENDENCE)
        scaled, of_batch = value if scale is None else value * scale, None
        if share is not None:
            part, of_batch = _part_of_batch(value, denominator, share)
            scaled = scaled * part
        return scaled, (value, outputs, denominator, of_batch)

    differentiated = value_and_grad(batch_loss, has_aux=True)

    def whole(
        net: Any, optimizer_state: Any, optimizer: Any, x: Any, y: Any, weights: Any, share: Share | None
    ) -> tuple[Any, ...]:
        optimizer = scaled(optimizer)
        scale = _scale(optimizer, optimizer_state)
        (_, found), gradients = differentiated(net, scale, x, y, weights, share)
        if share is not None and not isinstance(optimizer, Sharded):  # which adds them up
            gradients = share.group.sum(gradients)
        net, optimizer_state = optimizer.update(gradients, optimizer_state, net)
        return net, optimizer_state, *_known(*found[:3])

    def part(
        net: Any, sums: Any, scale: Any, x: Any, y: Any, weights: Any, share: Share | None
    ) -> tuple[Any, ...]:
        (_, found), gradients = differentiated(net, scale, x, y, weights, share)
        value, outputs, denominator, of_batch = found
        if denominator is _UNKNOWN:
            raise ValueError(UNKNOWN_DENOMINATOR)
        xp = array_namespace(value)
        counted = _in_kind(xp, length(y) if denominator is None else denominator, at_least_single(xp, value))
        leaves = [at_least_single(xp, g) for g in tree.leaves(gradients)]
        # The mean of means would be another one where batches do not count alike.
        factor = counted if share is None else _in_kind(xp, of_batch, counted)
        counted = counted if share is None else counted / share.copies
        added = [g * d for g, d in zip(leaves, each_dtype(factor, leaves), strict=True)]
        if sums is not None:
            before, counted_before = sums
            added = [s + g for s, g in zip(before, added, strict=True)]
            counted = counted_before + counted
        return net, (added, counted), value, outputs, denominator

    def end(net: Any, optimizer_state: Any, sums: Any, optimizer: Any, group: Any) -> tuple[Any, Any]:
        leaves, structure = tree.flatten(net)
        added, counted = sums
        if isinstance(optimizer, Sharded):  # which adds up the gradients
            counted = group.sum(counted)
        elif group is not None:
            added, counted = group.sum(sums)
        xp = array_namespace(counted)
        each = zip(added, each_dtype(_nonzero(xp, counted), added), leaves, strict=True)
        gradients = [in_dtype(xp, g / d, p.dtype) for g, d, p in each]
        updated: tuple[Any, Any] = scaled(optimizer).update(
            tree.unflatten(structure, gradients), optimizer_state, net
        )
        return updated

    return whole, part, end


def _scale(optimizer: Any, optimizer_state: Any) -> Any:
    """Return what the loss is multiplied by, None for 1."""
    inner = optimizer.optimizer if isinstance(optimizer, Sharded) else optimizer
    return optimizer_state["loss_scale"] if isinstance(inner, LossScaling) else None


def _known(value: Any, outputs: Any, denominator: Any) -> tuple[Any, Any, Any]:
    """Return the loss, the outputs and what the loss was divided by, which may be of no interest."""
    return value, outputs, None if denominator is _UNKNOWN else denominator


def _evaluation_step(loss: Callable[..., Any]) -> Callable[..., Any]:
    def step(net: Any, x: Any, y: Any, weights: Any, share: Share | None) -> tuple[Any, ...]:
        with using_share(share):
            outputs = net(x)
            value, denominator = measured(loss, outputs, y, weights)
        return _known(value, outputs, denominator)

    return step
