"""`scan`: a loop over the elements of a sequence that is recorded as one function.

Its gradient is a loop in the other direction, over steps that carry gradients backward through one step, so
that it has gradients of any order. Under `jit`, the step is recorded, and not the loop: recording does not
take longer for longer sequences.
"""

import weakref
from collections.abc import Callable
from typing import Any

from xpnet import tree
from xpnet.autodiff import extended_namespace, vjp
from xpnet.autodiff.namespace import outside_of_recording
from xpnet.autodiff.primitive import function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.transforms import check_results
from xpnet.errors import NotRecordableError
from xpnet.replay.call import jit


class _Body:
    """A step of lists of arrays, recorded by `jit`.

    ``step(carried, elements, constants)`` returns what is carried on, and results; ``plain`` does so without
    `jit`.
    """

    def __init__(self, step: Callable, carried: int, sequences: int, *, precision: str = "float32") -> None:
        self.plain = step
        self._recorded = jit(step, precision=precision)
        self._carried, self._sequences = carried, sequences
        self._back: _Body | None = None
        self._others: dict[str, _Body] = {}

    def step(self, *parts: list) -> tuple[list, list]:
        with outside_of_recording():
            return self._recorded(*parts)

    def split(self, values: Any) -> tuple[list, list, list]:
        """Return what is carried, the sequences, and the constants."""
        end = self._carried + self._sequences
        return list(values[: self._carried]), list(values[self._carried : end]), list(values[end:])

    def in_precision(self, precision: str) -> "_Body":
        """Return the body whose matrix products have operands of another precision."""
        if precision not in self._others:
            body = _Body(self.plain, self._carried, self._sequences, precision=precision)
            self._others[precision] = body
        return self._others[precision]

    def backward(self, constants: int, results: int) -> "_Body":
        """Return the body of the loop in the other direction.

        It carries the gradients of what is carried and the sums of those of the constants. An element of its
        sequences is what a step was given to carry, its element, and the gradients of both its results.
        """
        carried, sequences, forward = self._carried, self._sequences, self.plain

        def step(gradients: list, elements: list, constants: list) -> tuple[list, list]:
            given, elements = elements[:carried], elements[carried:]
            inputs, elements = elements[:sequences], elements[sequences:]
            g_given, g_results = elements[:carried], elements[carried:]
            _, pullback = vjp(forward, given, inputs, constants)
            g_before, g_inputs, g_constants = pullback((gradients[:carried], g_results))
            pairs = zip([*g_before, *g_constants], [*g_given, *gradients[carried:]], strict=True)
            return [a + b for a, b in pairs], g_inputs

        if self._back is None:
            self._back = _Body(step, carried + constants, 2 * carried + sequences + results)
        return self._back


def _scan_back(xp: Any, gs: Any, ys: Any, *inputs: Any, body: _Body) -> list[Any]:
    """Go through the sequence from its end. What comes out is: given to each step, results, carried on."""
    carried, sequences, constants = body.split(inputs)
    number, end = len(carried), len(ys) - len(carried)
    gs = [conj(xp, g) for g in gs]
    back = body.backward(len(constants), end - number)
    start = [*gs[end:], *(xp.zeros(x.shape, dtype=x.dtype, device=x.device) for x in constants)]
    elements = [xp.flip(x, axis=0) for x in (*ys[:number], *sequences, *gs[:end])]
    outputs = xp.scan_arrays(*start, *elements, *constants, body=back)
    g_sequences = [xp.flip(g, axis=0) for g in outputs[len(start) : len(start) + len(sequences)]]
    last = outputs[len(start) + len(sequences) :]
    return [conj(xp, g) for g in (*last[:number], *g_sequences, *last[number:])]


@function(
    joint=_scan_back, several=True, compute=lambda xp, *values, body: xp.scan_arrays(*values, body=body)
)
def scan_arrays(call: Any, *arrays: Any, body: _Body) -> Any:
    return call(*arrays, body=body)


# The bodies of each function, by the structure of its arguments, so that its step is recorded once.
_bodies: "weakref.WeakKeyDictionary[Callable, dict]" = weakref.WeakKeyDictionary()


