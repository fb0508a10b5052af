"""Metrics: what to watch besides the loss. `xpnet.training.metric` says how one adds up over batches."""

from xpnet.training.metric import Metric
from xpnet.training.metrics.classes import accuracy, binary_accuracy, top_k_accuracy
from xpnet.training.metrics.numbers import mean_absolute_error, r2, root_mean_squared_error

__all__ = [
    "Metric",
    "accuracy",
    "binary_accuracy",
    "mean_absolute_error",
    "r2",
    "root_mean_squared_error",
    "top_k_accuracy",
]
