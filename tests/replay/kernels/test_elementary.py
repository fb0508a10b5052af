"""Elementary functions in loops of numba: how exact they are, special values, and what becomes one loop."""

import mpmath
import numpy
import pytest

import xpnet
from xpnet import losses, nn, special

pytest.importorskip("numba")
pytest.importorskip("scipy")

from tests.replay.kernels import every_float32
from xpnet.replay.kernels import elementary

NAMES = list(every_float32.TRUE)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_within_two_units_in_the_last_place(name):
    """`nox -s every-float32` tries all numbers; of each exponent and sign, 128 are tried here."""
    bits = numpy.arange(0, 2**32, 65_521, dtype="uint32")
    for error, at in every_float32.worst(name, bits.view("float32")):
        assert error <= every_float32.AT_MOST, at


# Zero, infinity and NaN, the ends of denormal, of normal and of all numbers, and where a function overflows,
# underflows, or is computed in another way.
ENDS = [0.0, 1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, numpy.inf, numpy.nan, 1.0, 0.35, 4.0]
ENDS += [0.99999994, 1.0000001, 16.635532, 17.328680, 88.722839, 88.722847, 87.336545, 103.97208, 103.97209]


@pytest.mark.parametrize("name", NAMES)
def test_special_values_are_those_of_numpy(name):
    x = numpy.asarray(ENDS + [-end for end in ENDS], "float32")
    for error, at in every_float32.worst(name, x):
        assert error <= every_float32.AT_MOST, at
    if name != "log":  # of zeros and infinities, exactly what the library gives
        exact = x[(x == 0) | numpy.isinf(x)]
        with numpy.errstate(all="ignore"):
            expected = every_float32.TRUE[name](exact)
        numpy.testing.assert_array_equal(every_float32.computed(name, exact, flushed=False), expected)


def square_root_in(f, limit):
    """Return a function of x^2 in place of x, with its limit at 0."""
    return lambda t: f(mpmath.sqrt(t)) if t else mpmath.mpf(limit)


@pytest.mark.filterwarnings("ignore:Descending")  # the order in which they come depends on mpmath's version
def test_coefficients_come_from_where_they_are_said_to_come():
    with mpmath.workdps(40):
        log_2, root = mpmath.log(2), mpmath.sqrt(2)

        def expm1(r):
            return mpmath.expm1(r) / r**2 - 1 / r if r else mpmath.mpf(1) / 2

        def log1p(f):
            return mpmath.log1p(f) / f if f else mpmath.mpf(1)

        tanh = square_root_in(lambda x: (mpmath.tanh(x) / x - 1) / x**2, mpmath.mpf(-1) / 3)
        erf = square_root_in(lambda x: mpmath.erf(x) / x, 2 / mpmath.sqrt(mpmath.pi))
        fitted = [
            (elementary.EXPM1, expm1, [-log_2 / 2, log_2 / 2], "float32"),
            (elementary.TANH, tanh, [0, mpmath.mpf("0.35") ** 2], "float32"),
            (elementary.LOG1P, log1p, [1 / root - 1, root - 1], "float64"),
            (elementary.ERF, erf, [0, 16], "float64"),
        ]
        for coefficients, f, ends, dtype in fitted:
            found = mpmath.chebyfit(f, ends, len(coefficients))
            near = 4 * float(numpy.finfo(dtype).eps)
            numpy.testing.assert_allclose(sorted(coefficients), sorted(map(float, found)), rtol=near)


# -- what becomes one loop ----------------------------------------------------------------------------------


def gelu_by_erf(x):
    return 0.5 * x * (1 + special.erf(x * 0.5**0.5))


ONE_LOOP = {
    "softmax": nn.Softmax(),
    "GELU": nn.GELU(),
    "GELU by erf": gelu_by_erf,
    "SiLU": nn.SiLU(),
    "ELU": nn.ELU(),
    "sigmoid": lambda x: special.expit(x) * x,
    "tanh": lambda x: nn.Tanh()(x + 1),
    "logarithms": lambda x: xpnet.array_namespace(x).log(x * x) + xpnet.array_namespace(x).log1p(x * x),
}


@pytest.mark.plans("numba")
@pytest.mark.parametrize("shape", [(8, 10), (64, 16), (300, 64), (2, 3, 40, 100)])
@pytest.mark.parametrize("name", ONE_LOOP)
def test_functions_of_float32_are_one_loop(name, shape, record):
    f = ONE_LOOP[name]
    x = numpy.random.default_rng(0).normal(size=shape).astype("float32")
    recorded = record(lambda x: f(x), x)
    assert (len(recorded.kernels), len(recorded.steps)) == (1, 1)
    numpy.testing.assert_allclose(recorded(x), f(x), rtol=1e-5, atol=1e-6)


@pytest.mark.plans("numba")
@pytest.mark.parametrize("shape", [(8, 10), (400, 64), (64, 1000)])
def test_a_cross_entropy_with_its_gradient_is_one_loop(shape, record):
    random = numpy.random.default_rng(0)
    x, labels = random.normal(size=shape).astype("float32"), random.integers(shape[-1], size=shape[0])
    f = xpnet.value_and_grad(losses.cross_entropy)
    recorded = record(lambda x, labels: f(x, labels), x, labels)
    assert len(recorded.kernels) == len(recorded.steps) == 1
    for one, other in zip(recorded(x, labels), f(x, labels), strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.plans("numba")
def test_in_many_short_rows_an_elementary_function_is_a_loop_of_its_own(record):
    x = numpy.random.default_rng(0).normal(size=(512, 10)).astype("float32")
    recorded = record(lambda x: nn.Softmax()(x), x)
    assert recorded.steps == ["max_subtract", "exp", "sum_divide"]
    numpy.testing.assert_allclose(recorded(x), nn.Softmax()(x), rtol=1e-5)


@pytest.mark.plans("numba")
def test_float64_stays_with_numpy_unless_elements_are_few(record):
    f = lambda x: xpnet.array_namespace(x).exp(x) * 2
    x = numpy.random.default_rng(0).normal(size=10_000)
    assert record(f, x).steps == ["exp", "multiply"]
    assert record(f, x[:100].copy()).steps == ["exp_multiply"]


# -- the largest and the smallest of a row ------------------------------------------------------------------


@pytest.mark.plans("numba")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [3, 8, 10, 33, 300])
def test_extremes_of_rows(dtype, columns, record):
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.max(x, axis=-1) + 1, xp.min(x * 2, axis=-1), xp.max(-x, axis=-1, keepdims=True) * x

    random = numpy.random.default_rng(0)
    x = random.normal(size=(99, columns)).astype(dtype)
    values = [numpy.inf, -numpy.inf, numpy.nan, -numpy.nan, 1e-30, -1e-30]
    x[range(50), random.integers(columns, size=50)] = random.choice(values, size=50)
    x[0], x[1], x[2], x[3] = -numpy.inf, numpy.inf, numpy.nan, 0
    with numpy.errstate(invalid="ignore"):
        for one, other in zip(record(f, x)(x), f(x), strict=True):
            numpy.testing.assert_array_equal(one, other)
