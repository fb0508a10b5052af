import math

import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, complexes, named
from xpnet.autodiff.rules.kinks import nan_where, subgradient

CASES = {
    "subgradient": [
        Case(lambda xp, g, slope, at: subgradient(xp, g, slope, lambda: (at == 0, at)), (2, 3), (3,), (2, 1)),
        Case(
            lambda xp, g, slope, at: subgradient(xp, g, slope, lambda: (at == 0, at), corner=True),
            (3,),
            (3,),
            (3,),
        ),
        Case(
            lambda xp, g, slope, at: subgradient(xp, g, slope, lambda: (at == 0, at)),
            complexes(3),
            (3,),
            (3,),
        ),
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
        return xp.abs(x), lambda g: subgradient(xp, g, xp.sign(x), lambda: (x == 0, x), corner=corner)

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


def hessian_of(f, *point):
    x = array(numpy.asarray(point, dtype=float))
    return xpnet.hessian(lambda x: f(xpnet.array_namespace(x), x))(x)


def products_of(f, *point, direction=None):
    """The Hessian times a direction, (1, 2, …) by default, by each order of transforms."""
    direction = numpy.arange(1.0, 1.0 + len(point)) if direction is None else direction
    x, v = array(numpy.asarray(point, dtype=float)), array(direction)

    def real(x):
        return f(xpnet.array_namespace(x), x)

    return (
        xpnet.hvp(real, (x,), (v,))[0],
        xpnet.jvp(xpnet.grad(real), (x,), (v,))[1],
        xpnet.grad(lambda x: xpnet.jvp(real, (x,), (v,))[1])(x),
    )


@pytest.mark.parametrize(
    ("f", "point"),
    [
        (lambda xp, x: xp.sum(abs(x) ** 2), (0.0,)),
        (lambda xp, x: xp.std(x) ** 2, (1.0, 1.0)),
        (lambda xp, x: xp.linalg.vector_norm(x) ** 2, (0.0, 0.0)),
        (lambda xp, x: xp.linalg.vector_norm(x, ord=3) ** 2, (0.0,)),
        (lambda xp, x: xp.linalg.vector_norm(x, ord=-1) ** 2, (0.0, 1.0)),
        (lambda xp, x: xp.hypot(x[0], x[1]) ** 2, (0.0, 0.0)),
        (lambda xp, x: xp.sum(xp.sqrt(x) ** 2), (0.0,)),
        (lambda xp, x: xp.sum((x**0.5) ** 2), (0.0,)),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_hessians_of_what_is_smooth_but_made_of_kinks_are_nan(f, point, xp):
    size = len(point)
    assert_same(hessian_of(f, *point), numpy.full((size, size), numpy.nan))
    for direction in (None, numpy.eye(size)[0]):
        for product in products_of(f, *point, direction=direction):
            assert_same(product, numpy.full(size, numpy.nan))


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")  # in sign(0)
@pytest.mark.parametrize("f", [lambda xp, z: xp.abs(z) ** 2, lambda xp, z: xp.real(xp.sign(z))])
def test_the_size_and_the_phase_of_0(f, xp):
    """Their gradients at a complex 0 are chosen to be 0, and know no second derivative."""

    def along(x):
        traced = xpnet.array_namespace(x)
        return traced.sum(f(traced, traced.astype(x, xp.complex128) * (1 + 1j)))

    x = array(numpy.zeros(1))
    assert_same(xpnet.grad(along)(x), numpy.zeros(1))
    assert_same(xpnet.hessian(along)(x), numpy.full((1, 1), numpy.nan))
    assert_same(xpnet.jvp(xpnet.grad(along), (x,), (x + 1,))[1], numpy.full(1, numpy.nan))


def test_the_largest_of_equal_elements_may_shift_a_softmax(xp):
    """As in code that knows no `stop_gradient`: its gradient is 0, and so are those of that."""

    def logsumexp(xp, x):
        largest = xp.max(x)
        return largest + xp.log(xp.sum(xp.exp(x - largest)))

    assert_same(hessian_of(logsumexp, 1.0, 1.0), array([[0.25, -0.25], [-0.25, 0.25]]))


def test_equal_elements_that_move_together_have_no_kink(xp):
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.max(xp.stack([x, x])) ** 2

    assert_same(xpnet.jvp(xpnet.grad(f), (array(0.0),), (array(1.0),))[1], array(2.0))


def test_the_number_0_to_a_power(xp):
    assert_same(xpnet.grad(lambda x: total(0.0**x))(array([0.0, 2.0])), array([0.0, 0.0]))
    with numpy.errstate(all="ignore"):
        assert_same(xpnet.grad(lambda x: total(0.0**x))(array([-1.0])), array([math.nan]))


@pytest.mark.parametrize(
    ("f", "point", "expected"),
    [
        (lambda xp, x: xp.var(x), (1.0, 1.0), [[0.5, -0.5], [-0.5, 0.5]]),
        (lambda xp, x: xp.prod(x), (0.0, 0.0), [[0.0, 1.0], [1.0, 0.0]]),
        (lambda xp, x: xp.sum(xp.cumulative_prod(x)), (0.0, 0.0), [[0.0, 1.0], [1.0, 0.0]]),
        (lambda xp, x: xp.sum(xp.copysign(x, xp.ones_like(x)) ** 2), (0.0,), [[2.0]]),
        (lambda xp, x: xp.sum(x**2 * xp.sign(x)), (0.0,), [[0.0]]),
        (lambda xp, x: xp.sum(x**2), (0.0,), [[2.0]]),
        (lambda xp, x: xp.sum(x**1), (0.0,), [[0.0]]),
        (lambda xp, x: xp.sum(x ** array([0.0, 1.0, 2.0])), (0.0, 0.0, 0.0), numpy.diag([0.0, 0.0, 2.0])),
        (lambda xp, x: x[0] ** x[1], (2.0, 0.0), [[0.0, 0.5], [0.5, math.log(2) ** 2]]),
        (lambda xp, x: x[0] ** x[1], (0.0, 2.0), [[2.0, 0.0], [0.0, 0.0]]),
        (lambda xp, x: xp.sum(abs(x)), (0.0,), [[0.0]]),  # a corner, as of a ReLU
        (lambda xp, x: xp.max(x), (1.0, 1.0), [[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_hessians_at_hard_points_that_are_known(f, point, expected, xp):
    assert_same(hessian_of(f, *point), numpy.asarray(expected))
    for product in products_of(f, *point):
        assert_same(product, numpy.asarray(expected) @ numpy.arange(1.0, 1.0 + len(point)))


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_power_of_0_is_steep_in_its_exponent(exponent, xp):
    expected = array([[0.0, math.nan], [math.nan, math.nan]])
    assert_same(hessian_of(lambda xp, x: x[0] ** x[1], 0.0, exponent), expected)


def test_a_mean_that_is_rounded(xp):
    """The mean of three times 0.1 is rounded by some libraries: then the standard deviation is not 0."""
    x = array(numpy.full(3, 0.1))

    def square(x):
        return 9 * xpnet.array_namespace(x).std(x) ** 2

    assert_same(xpnet.grad(square)(x), numpy.zeros(3))
    hessian = xpnet.to_numpy(xpnet.hessian(square)(x))
    if not numpy.all(numpy.isnan(hessian)):
        assert_same(hessian, 6 * numpy.eye(3) - 2)


def test_a_penalty_on_gradients_through_units_that_are_off(xp):
    """Dead ReLUs, and a maximum over zeros that are equal: neither makes the penalty's gradient NaN."""
    weight = array([[1.0, -1.0, -2.0], [0.5, -1.5, -1.0]])

    def penalty(weight):
        def network(x):
            xp = xpnet.array_namespace(x, weight)
            hidden = xp.maximum(x @ weight, 0.0)
            return xp.sum(abs(hidden)) + xp.max(xp.maximum(-(x @ weight)[:1], 0.0)) + xp.max(hidden[1:])

        gradient = xpnet.grad(network)(array([1.0, 1.0]))
        return xpnet.array_namespace(gradient).sum(gradient**2)

    # Only the first unit is on: 1 · 2 w with its weights.
    assert_same(xpnet.grad(penalty)(weight), numpy.asarray([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))


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
