"""Training a network."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import asarray, clear_errors, device_of, use_device
from xpnet.optim import LossScaling, Transform
from xpnet.random import Seed, host_generator
from xpnet.settings import count, described, flag, is_number
from xpnet.training.batches import Examples, Order
from xpnet.training.callbacks import Callback
from xpnet.training.diagnosis import copied, first_bad_batch
from xpnet.training.history import History
from xpnet.training.interrupts import Interrupts
from xpnet.training.metrics import Metric, Totals, as_metric
from xpnet.training.predict import evaluation_copy, place_of
from xpnet.training.resume import SavedTraining, set_random
from xpnet.training.steps import Steps

# Seconds between two looks at the loss inside an epoch. A look waits for the device.
_LOOK = 10.0

_RANGE = (
    "Products in float16 take numbers above 65504 for infinite: scale x, or train in another precision, such "
    "as bfloat16. "
)


@dataclass
class Run:
    """A training under way: what callbacks see and may change.

    Attributes
    ----------
    net : Module
        The network as it is now. Assigning another tree of the same structure changes the weights.
    optimizer : optimizer
        It may be replaced by one with the same state.
    optimizer_state : tree
        The state of the optimizer.
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
        The numbers of examples and of those in a batch.
    random : dict
        The states of the random numbers before the training, and before the order of the epoch was drawn.
    totals : list of tuple, or None
        What the losses and metrics of the epoch add up to so far.

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
    callbacks: list[Callback] = field(default_factory=list)
    history: History = field(default_factory=History)
    stop: bool = False
    data: dict[str, int] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    totals: Any = None

    def set_learning_rate(self, rate: Any) -> None:
        """Set the learning rate of the steps to come, for an optimizer without a schedule of its own."""
        before = self.optimizer_state["learning_rate"]
        rate = asarray(rate, device=device_of(before), dtype=before.dtype)
        self.optimizer_state = self.optimizer_state | {"learning_rate": rate}


