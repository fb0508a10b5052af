"""Rules of the special functions."""

import pickle

import numpy
import pytest
import scipy.special
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, uniform, values
from xpnet import special
from xpnet.errors import NoGradientError, NotRecordableError

UNARY = {
    "expit": (-3, 3),
    "logit": (0.1, 0.9),
    "erf": (-2, 2),
    "erfc": (-2, 2),
    "erfinv": (-0.9, 0.9),
    "ndtr": (-3, 3),
    "log_ndtr": (-3, 3),
    "ndtri": (0.1, 0.9),
    "gamma": (0.5, 3),
    "gammaln": (0.5, 4),
    "digamma": (0.5, 4),
    "i0": (-2, 2),
    "i0e": (0.5, 2),
    "i1": (-2, 2),
    "i1e": (0.5, 2),
    "entr": (0.1, 2),
    "log_expit": (-3, 3),
    "erfi": (-1, 1),
    "erfcx": (-2, 4),
    "erfcinv": (0.1, 1.9),
    "ndtri_exp": (-3, -0.1),
    "rgamma": (-1.8, 3),
    "psi": (0.5, 4),
    "kolmogorov": (0.5, 1.5),
    "kolmogi": (0.2, 0.8),
    "j0": (-3, 3),
    "j1": (-3, 3),
    "y0": (0.5, 3),
    "y1": (0.5, 3),
    "k0": (0.5, 3),
    "k1": (0.5, 3),
    "exp2": (-2, 2),
    "exp10": (-0.5, 0.5),
    "expm1": (-2, 2),
    "log1p": (-0.5, 2),
    "exp1": (0.5, 2),
    "expi": (0.5, 2),
    "cbrt": (0.5, 2),
    "sinc": (-2, 2),
}

# Functions that have gradients for both of their arguments.
BOTH = {
    "betaln": (0.5, 3), "beta": (0.5, 3), "poch": (0.5, 2), "xlogy": (0.5, 2), "xlog1py": (0.5, 2),
    "rel_entr": (0.5, 2), "kl_div": (0.5, 2),
}  # fmt: skip
# Functions of several arguments, with those before and behind the one that has a gradient.
ALONE = {
    "gammainc": ((1.5,), 0.5, 2, ()), "gammaincc": ((1.5,), 0.5, 2, ()),
    "gammaincinv": ((1.5,), 0.2, 0.8, ()), "gammainccinv": ((1.5,), 0.2, 0.8, ()),
    "chdtr": ((3.0,), 0.5, 3, ()), "chdtrc": ((3.0,), 0.5, 3, ()), "chdtri": ((3.0,), 0.2, 0.8, ()),
    "pdtr": ((2.0,), 0.5, 3, ()), "pdtrc": ((2.0,), 0.5, 3, ()), "pdtri": ((2.0,), 0.2, 0.8, ()),
    "betainc": ((1.5, 2.5), 0.2, 0.8, ()), "betaincc": ((1.5, 2.5), 0.2, 0.8, ()),
    "betaincinv": ((1.5, 2.5), 0.2, 0.8, ()), "betainccinv": ((1.5, 2.5), 0.2, 0.8, ()),
    "fdtr": ((3.0, 4.0), 0.5, 3, ()), "fdtrc": ((3.0, 4.0), 0.5, 3, ()), "fdtri": ((3.0, 4.0), 0.2, 0.8, ()),
    "stdtr": ((3.0,), 0.5, 3, ()), "stdtrit": ((3.0,), 0.6, 0.9, ()),
    "bdtr": ((1.0, 4), 0.2, 0.8, ()), "bdtrc": ((1.0, 4), 0.2, 0.8, ()), "bdtri": ((1.0, 4), 0.2, 0.8, ()),
    "nbdtr": ((1, 4), 0.2, 0.8, ()), "nbdtrc": ((1, 4), 0.2, 0.8, ()), "nbdtri": ((1, 4), 0.2, 0.8, ()),
    "boxcox": ((), 0.5, 2, (1.7,)), "boxcox1p": ((), 0.5, 2, (1.7,)),
    "inv_boxcox": ((), 0.5, 2, (1.7,)), "inv_boxcox1p": ((), 0.5, 2, (1.7,)),
    "pseudo_huber": ((1.5,), 0.5, 2, ()),
}  # fmt: skip


def call(name, *before, behind=()):
    """Return the call of a function by its name, with numbers before its array or behind."""
    return lambda xp, *x: getattr(special, name)(*before, *x, *behind)


