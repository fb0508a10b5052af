"""`scan`: a loop over the elements of a sequence that is recorded as one function.

Its gradient is a loop in the other direction, over steps that carry gradients backward through one step, so
that it has gradients of any order. Under `jit`, the step is recorded, and not the loop: recording does not
take longer for longer sequences.

Four things carry it:

- `_Iteration` is the function of one call with the trees that it takes, as a function of lists of arrays;
- `_Kind` is what was found out about such a step when it was called first, and its plans. It is kept, and
  serves the calls of which the same holds;
- `Body` is what the loops of `xpnet.autodiff.loops` call: the step, or that of the loop backward;
- `scan_arrays` is the loop as one operation, which can be recorded and has a gradient rule.
"""

import contextlib
import copy
import functools
import operator
import types
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, NamedTuple

import array_api_compat
import numpy

from xpnet import tree
from xpnet.arrays import ArrayObject
from xpnet.autodiff import extended_namespace, loops, trace, vjp
from xpnet.autodiff.call import check_results
from xpnet.autodiff.namespace import active_recording, outside_of_recording, traced_namespace, watched
from xpnet.autodiff.primitive import NUMBERS, function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Tracer
from xpnet.backends import asarray, concrete, device, is_numpy_number, plain_namespace
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.replay.graph import Graph
from xpnet.replay.plans import make_plan
from xpnet.replay.record import Recorded, RecordingNamespace, output
from xpnet.replay.rewrite import simplified
from xpnet.replay.same.facts import Facts, key
from xpnet.replay.same.match import matcher
from xpnet.replay.same.randomness import warn_of_draws
from xpnet.settings import is_integer

# How many kinds of steps are kept: enough for the layers of a deep network, few enough that functions that
# are made anew for each call do not fill the memory.
LIMIT = 64

_FLOATING = ("real floating", "complex floating")

# An array that stands for others.
_ANY = numpy.empty(0)


# -- the function of a call ---------------------------------------------------------------------------------


class _Leaves(NamedTuple):
    """A tree taken apart: its leaves, state among them, and its structure."""

    leaves: list
    structure: Any

    @property
    def arrays(self) -> list:
        return [leaf for leaf in self.leaves if tree.is_array(leaf)]

    def filled(self, arrays: Sequence) -> "_Leaves":
        """Return the tree with other arrays."""
        others = iter(arrays)
        return self.mapped(lambda leaf: next(others) if tree.is_array(leaf) else leaf)

    def mapped(self, change: Callable[[Any], Any]) -> "_Leaves":
        return _Leaves([change(leaf) for leaf in self.leaves], self.structure)

    def changed(self, leaves: dict[int, Any]) -> "_Leaves":
        """Return the tree with other leaves at some places."""
        return _Leaves([leaves.get(index, leaf) for index, leaf in enumerate(self.leaves)], self.structure)

    def tree(self) -> Any:
        return tree.unflatten(self.structure, self.leaves)


def _taken_apart(f: Callable) -> tuple[Any, Any, Callable[[Any], Callable]]:
    """Take what a function brings along out of it: the object of a method, or the arguments of a partial.

    These are constants of the loop like others, with gradients and with state.

    Returns
    -------
    function : callable or None
        What is left.
    own : tree
        What it brings along.
    bind : callable
        Makes the function again, with another such tree.
    """
    if isinstance(f, tree.Branch):
        return None, f, lambda own: own
    if isinstance(f, types.MethodType):
        method = f.__func__
        return method, f.__self__, lambda own: types.MethodType(method, own)
    if isinstance(f, functools.partial):
        inner, own, bind = _taken_apart(f.func)
        return (
            inner,
            (own, f.args, f.keywords),
            lambda own: functools.partial(bind(own[0]), *own[1], **own[2]),
        )
    return f, (), lambda _own: f


class _Outcome(NamedTuple):
    """What a call of the function left.

    Attributes
    ----------
    carried : list
        The leaves of what it carries on.
    constants : list
        The leaves of what is the same in each step, with the state that it wrote.
    results : list of array
    structure : structure of a tree
        That of its results.
    written : tuple of set of int
        The places where it wrote state: among the leaves that it was given to carry, and among the constants.
    """

    carried: list
    constants: list
    results: list
    structure: Any
    written: tuple[set[int], set[int]]


