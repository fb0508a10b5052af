"""What `fit` shows while it trains: a bar in a terminal, a line for each epoch in a log, or nothing."""

import logging
from time import monotonic
from typing import Any

from xpnet.training.run import Run

_log = logging.getLogger("xpnet")


class Progress:
    """Shows nothing, and is what others override.

    A bar of tqdm's that shows nothing takes a lock all the same, which a signal's handler that raises may
    leave locked for other threads.
    """

    def begin(self, run: Run) -> None:
        """Show that an epoch begins."""

    def update(self, examples: int) -> None:
        """Show that some more examples were seen."""

    def end(self, run: Run, total: int | None) -> None:
        """Show the values of an epoch, and how many examples all epochs have, if it is known."""

    def close(self) -> None:
        """Show no more."""


class Bar(Progress):
    """A bar of tqdm's."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def begin(self, run: Run) -> None:
        self._bar.set_description(f"epoch {run.epoch}/{run.epochs}")

    def update(self, examples: int) -> None:
        self._bar.update(examples)

    def end(self, run: Run, total: int | None) -> None:
        self._bar.set_postfix({name.replace("validation", "val"): value for name, value in _shown(run)})
        self._bar.total = total

    def close(self) -> None:
        self._bar.close()


class Lines(Progress):
    """A line in the log for each epoch, as a bar would fill a file with lines."""

    def begin(self, _run: Run) -> None:
        self._began = monotonic()

    def end(self, run: Run, _total: int | None) -> None:
        values = ", ".join(f"{name} {value}" for name, value in _shown(run))
        _log.info("epoch %d/%d: %s (%.1f s)", run.epoch, run.epochs, values, monotonic() - self._began)


def _shown(run: Run) -> list[tuple[str, str]]:
    return [(name, f"{value:.3g}") for name, value in run.history.last().items()]


def progress_of(examples: int | None, wanted: bool) -> Progress:
    """Return what shows the progress of a training, of so many examples in all epochs if it is known."""
    if not wanted:
        return Progress()
    from tqdm.auto import tqdm  # here, as it would be a good part of the time that importing xpnet takes

    bar = tqdm(total=examples, unit=" samples", unit_scale=True, disable=None)  # None: not without a terminal
    return Lines() if bar.disable else Bar(bar)
