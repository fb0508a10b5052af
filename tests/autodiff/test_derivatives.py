import numpy
import pytest
from helpers import array, assert_on, assert_same

import xpnet

A = numpy.random.default_rng(0).normal(size=(3, 4))


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
    both = xpnet.jacobian(lambda x: {"curve": curve(x), "more": (x[0] * x[1], None)})(array(X))
    assert_same(both["curve"], array(J))
    assert_same(both["more"][0], array([X[1], X[0], 0, 0]))
    assert both["more"][1] is None
    with pytest.raises(TypeError, match="returns an array, or a tree of them, received None"):
        xpnet.jacobian(lambda _: None)(array(X))


def test_jacobian_of_several_arguments(xp):
    def f(scale, p, *rest, power=1):
        return curve(p["x"]) * scale**power + sum(rest)

    first, second = xpnet.jacobian(f, argnums=(1, 0))(array(2.0), {"x": array(X)}, array(1.0), power=2)
    assert_same(first["x"], array(4 * J))
    assert_same(second, array(4 * numpy.sin(A @ X)))
    (only,) = xpnet.jacobian(f, argnums=[2])(array(2.0), {"x": array(X)}, array(1.0))
    assert_same(only, array([1.0, 1.0, 1.0]))


def test_functions_of_any_number_of_arguments_are_called_as_they_are(xp):
    def f(*x):
        return 2 * x[0] + sum(x[1:])

    for argnums, expected in ((0, 2.0), (1, 1.0), (2, 1.0)):
        jacobian = xpnet.jacobian(f, argnums=argnums)(array(1.0), array(2.0), array(3.0))
        assert_same(jacobian, array(expected))
    with pytest.raises(ValueError, match=r"argnums 3 for 3 such arguments"):
        xpnet.jacobian(f, argnums=3)(array(1.0), array(2.0), array(3.0))
    with pytest.raises(ValueError, match=r"argnums 1 for 1 such arguments"):
        xpnet.jacobian(lambda x, y=2.0: x * y, argnums=1)(array(1.0))


def argmax(x):
    return xpnet.array_namespace(x).argmax(x)


# What does not change with small changes of x, of two numbers: results of other dtypes, and constants.
CONSTANT = {
    "integers": argmax,
    "booleans": lambda x: x > 1.0,
    "no booleans": lambda x: x[:0] > 1.0,
    "a number": lambda _: 3.0,
    "an array": lambda _: array([1.0, 2.0, 3.0]),
    "stopped": lambda x: xpnet.stop_gradient(x) * 2.0,
}


@pytest.mark.parametrize("f", CONSTANT.values(), ids=CONSTANT)
def test_what_is_constant_has_derivative_0(f, device):
    x = array([1.0, 2.0])
    result, tangent = xpnet.jvp(f, (x,), (x,))
    assert_on(tangent, device, str(result.dtype).rpartition(".")[2], tuple(result.shape))
    assert_same(tangent, xpnet.array_namespace(result).zeros_like(result))
    jacobian = xpnet.jacobian(f)(x)
    assert_on(jacobian, device, "float64", (*result.shape, 2))
    assert_same(jacobian, array(numpy.zeros((*result.shape, 2))))
    both = xpnet.jvp(lambda x: (f(x), x * x), (x,), (array([1.0, 10.0]),))[1]
    assert_same(both[0], tangent)
    assert_same(both[1], array([2.0, 40.0]))
    assert_same(xpnet.jit(lambda x: xpnet.jvp(f, (x,), (x,)))(x)[1], tangent)


@pytest.mark.parametrize("f", [argmax, lambda x: x[0] > 1.0, lambda _: 3, lambda _: 3.0])
def test_a_constant_number_has_second_derivative_0(f, xp):
    x = array([1.0, 2.0])
    assert_same(xpnet.hessian(f)(x), array(numpy.zeros((2, 2))))
    assert_same(xpnet.hvp(f, (x,), (x,))[0], array([0.0, 0.0]))
    assert_same(xpnet.grad(lambda x: xpnet.grad(f)(x)[0])(x), array([0.0, 0.0]))


