"""Copies, indices, integers and sums within tables are as the functions that were recorded have them."""

import numpy
import pytest

import xpnet
from xpnet import losses, nn, optim
from xpnet.autodiff import extended_namespace
from xpnet.replay.plans import products

pytest.importorskip("numba")
pytestmark = pytest.mark.plans("numba")

random = numpy.random.default_rng(0)


def in_python(plan):
    """Return the lines of a plan that Python does, but for those that make arrays and views."""
    _, *lines, _ = plan.source.splitlines()
    names = ("# ", "if run", "del ", "check.")
    lines = [line.strip() for line in lines if not line.strip().startswith(names)]
    return [line for line in lines if " = empty(" not in line]


def drawn(*shape, dtype="float32"):
    return random.normal(size=shape).astype(dtype)


COPIES = {
    "reshape": lambda xp, x: xp.reshape(xp.permute_dims(x, (2, 0, 1)), (-1,)) * 1,
    "reversed": lambda xp, x: xp.concat([x[::-1, :, ::2], x[..., 1::2]], axis=-1),
    "concat": lambda xp, x: xp.concat([x, x[:, 1:] * 2, x[:, :1]], axis=1),
    "nothing": lambda xp, x: xp.concat([x[:0], x, x[4:]], axis=0),
    "stack": lambda xp, x: xp.stack([x[..., :2], x[..., 2:4]], axis=-1),
    "windows": lambda xp, x: xp.reshape(
        extended_namespace(x).windows(x, sizes=(2,), strides=(1,), dilations=(2,)), (-1, 2)
    ),
    "setitem": lambda xp, x: changed(xp, x, (slice(None, None, -2), ..., 1), x[:2, :, 0]),
    "a number": lambda xp, x: changed(xp, x, (1, slice(1, 3)), 7),
    "itself": lambda xp, x: changed(xp, x, slice(1, None), x[:-1]),
}


def changed(xp, x, key, value):
    y = xp.asarray(x, copy=True)
    y[key] = value
    return y


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "uint8", "complex64"])
def test_copies(name, dtype, record):
    def f(x):
        return COPIES[name](xpnet.array_namespace(x), x)

    calls = [[(5 * drawn(4, 5, 6)).astype(dtype)] for _ in range(3)]
    recording = record(f, *calls[0])
    recording.check(*calls)
    if name != "nothing" and dtype != "complex64":
        assert not any("[...]" in line or "copyto" in line for line in in_python(recording.plan))


def test_parts_of_a_donated_array_are_written(record):
    def f(x, y):
        x[1:, ::-2] = y[:-1, 1::2]
        x[0] = x[2]
        return x

    x, y = drawn(5, 6), drawn(5, 6)
    recording = record(f, x, y, donate=("x",))
    recording.check(*[(drawn(5, 6), drawn(5, 6)) for _ in range(3)])
    assert in_python(recording.plan) == []


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("count", [1, 9])
def test_elements_by_indices_and_their_gradient(axis, dtype, count, record):
    def f(x, index, weight):
        def loss(x):
            xp = xpnet.array_namespace(x)
            return xp.sum(xp.take(x * 2, index, axis=axis) * weight)

        return xpnet.array_namespace(x).take(x, index, axis=axis), xpnet.grad(loss)(x)

    x = drawn(4, 4, 4)
    calls = [
        (
            x,
            random.integers(-4, 4, count).astype(dtype),
            drawn(*x.shape[: axis % 3], count, *x.shape[axis % 3 + 1 :]),
        )
        for _ in range(3)
    ]
    recording = record(f, *calls[0])
    recording.check(*calls)
    assert in_python(recording.plan) == []


@pytest.mark.parametrize("key", [lambda i: i, lambda i: (slice(None, None, -1), i), lambda i: (..., i)])
def test_keys_with_indices(key, record):
    def f(x, index, values):
        y = xpnet.array_namespace(x).asarray(x, copy=True)
        y[key(index)] = x[key(index)] + 1
        return x[key(index)], y

    calls = [(drawn(4, 4, 4), random.permutation(4)[:3], drawn(3)) for _ in range(3)]
    recording = record(f, *calls[0])
    recording.check(*calls)
    assert in_python(recording.plan) == []


def test_other_keys_are_numpys(record):
    def f(x, index):
        return x[0, index], x[index, index], x[index[:, None]], x[index[0]], x[index, None]

    calls = [(drawn(4, 4), random.integers(-4, 4, 3)) for _ in range(3)]
    record(f, *calls[0]).check(*calls)


def test_an_index_out_of_range_is_an_error_and_changes_nothing(record):
    def f(x, index):
        x[index] = 2 * x[index + 0]
        return x

    x, index = drawn(4, 3), numpy.asarray([0, 1])
    recording = record(f, x, index, donate=("x",))
    for wrong in (4, -5):
        before = x.copy()
        with pytest.raises(IndexError, match=f"an index of getitem must be from -4 to 3; received {wrong}"):
            recording(x, numpy.asarray([0, wrong]))
        numpy.testing.assert_array_equal(x, before)
    recording.check((x, index))


