"""Files from which a training goes on."""

import os
import re
from pathlib import Path
from typing import Any

from xpnet.settings import count
from xpnet.training.callbacks.monitor import Monitor
from xpnet.training.resume import write_checkpoint
from xpnet.training.run import Callback, Run
from xpnet.writing import check_folder, check_path, remove_parts

__all__ = ["Checkpoint"]

_PLACEHOLDERS = ("{epoch}", "{step}")  # what stands for numbers in the path of a checkpoint


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
        self._monitor = None if monitor is None else Monitor(monitor, mode)
        # After all other callbacks have seen the epoch, as their states are saved.
        self.order = 2 if monitor is None else 1

    def start(self, run: Run) -> None:
        if self._monitor is not None:
            self._monitor.start(run)
        self._written: list[tuple[int, int]] = []
        if run.group.rank > 0:  # it only helps to write
            return
        if "{" not in os.path.dirname(self._path):
            check_folder("a checkpoint", self._path)
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
            for numbers in self._written[: -self._keep] if run.group.rank == 0 else ():
                self._place(*numbers).unlink(missing_ok=True)
            self._written = self._written[-self._keep :]
