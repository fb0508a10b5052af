"""Gradients of one's own."""

import doctest

import pytest
from helpers import array, assert_same

import xpnet
from xpnet.autodiff import custom
from xpnet.errors import NoGradientError


def square_sum(x):
    return x.__array_namespace__().sum(x * x)


def test_the_example_of_the_docstring():
    results = doctest.testmod(custom)
    assert results.attempted > 0
    assert results.failed == 0


def test_custom_gradient_of_two_orders(xp):
    @xpnet.custom_gradient
    def cube(x):
        return x**3, lambda g: 3 * x**2 * g

    x = array([1.0, -2.0])
    assert type(cube(x)) is type(x)
    assert_same(cube(x), x**3)
    xpnet.check_gradients(lambda x: cube(x) * x, x, order=3)
    assert_same(xpnet.grad(lambda x: square_sum(cube(x)))(x), 6 * x**5)


def test_custom_gradient_replaces_the_gradient(xp):
    @xpnet.custom_gradient
    def scaled(x, y):
        return x * y, lambda g: (10 * g, None)

    gradients = xpnet.grad(lambda x, y: scaled(x, y) + y, (0, 1))(array(2.0), array(3.0))
    assert_same(gradients[0], array(10.0))
    assert_same(gradients[1], array(1.0))
    assert_same(xpnet.grad(lambda x: scaled(x, array(3.0)))(array(2.0)), array(10.0))


def test_custom_gradient_of_complex_numbers(xp):
    @xpnet.custom_gradient
    def product(x, y):
        conj = xpnet.array_namespace(x, y).conj
        return x * y, lambda g: (g * conj(y), g * conj(x))

    xpnet.check_gradients(lambda x, y: product(x, y) * x, array([1 + 2j]), array([3 - 1j]), order=2)


def test_custom_gradient_checks_what_backward_returns(xp):
    x = array([1.0, 2.0])
    with pytest.raises(ValueError, match="each of the 1 arguments"):
        xpnet.grad(lambda x: square_sum(xpnet.custom_gradient(lambda x: (x * 1, lambda g: (g, g)))(x)))(x)
    with pytest.raises(ValueError, match=r"received shape \(\) for an argument of shape \(2,\)"):
        xpnet.grad(lambda x: square_sum(xpnet.custom_gradient(lambda x: (x * 1, lambda g: g[0]))(x)))(x)


def test_custom_gradient_refuses_to_lose_the_gradient_of_a_closure(xp):
    def f(w, x):
        return xpnet.custom_gradient(lambda x: (x * w, lambda g: g))(x)

    with pytest.raises(NoGradientError, match=r"from outside.*Pass it as an argument"):
        xpnet.grad(f, (0, 1))(array(2.0), array(3.0))
    with pytest.raises(NoGradientError, match="from outside"):
        xpnet.grad(f)(array(2.0), array(3.0))

    def g(w, x):
        return xpnet.custom_gradient(lambda x: (x * xpnet.stop_gradient(w), lambda g: g))(x)

    assert_same(xpnet.grad(g, 1)(array(2.0), array(3.0)), array(1.0))


def test_backward_of_a_custom_gradient_loses_no_array_from_outside(xp):
    def f(c):
        @xpnet.custom_gradient
        def identity(x):
            return x * 1.0, lambda g: g * c

        return xpnet.grad(identity)(array(1.0))

    with pytest.raises(NoGradientError, match="custom gradient received an array from outside"):
        xpnet.grad(f)(array(2.0))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x, r"must return \(result, backward\)"),
        (lambda x: ((x, x), lambda g: g), r"must be one array, received tuple\. Put several together"),
    ],
)
def test_custom_gradient_needs_a_result_and_a_function(f, message, xp):
    with pytest.raises(TypeError, match=message):
        xpnet.grad(xpnet.custom_gradient(f))(array(1.0))


def test_custom_gradient_takes_keywords(xp):
    names = []

    @xpnet.custom_gradient
    def scaled(x, scale=1.0, *, name="f"):
        names.append(name)
        return x * scale, lambda g: 10 * g * scale

    x = array([1.0, 2.0])
    assert_same(scaled(x, scale=3.0), 3 * x)
    assert_same(scaled(xpnet.trace(x), scale=3.0, name="g").value, 3 * x)
    for scale in (3.0, array(3.0)):
        assert_same(xpnet.grad(lambda x, scale=scale: square_sum(scaled(x, scale=scale)))(x), 180 * x)
    assert_same(xpnet.grad(lambda x, w: square_sum(scaled(x, scale=w, name="g")))(x, array(3.0)), 180 * x)
    assert names == ["f", "g", "f", "f", "g"]
    wrong = xpnet.custom_gradient(lambda x, scale: (x * scale, lambda g: (g, g)))
    with pytest.raises(ValueError, match="each of the 1 arguments"):
        xpnet.grad(lambda x: square_sum(wrong(x, scale=2.0)))(x)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"w": [w]}])
def test_custom_gradient_refuses_to_lose_the_gradient_of_a_keyword(wrap, xp):
    @xpnet.custom_gradient
    def f(x, *, options):
        return x * 1.0, lambda g: g

    with pytest.raises(NoGradientError, match=r"by keyword, options, whose gradient.*Pass it by position"):
        xpnet.grad(lambda x, w: f(x, options=wrap(w)), (0, 1))(array(1.0), array(2.0))
    stopped = xpnet.grad(lambda x, w: f(x, options=wrap(xpnet.stop_gradient(w))), (0, 1))
    assert stopped(array(1.0), array(2.0)) == (1.0, 0.0)


def test_custom_gradient_takes_arrays(xp):
    f = xpnet.custom_gradient(lambda xs: (xs[0] * 1.0, lambda g: g))
    with pytest.raises(TypeError, match=r"by position, received list\. Pass the arrays of a tree one by one"):
        xpnet.grad(lambda x: f([x]))(array(1.0))
