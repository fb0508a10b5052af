import gc
import inspect
import logging
import pickle
import threading
import tracemalloc
import weakref

import array_api_compat
import numpy
import pytest
from helpers import array, assert_same, assert_same_trees, batch, network, on, rounding

import xpnet
from xpnet import nn, tree
from xpnet.errors import NotRecordableError


def labelled(seed=0, size=16):
    labels = numpy.random.default_rng(seed).integers(0, 3, size=size)
    return batch(size, 6, seed=seed), on(xpnet.device(), labels)


def training_step(optimizer):
    def step(net, state, x, y):
        def loss(net):
            return xpnet.losses.cross_entropy(net(x), y)

        value, gradient = xpnet.value_and_grad(loss)(net)
        net, state = optimizer.update(gradient, state, net)
        return net, state, value

    return step


@pytest.mark.parametrize("donate", [(), ("net", "state")], ids=["kept", "donated"])
@pytest.mark.parametrize("dropout", [0.0, 0.5], ids=["plain", "dropout"])
def test_a_training_agrees_with_the_eager_one(xp, donate, dropout):
    step = training_step(xpnet.optim.Adam(0.01))
    recorded = xpnet.jit(step, donate=donate)
    eager_net, net = network(6, 8, 3, dropout=dropout), network(6, 8, 3, dropout=dropout)
    optimizer = xpnet.optim.Adam(0.01)
    eager_state, state = optimizer.init(eager_net), optimizer.init(net)
    for number in range(6):
        x, y = labelled(number)
        eager_net, eager_state, expected = step(eager_net, eager_state, x, y)
        net, state, value = recorded(net, state, x, y)
        assert_same(value, expected)
    assert_same_trees(net, eager_net)
    assert_same_trees(state, eager_state)


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Lion"])
def test_optimizers(optimizer):
    optimizer = getattr(xpnet.optim, optimizer)(0.01)
    step = training_step(xpnet.optim.chain(xpnet.optim.clip_by_global_norm(0.5), optimizer))
    init = xpnet.optim.chain(xpnet.optim.clip_by_global_norm(0.5), optimizer).init
    recorded = xpnet.jit(step, donate=("net", "state"))
    eager_net, net = network(6, 8, 3), network(6, 8, 3)
    eager_state, state = init(eager_net), init(net)
    for number in range(5):
        x, y = labelled(number)
        eager_net, eager_state, _ = step(eager_net, eager_state, x, y)
        net, state, _ = recorded(net, state, x, y)
    assert_same_trees(net, eager_net)


def test_without_kernels_the_digits_are_the_same(monkeypatch):
    monkeypatch.setattr("xpnet.replay.plans.numba.numba_is_there", lambda: False)
    step = training_step(xpnet.optim.Adam(0.01))
    recorded = xpnet.jit(step, donate=("net", "state"))
    eager_net, net = network(6, 8, 3), network(6, 8, 3)
    eager_state, state = (xpnet.optim.Adam(0.01).init(n) for n in (eager_net, net))
    for number in range(5):
        x, y = labelled(number)
        eager_net, eager_state, _ = step(eager_net, eager_state, x, y)
        net, state, _ = recorded(net, state, x, y)
    assert_same_trees(net, eager_net, tolerance=0)


def test_what_is_not_donated_stays(device):
    step = xpnet.jit(training_step(xpnet.optim.Adam(0.01)))
    net = network(6, 8, 3)
    state = xpnet.optim.Adam(0.01).init(net)
    before = pickle.dumps(xpnet.to_numpy((net, state)))
    for _ in range(3):
        step(net, state, *labelled())
    assert pickle.dumps(xpnet.to_numpy((net, state))) == before


