"""Callbacks: code that runs in between, around the training, its epochs and its steps."""

from xpnet.training.callbacks.checkpoint import Checkpoint
from xpnet.training.callbacks.learning_rate import LearningRateSchedule
from xpnet.training.callbacks.stopping import EarlyStopping
from xpnet.training.run import Callback

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LearningRateSchedule",
]
