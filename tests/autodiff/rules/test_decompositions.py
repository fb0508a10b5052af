import math

import numpy
import pytest
from helpers import array, assert_same, rounding

import xpnet
from autodiff.cases import Case, complexes, named
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
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


# -- where a function has no derivative ---------------------------------------------------------------------


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


def rotation(*shape, seed=1):
    """A matrix with orthonormal columns, or rows, of complex numbers if the seed is negative."""
    random = numpy.random.default_rng(abs(seed))
    x = random.normal(size=shape) + (1j * random.normal(size=shape) if seed < 0 else 0)
    u, _, vh = numpy.linalg.svd(x, full_matrices=False)
    return u @ vh


def weighted(weights, x):
    """The sum of the real parts of the elements, each times a weight, as a gradient has it."""
    return _sum(_real(x) * array(weights.real)) + _sum(_imag(x) * array(weights.imag))


def polar(x):
    u, _, vh = _linalg(x).svd(x, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)])
@pytest.mark.parametrize("seed", [1, -1])
def test_the_nearest_rotation_has_a_gradient_where_singular_values_are_equal(shape, seed, xp):
    q, weights = rotation(*shape, seed=seed), numpy.random.default_rng(3).normal(size=shape)
    weights = weights + 1j * weights[::-1, ::-1] if seed < 0 else weights
    # Beside 2 q, the nearest rotation of 2 q + d changes by half of the part of d that turns q.
    if shape[0] < shape[1]:
        inside = weights @ q.conj().T @ q
        expected = (inside - q @ weights.conj().T @ q) / 4 + (weights - inside) / 2
    else:
        inside = q @ q.conj().T @ weights
        expected = (inside - q @ weights.conj().T @ q) / 4 + (weights - inside) / 2
    assert_same(xpnet.grad(lambda x: weighted(weights, polar(x)))(array(2 * q)), array(expected))


def test_the_nearest_rotation_of_the_identity(xp):
    weights = numpy.arange(9.0).reshape(3, 3) ** 2
    gradient = xpnet.grad(lambda x: weighted(weights, polar(x)))(array(2 * numpy.eye(3)))
    assert_same(gradient, array((weights - weights.T) / 4))


def test_the_nearest_rotation_of_a_plane(xp):
    """What lies in a plane has a singular value of 0, as in the method of Kabsch."""
    weights = numpy.arange(9.0).reshape(3, 3) ** 2
    gradient = xpnet.grad(lambda x: weighted(weights, polar(x)))(array(numpy.diag([3.0, 1.0, 0.0])))
    sums = numpy.asarray([[1.0, 4.0, 3.0], [4.0, 1.0, 1.0], [3.0, 1.0, 1.0]])
    assert_same(gradient, array((weights - weights.T) / sums))


def test_a_projection_has_a_gradient_where_eigenvalues_within_it_are_equal(xp):
    q, weights = rotation(4, 4), numpy.arange(16.0).reshape(4, 4)
    weights = weights + weights.T

    def largest(x):
        v = _linalg(x).eigh(x).eigenvectors[:, 2:]
        return weighted(weights, v @ v.mT)

    inside = q[:, 2:] @ q[:, 2:].T
    expected = (inside @ weights @ (numpy.eye(4) - inside) + (numpy.eye(4) - inside) @ weights @ inside) / 2
    assert_same(xpnet.grad(largest)(array(q @ numpy.diag([1.0, 1.0, 3.0, 3.0]) @ q.T)), array(expected))


def exact_or_nan(actual, expected):
    assert_same(
        xpnet.array_namespace(actual).where(actual == actual, actual, expected), expected, tolerance=1e-9
    )


def reconstructed(x, function=lambda s: s):
    u, s, vh = _linalg(x).svd(x, full_matrices=False)
    return (u * diagonal(xpnet.array_namespace(x), function(s), u)) @ vh


def reconstructed_symmetric(x):
    w, v = _linalg(x).eigh((x + x.mT) / 2)
    return (v * w) @ v.mT + (x - x.mT) / 2


def reconstructed_by_eig(x):
    w, v = _linalg(x).eig(x)
    return _real((v * w) @ _linalg(x).inv(v))


