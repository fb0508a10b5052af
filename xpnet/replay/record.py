"""Recording: a function is called once with arrays that write down what is done to them.

A `Recorded` array holds a value, as the first call computes like any other, and stands for whatever comes in
its place on a replay. Its namespace is a library's own, each function of which also writes an `Operation`. To
`grad` it is one more array library, so the operations of a gradient are recorded along with the rest.
"""

import copy
import operator
import re
from collections.abc import Callable
from functools import reduce
from inspect import signature
from typing import Any

import array_api_compat
import numpy

from xpnet import tree
from xpnet.arrays import ABOUT_ARRAYS, ArrayObject, calling_line, raised_by_xpnet, raising_line
from xpnet.autodiff import context
from xpnet.autodiff.custom import FROM_OUTSIDE
from xpnet.autodiff.namespace import (
    EXTENSIONS,
    PlainNamespace,
    from_function_around,
    of_another_library,
    own_special,
)
from xpnet.autodiff.primitive import COMPOSITES, PRIMITIVES, SETTINGS, settled, settled_key
from xpnet.autodiff.tracer import Tracer
from xpnet.backends import concrete, copied, is_numpy_number, plain_namespace, to_numpy
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.replay.functions import BETWEEN_PROCESSES, OF_SETTINGS, OF_SHAPE_ALONE, SHAPED_BY_VALUES
from xpnet.replay.graph import Operation, Variable, substitute
from xpnet.replay.same.facts import share_memory
from xpnet.replay.same.outside import ArrayFromOutsideError, FromOutside, refused


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

    _kind = "recorded"
    _instead = "Say it with functions of its namespace, or return the array and look at it outside."
    _to_numpy = staticmethod(to_numpy)

    def __init__(self, value: Any, variable: Variable | None, namespace: Any) -> None:
        self.value = value
        self.variable = variable
        self.namespace = namespace

    def _become(self, other: "Recorded") -> None:
        self.namespace.assigned.add(self.variable)
        self.value, self.variable = other.value, other.variable

    def __copy__(self) -> "Recorded":
        return Recorded(self.value, self.variable, self.namespace)

    def __repr__(self) -> str:
        return f"<recorded {self.value.dtype} {tuple(self.value.shape)}>"

    def __bool__(self) -> bool:
        return bool(self._leave("a Python branch (if, while, and, or, not)"))

    def __int__(self) -> int:
        return self.__index__() if self._is_setting() else int(self._leave("int()"))

    def _is_setting(self) -> bool:
        """Say whether it is a number of the host among the arguments, which may be used as Python's are."""
        return self.variable in self.namespace.inputs and _integer_of_host(self.value) is not None

    def __index__(self) -> int:
        return operator.index(self.value) if self.variable is None else self.namespace.as_size(self)

    def __format__(self, format_spec: str) -> str:
        if self._is_setting():
            return format(self.namespace.as_size(self), format_spec)
        if not format_spec or self.shape:  # `print(x)` says what it is
            return self._text(format_spec)
        self._leave("a text")
        return format(self._item(), format_spec)

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
    inputs : list of Variable
        What stands for the arguments.
    operations : list of Operation
        What was recorded so far.
    sizes : dict of Variable to int
        Arguments that are numbers of the host, and were used as a size, an axis, a count or a bound of a
        slice: what was recorded is for these values.
    assigned : set of Variable
        What was written to, arguments among it: where one of these stands at two places, eager code would
        write to both.
    owned : dict of int to str
        Arrays that must be arguments, by their `id`: what they are, for an error message. A recording would
        not see how they change.
    layer : str
        Of a network, that calls functions at the moment, if that is known.
    is_step : bool
        Whether it records the step of a `scan`, and not all that is done.
    """

    is_step = False

    def __init__(self, xp: Any) -> None:
        self._plain = PlainNamespace(xp)
        self.__name__ = f"xpnet.replay.{xp.__name__}"
        self._xp = xp
        self.isdtype = self._plain.isdtype
        self.inputs: list[Variable] = []
        self.operations: list[Operation] = []
        self.sizes: dict[Variable, int] = {}
        self.assigned: set[Variable | None] = set()
        self.owned: dict[int, str] = {}
        self.layer = ""
        self._copies: dict[int, tuple[Any, Any]] = {}  # of arrays from outside, beside these

    def __getattr__(self, name: str) -> Any:
        value = _recording(self, name, getattr(self._plain, name))
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"<{self.__name__}>"

    def holds(self, x: Any) -> bool:
        """Say whether an array is one of this recording, or a plain one of its library."""
        return x.namespace is self if type(x) is Recorded else plain_namespace(x) is self._xp

    def getitem(self, x: Any, key: Any, /) -> Any:
        if self._has_mask(key):
            raise _shaped_by_values("x[mask]")
        return self.call("getitem", _getitem, (x, settled_key(key)), {})

    def setitem(self, x: Any, key: Any, values: Any, /) -> Any:  # type: ignore[override]
        several = tree.is_array(values) and len(values.shape) > 0
        if several and self._has_mask(key) and array_api_compat.is_jax_array(concrete(x)):
            raise _shaped_by_values("the part of x that x[mask] = values writes to")  # which JAX must know
        return self.call("setitem", self._plain.setitem, (x, settled_key(key), values), {})

    def _has_mask(self, key: Any) -> bool:
        keys = key if isinstance(key, tuple) else (key,)
        return any(
            type(item) is Recorded and item.variable is not None and self.isdtype(item.dtype, "bool")
            for item in keys
        )

    def repeat(self, x: Any, repeats: Any, /, *, axis: Any = None) -> Any:
        if type(repeats) is Recorded and repeats.variable is not None and repeats.shape:
            raise _shaped_by_values("what repeat with an array of counts returns")
        return self.call("repeat", self._plain.repeat, (x, settled(repeats)), {"axis": axis})

    def to_device(self, x: Recorded, device: Any, /, *, stream: Any = None) -> Recorded:
        """Return an array as it is, if it is on the device already: a recording is of one."""
        moved = array_api_compat.to_device(x.value, device, stream=stream)
        if x.variable is None:
            return self.lift(moved)
        if array_api_compat.device(moved) != x.device:
            raise NotRecordableError(
                f"a recording is of one device, {x.device}, received an array that is moved to {device}, at "
                f"{calling_line()}. Move it before the call or behind it, or leave jit away."
            )
        return x

    def variable(self, value: Any) -> Variable:
        return Variable(tuple(value.shape), value.dtype)

    def argument(self, value: Any) -> Any:
        """Return a plain array as one that changes from replay to replay.

        An integer of NumPy's beside arrays of another library is a number as Python's are: a setting.
        """
        variable = self.variable(value)
        self.inputs.append(variable)
        if plain_namespace(value) is not self._xp and (number := _integer_of_host(value)) is not None:
            self.sizes[variable] = number
            return number
        return Recorded(value, variable, self)

    def record(self, f: Callable, *arguments: Any, **keywords: Any) -> Any:
        """Call a function with such arguments, and write down what it does."""
        try:
            with context.using(recording=self), refused(self.owned):
                return f(*arguments, **keywords)
        except Exception as error:
            raise _explained(error)  # noqa: B904  # it has its cause
        finally:
            self._copies.clear()

    def as_size(self, x: Recorded) -> int:
        """Return the value of an array that is used as a size, an axis, a count or a bound of a slice.

        One that is a number of the host among the arguments is compared at each later call.
        """
        if context.current().recording is not self:
            raise from_function_around()
        value = _integer_of_host(x.value)
        if value is None or x.variable not in self.inputs:
            computed = "" if x.variable in self.inputs else ", which was computed"
            raise NotRecordableError(
                "a size, an axis, a count or a bound of a slice must be a Python integer under xpnet.jit, "
                f"received an array of {x.dtype} and shape {tuple(x.shape)}{computed}, at {calling_line()}. "
                "A recording has fixed shapes. Pass a Python integer as an argument of the function."
            )
        self.sizes[x.variable] = value
        return value

    def lift(self, value: Any) -> Any:
        """Return a plain array as a constant of the recording, which does not change when the array does."""
        if isinstance(value, ArrayObject) or not tree.is_array(value):
            return value
        if not isinstance(value, numpy.ndarray | numpy.generic) and plain_namespace(value) is not self._xp:
            raise of_another_library(value, self._xp)
        owner = self._owner(value)
        if owner:
            raise ArrayFromOutsideError(owner)
        array, constant = self._copies.get(id(value), (None, None))
        if array is None or not _same_bytes(constant, value):
            constant = copied(value)
            self._copies[id(value)] = value, constant  # also the array, so that its `id` stays its own
        return Recorded(constant, None, self)

    def _owner(self, value: Any) -> str | None:
        """Return what an array from outside, or one that it is a view of, belongs to."""
        while value is not None and id(value) not in self.owned:
            value = getattr(value, "base", None)
        return None if value is None else self.owned[id(value)]

    def call(self, name: str, function: Any, arguments: tuple, options: dict) -> Any:
        """Compute a function, and record it if one of its arguments changes from replay to replay."""
        traced = _first_traced(arguments)
        if traced is not None:  # x @ w, where only w has a gradient: that of x stands on the left
            return reduce(getattr, name.split("."), traced.namespace)(*arguments, **options)
        if name in ABOUT_ARRAYS and name not in OF_SETTINGS:
            arguments, options = _map((arguments, options), concrete)
            return function(*arguments, **options)
        found: list[Recorded] = []
        arguments, options = self._taken_in(name, arguments, options, found)
        values, value_options = _map((arguments, options), concrete)
        result = function(*values, **value_options)
        several = isinstance(result, tuple | list)
        results = list(result) if several else [result]
        if not any(tree.is_array(x) for x in results):
            return result  # something about shapes
        is_constant = all(x.variable is None for x in found) and name not in BETWEEN_PROCESSES
        if name in OF_SHAPE_ALONE or is_constant:
            lifted = [Recorded(x, None, self) for x in results]
        elif name in SHAPED_BY_VALUES:
            raise _shaped_by_values(f"what {name} returns")
        else:
            kept, kept_options = _map(
                (arguments, options), lambda x: x.value if x.variable is None else x.variable
            )
            shares = any(share_memory(y, x.value) for y in results for x in found)
            made = tuple(map(self.variable, results))
            self.operations.append(
                Operation(name, function, kept, kept_options, made, several, shares, layer=self.layer)
            )
            lifted = [Recorded(value, x, self) for value, x in zip(results, made, strict=True)]
        if not several:
            return lifted[0]
        return result._make(lifted) if hasattr(result, "_make") else type(result)(lifted)

    def _taken_in(self, name: str, arguments: tuple, options: dict, found: list) -> tuple[tuple, dict]:
        """Return the arguments of a function with arrays of this recording, which are gathered in ``found``.

        What is no array for the function is a setting of it, a number of Python's.
        """

        def take(x: Any) -> Any:
            x = x._leave(name) if type(x) is Tracer else self.lift(x)
            found.append(x)
            return x

        taken = _map((arguments, options), take)
        if any(x.namespace is not self and x.variable is not None for x in found):
            raise from_function_around()
        changing = [x for x in found if x.variable is not None]
        primitive = PRIMITIVES.get(name)
        if primitive and not primitive.define:  # of arrays alone
            return taken
        numbers = any(x.variable is None and is_numpy_number(x.value) for x in found)
        is_first = taken[0] and len(changing) == 1 and changing[0] is taken[0][0]
        if not numbers and (not changing or (is_first and name not in OF_SETTINGS)):
            return taken
        # Each place has an array of its own, so that one may be data at one and a setting at another.
        arguments, options = _map(taken, copy.copy)
        data: list[Recorded] = []
        _map(_data(name, arguments, options), data.append)
        places = {id(x) for x in data}
        found.clear()

        def settle(x: Recorded) -> Any:
            if id(x) not in places:
                if x.variable is not None:
                    return self.as_size(x)
                if is_numpy_number(x.value):
                    return x.value.item()
            found.append(x)
            return x

        return _map((arguments, options), settle)


def _data(name: str, arguments: tuple, options: dict) -> Any:
    """Return those arguments of a function that are arrays for it, in a list or tuple, lists among them."""
    primitive, composite = PRIMITIVES.get(name), COMPOSITES.get(name)
    if name in OF_SETTINGS:
        return ()
    if name == "full":
        return [*arguments[1:2], options.get("fill_value")]
    try:
        if primitive and primitive.define:
            return primitive.define(lambda *arrays, **_parameters: arrays, *arguments, **options)
        if composite:
            bound = signature(composite).bind(None, *arguments, **options).arguments
            return [value for key, value in bound.items() if key not in SETTINGS]
    except TypeError:  # options of the library's own
        pass
    # A function of the library's own. Single integers are likely to be settings; the first argument is not.
    data: list[Any] = []
    _map((arguments, options), data.append)
    first = arguments[0] if arguments else None
    return [x for x in data if x is first or x.shape or not _is_integer(x)]


def _integer_of_host(x: Any) -> int | None:
    """Return the value of a single integer of NumPy's, None for any other array."""
    return x.item() if is_numpy_number(x) and x.dtype.kind in "biu" else None


