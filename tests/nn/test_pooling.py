"""Pooling: values and gradients beside PyTorch, padding, and the errors of wrong input."""

import numpy
import pytest
from helpers import assert_on, assert_same, needs_float16
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from nn.torch_peer import beside_torch, compare, numbers
from xpnet.nn import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool

# An axis: the size of a window, the stride, half of the padding at most, how much longer the input is.
AXES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 4)),
    min_size=1,
    max_size=3,
)


@beside_torch
@given(axes=AXES, batch=st.integers(1, 3), channels=st.integers(1, 3), largest=st.booleans())
def test_windows(axes, batch, channels, largest):
    sizes, strides, borders, more = map(list, zip(*axes, strict=True))
    padding = tuple(min(p, n // 2) for p, n in zip(borders, sizes, strict=True))
    lengths = [n + m for n, m in zip(sizes, more, strict=True)]

    def peer(F, _, x):
        name = f"{'max' if largest else 'avg'}_pool{len(axes)}d"
        options = {} if largest else {"count_include_pad": False}
        return getattr(F, name)(x.movedim(-1, 1), sizes, strides, padding, **options).movedim(1, -1)

    layer = (MaxPool if largest else AvgPool)(tuple(sizes), stride=tuple(strides), padding=padding)
    compare(layer, peer, numbers(batch, *lengths, channels))


@beside_torch
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), channels=st.integers(1, 4))
def test_global(lengths, channels):
    def peer(_F, _, x):
        return x.flatten(1, -2).mean(1)

    compare(GlobalAvgPool(), peer, numbers(2, *lengths, channels))


@pytest.mark.parametrize("make", [MaxPool, AvgPool])
def test_gradients_of_two_orders(device, make):
    x = xpnet.asarray(numpy.random.default_rng(1).normal(size=(1, 5, 4, 2)), device=device)
    layer = make((3, 2), stride=(1, 2), padding="same")
    xpnet.check_gradients(lambda x: layer(x) ** 2, x, order=2)


@pytest.mark.parametrize("make", [MaxPool, AvgPool])
def test_the_border_does_not_count(device, make):
    x = xpnet.asarray(numpy.full((1, 3, 3, 1), -2.0), device=device)
    y = make(2, padding="same")(x)
    assert_on(y, device, "float64", (1, 2, 2, 1))
    assert_same(y, numpy.full((1, 2, 2, 1), -2.0))


def test_the_first_of_equal_ones_has_the_gradient(device):
    x = xpnet.asarray([[[1.0], [1.0], [0.0]]], device=device)
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(MaxPool(3)(x)))(x)
    assert_same(gradient, [[[1.0], [0.0], [0.0]]])


@pytest.mark.parametrize("make", [MaxPool, AvgPool])
def test_under_jit(device, make):
    layer = make(3, stride=2, padding="same")
    step = xpnet.jit(xpnet.grad(lambda x: xpnet.array_namespace(x).sum(layer(x) ** 2)))
    for seed in range(2):
        x = xpnet.asarray(numbers(2, 5, 5, 2, seed=seed), device=device)
        expected = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(layer(x) ** 2))(x)
        assert_same(step(x), expected)


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [MaxPool(2), AvgPool(2), GlobalAvgPool(), GlobalMaxPool()])
def test_wrong_axes(device, layer):
    with pytest.raises(ValueError, match=r"needs the axes \(batch, length, channels\) or .*\(2, 3\)"):
        layer(xpnet.asarray(numbers(2, 3), device=device))
    with pytest.raises(TypeError, match="needs floating-point numbers"):
        layer(xpnet.asarray(numpy.ones((2, 4, 4, 1), dtype="int64"), device=device))


def test_bad_sizes(device):
    x = xpnet.asarray(numbers(1, 4, 3, 1), device=device)
    with pytest.raises(ValueError, match="size must be integers of at least 1, received 0"):
        MaxPool(0)
    with pytest.raises(ValueError, match=r"stride must be integers of at least 1, received \(1, 0\)"):
        MaxPool(2, stride=(1, 0))
    with pytest.raises(ValueError, match='padding must be "same", "valid" or integers, received \'some\''):
        AvgPool(2, padding="some")
    with pytest.raises(ValueError, match="size must be an integer or one for each of height, width"):
        MaxPool((2, 2, 2))(x)
    with pytest.raises(ValueError, match="needs a width of at least 4, received 3"):
        MaxPool(4)(x)
    with pytest.raises(
        ValueError, match=r"padding of MaxPool.* must be at most half the size, received \(2, 2\)"
    ):
        MaxPool(3, padding=2)(x)


def test_windows_whose_sum_float16_does_not_have(device):
    needs_float16(device.namespace)
    x = xpnet.asarray(numpy.full((1, 50, 50, 1), 100.0), device=device, dtype="float16")
    y = AvgPool(50, padding="same")(x)
    assert_same(y, xpnet.asarray(numpy.full((1, 1, 1, 1), 100.0), device=device, dtype="float16"))
