import array_api_compat
import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, complexes, named
from xpnet.autodiff import extended_namespace


def index(xp, x, items):
    return xp.asarray(items, dtype=xp.int64, device=x.device)


def mask(xp, x, items):
    return xp.asarray(items, dtype=xp.bool, device=x.device)


def assigned(xp, x, key, values):
    """``x[key] = values`` on a copy. JAX's own arrays write it differently."""
    if array_api_compat.is_jax_array(x) and not hasattr(xp, "plain"):
        return x.at[key].set(values)
    x = xp.asarray(x, copy=True)
    x[key] = values
    return x


def scattered(xp, values, key, shape):
    """Traced values are added by `scatter_add`; for plain ones NumPy says what the result must be."""
    if hasattr(xp, "plain"):
        return xp.scatter_add(values, key, shape)
    result = numpy.zeros(shape, dtype=xpnet.to_numpy(values).dtype)
    numpy.add.at(result, xpnet.to_numpy(key), xpnet.to_numpy(values))
    return xpnet.asarray(result, device=xpnet.backends.device_of(values))


def windows(sizes, strides, dilations):
    options = {"sizes": sizes, "strides": strides, "dilations": dilations}
    return lambda _xp, x: extended_namespace(x).windows(x, **options) ** 2


def add_windows(shape, strides, dilations):
    options = {"shape": shape, "strides": strides, "dilations": dilations}
    return lambda _xp, w: extended_namespace(w).add_windows(w, **options) ** 2


def sparse_matmul(rows, columns, size):
    """A product of a sparse matrix that names one place twice, and some not at all."""

    def product(xp, values, w):
        places = index(xp, w, rows), index(xp, w, columns)
        return extended_namespace(values, w).sparse_matmul(values, *places, w, size=size) ** 2

    return product


