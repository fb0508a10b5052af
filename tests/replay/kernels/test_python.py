"""Loops of numba do what NumPy does, at shapes that are broadcast and reduced in all ways."""

import numpy
import pytest
from helpers import rounding

import xpnet
from tests.replay.cases import (
    EXACT,
    ROWS,
    VIEWS,
    assert_identical,
    check_views,
    gradient_of_rows,
    neighbours,
    program,
)
from xpnet.autodiff import extended_namespace

pytest.importorskip("numba")


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed):
    f, arrays = program(seed)
    recorded = xpnet.jit(f)
    for scale in (1.0, 2.0, -0.5):
        inputs = [x * x.dtype.type(scale) for x in arrays]
        for one, other in zip(recorded(*inputs), f(*inputs), strict=True):
            assert_identical(one, other)


def test_nan_and_infinity():
    def f(x, y):
        xp = xpnet.array_namespace(x)
        z = xp.maximum(x, y) + 0.0
        return z, xp.minimum(x, y) * 1.0, xp.max(z, axis=-1), xp.sum(z * 1.0, axis=0), xp.where(x == y, x, y)

    values = [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 1.0]
    x, y = (a.copy() for a in numpy.meshgrid(values, values))
    recorded = xpnet.jit(f)
    with numpy.errstate(invalid="ignore"):
        for one, other in zip(recorded(x, y), f(x, y), strict=True):
            numpy.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", EXACT)
def test_arithmetic_is_not_rearranged(name):
    f = EXACT[name]
    recorded = xpnet.jit(f)
    x, y = numpy.asarray([0.0, -0.0, 1.3, 49.0, -5.0]), numpy.ones(5)
    with numpy.errstate(all="ignore"):
        for _ in range(2):
            numpy.testing.assert_array_equal(recorded(x, y), f(x, y))


def test_a_reduction_of_no_axes():
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).sum(x * 2, axis=()))
    numpy.testing.assert_array_equal(f(numpy.ones((2, 3))), 2 * numpy.ones((2, 3)))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1, 1), (1,), ()])
def test_empty_and_tiny_arrays(shape):
    def f(x):
        y = (x + 1) * 2 - x
        return y, xpnet.array_namespace(x).sum(y * y)

    x = numpy.ones(shape)
    recorded = xpnet.jit(f)
    for one, other in zip(recorded(x), f(x), strict=True):
        numpy.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("most", [1, 100, 100_000])
def test_long_loops_are_done_in_parts(most, monkeypatch):
    monkeypatch.setattr("xpnet.replay.plans.rounds.WORTH_IT", 0)
    monkeypatch.setattr("xpnet.replay.plans.rounds.LONGEST_PART", most)
    monkeypatch.setattr("xpnet.replay.plans.rounds.LONGEST", 8 * most)

    def f(x, row, column, number):
        y = xpnet.array_namespace(x).max(x, axis=1, keepdims=True)
        beside = xpnet.array_namespace(x).stack([x * 3, x - 1], axis=1)
        return (x + row) * column - x / number, x[:, 1:] * 2 + x[:, :-1], (x - y) * 2 + y, beside

    random = numpy.random.default_rng(0)
    recorded = xpnet.jit(f, donate=("x",))
    for _ in range(2):
        arguments = [random.normal(size=shape) for shape in ((50, 30), (30,), (50, 1), ())]
        expected = f(*arguments)
        for one, other in zip(recorded(*arguments), expected, strict=True):
            numpy.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (1, 6), (6, 1), (2, 3, 5)])
@pytest.mark.parametrize("f", ROWS, ids=lambda f: f.__name__)
def test_what_is_known_at_the_end_of_a_row_is_used(f, shape):
    random = numpy.random.default_rng(0)
    labels = random.integers(-shape[-1], shape[-1], size=(*shape[:-1], 1))
    both = gradient_of_rows(f)
    recorded = xpnet.jit(both, donate=("x",))
    for dtype in ("float32", "float64"):
        for _ in range(2):
            x = random.normal(size=shape).astype(dtype)
            expected = both(x, labels)
            for one, other in zip(
                xpnet.tree.leaves(recorded(x, labels)), xpnet.tree.leaves(expected), strict=True
            ):
                tolerance = rounding(100, dtype)
                assert one.dtype == other.dtype
                numpy.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("f", VIEWS, ids=lambda f: f.__name__)
def test_views_whose_rows_stand_apart(f):
    check_views(f)


def test_views_and_stacks_are_parts_of_loops():
    recorded = xpnet.jit(lambda x: neighbours(xpnet.array_namespace(x), x, None))
    recorded(numpy.ones((6, 4, 16), numpy.float32))
    assert recorded.explain().count("subtract_add_stack(") == 1
    assert "stack([" not in recorded.explain()


def test_a_cross_entropy_is_one_loop():
    def loss(logits, labels):
        return xpnet.losses.cross_entropy(logits, labels)

    recorded = xpnet.jit(xpnet.value_and_grad(loss))
    recorded(numpy.ones((8, 10), numpy.float32), numpy.zeros(8, numpy.int64))
    assert recorded.explain().count("take_along_axis") == 1
    assert "native code: 1 steps" in recorded.explain()


