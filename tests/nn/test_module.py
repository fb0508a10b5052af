"""Modules of one's own: gradients, devices, files, switches and how they print."""

import numpy
import pytest
from helpers import array, assert_on, assert_same, draw, on

import xpnet
from xpnet.errors import NotRecordableError
from xpnet.nn import Dense, Dropout, Module, ReLU, Sequential

X = draw(4, 3)


# The ten lines that a layer of one's own takes.
class Residual(Module):
    state = ("calls",)

    def __init__(self, width, *, seed=None):
        self.inner = Dense(width, width, seed=seed, dtype="float64")
        self.scale = xpnet.asarray([0.5], dtype="float64")
        self.calls = xpnet.asarray([0], dtype="int64")

    def __call__(self, x):
        self.calls = self.calls + 1
        return x + self.scale * self.inner(x)


def loss(net, x):
    return xpnet.array_namespace(x).mean(net(x) ** 2)


def test_gradient_has_the_shape_of_the_module(device):
    net = Sequential(Residual(3, seed=0), ReLU(), Residual(3, seed=1))
    value, gradient = xpnet.value_and_grad(loss)(net, array(X))
    assert_on(value, device, "float64", ())
    assert type(gradient[0]) is Residual
    assert xpnet.tree.paths(gradient) == xpnet.tree.paths(net)
    for g, parameter in zip(xpnet.tree.leaves(gradient), xpnet.tree.leaves(net), strict=True):
        assert_on(g, device, "float64", tuple(parameter.shape))
    xpnet.check_gradients(lambda net, x: net(x), net, array(X), order=2)


def test_state_comes_back_from_transforms(device):
    net = Sequential(Residual(3, seed=0))
    for step in (1, 2, 3):
        xpnet.grad(loss)(net, array(X))
        assert_on(net[0].calls, device, "int64", (1,))
        assert xpnet.to_numpy(net[0].calls).tolist() == [step]


class Memory(Module):
    state = ("seen",)

    def __init__(self, seen):
        self.seen = seen


def test_state_that_is_a_tree_outlives_no_transform(device):
    x, memory = array(X), Memory([xpnet.asarray(0.0, device=device)])

    def remember(x):
        memory.seen = [x[0, 0], {"next": x[0, 1]}]
        return xpnet.array_namespace(x).sum(x)

    xpnet.grad(remember)(x)
    assert_on(memory.seen[0], device, "float64", ())
    assert_same(memory.seen[0], x[0, 0])
    assert_same(memory.seen[1]["next"], x[0, 1])


def test_state_of_a_module_that_is_no_argument_is_refused(device):
    x, inner = array(X), Memory(xpnet.asarray(0.0, device=device))
    others = [Memory(xpnet.asarray(0.0, device=device))]

    def through_a_closure(memory, x):
        memory.seen = inner.seen
        return x

    def through_an_argument_of_another(memory, x):
        memory.seen = xpnet.array_namespace(x).sum(x)
        others[0].seen = x[0, 0]
        return x

    for f in (through_a_closure, through_an_argument_of_another):
        with pytest.raises(NotRecordableError, match=r"of a Memory .*test_module\.py.* as an argument"):
            xpnet.jit(f)(Memory(xpnet.asarray(0.0, device=device)), x)
    for memory in (inner, *others):
        assert float(memory.seen) == 0


def test_descent_lowers_the_loss(device):
    net, x = Sequential(Residual(3, seed=0), Dense(3, 1, seed=1, dtype="float64")), array(X)
    losses = []
    for _ in range(5):
        value, gradient = xpnet.value_and_grad(loss)(net, x)
        net = xpnet.tree.map(lambda p, g: p - 0.05 * g, net, gradient)
        losses.append(float(value))
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5


def test_to_device(device):
    net = Residual(3, seed=0)
    moved = xpnet.to_device(net, "strict:device1")
    assert_on(moved(xpnet.to_device(array(X), "strict:device1")), xpnet.device("strict:device1"), "float64")
    assert_same(net(array(X)), xpnet.to_numpy(moved(on("strict:device1", X))))


def test_save_and_load(device, tmp_path):
    net, other = Residual(3, seed=0), Residual(3, seed=1)
    net(array(X))
    xpnet.save(net, tmp_path / "net.safetensors")
    assert xpnet.load(tmp_path / "net.safetensors", into=other) is other
    assert_same(other(array(X)), net(array(X)), tolerance=0)
    assert xpnet.to_numpy(other.calls).tolist() == [2]


# -- switches ---------------------------------------------------------------------------------------------


class Parts(Module):
    def __init__(self):
        self.listed = [Dropout(0.5, seed=0), (Dropout(0.5, seed=1),)]
        self.named = {"a": Sequential(Dropout(0.5, seed=2))}


def test_train_and_eval_reach_all_parts():
    net = Parts()
    dropouts = [module for module in xpnet.tree.branches(net) if type(module) is Dropout]
    assert len(dropouts) == 3
    assert all(module.training for module in xpnet.tree.branches(net))
    assert net.eval() is net
    assert not any(module.training for module in xpnet.tree.branches(net))
    assert net.train() is net
    assert all(module.training for module in xpnet.tree.branches(net))


def test_switch_is_seen_inside_transforms(device):
    net, x = Dropout(0.5, seed=0).eval(), array(X)
    assert_same(xpnet.value_and_grad(loss, argnums=1)(net, x)[0], xpnet.to_numpy(x**2).mean())


def test_module_needs_a_call():
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty needs a method __call__\(self, x\)"):
        Empty()(numpy.ones(2))


# -- repr -------------------------------------------------------------------------------------------------


class Shown(Module):
    def __init__(self):
        self.width = 3
        self.name = "block"
        self.function = numpy.tanh
        self.nothing = None
        self.weights = [xpnet.asarray([1.0]), xpnet.asarray([2.0, 3.0])]
        self.blocks = (Dense(1, 2, seed=0), ReLU())
        self.heads = {"a": Dense(2, 1, bias=False, seed=0)}
        self._secret = 1


def test_repr_of_nested_modules(device):
    expected = (
        "Shown(\n"
        "  width: 3,\n"
        "  name: 'block',\n"
        "  function: tanh,\n"
        "  weights: (0: float64 (1,), 1: float64 (2,)),\n"
        "  blocks: (\n"
        "    0: Dense(weight: float32 (1, 2), bias: float32 (2,)),\n"
        "    1: ReLU(),\n"
        "  ),\n"
        "  heads: (\n"
        "    a: Dense(weight: float32 (2, 1)),\n"
        "  ),\n"
        ")"
    )
    assert repr(Shown()) == expected
    assert repr(xpnet.tree.map(lambda x: x, Shown(), state=True).eval()) == expected


def test_repr_of_a_module_inside_grad(device):
    seen = []

    def loss(net):
        seen.append(repr(net))
        return net.bias[0]

    xpnet.grad(loss)(Dense(2, 1, seed=0))
    assert seen == ["Dense(weight: float32 (2, 1), bias: float32 (1,))"]
