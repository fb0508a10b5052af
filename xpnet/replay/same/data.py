"""Numbers, texts and containers of them, described so that the same ones are equal."""

import functools
import operator
from collections.abc import Callable, Hashable
from dataclasses import fields
from itertools import chain
from typing import Any

import numpy

from xpnet.backends import Device
from xpnet.replay.same.objects import is_installed


class Identity:
    """An object that is compared by its identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


_BY_VALUE = frozenset({type(None), bool, int, str, bytes, type(...), type(NotImplemented), range})


class NotDataError(Exception):
    """Something is neither a number nor a text, nor a container of such."""


def _refuse(_value: Any) -> Any:
    raise NotDataError


def data(value: Any, other: Callable[[Any], Any] = _refuse) -> Any:
    """Describe numbers, texts and containers of them: equal for the same ones, and to be hashed.

    To Python, 1, 1.0 and True are equal, as are 0.0 and -0.0, dicts of another order and sets of another
    order, while NaN is not equal to itself. Here it is the other way round.

    Parameters
    ----------
    value : object
    other : callable, optional
        Describes what is none of these. By default, `NotDataError` is raised.
    """
    kind: Any = type(value)
    if kind in _BY_VALUE:
        return kind, value
    if kind is float:
        return kind, value.hex()
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if kind in (list, tuple, set, frozenset):
        return kind, tuple([data(item, other) for item in value])
    if kind is dict:
        return kind, tuple([(data(key, other), data(item, other)) for key, item in value.items()])
    if kind is slice:
        return kind, data((value.start, value.stop, value.step), other)
    if kind is Device:
        return kind, value.spec
    if isinstance(value, numpy.dtype):
        return numpy.dtype, repr(value)
    if names := settings_of(kind):
        return kind, tuple([data(getattr(value, name), other) for name in names])
    return other(value)


@functools.cache
def settings_of(kind: Any) -> tuple[str, ...]:
    """Return the fields of xpnet's own classes of settings, such as optimizers."""
    parameters = getattr(kind, "__dataclass_params__", None)
    frozen = parameters is not None and parameters.frozen and is_installed(kind)
    return tuple(field.name for field in fields(kind)) if frozen else ()


def is_constant(value: Any) -> bool:
    """Say whether data can never change."""
    kind: Any = type(value)
    if kind in (tuple, frozenset):
        return all(map(is_constant, value))
    if names := settings_of(kind):
        return all(is_constant(getattr(value, name)) for name in names)
    return kind not in (list, set, dict)


def snapshot(value: Any) -> list | None:
    """Return the items of a container, if none of them can change; None if one can."""
    items = [*value, *value.values()] if type(value) is dict else [*value]
    return items if all(map(is_constant, items)) else None


def has_items(value: Any, kind: Any, items: list) -> bool:
    """Say whether a container has the very items of a snapshot, which takes a fraction of describing them."""
    if type(value) is not kind:
        return False
    found = chain.from_iterable((value, value.values())) if kind is dict else iter(value)
    number = len(value) * (2 if kind is dict else 1)
    return number == len(items) and all(map(operator.is_, found, items))


def data_of_array(x: Any) -> Hashable:
    """Describe a NumPy array by its values."""
    values = data(x.tolist(), Identity) if x.dtype.hasobject else x.tobytes()
    return type(x), x.shape, x.dtype, values


def data_or_none(value: Any) -> Any:
    try:
        return data(value)
    except (NotDataError, RecursionError):
        return None
