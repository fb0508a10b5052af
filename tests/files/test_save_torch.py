"""Networks of xpnet, in networks of PyTorch and back: no number changes on the way."""

import io
import re

import numpy
import pytest
from helpers import rounding
from safetensors.numpy import load_file

import xpnet
from files.networks import (
    Convolutional,
    OfOnesOwn,
    added_and_joined,
    lenet,
    nested,
    normalized,
    their_convolutional,
)
from xpnet import nn, tree


@pytest.fixture
def path(tmp_path):
    return tmp_path / "torch.safetensors"


def drawn(net, seed=0):
    """Give a network other numbers than those of the beginning, some of them -0."""
    random = numpy.random.default_rng(seed)
    leaves, structure = tree.flatten(net, state=True)
    names = tree.paths(net, state=True)
    new = []
    for name, x in zip(names, leaves, strict=True):
        values = random.uniform(0.5, 2, x.shape)
        if "variance" not in name:
            values = -values * random.choice([-1, 0, 1], x.shape)
        target, dtype = xpnet.backends.device_of(x), str(x.dtype).rpartition(".")[2]
        new.append(x if "random_state" in name else xpnet.asarray(values, device=target, dtype=dtype))
    tree.assign(tree.unflatten(structure, new), net)
    return net


def bits(net):
    """Return all numbers of a network but random states, by name, with the signs of zeros."""
    arrays = dict(zip(tree.paths(net, state=True), tree.leaves(net, state=True), strict=True))
    return {
        name: (str(x.dtype), x.shape, xpnet.to_numpy(x).tobytes())
        for name, x in arrays.items()
        if "random_state" not in name
    }


def compare(net, theirs, x, path, *, images=None, **options):
    """Load what is saved into a network of PyTorch, strictly, and compare the predictions."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    before = bits(net)
    xpnet.save_torch(net, path, **options)
    assert bits(net) == before
    theirs.load_state_dict(load_file(path), strict=True)
    given = x.movedim(-1, 1) if (x.ndim == 4 if images is None else images) else x
    with torch.no_grad():
        expected = theirs.eval()(given)
    expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()
    found = xpnet.to_numpy(xpnet.predict(net, xpnet.asarray(x.numpy(), device=xpnet.device())))
    # Sums over windows, heads or steps of numbers up to 2.
    scale = 2 * max(1.0, abs(expected).max())
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=rounding(1000, "float32", scale))


def other(net):
    """Return a network of the same structure with other numbers."""
    leaves, structure = tree.flatten(net, state=True)
    return tree.unflatten(structure, [x + 1 for x in leaves])


class Mixed(nn.Module):
    """Arrays of one's own, trained and not, beside layers."""

    state = ("count",)

    def __init__(self):
        self.layer = nn.Dense(2, 3, seed=0)
        self.parts = [nn.Dropout(seed=0), {"inner": nn.Embedding(4, 2, seed=0)}]
        self.scale = xpnet.asarray([[1.0, 2.0]], dtype="float32")
        self.count = xpnet.asarray([3, 4])


NETWORKS = {
    "dense": lambda: nn.Sequential(nn.Dense(3, 4), nn.ReLU(), nn.Dropout(), nn.Dense(4, 4, bias=False)),
    "convolutions": lambda: nn.Sequential(
        nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm(6), nn.Conv2d(6, 4, (3, 2)), nn.GroupNorm(2, 4)
    ),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(6, 8, (2, 3), groups=2), nn.GlobalAvgPool()),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.Flatten(), nn.BatchNorm(12), nn.LayerNorm(12), nn.Dense(12, 5)
    ),
    "lstm": lambda: nn.LSTM(3, 4, layers=3, bidirectional=True),
    "gru": lambda: nn.GRU(3, 4, layers=2),
    "attention": lambda: nn.MultiHeadAttention(4, 2),
    "attention without bias": lambda: nn.MultiHeadAttention(4, 2, bias=False),
    "transformer": lambda: nn.Sequential(nn.Embedding(9, 4), nn.TransformerBlock(4, 2, dropout=0.1)),
    "own": lambda: Mixed(),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=list(NETWORKS))
def test_round_trip(device, path, make):
    net = drawn(make())
    xpnet.save_torch(net, path)
    again = xpnet.load_torch(path, into=other(net))
    assert bits(again) == bits(net)
    assert all(xpnet.backends.device_of(x) == device for x in tree.leaves(again, state=True))


def test_names_in_the_file(path):
    net = nn.Sequential(nn.Dense(2, 3), nn.BatchNorm(3), nn.Dropout(), nn.LSTM(3, 2, bidirectional=True))
    xpnet.save_torch(net, path, names={"": "net", "layers.0": "fc1"})
    arrays = load_file(path)
    lstm = {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2), "bias_ih_l0": (8,), "bias_hh_l0": (8,)}
    expected = {"fc1.weight": (3, 2), "fc1.bias": (3,)}
    expected |= {f"net.1.{name}": (3,) for name in ("weight", "bias", "running_mean", "running_var")}
    expected |= {"net.1.num_batches_tracked": ()}
    expected |= {f"net.3.{name}{end}": x for name, x in lstm.items() for end in ("", "_reverse")}
    assert {name: x.shape for name, x in arrays.items()} == expected
    assert arrays["fc1.weight"].tolist() == net[0].weight.T.tolist()
    assert arrays["net.1.num_batches_tracked"].dtype == "int64"


