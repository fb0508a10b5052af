"""Parameters of PyTorch networks, in networks of xpnet: the predictions agree."""

import numpy
import pytest
import safetensors.numpy
from helpers import assert_on

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
    numpy.testing.assert_allclose(xpnet.to_numpy(xpnet.predict(net, x)), expected, rtol=1e-5, atol=1e-6)


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
