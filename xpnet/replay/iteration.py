"""What `scan` repeats: the function of one call, and what was found out about it when it was called first.

- `Iteration` is the function with the trees that it takes, as a function of lists of arrays;
- `Kind` is what holds for all that are the same, with their plans. It is kept, and serves the calls of which
  the same facts hold.
"""

import copy
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import array_api_compat
import numpy

from xpnet import tree
from xpnet.arrays import ArrayObject
from xpnet.autodiff import context
from xpnet.autodiff.call import FLOATING, check_results
from xpnet.autodiff.primitive import NUMBERS
from xpnet.backends import asarray, concrete, device, is_numpy_number, plain_namespace
from xpnet.errors import NotRecordableError
from xpnet.replay.record import Recorded, RecordingNamespace
from xpnet.replay.same.facts import Facts, key
from xpnet.replay.same.match import matcher
from xpnet.replay.same.randomness import warn_of_draws

# How many kinds of steps are kept: enough for the layers of a deep network, few enough that functions that
# are made anew for each call do not fill the memory.
MOST_KINDS = 64

# An array that stands for others.
_ANY = numpy.empty(0)


# -- the function of a call ---------------------------------------------------------------------------------


class Leaves(NamedTuple):
    """A tree taken apart: its leaves, state among them, and its structure."""

    leaves: list
    structure: Any

    @property
    def arrays(self) -> list:
        return [leaf for leaf in self.leaves if tree.is_array(leaf)]

    @property
    def places(self) -> list[int]:
        """Where the arrays are among the leaves."""
        return [index for index, leaf in enumerate(self.leaves) if tree.is_array(leaf)]

    def filled(self, arrays: Sequence) -> "Leaves":
        """Return the tree with other arrays."""
        others = iter(arrays)
        return self.mapped(lambda leaf: next(others) if tree.is_array(leaf) else leaf)

    def mapped(self, change: Callable[[Any], Any]) -> "Leaves":
        return Leaves([change(leaf) for leaf in self.leaves], self.structure)

    def changed(self, leaves: dict[int, Any]) -> "Leaves":
        """Return the tree with other leaves at some places."""
        return Leaves([leaves.get(index, leaf) for index, leaf in enumerate(self.leaves)], self.structure)

    def tree(self) -> Any:
        return tree.unflatten(self.structure, self.leaves)


class ByRole(NamedTuple):
    """Something for each role that an array may have in a loop: trees, arrays, or places in them."""

    carried: Any
    elements: Any
    constants: Any

    @classmethod
    def of(cls, f: Callable, *parts: Sequence) -> "ByRole":
        """Return what a function returns for each of the three."""
        return cls(*map(f, *parts))


def taken_apart(f: Callable) -> tuple[Any, Any, Callable[[Any], Callable]]:
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
        inner, own, bind = taken_apart(f.func)
        return (
            inner,
            (own, f.args, f.keywords),
            lambda own: functools.partial(bind(own[0]), *own[1], **own[2]),
        )
    return f, (), lambda _own: f


