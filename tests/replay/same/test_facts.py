"""Whatever a recording took in besides arrays is compared: in each case, a changed one is recorded anew."""

import argparse
import collections
import copy
import enum
import functools
import os
import pickle
import re
import sys
import types
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import numpy
import pytest
from helpers import assert_same

import xpnet
from xpnet import nn
from xpnet.errors import NoGradientError, NotRecordableError
from xpnet.replay.same.data import data
from xpnet.replay.same.facts import key
from xpnet.replay.same.outside import refused


def ones(*shape):
    return xpnet.asarray(numpy.ones(shape), device=xpnet.device(), dtype="float32")


class Mode(enum.Enum):
    SMALL = 1
    LARGE = 2


@dataclass
class Inner:
    k: object = 1.0


@dataclass
class Settings:
    inner: Inner = field(default_factory=Inner)


class Plain:
    def __init__(self, k=1.0):
        self.k = k


class Slots:
    __slots__ = ("__hidden", "k")

    def __init__(self, k=1.0):
        self.k = k
        self.__hidden = None


class Covered:
    k = 1.0


class Cached:
    @functools.cached_property
    def k(self):
        return 1.0


def matched(value):
    match value:
        case Inner(k=k) | Plain(k=k):
            return k


class Whole(int):
    """A class of numbers, whose value is no attribute."""


class Texts(list):
    """A list that is no node of a tree."""


class Holder(nn.Module):
    """A layer that reads a setting in the way that a test says."""

    def __init__(self, setting, read):
        self.weight = ones(2)
        self.setting = setting
        self.read = read

    def __call__(self, x):
        return x * self.weight + self.read(self.setting)


def number(value):
    """Tell apart what Python calls equal."""
    return float(sum(map(ord, repr(value))))


def first(value):
    return number(next(iter(value)))


CHANGES = {
    # in place
    "list": ([1.0], lambda s: s.__setitem__(0, 3.0), lambda s: s[0]),
    "nested list": ([[1.0], 2], lambda s: s[0].append(3.0), lambda s: float(len(s[0]))),
    "dict": ({"a": 1.0}, lambda s: s.update(a=3.0), lambda s: s["a"]),
    "order of a dict": ({"a": 1, "b": 2}, lambda s: s.update(a=s.pop("a")), first),
    "keys of a dict": ({1: 1}, lambda s: s.update({True: s.pop(1)}), first),
    "ordered dict": (collections.OrderedDict(a=1, b=2), lambda s: s.move_to_end("a"), first),
    "defaultdict": (collections.defaultdict(int, a=1), lambda s: s.update(a=2), lambda s: float(s["a"])),
    "deque": (collections.deque([1, 2]), lambda s: s.rotate(), first),
    "set": ({1}, lambda s: s.add(5), lambda s: float(max(s))),
    "nested dataclass": (Settings(), lambda s: setattr(s.inner, "k", 3.0), lambda s: s.inner.k),
    "namespace": (SimpleNamespace(k=1.0), lambda s: setattr(s, "k", 3.0), lambda s: s.k),
    "plain object": (Plain(), lambda s: setattr(s, "k", 3.0), lambda s: s.k),
    "object in an object": (Plain(Plain()), lambda s: setattr(s.k, "k", 3.0), lambda s: s.k.k),
    "list in an object": (Plain([1.0]), lambda s: s.k.append(2.0), lambda s: float(len(s.k))),
    "slots": (Slots(), lambda s: setattr(s, "k", 3.0), lambda s: s.k),
    "attribute added": (Plain(), lambda s: setattr(s, "l", 3.0), lambda s: float(len(vars(s)))),
    "list of a class of its own": (Texts("a"), lambda s: s.append("b"), lambda s: float(len(s))),
    "keywords of a partial": (
        functools.partial(dict, a=1.0),
        lambda s: s.keywords.update(a=3.0),
        lambda s: s()["a"],
    ),
    "bytearray": (bytearray(b"a"), lambda s: s.append(1), lambda s: float(len(s))),
    # replaced by another one
    "minus zero": (0.0, -0.0, number),
    "zero and False": (0.0, False, number),
    "one and True": (1, True, number),
    "one and 1.0": (1, 1.0, number),
    "complex zeros": (complex(0.0, 0.0), complex(0.0, -0.0), number),
    "zeros in a tuple": ((0.0,), (-0.0,), number),
    "zeros in a frozenset": (frozenset([0]), frozenset([False]), number),
    "list and tuple": ([1], (1,), number),
    "text and bytes": ("a", b"a", number),
    "slices": (slice(0, 2), slice(0, 3), number),
    "ranges": (range(2), range(3), number),
    "enumeration": (Mode.SMALL, Mode.LARGE, number),
    "fractions": (Fraction(1, 2), Fraction(1, 3), number),
    "numbers of a class of their own": (Whole(2), Whole(3), float),
    "classes": (int, float, number),
    "functions": (len, max, number),
    "lambdas": (lambda: 1.0, lambda: 2.0, lambda s: s()),
    "None": (None, 0, number),
}


