"""Networks as ONNX files, run by onnxruntime: the same outputs, for batches of any size."""

import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import rounding

import xpnet
import xpnet.onnx
from xpnet import losses, nn
from xpnet.autodiff import extended_namespace
from xpnet.autodiff.primitive import COMPOSITES, PRIMITIVES
from xpnet.onnx.operators import OPERATORS
from xpnet.replay.decompositions import DECOMPOSITIONS
from xpnet.replay.functions import FUNCTIONS

random = np.random.default_rng(0)


def run(path, *inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def check(f, path, *examples, sizes=(1, 2, 6), **options):
    """Export with some examples, and compare the outputs for batches of other sizes.

    The networks of the examples make some hundred roundings: inner lengths of up to 128, and softmax.
    """
    tolerance = rounding(300, "float32")
    xpnet.onnx.export(f, examples, path, **options)
    for size in sizes:
        inputs = [np.resize(x, (size, *x.shape[1:])) for x in examples]
        outputs = f(*inputs)
        outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
        for found, expected in zip(run(path, *inputs), outputs, strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "net.onnx")


def normal(*shape, dtype="float32"):
    return random.normal(size=shape).astype(dtype)


# -- networks ---------------------------------------------------------------------------------------------


def instances():
    """One of each layer, with an input that it takes."""
    table, sequence, image = normal(3, 4), normal(3, 5, 4), normal(3, 7, 6, 4)
    options = {"stride": (2, 1), "padding": "same", "seed": 0}
    norm = nn.BatchNorm(4)
    norm.running_mean, norm.running_variance = normal(4), abs(normal(4))
    made = {
        "AvgPool": (nn.AvgPool(3, stride=2, padding="same"), image),
        "BatchNorm": (norm, image),
        "ByteReader": (nn.ByteReader(5), random.integers(257, size=(3, 5))),
        "Concatenate": (nn.Concatenate(nn.Dense(4, 3, seed=0), nn.Tanh()), table),
        "Conv1d": (nn.Conv1d(4, 3, 3, dilation=2, seed=0), normal(3, 9, 4)),
        "Conv2d": (nn.Conv2d(4, 3, (3, 2), **options), image),
        "ConvTranspose2d": (nn.ConvTranspose2d(4, 3, (3, 2), **options), image),
        "Dense": (nn.Dense(4, 3, seed=0), sequence),
        "Dropout": (nn.Dropout(0.5, seed=0), table),
        "Embedding": (nn.Embedding(9, 4, seed=0), random.integers(9, size=(3, 5))),
        "GRU": (nn.GRU(4, 3, seed=0), sequence),
        "GRU in two directions": (nn.GRU(4, 3, layers=2, bidirectional=True, seed=0), sequence),
        "GlobalAvgPool": (nn.GlobalAvgPool(), image),
        "GroupNorm": (nn.GroupNorm(2, 4), image),
        "Intermediate": (
            nn.Intermediate(nn.Sequential(nn.Dense(4, 3, seed=0), nn.Tanh()), "layers.0"),
            table,
        ),
        "LSTM": (nn.LSTM(4, 3, seed=0), sequence),
        "LSTM in two directions": (nn.LSTM(4, 3, layers=2, bidirectional=True, seed=0), sequence),
        "exact GELU": (nn.GELU(approximate=False), sequence),
        "Lambda": (nn.Lambda(lambda x: x * 2), table),
        "LayerNorm": (nn.LayerNorm(4), sequence),
        "MaxPool": (nn.MaxPool(3, stride=2, padding=1), image),
        "MultiHeadAttention": (nn.MultiHeadAttention(4, 2, causal=True, rotary=True, seed=0), sequence),
        "RMSNorm": (nn.RMSNorm(4), sequence),
        "Residual": (nn.Residual(nn.Dense(4, 4, seed=0), nn.Tanh()), sequence),
        "RotaryPositions": (nn.RotaryPositions(4), sequence),
        "Sequential": (nn.Sequential(nn.Dense(4, 2, seed=0), nn.ReLU()), table),
        "SinusoidalPositions": (nn.SinusoidalPositions(4), sequence),
        "TransformerBlock": (nn.TransformerBlock(4, 2, dropout=0.1, seed=0), sequence),
        "few channels": (nn.Conv2d(1, 3, 3, bias=False, seed=0), normal(2, 8, 9, 1)),
        "groups": (nn.Conv2d(4, 6, 3, padding=(0, 1), groups=2, seed=0), image),
        "groups transposed": (nn.ConvTranspose2d(4, 6, 2, groups=2, dilation=2, seed=0), image),
        "no overlap": (nn.MaxPool(2), normal(2, 6, 4, 3)),
        "short kernel": (nn.ConvTranspose2d(4, 2, 1, stride=3, padding="same", seed=0), image),
        "float64": (nn.Conv2d(4, 3, 2, seed=0, dtype="float64"), normal(2, 5, 5, 4, dtype="float64")),
    }
    for name in {**dict.fromkeys(nn.__all__), **made}:
        layer = getattr(nn, name, None)
        if name in made:
            yield name, *made[name]
        elif isinstance(layer, type) and layer is not nn.Module:
            yield name, layer(), 20 * sequence


@pytest.mark.parametrize(("name", "layer", "x"), list(instances()))
def test_every_layer(name, layer, x, path):
    check(layer.eval(), path, x)


def test_frozen_networks_are_written_as_others(tmp_path):
    net, files = nn.Sequential(nn.Dense(4, 3, seed=0), nn.BatchNorm(3), nn.Dense(3, 2, seed=1)), []
    for number, where in enumerate([[], ["layers.0", "layers.1.weight"], [""]]):
        for path in where:
            nn.freeze(net, path)
        path = tmp_path / f"{number}.onnx"
        xpnet.onnx.export(net, normal(3, 4), path)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(4, 3, layers=2, bidirectional=True, seed=0),
        nn.GRU(4, 3, seed=0),
        nn.MultiHeadAttention(4, 2, causal=True, seed=0),
        nn.TransformerBlock(4, 2, activation=nn.GELU(approximate=False), seed=0),
        nn.Sequential(nn.Conv1d(4, 4, 3, padding="same", seed=0), nn.Tanh(), nn.GlobalAvgPool()),
        nn.GlobalMaxPool(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_masks_are_an_input(layer, path):
    def net(x, mask):
        return layer(x, mask=mask)

    check(net, path, normal(3, 5, 4), nn.mask_of_lengths(np.asarray([2, 5, 3]), 5))
    x, nothing = normal(2, 5, 4), np.asarray([[True] * 5, [False] * 5])
    (y,) = run(path, x, nothing)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()


@pytest.mark.parametrize(
    ("layer", "kinds"),
    [
        (nn.Conv2d(2, 3, 3, padding="same"), {"Pad", "Conv"}),
        (nn.Conv2d(1, 3, 3), {"Conv"}),
        (nn.ConvTranspose2d(2, 3, 3), {"Col2Im"}),
        (nn.LSTM(2, 3), {"Scan"}),
    ],
)
def test_operators_of_networks_are_said_as_such(layer, kinds, path):
    x = normal(2, 5, 2) if isinstance(layer, nn.LSTM) else normal(2, 5, 5, layer.weight.shape[-2])
    xpnet.onnx.export(layer, x, path)
    found = {node.op_type for node in onnx.load(path).graph.node}
    assert kinds <= found
    assert "Gather" not in found


EXAMPLES = Path(__file__).parents[2] / "examples"


class Found(Exception):
    """The network that an example is about to train."""


def of_example(name, monkeypatch):
    """Run an example up to its training, and return the network."""

    def stop(net):
        raise Found(getattr(net, "net", net))  # without the penalty of the scikit-learn estimators

    monkeypatch.setattr(xpnet.optim.Optimizer, "init", lambda _optimizer, net: stop(net))
    monkeypatch.setattr(xpnet, "value_and_grad", lambda _loss: stop)
    monkeypatch.setattr(sys, "argv", [name, "--small", "--device", "cpu"])
    with pytest.raises(Found) as found:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return found.value.args[0].eval()


# The inputs of all others are as long as the first layer takes them.
INPUTS = {
    "convolution": [normal(3, 28, 28, 1)],
    "finetune": [normal(3, 8, 8, 1)],
    "folders": [normal(3, 32, 32, 1)],
    "heat": [normal(3), normal(3)],
    "photograph": [normal(3, 2)],
    "tables": [np.hstack([normal(3, 9), [[0], [1], [1]]]).astype("float32")],
    "tokens": [random.integers(2000, size=(3, 20))],
    "writing": [random.integers(256, size=(3, 20))],
}


@pytest.mark.parametrize("name", [place.stem for place in EXAMPLES.glob("*.py")])
def test_every_example(name, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    net = of_example(name, monkeypatch)
    check(net, path, *(INPUTS.get(name) or [normal(3, xpnet.tree.leaves(net)[0].shape[0])]))


def test_network_on_any_device(device, path):
    net = nn.Sequential(nn.Dense(4, 3, seed=0), nn.Tanh())
    x = normal(5, 4)
    xpnet.onnx.export(net, xpnet.asarray(x, device=device), path)
    expected = xpnet.to_numpy(net(xpnet.asarray(x, device=device)))
    np.testing.assert_allclose(run(path, x)[0], expected, rtol=0, atol=rounding(100, "float32"))


def test_names_can_be_read(path):
    class Residual(nn.Module):
        def __init__(self):
            self.inner = nn.Dense(4, 4, seed=0)

        def __call__(self, x):
            xp = xpnet.array_namespace(x)
            return x + self.inner(xp.tanh(x))

    xpnet.onnx.export(nn.Sequential(Residual(), nn.ReLU()), normal(2, 4), path, input_names=["pixels"])
    model = onnx.load(path)
    assert [node.name for node in model.graph.node if node.op_type != "Constant"] == [
        "layers.0/tanh",
        "layers.0.inner/matmul",
        "layers.0.inner/add",
        "layers.0/add",
        "layers.1/maximum",
    ]
    assert {x.name for x in model.graph.initializer} == {"layers.0.inner.weight", "layers.0.inner.bias"}
    assert model.graph.input[0].name == "pixels"
    assert model.graph.output[0].name == "output"
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        4,
    ]
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        4,
    ]


def test_training_is_left_out_and_the_network_unchanged(path):
    net = nn.Sequential(nn.Dense(4, 3, seed=0), nn.Dropout(0.9, seed=0))
    before = [x.tolist() for x in xpnet.tree.leaves(net, state=True)]
    xpnet.onnx.export(net, normal(2, 4), path)
    assert net.training
    assert [x.tolist() for x in xpnet.tree.leaves(net, state=True)] == before
    assert [node.op_type for node in onnx.load(path).graph.node] == ["MatMul", "Add"]


@pytest.mark.parametrize("opset", [18, np.int64(20), 22])
def test_opset(path, opset):
    check(nn.Sequential(nn.Dense(4, 3, seed=0), nn.Softmax()), path, normal(2, 4), opset=opset)
    assert onnx.load(path).opset_import[0].version == opset


def test_several_inputs_and_outputs(path):
    def f(a, b):
        xp = xpnet.array_namespace(a, b)
        return a @ b.mT, xp.sum(a), a

    xpnet.onnx.export(
        f, (normal(2, 4), normal(3, 4)), path, batch=None, output_names=["product", "sum", "same"]
    )
    a, b = normal(2, 4), normal(3, 4)
    product, total, same = run(path, a, b)
    np.testing.assert_allclose(
        product, a @ b.T, rtol=0, atol=rounding(4, "float32", 4 * abs(a).max() * abs(b).max())
    )
    np.testing.assert_allclose(total, a.sum(), rtol=0, atol=rounding(a.size, "float32", abs(a).sum()))
    np.testing.assert_array_equal(same, a)
    assert [x.name for x in onnx.load(path).graph.output] == ["product", "sum", "same"]


# -- functions --------------------------------------------------------------------------------------------

ONE = [
    "abs", "atan", "asinh", "ceil", "cos", "cosh", "exp", "expm1", "floor", "isfinite", "isinf", "isnan",
    "negative", "positive", "reciprocal", "round", "sign", "sin", "sinh", "square", "tan", "tanh", "trunc",
]  # fmt: skip
POSITIVE = ["log", "log10", "log1p", "log2", "sqrt"]
WITHIN_ONE = ["acos", "asin", "atanh"]
TWO = [
    "add", "divide", "equal", "floor_divide", "greater", "greater_equal", "hypot", "less", "less_equal",
    "logaddexp", "maximum", "minimum", "multiply", "not_equal", "remainder", "subtract",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ONE, *POSITIVE, *WITHIN_ONE, "acosh"])
