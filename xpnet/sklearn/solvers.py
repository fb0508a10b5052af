"""The solvers: the training of an estimator by `xpnet.fit`, or by L-BFGS."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy
from sklearn.exceptions import ConvergenceWarning

import xpnet
from xpnet import optim, tree
from xpnet.optim.grouping import Groups
from xpnet.optim.optimizer import Chain
from xpnet.optim.transforms import Transform, add_decayed_weights
from xpnet.sklearn.data import Samples, moved
from xpnet.sklearn.lbfgs import minimize
from xpnet.sklearn.objective import Penalized, shared_steps
from xpnet.sklearn.rules import Rules
from xpnet.training import Steps
from xpnet.training.arguments import check_optimizer
from xpnet.training.networks import place_of

DIVERGED = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)

# Warnings point to where `fit` was called, so many frames above a solver: two are of decorators.
CALLER = 6


@dataclass(frozen=True)
class Decayed(optim.Optimizer):
    """An optimizer with weight decay that the gradients do not scale."""

    optimizer: optim.Optimizer
    weight_decay: float

    @property
    def learning_rate(self) -> Any:  # type: ignore[override]
        return self.optimizer.learning_rate

    @property
    def transforms(self) -> tuple[Transform, ...]:
        return (*self.optimizer.transforms, add_decayed_weights(self.weight_decay))


def optimizer_of(estimator: Any) -> optim.Optimizer:
    """Return the optimizer that an estimator's parameters ask for.

    Raises
    ------
    TypeError
        If the optimizer is none, such as a class.
    ValueError
        If there are an optimizer and a schedule, the schedule is a layer, or the optimizer cannot have the
        decay.
    """
    found: optim.Optimizer | None = estimator.optimizer
    if found is not None:
        check_optimizer(found)
        found = _inside(found)
    if found is not None and estimator.schedule is not None:
        raise ValueError("optimizer and schedule do not go together: give the schedule to the optimizer.")
    if isinstance(estimator.schedule, tree.Branch):
        raise ValueError(
            "schedule must be a function from the number of steps made to the learning rate, received a "
            f"{type(estimator.schedule).__name__}. See xpnet.optim.cosine."
        )
    rate = float(estimator.learning_rate_init) if estimator.schedule is None else estimator.schedule
    if found is None and estimator.solver == "adam":
        betas = {"beta1": float(estimator.beta_1), "beta2": float(estimator.beta_2)}
        found = optim.Adam(rate, **betas, epsilon=float(estimator.epsilon), epsilon_hat=True)
    elif found is None:
        momentum = min(float(estimator.momentum), 1 - 2**-53)  # scikit-learn allows 1, which forgets nothing
        nesterov = bool(estimator.nesterovs_momentum) and momentum > 0
        found = optim.SGD(rate, momentum=momentum, nesterov=nesterov)
    if not estimator.weight_decay:
        return found
    if not isinstance(found, optim.Optimizer):
        raise ValueError(
            f"weight_decay needs an optimizer of transforms, received {type(found).__name__}. Give the decay "
            "to the optimizer itself, as AdamW has it."
        )
    return _decayed(found, float(estimator.weight_decay))


def _decayed(optimizer: optim.Optimizer, weight_decay: float) -> optim.Optimizer:
    """Add the decay behind the transforms of an optimizer, of those of all groups."""
    if isinstance(optimizer, Chain):
        return replace(optimizer, optimizer=_decayed(optimizer.optimizer, weight_decay))
    if not isinstance(optimizer, Groups):
        return Decayed(optimizer, weight_decay)
    groups = tuple((where, _decayed(each, weight_decay)) for where, each in optimizer.groups)
    return replace(optimizer, groups=groups, rest=optimizer.rest and _decayed(optimizer.rest, weight_decay))


def _inside(optimizer: Any) -> Any:
    """Let groups choose by the paths in an estimator's network, which is a part of what is trained."""
    if isinstance(optimizer, Groups):
        return replace(optimizer, root="net")
    if isinstance(optimizer, Chain | optim.LossScaling):
        return replace(optimizer, optimizer=_inside(optimizer.optimizer))
    return optimizer


def kind_of(optimizer: Any) -> tuple[Any, ...]:
    """Return what must be the same for an optimizer to go on with the state of another."""
    last = getattr(optimizer, "last", None)
    groups = map(kind_of, last.optimizers) if isinstance(last, Groups) else ()
    return type(optimizer).__name__, len(getattr(optimizer, "transforms", ())), *groups


def order_of(random: "numpy.random.RandomState") -> Callable[[numpy.ndarray], numpy.ndarray]:
    """Return a function that shuffles rows as scikit-learn does: each order is made of the one before."""
    rows: Any = None

    def order(given: numpy.ndarray) -> numpy.ndarray:
        nonlocal rows
        drawn = numpy.arange(len(given))
        random.shuffle(drawn)
        found: numpy.ndarray = (given if rows is None else rows)[drawn]
        rows = found
        return found

    return order