class _Location(NamedTuple):
    """Where the arrays of a loop are."""

    namespace: Any
    device: Any

    def array(self, number: Any, dtype: Any = None) -> Any:
        return self.namespace.asarray(number, dtype=dtype, device=self.device)

    def beside(self, x: Any) -> Any:
        """Return a number of NumPy's beside arrays of another library as one of Python's."""
        return x.item() if is_numpy_number(x) and plain_namespace(x) is not self.namespace else x

    def is_lasting(self) -> bool:
        """Say whether arrays outlive the call. Within `jax.jit` they do not, and have no device."""
        return array_api_compat.device(self.array(0)) is not None


def _location_of(arrays: list) -> _Location:
    arrays = [concrete(x) for x in arrays]
    # A number of NumPy's may stand beside arrays of any library.
    first = next((x for x in arrays if not is_numpy_number(x)), None)
    if first is None:
        first = arrays[0] if arrays else asarray(0, device=device())
    return _Location(plain_namespace(first), array_api_compat.device(first))


class _Iteration:
    """The function of one call of `scan`, with the trees that it takes.

    Parameters
    ----------
    trees : sequence of _Leaves
        What is carried, an element, and the constants: a pair of what the function brings along and others.
    bind : callable
        See `_taken_apart`.
    location : _Location
    """

    def __init__(self, trees: Sequence[_Leaves], bind: Callable, location: _Location) -> None:
        self.trees, self.bind, self.location = trees, bind, location

    def __call__(self, *arrays: Sequence) -> _Outcome:
        """Call the function with other arrays in its trees."""
        given = [each.filled(part) for each, part in zip(self.trees, arrays, strict=True)]
        # With handles of its own, as the function may rebind those of traced and recorded arrays (x += 1).
        before, x, rest = (each.mapped(_handle).tree() for each in given)
        states = _State(before, given[0]), _State(rest, given[2])
        returned = self.bind(rest[0])(before, x, *rest[1])
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            received = "one array" if tree.is_array(returned) else f"{type(returned).__name__}: {returned!r}"
            raise TypeError(
                "the function of scan must return a pair, what it carries on, and its result or None; it "
                f"returned {received}."
            )
        for part in returned:
            check_results(part, NotRecordableError)
        written = states[0].written(), states[1].written()
        left = self._constants(given[2], rest, written[1])
        results, structure = tree.flatten(returned[1], state=True)
        return _Outcome(
            self._carried(given[0], returned[0]), left, self._results(results), structure, written
        )

    def plain(self, state: set[int]) -> Callable[[list, list, list], tuple[list, list]]:
        """Return the step of a loop: it also carries the state at some places of the constants."""
        number, places = len(self.trees[0].arrays), sorted(state)
        is_state = [index in state for index, leaf in enumerate(self.trees[2].leaves) if tree.is_array(leaf)]
        # Without its arrays, which would stay in memory with it.
        trees = [each.mapped(lambda x: _ANY if tree.is_array(x) else x) for each in self.trees]
        call = _Iteration(trees, self.bind, self.location)

        def step(carried: list, element: list, constants: list) -> tuple[list, list]:
            moving, staying = iter(carried[number:]), iter(constants)
            everything = [next(moving if moves else staying) for moves in is_state]
            outcome = call(carried[:number], element, everything)
            arrays = [x for x in outcome.carried if tree.is_array(x)]
            return [*arrays, *(outcome.constants[index] for index in places)], outcome.results

        return step

    def _carried(self, given: _Leaves, value: Any) -> list:
        left, structure = tree.flatten(value, state=True)
        following = _following(left, given.leaves) if structure == given.structure else None
        if following is None:
            raise ValueError(
                f"what scan carries must keep its structure, shapes and dtypes, {given.structure} with "
                f"{[*map(_kind, given.leaves)]}; the function left {structure} with {[*map(_kind, left)]}."
            )
        return following

    def _constants(self, given: _Leaves, value: Any, written: set[int]) -> list:
        left, structure = tree.flatten(value, state=True)
        changed = (
            structure != given.structure
            or _settings(value) != _settings(given.tree())
            or any(
                index not in written and concrete(x) is not concrete(before)
                for index, (x, before) in enumerate(zip(left, given.leaves, strict=True))
            )
        )
        if changed:
            raise ValueError(
                "a step of scan may write to the state of modules among its constants, and to nothing else "
                f"there, received {given.structure}, to which it wrote. Carry what changes, or name the "
                "attribute in `state` of its class."
            )
        return [*map(_like, left, given.leaves)]

    def _results(self, results: list) -> list:
        for x in results:
            if not tree.is_array(x) and type(x) not in NUMBERS:
                raise TypeError(
                    "the results of the function of scan are joined, and must be arrays, numbers, None or "
                    f"trees of them; received {type(x).__name__}: {x!r}."
                )
        return [x if tree.is_array(x) else self.location.array(x) for x in results]


