"""From a device spec such as ``"cuda:1"`` to the device, and what can be used on this machine."""

import contextlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

from xpnet.backends.cupy import CUPY, cuda_problem
from xpnet.backends.jax import JAX
from xpnet.backends.library import Device, Library
from xpnet.backends.numpy import NUMPY
from xpnet.backends.strict import STRICT
from xpnet.backends.torch import TORCH
from xpnet.errors import DeviceUnavailableError
from xpnet.scopes import having

_log = logging.getLogger("xpnet")

LIBRARIES = (NUMPY, CUPY, TORCH, JAX, STRICT)

_BY_SPEC = {library.spec: library for library in LIBRARIES}

_current: ContextVar[Device | None] = ContextVar("xpnet_device", default=None)


def device(spec: "str | Device | None" = None) -> Device:
    """Find a device by its spec.

    Parameters
    ----------
    spec : str, Device or None
        ``"cpu"`` (NumPy), ``"cuda"``, ``"cuda:1"`` (CuPy), ``"torch"``, ``"jax"`` or ``"strict"`` with an
        optional ``:device``, or ``"auto"``: CUDA where it is usable, else the CPU. None is the device of the
        innermost `use_device`, else the environment variable ``XPNET_DEVICE``, else ``"cpu"``. Of processes
        that ``mpiexec`` or Slurm started, each has another GPU as ``"cuda"``, as far as there are enough.

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
    _log.warning("xpnet: device auto is the CPU: %s", problem)
    return _find("cpu")


def _problem(library: Library) -> str | None:
    if library.problem is not None:
        return library.problem()
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
    with having(_current, found), found.library.entered(found.native), clear_errors():
        yield found


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
        library = library_of_type(type(error))  # type: ignore[arg-type]
        clear = library.explain(error) if library else None
        if clear is None:
            raise
        raise clear from error


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


@cache
def library_of_type(kind: type) -> Library | None:
    """Return the library that has a type, of arrays or of errors."""
    # By the name of the module, so that no library is imported to ask.
    root = kind.__module__.partition(".")[0]
    root = {"jaxlib": "jax", "cupy_backends": "cupy"}.get(root, root)
    return next((library for library in LIBRARIES if library.module == root), None)
