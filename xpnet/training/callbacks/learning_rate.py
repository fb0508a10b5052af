"""Learning rates that change from epoch to epoch."""

from collections.abc import Callable
from typing import Any

from xpnet.training.run import Callback, Run

__all__ = ["LearningRateSchedule"]


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
