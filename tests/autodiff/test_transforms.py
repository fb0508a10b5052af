import doctest
import threading

import numpy
import pytest
from helpers import array, assert_on, assert_same, rounding

import xpnet
from xpnet.autodiff import transforms
from xpnet.errors import MixedArraysError, NoGradientError


def square_sum(x):
    return x.__array_namespace__().sum(x * x)


def test_examples_of_the_docstrings():
    results = doctest.testmod(transforms)
    assert results.attempted > 0
    assert results.failed == 0


# -- grad and value_and_grad --------------------------------------------------------------------------------


def test_a_gradient_is_like_its_argument(device):
    for dtype in ("float32", "float64"):
        x = array([[1.0, 2.0], [3.0, 4.0]], dtype)
        value, gradient = xpnet.value_and_grad(square_sum)(x)
        assert_on(value, device, dtype, ())
        assert_on(gradient, device, dtype, (2, 2))
        assert_same(gradient, 2 * x)
        assert_same(xpnet.grad(square_sum)(x), 2 * x)


def test_a_gradient_of_complex_numbers_points_uphill(xp):
    z = array([1 + 2j, -3j])

    def f(z):
        xp = z.__array_namespace__()
        return xp.sum(xp.abs(z) ** 2)

    assert_same(xpnet.grad(f)(z), 2 * z)
    assert_same(xpnet.grad(lambda z: f(z * (2 + 1j)))(z), 10 * z)


def test_several_arguments(xp):
    a, b, c = array(2.0), array(3.0), array(5.0)

    def f(a, b, c):
        return a * b * b + c

    assert_same(xpnet.grad(f, 1)(a, b, c), array(12.0))
    first, second = xpnet.grad(f, (1, 0))(a, b, c)
    assert_same(first, array(12.0))
    assert_same(second, array(9.0))
    assert xpnet.grad(f, ())(a, b, c) == ()


def weighted_sum(*arguments, power=1):
    """Of numbers: the first one counts double."""
    return (2 * arguments[0] + sum(arguments[1:])) ** power


# Each transform, and what it returns for `weighted_sum(a, b, power=2)` at 1 and 3, with respect to b,
# to a, and to both, b first.
TRANSFORMS = {
    "grad": (
        lambda argnums, *x, **options: xpnet.grad(weighted_sum, argnums)(*x, **options),
        (10.0, 20.0),
        (10.0, 20.0),
    ),
    "value_and_grad": (
        lambda argnums, *x, **options: xpnet.value_and_grad(weighted_sum, argnums)(*x, **options)[1],
        (10.0, 20.0),
        (10.0, 20.0),
    ),
    "vjp": (
        lambda argnums, *x, **options: xpnet.vjp(weighted_sum, *x, argnums=argnums, **options)[1](1.0),
        (10.0, 20.0),
        (10.0, 20.0),
    ),
    "jvp": (
        lambda argnums, *x, **options: xpnet.jvp(weighted_sum, x, ones(argnums), argnums=argnums, **options)[
            1
        ],
        (10.0, 20.0),
        30.0,
    ),
    "jacobian": (
        lambda argnums, *x, **options: xpnet.jacobian(weighted_sum, argnums)(*x, **options),
        (10.0, 20.0),
        (10.0, 20.0),
    ),
    "hessian": (
        lambda argnums, *x, **options: xpnet.hessian(weighted_sum, argnums)(*x, **options),
        (2.0, 8.0),
        ((2.0, 4.0), (4.0, 8.0)),
    ),
    "hvp": (
        lambda argnums, *x, **options: xpnet.hvp(weighted_sum, x, ones(argnums), argnums=argnums, **options),
        (2.0, 8.0),
        (6.0, 12.0),
    ),
}


def ones(argnums):
    return (1.0,) * len(argnums) if isinstance(argnums, tuple | list) else 1.0


