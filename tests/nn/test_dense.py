"""Dense layers: values, gradients, initial weights and the errors of wrong input."""

import numpy
import pytest
from helpers import assert_on, assert_same, draw

import xpnet
from xpnet import backends
from xpnet.errors import MixedArraysError
from xpnet.nn import Dense, initializers


def layer_with(weight, bias):
    layer = Dense(*weight.shape, bias=bias is not None, seed=0)
    layer.weight = xpnet.asarray(weight, device=xpnet.device())
    if bias is not None:
        layer.bias = xpnet.asarray(bias, device=xpnet.device())
    return layer


def by_hand(x, weight, bias):
    """The sum over the inputs, output by output."""
    y = numpy.zeros((*x.shape[:-1], weight.shape[1]))
    for place in numpy.ndindex(y.shape):
        y[place] = sum(x[(*place[:-1], i)] * weight[i, place[-1]] for i in range(weight.shape[0]))
        y[place] += 0 if bias is None else bias[place[-1]]
    return y


SHAPES = [(5, 3), (3,), (2, 4, 3), (2, 1, 4, 3), (1, 3), (0, 3), (2, 0, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_values(device, shape, bias):
    x, weight, b = draw(*shape), draw(3, 2, seed=1), draw(2, seed=2) if bias else None
    y = layer_with(weight, b)(xpnet.asarray(x, device=device))
    assert_on(y, device, "float64", (*shape[:-1], 2))
    assert_same(y, by_hand(x, weight, b))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients(device, shape, bias):
    layer = layer_with(draw(3, 2, seed=1), draw(2, seed=2) if bias else None)
    x = xpnet.asarray(draw(*shape), device=device)
    if x.shape[0]:
        xpnet.check_gradients(lambda layer, x: layer(x) ** 2, layer, x, order=2)
    gradient, x_gradient = xpnet.grad(
        lambda layer, x: xpnet.array_namespace(x).sum(layer(x)), argnums=(0, 1)
    )(layer, x)
    rows = draw(*shape).reshape(-1, 3)
    assert_same(gradient.weight, numpy.repeat(rows.sum(axis=0)[:, None], 2, axis=1))
    assert_same(x_gradient, numpy.broadcast_to(draw(3, 2, seed=1).sum(axis=1), shape))
    if bias:
        assert_same(gradient.bias, numpy.full(2, float(len(rows))))
    else:
        assert gradient.bias is None


def test_against_torch(device):
    if device.library.spec != "torch":
        return
    import torch

    x, weight, bias = (xpnet.asarray(v, device=device) for v in (draw(2, 4, 3), draw(3, 2), draw(2)))
    layer = layer_with(xpnet.to_numpy(weight), xpnet.to_numpy(bias))
    assert_same(layer(x), torch.nn.functional.linear(x, weight.T, bias))


def test_float64_input_and_float32_weights_give_float64(device):
    layer = Dense(3, 2, seed=0)
    x = xpnet.asarray(draw(4, 3), device=device)
    y = layer(x)
    assert_on(y, device, "float64", (4, 2))
    value, gradient = xpnet.value_and_grad(lambda layer, x: xpnet.array_namespace(x).sum(layer(x)))(layer, x)
    assert_on(value, device, "float64", ())
    assert_on(gradient.weight, device, "float32", (3, 2))
    assert_same(value, xpnet.to_numpy(y).sum())


# -- making one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters(device, dtype):
    layer = Dense(4, 3, seed=0, dtype=dtype)
    assert_on(layer.weight, device, dtype, (4, 3))
    assert_on(layer.bias, device, dtype, (3,))
    assert xpnet.to_numpy(layer.bias).tolist() == [0.0, 0.0, 0.0]
    assert xpnet.tree.paths(layer, state=True) == ["weight", "bias"]


def test_float32_is_the_default(device):
    assert_on(Dense(2, 2).weight, device, "float32")


def test_one_seed_gives_the_same_weights_on_every_library(device):
    weight = xpnet.to_numpy(Dense(7, 5, seed=11).weight)
    with xpnet.use_device("cpu"):
        on_cpu = Dense(7, 5, seed=11).weight
    assert weight.tobytes() == on_cpu.tobytes()
    drawn = numpy.random.default_rng(11).normal(0.0, (2 / 7) ** 0.5, (7, 5)).astype("float32")
    assert weight.tobytes() == drawn.tobytes()


def test_seeds(device):
    def weight(seed):
        return xpnet.to_numpy(Dense(2, 2, seed=seed).weight).tolist()

    assert weight(1) == weight(1) != weight(2)
    assert weight(None) != weight(None)
    generator = numpy.random.default_rng(1)
    assert weight(generator) == weight(1)
    assert weight(generator) != weight(1)


def test_initializer_of_ones_own(device):
    layer = Dense(2, 3, weight_init=lambda shape, _: numpy.full(shape, 0.5), seed=0)
    assert_same(layer.weight, numpy.full((2, 3), 0.5, dtype="float32"))
    assert_same(Dense(2, 3, weight_init=initializers.zeros).weight, numpy.zeros((2, 3), dtype="float32"))


def test_sizes_may_be_numpy_integers():
    assert Dense(numpy.int64(2), numpy.int32(3), seed=0).weight.shape == (2, 3)


def test_repr(device):
    assert repr(Dense(4, 3, seed=0)) == "Dense(weight: float32 (4, 3), bias: float32 (3,))"
    assert repr(Dense(4, 3, bias=False, seed=0, dtype="float64")) == "Dense(weight: float64 (4, 3))"


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, 2.0, "2", None, (2,)])
@pytest.mark.parametrize("name", ["in_features", "out_features"])
def test_bad_sizes(name, size):
    sizes = {"in_features": 2, "out_features": 3, name: size}
    with pytest.raises(ValueError, match=rf"{name} must be a positive integer, received "):
        Dense(**sizes)


