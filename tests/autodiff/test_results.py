"""What may leave a transform: trees of arrays, and nothing that hides a traced or recorded one."""

import collections
import functools
import itertools
import re
import types
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import assert_same

import xpnet
from xpnet import nn, tree
from xpnet.arrays import ArrayObject
from xpnet.errors import NotRecordableError


def floats(*values):
    return xpnet.asarray(list(values), dtype="float32")


def by_grad(make):
    def f(x):
        return xpnet.array_namespace(x).sum(x * x), make(x * 2)

    return xpnet.grad(f, has_aux=True)(floats(1, 2))[1]


def by_vjp(make):
    return xpnet.vjp(lambda x: make(x * 2), floats(1, 2))[0]


def by_jit(make):
    return xpnet.jit(lambda x: make(x * 2))(floats(1, 2))


def by_scan(make):
    rows = xpnet.asarray([[1.0, 2.0]], dtype="float32")
    return xpnet.scan(lambda total, x: (total + x, make(x * 2)), floats(1, 2), rows)[1]


def by_grad_in_jit(make):
    def f(x):
        return xpnet.array_namespace(x).sum(x * x), make(x * 2)

    return xpnet.jit(xpnet.grad(f, has_aux=True))(floats(1, 2))[1]


WAYS = [by_grad, by_vjp, by_jit, by_grad_in_jit]


class Plain:
    def __init__(self, value, name="a"):
        self.name, self.value = name, value

    def method(self):
        return self.value


class Slots:
    __slots__ = ("name", "never", "value")

    def __init__(self, value):
        self.name, self.value = "a", value


class Pair(tuple):
    """Like a namedtuple, and none."""


class Names(dict):
    pass


class Row(list):
    pass


@dataclass
class Found:
    value: Any
    more: Any = None


@dataclass
class Settings:
    """Never one with arrays, so that its class is no node of trees."""

    value: Any


class Holder(nn.Module):
    def __init__(self, setting):
        self.weight = xpnet.asarray([1.0], dtype="float32")
        self.setting = setting


def circle(x):
    first, second = Plain(None), Plain(x)
    first.value, second.name = second, first
    return first


HIDING = {
    "plain": (Plain, "Plain, which holds an array in its attribute value"),
    "slots": (Slots, "Slots, which holds an array in its attribute value"),
    "namespace": (lambda x: types.SimpleNamespace(a=1, mean=x), "SimpleNamespace, .* in its attribute mean"),
    "in a tree": (lambda x: [{"a": Plain(x)}, 1.0], r"Plain at 0\.a, which holds an array in its .* value"),
    "deeper": (lambda x: Plain({"a": [Slots(x)]}), "Plain, which holds an array in its attribute value"),
    "circle": (circle, "Plain, which holds an array in its attribute value"),
    "tuple": (lambda x: Pair([x, x]), "Pair, which holds an array"),
    "dict": (lambda x: Names(a=x), "Names, which holds an array"),
    "list": (lambda x: Row([x]), "Row, which holds an array"),
    "closure": (lambda x: lambda: x, r"function .*<lambda>, which holds an array"),
    "default": (lambda x: lambda y=x: y, "function .*<lambda>, which holds an array"),
    "partial": (lambda x: functools.partial(max, x), "partial, which holds an array"),
    "method of a list": (lambda x: [x].append, "builtin_function_or_method, which holds an array"),
    "method": (lambda x: Plain(x).method, "method, which holds an array in its attribute __self__"),
    "field": (lambda x: Found(Plain(x), x), r"Plain at value, which holds an array in its attribute value"),
    "field alone": (lambda x: Settings(Plain(x)), "Settings, which holds an array in its attribute value"),
    "setting": (lambda x: Holder(Plain(x)), "Plain at setting, which holds an array in its attribute value"),
    "settings": (lambda x: [Holder({"a": Slots(x)})], r"dict at 0\.setting, which holds an array"),
    "other attribute": (
        lambda x: vars(found := Found(x)).update(cache=Plain(x)) or found,
        "Plain at cache, which holds an array in its attribute value",
    ),
    "generator": (lambda x: (x * i for i in range(3)), "generator .*<genexpr>, which computes later"),
    "generator without": (lambda _: (i for i in range(3)), "generator .*, which computes later"),
    "map": (lambda x: {"a": map(abs, [x])}, "map at a, which computes later"),
    "iterator": (lambda x: [x, iter([x])], "list_iterator at 1, which computes later"),
}


@pytest.mark.parametrize("way", [*WAYS, by_scan])
@pytest.mark.parametrize(("make", "message"), HIDING.values(), ids=HIDING)
def test_what_hides_an_array_is_refused_by_name(device, way, make, message):
    error = NotRecordableError if way in (by_jit, by_scan) else TypeError
    with pytest.raises(error, match=f"received a ({message}).*dict, tuple or dataclass of arrays instead"):
        way(make)


async def later(x):
    return x


@pytest.mark.parametrize("way", WAYS)
def test_a_coroutine_is_refused(device, way):
    made = []

    def make(x):
        made.append(later(x))
        return made[-1]

    with pytest.raises(TypeError, match=r"received a coroutine, which computes later"):
        way(make)
    for coroutine in made:
        coroutine.close()


