"""Trees of arrays and modules: both views, paths, structure, and writing back."""

import collections
import copy
import dataclasses
import pickle
import threading
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy
import pytest
from helpers import assert_same

import xpnet
from xpnet import backends, tree
from xpnet.nn import Dense, Dropout, Module, ReLU, Sequential

Pair = collections.namedtuple("Pair", "first second")


class Counter(Module):
    """State between parameters and settings, so that the order of the attributes matters."""

    state = ("count", "memory")

    def __init__(self, seed=0):
        self.scale = xpnet.asarray([2.0], dtype="float32")
        self.count = xpnet.asarray([0], dtype="int64")
        self.name = "counter"
        self.inner = Dense(2, 2, seed=seed)
        self.memory = xpnet.asarray([1.0, 1.0], dtype="float32")
        self.shift = xpnet.asarray([3.0], dtype="float32")

    def __call__(self, x):
        self.count = self.count + 1
        return self.inner(x) * self.scale + self.shift


class Nested(Module):
    """Modules and arrays in containers of every kind."""

    def __init__(self, seed=0):
        self.blocks = [Dense(2, 3, seed=seed), ReLU(), Dense(3, 2, bias=False, seed=seed + 1)]
        self.by_name = {"b": Dense(1, 1, seed=seed + 2), "a": Counter(seed + 3)}
        self.both = (Dropout(0.5, seed=seed + 4), [Dense(1, 2, seed=seed + 5)])
        self.pair = Pair(xpnet.asarray([1.0], dtype="float32"), Dense(1, 1, bias=False, seed=seed + 6))
        self.sizes = [1, 2, 3]
        self.empty = []
        self.rate = 0.25


PARAMETERS = [
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.2.weight",
    "by_name.a.scale",
    "by_name.a.inner.weight",
    "by_name.a.inner.bias",
    "by_name.a.shift",
    "by_name.b.weight",
    "by_name.b.bias",
    "both.1.0.weight",
    "both.1.0.bias",
    "pair.0",
    "pair.1.weight",
]
STATE = ["by_name.a.count", "by_name.a.memory", "both.0.random_state"]


@pytest.fixture
def net(device):
    return Nested()


def renewed(x):
    """The same values in another array."""
    return xpnet.asarray(xpnet.to_numpy(x).copy(), device=backends.device_of(x))


def everything(net):
    return dict(zip(tree.paths(net, state=True), tree.leaves(net, state=True), strict=True))


# -- reading ----------------------------------------------------------------------------------------------


def test_paths_of_both_views(net):
    assert tree.paths(net) == PARAMETERS
    assert sorted(tree.paths(net, state=True)) == sorted(PARAMETERS + STATE)


@pytest.mark.parametrize("state", [False, True])
def test_leaves_stand_at_their_paths(net, state):
    for path, leaf in zip(tree.paths(net, state=state), tree.leaves(net, state=state), strict=True):
        found = net
        for key in path.split("."):
            if isinstance(found, dict):
                found = found[key]
            elif key.isdigit():
                found = found[int(key)]
            else:
                found = getattr(found, key)
        assert found is leaf


@pytest.mark.parametrize("state", [False, True])
def test_flatten_and_unflatten_keep_everything(net, state):
    leaves, structure = tree.flatten(net, state=state)
    rebuilt = tree.unflatten(structure, leaves)
    assert rebuilt is not net
    assert type(rebuilt.both[0]) is Dropout
    assert rebuilt.both[0].rate == 0.5
    assert (rebuilt.sizes, rebuilt.empty, rebuilt.rate) == ([1, 2, 3], [], 0.25)
    assert rebuilt.blocks[2].bias is None
    assert type(rebuilt.pair) is Pair
    assert everything(rebuilt).keys() == everything(net).keys()
    assert all(everything(rebuilt)[path] is leaf for path, leaf in everything(net).items())


def test_rebuilt_module_keeps_the_order_of_its_attributes(net):
    names = list(vars(net.by_name["a"]))
    for state in (False, True):
        rebuilt = tree.map(lambda leaf: leaf, net, state=state)
        assert [name for name in vars(rebuilt.by_name["a"]) if name != "_children"] == names
        assert repr(rebuilt) == repr(net)
        assert tree.paths(rebuilt, state=not state) == tree.paths(net, state=not state)
        tree.map(lambda a, b: None, net, rebuilt, state=True)


