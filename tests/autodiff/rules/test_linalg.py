import math

import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, complexes, named, signed
from autodiff.rules.test_decompositions import complex_matrices, each, matrices

MATMUL = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 2, 3), (3, 4)),
    ((2, 3), (2, 3, 4)),
    ((2, 1, 2, 3), (3, 3, 2)),
    ((2, 2, 3), (3,)),
    ((3,), (2, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 2)),
    ((2, 0, 3), (3, 2)),
    ((2, 2, 0), (0, 2)),
    ((0,), (0,)),
    (complexes(2, 3), complexes(3, 2)),
    (complexes(2, 3), (3, 2)),
    ((2, 2, 3), complexes(3, 2)),
    (complexes(3), complexes(3)),
]

CROSS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((2, 1, 3), (4, 3)),
    (complexes(2, 3), complexes(2, 3)),
    (complexes(3), (2, 3)),
]
ORDERS = (0.5, 1, 2, 3, 2.5, -1, -2.5, math.inf, -math.inf)
MATRIX_ORDERS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)

CASES = {
    "matmul": [
        *(Case(lambda xp, x1, x2: xp.matmul(x1, x2), *pair) for pair in MATMUL),
        Case(lambda xp, x: x @ x, (2, 2)),
    ],
    "vecdot": [
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (3,), (3,)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (2, 3), (2, 3)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (2, 1, 3), (4, 3)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2, axis=-2), (3, 2), (4, 3, 1)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (2, 0), (2, 0)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), complexes(2, 3), complexes(3)),
        Case(lambda xp, x1, x2: xp.linalg.vecdot(x1, x2, axis=-2), (3, 2), complexes(3, 2)),
    ],
    "tensordot": [
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=1), (2, 3), (3, 4)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2), (2, 3, 4), (3, 4, 2)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=0), (2,), (2, 3)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((0, 2), (2, 1))), (2, 3, 4), (2, 4, 2)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((2, 0), (1, 2))), (2, 3, 4), (3, 4, 2)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((-1,), (-2,))), (2, 3), (2, 3, 4)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((1,), (0,))), (0, 3), (3, 2)),
        Case(lambda xp, x1, x2: xp.linalg.tensordot(x1, x2, axes=1), complexes(2, 3), complexes(3)),
    ],
    "linalg.diagonal": [
        Case(lambda xp, x, offset=offset: xp.linalg.diagonal(x, offset=offset), draw)
        for offset in (-2, -1, 0, 1, 3)
        for draw in (signed(3, 4), complexes(2, 4, 3))
    ],
    "linalg.trace": [
        Case(lambda xp, x: xp.linalg.trace(x), (3, 3)),
        Case(lambda xp, x: xp.linalg.trace(x, offset=-1), complexes(2, 3, 2)),
        Case(lambda xp, x: xp.linalg.trace(x, offset=1, dtype=xp.float64), (2, 3, 4)),
    ],
    "linalg.outer": [
        Case(lambda xp, x1, x2: xp.linalg.outer(x1, x2), *pair)
        for pair in [((2,), (3,)), (complexes(2), complexes(3)), ((2,), complexes(3)), ((0,), (2,))]
    ],
    "linalg.cross": [
        *(Case(lambda xp, x1, x2: xp.linalg.cross(x1, x2), *pair) for pair in CROSS),
        Case(lambda xp, x1, x2: xp.linalg.cross(x1, x2, axis=-2), (3, 2), (2, 3, 1)),
    ],
    "p_norm": each(
        lambda xp, x: xp.linalg.vector_norm(x, ord=1.5, axis=-1, keepdims=True), [signed(2, 3), complexes(3)]
    ),
    "linalg.vector_norm": [
        *(
            Case(lambda xp, x, ord=ord: xp.linalg.vector_norm(x, ord=ord), draw)
            for ord in ORDERS
            for draw in (signed(4), complexes(2, 3))
        ),
        Case(lambda xp, x: xp.linalg.vector_norm(x), ()),
        Case(lambda xp, x: xp.linalg.vector_norm(x, axis=0), (2, 3)),
        Case(lambda xp, x: xp.linalg.vector_norm(x, axis=-1, keepdims=True), complexes(2, 3)),
        Case(lambda xp, x: xp.linalg.vector_norm(x, axis=(0, 2), ord=3), (2, 3, 2)),
        Case(lambda xp, x: xp.linalg.vector_norm(x, axis=(-1, 0), ord=math.inf, keepdims=True), (2, 3, 2)),
        Case(lambda xp, x: xp.linalg.vector_norm(x, keepdims=True, ord=1), (2, 3)),
        Case(lambda xp, x: xp.linalg.vector_norm(x, axis=-1), (2, 0)),
    ],
    "linalg.matrix_norm": [
        Case(
            lambda xp, x, ord=ord, keepdims=keepdims: xp.linalg.matrix_norm(x, ord=ord, keepdims=keepdims),
            draw,
        )
        for ord in MATRIX_ORDERS
        for draw, keepdims in [(matrices(3, 2), False), (complex_matrices(2, 2, 3), True)]
    ],
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


