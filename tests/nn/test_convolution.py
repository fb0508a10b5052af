"""Convolutions: values and gradients beside PyTorch, what settings do, and the errors of wrong input."""

import math

import numpy
import pytest
from helpers import assert_on, assert_same, half_of_the_digits
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from nn.torch_peer import beside_torch, compare, numbers
from xpnet.nn import Conv1d, Conv2d, ConvTranspose2d, Flatten, ReLU, Sequential

# An axis: the size of the kernel, the stride, the dilation, how much longer than a window the input is.
AXIS = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 4))
SETTINGS = {
    "batch": st.integers(1, 3),
    "groups": st.integers(1, 3),
    "width": st.integers(1, 3),
    "out": st.integers(1, 3),
    "bias": st.booleans(),
}


def images_first(x):
    return x.movedim(-1, 1)


def kernels_first(weight):
    """From (*kernel, in, out) to (out, in, *kernel)."""
    return weight.movedim(-1, 0).movedim(-1, 1)


def same(F, x, sizes, strides, dilations):
    """Pad an image, whose channels stand on the second axis, as "same" does."""
    border = []
    for n, size, s, d in zip(x.shape[2:], sizes, strides, dilations, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (size - 1) + 1 - n, 0)
        border = [total // 2, total - total // 2, *border]
    return F.pad(x, border)


def compare_convolution(make, name, axes, padding, batch, groups, width, out, bias):
    sizes, strides, dilations, more = zip(*axes, strict=True)
    lengths = [d * (k - 1) + 1 + m for k, d, m in zip(sizes, dilations, more, strict=True)]
    options = {"stride": strides, "padding": padding, "dilation": dilations, "groups": groups, "bias": bias}

    def peer(F, p, x):
        x, pad = images_first(x), padding
        if padding == "same":
            x, pad = same(F, x, sizes, strides, dilations), 0
        convolve = getattr(F, name)
        weight, settings = kernels_first(p["weight"]), (strides, 0 if pad == "valid" else pad, dilations)
        return convolve(x, weight, p.get("bias"), *settings, groups).movedim(1, -1)

    layer = make(groups * width, groups * out, sizes, **options)
    compare(layer, peer, numbers(batch, *lengths, groups * width))


@beside_torch
@given(axis=AXIS, padding=st.one_of(st.sampled_from(["same", "valid"]), st.integers(0, 3)), **SETTINGS)
def test_conv1d(axis, padding, **settings):
    compare_convolution(Conv1d, "conv1d", [axis], padding, **settings)


@beside_torch
@given(
    axes=st.tuples(AXIS, AXIS),
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    **SETTINGS,
)
def test_conv2d(axes, padding, **settings):
    compare_convolution(Conv2d, "conv2d", axes, padding, **settings)


@beside_torch
@given(axes=st.tuples(AXIS, AXIS), cut=st.tuples(st.integers(0, 2), st.integers(0, 2)), **SETTINGS)
def test_conv_transpose2d(axes, cut, batch, groups, width, out, bias):
    sizes, strides, dilations, lengths = zip(*axes, strict=True)
    lengths = [n + 1 for n in lengths]
    each = zip(cut, lengths, sizes, strides, dilations, strict=True)
    cut = tuple(min(p, ((n - 1) * s + d * (k - 1)) // 2) for p, n, k, s, d in each)
    options = {"stride": strides, "dilation": dilations, "groups": groups, "bias": bias}

    def peer(F, p, x):
        # From (*kernel, in of a group, out) to (in, out of a group, *kernel).
        weight = p["weight"].reshape(*sizes, width, groups, out).permute(3, 2, 4, 0, 1)
        weight = weight.reshape(groups * width, out, *sizes)
        settings = {"stride": strides, "padding": cut, "dilation": dilations, "groups": groups}
        return F.conv_transpose2d(images_first(x), weight, p.get("bias"), **settings).movedim(1, -1)

    layer = ConvTranspose2d(groups * width, groups * out, sizes, padding=cut, **options)
    compare(layer, peer, numbers(batch, *lengths, groups * width))


# -- what the settings do ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
def test_gradients_of_two_orders(device, make):
    layer = make(2, 2, (2, 3), stride=(2, 1), padding="same", dtype="float64", seed=0)
    x = xpnet.asarray(numpy.random.default_rng(1).normal(size=(1, 4, 3, 2)), device=device)
    xpnet.check_gradients(lambda layer, x: layer(x) ** 2, layer, x, order=2)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 2), (3, 2), (2, 5)])
