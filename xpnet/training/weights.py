"""How much classes count: by a number for each, or so that all count alike."""

from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import Device, asarray, to_numpy
from xpnet.losses.weights import check_weight_values
from xpnet.settings import count, described, is_number
from xpnet.training.data import Data
from xpnet.training.examples import Examples
from xpnet.training.networks import evaluation_copy, place_of

# The weight of a class that is left out, or that no label is of.
_OTHERS = 1.0


def weights_of_classes(class_weight: Any, net: Any, data: Data) -> Any:
    """Return how much each class counts in the training of a network, an array where that is.

    Parameters
    ----------
    class_weight : dict, "balanced", array or sequence
        See `counted_class_weights` and `listed_class_weights`.
    net : Module
    data : Examples or Batches
        Those of the training.

    Raises
    ------
    TypeError, ValueError
        See both functions; or if outputs and targets of the network are not those of classes.
    """
    where, dtype = place_of(net)
    if not isinstance(class_weight, dict) and not _is_balanced(class_weight):
        return _there(listed_class_weights(class_weight), where, dtype)
    (x, y, *_), _ = data.first()
    outputs = evaluation_copy(net)(x)
    if not tree.is_array(outputs) or not tree.is_array(y):
        raise TypeError(
            "class_weight needs one array of outputs and one of targets, received "
            f"{type(outputs).__name__} and {type(y).__name__}. Weigh them in a loss of your own."
        )
    are_labels = len(y.shape) < len(outputs.shape)
    if not are_labels and tuple(outputs.shape[1:]) not in ((), (1,)):
        raise ValueError(
            "class_weight needs labels, numbers of classes, received targets of shape "
            f"{tuple(y.shape)}, that of the outputs. Pass a list: a weight for each class to cross_entropy, "
            "two for no and yes to binary_cross_entropy."
        )
    labels: Any = ()
    if _is_balanced(class_weight):
        if not (isinstance(data, Examples) and data.is_loaded):
            raise ValueError(
                'class_weight="balanced" needs targets that are in memory, to count them, received such that '
                "are read in parts. Count them beforehand, and pass a dict."
            )
        labels = to_numpy(data.values[1])[data.rows]
    weights = counted_class_weights(class_weight, labels, outputs.shape[-1] if are_labels else 2)
    return _there(weights, where, dtype)


def _there(weights: numpy.ndarray, where: Device, dtype: Any) -> Any:
    """Return weights where the network is, after a check that they are not lost in its dtype."""
    with numpy.errstate(all="ignore"):
        array = asarray(weights, device=where, dtype=dtype)
    found = numpy.asarray(to_numpy(asarray(array, dtype="float32")))
    if not numpy.isfinite(found).all() or not found.any():
        name = str(dtype).rpartition(".")[2]
        raise ValueError(
            f"class_weight must be numbers that {name} has, not all of them 0, received {weights.tolist()}. "
            "Multiply all of them by a number: only their ratios matter."
        )
    return array


def _is_balanced(class_weight: Any) -> bool:
    return isinstance(class_weight, str) and class_weight == "balanced"


def listed_class_weights(class_weight: Any) -> numpy.ndarray:
    """Return the weights in an array or sequence, after a check; how many there must be, the loss says.

    Raises
    ------
    ValueError
        If one is no finite number of at least 0, or all are 0.
    TypeError
        If it is neither.
    """
    if isinstance(class_weight, str) or not (tree.is_array(class_weight) or hasattr(class_weight, "__len__")):
        raise TypeError(
            "class_weight must be a dict of classes and weights, a list with a weight for each class, or "
            f'"balanced", received {described(class_weight)}.'
        )
    weights = numpy.asarray(to_numpy(asarray(class_weight)))
    check_weight_values("class_weight", weights)
    return _some(weights)


def _some(weights: numpy.ndarray) -> numpy.ndarray:
    """Return weights after a check that one is more than 0."""
    if not weights.any():
        raise ValueError(
            f"class_weight must be more than 0 for a class, received 0 for all {len(weights)}. Leave it out, "
            "where all count alike."
        )
    return weights.astype("float64")


def counted_class_weights(class_weight: Any, labels: Any, classes: int) -> numpy.ndarray:
    """Return how much each class counts.

    Parameters
    ----------
    class_weight : dict or "balanced"
        From numbers of classes to weights, where those that are left out have 1; or
        ``n_labels / (n_classes_present * n_labels_of_class)``, with which all classes count alike.
    labels : array or sequence of whole numbers, of any shape and library
        Numbers of classes, or 0 and 1. Others, such as those that a loss ignores, are not counted.
    classes : int

    Returns
    -------
    array, shape (classes,)

    Raises
    ------
    ValueError
        If a weight is no finite number of at least 0, all are 0, a key is no class, or labels that would have
        to be counted are no whole numbers.
    """
    classes = count("classes", classes)
    if _is_balanced(class_weight):
        return balanced(_counted(labels, classes), classes)
    others = [key for key in class_weight if not any(_is(key, label) for label in range(classes))]
    if others:
        raise ValueError(
            f"class_weight must have numbers of classes as its keys, from 0 to {classes - 1}, received "
            f"{others[0]!r}."
        )
    return _some(of_dict(class_weight, numpy.arange(classes)))


def _counted(labels: Any, classes: int) -> numpy.ndarray:
    """Return the labels that are classes, as integers in a row."""
    host = numpy.asarray(to_numpy(asarray(labels))).reshape(-1)
    if host.dtype.kind == "f" and not (host == numpy.floor(host)).all():
        raise ValueError(
            'class_weight="balanced" needs targets that are numbers of classes, or 0 and 1, received others, '
            "probabilities, say. Give a weight for each class."
        )
    host = host.astype("int64")
    return host[(host >= 0) & (host < classes)]


def balanced(labels: numpy.ndarray, classes: int) -> numpy.ndarray:
    """Return scikit-learn's ``n_labels / (n_classes_present * n_labels_of_class)`` for each class."""
    counts = numpy.bincount(labels, minlength=classes)
    present = counts > 0
    return numpy.where(present, len(labels) / (max(present.sum(), 1) * numpy.maximum(counts, 1)), _OTHERS)


def of_dict(class_weight: dict[Any, Any], classes: numpy.ndarray) -> numpy.ndarray:
    """Return the weight of each class by its label, 1 of those that are left out.

    Raises
    ------
    ValueError
        If a weight is no finite number of at least 0, or classes are missing and there are others.
    """
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
    return numpy.asarray([weights[0] if weights else _OTHERS for weights in found])


def _is(key: Any, label: Any) -> bool:
    return numpy.shape(key) == () and bool(key == label)  # the shape of a tuple is that of an array
