"""The functions of einops on traced and recorded arrays. Its `array_api` module needs nothing of xpnet."""

import importlib
import sys

import einops
import einops.array_api
import numpy
import pytest
from autodiff.cases import Case, as_list, complexes, named
from helpers import array, assert_same, rounding

import xpnet
import xpnet.einops
from xpnet import nn
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import NoGradientError


def einsum(pattern, *inputs):
    return Case(lambda xp, *arrays: einops.einsum(*arrays, pattern), *inputs)


CASES = {
    "rearrange": [
        Case(lambda xp, x: einops.rearrange(x, "a (b c) -> c b a", b=2), (2, 4)),
        Case(lambda xp, x, y: einops.rearrange([x, y], "n a -> a n"), (3,), (3,)),
        Case(lambda xp, x: einops.rearrange(x, "... a -> a ... 1"), (2, 3, 2)),
    ],
    **{
        f"reduce {how}": [
            Case(lambda xp, x, how=how: einops.reduce(x, "a (b c) -> c a", how, b=2), (2, 4)),
        ]
        for how in ("max", "mean", "min", "prod", "sum")
    },
    "reduce of complex": [Case(lambda xp, x: einops.reduce(x, "a b -> b", "sum"), complexes(2, 3))],
    "reduce by a function": [
        Case(lambda xp, x: einops.reduce(x, "a b -> a", lambda x, axes: xp.sum(x * x, axis=axes)), (2, 3)),
    ],
    "repeat": [
        Case(lambda xp, x: einops.repeat(x, "a b -> b (a r)", r=2), (2, 3)),
        Case(lambda xp, x: einops.repeat(x, "a -> r a s", r=2, s=3), (2,)),
    ],
    "pack": [Case(lambda xp, x, y: einops.pack([x, y], "a *")[0], (2, 3), (2,))],
    "unpack": [
        Case(lambda xp, x: einops.unpack(x, [(2,), (3,)], "a *"), (2, 5)),
        Case(lambda xp, x: einops.unpack(x, [(), (-1, 2)], "a *"), (2, 5)),
    ],
    "einsum": [
        einsum("i j, j k -> k i", (2, 3), (3, 2)),
        einsum("n i, n i -> n", (2, 3), (2, 3)),
        einsum("i, j -> j i", (2,), (3,)),
        einsum("i, i ->", (3,), (3,)),
        einsum("i j -> j i", (2, 3)),
        einsum("i j -> j", (2, 3)),
        einsum("i j ->", complexes(2, 3)),
        einsum(",i ->i", (), (3,)),
    ],
    "einsum of several": [
        einsum("i j, j k, k l -> i l", (2, 3), (3, 2), (2, 4)),
        einsum("b h q d, b h k d -> b h q k", (2, 1, 2, 3), (2, 1, 2, 3)),
        einsum("i, i, i -> i", (3,), (3,), (3,)),
        einsum("i j, k, i -> j", complexes(2, 3), (2,), (2,)),
        einsum("a b c, c b d, a g k -> a b k", (2, 1, 2), (2, 1, 3), (2, 2, 1)),
    ],
    "einsum of a diagonal": [
        einsum("i i ->", (3, 3)),
        einsum("i i -> i", complexes(3, 3)),
        einsum("i j i -> j", (2, 3, 2)),
        einsum("i i i -> i", (2, 2, 2)),
        einsum("i i j j, j -> i j", (2, 2, 3, 3), (3,)),
    ],
    "einsum of an ellipsis": [
        einsum("o i, ... i -> ... o", (2, 3), (2, 1, 3)),
        einsum("... i, ... i -> ...", (2, 1, 3), (4, 3)),
        einsum("... i, i ... -> i ...", (2, 2), (2,)),
        einsum("i ..., i -> i ...", (2,), (2,)),
        einsum("... -> ...", (2, 3)),
    ],
    "array_api.rearrange": [
        Case(lambda xp, x: einops.array_api.rearrange(x, "a (b c) -> c b a", b=2), (2, 4)),
    ],
    **{
        f"array_api.reduce {how}": [
            Case(lambda xp, x, how=how: einops.array_api.reduce(x, "a (b c) -> c a", how, b=2), (2, 4)),
        ]
        for how in ("max", "mean", "min", "prod", "sum")
    },
    "array_api.repeat": [Case(lambda xp, x: einops.array_api.repeat(x, "a b -> b (a r)", r=2), (2, 3))],
    "array_api.pack": [
        Case(lambda xp, x, y: einops.array_api.pack([x, y], "a *")[0], (2, 3), (2,)),
    ],
    "array_api.unpack": [
        Case(lambda xp, x: einops.array_api.unpack(x, [(2,), (3,)], "a *"), (2, 5)),
    ],
    "einsum of nothing": [einsum("i j, j k -> i k", (2, 0), (0, 3)), einsum("i j -> i", (2, 0))],
}


