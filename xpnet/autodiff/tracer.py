"""The traced array, and the record of how it was made.

A `Tracer` behaves like an array of the standard. It is a small handle on a value and on a `Node`, the record
of the function that made the value. The handle can be rebound (``x += 1``, ``x[0] = 1``); a node never
changes, so what was recorded before stays right.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import array_api_compat
import numpy

from xpnet import tree
from xpnet.errors import NoGradientError

# One counter numbers all nodes. A node's inputs have lower numbers than the node itself, so sorting by number
# puts any part of the graph in order.
numbers = count()


class Node:
    """A function that was called, its inputs and what its gradient rules will read.

    Attributes
    ----------
    number : int
        Its place in the order of all nodes.
    primitive : Primitive
        The function.
    inputs : tuple
        Nodes, and plain arrays or Python numbers where an input has no gradient.
    values : tuple
        What the rules get as inputs: the values of ``inputs``. Where no rule reads a value, it is not kept,
        and its node stands in for it, which rules may ask for shape and dtype.
    parameters : dict
        The function's keyword arguments.
    kept : array, sequence of array or None
        The result, if a rule reads it.
    shape : tuple of int
        Shape of the result; of a function with several results, a tuple of their shapes.
    dtype : dtype
        Data type of the result, or a tuple of those of several.
    """

    __slots__ = ("dtype", "inputs", "kept", "number", "parameters", "primitive", "shape", "values")

    def __init__(
        self,
        primitive: Any,
        inputs: tuple,
        values: tuple,
        parameters: dict,
        kept: Any,
        shape: Any,
        dtype: Any,
    ) -> None:
        self.number = next(numbers)
        self.primitive = primitive
        self.inputs = inputs
        self.values = values
        self.parameters = parameters
        self.kept = kept
        self.shape = shape
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Node({self.number}: {self.primitive.name} -> {self.dtype}{list(self.shape)})"


class Tracer:
    """An array that remembers how it was made.

    It follows the array API standard, wraps a plain array, and is what functions receive inside `grad` and
    the other transforms. Where no gradient flows (labels, say), its node is None.
    """

    __slots__ = ("namespace", "node", "value")

    __hash__ = None  # type: ignore[assignment]  # `==` is elementwise, as for every array

    def __init__(self, value: Any, node: Node | None, namespace: Any) -> None:
        self.value = value
        self.node = node
        self.namespace = namespace

    # -- attributes ---------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def device(self) -> Any:
        return array_api_compat.device(self.value)

    @property
    def ndim(self) -> int:
        return len(self.value.shape)

    @property
    def size(self) -> int | None:
        return array_api_compat.size(self.value)

    @property
    def T(self) -> "Tracer":
        if self.ndim != 2:
            raise ValueError(f".T needs an array with 2 axes, received {self.ndim}. Use .mT or permute_dims.")
        return self.namespace.matrix_transpose(self)

    @property
    def mT(self) -> "Tracer":
        return self.namespace.matrix_transpose(self)

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        return self.namespace

    def to_device(self, device: Any, /, *, stream: Any = None) -> "Tracer":
        """Move the array to another device of its library; the gradient comes back by the same way."""
        return self.namespace.to_device(self, device, stream=stream)

    def __repr__(self) -> str:
        made_by = f" made by {self.node.primitive.name}" if self.node else ""
        return f"<traced {self.value!r}{made_by}>"

    def __format__(self, format_spec: str) -> str:
        # A text is for people, like `repr`: it loses no gradient.
        if not format_spec or self.shape:
            return format(str(self), format_spec)
        from xpnet.backends import to_numpy

        return format(to_numpy(self.value).item(), format_spec)

    def __getattr__(self, name: str) -> Any:
        from xpnet.autodiff.primitive import COMPOSITES, PRIMITIVES

        # An AttributeError in each case, since code of others asks with `hasattr` what an array has.
        if name in PRIMITIVES or name in COMPOSITES:
            instead = f"Write xp.{name}(x), with xp = xpnet.array_namespace(x)."
        elif not name.startswith("_") and hasattr(type(self.value), name):
            instead = "If no gradient shall flow through here, take xpnet.to_numpy(xpnet.stop_gradient(x))."
        else:
            raise AttributeError(f"a traced array has no attribute {name!r}")
        raise AttributeError(
            f"arrays of the array API standard, such as this traced one, have no method {name}. {instead}"
        )

    def __copy__(self) -> "Tracer":
        return Tracer(self.value, self.node, self.namespace)

    def __deepcopy__(self, _memo: dict) -> "Tracer":
        # Values are never written to, so a handle of its own is a copy as deep as any.
        return self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._leave("pickle").__reduce_ex__(protocol)

    # -- operators ----------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> "Tracer":
        return self.namespace.add(self, other)

    def __radd__(self, other: Any) -> "Tracer":
        return self.namespace.add(other, self)

    def __sub__(self, other: Any) -> "Tracer":
        return self.namespace.subtract(self, other)

    def __rsub__(self, other: Any) -> "Tracer":
        return self.namespace.subtract(other, self)

    def __mul__(self, other: Any) -> "Tracer":
        return self.namespace.multiply(self, other)

    def __rmul__(self, other: Any) -> "Tracer":
        return self.namespace.multiply(other, self)

    def __truediv__(self, other: Any) -> "Tracer":
        return self.namespace.divide(self, other)

    def __rtruediv__(self, other: Any) -> "Tracer":
        return self.namespace.divide(other, self)

    def __floordiv__(self, other: Any) -> "Tracer":
        return self.namespace.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> "Tracer":
        return self.namespace.floor_divide(other, self)

    def __mod__(self, other: Any) -> "Tracer":
        return self.namespace.remainder(self, other)

    def __rmod__(self, other: Any) -> "Tracer":
        return self.namespace.remainder(other, self)

    def __pow__(self, other: Any) -> "Tracer":
        return self.namespace.pow(self, other)

    def __rpow__(self, other: Any) -> "Tracer":
        return self.namespace.pow(other, self)

    def __matmul__(self, other: Any) -> "Tracer":
        return self.namespace.matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Tracer":
        return self.namespace.matmul(other, self)

    def __and__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_and(self, other)

    def __rand__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_and(other, self)

    def __or__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_or(self, other)

    def __ror__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_or(other, self)

    def __xor__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_left_shift(self, other)

    def __rlshift__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_left_shift(other, self)

    def __rshift__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_right_shift(self, other)

    def __rrshift__(self, other: Any) -> "Tracer":
        return self.namespace.bitwise_right_shift(other, self)

    def __lt__(self, other: Any) -> "Tracer":
        return self.namespace.less(self, other)

    def __le__(self, other: Any) -> "Tracer":
        return self.namespace.less_equal(self, other)

    def __gt__(self, other: Any) -> "Tracer":
        return self.namespace.greater(self, other)

    def __ge__(self, other: Any) -> "Tracer":
        return self.namespace.greater_equal(self, other)

    def __eq__(self, other: Any) -> "Tracer":  # type: ignore[override]
        return self.namespace.equal(self, other)

    def __ne__(self, other: Any) -> "Tracer":  # type: ignore[override]
        return self.namespace.not_equal(self, other)

    def __neg__(self) -> "Tracer":
        return self.namespace.negative(self)

    def __pos__(self) -> "Tracer":
        return self.namespace.positive(self)

    def __abs__(self) -> "Tracer":
        return self.namespace.abs(self)

    def __invert__(self) -> "Tracer":
        return self.namespace.bitwise_invert(self)

    # -- indexing and assignment in place -----------------------------------------------------------------

    def __getitem__(self, key: Any) -> "Tracer":
        return self.namespace.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._rebind(self.namespace.setitem(self, key, value))

    def _rebind(self, result: "Tracer") -> "Tracer":
        xp = self.namespace
        if result.shape != self.shape:
            raise ValueError(
                f"assignment in place must keep the shape {tuple(self.shape)}, the result has "
                f"{tuple(result.shape)}. "
                "Write x = x + y instead of x += y."
            )
        if result.dtype != self.dtype:
            kinds = ("bool", "integral", "real floating", "complex floating")
            if not any(all(xp.isdtype(x.dtype, kind) for x in (self, result)) for kind in kinds):
                raise TypeError(
                    f"assignment in place must keep the kind of dtype, {self.dtype}, the result has "
                    f"{result.dtype}. Write x = x + y instead of x += y."
                )
            result = xp.astype(result, self.dtype)
        self.value, self.node = result.value, result.node
        return self

    def __iadd__(self, other: Any) -> "Tracer":
        return self._rebind(self + other)

    def __isub__(self, other: Any) -> "Tracer":
        return self._rebind(self - other)

    def __imul__(self, other: Any) -> "Tracer":
        return self._rebind(self * other)

    def __itruediv__(self, other: Any) -> "Tracer":
        return self._rebind(self / other)

    def __ifloordiv__(self, other: Any) -> "Tracer":
        return self._rebind(self // other)

    def __imod__(self, other: Any) -> "Tracer":
        return self._rebind(self % other)

    def __ipow__(self, other: Any) -> "Tracer":
        return self._rebind(self**other)

    def __imatmul__(self, other: Any) -> "Tracer":
        return self._rebind(self @ other)

    def __iand__(self, other: Any) -> "Tracer":
        return self._rebind(self & other)

    def __ior__(self, other: Any) -> "Tracer":
        return self._rebind(self | other)

    def __ixor__(self, other: Any) -> "Tracer":
        return self._rebind(self ^ other)

    def __ilshift__(self, other: Any) -> "Tracer":
        return self._rebind(self << other)

    def __irshift__(self, other: Any) -> "Tracer":
        return self._rebind(self >> other)

    # -- leaving the record -------------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() needs an array with at least 1 axis, received shape (). Use .size.")
        return self.shape[0]

    def __iter__(self) -> Iterator["Tracer"]:
        if not self.shape:
            raise TypeError("iteration needs an array with at least 1 axis, received shape ().")
        return iter(self.namespace.unstack(self))

    def __bool__(self) -> bool:
        # A branch on a value loses no gradient: the branch that is taken is the one that is recorded.
        return bool(self.value)

    def _leave(self, what: str) -> Any:
        if self.node is not None:
            raise NoGradientError(
                f"{what} needs a plain array, received a traced one whose gradient would be lost. "
                "Keep to functions of its namespace (xp = x.__array_namespace__()), or call "
                "xpnet.stop_gradient(x) first if no gradient shall flow through here."
            )
        return self.value

    def __float__(self) -> float:
        return float(self._leave("float()"))

    def __int__(self) -> int:
        return int(self._leave("int()"))

    def __index__(self) -> int:
        return self._leave("an index").__index__()

    def __complex__(self) -> complex:
        return complex(self._leave("complex()"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        from xpnet.backends import to_numpy

        return numpy.asarray(to_numpy(self._leave("numpy.asarray")), dtype=dtype, copy=copy)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        operator = _OPERATORS.get(function)
        if operator and method == "__call__" and not options:  # `ndarray + tracer` comes here
            return getattr(self.namespace, operator)(*inputs)
        name = f"numpy.{function.__name__}"
        written = options.get("out", ()) + (inputs[:1] if method == "at" else ())
        inputs, options = _leave_all(name, (inputs, options))
        refuse_writing(name, written)
        return getattr(function, method)(*inputs, **options)

    def __array_function__(self, function: Any, _types: Any, inputs: Any, options: Any) -> Any:
        name = f"{function.__module__}.{function.__name__}"
        written = written_to(function.__name__, inputs, options)
        inputs, options = _leave_all(name, (inputs, options))
        refuse_writing(name, written)
        return function(*inputs, **options)

    def __dlpack__(
        self,
        /,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: Any = None,
        copy: bool | None = None,
    ) -> Any:
        options = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        # Not every library has all of them.
        options = {name: value for name, value in options.items() if value is not None}
        return self._leave("from_dlpack").__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.value.__dlpack_device__()


# NumPy's functions behind the operators, with their names in the standard.
_OPERATORS = {
    numpy.add: "add",
    numpy.subtract: "subtract",
    numpy.multiply: "multiply",
    numpy.divide: "divide",
    numpy.floor_divide: "floor_divide",
    numpy.remainder: "remainder",
    numpy.power: "pow",
    numpy.matmul: "matmul",
    numpy.bitwise_and: "bitwise_and",
    numpy.bitwise_or: "bitwise_or",
    numpy.bitwise_xor: "bitwise_xor",
    numpy.left_shift: "bitwise_left_shift",
    numpy.right_shift: "bitwise_right_shift",
    numpy.less: "less",
    numpy.less_equal: "less_equal",
    numpy.greater: "greater",
    numpy.greater_equal: "greater_equal",
    numpy.equal: "equal",
    numpy.not_equal: "not_equal",
}


def _leave_all(what: str, values: Any) -> Any:
    """Make the traced arrays in the arguments of a NumPy function plain, unless a gradient would be lost."""
    return tree.map(lambda x: x._leave(what) if type(x) is Tracer else x, values)


# NumPy's functions that write into their first argument. PyTorch's have a name that ends with an underscore.
_IN_PLACE = frozenset({"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"})


def written_to(name: str, inputs: Any, options: dict) -> list:
    """Return the arguments of a library's function that it would write into."""
    first = inputs[:1] if name in _IN_PLACE or name.endswith("_") else ()
    out = options.get("out", ())
    return [*first, *(out if isinstance(out, tuple) else (out,))]


def refuse_writing(name: str, written: Any) -> None:
    """Raise an error if a traced array would be written into: what was recorded before would change."""
    if any(type(x) is Tracer for x in written):
        raise TypeError(
            f"{name} must not write into a traced array: what was recorded before would change. "
            "Write x[key] = values, or x = x + y, which make a new one."
        )
