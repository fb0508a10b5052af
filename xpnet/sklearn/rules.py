"""scikit-learn's rules of training, as a callback: the curves, when to stop, and how the rate falls."""

import math
from typing import Any

from xpnet import tree
from xpnet.backends import to_numpy
from xpnet.training import Run
from xpnet.training.callbacks import Callback


class Rules(Callback):
    """Writes the curves of a training to an estimator's attributes, and decides when it ends.

    Parameters
    ----------
    estimator : MLP

    Attributes
    ----------
    run : Run
        The training.
    stopped : bool
        Whether it ended as nothing improved any more.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self.stopped = False

    def start(self, run: Run) -> None:
        self.run = run

    def epoch_end(self, run: Run) -> None:
        estimator, values = self._estimator, run.history.last()
        estimator._learned = True
        estimator.n_iter_ += 1
        estimator.t_ += estimator._samples
        estimator.loss_ = values["loss"]
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        if "validation_score" in values:
            estimator.validation_loss_curve_.append(values["validation_loss"])
            if estimator.early_stopping:
                self.add_score(values["validation_score"], run.net)
        if not estimator.early_stopping:
            self._compare_losses(run.net)
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling" and self._has_own_rate():
            rate = float(estimator.learning_rate_init) / (estimator.t_ + 1) ** float(estimator.power_t)
            self._change_rate(run, rate)
        if estimator._no_improvement_count > estimator.n_iter_no_change:
            self._end_or_slow_down(run)

    def add_score(self, score: float, net: Any) -> None:
        """Take the score of an epoch on the validation data into account."""
        estimator = self._estimator
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        self._count(score < estimator.best_validation_score_ + float(estimator.tol))
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            estimator._best = net.net

    def _compare_losses(self, net: Any) -> None:
        estimator = self._estimator
        self._count(estimator.loss_ > estimator.best_loss_ - float(estimator.tol))
        if estimator.loss_ < estimator.best_loss_:
            estimator.best_loss_ = estimator.loss_
            estimator._best = net.net

    def _count(self, stalled: bool) -> None:
        """Count the epochs in a row without an improvement."""
        self._estimator._no_improvement_count = self._estimator._no_improvement_count + 1 if stalled else 0

    def _has_own_rate(self) -> bool:
        return self._estimator.optimizer is None and self._estimator.schedule is None

    def _end_or_slow_down(self, run: Run) -> None:
        estimator = self._estimator
        what = "Validation score" if estimator.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} "
            "consecutive epochs."
        )
        slower = estimator.solver == "sgd" and estimator.learning_rate == "adaptive" and self._has_own_rate()
        rate = float(to_numpy(run.optimizer_state["learning_rate"])) if slower else 0.0
        if rate > 1e-6:
            self._change_rate(run, rate / 5)
            estimator._no_improvement_count = 0
            message += f" Setting learning rate to {rate / 5:f}"
        else:
            run.stop = self.stopped = True
            message += " Learning rate too small. Stopping." if slower else " Stopping."
        if estimator.verbose:
            print(message)

    def _change_rate(self, run: Run, rate: float) -> None:
        """Set the learning rate, and let the velocity keep its speed: scikit-learn's has the rate in it."""
        before = float(to_numpy(run.optimizer_state["learning_rate"]))
        run.set_learning_rate(rate)
        if before != rate and not math.isclose(before, rate, rel_tol=1e-15):
            velocities = tree.map(lambda v: v * (before / rate), run.optimizer_state["transforms"])
            run.optimizer_state = run.optimizer_state | {"transforms": velocities}
