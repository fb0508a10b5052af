import numpy
import pytest
from helpers import array

import xpnet


def wrong_at_order(order):
    """A square whose gradient is right below the given order."""

    @xpnet.custom_gradient
    def factor(x):
        return 2 * x, lambda g: (2.001 if order == 2 else 2) * g

    @xpnet.custom_gradient
    def square(x):
        return x * x, lambda g: g * factor(x) * (1.001 if order == 1 else 1)

    return square


def test_right_gradients_pass(xp):
    x = array([0.5, -1.5])
    xpnet.check_gradients(lambda x: x**3, x, order=3)
    xpnet.check_gradients(lambda t: {"a": t["x"] * t["y"], "b": [t["y"]]}, {"x": x, "y": array(2.0)}, order=2)
    xpnet.check_gradients(lambda z: z * z, array([1 + 2j]), order=2)
    xpnet.check_gradients(wrong_at_order(3), x, order=2)


@pytest.mark.parametrize("order", [1, 2])
def test_wrong_gradients_fail(order, xp):
    x = array([0.5, -1.5])
    if order == 2:
        xpnet.check_gradients(wrong_at_order(2), x)
    with pytest.raises(AssertionError, match=r"by rules .* by finite differences .* relative difference"):
        xpnet.check_gradients(wrong_at_order(order), x, order=order)


def test_a_gradient_that_is_not_a_number_fails(xp):
    nan = xpnet.custom_gradient(lambda x: (x * 1, lambda g: g * float("nan")))
    with pytest.raises(AssertionError, match="by rules nan"):
        xpnet.check_gradients(nan, array([1.0]))


def test_wrong_gradients_of_complex_numbers_fail(xp):
    conjugated = xpnet.custom_gradient(lambda z: (z * (1 + 2j), lambda g: g * (1 + 2j)))
    with pytest.raises(AssertionError, match="by rules"):
        xpnet.check_gradients(conjugated, array([1 + 1j]))


def test_the_tolerance_can_be_chosen(xp):
    x = array([0.5, -1.5])
    xpnet.check_gradients(wrong_at_order(1), x, tolerance=0.01)
    with pytest.raises(AssertionError, match=r"within 1\.0e-04"):
        xpnet.check_gradients(wrong_at_order(1), x, tolerance=1e-4)
    xpnet.check_gradients(wrong_at_order(2), x, order=2, tolerance=0.01)


def test_single_precision_has_a_tolerance_of_its_own(xp):
    xpnet.check_gradients(lambda x: x * x, array([0.5, -1.5], "float32"))


def test_arguments_are_not_changed(xp):
    x = array([1.0, 2.0])

    def f(x):
        x = x * 1
        x *= x
        return x

    xpnet.check_gradients(f, x)
    assert numpy.array_equal(xpnet.to_numpy(x), [1.0, 2.0])
