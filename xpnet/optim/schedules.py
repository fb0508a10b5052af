"""Learning rates that change during training: functions of the number of updates made so far.

A schedule is any callable from a step to a learning rate. Those here take a number and return one, or an
array of floating-point numbers, usually the step count of shape () in an optimizer's state.
"""

import math
from collections.abc import Callable
from typing import Any

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import asarray, is_numpy_number
from xpnet.optim.bound import Bound
from xpnet.settings import at_least_zero, count, positive, up_to_one

__all__ = ["Schedule", "constant", "cosine", "one_cycle", "step_decay", "warmup_cosine"]

Schedule = Callable[[Any], Any]


def constant(rate: float) -> Schedule:
    r"""Keep the learning rate.

    Parameters
    ----------
    rate : float
        The learning rate :math:`\eta`.

    Returns
    -------
    callable
        :math:`\eta(s) = \eta` at each step :math:`s`.

    Raises
    ------
    ValueError
        If the rate is negative.

    Examples
    --------
    >>> from xpnet import optim
    >>> optim.constant(0.1)(1000)
    0.1
    """
    return _schedule(_constant, at_least_zero("rate", rate))


def _constant(xp: Any, step: Any, rate: float) -> Any:
    return xp.full_like(step, rate)


def step_decay(rate: float, *, every: int, factor: float = 0.1) -> Schedule:
    r"""Multiply the learning rate by a factor every so many steps.

    Parameters
    ----------
    rate : float
        The learning rate :math:`\eta` at the start.
    every : int
        After how many steps :math:`k` it falls.
    factor : float, default=0.1
        The factor :math:`\gamma`.

    Returns
    -------
    callable
        :math:`\eta(s) = \eta \, \gamma^{\lfloor s / k \rfloor}` at step :math:`s`.

    Raises
    ------
    ValueError
        If the rate or the factor is negative, or ``every`` is below 1.

    Examples
    --------
    >>> from xpnet import optim
    >>> schedule = optim.step_decay(1.0, every=10, factor=0.5)
    >>> schedule(9), schedule(10), schedule(20)
    (1.0, 0.5, 0.25)
    """
    rate, factor = at_least_zero("rate", rate), at_least_zero("factor", factor)
    return _schedule(_step_decay, rate, count("every", every), factor)


