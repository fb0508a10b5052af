"""Files with other layers than the network: the error says what is missing and too much, and what to do."""

import io

import numpy
import pytest
from torch_files import saved

import xpnet
from xpnet import nn


def dense(name, inputs, outputs):
    shapes = {"weight": (outputs, inputs), "bias": (outputs,)}
    return {f"{name}.{attribute}": numpy.ones(shape, "float32") for attribute, shape in shapes.items()}


def message(tmp_path, net, arrays, **options):
    """Return the error of a file that does not fit, which changes nothing."""
    path = tmp_path / "net.pt"
    path.write_bytes(saved(arrays))
    before = [x.tolist() for x in xpnet.tree.leaves(net, state=True)]
    with pytest.raises(ValueError, match="the network must fit the file") as caught:
        xpnet.load_torch(path, into=net, **options)
    assert [x.tolist() for x in xpnet.tree.leaves(net, state=True)] == before
    return str(caught.value).partition("net.pt. ")[2]


def network():
    return nn.Sequential(nn.Dense(2, 3), nn.ReLU(), nn.Dense(3, 4))


def test_other_names(tmp_path):
    arrays = dense("fc1", 2, 3) | dense("fc2", 3, 4)
    assert message(tmp_path, network(), arrays) == (
        "It has no 0.weight, 0.bias, 2.weight, 2.bias, for layers.0.weight, layers.0.bias, layers.2.weight, "
        "layers.2.bias. It has fc1.weight, fc1.bias, fc2.weight, fc2.bias, for which the network has nothing."
        ' Is names={"layers.0": "fc1", "layers.2": "fc2"} meant?'
    )
    (tmp_path / "net.pt").write_bytes(saved(arrays))
    xpnet.load_torch(tmp_path / "net.pt", into=network(), names={"layers.0": "fc1", "layers.2": "fc2"})


@pytest.mark.parametrize("prefix", ["module", "_orig_mod", "a.b"])
def test_a_part_of_another_network(tmp_path, prefix):
    arrays = dense(f"{prefix}.0", 2, 3) | dense(f"{prefix}.2", 3, 4)
    assert message(tmp_path, network(), arrays).endswith(f'Is names={{"": "{prefix}"}} meant?')
    xpnet.load_torch(tmp_path / "net.pt", into=network(), names={"": prefix})


def test_of_another_network_a_part(tmp_path):
    class Whole(nn.Module):
        def __init__(self):
            self.body = network()

    arrays = dense("0", 2, 3) | dense("2", 3, 4)
    found = message(tmp_path, Whole(), arrays)
    assert found.endswith('Is names={"body.layers.0": "0", "body.layers.2": "2"} meant?')
    xpnet.load_torch(tmp_path / "net.pt", into=Whole(), names={"body": ""})


def test_only_what_is_certain_is_suggested(tmp_path):
    net = nn.Sequential(nn.Dense(3, 3), nn.Dense(3, 3), nn.Dense(3, 4))
    arrays = dense("a", 3, 3) | dense("b", 3, 3) | dense("c", 3, 4)
    assert message(tmp_path, net, arrays).endswith('Is names={"layers.2": "c"} meant?')
    del arrays["c.weight"], arrays["c.bias"]
    assert message(tmp_path, net, arrays).endswith('names of layers there with names={"layers.0": "fc1"}.')


def test_layers_with_more_arrays_are_not_suggested(tmp_path):
    found = message(tmp_path, nn.Sequential(nn.Dense(2, 3, bias=False)), dense("fc1", 2, 3))
    assert found.endswith('Say the names of layers there with names={"layers.0": "fc1"}.')


def test_names_of_attention(tmp_path):
    arrays = {"attn.in_proj_weight": (12, 4), "attn.in_proj_bias": (12,)}
    arrays |= {"attn.out_proj.weight": (4, 4), "attn.out_proj.bias": (4,)}
    net = nn.Sequential(nn.MultiHeadAttention(4, 2))
    found = message(tmp_path, net, {name: numpy.ones(shape, "float32") for name, shape in arrays.items()})
    assert "It has no 0.in_proj_weight, 0.in_proj_bias, 0.out_proj.weight, 0.out_proj.bias, for " in found
    assert "layers.0.query.weight, layers.0.key.weight, layers.0.value.weight, layers.0.query.bias, " in found
    assert found.endswith('Is names={"layers.0": "attn"} meant?')


