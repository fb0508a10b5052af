"""Kernels of one text at once: which may be, that results stay the same, and that memory does."""

import numpy
import pytest

import xpnet
from tests.replay.cases import assert_identical
from tests.replay.plans.trainings import dense, train
from xpnet import nn, optim, tree
from xpnet.replay.plans import cuda_launches, plan
from xpnet.replay.plans.memory import Layout

pytestmark = pytest.mark.plans("cuda")

# Of whole numbers, so that products and sums are exact in any order.
X, Y = numpy.asarray([[1.0, 2.0], [0.0, -1.0]]), numpy.asarray([[2.0, -2.0], [1.0, 1.0]])
PAIRS = (X, Y), (Y, X), (X + 1, 2 * Y)

OPTIMIZERS = {
    "Adam": optim.Adam(0.01),
    "AdamW": optim.AdamW(0.01),
    "momentum": optim.SGD(0.1, momentum=0.9),
    "RMSprop": optim.RMSprop(0.01),
    "Lion": optim.Lion(0.01),
    "clipped": optim.chain(optim.clip_by_global_norm(0.1), optim.Adam(0.01)),
}


def xp_of(*arrays):
    return xpnet.array_namespace(*arrays)


def one_by_one(monkeypatch):
    """Let plans launch one kernel after the other, where they are."""
    monkeypatch.setattr("xpnet.replay.plans.cuda.at_once", lambda steps, *_: steps)


@pytest.fixture
def layouts(monkeypatch):
    """The layouts of all plans that are made."""
    made = []

    def layout(*arguments):
        made.append(Layout(*arguments))
        return made[-1]

    monkeypatch.setattr(plan, "Layout", layout)
    return made


def several(layout):
    """Return how many kernels are done at once, step by step."""
    return [len(step.at_once) for step in layout._steps if step.at_once]


# -- optimizers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_as_many_launches_for_any_number_of_layers(name, on_host, layouts):
    def launches(depth):
        host = on_host()
        train(dense(depth, bias=False), optimizer=OPTIMIZERS[name], steps=1)
        return host.launched.count("kernel")

    assert launches(9) == launches(3)
    assert [max(several(layout)) for layout in layouts] == [10, 4]  # the last layer has a bias


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trainings_are_the_same_to_the_last_bit(name, on_host, layouts, monkeypatch):
    def trained():
        on_host()
        net = nn.Sequential(nn.Dense(4, 70, seed=0), nn.LayerNorm(70), nn.ReLU(), nn.Dense(70, 3, seed=1))
        values, net, _ = train(net, optimizer=OPTIMIZERS[name], steps=4)
        return [*values, *tree.leaves(net)]

    found = trained()
    assert several(layouts[-1])
    one_by_one(monkeypatch)
    for one, other in zip(found, trained(), strict=True):
        assert_identical(one, other)
    assert not several(layouts[-1])


def test_what_would_need_more_memory_is_not_done_at_once(record, layouts, monkeypatch):
    """Both totals at once would need both products at once."""

    def f(x, w):
        xp = xp_of(x)
        return xp.sum(x @ w, axis=0), xp.sum(w @ x, axis=0)

    def g(x, w):
        """Where as much is needed anyway."""
        return *f(x, w), (x + w) @ (x - w)

    x, w = numpy.ones((64, 64)), numpy.eye(64)
    for function, at_once in ((f, []), (g, [2])):
        recording = record(function, x, w)
        assert several(layouts[-1]) == at_once
        recording.check((x, w), (w, w), (w, x))
    memory = [layout.nbytes for layout in layouts]
    one_by_one(monkeypatch)
    assert memory == [record(function, x, w).plan.nbytes for function in (f, g)]


# -- which may be done at once ------------------------------------------------------------------------------


def flat(xp, x):
    return xp.exp(x) * 2


def to_a_number(xp, x):
    return xp.sum(x * x) / 2


def in_rows(xp, x):
    return x - xp.max(x, axis=-1, keepdims=True)


