import tracemalloc

import numpy
import pytest
from helpers import array, assert_same

import xpnet
from xpnet.errors import NoGradientError
from xpnet.nn import Dense, Dropout, Sequential, Tanh


def block(x, scale):
    xp = xpnet.array_namespace(x, scale)
    return xp.sin(xp.exp(x) * scale)


def loss(f):
    return lambda x, scale: xpnet.array_namespace(x).sum(f(x, scale) ** 2)


def test_gradients_of_two_orders(xp):
    x, scale = array([0.1, -0.4, 0.7]), array(1.3)
    checked, plain = loss(xpnet.checkpoint(block)), loss(block)
    for actual, expected in zip(
        xpnet.grad(checked, argnums=(0, 1))(x, scale),
        xpnet.grad(plain, argnums=(0, 1))(x, scale),
        strict=True,
    ):
        assert_same(actual, expected)
    assert_same(xpnet.hessian(checked)(x, scale), xpnet.hessian(plain)(x, scale))
    assert_same(xpnet.checkpoint(block)(x, scale), block(x, scale))


def test_keywords(xp):
    def f(x, *, p, power):
        return block(x, p["scale"]) * p["factor"] ** power

    def sum_of(f):
        return lambda x, p: xpnet.array_namespace(x).sum(f(x=x, p=p, power=2) ** 2)

    x, p = array([0.1, -0.4, 0.7]), {"scale": array(1.3), "factor": array(0.5)}
    checked, plain = sum_of(xpnet.checkpoint(f)), sum_of(f)
    for transform in (xpnet.grad, xpnet.hessian):
        actual, expected = (transform(each, (0, 1))(x, p) for each in (checked, plain))
        for a, b in zip(xpnet.tree.leaves(actual), xpnet.tree.leaves(expected), strict=True):
            assert_same(a, b)
    assert_same(xpnet.checkpoint(f)(x, p=p, power=2), f(x, p=p, power=2))


def test_complex_gradients(xp):
    z = xpnet.asarray(numpy.asarray([0.3 + 0.2j, -0.5j]), device=xpnet.device())

    def norm(f):
        def of(z):
            xp = xpnet.array_namespace(z)
            return xp.sum(xp.abs(f(z)) ** 2)

        return of

    def f(z):
        return z * z * (1 + 2j)

    assert_same(xpnet.grad(norm(xpnet.checkpoint(f)))(z), xpnet.grad(norm(f))(z))


def test_a_module_draws_the_same_numbers_again(xp):
    def make():
        net = Sequential(Dense(3, 4, seed=0), Dropout(0.5, seed=1), Tanh())
        return net, xpnet.asarray(numpy.ones((2, 3)), device=xpnet.device(), dtype="float32")

    def sum_of(net, x):
        return xpnet.array_namespace(x).sum(net(x))

    (net, x), (checked, _) = make(), make()
    expected = xpnet.grad(sum_of)(net, x)
    actual = xpnet.grad(lambda net, x: sum_of(xpnet.checkpoint(net), x))(checked, x)
    for a, b in zip(xpnet.tree.leaves(actual), xpnet.tree.leaves(expected), strict=True):
        assert_same(a, b)
    assert_same(checked[1].random_state, net[1].random_state)
    assert int(xpnet.to_numpy(checked[1].random_state)[1]) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x: xpnet.checkpoint(net)(x),
        lambda net, x: xpnet.checkpoint(lambda net, x: net(x))(net, x),
        lambda net, x: xpnet.checkpoint(lambda x, *, net: net(x))(x, net=net),
        lambda net, x: xpnet.checkpoint(lambda nets, x: nets["net"](x))(x=x, nets={"net": net}),
    ],
)
def test_state_is_carried_back_once(call, xp):
    net, x = Dropout(0.5, seed=1), array(numpy.ones(100))
    plain = Dropout(0.5, seed=1)

    def sum_of(net, x, call):
        return xpnet.array_namespace(x).sum(call(net, x) ** 2)

    for _ in range(2):  # with other numbers in the second call
        expected = xpnet.grad(sum_of, 1)(plain, x, lambda net, x: net(x))
        assert_same(xpnet.grad(sum_of, 1)(net, x, call), expected)
        assert_same(net.random_state, plain.random_state)
    assert int(xpnet.to_numpy(net.random_state)[1]) == 2


def test_arrays_from_outside_are_refused(xp):
    def f(x, outside):
        return xpnet.checkpoint(lambda x: outside * x)(x)

    with pytest.raises(NoGradientError, match="array from outside"):
        xpnet.grad(f, argnums=(0, 1))(array(1.0), array(2.0))
    assert_same(xpnet.grad(f)(array(1.0), array(2.0)), array(2.0))


def test_one_array_is_returned(xp):
    with pytest.raises(TypeError, match=r"must return one array, received tuple\. Put several together"):
        xpnet.grad(xpnet.checkpoint(lambda x: (x, x)))(array(1.0))


def peak(f, x):
    tracemalloc.start()
    try:
        xpnet.grad(f)(x)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory():
    x = numpy.zeros(100_000)

    def deep(x):
        xp = xpnet.array_namespace(x)
        for _ in range(10):
            x = xp.exp(xp.sin(x)) - 1.0
        return x

    def total(block):
        def f(x):
            for _ in range(10):
                x = block(x)
            return xpnet.array_namespace(x).sum(x)

        return f

    stored, recomputed = peak(total(deep), x), peak(total(xpnet.checkpoint(deep)), x)
    # Of 100 steps with two kept arrays each, 10 inputs of blocks and the 20 arrays of one block are left.
    assert recomputed < 0.25 * stored
