"""Initial values of weights.

An initializer is a function ``(shape, random) → array``: of the shape of the weight and a NumPy generator. It
draws on the host in double precision; the layer converts the result and moves it to its device. For a weight
of shape (in, out), ``in`` is the number of inputs of each unit, and ``out`` the number of units.
"""

import math
from collections.abc import Callable

import numpy

from xpnet.autodiff import array_namespace
from xpnet.settings import at_least_zero, number
from xpnet.tree import Array

__all__ = [
    "Initializer",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "uniform",
    "zeros",
]

Initializer = Callable[[tuple[int, ...], "numpy.random.Generator"], Array]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many inputs and outputs a unit has: the last two axes, times the size of a kernel."""
    if len(shape) < 2:
        raise ValueError(f"this initializer needs the shape of a matrix, (in, out), received {shape}.")
    kernel = math.prod(shape[:-2])
    return shape[-2] * kernel, shape[-1] * kernel


def _uniform(shape: tuple[int, ...], random: "numpy.random.Generator", deviation: float) -> Array:
    limit = math.sqrt(3) * deviation  # a uniform distribution on ±limit has this standard deviation
    return random.uniform(-limit, limit, size=shape)


def he_normal(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Draw from a normal distribution of variance 2 / in, which keeps the size of signals through ReLUs.

    K. He et al., Delving Deep into Rectifiers, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> round(float(initializers.he_normal((1000, 200), np.random.default_rng(0)).std()), 3)
    0.045
    """
    return random.normal(0.0, math.sqrt(2 / _fans(shape)[0]), size=shape)


def he_uniform(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Draw from a uniform distribution of variance 2 / in. See `he_normal`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> round(float(initializers.he_uniform((1000, 200), np.random.default_rng(0)).std()), 3)
    0.045
    """
    return _uniform(shape, random, math.sqrt(2 / _fans(shape)[0]))


def glorot_normal(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Draw from a normal distribution of variance 2 / (in + out), suited to tanh and sigmoid.

    X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> round(float(initializers.glorot_normal((1000, 200), np.random.default_rng(0)).std()), 3)
    0.041
    """
    return random.normal(0.0, math.sqrt(2 / sum(_fans(shape))), size=shape)


def glorot_uniform(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Draw from a uniform distribution of variance 2 / (in + out). See `glorot_normal`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> round(float(initializers.glorot_uniform((1000, 200), np.random.default_rng(0)).std()), 3)
    0.041
    """
    return _uniform(shape, random, math.sqrt(2 / sum(_fans(shape))))


def lecun_normal(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Draw from a normal distribution of variance 1 / in, which keeps the size of signals through sums.

    Y. LeCun et al., Efficient BackProp, 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> round(float(initializers.lecun_normal((1000, 200), np.random.default_rng(0)).std()), 3)
    0.032
    """
    return random.normal(0.0, math.sqrt(1 / _fans(shape)[0]), size=shape)


def lecun_uniform(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Draw from a uniform distribution of variance 1 / in. See `lecun_normal`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> round(float(initializers.lecun_uniform((1000, 200), np.random.default_rng(0)).std()), 3)
    0.032
    """
    return _uniform(shape, random, math.sqrt(1 / _fans(shape)[0]))


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Make an initializer that draws from the uniform distribution on [low, high).

    Raises
    ------
    ValueError
        If low is not below high.

    Examples
    --------
    >>> from xpnet.nn import Dense, initializers
    >>> layer = Dense(4, 5, weight_init=initializers.uniform(0, 0.1), seed=0)
    >>> bool((layer.weight >= 0).all())
    True
    """
    low, high = number("low", low), number("high", high)
    if not low < high:
        raise ValueError(f"uniform needs low < high, received low={low} and high={high}.")
    return lambda shape, random: random.uniform(low, high, size=shape)


def normal(deviation: float) -> Initializer:
    """Make an initializer that draws from the normal distribution of mean 0 and a standard deviation.

    Raises
    ------
    ValueError
        If the standard deviation is negative.

    Examples
    --------
    >>> from xpnet.nn import Dense, initializers
    >>> layer = Dense(400, 500, weight_init=initializers.normal(0.01), seed=0)
    >>> round(float(layer.weight.std()), 4)
    0.01
    """
    deviation = at_least_zero("deviation", deviation)
    return lambda shape, random: random.normal(0.0, deviation, size=shape)


def zeros(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
    """Return zeros.

    Examples
    --------
    >>> from xpnet.nn import Dense, initializers
    >>> Dense(2, 3, weight_init=initializers.zeros).weight
    array([[0., 0., 0.],
           [0., 0., 0.]], dtype=float32)
    """
    return random.uniform(0.0, 0.0, size=shape)


def orthogonal(gain: float = 1.0) -> Initializer:
    """Make an initializer of matrices with orthonormal rows or columns, times ``gain``.

    A. M. Saxe, J. L. McClelland and S. Ganguli, Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nn import initializers
    >>> w = initializers.orthogonal()((3, 3), np.random.default_rng(0))
    >>> bool(np.allclose(w @ w.T, np.eye(3)))
    True
    """
    gain = number("gain", gain)

    def initialize(shape: tuple[int, ...], random: "numpy.random.Generator") -> Array:
        _fans(shape)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        draws = random.normal(size=(max(rows, columns), min(rows, columns)))
        xp = array_namespace(draws)
        q, r = xp.linalg.qr(draws)
        q = q * xp.sign(xp.linalg.diagonal(r))  # makes the distribution uniform over all such matrices
        return gain * xp.reshape(q if rows >= columns else q.T, shape)

    return initialize