def test_what_is_made_twice_is_two_arrays(device):
    double = xpnet.jit(lambda x: (x + 1, x + 1, (x * 2)[0, :], x * 2))
    for _ in range(2):
        first, second, row, whole = double(array([[1.0, 2.0], [3.0, 4.0]]))
        assert first is not second
        if not array_api_compat.is_jax_array(first):  # which are never written to
            first[0, 0], row[...] = 7, 7
        assert xpnet.to_numpy(second).tolist() == [[2.0, 3.0], [4.0, 5.0]]
        assert xpnet.to_numpy(whole).tolist() == [[2.0, 4.0], [6.0, 8.0]]


def test_donated_arrays_are_written_over():
    step = xpnet.jit(training_step(xpnet.optim.Adam(0.01)), donate=("net", "state"))
    net = network(6, 8, 3)
    first = net.layers[0].weight
    kept = first.copy()
    net, state, _ = step(net, xpnet.optim.Adam(0.01).init(net), *labelled())
    numpy.testing.assert_array_equal(first, kept)  # the first call only records
    second = net.layers[0].weight
    net, _, _ = step(net, state, *labelled())
    assert net.layers[0].weight is second


def test_donated_arrays_that_cannot_be_written_over_are_copied():
    f = xpnet.jit(lambda x, y: (x * y + x, x.shape), donate=("x",))
    whole = numpy.arange(6.0)
    frozen = numpy.arange(3.0)
    frozen.flags.writeable = False
    same = numpy.arange(3.0)
    for x, y in [(whole[:3], whole[3:]), (frozen, frozen.copy()), (same, same), (whole[::2], whole[1::2])]:
        for _ in range(2):
            expected, before = x * y + x, x.copy()
            numpy.testing.assert_array_equal(f(x, y)[0], expected)
            numpy.testing.assert_array_equal(x, before)
    mine = numpy.arange(3.0)
    assert f(mine, numpy.ones(3))[0] is mine  # which can be


OVER = {
    "a product": lambda xp, x, y: xp.matmul(x, y),
    "another shape": lambda xp, x, y: (xp.reshape(x, (1, 16)) + 1) * 2,
    "its first row": lambda xp, x, y: (x + x[:1, :]) * 2,
    "a view that is returned": lambda xp, x, y: (xp.flip(x), x + 1)[::-1],
    "what is read in another order": lambda xp, x, y: x + xp.flip(x, axis=0),
    "what is read once more": lambda xp, x, y: (x + 1, x * y),
}


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
@pytest.mark.parametrize("name", OVER)
def test_a_donated_array_is_written_over_only_when_it_has_been_read(name):
    def f(x, y):
        return OVER[name](xpnet.array_namespace(x), x, y)

    recorded = xpnet.jit(f, donate=("x",))
    for seed in range(3):
        x, y = numpy.random.default_rng(seed).normal(size=(2, 4, 4))
        expected = f(x.copy(), y)
        assert_same_trees(recorded(x.copy(), y), expected, tolerance=rounding(5000, "float64"))


def test_results_of_one_call_survive_the_next(device):
    f = xpnet.jit(lambda x: {"a": x + 1, "b": [x * 2, xpnet.array_namespace(x).sum(x)]})
    x = xpnet.asarray([1.0, 2.0], device=xpnet.device())
    first = f(x)
    kept = xpnet.to_numpy(tree.map(lambda a: a + 0, first))
    f(x + 5)
    f(x + 7)
    for one, other in zip(tree.leaves(xpnet.to_numpy(first)), tree.leaves(kept), strict=True):
        numpy.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "f",
    [
        lambda xp, x: xp.reshape(xp.sum(x), (1,)),
        lambda xp, x: xp.broadcast_to(xp.sum(x), (3,)),
        lambda xp, x: xp.max(x)[None],
        lambda xp, x: xp.permute_dims(xp.reshape(x * 2, (1, -1)), (1, 0)),
    ],
)
def test_views_of_results_survive_the_next_call(xp, f):
    recorded = xpnet.jit(lambda x: f(xpnet.array_namespace(x), x))
    x = xpnet.asarray([1.0, 2.0], device=xpnet.device())
    recorded(x)
    first = recorded(x)
    recorded(x + 5)
    assert_same(first, f(xp, x))