def test_containers_that_are_no_modules(device):
    values = {"b": [xpnet.asarray([1.0]), None], "a": (xpnet.asarray([2.0]), {"c": xpnet.asarray([3.0])})}
    assert tree.paths(values) == ["a.0", "a.1.c", "b.0"]
    assert [float(x[0]) for x in tree.leaves(values)] == [2.0, 3.0, 1.0]
    assert tree.paths(xpnet.asarray([1.0])) == [""]


@pytest.mark.parametrize("empty", [None, [], {}, (), ReLU(), Sequential()])
def test_trees_without_leaves(empty):
    assert tree.leaves(empty) == []
    assert tree.leaves(empty, state=True) == []


def test_private_attributes_take_part(device):
    class Private(Module):
        def __init__(self):
            self._weight = xpnet.asarray([1.0])

    assert tree.paths(Private()) == ["_weight"]


def test_numbers_given_as_numpy_scalars_are_settings():
    layers = (Dropout(numpy.float64(0.5), seed=0), xpnet.nn.LeakyReLU(numpy.float32(0.25)))
    assert tree.leaves((*layers, xpnet.nn.ELU(numpy.float64(2.0)))) == []
    assert layers[1].negative_slope == 0.25


def test_branches_come_with_their_paths(net):
    named = dict(tree.named_branches(net))
    assert list(named) == [
        "",
        "blocks.0",
        "blocks.1",
        "blocks.2",
        "by_name.a",
        "by_name.a.inner",
        "by_name.b",
        "both.0",
        "both.1.0",
        "pair.1",
    ]
    assert named["by_name.a.inner"] is net.by_name["a"].inner
    assert tree.branches(net)[0] is net
    assert tree.branches(numpy.ones(2)) == []


# -- map --------------------------------------------------------------------------------------------------


def test_map_leaves_the_tree_as_it_was(net):
    before = everything(net)
    doubled = tree.map(lambda x: x * 2, net)
    assert all(everything(net)[path] is leaf for path, leaf in before.items())
    assert_same(doubled.blocks[0].weight, before["blocks.0.weight"] * 2)
    assert doubled.both[0].random_state is net.both[0].random_state


def test_map_over_everything_reaches_the_state(net):
    doubled = tree.map(lambda x: x * 2 if "float" in str(x.dtype) else x, net, state=True)
    assert_same(doubled.by_name["a"].memory, net.by_name["a"].memory * 2)


def test_map_of_two_trees(net):
    added = tree.map(lambda a, b: a + b, net, Nested(seed=5))
    assert_same(added.blocks[0].weight, net.blocks[0].weight + Nested(seed=5).blocks[0].weight)


@pytest.mark.parametrize("state", [False, True])
def test_map_to_other_leaves_and_back(net, state):
    shapes = tree.map(lambda x: tuple(x.shape), net, state=state)
    assert shapes.blocks[0].weight == (2, 3)
    wrapped = tree.map(lambda x: [x], net, state=state)  # a leaf that is a container itself
    assert wrapped.pair.first[0] is net.pair.first
    names = tree.map(lambda x: str(x.dtype), net, state=state)
    assert isinstance(names.by_name["b"].bias, str)
    assert tree.paths(names, state=state) == tree.paths(net, state=state)
    back = tree.map(lambda _, x: x, names, net, state=state)
    assert all(everything(back)[path] is leaf for path, leaf in everything(net).items())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: Dense(2, 3, seed=0), lambda: Dense(2, 3, bias=False, seed=0)),
        (lambda: Dense(2, 3, seed=0), lambda: ReLU()),
        (lambda: Sequential(ReLU()), lambda: Sequential(ReLU(), ReLU())),
        (lambda: {"a": 1.0}, lambda: {"b": 1.0}),
        (lambda: [1.0, 2.0], lambda: [1.0]),
        (lambda: [1.0, 2.0], lambda: (1.0, 2.0)),
    ],
)
def test_map_refuses_another_structure(first, second):
    with pytest.raises(ValueError, match=r"[Ee]xpected|mismatch"):
        tree.map(lambda a, b: a, first(), second())