def test_function_of_one_array(name, path):
    x = normal(4, 5)
    if name in POSITIVE:
        x = abs(x) + 0.01
    if name in WITHIN_ONE:
        x = np.tanh(x)
    if name == "acosh":
        x = abs(x) + 1
    check(lambda x: getattr(xpnet.array_namespace(x), name)(x), path, x)


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint64"])
def test_functions_of_what_has_no_point(dtype, path):
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.isfinite(x), xp.linalg.matrix_power(x, 0)

    check(f, path, random.integers(2, size=(3, 4, 4)).astype(dtype))


@pytest.mark.parametrize("name", TWO)
def test_function_of_two_arrays(name, path):
    def f(a, b):
        function = getattr(xpnet.array_namespace(a, b), name)
        return function(a, b), function(a, xpnet.array_namespace(a).asarray(1.5, dtype=a.dtype))

    a, b = normal(4, 5), normal(4, 5)
    b[0] = a[0]
    check(f, path, a, b)


def put(x, key, values):
    return extended_namespace(x).setitem(x, key, values)


def add_at(values, key, shape):
    return extended_namespace(values).scatter_add(values, key, shape)


INDICES = np.asarray([[0, 2], [-1, 0]])


def both_ways(xp, x):
    """Loops that carry two arrays, close over one, and have a loop in them."""
    weight = x[0, 0, :]

    def inner(total, element):
        return total + element, total

    def step(carried, element, weight):
        first, second = carried
        stack = xpnet.array_namespace(element).stack
        total, before = xpnet.scan(inner, first, stack([element, weight * second]))
        return (second, 0.1 * total), (before, element)

    batch = xp.permute_dims(x, (1, 0, 2))
    carried = xp.zeros_like(x[:, 0, :]), x[:, 0, :]
    (first, second), (results, _) = xpnet.scan(step, carried, batch, weight)
    return xp.permute_dims(results, (2, 0, 1, 3)), first, second


