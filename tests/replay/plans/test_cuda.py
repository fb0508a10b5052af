"""Plans for CuPy, on a stand-in for a CUDA device: see `host.py`. What runs on a GPU is the same text."""

import itertools
import threading

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
    neighbours,
    program,
)
from tests.replay.host import COMPILER
from xpnet import losses, nn, optim
from xpnet.autodiff import extended_namespace
from xpnet.replay.functions import BROADCASTING, FUNCTIONS
from xpnet.replay.kernels import c

pytestmark = [pytest.mark.host, pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")]


@pytest.fixture(autouse=True)
def a_plan_is_made(caplog):
    """Where none can be made, `jit` says so and calls the functions, and all results are right."""
    yield
    assert "jit calls one operation after the other" not in caplog.text


# -- kernels ------------------------------------------------------------------------------------------------


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

    def loss(x, labels):
        xp = xpnet.array_namespace(x)
        y = f(xp, x, labels)
        return xp.sum(xp.sin(y)), y

    both = xpnet.value_and_grad(loss, has_aux=True)
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


def test_a_plan_on_two_streams(on_host):
    """What was started on one stream may not be done yet when the plan runs on the other."""
    host = on_host()

    def f(x):
        xp = xpnet.array_namespace(x)
        y = xp.exp(x - xp.sum(x * x))
        return xp.sum(y * x, axis=0), xp.sum(y), y @ y.T

    recorded = xpnet.jit(f)
    random = numpy.random.default_rng(0)
    inputs = list(random.normal(size=(8, 300, 100)) / 200)
    recorded(inputs[0])
    found = []
    for number, x in enumerate(inputs):
        host.stream = f"stream {number % 2}"
        found.append(recorded(x))
    host.finish()
    assert host.graphs == 2
    assert_within_roundings(found, [f(x) for x in inputs], roundings=100)


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


def test_nvidia_does_not_contract(sources, nvidia):
    """A product and a sum are rounded one by one, as the functions that were recorded are."""
    with numpy.errstate(all="ignore"):
        xpnet.jit(lambda x, y: (x * y - x * y, x * x + y, (x - y) * x - 1))(*numpy.ones((2, 3), "float32"))
    text = "".join(nvidia(source, "compute_90") for source in sources)
    assert "mul.rn.f32" in text
    assert "fma" not in text


# -- products -----------------------------------------------------------------------------------------------


def train(net, *, optimizer=None, steps=5, features=4, batch=8):
    """Return the losses and the network of a training on random data, and the step."""
    optimizer = optimizer or optim.Adam(0.01)

    def step(net, state, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), loss

    step = xpnet.jit(step, donate=("net", "state"))
    random = numpy.random.default_rng(0)
    state, values = optimizer.init(net), []
    # All at once, so that no two batches are at one place.
    xs = [random.normal(size=(batch, features)).astype("float32") for _ in range(steps)]
    ys = [random.integers(0, 3, size=batch) for _ in range(steps)]
    for x, y in zip(xs, ys, strict=True):
        net, state, loss = step(net, state, x, y)
        values.append(loss)
    return values, net, step


def dense(depth=3, *, bias=True):
    layers = []
    for seed in range(depth - 1):
        layers += [nn.Dense(4 if seed == 0 else 5, 5, bias=bias, seed=seed), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dense(5, 3, seed=depth))


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_network_uses_the_epilogues(bias, on_host):
    expected, net, _ = train(dense(bias=bias))
    host = on_host()
    found, other, step = train(dense(bias=bias))
    assert_within_roundings((found, other), (expected, net), roundings=1000)
    one_step = [name for name in host.launched if name != "kernel"][:8]
    relu = "RELU_AUX_BIAS" if bias else "RELU_AUX"
    back = "DRELU_BGRAD" if bias else "DRELU"
    assert one_step == [relu, relu, "BIAS", "product", back, "product", back, "product"]
    assert "assign(" not in step.explain()


def test_gradients_of_a_product_and_of_a_transposed_one_are_added(on_host):
    def step(w, x):
        def loss(w):
            xp = xpnet.array_namespace(w)
            return xp.sum(xp.square(xp.tanh(x @ w) @ w.T - x))

        return xpnet.value_and_grad(loss)(w)

    random = numpy.random.default_rng(0)
    host = on_host()
    recorded = xpnet.jit(step)
    for _ in range(3):
        w, x = random.normal(size=(4, 3)), random.normal(size=(6, 4))
        assert_within_roundings(recorded(w, x), step(w, x))
    assert host.graphs == 1
    assert "assign(" not in recorded.explain()


def test_without_an_epilogue_the_product_is_plain(on_host):
    expected, net, _ = train(dense())
    host = on_host(refuses=lambda product: product.epilogue)
    found, other, _ = train(dense())
    assert_within_roundings((found, other), (expected, net), roundings=1000)
    assert set(host.launched) == {"kernel", "product"}


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        # Each time one is refused: by its epilogue, and by a shape of which the network has one.
        (("DRELU_BGRAD", 5, 3), ["RELU_AUX_BIAS", "RELU_AUX_BIAS", "BIAS", "product", "DRELU", "product",
                                 "DRELU_BGRAD", "product"]),
        (("DRELU", 5, 3), ["RELU_AUX_BIAS", "RELU_BIAS", "BIAS", "product", "product", "product",
                           "DRELU_BGRAD", "product"]),
        (("RELU_AUX", 4, 5), ["RELU_BIAS", "RELU_AUX_BIAS", "BIAS", "product", "DRELU_BGRAD", "product",
                              "product", "product"]),
        (("RELU", 4, 5), ["BIAS", "RELU_AUX_BIAS", "BIAS", "product", "DRELU_BGRAD", "product",
                          "product", "product"]),
        (("BIAS", 5, 3), ["RELU_AUX_BIAS", "RELU_AUX_BIAS", "product", "product", "DRELU_BGRAD", "product",
                          "DRELU_BGRAD", "product"]),
    ],
)  # fmt: skip
def test_a_product_loses_its_epilogue_alone(refused, expected, on_host):
    """A product that cuBLASLt cannot end as it should ends with less, and all others stay as they are."""
    epilogue, inner, outer = refused
    correct, net, _ = train(dense())

    def refuses(product):
        shape = {product.first.columns, product.second.columns}
        return epilogue in product.epilogue and shape == {inner, outer}

    host = on_host(refuses=refuses)
    found, other, step = train(dense())
    assert_within_roundings((found, other), (correct, net), roundings=1000)
    assert [name for name in host.launched if name != "kernel"][:8] == expected
    assert host.graphs == 1
    assert "assign(" not in step.explain()


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("kept", ["all", "some", "none"])
def test_not_a_number_before_a_relu(kept, precision, on_host):
    """NumPy's ReLU keeps it. A product whose own does not goes without, and says so."""

    def step(w, x, b, v, u):
        def loss(w, b):
            xp = xpnet.array_namespace(w)
            return xp.sum(xp.maximum(x @ w + b, 0) @ v)

        return xpnet.array_namespace(w).maximum(x @ u, 0), xpnet.value_and_grad(loss, argnums=(0, 1))(w, b)

    random = numpy.random.default_rng(0)
    shapes = (4, 9), (6, 4), (9,), (9, 3), (4, 2)
    arrays = [
        random.integers(-3, 4, size=shape).astype("float32") for shape in shapes
    ]  # exact in any precision
    arrays[1][2, 1] = numpy.nan
    expected = xpnet.jit(step, precision=precision)(*arrays)
    assert numpy.isnan(expected[0]).any(axis=1).tolist() == [row == 2 for row in range(6)]
    keeps = {
        "all": lambda _: True,
        "some": lambda product: "BIAS" in product.epilogue,
        "none": lambda _: False,
    }
    host = on_host(keeps_nan=keeps[kept])
    recorded = xpnet.jit(step, precision=precision)
    for _ in range(3):
        assert_within_roundings(recorded(*arrays), expected, roundings=1000)
    assert ("RELU" in host.launched) == (kept == "all")
    assert ("RELU_AUX_BIAS" in host.launched) == (kept != "none")
    said = {"all": "", "some": "1 products without the ReLU", "none": "2 products without the ReLU"}[kept]
    assert said in recorded.explain()
    assert ("make NaN zero" in recorded.explain()) == (kept != "all")
    assert host.graphs == 1