def _settings(value: Any) -> list:
    """Return what holds of the attributes of modules that are no children of theirs."""
    settings = [
        {name: item for name, item in vars(branch).items() if not tree.is_child_of(branch, name)}
        for branch in tree.branches(value)
    ]
    return [Facts(each, refuse=False).inside() for each in settings]


def _handle(x: Any) -> Any:
    return copy.copy(x) if isinstance(x, ArrayObject) else x


class _State:
    """The state of the modules in a tree, and what of it is written from now on."""

    def __init__(self, value: Any, given: _Leaves) -> None:
        self._given = given.leaves
        numbered = _Leaves([*range(len(given.leaves))], given.structure).tree()
        self._places = [
            (branch, name, tree.leaves(vars(places)[name], state=True))
            for branch, places in zip(tree.branches(value), tree.branches(numbered), strict=True)
            for name in branch.state
            if name in vars(branch)
        ]

    def written(self) -> set[int]:
        """Return the places among the leaves."""
        found: set[int] = set()
        for branch, name, places in self._places:
            before = [self._given[index] for index in places]
            now = tree.leaves(vars(branch)[name], state=True)
            if len(now) != len(before) or _following(now, before) is None:
                raise ValueError(
                    "state that a step of scan writes must keep its shapes and dtypes, "
                    f"{[*map(_kind, before)]} for {name} of {type(branch).__name__}; received "
                    f"{[*map(_kind, now)]}."
                )
            pairs = zip(places, now, before, strict=True)
            found.update(index for index, x, y in pairs if concrete(x) is not concrete(y))
        return found


def _following(now: list, before: list) -> list | None:
    """Return leaves as those before, None if they are of other kinds.

    A number before will be an array of what is left in its place.
    """

    def follows(x: Any, y: Any) -> bool:
        if type(y) in NUMBERS:
            return type(x) in NUMBERS or (tree.is_array(x) and x.shape == ())
        return _kind(x) == _kind(y) if tree.is_array(y) else x is y or key(x) == key(y)

    now = [*map(_like, now, before)]
    return now if all(map(follows, now, before)) else None


def _kind(x: Any) -> Any:
    return (tuple(x.shape), x.dtype) if tree.is_array(x) else type(x)


# The dtypes that hold a number of Python, each also what the numbers before it are.
_HOLDING = {
    bool: ("bool", "integral", "real floating", "complex floating"),
    int: ("integral", "real floating", "complex floating"),
    float: _FLOATING,
    complex: ("complex floating",),
}


def _like(x: Any, array: Any) -> Any:
    """Return a number as an array like one of shape () that can hold it; anything else as it is."""
    if type(x) not in NUMBERS or not tree.is_array(array) or array.shape != ():
        return x
    location = _location_of([array])
    return location.array(x, array.dtype) if location.namespace.isdtype(array.dtype, _HOLDING[type(x)]) else x


# -- what is kept of it -------------------------------------------------------------------------------------


