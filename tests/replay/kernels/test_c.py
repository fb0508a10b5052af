"""Kernels in CUDA C do what NumPy does: compiled as C++ for a stand-in, see `host.py`."""

import itertools

import numpy
import pytest

import xpnet
from tests.replay.cases import (
    EXACT,
    ROWS,
    TINY,
    VIEWS,
    assert_within_roundings,
    check_views,
    gradient_of_rows,
    neighbours,
    program,
)
from tests.replay.plans.trainings import train
from xpnet import nn
from xpnet.autodiff import extended_namespace
from xpnet.replay.functions import BROADCASTING, FUNCTIONS
from xpnet.replay.kernels import c


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed, on_host):
    on_host()
    f, arrays = program(seed)
    recorded = xpnet.jit(f)
    for scale in (1.0, 2.0, -0.5, 3.0):
        inputs = [x * x.dtype.type(scale) for x in arrays]
        assert_within_roundings(recorded(*inputs), f(*inputs))


@pytest.mark.parametrize("width", [8, 128, 1024])
def test_equal_numbers_have_no_variance(width, on_host):
    on_host()

    def deviation(x):
        xp = xpnet.array_namespace(x)
        return xp.sqrt(xp.mean(x * x, axis=1) - xp.mean(x, axis=1) ** 2)

    x = numpy.repeat(numpy.random.default_rng(0).normal(size=(100, 1)), width, axis=1)
    with numpy.errstate(
        invalid="ignore"
    ):  # NumPy rounds sums of 128 equal numbers, which shows when recording
        found = xpnet.jit(deviation)(x)
    numpy.testing.assert_array_equal(found, numpy.zeros(100))


def every_function(dtype):
    """Return a function that calls all elementwise functions that kernels have for a dtype."""

    def f(x, y):
        xp = extended_namespace(x)
        kind = numpy.dtype(dtype).kind
        x, y = xp.where(x == y, x, x), xp.where(x == y, y, y)  # so that the rest becomes one kernel with it
        results = {}
        for name, row in sorted(FUNCTIONS.items()):
            if kind not in row.c:
                continue
            if name == "astype":
                results |= {
                    to: xp.astype(x, getattr(xp, to)) for to in ("float64", "int32", "uint16", "bool")
                }
            elif name == "where":
                results[name] = xp.where(x > y, x, y)
            elif name in ("maximum", "minimum") and kind == "b":
                continue  # not in the standard
            elif "shift" in name:
                results[name] = getattr(xp, name)(x, 3)
            elif name == "special.erf":
                results[name] = xp.special.erf(x)
            else:
                function = getattr(xp, name)
                results[name] = function(x, y) if name in BROADCASTING else function(x)
        return results

    return f


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool"])
def test_every_function(dtype, on_host):
    on_host()
    random = numpy.random.default_rng(0)
    if dtype.startswith("float"):
        pytest.importorskip("scipy")
        x, y = random.normal(size=(2, 40)).astype(dtype)
        x[:6] = [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 300.0]
        y[4] = numpy.nan
    else:
        x, y = random.integers(0, 2 if dtype == "bool" else 120, size=(2, 40)).astype(dtype)
    if dtype in ("int8", "int32", "int64"):
        x[::2] *= -1
    f = every_function(dtype)
    recorded = xpnet.jit(f)
    with numpy.errstate(all="ignore"):
        expected = f(x, y)
        found = recorded(x, y)
    for name in expected:
        usual = numpy.isfinite(x) if name in ("int32", "uint16") else slice(None)
        if name == "uint16" and dtype.startswith("float"):
            usual = usual & (x >= 0)  # C leaves open what others become
        assert_within_roundings(found[name][usual], expected[name][usual], roundings=8)
    plan = recorded.explain()
    assert "assign(" not in plan, "a function was called as it was recorded"


def test_integers_wrap(on_host):
    on_host()
    f = xpnet.jit(lambda x: (x * 0x21F0AAAD, (x * 3) >> 5, x - 1, -x))
    for dtype in ("int32", "uint32", "int8", "int64"):
        x = numpy.asarray([0, 1, 2**7 - 1, 77], dtype)
        x[3] = numpy.iinfo(dtype).max
        if dtype == "int8":
            f = xpnet.jit(lambda x: (x * 77, (x * 3) >> 5, x - 1, -x))
        with numpy.errstate(over="ignore"):
            expected = (x * x.dtype.type(77), (x * 3) >> 5, x - x.dtype.type(1), -x)
        found = f(x)
        assert_within_roundings(found[1:], expected[1:])


