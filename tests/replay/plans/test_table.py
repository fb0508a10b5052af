"""What native code goes through: which arguments it takes, what stops it, and how it leaves the processor."""

import sys
import threading

import numpy
import pytest

import xpnet
from xpnet.replay.functions import FUNCTIONS
from xpnet.replay.graph import Variable
from xpnet.replay.plans import numba, pool, products, table
from xpnet.replay.plans.cpu_runtime import Cpu
from xpnet.replay.plans.memory import Layout

pytest.importorskip("numba")
pytestmark = pytest.mark.plans("numba")

X = numpy.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def xp_of(x):
    return xpnet.array_namespace(x)


def lines(recording):
    """The lines of Python in a plan's function, but for what is returned."""
    _, *body, _ = (line.strip() for line in recording.plan.source.splitlines())
    return [line for line in body if not line.startswith("# ")]


# -- one call -----------------------------------------------------------------------------------------------


def test_steps_between_which_python_does_nothing_are_one_call(record):
    recording = record(lambda x: (x @ (x * 2).T + 1) @ x, X)
    assert [line.partition("(")[0].split()[-1] for line in lines(recording)] == ["empty", "run"]
    assert "native code: 4 steps" in recording.plan.explain()
    assert "; 1 of these. Products: " in recording.plan.explain()
    recording.check([X], [-X])


def test_what_native_code_cannot_do_stands_between_two_calls(record):
    recording = record(lambda x: xp_of(x).sort(x * 2, axis=1) @ xp_of(x).permute_dims(x + 1, (1, 0)), X)
    names = [line.partition("(")[0] for line in lines(recording)]
    assert [name for name in names if "run" in name or "sort" in name][1].endswith("sort")
    recording.check([X], [-X])


def test_a_view_is_made_where_python_needs_it_alone(record):
    native = record(lambda x: (x + 1) @ x.T, X)
    assert not any(".mT" in line for line in lines(native))
    python = record(lambda x: xp_of(x).sort(x.T, axis=0) + (x + 1).T, X)
    assert sum(".mT" in line for line in lines(python)) == 1
    native.check([X], [-X])
    python.check([X], [-X])


@pytest.mark.parametrize(
    ("where", "name", "reason"),
    [
        (numba, "numba_is_there", "numba is not installed"),
        (numba, "objects_are_readable", "this Python keeps arrays in memory in another way"),
        (sys, "_is_gil_enabled", "this Python runs threads without the interpreter's lock"),
    ],
)
def test_without_native_code_numpy_is_called(where, name, reason, record, monkeypatch):
    monkeypatch.setattr(where, name, lambda: False, raising=False)
    recording = record(lambda x: (x + 1) @ x.T, X)
    assert f"native code: {reason}" in recording.plan.explain()
    assert not any("run" in line for line in lines(recording))
    recording.check([X], [-X])


def test_a_library_without_products_is_named(record, monkeypatch):
    monkeypatch.setattr("xpnet.replay.plans.products.library", lambda: "there are no products today")
    recording = record(lambda x: (x + 1) @ x.T, X)
    assert "Products: there are no products today" in recording.plan.explain()
    assert any(line.startswith("dot(") for line in lines(recording))
    recording.check([X], [-X])


# -- how long a call lasts ----------------------------------------------------------------------------------


def test_other_threads_go_on_during_long_stretches(record, monkeypatch):
    def driver_for(function, *arguments):
        return record(function, *arguments).plan._text.constants["run"]

    def total(x):
        return xpnet.array_namespace(x).sum(x + 1)

    monkeypatch.setattr(products, "one_thread", lambda: "it is left whole")
    long, driver = (total, numpy.ones((900, 900), "float32")), numba.driver()
    assert driver_for(lambda x: x + 1, X) is driver.run
    if not pool.why_not():  # which lets a fork wait for its end
        assert driver_for(*long) is pool.driver()
    monkeypatch.setattr(pool, "why_not", lambda: "there are none")
    assert driver_for(*long) is driver.run_long


# -- arguments ----------------------------------------------------------------------------------------------


class OfAnotherClass(numpy.ndarray):
    pass


