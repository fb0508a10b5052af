"""Graphs that are rewritten: the same with fewer operations, or others, and none loses an option.

See `Recording.lines` for how a graph is shown.
"""

from dataclasses import replace
from itertools import product

import numpy
import pytest

import xpnet
from tests.replay.cases import assert_identical
from xpnet import tree
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.rewrite import converted, expand, simplified

X = numpy.arange(1.0, 7.0).reshape(2, 3)


def xp_of(x):
    return xpnet.array_namespace(x)


def check(recording, *arrays):
    recording.check(arrays, [2 - x for x in arrays])


on_numpy = pytest.mark.plans("numpy")  # where a graph stays as it is after this

# -- equal operations ---------------------------------------------------------------------------------------


@on_numpy
def test_equal_operations_are_done_once(record):
    recording = record(lambda x: ((x + 1) * (x + 1), x + 1), X)
    assert recording.lines == ["b = add(a, 1)", "c = multiply(b, b)", "return c, b"]
    assert recording.graph.recorded == 4
    recording.check([X], [-X])


@on_numpy
def test_what_is_returned_stays_two_arrays(record):
    recording = record(lambda x: ((x + 1).T, x + 1, (x * 2)[0], x * 2), X)
    assert recording.names == ["add", "matrix_transpose", "add", "multiply", "getitem", "multiply"]
    given = numpy.array(X)
    results, expected = recording(given), recording.f(given)
    for a, b in product(range(4), repeat=2):
        shared, in_eager_code = (numpy.shares_memory(each[a], each[b]) for each in (results, expected))
        assert shared == in_eager_code
    recording.check([X], [-X])


@on_numpy
def test_what_is_equal_once_its_arguments_are_shared_is_shared(record):
    recording = record(lambda x: ((x + 1) * 2 - 1, (x + 1) * 2 + 1), X)
    assert recording.names == ["add", "multiply", "subtract", "add"]
    recording.check([X])


@on_numpy
def test_operations_between_other_arguments_or_in_another_order_are_not_shared(record):
    recording = record(lambda x, y: (x - y, y - x, x - x), X, X)
    assert recording.names == ["subtract"] * 3
    recording.check((X, X * 3))


@on_numpy
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


@on_numpy
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


@on_numpy
def test_nan_is_a_constant_like_any_other(record):
    recording = record(lambda x: (xp_of(x).maximum(x, numpy.nan), x + numpy.full(3, numpy.nan)), X)
    assert recording.lines == ["b = maximum(a, nan)", "c = add(a, nan)", "return b, c"]
    recording.check([X])


@on_numpy
def test_the_bits_of_a_constant_stay_when_it_is_made_smaller(record):
    """Of equal elements one is enough, if they are equal bit for bit."""
    equal, zeros = numpy.full((2, 3), -0.0), numpy.asarray([0.0, -0.0, 0.0])
    recording = record(lambda x: (x + equal, x - zeros), X)
    assert recording.lines == ["b = add(a, -0.0)", "c = subtract(a, array(3,))", "return b, c"]
    recording.check([-numpy.zeros((2, 3))], [X])


@on_numpy
def test_a_constant_is_as_it_was_when_it_was_recorded(record):
    constant = numpy.asarray([1.0, 2.0, 3.0])
    recording = record(lambda x: (x * constant, constant), X)
    constant[...] = 0
    for _ in range(2):
        product, returned = recording(X)
        numpy.testing.assert_array_equal(product, X * [1.0, 2.0, 3.0])
        numpy.testing.assert_array_equal(returned, [1.0, 2.0, 3.0])
        returned[...] = 7  # it is the caller's own


@on_numpy
def test_what_depends_on_no_argument_is_computed_when_recording(record):
    recording = record(lambda x: x + xp_of(x).sum(xp_of(x).ones(5) * 2), X)
    assert recording.lines == ["b = add(a, 10.0)", "return b"]
    recording.check([X])


# -- broadcasting -------------------------------------------------------------------------------------------


@on_numpy
def test_elementwise_functions_broadcast_their_arguments_themselves(record):
    recording = record(lambda x, y: x * xp_of(x).broadcast_to(y, (2, 3)), X, X[0])
    assert recording.lines == ["c = multiply(a, b)", "return c"]
    recording.check((X, X[1]))


