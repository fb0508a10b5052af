"""What is left of a recording: each thing once, nothing that is not needed, and all bits of constants."""

import numpy
import pytest

import xpnet

pytestmark = [pytest.mark.host, pytest.mark.plans("numpy")]

X = numpy.arange(1.0, 7.0).reshape(2, 3)


def xp_of(x):
    return xpnet.array_namespace(x)


def test_operations_are_in_the_order_of_the_function(record):
    recording = record(lambda x, y: ((x - y) * y, y), X, X)
    assert recording.lines == ["c = subtract(a, b)", "d = multiply(c, b)", "return d, b"]
    recording.check((X, X + 2), (X, X - 1))


def test_each_variable_is_made_before_it_is_read(record):
    def f(x):
        y = x + 1
        parts = xp_of(x).unstack(y * x)
        return parts[0] - y[0], y

    graph = record(f, X).graph
    there = set(graph.inputs)
    for operation in graph.operations:
        assert there.issuperset(operation.inputs)
        assert there.isdisjoint(operation.results)
        there.update(operation.results)
    assert there == set(graph.variables)
    assert there.issuperset(graph.returned)


# -- equal operations ---------------------------------------------------------------------------------------


def test_equal_operations_are_done_once(record):
    recording = record(lambda x: ((x + 1) * (x + 1), x + 1), X)
    assert recording.lines == ["b = add(a, 1)", "c = multiply(b, b)", "return c, b"]
    assert recording.graph.recorded == 4
    recording.check([X], [-X])


def test_what_is_equal_once_its_arguments_are_shared_is_shared(record):
    recording = record(lambda x: ((x + 1) * 2 - 1, (x + 1) * 2 + 1), X)
    assert recording.names == ["add", "multiply", "subtract", "add"]
    recording.check([X])


def test_operations_between_other_arguments_or_in_another_order_are_not_shared(record):
    recording = record(lambda x, y: (x - y, y - x, x - x), X, X)
    assert recording.names == ["subtract"] * 3
    recording.check((X, X * 3))


@pytest.mark.parametrize(
    "both",
    [
        lambda xp, x: (xp.sum(x, axis=0), xp.sum(x, axis=1)),
        lambda xp, x: (xp.sum(x, axis=1), xp.sum(x, axis=1, keepdims=True)),
        lambda xp, x: (xp.sum(x), xp.sum(x, dtype=xp.float32)),
        lambda xp, x: (xp.cumulative_sum(x, axis=1), xp.cumulative_sum(x, axis=1, include_initial=True)),
        lambda xp, x: (xp.reshape(x, (3, 2)), xp.reshape(x, (6, 1))),
        lambda xp, x: (x[:, 1:], x[:, :1]),
        lambda xp, x: (x[0:1], x[0]),
        lambda xp, x: (xp.sort(x, axis=1), xp.sort(x, axis=1, descending=True)),
        lambda xp, x: (xp.flip(x, axis=0), xp.flip(x, axis=1)),
        lambda xp, x: (x * 1, x * True),
        lambda xp, x: (x / 1, x // 1),
    ],
)
def test_what_differs_in_an_option_is_not_shared(record, both):
    recording = record(lambda x: both(xp_of(x), x), X)
    assert len(set(recording.lines[:-1])) == 2
    recording.check([-X], [X])


# -- constants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "constants",
    [
        (0.0, -0.0),
        (numpy.zeros(3), -numpy.zeros(3)),
        (numpy.asarray(0.0), numpy.asarray(-0.0)),
        (numpy.asarray([0.0, -0.0, 0.0]), numpy.zeros(3)),
    ],
    ids=["numbers", "arrays", "arrays of no axes", "elements"],
)
def test_zeros_of_both_signs_stay_two(record, constants):
    first, second = constants
    x = -numpy.zeros((2, 3))
    recording = record(lambda x: (x * 1 + first, x * 1 + second), x)
    recording.check([x], [x + 1])


def test_nan_is_a_constant_like_any_other(record):
    recording = record(lambda x: (xp_of(x).maximum(x, numpy.nan), x + numpy.full(3, numpy.nan)), X)
    assert recording.lines == ["b = maximum(a, nan)", "c = add(a, nan)", "return b, c"]
    recording.check([X])


def test_the_bits_of_a_constant_stay_when_it_is_made_smaller(record):
    """Of equal elements one is enough, if they are equal bit for bit."""
    equal, zeros = numpy.full((2, 3), -0.0), numpy.asarray([0.0, -0.0, 0.0])
    recording = record(lambda x: (x + equal, x - zeros), X)
    assert recording.lines == ["b = add(a, -0.0)", "c = subtract(a, array(3,))", "return b, c"]
    recording.check([-numpy.zeros((2, 3))], [X])


