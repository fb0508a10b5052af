"""Parameters of PyTorch networks, in networks of xpnet: the predictions agree."""

import numpy
import pytest
import safetensors.numpy
from helpers import assert_on, needs_float16, rounding
from torch_files import records, storage, tensor, zipped
from torch_files import saved as saved_by_hand

import xpnet
from files.networks import (
    Convolutional,
    OfOnesOwn,
    SubclassOfDense,
    added_and_joined,
    lenet,
    nested,
    normalized,
    shuffled,
    their_convolutional,
)
from xpnet import nn


@pytest.fixture
def path(tmp_path):
    return tmp_path / "torch.safetensors"


def nested_network(seed=0):
    return nn.Sequential(
        nn.Dense(4, 4, seed=seed),  # square, so that only the values show whether it was transposed
        nn.Tanh(),
        nn.Sequential(nn.Dense(4, 6, seed=seed), nn.ReLU(), nn.Dropout(seed=seed)),
        nn.Dense(6, 3, bias=False, seed=seed),
    )


class Named(nn.Module):
    def __init__(self):
        self.first, self.body = nn.Dense(4, 5), nested_network()

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
    net = nested_network().eval()
    assert xpnet.load_torch(path, into=net) is net
    assert_on(net[0].weight, device, "float32", (4, 4))
    x = numpy.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.asarray(x)).numpy()
    found = xpnet.to_numpy(xpnet.predict(net, x))
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=rounding(100, "float32", abs(expected).max()))


def compare(theirs, net, x, path, *, images=None, **options):
    """Load the parameters of a network of PyTorch, and compare the predictions.

    ``images`` says whether the last axis of x stands behind the batch in PyTorch.
    """
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, path)
    xpnet.load_torch(path, into=net, **options)
    given = x.movedim(-1, 1) if (x.ndim == 4 if images is None else images) else x
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


def outputs_of(torch, layer):
    """Return a network of PyTorch's that returns the outputs of a recurrent layer alone."""

    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x)[0]

    return Outputs()


BOTH = {"layers": 3, "bidirectional": True}


@pytest.mark.parametrize("options", [{}, {"layers": 2}, {"bidirectional": True}, BOTH])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers(device, path, kind, bias, options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    there = {"num_layers" if name == "layers" else name: value for name, value in options.items()}
    theirs = getattr(torch.nn, kind)(3, 4, bias=bias, batch_first=True, **there)
    net = getattr(nn, kind)(3, 4, **options)
    for x in xpnet.tree.branches(net):
        if isinstance(x, nn.Dense) and x.bias is not None:
            x.bias = x.bias + 1  # which is to be replaced, also by zeros
    compare(outputs_of(torch, theirs), net, torch.randn(2, 6, 3), path, names={"": "layer"})


def test_half_of_the_biases_is_refused(path):
    arrays = {"weight_ih_l0": (9, 2), "weight_hh_l0": (9, 3), "bias_ih_l0": (9,)}
    safetensors.numpy.save_file({name: numpy.ones(shape, "float32") for name, shape in arrays.items()}, path)
    with pytest.raises(ValueError, match="It has bias_ih_l0, for which the network has nothing"):
        xpnet.load_torch(path, into=nn.GRU(2, 3))


def test_recurrent_layer_of_both_directions_behind_a_flattened_image(path):
    net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.LSTM(6, 2, bidirectional=True))
    xpnet.save_torch(net, path, channels={"layers.1": 2})
    arrays = safetensors.numpy.load_file(path)
    for layer, end in ((net[1], ""), (net[1].backward, "_reverse")):
        weight = arrays[f"1.weight_ih_l0{end}"]
        assert layer.input.weight.T[:, [0, 2, 4, 1, 3, 5]].tolist() == weight.tolist()


