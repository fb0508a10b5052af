"""Activation functions as layers."""

import math

from xpnet import special
from xpnet.autodiff import array_namespace, stop_gradient
from xpnet.backends import at_least_single, in_dtype
from xpnet.nn.module import Module
from xpnet.settings import flag, integer, number
from xpnet.tree import Array


class ReLU(Module):
    """The rectified linear unit: ``max(x, 0)``. Its derivative at 0 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.ReLU()(np.asarray([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """

    def __call__(self, x: Array) -> Array:
        return array_namespace(x).maximum(x, 0)


class LeakyReLU(Module):
    """``x`` where positive, else ``negative_slope * x``.

    Parameters
    ----------
    negative_slope : float, default=0.01

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.LeakyReLU(0.1)(np.asarray([-1.0, 0.0, 2.0]))
    array([-0.1,  0. ,  2. ])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number("negative_slope", negative_slope)

    def __call__(self, x: Array) -> Array:
        return array_namespace(x).where(x > 0, x, self.negative_slope * x)


class ELU(Module):
    """The exponential linear unit: ``x`` where positive, else ``alpha * (exp(x) - 1)``.

    D.-A. Clevert, T. Unterthiner and S. Hochreiter, Fast and Accurate Deep Network Learning by Exponential
    Linear Units, 2015.

    Parameters
    ----------
    alpha : float, default=1.0

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.ELU()(np.asarray([-1.0, 0.0, 2.0])).round(3)
    array([-0.632,  0.   ,  2.   ])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number("alpha", alpha)

    def __call__(self, x: Array) -> Array:
        xp = array_namespace(x)
        positive = x > 0
        # The exponential sees no positive number: where one overflows, its gradient would be NaN.
        return xp.where(positive, x, self.alpha * xp.expm1(xp.where(positive, 0.0, x)))


class GELU(Module):
    """The Gaussian error linear unit: ``x * Φ(x)``, where Φ is the normal distribution function.

    It is ``x / 2 * (1 + erf(x / sqrt(2)))``, and in its tanh form, which differs from this by less than
    0.0005, ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x³)))``.

    D. Hendrycks and K. Gimpel, Gaussian Error Linear Units, 2016.

    Parameters
    ----------
    approximate : bool, default=True
        Whether to use the tanh form, as Keras and PyTorch do if asked; their default is the exact one. That
        needs SciPy on NumPy.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.GELU()(np.asarray([-1.0, 0.0, 2.0])).round(3)
    array([-0.159,  0.   ,  1.955])
    >>> nn.GELU(approximate=False)(np.asarray([-1.0, 0.0, 2.0])).round(3)
    array([-0.159,  0.   ,  1.954])
    """

    approximate: bool = True  # of networks from files that were written before there was the exact one

    def __init__(self, approximate: bool = True) -> None:
        self.approximate = flag("approximate", approximate)

    def __call__(self, x: Array) -> Array:
        if not self.approximate:
            return 0.5 * x * (1 + special.erf(x * math.sqrt(0.5)))
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + array_namespace(x).tanh(inner))


class Sigmoid(Module):
    """The logistic function ``1 / (1 + exp(-x))``, computed without overflow: ``(1 + tanh(x / 2)) / 2``.

    For training, leave it out of the end of a network: `xpnet.losses.binary_cross_entropy` takes the logits.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.Sigmoid()(np.asarray([-1.0, 0.0, 2.0])).round(3)
    array([0.269, 0.5  , 0.881])
    """

    gives_probabilities = True

    def __call__(self, x: Array) -> Array:
        return 0.5 + 0.5 * array_namespace(x).tanh(0.5 * x)


class SiLU(Module):
    """The sigmoid linear unit, also called swish: ``x * sigmoid(x)``.

    S. Elfwing, E. Uchibe and K. Doya, Sigmoid-Weighted Linear Units for Neural Network Function Approximation
    in Reinforcement Learning, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.SiLU()(np.asarray([-1.0, 0.0, 2.0])).round(3)
    array([-0.269,  0.   ,  1.762])
    """

    def __call__(self, x: Array) -> Array:
        half = 0.5 * x
        return half + half * array_namespace(x).tanh(half)


class Tanh(Module):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.Tanh()(np.asarray([-1.0, 0.0, 2.0])).round(3)
    array([-0.762,  0.   ,  0.964])
    """

    def __call__(self, x: Array) -> Array:
        return array_namespace(x).tanh(x)


class Softmax(Module):
    """Probabilities: ``exp(x) / sum(exp(x))`` along an axis.

    For training, leave it out: `xpnet.losses.cross_entropy` takes the logits.

    Parameters
    ----------
    axis : int, default=-1

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.Softmax()(np.asarray([[0.0, 0.0], [1.0, 3.0]])).round(3)
    array([[0.5  , 0.5  ],
           [0.119, 0.881]])
    """

    gives_probabilities = True

    def __init__(self, axis: int = -1) -> None:
        self.axis = integer("axis", axis)

    def __call__(self, x: Array) -> Array:
        xp = array_namespace(x)
        wide = at_least_single(xp, x)  # float16 counts to 65,504
        # The shift keeps exp from overflowing. It changes no result, so that it needs no gradient.
        e = xp.exp(wide - xp.max(stop_gradient(wide), axis=self.axis, keepdims=True))
        return in_dtype(xp, e / xp.sum(e, axis=self.axis, keepdims=True), x.dtype)


class LogSoftmax(Module):
    """Logarithms of probabilities: ``x - log(sum(exp(x)))`` along an axis.

    Parameters
    ----------
    axis : int, default=-1

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> nn.LogSoftmax()(np.asarray([[0.0, 0.0], [1.0, 3.0]])).round(3)
    array([[-0.693, -0.693],
           [-2.127, -0.127]])
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = integer("axis", axis)

    def __call__(self, x: Array) -> Array:
        xp = array_namespace(x)
        wide = at_least_single(xp, x)
        shifted = wide - xp.max(stop_gradient(wide), axis=self.axis, keepdims=True)
        y = shifted - xp.log(xp.sum(xp.exp(shifted), axis=self.axis, keepdims=True))
        return in_dtype(xp, y, x.dtype)
