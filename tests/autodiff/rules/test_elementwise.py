import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, complexes, named, signed, uniform, values
from xpnet.autodiff.rules.elementwise import logistic, one_less_square


def unary(name, draw=signed, complex=True):
    """A function of one array, on arrays with 2, 0 and no elements on an axis, and on complex numbers."""
    shapes = [draw(2, 3), draw(), draw(0, 3)] + ([complexes(3)] if complex else [])
    return [Case(lambda xp, x: getattr(xp, name)(x), shape) for shape in shapes]


def positive(*shape):
    return uniform(0.3, 2.0, *shape)


def inside(*shape):
    return uniform(-0.8, 0.8, *shape)


def above_one(*shape):
    return uniform(1.3, 3.0, *shape)


def binary(name, draw=signed, number=1.7, complex=True):
    """A function of two arrays: equal shapes, broadcasting, 0-d, empty, a number on either side."""

    def call(xp, x1, x2):
        return getattr(xp, name)(x1, x2)

    pairs = [
        (draw(2, 3), draw(2, 3)),
        (draw(2, 3), draw(3)),
        (draw(3, 1), draw(2, 1, 4)),
        (draw(), draw(2)),
        (draw(1), draw()),
        (draw(), draw()),
        (draw(0, 3), draw(3)),
        (draw(1, 2), draw(0, 2)),
    ]
    if complex:
        pairs += [(complexes(3), complexes(2, 3)), (complexes(3), draw(3)), (draw(3), complexes(1))]
    return [
        *(Case(call, *pair) for pair in pairs),
        Case(lambda xp, x: call(xp, x, number), draw(3)),
        Case(lambda xp, x: call(xp, number, x), draw(3)),
        Case(lambda xp, x: call(xp, x, x), draw(3)),
    ]


CASES = {
    "add": [*binary("add"), Case(lambda xp, x: 1 + x + 2, (3,))],
    "subtract": [*binary("subtract"), Case(lambda xp, x: 1 - (x - 2), (3,))],
    "multiply": [*binary("multiply"), Case(lambda xp, x: 2 * x * 3, (3,))],
    "divide": [*binary("divide"), Case(lambda xp, x: 2 / x / 3, (3,))],
    "remainder": [
        *(
            Case(lambda xp, x1, x2: xp.remainder(x1, x2), uniform(2.1, 2.9, 3), uniform(-0.95, -0.8, *s))
            for s in [(3,), (2, 1)]
        ),
        Case(lambda xp, x: (x % 2) * (7.3 % x), uniform(2.1, 2.9, 2)),
    ],
    "negative": unary("negative"),
    "positive": unary("positive"),
    "reciprocal": unary("reciprocal", positive),
    "square": unary("square"),
    "sqrt": unary("sqrt", positive),
    "pow": [
        *binary("pow", positive),
        *(Case(lambda xp, x, n=n: x**n, (3,)) for n in (0, 1, 2, 3, -1, -2)),
        *(Case(lambda xp, x, n=n: x**n, positive(3)) for n in (0.0, 0.5, 1.0, -1.5)),
        Case(lambda xp, x: 2**x, (3,)),
        Case(lambda xp, x: 0**x, positive(3)),
        Case(lambda xp, x: (0.5 + 2j) ** x, complexes(3)),
        Case(lambda xp, x: (-2) ** x, complexes(3)),
        Case(lambda xp, x: x ** (1 + 2j), complexes(3)),
        Case(lambda xp, x: x ** xp.asarray([0.0, 1.0, 2.0], device=x.device), (3,)),
        Case(lambda xp, x: xp.asarray([0.0, 1.0, 2.0], device=x.device) ** x, positive(3)),
    ],
    "exp": unary("exp"),
    "expm1": unary("expm1"),
    "log": unary("log", positive),
    "log1p": unary("log1p", positive),
    "log2": unary("log2", positive),
    "log10": unary("log10", positive),
    "logaddexp": binary("logaddexp", complex=False),
    "sin": unary("sin"),
    "cos": unary("cos"),
    "tan": unary("tan", inside),
    "asin": unary("asin", inside),
    "acos": unary("acos", inside),
    "atan": unary("atan"),
    "sinh": unary("sinh"),
    "cosh": unary("cosh"),
    "tanh": unary("tanh"),
    "asinh": unary("asinh"),
    "acosh": unary("acosh", above_one),
    "atanh": unary("atanh", inside),
    "atan2": binary("atan2", complex=False),
    "hypot": binary("hypot", complex=False),
    "abs": [*unary("abs"), Case(lambda xp, x: abs(x), (3,))],
    "sign": unary("sign"),
    "copysign": binary("copysign", complex=False, number=-1.7),
    "nextafter": binary("nextafter", complex=False)[:7],
    "maximum": binary("maximum", complex=False)[:-1],
    "minimum": binary("minimum", complex=False)[:-1],
    "clip": [
        Case(lambda xp, x: xp.clip(x, -0.5, 0.5), (2, 3)),
        Case(lambda xp, x: xp.clip(x, min=0.1), (5,)),
        Case(lambda xp, x: xp.clip(x, max=0.1), (5,)),
        Case(lambda xp, x: xp.clip(x), (2,)),
        Case(
            lambda xp, x, low, high: xp.clip(x, low, high),
            (2, 5),
            uniform(-0.5, -0.1, 5),
            uniform(0.1, 0.5, 5),
        ),
        Case(lambda xp, x: xp.clip(x, 0, 1), (0,)),
    ],
    "where": [
        *(
            Case(
                lambda xp, x1, x2: xp.where(xp.asarray([True, False, True], device=x1.device), x1, x2),
                *shapes,
            )
            for shapes in [((3,), (3,)), ((2, 3), (3,)), ((1,), (2, 1)), ((), (3,)), ((0, 3), (3,)), ((), ())]
        ),
        Case(lambda xp, x: xp.where(x > 0, x, 0.0), (5,)),
        Case(lambda xp, x: xp.where(x > 0, 1.0, x * x), (5,)),
        Case(lambda xp, x: xp.where(xp.real(x) > 0, x, 2j * x), complexes(5)),
    ],
    "conj": [Case(lambda xp, x: xp.conj(x), complexes(*s)) for s in [(3,), (), (0,)]],
    "logistic": [Case(lambda xp, x: logistic(xp, x), shape) for shape in [(2, 3), ()]],
    "one_less_square": [Case(lambda xp, x: one_less_square(xp, x), draw) for draw in [(3,), complexes(3)]],
    "real": [Case(lambda xp, x: xp.real(x), complexes(*s)) for s in [(3,), (), (0,)]],
    "imag": [Case(lambda xp, x: xp.imag(x), complexes(*s)) for s in [(3,), (), (0,)]],
}

