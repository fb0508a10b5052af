"""`scan`: values and gradients are those of the loop, and the step is recorded once, whatever the length."""

import functools
import gc
import sys
import weakref

import numpy
import pytest
from helpers import assert_on, assert_same, half_of_the_digits

import xpnet
from xpnet import nn
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


def transforms(slope):
    """A function as it is, recorded, and its gradients of two orders with three arguments."""
    return (
        lambda f: f,
        xpnet.jit,
        lambda f: xpnet.grad(f, argnums=(0, 1, 2)),
        lambda f: xpnet.jit(xpnet.grad(f, argnums=(0, 1, 2))),
        lambda f: xpnet.grad(slope(f), argnums=(0, 1, 2)),
    )


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


# -- what a step is recorded for --------------------------------------------------------------------------


class Scale(nn.Module):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return (self.factor[0] if isinstance(self.factor, list) else self.factor) * x


def apply(carried, x, layer):
    return carried, layer(x)


def loop(f, carried, sequence, *constants):
    """The loop, as it is written: a list of results."""
    results = []
    for t in range(sequence.shape[0]):
        carried, y = f(carried, sequence[t, ...], *constants)
        results.append(y)
    return carried, results


def assert_as_loop(f, carried, sequence, *constants, copies=None):
    """Assert that scan gives what the loop gives. With state, the loop has copies of its own to write to."""
    last, y = xpnet.scan(f, carried, sequence, *constants)
    expected, results = loop(f, carried, sequence, *(constants if copies is None else copies))
    joined = numpy.stack([xpnet.to_numpy(x) for x in results])
    tolerance = half_of_the_digits(joined.dtype)
    assert_same(last, expected, tolerance=tolerance)
    assert_same(y, joined, tolerance=tolerance)


def test_settings_of_modules(device):
    one, three = draws((), (3,))
    for factor in (2.0, 3.0, 0.0, -0.0, [4.0]):
        assert_as_loop(apply, one, three, Scale(factor))
    layer = Scale([4.0])
    for factor in (5.0, 4.0, 6.0):
        layer.factor[0] = factor
        assert_as_loop(apply, one, three, layer)
        # What was recorded for a setting serves its gradient, too, whatever became of the first module.
        (x,) = draws((3,))
        gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).sum(xpnet.scan(apply, x[0], x, layer)[1]))(x)
        assert_same(gradient, numpy.full(3, factor))


def test_the_gradient_has_the_settings_of_its_own_call(device):
    def total(x, layer):
        return xpnet.array_namespace(x).sum(xpnet.scan(apply, x[0], x, layer)[1])

    (x,) = draws((3,))
    first, second = Scale([2.0]), Scale([2.0])
    total(x, first)  # which is recorded, without its gradient
    first.factor[0] = 7.0
    assert_same(xpnet.grad(total)(x, second), numpy.full(3, 2.0))
    assert_same(xpnet.grad(total)(x, first), numpy.full(3, 7.0))


RATE = 2.0


def with_a_global(carried, x):
    return carried * RATE, x * RATE


def test_a_global_number(device, monkeypatch):
    one, three = draws((), (3,))
    for rate in (2.0, 3.0, 2.0):
        monkeypatch.setattr(sys.modules[__name__], "RATE", rate)
        assert_as_loop(with_a_global, one, three)
        gradient = xpnet.grad(lambda x: xpnet.scan(with_a_global, x[0], x)[0])(three)
        assert_same(gradient, numpy.asarray([rate**3, 0.0, 0.0]))


def test_a_gradient_is_that_of_the_call(device, monkeypatch):
    (x,) = draws((3,))
    weight = []

    def local(carried, x):
        return carried * weight[0][0], x

    for f, slope in ((with_a_global, 8.0), (local, 125.0)):
        monkeypatch.setattr(sys.modules[__name__], "RATE", 2.0)
        layer, weight[:] = Scale([3.0]), [x * 0 + 5.0]

        def total(x, f=f, layer=layer):
            return xpnet.scan(f, x[0], x)[0] + xpnet.scan(apply, x[0], x, layer)[1][1]

        _, pullback = xpnet.vjp(total, x)
        monkeypatch.setattr(sys.modules[__name__], "RATE", 7.0)
        layer.factor[0], weight[0] = 9.0, x * 0
        assert_same(pullback(xpnet.asarray(1.0, device=device))[0], numpy.asarray([slope, 3.0, 0.0]))


NET = None


def with_a_network(carried, x):
    return carried, NET(x)