def test_structures_are_classes_and_names_of_children(device):
    a, b = Dropout(0.25, seed=0), Dropout(0.5, seed=0).eval()
    for state in (False, True):
        assert tree.map(lambda x, y: y, a, b, state=state).rate == 0.25
        assert tree.flatten(a, state=state)[1] == tree.flatten(b, state=state)[1]
        assert hash(tree.flatten(a, state=state)[1]) == hash(tree.flatten(b, state=state)[1])
        assert tree.flatten(a, state=state)[1] != tree.flatten(ReLU(), state=state)[1]


# -- writing back -----------------------------------------------------------------------------------------


def test_assign_writes_arrays_into_the_same_modules(net):
    modules = tree.branches(net)
    by_name, pair = net.by_name, net.pair
    new = tree.map(renewed, net, state=True)
    tree.assign(new, net)
    assert all(a is b for a, b in zip(tree.branches(net), modules, strict=True))
    assert all(everything(net)[path] is leaf for path, leaf in everything(new).items())
    assert (type(net.by_name), type(net.pair), net.sizes) == (type(by_name), type(pair), [1, 2, 3])


def test_assign_keeps_the_classes_of_containers(device):
    class Ordered(Module):
        def __init__(self):
            self.parts = collections.OrderedDict(
                z=Dense(1, 1, seed=0), a=xpnet.asarray([1.0], dtype="float32")
            )

    net = Ordered()
    structure = tree.flatten(net, state=True)[1]
    tree.assign(tree.map(lambda x: x + x, net), net)
    assert tree.flatten(net, state=True)[1] == structure
    assert_same(net.parts["a"], xpnet.asarray([2.0], dtype="float32"))


def test_copy_state_writes_the_state_and_nothing_else(net):
    source = tree.map(renewed, net, state=True)
    before = everything(net)
    tree.copy_state(source, net)
    for path, leaf in everything(net).items():
        assert leaf is (everything(source)[path] if path in STATE else before[path])


def test_state_of_a_plain_module_stays_plain():
    module = Counter()
    for name in Counter.state:
        before = getattr(module, name)
        setattr(module, name, xpnet.trace(before))
        assert type(getattr(module, name)) is type(before)


@pytest.mark.parametrize(
    "hold",
    [lambda x: x, lambda x: {"a": [x, None]}, lambda x: Moments(x, "text")],
    ids=["array", "dict", "own"],
)
def test_state_is_plain_behind_a_transform(device, hold):
    class Remembers(Module):
        state = ("seen",)

        def __init__(self):
            self.seen = hold(floats(0, 0))
            self.weight = floats(1, 2)

        def __call__(self, x):
            (seen,) = [leaf for leaf in tree.leaves(self.seen) if tree.is_array(leaf)]
            self.seen = hold(seen + x * self.weight)
            return x * self.weight

    def loss(net, x):
        return xpnet.array_namespace(x).sum(net(x))

    net, x = Remembers(), floats(3, 4)
    recorded = xpnet.jit(xpnet.grad(loss))
    for number, call in enumerate((loss, xpnet.grad(loss), recorded, recorded)):
        call(net, x)
        assert type(net.seen) is type(hold(x))
        assert_same(tree.leaves(net.seen)[0], floats(3, 8) * (number + 1))
    given = [x]
    net.seen = given
    assert net.seen is given


def test_a_layer_at_two_places_is_refused():
    layer = Dense(2, 2, seed=0)
    with pytest.raises(ValueError, match=r"the same Dense at layers\.0 and layers\.2.*call it twice"):
        tree.check_unshared(Sequential(layer, ReLU(), layer))
    other = Dense(2, 2, seed=1)
    other.bias = layer.bias
    with pytest.raises(ValueError, match=r"the same ndarray at layers\.0\.bias and layers\.1\.bias"):
        tree.check_unshared(Sequential(layer, other))
    tree.check_unshared(Sequential(layer, ReLU(), Dense(2, 2, seed=1)))


