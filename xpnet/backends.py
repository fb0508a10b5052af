"""Libraries and devices: from a device spec such as ``"cuda:1"`` to arrays on that device.

This is the only list of libraries. A new one is one more entry in `LIBRARIES`, with small functions for what
differs, and a line in `device_of`.
"""

import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import shutil
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import array_api_compat
import numpy

from xpnet import tree
from xpnet.arrays import ArrayObject
from xpnet.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    MixedArraysError,
    OutOfDeviceMemoryError,
)

_log = logging.getLogger("xpnet")


@dataclass(frozen=True)
class Library:
    """How xpnet uses one array library.

    Attributes
    ----------
    name : str
        The name people know it by.
    spec : str
        The first word of its device specs.
    module : str
        What is imported.
    install : str
        The command that installs it.
    namespace : callable
        Returns its standard namespace.
    find_device : callable
        From the part of the spec after the colon (or ``""``) to the library's own device.
    device_specs : callable
        The specs of all devices that it has on this machine.
    to_numpy : callable
        Copies or views an array as a NumPy array.
    special : str
        The module of its special functions; empty if it has none.
    quick : dict of str to callable
        Functions of the namespace by name, said in a way that costs less a call, for correct arguments.
    free_memory : callable
        From the library's own device to the bytes that are free there; None where data stay on the host.
    uploads : callable, optional
        Makes an object whose ``begin(arrays)`` begins to copy those that are NumPy's to the current device,
        and returns a function that returns all of them for what is computed next; ``close()`` waits for what
        is under way. Without it, arrays are copied when they are needed.
    explain : callable
        From an error of the library's own to the one to raise in its place, or None.
    """

    name: str
    spec: str
    module: str
    install: str
    namespace: Callable[[], Any]
    find_device: Callable[[str], Any]
    device_specs: Callable[[], list[str]]
    to_numpy: Callable[[Any], numpy.ndarray]
    special: str
    quick: dict[str, Callable] = field(default_factory=dict, hash=False, compare=False)
    free_memory: Callable[[Any], int | None] = lambda _native: None
    uploads: Callable[[], Any] | None = None
    explain: Callable[[Exception], Exception | None] = lambda _error: None


@dataclass(frozen=True)
class Device:
    """A device of one array library.

    Attributes
    ----------
    spec : str
        Its name, such as ``"cpu"`` or ``"cuda:1"``.
    library : Library
        The library whose arrays live there.
    namespace : module
        The library's standard namespace.
    native : object
        What the library itself calls the device.
    """

    spec: str = field(compare=False)
    library: Library = field(repr=False)
    namespace: Any = field(repr=False, compare=False)
    native: Any = field(repr=False, hash=False)  # CuPy's devices cannot be hashed


# -- what differs from library to library -----------------------------------------------------------------


def _find_numpy_device(name: str) -> str:
    if name:
        raise ValueError(f'"cpu" is one device and takes no number, received "cpu:{name}". Write "cpu".')
    return "cpu"


def _find_cuda_device(name: str) -> Any:
    import cupy

    reason = cuda_problem()
    if reason:
        raise DeviceUnavailableError(reason)
    count = cupy.cuda.runtime.getDeviceCount()
    number = _number(name, count, "cuda")
    return cupy.cuda.Device(number)


def _number(name: str, count: int, library: str) -> int:
    if name and not name.isdecimal():
        raise ValueError(
            f'the device of a "{library}" spec is a number, received "{library}:{name}". Write "{library}:0".'
        )
    number = int(name or 0)
    if number >= count:
        raise DeviceUnavailableError(
            f'"{library}:{number}" was asked for, but this machine has {count} such device(s), '
            f"numbered from 0. `python -m xpnet` lists them."
        )
    return number


