"""Normalization: values and gradients beside PyTorch, running statistics, and the errors of wrong input."""

import numpy
import pytest
from helpers import assert_on, assert_same, needs_float16, rounding
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from nn.torch_peer import beside_torch, compare, numbers
from xpnet.nn import BatchNorm, Dense, GroupNorm, LayerNorm, RMSNorm, Sequential

SIZES = st.integers(1, 6)
SHAPES = st.lists(SIZES, min_size=1, max_size=4).map(tuple)
EPSILON = st.floats(0.01, 0.5)
LAYERS = [
    lambda **o: BatchNorm(6, **o),
    lambda **o: LayerNorm(6, **o),
    lambda **o: RMSNorm(6, **o),
    lambda **o: GroupNorm(3, 6, **o),
]
NAMES = ["BatchNorm(6)", "LayerNorm(6)", "RMSNorm(6)", "GroupNorm(6)"]


def channels_first(x):
    return x.movedim(-1, 1)


def channels_last(x):
    return x.movedim(1, -1)


# -- against PyTorch --------------------------------------------------------------------------------------


@beside_torch
@given(shape=SHAPES, features=SIZES, epsilon=EPSILON, training=st.booleans())
def test_batch_norm(shape, features, epsilon, training):
    x = numbers(2, *shape, features) + 1

    def peer(F, p, x):
        options = {"weight": p["weight"], "bias": p["bias"], "eps": epsilon, "training": training}
        mean, variance = x.new_zeros(features), x.new_ones(features)
        return channels_last(F.batch_norm(channels_first(x), mean, variance, **options))

    layer = BatchNorm(features, epsilon=epsilon)
    compare(layer if training else layer.eval(), peer, x)


@beside_torch
@given(shape=SHAPES, features=SIZES, epsilon=EPSILON)
def test_layer_norm(shape, features, epsilon):
    def peer(F, p, x):
        return F.layer_norm(x, (features,), p["weight"], p["bias"], epsilon)

    compare(LayerNorm(features, epsilon=epsilon), peer, numbers(*shape, features))


@beside_torch
@given(shape=SHAPES, features=SIZES, epsilon=EPSILON)
def test_rms_norm(shape, features, epsilon):
    def peer(F, p, x):
        return F.rms_norm(x, (features,), p["weight"], epsilon)

    compare(RMSNorm(features, epsilon=epsilon), peer, numbers(*shape, features))


@beside_torch
@given(shape=SHAPES, groups=st.integers(1, 3), width=st.integers(1, 4), epsilon=EPSILON)
def test_group_norm(shape, groups, width, epsilon):
    def peer(F, p, x):
        return channels_last(F.group_norm(channels_first(x), groups, p["weight"], p["bias"], epsilon))

    compare(GroupNorm(groups, groups * width, epsilon=epsilon), peer, numbers(*shape, 2, groups * width) + 1)


def test_running_statistics_are_those_of_torch(device):
    torch = pytest.importorskip("torch")
    layer, peer = BatchNorm(3, momentum=0.3), torch.nn.BatchNorm2d(3, momentum=0.3)
    for seed in range(3):
        x = numbers(4, 5, 2, 3, seed=seed) * 2 + seed
        layer(xpnet.asarray(x, device=device))
        peer(channels_first(torch.tensor(x)))
    assert_on(layer.running_mean, device, "float32", (3,))
    assert_same(layer.running_mean, peer.running_mean.numpy())
    assert_same(layer.running_variance, peer.running_var.numpy())
    x = numbers(2, 5, 2, 3, seed=9)
    received = layer.eval()(xpnet.asarray(x, device=device))
    expected = channels_last(peer.eval()(channels_first(torch.tensor(x))))
    assert_same(received, expected.detach().numpy())


