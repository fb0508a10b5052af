"""Data frames of pandas and polars, tables of Arrow and structured arrays are read column by column."""

import datetime
import math
from decimal import Decimal

import numpy
import pytest

import xpnet
from xpnet import losses, nn, optim
from xpnet.backends import as_numbers, column_names, columns_of

NAN = math.nan
LARGE = 2**53 + 1  # no float64 is this
DAY = datetime.date(2020, 1, 2)
TWO = numpy.asarray([[1, 2], [3, 4]])


def dictionary(pa, values):
    """Return Arrow's dictionary in two chunks, of which NumPy would not see what is missing."""
    chunk = pa.array(values).dictionary_encode()
    return pa.chunked_array([chunk, chunk]).slice(1, 2)


# Of each library: columns of two numbers, or of two rows of numbers, with what they are and the dtype.
NUMBERS = {
    "pandas": [
        (lambda pd: pd.Series([True, False]), [True, False], "bool"),
        (lambda pd: pd.Series([1, 2], dtype="int8"), [1, 2], "int8"),
        (lambda pd: pd.Series([1, 2**63], dtype="uint64"), [1, 2**63], "uint64"),
        (lambda pd: pd.Series([1j, 2]), [1j, 2], "complex128"),
        (lambda pd: pd.Series([1, 2], dtype="UInt8"), [1, 2], "uint8"),
        (lambda pd: pd.Series([LARGE, 2], dtype="Int64"), [LARGE, 2], "int64"),
        (lambda pd: pd.Series([LARGE, None], dtype="Int64"), [2.0**53, NAN], "float64"),
        (lambda pd: pd.Series([0.5, None], dtype="Float32"), [0.5, NAN], "float32"),
        (lambda pd: pd.Series([True, False], dtype="boolean"), [True, False], "bool"),
        (lambda pd: pd.Series([True, None], dtype="boolean"), [1, NAN], "float64"),
        (lambda pd: pd.Series([None, None], dtype="boolean"), [NAN, NAN], "float64"),
        (lambda pd: pd.Series(pd.arrays.SparseArray([0.0, 1.5])), [0, 1.5], "float64"),
        (lambda pd: pd.Series(pd.arrays.SparseArray([False, True])), [False, True], "bool"),
        (lambda pd: pd.Series(pd.Categorical([3, None])), [3, NAN], "float64"),
        (lambda pd: pd.Series([True, 2], dtype=object), [1, 2], "int64"),
        (lambda pd: pd.Series([True, NAN], dtype=object), [1, NAN], "float64"),
        (lambda pd: pd.Series([Decimal("0.5"), 2], dtype=object), [0.5, 2], "float64"),
    ],
    "pandas and Arrow": [
        (lambda pd: pd.Series([1, 2], dtype="int64[pyarrow]"), [1, 2], "int64"),
        (lambda pd: pd.Series([1, None], dtype="uint8[pyarrow]"), [1, NAN], "float64"),
        (lambda pd: pd.Series([True, None], dtype="bool[pyarrow]"), [1, NAN], "float64"),
        (lambda pd: pd.Series([0.5, None], dtype="float[pyarrow]"), [0.5, NAN], "float32"),
    ],
    "polars": [
        (lambda pl: pl.Series([True, False]), [True, False], "bool"),
        (lambda pl: pl.Series([None, False]), [NAN, 0], "float64"),
        (lambda pl: pl.Series([None, None], dtype=pl.Boolean), [NAN, NAN], "float64"),
        (lambda pl: pl.Series([1, 2], dtype=pl.Int8), [1, 2], "int8"),
        (lambda pl: pl.Series([LARGE, 2]), [LARGE, 2], "int64"),
        (lambda pl: pl.Series([LARGE, None]), [2.0**53, NAN], "float64"),
        (lambda pl: pl.Series([0.5, None], dtype=pl.Float32), [0.5, NAN], "float32"),
        (lambda pl: pl.Series([Decimal("0.5"), None]), [0.5, NAN], "float64"),
        (lambda pl: pl.Series(TWO.tolist(), dtype=pl.Array(pl.Int64, 2)), TWO, "int64"),
        (lambda pl: pl.Series(TWO.tolist()), TWO, "int64"),
        (lambda pl: pl.Series([[True, None], None]), [[1, NAN], [NAN, NAN]], "float64"),
    ],
    "pyarrow": [
        (lambda pa: pa.array([True, False]), [True, False], "bool"),
        (lambda pa: pa.array([True, None]), [1, NAN], "float64"),
        (lambda pa: pa.chunked_array([[None], [False]], pa.bool_()), [NAN, 0], "float64"),
        (lambda pa: pa.array([1, 2], pa.int8()), [1, 2], "int8"),
        (lambda pa: pa.array([LARGE, 2]), [LARGE, 2], "int64"),
        (lambda pa: pa.array([LARGE, None]), [2.0**53, NAN], "float64"),
        (lambda pa: pa.array([0.5, None], pa.float32()), [0.5, NAN], "float32"),
        (lambda pa: pa.array([Decimal("0.5"), None]), [0.5, NAN], "float64"),
        (lambda pa: pa.nulls(2), [NAN, NAN], "float64"),
        (lambda pa: dictionary(pa, [5, None]), [NAN, 5], "float64"),
        (lambda pa: dictionary(pa, [True, None]), [NAN, 1], "float64"),
        (lambda pa: pa.array([[0, 0], *TWO], pa.list_(pa.int64(), 2))[1:], TWO, "int64"),
        (lambda pa: pa.array([[True, None], None]), [[1, NAN], [NAN, NAN]], "float64"),
    ],
    "numpy": [
        (lambda np: np.asarray([True, False]), [True, False], "bool"),
        (lambda np: np.asarray([1, 2], "int8"), [1, 2], "int8"),
        (lambda np: np.asarray([LARGE, 2], ">i8"), [LARGE, 2], "int64"),
        (lambda np: np.asarray([True, 2], object), [1, 2], "int64"),
        (lambda np: np.asarray([1j, 2]), [1j, 2], "complex128"),
        (lambda np: TWO, TWO, "int64"),
        (lambda np: numpy.asarray([(1, 2), (3, 4)], [("p", "i8"), ("q", "?")]), [[1, 1], [3, 1]], "int64"),
        (
            lambda np: numpy.asarray([((1, 2), 3), ((4, 5), 6)], [("p", "i2", (2,)), ("q", [("r", "f4")])]),
            [[1, 2, 3], [4, 5, 6]],
            "float32",
        ),
    ],
}

