"""An object that behaves like an array of the standard, around the array of some library.

Its operators and methods call the functions of its namespace. What the namespace remembers of these calls is
up to the subclass: `xpnet.autodiff.tracer.Tracer` remembers how its value was made, for gradients, and
`xpnet.replay.record.Recorded` what was done, to do it again.
"""

import linecache
import operator
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, Self

import array_api_compat
import numpy

from xpnet import tree

# Whose code stands between a line of the user's and the function that it calls.
_MACHINERY = sys.stdlib_module_names | {
    "array_api_compat", "array_api_extra", "array_api_strict", "cupy", "einops", "jax", "numpy", "optree",
    "scipy", "torch", "xpnet",
}  # fmt: skip


class ArrayObject:
    """An array of the standard around the array of some library.

    Attributes
    ----------
    value : array
        The array inside.
    namespace : namespace
        Whose functions the operators call.
    """

    __slots__ = ("namespace", "value")

    value: Any
    namespace: Any

    # For error messages: what it is called, and what to do where something is asked of it that it has not.
    _kind = "traced"
    _instead = (
        "Take functions of its namespace (xp = xpnet.array_namespace(x)) where a gradient shall flow, else "
        "xpnet.to_numpy(xpnet.stop_gradient(x))."
    )

    __hash__ = None  # type: ignore[assignment]  # `==` is elementwise, as for every array

    # -- for subclasses -----------------------------------------------------------------------------------

    # Brings an array of any library to the host.
    _to_numpy: Callable[[Any], Any]

    def _become(self, other: Self) -> None:
        """Stand for what another one stands for: assignment in place."""
        raise NotImplementedError

    def _leave(self, what: str) -> Any:
        """Return the value for something that is not recorded, or raise an error that names it."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        raise NotImplementedError

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
    def T(self) -> Self:
        if self.ndim != 2:
            raise ValueError(f".T needs an array with 2 axes, received {self.ndim}. Use .mT or permute_dims.")
        return self.namespace.matrix_transpose(self)

    @property
    def mT(self) -> Self:
        return self.namespace.matrix_transpose(self)

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        return self.namespace

    def to_device(self, device: Any, /, *, stream: Any = None) -> Self:
        """Move the array to another device of its library; the gradient comes back by the same way."""
        return self.namespace.to_device(self, device, stream=stream)

    def __format__(self, format_spec: str) -> str:
        # A text is for people, like `repr`: it loses no gradient.
        return self._text(format_spec) if not format_spec or self.shape else format(self._item(), format_spec)

    def _text(self, format_spec: str) -> str:
        """Return the text of the whole array, whose format can be no more than that of any text: a width."""
        try:
            return format(str(self), format_spec)
        except ValueError:
            raise TypeError(
                f"the format {format_spec!r} needs one number, received an array of shape "
                f"{tuple(self.shape)}. Write it without the format, or format its elements."
            ) from None

    def _item(self) -> Any:
        """Return the value of an array of one element as a number of Python's."""
        return self._to_numpy(self.value).item()

    def __getattr__(self, name: str) -> Any:
        # An AttributeError in each case, since code of others asks with `hasattr` what an array has.
        is_public = not name.startswith("_")
        if is_public and self.namespace.declares(name):
            instead = f"Write xp.{name}(x), with xp = xpnet.array_namespace(x)."
        elif is_public and hasattr(type(self.value), name):
            instead = self._instead
        else:
            raise AttributeError(f"a {self._kind} array has no attribute {name!r}")
        raise AttributeError(
            f"arrays of the array API standard, such as this {self._kind} one, have no method {name}. "
            f"{instead}"
        )

    def __deepcopy__(self, _memo: dict) -> Self:
        # Values are never written to, so a handle of its own is a copy as deep as any.
        return self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._leave("pickle").__reduce_ex__(protocol)

    # -- operators ----------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Self:
        return self.namespace.add(self, other)

    def __radd__(self, other: Any) -> Self:
        return self.namespace.add(other, self)

    def __sub__(self, other: Any) -> Self:
        return self.namespace.subtract(self, other)

    def __rsub__(self, other: Any) -> Self:
        return self.namespace.subtract(other, self)

    def __mul__(self, other: Any) -> Self:
        if self._repeats(other):
            return NotImplemented
        return self.namespace.multiply(self, other)

    def __rmul__(self, other: Any) -> Self:
        if self._repeats(other):
            return NotImplemented
        return self.namespace.multiply(other, self)

    def _repeats(self, other: Any) -> bool:
        """Say whether a product with a list repeats it, as Python does then by itself."""
        is_sequence = isinstance(other, list | tuple | str)
        return is_sequence and not self.shape and self.namespace.isdtype(self.dtype, "integral")

    def __truediv__(self, other: Any) -> Self:
        return self.namespace.divide(self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self.namespace.divide(other, self)

    def __floordiv__(self, other: Any) -> Self:
        return self.namespace.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Self:
        return self.namespace.floor_divide(other, self)

    def __mod__(self, other: Any) -> Self:
        return self.namespace.remainder(self, other)

    def __rmod__(self, other: Any) -> Self:
        return self.namespace.remainder(other, self)

    def __pow__(self, other: Any) -> Self:
        return self.namespace.pow(self, other)

    def __rpow__(self, other: Any) -> Self:
        return self.namespace.pow(other, self)

    def __matmul__(self, other: Any) -> Self:
        return self.namespace.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return self.namespace.matmul(other, self)

    def __and__(self, other: Any) -> Self:
        return self.namespace.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Self:
        return self.namespace.bitwise_and(other, self)

    def __or__(self, other: Any) -> Self:
        return self.namespace.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Self:
        return self.namespace.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Self:
        return self.namespace.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Self:
        return self.namespace.bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> Self:
        return self.namespace.bitwise_left_shift(self, other)

    def __rlshift__(self, other: Any) -> Self:
        return self.namespace.bitwise_left_shift(other, self)

    def __rshift__(self, other: Any) -> Self:
        return self.namespace.bitwise_right_shift(self, other)

    def __rrshift__(self, other: Any) -> Self:
        return self.namespace.bitwise_right_shift(other, self)

    def __lt__(self, other: Any) -> Self:
        return self.namespace.less(self, other)

    def __le__(self, other: Any) -> Self:
        return self.namespace.less_equal(self, other)

    def __gt__(self, other: Any) -> Self:
        return self.namespace.greater(self, other)

    def __ge__(self, other: Any) -> Self:
        return self.namespace.greater_equal(self, other)

    def __eq__(self, other: Any) -> Self:  # type: ignore[override]
        if _is_no_number(other):
            return NotImplemented
        return self.namespace.equal(self, other)

    def __ne__(self, other: Any) -> Self:  # type: ignore[override]
        if _is_no_number(other):
            return NotImplemented
        return self.namespace.not_equal(self, other)

    def __neg__(self) -> Self:
        return self.namespace.negative(self)

    def __pos__(self) -> Self:
        return self.namespace.positive(self)

    def __abs__(self) -> Self:
        return self.namespace.abs(self)

    def __invert__(self) -> Self:
        return self.namespace.bitwise_invert(self)

    # -- indexing and assignment in place -----------------------------------------------------------------

    def __getitem__(self, key: Any) -> Self:
        return self.namespace.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._become(self.namespace.setitem(self, key, value))

    def __delitem__(self, key: Any) -> None:
        raise TypeError(
            f"no element of an array can be deleted, received the key {key!r}. Take the others: x[1:], say."
        )

    def _in_place(self, operate: Any, result: Self, other: Any) -> Self:
        """Become the result of an operator, as the library's own array would: ``x += y``.

        Whether it may have another shape or dtype, and what it is cast to, the library itself is asked.
        """
        if not hasattr(concrete(self), f"__{operate.__name__}__"):
            return result  # as Python says `x = x + y` where there is no such operator
        if result.shape != self.shape or result.dtype != self.dtype:
            try:
                dtype = operate(_ones_like(self), _ones_like(other)).dtype
            except Exception as error:
                error.add_note(
                    f"An array that is changed in place keeps its shape and dtype, here {tuple(self.shape)} "
                    f"and {self.dtype}; the result has {tuple(result.shape)} and {result.dtype}. Write "
                    "x = x + y instead of x += y."
                )
                raise
            if result.dtype != dtype:
                result = self.namespace.astype(result, dtype)
        self._become(result)
        return self

    def __iadd__(self, other: Any) -> Self:
        return self._in_place(operator.iadd, self + other, other)

    def __isub__(self, other: Any) -> Self:
        return self._in_place(operator.isub, self - other, other)

    def __imul__(self, other: Any) -> Self:
        return self._in_place(operator.imul, self * other, other)

    def __itruediv__(self, other: Any) -> Self:
        return self._in_place(operator.itruediv, self / other, other)

    def __ifloordiv__(self, other: Any) -> Self:
        return self._in_place(operator.ifloordiv, self // other, other)

    def __imod__(self, other: Any) -> Self:
        return self._in_place(operator.imod, self % other, other)

    def __ipow__(self, other: Any) -> Self:
        return self._in_place(operator.ipow, self**other, other)

    def __imatmul__(self, other: Any) -> Self:
        return self._in_place(operator.imatmul, self @ other, other)

    def __iand__(self, other: Any) -> Self:
        return self._in_place(operator.iand, self & other, other)

    def __ior__(self, other: Any) -> Self:
        return self._in_place(operator.ior, self | other, other)

    def __ixor__(self, other: Any) -> Self:
        return self._in_place(operator.ixor, self ^ other, other)

    def __ilshift__(self, other: Any) -> Self:
        return self._in_place(operator.ilshift, self << other, other)

    def __irshift__(self, other: Any) -> Self:
        return self._in_place(operator.irshift, self >> other, other)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() needs an array with at least 1 axis, received shape (). Use .size.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Self]:
        if not self.shape:
            raise TypeError("iteration needs an array with at least 1 axis, received shape ().")
        return iter(self.namespace.unstack(self))

    def __float__(self) -> float:
        return float(self._leave("float()"))

    def __int__(self) -> int:
        return int(self._leave("int()"))

    def __index__(self) -> int:
        return operator.index(self._leave("an index"))

    def __complex__(self) -> complex:
        return complex(self._leave("complex()"))

    def __round__(self, digits: int | None = None) -> Any:  # of NumPy's numbers, such as its sums
        self._leave("round()")
        return round(self._item(), digits)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return numpy.asarray(self._to_numpy(self._leave("numpy.asarray")), dtype=dtype, copy=copy)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        operator = _OPERATORS.get(function)
        if operator and method == "__call__" and not options:  # `ndarray + tracer` comes here
            return getattr(self.namespace, operator)(*inputs)
        name = function.__name__
        if getattr(numpy, name, None) is function:  # SciPy has others
            name = f"numpy.{name}"
        written = options.get("out", ()) + (inputs[:1] if method == "at" else ())
        inputs, options = _leave_all(name, (inputs, options))
        refuse_writing(name, written)
        return getattr(function, method)(*inputs, **options)

    def __array_function__(self, function: Any, _types: Any, inputs: Any, options: Any) -> Any:
        if function.__name__ in ABOUT_ARRAYS:
            inputs, options = tree.map(concrete, (inputs, options))
            return function(*inputs, **options)
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
        return with_dlpack(self._leave("from_dlpack")).__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return with_dlpack(self.value).__dlpack_device__()


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


def _is_no_number(x: Any) -> bool:
    """Say whether a value is unlike all numbers: `None in (x, y)`, `ord == "fro"`, `...` in a key."""
    return x is None or x is ... or isinstance(x, str)


def concrete(x: Any) -> Any:
    """Return the library's array inside a traced or recorded one; any other as it is."""
    while isinstance(x, ArrayObject):
        x = x.value
    return x


def with_dlpack(x: Any) -> Any:
    """Return an array that can be exported: NumPy's numbers, such as its sums, cannot."""
    return numpy.asarray(x) if isinstance(x, numpy.generic) else x


def _ones_like(x: Any) -> Any:
    """Return a plain array of ones in the place of a traced or recorded one, to try an operator with."""
    x = concrete(x)
    return array_api_compat.array_namespace(x).ones_like(x) if tree.is_array(x) else x


def _leave_all(what: str, values: Any) -> Any:
    """Make the traced arrays in the arguments of a NumPy function plain, unless a gradient would be lost."""
    return tree.map(lambda x: x._leave(what) if isinstance(x, ArrayObject) else x, values)


# Functions of dtypes and shapes, through which no gradient flows.
ABOUT_ARRAYS = frozenset({
    "broadcast_shapes", "can_cast", "common_type", "finfo", "iinfo", "iscomplexobj", "isrealobj", "ndim",
    "result_type", "shape", "size",
})  # fmt: skip

# NumPy's functions that write into their first argument. PyTorch's have a name that ends with an underscore.
_IN_PLACE = frozenset({"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"})
# Options that let other functions do so.
_OVERWRITING = ("inplace", "overwrite_input")


def written_to(name: str, inputs: Any, options: dict) -> list:
    """Return the arguments of a library's function that it would write into."""
    in_place = name in _IN_PLACE or name.endswith("_") or any(map(options.get, _OVERWRITING))
    if name == "nan_to_num":  # whose copy=False means that there shall be none
        in_place = not (*inputs[1:2], options.get("copy", True))[0]
    first = inputs[:1] if in_place else ()
    out = options.get("out", ())
    return [*first, *(out if isinstance(out, tuple) else (out,))]


def refuse_writing(name: str, written: Any) -> None:
    """Raise an error if a traced array would be written into: what was recorded before would change."""
    if any(isinstance(x, ArrayObject) for x in written):
        raise TypeError(
            f"{name} must not write into a traced array: what was recorded before would change. "
            "Write x[key] = values, or x = x + y, which make a new one."
        )


def calling_line() -> str:
    """Return the line of code that is being run, outside of xpnet and of the libraries that it works with."""
    return line_of(*calling_place())


def calling_place() -> tuple[types.CodeType, int]:
    """Return what `line_of` makes the calling line from, where few of many lines will ever be shown."""
    return _place_of_caller(sys._getframe())


def short_line() -> str:
    """Return the file, without its folder, and the number of the line that is being run."""
    code, number = calling_place()
    return f"{os.path.basename(code.co_filename)}:{number}"


def line_of_frame(frame: types.FrameType) -> str:
    """Return what `calling_line` returns, for a frame of any thread."""
    return line_of(*_place_of_caller(frame))


def _place_of_caller(frame: Any) -> tuple[types.CodeType, int]:
    while _is_machinery(frame) and frame.f_back:
        frame = frame.f_back
    return frame.f_code, frame.f_lineno


def raising_line(error: BaseException) -> str:
    """Return the line of code that raised an error, outside of xpnet and of the libraries."""
    places = list(traceback.walk_tb(error.__traceback__))
    frame, number = next((place for place in reversed(places) if not _is_machinery(place[0])), places[-1])
    return line_of(frame.f_code, number)


def hidden_by_numpy(error: BaseException) -> BaseException | None:
    """Return an error of xpnet's own in the place of which NumPy raised another one, or None.

    ``a[0] = x`` calls ``float(x)``, and what that raises becomes the cause of "setting an array element with
    a sequence." No line of Python saw it before, unlike an error that somebody caught and put another before.
    """
    cause = error.__cause__
    seen_by = cause and cause.__traceback__
    if seen_by and _is_of_xpnet(seen_by.tb_frame) and not raised_by_xpnet(error):
        return cause
    return None


def raised_by_xpnet(error: BaseException) -> bool:
    """Say whether an error is one of xpnet's own checks, whose text says all."""
    frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    return _is_of_xpnet(frame)


def _is_of_xpnet(frame: Any) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] == "xpnet"


def _is_machinery(frame: Any) -> bool:
    """Say whether a frame runs code of Python's, of a library's or of xpnet's own."""
    return frame.f_globals.get("__name__", "").partition(".")[0] in _MACHINERY


def line_of(code: types.CodeType, number: int) -> str:
    """Return a line of code with the place where it stands."""
    return f"{code.co_filename}:{number}: {linecache.getline(code.co_filename, number).strip()}"
