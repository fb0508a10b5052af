"""A warning where a function that is recorded draws random numbers of the host, or asks for the time.

What these return is a constant of the recording. While something is recorded, functions that say so stand in
their place. Nothing of Python's own tells of such calls: a profile function doubles the time that recording
takes, and does not see NumPy's functions, which Cython compiled; `sys.monitoring` is there from 3.12 on.
"""

import contextlib
import ctypes
import datetime
import functools
import gc
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy

from xpnet.arrays import calling_line, is_machinery
from xpnet.autodiff.namespace import active_recording

_log = logging.getLogger("xpnet")

# What of a generator of NumPy's draws nothing.
_STATE = frozenset({"bit_generator", "get_state", "seed", "set_state", "spawn"})

_CLOCKS = ("monotonic", "perf_counter", "process_time", "thread_time", "time")

_NOTHING = object()


class _Place:
    """Where a function stands, and what stands there while something is recorded."""

    def __init__(self, owner: ModuleType | type, name: str, what: str) -> None:
        self._kind = owner if isinstance(owner, type) else None
        # The functions of a class that is written in C are in a dict as well, behind what `vars` shows.
        self._names = gc.get_referents(vars(owner))[0] if self._kind else vars(owner)
        self._name = name
        self._before = self._names.get(name, _NOTHING)  # a class may inherit it
        original = getattr(owner, name) if self._before is _NOTHING else self._before
        self._replacement = _saying(original, what)

    def replace(self) -> None:
        self._put(self._replacement)

    def restore(self) -> None:
        self._put(self._before)

    def _put(self, function: Any) -> None:
        if function is _NOTHING:
            del self._names[self._name]
        else:
            self._names[self._name] = function
        if self._kind:  # Python remembers which function a name stands for
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(self._kind))


def _saying(original: Callable, what: str) -> Any:
    """Return a function that does the same, and says that it is called while something is recorded."""

    def call(*arguments: Any, **options: Any) -> Any:
        _say(what)
        return original(*arguments, **options)

    functools.update_wrapper(call, original)
    return classmethod(call) if type(original).__name__ == "classmethod_descriptor" else call


def _say(what: str) -> None:
    recording: Any = active_recording.get()  # none in another thread
    if recording is None:
        return
    frame: Any = sys._getframe(2)
    if what.startswith("time.") and is_machinery(frame):
        return  # a line of a log has its time
    while is_machinery(frame) and frame.f_back and not _is_ours(frame):
        frame = frame.f_back
    line = calling_line()
    if _is_ours(frame) or line in recording.drawn:
        return
    recording.drawn.add(line)
    _log.warning(
        "xpnet: %s is called when jit records a function and not when it is replayed: each later call uses "
        "what it returned now. Draw random numbers with xpnet.random, and pass what changes as an argument. "
        "It is called at %s",
        what,
        line,
    )


def _is_ours(frame: Any) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] == "xpnet"


@functools.cache
def _places() -> list[_Place]:
    of_numpy = [name for name, x in vars(numpy.random).items() if _draws(getattr(x, "__self__", None))]
    names: list[tuple[Any, str, list[str]]] = [(numpy.random, "numpy.random", of_numpy)]
    for kind in (numpy.random.RandomState, numpy.random.Generator):
        methods = [name for name, x in vars(kind).items() if callable(x) and not name.startswith("_")]
        names.append((kind, f"numpy.random.{kind.__name__}", methods))
    for owner, what in ((random, "random"), (random.Random, "random.Random")):
        names.append((owner, what, ["gauss", "getrandbits", "random"]))  # of which all others are made
    clocks = [name for name in vars(time) if name.removesuffix("_ns") in _CLOCKS]
    names += [
        (os, "os", ["urandom"]),
        (time, "time", clocks),
        (datetime.datetime, "datetime.datetime", ["now", "utcnow"]),
        (datetime.date, "datetime.date", ["today"]),
    ]
    found = [
        _Place(owner, name, f"{what}.{name}")
        for owner, what, each in names
        for name in each
        if name not in _STATE
    ]
    return [*found, _Place(random, "_urandom", "os.urandom")]  # the one of `secrets`


def _draws(x: Any) -> bool:
    return isinstance(x, numpy.random.RandomState)


_lock = threading.Lock()
_recordings = 0


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may hold the lock then
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def frozen_values_are_told() -> Iterator[None]:
    """Warn, in a ``with`` block in which a function is recorded, of what a replay would not do anew."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    """Replace the functions for the first of several threads that record, and restore them for the last."""
    global _recordings
    with _lock:
        _recordings += change
        if _recordings == (1 if change > 0 else 0):
            for place in _places():
                place.replace() if change > 0 else place.restore()