# And columns of two that are no numbers, with what the error says of them.
OTHERS = {
    "pandas": [
        (lambda pd: pd.Series(["u", None]), "text such as 'u'"),
        (lambda pd: pd.Series(["u", None], dtype="string"), "text such as 'u'"),
        (lambda pd: pd.Series([1, "u"], dtype=object), "text such as 'u'"),
        (lambda pd: pd.Series(pd.Categorical(["u", "v"])), "text such as 'u'"),
        (lambda pd: pd.Series([1, None], dtype=object), "missing values, None"),
        (lambda pd: pd.Series(pd.to_datetime([DAY, DAY])), "dates such as 2020-01-02"),
        (lambda pd: pd.Series(pd.to_timedelta([1, 2], unit="s")), "durations such as 1"),
        (lambda pd: pd.Series(list(TWO)), "an array of objects of the type ndarray"),
    ],
    "pandas and Arrow": [
        (lambda pd: pd.Series(["u", None], dtype="string[pyarrow]"), "text such as 'u'"),
        (lambda pd: pd.Series([DAY, None], dtype="date32[pyarrow]"), "dates such as 2020-01-02"),
    ],
    "polars": [
        (lambda pl: pl.Series(["u", None]), "text such as 'u'"),
        (lambda pl: pl.Series([None, None], dtype=pl.String), "missing values, None"),
        (lambda pl: pl.Series(["u", "v"], dtype=pl.Categorical), "text such as 'u'"),
        (lambda pl: pl.Series(["u", "v"], dtype=pl.Enum(["u", "v"])), "text such as 'u'"),
        (lambda pl: pl.Series(["1.5", "2"]), "text such as '1.5'"),
        (lambda pl: pl.Series([DAY, None]), "dates such as 2020-01-02"),
        (lambda pl: pl.Series([[DAY], [DAY]], dtype=pl.Array(pl.Date, 1)), "dates such as 2020-01-02"),
        (lambda pl: pl.Series([datetime.timedelta(1)] * 2), "durations such as "),
        (lambda pl: pl.Series([[1, 2], [3]]), "an array of objects of the type ndarray"),
        (lambda pl: pl.Series([["u"], None]), "text such as 'u'"),
        (lambda pl: pl.Series([{"p": DAY, "q": 1}] * 2), "records of several fields"),
        (lambda pl: pl.Series([[{"p": DAY}]] * 2), "records of several fields"),
    ],
    "pyarrow": [
        (lambda pa: pa.array(["u", None]), "text such as 'u'"),
        (lambda pa: dictionary(pa, [None, "u"]), "text such as 'u'"),
        (lambda pa: pa.array([None, None], pa.string()), "missing values, None"),
        (lambda pa: pa.array([DAY, None]), "dates such as 2020-01-02"),
        (lambda pa: pa.array([[1, 2], [3]]), "an array of objects of the type ndarray"),
        (lambda pa: pa.array([{"p": 1}] * 2), "records of several fields"),
    ],
    "numpy": [
        (lambda np: np.asarray(["u", "v"]), "text such as 'u'"),
        (lambda np: np.asarray([b"u", b"v"]), "text such as b'u'"),
        (lambda np: np.asarray([1, None], object), "missing values, None"),
        (lambda np: np.asarray([DAY, DAY], "M8[D]"), "dates such as 2020-01-02"),
        (lambda np: np.ones(2, [("p", "f4"), ("q", "U1")]), "text such as '1' in column 'q'"),
    ],
}


