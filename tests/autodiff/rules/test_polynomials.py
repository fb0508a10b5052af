import numpy
import pytest
from helpers import assert_same

import xpnet
from autodiff.cases import Case, complexes, named, values

CASES = {
    "convolve": [
        *(
            Case(lambda xp, a, v, mode=mode: xp.convolve(a, v, mode=mode), *shapes)
            for mode in ("full", "same", "valid")
            for shapes in [((5,), (3,)), ((2,), (4,)), ((3,), (3,)), ((1,), (2,))]
        ),
        Case(lambda xp, a, v: xp.convolve(a, v, "same"), complexes(4), complexes(2)),
        Case(lambda xp, a, v: xp.convolve(a, v), complexes(3), (2,)),
    ],
    "roots": [
        Case(lambda xp, p: xp.sum(xp.roots(p) ** 2), (4,)),
        Case(lambda xp, p: xp.roots(p), values(1.0, 0.5, -3.0, 1.0)),  # real ones
        Case(lambda xp, p: xp.abs(xp.roots(p)), values(2.0, 1.0, 3.0)),
        Case(lambda xp, p: xp.sum(xp.roots(p) ** 3), complexes(4)),
    ],
}


@pytest.fixture
def only_where_there(xp):
    if not hasattr(xp, "roots"):
        pytest.skip("the library does not have these functions")


@pytest.mark.parametrize(**named(CASES))
def test_values(case, only_where_there):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, only_where_there):
    case.check_gradients()


def test_zeros_at_the_ends_of_a_polynomial():
    """Roots at infinity are left out; one at 0 moves as any other."""
    p = numpy.asarray([0.0, 1.0, -3.0, 2.0, 0.0])
    gradient = xpnet.grad(lambda p: xpnet.array_namespace(p).roots(p)[2])(p)
    assert_same(gradient, numpy.asarray([0.0, 0.0, 0.0, 0.0, -0.5]))
    with numpy.errstate(divide="ignore", invalid="ignore"):
        double = xpnet.grad(lambda p: xpnet.array_namespace(p).roots(p)[0])(numpy.asarray([1.0, 0.0, 0.0]))
    assert not numpy.isfinite(double).any()
