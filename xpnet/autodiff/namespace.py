"""The traced namespace: the functions of the standard, for traced arrays.

There is one `TracedNamespace` for each library. Its functions come from the declarations in `rules/`;
whatever is declared nowhere is the library's own function, whose result the sweep refuses to go through.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from xpnet import tree
from xpnet.arrays import ArrayObject, calling_line
from xpnet.autodiff import collectives, loops, rules, scatter, sparse, windows
from xpnet.autodiff.context import current, recording_of
from xpnet.autodiff.primitive import COMPOSITES, NUMBERS, PRIMITIVES, is_declared, opaque
from xpnet.autodiff.tracer import Node, Tracer
from xpnet.backends import (
    check_together,
    describe,
    is_numpy_number,
    plain_namespace,
    quick_functions,
    special_functions,
)
from xpnet.cached import cached_property
from xpnet.errors import MixedArraysError, NotRecordableError

__all__ = ["array_namespace", "traced_namespace"]

EXTENSIONS = ("linalg", "fft", "special")


class Inspection:
    """What a library says about itself, as version 2024.12 of the standard has it.

    There, `devices`, `meshgrid` and `broadcast_arrays` return lists. In version 2025.12 they return tuples,
    and code of others adds lists to them.
    """

    def __init__(self, xp: Any) -> None:
        self._library = xp.__array_namespace_info__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def devices(self) -> list[Any]:
        return list(self._library.devices())


class PlainNamespace:
    """A library's namespace with the functions that rules need and the standard lacks."""

    __array_api_version__ = "2024.12"  # which is required of a library; what it has beyond that is there too
    plain = None  # a traced namespace has one

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        vars(self).update(quick_functions(xp))
        # Rules ask for it at every turn.
        self.isdtype: Callable[[Any, Any], bool] = cache(lambda dtype, kind: xp.isdtype(dtype, kind))
        self.setitem = partial(scatter.setitem, xp)
        self.scatter_add = partial(scatter.scatter_add, xp)
        self.scan_arrays = partial(loops.scan, xp)
        self.collective = partial(collectives.collective, xp)
        self.sparse_matmul = partial(sparse.sparse_matmul, xp)
        self.windows = partial(windows.windows, xp)
        self.add_windows = partial(windows.add_windows, xp)

    declares = staticmethod(is_declared)

    def __getattr__(self, name: str) -> Any:
        value = _PlainSpecial(self) if name == "special" else getattr(self._xp, name)
        setattr(self, name, value)
        return value

    @cached_property
    def _inspection(self) -> Inspection:
        return Inspection(self._xp)

    def __array_namespace_info__(self) -> Inspection:
        return self._inspection

    def holds(self, x: Any) -> bool:
        """Say whether an array belongs to the library, as it is and not as one that is recorded."""
        return not isinstance(x, ArrayObject) and plain_namespace(x) is self._xp


class _PlainSpecial:
    """The special functions of a library, and xpnet's own, whose names begin with an underscore."""

    def __init__(self, namespace: PlainNamespace) -> None:
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        own = own_special(self._namespace, name)
        value = getattr(special_functions(self._namespace._xp), name) if own is None else own
        setattr(self, name, value)
        return value


def own_special(namespace: PlainNamespace, name: str) -> Any:
    """Return a special function that is xpnet's own, for a namespace, or None if it is the library's."""
    primitive = PRIMITIVES.get(f"special.{name}") if name.startswith("_") else None
    return primitive and primitive.on_plain(namespace)


class TracedNamespace:
    """The standard's functions for traced arrays that wrap the arrays of one library.

    Attributes
    ----------
    plain : PlainNamespace
        The namespace of the wrapped library.
    """

    def __init__(self, xp: Any) -> None:
        self.__name__ = f"xpnet.traced.{xp.__name__}"
        self.plain = xp if isinstance(xp, PlainNamespace) else PlainNamespace(xp)
        self.isdtype = self.plain.isdtype
        self.__array_namespace_info__ = self.plain.__array_namespace_info__
        self._array_types: set[type] = set()
        for name in (*COMPOSITES, *PRIMITIVES):
            if "." not in name and (function := _traced_function(name, self)):
                setattr(self, name, self.observed(name, function))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__array_api_version__":
            raise AttributeError(name)
        plain = getattr(self.plain, name)
        if name in EXTENSIONS:
            value: Any = _Extension(name, self)
        else:
            value = self.observed(name, _wrap(plain, name, self))
        setattr(self, name, value)
        return value

    declares = staticmethod(is_declared)

    # What looks at the gradients in a sweep, if anything: `observe_gradient(node, g, gradient)`.
    observe_gradient = None

    def observed(self, name: str, function: Any) -> Any:  # noqa: ARG002
        """Return a function as it shall stand in the namespace; `xpnet.raise_on_nan` looks at its results."""
        return function

    def __repr__(self) -> str:
        return f"<{self.__name__}>"

    def lift(self, value: Any) -> Any:
        """Wrap plain arrays as traced ones without a gradient, one by one in a list or tuple."""
        if isinstance(value, tuple | list):
            lifted = [self.lift(item) for item in value]
            if all(new is old for new, old in zip(lifted, value, strict=True)):
                return value
            return value._make(lifted) if hasattr(value, "_make") else type(value)(lifted)
        if type(value) is Tracer or not tree.is_array(value):
            return value
        if is_numpy_number(value) and not self.plain.holds(value):
            return value.item()  # beside arrays of any other library it is a number
        return Tracer(value, None, self)

    def operand(self, x: Any) -> tuple[Any, Node | None]:
        """Return the value and the node of something that a function received as an array."""
        kind = type(x)
        if kind is Tracer:
            if x.namespace is not self:
                self._refuse(x)
            return x.value, x.node
        if kind not in NUMBERS and kind not in self._array_types:
            if not tree.is_array(x):
                raise TypeError(f"an array or a Python number is needed, received {kind.__name__}: {x!r}")
            if not self.plain.holds(x):
                if is_numpy_number(x):
                    return x.item(), None  # beside arrays of any other library it is a number
                self._refuse(x)
            if not isinstance(x, ArrayObject):  # which one type has for every library
                self._array_types.add(kind)
        return x, None

    def _refuse(self, x: Any) -> None:
        if isinstance(x, ArrayObject) and plain_namespace(x) is self.plain._xp:
            raise from_function_around()
        raise of_another_library(x, self.plain._xp)

    def has_gradient(self, value: Any) -> bool:
        """Say whether a value's dtype can hold gradients: real or complex floating-point numbers."""
        if isinstance(value, tuple | list):
            return any(self.has_gradient(item) for item in value)
        return self.plain.isdtype(value.dtype, ("real floating", "complex floating"))


