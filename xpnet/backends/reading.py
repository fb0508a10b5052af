"""Arrays of numbers from data as people have them: lists, masked arrays, data frames, arrays of objects."""

import sys
from collections.abc import Iterable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from math import nan
from numbers import Integral, Real
from typing import Any

import numpy

# How many columns an error names.
_NAMED = 5

_BOOLS = (bool, numpy.bool_)


def as_numbers(data: Any, name: str = "x") -> numpy.ndarray:
    """Return data as a NumPy array of numbers.

    Parameters
    ----------
    data : array, data frame, sequence or number
        What NumPy can read. Columns of a data frame and arrays of objects may hold numbers of several kinds;
        a missing number in a column of numbers becomes NaN, as it does in scikit-learn.
    name : str, default="x"
        What error messages call it.

    Returns
    -------
    numpy.ndarray
        The same array, if it is one.

    Raises
    ------
    TypeError
        If something is no number, or is masked.
    ValueError
        If rows are not equally long.
    """
    data = unmasked(data, name)
    try:
        array = data if isinstance(data, numpy.ndarray) else numpy.asarray(data)
    except ValueError as error:
        raise ValueError(
            f"{name} must hold numbers in rows of equal length, received rows that differ: {error}. Fill "
            'them up to one length; several inputs are a dict, {"a": a, "b": b}.'
        ) from None
    is_frame = hasattr(data, "columns") and hasattr(data, "dtypes")
    if _holds_numbers(array) and (not is_frame or hasattr(data, "items")):  # polars makes numbers of dates
        return array
    if is_frame:
        return _table(data, name)
    try:
        return _numbers(data, array)
    except _NoNumbersError as error:
        raise TypeError(f"{name} must hold numbers in rows of equal length, received {error}") from None


def unmasked(data: Any, name: str = "x") -> Any:
    """Return the elements of a masked array if none is masked; other data as they are.

    Raises
    ------
    TypeError
        If an element is masked, also in an array of a list, whose mask NumPy would drop.
    """
    kind = type(data)
    may_be = kind is not numpy.ndarray and issubclass(kind, (numpy.ndarray, list, tuple))
    if not may_be or "numpy.ma" not in sys.modules:
        return data
    parts: Any = (data,) if issubclass(kind, numpy.ndarray) else data
    if not any(issubclass(each, numpy.ma.MaskedArray) for each in set(map(type, parts))):
        return data
    number = sum([int(numpy.ma.count_masked(x)) for x in parts if isinstance(x, numpy.ma.MaskedArray)])
    if number:
        raise TypeError(
            f"{name} must hold a number at each place, received a MaskedArray in which {number} are masked. "
            "Pass x.filled(value), or leave out the examples."
        )
    return numpy.ma.getdata(data) if isinstance(data, numpy.ma.MaskedArray) else data


def _holds_numbers(array: numpy.ndarray) -> bool:
    # Of the kind "V" are records, and numbers of ml_dtypes, such as bfloat16.
    kind = array.dtype.kind
    return kind in "biufc" or (kind == "V" and not issubclass(array.dtype.type, numpy.void))


class _NoNumbersError(Exception):
    """Says what was received in place of numbers."""

    def __init__(self, received: str, instead: str) -> None:
        super().__init__(f"{received}. {instead}")
        self.received, self.instead = received, instead


def _table(frame: Any, name: str) -> numpy.ndarray:
    """Return the columns of a data frame, of which each may hold numbers of another kind."""
    columns, others = [], []
    for key, column in _columns(frame):
        try:
            columns.append(_numbers(column, numpy.asarray(column)))
        except _NoNumbersError as error:
            others.append((key, error))
    if others:
        received = [f"{error.received} in column {key!r}" for key, error in others]
        more = f" and {len(received) - _NAMED} more" if len(received) > _NAMED else ""
        instead = " ".join(dict.fromkeys(error.instead for _, error in others))
        shown = ", ".join(received[:_NAMED]) + more
        raise TypeError(f"{name} must hold numbers in each column, received {shown}. {instead}")
    return numpy.stack(columns, axis=1) if columns else numpy.empty((len(frame), 0))


