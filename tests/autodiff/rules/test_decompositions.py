import math

import numpy
import pytest
from helpers import assert_same

import xpnet
from autodiff.cases import Case, array, complexes, named, signed
from xpnet.autodiff.rules.elementwise import conj


def matrices(*shape):
    """Matrices with singular values, and eigenvalues, far from each other and from 0."""

    def draw(random):
        rows, columns = shape[-2:]
        diagonal = numpy.eye(rows, columns) * numpy.linspace(2.0, 5.0, columns)
        return diagonal + random.uniform(-0.5, 0.5, size=shape)

    return draw


def complex_matrices(*shape):
    return lambda random: matrices(*shape)(random) + 1j * random.uniform(-0.5, 0.5, size=shape)


SQUARE = [matrices(3, 3), matrices(2, 3, 3), complex_matrices(2, 3, 3), matrices(1, 1)]
SINGULAR = [
    lambda random: numpy.asarray([[1.0, 2.0], [2.0, 4.0]]),
    lambda random: numpy.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
    lambda random: random.normal(size=(3, 2)) @ random.normal(size=(2, 3)),
    lambda random: numpy.asarray([[1.0, 2.0], [3.0, 5.0], [0.0, 2.0], [0.0, 3.0]]).reshape(2, 2, 2),
    lambda random: numpy.asarray([[1.0, 1j, 2.0], [2.0, 2j, 4.0], [0.0, 1j, 3.0]]),
    lambda random: numpy.zeros((1, 1)),
]
OBLONG = [matrices(4, 3), matrices(2, 3, 4), complex_matrices(4, 2), complex_matrices(2, 2, 3)]


def each(function, inputs, **options):
    return [Case(lambda xp, x: function(xp, x, **options), x) for x in inputs]


def adjoint(xp, x):
    return conj(xp, xp.matrix_transpose(x))


def diagonal(xp, values, like):
    """Let numbers stand for diagonal matrices on the right of others."""
    return xp.astype(values, like.dtype)[..., None, :]


# Signs, and phases of complex numbers, are free in many factorizations, so what does not depend on them is
# checked. A symmetric matrix stays one in finite differences, as it is made in the call.


def spectrum(xp, x):
    w, v = xp.linalg.eigh(x + adjoint(xp, x))
    return w, (v * diagonal(xp, w**2, v)) @ adjoint(xp, v), xp.abs(v) ** 2


def singular(xp, x, full_matrices=False):
    u, s, vh = xp.linalg.svd(x, full_matrices=full_matrices)
    return (u * diagonal(xp, s**2, u)) @ vh, s, xp.abs(u) ** 2, xp.abs(vh) ** 2


def eigen(xp, x):
    w, v = xp.linalg.eig(x)
    sizes = xp.sum(xp.abs(v) ** 4, axis=-2)
    w, sizes = w * w * w, xp.astype(sizes, w.dtype)
    return xp.sum(w, axis=-1), xp.sum(w * sizes, axis=-1)


def eigenvectors(xp, x):
    """The matrix to the third power, of which each eigenvector is its part whatever its length and phase."""
    w, v = xp.linalg.eig(x)
    return (v * (w * w * w)[..., None, :]) @ xp.linalg.inv(v)


