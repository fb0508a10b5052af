"""The solvers "adam" and "sgd" as optimizers, and the order of the examples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from xpnet import optim
from xpnet.optim.transforms import Transform, add_decayed_weights


@dataclass(frozen=True)
class Decayed(optim.Optimizer):
    """An optimizer with weight decay that the gradients do not scale."""

    optimizer: optim.Optimizer
    weight_decay: float

    @property
    def learning_rate(self) -> Any:  # type: ignore[override]
        return self.optimizer.learning_rate

    @property
    def transforms(self) -> tuple[Transform, ...]:  # type: ignore[override]
        return (*self.optimizer.transforms, add_decayed_weights(self.weight_decay))


def optimizer_of(estimator: Any) -> optim.Optimizer:
    """Return the optimizer that an estimator's parameters ask for.

    Raises
    ------
    ValueError
        If there are an optimizer and a schedule.
    """
    found = estimator.optimizer
    if found is not None and estimator.schedule is not None:
        raise ValueError("optimizer and schedule do not go together: give the schedule to the optimizer.")
    rate = float(estimator.learning_rate_init) if estimator.schedule is None else estimator.schedule
    if found is None and estimator.solver == "adam":
        betas = {"beta1": estimator.beta_1, "beta2": estimator.beta_2}
        found = optim.Adam(rate, **betas, epsilon=estimator.epsilon, epsilon_hat=True)
    elif found is None:
        momentum = min(estimator.momentum, 1 - 2**-53)  # scikit-learn allows 1, which forgets nothing
        found = optim.SGD(rate, momentum=momentum, nesterov=estimator.nesterovs_momentum and momentum > 0)
    return Decayed(found, float(estimator.weight_decay)) if estimator.weight_decay else found


def order_of(random: "numpy.random.RandomState") -> Callable[[numpy.ndarray], numpy.ndarray]:
    """Return a function that shuffles rows as scikit-learn does: each order is made of the one before."""
    rows: Any = None

    def order(given: numpy.ndarray) -> numpy.ndarray:
        nonlocal rows
        drawn = numpy.arange(len(given))
        random.shuffle(drawn)
        rows = (given if rows is None else rows)[drawn]
        return rows

    return order