def test_parts_of_attention_with_names_of_their_own(path):
    net = drawn(OfOnesOwn(attention=nn.MultiHeadAttention(4, 2)))
    names = {f"attention.{layer}": f"{layer[0]}_proj" for layer in ("query", "key", "value", "output")}
    xpnet.save_torch(net, path, names=names)
    arrays = load_file(path)
    assert arrays.keys() == {f"{x}_proj.{array}" for x in "qkvo" for array in ("weight", "bias")}
    assert arrays["k_proj.weight"].tolist() == net.attention.key.weight.T.tolist()
    assert bits(xpnet.load_torch(path, into=other(net), names=names)) == bits(net)


def test_frozen_networks_are_saved_and_loaded_whole(path):
    net = drawn(nn.Sequential(nn.Dense(2, 3), nn.BatchNorm(3), nn.Dense(3, 1)))
    before = bits(net)
    net.freeze()
    net.layers[-1].unfreeze()
    xpnet.save_torch(net, path)
    assert len(load_file(path)) == 9
    again = other(net)
    assert bits(xpnet.load_torch(path, into=again)) == before
    assert [x.frozen for x in again] == [x.frozen for x in net]
    arrays = load_file(path)
    for name in ("0.weight", "1.weight"):
        xpnet.save({key: x for key, x in arrays.items() if key != name}, path)
        with pytest.raises(ValueError, match=rf"It has no {name}"):
            xpnet.load_torch(path, into=again)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_are_kept(device, xp, path, dtype):
    if not hasattr(xp, dtype):
        pytest.skip(f"the library has no {dtype}")
    net = nn.Sequential(
        nn.Dense(2, 3), nn.LSTM(3, 2), nn.MultiHeadAttention(2, 1), nn.ConvTranspose2d(2, 2, 3)
    )
    net = drawn(tree.map(lambda x: xp.astype(x, getattr(xp, dtype)), net))
    xpnet.save_torch(net, path)
    assert bits(xpnet.load_torch(path, into=other(net))) == bits(net)


@pytest.mark.parametrize(
    ("net", "options", "error", "message"),
    [
        (
            nn.Dense(2, 2),
            {"names": {"layers.0": "fc"}},
            ValueError,
            r"received 'layers\.0'",
        ),
        (nn.Dense(2, 2), {"names": [("", "fc")]}, TypeError, "names must be a mapping"),
        (nn.Dense(2, 2), {"names": {"": 3}}, TypeError, "names must be a mapping"),
        (nn.Dense(2, 2), {"channels": 3}, TypeError, "channels must be a mapping"),
        (Convolutional(), {}, ValueError, "whether fc1 reads a flattened image"),
        (
            nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2)),
            {"names": {"layers.0": "fc", "layers.1": "fc"}},
            ValueError,
            r"received fc\.weight for two, one of them in layers\.1",
        ),
    ],
)
def test_what_cannot_be_saved_is_not_written(path, net, options, error, message):
    with pytest.raises(error, match=message):
        xpnet.save_torch(net, path, **options)
    assert not path.exists()


@pytest.mark.parametrize("name", ["out.pt", "out.PTH", "pytorch_model.bin"])
def test_names_of_files_of_torch_save_are_refused(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ValueError, match=re.escape(f"received {path}. ")) as caught:
        xpnet.save_torch(nn.Dense(2, 2), path)
    other = path.with_suffix(".safetensors")
    line = f'torch_net.load_state_dict(safetensors.torch.load_file("{other}")).'
    assert str(caught.value).endswith(line)
    assert not path.exists()


# -- networks of PyTorch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [lenet, normalized, nested, added_and_joined])
def test_images(device, path, networks):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs, net = networks(torch.nn)
    compare(drawn(net).eval(), theirs, torch.randn(5, 12, 9, 2), path)


def test_number_of_channels_is_said(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = drawn(Convolutional()).eval()
    compare(net, their_convolutional(torch), torch.randn(5, 9, 8, 2), path, channels={"fc1": 4})
    assert bits(xpnet.load_torch(path, into=other(net), channels={"fc1": 4})) == bits(net)


def test_transposed_convolution(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.ConvTranspose2d(6, 8, (2, 3), groups=2), torch.nn.Flatten(2))
    net = drawn(nn.Sequential(nn.ConvTranspose2d(6, 8, (2, 3), groups=2), lambda x: x))
    theirs = torch.nn.Sequential(theirs[0], torch.nn.Identity())

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = theirs

        def forward(self, x):
            return self.layers(x).movedim(1, -1)

    xpnet.save_torch(net, path, names={"": "layers"})
    compare(net, Last(), torch.randn(3, 5, 4, 6), path, names={"": "layers"})


@pytest.mark.parametrize(
    "options", [{}, {"layers": 2}, {"bidirectional": True}, {"layers": 3, "bidirectional": True}]
)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers(device, path, kind, options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = options.get("layers", 1)
    theirs = getattr(torch.nn, kind)(3, 4, layers, bidirectional="bidirectional" in options, batch_first=True)
    compare(drawn(getattr(nn, kind)(3, 4, **options)), theirs, torch.randn(2, 6, 3), path)


def test_attention(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)

    net = drawn(nn.MultiHeadAttention(8, 2))
    compare(net, Theirs(), torch.randn(3, 5, 8), path, names={"": "attention"})


@pytest.mark.peers
def test_what_torch_saves_again_is_the_same(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    net = drawn(nn.Sequential(nn.LSTM(3, 4, layers=2, bidirectional=True), nn.BatchNorm(8), nn.Dense(8, 2)))
    xpnet.save_torch(net, path)
    file = io.BytesIO()
    torch.save(load_file(path), file)
    path.write_bytes(file.getvalue())
    assert bits(xpnet.load_torch(path, into=other(net))) == bits(net)
