"""Optimizers and learning-rate schedules.

An optimizer is a pair of pure functions: ``init(params)`` returns a state, ``update(grads, state, params)``
returns new parameters and the next state. `chain` puts transforms of the gradients before an optimizer, and
`groups` gives some parameters other settings, or an optimizer of their own:

>>> from xpnet import optim
>>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(optim.cosine(1e-3, steps=10_000)))
>>> optimizer = optim.groups((optim.biases_and_norms, {"weight_decay": 0.0}), optim.AdamW(weight_decay=0.1))
"""

from xpnet.optim.adam import Adam, AdamW, scale_by_adam
from xpnet.optim.grouping import biases_and_norms, groups
from xpnet.optim.lion import Lion, scale_by_lion
from xpnet.optim.optimizer import Optimizer, chain
from xpnet.optim.rmsprop import RMSprop, scale_by_root_mean_square
from xpnet.optim.scaling import LossScaling
from xpnet.optim.schedules import Schedule, constant, cosine, one_cycle, step_decay, warmup_cosine
from xpnet.optim.sgd import SGD, accumulate_momentum
from xpnet.optim.transforms import Transform, add_decayed_weights, clip_by_global_norm, total

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Lion",
    "LossScaling",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "Transform",
    "accumulate_momentum",
    "add_decayed_weights",
    "biases_and_norms",
    "chain",
    "clip_by_global_norm",
    "constant",
    "cosine",
    "groups",
    "one_cycle",
    "scale_by_adam",
    "scale_by_lion",
    "scale_by_root_mean_square",
    "step_decay",
    "total",
    "warmup_cosine",
]
