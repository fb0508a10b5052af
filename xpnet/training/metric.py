"""What a metric is.

A metric adds up over batches: from the outputs of a batch and its targets it makes totals on the device, and
from those of all batches, merged, the number, once at the end of an epoch. So metrics that are no means of
per-batch values, such as R², are exact, and hardly a batch waits for the device. Totals are merged on the
host in double precision: a hundred thousand batches lose no digits, also on a device that has none to spare.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import to_numpy
from xpnet.cached import cached_property
from xpnet.losses.checks import check_weights, counting_targets
from xpnet.losses.weights import arrays_among, example_weights, without
from xpnet.settings import as_python, described, flag, number
from xpnet.training.destination import length


def ratio(total: float, counts: float) -> float:
    """Return a mean: a total over how much counts, NaN where nothing does."""
    return total / counts if counts else math.nan


def added(totals: tuple[Any, ...], more: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x + y for x, y in zip(totals, more, strict=True))


@dataclass(frozen=True)
class Metric:
    """A number that describes how well outputs fit targets.

    Called as ``metric(outputs, targets, sample_weight=None, class_weight=None)``, with a whole data set, it
    returns the number.

    Parameters
    ----------
    name : str
        Its name in the history.
    totals : callable
        ``totals(outputs, targets)`` returns what is kept of a batch: a tuple of arrays and Python numbers, as
        many and of the same shapes for each batch. It must not wait for the device. With the parameters
        ``sample_weight=None``, an array of shape (batch,) or with more axes of the targets, and
        ``class_weight=None``, an array with a number for each class, it is given these, where there are some.
    result : callable
        ``result(*totals)`` makes the metric of the totals of all batches.
    description : str, optional
        Becomes the docstring of the metric.
    merge : callable, optional
        ``merge(totals, more)`` returns the totals of two sets of examples together, of a tuple for each. By
        default they are added.
    check_targets : callable, optional
        ``check_targets(outputs, targets)`` raises an error where the metric makes no sense. It is called
        once, before a training, with the outputs of a batch and all targets, and may read them.
    takes_logits : bool, default=False
        Whether outputs are logits, which a layer such as a sigmoid behind them would spoil.

    Notes
    -----
    `merge` and `result` run on the host. They are given Python floats, and NumPy arrays of float64 where a
    total had axes. Sums of squares lose their digits where numbers are far from zero: keep the mean and the
    squared deviations from it, and merge these.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.metrics.accuracy(np.asarray([[2.0, 1.0], [0.0, 3.0]]), np.asarray([0, 0]))
    0.5

    The largest error of all batches:

    >>> largest_error = xpnet.metrics.Metric(
    ...     "largest_error",
    ...     lambda outputs, targets: (abs(outputs - targets).max(),),
    ...     lambda largest: largest,
    ...     merge=lambda totals, more: (max(totals[0], more[0]),),
    ... )
    >>> largest_error(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0]))
    3.0
    """

    name: str
    totals: Callable[..., tuple[Any, ...]]
    result: Callable[..., float]
    description: str = field(default="", repr=False)
    merge: Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, ...]] = field(default=added, repr=False)
    check_targets: Callable[[Any, Any], None] | None = field(default=None, repr=False)
    takes_logits: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "takes_logits", flag("takes_logits", self.takes_logits))
        if self.description:
            object.__setattr__(self, "__doc__", inspect.cleandoc(self.description))

    def __call__(
        self, outputs: Any, targets: Any, sample_weight: Any = None, class_weight: Any = None
    ) -> float:
        if self.check_targets is not None:
            self.check_targets(outputs, targets)
        if sample_weight is not None:
            check_weights(sample_weight, length(targets))
        return self.of(to_host(self.batch_totals(outputs, targets, sample_weight, class_weight)))

    def batch_totals(
        self, outputs: Any, targets: Any, sample_weight: Any = None, class_weight: Any = None
    ) -> tuple[Any, ...]:
        """Return the totals of a batch, which counts by weights, if some are given.

        Raises
        ------
        TypeError
            If the totals of the metric know nothing of weights that are given.
        """
        if sample_weight is None and class_weight is None:
            return self.totals(outputs, targets)
        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        given = {name: weight for name, weight in weights.items() if weight is not None}
        for name in given:
            if name not in self._weights:
                raise TypeError(
                    f"the metric {self.name} takes no {name}, received one. Leave out one of the two; one of "
                    f"your own takes it as a parameter: f(outputs, targets, {name}=None)."
                )
        return self.totals(outputs, targets, **given)

    @cached_property
    def _weights(self) -> set[str]:
        """The weights that the totals take."""
        try:
            parameters = inspect.signature(self.totals).parameters
        except ValueError:  # of some that are written in C
            return set()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return {"sample_weight", "class_weight"}
        return set(parameters)

    def of(self, totals: tuple[Any, ...]) -> float:
        """Make the metric of totals on the host."""
        with numpy.errstate(all="ignore"):  # what is infinite or NaN is shown as that
            result = self.result(*totals)
        if numpy.ndim(result):
            raise TypeError(
                f"a metric must be one number, received an array of shape {numpy.shape(result)} from "
                f"{self.name}. Return its mean, or make a metric of each."
            )
        return float(result)

    def of_part(self, name: str, part: Callable[[Any, Any], tuple[Any, Any]]) -> "Metric":
        """Return the metric of a part of the outputs, for networks that return a dict or tuple.

        Parameters
        ----------
        name : str
            Its name in the history.
        part : callable
            ``part(outputs, targets)`` returns the outputs and targets to compare, each taken from its own
            argument: before a training, it is called with one batch of outputs and all targets.

        Returns
        -------
        Metric

        Examples
        --------
        >>> import numpy as np
        >>> import xpnet
        >>> digit = xpnet.metrics.accuracy.of_part("digit", lambda outputs, y: (outputs["digit"], y))
        >>> digit({"digit": np.asarray([[2.0, 1.0], [0.0, 3.0]])}, np.asarray([0, 0]))
        0.5
        """
        check = self.check_targets
        return replace(
            self,
            name=name,
            totals=functools.partial(_of_part, self.batch_totals, part),
            check_targets=check and functools.partial(_of_part, check, part),
        )

    def unweighted(self, name: str) -> "Metric":
        """Return the metric in which all examples count alike, whatever weights `fit` is given.

        Parameters
        ----------
        name : str
            Its name in the history.

        Returns
        -------
        Metric

        Examples
        --------
        >>> import numpy as np
        >>> import xpnet
        >>> plain = xpnet.metrics.accuracy.unweighted("plain_accuracy")
        >>> plain(np.asarray([[2.0, 1.0], [0.0, 3.0]]), np.asarray([0, 0]), sample_weight=np.asarray([3, 1]))
        0.5
        """
        return replace(self, name=name, totals=functools.partial(_unweighted, self.totals))

    def ignoring(self, index: float) -> "Metric":
        """Return the metric without the targets that are equal to a number, such as the label of padding.

        Parameters
        ----------
        index : int or float
            As ``ignore_index`` in `losses.cross_entropy`.

        Returns
        -------
        Metric

        Raises
        ------
        ValueError
            If the index is no finite number; when it is called, if there are no other targets.

        Examples
        --------
        >>> import numpy as np
        >>> import xpnet
        >>> accuracy = xpnet.metrics.accuracy.ignoring(-1)
        >>> accuracy(np.asarray([[2.0, 1.0], [0.0, 3.0], [0.0, 3.0]]), np.asarray([0, 0, -1]))
        0.5
        """
        index, check = as_python(index), self.check_targets
        number("index", index)
        return replace(
            self,
            totals=functools.partial(_ignoring, self.batch_totals, index),
            check_targets=functools.partial(_check_ignoring, check, index),
        )


def _of_part(
    f: Callable[..., Any], part: Callable[..., Any], outputs: Any, targets: Any, **weights: Any
) -> Any:
    return f(*part(outputs, targets), **weights)


def _unweighted(totals: Callable[..., Any], outputs: Any, targets: Any, **_weights: Any) -> Any:
    return totals(outputs, targets)


def _ignoring(
    totals: Callable[..., Any],
    index: float,
    outputs: Any,
    targets: Any,
    sample_weight: Any = None,
    **weights: Any,
) -> Any:
    _check_array(targets)
    xp = array_namespace(targets, *arrays_among(sample_weight))
    dtype = wide_dtype(targets)
    targets, counts = without(xp, targets, index)
    if sample_weight is None:
        sample_weight = xp.astype(counts, dtype)
    else:
        sample_weight = example_weights(xp, sample_weight, targets.shape, targets, dtype)
        sample_weight = xp.where(counts, sample_weight, xp.zeros_like(sample_weight))
    return totals(outputs, targets, sample_weight=sample_weight, **weights)


def _check_ignoring(check: Callable[..., Any] | None, index: float, outputs: Any, targets: Any) -> None:
    _check_array(targets)
    targets = counting_targets(targets, index)
    if check is not None:
        check(outputs, targets)


def _check_array(targets: Any) -> None:
    if not tree.is_array(targets):
        raise TypeError(
            f"a metric that ignores a number needs targets that are an array, received {described(targets)}. "
            "Choose one of several first: metric.ignoring(-1).of_part(name, part)."
        )


def attribute_of(function: Callable[..., Any], name: str) -> Any:
    """Return an attribute of a loss or a metric, also through `functools.partial`; None if it has none."""
    while isinstance(function, functools.partial) and not hasattr(function, name):
        function = function.func
    return getattr(function, name, None)


def check_targets_of(function: Callable[..., Any]) -> Any:
    """Return what checks the targets of a loss or a metric, None if nothing does.

    What `functools.partial` sets in the function, such as ``ignore_index``, is set there, too.
    """
    check = attribute_of(function, "check_targets")
    settings: dict[str, Any] = {}
    while isinstance(function, functools.partial) and not hasattr(function, "check_targets"):
        settings, function = function.keywords | settings, function.func
    if check is None or not settings:
        return check
    known = inspect.signature(check).parameters
    return functools.partial(check, **{name: x for name, x in settings.items() if name in known})


def wide(x: Any) -> Any:
    """Return an array in double precision where its device has it, else in single precision; or a number."""
    if isinstance(x, numpy.generic):
        return numpy.float64(x)  # the loss of each step, which counts for small networks
    if not tree.is_array(x):
        return float(x)
    return array_namespace(x).astype(x, wide_dtype(x), copy=False)


def wide_dtype(x: Any) -> Any:
    """Return the dtype of double precision where the device of an array has it, else of single precision."""
    # Asked anew each time, as not every library's devices can be hashed.
    info = array_namespace(x).__array_namespace_info__()
    known = info.dtypes(device=x.device, kind="real floating")
    return known["float64" if "float64" in known else "float32"]


def to_host(totals: Iterable[Any]) -> tuple[Any, ...]:
    """Return totals as Python floats, and as NumPy arrays where they have axes, waiting for the device."""
    return tuple(map(_number_or_array, totals))


def _number_or_array(total: Any) -> Any:
    if isinstance(total, int | float | numpy.generic):
        return float(total)
    array = numpy.asarray(to_numpy(total), dtype="float64")
    return array if array.shape else float(array)
