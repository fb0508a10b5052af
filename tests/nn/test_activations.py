"""Activations: values and gradients against their definitions, and against PyTorch's."""

import math

import numpy
import pytest
from helpers import assert_on, assert_same

import xpnet
from xpnet.nn import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Tanh


def gelu(x):
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


# The layer, its definition on one number, and its derivative at 0.
ELEMENTWISE = {
    "ReLU": (ReLU(), lambda x: max(x, 0.0), 0.0),
    "LeakyReLU": (LeakyReLU(), lambda x: x if x > 0 else 0.01 * x, 0.01),
    "LeakyReLU(0.3)": (LeakyReLU(0.3), lambda x: x if x > 0 else 0.3 * x, 0.3),
    "ELU": (ELU(), lambda x: x if x > 0 else math.expm1(x), 1.0),
    "ELU(2.5)": (ELU(2.5), lambda x: x if x > 0 else 2.5 * math.expm1(x), 2.5),
    "GELU": (GELU(), gelu, 0.5),
    "exact GELU": (GELU(approximate=False), lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)), 0.5),
    "SiLU": (SiLU(), lambda x: x * sigmoid(x), 0.5),
    "Sigmoid": (Sigmoid(), sigmoid, 0.25),
    "Tanh": (Tanh(), math.tanh, 1.0),
}


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def log_softmax(row):
    return [x - max(row) - math.log(sum(math.exp(y - max(row)) for y in row)) for x in row]


# The layer and its definition on one row along its axis.
ALONG_AN_AXIS = {
    "Softmax": (Softmax(), softmax),
    "Softmax(0)": (Softmax(axis=0), softmax),
    "Softmax(1)": (Softmax(axis=1), softmax),
    "LogSoftmax": (LogSoftmax(), log_softmax),
    "LogSoftmax(0)": (LogSoftmax(axis=0), log_softmax),
    "LogSoftmax(-2)": (LogSoftmax(axis=-2), log_softmax),
}

LAYERS = {**{name: layer for name, (layer, *_) in (ELEMENTWISE | ALONG_AN_AXIS).items()}}

# Values on both sides of the kink at 0, and none so near that finite differences would straddle it.
VALUES = numpy.asarray([-30.0, -6.5, -2.0, -1.0, -0.3, -0.01, 0.01, 0.3, 1.0, 2.0, 6.5, 30.0])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values(device, name):
    layer, definition, _ = ELEMENTWISE[name]
    for x in (VALUES, numpy.asarray(0.0), numpy.zeros((0, 2)), VALUES.reshape(2, 2, 3)):
        expected = numpy.asarray([definition(v) for v in x.ravel().tolist()], dtype=float).reshape(x.shape)
        y = layer(xpnet.asarray(x, device=device))
        assert_on(y, device, "float64", x.shape)
        assert_same(y, expected)


@pytest.mark.parametrize("name", ALONG_AN_AXIS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_values_along_an_axis(device, name, shape):
    layer, definition = ALONG_AN_AXIS[name]
    x = 5 * numpy.random.default_rng(0).normal(size=shape)
    y = layer(xpnet.asarray(x, device=device))
    assert_on(y, device, "float64", shape)
    assert_same(y, numpy.apply_along_axis(definition, layer.axis, x))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(device, name, dtype):
    x = xpnet.asarray([[0.5, -0.5]], device=device, dtype=dtype)
    assert_on(LAYERS[name](x), device, dtype, (1, 2))
    assert_on(xpnet.grad(lambda x: xpnet.array_namespace(x).sum(LAYERS[name](x)))(x), device, dtype, (1, 2))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(device, name):
    x = xpnet.asarray(VALUES[2:-2].reshape(2, 4), device=device)
    xpnet.check_gradients(LAYERS[name], x, order=2)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_derivative_at_zero(device, name):
    layer, _, derivative = ELEMENTWISE[name]
    x = xpnet.asarray([0.0, 0.0], device=device)
    assert_same(xpnet.grad(lambda x: xpnet.array_namespace(x).sum(layer(x)))(x), numpy.full(2, derivative))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_values(device, xp, name, dtype):
    x = xpnet.asarray(
        [[-1000.0, 1000.0], [1000.0, -1000.0], [1000.0, 1000.0], [-1000.0, -1000.0]],
        device=device,
        dtype=dtype,
    )
    y = LAYERS[name](x)
    weights = xpnet.asarray([[1.0, 2.0]], device=device, dtype=dtype)
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(LAYERS[name](x) * weights))(x)
    assert bool(xp.all(xp.isfinite(y)))
    assert bool(xp.all(xp.isfinite(gradient)))
    second = xpnet.grad(
        lambda x: xpnet.array_namespace(x).sum(
            xpnet.grad(lambda x: xpnet.array_namespace(x).sum(LAYERS[name](x) * weights))(x)
        )
    )(x)
    assert bool(xp.all(xp.isfinite(second)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("ReLU", 0.0, 1000.0),
        ("LeakyReLU", -10.0, 1000.0),
        ("ELU", -1.0, 1000.0),
        ("GELU", 0.0, 1000.0),
        ("SiLU", 0.0, 1000.0),
        ("Sigmoid", 0.0, 1.0),
        ("Tanh", -1.0, 1.0),
    ],
)
def test_limits(device, name, low, high):
    y = LAYERS[name](xpnet.asarray([-1000.0, 1000.0], device=device))
    assert_same(y, numpy.asarray([low, high]))