def test_results_that_are_made_alike_are_several_arrays():
    f = xpnet.jit(lambda x: (x + 1, x + 1))
    a, b = f(numpy.zeros(3))
    a[0] = 9
    numpy.testing.assert_array_equal(b, numpy.ones(3))


def test_donated_arrays_of_which_another_argument_is_a_part():
    f = xpnet.jit(lambda x, y: (x * 2, (y + 1) * (y + 1)), donate=("x",))
    for part in (lambda a: a[:2], lambda a: a.reshape(2, 2), lambda a: a[::-1]):
        for _ in range(3):
            x = numpy.arange(4.0)
            _, squares = f(x, part(x))
            numpy.testing.assert_array_equal(squares, (part(numpy.arange(4.0)) + 1) ** 2)


def test_a_layer_at_two_places_draws_twice():
    dropout, twin = nn.Dropout(0.5, seed=0), nn.Dropout(0.5, seed=0)
    f = xpnet.jit(lambda net, x: net(x))
    x = numpy.ones(100, "float32")
    for _ in range(3):
        assert_same(f(nn.Sequential(dropout, dropout), x), twin(twin(x)))


def test_numbers_of_another_kind_than_recorded():
    f = xpnet.jit(lambda x: x * 2)
    f(numpy.float64(2.0))
    assert float(xpnet.grad(lambda x: f(x))(numpy.float64(2.0))) == 2.0
    assert float(xpnet.jit(lambda x: f(x) * 2)(numpy.asarray(3.0))) == 12.0
    big = numpy.arange(3.0).astype(">f8")
    numpy.testing.assert_array_equal(f(big), [0, 2, 4])
    numpy.testing.assert_array_equal(xpnet.jit(lambda x: (x * 2 + 1) * x)(big), [0, 3, 10])


def test_raise_on_nan_sees_what_was_recorded_before():
    f = xpnet.jit(xpnet.grad(lambda x: xpnet.array_namespace(x).log(x)))
    f(numpy.asarray(1.0))
    with xpnet.raise_on_nan(), numpy.errstate(all="ignore"), pytest.raises(FloatingPointError):
        f(numpy.asarray(-1.0))


def test_keys_and_numbers_of_all_kinds():
    def f(x, c):
        xp = xpnet.array_namespace(x)
        i = xp.asarray([[0], [1], [0]])
        parts = x[numpy.int64(1) :], xp.take_along_axis(x[:1, :], i[:, :1], axis=-1)
        return *parts, xp.where(c, -1.5, x), xp.where(c, x, float("nan"))

    recorded = xpnet.jit(f)
    for seed in range(3):
        x = numpy.random.default_rng(seed).normal(size=(3, 2))
        for one, other in zip(recorded(x, x > 0), f(x, x > 0), strict=True):
            numpy.testing.assert_array_equal(one, other)


def test_methods():
    class Model:
        factor = 3.0

        @xpnet.jit
        def scale(self, x):
            return x * self.factor

    model = Model()
    numpy.testing.assert_array_equal(model.scale(numpy.ones(2)), [3, 3])
    assert model.scale.explain() == Model.scale.explain()


def test_a_function_keeps_its_signature():
    def f(x: int, *rest, scale: float = 2.0) -> float:
        """Scale."""

    transforms = (xpnet.jit, xpnet.grad, xpnet.value_and_grad, xpnet.jacobian, xpnet.hessian)
    for transform in (*transforms, xpnet.checkpoint, xpnet.custom_gradient):
        g = transform(f)
        assert inspect.signature(g) == inspect.signature(f)
        assert (g.__name__, g.__doc__, inspect.unwrap(g)) == ("f", "Scale.", f)
    assert [*inspect.signature(xpnet.jit).parameters] == ["f", "donate", "precision"]


