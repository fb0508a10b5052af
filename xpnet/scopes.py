"""Context variables that have a value inside a ``with`` block."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def having(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Let a context variable have a value inside a ``with`` block, and behind it the one of before.

    The variable must have a default. The handler of a signal may raise behind any call, also that which sets
    the value. So it is inside the ``try``, and what it returns, which would be lost then, is not needed.
    """
    before = variable.get()
    try:
        variable.set(value)
        yield
    finally:
        variable.set(before)
