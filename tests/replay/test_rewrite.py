"""Graphs that are rewritten: other operations do the same, and none loses an option.

What is lowered and copied here is so for a CUDA device; see `Recording.lines` for how a graph is shown.
"""

import numpy
import pytest

import xpnet
from tests.replay.cases import assert_identical
from xpnet import tree

pytestmark = [pytest.mark.host]

# Of whole numbers, so that products and sums are exact in any order.
X = numpy.arange(12.0).reshape(3, 4) - 5
Y = numpy.arange(24.0).reshape(2, 3, 4) - 9


def xp_of(x):
    return xpnet.array_namespace(x)


def check(recording, *arrays):
    recording.check(arrays, [2 - x for x in arrays])


# -- functions in terms of others ---------------------------------------------------------------------------

on_cuda = pytest.mark.plans("cuda")


@on_cuda
@pytest.mark.parametrize(
    ("axis", "keepdims", "lines"),
    [
        (1, False, ["b = permute_dims(a, (1, 0, 2))", "c = sum(b, axis=(0))", "d = reshape(c, (2, 4))"]),
        (1, True, ["b = permute_dims(a, (1, 0, 2))", "c = sum(b, axis=(0))", "d = reshape(c, (2, 1, 4))"]),
        (
            (0, 2),
            True,
            ["b = permute_dims(a, (1, 0, 2))", "c = sum(b, axis=(1, 2))", "d = reshape(c, (1, 3, 1))"],
        ),
        ((2, 0), False, ["b = permute_dims(a, (1, 0, 2))", "c = sum(b, axis=(1, 2))", "d = reshape(c, (3))"]),
        (-1, True, ["b = sum(a, axis=-1, keepdims=True)"]),
        (0, False, ["b = sum(a, axis=0, keepdims=False)"]),
        (None, True, ["b = sum(a, axis=None, keepdims=True)"]),
    ],
    ids=str,
)
def test_axes_of_a_total_are_put_beside_each_other(record, axis, keepdims, lines):
    recording = record(lambda x: xp_of(x).sum(x, axis=axis, keepdims=keepdims), Y)
    assert recording.lines[:-1] == lines
    check(recording, Y)


@on_cuda
@pytest.mark.parametrize("name", ["sum", "max", "min", "mean"])
def test_each_total_stays_what_it_is(record, name):
    recording = record(lambda x: getattr(xp_of(x), name)(x, axis=1), Y)
    assert recording.names == ["permute_dims", name, "reshape"]
    recording.check([3 * Y], [-6 * Y])  # a mean of three is exact


@on_cuda
def test_a_total_keeps_its_dtype(record):
    y = Y.astype("float32") + numpy.float32(2**24)  # adding up in float32 would round
    recording = record(lambda x: xp_of(x).sum(x, axis=1, dtype=xp_of(x).float64), y)
    assert [x.dtype for x in recording.graph.returned] == ["float64"]
    assert recording.lines[1] == "c = sum(b, axis=(0), dtype=float64)"
    check(recording, y)


@on_cuda
def test_what_is_neither_row_nor_column_is_repeated_as_a_view(record):
    recording = record(lambda x, y: x + y, Y, Y[:, :1])
    assert recording.lines == ["c = broadcast_to(b, (2, 3, 4))", "d = add(a, c)", "return d"]
    check(recording, Y, Y[:, :1])


@on_cuda
def test_a_row_a_column_and_a_number_stay_as_they_are(record):
    recording = record(lambda x, row, column: (x + row) * column + 2.0, X, X[0], X[:, :1])
    assert recording.names == ["add", "multiply", "add"]
    check(recording, X, X[0], X[:, :1])


@on_cuda
def test_rows_of_one_kernel_are_of_one_length(record):
    recording = record(lambda x, y, z: xp_of(x).where(x > 0, y, z), Y, Y[0], Y[0, 0])
    assert recording.names.count("broadcast_to") == 1
    check(recording, Y, Y[0], Y[0, 0])


@on_cuda
def test_unstack_is_views(record):
    for axis, lines in {
        0: ["b = getitem(a, (0, ...))", "c = getitem(a, (1, ...))"],
        -1: [f"{x} = getitem(a, (:, :, {number}, ...))" for number, x in enumerate("bcde")],
    }.items():
        recording = record(lambda x, axis=axis: xp_of(x).unstack(x, axis=axis), Y)
        assert recording.lines[:-1] == lines
        check(recording, Y)


