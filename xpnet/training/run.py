"""A training under way, and the callbacks that see it."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from xpnet import tree
from xpnet.distributed import Group
from xpnet.distributed.shard import Sharded
from xpnet.optim import LossScaling, Optimizer
from xpnet.optim.rates import as_rate, rates_of, with_rates
from xpnet.settings import described
from xpnet.training.finite import became_bad
from xpnet.training.history import History

# What `Run.go_back` restores.
_RESTORED = ("net", "optimizer_state", "step", "batch")


class NotFiniteError(FloatingPointError):
    """A loss or a weight is infinite or NaN. `fit` looks for where it came from."""


@dataclass
class Run:
    """A training under way: what callbacks see and may change.

    Attributes
    ----------
    net : Module
        The network as it is now. Assigning another tree of the same structure changes the weights; the tree
        itself is not to be changed.
    optimizer : optimizer
        It may be replaced by one with the same state.
    optimizer_state : tree
        The state of the optimizer. A number that is assigned in it as a learning rate becomes an array. With
        ``shard=True``, what this process has of it: see `distributed.Group.shard`.
    epochs : int
        How many epochs were asked for.
    names : tuple of str
        The names that the history will have.
    epoch : int
        The current epoch, counted from 1.
    step : int
        How many steps were done.
    batch : int
        How many of them in the current epoch; 0 at its end.
    callbacks : list of Callback
    history : History
        The values of the epochs so far.
    stop : bool
        Set it to end the training after this epoch.
    data : dict
        How many ``"examples"`` there are, the ``"batch_size"``, and the ``"block_size"`` where blocks are
        shuffled; of batches from outside, how many ``"batches"`` an epoch has, if they say so. What else
        `fit` was given: ``"accumulate"``, and 1 for ``"drop_last"``, ``"sample_weight"``, ``"class_weight"``.
    source : object
        Where the batches come from. Its ``state()`` is what a checkpoint keeps of it.
    random : dict
        The states of the random numbers before the training, ``"start"``, and before the order of the epoch
        was drawn, ``"epoch"``.
    totals : Totals
        The losses and metrics of the epoch so far, by its ``results()``, which waits for the device, and for
        all processes of a group: read it on each of them.
    group : Group
        The processes that train together; one alone if there are no others.
    sharded : Sharded or None
        With ``shard=True``, the optimizer in pieces: its ``whole(run.optimizer_state, run.net)``, called on
        all processes, puts the state together on rank 0.
    whole : bool
        Whether network and state are those after a whole step. Inside a step, which writes over them, some
        weights may be a step ahead of others.

    Examples
    --------
    >>> import xpnet
    >>> class StopWhenGood(xpnet.callbacks.Callback):
    ...     def epoch_end(self, run):
    ...         run.stop = run.history["loss"][-1] < 0.01
    """

    net: Any
    optimizer: Any
    optimizer_state: Any
    epochs: int
    names: tuple[str, ...]
    epoch: int = 0
    step: int = 0
    batch: int = 0
    callbacks: list["Callback"] = field(default_factory=list)
    history: History = field(default_factory=History)
    stop: bool = False
    data: dict[str, int] = field(default_factory=dict)
    source: Any = None
    random: dict[str, Any] = field(default_factory=dict)
    totals: Any = None
    group: Group = field(default_factory=Group)
    sharded: Sharded | None = None
    whole: bool = True
    _before: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _sums: Any = field(default=None, init=False, repr=False)

    @property
    def learning_rates(self) -> tuple[Any, ...]:
        """The learning rate of the last step as an array of shape (), for each group of parameters.

        An optimizer of one's own that keeps none under ``state["learning_rate"]`` has none here.
        """
        rates = rates_of(self.optimizer_state)
        return rates if all(map(tree.is_array, rates)) else ()

    def set_learning_rate(self, rate: Any) -> None:
        """Set the learning rate of the steps to come, for an optimizer without a schedule of its own.

        Parameters
        ----------
        rate : float, array or sequence
            One rate for all parameters, or one for each group, as `learning_rates` has them.

        Raises
        ------
        ValueError
            If it is no number of at least 0, or not one for each group, or the optimizer has a schedule, or
            keeps no learning rate in its state; an array on a device is not looked at.
        """
        self.check_learning_rate()
        before = self.learning_rates
        is_one = not isinstance(rate, list | tuple) and getattr(rate, "shape", ()) == ()
        rates = [rate] * len(before) if is_one else list(rate)
        if len(rates) != len(before):
            raise ValueError(
                f"there must be one learning rate, or one for each of {len(before)} groups of parameters, "
                f"received {len(rates)}."
            )
        self.optimizer_state = with_rates(self.optimizer_state, list(map(as_rate, rates, before)))

    def check_learning_rate(self) -> None:
        """Check that the learning rate can be set: the optimizer keeps one, and has no schedule for it."""
        own = getattr(self.optimizer, "learning_rate", None)
        if any(map(callable, own if isinstance(own, tuple) else [own])):
            raise ValueError(
                "setting the learning rate needs an optimizer whose learning rate is a number, received one "
                f"with a schedule, {self.optimizer}. Use one of the two."
            )
        if not self.learning_rates:
            raise ValueError(
                "the optimizer must keep a learning rate in its state to have it set, an array under "
                f'state["learning_rate"] that update reads, received {described(self.optimizer_state)} of '
                f"{described(self.optimizer)}. Use an optimizer of xpnet.optim, or keep it there."
            )

    @property
    def optimizer_in_steps(self) -> Any:
        """The optimizer as steps take it: in pieces, if it is sharded."""
        if self.sharded is None:
            return self.optimizer
        if isinstance(self.optimizer, Sharded):  # a callback replaced it
            self.optimizer = self.optimizer.optimizer
        if self.sharded.optimizer is not self.optimizer:
            self.sharded = replace(self.sharded, optimizer=self.optimizer)
        return self.sharded

    def pieces_of_state(self) -> dict[str, tuple[tuple[int, ...], slice]]:
        """Return which arrays of the optimizer's state are pieces, see `Sharded.pieces_of_state`."""
        return {} if self.sharded is None else self.sharded.pieces_of_state(self.net)

    def check_finite(self) -> None:
        """End the training with an error if the loss so far or a weight is infinite or NaN.

        This waits for the device, unless nothing changed since the last epoch. `fit` does it after each
        epoch, before callbacks see the weights and behind them. A callback that keeps weights from inside an
        epoch calls it first.

        Raises
        ------
        FloatingPointError
            `fit` goes back to the weights from before the epoch, and adds to the error where the value came
            from.
        """
        if self.batch and not math.isfinite(loss := self.totals.loss()):
            raise NotFiniteError(f"the loss must stay finite, but is {loss} in epoch {self.epoch}")
        before = self._before["net"]
        if self.net is not before and became_bad(self.net, before):
            raise NotFiniteError(f"the weights must stay finite, but are not in epoch {self.epoch}")

    def is_finite(self) -> bool:
        """Say whether the loss so far and all weights are finite, waiting for the device."""
        try:
            self.check_finite()
        except NotFiniteError:
            return False
        return True

    def remember(self, epoch: int) -> None:
        """Remember where the training is, after so many epochs, to go back to it."""
        self._before = {name: getattr(self, name) for name in _RESTORED} | {"epoch": epoch}
        self._sums = self.totals.sums

    def go_back(self) -> None:
        """Go back to what was remembered: the beginning or end of an epoch."""
        for name, value in self._before.items():
            setattr(self, name, value)
        self.totals.sums = self._sums
        self.whole = True


