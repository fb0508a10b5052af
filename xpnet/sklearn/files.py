"""Estimators as files: the network in a file of `xpnet.save`, and beside it what JSON can say. No code."""

import json
import os
from typing import Any

import numpy
from sklearn.preprocessing import LabelBinarizer

import xpnet
from xpnet import tree
from xpnet.backends import Device


def save(estimator: Any, path: str | os.PathLike) -> None:
    """Write a fitted estimator to a file. See `MLP.save`."""
    fitted = {name: x for name, x in vars(estimator).items() if name[0] != "_" and name[-1] == "_"}
    about = {
        "estimator": type(estimator).__name__,
        "parameters": _sayable(estimator.get_params(deep=False)),
        "fitted": _sayable(fitted),
    }
    if hasattr(estimator, "_label_binarizer"):
        about["labels"] = estimator._label_binarizer.y_type_
    net = tree.copied(estimator._network())
    net.about = json.dumps(about)
    xpnet.save(net, path)


def load(cls: type, path: str | os.PathLike, device: str | Device | None) -> Any:
    """Read an estimator from a file. See `MLP.load`."""
    net = xpnet.load(path, device=device)
    text = vars(net).pop("about", None)
    about = json.loads(text) if isinstance(text, str) else {}
    if about.get("estimator") != cls.__name__:
        raise ValueError(
            f"{path} must be a file that {cls.__name__}.save wrote, received one of "
            f"{about.get('estimator', 'xpnet.save')}. Read it with that class, or with xpnet.load."
        )
    estimator = cls(**{name: _said(value) for name, value in about["parameters"].items()})
    for name, value in about["fitted"].items():
        setattr(estimator, name, _said(value))
    if "labels" in about:
        several = about["labels"].startswith("multilabel")
        labels = numpy.eye(len(estimator.classes_), dtype=int) if several else estimator.classes_
        estimator._label_binarizer = LabelBinarizer().fit(labels)
    estimator._publish(net)
    return estimator if device is None else estimator.set_params(device=xpnet.device(device).spec)


def _sayable(values: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON can say. The rest, functions and layers, is of use in training only."""
    said = {}
    for name, value in values.items():
        if isinstance(value, numpy.ndarray):
            value = {"values": value.tolist(), "dtype": str(value.dtype)}
        elif isinstance(value, numpy.generic):
            value = value.item()
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            continue
        said[name] = value
    return said


def _said(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"values", "dtype"}:
        return numpy.asarray(value["values"], dtype=value["dtype"])
    return value
