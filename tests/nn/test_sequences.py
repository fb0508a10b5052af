"""Sequences of different lengths: a batch with padding gives what each sequence gives by itself."""

import functools

import numpy
import pytest
from helpers import array, assert_on, assert_same, draw, half_of_the_digits, on

import xpnet
from xpnet import losses, nn, optim, tree
from xpnet.nn import GRU, LSTM, mask_of_lengths
from xpnet.nn.masks import without_hidden

OPTIONS = {"dtype": "float64", "seed": 0}
RECURRENT = {
    "LSTM": lambda: LSTM(4, 3, **OPTIONS),
    "GRU": lambda: GRU(4, 3, **OPTIONS),
    "stacked GRU": lambda: GRU(4, 3, layers=2, **OPTIONS),
    "bidirectional LSTM": lambda: LSTM(4, 3, layers=2, bidirectional=True, **OPTIONS),
    "bidirectional GRU": lambda: GRU(4, 3, layers=2, bidirectional=True, **OPTIONS),
}
# Their output at a position is that of the sequence by itself.
LAYERS = RECURRENT | {
    "Conv1d": lambda: nn.Conv1d(4, 3, 3, padding="same", **OPTIONS),
    "MultiHeadAttention": lambda: nn.MultiHeadAttention(4, 2, **OPTIONS),
    "causal attention": lambda: nn.MultiHeadAttention(4, 2, causal=True, rotary=True, **OPTIONS),
    "TransformerBlock": lambda: nn.TransformerBlock(4, 2, hidden=5, **OPTIONS),
    "Sequential": lambda: nn.Sequential(
        nn.Sequential(GRU(4, 4, **OPTIONS), nn.Dense(4, 4, **OPTIONS)),
        nn.Residual(nn.TransformerBlock(4, 2, hidden=5, **OPTIONS)),
        nn.Concatenate(LSTM(4, 2, **OPTIONS), lambda x: x),
        nn.Dense(6, 2, **OPTIONS),
    ),
}
# Their output is one of the whole sequence.
POOLINGS = {
    "GlobalAvgPool": lambda: nn.GlobalAvgPool(),
    "GlobalMaxPool": lambda: nn.GlobalMaxPool(),
    "pooled": lambda: nn.Sequential(LSTM(4, 3, bidirectional=True, **OPTIONS), nn.GlobalMaxPool()),
}


def by_name(table):
    return pytest.mark.parametrize("make", list(table.values()), ids=list(table))


def padded(seed, garbage):
    """Return sequences of random lengths, with anything behind them."""
    random = numpy.random.default_rng(seed)
    lengths = random.integers(1, 6, size=4)
    x = random.normal(size=(4, 5, 4))
    mask = mask_of_lengths(lengths, 5)
    x[~mask] = garbage
    return x, mask, lengths


@functools.cache
def one_by_one(name, seed):
    """Return what each sequence gives by itself, on NumPy: outputs, weights for a sum, and gradients."""
    x, _, lengths = padded(seed, 0.0)
    with xpnet.use_device("cpu"):
        layer, found = (LAYERS | POOLINGS)[name](), []
        total = tree.map(numpy.zeros_like, layer)
        for i, n in enumerate(lengths):
            alone = x[i : i + 1, :n]
            weights = draw(*layer(alone).shape, seed=i)

            def value(layer, alone, weights):
                y = layer(alone)
                return xpnet.array_namespace(y).sum(y * weights)

            of_layer, of_x = xpnet.grad(value, argnums=(0, 1))(layer, alone, weights)
            total = tree.map(lambda a, b: a + b, total, of_layer)
            found.append((layer(alone)[0], weights[0], of_x[0]))
    return found, total


