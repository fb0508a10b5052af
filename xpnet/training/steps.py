"""What is done with each batch of a training, to be recorded once and replayed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from xpnet import tree
from xpnet.autodiff import value_and_grad
from xpnet.autodiff.transforms import carries_gradient
from xpnet.errors import NoGradientError
from xpnet.losses import noted_calls
from xpnet.optim import LossScaling
from xpnet.replay.same.facts import Facts
from xpnet.settings import flag
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
        self._tried: list[tuple[list[Any], bool]] = []  # the latest first
        self.train, self.evaluate = _training_step(loss, self.optimizer), _evaluation_step(loss)
        if jit:
            donate = ("net", "optimizer_state")
            self.train = jit_where_possible(self.train, donate=donate, precision=precision)
            self.evaluate = jit_where_possible(self.evaluate, precision=precision)

    def optimizer(self, optimizer: Any) -> Any:
        """Return what takes the steps of an optimizer: in float16, one that scales the loss."""
        if self.precision != "float16" or isinstance(optimizer, LossScaling):
            return optimizer
        return LossScaling(optimizer)

    def check(self, net: Any, data: Sequence[Data], metrics: Sequence[Metric] = ()) -> None:
        """Try network and loss on a batch, and let loss and metrics look at all targets.

        That is done before anything changes, but for data that are not loaded: these are looked at when they
        are read. What went well once is not tried again with arrays of the same shapes and dtypes.

        Raises
        ------
        ValueError, TypeError
            If the loss is not one number, or targets are wrong, or what takes logits is given probabilities.
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
                (x, y), (all_x, all_y) = each.first()
                reads = check_inputs(in_use, x, named_arrays(all_x, name), name)
                kind = Facts((net, x, y), refuse=False).inside(), bool(on_logits)
                read = read_from_outside(self.loss, net)
                is_new = kind not in self._tried or any(read)
                if is_new or noted or checks:
                    outputs, probabilities = watched_outputs(in_use, x)
                    looks += [partial(_look, check_targets, outputs) for check_targets in checks]
                if is_new or noted:  # in the data for training, say, so that the others are looked at, too
                    with noted_calls() as noted:
                        value = self.loss(outputs, y)
                    if found[0] is None:
                        looks.append(partial(check_noted_targets, noted, y))
                if is_new:
                    check_number(value)
                    takers: list[tuple[Any, list[Any]]] = [
                        (taker, tree.leaves(outputs)) for taker in on_logits
                    ]
                    takers += [(loss, [logits]) for loss, logits, _ in noted]
                    check_logits(takers, probabilities)
                    check_reach(self.loss, *read, outputs, y)
                for look in looks:
                    look(all_y)
            except (IndexError, TypeError, ValueError) as error:
                if name != "x":
                    error.add_note("This is about the data for validation.")
                raise
            each.check = check_of_parts(in_use, reads, looks, name)
            self._tried = [kind, *(other for other in self._tried if other != kind)][:_TRIED]


NO_DEPENDENCE = (
    "the loss must have a gradient in the parameters of the network, received one that does not depend on "
    "them, or only through functions without a gradient, such as argmax, comparisons and stop_gradient. "
    "Compute it from the outputs with functions that have one: xpnet.losses.cross_entropy, say, in place of "
    "the share of mistakes, which may be among the metrics."
)


def _look(check_targets: Callable[..., Any], outputs: Any, targets: Any) -> None:
    """Check targets beside the outputs of a batch, of which a part of the targets may have fewer examples."""

    def cut(leaf: Any) -> Any:
        return leaf[:number, ...] if tree.is_array(leaf) and leaf.shape[:1] > (number,) else leaf

    number = length(targets)
    check_targets(tree.map(cut, outputs), targets)


def _training_step(loss: Callable[..., Any], scaled: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return what is done with each batch."""

    def batch_loss(net: Any, x: Any, y: Any, scale: Any) -> tuple[Any, Any]:
        outputs = net(x)
        value = loss(outputs, y)
        if not carries_gradient(value):
            raise NoGradientError(NO_DEPENDENCE)
        return (value if scale is None else value * scale), (value, outputs)

    def step(net: Any, optimizer_state: Any, x: Any, y: Any, optimizer: Any) -> tuple[Any, ...]:
        optimizer = scaled(optimizer)
        scale = optimizer_state["loss_scale"] if isinstance(optimizer, LossScaling) else None
        (_, (value, outputs)), gradients = value_and_grad(batch_loss, has_aux=True)(net, x, y, scale)
        net, optimizer_state = optimizer.update(gradients, optimizer_state, net)
        return net, optimizer_state, value, outputs

    return step


def _evaluation_step(loss: Callable[..., Any]) -> Callable[..., Any]:
    def step(net: Any, x: Any, y: Any) -> tuple[Any, ...]:
        outputs = net(x)
        return loss(outputs, y), outputs

    return step