@pytest.mark.parametrize(("differentiated", "of_one", "of_both"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_argnums_and_keywords_are_those_of_grad(differentiated, of_one, of_both, xp):
    a, b = array(1.0), array(3.0)
    assert differentiated(1, a, b, power=2) == of_one[0]
    assert differentiated(numpy.int64(0), a, b, power=2) == of_one[1]
    for argnums in ((1, 0), [numpy.int64(1), 0]):
        assert differentiated(argnums, a, b, power=2) == of_both
    assert differentiated(1, a, b, power=array(2.0)) == of_one[0]  # an array by keyword is a constant


@pytest.mark.parametrize(
    "argnums", [-1, 2, (0, 0), (0, 5), (1, -1), True, 1.0, "0", ("0",), {0}, numpy.asarray([0, 1])], ids=str
)
@pytest.mark.parametrize("differentiated", [each[0] for each in TRANSFORMS.values()], ids=TRANSFORMS)
def test_argnums_are_different_positions(differentiated, argnums):
    with pytest.raises(ValueError, match=r"argnums must be different positions.*Received argnums "):
        differentiated(argnums, 1.0, 2.0)


@pytest.mark.parametrize("transform", [xpnet.grad, xpnet.value_and_grad, xpnet.jacobian, xpnet.hessian])
def test_what_argnums_cannot_be_is_said_at_once(transform):
    with pytest.raises(ValueError, match=r"Received argnums -1\. Count from the first"):
        transform(weighted_sum, -1)


def test_no_argument_may_be_asked_for(xp):
    x = array(2.0)
    assert xpnet.grad(lambda x: x * x, ())(x) == ()
    assert xpnet.jacobian(lambda x: x * x, ())(x) == ()
    assert xpnet.hessian(lambda x: x * x, ())(x) == ()
    assert xpnet.vjp(lambda x: x * x, x, argnums=())[1](1.0) == ()
    assert xpnet.jvp(lambda x: x * x, (x,), (), argnums=()) == (4.0, 0.0)
    assert xpnet.hvp(lambda x: x * x, (x,), (), argnums=()) == ()


@pytest.mark.parametrize("transform", [xpnet.grad, xpnet.value_and_grad, xpnet.jacobian, xpnet.hessian])
def test_an_argument_to_differentiate_is_given_by_position(transform):
    with pytest.raises(ValueError, match=r"given by position.*for 0 such arguments"):
        transform(lambda x: x * x)(x=1.0)


def test_keyword_arguments_are_constants_that_may_be_arrays(xp):
    x, weights = array([1.0, 2.0]), array([3.0, 4.0])

    def f(x, *, weights, name):
        assert name == "f"
        assert x.__array_namespace__() is weights.__array_namespace__()
        return x.__array_namespace__().sum(weights * x)

    assert_same(xpnet.grad(f)(x, weights=weights, name="f"), weights)


def test_auxiliary_results(xp):
    x = array([1.0, 2.0])

    def f(x):
        y = x * x
        return y.__array_namespace__().sum(y), {"squares": y, "name": "f"}

    (value, auxiliary), gradient = xpnet.value_and_grad(f, has_aux=True)(x)
    assert_same(value, array(5.0))
    assert_same(auxiliary["squares"], x * x)
    assert auxiliary["name"] == "f"
    assert_same(gradient, 2 * x)
    gradient, auxiliary = xpnet.grad(f, has_aux=True)(x)
    assert_same(gradient, 2 * x)
    assert_same(auxiliary["squares"], x * x)


def test_auxiliary_results_must_come_in_a_pair():
    with pytest.raises(TypeError, match=r"\(value, auxiliary\), received Tracer"):
        xpnet.grad(lambda x: x, has_aux=True)(1.0)
    with pytest.raises(TypeError, match=r"received a tuple of 3\. Return a tuple of two"):
        xpnet.grad(lambda x: (x, x, x), has_aux=True)(1.0)


def test_trees(xp):
    tree = {"a": array([1.0, 2.0]), "b": [array(3.0), (array([4.0]), array(5.0))]}

    def f(tree):
        a, (b, (c, d)) = tree["a"], tree["b"]
        xp = a.__array_namespace__()
        return xp.sum(a * a) * b + c[0] * d

    gradient = xpnet.grad(f)(tree)
    assert_same(gradient["a"], array([6.0, 12.0]))
    assert_same(gradient["b"][0], array(5.0))
    assert isinstance(gradient["b"][1], tuple)
    assert_same(gradient["b"][1][0], array([5.0]))
    assert_same(gradient["b"][1][1], array(4.0))


def test_an_array_that_is_two_leaves_has_two_gradients(xp):
    x = array(3.0)
    gradients = xpnet.grad(lambda pair: pair[0] * pair[0] * pair[1])([x, x])
    assert_same(gradients[0], array(18.0))
    assert_same(gradients[1], array(9.0))


def test_python_numbers_are_arguments_too(device):
    assert_on(xpnet.grad(lambda x: x * x)(3.0), device, "float64", ())
    gradient = xpnet.grad(lambda x, y: x.__array_namespace__().sum(x * y))(3.0, array([1.0, 2.0]))
    assert_same(gradient, array(3.0))


def test_python_numbers_go_to_the_device_of_the_other_arguments(device):
    y = array([1.0, 2.0])
    with xpnet.use_device("strict:device2" if device.spec == "cpu" else "cpu"):
        gradient = xpnet.grad(lambda x, y: x.__array_namespace__().sum(x * y))(3.0, y)
    assert_same(gradient, array(3.0))


def test_closures_over_plain_arrays(xp):
    weights = array([3.0, 4.0])
    assert_same(
        xpnet.grad(lambda x: x.__array_namespace__().sum(x * weights * x))(array([1.0, 2.0])),
        array([6.0, 16.0]),
    )


@pytest.mark.parametrize("result", [1, 2.5, "array"])
def test_a_constant_has_gradient_0(xp, result):
    x = array([1.0, 2.0])
    result = array(7.0) if result == "array" else result
    value, gradient = xpnet.value_and_grad(lambda _: result)(x)
    assert value is result
    assert_same(gradient, xp.zeros_like(x))


def test_an_argument_that_is_not_used_has_gradient_0(xp):
    x, y = array([1.0, 2.0]), array([3.0], "float32")
    gradients = xpnet.grad(lambda x, _: square_sum(x), (0, 1))(x, y)
    assert_same(gradients[1], xp.zeros_like(y))


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: x, ValueError, r"shape \(2,\).*mean or sum"),
        (lambda x: x[0] * 1j, ValueError, "real number"),
        (lambda _: array(1j), ValueError, "real number, received .*complex128"),
        (lambda _: None, TypeError, "NoneType"),
        (lambda x: [x[0]], TypeError, r"list\..*has_aux=True.*xpnet\.jacobian"),
    ],
)
def test_a_result_must_be_one_real_number(f, error, message, xp):
    with pytest.raises(error, match=message):
        xpnet.grad(f)(array([1.0, 2.0]))


