"""Layers that disturb their input in training."""

from xpnet import random
from xpnet.autodiff import array_namespace
from xpnet.nn.module import Module
from xpnet.settings import fraction
from xpnet.tree import Array


class Dropout(Module):
    """In training, set each input to 0 with a given probability and scale the rest up; else do nothing.

    The kept inputs are divided by ``1 - rate``, so that the expected output is the input.

    N. Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014.

    Parameters
    ----------
    rate : float, default=0.5
        The probability that an input is dropped, at least 0 and below 1.
    seed : int, numpy.random.Generator or None
        One seed gives the same sequence of masks; None a different one each time.

    Attributes
    ----------
    random_state : array of int32, shape (2,)
        The state of the random numbers. Each call in training moves it on.

    Raises
    ------
    ValueError
        If the rate is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> layer = nn.Dropout(0.5, seed=0)
    >>> layer(np.ones(6))
    array([2., 0., 2., 2., 2., 0.])
    >>> layer.eval()(np.ones(6))
    array([1., 1., 1., 1., 1., 1.])
    """

    state = ("random_state",)

    def __init__(self, rate: float = 0.5, *, seed: random.Seed = None) -> None:
        self.rate = fraction("rate", rate)
        self.random_state = random.new_state(seed)

    def __call__(self, x: Array) -> Array:
        if not self.training or self.rate == 0:
            return x
        xp = array_namespace(x, self.random_state)
        draws, self.random_state = random.uniform(xp, self.random_state, x.shape, xp.float32)
        return xp.where(draws < self.rate, 0.0, x * (1 / (1 - self.rate)))
