"""The network of an estimator: dense layers with scikit-learn's initial weights, or one of the user's."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy

from xpnet import nn, tree
from xpnet.autodiff import array_namespace
from xpnet.backends import Device, asarray, to_device, use_device
from xpnet.sklearn.objective import one_array
from xpnet.sklearn.parameters import is_several
from xpnet.training.networks import place_of

ACTIVATIONS: dict[str, Callable[[], nn.Module] | None] = {
    "identity": None,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def _logistic(z: Any) -> Any:
    """Return probabilities that are exact near 0, too, which those made of a tanh are not."""
    xp = array_namespace(z)
    return xp.exp(-xp.logaddexp(-z, xp.zeros_like(z)))


# What follows the last layer, by the name of the activation.
LINKS: dict[str, Any] = {
    "identity": lambda z: z,
    "exp": lambda z: array_namespace(z).exp(z),
    "logistic": _logistic,
    "softmax": nn.Softmax(),
}


def for_each_layer(name: str, value: Any, layers: int) -> list[Any]:
    """Return a setting for each hidden layer, of one for all or a list of them.

    Raises
    ------
    ValueError
        If a list has another length.
    """
    if not is_several(value):
        return [value] * layers
    if len(value) != layers:
        raise ValueError(
            f"{name} as a list must have one entry for each of the {layers} hidden layers, received "
            f"{len(value)}."
        )
    return list(value)


def initial_weights(
    widths: Sequence[int], activations: list[Any], random: "numpy.random.RandomState"
) -> tuple[list[numpy.ndarray], list[numpy.ndarray]]:
    """Draw weights and biases as scikit-learn does, so that one ``random_state`` gives the same.

    Uniform on ±sqrt(6 / (in + out)), for logistic units sqrt(2 / (in + out)).

    X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    """
    coefs, intercepts = [], []
    of_each = [*activations, activations[-1] if activations else None]  # the outputs are drawn like the last
    for (inputs, outputs), activation in zip(pairwise(widths), of_each, strict=True):
        bound = numpy.sqrt((2.0 if activation == "logistic" else 6.0) / (inputs + outputs))
        coefs.append(random.uniform(-bound, bound, (inputs, outputs)))
        intercepts.append(random.uniform(-bound, bound, outputs))
    return coefs, intercepts


def network_of(module: Any, features: int, outputs: int, where: Device) -> nn.Module:
    """Return a network of a user's: a copy of a module, or what a function of the numbers returns.

    Raises
    ------
    TypeError
        If the function returns no network.
    ValueError
        If a part of the network is in use, and the network in training.
    """
    if isinstance(module, nn.Module):
        net = to_device(copy.deepcopy(module), where)
    else:
        with use_device(where):
            net = module(features, outputs)
    if not isinstance(net, nn.Module):
        raise TypeError(
            "module must be a network, or a function of the numbers of features and outputs that returns "
            f"one; received a function that returns {type(net).__name__}."
        )
    parts = tree.named_branches(net)
    modules = [(path, part) for path, part in parts if isinstance(part, nn.Module) and not part.frozen]
    in_use = [path for path, part in modules if not part.training]
    if in_use and net.training:  # the fitted network is in use as a whole, and trained as a whole
        raise ValueError(
            f"module must be in training as a whole, received one whose {', '.join(in_use)} is in use. "
            "Leave eval() out, or train the network with xpnet.fit, which keeps to it."
        )
    return net


def dense_stack(
    coefs: list[Any],
    intercepts: list[Any],
    activation: Any,
    dropout: Any,
    batch_norm: bool,
    *,
    where: Device,
    dtype: str,
    seed: Callable[[], int],
) -> nn.Sequential:
    """Return dense layers with these weights, and what follows each hidden one.

    Parameters
    ----------
    coefs, intercepts : list of array
        Of shapes (in, out) and (out,), one for each layer.
    activation : str, layer, callable, or list of them
        One for all hidden layers, or a list with one for each.
    dropout : float or list of float
        The share that is dropped, likewise.
    batch_norm : bool
        Whether each hidden layer is normalized before its activation.
    where : Device
    dtype : str
    seed : callable
        Returns a seed for each layer of dropout.

    Raises
    ------
    ValueError
        If a list has another length, or there is no such activation.
    """
    hidden = len(coefs) - 1
    activations = for_each_layer("activation", activation, hidden)
    unknown = [each for each in activations if isinstance(each, str) and each not in ACTIVATIONS]
    if unknown or not all(isinstance(each, str) or callable(each) for each in activations):
        raise ValueError(
            f"each activation must be one of {', '.join(ACTIVATIONS)}, a layer or a function, received "
            f"{activations}."
        )
    shares = for_each_layer("dropout", dropout, hidden)
    layers: list[Any] = []
    with use_device(where):
        for index, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
            inputs, outputs = numpy.shape(coef)
            layer = nn.Dense(inputs, outputs, weight_init=nn.initializers.zeros, dtype=dtype)
            layer.weight = asarray(coef, device=where, dtype=dtype)
            layer.bias = asarray(intercept, device=where, dtype=dtype)
            layers.append(layer)
            if index == hidden:
                break
            layers += [nn.BatchNorm(outputs, dtype=dtype)] if batch_norm else []
            layers += _activation(activations[index])
            layers += [nn.Dropout(shares[index], seed=seed())] if shares[index] else []
    return nn.Sequential(*layers)


def _activation(activation: Any) -> list[Any]:
    if isinstance(activation, str):
        make = ACTIVATIONS[activation]
        return [] if make is None else [make()]
    return [copy.deepcopy(activation) if isinstance(activation, nn.Module) else activation]


def dense_layers(net: Any) -> list[nn.Dense]:
    """Return the dense layers of a network, in order."""
    return [branch for branch in tree.branches(net) if isinstance(branch, nn.Dense)]


class Exported(nn.Module):
    """The network of an estimator, and what follows it."""

    def __init__(self, network: nn.Module, predicted: Callable[[Any], tuple[Any, ...]]) -> None:
        self.network, self.predicted = network, predicted
        self.dtype = str(place_of(network)[1]).rpartition(".")[2]  # its name, which all libraries share

    def __call__(self, X: Any) -> tuple[Any, ...]:
        xp = array_namespace(X)
        X = xp.astype(X, getattr(xp, self.dtype), copy=False)
        return self.predicted(one_array(self.network(X)))
