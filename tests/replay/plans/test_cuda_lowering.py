"""Functions in terms of what kernels and products on CUDA know, and copies of what must be in order.

See `Recording.lines` for how a graph is shown.
"""

import numpy
import pytest

import xpnet

pytestmark = pytest.mark.plans("cuda")

# Of whole numbers, so that products and sums are exact in any order.
X = numpy.arange(12.0).reshape(3, 4) - 5
Y = numpy.arange(24.0).reshape(2, 3, 4) - 9


def xp_of(x):
    return xpnet.array_namespace(x)


def check(recording, *arrays):
    recording.check(arrays, [2 - x for x in arrays])


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


@pytest.mark.parametrize("name", ["sum", "max", "min", "mean"])
def test_each_total_stays_what_it_is(record, name):
    recording = record(lambda x: getattr(xp_of(x), name)(x, axis=1), Y)
    assert recording.names == ["permute_dims", name, "reshape"]
    recording.check([3 * Y], [-6 * Y])  # a mean of three is exact


def test_a_total_keeps_its_dtype(record):
    y = Y.astype("float32") + numpy.float32(2**24)  # adding up in float32 would round
    recording = record(lambda x: xp_of(x).sum(x, axis=1, dtype=xp_of(x).float64), y)
    assert [x.dtype for x in recording.graph.returned] == ["float64"]
    assert recording.lines[1] == "c = sum(b, axis=(0), dtype=float64)"
    check(recording, y)


def test_what_is_neither_row_nor_column_is_repeated_as_a_view(record):
    recording = record(lambda x, y: x + y, Y, Y[:, :1])
    assert recording.lines == ["c = broadcast_to(b, (2, 3, 4))", "d = add(a, c)", "return d"]
    check(recording, Y, Y[:, :1])


def test_a_row_a_column_and_a_number_stay_as_they_are(record):
    recording = record(lambda x, row, column: (x + row) * column + 2.0, X, X[0], X[:, :1])
    assert recording.names == ["add", "multiply", "add"]
    check(recording, X, X[0], X[:, :1])


def test_rows_of_one_kernel_are_of_one_length(record):
    recording = record(lambda x, y, z: xp_of(x).where(x > 0, y, z), Y, Y[0], Y[0, 0])
    assert recording.names.count("broadcast_to") == 1
    check(recording, Y, Y[0], Y[0, 0])


def test_unstack_is_views(record):
    for axis, lines in {
        0: ["b = getitem(a, (0, ...))", "c = getitem(a, (1, ...))"],
        -1: [f"{x} = getitem(a, (:, :, {number}, ...))" for number, x in enumerate("bcde")],
    }.items():
        recording = record(lambda x, axis=axis: xp_of(x).unstack(x, axis=axis), Y)
        assert recording.lines[:-1] == lines
        check(recording, Y)


def test_vecdot_is_a_sum_of_products(record):
    recording = record(lambda x, y: xp_of(x).vecdot(x, y, axis=-1), Y, Y[:, :1])
    assert recording.names == ["broadcast_to", "multiply", "sum"]
    check(recording, Y, Y[:, :1])
    recording = record(lambda x, y: xp_of(x).vecdot(x, y, axis=-2), Y, Y)
    assert recording.names == ["multiply", "permute_dims", "sum", "reshape"]
    check(recording, Y, Y)


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


def test_an_element_is_a_view(record):
    recording = record(lambda x: (x[1, 2], x[0], x[..., 1]), X)
    assert recording.lines[:3] == [
        "b = getitem(a, (1, 2, ...))",
        "c = getitem(a, (0, ...))",
        "d = getitem(a, (..., 1))",
    ]
    check(recording, X)


def test_whole_numbers_are_left_to_the_library(record):
    numbers = numpy.arange(24).reshape(2, 3, 4)
    recording = record(lambda x: (xp_of(x).sum(x, axis=1), xp_of(x).vecdot(x, x)), numbers)
    assert recording.names == ["sum", "vecdot"]
    check(recording, numbers)


# -- copies -------------------------------------------------------------------------------------------------


def test_an_operand_that_is_no_matrix_is_copied_once(record):
    def f(x, y):
        part = x[:, ::2]
        return part @ y, part @ (y + 1)

    y = X[:2, :3]
    recording = record(f, X, y)
    assert recording.names.count("copy") == 1
    assert recording.steps == ["copy", "matmul", "add", "matmul"]
    check(recording, X, y)


def test_operands_that_are_matrices_are_not_copied(record):
    recording = record(lambda x, y: (x.T @ y, x[1:, :2] @ y[:2], Y[0] @ y[0]), X, X)
    assert "copy" not in recording.names
    check(recording, X, X)


def test_what_cannot_be_a_view_in_another_shape_is_copied(record):
    recording = record(lambda x: (xp_of(x).reshape(x.T, (6, 2)), xp_of(x).reshape(x, (6, 2)) + 1), X)
    assert recording.names == ["matrix_transpose", "copy", "reshape", "reshape", "add"]
    check(recording, X)


def test_constants_are_handed_in_once_however_often_they_are_read(record):
    constant = numpy.arange(4.0)
    recording = record(lambda x: (x + constant, x * constant, constant), X)
    assert len(recording.graph.inputs) == 2
    assert recording.lines == ["c = add(a, b)", "d = multiply(a, b)", "return c, d, array(4,)"]
    check(recording, X)