@pytest.mark.parametrize("there", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("here", ["float32", "float64"])
def test_dtypes_that_lose_nothing(device, xp, path, there, here):
    torch = pytest.importorskip("torch")
    if here == "float64" and not hasattr(xp, "float64"):
        pytest.skip("the library has no float64")
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, 4).to(getattr(torch, there))
    torch.save(theirs.state_dict(), path)
    net = xpnet.load_torch(path, into=nn.LSTM(3, 4, dtype=here))
    assert_on(net.input.weight, device, here, (3, 16))
    assert xpnet.to_numpy(net.input.weight).tolist() == theirs.weight_ih_l0.T.tolist()
    biases = (
        theirs.bias_ih_l0.to(getattr(torch, here)) + theirs.bias_hh_l0.to(getattr(torch, here))
    ).tolist()
    assert xpnet.to_numpy(net.input.bias).tolist() == biases  # added up in the wide dtype


@pytest.mark.parametrize(
    ("there", "here"),
    [("float64", "float32"), ("float32", "float16"), ("bfloat16", "float16"), ("int64", "float32")],
)
def test_dtypes_that_lose_something_are_refused(path, there, here):
    value = {"weight": tensor(storage("0", there, 6), 0, (3, 2), (2, 1))}
    size = {"float64": 8, "float32": 4, "bfloat16": 2, "int64": 8}[there]
    path.write_bytes(zipped(records(value, {"0": bytes(6 * size)})))
    net = nn.Dense(2, 3, bias=False, dtype=here)
    with pytest.raises(ValueError, match=rf"weight must be {here}, for weight, received {there} \(3, 2\)"):
        xpnet.load_torch(path, into=net)


def test_float16(device, xp, path):
    needs_float16(xp)
    x = numpy.asarray([[1.0, 2.0**-14, -3.0]], dtype="float16")
    path.write_bytes(saved_by_hand({"weight": x}))
    net = xpnet.load_torch(path, into=nn.Dense(3, 1, bias=False, dtype="float16"))
    assert_on(net.weight, device, "float16", (3, 1))
    assert xpnet.to_numpy(net.weight).tolist() == x.T.tolist()


@pytest.mark.parametrize("approximate", [True, False])
def test_transformer(device, path, approximate):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(
        8,
        2,
        dim_feedforward=12,
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh" if approximate else "none"),
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
    net.activation = nn.GELU(approximate)
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
            r"no weight_hh_l0, for .* bias_hh_l0 must be of shape \(12,\), for input\.bias, received",
        ),
        (
            nn.LSTM(2, 3),
            {"weight_hh_l0": (12, 3)},
            r"It has no weight_ih_l0, for input\.weight",
        ),
        (
            nn.BatchNorm(2),
            {"weight": (2,), "bias": (2,)},
            "It has no running_mean, running_var, for running_mean, running_variance",
        ),
        (
            nn.MultiHeadAttention(2, 1),
            {"in_proj_weight": (), "in_proj_bias": (6,)},
            r"in_proj_weight must be of shape \(6, 2\), for query\.weight, key\.weight, value\.weight",
        ),
        (
            nn.ConvTranspose2d(4, 4, 3, groups=2),
            {"weight": (3, 2, 3, 3)},
            r"weight must be of shape \(4, 2, 3, 3\), for weight, received float32 \(3, 2, 3, 3\)",
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
        (
            lambda a: a.pop("3.weight"),
            r"It has no 3\.weight, for layers\.3\.weight\. Give the network only layers that the file has",
        ),
        (
            lambda a: a.update({"4.weight": a["0.bias"]}),
            r"It has 4\.weight, for which the network has nothing\. Give the network the layers",
        ),
        (
            lambda a: a.update({"3.weight": a["3.weight"].T.copy()}),
            r"3\.weight must be of shape \(3, 6\), for layers\.3\.weight, received float32 \(6, 3\)\. Give",
        ),
        (
            lambda a: a.update({"0.bias": a["0.bias"].astype("float64")}),
            r"0\.bias must be float32, for layers\.0\.bias, received float64 .*\.to\(torch\.float32\)",
        ),
    ],
)
def test_file_that_does_not_fit_changes_nothing(path, change, message):
    arrays = arrays_of(lambda key: key)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)
    net = nested_network(seed=3)
    before = [x.tolist() for x in xpnet.tree.leaves(net)]
    with pytest.raises(ValueError, match=message):
        xpnet.load_torch(path, into=net)
    assert [x.tolist() for x in xpnet.tree.leaves(net)] == before