def counting(xp, x):
    """A loop that carries a counter and truths beside other numbers."""

    def step(carried, element):
        xp = xp_of(element)
        total, count, seen = carried
        total = total + element * xp.astype(count, element.dtype)
        return (total, count + 1, seen | (element > 1)), (count, xp.where(seen, total, -total))

    carried = xp.zeros_like(x[:, 0, :]), 0, xp.zeros_like(x[:, 0, :]) > 0
    (total, count, seen), (counts, totals) = xpnet.scan(step, carried, xp.permute_dims(x, (1, 0, 2)))
    return xp.permute_dims(totals, (1, 0, 2)) + xp.astype(count, x.dtype), total, seen, counts + count


xp_of = xpnet.array_namespace
ZEROS = np.asarray([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf], dtype="float32")
XP = {
    "scalar power": lambda xp, x: x**2 + 2.0**x,
    "reflected": lambda xp, x: 1 - x + 3 / (x * x + 1),
    "integers": lambda xp, x: xp.astype(x * 10, xp.int64) // 3 + xp.astype(x * 10, xp.int64) % 4,
    "mixed": lambda xp, x: x + xp.astype(x, xp.float64),
    "truths": lambda xp, x: ((x > 0) & (x < 1)) | ~(x > -1) ^ (x > 2),
    "logical": lambda xp, x: xp.logical_or(xp.logical_not(x > 0), xp.logical_xor(x > 1, x > 2)),
    "bits": lambda xp, x: (xp.astype(x * 10, xp.int32) & 5) | 2 ^ ~xp.astype(x, xp.int32),
    "where": lambda xp, x: xp.where(x > 0, x, 0.5 * x),
    "clip": lambda xp, x: (xp.clip(x, -0.5, 0.5), xp.clip(x, min=0), xp.clip(x, max=0)),
    "sum": lambda xp, x: (xp.sum(x, axis=1), xp.sum(x, axis=(1, 2), keepdims=True), xp.sum(x)),
    "mean": lambda xp, x: (xp.mean(x, axis=-1), xp.mean(x, axis=0)),
    "extremes": lambda xp, x: (xp.max(x, axis=1), xp.min(x, axis=(0, 2)), xp.prod(x, axis=2)),
    "spread": lambda xp, x: (xp.var(x, axis=1), xp.std(x, axis=2, correction=1, keepdims=True), xp.var(x)),
    "truth of all": lambda xp, x: (
        xp.any(x > 1, axis=1),
        xp.all(x > -2, axis=2),
        xp.count_nonzero(x > 0, axis=1),
    ),
    "sum of truths": lambda xp, x: xp.sum(x > 0, axis=1),
    "places": lambda xp, x: (xp.argmax(x, axis=1), xp.argmin(x, axis=2, keepdims=True), xp.argmax(x)),
    "cumulative": lambda xp, x: xp.cumulative_sum(x, axis=1),
    "norm": lambda xp, x: xp.linalg.vector_norm(x, axis=2),
    "reshape": lambda xp, x: (
        xp.reshape(x, (x.shape[0], -1)),
        xp.reshape(x, (-1, 4)),
        xp.reshape(x, (3, -1)),
    ),
    "reshape twice": lambda xp, x: xp.reshape(xp.reshape(x, (2 * x.shape[0], 6)), (x.shape[0], 12)),
    "permute": lambda xp, x: (xp.permute_dims(x, (1, 0, 2)), x.mT, xp.moveaxis(x, 0, -1)),
    "expand": lambda xp, x: xp.squeeze(xp.expand_dims(xp.expand_dims(x, axis=1), axis=-1), axis=1),
    "broadcast": lambda xp, x: (
        xp.broadcast_to(x, (2, *x.shape)),
        xp.broadcast_to(xp.sum(x, axis=0), x.shape),
        xp.broadcast_to(xp.sum(x), (x.shape[0] + 1, 2)),
    ),
    "join": lambda xp, x: (
        xp.concat([x, 2 * x], axis=1),
        xp.stack([x, x], axis=-1),
        xp.concat([x, x], axis=None),
    ),
    "unstack": lambda xp, x: tuple(xp.unstack(x, axis=1)),
    "turn": lambda xp, x: (
        xp.flip(x, axis=0),
        xp.flip(x),
        xp.roll(x, 1, axis=1),
        xp.roll(x, (1, -1), axis=(1, 2)),
        xp.roll(x, -4, axis=-2),
        xp.fft.fftshift(x, axes=(1, 2)),
        xp.fft.ifftshift(x, axes=1),
    ),
    "tile": lambda xp, x: (xp.tile(x, (1, 2, 1)), xp.tile(x, (2, 1, 1, 1))),
    "triangle": lambda xp, x: (xp.tril(x), xp.triu(x, k=1)),
    "sort": lambda xp, x: (xp.sort(x, axis=1), xp.sort(x, descending=True), xp.argsort(x, axis=-1)),
    "slices": lambda xp, x: (x[:, 1], x[:, :2, ::-1], x[..., -1], x[:, None, 1:, 0], x[1:], x[::2], x[-1]),
    "take": lambda xp, x: (xp.take(x, xp.asarray([2, 0]), axis=1), x[:, xp.asarray([[1, -1]])]),
    "assignment": lambda xp, x: (
        put(x, (slice(None), 1, slice(None, None, 2)), 0.5),
        put(x, (slice(None), slice(2, None, -2)), x[:, :2, :]),
        put(x, (..., -1), x[:, 0, 0][:, None]),
        put(x, (slice(None), slice(0, 2), 1), x[0, :2, 2]),
        put(xp.ones_like(x), (slice(None), slice(1, 3), slice(0, 3)), x[:, :2, :3]),
        put(x, (slice(None), slice(0, 0)), 1.0),
    ),
    "assignment to a part of the batch": lambda xp, x: (
        put(x, (slice(1, None), 0), 0.0),
        put(x, (slice(None, -1), ..., 1), x[1:, :, 0]),
        put(x, (x.shape[0] - 1, slice(1, 3)), x[0, 1:, :]),
        put(x, x > 0.5, 0.5),
    ),
    "assignment at indices": lambda xp, x: (
        put(x, (slice(None), INDICES[:, 0]), x[:, ::-1, :][:, :2, :]),
        put(x, (xp.argmax(x[:, 0, 0]), slice(None), INDICES[0]), 2.0),
    ),
    "several arrays of indices": lambda xp, x: (
        x[:, INDICES, INDICES[::-1]],
        x[INDICES[0, 0], :, INDICES],
        x[INDICES % 2 - 1, 1, INDICES],
        x[xp.arange(x.shape[0]), 1, xp.argmax(x[:, 0, :], axis=1)],
        x[:, xp.argmax(x, axis=1)[0, :3], INDICES[0, :1]],
        x[:, np.asarray([True, False, True])],
    ),
    "part of the batch": lambda xp, x: (x[x.shape[0] - 1], x[: x.shape[0] - 1, 0]),
    "sums at indices": lambda xp, x: (
        add_at(x[:, INDICES, :], (slice(None), INDICES), x.shape),
        add_at(x, (slice(None), slice(1, 4)), (x.shape[0], 6, 4)),
        add_at(x, (slice(None, None, 2),), (2 * x.shape[0] - 1, 3, 4)),
        add_at(x[:2, 0, 0], (INDICES[:, 0], INDICES[:, 1]), (5, 6)),
    ),
    "gradient of an embedding": lambda xp, x: xpnet.grad(
        lambda table: xp_of(table).sum(table[xp.astype(x[0, :, 0] > 0, xp.int64) - 1] ** 2)
    )(x),
    "gradients of indexing": lambda xp, x: xpnet.grad(
        lambda x: (
            xp_of(x).sum(x[:, 1, ::2] ** 2 + xp_of(x).take(x, xp_of(x).asarray([0, 2]), axis=2)[:, 0, :] ** 3)
            + xp_of(x).sum(xp_of(x).take_along_axis(x, xp_of(x).argsort(x, axis=1), axis=1)[1:, ...] ** 2)
        )
    )(x),
    "windows": lambda xp, x: extended_namespace(x).windows(x, sizes=(2,), strides=(1,), dilations=(1,)),
    "products of windows": lambda xp, x: (
        xp.reshape(extended_namespace(x).windows(x, sizes=(2,), strides=(1,), dilations=(1,)), (-1, 8))
        @ xp.reshape(xp.astype(xp.arange(16), x.dtype), (8, 2))
    ),
    "sum of windows": lambda xp, x: extended_namespace(x).add_windows(
        xp.stack([x, 2 * x], axis=2), shape=(x.shape[0], 6, 4), strides=(2,), dilations=(1,)
    ),
    "loop": lambda xp, x: both_ways(xp, x),
    "loop that counts": lambda xp, x: counting(xp, x),
    "take along": lambda xp, x: xp.take_along_axis(x, xp.argsort(x, axis=2), axis=2),
    "products": lambda xp, x: (x @ x.mT, xp.vecdot(x, x), xp.tensordot(x, x[0, ...], axes=((1, 2), (0, 1)))),
    "filled": lambda xp, x: xp.concat(
        [x, xp.zeros_like(x), xp.ones((x.shape[0], 1, 4), dtype=x.dtype)], axis=1
    ),
    "size": lambda xp, x: xp.sum(x, axis=0) * x.shape[0],
    "angles": lambda xp, x: (
        xp.atan2(x, xp.flip(x, axis=2)),
        xp.atan2(ZEROS[:, None], ZEROS + 0 * x[0, 0, 0]),
        xp.copysign(x, -xp.flip(x, axis=1)),
        xp.signbit(x),
        xp.signbit(0 * x),
    ),
    "shifts": lambda xp, x: (
        xp.bitwise_left_shift(xp.astype(9 * x, xp.int64), xp.astype(xp.abs(x), xp.int64)),
        xp.bitwise_left_shift(xp.astype(9 * x, xp.int8), xp.astype(xp.abs(x), xp.int8)),
        xp.bitwise_right_shift(xp.astype(90 * x, xp.int64), xp.astype(xp.abs(2 * x), xp.int64)),
    ),
    "real numbers": lambda xp, x: xp.conj(x) + xp.real(x),
    "cumulative products": lambda xp, x: (
        xp.cumulative_prod(x, axis=2),
        xp.cumulative_prod(x, axis=1, include_initial=True),
        xp.cumulative_sum(x, axis=0, include_initial=True),
        xp.cumulative_prod(x[:, 0, :1], axis=-1),
    ),
    "norms": lambda xp, x: (
        *(xp.linalg.vector_norm(x, axis=(1, 2), ord=order) for order in (0, 1, 3, np.inf, -np.inf)),
        xp.linalg.vector_norm(x, keepdims=True),
        *(xp.linalg.matrix_norm(x, ord=order) for order in ("fro", 1, -1, np.inf, -np.inf)),
        xp.linalg.matrix_norm(x, keepdims=True),
        xp.linalg.matrix_norm(x, keepdims=True, ord=1),
    ),
    "matrices": lambda xp, x: (
        xp.linalg.det(x[:, :, :3]),
        xp.linalg.diagonal(x, offset=1),
        xp.linalg.diagonal(x, offset=-1),
        xp.linalg.trace(x),
        xp.linalg.cross(x, 2 * xp.flip(x, axis=1), axis=1),
        *(xp.linalg.matrix_power(x[:, :, 1:], number) for number in (0, 1, 2, 5)),
        xp.linalg.outer(x[0, 0, :], x[0, 1, :]),
    ),
    "members": lambda xp, x: (
        xp.isin(xp.round(3 * x), xp.asarray([0, 1], dtype=x.dtype)),
        xp.isin(xp.round(3 * x), xp.round(x[0, ...]), invert=True),
        xp.searchsorted(xp.sort(x[0, 0, :]), x),
        xp.searchsorted(xp.round(xp.sort(x[0, 0, :])), xp.round(x), side="right"),
        xp.searchsorted(x[0, 0, :], x, sorter=xp.argsort(x[0, 0, :])),
    ),
    "repeated": lambda xp, x: (xp.repeat(x, 2, axis=0), xp.repeat(x, 3, axis=-1), xp.repeat(x, 2)),
    "differences": lambda xp, x: (
        xp.diff(x),
        xp.diff(x, axis=1, n=2),
        xp.diff(x, axis=0),
        xp.diff(x, axis=2, prepend=x[:, :, :1], append=x),
    ),
    "grids": lambda xp, x: (
        *xp.meshgrid(x[:, 0, 0], x[0, 0, :]),
        *xp.meshgrid(x[:, 0, 0], x[0, 0, :], x[0, :, 0], indexing="ij"),
        *xp.broadcast_arrays(x, x[0, ...], x[0, 0, :]),
        xp.linspace(x[0, 0, 0], 3.0, 5),
        xp.linspace(0.0, x[0, 0, 0], 5, endpoint=False),
    ),
    "filled with values": lambda xp, x: (
        xp.full((x.shape[0], 2), x[0, 0, 0]),
        xp.full_like(x, x[0, 0, 0]),
    ),
    "spread of a sample": lambda xp, x: (xp.var(x, axis=(0, 1), correction=1), xp.std(x, correction=1)),
    "counted": lambda xp, x: x * xp.arange(x.shape[0], dtype=x.dtype)[:, None, None],
    "the same": lambda xp, x: (+abs(x), +xp.positive(-x), +x),
    "places of all": lambda xp, x: (xp.argmax(x, keepdims=True), xp.argmin(x, keepdims=True)),
    "take along more": lambda xp, x: xp.take_along_axis(x, xp.argsort(x[:1, :, :], axis=2), axis=2),
    "computed again": lambda xp, x: xpnet.grad(
        lambda x: xp_of(x).sum(xpnet.checkpoint(lambda x: xp_of(x).tanh(x) ** 2)(x))
    )(x),
    "unused": lambda xp, x: xp.ones((2, 3)),
}