class _Kind:
    """What was found out about a step, and holds for all that are the same.

    Parameters
    ----------
    step : _Iteration
        Of plain arrays.

    Attributes
    ----------
    numbers : list of (int, int, dtype)
        The Python numbers that change from step to step: among the leaves of what is carried (0) or of the
        constants (2), at which place, and as what they are carried.
    written : tuple of set of int
        Where a step writes state, see `_Outcome`.
    settings : dict of int to int
        The numbers of NumPy's among the leaves of the constants that a step uses as sizes and the like.
    results : structure of a tree
    plans : dict
        The plans of the step and of those backward.
    location : _Location
    match : callable or None
        Says whether it serves another step there; None where nothing can say so.
    """

    def __init__(self, step: _Iteration) -> None:
        self.numbers: list[tuple[int, int, Any]] = []
        self.plans: dict[Any, Any] = {}
        self.match: Callable | None = None
        self.location = step.location
        while True:
            trees = self.with_arrays(step.trees)
            numbers = [index for index, leaf in enumerate(trees[0].leaves) if type(leaf) in NUMBERS]
            namespace = _recording(step.location)
            arrays = _recorded(namespace, *(each.arrays for each in trees))
            try:
                outcome = namespace.record(_Iteration(trees, step.bind, step.location), *arrays)
            except (AttributeError, TypeError):
                if not numbers:
                    raise
                # The function needs arrays where it was given numbers.
                self.numbers += [(0, index, self._dtype_beside(trees, index)) for index in numbers]
                continue
            becoming = [(0, index, outcome.carried[index]) for index in numbers]
            becoming += [
                (2, index, outcome.constants[index])
                for index in outcome.written[1]
                if type(trees[2].leaves[index]) in NUMBERS
            ]
            if not becoming:
                break
            for part, index, left in becoming:
                array = concrete(left) if tree.is_array(left) else self.location.array(left)
                x = _like(trees[part].leaves[index], array)
                self.numbers.append((part, index, (x if tree.is_array(x) else self.location.array(x)).dtype))
        self.written, self.results = outcome.written, outcome.structure
        places = [index for index, leaf in enumerate(trees[2].leaves) if tree.is_array(leaf)]
        pairs = zip(places, namespace.inputs, strict=True)
        self.settings = {index: namespace.settings[x] for index, x in pairs if x in namespace.settings}

    def _dtype_beside(self, trees: list[_Leaves], index: int) -> Any:
        """Return the dtype for a number that is carried: that of the floating-point numbers, if it is one."""
        x, xp = trees[0].leaves[index], self.location.namespace
        dtypes = [x.dtype for each in trees for x in each.arrays if xp.isdtype(x.dtype, "real floating")]
        return xp.result_type(*dtypes) if type(x) is float and dtypes else self.location.array(x).dtype

    def with_arrays(self, trees: Sequence[_Leaves]) -> list[_Leaves]:
        """Return the trees of a step with arrays in the place of the numbers that change."""
        changed: list[dict[int, Any]] = [{}, {}, {}]
        for part, index, dtype in self.numbers:
            changed[part][index] = self.location.array(trees[part].leaves[index], dtype)
        return [each.changed(leaves) for each, leaves in zip(trees, changed, strict=True)]


def _recorded(namespace: RecordingNamespace, carried: list, elements: list, constants: list) -> list[list]:
    """Return what stands for arrays. What changes from step to step is no size, and no argument for one."""
    changing = [[Recorded(x, namespace.variable(x), namespace) for x in part] for part in (carried, elements)]
    return [*changing, [*map(namespace.argument, constants)]]


def _recording(location: _Location) -> RecordingNamespace:
    namespace = RecordingNamespace(location.namespace)
    around = active_recording.get()
    if around is not None:  # what must not be a constant there must not be one here
        namespace.owned = around.owned
    return namespace


_kinds: list[_Kind] = []