@pytest.mark.parametrize(
    ("transform", "seed", "garbage"),
    [(lambda f: f, 0, numpy.nan), (xpnet.jit, 1, numpy.inf)],
    ids=["plain", "jit"],
)
@pytest.mark.parametrize("name", LAYERS | POOLINGS)
def test_padding_changes_nothing(device, name, transform, seed, garbage):
    (x, mask, lengths), (each, expected) = padded(seed, garbage), one_by_one(name, seed)
    is_whole = name in POOLINGS
    weights = numpy.zeros((4, *each[0][1].shape) if is_whole else (4, 5, each[0][1].shape[-1]))
    for i, n in enumerate(lengths):
        weights[i, ... if is_whole else slice(n)] = each[i][1]

    def weighted(layer, x, mask, weights):
        y = layer(x, mask=mask)
        return xpnet.array_namespace(y).sum(y * weights), xpnet.stop_gradient(y)

    step = transform(xpnet.value_and_grad(weighted, argnums=(0, 1), has_aux=True))
    layer = (LAYERS | POOLINGS)[name]()
    (_, y), (of_layer, of_x) = step(layer, *(on(device, each) for each in (x, mask, weights)))
    assert_on(y, device, "float64", weights.shape)
    for i, n in enumerate(lengths):
        right, _, gradient = each[i]
        assert_same(y[i, ...] if is_whole else y[i, :n, :], right)
        assert_same(of_x[i, :n, :], gradient)
        assert_same(of_x[i, n:, :], numpy.zeros((5 - n, 4)))
    for one, other in zip(tree.leaves(of_layer), tree.leaves(expected), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_the_last_output_is_that_of_the_last_position(device, make):
    x, mask, lengths = padded(3, numpy.nan)
    layer = make(4, 3, bidirectional=True, **OPTIONS)
    y = layer(on(device, x), mask=on(device, mask))
    for i, n in enumerate(lengths):
        assert_same(y[i, -1, :3], y[i, n - 1, :3])
        assert_same(y[i, n:, 3:], numpy.zeros((5 - n, 3)))


@by_name({name: make for name, make in RECURRENT.items() if "bidirectional" not in name})
def test_steps_of_different_lengths(device, make):
    layer, (x, mask, _) = make(), padded(4, numpy.nan)
    mask[0], mask[1] = [True, False, False, False, False], [True, True, False, True, True]
    x = on(device, numpy.where(mask[..., None], x, numpy.nan))
    mask = on(device, mask)
    expected, state = layer(x, mask=mask), None
    for part in (slice(2), slice(2, 3), slice(3, 5)):  # of which the later ones hide rows whole
        y, state = layer.step(x[:, part, :], state, mask=mask[:, part])
        assert_same(y, expected[:, part, :])


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_one_layer_draws_as_before(make):
    layer = make(4, 3, layers=2, bidirectional=True, seed=0)
    random = numpy.random.default_rng(0)
    gates = layer.parts * 3
    weight = nn.initializers.glorot_uniform((4, gates), random)
    own = nn.initializers.orthogonal()((3, gates), random)
    assert_same(layer.input.weight, weight.astype("float32"))
    assert_same(layer.recurrent.weight, own.astype("float32"))
    assert not numpy.array_equal(layer.backward.input.weight, layer.input.weight)


def test_states_of_all_layers(device):
    layer = LSTM(4, 3, layers=3, seed=0)
    x = array(draw(2, 5, 4), "float32")
    state = layer.new_state(x)
    assert tree.paths(state) == tree.paths(layer.step(x, None)[1])
    assert set(state) == {"memory", "output", "above"}
    assert_on(state["above"]["above"]["memory"], device, "float32", (2, 3))
    assert set(LSTM(4, 3).new_state(x)) == {"memory", "output"}


def test_each_part_of_a_state_is_an_array_of_its_own():
    x = draw(2, 5, 4)
    state = LSTM(4, 3, **OPTIONS).new_state(x)
    state["memory"][...] = 1.0
    assert_same(state["output"], numpy.zeros((2, 3)))


@by_name({name: LAYERS[name] for name in ("bidirectional LSTM", "stacked GRU", "TransformerBlock")})
def test_gradients_of_two_orders(device, make):
    x, mask, _ = padded(5, 0.0)
    mask = on(device, mask[:2, :3])
    xpnet.check_gradients(lambda layer, x: layer(x, mask=mask), make(), on(device, x[:2, :3, :]), order=2)


# -- lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
@pytest.mark.parametrize("transform", [lambda f: f, xpnet.jit], ids=["plain", "jit"])
def test_mask_of_lengths(device, dtype, transform):
    mask = transform(lambda n: mask_of_lengths(n, 300))(array([1, 200, 255], dtype))
    assert_on(mask, device, "bool", (3, 300))
    assert_same(mask, numpy.arange(300) < numpy.asarray([[1], [200], [255]]))


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([0, 2], ValueError, r"lengths must be from 1 to 4, received some from 0 to 2\. Leave out empty"),
        ([1, 5], ValueError, r"lengths must be from 1 to 4, received some from 1 to 5"),
        ([[1, 2]], ValueError, r"lengths must have the axis \(batch,\), received the shape \(1, 2\)"),
        ([1.0, 2.0], TypeError, "lengths must be an array of integers, received float64"),
        ([True, False], TypeError, "lengths must be an array of integers, received bool"),
    ],
)
def test_bad_lengths(lengths, error, message):
    with pytest.raises(error, match=message):
        mask_of_lengths(numpy.asarray(lengths), 4)
    with pytest.raises(TypeError, match="lengths must be an array of integers, received list"):
        mask_of_lengths([1, 2], 4)