def test_a_constant_is_as_it_was_when_it_was_recorded(record):
    constant = numpy.asarray([1.0, 2.0, 3.0])
    recording = record(lambda x: (x * constant, constant), X)
    constant[...] = 0
    for _ in range(2):
        product, returned = recording(X)
        numpy.testing.assert_array_equal(product, X * [1.0, 2.0, 3.0])
        numpy.testing.assert_array_equal(returned, [1.0, 2.0, 3.0])
        returned[...] = 7  # it is the caller's own


def test_what_depends_on_no_argument_is_computed_when_recording(record):
    recording = record(lambda x: x + xp_of(x).sum(xp_of(x).ones(5) * 2), X)
    assert recording.lines == ["b = add(a, 10.0)", "return b"]
    recording.check([X])


# -- broadcasting -------------------------------------------------------------------------------------------


def test_elementwise_functions_broadcast_their_arguments_themselves(record):
    recording = record(lambda x, y: x * xp_of(x).broadcast_to(y, (2, 3)), X, X[0])
    assert recording.lines == ["c = multiply(a, b)", "return c"]
    recording.check((X, X[1]))


def test_what_gives_the_shape_is_broadcast_before(record):
    def f(x):
        xp = xp_of(x)
        whole = xp.broadcast_to(x, (4, 3))
        return whole + 1, xp.broadcast_to(whole, (2, 4, 3)) * xp.ones((4, 1))

    recording = record(f, X[0])
    assert recording.lines == [
        "b = broadcast_to(a, (4, 3))",
        "c = add(b, 1)",
        "d = broadcast_to(b, (2, 4, 3))",
        "e = multiply(d, array(4, 1))",
        "return c, e",
    ]
    recording.check([X[1]])


def test_what_is_broadcast_stays_where_others_read_it(record):
    def f(x, y):
        whole = xp_of(x).broadcast_to(y, (2, 3))
        return x - whole, xp_of(x).cumulative_sum(whole, axis=0)

    recording = record(f, X, X[0])
    assert recording.names == ["broadcast_to", "subtract", "cumulative_sum"]
    assert recording.lines[1] == "d = subtract(a, b)"
    recording.check((X, X[1]))


# -- what is left out ---------------------------------------------------------------------------------------


def test_what_leads_to_no_result_is_left_out(record):
    def f(x):
        unused = x * 3
        _, used = xp_of(x).unstack(x), unused + 1
        return x - 1 if used is not None else used

    recording = record(f, X)
    assert recording.lines == ["b = subtract(a, 1)", "return b"]
    assert recording.graph.recorded == 4


def test_one_of_several_results_is_enough_to_stay(record):
    recording = record(lambda x: xp_of(x).unstack(x * 2)[1], X)
    assert recording.lines == ["b = multiply(a, 2)", "c, d = unstack(b)", "return d"]
    recording.check([X], [-X])


def test_what_is_read_in_a_list_an_index_or_an_option_stays(record):
    def f(x, n):
        xp = xp_of(x)
        return xp.concat([x + 1, x * 2]), x[:, n - 1], xp.clip(x, min=xp.sum(n))

    recording = record(f, X, numpy.asarray([0, 2]))
    assert recording.names == ["add", "multiply", "concat", "subtract", "getitem", "sum", "clip"]
    recording.check((X, numpy.asarray([1, 1])))


def test_results_that_are_arguments_or_come_twice_stay(record):
    recording = record(lambda x, y: (y, x + y, x + y, 2.0, x), X, X)
    assert recording.lines == ["c = add(a, b)", "return b, c, c, a"]
    recording.check((X, X * 2))


# -- cost ---------------------------------------------------------------------------------------------------


def test_cost(record):
    """Counted by hand: views and what only moves numbers take no arithmetic, a product two for each pair."""

    def cost(f, *arrays):
        return tuple(record(f, *arrays).graph.cost())

    single = X.astype("float32")
    assert cost(lambda x: x + 1, X) == (6, 2 * 48)
    assert cost(lambda x: (x + 1) * x, single) == (12, 2 * 24 + 3 * 24)
    assert cost(lambda x: xp_of(x).sum(x, axis=0), X) == (6, 48 + 24)
    assert cost(lambda x: x @ x.T, X) == (2 * 4 * 3, 48 + 48 + 32)
    assert cost(lambda x: xp_of(x).concat([x, x]), X) == (0, 4 * 48)
    assert cost(lambda x: x > 2, X) == (6, 48 + 6)
