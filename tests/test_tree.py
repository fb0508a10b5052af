"""Trees of arrays and modules: both views, paths, structure, and writing back."""

import collections
import copy
import pickle

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


def test_settings_have_to_agree_where_everything_is_asked_for():
    a, b = Dropout(0.25, seed=0), Dropout(0.5, seed=0)
    tree.map(lambda x, y: x, a, b)
    with pytest.raises(ValueError, match="Dropout"):
        tree.map(lambda x, y: x, a, b, state=True)
    assert tree.flatten(a)[1] == tree.flatten(b)[1]
    assert tree.flatten(a, state=True)[1] != tree.flatten(b, state=True)[1]
    assert tree.flatten(a, state=True)[1] == tree.flatten(Dropout(0.25, seed=1), state=True)[1]
    assert hash(tree.flatten(a, state=True)[1]) == hash(tree.flatten(Dropout(0.25, seed=1), state=True)[1])


def test_training_is_a_setting_and_true_at_first():
    fresh, switched = Dense(1, 1, seed=0), Dense(1, 1, seed=0).train()
    assert tree.flatten(fresh, state=True)[1] == tree.flatten(switched, state=True)[1]
    assert tree.flatten(fresh, state=True)[1] != tree.flatten(switched.eval(), state=True)[1]


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