# -- bad masks --------------------------------------------------------------------------------------------


@by_name(LAYERS | POOLINGS)
def test_bad_masks(device, make):
    layer, x = make(), on(device, draw(2, 5, 4))
    with pytest.raises(TypeError, match=r"needs floating-point numbers, received .*int"):
        layer(array(numpy.ones((2, 5, 4)), "int32"), mask=on(device, numpy.ones((2, 5), dtype=bool)))
    with pytest.raises(ValueError, match=r"needs the axes \(batch, length, .*\(2, 5\)"):
        layer(x[:, :, 0], mask=on(device, numpy.ones((2, 5), dtype=bool)))
    with pytest.raises(
        ValueError, match=r"axes \(batch, length\), here \(2, 5\), received the shape \(2, 4\)"
    ):
        layer(x, mask=on(device, numpy.ones((2, 4), dtype=bool)))
    with pytest.raises(ValueError, match=r"here \(2, 5\), received the shape \(2, 5, 4\)"):
        layer(x, mask=x > 0)
    with pytest.raises(TypeError, match=r"must be an array of bool, .*, received .*float64"):
        layer(x, mask=x[:, :, 0])
    with pytest.raises(TypeError, match=r"must be an array of bool, .*, received list"):
        layer(x, mask=[[True] * 5] * 2)


@by_name(LAYERS | POOLINGS)
def test_a_row_that_is_hidden_whole(device, make):
    layer, x = make(), on(device, draw(3, 5, 4))
    mask = on(device, mask_of_lengths(numpy.asarray([2, 5, 1]), 5) & numpy.asarray([[True], [False], [True]]))
    step = xpnet.jit(lambda layer, x, mask: layer(x, mask=mask))
    if device.library.spec == "cpu":
        with pytest.raises(ValueError, match=r"True somewhere in each row, .* hides row 1 whole\. Leave out"):
            layer(x, mask=mask)
    else:
        assert_same(layer(x, mask=mask), step(layer, x, mask))
    y = xpnet.to_numpy(step(layer, x, mask))
    assert numpy.isnan(y[1]).all()
    assert numpy.isfinite(y[[0, 2]]).all()


def test_a_mask_of_another_library():
    import array_api_strict

    x = numpy.ones((2, 5, 4))
    for layer in (LSTM(4, 3, **OPTIONS), nn.GlobalAvgPool(), nn.MultiHeadAttention(4, 2, **OPTIONS)):
        with pytest.raises(xpnet.errors.MixedArraysError):
            layer(x, mask=array_api_strict.asarray([[True] * 5] * 2))


def test_steps_cannot_read_from_the_end(device):
    x = on(device, draw(2, 5, 4))
    for layer in (LSTM(4, 3, bidirectional=True, **OPTIONS), GRU(4, 3, bidirectional=True, **OPTIONS)):
        with pytest.raises(ValueError, match=r"must read forward, (LSTM|GRU)\(4, 3\) is bidirectional"):
            layer.step(x, None)


# -- masks in networks ------------------------------------------------------------------------------------


class TakesMask(nn.Module):
    def __call__(self, x, *, mask=None):
        return x if mask is None else without_hidden(x, mask, "TakesMask()")


class ReadsNone(LSTM):
    def __init__(self, width):
        super().__init__(width, width, layers=2, bidirectional=True)

    def __call__(self, x):
        return super().__call__(x[:, :, ::-1])


def test_which_layers_take_a_mask():
    found = {name for name in nn.__all__ if getattr(getattr(nn, name), "takes_mask", False) is True}
    assert found == {
        *("LSTM", "GRU", "MultiHeadAttention", "TransformerBlock"),
        *("Conv1d", "GlobalAvgPool", "GlobalMaxPool"),
    }
    assert TakesMask().takes_mask
    assert not ReadsNone(4).takes_mask
    assert type(ReadsNone(4).backward) is type(ReadsNone(4).above.backward) is LSTM
    assert nn.Residual(nn.ReLU(), shortcut=nn.Sequential(TakesMask())).takes_mask
    assert nn.Concatenate(nn.ReLU(), TakesMask()).takes_mask
    assert not nn.Residual(nn.Sequential(nn.ReLU())).takes_mask
    assert not nn.Intermediate(nn.Sequential(nn.ReLU()), "layers.0").takes_mask