EQUAL = {
    "identity": 2 * numpy.eye(3),
    "turned": 2 * rotation(3, 3),
    "zeros": numpy.zeros((3, 3)),
    "two": numpy.diag([2.0, 2.0, 5.0]),
    "nearly": numpy.diag([2.0, 2.0 + 4e-16, 5.0]),
    "low rank": numpy.diag([2.0, 0.0, 0.0]),
}
WEIGHTS = {
    "all": numpy.ones((3, 3)),
    "diagonal": numpy.eye(3),
    "off the diagonal": 1 - numpy.eye(3),
    "one": numpy.asarray([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
}


# Vectors that are multiplied by values of 0 tell nothing of each other: see docs/gradients.md.
SHOWN = [
    (equal, weight)
    for equal in EQUAL
    for weight in WEIGHTS
    if equal not in ("zeros", "low rank") or weight in ("all", "diagonal")
]


@pytest.mark.parametrize(("equal", "weight"), SHOWN)
@pytest.mark.parametrize("function", [reconstructed, reconstructed_symmetric, reconstructed_by_eig])
def test_a_matrix_that_is_put_together_again_has_its_gradient_or_nan(function, equal, weight, xp):
    weights = numpy.arange(1.0, 10.0).reshape(3, 3) ** 2 * WEIGHTS[weight]
    with numpy.errstate(all="ignore"):
        gradient = xpnet.grad(lambda x: weighted(weights, function(x)))(array(EQUAL[equal]))
    exact_or_nan(gradient, array(weights))


def only_v(x):
    _, s, vh = _linalg(x).svd(x)
    return (vh.mT * s**2) @ vh


@pytest.mark.parametrize("equal", EQUAL)
@pytest.mark.parametrize("weights", [numpy.ones((3, 3)), numpy.arange(9.0).reshape(3, 3) ** 2])
def test_values_with_vectors_of_one_side_have_their_gradient_or_nan(weights, equal, xp):
    x = array(EQUAL[equal])
    with numpy.errstate(all="ignore"):
        gradient = xpnet.grad(lambda x: weighted(weights, only_v(x)))(x)
    exact_or_nan(gradient, xpnet.grad(lambda x: weighted(weights, x.mT @ x))(x))


def test_one_of_two_equal_values_with_its_vectors_has_no_gradient(xp):
    """Neither of the two elements that lie between them, though the function uses one of the two."""

    def first(x):
        u, s, vh = _linalg(x).svd(x)
        return weighted(numpy.ones((2, 2)), (u[:, :1] * s[:1]) @ vh[:1, :])

    with numpy.errstate(all="ignore"):
        gradient = xpnet.to_numpy(xpnet.grad(first)(array(2 * numpy.eye(2))))
    assert numpy.isnan(gradient[0, 1])
    assert numpy.isnan(gradient[1, 0])


@pytest.mark.parametrize(("shape", "rank"), [((2, 2), 0), ((3, 2), 1), ((2, 3), 1)])
def test_the_nearest_rotation_of_vectors_that_can_be_chosen_freely_has_no_gradient(shape, rank, xp):
    x, weights = numpy.zeros(shape), numpy.arange(6.0)[: shape[0] * shape[1]].reshape(shape)
    x[range(rank), range(rank)] = 1.0
    with numpy.errstate(all="ignore"):
        gradient = xpnet.to_numpy(xpnet.grad(lambda x: weighted(weights, polar(x)))(array(x)))
    assert numpy.isnan(gradient).any()


@pytest.mark.parametrize(("roundings", "is_nan"), [(8, True), (100, False)])
def test_how_near_equal_values_are(roundings, is_nan, xp):
    x = array(numpy.diag([1.0, 1.0 + roundings * 2.0**-52]))
    for function in (reconstructed, reconstructed_symmetric):
        gradient = xpnet.grad(lambda x, f=function: weighted(numpy.ones((2, 2)), f(x)))(x)
        assert bool(numpy.isnan(xpnet.to_numpy(gradient)).any()) == is_nan


@pytest.mark.parametrize("equal", [key for key in EQUAL if key != "turned"])
@pytest.mark.parametrize("name", ["svdvals", "eigvalsh", "eigvals", "svd"])
def test_gradients_of_gradients_of_equal_values_are_right_or_nan(name, equal, xp):
    def squares(x):
        values = getattr(_linalg(x), name)(x)
        values = values.S if name == "svd" else values
        return _real(_sum(values * values))

    def known(x):
        return _sum(x * x) if name.startswith("svd") else _sum(x * x.mT)

    x = array(EQUAL[equal])
    vectors = [numpy.eye(3), numpy.ones((3, 3)), numpy.diag([1.0, 2.0, 3.0]), numpy.eye(3)[[1, 0, 2]]]
    assert_same(xpnet.grad(squares)(x), xpnet.grad(known)(x))
    for vector in vectors:
        with numpy.errstate(all="ignore"):
            actual = xpnet.hvp(squares, (x,), (array(vector),))[0]
            exact_or_nan(actual, xpnet.hvp(known, (x,), (array(vector),))[0])
            assert_same(
                xpnet.jvp(squares, (x,), (array(vector),))[1], xpnet.jvp(known, (x,), (array(vector),))[1]
            )


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_singular_values_of_0(shape, rank, kind, xp):
    weights = numpy.arange(1.0, 1.0 + shape[0] * shape[1]).reshape(shape) ** 2
    weights = weights * (1 - 2j) if kind == "complex" else weights
    matrix = numpy.zeros(shape)
    matrix[range(rank), range(rank)] = [3.0, 1.0][:rank]
    x, vector = array(matrix.astype(weights.dtype)), array(weights)

    def squares(x):
        return _sum(_linalg(x).svdvals(x) ** 2)

    with numpy.errstate(all="ignore"):
        exact_or_nan(xpnet.grad(lambda x: weighted(weights, reconstructed(x)))(x), vector)
        exact_or_nan(xpnet.hvp(squares, (x,), (vector,))[0], 2 * vector)
        for index in numpy.ndindex(*shape):
            unit = numpy.zeros_like(weights)
            unit[index] = 1j if kind == "complex" else 1
            exact_or_nan(xpnet.hvp(squares, (x,), (array(unit),))[0], array(2 * unit))


def test_the_hessian_of_the_nuclear_norm_where_singular_values_are_equal(xp):
    weights = numpy.arange(9.0).reshape(3, 3) ** 2
    x = array(2 * numpy.eye(3))
    product = xpnet.hvp(lambda x: _linalg(x).matrix_norm(x, ord="nuc"), (x,), (array(weights),))[0]
    assert_same(product, array((weights - weights.T) / 4))


@pytest.mark.parametrize("matrix", [[[2.0, 1.0], [1.0, 3.0]], [[2.0, 1.0 + 1j], [1.0 - 1j, 3.0]]])
@pytest.mark.parametrize(
    "function", [polar, reconstructed, reconstructed_symmetric, reconstructed_by_eig, lambda x: x @ x]
)
def test_gradients_of_gradients_in_each_order_of_transforms(function, matrix, xp):
    """The sweep of a sweep starts at gradients of 0, where nothing is a kink that else is none."""
    x, vector = array(matrix), array(numpy.asarray([[1.0, 2.0], [5.0, -1.0]], dtype=type(matrix[0][1])))

    def f(x):
        return weighted(numpy.asarray([[1.0, 2.0], [3.0, 5.0]]), function(x) ** 2)

    expected = xpnet.hvp(f, (x,), (vector,))[0]
    assert_same(xpnet.jvp(xpnet.grad(f), (x,), (vector,))[1], expected)
    assert_same(xpnet.grad(lambda x: xpnet.jvp(f, (x,), (vector,))[1])(x), expected)


@pytest.mark.parametrize("matrix", [[[0.0]], [[1.0, 0.0], [0.0, 0.0]]])
def test_a_singular_value_of_0_in_each_order_of_transforms(matrix, xp):
    x = array(matrix)

    def squares(x):
        return _sum(_linalg(x).svdvals(x) ** 2)

    assert_same(xpnet.hvp(squares, (x,), (x + 1,))[0], 2 * (x + 1))
    assert_same(xpnet.jvp(xpnet.grad(squares), (x,), (x + 1,))[1], 2 * (x + 1))


@pytest.mark.parametrize("x", [[[1.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]], [[2.0, 1e9], [0.0, 2.0]]])
def test_a_defective_matrix_has_no_gradient(x, xp):
    def f(x):
        return _sum(_real(_linalg(x).eigvals(x) ** 3))

    x, nan = array(x), array([[math.nan, math.nan], [math.nan, math.nan]])
    assert_same(xpnet.grad(f)(x), nan)
    assert_same(xpnet.jvp(xpnet.grad(f), (x,), (x + 1,))[1], nan)


def test_a_phase_that_can_be_chosen_freely_has_no_gradient(xp):
    x = array([[2.0, 1j], [-1j, 3.0]])
    nan = array(numpy.full((2, 2), complex(math.nan, math.nan)))
    assert_same(xpnet.grad(lambda x: _sum(_real(_linalg(x).svd(x).U)))(x), nan)
    assert_same(xpnet.grad(lambda x: _sum(_real(_linalg(x).eigh(x).eigenvectors)))(x), nan)
    assert_same(xpnet.grad(lambda x: _sum(_real(_linalg(x).eig(x).eigenvectors)))(x), nan)

    def hardly(x):
        u, _, vh = _linalg(x).svd(x)
        return _sum(_real(u @ vh) + 1e-4 * _real(u))

    assert_same(xpnet.grad(hardly)(x), nan)


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


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_a_determinant_has_derivatives_whatever_the_rank(rank, kind, xp):
    random = numpy.random.default_rng(rank)
    a, b = random.normal(size=(3, rank)), random.normal(size=(rank, 3))
    x = array(a @ b if kind == "real" else (a + 1j * a[::-1, :]) @ b)

    def by_products(x):
        parts = [x[0, i] * (x[1, j] * x[2, k] - x[1, k] * x[2, j]) for i, j, k in CYCLES]
        return parts[0] + parts[1] + parts[2]

    def real_parts(determinant):
        return lambda x: _real(determinant(x) * (1 + 2j) if kind == "complex" else determinant(x))

    vector, known = (
        array(random.normal(size=(3, 3)) * (1 + 1j * (kind == "complex"))),
        real_parts(by_products),
    )
    f = real_parts(lambda x: _linalg(x).det(x))
    tolerance = rounding(1000, "float64", 10)
    for one, other in ((f, known), (_along(f, vector), _along(known, vector))):
        assert_same(xpnet.grad(one)(x), xpnet.grad(other)(x), tolerance=tolerance)
    second, expected = _along(_along(f, vector), vector), _along(_along(known, vector), vector)
    assert_same(xpnet.grad(second)(x), xpnet.grad(expected)(x), tolerance=tolerance)


CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def _along(f, vector):
    """The derivative of a function along a vector, as a function."""

    def derivative(x):
        gradient = xpnet.grad(f)(x)
        return _sum(_real(gradient) * _real(vector)) + _sum(_imag(gradient) * _imag(vector))

    return derivative


def test_the_hessian_of_the_determinant_of_zeros(xp):
    expected = numpy.zeros((2, 2, 2, 2))
    expected[0, 0, 1, 1] = expected[1, 1, 0, 0] = 1.0
    expected[0, 1, 1, 0] = expected[1, 0, 0, 1] = -1.0
    assert_same(xpnet.hessian(lambda x: _linalg(x).det(x))(array(numpy.zeros((2, 2)))), array(expected))


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
        xpnet.grad(lambda x: _sum(_linalg(x).qr(x, mode="complete").Q))(x)
    triangle = xpnet.grad(lambda x: _sum(_linalg(x).qr(x, mode="complete").R))(x)
    assert_same(triangle, xpnet.grad(lambda x: _sum(_linalg(x).qr(x).R))(x))  # which does not need them
    for tall_or_wide in (x, xp.matrix_transpose(x)):
        with pytest.raises(NotImplementedError, match="full_matrices=False"):
            xpnet.grad(lambda x: _sum(_linalg(x).svd(x).U))(tall_or_wide)
        # The values alone do not need them.
        values = xpnet.grad(lambda x: _sum(_linalg(x).svd(x).S))(tall_or_wide)
        assert_same(values, xpnet.grad(lambda x: _sum(_linalg(x).svdvals(x)))(tall_or_wide))


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


def _real(x):
    xp = xpnet.array_namespace(x)
    return xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x


def _imag(x):
    xp = xpnet.array_namespace(x)
    return xp.imag(x) if xp.isdtype(x.dtype, "complex floating") else 0 * x
