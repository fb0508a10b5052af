"""Recurrent layers: values and gradients beside PyTorch, step by step, under jit, and wrong input."""

import numpy
import pytest
from helpers import assert_on, assert_same
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from nn.torch_peer import beside_torch, compare, numbers
from xpnet.nn import GRU, LSTM, Dense, Lambda, Sequential

SIZES = st.integers(1, 5)


@beside_torch
@given(sizes=st.tuples(SIZES, SIZES, SIZES, SIZES), make=st.sampled_from([LSTM, GRU]))
def test_beside_torch(sizes, make):
    import torch

    batch, length, inputs, features = sizes

    def peer(F, p, x):
        weight = p["recurrent.weight"]
        named = {
            "weight_ih_l0": p["input.weight"].mT,
            "bias_ih_l0": p["input.bias"],
            "weight_hh_l0": weight.mT,
            "bias_hh_l0": p.get("recurrent.bias", weight.new_zeros(weight.shape[1])),
        }
        layer = getattr(torch.nn, make.__name__)(inputs, features, batch_first=True)
        return torch.func.functional_call(layer, named, (x,))[0]

    compare(make(inputs, features), peer, numbers(batch, length, inputs))


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_gradients_of_two_orders(device, make):
    layer = make(2, 2, dtype="float64", seed=0)
    x = xpnet.asarray(numpy.random.default_rng(0).normal(size=(2, 3, 2)), device=device)
    xpnet.check_gradients(lambda layer, x: layer(x), layer, x, order=2)


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_steps_give_what_the_whole_gives(device, make):
    layer, x = make(3, 4, seed=0), xpnet.asarray(numbers(2, 6, 3), device=device)
    expected = xpnet.to_numpy(layer(x))
    first, state = layer.step(x[:, :4, :], None)
    assert_on(first, device, "float32", (2, 4, 4))
    assert_same(first, expected[:, :4])
    for t in (4, 5):
        y, state = layer.step(x[:, t : t + 1, :], state)
        assert_same(y, expected[:, t : t + 1])
    assert_same(state["output"], expected[:, -1])


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_learns_to_remember(device, make):
    # Whether the first of eight numbers was positive.
    x = numbers(128, 8, 1)
    y = (x[:, 0, 0] > 0).astype("int64")
    last = Lambda(lambda y: y[:, -1, :])
    net = Sequential(make(1, 8, seed=0), last, Dense(8, 2, seed=1))
    history = xpnet.fit(
        net,
        x,
        y,
        loss=xpnet.losses.cross_entropy,
        optimizer=xpnet.optim.Adam(0.03),
        epochs=12,
        batch_size=32,
        metrics=[xpnet.metrics.accuracy],
        seed=0,
        progress=False,
    )
    assert history["accuracy"][-1] > 0.9


def test_parameters(device):
    layer = LSTM(3, 5, seed=0)
    assert xpnet.tree.paths(layer) == ["input.weight", "input.bias", "recurrent.weight"]
    assert_on(layer.recurrent.weight, device, "float32", (5, 20))
    assert xpnet.tree.paths(GRU(3, 5)) == ["input.weight", "input.bias", "recurrent.weight", "recurrent.bias"]


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_wrong_shapes(device, make):
    layer = make(3, 4)
    name = make.__name__
    with pytest.raises(ValueError, match=rf"{name}\(3, 4\) needs the axes \(batch, length, features\)"):
        layer(xpnet.asarray(numbers(2, 3), device=device))
    with pytest.raises(ValueError, match="expected 3 features on the last axis, received 5"):
        layer(xpnet.asarray(numbers(2, 4, 5), device=device))
    with pytest.raises(ValueError, match="at least one element"):
        layer(xpnet.asarray(numbers(2, 0, 3), device=device))
    with pytest.raises(ValueError, match="features must be a positive integer"):
        make(3, 0)
