"""Estimators as files: the network in a file of `xpnet.save`, beside it all that comes back equal."""

import os
import reprlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer

import xpnet
from xpnet import nn, tree
from xpnet.backends import Device
from xpnet.errors import OF_WRONG_VALUES
from xpnet.files.description import CodeNeededError, build, describe
from xpnet.files.networks import Parts, pack_parts, read_parts, unpack_parts
from xpnet.optim.transforms import check_state
from xpnet.replay.same.data import Identity, data, data_of_array
from xpnet.settings import is_bool, is_integer, is_number
from xpnet.sklearn.network import ACTIVATIONS, LINKS, dense_layers
from xpnet.sklearn.objective import Penalized
from xpnet.sklearn.parameters import several
from xpnet.sklearn.solvers import kind_of, optimizer_of
from xpnet.writing import replace


def _is_count(x: Any) -> bool:
    return is_integer(x) and x >= 0


def _are_numbers(x: Any) -> bool:
    return type(x) is list and all(map(is_number, x))


def _are_texts(x: Any) -> bool:
    return type(x) is numpy.ndarray and x.ndim == 1 and all(type(each) is str for each in x)


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda x: x is None or holds(x)


# What `fit` leaves, besides the network and what follows from it, and what holds of it.
_FITTED: dict[str, Callable[[Any], bool]] = {
    "best_loss_": _or_none(is_number),
    "best_validation_score_": _or_none(is_number),
    "classes_": lambda x: type(x) is numpy.ndarray and x.ndim == 1,
    "feature_names_in_": _are_texts,
    "loss_": is_number,
    "loss_curve_": _are_numbers,
    "n_features_in_": _is_count,
    "n_iter_": _is_count,
    "n_outputs_": _is_count,
    "out_activation_": lambda x: type(x) is str and x in LINKS,
    "stopped_": is_bool,
    "t_": _is_count,
    "temperature_": lambda x: is_number(x) and x > 0,
    "validation_loss_curve_": _are_numbers,
    "validation_scores_": _or_none(_are_numbers),
}
# What may stand between the dense layers of a stack: it keeps their width.
_BETWEEN = {nn.Dropout, nn.Softmax, nn.LogSoftmax, *filter(None, ACTIVATIONS.values())}

_OF_NETWORK = ("network_", "coefs_", "intercepts_", "n_layers_")
_OF_TRAINING = ("_best", "_no_improvement_count", "_optimizer_state")
_MADE_ANEW = ("_class_weights", "_label_binarizer", "_learned", "_own_recording", "_random_state", "_samples")

# The methods that take more than X and y, which `set_fit_request` and its like ask for.
_ASKING = ("fit", "partial_fit", "score")


def save(estimator: Any, path: str | os.PathLike[str], include_optimizer: bool) -> None:
    """Write a fitted estimator to a file. See `MLP.save`."""
    estimator._validate_params()
    parameters = estimator.get_params(deep=False) | {"group": None}  # which is of the program that trained
    known = {*parameters, *_FITTED, *_OF_NETWORK, *_OF_TRAINING, *_MADE_ANEW, "_metadata_request"}
    for name in vars(estimator):
        if name not in known:
            raise _refusal(estimator, name, "is none of those that fit leaves")
    fitted = {name: getattr(estimator, name) for name in _FITTED if name in vars(estimator)}
    is_object = isinstance(estimator.device, Device)
    if is_object:  # which is looked up where the file is read
        parameters["device"] = estimator.device.spec
    for name, value in (parameters | fitted).items():
        if reason := _not_kept(value):
            raise _refusal(estimator, name, reason)
    net = _network(estimator)
    if reason := _not_read(net):
        raise _refusal(estimator, "network_", reason)
    about = {
        "class": type(estimator).__name__,
        "parameters": parameters,
        "device_is_object": is_object,
        "fitted": fitted,
        "requests": _requests(estimator),
        "labels": _labels(estimator) if is_classifier(estimator) else None,
    }
    training = _training(estimator, net) if include_optimizer else {}
    content = pack_parts({"net": net, "estimator": about, **training})
    load_parts(type(estimator), unpack_parts(b"".join(content), "what would be written"), "cpu")
    replace(path, content)


def _requests(estimator: Any) -> dict[str, dict[str, Any]]:
    """Return what ``set_fit_request`` and its like were told, by methods."""
    if "_metadata_request" not in vars(estimator):
        return {}
    routing = estimator.get_metadata_routing()
    return {method: dict(getattr(routing, method).requests) for method in _ASKING}


def _network(estimator: Any) -> Any:
    """Return the network with the weights in ``coefs_``, after a check that they belong together."""
    net = getattr(estimator, "network_", None)
    if not isinstance(net, nn.Module):
        raise _refusal(estimator, "network_", "is no network")
    layers = len(dense_layers(net))
    for name in ("coefs_", "intercepts_"):
        if len(several(getattr(estimator, name, None))) != layers:
            raise _refusal(estimator, name, f"is not one array for each of {layers} dense layers of network_")
    if _facts(getattr(estimator, "n_layers_", None)) != _facts(layers + 1):
        raise _refusal(estimator, "n_layers_", f"would come back as {layers + 1}")
    try:
        return estimator._network()
    except (TypeError, ValueError) as error:
        raise _refusal(estimator, "coefs_", f"and intercepts_ are no weights: {error}") from error


