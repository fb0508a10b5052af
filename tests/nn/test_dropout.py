"""Dropout: what it drops, that one seed gives the same masks everywhere, and where its state goes."""

import numpy
import pytest
from helpers import assert_on, assert_same

import xpnet
from xpnet import random
from xpnet.errors import MixedArraysError
from xpnet.nn import Dense, Dropout, Sequential


def ones(device, *shape, dtype="float32"):
    return xpnet.asarray(numpy.ones(shape, dtype=dtype), device=device)


def masks(layer, device, times=3, shape=(6, 7)):
    return [xpnet.to_numpy(layer(ones(device, *shape))).tolist() for _ in range(times)]


def draws(layer):
    return int(xpnet.to_numpy(layer.random_state)[1])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_the_definition(device, xp, rate, dtype):
    x = numpy.random.default_rng(0).normal(size=(4, 5)).astype(dtype)
    layer = Dropout(rate, seed=1)
    uniform, _ = random.uniform(xp, layer.random_state, (4, 5), xp.float32)
    dropped = xpnet.to_numpy(uniform) < rate
    y = layer(xpnet.asarray(x, device=device))
    assert_on(y, device, dtype, (4, 5))
    assert_same(y, numpy.where(dropped, numpy.zeros_like(x), x / x.dtype.type(1 - rate)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_of_dropped_inputs_and_the_mean(rate):
    n = 200_000
    y = Dropout(rate, seed=0)(numpy.ones(n))
    assert set(numpy.unique(y)) == {0.0, 1 / (1 - rate)}
    deviation = numpy.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - rate)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_dtypes(device, xp, dtype):
    if not hasattr(xp, dtype):
        return
    x = xpnet.asarray(numpy.ones(1000), device=device, dtype=dtype)
    y = xpnet.to_numpy(Dropout(0.25, seed=0)(x)).astype(float)
    assert 0.2 < (y == 0).mean() < 0.3
    assert numpy.unique(y).shape == (2,)


def test_infinite_inputs_are_dropped_too(device):
    y = xpnet.to_numpy(
        Dropout(0.5, seed=0)(ones(device, 100) * xpnet.asarray([float("inf")], dtype="float32"))
    )
    assert set(y.tolist()) == {0.0, float("inf")}


def test_eval_does_nothing(device):
    layer, x = Dropout(0.5, seed=0).eval(), ones(device, 4)
    state = layer.random_state
    assert layer(x) is x
    assert layer.random_state is state
    assert layer.train()(x) is not x


def test_rate_zero_does_nothing(device):
    layer, x = Dropout(0, seed=0), ones(device, 4)
    assert layer(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
def test_bad_rate(rate):
    with pytest.raises(ValueError, match=f"rate must be at least 0 and less than 1, received {rate}"):
        Dropout(rate)


# -- seeds and state --------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_masks_on_every_library(device):
    here = masks(Dropout(0.5, seed=3), device)
    with xpnet.use_device("cpu") as cpu:
        assert masks(Dropout(0.5, seed=3), cpu) == here


def test_masks_differ(device):
    first, second, third = masks(Dropout(0.5, seed=0), device)
    assert first != second != third != first
    assert masks(Dropout(0.5, seed=1), device)[0] != first
    assert masks(Dropout(0.5), device) != masks(Dropout(0.5), device)
    generator = numpy.random.default_rng(0)
    assert masks(Dropout(0.5, seed=generator), device) != masks(Dropout(0.5, seed=generator), device)


def test_each_call_counts(device):
    layer = Dropout(0.5, seed=0)
    masks(layer, device, times=3)
    assert_on(layer.random_state, device, "int32", (2,))
    assert draws(layer) == 3


def test_state_is_no_parameter():
    assert xpnet.tree.paths(Dropout(seed=0)) == []
    assert xpnet.tree.paths(Dropout(seed=0), state=True) == ["random_state"]


def loss(net, x):
    return xpnet.array_namespace(x).sum(net(x) ** 2)


def test_state_comes_back_from_transforms(device):
    net = Sequential(Dropout(0.5, seed=0), Dense(7, 2, seed=1), Dropout(0.25, seed=2))
    x = ones(device, 3, 7)
    for step in range(1, 4):
        twin = xpnet.tree.map(lambda leaf: leaf, net, state=True)
        value, _ = xpnet.value_and_grad(loss)(net, x)
        assert_same(value, xpnet.to_numpy(loss(twin, x)))
        assert draws(net[0]) == draws(net[2]) == step
        assert_on(net[0].random_state, device, "int32", (2,))  # plain again
    assert value is not None


def test_state_comes_back_from_nested_transforms(device):
    net, x = (
        Sequential(Dense(7, 2, seed=1, dtype="float64"), Dropout(0.5, seed=0)),
        ones(device, 7, dtype="float64"),
    )

    def slope(net, x):
        gradient = xpnet.grad(loss)(net, x)
        return xpnet.array_namespace(x).sum(gradient[0].weight ** 2)

    xpnet.grad(slope)(net, x)
    assert draws(net[1]) == 1
    assert_on(net[1].random_state, device, "int32", (2,))


def test_gradient_flows_through_what_is_kept(device):
    layer, x = Dropout(0.75, seed=0), ones(device, 100)
    twin = Dropout(0.75, seed=0)
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(layer(x)))(x)
    assert_same(gradient, xpnet.to_numpy(twin(x)))


def test_gradients(device):
    def call(x):
        return Dropout(0.5, seed=0)(x) ** 3

    xpnet.check_gradients(call, xpnet.asarray(numpy.linspace(1, 2, 8), device=device), order=2)


def test_mixed_devices(device):
    with pytest.raises(MixedArraysError, match=r"strict:device2.*xpnet\.to_device"):
        Dropout(0.5, seed=0)(ones("strict:device2", 3))


def test_repr():
    assert repr(Dropout(0.25, seed=0)) == "Dropout(rate: 0.25, random_state: int32 (2,))"
