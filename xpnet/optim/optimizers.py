"""Optimizers: pairs of pure functions, which turn parameters and their gradients into better parameters."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

from array_api_compat import device

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import is_known
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import (
    ORDER,
    Transform,
    accumulate_momentum,
    add_decayed_weights,
    check_state,
    each_dtype,
    other_state,
    scale_by_adam,
    scale_by_lion,
    scale_by_root_mean_square,
)
from xpnet.settings import at_least_zero, flag, fraction, make_python

__all__ = ["SGD", "Adam", "AdamW", "Chain", "Lion", "Optimizer", "RMSprop", "chain"]


class Optimizer:
    r"""What all optimizers share: gradients go through transforms, and then :math:`\theta - \eta g`.

    An optimizer holds settings only. What is remembered from one update to the next is the state, a tree of
    arrays that `init` makes, and `update` takes and returns.

    Attributes
    ----------
    learning_rate : float or callable
        The learning rate :math:`\eta`: a number, or a schedule that is called with the number of updates made
        before.
    transforms : tuple of Transform
        What is done to the gradients, in order.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> optimizer = xpnet.optim.SGD(0.25)
    >>> params = {"x": np.asarray([1.0, 2.0])}
    >>> state = optimizer.init(params)
    >>> grads = xpnet.grad(lambda params: params["x"] @ params["x"])(params)
    >>> params, state = optimizer.update(grads, state, params)
    >>> params
    {'x': array([0.5, 1. ])}
    """

    learning_rate: float | Schedule

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        raise NotImplementedError

    def __post_init__(self) -> None:
        make_python(self)
        if not callable(self.learning_rate) or isinstance(self.learning_rate, tree.Branch):
            at_least_zero("learning_rate", self.learning_rate)
        _ = self.transforms  # which checks their settings, now and not at the first update

    def init(self, params: Any) -> dict[str, Any]:
        """Make the state to start from.

        Parameters
        ----------
        params : tree
            A module, dict, list or tuple with floating-point arrays at its leaves.

        Returns
        -------
        dict
            ``"step"``, the number of updates made; ``"learning_rate"``, that of the last update; and
            ``"transforms"``, the state of each transform. The first two are arrays of shape () and at least
            float32, the others are of the parameters' dtypes. All are on the parameters' device. Where the
            learning rate is a number, it is taken from the state: it can be changed there during training.

        Raises
        ------
        ValueError
            If there are no parameters, or one does not hold floating-point numbers.
        """
        leaves = tree.leaves(params)
        if not leaves:
            raise ValueError(
                "an optimizer needs at least one parameter, received a tree without arrays. Pass the "
                "network, or a dict or list of arrays."
            )
        tree.check_unshared(params)
        for position, leaf in enumerate(leaves):
            if not tree.is_array(leaf) or not array_namespace(leaf).isdtype(leaf.dtype, "real floating"):
                received = leaf.dtype if tree.is_array(leaf) else type(leaf).__name__
                raise ValueError(
                    f"parameters must be arrays of real floating-point numbers, received {received} at "
                    f"{tree.paths(params)[position] or 'the root'}. Convert it with "
                    "xpnet.asarray(x, dtype='float32')."
                )
        xp = array_namespace(*leaves)
        # Wide enough to count: float16 ends at 2048.
        dtype = xp.result_type(xp.float32, *leaves)
        step = xp.zeros((), dtype=dtype, device=device(leaves[0]))
        return {
            "step": step,
            "learning_rate": self._rate(xp, step),
            "transforms": tuple(transform.init(leaves) for transform in self.transforms),
        }

    def update(self, grads: Any, state: dict[str, Any], params: Any) -> tuple[Any, dict[str, Any]]:
        """Return better parameters, and the state for the next update.

        Parameters
        ----------
        grads : tree
            The gradient of the loss with respect to each parameter. It comes first; parameters in its place
            are a tree of the same shape, and cannot be told from it.
        state : dict
            What `init` or the last `update` returned.
        params : tree
            The parameters. They are not changed.

        Returns
        -------
        params : tree
            As ``params``, with new arrays of the same dtypes; what is not trained is shared.
        state : dict

        Raises
        ------
        ValueError
            If the gradients do not have the structure, shapes and dtypes of the parameters, or the state is
            not one of this optimizer for these parameters.
        """
        check_state(state, "step", "learning_rate", "transforms")
        if len(state["transforms"]) != len(self.transforms):
            raise other_state(f"with {len(self.transforms)} transforms, received {len(state['transforms'])}")
        leaves, structure = tree.flatten(params)
        gradients, received = tree.flatten(grads)
        if received != structure:
            raise ValueError(
                f"the gradients must be a tree like the parameters, {structure}, received {received}. Pass "
                f"what xpnet.grad returns for these parameters. {ORDER}"
            )
        for position, (g, p) in enumerate(zip(gradients, leaves, strict=True)):
            if not tree.is_array(g) or g.shape != p.shape or g.dtype != p.dtype:
                received = f"{g.dtype}{list(g.shape)}" if tree.is_array(g) else type(g).__name__
                raise ValueError(
                    "a gradient must have the shape and dtype of its parameter, "
                    f"{p.dtype}{list(p.shape)}, received {received} at "
                    f"{tree.paths(params)[position] or 'the root'}."
                )
        xp = array_namespace(*leaves, *gradients)
        step, states = state["step"], []
        for transform, before in zip(self.transforms, state["transforms"], strict=True):
            gradients, after = transform.update(gradients, before, leaves, step)
            states.append(after)
        rate = self._rate(xp, step) if callable(self.learning_rate) else state["learning_rate"]
        moved = [p - r * g for p, r, g in zip(leaves, each_dtype(rate, leaves), gradients, strict=True)]
        state = {"step": step + 1, "learning_rate": rate, "transforms": tuple(states)}
        return tree.unflatten(structure, moved), state

    def _rate(self, xp: Any, step: Any) -> Any:
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        if is_known(rate):
            return xp.full_like(step, at_least_zero("learning_rate", rate))
        return xp.astype(rate, step.dtype, copy=False)


@dataclass(frozen=True)
class Chain(Optimizer):
    """Transforms followed by an optimizer; `chain` makes it."""

    parts: tuple[Transform, ...]
    optimizer: Optimizer

    def __post_init__(self) -> None:
        are_transforms = all(isinstance(part, Transform) for part in self.parts)
        if not are_transforms or not isinstance(self.optimizer, Optimizer):
            given = [part for part in (*self.parts, self.optimizer) if part is not None]
            received = ", ".join(type(part).__name__ for part in given)
            raise TypeError(
                f"chain needs transforms and at the end an optimizer, received ({received}). For example: "
                "chain(clip_by_global_norm(1.0), Adam(1e-3))."
            )
        super().__post_init__()

    @property
    def learning_rate(self) -> float | Schedule:  # type: ignore[override]
        return self.optimizer.learning_rate

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        return self.parts + self.optimizer.transforms


def chain(*parts: Transform | Optimizer) -> Optimizer:
    """Put transforms before an optimizer.

    Parameters
    ----------
    *parts : Transform or Optimizer
        Transforms in the order in which the gradients go through them, and at the end an optimizer.

    Returns
    -------
    Optimizer

    Raises
    ------
    TypeError
        If the last part is not an optimizer, or another one is not a transform.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(1e-3))
    """
    last: Any = parts[-1] if parts else None
    return Chain(parts[:-1], last)  # type: ignore[arg-type]  # which it checks


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
        parts = []
        if at_least_zero("weight_decay", self.weight_decay):
            parts.append(add_decayed_weights(self.weight_decay))
        if fraction("momentum", self.momentum):
            parts.append(accumulate_momentum(self.momentum, nesterov=self.nesterov))
        return tuple(parts)


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
        momentum = fraction("momentum", self.momentum)
        return (scale, accumulate_momentum(momentum)) if momentum else (scale,)


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
        weight_decay = at_least_zero("weight_decay", self.weight_decay)
        return (lion, add_decayed_weights(weight_decay)) if weight_decay else (lion,)
