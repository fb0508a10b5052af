"""What the batches of an epoch add up to: figures that lose no digits, and hardly wait for a device."""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy

from xpnet import tree
from xpnet.distributed import Group
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
    group : Group, optional
        Processes whose batches are added up: what reads the figures is to be done on all of them.
    """

    def __init__(self, metrics: list[Metric], group: Group | None = None) -> None:
        self._group = group
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
        merged = self._of_all()
        return merged and [[x.tolist() if tree.is_array(x) else x for x in totals] for totals in merged]

    @sums.setter
    def sums(self, sums: list[Any] | None) -> None:
        is_here = self._group is None or self._group.rank == 0  # as all processes are added up
        merged = sums and [to_host(map(numpy.asarray, totals)) for totals in sums]
        self._merged = merged if is_here else None
        self._waiting, self._numbers = [], 0

    def _merge(self) -> None:
        """Bring to the host what is waiting on the device."""
        batches = ([to_host(totals) for totals in batch] for batch in self._waiting)
        self._merged = self._together(self._merged, batches)
        self._waiting, self._numbers = [], 0

    def _together(self, merged: list[Any] | None, others: Iterable[list[Any] | None]) -> list[Any] | None:
        """Return totals merged with others, of which some may be of nothing."""
        with numpy.errstate(all="ignore"):  # what is infinite or NaN is shown as that
            for new in others:
                if merged and new:
                    triples = zip(self._merges[: len(new)], merged, new, strict=True)
                    merged = [merge(totals, more) for merge, totals, more in triples]
                else:
                    merged = merged or new
        return merged

    def _of_all(self, number: int | None = None) -> list[Any] | None:
        """Return the merged totals of all processes, or the first of them."""
        self._merge()
        if self._group is None:
            return self._merged
        own = self._merged and self._merged[:number]
        return self._together(None, self._group.gather_objects(own))

    def leave(self) -> None:
        """Go on without the other processes, whose figures are not known."""
        self._group = None
        self._merged, self._waiting = [(0.0, 0.0)] * len(self._merges), []

    def loss(self) -> float:
        """Return the mean loss, waiting for the device; NaN before the first batch."""
        return _loss(self._of_all(1))

    def results(self) -> dict[str, float]:
        """Return the loss and the metrics by name, waiting for the device; nothing before the first batch.

        Raises
        ------
        NothingCountsError
            If all weights are 0.
        """
        merged = self._of_all()
        if merged is None:
            return {}
        if not merged[0][1]:
            raise NothingCountsError(
                "at least one example must count in each epoch, and in the data for validation, received "
                "weights that are all 0, or targets that are all ignored. Look at how they were made."
            )
        pairs = zip(self._metrics, merged[1:], strict=True)
        return {"loss": _loss(merged), **{metric.name: metric.of(totals) for metric, totals in pairs}}


def _loss(merged: list[Any] | None) -> float:
    total, counted = (merged or [(math.nan, 1)])[0]
    return float(total / counted) if counted else 0.0  # of what counts for nothing so far
