"""What holds inside a ``with`` block: the class of the traced namespaces, and what records.

Functions ask for the namespace of their arrays, and it is chosen by what is in use here. So those who put
another one in its place, `xpnet.raise_on_nan` and `xpnet.jit`, need not be known where it is chosen.
"""

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from xpnet.scopes import having


class Context(NamedTuple):
    """What namespaces are in use.

    Attributes
    ----------
    kind : callable or None
        The class of traced namespaces; None for the usual one.
    recording : namespace or None
        Stands for that of its library: plain arrays that are met on the way are constants of it.
    namespaces : dict of namespace to TracedNamespace
        Those that were made, by what they wrap. Others are made in the next ``with`` block.
    """

    kind: Callable[[Any], Any] | None
    recording: Any
    namespaces: dict[Any, Any]


_USUAL = Context(None, None, {})
_current: ContextVar[Context] = ContextVar("xpnet_context", default=_USUAL)

current: Callable[[], Context] = _current.get


def is_usual() -> bool:
    """Say whether nothing is in the place of the usual namespaces."""
    return _current.get() is _USUAL


def using(
    *, kind: Callable[[Any], Any] | None = None, recording: Any = None
) -> contextlib.AbstractContextManager[None]:
    """Use other traced namespaces, or a namespace that records, inside a ``with`` block."""
    return having(_current, Context(kind, recording, {}))


def outside_of_recording() -> contextlib.AbstractContextManager[None]:
    """Compute with plain arrays as if nothing recorded, in a function that is recorded whole."""
    return contextlib.nullcontext() if _current.get().recording is None else having(_current, _USUAL)


def recording_of(xp: Any) -> Any:
    """Return the namespace that records the calls of a library's functions, or the library's own."""
    recording = _current.get().recording
    return recording if recording is not None and recording._xp is xp else xp
