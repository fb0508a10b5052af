"""A plan never serves arguments that it was not made for."""

import pickle
from collections import OrderedDict

import numpy
import pytest
from helpers import assert_same, rounding

import xpnet
from xpnet import nn, tree
from xpnet.replay.same.facts import Facts
from xpnet.replay.same.match import matcher


class Scaled(nn.Module):
    """A layer with all that an attribute can be."""

    def __init__(self):
        self.inner = nn.Dense(3, 3, seed=0)
        self.factor = 2.0
        self.function = numpy.float64
        self.parts = {"b": [nn.Dense(3, 3, seed=1)], "a": (numpy.ones(3, "float32"), 4)}
        self.extra = None
        self.activation = nn.ReLU()
        self.settings = {"shift": 0.5, "scales": [1.0]}

    def __call__(self, x):
        xp = xpnet.array_namespace(x)
        y = self.inner(x) * self.factor + self.parts["a"][0] * self.parts["a"][1]
        for part in self.parts["b"]:
            y = part(y)
        if self.extra is not None:
            y = y + self.extra
        y = (y + self.settings["shift"]) * self.settings["scales"][0]
        y = self.activation(y)
        return xp.tanh(y) if self.training else y


def set_factor(net):
    net.factor = 3.0


def set_factor_of_another_type(net):
    net.factor = 2


def replace_weight(net):
    net.inner.weight = net.inner.weight + 1


def remove_bias(net):
    net.inner.bias = None


def make_array(net):
    net.extra = numpy.ones(3, "float32")


def append(net):
    net.parts["b"].append(nn.Dense(3, 3, seed=5))


def replace_layer(net):
    net.parts["b"][0] = nn.Sequential(nn.Dense(3, 3, seed=6), nn.Tanh())


def set_number_in_tuple(net):
    net.parts["a"] = (net.parts["a"][0], 5)


def add_attribute(net):
    net.other = 1


def add_key(net):
    net.parts["c"] = 1


def evaluate(net):
    net.eval()


def widen(net):
    net.inner.weight = net.inner.weight.astype("float64")


def replace_by_another_kind(net):
    net.activation = nn.Tanh()


def set_in_dict(net):
    net.settings["shift"] = -1.0


def set_in_list(net):
    net.settings["scales"][0] = 3.0


CHANGES = [
    replace_by_another_kind,
    set_in_dict,
    set_in_list,
    set_factor,
    set_factor_of_another_type,
    replace_weight,
    remove_bias,
    make_array,
    append,
    replace_layer,
    set_number_in_tuple,
    add_attribute,
    add_key,
    evaluate,
    widen,
]


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_a_network(change):
    f = xpnet.jit(lambda net, x: net(x))
    net, x = Scaled(), numpy.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    for _ in range(2):
        assert_same(f(net, x), net(x), tolerance=rounding(10, "float32"))
    change(net)
    for _ in range(2):
        assert_same(f(net, x), net(x), tolerance=rounding(10, "float32"))


@pytest.mark.parametrize(
    "others",
    [
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2}, {"a": 1.0, "c": 2.0}, {"a": 1.0}),
        ([1, 2], (1, 2), [1, 2, 3]),
        (None, 0, False, 0.0, -0.0),
        ({1, 2}, {1, 3}),
        ("mean", "sum", b"mean"),
        (OrderedDict(a=1), OrderedDict(a=2), {"a": 1}),
        (numpy.float32(1), numpy.ones(1, "float32"), numpy.ones((), "float64"), 1.0),
    ],
)
def test_other_settings(device, others):
    seen = []

    def f(x, setting):
        seen.append(setting)
        return x + 1

    recorded = xpnet.jit(f)
    for _ in range(2):
        for other in others:
            recorded(xpnet.asarray(numpy.ones(3), device=device), other)
    assert len(seen) == len(others)


