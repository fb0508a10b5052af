"""What xpnet knows of an array library, and of a device of one."""

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy

from xpnet.errors import DeviceUnavailableError


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
    spec_of : callable
        From the library's own device to its spec.
    to_numpy : callable
        Copies or views an array as a NumPy array.
    special : str
        The module of its special functions; empty if it has none.
    problem : callable, optional
        Says why the library cannot be used here, or returns None. Without it, one that is installed can.
    entered : callable
        From the library's own device to a context in which the library makes its arrays there.
    readable : callable
        From a NumPy array to one that the library can read.
    quick : dict of str to callable
        Functions of the namespace by name, said in a way that costs less a call, for correct arguments.
    free_memory : callable
        From the library's own device to the bytes that are free there; None where data stay on the host.
    uploads : callable, optional
        Makes an object whose ``begin(arrays)`` begins to copy those that are NumPy's to the current device,
        and returns a function that returns all of them for what is computed next; ``close()`` waits for what
        is under way. Without it, arrays are copied when they are needed.
    defaults : callable, optional
        Returns what else its functions go by, such as the dtype of what they make; to be compared and hashed.
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
    spec_of: Callable[[Any], str]
    to_numpy: Callable[[Any], numpy.ndarray]
    special: str
    problem: Callable[[], str | None] | None = None
    entered: Callable[[Any], contextlib.AbstractContextManager] = contextlib.nullcontext
    readable: Callable[[numpy.ndarray], numpy.ndarray] = lambda host: host
    quick: dict[str, Callable] = field(default_factory=dict, hash=False, compare=False)
    free_memory: Callable[[Any], int | None] = lambda _native: None
    uploads: Callable[[], Any] | None = None
    defaults: Callable[[], Hashable] | None = None
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


def number_of_device(name: str, count: int, library: str) -> int:
    """Return the number in a spec such as ``"cuda:1"``, where a library numbers its devices."""
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
