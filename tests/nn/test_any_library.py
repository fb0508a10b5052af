"""A network on any library: nothing leaves its device, and the numbers are those of NumPy and PyTorch."""

import array_api_strict
import numpy
import pytest
from helpers import assert_on, assert_same, batch, rounding

import xpnet
from xpnet import nn

STRICT = [f"strict:{device._device}" for device in array_api_strict.__array_namespace_info__().devices()[1:]]


def full_network(dtype="float32"):
    return nn.Sequential(
        nn.Flatten(),
        nn.Dense(6, 5, seed=0, dtype=dtype),
        nn.ReLU(),
        nn.Dropout(0.25, seed=1),
        nn.Dense(5, 5, seed=2, dtype=dtype, weight_init=nn.initializers.orthogonal()),
        nn.LeakyReLU(),
        nn.Dense(5, 5, seed=3, dtype=dtype, weight_init=nn.initializers.glorot_uniform),
        nn.ELU(),
        nn.GELU(),
        nn.SiLU(),
        nn.Dense(5, 5, seed=4, dtype=dtype, bias=False),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Lambda(lambda x: x * 2),
        nn.Dense(5, 5, seed=5, dtype=dtype),
        nn.Softmax(),
        nn.LogSoftmax(),
    )


def loss(net, x):
    return xpnet.array_namespace(x).mean(net(x) ** 2)


def steps(device, dtype="float64", count=3):
    """Train by hand for some steps; return the losses and the network."""
    with xpnet.use_device(device):
        net, x, values = full_network(dtype), batch(5, 2, 3, dtype=dtype), []
        for _ in range(count):
            value, gradient = xpnet.value_and_grad(loss)(net, x)
            net = xpnet.tree.map(lambda p, g: p - 0.1 * g, net, gradient)
            values.append(value)
    return values, net


def test_training_agrees_with_numpy(device):
    values, net = steps(device)
    expected, on_cpu = steps("cpu")
    for value, other in zip(values, expected, strict=True):
        assert_on(value, device, "float64", ())
        assert_same(value, numpy.asarray(other), tolerance=rounding(5000, "float64"))
    for leaf, other in zip(
        xpnet.tree.leaves(net, state=True), xpnet.tree.leaves(on_cpu, state=True), strict=True
    ):
        assert_on(leaf, device)
        assert_same(leaf, other, tolerance=rounding(5000, "float64"))


def test_initial_network_is_the_same_bit_for_bit(device):
    with xpnet.use_device("cpu"):
        on_cpu = full_network()
    for leaf, other in zip(
        xpnet.tree.leaves(full_network(), state=True),
        xpnet.tree.leaves(on_cpu, state=True),
        strict=True,
    ):
        assert xpnet.to_numpy(leaf).dtype == other.dtype
        assert xpnet.to_numpy(leaf).tobytes() == other.tobytes()


def test_second_order(device):
    net = nn.Sequential(*full_network("float64").layers[1:8]).eval()
    x = xpnet.asarray(numpy.random.default_rng(9).normal(size=(5, 6)), device=device)
    xpnet.check_gradients(lambda net: net(x), net, order=2)


def test_gradients_agree_with_torch(device):
    if device.library.spec != "torch":
        return
    import torch
    import torch.nn.functional as F

    net, x = full_network("float64").eval(), batch(5, 2, 3, dtype="float64")
    leaves = [leaf.clone().requires_grad_() for leaf in xpnet.tree.leaves(net)]
    y = F.relu(F.linear(x.flatten(1), leaves[0].T, leaves[1]))
    y = F.leaky_relu(F.linear(y, leaves[2].T, leaves[3]))
    y = F.silu(F.gelu(F.elu(F.linear(y, leaves[4].T, leaves[5])), approximate="tanh"))
    y = torch.sigmoid(torch.tanh(F.linear(y, leaves[6].T))) * 2
    y = F.log_softmax(F.softmax(F.linear(y, leaves[7].T, leaves[8]), -1), -1)
    expected = (y**2).mean()
    expected.backward()
    value, gradient = xpnet.value_and_grad(loss)(net, x)
    assert_same(value, expected.detach())
    for g, leaf in zip(xpnet.tree.leaves(gradient), leaves, strict=True):
        assert_same(g, leaf.grad, tolerance=rounding(5000, "float64"))


def test_gradients_agree_with_jax(device):
    if device.library.spec != "jax":
        return
    import jax

    net, x = full_network("float64").eval(), batch(5, 2, 3, dtype="float64")
    leaves, structure = xpnet.tree.flatten(net)
    expected = jax.grad(lambda leaves: loss(xpnet.tree.unflatten(structure, leaves), x))(leaves)
    for g, other in zip(xpnet.tree.leaves(xpnet.grad(loss)(net, x)), expected, strict=True):
        assert_same(g, other, tolerance=rounding(5000, "float64"))


# -- a device that is not the default ---------------------------------------------------------------------


@pytest.fixture
def devices_used(monkeypatch):
    """The devices of all arrays that array-api-strict makes."""
    used = set()
    array = array_api_strict._array_object.Array
    original = array.__dict__["_new"].__func__

    def spy(cls, x, /, device):
        made = original(cls, x, device)
        used.add(str(made.device._device))
        return made

    monkeypatch.setattr(array, "_new", classmethod(spy))
    return used


def test_the_spy_sees_the_default_device(devices_used):
    array_api_strict.asarray([1.0])
    assert devices_used == {"CPU_DEVICE"}


@pytest.mark.parametrize("spec", STRICT)
@pytest.mark.parametrize("default", [True, False])
def test_nothing_is_made_on_the_default_device(devices_used, spec, default):
    wanted = {spec.partition(":")[2]}
    with xpnet.use_device(spec if default else "cpu"):
        net, x = xpnet.to_device(full_network(), spec), batch(5, 2, 3, device=spec)
        devices_used.clear()
        value, gradient = xpnet.value_and_grad(loss)(net, x)
        assert_on(value, xpnet.device(spec), "float32", ())
        assert all(xpnet.backends.device_of(g) == xpnet.device(spec) for g in xpnet.tree.leaves(gradient))
        net(x)
        net.eval()(x)
        xpnet.grad(lambda x: xpnet.array_namespace(x).sum(xpnet.grad(loss, argnums=1)(net, x) ** 2))(x)
        xpnet.to_device(net, spec)
        net.summary((2, 3))
        assert devices_used == wanted


@pytest.mark.parametrize("spec", STRICT)
def test_networks_are_made_on_the_current_device(devices_used, spec):
    with xpnet.use_device(spec):
        full_network()
    assert devices_used == {spec.partition(":")[2]}


@pytest.mark.parametrize("spec", STRICT)
def test_files_are_read_to_the_device(devices_used, spec, tmp_path):
    net = nn.Sequential(*(layer for layer in full_network() if not isinstance(layer, nn.Lambda)))
    xpnet.save(net, tmp_path / "net.safetensors")
    devices_used.clear()
    loaded = xpnet.load(tmp_path / "net.safetensors", device=spec)
    xpnet.load(tmp_path / "net.safetensors", into=loaded)
    assert devices_used == {spec.partition(":")[2]}
    assert_same(loaded.eval()(batch(5, 2, 3, device=spec)), net.eval()(batch(5, 2, 3, device="cpu")))