@pytest.mark.parametrize("name", XP)
def test_function_of_the_standard(name, path):
    check(lambda x: XP[name](xpnet.array_namespace(x), x), path, normal(3, 3, 4))


@pytest.mark.parametrize("of", [lambda x: x.namespace.special, lambda x: xpnet.special])
def test_special_functions(of, path):
    def f(x, y, special):
        return (
            special.entr(x), special.erf(x), special.erfc(x), special.exp2(x), special.expit(x),
            special.kl_div(x, y), special.log1p(x), special.log_softmax(x, axis=1), special.logit(x),
            special.logsumexp(x), special.logsumexp(x, axis=1, keepdims=True), special.ndtr(x),
            special.rel_entr(x, y), special.softmax(x, axis=1), special.xlog1py(x, y), special.xlogy(x, y),
        )  # fmt: skip

    x, y = abs(np.tanh(normal(2, 4, 3)))
    x[0] = 0.0
    xpnet.onnx.export(lambda x, y: f(x, y, of(x)), (x, y), path)
    from scipy import special

    with np.errstate(divide="ignore"):  # log(0)
        expected = f(x, y, special)
    for found, value in zip(run(path, x, y), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=rounding(100, "float32"), atol=rounding(10, "float32"))


# Functions that ONNX cannot say: it has no complex numbers, no decompositions, few special functions, and no
# other processes. What has no shape that is known beforehand is refused.
NO_COUNTERPART = {
    "fft.fft", "fft.fftn", "fft.hfft", "fft.ifft", "fft.ifftn", "fft.ihfft", "fft.irfft", "fft.irfftn",
    "fft.rfft", "fft.rfftn", "imag", "linalg.cholesky", "linalg.eig", "linalg.eigh", "linalg.eigvals",
    "linalg.eigvalsh", "linalg.inv", "linalg.matrix_rank", "linalg.pinv", "linalg.qr", "linalg.slogdet",
    "linalg.solve", "linalg.svd", "linalg.svdvals", "nextafter", "nonzero", "sparse_matmul",
    "collective", "convolve", "roots", "unique_all", "unique_counts", "unique_inverse", "unique_values",
}  # fmt: skip
SPECIAL_WITHOUT_COUNTERPART = [
    "bdtr", "bdtrc", "bdtri", "beta", "betainc", "betaincc", "betainccinv", "betaincinv", "betaln",
    "boxcox", "boxcox1p", "cbrt", "chdtr", "chdtrc", "chdtri", "digamma", "erfcinv", "erfcx", "erfi",
    "erfinv", "exp1", "exp10", "expi", "expm1", "fdtr", "fdtrc", "fdtri", "gamma", "gammainc", "gammaincc",
    "gammainccinv", "gammaincinv", "gammaln", "gdtr", "gdtrc", "huber", "i0", "i0e", "i1", "i1e",
    "inv_boxcox", "inv_boxcox1p", "j0", "j1", "k0", "k1", "kolmogi", "kolmogorov", "log_expit", "log_ndtr",
    "multigammaln", "nbdtr", "nbdtrc", "nbdtri", "ndtri", "ndtri_exp", "pdtr", "pdtrc", "pdtri", "poch",
    "polygamma", "pseudo_huber", "psi", "rgamma", "sinc", "stdtr", "stdtrit", "y0", "y1", "zeta",
]  # fmt: skip
PARTS_OF_RULES = [
    "bessel_moment", "bessel_quotient", "beta_density", "exp_of_square", "exp_quotient",
    "f_density", "gamma_density", "hazard", "log_ratio", "logistic_density", "mills_ratio", "polygamma",
    "polygamma_difference", "quotient", "sinc_quotient", "soft_clip", "student_density", "tail_ratio",
]  # fmt: skip
NO_COUNTERPART |= {f"special.{name}" for name in SPECIAL_WITHOUT_COUNTERPART}
NO_COUNTERPART |= {f"special._{name}" for name in PARTS_OF_RULES}
# What makes constants, and what stands for no function of arrays.
CONSTANT = {
    "_astype", "_recomputed", "arange", "argument", "argument_without_rule", "custom_gradient", "empty",
    "empty_like", "eye", "fft.fftfreq", "fft.rfftfreq", "from_dlpack", "ones", "ones_like", "output",
    "result_without_rule", "to_device", "zeros", "zeros_like",
}  # fmt: skip
# What is recorded as the functions that it is made of.
OF_OTHERS = {"logistic", "nan_where", "one_less_square", "p_norm", "subgradient"}