def part(name, **options):
    """Return the call of a function that rules are made of."""
    return lambda xp, *x: getattr(namespace_of(*x).special, name)(*x, **options)


def namespace_of(*arrays):
    """Return a traced namespace, which has what rules are made of."""
    return xpnet.array_namespace(*[xpnet.trace(x) for x in arrays])


def beta_density(xp, a, b, x):
    return namespace_of(a, b, x).special._beta_density(a, b, x, 1 - x)


PARTS = {
    "logistic_density": [Case(part("_logistic_density"), uniform(-3, 3, 4))],
    "exp_of_square": [Case(lambda xp, x: part("_exp_of_square")(xp, x, special.erfc(x)), uniform(-1, 1, 4))],
    "mills_ratio": [Case(part("_mills_ratio"), uniform(-5, 3, 6))],
    "hazard": [Case(part("_hazard"), uniform(-5, 3, 6))],
    "tail_ratio": [Case(part("_tail_ratio", n=2), uniform(-5, 3, 6))],
    "polygamma": [
        Case(part("_polygamma", n=1), uniform(0.5, 3, 4)),
        Case(part("_polygamma", n=2), values(-1.7, -0.4)),
    ],
    "polygamma_difference": [
        Case(part("_polygamma_difference", n=n), uniform(0.5, 3, 4), uniform(0.5, 3, 4)) for n in (0, 1)
    ],
    "exp_quotient": [Case(part("_exp_quotient", n=2), uniform(0.5, 3, 4))],
    "soft_clip": [Case(lambda xp, r: xpnet.trace(r).namespace.special._soft_clip(1.5, r), uniform(-2, 2, 4))],
    "f_density": [
        Case(lambda xp, x: xpnet.trace(x).namespace.special._f_density(3.0, 4.0, x), uniform(0.5, 2, 4))
    ],
    "gamma_density": [Case(part("_gamma_density"), uniform(0.5, 3, 4), uniform(0.5, 3, 4))],
    "beta_density": [
        Case(beta_density, *[uniform(0.5, 3, 4)] * 2, uniform(0.2, 0.8, 4)),
    ],
    "student_density": [
        Case(lambda xp, t: xpnet.trace(t).namespace.special._student_density(3.0, t), uniform(-2, 2, 4))
    ],
    "bessel_quotient": [
        Case(part("_bessel_quotient", n=1, sign=1), values(0.5, 2.5)),
        Case(part("_bessel_quotient", n=1, sign=-1), values(0.5, 2.5)),
    ],
    "bessel_moment": [Case(part("_bessel_moment", n=1), values(0.5, 2.5, 30.0))],
    "sinc_quotient": [Case(part("_sinc_quotient", n=1), values(0.5, 2.5))],
    "quotient": [Case(part("_quotient"), uniform(0.5, 2, 4), uniform(0.5, 2, 4))],
    "log_ratio": [Case(part("_log_ratio"), uniform(0.5, 2, 4), uniform(0.5, 2, 4))],
}

