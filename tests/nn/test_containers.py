"""Sequential, Lambda, Flatten, Residual and Concatenate."""

import numpy
import pytest
from helpers import assert_on, assert_same, draw

import xpnet
from xpnet.nn import Concatenate, Dense, Dropout, Flatten, Lambda, ReLU, Residual, Sequential

# -- Sequential -------------------------------------------------------------------------------------------


def test_sequential_calls_one_layer_after_the_other(device):
    first, second = Dense(3, 4, seed=0, dtype="float64"), Dense(4, 2, seed=1, dtype="float64")
    x = xpnet.asarray(draw(5, 3), device=device)
    y = Sequential(first, ReLU(), second)(x)
    assert_on(y, device, "float64", (5, 2))
    weights = [xpnet.to_numpy(w) for w in (first.weight, first.bias, second.weight, second.bias)]
    assert_same(y, numpy.maximum(draw(5, 3) @ weights[0] + weights[1], 0) @ weights[2] + weights[3])


def test_gradients(device):
    net = Sequential(
        Dense(3, 4, seed=0, dtype="float64"), Sequential(ReLU(), Dense(4, 2, seed=1, dtype="float64"))
    )
    xpnet.check_gradients(lambda net, x: net(x) ** 2, net, xpnet.asarray(draw(5, 3), device=device), order=2)


def test_sequential_is_a_sequence():
    layers = Dense(2, 3, seed=0), ReLU(), Dropout(seed=0)
    net = Sequential(*layers)
    assert len(net) == 3
    assert tuple(net) == net.layers == layers
    assert net[0] is layers[0]
    assert net[-1] is layers[-1]
    with pytest.raises(IndexError, match=r"a Sequential of 3 layers has no layer 3\. Count from 0"):
        net[3]
    with pytest.raises(TypeError, match="indices must be integers or slices"):
        net["0"]


@pytest.mark.parametrize("part", [slice(2), slice(-2, None), slice(None, None, -2), slice(9, None)], ids=str)
def test_slices_share_layers(part):
    net = Sequential(Dense(2, 3, seed=0), ReLU(), Dropout(seed=0), Dense(3, 2, seed=1))
    assert type(net[part]) is Sequential
    assert net[part].layers == net.layers[part]
    assert net[part].training
    assert not net.eval()[part].training


def test_empty_sequential(device):
    x = xpnet.asarray(draw(2), device=device)
    assert Sequential()(x) is x
    assert repr(Sequential()) == "Sequential()"
    assert len(Sequential()) == 0


def test_functions_become_lambdas(device):
    net = Sequential(Dense(2, 2, seed=0), abs)
    assert type(net[1]) is Lambda
    x = xpnet.asarray(draw(4, 2), device=device, dtype="float32")
    assert_same(net(x), abs(xpnet.to_numpy(net[0](x))))


@pytest.mark.parametrize("layer", [[ReLU(), ReLU()], (ReLU(),), 3, None, "relu"])
def test_sequential_of_something_else(layer):
    with pytest.raises(
        TypeError, match=r"takes layers one by one, Sequential\(Dense\(2, 3\), ReLU\(\)\), received"
    ):
        Sequential(ReLU(), layer)


def test_repr():
    net = Sequential(Dense(2, 3, seed=0), Sequential(ReLU(), Lambda(numpy.sum)), Dropout(0.5, seed=0))
    assert repr(net) == (
        "Sequential(\n"
        "  0: Dense(weight: float32 (2, 3), bias: float32 (3,)),\n"
        "  1: Sequential(\n"
        "    0: ReLU(),\n"
        "    1: Lambda(function: sum),\n"
        "  ),\n"
        "  2: Dropout(rate: 0.5, random_state: int32 (2,)),\n"
        ")"
    )


# -- Lambda -----------------------------------------------------------------------------------------------


def test_lambda(device):
    layer = Lambda(lambda x: x * 2 + 1)
    x = xpnet.asarray(draw(3), device=device)
    assert_same(layer(x), draw(3) * 2 + 1)
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(layer(x)))(x)
    assert_same(gradient, numpy.full(3, 2.0))


def test_lambda_of_a_module_has_its_parameters():
    assert xpnet.tree.paths(Lambda(Dense(2, 1, seed=0))) == ["function.weight", "function.bias"]


@pytest.mark.parametrize("function", [None, 3, "abs", [abs]])
def test_lambda_of_something_else(function):
    with pytest.raises(TypeError, match="Lambda needs a function of an array, received"):
        Lambda(function)


# -- Flatten ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "flat"),
    [((2, 3, 4), (2, 12)), ((2, 3), (2, 3)), ((5,), (5, 1)), ((0, 3, 4), (0, 12)), ((2, 0, 4), (2, 0))],
)
def test_flatten(device, shape, flat):
    x = xpnet.asarray(draw(*shape), device=device)
    y = Flatten()(x)
    assert_on(y, device, "float64", flat)
    assert_same(y, draw(*shape).reshape(flat), tolerance=0)


def test_gradient_of_flatten(device):
    xpnet.check_gradients(lambda x: Flatten()(x) ** 3, xpnet.asarray(draw(2, 3, 4), device=device), order=2)


# -- residual connections and concatenation ---------------------------------------------------------------


def test_residual(device):
    x = xpnet.asarray(numpy.arange(6.0).reshape(2, 3), device=device)
    assert_same(Residual(lambda x: 2 * x, lambda x: x + 1)(x), 3 * xpnet.to_numpy(x) + 1)
    assert_same(
        Residual(lambda x: x * x, shortcut=lambda x: -x)(x), xpnet.to_numpy(x) ** 2 - xpnet.to_numpy(x)
    )
    layer = Residual(Dense(3, 2, seed=0, dtype="float64"), shortcut=Dense(3, 2, seed=1, dtype="float64"))
    assert xpnet.tree.paths(layer)[0] == "inner.layers.0.weight"
    xpnet.check_gradients(lambda layer, x: layer(x), layer, x)


def test_residual_of_another_shape(device):
    x = xpnet.asarray(numpy.ones((2, 3), dtype="float32"), device=device)
    with pytest.raises(ValueError, match=r"added to, \(2, 3\), received \(2, 1\)\. Give it a shortcut"):
        Residual(Dense(3, 1, seed=0))(x)


def test_concatenate(device):
    x = xpnet.asarray(numpy.arange(6.0).reshape(2, 3), device=device)
    y = Concatenate(lambda x: x, lambda x: x[:, :1])(x)
    assert_same(y, [[0.0, 1.0, 2.0, 0.0], [3.0, 4.0, 5.0, 3.0]])
    assert_same(Concatenate(lambda x: x, lambda x: -x, axis=0)(x)[2:, :], -xpnet.to_numpy(x))
    layer = Concatenate(Dense(3, 2, seed=0, dtype="float64"), Dense(3, 1, seed=1, dtype="float64"))
    xpnet.check_gradients(lambda layer, x: layer(x), layer, x)


def test_concatenate_what_does_not_fit(device):
    x = xpnet.asarray(numpy.ones((2, 3)), device=device)
    with pytest.raises(ValueError, match=r"agree in all axes but -1, received shapes \[\(2, 3\), \(1, 3\)\]"):
        Concatenate(lambda x: x, lambda x: x[:1, :])(x)
    for axis in (2, -3):
        with pytest.raises(ValueError, match=rf"must have an axis {axis}, received shapes \[\(2, 3\), \("):
            Concatenate(lambda x: x, lambda x: x, axis=axis)(x)
    with pytest.raises(ValueError, match="at least one layer"):
        Concatenate()