# -- what they do -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_gradients_of_two_orders(device, make):
    layer = make(dtype="float64", epsilon=0.1)
    x = xpnet.asarray(numpy.random.default_rng(1).normal(size=(3, 2, 6)), device=device)
    xpnet.check_gradients(lambda layer, x: layer(x) ** 2, layer, x, order=2)


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_far_from_zero(device, make):
    x = xpnet.asarray(numbers(8, 4, 6) + 300, device=device)
    y = xpnet.to_numpy(make()(x))
    if make is not LAYERS[2]:
        assert abs(y.mean()) < 1e-3
        assert abs(y.std() - 1) < 1e-3


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("make", [LAYERS[0], LAYERS[3]], ids=[NAMES[0], NAMES[3]])
def test_large_images_far_from_zero(device, jit, make):
    """Added up row by row, the mean of 65,536 values near 20,000 is off by a tenth of their deviation."""
    x = (20000 + 10 * numpy.random.default_rng(0).normal(size=(64, 32, 32, 6))).astype("float32")
    layer = make()
    if isinstance(layer, BatchNorm):
        parts, axes = x.astype("float64"), (0, 1, 2)
    else:
        parts, axes = x.astype("float64").reshape(64, 32, 32, 3, 2), (1, 2, 4)
    mean, variance = parts.mean(axes, keepdims=True), parts.var(axes, keepdims=True)
    expected = ((parts - mean) / numpy.sqrt(variance + 1e-5)).reshape(x.shape)
    call = xpnet.jit(lambda layer, x: layer(x)) if jit else lambda layer, x: layer(x)
    y = xpnet.to_numpy(call(layer, xpnet.asarray(x, device=device)))
    # Along no axis are more than 64 added up; what the mean is off by is divided by the deviation.
    roundings = 64 + 32 + 32
    tolerance = rounding(roundings, "float32", 20000 / 10)
    numpy.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
    if isinstance(layer, BatchNorm):
        tolerance = rounding(roundings + 10, "float32")
        moved = xpnet.to_numpy([layer.running_mean, layer.running_variance])
        numpy.testing.assert_allclose(moved[0], 0.1 * mean.reshape(-1), rtol=tolerance)
        unbiased = variance.reshape(-1) * 65536 / 65535
        numpy.testing.assert_allclose(moved[1], 0.9 + 0.1 * unbiased, rtol=3 * tolerance)


def test_what_does_not_vary_becomes_the_bias(device):
    x = xpnet.asarray(numpy.full((4, 6), 7.0, dtype="float32"), device=device)
    for layer in (BatchNorm(6), LayerNorm(6), GroupNorm(2, 6)):
        assert_same(layer(x), numpy.zeros((4, 6), dtype="float32"))


def mean_of(net, x):
    return xpnet.array_namespace(x).mean(net(x) ** 2)


def test_state_comes_back_from_transforms_and_from_jit(device):
    nets = [Sequential(Dense(3, 4, seed=0), BatchNorm(4)) for _ in range(3)]
    step = xpnet.jit(xpnet.value_and_grad(mean_of))
    for seed in range(3):
        x = xpnet.asarray(numbers(5, 3, seed=seed), device=device)
        nets[0](x)
        xpnet.value_and_grad(mean_of)(nets[1], x)
        step(nets[2], x)
    for net in nets:
        assert_on(net[1].running_mean, device, "float32", (4,))
        assert_same(net[1].running_mean, nets[0][1].running_mean)
        assert_same(net[1].running_variance, nets[0][1].running_variance)
    assert abs(xpnet.to_numpy(nets[0][1].running_mean)).max() > 0.01


def test_running_statistics_follow_their_equation(device):
    layer, mean, variance = BatchNorm(3, momentum=0.3), numpy.zeros(3), numpy.ones(3)
    for seed in range(3):
        x = numbers(4, 5, 3, seed=seed) * 2 + seed
        layer(xpnet.asarray(x, device=device))
        mean = 0.7 * mean + 0.3 * x.mean(axis=(0, 1))
        variance = 0.7 * variance + 0.3 * x.var(axis=(0, 1), ddof=1)  # the unbiased one
    assert_on(layer.running_mean, device, "float32", (3,))
    assert_same(layer.running_mean, mean.astype("float32"))
    assert_same(layer.running_variance, variance.astype("float32"))