CASES = {
    "getitem": [
        Case(lambda xp, x: x[1, ...], (3, 2)),
        Case(lambda xp, x: x[-1, 0], (3, 2)),
        Case(lambda xp, x: x[1:, ::2], (3, 4)),
        Case(lambda xp, x: x[..., 0], (2, 3)),
        Case(lambda xp, x: x[None, :, None, ...], (3,)),
        Case(lambda xp, x: x[()], ()),
        Case(lambda xp, x: x[...], ()),
        Case(lambda xp, x: x[1:1, ...], (3, 2)),
        Case(lambda xp, x: x[:, 0], (0, 2)),
        Case(lambda xp, x: x[index(xp, x, [0, 2, 0, -1]), index(xp, x, [1, 0, 1, 1])], (3, 2)),
        Case(lambda xp, x: x[index(xp, x, [[0], [1]]), index(xp, x, [1, 0, 0])], (2, 2)),
        Case(lambda xp, x: x[index(xp, x, [0, 0, 1])], (3,)),
        Case(lambda xp, x: x[index(xp, x, [[0, 0], [2, 0]])], (3,)),
        Case(lambda xp, x: x[index(xp, x, [])], (3,)),
        Case(lambda xp, x: x[index(xp, x, 2)], (3,)),
        Case(lambda xp, x: x[1:, :] * x[:-1, :], (3, 2)),
        Case(lambda xp, x: x[0, ...], complexes(2, 2)),
    ],
    "setitem": [
        Case(lambda xp, x, v: assigned(xp, x, (1, ...), v), (3, 2), (2,)),
        Case(lambda xp, x, v: assigned(xp, x, (slice(None), 0), v), (3, 2), ()),
        Case(lambda xp, x, v: assigned(xp, x, (slice(1, None), slice(None, None, 2)), v), (3, 4), (2, 1)),
        Case(lambda xp, x, v: assigned(xp, x, ..., v), (2, 3), (3,)),
        Case(lambda xp, x, v: assigned(xp, x, (), v), (), ()),
        Case(lambda xp, x, v: assigned(xp, x, (slice(1, 1), ...), v), (3, 2), (0, 2)),
        Case(lambda xp, x: assigned(xp, x, 0, 2.0) * x, (3,)),
        Case(lambda xp, x: assigned(xp, x, slice(1, None), x[:-1]), (4,)),
        Case(lambda xp, x, v: assigned(xp, x, 1, v), complexes(2), complexes()),
    ],
    "scatter_add": [
        Case(lambda xp, v: scattered(xp, v, index(xp, v, [0, 2, 0]), (3,)), (3,)),
        Case(lambda xp, v: scattered(xp, v, index(xp, v, [3, 3, 3, 0, 3]), (4,)), (5,)),
        Case(lambda xp, v: scattered(xp, v, index(xp, v, []), (4,)), (0,)),
        Case(lambda xp, v: scattered(xp, v, (slice(1, 3), ...), (3, 2)), (2,)),
        Case(lambda xp, v: scattered(xp, v, index(xp, v, [1, 1]), (3,)), complexes(2)),
    ],
    "windows": [
        Case(windows((2,), (1,), (1,)), (2, 4, 2)),
        Case(windows((2,), (2,), (2,)), (1, 7, 2)),
        Case(windows((2, 3), (1, 2), (2, 1)), (1, 4, 6, 2)),
        Case(windows((2,), (1,), (1,)), complexes(1, 3, 1)),
    ],
    "add_windows": [
        Case(add_windows((2, 4, 2), (1,), (1,)), (2, 3, 2, 2)),
        Case(add_windows((1, 7, 2), (2,), (2,)), (1, 3, 2, 2)),
        Case(add_windows((1, 4, 6, 2), (1, 2), (2, 1)), (1, 2, 2, 2, 3, 2)),
        Case(add_windows((1, 3, 1), (1,), (1,)), complexes(1, 2, 2, 1)),
    ],
    "take": [
        Case(lambda xp, x: xp.take(x, index(xp, x, [2, 0, 0])), (3,)),
        Case(lambda xp, x: xp.take(x, index(xp, x, [1, 1]), axis=0) ** 2, (2, 3)),
        Case(lambda xp, x: xp.take(x, index(xp, x, [2, 0, 0]), axis=1) ** 2, (2, 3)),
        Case(lambda xp, x: xp.take(x, index(xp, x, [2, 0, 0, 1]), axis=-1), (2, 3)),
        Case(lambda xp, x: xp.take(x, index(xp, x, [1, 0]), axis=1), (2, 3, 2)),
        Case(lambda xp, x: xp.take(x, index(xp, x, []), axis=0), (2, 3)),
        Case(lambda xp, x: xp.take(x, index(xp, x, [1, 0]), axis=1), (0, 2)),
        Case(lambda xp, x: xp.take(x, index(xp, x, [1, 1]), axis=0), complexes(2)),
    ],
    "take_along_axis": [
        Case(lambda xp, x: xp.take_along_axis(x, index(xp, x, [1, 1, 0])), (3,)),
        Case(lambda xp, x: xp.take_along_axis(x, index(xp, x, [[0, 0], [2, 1]]), axis=-1), (2, 3)),
        Case(lambda xp, x: xp.take_along_axis(x, index(xp, x, [[1, 0, 1]]), axis=0), (2, 3)),
        Case(lambda xp, x: xp.take_along_axis(x, xp.argsort(x, axis=-2), axis=-2), (2, 3, 2)),
    ],
    "sparse_matmul": [
        Case(sparse_matmul([0, 2, 2, 0], [1, 0, 2, 1], 4), (4,), (3, 2)),
        Case(sparse_matmul([1, 0], [0, 0], 2), (2,), (1, 3)),
        Case(sparse_matmul([1, 0, 1], [0, 1, 1], 2), complexes(3), complexes(2, 2)),
    ],
}

MASKS = {
    "getitem": [
        Case(lambda xp, x: x[mask(xp, x, [True, False, True])], (3,)),
        Case(lambda xp, x: x[mask(xp, x, [[True, False], [True, True]])], (2, 2)),
        Case(lambda xp, x: x[x > 0] ** 2, (6,)),
        Case(lambda xp, x: x[mask(xp, x, [True, False])], (2, 3)),
        Case(lambda xp, x: x[mask(xp, x, [False, False])], (2,)),
        Case(lambda xp, x: x[mask(xp, x, [])], (0,)),
        Case(lambda xp, x: x[mask(xp, x, numpy.zeros((0, 2)))], (0, 2)),
        Case(lambda xp, x: x[mask(xp, x, numpy.zeros((2, 0)))], (2, 0)),
        Case(lambda xp, x: x[mask(xp, x, True)] ** 2, (3,)),
        Case(lambda xp, x: x[mask(xp, x, False)], (3,)),
        Case(lambda xp, x: x[mask(xp, x, True)] ** 2, ()),
    ],
    "setitem": [
        Case(lambda xp, x, v: assigned(xp, x, mask(xp, x, [True, False, True]), v), (3,), ()),
        Case(lambda xp, x, v: assigned(xp, x, mask(xp, x, [[True, False], [True, True]]), v), (2, 2), ()),
        Case(lambda xp, x, v: assigned(xp, x, mask(xp, x, []), v), (0,), ()),
        Case(lambda xp, x, v: assigned(xp, x, mask(xp, x, numpy.zeros((0, 2))), v), (0, 2), ()),
        Case(lambda xp, x, v: assigned(xp, x, mask(xp, x, True), v), (3,), ()),
        Case(lambda xp, x, v: assigned(xp, x, mask(xp, x, False), v), (3,), ()),
    ],
    "scatter_add": [
        Case(lambda xp, v: scattered(xp, v, mask(xp, v, [True, False, True]), (3,)), (2,)),
        Case(lambda xp, v: scattered(xp, v, mask(xp, v, []), (0,)), (0,)),
    ],
}

