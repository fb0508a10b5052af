"""Recording: a function is called once with arrays that write down what is done to them.

A `Recorded` array holds a value, as the first call computes like any other, and stands for whatever comes in
its place on a replay. Its namespace is a library's own, each function of which also writes an `Operation`. To
`grad` it is one more array library, so the operations of a gradient are recorded along with the rest.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy

from xpnet import tree
from xpnet.arrays import ArrayObject, calling_line
from xpnet.autodiff.namespace import (
    PlainNamespace,
    TracedNamespace,
    active_recording,
    from_function_around,
    namespaces_of,
)
from xpnet.autodiff.tracer import Tracer
from xpnet.autodiff.transforms import FROM_OUTSIDE
from xpnet.backends import concrete, plain_namespace
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.replay.graph import Operation, Variable

# Functions whose results depend on values in their shape.
_SHAPED_BY_VALUES = frozenset(
    {"argwhere", "nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values"}
)

# Functions of which only the shape and dtype of their argument matters.
_OF_SHAPE_ALONE = frozenset({"empty_like", "ones_like", "zeros_like"})


class Recorded(ArrayObject):
    """An array inside a function that `xpnet.jit` records.

    Attributes
    ----------
    value : array
        Its value in the call that is recorded.
    variable : Variable or None
        What it is in the plan; None for a constant.
    """

    __slots__ = ("variable",)

    def __init__(self, value: Any, variable: Variable | None, namespace: Any) -> None:
        self.value = value
        self.variable = variable
        self.namespace = namespace

    def _become(self, other: "Recorded") -> None:
        self.value, self.variable = other.value, other.variable

    def __copy__(self) -> "Recorded":
        return Recorded(self.value, self.variable, self.namespace)

    def __repr__(self) -> str:
        return f"<recorded {self.value.dtype} {tuple(self.value.shape)}>"

    def __bool__(self) -> bool:
        return bool(self._leave("a Python branch (if, while, and, or, not)"))

    def _leave(self, what: str) -> Any:
        if self.variable is not None:
            raise NotRecordableError(
                f"{what} needs the value of an array, at {calling_line()}. xpnet.jit records a function once "
                "and replays it with other values. Say it with functions of the namespace (where in place "
                "of if), return the array and look at it outside, or leave jit away."
            )
        return self.value


class RecordingNamespace(PlainNamespace):
    """A library's namespace, whose functions also write down that they were called.

    Attributes
    ----------
    operations : list of Operation
        What was recorded so far.
    """

    def __init__(self, xp: Any) -> None:
        self._plain = PlainNamespace(xp)
        self.__name__ = f"xpnet.replay.{xp.__name__}"
        self._xp = xp
        self.isdtype = self._plain.isdtype
        self.operations: list[Operation] = []
        self.owned: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        value = _recording(self, name, getattr(self._plain, name))
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"<{self.__name__}>"

    def __array_namespace_info__(self) -> Any:
        return self._xp.__array_namespace_info__()

    def holds(self, x: Any) -> bool:
        """Say whether an array is one of this recording, or a plain one of its library."""
        return x.namespace is self if type(x) is Recorded else plain_namespace(x) is self._xp

    def getitem(self, x: Any, key: Any, /) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        for item in keys:
            if type(item) is Recorded and item.variable is not None and self.isdtype(item.dtype, "bool"):
                raise _shaped_by_values("x[mask]")
        return self.call("getitem", _getitem, (x, key), {})

    def repeat(self, x: Any, repeats: Any, /, *, axis: Any = None) -> Any:
        if type(repeats) is Recorded and repeats.variable is not None:
            raise _shaped_by_values("repeat with an array of counts")
        return self.call("repeat", self._plain.repeat, (x, repeats), {"axis": axis})

    def variable(self, value: Any, operation: Operation | None = None) -> Variable:
        return Variable(tuple(value.shape), value.dtype, operation)

    def argument(self, value: Any) -> Recorded:
        """Return a plain array as one that changes from replay to replay."""
        return Recorded(value, self.variable(value), self)

    def record(self, f: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Call a function with such arguments, and write down what it does."""
        token = active_recording.set(self)
        try:
            with namespaces_of(TracedNamespace):
                return f(*arguments, **keywords)
        finally:
            active_recording.reset(token)

    def lift(self, value: Any) -> Any:
        """Return a plain array as a constant of the recording."""
        return Recorded(value, None, self) if tree.is_array(value) and type(value) is not Recorded else value

    def call(self, name: str, function: Any, arguments: tuple, options: dict) -> Any:
        """Compute a function, and record it if one of its arguments changes from replay to replay."""
        traced = next((x for x in arguments if isinstance(x, Tracer)), None)
        if traced is not None:  # x @ w, where only w has a gradient: that of x stands on the left
            return reduce(getattr, name.split("."), traced.namespace)(*arguments, **options)
        found: list[Recorded] = []
        values, value_options = _strip((arguments, options), found, lambda x: x.value)
        if any(x.namespace is not self and x.variable is not None for x in found):
            raise from_function_around()
        result = function(*values, **value_options)
        several = isinstance(result, tuple | list)
        results = list(result) if several else [result]
        if not any(tree.is_array(x) for x in results):
            return result  # something about dtypes or shapes
        if name in _OF_SHAPE_ALONE or all(x.variable is None for x in found):
            lifted = [self.lift(x) for x in results]
        elif name in _SHAPED_BY_VALUES:
            raise _shaped_by_values(name)
        else:
            kept, kept_options = _strip(
                (arguments, options), [], lambda x: x.value if x.variable is None else x.variable
            )
            operation = Operation(name, function, kept, kept_options, several)
            operation.shares = any(_share_memory(y, x.value) for y in results for x in found)
            operation.results = [self.variable(x, operation) for x in results]
            self.operations.append(operation)
            pairs = zip(results, operation.results, strict=True)
            lifted = [Recorded(value, variable, self) for value, variable in pairs]
        if not several:
            return lifted[0]
        return result._make(lifted) if hasattr(result, "_make") else type(result)(lifted)


