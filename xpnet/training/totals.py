"""What the batches of an epoch add up to: figures that lose no digits, and hardly wait for a device."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy

from xpnet import tree
from xpnet.losses.checks import NothingCountsError
from xpnet.training.destination import length
from xpnet.training.metric import Metric, added, to_host, wide

NO_WEIGHTS: Mapping[str, Any] = MappingProxyType({})

# How many batches, and how many numbers, wait on the device until they are brought to the host. That waits
# for the device, as nothing else does until the end of an epoch.
_WAITING_BATCHES = 256
_WAITING_NUMBERS = 2**22


class Totals:
    """The mean loss and the metrics of the batches so far.

    What batches give waits on the device for some time, and is then brought to the host and merged in the
    order of the batches. So the figures do not depend on when that is.

    Parameters
    ----------
    metrics : list of Metric
    """

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics
        self._merges = [added, *(metric.merge for metric in metrics)]
        self._merged: list[Any] | None = None
        self._waiting: list[list[tuple[Any, ...]]] = []
        self._numbers = 0

    def add(
        self,
        loss: Any,
        outputs: Any,
        targets: Any,
        weights: Mapping[str, Any] = NO_WEIGHTS,
        denominator: Any = None,
    ) -> int:
        """Add a batch; return its number of examples.

        Parameters
        ----------
        loss : array
            The mean of its losses.
        outputs, targets : tree
        weights : mapping, optional
            What the metrics are given besides.
        denominator : array, optional
            What the mean was divided by, if that is not the number of examples.
        """
        examples = length(targets)
        counted = examples if denominator is None else wide(denominator)
        new = [(wide(loss) * counted, counted)]
        new += [metric.batch_totals(outputs, targets, **weights) for metric in self._metrics]
        self._waiting.append(new)
        self._numbers += sum(math.prod(getattr(x, "shape", ())) for totals in new for x in totals)
        if len(self._waiting) >= _WAITING_BATCHES or self._numbers >= _WAITING_NUMBERS:
            self._merge()
        return examples

    @property
    def sums(self) -> list[Any] | None:
        """The merged totals of the loss and of each metric, as lists of numbers; None before the first batch.

        Reading them waits for the device. What is assigned is gone on from.
        """
        self._merge()
        return self._merged and [
            [x.tolist() if tree.is_array(x) else x for x in totals] for totals in self._merged
        ]

    @sums.setter
    def sums(self, sums: list[Any] | None) -> None:
        self._merged = sums and [to_host(map(numpy.asarray, totals)) for totals in sums]
        self._waiting, self._numbers = [], 0

    def _merge(self) -> None:
        """Bring to the host what is waiting on the device."""
        merged = self._merged
        with numpy.errstate(all="ignore"):  # what is infinite or NaN is shown as that
            for batch in self._waiting:
                new: list[Any] = [to_host(totals) for totals in batch]
                triples = zip(self._merges, merged or new, new, strict=True)
                merged = [merge(totals, more) for merge, totals, more in triples] if merged else new
        self._merged, self._waiting, self._numbers = merged, [], 0

    def loss(self) -> float:
        """Return the mean loss, waiting for the device; NaN before the first batch."""
        self._merge()
        total, counted = (self._merged or [(math.nan, 1)])[0]
        return float(total / counted) if counted else 0.0  # of what counts for nothing so far

    def results(self) -> dict[str, float]:
        """Return the loss and the metrics by name, waiting for the device; nothing before the first batch.

        Raises
        ------
        NothingCountsError
            If all weights are 0.
        """
        self._merge()
        if self._merged is None:
            return {}
        if not self._merged[0][1]:
            raise NothingCountsError(
                "at least one example must count in each epoch, and in the data for validation, received "
                "weights that are all 0, or targets that are all ignored. Look at how they were made."
            )
        pairs = zip(self._metrics, self._merged[1:], strict=True)
        return {"loss": self.loss(), **{metric.name: metric.of(totals) for metric, totals in pairs}}
