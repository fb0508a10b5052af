"""Parameters of PyTorch networks, in networks of xpnet: the predictions agree."""

import numpy
import pytest
import safetensors.numpy
from helpers import assert_on, rounding

import xpnet
from xpnet import nn


@pytest.fixture
def path(tmp_path):
    return tmp_path / "torch.safetensors"


def network(seed=0):
    return nn.Sequential(
        nn.Dense(4, 4, seed=seed),  # square, so that only the values show whether it was transposed
        nn.Tanh(),
        nn.Sequential(nn.Dense(4, 6, seed=seed), nn.ReLU(), nn.Dropout(seed=seed)),
        nn.Dense(6, 3, bias=False, seed=seed),
    )


class Named(nn.Module):
    def __init__(self):
        self.first, self.body = nn.Dense(4, 5), network()

    def __call__(self, x):
        return self.body(x) + self.first(x)[..., :3]


def test_predictions_agree(device, path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 4),
        torch.nn.Tanh(),
        torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Dropout()),
        torch.nn.Linear(6, 3, bias=False),
    ).eval()
    save_file(theirs.state_dict(), path)
    net = network().eval()
    assert xpnet.load_torch(path, into=net) is net
    assert_on(net[0].weight, device, "float32", (4, 4))
    x = numpy.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.asarray(x)).numpy()
    found = xpnet.to_numpy(xpnet.predict(net, x))
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=rounding(100, "float32", abs(expected).max()))