def test_a_network_that_is_closed_over_and_trained(device, monkeypatch):
    net = nn.Dense(2, 1, seed=0, dtype="float64")
    monkeypatch.setattr(sys.modules[__name__], "NET", net)
    one, x, y = draws((), (3, 4, 2), (4, 1))

    def local(carried, x):
        return carried, net(x)

    def total(x, f):
        return xpnet.array_namespace(x).sum(xpnet.scan(f, one, x)[1])

    for _ in range(2):
        for f in (with_a_network, local, lambda carried, x: (carried, net(x))):
            assert_as_loop(f, one, x)
            expected = numpy.broadcast_to(xpnet.to_numpy(net.weight)[:, 0], (3, 4, 2))
            assert_same(xpnet.grad(total)(x, f), expected, tolerance=half_of_the_digits("float64"))
        xpnet.fit(net, x[0, ...], y, loss=xpnet.losses.mse, optimizer=xpnet.optim.SGD(0.1), progress=False)


def test_an_array_that_is_closed_over_and_written_to():
    weight = numpy.ones(3)

    def step(carried, x):
        return carried, x * weight + float(weight[0])

    for _ in range(2):
        assert_as_loop(step, numpy.asarray(0.0), numpy.ones((2, 3)))
        weight += 1


def test_the_gradient_of_a_network_that_is_closed_over_is_not_lost(device):
    one, x = draws((), (3, 4, 2))

    def total(net):
        return xpnet.array_namespace(x).sum(xpnet.scan(lambda carried, x: (carried, net(x)), one, x)[1])

    with pytest.raises(NotRecordableError, match=r"as arguments; .*, at .*Pass the array as an argument"):
        xpnet.grad(total)(nn.Dense(2, 1, seed=0, dtype="float64"))


def test_state_of_a_module_that_is_closed_over_is_refused(device):
    layer = nn.Dropout(0.5, seed=0)
    before = xpnet.to_numpy(layer.random_state)
    one, x = draws((), (3, 4))
    with pytest.raises(NotRecordableError, match=r"writes to random_state of a Dropout .* as an argument"):
        xpnet.scan(lambda carried, x: (carried, layer(x)), one, x)
    assert_same(layer.random_state, before)


def test_the_order_of_a_dict(device):
    def first(carried, x, weights):
        return carried, next(iter(x.values())) * next(iter(weights.values()))

    one, a, b = draws((), (3,), (3,))
    for x in ({"a": a, "b": b}, {"b": b, "a": a}):
        for weights in ({"v": a, "w": b}, {"w": b, "v": a}):
            _, y = xpnet.scan(first, one, x, weights)
            sequence, weight = next(iter(x.values())), next(iter(weights.values()))
            expected = xpnet.to_numpy(sequence)[:, None] * xpnet.to_numpy(weight)
            assert_same(y, expected)


def test_kinds_of_arrays(device):
    def step(carried, x):
        return carried + x, carried * x

    for dtype in ("float32", "float64", "float32"):
        for shape in ((), (2,), (2, 3), ()):
            one, x = draws(shape, (3, *shape), dtype=dtype)
            assert_as_loop(step, one, x)


def test_what_is_kept_is_bounded(device, monkeypatch):
    kept = sys.modules["xpnet.replay.iteration"]
    monkeypatch.setattr(kept, "MOST_KINDS", 4)
    one, x = draws((), (3,))

    class Large:
        pass

    for factor in range(kept.MOST_KINDS + 5):
        xpnet.scan(lambda carried, x, factor=float(factor): (carried, x * factor), one, x)
    assert len(kept._kinds) == kept.MOST_KINDS
    large = Large()
    large.weight = x
    there = weakref.ref(large)

    def use(large):
        xpnet.scan(lambda carried, x: (carried, x * large.weight), one, x)

    use(large)
    del large
    gc.collect()
    assert there() is None


def test_a_plan_does_not_hold_the_arrays_that_it_was_recorded_with():
    def total(x, weight):
        xp = xpnet.array_namespace(x, weight)
        return xp.sum(xpnet.scan(lambda carried, x, weight: (carried, x * weight), 0.0, x, weight)[1])

    weight = numpy.ones(3)
    there = weakref.ref(weight)
    kept = xpnet.jit(xpnet.grad(total)), total
    for f in kept:
        f(numpy.ones((2, 3)), weight)
    del weight
    gc.collect()
    assert there() is None


def test_a_step_that_is_the_same_is_recorded_once(device):
    calls = []

    def make(factor):
        def step(carried, x):
            calls.append(factor)
            return carried * factor, x * factor

        return step

    one, x = draws((), (3,))
    for factor in (2.0, 3.0):
        xpnet.scan(make(factor), one, x)
        recorded = len(calls)
        for _ in range(3):
            xpnet.scan(make(factor), one, x)
        assert len(calls) == recorded
    recorded = None
    for start in (1.0, 2.0, 3.0):  # which is carried, and no setting
        xpnet.scan(make(2.0), start, x)
        recorded = recorded or len(calls)
        assert len(calls) == recorded


