"""What is done with each batch of a training, to be recorded once and replayed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from xpnet import tree
from xpnet.autodiff import value_and_grad
from xpnet.backends import plain_namespace
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.optim import LossScaling
from xpnet.replay.outside import ArrayFromOutsideError
from xpnet.replay.recording import RecordingNamespace
from xpnet.replay.same import Fact, Facts
from xpnet.training.batches import Examples
from xpnet.training.inputs import check_inputs, named_arrays
from xpnet.training.predict import evaluation_copy, jit_where_possible

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
        if not jit and precision != "float32":
            raise ValueError(
                f"precision={precision!r} needs jit=True, as it is a step that was recorded whose products "
                "are rounded; received jit=False. Leave one of the two away."
            )
        self.loss, self.precision = loss, precision
        self._tried: list[list[Fact]] = []  # the latest first
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

    def check(self, net: Any, data: Sequence[Examples], batch_size: int) -> None:
        """Try network and loss on a batch, and let the loss look at all targets, before anything changes.

        What went well once is not tried again with arrays of the same shapes and dtypes.
        """
        loss = self.loss
        while isinstance(loss, functools.partial):
            loss = loss.func
        check_targets = getattr(loss, "check_targets", None)
        for examples in data:
            x, y = next(examples.batches(batch_size))
            check_inputs(evaluation_copy(net), x, named_arrays(examples.values[0]))
            kind = Facts((net, x, y), refuse=False).inside()
            if check_targets is None and kind in self._tried:
                continue
            outputs = evaluation_copy(net)(x)
            self.loss(outputs, y)
            _check_reach(self.loss, net, outputs, y)
            if check_targets is not None:
                check_targets(outputs, examples.values[1])
            self._tried = [kind, *self._tried][:_TRIED]


def _check_reach(loss: Callable, net: Any, outputs: Any, y: Any) -> None:
    """Check that a loss does not read the network from outside, where its arrays have no gradient."""
    trained = {id(leaf) for leaf in tree.leaves(net)}
    facts = Facts((), loss)
    owned = {number: name for number, name in facts.owned.items() if number in trained}
    found: Any = next((name for number, name in facts.constants.items() if number in trained), None)
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


def _training_step(loss: Callable, in_use: Callable[[Any], Any]) -> Callable:
    """Return what is done with each batch."""

    def batch_loss(net: Any, x: Any, y: Any, scale: Any) -> tuple[Any, Any]:
        outputs = net(x)
        value = loss(outputs, y)
        return (value if scale is None else value * scale), (value, outputs)

    def step(net: Any, optimizer_state: Any, x: Any, y: Any, optimizer: Any) -> tuple:
        optimizer = in_use(optimizer)
        scale = optimizer_state["loss_scale"] if isinstance(optimizer, LossScaling) else None
        (_, (value, outputs)), gradients = value_and_grad(batch_loss, has_aux=True)(net, x, y, scale)
        net, optimizer_state = optimizer.update(gradients, optimizer_state, net)
        return net, optimizer_state, value, outputs

    return step


def _evaluation_step(loss: Callable) -> Callable:
    def step(net: Any, x: Any, y: Any) -> tuple:
        outputs = net(x)
        return loss(outputs, y), outputs

    return step