def test_state_carries_no_gradient(device):
    def total_of_the_state(layer, x):
        y = layer(x)
        return xpnet.array_namespace(y).sum(0 * y + layer.running_mean)

    x = xpnet.asarray(numbers(4, 3), device=device)
    assert_same(xpnet.grad(total_of_the_state, argnums=1)(BatchNorm(3), x), 0 * x)


def test_state_is_no_parameter_and_keeps_its_dtype(device):
    layer = BatchNorm(2)
    assert xpnet.tree.paths(layer) == ["weight", "bias"]
    layer(xpnet.asarray(numpy.ones((3, 2)), device=device, dtype="float64"))
    assert_on(layer.running_variance, device, "float32", (2,))


def test_use_leaves_the_state_alone(device):
    layer = BatchNorm(3).eval()
    before = layer.running_mean
    layer(xpnet.asarray(numbers(4, 3), device=device))
    assert layer.running_mean is before


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_trains_with_fit(device, make):
    net = Sequential(Dense(3, 6, seed=0), make(), Dense(6, 1, seed=1))
    x = numbers(64, 3)
    y = (x[:, :1] - x[:, 1:2]).astype("float32")
    optimizer = xpnet.optim.Adam(0.02)
    history = xpnet.fit(
        net, x, y, loss=xpnet.losses.mse, optimizer=optimizer, epochs=30, seed=0, progress=False
    )
    assert history["loss"][-1] < history["loss"][0] / 3


def test_saved_and_loaded(device, tmp_path):
    net = Sequential(*[make() for make in LAYERS])
    x = xpnet.asarray(numbers(4, 6), device=device)
    net(x)
    xpnet.save(net, tmp_path / "net.safetensors")
    again = xpnet.load(tmp_path / "net.safetensors").eval()
    assert_same(again(x), net.eval()(x))


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "name"), list(zip(LAYERS, NAMES, strict=True)), ids=NAMES)
def test_wrong_number_of_features(device, make, name):
    x = xpnet.asarray(numbers(3, 4), device=device)
    with pytest.raises(ValueError, match="expected 6 features on the last axis, received 4") as caught:
        make()(x)
    assert f"{name}, x has the shape (3, 4)" in str(caught.value)


def test_a_batch_of_one_value(device):
    layer = BatchNorm(2)
    with pytest.raises(ValueError, match=r"at least two values of each feature.*\(1, 2\).*eval\(\)"):
        layer(xpnet.asarray(numbers(1, 2), device=device))
    assert_same(layer.running_mean, numpy.zeros(2, dtype="float32"))


def test_group_norm_needs_a_batch(device):
    with pytest.raises(ValueError, match=r"axes \(batch, ..., features\), received .* \(6,\)"):
        GroupNorm(2, 6)(xpnet.asarray(numbers(6), device=device))


def test_bad_settings():
    with pytest.raises(ValueError, match="features must be a positive integer, received 0"):
        LayerNorm(0)
    with pytest.raises(ValueError, match="epsilon must be at least 0, received -1"):
        RMSNorm(2, epsilon=-1)
    with pytest.raises(ValueError, match=r"momentum must be from 0 to 1, received 1\.5"):
        BatchNorm(2, momentum=1.5)
    with pytest.raises(ValueError, match="groups must divide the 6 features, received 4"):
        GroupNorm(4, 6)
    with pytest.raises(ValueError, match="a layer learns floating-point numbers"):
        BatchNorm(2, dtype="int32")


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_float16_whose_squares_overflow(device, make):
    needs_float16(device.namespace)
    x = 150 * numpy.random.default_rng(0).normal(size=(4, 3, 6)).astype("float16")
    with xpnet.use_device(device):
        narrow, wide = make(dtype="float16"), make(dtype="float64")
        y = narrow(xpnet.asarray(x, device=device))
        assert_on(y, device, "float16", x.shape)
        expected = xpnet.to_numpy(wide(xpnet.asarray(x, device=device, dtype="float64")))
        numpy.testing.assert_allclose(xpnet.to_numpy(y).astype(float), expected, rtol=2**-9, atol=2**-9)
