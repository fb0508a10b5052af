"""The table of layers: shapes, counts, and that looking changes nothing."""

import threading

import numpy
import pytest

import xpnet
from xpnet.nn import Dense, Dropout, Flatten, Lambda, Module, ReLU, Sequential


class Block(Module):
    """Layers of its own and a parameter beside them."""

    def __init__(self, width):
        self.gain = xpnet.asarray([1.0] * width, dtype="float32")
        self.first = Dense(width, 2 * width, seed=0)
        self.rest = [Dense(2 * width, width, bias=False, seed=1), ReLU()]

    def __call__(self, x):
        y = self.first(x)
        for layer in self.rest:
            y = layer(y)
        return x + self.gain * y


class Twice(Module):
    """One layer, called two times."""

    def __init__(self):
        self.layer = Dense(3, 3, seed=0)

    def __call__(self, x):
        return self.layer(self.layer(x))


class Doubled(Dense):
    """A call that leads to the call of the base class."""

    def __call__(self, x):
        return super().__call__(x) * 2


class Renamed(Dense):
    """A call that is inherited."""


class Averaged(Module):
    """A network that is carried along as state."""

    state = ("average",)

    def __init__(self):
        self.net = Dense(2, 2, seed=0)
        self.average = Dense(2, 2, seed=0)

    def __call__(self, x):
        return self.net(x)


def rows(net, *shape, **options):
    return [(r.layer, r.output_shape, r.parameters) for r in net.summary(shape, **options).rows]


def test_rows(device):
    net = Sequential(Flatten(), Dense(6, 4, seed=0), ReLU(), Dropout(seed=0), Block(4), Lambda(abs))
    assert rows(net, 2, 3) == [
        ("layers.0 Flatten", (6,), 0),
        ("layers.1 Dense", (4,), 28),
        ("layers.2 ReLU", (4,), 0),
        ("layers.3 Dropout", (4,), 0),
        ("layers.4.first Dense", (8,), 40),
        ("layers.4.rest.0 Dense", (4,), 32),
        ("layers.4.rest.1 ReLU", (4,), 0),
        ("layers.4 Block", (4,), 4),
        ("layers.5 Lambda", (4,), 0),
    ]
    assert net.summary((2, 3)).parameters == sum(parameters for *_, parameters in rows(net, 2, 3)) == 104


def test_table(device):
    assert str(Sequential(Dense(64, 32, seed=0), ReLU()).summary((64,))) == (
        "layer           output       parameters\n"
        "───────────────────────────────────────\n"
        "layers.0 Dense  (batch, 32)       2,080\n"
        "layers.1 ReLU   (batch, 32)           0\n"
        "───────────────────────────────────────\n"
        "total                             2,080"
    )
    assert repr(Dense(2, 1, seed=0).summary((2,))).splitlines()[2] == "Dense  (batch, 1)           3"


def test_layer_that_is_called_twice():
    assert rows(Twice(), 3) == [("layer Dense", (3,), 12)] * 2
    assert Twice().summary((3,)).parameters == 12


def test_classes_that_inherit_their_call():
    net = Sequential(Doubled(2, 2, seed=0), Renamed(2, 3, seed=0), Dense(3, 1, seed=0))
    assert rows(net, 2) == [
        ("layers.0 Doubled", (2,), 6),
        ("layers.1 Renamed", (3,), 9),
        ("layers.2 Dense", (1,), 4),
    ]


def test_state_is_not_counted():
    assert rows(Averaged(), 2) == [("net Dense", (2,), 6)]
    assert Averaged().summary((2,)).parameters == 6
    assert Dropout(seed=0).summary((3,)).parameters == 0


@pytest.mark.parametrize(("shape", "output"), [((), ()), ((5, 3), (5, 3))])
def test_input_shapes(device, shape, output):
    assert rows(ReLU(), *shape) == [("ReLU", output, 0)]


def test_dtype_of_the_input(device):
    seen = []

    def look(x):
        seen.append(str(x.dtype).rpartition(".")[2])
        return x

    Sequential(Lambda(look), Dense(2, 1, seed=0, dtype="float64")).summary((2,))
    Sequential(Lambda(look)).summary((2,))
    Sequential(Lambda(look)).summary((2,), dtype="int64")
    assert seen == ["float64", "float32", "int64"]


def test_looking_changes_nothing(device):
    net = Sequential(Dense(3, 2, seed=0), Dropout(seed=0)).train()
    before, call = xpnet.tree.leaves(net, state=True), Dense.__call__
    net.summary((3,))
    assert all(a is b for a, b in zip(xpnet.tree.leaves(net, state=True), before, strict=True))
    assert all(module.training for module in xpnet.tree.branches(net))
    assert Dense.__call__ is call


def test_network_on_another_device_than_the_current_one(device):
    net = Sequential(Dense(3, 2, seed=0), Lambda(lambda x: x + xpnet.asarray([1.0], dtype="float32")))
    with xpnet.use_device("strict:device2"):
        assert rows(net, 3) == [("layers.0 Dense", (2,), 8), ("layers.1 Lambda", (2,), 0)]


def test_layers_are_called_as_in_use():
    class Look(Module):
        def __call__(self, x):
            assert not self.training
            return x

    assert rows(Sequential(Look()), 3) == [("layers.0 Look", (3,), 0)]


def test_error_leaves_the_classes_as_they_were():
    call = Dense.__call__
    with pytest.raises(ValueError, match="expected 3 features on the last axis, received 4"):
        Dense(3, 2, seed=0).summary((4,))
    assert Dense.__call__ is call


def test_other_threads_do_not_show_up():
    started, done = threading.Event(), threading.Event()

    def wait(x):
        started.set()
        assert done.wait(10)
        return x

    found = []
    thread = threading.Thread(target=lambda: found.extend(rows(Sequential(Dense(2, 2, seed=0), wait), 2)))
    thread.start()
    assert started.wait(10)
    Sequential(Dense(2, 2, seed=0))(numpy.ones((1, 2), dtype="float32"))
    done.set()
    thread.join()
    assert [layer for layer, *_ in found] == ["layers.0 Dense", "layers.1 Lambda"]


def test_frozen_layers_are_marked():
    net = Sequential(Dense(64, 32, seed=0), ReLU(), Dropout(seed=0), Dense(32, 10, seed=1))
    assert "frozen" not in str(net.summary((64,)))
    net.freeze().layers[3].unfreeze()
    net[3].frozen = ("bias",)
    table = net.summary((64,))
    assert [row.frozen for row in table.rows] == [True, True, True, ("bias",)]
    assert (table.parameters, table.frozen) == (2410, 2090)
    assert (
        str(table)
        == """\
layer             output       parameters
─────────────────────────────────────────
layers.0 Dense    (batch, 32)       2,080  frozen
layers.1 ReLU     (batch, 32)           0  frozen
layers.2 Dropout  (batch, 32)           0  frozen
layers.3 Dense    (batch, 10)         330  frozen: bias
─────────────────────────────────────────
total                               2,410
trained                               320
frozen                              2,090"""
    )
    assert "frozen: True" in repr(net[0])