def test_a_network_passes_its_mask_on(device):
    x, mask = on(device, draw(1, 3, 4)), on(device, numpy.asarray([[True, False, True]]))
    net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Residual(TakesMask(), shortcut=lambda x: 0 * x)))
    expected = numpy.maximum(draw(1, 3, 4), 0) * numpy.asarray([[[1.0], [0.0], [1.0]]])
    assert_same(net(x, mask=mask), expected)
    joined = nn.Concatenate(TakesMask(), nn.ReLU())(x, mask=mask)
    assert_same(joined[..., :4], draw(1, 3, 4) * numpy.asarray([[[1.0], [0.0], [1.0]]]))
    part = nn.Sequential(nn.Intermediate(net, "layers.1.layers.0.inner"), nn.ReLU())
    assert_same(part(x, mask=mask), expected)


def test_a_mask_that_no_layer_takes(device):
    x, mask = on(device, draw(1, 3, 4)), on(device, numpy.ones((1, 3), dtype=bool))
    for make in (nn.Sequential, nn.Residual, nn.Concatenate):
        message = rf"a mask needs a layer that takes it, .* one for a {make.__name__} of ReLU, Tanh\. Call it"
        with pytest.raises(TypeError, match=message):
            make(nn.ReLU(), nn.Tanh())(x, mask=mask)
    with pytest.raises(TypeError, match=r"received one for a Sequential of no layers\."):
        nn.Sequential()(x, mask=mask)


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv1d(4, 4, 3, seed=0), lambda: nn.MaxPool(2), lambda: nn.AvgPool(2)]
)
def test_no_mask_fits_behind_a_change_of_the_length(device, make):
    net = nn.Sequential(make(), GRU(4, 3, seed=0))
    x = array(draw(1, 6, 4), "float32")
    with pytest.raises(ValueError, match=r"here \(1, [34]\), received the shape \(1, 6\)\. Behind a layer"):
        net(x, mask=on(device, numpy.ones((1, 6), dtype=bool)))


def test_a_summary_while_masks_pass(device):
    net = nn.Sequential(LSTM(4, 3, seed=0), nn.GlobalAvgPool())
    assert "layers.1 GlobalAvgPool" in str(net.summary((5, 4)))


# -- training ---------------------------------------------------------------------------------------------


class OfTexts(nn.Module):
    def __init__(self):
        self.net = nn.Sequential(
            nn.Embedding(5, 6, seed=0),
            GRU(6, 6, seed=1),
            nn.GlobalMaxPool(),
            nn.Dense(6, 2, seed=2),
        )

    def __call__(self, x):
        return self.net(x["ids"], mask=x["mask"])


def test_fit_learns_from_sequences_of_different_lengths(device):
    random = numpy.random.default_rng(0)
    mask = mask_of_lengths(random.integers(1, 6, size=64), 5)
    ids = random.integers(0, 5, size=(64, 5))
    y = (
        (numpy.where(mask, ids, 0) == 4).any(axis=1).astype("int64")
    )  # whether there is a 4 in front of padding
    x, net = {"ids": ids, "mask": mask}, OfTexts()
    history = xpnet.fit(
        net, x, y, loss=losses.cross_entropy, optimizer=optim.Adam(0.1), epochs=8, batch_size=32,
        metrics=[xpnet.metrics.accuracy], seed=0, progress=False,
    )  # fmt: skip
    assert history["accuracy"][-1] > 0.95
    before = xpnet.predict(net, x)
    assert_same(before, xpnet.predict(net, {"ids": numpy.where(mask, ids, 4), "mask": mask}))


# -- beside PyTorch ---------------------------------------------------------------------------------------


