"""Embeddings, positions, attention and transformer blocks: beside PyTorch, and step by step."""

import math

import numpy
import pytest
from helpers import assert_on, assert_same, rounding
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from nn.torch_peer import beside_torch, compare, numbers
from xpnet.nn import (
    Embedding,
    MultiHeadAttention,
    RotaryPositions,
    Sequential,
    SinusoidalPositions,
    TransformerBlock,
)

SIZES = st.integers(1, 5)


def linear(F, p, name, x):
    bias = p.get(f"{name}.bias")
    return F.linear(x, p[f"{name}.weight"].mT, bias)


def turned(x):
    """Rotary positions by complex numbers."""
    import torch

    length, half = x.shape[-2], x.shape[-1] // 2
    angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(half) / half))
    turns = torch.polar(torch.ones_like(angles), angles)
    y = torch.view_as_real(torch.complex(x[..., :half], x[..., half:]) * turns)
    return torch.cat([y[..., 0], y[..., 1]], -1)


def attention(F, p, heads, x, context, mask, prefix="", causal=False, rotary=False):
    def split(y):
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = (
        split(linear(F, p, prefix + n, y)) for n, y in (("query", x), ("key", context), ("value", context))
    )
    if rotary:
        q, k = turned(q), turned(k)
    seen = mask[:, None, None, :] if mask is not None else x.new_ones(1, 1, 1, 1).bool()
    if causal:
        seen = seen & x.new_ones(x.shape[1], context.shape[1]).bool().tril()
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen.expand(len(x), 1, x.shape[1], context.shape[1])
    )
    return linear(F, p, prefix + "output", y.transpose(1, 2).flatten(2))


@beside_torch
@given(
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES),
    heads=st.integers(1, 3),
    bias=st.booleans(),
    masked=st.booleans(),
)
def test_attention_to_a_context(sizes, heads, bias, masked):
    batch, length, known, width = sizes
    features = heads * width
    mask = numpy.random.default_rng(4).random((batch, known)) < 0.6
    mask[:, 0] = True
    inputs = [numbers(batch, length, features), numbers(batch, known, features, seed=1)]

    def call(layer, x, context, *mask):
        return layer(x, context, mask=mask[0] if mask else None)

    def peer(F, p, x, context, *mask):
        return attention(F, p, heads, x, context, mask[0] if mask else None)

    compare(MultiHeadAttention(features, heads, bias=bias), peer, *inputs, *[mask][:masked], call=call)


@beside_torch
@given(
    sizes=st.tuples(SIZES, SIZES, SIZES), heads=st.integers(1, 3), causal=st.booleans(), rotary=st.booleans()
)
def test_self_attention(sizes, heads, causal, rotary):
    batch, length, width = sizes
    features = 2 * heads * width

    def peer(F, p, x):
        return attention(F, p, heads, x, x, None, causal=causal, rotary=rotary)

    layer = MultiHeadAttention(features, heads, causal=causal, rotary=rotary)
    compare(layer, peer, numbers(batch, length, features))


@beside_torch
@given(
    sizes=st.tuples(SIZES, SIZES, SIZES),
    heads=st.integers(1, 2),
    hidden=st.integers(1, 6),
    causal=st.booleans(),
)
def test_block(sizes, heads, hidden, causal):
    batch, length, width = sizes
    features = 2 * heads * width

    def norm(F, p, name, x):
        return F.layer_norm(x, (features,), p[f"{name}.weight"], p[f"{name}.bias"])

    def peer(F, p, x):
        y = norm(F, p, "attention_norm", x)
        x = x + attention(F, p, heads, y, y, None, prefix="attention.", causal=causal)
        y = F.gelu(linear(F, p, "expand", norm(F, p, "dense_norm", x)), approximate="tanh")
        return x + linear(F, p, "contract", y)

    compare(
        TransformerBlock(features, heads, hidden=hidden, causal=causal),
        peer,
        numbers(batch, length, features),
    )