def linalg(x):
    return xpnet.array_namespace(x).linalg


def total(x):
    return xpnet.array_namespace(x).sum(x)


# -- norms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ord", [1, 2, 3, 2.5, math.inf])
@pytest.mark.parametrize("axis", [None, -1])
def test_a_vector_norm_has_the_gradient_0_at_0(ord, axis, xp):
    x = array([[0.0, 0.0], [0.0, 0.0]])

    def f(x):
        xp = x.__array_namespace__()
        return xp.sum(xp.linalg.vector_norm(x, axis=axis, ord=ord))

    assert_same(xpnet.grad(f)(x), xp.zeros_like(x))


@pytest.mark.parametrize("ord", [0.5, 1, 2, 3, 2.5, -1, -2.5])
@pytest.mark.parametrize(("dtype", "scale"), [("float64", 2.0**700), ("float32", 2.0**100)])
def test_a_norm_of_elements_whose_powers_overflow_or_vanish(ord, dtype, scale, xp):
    def f(x):
        return linalg(x).vector_norm(x, ord=ord)

    value, gradient = xpnet.value_and_grad(f)(array([3.0, -4.0], dtype))
    for factor in (scale, 1 / scale):
        of_scaled, gradient_of_scaled = xpnet.value_and_grad(f)(array([3.0 * factor, -4.0 * factor], dtype))
        assert_same(of_scaled / factor, value)
        assert_same(gradient_of_scaled, gradient)


def test_a_zero_has_an_infinite_derivative_in_a_norm_of_an_order_below_1(xp):
    f = xpnet.grad(lambda x: linalg(x).vector_norm(x, ord=0.5))
    assert_same(f(array([0.0, 4.0, 4.0])), array([math.nan, 2.0, 2.0]))  # and spoils no other
    assert_same(f(array([0j, 4j])), array([complex(math.nan, math.nan), 1j]))
    assert_same(f(array([0.0, 0.0])), array([0.0, 0.0]))


@pytest.mark.parametrize("ord", [-1, -2.5])
def test_a_norm_of_a_negative_order_has_the_gradient_0_where_an_element_is_0(ord, xp):
    x = array([0.0, 2.0])
    value, gradient = xpnet.value_and_grad(lambda x: linalg(x).vector_norm(x, ord=ord))(x)
    assert_same(value, array(0.0))
    assert_same(gradient, array([0.0, 0.0]))


def test_a_norm_that_overflows_has_no_gradient(xp):
    with numpy.errstate(over="ignore"):
        gradient = xpnet.grad(lambda x: linalg(x).vector_norm(x))(array(numpy.full(100, 4e307)))
    assert_same(gradient, array(numpy.full(100, math.nan)))


def test_the_norm_of_complex_zeros_has_the_gradient_0(xp):
    x = array([[0j, 0j], [3j, -4.0]])
    gradient = xpnet.grad(lambda x: total(linalg(x).vector_norm(x, axis=1)))(x)
    assert_same(gradient, array([[0j, 0j], [0.6j, -0.8]]))
    assert_same(xpnet.grad(lambda x: linalg(x).matrix_norm(x))(0 * x), 0 * x)


def test_the_number_of_nonzero_elements_has_the_gradient_0(xp):
    x = array([1.0, 0.0, 3.0])
    assert_same(xpnet.value_and_grad(lambda x: linalg(x).vector_norm(x, ord=0) + x[0])(x)[0], array(3.0))
    assert_same(xpnet.grad(lambda x: linalg(x).vector_norm(x, ord=0) + x[0])(x), array([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("ord", [0, 0.5, 1, 2, 3, math.inf, -math.inf])
def test_special_values_of_a_vector_norm(ord, xp):
    for x in (array([1.0, math.nan]), array([1.0, math.inf]), array([math.inf, -math.inf])):
        expected = linalg(x).vector_norm(x, ord=ord)
        assert_same(xpnet.vjp(lambda x: linalg(x).vector_norm(x, ord=ord), x)[0], expected)


def test_an_order_that_a_matrix_norm_has_not(xp):
    with pytest.raises(ValueError, match=r"ord must be one of 'fro', .*received 3"):
        xpnet.grad(lambda x: linalg(x).matrix_norm(x, ord=3))(array([[1.0]]))