def test_an_index_out_of_range_is_refused():
    recorded = xpnet.jit(lambda x, i: xpnet.array_namespace(x).take_along_axis(x * 2, i, axis=-1) + x)
    x = numpy.ones((3, 4))
    recorded(x, numpy.asarray([[0], [3], [-4]]))
    for wrong in (4, -5):
        with pytest.raises(IndexError, match="take_along_axis"):
            recorded(x, numpy.asarray([[0], [wrong], [0]]))


# Below eight elements, and at the ends of eights, of parts of 128, of halves of what is longer, of loops, and
# beyond NumPy's buffer.
COUNTS = [1, 2, 7, 8, 9, 15, 16, 127, 128, 129, 136, 137, 255, 257, 300, 1_000, 1_024, 1_025, 2_060, 8_200]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_have_the_digits_that_they_have_in_numpy(dtype):
    def f(x):
        xp = xpnet.array_namespace(x)
        y = x * x - x
        of_rows = [g(z, axis=-1) for g in (xp.sum, xp.mean) for z in (x, y)]
        return [*of_rows, xp.sum(y, axis=0), xp.sum(y), xp.mean(of_rows[2]), xp.sum(of_rows[0] * 2)]

    random = numpy.random.default_rng(0)
    recorded = xpnet.jit(f)
    shapes = [(3, n) for n in COUNTS] + [(n, 3) for n in COUNTS] + [(n, 1) for n in COUNTS] + [(3, 5, 60)]
    for shape in shapes:
        x = random.normal(size=shape).astype(dtype)
        for one, other in zip(recorded(x), f(x), strict=True):
            assert_identical(one, other)


@pytest.mark.parametrize("size", [100_003, 1_000_000])
def test_a_long_sum_is_a_part_of_a_loop(size):
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).sum(x * x))
    x = numpy.random.default_rng(0).uniform(0.5, 1.5, size)
    assert_identical(f(x), numpy.sum(x * x))
    assert f.explain().count("out=") == 0
    assert "multiply_sum(" in f.explain()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [3, 4, 7, 8, 16, 31, 128, 200])
def test_equal_numbers_have_the_variance_that_they_have_in_numpy(width, dtype):
    def deviation(x):
        xp = xpnet.array_namespace(x)
        return xp.sqrt(xp.mean(x * x, axis=1) - xp.mean(x, axis=1) ** 2)

    x = numpy.repeat(numpy.random.default_rng(0).normal(size=(60, 1)), width, axis=1).astype(dtype)
    with numpy.errstate(invalid="ignore"):
        assert_identical(xpnet.jit(deviation)(x), deviation(x))
        if width & (width - 1) == 0 and width <= 16:  # which adds up without rounding
            assert not numpy.any(xpnet.jit(deviation)(x))


@pytest.mark.parametrize("exponent", [2, 0.5, -1, numpy.float64(2), numpy.float64(0.5)])
def test_powers_that_numpy_computes_by_other_functions(exponent):
    x = numpy.random.default_rng(0).uniform(0.1, 10, size=500)
    f = xpnet.jit(lambda x: x**exponent * 1)
    assert_identical(f(x), x**exponent)
    assert "pow_multiply" in f.explain()


@pytest.mark.parametrize(("strides", "dilations"), [((1, 1), (1, 1)), ((2, 1), (1, 2))])
def test_windows_are_added_in_one_order(strides, dilations):
    w = numpy.random.default_rng(0).normal(size=(2, 6, 5, 3, 3, 4)).astype("float32")
    shape = (2, *(n * s + 2 * d for n, s, d in zip((6, 5), strides, dilations, strict=True)), 4)

    def f(w):
        return extended_namespace(w).add_windows(w, shape=shape, strides=strides, dilations=dilations)

    assert_identical(xpnet.jit(f)(w), f(w))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_sum_of_what_is_overwritten(axis):
    f = xpnet.jit(lambda x: (x * 2 + 1, xpnet.array_namespace(x).sum(x, axis=axis)), donate=("x",))
    for _ in range(2):
        x = numpy.arange(40.0).reshape(4, 10)
        expected = x * 2 + 1, numpy.sum(x, axis=axis)
        for one, other in zip(f(x), expected, strict=True):
            assert_identical(one, other)


def test_what_cancels_in_numpy_cancels():
    def f(x):
        xp = xpnet.array_namespace(x)
        y = xp.concat([x, -x], axis=1)
        return xp.sum(y * 3, axis=1), xp.sum(x * 3, axis=1) - (3 * x[:, 0] + 3 * x[:, 1] + 3 * x[:, 2])

    x = numpy.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    both = xpnet.jit(f)(x)
    assert_identical(both[0], f(x)[0])
    assert not numpy.any(both[1])


def test_a_total_passes_nan_and_infinity_on():
    x = numpy.ones(1_000)
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).sum(x * 2))
    for value in (numpy.inf, -numpy.inf, numpy.nan):
        x[500] = value
        numpy.testing.assert_equal(f(x), value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integers_beside_floating_point_numbers_may_be_long(dtype):
    x = numpy.asarray([1.0, -0.5, 3.0], dtype)
    f = xpnet.jit(lambda x: x * 2**70 + 2**65)
    assert_identical(f(x), x * 2.0**70 + 2.0**65)
