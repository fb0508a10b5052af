"""The sweep and the memory of the record."""

import gc
import tracemalloc
import weakref

import numpy
import pytest
from helpers import array, assert_on, assert_same

import xpnet


class Watched(numpy.ndarray):
    """A NumPy array that says when it is freed. Results of functions of it are of the same class."""


def watched(x):
    return numpy.asarray(x).view(Watched)


@pytest.fixture
def no_garbage_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_long_chain_has_a_gradient_and_is_freed():
    def f(x):
        for _ in range(100_000):
            x = -(x + 1.0)
        return x

    _, pullback = xpnet.vjp(f, numpy.asarray(1.0))
    assert_same(pullback(numpy.asarray(2.0))[0], numpy.asarray(2.0))
    del pullback  # frees 200,000 nodes that lead from one to the next


def test_a_long_chain_is_freed_where_it_is_dropped(xp):
    def f(x):
        y = x
        for _ in range(3_000):
            y = y + x
        del y
        return x * 2

    assert_same(xpnet.grad(f)(array(1.0)), array(2.0))


def test_a_long_chain_has_a_second_derivative():
    def f(x):
        for _ in range(20_000):
            x = x * 1.0
        return x * x

    assert_same(xpnet.grad(xpnet.grad(f))(numpy.asarray(3.0)), numpy.asarray(2.0))


def test_gradients_of_a_value_that_is_used_often_are_added(xp):
    def f(x):
        y = x * x
        z = y + y + x * y
        return z * y - z

    def derivative(x):  # f = 2 x⁴ + x⁵ − 2 x² − x³
        return 8 * x**3 + 5 * x**4 - 4 * x - 3 * x**2

    assert_same(xpnet.grad(f)(array(1.5)), array(derivative(1.5)))
    xpnet.check_gradients(f, array([1.5, -0.5]), order=3)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (3, 1), (1, 1), (2, 1, 4), (1, 3, 1), (2, 3, 1)])
def test_a_gradient_is_summed_over_the_axes_along_which_an_input_was_stretched(device, shape):
    weights = numpy.random.default_rng(0).normal(size=(2, 3, 4))
    x, w = (xpnet.asarray(a, device=device) for a in (numpy.ones(shape), weights))
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(x * w))(x)
    added = 3 - len(shape)
    stretched = tuple(axis for axis in range(3) if axis < added or shape[axis - added] == 1)
    expected = numpy.reshape(numpy.sum(weights, axis=stretched), shape)
    assert_on(gradient, device, "float64", shape)
    assert_same(gradient, expected)


def test_precisions_are_mixed(xp):
    single, double = array([1.0, 2.0], "float32"), array([3.0, 4.0])

    def f(single, double):
        xp = single.__array_namespace__()
        return xp.sum(single * double * single)

    gradients = xpnet.grad(f, (0, 1))(single, double)
    assert_same(gradients[0], numpy.asarray([6.0, 16.0], "float32"))
    assert_same(gradients[1], array([1.0, 4.0]))
    assert gradients[0].dtype == xp.float32
    assert gradients[1].dtype == xp.float64


def test_real_arguments_of_complex_functions_have_real_gradients(xp):
    x = array([1.0, 2.0])

    def f(x):
        xp = x.__array_namespace__()
        return xp.sum(xp.real(xp.exp(1j * x)))

    gradient = xpnet.grad(f)(x)
    assert_same(gradient, -xp.sin(x))


