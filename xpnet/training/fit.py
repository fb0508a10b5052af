"""`fit`: a network, data, a loss and an optimizer become a trained network."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from xpnet.backends import use_device
from xpnet.distributed.group import Group, check_group
from xpnet.random import Seed, host_generator
from xpnet.settings import count, flag
from xpnet.training.agreement import begin_together, told_by
from xpnet.training.arguments import callbacks_of, check_parts, metrics_of, sharding_of, steps_of
from xpnet.training.data import training_data
from xpnet.training.history import History
from xpnet.training.interrupts import Interrupts
from xpnet.training.loop import Loop
from xpnet.training.metric import Metric
from xpnet.training.networks import place_of
from xpnet.training.orders import Order
from xpnet.training.resume import SavedTraining
from xpnet.training.run import Callback, Run
from xpnet.training.steps import Steps
from xpnet.training.weights import weights_of_classes


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
    optimizer, shard = sharding_of(group, optimizer, flag("shard", shard))
    watched, callbacks = metrics_of(metrics), callbacks_of(callbacks)
    random = host_generator(seed)
    begin_together(group, random, has_seed=seed is not None, resumes=resume is not None, shard=shard)
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
        loop = Loop(net, steps, *data, watched, weights, accumulate, random, interrupts, group, shard)
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
