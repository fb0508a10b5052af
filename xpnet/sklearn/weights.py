"""How much examples count by their classes."""

from typing import Any

import numpy

from xpnet.training.weights import balanced, of_dict


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
        return numpy.stack([balanced(column, count) for column in _columns(targets)])
    if classes is None:
        raise ValueError(
            "class_weight as a dict needs classes of which each example has one, received targets of several "
            'labels. Use class_weight="balanced", or sample_weight.'
        )
    return of_dict(class_weight, classes)[None, :]


def weights_of(targets: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    """Return how much each example counts, shape (examples,): of several labels, the product."""
    each = [of_class[column] for of_class, column in zip(weights, _columns(targets), strict=True)]
    return numpy.asarray(numpy.prod(each, axis=0))


def _columns(targets: numpy.ndarray) -> numpy.ndarray:
    return targets.reshape(len(targets), -1).T.astype(int)
