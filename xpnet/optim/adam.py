"""Adam, and AdamW with decoupled weight decay."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from xpnet.autodiff import array_namespace
from xpnet.cached import cached_property
from xpnet.optim.optimizer import Optimizer
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import Inputs, Transform, Updated, add_decayed_weights, each_dtype, transform_by
from xpnet.settings import flag, fraction, positive

__all__ = ["Adam", "AdamW", "scale_by_adam"]


def _adam(inputs: Inputs, *, beta1: float, beta2: float, epsilon: float, epsilon_hat: bool) -> Updated:
    """Return the steps for a learning rate of 1: the equation of `Adam`."""
    xp = array_namespace(*inputs.gradients)
    gradients, (mean, mean_square), step, _params = inputs
    mean = [beta1 * m + (1 - beta1) * g for m, g in zip(mean, gradients, strict=True)]
    mean_square = [beta2 * v + (1 - beta2) * (g * g) for v, g in zip(mean_square, gradients, strict=True)]
    # With root = sqrt(1 - beta2**t), the step m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + epsilon) is
    # m / (sqrt(v) + epsilon * root) * (root / (1 - beta1**t)): both sides of the fraction times root. So two
    # numbers have the corrections, in place of two passes over m and v.
    root = xp.sqrt(_one_minus_power(xp, beta2, step + 1))
    factors = each_dtype(root / _one_minus_power(xp, beta1, step + 1), gradients)
    epsilons = [epsilon] * len(gradients) if epsilon_hat else each_dtype(epsilon * root, gradients)
    each = zip(mean, mean_square, epsilons, factors, strict=True)
    return [m / (xp.sqrt(v) + e) * f for m, v, e, f in each], (mean, mean_square)


@dataclass(frozen=True)
class Adam(Optimizer):
    r"""Steps of about the learning rate in each parameter, whatever the size of its gradients.

    At the :math:`t`-th update, counted from 1,

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) \, g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) \, g^2 \\
        \theta &\leftarrow \theta
            - \eta \, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    learning_rate : float or callable, default=1e-3
        The learning rate :math:`\eta`, or a schedule.
    beta1 : float, default=0.9
        The share of the mean of the gradients :math:`m` that is kept.
    beta2 : float, default=0.999
        The share of the mean of their squares :math:`v` that is kept.
    epsilon : float, default=1e-8
        Keeps the divisor away from 0.
    epsilon_hat : bool, default=False
        Whether epsilon is added to :math:`\sqrt v`, before the correction: the :math:`\hat\epsilon` of the
        paper's section 2, which scikit-learn and TensorFlow use.

    Raises
    ------
    ValueError
        If the learning rate is negative, a beta is not in [0, 1), or ``epsilon`` is not positive.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, https://arxiv.org/abs/1412.6980.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.Adam(1e-3)
    """

    learning_rate: float | Schedule = 1e-3
    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        settings = {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}
        return (scale_by_adam(**settings, epsilon_hat=self.epsilon_hat),)


def scale_by_adam(
    *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, epsilon_hat: bool = False
) -> Transform:
    """Turn the gradients into the steps of `Adam` for a learning rate of 1.

    That is the running mean of the gradients, divided by the root of the running mean of their squares.

    Parameters
    ----------
    beta1 : float, default=0.9
        The share of the mean that is kept.
    beta2 : float, default=0.999
        The share of the mean square that is kept.
    epsilon : float, default=1e-8
        Keeps the divisor away from 0.
    epsilon_hat : bool, default=False
        See `Adam`.

    Returns
    -------
    Transform

    Raises
    ------
    ValueError
        If a beta is not in [0, 1), or ``epsilon`` is not positive.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.scale_by_adam(), optim.SGD(1e-3))  # as optim.Adam(1e-3)
    """
    settings = {"beta1": fraction("beta1", beta1), "beta2": fraction("beta2", beta2)}
    settings |= {"epsilon": positive("epsilon", epsilon), "epsilon_hat": flag("epsilon_hat", epsilon_hat)}
    return transform_by(_adam, "mean", "mean_square", **settings)


@dataclass(frozen=True)
class AdamW(Optimizer):
    r"""Adam with weight decay that the gradients do not scale.

    With the update :math:`u` of `Adam` for a learning rate of 1,

    .. math:: \theta \leftarrow \theta - \eta \, (u + \lambda \theta)

    Parameters
    ----------
    learning_rate : float or callable, default=1e-3
        The learning rate :math:`\eta`, or a schedule.
    beta1 : float, default=0.9
        The share of the mean of the gradients that is kept.
    beta2 : float, default=0.999
        The share of the mean of their squares that is kept.
    epsilon : float, default=1e-8
        Keeps the divisor away from 0.
    weight_decay : float, default=1e-2
        The decay :math:`\lambda`.

    Raises
    ------
    ValueError
        If the learning rate or the decay is negative, a beta is not in [0, 1), or ``epsilon`` is not
        positive.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, https://arxiv.org/abs/1711.05101.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.AdamW(optim.cosine(1e-3, steps=1000), weight_decay=0.1)
    """

    learning_rate: float | Schedule = 1e-3
    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        adam = scale_by_adam(beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon)
        return (adam, add_decayed_weights(self.weight_decay))


def _one_minus_power(xp: Any, beta: float, exponent: Any) -> Any:
    """Return 1 - beta ** exponent, with all digits for a beta near 1 and in single precision too."""
    return -xp.expm1(exponent * math.log(beta)) if beta else xp.ones_like(exponent)
