"""Embeddings: an index that is no entry is an error or NaN, and never another entry's vector."""

import math

import numpy
import pytest
from helpers import assert_on, assert_same

import xpnet
from xpnet import nn

WRONG = [-1, -4, 4, 200]


def lookup(net, indices):
    return net(indices)


def total(net, indices):
    """The sum of the vectors that are not NaN: as of one who leaves out what is missing."""
    y = net(indices)
    xp = xpnet.array_namespace(y)
    return xp.sum(xp.where(xp.isnan(y), 0.0, y * y))


@pytest.mark.parametrize("wrong", WRONG)
def test_an_index_out_of_range_is_an_error_on_the_host(wrong):
    layer = nn.Embedding(4, 2, seed=0)
    for indices in (numpy.asarray([0, wrong, 3]), numpy.asarray(wrong), numpy.int64(wrong)):
        with pytest.raises(IndexError, match=rf"Embedding\(4, 2\) needs .* from 0 to 3, received {wrong}\."):
            layer(indices)
    assert layer(numpy.zeros((0, 3), dtype="int64")).shape == (0, 3, 2)


def test_the_error_says_what_pandas_writes():
    with pytest.raises(IndexError, match=r"-1 is what pandas writes for a missing category: .* codes \+ 1"):
        nn.Embedding(4, 2)(numpy.asarray([2, -1], dtype="int8"))
    with pytest.raises(IndexError, match="received 4"):
        nn.Embedding(4, 2)(numpy.asarray([2, 4], dtype="uint8"))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("jit", [False, True])
def test_an_index_out_of_range_gives_nan_elsewhere(device, jit, wrong):
    layer, indices = nn.Embedding(4, 2, seed=0), xpnet.asarray([[3, wrong], [0, 0]], device=device)
    weight = xpnet.to_numpy(layer.weight)
    if device.library.spec != "cpu" or jit:  # else it is an error
        y = (xpnet.jit(lookup) if jit else lookup)(layer, indices)
        assert_on(y, device, "float32", (2, 2, 2))
        expected = numpy.stack([weight[[3, 0]], weight[[0, 0]]])
        expected[0, 1] = math.nan
        assert_same(y, expected)
    # No entry learns from it, neither the first nor, of -1, the last.
    gradient = (xpnet.jit(xpnet.grad(total)) if jit else xpnet.grad(total))(layer, indices)
    assert_same(gradient.weight, numpy.asarray([[4], [0], [0], [2]], dtype="float32") * weight)


@pytest.mark.parametrize(("dtype", "entries"), [("uint8", 256), ("int8", 200), ("int32", 4), ("int64", 4)])
@pytest.mark.parametrize("jit", [False, True])
def test_indices_of_any_integer_dtype(device, jit, dtype, entries):
    if not hasattr(device.namespace, dtype):
        pytest.skip(f"the library has no {dtype}")
    layer = nn.Embedding(entries, 3, seed=0)
    last = min(entries - 1, numpy.iinfo(dtype).max)
    y = (xpnet.jit(lookup) if jit else lookup)(layer, xpnet.asarray([0, last], device=device, dtype=dtype))
    assert_same(y, xpnet.to_numpy(layer.weight)[[0, last]])


# -- other places that look up ------------------------------------------------------------------------------


def test_texts_of_what_is_no_byte():
    reader = nn.ByteReader(3)
    assert reader.texts([[104, 105, 256]]) == ["hi"]
    for wrong in (-1, 257):
        with pytest.raises(IndexError, match=rf"ByteReader\(3\) needs .* from 0 to 256, received {wrong}\."):
            reader.texts(numpy.asarray([[104, wrong, 256]]))


@pytest.mark.parametrize("jit", [False, True])
def test_positions_for_which_a_cache_has_no_room(device, jit):
    layer = nn.MultiHeadAttention(4, 2, causal=True, seed=0)
    x = xpnet.asarray(numpy.random.default_rng(0).normal(size=(1, 3, 4)), device=device, dtype="float32")
    step = xpnet.jit(nn.MultiHeadAttention.step) if jit else nn.MultiHeadAttention.step
    whole, full = step(layer, x, layer.new_cache(1, 3))
    assert_same(whole, layer(x))
    if device.library.spec == "cpu" and not jit:
        with pytest.raises(IndexError, match="received one for 3 and positions up to 6"):
            step(layer, x, full)
        with pytest.raises(IndexError, match="received one for 2 and positions up to 3"):
            step(layer, x, layer.new_cache(1, 2))
        return
    assert numpy.isnan(xpnet.to_numpy(step(layer, x, full)[0])).all()
    part = xpnet.to_numpy(step(layer, x, layer.new_cache(1, 2))[0])
    assert numpy.isnan(part[:, 2]).all()
    assert numpy.isfinite(part[:, :2]).all()