def to_rows(xp, x):
    return xp.sum(x * 3, axis=0), xp.min(x, axis=0)


@pytest.mark.parametrize("function", [flat, to_a_number, in_rows, to_rows])
@pytest.mark.parametrize("columns", [5, 70])
def test_arrays_of_any_size(function, columns, on_host, layouts, monkeypatch):
    """A kernel does the same in a part of a larger grid, with more threads than it asks for."""

    def results():
        host = on_host()
        f = xpnet.jit(lambda *arrays: [function(xp_of(*arrays), x) for x in arrays])
        found = []
        for seed in range(2):
            random = numpy.random.default_rng(seed)
            # Of one block, and of several.
            found += tree.leaves(f(*(random.normal(size=(n, columns)) for n in (2, 3, 40, 300))))
        return found, host.launched

    found, launched = results()
    assert set(several(layouts[-1])) == {4}
    one_by_one(monkeypatch)
    expected, launched_one_by_one = results()
    assert launched * 4 == launched_one_by_one
    for one, other in zip(found, expected, strict=True):
        assert_identical(one, other)


def test_no_more_is_handed_in_than_a_kernel_can_take(on_host, monkeypatch):
    host = on_host()
    arrays = [numpy.arange(float(n)) for n in range(1, 12)]
    kernels = []
    kernel = host.kernel
    monkeypatch.setattr(host, "kernel", lambda text, grid: kernels.append(text) or kernel(text, grid))
    monkeypatch.setattr(cuda_launches, "MOST_BYTES", 8 * 4 * 4)  # two arrays, a size and a block, 4 times
    found = xpnet.jit(lambda *arrays: [x * 2 for x in arrays])(*arrays)
    assert host.launched == ["kernel"] * 3
    assert len(set(kernels)) == 2  # for 4 arrays, and for 3
    for one, x in zip(found, arrays, strict=True):
        assert_identical(one, x * 2)


@pytest.mark.parametrize("numbers", [(0.0, -0.0), (1.5, 2.5), (1.5, 1.5), (numpy.nan, 1.5)])
def test_numbers(numbers, record):
    one, other = map(numpy.float64, numbers)

    def f(x, y):
        return x * one, y * other

    recording = record(f, X, Y)
    assert recording.steps == ["multiply"]
    recording.check(*PAIRS)


# -- which may be done at once ------------------------------------------------------------------------------


def test_what_one_makes_another_one_needs(record, layouts):
    def f(x, w):
        y = x * x
        z = y @ w
        return y, z * z  # behind a product

    recording = record(f, X, Y)
    assert recording.steps == ["multiply", "matmul", "multiply"]
    recording.check(*PAIRS)


def test_what_one_makes_a_view_of_which_another_one_needs(record, layouts):
    def f(x, w):
        y = x * x
        z = (y.T @ w)[0]
        return y, w * w, z * z

    recording = record(f, X, Y)
    assert sorted(recording.steps) == ["matmul", "multiply", "multiply"]
    assert several(layouts[-1]) == [2]
    recording.check(*PAIRS)


def test_totals_that_need_each_other(record, layouts):
    def f(x, w, number):
        sum = xp_of(x).sum
        a = sum(x * number)
        b = sum(w * a)
        return b, sum(x * b)

    recording = record(f, X, Y, numpy.asarray(2.0))
    assert recording.steps == ["multiply_sum"] * 3
    recording.check(*[(*pair, numpy.asarray(3.0)) for pair in PAIRS])


def test_the_one_that_is_needed_does_not_join_the_other(record, layouts):
    def f(x, w, number):
        sum = xp_of(x).sum
        a = sum(x * number)
        product = x @ w
        c = sum(product * number)
        return sum(w * a), c, product

    recording = record(f, X, Y, numpy.asarray(2.0))
    assert recording.steps == ["multiply_sum", "matmul", "multiply_sum"]
    recording.check(*[(*pair, numpy.asarray(3.0)) for pair in PAIRS])