@pytest.mark.parametrize("name", EXACT)
def test_arithmetic_is_not_rearranged(name, on_host):
    on_host()
    f = EXACT[name]
    x, y = numpy.asarray([0.0, -0.0, 1.3, TINY, -5.0]), numpy.ones(5)
    with numpy.errstate(all="ignore"):
        numpy.testing.assert_array_equal(xpnet.jit(f)(x, y), f(x, y))


@pytest.mark.parametrize("shape", [(5, 7), (1, 6), (6, 1), (2, 3, 5), (40, 300)])
@pytest.mark.parametrize("f", ROWS, ids=lambda f: f.__name__)
def test_what_is_known_at_the_end_of_a_row_is_used(f, shape, on_host):
    on_host()
    random = numpy.random.default_rng(0)
    labels = random.integers(-shape[-1], shape[-1], size=(*shape[:-1], 1))
    both = gradient_of_rows(f)
    recorded = xpnet.jit(both, donate=("x",))
    for _ in range(3):
        x = random.normal(size=shape).astype("float32")
        expected = both(x, labels)
        assert_within_roundings(recorded(x, labels), expected, roundings=300)


@pytest.mark.parametrize("f", VIEWS, ids=lambda f: f.__name__)
def test_views_whose_rows_stand_apart(f, on_host):
    on_host()
    check_views(f)


def views_and_totals(seed):
    """Return a function of views of views, in kernels, totals, products and shapes, and its arguments."""
    random = numpy.random.default_rng(seed)
    shapes = [(*random.choice([1, 2, 3, 4, 6], size=random.integers(4)), 2) for _ in range(3)]
    arrays = [
        random.uniform(0.5, 1.5, size=shape).astype(["float32", "float64"][seed % 2]) for shape in shapes
    ]
    choices = random.integers(0, 2**31, size=400)

    def f(*arrays):
        xp, picks = xpnet.array_namespace(*arrays), iter(choices)

        def pick(*among):
            return among[next(picks) % len(among)]

        def turned(x):
            return xp.permute_dims(x, pick(*itertools.permutations(range(x.ndim))))

        def part(x):
            axis = pick(*range(x.ndim))
            key = pick(slice(None, None, 2), slice(None, None, -1), slice(None, 1), slice(-1, None))
            return x[(*[slice(None)] * axis, key)]

        def reshaped(x):
            return xp.reshape(x, pick((-1,), (1, -1), (-1, 2) if x.size % 2 == 0 else (-1, 1)))

        def total(x):
            axes = tuple(axis for axis in range(x.ndim) if pick(True, False))
            return pick(xp.sum, xp.max, xp.mean)(x, axis=axes or None, keepdims=pick(True, False))

        def stacked(x):
            return xp.stack([x, x * 2], axis=pick(*range(x.ndim + 1)))

        def unstacked(x):
            first, *rest = xp.unstack(x, axis=pick(*range(x.ndim)))
            return sum(rest, first)

        def combined(x):
            y = pick(*pool)
            try:
                return pick(xp.multiply, xp.maximum, lambda x, y: xp.where(x > y, x, y / 2))(x, y)
            except ValueError:  # their shapes do not fit
                return x + y[(0,) * y.ndim]

        def multiplied(x):
            x = x if x.ndim > 1 else xp.broadcast_to(x, (3, *x.shape))
            return x @ xp.matrix_transpose(x) / x.shape[-1]

        pool = list(arrays)
        for _ in range(16):
            x = pick(*pool)
            functions = turned, part, reshaped, total, stacked, unstacked, combined, multiplied
            y = pick(*functions, turned, combined)(x) if x.ndim else x * 2
            pool += [y] if y.size < 5000 else []
        return pool[3:]

    return f, arrays


@pytest.mark.parametrize("seed", range(20))
def test_kernels_read_any_view(seed, on_host):
    host = on_host()
    f, arrays = views_and_totals(seed)
    recorded = xpnet.jit(f)
    for scale in (1.0, 2.0, 0.5):
        inputs = [x * x.dtype.type(scale) for x in arrays]
        assert_within_roundings(recorded(*inputs), f(*inputs), roundings=1000)
    assert host.graphs == 1
    assert "assign(" not in recorded.explain()


