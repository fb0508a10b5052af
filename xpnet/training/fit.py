"""Training a network: what is prepared, each epoch, and how a training recovers from a NaN or from Ctrl-C."""

import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count as count_from
from time import monotonic
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import clear_errors, use_device
from xpnet.distributed.group import Group, check_group
from xpnet.distributed.shard import Sharded
from xpnet.random import Seed, host_generator
from xpnet.settings import count, flag
from xpnet.share import Share
from xpnet.training.agreement import (
    agree_after_epoch,
    begin_together,
    check_alike,
    from_rank_0,
    told_by,
)
from xpnet.training.arguments import (
    callbacks_of,
    check_parts,
    metrics_of,
    names_of,
    sharded_in,
    state_of,
    steps_of,
)
from xpnet.training.data import Data, training_data
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
from xpnet.training.history import History
from xpnet.training.interrupts import Interrupts
from xpnet.training.metric import Metric
from xpnet.training.networks import deep_copied, evaluation_copy, place_of, training_copy
from xpnet.training.orders import Order
from xpnet.training.progress import progress_of
from xpnet.training.resume import SavedTraining
from xpnet.training.run import Callback, NotFiniteError, Run
from xpnet.training.steps import Batch, Steps, with_weights
from xpnet.training.totals import Totals
from xpnet.training.weights import weights_of_classes

_log = logging.getLogger("xpnet")

# Seconds between two looks at the loss inside an epoch. A look waits for the device.
_LOOK = 10.0

_RANGE = (
    "Products in float16 take numbers above 65504 for infinite: scale x, or train in another precision, such "
    "as bfloat16. "
)


