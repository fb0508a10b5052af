"""Losses: how far a network's output is from what it should be.

Each loss takes the network's output first and the targets second, and returns the mean over the batch unless
told otherwise. A loss never waits for a device, so a label that is out of range raises no error there. It
turns the loss and its gradient into NaN. `check_labels` looks at the labels once, before training.

With ``sample_weight``, what has the weight 0 counts for nothing: it may be anything, NaN too.
"""

from xpnet.losses.checks import check_labels, check_probabilities, check_weights
from xpnet.losses.classes import binary_cross_entropy, cross_entropy
from xpnet.losses.noting import noted_calls as noted_calls
from xpnet.losses.noting import noted_denominators as noted_denominators
from xpnet.losses.numbers import huber, mae, mse

__all__ = [
    "binary_cross_entropy",
    "check_labels",
    "check_probabilities",
    "check_weights",
    "cross_entropy",
    "huber",
    "mae",
    "mse",
]
