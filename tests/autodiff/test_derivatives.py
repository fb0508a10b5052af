import numpy
import pytest
from helpers import assert_same

import xpnet

A = numpy.random.default_rng(0).normal(size=(3, 4))


def array(x):
    return xpnet.asarray(numpy.asarray(x, dtype=float), device=xpnet.device())


def curve(x):
    """From 4 to 3 numbers, with the Jacobian cos(A x) A in rows."""
    xp = xpnet.array_namespace(x)
    return xp.sin(xp.matmul(xp.asarray(array(A)), x))


def quartic(x):
    xp = xpnet.array_namespace(x)
    return xp.sum(x * x) ** 2


X = numpy.asarray([0.3, -0.7, 1.1, 0.2])
J = numpy.cos(A @ X)[:, None] * A
H = 8 * numpy.outer(X, X) + 4 * (X @ X) * numpy.eye(4)


def test_jacobian(xp):
    assert_same(xpnet.jacobian(curve)(array(X)), array(J))
    second = xpnet.jacobian(lambda scale, x: curve(x) * scale, argnums=1)(array(2.0), array(X))
    assert_same(second, array(2 * J))


def test_jacobian_of_trees_and_shapes(xp):
    result = xpnet.jacobian(lambda p: p["x"][:, None] * p["y"])({"x": array([1.0, 2.0]), "y": array([3.0])})
    assert_same(result["x"], array([[[3.0, 0.0]], [[0.0, 3.0]]]))
    assert_same(result["y"], array([[[1.0]], [[2.0]]]))
    assert_same(xpnet.jacobian(lambda x: x[:0])(array(X)), array(numpy.zeros((0, 4))))
    with pytest.raises(TypeError, match="returns an array, received tuple"):
        xpnet.jacobian(lambda x: (x, x))(array(X))


def test_hessian(xp):
    assert_same(xpnet.hessian(quartic)(array(X)), array(H))


def test_hvp(xp):
    v = numpy.asarray([1.0, -2.0, 0.5, 0.0])
    (product,) = xpnet.hvp(quartic, (array(X),), (array(v),))
    assert_same(product, array(H @ v))


def test_hvp_of_several_arguments(xp):
    def f(x, y):
        return xpnet.array_namespace(x).sum(x * x * y)

    x, y, v, w = (array(numpy.random.default_rng(seed).normal(size=3)) for seed in range(4))
    for actual, expected in zip(
        xpnet.hvp(f, (x, y), (v, w)), (2 * y * v + 2 * x * w, 2 * x * v), strict=True
    ):
        assert_same(actual, expected)


def test_jvp(xp):
    v = numpy.asarray([1.0, -2.0, 0.5, 0.0])
    result, tangent = xpnet.jvp(curve, (array(X),), (array(v),))
    assert_same(result, array(numpy.sin(A @ X)))
    assert_same(tangent, array(J @ v))


def test_jvp_of_a_constant_and_of_trees(xp):
    _, tangent = xpnet.jvp(lambda x: xpnet.stop_gradient(x), (array(X),), (array(X),))
    assert_same(tangent, array(numpy.zeros(4)))
    result, tangent = xpnet.jvp(
        lambda p: {"product": p["x"] * p["y"]},
        ({"x": array(2.0), "y": array(3.0)},),
        ({"x": array(1.0), "y": array(10.0)},),
    )
    assert_same(result["product"], array(6.0))
    assert_same(tangent["product"], array(23.0))


def test_they_can_be_differentiated_themselves(xp):
    def trace_of_hessian(x):
        return xpnet.array_namespace(x).sum(xpnet.hessian(quartic)(x) * array(numpy.eye(4)))

    # The trace is 8 x·x + 16 x·x.
    assert_same(xpnet.grad(trace_of_hessian)(array(X)), array(48 * X))

    def along(x):
        return xpnet.jvp(quartic, (x,), (array(X),))[1]

    assert_same(xpnet.grad(along)(array(X)), array(H @ X))