SHOWN = {
    "dataclass": lambda x: Found(x, {"a": [Found(x)]}),
    "dict": lambda x: {"b": x, "a": collections.OrderedDict(c=x)},
    "deque": lambda x: collections.deque([x, collections.defaultdict(list, a=x)]),
    "module": lambda x: setattr(holder := Holder("a"), "weight", x) or holder,
    "module with a dataclass": lambda x: Holder(Found(x, [x])),
    "module with a deque": lambda x: Holder(collections.deque([x])),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_trees_come_out_with_plain_arrays(device, way, make):
    made, expected = way(make), make(floats(1, 2) * 2)
    assert tree.paths(made) == tree.paths(expected)
    for found, leaf in zip(tree.leaves(made), tree.leaves(expected), strict=True):
        assert_same(found, leaf)
    assert tree.hidden_array(made, ArrayObject) is None


SETTINGS = {
    "plain": Plain("b"),
    "slots": Slots(3),
    "function": len,
    "lambda": lambda: floats,
    "optimizer": xpnet.optim.chain(xpnet.optim.clip_by_global_norm(1.0), xpnet.optim.Adam()),
    "class": Plain,
    "library": types,
    "set": {1, 2},
    "array": Plain([xpnet.to_numpy([1.0, 2.0])]),
    "jit": xpnet.jit(by_grad),
}


@pytest.mark.parametrize("way", [by_grad, by_jit])
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_other_objects_come_out_as_they_are(device, way, setting):
    assert way(lambda x: {"x": x, "setting": setting})["setting"] is setting
    counter = itertools.count()
    assert way(lambda x: [x, Holder((setting, counter))])[1].setting[0] is setting


SEEN = []


def test_what_a_function_finds_around_it_is_not_in_it(device):
    def remembering(x):
        SEEN[:] = [x]
        return {"x": x, "function": floats, "ring": circle(None)}

    assert by_grad(remembering)["function"] is floats
    assert by_jit(remembering)["function"] is floats
    SEEN.clear()


def test_large_objects_are_not_searched_to_the_end(device, monkeypatch):
    others = [Plain(i) for i in range(200)]
    deep = Plain(others, [[[xpnet.trace(floats(1))]]])
    assert "attribute name" in tree.hidden_array(deep, ArrayObject)
    monkeypatch.setattr(tree, "_LIMIT", 100)
    assert tree.hidden_array(deep, ArrayObject) is None
    others.clear()
    assert "attribute name" in tree.hidden_array(deep, ArrayObject)


@pytest.mark.parametrize("make", [Found, Plain, lambda x: (y for y in [x])])
def test_one_array_is_all_that_some_functions_may_return(device, make):
    name = type(make(1)).__name__
    with pytest.raises(TypeError, match=rf"must return one array, received {name}"):
        xpnet.grad(xpnet.checkpoint(lambda x: make(x * 2)))(floats(1)[0])
    with pytest.raises(TypeError, match=rf"must be one array, received {name}"):
        xpnet.custom_gradient(lambda x: (make(x), lambda g: g))(floats(1))
    with pytest.raises(
        TypeError, match=rf"backward must return an array, or None, for each argument, received {name}"
    ):
        xpnet.grad(xpnet.custom_gradient(lambda x: (x * 2, make)))(floats(1)[0])
    with pytest.raises(TypeError, match=rf"an array of shape \(\), received {name}"):
        xpnet.grad(lambda x: make(x * 2))(floats(1)[0])


def test_a_checkpoint_takes_dataclasses(device):
    def f(found):
        return xpnet.array_namespace(found.value).sum(found.value * found.more)

    found = Found(floats(1, 2), floats(3, 4))
    gradient = xpnet.grad(xpnet.checkpoint(f))(found)
    assert type(gradient) is Found
    assert_same(gradient.value, found.more)
    assert_same(gradient.more, found.value)


def test_a_scan_carries_dataclasses(device):
    def step(carried, x):
        return Found(carried.value * carried.more + x, carried.more / 2), Found(carried.value)

    def last(value):
        carried, results = xpnet.scan(
            step, Found(value, floats(1, 1)), xpnet.asarray([[1.0, 2.0]] * 2, dtype="float32")
        )
        assert type(carried) is type(results) is Found
        return xpnet.array_namespace(value).sum(carried.value), results.value

    gradient, values = xpnet.grad(last, has_aux=True)(floats(3, 4))
    assert_same(gradient, floats(0.5, 0.5))
    assert_same(values, [[3.0, 4.0], [4.0, 6.0]])


def test_derivatives_of_dataclasses(device):
    def f(found):
        return Found(found.value * found.more)

    found = Found(floats(1, 2), floats(3, 4))
    result, tangent = xpnet.jvp(f, (found,), (Found(floats(1, 0), floats(0, 1)),))
    assert_same(result.value, floats(3, 8))
    assert_same(tangent.value, floats(3, 2))
    _, pullback = xpnet.vjp(f, found)
    assert_same(pullback(Found(floats(1, 0)))[0].more, floats(1, 0))
    with pytest.raises(ValueError, match=re.escape("CustomTreeNode(Found[Found(value, more)]")):
        pullback([floats(1, 0)])
