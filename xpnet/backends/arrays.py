"""Arrays of any library: where they are, how they are moved and converted, and the functions for them."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

import array_api_compat
import numpy

from xpnet import tree
from xpnet.arrays import concrete
from xpnet.backends.library import Device, Library
from xpnet.backends.reading import as_numbers, unmasked
from xpnet.backends.specs import LIBRARIES, library_of_type, use_device
from xpnet.backends.specs import device as _device  # two functions have a parameter of that name
from xpnet.errors import MixedArraysError, NotRecordableError

T = TypeVar("T")


class _Array(Protocol):
    """An array, which may be one of another library on another device: a tree keeps its type."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...


def library_of(x: Any) -> Library | None:
    """Return the library that an array belongs to, or None if it is no array of a known library."""
    return library_of_type(type(x)) if tree.is_array(x) else None  # type: ignore[arg-type]


def device_of(x: Any) -> Device:
    """Return the device that an array lives on.

    Raises
    ------
    TypeError
        If it is no array of a known library.
    """
    x = concrete(x)
    library = library_of(x)
    if library is None:
        raise TypeError(f"an array is needed, received {type(x).__name__}. `xpnet.asarray` makes one.")
    native = array_api_compat.device(x)
    if native is None:  # inside `jax.jit`, arrays have no device
        return Device(library.spec, library, library.namespace(), native)
    return _device(library.spec_of(native))


def asarray(x: Any, *, device: str | Device | None = None, dtype: Any = None) -> Any:
    """Make an array on a device from an array of any library, a sequence or a number.

    Parameters
    ----------
    x : array, data frame, sequence or number
        Numbers that NumPy can read, or an array of another library. In columns of a data frame, missing
        numbers become NaN.
    device : str, Device or None
        Where the array goes; None keeps an array where it is, and puts anything else on the current device.
    dtype : dtype, optional
        A dtype of the target library, or its name, such as ``"float32"``; None keeps the dtype.

    Returns
    -------
    array
        Where it is there already, the same array; where the memory is the host's, it may be shared.

    Raises
    ------
    TypeError
        If something is no number, such as text, or is masked.
    ValueError
        If there is no such dtype, or rows are not equally long.

    Examples
    --------
    >>> import xpnet
    >>> xpnet.asarray([1, 2, 3], device="cpu", dtype="float32")
    array([1., 2., 3.], dtype=float32)
    """
    x = unmasked(x)
    source = library_of(x)
    if source is None and tree.is_array(x):
        return _converted(x, device, dtype)
    if device is None and source is not None:
        target = device_of(x)
    else:
        target = _device(device)
    xp = target.namespace
    name = dtype if isinstance(dtype, str) else None
    if name is not None:
        dtype = _dtype(xp, name)
    if source is target.library and source.spec != "cpu":
        moved = x if device_of(x).native == target.native else array_api_compat.to_device(x, target.native)
    else:
        host = numpy.asarray(as_numbers(x if source is None else source.to_numpy(x)))
        if dtype is not None and host.dtype.kind == "f" and xp.isdtype(dtype, "integral"):
            _check_finite(host, name or str(dtype))
        if name is not None and hasattr(numpy, name):
            host = host.astype(name, copy=False)  # before the move, as not every device has float64
        host = host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("="))
        moved = xp.asarray(target.library.readable(host), device=target.native)
    if dtype is None or moved.dtype == dtype:
        return moved
    with target.library.entered(target.native):
        return xp.astype(moved, dtype)


def _check_finite(x: numpy.ndarray, dtype: str) -> None:
    """Check that numbers can become integers, for which NaN and infinity would become any."""
    bad = numpy.argwhere(~numpy.isfinite(x))
    if len(bad):
        row = f" in row {bad[0][0]}" if x.ndim else ""
        raise ValueError(
            f"{dtype} has no NaN and no infinity, received {x[tuple(bad[0])]}{row}. Leave out what is "
            "missing, or give it a number of its own."
        )


