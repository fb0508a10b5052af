"""Metrics: what to watch besides the loss.

A metric adds up over batches: from the outputs of a batch and its targets it makes totals, arrays that are
summed over all batches on the device, and from their sums, once at the end of an epoch, the number. So
metrics that are no means of per-batch values, such as R², are exact, and nothing waits for the device.
"""

import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import to_numpy
from xpnet.training.batches import length

__all__ = [
    "Metric",
    "accuracy",
    "binary_accuracy",
    "mean_absolute_error",
    "r2",
    "root_mean_squared_error",
    "top_k_accuracy",
]


@dataclass(frozen=True)
class Metric:
    """A number that describes how well outputs fit targets.

    Called with the outputs and targets of a whole data set, it returns the number.

    Parameters
    ----------
    name : str
        Its name in the history.
    totals : callable
        ``totals(outputs, targets)`` returns a tuple of arrays, or Python numbers, that may be added up over
        batches.
    result : callable
        ``result(*totals)`` makes the metric of the sums, which are Python floats, and NumPy arrays where an
        array had axes.
    description : str, optional
        Becomes the docstring of the metric.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.accuracy(np.asarray([[2.0, 1.0], [0.0, 3.0]]), np.asarray([0, 0]))
    0.5
    """

    name: str
    totals: Callable[[Any, Any], tuple]
    result: Callable[..., float]
    description: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.description:
            object.__setattr__(self, "__doc__", inspect.cleandoc(self.description))

    def __call__(self, outputs: Any, targets: Any) -> float:
        return self.of(self.totals(outputs, targets))

    def of(self, totals: tuple) -> float:
        """Make the metric of the sums of totals, waiting for the device that they are on."""
        sums = (to_numpy(total) for total in totals)
        return float(self.result(*(total if getattr(total, "shape", ()) else float(total) for total in sums)))


def as_metric(metric: Any) -> Metric:
    """Return a metric; a function of outputs and targets becomes its mean over the batches.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(metric, Metric):
        return metric
    if not callable(metric):
        raise TypeError(
            "a metric is one of xpnet.metrics or a function (outputs, targets) → number, "
            f"received {metric!r}."
        )

    def totals(outputs: Any, targets: Any) -> tuple:
        examples = length(targets)
        return metric(outputs, targets) * examples, examples

    return Metric(getattr(metric, "__name__", type(metric).__name__), totals, _ratio)


def _ratio(total: float, number: float) -> float:
    return total / number


def _wide(x: Any) -> Any:
    """Return an array in double precision where its device has it, else in single precision."""
    if isinstance(x, numpy.generic):
        return numpy.float64(x)  # the loss of each step, which counts for small networks
    xp = array_namespace(x)
    # Asked anew each time, as not every library's devices can be hashed.
    known = xp.__array_namespace_info__().dtypes(device=x.device, kind="real floating")
    return xp.astype(x, known["float64" if "float64" in known else "float32"], copy=False)


def _sum(x: Any) -> Any:
    return array_namespace(x).sum(_wide(x))


def _check_shapes(outputs: Any, targets: Any) -> None:
    if tuple(outputs.shape) != tuple(targets.shape):
        raise ValueError(
            f"outputs and targets must have one shape, received {tuple(outputs.shape)} and "
            f"{tuple(targets.shape)}. Targets of shape (batch,) belong to outputs of shape (batch,): reshape "
            "them to (batch, 1), or the outputs to (batch,)."
        )


def _as_labels(outputs: Any, targets: Any) -> Any:
    """Return labels of shape (batch,), of probabilities the most probable."""
    if len(targets.shape) == len(outputs.shape):
        return array_namespace(targets).argmax(targets, axis=-1)
    return targets


def _accuracy(outputs: Any, targets: Any) -> tuple:
    xp = array_namespace(outputs, targets)
    labels = _as_labels(outputs, targets)
    right = xp.argmax(outputs, axis=-1) == labels
    return _sum(right), outputs.shape[0]


accuracy = Metric(
    "accuracy",
    _accuracy,
    _ratio,
    """The share of examples whose largest output, of shape (batch, classes), is that of their label,
    (batch,).

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.accuracy(np.asarray([[2.0, 1.0], [0.0, 3.0]]), np.asarray([0, 0]))
    0.5
    """,
)


def top_k_accuracy(k: int = 5) -> Metric:
    """Make the metric: the share of examples whose label is among the k largest outputs.

    Parameters
    ----------
    k : int, default=5

    Returns
    -------
    Metric
        Of outputs of shape (batch, classes) and labels of shape (batch,).

    Raises
    ------
    ValueError
        If k is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> scores = np.asarray([[0.1, 0.7, 0.2], [0.8, 0.1, 0.3]])
    >>> xpnet.metrics.top_k_accuracy(2)(scores, np.asarray([2, 1]))
    0.5
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, received {k}.")

    def totals(outputs: Any, targets: Any) -> tuple:
        xp = array_namespace(outputs, targets)
        labels = xp.expand_dims(_as_labels(outputs, targets), axis=-1)
        classes = xp.arange(outputs.shape[-1], dtype=labels.dtype, device=outputs.device)
        zero = xp.zeros_like(outputs)
        own = xp.sum(xp.where(classes == labels, outputs, zero), axis=-1, keepdims=True)
        larger = xp.count_nonzero(outputs > own, axis=-1)
        return _sum(larger < k), outputs.shape[0]

    return Metric(f"top_{k}_accuracy", totals, _ratio)


