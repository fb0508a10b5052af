"""Optimizers and learning-rate schedules.

An optimizer is a pair of pure functions: ``init(params)`` returns a state, ``update(grads, state, params)``
returns new parameters and the next state. `chain` puts transforms of the gradients before an optimizer:

>>> from xpnet import optim
>>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(optim.cosine(1e-3, steps=10_000)))
"""

from xpnet.optim.adam import Adam, AdamW, scale_by_adam
from xpnet.optim.lion import Lion, scale_by_lion
from xpnet.optim.optimizer import Optimizer, chain
from xpnet.optim.rmsprop import RMSprop, scale_by_root_mean_square
from xpnet.optim.scaling import LossScaling
from xpnet.optim.schedules import Schedule, constant, cosine, one_cycle, step_decay, warmup_cosine
from xpnet.optim.sgd import SGD, accumulate_momentum
from xpnet.optim.transforms import Transform, add_decayed_weights, clip_by_global_norm

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
    "chain",
    "clip_by_global_norm",
    "constant",
    "cosine",
    "one_cycle",
    "scale_by_adam",
    "scale_by_lion",
    "scale_by_root_mean_square",
    "step_decay",
    "warmup_cosine",
]