def _training(estimator: Any, net: Any) -> dict[str, Any]:
    """Return what `partial_fit` goes on with."""
    if not hasattr(estimator, "_optimizer_state"):
        return {}
    parts = {"improvement": estimator._no_improvement_count}
    if estimator._best is not None:
        parts["best"] = estimator._best
    if estimator._optimizer_state is not None:
        kind, state = estimator._optimizer_state
        name = "optimizer" if estimator.schedule is None else "schedule"
        try:
            optimizer, first = _first_state(estimator, net)
        except (TypeError, ValueError) as error:
            raise _refusal(estimator, name, f"gives no optimizer: {error}") from error
        if kind == kind_of(optimizer):  # else `partial_fit` begins anew
            if tree.paths(state) != tree.paths(first):
                raise _refusal(estimator, name, "is another than that whose state there is")
            parts["optimizer"] = state
    return parts


def _first_state(estimator: Any, net: Any) -> tuple[Any, Any]:
    """Return the optimizer that an estimator asks for, and its state before the first step."""
    optimizer = optimizer_of(estimator)
    return optimizer, optimizer.init(Penalized(net, 0.0, None))


def _not_kept(value: Any) -> str:
    """Return why a value would not come back from a file as it is; nothing if it would."""
    again = None

    def write_and_read() -> None:
        nonlocal again
        content = b"".join(pack_parts({"net": None, "estimator": value}))
        again = unpack_parts(content, "the file").load("estimator", device="cpu")

    reason = _reason(write_and_read)
    if not reason and _facts(again) != _facts(value):
        return f"would come back as another {type(again).__name__} than it is, a {type(value).__name__}"
    return reason


def _not_read(net: Any) -> str:
    """Return why a network would not come back from a file; nothing if it would."""
    arrays: dict[str, Any] = {}
    return _reason(lambda: build(describe(net, "", arrays), arrays.__getitem__))


def _reason(write_and_read: Callable[[], Any]) -> str:
    try:
        write_and_read()
    except CodeNeededError as error:
        return f"holds the {error.what}, and no code is read from files"
    except (TypeError, ValueError) as error:
        return f"cannot be written: {error}"
    return ""


def _facts(value: Any) -> Any:
    """Describe what a file keeps so that the same is equal, by value and type."""
    return data(value, _facts_of_object)


def _facts_of_object(value: Any) -> Any:
    kind = type(value)
    if kind is numpy.ndarray and value.dtype == object:
        return kind, value.shape, _facts(value.ravel().tolist())
    if isinstance(value, numpy.ndarray | numpy.generic):
        return data_of_array(value)
    if isinstance(value, nn.Module):  # whose arrays are where the network is
        attributes = vars(xpnet.to_device(value, "cpu"))
        return kind, _facts({name: x for name, x in attributes.items() if name != "_children"})
    if kind is OrderedDict:
        return kind, _facts([*value.items()])
    if kind is numpy.random.RandomState:
        return kind, _facts(value.get_state(legacy=False))
    if isinstance(value, tuple):  # with names
        return kind, _facts(tuple(value))
    return Identity(value)


def _refusal(estimator: Any, name: str, reason: str) -> TypeError:
    value = reprlib.repr(getattr(estimator, name, None))
    return TypeError(
        f"what {type(estimator).__name__}.save writes must come back equal, and {name}, {value}, "
        f"{reason.removesuffix('.')}. Set it to something else, or use pickle, for yourself alone."
    )


def load(cls: type, path: str | os.PathLike[str], device: str | Device | None) -> Any:
    """Read an estimator from a file. See `MLP.load`."""
    where = None if device is None else xpnet.device(device)  # what is wrong with it is no damage of the file
    return load_parts(cls, read_parts(path), where)


def load_parts(cls: type, parts: Parts, device: str | Device | None) -> Any:
    """Make an estimator of what is in a file."""
    about = parts.load("estimator", device="cpu") if "estimator" in parts else {}
    kind = about.get("class") if isinstance(about, dict) else None
    if kind != cls.__name__:
        writer = kind if isinstance(kind, str) else "xpnet.save"
        raise ValueError(
            f"{parts.path} must be a file that {cls.__name__}.save wrote, received one of {writer}. Read it "
            "with that class, or with xpnet.load."
        )
    try:
        return _load(cls, parts, about, device)
    except OF_WRONG_VALUES as error:
        raise ValueError(
            f"{parts.path} is damaged, and cannot be read as a {cls.__name__}: {error}"
        ) from error