def test_another_shape_dtype_number_or_mode_is_recorded_anew(xp):
    calls = []

    def f(net, x, power):
        calls.append(power)
        return net(x) ** power

    recorded = xpnet.jit(f)
    net = nn.Sequential(nn.Dense(6, 3, seed=0), nn.Dropout(0.5, seed=1))
    for _ in range(2):
        for mode in (net.train, net.eval):
            mode()
            for size in (2, 3):
                for power in (1, 2):
                    x, _ = labelled(size=size)
                    twin = tree.map(lambda x: x, net, state=True)
                    expected = twin(x) ** power
                    assert_same(recorded(net, x, power), expected)
    assert len(calls) == 8


def test_state_is_carried_and_random_numbers_are_fresh(xp):
    dropout = nn.Dropout(0.5, seed=3)
    twin = nn.Dropout(0.5, seed=3)
    f = xpnet.jit(lambda layer, x: layer(x))
    x = xp.ones((50,), dtype=xp.float32, device=xpnet.device().native)
    masks = []
    for _ in range(4):
        masks.append(f(dropout, x))
        assert_same(masks[-1], twin(x))
    assert len({xpnet.to_numpy(mask).tobytes() for mask in masks}) == 4


def branch(x):
    return x if x > 0 else -x


def number(x):
    return float(x)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (branch, 1.0),
        (number, 1.0),
        (int, 1.0),
        (numpy.asarray, 1.0),
        (lambda x: x[x > 0], [1.0, -1.0]),
        (lambda x: xpnet.array_namespace(x).nonzero(x), [1.0, 0.0]),
        (lambda x: xpnet.array_namespace(x).unique_values(x), [1.0, 0.0]),
    ],
)
def test_what_cannot_be_recorded_names_the_line_and_the_way_out(device, f, x):
    x = xpnet.asarray(x, device=xpnet.device())

    def inside(x):
        return f(x)  # this line, or the one of f

    with pytest.raises(NotRecordableError, match=r"test_jit.*leave jit away"):
        xpnet.jit(inside)(x)


def test_a_function_of_values_inside_grad_cannot_be_recorded_either(device):
    x = xpnet.asarray(1.0, device=xpnet.device())
    with pytest.raises(NotRecordableError, match="Python branch"):
        xpnet.jit(xpnet.grad(branch))(x)


def test_constants_may_be_looked_at(xp):
    def f(x):
        scale = xp.asarray(2.0, device=x.device)
        return x * 3 if scale > 1 else x

    recorded = xpnet.jit(f)
    x = xpnet.asarray([1.0, 2.0], device=xpnet.device())
    assert_same(recorded(x), x * 3)
    assert_same(recorded(x + 1), (x + 1) * 3)


def test_inside_other_transforms_it_is_the_function_itself(device):
    x = xpnet.asarray([1.0, 2.0], device=xpnet.device())
    inner = xpnet.jit(lambda x: x * x)
    assert_same(xpnet.grad(lambda x: inner(x) @ x)(x), 3 * x * x)
    assert_same(xpnet.jit(lambda x: inner(x) + 1)(x), x * x + 1)
    with xpnet.raise_on_nan():
        assert_same(inner(x), x * x)


def test_gradients_of_higher_order(device):
    def f(x):
        return (x**3) @ x

    x = xpnet.asarray([1.0, 2.0], device=xpnet.device())
    second = xpnet.jit(xpnet.grad(lambda x: xpnet.grad(f)(x) @ x))
    for each in (x, x + 1, x - 3):
        assert_same(second(each), 16 * each**3)


