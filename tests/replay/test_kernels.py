"""Loops of numba do what NumPy does, at shapes that are broadcast and reduced in all ways."""

import numpy
import pytest

import xpnet
from xpnet.replay.kernels import pattern

pytest.importorskip("numba")

WHOLE = (3, 4, 5)
SHAPES = [(), (1,), (5,), (4, 5), (1, 1, 5), (3, 1, 1), (3, 4, 1), (3, 4, 5), (1, 4, 1), (4, 1)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 4, 5), ("full", 0)),
        ((), ("number", 0)),
        ((1, 1), ("number", 0)),
        ((5,), ("row", 1)),
        ((1, 4, 5), ("row", 2)),
        ((3, 4, 1), ("column", 1)),
        ((3, 1, 1), ("column", 2)),
        ((4, 1), None),
        ((3, 1, 5), None),
    ],
)
def test_pattern(shape, expected):
    assert pattern(shape, WHOLE) == expected


def program(seed):
    """Return a function of some arrays, made of elementwise functions and reductions, and the arrays."""
    random = numpy.random.default_rng(seed)
    dtype = ["float32", "float64"][seed % 2]
    shapes = [WHOLE, WHOLE, *(SHAPES[i] for i in random.integers(len(SHAPES), size=3))]
    arrays = [random.normal(size=shape).astype(dtype) for shape in shapes]
    choices = random.integers(0, 2**31, size=60)

    def f(*arrays):
        xp = xpnet.array_namespace(*arrays)
        picks = iter(choices)
        binary = [xp.add, xp.subtract, xp.multiply, xp.maximum, xp.minimum, lambda a, b: a / (1 + b * b)]
        unary = [
            abs,
            xp.square,
            lambda x: -x,
            lambda x: xp.sqrt(1 + x * x),
            lambda x: xp.where(x > 0, x, 0.5),
        ]
        pool, ends = list(arrays), []
        for _ in range(8):
            kind = next(picks) % 4
            x, y = pool[next(picks) % len(pool)], pool[next(picks) % len(pool)]
            if kind == 0:
                pool.append(unary[next(picks) % len(unary)](x))
            elif kind == 3 and len(x.shape) == 3:
                reduce = [xp.sum, xp.max, xp.min][next(picks) % 3]
                axes = [None, -1, 0, (0, 1), (1, 2), 1][next(picks) % 6]
                y = reduce(x, axis=axes, keepdims=bool(next(picks) % 2))
                ends.append(y)
                pool.append(y if y.shape in SHAPES else x * 2)
            else:
                try:
                    pool.append(binary[next(picks) % len(binary)](x, y))
                except ValueError:
                    continue  # their shapes do not fit
        return [pool[-1], pool[-2], *ends]

    return f, arrays


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed):
    f, arrays = program(seed)
    recorded = xpnet.jit(f)
    for scale in (1.0, 2.0, -0.5):
        inputs = [x * x.dtype.type(scale) for x in arrays]
        for one, other in zip(recorded(*inputs), f(*inputs), strict=True):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            eps = numpy.finfo(one.dtype).eps
            numpy.testing.assert_allclose(one, other, rtol=100 * eps, atol=100 * eps * numpy.max(abs(other)))


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


TINY = 1e-310
EXACT = {
    "infinity stays": lambda x, y: (x + numpy.inf) - numpy.inf + y,
    "what is rounded away stays away": lambda x, y: (x + 1e16) - 1e16 + y * 0,
    "a division is one": lambda x, y: (x * 1) / TINY + y * 0,
    "overflow": lambda x, y: x * 1e200 * 1e200 * 1e-300 + y * 0,
    "the sign of zero": lambda x, y: 1 / (x * 0 + 0.0) + 1 / -(x - x) + y * 0,
}


@pytest.mark.parametrize("name", EXACT)
def test_arithmetic_is_not_rearranged(name):
    f = EXACT[name]
    recorded = xpnet.jit(f)
    x, y = numpy.asarray([0.0, -0.0, 1.3, TINY, -5.0]), numpy.ones(5)
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


def test_threads_are_used_for_large_arrays_and_not_after_a_fork(monkeypatch):
    from xpnet.replay import loops

    monkeypatch.setattr("xpnet.replay.numpy.PARALLEL", 1000)
    f = xpnet.jit(lambda x: (x + 1) * 2 - x)
    x = numpy.arange(5000.0)
    numpy.testing.assert_array_equal(f(x), (x + 1) * 2 - x)
    monkeypatch.setattr(loops, "_forked", True)
    numpy.testing.assert_array_equal(f(x), (x + 1) * 2 - x)