def test_between_where_both_are(record, layouts):
    def f(x, w, large):
        exp = xp_of(x).exp
        a = exp(x)
        b = w @ w
        c = x @ w
        d = a @ c
        return d @ exp(b), b, (large @ large)[0]

    large = numpy.zeros((9, 9))
    recording = record(f, X, Y, large)
    assert recording.steps == ["matmul", "exp", "matmul", "matmul", "matmul", "matmul"]
    recording.check(*[(*pair, large) for pair in PAIRS])


def test_a_view_of_an_argument_comes_before_what_reads_it(record, layouts):
    def f(x, w):
        exp = xp_of(x).exp
        a = exp(w[0]) @ w
        return exp(x[1]) @ w, a

    record(f, X, Y).check(*PAIRS)


def test_one_moves_up_to_where_all_is_there_that_it_reads(record, layouts):
    def f(x, w):
        a = xp_of(x).exp(x)
        b = a @ w
        c = b @ xp_of(x).exp(w)
        return c @ c

    recording = record(f, X, Y)
    assert recording.steps == ["exp", "matmul", "matmul", "matmul"]
    recording.check(*PAIRS)


def test_one_moves_down_to_before_what_it_makes_is_read(record, layouts):
    def f(x, w):
        a = xp_of(x).exp(x)
        b = w @ w
        return a @ xp_of(x).exp(b), b

    recording = record(f, X, Y)
    assert recording.steps == ["matmul", "exp", "matmul"]
    recording.check(*PAIRS)


def test_donated_arguments_that_others_read_are_not_written_over(record, layouts):
    """Each of two reads both, at the same time as the other one."""

    def f(v, w):
        return v + w, w + v

    recording = record(f, X, Y, donate=("v", "w"))
    recording.check(*PAIRS)

    def f(v, w, x):
        return v + x, w + v, x @ x

    recording = record(f, X, Y, X, donate=("v", "w"))
    assert several(layouts[-1]) == [2]
    assert recording.summary["over"] == 1  # w
    recording.check(*[(*pair, X) for pair in PAIRS])


def test_donated_arguments_are_written_over(record, layouts):
    def f(v, w, g):
        return v - g, w - g

    recording = record(f, X, Y, X, donate=("v", "w"))
    assert several(layouts[-1]) == [2]
    assert recording.summary["over"] == 2
    recording.check(*[(*pair, X) for pair in PAIRS])


def test_results_take_over_memory_that_only_they_read(record, layouts):
    def f(x, w, large):
        a, b, c, d = x @ w, w @ x, x @ x, w @ w
        return (a * b) @ x, (c * d) @ x, (large @ large)[0]

    large = numpy.zeros((9, 9))
    recording = record(f, X, Y, large)
    assert several(layouts[-1]) == [2]
    assert recording.steps.count("multiply") == 1
    places = recording.places
    assert places["h"] in (places["d"], places["e"])
    assert places["j"] in (places["f"], places["g"])
    recording.check(*[(*pair, large) for pair in PAIRS])


@pytest.mark.parametrize("seed", range(12))
def test_programs(seed, record, layouts):
    """Of few functions, so that many are alike, with products in between, and views."""
    random = numpy.random.default_rng(seed)
    choices = random.integers(0, 2**31, size=60)

    def f(v, w, x):
        picks = iter(choices)
        pool = [v, w, x]
        for _ in range(14):
            a, b = pool[next(picks) % len(pool)], pool[-1 - next(picks) % min(3, len(pool))]
            kind = next(picks) % 5
            made = [a @ b, a - b, a - b, a.T, xp_of(a).clip(b, -9, 9)]
            pool.append(xp_of(a).clip(made[kind], -99, 99) if kind == 0 else made[kind])
        return (*pool[-2:], pool[4], pool[7])

    recording = record(f, X, Y, X + Y, donate=("v", "w"))
    recording.check((X, Y, X + Y), (Y, X, X), (X - Y, X, Y.T))
