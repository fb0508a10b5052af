"""What the estimators minimize: losses of examples, which may have weights, and a penalty."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from xpnet import losses, tree
from xpnet.autodiff import array_namespace, stop_gradient
from xpnet.autodiff.transforms import carries_gradient
from xpnet.backends import asarray, device_of
from xpnet.errors import NoGradientError
from xpnet.nn import Module
from xpnet.share import current_share
from xpnet.training import Steps
from xpnet.training.metric import attribute_of, check_targets_of
from xpnet.training.steps import NO_DEPENDENCE


class Penalized(Module):
    """A network beside the penalty of its weights, ``alpha / 2 * sum(w²)`` over its matrices.

    Its output is a dict, ``"outputs"`` of the network and, in training, the ``"penalty"``.
    """

    state = ("alpha",)  # an array, so that networks with other penalties share a recording

    def __init__(self, net: Module, alpha: float, outputs: int | None) -> None:
        self.net, self.outputs = net, outputs
        self.training = net.training
        self.penalized = bool(alpha > 0)
        first = next(iter(tree.leaves(net, frozen=True)))
        self.alpha = asarray(alpha, device=device_of(first), dtype=first.dtype)

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        return self.net.takes_sparse

    def __call__(self, x: Any) -> dict[str, Any]:
        outputs = one_array(self.net(x), self.outputs)
        matrices = [w for w in tree.leaves(self.net) if len(w.shape) > 1]
        if not (self.training and self.penalized and matrices):
            return {"outputs": outputs}
        xp = array_namespace(outputs, self.alpha)
        squares = [xp.sum(w * w) for w in matrices]
        return {"outputs": outputs, "penalty": 0.5 * self.alpha * sum(squares[1:], squares[0])}


def one_array(outputs: Any, number: int | None = None) -> Any:
    """Return the outputs of an estimator's network, after a check that they are one array, of so many."""
    if not tree.is_array(outputs):
        raise TypeError(
            "the module of an estimator must return one array, of shape (examples, outputs), received "
            f"{type(outputs).__name__}. Leave out what else it returns, or train it with xpnet.fit."
        )
    if number is not None and tuple(outputs.shape[1:]) != (number,):
        raise ValueError(
            f"the module of an estimator must return the shape (examples, {number}) for these targets (one "
            f"output for two classes), received {tuple(outputs.shape)}. A function as module is called with "
            "the numbers of features and outputs."
        )
    return outputs


@dataclass(frozen=True)
class Objective:
    """The mean of the losses of a batch, with weights, and the penalty.

    Attributes
    ----------
    each : callable
        ``each(outputs, y, **options)`` returns the loss of each example, shape (batch,), or of each of its
        outputs, (batch, outputs).
    options : tuple of (str, value)
    mean : bool
        Whether the losses of the outputs of an example are averaged, and not added up.
    shown_as_mean : bool
        Whether what is added up is still reported as a mean.
    limited : bool
        Whether each loss is reported as at most that of a probability of the machine epsilon.
    takes_logits : bool
        Whether outputs are scores, of which the loss or the estimator makes probabilities by itself.
    """

    each: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()
    mean: bool = True
    shown_as_mean: bool = False
    limited: bool = False
    takes_logits: bool = False

    @property
    def check_targets(self) -> Callable[..., Any] | None:
        """What the loss itself checks, of outputs and targets as `fit` has them."""
        check = check_targets_of(self.each)
        return check and (lambda outputs, targets: check(outputs["outputs"], targets["y"]))

    @property
    def __name__(self) -> str:
        return attribute_of(self.each, "__name__") or type(self.each).__name__

    def __call__(self, outputs: dict[str, Any], targets: dict[str, Any]) -> Any:
        result, weights = outputs["outputs"], targets.get("weights")
        xp = array_namespace(result, targets["y"])
        each = self.each(result, targets["y"], **dict(self.options))
        if not tree.is_array(each):
            raise TypeError(
                "a loss must return the loss of each example, an array of shape (batch,), or their mean, an "
                f"array of shape (); received a value of the type {type(each).__name__}."
            )
        if carries_gradient(result) and not carries_gradient(each):  # the penalty would have one alone
            raise NoGradientError(NO_DEPENDENCE)
        if self.limited:
            limit = -math.log(float(xp.finfo(each.dtype).eps))
            each = _shown(each, xp.minimum(each, limit))
        if len(each.shape) > 1:
            each = xp.reshape(each, (each.shape[0], -1))
            added = xp.mean(each, axis=-1) if self.mean else xp.sum(each, axis=-1)
            each = _shown(added, added * (1 / each.shape[-1])) if self.shown_as_mean else added
        if len(each.shape) == 0 and weights is not None:
            raise ValueError(
                "with sample_weight or class_weight, a loss must return the loss of each example, shape "
                "(batch,), received a loss that returns one number. Leave out its mean."
            )
        total: Any
        share, penalty = current_share(), outputs.get("penalty")
        share = None if share is None or share.is_whole else share
        if penalty is not None and share is not None:  # of the network, which counts once for a batch
            penalty = penalty * float(share.group.rank == 0)
        if weights is None:
            value, total = xp.mean(each), result.shape[0]
        else:
            weights = xp.astype(weights, each.dtype, copy=False)
            total = xp.sum(weights)
            total = total if share is None else share.group.sum(stop_gradient(total))
            total = xp.where(total == 0, 1.0, total)  # a batch that counts for nothing teaches nothing
            if share is not None:  # so that the mean over all examples of the batch is that of one process
                total = total * (share.number / share.batch)
            value = xp.sum(each * weights) / total
        return value if penalty is None else value + penalty / total