# What has no gradient, but values.
CONSTANT = {
    **{
        name: Case(lambda xp, x, name=name: getattr(xp, name)(x), (2, 3))
        for name in ("ceil", "floor", "round", "trunc", "isfinite", "isinf", "isnan", "signbit")
    },
    "logical_not": Case(lambda xp, x: xp.logical_not(x > 0), (3,)),
    "bitwise_invert": Case(lambda xp, x: ~(x > 0), (3,)),
    **{
        name: Case(lambda xp, x1, x2, name=name: getattr(xp, name)(x1, x2), (2, 3), (3,))
        for name in (
            "equal",
            "not_equal",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
            "floor_divide",
        )
    },
    **{
        name: Case(lambda xp, x1, x2, name=name: getattr(xp, name)(x1 > 0, x2 > 0), (2, 3), (3,))
        for name in ("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor")
    },
    **{
        name: Case(lambda xp, x, name=name: getattr(xp, name)(xp.astype(x * 9, xp.int64), 2), (3,))
        for name in ("bitwise_left_shift", "bitwise_right_shift")
    },
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
    assert_same(result, case(*arrays))
    for g, x in zip(pullback(result), arrays, strict=True):
        assert_same(g, 0 * x)


@pytest.mark.parametrize(
    ("f", "x", "gradient"),
    [
        (lambda xp, x: xp.maximum(x, 0), 0.0, 0.0),
        (lambda xp, x: xp.minimum(x, 0), 0.0, 0.0),
        (lambda xp, x: xp.maximum(0, x), 0.0, 1.0),
        (lambda xp, x: xp.maximum(x, x), 1.0, 1.0),
        (lambda xp, x: xp.minimum(x, x), 1.0, 1.0),
        (lambda xp, x: xp.abs(x), 0.0, 0.0),
        (lambda xp, x: x**0, 0.0, 0.0),
        (lambda xp, x: x**2, 0.0, 0.0),
        (lambda xp, x: x**1.0, 0.0, 1.0),
        (lambda xp, x: x ** xp.zeros_like(x), 0.0, 0.0),
        (lambda xp, x: xp.clip(x, 0, 1), 0.0, 0.0),
        (lambda xp, x: xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1.0)), 0.0), 0.0, 0.0),
    ],
)
def test_kinks(f, x, gradient, xp):
    x = array(x)
    assert_same(xpnet.grad(lambda x: f(x.__array_namespace__(), x))(x), numpy.asarray(gradient))


@pytest.mark.parametrize(
    ("x1", "x2", "gradients"),
    [(1000.0, -1000.0, (1.0, 0.0)), (numpy.inf, 1.0, (1.0, 0.0)), (1.0, -numpy.inf, (1.0, 0.0))],
)
def test_logaddexp_beyond_the_range_of_exp(x1, x2, gradients, xp):
    received = xpnet.grad(lambda x1, x2: x1.__array_namespace__().logaddexp(x1, x2), (0, 1))(
        array(x1), array(x2)
    )
    for one, expected in zip(received, gradients, strict=True):
        assert_same(one, numpy.asarray(expected))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
@pytest.mark.parametrize(("x1", "x2"), [(numpy.nan, 1.0), (1.0, numpy.nan)])
def test_beside_nan_the_second_has_the_gradient(name, x1, x2, xp):
    def f(x1, x2):
        return 3 * getattr(x1.__array_namespace__(), name)(x1, x2)

    first, second = xpnet.grad(f, (0, 1))(array(x1), array(x2))
    assert_same(first, numpy.asarray(0.0))
    assert_same(second, numpy.asarray(3.0))


def test_clip_without_bounds_is_a_copy(xp):
    def f(x):
        y = x.__array_namespace__().clip(x)
        y += 1
        return x * y

    assert_same(xpnet.grad(f)(array(2.0)), numpy.asarray(5.0))


def test_clip_keeps_the_dtype(xp):
    x = xpnet.trace(array([-1.0, 2.0], "float32"))
    clipped = xpnet.array_namespace(x).clip(x, array(0.5, "float64"), 1.0)
    assert_same(clipped.value, array([0.5, 1.0], "float32"))


def test_a_power_of_an_unsigned_zero():
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(x ** numpy.uint8(0)))
    assert_same(gradient(numpy.asarray([0.0, 2.0])), numpy.zeros(2))


@pytest.mark.parametrize("order", [1, 2])
def test_complex_sign_changes_with_the_phase(xp, order):
    z = array(values(1.0, -2.0)(None) + 1j)
    xpnet.check_gradients(lambda z: xpnet.array_namespace(z).sign(z), z, order=order)