@beside_torch
@given(entries=SIZES, features=SIZES, shape=st.lists(st.integers(0, 4), max_size=3))
def test_embedding(entries, features, shape):
    indices = numpy.random.default_rng(2).integers(0, entries, size=shape)
    compare(Embedding(entries, features), lambda F, p, i: F.embedding(i, p["weight"]), indices)


# -- positions --------------------------------------------------------------------------------------------


def test_sinusoidal_positions(device):
    y = SinusoidalPositions(6)(xpnet.asarray(numpy.zeros((2, 5, 6)), device=device), start=3)
    expected = numpy.zeros((5, 6))
    for t in range(5):
        for i in range(3):
            angle = (t + 3) / 10000 ** (2 * i / 6)
            expected[t, 2 * i : 2 * i + 2] = math.sin(angle), math.cos(angle)
    assert_on(y, device, "float64", (2, 5, 6))
    assert_same(y[1, ...], expected)


def test_rotary_products_depend_on_distances_alone(device):
    layer = RotaryPositions(4)
    q, k = (
        xpnet.asarray(numpy.tile(numbers(4, seed=s), (9, 1)), device=device, dtype="float64") for s in (0, 1)
    )
    for start in (0, 5):
        products = xpnet.to_numpy(xpnet.array_namespace(q).matmul(layer(q, start=start), layer(k).T))
        for distance in range(-4, 5):
            diagonal = numpy.diagonal(products, distance)
            numpy.testing.assert_allclose(diagonal, diagonal[0], atol=rounding(100, "float64", 10))
        assert abs(products[0] - products[0, 0]).max() > 0.1
    assert_same(xpnet.array_namespace(q).sum(layer(q) ** 2), xpnet.to_numpy(q**2).sum())


# -- step by step -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_steps_give_what_the_whole_gives(device, rotary, jit):
    blocks = [TransformerBlock(8, 2, causal=True, rotary=rotary, seed=s).eval() for s in (0, 1)]
    x = xpnet.asarray(numbers(3, 7, 8), device=device)
    expected = xpnet.to_numpy(Sequential(*blocks)(x))
    records = []

    def step(blocks, x, caches):
        records.append(1)
        pairs = []
        for block, cache in zip(blocks, caches, strict=True):
            x, cache = block.step(x, cache)
            pairs.append(cache)
        return x, pairs

    call = xpnet.jit(step) if jit else step
    caches = [block.new_cache(3, 10) for block in blocks]
    first, caches = call(blocks, x[:, :3, :], caches)
    assert_same(first, expected[:, :3])
    for t in range(3, 7):
        y, caches = call(blocks, x[:, t : t + 1, :], caches)
        assert_same(y, expected[:, t : t + 1])
        assert_same(caches[0]["length"], numpy.asarray(t + 1, dtype="int32"))
    assert_on(caches[1]["keys"], device, "float32", (3, 2, 10, 4))
    if jit:
        assert len(records) == 2  # once for three positions, once for one


@pytest.mark.parametrize(
    "layer", [MultiHeadAttention(4, 2, causal=True, seed=0), TransformerBlock(4, 2, causal=True, seed=0)]
)
def test_a_causal_layer_does_not_look_ahead(device, layer):
    layer = xpnet.to_device(layer, device)
    x = numbers(1, 5, 4)
    before = layer(xpnet.asarray(x, device=device))
    x[0, 3, 0] += 1
    after = layer(xpnet.asarray(x, device=device))
    assert_same(after[:, :3, :], before[:, :3, :])
    assert abs(xpnet.to_numpy(after - before))[0, 3:].min() > 0


def test_what_is_masked_does_not_count(device):
    layer = TransformerBlock(4, 2, seed=0)
    x = numbers(2, 5, 4)
    mask = xpnet.asarray([[True] * 5, [True] * 3 + [False] * 2], device=device)
    before = layer(xpnet.asarray(x, device=device), mask=mask)
    x[1, 3:] += 10
    after = layer(xpnet.asarray(x, device=device), mask=mask)
    assert_same(after[1, :3, :], before[1, :3, :])


