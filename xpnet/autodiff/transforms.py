"""Functions of functions: grad, value_and_grad, vjp, and the ways to steer them."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from xpnet import tree
from xpnet.arrays import ArrayObject
from xpnet.autodiff.backward import reachable, sweep
from xpnet.autodiff.namespace import TracedNamespace, array_namespace, recording_of, traced_namespace
from xpnet.autodiff.primitive import ARGUMENT, NO_PARAMETERS, Primitive
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Node, Tracer, numbers
from xpnet.backends import Device, asarray, concrete, device, device_of, is_numpy_number
from xpnet.errors import NoGradientError
from xpnet.settings import flag


class _Recording:
    """One call of a function with traced arguments.

    Parameters
    ----------
    arguments, keywords : tuple, dict
        The arguments: trees of arrays, and anything else.
    argnums : tuple of int
        Positions of the arguments whose gradients are wanted.
    """

    def __init__(self, arguments: tuple, keywords: dict, argnums: tuple[int, ...]) -> None:
        for position in argnums:
            if not 0 <= position < len(arguments) or argnums.count(position) > 1:
                raise ValueError(
                    "argnums must be different positions, counted from 0, of arguments that are given by "
                    f"position. Received argnums {argnums} for {len(arguments)} such arguments."
                )
        self._received = (arguments, keywords)
        received = [leaf for leaf in tree.leaves(self._received, state=True) if tree.is_array(leaf)]
        # A number of NumPy's may stand beside arrays of any library.
        arrays = [x for x in received if not is_numpy_number(concrete(x))] or received
        xp = array_namespace(*arrays) if arrays else recording_of(device().namespace)
        # Traced arguments come from an enclosing transform, which expects traced results.
        self.enclosed = any(type(x) is Tracer for x in received)
        self.namespace = xp if isinstance(xp, TracedNamespace) else traced_namespace(xp)
        self._first = arrays[0] if arrays else None
        self.start = next(numbers)
        self._arguments: list[Tracer] = []
        self._structures: list[Any] = []
        traced = list(arguments)
        for position in argnums:
            traced[position] = self._with_gradients(arguments[position], position)
        self._traced = self._lift((tuple(traced), keywords))

    def _with_gradients(self, argument: Any, position: int) -> Any:
        leaves, structure = tree.flatten(argument)
        tracers = []
        for index, leaf in enumerate(leaves):
            leaf = self.namespace.lift(leaf)
            if isinstance(leaf, float | complex) and not tree.is_array(leaf):
                leaf = asarray(leaf, device=self._device())
            if not tree.is_array(leaf) or not self.namespace.has_gradient(leaf):
                received = leaf.dtype if tree.is_array(leaf) else type(leaf).__name__
                path = tree.paths(argument)[index]
                raise NoGradientError(
                    "a gradient needs floating-point numbers, received "
                    f"{received} in argument {position}{f' at {path}' if path else ''}. Convert it with "
                    "xpnet.asarray(x, dtype='float32'), or leave this argument out of argnums."
                )
            value, outer = (leaf.value, leaf.node) if type(leaf) is Tracer else (leaf, None)
            inputs = () if outer is None else (outer,)
            node = Node(ARGUMENT, inputs, inputs, NO_PARAMETERS, None, value.shape, value.dtype)
            tracers.append(Tracer(value, node, self.namespace))
        self._arguments.extend(tracers)
        self._structures.append(structure)
        return tree.unflatten(structure, tracers)

    def _device(self) -> Device:
        """Where Python numbers go: to the other arguments, or else to the current device."""
        first = self._first
        return device() if first is None else device_of(first)

    def _lift(self, values: Any) -> Any:
        return tree.map(self.namespace.lift, values, state=True)

    def run(self, function: Callable) -> Any:
        """Call the function, and carry the state that it wrote back to the caller's modules."""
        # The function may rebind the handles (`x += 1`), so the nodes of the arguments are kept apart.
        self._arguments = [Tracer(x.value, x.node, x.namespace) for x in self._arguments]
        arguments, keywords = self._traced
        result = function(*arguments, **keywords)
        tree.copy_state(self._traced, self._received)
        del self._traced, arguments, keywords
        return result

    def results(self, values: Any, nodes_enclosed: bool) -> Any:
        """Make results plain, or keep them traced for an enclosing transform."""
        if nodes_enclosed or self.enclosed:
            return self._lift(values)
        return tree.map(lambda x: x.value if type(x) is Tracer else x, values, state=True)

    def reachable(self, values: Any) -> tuple[list[Node], bool]:
        return reachable([x.node for x in tree.leaves(values) if type(x) is Tracer and x.node], self.start)

    def gradients(
        self, seeds: list[tuple[Node, Any]], nodes: list[Node], recorded: bool, enclosed: bool
    ) -> list[Any]:
        """Sweep, and return one tree for each of the arguments in ``argnums``."""
        arguments = self._arguments
        xp = self.namespace if recorded else self.namespace.plain
        seeds[:] = [(node, conj(xp, g)) for node, g in seeds]
        wanted: list[Any] = [x.node for x in arguments]
        found = sweep(seeds, wanted, nodes, self.namespace, recorded=recorded, enclosed=enclosed)
        leaves = [
            xp.zeros_like(x.value) if g is None else conj(xp, g)
            for x, g in zip(arguments, found, strict=True)
        ]
        leaves = self.results(leaves, recorded)
        trees = []
        for structure in self._structures:
            trees.append(tree.unflatten(structure, leaves[: structure.num_leaves]))
            leaves = leaves[structure.num_leaves :]
        return trees