def scan(f: Callable, carried: Any, sequences: Any, *constants: Any) -> tuple[Any, Any]:
    """Call a function for each element of a sequence, with what the call before has left.

    As ``for x in sequences: carried, y = f(carried, x, *constants)``, but recorded as one function whatever
    the length: `jit` records ``f`` once and replays it for each element, also where `scan` is called outside
    of `jit`. The gradient keeps what is carried, and computes each step a second time.

    Parameters
    ----------
    f : callable
        ``f(carried, x, *constants) → (carried, y)``, of arrays and trees of them. What it carries on has the
        structure, shapes and dtypes of what it was given. Define it once, outside of the function that calls
        `scan`, or it is recorded at each call. Arrays with a gradient must be its arguments: those that it
        closes over are refused.
    carried : array or tree
        What the first call is given.
    sequences : array or tree
        With the elements along the first axis of each array.
    *constants : array or tree
        What is the same in each call: weights, say.

    Returns
    -------
    carried : array or tree
        What the last call left.
    results : array or tree
        The results y of all calls, joined along a new first axis.

    Raises
    ------
    ValueError
        If there is no element, if the sequences are not of one length, or if what is carried changes.
    TypeError
        If an array holds no floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> def decay(total, x, rate):
    ...     total = rate * total + x
    ...     return total, total
    >>> last, totals = xpnet.scan(decay, np.asarray(0.0), np.ones(4), np.asarray(0.5))
    >>> totals
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    parts = [tree.flatten(part) for part in (carried, sequences, constants)]
    leaves = [leaf for part, _ in parts for leaf in part]
    structures = tuple(structure for _, structure in parts)
    xp = extended_namespace(*leaves)
    for leaf in leaves:
        if not xp.isdtype(leaf.dtype, ("real floating", "complex floating")):
            raise TypeError(
                f"scan needs arrays of floating-point numbers, received {leaf.dtype}. Convert them with "
                "xpnet.asarray(x, dtype='float32')."
            )
    lengths = {leaf.shape[0] if len(leaf.shape) else None for leaf in parts[1][0]}
    if len(lengths) != 1 or not all(lengths):
        raise ValueError(
            "scan needs sequences of one length, along the first axis, with at least one element; received "
            f"shapes {[tuple(leaf.shape) for leaf in parts[1][0]]}."
        )
    body, results = _body(f, structures)
    outputs = xp.scan_arrays(*leaves, body=body)
    number = len(parts[0][0])
    joined, last = outputs[number : len(outputs) - number], outputs[len(outputs) - number :]
    return tree.unflatten(structures[0], list(last)), tree.unflatten(results[0], list(joined))


def _body(f: Callable, structures: tuple) -> tuple[_Body, list]:
    """Return the body of a function, and a list for the structure of its results."""
    known = _bodies.setdefault(f, {})
    if structures not in known:
        results: list = []
        of = weakref.ref(f)

        def step(carried: list, elements: list, constants: list) -> tuple[list, list]:
            parts = zip(structures, (carried, elements, constants), strict=True)
            before, element, rest = (tree.unflatten(structure, part) for structure, part in parts)
            function: Any = of()
            after, y = function(before, element, *rest)
            for part in (after, y):
                check_results(part, NotRecordableError)
            left, structure = tree.flatten(after)
            _check_carried(carried, left, structures[0], structure)
            y, results[:] = tree.flatten(y)[0], [tree.flatten(y)[1]]
            return left, y

        known[structures] = _Body(step, structures[0].num_leaves, structures[1].num_leaves), results
    return known[structures]


def _check_carried(given: list, left: list, expected: Any, structure: Any) -> None:
    kinds = [[(tuple(x.shape), x.dtype) for x in leaves] for leaves in (given, left)]
    if structure != expected or kinds[0] != kinds[1]:
        raise ValueError(
            f"what scan carries must keep its structure, shapes and dtypes, {expected} with {kinds[0]}; the "
            f"function left {structure} with {kinds[1]}."
        )
