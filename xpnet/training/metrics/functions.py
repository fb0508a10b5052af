"""Metrics that are written as functions, and metrics of one of several outputs."""

from functools import partial
from numbers import Real
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.losses import noted_denominators
from xpnet.training import metrics
from xpnet.training.destination import length
from xpnet.training.metric import Metric, attribute_of, check_targets_of, ratio, wide


def as_metric(metric: Any) -> Metric:
    """Return a metric; a function of outputs and targets becomes its mean over the batches.

    A batch counts as much as its examples, or their weights, do; of one of `xpnet.losses`, as much as what
    the loss divides by.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(metric, Metric):
        return metric
    must = "a metric is one of xpnet.metrics or a function (outputs, targets) → number"
    if not callable(metric):
        known = isinstance(metric, str) and metric in metrics.__all__ and metric != "Metric"
        raise TypeError(f"{must}, received {metric!r}.{f' Write xpnet.metrics.{metric}.' if known else ''}")
    if metric is metrics.top_k_accuracy:
        raise TypeError(f"{must}, received top_k_accuracy, which makes one. Write top_k_accuracy(5).")
    name = attribute_of(metric, "__name__") or type(metric).__name__

    def totals(outputs: Any, targets: Any, **weights: Any) -> tuple[Any, ...]:
        with noted_denominators() as noted:
            number = metric(outputs, targets, **weights)
        if not (isinstance(number, Real) or (tree.is_array(number) and not number.shape)):
            kind = f"shape {tuple(number.shape)}" if tree.is_array(number) else type(number).__name__
            raise TypeError(f"a metric must return one number for a batch, received {kind} from {name}.")
        denominators = [wide(divisor) for mean, divisor, weighted in noted if mean is number and weighted]
        if denominators:
            counts = denominators[0]
        elif "sample_weight" in weights:
            given = weights["sample_weight"]
            given = wide(given if tree.is_array(given) else numpy.asarray(given))
            counts = array_namespace(given).sum(given)
        else:
            counts = length(targets)
        return wide(number) * counts, counts

    totals.__wrapped__ = metric  # type: ignore[attr-defined]  # which says what weights it takes
    takes_logits = bool(attribute_of(metric, "takes_logits"))
    return Metric(name, totals, ratio, check_targets=check_targets_of(metric), takes_logits=takes_logits)


def of_key(metric: Metric, key: Any) -> Metric:
    """Return the metric of an item of outputs and of targets, or of all of what is no dict."""
    return metric.of_part(f"{key}_{metric.name}", partial(_items, key))


def _items(key: Any, outputs: Any, targets: Any) -> tuple[Any, Any]:
    parts = {"outputs": outputs, "targets": targets}
    dicts = {name: part for name, part in parts.items() if isinstance(part, dict)}
    if not dicts:
        raise ValueError(
            f"metrics as a dict need outputs or targets that are dicts, received the key {key!r} and no "
            "dict. Give a list of metrics."
        )
    for name, part in dicts.items():
        if key not in part:
            raise ValueError(
                f"each key of metrics must be one of outputs and targets that are dicts, received {key!r} "
                f"beside {name} with {list(part)}. Rename it, or choose with metric.of_part(name, part)."
            )
    found = [part[key] if name in dicts else part for name, part in parts.items()]
    return found[0], found[1]