def compare(theirs, net, x, path, **options):
    """Load the parameters of a network of PyTorch, and compare the predictions."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, path)
    xpnet.load_torch(path, into=net, **options)
    given = x.movedim(-1, 1) if x.ndim == 4 else x
    with torch.no_grad():
        expected = theirs.eval()(given).numpy()
    found = xpnet.to_numpy(xpnet.predict(net, xpnet.asarray(x.numpy(), device=xpnet.device())))
    # Sums over 3 x 3 windows of some channels, over heads, or over steps of a recurrent layer.
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=rounding(300, "float32", abs(expected).max()))


def test_images(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(4, 4, (3, 2), stride=2, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, 3, groups=2, bias=False),
        torch.nn.GroupNorm(3, 6),
        torch.nn.ConvTranspose2d(6, 8, (2, 3), stride=2, groups=2),
        torch.nn.MaxPool2d(2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    x = torch.randn(5, 12, 11, 4)
    for _ in range(3):  # so that the running statistics are no longer those of the beginning
        theirs(2 * x.movedim(-1, 1) + 1)
    with torch.no_grad():
        for parameter in theirs.parameters():  # nor the weights of normalizations ones
            parameter += 0.1 * torch.randn_like(parameter)
    net = nn.Sequential(
        nn.Conv2d(4, 4, (3, 2), stride=2, padding=1),
        nn.BatchNorm(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.GroupNorm(3, 6),
        nn.ConvTranspose2d(6, 8, (2, 3), stride=2, groups=2),
        nn.MaxPool(2),
        nn.GlobalAvgPool(),
        nn.Flatten(),
        nn.Dense(8, 3),
    )
    compare(theirs, net, x, path)
    assert_on(net[1].running_variance, device, "float32", (4,))


def test_sequences(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(9, 4)
            self.conv = torch.nn.Conv1d(4, 6, 3, dilation=2)
            self.lstm = torch.nn.LSTM(6, 5, batch_first=True)
            self.gru = torch.nn.GRU(5, 5, batch_first=True)
            self.norm = torch.nn.LayerNorm(5)
            self.head = torch.nn.Linear(5, 3)

        def forward(self, x):
            x = self.conv(self.words(x).movedim(-1, 1)).movedim(1, -1)
            return self.head(self.norm(self.gru(self.lstm(x)[0])[0]))

    net = nn.Sequential(
        nn.Embedding(9, 4),
        nn.Conv1d(4, 6, 3, dilation=2),
        nn.LSTM(6, 5),
        nn.GRU(5, 5),
        nn.LayerNorm(5),
        nn.Dense(5, 3),
    )
    there = ("words", "conv", "lstm", "gru", "norm", "head")
    names = {f"layers.{index}": name for index, name in enumerate(there)}
    compare(Theirs(), net, torch.randint(9, (4, 10)), path, names=names)


def test_transformer(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(
        8,
        2,
        dim_feedforward=12,
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    )
    torch.nn.init.normal_(theirs.self_attn.in_proj_bias)
    names = {
        "attention_norm": "norm1",
        "attention": "self_attn",
        "dense_norm": "norm2",
        "expand": "linear1",
        "contract": "linear2",
    }
    net = nn.TransformerBlock(8, 2, hidden=12)
    compare(theirs, net, torch.randn(3, 5, 8), path, names=names)


def test_attention_of_separate_layers(path):
    random = numpy.random.default_rng(0)
    arrays = {f"{name}_proj.weight": random.normal(size=(4, 4)).astype("float32") for name in "qkvo"}
    safetensors.numpy.save_file(arrays, path)
    net = nn.MultiHeadAttention(4, 2, bias=False)
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    xpnet.load_torch(path, into=net, names=names)
    assert net.value.weight.tolist() == arrays["v_proj.weight"].T.tolist()
    assert net.output.weight.tolist() == arrays["o_proj.weight"].T.tolist()


@pytest.mark.parametrize(
    ("net", "arrays", "message"),
    [
        (
            nn.LSTM(2, 3),
            {"weight_ih_l0": (12, 2), "bias_ih_l0": (12,), "bias_hh_l0": (1,)},
            r"bias_ih_l0, bias_hh_l0 in the file is float32 \(12,\), float32 \(1,\)",
        ),
        (
            nn.LSTM(2, 3),
            {"weight_hh_l0": (12, 3)},
            r"has no array weight_ih_l0 for input\.weight, but weight_hh_l0",
        ),
        (nn.BatchNorm(2), {"weight": (2,), "bias": (2,)}, "has no array running_mean for running_mean"),
        (
            nn.MultiHeadAttention(2, 1),
            {"in_proj_weight": (), "in_proj_bias": (6,)},
            r"query\.weight is float32 \(2, 2\)",
        ),
        (
            nn.ConvTranspose2d(4, 4, 3, groups=2),
            {"weight": (3, 2, 3, 3)},
            r"in the file is float32 \(3, 2, 3, 3\)",
        ),
    ],
)
def test_layer_that_does_not_fit_changes_nothing(path, net, arrays, message):
    safetensors.numpy.save_file({name: numpy.ones(shape, "float32") for name, shape in arrays.items()}, path)
    before = [x.tolist() for x in xpnet.tree.leaves(net, state=True)]
    with pytest.raises(ValueError, match=message):
        xpnet.load_torch(path, into=net)
    assert [x.tolist() for x in xpnet.tree.leaves(net, state=True)] == before


def arrays_of(names):
    random = numpy.random.default_rng(0)
    shapes = {"weight": (4, 4), "bias": (4,), "2.0.weight": (6, 4), "2.0.bias": (6,), "3.weight": (3, 6)}
    shapes = {f"0.{name}" if "." not in name else name: shape for name, shape in shapes.items()}
    return {names(key): random.normal(size=shape).astype("float32") for key, shape in shapes.items()}


def test_other_names(path):
    net = Named()
    first = {"fc1.weight": numpy.ones((5, 4), "float32"), "fc1.bias": numpy.ones(5, "float32")}
    there = {"0": "inner.input", "2.0": "inner.2.0", "3": "head"}

    def rename(key):
        module, _, attribute = key.rpartition(".")
        return f"{there[module]}.{attribute}"

    arrays = arrays_of(rename)
    safetensors.numpy.save_file(first | arrays, path)
    names = {"first": "fc1", "body": "inner", "body.layers.0": "inner.input", "body.layers.3": "head"}
    xpnet.load_torch(path, into=net, names=names)
    assert net.first.weight.tolist() == numpy.ones((4, 5)).tolist()
    assert net.body[0].weight.tolist() == arrays["inner.input.weight"].T.tolist()
    assert net.body[2][0].bias.tolist() == arrays["inner.2.0.bias"].tolist()
    assert net.body[3].weight.tolist() == arrays["head.weight"].T.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("3.weight"), r"has no array 3\.weight for layers\.3\.weight, but .*2\.0\.bias"),
        (lambda a: a.update({"4.weight": a["0.bias"]}), r"which has 4\.weight besides"),
        (
            lambda a: a.update({"3.weight": a["3.weight"].T.copy()}),
            r"layers\.3\.weight is float32 \(6, 3\), 3\.weight in the file is float32 \(6, 3\)",
        ),
        (
            lambda a: a.update({"0.bias": a["0.bias"].astype("float64")}),
            r"layers\.0\.bias is float32 \(4,\), 0\.bias in the file is float64 \(4,\)",
        ),
    ],
)
def test_file_that_does_not_fit_changes_nothing(path, change, message):
    arrays = arrays_of(lambda key: key)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)
    net = network(seed=3)
    before = [x.tolist() for x in xpnet.tree.leaves(net)]
    with pytest.raises(ValueError, match=message):
        xpnet.load_torch(path, into=net)
    assert [x.tolist() for x in xpnet.tree.leaves(net)] == before


def test_damaged_file(path):
    path.write_bytes(b"\x80\x02}q\x00.")  # a pickle
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        xpnet.load_torch(path, into=network())
