import numpy
import pytest
from helpers import array, assert_on, assert_same

import xpnet
from autodiff.cases import Case, complexes, named


def linspace(xp, start, stop, num, **options):
    """As the function of the standard, which takes no plain arrays."""
    if hasattr(xp, "plain"):
        return xp.linspace(start, stop, num, **options)
    device = next(x.device for x in (start, stop) if hasattr(x, "device"))
    way = xp.linspace(0, 1, num, endpoint=options.get("endpoint", True), device=device)
    kind = options.get("dtype", xp.result_type(start, stop))
    start, stop, way = (xp.asarray(x, dtype=kind, device=device) for x in (start, stop, way))
    return start + (stop - start) * way


CASES = {
    "asarray": [
        Case(lambda xp, x: xp.asarray(x), (2, 3)),
        Case(lambda xp, x: xp.asarray(x, dtype=xp.complex128), (2,)),
        Case(lambda xp, x: xp.asarray(x, copy=True, device=x.device), ()),
        Case(lambda xp, x: xp.asarray(x), (0,)),
    ],
    "full": [
        Case(
            lambda xp, x: (
                xp.full((2, 3), x, device=x.device) if hasattr(xp, "plain") else xp.broadcast_to(x, (2, 3))
            ),
            (),
        ),
        Case(lambda xp, x: xp.full(2, x) if hasattr(xp, "plain") else xp.broadcast_to(x, (2,)), ()),
    ],
    "full_like": [
        Case(
            lambda xp, x: xp.full_like(x, x[0]) if hasattr(xp, "plain") else xp.broadcast_to(x[0], x.shape),
            (3,),
        ),
        Case(
            lambda xp, x, y: xp.full_like(x, y) if hasattr(xp, "plain") else xp.broadcast_to(y, x.shape),
            complexes(2),
            complexes(),
        ),
    ],
    "linspace": [
        Case(lambda xp, x, y: linspace(xp, x, y, 5), (), ()),
        Case(lambda xp, x, y: linspace(xp, x, y, 4, endpoint=False), complexes(), complexes()),
        Case(lambda xp, x: linspace(xp, x, 2.0, 3), ()),
        Case(lambda xp, x: linspace(xp, -1, x, 1), ()),
        Case(lambda xp, x, y: linspace(xp, x, y, 0), (), ()),
        Case(lambda xp, x: xp.astype(linspace(xp, x, 3.0, 3, dtype=xp.complex128), xp.complex128), ()),
    ],
}

# Functions that make arrays from nothing but numbers.
MADE = {
    "zeros": lambda xp, device: xp.zeros((2, 3), device=device),
    "ones": lambda xp, device: xp.ones(3, dtype=xp.float32, device=device),
    "full": lambda xp, device: xp.full((2,), 1.5, device=device),
    "eye": lambda xp, device: xp.eye(3, device=device),
    "arange": lambda xp, device: xp.arange(2, 8, 2, device=device),
    "linspace": lambda xp, device: xp.linspace(0, 1, 5, device=device),
    "asarray": lambda xp, device: xp.asarray([[1, 2], [3, 4]], dtype=xp.float64, device=device),
}
LIKE = {
    "zeros_like": lambda xp, x: xp.zeros_like(x),
    "ones_like": lambda xp, x: xp.ones_like(x, dtype=xp.int64),
    "full_like": lambda xp, x: xp.full_like(x, 2),
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


@pytest.mark.parametrize("name", MADE)
def test_arrays_made_from_numbers_are_traced(name, device, xp):
    traced = xpnet.trace(array([1.0])).__array_namespace__()
    result = MADE[name](traced, device.native)
    assert result.__array_namespace__() is traced
    assert_same(result.value, MADE[name](xp, device.native))


@pytest.mark.parametrize("name", LIKE)
def test_arrays_made_like_others_have_no_gradient(name, device):
    x = array(numpy.ones((2, 3)))
    result, pullback = xpnet.vjp(lambda x: LIKE[name](x.__array_namespace__(), x), x)
    assert_same(result, LIKE[name](device.namespace, x))
    assert_same(pullback(result)[0], numpy.zeros((2, 3)))


def test_empty_like_has_the_shape_dtype_and_device(device):
    x = array(numpy.ones((2, 3)))
    result, _ = xpnet.vjp(lambda x: x.__array_namespace__().empty_like(x), x)
    assert_on(result, device, "float64", (2, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_list_of_traced_numbers_is_joined_where_they_are(device, dtype):
    x = array([1.0, 2.0], dtype=dtype)

    def f(x):
        xp = x.__array_namespace__()
        joined = xp.asarray([[x[1], 3.0], [x[0] * x[1], x[0]]])
        assert_on(joined.value, device, dtype, (2, 2))
        return xp.sum(joined**2)

    assert_same(xpnet.grad(f)(x), numpy.asarray([10.0, 8.0], dtype=dtype))


def test_linspace_between_whole_numbers(device):
    start = xpnet.trace(array(0, "int64"))
    result = start.__array_namespace__().linspace(start, 2, 5)
    assert_same(result.value, device.namespace.linspace(0, 2, 5, device=device.native))


def test_linspace_needs_numbers(xp):
    with pytest.raises(ValueError, match=r"shape \(\) for start and stop, received shape \(2,\)"):
        xpnet.vjp(lambda x: x.__array_namespace__().linspace(x, 3.0, 4), array([1.0, 2.0]))