def test_many_are_counted(tmp_path):
    net = nn.Sequential(*(nn.Dense(2, 2) for _ in range(10)))
    found = message(tmp_path, net, dense("fc", 2, 2))
    assert "It has no 0.weight, 0.bias, 1.weight, 1.bias, 2.weight, 2.bias, and 14 more, for" in found
    assert "It has fc.weight, fc.bias, for which" in found


def test_one_sided(tmp_path):
    arrays = dense("0", 2, 3) | dense("2", 3, 4)
    found = message(tmp_path, network(), arrays | dense("4", 4, 4))
    assert found == (
        "It has 4.weight, 4.bias, for which the network has nothing. "
        "Give the network the layers that use them, and take a part of it then, such as net[:-1]."
    )
    found = message(tmp_path, network(), dense("0", 2, 3))
    assert found == (
        "It has no 2.weight, 2.bias, for layers.2.weight, layers.2.bias. "
        "Give the network only layers that the file has."
    )


def test_what_is_too_much_comes_before_channels(tmp_path):
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    arrays = {"0.weight": numpy.ones((2, 1, 3, 3), "float32"), "0.bias": numpy.ones(2, "float32")}
    assert message(tmp_path, backbone, arrays | dense("2", 8, 3)).startswith("It has 2.weight, 2.bias, for")


def test_another_head(tmp_path):
    net, head = network(), nn.Dense(3, 7)
    (tmp_path / "net.pt").write_bytes(saved(dense("0", 2, 3) | dense("2", 3, 4)))
    xpnet.load_torch(tmp_path / "net.pt", into=net)
    other = nn.Sequential(*net[:-1], head)
    assert other(numpy.ones((1, 2), "float32")).shape == (1, 7)
    assert other[0].weight.tolist() == numpy.ones((2, 3)).tolist()


@pytest.mark.parametrize("given", [dense("0", 2, 3), io.BytesIO()], ids=["dict", "BytesIO"])
def test_no_path(given):
    expected = rf"path must be that of a file, received {type(given).__name__}\. .* torch\.save\(torch_net"
    with pytest.raises(TypeError, match=expected):
        xpnet.load_torch(given, into=network())


def test_all_other_sizes_and_dtypes_are_named(tmp_path):
    arrays = dense("0", 3, 3) | dense("2", 3, 4)
    arrays["2.bias"] = arrays["2.bias"].astype("float64")
    assert message(tmp_path, network(), arrays) == (
        "0.weight must be of shape (3, 2), for layers.0.weight, received float32 (3, 3). "
        "2.bias must be float32, for layers.2.bias, received float64 (4,). "
        "Give the layers the sizes of the file, or load the whole network, then put another head on: "
        "Sequential(*net[:-1], head). "
        'Numbers are not rounded on the way: make the layers with dtype="float64", or write '
        "torch_net.to(torch.float32).state_dict() in PyTorch."
    )


@pytest.mark.parametrize(
    ("names", "error", "expected"),
    [
        ({"layer.0": "fc1"}, ValueError, "received 'layer.0'. Is layers.0 or layers.2 or layers.1 meant"),
        ({"head": "fc1"}, ValueError, "received 'head'. There are layers.0, layers.1, layers.2"),
        ({"layers.0": 1}, TypeError, "names must be a mapping"),
        (["fc1"], TypeError, "names must be a mapping"),
    ],
)
def test_names_that_name_nothing(tmp_path, names, error, expected):
    path = tmp_path / "net.pt"
    path.write_bytes(saved(dense("0", 2, 3) | dense("2", 3, 4)))
    with pytest.raises(error) as caught:
        xpnet.load_torch(path, into=network(), names=names)
    assert expected in str(caught.value)
