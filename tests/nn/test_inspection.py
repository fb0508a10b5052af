"""What parts of networks compute."""

import threading

import numpy as np
import pytest
from helpers import assert_same, batch

import xpnet
from xpnet import losses, nn, optim, tree


def network(dropout=0.0):
    return nn.Sequential(
        nn.Dense(3, 4, seed=0), nn.Sequential(nn.BatchNorm(4), nn.ReLU()), nn.Dropout(dropout, seed=0),
        nn.Dense(4, 2, seed=1),
    )  # fmt: skip


def test_one_part_and_several(device):
    net, x = network().eval(), batch(5, 3)
    first = net[0](x)
    assert_same(nn.Intermediate(net, "layers.0")(x), first, tolerance=0)
    outputs = nn.Intermediate(net, ["layers.1.layers.1", "layers.3", ""])(x)
    assert [*outputs] == ["layers.1.layers.1", "layers.3", ""]
    assert_same(outputs["layers.1.layers.1"], net[1](first), tolerance=0)
    assert_same(outputs["layers.3"], net(x), tolerance=0)
    assert_same(outputs[""], net(x), tolerance=0)


def test_predict_jit_and_grad(device):
    net, x = network(dropout=0.5), batch(5, 3)
    inside = nn.Intermediate(net, ["layers.0", "layers.3"])
    predicted = xpnet.predict(inside, x)
    assert_same(predicted["layers.3"], xpnet.to_numpy(xpnet.predict(net, x)))
    assert_same(predicted["layers.0"], xpnet.to_numpy(net[0](x)))
    call = xpnet.jit(lambda inside, x: inside(x)["layers.0"])
    for _ in range(2):
        assert_same(call(inside, x), xpnet.to_numpy(net[0](x)))
    gradient = xpnet.grad(lambda inside: losses.mse(inside(x)["layers.0"], 0 * net[0](x)))(inside)
    expected = xpnet.grad(lambda layer: losses.mse(layer(x), 0 * layer(x)))(net[0])
    assert_same(gradient.net[0].weight, xpnet.to_numpy(expected.weight))
    assert not np.any(xpnet.to_numpy(gradient.net[3].weight))


@pytest.mark.parametrize("jit", [True, False])
def test_it_shares_the_network(device, jit):
    net = network(dropout=0.5)
    inside = nn.Intermediate(net, "layers.1")
    before = xpnet.to_numpy(tree.map(lambda leaf: leaf, net, state=True))
    settings = {"loss": losses.mse, "optimizer": optim.SGD(0.5), "epochs": 1, "seed": 0, "progress": False}
    xpnet.fit(inside, np.ones((8, 3)) * np.arange(8)[:, None], np.zeros((8, 4)), jit=jit, **settings)
    assert inside.net is net
    assert np.any(xpnet.to_numpy(net[0].weight) != before[0].weight)
    assert np.any(xpnet.to_numpy(net[1][0].running_mean) != before[1][0].running_mean)
    assert np.any(xpnet.to_numpy(net[2].random_state) != before[2].random_state)
    assert_same(net[3].weight, before[3].weight, tolerance=0)


def test_classes_stay_as_they_are():
    """Nothing else that goes on meanwhile is seen, and nothing of it stays."""
    call, net, x = nn.Dense.__call__, network().eval(), np.ones((2, 3), dtype="float32")
    inside, stop, wrong = nn.Intermediate(net, "layers.0"), threading.Event(), []

    def others():
        while not stop.is_set():
            if nn.Dense.__call__ is not call or type(net[0]) is not nn.Dense:
                wrong.append(1)
            net(x)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        assert inside(x).shape == (2, 4)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert type(net[0]) is nn.Dense


class Often(nn.Module):
    """One part that is called twice, one that is not, and one that a loop calls."""

    def __init__(self):
        self.twice = nn.Dense(2, 2, seed=0)
        self.never = nn.Dense(2, 2, seed=1)
        self.looped = nn.Dense(2, 2, seed=2)
        self.whole = Loop(self.looped)

    def __call__(self, x):
        return self.whole(self.twice(self.twice(x)))


class Loop(nn.Module):
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        def step(carried, x, layer):
            return carried, layer(x)

        return xpnet.scan(step, 0.0, x, self.layer)[1]


def test_what_is_not_called_once(device):
    net, x = Often(), batch(5, 2)
    for path, text in {
        "twice": "the Dense at twice was called 2 times",
        "never": "the Dense at never was called not at all",
        "whole.layer": "the Dense at whole.layer was called not at all. What is called in xpnet.scan",
    }.items():
        for call in (lambda net, x: net(x), xpnet.jit(lambda net, x: net(x))):
            with pytest.raises(ValueError, match=text):
                call(nn.Intermediate(net, path), x)
    assert_same(nn.Intermediate(net, "whole")(x), net(x), tolerance=0)


class Own(nn.Dense):
    """A class that wants more of those derived from it, and calls that of its own."""

    def __init_subclass__(cls, *, needed, **options):
        super().__init_subclass__(**options)

    def __call__(self, x):
        return super().__call__(x) * 2


def test_classes_of_ones_own(device):
    net, x = nn.Sequential(Own(3, 2, seed=0), nn.Tanh()), batch(4, 3)
    assert_same(nn.Intermediate(net, "layers.0")(x), net[0](x), tolerance=0)
    inner = nn.Intermediate(nn.Sequential(nn.Intermediate(net, "layers.0"), nn.ReLU()), "layers.0")
    assert_same(inner(x), net[0](x), tolerance=0)


def test_bad_paths():
    with pytest.raises(ValueError, match=r"'layers\.4'\. Is layers\.3"):
        nn.Intermediate(network(), "layers.4")
    with pytest.raises(ValueError, match=r"must name a module of the network, received 'layers\.0\.weight'"):
        nn.Intermediate(network(), ["layers.0", "layers.0.weight"])
    for where in (3, [], [3], None):
        with pytest.raises(TypeError, match="needs the path of a part"):
            nn.Intermediate(network(), where)
    with pytest.raises(TypeError, match=r"looks inside a network, an xpnet.nn.Module, received a function"):
        nn.Intermediate(lambda x: x, "layers.0")


def test_files(tmp_path):
    inside, x = nn.Intermediate(network(), ["layers.0", "layers.1"]).eval(), np.ones((2, 3), dtype="float32")
    xpnet.save(inside, tmp_path / "net.safetensors")
    loaded = xpnet.load(tmp_path / "net.safetensors")
    assert repr(loaded) == repr(inside)
    for path, output in inside(x).items():
        assert_same(loaded(x)[path], output, tolerance=0)