def test_a_sequence_of_one_array_is_one(on_host):
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.meshgrid(x)[0] * 2, xp.broadcast_arrays(x)[0] + 1, xp.unstack(x[None])[0] - 1

    on_host()
    assert_within_roundings(xpnet.jit(f)(numpy.arange(3.0)), f(numpy.arange(3.0)))


def test_constant_arrays_are_handed_to_kernels(on_host):
    host, places = on_host(), numpy.arange(12.0).reshape(3, 4)
    recorded = xpnet.jit(lambda x: (x * places + places[0], xpnet.array_namespace(x).where(places > 5, x, 0)))
    for k in range(1, 4):
        x = numpy.full((3, 4), float(k))
        assert_within_roundings(recorded(x), (x * places + places[0], numpy.where(places > 5, x, 0)))
    assert set(host.launched) == {"kernel"}
    assert host.graphs == 1


def test_stacks_are_parts_of_kernels(on_host):
    host = on_host()
    recorded = xpnet.jit(lambda x: neighbours(xpnet.array_namespace(x), x, None))
    recorded(numpy.ones((6, 4, 16), numpy.float32))
    assert host.launched == ["kernel"]
    assert "assign(" not in recorded.explain()


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (300, 40), (1, 70), (300, 100), (300, 200)])
def test_totals_of_many_blocks(shape, on_host):
    """Each block leaves a part; the last one puts them together, and leaves all ready for the next run."""
    on_host()

    def f(x):
        xp = xpnet.array_namespace(x)
        y = xp.exp(x)
        numbers = xp.sum(y), xp.max(x), xp.mean(x * x), xp.min(x)
        rows = xp.sum(y * x, axis=0), xp.max(x + 1, axis=0), xp.mean(y, axis=0)
        return numbers, rows, (xp.sum(y - x, axis=1), xp.min(x, axis=1), y)

    recorded = xpnet.jit(f)
    for seed in range(3):
        x = numpy.random.default_rng(seed).normal(size=shape)
        assert_within_roundings(recorded(x), f(x))
    assert "assign(" not in recorded.explain()


def test_totals_of_several_kernels_and_steps(on_host):
    """Kernels in strips and with numbers behind each other, with the sums of one as the input of the next."""
    on_host()

    def f(x, w):
        xp = xpnet.array_namespace(x)
        for _ in range(3):
            norm = xp.sqrt(xp.sum(x * x))
            x = x / norm - xp.mean(x, axis=0) * xp.max(x, axis=0)
        return x, xp.sum(w * w), xp.sum(w * w, axis=0), xp.sum(x, axis=0)

    recorded = xpnet.jit(f)
    for seed in range(5):
        random = numpy.random.default_rng(seed)
        arrays = random.normal(size=(300, 200)), random.normal(size=(257, 97))
        assert_within_roundings(recorded(*arrays), f(*arrays), roundings=100)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_elements_of_any_dtype_are_picked_from_rows(dtype, on_host):
    on_host()
    f = xpnet.jit(lambda x, i: xpnet.array_namespace(x).take_along_axis(x, i, axis=-1))
    x, i = numpy.arange(12).reshape(3, 4).astype(dtype), numpy.asarray([[2], [0], [-1]])
    found = f(x, i)
    assert found.dtype == x.dtype
    numpy.testing.assert_array_equal(found, numpy.take_along_axis(x, i, axis=-1))


def test_an_index_out_of_range_is_not_a_number(on_host):
    on_host()
    f = xpnet.jit(lambda x, i: xpnet.array_namespace(x).take_along_axis(x * 2, i, axis=-1) + 1)
    x = numpy.ones((3, 4))
    f(x, numpy.asarray([[0], [3], [-4]]))
    numpy.testing.assert_array_equal(f(x, numpy.asarray([[0], [4], [-5]])), [[3.0], [numpy.nan], [numpy.nan]])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1, 1), ()])
def test_empty_and_tiny_arrays(shape, on_host):
    on_host()

    def f(x):
        y = (x + 1) * 2 - x
        return y, xpnet.array_namespace(x).sum(y * y)

    recorded = xpnet.jit(f)
    for _ in range(3):
        assert_within_roundings(recorded(numpy.ones(shape)), f(numpy.ones(shape)))


