"""Functions of functions: grad, value_and_grad, vjp, and the ways to steer them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from xpnet import tree
from xpnet.autodiff.backward import reachable
from xpnet.autodiff.call import Argnums, Like, TracedCall, all_unless_given, check_results
from xpnet.autodiff.namespace import array_namespace, traced_namespace
from xpnet.autodiff.primitive import NUMBERS
from xpnet.autodiff.tracer import Tracer
from xpnet.settings import flag

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def value_and_grad(
    f: Callable[P, R], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[P, tuple[R, Any]]:
    """Make a function that returns the value of ``f`` and its gradient.

    Parameters
    ----------
    f : callable
        A function that returns one real number, an array of shape ``()``. It may use any functions of the
        array API standard, Python control flow, closures and other transforms.
    argnums : int or sequence of int, default=0
        The positional arguments to differentiate, counted from 0: arrays of floating-point numbers, Python
        floats, or trees (modules, dataclasses, dicts, lists, tuples) with such at their leaves. All others,
        and keyword arguments, are constants.
    has_aux : bool, default=False
        Whether ``f`` returns a pair ``(value, auxiliary)``, of which only the value is differentiated: any
        tree, without arrays in objects that are no trees.

    Returns
    -------
    callable
        With the arguments of ``f``. It returns ``(value, gradient)``, or ``((value, auxiliary), gradient)``.
        The gradient is a tree like the argument; for several ``argnums``, a tuple of them. For complex
        arguments it is the direction of steepest ascent, ``df/dRe(z) + i df/dIm(z)``, so that
        ``z -= rate * gradient`` lowers a real loss.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If ``f`` does not return a real number of shape ``()``, or ``argnums`` names no position of an
        argument, or one twice.
    TypeError
        If an array is hidden in the auxiliary: in an object that is no tree, in a function or an iterator.

    Notes
    -----
    State that modules write while ``f`` runs is carried back to the modules that were passed in.

    Gradients may share memory with each other, or be views that cannot be written to. Copy one before
    writing into it.

    ``where(x > 0, sqrt(x), 0)`` has the gradient NaN at 0, as in every system that works backward: the branch
    not taken gives 0 times infinity. Make its argument harmless first: ``sqrt(where(x > 0, x, 1))``.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> value, gradient = xpnet.value_and_grad(lambda x: x @ x)(np.ones(3))
    >>> float(value), gradient
    (3.0, array([2., 2., 2.]))
    """
    has_aux = flag("has_aux", has_aux)
    chosen = Argnums(argnums)

    @functools.wraps(f)
    def differentiated(*arguments: P.args, **keywords: P.kwargs) -> tuple[R, Any]:
        recording = TracedCall(arguments, keywords, chosen)
        result: Any = recording.run(f)
        auxiliary = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                received = type(result).__name__
                received = f"a tuple of {len(result)}" if isinstance(result, tuple) else received
                raise TypeError(
                    f"with has_aux=True, f must return (value, auxiliary), received {received}. Return a "
                    "tuple of two, with several auxiliary values in a tuple or dict of their own."
                )
            result, auxiliary = result
            check_results(auxiliary)
        _check_loss(result)
        nodes, enclosed = recording.reachable((result, auxiliary))
        node = result.node if type(result) is Tracer else None
        value = recording.results(result, enclosed)
        if has_aux:
            value = (value, recording.results(auxiliary, enclosed))
        seeds = [] if node is None else [(node, _one(recording.namespace, result, enclosed))]
        # From here on only `nodes` holds the record, and the sweep lets go of it node by node.
        del result, auxiliary, node
        return value, recording.gradients(seeds, nodes, enclosed, enclosed)

    return differentiated


def _check_loss(result: Any) -> None:
    if not tree.is_array(result) and not isinstance(result, int | float):
        raise TypeError(
            f"f must return one number, an array of shape (), received {type(result).__name__}. Return the "
            "number alone; what stands beside it goes with has_aux=True, several numbers with xpnet.jacobian."
        )
    if tree.is_array(result):
        if result.shape != ():
            raise ValueError(
                f"f must return one number, an array of shape (), received shape {tuple(result.shape)}. "
                "Return its mean or sum, or use xpnet.vjp."
            )
        xp = result.namespace if type(result) is Tracer else array_namespace(result)
        if xp.isdtype(result.dtype, "complex floating"):
            raise ValueError(
                f"f must return a real number, received {result.dtype}. Return xp.abs(z) or xp.real(z)."
            )


def _one(namespace: Any, result: Tracer, recorded: bool) -> Any:
    one = namespace.plain.ones_like(result.value)
    return namespace.lift(one) if recorded else one


def carries_gradient(x: Any) -> bool:
    """Say whether an array leads back to what an enclosing transform differentiates.

    This is about how it was made, not about values: the gradient of a ReLU that is off is 0, and it has one.
    """
    return type(x) is Tracer and x.node is not None


def grad(f: Callable[P, Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[P, Any]:
    """Make a function that returns the gradient of ``f``.

    Parameters
    ----------
    f : callable
        See `value_and_grad`.
    argnums : int or sequence of int, default=0
        See `value_and_grad`.
    has_aux : bool, default=False
        Whether ``f`` returns a pair ``(value, auxiliary)``.

    Returns
    -------
    callable
        With the arguments of ``f``. It returns the gradient, or ``(gradient, auxiliary)``. Gradients of
        gradients are taken by nesting: ``grad(grad(f))``.

    Examples
    --------
    >>> import xpnet
    >>> float(xpnet.grad(lambda x: x**3)(2.0)), float(xpnet.grad(xpnet.grad(lambda x: x**3))(2.0))
    (12.0, 12.0)
    """
    differentiated = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*arguments: P.args, **keywords: P.kwargs) -> Any:
        value, gradients = differentiated(*arguments, **keywords)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def vjp(
    f: Callable[..., R], /, *arguments: Any, argnums: int | Sequence[int] | None = None, **keywords: Any
) -> tuple[R, Callable[[Any], Any]]:
    """Call ``f`` and return its result with a function that carries gradients backward through it.

    Parameters
    ----------
    f : callable
        A function that returns an array, or a tree of arrays, of any shape.
    *arguments : array or tree
        Its arguments.
    argnums : int or sequence of int, optional
        The positional arguments to differentiate, as of `value_and_grad`; by default all of them.
    **keywords : array, tree or anything else
        Keyword arguments of ``f``, which are constants. Close over one whose name is ``argnums``.

    Returns
    -------
    result : array or tree
        What ``f`` returns.
    pullback : callable
        ``pullback(g)``, where ``g`` is a tree like the result: the gradient of some number with respect to
        the result. It returns the tuple of that number's gradients with respect to the arguments (the product
        of the vector ``g`` and the Jacobian of ``f``); for one integer as ``argnums``, the gradient alone. It
        can be called several times. A number may stand for an array of shape ``()``, and what stands for
        an array of integers, which has no gradient, is not used.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If ``argnums`` names no position of an argument, or one twice; if ``g`` is not like the result.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> result, pullback = xpnet.vjp(lambda a, b: a * b, np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0]))
    >>> pullback(np.ones(2))
    (array([3., 4.]), array([1., 2.]))
    """
    return linearized(f, arguments, keywords, argnums)


def linearized(
    f: Callable[..., Any],
    arguments: Sequence[Any],
    keywords: dict[Any, Any],
    argnums: Any,
    *directions: Any,
    needed: str = "pullback needs a tree of arrays like the result of f",
) -> tuple[Any, Callable[[Any], Any]]:
    """As `vjp`, for other transforms.

    Parameters
    ----------
    f, arguments, keywords, argnums
        See `vjp`.
    *directions : tree
        What must be like the arguments. It is checked before ``f`` is called.
    needed : str
        The beginning of the error for what is not like the arguments, or not like the result.
    """
    recording = TracedCall(tuple(arguments), keywords, Argnums(all_unless_given(argnums, arguments)))
    for each in directions:
        recording.arguments_like(needed).leaves(each)
    result = recording.run(f)
    check_results(result)
    leaves, structure = tree.flatten(result)
    if not NUMBERS.isdisjoint(map(type, leaves)):
        leaves = [recording.array(y) if type(y) in NUMBERS else y for y in leaves]
        result = tree.unflatten(structure, leaves)
    _, enclosed = recording.reachable(leaves)
    like = Like(leaves, structure, recording.namespace, needed)
    # The caller may assign to what is returned, which rebinds the handle; the nodes stay.
    ends = [y.node if type(y) is Tracer else None for y in leaves]

    def pullback(g: Any) -> Any:
        gs = like.leaves(g)
        recorded = enclosed or any(type(one) is Tracer for one in gs)
        seeds = [
            (end, recording.namespace.lift(one) if recorded else one)
            for end, one in zip(ends, gs, strict=True)
            if end is not None
        ]
        nodes, _ = reachable([end for end in ends if end is not None], recording.start)
        return recording.gradients(seeds, nodes, recorded, enclosed)

    return recording.results(result, enclosed), pullback


def stop_gradient(values: T) -> T:
    """Let no gradient flow through an array, or through all arrays of a tree.

    Parameters
    ----------
    values : array or tree
        Plain arrays are returned as they are.

    Returns
    -------
    array or tree
        The same values, constant for every enclosing transform.

    Examples
    --------
    >>> import xpnet
    >>> float(xpnet.grad(lambda x: x * xpnet.stop_gradient(x))(3.0))
    3.0
    """

    def stop(x: Any) -> Any:
        return Tracer(x.value, None, x.namespace) if type(x) is Tracer else x

    stopped: T = tree.map(stop, values, state=True)
    return stopped


def trace(values: Any) -> Any:
    """Wrap an array, or all arrays of a tree, as traced arrays without a gradient.

    Functions of other libraries that look for the namespace of their arguments take traced and plain arrays
    only apart. Wrap the plain ones that stand beside traced ones in such a call. The arguments of a transform
    are wrapped already.

    Parameters
    ----------
    values : array or tree
        Arrays of any library.

    Returns
    -------
    Tracer or tree

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = xpnet.trace(np.asarray([1.0, 4.0]))
    >>> xpnet.array_namespace(x).sqrt(x)
    <traced array([1., 2.])>
    """

    def wrap(x: Any) -> Any:
        if not tree.is_array(x) or type(x) is Tracer:
            return x
        return traced_namespace(array_namespace(x)).lift(x)

    return tree.map(wrap, values, state=True)
