"""Arrays of modules that a function reads from outside, which a recording refuses.

`jit(lambda x: net(x))` would go on with the arrays that the network had when it was recorded, and a loss that
adds up the weights of the network in training would have no gradient for them. While such a function is
recorded, the modules that it can reach hand out a stand-in for each of their arrays. It has a shape and a
dtype, and says what to do when anything else is asked for.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from xpnet import tree
from xpnet.arrays import ArrayObject, calling_line
from xpnet.errors import NotRecordableError
from xpnet.scopes import having


class ArrayFromOutsideError(NotRecordableError):
    """An array of a module was read from outside."""

    def __init__(self, owner: str) -> None:
        self.owner, self.line = owner, calling_line()
        super().__init__(
            f"an array that may change must be an argument of a function under xpnet.jit, received {owner} "
            f"from outside, at {self.line}. The recording would not see later changes. Pass the network as "
            "an argument."
        )


class FromOutside(ArrayObject):
    """An array of a module that is no argument."""

    __slots__ = ("_owner",)

    def __init__(self, value: Any, owner: str) -> None:
        self.value = value
        self._owner = owner

    @property
    def namespace(self) -> Any:  # type: ignore[override]
        raise ArrayFromOutsideError(self._owner)

    def _leave(self, _what: str) -> Any:
        raise ArrayFromOutsideError(self._owner)

    def __copy__(self) -> "FromOutside":
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ArrayFromOutsideError(self._owner)


# The arrays that are refused in what is being recorded, by their identity, with names for people.
_refused: ContextVar[dict[int, str] | None] = ContextVar("xpnet_refused", default=None)
_recordings: set[object] = set()  # in all threads
_lock = threading.Lock()


def _after_fork() -> None:
    """Forget what other threads record: a child has none."""
    global _recordings, _lock
    _recordings, _lock = set(), threading.Lock()
    if "__getattribute__" in vars(tree.Branch):
        del tree.Branch.__getattribute__


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def refused(owned: dict[int, str]) -> Iterator[None]:
    """Let modules hand out stand-ins for some arrays. It takes time at each of their attributes."""
    if not owned:
        yield
        return
    global _recordings
    recording = object()
    with having(_refused, owned):
        try:
            with _lock:
                _recordings |= {recording}
                tree.Branch.__getattribute__ = _attribute  # type: ignore[method-assign, assignment]
            yield
        finally:
            # Nothing is called here: behind a call, the handler of a signal may raise.
            with _lock:
                _recordings -= {recording}
                if not _recordings and "__getattribute__" in tree.Branch.__dict__:
                    del tree.Branch.__getattribute__


def _attribute(branch: Any, name: str) -> Any:
    value = object.__getattribute__(branch, name)
    owned = _refused.get()
    return _stand_in(value, owned) if owned and tree.is_child(value) else value


def _stand_in(value: Any, owned: dict[int, str]) -> Any:
    """Put stand-ins in the places of arrays, but not in modules, which do so themselves."""
    leaves, structure = tree.flatten(value, state=True, is_leaf=lambda part: isinstance(part, tree.Branch))
    if not any(id(leaf) in owned for leaf in leaves):
        return value
    return tree.unflatten(
        structure, [FromOutside(leaf, owned[id(leaf)]) if id(leaf) in owned else leaf for leaf in leaves]
    )
