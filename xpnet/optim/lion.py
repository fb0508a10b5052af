"""Lion: steps by the sign of a running mean of the gradients."""

from dataclasses import KW_ONLY, dataclass

from xpnet.autodiff import array_namespace
from xpnet.cached import cached_property
from xpnet.optim.optimizer import Optimizer
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import Inputs, Transform, Updated, add_decayed_weights, transform_by
from xpnet.settings import fraction

__all__ = ["Lion", "scale_by_lion"]


def _lion(inputs: Inputs, *, beta1: float, beta2: float) -> Updated:
    xp = array_namespace(*inputs.gradients)
    gradients, (mean,), *_ = inputs
    signs = [xp.sign(beta1 * m + (1 - beta1) * g) for m, g in zip(mean, gradients, strict=True)]
    mean = [beta2 * m + (1 - beta2) * g for m, g in zip(mean, gradients, strict=True)]
    return signs, (mean,)


@dataclass(frozen=True)
class Lion(Optimizer):
    r"""Steps of exactly the learning rate in each parameter, by the sign of a mean of the gradients.

    .. math::
        u &\leftarrow \operatorname{sign}(\beta_1 m + (1 - \beta_1) \, g) \\
        m &\leftarrow \beta_2 m + (1 - \beta_2) \, g \\
        \theta &\leftarrow \theta - \eta \, (u + \lambda \theta)

    Parameters
    ----------
    learning_rate : float or callable, default=1e-4
        The learning rate :math:`\eta`, or a schedule. Use three to ten times less than for `AdamW`.
    beta1 : float, default=0.9
        The share of the mean :math:`m` in the direction.
    beta2 : float, default=0.99
        The share of the mean that is kept.
    weight_decay : float, default=0.0
        The decay :math:`\lambda`. Use three to ten times more than for `AdamW`.

    Raises
    ------
    ValueError
        If the learning rate or the decay is negative, or a beta is not in [0, 1).

    References
    ----------
    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, https://arxiv.org/abs/2302.06675.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.Lion(1e-4, weight_decay=0.1)
    """

    learning_rate: float | Schedule = 1e-4
    _: KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        lion = scale_by_lion(beta1=self.beta1, beta2=self.beta2)
        decay = add_decayed_weights(self.weight_decay)
        return (lion, decay) if self.weight_decay else (lion,)


def scale_by_lion(*, beta1: float = 0.9, beta2: float = 0.99) -> Transform:
    r"""Take the sign of a mix of the gradients and their running mean: :math:`u` of `Lion`.

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

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.scale_by_lion(), optim.SGD(1e-4))  # as optim.Lion(1e-4)
    """
    return transform_by(_lion, "mean", beta1=fraction("beta1", beta1), beta2=fraction("beta2", beta2))