def _converted(x: Any, device: str | Device | None, dtype: Any) -> Any:
    """Convert an array that is not of a library listed here, such as a traced one, by its own means."""
    xp = x.__array_namespace__()
    plain = concrete(x)
    if device is not None and library_of(plain) not in (None, _device(device).library):
        raise MixedArraysError(
            f"a {x._kind} array stays with its library, received one of {describe(plain)} and the device "
            f'"{_device(device).spec}". Move it before it is {x._kind}. {x._instead}'
        )
    dtype = _dtype(xp, dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and x.dtype != dtype:
        x = xp.astype(x, dtype)
    return x if device is None else x.to_device(_device(device).native)


def _dtype(xp: Any, name: str) -> Any:
    found = getattr(xp, name, None)
    if found is None:
        known = ", ".join(xp.__array_namespace_info__().dtypes())
        raise ValueError(f'a dtype must be one of {known}, received "{name}".')
    return found


@overload
def to_device(values: _Array, spec: str | Device | None) -> Any: ...
@overload
def to_device(values: T, spec: str | Device | None) -> T: ...
def to_device(values: Any, spec: str | Device | None) -> Any:
    """Move all arrays of a tree to a device.

    Parameters
    ----------
    values : array or tree
        An array, or a module, dict, list or tuple with arrays at its leaves. It is not changed.
    spec : str, Device or None
        See `device`.

    Returns
    -------
    array or tree
        The same tree on the device. Arrays that are there already are shared.

    Examples
    --------
    >>> import xpnet
    >>> net = xpnet.to_device(xpnet.nn.Dense(2, 3), "cpu")
    >>> net
    Dense(weight: float32 (2, 3), bias: float32 (3,))
    """
    with use_device(spec) as target:
        return tree.map(
            lambda leaf: asarray(leaf, device=target) if tree.is_array(leaf) else leaf, values, state=True
        )


@overload
def to_numpy(values: _Array) -> numpy.ndarray: ...
@overload
def to_numpy(values: T) -> T: ...
def to_numpy(values: Any) -> Any:
    """Bring all arrays of a tree to the host as NumPy arrays.

    Parameters
    ----------
    values : array or tree
        An array, or a module, dict, list or tuple with arrays at its leaves.

    Returns
    -------
    numpy.ndarray or tree
        The same tree with NumPy arrays. Where the memory is the host's, it may be shared. The dtype is kept,
        but for PyTorch's bfloat16, which becomes float32.

    Examples
    --------
    >>> import xpnet
    >>> net = xpnet.to_numpy(xpnet.nn.Dense(2, 3))
    >>> type(net.weight)
    <class 'numpy.ndarray'>
    """

    def bring(leaf: Any) -> Any:
        if not tree.is_array(leaf):
            return leaf
        library = library_of(leaf)
        return numpy.asarray(leaf if library is None else library.to_numpy(leaf))

    return tree.map(bring, values, state=True)


def plain_namespace(x: Any) -> Any:
    """Return the standard namespace of an array of any library, known to xpnet or not."""
    x = concrete(x)
    found = _namespaces.get(type(x))
    if found is None:
        found = _namespaces[type(x)] = array_api_compat.array_namespace(x)
    return found


_namespaces: dict[type, Any] = {}


def copied(x: Any) -> Any:
    """Return a copy of a plain array, or the array itself where it cannot be written to."""
    if isinstance(x, numpy.generic) or array_api_compat.is_jax_array(x):
        return x
    return plain_namespace(x).asarray(x, copy=True, device=array_api_compat.device(x))


def _library_of_namespace(xp: Any) -> Library | None:
    root = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    return next((library for library in LIBRARIES if library.module == root), None)


def quick_functions(xp: Any) -> dict[str, Callable[..., Any]]:
    """Return functions that do the same as those of a namespace and cost less a call."""
    library = _library_of_namespace(xp)
    return library.quick if library else {}


def special_functions(xp: Any) -> Any:
    """Return the special functions (``erf``, ``gammaln``, …) for the arrays of a namespace.

    They are those of SciPy, of CuPy's copy of it, or the library's own. What it has not, and all of a library
    that has none, runs on the host, through SciPy.

    Raises
    ------
    AttributeError
        If SciPy is needed and not installed, or there is no function of that name.
    """
    library = _library_of_namespace(xp)
    return _SpecialFunctions(xp, library.special if library else "")


class _SpecialFunctions:
    """The functions of a library's module, and for those that it has not SciPy's, on the host."""

    def __init__(self, xp: Any, module: str) -> None:
        self._xp = xp
        try:
            self._own = importlib.import_module(module) if module else None
        except ImportError:
            raise AttributeError(_NO_SCIPY) from None

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._own, name, None)
        value = _on_host(name) if own is None else own
        setattr(self, name, value)
        return value


