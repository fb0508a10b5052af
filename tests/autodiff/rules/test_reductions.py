import numpy
import pytest
from helpers import array, assert_same, needs_float16

import xpnet
from autodiff.cases import Case, complexes, named, signed, values
from xpnet import nn


def reduction(name, *, several_axes=True, **options):
    """All axes, one from either end, several, kept dimensions, 0-d arrays, empty arrays."""

    def case(*shape, **more):
        return Case(lambda xp, x: getattr(xp, name)(x, **options, **more), signed(*shape))

    cases = [
        case(2, 3),
        case(2, 3, axis=0),
        case(2, 3, axis=-1),
        case(2, 3, 4, axis=1, keepdims=True),
        case(2, 3, keepdims=True),
        case(0, 3, axis=1),
    ]
    if several_axes:
        cases += [case(2, 3, 2, axis=(0, -1)), case(2, 3, 2, axis=(-1, 0), keepdims=True)]
    return cases


CASES = {
    "sum": [
        *reduction("sum"),
        Case(lambda xp, x: xp.sum(x, axis=0), (0, 3)),
        Case(lambda xp, x: xp.sum(x), ()),
        Case(lambda xp, x: xp.sum(x, axis=()), (2, 3)),
        Case(lambda xp, x: xp.sum(x, dtype=xp.float64), (2,)),
        Case(lambda xp, x: xp.sum(x, axis=0), complexes(2, 3)),
    ],
    "mean": [
        *reduction("mean"),
        Case(lambda xp, x: xp.mean(x), ()),
        Case(lambda xp, x: xp.mean(x, axis=0), complexes(2, 3)),
    ],
    "var": [
        *reduction("var"),
        *reduction("var", correction=1),
        Case(lambda xp, x: xp.var(x, axis=-1, correction=0.5), (2, 3)),
        Case(lambda xp, x: xp.var(x), ()),
    ],
    "std": [*reduction("std"), *reduction("std", correction=1)],
    "max": [*reduction("max"), Case(lambda xp, x: xp.max(x), ())],
    "min": [*reduction("min"), Case(lambda xp, x: xp.min(x), ())],
    "prod": [
        *reduction("prod", several_axes=True),
        Case(lambda xp, x: xp.prod(x), ()),
        Case(lambda xp, x: xp.prod(x, axis=0), (0, 2)),
        Case(lambda xp, x: xp.prod(x), values(2.0, 0.0, 3.0)),
        Case(lambda xp, x: xp.prod(x), values(2.0, 0.0, 0.0, 3.0)),
        Case(lambda xp, x: xp.prod(x, axis=1), complexes(2, 3)),
    ],
    "cumulative_sum": [
        Case(lambda xp, x: xp.cumulative_sum(x), (4,)),
        Case(lambda xp, x: xp.cumulative_sum(x, include_initial=True), (4,)),
        Case(lambda xp, x: xp.cumulative_sum(x, axis=0), (3, 2)),
        Case(lambda xp, x: xp.cumulative_sum(x, axis=-2, include_initial=True), (2, 3, 2)),
        Case(lambda xp, x: xp.cumulative_sum(x, axis=1), (2, 0)),
        Case(lambda xp, x: xp.cumulative_sum(x, axis=-1), complexes(2, 3)),
    ],
    "cumulative_prod": [
        Case(lambda xp, x: xp.cumulative_prod(x), (1,)),
        Case(lambda xp, x: xp.cumulative_prod(x), (5,)),
        Case(lambda xp, x: xp.cumulative_prod(x, include_initial=True), (4,)),
        Case(lambda xp, x: xp.cumulative_prod(x, axis=0), (3, 2)),
        Case(lambda xp, x: xp.cumulative_prod(x, axis=-2, include_initial=True), (2, 3, 2)),
        Case(lambda xp, x: xp.cumulative_prod(x, axis=1), (2, 0)),
        Case(lambda xp, x: xp.cumulative_prod(x), values(2.0, 0.0, 3.0, 0.0, 4.0)),
        Case(lambda xp, x: xp.cumulative_prod(x, axis=-1), complexes(2, 3)),
    ],
}


# PyTorch warns where a variance has no elements, even if it has no results either.
ignore_empty = pytest.mark.filterwarnings(r"ignore:(var|std)\(\). degrees of freedom:UserWarning")


@ignore_empty
@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@ignore_empty
@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