@on_numpy
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


@on_numpy
def test_what_is_broadcast_stays_where_others_read_it(record):
    def f(x, y):
        whole = xp_of(x).broadcast_to(y, (2, 3))
        return x - whole, xp_of(x).cumulative_sum(whole, axis=0)

    recording = record(f, X, X[0])
    assert recording.names == ["broadcast_to", "subtract", "cumulative_sum"]
    assert recording.lines[1] == "d = subtract(a, b)"
    recording.check((X, X[1]))


@on_numpy
def test_what_is_broadcast_twice_is_read_as_it_was_before_both(record):
    def f(x, y):
        xp = xp_of(x)
        return x * xp.broadcast_to(xp.broadcast_to(y, (2, 3)), (4, 2, 3))

    stack = numpy.arange(24.0).reshape(4, 2, 3)
    recording = record(f, stack, X[0])
    assert recording.lines == ["c = multiply(a, b)", "return c"]
    recording.check((stack, X[1]))


@on_numpy
def test_another_shape_is_not_what_broadcasting_gives(record):
    square = numpy.arange(9.0).reshape(3, 3)
    recording = record(lambda x, y: x + xp_of(x).reshape(y, (3, 1)), square, X[0])
    assert recording.names == ["reshape", "add"]
    recording.check((square, X[1]))


@on_numpy
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_all_functions_of_several_arrays_broadcast_late(record, dtype):
    names = {
        "float64": ["atan2", "copysign", "hypot", "maximum", "pow"],
        "int64": ["bitwise_left_shift", "bitwise_right_shift", "bitwise_xor"],
        "bool": ["logical_and", "logical_xor"],
    }[dtype]

    def f(x, y):
        xp = xp_of(x)
        whole = xp.broadcast_to(y, (2, 3))
        return [getattr(xp, name)(*pair) for name in names for pair in ((x, whole), (whole, x))]

    recording = record(f, X.astype(dtype), X[0].astype(dtype))
    assert "broadcast_to" not in recording.names
    recording.check((X.astype(dtype), X[1].astype(dtype)))


def test_an_operation_that_broadcasts_late_is_the_same_otherwise():
    x, row, whole, y = (Variable(shape, X.dtype) for shape in ((2, 3), (3,), (2, 3), (2, 3)))
    broadcast = Operation("broadcast_to", numpy.broadcast_to, (row, (2, 3)), {}, (whole,))
    options = {"precision": "tf32", "layer": "layers.0", "called": "scale"}
    multiply = Operation("multiply", numpy.multiply, (x, whole), {}, (y,), **options)
    (found,) = simplified(Graph([x, row], [broadcast, multiply], [y])).operations
    assert found.arguments == (x, row)
    assert {name: getattr(found, name) for name in options} == options


# -- what is left out ---------------------------------------------------------------------------------------


@on_numpy
def test_what_leads_to_no_result_is_left_out(record):
    def f(x):
        unused = x * 3
        _, used = xp_of(x).unstack(x), unused + 1
        return x - 1 if used is not None else used

    recording = record(f, X)
    assert recording.lines == ["b = subtract(a, 1)", "return b"]
    assert recording.graph.recorded == 4


@on_numpy
def test_one_of_several_results_is_enough_to_stay(record):
    recording = record(lambda x: xp_of(x).unstack(x * 2)[1], X)
    assert recording.lines == ["b = multiply(a, 2)", "c, d = unstack(b)", "return d"]
    recording.check([X], [-X])


@on_numpy
def test_what_is_read_in_a_list_an_index_or_an_option_stays(record):
    def f(x, n):
        xp = xp_of(x)
        return xp.concat([x + 1, x * 2]), x[:, n - 1], xp.clip(x, min=xp.sum(n))

    recording = record(f, X, numpy.asarray([0, 2]))
    assert recording.names == ["add", "multiply", "concat", "subtract", "getitem", "sum", "clip"]
    recording.check((X, numpy.asarray([1, 1])))


@on_numpy
def test_results_that_are_arguments_or_come_twice_stay(record):
    recording = record(lambda x, y: (y, *[x + y] * 2, 2.0, x), X, X)
    assert recording.lines == ["c = add(a, b)", "return b, c, c, a"]
    recording.check((X, X * 2))