# -- state ------------------------------------------------------------------------------------------------


def dropout():
    return nn.Dropout(0.5, seed=0)


def normalization():
    return nn.BatchNorm(4, dtype="float64")


@pytest.mark.parametrize("make", [dropout, normalization])
def test_state_goes_on_from_step_to_step(device, make):
    one, x = draws((), (3, 5, 4))
    layer, expected = make(), make()
    (name, *_) = type(layer).state
    for _ in range(2):
        assert_as_loop(apply, one, x, layer, copies=[expected])
        assert_same(getattr(layer, name), getattr(expected, name), tolerance=half_of_the_digits("float64"))
    assert_as_loop(apply, one, x, layer.eval(), copies=[expected.eval()])
    assert_as_loop(apply, one, x, layer.train(), copies=[expected.train()])
    assert_same(getattr(layer, name), getattr(expected, name), tolerance=half_of_the_digits("float64"))


class Cell(nn.Module):
    """With a parameter and state, and two ways to be called."""

    def __init__(self, seed=0):
        self.weight = xpnet.asarray(numpy.asarray([0.5, -1.0]), device=xpnet.device())
        self.drop = nn.Dropout(0.3, seed=seed)

    def __call__(self, carried, x):
        carried = self.drop(carried * self.weight + x)
        return carried, carried * carried

    step = __call__


def swapped(cell, carried, x):
    return cell(carried, x)