def _kind_of(step: _Iteration, function: Any) -> _Kind:
    """Return what is known about a step, or find it out."""
    # The value of a number that is carried does not matter.
    carried = step.trees[0].mapped(lambda x: type(x) if type(x) in NUMBERS else x)
    values = (function, *(each.tree() for each in (carried, *step.trees[1:])))
    for known in _kinds:
        if known.location == step.location and known.match and known.match(values) is not None:
            return known
    facts = _facts(values)
    kind = _Kind(step)
    after = _facts(values)
    if facts is None or after is None:
        return kind
    warn_of_draws(facts)
    reads_arrays = facts.reads_arrays or after.reads_arrays  # whose elements are not compared
    if not reads_arrays and step.location.is_lasting():
        facts.keep(after)
        places = [index for index, leaf in enumerate(step.trees[2].leaves) if tree.is_array(leaf)]
        for index, place in zip(places, facts.arrays[len(facts.arrays) - len(places) :], strict=True):
            if index in kind.settings:
                facts.fix(place, kind.settings[index])
        kind.match = matcher(facts)
        _kinds[:] = [kind, *_kinds][:LIMIT]
    return kind


def _facts(values: Any) -> Facts | None:
    """Return what must hold of a step for another one to do the same; None where nobody can say."""
    try:
        return Facts(values)
    except NotRecordableError:
        return None


# -- the loop as one operation ------------------------------------------------------------------------------


class Body:
    """A step of a loop: a function of lists of arrays, recorded when it is first called.

    Parameters
    ----------
    plain : callable
        ``plain(carried, elements, constants)`` returns what is carried on, and results.
    carried, sequences : int
        How many arrays these are.
    location : _Location
    plans : dict
        Where plans are kept.
    order : int, default=0
        How often it was turned around: 1 for the step of the gradient, 2 for that of its gradient.
    precision : str, default="float32"
        See `xpnet.jit`.
    """

    def __init__(
        self,
        plain: Callable,
        carried: int,
        sequences: int,
        location: _Location,
        plans: dict,
        *,
        order: int = 0,
        precision: str = "float32",
    ) -> None:
        self.plain = plain
        self.location = location
        self._carried, self._sequences, self._plans = carried, sequences, plans
        self._order, self._precision = order, precision

    def split(self, values: Any) -> tuple[list, list, list]:
        """Return what is carried, the sequences, and the constants."""
        end = self._carried + self._sequences
        return list(values[: self._carried]), list(values[self._carried : end]), list(values[end:])

    def step(self, carried: list, elements: list, constants: list) -> tuple[list, list]:
        """Do what the function does, by a plan."""
        plan = self.record(carried, elements, constants)
        with outside_of_recording():
            outputs = plan([*carried, *elements, *constants])
        return list(outputs[: self._carried]), list(outputs[self._carried :])

    def record(self, carried: list, elements: list, constants: list) -> Any:
        """Return the plan, which is made for arrays like these."""
        name = (self._order, self._precision)
        if name in self._plans:
            return self._plans[name]
        arrays = [*carried, *elements, *constants]
        location = _location_of(arrays) if arrays else self.location
        namespace = _recording(location)
        recorded = _recorded(namespace, carried, elements, constants)
        inputs: list[Any] = [x.variable for part in recorded for x in part]
        after, results = namespace.record(self.plain, *recorded)
        outputs = [*map(output, (*after, *results))]
        graph = simplified(Graph(inputs, namespace.operations, outputs))
        plan = make_plan(graph, [None] * len(outputs), location.array(0), self._precision)
        if location.is_lasting():
            self._plans[name] = plan
        return plan

    def in_precision(self, precision: str) -> "Body":
        """Return the body whose matrix products have operands of another precision."""
        return self._with(self.plain, self._carried, self._sequences, self._order, precision)

    def backward(self, inputs: list[bool], results: list[bool]) -> "Body":
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

        def step(gradients: list, elements: list, constants: list) -> tuple[list, list]:
            values, gs = [*elements[:end], *constants], elements[end:]

            def forward(*arrays: Any) -> list:
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

    def _with(self, plain: Callable, carried: int, sequences: int, order: int, precision: str = "") -> "Body":
        options: Any = {"order": order, "precision": precision or self._precision}
        return Body(plain, carried, sequences, self.location, self._plans, **options)


def _turned(xp: Any, gs: Any, ys: Any, inputs: Any, body: Body) -> tuple[Body, list[list]]:
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
    return xp.isdtype(x.dtype, _FLOATING)