@pytest.mark.parametrize("argument", [3, "text", True, {"a": [1.0, 2]}])
def test_an_argument_must_be_able_to_hold_a_gradient(argument):
    with pytest.raises(NoGradientError, match="floating-point numbers"):
        xpnet.grad(square_sum)(argument)


@pytest.mark.parametrize("argument", ["text", {"a": object()}, object()])
def test_what_is_no_array_is_made_one_or_left_out(argument):
    with pytest.raises(NoGradientError, match=r"Make it an array, or a dict.*leave this argument out"):
        xpnet.grad(square_sum)(argument)


def test_integers_cannot_hold_a_gradient(xp):
    x = {"weights": [array([1.0]), array([1, 2], "int64")]}
    with pytest.raises(NoGradientError, match=r"int64 in argument 0 at weights\.1.*xpnet\.asarray.*argnums"):
        xpnet.grad(square_sum)(x)
    gradient = xpnet.grad(lambda x, i: x[i])(array([1.0, 2.0]), array([1], "int64")[0])
    assert_same(gradient, array([0.0, 1.0]))


def test_an_error_leaves_nothing_behind(xp):
    x = array([1.0, 2.0])

    def fails(x):
        x += 1
        x[0] = 5.0
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        xpnet.grad(fails)(x)
    assert_same(x, array([1.0, 2.0]))
    assert_same(xpnet.grad(square_sum)(x), 2 * x)

    def fails_within(x):
        with pytest.raises(KeyError):
            xpnet.grad(fails)(x)
        return square_sum(x)

    assert_same(xpnet.grad(fails_within)(x), 2 * x)


# -- gradients of gradients ---------------------------------------------------------------------------------