def _load(cls: Any, parts: Parts, about: dict[str, Any], device: str | Device | None) -> Any:
    parameters, fitted = about["parameters"], about["fitted"]
    _check("a parameter", parameters, cls._get_param_names())
    _check("an attribute", fitted, _FITTED)
    _check("a method that takes metadata", about["requests"], _ASKING)
    for name, value in fitted.items():
        if not _FITTED[name](value):
            raise ValueError(f"{name} is {reprlib.repr(value)}.")
    if device is not None:
        parameters["device"] = xpnet.device(device).spec
    elif about["device_is_object"] is True:
        parameters["device"] = xpnet.device(parameters["device"])
    estimator = cls(**parameters)
    estimator._validate_params()
    vars(estimator).update(fitted)
    if about["requests"]:
        routing = estimator.get_metadata_routing()
        for method, requests in about["requests"].items():
            for name, alias in requests.items():
                getattr(routing, method).add_request(param=name, alias=alias)
        estimator._metadata_request = routing
    if is_classifier(estimator):
        estimator._label_binarizer = _label_binarizer(estimator, *about["labels"])
    net = parts.load("net", device=device)
    if not _has_own_layers(estimator) and not _is_stack(estimator, net):
        raise ValueError(
            f"network_ is not the dense layers that fit makes for {estimator.n_features_in_} features "
            f"(n_features_in_) and {estimator.n_outputs_} outputs (n_outputs_)."
        )
    estimator._publish(net)
    if "improvement" in parts:
        _load_training(estimator, parts, device)
    return estimator


def _check(what: str, values: Any, names: Any) -> None:
    for name in values:
        if name not in names:
            raise ValueError(f"{reprlib.repr(name)} is not the name of {what}.")


def _labels(estimator: Any) -> tuple[str, bool]:
    """Return of what kind the labels are, and whether they came sparse."""
    return estimator._label_binarizer.y_type_, bool(estimator._label_binarizer.sparse_input_)


def _label_binarizer(estimator: Any, labels: str, are_sparse: bool) -> LabelBinarizer:
    """Make again what `fit` made of the classes."""
    classes = estimator.classes_
    number, link = len(classes), "softmax" if labels == "multiclass" else "logistic"
    of_several = numpy.zeros((1, number), dtype=int)  # of which an example may have any
    made = LabelBinarizer().fit(of_several if labels == "multilabel-indicator" else classes)
    outputs = (1 if labels == "binary" else number), link
    same = numpy.array_equal(made.classes_, classes) and made.y_type_ == labels
    if not same or outputs != (estimator.n_outputs_, estimator.out_activation_):
        raise ValueError(
            f"classes_, {reprlib.repr(classes)}, are not those of {labels} labels with n_outputs_="
            f"{estimator.n_outputs_} and out_activation_={estimator.out_activation_}."
        )
    made.sparse_input_ = are_sparse is True
    return made


def _has_own_layers(estimator: Any) -> bool:
    """Say whether the network is of the user's, or layers or functions in it are."""
    return estimator.module is not None or not all(isinstance(x, str) for x in several(estimator.activation))


def _is_stack(estimator: Any, net: Any) -> bool:
    """Say whether a network is of dense layers as `fit` makes them, from the features to the outputs.

    Such a network is run for no examples, in which it computes next to nothing. Others are never run here, as
    a few layers of a stranger's can ask for any time and memory.
    """
    try:
        return _width_behind(net, estimator.n_features_in_) == estimator.n_outputs_ and _runs(net)
    except OF_WRONG_VALUES:
        return False


def _width_behind(net: Any, width: int) -> int | None:
    """Return the number of outputs of dense layers and what may stand between, for so many features."""
    if type(net) is not nn.Sequential:
        return None
    for layer in net.layers:
        if type(layer) is nn.Dense:
            inputs, outputs = layer.weight.shape
            if inputs != width or (layer.bias is not None and layer.bias.shape != (outputs,)):
                return None
            width = outputs
        elif type(layer) is nn.BatchNorm:
            arrays = (layer.weight, layer.bias, layer.running_mean, layer.running_variance)
            if any(x.shape != (width,) for x in arrays):
                return None
        elif type(layer) not in _BETWEEN:
            return None
    return width


def _runs(net: Any) -> bool:
    net = xpnet.to_device(net, "cpu")  # as each library has errors of its own
    first = dense_layers(net)[0].weight
    return tree.is_array(net(numpy.zeros((0, first.shape[0]), dtype=first.dtype)))


def _load_training(estimator: Any, parts: Parts, device: str | Device | None) -> None:
    """Let `partial_fit` go on where it was."""
    net, count = estimator.network_, parts.load("improvement")
    if not _is_count(count):
        raise ValueError(f"{reprlib.repr(count)} is no number of epochs without improvement.")
    estimator._no_improvement_count = count
    estimator._best = estimator._optimizer_state = None
    if "best" in parts:
        estimator._best = parts.load("best", device=device, into=tree.copied(net))
    if "optimizer" in parts:
        # Whether it is one for these weights, the optimizer finds in its next step. A first state of its own,
        # to compare with, could be of any size.
        state = parts.load("optimizer", device=device)
        check_state(state, "step", "transforms")
        estimator._optimizer_state = kind_of(optimizer_of(estimator)), state