REVERSED = Case(lambda xp, x: x[::-1, -1], (3, 4))


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


@pytest.mark.parametrize(**named(MASKS))
def test_masks(case, xp):
    case.check_values()
    case.check_gradients()


def test_negative_steps(device):
    if device.library.spec == "torch":
        pytest.skip("PyTorch has no negative steps")
    REVERSED.check_values()
    REVERSED.check_gradients()


@pytest.mark.parametrize("wrap", [lambda x: x, xpnet.trace], ids=["plain", "traced"])
def test_an_index_may_be_plain_or_traced(xp, wrap):
    x = array([1.0, 2.0, 3.0])
    key = wrap(array([2, 2, 0], "int64"))

    def f(x):
        xp = x.__array_namespace__()
        return xp.sum(x[key] ** 2) + xp.sum(xp.take(x, key)) + x[key[0]]

    assert_same(xpnet.grad(f)(x), numpy.asarray([3.0, 0.0, 15.0]))


def test_a_mask_may_be_plain_or_traced(xp):
    x = array([1.0, 2.0, 3.0])
    plain = x > 1.5
    expected = numpy.asarray([0.0, 1.0, 1.0])
    assert_same(xpnet.grad(lambda y: y.__array_namespace__().sum(y[plain]))(x), expected)
    assert_same(xpnet.grad(lambda y: y.__array_namespace__().sum(y[y > 1.5]))(x), expected)


def test_an_embedding_adds_the_gradients_of_a_row_that_is_used_often(xp):
    table = array(numpy.zeros((5, 3)))
    rows = numpy.asarray([4, 1, 4, 4, 0])
    weights = numpy.arange(15.0).reshape(5, 3)
    keys, factors = array(rows, "int64"), array(weights)

    def f(table):
        xp = table.__array_namespace__()
        return xp.sum(xp.take(table, keys, axis=0) * factors)

    expected = numpy.zeros((5, 3))
    numpy.add.at(expected, rows, weights)
    assert_same(xpnet.grad(f)(table), expected)


@pytest.mark.parametrize("large", [1e20, float("inf"), float("nan")])
def test_large_gradients_do_not_blur_small_ones(large, xp):
    x = array(numpy.zeros(3))
    keys = array([2, 0, 1, 0, 1], "int64")
    factors = array([1.0, large, 3.0, 1.0, 2.0])
    _, pullback = xpnet.vjp(lambda x: x[keys], x)
    assert_same(pullback(factors)[0], array([large + 1.0, 5.0, 1.0]))


def test_single_precision_is_kept(xp):
    x = array(numpy.zeros((4, 2)), dtype="float32")
    keys = array([3, 3, 1], "int64")
    gradient = xpnet.grad(
        lambda x: x.__array_namespace__().sum(x.__array_namespace__().take(x, keys, axis=0))
    )(x)
    assert gradient.dtype == xp.float32
    assert_same(gradient, numpy.asarray([[0, 0], [1, 1], [0, 0], [2, 2]], dtype="float32"))


def test_values_may_have_more_axes_of_length_1_than_their_place():
    x = numpy.zeros((2, 3))

    def f(v):
        y = v.__array_namespace__().asarray(x)
        y[0] = v
        return y.__array_namespace__().sum(y * y)

    v = numpy.asarray([[1.0, 2.0, 3.0]])
    assert_same(xpnet.grad(f)(v), 2 * v)
