"""A function without a gradient rule computes, and is an error where its gradient is needed."""

import collections
import re

import array_api_strict
import numpy
import pytest
from helpers import array, assert_same

import xpnet
from xpnet.autodiff.primitive import PRIMITIVES, Primitive, no_rule, opaque, record_binary, record_unary
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import NoGradientError

Pair = collections.namedtuple("Pair", "first second")


def mystery(x):
    """A function without a rule: the exponential."""
    namespace = xpnet.array_namespace(x)
    return opaque("mystery", namespace.plain.exp, namespace)(x) if type(x) is Tracer else namespace.exp(x)


def needed(name="mystery", argument="", where="opaque("):
    """What the error says: the function, and the line of this file that called it."""
    line = rf"called at .*test_without_rule\.py:\d+: [^\n]*{re.escape(where)}.*xpnet\.stop_gradient\(x\)"
    return pytest.raises(
        NoGradientError, match=rf"{name} has no gradient rule{argument}, and its gradient is needed.*{line}"
    )


@pytest.fixture
def power():
    """A function with a rule for its first argument, and none for the second."""

    def define(call, x, order, /):
        return call(x, order)

    primitive = Primitive(
        "power",
        [lambda xp, g, _y, x, order: g * order * xp.pow(x, order - 1), no_rule],
        define=define,
        compute=lambda xp, x, order: xp.pow(x, order),
    )
    yield lambda x, order: primitive.on_traced(x.__array_namespace__())(x, order)
    del PRIMITIVES["power"]


# -- a function without any rule ----------------------------------------------------------------------------


def test_a_result_that_is_not_needed_is_no_harm(xp):
    value, gradient = xpnet.value_and_grad(lambda x: (x * x, mystery(x)), has_aux=True)(array(2.0))
    assert_same(value[0], array(4.0))
    assert_same(value[1], xp.exp(array(2.0)))
    assert_same(gradient, array(4.0))

    def f(x):
        y = mystery(x)
        return x * x if y > 0 else y

    assert_same(xpnet.grad(f)(array(2.0)), array(4.0))
    assert_same(xpnet.grad(lambda x: x * xpnet.stop_gradient(mystery(x)))(array(0.0)), array(1.0))
    assert_same(xpnet.grad(lambda x: x * mystery(xpnet.stop_gradient(x)))(array(0.0)), array(1.0))


def test_a_result_that_is_needed_is_an_error_with_the_line(xp):
    with needed():
        xpnet.grad(lambda x: x * mystery(x))(array(2.0))
    with needed():  # also where the gradient that arrives is 0, as the own one may be infinite
        xpnet.grad(lambda x: x + 0.0 * mystery(x))(array(2.0))
    result, pullback = xpnet.vjp(lambda x: {"a": x * x, "b": mystery(x)}, array(2.0))
    with needed():
        pullback(result)


RESULTS = {
    "array": (lambda x: x, lambda y: y),
    "list": (lambda x: [x, 3], lambda y: y[0]),
    "tuple": (lambda x: (1.0 * x, x), lambda y: y[1]),
    "named tuple": (lambda x: Pair(x, "a text"), lambda y: y.first),
    "dict": (lambda x: {"a": (x, True)}, lambda y: y["a"][0]),
}


@pytest.mark.parametrize(("compute", "take"), RESULTS.values(), ids=RESULTS)
def test_each_array_of_a_result(compute, take, xp):
    def call(x):
        results = opaque("mystery", compute, x.__array_namespace__())(x)
        if isinstance(results, tuple):
            assert type(results) is type(compute(1.0))
        return results

    with needed():
        xpnet.grad(lambda x: take(call(x)))(array(2.0))
    value, gradient = xpnet.value_and_grad(lambda x: (x * x, take(call(x))), has_aux=True)(array(2.0))
    assert_same(value[1], array(2.0))
    assert_same(gradient, array(4.0))


ARGUMENTS = {
    "a list": lambda call, x: call([x, 1.0]),
    "a keyword": lambda call, x: call(x=x),
    "a dict": lambda call, x: call({"a": (x,)}),
}


