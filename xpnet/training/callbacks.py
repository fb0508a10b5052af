"""Callbacks: code that runs in between, around the training, its epochs and its steps."""

import logging
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpnet import tree
from xpnet.settings import at_least_zero, count, flag
from xpnet.training.resume import write_checkpoint
from xpnet.training.run import Callback, Run
from xpnet.writing import check_path, remove_parts

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LearningRateSchedule",
]

_PLACEHOLDERS = ("{epoch}", "{step}")  # what stands for numbers in the path of a checkpoint

_log = logging.getLogger("xpnet")


class _Monitor:
    """Watches a value of the history for improvement."""

    def __init__(self, name: str, mode: str | None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f'mode must be "min" or "max", received {mode!r}.')
        if not isinstance(name, str):
            raise ValueError(f"monitor must be the name of a value of the history, received {name!r}.")
        if mode is None and name.endswith(("loss", "error", "accuracy", "r2")):
            mode = "min" if name.endswith(("loss", "error")) else "max"
        if mode is None:
            raise ValueError(
                f'whether {name} shall be small or large must be said: mode="min" or mode="max".'
            )
        self._name, self._sign = name, 1.0 if mode == "min" else -1.0
        self._min_delta = at_least_zero("min_delta", min_delta)

    def start(self, run: Run) -> None:
        if self._name not in run.names:
            validate = self._name.removeprefix("validation_") in run.names
            raise ValueError(
                f"monitor must be a value of the history, one of {', '.join(run.names)}; "
                f"received {self._name!r}."
                f"{' For this one, pass validation=(x, y) or a share to fit.' if validate else ''}"
            )
        self.best = math.inf

    def improved(self, run: Run) -> bool:
        value = self._sign * run.history[self._name][-1]
        if value < self.best - self._min_delta:
            self.best = value
            return True
        return False

    def warn_without_best(self, run: Run) -> None:
        """Warn at the end of a training of which no epoch was the best: all values were NaN or infinite."""
        if len(run.history) and not any(map(math.isfinite, run.history[self._name])):
            _log.warning(
                "xpnet: no epoch was the best, as %s was %g to the last. Look for what makes it so.",
                self._name,
                run.history[self._name][-1],
            )


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
        self._monitor = _Monitor(monitor, mode, min_delta)
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
    TypeError
        If the schedule is no function.
    ValueError
        If the optimizer has a schedule of its own.

    Examples
    --------
    >>> import xpnet
    >>> halve = xpnet.callbacks.LearningRateSchedule(lambda epoch: 0.1 * 0.5**epoch)
    """

    def __init__(self, schedule: Callable[[int], Any]) -> None:
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of the number of epochs, received {schedule!r}. A rate that "
                "stays is given to the optimizer."
            )
        self._schedule = schedule

    def start(self, run: Run) -> None:
        if callable(run.optimizer.learning_rate):
            raise ValueError(
                "LearningRateSchedule needs an optimizer whose learning rate is a number, received "
                f"{run.optimizer}. Use one of the two schedules."
            )

    def epoch_start(self, run: Run) -> None:
        run.set_learning_rate(self._schedule(run.epoch - 1))


class Checkpoint(Callback):
    """Save the training after each epoch, or after each that is better than all before.

    The file holds the network, which `xpnet.load` reads, and all that ``xpnet.fit(..., resume=path)`` needs
    to go on: the state of the optimizer and of the callbacks, random state, epoch, batch and history. It is
    written beside its place and then moved there, so that at each moment there is a whole one.

    Parameters
    ----------
    path : path
        Where to; ``{epoch}`` and ``{step}`` in it are replaced by the numbers of the epoch and of the steps
        that were done. A path without them is written over each time.
    every : int, optional
        Save after each so many steps, too.
    keep : int, optional
        How many files to keep, the latest ones. None keeps all.
    monitor : str, optional
        The value of the history that must improve. None saves after every epoch.
    mode : {"min", "max"}, optional
        Whether smaller or larger is better. It may be left out for what ends in "loss" or "error" (smaller),
        "accuracy" or "r2" (larger).

    Raises
    ------
    ValueError
        If a parameter is out of range, or the history has no value of that name.

    Examples
    --------
    The last three, and the best:

    >>> import xpnet
    >>> callbacks = [
    ...     xpnet.callbacks.Checkpoint("digits-{epoch}.safetensors", keep=3),
    ...     xpnet.callbacks.Checkpoint("best.safetensors", monitor="validation_loss"),
    ... ]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int | None = None,
        keep: int | None = None,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        if every is not None and monitor is not None:
            raise ValueError(
                f"{monitor} is known after an epoch, not after every={every} steps. Use one Checkpoint for "
                "the best epoch, and another for the steps."
            )
        self._path = os.fspath(path)
        unknown = set(re.findall(r"\{.*?\}", self._path)) - set(_PLACEHOLDERS)
        if unknown:
            raise ValueError(
                f"path may have {{epoch}} and {{step}} in it, received {', '.join(sorted(unknown))}. Leave "
                "all else out."
            )
        self._every = None if every is None else count("every", every)
        self._keep = None if keep is None else count("keep", keep)
        self._monitor = None if monitor is None else _Monitor(monitor, mode)
        # After all other callbacks have seen the epoch, as their states are saved.
        self.order = 2 if monitor is None else 1

    def start(self, run: Run) -> None:
        if self._monitor is not None:
            self._monitor.start(run)
        self._written: list[tuple[int, int]] = []
        folder = os.path.dirname(self._path) or "."
        if "{" not in folder and not os.path.isdir(folder):
            raise FileNotFoundError(
                f"a checkpoint needs a folder that is there, received {folder}. Make it first."
            )
        if "{" not in self._path:
            check_path(self._path)
        remove_parts(self._path, numbers=_PLACEHOLDERS)

    def step_end(self, run: Run) -> None:
        if self._every is not None and run.step % self._every == 0:
            self._write(run)

    def epoch_end(self, run: Run) -> None:
        if self._monitor is None or self._monitor.improved(run):
            self._write(run)

    def end(self, run: Run) -> None:
        if self._monitor is not None:
            self._monitor.warn_without_best(run)

    def state(self) -> Any:
        return {"written": self._written, "best": self._monitor and self._monitor.best}

    def restore(self, _run: Run, state: Any) -> None:
        # The numbers and not the paths: no file may say what else is to be removed.
        self._written = [(int(epoch), int(step)) for epoch, step in state["written"]]
        if self._monitor is not None and state["best"] is not None:
            self._monitor.best = state["best"]

    def _place(self, epoch: int, step: int) -> Path:
        return Path(self._path.replace("{epoch}", str(epoch)).replace("{step}", str(step)))

    def _write(self, run: Run) -> None:
        run.check_finite()
        path = self._place(run.epoch, run.step)
        others = [numbers for numbers in self._written if self._place(*numbers) != path]
        self._written = [*others, (run.epoch, run.step)]
        write_checkpoint(run, path)
        if self._keep is not None:
            for numbers in self._written[: -self._keep]:
                self._place(*numbers).unlink(missing_ok=True)
            self._written = self._written[-self._keep :]