def test_a_mask_in_which_nan_is_positive_is_not_used(on_host, monkeypatch):
    """With NumPy, no gradient flows to it."""

    def step(w, x):
        return xpnet.grad(
            lambda w: xpnet.array_namespace(w).sum(xpnet.array_namespace(w).maximum(x @ w, 0) @ w)
        )(w)

    w, x = numpy.ones((3, 3), "float32"), numpy.ones((2, 3), "float32")
    w[0, 1] = numpy.nan
    monkeypatch.setattr("tests.replay.host.is_positive", lambda x: ~(x <= 0))
    host = on_host()
    assert_within_roundings(xpnet.jit(step)(w, x), step(w, x))
    assert "RELU" in host.launched
    assert "RELU_AUX" not in host.launched


def test_a_product_that_cublaslt_refuses_is_called_as_recorded(on_host):
    host = on_host(refuses=lambda product: product.first.columns == 5)
    expected, net, _ = train(dense())
    found, other, step = train(dense())
    assert_within_roundings((found, other), (expected, net), roundings=1000)
    assert "RELU_BIAS" in host.launched
    assert "a call of a library cannot be captured by this stand-in, at " in step.explain()
    assert "matmul(" in step.explain().splitlines()[-1]


def test_a_regression_has_no_gradient_of_relu_behind_a_single_output(on_host):
    """Its last layer has one output, so that the product of its gradient has an inner length of 1."""

    def step(net, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: losses.mse(net(x), y))(net)
        return gradient, loss

    net = nn.Sequential(nn.Dense(4, 5, seed=0), nn.ReLU(), nn.Dense(5, 6, seed=1), nn.ReLU(), nn.Dense(6, 1))
    random = numpy.random.default_rng(0)
    x, y = random.normal(size=(8, 4)).astype("float32"), random.normal(size=(8, 1)).astype("float32")
    host = on_host()
    assert_within_roundings(xpnet.jit(step)(net, x, y), step(net, x, y), roundings=1000)
    names = [name for name in host.launched if name != "kernel"]
    assert names == [
        "RELU_AUX_BIAS",
        "RELU_BIAS",
        "BIAS",
        "product",
        "product",
        "product",
        "DRELU_BGRAD",
        "product",
    ]