@pytest.mark.parametrize("change", CHANGES)
def test_settings_of_a_module(device, change):
    setting, new, read = CHANGES[change]
    setting = copy.deepcopy(setting)
    net, x = Holder(setting, read), ones(2)
    f = xpnet.jit(lambda net, x: net(x))
    assert_same(f(net, x), net(x))
    before = xpnet.to_numpy(net(x))
    if getattr(new, "__code__", None) and change != "lambdas":
        new(setting)
    else:
        net.setting = new
    assert_same(f(net, x), net(x))
    assert not numpy.array_equal(before, xpnet.to_numpy(net(x)))


@pytest.mark.parametrize("change", CHANGES)
def test_settings_that_are_equal_again_are_recorded_once(device, change):
    setting, _, _ = CHANGES[change]
    recorded = []

    def f(net, x):
        recorded.append(1)
        return x * net.weight

    jitted = xpnet.jit(f)
    for _ in range(3):
        jitted(Holder(copy.deepcopy(setting), number), ones(2))
    assert len(recorded) == 1


@pytest.mark.parametrize(
    "other",
    [[1.0], {"a": 1.0}, {1}, SimpleNamespace(k=1.0), Plain(), Slots()],
    ids=["list", "dict", "set", "namespace", "plain", "slots"],
)
def test_what_comes_back_belongs_to_the_call(device, other):
    """A module that is returned holds the settings of the one that was given, not of the one recorded."""
    f = xpnet.jit(lambda net, x: (net, Holder(other, number), x + 1))
    for _ in range(3):
        net = Holder(copy.deepcopy(other), number)
        back, outside, _ = f(net, ones(2))
        assert back.setting is net.setting
        assert outside.setting is other


def test_what_a_function_makes_is_made_anew(device):
    def f(net, x):
        net.made = SimpleNamespace(values=[1])
        return net, x

    recorded = xpnet.jit(f)
    for _ in range(3):
        net, _ = recorded(Holder(1, number), ones(2))
        assert net.made.values == [1]
        net.made.values.append(2)


# -- what functions read from outside ------------------------------------------------------------------------

factor = 1.0
table = {"factor": 1.0}
namespace = SimpleNamespace(factor=1.0, other=1.0)


def inner(x):
    return x * factor


def test_globals(device, monkeypatch):
    f, x = xpnet.jit(lambda x: inner(x) + table["factor"] + namespace.factor), ones(2)
    for change in (
        lambda: monkeypatch.setitem(globals(), "factor", 3.0),
        lambda: monkeypatch.setitem(table, "factor", 5.0),
        lambda: monkeypatch.setattr(namespace, "factor", 7.0),
        lambda: monkeypatch.setitem(globals(), "inner", lambda x: x * 100),
    ):
        before = xpnet.to_numpy(f(x))
        change()
        assert_same(f(x), inner(x) + table["factor"] + namespace.factor)
        assert not numpy.array_equal(f(x), before)


def test_cells_and_defaults(device):
    k, several = 1.0, [1.0]

    def nested(x, *, default=several):
        return x * k + default[0]

    f, x = xpnet.jit(lambda x: nested(x)), ones(2)
    assert_same(f(x), x * 2)
    k = 2.0
    assert_same(f(x), x * 3)
    several[0] = 2.0
    assert_same(f(x), x * 4)