@cache
def cuda_problem() -> str | None:
    """Say why CuPy cannot use a CUDA GPU here, or None if it can.

    Only a calculation shows that driver, compiler, headers and cuBLAS all work together.
    """
    if importlib.util.find_spec("cupy") is None:
        if shutil.which("nvidia-smi") is None:
            return "there is no NVIDIA driver here (nvidia-smi is missing), and CuPy is not installed."
        return 'CuPy is not installed. `pip install "xpnet[cuda13]"` (or cuda12, by the driver) installs it.'
    try:
        import cupy

        if not cupy.cuda.is_available():
            return (
                _old_driver() or "CuPy finds no usable NVIDIA GPU. `nvidia-smi` shows whether one is there."
            )
        ones = cupy.ones((2, 2), dtype=cupy.float32)
        if float((ones @ ones).sum()) != 8.0:
            return "CuPy's matrix product gives wrong numbers on this GPU. Update the driver and CuPy."
    except Exception as error:  # the libraries below CuPy have many kinds of their own
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f'CuPy cannot run: {first_line}. `pip install "xpnet[cuda13]"` brings CUDA\'s libraries along.'
    return None


def _old_driver() -> str | None:
    """Say that the driver is too old for CuPy, if it is."""
    from cupy.cuda import runtime

    # 12080 is CUDA 12.8, and 0 no driver at all.
    driver, needed = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    if not 0 < driver < needed:
        return None
    instead = f', or `pip install "xpnet[cuda{driver}]"` in place of this CuPy' if driver > 11 else ""
    return (
        f"the NVIDIA driver is too old: it is for CUDA {driver}, and this CuPy for CUDA {needed}. Install a "
        f"newer driver{instead}."
    )


def _cuda_specs() -> list[str]:
    import cupy

    return [f"cuda:{number}" for number in range(cupy.cuda.runtime.getDeviceCount())]


def _cuda_free_memory(native: Any) -> int:
    import cupy

    pool = cupy.get_default_memory_pool()
    with native:
        free, limit = native.mem_info[0] + pool.free_bytes(), pool.get_limit()
        return min(free, limit - pool.used_bytes()) if limit else free


class _CudaUploads:
    """Copies to a CUDA device beside its calculations: from pinned memory, on a stream of their own."""

    def __init__(self) -> None:
        import cupy

        # Another stream would wait for the default one, in which CuPy computes, and that one for it.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._under_way: deque[tuple[Any, list]] = deque()

    def begin(self, arrays: list) -> Callable[[], list]:
        import cupy
        import cupyx

        # Each call takes pinned memory until its copies are done, so the host may not run ahead for ever.
        while len(self._under_way) > 1:
            self._under_way.popleft()[0].synchronize()
        # This is memory of the stream that computes: what it was asked so far may still read what was there.
        moved = [cupy.empty(x.shape, x.dtype) if isinstance(x, numpy.ndarray) else x for x in arrays]
        copied, pinned = cupy.cuda.Event(disable_timing=True), []
        try:
            self._stream.wait_event(cupy.cuda.get_current_stream().record())
            for source, target in zip(arrays, moved, strict=True):
                if source is not target:
                    pinned.append(cupyx.empty_pinned(source.shape, source.dtype))
                    pinned[-1][...] = source
                    target.set(pinned[-1], stream=self._stream)
            copied.record(self._stream)
        except BaseException:  # Ctrl-C, say: no memory is given back to which something is being copied
            self.close()
            raise
        self._under_way.append((copied, pinned))

        def ready() -> list:
            cupy.cuda.get_current_stream().wait_event(copied)
            return moved

        return ready

    def close(self) -> None:
        self._stream.synchronize()
        self._under_way.clear()


# The numbers of CUDA's errors, which the runtime and the driver share.
_OUT_OF_MEMORY = 2
_DRIVER_TOO_OLD = 35
_UNAVAILABLE = 46  # another process has it for itself
_LOST = {
    *(214, 220, 226),  # uncorrectable errors of memory, of NVLink, and such as were contained
    *(700, 702, 714, 715, 716, 717, 718, 719, 721),  # a kernel that went wrong, after which nothing works
    999,
}