def test_derivatives_of_higher_order(xp):
    f = lambda x: x**4 * xpnet.array_namespace(x).sin(x)
    x = array(1.3)
    third = xpnet.grad(xpnet.grad(xpnet.grad(f)))(x)
    s, c = numpy.sin(1.3), numpy.cos(1.3)
    expected = 24 * 1.3 * s + 36 * 1.3**2 * c - 12 * 1.3**3 * s - 1.3**4 * c
    assert_same(third, array(expected), tolerance=rounding(5000, "float64"))
    xpnet.check_gradients(f, x, order=3)


def test_perturbations_are_not_confused(xp):
    x = array(2.0)
    # d/dx (x · d/dy (x + y)) = d/dx (x · 1)
    assert_same(xpnet.grad(lambda x: x * xpnet.grad(lambda y: x + y)(array(1.0)))(x), array(1.0))
    assert_same(xpnet.grad(lambda x: x * xpnet.grad(lambda y: x + y)(x))(x), array(1.0))
    # d/dx (x · d/dy (x · y)) = 2 x
    assert_same(xpnet.grad(lambda x: x * xpnet.grad(lambda y: x * y)(array(1.0)))(x), array(4.0))
    # d/dx d/dy (x² y³) at y = x is 6 x³ along x, and the diagonal adds 6 x² y
    assert_same(xpnet.grad(lambda x: xpnet.grad(lambda y: x**2 * y**3)(x))(x), array(12 * 2.0**3))
    # An inner value that depends on the outer argument alone has no gradient along the inner one.
    assert_same(xpnet.grad(lambda x: x + xpnet.grad(lambda y: x * x + 0 * y)(array(3.0)))(x), array(1.0))


def test_a_constant_inner_gradient_is_0(xp):
    x = array([1.0, 2.0])

    def f(x):
        inner = xpnet.grad(lambda _: square_sum(x))(x)
        return x.__array_namespace__().sum(inner) + square_sum(x)

    value, gradient = xpnet.value_and_grad(f)(x)
    assert_same(value, array(5.0))
    assert_same(gradient, 2 * x)


def test_an_inner_gradient_that_stays_apart_is_plain(xp):
    """Nothing of the outer transform reaches the inner one, so its result is a constant, and plain."""
    y = array(3.0)

    def f(x):
        inner = xpnet.grad(lambda y: y**2)(y)
        assert xpnet.backends.library_of(inner) is xpnet.device().library
        return x * inner

    assert_same(xpnet.grad(f)(array(2.0)), array(6.0))


def test_closures_over_traced_values_in_several_levels(xp):
    def f(a):
        def g(b):
            c = a * b
            return xpnet.grad(lambda d: a * b * c * d * d)(b)  # 2 a b c b = 2 a² b³

        return xpnet.grad(g)(a)  # 2 a² 3 b² + … at b = a, `d` too: 6 a² b² → 6 a⁴

    # g(b) = 2 a² b³ with both b and the inner argument equal to b.
    assert_same(xpnet.grad(f)(array(1.5)), array(24 * 1.5**3), tolerance=rounding(5000, "float64"))


def test_a_hessian_row_by_row(xp):
    matrix = numpy.asarray([[2.0, 1.0, 0.0], [0.5, 3.0, -1.0], [0.0, 0.0, 1.0]])
    m = array(matrix)

    def f(x):
        xp = xpnet.array_namespace(x)
        m_x = xp.matmul(m, x)
        return xp.sum(x * m_x) + xp.sum(x**3)

    x = array([1.0, -2.0, 0.5])
    _, pullback = xpnet.vjp(xpnet.grad(f), x)
    expected = matrix + matrix.T + numpy.diag(6 * numpy.asarray([1.0, -2.0, 0.5]))
    for row in range(3):
        assert_same(pullback(array(numpy.eye(3)[row]))[0], array(expected[row]))


def test_trees_and_auxiliary_results_in_gradients_of_gradients(xp):
    def f(tree):
        value, aux = tree["a"] ** 3 * tree["b"], tree["a"] * 2
        return value, aux

    def g(tree):
        gradient, aux = xpnet.grad(f, has_aux=True)(tree)  # 3 a² b, a³; 2 a
        return gradient["a"] * aux + gradient["b"]  # 6 a³ b + a³

    gradient = xpnet.grad(g)({"a": array(2.0), "b": array(5.0)})
    assert_same(gradient["a"], array(18 * 4 * 5.0 + 3 * 4))
    assert_same(gradient["b"], array(6 * 8.0))


