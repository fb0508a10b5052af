"""Which operations become one kernel, and where in the order it is."""

import numpy
import pytest

import xpnet
from tests.replay.graphs import limit

pytestmark = pytest.mark.plans("numba", "cuda")

# Of whole numbers, so that products and sums are exact in any order.
X = numpy.arange(12.0).reshape(3, 4)
W = numpy.arange(16.0).reshape(4, 4) - 7


def xp_of(x):
    return xpnet.array_namespace(x)


def check(recording, *arrays):
    recording.check(arrays, [x[::-1] * 2 - 3 for x in arrays])


# -- which go together --------------------------------------------------------------------------------------


def test_a_chain_is_one_kernel(record):
    recording = record(lambda x: (x + 1) * 2 - x, X)
    assert recording.steps == ["add_multiply_subtract"]
    check(recording, X)


def test_what_other_kernels_read_is_stored_in_passing(record):
    def f(x):
        y = x + 1
        return y, y * 2, y - x

    recording = record(f, X)
    assert recording.steps == ["add_multiply_subtract"]
    check(recording, X)


def test_branches_that_meet_are_one_kernel(record):
    recording = record(lambda x, y: (x + 1) * (y - 1), X, X)
    assert recording.steps == ["add_subtract_multiply"]
    check(recording, X, X + 5)


def test_what_has_nothing_to_do_with_each_other_stays_apart(record):
    recording = record(lambda x, y: (x + 1, y - 1), X, X)
    assert recording.steps == ["add", "subtract"]


def test_what_no_kernel_knows_divides_a_chain(record):
    recording = record(lambda x, w: ((x + 1) @ w) * 2 - x, X, W)
    assert recording.steps == ["add", "matmul", "multiply_subtract"]
    check(recording, X, W)


def test_arrays_of_other_sizes_are_other_kernels(record):
    def f(x):
        y = x[:, :1] + 1
        return y, xp_of(x).concat([y * 2, x - 1], axis=1) * 2

    recording = record(f, X)
    assert not any("add" in step and "subtract" in step for step in recording.steps)
    check(recording, X)


# -- moving -------------------------------------------------------------------------------------------------


def test_a_kernel_moves_down_where_nothing_reads_it_before(record):
    def f(x, w):
        y = x + 1
        product = x @ w
        return y * product, product

    recording = record(f, X, W)
    assert recording.steps == ["matmul", "add_multiply"]
    check(recording, X, W)


def test_a_kernel_moves_up_where_all_that_it_reads_is_there(record):
    def f(x, w):
        y = x + 1
        product = y @ w
        return y * 2, product

    recording = record(f, X, W)
    assert recording.steps == ["add_multiply", "matmul"]
    check(recording, X, W)


def test_a_reader_and_a_maker_between_keep_two_kernels_apart(record):
    def f(x, w):
        y = x + 1
        return y * (y @ w)

    recording = record(f, X, W)
    assert recording.steps == ["add", "matmul", "multiply"]
    check(recording, X, W)


def test_a_kernel_does_not_move_over_what_reads_a_view_of_it(record):
    def f(x, w):
        y = x + 1
        product = xp_of(x).reshape(y, (6, 2)) @ w[:2]
        return y * xp_of(x).reshape(product[:3], (3, 4))

    recording = record(f, X, W)
    assert recording.steps == ["add", "matmul", "multiply"]
    check(recording, X, W)


def test_a_kernel_does_not_move_over_what_makes_the_base_of_a_view_that_it_reads(record):
    def f(x, w):
        y = x + 1
        product = xp_of(x).reshape(y @ w, (12,))
        return xp_of(x).reshape(y, (12,)) * product

    recording = record(f, X, W)
    assert recording.steps == ["add", "matmul", "multiply"]
    check(recording, X, W)