def _columns(frame: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the names and columns of a data frame of pandas, where two may have one name, or of polars."""
    yield from frame.items() if hasattr(frame, "items") else ((name, frame[name]) for name in frame.columns)


def _numbers(data: Any, array: numpy.ndarray) -> numpy.ndarray:
    """Return what was read as numbers."""
    if _holds_numbers(array):
        return array
    if array.dtype.kind != "O" and not array.size:
        raise _NoNumbersError(f"an empty array of {array.dtype}", "Pass numbers.")
    if array.dtype.kind != "O":
        # In a list of numbers and text, NumPy makes text of the numbers, too.
        telling = (x for x in array.flat if not _is_written(x))
        raise _no_numbers(next(telling, array.reshape(-1)[0]))
    if getattr(getattr(data, "dtype", None), "kind", "O") == "b":  # of pandas: bools that may be missing
        return data.to_numpy(dtype="float64", na_value=nan)
    return _from_objects(array)


def _from_objects(array: numpy.ndarray) -> numpy.ndarray:
    """Return an array of objects that all are numbers."""
    kinds = set(map(type, array.flat))
    if not all(issubclass(kind, (Real, Decimal, *_BOOLS)) for kind in kinds):
        others = [x for x in array.flat if not isinstance(x, (Real, Decimal, *_BOOLS))]
        raise _no_numbers(next((x for x in others if not _is_missing(x)), others[0]))
    if kinds and all(issubclass(kind, _BOOLS) for kind in kinds):
        return array.astype("bool")
    if not all(issubclass(kind, (Integral, *_BOOLS)) for kind in kinds) or not kinds:
        return array.astype("float64")
    try:
        return array.astype("int64")
    except OverflowError:
        large = max(array.flat, key=abs)
        raise _NoNumbersError(
            f"integers of more than 64 bits, such as {large}",
            "Convert them to floating-point numbers first, x.astype('float64'), which rounds them.",
        ) from None


def _no_numbers(value: Any) -> _NoNumbersError:
    """Return the error for a value that is no number."""
    if isinstance(value, str | bytes):
        short = bytes(value)[:40] if isinstance(value, bytes) else str(value)[:40]
        instead = _WRITTEN if _is_written(value) else _ENCODE
        return _NoNumbersError(f"text such as {short!r}", instead)
    if isinstance(value, timedelta | numpy.timedelta64):
        return _NoNumbersError(
            f"durations such as {value}", "Divide durations by a unit: x / numpy.timedelta64(1, 's')."
        )
    if isinstance(value, date | time | numpy.datetime64):
        return _NoNumbersError(
            f"dates such as {value}",
            "Make numbers of dates: the month, the weekday, or the time since the first one, "
            "(x - x.min()) / numpy.timedelta64(1, 'D').",
        )
    if _is_missing(value):
        return _NoNumbersError(f"missing values, {value}", "Fill them in, or leave out the examples.")
    if isinstance(value, numpy.void):
        return _NoNumbersError(
            f"records such as {value}",
            "numpy.lib.recfunctions.structured_to_unstructured(x) makes columns of their fields.",
        )
    if isinstance(value, list | tuple | numpy.ndarray):
        return _NoNumbersError(
            f"an array of objects of the type {type(value).__name__}",
            "numpy.stack(list(x)) makes one of rows that are equally long.",
        )
    is_series = isinstance(value, Iterable) and not isinstance(value, dict)
    instead = "Write list(x)." if is_series else "Make an array of numbers of it first."
    return _NoNumbersError(f"an object of the type {type(value).__name__}", instead)


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType"  # of pandas


def _is_written(text: Any) -> bool:
    """Say whether a text is a number that is written out."""
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


_ENCODE = (
    "Number classes with names, y = numpy.unique(y, return_inverse=True). Encode columns with "
    "pandas.get_dummies, with scikit-learn's OneHotEncoder or OrdinalEncoder, or with column.cat.codes + 1 "
    "for an nn.Embedding."
)
_WRITTEN = "Read numbers that are written as text: numpy.asarray(x).astype('float64')."
