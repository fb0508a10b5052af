"""What a kernel loads and stores, element by element and row by row, and how often it goes through a row.

The texts for numba and for CUDA are two renderings of this; see `Recording.passes` for how it is shown.
"""

import numpy
import pytest

import xpnet

pytestmark = pytest.mark.plans("numba", "cuda")

# Rows shorter than eight: NumPy adds up longer ones in another order, which numba's loops follow.
X = numpy.arange(6.0).reshape(2, 3) - 2


def xp_of(x):
    return xpnet.array_namespace(x)


def largest_first(x):
    return x - xp_of(x).max(x, axis=1, keepdims=True)


def softmax(x):
    shifted = xp_of(x).square(largest_first(x))
    return shifted / xp_of(x).sum(shifted, axis=1, keepdims=True)


def test_each_argument_is_loaded_once_and_each_result_stored_once(record):
    def f(x, y):
        z = x + y
        return z, z * x - y

    recording = record(f, X, X)
    assert recording.passes == ["i: a0 a1 -> o0 o1"]
    recording.check((X, X * 2), (X, X - 1))


def test_what_nothing_reads_behind_the_kernel_is_not_stored(record):
    recording = record(lambda x: (x + 1) * 2 - 3, X)
    assert recording.passes == ["i: a0 -> o0"]
    recording.check([X], [-X])


def test_what_is_written_over_is_handed_in_once_and_stored_at_the_end(record):
    def f(x):
        y = x + 1
        return y * x, y - 1

    recording = record(f, X, donate=("x",))
    assert recording.passes == ["i: a0 -> o1 a0"]
    recording.check([X], [X * 2])


def test_a_total_of_rows_takes_one_pass(record):
    recording = record(lambda x: xp_of(x).max(x * x, axis=1), X)
    assert recording.passes == ["j: a0 -> ", "i:  -> o0"]
    recording.check([X], [X * 2])


def test_what_is_made_of_a_total_is_made_once_for_each_row(record):
    def f(x, y):
        return xp_of(x).max(x, axis=1) * y

    recording = record(f, X, X[:, 0])
    assert recording.passes == ["i: a1 -> ", "j: a0 -> ", "i:  -> o0"]
    recording.check((X, X[:, 1]), (X * 2, X[:, 0]))


def test_a_total_is_used_in_the_next_pass(record):
    recording = record(largest_first, X)
    assert recording.passes == ["j: a0 -> ", "j: a0 -> o0"]
    recording.check([X], [-X])


def test_what_is_made_in_one_pass_and_read_in_a_later_one_is_kept(record):
    recording = record(softmax, X)
    assert recording.passes == ["j: a0 -> ", "j: a0 -> k2", "j: k2 -> o0"]
    recording.check([X], [-X])


def test_what_is_read_in_one_pass_alone_is_loaded_there_alone(record):
    def f(x, y):
        return largest_first(x * 2) + y

    recording = record(f, X, X)
    assert recording.passes == ["j: a0 -> k0", "j: a1 k0 -> o0"]
    recording.check((X, X * 2), (-X, X))


def test_what_waits_for_nothing_is_stored_in_the_first_pass(record):
    def f(x):
        y = x + 1
        return y, largest_first(y)

    recording = record(f, X)
    assert recording.passes == ["j: a0 -> o0 k0", "j: k0 -> o1"]
    recording.check([X], [-X])


def test_an_argument_that_a_later_pass_reads_is_written_over_in_the_last(record):
    recording = record(lambda x: softmax(x) + x, X, donate=("x",))
    assert recording.passes == ["j: a0 -> ", "j: a0 -> k2", "j: a0 k2 -> a0"]
    recording.check([X], [-X])


def test_two_totals_of_one_pass(record):
    def f(x):
        xp = xp_of(x)
        return x * (xp.max(x, axis=1, keepdims=True) - xp.min(x, axis=1, keepdims=True))

    recording = record(f, X)
    assert recording.passes == ["j: a0 -> ", "j: a0 -> o0"]
    recording.check([X], [-X])


def test_a_column_is_loaded_once_for_each_row(record):
    recording = record(lambda x, y: largest_first(x) * xp_of(x).expand_dims(y, axis=1), X, X[:, 0])
    assert recording.passes == ["i: a1 -> ", "j: a0 -> ", "j: a0 -> o0"]
    recording.check((X, X[:, 1]), (-X, X[:, 0]))


def test_an_element_is_picked_from_a_row_once_that_is_there(record):
    i = numpy.asarray([[2], [-3]])
    recording = record(lambda x, i: x - xp_of(x).take_along_axis(x * 2, i, axis=1), X, i)
    assert recording.passes[:3] == ["i: a1 -> ", "j: a0 -> k0", "i: k0 -> "]
    recording.check((X, i), (-X, i))


def test_a_row_from_which_an_element_is_picked_is_not_written_over(record):
    i = numpy.asarray([[2], [-2]])
    recording = record(lambda x, i: x - xp_of(x).take_along_axis(x, i, axis=1), X, i, donate=("x",))
    assert recording.summary["over"] == 0
    recording.check((X, i), (-X, i))


@pytest.mark.plans("numba")
def test_rows_of_a_stack_are_stored_beside_each_other(record):
    x = numpy.arange(18.0).reshape(2, 9)
    recording = record(lambda x: xp_of(x).stack([x + 1, x * 2], axis=1), x)
    assert recording.passes == ["j: a0 -> o0 o0"]
    recording.check([x], [-x])