@pytest.mark.parametrize("write", [tree.assign, tree.copy_state])
def test_writing_needs_the_same_modules(write):
    with pytest.raises(ValueError, match=r"zip|arity"):
        write(Sequential(Dense(1, 1, seed=0)), Sequential(Dense(1, 1, seed=0), ReLU()))


# -- dataclasses ------------------------------------------------------------------------------------------


T = TypeVar("T")


@dataclass
class Moments:
    mean: Any
    variance: Any


@dataclass(frozen=True)
class Frozen:
    mean: Any
    variance: Any


@dataclass(slots=True)
class Slots:
    mean: Any
    variance: Any


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    mean: Any
    variance: Any


@dataclass
class Parent:
    mean: Any


@dataclass
class Inherited(Parent):
    variance: Any


class Undecorated(Moments):
    """A class below a dataclass is one, too."""


@dataclass(slots=True)
class SlotsBelow(Parent):
    variance: Any


@dataclass
class Defaults:
    mean: Any
    variance: Any = None
    names: list = field(default_factory=lambda: ["a"])
    text: str = "b"


@dataclass
class NotInInit:
    mean: Any
    variance: Any = field(init=False)
    never: Any = field(init=False)
    count: int = field(init=False, default=3)


@dataclass
class Keywords:
    _: KW_ONLY
    mean: Any
    variance: Any


@dataclass
class OfType(Generic[T]):
    mean: T
    variance: T


@dataclass(frozen=True)
class Checked:
    """What is made from other arrays than those that it was given is made once."""

    mean: Any
    variance: Any

    def __post_init__(self):
        object.__setattr__(self, "mean", self.mean + 1)


@dataclass
class Others:
    """Attributes besides its fields, with and without arrays."""

    mean: Any

    def __post_init__(self):
        self.variance = self.mean * 2
        self.text = "a"

    @cached_property
    def size(self):
        return self.mean.shape[0]


def not_in_init(mean, variance):
    made = NotInInit(mean)
    made.variance = variance
    return made


def others(mean, variance):
    made = Others(mean)
    made.variance = variance
    assert made.size == 2
    return made


MADE = {
    "plain": Moments,
    "frozen": Frozen,
    "slots": Slots,
    "frozen slots": FrozenSlots,
    "inherited": Inherited,
    "undecorated": Undecorated,
    "slots below": SlotsBelow,
    "defaults": Defaults,
    "not in init": not_in_init,
    "keywords": lambda mean, variance: Keywords(mean=mean, variance=variance),
    "generic": OfType[Any],
    "checked": Checked,
    "others": others,
}


def floats(*values):
    return xpnet.asarray(list(values), dtype="float32")


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("state", [False, True])
def test_dataclasses_are_trees(device, make, state):
    value = {"a": [make(floats(1, 2), floats(3, 4))]}
    made = value["a"][0]
    leaves, structure = tree.flatten(value, state=state)
    paths = tree.paths(value, state=state)
    assert [path for path in paths if path.endswith(("mean", "variance"))] == ["a.0.mean", "a.0.variance"]
    assert leaves[paths.index("a.0.mean")] is made.mean
    rebuilt = tree.unflatten(structure, leaves)["a"][0]
    assert rebuilt is not made
    assert type(rebuilt) is type(made)
    for name in ("names", "text", "count", "size"):
        assert getattr(rebuilt, name, None) == getattr(made, name, None)
    assert rebuilt.mean is made.mean
    assert rebuilt.variance is made.variance
    assert not hasattr(rebuilt, "never")
    # To other leaves and back, though they are no arrays for a while.
    kinds = tree.map(lambda x: str(getattr(x, "dtype", "")), value, state=state)
    assert "float32" in kinds["a"][0].variance
    back = tree.map(lambda _, x: x, kinds, value, state=state)
    assert back["a"][0].variance is made.variance
    assert tree.flatten(back, state=state)[1] == structure
    with pytest.raises(ValueError, match=r"[Ee]xpected|mismatch"):
        tree.map(lambda a, b: a, value, {"a": [Pair(1.0, 2.0)]}, state=state)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_gradients_and_recordings_go_through_dataclasses(device, make):
    def f(value):
        mean, variance = value["a"].mean, value["a"].variance
        xp = xpnet.array_namespace(mean)
        return xp.sum(mean * mean * variance), {"result": make(mean * 2, variance)}

    made = make(floats(1, 2), floats(3, 4))
    # Others of its fields are no numbers, which have no gradient.
    value = {"a": made}
    arguments = [made.mean, made.variance]

    def of_arrays(mean, variance):
        return f({"a": Moments(mean, variance)})

    (_, auxiliary), gradients = xpnet.value_and_grad(of_arrays, (0, 1), has_aux=True)(*arguments)
    assert_same(gradients[0], 2 * made.mean * made.variance)
    expected = make(made.mean * 2, made.variance)
    assert_same(auxiliary["result"].mean, expected.mean)
    recorded = xpnet.jit(f)
    for _ in range(2):
        for result in (f(value), recorded(value)):
            assert_same(result[1]["result"].mean, expected.mean)
            assert_same(result[1]["result"].variance, made.variance)
            assert type(result[1]["result"]) is type(expected)