def test_kernels_are_kept_between_runs(tmp_path, monkeypatch):
    from xpnet.replay import loops

    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path))
    loops.compiled.cache_clear()
    f = xpnet.jit(lambda x: (x + 0.125) * 0.375 - x)
    x = numpy.arange(5.0)
    numpy.testing.assert_array_equal(f(x), (x + 0.125) * 0.375 - x)
    (source,) = (tmp_path / "kernels").glob("*.py")
    assert "def kernel(" in source.read_text()
    assert list((tmp_path / "kernels" / "__pycache__").glob("*.nbc"))
    loops.compiled.cache_clear()


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    from xpnet.replay import loops

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path / "file"))
    loops.compiled.cache_clear()
    f = xpnet.jit(lambda x: (x + 0.625) * 0.875 - x)
    x = numpy.arange(5.0)
    numpy.testing.assert_array_equal(f(x), (x + 0.625) * 0.875 - x)
    loops.compiled.cache_clear()


def standardize(xp, x, _):
    centered = x - xp.mean(x, axis=-1, keepdims=True)
    return centered / xp.sqrt(xp.mean(centered * centered, axis=-1, keepdims=True) + 1e-5)


def log_softmax(xp, x, _):
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1))[..., None]


def largest_margin(xp, x, labels):
    correct = xp.take_along_axis(x * 2, labels, axis=-1)
    return xp.max(x - correct, axis=-1) + xp.reshape(correct, x.shape[:-1])


def picked_from_an_argument_that_is_overwritten(xp, x, labels):
    return x + xp.sum(x, axis=-1, keepdims=True) + xp.take_along_axis(x, labels, axis=-1)


def scores(xp, x, labels):
    return xp.mean(xp.square(xp.take_along_axis(log_softmax(xp, x, labels), labels, axis=-1)[..., 0]))


ROWS = [standardize, log_softmax, largest_margin, picked_from_an_argument_that_is_overwritten, scores]


@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (1, 6), (6, 1), (2, 3, 5)])
@pytest.mark.parametrize("f", ROWS, ids=lambda f: f.__name__)
def test_what_is_known_at_the_end_of_a_row_is_used(f, shape):
    random = numpy.random.default_rng(0)
    labels = random.integers(-shape[-1], shape[-1], size=(*shape[:-1], 1))

    def loss(x, labels):
        xp = xpnet.array_namespace(x)
        y = f(xp, x, labels)
        return xp.sum(xp.sin(y)), y

    both = xpnet.value_and_grad(loss, has_aux=True)
    recorded = xpnet.jit(both, donate=("x",))
    for dtype in ("float32", "float64"):
        for _ in range(2):
            x = random.normal(size=shape).astype(dtype)
            expected = both(x, labels)
            for one, other in zip(
                xpnet.tree.leaves(recorded(x, labels)), xpnet.tree.leaves(expected), strict=True
            ):
                tolerance = 100 * numpy.finfo(dtype).eps
                assert one.dtype == other.dtype
                numpy.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_a_cross_entropy_is_one_loop():
    def loss(logits, labels):
        return xpnet.losses.cross_entropy(logits, labels)

    recorded = xpnet.jit(xpnet.value_and_grad(loss))
    recorded(numpy.ones((8, 10), numpy.float32), numpy.zeros(8, numpy.int64))
    assert recorded.explain().count("take_along_axis") == 1
    assert "2 steps" in recorded.explain()  # the first makes an array for the gradient


def test_an_index_out_of_range_is_refused():
    recorded = xpnet.jit(lambda x, i: xpnet.array_namespace(x).take_along_axis(x * 2, i, axis=-1) + x)
    x = numpy.ones((3, 4))
    recorded(x, numpy.asarray([[0], [3], [-4]]))
    for wrong in (4, -5):
        with pytest.raises(IndexError, match="take_along_axis"):
            recorded(x, numpy.asarray([[0], [wrong], [0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [7, 1_000, 100_003])
def test_a_total_is_added_up_in_double_precision_inside_the_loop(size, dtype):
    x = numpy.random.default_rng(0).uniform(0.5, 1.5, size).astype(dtype)
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).sum(x * x))
    expected = numpy.asarray(x * x, "float64").sum()
    assert f(x).dtype == dtype
    numpy.testing.assert_allclose(f(x), expected, rtol=2 * numpy.finfo(dtype).eps)
    assert f.explain().count("out=") == 0
    assert "multiply_sum(" in f.explain()


def test_a_total_passes_nan_and_infinity_on():
    x = numpy.ones(1_000)
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).sum(x * 2))
    for value in (numpy.inf, -numpy.inf, numpy.nan):
        x[500] = value
        numpy.testing.assert_equal(f(x), value)