def test_what_onnx_lacks_is_listed():
    names = {*PRIMITIVES, *COMPOSITES}
    known = OPERATORS.keys() | DECOMPOSITIONS.keys() | {name for name, row in FUNCTIONS.items() if row.onnx}
    missing = {name for name in names if not {name, name.removeprefix("linalg.")} & known}
    assert missing == NO_COUNTERPART | CONSTANT | OF_OTHERS


def test_gradient_that_is_constant(path):
    check(xpnet.grad(lambda x: xpnet.array_namespace(x).sum(3 * x)), path, normal(3, 4))


def test_gradient_is_a_function_too(path):
    check(xpnet.grad(lambda x: xpnet.array_namespace(x).sum(x**3)), path, normal(3, 4))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_losses_with_weights(reduction, path):
    labels, weights = random.integers(-1, 4, size=(3, 5)), abs(normal(3))
    check(
        lambda z, y, w: losses.cross_entropy(
            z, y, sample_weight=w, ignore_index=-1, class_weight=[1.0, 2.0, 0.5, 1.0], reduction=reduction
        ),
        path,
        *(normal(3, 5, 4), labels, weights),
    )
    check(
        xpnet.grad(lambda z, y, w: losses.huber(z, y, sample_weight=w > 0.5)),
        path,
        *(normal(3, 5, 4), normal(3, 5, 4), weights),
    )


