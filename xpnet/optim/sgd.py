"""Stochastic gradient descent, with momentum."""

from dataclasses import KW_ONLY, dataclass

from xpnet.cached import cached_property
from xpnet.optim.optimizer import Optimizer
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import Inputs, Transform, Updated, add_decayed_weights, transform_by
from xpnet.settings import flag, fraction

__all__ = ["SGD", "accumulate_momentum"]


def _momentum(inputs: Inputs, *, momentum: float, nesterov: bool) -> Updated:
    gradients, (velocity,), *_ = inputs
    velocity = [momentum * v + g for v, g in zip(velocity, gradients, strict=True)]
    ahead = [g + momentum * v for g, v in zip(gradients, velocity, strict=True)] if nesterov else velocity
    return ahead, (velocity,)


@dataclass(frozen=True)
class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum if asked for.

    .. math::
        g &\leftarrow g + \lambda \theta \\
        v &\leftarrow \mu v + g \\
        \theta &\leftarrow \theta - \eta v \quad\text{or, with Nesterov,}\quad \theta - \eta \, (g + \mu v)

    Parameters
    ----------
    learning_rate : float or callable
        The learning rate :math:`\eta`, or a schedule.
    momentum : float, default=0.0
        The share :math:`\mu` of the velocity :math:`v` that is kept.
    nesterov : bool, default=False
        Whether to look one step ahead.
    weight_decay : float, default=0.0
        The factor :math:`\lambda` of the penalty :math:`\lambda \lVert \theta \rVert^2 / 2`.

    Raises
    ------
    ValueError
        If a setting is negative, ``momentum`` is not less than 1, or Nesterov is asked for without momentum.

    References
    ----------
    Sutskever et al., "On the Importance of Initialization and Momentum in Deep Learning", 2013,
    https://proceedings.mlr.press/v28/sutskever13.html.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.SGD(0.1, momentum=0.9, nesterov=True)
    """

    learning_rate: float | Schedule
    _: KW_ONLY
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        if flag("nesterov", self.nesterov) and not self.momentum:
            raise ValueError("nesterov=True needs momentum, received momentum=0. Try momentum=0.9.")
        decay = self.weight_decay, add_decayed_weights(self.weight_decay)
        momentum = self.momentum, accumulate_momentum(self.momentum, nesterov=self.nesterov)
        return tuple(part for setting, part in (decay, momentum) if setting)


def accumulate_momentum(momentum: float, *, nesterov: bool = False) -> Transform:
    r"""Keep moving in the direction of earlier gradients: what `SGD` multiplies by the learning rate.

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

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.accumulate_momentum(0.9), optim.SGD(0.1))
    """
    settings = {"momentum": fraction("momentum", momentum), "nesterov": flag("nesterov", nesterov)}
    return transform_by(_momentum, "velocity", **settings)
