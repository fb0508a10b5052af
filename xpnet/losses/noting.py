"""What can be noted of losses that are called inside another function."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

from xpnet.arrays import concrete
from xpnet.scopes import having

Call: TypeAlias = tuple[Callable[..., Any], Any, Any]
Denominator: TypeAlias = tuple[Any, Any, bool]
T = TypeVar("T")

_calls: ContextVar[list[Call] | None] = ContextVar("_calls", default=None)
_denominators: ContextVar[list[Denominator] | None] = ContextVar("_denominators", default=None)


def noted_calls() -> AbstractContextManager[list[Call]]:
    """Note the losses on logits that are called inside a ``with`` block, with their logits and targets.

    A loss with settings that its check of targets reads, such as ``ignore_index``, is a `functools.partial`.
    """
    return _noted_in(_calls)


def noted_denominators() -> AbstractContextManager[list[Denominator]]:
    """Note of each mean inside a ``with`` block what was divided by, so that means can be put together.

    Noted is ``(result, denominator, weighted)``: the very array that the loss returns, an integer of Python's
    or an array of shape (), and whether that depends on values, those of weights or labels, and not on shapes
    alone. The mean of several batches is ``sum(result * denominator) / sum(denominator)``. Of a loss that
    returns a sum, which was divided by nothing, the denominator is None.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import losses
    >>> with losses.noted_denominators() as noted:
    ...     value = losses.mse(np.asarray([1.0, 2.0]), np.asarray([1.0, 5.0]), sample_weight=[1.0, 3.0])
    >>> (result, denominator, weighted), = noted
    >>> result is value, float(denominator), weighted
    (True, 4.0, True)
    """
    return _noted_in(_denominators)


@contextlib.contextmanager
def _noted_in(variable: ContextVar[list[T] | None]) -> Iterator[list[T]]:
    noted: list[T] = []
    with having(variable, noted):
        yield noted


def note_call(loss: Callable[..., Any], logits: Any, targets: Any) -> None:
    noted = _calls.get()
    if noted is not None:
        noted.append((loss, concrete(logits), concrete(targets)))


def note_denominator(result: Any, denominator: Any, weighted: bool) -> None:
    noted = _denominators.get()
    if noted is not None:
        noted.append((result, denominator, weighted))
