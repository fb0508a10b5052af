"""Layers and networks. A layer is plain standard code, which runs on every array library."""

from xpnet.nn import initializers
from xpnet.nn.activations import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh
from xpnet.nn.containers import Flatten, Lambda, Sequential
from xpnet.nn.dense import Dense
from xpnet.nn.dropout import Dropout
from xpnet.nn.module import Module

__all__ = [
    "ELU",
    "GELU",
    "Dense",
    "Dropout",
    "Flatten",
    "Lambda",
    "LeakyReLU",
    "LogSoftmax",
    "Module",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "initializers",
]