# -- in training ------------------------------------------------------------------------------------------


class Table(nn.Module):
    """Numbers and a category, from a dict, or from the columns of one array."""

    def __init__(self):
        self.category = nn.Embedding(4, 2, seed=0)
        self.dense = nn.Dense(4, 1, seed=1)

    def __call__(self, x):
        if isinstance(x, dict):
            numbers, category = x["numbers"], x["category"]
        else:
            xp = xpnet.array_namespace(x)
            numbers, category = x[:, :2], xp.astype(x[:, 2], xp.int64)
        parts = [numbers, self.category(category)]
        return self.dense(xpnet.array_namespace(*parts).concat(parts, axis=-1))


def table(wrong=0):
    category = numpy.arange(40) % 4
    category[33] = wrong
    return {"numbers": numpy.random.default_rng(0).normal(size=(40, 2)), "category": category}


def train(net, x, **options):
    y = numpy.zeros((40, 1))
    options = {"loss": xpnet.losses.mse, "optimizer": xpnet.optim.SGD(0.1), "progress": False} | options
    return xpnet.fit(net, x, y, epochs=1, batch_size=8, **options)


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("wrong", [-1, 4])
def test_fit_refuses_an_index_before_anything_changes(device, wrong, place):
    net, steps = Table(), xpnet.training.Steps(xpnet.losses.mse)
    move = xpnet.asarray if place == "host" else lambda x: xpnet.asarray(x, device=device)
    good, bad = ({key: move(x) for key, x in table(index).items()} for index in (0, wrong))
    train(net, good, loss=steps, shuffle=False)
    before = [xpnet.to_numpy(leaf).copy() for leaf in xpnet.tree.leaves(net)]
    for options in ({}, {"validation": 0.2}, {"loss": steps}):  # which was tried with arrays like these
        with pytest.raises(IndexError, match=f"from 0 to 3, received {wrong}") as caught:
            train(net, bad, **options)
        assert caught.value.__notes__ == ["They are in x['category']."]
    with pytest.raises(IndexError, match=f"received {wrong}"):
        train(net, good, validation=(bad, numpy.zeros((40, 1))))
    for leaf, old in zip(xpnet.tree.leaves(net), before, strict=True):
        assert_same(leaf, old)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("wrong", [-1, 4])
def test_predict_refuses_an_index_in_any_batch(device, wrong, jit):
    net = Table()
    with pytest.raises(IndexError, match=f"received {wrong}") as caught:
        xpnet.predict(net, table(wrong), batch_size=8, jit=jit)
    assert caught.value.__notes__ == ["They are in x['category']."]
    numbers, category = table().values()
    x = {"numbers": numbers.astype("float32"), "category": category}
    expected = net(xpnet.to_device(x, device))
    for _ in range(2):  # once the network is called to see what it reads, then it is known
        assert_same(xpnet.predict(net, table(), batch_size=8, jit=jit), expected)
        with pytest.raises(IndexError, match=f"received {wrong}"):
            xpnet.predict(net, table(wrong), batch_size=8, jit=jit)
    # An item that no layer reads as an index may hold anything.
    assert xpnet.predict(net, table() | {"other": numpy.full(40, -1)}).shape == (40, 1)
    with pytest.raises(IndexError, match=f"received {wrong}") as caught:
        xpnet.predict(nn.Sequential(net.category), table(wrong)["category"], batch_size=8)
    assert caught.value.__notes__ == ["They are in x."]


def test_what_nobody_looks_at_gives_nan(device):
    x = numpy.column_stack([table()["numbers"], table(-1)["category"]]).astype("float32")
    y = xpnet.to_numpy(xpnet.predict(Table(), x, batch_size=8))
    assert numpy.isnan(y[:, 0]).nonzero()[0].tolist() == [33]
    if device.library.spec != "cpu":  # so do inputs on a device, for which predict does not wait
        there = {key: xpnet.asarray(part, device=device) for key, part in table(-1).items()}
        y = xpnet.to_numpy(xpnet.predict(Table(), there, batch_size=8))
        assert numpy.isnan(y[:, 0]).nonzero()[0].tolist() == [33]
    message = (
        r"in epoch 1, batch \d, first in what a layer refuses: Embedding\(.* received -1\. -1 is what pandas"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(Table(), x)