def test_arrays_that_begin_anywhere(on_host):
    """Arguments of products are copied to where they can be read fast, and views say where they begin."""

    def f(x, w, b, c):
        long = c * 2
        biased = x @ w + b, x @ (w * 2) + long[:12], x @ (w * 3) + long[1:13], x @ (w * 4) + long[::2]
        return *biased, x[1:] @ w, x[:, 1:] @ w[1:]

    def at(offset, shape):
        memory = numpy.zeros(1000, numpy.float32)
        start = -memory.ctypes.data % 256 // 4 + offset
        array = memory[start : start + numpy.prod(shape)].reshape(shape)
        array[...] = random.normal(size=shape)
        return array

    random = numpy.random.default_rng(0)
    host = on_host()
    recorded = xpnet.jit(f)
    for offset in (0, 1, 4, 64, 65):
        arrays = at(offset, (8, 7)), at(offset + 1, (7, 12)), at(offset + 2, (12,)), at(offset, (24,))
        assert_within_roundings(recorded(*arrays), f(*arrays), roundings=100)
    # A bias that begins within 16 bytes, and one whose elements stand apart, are added by a kernel.
    assert sorted(name for name in host.launched if name != "kernel")[::5] == ["BIAS"] * 2 + ["product"] * 4


def test_a_donated_array_that_begins_anywhere(on_host):
    """A product is written over it, and so over a copy where it begins elsewhere."""
    on_host()
    step = xpnet.jit(lambda w, x: (w @ x) @ x, donate=("w",))
    x, arrays = numpy.eye(3) * 2, [numpy.ones((3, 3)) for _ in range(64)]
    elsewhere = [w for w in arrays if w.ctypes.data % 256]
    for w in elsewhere[:4]:
        assert_within_roundings(step(w, x), numpy.full((3, 3), 4.0))
    assert "1 results written over arguments" in step.explain()


