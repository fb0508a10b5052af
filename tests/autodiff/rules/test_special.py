"""Rules of the special functions."""

import numpy
import pytest
import scipy.special
from helpers import assert_same

import xpnet
from autodiff.cases import Case, array, uniform, values


def special(x):
    """Return the special functions, which the standard's plain namespaces do not have."""
    return xpnet.trace(x).namespace.special


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
}

CASES = {
    **{
        f"special.{name}": [
            Case(lambda xp, x, name=name: getattr(special(x), name)(x), uniform(low, high, 3, 2)),
            Case(lambda xp, x, name=name: getattr(special(x), name)(x), uniform(low, high)),
        ]
        for name, (low, high) in UNARY.items()
    },
    "special.polygamma": [Case(lambda xp, x: special(x).polygamma(2, x), uniform(0.5, 3, 4))],
    "special.betaln": [
        Case(lambda xp, a, b: special(a).betaln(a, b), uniform(0.5, 3, 2, 3), uniform(0.5, 3, 3)),
    ],
    "special.xlogy": [
        Case(lambda xp, a, b: special(a).xlogy(a, b), uniform(0.5, 2, 2, 3), uniform(0.5, 2, 3)),
    ],
    "special.xlog1py": [
        Case(lambda xp, a, b: special(a).xlog1py(a, b), uniform(0.5, 2, 2, 3), uniform(0.5, 2, 3)),
    ],
    "special.rel_entr": [
        Case(lambda xp, a, b: special(a).rel_entr(a, b), uniform(0.5, 2, 2, 3), uniform(0.5, 2, 3)),
    ],
    "special.kl_div": [
        Case(lambda xp, a, b: special(a).kl_div(a, b), uniform(0.5, 2, 2, 3), uniform(0.5, 2, 3)),
    ],
    "special.logsumexp": [
        Case(lambda xp, x: special(x).logsumexp(x), (2, 3)),
        Case(lambda xp, x: special(x).logsumexp(x, axis=-1), (2, 3)),
        Case(lambda xp, x: special(x).logsumexp(x, axis=(0, 2), keepdims=True), (2, 3, 2)),
        Case(lambda xp, x: special(x).logsumexp(x, axis=0), values(1000.0, 1001.0)),
    ],
    "special.softmax": [
        Case(lambda xp, x: special(x).softmax(x), (2, 3)),
        Case(lambda xp, x: special(x).softmax(x, axis=-1), (2, 3)),
    ],
    "special.log_softmax": [
        Case(lambda xp, x: special(x).log_softmax(x), (2, 3)),
        Case(lambda xp, x: special(x).log_softmax(x, axis=0), (2, 3)),
    ],
}


def present(name):
    return hasattr(special(array([1.0])), name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", [1, 2])
def test_gradients(name, order, device):
    function = name.partition(".")[2]
    if not present(function):
        pytest.skip(f"{device.library.name} has no {function}")
    for case in CASES[name]:
        case.check_gradients(order=order)


@pytest.mark.parametrize("name", UNARY)
def test_values_are_those_of_scipy(name, device):
    if not present(name):
        pytest.skip(f"{device.library.name} has no {name}")
    low, high = UNARY[name]
    for dtype in ("float64", "float32"):
        x = numpy.linspace(low, high, 7, dtype=dtype)
        actual = getattr(special(array(x, dtype)), name)(array(x, dtype)).value
        expected = getattr(scipy.special, name)(x.astype("float64")).astype(dtype)
        assert_same(actual, array(expected, dtype), tolerance=200 * float(numpy.finfo(dtype).eps))


@pytest.mark.parametrize("x", [[-numpy.inf, 0.0], [-numpy.inf, -numpy.inf], [1e4, -1e4]])
def test_logsumexp_at_the_edges(x, device):
    with numpy.errstate(divide="ignore"):
        assert_same(
            special(array(x)).logsumexp(array(x)).value, array(scipy.special.logsumexp(numpy.asarray(x)))
        )


def test_bessel_functions_at_zero(device):
    assert_same(xpnet.grad(lambda x: special(x).i1(x))(array(0.0)), array(0.5))


def test_scipy_finds_them(device):
    x = array([0.3, 0.7])
    if device.library.spec == "jax" or device.spec == "strict:device1":
        pytest.skip("SciPy's own functions create arrays on the default device")
    xpnet.check_gradients(scipy.special.expit, x)
    xpnet.check_gradients(scipy.special.gammaln, x)