class _OptimizerState:
    """The state of a run's optimizer. Numbers that callbacks assign in it as learning rates become arrays.

    So it is with each part of a training that reads it: a step that was recorded for arrays serves, and a
    checkpoint holds what it did before.
    """

    def __get__(self, run: Any, _owner: Any = None) -> Any:
        if run is None:
            return self
        state = vars(run)["optimizer_state"]
        if isinstance(run.optimizer, Optimizer | LossScaling):
            checked = run.optimizer.checked(state)
            pairs = zip(rates_of(checked), rates_of(state), strict=True)
            if any(new is not old for new, old in pairs):
                state = vars(run)["optimizer_state"] = checked
        return state

    def __set__(self, run: Any, state: Any) -> None:
        vars(run)["optimizer_state"] = state


Run.optimizer_state = _OptimizerState()  # now, as to a dataclass it would have been a default


class Callback:
    """Base class of callbacks. Override what is needed.

    Each method receives the `Run`: its network, optimizer, epoch, step and history. Setting ``run.stop`` to
    True ends the training after the epoch.

    Attributes
    ----------
    order : int
        Callbacks come one after the other as they are listed; those with a larger number after all others.
    only_on_rank_0 : bool
        Whether it is called on rank 0 alone where several processes train, as what writes files is.

    Examples
    --------
    >>> import xpnet
    >>> class PrintLoss(xpnet.callbacks.Callback):
    ...     def epoch_end(self, run):
    ...         print(run.epoch, run.history["loss"][-1])
    """

    order = 0
    only_on_rank_0 = False

    def start(self, run: Run) -> None:
        """Run before the first step."""

    def epoch_start(self, run: Run) -> None:
        """Run before each epoch."""

    def step_end(self, run: Run) -> None:
        """Run after each step. Reading an array's value here waits for the device.

        The next step may write over the arrays of ``run.net``: copy what you keep.
        """

    def epoch_end(self, run: Run) -> None:
        """Run after each epoch, when its values are in the history and the network has its weights."""

    def end(self, run: Run) -> None:
        """Run at the end, also after Ctrl-C."""

    def state(self) -> Any:
        """Return what a checkpoint shall keep, a tree of arrays, numbers and strings; None for nothing."""
        return None

    def restore(self, run: Run, state: Any) -> None:
        """Go on with what `state` returned, when a training is resumed; it runs after `start`."""