def test_a_mask_that_is_read_elsewhere_is_made(on_host):
    def f(x, w, g):
        xp = xpnet.array_namespace(x)
        z = x @ w
        h = xp.maximum(z, 0)
        mask = z > 0
        return h, xp.where(mask, g @ w, 0.0), mask

    random = numpy.random.default_rng(0)
    arrays = random.normal(size=(3, 4, 4)).astype("float32")
    host = on_host()
    recorded = xpnet.jit(f)
    for _ in range(3):
        assert_within_roundings(recorded(*arrays), f(*arrays))
    assert host.launched[0] == "RELU"
    assert "DRELU" not in host.launched


@pytest.mark.parametrize(
    "f",
    [
        lambda xp, z, b: xp.maximum(z + b, 0) + z,  # the product is read again
        lambda xp, z, b: (z + b, xp.maximum(z + b, 0)),  # the sum is returned
        lambda xp, z, b: xp.maximum(z + b, 1),
        lambda xp, z, b: xp.maximum(0.5 + z, 0) * b,
        lambda xp, z, b: z + z,
        lambda xp, z, b: xp.where(z > 0, z, 0.0) + b,
        lambda xp, z, b: b + z,
        lambda xp, z, b: z + b[:, None],
    ],
)
def test_what_only_looks_like_an_epilogue(f, on_host):
    on_host()
    random = numpy.random.default_rng(0)
    x, w = random.normal(size=(2, 4, 4)).astype("float32")
    b = random.normal(size=4).astype("float32")

    def g(x, w, b):
        return f(xpnet.array_namespace(x), x @ w, b)

    assert_within_roundings(xpnet.jit(g)(x, w, b), g(x, w, b))


def test_products_of_views_and_of_several_matrices(on_host):
    def f(x, y):
        xp = xpnet.array_namespace(x)
        a = x[0] @ y[1].T + x[0, :, ::-1] @ y[2].T
        return a, x @ xp.matrix_transpose(y), xp.matmul(x[:, 1:3], xp.matrix_transpose(y * 2)), x @ y[0].T

    random = numpy.random.default_rng(0)
    arrays = random.normal(size=(2, 3, 4, 4))[:, :, :3].copy()
    on_host()
    assert_within_roundings(xpnet.jit(f)(*arrays), f(*arrays), roundings=1000)


OPERANDS = {
    "a row and a matrix": ((5,), (5, 3)),
    "a matrix and a column": ((4, 5), (5,)),
    "a row and a column": ((5,), (5,)),
    "one column and one row": ((4, 1), (1, 3)),
    "one row and one column": ((1, 5), (5, 1)),
    "several matrices and one": ((2, 4, 5), (5, 3)),
    "several and one in several axes": ((2, 1, 3, 4, 5), (1, 5, 3)),
    "several matrices and a column": ((2, 4, 5), (5,)),
    "one matrix and several": ((4, 5), (2, 5, 3)),
    "a row and several matrices": ((5,), (2, 3, 5, 3)),
    "each of several with each": ((3, 1, 4, 5), (2, 5, 3)),
    "as many of each": ((2, 3, 4, 5), (2, 3, 5, 3)),
}
# How an operand lies in a larger array: what shape that has, and which part is taken.
LAYOUTS = {
    "rows": (lambda shape: shape, lambda x: x),
    "columns": (lambda shape: (*shape[:-2], *shape[:-3:-1]), lambda x: x.mT if x.ndim > 1 else x),
    "longer rows": (lambda shape: (*shape[:-1], shape[-1] + 1), lambda x: x[..., 1:]),
    "more rows": (lambda shape: (*(n + (k == len(shape) - 2) for k, n in enumerate(shape)),),
                  lambda x: x[..., :-1, :] if x.ndim > 1 else x),
    "every other element": (lambda shape: (*shape[:-1], 2 * shape[-1]), lambda x: x[..., ::2]),
}  # fmt: skip


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("name", OPERANDS)
def test_products_of_all_shapes(name, first, second, on_host):
    """Whatever can be described as matrices equally far apart goes to cuBLASLt, which can be captured."""
    random = numpy.random.default_rng(0)
    layouts = LAYOUTS[first], LAYOUTS[second]
    whole = [larger(shape) for shape, (larger, _) in zip(OPERANDS[name], layouts, strict=True)]
    arrays = [random.normal(size=shape) for shape in whole]

    def f(*arrays):
        x, y = (part(array) for array, (_, part) in zip(arrays, layouts, strict=True))
        assert (x.shape, y.shape) == OPERANDS[name]
        return x @ y

    host = on_host()
    recorded = xpnet.jit(f)
    for _ in range(3):
        assert_within_roundings(recorded(*arrays), f(*arrays), roundings=10)
    assert [name for name in host.launched if name != "kernel"] == ["product"] * 3
    assert host.graphs == 1
    describable = {"rows", "columns", "longer rows"}
    if describable.issuperset((first, second)) and name != "each of several with each":  # others need a copy
        assert "kernel" not in host.launched


