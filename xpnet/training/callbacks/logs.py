"""The history of a training for other programs, written while it goes on."""

import csv
import io
import os
import re
import time
from pathlib import Path
from typing import Any

from xpnet.backends import to_numpy
from xpnet.settings import flag
from xpnet.training.run import Callback, Run
from xpnet.writing import check_folder, check_path, replace

__all__ = ["CSVLogger", "TensorBoard"]


class _Log(Callback):
    """Writes the values of the history and the learning rates, each of which has a name of its own."""

    only_on_rank_0 = True
    order = -1  # before others, which may set the learning rate of the next epoch

    def start(self, run: Run) -> None:
        self._of_rates = [f"learning_rate_{number}" for number in range(len(run.learning_rates))]
        if len(self._of_rates) == 1:
            self._of_rates = ["learning_rate"]
        self._names = ["epoch", *run.names, *self._of_rates]
        if len(set(self._names)) < len(self._names):
            raise ValueError(
                f"the names of metrics must be others than epoch and {', '.join(self._of_rates)}, received "
                f"{', '.join(run.names)}. Call it something else."
            )


def _rates(run: Run) -> list[Any]:
    """Return the learning rates of the last step, as numbers of NumPy. This waits for the device."""
    return [to_numpy(rate)[()] for rate in run.learning_rates]


class CSVLogger(_Log):
    """Write the history to a table: a file of comma-separated values, with a row for each epoch.

    The columns are ``epoch``, the names of the history, and ``learning_rate``, that of the last step of the
    epoch: with groups of parameters ``learning_rate_0`` and so on. A row is in the file when its epoch has
    ended. Python's `csv`, pandas and spreadsheets read it.

    Parameters
    ----------
    path : path
        Where to.
    overwrite : bool, default=False
        Whether a file of another training may be written over. Otherwise it is refused.

    Raises
    ------
    ValueError
        If a metric has the name of another column.
    FileExistsError
        If the file has other contents, unless it may be written over.
    FileNotFoundError
        If the folder is not there.

    Notes
    -----
    A training that is resumed goes on with its table, in which the rows of epochs that are done again are
    replaced. That it is its own is seen by the rows of the epochs before.

    Examples
    --------
    >>> import xpnet
    >>> table = xpnet.callbacks.CSVLogger("digits.csv")
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self._path, self._overwrite = Path(path), flag("overwrite", overwrite)

    def start(self, run: Run) -> None:
        super().start(run)
        check_folder("a table", self._path)
        check_path(self._path)
        self._rows = len(run.history)  # that should be in the file
        self._learning_rates = [[""] * len(self._of_rates)] * self._rows
        self._size = -1  # of the file as it was left: other than any
        if not self._rows:
            self._check(run)

    def epoch_end(self, run: Run) -> None:
        self._learning_rates.append([str(rate) for rate in _rates(run)])
        new = self._text(run, self._rows, len(run.history))
        if self._size == _size(self._path):
            with open(self._path, "ab") as file:
                file.write(new)
        else:
            self._check(run)
            replace(self._path, [self._text(run, -1, self._rows), new])
        self._rows, self._size = len(run.history), _size(self._path)

    def state(self) -> Any:
        return {"learning_rates": self._learning_rates}

    def restore(self, run: Run, state: Any) -> None:
        rates = [[str(rate) for rate in row] for row in state["learning_rates"]]
        if [len(row) for row in rates] != [len(self._of_rates)] * self._rows:
            raise ValueError("it must have the learning rates of each epoch, received others")
        self._learning_rates = rates
        self._check(run)

    def _check(self, run: Run) -> None:
        """Check that the file has no rows but those that it should have, and some that are done again."""
        if self._overwrite or not _size(self._path):
            return
        expected, found = self._text(run, -1, self._rows), self._path.read_bytes()
        if not expected.startswith(found) and not (self._rows and found.startswith(expected)):
            raise FileExistsError(
                f"{self._path} must be a new file, or the table of this training so far, received one with "
                "other contents. Choose another path, remove it, or pass overwrite=True."
            )

    def _text(self, run: Run, first: int, end: int) -> bytes:
        """Return some rows as they are in the file; before the first, -1, are the names of the columns."""
        rows: Any = [self._names] if first < 0 else []
        for number in range(max(first, 0), end):
            values = [run.history[name][number] for name in run.names]
            rows.append([1 + number, *values, *self._learning_rates[number]])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()


def _size(path: Path) -> int:
    """Return how many bytes a file has, 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


