"""The network of an estimator: a stack of dense layers, with scikit-learn's initial weights."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy

from xpnet import nn, tree
from xpnet.backends import Device, asarray, use_device

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


def for_each_layer(name: str, value: Any, layers: int) -> list:
    """Return a setting for each hidden layer, of one for all or a list of them.

    Raises
    ------
    ValueError
        If a list has another length.
    """
    if not isinstance(value, list | tuple):
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
    coefs: list, intercepts: list, activations: list, dropout: list, where: Device, dtype: str, seed: Any
) -> nn.Sequential:
    """Return dense layers with these weights, and behind each hidden one its activation and dropout.

    Parameters
    ----------
    coefs, intercepts : list of array
        Of shapes (in, out) and (out,), one for each layer.
    activations : list of str, Module or callable
        One for each hidden layer.
    dropout : list of float
        One for each hidden layer.
    where : Device
    dtype : str
    seed : callable
        Returns a seed for each layer of dropout.
    """
    layers: list[Any] = []
    with use_device(where):
        for index, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
            coef = numpy.asarray(coef)
            layer = nn.Dense(*coef.shape, weight_init=nn.initializers.zeros, dtype=dtype)
            layer.weight = asarray(coef, device=where, dtype=dtype)
            layer.bias = asarray(intercept, device=where, dtype=dtype)
            layers.append(layer)
            if index < len(activations):
                layers += _after(activations[index], dropout[index], seed)
    return nn.Sequential(*layers)


def _after(activation: Any, dropout: float, seed: Any) -> list:
    if isinstance(activation, str):
        make = ACTIVATIONS[activation]
        layers = [] if make is None else [make()]
    else:
        layers = [copy.deepcopy(activation) if isinstance(activation, nn.Module) else activation]
    return [*layers, nn.Dropout(dropout, seed=seed())] if dropout else layers


def dense_layers(net: Any) -> list[nn.Dense]:
    """Return the dense layers of a network, in order."""
    return [branch for branch in tree.branches(net) if isinstance(branch, nn.Dense)]