def test_an_array_that_is_copied_for_both_sides(on_host):
    host = on_host()
    recorded = xpnet.jit(lambda x: (x[0, ::-1] @ x[0, ::-1], x[:, ::-1] @ x[:, ::-1]))
    x = numpy.random.default_rng(0).normal(size=(4, 4))
    assert_within_roundings(recorded(x), (x[0] @ x[0], x[:, ::-1] @ x[:, ::-1]))
    # A row and a column of the first ones, and one copy of the second ones.
    assert sorted(host.launched) == ["kernel"] * 3 + ["product"] * 2


def squares(net, x):
    """Return the sum of the squares of what a network makes, and its gradient."""

    def loss(net):
        y = net(x)
        return xpnet.array_namespace(y).sum(y * y)

    return xpnet.value_and_grad(loss)(net)


def test_heads_of_attention_are_copied_for_their_products(on_host):
    """Those of several sequences are not equally far apart."""
    net = nn.MultiHeadAttention(8, 2, seed=0)
    x = numpy.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")

    expected = squares(net, x)
    host = on_host()
    for precision, within in (("float32", 1e-5), ("bfloat16", 0.02)):
        recorded = xpnet.jit(squares, precision=precision)
        for one, other in zip(*map(xpnet.tree.leaves, (recorded(net, x), expected)), strict=True):
            numpy.testing.assert_allclose(one, other, rtol=within, atol=within * 10)
        assert host.launched.count("product") >= 6
        assert "matmul(" not in recorded.explain()
        host.launched.clear()


def test_a_sum_of_products_is_a_kernel(on_host):
    """CuPy's `vecdot` is a product of matrices by cuBLAS, which cannot be captured."""

    def f(x, y):
        xp = xpnet.array_namespace(x)
        return (
            xp.vecdot(x, x),
            xp.vecdot(x * 2, y[0]),
            xp.linalg.vecdot(x, y, axis=-2),
            xp.sqrt(xp.vecdot(x, y)),
        )

    random = numpy.random.default_rng(0)
    host = on_host()
    recorded = xpnet.jit(f)
    for _ in range(3):
        arrays = random.uniform(size=(2, 40, 30))
        assert_within_roundings(recorded(*arrays), f(*arrays), roundings=100)
    assert host.graphs == 1


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize(
    ("axes", "first", "second"),
    [
        (2, (3, 4, 5), (4, 5, 2)),
        (1, (3, 4), (4, 2)),
        (0, (3, 4), (2, 5)),
        (([1], [2]), (3, 4, 2), (2, 5, 4)),
        (([-1, 0], [0, 1]), (3, 4, 5), (5, 3, 2)),
        (3, (2, 3, 4), (2, 3, 4)),
    ],
)
def test_tensordot_is_a_product(axes, first, second, precision, on_host):
    def f(x, y):
        xp = xpnet.array_namespace(x)
        return xp.tensordot(x * 2, y, axes=axes) + 1, xp.linalg.tensordot(x, y * 3, axes=axes)

    random = numpy.random.default_rng(0)
    arrays = [random.normal(size=shape).astype("float32") for shape in (first, second)]
    expected = xpnet.jit(f, precision=precision)(*arrays)
    host = on_host()
    recorded = xpnet.jit(f, precision=precision)
    for _ in range(3):
        assert_within_roundings(recorded(*arrays), expected, roundings=100)
    assert [name for name in host.launched if name != "kernel"][:2] == ["product"] * 2
    assert "tensordot(" not in recorded.explain()