def fit(
    net: Any,
    x: Any,
    y: Any,
    *,
    loss: Callable[[Any, Any], Any] | Steps,
    optimizer: Any,
    optimizer_state: Any = None,
    epochs: int = 10,
    batch_size: int = 32,
    validation: tuple[Any, Any] | float | None = None,
    metrics: Sequence[Metric | Callable] = (),
    callbacks: Iterable[Callback] = (),
    seed: Seed = None,
    shuffle: bool | Order = True,
    progress: bool = True,
    jit: bool = True,
    precision: str = "float32",
    resume: str | os.PathLike | None = None,
) -> History:
    """Train a network.

    Parameters
    ----------
    net : Module
        The network. Its arrays are replaced by the trained ones.
    x : array, data frame or sequence, shape (examples, ...), or dict
        The inputs, anywhere. What is not on the device of the network is moved there batch by batch (to a
        GPU beforehand, if it takes at most a quarter of the memory that is free there), and floating-point
        numbers are converted to the dtype of the network. Batches of a sparse matrix of SciPy stay sparse if
        at most a twentieth of its elements are not zero and the network takes that, as one that begins with
        `nn.Dense` does (``takes_sparse``); else they become dense. A dict of such reaches the network as a
        dict of batches.
    y : array, data frame or sequence, shape (examples,) or (examples, ...), or dict
        The targets, as the loss expects them: ``{"labels": y, "weights": w}``, say, for a loss of your own.
    loss : callable or Steps
        ``loss(outputs, targets)`` returns the mean loss of a batch: one of `xpnet.losses`, or any function
        written with the array API standard. A loss of your own must take care of shapes: outputs of shape
        (batch, 1) and targets of shape (batch,) broadcast to (batch, batch). If it has a function
        ``check_targets(outputs, targets)`` as an attribute, that is called once with all targets, to refuse
        wrong ones; `xpnet.losses` does it for labels. `functools.partial` keeps it, a lambda does not.
        `Steps` of a loss keep what is recorded from one training to the next.
    optimizer : optimizer
        One of `xpnet.optim`.
    optimizer_state : tree, optional
        The state of the optimizer to go on from, that of a callback's ``run`` in an earlier training, say.
    epochs : int, default=10
        How often each example is seen.
    batch_size : int, default=32
        The number of examples in a step. The last batch of an epoch may be smaller.
    validation : (array, array) or float, optional
        Inputs and targets on which loss and metrics are computed after each epoch, or the share of the
        examples, below 1, that is put aside for that.
    metrics : sequence of Metric or callable
        See `xpnet.metrics`; or functions ``(outputs, targets) → number``, averaged over the batches.
    callbacks : iterable of Callback
        See `xpnet.callbacks`.
    seed : int, numpy.random.Generator or None
        From which the order of the examples is drawn. One seed gives the same training each time.
    shuffle : bool or callable, default=True
        Whether the examples come in a new order each epoch; or a function that decides on it: from the rows
        of the training, numbers in a NumPy array, to these rows in the order in which they shall come.
    progress : bool, default=True
        Whether to show a progress bar, if the output is a terminal.
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
        arguments are as they were, but ``epochs`` may be more.

    Returns
    -------
    History
        The loss and the metrics of each epoch, and those of the validation with ``validation_`` before the
        name. The loss of an epoch is the mean over its examples, at the weights that each batch met.

    Raises
    ------
    ValueError, TypeError
        If there are no examples or not as many targets, if labels are out of range, or an argument is, or
        the file to resume from does not fit. The network is unchanged then.
    FloatingPointError
        If the loss is infinite or NaN: it names epoch, batch and layer. The network has the weights from
        before that epoch. Gradients that overflow in float16 are no error, activations are.
    OutOfDeviceMemoryError
        If the memory of the device does not suffice. The network has the weights from before that epoch.

    Notes
    -----
    Ctrl-C ends the training after the step under way: the network keeps its weights, and the history so far
    is returned. A second Ctrl-C does not wait, and goes back to the weights from before the epoch. Losses and
    metrics are read back from the device once an epoch.

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
    epochs, batch_size = count("epochs", epochs), count("batch_size", batch_size)
    progress, jit = flag("progress", progress), flag("jit", jit)
    _check_parts(loss, optimizer)
    watched = [as_metric(metric) for metric in _listed("metrics", metrics)]
    # What a checkpoint holds are the states of callbacks that have seen all of the epoch.
    callbacks = sorted(_listed("callbacks", callbacks), key=_order_of)
    random = host_generator(seed)
    order = _order(shuffle, random)
    steps = loss if isinstance(loss, Steps) else Steps(loss, jit=jit, precision=precision)
    if precision not in ("float32", steps.precision):
        raise ValueError(
            f"precision must be that of the steps, {steps.precision!r}, received {precision!r}. Make new "
            f"ones: Steps(loss, precision={precision!r})."
        )
    where, _ = place_of(net)
    saved = None if resume is None else SavedTraining(resume, where)
    if saved is not None:
        saved.start_random(random)
    start = random.bit_generator.state
    training, held_out = _split(x, y, validation, random, net)

    with use_device(training.where), Interrupts() as interrupts:
        steps.check(net, [training] if held_out is None else [training, held_out], batch_size)
        work = tree.map(lambda leaf: leaf, net, state=True).train()
        names = _names(watched, validated=held_out is not None)
        in_use = steps.optimizer(optimizer)
        fresh = in_use.init(work)
        state = fresh if optimizer_state is None else optimizer_state
        if type(state) is not type(fresh):
            raise TypeError(
                "optimizer_state must be the state of the optimizer in an earlier training, "
                f"{type(fresh).__name__}, received {described(state)}."
            )
        if isinstance(in_use, LossScaling):  # a state of a training in another precision has no scale
            state = fresh | state
        run = Run(work, optimizer, state, epochs, names, callbacks=callbacks)
        run.data = {"examples": len(training), "batch_size": batch_size}
        run.random = {"start": start, "epoch": random.bit_generator.state}
        if saved is not None:
            saved.restore(run)
            set_random(random, run.random["epoch"])
        for callback in callbacks:
            callback.start(run)
        if saved is not None:
            saved.restore_callbacks(run)
        bar = _bar(epochs * len(training), progress)
        bar.update(run.step * batch_size)
        before = run.net
        try:
            while run.batch or (run.epoch < epochs and not run.stop):
                bar.set_description(f"epoch {run.epoch + (run.batch == 0)}/{epochs}")
                if run.batch == 0:  # not one that is resumed
                    run.epoch += 1
                    for callback in callbacks:
                        callback.epoch_start(run)
                # The steps write over what they are given. What others hold of the epoch before stays.
                before, state, first = run.net, run.optimizer_state, run.batch
                run.net, run.optimizer_state = copied((before, state))
                rows = order(training.rows)
                batches = training.batches(batch_size, rows, first=first)
                values = _epoch(run, steps.train, batches, watched, interrupts, bar)
                if not math.isfinite(values["loss"]):
                    run.net = before
                    batches = training.batches(batch_size, rows, first=first)
                    found = first_bad_batch(before, state, steps.train, batches, run.optimizer)
                    place = f", batch {first + found[0] + 1}, first in {found[1]}" if found else ""
                    raise FloatingPointError(
                        f"the loss must stay finite, but is {values['loss']} in epoch {run.epoch}{place}. "
                        "Lower the learning rate, or look for NaN and infinite values in x and y. "
                        f"{_RANGE if steps.precision == 'float16' else ''}The network has the weights from "
                        "before this epoch."
                    )
                if held_out is not None:
                    scores = _evaluate(run.net, held_out, steps.evaluate, watched, batch_size, interrupts)
                    values |= {f"validation_{name}": value for name, value in scores.items()}
                run.history.add(values)
                before, run.batch, run.totals = run.net, 0, None
                run.random["epoch"] = random.bit_generator.state
                if not bar.disable:
                    shown = {name.replace("validation", "val"): f"{v:.3g}" for name, v in values.items()}
                    bar.set_postfix(shown)
                tree.assign(run.net, net)
                for callback in callbacks:
                    callback.epoch_end(run)
                interrupts.act()
        except KeyboardInterrupt:
            run.history.interrupted = True
            if interrupts.pressed > 1:  # in the middle of a step, perhaps
                run.net = before
        except MemoryError:
            run.net = before
            raise
        finally:
            bar.close()
            try:
                for callback in callbacks:
                    callback.end(run)
            finally:
                tree.assign(run.net, net)
    return run.history


@clear_errors()
def _epoch(
    run: Run,
    step: Callable,
    batches: Iterable[tuple[Any, Any]],
    metrics: list[Metric],
    interrupts: Interrupts,
    bar: Any,
) -> dict[str, float]:
    """Train for one epoch, or for what is left of it; return its mean loss and its metrics."""
    totals = Totals(metrics, run.totals)
    look = monotonic() + _LOOK
    for x, y in batches:
        results = step(run.net, run.optimizer_state, x, y, run.optimizer)
        run.net, run.optimizer_state, value, outputs = results
        run.step += 1
        run.batch += 1
        examples = totals.add(value, outputs, y)
        run.totals = totals.sums
        for callback in run.callbacks:
            callback.step_end(run)
        bar.update(examples)
        interrupts.act()
        if monotonic() > look:
            if not math.isfinite(totals.results()["loss"]):
                break
            look = monotonic() + _LOOK
    return totals.results()


def _order(shuffle: Any, random: "numpy.random.Generator") -> Order:
    if isinstance(shuffle, bool):
        return random.permutation if shuffle else lambda rows: rows
    if not callable(shuffle):
        raise TypeError(
            f"shuffle must be True, False or a function of the rows, received {described(shuffle)}."
        )
    return shuffle


@clear_errors()
def _evaluate(
    net: Any,
    examples: Examples,
    step: Callable,
    metrics: list[Metric],
    batch_size: int,
    interrupts: Interrupts,
) -> dict[str, float]:
    """Return the mean loss and the metrics of a network in use."""
    net = evaluation_copy(net)
    totals = Totals(metrics)
    for x, y in examples.batches(batch_size):
        value, outputs = step(net, x, y)
        totals.add(value, outputs, y)
        interrupts.act()
    return totals.results()


def _split(
    x: Any, y: Any, validation: Any, random: "numpy.random.Generator", net: Any
) -> tuple[Examples, Any]:
    """Return the examples for training and, or None, those for validation."""
    _check_pair_or_share(validation)
    where, dtype = place_of(net)
    sparse = net.takes_sparse
    examples = Examples({"x": x, "y": y}, where, dtype, sparse=sparse).settle()
    if validation is None:
        return examples, None
    if is_number(validation):
        return examples.split(float(validation), random)
    names = ("x of validation", "y of validation")
    return examples, Examples(dict(zip(names, validation, strict=True)), where, dtype, sparse=sparse).settle()


def _check_pair_or_share(validation: Any) -> None:
    must = "validation must be a pair (x, y) or a share of the examples between 0 and 1, received"
    if is_number(validation):
        if not 0 < validation < 1:
            raise ValueError(f"{must} {validation!r}.")
    elif isinstance(validation, tuple | list):
        if len(validation) != 2:
            raise TypeError(
                f"{must} a {type(validation).__name__} of {len(validation)}. Weights go where the loss finds "
                'them, in the targets: (x, {"labels": y, "weights": w}).'
            )
    elif validation is not None:
        raise TypeError(f"{must} {described(validation)}.")


def _check_parts(loss: Any, optimizer: Any) -> None:
    if isinstance(loss, type) or not (callable(loss) or isinstance(loss, Steps)):
        raise TypeError(
            f"loss must be a function, such as xpnet.losses.cross_entropy, received {described(loss)}."
        )
    if isinstance(optimizer, type | Transform) or not (
        hasattr(optimizer, "init") and hasattr(optimizer, "update")
    ):
        instead = (
            " Write xpnet.optim.chain(transform, optimizer)." if isinstance(optimizer, Transform) else ""
        )
        raise TypeError(
            "optimizer must be an optimizer, such as xpnet.optim.Adam(1e-3), received "
            f"{described(optimizer)}.{instead}"
        )


def _listed(name: str, values: Any) -> list:
    if isinstance(values, str | dict) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, received {described(values)}. Write {name}=[...].")
    return list(values)


# What `fit` asks of a callback: it need not be a subclass.
_OF_CALLBACKS = [name for name in vars(Callback) if not name.startswith("_")]


def _order_of(callback: Any) -> int:
    if isinstance(callback, type) or not all(hasattr(callback, name) for name in _OF_CALLBACKS):
        raise TypeError(
            "each of callbacks must be an xpnet.callbacks.Callback, such as xpnet.callbacks.EarlyStopping(), "
            f"received {described(callback)}. A subclass of Callback has the methods that it leaves out."
        )
    return callback.order


def _names(metrics: list[Metric], *, validated: bool) -> tuple[str, ...]:
    """Return the names that the history will have."""
    names = ("loss", *(metric.name for metric in metrics))
    if len(set(names)) < len(names):
        raise ValueError(
            f"each metric needs a name of its own, received {', '.join(names[1:])} beside loss. Make one "
            "with xpnet.metrics.Metric(name, ...), or give functions different names."
        )
    return names + tuple(f"validation_{name}" for name in names) if validated else names


def _bar(samples: int, progress: bool) -> Any:
    from tqdm.auto import tqdm  # here, as it would be a good part of the time that importing xpnet takes

    # None: where the output is no terminal, a bar would fill a log with lines.
    return tqdm(total=samples, unit=" samples", unit_scale=True, disable=None if progress else True)
