"""Training: from data through `fit` to a trained network, its history and its predictions.

Modules import only from those to their right:

    fit ─ loop ─ arguments, callbacks, progress ─ agreement, diagnosis, predict, resume ─ steps ─ checks, metrics, run, totals ─ weights ─ data ─ batches, examples ─ lazy, metric, orders ─ destination, finite, history, interrupts, networks
"""  # noqa: E501

from xpnet.training import callbacks, metrics
from xpnet.training.fit import fit
from xpnet.training.history import History
from xpnet.training.interrupts import Interrupts
from xpnet.training.predict import predict
from xpnet.training.run import Run
from xpnet.training.steps import Steps

__all__ = ["History", "Interrupts", "Run", "Steps", "callbacks", "fit", "metrics", "predict"]