def output(x: Any) -> Any:
    """Return what is to be computed for a result of a recorded function: a variable, or a constant."""
    while isinstance(x, Tracer):
        if x.node is not None:
            raise NoGradientError(FROM_OUTSIDE)
        x = x.value
    return x.variable if type(x) is Recorded and x.variable is not None else concrete(x)


class _Part:
    """`linalg`, `fft` or `special` of a recording namespace."""

    def __init__(self, namespace: RecordingNamespace, name: str, part: Any) -> None:
        self._namespace, self._name, self._part = namespace, name, part

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _recording(self._namespace, f"{self._name}.{name}", getattr(self._part, name))
        setattr(self, name, value)
        return value


def _recording(namespace: RecordingNamespace, name: str, value: Any) -> Any:
    if name in ("linalg", "fft", "special"):
        return _Part(namespace, name, value)
    if not callable(value) or isinstance(value, type):
        return value

    def call(*arguments: Any, **options: Any) -> Any:
        return namespace.call(name, value, arguments, options)

    call.__name__ = call.__qualname__ = name
    return call


def _share_memory(x: Any, y: Any) -> bool:
    return isinstance(x, numpy.ndarray) and isinstance(y, numpy.ndarray) and numpy.may_share_memory(x, y)


def _getitem(x: Any, key: Any) -> Any:
    return x[key]


def _strip(value: Any, found: list[Recorded], change: Any) -> Any:
    """Put something else in the place of each recorded array, and gather them in ``found``."""
    if type(value) is Recorded:
        found.append(value)
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_strip(item, found, change) for item in value)
    if type(value) is dict:
        return {key: _strip(item, found, change) for key, item in value.items()}
    return value


def _shaped_by_values(name: str) -> NotRecordableError:
    return NotRecordableError(
        f"the shape of what {name} returns depends on values, at {calling_line()}. xpnet.jit replays with "
        "fixed shapes. Use where(mask, x, 0) or another function that keeps the shape, or leave jit away."
    )
