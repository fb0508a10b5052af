"""Ending a training when it no longer improves."""

from typing import Any

from xpnet import tree
from xpnet.settings import count, flag
from xpnet.training.callbacks.monitor import Monitor
from xpnet.training.run import Callback, Run

__all__ = ["EarlyStopping"]


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

    Examples
    --------
    >>> import xpnet
    >>> stop = xpnet.callbacks.EarlyStopping("validation_accuracy", patience=5)
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
        self._monitor = Monitor(monitor, mode, min_delta)
        self._patience = count("patience", patience)
        self._restore_best = flag("restore_best", restore_best)
        self.best_epoch = 0

    def start(self, run: Run) -> None:
        self._monitor.start(run)
        self.best_epoch = 0
        self._best: Any = None

    def epoch_end(self, run: Run) -> None:
        if self._monitor.improved(run):
            self.best_epoch = run.epoch
            self._best = tree.copied(run.net)
        elif run.epoch - self.best_epoch >= self._patience:
            run.stop = True

    def state(self) -> Any:
        weights = None if self._best is None else tree.leaves(self._best, state=True)
        return {"best_epoch": self.best_epoch, "best": self._monitor.best, "weights": weights}

    def restore(self, run: Run, state: Any) -> None:
        self.best_epoch, self._monitor.best = state["best_epoch"], state["best"]
        if state["weights"] is not None:
            self._best = tree.unflatten(tree.flatten(run.net, state=True)[1], state["weights"])

    def end(self, run: Run) -> None:
        self._monitor.warn_without_best(run)
        if self._restore_best and self._best is not None:
            run.net = self._best
        self._best = None