def _explain_cuda(error: Exception) -> Exception | None:
    import cupy

    code = getattr(error, "status", None) if type(error).__name__.startswith("CUDA") else None
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    if isinstance(error, MemoryError) or code == _OUT_OF_MEMORY:
        pool, device = cupy.get_default_memory_pool(), cupy.cuda.Device()
        free, total = device.mem_info
        held, used = pool.total_bytes(), pool.used_bytes()
        # The arrays of the calls that did not come to their end, and what plans held for them.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        pool.free_all_blocks()
        return OutOfDeviceMemoryError(
            f"what is computed must fit into the memory of cuda:{device.id}, but: {text}. Of its {total:,} "
            f"bytes {free:,} were free, and CuPy held {held:,}, of which arrays used {used:,}. Make the "
            "batches smaller (batch_size of `fit` and `predict`), or the network."
        )
    if code == _DRIVER_TOO_OLD:
        return DeviceUnavailableError(_old_driver() or f"the NVIDIA driver is too old: {text}. Update it.")
    if code == _UNAVAILABLE:
        return DeviceUnavailableError(
            f"the GPU cannot be used: {text}. `nvidia-smi` shows which program has it; end that one, or wait."
        )
    if code in _LOST:
        return DeviceLostError(
            f"the GPU stopped working for this process: {text}. Start the program anew, a training from its "
            "last checkpoint (resume of `fit`). If it happens again, look at `nvidia-smi -q` and the log of "
            "the system."
        )
    return None


def _find_torch_device(name: str) -> Any:
    import torch

    try:
        # A small array has a full device, "cuda:0" for "cuda", and shows that the device works.
        return torch.empty(0, device=name or "cpu").device
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise DeviceUnavailableError(f'PyTorch cannot use "{name}" here: {first_line}') from None


def _torch_specs() -> list[str]:
    import torch

    return ["torch:cpu", *(f"torch:cuda:{number}" for number in range(torch.cuda.device_count()))]


def _find_jax_device(name: str) -> Any:
    import jax

    platform, _, number = name.partition(":")
    if platform.isdecimal():
        platform, number = "", name
    try:
        devices = jax.devices(platform or None)
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise DeviceUnavailableError(f'JAX cannot use "{name}" here: {first_line}') from None
    return devices[_number(number, len(devices), f"jax:{platform}" if platform else "jax")]


def _jax_specs() -> list[str]:
    import jax

    return [f"jax:{device.platform}:{device.id}" for device in jax.devices()]


def _find_strict_device(name: str) -> Any:
    import array_api_strict

    try:
        return array_api_strict.Device(name or "CPU_DEVICE")
    except ValueError:
        specs = ", ".join(_strict_specs())
        raise DeviceUnavailableError(f'array-api-strict has no device "{name}". It has: {specs}.') from None


def _strict_specs() -> list[str]:
    import array_api_strict

    known: Any = array_api_strict.__array_namespace_info__().devices()
    return ["strict", *(f"strict:{device._device}" for device in known[1:])]


def _torch_to_numpy(x: Any) -> numpy.ndarray:
    import torch

    return (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True)  # NumPy has no bfloat16


def _strict_to_numpy(x: Any) -> numpy.ndarray:
    import array_api_strict

    return numpy.asarray(x.to_device(array_api_strict.Device("CPU_DEVICE")))


def _numpy_broadcast_to(x: Any, /, shape: tuple[int, ...]) -> numpy.ndarray:
    if x.shape != ():
        return numpy.broadcast_to(x, shape)
    view = numpy.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    view.flags.writeable = False
    return view


def _numpy_matmul(x1: Any, x2: Any, /) -> numpy.ndarray:
    matrices = type(x1) is type(x2) is numpy.ndarray and x1.ndim == x2.ndim == 2
    return numpy.dot(x1, x2) if matrices else numpy.matmul(x1, x2)


def _numpy_reshape(x: Any, /, shape: tuple[int, ...], *, copy: bool | None = None) -> numpy.ndarray:
    return x.reshape(shape) if copy is None else numpy.reshape(x, shape, copy=copy)


# `sum` and its like call these reductions after a microsecond in Python; `dot` calls BLAS as `matmul` does.
_NUMPY_QUICK: dict[str, Callable] = {
    "broadcast_to": _numpy_broadcast_to,
    "matmul": _numpy_matmul,
    "max": partial(numpy.maximum.reduce, axis=None),
    "min": partial(numpy.minimum.reduce, axis=None),
    "prod": partial(numpy.multiply.reduce, axis=None),
    "reshape": _numpy_reshape,
    "sum": partial(numpy.add.reduce, axis=None),
}