def test_a_gradient_is_a_dataclass_like_its_argument(device):
    def f(moments):
        return xpnet.array_namespace(moments.mean).sum(moments.mean * moments.variance.mean)

    moments = Frozen(floats(1, 2), Slots(floats(3, 4), 5.0))
    gradient = xpnet.grad(f)(moments)
    assert type(gradient) is Frozen
    assert type(gradient.variance) is Slots
    assert_same(gradient.mean, floats(3, 4))
    assert_same(gradient.variance.mean, floats(1, 2))
    with pytest.raises(TypeError, match=r"received str in argument 0 at variance"):
        xpnet.grad(f)(Frozen(floats(1, 2), "text"))


def test_dataclasses_without_arrays_are_leaves(device):
    @dataclass
    class Settings:
        rate: Any
        names: tuple = ("a", "b")

    settings, optimizer = Settings(0.5), xpnet.optim.Adam()
    tree.leaves(Settings(xpnet.optim.SGD(0.1)))
    assert tree.leaves([settings, optimizer]) == [settings, optimizer]
    assert not tree.is_child(settings)
    assert tree.is_child(Settings([{"a": floats(1)}]))
    assert tree.leaves(Settings([{"a": ReLU()}])) == ["a", "b"]
    tree.leaves([floats(1), Moments(optimizer, floats(1))])
    assert tree.leaves([optimizer]) == [optimizer]


def test_what_is_more_than_its_fields_is_no_tree(device):
    @dataclass
    class Items(dict):
        mean: Any

    @dataclass
    class Error(Exception):
        mean: Any

    for value in (Items(floats(1)), Error(floats(1))):
        assert tree.leaves([value])[0] is value
        assert not tree.is_child(value)


def test_classes_are_found_wherever_they_stand(device):
    def anew():
        return dataclasses.make_dataclass("Anew", ["value"])

    inner, outer, last = anew(), anew(), anew()
    value = (3, [{"a": outer(inner(floats(1)))}, collections.deque([last(collections.deque([floats(2)]))])])
    assert tree.paths(value) == ["0", "1.0.a.value.value", "1.1.0.value.0"]
    inner, outer = anew(), anew()
    mapped = tree.map(lambda x: x + 1, [inner((floats(1), None, outer([floats(2)])))])
    assert_same(mapped[0].value[2].value[0], floats(3))
    traced = anew()
    assert_same(xpnet.grad(lambda x: tree.leaves(traced(x))[0][0])(floats(2)), floats(1))