def _is_integer(x: Recorded) -> bool:
    return x.namespace.isdtype(x.dtype, ("integral", "bool"))


_NOTE = "xpnet.jit was recording"


def _explained(error: Exception) -> Exception:
    """Return what to raise in the place of an error while a function is recorded.

    Where code of others refused an array, in its own words, it is an error that says what to do.
    """
    cause: BaseException | None = error
    while cause is not None:  # NumPy wraps what `float(x)` raises
        if isinstance(cause, NotRecordableError):
            return cause
        cause = cause.__cause__
    if isinstance(error, NoGradientError):  # which says all, and may quote a line of any words
        return error
    of_array = isinstance(error, AttributeError) and isinstance(error.obj, ArrayObject)
    if not of_array and not re.search(r"\b(Recorded|Tracer)\b|<(recorded|traced) ", str(error)):
        told = any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ()))
        if not told and not raised_by_xpnet(error):
            error.add_note(
                f"{_NOTE} a function, at {raising_line(error)}. If it works without jit, "
                "write this line with functions of the namespace of its arrays, xpnet.array_namespace(x)."
            )
        return error
    refused = NotRecordableError(
        f"a function under xpnet.jit must be written with functions of the namespace of its arrays, xp = "
        f"xpnet.array_namespace(x); received an error of something else, {type(error).__name__}: "
        f"{str(error).rstrip('.')}, at {raising_line(error)}. Write it with functions of the namespace, or "
        "leave jit away."
    )
    refused.__cause__ = error
    return refused