def test_assignment_in_place(xp):
    def f(x):
        y = xp.zeros((3,), dtype=x.dtype, device=x.device)
        z = xpnet.array_namespace(x).zeros_like(x)
        z[0] = x[1]
        z[1:] += x[:2] * 2
        return z + y

    recorded = xpnet.jit(f)
    x = xpnet.asarray([1.0, 2.0, 3.0], device=xpnet.device())
    for each in (x, x + 1):
        assert_same(
            recorded(each),
            xpnet.asarray([0.0, 0.0, 0.0], device=xpnet.device(), dtype=x.dtype) + f_plain(each),
        )


def f_plain(x):
    a, b, _ = (float(each) for each in xpnet.to_numpy(x))
    return xpnet.asarray([b, 2 * a, 2 * b], device=xpnet.device(), dtype=x.dtype)


def test_views_of_one_buffer_are_not_written_over_too_early():
    def f(x):
        xp = xpnet.array_namespace(x)
        y = x + 1
        parts = xp.unstack(y)
        z = y * 2
        return xp.stack([part + z[0] for part in parts]) + xp.flip(y, axis=0)

    recorded = xpnet.jit(f)
    for seed in range(3):
        x = numpy.random.default_rng(seed).normal(size=(4, 5))
        numpy.testing.assert_allclose(recorded(x), f(x))


VIEWS = {
    "its transpose": lambda xp, c, y: xp.where(c, y, y.T),
    "itself in reverse": lambda xp, c, y: y / y[::-1, :],
    "several of them": lambda xp, c, y: xp.where(c, y[:, ::-1], y.T) - y,
    "its first row": lambda xp, c, y: y * y[:1, :],
    "its columns in reverse": lambda xp, c, y: xp.maximum(xp.flip(y, axis=1), y),
    "a part of it": lambda xp, c, y: y[:-1, :] - y[1:, :],
    "another shape of it": lambda xp, c, y: y[:, :1] * xp.reshape(y, (1, -1)),
}


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
@pytest.mark.parametrize("name", VIEWS)
def test_a_result_is_not_written_over_what_is_read_beside_it(name):
    def f(x, c):
        xp = xpnet.array_namespace(x)
        return VIEWS[name](xp, c, x * 2) + 1

    recorded = xpnet.jit(f)
    for seed in range(3):
        x = numpy.random.default_rng(seed).normal(size=(40, 40))
        assert_same(recorded(x, x > 0), f(x, x > 0))


CAREFUL = {
    "both zeros": lambda xp, x: [1 / (x * x * zero) for zero in (0.0, -0.0)],
    "slices": lambda xp, x: [x[0:4] + 1, x[1:4] + 1, x[0:4:2] + 1, x[0:5] + 1],
    "a constant of both zeros": lambda xp, x: x[:2] * x[:2] / xp.asarray([0.0, -0.0]),
    "a constant that is chosen is -0.0": lambda xp, x: 1 / xp.where(x > 9, x, -0.0),
    "a sum beside what is added up": lambda xp, x: x * x / xp.sum(x * x),
    "means of other axes": lambda xp, x: [xp.mean(xp.reshape(x, (6, 4, 32)), axis=a) for a in (0, 1, (0, 2))],
    "rows that are not equally far apart": lambda xp, x: xp.reshape(x, (6, 4, 32))[:, 1:3, 2:12] * 2 + 1,
    "long rows beside a short one": lambda xp, x: xp.reshape(x, (2, 3, 8, 16))[:, 1, ...] + x[:16],
    "a part that is repeated": lambda xp, x: (
        xp.reshape(x, (2, 24, 16)) * xp.reshape(x, (24, 2, 16))[:, 1, :] + 1
    ),
    "columns that are repeated themselves": lambda xp, x: (
        xp.reshape(x, (16, 3, 16))
        - xp.max(xp.reshape(x, (16, 3, 16)), axis=-1, keepdims=True) * xp.reshape(x[:3], (3, 1))
    ),
    "the real part of one number": lambda xp, x: xp.real(xp.astype(x[:1], xp.complex128)) * 2 + 1,
    "batches of products": lambda xp, x: xp.reshape(x, (6, 8, 16)) @ xp.reshape(x, (6, 16, 8)),
    "a vector and matrices": lambda xp, x: x[:8] @ xp.reshape(x, (6, 8, 16)),
    "what shares memory with several": lambda xp, x: xp.broadcast_arrays(
        x[:4] + 1, xp.reshape(x[:4] * 2, (4, 1))
    ),
}


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", CAREFUL)
def test_what_is_easily_taken_for_something_else(name):
    def f(x):
        return CAREFUL[name](xpnet.array_namespace(x), x)

    recorded = xpnet.jit(f)
    results = []
    for seed in range(3):
        x = numpy.random.default_rng(seed).normal(size=768)
        results.append((recorded(x), f(x)))
    for one, other in results:  # those of the first calls are as they were
        assert_same_trees(one, other, tolerance=rounding(5000, "float64"))


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
def test_a_constant_that_is_returned_may_be_written_to():
    f = xpnet.jit(lambda x: (x + 1, xpnet.array_namespace(x).ones(3)))
    for _ in range(3):
        _, ones = f(numpy.zeros(2))
        numpy.testing.assert_array_equal(ones, numpy.ones(3))
        ones[...] = 5