def _compat(name: str) -> Callable[[], Any]:
    return lambda: importlib.import_module(f"array_api_compat.{name}")


def _jax_namespace() -> Any:
    import jax.numpy

    return jax.numpy


def _strict_namespace() -> Any:
    import array_api_strict

    return array_api_strict


LIBRARIES = (
    Library(
        name="NumPy",
        spec="cpu",
        module="numpy",
        install="pip install numpy",
        namespace=_compat("numpy"),
        find_device=_find_numpy_device,
        device_specs=lambda: ["cpu"],
        to_numpy=lambda x: x,
        special="scipy.special",
        quick=_NUMPY_QUICK,
    ),
    Library(
        name="CuPy",
        spec="cuda",
        module="cupy",
        install='pip install "xpnet[cuda13]"  (or cuda12)',
        namespace=_compat("cupy"),
        find_device=_find_cuda_device,
        device_specs=_cuda_specs,
        to_numpy=lambda x: x.get(),
        special="cupyx.scipy.special",
        free_memory=_cuda_free_memory,
        uploads=_CudaUploads,
        explain=_explain_cuda,
    ),
    Library(
        name="PyTorch",
        spec="torch",
        module="torch",
        install="pip install torch",
        namespace=_compat("torch"),
        find_device=_find_torch_device,
        device_specs=_torch_specs,
        to_numpy=_torch_to_numpy,
        special="torch.special",
    ),
    Library(
        name="JAX",
        spec="jax",
        module="jax",
        install="pip install jax",
        namespace=_jax_namespace,
        find_device=_find_jax_device,
        device_specs=_jax_specs,
        to_numpy=numpy.asarray,
        special="jax.scipy.special",
    ),
    Library(
        name="array-api-strict",
        spec="strict",
        module="array_api_strict",
        install="pip install array-api-strict",
        namespace=_strict_namespace,
        find_device=_find_strict_device,
        device_specs=_strict_specs,
        to_numpy=_strict_to_numpy,
        special="",
    ),
)

_BY_SPEC = {library.spec: library for library in LIBRARIES}


# -- device specs -----------------------------------------------------------------------------------------

_current: ContextVar[Device | None] = ContextVar("xpnet_device", default=None)


def device(spec: "str | Device | None" = None) -> Device:
    """Find a device by its spec.

    Parameters
    ----------
    spec : str, Device or None
        ``"cpu"`` (NumPy), ``"cuda"``, ``"cuda:1"`` (CuPy), ``"torch"``, ``"jax"`` or ``"strict"`` with an
        optional ``:device``, or ``"auto"``: CUDA where it is usable, else the CPU. None is the device of the
        innermost `use_device`, else the environment variable ``XPNET_DEVICE``, else ``"cpu"``.

    Returns
    -------
    Device

    Raises
    ------
    TypeError
        If the spec is no string.
    ValueError
        If there is no such spec.
    DeviceUnavailableError
        If this machine cannot use the device; the message says why and what would mend it.

    Examples
    --------
    >>> import xpnet
    >>> xpnet.device("cpu").spec
    'cpu'
    """
    if isinstance(spec, Device):
        return spec
    if spec is None:
        return _current.get() or _find(os.environ.get("XPNET_DEVICE") or "cpu")
    if not isinstance(spec, str):
        raise TypeError(f'a device spec must be a string such as "cpu" or "cuda:1", received {spec!r}.')
    return _find(spec)


@cache
def _find(spec: str) -> Device:
    if spec == "auto":
        return _find_auto()
    library_name, _, device_name = spec.partition(":")
    library = _BY_SPEC.get(library_name)
    if library is None:
        known = ", ".join(f'"{name}"' for name in (*_BY_SPEC, "auto"))
        raise ValueError(
            f'a device spec is one of {known}, with an optional ":device"; received "{spec}". '
            "`python -m xpnet` lists the devices of this machine."
        )
    problem = _problem(library)
    if problem:
        raise DeviceUnavailableError(f'the device "{spec}" was asked for, but {problem}')
    return Device(spec, library, library.namespace(), library.find_device(device_name))


@cache
def _find_auto() -> Device:
    problem = cuda_problem()
    if problem is None:
        return _find("cuda")
    _log.warning("xpnet: device auto is the CPU. %s", problem)
    return _find("cpu")


