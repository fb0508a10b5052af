"""What `fit` makes of its arguments, after a check of each."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

from xpnet.distributed import Group
from xpnet.distributed.shard import Sharded
from xpnet.optim import LossScaling, Optimizer, Transform
from xpnet.settings import described
from xpnet.training.metric import Metric
from xpnet.training.metrics.functions import as_metric, of_key
from xpnet.training.run import Callback, Run
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
    """Return a list of metrics, also of functions, and of a dict of the keys of outputs and targets."""
    if not isinstance(metrics, dict):
        return [as_metric(metric) for metric in _listed("metrics", metrics)]
    of_keys = {key: given if isinstance(given, tuple | list) else [given] for key, given in metrics.items()}
    return [of_key(as_metric(metric), key) for key, given in of_keys.items() for metric in given]


def callbacks_of(callbacks: Any) -> list[Callback]:
    """Return callbacks in the order in which they come: a checkpoint is written when others have seen all."""
    listed = [
        _AfterEpochs(callback) if _is_function(callback) else callback
        for callback in _listed("callbacks", callbacks)
    ]
    for callback in listed:
        _check_callback(callback)
    return sorted(listed, key=lambda callback: callback.order)


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | dict) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, received {described(values)}. Write {name}=[...].")
    return list(values)


# What `fit` asks of a callback: it need not be a subclass.
_OF_CALLBACKS = [name for name in vars(Callback) if not name.startswith("_") and name != "only_on_rank_0"]


class _AfterEpochs(Callback):
    """Calls a function after each epoch."""

    def __init__(self, function: Callable[[Run], Any]) -> None:
        try:
            signature(function).bind(None)
        except TypeError:
            raise TypeError(
                "a function among callbacks must take the run alone, function(run), received "
                f"{described(function)}{signature(function)}."
            ) from None
        except ValueError:
            pass  # not every function tells its parameters
        self._function = function

    def epoch_end(self, run: Run) -> None:
        self._function(run)


def _is_function(callback: Any) -> bool:
    return (
        callable(callback)
        and not isinstance(callback, type)
        and not any(hasattr(callback, name) for name in _OF_CALLBACKS)
    )


def _check_callback(callback: Any) -> None:
    if isinstance(callback, type) or not all(hasattr(callback, name) for name in _OF_CALLBACKS):
        raise TypeError(
            "each of callbacks must be an xpnet.callbacks.Callback, such as xpnet.callbacks.EarlyStopping(), "
            f"or a function of the run, received {described(callback)}. A subclass of Callback has the "
            "methods that it leaves out."
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
    inner = optimizer.optimizer if isinstance(optimizer, Sharded) else optimizer
    if isinstance(inner, LossScaling):
        given = fresh | given  # a state of a training in another precision has no scale
    if isinstance(optimizer, Sharded):
        given = optimizer.cut(given, net)
    return optimizer.checked(given) if isinstance(inner, LossScaling | Optimizer) else given


def sharding_of(group: Group, optimizer: Any, shard: bool) -> tuple[Any, bool]:
    """Return an optimizer, and whether each process has a piece of its state."""
    if isinstance(optimizer, Sharded):
        if optimizer.group.size > 1 and optimizer.group is not group:
            raise ValueError(
                "an optimizer of group.shard takes steps with that group, received another one, or none. "
                "Pass group=group."
            )
        shard, optimizer = True, optimizer.optimizer
    return optimizer, shard and group.size > 1