def test_a_group_moves_as_a_whole(record):
    """All that a group has taken up must be able to move, not only its last operation."""

    def f(x, w):
        y = x + 1
        z = y * 2
        product = y @ w
        return z - product

    recording = record(f, X, W)
    assert recording.steps == ["add_multiply", "matmul", "subtract"]
    check(recording, X, W)


def test_a_kernel_takes_in_several_makers_from_both_sides(record):
    def f(x, w):
        first = x + 1
        product = first @ w
        second = product * 2
        return first - second, product

    recording = record(f, X, W)
    assert recording.steps == ["add", "matmul", "multiply_subtract"]
    check(recording, X, W)


def test_a_group_that_has_moved_moves_on(record):
    def f(x, w):
        y = x + 1
        z = y * (x @ w)
        z = z - x @ w.T
        return z + x @ w @ w

    recording = record(f, X, W)
    assert recording.steps == ["matmul", "matmul", "matmul", "add_multiply_subtract"]
    check(recording, X, W)


def test_a_kernel_does_not_move_over_a_group_that_has_moved_down(record, monkeypatch):
    """What the group makes was there before, and is no more."""

    def f(x, w):
        y, z = x + 1, x - 1
        first = x @ w
        product = y * first  # where y is made from now on
        second = z @ w
        return z * y, product, second

    limit(monkeypatch, most_operations=2)
    recording = record(f, X, W)
    assert recording.steps == ["subtract", "matmul", "add_multiply", "matmul", "multiply"]
    check(recording, X, W)


def test_what_is_written_to_is_another_array_from_there_on(record):
    """What was read before a part is written stays in front of it, and what is read behind, behind."""

    def f(x):
        before = x * 2
        y = x * 2 + 0
        y[0] = 5.0
        return before - y, y + 1, before

    recording = record(f, X)
    kernels = [step for step in recording.steps if step not in ("setitem", "copyto")]
    assert kernels == ["multiply_add", "subtract_add"] or kernels == ["multiply_add", "subtract", "add"]
    check(recording, X)


def test_parts_that_are_written_one_after_the_other(record):
    def f(x):
        y = x + 1
        y[0] = y[1] * 2
        y[1] = y[0] - 1
        z = y * y
        y[2] = z[0]
        return z, y, y - z

    check(record(f, X), X)


# -- views --------------------------------------------------------------------------------------------------


def test_views_in_another_shape_are_read_as_what_they_are_views_of(record):
    def f(x):
        y = xp_of(x).reshape(x + 1, (4, 3))
        return xp_of(x).reshape(y * 2, (12,)) - xp_of(x).reshape(x, (12,))

    recording = record(f, X)
    assert recording.steps == ["add_multiply_subtract"]
    check(recording, X)


def test_a_view_in_another_shape_stays_where_others_read_it(record):
    def f(x, w):
        y = xp_of(x).reshape(x + 1, (3, 2, 2))
        return y * 2, y @ w[:2], y

    recording = record(f, X, W)
    assert recording.steps == ["add_multiply", "matmul"]
    check(recording, X, W)


def test_views_of_views_in_another_shape_are_read_as_the_first(record):
    def f(x):
        flat = xp_of(x).reshape(xp_of(x).reshape(x + 1, (4, 3)), (12,))
        return xp_of(x).reshape(flat * 2, (2, 6)) - xp_of(x).reshape(flat, (2, 6))

    recording = record(f, X)
    assert recording.steps == ["add_multiply_subtract"]
    check(recording, X)


def test_views_in_another_shape_that_are_returned_stay_with_what_they_are_views_of(record):
    def f(x):
        square = xp_of(x).reshape(x + 1, (2, 6))
        return xp_of(x).reshape(square, (12,)), xp_of(x).reshape(square, (4, 3))[1:], square * 2

    recording = record(f, X)
    assert recording.steps == ["add_multiply"]
    check(recording, X)