CASES = {
    **{
        f"special.{name}": [Case(call(name), uniform(low, high, 3, 2)), Case(call(name), uniform(low, high))]
        for name, (low, high) in UNARY.items()
    },
    **{
        f"special.{name}": [Case(call(name), uniform(low, high, 2, 3), uniform(low, high, 3))]
        for name, (low, high) in BOTH.items()
    },
    **{
        f"special.{name}": [Case(call(name, *before, behind=behind), uniform(low, high, 2, 3))]
        for name, (before, low, high, behind) in ALONE.items()
    },
    **{
        f"special.{name}": [
            Case(lambda xp, a, x, name=name: getattr(special, name)(a, 1.5, x), *[uniform(0.5, 2, 3)] * 2)
        ]
        for name in ("gdtr", "gdtrc")
    },
    **{f"special._{name}": cases for name, cases in PARTS.items()},
    "special.huber": [Case(call("huber"), values(1.0, 1.0), values(0.5, 2.0))],
    "special.polygamma": [Case(lambda xp, x: special.polygamma(2, x), uniform(0.5, 3, 4))],
    "special.multigammaln": [Case(lambda xp, x: special.multigammaln(x, 3), uniform(1.5, 3, 4))],
    "special.zeta": [Case(lambda xp, q: special.zeta(2.5, q), uniform(0.5, 2, 4))],
    "special.logsumexp": [
        Case(lambda xp, x: special.logsumexp(x), (2, 3)),
        Case(lambda xp, x: special.logsumexp(x, axis=-1), (2, 3)),
        Case(lambda xp, x: special.logsumexp(x, axis=(0, 2), keepdims=True), (2, 3, 2)),
        Case(lambda xp, x: special.logsumexp(x, axis=0), values(1000.0, 1001.0)),
    ],
    "special.softmax": [
        Case(lambda xp, x: special.softmax(x), (2, 3)),
        Case(lambda xp, x: special.softmax(x, axis=-1), (2, 3)),
    ],
    "special.log_softmax": [
        Case(lambda xp, x: special.log_softmax(x), (2, 3)),
        Case(lambda xp, x: special.log_softmax(x, axis=0), (2, 3)),
    ],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", [1, 2])
def test_gradients(name, order, device):
    for case in CASES[name]:
        case.check_gradients(order=order)


@pytest.mark.parametrize("name", UNARY)
def test_values_are_those_of_scipy(name, device):
    low, high = UNARY[name]
    for dtype in ("float64", "float32"):
        x = numpy.linspace(low, high, 7, dtype=dtype)
        actual = getattr(special, name)(array(x, dtype))
        expected = getattr(scipy.special, name)(x.astype("float64")).astype(dtype)
        assert_same(actual, array(expected, dtype), tolerance=200 * float(numpy.finfo(dtype).eps))


@pytest.mark.parametrize("x", [[-numpy.inf, 0.0], [-numpy.inf, -numpy.inf], [1e4, -1e4]])
def test_logsumexp_at_the_edges(x, device):
    with numpy.errstate(divide="ignore"):
        assert_same(special.logsumexp(array(x)), array(scipy.special.logsumexp(numpy.asarray(x))))


def test_bessel_functions_at_zero(device):
    assert_same(xpnet.grad(lambda x: special.i1(x))(array(0.0)), array(0.5))


def test_scipy_finds_them(device):
    x = array([0.3, 0.7])
    if device.library.spec == "jax" or device.spec == "strict:device1":
        pytest.skip("SciPy's own functions create arrays on the default device")
    xpnet.check_gradients(scipy.special.expit, x)
    xpnet.check_gradients(scipy.special.gammaln, x)


# -- points where a formula would divide 0 by 0 -------------------------------------------------------------


def gradient(f, *arrays, argument=0):
    """Return the derivative of an elementwise function."""
    total = lambda *x: xpnet.array_namespace(*x).sum(f(*x))
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return xpnet.grad(total, argument)(*arrays)


def test_divergences_of_one_hot_targets(device):
    """The gradient is that of 0 log(0 / q): 0 for q, and for p the slope of p log(p) at 0."""
    p, q = array([1.0, 0.0, 0.0]), array([0.5, 0.25, 0.0])
    assert_same(gradient(special.rel_entr, p, q, argument=1), array([-2.0, 0.0, 0.0]))
    assert_same(gradient(special.kl_div, p, q, argument=1), array([-1.0, 1.0, 1.0]))
    assert_same(gradient(special.xlogy, p, q, argument=1), array([2.0, 0.0, 0.0]))
    assert_same(gradient(special.xlog1py, p, q - 1, argument=1), array([2.0, 0.0, 0.0]))
    assert_same(gradient(special.rel_entr, p, q)[:2], array([1 + numpy.log(2), -numpy.inf]))
    assert_same(gradient(special.entr, p), array([-1.0, numpy.inf, numpy.inf]))
    twice = gradient(lambda q: gradient(lambda q: special.rel_entr(p, q), q), q)
    assert_same(twice, array([4.0, 0.0, 0.0]))


def test_removable_singularities(device):
    poles = array([0.0, -1.0, -2.0, -3.0])
    assert_same(gradient(special.rgamma, poles), array([1.0, -1.0, 2.0, -6.0]))
    zero = array([0.0])
    for f, order in ((special.i1, 0.5), (special.j1, 0.5), (special.sinc, 0.0), (special.i1e, 0.5)):
        assert_same(gradient(f, zero), array([order]))
    assert_same(gradient(lambda x: gradient(special.sinc, x), zero), array([-(numpy.pi**2) / 3]))
    assert_same(gradient(lambda x: special.gammainc(1.0, x), zero), array([1.0]))
    assert_same(gradient(lambda x: special.gammainc(2.0, x), zero), zero)


def test_students_distribution_of_infinitely_many_degrees_is_the_normal_one(device):
    x = array([-1.5, 0.5, 2.0])
    for degrees in (1e32, numpy.inf):
        found = gradient(lambda x, degrees=degrees: special.stdtr(degrees, x), x)
        assert_same(found, gradient(special.ndtr, x))


def test_infinite_values_have_infinite_gradients(device):
    x = array([1e4, 1e5])
    for f in (special.i0, special.i1, special.expi):
        with numpy.errstate(over="ignore"):
            assert_same(gradient(f, x), x * numpy.inf)
            assert_same(gradient(lambda x, f=f: gradient(f, x), x), x * numpy.inf)


OUTSIDE = {
    "logit": lambda x: special.logit(x),
    "erfinv": lambda x: special.erfinv(x),
    "ndtri": lambda x: special.ndtri(x),
    "exp1": lambda x: special.exp1(-x),
    "boxcox": lambda x: special.boxcox(-x, 3.0),
    "gammainc": lambda x: special.gammainc(2.0, -x),
    "betainc": lambda x: special.betainc(1.0, 2.0, x),
    "xlogy": lambda x: special.xlogy(2.0, -x),
    "xlog1py": lambda x: special.xlog1py(2.0, -x),
    "rel_entr": lambda x: special.rel_entr(2.0, -x),
    "rel_entr of nothing": lambda x: special.rel_entr(0.0, -x),
    "kl_div": lambda x: special.kl_div(-2.0, -x),
    "huber": lambda x: special.huber(-1.0, x),
    "huber of delta": lambda x: special.huber(-x, 1.0),
    "multigammaln": lambda x: special.multigammaln(x - 1.25, 3),
    "zeta": lambda x: special.zeta(0.5, x),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_there_is_no_gradient_where_there_is_no_value(name, device):
    x = array([1.5, 2.0])
    assert numpy.isnan(xpnet.to_numpy(gradient(OUTSIDE[name], x))).all()
    if name != "huber":  # whose gradient does not change there
        twice = gradient(lambda x: gradient(OUTSIDE[name], x), x)
        assert numpy.isnan(xpnet.to_numpy(twice)).all()


@pytest.mark.parametrize("x", [[0.0, numpy.inf], [-numpy.inf, 1.0]])
def test_gradients_of_logsumexp_at_the_edges(x, device):
    found = xpnet.to_numpy(gradient(special.logsumexp, array(x)))
    finite = numpy.isfinite(x)
    expected = [0.0] if numpy.inf in x else [1.0]
    assert found[finite].tolist() == expected
    assert found[~finite].tolist() == [0.0] or numpy.isnan(found[~finite]).all()


def test_sums_of_nothing(device):
    with numpy.errstate(divide="ignore"):
        assert_same(special.logsumexp(array(numpy.zeros((2, 0))), axis=1), array([-numpy.inf] * 2))
    assert special.softmax(array(numpy.zeros((2, 0))), axis=1).shape == (2, 0)


def test_softmax_of_large_numbers_keeps_its_figures(device):
    x = array([1e6, 1e6 + 1])
    assert_same(special.softmax(x), array([1 / (1 + numpy.e), numpy.e / (1 + numpy.e)]))


# -- arguments that have no rule ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gammainc", "gammaincinv", "chdtr", "stdtr"])
def test_a_parameter_without_a_rule_is_refused_where_it_is_needed(name, device):
    f = getattr(special, name)
    a, x = array([1.5, 2.5]), array([0.25, 0.75])
    alone = gradient(lambda x: f(a, x), x)
    assert_same(gradient(lambda a, x: f(a, x), a, x, argument=1), alone)
    with pytest.raises(NoGradientError, match=rf"special\.{name} has no gradient rule for (a|v|df)"):
        gradient(f, a, x)


def test_functions_without_a_rule(device):
    x = array([0.5, 1.5])
    assert_same(special.dawsn(x), array(scipy.special.dawsn(numpy.asarray([0.5, 1.5]))))
    _, found = xpnet.value_and_grad(lambda x: (x @ x, special.dawsn(x)), has_aux=True)(x)
    assert_same(found, 2 * x)
    with pytest.raises(NoGradientError, match=r"special\.dawsn has no gradient rule"):
        gradient(special.dawsn, x)


# -- the module ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*UNARY, *ALONE, *BOTH])
def test_functions_take_plain_and_traced_arrays_and_numbers(name, device):
    case = CASES[f"special.{name}"][0]
    arrays = case.arrays()
    plain = case(*arrays)
    assert type(plain) is type(arrays[0])
    assert_same(case(*[xpnet.trace(x) for x in arrays]).value, plain)
    if len(arrays) == 2:
        assert_same(case(xpnet.trace(arrays[0]), arrays[1]).value, plain)
        full = xpnet.array_namespace(arrays[0]).full_like(arrays[0], 1.5)
        assert_same(getattr(special, name)(arrays[0], 1.5), case(arrays[0], full))
        assert_same(getattr(special, name)(1.5, arrays[0]), case(full, arrays[0]))


@pytest.mark.parametrize("name", ALONE)
def test_parameters_may_be_arrays_of_whole_numbers_and_numbers_of_numpys(name, device):
    before, low, high, behind = ALONE[name]
    x = array([low, high])
    xp = xpnet.array_namespace(x)

    def whole(n, dtype):
        return xp.full((2,), int(n), dtype=dtype, device=x.device)

    def of(dtype):
        return call(name, *[whole(n, dtype) for n in before], behind=[whole(n, dtype) for n in behind])

    if name not in ("nbdtr", "nbdtrc", "nbdtri", "bdtr", "bdtrc", "bdtri"):  # SciPy warns of other numbers
        expected = gradient(lambda x: of(x.dtype)(xp, x), x)
        assert_same(gradient(lambda x: of(xp.int64)(xp, x), x), expected)
    numbers = call(name, *map(numpy.float64, before), behind=list(map(numpy.float64, behind)))
    if not name.startswith(("bdtr", "nbdtr")):
        assert_same(numbers(xp, x), call(name, *before, behind=behind)(xp, x))


@pytest.mark.parametrize("name", [*BOTH, "huber", "gdtr"])
def test_gradients_beside_numbers(name, device):
    x = array([1.25, 1.75])
    full = xpnet.array_namespace(x).full_like(x, 1.5)
    behind = (x,) if name == "gdtr" else ()
    f = lambda *x: getattr(special, name)(*x, *behind)
    assert_same(gradient(lambda x: f(x, 1.5), x), gradient(lambda x: f(x, full), x))
    if name != "gdtr":
        assert_same(gradient(lambda x: f(1.5, x), x), gradient(lambda x: f(full, x), x))


def test_numbers_of_events_are_rounded_down(device):
    x = array([0.25, 0.5])
    assert_same(gradient(lambda x: special.pdtr(2.5, x), x), gradient(lambda x: special.pdtr(2.0, x), x))
    assert_same(
        gradient(lambda x: special.bdtr(1.5, 4, x), x), gradient(lambda x: special.bdtr(1.0, 4, x), x)
    )


# SciPy takes whole numbers for floating-point numbers beside float32.
@pytest.mark.filterwarnings("ignore:.*non-integer arg n")
@pytest.mark.parametrize("name", [*ALONE, *BOTH])
def test_numbers_beside_an_array_leave_its_dtype(name, device):
    before, low, high, behind = ALONE.get(name, ((1.5,), *BOTH.get(name, (0, 0)), ()))
    x = array([low, high], "float32")
    f = call(name, *before, behind=behind)
    assert f(xpnet.array_namespace(x), x).dtype == x.dtype
    traced = xpnet.trace(x)
    assert f(traced.namespace, traced).dtype == x.dtype


@pytest.mark.parametrize("name", [*UNARY, *ALONE, *BOTH])
def test_functions_under_jit(name):
    case = CASES[f"special.{name}"][0]
    with xpnet.use_device("cpu"):
        arrays = case.arrays()
        both = lambda *x: (case(*x), gradient(case, *x))
        replayed, expected = xpnet.jit(both), both(*arrays)
        for _ in range(2):
            for one, other in zip(replayed(*arrays), expected, strict=True):
                assert_same(one, other)


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match=r"special\.erf needs an array among its arguments, received float"):
        special.erf(0.5)
    with pytest.raises(AttributeError, match="no attribute 'no_such_function'"):
        special.no_such_function  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'orthogonal'"):  # a module of SciPy's
        special.orthogonal  # noqa: B018
    with pytest.raises(TypeError, match="integer"):
        special.polygamma(numpy.asarray([1, 2]), numpy.asarray([0.5, 1.5]))


def test_functions_can_be_pickled_and_listed():
    for function in (special.erf, special.dawsn):
        assert pickle.loads(pickle.dumps(function)) is function
    assert dir(special) == sorted(special.__all__)


def test_what_jax_lacks_is_refused_under_jit(device):
    x = array([0.5])
    if device.library.spec != "jax":
        pytest.skip("other libraries call SciPy from a plan")
    assert_same(special.stdtr(1.0, array([1.0])), array([0.75]))
    with pytest.raises(NotRecordableError, match=r"JAX has no special\.stdtr"):
        xpnet.jit(lambda x: special.stdtr(3.0, x))(x)