def test_damaged_file(path):
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00no json.")
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        xpnet.load_torch(path, into=nested_network())


# -- flattened images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [lenet, normalized, nested, added_and_joined])
def test_flattened_images(device, path, networks):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs, net = networks(torch.nn)
    compare(shuffled(theirs), net.eval(), torch.randn(5, 12, 9, 2), path)
    assert all(xpnet.backends.device_of(leaf) == device for leaf in xpnet.tree.leaves(net, state=True))


def test_flattened_sequences(device, path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    t = torch.nn
    theirs = t.Sequential(t.Conv1d(2, 4, 3), t.BatchNorm1d(4), t.MaxPool1d(2), t.Flatten(), t.Linear(20, 3))
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm(4), nn.MaxPool(2), nn.Flatten(), nn.Dense(20, 3)
    ).eval()
    compare(shuffled(theirs), net, torch.randn(5, 12, 2), path, images=True)
    # Vectors of words stand on the last axis there, too.
    theirs = t.Sequential(t.Embedding(9, 4), t.Flatten(), t.Linear(20, 3))
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Dense(20, 3))
    compare(theirs, net, torch.randint(9, (3, 5)), path)


@pytest.mark.parametrize("channels", [{"fc1": 4}, {"fc1": numpy.int64(4), "": 1}])
@pytest.mark.parametrize("dense", [nn.Dense, SubclassOfDense])
def test_number_of_channels_is_said(device, path, channels, dense):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = Convolutional(dense).eval()
    compare(their_convolutional(torch), net, torch.randn(5, 9, 8, 2), path, channels=channels)
    assert_on(net.fc1.weight, device, "float32", (80, 6))


def saved(net, path):
    """Write a file with random parameters for a network, named and laid out as in PyTorch; return them."""
    random, arrays = numpy.random.default_rng(0), {}
    for name, layer in xpnet.tree.named_branches(net):
        there = name.replace("layers.", "")
        for attribute, x in vars(layer).items():
            if xpnet.tree.is_array(x) and attribute != "random_state":
                axes = (*range(x.ndim - 1, x.ndim - 3, -1), *range(x.ndim - 2)) if x.ndim > 1 else (0,)
                if isinstance(layer, nn.Embedding):
                    axes = (0, 1)
                shape = tuple(x.shape[axis] for axis in axes)
                attribute = attribute.replace("running_variance", "running_var")
                arrays[f"{there}.{attribute}".lstrip(".")] = random.uniform(0.5, 2, shape).astype("float32")
    safetensors.numpy.save_file(arrays, path)
    return arrays


@pytest.mark.parametrize(
    ("net", "places", "names"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Dense(36, 2)), (3, 4), "02"),
        (nn.Sequential(nn.Conv1d(2, 3, 1), nn.Sequential(nn.Flatten()), nn.Dense(15, 2)), (5,), "02"),
        (nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool(1), nn.Flatten(), nn.Dense(3, 2)), (1, 1), "03"),
    ],
)
def test_flattened_images_beside_a_plain_computation(path, net, places, names):
    conv, dense = names
    arrays = saved(net, path)
    x = numpy.random.default_rng(1).normal(size=(4, 2, *places)).astype("float32")
    weight = arrays[f"{conv}.weight"].reshape(3, 2)
    y = numpy.tensordot(weight, x, (1, 1)).swapaxes(0, 1)
    y = (y + arrays[f"{conv}.bias"].reshape(3, *[1] * len(places))).reshape(4, -1)
    expected = y @ arrays[f"{dense}.weight"].T + arrays[f"{dense}.bias"]
    xpnet.load_torch(path, into=net)
    found = net(numpy.ascontiguousarray(numpy.moveaxis(x, 1, -1)))
    # Of each sum, at most 36 terms, each of a sum of two.
    scale = abs(y).max() * 2 * 36
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=rounding(40, "float32", scale))


