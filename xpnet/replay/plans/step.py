"""What a plan does, as data, and the one place that writes it as Python.

An operation becomes a `Step` of one or more `Call`s. A call says what is done to which variables; where these
are in memory is decided later, in `memory.py`. `Source` then writes each call as a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy

from xpnet.replay.graph import Operation, Variable
from xpnet.replay.kernels.kernel import Kernel

# What a call is: a loop that was compiled, a product of matrices, a copy to an array from another one or from
# a number, the same added to what is there, windows added into an array, a view, which is made once if its
# array is always at the same place, or any other function; and one that the plan's function hands out, for
# its caller to call.
KERNEL, PRODUCT, COPY, ADD, ADD_WINDOWS, VIEW, CALL, HANDED_OUT = (
    "kernel", "product", "copy", "add", "add_windows", "view", "call", "handed out",
)  # fmt: skip


class Call(NamedTuple):
    """A call of a function.

    Attributes
    ----------
    kind : str
        What it is.
    function : callable or None
        None for a view that its one argument already is. On CUDA a `Launch`, until that is compiled.
    arguments : sequence
        Variables, also as `Item` or `Member` of one, `Scratch`, other calls, and constants. Those of a copy
        are where to, and what; of what is added, an array, a key and what.
    name : str
        Of the function, in the source.
    options : dict
        The keyword arguments.
    results : sequence of Variable
        The arrays that it makes. Buffers that it writes to are among the arguments.
    several : bool
        Whether it returns a sequence of arrays.
    """

    kind: str
    function: Any
    arguments: Sequence[Any]
    name: str = ""
    options: Mapping[str, Any] = MappingProxyType({})
    results: Sequence[Variable] = ()
    several: bool = False

    @classmethod
    def of(cls, operation: Operation, kind: str = CALL) -> "Call":
        """Return the call of a function as it was recorded."""
        name = operation.name.replace(".", "_")
        arguments, options = operation.arguments, operation.options
        return cls(kind, operation.function, arguments, name, options, operation.results, operation.several)


class Item(NamedTuple):
    """Elements of an array, by a key."""

    array: Any
    key: Any


class Member(NamedTuple):
    """What an array makes of itself: by a method, or without arguments by an attribute."""

    array: Any
    name: str
    arguments: tuple | None = None


class Consecutive(NamedTuple):
    """Arrays of a dtype that stand one after the other in memory, as one array; or else they themselves."""

    arrays: Sequence[Variable]


class Scratch(NamedTuple):
    """Memory beside the buffers, in which all bytes are zero at first; the largest of those of one name."""

    name: str
    nbytes: int


@dataclass
class Step:
    """What is done at one place in the order.

    Attributes
    ----------
    inputs, results : sequence of Variable
        What is read and what is made.
    calls : sequence of Call
        One after the other. A copy to a result that takes over the memory of what is copied is left out.
    in_place : sequence of Variable
        Inputs whose memory the result may take over, if nothing else needs them any more.
    consecutive : bool
        Whether the results stand one after the other in memory. Inputs that nothing else needs are made there
        already, each where the result of its number will be.
    inside : sequence of (Variable, Variable, int)
        Inputs that become a part of a result, each with that and where it begins there, in bytes. A kernel
        may have made it there already.
    kernel : Kernel or None
        What stands for the calls, as it depends on the memory that is shared.
    at_once : sequence of Step
        Of what it is put together, if it is: steps with kernels, none of which reads what another one makes,
        and which may be done in any order.
    """

    inputs: Sequence[Variable]
    results: Sequence[Variable]
    calls: Sequence[Call] = ()
    in_place: Sequence[Variable] = ()
    consecutive: bool = False
    inside: Sequence[tuple[Variable, Variable, int]] = ()
    kernel: Kernel | None = None
    at_once: Sequence["Step"] = ()

    @classmethod
    def of(cls, operation: Operation, *calls: Call, in_place: Sequence[Variable] = ()) -> "Step":
        return cls(operation.inputs, operation.results, calls, in_place)

    @classmethod
    def of_several(cls, steps: Sequence["Step"]) -> "Step":
        """Return what does several steps, with kernels, at once."""
        inputs = [x for step in steps for x in step.inputs]
        return cls(inputs, [x for step in steps for x in step.results], at_once=steps)

    @property
    def parts(self) -> Sequence["Step"]:
        """The steps that it is put together of, or itself."""
        return self.at_once or (self,)

    @property
    def made(self) -> list[tuple["Step", Variable]]:
        """The results, each with the part that makes it."""
        return [(part, x) for part in self.parts for x in part.results]

    @property
    def is_view(self) -> bool:
        """Whether it makes nothing but views."""
        return VIEW in [call.kind for call in self.calls]


_name_of = cache(str)  # of a dtype, which takes NumPy some time


class Source:
    """The text of a plan's function.

    Parameters
    ----------
    names : mapping of Variable to str

    Attributes
    ----------
    constants : dict of str to object
        What the text names: functions, arrays and so on.
    scratch : dict of str to int
        The memory that it names, in bytes.
    joined : dict of str to sequence of Variable
        The arrays that it names together.
    """

    def __init__(self, names: Mapping[Variable, str]) -> None:
        self._names = names
        self.constants: dict[str, Any] = {}
        self.scratch: dict[str, int] = {}
        self.joined: dict[str, Sequence[Variable]] = {}

    def line(self, call: Call) -> str:
        """Return the line that does a call."""
        if call.kind == COPY and type(call.arguments[0]) is Item:
            return " = ".join(map(self.text, call.arguments))
        if call.kind == HANDED_OUT:  # to be called later: nothing that it names may be deleted
            return f"yield lambda: {self.text(call)}"
        results = self.items(call.results) + "," * call.several
        return f"{results} = {self.text(call)}" if results else self.text(call)

    def text(self, value: Any) -> str:
        """Return the text of an argument."""
        if type(value) is Variable:  # most are
            return self._names[value]
        match value:
            case Call():
                return self._call(value)
            case Item(array, key):
                return f"{self.text(array)}[{self.text(key)}]"
            case Member(array, name, arguments):
                called = "" if arguments is None else f"({self.items(arguments)})"
                return f"{self.text(array)}.{name}{called}"
            case Consecutive(arrays):
                name = f"joined_{arrays[0].number}"
                self.joined[name] = arrays
                return name
            case Scratch(name, nbytes):
                self.scratch[name] = max(self.scratch.get(name, 0), nbytes)
                return name
            case slice():
                return f"slice({self.items((value.start, value.stop, value.step))})"
            case numpy.dtype():
                return self.constant(value, _name_of(value))
        if type(value) is list:
            return f"[{self.items(value)}]"
        if type(value) is tuple:
            return f"({self.items(value)}{',' * (len(value) == 1)})"
        if type(value) in (bool, int, str) or value is None or (type(value) is float and isfinite(value)):
            return repr(value)
        return "..." if value is ... else self.constant(value, "constant")

    def items(self, values: Sequence[Any]) -> str:
        return ", ".join(map(self.text, values))

    def constant(self, value: Any, name: str) -> str:
        """Return the name of a constant: one like this, with a number if others are called so."""
        names = (f"{name}_{number}" if number > 1 else name for number in count(1))
        return next(each for each in names if self.constants.setdefault(each, value) is value)

    def _call(self, call: Call) -> str:
        arguments = self.items(call.arguments)
        if call.function is None:
            return arguments
        options = "".join(f", {key}={self.text(value)}" for key, value in call.options.items())
        return f"{self.constant(call.function, call.name)}({arguments}{options})"