def test_arguments_without_elements_or_axes(xp):
    assert_same(xpnet.jacobian(lambda x: xpnet.array_namespace(x).sum(x))(array([])), array([]))
    assert_same(xpnet.jacobian(lambda x: x * x)(3.0), array(6.0))
    assert_same(xpnet.jacobian(lambda x: (x * array([1.0, 2.0]))[:0])(3.0), array([]))
    assert_same(xpnet.hessian(lambda x: x * x * x)(3.0), array(18.0))


def test_jacobian_of_complex_results(xp):
    x = array(X[:2])
    assert_same(xpnet.jacobian(lambda x: as_complex(x) * (2 + 1j))(x), complexes((2 + 1j) * numpy.eye(2)))
    # On float32, too: the Jacobian has the precision of the argument.
    single = xpnet.asarray(X[:2], device=xpnet.device(), dtype="float32")
    jacobian = xpnet.jacobian(lambda x: as_complex(x) * 1j)(single)
    assert jacobian.dtype == xp.complex64
    z = numpy.asarray([1 + 2j, 0.5 - 1j])
    of_exp = xpnet.jacobian(lambda z: xpnet.array_namespace(z).exp(z))(complexes(z))
    assert_same(of_exp, complexes(numpy.diag(numpy.exp(z))))
    # conj has no derivative; (∂y/∂Re z - i ∂y/∂Im z) / 2 is 0.
    of_conj = xpnet.jacobian(lambda z: xpnet.array_namespace(z).conj(z))(complexes(z))
    assert_same(of_conj, complexes(numpy.zeros((2, 2))))
    # A real result has the gradients of `grad` in its rows.
    of_real = xpnet.jacobian(lambda z: xpnet.array_namespace(z).imag(z))(complexes(z))
    assert_same(of_real, complexes(1j * numpy.eye(2)))


def test_directions_of_complex_numbers(xp):
    z, v = numpy.asarray([1 + 2j, 0.5 - 1j]), numpy.asarray([0.3 - 1j, 2j])

    def f(z):
        return z * z + xpnet.array_namespace(z).conj(z)

    assert_same(xpnet.jvp(f, (complexes(z),), (complexes(v),))[1], complexes(2 * z * v + numpy.conj(v)))
    _, tangent = xpnet.jvp(lambda x: as_complex(x) * (1 + 2j), (array(X),), (array(X),))
    assert_same(tangent, complexes((1 + 2j) * X))
    _, tangent = xpnet.jvp(lambda z: xpnet.array_namespace(z).real(z) * 2, (complexes(z),), (complexes(v),))
    assert_same(tangent, array(2 * v.real))


def complexes(z):
    return xpnet.asarray(numpy.asarray(z, dtype=complex), device=xpnet.device())


def as_complex(x):
    xp = xpnet.array_namespace(x)
    return xp.astype(x, xp.complex64 if x.dtype == xp.float32 else xp.complex128)


def test_hessian(xp):
    assert_same(xpnet.hessian(quartic)(array(X)), array(H))


def test_hessian_of_several_arguments_and_trees(xp):
    def f(x, p, *, scale):
        return xpnet.array_namespace(x).sum(x * x) * p["y"] ** 2 * scale

    x, p = array([1.0, -2.0]), {"y": array(3.0)}
    of_p, (by_p, by_x) = xpnet.hessian(f, argnums=(1, 0))(x, p, scale=2.0)
    assert_same(of_p["y"][0]["y"], array(20.0))
    assert_same(of_p["y"][1], array([24.0, -48.0]))
    assert_same(by_p["y"], array([24.0, -48.0]))
    assert_same(by_x, array(36.0 * numpy.eye(2)))
    ((only,),) = xpnet.hessian(f, argnums=[0])(x, p, scale=array(2.0))
    assert_same(only, by_x)


def test_hessian_of_complex_numbers_is_refused(xp):
    def f(z):
        xp = xpnet.array_namespace(z)
        return xp.sum(xp.real(z * z))

    with pytest.raises(ValueError, match=r"real numbers, received .*complex128.*hvp"):
        xpnet.hessian(f)(complexes([1 + 2j]))
    (product,) = xpnet.hvp(f, (complexes([1 + 2j]),), (complexes([3 + 1j]),))
    assert_same(product, complexes([6 - 2j]))  # of the gradient 2 conj(z)


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


