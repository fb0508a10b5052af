"""Networks as files: round trips, refusals that change nothing, and writing that can be interrupted."""

import datetime
import enum
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import pytest
import safetensors
import safetensors.numpy
from helpers import assert_on, assert_same, batch

import xpnet
from xpnet import losses, metrics, nn, optim
from xpnet.files import tensors
from xpnet.files.tensors import pack, read

ALL_LAYERS = [
    nn.Flatten(),
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.ELU(1.5),
    nn.GELU(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softmax(axis=1),
    nn.LogSoftmax(),
]


def whole_network(seed=0, dtype="float32"):
    return nn.Sequential(
        nn.Dense(3, 4, seed=seed, dtype=dtype),
        *ALL_LAYERS,
        nn.Dropout(0.25, seed=seed + 1),
        nn.Sequential(nn.Dense(4, 2, bias=False, seed=seed + 2, dtype=dtype)),
    )


def other_layers():
    """The layers that do not stand in the network above."""
    return [
        *(nn.BatchNorm(3), nn.LayerNorm(3), nn.RMSNorm(3), nn.GroupNorm(1, 3)),
        *(nn.Conv1d(2, 3, 3), nn.Conv2d(2, 2, (3, 1), padding=(1, 0)), nn.ConvTranspose2d(2, 4, 3, groups=2)),
        *(nn.Embedding(4, 2), nn.RotaryPositions(2), nn.SinusoidalPositions(4)),
        *(nn.Residual(nn.Dense(2, 2)), nn.Concatenate(nn.ReLU(), nn.Tanh()), nn.ByteReader(4)),
        *(nn.LSTM(2, 3), nn.GRU(2, 3, layers=2, bidirectional=True)),
        *(nn.MultiHeadAttention(4, 2), nn.TransformerBlock(4, 2, hidden=3, causal=True, rotary=True)),
        *(
            nn.MaxPool(2, padding="same"),
            nn.AvgPool((2, 3), stride=1),
            nn.GlobalAvgPool(),
            nn.GlobalMaxPool(),
        ),
        nn.Intermediate(nn.Sequential(nn.Dense(2, 2), nn.ReLU()), ["layers.0", "layers.1"]),
    ]


def contents(net):
    return {
        path: xpnet.to_numpy(leaf).tolist()
        for path, leaf in zip(
            xpnet.tree.paths(net, state=True), xpnet.tree.leaves(net, state=True), strict=True
        )
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


class Own(nn.Module):
    """A module of one's own with state, arrays under a private name, and containers."""

    state = ("calls", "steps")

    def __init__(self, seed=0):
        self._scale = xpnet.asarray([float(seed)])
        self.blocks = [nn.Dense(2, 2, seed=seed), {"b": nn.Dense(2, 1, seed=seed), "a": None}]
        self.calls = xpnet.asarray([seed], dtype="int64")
        self.steps = seed  # state that is no array
        self.function = abs
        self._cache = object()

    def __call__(self, x):
        return self.function(self.blocks[0](x)) * self._scale


# -- round trips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(device, path, dtype):
    net = whole_network(dtype=dtype)
    net(batch(5, 3, dtype=dtype))  # moves the state of dropout on
    before = contents(net)
    xpnet.save(net, path)
    assert contents(net) == before
    loaded = xpnet.load(path)
    assert loaded is not net
    assert repr(loaded) == repr(net)
    assert contents(loaded) == before
    assert xpnet.to_numpy(loaded[11].random_state)[1] == 1
    assert (loaded[3].negative_slope, loaded[4].alpha, loaded[9].axis) == (0.2, 1.5, 1)
    for leaf, other in zip(
        xpnet.tree.leaves(loaded, state=True), xpnet.tree.leaves(net, state=True), strict=True
    ):
        assert_on(leaf, device)
        assert leaf.dtype == other.dtype
    assert_same(loaded(batch(5, 3, dtype=dtype)), net(batch(5, 3, dtype=dtype)), tolerance=0)
    # A loaded network is as good as any: it can be trained and saved.
    xpnet.grad(lambda net, x: xpnet.array_namespace(x).mean(net(x)))(loaded, batch(5, 3, dtype=dtype))
    xpnet.tree.map(lambda a, b: None, loaded, net)
    xpnet.save(loaded, path)


def test_every_layer_can_be_saved(path):
    layers = {getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    everywhere = {type(module) for module in xpnet.tree.branches([whole_network(), *other_layers()])}
    assert layers - everywhere == {nn.Module, nn.Lambda}
    for layer in other_layers():
        xpnet.save(layer, path)
        loaded = xpnet.load(path)
        assert repr(loaded) == repr(layer)
        assert contents(loaded) == contents(layer)


def test_file_of_another_library(device, path):
    with xpnet.use_device("cpu"):
        net = whole_network()
    xpnet.save(net, path)
    loaded = xpnet.load(path)
    assert contents(loaded) == contents(net)
    assert_on(loaded[0].weight, device, "float32")
    xpnet.save(loaded, path)
    back = xpnet.load(path, device="cpu")
    assert_on(back[0].weight, xpnet.device("cpu"), "float32")
    assert contents(back) == contents(net)


def test_device_of_a_loaded_network(device, path):
    xpnet.save(whole_network(), path)
    for spec in ("cpu", "strict:device1", xpnet.device("strict")):
        loaded = xpnet.load(path, device=spec)
        for leaf in xpnet.tree.leaves(loaded, state=True):
            assert_on(leaf, xpnet.device(spec))


@pytest.mark.parametrize("training", [True, False])
def test_switch_is_kept(path, training):
    xpnet.save(whole_network().train() if training else whole_network().eval(), path)
    assert xpnet.load(path)[11].training is training


def test_plain_safetensors_readers_find_the_arrays(device, path):
    net = nn.Sequential(nn.Dense(2, 1, seed=0), nn.Dropout(seed=0))
    xpnet.save(net, path)
    arrays = safetensors.numpy.load_file(path)
    assert sorted(arrays) == ["layers.0.bias", "layers.0.weight", "layers.1.random_state"]
    assert_same(net[0].weight, arrays["layers.0.weight"], tolerance=0)


def test_odd_arrays(device, path):
    class Arrays(nn.Module):
        def __init__(self):
            values = numpy.arange(6.0).reshape(2, 3)
            self.turned = xpnet.asarray(values, device=xpnet.device()).T
            self.empty = xpnet.asarray(numpy.zeros((0, 2)), device=xpnet.device())
            self.number = xpnet.asarray(3.0)
            self.truth = xpnet.asarray([True, False])

    net, into = Arrays(), xpnet.tree.map(lambda x: x, Arrays())
    xpnet.save(net, path)
    xpnet.load(path, into=into)
    assert contents(into) == contents(net)
    assert into.turned.shape == (3, 2)


def test_path_may_be_a_string(path):
    xpnet.save(nn.ReLU(), str(path))
    assert repr(xpnet.load(str(path))) == "ReLU()"


# -- any tree, and the same bytes everywhere -----------------------------------------------------------------


def test_one_network_is_one_file(device, path):
    with xpnet.use_device("cpu"):
        expected = whole_network()
    xpnet.save(expected, path)
    content = path.read_bytes()
    xpnet.save(whole_network(), path)
    assert path.read_bytes() == content
    xpnet.save(xpnet.load(path), path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_bfloat16_keeps_its_bits(path, library):
    # But those of a NaN, which stays one, and of numbers so small that JAX takes them for 0.
    pytest.importorskip(library)
    numbers = [1.0, -0.0, 3.140625, 2.0**-126, float("inf"), *range(30)]
    x = xpnet.asarray(numbers, device=library, dtype="bfloat16")
    xpnet.save({"x": x}, path)
    with safetensors.safe_open(path, framework="np") as file:
        assert file.get_slice("x").get_dtype() == "BF16"
    bits = numpy.frombuffer(path.read_bytes()[-70:], "<u2")
    assert [f"{word:04x}" for word in bits[:5]] == ["3f80", "8000", "4049", "0080", "7f80"]
    content = path.read_bytes()
    loaded = xpnet.load(path, device=library)["x"]
    assert loaded.dtype == x.dtype
    xpnet.save({"x": loaded}, path)
    assert path.read_bytes() == content
    wide = xpnet.load(path, device="cpu")["x"]  # NumPy has no bfloat16
    numpy.testing.assert_array_equal(wide, numpy.asarray(numbers, dtype="float32"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 0.1, 1e300, -0.0])
def test_settings_keep_their_bits(path, number):
    xpnet.save([number], path)
    assert repr(xpnet.load(path)) == repr([number])


@pytest.mark.parametrize(
    "optimizer",
    [
        xpnet.optim.SGD(0.1, momentum=0.9),
        xpnet.optim.chain(xpnet.optim.clip_by_global_norm(1.0), xpnet.optim.AdamW(1e-3)),
    ],
)
def test_state_of_an_optimizer(device, path, optimizer):
    net = whole_network()
    state = optimizer.init(net)
    gradient = xpnet.tree.map(lambda x: x + 0.5, net)
    net, state = optimizer.update(gradient, state, net)
    xpnet.save({"net": net, "state": state}, path)
    for loaded in (
        xpnet.load(path),
        xpnet.load(
            path,
            into={"net": whole_network(5), "state": optimizer.init(whole_network(5))},
        ),
    ):
        assert contents(loaded["state"]) == contents(state)
        assert xpnet.tree.flatten(loaded["state"])[1] == xpnet.tree.flatten(state)[1]
        expected, _ = optimizer.update(gradient, state, net)
        found, _ = optimizer.update(gradient, loaded["state"], loaded["net"])
        assert contents(found) == contents(expected)


def test_tree_of_many_kinds(device, path):
    x = xpnet.asarray([1, 2], device=device)
    tree = {"a": (x, [None, True, "text", b"\x00\xff"]), 3: {"b": nn.ReLU(), None: 2.5}, "": x + 1}
    xpnet.save(tree, path)
    loaded = xpnet.load(path)
    assert_same(loaded["a"][0], x)
    assert_same(loaded[""], x + 1)
    assert list(loaded) == ["a", 3, ""]
    assert loaded["a"][1] == [None, True, "text", b"\x00\xff"]
    assert loaded[3][None] == 2.5
    assert type(loaded[3]["b"]) is nn.ReLU


class Pair(NamedTuple):
    first: object
    second: object


def test_into_a_tree_with_classes_of_ones_own(path):
    xpnet.save([Pair(numpy.ones(2), numpy.zeros(1))], path)
    old = [Pair(numpy.zeros(2), numpy.ones(1))]
    (pair,) = xpnet.load(path, into=old)
    assert type(pair) is Pair
    assert (pair.first.tolist(), pair.second.tolist()) == ([1.0, 1.0], [0.0])
    assert old[0].first.tolist() == [0.0, 0.0]


def nested(depth):
    tree = numpy.ones(1)
    for _ in range(depth):
        tree = [tree]
    return tree


SAID = {
    "ordered": OrderedDict(b=1, a=[2]),
    "keys": {
        True: 1,
        1.5: 2,
        numpy.int64(7): 3,
        numpy.float32(0.1): 4,
        numpy.str_("x"): 5,
        float("nan"): 6,
        None: 7,
    },
    "integers": [2**63, -(2**1023), 10**300],
    "texts": ["\ud800", "\x00", "ß", numpy.str_("a"), numpy.str_("")],
    "dates": [numpy.datetime64("2020-02-29"), numpy.timedelta64(3, "s"), numpy.datetime64("NaT")],
    "optimizer": optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(optim.cosine(0.1, steps=9))),
    "functions": [losses.mse, nn.initializers.zeros],
    "objects": numpy.asarray([[None, "a"], [2, 0.5]], dtype=object),
    "objects by columns": numpy.asarray([[None, "a", 1], [2, 0.5, ()]], dtype=object).T,
    "words": numpy.asarray([["a", "bc"]], dtype="U9"),
    "bytes": numpy.asarray([b"a", b""], dtype="S3"),
    "days": numpy.asarray(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    "no words": numpy.zeros((0, 2), dtype="U5"),
    "a word": numpy.asarray("word"),
    "depth": nested(98),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_saved_comes_back_equal(path, name):
    xpnet.save({name: SAID[name], "x": numpy.ones(2)}, path)
    loaded, value = xpnet.load(path), SAID[name]
    for found in (loaded[name], xpnet.load(path, into=loaded)[name]):
        assert type(found) is type(value)
        if isinstance(value, numpy.ndarray):
            numpy.testing.assert_array_equal(found, value, strict=True)
        else:
            assert repr(found) == repr(value)
            assert name in ("keys", "dates", "depth") or found == value


def test_a_loss_is_named_whatever_module_it_stands_in(path):
    for loss in (losses.mse, losses.cross_entropy):
        xpnet.save([loss, numpy.ones(2)], path)
        assert f"xpnet.losses.{loss.__name__}" in path.read_bytes().decode("latin1")
        assert xpnet.load(path)[0] is loss


@pytest.mark.parametrize("module", ["xpnet.optim", "xpnet.optim.optimizers"])
def test_an_optimizer_is_named_whatever_module_it_stood_in(path, module):
    xpnet.save({"optimizer": optim.Adam(0.1), "x": numpy.ones(2)}, path)

    def other_module(content):
        assert "xpnet.optim.Adam" in json.dumps(content)
        return json.loads(json.dumps(content).replace("xpnet.optim.Adam", f"{module}.Adam"))

    damaged(path, other_module)
    assert xpnet.load(path)["optimizer"] == optim.Adam(0.1)


def test_a_chain_of_what_is_no_longer_there_is_to_be_made_anew(path):
    xpnet.save(optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(0.1)), path)

    def earlier(content):
        text = json.dumps(content)
        for now, before in (
            ("optimizer.Chain", "optimizers.Chain"),
            ("transforms._zeros", "transforms._no_state"),
        ):
            assert now in text
            text = text.replace(now, before)
        return json.loads(text)

    damaged(path, earlier)
    with pytest.raises(
        ValueError, match=r"function xpnet\.optim\.transforms\._no_state.*Make what was saved anew"
    ):
        xpnet.load(path)


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    "value", [Pair(1, 2), Level.HIGH, defaultdict(list), numpy.ones], ids=["tuple", "enum", "dict", "f"]
)
def test_what_needs_code_is_not_read(path, value):
    xpnet.save({"value": value, "x": numpy.ones(2)}, path)
    with pytest.raises(ValueError, match="code is not read from files"):
        xpnet.load(path)
    assert xpnet.load(path, into={"value": value, "x": numpy.zeros(2)})["x"].tolist() == [1.0, 1.0]


CIRCLE: list = []
CIRCLE.append(CIRCLE)


class OwnList(list):
    """Into which trees do not look."""


def hiding(name):
    net = nn.Dense(2, 2, seed=0)
    setattr(net, name, 3)
    return net


UNREADABLE = {
    "a method that is hidden": (hiding("train"), r"must not hide a part of its class, received 'train'"),
    "a list of one's own": (OwnList([numpy.ones(1)]), r"received some in a OwnList at the root"),
    "a dict of one's own": (
        {"a": type("Mine", (OrderedDict,), {})(a=numpy.ones(1))},
        r"received some in a Mine at a, .* dict\(x\)",
    ),
    "metadata": ({"__metadata__": numpy.ones(1)}, "other than __metadata__, received '__metadata__'"),
    "half a character": ({"a\ud800": numpy.ones(1)}, r"text of whole characters .*received 'a\\ud800'"),
    "nested deeply": (nested(200), "nested at most 100 times"),
    "a circle": (CIRCLE, "nested at most 100 times"),
    "a long integer": ({"x": 10**5000}, "at most 1024 bits"),
    "a long header": (["x" * 10**6], "at most 1000000 bytes"),
    "one name": ({1: numpy.ones(1), "1": numpy.ones(1)}, "two arrays have the name 1"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_could_not_be_read_is_not_written(path, name, monkeypatch):
    monkeypatch.setattr(tensors, "_LONGEST_HEADER", 10**6)  # one of 100 MB takes seconds
    tree, message = UNREADABLE[name]
    with pytest.raises((TypeError, ValueError), match=message):
        xpnet.save(tree, path)
    assert not path.exists()


@pytest.mark.parametrize(
    "value", [numpy.bytes_(b"a"), numpy.str_("a\0"), numpy.zeros(1, dtype=[("a", "i4")])]
)
def test_numbers_that_cannot_be_saved(path, value):
    with pytest.raises(TypeError, match="a file holds"):
        xpnet.save({"value": value}, path)


@pytest.mark.parametrize("value", [datetime.date(2026, 1, 1), {1, 2}, 1j, numpy.random.default_rng(0)])
def test_what_cannot_be_saved_says_what_to_do(path, value):
    with pytest.raises(TypeError, match=r"received \w+ at about\. Convert it, with str, list or numpy\."):
        xpnet.save({"net": nn.ReLU(), "about": value}, path)
    assert not path.exists()


def test_key_that_cannot_be_saved(path):
    with pytest.raises(
        TypeError, match=r"keys of a dict in a file are numbers and strings, received \(1, 2\)"
    ):
        xpnet.save({(1, 2): numpy.ones(2)}, path)


def test_dtype_that_cannot_be_saved(path):
    with pytest.raises(TypeError, match="received complex128 at z"):
        xpnet.save({"z": numpy.ones(2, dtype="complex128")}, path)
    for dtype in ("U0", "S0"):  # of no letters, as a field of records can be
        with pytest.raises(TypeError, match="a file holds arrays of"):
            xpnet.save({"z": numpy.zeros(2, dtype=[("z", dtype)])["z"]}, path)


# -- into -------------------------------------------------------------------------------------------------


def test_into_a_network_of_ones_own(device, path):
    net, into = Own(seed=3), Own(seed=5)
    modules = xpnet.tree.branches(into)
    cache = into._cache
    xpnet.save(net, path)
    assert xpnet.load(path, into=into) is into
    assert all(a is b for a, b in zip(xpnet.tree.branches(into), modules, strict=True))
    assert xpnet.to_numpy(into._scale).tolist() == [3.0]
    assert xpnet.to_numpy(into.calls).tolist() == [3]
    assert_same(into.blocks[0].weight, net.blocks[0].weight, tolerance=0)
    assert_same(into.blocks[1]["b"].weight, net.blocks[1]["b"].weight, tolerance=0)
    assert (into.steps, into._cache, into.blocks[1]["a"]) == (5, cache, None)


def test_into_keeps_the_device_of_the_network(device, path):
    xpnet.save(whole_network(seed=5), path)
    net = whole_network()
    with xpnet.use_device("strict:device2"):
        xpnet.load(path, into=net)
    assert all(xpnet.backends.device_of(leaf) == device for leaf in xpnet.tree.leaves(net, state=True))
    xpnet.load(path, into=net, device="strict:device2")
    for leaf in xpnet.tree.leaves(net, state=True):
        assert_on(leaf, xpnet.device("strict:device2"))


@pytest.mark.parametrize(
    ("saved", "into", "message"),
    [
        (
            lambda: nn.Dense(2, 3),
            lambda: nn.Dense(2, 4),
            r"at weight it has float32 \(2, 4\), the file float32 \(2, 3\)",
        ),
        (
            lambda: nn.Dense(2, 3),
            lambda: nn.Dense(3, 3),
            r"at weight it has float32 \(3, 3\), the file float32 \(2, 3\)",
        ),
        (
            lambda: nn.Dense(2, 3),
            lambda: nn.Dense(2, 3, bias=False),
            r"at bias it has nothing, the file float32 \(3,\)",
        ),
        (
            lambda: nn.Dense(2, 3, bias=False),
            lambda: nn.Dense(2, 3),
            r"at bias it has float32 \(3,\), the file nothing",
        ),
        (
            lambda: nn.Dense(2, 3),
            lambda: nn.Dense(2, 3, dtype="float64"),
            r"at weight it has float64 \(2, 3\), the file float32 \(2, 3\)",
        ),
        (lambda: nn.Dense(2, 3), lambda: nn.Sequential(nn.Dense(2, 3)), "at bias it has nothing"),
        (lambda: nn.Dense(2, 3), lambda: nn.Dropout(), r"at bias it has nothing, the file float32 \(3,\)"),
    ],
)
def test_into_another_structure(device, path, saved, into, message):
    xpnet.save(saved(), path)
    net = into()
    before = contents(net)
    with pytest.raises(ValueError, match=rf"the network must fit the file .*{message}"):
        xpnet.load(path, into=net)
    assert contents(net) == before


# -- files that cannot be read ----------------------------------------------------------------------------


def damaged(path, change):
    """Rewrite the description in a file."""
    arrays, metadata = read(path)
    content = change(json.loads(metadata["xpnet"]))
    values = {name: x.values for name, x in arrays.items()}
    path.write_bytes(b"".join(pack(values, {"xpnet": json.dumps(content)})))


def refused(path, message):
    net = nn.Dense(2, 3, seed=1)
    before = contents(net)
    for options in ({}, {"into": net}):
        with pytest.raises(ValueError, match=message):
            xpnet.load(path, **options)
    assert contents(net) == before


@pytest.mark.parametrize("data", [b"", b"not a file of tensors", b"\x00" * 100, b"\xff" * 100])
def test_no_safetensors_file(path, data):
    path.write_bytes(data)
    refused(path, "cannot be read as a safetensors file, it is damaged or another kind of file")


@pytest.mark.parametrize("keep", [4, 50, -1])
def test_truncated_file(path, keep):
    xpnet.save(nn.Dense(2, 3, seed=0), path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "cannot be read as a safetensors file")


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"xpnet": "{"}, {"xpnet": "3"}, {"xpnet": "{}"}]
)
def test_safetensors_file_of_another_program(path, metadata):
    arrays = {"weight": numpy.ones((2, 3), dtype="float32"), "bias": numpy.ones(3, dtype="float32")}
    safetensors.numpy.save_file(arrays, path, metadata)
    refused(path, "must be a file that xpnet.save wrote")


def test_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        xpnet.load(path)


def test_file_of_a_later_version(path):
    xpnet.save(nn.Dense(2, 3, seed=0), path)
    damaged(path, lambda content: {**content, "version": 99})
    refused(path, "has the format 99, this xpnet reads 1. Update xpnet")


@pytest.mark.parametrize(
    "description",
    [
        {"array": "no such array"},
        {"module": "Dense"},
        {"module": "Dense", "attributes": []},
        {"something": "else"},
        {"list": 3},
        {"float": "1.5"},
        {"dict": [[{"tuple": [1]}, 2]]},
        {"dict": [[{"module": "ReLU", "attributes": {}}, 2]]},
        {"dict": [[1, 2], [1, 3]]},
        *({"settings": name, "attributes": {}} for name in ("Dropout", "ReLU", "Sequential", "Module")),
        {"settings": "xpnet.losses.noted_calls", "attributes": {}},
        {"settings": "xpnet.nn.initializers.uniform", "attributes": {}},
        {"settings": "xpnet.optim.adam.scale_by_adam", "attributes": {}},
        {"settings": "xpnet.optim.optimizer.Optimizer", "attributes": {}},
        {"settings": "xpnet.optim.schedules.constant", "attributes": {"rate": 0.1}},
    ],
)
def test_damaged_description(path, description):
    xpnet.save(nn.Dense(2, 3, seed=0), path)
    damaged(path, lambda content: {**content, "net": description})
    with pytest.raises(ValueError, match="description is damaged at"):
        xpnet.load(path)


@pytest.mark.parametrize(
    ("name", "value"), [("__call__", 1), ("__class__", 1), ("summary", "x"), ("_children", 5), ("eval", None)]
)
def test_attribute_of_a_file_that_would_stand_for_a_method(path, name, value):
    xpnet.save(nn.ReLU(), path)
    damaged(path, lambda content: {**content, "net": {"module": "ReLU", "attributes": {name: value}}})
    with pytest.raises(ValueError, match=f"description is damaged at .*{name}"):
        xpnet.load(path)


def test_description_that_is_nested_too_deeply(path):
    xpnet.save(nn.ReLU(), path)
    for depth in (102, 150, 400, 5_000, 100_000):
        text = '{"version": 1, "net": ' + '{"list": [' * depth + "]}" * depth + "}"
        path.write_bytes(b"".join(pack({}, {"xpnet": text})))
        with pytest.raises(ValueError, match=r"nested too deeply|cannot be read as one"):
            xpnet.load(path)


@pytest.mark.parametrize("place", [20, 150, -1])
def test_altered_file(path, place):
    xpnet.save(nn.Dense(2, 3, seed=0), path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    refused(path, "was altered or damaged since it was written|cannot be read as a safetensors file")


def test_function_needs_into(device, path):
    net = nn.Sequential(nn.Dense(3, 2, seed=0), nn.Lambda(abs))
    xpnet.save(net, path)
    with pytest.raises(ValueError, match=r"has a function abs, and code is not read.*load\(path, into=net\)"):
        xpnet.load(path)
    into = nn.Sequential(nn.Dense(3, 2, seed=1), nn.Lambda(abs))
    assert_same(xpnet.load(path, into=into)(batch(5, 3)), net(batch(5, 3)), tolerance=0)


def test_a_callable_without_a_name_goes_by_its_class(path):
    xpnet.save({"metric": metrics.accuracy}, path)
    with pytest.raises(ValueError, match=r"has a function xpnet\.training\.metric\.Metric, and code"):
        xpnet.load(path)


class Dense(nn.Dense):
    """A class that has a name in common with a layer of xpnet, and is another."""


@pytest.mark.parametrize(
    ("cls", "name"), [(lambda: Own(1), "Own"), (lambda: Dense(2, 3), r"test_files\.Dense")]
)
def test_class_of_ones_own_needs_into(path, cls, name):
    xpnet.save(cls(), path)
    with pytest.raises(ValueError, match=rf"has a module .*{name}, which is not one of xpnet\.nn.*into=net"):
        xpnet.load(path)


@pytest.mark.parametrize(
    "module",
    [
        *("os.system", "initializers", "__import__", "builtins.eval", "Module.__init__", "Summary"),
        *("xpnet.optim.adam.Adam", "xpnet.losses.mse", "xpnet.optim.transforms.Transform"),
    ],
)
def test_no_code_of_a_file_is_run(path, module, monkeypatch):
    def never(*_, **__):
        raise AssertionError("called from a file")

    xpnet.save(nn.Dense(2, 3, seed=0), path)
    damaged(path, lambda content: {**content, "net": {"module": module, "attributes": {"x": "ls"}}})
    monkeypatch.setattr(os, "system", never)
    with pytest.raises(ValueError, match=r"not one of xpnet\.nn"):
        xpnet.load(path)


def test_layers_are_not_constructed_from_a_file(path, monkeypatch):
    xpnet.save(nn.Dense(2, 3, seed=0), path)

    def never(*_, **__):
        raise AssertionError("called from a file")

    monkeypatch.setattr(nn.Dense, "__init__", never)
    assert repr(xpnet.load(path)) == "Dense(weight: float32 (2, 3), bias: float32 (3,))"


@pytest.mark.parametrize(
    "name", ["Dense", "xpnet.optim.adam.Adam", "xpnet.settings.count", "xpnet.nn.parameters.drawn"]
)
def test_name_of_a_function_that_is_none(path, name):
    xpnet.save(nn.Dense(2, 3), path)
    damaged(path, lambda content: {**content, "net": {"function": name}})
    with pytest.raises(ValueError, match=f"has a function {name}, and code is not read"):
        xpnet.load(path)


def mse(outputs, targets):
    return outputs


def test_what_has_a_name_of_xpnets_and_is_another(path):
    def named(x, module, name):
        x.__module__, x.__qualname__ = module, name
        return x

    function = named(mse, "xpnet.losses", "mse")
    layer = named(type("Dense", (nn.Dense,), {}), "xpnet.nn.dense", "Dense")(2, 3)
    own = named(
        dataclass(type("Adam", (), {"__annotations__": {"rate": object}})), "xpnet.optim.adam", "Adam"
    )
    for value, what in (
        (function, "function mse"),
        (layer, "module xpnet.nn.dense.Dense"),
        (own(numpy.ones(2)), "dataclass xpnet.optim.adam.Adam"),
    ):
        xpnet.save([value], path)
        with pytest.raises(ValueError, match=f"has a {what},"):
            xpnet.load(path)
    optimizer = named(type("Adam", (optim.Adam,), {}), "xpnet.optim.adam", "Adam")
    with pytest.raises(TypeError, match="received Adam"):
        xpnet.save([optimizer(0.1)], path)


@pytest.mark.parametrize(
    "dtype", ["<U9999999999", "<U99999999999999999999", "|O", "<f16", ">f8", "<U0", "(2,)f8"]
)
def test_dtype_of_a_file_that_is_none(path, dtype):
    xpnet.save({"words": numpy.asarray(["a"])}, path)
    arrays, metadata = read(path)
    numbers = arrays["words"].values.view("uint8")
    path.write_bytes(b"".join(pack({"words": numbers}, metadata | {"dtypes": json.dumps({"words": dtype})})))
    with pytest.raises(ValueError, match=r"damaged at words: .* is no dtype of numbers, texts or dates"):
        xpnet.load(path)


@pytest.mark.parametrize("character", [0x110000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_text_of_a_file_with_no_characters(path, character):
    xpnet.save({"words": numpy.asarray(["a"])}, path)
    _, metadata = read(path)
    numbers = numpy.frombuffer(character.to_bytes(4, "little"), "uint8").reshape(1, 4)
    path.write_bytes(b"".join(pack({"words": numbers}, metadata | {"dtypes": json.dumps({"words": "<U1"})})))
    with pytest.raises(ValueError, match=r"damaged at words: a text has something else than characters"):
        xpnet.load(path)


@pytest.mark.parametrize("text", ["[]", "3", '{"words"', "[" * 100_000])
def test_dtypes_of_a_file_that_are_none(path, text):
    xpnet.save({"words": numpy.ones(1)}, path)
    arrays, metadata = read(path)
    path.write_bytes(b"".join(pack({"words": arrays["words"].values}, metadata | {"dtypes": text})))
    with pytest.raises(ValueError, match=r"is damaged: its dtypes cannot be read"):
        xpnet.load(path)


@pytest.mark.parametrize(
    "value",
    [
        *(numpy.asarray([1, 2, 300], dtype=f">{kind}") for kind in ("i2", "u4", "i8", "f4", "f8")),
        numpy.asarray([["ab", "é"], ["", "c"]], dtype=">U2").T,
        numpy.asarray(["2020-01-01", "NaT"], dtype=">M8[D]"),
        numpy.asarray([1, 2], dtype=">m8[s]")[::-1],
    ],
    ids=lambda value: value.dtype.str,
)
def test_arrays_whose_bytes_stand_the_other_way_round(path, value):
    xpnet.save([value], path)
    (found,) = xpnet.load(path)
    numpy.testing.assert_array_equal(found, value.astype(value.dtype.newbyteorder("=")), strict=True)


def test_each_array_begins_at_a_multiple_of_its_element(path):
    xpnet.save({"a": numpy.ones(3, "int8"), "b": numpy.ones(1), "c": numpy.ones(1, "float16")}, path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    header = json.loads(content[8 : 8 + size])
    assert {name: header[name]["data_offsets"][0] for name in "abc"} == {"b": 0, "c": 8, "a": 10}


def test_file_without_a_network(path):
    xpnet.save(nn.Dense(2, 3), path)
    damaged(path, lambda content: {"version": 1})
    refused(path, "must be a file that xpnet.save wrote")


UNREACHED = {
    "objects": lambda x: {"a": numpy.asarray([x, None], dtype=object)},
    "empty key": lambda x: {"": {"a": x}},
    "key that ends in /": lambda x: {"a/": {"b": x}},
}


@pytest.mark.parametrize("make", UNREACHED.values(), ids=UNREACHED)
def test_into_leaves_no_array_as_it_was(path, make):
    xpnet.save({"plain": numpy.ones(2), **make(numpy.ones(2))}, path)
    into = {"plain": numpy.zeros(2), **make(numpy.zeros(2))}
    with pytest.raises(ValueError, match=r"arrays of into= must be leaves of a tree, received a"):
        xpnet.load(path, into=into)
    assert into["plain"].tolist() == [0.0, 0.0]


def test_an_array_that_is_named_many_times_is_moved_once(device, path, monkeypatch):
    xpnet.save({"a": numpy.ones(2, dtype="float32"), "b": numpy.zeros(2, dtype="float32")}, path)
    arrays, metadata = read(path)
    again = {"list": [{"array": "a"}, {"array": "a"}, {"array": "b"}]}
    described = json.dumps({"version": 1, "net": again})
    values = {name: x.values for name, x in arrays.items()}
    path.write_bytes(b"".join(pack(values, metadata | {"xpnet": described})))
    one, other, third = xpnet.load(path, device=device)
    assert one is other
    assert third is not one


# -- files that cannot be written -------------------------------------------------------------------------


OTHER_RANDOM = numpy.random.RandomState(numpy.random.PCG64(0))  # whose state is of another kind


@pytest.mark.parametrize("value", [object(), {1, 2}, bytearray(b"bytes"), 1j, OTHER_RANDOM])
def test_attribute_that_cannot_be_described(path, value):
    net = nn.Sequential(nn.Dense(2, 1, seed=0), nn.ReLU())
    xpnet.save(net, path)
    before = path.read_bytes()
    net[1].note = value
    with pytest.raises(TypeError, match=rf"received {type(value).__name__} at layers\.1\.note"):
        xpnet.save(net, path)
    assert path.read_bytes() == before


def test_two_arrays_of_one_name(path):
    class Names(nn.Module):
        def __init__(self):
            self.parts = {"a.b": xpnet.asarray([1.0]), "a": {"b": xpnet.asarray([2.0])}}

    with pytest.raises(ValueError, match=r"two arrays have the name parts\.a\.b"):
        xpnet.save(Names(), path)
    assert not path.exists()


def test_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError):
        xpnet.save(nn.ReLU(), tmp_path / "nowhere" / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file(path, monkeypatch, function, error):
    old = whole_network(seed=0)
    xpnet.save(old, path)

    def interrupt(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, function, interrupt)
        with pytest.raises(type(error)):
            xpnet.save(whole_network(seed=9), path)
    assert contents(xpnet.load(path)) == contents(old)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


FILLED = """
import resource, sys
import xpnet
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    xpnet.save(xpnet.nn.Dense(64, 64), sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are those of Unix")
def test_a_file_that_does_not_fit_leaves_the_old_one(path):
    xpnet.save(nn.Dense(2, 3, seed=0), path)
    before = path.read_bytes()
    code = [sys.executable, "-c", FILLED, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(code, env=environment, capture_output=True, text=True)
    assert "what was at this path before is unchanged. Look at the space" in result.stdout, result.stderr
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="rights are those of Unix")
def test_directory_without_the_right_to_write(path):
    xpnet.save(nn.Dense(2, 3, seed=0), path)
    path.parent.chmod(0o500)
    root = os.geteuid() == 0  # who may write everywhere
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(
            PermissionError, match=r"at this path before is unchanged.*rights to the directory"
        ):
            xpnet.save(nn.Dense(2, 3, seed=1), path)
    finally:
        if root:
            os.seteuid(0)
        path.parent.chmod(0o700)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_readers_see_the_old_file_or_the_new_one(path):
    first, second = whole_network(seed=0), whole_network(seed=9)
    expected = [contents(first), contents(second)]
    xpnet.save(first, path)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            xpnet.save(second, path)
            xpnet.save(first, path)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20):
            assert contents(xpnet.load(path, device="cpu")) in expected
    finally:
        stop.set()
        thread.join()


def test_file_can_be_read_by_others_as_usual(path, tmp_path):
    (tmp_path / "usual").touch()
    xpnet.save(nn.ReLU(), path)
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