# -- precision ----------------------------------------------------------------------------------------------

MATRIX = numpy.arange(12.0).reshape(3, 4) - 5  # of whole numbers, so that products are exact
PRECISIONS = ["tf32", "float16", "bfloat16"]
ROUNDED_AWAY = numpy.float32(1 + 2.0**-13)  # the last digits of a number times this


def check_rounding(record, f, *arrays, precision):
    """Assert that products are those of rounded operands: of whole numbers, if these are a little larger."""
    whole = [x.astype("float32") for x in arrays]
    recording = record(f, *(x * ROUNDED_AWAY for x in whole), precision=precision)
    for factor in (1, -2):
        given = [factor * x for x in whole]
        found = recording(*(x * ROUNDED_AWAY for x in given))
        for one, other in zip(tree.leaves(found), tree.leaves(f(*given)), strict=True):
            assert_identical(numpy.asarray(one), numpy.asarray(other))
    return recording


PRODUCTS = {
    "matrices": lambda x, y: x @ y.T,
    "both ways": lambda x, y: (x @ y.T, y @ x.T, x.T @ y),
    "parts": lambda x, y: x[:, ::2] @ y[:2, :],
    "tensordot": lambda x, y: xp_of(x).tensordot(x, y, axes=((0, 1), (0, 1))),
    "other axes": lambda x, y: xp_of(x).tensordot(x, y, axes=((0,), (0,))),
    "other shapes": lambda x, y: xp_of(x).reshape(x, (2, 6)) @ xp_of(x).reshape(y, (6, 2)),
    "stacks": lambda x, y: xp_of(x).broadcast_to(x, (2, 3, 4)) @ y.T,
    "from the end": lambda x, y: xp_of(x).flip(x, axis=1) @ y.T,
    "more axes": lambda x, y: xp_of(x).expand_dims(x, axis=1) @ y.T,
    "with itself": lambda x, y: x @ x.T,
    "twice": lambda x, y: (x @ y.T, x @ y.T),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_operands_are_rounded(record, name, precision):
    recording = check_rounding(record, PRODUCTS[name], MATRIX, MATRIX[::-1], precision=precision)
    if precision == "tf32":
        products = [line for line in recording.lines if "= matmul(" in line or "= tensordot(" in line]
        assert all("precision=tf32" in line for line in products)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_constants_are_rounded(record, precision):
    single, constant = MATRIX.astype("float32"), numpy.full((4, 2), 3.0, "float32")
    recording = record(lambda x: x @ (constant * ROUNDED_AWAY), single, precision=precision)
    assert_identical(recording(single * ROUNDED_AWAY), single @ constant)


@pytest.mark.plans("numpy")
@pytest.mark.parametrize(
    ("f", "number"),
    [
        (lambda x, y: (x @ y.T, y @ x.T, x.T @ y), 2),
        (lambda x, y: x @ x.T, 1),
        (lambda x, y: x @ xp_of(x).ones((4, 2), dtype=x.dtype), 1),
        (lambda x, y: (x + y, xp_of(x).sum(x)), 0),
        (lambda x, y: (x @ y.T) @ x, 3),
    ],
)
def test_each_array_is_rounded_once(record, f, number):
    single = MATRIX.astype("float32")
    recording = record(f, single, single, precision="tf32")
    assert recording.names.count("abs") == number  # a rounding has one


@pytest.mark.plans("numpy", "cuda")
def test_what_products_do_not_read_keeps_its_digits(record):
    single = MATRIX.astype("float32") * ROUNDED_AWAY
    recording = record(lambda x: (x + 1, x.T, xp_of(x).max(x, axis=0)), single, precision="bfloat16")
    check(recording, single)
    double = single.astype("float64")
    recording = record(lambda x: x @ x.T, double, precision="bfloat16")
    check(recording, double)
    recording = record(lambda x, y: x @ y.T, single, double, precision="bfloat16")
    check(recording, single, double)


@on_numpy
def test_of_a_part_only_the_part_is_rounded(record):
    single = MATRIX.astype("float32")
    part = record(lambda x: x[:, :2] @ x[1:, :], single, precision="tf32")
    whole = record(lambda x: x.T @ x, single, precision="tf32")
    assert part.names[:3] == ["getitem", "getitem", "abs"]
    assert whole.names[-2:] == ["matrix_transpose", "matmul"]
    assert whole.names.count("matrix_transpose") == 1


@pytest.mark.plans("numpy", "cuda")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_that_are_picked_are_rounded_and_their_numbers_are_not(record, precision):
    constant, rows = MATRIX.astype("float32") * ROUNDED_AWAY, numpy.asarray([2, 0, 1, 1, 0])
    single = MATRIX.T.astype("float32")
    recording = record(lambda x, i: xp_of(x).asarray(constant)[i, :] @ x, single, rows, precision=precision)
    assert_identical(recording(single, rows), MATRIX.astype("float32")[rows] @ single)


@pytest.mark.plans("numpy", "cuda")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_operands_in_loops_are_rounded(record, precision):
    def f(x, y):
        return xpnet.scan(lambda x, matrix: (x, x @ matrix), x, xp_of(x).stack([y.T, y.T * 2]))[1]

    check_rounding(record, f, MATRIX, MATRIX[::-1], precision=precision)


# -- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda xp, x: xp.unstack(x, axis=1)[0],
        lambda xp, x: [part + 1 for part in xp.unstack(x, axis=0)],
        lambda xp, x: xp.broadcast_arrays(x, x[:1])[0],
        lambda xp, x: xp.sum(x, axis=0, keepdims=True),
        lambda xp, x: xp.cumulative_sum(x, axis=1, include_initial=True),
        lambda xp, x: xp.sort(x, axis=0, descending=True),
        lambda xp, x: xp.sum(x, dtype=xp.float32),
        lambda xp, x: xp.concat([x, x], axis=1),
        lambda xp, x: xp.stack([x, x], axis=-1),
        lambda xp, x: xp.flip(x, axis=0),
        lambda xp, x: xp.roll(x, 2, axis=1),
        lambda xp, x: xp.argmax(x, axis=1, keepdims=True),
        lambda xp, x: xp.tensordot(x, x, axes=((0,), (0,))),
        lambda xp, x: xp.vecdot(x, x, axis=0),
        lambda xp, x: xp.matrix_transpose(x),
        lambda xp, x: xp.take_along_axis(x, xp.argsort(x, axis=0), axis=0),
    ],
)
def test_an_operation_whose_argument_is_replaced_keeps_its_options(record, f):
    """Equal operations are done once, so that what reads the second reads the first from there on."""

    def both(x):
        xp = xp_of(x)
        first = x * -1
        return xp.max(first), f(xp, x * -1)

    recording = record(both, X)
    assert recording.names.count("multiply") <= 2  # vecdot has one
    check(recording, X)