def _scan_back(xp: Any, gs: Any, ys: Any, *inputs: Any, body: Body, length: int) -> list[Any]:
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
def scan_arrays(call: Any, *arrays: Any, body: Body, length: int) -> Any:
    return call(*arrays, body=body, length=length)


def scan(
    f: Callable, carried: Any, sequences: Any = None, *constants: Any, length: int | None = None
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
    function, own, bind = _taken_apart(f)
    values = (carried, sequences, (own, constants))
    given = [_Leaves(*tree.flatten(each, state=True)) for each in values]
    length = _length(given[1].leaves, length)
    arrays = [x for each in given for x in each.arrays]
    location = _location_of(arrays)
    given = [each.mapped(location.beside) for each in given]
    arrays = [x for each in given for x in each.arrays]
    xp = extended_namespace(*(arrays or [location.array(0)]))
    first = [each.mapped(concrete) for each in given]
    first[1] = first[1].mapped(lambda x: x[0, ...])
    kind = _kind_of(_Iteration(first, bind, location), function)
    if any(kind.written):
        _check_unshared(values)
    for index in kind.settings:  # which a recording around this one must know of
        operator.index(given[2].leaves[index])

    trees = kind.with_arrays(given)
    state = sorted(kind.written[1])
    moving = [*trees[0].arrays, *(trees[2].leaves[index] for index in state)]
    elements, staying = trees[1].arrays, trees[2].changed(dict.fromkeys(state)).arrays
    plain = _Iteration(trees, bind, location).plain(kind.written[1])
    parts = [moving, elements, staying]
    if _is_watched() or not all(getattr(x.dtype, "isnative", True) for x in arrays):
        outputs = _one_by_one(plain, parts, length, location)
    else:
        outputs = _as_one(Body(plain, len(moving), len(elements), location, kind.plans), parts, length, xp)

    end = len(outputs) - len(moving)
    results, last = outputs[len(moving) : end], outputs[end:]
    left = trees[0].filled(last[: len(trees[0].arrays)])
    new_state = dict(zip(state, last[len(trees[0].arrays) :], strict=True))
    _write(given[0], {index: left.leaves[index] for index in kind.written[0]}, carried)
    _write(given[2], new_state, (own, constants))
    return left.tree(), tree.unflatten(kind.results, results)


def _one_by_one(plain: Callable, parts: list[list], length: int, location: _Location) -> list:
    """Do the steps as they are written, each function by itself."""
    moving, elements, staying = parts

    def step(*lists: list) -> tuple[list, list]:
        return plain(*map(trace, lists))

    xp = traced_namespace(location.namespace)
    outputs = loops.one_by_one(xp, step, moving, elements, staying, length)
    is_traced = any(type(x) is Tracer for part in parts for x in part)
    return list(outputs) if is_traced else [*map(concrete, outputs)]


def _as_one(body: Body, parts: list[list], length: int, xp: Any) -> list:
    """Do the steps as one operation."""
    inputs = [x for part in parts for x in part]
    outputs = list(xp.scan_arrays(*inputs, body=body, length=length))
    if any(type(x) is Tracer and x.node is not None for x in inputs):
        # The step backward is recorded now, as what the function reads from outside may have changed later.
        with outside_of_recording():
            arrays, ys = [*map(concrete, inputs)], [*map(concrete, outputs)]
            back, (start, sequences, constants) = _turned(body.location.namespace, ys, ys, arrays, body)
            first = [x[0, ...] for x in sequences]
        with contextlib.suppress(NoGradientError):  # which is raised where the gradient is asked for
            back.record(start, first, constants)
    return outputs


def _write(given: _Leaves, state: dict[int, Any], value: Any) -> None:
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
    return watched() and active_recording.get() is None


def _length(sequences: list, length: int | None) -> int:
    """Return the number of steps."""
    for x in sequences:
        if not tree.is_array(x):
            raise TypeError(f"the sequences of scan must be arrays, received {type(x).__name__}: {x!r}.")
    lengths = {x.shape[0] if len(x.shape) else None for x in sequences}
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