def test_a_function_with_the_name_of_one_of_a_package(device, monkeypatch):
    @functools.wraps(numpy.sum)
    def wrapped(x):
        return x * factor

    monkeypatch.setitem(globals(), "factor", 2.0)
    f, x = xpnet.jit(lambda x: wrapped(x)), ones(2)
    assert_same(f(x), x * 2)
    monkeypatch.setitem(globals(), "factor", 3.0)
    assert_same(f(x), x * 3)


class Scaled(nn.Module):
    factor = 2.0

    def __init__(self):
        self.weight = ones(2)

    def scaled(self, x):
        return x * self.weight * self.factor

    def __call__(self, x):
        return self.scaled(x)


def test_attributes_and_methods_of_classes(device, monkeypatch):
    f, net, x = xpnet.jit(lambda net, x: net(x)), Scaled(), ones(2)
    assert_same(f(net, x), x * 2)
    monkeypatch.setattr(Scaled, "factor", 3.0)
    assert_same(f(net, x), x * 3)
    monkeypatch.setattr(Scaled, "scaled", lambda self, x: x * 5)
    assert_same(f(net, x), x * 5)
    monkeypatch.setattr(Scaled, "__call__", lambda self, x: x * 7)
    assert_same(f(net, x), x * 7)
    net.scaled = None
    assert_same(f(net, x), x * 7)


def test_what_python_notes_in_a_class_is_not_compared(device):
    class Counted(Scaled):
        def __call__(self, x):
            recorded.append(1)
            return super().__call__(x)

    recorded, x = [], ones(2)
    f, net = xpnet.jit(lambda net, x: net(x)), Counted()
    f(net, x)
    assert Counted.__annotations__ == {}
    f(net, x)
    f(copy.deepcopy(net), x)
    f(net, x)
    assert len(recorded) == 1


def view_of_a_dict():
    inside = {"a": 1.0}
    return types.MappingProxyType(inside), lambda _: inside.update(a=3.0)


def method_of_a_dict():
    inside = {"a": 1.0}
    return inside.get, lambda _: inside.update(a=3.0)


OUTSIDE = {
    "arguments of a program": (lambda: argparse.Namespace(k=1.0), "k", lambda o: o.k),
    "counter": (lambda: (collections.Counter(a=1), lambda o: o.update(a=2)), "", lambda o: o["a"]),
    "UserDict": (lambda: (collections.UserDict(a=1), lambda o: o.update(a=3)), "", lambda o: o["a"]),
    "ChainMap": (lambda: (collections.ChainMap({"a": 1}), lambda o: o.update(a=3)), "", lambda o: o["a"]),
    "bytearray": (lambda: (bytearray(b"a"), lambda o: o.append(1)), "", len),
    "view of a dict": (view_of_a_dict, "", lambda o: o["a"]),
    "method of a dict": (method_of_a_dict, "", lambda get: get("a")),
    "class pattern of a dataclass": (Inner, "k", lambda o: matched(o)),
    "class pattern of a plain object": (Plain, "k", lambda o: matched(o)),
    "getattr": (Plain, "k", lambda o: getattr(o, "".join(["k"]))),
    "what is there": (Plain, "more", lambda o: 1.0 + hasattr(o, "more")),
    "pattern": (lambda: Plain(re.compile("a")), re.compile("aaa"), lambda o: len(o.k.pattern)),
    "attribute of a class that is covered": (Covered, "k", lambda o: o.k),
    "property that is written over": (Cached, "k", lambda o: o.k),
}


@pytest.mark.parametrize(("make", "change", "read"), OUTSIDE.values(), ids=OUTSIDE)
def test_objects_from_outside(device, make, change, read):
    made, x = make(), ones(2)
    made, alter = made if isinstance(made, tuple) else (made, None)
    f, before = xpnet.jit(lambda x: x * float(read(made))), float(read(made))
    assert_same(f(x), x * before)
    if alter:
        alter(made)
    else:
        name, value = (change, 3.0) if isinstance(change, str) else ("k", change)
        setattr(made, name, value)
    assert_same(f(x), x * float(read(made)))
    assert float(read(made)) != before


