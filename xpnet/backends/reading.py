"""Arrays of numbers from data as people have them: lists, masked arrays, data frames, arrays of objects."""

import re
import sys
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from math import nan, prod
from numbers import Integral, Real
from typing import Any

import numpy

from xpnet.selection import some

_BOOLS = (bool, numpy.bool_)

# What the dtype of a column is called where NumPy reads it as objects, and a missing number is None or NA.
_NULLABLE = re.compile("bool|decimal|null")

# What it is called where each element has fields.
_RECORDS = re.compile("struct[(<]")


def as_numbers(data: Any, name: str = "x") -> numpy.ndarray:
    """Return data as a NumPy array of numbers.

    Parameters
    ----------
    data : array, data frame, sequence or number
        What NumPy can read. Columns of a data frame and arrays of objects may hold numbers of several kinds;
        a missing number in a column of numbers or bools becomes NaN, as it does in scikit-learn. Tables and
        record batches of Arrow, and structured arrays, are data frames, too.
    name : str, default="x"
        What error messages call it.

    Returns
    -------
    numpy.ndarray
        The same array, if it is one. Columns stand side by side on the last axis, in the dtype that NumPy
        finds for all of them; one whose elements are rows of numbers becomes as many as these have.

    Raises
    ------
    TypeError
        If something is no number, or is masked.
    ValueError
        If rows are not equally long.
    """
    try:
        return _numbers(unmasked(data, name))
    except _NoNumbersError as no_numbers:
        message = f"{name} must hold numbers {no_numbers.where}, received {no_numbers}"
        raise no_numbers.error(message) from None


def columns_of(data: Any) -> dict[Any, Any] | None:
    """Return the columns of a data frame by name, as they are; None of anything else.

    A data frame is one of pandas or polars, a table or record batch of Arrow, or a structured array.

    Raises
    ------
    ValueError
        If two columns have one name.
    """
    columns = _columns(data)
    if columns is None:
        return None
    named = dict(columns)
    if len(named) < len(columns):
        names = [name for name, _ in columns]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"columns must have different names, received two of {twice!r}. Rename one.")
    return named


def column_names(data: Any) -> list[Any] | None:
    """Return the name of each column of the array that `as_numbers` makes of a data frame; else None.

    A column whose elements are rows of numbers gives its name to each column that it becomes.
    """
    columns = _columns(data)
    if columns is None or (isinstance(data, numpy.ndarray) and data.ndim != 1):
        return None
    return [name for name, column in columns for _ in range(_column(column[:1]).size)]


def has_bool_columns(data: Any) -> bool:
    """Say whether data are a data frame in which a column holds bools."""
    return any("bool" in _kind_of(column) for _, column in _columns(data) or ())


def unmasked(data: Any, name: str = "x") -> Any:
    """Return the elements of a masked array if none is masked; other data as they are.

    Raises
    ------
    TypeError
        If an element is masked, also in an array of a list, whose mask NumPy would drop.
    """
    if hasattr(data, "compute"):  # of Dask, whose arrays NumPy would read without their masks
        data = data.compute()
    kind = type(data)
    may_be = kind is not numpy.ndarray and issubclass(kind, (numpy.ndarray, list, tuple))
    if not may_be or "numpy.ma" not in sys.modules:
        return data
    parts: Any = (data,) if issubclass(kind, numpy.ndarray) else data
    if not any(issubclass(each, numpy.ma.MaskedArray) for each in set(map(type, parts))):
        return data
    masks = [numpy.ma.getmaskarray(x) for x in parts if isinstance(x, numpy.ma.MaskedArray)]
    number = sum(int(as_numbers(mask).sum()) for mask in masks)  # of a structured array, one for each field
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
    """Says what was received in place of numbers, and what to do."""

    def __init__(
        self,
        received: str,
        instead: str,
        where: str = "in rows of equal length",
        error: type[Exception] = TypeError,
    ) -> None:
        super().__init__(f"{received}. {instead}")
        self.received, self.instead, self.where, self.error = received, instead, where, error


def _columns(data: Any) -> list[tuple[Any, Any]] | None:
    """Return the names and columns of a data frame; None of anything else."""
    if isinstance(data, numpy.ndarray):
        return None if data.dtype.names is None else [(name, data[name]) for name in data.dtype.names]
    if hasattr(data, "itercolumns"):  # of Arrow
        return list(zip(data.column_names, data.itercolumns(), strict=True))
    if hasattr(data, "iter_columns"):  # of polars
        return [(column.name, column) for column in data.iter_columns()]
    if hasattr(data, "items") and hasattr(data, "columns"):  # of pandas, where two may have one name
        return list(data.items())
    return None