def records(columns):
    """Return columns as the fields of a structured array."""
    array = numpy.empty(2, [(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    for name, column in columns.items():
        array[name] = column
    return array


# How each library makes data frames of columns.
FRAMES = {
    "pandas": [lambda pd, columns: pd.DataFrame(columns)],
    "pandas and Arrow": [lambda pd, columns: pd.DataFrame(columns)],
    "polars": [lambda pl, columns: pl.DataFrame(columns)],
    "pyarrow": [
        lambda pa, columns: pa.table(columns),
        lambda pa, columns: pa.table(columns).combine_chunks().to_batches()[0],
    ],
    "numpy": [
        lambda np, columns: records(columns),
        lambda np, columns: records(columns).view(np.recarray),
        lambda np, columns: list(records(columns)),
        lambda np, columns: np.ma.array(records(columns)),
    ],
}


def module(library):
    if library == "pandas and Arrow":
        pytest.importorskip("pyarrow")
    return pytest.importorskip(library.partition(" ")[0])


def cases(table):
    return [
        pytest.param(library, *case, id=f"{library}-{number}")
        for library, rows in table.items()
        for number, case in enumerate(rows)
    ]


def assert_numbers(array, expected, dtype):
    assert type(array) is numpy.ndarray
    assert array.dtype.newbyteorder("=") == dtype
    numpy.testing.assert_array_equal(array, numpy.asarray(expected, dtype), strict=False)
    assert array.shape == numpy.shape(expected)


@pytest.mark.parametrize(("library", "column", "expected", "dtype"), cases(NUMBERS))
def test_numbers_of_a_column(library, column, expected, dtype):
    """Bools and numbers stay what they were; where something is missing, it is NaN among floats."""
    assert_numbers(as_numbers(column(module(library))), expected, dtype)


@pytest.mark.parametrize(("library", "column", "expected", "dtype"), cases(NUMBERS))
def test_columns_stand_side_by_side(library, column, expected, dtype):
    """In the dtype that NumPy finds for all of them; a column of rows is as many columns as these have."""
    found = module(library)
    first, first_expected, _ = NUMBERS[library][0]
    columns = {"first": first(found), "column": column(found)}
    together = numpy.column_stack([first_expected, numpy.asarray(expected, dtype)])
    for make in FRAMES[library]:
        frame = make(found, columns)
        assert_numbers(as_numbers(frame), together, together.dtype)
        if not isinstance(frame, list):
            assert column_names(frame) == ["first"] + ["column"] * (together.shape[1] - 1)
            parts = columns_of(frame)
            assert list(parts) == ["first", "column"]
            assert_numbers(as_numbers(parts["column"]), expected, dtype)


@pytest.mark.parametrize(("library", "column", "message"), cases(OTHERS))
def test_a_column_of_no_numbers_is_named(library, column, message):
    found = module(library)
    bad, good = column(found), NUMBERS[library][0][0](found)
    with pytest.raises(TypeError, match=rf"y must hold numbers in .*, received {message}"):
        as_numbers(bad, "y")
    named = rf"received {message}.* in column 'bad', .* in column 'worse'\. \S"
    for make in FRAMES[library]:
        for columns in ({"good": good, "bad": bad, "worse": bad}, {"bad": bad, "worse": bad}):
            frame = make(found, columns)
            with pytest.raises(TypeError, match=f"x must hold numbers in each column, {named}"):
                as_numbers(frame)
            if not isinstance(frame, list):
                assert list(columns_of(frame)) == list(columns)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "numpy"])
def test_dtypes_are_those_that_numpy_finds(library):
    found = module(library)
    pairs = [("int8", "bool", "int8"), ("int64", "uint64", "float64"), ("float32", "int64", "float64")]
    for first, second, both in pairs:
        columns = {"a": numpy.asarray([0, 1], first), "b": numpy.asarray([1, 0], second)}
        for make in FRAMES[library]:
            assert_numbers(as_numbers(make(found, columns)), [[0, 1], [1, 0]], both)


@pytest.mark.parametrize(
    ("library", "without_columns", "rows"),
    [
        ("pandas", lambda frame: frame[[]], 2),
        ("polars", lambda frame: frame.select([]), None),  # versions differ in how many rows that has
        ("pyarrow", lambda frame: frame.select([]), 2),
        ("numpy", lambda frame: numpy.empty(2, []), 2),
    ],
)
def test_no_rows_and_no_columns(library, without_columns, rows):
    frame = FRAMES[library][0](module(library), {"a": numpy.ones(2), "b": numpy.asarray([True, False])})
    assert_numbers(as_numbers(frame[:0]), numpy.empty((0, 2)), "float64")
    empty = without_columns(frame)
    assert_numbers(as_numbers(empty), numpy.empty((len(empty) if rows is None else rows, 0)), "float64")
    assert columns_of(empty) == {}
    assert column_names(empty) == []


def test_names_of_columns_in_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [True, False], "b": pd.array([1, None], "Int64"), "c": ["u", "v"]})
    frame.columns = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("c", 1)])
    with pytest.raises(TypeError, match=r"text such as 'u' in column \('c', 1\)"):
        as_numbers(frame)
    numbers = frame.drop(columns=[("c", 1)])
    assert_numbers(as_numbers(numbers), [[1, 1], [0, NAN]], "float64")
    assert column_names(numbers) == [("a", 1), ("a", 2)]
    numbers.columns = ["a", "a"]
    assert_numbers(as_numbers(numbers), [[1, 1], [0, NAN]], "float64")
    assert column_names(numbers) == ["a", "a"]
    with pytest.raises(ValueError, match=r"must have different names, received two of 'a'\. Rename one"):
        columns_of(numbers)