def test_a_view_in_another_shape_comes_behind_the_only_part_that_it_is_a_view_of(record):
    def f(x):
        (part,) = xp_of(x).unstack(x[:, :, None], axis=2)
        return xp_of(x).reshape(part, (12,)), part + 1

    check(record(f, X), X)


@pytest.mark.plans("numba")
def test_parts_of_what_a_function_makes_in_a_layout_of_its_own_are_left_to_numpy(record):
    x = numpy.arange(144.0).reshape(12, 12)
    recording = record(lambda x: (xp_of(x).sort(x.T, axis=0)[:, 3:] + 1) * 2, x)
    assert recording.steps == ["sort", "add", "multiply"]
    check(recording, x)


def test_rows_that_stand_apart_are_read_where_they_are(record):
    x = numpy.arange(36.0).reshape(3, 12)
    recording = record(lambda x: (x[:, 3:] - x[:, :-3]) * 2, x)
    assert recording.steps == ["subtract_multiply"]
    check(recording, x)


@pytest.mark.plans("numba")
def test_short_rows_that_stand_apart_are_left_to_numpy(record):
    recording = record(lambda x: (x[:, 1:] - x[:, :-1]) * 2, X)
    assert recording.steps == ["subtract", "multiply"]
    check(recording, X)


def test_another_order_of_the_same_elements_is_no_view_in_another_shape(record):
    recording = record(lambda x: xp_of(x).reshape((x + 1).T, (12,)) * xp_of(x).reshape(x + 1, (12,)), X)
    check(recording, X)


def test_a_flipped_array_is_read_from_its_end(record):
    x = numpy.arange(10.0)
    check(record(lambda x: (x + 1)[::-1] - x, x), x)


# -- totals -------------------------------------------------------------------------------------------------


def test_what_is_added_up_needs_no_array(record):
    recording = record(lambda x: xp_of(x).sum(x * x), X)
    assert recording.steps == ["multiply_sum"]
    check(recording, X)


def test_a_row_is_used_behind_its_kernel(record):
    """Only at the end of all is it there."""
    recording = record(lambda x: xp_of(x).sum(x * x, axis=0) + 1, X)
    assert recording.steps == ["multiply_sum", "add"]
    check(recording, X)
    recording = record(lambda x: x - xp_of(x).sum(x * x, axis=0), X)
    assert recording.steps == ["multiply_sum", "subtract"]
    check(recording, X)


def test_a_total_of_all_is_used_in_the_next_kernel(record):
    recording = record(lambda x: x * x - xp_of(x).sum(x * x), X)
    assert recording.steps == ["multiply_sum", "subtract"]
    check(recording, X)


def test_a_column_is_used_in_its_kernel(record):
    """At the end of a row it is there, and the row can be gone through again."""
    recording = record(lambda x: x - (xp_of(x).max(x, axis=1, keepdims=True) + 1), X)
    assert recording.steps == ["max_add_subtract"]
    check(recording, X)


def test_rows_of_two_lengths_are_two_kernels(record):
    x = numpy.arange(24.0).reshape(2, 3, 4)

    def f(x):
        y = x + 1
        return xp_of(x).sum(y, axis=2), xp_of(x).sum(y, axis=(1, 2))

    recording = record(f, x)
    assert len(recording.steps) == 2
    assert sorted("_".join(recording.steps).split("_")) == ["add", "sum", "sum"]
    check(recording, x)


# -- rows, columns and numbers ------------------------------------------------------------------------------


def test_rows_columns_and_numbers_are_repeated(record):
    def f(x, row, column, number):
        return (x + row) * xp_of(x).expand_dims(column, axis=1) - number

    arrays = X, X[0], X[:, 0], numpy.asarray(3.0)
    recording = record(f, *arrays)
    assert recording.steps == ["add_multiply_subtract"]
    recording.check(arrays, (X + 1, X[1], X[:, 1], numpy.asarray(2.0)))