_NO_SCIPY = "special functions need SciPy. `pip install scipy` installs it."


def _on_host(name: str) -> Callable[..., Any]:
    """Return a function of SciPy's for arrays of any library, which are brought to the host."""
    try:
        function = getattr(importlib.import_module("scipy.special"), name)
    except ImportError:
        raise AttributeError(_NO_SCIPY) from None

    def on_host(*inputs: Any, **options: Any) -> Any:
        where = device_of(next(x for x in inputs if library_of(x)))
        if where.native is None:  # inside `jax.jit`, arrays have no device
            raise NotRecordableError(
                f"{where.library.name} has no special.{name}, and SciPy's, which stands in for it, cannot be "
                "called while a function is compiled. Leave jit away, or use arrays of NumPy."
            )
        host = [to_numpy(x) if tree.is_array(x) else x for x in inputs]
        return asarray(function(*host, **options), device=where)

    return on_host


def is_on_host(x: Any) -> bool:
    """Say whether the values of an array can be looked at without waiting: one of NumPy's, not traced."""
    return isinstance(x, numpy.ndarray | numpy.generic)


def is_numpy_number(x: Any) -> bool:
    """Say whether an array is one of NumPy's numbers, or an array of NumPy's of shape ()."""
    return is_on_host(x) and x.shape == ()


def is_known(x: Any) -> bool:
    """Say whether a value can be looked at without waiting: whatever is no array, too."""
    return not tree.is_array(x) or is_on_host(x)


def describe(x: Any) -> str:
    """Name the library and the device of an array, for error messages."""
    x = concrete(x)
    library = library_of(x)
    return f"{library.name} on {device_of(x).spec}" if library else type(x).__name__


def at_least_single(xp: Any, x: Any) -> Any:
    """Return an array in single precision if it has less: float16 ends at 65,504 and counts to 2,048."""
    if x.dtype in (xp.float32, xp.float64, xp.complex64, xp.complex128):
        return x
    return xp.astype(x, xp.result_type(x.dtype, xp.float32), copy=False)


def in_dtype(xp: Any, x: Any, dtype: Any) -> Any:
    """Return an array in a dtype, and as it is where it has that: `astype` would be recorded, too."""
    return x if x.dtype == dtype else xp.astype(x, dtype)


def numpy_dtype(dtype: Any, where: Device) -> numpy.dtype:
    """Return the dtype of NumPy for one of a device's library; float32 for what NumPy does not have."""
    with where.library.entered(where.native):
        return where.library.to_numpy(where.namespace.empty(0, dtype=dtype, device=where.native)).dtype


def check_together(first: Any, second: Any) -> None:
    """Check that two arrays are of one library and on one device.

    Raises
    ------
    MixedArraysError
        Naming both places and the way to bring them together.
    """
    first, second = concrete(first), concrete(second)
    if type(first) is type(second) or plain_namespace(first) is plain_namespace(second):
        if isinstance(first, numpy.ndarray | numpy.generic):
            return
        places = array_api_compat.device(first), array_api_compat.device(second)
        if places[0] == places[1] or None in places:  # inside `jax.jit`, arrays have no device
            return
    raise MixedArraysError(
        f"the arrays of one call must share a library and a device, received {describe(first)} and "
        f"{describe(second)}. Move one with `xpnet.to_device`."
    )
