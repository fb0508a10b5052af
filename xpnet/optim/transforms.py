"""The parts of optimizers: each transforms gradients on their way to becoming an update of the parameters.

Inside an optimizer, parameters and gradients are flat lists of arrays, in a fixed order. The step is an array
of shape (): the number of updates made before. Everything is written with functions of the standard on arrays
of the parameters' own dtype and device, and nothing waits for a device. They are functions of this module and
settings, no closures, so that they can be pickled.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from xpnet.autodiff import array_namespace
from xpnet.backends import at_least_single, in_dtype
from xpnet.optim.bound import Bound
from xpnet.settings import at_least_zero, flag, fraction, positive

__all__ = [
    "Transform",
    "accumulate_momentum",
    "add_decayed_weights",
    "clip_by_global_norm",
    "scale_by_adam",
    "scale_by_lion",
    "scale_by_root_mean_square",
]

Arrays = list[Any]

# What errors say where arguments may have been swapped.
ORDER = "The order is update(grads, state, params)."


class Transform(NamedTuple):
    """A part of an optimizer: a pair of pure functions.

    Attributes
    ----------
    init : callable
        ``init(params) -> state``, where ``params`` is a list of arrays and the state is a tree of arrays.
    update : callable
        ``update(gradients, state, params, step) -> (gradients, state)``, where ``gradients`` is a list of
        arrays, one for each of ``params``, and the new state is a tree of the same structure.

    Examples
    --------
    An optimizer that follows the signs of the gradients:

    >>> from xpnet import array_namespace, optim
    >>> def sign(gradients, state, params, step):
    ...     xp = array_namespace(*gradients)
    ...     return [xp.sign(g) for g in gradients], state
    >>> optimizer = optim.chain(optim.Transform(lambda params: (), sign), optim.SGD(0.01))
    """

    init: Callable[[Arrays], Any]
    update: Callable[[Arrays, Any, Arrays, Any], tuple[Arrays, Any]]


def clip_by_global_norm(max_norm: float) -> Transform:
    r"""Scale all gradients down together where they are too large.

    .. math:: g \leftarrow g \, \frac{c}{\max(\lVert g \rVert, c)},

    with the norm over the elements of all arrays together.

    Parameters
    ----------
    max_norm : float
        The largest norm :math:`c` that is let through.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If ``max_norm`` is not positive.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the Difficulty of Training Recurrent Neural Networks", 2013,
    https://arxiv.org/abs/1211.5063.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(1e-3))
    """
    return Transform(_no_state, Bound(_clip, (positive("max_norm", max_norm),)))


def _clip(max_norm: float, gradients: Arrays, state: Any, _params: Arrays, _step: Any) -> tuple[Arrays, Any]:
    _remembered(state, (), gradients)
    xp = array_namespace(*gradients)
    wide = [at_least_single(xp, g) for g in gradients]  # squares of float16 overflow above 255
    flat = [xp.reshape(g, (-1,)) for g in wide]
    squares = [xp.vecdot(g, g) for g in flat]  # one pass and no array between, unlike sum(g * g)
    scale = max_norm / xp.maximum(xp.sqrt(sum(squares[1:], squares[0])), max_norm)
    scaled = [g * s for g, s in zip(wide, each_dtype(scale, wide), strict=True)]
    return [in_dtype(xp, s, g.dtype) for s, g in zip(scaled, gradients, strict=True)], state


def add_decayed_weights(weight_decay: float) -> Transform:
    r"""Add a share of the parameters to their gradients: :math:`g \leftarrow g + \lambda \theta`.

    Before other transforms it is the penalty :math:`\lambda \lVert \theta \rVert^2 / 2`, behind them it is
    decoupled weight decay.

    Parameters
    ----------
    weight_decay : float
        The share :math:`\lambda`.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If ``weight_decay`` is negative.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, https://arxiv.org/abs/1711.05101.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.add_decayed_weights(1e-4), optim.RMSprop(1e-3))
    """
    return Transform(_no_state, Bound(_decay, (at_least_zero("weight_decay", weight_decay),)))


def _decay(decay: float, gradients: Arrays, state: Any, params: Arrays, _step: Any) -> tuple[Arrays, Any]:
    _remembered(state, (), gradients)
    return [g + decay * p for g, p in zip(gradients, params, strict=True)], state


def accumulate_momentum(momentum: float, *, nesterov: bool = False) -> Transform:
    r"""Keep moving in the direction of earlier gradients.

    .. math:: v \leftarrow \mu v + g, \qquad g \leftarrow v \quad\text{or, with Nesterov,}\quad g + \mu v

    Parameters
    ----------
    momentum : float
        The share :math:`\mu` of the velocity :math:`v` that is kept.
    nesterov : bool, default=False
        Whether to look one step ahead.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If ``momentum`` is not in [0, 1).

    References
    ----------
    Sutskever et al., "On the Importance of Initialization and Momentum in Deep Learning", 2013,
    https://proceedings.mlr.press/v28/sutskever13.html.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.accumulate_momentum(0.9), optim.SGD(0.1))
    """
    update = Bound(_accumulate, (fraction("momentum", momentum), flag("nesterov", nesterov)))
    return Transform(Bound(_zeros, (("velocity",),)), update)


def _accumulate(
    momentum: float, nesterov: bool, gradients: Arrays, state: Any, _params: Arrays, _step: Any
) -> tuple[Arrays, Any]:
    (velocity,) = _remembered(state, ("velocity",), gradients)
    velocity = [momentum * v + g for v, g in zip(velocity, gradients, strict=True)]
    if nesterov:
        gradients = [g + momentum * v for g, v in zip(gradients, velocity, strict=True)]
    else:
        gradients = velocity
    return gradients, {"velocity": velocity}


def scale_by_adam(
    *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, epsilon_hat: bool = False
) -> Transform:
    r"""Divide the running mean of the gradients by the root of the running mean of their squares.

    At the :math:`t`-th update, counted from 1,

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) \, g, \qquad \hat m = m / (1 - \beta_1^t) \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) \, g^2, \qquad \hat v = v / (1 - \beta_2^t) \\
        g &\leftarrow \hat m / (\sqrt{\hat v} + \epsilon)

    Parameters
    ----------
    beta1 : float, default=0.9
        The share of the mean :math:`m` that is kept.
    beta2 : float, default=0.999
        The share of the mean square :math:`v` that is kept.
    epsilon : float, default=1e-8
        Keeps the divisor away from 0.
    epsilon_hat : bool, default=False
        Whether epsilon is added to :math:`\sqrt v` in place of :math:`\sqrt{\hat v}`, the
        :math:`\hat\epsilon` of the paper's section 2.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If a beta is not in [0, 1), or ``epsilon`` is not positive.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, https://arxiv.org/abs/1412.6980.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.scale_by_adam(), optim.SGD(1e-3))  # as optim.Adam(1e-3)
    """
    beta1, beta2 = fraction("beta1", beta1), fraction("beta2", beta2)
    epsilon, epsilon_hat = positive("epsilon", epsilon), flag("epsilon_hat", epsilon_hat)
    update = Bound(_adam, (beta1, beta2, epsilon, epsilon_hat))
    return Transform(Bound(_zeros, (("mean", "mean_square"),)), update)


def _adam(
    beta1: float,
    beta2: float,
    epsilon: float,
    epsilon_hat: bool,
    gradients: Arrays,
    state: Any,
    _params: Arrays,
    step: Any,
) -> tuple[Arrays, Any]:
    xp = array_namespace(*gradients)
    mean, mean_square = _remembered(state, ("mean", "mean_square"), gradients)
    mean = [beta1 * m + (1 - beta1) * g for m, g in zip(mean, gradients, strict=True)]
    mean_square = [beta2 * v + (1 - beta2) * (g * g) for v, g in zip(mean_square, gradients, strict=True)]
    # Two numbers made of the corrections save two passes over all of m and v.
    root = xp.sqrt(_one_minus_power(xp, beta2, step + 1))
    factors = each_dtype(root / _one_minus_power(xp, beta1, step + 1), gradients)
    epsilons = [epsilon] * len(gradients) if epsilon_hat else each_dtype(epsilon * root, gradients)
    gradients = [
        m / (xp.sqrt(v) + e) * f for m, v, e, f in zip(mean, mean_square, epsilons, factors, strict=True)
    ]
    return gradients, {"mean": mean, "mean_square": mean_square}


def _one_minus_power(xp: Any, beta: float, exponent: Any) -> Any:
    """Return 1 - beta ** exponent, with all digits for a beta near 1 and in single precision too."""
    return -xp.expm1(exponent * math.log(beta)) if beta else xp.ones_like(exponent)


def scale_by_root_mean_square(*, alpha: float = 0.99, epsilon: float = 1e-8) -> Transform:
    r"""Divide the gradients by the root of the running mean of their squares.

    .. math:: v \leftarrow \alpha v + (1 - \alpha) \, g^2, \qquad g \leftarrow g / (\sqrt v + \epsilon)

    Parameters
    ----------
    alpha : float, default=0.99
        The share of the mean square :math:`v` that is kept.
    epsilon : float, default=1e-8
        Keeps the divisor away from 0.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If ``alpha`` is not in [0, 1), or ``epsilon`` is not positive.

    References
    ----------
    Tieleman and Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.scale_by_root_mean_square(), optim.SGD(1e-3))
    """
    update = Bound(_root_mean_square, (fraction("alpha", alpha), positive("epsilon", epsilon)))
    return Transform(Bound(_zeros, (("mean_square",),)), update)


def _root_mean_square(
    alpha: float, epsilon: float, gradients: Arrays, state: Any, _params: Arrays, _step: Any
) -> tuple[Arrays, Any]:
    xp = array_namespace(*gradients)
    (mean_square,) = _remembered(state, ("mean_square",), gradients)
    mean_square = [alpha * v + (1 - alpha) * (g * g) for v, g in zip(mean_square, gradients, strict=True)]
    gradients = [g / (xp.sqrt(v) + epsilon) for g, v in zip(gradients, mean_square, strict=True)]
    return gradients, {"mean_square": mean_square}


def scale_by_lion(*, beta1: float = 0.9, beta2: float = 0.99) -> Transform:
    r"""Take the sign of a mix of the gradients and their running mean.

    .. math:: g' = \operatorname{sign}(\beta_1 m + (1 - \beta_1) \, g),
        \qquad m \leftarrow \beta_2 m + (1 - \beta_2) \, g, \qquad g \leftarrow g'

    Parameters
    ----------
    beta1 : float, default=0.9
        The share of the mean :math:`m` in the mix.
    beta2 : float, default=0.99
        The share of the mean that is kept.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If a beta is not in [0, 1).

    References
    ----------
    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, https://arxiv.org/abs/2302.06675.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.scale_by_lion(), optim.SGD(1e-4))  # as optim.Lion(1e-4)
    """
    update = Bound(_lion, (fraction("beta1", beta1), fraction("beta2", beta2)))
    return Transform(Bound(_zeros, (("mean",),)), update)


def _lion(
    beta1: float, beta2: float, gradients: Arrays, state: Any, _params: Arrays, _step: Any
) -> tuple[Arrays, Any]:
    xp = array_namespace(*gradients)
    (mean,) = _remembered(state, ("mean",), gradients)
    pairs = list(zip(mean, gradients, strict=True))
    signs = [xp.sign(beta1 * m + (1 - beta1) * g) for m, g in pairs]
    return signs, {"mean": [beta2 * m + (1 - beta2) * g for m, g in pairs]}


def _zeros(names: tuple[str, ...], params: Arrays) -> dict[str, Arrays]:
    """Return for each name zeros like each parameter, in its dtype and on its device."""
    xp = array_namespace(*params)
    return {name: [xp.zeros_like(p) for p in params] for name in names}


def _remembered(state: Any, names: tuple[str, ...], gradients: Arrays) -> list[Arrays]:
    """Return what a state that `_zeros` began has for each name, if it is one for such gradients.

    Another's state would go unnoticed where shapes broadcast, or where it has all of the names and more.
    """
    received = state.keys() if isinstance(state, dict) else set()
    if received != set(names):
        raise other_state(f"which remembers ({', '.join(names)}), received ({', '.join(map(str, received))})")
    shapes = [g.shape for g in gradients]
    for name in names:
        if (found := [x.shape for x in state[name]]) != shapes:
            must, is_ = ([tuple(shape) for shape in each] for each in (shapes, found))
            raise other_state(f"whose {name} has the shapes {must}, received {is_}")
    return [state[name] for name in names]


def check_state(state: Any, *keys: str) -> None:
    """Check that a state is a dict with some keys.

    Raises
    ------
    ValueError
        If it is something else: the network, say, if arguments were swapped.
    """
    if not isinstance(state, dict):
        raise other_state(f"a dict, received {type(state).__name__}")
    if not state.keys() >= set(keys):
        raise other_state(f"with {', '.join(keys)}, received ({', '.join(map(str, state))})")


def other_state(difference: str) -> ValueError:
    """Return the error for a state that is not one of this optimizer for these parameters."""
    return ValueError(
        f"the state must be one of this optimizer for these parameters, {difference}. Pass what init(params) "
        f"or the last update returned. {ORDER}"
    )


def each_dtype(scalar: Any, arrays: Arrays) -> Arrays:
    """Return an array of shape () in the dtype of each of some arrays, made once for each dtype.

    A float64 of shape () beside float32 arrays would turn them into float64.
    """
    xp = array_namespace(scalar)
    made: dict[Any, Any] = {}
    for x in arrays:
        if x.dtype not in made:
            made[x.dtype] = xp.astype(scalar, x.dtype, copy=False)
    return [made[x.dtype] for x in arrays]


def _no_state(_params: Arrays) -> tuple[()]:
    return ()
