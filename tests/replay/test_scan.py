"""`scan`: values and gradients are those of the loop, and the step is recorded once, whatever the length."""

import numpy
import pytest
from helpers import assert_on, assert_same, half_of_the_digits

import xpnet
from xpnet.errors import NotRecordableError


def draws(*shapes, dtype="float64"):
    random = numpy.random.default_rng(0)
    return [xpnet.asarray(random.normal(size=shape), device=xpnet.device(), dtype=dtype) for shape in shapes]


def step(carried, x, weight, scale):
    xp = xpnet.array_namespace(carried["a"], x)
    a = xp.tanh(carried["a"] @ weight + x)
    b = carried["b"] * scale + xp.sum(a)
    return {"a": a, "b": b}, (a * b, a)


def scanned(carried, x, weight, scale):
    return xpnet.scan(step, carried, x, weight, scale)


def looped(carried, x, weight, scale):
    xp, results = xpnet.array_namespace(x, weight), []
    for t in range(x.shape[0]):
        carried, y = step(carried, x[t, ...], weight, scale)
        results.append(y)
    return carried, tuple(xp.stack(list(each)) for each in zip(*results, strict=True))


def arguments(length=4):
    a, b, x, weight, scale = draws((2, 3), (), (length, 2, 3), (3, 3), ())
    return {"a": a, "b": b}, x, weight, scale


def number(f):
    """A number that depends on all results, some of them twice."""

    def loss(*arguments):
        xp = xpnet.array_namespace(*xpnet.tree.leaves(arguments))
        carried, results = f(*arguments)
        return sum(xp.sum(y * y) for y in results) + xp.sum(carried["a"] * carried["b"])

    return loss


def slope(f):
    """A number made of gradients."""

    def loss(*arguments):
        xp = xpnet.array_namespace(*xpnet.tree.leaves(arguments))
        gradients = xpnet.grad(number(f), argnums=(0, 1, 2, 3))(*arguments)
        return sum(xp.sum(g * g) for g in xpnet.tree.leaves(gradients))

    return loss


def assert_trees_same(actual, expected):
    for one, other in zip(xpnet.tree.leaves(actual), xpnet.tree.leaves(expected), strict=True):
        assert_same(one, other, tolerance=half_of_the_digits("float64"))


def test_values(device):
    assert_trees_same(scanned(*arguments()), looped(*arguments()))
    assert_on(scanned(*arguments())[1][0], device, "float64", (4, 2, 3))


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("of", [number, slope])
def test_gradients_of_two_orders(device, of, length):
    everything = (0, 1, 2, 3)
    received = xpnet.grad(of(scanned), argnums=everything)(*arguments(length))
    assert_trees_same(received, xpnet.grad(of(looped), argnums=everything)(*arguments(length)))


def test_one_result_is_enough(device):
    def last(carried, x, weight, scale):
        return xpnet.array_namespace(x).sum(scanned(carried, x, weight, scale)[1][1][-1, ...])

    def expected(carried, x, weight, scale):
        return xpnet.array_namespace(x).sum(looped(carried, x, weight, scale)[1][1][-1, ...])

    assert_trees_same(
        xpnet.grad(last, argnums=2)(*arguments()), xpnet.grad(expected, argnums=2)(*arguments())
    )


def test_complex_gradients(device):
    def turn(carried, x):
        return carried * x, carried + x

    def loss(x):
        xp = xpnet.array_namespace(x)
        carried, y = xpnet.scan(turn, x[0], x)
        return xp.sum(xp.abs(y) ** 2) + xp.abs(carried)

    def by_hand(x):
        xp, carried, total = xpnet.array_namespace(x), x[0], 0
        for t in range(x.shape[0]):
            total = total + xp.abs(carried + x[t]) ** 2
            carried = carried * x[t]
        return total + xp.abs(carried)

    x = xpnet.asarray(numpy.asarray([0.3 + 0.2j, -0.5j, 1.0 - 1.0j]), device=device)
    assert_same(xpnet.grad(loss)(x), xpnet.grad(by_hand)(x))


@pytest.mark.parametrize("of", [number, slope])
def test_under_jit(device, of):
    f = xpnet.jit(xpnet.value_and_grad(of(scanned), argnums=(1, 2)))
    for scale in (1.0, 0.5):
        carried, x, weight, rest = arguments()
        expected = xpnet.value_and_grad(of(looped), argnums=(1, 2))(carried, x * scale, weight, rest)
        assert_trees_same(f(carried, x * scale, weight, rest), expected)


