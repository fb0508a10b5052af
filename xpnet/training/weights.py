"""How much examples count by their classes."""

from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import asarray, to_numpy
from xpnet.settings import described, is_number
from xpnet.training.data import Data
from xpnet.training.examples import Examples
from xpnet.training.networks import evaluation_copy, place_of


def weights_of_classes(class_weight: Any, net: Any, data: Data) -> Any:
    """Return how much each class counts, an array of shape (classes,) where the network is.

    Parameters
    ----------
    class_weight : dict, array, sequence or "balanced"
        See `fit`.
    net : Module
    data : Examples or Batches
        Those of the training.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or outputs and targets of the network are not those of classes.
    """
    where, dtype = place_of(net)
    if isinstance(class_weight, dict) or (isinstance(class_weight, str) and class_weight == "balanced"):
        class_weight = _by_classes(class_weight, net, data)
    elif not tree.is_array(class_weight) and not isinstance(class_weight, tuple | list):
        raise TypeError(
            'class_weight must be a dict from classes to weights, a number for each class, or "balanced", '
            f"received {described(class_weight)}."
        )
    return asarray(class_weight, device=where, dtype=dtype)


def _by_classes(class_weight: Any, net: Any, data: Data) -> numpy.ndarray:
    (x, y, *_), (_, all_targets, *_) = data.first()
    outputs = evaluation_copy(net)(x)
    if not tree.is_array(outputs) or not tree.is_array(y):
        raise TypeError(
            "class_weight needs one array of outputs and one of targets, received "
            f"{type(outputs).__name__} and {type(y).__name__}. Weigh them in a loss of your own."
        )
    are_labels = len(y.shape) < len(outputs.shape)
    if not are_labels and outputs.shape[-1] != 1:
        raise ValueError(
            "class_weight as a dict needs labels, numbers of classes, received targets of shape "
            f"{tuple(y.shape)}, that of the outputs. Pass one weight for each class in a list."
        )
    classes = numpy.arange(outputs.shape[-1] if are_labels else 2)
    labels = numpy.empty(0, int)
    if not isinstance(class_weight, dict):
        if not (isinstance(data, Examples) and data.is_loaded):
            raise ValueError(
                'class_weight="balanced" needs targets that are in memory, to count them; received such that '
                "are read in parts. Count them beforehand, and pass a dict."
            )
        labels = numpy.asarray(to_numpy(all_targets))[data.rows].reshape(-1).astype(int)
        labels = labels[numpy.isin(labels, classes)]  # a label that is ignored is no class
    weights: numpy.ndarray = class_weights(class_weight, classes, labels)[0]
    return weights


def class_weights(class_weight: Any, classes: numpy.ndarray | None, targets: numpy.ndarray) -> numpy.ndarray:
    """Return how much each class counts.

    Parameters
    ----------
    class_weight : dict or "balanced"
        From classes to weights; or scikit-learn's ``n_examples / (n_classes * n_examples_of_class)``.
    classes : array, shape (classes,), or None
        All that there are; None for several labels, each of which is there or not.
    targets : array, shape (examples,) of numbers of classes, or (examples, columns) of bools

    Returns
    -------
    array, shape (columns, classes)

    Raises
    ------
    ValueError
        If a weight is no finite number of at least 0, if classes are missing in the dict and it has others,
        or if there are several labels and a dict.
    """
    if class_weight == "balanced":
        count = 2 if classes is None else len(classes)
        return numpy.stack([_balanced(column, count) for column in _columns(targets)])
    if classes is None:
        raise ValueError(
            "class_weight as a dict needs classes of which each example has one, received targets of several "
            'labels. Use class_weight="balanced", or sample_weight.'
        )
    for key, weight in class_weight.items():
        if not is_number(weight) or not 0 <= float(weight) < numpy.inf:
            raise ValueError(
                "class_weight must have a finite number of at least 0 for each class, received "
                f"{weight!r} for {key!r}."
            )
    found = [[float(weight) for key, weight in class_weight.items() if _is(key, label)] for label in classes]
    missing = [label for label, weights in zip(classes.tolist(), found, strict=True) if not weights]
    if missing and len(classes) - len(missing) != len(class_weight):
        raise ValueError(
            f"class_weight must have the classes of y as its keys, which are {classes.tolist()}; received "
            f"{list(class_weight)}, where {missing} are missing and others are there. Name those that shall "
            "not count as 1."
        )
    return numpy.asarray([[weights[0] if weights else 1.0 for weights in found]])


def weights_of(targets: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    """Return how much each example counts, shape (examples,): of several labels, the product."""
    each = [of_class[column] for of_class, column in zip(weights, _columns(targets), strict=True)]
    return numpy.asarray(numpy.prod(each, axis=0))


def _columns(targets: numpy.ndarray) -> numpy.ndarray:
    return targets.reshape(len(targets), -1).T.astype(int)


def _balanced(column: numpy.ndarray, classes: int) -> numpy.ndarray:
    counts = numpy.bincount(column, minlength=classes)
    present = counts > 0
    return numpy.where(present, len(column) / (present.sum() * numpy.maximum(counts, 1)), 1.0)


def _is(key: Any, label: Any) -> bool:
    return numpy.shape(key) == () and bool(key == label)  # the shape of a tuple is that of an array