# -- functions in terms of others ---------------------------------------------------------------------------


def expanded(recording, decompositions):
    """Let plain array code stand in the graph of a recording, and return it."""
    recording.graph = expand(recording.graph, decompositions, numpy, None)
    return recording


def sum_of_squares(xp, x, y):
    return x * x + y * y


@on_numpy
def test_plain_array_code_stands_in_the_place_of_a_function(record):
    recording = record(lambda x, y: xp_of(x).hypot(x + 1, y) - 1, X, X)
    before = recording.lines
    after = expanded(recording, {"hypot": sum_of_squares})
    assert before == ["c = add(a, 1)", "d = hypot(c, b)", "e = subtract(d, 1)", "return e"]
    assert after.names == ["add", "multiply", "multiply", "add", "subtract"]
    add, first, second, both, subtract = after.graph.operations
    assert (first.inputs, second.inputs) == ((add.result,) * 2, (after.graph.inputs[1],) * 2)
    assert subtract.inputs == both.results
    assert after.graph.returned == [subtract.result]


@on_numpy
def test_code_is_given_constants_and_options_as_they_are(record):
    seen = []

    def code(xp, x, *arguments, **options):
        seen.append((x.shape, x.dtype, arguments, options))
        return NotImplemented

    recording = record(lambda x: (xp_of(x).sum(x, axis=0, keepdims=True), xp_of(x).add(x, 2.5)), X)
    before = recording.lines
    assert expanded(recording, {"sum": code, "add": code}).lines == before
    assert seen == [((2, 3), X.dtype, (), {"axis": 0, "keepdims": True}), ((2, 3), X.dtype, (2.5,), {})]


