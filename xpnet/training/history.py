"""What happened in training."""

import copy
import os
from typing import Any


class History(dict[str, list[float]]):
    """The losses and metrics of each epoch, by name: a dict of lists, but `len` counts the epochs.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C ended the training.

    Examples
    --------
    >>> history = History()
    >>> history.add({"loss": 0.7, "validation_loss": 0.9})
    >>> history["loss"]
    [0.7]
    >>> dict(history)
    {'loss': [0.7], 'validation_loss': [0.9]}
    """

    def __init__(self, values: dict[str, list[float]] | None = None) -> None:
        super().__init__(values or {})
        self.interrupted = False

    def add(self, values: dict[str, float]) -> None:
        """Add the values of an epoch."""
        for name, value in values.items():
            self.setdefault(name, []).append(float(value))

    def __missing__(self, name: object) -> list[float]:
        known = ", ".join(self) or "nothing yet"
        raise KeyError(f"the history has {known}; received {name!r}")

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(next(iter(self.values()), []))

    def copy(self) -> "History":
        """Return a copy, of which the lists are shared."""
        return copy.copy(self)

    def last(self) -> dict[str, float]:
        """Return the values of the last epoch."""
        return {name: values[-1] for name, values in self.items()}

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:.4g}" for name, value in self.last().items())
        ending = ", interrupted" if self.interrupted else ""
        return f"History({len(self)} epochs{ending}; last: {values})"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw learning curves: the losses, and each metric, with its validation beside it.

        Parameters
        ----------
        path : path, optional
            Where to write the picture.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError(
                "plotting needs matplotlib, which is not installed. `pip install matplotlib` installs it."
            ) from None
        names = [name for name in self if not name.startswith("validation_")]
        figure = Figure(figsize=(4.5 * max(len(names), 1), 3.5), layout="constrained")
        for axes, name in zip(figure.subplots(1, max(len(names), 1), squeeze=False)[0], names, strict=False):
            for key, label in ((name, "training"), (f"validation_{name}", "validation")):
                if key in self:
                    axes.plot(range(1, len(self) + 1), self[key], label=label)
            axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
            axes.legend(frameon=False)
            axes.spines[["top", "right"]].set_visible(False)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure
