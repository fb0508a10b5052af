"""The loop of a training: what is prepared, each epoch, and how it recovers from a NaN or from Ctrl-C."""

import logging
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count as count_from
from time import monotonic
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import clear_errors
from xpnet.distributed.group import Group
from xpnet.distributed.shard import Sharded
from xpnet.share import Share
from xpnet.training.agreement import (
    agree_after_epoch,
    check_alike,
    check_same_weights,
    from_rank_0,
    state_from_rank_0,
)
from xpnet.training.arguments import names_of, state_of
from xpnet.training.data import Data
from xpnet.training.destination import noted
from xpnet.training.diagnosis import (
    AFTER_CALLBACK,
    BACK,
    check_validation,
    first_bad_data,
    first_bad_step,
    first_of_all,
)
from xpnet.training.examples import check_accumulate
from xpnet.training.finite import became_bad
from xpnet.training.interrupts import Interrupts
from xpnet.training.metric import Metric
from xpnet.training.networks import deep_copied, evaluation_copy, training_copy
from xpnet.training.progress import progress_of
from xpnet.training.resume import SavedTraining
from xpnet.training.run import Callback, NotFiniteError, Run
from xpnet.training.steps import Batch, Steps, with_weights
from xpnet.training.totals import Totals

_log = logging.getLogger("xpnet")

# Seconds between two looks at the loss inside an epoch. A look waits for the device.
_LOOK = 10.0

_RANGE = (
    "Products in float16 take numbers above 65504 for infinite: scale x, or train in another precision, such "
    "as bfloat16. "
)


def _added(totals: Totals, batch: Batch, value: Any, outputs: Any, denominator: Any) -> int:
    """Add a batch to totals; return how many examples it has, on all processes."""
    _, y, weights, share = batch
    if share is None:
        return totals.add(value, outputs, y, weights, denominator)
    if share.is_counted:
        totals.add(value, outputs, y, weights, denominator)
    return share.batch


def _frozen_parts(net: Any) -> list[Any]:
    return [part.frozen for part in tree.branches(net)]