def test_softmax_of_extreme_values(device):
    x = xpnet.asarray([[1000.0, 0.0, -1000.0], [-1000.0, -1000.0, -2000.0]], device=device)
    assert_same(Softmax()(x), numpy.asarray([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    log_half = -math.log(2)
    assert_same(
        LogSoftmax()(x), numpy.asarray([[0.0, -1000.0, -2000.0], [log_half, log_half, -1000.0 + log_half]])
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_probabilities_add_up(device, xp, axis):
    x = xpnet.asarray(VALUES.reshape(3, 4), device=device, dtype="float32")
    assert_same(xp.sum(Softmax(axis)(x), axis=axis), numpy.ones(4 if axis == 0 else 3, dtype="float32"))
    assert_same(xp.exp(LogSoftmax(axis)(x)), xpnet.to_numpy(Softmax(axis)(x)))


def test_values_do_not_depend_on_training(device):
    x = xpnet.asarray(VALUES, device=device)
    for layer in LAYERS.values():
        if getattr(layer, "axis", -1) == -1:
            before = layer.train()(x)
            assert_same(layer.eval()(x), before, tolerance=0)
            layer.train()


@pytest.mark.parametrize("name", LAYERS)
def test_against_torch(device, name):
    if device.library.spec != "torch":
        return
    import torch.nn.functional as F

    functions = {
        "ReLU": F.relu,
        "LeakyReLU": F.leaky_relu,
        "LeakyReLU(0.3)": lambda x: F.leaky_relu(x, 0.3),
        "ELU": F.elu,
        "ELU(2.5)": lambda x: F.elu(x, 2.5),
        "GELU": lambda x: F.gelu(x, approximate="tanh"),
        "exact GELU": F.gelu,
        "SiLU": F.silu,
        "Sigmoid": F.sigmoid,
        "Tanh": F.tanh,
        "Softmax": lambda x: F.softmax(x, -1),
        "Softmax(0)": lambda x: F.softmax(x, 0),
        "Softmax(1)": lambda x: F.softmax(x, 1),
        "LogSoftmax": lambda x: F.log_softmax(x, -1),
        "LogSoftmax(0)": lambda x: F.log_softmax(x, 0),
        "LogSoftmax(-2)": lambda x: F.log_softmax(x, -2),
    }
    x = xpnet.asarray(numpy.append(VALUES, [0.0, -0.0]).reshape(2, 7), device=device)
    theirs = x.clone().requires_grad_()
    expected = functions[name](theirs)
    weights = xpnet.asarray(numpy.linspace(1, 2, 14).reshape(2, 7), device=device)
    (expected * weights).sum().backward()
    assert_same(LAYERS[name](x), expected.detach())
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(LAYERS[name](x) * weights))(x)
    assert_same(gradient, theirs.grad)


def test_a_gelu_from_before_is_the_approximate_one(tmp_path):
    layer = GELU(approximate=False)
    del layer.approximate
    xpnet.save(layer, tmp_path / "gelu.safetensors")
    assert_same(xpnet.load(tmp_path / "gelu.safetensors")(VALUES), GELU()(VALUES))


def test_repr():
    assert repr(ReLU()) == "ReLU()"
    assert repr(LeakyReLU(0.25)) == "LeakyReLU(negative_slope: 0.25)"
    assert repr(ELU()) == "ELU(alpha: 1.0)"
    assert repr(Softmax()) == "Softmax(axis: -1)"