def test_statistics_behind_a_flattened_image(path):
    net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten(), nn.BatchNorm(6), nn.Dense(6, 1))
    arrays = saved(net, path)
    xpnet.load_torch(path, into=net)
    order = [0, 3, 1, 4, 2, 5]  # both channels of the first place, then of the next
    for here, there in [("weight", "weight"), ("running_variance", "running_var")]:
        assert getattr(net[2], here).tolist() == arrays[f"2.{there}"][order].tolist()
    assert net[3].weight[:, 0].tolist() == arrays["3.weight"][0, order].tolist()


def of_two_flattened():
    return nn.Concatenate(*(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()) for _ in range(2)))


def pointwise(*layers):
    """Return a network in whose middle stand some layers: a convolution before, a flattened image behind."""
    return nn.Sequential(nn.Conv2d(1, 2, 1), *layers, nn.Flatten(), nn.Dense(8, 1))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Convolutional(), "whether fc1 reads a flattened image with its 80 inputs. "),
        (nn.Sequential(nn.MaxPool(2), nn.Flatten(), nn.LayerNorm(8), nn.Dense(8, 1)), r"layers\.2 reads"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()),
            r"what comes out, a flattened image of 2 channels, may .* channels=\{\"\": 1\}",
        ),
        (pointwise(nn.Lambda(abs)), r"layers\.3 reads"),
        (pointwise(nn.Dense(2, 2)), r"layers\.3 reads"),
        (pointwise(nn.LayerNorm(2)), r"layers\.3 reads"),
        (pointwise(nn.Concatenate(nn.Dense(2, 1), lambda x: x)), r"layers\.3 reads"),
        (pointwise(nn.Residual(lambda x: x)), r"layers\.3 reads"),
        (pointwise(nn.Concatenate(nn.MaxPool(2), nn.MaxPool(2), axis=1)), r"layers\.3 reads"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.BatchNorm(8), lambda x: x, nn.Dense(8, 1)),
            r"layers\.4 reads",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), OfOnesOwn(scale=numpy.ones(8, "float32"))),
            r"whether layers\.2 reads a flattened image with arrays of its own",
        ),
        (OfOnesOwn(conv=nn.Conv2d(1, 4, 1), point=nn.Dense(4, 1), fc=nn.Dense(4, 1)), "fc reads"),
        (
            nn.Sequential(nn.Embedding(9, 4), nn.BatchNorm(4), nn.Flatten(), nn.Dense(8, 1)),
            r"layers\.3 reads",
        ),
        (nn.Sequential(nn.Embedding(9, 4), nn.AvgPool(2), nn.Flatten(), nn.Dense(8, 1)), r"layers\.3 reads"),
        (OfOnesOwn(conv=nn.Conv2d(1, 4, 1), lstm=nn.LSTM(12, 2)), "lstm reads .* its 12 inputs"),
        (OfOnesOwn(conv=nn.Conv2d(1, 4, 1), norm=nn.BatchNorm(8)), "norm reads .* its 8 inputs"),
        (
            OfOnesOwn(conv=nn.Conv2d(1, 4, 1), mean=nn.Dense(16, 2), variance=nn.Dense(16, 2)),
            "mean reads .* and whether variance reads",
        ),
        (
            OfOnesOwn(wide=nn.Dense(2, 8), conv=nn.ConvTranspose2d(2, 1, 2)),
            "whether wide reads .* the 8 outputs of wide become an image",
        ),
        (
            nn.Sequential(nn.Dense(2, 8), nn.BatchNorm(8), lambda x: x, nn.Conv2d(2, 1, 1)),
            r"whether the 8 outputs of layers\.0 become an image",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Residual(nn.Dense(8, 8)), nn.Dense(8, 1)),
            r"layers\.2 adds a flattened image and other features",
        ),
        (nn.Sequential(of_two_flattened(), nn.Dense(8, 1)), r"layers\.0 joins a flattened image"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.GroupNorm(2, 8)),
            r"layers\.2, GroupNorm, reads a flattened image of 2 channels .* channels=\{'layers\.2': 1\}",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Dense(8, 1)),
            r"layers\.2 reads 8 features, which are no flattened image of 3 channels",
        ),
    ],
)
def test_order_that_is_not_known_is_refused(path, net, message, monkeypatch):
    with monkeypatch.context() as patch:  # a file with all arrays, in whatever order
        patch.setattr("xpnet.files.torch.flattened_channels", lambda _net, _said: {})
        xpnet.save_torch(net, path)
    before = [xpnet.to_numpy(x).tolist() for x in xpnet.tree.leaves(net, state=True)]
    with pytest.raises(ValueError, match=message):
        xpnet.load_torch(path, into=net)
    assert [xpnet.to_numpy(x).tolist() for x in xpnet.tree.leaves(net, state=True)] == before


