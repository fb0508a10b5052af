"""`jit`: from a function to its plans, one for each kind of arguments.

A call looks for a recording that serves its arguments (`same/`). If there is none, the function is recorded
(`record.py`), the graph of what it did is simplified (`rewrite.py`), and a plan is made of it (`plans/`).
"""

import copy
import functools
import inspect
import logging
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import numpy

from xpnet import tree
from xpnet.arrays import ArrayObject
from xpnet.autodiff import context
from xpnet.autodiff.call import check_results
from xpnet.backends import concrete, plain_namespace
from xpnet.errors import NotRecordableError
from xpnet.replay.graph import Cost, Graph, Variable
from xpnet.replay.plans import make_plan
from xpnet.replay.precision import check_precision
from xpnet.replay.record import Recorded, RecordingNamespace, output
from xpnet.replay.rewrite import simplified
from xpnet.replay.same.facts import Facts, stands_for_others
from xpnet.replay.same.match import builder, matcher
from xpnet.replay.same.randomness import warn_of_draws

_log = logging.getLogger("xpnet")

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

# How many plans a function keeps: enough for training and evaluation with a smaller last batch each, few
# enough that a function that is called with ever new shapes does not fill the memory.
MOST_RECORDINGS = 16


class _Recording:
    """What one call left: a plan, what must hold to use it again, and how results are put together.

    Attributes
    ----------
    match : callable
        Returns the arrays of other arguments and what else is needed of these; None if it is not for them.
    plan : Plan
    others : list
        What else is needed of the arguments that it was recorded with, until they have been replayed.
    changed : list of str
        The numbers from outside that the function changed.
    """

    def __init__(
        self, f: Callable[..., Any], arguments: Any, donated: Callable[..., list[Any]], precision: str
    ) -> None:
        # What it takes in besides the values of arrays, before it is called.
        facts = Facts(arguments, f)
        # A copy of the arguments, with recorded arrays in the place of arrays.
        leaves, structure = tree.flatten(arguments, state=True)
        arrays = [index for index, leaf in enumerate(leaves) if stands_for_others(leaf)]
        first = _first_of_library([leaves[index] for index in arrays])
        namespace = RecordingNamespace(plain_namespace(first))
        namespace.owned = facts.owned
        recorded = list(leaves)
        for index in arrays:
            recorded[index] = namespace.argument(leaves[index])
        inputs: list[Any] = namespace.inputs
        copies: Any = tree.unflatten(structure, recorded)
        # Taken apart before the call, in which the function may write state to them.
        given = _leaves_of_each(donated(*copies[0], **copies[1]))
        result = namespace.record(f, *copies[0], **copies[1])
        warn_of_draws(facts)
        # What holds afterwards: what the function changed itself is not compared.
        after = Facts(arguments, f)
        if after.holder and not facts.holder:
            raise NotRecordableError(
                f"a function under xpnet.jit must return its arrays, and wrote one to {after.holder}, "
                "which a replay would not do. Return it, and write it there yourself."
            )
        self.changed = facts.leave_out_changed(after)
        # What only the call showed: arrays that were used as sizes, and arrays that were written to.
        for place, x in zip(facts.arrays, inputs, strict=True):
            if x in namespace.sizes:
                facts.fix(place, namespace.sizes[x])
        assigned = [place for place, x in zip(facts.arrays, inputs, strict=True) if x in namespace.assigned]
        if assigned:
            facts.separate(assigned, arguments)
        # What comes out: the result, and the state that was written to modules.
        places, values = _written_state(copies, arguments)
        for part in (result, values):
            check_results(part, NotRecordableError)
        outputs, results = tree.flatten((result, values), state=True)
        self._build, others = builder(results, outputs, places, facts)
        self.others = [*others.values()]
        ends = [output(x) for x in outputs if stands_for_others(x)]
        donated_to = _written_over(given, result)
        over = [donated_to.get(x) if type(x) is Variable else None for x in ends]
        graph = simplified(Graph(inputs, namespace.operations, ends))
        self.plan = make_plan(graph, over, first, precision)
        self.match = matcher(facts, others, self.plan.is_unusual)
        self._overflows = precision == "float16"  # too large for it is no mistake, see `optim.LossScaling`

    def replay(self, arrays: Any, others: Any, usual: bool = False, *, keep: bool = False) -> Any:
        """Return what the function returns for what `match` gives; with ``keep``, donated ones too stay."""
        if self._overflows:
            with numpy.errstate(over="ignore", invalid="ignore"):
                return self._build(self.plan(arrays, keep=keep), others)
        return self._build(self.plan.run(arrays) if usual else self.plan(arrays, keep=keep), others)


def _first_of_library(arrays: list[Any]) -> Any:
    """Return an array of the library that is recorded. NumPy's numbers may stand beside arrays of others."""
    return next((x for x in arrays if not isinstance(x, numpy.ndarray | numpy.generic)), arrays[0])