def test_settings_that_change_themselves():
    setting, seen = {1, 2}, []

    def f(x, setting):
        seen.append(set(setting))
        return x + len(setting)

    recorded = xpnet.jit(f)
    for number in (3, 3, 4):
        setting.add(number)
        assert_same(recorded(numpy.ones(2), setting), numpy.ones(2) + len(setting))
    assert seen == [{1, 2, 3}, {1, 2, 3, 4}]


def test_another_device():
    f = xpnet.jit(lambda x: x + xpnet.array_namespace(x).ones(2, device=x.device))
    for _ in range(2):
        for spec in ("strict", "strict:device1", "cpu"):
            x = xpnet.asarray(numpy.zeros(2), device=spec)
            assert_same(f(x), x + 1)


def test_positions_and_names_of_arguments():
    f = xpnet.jit(lambda x, y=1.0, *, z=0.0: x * y + z)
    x = numpy.arange(3.0)
    for _ in range(2):
        assert_same(f(x), x)
        assert_same(f(x, 2.0), x * 2)
        assert_same(f(x, y=3.0), x * 3)
        assert_same(f(x, z=x), x * 2)
        assert_same(f(x=x, z=1.0), x + 1)


def test_the_matcher_finds_the_leaves_of_the_tree():
    net = Scaled()
    values = ((net, {"z": numpy.ones(2), "a": [numpy.float32(1), None, "text"]}), {"y": (1, numpy.zeros(0))})
    match = matcher(Facts(values))
    expected = [x for x in tree.leaves(values, state=True) if tree.is_array(x)]
    found, _, _ = match(values)
    assert all(a is b for a, b in zip(found, expected, strict=True))
    assert match(((net,), {})) is None


def test_a_class_of_arrays_is_not_taken_for_numpys_numbers():
    class Marked(numpy.ndarray):
        pass

    f = xpnet.jit(lambda x: x + 1)
    for shape in ((), (2,)):
        x = numpy.zeros(shape)
        for value in (x, x.view(Marked), x, x.view(Marked)):
            assert type(f(value)) is type(value + 1)


@pytest.mark.parametrize("dtype", ["float32", "longlong"])
def test_numbers_and_arrays_without_axes_stand_for_each_other(dtype):
    seen = []

    def f(x):
        seen.append(x.dtype)
        return x * 2

    recorded = xpnet.jit(f)
    x = numpy.asarray(3, dtype)
    for value in (x, x[()], x.copy(), x.astype("float64"), x.astype("float64")[()], x[None]):
        assert_same(recorded(value), value * 2)
    assert len(seen) == 3


def test_equal_dtypes_of_several_objects():
    seen = []

    def f(x):
        seen.append(x)
        return x + 1

    recorded = xpnet.jit(f)
    x = numpy.zeros(2, "float32")
    for value in (x, pickle.loads(pickle.dumps(x)), x.view(numpy.dtype("float32", metadata={"unit": "m"}))):
        assert_same(recorded(value), value + 1)
    assert len(seen) == 1


def test_what_is_no_list_or_tuple_is_not_taken_apart():
    f = xpnet.jit(lambda x, y: x + y[0])
    x = numpy.ones(2)
    f(x, [x])
    y = iter([x, x])
    with pytest.raises(TypeError, match="not subscriptable"):
        f(x, y)
    assert len([*y]) == 2


def test_a_class_that_lets_nobody_set_attributes():
    class Fixed(nn.Dense):
        pass

    def refuse(net, name, _value):
        raise AttributeError(f"{name} of a {type(net).__name__} is set once")

    net = Fixed(2, 3, seed=0)
    Fixed.__setattr__ = refuse
    f = xpnet.jit(lambda net: tree.map(lambda x: x + 1, net))
    expected = tree.map(lambda x: x + 1, net)
    for _ in range(2):
        result = f(net)
        assert type(result) is Fixed
        assert [*vars(result)] == [*vars(expected)]
        assert_same(result.weight, expected.weight)