def test_an_array_cannot_be_a_row_and_a_column(record):
    recording = record(lambda x, y: x + y + y[:, None], W, W[0])
    check(recording, W, W[0])
    recording = record(lambda x, y: (x + y) @ x + y[:, None], W, W[0])
    check(recording, W, W[0])


def test_an_operation_on_a_column_is_done_for_each_row(record):
    def f(x, y):
        return x * xp_of(x).expand_dims(y + 1, axis=1)

    recording = record(f, X, X[:, 0])
    assert recording.steps == ["add_multiply"]
    check(recording, X, X[:, 0])


def test_an_operation_with_rows_of_its_own_is_none_on_a_column(record):
    x = numpy.arange(24.0).reshape(2, 3, 4)
    recording = record(lambda x, y, z: x * xp_of(x).expand_dims(y + z, axis=2), x, x[:, :, 0], x[0, :, 1])
    assert recording.steps == ["add", "multiply"]
    check(recording, x, x[:, :, 0], x[0, :, 1])


@pytest.mark.plans("numba")
def test_what_a_function_makes_in_a_layout_of_its_own_is_left_to_numpy(record):
    recording = record(lambda x: (xp_of(x).sort(x.T, axis=0) + 1) * 2, X)
    assert recording.steps == ["sort", "add", "multiply"]
    check(recording, X)


# -- limits -------------------------------------------------------------------------------------------------


def test_a_kernel_has_no_more_operations_than_its_target_allows(record, monkeypatch):
    limit(monkeypatch, most_operations=3)
    recording = record(lambda x: ((x + 1) * 2 - 3) / 4 + x, X)
    assert recording.steps == ["add_multiply_subtract", "divide_add"]
    check(recording, X)


def test_a_kernel_has_no_more_arrays_than_its_target_allows(record, monkeypatch):
    """It counts what is read and what is stored at the end."""
    limit(monkeypatch, most_arrays=4)
    recording = record(lambda x, y, z, u: x + y - z * u, X, X, X, X)
    assert recording.steps == ["add", "multiply_subtract"]
    recording = record(lambda x, y, z: x + y - z * y, X, X, X)
    assert recording.steps == ["add_multiply_subtract"]
    check(recording, X, X + 1, X + 2)


def test_a_kernel_is_none_that_its_target_does_not_accept(record, monkeypatch):
    limit(monkeypatch, accepts=lambda kernel: len(kernel.parts) < 3)
    recording = record(lambda x: ((x + 1) * 2 - 3) / 4, X)
    assert recording.steps == ["add_multiply", "subtract_divide"]
    check(recording, X)


# -- what a loop cannot do ----------------------------------------------------------------------------------

SINGLE, SMALL = X.astype("float32"), X.astype("uint8")


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda xp, x: xp.sum(x * x, axis=1, dtype=xp.float64), SINGLE),
        (lambda xp, x: xp.where(x == 300, x, x + x), SMALL),
        (lambda xp, x: xp.stack([x, x + 1], axis=1) * 2, numpy.arange(36.0).reshape(3, 12)),
        (lambda xp, x: xp.stack([xp.astype(x, xp.float32), x], axis=1), numpy.arange(36.0).reshape(3, 12)),
        (lambda xp, x: xp.take_along_axis(x + 1, xp.asarray([[2, 1, 0, 0]]), axis=0) * 2, X),
        (lambda xp, x: (x + 1) * xp.asarray([1.0, 2.0, 3.0, 4.0]), X),
        (lambda xp, x: (x[:, 1] + 1) * 2 - x[:, 0], X),
        (lambda xp, x: xp.real(x * 2) + 1, X + 1j),
        (lambda xp, x: x * xp.broadcast_to(x[:1, :], x.shape) + x[:, :1], W),
    ],
)
def test_what_does_not_fit_in_a_loop_is_done_outside(record, f, x):
    record(lambda x: f(xp_of(x), x), x).check([x], [x[::-1].copy()])