@pytest.mark.parametrize("name", ["max", "min"])
def test_equal_extrema_share_the_gradient(xp, name):
    x = array(values([1.0, 1.0, 0.0], [2.0, 2.0, 2.0])(None))
    sign = 1 if name == "max" else -1

    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.sum(getattr(xp, name)(sign * x, axis=1))

    third = 1 / 3
    expected = sign * numpy.asarray([[0.5, 0.5, 0.0], [third, third, third]])
    assert_same(xpnet.grad(f)(x), expected)


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("correction", [0, 1])
def test_complex_numbers(name, correction, xp, device):
    if device.spec.startswith("strict"):
        pytest.skip("array-api-strict has both for real numbers alone")
    z = array(complexes(2, 3)(numpy.random.default_rng(0)))

    def f(z):
        return getattr(xpnet.array_namespace(z), name)(z, axis=1, correction=correction)

    xpnet.check_gradients(f, z, order=2)
    # The direction of steepest ascent, written out.
    each = xpnet.to_numpy(z)
    from_mean = each - each.mean(axis=1, keepdims=True)
    y = each.std(axis=1, ddof=correction, keepdims=True)
    expected = from_mean / (3 - correction) * (2 if name == "var" else 1 / y)
    assert_same(xpnet.grad(lambda z: xpnet.array_namespace(z).sum(f(z)))(z), expected)


@pytest.mark.parametrize("name", ["max", "min"])
def test_an_extremum_that_is_nan_has_a_gradient_that_is(name, xp):
    x = array([[1.0, numpy.nan, 2.0], [1.0, 3.0, 2.0]])

    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.sum(getattr(xp, name)(x, axis=1))

    extremum = [0.0, 1.0, 0.0] if name == "max" else [1.0, 0.0, 0.0]
    assert_same(xpnet.grad(f)(x), numpy.asarray([[numpy.nan] * 3, extremum]))


# float16 counts to 2,048 and ends at 65,504: more elements than that are the largest of these.
LARGE = 140_000


@pytest.mark.parametrize("name", ["mean", "var", "std", "max", "min"])
@pytest.mark.parametrize("correction", [0, 1])
def test_narrow_numbers_of_many_elements(name, correction, xp):
    needs_float16(xp)
    options = {"correction": correction} if name in ("var", "std") else {}
    x = numpy.tile(numpy.asarray([0.5, 1.5], dtype="float16"), LARGE // 2)

    def f(x):
        return 1024 * getattr(xpnet.array_namespace(x), name)(x, **options)

    with numpy.errstate(over="ignore"):  # NumPy adds up the squares in float16
        received = xpnet.grad(f)(array(x, "float16"))
    expected = xpnet.grad(f)(array(x, "float64"))
    assert received.dtype == xp.float16
    numpy.testing.assert_allclose(
        xpnet.to_numpy(received).astype(float), xpnet.to_numpy(expected), rtol=2**-9
    )


@pytest.mark.parametrize(
    "f",
    [
        lambda xp, x: 128 * xp.linalg.vector_norm(x),
        lambda xp, x: 1024 * xp.linalg.vector_norm(x, ord=3),
        lambda xp, x: 1024 * xp.special.logsumexp(x),
        lambda xp, x: xp.special.softmax(x)[0],
        lambda xp, x: 1024 * xp.special.log_softmax(x)[0],
        lambda xp, x: nn.Softmax()(x)[0],
        lambda xp, x: 1024 * nn.LogSoftmax()(x)[0],
    ],
)
def test_narrow_numbers_of_which_a_sum_is_made_on_the_way(f, xp):
    """The sum itself is more than the largest float16."""
    if not hasattr(xp, "float16"):
        pytest.skip("the library has no float16")
    x = numpy.tile(numpy.asarray([0.5, 1.5], dtype="float16"), LARGE // 2)

    def of(x):
        return f(xpnet.array_namespace(x), x)

    narrow, wide = (xpnet.value_and_grad(of)(array(x, dtype)) for dtype in ("float16", "float64"))
    for received, expected in zip(narrow, wide, strict=True):
        assert received.dtype == xp.float16
        received, expected = xpnet.to_numpy(received).astype(float), xpnet.to_numpy(expected)
        numpy.testing.assert_allclose(received, expected, rtol=2**-9, atol=2**-24)


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_standard_deviation_of_equal_elements_has_gradient_0(value, xp):
    x = array(numpy.full(3, value))
    assert_same(xpnet.grad(lambda x: x.__array_namespace__().std(x))(x), numpy.zeros(3))


@pytest.mark.parametrize("name", ["all", "any", "count_nonzero"])
def test_results_without_a_gradient(xp, name):
    x = array([[1.0, 0.0], [2.0, 3.0]])

    def f(x):
        xp = xpnet.array_namespace(x)
        return getattr(xp, name)(x != 0, axis=1)

    result, pullback = xpnet.vjp(f, x)
    assert_same(result, f(x))
    assert_same(pullback(xp.ones_like(x[:, 0]))[0], numpy.zeros((2, 2)))
