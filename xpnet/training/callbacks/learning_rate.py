"""Learning rates that change from epoch to epoch."""

from collections.abc import Callable
from typing import Any

from xpnet.backends import plain_namespace
from xpnet.settings import at_least_zero, count, number
from xpnet.training.callbacks.monitor import Monitor
from xpnet.training.run import Callback, Run

__all__ = ["LearningRateSchedule", "ReduceLROnPlateau"]


class LearningRateSchedule(Callback):
    """Set the learning rate before each epoch.

    For a rate that changes with each step, give the schedule to the optimizer instead.

    Parameters
    ----------
    schedule : callable
        From the number of epochs that are done, 0 before the first, to the learning rate: one of the
        schedules of `xpnet.optim`, or a function. It may return several, one for each group of parameters.

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
        run.check_learning_rate()

    def epoch_start(self, run: Run) -> None:
        run.set_learning_rate(self._schedule(run.epoch - 1))


class ReduceLROnPlateau(Callback):
    """Multiply the learning rate by a factor when a value no longer improves.

    Parameters
    ----------
    monitor : str, default="validation_loss"
        The name of the value in the history.
    factor : float, default=0.1
        What the rate is multiplied by, above 0 and below 1: that of each group of parameters.
    patience : int, default=10
        After how many epochs in a row without improvement, as with `EarlyStopping`. PyTorch says one less for
        the same.
    min_delta : float, default=0.0
        What counts as an improvement.
    cooldown : int, default=0
        How many epochs after a reduction are not counted.
    minimum : float, default=0.0
        No rate becomes smaller than this. One that is smaller already stays.
    mode : {"min", "max"}, optional
        Whether smaller or larger is better. It may be left out for what ends in "loss" or "error" (smaller),
        "accuracy" or "r2" (larger).

    Raises
    ------
    ValueError
        If a parameter is out of range, the history has no value of that name, or the optimizer has a
        schedule.

    Examples
    --------
    >>> import xpnet
    >>> reduce = xpnet.callbacks.ReduceLROnPlateau(factor=0.5, patience=5)
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        cooldown: int = 0,
        minimum: float = 0.0,
        mode: str | None = None,
    ) -> None:
        self._monitor = Monitor(monitor, mode, min_delta)
        self._factor = number("factor", factor)
        if not 0 < self._factor < 1:
            raise ValueError(f"factor must be above 0 and below 1, received {factor!r}.")
        self._patience, self._cooldown = count("patience", patience), count("cooldown", cooldown, least=0)
        self._minimum = at_least_zero("minimum", minimum)

    def start(self, run: Run) -> None:
        run.check_learning_rate()
        self._monitor.start(run)
        self._waited = self._rests = 0  # epochs without improvement, and those to come that are not counted

    def epoch_end(self, run: Run) -> None:
        counts = not self._monitor.improved(run) and not self._rests
        self._waited = self._waited + 1 if counts else 0
        self._rests = max(self._rests - 1, 0)
        if self._waited >= self._patience:
            run.set_learning_rate([self._reduced(rate) for rate in run.learning_rates])
            self._waited, self._rests = 0, self._cooldown

    def _reduced(self, rate: Any) -> Any:
        xp = plain_namespace(rate)  # on the device, as reading it would wait
        return xp.minimum(rate, xp.maximum(self._factor * rate, xp.full_like(rate, self._minimum)))

    def state(self) -> Any:
        return {"best": self._monitor.best, "waited": self._waited, "rests": self._rests}

    def restore(self, _run: Run, state: Any) -> None:
        self._monitor.best, self._waited, self._rests = state["best"], state["waited"], state["rests"]

    def end(self, run: Run) -> None:
        self._monitor.warn_without_best(run)
