"""What the batches of an epoch add up to: figures that lose no digits, and hardly wait for a device."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import to_numpy
from xpnet.training.batches import length

if TYPE_CHECKING:
    from xpnet.training.metric import Metric

# How many batches, and how many numbers, wait on the device until they are brought to the host. That waits
# for the device, as nothing else does until the end of an epoch.
_BATCHES = 256
_NUMBERS = 2**22


def added(totals: tuple, more: tuple) -> tuple:
    return tuple(x + y for x, y in zip(totals, more, strict=True))


def wide(x: Any) -> Any:
    """Return an array in double precision where its device has it, else in single precision; or a number."""
    if isinstance(x, numpy.generic):
        return numpy.float64(x)  # the loss of each step, which counts for small networks
    if not tree.is_array(x):
        return float(x)
    xp = array_namespace(x)
    # Asked anew each time, as not every library's devices can be hashed.
    known = xp.__array_namespace_info__().dtypes(device=x.device, kind="real floating")
    return xp.astype(x, known["float64" if "float64" in known else "float32"], copy=False)


def to_host(totals: Iterable) -> tuple:
    """Return totals as Python floats, and as NumPy arrays where they have axes, waiting for the device."""
    return tuple(map(_number_or_array, totals))


def _number_or_array(total: Any) -> Any:
    if isinstance(total, int | float | numpy.generic):
        return float(total)
    array = numpy.asarray(to_numpy(total), dtype="float64")
    return array if array.shape else float(array)


class Totals:
    """The mean loss and the metrics of the batches so far.

    What batches give waits on the device for some time, and is then brought to the host and merged in the
    order of the batches. So the figures do not depend on when that is.

    Parameters
    ----------
    metrics : list of Metric
    """

    def __init__(self, metrics: "list[Metric]") -> None:
        self._metrics = metrics
        self._merges = [added, *(metric.merge for metric in metrics)]
        self._merged: list | None = None
        self._waiting: list[list[tuple]] = []
        self._numbers = 0

    def add(self, loss: Any, outputs: Any, targets: Any) -> int:
        """Add a batch: its mean loss, its outputs and its targets; return its number of examples."""
        examples = length(targets)
        new = [(wide(loss) * examples, examples)]
        new += [metric.totals(outputs, targets) for metric in self._metrics]
        self._waiting.append(new)
        self._numbers += sum(math.prod(getattr(x, "shape", ())) for totals in new for x in totals)
        if len(self._waiting) >= _BATCHES or self._numbers >= _NUMBERS:
            self._merge()
        return examples

    @property
    def sums(self) -> list | None:
        """The merged totals of the loss and of each metric, as lists of numbers; None before the first batch.

        Reading them waits for the device. What is assigned is gone on from.
        """
        self._merge()
        return self._merged and [
            [x.tolist() if tree.is_array(x) else x for x in totals] for totals in self._merged
        ]

    @sums.setter
    def sums(self, sums: list | None) -> None:
        self._merged = sums and [to_host(map(numpy.asarray, totals)) for totals in sums]
        self._waiting, self._numbers = [], 0

    def _merge(self) -> None:
        """Bring to the host what is waiting on the device."""
        merged = self._merged
        with numpy.errstate(all="ignore"):  # what is infinite or NaN is shown as that
            for batch in self._waiting:
                new: list = [to_host(totals) for totals in batch]
                triples = zip(self._merges, merged or new, new, strict=True)
                merged = [merge(totals, more) for merge, totals, more in triples] if merged else new
        self._merged, self._waiting, self._numbers = merged, [], 0

    def loss(self) -> float:
        """Return the mean loss, waiting for the device; NaN before the first batch."""
        self._merge()
        total, examples = (self._merged or [(math.nan, 1)])[0]
        return total / examples

    def results(self) -> dict[str, float]:
        """Return the loss and the metrics by name, waiting for the device; nothing before the first batch."""
        self._merge()
        if self._merged is None:
            return {}
        pairs = zip(self._metrics, self._merged[1:], strict=True)
        return {"loss": self.loss(), **{metric.name: metric.of(totals) for metric, totals in pairs}}