def _step_decay(_xp: Any, step: Any, rate: float, every: int, factor: float) -> Any:
    return rate * factor ** (step // every)


def cosine(rate: float, *, steps: int, final: float = 0.0) -> Schedule:
    r"""Let the learning rate fall along half a cosine, and then keep it.

    Parameters
    ----------
    rate : float
        The learning rate :math:`\eta` at the start.
    steps : int
        The number of steps :math:`S` until the final rate is reached.
    final : float, default=0.0
        The final rate :math:`\eta_S`.

    Returns
    -------
    callable
        :math:`\eta(s) = \eta_S + (\eta - \eta_S) \, (1 + \cos(\pi \min(s / S, 1))) / 2` at step :math:`s`.

    Raises
    ------
    ValueError
        If a rate is negative, or ``steps`` is below 1.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    https://arxiv.org/abs/1608.03983.

    Examples
    --------
    >>> from xpnet import optim
    >>> schedule = optim.cosine(1.0, steps=100)
    >>> schedule(0), schedule(50), schedule(100)
    (1.0, 0.5, 0.0)
    """
    rate, final = at_least_zero("rate", rate), at_least_zero("final", final)
    return _schedule(_cosine, rate, count("steps", steps), final)


def _cosine(xp: Any, step: Any, rate: float, steps: int, final: float) -> Any:
    return _half_cosine(xp, rate, final, step / steps)


def warmup_cosine(
    rate: float, *, warmup_steps: int, steps: int, initial: float = 0.0, final: float = 0.0
) -> Schedule:
    r"""Let the learning rate rise along a line, and then fall along half a cosine.

    Parameters
    ----------
    rate : float
        The highest learning rate :math:`\eta`, reached at step :math:`W`.
    warmup_steps : int
        The number of steps :math:`W` of the rise.
    steps : int
        The number of steps :math:`S` until the final rate is reached, those of the rise included.
    initial : float, default=0.0
        The rate :math:`\eta_0` at step 0.
    final : float, default=0.0
        The final rate.

    Returns
    -------
    callable
        :math:`\eta(s) = \eta_0 + (\eta - \eta_0) \, s / W` before step :math:`W`, and from there on what
        `cosine` with :math:`S - W` steps gives at :math:`s - W`.

    Raises
    ------
    ValueError
        If a rate is negative, ``warmup_steps`` is below 1, or ``steps`` is not greater.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017,
    https://arxiv.org/abs/1706.02677, for the warm-up; `cosine` for the rest.

    Examples
    --------
    >>> from xpnet import optim
    >>> schedule = optim.warmup_cosine(1.0, warmup_steps=10, steps=110)
    >>> schedule(0), schedule(5), schedule(10), schedule(60), schedule(110)
    (0.0, 0.5, 1.0, 0.5, 0.0)
    """
    rate = at_least_zero("rate", rate)
    initial, final = at_least_zero("initial", initial), at_least_zero("final", final)
    warmup_steps, steps = count("warmup_steps", warmup_steps), count("steps", steps)
    if not steps > warmup_steps:
        raise ValueError(f"steps must be greater than warmup_steps, received {steps} and {warmup_steps}.")
    return _schedule(_warmup_cosine, rate, warmup_steps, steps, initial, final)


def _warmup_cosine(
    xp: Any, step: Any, rate: float, warmup_steps: int, steps: int, initial: float, final: float
) -> Any:
    rise = initial + (rate - initial) * (step / warmup_steps)
    fall = _half_cosine(xp, rate, final, (step - warmup_steps) / (steps - warmup_steps))
    return xp.where(step < warmup_steps, rise, fall)


def one_cycle(
    rate: float,
    *,
    steps: int,
    warmup_fraction: float = 0.3,
    initial_divisor: float = 25.0,
    final_divisor: float = 1e4,
) -> Schedule:
    r"""Let the learning rate rise and fall once, each along half a cosine, over a whole training.

    Parameters
    ----------
    rate : float
        The highest learning rate :math:`\eta`.
    steps : int
        The number of steps of the training.
    warmup_fraction : float, default=0.3
        The share of the steps in which the rate rises.
    initial_divisor : float, default=25.0
        The rate begins at :math:`\eta` divided by this.
    final_divisor : float, default=1e4
        The rate ends, at step ``steps - 1``, at the rate it began with divided by this.

    Returns
    -------
    callable
        From a step to the learning rate. It is highest at ``warmup_fraction * steps - 1``, as in PyTorch.

    Raises
    ------
    ValueError
        If the rate is negative, a divisor is not positive, or there is no step for the rise or for the fall.

    References
    ----------
    Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    2018, https://arxiv.org/abs/1708.07120.

    Examples
    --------
    >>> from xpnet import optim
    >>> schedule = optim.one_cycle(1.0, steps=100)
    >>> round(schedule(0), 6), round(schedule(29), 6), round(schedule(99), 6)
    (0.04, 1.0, 4e-06)
    """
    rate = at_least_zero("rate", rate)
    initial = rate / positive("initial_divisor", initial_divisor)
    final = initial / positive("final_divisor", final_divisor)
    steps = count("steps", steps)
    peak = up_to_one("warmup_fraction", warmup_fraction) * steps - 1
    if not 0 < peak < steps - 1:
        raise ValueError(
            "warmup_fraction * steps must be more than 1 and less than steps, so that the rate can rise and "
            f"fall, received warmup_fraction={warmup_fraction} and steps={steps}."
        )
    return _schedule(_one_cycle, rate, steps, peak, initial, final)


def _one_cycle(xp: Any, step: Any, rate: float, steps: int, peak: float, initial: float, final: float) -> Any:
    rise = _half_cosine(xp, initial, rate, step / peak)
    fall = _half_cosine(xp, rate, final, (step - peak) / (steps - 1 - peak))
    return xp.where(step < peak, rise, fall)


def _half_cosine(xp: Any, start: float, end: float, fraction: Any) -> Any:
    """Go from start to end while the fraction goes from 0 to 1, and stay there."""
    return end + (start - end) * (1 + xp.cos(math.pi * xp.minimum(fraction, 1.0))) / 2


def _schedule(rate_at: Callable[..., Any], *settings: float) -> Schedule:
    """Make a schedule that takes arrays and Python numbers. It can be pickled, unlike a closure."""
    return Bound(_evaluate, (rate_at, settings))


def _evaluate(rate_at: Callable[..., Any], settings: tuple[float, ...], step: Any) -> Any:
    if tree.is_array(step) and not (is_numpy_number(step) and step.dtype.kind != "f"):
        xp = array_namespace(step)
        if not xp.isdtype(step.dtype, "real floating"):
            step = xp.astype(step, xp.__array_namespace_info__().default_dtypes()["real floating"])
        return rate_at(xp, step, *settings)
    host = asarray(at_least_zero("step", step), device="cpu")
    return float(rate_at(array_namespace(host), host, *settings))