def test_directions_of_some_arguments(xp):
    def f(x, p, *, scale):
        return xpnet.array_namespace(x).sum(x * x) * p["y"] ** 2 * scale

    x, p, v = array([1.0, -2.0]), {"y": array(3.0)}, array([1.0, 1.0])
    value, tangent = xpnet.jvp(f, (x, p), v, argnums=0, scale=2.0)
    assert_same(value, array(90.0))
    assert_same(tangent, array(-36.0))
    assert_same(xpnet.jvp(f, [x, p], [{"y": 1.0}], argnums=(1,), scale=2.0)[1], array(60.0))
    assert_same(xpnet.hvp(f, (x, p), v, argnums=0, scale=2.0), 36 * v)
    assert_same(xpnet.hvp(f, [x, p], [{"y": 1.0}, v], argnums=[1, 0], scale=2.0)[0]["y"], array(-4.0))


@pytest.mark.parametrize(
    ("arguments", "directions", "error", "message"),
    [
        (
            lambda x: (x,),
            lambda x: (x, x),
            ValueError,
            r"like the arguments.*, \(\*,\) with.*; received \(\*, \*\)",
        ),
        (lambda x: (x,), lambda x: (x[:2],), ValueError, r"shape \(4,\) at 0; received the shape \(2,\)\."),
        (lambda x: (x,), lambda _: (1.0,), ValueError, r"shape \(4,\) at 0; received the shape \(\)\."),
        (lambda x: (x,), lambda _: ("x",), ValueError, r"shape \(4,\) at 0; received str\."),
        (
            lambda x: (x,),
            lambda _: ([1.0] * 4,),
            ValueError,
            r"received \(\[\*, .*arrays of lists with xpnet.as",
        ),
        (lambda x: (x,), lambda _: (None,), ValueError, r"received \(None,\)\..*give zeros where"),
        (
            lambda x: (x,),
            lambda x: x,
            ValueError,
            r"like the arguments.*, \(\*,\) with.*; received one array\.",
        ),
        (lambda x: x, lambda x: x, TypeError, r"arguments of f in a tuple, received.*Write \(x,\)"),
    ],
)
def test_directions_are_checked_before_the_function_is_called(arguments, directions, error, message, xp):
    def f(_):
        raise AssertionError("called")

    x = array(X)
    with pytest.raises(error, match=message):
        xpnet.jvp(f, arguments(x), directions(x))
    with pytest.raises(error, match=message):
        xpnet.hvp(f, arguments(x), directions(x))


class Counting(xpnet.nn.Module):
    """A module that counts its calls."""

    state = ("calls",)

    def __init__(self):
        self.weight, self.calls = array(2.0), array(0.0)

    def __call__(self, x):
        self.calls = self.calls + 1
        return self.weight * self.weight * x


@pytest.mark.parametrize(
    "run",
    [
        lambda f, net, x: xpnet.jacobian(f)(net, x),
        lambda f, net, x: xpnet.jacobian(f, 1)(net, x),
        lambda f, net, x: xpnet.hessian(f)(net, x),
        lambda f, net, x: xpnet.jvp(f, (net, x), (net, 1.0)),
        lambda f, net, x: xpnet.hvp(f, (net, x), 1.0, argnums=1),
        lambda f, net, x: xpnet.vjp(lambda x, net: f(net, x), x, net=net),
    ],
)
def test_state_is_carried_back(run, xp):
    net = Counting()
    run(lambda net, x: net(x), net, array(3.0))
    assert_same(net.calls, array(1.0))


def test_they_can_be_differentiated_themselves(xp):
    def trace_of_hessian(x):
        return xpnet.array_namespace(x).sum(xpnet.hessian(quartic)(x) * array(numpy.eye(4)))

    # The trace is 8 x·x + 16 x·x.
    assert_same(xpnet.grad(trace_of_hessian)(array(X)), array(48 * X))

    def along(x):
        return xpnet.jvp(quartic, (x,), (array(X),))[1]

    assert_same(xpnet.grad(along)(array(X)), array(H @ X))