# -- vjp ----------------------------------------------------------------------------------------------------


def test_vjp_of_trees_can_be_called_several_times(xp):
    def f(a, tree):
        return {"product": a * tree[0], "sums": (a + tree[0], a)}

    a, b = array([1.0, 2.0]), array([3.0, 4.0])
    result, pullback = xpnet.vjp(f, a, [b])
    assert_same(result["product"], a * b)
    zero, one = xp.zeros_like(a), xp.ones_like(a)
    for _ in range(2):
        first, second = pullback({"product": one, "sums": (zero, zero)})
        assert_same(first, b)
        assert_same(second[0], a)
        first, second = pullback({"product": zero, "sums": (2 * one, one)})
        assert_same(first, 3 * one)
        assert_same(second[0], 2 * one)


def test_a_part_of_several_results(xp):
    x = array([[1.0, 2.0], [3.0, 4.0]])

    def f(x):
        first, second = xpnet.array_namespace(x).unstack(x)
        return first * first + second

    xpnet.check_gradients(f, x, order=2)
    _, pullback = xpnet.vjp(lambda x: x.__array_namespace__().unstack(x)[1], x)
    assert_same(pullback(array([5.0, 6.0]))[0], array([[0.0, 0.0], [5.0, 6.0]]))


def test_a_result_that_is_returned_twice(xp):
    def f(x):
        y = x * x
        return y, {"again": y, "argument": x}

    (y, rest), pullback = xpnet.vjp(f, array([1.0, 3.0]))
    (g,) = pullback((xp.ones_like(y), {"again": 2 * xp.ones_like(y), "argument": xp.ones_like(y)}))
    assert_same(g, array([7.0, 19.0]))
    assert_same(rest["argument"], array([1.0, 3.0]))


def test_vjp_checks_the_tree_it_is_given(xp):
    _, pullback = xpnet.vjp(lambda x: [x, x], array([1.0, 2.0]))
    with pytest.raises(
        ValueError, match=r"like the result of f, \[\*, \*\] with an array for each \*; received one array"
    ):
        pullback(array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"of the shape \(2,\) at 1; received the shape \(1,\)\."):
        pullback([array([1.0, 2.0]), array([1.0])])


def test_vjp_of_some_arguments(xp):
    x, rows = array([1.0, 2.0]), array([1, 1, 0], "int64")
    result, pullback = xpnet.vjp(lambda x, rows, *, scale: x[rows] * scale, x, rows, argnums=0, scale=3.0)
    assert_same(result, array([6.0, 6.0, 3.0]))
    assert_same(pullback(array([1.0, 10.0, 100.0])), array([300.0, 33.0]))
    with pytest.raises(NoGradientError, match=r"int64 in argument 1.*leave this argument out of argnums"):
        xpnet.vjp(lambda x, rows: x[rows], x, rows)
    assert xpnet.vjp(lambda x, *, f: x * f, array(2.0), f=3.0)[1](1.0) == (3.0,)


@pytest.mark.parametrize("number", [3, 3.0, numpy.float32(3), numpy.float64(3), numpy.int64(3)], ids=repr)
def test_a_number_stands_for_an_array_without_axes(device, number):
    for dtype in ("float32", "float64", "complex128"):
        x = array(2.0, dtype)
        (gradient,) = xpnet.vjp(lambda x: x * x, x)[1](number)
        assert_on(gradient, device, dtype, ())
        assert_same(gradient, array(12.0, dtype))
        _, tangent = xpnet.jvp(lambda x: x * x, (x,), (number,))
        assert_on(tangent, device, dtype, ())
        assert_same(tangent, array(12.0, dtype))
    (product,) = xpnet.hvp(lambda x: x**3, (array(2.0, "float32"),), (number,))
    assert_on(product, device, "float32", ())
    assert_same(product, array(36.0, "float32"))
    assert xpnet.vjp(lambda x: x * x, 2.0)[1](number) == (12.0,)
    assert xpnet.jit(lambda x: xpnet.vjp(lambda x: x * x, x)[1](number))(array(2.0)) == (12.0,)