def of_torch(p, name="", layer=0):
    """Return the parameters of a recurrent layer by their names in PyTorch."""
    named = {}
    for part, end in (("", ""), ("backward.", "_reverse")):
        if f"{name}{part}input.weight" in p:
            own = p[f"{name}{part}recurrent.weight"].mT
            zeros = own.new_zeros(len(own))
            named[f"weight_ih_l{layer}{end}"] = p[f"{name}{part}input.weight"].mT
            named[f"bias_ih_l{layer}{end}"] = p[f"{name}{part}input.bias"]
            named[f"weight_hh_l{layer}{end}"] = own
            named[f"bias_hh_l{layer}{end}"] = p.get(f"{name}{part}recurrent.bias", zeros)
    above = f"{name}above."
    return named | of_torch(p, above, layer + 1) if f"{above}input.weight" in p else named


def packed(kind):
    """Return what PyTorch computes of packed sequences."""
    import torch

    layer = getattr(torch.nn, kind)(4, 3, num_layers=2, bidirectional=True, batch_first=True).double()

    def function(p, x, mask):
        sequences = torch.nn.utils.rnn.pack_padded_sequence(
            x, mask.sum(1), batch_first=True, enforce_sorted=False
        )
        y = torch.func.functional_call(layer, of_torch(p), (sequences,))[0]
        return torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]

    return function


def attention_of_torch(p, name=""):
    parts = ("query", "key", "value")
    import torch

    return {
        "in_proj_weight": torch.cat([p[f"{name}{part}.weight"].mT for part in parts]),
        "in_proj_bias": torch.cat([p[f"{name}{part}.bias"] for part in parts]),
        "out_proj.weight": p[f"{name}output.weight"].mT,
        "out_proj.bias": p[f"{name}output.bias"],
    }


def attention():
    import torch

    layer = torch.nn.MultiheadAttention(4, 2, batch_first=True).double()

    def function(p, x, mask):
        options = {"key_padding_mask": ~mask, "need_weights": False}
        return torch.func.functional_call(layer, attention_of_torch(p), (x, x, x), options)[0]

    return function


def encoder_layer():
    import torch

    layer = torch.nn.TransformerEncoderLayer(
        4, 2, 5, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    names = {"linear1": "expand", "linear2": "contract", "norm1": "attention_norm", "norm2": "dense_norm"}

    def function(p, x, mask):
        named = {f"self_attn.{name}": w for name, w in attention_of_torch(p, "attention.").items()}
        for there, here in names.items():
            weight = p[f"{here}.weight"]
            named[f"{there}.weight"] = weight.mT if weight.ndim == 2 else weight
            named[f"{there}.bias"] = p[f"{here}.bias"]
        return torch.func.functional_call(layer, named, (x,), {"src_key_padding_mask": ~mask})

    return function


PEERS = {
    "LSTM": (LAYERS["bidirectional LSTM"], lambda: packed("LSTM")),
    "GRU": (LAYERS["bidirectional GRU"], lambda: packed("GRU")),
    "attention": (LAYERS["MultiHeadAttention"], attention),
    "block": (
        lambda: nn.TransformerBlock(4, 2, hidden=5, activation=nn.GELU(approximate=False), **OPTIONS),
        encoder_layer,
    ),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
def test_trainings_beside_torch(name):
    torch = pytest.importorskip("torch")
    make, peer = PEERS[name]
    function, layer = peer(), make()
    x, mask, _ = padded(6, 0.0)
    y = draw(4, 5, layer(x).shape[-1], seed=7)
    p = {
        path: torch.tensor(w, requires_grad=True)
        for path, w in zip(tree.paths(layer), tree.leaves(layer), strict=True)
    }
    descent = torch.optim.SGD(p.values(), lr=0.05)
    there = [torch.tensor(each) for each in (x, mask, y)]

    def loss(layer, x, mask, y):
        xp = xpnet.array_namespace(x, *tree.leaves(layer))
        return xp.sum(xp.where(xp.expand_dims(mask, axis=-1), layer(x, mask=mask) - y, 0.0) ** 2)

    step = xpnet.jit(xpnet.value_and_grad(loss))
    for number in range(100):
        value, gradients = step(layer, x, mask, y)
        error = torch.where(there[1][..., None], function(p, *there[:2]) - there[2], 0.0)
        descent.zero_grad()
        expected = (error**2).sum()
        expected.backward()
        if number in (0, 99):
            tolerance = half_of_the_digits("float64")
            assert_same(value, expected.numpy(force=True), tolerance=tolerance)
            for path, gradient in zip(p, tree.leaves(gradients), strict=True):
                assert_same(gradient, p[path].grad.numpy(), tolerance=tolerance)
        descent.step()
        layer = tree.map(lambda w, g: w - 0.05 * g, layer, gradients)
