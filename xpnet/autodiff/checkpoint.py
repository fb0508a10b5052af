"""`checkpoint` of a function: recomputation in the place of storage.

Checkpoints of trainings, which are files, are in `xpnet.training.resume`.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from xpnet import tree
from xpnet.autodiff.custom import FROM_OUTSIDE
from xpnet.autodiff.primitive import function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Tracer
from xpnet.autodiff.transforms import vjp
from xpnet.errors import NoGradientError

P = ParamSpec("P")
R = TypeVar("R")


def _compute(_xp: Any, *values: Any, run: Callable[..., Any]) -> Any:
    result = run(*values)
    if type(result) is Tracer and result.node is not None:
        raise NoGradientError(FROM_OUTSIDE)
    result = result.value if type(result) is Tracer else result
    if not tree.is_array(result):
        raise TypeError(
            f"a function with a checkpoint must return one array, received {type(result).__name__}. Put "
            "several together, as with xp.stack, and take them apart outside."
        )
    return result


@function(
    joint=lambda xp, g, _y, *inputs, run: [conj(xp, one) for one in vjp(run, *inputs)[1](conj(xp, g))],
    compute=_compute,
)
def _recomputed(call: Any, *arrays: Any, run: Callable[..., Any]) -> Any:
    return call(*arrays, run=run)


def checkpoint(f: Callable[P, R]) -> Callable[P, R]:
    """Make a function that keeps nothing of what it computes but its arguments.

    The backward sweep computes it a second time. A deep network whose blocks are wrapped needs memory for the
    inputs of the blocks and for what is inside one of them, and up to a third more time.

    T. Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

    Parameters
    ----------
    f : callable
        A function of arrays or trees that returns one array, or a module. Arrays with a gradient must be its
        arguments, by position or by keyword, or the module's own: those that it closes over are refused. It
        must compute the same each time; the random numbers of a module are drawn as in the first call.

    Returns
    -------
    callable
        With the arguments of ``f``.

    Raises
    ------
    NoGradientError
        If it closes over an array whose gradient would be lost.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> def block(x):
    ...     xp = xpnet.array_namespace(x)
    ...     return xp.sin(xp.exp(x))
    >>> bool(xpnet.grad(xpnet.checkpoint(block))(0.5) == xpnet.grad(block)(0.5))
    True
    """

    @functools.wraps(f)
    def wrapped(*arguments: P.args, **keywords: P.kwargs) -> Any:
        module = f if isinstance(f, tree.Branch) else ()
        given = (module, arguments, keywords)
        leaves, structure = tree.flatten(given, state=True)
        traced = {i: x for i, x in enumerate(leaves) if type(x) is Tracer and x.node is not None}
        if not traced:
            return f(*arguments, **keywords)
        constants = [x.value if type(x) is Tracer else x for x in leaves]
        for i in traced:
            constants[i] = None  # which is kept once, as an input of the node
        moves_state: list[Any] = [given]

        def run(*arrays: Any) -> Any:
            filled = list(constants)
            for i, x in zip(traced, arrays, strict=True):
                filled[i] = x
            taken = tree.unflatten(structure, filled)
            copy, inputs, options = taken
            result = (copy or f)(*inputs, **options)
            while moves_state:  # at the first call, not when it is computed again
                tree.copy_state(taken, moves_state.pop())
            return result

        first = next(iter(traced.values()))
        return first.namespace._recomputed(*traced.values(), run=run)

    return wrapped