# -- memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        (lambda xp, x: x + 1.0, False),
        (lambda xp, x: x - x, False),
        (lambda xp, x: -x, False),
        (lambda xp, x: xp.reshape(x, (2, 2)), False),
        (lambda xp, x: xp.sum(x), False),
        (lambda xp, x: xp.concat([x, x]), False),
        (lambda xp, x: x[1:], False),
        (lambda xp, x: xp.astype(x, xp.float32), False),
        (lambda xp, x: x * 2.0, False),
        (lambda xp, x: 2.0 * x, False),
        (lambda xp, x: xp.exp(x), False),
        (lambda xp, x: xp.tanh(x), False),
        (lambda xp, x: x / 2.0, False),
        (lambda xp, x: xp.sin(x), True),
        (lambda xp, x: x * x, True),
        (lambda xp, x: xp.maximum(x, 0), True),
        (lambda xp, x: xp.log(x), True),
    ],
)
def test_an_input_is_kept_only_if_a_rule_reads_it(function, kept, no_garbage_collector):
    alive = []

    def f(x):
        xp = x.__array_namespace__()
        y = xp.multiply(x, 3.0)  # multiplication by a number does not read its own result
        value = watched(y.value)
        y.value = value
        alive.append(weakref.ref(value))
        del value
        return xp.sum(function(xp, y))  # not a view, which would keep its base

    _, pullback = xpnet.vjp(f, numpy.linspace(1.0, 2.0, 4))
    assert (alive[0]() is not None) == kept
    del pullback
    assert alive[0]() is None


@pytest.mark.parametrize(
    ("function", "kept"), [("exp", True), ("tanh", True), ("sin", False), ("negative", False)]
)
def test_a_result_is_kept_only_if_a_rule_reads_it(function, kept, no_garbage_collector):
    alive = []

    def f(x):
        xp = x.__array_namespace__()
        y = getattr(xp, function)(x)
        alive.append(weakref.ref(y.value))
        return y + 1.0

    _, pullback = xpnet.vjp(f, watched([1.0, 2.0]))
    assert (alive[0]() is not None) == kept
    del pullback
    assert alive[0]() is None


def peak_of(f, *arguments):
    gc.collect()
    tracemalloc.start()
    try:
        f(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SIZE = 100_000  # elements, 0.8 MB
STEPS = 20


def chain(function, number=STEPS):
    def f(x):
        xp = x.__array_namespace__()
        for _ in range(number):
            x = function(xp, x)
        return xp.sum(x)

    return f


def test_a_chain_of_additions_keeps_nothing(no_garbage_collector):
    x = numpy.zeros(SIZE)
    assert peak_of(xpnet.grad(chain(lambda xp, x: x + 1.0)), x) < 5 * x.nbytes


def test_a_chain_of_exponentials_keeps_each_value_once(no_garbage_collector):
    x = numpy.full(SIZE, -1.0)
    peak = peak_of(xpnet.grad(chain(lambda xp, x: xp.exp(-x))), x)
    assert (STEPS - 1) * x.nbytes < peak < (STEPS + 4) * x.nbytes


def test_the_sweep_frees_what_it_has_passed(no_garbage_collector):
    """Half-way back, the values of the second half are gone; at the start all are."""
    x = numpy.full(SIZE, 0.5)
    alive = []
    counts = []

    @xpnet.custom_gradient
    def probe(x):
        def backward(g):
            counts.append(sum(reference() is not None for reference in alive))
            return g

        return x * 1.0, backward

    def f(x):
        xp = x.__array_namespace__()
        x = probe(x)
        for _ in range(STEPS):
            x = xp.exp(x) * 0.1
            value = watched(x.value)
            x.value = value
            alive.append(weakref.ref(value))
            x = xp.sin(x)
            if len(alive) == STEPS // 2:
                x = probe(x)
        del value
        return xp.sum(x)

    xpnet.grad(f)(x)
    assert counts == [STEPS // 2, 0]


def test_dead_branches_are_freed_at_once(no_garbage_collector):
    def f(x):
        xp = x.__array_namespace__()
        y = xp.exp(x)
        reference = weakref.ref(y.value)
        z = xp.sin(y * y)
        del y, z
        assert reference() is None
        return xp.sum(x)

    xpnet.grad(f)(watched([1.0, 2.0]))


def test_nothing_is_left_after_a_gradient(no_garbage_collector):
    references = []

    def f(x):
        xp = x.__array_namespace__()
        y = xp.exp(x * x)
        references.append(weakref.ref(y.value))
        return xp.sum(y[1:] * y[:-1])

    for transform in (xpnet.grad(f), xpnet.grad(lambda x: xpnet.grad(f)(x) @ x)):
        transform(watched([1.0, 2.0, 3.0]))
        assert all(reference() is None for reference in references)
