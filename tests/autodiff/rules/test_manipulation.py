import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, complexes, named


def joined(name, *cases):
    return [
        Case(lambda xp, *arrays, options=options: getattr(xp, name)(list(arrays), **options), *shapes)
        for shapes, options in cases
    ]


def counts(xp, x, *items):
    return xp.asarray(items, dtype=xp.int64, device=x.device)


CASES = {
    "reshape": [
        Case(lambda xp, x: xp.reshape(x, (3, 2)), (2, 3)),
        Case(lambda xp, x: xp.reshape(x, (-1,)), (2, 3)),
        Case(lambda xp, x: xp.reshape(x, (1, 1)), ()),
        Case(lambda xp, x: xp.reshape(x, (0, 2)), (3, 0)),
        Case(lambda xp, x: xp.reshape(x, (2, 1), copy=True), complexes(2)),
    ],
    "squeeze": [
        Case(lambda xp, x: xp.squeeze(x, axis=0), (1, 3)),
        Case(lambda xp, x: xp.squeeze(x, axis=(-1, 0)), (1, 2, 1)),
        Case(lambda xp, x: xp.squeeze(x, axis=1), (0, 1)),
    ],
    "expand_dims": [
        Case(lambda xp, x: xp.expand_dims(x, axis=0), (2, 3)),
        Case(lambda xp, x: xp.expand_dims(x, -1), (2, 3)),
        Case(lambda xp, x: xp.expand_dims(x, axis=0), ()),
        Case(lambda xp, x: xp.expand_dims(x, axis=-2), (0,)),
    ],
    "permute_dims": [
        Case(lambda xp, x: xp.permute_dims(x, (2, 0, 1)), (2, 3, 4)),
        Case(lambda xp, x: xp.permute_dims(x, (1, 0)), (0, 3)),
        Case(lambda xp, x: xp.permute_dims(x, ()), ()),
    ],
    "matrix_transpose": [
        Case(lambda xp, x: xp.matrix_transpose(x), (2, 3)),
        Case(lambda xp, x: x.mT, (2, 3, 4)),
        Case(lambda xp, x: x.T, (2, 3)),
        Case(lambda xp, x: xp.linalg.matrix_transpose(x), (0, 3)),
    ],
    "moveaxis": [
        Case(lambda xp, x: xp.moveaxis(x, 0, -1), (2, 3, 4)),
        Case(lambda xp, x: xp.moveaxis(x, (0, -1), (1, 0)), (2, 3, 4)),
        Case(lambda xp, x: xp.moveaxis(x, 0, 1), (0, 3)),
    ],
    "flip": [
        Case(lambda xp, x: xp.flip(x), (2, 3)),
        Case(lambda xp, x: xp.flip(x, axis=-1), (2, 3)),
        Case(lambda xp, x: xp.flip(x, axis=(0, -1)), (2, 3, 2)),
        Case(lambda xp, x: xp.flip(x, axis=0), (0,)),
    ],
    "roll": [
        Case(lambda xp, x: xp.roll(x, 2), (2, 3)),
        Case(lambda xp, x: xp.roll(x, -1, axis=-1), (2, 3)),
        Case(lambda xp, x: xp.roll(x, (1, 2), axis=(0, -1)), (2, 4)),
        Case(lambda xp, x: xp.roll(x, 1, axis=0), (0, 2)),
    ],
    "tril": [
        Case(lambda xp, x: xp.tril(x), (3, 3)),
        Case(lambda xp, x: xp.tril(x, k=-1), (2, 3, 2)),
        Case(lambda xp, x: xp.tril(x), (0, 2)),
    ],
    "triu": [
        Case(lambda xp, x: xp.triu(x), (3, 3)),
        Case(lambda xp, x: xp.triu(x, k=1), (2, 3, 2)),
        Case(lambda xp, x: xp.triu(x), (0, 2)),
    ],
    "broadcast_to": [
        Case(lambda xp, x: xp.broadcast_to(x, (2, 3)), (3,)),
        Case(lambda xp, x: xp.broadcast_to(x, (2, 3, 4)), (2, 1, 1)),
        Case(lambda xp, x: xp.broadcast_to(x, (2, 2)), ()),
        Case(lambda xp, x: xp.broadcast_to(x, (0, 3)), (3,)),
        Case(lambda xp, x: xp.broadcast_to(x, (1, 3)), (3,)),
    ],
    "broadcast_arrays": [
        Case(lambda xp, *arrays: xp.broadcast_arrays(*arrays), (3,), (2, 1)),
        Case(lambda xp, *arrays: xp.broadcast_arrays(*arrays), (), (2, 1), (1, 3)),
        Case(lambda xp, *arrays: xp.broadcast_arrays(*arrays), (0, 1), (3,)),
        Case(lambda xp, x: xp.broadcast_arrays(x), (2,)),
    ],
    "meshgrid": [
        Case(lambda xp, *arrays: xp.meshgrid(*arrays), (2,), (3,)),
        Case(lambda xp, *arrays: xp.meshgrid(*arrays, indexing="ij"), (2,), (3,), (1,)),
        Case(lambda xp, *arrays: xp.meshgrid(*arrays), (2,), (3,), (4,)),
        Case(lambda xp, x: xp.meshgrid(x), (2,)),
        Case(lambda xp, *arrays: xp.meshgrid(*arrays), (0,), (2,)),
    ],
    "concat": joined(
        "concat",
        ([(2, 3), (1, 3)], {}),
        ([(2, 3), (2, 1), (2, 2)], {"axis": -1}),
        ([(2, 3), (2,)], {"axis": None}),
        ([(0, 3), (2, 3)], {"axis": 0}),
        ([(2,)], {}),
    ),
    "stack": joined(
        "stack",
        ([(2, 3), (2, 3)], {}),
        ([(2, 3), (2, 3), (2, 3)], {"axis": -1}),
        ([(), ()], {}),
        ([(0,), (0,)], {"axis": 1}),
    ),
    "unstack": [
        Case(lambda xp, x: xp.unstack(x), (3, 2)),
        Case(lambda xp, x: xp.unstack(x, axis=-1), (2, 3)),
        Case(lambda xp, x: xp.unstack(x)[1] * 2, (3, 2)),
        Case(lambda xp, x: [row * row for row in xp.unstack(x, axis=1)], (0, 2)),
    ],
    "tile": [
        Case(lambda xp, x: xp.tile(x, (2,)), (3,)),
        Case(lambda xp, x: xp.tile(x, (2, 3)), (2,)),
        Case(lambda xp, x: xp.tile(x, (3,)), (2, 2)),
        Case(lambda xp, x: xp.tile(x, (2, 1)), ()),
        Case(lambda xp, x: xp.tile(x, (2, 0)), (2, 3)),
    ],
    "repeat": [
        Case(lambda xp, x: xp.repeat(x, 2), (2, 3)),
        Case(lambda xp, x: xp.repeat(x, 3, axis=-1), (2, 3)),
        Case(lambda xp, x: xp.repeat(x, 2, axis=0), (2, 1, 2)),
        Case(lambda xp, x: xp.repeat(x, 0, axis=0), (2,)),
        Case(lambda xp, x: xp.repeat(x, counts(xp, x, 1, 0, 2)), (3,)),
        Case(lambda xp, x: xp.repeat(x, counts(xp, x, 3, 1), axis=-2), (2, 3)),
        Case(lambda xp, x: xp.repeat(x, counts(xp, x, 3, 1), axis=-1), (3, 2)),
    ],
    "diff": [
        Case(lambda xp, x: xp.diff(x), (2, 4)),
        Case(lambda xp, x: xp.diff(x, axis=0, n=2), (4, 2)),
        Case(lambda xp, x: xp.diff(x, n=0), (3,)),
        Case(lambda xp, x: xp.diff(x, n=0, prepend=x, append=x), (2, 3)),
        Case(lambda xp, x, a, b: xp.diff(x, prepend=a, append=b, axis=-1), (2, 2), (2, 1), (2, 2)),
    ],
    "astype": [
        Case(lambda xp, x: xp.astype(x, xp.float64) * x, (2,)),
        Case(lambda xp, x: xp.astype(x, xp.complex128), (2,)),
        Case(lambda xp, x: xp.astype(x, xp.float64, copy=False), ()),
    ],
    "to_device": [
        Case(lambda xp, x: xp.to_device(x, x.device) if hasattr(xp, "plain") else x, (2, 3)),
    ],
}
CASES["_astype"] = CASES["astype"]  # the composite is `astype`, the rule belongs to what it is made of


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


