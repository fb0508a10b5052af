"""Gradients of one's own in the place of rules."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from xpnet import tree
from xpnet.autodiff.backward import reachable
from xpnet.autodiff.call import called
from xpnet.autodiff.primitive import ARGUMENT, Primitive
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Node, Tracer, numbers
from xpnet.autodiff.transforms import carries_gradient
from xpnet.errors import NoGradientError

P = ParamSpec("P")
R = TypeVar("R")

Backward = Callable[[Any], Any]


def _custom(xp: Any, g: Any, _y: Any, *_inputs: Any, backward: Backward, namespace: Any) -> list[Any]:
    # `backward` closes over traced values, so it gets a traced gradient; a first-order sweep goes on plain.
    gradients = called(backward, namespace.lift(conj(xp, g)))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(gradients) != len(_inputs):
        raise ValueError(
            f"backward must return a gradient for each of the {len(_inputs)} arguments (None where there is "
            f"none), received {len(gradients)}."
        )
    for g, x in zip(gradients, _inputs, strict=True):
        if g is not None and not tree.is_array(g):
            raise TypeError(
                f"backward must return an array, or None, for each argument, received {type(g).__name__}. "
                "Return an array of the shape of the argument, and a tuple of them for several."
            )
        if g is not None and tuple(getattr(g, "shape", ())) != tuple(getattr(x, "shape", ())):
            raise ValueError(
                "backward must return gradients of the shapes of the arguments, received shape "
                f"{tuple(g.shape)} for an argument of shape {tuple(x.shape)}."
            )
    lifted = [g if g is None else conj(namespace, namespace.lift(g)) for g in gradients]
    if xp is namespace:
        return lifted
    known = _origins([x for x in _inputs if type(x) is Node])
    if not _origins([g.node for g in lifted if g is not None and g.node]) <= known:
        raise NoGradientError(FROM_OUTSIDE)
    return [g if g is None else g.value for g in lifted]


FROM_OUTSIDE = (
    "a function under jit, in scan, with a checkpoint or with a custom gradient received an array from "
    "outside whose gradient would be lost. Pass it as an argument, or call xpnet.stop_gradient(x) on it "
    "first."
)


def _origins(nodes: list[Node]) -> set[Node]:
    """Return the arguments of transforms that some nodes depend on."""
    found, _ = reachable(nodes, 0)
    return {node for node in found if node.primitive is ARGUMENT}


_CUSTOM = Primitive("custom_gradient", joint=_custom)


def _check_closure(node: Node, arguments: set[Node], start: int) -> None:
    """Refuse a result that depends on traced arrays from outside: `backward` has no gradient for them."""
    nodes, _ = reachable([node], start)
    sources = {x for one in nodes for x in one.inputs if type(x) is Node and x.number < start}
    if not (sources if nodes else {node}) <= arguments:
        raise NoGradientError(FROM_OUTSIDE)


def _pair(returned: Any) -> tuple[Any, Backward]:
    if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
        raise TypeError(
            "a function with a custom gradient must return (result, backward), an array and a function, "
            f"received {type(returned).__name__}."
        )
    if not tree.is_array(returned[0]):
        raise TypeError(
            "the result of a function with a custom gradient must be one array, received "
            f"{type(returned[0]).__name__}. Put several together, as with xp.stack, and take them apart "
            "outside."
        )
    return returned


def custom_gradient(f: Callable[P, tuple[R, Backward]]) -> Callable[P, R]:
    """Give a function a gradient of one's own. Used as a decorator.

    Parameters
    ----------
    f : callable
        Takes arrays and numbers by position, and anything without a gradient by keyword. It returns
        ``(result, backward)``: an array, and a function that makes from the gradient of the result the
        gradients of the arguments that were given by position, a tuple of one for each (None for none).

    Returns
    -------
    callable
        With the arguments of ``f``. It returns the result alone.

    Raises
    ------
    NoGradientError
        If an array with a gradient is given by keyword, or comes from outside: ``backward`` has none for it.

    Notes
    -----
    ``backward`` is itself differentiated in gradients of gradients.

    Examples
    --------
    A step function whose gradient is that of the identity (a straight-through estimator):

    >>> import xpnet
    >>> @xpnet.custom_gradient
    ... def step(x):
    ...     return xpnet.array_namespace(x).sign(x), lambda g: g
    >>> float(xpnet.grad(lambda x: 2 * step(x))(0.3))
    2.0
    """

    @functools.wraps(f)
    def wrapped(*arrays: P.args, **keywords: P.kwargs) -> Any:
        for x in arrays:
            if not tree.is_array(x) and not isinstance(x, int | float | complex):
                raise TypeError(
                    "a function with a custom gradient takes arrays and numbers by position, received "
                    f"{type(x).__name__}. Pass the arrays of a tree one by one, and anything else by keyword."
                )
        for name, value in keywords.items():
            if any(carries_gradient(x) for x in tree.leaves(value, state=True)):
                raise NoGradientError(
                    "a function with a custom gradient takes arrays with a gradient by position, received "
                    f"one by keyword, {name}, whose gradient would be lost. Pass it by position, or call "
                    "xpnet.stop_gradient(x) on it first."
                )
        tracers = [x for x in arrays if type(x) is Tracer]
        inputs = tuple(x.node or x.value if type(x) is Tracer else x for x in arrays)
        start = next(numbers)
        result, backward = _pair(f(*arrays, **keywords))
        if type(result) is Tracer and result.node is not None:
            _check_closure(result.node, {x for x in inputs if type(x) is Node}, start)
        if all(x.node is None for x in tracers):
            return result
        namespace = tracers[0].namespace
        value = result.value if type(result) is Tracer else result
        parameters = {"backward": backward, "namespace": namespace}
        node = Node(_CUSTOM, inputs, inputs, parameters, None, value.shape, value.dtype)
        return Tracer(value, node, namespace)

    return wrapped