@on_cuda
def test_vecdot_is_a_sum_of_products(record):
    recording = record(lambda x, y: xp_of(x).vecdot(x, y, axis=-1), Y, Y[:, :1])
    assert recording.names == ["broadcast_to", "multiply", "sum"]
    check(recording, Y, Y[:, :1])
    recording = record(lambda x, y: xp_of(x).vecdot(x, y, axis=-2), Y, Y)
    assert recording.names == ["multiply", "permute_dims", "sum", "reshape"]
    check(recording, Y, Y)


@on_cuda
@pytest.mark.parametrize("axes", [1, ((1,), (0,)), ((-1, 0), (1, 0)), 0, ((0,), (-1,))], ids=str)
def test_tensordot_is_a_product_of_matrices(record, axes):
    shapes = {1: ((2, 3, 4), (4, 3)), 0: ((2, 3), (4,))}.get(axes, ((2, 3, 4), (2, 4)))
    if axes == ((1,), (0,)):
        shapes = (2, 3, 4), (3, 5)
    elif axes == ((0,), (-1,)):
        shapes = (2, 3, 4), (3, 2)
    arrays = [numpy.arange(float(numpy.prod(shape))).reshape(shape) for shape in shapes]
    recording = record(lambda x, y: xp_of(x).tensordot(x, y, axes=axes), *arrays)
    assert recording.names.count("matmul") == 1
    assert "tensordot" not in recording.names
    check(recording, *arrays)


@on_cuda
def test_an_element_is_a_view(record):
    recording = record(lambda x: (x[1, 2], x[0], x[..., 1]), X)
    assert recording.lines[:3] == [
        "b = getitem(a, (1, 2, ...))",
        "c = getitem(a, (0, ...))",
        "d = getitem(a, (..., 1))",
    ]
    check(recording, X)


@on_cuda
def test_whole_numbers_are_left_to_the_library(record):
    numbers = numpy.arange(24).reshape(2, 3, 4)
    recording = record(lambda x: (xp_of(x).sum(x, axis=1), xp_of(x).vecdot(x, x)), numbers)
    assert recording.names == ["sum", "vecdot"]
    check(recording, numbers)


# -- copies -------------------------------------------------------------------------------------------------


@on_cuda
def test_an_operand_that_is_no_matrix_is_copied_once(record):
    def f(x, y):
        part = x[:, ::2]
        return part @ y, part @ (y + 1)

    y = X[:2, :3]
    recording = record(f, X, y)
    assert recording.names.count("copy") == 1
    assert recording.steps == ["copy", "matmul", "add", "matmul"]
    check(recording, X, y)


@on_cuda
def test_operands_that_are_matrices_are_not_copied(record):
    recording = record(lambda x, y: (x.T @ y, x[1:, :2] @ y[:2], Y[0] @ y[0]), X, X)
    assert "copy" not in recording.names
    check(recording, X, X)


@on_cuda
def test_what_cannot_be_a_view_in_another_shape_is_copied(record):
    recording = record(lambda x: (xp_of(x).reshape(x.T, (6, 2)), xp_of(x).reshape(x, (6, 2)) + 1), X)
    assert recording.names == ["matrix_transpose", "copy", "reshape", "reshape", "add"]
    check(recording, X)


@on_cuda
def test_constants_are_handed_in_once_however_often_they_are_read(record):
    constant = numpy.arange(4.0)
    recording = record(lambda x: (x + constant, x * constant, constant), X)
    assert len(recording.graph.inputs) == 2
    assert recording.lines == ["c = add(a, b)", "d = multiply(a, b)", "return c, d, array(4,)"]
    check(recording, X)


# -- precision ----------------------------------------------------------------------------------------------

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
    recording = check_rounding(record, PRODUCTS[name], X, X[::-1], precision=precision)
    if precision == "tf32":
        products = [line for line in recording.lines if "= matmul(" in line or "= tensordot(" in line]
        assert all("precision=tf32" in line for line in products)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_constants_are_rounded(record, precision):
    single, constant = X.astype("float32"), numpy.full((4, 2), 3.0, "float32")
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
    single = X.astype("float32")
    recording = record(f, single, single, precision="tf32")
    assert recording.names.count("abs") == number  # a rounding has one


@pytest.mark.plans("numpy", "cuda")
def test_what_products_do_not_read_keeps_its_digits(record):
    single = X.astype("float32") * ROUNDED_AWAY
    recording = record(lambda x: (x + 1, x.T, xp_of(x).max(x, axis=0)), single, precision="bfloat16")
    check(recording, single)
    recording = record(lambda x: x @ x.T, X, precision="bfloat16")  # float64
    check(recording, X)


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