@pytest.mark.parametrize("of", ["cell", "attribute", "item", "default"])
def test_numbers_of_numpy_from_outside(device, of):
    n, x = numpy.int64(2), ones(4)
    plain, items = Plain(n), {"n": n}
    readings = {
        "cell": lambda x: xpnet.array_namespace(x).reshape(x, (int(n), -1)),
        "attribute": lambda x: xpnet.array_namespace(x).reshape(x, (int(plain.k), -1)),
        "item": lambda x: xpnet.array_namespace(x).reshape(x, (int(items["n"]), -1)),
        "default": lambda x, n=n: xpnet.array_namespace(x).reshape(x, (int(n), -1)),
    }
    f = xpnet.jit(readings[of])
    assert f(x).shape == (2, 2)
    n = plain.k = items["n"] = numpy.int64(4)
    readings[of].__defaults__ = (n,) if of == "default" else None
    assert f(x).shape == (4, 1)


def test_modules_of_the_user(device, monkeypatch):
    settings = types.ModuleType("settings_of_the_user")
    settings.k, settings.inner = 1.0, types.ModuleType("settings_of_the_user.inner")
    settings.inner.k, plain = 1.0, Plain(settings)
    monkeypatch.setitem(sys.modules, "settings_of_the_user", settings)

    def imported(x):
        import settings_of_the_user

        return x * settings_of_the_user.k

    def imported_from(x):
        from settings_of_the_user import k

        return x * k

    x = ones(2)
    readings = [imported, imported_from, lambda x: x * settings.k, lambda x: x * plain.k.k]
    recorded = [*map(xpnet.jit, readings), xpnet.jit(lambda x: x * settings.inner.k)]
    for k in (1.0, 3.0):
        settings.k = settings.inner.k = k
        for f in recorded:
            assert_same(f(x), x * k)


class Trainer:
    rate = 1.0

    def __init__(self):
        self.factor, self.seen = 2.0, []

    def step(self, x):
        return x * self.factor * self.rate

    def train(self):
        self.seen.append(1)

    def update(self):
        self.seen.append(1)


def test_a_method_is_that_of_the_object_it_is_read_from(device):
    """The trainer's own `train` and `update` read what changes at each step, and are not called."""
    recorded = []

    class Own(Trainer):
        def __init__(self, optimizer):
            super().__init__()
            self.optimizer, self.function = optimizer, xpnet.jit(self.whole)

        def whole(self, net, state, x):
            recorded.append(1)
            net.train()
            gradient = xpnet.grad(lambda net: xpnet.losses.mse(net(x), x))(net)
            return self.optimizer.update(gradient, state, net)

    trainer, net = Own(xpnet.optim.SGD(0.1)), nn.Dense(2, 2, seed=0).train()
    state = trainer.optimizer.init(net)
    for _ in range(4):
        net, state = trainer.function(net, state, ones(3, 2))
        trainer.train()
        trainer.update()
    assert len(recorded) == 1


def test_a_network_that_is_an_argument_and_read_from_outside(device):
    net, x = Scaled(), ones(2)

    class Penalized(Trainer):
        def step(self, net, x):
            return net(x) + self.net.weight**2

    trainer = Penalized()
    trainer.net = net
    with pytest.raises(NotRecordableError, match=r"net\.weight of a Scaled from outside"):
        xpnet.jit(trainer.step)(net, x)
    with pytest.raises(NotRecordableError, match=r"net\.weight of a Scaled from outside"):
        xpnet.jit(lambda n, x: n(x) + net(x))(net, x)


def test_an_array_that_is_written_to_an_object_is_refused(device):
    class Stateful(Trainer):
        total = 0.0

        def step(self, x):
            self.total = self.total + x
            return x

    with pytest.raises(NotRecordableError, match=r"wrote one to total, .*Return it"):
        xpnet.jit(Stateful().step)(ones(2))


def test_a_number_that_the_function_changes_is_told(device, caplog):
    class Moments(Trainer):
        t = 0

        def step(self, x):
            self.t += 1
            return x / (1 - 0.9**self.t)

    moments = Moments()
    moments.t = 0
    f = xpnet.jit(moments.step)
    f(ones(2))
    f(ones(2))
    assert [record.message.count("reads t from outside, and changes it") for record in caplog.records] == [1]


