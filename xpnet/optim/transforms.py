"""The parts of optimizers: each transforms gradients on their way to becoming an update of the parameters.

Inside an optimizer, parameters and gradients are flat lists of arrays, in a fixed order. The step is an array
of shape (): the number of updates made before. Everything is written with functions of the standard on arrays
of the parameters' own dtype and device, and nothing waits for a device. They are functions of modules and
settings, no closures, so that they can be pickled, and that two with the same settings are equal.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NamedTuple

from xpnet.autodiff import array_namespace
from xpnet.backends import at_least_single, in_dtype
from xpnet.optim.bound import Bound
from xpnet.scopes import having
from xpnet.settings import at_least_zero, positive

__all__ = ["Transform", "add_decayed_weights", "clip_by_global_norm", "total"]

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


class Inputs(NamedTuple):
    """What the equation of a transform is given at an update."""

    gradients: Arrays
    remembered: list[Arrays]
    step: Any
    params: Arrays


# What it returns: the gradients that go on, and what is remembered until the next update.
Updated = tuple[Arrays, tuple[Arrays, ...]]


def transform_by(equation: Callable[..., Updated], *remembers: str, **settings: Any) -> Transform:
    """Make a transform of an equation.

    Parameters
    ----------
    equation : callable
        A function of a module, ``equation(inputs, **settings) -> (gradients, remembered)``.
    *remembers : str
        The names of what it remembers: for each a list of arrays like the parameters, zeros at first. The
        state is a dict of these lists, and () if there are none.
    **settings
        Numbers of Python's.
    """
    update = Bound(_update, (equation, remembers, tuple(settings.items())))
    return Transform(Bound(_zeros, (remembers,)), update)


def _zeros(names: tuple[str, ...], params: Arrays) -> Any:
    xp = array_namespace(*params)
    return {name: [xp.zeros_like(p) for p in params] for name in names} or ()


def _update(
    equation: Callable[..., Updated],
    names: tuple[str, ...],
    settings: tuple[tuple[str, Any], ...],
    gradients: Arrays,
    state: Any,
    params: Arrays,
    step: Any,
) -> tuple[Arrays, Any]:
    # Another's state would go unnoticed where shapes broadcast, or where it has all of the names and more.
    received = state.keys() if isinstance(state, dict) else set()
    if received != set(names):
        raise other_state(f"which remembers ({', '.join(names)}), received ({', '.join(map(str, received))})")
    shapes = [g.shape for g in gradients]
    for name in names:
        if (found := [x.shape for x in state[name]]) != shapes:
            must, is_ = ([tuple(shape) for shape in each] for each in (shapes, found))
            raise other_state(f"whose {name} has the shapes {must}, received {is_}")
    remembered = [state[name] for name in names]
    gradients, after = equation(Inputs(gradients, remembered, step, params), **dict(settings))
    return gradients, dict(zip(names, after, strict=True)) if names else state


class OverPieces(NamedTuple):
    """What is asked of all pieces of the parameters, where each of several processes has one.

    Attributes
    ----------
    total : callable
        Adds up arrays of shape (), or trees of them.
    everywhere : callable
        Says whether something is true of all pieces: an array of bool and shape ().
    """

    total: Callable[[Any], Any]
    everywhere: Callable[[Any], Any]


_OVER_PIECES: ContextVar[OverPieces | None] = ContextVar("over pieces", default=None)


def over_pieces(asked: OverPieces) -> AbstractContextManager[None]:
    """Let `total` and `everywhere` ask for all pieces."""
    return having(_OVER_PIECES, asked)


def everywhere(truth: Any) -> Any:
    """Say whether something that is true of what an optimizer is given is true of all pieces."""
    asked = _OVER_PIECES.get()
    return truth if asked is None else asked.everywhere(truth)


def total(sums: Any) -> Any:
    """Return sums over all elements of the parameters, of sums over those that a transform is given.

    Where each of several processes has a piece of the parameters (`distributed.Group.shard`), they are added
    up over the processes; else it returns what it is given. Transforms that look at more than one element at
    a time, as `clip_by_global_norm` does, call it.

    Parameters
    ----------
    sums : array or tree of array, shape ()
        What `sum` or `vecdot` returned for all elements of an array, or sums of such; 0 of an array without
        elements.

    Returns
    -------
    array or tree

    Raises
    ------
    ValueError
        If a transform in pieces gives something else.

    Examples
    --------
    A transform that divides the gradients of each parameter by their norm:

    >>> from xpnet import array_namespace, optim
    >>> def normalized(gradients, state, params, step):
    ...     xp = array_namespace(*gradients)
    ...     squares = optim.total([xp.sum(g * g) for g in gradients])
    ...     return [g / xp.sqrt(s + 1e-12) for g, s in zip(gradients, squares)], state
    >>> optimizer = optim.chain(optim.Transform(lambda params: (), normalized), optim.SGD(0.01))
    """
    asked = _OVER_PIECES.get()
    return sums if asked is None else asked.total(sums)


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
    return transform_by(_clip, max_norm=positive("max_norm", max_norm))


def _clip(inputs: Inputs, *, max_norm: float) -> Updated:
    gradients = inputs.gradients
    xp = array_namespace(*gradients)
    wide = [at_least_single(xp, g) for g in gradients]  # squares of float16 overflow above 255
    flat = [xp.reshape(g, (-1,)) for g in wide]
    squares = [xp.vecdot(g, g) for g in flat]  # one pass and no array between, unlike sum(g * g)
    scale = max_norm / xp.maximum(xp.sqrt(total(sum(squares[1:], squares[0]))), max_norm)
    scaled = [g * s for g, s in zip(wide, each_dtype(scale, wide), strict=True)]
    return [in_dtype(xp, s, g.dtype) for s, g in zip(scaled, gradients, strict=True)], ()


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
    return transform_by(_decay, weight_decay=at_least_zero("weight_decay", weight_decay))


def _decay(inputs: Inputs, *, weight_decay: float) -> Updated:
    return [g + weight_decay * p for g, p in zip(inputs.gradients, inputs.params, strict=True)], ()


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
    made = {dtype: xp.astype(scalar, dtype, copy=False) for dtype in {x.dtype: None for x in arrays}}
    return [made[x.dtype] for x in arrays]