def test_what_is_repeated_keeps_its_shape(device):
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.broadcast_to(xp.sum(x), (2, 3)) * xp.broadcast_to(xp.max(x), (3,))

    recorded, x = xpnet.jit(f), xpnet.asarray([1.0, 2.0], device=device)
    for each in (x, x + 1):
        assert_same(recorded(each), f(each))


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
def test_gradients_of_what_was_picked_by_indices():
    indices = [numpy.asarray([[1], [2], [2]]), numpy.asarray([[0], [2], [1]])]

    def f(x, i):
        xp = xpnet.array_namespace(x)
        rows = numpy.asarray([[2], [0], [2]])
        picked = [xp.take(x, xp.reshape(i, (-1,)), axis=0), x[rows, i], xp.take_along_axis(x, i, axis=0)]
        return sum(xp.sum(each * each) for each in picked)

    recorded = xpnet.jit(xpnet.grad(f))
    for i in (*indices, indices[0]):
        x = numpy.random.default_rng(0).normal(size=(3, 12))
        assert_same(recorded(x, i), xpnet.grad(f)(x, i))


def test_totals_of_kernels_are_rounded_as_those_of_numpy():
    pytest.importorskip("numba")
    x = numpy.ones((4, 64), dtype="float32")
    x[:, 0] = 2.0**24  # beside which a 1 is lost in single precision, one by one, but not 8 or 32 of them
    recorded = xpnet.jit(lambda x: [xpnet.array_namespace(x).sum(x + 0, axis=axis) for axis in (-1, None)])
    for _ in range(2):
        assert [each.tolist() for each in recorded(x)] == [[2.0**24 + 56] * 4, 2.0**26 + 224]


def test_what_differs_in_an_option_alone_is_computed_for_each(device):
    def f(x):
        xp = xpnet.array_namespace(x)
        sums = [xp.sum(x, axis=axis) for axis in (0, 1)]
        spreads = [xp.std(x, correction=correction) for correction in (0, 1, 0.0)]
        return (
            *sums,
            *spreads,
            *(xp.sort(x, axis=axis, descending=d) for axis in (0, 1) for d in (False, True)),
        )

    x = xpnet.asarray([[1.0, 5.0], [3.0, 2.0]], device=device)
    recorded = xpnet.jit(f)
    for scale in (1.0, 2.0):
        for one, other in zip(recorded(x * scale), f(x * scale), strict=True):
            assert_same(one, other)


