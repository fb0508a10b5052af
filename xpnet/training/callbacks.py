"""Callbacks: code that runs in between, around the training, its epochs and its steps."""

import logging
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xpnet import tree
from xpnet.files import save

if TYPE_CHECKING:
    from xpnet.training.fit import Run

_log = logging.getLogger("xpnet")


class Callback:
    """Base class of callbacks. Override what is needed.

    Each method receives the `Run`: its network, optimizer, epoch, step and history. Setting ``run.stop`` to
    True ends the training after the epoch.

    Examples
    --------
    >>> import xpnet
    >>> class PrintLoss(xpnet.callbacks.Callback):
    ...     def epoch_end(self, run):
    ...         print(run.epoch, run.history["loss"][-1])
    """

    def start(self, run: "Run") -> None:
        """Run before the first step."""

    def epoch_start(self, run: "Run") -> None:
        """Run before each epoch."""

    def step_end(self, run: "Run") -> None:
        """Run after each step. Reading an array's value here waits for the device.

        The next step may write over the arrays of ``run.net``: copy what you keep.
        """

    def epoch_end(self, run: "Run") -> None:
        """Run after each epoch, when its values are in the history and the network has its weights."""

    def end(self, run: "Run") -> None:
        """Run at the end, also after Ctrl-C."""


class _Monitor:
    """Watches a value of the history for improvement."""

    def __init__(self, name: str, mode: str | None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f'mode must be "min" or "max", received {mode!r}.')
        if min_delta < 0:
            raise ValueError(f"min_delta must not be negative, received {min_delta}.")
        if mode is None and name.endswith(("loss", "error", "accuracy", "r2")):
            mode = "min" if name.endswith(("loss", "error")) else "max"
        if mode is None:
            raise ValueError(
                f'whether {name} shall be small or large must be said: mode="min" or mode="max".'
            )
        self._name, self._sign, self._min_delta = name, 1.0 if mode == "min" else -1.0, min_delta

    def start(self, run: "Run") -> None:
        if self._name not in run.names:
            raise ValueError(
                f"monitor must be a value of the history, one of {', '.join(run.names)}; "
                f"received {self._name!r}."
            )
        self._best = math.inf

    def improved(self, run: "Run") -> bool:
        value = self._sign * run.history[self._name][-1]
        if value < self._best - self._min_delta:
            self._best = value
            return True
        return False


class EarlyStopping(Callback):
    """End the training when a value no longer improves, and go back to the weights of the best epoch.

    Parameters
    ----------
    monitor : str, default="validation_loss"
        The name of the value in the history.
    patience : int, default=10
        After how many epochs without improvement to stop.
    min_delta : float, default=0.0
        What counts as an improvement.
    mode : {"min", "max"}, optional
        Whether smaller or larger is better. It may be left out for what ends in "loss" or "error" (smaller),
        "accuracy" or "r2" (larger).
    restore_best : bool, default=True
        Whether the network gets the weights of its best epoch in the end.

    Attributes
    ----------
    best_epoch : int
        The epoch, counted from 1, with the best value.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the history has no value of that name.
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, received {patience}.")
        self._monitor = _Monitor(monitor, mode, min_delta)
        self._patience = patience
        self._restore_best = restore_best
        self.best_epoch = 0

    def start(self, run: "Run") -> None:
        self._monitor.start(run)
        self.best_epoch = 0
        self._best: Any = None

    def epoch_end(self, run: "Run") -> None:
        if self._monitor.improved(run):
            self.best_epoch = run.epoch
            self._best = tree.map(lambda x: x, run.net, state=True)
        elif run.epoch - self.best_epoch >= self._patience:
            run.stop = True

    def end(self, run: "Run") -> None:
        if self._restore_best and self._best is not None:
            run.net = self._best
        self._best = None


class LearningRateSchedule(Callback):
    """Set the learning rate before each epoch.

    For a rate that changes with each step, give the schedule to the optimizer instead.

    Parameters
    ----------
    schedule : callable
        From the number of epochs that are done, 0 before the first, to the learning rate: one of the
        schedules of `xpnet.optim`, or a function.

    Raises
    ------
    ValueError
        If the optimizer has a schedule of its own.

    Examples
    --------
    >>> import xpnet
    >>> halve = xpnet.callbacks.LearningRateSchedule(lambda epoch: 0.1 * 0.5**epoch)
    """

    def __init__(self, schedule: Callable[[int], Any]) -> None:
        self._schedule = schedule

    def start(self, run: "Run") -> None:
        if callable(run.optimizer.learning_rate):
            raise ValueError(
                "LearningRateSchedule needs an optimizer whose learning rate is a number, received "
                f"{run.optimizer}. Use one of the two schedules."
            )

    def epoch_start(self, run: "Run") -> None:
        run.set_learning_rate(self._schedule(run.epoch - 1))


class Checkpoint(Callback):
    """Save the network after each epoch, or after each that is better than all before.

    Parameters
    ----------
    path : path
        Where to; ``{epoch}`` in it is replaced by the number of the epoch.
    monitor : str, optional
        The value of the history that must improve. None saves after every epoch.
    mode : {"min", "max"}, optional
        Whether smaller or larger is better. It may be left out for what ends in "loss" or "error" (smaller),
        "accuracy" or "r2" (larger).
    save : callable, default=xpnet.save
        ``save(net, path)``: what to do instead of writing a file.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        monitor: str | None = None,
        mode: str | None = None,
        save: Callable[[Any, str], None] = save,
    ) -> None:
        self._path = os.fspath(path)
        self._monitor = None if monitor is None else _Monitor(monitor, mode)
        self._save = save

    def start(self, run: "Run") -> None:
        if self._monitor is not None:
            self._monitor.start(run)

    def epoch_end(self, run: "Run") -> None:
        if self._monitor is None or self._monitor.improved(run):
            self._save(run.net, self._path.replace("{epoch}", str(run.epoch)))