def test_a_frame_of_one_dtype_is_not_copied():
    pd = pytest.importorskip("pandas")
    array = numpy.ones((3, 2), "float32")
    assert numpy.shares_memory(as_numbers(pd.DataFrame(array, copy=False)), array)


def test_what_is_to_be_computed_is_refused():
    pl = pytest.importorskip("polars")
    lazy = pl.LazyFrame({"a": [1]})
    assert columns_of(lazy) is None
    assert column_names(lazy) is None
    with pytest.raises(TypeError, match=r"received an object of the type LazyFrame\. Write x\.collect\(\)"):
        as_numbers(lazy)


def test_records():
    dtype = [("a", "i4"), ("b", "f8", (2,))]
    array = numpy.asarray([(1, (2, 3)), (4, (5, 6))], dtype)
    assert_numbers(as_numbers(array[0]), [1, 2, 3], "float64")
    assert_numbers(as_numbers(array[None]), [[[1, 2, 3], [4, 5, 6]]], "float64")
    assert_numbers(as_numbers(array[["b"]]), [[2, 3], [5, 6]], "float64")
    assert column_names(array[None]) is None
    hidden = numpy.ma.array(array)
    hidden["b"][1, 0] = numpy.ma.masked
    with pytest.raises(TypeError, match=r"x must hold a number at each place, .* in which 1 are masked"):
        as_numbers(hidden)


@pytest.mark.parametrize(
    "data",
    [numpy.ones((2, 2)), [1.0], (1.0,), {"a": [1.0]}, 1.0, None, "text", numpy.asarray(["u"])],
    ids=repr,
)
def test_what_is_no_frame_has_no_columns(data):
    assert columns_of(data) is None
    assert column_names(data) is None


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "numpy"])
def test_training_on_a_frame(library):
    """A frame trains as the array of its columns, and targets may be a column."""
    found = module(library)
    size, flag = numpy.asarray([0.5, 1.5], "float32"), numpy.asarray([True, False])
    count = numpy.asarray([1, 0])
    if library == "pandas":
        frame = found.DataFrame({"size": size, "flag": found.array(flag, "boolean")})
        labels = found.Series(count, dtype="Int64")
    else:
        frame = FRAMES[library][0](found, {"size": size, "flag": flag})
        labels = columns_of(FRAMES[library][0](found, {"label": count}))["label"]

    def trained(x, y):
        net = nn.Dense(2, 2, seed=0)
        history = xpnet.fit(
            net, x, y, loss=losses.cross_entropy, optimizer=optim.SGD(0.1), epochs=2, progress=False, seed=0
        )
        return history["loss"], xpnet.predict(net, x)

    expected = trained(numpy.column_stack([size, flag]), count)
    loss, outputs = trained(frame, labels)
    assert loss == expected[0]
    numpy.testing.assert_array_equal(outputs, expected[1])
