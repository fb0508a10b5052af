"""The network of an estimator: a stack of dense layers, with scikit-learn's initial weights."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy

from xpnet import nn, tree
from xpnet.autodiff import array_namespace
from xpnet.backends import Device, asarray, use_device
from xpnet.sklearn.parameters import is_several

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


def for_each_layer(name: str, value: Any, layers: int) -> list:
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
    widths: Sequence[int], activations: list, random: "numpy.random.RandomState"
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


def dense_stack(
    coefs: list,
    intercepts: list,
    between: list[tuple[Any, float]],
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
    between : list of (activation, dropout)
        One for each hidden layer: a name, a layer or a function; and the share that is dropped.
    batch_norm : bool
        Whether each hidden layer is normalized before its activation.
    where : Device
    dtype : str
    seed : callable
        Returns a seed for each layer of dropout.
    """
    layers: list[Any] = []
    with use_device(where):
        for index, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
            inputs, outputs = numpy.shape(coef)
            layer = nn.Dense(inputs, outputs, weight_init=nn.initializers.zeros, dtype=dtype)
            layer.weight = asarray(coef, device=where, dtype=dtype)
            layer.bias = asarray(intercept, device=where, dtype=dtype)
            layers.append(layer)
            if index == len(between):
                break
            activation, dropout = between[index]
            layers += [nn.BatchNorm(outputs, dtype=dtype)] if batch_norm else []
            layers += _activation(activation)
            layers += [nn.Dropout(dropout, seed=seed())] if dropout else []
    return nn.Sequential(*layers)


def _activation(activation: Any) -> list:
    if isinstance(activation, str):
        make = ACTIVATIONS[activation]
        return [] if make is None else [make()]
    return [copy.deepcopy(activation) if isinstance(activation, nn.Module) else activation]


def dense_layers(net: Any) -> list[nn.Dense]:
    """Return the dense layers of a network, in order."""
    return [branch for branch in tree.branches(net) if isinstance(branch, nn.Dense)]