def attention(features):
    return OfOnesOwn(qkv=nn.Dense(features, 3 * features), proj=nn.Dense(features, features))


@pytest.mark.parametrize(
    "net",
    [
        OfOnesOwn(fc1=nn.Dense(12, 8), fc2=nn.Dense(4, 2)),  # nothing in it is for images
        nn.Sequential(nn.Flatten(), nn.Dense(8, 4), nn.BatchNorm(4), nn.Dense(4, 1)),  # nor here
        nn.Sequential(nn.Conv2d(1, 4, 1), lambda x: x.mean(axis=(1, 2)), nn.Dense(4, 2)),
        nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.GroupNorm(2, 4), nn.Dense(4, 2)),  # of one place
        nn.Sequential(nn.Conv2d(1, 4, 1), nn.GlobalAvgPool(), nn.Residual(nn.Dense(4, 4)), nn.Dense(4, 2)),
        OfOnesOwn(  # a vision transformer
            patches=nn.Conv2d(3, 8, 4, stride=4),
            norm1=nn.LayerNorm(8),
            attention=attention(8),
            norm2=nn.LayerNorm(8),
            blocks=[
                OfOnesOwn(expand=nn.Dense(8, 32), contract=nn.Dense(32, 8)),
                nn.Sequential(nn.Dense(8, 32), nn.GELU(), nn.Dense(32, 8)),
            ],
            head=nn.Dense(8, 5),
        ),
        OfOnesOwn(  # a residual network
            stem=nn.Sequential(nn.Conv2d(3, 4, 7), nn.BatchNorm(4), nn.ReLU(), nn.MaxPool(3, stride=2)),
            stages=[
                OfOnesOwn(
                    conv1=nn.Conv2d(4, 8, 3),
                    norm1=nn.BatchNorm(8),
                    conv2=nn.Conv2d(8, 8, 3),
                    norm2=nn.BatchNorm(8),
                    shortcut=nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm(8)),
                )
            ],
            pool=nn.GlobalAvgPool(),
            fc=nn.Dense(8, 10),
        ),
    ],
)
def test_order_that_is_known_is_not_refused(path, net):
    arrays = saved(net, path)
    xpnet.load_torch(path, into=net)
    for name, layer in xpnet.tree.named_branches(net):
        if isinstance(layer, nn.Dense):
            there = f"{name.replace('layers.', '')}.weight"
            assert layer.weight.tolist() == arrays[there].T.tolist()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Softmax(),
        nn.Dropout(),
        nn.AvgPool(2),
        nn.BatchNorm(2),
        nn.Sequential(),
        nn.Concatenate(nn.MaxPool(2)),
        nn.Residual(nn.ReLU(), nn.BatchNorm(2)),
    ],
)
def test_layers_that_keep_the_order(path, layer):
    net = pointwise(layer)
    arrays = saved(net, path)
    xpnet.load_torch(path, into=net)
    assert net[3].weight[:, 0].tolist() == arrays["3.weight"][0, [0, 4, 1, 5, 2, 6, 3, 7]].tolist()