def test_gradients_are_clipped_in_a_graph(on_host):
    optimizer = optim.chain(optim.clip_by_global_norm(0.1), optim.SGD(0.1))
    expected, net, _ = train(dense(), optimizer=optimizer)
    host = on_host()
    found, other, step = train(dense(), optimizer=optimizer)
    assert_within_roundings((found, other), (expected, net), roundings=1000)
    assert host.graphs == 1
    assert "assign(" not in step.explain()


def test_networks_with_pooling_have_plans(on_host, caplog):
    """Stacks are stored by the kernels that make them, which is known when a kernel is judged."""

    net = nn.Sequential(nn.Conv2d(3, 8, 3, seed=0), nn.ReLU(), nn.MaxPool(2))
    x = numpy.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    on_host()
    assert_within_roundings(xpnet.jit(squares)(net, x), squares(net, x), roundings=1000)
    assert not caplog.records


@pytest.mark.parametrize("dtypes", [("int64", "int64"), ("float32", "float64"), ("complex64", "complex64")])
def test_products_that_cublaslt_does_not_know(dtypes, on_host):
    host = on_host()
    arrays = [numpy.ones(shape, dtype) for shape, dtype in zip(((4, 5), (5, 3)), dtypes, strict=True)]
    recorded = xpnet.jit(lambda x, y: x @ y)
    for _ in range(3):
        assert_within_roundings(recorded(*arrays), arrays[0] @ arrays[1])
    assert host.launched == []
    why = recorded.explain().splitlines()[-1]
    assert why.startswith("not captured: RuntimeError: a call of a library")
    assert ", at " in why
    assert "matmul(" in why


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("problem", ["", "no nvmath"])
def test_products_of_lower_precision(precision, problem, on_host):
    """As on NumPy, where the operands are rounded by functions of the standard."""

    def f(x, w, b):
        def loss(w, b):
            xp = xpnet.array_namespace(w)
            return xp.sum(xp.square(xp.maximum(x @ w + b, 0) @ w.T)) + xp.sum(x[:, 1:3] @ w[:2])

        return xpnet.value_and_grad(loss, argnums=(0, 1))(w, b)

    random = numpy.random.default_rng(0)
    arrays = [random.normal(size=shape).astype("float32") for shape in ((6, 4), (4, 4), (4,))]
    expected = xpnet.jit(f, precision=precision)(*arrays)
    host = on_host(problem=problem)
    recorded = xpnet.jit(f, precision=precision)
    for _ in range(3):
        assert_within_roundings(recorded(*arrays), expected)
    exact = f(*arrays)[0]
    assert 1e-6 < abs(float(recorded(*arrays)[0]) / float(exact) - 1) < 1e-1
    assert ("RELU_AUX_BIAS" in host.launched) == (not problem)
    narrow = f": {precision} (" in recorded.explain()
    assert narrow == (not problem and precision != "tf32")