# -- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (
            lambda xp, x: xpnet.scan(lambda a, _: (a * 2, None), x, length=3)[0],
            "received scan_arrays of float32",
        ),
        (lambda xp, x: xp.linalg.qr(x)[0], r"received linalg\.qr of float32.*no counterpart"),
        (lambda xp, x: xp.linalg.matrix_norm(x, ord=2), r"svdvals of float32 in linalg\.matrix_norm, called"),
        (lambda xp, x: xp.fft.fft(x), r"received fft\.fft"),
        (lambda xp, x: xp.nextafter(x, x), "received nextafter"),
        (
            lambda xp, x: xpnet.scan(lambda a, b: (a + xp_of(b).nextafter(b, b), b), x, x[None, ...])[0],
            "received nextafter of float32, float32 in scan_arrays",
        ),
        (lambda xp, x: xp.roll(x, 1, axis=0), r"received roll.*'axis': 0"),
        (lambda xp, x: xp.reshape(x[: x.shape[0] // 2 * 2], (x.shape[0] // 2, 8)), "getitem must not depend"),
        (lambda xp, x: x * (1 / x.shape[0]), "multiply must not depend on the number of examples"),
        (
            lambda xp, x: x + xp.arange(x.shape[0], dtype=x.dtype)[:, None] ** 2,
            "a constant of add must not depend",
        ),
        (lambda xp, x: x if x.shape[0] < 20 else x + 1, "the operations themselves must not depend"),
    ],
)
def test_what_onnx_cannot_say_is_named(f, message, path):
    Path(path).write_text("old")
    with pytest.raises(ValueError, match=message):
        xpnet.onnx.export(lambda x: f(xpnet.array_namespace(x), x), normal(3, 4), path)
    assert Path(path).read_text() == "old"


def test_a_network_of_texts_takes_what_was_read(path):
    net = nn.Sequential(nn.ByteReader(4), nn.Embedding(257, 3, seed=0), nn.TransformerBlock(3, 1, seed=1))
    texts = ["some", "é"]
    check(net, path, net[0](texts))
    np.testing.assert_allclose(run(path, net[0](texts))[0], net(texts), rtol=0, atol=rounding(100, "float32"))


def test_an_index_out_of_range_gives_nan_in_a_file(path):
    layer, indices = nn.Embedding(4, 2, seed=0), np.asarray([[0, 3], [2, 1]])
    check(layer, path, indices)
    (y,) = run(path, np.asarray([[0, -1], [4, 1]]))
    assert np.isnan(y).all(axis=-1).tolist() == [[False, True], [True, False]]
    np.testing.assert_array_equal(y[[0, 1], [0, 1]], layer.weight[:2])


def test_layer_of_what_cannot_be_said_is_named(path):
    net = nn.Sequential(nn.Dense(4, 4), nn.Lambda(lambda x: xpnet.array_namespace(x).linalg.pinv(x)))
    with pytest.raises(ValueError, match=r"linalg\.pinv of float32 in layers\.1"):
        xpnet.onnx.export(net, normal(3, 4), path)


def test_one_size_of_batch(path):
    def f(x):
        return x * (1 / x.shape[0])

    x = normal(3, 4)
    xpnet.onnx.export(f, x, path, batch=None)
    np.testing.assert_allclose(run(path, x)[0], x / 3, rtol=rounding(2, "float32"))


@pytest.mark.parametrize(
    "f",
    [
        lambda xp, x, n: xp.repeat(x, n, axis=n),
        lambda xp, x, n: xp.tensordot(x, np.ones((4, 5, 3), dtype="float32"), axes=n),
        lambda xp, x, n: xp.special.softmax(x, axis=n),
        lambda xp, x, n: xp.reshape(x, (-1, n)) * xp.linspace(0.0, x[0, 0, 0], n),
        lambda xp, x, n: x[:, n:, n] - x[:, :n, 0],
    ],
)
def test_a_number_of_numpys_is_as_one_of_pythons(f, path):
    files = []
    for n in (2, np.int64(2)):
        xpnet.onnx.export(lambda x, n=n: f(extended_namespace(x), x, n), normal(3, 4, 5), path, batch=None)
        files.append(onnx.load(path))
    assert files[0] == files[1]


def test_values_cannot_be_asked_for(path):
    with pytest.raises(xpnet.errors.NotRecordableError, match="a Python branch"):
        xpnet.onnx.export(lambda x: x if x[0, 0] > 0 else -x, normal(3, 4), path)


class Reader(nn.Module):
    """A network of a dict."""

    def __init__(self):
        self.net = nn.Sequential(
            nn.Embedding(10, 4, seed=0), nn.LSTM(4, 3, seed=1), nn.GlobalMaxPool(), nn.Dense(3, 2, seed=2)
        )

    def __call__(self, x):
        return self.net(x["ids"], mask=x["mask"])


class Separate(nn.Module):
    def __init__(self, net):
        self.net = net

    def __call__(self, ids, mask):
        return self.net({"ids": ids, "mask": mask})


def test_a_network_of_a_dict(path):
    x = {"ids": np.asarray([[3, 1, 4], [9, 2, 0]]), "mask": nn.mask_of_lengths(np.asarray([3, 2]), 3)}
    with pytest.raises(TypeError, match=r"a dict with ids, mask\. .* __call__\(self, ids, mask\)"):
        xpnet.onnx.export(Reader(), x, path)
    check(Separate(Reader()), path, x["ids"], x["mask"], input_names=["ids", "mask"])
    assert [given.name for given in onnx.load(path).graph.input] == ["ids", "mask"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "opset must be an integer from 18 to"),
        ({"opset": 18.0}, r"opset must be an integer from 18 to \d+, received 18\.0"),
        ({"batch": 4}, "batch must be the name of an axis or None, received 4"),
        ({"input_names": ["a", "b"]}, r"a name for each of 1 input\(s\), received \['a', 'b'\]"),
        ({"output_names": "y"}, r"a name for each of 1 output\(s\), received 'y'"),
        ({"example": np.float32(1)}, r"example must hold at least one example, received the shape \(\)"),
        (
            {"example": np.ones((0, 4))},
            r"at least one example, received the shape \(0, 4\)",
        ),
    ],
)
def test_bad_options(path, options, message):
    with pytest.raises(ValueError, match=message):
        xpnet.onnx.export(nn.ReLU(), **({"example": normal(1, 2), "path": path} | options))
