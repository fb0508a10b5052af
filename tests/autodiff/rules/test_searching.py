import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, named

# Nothing is there twice: finite differences would move it apart.
DIFFERENT = [(4,), (2, 3), lambda random: numpy.asarray(3.0)]


def unique_all(xp, x):
    """As the function of the standard, which PyTorch has for traced arrays only."""
    if hasattr(xp, "plain"):
        return xp.unique_all(x)
    return [xp.unique_values(x), xp.unique_counts(x).counts]


def ordered(xp, found):
    """The standard leaves the order of the values open."""
    return xp.sort(found[0]) * xp.astype(found[-1], found[0].dtype)


CASES = {
    "sort": [
        Case(lambda xp, x: xp.sort(x), (4,)),
        Case(lambda xp, x: xp.sort(x, axis=0), (3, 2)),
        Case(lambda xp, x: xp.sort(x, axis=-2, descending=True), (2, 3, 2)),
        Case(lambda xp, x: xp.sort(x, stable=False), (4,)),
        Case(lambda xp, x: xp.sort(x), (2, 0)),
    ],
    "unique_all": [
        *(Case(lambda xp, x: ordered(xp, unique_all(xp, x)), draw) for draw in DIFFERENT),
        Case(lambda xp, x: unique_all(xp, x)[0], (0,)),
    ],
    "unique_counts": [Case(lambda xp, x: ordered(xp, xp.unique_counts(x)), draw) for draw in DIFFERENT],
    "unique_inverse": [Case(lambda xp, x: xp.unique_inverse(x).values ** 2, draw) for draw in DIFFERENT],
    "unique_values": [
        *(Case(lambda xp, x: xp.sort(xp.unique_values(x)) ** 2, draw) for draw in DIFFERENT),
    ],
}

# What has no gradient, but values.
CONSTANT = {
    "argmax": Case(lambda xp, x: xp.argmax(x, axis=-1), (2, 3)),
    "argmin": Case(lambda xp, x: xp.argmin(x, axis=0, keepdims=True), (2, 3)),
    "argsort": Case(lambda xp, x: xp.argsort(x, descending=True), (2, 3)),
    "nonzero": Case(lambda xp, x: list(xp.nonzero(x)), (2, 3)),
    "searchsorted": Case(lambda xp, x1, x2: xp.searchsorted(xp.sort(x1), x2, side="right"), (4,), (3,)),
    "searchsorted with sorter": Case(
        lambda xp, x1, x2: xp.searchsorted(x1, x2, sorter=xp.argsort(x1)), (4,), (3,)
    ),
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


@pytest.mark.parametrize("name", CONSTANT)
def test_results_without_a_gradient(name, xp):
    case = CONSTANT[name]
    arrays = case.arrays()
    result, pullback = xpnet.vjp(case, *arrays)
    expected = case(*arrays)
    if isinstance(expected, list):
        assert all(
            (a == b).all()
            for a, b in zip(map(xpnet.to_numpy, result), map(xpnet.to_numpy, expected), strict=True)
        )
    else:
        assert_same(result, expected)
    for g, x in zip(pullback(result), arrays, strict=True):
        assert_same(g, 0 * x)


def test_equal_elements_are_sorted_each_to_a_place_of_its_own(xp):
    x = array([2.0, 1.0, 2.0, 1.0])
    weights = array([1.0, 2.0, 3.0, 4.0])
    gradient = xpnet.grad(lambda x: x.__array_namespace__().sort(x) @ weights)(x)
    assert_same(gradient, numpy.asarray([3.0, 1.0, 4.0, 2.0]))


def test_what_is_there_several_times_gives_its_gradient_to_the_first(xp):
    x = array([[3.0, 1.0, 2.0], [1.0, 3.0, 3.0]])

    def f(x):
        xp = x.__array_namespace__()
        found = xp.unique_all(x)
        for integers in found[1:]:
            assert integers.node is None
        assert_same(xp.take(found.values, found.inverse_indices[0, :]).value, array([3.0, 1.0, 2.0]))
        assert_same(found.indices.value, [1, 2, 0])
        assert_same(found.counts.value, [2, 1, 3])
        return xp.sum(found.values**2)

    assert_same(xpnet.grad(f)(x), numpy.asarray([[6.0, 2.0, 4.0], [0.0, 0.0, 0.0]]))


def test_what_is_there_several_times_in_a_list():
    """NumPy's functions take lists, and code that is written with it passes them."""
    xp = xpnet.trace(numpy.asarray([1.0])).__array_namespace__()
    assert_same(xp.unique_values([2, 1, 2]).value, numpy.asarray([1, 2]))


@pytest.mark.parametrize("name", ["unique_all", "unique_counts", "unique_inverse"])
def test_each_nan_is_a_value_of_its_own(name, xp):
    x = array([1.0, numpy.nan, 1.0, numpy.nan])
    found = getattr(xpnet.trace(x).__array_namespace__(), name)(xpnet.trace(x))
    assert_same(found.values.value, [1.0, numpy.nan, numpy.nan])
    if name == "unique_inverse":
        assert_same(found.inverse_indices.value, [0, 1, 0, 2])
    else:
        assert_same(found.counts.value, [2, 1, 1])
