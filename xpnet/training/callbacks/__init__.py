"""Callbacks: code that runs in between, around the training, its epochs and its steps."""

from xpnet.training.callbacks.averaging import ExponentialMovingAverage
from xpnet.training.callbacks.checkpoint import Checkpoint
from xpnet.training.callbacks.learning_rate import LearningRateSchedule, ReduceLROnPlateau
from xpnet.training.callbacks.logs import CSVLogger, TensorBoard
from xpnet.training.callbacks.stopping import EarlyStopping
from xpnet.training.run import Callback

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "LearningRateSchedule",
    "ReduceLROnPlateau",
    "TensorBoard",
]