def some_arrays():
    """Arrays of many kinds, some of which share memory."""
    whole, other = numpy.ones((4, 4)), numpy.ones((4, 4))
    fixed = numpy.ones((4, 4))
    fixed.flags.writeable = False
    unaligned = numpy.frombuffer(bytearray(8 * 16 + 1), numpy.uint8)[1:].view(float).reshape(4, 4)
    return {
        "whole": whole,
        "other": other,
        "view": whole[1:],
        "view of a view": whole[1:][:2],
        "column": other[:, 1],
        "fixed": fixed,
        "unaligned": unaligned,
        "of another class": numpy.ones((2, 2)).view(OfAnotherClass),
        "number": numpy.float64(3.0),
        "number of another dtype": numpy.float32(3.0),
        "from bytes": numpy.frombuffer(bytearray(64)),
        "view from bytes": numpy.frombuffer(memoryview(whole).cast("B"))[1:],
        "transposed": numpy.ones((3, 2)).T,
    }


def is_unusual(arrays, written, numbers=()):
    """What native code says of arguments; those with some numbers may be numbers of float64."""
    inputs = [Variable(numpy.shape(x), numpy.dtype(float)) for x in arrays]
    words = table.of_arguments(inputs, [inputs[n] for n in written], [inputs[n] for n in numbers])
    return numba.driver().is_unusual(words.ctypes.data, tuple(arrays))


def test_unusual_arguments_are_known_as_such():
    random = numpy.random.default_rng(0)
    arrays = some_arrays()
    seen = set()
    for _ in range(3000):
        names = random.choice(list(arrays), size=random.integers(1, 6))
        given = [arrays[name] for name in names]
        written = [index for index in range(len(given)) if random.random() < 0.3]
        unusual = is_unusual(given, written, numbers=range(0, len(given), 2))
        as_they_are = all(
            (type(x) is numpy.ndarray and x.flags.c_contiguous and x.flags.aligned)
            or (type(x) is numpy.float64 and index % 2 == 0 and index not in written)
            for index, x in enumerate(given)
        )
        alone = all(
            given[index].flags.writeable
            and given[index].base is None
            and not any(numpy.shares_memory(given[index], y) for y in [*given[:index], *given[index + 1 :]])
            for index in written
        )
        if not as_they_are or not alone:
            assert unusual, (names, written)
        elif not written or not {"from bytes", "view from bytes"}.intersection(names):
            # their memory is that of no array
            assert not unusual, (names, written)
        seen.add(unusual)
    assert seen == {0, 1}


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_the_same_array_twice_is_noticed_among_many(count):
    arrays = [numpy.ones(1) for _ in range(count)]
    for written in ([], [count - 1], range(count)):
        assert not is_unusual(arrays, written)
        assert is_unusual([*arrays, arrays[-1]], written) == bool(written)


def test_another_shape_or_dtype_is_unusual():
    """Even where an array begins with the same axes, or has as many bytes."""
    shapes = [(), (1,), (4,), (4, 6), (4, 6, 1), (4, 6, 2), (1, 4, 6), (6, 4), (24,), (0,), (0, 6)]
    dtypes = [numpy.dtype(name) for name in ("float64", ">f8", "int64", "longlong", "complex64", "M8[s]")]
    arrays = [numpy.zeros(shape, dtype) for shape in shapes for dtype in dtypes]
    for expected in arrays:
        words = table.of_arguments([Variable(expected.shape, expected.dtype)], (), ())
        for x in arrays:
            same = x.shape == expected.shape and x.dtype is expected.dtype
            assert numba.driver().is_unusual(words.ctypes.data, (x,)) == (not same), (expected, x)


def test_arguments_of_earlier_calls_are_forgotten():
    words = table.of_arguments([x := Variable((), numpy.dtype(float))], [x], [])
    arrays = [numpy.zeros(()) for _ in range(100)]
    for _ in range(2):
        assert not any(numba.driver().is_unusual(words.ctypes.data, (x,)) for x in arrays)


@pytest.mark.parametrize("name", some_arrays())
def test_arguments_are_copied_where_native_code_cannot_read_them(name):
    x = some_arrays()[name]
    (y,) = Cpu().contiguous([x])
    assert type(y) is numpy.ndarray
    assert y.flags.c_contiguous
    assert y.flags.aligned
    assert (y is x) == (type(x) is numpy.ndarray and x.flags.c_contiguous and x.flags.aligned)
    numpy.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("name", some_arrays())
def test_unusual_arguments_give_the_same(name):
    def f(x):
        return x * 2 + 1, xp_of(x).sum(x * x)

    x = some_arrays()[name]
    recorded = xpnet.jit(f, donate=("x",))
    before = numpy.array(x)
    expected = f(before)
    for _ in range(2):
        for one, other in zip(recorded(x), expected, strict=True):
            numpy.testing.assert_array_equal(one, other)
        if name not in ("whole", "other"):
            numpy.testing.assert_array_equal(x, before)
        else:
            x = numpy.array(before)