def output(x: Any) -> Any:
    """Return what is to be computed for a result of a recorded function: a variable, or a constant."""
    while isinstance(x, Tracer):
        if x.node is not None:
            raise NoGradientError(FROM_OUTSIDE)
        x = x.value
    if type(x) is FromOutside:
        x._leave("a result")
    return x.variable if type(x) is Recorded and x.variable is not None else copied(concrete(x))


class _Extension:
    """`linalg`, `fft` or `special` of a recording namespace."""

    def __init__(self, namespace: RecordingNamespace, name: str, part: Any) -> None:
        self._namespace, self._name, self._part = namespace, name, part

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = own_special(self._namespace, name) if self._name == "special" else None
        if value is None:
            value = _recording(self._namespace, f"{self._name}.{name}", getattr(self._part, name))
        setattr(self, name, value)
        return value


def _recording(namespace: RecordingNamespace, name: str, value: Any) -> Any:
    if name in EXTENSIONS:
        return _Extension(namespace, name, value)
    if not callable(value) or isinstance(value, type):
        return value

    def call(*arguments: Any, **options: Any) -> Any:
        return namespace.call(name, value, arguments, options)

    call.__name__ = call.__qualname__ = name
    return call


def _getitem(x: Any, key: Any) -> Any:
    return x[key]


def _first_traced(arguments: Any) -> Tracer | None:
    for x in arguments:
        if type(x) is Tracer:
            return x
        if type(x) in (list, tuple) and (found := _first_traced(x)) is not None:
            return found
    return None


def _same_bytes(x: Any, y: Any) -> bool:
    if x is y or isinstance(x, numpy.ndarray | numpy.generic):
        return x is y or x.tobytes() == numpy.asarray(y).tobytes()
    xp = plain_namespace(x)  # compared where they are; NaN, and complex numbers, make one copy more
    if not xp.isdtype(x.dtype, "real floating"):
        return not xp.isdtype(x.dtype, "complex floating") and bool(xp.all(xp.equal(x, y)))
    return bool(xp.all(xp.equal(x, y) & xp.equal(xp.signbit(x), xp.signbit(y))))


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """Put something else in the place of each array in the arguments of a function."""
    return substitute(value, change, tree.is_array)


def _shaped_by_values(name: str) -> NotRecordableError:
    return NotRecordableError(
        f"the shape of {name} depends on values, at {calling_line()}. xpnet.jit replays with "
        "fixed shapes. Use where(mask, x, 0) or another function that keeps the shape, or leave jit away."
    )