def _problem(library: Library) -> str | None:
    if library.spec == "cuda":
        return cuda_problem()
    if importlib.util.find_spec(library.module) is None:
        return f"{library.name} is not installed. `{library.install}` installs it."
    return None


@contextlib.contextmanager
def use_device(spec: str | Device | None) -> Iterator[Device]:
    """Make a device the default for all that is created inside a ``with`` block.

    Parameters
    ----------
    spec : str, Device or None
        See `device`.

    Examples
    --------
    >>> import xpnet
    >>> with xpnet.use_device("cpu") as device:
    ...     layer = xpnet.nn.Dense(2, 3)
    """
    found = device(spec)
    token = _current.set(found)
    try:
        with _entered(found), clear_errors():
            yield found
    finally:
        _current.reset(token)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Say what errors of a library mean for the device and for what to do, where xpnet knows it.

    Raises
    ------
    OutOfDeviceMemoryError, DeviceLostError, DeviceUnavailableError
        In place of the errors of the library, which are their cause.
    """
    try:
        yield
    except Exception as error:
        library = _library_of_type(type(error))  # type: ignore[arg-type]
        clear = library.explain(error) if library else None
        if clear is None:
            raise
        raise clear from error


def _entered(device: Device) -> contextlib.AbstractContextManager:
    """Return the context in which a library makes its arrays on a device.

    CuPy makes arrays on the current device of the thread, and ignores ``device=`` in most functions.
    """
    return device.native if device.library.spec == "cuda" else contextlib.nullcontext()


@dataclass(frozen=True)
class LibraryStatus:
    """What `devices` says about one library.

    Attributes
    ----------
    name : str
        The library.
    version : str or None
        Its version, None if it is not installed.
    devices : tuple of str
        The specs of its usable devices.
    problem : str or None
        Why it is not usable and the command that would mend it, or None.
    """

    name: str
    version: str | None
    devices: tuple[str, ...]
    problem: str | None


def devices() -> list[LibraryStatus]:
    """List the libraries that xpnet knows, with their usable devices on this machine.

    Returns
    -------
    list of LibraryStatus
        One entry a library, NumPy first.

    Examples
    --------
    >>> import xpnet
    >>> [status.name for status in xpnet.devices()]
    ['NumPy', 'CuPy', 'PyTorch', 'JAX', 'array-api-strict']
    """
    return [_status(library) for library in LIBRARIES]


def _status(library: Library) -> LibraryStatus:
    version = None
    if importlib.util.find_spec(library.module) is not None:
        try:
            version = importlib.import_module(library.module).__version__
        except Exception as error:  # a broken installation must not break the table
            return LibraryStatus(library.name, None, (), f"{error}. `{library.install}` may mend it.")
    problem = _problem(library)
    if problem:
        return LibraryStatus(library.name, version, (), problem)
    try:
        return LibraryStatus(library.name, version, tuple(library.device_specs()), None)
    except Exception as error:
        return LibraryStatus(library.name, version, (), f"it cannot list its devices: {error}.")


# -- arrays -----------------------------------------------------------------------------------------------


@cache
def _library_of_type(kind: type) -> Library | None:
    # By the name of the module, so that no library is imported to ask.
    root = kind.__module__.partition(".")[0]
    root = {"jaxlib": "jax", "cupy_backends": "cupy"}.get(root, root)
    return next((library for library in LIBRARIES if library.module == root), None)


def library_of(x: Any) -> Library | None:
    """Return the library that an array belongs to, or None if it is no array of a known library."""
    return _library_of_type(type(x)) if tree.is_array(x) else None  # type: ignore[arg-type]


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
    if library.spec == "cpu":
        return _find("cpu")
    native = array_api_compat.device(x)
    if native is None:  # inside `jax.jit`, arrays have no device
        return Device(library.spec, library, library.namespace(), native)
    spec = {
        "cuda": lambda: f"cuda:{native.id}",
        "torch": lambda: f"torch:{native}",
        "jax": lambda: f"jax:{native.platform}:{native.id}",
        "strict": lambda: f"strict:{native._device}",
    }[library.spec]()
    return Device(spec, library, library.namespace(), native)


def asarray(x: Any, *, device: str | Device | None = None, dtype: Any = None) -> Any:
    """Make an array on a device from an array of any library, a sequence or a number.

    Parameters
    ----------
    x : array, sequence or number
        Anything that NumPy can read, or an array of another library.
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
    ValueError
        If there is no such dtype.

    Examples
    --------
    >>> import xpnet
    >>> xpnet.asarray([1, 2, 3], device="cpu", dtype="float32")
    array([1., 2., 3.], dtype=float32)
    """
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
        host = numpy.asarray(x if source is None else source.to_numpy(x))
        if name is not None and hasattr(numpy, name):
            host = host.astype(name, copy=False)  # before the move, as not every device has float64
        moved = xp.asarray(_readable(host, target.library), device=target.native)
    if dtype is None or moved.dtype == dtype:
        return moved
    with _entered(target):
        return xp.astype(moved, dtype)


def _converted(x: Any, device: str | Device | None, dtype: Any) -> Any:
    """Convert an array that is not of a library listed here, such as a traced one, by its own means."""
    xp = x.__array_namespace__()
    plain = x.value if hasattr(x, "node") else x
    if device is not None and library_of(plain) not in (None, _device(device).library):
        raise MixedArraysError(
            f"a traced array stays with its library, received one of {describe(plain)} and the device "
            f'"{_device(device).spec}". Move it before its gradient is traced, or take '
            "xpnet.to_numpy(xpnet.stop_gradient(x)) if no gradient shall flow through here."
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


def _readable(host: numpy.ndarray, library: Library) -> numpy.ndarray:
    """Return an array that a library can read: PyTorch knows no read-only memory and no negative strides."""
    host = host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("="))
    if library.spec == "torch" and (not host.flags.writeable or any(stride < 0 for stride in host.strides)):
        return host.copy()
    return host


_device = device  # `asarray` and `to_device` have a parameter of that name


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


def concrete(x: Any) -> Any:
    """Return the library's array inside a traced or recorded one; any other as it is."""
    while isinstance(x, ArrayObject):
        x = x.value
    return x