def _numbers(data: Any) -> numpy.ndarray:
    """Return data as an array of numbers."""
    if isinstance(data, numpy.ndarray) and _holds_numbers(data):
        return data
    columns = _columns(data)
    return _column(data) if columns is None else _side_by_side(data, columns)


def _kind_of(column: Any) -> str:
    return str(column.dtype if hasattr(column, "dtype") else getattr(column, "type", "")).lower()


def _column(data: Any) -> numpy.ndarray:
    """Return data that are no data frame as an array of numbers."""
    dictionary: Any = getattr(data, "type", None)
    if hasattr(dictionary, "index_type"):  # of Arrow, in which NumPy may not see what is missing
        data = data.cast(dictionary.value_type)
    kind = _kind_of(data)
    if _RECORDS.search(kind):  # polars makes numbers of all that is in one, also of dates
        instead = "Make a column of each field: frame.unnest(name) of polars, table.flatten() of Arrow."
        raise _NoNumbersError("records of several fields", instead)
    try:
        array = numpy.asarray(data)
    except ValueError as error:
        raise _NoNumbersError(
            f"rows that differ: {error}",
            'Fill them up to one length; several inputs are a dict, {"a": a, "b": b}.',
            error=ValueError,
        ) from None
    return _checked(array, kind)


def _side_by_side(frame: Any, columns: list[tuple[Any, Any]]) -> numpy.ndarray:
    """Return the columns of a data frame, of which each may hold numbers of another kind, as one array."""
    dtypes = set(getattr(frame, "dtypes", ()))
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    if isinstance(dtype, numpy.dtype) and dtype.kind in "biufc":  # of pandas, which may have it as one array
        return numpy.asarray(frame)
    shape = numpy.shape(frame) if isinstance(frame, numpy.ndarray) else (len(frame),)
    arrays, others = [], []
    for name, column in columns:
        try:
            array = _column(column)
            arrays.append(array.reshape(*shape, prod(array.shape[len(shape) :])))
        except _NoNumbersError as error:
            others.append((name, error))
    if others:
        received = [f"{error.received} in column {name!r}" for name, error in others]
        instead = " ".join(dict.fromkeys(error.instead for _, error in others))
        raise _NoNumbersError(some(received), instead, "in each column")
    return numpy.concatenate(arrays, axis=-1) if arrays else numpy.empty((*shape, 0))


def _checked(array: numpy.ndarray, kind: str) -> numpy.ndarray:
    """Return what was read, from data of a kind, as numbers."""
    if _holds_numbers(array):
        return array
    if array.dtype.names is not None:  # of a list of records, or of a field with fields
        return _numbers(array)
    if array.dtype.kind != "O" and not array.size:
        raise _NoNumbersError(f"an empty array of {array.dtype}", "Pass numbers.")
    if array.dtype.kind != "O":
        # In a list of numbers and text, NumPy makes text of the numbers, too.
        telling = (x for x in array.flat if not _is_written(x))
        raise _no_numbers(next(telling, array.reshape(-1)[0]))
    if "list" in kind:
        shapes = {x.shape for x in array.flat if isinstance(x, numpy.ndarray)}
        if len(shapes) == 1:
            shape = shapes.pop()
            rows = [numpy.full(shape, nan) if _is_missing(x) else x for x in array.flat]
            return _checked(numpy.stack(rows).reshape(array.shape + shape), kind)
    if _NULLABLE.search(kind):
        array = numpy.where(numpy.frompyfunc(_is_missing, 1, 1)(array).astype("bool"), nan, array)
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
    if isinstance(value, list | tuple | numpy.ndarray):
        return _NoNumbersError(
            f"an array of objects of the type {type(value).__name__}",
            "numpy.stack(list(x)) makes one of rows that are equally long.",
        )
    instead = "Make an array of numbers of it first."
    if hasattr(value, "collect"):  # of polars: what is to be computed
        instead = "Write x.collect()."
    elif isinstance(value, Iterable) and not isinstance(value, dict):
        instead = "Write list(x)."
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
