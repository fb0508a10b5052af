"""Graphs: what makes and reads each variable, others in the place of operations, and what one run takes."""

from dataclasses import replace

import numpy
import pytest

import xpnet
from xpnet.replay.graph import Variable

pytestmark = pytest.mark.plans("numpy")

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


def of_some_readers(x, y):
    first = x + y
    second = first * first
    return second - first, second, xp_of(x).sum(y)


def test_makers_and_readers(record):
    graph = record(of_some_readers, X, X).graph
    add, multiply, subtract, total = graph.operations
    x, y = graph.inputs
    first, second, difference, number = graph.variables[2:]
    assert graph.makers == {first: add, second: multiply, difference: subtract, number: total}
    assert graph.readers == {
        x: [add],
        y: [add, total],
        first: [multiply, multiply, subtract],  # as often as it is read
        second: [subtract],
        difference: [],
        number: [],
    }


def test_the_only_reader_reads_once_what_is_not_returned(record):
    graph = record(of_some_readers, X, X).graph
    x, y = graph.inputs
    first, second, difference, _ = graph.variables[2:]
    assert graph.only_reader(x).name == "add"
    assert [graph.only_reader(v) for v in (y, first, second, difference)] == [None] * 4


def test_what_reads_a_variable_twice_is_not_its_only_reader(record):
    graph = record(lambda x: (x + 1) * x * 2, X).graph
    add, multiply, double = graph.operations
    assert graph.only_reader(add.result) is multiply
    twice = graph.replace({multiply: [replace(multiply, arguments=(add.result, add.result))]})
    assert twice.only_reader(add.result) is None
    assert twice.only_reader(multiply.result) is double


def test_a_view_is_one_of_the_first_argument_where_that_alone_is_read(record):
    table, rows = numpy.ones((4, 3)), numpy.asarray([1, 0])

    def f(x, i):
        xp = xp_of(x)
        return x[1:], xp.asarray(table)[i, :], x[i, :], xp.broadcast_arrays(x, x[:1])[1]

    graph = record(f, X, rows).graph
    x = graph.inputs[0]
    assert [operation.base for operation in graph.operations] == [x, None, None, x, None]


def test_several_results_have_one_maker(record):
    graph = record(lambda x: xp_of(x).unstack(x), X).graph
    (unstack,) = graph.operations
    assert graph.makers == dict.fromkeys(graph.returned, unstack)


# -- others in their place ----------------------------------------------------------------------------------


def test_an_operation_is_replaced_by_others_that_make_its_results(record):
    recording = record(lambda x: (x * 2) - 1, X)
    graph = recording.graph
    multiply, subtract = graph.operations
    (x,), half = graph.inputs, Variable(X.shape, X.dtype)
    new = [replace(multiply, results=(half,)), replace(multiply, name="add", arguments=(half, x))]
    result = graph.replace({multiply: new})
    assert result.operations == (*new, subtract)
    assert result.makers == {half: new[0], multiply.result: new[1], subtract.result: subtract}
    assert (result.inputs, result.outputs) == (graph.inputs, graph.outputs)
    assert graph.operations == (multiply, subtract), "a graph stays as it is"
    assert (result.recorded, result.replace({}).recorded) == (2, 2)


def test_variables_are_numbered_in_the_order_of_the_operations(record):
    graph = record(lambda x: (x * 2) - 1, X).graph
    multiply, subtract = graph.operations
    new = Variable(X.shape, X.dtype)
    result = graph.replace({multiply: [replace(multiply, results=(new,)), multiply]})
    numbers = [x.number for x in (*graph.inputs, new, multiply.result, subtract.result)]
    assert numbers == sorted(numbers)
    assert result.variables == [*graph.inputs, new, multiply.result, subtract.result]


def test_what_reads_a_result_reads_what_stands_in_its_place(record):
    """Also where that is an argument or a constant, where it is returned, and in lists and options."""

    def f(x):
        y = x * 1
        return y - 1, xp_of(x).concat([y, y]), xp_of(x).clip(x, min=y), y

    graph = record(f, X).graph
    (x,) = graph.inputs

    def without_one(operation):
        return ((), [operation.arguments[0]]) if operation.name == "multiply" else None

    result = graph.rewritten(without_one)
    subtract, concat, clip = result.operations
    assert subtract.inputs == (x,)
    assert concat.arguments == ([x, x],)
    assert clip.options == {"min": x}
    assert result.outputs == (subtract.result, concat.result, clip.result, x)

    zero = graph.rewritten(lambda each: ((), [0.0]) if each.name == "multiply" else None)
    assert zero.operations[0].arguments == (0.0, 1)
    assert zero.outputs[-1] == 0.0


def test_something_stands_in_the_place_of_each_result(record):
    graph = record(lambda x: [part + 1 for part in xp_of(x).unstack(x)], X).graph
    result = graph.rewritten(lambda each: ((), [2.0, 3.0]) if each.name == "unstack" else None)
    assert [operation.arguments for operation in result.operations] == [(2.0, 1), (3.0, 1)]


def test_a_rewrite_is_given_what_was_rewritten_before(record):
    graph = record(lambda x: ((x + 0) * 1) + 0, X).graph
    seen = []

    def without(operation):
        seen.append(operation.arguments[0])
        return (), [operation.arguments[0]]

    result = graph.rewritten(without)
    assert seen == [graph.inputs[0]] * 3
    assert (result.operations, result.outputs) == ((), graph.inputs)
    assert result.recorded == 3


def test_an_operation_that_reads_something_else_is_the_same_otherwise(record):
    (operation,) = record(lambda x: xp_of(x).unstack(x, axis=1), X).graph.operations
    operation = replace(operation, precision="tf32", layer="layers.0", called="split")
    other = Variable(X.shape, X.dtype)
    result = operation.reading({operation.inputs[0]: other})
    assert result.inputs == result.arguments == (other,)
    names = ("name", "function", "options", "results", "several", "shares", "precision", "layer", "called")
    assert [getattr(result, name) for name in names] == [getattr(operation, name) for name in names]
    assert (result.several, result.shares, result.options) == (True, True, {"axis": 1})
    assert operation.reading({other: 1}) is operation


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
    assert cost(lambda x: xp_of(x).linalg.matmul(x, x.T), X) == (2 * 4 * 3, 48 + 48 + 32)
    assert cost(lambda x: xp_of(x).tensordot(x, x), X) == (2 * 6, 48 + 48 + 8)
    assert cost(lambda x: xp_of(x).tensordot(x, x, axes=((0,), (0,))), X) == (2 * 9 * 2, 48 + 48 + 72)
    assert cost(lambda x: xp_of(x).tensordot(x, x, axes=0), X) == (2 * 36, 48 + 48 + 8 * 36)
    assert cost(lambda x: xp_of(x).concat([x, x]), X) == (0, 4 * 48)
    assert cost(lambda x: x > 2, X) == (6, 48 + 6)