def fit_stochastic(
    estimator: Any, net: Penalized, data: Samples, held_out: Samples | None, incremental: bool
) -> None:
    """Train the network of an estimator batch by batch, with its optimizer and scikit-learn's rules."""
    if incremental and estimator.early_stopping and estimator.stopped_:
        return
    where, _ = place_of(net)
    estimator._samples = len(data.y)
    estimator.n_iter_ = 0
    rules, optimizer = Rules(estimator), optimizer_of(estimator)
    kind = kind_of(optimizer)
    goes_on = incremental and estimator._optimizer_state is not None and estimator._optimizer_state[0] == kind
    try:
        history = xpnet.fit(
            net,
            moved(data.X, where),
            data.targets,
            loss=_steps(estimator, net, incremental),
            optimizer=optimizer,
            optimizer_state=estimator._optimizer_state[1] if goes_on else None,
            epochs=1 if incremental else int(estimator.max_iter),
            batch_size=_batch_size(estimator),
            validation=None if held_out is None else (moved(held_out.X, where), held_out.targets),
            metrics=[] if held_out is None else [estimator._metric(held_out)],
            callbacks=[rules, *estimator.callbacks],
            shuffle=order_of(estimator._random_state) if estimator.shuffle else False,
            progress=bool(estimator.progress),
            group=estimator.group,
        )
    except FloatingPointError as error:
        _keep_best(estimator, net, rules, error)
    else:
        estimator._optimizer_state = kind, rules.run.optimizer_state
        if history.interrupted:
            warnings.warn("Training interrupted by user.", stacklevel=CALLER)
        elif estimator.n_iter_ == estimator.max_iter and not (incremental or rules.stopped):
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=CALLER,
            )
    estimator.stopped_ = rules.stopped
    if estimator.early_stopping and estimator._best is not None and (rules.stopped or not incremental):
        tree.assign(estimator._best, net.net)


def _steps(estimator: Any, net: Penalized, incremental: bool) -> Steps:
    """Return steps whose recordings all trainings of such networks share.

    But a user's code, which may read what changes, is read anew by each fit.
    """
    if not incremental or not hasattr(estimator, "_own_recording"):
        estimator._own_recording = object() if _has_own_code(estimator) else None
    where, dtype = place_of(net)
    shapes = tuple(tuple(leaf.shape) for leaf in tree.leaves(net))
    return shared_steps(estimator._objective(), (shapes, str(dtype), where.spec, estimator._own_recording))


def _has_own_code(estimator: Any) -> bool:
    """Say whether functions, layers or optimizers of the user's take part in the training."""
    given = estimator.activation
    activations = given if isinstance(given, list | tuple) else [given]
    by_name = all(isinstance(each, str) for each in (estimator.loss, *activations))
    return not by_name or any(
        x is not None for x in (estimator.module, estimator.optimizer, estimator.schedule)
    )


def _keep_best(estimator: Any, net: Penalized, rules: Rules, error: FloatingPointError) -> None:
    """Go back to the best weights after a training whose loss or weights became infinite or NaN."""
    estimator._optimizer_state = None
    kept = "The weights from before are kept."
    if estimator._learned and estimator._best is not None:
        tree.assign(estimator._best, net.net)
        kept = "The weights of the best epoch are kept."
    rate = f"learning_rate_init from {estimator.learning_rate_init}"
    for own in ("optimizer", "schedule"):
        rate = rate if getattr(estimator, own) is None else f"the learning rate of the {own}"
    what = (
        f"{DIVERGED} Loss or weights were no longer finite in epoch {rules.run.epoch + 1}: lower {rate}, or "
        f"scale X. {kept}"
    )
    if not estimator.early_stopping:
        raise ValueError(what) from error
    estimator.n_iter_ += 1
    estimator.loss_curve_.append(math.nan)
    rules.add_score(math.nan, None)
    warnings.warn(what, ConvergenceWarning, stacklevel=CALLER + 1)


def fit_lbfgs(estimator: Any, net: Penalized, data: Samples) -> None:
    """Train the network of an estimator on all examples at once."""
    if len(tree.leaves(net.net, state=True)) > len(tree.leaves(net.net, frozen=True)):
        raise ValueError(
            'solver="lbfgs" needs a loss that is the same each time it is computed. Dropout, batch '
            'normalization and their like, which have state, need solver="adam" or "sgd".'
        )
    result = minimize(
        net,
        data.X,
        data.targets,
        estimator._objective(),
        maxfun=int(estimator.max_fun),
        maxiter=int(estimator.max_iter),
        gtol=float(estimator.tol),
    )
    estimator._learned = True
    estimator.loss_ = float(result.fun)
    estimator.n_iter_ = min(int(result.nit), int(estimator.max_iter))
    if estimator.verbose:
        print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
    if result.status != 0:
        warnings.warn(
            f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}): "
            f"{result.message}. Increase max_iter or max_fun, or scale the data.",
            ConvergenceWarning,
            stacklevel=CALLER,
        )


def _batch_size(estimator: Any) -> int:
    wanted = 200 if estimator.batch_size == "auto" else int(estimator.batch_size)
    if estimator.batch_size != "auto" and wanted > estimator._samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=CALLER + 1,
        )
    size = int(min(wanted, estimator._samples))
    if estimator.group is not None:  # of fewer samples all processes have all
        size = max(size, estimator.group.size)
    # The last batch of an epoch has a variance only if it has two examples.
    while estimator.batch_norm and size < estimator._samples and estimator._samples % size == 1:
        size += 1
    return size