def test_the_step_is_recorded_once_and_the_loop_is_one_operation(device):
    calls = []

    def counted(carried, x):
        calls.append(1)
        return carried + x, carried * x

    def loss(x):
        return xpnet.array_namespace(x).sum(xpnet.scan(counted, 0 * x[0], x)[1])

    (x,) = draws((30,))
    f = xpnet.jit(xpnet.grad(loss))
    first = f(x)
    recorded = len(calls)
    assert recorded <= 4  # forward and backward, not thirty times
    assert_same(f(x), first)
    (longer,) = draws((40,))
    f(longer)
    assert len(calls) == recorded
    if device.spec == "cpu":
        assert f.explain().count("scan_arrays(") == 4  # two in each of the two plans


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_raise_on_nan_looks_into_the_step(device):
    def root(carried, x):
        return carried, xpnet.array_namespace(x).sqrt(x)

    def loss(x):
        return xpnet.array_namespace(x).sum(xpnet.scan(root, x[0], x)[1])

    x = xpnet.asarray([1.0, -1.0], device=device)
    with pytest.raises(FloatingPointError), xpnet.raise_on_nan():
        xpnet.grad(loss)(x)


def test_what_it_closes_over_is_refused(device):
    def loss(weight, x):
        def closing(carried, x):
            return weight * carried, x

        return xpnet.scan(closing, x[0], x)[0]

    weight, x = draws((), (3,))
    with pytest.raises(TypeError):
        xpnet.grad(loss)(weight, x)


def test_one_function_goes_through_arrays_of_several_structures(device):
    def add(carried, x):
        total = xpnet.tree.map(lambda a, b: a + b, carried, x)
        return total, total

    start, x = draws((2,), (3, 2))
    expected = xpnet.to_numpy(start) + numpy.cumsum(xpnet.to_numpy(x), axis=0)
    for wrap in (lambda a: a, lambda a: {"a": a}, lambda a: [a, a], lambda a: a):
        last, totals = xpnet.scan(add, wrap(start), wrap(x))
        for one, other in zip(
            xpnet.tree.leaves((last, totals)),
            xpnet.tree.leaves((wrap(expected[-1]), wrap(expected))),
            strict=True,
        ):
            assert_same(one, other)


# -- bad input --------------------------------------------------------------------------------------------


def test_sequences(device):
    def both(carried, x):
        return carried, x[0] + x[1]

    one, three, four = draws((), (3,), (4,))
    with pytest.raises(ValueError, match=r"sequences of one length.*\[\(3,\), \(4,\)\]"):
        xpnet.scan(both, one, (three, four))
    with pytest.raises(ValueError, match="at least one element"):
        xpnet.scan(both, one, three[:0])
    with pytest.raises(ValueError, match="sequences of one length"):
        xpnet.scan(both, one, one)
    integers = xpnet.asarray(numpy.arange(3), device=device)
    with pytest.raises(TypeError, match=r"floating-point numbers, received .*int64"):
        xpnet.scan(both, one, integers)


def test_what_is_carried_must_stay_as_it_is(device):
    def wider(carried, x):
        return carried + xpnet.array_namespace(x).stack([x, x]), x

    one, three = draws((), (3,))
    with pytest.raises(ValueError, match="what scan carries must keep its structure, shapes and dtypes"):
        xpnet.scan(wider, one, three)


def namespace_from_outside(x, w):
    xp = xpnet.array_namespace(x, w)
    return xpnet.scan(lambda carried, element: (xp.tanh(carried) + element, carried), x[0, ...], x)[0]


def array_from_outside(x, w):
    return xpnet.scan(lambda carried, element: (carried @ w + element, carried), x[0, ...], x)[0]


@pytest.mark.parametrize("differentiated", [False, True])
@pytest.mark.parametrize("f", [namespace_from_outside, array_from_outside])
def test_what_a_step_takes_from_the_function_around_it_is_refused(f, differentiated):
    def total(x, w):
        return xpnet.array_namespace(x, w).sum(f(x, w))

    recorded = xpnet.jit(xpnet.grad(total) if differentiated else total)
    with pytest.raises(NotRecordableError, match=r"around it, at .*test_scan.*as an argument"):
        recorded(numpy.ones((4, 3)), numpy.eye(3))


def test_a_function_of_numpy_in_a_step_is_refused_where_it_is_called():
    with pytest.raises(
        NotRecordableError, match=r"numpy\.tanh needs .*, at .*test_scan\.py:\d+: .*numpy\.tanh"
    ):
        xpnet.scan(lambda carried, x: (numpy.tanh(carried) + x, x), numpy.ones(3), numpy.ones((4, 3)))
