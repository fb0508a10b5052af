"""Products as cuBLASLt has them, with what stands behind them, on a stand-in for a device: see `host.py`."""

import numpy
import pytest

import xpnet
from tests.replay.cases import (
    assert_within_roundings,
)
from tests.replay.plans.trainings import dense, train
from xpnet import losses, nn, optim


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
    # A row and a column of the first ones, at once, and one copy of the second ones.
    assert sorted(host.launched) == ["kernel"] * 2 + ["product"] * 2


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