@pytest.mark.parametrize("result", [numpy.zeros(3), numpy.zeros((3, 2)), 0.5, None])
def test_bad_initializer(result):
    with pytest.raises(ValueError, match=r"weight_init must return an array of shape \(2, 3\), received"):
        Dense(2, 3, weight_init=lambda _shape, _random: result)


@pytest.mark.parametrize("initializer", [None, "he_normal", 0.1, numpy.ones((2, 3))])
def test_initializer_that_is_no_function(initializer):
    with pytest.raises(TypeError, match=r"weight_init must be a function .* xpnet.nn.initializers.he_normal"):
        Dense(2, 3, weight_init=initializer)


def test_bad_dtype():
    with pytest.raises(ValueError, match=r'a dtype must be one of .* received "float12"'):
        Dense(2, 3, dtype="float12")


@pytest.mark.parametrize("traced", [False, True])
def test_wrong_number_of_features(device, traced):
    layer = Dense(2, 5, seed=0)
    x = xpnet.asarray(numpy.ones((3, 4), dtype="float32"), device=device)
    call = xpnet.grad(lambda layer, x: xpnet.array_namespace(x).sum(layer(x))) if traced else Dense.__call__
    with pytest.raises(ValueError, match="expected 2 features on the last axis, received 4") as caught:
        call(layer, x)
    assert "Dense(2, 5), x has the shape (3, 4)" in str(caught.value)


def test_number_without_axes(device):
    with pytest.raises(
        ValueError, match="expected 2 features on the last axis, received an array without axes"
    ):
        Dense(2, 5, seed=0)(xpnet.asarray(1.0, device=device, dtype="float32"))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integers(device, dtype):
    x = xpnet.asarray(numpy.ones((3, 2), dtype=dtype), device=device)
    message = rf"needs floating-point numbers, received .*{dtype}.*xpnet\.asarray.*xp\.astype\(x, "
    with pytest.raises(TypeError, match=message):
        Dense(2, 5, seed=0)(x)


@pytest.mark.parametrize("x", [[[1.0, 2.0]], 1.0, "x"])
def test_no_array(device, x):
    with pytest.raises(TypeError):
        Dense(2, 5, seed=0)(x)


def test_array_of_another_device(device):
    x = xpnet.asarray([[1.0, 2.0]], device="strict:device2", dtype="float32")
    with pytest.raises(MixedArraysError, match=r"strict:device2.*xpnet\.to_device"):
        Dense(2, 5, seed=0)(x)


def test_integer_weights_have_no_gradient(device):
    layer = xpnet.tree.map(lambda x: xpnet.asarray(x, dtype="int32"), Dense(2, 1, seed=0))
    with pytest.raises(
        TypeError, match=r"a gradient needs floating-point numbers, received .*int32.*at weight"
    ):
        xpnet.grad(lambda layer: layer.weight[0, 0])(layer)
    assert backends.device_of(layer.weight) == device


def test_a_layer_learns_floating_point_numbers(device):
    with pytest.raises(ValueError, match=r"received dtype='int32'\. Try \"float32\""):
        Dense(2, 3, dtype="int32")
