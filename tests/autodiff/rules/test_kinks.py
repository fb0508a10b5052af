import math

import numpy
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


# -- norms --------------------------------------------------------------------------------------------------


def norm(x, ord=2):
    return xpnet.array_namespace(x).linalg.vector_norm(x, ord=ord)


@pytest.mark.parametrize("ord", [1.5, 2, 3, -1])
def test_a_norm_has_no_second_derivatives_at_its_tip(ord, xp):
    x, nan = array([0.0, 0.0]), array([[math.nan, math.nan], [math.nan, math.nan]])
    assert_same(xpnet.hessian(lambda x: norm(x, ord))(x), nan)
    assert_same(xpnet.hessian(lambda x: norm(x, ord) ** 2)(x), nan)
    direction = array([1.0, 1.0])
    forward = xpnet.grad(lambda x: xpnet.jvp(lambda x: norm(x, ord) ** 2, (x,), (direction,))[1])
    assert_same(forward(x), nan[0, :])


def test_a_norm_of_complex_zeros_has_no_second_derivatives(xp):
    x = array([0j, 0j])
    product = xpnet.hvp(lambda x: norm(x) ** 2, (x,), (x + 1,))[0]
    assert_same(product, array([complex(math.nan, math.nan)] * 2))


def test_the_direction_of_a_norm_is_curved_where_an_element_is_0(xp):
    x = array([0.0, 1.0])
    assert_same(xpnet.hessian(lambda x: (norm(x) - 1) ** 2)(x), array([[0.0, 0.0], [0.0, 2.0]]))
    assert_same(xpnet.hessian(norm)(x), array([[1.0, 0.0], [0.0, 0.0]]))
    assert_same(xpnet.hessian(lambda x: norm(x, 3))(x), array([[0.0, 0.0], [0.0, 0.0]]))


def test_an_infinite_second_derivative_of_a_norm(xp):
    with numpy.errstate(all="ignore"):
        hessian = xpnet.hessian(lambda x: norm(x, 1.5))(array([0.0, 1.0]))
    assert bool(xp.isnan(hessian[0, 0]))


def test_each_norm_has_its_own_tip(xp):
    x = array([[0.0, 0.0], [3.0, 4.0]])

    def f(x):
        return total(xpnet.array_namespace(x).linalg.vector_norm(x, axis=1) ** 2)

    for first, expected in ((0.0, 0.0), (1.0, math.nan)):
        product = xpnet.hvp(f, (x,), (array([[first, first], [1.0, 1.0]]),))[0]
        assert_same(product, array([[expected, expected], [2.0, 2.0]]))


@pytest.mark.parametrize("ord", ["fro", 2, "nuc"])
def test_the_square_of_a_matrix_norm_of_zeros(ord, xp):
    x = array([[0.0, 0.0], [0.0, 0.0]])

    def f(x):
        return xpnet.array_namespace(x).linalg.matrix_norm(x, ord=ord) ** 2

    assert_same(xpnet.grad(f)(x), x)
    with numpy.errstate(all="ignore"):
        product = xpnet.hvp(f, (x,), (array([[1.0, 2.0], [3.0, 5.0]]),))[0]
    assert bool(xp.all(xp.isnan(product)))


def test_first_derivatives_at_a_tip(xp):
    x, v = array([0.0, 0.0]), array([1.0, 2.0])
    assert_same(xpnet.jvp(lambda x: norm(x) ** 2, (x,), (v,))[1], array(0.0))
    # It is none of second order inside of another transform, either.
    value, _ = xpnet.value_and_grad(lambda x: xpnet.jvp(lambda x: norm(x) ** 2, (x,), (v,))[1])(x)
    assert_same(value, array(0.0))
    assert_same(xpnet.jit(xpnet.grad(lambda x: norm(x) ** 2))(x), x)
