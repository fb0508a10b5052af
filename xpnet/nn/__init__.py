"""Layers and networks. A layer is plain standard code, which runs on every array library."""

from xpnet.nn import initializers
from xpnet.nn.activations import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh
from xpnet.nn.attention import MultiHeadAttention, TransformerBlock
from xpnet.nn.containers import Concatenate, Flatten, Lambda, Residual, Sequential
from xpnet.nn.convolution import Conv1d, Conv2d, ConvTranspose2d
from xpnet.nn.dense import Dense
from xpnet.nn.dropout import Dropout
from xpnet.nn.embedding import Embedding
from xpnet.nn.freezing import freeze, unfreeze
from xpnet.nn.inspection import Intermediate
from xpnet.nn.masks import mask_of_lengths
from xpnet.nn.module import Module
from xpnet.nn.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from xpnet.nn.pooling import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from xpnet.nn.positions import RotaryPositions, SinusoidalPositions
from xpnet.nn.recurrent import GRU, LSTM
from xpnet.nn.text import ByteReader

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "AvgPool",
    "BatchNorm",
    "ByteReader",
    "Concatenate",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "Intermediate",
    "Lambda",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool",
    "Module",
    "MultiHeadAttention",
    "RMSNorm",
    "ReLU",
    "Residual",
    "RotaryPositions",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "Softmax",
    "Tanh",
    "TransformerBlock",
    "freeze",
    "initializers",
    "mask_of_lengths",
    "unfreeze",
]
