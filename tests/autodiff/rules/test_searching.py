import numpy
import pytest
from helpers import assert_same

import xpnet
from autodiff.cases import Case, array, named

CASES = {
    "sort": [
        Case(lambda xp, x: xp.sort(x), (4,)),
        Case(lambda xp, x: xp.sort(x, axis=0), (3, 2)),
        Case(lambda xp, x: xp.sort(x, axis=-2, descending=True), (2, 3, 2)),
        Case(lambda xp, x: xp.sort(x, stable=False), (4,)),
        Case(lambda xp, x: xp.sort(x), (2, 0)),
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