def test_texts_in_arrays_are_settings(device):
    class Named(nn.Module):
        def __init__(self, names):
            self.weight, self.names = ones(2), numpy.asarray(names)

        def __call__(self, x):
            return x * self.weight * len(self.names) * (2 if self.names[0] == "a" else 1)

    f, x = xpnet.jit(lambda net, x: (net, net(x))), ones(2)
    for names in (["a", "b"], ["c", "b"], ["a"], ["a", "b"]):
        net, y = f(Named(names), x)
        assert_same(y, Named(names)(x))
        assert list(net.names) == names


def test_bound_methods(device):
    trainer, x = Trainer(), ones(2)
    f = xpnet.jit(trainer.step)
    assert_same(f(x), x * 2)
    trainer.factor = 3.0
    assert_same(f(x), x * 3)
    trainer.rate = 2.0  # in place of that of the class
    assert_same(f(x), x * 6)


READS = {
    "call": lambda net, x: net(x),
    "bound method": lambda net, x: net.scaled(x),
    "product": lambda net, x: x * net.weight,
    "plain arithmetic": lambda net, x: x + net.weight**2,
    "functions of the library": lambda net, x: x + xpnet.array_namespace(net.weight).sum(net.weight),
    "list": lambda net, x: x + net.more[0],
    "leaves": lambda net, x: x + sum(leaf * 1 for leaf in xpnet.tree.leaves(net)),
    "result": lambda net, x: (x, net.weight),
    "number": lambda net, x: x * float(net.weight[0]),
    "NumPy": lambda net, x: x * float(numpy.sum(net.weight)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_arrays_of_a_module_from_outside_are_refused(device, read):
    net, x = Scaled(), ones(2)
    net.more = [ones(2)]
    before = vars(net).copy()
    with pytest.raises(
        NotRecordableError, match=r"net\.(weight|more\.0) of a Scaled .*outside, at .*test_facts\.py:\d"
    ):
        xpnet.jit(lambda x: read(net, x))(x)
    assert vars(net) == before
    assert "__getattribute__" not in vars(xpnet.tree.Branch)


def test_a_module_from_outside_may_be_asked_for_shapes_and_settings(device):
    net, x = Scaled(), ones(2)
    f = xpnet.jit(lambda x: x * net.weight.shape[0] + (1 if net.training else 0))
    assert_same(f(x), x * 2 + 1)
    net.eval()
    assert_same(f(x), x * 2)


@pytest.mark.parametrize("f", [Scaled, lambda: Scaled().scaled, lambda: functools.partial(Scaled())])
def test_a_module_is_no_function_to_record(device, f):
    with pytest.raises(NotRecordableError, match=r"weight of a Scaled .*Pass the network as an argument"):
        xpnet.jit(f())(ones(2))


PENALTIES = {
    "attribute": lambda net: (net.weight * net.weight)[0],
    "square": lambda net: (net.weight**2)[0],
    "leaves": lambda net: xpnet.array_namespace(net.weight).sum(xpnet.tree.leaves(net)[0]),
}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_a_loss_that_reads_the_network_is_refused(device, penalty, jit):
    net, x = Scaled(), numpy.ones((4, 2), "float32")

    def loss(outputs, targets):
        return xpnet.losses.mse(outputs, targets) + penalty(net)

    options = {"optimizer": xpnet.optim.SGD(0.1), "progress": False, "jit": jit}
    with pytest.raises(
        NoGradientError, match=r"reads .*net\.weight of a Scaled, at .*test_facts.*weight_decay"
    ):
        xpnet.fit(net, x, x, loss=loss, **options)
    assert_same(net.weight, ones(2))
    weights = [net.weight]
    with pytest.raises(NoGradientError, match=r"reads .*weights"):
        xpnet.fit(net, x, x, loss=lambda y, t: xpnet.losses.mse(y, t) + weights[0][0], **options)
    xpnet.fit(net, x, x, loss=lambda y, t: xpnet.losses.mse(y, t) * net.weight.shape[0], **options)


def test_attributes_that_a_pattern_names(device):
    def f(x):
        match trainer:
            case Trainer(factor=2.0):
                return x
            case _:
                return x * 5

    trainer, x = Trainer(), ones(2)
    recorded = xpnet.jit(f)
    assert_same(recorded(x), x)
    trainer.factor = 3.0
    assert_same(recorded(x), x * 5)


def test_what_a_function_does_not_name_is_not_compared(device):
    trainer, x, recorded = Trainer(), ones(2), []

    class Counted(Trainer):
        def step(self, x):
            recorded.append(1)
            return super().step(x)

    trainer = Counted()
    f = xpnet.jit(trainer.step)
    for number in range(4):
        f(x)
        trainer.seen.append(number)
        trainer.epoch = number
    assert len(recorded) == 1


def test_what_a_function_writes_itself_is_not_compared(device):
    calls, count = [], 0

    def f(x):
        nonlocal count
        count += 1
        calls.append(count)
        return x + 1

    recorded = xpnet.jit(f)
    for _ in range(3):
        recorded(ones(2))
        recorded(ones(3))
        f(ones(2))
    assert len(calls) == 2 + 3


def test_lambda_layers(device):
    k = 1.0
    net = nn.Sequential(nn.Dense(2, 2, seed=0), nn.Lambda(lambda x: x * k))
    x = numpy.ones((3, 2), "float32")
    before = xpnet.to_numpy(xpnet.predict(net, x))
    k = 2.0
    assert_same(xpnet.predict(net, x), before * 2)


def test_the_dtype_that_a_library_makes_arrays_of(device):
    if device.library.spec != "torch":
        pytest.skip("the default dtype of this library is fixed")
    import torch

    def f(x):
        return x + xpnet.array_namespace(x).ones(2)

    recorded, x, before = xpnet.jit(f), ones(2), torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            assert_same(recorded(x), f(x))
    finally:
        torch.set_default_dtype(before)


# -- what cannot be compared ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [(n for n in range(3)), open, memoryview(b"a")], ids=["generator", "function", "memory"]
)
def test_what_cannot_be_compared_is_refused(device, value):
    f = xpnet.jit(lambda x, setting: x + 1)
    if value is open:
        f(ones(2), value)
        return
    with pytest.raises(
        NotRecordableError, match=rf"a {type(value).__name__} cannot be compared; .* argument 1"
    ):
        f(ones(2), value)


def test_a_setting_whose_comparison_gives_an_array():
    class Table(nn.Module):
        def __init__(self, columns):
            self.columns = columns

        def __call__(self, x):
            return x * float(len(self.columns))

    pandas = pytest.importorskip("pandas")
    f = xpnet.jit(lambda net, x: net(x))
    for names in (["a", "b"], ["a", "b"], ["a"]):
        net = Table(pandas.Index(names))
        assert_same(f(net, numpy.ones(2)), numpy.ones(2) * len(names))


def test_arrays_in_a_plain_object(device):
    """They are no part of the tree of arguments: those on the host are compared, others are refused."""
    f, x = xpnet.jit(lambda x, plain: x * plain.k), ones(2)
    assert_same(f(x, Plain(2.0)), x * 2)
    if device.spec != "cpu":
        with pytest.raises(NotRecordableError, match=r"received argument 1\.k of a Plain"):
            f(x, Plain(ones(2)))
        return
    plain = Plain(numpy.ones(2, "float32"))
    for _ in range(3):
        plain.k *= 2
        assert_same(f(x, plain), x * plain.k)


def test_data():
    assert data([1, {"a": (0.0, float("nan"))}]) == data([1, {"a": (0.0, float("nan"))}])
    assert len({data(value) for value in (0, 0.0, -0.0, False, None, "0", b"0", (0,), [0])}) == 9
    assert data({"a": 1, "b": 2}) != data({"b": 2, "a": 1})


def test_key_of_something_that_holds_itself():
    plain, around = Plain(), [1]
    around.append(around)
    plain.k = [plain, around]
    assert key(plain) == key(plain) != key(Plain())


# -- copies --------------------------------------------------------------------------------------------------


@xpnet.jit
def decorated(x):
    return x + 1


class WithFunction(nn.Module):
    def __init__(self):
        self.weight = ones(2)
        self.function = xpnet.jit(inner)

    def __call__(self, x):
        return self.function(x) * self.weight


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_recorded_functions(device, copied):
    assert copied(decorated) is decorated or copied is copy.deepcopy
    assert_same(copied(decorated)(ones(2)), ones(2) * 2)
    net = WithFunction()
    net(ones(2))
    assert_same(copied(net)(ones(2)), net(ones(2)))
    assert_same(xpnet.predict(copied(net), ones(3, 2)), net(ones(3, 2)))
    f = copied(xpnet.jit(inner, precision="tf32"))
    assert_same(f(ones(2)), ones(2))


# -- arrays at two places -----------------------------------------------------------------------------------


def written(x, y):
    x += 1
    x[0] = 5
    return x * 2 + y


def test_an_array_that_is_written_to_stands_at_one_place(device):
    f = xpnet.jit(written)
    if device.library.spec == "jax":
        pytest.skip("arrays of JAX are not written to")
    for _ in range(2):
        assert_same(f(ones(3), ones(3)), written(ones(3), ones(3)))
        x = ones(3)
        with pytest.raises(NotRecordableError, match=r"argument 0, which does"):
            f(x, x)
    whole = numpy.ones(6)
    with pytest.raises(NotRecordableError, match="share no memory"):
        f(whole[:3], whole[2:5])
    assert_same(f(whole[:3], whole[3:]), written(numpy.ones(3), numpy.ones(3)))


# -- networks in use -----------------------------------------------------------------------------------------


class Counted(nn.Module):
    """A network that counts how often Python goes through it."""

    def __init__(self, calls, seed=0):
        self.inner, self.calls = nn.Dense(2, 2, seed=seed), [calls]

    def __call__(self, x):
        COUNTS[self.calls[0]] = COUNTS.get(self.calls[0], 0) + 1
        return self.inner(x)


COUNTS = {}


class Branching(Counted):
    def __call__(self, x):
        y = super().__call__(x)
        return y if xpnet.array_namespace(y).sum(y) > 0 else -y


def test_a_network_that_cannot_be_recorded_leaves_others_alone(device, caplog):
    COUNTS.clear()
    x = numpy.ones((3, 2), "float32")
    for seed in range(3):
        xpnet.predict(Branching("branching", seed), x)
        xpnet.predict(Counted("straight", seed), x)
    assert COUNTS == {"branching": 4, "straight": 1}
    assert sum("Python branch" in record.message for record in caplog.records) == 1


def test_many_networks_keep_their_recordings(device):
    COUNTS.clear()
    x = numpy.ones((3, 2), "float32")
    for _ in range(3):
        for number in range(20):
            xpnet.predict(Counted(number), x)
    assert set(COUNTS.values()) == {1}


def test_steps_of_a_loss_go_on_recording_other_networks(device):
    COUNTS.clear()
    x = numpy.ones((8, 2), "float32")
    steps = xpnet.training.Steps(xpnet.losses.mse)
    options = {
        "loss": steps,
        "optimizer": xpnet.optim.SGD(0.1),
        "epochs": 3,
        "batch_size": 8,
        "progress": False,
    }
    for seed in range(3):
        xpnet.fit(Branching("branching", seed), x, x, **options)
        xpnet.fit(Counted("straight", seed), x, x, **options)
    assert COUNTS["straight"] == 1 + 1  # tried and recorded
    assert COUNTS["branching"] > 9


# -- functions among the arguments ---------------------------------------------------------------------------


def scaling(array):
    return lambda x: x * array


@pytest.mark.parametrize(
    "make",
    [
        scaling,
        lambda array: functools.partial(lambda a, x: x * a, array),
        lambda array: Bound(array).times,
        lambda array: nn.Lambda(scaling(array)),
    ],
    ids=["closure", "partial", "method", "layer"],
)
def test_another_function_brings_its_own_array(device, make):
    f, x = xpnet.jit(lambda function, x: function(x)), ones(2)
    for factor in (2, 3, 2):
        assert_same(f(make(ones(2) * factor), x), x * factor)


class Bound:
    def __init__(self, array):
        self.array = array

    def times(self, x):
        return x * self.array


def test_networks_with_functions_of_their_own(device):
    x = numpy.ones((3, 2), "float32")
    for factor in (2, 3, 2):
        net = nn.Sequential(nn.Dense(2, 2, seed=0), nn.Lambda(scaling(ones(2) * factor)))
        assert_same(xpnet.predict(net, x), net(xpnet.asarray(x, device=xpnet.device())))


class Dot(dict):
    __getattr__ = dict.__getitem__


def test_a_dict_whose_keys_are_attributes(device):
    settings, x = Dot(k=2.0), ones(2)
    f = xpnet.jit(lambda x: x * settings.k)
    assert_same(f(x), x * 2)
    settings["k"] = 3.0
    assert_same(f(x), x * 3)


@pytest.mark.parametrize(
    "make", [lambda n: [*range(n)], lambda n: {i: i for i in range(n)}, lambda n: {*range(n)}]
)
def test_long_containers_from_outside(device, make):
    long, x = make(1000), ones(2)
    f = xpnet.jit(lambda x: x * (sum(long) - len(long)))
    assert_same(f(x), x * (sum(long) - len(long)))
    if isinstance(long, set):
        long.add(-5)
    else:
        long[7] = True
        assert_same(f(x), x * (sum(long) - len(long)))
        long[7] = -5
    assert_same(f(x), x * (sum(long) - len(long)))


def test_a_class_in_a_result(device):
    recorded = []

    def f(x):
        recorded.append(1)
        return {"kind": Bound, "x": x, "mode": Mode.SMALL, "module": numpy}

    jitted = xpnet.jit(f)
    for _ in range(3):
        assert jitted(ones(2))["kind"] is Bound
    assert len(recorded) == 1


def test_what_is_nested_too_deeply_is_refused():
    deep = []
    for _ in range(3000):
        deep = [deep, SimpleNamespace(k=1)]
    with pytest.raises(NotRecordableError, match="nested more deeply"):
        xpnet.jit(lambda x: x * len(deep))(numpy.ones(2))


def test_sizes_in_full_and_texts(device):
    f = xpnet.jit(lambda x, n: xpnet.array_namespace(x).full((n,), 2.0) * int(n) + len(f"layer{n}"))
    for n in (2, 3, 12):
        expected = numpy.full(n, 2.0 * n + len(f"layer{n}"))
        assert numpy.array_equal(xpnet.to_numpy(f(ones(2), numpy.int64(n))), expected)


def test_what_has_no_signature_can_be_recorded():
    import operator

    assert_same(xpnet.jit(operator.methodcaller("__neg__"))(numpy.ones(2)), -numpy.ones(2))


def test_what_counts_the_objects_made_is_not_read_when_one_is_used(device):
    made, recorded = [], []

    class Numbered(Scaled):
        def __init__(self):
            made.append(len(made))
            super().__init__()

        def __call__(self, x):
            recorded.append(1)
            return super().__call__(x)

    f = xpnet.jit(lambda net, x: net(x))
    for _ in range(3):
        f(Numbered(), ones(2))
    assert len(recorded) == 1


class Centered(nn.Module):
    mean = None

    def __init__(self):
        self.weight = ones(2)

    def __call__(self, x):
        return (x - self.mean) * self.weight


def test_an_array_of_a_class_that_is_replaced(device, monkeypatch):
    x = numpy.ones((3, 2), "float32")
    for mean in (2, 3):
        monkeypatch.setattr(Centered, "mean", ones(2) * mean)
        assert_same(xpnet.predict(Centered(), x), numpy.full((3, 2), 1.0 - mean, "float32"))


def test_a_cell_that_is_assigned_to_later(device):
    def f(x):
        try:
            return x * late
        except NameError:
            return x

    recorded, x = xpnet.jit(f), ones(2)
    assert_same(recorded(x), x)
    late = 3.0
    assert_same(recorded(x), x * late)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process cannot be forked here")
@pytest.mark.filterwarnings("ignore")
def test_a_fork_while_something_is_recorded():
    with refused({0: "nothing"}):
        assert "__getattribute__" in vars(xpnet.tree.Branch)
        child = os.fork()
        if not child:
            os._exit("__getattribute__" in vars(xpnet.tree.Branch))
        assert os.waitpid(child, 0)[1] == 0
    assert "__getattribute__" not in vars(xpnet.tree.Branch)