def _written_state(copies: Any, arguments: Any) -> tuple[list[tuple[tree.Branch, str]], list[Any]]:
    """Return the state that a function wrote to the modules among its arguments: where, and what."""
    places, values = [], []
    for new, old in zip(tree.branches(copies), tree.branches(arguments), strict=True):
        for name in new.state:
            value = vars(new).get(name)
            if value is not None and concrete(value) is not vars(old).get(name):
                places.append((old, name))
                values.append(value)
    return places, values


def _leaves_of_each(trees: list[Any]) -> list[tuple[list[Any], Any]]:
    return [tree.flatten(each, state=True) for each in trees]


def _written_over(donated: list[tuple[list[Any], Any]], result: Any) -> dict[Any, Variable]:
    """Pair the parts of a result with donated arguments of the same structure, leaf by leaf.

    The plan decides which of these it does write over the argument: see `plans/memory.py`.
    """
    parts = _leaves_of_each(list(result) if isinstance(result, tuple | list) else [result])
    over: dict[Any, Any] = {}
    for leaves, structure in donated:
        number = next((number for number, part in enumerate(parts) if part[1] == structure), None)
        if number is not None:
            for old, new in zip(leaves, parts.pop(number)[0], strict=True):
                recorded = type(old) is type(new) is Recorded and new.variable is not None
                if recorded and (old.shape, old.dtype) == (new.shape, new.dtype):
                    over[new.variable] = old.variable
    return over


def _can_be_recorded(received: Any, arrays: list[Any]) -> bool:
    """Say whether a function may be recorded with these arguments.

    Not where it is recorded or differentiated outside already; not with a module at two places, of which a
    recording would make two; and not with numbers in the order of bytes of another machine.
    """
    branches = tree.branches(received)
    return (
        not any(isinstance(x, ArrayObject) for x in arrays)
        and len({id(branch) for branch in branches}) == len(branches)
        and all(getattr(x.dtype, "isnative", True) for x in arrays)
    )


