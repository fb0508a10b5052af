"""`scan`: a loop over the elements of a sequence that is recorded as one function.

Its gradient is a loop in the other direction, over steps that carry gradients backward through one step, so
that it has gradients of any order. Under `jit`, the step is recorded, and not the loop: recording does not
take longer for longer sequences.

Three things carry it:

- `iteration.py` has the function of one call as a function of lists of arrays, and what is kept of it;
- `ScanBody` is what the loops of `xpnet.autodiff.loops` call: the step, or that of the loop backward;
- `scan_arrays` is the loop as one operation, which can be recorded and has a gradient rule.
"""

import contextlib
import operator
from collections.abc import Callable
from itertools import compress
from typing import Any

from xpnet import tree
from xpnet.autodiff import context, extended_namespace, loops, trace, vjp
from xpnet.autodiff.call import FLOATING
from xpnet.autodiff.namespace import traced_namespace
from xpnet.autodiff.primitive import function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Tracer
from xpnet.backends import concrete
from xpnet.errors import NoGradientError
from xpnet.replay.graph import Graph
from xpnet.replay.iteration import (
    ByRole,
    Iteration,
    Leaves,
    Location,
    kind_of,
    location_of,
    stand_ins,
    taken_apart,
)
from xpnet.replay.plans import make_plan
from xpnet.replay.record import output
from xpnet.replay.rewrite import simplified
from xpnet.settings import is_integer