@pytest.mark.peers
def test_transformer_behind_a_convolution_is_not_refused(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    theirs = torch.nn.ModuleDict(
        {
            "patches": torch.nn.Conv2d(3, 8, 4),
            "block": torch.nn.TransformerEncoderLayer(8, 2, 12),
            "head": torch.nn.Linear(8, 5),
        }
    )
    save_file(theirs.state_dict(), path)
    net = OfOnesOwn(
        patches=nn.Conv2d(3, 8, 4), block=nn.TransformerBlock(8, 2, hidden=12), head=nn.Dense(8, 5)
    )
    there = {"attention_norm": "norm1", "attention": "self_attn", "dense_norm": "norm2"}
    there |= {"expand": "linear1", "contract": "linear2"}
    names = {f"block.{here}": f"block.{name}" for here, name in there.items()}
    xpnet.load_torch(path, into=net, names=names)
    assert xpnet.to_numpy(net.head.weight).tolist() == theirs["head"].weight.T.tolist()


@pytest.mark.parametrize(
    ("channels", "error", "message"),
    [
        ({"fc3": 4}, ValueError, r"received 'fc3'\. The names are conv1, norm1, .*, fc2"),
        ({"fc1": True}, ValueError, "positive integers, received True for 'fc1'"),
        ({"fc1": 4.0}, ValueError, r"positive integers, received 4\.0 for 'fc1'"),
        ({"fc1": 0}, ValueError, "positive integers, received 0 for 'fc1'"),
        ({"fc1": 3}, ValueError, "fc1 reads 80 features, which are no flattened image of 3 channels"),
        ({"": 4}, ValueError, "must name dense layers, normalizations, LSTM or GRU, received '' with .* 4"),
        ({"fc1": 4, "conv1": 2}, ValueError, "received 'conv1' with an image of 2 channels"),
        ({"fc2": 1}, ValueError, "whether fc1 reads a flattened image"),
        (4, TypeError, "channels must be a mapping .*, received 4"),
    ],
)
def test_channels_that_do_not_fit_change_nothing(path, channels, error, message):
    net = Convolutional()
    saved(net, path)
    before = [x.tolist() for x in xpnet.tree.leaves(net, state=True)]
    with pytest.raises(error, match=message):
        xpnet.load_torch(path, into=net, channels=channels)
    assert [x.tolist() for x in xpnet.tree.leaves(net, state=True)] == before


def test_what_is_said_of_a_module_leaves_what_is_known(path):
    net = OfOnesOwn(
        body=nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Dense(4, 1)), other=nn.Dense(6, 1)
    )
    arrays = saved(net, path)
    xpnet.load_torch(path, into=net, channels={"": 1})
    assert net.body[2].weight[:, 0].tolist() == arrays["body.2.weight"][0, [0, 2, 1, 3]].tolist()
    assert net.other.weight[:, 0].tolist() == arrays["other.weight"][0].tolist()
    xpnet.load_torch(path, into=net, channels={"body.layers.2": 1, "other": 3})
    assert net.body[2].weight[:, 0].tolist() == arrays["body.2.weight"][0].tolist()
    assert net.other.weight[:, 0].tolist() == arrays["other.weight"][0, [0, 2, 4, 1, 3, 5]].tolist()


def test_subclasses_have_the_layout_of_their_layer(path):
    net = SubclassOfDense(3, 3)
    arrays = saved(net, path)
    xpnet.load_torch(path, into=net)
    assert net.weight.tolist() == arrays["weight"].T.tolist()