class TensorBoard(_Log):
    """Write the history for TensorBoard, epoch by epoch.

    What is measured in training goes to the folder ``training``, and what is measured in validation to the
    folder ``validation`` under the same name, so that TensorBoard draws both curves in one picture. The
    learning rate of the last step of the epoch is drawn as well. ``tensorboard --logdir DIRECTORY`` shows
    them, with several trainings beside each other if their directories are in one.

    This needs tensorboardX, which ``pip install tensorboardX`` installs.

    Parameters
    ----------
    directory : path
        Where to, a directory for this training alone. It is made if it is not there.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.
    ValueError
        If a metric has the name of a learning rate.
    FileExistsError
        If another training was written to the directory.

    Notes
    -----
    A training that is resumed goes on after its last epoch; what was written of epochs that are done again is
    no longer shown.

    Examples
    --------
    >>> import pytest
    >>> _ = pytest.importorskip("tensorboardX")
    >>> import xpnet
    >>> board = xpnet.callbacks.TensorBoard("runs/digits-1")
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        _classes()

    def start(self, run: Run) -> None:
        super().start(run)
        self._files: dict[str, Any] = {}
        self._key = os.urandom(4).hex()  # at the end of each file's name, tells this training from others
        if not len(run.history):
            self._check()

    def epoch_end(self, run: Run) -> None:
        if not self._files:
            self._check()
        values: dict[str, dict[str, float]] = {
            "training": dict(zip(self._of_rates, _rates(run), strict=True))
        }
        for name, value in run.history.last().items():
            part = "validation" if name.startswith("validation_") else "training"
            values.setdefault(part, {})[name.removeprefix("validation_")] = value
        for part, scalars in values.items():
            self._write(part, run.epoch, scalars)

    def state(self) -> Any:
        return {"key": self._key}

    def restore(self, _run: Run, state: Any) -> None:
        if re.fullmatch("[0-9a-f]{8}", state["key"]) is None:  # it becomes a part of the names of files
            raise ValueError("its key must be eight digits")
        self._key = state["key"]
        self._check()

    def end(self, _run: Run) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _check(self) -> None:
        """Check that there is no file of another training."""
        for path in self._directory.glob("*/events.out.tfevents.*"):
            if not path.name.endswith(self._key):
                raise FileExistsError(
                    f"{self._directory} must be for this training alone, received a directory with {path}. "
                    "Choose another one, or remove it."
                )

    def _write(self, part: str, epoch: int, scalars: dict[str, float]) -> None:
        writer, event, log, summary = _classes()
        if part not in self._files:
            folder = self._directory / part
            folder.mkdir(parents=True, exist_ok=True)
            # They are read in the order of their names, in which stand the seconds of the time, and others.
            number = len(list(folder.iterdir()))
            self._files[part] = writer(str(folder / "events"), f".{number:04}.{self._key}")
            # What an earlier file has from this epoch on is not valid any more.
            restart = log(status=log.START)
            self._files[part].write_event(event(wall_time=time.time(), step=epoch, session_log=restart))
        values = [summary.Value(tag=name, simple_value=float(value)) for name, value in scalars.items()]
        self._files[part].write_event(event(wall_time=time.time(), step=epoch, summary=summary(value=values)))
        self._files[part].flush()


def _classes() -> tuple[Any, ...]:
    """Return the writer of a file, and what is written."""
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError:
        raise ImportError(
            "TensorBoard needs tensorboardX, which is not installed. `pip install tensorboardX` installs it."
        ) from None
    return EventsWriter, Event, SessionLog, Summary