def test_a_number_of_python_keeps_its_precision(xp):
    assert_same(xpnet.vjp(lambda x: x * 1.0, array(2.0))[1](0.1)[0], array(0.1))
    assert_same(xpnet.vjp(lambda x: x * 1.0, array(2.0, "complex128"))[1](0.1j)[0], array(0.1j))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_other_real_numbers_are_converted(device, dtype):
    directions, x = array([1, 2], dtype), array([3.0, 1.0], "float32")
    (gradient,) = xpnet.vjp(lambda x: x * x, x)[1](directions)
    assert_on(gradient, device, "float32", (2,))
    assert_same(gradient, array([6.0, 4.0], "float32"))
    _, tangent = xpnet.jvp(lambda x: x * x, (x,), (directions,))
    assert_on(tangent, device, "float32", (2,))
    assert_same(tangent, array([6.0, 4.0], "float32"))
    (product,) = xpnet.vjp(lambda z: z * z, array([1j, 2.0]))[1](directions)
    assert_same(product, array([-2j, 8.0]))


@pytest.mark.parametrize("dtype", ["complex128", "bool"])
def test_what_is_no_such_number_is_refused(dtype, xp):
    x, wrong = array([3.0, 1.0]), array([1, 0], dtype)
    match = rf"with real numbers in the place of .*float64; received .*{dtype}"
    with pytest.raises(ValueError, match="pullback needs .*" + match):
        xpnet.vjp(lambda x: x * x, x)[1](wrong)
    with pytest.raises(ValueError, match="jvp needs tangents.*" + match):
        xpnet.jvp(lambda x: x * x, (x,), (wrong,))
    with pytest.raises(ValueError, match="hvp needs vectors.*" + match):
        xpnet.hvp(square_sum, (x,), (wrong,))
    for number in (True, "1", 1j):
        with pytest.raises(ValueError, match=rf"{type(number).__name__}|complex"):
            xpnet.vjp(lambda x: x * x, array(3.0))[1](number)


def test_directions_of_another_library_are_refused(device):
    other = xpnet.asarray(numpy.ones(2), device="strict:device2" if device.spec == "cpu" else "cpu")
    x = array([3.0, 1.0])
    for call in (
        lambda: xpnet.vjp(lambda x: x * x, x)[1](other),
        lambda: xpnet.jvp(lambda x: x * x, (x,), (other,)),
        lambda: xpnet.hvp(square_sum, (x,), (other,)),
    ):
        with pytest.raises(MixedArraysError, match=r"xpnet\.to_device"):
            call()


def test_directions_on_another_device_are_refused(device):
    if device.library.spec != "strict":
        pytest.skip("array-api-strict alone has several devices everywhere")
    other = xpnet.asarray(numpy.ones(2), device="strict:device2")
    with pytest.raises(MixedArraysError, match=r"pullback needs.*on its device.*received .*device2"):
        xpnet.vjp(lambda x: x * x, array([3.0, 1.0]))[1](other)


def test_results_of_integers_are_passed_by(xp):
    def f(x):
        xp = x.__array_namespace__()
        return x * x, xp.argmax(x), x > 1.5, None

    (_, place, large, _), pullback = xpnet.vjp(f, array([1.0, 2.0]))
    for ignored in (array(0, "int64"), 0, 0.0, array(1.0)):
        assert_same(pullback((array([1.0, 1.0]), ignored, large, None))[0], array([2.0, 4.0]))
    with pytest.raises(ValueError, match=r"of the shape \(\) at 1; received the shape \(2,\)"):
        pullback((array([1.0, 1.0]), large, large, None))
    assert int(place) == 1


def test_a_number_of_python_is_a_constant_result(device):
    result, pullback = xpnet.vjp(lambda x: [3.0, x * 2.0, True], array([1.0, 2.0]))
    assert_on(result[0], device, "float64", ())
    assert_same(pullback([1.0, array([1.0, 1.0]), True])[0], array([2.0, 2.0]))
    with pytest.raises(TypeError, match="arrays and numbers, received str"):
        xpnet.vjp(lambda x: (x, "text"), array(1.0))


def test_vjp_inside_a_gradient(xp):
    def f(x):
        result, pullback = xpnet.vjp(lambda y: y * y * x, x)  # x y² at y = x
        return pullback(result)[0]  # (x y²) (2 x y) = 2 x⁵ at y = x

    assert_same(xpnet.grad(f)(array(1.5)), array(10 * 1.5**4), tolerance=rounding(5000, "float64"))