@pytest.mark.parametrize(**named(CASES))
def test_einops(case, xp):
    """Each call is compared with NumPy's, since einops refuses the plain arrays of some libraries."""

    def traced(*arrays):
        return case(*arrays) if isinstance(arrays[0], Tracer) else xpnet.vjp(case, *arrays)[0]

    arrays = case.arrays()
    expected = case(*(xpnet.to_numpy(x) for x in arrays))
    for one, plain in zip(as_list(traced(*arrays)), as_list(expected), strict=True):
        assert_same(one, plain)
    xpnet.check_gradients(traced, *arrays, order=2)


@pytest.mark.parametrize(**named({name: cases for name, cases in CASES.items() if "array_api" not in name}))
def test_einops_on_recorded_arrays(case, xp):
    arrays = case.arrays()
    expected, recorded = case(*(xpnet.to_numpy(x) for x in arrays)), xpnet.jit(case)
    for _ in range(2):
        for one, plain in zip(as_list(recorded(*arrays)), as_list(expected), strict=True):
            assert_same(one, array(plain), tolerance=rounding(100, str(plain.dtype)))


def test_shapes_are_parsed(xp):
    shapes = []

    def f(x):
        shapes.append(einops.parse_shape(x, "a _ b"))
        return x

    xpnet.vjp(f, array(numpy.ones((2, 3, 4))))
    assert shapes == [{"a": 2, "b": 4}]


def test_traced_and_plain_arrays_stand_beside_each_other(xp):
    x, y = array([1.0, 2.0]), array([3.0, 4.0])
    assert_same(xpnet.grad(lambda x: einops.einsum(x, y, "i, i ->"))(x), y)
    assert_same(xpnet.grad(lambda x: einops.einsum(xpnet.trace(y), x, "i, i ->"))(x), y)


@pytest.mark.parametrize(
    ("pattern", "shapes", "message"),
    [
        ("i j, j ->", [(2, 3), (2,)], r"one length, received 3 and 2.*\(2, 3\), \(2,\)"),
        ("i i -> i", [(2, 3)], "one length, received 2 and 3"),
        ("i, i ->", [(2,)], "each of the 2 inputs, received 1"),
        ("i ->", [(2, 3)], "has 2 axes, but 1 are named"),
        ("i j ->", [(2,)], "has 1 axes, but 2 are named"),
        ("... i -> i", [(2, 3)], r'"\.\.\." on the right side'),
    ],
)
def test_an_einsum_that_does_not_fit(pattern, shapes, message, xp):
    arrays = [array(numpy.ones(shape)) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        xpnet.vjp(lambda *arrays: einops.einsum(*arrays, pattern), *arrays)


class Rows(nn.Module):
    """A layer that einops computes."""

    def __init__(self):
        self.inner = nn.Dense(3, 2, seed=0)

    def __call__(self, x):
        rows = einops.rearrange(x, "n (a b) -> (n a) b", b=3)
        return einops.rearrange(self.inner(rows), "(n a) b -> n (a b)", a=2)


def test_a_network_of_einops_is_trained_and_predicts(device, xp):
    net, x = Rows(), array(numpy.ones((8, 6)), "float32")
    if device.library.spec != "strict":  # whose plain arrays einops refuses
        y = array(numpy.zeros((8, 4)), "float32")
        optimizer = xpnet.optim.SGD(0.1)
        xpnet.fit(net, x, y, loss=xpnet.losses.mse, optimizer=optimizer, epochs=2, progress=False)
    expected = xp.reshape(net.inner(xp.reshape(x, (16, 3))), (8, 4))
    assert_same(xpnet.predict(net, x), expected)


def test_plain_arrays_keep_the_backend_of_einops():
    result = einops.rearrange(numpy.ones((2, 3)), "a b -> b a")
    assert type(result) is numpy.ndarray


def test_a_gradient_is_not_lost_on_the_way_to_numpy(xp):
    x = array([1.0, 2.0])
    with pytest.raises(NoGradientError, match=r"numpy\.asarray needs a plain array"):
        xpnet.grad(lambda x: einops.asnumpy(x).sum())(x)
    assert_same(einops.asnumpy(xpnet.trace(x)), numpy.asarray([1.0, 2.0]))


def test_einops_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    monkeypatch.setitem(sys.modules, "einops._backends", None)
    monkeypatch.delitem(sys.modules, "xpnet.einops")
    with pytest.raises(ImportError, match=r"xpnet\.einops needs einops.*pip install einops"):
        importlib.import_module("xpnet.einops")
