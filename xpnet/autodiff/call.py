"""A call of a function with traced arguments, from which every transform is made."""

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat

from xpnet import tree
from xpnet.arrays import ArrayObject, hidden_by_numpy
from xpnet.autodiff.backward import reachable, sweep
from xpnet.autodiff.context import recording_of
from xpnet.autodiff.namespace import TracedNamespace, array_namespace, traced_namespace
from xpnet.autodiff.primitive import ARGUMENT, NO_PARAMETERS, NUMBERS
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Node, Tracer, numbers
from xpnet.backends import asarray, concrete, describe, device, device_of, is_numpy_number
from xpnet.errors import MixedArraysError, NoGradientError
from xpnet.settings import is_integer

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
            "argnums must be different positions, counted from 0, of arguments that are given by position: "
            f"an integer, or several in a tuple. Received argnums {self._received!r}{given}. Count from the "
            "first argument, and give by position what is differentiated."
        )

    def of(self, several: Sequence) -> Any:
        """Return one thing for each of the arguments as the user asked for it: alone, or in a tuple."""
        return several[0] if self.is_single else tuple(several)


def all_unless_given(argnums: Any, arguments: Sequence) -> Any:
    """Return ``argnums``, for which None stands for all positions."""
    return tuple(range(len(arguments))) if argnums is None else argnums


class TracedCall:
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
                instead = "Convert it with xpnet.asarray(x, dtype='float32')"
                if not tree.is_array(leaf) and type(leaf) not in NUMBERS:
                    instead = "Make it an array, or a dict, list, dataclass or module of arrays"
                raise NoGradientError(
                    f"a gradient needs floating-point numbers, received {received} in argument {position}"
                    f"{_at(argument, index)}. {instead}, or leave this argument out of argnums."
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
        result = called(function, *arguments, **keywords)
        tree.copy_state(self._traced, self._received)
        del self._traced, arguments, keywords
        return result

    def arguments_like(self, needed: str) -> "Like":
        """Return what directions of the arguments must be like."""
        return Like(*tree.flatten(self._as_asked(self._arguments)), self.namespace, needed)

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


def called(function: Callable, /, *arguments: Any, **keywords: Any) -> Any:
    """Call a function of the user's, and say more where the error of a library says too little."""
    try:
        return function(*arguments, **keywords)
    except ValueError as error:
        hidden = hidden_by_numpy(error)
        if hidden is None:
            raise
        hidden.add_note(
            "A number was to be assigned into an array of NumPy's. Make that array with xp.zeros, where xp "
            "is the namespace of the traced ones."
        )
        raise hidden.with_traceback(error.__traceback__) from None
    except TypeError as error:
        # The text of array_api_compat, which SciPy and others have copies of.
        if "Multiple namespaces" in str(error) and not hasattr(error, "__notes__"):
            error.add_note(
                "Plain arrays stand beside traced ones. Pass them as arguments of the function that is "
                "differentiated or recorded, or wrap them with xpnet.trace."
            )
        raise


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


def _shape(x: Any) -> Any:
    """Return the shape of an array or a number; the name of its type for what has none."""
    return tuple(x.shape) if tree.is_array(x) else () if type(x) in NUMBERS else type(x).__name__


def _at(values: Any, index: int) -> str:
    """Return the end of a sentence that says where a leaf of a tree is; nothing for a tree of one leaf."""
    path = tree.paths(values)[index]
    return f" at {path}" if path else ""


def _described(structure: Any) -> str:
    """Return the structure of a tree as a text for people."""
    text = str(structure).removeprefix("PyTreeSpec(").removesuffix(")").partition(", namespace=")[0]
    return "one array" if text == "*" else f"{text} with an array for each *" if "*" in text else text


class Like:
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
        if structure != self._structure:
            raise ValueError(
                f"{self._needed}, {_described(self._structure)}; received {_described(structure)}. Make "
                "arrays of lists with xpnet.asarray, and give zeros where there is nothing to give."
            )
        for index, (shape, needed) in enumerate(zip(map(_shape, leaves), self._shapes, strict=True)):
            if shape != needed:
                got = shape if type(shape) is str else f"the shape {shape}"
                raise ValueError(
                    f"{self._needed}, of the shape {needed}{_at(received, index)}; received {got}. Give an "
                    "array of that shape."
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
                f"{dtype}; received {value.dtype}. Convert it with xp.astype, or take xp.real of complex "
                "numbers."
            )
        places = device, array_api_compat.device(concrete(value))
        if places[0] != places[1] and None not in places:  # inside `jax.jit`, arrays have no device
            raise MixedArraysError(
                f"{self._needed}, on its device, {device}; received one of {describe(value)}. Move it with "
                "`xpnet.to_device`."
            )
        x = x if type(x) is Tracer else value
        return x if x.dtype == dtype else array_namespace(x).astype(x, dtype)
