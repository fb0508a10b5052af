"""Functions of other projects, unmodified: written for the array API standard, they can be differentiated."""

import array_api_extra
import numpy
import pytest
import scipy.special
import scipy.stats
from helpers import assert_same

import xpnet
from autodiff.cases import Case, array, as_list, named
from xpnet.errors import NoGradientError

EXTRA = {
    "cov": [Case(lambda xp, x: array_api_extra.cov(x), (2, 5))],
    "sinc": [Case(lambda xp, x: array_api_extra.sinc(x), (4,))],
    "pad": [Case(lambda xp, x: array_api_extra.pad(x, 2), (2, 3))],
    "kron": [Case(lambda xp, x, y: array_api_extra.kron(x, y), (2, 2), (1, 3))],
    "create_diagonal": [Case(lambda xp, x: array_api_extra.create_diagonal(x, offset=1), (3,))],
    "at": [
        Case(lambda xp, x: array_api_extra.at(x, 1).set(xp.sin(x[0]), copy=True, xp=xp), (3,)),
        Case(lambda xp, x: array_api_extra.at(x)[1:].multiply(x[:-1], copy=True, xp=xp), (3,)),
        Case(lambda xp, x: array_api_extra.at(x)[0].add(2.0, copy=True, xp=xp) ** 2, (3,)),
    ],
    "atleast_nd": [Case(lambda xp, x: array_api_extra.atleast_nd(x, ndim=3), (2,))],
    "nan_to_num": [Case(lambda xp, x: array_api_extra.nan_to_num(x), (3,))],
}

SCIPY = {
    "logsumexp": [
        Case(lambda xp, x: scipy.special.logsumexp(x, axis=1), (2, 3)),
        Case(lambda xp, x: scipy.special.logsumexp(x), (4,)),
    ],
    "softmax": [Case(lambda xp, x: scipy.special.softmax(x, axis=-1), (2, 3))],
    "log_softmax": [Case(lambda xp, x: scipy.special.log_softmax(x, axis=-1), (2, 3))],
    "zscore": [Case(lambda xp, x: scipy.stats.zscore(x, axis=0), (5, 2))],
    "moment": [Case(lambda xp, x: scipy.stats.moment(x, 3), (5,))],
    "skew": [Case(lambda xp, x: scipy.stats.skew(x), (5,))],
    "kurtosis": [Case(lambda xp, x: scipy.stats.kurtosis(x), (6,))],
    "variation": [Case(lambda xp, x: scipy.stats.variation(x + 3.0), (5,))],
}


@pytest.mark.parametrize(**named(EXTRA))
def test_array_api_extra(case, xp):
    check(case)


@pytest.mark.parametrize(**named(SCIPY))
def test_scipy(case, device):
    if device.spec == "strict:device1":
        pytest.skip("SciPy creates arrays on the default device")
    check(case)


def check(case):
    """Check values and gradients of a function that may have its own dispatch for each library."""
    arrays = case.arrays()
    result, _ = xpnet.vjp(case, *arrays)
    for one, plain in zip(as_list(result), as_list(case(*arrays)), strict=True):
        assert_same(one, plain)
    xpnet.check_gradients(case, *arrays, order=2)


def test_functions_that_leave_the_standard_say_so():
    from scipy.integrate import simpson
    from scipy.spatial.distance import cdist

    x = numpy.asarray([[1.0, 2.0], [3.0, 5.0], [4.0, 1.0]])
    for f in (lambda x: simpson(x[:, 0]), lambda x: cdist(x, x)[0, 1]):
        with pytest.raises(NoGradientError, match=r"numpy\.asarray"):
            xpnet.grad(f)(x)


def test_special_functions_without_a_rule_say_so(xp):
    with pytest.raises((NoGradientError, TypeError)):
        xpnet.vjp(scipy.special.gammaln, array([1.0, 2.0]))