@pytest.mark.plans("numpy", "numba")
def test_a_donated_argument_that_is_seen_through_other_memory_is_copied(record):
    """Of a view of an array that is a view itself, the base does not say whose memory it is."""

    def f(w, x):
        xp = xp_of(w)
        return xp.sort(w * 2) * 1, x + 1

    w = numpy.arange(8.0)
    x = numpy.frombuffer(memoryview(w))[:]
    recording = record(f, w.copy(), w.copy(), donate=("w",))
    for one, other in zip(recording(w, x), f(w.copy(), w.copy()), strict=True):
        numpy.testing.assert_array_equal(one, other)


def test_a_class_of_numbers_that_does_not_say_their_dtype_is_looked_at():
    """What is no argument of a step is an argument still."""
    f = xpnet.jit(lambda x, s: x * {"one": 2, "other": 3}[s.dtype.names[0]])
    for name, factor in (("one", 2), ("other", 3), ("one", 2)):
        record = numpy.zeros((), [(name, "float32")])[()]
        numpy.testing.assert_array_equal(f(X, record), X * factor)


def test_arrays_of_another_class_have_recordings_of_their_own():
    f = xpnet.jit(lambda x, y: x + y)
    for y in (X.view(OfAnotherClass), X):
        numpy.testing.assert_array_equal(f(X, y), X + X)
    assert len(f._recordings) == 2


@pytest.mark.parametrize("dtype", ["bool", "float32", "float64", "int32", "int64", "uint8", "complex64"])
def test_numbers_are_read_where_they_are(dtype, record):
    """A number that a function gives, and the next call takes in, needs no array around it."""
    x = numpy.asarray([1, 0, 3], dtype)

    def f(x, n):
        return x == n, xp_of(x).where(x == n, x, n)

    recording = record(f, x, x[2])
    for n in (x[2], x[1], numpy.asarray(x[0])):
        recording.check([x, n])
        if "run" in recording.plan.source and "copyto" not in recording.plan.source:
            assert not recording.plan.is_unusual((x, n))


# -- what stops it ------------------------------------------------------------------------------------------


def test_an_index_that_is_none_says_so_and_the_next_call_is_right(record):
    def f(x, index):
        return xp_of(x).take_along_axis(x * 2, index, axis=1) + 1

    good, bad = numpy.zeros((4, 1), "int64"), numpy.full((4, 1), 6)
    recording = record(f, X, good)
    for wrong in (bad, -bad - 1):
        with pytest.raises(
            IndexError, match=rf"take_along_axis must be from -6 to 5; received {wrong[0, 0]}"
        ):
            recording(X, wrong)
        recording.check([X, good], [X, good + 5], [-X, good - 6])


# -- numbers too small to be normal -------------------------------------------------------------------------

TINY = {"float32": 1e-40, "float64": 1e-310}


@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.plans("numpy", "numba")
def test_what_is_too_small_is_zero_in_native_code_alone(dtype, record, kind_of_plan):
    def f(x):
        xp = xp_of(x)
        smaller = x * 1e-5
        return smaller, xp.cumulative_sum(x), xp.sum(xp.astype(x > 0, x.dtype))

    usual = numpy.full(8, numpy.finfo(dtype).tiny * 4, dtype)
    recording = record(f, usual)
    tiny = numpy.full(8, TINY[dtype], dtype)
    for _ in range(2):
        smaller, total, count = recording(usual)
        assert numpy.all(smaller == 0) == (kind_of_plan == "numba")
        assert count == 8
        _, total, count = recording(tiny)
        assert total[-1] > 0  # by NumPy, between two stretches
        assert count == (0 if kind_of_plan == "numba" else 8)
        assert numpy.all(usual * 1e-5 > 0)
        assert numpy.all(tiny * numpy.asarray(1.0, dtype) > 0)


def test_the_processor_is_left_as_it_was_when_a_table_is_stopped():
    def f(x, index):
        return xp_of(x).take_along_axis(x * 2, index, axis=1) + 1

    recorded = xpnet.jit(f)
    recorded(X, numpy.zeros((4, 1), "int64"))
    with pytest.raises(IndexError):
        recorded(X, numpy.full((4, 1), 6))
    assert numpy.all(numpy.full(8, TINY["float32"], "float32") * numpy.float32(1) > 0)


def test_threads_have_settings_of_their_own():
    """A table that runs in one thread changes nothing for arithmetic in others."""
    recorded = xpnet.jit(lambda x: x @ x)
    big = numpy.ones((1500, 1500), "float32")
    recorded(big)
    tiny, lost = numpy.full(64, TINY["float32"], "float32"), []
    done = threading.Event()

    def others():
        while not done.is_set():
            if not numpy.all(tiny * numpy.float32(1) > 0):
                lost.append(1)

    thread = threading.Thread(target=others)
    thread.start()
    for _ in range(3):
        recorded(big)
    done.set()
    thread.join()
    assert not lost