def test_a_position_that_sees_nothing_takes_in_nothing(device):
    layer = xpnet.to_device(MultiHeadAttention(4, 2, causal=True, seed=0), device)
    layer.output.bias = layer.output.bias + 0.5
    mask = xpnet.asarray([[False, True, True]], device=device)
    y = layer(xpnet.asarray(numbers(1, 3, 4), device=device), mask=mask)
    assert_same(y[0, 0, :], layer.output.bias)


def test_gradients_of_two_orders(device):
    block = TransformerBlock(4, 2, hidden=3, causal=True, rotary=True, dtype="float64", seed=0)
    x = xpnet.asarray(numpy.random.default_rng(0).normal(size=(1, 3, 4)), device=device)
    xpnet.check_gradients(lambda block, x: block(x), block, x, order=2)


def test_dropout_is_of_all_that_is_added(device):
    block = TransformerBlock(4, 2, dropout=1 - 1e-6, seed=0)  # which drops as good as everything
    x = xpnet.asarray(numbers(2, 3, 4), device=device)
    assert_same(block(x), x)
    assert_same(block.step(x, block.new_cache(2, 3))[0], x)
    assert abs(xpnet.to_numpy(block.eval()(x) - x)).max() > 0.1


def test_under_jit_with_dropout(device):
    def loss(net, x):
        return xpnet.array_namespace(net[0].weight).mean(net(x) ** 2)

    nets = [
        Sequential(
            Embedding(5, 4, seed=0), SinusoidalPositions(4), TransformerBlock(4, 2, dropout=0.5, seed=1)
        )
        for _ in range(2)
    ]
    step = xpnet.jit(xpnet.grad(loss))
    for seed in range(3):
        x = xpnet.asarray(numpy.random.default_rng(seed).integers(0, 5, size=(2, 6)), device=device)
        for one, other in zip(
            *map(xpnet.tree.leaves, (step(nets[0], x), xpnet.grad(loss)(nets[1], x))), strict=True
        ):
            assert_same(one, other)


# -- bad input --------------------------------------------------------------------------------------------


def test_wrong_shapes(device):
    layer, x = MultiHeadAttention(4, 2, seed=0), xpnet.asarray(numbers(2, 5, 4), device=device)
    with pytest.raises(
        ValueError, match=r"MultiHeadAttention\(4, 2\) needs the axes \(batch, length, features\)"
    ):
        layer(x[0, ...])
    with pytest.raises(ValueError, match=r"expected 4 features on the last axis, received 3"):
        layer(x, x[..., :3])
    mask = xpnet.asarray(numpy.ones((2, 4), dtype=bool), device=device)
    with pytest.raises(
        ValueError, match=r"axes \(batch, length\), here \(2, 5\), received the shape \(2, 4\)"
    ):
        layer(x, mask=mask)
    with pytest.raises(TypeError, match=r"mask of MultiHeadAttention\(4, 2\) must be an array of bool"):
        layer(x, mask=x[:, :, 0])
    with pytest.raises(ValueError, match=r"SinusoidalPositions\(6\).*\(2, 5, 4\)"):
        SinusoidalPositions(6)(x)
    with pytest.raises(ValueError, match=r"needs the axes \(..., length, features\)"):
        RotaryPositions(4)(x[0, 0, :])


def test_an_embedding_reads_integers(device):
    with pytest.raises(TypeError, match=r"Embedding\(4, 2\) needs integers, .* received .*float32"):
        Embedding(4, 2)(xpnet.asarray(numbers(3), device=device))


def test_bad_settings():
    with pytest.raises(ValueError, match="heads must divide the 4 features, received 3"):
        MultiHeadAttention(4, 3)
    with pytest.raises(ValueError, match="features must be even, two for each wave, received 3"):
        RotaryPositions(3)
    with pytest.raises(ValueError, match="entries must be a positive integer, received 0"):
        Embedding(0, 4)
    with pytest.raises(ValueError, match="length must be a positive integer, received 0"):
        TransformerBlock(4, 2).new_cache(2, 0)