NETWORKS = {
    "dropout": lambda: nn.Sequential(
        nn.Dense(4, 5, seed=0), nn.GELU(), nn.Dropout(0.5, seed=0), nn.Dense(5, 3, seed=1)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Dense(4, 5, bias=False, seed=0), nn.BatchNorm(5), nn.SiLU(), nn.Dense(5, 3, seed=1)
    ),
    "layer norm": lambda: nn.Sequential(
        nn.Dense(4, 5, seed=0), nn.LayerNorm(5), nn.Tanh(), nn.Dense(5, 3, seed=1)
    ),
    "ELU": lambda: nn.Sequential(nn.Dense(4, 5, seed=0), nn.ELU(), nn.Dense(5, 3, seed=1)),
}
IMAGES, SEQUENCES = (2, 8, 8, 3), (3, 5, 8)
LAYERS = {
    "attention": (SEQUENCES, lambda: nn.MultiHeadAttention(8, 2, seed=0)),
    "average pooling": (IMAGES, lambda: nn.Sequential(nn.AvgPool(2), nn.GlobalAvgPool())),
    "convolution": (IMAGES, lambda: nn.Sequential(nn.Conv2d(3, 8, 3, seed=0), nn.ReLU(), nn.MaxPool(2))),
    "convolution of a sequence": (SEQUENCES, lambda: nn.Conv1d(8, 3, 3, seed=0)),
    "group norm": (IMAGES, lambda: nn.Sequential(nn.Conv2d(3, 8, 3, seed=0), nn.GroupNorm(2, 8), nn.SiLU())),
    "positions": (SEQUENCES, lambda: nn.Sequential(nn.SinusoidalPositions(8), nn.Dense(8, 4, seed=1))),
    "transformer": (SEQUENCES, lambda: nn.TransformerBlock(8, 2, causal=True, seed=0)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_captured(name, on_host):
    shape, make = LAYERS[name]
    host, net = on_host(), make()
    recorded = xpnet.jit(squares)
    for seed in range(3):
        x = numpy.random.default_rng(seed).normal(size=shape).astype("float32")
        found, expected = (xpnet.tree.leaves(f(net, x)) for f in (recorded, squares))
        largest = max(numpy.max(abs(each)) for each in expected)  # a bias of the keys has a gradient of zero
        for one, other in zip(found, expected, strict=True):
            numpy.testing.assert_allclose(
                one, other, rtol=0, atol=1000 * numpy.finfo("float32").eps * largest
            )
    assert host.graphs == 1
    assert "assign(" not in recorded.explain()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("problem", ["", "no nvmath"])
def test_networks(name, problem, on_host):
    expected, net, _ = train(NETWORKS[name]())
    on_host(problem=problem)
    found, other, _ = train(NETWORKS[name]())
    assert_within_roundings((found, other), (expected, net), roundings=10_000)


# -- graphs -------------------------------------------------------------------------------------------------


def test_a_training_is_captured_once(on_host):
    host = on_host()
    train(dense(), steps=20)
    assert host.graphs == 1


def test_results_stay_when_the_next_ones_are_made(on_host):
    on_host()
    f = xpnet.jit(lambda x, w: (x @ w, xpnet.array_namespace(x).sum(x), w))
    random = numpy.random.default_rng(0)
    w = random.normal(size=(3, 3))
    inputs = list(random.normal(size=(6, 2, 3)))
    found = [f(x, w) for x in inputs]
    assert_within_roundings(found, [(x @ w, x.sum(), w) for x in inputs])
    assert all(result[2] is w for result in found)


def test_networks_in_turn_do_not_touch_each_other(on_host):
    """Two trainings with one step, each with parameters at places of their own."""
    host = on_host()
    step = xpnet.jit(lambda w, x: (w - x, xpnet.array_namespace(w).sum(w)), donate=("w",))
    one, two = numpy.zeros(3), numpy.ones(3)
    x = numpy.asarray([1.0, 2.0, 3.0])
    for k in range(1, 9):
        one, _ = step(one, x * 1)
        two, _ = step(two, x * 2)
        assert_within_roundings((one, two), (-k * x, 1 - 2 * k * x))
    assert host.graphs <= 2


def test_what_is_returned_twice_is_two_arrays(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w + x, w + x, x * 2, x * 2), donate=("w",))
    w = numpy.zeros(3)
    for k in range(1, 5):
        w, again, *rest = step(w, numpy.ones(3))
        assert_within_roundings((w, again, *rest), [numpy.full(3, float(n)) for n in (k, k, 2, 2)])
        assert not numpy.may_share_memory(w, again)
        assert not numpy.may_share_memory(*rest)
    assert "1 results written over arguments" in step.explain()


def test_what_is_not_donated_is_not_written_to(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w - x, w * x))
    w, x = numpy.ones(3), numpy.ones(3)
    for _ in range(4):
        assert_within_roundings(step(w, x), (numpy.zeros(3), numpy.ones(3)))
    assert_within_roundings((w, x), (numpy.ones(3), numpy.ones(3)))


