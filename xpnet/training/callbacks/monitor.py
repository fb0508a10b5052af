"""What several callbacks share: a look at a value of the history, whether it improved."""

import logging
import math

from xpnet.settings import at_least_zero
from xpnet.training.run import Run

_log = logging.getLogger("xpnet")


class Monitor:
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
