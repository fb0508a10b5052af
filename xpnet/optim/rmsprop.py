"""RMSprop: gradients divided by the root of the running mean of their squares."""

from dataclasses import KW_ONLY, dataclass

from xpnet.autodiff import array_namespace
from xpnet.cached import cached_property
from xpnet.optim.optimizer import Optimizer
from xpnet.optim.schedules import Schedule
from xpnet.optim.sgd import accumulate_momentum
from xpnet.optim.transforms import Inputs, Transform, Updated, transform_by
from xpnet.settings import fraction, positive

__all__ = ["RMSprop", "scale_by_root_mean_square"]


def _root_mean_square(inputs: Inputs, *, alpha: float, epsilon: float) -> Updated:
    xp = array_namespace(*inputs.gradients)
    gradients, (mean_square,), *_ = inputs
    mean_square = [alpha * v + (1 - alpha) * (g * g) for v, g in zip(mean_square, gradients, strict=True)]
    scaled = [g / (xp.sqrt(v) + epsilon) for g, v in zip(gradients, mean_square, strict=True)]
    return scaled, (mean_square,)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    r"""Gradients divided by the root of the running mean of their squares.

    .. math::
        v &\leftarrow \alpha v + (1 - \alpha) \, g^2 \\
        b &\leftarrow \mu b + g / (\sqrt v + \epsilon) \\
        \theta &\leftarrow \theta - \eta b

    Parameters
    ----------
    learning_rate : float or callable, default=1e-2
        The learning rate :math:`\eta`, or a schedule.
    alpha : float, default=0.99
        The share of the mean square :math:`v` that is kept.
    epsilon : float, default=1e-8
        Keeps the divisor away from 0.
    momentum : float, default=0.0
        The share :math:`\mu` of the velocity :math:`b` that is kept.

    Raises
    ------
    ValueError
        If the learning rate is negative, ``alpha`` or ``momentum`` is not in [0, 1), or ``epsilon`` is not
        positive.

    References
    ----------
    Tieleman and Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.RMSprop(1e-3)
    """

    learning_rate: float | Schedule = 1e-2
    _: KW_ONLY
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        scale = scale_by_root_mean_square(alpha=self.alpha, epsilon=self.epsilon)
        momentum = accumulate_momentum(self.momentum)
        return (scale, momentum) if self.momentum else (scale,)


def scale_by_root_mean_square(*, alpha: float = 0.99, epsilon: float = 1e-8) -> Transform:
    r"""Divide the gradients by the root of the running mean of their squares, as `RMSprop` does.

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

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.scale_by_root_mean_square(), optim.SGD(1e-3))  # as optim.RMSprop(1e-3)
    """
    settings = {"alpha": fraction("alpha", alpha), "epsilon": positive("epsilon", epsilon)}
    return transform_by(_root_mean_square, "mean_square", **settings)
