"""Functions of functions: grad, value_and_grad, vjp, and the ways to steer them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat

from xpnet import tree
from xpnet.arrays import ArrayObject, hidden_by_numpy
from xpnet.autodiff.backward import reachable, sweep
from xpnet.autodiff.namespace import TracedNamespace, array_namespace, recording_of, traced_namespace
from xpnet.autodiff.primitive import ARGUMENT, NO_PARAMETERS, NUMBERS, Primitive
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Node, Tracer, numbers
from xpnet.backends import asarray, concrete, describe, device, device_of, is_numpy_number
from xpnet.errors import MixedArraysError, NoGradientError
from xpnet.settings import flag, is_integer

FLOATING = ("real floating", "complex floating")  # the kinds of dtypes that can hold a gradient


class Argnums:
    """Which of the positional arguments of a function a transform differentiates.

    Parameters
    ----------
    argnums : int or sequence of int
        As a user writes it. For one integer, what is returned for the arguments, or given for them, stands
        alone; for a sequence, it is a tuple.

    Raises
    ------
    ValueError
        If it is no position, or the same one twice.
    """

    def __init__(self, argnums: Any) -> None:
        self._received = argnums
        self.is_single = not isinstance(argnums, Sequence)
        numbers = (argnums,) if self.is_single else tuple(argnums)
        if not all(is_integer(n) and n >= 0 for n in numbers) or len({*map(int, numbers)}) < len(numbers):
            raise self._error()
        self.positions = tuple(int(n) for n in numbers)

    def check(self, arguments: Sequence) -> None:
        """Check that there are such arguments."""
        if any(position >= len(arguments) for position in self.positions):
            raise self._error(f" for {len(arguments)} such arguments")

    def _error(self, given: str = "") -> ValueError:
        return ValueError(
            "argnums must be different positions, counted from 0, of arguments that are given by position. "
            f"Received argnums {self._received!r}{given}."
        )

    def of(self, several: Sequence) -> Any:
        """Return one thing for each of the arguments as the user asked for it: alone, or in a tuple."""
        return several[0] if self.is_single else tuple(several)


def all_unless_given(argnums: Any, arguments: Sequence) -> Any:
    """Return ``argnums``, for which None stands for all positions."""
    return tuple(range(len(arguments))) if argnums is None else argnums


class _Recording:
    """One call of a function with traced arguments.

    Parameters
    ----------
    arguments, keywords : tuple, dict
        The arguments: trees of arrays, and anything else.
    argnums : Argnums
        Those whose gradients are wanted.
    """

    def __init__(self, arguments: tuple, keywords: dict, argnums: Argnums) -> None:
        argnums.check(arguments)
        self._argnums = argnums
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
        for position in argnums.positions:
            traced[position] = self._with_gradients(arguments[position], position)
        self._traced = self._lift((tuple(traced), keywords))

    def _with_gradients(self, argument: Any, position: int) -> Any:
        leaves, structure = tree.flatten(argument)
        tracers = []
        for index, leaf in enumerate(leaves):
            leaf = self.namespace.lift(leaf)
            if isinstance(leaf, float | complex) and not tree.is_array(leaf):
                leaf = self.array(leaf)
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

    def array(self, number: Any) -> Any:
        """Return a number of Python's as an array on the device of the arguments, or the current one."""
        return asarray(number, device=device() if self._first is None else device_of(self._first))

    def _lift(self, values: Any) -> Any:
        return tree.map(self.namespace.lift, values, state=True)

    def run(self, function: Callable) -> Any:
        """Call the function, and carry the state that it wrote back to the caller's modules."""
        # The function may rebind the handles (`x += 1`), so the nodes of the arguments are kept apart.
        self._arguments = [Tracer(x.value, x.node, x.namespace) for x in self._arguments]
        arguments, keywords = self._traced
        result = _called(function, *arguments, **keywords)
        tree.copy_state(self._traced, self._received)
        del self._traced, arguments, keywords
        return result

    def arguments_like(self, needed: str) -> "_Like":
        """Return what directions of the arguments must be like."""
        return _Like(*tree.flatten(self._as_asked(self._arguments)), self.namespace, needed)

    def _as_asked(self, leaves: list) -> Any:
        """Return leaves, one for each of the arguments', as ``argnums`` asks for them: a tree, or several."""
        trees = []
        for structure in self._structures:
            trees.append(tree.unflatten(structure, leaves[: structure.num_leaves]))
            leaves = leaves[structure.num_leaves :]
        return self._argnums.of(trees)

    def results(self, values: Any, nodes_enclosed: bool) -> Any:
        """Make results plain, or keep them traced for an enclosing transform."""
        if nodes_enclosed or self.enclosed:
            return self._lift(values)
        return tree.map(lambda x: x.value if type(x) is Tracer else x, values, state=True)

    def reachable(self, values: Any) -> tuple[list[Node], bool]:
        return reachable([x.node for x in tree.leaves(values) if type(x) is Tracer and x.node], self.start)

    def gradients(
        self, seeds: list[tuple[Node, Any]], nodes: list[Node], recorded: bool, enclosed: bool
    ) -> Any:
        """Sweep, and return a tree for the argument in ``argnums``, or a tuple of them for several."""
        arguments = self._arguments
        xp = self.namespace if recorded else self.namespace.plain
        seeds[:] = [(node, conj(xp, g)) for node, g in seeds]
        wanted: list[Any] = [x.node for x in arguments]
        found = sweep(seeds, wanted, nodes, self.namespace, recorded=recorded, enclosed=enclosed)
        leaves = [
            xp.zeros_like(x.value) if g is None else conj(xp, g)
            for x, g in zip(arguments, found, strict=True)
        ]
        return self._as_asked(self.results(leaves, recorded))