def test_rows_too_long_to_be_kept_are_left_in_memory(on_host):
    host = on_host()

    def f(x):
        xp = xpnet.array_namespace(x)
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        return e / xp.sum(e, axis=-1, keepdims=True)

    for columns, steps in ((100, 1), (20_000, 2)):
        recorded = xpnet.jit(f)
        x = numpy.random.default_rng(0).normal(size=(2, columns))
        assert_within_roundings(recorded(x), f(x))
        assert host.launched == ["kernel"] * steps
        host.launched.clear()


def many_totals(x):
    """More than would fit into a block's memory if each had a part of it."""
    xp = xpnet.array_namespace(x)
    totals = []
    for k in range(20):
        x = 0.9 * x + k
        totals += [xp.sum(x, axis=0), xp.max(x, axis=0)]
    return totals


def test_many_totals_of_one_kernel(on_host):
    host = on_host()
    recorded = xpnet.jit(many_totals)
    for seed in range(2):
        x = numpy.random.default_rng(seed).normal(size=(300, 70)).astype("float32")
        assert_within_roundings(recorded(x), many_totals(x), roundings=100)
    assert host.launched == ["kernel"] * 2


@pytest.fixture
def nvidia():
    """Return a function that compiles a kernel with NVIDIA's compiler, which needs no GPU."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="pip install cuda-bindings nvidia-cuda-nvrtc")

    def compiled(source, architecture):
        code = (c.CUDA + c.PRELUDE + source).encode()
        _, program = nvrtc.nvrtcCreateProgram(code, b"kernel.cu", 0, [], [])
        options = [f"--gpu-architecture={architecture}".encode(), *map(str.encode, c.OPTIONS)]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        # Two bytes or more are an object of its own, which may be written to.
        if int(error):
            log = bytes(1 + nvrtc.nvrtcGetProgramLogSize(program)[1])
            nvrtc.nvrtcGetProgramLog(program, log)
            pytest.fail(log.decode())
        if architecture.startswith("sm"):
            return ""
        ptx = bytes(1 + nvrtc.nvrtcGetPTXSize(program)[1])
        nvrtc.nvrtcGetPTX(program, ptx)
        return ptx.decode()

    return compiled


@pytest.fixture
def sources(on_host, monkeypatch):
    """The sources of the kernels that the stand-in is asked for."""
    host, found = on_host(), []
    kernel = host.kernel
    monkeypatch.setattr(host, "kernel", lambda source, grid: found.append(source) or kernel(source, grid))
    return found


def test_nvidia_compiles_the_kernels(sources, nvidia):
    with numpy.errstate(all="ignore"):
        for dtype in ("float32", "int32", "uint32", "bool"):
            xpnet.jit(every_function(dtype))(*numpy.ones((2, 3), dtype))
    train(
        nn.Sequential(
            nn.Dense(4, 5, seed=0), nn.LayerNorm(5), nn.Dropout(0.5, seed=0), nn.Dense(5, 3, seed=1)
        )
    )
    xpnet.jit(many_totals)(numpy.ones((300, 70), "float32"))
    f, arrays = views_and_totals(0)
    xpnet.jit(f)(*arrays)
    assert len(sources) > 9
    for source in sources:
        nvidia(source, "sm_90")  # to the end, where the size of a block's memory is known


def test_lists_stay_where_they_are_handed_in(sources, nvidia):
    """Each thread would copy them otherwise, to pick from them."""
    arrays = [numpy.ones(n, "float32") for n in (2, 30, 400)]
    for function in ("exp", "sum"):
        for number in (2, 3):
            xpnet.jit(lambda *x, f=function: [getattr(xpnet.array_namespace(*x), f)(a) for a in x])(
                *arrays[:number]
            )
    assert len(sources) == 4
    for source in sources:
        assert "each_a0" in source
        assert ".local" not in nvidia(source, "compute_90")


def test_nvidia_does_not_contract(sources, nvidia):
    """A product and a sum are rounded one by one, as the functions that were recorded are."""
    with numpy.errstate(all="ignore"):
        xpnet.jit(lambda x, y: (x * y - x * y, x * x + y, (x - y) * x - 1))(*numpy.ones((2, 3), "float32"))
    text = "".join(nvidia(source, "compute_90") for source in sources)
    assert "mul.rn.f32" in text
    assert "fma" not in text