def test_two_threads_meet_a_class_at_once():
    for _ in range(20):
        made = dataclasses.make_dataclass("Made", ["value"])(numpy.ones(2))
        barrier, found = threading.Barrier(4), []

        def meet(made=made, barrier=barrier, found=found):
            barrier.wait()
            found.append(tree.leaves([made])[0] is made.value)

        threads = [threading.Thread(target=meet) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 4


def test_settings_may_go_in_a_circle(device):
    @dataclass
    class Link:
        other: Any = None

    link = Link()
    link.other = [link]

    class Linked(Module):
        def __init__(self):
            self.link = link
            self.weight = floats(1, 2)

    net = Linked()
    assert tree.paths(net, state=True) == ["weight"]
    assert tree.branches(net) == [net]


@dataclass(frozen=True)
class Parts:
    moments: Moments
    drop: Dropout
    inner: Counter


class WithParts(Module):
    """Modules in a dataclass in a module."""

    def __init__(self, seed=0):
        self.parts = Parts(Moments(floats(1, 2), floats(3, 4)), Dropout(0.5, seed=seed), Counter(seed))

    def __call__(self, x):
        parts = self.parts
        return parts.drop(parts.inner((x - parts.moments.mean) * parts.moments.variance))


ARRAYS_OF_PARTS = [
    "parts.moments.mean",
    "parts.moments.variance",
    "parts.inner.scale",
    "parts.inner.inner.weight",
    "parts.inner.inner.bias",
    "parts.inner.shift",
]


def test_a_dataclass_with_arrays_is_a_child_of_a_module(device):
    net = WithParts()
    net.optimizer = xpnet.optim.Adam()
    assert tree.paths(net) == ARRAYS_OF_PARTS
    named = [("", net), ("parts.drop", net.parts.drop), ("parts.inner", net.parts.inner)]
    named.append(("parts.inner.inner", net.parts.inner.inner))
    assert list(tree.named_branches(net)) == named
    assert tree.branches(net) == [branch for _, branch in named]
    assert not any(branch.training for branch in tree.branches(net.eval()))
    assert "moments: Moments(mean: float32 (2,), variance: float32 (2,))" in repr(net)
    assert net.summary((2,)).parameters == 2 + 2 + 1 + 4 + 2 + 1
    assert {row.layer: row.parameters for row in net.summary((2,)).rows}["WithParts"] == 2 + 2
    assert tree.map(lambda x: x, net, state=True).optimizer is net.optimizer


def test_state_of_modules_in_dataclasses_is_written_back(device):
    net, x = WithParts().train(), floats(1, 2)

    def loss(net, x):
        return xpnet.array_namespace(x).sum(net(x))

    recorded = xpnet.jit(loss)
    for number, call in enumerate((loss, xpnet.value_and_grad(loss), recorded, recorded)):
        before = net.parts.drop.random_state
        call(net, x)
        assert int(xpnet.to_numpy(net.parts.inner.count)[0]) == number + 1
        assert type(net.parts.inner.count) is type(before)
        assert not numpy.array_equal(xpnet.to_numpy(before), xpnet.to_numpy(net.parts.drop.random_state))
    assert tree.flatten(net, state=True)[1] == tree.flatten(WithParts(), state=True)[1]


def test_arrays_in_dataclasses_are_trained(device):
    net = WithParts().eval()
    before = {path: xpnet.to_numpy(x) for path, x in everything(net).items() if tree.is_array(x)}
    moments, branches = net.parts.moments, tree.branches(net)
    x = numpy.asarray([[1.0, 2.0], [3.0, 5.0]], dtype="float32")
    xpnet.fit(net, x, x, loss=xpnet.losses.mse, optimizer=xpnet.optim.SGD(0.01), epochs=2, progress=False)
    assert all(a is b for a, b in zip(tree.branches(net), branches, strict=True))
    assert type(net.parts) is Parts
    assert net.parts.moments is not moments
    for path in ARRAYS_OF_PARTS:
        assert not numpy.array_equal(xpnet.to_numpy(everything(net)[path]), before[path])
    assert xpnet.predict(net, x).shape == (2, 2)


def test_assign_goes_through_dataclasses(device):
    net = WithParts()
    modules = tree.branches(net)
    new = tree.map(lambda x: renewed(x) if tree.is_array(x) else x, net, state=True)
    tree.assign(new, net)
    assert all(a is b for a, b in zip(tree.branches(net), modules, strict=True))
    assert all(everything(net)[path] is leaf for path, leaf in everything(new).items())
    other = tree.map(lambda x: renewed(x) if tree.is_array(x) else x, net, state=True)
    tree.copy_state(other, net)
    assert net.parts.inner.count is other.parts.inner.count
    assert net.parts.moments.mean is not other.parts.moments.mean


def test_an_array_in_two_dataclasses_is_refused(device):
    x = floats(1)
    with pytest.raises(ValueError, match=r"at a\.mean and b\.0\.variance"):
        tree.check_unshared({"a": Moments(x, floats(1)), "b": [Moments(floats(1), x)]})


def test_dataclasses_move_to_other_devices(device):
    net = WithParts()
    host = xpnet.to_numpy(net)
    assert all(type(x) is numpy.ndarray for x in tree.leaves(host, state=True) if tree.is_array(x))
    assert type(host.parts.moments) is Moments
    back = xpnet.to_device(host, device)
    assert backends.device_of(back.parts.moments.mean) == device
    assert_same(back.parts.moments.mean, net.parts.moments.mean, tolerance=0)


def test_dataclasses_in_files(device, tmp_path):
    path, net, into = tmp_path / "net.safetensors", WithParts(), WithParts(seed=7)
    net.parts.moments.mean = floats(7, 8)
    xpnet.save(net, path)
    with pytest.raises(ValueError, match=r"WithParts, which is not one of xpnet\.nn.*into=net"):
        xpnet.load(path)
    xpnet.load(path, into=into)
    for name, leaf in everything(net).items():
        assert_same(everything(into)[name], leaf, tolerance=0)
    xpnet.save(net.parts, path)
    with pytest.raises(ValueError, match=r"has a dataclass .*Parts, and code is not read.*into=net"):
        xpnet.load(path)
    loaded = xpnet.load(path, into=WithParts(seed=7).parts)
    assert type(loaded) is Parts
    assert_same(loaded.moments.mean, floats(7, 8), tolerance=0)


# -- settings ---------------------------------------------------------------------------------------------


class Table:
    """As tables of other libraries are: `==` gives an array."""

    def __eq__(self, other):
        return numpy.asarray([True, False])

    __hash__ = object.__hash__


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}])
def test_settings_whose_equality_is_an_array(device, wrap):
    class Tabled(Module):
        def __init__(self, table):
            self.table = wrap(table)
            self.weight = floats(1, 2)

        def __call__(self, x):
            return x * self.weight

    table = Table()
    net = Tabled(table)
    assert tree.flatten(net, state=True)[1] == tree.flatten(Tabled(Table()), state=True)[1]
    tree.map(lambda a, b: a, net, Tabled(Table()), state=True)
    tree.assign(Tabled(Table()), net)
    assert_same(xpnet.grad(lambda net, x: net(x)[0])(net, floats(2, 0)).weight, floats(2, 0))


