"""What is done with each batch of a training, to be recorded once and replayed."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from xpnet import tree
from xpnet.autodiff import value_and_grad
from xpnet.autodiff.transforms import depends
from xpnet.backends import plain_namespace
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.nn.summary import watched_calls
from xpnet.optim import LossScaling
from xpnet.replay.outside import ArrayFromOutsideError
from xpnet.replay.recording import RecordingNamespace
from xpnet.replay.same import Fact, Facts
from xpnet.training.batches import Examples
from xpnet.training.inputs import check_inputs, named_arrays
from xpnet.training.predict import evaluation_copy, jit_where_possible, training_copy

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
        self._tried: list[tuple[list[Fact], bool]] = []  # the latest first
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

    def check(
        self, net: Any, data: Sequence[Examples], batch_size: int, metrics: Sequence[Callable] = ()
    ) -> None:
        """Try network and loss on a batch, and let loss and metrics look at all targets.

        That is done before anything changes. What went well once is not tried again with arrays of the same
        shapes and dtypes.

        Raises
        ------
        ValueError, TypeError
            If the loss is not one number, or targets are wrong, or what takes logits is given probabilities.
        NoGradientError
            If the loss does not depend on the parameters of the network, or reads them from outside.
        """
        watching = (self.loss, *metrics)
        on_logits = [each for each in watching if attribute_of(each, "takes_logits")]
        found = [attribute_of(each, "check_targets") for each in watching]
        checks = [check_targets for check_targets in found if check_targets is not None]
        in_use = evaluation_copy(net)
        for examples in data:
            x, y = next(examples.batches(batch_size))
            check_inputs(in_use, x, named_arrays(examples.values[0]))
            kind = Facts((net, x, y), refuse=False).inside(), bool(on_logits)
            read = _read_from_outside(self.loss, net)
            is_new = kind not in self._tried or any(read)
            if not is_new and not checks:
                continue
            outputs, probabilities = _watched_outputs(in_use, x)
            if is_new:
                _check_number(self.loss(outputs, y))
                _check_logits(on_logits, outputs, probabilities)
                _check_reach(self.loss, *read, outputs, y)
                if examples is data[0]:  # those to train on
                    _check_dependence(self.loss, net, x, y)
            for check_targets in checks:
                check_targets(outputs, examples.values[1])
            self._tried = [kind, *(other for other in self._tried if other != kind)][:_TRIED]


def attribute_of(function: Callable, name: str) -> Any:
    """Return an attribute of a loss or a metric, also through `functools.partial`; None if it has none."""
    while isinstance(function, functools.partial) and not hasattr(function, name):
        function = function.func
    return getattr(function, name, None)


def _check_number(value: Any) -> None:
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
        f"the loss must return one number, an array of shape () that is not complex, received {received}. "
        'Return the mean over the batch; the losses of xpnet do so unless they are told reduction="none".'
    )


def _watched_outputs(net: Any, x: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Call a network; also return each output of a layer that gives probabilities, with the layer's name."""
    modules = tree.named_branches(net)
    names = {id(module): path for path, module in modules if getattr(module, "gives_probabilities", False)}
    if not names:
        return net(x), []
    found: list[tuple[str, Any]] = []

    def note(layer: Any, output: Any) -> None:
        name = f"{names[id(layer)]} {type(layer).__name__}".strip()
        found.extend((name, leaf) for leaf in tree.leaves(output))

    with watched_calls([part for part in tree.branches(net) if id(part) in names], note):
        return net(x), found


def _check_logits(on_logits: list, outputs: Any, probabilities: list[tuple[str, Any]]) -> None:
    """Check that no loss or metric on logits is given what is probabilities already.

    Of several outputs, all would have to be such, as only a loss knows which of them it takes for what.
    """
    leaves = tree.leaves(outputs)
    if not on_logits or not leaves:
        return
    layers = [next((name for name, p in probabilities if _has_values_of(leaf, p)), None) for leaf in leaves]
    if not all(layer or _adds_up_to_one(leaf) for layer, leaf in zip(layers, leaves, strict=True)):
        return
    first = on_logits[0]
    name = attribute_of(first, "name") or attribute_of(first, "__name__") or type(first).__name__
    if layers[0]:
        received = f"probabilities, the output of the layer {layers[0]}"
        out = "that layer away"
    else:
        received = "rows of numbers from 0 to 1 that add up to 1, probabilities"
        out = "the softmax out of the network"
    raise ValueError(
        f"{name} takes logits, scores of any size, and makes probabilities of them by itself; received "
        f"{received}. Take {out}, and apply it to what predict returns; the estimators do that by themselves."
    )


def _has_values_of(x: Any, probabilities: Any) -> bool:
    """Say whether an array is another one, perhaps in another shape."""
    if x is probabilities:
        return True
    if not tree.is_array(x) or x.dtype != probabilities.dtype:
        return False
    if math.prod(x.shape) != math.prod(probabilities.shape):
        return False
    xp = plain_namespace(x)
    return bool(xp.all(xp.reshape(x, (-1,)) == xp.reshape(probabilities, (-1,))))


def _adds_up_to_one(x: Any) -> bool:
    """Say whether each row of an array is a distribution over at least two classes."""
    if not tree.is_array(x) or len(x.shape) < 2 or x.shape[-1] < 2:
        return False
    xp = plain_namespace(x)
    if not xp.isdtype(x.dtype, "real floating") or not bool(xp.all(x >= 0)):
        return False
    # A rounding for each number that is added up, and some in the softmax.
    tolerance = (x.shape[-1] + 4) * float(xp.finfo(x.dtype).eps)
    return bool(xp.all(xp.abs(xp.sum(x, axis=-1) - 1) <= tolerance))


def _read_from_outside(loss: Callable, net: Any) -> tuple[dict[int, str], str | None]:
    """Return the arrays of a network that modules hold which a loss can reach, and one that it reads."""
    trained = {id(leaf) for leaf in tree.leaves(net)}
    facts = Facts((), loss)
    owned = {number: name for number, name in facts.owned.items() if number in trained}
    return owned, next((name for number, name in facts.constants.items() if number in trained), None)


def _check_reach(loss: Callable, owned: dict[int, str], found: str | None, outputs: Any, y: Any) -> None:
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


def _check_dependence(loss: Callable, net: Any, x: Any, y: Any) -> None:
    """Check that the loss has a gradient in the network as it is in training."""
    if tree.leaves(net) and not depends(lambda net, x, y: loss(net(x), y), training_copy(net), x, y):
        raise NoGradientError(CONSTANT)


CONSTANT = (
    "the loss must have a gradient in the parameters of the network, received one that does not depend on "
    "them, or only through functions without a gradient, such as argmax, comparisons and stop_gradient. "
    "Compute it from the outputs with functions that have one: xpnet.losses.cross_entropy, say, in place of "
    "the share of mistakes, which may be among the metrics."
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