def test_a_pullback_of_a_traced_gradient(xp):
    x = array(3.0)
    _, pullback = xpnet.vjp(lambda x: x * x, x)
    assert_same(xpnet.grad(lambda g: pullback(g)[0] * g)(array(2.0)), array(2 * 2 * 3 * 2.0))


# -- stop_gradient, trace -----------------------------------------------------------------------------------


def test_stop_gradient(xp):
    x = array([1.0, 2.0])
    tree = {"x": x, "name": "text"}
    assert xpnet.stop_gradient(tree)["x"] is x

    def f(tree):
        stopped = xpnet.stop_gradient(tree)
        assert stopped["name"] == "text"
        return square_sum(tree["x"] * stopped["x"])

    assert_same(xpnet.grad(lambda x: f({"x": x, "name": "text"}))(x), 2 * x**3)
    inner = xpnet.grad(lambda x: xpnet.grad(lambda y: xpnet.stop_gradient(x) * y * y)(x))(array(3.0))
    assert_same(inner, array(6.0))


def test_trace_wraps_arrays_and_nothing_else(xp):
    tree = {"x": array([1.0]), "name": "text", "n": 3}
    traced = xpnet.trace(tree)
    assert type(traced["x"]).__name__ == "Tracer"
    assert traced["x"].node is None
    assert traced["name"] == "text"
    assert traced["n"] == 3
    assert xpnet.trace(traced["x"]) is traced["x"]


def test_what_left_a_transform_is_plain(xp):
    x = array([1.0, 2.0])
    result, pullback = xpnet.vjp(lambda x: (x, x * 2), x)
    for y in (*result, *pullback(result)):
        assert type(y) is type(x)


# -- arrays of two libraries, threads -----------------------------------------------------------------------


def test_arguments_of_two_libraries(device):
    other = xpnet.asarray(numpy.ones(2), device="strict:device2" if device.spec == "cpu" else "cpu")
    with pytest.raises(
        MixedArraysError,
        match=f"{device.library.name}.*{'strict' if device.spec == 'cpu' else 'NumPy'}.*to_device",
    ):
        xpnet.grad(lambda x, _: square_sum(x))(array([1.0, 2.0]), other)


@pytest.mark.parametrize("kind", [numpy.float32, numpy.float64, numpy.int64, numpy.asarray])
def test_a_number_of_numpys_beside_arrays_of_any_library(device, kind):
    def f(x, n):
        return square_sum(x) * n

    x, n = array([1.0, 2.0]), kind(2)
    one = array(1.0)
    assert_same(xpnet.grad(f)(x, n), 4 * x)
    if n.dtype.kind == "i":
        assert_same(xpnet.jit(xpnet.grad(f))(x, n), 4 * x)
    else:  # with a gradient of its own
        assert_same(xpnet.vjp(f, x, n)[1](one)[0], 4 * x)
        assert float(xpnet.grad(f, argnums=1)(x, n)) == 5.0


def test_threads_differentiate_at_once(xp):
    wrong = []
    start = threading.Barrier(8)

    def work(number):
        x = array([float(number), 1.0])
        with xpnet.use_device(xpnet.device()):
            start.wait()
            for _ in range(20):
                second = xpnet.grad(lambda x: square_sum(xpnet.grad(lambda y: square_sum(y * y))(x)))(x)
                # the sum of (4 x³)², whose gradient is 96 x⁵
                if not numpy.allclose(xpnet.to_numpy(second), 96 * numpy.asarray([number, 1.0]) ** 5):
                    wrong.append(number)

    device = xpnet.device()

    def run(number):
        with xpnet.use_device(device):
            work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_result_that_is_assigned_to_keeps_its_pullback(xp):
    def f(x):
        result, pullback = xpnet.vjp(lambda x: x * x, x)
        result *= 3.0
        return pullback(xpnet.array_namespace(x).ones_like(x))[0]

    value, gradient = xpnet.value_and_grad(f)(array(2.0))
    assert_same(value, array(4.0))
    assert_same(gradient, array(2.0))


def test_positions_of_other_integer_types(xp):
    assert_same(xpnet.grad(lambda x: x * x, argnums=numpy.int64(0))(array(3.0)), array(6.0))