@dataclass
class Loop:
    """The loop of a training: `prepare`, `start`, then epoch after epoch, and `end`.

    The network that `fit` was given gets the weights after each epoch and in the end. `recover` goes back to
    good ones from whatever an epoch raises; `_train` does so from a NaN, and says where it came from.
    """

    net: Any
    steps: Steps
    data: Data
    held_out: Data | None
    metrics: list[Metric]
    weights: dict[str, Any]
    accumulate: int
    random: "numpy.random.Generator"
    interrupts: Interrupts
    group: Group
    shard: bool
    run: Run = field(init=False)
    _is_agreed: bool = field(default=False, init=False)

    # -- what is prepared -----------------------------------------------------------------------------------

    def prepare(
        self, optimizer: Any, optimizer_state: Any, epochs: int, callbacks: list[Callback], random_before: Any
    ) -> Run:
        """Try network, loss and metrics on a batch, and make the run, of a copy of the network."""
        data = [self.data] if self.held_out is None else [self.data, self.held_out]
        in_parts = self.accumulate > 1 or self.group.size > 1
        self.steps.check(self.net, data, self.metrics, self.weights, in_parts=in_parts)
        net = training_copy(self.net)
        names = names_of(self.metrics, validated=len(data) > 1)
        in_steps = optimizer
        if self.shard:
            # The loss of each process is its part of that of the batch, so that gradients are added up.
            in_steps = Sharded(optimizer, self.group, takes_mean=False)
            optimizer_state = state_from_rank_0(in_steps, optimizer_state, net)
        state = self._first_state = state_of(self.steps.optimizer(in_steps), optimizer_state, net)
        self.run = run = Run(net, optimizer, state, epochs, names, callbacks=callbacks, group=self.group)
        run.sharded = in_steps if self.shard else None
        run.totals = self._totals()
        run.source, run.data = self.data, self.data.settings
        given = {"accumulate": self.accumulate if self.accumulate > 1 else 0}
        given |= {"sample_weight": len(self.data.names) - 2, "class_weight": len(self.weights)}
        run.data |= {name: number for name, number in given.items() if number}
        run.random = {"start": random_before, "epoch": self.random.bit_generator.state}
        check_alike(run, data, self.random, self.steps, self.weights)
        run.net = from_rank_0(self.group, run.net)
        run.optimizer_state = from_rank_0(self.group, run.optimizer_state, own=run.pieces_of_state())
        run.callbacks = [
            each for each in callbacks if self.group.rank == 0 or not getattr(each, "only_on_rank_0", False)
        ]
        return run

    def _totals(self) -> Totals:
        return Totals(self.metrics, self.group if self.group.size > 1 else None)

    def start(self, saved: SavedTraining | None, progress: bool) -> None:
        """Go where a saved training was, and let callbacks begin."""
        run = self.run
        if saved is not None:
            saved.restore(run)
        run.remember(run.epoch)
        for callback in run.callbacks:
            callback.start(run)
        if saved is not None:
            saved.restore_callbacks(run)
        run.stop = bool(self.group.largest(int(bool(run.stop))))
        self._progress = progress_of(self._samples(), progress and self.group.rank == 0)
        self._progress.update(run.step * self.accumulate * self.data.batch_size)

    def _samples(self) -> int | None:
        """Return how many examples all epochs have, if it is known."""
        number = self.data.number
        return None if number is None else self.run.epochs * number

    # -- one epoch ------------------------------------------------------------------------------------------

    def epoch(self) -> None:
        """Train for an epoch, or for what is left of one that is resumed.

        Raises
        ------
        NotFiniteError
            If a callback made a weight infinite or NaN.
        FloatingPointError
            If a step did, or made the loss so, or data for validation made theirs so. It says where.
        """
        self._begin_epoch()
        values = self._train() | self._validate()
        self._end_epoch(values)

    def _begin_epoch(self) -> None:
        """Remember where the training is, to go back to it, and draw the order of the epoch."""
        run, before = self.run, self.run.epoch
        if not run.batch:  # else it is resumed
            run.epoch += 1
            for callback in run.callbacks:
                callback.epoch_start(run)
            run.check_finite()
            self._check_frozen()
            if self.shard:  # or pieces of different weights would be joined
                check_same_weights(run, f"before epoch {run.epoch}")
        run.remember(before)
        self._progress.begin(run)
        # The steps write over what they are given. What others hold of the epoch before stays.
        run.net, run.optimizer_state = deep_copied((run.net, run.optimizer_state))
        self.data.begin()  # of a resumed epoch as before: the draw is repeated

    def _check_frozen(self) -> None:
        """Check that no callback froze or unfroze a part: the optimizer's state is for what is trained."""
        if _frozen_parts(self.run.net) != _frozen_parts(self.net):
            raise ValueError(
                "what is trained must stay the same while fit runs, received a network of which a callback "
                "froze or unfroze a part. Call fit again for that, with a new state of the optimizer."
            )

    def _train(self) -> dict[str, float]:
        """Take the steps; of a loss or a weight that becomes NaN, go back and say where it came from."""
        try:
            return self._take_steps()
        except NotFiniteError as error:
            self.run.go_back()
            raise FloatingPointError(f"{error}{self._place_of_first_bad()}{BACK}") from None

    @clear_errors()
    def _take_steps(self) -> dict[str, float]:
        """Return the mean loss and the metrics of an epoch, or raise NotFiniteError."""
        run = self.run
        look, sums, state = monotonic() + _LOOK, None, run.optimizer_state
        with closing(self._batches(self.data, run.batch)) as batches:
            for batch in batches:
                run.whole = False
                run.batch += 1
                ends = run.batch % self.accumulate == 0
                before = run.net, state, sums
                after = self.steps.take(*before, run.optimizer_in_steps, batch, ends=ends)
                run.net, state, sums, *figures = after
                run.optimizer_state = state
                self._progress.update(_added(run.totals, batch, *figures))
                if not ends:
                    continue
                run.step += 1
                run.whole = True
                for callback in run.callbacks:
                    callback.step_end(run)
                if run.callbacks:  # which may have assigned a learning rate; to look for it takes time
                    state = run.optimizer_state
                if self._listen(monotonic() > look):
                    if not math.isfinite(run.totals.loss()):
                        break
                    look = monotonic() + _LOOK
        if not run.whole:  # batches from outside that were not counted
            taken = run.batch
            run.go_back()
            with noted(BACK):
                check_accumulate(taken, self.accumulate)
        run.check_finite()
        found: dict[str, float] = run.totals.results()
        return found

    def _listen(self, look: bool = False) -> bool:
        """Act on Ctrl-C, on all processes after one step; return whether any wants to look at the loss."""
        if self.group.size == 1:
            self.interrupts.act()
            return look
        pressed = bool(self.interrupts.pressed)
        wanted = self.group.largest(2 if pressed else int(look))
        self._is_agreed = wanted == 2
        self.interrupts.act(pressed=wanted == 2)
        self._is_agreed = False
        return wanted == 1

    def _batches(self, data: Data, first: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from a later one on. Where they cannot be had, go back."""
        with closing(data.epoch(first)) as batches:
            for number in count_from(first):
                try:
                    batch = next(batches, None)
                    share = data.share(number, batch)
                except Exception as error:
                    if self.group.size == 1:  # which others do not know of
                        self.interrupts.act()  # the workers of a loader hear of Ctrl-C, too, and end
                    self.run.go_back()
                    error.add_note(BACK)
                    raise
                if batch is None:
                    return
                yield self._weighted(batch, share)

    def _weighted(self, batch: tuple[Any, ...], share: Share | None) -> Batch:
        """Return a batch with what loss and metrics are given beside its outputs and targets."""
        x, y, *weight = batch
        return x, y, with_weights(self.weights, weight), share

    def _again(self, data: Data, first: int = 0) -> Generator[tuple[int, Batch], None, None]:
        """Yield the batches of an epoch once more, with their numbers."""
        with closing(data.again(first)) as batches:
            for number, batch in batches:
                share = data.share(number, batch) if data.comes_again else None
                yield number, self._weighted(batch, share)

    def _validate(self) -> dict[str, float]:
        """Return the mean loss and the metrics of the data for validation, if there are some."""
        if self.held_out is None:
            return {}
        scores = self._evaluate(self.held_out)
        with closing(self._again(self.held_out)) as batches:
            check_validation(self.run, scores["loss"], self.held_out, self.steps.evaluate, batches)
        return {f"validation_{name}": value for name, value in scores.items()}

    @clear_errors()
    def _evaluate(self, data: Data) -> dict[str, float]:
        net, totals = evaluation_copy(self.run.net), self._totals()
        with closing(self._batches(data)) as batches:
            for batch in batches:
                _added(totals, batch, *self.steps.evaluate(net, *batch))
                self._listen()
        return totals.results()

    def _end_epoch(self, values: dict[str, float]) -> None:
        """Add the values to the history, hand the weights over, and let callbacks see both."""
        run = self.run
        self._check_frozen()
        run.history.add(values)
        run.batch, run.totals.sums = 0, None
        run.random["epoch"] = self.random.bit_generator.state
        run.remember(run.epoch)
        self._progress.end(run, self._samples())
        tree.assign(run.net, self.net)
        for callback in run.callbacks:
            callback.epoch_end(run)
            run.check_finite()
        agree_after_epoch(run)
        self._listen()

    # -- recovery, and the end ------------------------------------------------------------------------------

    def recover(self, error: BaseException) -> None:
        """Go back to the weights from before the epoch, unless those of the last step are good.

        Raises
        ------
        FloatingPointError
            If the error says that a callback made a weight infinite or NaN.
        """
        run = self.run
        goes_back = isinstance(error, MemoryError | FloatingPointError) or self.interrupts.pressed > 1
        if self.group.size > 1:
            goes_back = not self._is_agreed
            if goes_back:  # the others may still be in a step
                run.totals.leave()
        if goes_back or not run.whole or not run.is_finite():
            run.go_back()
        if isinstance(error, NotFiniteError):
            raise FloatingPointError(f"{error}{AFTER_CALLBACK}") from None

    def ends_well(self, error: BaseException) -> bool:
        """Say whether the training is over, by Ctrl-C, which of several processes all have agreed on."""
        return isinstance(error, KeyboardInterrupt) and (self.group.size == 1 or self._is_agreed)

    def _place_of_first_bad(self) -> str:
        """Take the steps of an epoch again, and say where the first infinite or NaN value is."""

        def on_any(here: Any) -> bool:
            return bool(self.group.largest(int(bool(here))))

        data = self.data
        with closing(self._again(data, self.run.batch)) as batches:
            if self.group.size > 1 and not data.comes_again:  # a step needs a batch of each process
                found = first_bad_data(batches, data.names)
            else:
                found = first_bad_step(self.run, self.steps, batches, data.names, self.accumulate, on_any)
            _, place = first_of_all(self.group, found, data)
        return place + _RANGE if self.steps.precision == "float16" else place

    def end(self) -> None:
        """Let callbacks end, and hand over the weights."""
        self._progress.close()
        try:
            for callback in self.run.callbacks:
                callback.end(self.run)
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Write the weights into the network, all of them also if a signal's handler raises meanwhile."""
        run = self.run
        is_good = run.whole and run.is_finite()
        if not is_good:  # a callback's end left them so, or a handler raised while the training went back
            run.go_back()
        try:
            tree.assign(run.net, self.net)
        except BaseException:
            tree.assign(run.net, self.net)
            raise
        if not is_good:
            raise FloatingPointError(f"the weights must stay finite, but are not in the end{AFTER_CALLBACK}")

    def warn_of_stuck_weights(self) -> None:
        stuck = became_bad(self.run.optimizer_state, self._first_state)
        if self.shard:  # of which others have other pieces
            stuck = next(filter(None, self.group.gather_objects(stuck)), None)
        if stuck:  # an infinite mean of squares divides each gradient by infinity
            _log.warning(
                "xpnet: some weights may no longer move, as %s of the optimizer's state is infinite or NaN: "
                "gradients were too large. Scale x or the loss, or use xpnet.optim.clip_by_global_norm.",
                stuck,
            )