@on_numpy
def test_code_may_return_an_argument_a_constant_or_several_arrays(record):
    recording = record(lambda x: (-x * 2, abs(x) + 1, [row * 3 for row in xp_of(x).unstack(x)]), X)
    result = expanded(
        recording,
        {
            "negative": lambda xp, x: x,
            "abs": lambda xp, x: xp.zeros((), dtype=x.dtype),
            "unstack": lambda xp, x: [x[1, :], x[0, :]],
        },
    ).graph
    double, plus_one, *rest = result.operations
    assert double.inputs == result.inputs
    assert plus_one.inputs == ()
    names = [operation.name for operation in rest]
    assert sorted(names) == ["getitem", "getitem", "multiply", "multiply"]
    rows = [result.makers[result.makers[x].inputs[0]].arguments[1][0] for x in result.outputs[2:]]
    assert rows == [1, 0]


@on_numpy
def test_what_code_calls_keeps_layer_and_precision(record):
    recording = record(lambda x, y: xp_of(x).tensordot(x, y, axes=1), X, X.T)
    (operation,) = recording.graph.operations
    operation = replace(operation, precision="tf32", layer="layers.0", called="product")
    recording.graph = Graph(recording.graph.inputs, [operation], recording.graph.outputs)
    after = expanded(recording, {"tensordot": lambda xp, x, y, axes: xp.matmul(x * 1, y)}).graph
    assert [(each.precision, each.layer, each.called) for each in after.operations] == [
        ("float32", "layers.0", "product"),
        ("tf32", "layers.0", "product"),
    ]


@on_numpy
def test_a_function_of_linalg_is_found_by_its_name(record):
    recording = record(lambda x, y: xp_of(x).linalg.matmul(x, y), X, X.T)
    assert expanded(recording, {"matmul": lambda xp, x, y: xp.zeros((2, 2))}).names == []


@on_numpy
def test_code_may_call_functions_that_code_stands_for(record):
    recording = record(lambda x, y: xp_of(x).hypot(x, y), X, X)
    decompositions = {"hypot": lambda xp, x, y: xp.square(x) + y, "square": lambda _xp, x: x * x}
    assert expanded(recording, decompositions).names == ["multiply", "add"]


@on_numpy
def test_what_code_returns_has_the_dtype_of_the_function(record):
    recording = record(lambda x, y: xp_of(x).hypot(x, y) + 1, X, X)
    after = expanded(recording, {"hypot": lambda xp, x, y: x > y})
    assert after.lines[:2] == ["c = greater(a, b)", "d = astype(c, float64)"]


@on_numpy
def test_code_that_gives_up_leaves_nothing(record):
    def code(_xp, x, y):
        return NotImplemented if (x + y).shape else x

    recording = record(lambda x, y: xp_of(x).hypot(x, y), X, X)
    assert expanded(recording, {"hypot": code}).names == ["hypot"]


@on_numpy
def test_what_values_code_meets_does_not_matter(record):
    recording = record(lambda x, y: xp_of(x).hypot(x, y), X, X)
    after = expanded(recording, {"hypot": lambda xp, x, y: xp.log(x) / y})  # of zeros, a warning
    assert after.names == ["log", "divide"]


@on_numpy
def test_arguments_are_converted_to_the_dtype_of_the_result(record):
    def f(x, y):
        xp = xp_of(x)
        return xp.atan2(x, y), xp.add(y, 2), xp.sum(x, axis=0, dtype=xp.float64), xp.linalg.vecdot(x, y)

    recording = record(f, X.astype("float32"), X)
    recording.graph = converted(recording.graph, {"add", "atan2", "sum", "vecdot"}, numpy)
    assert recording.lines[:-1] == [
        "c = astype(a, float64)",
        "d = atan2(c, b)",
        "e = add(b, 2.0)",
        "f = astype(a, float64)",
        "g = sum(f, axis=0, dtype=float64)",
        "h = astype(a, float64)",
        "i = linalg.vecdot(h, b)",
    ]