def test_same(device, stride, kernel):
    x = xpnet.asarray(numbers(2, 7, 6, 3), device=device)
    smaller = Conv2d(3, 4, kernel, stride=stride, padding="same", seed=0)(x)
    assert_on(smaller, device, "float32", (2, math.ceil(7 / stride), math.ceil(6 / stride), 4))
    larger = ConvTranspose2d(3, 4, kernel, stride=stride, padding="same", seed=0)(x)
    assert_on(larger, device, "float32", (2, 7 * stride, 6 * stride, 4))


def test_transpose_is_the_adjoint(device):
    options = {"stride": 2, "padding": 1, "bias": False, "dtype": "float64"}
    there = Conv2d(3, 4, 3, seed=0, **options)
    back = ConvTranspose2d(4, 3, 3, seed=0, **options)
    back.weight = xpnet.array_namespace(there.weight).permute_dims(there.weight, (0, 1, 3, 2))
    x = numpy.random.default_rng(0).normal(size=(2, 7, 5, 3))
    y = xpnet.to_numpy(there(xpnet.asarray(x, device=device)))
    z = numpy.random.default_rng(1).normal(size=y.shape)
    received = xpnet.to_numpy(back(xpnet.asarray(z, device=device)))
    assert received.shape == x.shape
    assert (y * z).sum() == pytest.approx((x * received).sum(), rel=half_of_the_digits("float64"))


def test_parameters(device):
    layer = Conv2d(6, 4, (3, 5), groups=2, seed=0)
    assert_on(layer.weight, device, "float32", (3, 5, 3, 4))
    assert_on(layer.bias, device, "float32", (4,))
    drawn = numpy.random.default_rng(0).normal(0.0, (2 / 45) ** 0.5, (3, 5, 3, 4)).astype("float32")
    assert_same(layer.weight, drawn, tolerance=0)
    assert Conv2d(1, 1, 2, bias=False).bias is None


def test_under_jit(device):
    def loss(net, x):
        return xpnet.array_namespace(x).mean(net(x) ** 2)

    net = Sequential(Conv2d(2, 3, 3, padding="same", seed=0), ReLU(), Conv2d(3, 2, 2, stride=2, seed=1))
    step = xpnet.jit(xpnet.grad(loss))
    for seed in range(3):
        x = xpnet.asarray(numbers(2, 6, 5, 2, seed=seed), device=device)
        received, expected = step(net, x), xpnet.grad(loss)(net, x)
        for one, other in zip(xpnet.tree.leaves(received), xpnet.tree.leaves(expected), strict=True):
            assert_same(one, other)


def test_summary():
    net = Sequential(Conv2d(1, 4, 3, seed=0), ReLU(), Flatten())
    assert [row.output_shape for row in net.summary((8, 8, 1)).rows] == [(6, 6, 4), (6, 6, 4), (144,)]


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
def test_wrong_shapes(device, make):
    layer = make(3, 4, 3, seed=0)
    with pytest.raises(
        ValueError, match=r"needs the axes \(batch, height, width, channels\), received .*\(5, 5, 3\)"
    ):
        layer(xpnet.asarray(numbers(5, 5, 3), device=device))
    with pytest.raises(ValueError, match=r"expected 3 channels on the last axis, received 5") as caught:
        layer(xpnet.asarray(numbers(2, 3, 4, 5), device=device))
    assert f"{make.__name__}(3, 4, (3, 3)), x has the shape (2, 3, 4, 5)" in str(caught.value)
    with pytest.raises(TypeError, match=r"needs floating-point numbers, received .*int64"):
        layer(xpnet.asarray(numpy.ones((2, 5, 5, 3), dtype="int64"), device=device))


def test_images_smaller_than_a_window(device):
    with pytest.raises(ValueError, match=r"needs a width of at least 5, received 4 with the padding"):
        Conv2d(1, 1, 3, dilation=2)(xpnet.asarray(numbers(1, 5, 4, 1), device=device))
    with pytest.raises(ValueError, match=r"needs a length of at least 3, received 2"):
        Conv1d(1, 1, 3)(xpnet.asarray(numbers(1, 2, 1), device=device))
    with pytest.raises(
        ValueError, match=r"must leave something of the height, received a padding of \(1, 1\)"
    ):
        ConvTranspose2d(1, 1, 2, padding=1)(xpnet.asarray(numbers(1, 1, 4, 1), device=device))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a positive integer, received 0"),
        ({"kernel_size": 0}, "kernel_size must be integers of at least 1, received 0"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be an integer or one for each of height, width"),
        ({"stride": 1.5}, "stride must be an integer or one for each of height, width, received 1.5"),
        ({"padding": "full"}, 'padding must be "same", "valid" or integers, received \'full\''),
        ({"padding": -1}, "padding must be integers of at least 0, received -1"),
        ({"groups": 4}, "groups must divide in_channels and out_channels, received groups=4 for 6 and 4"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Conv2d(**{"in_channels": 6, "out_channels": 4, "kernel_size": 3, **options})