def plain_namespace(x: Any) -> Any:
    """Return the standard namespace of an array of any library, known to xpnet or not."""
    x = concrete(x)
    found = _namespaces.get(type(x))
    if found is None:
        found = _namespaces[type(x)] = array_api_compat.array_namespace(x)
    return found


_namespaces: dict[type, Any] = {}


def _library_of_namespace(xp: Any) -> Library | None:
    root = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    return next((library for library in LIBRARIES if library.module == root), None)


def quick_functions(xp: Any) -> dict[str, Callable]:
    """Return functions that do the same as those of a namespace and cost less a call."""
    library = _library_of_namespace(xp)
    return library.quick if library else {}


def special_functions(xp: Any) -> Any:
    """Return the special functions (``erf``, ``gammaln``, …) for the arrays of a namespace.

    They are those of SciPy, of CuPy's copy of it, or the library's own. For any other library they run on the
    host, through SciPy.

    Raises
    ------
    AttributeError
        If SciPy is needed and not installed.
    """
    library = _library_of_namespace(xp)
    module = library.special if library else ""
    try:
        return importlib.import_module(module) if module else _OnHost("scipy.special")
    except ImportError:
        raise AttributeError("special functions need SciPy. `pip install scipy` installs it.") from None


class _OnHost:
    """The functions of a module for NumPy arrays, for arrays of any library."""

    def __init__(self, module: str) -> None:
        self._module = importlib.import_module(module)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)

        def on_host(*inputs: Any, **options: Any) -> Any:
            where = next(device_of(x) for x in inputs if library_of(x))
            return asarray(function(*to_numpy(list(inputs)), **options), device=where)

        return on_host


def describe(x: Any) -> str:
    """Name the library and the device of an array, for error messages."""
    x = concrete(x)
    library = library_of(x)
    return f"{library.name} on {device_of(x).spec}" if library else type(x).__name__


def numpy_dtype(dtype: Any, where: Device) -> numpy.dtype:
    """Return the dtype of NumPy for one of a device's library; float32 for what NumPy does not have."""
    with _entered(where):
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
