"""Loss scaling: gradients that are too small for float16 are multiplied until they fit."""

from dataclasses import KW_ONLY, dataclass, replace
from functools import reduce
from typing import Any

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.optim.optimizer import Optimizer
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import check_state, each_dtype, everywhere
from xpnet.settings import count, is_number, make_python

__all__ = ["LossScaling"]

# A scale beyond would gain nothing, and would not come back from infinity or 0.
SMALLEST, LARGEST = 2.0**-24, 2.0**24


@dataclass(frozen=True)
class LossScaling:
    r"""An optimizer for the gradients of a loss that was multiplied by a scale.

    float16 has no numbers below 6e-8, and few gradients are much larger: those that become 0 are lost. With
    the loss, all gradients are multiplied by a scale :math:`s`, which is a part of the state:
    ``state["loss_scale"]``. `update` divides them again, in float32,

    .. math:: g \leftarrow g / s

    and if all of them are finite, it does what the optimizer does. Otherwise the scale was too large: the
    parameters and the state of the optimizer stay as they were, and the scale is halved. It is doubled after
    some updates in a row without such a skip. Nothing of this waits for the device. `fit` does it by itself
    with ``precision="float16"``.

    Parameters
    ----------
    optimizer : Optimizer
        With all transforms of the gradients in it, such as `clip_by_global_norm`: they see them unscaled.
    initial_scale : float, default=65536
        The scale to start from, from 2\ :sup:`-24` to 2\ :sup:`24`. Use a power of 2, by which numbers are
        divided without rounding.
    growth_interval : int, default=2000
        After how many updates without a skip the scale is doubled, up to 2\ :sup:`24`.

    Raises
    ------
    TypeError
        If ``optimizer`` is not an optimizer.
    ValueError
        If the scale is out of its range, or the interval less than 1.

    References
    ----------
    Micikevicius et al., "Mixed Precision Training", 2018, https://arxiv.org/abs/1710.03740.

    Examples
    --------
    In a loop of your own, wrap the optimizer and multiply the loss:

    >>> import numpy as np
    >>> import xpnet
    >>> net, x = xpnet.nn.Dense(2, 1, seed=0), np.eye(2, dtype=np.float32)
    >>> optimizer = xpnet.optim.LossScaling(xpnet.optim.SGD(0.1))
    >>> def step(net, state, x, y):
    ...     def loss(net):
    ...         return xpnet.losses.mse(net(x), y) * state["loss_scale"]
    ...     return optimizer.update(xpnet.grad(loss)(net), state, net)
    >>> step, state = xpnet.jit(step, precision="float16"), optimizer.init(net)
    >>> for _ in range(100):
    ...     net, state = step(net, state, x, x.sum(axis=1, keepdims=True))
    >>> bool(xpnet.losses.mse(net(x), x.sum(axis=1, keepdims=True)) < 0.001)
    True
    """

    optimizer: Optimizer
    _: KW_ONLY
    initial_scale: float = 2.0**16
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        make_python(self)
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                "LossScaling needs an optimizer, such as xpnet.optim.Adam(1e-3), received "
                f"{type(self.optimizer).__name__}."
            )
        if not (is_number(self.initial_scale) and SMALLEST <= self.initial_scale <= LARGEST):
            raise ValueError(f"initial_scale must be from 2**-24 to 2**24, received {self.initial_scale!r}.")
        count("growth_interval", self.growth_interval)

    @property
    def learning_rate(self) -> float | Schedule | tuple[float | Schedule, ...]:
        return self.optimizer.learning_rate

    def init(self, params: Any) -> dict[str, Any]:
        """Make the state to start from.

        Parameters
        ----------
        params : tree
            See `Optimizer.init`.

        Returns
        -------
        dict
            The state of the optimizer, and in the dtype of its step, arrays of shape (): ``"loss_scale"``,
            and ``"finite_steps"``, the number of updates since the scale was changed or one was skipped.
        """
        state = self.optimizer.init(params)
        step = state["step"]
        xp = array_namespace(step)
        scale = xp.full_like(step, float(self.initial_scale))
        return state | {"loss_scale": scale, "finite_steps": xp.zeros_like(step)}

    def chosen(self, params: Any) -> "LossScaling":
        """See `Optimizer.chosen`."""
        return replace(self, optimizer=self.optimizer.chosen(params))

    def checked(self, state: Any) -> dict[str, Any]:
        """Return a state in which learning rates that were assigned as numbers are arrays.

        Raises
        ------
        ValueError
            See `Optimizer.checked`.
        """
        check_state(state, "loss_scale", "finite_steps")
        return self.optimizer.checked(state)

    def update(self, grads: Any, state: dict[str, Any], params: Any) -> tuple[Any, dict[str, Any]]:
        """Return better parameters, or the same if a gradient is infinite or NaN, and the next state.

        Parameters
        ----------
        grads : tree
            The gradient of the loss times ``state["loss_scale"]`` with respect to each parameter.
        state : dict
            What `init` or the last `update` returned.
        params : tree
            The parameters. They are not changed.

        Returns
        -------
        params : tree
        state : dict

        Raises
        ------
        ValueError
            See `Optimizer.update`.
        """
        before = dict(self.checked(state))
        scale, steps = before.pop("loss_scale"), before.pop("finite_steps")
        gradients, structure = tree.flatten(grads)
        if not gradients or not all(map(tree.is_array, gradients)):
            return self.optimizer.update(grads, before, params)  # which says what they must be
        xp = array_namespace(scale, *gradients)
        gradients = [g * s for g, s in zip(gradients, each_dtype(1 / scale, gradients), strict=True)]
        is_finite = reduce(xp.logical_and, [xp.all(xp.isfinite(g)) for g in gradients])
        is_finite = everywhere(is_finite)
        after = self.optimizer.update(tree.unflatten(structure, gradients), before, params)
        params, after = tree.map(lambda new, old: xp.where(is_finite, new, old), after, (params, before))

        steps = xp.where(is_finite, steps + 1, 0.0)
        grows = steps >= self.growth_interval
        grown = xp.where(grows, xp.minimum(2 * scale, LARGEST), scale)
        scale = xp.where(is_finite, grown, xp.maximum(scale / 2, SMALLEST))
        return params, after | {"loss_scale": scale, "finite_steps": xp.where(grows, 0.0, steps)}