def test_a_gradient_has_the_dtype_of_its_argument(xp):
    x = array([1.0, 2.0], dtype="float32")

    def f(x):
        xp = x.__array_namespace__()
        wide = xp.astype(x, xp.float64)
        return xp.sum(wide * wide)

    value, gradient = xpnet.value_and_grad(f)(x)
    assert value.dtype == xp.float64
    assert gradient.dtype == xp.float32
    assert_same(gradient, numpy.asarray([2.0, 4.0], dtype="float32"))


def test_integers_have_no_gradient(xp):
    x = array([1.5, 2.5])

    def f(x):
        xp = x.__array_namespace__()
        return xp.sum(x * xp.astype(xp.astype(x, xp.int64), x.dtype))

    assert_same(xpnet.grad(f)(x), numpy.asarray([1.0, 2.0]))


def test_traced_functions_take_lists_as_shapes_and_axes(xp):
    x = xpnet.trace(array(numpy.ones((2, 3))))
    xp = x.__array_namespace__()
    assert xp.permute_dims(xp.reshape(x, [3, 2]), [1, 0]).shape == (2, 3)
    assert xp.broadcast_to(x, [2, 2, 3]).shape == (2, 2, 3)


def test_a_gradient_comes_back_from_another_device(device):
    if device.library.spec != "strict":
        pytest.skip("only array-api-strict has several devices on every machine")
    there = xpnet.device("strict:device2")
    x = array([1.0, 2.0])

    def f(x):
        y = x.to_device(there.native)
        assert y.device == there.native
        return y.__array_namespace__().sum(y * y)

    value, gradient = xpnet.value_and_grad(f)(x)
    assert value.device == there.native
    assert_same(gradient, 2 * x)


def test_meshgrid_refuses_another_indexing(xp):
    x = xpnet.trace(array(numpy.ones(2)))
    with pytest.raises(ValueError, match='"xy" or "ij"'):
        x.__array_namespace__().meshgrid(x, x, indexing="yx")


def test_a_difference_of_order_0_is_a_copy(xp):
    def f(x):
        xp = x.__array_namespace__()
        y = xp.diff(x, n=0)
        y += 1
        return xp.sum(x * y)

    x = array([1.0, 2.0])
    assert_same(xpnet.grad(f)(x), numpy.asarray([3.0, 5.0]))