class ScanBody:
    """A step of a loop: a function of lists of arrays, recorded when it is first called.

    Parameters
    ----------
    plain : callable
        ``plain(carried, elements, constants)`` returns what is carried on, and results.
    carried, sequences : int
        How many arrays these are.
    location : Location
    plans : dict
        Where plans are kept.
    order : int, default=0
        How often it was turned around: 1 for the step of the gradient, 2 for that of its gradient.
    precision : str, default="float32"
        See `xpnet.jit`.
    """

    def __init__(
        self,
        plain: Callable[..., Any],
        carried: int,
        sequences: int,
        location: Location,
        plans: dict[Any, Any],
        *,
        order: int = 0,
        precision: str = "float32",
    ) -> None:
        self.plain = plain
        self.location = location
        self._carried, self._sequences, self._plans = carried, sequences, plans
        self._order, self._precision = order, precision

    def split(self, values: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """Return what is carried, the sequences, and the constants."""
        end = self._carried + self._sequences
        return list(values[: self._carried]), list(values[self._carried : end]), list(values[end:])

    def step(
        self, carried: list[Any], elements: list[Any], constants: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Do what the function does, by a plan."""
        plan = self.record(carried, elements, constants)
        with context.outside_of_recording():
            outputs = plan([*carried, *elements, *constants])
        return list(outputs[: self._carried]), list(outputs[self._carried :])

    def record(self, carried: list[Any], elements: list[Any], constants: list[Any]) -> Any:
        """Return the plan, which is made for arrays like these."""
        name = (self._order, self._precision)
        if name in self._plans:
            return self._plans[name]
        arrays = [*carried, *elements, *constants]
        location = location_of(arrays) if arrays else self.location
        namespace = location.recording()
        recorded = stand_ins(namespace, carried, elements, constants)
        inputs: list[Any] = [x.variable for part in recorded for x in part]
        after, results = namespace.record(self.plain, *recorded)
        outputs = [*map(output, (*after, *results))]
        graph = simplified(Graph(inputs, namespace.operations, outputs))
        plan = make_plan(graph, [None] * len(outputs), location.array(0), self._precision)
        if location.is_lasting():
            self._plans[name] = plan
        return plan

    def in_precision(self, precision: str) -> "ScanBody":
        """Return the body whose matrix products have operands of another precision."""
        return self._with(self.plain, self._carried, self._sequences, self._order, precision)

    def backward(self, inputs: list[bool], results: list[bool]) -> "ScanBody":
        """Return the body of the loop in the other direction.

        It carries the gradients of what is carried and the sums of those of the constants. An element of its
        sequences is what a step was given to carry, its element, and the gradients of both its results.

        Parameters
        ----------
        inputs, results : list of bool
            Which of what goes in, and of the results, are floating-point numbers: others have no gradient.
        """
        plain, split, end = self.plain, self.split, self._carried + self._sequences
        moving, sequences, _ = split(inputs)
        number = sum(moving)

        def step(
            gradients: list[Any], elements: list[Any], constants: list[Any]
        ) -> tuple[list[Any], list[Any]]:
            values, gs = [*elements[:end], *constants], elements[end:]

            def forward(*arrays: Any) -> list[Any]:
                others = iter(arrays)
                left, y = plain(
                    *split([next(others) if x else v for x, v in zip(inputs, values, strict=True)])
                )
                return [*compress(left, moving), *compress(y, results)]

            _, pullback = vjp(forward, *compress(values, inputs))
            found = list(pullback([*gradients[:number], *gs[number:]]))
            g_elements = found[number : number + sum(sequences)]
            del found[number : number + sum(sequences)]
            return [
                a + b for a, b in zip(found, [*gs[:number], *gradients[number:]], strict=True)
            ], g_elements

        return self._with(step, sum(inputs) - sum(sequences), end + number + sum(results), self._order + 1)

    def _with(
        self, plain: Callable[..., Any], carried: int, sequences: int, order: int, precision: str = ""
    ) -> "ScanBody":
        options: Any = {"order": order, "precision": precision or self._precision}
        return ScanBody(plain, carried, sequences, self.location, self._plans, **options)


def _turned(xp: Any, gs: Any, ys: Any, inputs: Any, body: ScanBody) -> tuple[ScanBody, list[list[Any]]]:
    """Return the body of the loop backward, and what it carries, its sequences, and its constants.

    What comes out of the loop forward is: given to each step, results, carried on.
    """
    carried, sequences, constants = body.split(inputs)
    number, end = len(carried), len(ys) - len(carried)
    inputs_flow, ys_flow = ([_can_flow(xp, x) for x in part] for part in (inputs, ys))
    moving, _, staying = body.split(inputs_flow)
    zeros = [xp.zeros(x.shape, dtype=x.dtype, device=x.device) for x in compress(constants, staying)]
    start = [*compress(gs[end:], moving), *zeros]
    elements = [*ys[:number], *sequences, *compress(gs[:end], ys_flow)]
    back = body.backward(inputs_flow, ys_flow[number:end])
    return back, [start, [xp.flip(x, axis=0) for x in elements], constants]


def _can_flow(xp: Any, x: Any) -> bool:
    return bool(xp.isdtype(x.dtype, FLOATING))


def _scan_back(xp: Any, gs: Any, ys: Any, *inputs: Any, body: ScanBody, length: int) -> list[Any]:
    """Go through the sequence from its end."""
    back, (start, elements, constants) = _turned(xp, [conj(xp, g) for g in gs], ys, inputs, body)
    outputs = xp.scan_arrays(*start, *elements, *constants, body=back, length=length)
    last = len(outputs) - len(start)
    number = sum(_can_flow(xp, x) for x in body.split(inputs)[0])
    of_sequences = [xp.flip(g, axis=0) for g in outputs[len(start) : last]]
    found = iter([*outputs[last : last + number], *of_sequences, *outputs[last + number :]])
    return [conj(xp, next(found)) if _can_flow(xp, x) else None for x in inputs]


@function(
    joint=_scan_back,
    several=True,
    compute=lambda xp, *values, body, length: xp.scan_arrays(*values, body=body, length=length),
)
def scan_arrays(call: Any, *arrays: Any, body: ScanBody, length: int) -> Any:
    return call(*arrays, body=body, length=length)


def scan(
    f: Callable[..., Any], carried: Any, sequences: Any = None, *constants: Any, length: int | None = None
) -> tuple[Any, Any]:
    """Call a function for each element of a sequence, with what the call before has left.

    As ``for x in sequences: carried, y = f(carried, x, *constants)``, but recorded as one function whatever
    the length: ``f`` is recorded once and replayed for each element, also outside of `jit`. The gradient
    keeps what is carried, and computes each step a second time.

    Parameters
    ----------
    f : callable
        ``f(carried, x, *constants) → (carried, y)``, of arrays and trees of them. What it carries on has the
        structure, shapes and dtypes of what it was given. It is recorded anew if it, or something that it
        reads from outside, has changed; and in each call if it can reach an array, or a network, that is not
        among its arguments: pass those as constants. Arrays with a gradient must be its arguments; those
        that it closes over are refused.
    carried : array, number or tree
        What the first call is given. A Python number is carried as an array of the dtype that ``f`` leaves in
        its place.
    sequences : array or tree, optional
        With the elements along the first axis of each array. None to go on for a given length, with None for
        the elements.
    *constants : array, module or tree
        What is the same in each call: weights, say. A number is a setting: each value makes a recording.
    length : int, optional
        The number of calls. It is that of the sequences, if there are any.

    Returns
    -------
    carried : array or tree
        What the last call left.
    results : array or tree
        The results y of all calls, joined along a new first axis. None where they are None.

    Raises
    ------
    ValueError
        If there is no element, if the sequences are not of one length, if what is carried changes, or if
        ``f`` writes to its constants other than to the state of modules.
    TypeError
        If ``f`` does not return a pair, or its result or a sequence is neither an array nor a tree of them.
    NotRecordableError
        If ``f`` asks for the value of an array, see `jit`.

    Notes
    -----
    State that ``f`` writes to modules among its arguments, such as the random state of `nn.Dropout`, goes on
    from call to call, and is written to these modules at the end. The object of a method, the arguments of a
    `functools.partial` and a module in the place of ``f`` are constants, too.

    Integers and booleans have no gradient; they may stand among arrays that have one.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> def decay(total, x, rate):
    ...     total = rate * total + x
    ...     return total, total
    >>> last, totals = xpnet.scan(decay, 0.0, np.ones(4), np.asarray(0.5))
    >>> totals
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    function, own, bind = taken_apart(f)
    values = ByRole(carried, sequences, (own, constants))
    given = ByRole.of(lambda each: Leaves(*tree.flatten(each, state=True)), values)
    length = _length(given.elements.leaves, length)
    arrays = [x for each in given for x in each.arrays]
    location = location_of(arrays)
    given = ByRole.of(lambda each: each.mapped(location.beside), given)
    arrays = [x for each in given for x in each.arrays]
    xp = extended_namespace(*(arrays or [location.array(0)]))
    first = ByRole.of(lambda each: each.mapped(concrete), given)
    first = first._replace(elements=first.elements.mapped(lambda x: x[0, ...]))
    # What is known of a step: which numbers are carried as arrays, where it writes state, its results.
    kind = kind_of(Iteration(first, bind, location), function)
    if any(kind.written):
        _check_unshared(values)
    for index in kind.sizes:  # which a recording around this one must know of
        operator.index(given.constants.leaves[index])

    # State that a step writes is carried, too, behind the arrays that the function carries.
    trees = kind.with_arrays(given)
    state, number = sorted(kind.written.constants), len(trees.carried.arrays)
    moving = [*trees.carried.arrays, *(trees.constants.leaves[index] for index in state)]
    elements, staying = trees.elements.arrays, trees.constants.changed(dict.fromkeys(state)).arrays
    plain = Iteration(trees, bind, location).plain(kind.written.constants)
    parts = ByRole(moving, elements, staying)
    if _is_watched() or not all(getattr(x.dtype, "isnative", True) for x in arrays):
        outputs = _one_by_one(plain, parts, length, location)
    else:
        body = ScanBody(plain, len(moving), len(elements), location, kind.plans)
        outputs = _as_one(body, parts, length, xp)

    # The loop returns the results of all steps, and behind them what the last one left.
    end = len(outputs) - len(moving)
    results, last = outputs[len(moving) : end], outputs[end:]
    left = trees.carried.filled(last[:number])
    new_state = dict(zip(state, last[number:], strict=True))
    _write(given.carried, {index: left.leaves[index] for index in kind.written.carried}, carried)
    _write(given.constants, new_state, (own, constants))
    return left.tree(), tree.unflatten(kind.results, results)


def _one_by_one(plain: Callable[..., Any], parts: ByRole, length: int, location: Location) -> list[Any]:
    """Do the steps as they are written, each function by itself."""
    moving, elements, staying = parts

    def step(*lists: list[Any]) -> Any:
        return plain(*map(trace, lists))

    xp = traced_namespace(location.namespace)
    outputs = loops.one_by_one(xp, step, moving, elements, staying, length)
    is_traced = any(type(x) is Tracer for part in parts for x in part)
    return list(outputs) if is_traced else [*map(concrete, outputs)]


def _as_one(body: ScanBody, parts: ByRole, length: int, xp: Any) -> list[Any]:
    """Do the steps as one operation."""
    inputs = [x for part in parts for x in part]
    outputs = list(xp.scan_arrays(*inputs, body=body, length=length))
    if any(type(x) is Tracer and x.node is not None for x in inputs):
        # The step backward is recorded now, as what the function reads from outside may have changed later.
        with context.outside_of_recording():
            arrays, ys = [*map(concrete, inputs)], [*map(concrete, outputs)]
            back, (start, sequences, constants) = _turned(body.location.namespace, ys, ys, arrays, body)
            first = [x[0, ...] for x in sequences]
        with contextlib.suppress(NoGradientError):  # which is raised where the gradient is asked for
            back.record(start, first, constants)
    return outputs


def _write(given: Leaves, state: dict[int, Any], value: Any) -> None:
    """Write state to the modules of a tree."""
    if state:
        tree.copy_state(given.changed(state).tree(), value)


def _check_unshared(values: Any) -> None:
    branches = tree.branches(values)
    twice = next((x for x in branches if sum(x is other for other in branches) > 1), None)
    if twice is not None:
        raise ValueError(
            "a module must be given once if a step of scan writes state, received the same "
            f"{type(twice).__name__} twice. Hold it once in a module of your own, and use it twice."
        )


def _is_watched() -> bool:
    """Say whether `xpnet.raise_on_nan` looks at each operation."""
    return not context.is_usual() and context.current().recording is None


def _length(sequences: list[Any], length: int | None) -> int:
    """Return the number of steps."""
    for x in sequences:
        if not tree.is_array(x):
            raise TypeError(f"the sequences of scan must be arrays, received {type(x).__name__}: {x!r}.")
    lengths: set[int | None] = {x.shape[0] if len(x.shape) else None for x in sequences}
    if length is not None:
        if not is_integer(length):
            raise TypeError(f"the length of scan must be an integer, received {length!r}.")
        lengths.add(int(length))
    found = lengths.pop() if len(lengths) == 1 else None
    if found is None or found < 1:
        given = "" if length is None else f" and length={length}"
        raise ValueError(
            "scan needs sequences of one length, along the first axis, with at least one element, or a "
            f"length; received shapes {[tuple(x.shape) for x in sequences]}{given}."
        )
    return found