def test_arguments_that_overlap_are_copied(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w + x, x * 2), donate=("w",))
    memory = numpy.arange(6.0)
    for _ in range(4):
        assert_within_roundings(step(memory[:3], memory[3:]), (memory[:3] + memory[3:], memory[3:] * 2))
        assert_within_roundings(memory, numpy.arange(6.0))
    x = numpy.ones(3)
    for _ in range(4):
        assert_within_roundings(step(x, x), (numpy.full(3, 2.0), numpy.full(3, 2.0)))


def test_an_argument_that_is_a_part_of_a_donated_one(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w + 1, x * 2), donate=("w",))
    for _ in range(4):
        w = numpy.arange(4.0)
        assert_within_roundings(step(w, w[1:3]), (w + 1, w[1:3] * 2))
        assert_within_roundings(w, numpy.arange(4.0))


def test_what_cannot_be_captured_is_launched_each_time(on_host):
    host = on_host()
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).cumulative_sum(x * 2) + 1)
    for scale in range(1, 6):
        x = numpy.arange(5.0) * scale
        assert_within_roundings(f(x), numpy.cumsum(x * 2) + 1)
    assert host.graphs == 0
    assert "not captured: RuntimeError: a call of a library" in f.explain()


def test_without_nvmath_a_plan_says_what_to_install(on_host):
    host = on_host(problem="nvmath-python is not installed; pip install it")
    *_, step = train(dense())
    assert host.graphs == 0
    assert "not captured: nvmath-python is not installed" in step.explain()


def test_where_a_plan_fails_the_functions_are_called(on_host, monkeypatch, caplog):
    host = on_host()

    def fail(*_):
        raise RuntimeError("the compiler is missing")

    monkeypatch.setattr(host, "kernel", fail)
    f = xpnet.jit(lambda x: x * 2 + 1)
    for _ in range(3):
        assert_within_roundings(f(numpy.ones(3)), numpy.full(3, 3.0))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "RuntimeError: the compiler is missing" in caplog.text
    caplog.clear()


def test_an_interrupted_capture_leaves_all_usable(on_host, monkeypatch):
    host = on_host()
    step = xpnet.jit(lambda w, x: w - x, donate=("w",))
    w = step(step(numpy.zeros(3), numpy.ones(3)), numpy.ones(3))
    other = xpnet.jit(lambda w, x: w - 2 * x, donate=("w",))
    w = other(w, numpy.ones(3))

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(host, "capture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            other(w, numpy.ones(3))
    assert_within_roundings(w, numpy.full(3, -4.0))
    for k in range(4):
        w = other(w, numpy.ones(3))
        assert_within_roundings(w, numpy.full(3, -6.0 - 2 * k))


def test_a_loop_within_a_plan_is_one_of_plans(on_host):
    def step(carried, x, w):
        xp = xpnet.array_namespace(carried, w)
        carried = xp.maximum(carried @ w, 0.0) + x
        return carried, carried * 2

    def f(carried, xs, w):
        last, ys = xpnet.scan(step, carried, xs * 2, w)
        return last + 1, ys

    random = numpy.random.default_rng(0)
    host = on_host()
    recorded = xpnet.jit(f)
    for _ in range(4):
        arrays = random.normal(size=(2, 3)), random.normal(size=(5, 2, 3)), random.normal(size=(3, 3)) / 3
        assert_within_roundings(recorded(*arrays), f(*arrays))
    assert host.graphs > 0


def test_two_threads_with_one_plan(on_host):
    on_host(problem="the stand-in captures one at a time")
    f = xpnet.jit(lambda x: (x * 2 + 1, xpnet.array_namespace(x).sum(x)))
    f(numpy.ones(1000))
    wrong = []

    def work(number):
        for _ in range(20):
            x = numpy.full(1000, float(number))
            y, total = f(x)
            if not (y == 2 * number + 1).all() or total != 1000 * number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