def fit(
    net: Any,
    x: Any,
    y: Any = None,
    *,
    loss: Callable[[Any, Any], Any] | Steps,
    optimizer: Any,
    optimizer_state: Any = None,
    epochs: int = 10,
    batch_size: int | None = None,
    validation: Any = None,
    metrics: Sequence[Metric | Callable[..., Any]] | Mapping[Any, Any] = (),
    callbacks: Iterable[Callback | Callable[[Run], Any]] = (),
    seed: Seed = None,
    shuffle: bool | str | Order = True,
    block_size: int | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    drop_last: bool = False,
    accumulate: int = 1,
    progress: bool = True,
    jit: bool = True,
    precision: str = "float32",
    resume: str | os.PathLike[str] | None = None,
    group: Group | None = None,
    shard: bool = False,
) -> History:
    """Train a network.

    Parameters
    ----------
    net : Module
        The network. Its arrays are replaced by the trained ones. It behaves as in training.
        A part of it that is in use (`Module.eval`) stays so, such as a normalization whose statistics shall
        not move, unless all of the network is.
    x : array, data frame or sequence, shape (examples, ...), or dict; or examples or batches of (x, y)
        The inputs, anywhere. What is not on the device of the network is moved there batch by batch (to a
        GPU beforehand, if it takes at most a quarter of the memory that is free there), and floating-point
        numbers are converted to the dtype of the network. Batches of a sparse matrix of SciPy stay sparse if
        at most a twentieth of its elements are not zero and the network takes that, as one that begins with
        `nn.Dense` does (``takes_sparse``); else they become dense. A dict of such reaches the network as a
        dict of batches.

        What is not in memory is read in parts, one ahead on a thread: anything with ``shape``, ``dtype`` and
        ``__getitem__``, such as a dataset of h5py, an array of zarr or Dask, or a memory map, and any object
        with ``__len__`` and ``__getitem__(number)``. If that returns an example as ``(x, y)`` or as a dict,
        as data sets of PyTorch do, it stands for x and y.

        Batches that others make also stand for x and y: an iterable of ``(x, y)`` or of dicts, such as a
        DataLoader of PyTorch, or a function that returns one for each epoch, such as a generator function. Of
        a dict with other keys than ``"x"``, ``"y"`` and, if there are weights, ``"sample_weight"``, and of a
        data frame or a record batch of Arrow, as a dict of its columns, network and loss get all. Batches may
        differ in their number of examples alone.
    y : array, data frame or sequence, shape (examples,) or (examples, ...), or dict
        The targets, as the loss expects them: ``{"digit": digits, "size": sizes}``, say, for one of your own.
        Left out where x stands for both.
    loss : callable or Steps
        ``loss(outputs, targets)`` returns the mean loss of a batch: one of `xpnet.losses`, or any function
        written with the array API standard. It may return two numbers, the sum of the losses and what that is
        to be divided by. A loss of your own must take care of shapes: outputs of shape (batch, 1) and targets
        of shape (batch,) broadcast to (batch, batch). If it has a function
        ``check_targets(outputs, targets)`` as an attribute, that is called once with all targets, or with
        each part that is read of them, to refuse wrong ones; `xpnet.losses` does it for labels. With the
        attribute ``takes_logits = True``, as `losses.cross_entropy` has it, outputs that are probabilities
        already are refused. `functools.partial` keeps both, a lambda does not.
        `Steps` of a loss keep what is recorded from one training to the next.
    optimizer : optimizer
        One of `xpnet.optim`.
    optimizer_state : tree, optional
        The state of the optimizer to go on from, that of a callback's ``run`` in an earlier training, say.
    epochs : int, default=10
        How often each example is seen.
    batch_size : int, optional
        The number of examples in a step, 32 if it is not given. The last batch of an epoch may be smaller.
        Batches from outside have a size of their own.
    validation : (x, y), (x, y, sample_weight), examples or batches of such, or float, optional
        Data on which loss and metrics are computed after each epoch, or the share of the examples, below 1,
        that is put aside for that.
    metrics : sequence of Metric or callable, or dict of such
        See `xpnet.metrics`; or functions ``(outputs, targets) → number``, averaged over the batches. A dict
        has them by the keys of outputs and targets: ``{"digit": metrics.accuracy, "size": [metrics.r2]}``.
    callbacks : iterable of Callback or callable
        See `xpnet.callbacks`; or functions ``(run) → anything``, which are called after each epoch.
    seed : int, numpy.random.Generator or None
        From which the order of the examples is drawn. One seed gives the same training each time, if the
        layers that draw numbers, such as `nn.Dropout`, have seeds of their own.
    shuffle : bool, "blocks" or callable, default=True
        Whether the examples come in a new order each epoch. With ``"blocks"`` they come in one in which a
        file can be read in large parts: blocks of neighbouring rows are shuffled, and then, 16 blocks at a
        time, the rows in them. Or a function that decides on it: from the rows of the training, numbers in a
        NumPy array, to these rows in the order in which they shall come.
    block_size : int, optional
        How many rows are a block; for a file in chunks best a multiple of the rows of one. By default as many
        as have 262,144 elements, but at most a 64th of all.
    sample_weight : array, shape (examples,) or (examples, ...), optional
        How much each example counts, or each position of a sequence: loss and metrics are given those of a
        batch as ``sample_weight``, and their means are weighted. A mask of bools will do. Where x stands for
        y, too, it gives the weights as well: ``(x, y, sample_weight)``.
    class_weight : dict, array of shape (classes,) or "balanced", optional
        How much the examples of each class count: loss and metrics are given it as ``class_weight``. A dict
        has numbers of classes as keys, of which those that are missing count 1; "balanced" stands for
        ``examples / (classes * examples of the class)`` in the targets for training. `binary_cross_entropy`
        takes two, of no and of yes.
    drop_last : bool, default=False
        Whether to leave out, in each epoch, what is too little for a whole step.
    accumulate : int, default=1
        How many batches make a step, with the gradient of all their examples together: that of a batch which
        is so many times as large, and needs more memory. The number of batches must be a multiple of it.
        Layers that look at a batch as a whole, such as `nn.BatchNorm`, still see each by itself, and
        `nn.Dropout` draws for each. A loss that takes weights out of the targets returns two numbers.
    progress : bool, default=True
        Whether to show a progress bar, if the output is a terminal, and else to write a line for each epoch
        to the log "xpnet" at the level INFO: ``logging.basicConfig(level=logging.INFO)`` shows it.
    jit : bool, default=True
        Whether to record a step once and replay it, see `xpnet.jit`. Where that cannot be done, a warning in
        the log says why. With False, each step runs as it is written: to print inside a layer, say, or where
        the loss reads Python values that change during the training.
    precision : {"float32", "tf32", "float16", "bfloat16"}, default="float32"
        What the operands of matrix products are rounded to, in training and validation, see `xpnet.jit`;
        weights, sums, batches that stay sparse and all else are in float32. In float16 the loss is scaled,
        see `optim.LossScaling`: a step whose gradients overflow is skipped, and
        ``optimizer_state["loss_scale"]`` halved.
    resume : path, optional
        A file of `xpnet.callbacks.Checkpoint`, with which the training goes on as if it had not been
        interrupted: on the CPU, the network and the history are in the end the same, bit for bit. All other
        arguments are as they were, but ``epochs`` may be more. Batches from outside with ``state_dict`` and
        ``load_state_dict`` go on where they were; of others, those of the epoch that were done are read and
        left out.
    group : Group, optional
        Processes that train the network together: ``xpnet.distributed.world()``. Each calls `fit` with the
        same arguments, and computes with its share of each batch; ``batch_size`` is that of all together.
        All are given the same examples, of which each reads its own. Batches from outside are its own part of
        each batch already. The training is that of one process, but for rounding; a network, an optimizer's
        state and an order that no seed says are those of rank 0. Callbacks see the same on all: those of
        xpnet's that write files do so on rank 0, which also reads the file of ``resume``, that of any number
        of processes. Metrics that are functions, and no means over examples, are of shares in place of
        batches.
    shard : bool, default=False
        Whether each process of the group keeps a piece of the optimizer's state, and moves a piece of the
        weights, in place of all: see `distributed.Group.shard`. The training is the same, and so is a
        checkpoint, which holds the state as it is in one process.

    Returns
    -------
    History
        The loss and the metrics of each epoch, and those of the validation with ``validation_`` before the
        name. The loss of an epoch is the mean of those of its batches, each counted by its examples, or by
        what counts of them, at the parameters that it met.

    Raises
    ------
    ValueError, TypeError
        If there are no examples or not as many targets or weights, if labels, weights or another argument
        are out of range, or the file to resume from does not fit. The network is unchanged then. Where data
        are read in parts, or batches come from outside, what is wrong with a later part is found when it
        comes, as are errors that are raised there: the network has the weights from before that epoch.
    IndexError
        If x, or an item of it, holds indices that an `nn.Embedding` refuses. The network is unchanged then.
    NoGradientError
        If the loss does not depend on the network, or reads it from outside. The network is unchanged.
    FloatingPointError
        If the loss or a weight is infinite or NaN: it names epoch and batch, and the layer, or the row and
        column of x or y. The same for bad values in the data for validation. The network has the weights from
        before that epoch. Gradients that overflow in float16 are no error, activations are.
    OutOfDeviceMemoryError
        If the memory of the device does not suffice. The network has the weights from before that epoch.
    ProcessesDisagreeError
        If the processes of a group were given different things, or came to different steps.

    Notes
    -----
    Ctrl-C ends the training after the step under way: the network keeps its weights, and the history so far
    is returned. A second Ctrl-C does not wait, but for a part of the data that a thread reads, and goes back
    to the weights from before the epoch. So does any other exception inside a step, such as that of a
    signal's handler which calls ``sys.exit``. Losses and metrics are read back from the device once an epoch,
    or every 256 batches.

    In a group, Ctrl-C on one process ends the training after the same step on all; SIGTERM, as which
    launchers hand it on, does the same. An exception on one process that nobody catches ends all.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> net = xpnet.nn.Dense(1, 1, seed=0)
    >>> loss, optimizer = xpnet.losses.mse, xpnet.optim.SGD(0.3)
    >>> history = xpnet.fit(net, x, 3 * x, loss=loss, optimizer=optimizer, epochs=30, seed=0)
    >>> round(float(net.weight[0, 0]), 3)
    3.0
    """
    epochs = count("epochs", epochs)
    progress, jit = flag("progress", progress), flag("jit", jit)
    drop_last, accumulate = flag("drop_last", drop_last), count("accumulate", accumulate)
    check_parts(loss, optimizer)
    group = Group() if group is None else check_group(group)
    optimizer = sharded_in(group, optimizer, flag("shard", shard))
    watched, callbacks = metrics_of(metrics), callbacks_of(callbacks)
    random = host_generator(seed)
    begin_together(group, random, has_seed=seed is not None, resumes=resume is not None)
    steps = steps_of(loss, jit, precision)
    where, _ = place_of(net)
    saved = None if resume is None else SavedTraining(resume, where, random, group)
    random_before = random.bit_generator.state
    sizes: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle, "block_size": block_size}
    sizes |= {"drop_last": drop_last, "accumulate": accumulate}
    left = epochs if saved is None else saved.epochs_left(epochs)
    with ExitStack() as opened, use_device(where), told_by(group):
        parts = x, y, sample_weight, validation
        others: dict[str, Any] = {"random": random, "epochs": left, "group": group, "opened": opened}
        data = training_data(net, *parts, **sizes | others)
        weights = (
            {} if class_weight is None else {"class_weight": weights_of_classes(class_weight, net, data[0])}
        )
        interrupts = opened.enter_context(Interrupts(and_terminate=group.size > 1))
        loop = _Loop(net, steps, *data, watched, weights, accumulate, random, interrupts, group)
        run = loop.prepare(optimizer, optimizer_state, epochs, callbacks, random_before)
        loop.start(saved, progress)
        try:
            run.check_finite()  # a callback may have assigned weights
            while run.batch or (run.epoch < epochs and not run.stop):
                loop.epoch()
        except BaseException as error:
            loop.recover(error)
            if not loop.ends_well(error):
                raise
            run.history.interrupted = True
        finally:
            loop.end()
        loop.warn_of_stuck_weights()
    return run.history


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
class _Loop:
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
        state = self._first_state = state_of(self.steps.optimizer(optimizer), optimizer_state, net)
        self.run = run = Run(net, optimizer, state, epochs, names, callbacks=callbacks, group=self.group)
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
                after = self.steps.take(*before, run.optimizer, batch, ends=ends)
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
        if isinstance(self.run.optimizer, Sharded):  # of which others have other pieces
            stuck = next(filter(None, self.group.gather_objects(stuck)), None)
        if stuck:  # an infinite mean of squares divides each gradient by infinity
            _log.warning(
                "xpnet: some weights may no longer move, as %s of the optimizer's state is infinite or NaN: "
                "gradients were too large. Scale x or the loss, or use xpnet.optim.clip_by_global_norm.",
                stuck,
            )