class Outcome(NamedTuple):
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
    written : ByRole
        Where it wrote state: sets of places among the leaves of what is carried, and of the constants.
    """

    carried: list
    constants: list
    results: list
    structure: Any
    written: ByRole


class Location(NamedTuple):
    """Where the arrays of a loop are."""

    namespace: Any
    device: Any

    def array(self, number: Any, dtype: Any = None) -> Any:
        return self.namespace.asarray(number, dtype=dtype, device=self.device)

    def beside(self, x: Any) -> Any:
        """Return a number of NumPy's beside arrays of another library as one of Python's."""
        return x.item() if is_numpy_number(x) and plain_namespace(x) is not self.namespace else x

    def recording(self) -> RecordingNamespace:
        """Return a namespace that records functions of such arrays."""
        namespace = RecordingNamespace(self.namespace)
        namespace.is_step = True
        around = context.current().recording
        if around is not None:  # what must not be a constant there must not be one here
            namespace.owned = around.owned
        return namespace

    def is_lasting(self) -> bool:
        """Say whether arrays outlive the call. Within `jax.jit` they do not, and have no device."""
        return array_api_compat.device(self.array(0)) is not None


def location_of(arrays: list) -> Location:
    arrays = [concrete(x) for x in arrays]
    # A number of NumPy's may stand beside arrays of any library.
    first = next((x for x in arrays if not is_numpy_number(x)), None)
    if first is None:
        first = arrays[0] if arrays else asarray(0, device=device())
    return Location(plain_namespace(first), array_api_compat.device(first))


class Iteration:
    """The function of one call of `scan`, with the trees that it takes.

    Parameters
    ----------
    trees : ByRole of Leaves
        The constants are a pair, of what the function brings along and of others.
    bind : callable
        See `taken_apart`.
    location : Location
    """

    def __init__(self, trees: ByRole, bind: Callable, location: Location) -> None:
        self.trees, self.bind, self.location = trees, bind, location

    def __call__(self, *arrays: Sequence) -> Outcome:
        """Call the function with other arrays in its trees."""
        given = ByRole.of(Leaves.filled, self.trees, arrays)
        # With handles of its own, as the function may rebind those of traced and recorded arrays (x += 1).
        before, x, rest = (each.mapped(_handle).tree() for each in given)
        states = _State(before, given.carried), _State(rest, given.constants)
        own, others = rest
        returned = self.bind(own)(before, x, *others)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            received = "one array" if tree.is_array(returned) else f"{type(returned).__name__}: {returned!r}"
            raise TypeError(
                "the function of scan must return a pair, what it carries on, and its result or None; it "
                f"returned {received}."
            )
        for part in returned:
            check_results(part, NotRecordableError)
        written = ByRole(states[0].written(), set(), states[1].written())
        constants = self._constants(given.constants, rest, written.constants)
        left, y = returned
        results, structure = tree.flatten(y, state=True)
        return Outcome(
            self._carried(given.carried, left), constants, self._results(results), structure, written
        )

    def plain(self, state: set[int]) -> Callable[[list, list, list], tuple[list, list]]:
        """Return the step of a loop: it also carries the state at some places of the constants."""
        number, places = len(self.trees.carried.arrays), sorted(state)
        is_state = [index in state for index in self.trees.constants.places]
        # Without its arrays, which would stay in memory with it.
        trees = ByRole.of(lambda each: each.mapped(lambda x: _ANY if tree.is_array(x) else x), self.trees)
        call = Iteration(trees, self.bind, self.location)

        def step(carried: list, element: list, constants: list) -> tuple[list, list]:
            moving, staying = iter(carried[number:]), iter(constants)
            everything = [next(moving if moves else staying) for moves in is_state]
            outcome = call(carried[:number], element, everything)
            arrays = [x for x in outcome.carried if tree.is_array(x)]
            return [*arrays, *(outcome.constants[index] for index in places)], outcome.results

        return step

    def _carried(self, given: Leaves, value: Any) -> list:
        left, structure = tree.flatten(value, state=True)
        following = _following(left, given.leaves) if structure == given.structure else None
        if following is None:
            raise ValueError(
                f"what scan carries must keep its structure, shapes and dtypes, {given.structure} with "
                f"{[*map(_kind, given.leaves)]}; the function left {structure} with {[*map(_kind, left)]}."
            )
        return following

    def _constants(self, given: Leaves, value: Any, written: set[int]) -> list:
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

    def __init__(self, value: Any, given: Leaves) -> None:
        self._given = given.leaves
        numbered = Leaves([*range(len(given.leaves))], given.structure).tree()
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
    float: FLOATING,
    complex: ("complex floating",),
}


def _like(x: Any, array: Any) -> Any:
    """Return a number as an array like one of shape () that can hold it; anything else as it is."""
    if type(x) not in NUMBERS or not tree.is_array(array) or array.shape != ():
        return x
    location = location_of([array])
    return location.array(x, array.dtype) if location.namespace.isdtype(array.dtype, _HOLDING[type(x)]) else x


# -- what is kept of it -------------------------------------------------------------------------------------


class Kind:
    """What was found out about a step, and holds for all that are the same.

    Parameters
    ----------
    step : Iteration
        Of plain arrays.

    Attributes
    ----------
    numbers : list of (str, int, dtype)
        The Python numbers that change from step to step: in which role, at which place among the
        leaves, and as what they are carried.
    written : ByRole
        Where a step writes state, see `Outcome`.
    sizes : dict of int to int
        The numbers of NumPy's among the leaves of the constants that a step uses as sizes and the like.
    results : structure of a tree
    plans : dict
        The plans of the step and of those backward.
    location : Location
    match : callable or None
        Says whether it serves another step there; None where nothing can say so.
    """

    def __init__(self, step: Iteration) -> None:
        self.numbers: list[tuple[str, int, Any]] = []
        self.plans: dict[Any, Any] = {}
        self.match: Callable | None = None
        self.location = step.location
        # Record the step. A number that turns out to change from call to call must be an array: then record
        # it again, with that.
        while True:
            trees = self.with_arrays(step.trees)
            numbers = [index for index, leaf in enumerate(trees.carried.leaves) if type(leaf) in NUMBERS]
            namespace = step.location.recording()
            arrays = stand_ins(namespace, *(each.arrays for each in trees))
            try:
                outcome = namespace.record(Iteration(trees, step.bind, step.location), *arrays)
            except (AttributeError, TypeError):
                if not numbers:
                    raise
                # The function needs arrays where it was given numbers.
                self.numbers += [("carried", index, self._dtype_beside(trees, index)) for index in numbers]
                continue
            becoming = [("carried", index, outcome.carried[index]) for index in numbers]
            becoming += [
                ("constants", index, outcome.constants[index])
                for index in outcome.written.constants
                if type(trees.constants.leaves[index]) in NUMBERS
            ]
            if not becoming:
                break
            for part, index, left in becoming:
                array = concrete(left) if tree.is_array(left) else self.location.array(left)
                x = _like(getattr(trees, part).leaves[index], array)
                self.numbers.append((part, index, (x if tree.is_array(x) else self.location.array(x)).dtype))
        self.written, self.results = outcome.written, outcome.structure
        pairs = zip(trees.constants.places, namespace.inputs, strict=True)
        self.sizes = {index: namespace.sizes[x] for index, x in pairs if x in namespace.sizes}

    def _dtype_beside(self, trees: ByRole, index: int) -> Any:
        """Return the dtype for a number that is carried: that of the floating-point numbers, if it is one."""
        x, xp = trees.carried.leaves[index], self.location.namespace
        dtypes = [x.dtype for each in trees for x in each.arrays if xp.isdtype(x.dtype, "real floating")]
        return xp.result_type(*dtypes) if type(x) is float and dtypes else self.location.array(x).dtype

    def with_arrays(self, trees: ByRole) -> ByRole:
        """Return the trees of a step with arrays in the place of the numbers that change."""
        for part, index, dtype in self.numbers:
            leaves = getattr(trees, part)
            array = self.location.array(leaves.leaves[index], dtype)
            trees = trees._replace(**{part: leaves.changed({index: array})})
        return trees


def stand_ins(namespace: RecordingNamespace, carried: list, elements: list, constants: list) -> list[list]:
    """Return what stands for arrays. What changes from step to step is no size, and no argument for one."""
    changing = [[Recorded(x, namespace.variable(x), namespace) for x in part] for part in (carried, elements)]
    return [*changing, [*map(namespace.argument, constants)]]


_kinds: list[Kind] = []


def kind_of(step: Iteration, function: Any) -> Kind:
    """Return what is known about a step, or find it out."""
    # The value of a number that is carried does not matter.
    carried = step.trees.carried.mapped(lambda x: type(x) if type(x) in NUMBERS else x)
    values = (function, *ByRole.of(Leaves.tree, step.trees._replace(carried=carried)))
    for known in _kinds:
        if known.location == step.location and known.match and known.match(values) is not None:
            return known
    facts = _facts(values)
    kind = Kind(step)
    after = _facts(values)
    if facts is None or after is None:
        return kind
    warn_of_draws(facts)
    reads_arrays = facts.reads_arrays or after.reads_arrays  # whose elements are not compared
    if not reads_arrays and step.location.is_lasting():
        facts.leave_out_changed(after)
        places = step.trees.constants.places
        for index, place in zip(places, facts.arrays[len(facts.arrays) - len(places) :], strict=True):
            if index in kind.sizes:
                facts.fix(place, kind.sizes[index])
        kind.match = matcher(facts)
        _kinds[:] = [kind, *_kinds][:MOST_KINDS]
    return kind


def _facts(values: Any) -> Facts | None:
    """Return what must hold of a step for another one to do the same; None where nobody can say."""
    try:
        return Facts(values)
    except NotRecordableError:
        return None