@pytest.mark.parametrize("f", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arrays_anywhere_in_the_arguments(f, xp):
    def call(x):
        return f(opaque("mystery", lambda *_, **__: array(1.0), x.__array_namespace__()), x)

    with needed(where="lambda call, x:"):
        xpnet.grad(call)(array(2.0))


def test_whole_numbers_have_no_gradient(xp):
    nodes = []

    def f(x):
        call = opaque("mystery", lambda x: (xp.astype(x, xp.int64), x > 0, 3, x), x.__array_namespace__())
        nodes.extend(y.node for y in call(x)[:2])
        return x

    xpnet.grad(f)(array(2.0))
    assert nodes == [None, None]


LOST = {
    "a number": float,
    "a complex number": lambda x: [complex(x)],
    "nothing": lambda x: None,
    "an iterator": lambda x: iter([x]),
    "an array of another library": lambda x: (
        array_api_strict.asarray([1.0]) if isinstance(x, numpy.ndarray | numpy.generic) else numpy.ones(1)
    ),
    "objects": lambda x: numpy.asarray([float(x)], dtype=object),
}


@pytest.mark.parametrize("compute", LOST.values(), ids=LOST)
def test_what_cannot_tell_the_sweep_is_an_error_at_once(compute, xp):
    called = []

    def f(x):
        opaque("mystery", compute, x.__array_namespace__())(x)
        called.append(x)
        return x

    with pytest.raises(NoGradientError, match=r"mystery has no gradient rule.*would be lost"):
        xpnet.grad(f)(array(2.0))
    assert not called


def test_the_error_comes_in_a_sweep_of_any_order(xp):
    with needed():
        xpnet.grad(xpnet.grad(lambda x: x * mystery(x)))(array(2.0))
    # The inner gradient does not need it, the outer one does.
    inner = xpnet.grad(lambda y, x: y * mystery(x))
    assert_same(xpnet.grad(lambda y, x: y * inner(y, x))(array(2.0), array(0.0)), array(1.0))
    with needed():
        xpnet.grad(lambda x: inner(array(2.0), x))(array(0.0))


def test_all_arguments_lead_to_the_result(xp):
    def product(x, y):
        namespace = xpnet.array_namespace(x, y)
        return opaque("product", namespace.plain.multiply, namespace)(x, y)

    with needed("product"):  # the outer gradient is that of x, the inner one that of y
        xpnet.grad(lambda x: xpnet.grad(lambda y: product(x, y))(array(2.0)))(array(3.0))


def test_functions_that_compute_again_or_have_a_gradient_of_their_own(xp):
    with needed():
        xpnet.grad(xpnet.checkpoint(lambda x: x * mystery(x)))(array(2.0))
    with needed():
        xpnet.grad(lambda x: xpnet.custom_gradient(lambda x: (x, lambda g: g))(mystery(x)))(array(2.0))
    straight = xpnet.custom_gradient(lambda x: (mystery(x), lambda g: g))
    assert_same(xpnet.grad(lambda x: 3.0 * straight(x))(array(2.0)), array(3.0))


def test_inside_of_scan():
    def run(x, returned):
        def step(carried, _):
            root = xpnet.array_namespace(carried).cbrt(carried)  # which the standard does not have
            return carried * carried, root if returned else root > 1

        last, roots = xpnet.scan(step, x, None, length=2)
        return last, roots

    x = numpy.asarray(2.0)
    gradient, roots = xpnet.grad(lambda x: run(x, False), has_aux=True)(x)
    assert_same(gradient, numpy.asarray(32.0))
    assert_same(roots, numpy.asarray([True, True]))
    with needed("cbrt", where="cbrt"):
        xpnet.grad(lambda x: run(x, True)[1][0])(x)


def test_under_jit(xp):
    @xpnet.jit
    def gradient(x):
        return xpnet.value_and_grad(lambda x: (x * x, mystery(x)), has_aux=True)(x)

    for number in (2.0, 2.0, 3.0):
        (value, other), found = gradient(array(number))
        assert_same(value, array(number**2))
        assert_same(other, xp.exp(array(number)))
        assert_same(found, array(2 * number))
    with needed():
        xpnet.jit(xpnet.grad(lambda x: x * mystery(x)))(array(2.0))


def test_while_nan_is_looked_for(xp):
    with xpnet.raise_on_nan():
        assert_same(xpnet.grad(lambda x: (x * x, mystery(x)), has_aux=True)(array(2.0))[0], array(4.0))
        with needed():
            xpnet.grad(lambda x: x * mystery(x))(array(2.0))


def test_the_state_of_a_module_may_come_from_one(xp):
    class Counting(xpnet.nn.Module):
        state = ("seen",)

        def __init__(self):
            self.seen = array(0.0)

        def __call__(self, x):
            self.seen = mystery(x)
            return x * x

    net = Counting()
    assert_same(xpnet.grad(lambda x, net: net(x))(array(2.0), net), array(4.0))
    assert_same(net.seen, xp.exp(array(2.0)))


# -- an argument without a rule -----------------------------------------------------------------------------


def test_the_other_arguments_have_their_gradients(xp, power):
    x, order = array([2.0, 3.0]), array(3.0)

    def f(x, order):
        return xpnet.array_namespace(x).sum(power(x, order))

    assert_same(xpnet.grad(f)(x, order), array([12.0, 27.0]))
    assert_same(xpnet.hessian(f)(x, order), array([[12.0, 0.0], [0.0, 18.0]]))
    assert_same(xpnet.grad(lambda x: f(x, 3.0))(x), array([12.0, 27.0]))
    for argnums in (1, (0, 1)):
        with needed("power", " for order", "call(x"):
            xpnet.grad(f, argnums=argnums)(x, order)
    with needed("power", " for order", "call(x"):
        xpnet.grad(lambda x: f(x, x[0]))(x)


def test_the_gradients_of_the_others_have_theirs_in_it(xp, power):
    """The derivative of power by x is order * x ** (order - 1), and has one by order itself."""
    x, order = array(2.0), array(3.0)
    mixed = xpnet.grad(lambda order: xpnet.grad(power)(x, order))(order)
    expected = xp.asarray(2.0**2 + 3.0 * numpy.log(2.0) * 2.0**2, dtype=x.dtype, device=x.device)
    xpnet.check_gradients(lambda order: order * xpnet.array_namespace(order).pow(x, order - 1), order)
    assert_same(mixed, expected)


def times(call, x1, x2=3.0, /):
    return call(x1, x2) if type(x2) is Tracer else call(x1)


DECLARED = {
    "one array": {"recorder": record_unary},
    "two arrays": {"recorder": record_binary},
    "an array that may be left out": {"define": times},
}


@pytest.mark.parametrize("options", DECLARED.values(), ids=DECLARED)
def test_every_way_to_declare_a_function(options, xp):
    rules = [no_rule, lambda xp, g, _y, x1, _x2: g * x1]
    primitive = Primitive("times", rules, compute=lambda xp, x1, x2=3.0: x1 * x2, **options)
    del PRIMITIVES["times"]

    def f(*arrays):
        return primitive.on_traced(xpnet.array_namespace(*arrays))(*arrays)

    with needed("times", " for x1", "return"):
        xpnet.grad(f)(array(2.0))
    if options != DECLARED["one array"]:
        with needed("times", " for x1", "return"):
            xpnet.grad(f)(array(2.0), array(3.0))
        assert_same(xpnet.grad(f, argnums=1)(array(2.0), array(3.0)), array(2.0))


def test_a_condition_of_numbers_has_no_gradient():
    """NumPy takes any numbers for a condition."""
    x = numpy.asarray([0.0, 2.0])
    f = lambda x: x.__array_namespace__().sum(x.__array_namespace__().where(x, 3 * x, x))
    assert_same(xpnet.grad(f)(x), numpy.asarray([1.0, 3.0]))