# -- the checked mode ---------------------------------------------------------------------------------------


@pytest.fixture
def checked(monkeypatch):
    monkeypatch.setenv("XPNET_CHECK", "1")


def training(x, w):
    xp = xp_of(x)
    hidden = xp.tanh(x @ w + 1)
    return xp.sort(hidden, axis=1) * 2, xp.sum(hidden * hidden), w - hidden.T @ x @ w


def test_a_plan_that_does_as_the_functions_do_passes(checked, record):
    w = numpy.random.default_rng(1).normal(size=(6, 6)).astype("float32")
    x = numpy.random.default_rng(2).normal(size=(6, 6)).astype("float32")
    recording = record(training, x, w, donate=("w",))
    assert recording.plan.source.count("check.compare(") > 3
    for one, other in zip(recording(x, w.copy()), training(x, w), strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-5)


def test_zeros_keep_their_signs_where_steps_are_compared(checked, record):
    recording = record(lambda x: xp_of(x).copysign(x + 1, x), numpy.ones(2))
    recording.check([numpy.asarray([-0.0, 0.0])])


@pytest.mark.plans("cuda")
def test_only_what_tables_do_is_compared(checked, record):
    recording = record(lambda x: (x + 1) @ x, numpy.ones((6, 6), "float32"))
    assert "check." not in recording.plan.source
    recording.check([numpy.ones((6, 6), "float32")])


def test_a_kernel_that_does_something_else_is_named(checked, record, monkeypatch):
    multiply = FUNCTIONS["multiply"]
    monkeypatch.setitem(FUNCTIONS, "multiply", multiply._replace(python="{0} * {1} + 1"))
    recording = record(lambda x: (x + 1) @ ((x @ x.T) * 3), numpy.ones((6, 6), "float32"))
    with pytest.raises(RuntimeError, match=r"step \d, multiply\("):
        recording(numpy.ones((6, 6), "float32"))


@pytest.mark.plans("cuda")
def test_what_is_captured_is_not_looked_at(checked, record):
    recording = record(lambda x: x @ x + 1, numpy.ones((6, 6), "float32"))
    assert "check" not in recording.plan.source


def test_memory_that_is_written_over_too_early_is_noticed(checked, record, monkeypatch):
    monkeypatch.setattr(Layout, "_lifetimes", lambda self, returned: {})
    recording = record(lambda x: ((x + 1) @ x.T) @ (x + 1), X)
    with pytest.raises(RuntimeError, match=r"must do what was recorded; step \d"):
        recording(X)


def test_numbers_that_are_too_small_are_what_native_code_or_numpy_makes_of_them(checked, record):
    tiny = numpy.full(8, TINY["float32"], "float32")
    recording = record(lambda x: (x > 0, xp_of(x).sort(x) * 2, xp_of(x).cumulative_sum(x) > 0), tiny)
    recording(tiny)
    recording(numpy.ones(8, "float32"))


def test_what_is_made_of_numbers_that_are_too_small_is_not_compared(checked, record):
    x = numpy.asarray([TINY["float32"], 1.0, 2.0], "float32")
    record(lambda x: xp_of(x).log(x) * xp_of(x).astype(x > 0, x.dtype), x)(x)


def test_a_sum_that_cancels_may_differ_by_what_is_added(checked, record):
    x = numpy.random.default_rng(0).normal(size=4000).astype("float32")
    recording = record(lambda x: xp_of(x).sum(xp_of(x).tanh(xp_of(x).concat([x, -x]))), x)
    recording(x)


def test_numbers_agree_within_roundings_alone():
    from xpnet.replay.plans.check import _difference

    x = numpy.asarray([1.0, 1e-3, numpy.nan, numpy.inf, 0.0], "float32")
    assert _difference(x, x * numpy.float32(1 + 1e-6), 1.0) is None
    for index, wrong in ((0, 1.001), (1, 2e-3), (2, 1.0), (3, -numpy.inf), (4, numpy.nan)):
        y = x.copy()
        y[index] = wrong
        assert _difference(y, x, 1.0) == (index,)
    assert _difference(numpy.asarray([True, False]), numpy.asarray([True, True]), 0.0) == (1,)
    halves = numpy.asarray([1.0, 1.0], "float16")
    assert _difference(halves + numpy.asarray([0, 0.1], "float16"), halves, 1.0) == (1,)