BITS = {
    "add": lambda xp, x, y: x + y,
    "subtract": lambda xp, x, y: 5 - x - y,
    "multiply": lambda xp, x, y: x * y * 0x21F0AAA,
    "negative": lambda xp, x, y: -x,
    "square": lambda xp, x, y: xp.square(x),
    "xor": lambda xp, x, y: (x ^ y) | 5,
    "and": lambda xp, x, y: ~(x & y),
    "right": lambda xp, x, y: (x >> 16) ^ (x >> 31) ^ (x >> 0),
    "left": lambda xp, x, y: (x << 31) ^ (y << 3),
    "compared": lambda xp, x, y: (x < y, x >= 7, xp.where(x == y, x, y), xp.maximum(x, y)),
    "float32": lambda xp, x, y: xp.astype(x >> 8, xp.float32) * 2.0**-24 + xp.astype(x, xp.float32),
    "float64": lambda xp, x, y: xp.astype(x, xp.float64) + xp.astype(x > y, xp.float64),
    "integers": lambda xp, x, y: (
        xp.astype(x, xp.uint32) + 1,
        xp.astype(x, xp.int32) - 1,
        xp.astype(x, xp.int64),
    ),
    "bool": lambda xp, x, y: xp.astype(x, xp.bool),
}


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_integers_wrap_around(name, dtype, record):
    def f(x, y):
        return BITS[name](xpnet.array_namespace(x), x, y)

    limits = numpy.iinfo(dtype)
    calls = [random.integers(limits.min, limits.max, (2, 40), dtype, endpoint=True) for _ in range(3)]
    calls[0][:, :6] = [[0, 1, 2, 7, limits.max, limits.min]] * 2
    recording = record(f, *calls[0])
    recording.check(*calls)
    assert in_python(recording.plan) == []


@pytest.mark.parametrize("shift", [lambda x: x >> 32, lambda x: x << 40, lambda x: x >> x])
def test_other_shifts_are_numpys(shift, record):
    x = numpy.arange(40, dtype="uint32")
    recording = record(lambda x: shift(x), x)
    recording.check((x,), (x[::-1].copy(),))
    assert recording.kernels == []


def test_what_numbers_become_as_integers_is_numpys(record):
    x = numpy.asarray([*drawn(20) * 100, 1e30, numpy.nan], "float32")
    with numpy.errstate(invalid="ignore"):
        recording = record(lambda x: xpnet.array_namespace(x).astype(x, numpy.dtype("int32")), x)
        recording.check((x,))
    assert recording.kernels == []


def test_kernels_are_handed_constant_arrays(record):
    row, whole = drawn(8), numpy.asfortranarray(drawn(6, 8))
    displaced = numpy.frombuffer(b" " + row.tobytes(), "float32", offset=1)

    def f(x):
        return (x + row) * whole, x * row - whole[::2][0], x * displaced

    recording = record(f, drawn(6, 8))
    recording.check((drawn(6, 8),), (drawn(6, 8),))
    assert in_python(recording.plan) == []


@pytest.mark.parametrize(
    "shapes", [((50,), (50,)), ((3, 50), (3, 50)), ((3, 1, 7), (5, 7)), ((1,), (1,)), ((0,), (0,))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "complex64"])
def test_sums_of_products(shapes, dtype, record):
    def f(x, y):
        return xpnet.array_namespace(x).vecdot(x, y)

    calls = [[(9 * drawn(*shape)).astype(dtype) for shape in shapes] for _ in range(3)]
    recording = record(f, *calls[0])
    recording.check(*calls)
    if dtype.startswith("float") and shapes[0] != (0,) and not isinstance(products.library(), str):
        assert in_python(recording.plan) == []


@pytest.mark.parametrize("shape", [(50, 8), (7, 3, 5), (1, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_means_of_rows(shape, dtype, record):
    def f(x):
        return xpnet.array_namespace(x).mean(x * 3, axis=0, keepdims=True)

    calls = [[drawn(*shape, dtype=dtype)] for _ in range(3)]
    recording = record(f, *calls[0])
    recording.check(*calls)
    assert in_python(recording.plan) == []


NETWORKS = {
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, padding="same", seed=0),
            nn.ReLU(),
            nn.MaxPool(2),
            nn.Flatten(),
            nn.Dense(72, 3, seed=1),
        ),
        (8, 6, 6, 1),
    ),
    "dropout": (
        lambda: nn.Sequential(nn.BatchNorm(6), nn.Dropout(0.5, seed=0), nn.Dense(6, 3, seed=1)),
        (8, 6),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 8, seed=0), nn.Flatten(), nn.Dense(32, 3, seed=1)),
        None,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_trainings_are_native(name, record):
    if isinstance(products.library(), str):
        pytest.skip(products.library())
    make, shape = NETWORKS[name]
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.SGD(0.1, momentum=0.9))

    def step(net, state, x, y):
        value, gradient = xpnet.value_and_grad(lambda net: losses.mse(net(x), y))(net)
        return *optimizer.update(gradient, state, net), value

    net = make().train()
    jit = xpnet.jit(step, donate=("net", "state"))
    x = random.integers(0, 9, (8, 4)) if shape is None else drawn(*shape)
    jit(net, optimizer.init(net), x, drawn(8, 3))
    assert in_python(jit._recordings[0].plan) == []