FORMS = {
    "module": lambda cell: (cell, ()),
    "method": lambda cell: (cell.step, ()),
    "partial": lambda cell: (functools.partial(swapped, cell), ()),
    "partial of a method": lambda cell: (functools.partial(cell.step), ()),
    "keyword": lambda cell: (functools.partial(lambda carried, x, cell: cell(carried, x), cell=cell), ()),
    "constant": lambda cell: (lambda carried, x, cell: cell(carried, x), (cell,)),
    "tree": lambda cell: (lambda carried, x, trees: trees["cell"](carried, x), ({"cell": cell},)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_module_in_all_forms_with_gradients_and_state(device, form):
    start, x = draws((2,), (4, 2))

    def scanned(cell, start, x):
        f, constants = FORMS[form](cell)
        last, y = xpnet.scan(f, start, x, *constants)
        return xpnet.array_namespace(x).sum(y) + last[0]

    def looped(cell, start, x):
        last, y = loop(cell, start, x)
        return sum(map(xpnet.array_namespace(x).sum, y)) + last[0]

    def slope(f):
        def total(cell, start, x):
            gradients = xpnet.tree.leaves(xpnet.grad(f, argnums=(0, 1, 2))(cell, start, x))
            return sum(xpnet.array_namespace(x).sum(g * g) for g in gradients)

        return total

    for transform in transforms(slope):
        cell, expected = Cell(), Cell()
        received, wanted = transform(scanned), transform(looped)
        for _ in range(2):
            assert_trees_same(received(cell, start, x), wanted(expected, start, x))
            assert_same(cell.drop.random_state, expected.drop.random_state)
            assert int(xpnet.to_numpy(cell.drop.random_state)[1]) > 0
    cell, expected = Cell(), Cell()
    with xpnet.raise_on_nan():
        assert_trees_same(xpnet.grad(scanned)(cell, start, x), xpnet.grad(looped)(expected, start, x))
    assert_same(cell.drop.random_state, expected.drop.random_state)


def test_a_module_that_is_carried(device):
    def step(cell, x):
        y = cell(x, x)[1]
        return xpnet.tree.map(lambda w: 0.9 * w, cell), y

    (x,) = draws((4, 2))
    cell, expected = Cell(), Cell()
    last, y = xpnet.scan(step, cell, x)
    wanted, results = loop(step, expected, x)
    assert_same(y, numpy.stack([xpnet.to_numpy(each) for each in results]))
    assert_trees_same(last, wanted)
    assert_same(last.drop.random_state, wanted.drop.random_state)
    assert_same(cell.drop.random_state, wanted.drop.random_state)  # of which the steps are
    assert_same(cell.weight, expected.weight)


class InPlace(nn.Module):
    """Writes to the arrays of its state, and not to its attributes alone."""

    state = ("count", "seen")

    def __init__(self):
        self.count = xpnet.asarray(numpy.asarray(0.0), device=xpnet.device())
        self.seen = xpnet.asarray(numpy.zeros(2), device=xpnet.device())

    def __call__(self, x):
        self.count += 1
        self.seen[0] = x
        return x * self.count + self.seen[1]


def test_state_that_is_written_in_place(device):
    layer = InPlace()
    one, x = draws((), (3,))
    _, y = xpnet.scan(apply, one, x, layer)
    assert_same(y, xpnet.to_numpy(x) * numpy.asarray([1.0, 2.0, 3.0]))
    assert_same(layer.count, numpy.asarray(3.0))
    assert_same(layer.seen, numpy.asarray([float(x[2]), 0.0]))


def test_constants_that_are_written_in_place_are_refused(device):
    def step(carried, x, weight):
        weight += 1
        return carried, x * weight

    x, weight = draws((3,), ())
    before = float(weight)
    if device.library.spec == "jax":  # where `weight += 1` makes another array
        assert_as_loop(step, x[0], x, weight)
        return
    for around in (lambda f: f, lambda f: xpnet.grad(lambda x: f(x)[0])):
        with pytest.raises(ValueError, match="may write to the state of modules"):
            around(lambda x: xpnet.scan(step, x[0], x, weight))(x)
        assert float(weight) == before


class Counter(nn.Module):
    state = ("count",)

    def __init__(self, count=0):
        self.count = count

    def __call__(self, x):
        self.count = self.count + 1
        return x


def test_state_that_is_a_number(device):
    one, x = draws((), (3,))
    counter = Counter()
    for expected in (3, 6):
        xpnet.scan(apply, one, x, counter)
        assert int(counter.count) == expected


def test_state_that_becomes_a_number_again(device):
    class Resetting(Counter):
        def __call__(self, x):
            y = x * self.count
            self.count = 0
            return y

    one, x = draws((), (3,))
    counter = Resetting(one + 2)
    _, y = xpnet.scan(apply, one, x, counter)
    assert_same(y, xpnet.to_numpy(x) * numpy.asarray([float(one) + 2, 0.0, 0.0]))
    assert_same(counter.count, numpy.asarray(0.0))


def test_a_module_with_state_that_is_given_twice_is_refused(device):
    def both(carried, x, a, b):
        return carried, a(x) + b(x)

    one, x = draws((), (3,))
    counter = Counter()
    with pytest.raises(
        ValueError, match="given once if a step of scan writes state, received the same Counter"
    ):
        xpnet.scan(both, one, x, counter, counter)
    assert counter.count == 0
    scale = Scale(2.0)
    assert_as_loop(both, one, x, scale, scale)


@pytest.mark.parametrize(
    "write",
    [
        lambda trees, x: trees[0].update(total=trees[0]["total"] + x),
        lambda trees, x: trees[0].update(more=x),
        lambda trees, x: setattr(trees[1], "factor", 3.0),
        lambda trees, x: setattr(trees[1], "factor", x),
    ],
)
def test_what_is_written_to_constants_and_is_no_state_is_refused(device, write):
    def step(carried, x, *trees):
        write(trees, x)
        return carried, x

    one, x = draws((), (3,))
    constants = {"total": one}, Scale(2.0)
    with pytest.raises(ValueError, match=r"may write to the state of modules .* Carry what changes"):
        xpnet.scan(step, one, x, *constants)
    assert constants[0] == {"total": one}
    assert constants[1].factor == 2.0


def test_state_keeps_its_shape(device):
    class Last(nn.Module):
        state = ("last",)

        def __init__(self, last):
            self.last = last

        def __call__(self, x):
            self.last = x
            return x

    one, two, x = draws((), (2,), (3,))
    for last in (None, two):
        with pytest.raises(ValueError, match=r"must keep its shapes and dtypes, .* for last of Last"):
            xpnet.scan(apply, one, x, Last(last))


# -- functions of all kinds -------------------------------------------------------------------------------


class Plain:
    factor = 3.0

    def step(self, carried, x):
        return carried * self.factor, carried * x

    __call__ = step


def make_local():
    factor = 3.0

    def local(carried, x):
        return carried * factor, carried * x

    return local


FUNCTIONS = {
    "lambda": lambda: lambda carried, x: (carried * 3.0, carried * x),
    "local": make_local,
    "partial": lambda: functools.partial(lambda factor, carried, x: (carried * factor, carried * x), 3.0),
    "method": lambda: Plain().step,
    "object": lambda: Plain(),
    "jit": lambda: xpnet.jit(make_local()),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_gradients_of_functions_that_nobody_else_holds(device, kind):
    (x,) = draws((3,))

    def scanned(x):
        xp = xpnet.array_namespace(x)
        last, y = xpnet.scan(FUNCTIONS[kind](), x[0], x)
        return xp.sum(y) + last

    def looped(x):
        last, y = loop(FUNCTIONS[kind](), x[0], x)
        return sum(y) + last

    value, pullback = xpnet.vjp(scanned, x)
    gc.collect()
    assert_same(value, looped(x), tolerance=half_of_the_digits("float64"))
    (gradient,) = pullback(xpnet.asarray(1.0, device=device))
    assert_same(gradient, xpnet.grad(looped)(x), tolerance=half_of_the_digits("float64"))
    assert_same(xpnet.jit(xpnet.grad(scanned))(x), gradient, tolerance=half_of_the_digits("float64"))


def test_an_object_whose_attribute_changes(device):
    one, x = draws((), (3,))
    plain = Plain()
    for f in (plain, plain.step, functools.partial(plain)):
        for factor in (2.0, 4.0, 2.0):
            plain.factor = factor
            assert_as_loop(f, one, x)


# -- integers, truths, numbers, and what is not there -----------------------------------------------------


def squared_slope(f):
    return lambda table, tokens: xpnet.array_namespace(table).sum(xpnet.grad(f)(table, tokens) ** 2)


def read(carried, token, table):
    """Looks rows up, counts, and remembers whether a token was 2: with gradients for some of it."""
    xp = xpnet.array_namespace(table, token)
    memory, count, seen = carried
    row = xp.take(table, xp.reshape(token, (1,)), axis=0)[0, ...]
    memory = xp.tanh(0.5 * memory + xp.where(seen, row, 2.0 * row)) * xp.astype(count + 1, table.dtype)
    return (memory, count + 1, seen | (token == 2)), {"memory": memory, "count": count, "seen": seen}


def reading(scan):
    def total(table, tokens):
        xp = xpnet.array_namespace(table, tokens)
        zero = xp.zeros(table.shape[1:], dtype=table.dtype, device=table.device)
        carried, y = scan(read, (zero, 0, False), tokens, table)
        weights = xp.astype(y["count"], table.dtype) + xp.astype(y["seen"], table.dtype)
        return xp.sum(xp.sum(y["memory"] ** 2, axis=1) * weights) + xp.sum(carried[0])

    return total


def reading_of(table, tokens):
    return xpnet.scan(read, (table[0, ...], 0, False), tokens, table)[1]


def read_loop(f, carried, tokens, table):
    """As scan does it. The numbers are arrays from the beginning, as the functions of the step need them."""
    xp = xpnet.array_namespace(table, tokens)
    memory, count, seen = carried
    count, seen = (xp.asarray(x, device=table.device) for x in (count, seen))
    carried, results = loop(f, (memory, count, seen), tokens, table)
    return carried, {name: xp.stack([y[name] for y in results]) for name in results[0]}


def test_tokens_masks_and_counters_among_gradients(device):
    (table,) = draws((3, 2))
    tokens = xpnet.asarray(numpy.asarray([0, 2, 1, 2]), device=device)
    for transform in (
        lambda f: f,
        xpnet.grad,
        xpnet.jit,
        lambda f: xpnet.jit(xpnet.grad(f)),
        lambda f: xpnet.grad(squared_slope(f)),
    ):
        expected = transform(reading(read_loop))(table, tokens)
        assert_same(
            transform(reading(xpnet.scan))(table, tokens), expected, tolerance=half_of_the_digits("float64")
        )
    with xpnet.raise_on_nan():
        expected = xpnet.grad(reading(read_loop))(table, tokens)
        assert_same(
            xpnet.grad(reading(xpnet.scan))(table, tokens), expected, tolerance=half_of_the_digits("float64")
        )
    with_integers = xpnet.grad(
        lambda table: xpnet.array_namespace(table).sum(table) * int(reading_of(table, tokens)["count"][3])
    )
    assert_same(with_integers(table), numpy.full((3, 2), 3.0))  # integers are no part of the gradient
    last, y = xpnet.scan(read, (table[0, ...], 0, False), tokens, table)
    assert_same(y["count"], xpnet.asarray(numpy.arange(4), device=device))
    assert_same(y["seen"], xpnet.asarray(numpy.asarray([False, False, True, True]), device=device))
    assert int(last[1]) == 4
    assert bool(last[2])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_a_number_is_carried_as_what_the_step_leaves(device, dtype):
    def add(total, x):
        return total + x, total

    x = xpnet.asarray(numpy.asarray([1, 2, 4]), device=device, dtype=dtype)
    for start in (0, 5, True) if dtype[:3] == "int" else (0.0, 2.5, 1):
        if device.library.spec == "strict" and start is True:
            continue  # which adds truths to truths alone
        last, y = xpnet.scan(add, start, x)
        assert_on(last, device, dtype, ())
        assert_same(y, numpy.asarray([start, start + 1, start + 3]).astype(dtype))
        assert_same(last, numpy.asarray(start + 7).astype(dtype))


def test_a_number_that_stays_a_number(device):
    (x,) = draws((3,))
    count, _ = xpnet.scan(lambda count, x: (count + 1, x), 0, x)
    assert int(count) == 3
    assert device.namespace.isdtype(count.dtype, "integral")
    half, before = xpnet.scan(lambda total, x: (total + 0.5, total), 0, x)
    assert float(half) == 1.5
    assert [float(each) for each in before] == [0.0, 0.5, 1.0]
    reset, _ = xpnet.scan(lambda total, x: (0, total + x), x[0], x)
    assert_same(reset, numpy.asarray(0.0))
    truth, _ = xpnet.scan(lambda all_small, x: (all_small & (x < 9), x), True, x)
    assert_same(truth, xpnet.asarray(numpy.asarray(True), device=device))


def test_a_number_for_a_function_of_arrays(device):
    def largest(largest, x):
        xp = xpnet.array_namespace(largest, x)
        return xp.where(x > largest, x, largest), largest

    for dtype in ("float32", "float64"):
        x = xpnet.asarray(numpy.asarray([1.0, 4.0, 2.0]), device=device, dtype=dtype)
        last, y = xpnet.scan(largest, 0.5, x)
        assert_same(last, numpy.asarray(4.0, dtype=dtype))
        assert_same(y, numpy.asarray([0.5, 1.0, 4.0], dtype=dtype))


def test_numbers_among_the_constants(device):
    def step(carried, x, factor, names):
        return carried, x * factor if names["sign"] == "plus" else -x * factor

    one, x = draws((), (3,))
    for factor in (2.0, 3.0, 0.0, -0.0, 1, 1.0):
        for sign in ("plus", "minus"):
            assert_as_loop(step, one, x, factor, {"sign": sign})


def halves(carried, x, number):
    xp = xpnet.array_namespace(x)
    parts = xp.reshape(x, (number, -1))
    return carried, parts[0, ...]


@pytest.mark.parametrize("around", [lambda f: f, xpnet.jit])
def test_a_number_of_numpy_that_is_a_size(device, around):
    (x,) = draws((3, 4))
    f = around(lambda x, number: xpnet.scan(halves, None, x, number)[1])
    for number in (2, 4, 1, 2):
        assert_same(f(x, numpy.int64(number)), x[:, : 4 // number])
    total = lambda x, number: xpnet.array_namespace(x).sum(xpnet.scan(halves, None, x, number)[1])
    gradient = around(lambda x, number: xpnet.grad(lambda x: total(x, number))(x))
    for number in (2, 4):
        expected = numpy.zeros((3, 4))
        expected[:, : 4 // number] = 1.0
        assert_same(gradient(x, numpy.int64(number)), expected)


def test_a_number_of_numpy_that_is_carried(device):
    x = xpnet.asarray(numpy.asarray([1.0, 2.0], dtype="float32"), device=device)
    last, _ = xpnet.scan(lambda carried, x: (carried + x, x), numpy.float32(0.5), x)
    assert_same(last, numpy.asarray(3.5, dtype="float32"))


def test_a_size_that_changes_from_step_to_step_is_refused(device):
    (x,) = draws((3, 4))
    sizes = xpnet.asarray(numpy.asarray([2, 4, 1]), device=device)
    for f in (
        lambda: xpnet.scan(lambda carried, parts: halves(carried, *parts), None, (x, sizes)),
        lambda: xpnet.scan(lambda number, x: (number + 1, halves(None, x, number)[1]), sizes[0], x),
    ):
        with pytest.raises(NotRecordableError, match=r"a size, .* must be a Python integer .*test_scan\.py"):
            f()


def test_a_length_in_place_of_sequences(device):
    def double(x, nothing, factor):
        assert nothing is None
        return x * factor, x

    one, factor = draws((2,), ())
    expected = numpy.stack([xpnet.to_numpy(one) * xpnet.to_numpy(factor) ** t for t in range(4)])

    def total(one, factor):
        last, y = xpnet.scan(double, one, None, factor, length=3)
        return xpnet.array_namespace(one).sum(y) + xpnet.array_namespace(one).sum(last)

    last, y = xpnet.scan(double, one, None, factor, length=numpy.int64(3))
    assert_same(y, expected[:3], tolerance=half_of_the_digits("float64"))
    assert_same(last, expected[3], tolerance=half_of_the_digits("float64"))
    f = float(xpnet.to_numpy(factor))
    for gradient in (xpnet.grad(total), xpnet.jit(xpnet.grad(total))):
        slopes = numpy.full(2, 1 + f + f**2 + f**3)
        assert_same(gradient(one, factor), slopes, tolerance=half_of_the_digits("float64"))


def test_sequences_and_results_that_are_not_there(device):
    one, x = draws((), (3,))
    last, y = xpnet.scan(lambda carried, x: (carried + x["a"], x), one, {"a": x, "b": None})
    assert y["b"] is None
    assert_same(y["a"], x)
    for nothing in (None, (), {}, [None]):
        last, y = xpnet.scan(lambda carried, x, nothing=nothing: (carried + x, nothing), one, x)
        assert y == nothing
        assert_same(last, numpy.asarray(xpnet.to_numpy(one) + xpnet.to_numpy(x).sum()))
        kept, y = xpnet.scan(lambda carried, x: (carried, x * x), nothing, x)
        assert kept == nothing
        assert_same(y, x * x)
    assert xpnet.scan(lambda carried, x: (carried, x), None, length=3) == (None, None)
    none, ones = xpnet.scan(lambda carried, x: (carried, 1.0), None, length=3)
    assert none is None
    assert [float(each) for each in ones] == [1.0, 1.0, 1.0]

    def total(x, recorded):
        return xpnet.array_namespace(x).sum(xpnet.scan(lambda carried, x: (carried, x * x), None, x)[1])

    for f in (xpnet.grad(total), xpnet.jit(xpnet.grad(total))):
        assert_same(f(x, True), 2 * x)


# -- within others ----------------------------------------------------------------------------------------


def inner(carried, x, weight):
    return carried * weight + x, (carried * x, carried > x)


def outer(carried, x, weight, count):
    (total, steps), (y, larger) = xpnet.scan(
        lambda carried, x, weight: (
            (inner(carried[0], x, weight)[0], carried[1] + 1),
            inner(carried[0], x, weight)[1],
        ),
        (carried, 0),
        x,
        weight,
    )
    xp = xpnet.array_namespace(x)
    return total, xp.sum(xp.where(larger, y, -y)) + xp.astype(steps + count, x.dtype)


def outer_loop(carried, x, weight, count):
    xp, result = xpnet.array_namespace(x), 0.0
    for t in range(x.shape[0]):
        carried, (y, larger) = inner(carried, x[t], weight)
        result = xp.where(larger, y, -y) + result
    return carried, result + (x.shape[0] + count)


def test_loops_in_loops(device):
    start, x, weight = draws((), (3, 4), ())

    def scanned(start, x, weight, count):
        last, y = xpnet.scan(outer, start, x, weight, count)
        return last + xpnet.array_namespace(x).sum(y * y)

    def looped(start, x, weight, count):
        last, y = loop(outer_loop, start, x, weight, count)
        return last + sum(each * each for each in y)

    def slope(f):
        def total(*arguments):
            xp = xpnet.array_namespace(arguments[1])
            return sum(xp.sum(g * g) for g in xpnet.grad(f, argnums=(0, 1, 2))(*arguments))

        return total

    for count in (1, 2):
        arguments = (start, x, weight, count)
        for transform in transforms(slope):
            assert_trees_same(transform(scanned)(*arguments), transform(looped)(*arguments))
        with xpnet.raise_on_nan():
            received = xpnet.grad(scanned, argnums=(0, 1, 2))(*arguments)
        assert_trees_same(received, xpnet.grad(looped, argnums=(0, 1, 2))(*arguments))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_raise_on_nan_names_the_line_in_the_step(device):
    def root(carried, x):
        y = xpnet.array_namespace(x).sqrt(x)
        return carried + y, y

    def loss(x):
        xp = xpnet.array_namespace(x)
        return xp.sum(xp.where(x > 0, xpnet.scan(root, 0.0, x)[1], x))

    x = xpnet.asarray([1.0, -1.0], device=device)
    with (
        pytest.raises(FloatingPointError, match=r"sqrt made the first NaN, at .*\.sqrt\(x\)"),
        xpnet.raise_on_nan(),
    ):
        xpnet.grad(loss)(x)
    zeros = xpnet.asarray([1.0, 0.0], device=device)
    with pytest.raises(FloatingPointError, match=r"gradient of sqrt .*\.sqrt\(x\)"), xpnet.raise_on_nan():
        xpnet.grad(loss)(zeros)


def test_precision_twice_and_with_state(device):
    def step(carried, x, layer, weight):
        xp = xpnet.array_namespace(x)
        return carried, layer(xp.matmul(x, weight))

    def total(x, layer, weight):
        return xpnet.array_namespace(x).sum(xpnet.scan(step, None, x, layer, weight)[1])

    x, weight = draws((3, 4, 5), (5, 2), dtype="float32")
    coarse = 2.0**-7  # of bfloat16, which has 8 digits
    for _ in range(2):  # of which each has a recording of its own
        layer, expected = nn.Dropout(0.5, seed=0), nn.Dropout(0.5, seed=0)
        f = xpnet.jit(xpnet.grad(total, argnums=(0, 2)), precision="bfloat16")
        for _ in range(2):
            received = f(x, layer, weight)
            wanted = xpnet.grad(total, argnums=(0, 2))(x, expected, weight)
            for one, other in zip(received, wanted, strict=True):
                assert_same(one, other, tolerance=60 * coarse * 8)
            assert_same(layer.random_state, expected.random_state)


def test_numbers_of_another_machine():
    x = numpy.asarray([1.0, 2.0, 3.0])

    def total(x):
        return xpnet.scan(lambda carried, x: (carried * x, x), x[0], x)[0]

    swapped = x.astype(x.dtype.newbyteorder())
    assert total(swapped) == 6.0
    numpy.testing.assert_array_equal(xpnet.grad(total)(swapped), xpnet.grad(total)(x))


def test_handles_that_a_step_rebinds(device):
    def step(carried, x, weight):
        carried += x
        x *= weight
        carried[0] = x[0]
        return carried, carried * x

    def total(start, x, weight):
        last, y = xpnet.scan(lambda c, x, w: step(c, x, w), start, x, weight)
        return xpnet.array_namespace(x).sum(y) + last[1] + start[0] * x[0, 1]  # they are what they were

    def looped(start, x, weight):
        result = start[0] * x[0, 1]
        for t in range(x.shape[0]):
            moved = start + x[t, ...]
            y = x[t, ...] * weight
            xp = xpnet.array_namespace(x)
            start = xp.concat([y[:1], moved[1:]])
            result = result + xp.sum(start * y)
        return result + start[1]

    plain = xpnet.scan(step, *draws((2,), (3, 2), ()))
    start, x, weight = draws((2,), (3, 2), ())
    with xpnet.raise_on_nan():
        assert_trees_same(xpnet.scan(step, start, x, weight), plain)
    before = [numpy.array(xpnet.to_numpy(each)) for each in (start, x)]
    everything = (0, 1, 2)
    expected = xpnet.grad(looped, argnums=everything)(start, x, weight)
    assert_trees_same(xpnet.grad(total, argnums=everything)(start, x, weight), expected)
    with xpnet.raise_on_nan():
        assert_trees_same(xpnet.grad(total, argnums=everything)(start, x, weight), expected)
    assert_same(start, before[0])
    assert_same(x, before[1])


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
    with pytest.raises(ValueError, match=r"or a length; received shapes \[\]\."):
        xpnet.scan(both, one)
    with pytest.raises(ValueError, match=r"received shapes \[\(3,\)\] and length=4"):
        xpnet.scan(both, one, three, length=4)
    with pytest.raises(ValueError, match="at least one element"):
        xpnet.scan(both, one, length=0)
    with pytest.raises(TypeError, match=r"length of scan must be an integer, received 2\.5"):
        xpnet.scan(both, one, length=2.5)
    with pytest.raises(TypeError, match=r"sequences of scan must be arrays, received float: 1\.0"):
        xpnet.scan(both, one, [1.0, 2.0])


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


@pytest.mark.parametrize(
    ("f", "received"),
    [
        (lambda carried, x: carried, "one array"),
        (lambda carried, x: (carried, x, x), "tuple"),
        (lambda carried, x: None, "NoneType: None"),
    ],
)
def test_a_step_must_return_a_pair(device, f, received):
    one, three = draws((), (3,))
    with pytest.raises(TypeError, match=f"must return a pair, .* returned {received}"):
        xpnet.scan(f, one, three)


def test_results_must_be_arrays(device):
    one, three = draws((), (3,))
    with pytest.raises(TypeError, match=r"must be arrays, numbers, None or trees .* received str: 'loss'"):
        xpnet.scan(lambda carried, x: (carried, {"loss": x, "name": "loss"}), one, three)


@pytest.mark.parametrize(
    "f",
    [
        lambda carried, x: (None, x),
        lambda carried, x: ({"a": carried}, x),
        lambda carried, x: (xpnet.array_namespace(x).astype(carried, xpnet.array_namespace(x).float32), x),
        lambda carried, x: (1j, x),
    ],
)
def test_another_structure_or_dtype(device, f):
    one, three = draws((), (3,))
    with pytest.raises(ValueError, match="what scan carries must keep its structure, shapes and dtypes"):
        xpnet.scan(f, one, three)


def test_settings_that_are_carried_stay(device):
    one, three = draws((), (3,))
    last, _ = xpnet.scan(lambda carried, x: (carried, x), {"x": one, "name": "a"}, three)
    assert last["name"] == "a"
    with pytest.raises(ValueError, match="what scan carries must keep"):
        xpnet.scan(lambda carried, x: ({"x": x, "name": "b"}, x), {"x": one, "name": "a"}, three)
    with pytest.raises(ValueError, match="what scan carries must keep"):
        xpnet.scan(lambda carried, x: (x + carried, x), 0.0, xpnet.asarray(numpy.ones((3, 2)), device=device))


@pytest.mark.parametrize(
    "f", [lambda carried, x: (carried if x > 0 else x, x), lambda carried, x: (carried, x * float(x))]
)
def test_values_are_not_known(device, f):
    one, three = draws((), (3,))
    with pytest.raises(NotRecordableError, match=r"needs the value of an array, at .*test_scan\.py"):
        xpnet.scan(f, one, three)