SOLVE = [
    (matrices(3, 3), (3, 2)),
    (matrices(3, 3), (3,)),
    (matrices(2, 3, 3), (3,)),
    (matrices(2, 3, 3), (3, 1)),
    (matrices(2, 2), (3, 2, 3)),
    (matrices(2, 1, 2, 2), (3, 2, 2)),
    (complex_matrices(2, 2), complexes(2, 3)),
    (complex_matrices(2, 2), complexes(2)),
    (complex_matrices(2, 2, 2), (2, 1)),
    (matrices(2, 2), complexes(2, 1)),
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
    "linalg.inv": each(lambda xp, x: xp.linalg.inv(x), SQUARE),
    "linalg.solve": [Case(lambda xp, x1, x2: xp.linalg.solve(x1, x2), *pair) for pair in SOLVE],
    "linalg.pinv": [
        *each(lambda xp, x: xp.linalg.pinv(x), [*SQUARE, *OBLONG]),
        Case(lambda xp, x: xp.linalg.pinv(x, rtol=1e-8), matrices(3, 2)),
    ],
    "linalg.det": each(lambda xp, x: xp.linalg.det(x), SQUARE),
    "linalg.slogdet": [
        *each(lambda xp, x: tuple(xp.linalg.slogdet(x)), SQUARE),
        *each(lambda xp, x: xp.linalg.slogdet(x).logabsdet, [matrices(2, 2), complex_matrices(2, 2)]),
        *each(lambda xp, x: xp.linalg.slogdet(-x)[0], [complex_matrices(3, 3)]),
    ],
    "linalg.matrix_power": [
        Case(lambda xp, x, n=n: xp.linalg.matrix_power(x, n), draw)
        for n in (-2, -1, 0, 1, 2, 3, 5)
        for draw in (matrices(2, 2), complex_matrices(2, 2, 2))
    ],
    "linalg.cholesky": [
        Case(lambda xp, x, upper=upper: xp.linalg.cholesky(x @ adjoint(xp, x), upper=upper), draw)
        for upper in (False, True)
        for draw in SQUARE
    ],
    "linalg.qr": [
        *each(lambda xp, x: tuple(xp.linalg.qr(x)), [*SQUARE, *OBLONG]),
        *each(lambda xp, x: xp.linalg.qr(x).Q, [matrices(3, 2), complex_matrices(2, 3)]),
        *each(lambda xp, x: xp.linalg.qr(x).R, [matrices(3, 2), complex_matrices(2, 3)]),
        *each(lambda xp, x: tuple(xp.linalg.qr(x, mode="complete")), [matrices(3, 3), matrices(2, 3)]),
    ],
    "linalg.eigh": [
        *each(spectrum, SQUARE),
        *each(lambda xp, x: xp.linalg.eigh(x + adjoint(xp, x)).eigenvalues, [complex_matrices(2, 2)]),
    ],
    "linalg.eigvalsh": each(lambda xp, x: xp.linalg.eigvalsh(x + adjoint(xp, x)), SQUARE),
    "linalg.svd": [
        *each(singular, [*SQUARE, *OBLONG]),
        *each(singular, [matrices(3, 3), complex_matrices(2, 2)], full_matrices=True),
        *each(lambda xp, x: xp.linalg.svd(x, full_matrices=False).S, [complex_matrices(2, 3)]),
    ],
    "linalg.svdvals": each(lambda xp, x: xp.linalg.svdvals(x), [*SQUARE, *OBLONG]),
    "linalg.eig": [*each(eigen, SQUARE), *each(eigenvectors, SQUARE)],
    "linalg.eigvals": each(lambda xp, x: xp.sum(xp.linalg.eigvals(x) ** 3, axis=-1), SQUARE),
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


# -- where a function has no derivative ---------------------------------------------------------------------


@pytest.mark.parametrize("ord", [1, 2, 3, 2.5, math.inf])
@pytest.mark.parametrize("axis", [None, -1])
def test_a_vector_norm_has_the_gradient_0_at_0(ord, axis, xp):
    x = array([[0.0, 0.0], [0.0, 0.0]])

    def f(x):
        xp = x.__array_namespace__()
        return xp.sum(xp.linalg.vector_norm(x, axis=axis, ord=ord))

    assert_same(xpnet.grad(f)(x), xp.zeros_like(x))


def test_the_norm_of_complex_zeros_has_the_gradient_0(xp):
    x = array([[0j, 0j], [3j, -4.0]])
    gradient = xpnet.grad(lambda x: _sum(_linalg(x).vector_norm(x, axis=1)))(x)
    assert_same(gradient, array([[0j, 0j], [0.6j, -0.8]]))
    assert_same(xpnet.grad(lambda x: _linalg(x).matrix_norm(x))(0 * x), 0 * x)


def test_the_number_of_nonzero_elements_has_the_gradient_0(xp):
    x = array([1.0, 0.0, 3.0])
    assert_same(xpnet.value_and_grad(lambda x: _linalg(x).vector_norm(x, ord=0) + x[0])(x)[0], array(3.0))
    assert_same(xpnet.grad(lambda x: _linalg(x).vector_norm(x, ord=0) + x[0])(x), array([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("ord", [0, 0.5, 1, 2, 3, math.inf, -math.inf])
def test_special_values_of_a_vector_norm(ord, xp):
    for x in (array([1.0, math.nan]), array([1.0, math.inf]), array([math.inf, -math.inf])):
        expected = _linalg(x).vector_norm(x, ord=ord)
        assert_same(xpnet.vjp(lambda x: _linalg(x).vector_norm(x, ord=ord), x)[0], expected)


def test_an_order_that_a_matrix_norm_has_not(xp):
    with pytest.raises(ValueError, match=r"ord must be one of 'fro', .*received 3"):
        xpnet.grad(lambda x: _linalg(x).matrix_norm(x, ord=3))(array([[1.0]]))


def test_equal_eigenvalues_have_gradients(xp):
    x, weights = array([[2.0, 0.0], [0.0, 2.0]]), array([1.0, 3.0])
    for values in (
        lambda x: _linalg(x).eigvalsh(x),
        lambda x: _linalg(x).eigh(x).eigenvalues,
        lambda x: _linalg(x).svdvals(x),
        lambda x: _linalg(x).svd(x).S,
    ):
        # Which of the two is which is free, but not what their sum is.
        assert_same(xpnet.grad(lambda x, v=values: _sum(v(x)))(x), array([[1.0, 0.0], [0.0, 1.0]]))
        gradient = xpnet.grad(lambda x, v=values: _sum(v(x) * weights))(x)
        assert_same(xp.linalg.trace(gradient), array(4.0))
        assert_same(gradient, xp.matrix_transpose(gradient))


def test_a_matrix_of_zeros_has_singular_values_with_gradients(xp):
    x = array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    for values in (lambda x: _linalg(x).svdvals(x), lambda x: _linalg(x).svd(x, full_matrices=False).S):
        gradient = xpnet.grad(lambda x, v=values: _sum(v(x)))(x)
        assert_same(xp.matrix_transpose(gradient) @ gradient, array([[1.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("case", each(lambda xp, x: xp.linalg.det(x), SINGULAR))
def test_a_determinant_has_gradients_where_it_is_0(case, xp):
    case.check_values()
    # Beside such a matrix, the inverses of the finite differences are not as exact as elsewhere.
    xpnet.check_gradients(case, *case.arrays(), order=2, tolerance=1e-4)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_determinant_has_the_gradient_0_where_the_rank_is_low(rank, xp):
    x = array(rank * numpy.outer([1.0, 2.0, 3.0], [1.0, -1.0, 2.0]))
    assert_same(xpnet.grad(lambda x: _linalg(x).det(x))(x), 0 * x)


def test_only_a_singular_matrix_of_a_stack_is_treated_as_one(xp):
    regular = numpy.eye(2)  # of equal singular values, through which there is no second order
    x = array(numpy.stack([regular, numpy.ones((2, 2))]))
    gradient = xpnet.grad(lambda x: _sum(_linalg(x).det(x)))
    assert_same(gradient(x), array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]]))
    second = xpnet.grad(lambda x: gradient(x)[0, 0, 0])(x)
    assert_same(second, array([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]))


def test_a_determinant_of_many_rows_does_not_overflow_on_the_way():
    x = 2.0**3 * numpy.eye(340)
    assert_same(xpnet.grad(lambda x: _linalg(x).det(x))(x), 2.0**1017 * numpy.eye(340), tolerance=1e-9)


def test_the_threshold_of_a_pseudo_inverse_has_no_gradient(xp):
    x = array([[1.0, 0.0], [0.0, 4.0]])
    y = _linalg(x).pinv(x, rtol=0.5)

    def f(x, threshold):
        return _sum(_linalg(x).pinv(x, rtol=threshold))

    assert_same(xpnet.vjp(lambda x, t: _linalg(x).pinv(x, rtol=t), x, array(0.5))[0], y)
    gradients = xpnet.grad(f, (0, 1))(x, array(0.5))
    assert_same(gradients[0], xpnet.grad(lambda x: _sum(_linalg(x).pinv(x, rtol=0.5)))(x))
    assert_same(gradients[1], array(0.0))


def test_freely_chosen_columns_have_no_gradient(xp):
    x = array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])
    q = _linalg(x).qr(x, mode="complete").Q  # plain arrays have them
    assert tuple(q.shape) == (3, 3)
    with pytest.raises(NotImplementedError, match='mode="reduced"'):
        xpnet.grad(lambda x: _sum(_linalg(x).qr(x, mode="complete").R))(x)
    for tall_or_wide in (x, xp.matrix_transpose(x)):
        with pytest.raises(NotImplementedError, match="full_matrices=False"):
            xpnet.grad(lambda x: _sum(_linalg(x).svd(x).S))(tall_or_wide)


def test_a_rank_has_no_gradient(xp):
    x = array([[1.0, 2.0], [2.0, 4.0]])

    def f(x):
        rank = _linalg(x).matrix_rank(x)
        assert rank.node is None
        return _sum(x) * int(rank)

    assert_same(xpnet.grad(f)(x), array([[1.0, 1.0], [1.0, 1.0]]))


def _linalg(x):
    return xpnet.array_namespace(x).linalg


def _sum(x):
    return xpnet.array_namespace(x).sum(x)