def _binary_accuracy(outputs: Any, targets: Any) -> tuple:
    _check_shapes(outputs, targets)
    xp = array_namespace(outputs, targets)
    right = (outputs > 0) == (targets > 0)
    return _sum(right), math.prod(outputs.shape)


binary_accuracy = Metric(
    "binary_accuracy",
    _binary_accuracy,
    _ratio,
    """The share of logits with the right sign: positive where the target is 1, else not.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.binary_accuracy(np.asarray([2.0, -1.0]), np.asarray([1.0, 1.0]))
    0.5
    """,
)


def _absolute_error(outputs: Any, targets: Any) -> tuple:
    _check_shapes(outputs, targets)
    return _sum(abs(_wide(outputs) - _wide(targets))), math.prod(outputs.shape)


mean_absolute_error = Metric(
    "mean_absolute_error",
    _absolute_error,
    _ratio,
    """The mean of the absolute differences of outputs and targets of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.mean_absolute_error(np.asarray([2.0, 4.0]), np.asarray([1.0, 1.0]))
    2.0
    """,
)


def _squared_error(outputs: Any, targets: Any) -> tuple:
    _check_shapes(outputs, targets)
    return _sum((_wide(outputs) - _wide(targets)) ** 2), math.prod(outputs.shape)


root_mean_squared_error = Metric(
    "root_mean_squared_error",
    _squared_error,
    lambda total, number: math.sqrt(total / number),
    """The root of the mean of the squared differences of outputs and targets of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.root_mean_squared_error(np.asarray([1.0, 7.0]), np.asarray([0.0, 0.0]))
    5.0
    """,
)


def _r2_totals(outputs: Any, targets: Any) -> tuple:
    _check_shapes(outputs, targets)
    error, _ = _squared_error(outputs, targets)
    return error, _sum(targets), _sum(_wide(targets) ** 2), math.prod(outputs.shape)


def _r2_result(error: float, total: float, squares: float, number: float) -> float:
    spread = squares - total * total / number
    return 1 - error / spread if spread > 0 else math.nan


r2 = Metric(
    "r2",
    _r2_totals,
    _r2_result,
    """R²: 1 minus the squared errors over the squared deviations of the targets from their mean; NaN where
    all targets are equal. Outputs and targets have one shape; several columns are taken as one.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.r2(np.asarray([1.0, 2.0]), np.asarray([1.0, 3.0]))
    0.5
    """,
)


class Totals:
    """The mean loss and the metrics of an epoch, summed over its batches on the device.

    Attributes
    ----------
    sums : list of tuple, or None
        The totals of the loss and of each metric; None before the first batch.
    """

    def __init__(self, metrics: list[Metric], sums: Any = None) -> None:
        self._metrics = metrics
        self.sums = sums

    def add(self, loss: Any, outputs: Any, targets: Any) -> int:
        """Add a batch: its mean loss, its outputs and its targets; return its number of examples."""
        examples = length(targets)
        new: list[tuple] = [((_wide(loss) if tree.is_array(loss) else loss) * examples, examples)]
        new += [metric.totals(outputs, targets) for metric in self._metrics]
        if self.sums is None:
            self.sums = new
        else:
            self.sums = [tuple(map(operator.add, *pair)) for pair in zip(self.sums, new, strict=True)]
        return examples

    def results(self) -> dict[str, float]:
        """Return the loss and the metrics by name, waiting for the device."""
        total, examples = self.sums[0]
        pairs = zip(self._metrics, self.sums[1:], strict=True)
        return {
            "loss": float(to_numpy(total)) / examples,
            **{metric.name: metric.of(sums) for metric, sums in pairs},
        }
