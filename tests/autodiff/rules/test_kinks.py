import math

import pytest
from helpers import assert_same

import xpnet
from autodiff.cases import Case, array, complexes, named
from xpnet.autodiff.rules.kinks import nan_where, subgradient

CASES = {
    "subgradient": [
        Case(lambda xp, g, slope, at: subgradient(xp, g, slope, lambda: at), (2, 3), (3,), (2, 1)),
        Case(lambda xp, g, slope, at: subgradient(xp, g, slope, lambda: at, corner=True), (3,), (3,), (3,)),
        Case(lambda xp, g, slope, at: subgradient(xp, g, slope, lambda: at), complexes(3), (3,), (3,)),
    ],
    "nan_where": [Case(lambda xp, x: nan_where(xp, x == 0, x), draw) for draw in ((2, 3), complexes(3))],
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


def size(x, corner=True):
    """The absolute value, whose slope at 0 is chosen to be 0."""

    @xpnet.custom_gradient
    def chosen(x):
        xp = xpnet.array_namespace(x)
        return xp.abs(x), lambda g: subgradient(xp, g, xp.sign(x), lambda: x, corner=corner)

    return chosen(x)


def total(x):
    return xpnet.array_namespace(x).sum(x)


def test_what_is_smooth_as_a_whole_has_no_second_derivative_at_a_corner(xp):
    x = array([0.0, 1.0, -2.0])
    assert_same(xpnet.grad(lambda x: total(size(x) ** 2))(x), array([0.0, 2.0, -4.0]))
    expected = array([[math.nan, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    assert_same(xpnet.hessian(lambda x: total(size(x) ** 2))(x), expected)


def test_a_corner_that_stays_one_has_the_second_derivative_0(xp):
    x = array([0.0, 1.0])
    assert_same(xpnet.hessian(lambda x: total(size(x)))(x), array([[0.0, 0.0], [0.0, 0.0]]))


def test_a_tip_has_an_infinite_second_derivative(xp):
    x = array([0.0, 1.0])
    expected = array([[math.nan, 0.0], [0.0, 0.0]])
    assert_same(xpnet.hessian(lambda x: total(size(x, corner=False)))(x), expected)


def test_what_does_not_count_may_have_kinks(xp):
    """A penalty on gradients, with units that are off: they have kinks, and gradients of 0."""
    x = array([-1.0, 2.0])

    def penalty(x):
        gradient = xpnet.grad(lambda x: total(size(xpnet.array_namespace(x).maximum(x, 0)) ** 2))(x)
        return total(gradient**2)

    assert_same(xpnet.grad(penalty)(x), array([0.0, 16.0]))
