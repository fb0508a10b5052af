"""Checks of settings. Each returns the setting as Python's, or raises an error that says what must hold.

Numbers of NumPy's and arrays of shape () are numbers, too. They become Python's: one from `numpy.logspace`,
say, would turn float32 arrays into float64, and a module would take it for a parameter. True and "0.1" are no
numbers, and NaN and infinity are no settings.
"""

from dataclasses import fields
from math import isfinite
from numbers import Integral, Real
from typing import Any


def is_integer(value: Any) -> bool:
    """Say whether a value is an integer of any library, and no bool."""
    return _is(value, Integral, "int")


def is_number(value: Any) -> bool:
    """Say whether a value is a real number of any library, and no bool."""
    return _is(value, Real, "int", "float")


def is_bool(value: Any) -> bool:
    """Say whether a value is True or False of any library."""
    return isinstance(value, bool) or (getattr(value, "shape", None) == () and "bool" in str(value.dtype))


def _is_finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond all floating-point numbers
        return False


def _is(value: Any, kind: type, *dtypes: str) -> bool:
    if getattr(value, "shape", None) == ():  # of libraries whose dtypes have nothing in common but names
        return any(name in str(value.dtype) for name in dtypes)
    return isinstance(value, kind) and not isinstance(value, bool)


def number(name: str, value: Any) -> float:
    _check(name, value, "a finite number", is_number(value) and _is_finite(value))
    return float(value)


def at_least_zero(name: str, value: Any) -> float:
    _check(name, value, "at least 0", number(name, value) >= 0)
    return float(value)


def positive(name: str, value: Any) -> float:
    _check(name, value, "positive", number(name, value) > 0)
    return float(value)


def fraction(name: str, value: Any) -> float:
    _check(name, value, "at least 0 and less than 1", 0 <= number(name, value) < 1)
    return float(value)


def up_to_one(name: str, value: Any) -> float:
    _check(name, value, "from 0 to 1", 0 <= number(name, value) <= 1)
    return float(value)


def integer(name: str, value: Any) -> int:
    _check(name, value, "an integer", is_integer(value))
    return int(value)


def count(name: str, value: Any, *, least: int = 1) -> int:
    must = "a positive integer" if least == 1 else f"an integer of at least {least}"
    # An integer among the arguments of a function under `jit` is compared as one of Python's alone.
    _check(name, value, must, is_integer(value) and int(value) >= least)
    return int(value)


def counts(name: str, values: Any) -> tuple[int, ...]:
    holds = isinstance(values, tuple | list) and all(is_integer(value) and value >= 1 for value in values)
    _check(name, values, "a tuple of positive integers", holds)
    return tuple(int(value) for value in values)


def flag(name: str, value: Any) -> bool:
    _check(name, value, "True or False", is_bool(value))
    return bool(value)


def as_python(value: Any) -> Any:
    """Return a number, or True or False, as Python's; anything else as it is."""
    if is_bool(value):
        return bool(value)
    if is_integer(value):
        return int(value)
    return float(value) if is_number(value) else value


def make_python(settings: Any) -> None:
    """Make all numbers in the fields of a dataclass Python's, also if it is frozen."""
    for field in fields(settings):
        object.__setattr__(settings, field.name, as_python(getattr(settings, field.name)))


def described(value: Any) -> str:
    """Return how an error names what was received in place of something that is no number."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return repr(value) if value is None or isinstance(value, str | bool) else type(value).__name__


def _check(name: str, value: Any, must: str, holds: Any) -> None:
    if not holds:
        raise ValueError(f"{name} must be {must}, received {value!r}.")