def check_results(results: Any, error: type[Exception] = TypeError) -> None:
    """Check that all traced and recorded arrays of what a function returns can be found.

    Any other would leave the transform as it is.

    Raises
    ------
    TypeError
        Or another class of ``error``, which names the object that hides an array.
    """
    hiding = tree.hidden_array(results, ArrayObject)
    if hiding is not None:
        raise error(
            "a function under grad, vjp, jit or scan must return arrays in dicts, lists, tuples, dataclasses "
            f"or modules; received a {hiding}. Return a dict, tuple or dataclass of arrays instead."
        )


def value_and_grad(
    f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Make a function that returns the value of ``f`` and its gradient.

    Parameters
    ----------
    f : callable
        A function that returns one real number, an array of shape ``()``. It may use any functions of the
        array API standard, Python control flow, closures and other transforms.
    argnums : int or sequence of int, default=0
        The positional arguments to differentiate: arrays of floating-point numbers, or trees (modules,
        dataclasses, dicts, lists, tuples) with such arrays at their leaves.
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
    several = isinstance(argnums, Sequence)
    positions = tuple(operator.index(n) for n in (argnums if isinstance(argnums, Sequence) else (argnums,)))

    @functools.wraps(f)
    def differentiated(*arguments: Any, **keywords: Any) -> tuple[Any, Any]:
        recording = _Recording(arguments, keywords, positions)
        result = recording.run(f)
        auxiliary = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(f"with has_aux=True, f must return (value, auxiliary), received {result!r}.")
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
        gradients = recording.gradients(seeds, nodes, enclosed, enclosed)
        return value, tuple(gradients) if several else gradients[0]

    return differentiated


def _check_loss(result: Any) -> None:
    if not tree.is_array(result) and not isinstance(result, int | float):
        raise TypeError(f"f must return an array of shape (), received {type(result).__name__}.")
    if tree.is_array(result):
        if result.shape != ():
            raise ValueError(
                f"f must return one number, an array of shape (), received shape {tuple(result.shape)}. "
                "Return its mean or sum, or use xpnet.vjp."
            )
        if type(result) is Tracer and result.namespace.isdtype(result.dtype, "complex floating"):
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


def grad(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
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
    def gradient(*arguments: Any, **keywords: Any) -> Any:
        value, gradients = differentiated(*arguments, **keywords)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def vjp(f: Callable, *arguments: Any) -> tuple[Any, Callable[[Any], tuple]]:
    """Call ``f`` and return its result with a function that carries gradients backward through it.

    Parameters
    ----------
    f : callable
        A function that returns an array, or a tree of arrays, of any shape.
    *arguments : array or tree
        Its arguments, all of which are differentiated. Close over anything else.

    Returns
    -------
    result : array or tree
        What ``f`` returns.
    pullback : callable
        ``pullback(g)``, where ``g`` is a tree like the result: the gradient of some number with respect to
        the result. It returns the tuple of that number's gradients with respect to the arguments (the product
        of the vector ``g`` and the Jacobian of ``f``). It can be called several times.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> result, pullback = xpnet.vjp(lambda a, b: a * b, np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0]))
    >>> pullback(np.ones(2))
    (array([3., 4.]), array([1., 2.]))
    """
    recording = _Recording(arguments, {}, tuple(range(len(arguments))))
    result = recording.run(f)
    _, enclosed = recording.reachable(result)
    check_results(result)
    results, structure = tree.flatten(result)
    if not all(tree.is_array(y) for y in results):
        raise TypeError(
            "f must return an array, or a tree of arrays, received "
            f"{next(type(y).__name__ for y in results if not tree.is_array(y))}."
        )
    # The caller may assign to what is returned, which rebinds the handle; the nodes stay.
    ends = [y.node if type(y) is Tracer else None for y in results]
    expected = [tuple(y.shape) for y in results]

    def pullback(g: Any) -> tuple:
        gs, received = tree.flatten(g)
        shapes = [tuple(getattr(one, "shape", ())) for one in gs]
        if received != structure or shapes != expected or not all(tree.is_array(one) for one in gs):
            raise ValueError(
                f"pullback needs a tree of arrays like the result of f, {structure} with shapes {expected}; "
                f"received {received} with shapes {shapes}."
            )
        recorded = enclosed or any(type(one) is Tracer for one in gs)
        seeds = [
            (end, recording.namespace.lift(one) if recorded else one)
            for end, one in zip(ends, gs, strict=True)
            if end is not None
        ]
        nodes, _ = reachable([end for end in ends if end is not None], recording.start)
        return tuple(recording.gradients(seeds, nodes, recorded, enclosed))

    return recording.results(result, enclosed), pullback


def stop_gradient(values: Any) -> Any:
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

    return tree.map(stop, values, state=True)


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


def _custom(xp: Any, g: Any, _y: Any, *_inputs: Any, backward: Callable, namespace: Any) -> list[Any]:
    # `backward` closes over traced values, so it gets a traced gradient; a first-order sweep goes on plain.
    gradients = backward(namespace.lift(conj(xp, g)))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(gradients) != len(_inputs):
        raise ValueError(
            f"backward must return a gradient for each of the {len(_inputs)} arguments (None where there is "
            f"none), received {len(gradients)}."
        )
    for g, x in zip(gradients, _inputs, strict=True):
        if g is not None and not tree.is_array(g):
            raise TypeError(f"backward must return arrays, received {type(g).__name__}.")
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
    "a function under jit, in scan or with a custom gradient received an array from outside whose gradient "
    "would be lost. "
    "Pass it as an argument, or call xpnet.stop_gradient(x) on it first."
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


def _pair(returned: Any) -> tuple[Any, Callable]:
    if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
        raise TypeError(
            "a function with a custom gradient must return (result, backward), an array and a function, "
            f"received {type(returned).__name__}."
        )
    if not tree.is_array(returned[0]):
        raise TypeError(
            "the result of a function with a custom gradient must be one array, received "
            f"{type(returned[0]).__name__}."
        )
    return returned


def custom_gradient(f: Callable[..., tuple[Any, Callable]]) -> Callable:
    """Give a function a gradient of one's own. Used as a decorator.

    Parameters
    ----------
    f : callable
        Takes arrays by position and returns ``(result, backward)``: an array, and a function that makes from
        the gradient of the result the gradients of the arguments, a tuple of one for each (None for none).

    Returns
    -------
    callable
        With the arguments of ``f``. It returns the result alone.

    Notes
    -----
    ``backward`` is itself differentiated in gradients of gradients.

    Examples
    --------
    A step function whose gradient is that of the identity (a straight-through estimator):

    >>> import xpnet
    >>> @xpnet.custom_gradient
    ... def step(x):
    ...     return x.__array_namespace__().sign(x), lambda g: g
    >>> float(xpnet.grad(lambda x: 2 * step(x))(0.3))
    2.0
    """

    @functools.wraps(f)
    def wrapped(*arrays: Any) -> Any:
        for x in arrays:
            if not tree.is_array(x) and not isinstance(x, int | float | complex):
                raise TypeError(
                    "a function with a custom gradient takes arrays and numbers by position, received "
                    f"{type(x).__name__}. Close over anything else."
                )
        tracers = [x for x in arrays if type(x) is Tracer]
        inputs = tuple(x.node or x.value if type(x) is Tracer else x for x in arrays)
        start = next(numbers)
        result, backward = _pair(f(*arrays))
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