def of_another_library(x: Any, xp: Any) -> MixedArraysError:
    """Return the error for an array that stands beside those of a namespace."""
    here = xp.__name__.removeprefix("array_api_compat.")
    return MixedArraysError(
        f"the arrays of one call must share a library and a device, received one of {here} and "
        f"{describe(x)}. Move one with `xpnet.to_device`."
    )


def from_function_around() -> NotRecordableError:
    """Return the error for an array, or a namespace, of the function around one that is being recorded."""
    return NotRecordableError(
        "a function under jit or in scan must get all that changes as arguments; received an array, or the "
        f"namespace, of the function around it, at {calling_line()}. Pass the array as an argument, and take "
        "the namespace of an argument: xpnet.array_namespace(x)."
    )


class _Extension:
    """`linalg`, `fft` or `special` of a traced namespace. Its functions are made when they are asked for."""

    def __init__(self, name: str, namespace: TracedNamespace) -> None:
        self._name, self._namespace = name, namespace

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full_name = f"{self._name}.{name}"
        value = _traced_function(full_name, self._namespace)
        if value is None and name in PRIMITIVES:  # matmul and its like stand in the main namespace too
            value = getattr(self._namespace, name)
        if value is None:
            plain = getattr(self._namespace.plain, self._name)
            value = _wrap(getattr(plain, name), full_name, self._namespace)
        value = self._namespace.observed(full_name, value)
        setattr(self, name, value)
        return value


def _traced_function(name: str, namespace: TracedNamespace) -> Any:
    """Return a function that is declared in `rules/`, or None where there is none or the library lacks it."""
    if name in COMPOSITES:
        return partial(COMPOSITES[name], namespace)
    primitive = PRIMITIVES.get(name)
    if primitive is None:
        return None
    try:
        return primitive.on_traced(namespace)
    except AttributeError:
        return None


def _wrap(value: Any, name: str, namespace: TracedNamespace) -> Any:
    return opaque(name, value, namespace) if callable(value) and not isinstance(value, type) else value


def traced_namespace(xp: Any) -> TracedNamespace:
    """Return the traced namespace that wraps a library's namespace, always the same object in a context."""
    kind, _, known = current()
    # `setdefault` settles for one object where several threads make one at once.
    namespace: TracedNamespace = known.get(xp) or known.setdefault(xp, (kind or TracedNamespace)(xp))
    return namespace


def array_namespace(*arrays: Any) -> Any:
    """Return the namespace in which to compute with some arrays.

    As ``array_api_compat.array_namespace``, but plain arrays may stand beside traced ones (the labels of a
    batch beside the output of a network, say): the traced namespace takes both.

    Parameters
    ----------
    *arrays : array
        Plain or traced arrays of one library on one device.

    Returns
    -------
    namespace

    Raises
    ------
    MixedArraysError
        If the arrays belong to two libraries or live on two devices.
    TypeError
        If one of them is no array.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> def softplus(x):
    ...     xp = xpnet.array_namespace(x)
    ...     return xp.log1p(xp.exp(x))
    >>> float(xpnet.grad(softplus)(np.asarray(0.0)))
    0.5
    """
    if not arrays:
        raise TypeError("at least one array is needed to tell the namespace, received none.")
    traced = recorded = None
    for x in arrays:
        if type(x) is Tracer:
            traced = traced or x.namespace
        elif isinstance(x, ArrayObject):
            recorded = recorded or x.namespace
        elif not tree.is_array(x):
            of_dict = isinstance(x, dict) and len(x) > 0
            instead = f"Take one from it, x[{next(iter(x))!r}]" if of_dict else "xpnet.asarray makes one"
            raise TypeError(f"an array is needed, received {type(x).__name__}. {instead}.")
    for x in arrays[1:]:
        check_together(arrays[0], x)
    return traced or recorded or recording_of(plain_namespace(arrays[0]))


def extended_namespace(*arrays: Any) -> Any:
    """As `array_namespace`, with xpnet's functions beside the standard's: `windows`, `setitem` and so on."""
    xp = array_namespace(*arrays)
    return xp if isinstance(xp, TracedNamespace | PlainNamespace) else traced_namespace(xp).plain


rules.load()
