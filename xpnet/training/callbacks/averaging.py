"""Averages of the weights over the steps of a training."""

from typing import Any

from array_api_compat import device

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import plain_namespace
from xpnet.optim.transforms import each_dtype
from xpnet.replay import jit
from xpnet.settings import flag, fraction
from xpnet.training.networks import deep_copied
from xpnet.training.run import Callback, Run

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage(Callback):
    r"""Average the weights of all steps, the later ones more, and give the network the average in the end.

    After each step, with the weights :math:`\theta` of the step and a decay :math:`d`,

    .. math:: \bar\theta \leftarrow d \, \bar\theta + (1 - d) \, \theta

    from the weights before the first step on. Validation errors of such an average are often smaller, and
    move less from epoch to epoch, than those of the weights themselves.

    Parameters
    ----------
    decay : float, default=0.999
        The share :math:`d` of the average that is kept, at least 0 and less than 1. The average is one over
        about the last 1 / (1 - d) steps. A training of fewer steps needs a smaller one, or ``warmup``.
    warmup : bool, default=False
        Whether to begin with a smaller decay, as the average is one of untrained weights then. After
        :math:`t` steps it is :math:`\min(d, (1 + t) / (10 + t))` for the next one, as TensorFlow has it.
    replace_weights : bool, default=True
        Whether the network gets the averaged weights in the end. Otherwise it keeps those of the last step.

    Attributes
    ----------
    net : Module
        The network with the averaged weights, in use (`Module.eval`): a copy, at any time from the beginning
        of a training on, also after it. State, such as the statistics of `nn.BatchNorm`, is that of the
        network as it is.

    Raises
    ------
    ValueError
        If the decay is out of range, or `net` is asked for before a training.

    Notes
    -----
    The average is of floats of at least 32 bits, also of weights in float16, in which it would stand still.
    With the copy of it from before the epoch it takes the memory of two networks more.

    The values in the history are those of the weights of the steps. A `Checkpoint` has these, and the average
    beside them to go on from; ``xpnet.save(average.net, path)`` writes the averaged network. Where
    `EarlyStopping` gives the network its best weights, that of the two which is listed later has its way.

    A training that goes back to before an epoch, because of a NaN, say, takes the average from there too.
    The next training with the same object begins a new average.

    References
    ----------
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    https://doi.org/10.1137/0330046. The warm-up is that of ``num_updates`` in TensorFlow's
    `ExponentialMovingAverage <https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage>`_.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> average = xpnet.callbacks.ExponentialMovingAverage(0.9)
    >>> net, x = xpnet.nn.Dense(2, 1, seed=0), np.eye(2, dtype=np.float32)
    >>> settings = {"loss": xpnet.losses.mse, "optimizer": xpnet.optim.SGD(0.3), "callbacks": [average]}
    >>> history = xpnet.fit(net, x, x[:, :1], epochs=100, **settings)
    >>> bool(np.all(net.weight == average.net.weight))
    True
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = False, replace_weights: bool = True) -> None:
        self._decay, self._warmup = fraction("decay", decay), flag("warmup", warmup)
        self._replace_weights = flag("replace_weights", replace_weights)
        self._averaged = jit(_averaged, donate=("average",))
        self._run: Run | None = None
        self._net: Any = None
        self._average: Any = None  # it is written over, unlike what was the average before the epoch
        self._before: Any = None
        self._step: int | None = None  # after which the average is

    @property
    def net(self) -> Any:
        if self._run is None and self._net is None:
            raise ValueError(
                "the averaged network is there from the beginning of a training on, received none so far. "
                "Pass this callback to fit first."
            )
        net = self._net if self._run is None else self._of_average(self._run)
        return deep_copied(net).eval()

    def start(self, run: Run) -> None:
        self._run, self._net = run, None
        self._begin(run, _first_average(tree.leaves(run.net)))

    def epoch_start(self, run: Run) -> None:
        self._begin(run, self._average)

    def step_end(self, run: Run) -> None:
        self._step = None  # what cuts the next line off leaves some of the average written over, and some not
        weights = tree.leaves(run.net)
        self._average = self._averaged(self._average, weights, self._decay, self._warmup)
        self._step = run.step

    def state(self) -> Any:
        return self._average

    def restore(self, run: Run, state: Any) -> None:
        if not _are_alike(state, self._average):
            raise ValueError("it must be an average of the weights of this network, received other arrays")
        self._begin(run, state)

    def end(self, run: Run) -> None:
        self._net = self.net
        if self._replace_weights:
            run.net = self._of_average(run)
        self._run = self._average = self._before = None

    def _begin(self, run: Run, average: Any) -> None:
        self._before, self._average, self._step = average, deep_copied(average), run.step

    def _of_average(self, run: Run) -> Any:
        """Return the network with the averaged weights: those of before the epoch if it went back there."""
        is_whole = self._step is not None and self._step <= run.step
        average = self._average if is_whole else self._before
        weights, structure = tree.flatten(run.net)
        xp = plain_namespace(weights[0])
        pairs = zip(average["weights"], weights, strict=True)
        return tree.unflatten(structure, [xp.astype(mean, x.dtype, copy=False) for mean, x in pairs])


def _first_average(weights: list[Any]) -> Any:
    """Return what is averaged before the first step, in floats of at least 32 bits."""
    xp = plain_namespace(weights[0])
    means = [xp.astype(x, xp.result_type(xp.float32, x), copy=False) for x in weights]
    steps = xp.zeros((), dtype=xp.result_type(*means), device=device(means[0]))
    return {"steps": steps, "weights": means}


def _averaged(average: Any, weights: list[Any], decay: float, warmup: bool) -> Any:
    """Return the average after another step."""
    steps, means = average["steps"], average["weights"]
    xp = array_namespace(steps, *means)
    share = xp.full_like(steps, 1 - decay)
    if warmup:
        share = xp.maximum(share, 9 / (10 + steps))  # 1 - (1 + t) / (10 + t)
    triples = zip(means, weights, each_dtype(share, means), strict=True)
    # As written in the docstring, weights that stay would not be their own average, but for rounding.
    moved = [mean + part * (xp.astype(x, mean.dtype, copy=False) - mean) for mean, x, part in triples]
    return {"steps": steps + 1, "weights": moved}


def _are_alike(a: Any, b: Any) -> bool:
    """Say whether two trees have arrays of the same shapes and dtypes at the same places."""
    pairs = zip(tree.leaves(a), tree.leaves(b), strict=False)
    return tree.paths(a) == tree.paths(b) and all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)
