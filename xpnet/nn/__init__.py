"""Layers and networks. A layer is plain standard code, which runs on every array library."""

from xpnet.nn import initializers
from xpnet.nn.activations import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh
from xpnet.nn.containers import Flatten, Lambda, Sequential
from xpnet.nn.dense import Dense
from xpnet.nn.dropout import Dropout
from xpnet.nn.module import Module
from xpnet.nn.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm

__all__ = [
    "ELU",
    "GELU",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Flatten",
    "GroupNorm",
    "Lambda",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Module",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "initializers",
]