class jit(Generic[P, R]):
    """Record a function once, and replay what it did from then on.

    A replay does the same arithmetic with other values, without Python between the functions: on NumPy into
    memory laid out beforehand, and where numba is installed (``pip install numba``) with chains of
    elementwise functions in one loop, and by native code that goes through loops and matrix products; on CuPy
    with kernels made for the function, as one CUDA graph; on JAX compiled by `jax.jit`; on any other library
    one call after the other.

    Parameters
    ----------
    f : callable
        A function of arrays and trees (modules, optimizer states, dicts, lists) that returns such, written
        with functions of the array API standard; `grad` and its like inside are recorded along. What else it
        does (printing, counting, random numbers of NumPy's) it does only when it is recorded, and what it
        writes to attributes that are not state, or into its arguments, is lost.
    donate : sequence of str, default=()
        Names of parameters of ``f`` that the caller no longer needs. The part of the result with the same
        structure is written over them on replays, on NumPy and CuPy. A call that is cut off by Ctrl-C leaves
        some written over and some not: `xpnet.training.Interrupts` puts that off.
    precision : {"float32", "tf32", "float16", "bfloat16"}, default="float32"
        What the operands of matrix products (matmul, tensordot) of float32 arrays are rounded to. The
        products are added up in float32, and all else stays as it is: arrays, sums, other functions, and
        products of float64. Where the library has no such products, the operands are rounded and multiplied
        in float32, which takes longer and gives the same.

        ========  ======================  ======================  ===============
        name      binary digits           largest number          smallest normal
        ========  ======================  ======================  ===============
        float32   24                      3.4e38                  1.2e-38
        tf32      11                      3.4e38                  1.2e-38
        bfloat16  8                       3.4e38                  1.2e-38
        float16   11                      65504                   6.1e-5
        ========  ======================  ======================  ===============

        Larger numbers become infinite, without a warning in float16: see `optim.LossScaling`.

    Returns
    -------
    callable
        With the arguments of ``f``. It records at the first call with arrays of given shapes, dtypes and
        device, and with given other values: numbers, functions, attributes of modules, and what ``f`` reads
        from outside. Pass a number that changes as an array. The last 16 recordings are kept. Results agree
        with those of ``f`` within rounding.

    Raises
    ------
    NotRecordableError
        When recording, if ``f`` asks for the value of an array (``if``, ``float()``) or for a shape that
        depends on values, if it reads the arrays of a module that is no argument, or if something among
        the arguments cannot be compared.
    ValueError
        If ``donate`` does not name parameters of ``f``, or there is no such precision.

    Notes
    -----
    State that ``f`` writes to modules among its arguments, such as the random state of `nn.Dropout`, is
    written on each replay.

    Native code takes numbers that are too small to be normal (below 1.2e-38 in float32) for zero, as does
    JAX. With ``XPNET_CHECK=1`` in the environment, each step on NumPy is compared with what ``f`` called.

    What is no array is compared at each call, by type and value: what is among the arguments, and what ``f``
    and the functions that it calls read from closures, globals, defaults, attributes and methods. Arrays
    from outside are copied when recording, and later changes to them are not seen. Not looked at are what
    ``f`` itself writes, and what functions of installed packages read from outside.

    Inside `grad`, another `jit` or `raise_on_nan`, and with a module that stands at two places of the
    arguments, ``f`` is called as it is, with products of the precision outside.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> net, optimizer = xpnet.nn.Dense(2, 1, seed=0), xpnet.optim.SGD(0.1)
    >>> def step(net, state, x, y):
    ...     loss, gradient = xpnet.value_and_grad(lambda net: xpnet.losses.mse(net(x), y))(net)
    ...     return *optimizer.update(gradient, state, net), loss
    >>> step = xpnet.jit(step, donate=("net", "state"))
    >>> state, x = optimizer.init(net), np.eye(2, dtype=np.float32)
    >>> for _ in range(100):
    ...     net, state, loss = step(net, state, x, x.sum(axis=1, keepdims=True))
    >>> bool(loss < 0.001)
    True
    """

    def __init__(self, f: Callable[P, R], *, donate: Sequence[str] = (), precision: str = "float32") -> None:
        check_precision(precision)
        functools.update_wrapper(self, f, updated=())  # an object has attributes of its own
        self._f = f
        self._donate = tuple(donate)
        self._precision = precision
        self._recordings: list[_Recording] = []
        self._said = False  # that there are too many kinds of arguments
        # Not every function tells its parameters.
        self._names = list(inspect.signature(f).parameters) if donate else []
        unknown = [name for name in self._donate if name not in self._names]
        if isinstance(donate, str) or unknown:
            raise ValueError(
                f"donate must name parameters of the function, {', '.join(self._names)}; received "
                f'{donate!r}. Write donate=("net", "state").'
            )

    def __call__(self, *arguments: P.args, **keywords: P.kwargs) -> R:
        received = arguments, keywords
        if not context.is_usual():  # inside `raise_on_nan`, or another recording
            return self._f(*arguments, **keywords)
        for recording in self._recordings:
            found = recording.match(received)
            if found is not None:
                result: R = recording.replay(*found)
                return result
        return self._record(received)

    @overload
    def __get__(self, instance: None, _owner: Any = None) -> Self: ...
    @overload
    def __get__(self: "jit[Concatenate[Any, Q], R]", instance: object, _owner: Any = None) -> "jit[Q, R]": ...
    def __get__(self, instance: Any, _owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)  # it may be a method

    def __reduce__(self) -> Any:
        # A copy records anew; what stands decorated in a module is found there again, as functions are.
        path = getattr(self, "__qualname__", "")
        where: Any = sys.modules.get(self.__module__)
        for name in path.split("."):
            where = getattr(where, name, None)
        return path if where is self else (_jit, (self._f, self._donate, self._precision))

    def __deepcopy__(self, memo: dict[Any, Any]) -> "jit[P, R]":
        return _jit(copy.deepcopy(self._f, memo), self._donate, self._precision)

    def explain(self) -> str:
        """Describe the plans: the functions that are called, what was put together, and the memory.

        Returns
        -------
        str
            The latest plan first.
        """
        if not self._recordings:
            return "Nothing is recorded yet: call the function once."
        return "\n\n".join(recording.plan.explain() for recording in self._recordings)

    def cost(self) -> Cost:
        """Count what one replay of the latest plan takes.

        Returns
        -------
        Cost
            With ``floating_point_operations`` and ``bytes``.

        Raises
        ------
        ValueError
            If nothing is recorded yet.
        """
        if not self._recordings:
            raise ValueError("cost needs a recording, received none. Call the function once.")
        return self._recordings[0].plan.graph.cost()

    def _record(self, received: Any) -> R:
        arrays = [leaf for leaf in tree.leaves(received, state=True) if stands_for_others(leaf)]
        if not arrays or not _can_be_recorded(received, arrays):
            return self._f(*received[0], **received[1])
        recording = _Recording(self._f, received, self._donated, self._precision)
        if recording.changed and not self._recordings:
            _log.warning(
                "xpnet: %s reads %s from outside, and changes it when it is recorded and not when it is "
                "replayed. Pass it as an argument, as an array, and return it.",
                getattr(self._f, "__name__", "a function"),
                ", ".join(recording.changed),
            )
        if len(self._recordings) == MOST_RECORDINGS and not self._said:
            self._said = True
            name = getattr(self._f, "__name__", "a function")
            _log.warning(
                "xpnet: jit has recorded %s for more than %d kinds of arguments, and forgets the oldest. "
                "Pass numbers that change as arrays, and keep to few shapes.",
                name,
                MOST_RECORDINGS,
            )
        # Of two threads that record at once, one may lose its recording, and records again.
        self._recordings = [recording, *self._recordings][:MOST_RECORDINGS]
        # Not what was computed while recording: a replay may differ from it in the last digits, and so would
        # two trainings, one of which was interrupted.
        others, recording.others = recording.others, []
        result: R = recording.replay(arrays, others, keep=True)
        return result

    def _donated(self, *arguments: Any, **keywords: Any) -> list[Any]:
        """Return the arguments that may be overwritten."""
        given = [*zip(self._names, arguments, strict=False), *keywords.items()]
        return [value for name, value in given if name in self._donate]


def _jit(f: Callable[P, R], donate: tuple[str, ...], precision: str) -> jit[P, R]:
    return jit(f, donate=donate, precision=precision)