# -- modules as plain Python objects ----------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_copies_have_arrays_of_their_own(net, duplicate, rebuilt):
    net = tree.map(lambda x: x, net, state=True) if rebuilt else net
    twin = duplicate(net)
    assert tree.flatten(twin, state=True)[1] == tree.flatten(net, state=True)[1]
    assert repr(twin) == repr(net)
    for path, leaf in everything(net).items():
        assert everything(twin)[path] is not leaf
        assert_same(everything(twin)[path], leaf, tolerance=0)


def test_modules_compare_by_identity(net):
    assert net == net
    assert net != Nested()
    assert len({net, Nested()}) == 2


def test_a_class_of_arrays_is_no_array():
    assert tree.is_array(numpy.float32(1))
    assert not tree.is_array(numpy.float32)
    assert not tree.is_array(numpy.ndarray)


def test_branches_of_any_tree_come_in_the_order_of_their_paths():
    net = Sequential(Dense(2, 3), ReLU())
    for value in (net, {"b": net[0], "a": [1, (net[1],)]}, abs, 3, [], None):
        named = [branch for _, branch in tree.named_branches(value)]
        assert [id(x) for x in tree.branches(value)] == [id(x) for x in named]


def test_the_names_of_state_are_no_text():
    with pytest.raises(TypeError, match=r"received 'seen'. Try \('seen',\)"):

        class Counter(tree.Branch):
            state = "seen"