def test_a_replay_allocates_nothing_of_the_size_of_its_arrays():
    step = xpnet.jit(training_step(xpnet.optim.Adam(0.01)), donate=("net", "state"))
    net = nn.Sequential(nn.Dense(6, 4000, seed=0), nn.ReLU(), nn.Dense(4000, 3, seed=1))
    state = xpnet.optim.Adam(0.01).init(net)
    x, y = labelled(size=64)
    for _ in range(3):
        net, state, _ = step(net, state, x, y)
    tracemalloc.start()
    for _ in range(5):
        net, state, _ = step(net, state, x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000  # an array of the hidden layer has a million bytes


def test_inputs_are_not_kept():
    f = xpnet.jit(lambda x: x * 2)
    for _ in range(3):
        x = numpy.ones(3)
        alive = weakref.ref(x)
        f(x)
        del x
        assert alive() is None


def test_a_network_whose_state_is_written_is_not_kept():
    f = xpnet.jit(lambda net, x: net(x))
    net = nn.Sequential(nn.BatchNorm(3), nn.Dropout(0.5, seed=0))
    alive = weakref.ref(net)
    f(net, numpy.ones((2, 3), "float32"))
    del net
    gc.collect()
    assert alive() is None


def test_the_number_of_plans_is_bounded(caplog):
    recorded = []

    @xpnet.jit
    def f(x):
        recorded.append(x.shape)
        return x + 1

    with caplog.at_level(logging.WARNING, logger="xpnet"):
        for size in range(40):
            assert f(numpy.zeros(size)).shape == (size,)
    assert len(f._recordings) == 16
    f(numpy.zeros(39))
    f(numpy.zeros(24))
    assert len(recorded) == 40  # those of the latest 16 are there
    assert [record.message.count("more than 16 kinds of arguments") for record in caplog.records] == [1]


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
def test_threads_side_by_side():
    step = xpnet.jit(lambda x, w: xpnet.array_namespace(x).tanh(x @ w) * 2 + 1)
    w = numpy.random.default_rng(0).normal(size=(300, 200))
    inputs = [numpy.random.default_rng(i).normal(size=(200, 300)) for i in range(8)]
    expected = [numpy.tanh(x @ w) * 2 + 1 for x in inputs]
    step(inputs[0], w)
    wrong = []

    def run(i):
        for _ in range(20):
            if not numpy.allclose(step(inputs[i], w), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_donate_must_name_parameters():
    with pytest.raises(
        ValueError, match=r"donate must name parameters of the function, x, y; received \('z',\)"
    ):
        xpnet.jit(lambda x, y: x, donate=("z",))
    with pytest.raises(ValueError, match="donate must name"):
        xpnet.jit(lambda x, y: x, donate="x")


def test_fit_says_once_that_it_runs_without(caplog):
    def loss(outputs, targets):
        value = xpnet.losses.mse(outputs, targets)
        return value if value > 0 else -value

    x = numpy.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    net, twin = nn.Dense(2, 2, seed=0), nn.Dense(2, 2, seed=0)
    options = {"optimizer": xpnet.optim.SGD(0.1), "epochs": 3, "seed": 0, "progress": False}
    with caplog.at_level(logging.WARNING, logger="xpnet"):
        xpnet.fit(net, x, x, loss=loss, **options)
    assert [record.message.count("Python branch") for record in caplog.records] == [1]
    xpnet.fit(twin, x, x, loss=xpnet.losses.mse, **options)
    assert_same(net.weight, twin.weight)


def test_explain_and_cost(device):
    f = xpnet.jit(lambda x, w: xpnet.array_namespace(x).sum((x @ w + 1) * 2))
    with pytest.raises(ValueError, match="Call the function once"):
        f.cost()
    x = xpnet.asarray(numpy.ones((4, 5)), device=xpnet.device())
    f(x, xpnet.asarray(numpy.ones((5, 3)), device=xpnet.device()))
    assert f.cost() == (2 * 4 * 5 * 3 + 3 * 4 * 3, 8 * (20 + 15 + 12 + 2 * 24 + 13))
    assert "4 functions recorded, 4 left" in f.explain()
    assert "def replay(" in f.explain()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool", "complex64", "int8"])
def test_where_chooses_all_values(dtype, monkeypatch):
    monkeypatch.setattr("xpnet.replay.plans.numba.numba_is_there", lambda: False)
    special = [0.0, -0.0, 1.5, -3.0, numpy.inf, -numpy.inf, numpy.nan, 1e-310]
    with numpy.errstate(all="ignore"):
        x = numpy.asarray(special * 2).astype(dtype)
    y, c = x[::-1].copy(), numpy.arange(16) % 3 == 0

    def f(x, y, c):
        xp = xpnet.array_namespace(x)
        zero = xp.zeros((), dtype=x.dtype)
        chosen = [xp.where(c, x, y), xp.where(c, x, zero), xp.where(c, zero, x), xp.where(c, x, x)]
        once = xp.concat([x, y])[8:24]
        return *chosen, xp.where(c, once, y), xp.where(c[:1], x, y[3])

    recorded = xpnet.jit(f, donate=("x",))
    for _ in range(2):
        for one, other in zip(recorded(x.copy(), y, c), f(x, y, c), strict=True):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
def test_a_plan_needs_no_more_memory_than_the_function():
    def peak(step, width):
        layers = [nn.Dense(6, 4 * width, seed=0), nn.ReLU(), nn.Dense(4 * width, width), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Dense(width, 3))
        state = xpnet.optim.Adam(0.01).init(net)
        tracemalloc.start()
        try:
            for _ in range(3):  # the first one records
                net, state, _ = step(net, state, *labelled(size=512))
                tracemalloc.reset_peak()
            net, state, _ = step(net, state, *labelled(size=512))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    step = training_step(xpnet.optim.Adam(0.01))
    recorded = xpnet.jit(step, donate=("net", "state"))
    peak(recorded, 10)  # numba itself needs memory, too
    assert peak(recorded, 500) <= peak(step, 500)


def test_a_gradient_is_not_lost_through_what_the_function_closes_over():
    x = numpy.ones(3)
    with pytest.raises(NotRecordableError, match="as an argument"):
        xpnet.grad(lambda w: xpnet.jit(lambda x: (w * x)[0])(x))(numpy.asarray(2.0))


def test_planning_a_cast_does_not_warn_of_what_was_in_memory(monkeypatch):
    # Plans are laid out with arrays whose values are whatever was in memory: here, NaN.
    empty = numpy.empty

    def nan(shape, dtype=float):
        x = empty(shape, dtype)
        x[...] = numpy.nan if x.dtype.kind == "f" else 0
        return x

    monkeypatch.setattr("xpnet.replay.plans.cpu.numpy.empty", nan)
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).astype(x, xpnet.array_namespace(x).int64))
    assert f(numpy.asarray([1.5, 2.0])).tolist() == [1, 2]


OUTSIDE = {
    "an argument": lambda x, w: x @ w + x * w - x / w,
    "a constant": lambda x, w: xpnet.array_namespace(w).ones_like(x) @ w + x,
    "a list": lambda x, w: xpnet.array_namespace(x, w).concat([x, w]),
    "an index": lambda x, w: w[0, :] * x[1, :] + x[0, :] @ w,
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_gradient_beside_arrays_from_outside_of_it(name, device):
    """The array on the left has no gradient, and so does not know that there is one to be recorded."""
    f = OUTSIDE[name]

    def g(x, w):
        return xpnet.grad(lambda w: xpnet.array_namespace(w).sum(f(x, w) ** 2))(w)

    x, w = (xpnet.asarray(a, device=device) for a in ([[1.0, 2.0], [3.0, 4.0]], [[2.0, 1.0], [0.5, 3.0]]))
    recorded = xpnet.jit(g)
    for scale in (1.0, 2.0):
        expected = g(*map(xpnet.to_numpy, (x * scale, w)))
        assert numpy.allclose(xpnet.to_numpy(recorded(x * scale, w)), expected)
