"""What `fit` makes of its arguments, after a check of each."""

from collections.abc import Iterable
from typing import Any

import numpy

from xpnet.optim import LossScaling, Transform
from xpnet.settings import described, is_bool, is_number
from xpnet.training.batches import Examples, Order
from xpnet.training.metric import Metric
from xpnet.training.metrics import as_metric
from xpnet.training.networks import place_of
from xpnet.training.run import Callback
from xpnet.training.steps import Steps


def check_parts(loss: Any, optimizer: Any) -> None:
    if isinstance(loss, type) or not (callable(loss) or isinstance(loss, Steps)):
        raise TypeError(
            f"loss must be a function, such as xpnet.losses.cross_entropy, received {described(loss)}."
        )
    check_optimizer(optimizer)


def check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, type | Transform) or not (
        hasattr(optimizer, "init") and hasattr(optimizer, "update")
    ):
        instead = (
            " Write xpnet.optim.chain(transform, optimizer)." if isinstance(optimizer, Transform) else ""
        )
        raise TypeError(
            "optimizer must be an optimizer, such as xpnet.optim.Adam(1e-3), received "
            f"{described(optimizer)}.{instead}"
        )


def metrics_of(metrics: Any) -> list[Metric]:
    """Return a list of metrics, also of functions."""
    return [as_metric(metric) for metric in _listed("metrics", metrics)]


def callbacks_of(callbacks: Any) -> list[Callback]:
    """Return callbacks in the order in which they come: a checkpoint is written when others have seen all."""
    listed = _listed("callbacks", callbacks)
    for callback in listed:
        _check_callback(callback)
    return sorted(listed, key=lambda callback: callback.order)


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | dict) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, received {described(values)}. Write {name}=[...].")
    return list(values)


# What `fit` asks of a callback: it need not be a subclass.
_OF_CALLBACKS = [name for name in vars(Callback) if not name.startswith("_")]


def _check_callback(callback: Any) -> None:
    if isinstance(callback, type) or not all(hasattr(callback, name) for name in _OF_CALLBACKS):
        raise TypeError(
            "each of callbacks must be an xpnet.callbacks.Callback, such as xpnet.callbacks.EarlyStopping(), "
            f"received {described(callback)}. A subclass of Callback has the methods that it leaves out."
        )
    others = [name for name in dir(callback) if name.startswith("on_")]
    if isinstance(callback, Callback) and others:
        raise TypeError(
            f"methods of a callback are {', '.join(_OF_CALLBACKS)}; received {type(callback).__name__} with "
            f"{', '.join(others)}, which nobody would call. Rename them."
        )


def names_of(metrics: list[Metric], *, validated: bool) -> tuple[str, ...]:
    """Return the names that the history will have."""
    names = ("loss", *(metric.name for metric in metrics))
    if len(set(names)) < len(names):
        raise ValueError(
            f"each metric needs a name of its own, received {', '.join(names[1:])} beside loss. Make one "
            "with xpnet.metrics.Metric(name, ...), or give functions different names."
        )
    return names + tuple(f"validation_{name}" for name in names) if validated else names


def order_of(shuffle: Any, random: "numpy.random.Generator") -> Order:
    """Return the function that puts rows in the order of an epoch."""
    if is_bool(shuffle):
        return random.permutation if shuffle else lambda rows: rows
    if not callable(shuffle):
        raise TypeError(
            f"shuffle must be True, False or a function of the rows, received {described(shuffle)}."
        )
    order: Order = shuffle
    return order


def split(
    x: Any, y: Any, validation: Any, random: "numpy.random.Generator", net: Any
) -> tuple[Examples, Examples | None]:
    """Return the examples for training and, or None, those for validation."""
    _check_pair_or_share(validation)
    if y is None:
        raise TypeError(
            "y must be the targets, received None. Pass x again, or zeros, where the loss needs none."
        )
    where, dtype = place_of(net)
    examples = Examples({"x": x, "y": y}, where, dtype, sparse=net.takes_sparse, warn=True).settle()
    if validation is None:
        return examples, None
    if is_number(validation):
        return examples.split(float(validation), random)
    values = dict(zip(("x of validation", "y of validation"), validation, strict=True))
    return examples, Examples(values, where, dtype, sparse=net.takes_sparse).settle()


def _check_pair_or_share(validation: Any) -> None:
    must = "validation must be a pair (x, y) or a share of the examples between 0 and 1, received"
    if is_number(validation):
        if not 0 < validation < 1:
            raise ValueError(f"{must} {validation!r}.")
    elif isinstance(validation, tuple | list):
        if len(validation) != 2:
            weights = (
                ' Weights go where the loss finds them, in the targets: (x, {"labels": y, "weights": w}).'
            )
            raise TypeError(
                f"{must} a {type(validation).__name__} of {len(validation)}."
                f"{weights if len(validation) == 3 else ''}"
            )
    elif validation is not None:
        raise TypeError(f"{must} {described(validation)}.")


def steps_of(loss: Any, jit: bool, precision: str) -> Steps:
    """Return new steps of a loss, or those that are given, after a check that they are of the precision."""
    steps = loss if isinstance(loss, Steps) else Steps(loss, jit=jit, precision=precision)
    if precision not in ("float32", steps.precision):
        raise ValueError(
            f"precision must be that of the steps, {steps.precision!r}, received {precision!r}. Make new "
            f"ones: Steps(loss, precision={precision!r})."
        )
    return steps


def state_of(optimizer: Any, given: Any, net: Any) -> Any:
    """Return the state of an optimizer to begin with: a new one, or a given one, after a check of it."""
    fresh = optimizer.init(net)
    if given is None:
        return fresh
    if type(given) is not type(fresh):
        raise TypeError(
            "optimizer_state must be the state of the optimizer in an earlier training, "
            f"{type(fresh).__name__}, received {described(given)}."
        )
    # A state of a training in another precision has no scale.
    return fresh | given if isinstance(optimizer, LossScaling) else given