def _called(function: Callable, /, *arguments: Any, **keywords: Any) -> Any:
    """Call a function of the user's. Where NumPy puts an error before one of xpnet's, show xpnet's."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        hidden = hidden_by_numpy(error)
        if hidden is None:
            raise
        raise hidden.with_traceback(error.__traceback__) from None


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
        The positional arguments to differentiate, counted from 0: arrays of floating-point numbers, or trees
        (modules, dataclasses, dicts, lists, tuples) with such arrays at their leaves. All others, and keyword
        arguments, are constants.
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
    def differentiated(*arguments: Any, **keywords: Any) -> tuple[Any, Any]:
        recording = _Recording(arguments, keywords, chosen)
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
        return value, recording.gradients(seeds, nodes, enclosed, enclosed)

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


def vjp(
    f: Callable, /, *arguments: Any, argnums: int | Sequence[int] | None = None, **keywords: Any
) -> tuple[Any, Callable[[Any], Any]]:
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
    f: Callable,
    arguments: Sequence,
    keywords: dict,
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
    recording = _Recording(tuple(arguments), keywords, Argnums(all_unless_given(argnums, arguments)))
    for each in directions:
        recording.arguments_like(needed).leaves(each)
    result = recording.run(f)
    check_results(result)
    leaves, structure = tree.flatten(result)
    if not NUMBERS.isdisjoint(map(type, leaves)):
        leaves = [recording.array(y) if type(y) in NUMBERS else y for y in leaves]
        result = tree.unflatten(structure, leaves)
    _, enclosed = recording.reachable(leaves)
    like = _Like(leaves, structure, recording.namespace, needed)
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


def _shape(x: Any) -> Any:
    """Return the shape of an array or a number; the name of its type for what has none."""
    return tuple(x.shape) if tree.is_array(x) else () if type(x) in NUMBERS else type(x).__name__


class _Like:
    """What a tree must be like that gets the gradients, or directions, of another one.

    Parameters
    ----------
    arrays, structure : list of array, structure of a tree
        The other one.
    namespace : TracedNamespace
    needed : str
        The beginning of the error for a tree that is not like it.
    """

    def __init__(self, arrays: list, structure: Any, namespace: Any, needed: str) -> None:
        for y in arrays:
            if not tree.is_array(y):
                raise TypeError(
                    "f must return an array, or a tree of arrays and numbers, received "
                    f"{type(y).__name__}. Leave it out."
                )
        self._structure, self._namespace, self._needed = structure, namespace, needed
        self._shapes = [*map(_shape, arrays)]
        self._dtypes = [y.dtype for y in arrays]
        self._devices = [array_api_compat.device(concrete(y)) for y in arrays]

    def leaves(self, received: Any) -> list:
        """Return the leaves of such a tree, with numbers as arrays, and in the dtypes of the other one."""
        leaves, structure = tree.flatten(received)
        shapes = [*map(_shape, leaves)]
        if structure != self._structure or shapes != self._shapes:
            raise ValueError(
                f"{self._needed}, {self._structure} with shapes {self._shapes}; "
                f"received {structure} with shapes {shapes}."
            )
        return [*map(self._cast, leaves, self._dtypes, self._devices)]

    def _cast(self, x: Any, dtype: Any, device: Any) -> Any:
        plain = self._namespace.plain
        if not plain.isdtype(dtype, FLOATING):
            return x  # which is not used
        value, _ = self._namespace.operand(x)  # one of NumPy's numbers is a number beside any array
        is_real = plain.isdtype(dtype, "real floating")
        if not tree.is_array(value):
            fits = type(value) in ((int, float) if is_real else (int, float, complex))
            value = plain.asarray(value, dtype=dtype if fits else None, device=device)
        if not plain.isdtype(value.dtype, ("integral", "real floating") if is_real else "numeric"):
            raise ValueError(
                f"{self._needed}, with {'real' if is_real else 'real or complex'} numbers in the place of "
                f"{dtype}; received {value.dtype}. Take its real part, or convert it with xp.astype."
            )
        places = device, array_api_compat.device(concrete(value))
        if places[0] != places[1] and None not in places:  # inside `jax.jit`, arrays have no device
            raise MixedArraysError(
                f"{self._needed}, on its device, {device}; received one of {describe(value)}. Move it with "
                "`xpnet.to_device`."
            )
        x = x if type(x) is Tracer else value
        return x if x.dtype == dtype else array_namespace(x).astype(x, dtype)


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
    gradients = _called(backward, namespace.lift(conj(xp, g)))
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
        Takes arrays by position, and anything by keyword. It returns ``(result, backward)``: an array, and a
        function that makes from the gradient of the result the gradients of the arguments that were given by
        position, a tuple of one for each (None for none).

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
    ...     return x.__array_namespace__().sign(x), lambda g: g
    >>> float(xpnet.grad(lambda x: 2 * step(x))(0.3))
    2.0
    """

    @functools.wraps(f)
    def wrapped(*arrays: Any, **keywords: Any) -> Any:
        for x in arrays:
            if not tree.is_array(x) and not isinstance(x, int | float | complex):
                raise TypeError(
                    "a function with a custom gradient takes arrays and numbers by position, received "
                    f"{type(x).__name__}. Pass anything else by keyword."
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