def _shown(value: Any, shown: Any) -> Any:
    """Return an array with the values of one and the gradient of the other."""
    return value + stop_gradient(shown - value)


def squared_error(outputs: Any, y: Any) -> Any:
    return 0.5 * losses.mse(outputs, y, reduction="none")


def poisson(outputs: Any, y: Any) -> Any:
    """Half the deviance of the Poisson distribution with the mean ``exp(outputs)``."""
    xp = array_namespace(outputs, y)
    positive = y > 0
    entropy = xp.where(positive, y * xp.log(xp.where(positive, y, 1.0)), 0.0)
    return entropy - y * outputs - y + xp.exp(outputs)


def quantile(outputs: Any, y: Any, *, quantiles: tuple[float, ...]) -> Any:
    """The pinball loss, whose least mean is reached at the quantiles.

    R. Koenker and G. Bassett, Regression Quantiles, 1978.
    """
    xp = array_namespace(outputs, y)
    q = xp.asarray(quantiles, dtype=outputs.dtype, device=outputs.device)
    error = y - outputs
    return xp.maximum(q * error, (q - 1) * error)


def log_loss(logits: Any, y: Any) -> Any:
    """Of numbers of classes, shape (batch,), the cross-entropy; else the binary one of each output."""
    if len(y.shape) == 1:
        return losses.cross_entropy(logits, y, reduction="none")
    return losses.binary_cross_entropy(logits, y, reduction="none")


def focal(logits: Any, y: Any) -> Any:
    """The log-loss, times ``(1 - p)²`` of the probability of what is true: easy examples count less.

    T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    each = log_loss(logits, y)
    return (1 - array_namespace(each).exp(-each)) ** 2 * each


NAMED = {
    "log_loss": Objective(log_loss, mean=False, limited=True),
    "focal": Objective(focal, mean=False),
    # scikit-learn adds up the gradients of several outputs, and reports the mean of their losses.
    "squared_error": Objective(squared_error, mean=False, shown_as_mean=True),
    "poisson": Objective(poisson, mean=False),
    "absolute_error": Objective(losses.mae, (("reduction", "none"),)),
    "huber": Objective(losses.huber, (("reduction", "none"),)),
    "quantile": Objective(quantile),
}


def objective_of(loss: Any, **options: Any) -> Objective:
    """Return what is minimized for a loss by name, or a function of outputs and targets."""
    if isinstance(loss, str):
        return replace(NAMED[loss], options=tuple(options.items())) if options else NAMED[loss]
    reduces = "reduction" in inspect.signature(loss).parameters
    takes_logits = bool(attribute_of(loss, "takes_logits"))
    return Objective(loss, (("reduction", "none"),) if reduces else (), takes_logits=takes_logits)


@lru_cache(maxsize=8)
def shared_steps(objective: Objective, _kind: Any) -> Steps:
    """Return the steps of an objective, the same for networks of one kind, which record only once."""
    return Steps(objective)
