"""Where a plan has its arrays: how long each place is taken, and what may be written over what."""

import numpy
import pytest

import xpnet
from tests.replay.graphs import memory

# Of whole numbers, so that products and sums are exact in any order. One has 128 bytes.
X = numpy.asarray([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0], [2.0, 0.0, -1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
CALLS = (X,), (X.T - 1,), (2 * X,)
PAIRS = (X, X.T), (X - 1, 2 * X), (X.T, X + 1)


def xp_of(x):
    return xpnet.array_namespace(x)


# -- lifetimes ----------------------------------------------------------------------------------------------


@pytest.mark.plans("numpy")
def test_a_buffer_is_free_behind_its_last_reader(record):
    def f(x):
        b = x @ x
        c = b @ x
        d = c @ x  # where b was
        return d @ x

    recording = record(f, X)
    assert recording.places == {"b": (0, 128), "c": (128, 128), "d": (0, 128)}
    recording.check(*CALLS)


@pytest.mark.plans("numpy")
def test_a_buffer_that_is_read_late_is_kept(record):
    def f(x):
        b = x @ x
        c = b @ x
        d = c @ x
        return d @ b

    recording = record(f, X)
    assert recording.places == {"b": (0, 128), "c": (128, 128), "d": (256, 128)}
    recording.check(*CALLS)


@pytest.mark.plans("numpy")
def test_a_buffer_is_kept_for_readers_of_its_views(record):
    def f(x):
        b = x @ x
        turned = b.T
        c = b @ x
        d = c @ x
        return d @ turned

    recording = record(f, X)
    assert recording.places == {"b": (0, 128), "d": (128, 128), "e": (256, 128)}
    recording.check(*CALLS)


@pytest.mark.plans("numpy")
def test_a_buffer_is_kept_for_readers_of_views_of_its_views(record):
    def f(x):
        b = x @ x
        turned = b.T[::-1, :]
        c = x @ b
        d = c @ x
        return d @ turned

    recording = record(f, X)
    assert recording.places == {"b": (0, 128), "e": (128, 128), "f": (256, 128)}
    recording.check(*CALLS)


@pytest.mark.plans("numpy")
def test_a_buffer_is_free_behind_the_last_reader_of_its_views(record):
    def f(x):
        b = x @ x
        c = b.T @ x
        d = c @ x  # where b was
        return d @ x

    recording = record(f, X)
    assert recording.places == {"b": (0, 128), "d": (128, 128), "e": (0, 128)}
    recording.check(*CALLS)


@pytest.mark.plans("numpy")
def test_what_nothing_reads_is_free_at_once(record):
    def f(x):
        values, vectors = xp_of(x).linalg.eigh(x @ x.T)
        return xp_of(x).sum(values) + xp_of(x).sum(xp_of(x).astype(vectors != vectors, xp_of(x).float64))

    record(f, X).check(*CALLS)


@pytest.mark.plans("numpy")
def test_what_a_function_makes_goes_behind_its_last_reader(record):
    """It is in no buffer, and would stay in memory until the end."""

    def f(x):
        made = xp_of(x).sort(x)
        b = made @ x
        return b @ x

    recording = record(f, X)
    lines = [line.split("(")[0].strip() for line in recording.plan.source.splitlines()]
    made = lines[2].removesuffix(" = sort")
    assert lines[3:5] == ["dot", f"del {made}"]
    recording.check(*CALLS)


@pytest.mark.parametrize("length", range(2, 7))
def test_chains_of_products(record, length):
    """Each product reads the two before it, so that three buffers serve, however long the chain is."""

    def f(x):
        before, now = x, x
        for _ in range(length):
            before, now = now, xp_of(x).minimum(before @ now, 3.0)
        return now

    recording = record(f, X)
    recording.check(*CALLS)
    assert len({start for start, _ in recording.places.values()}) <= 3


@pytest.mark.plans("numpy")
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(record, seed):
    """Products, sums, views and writes in any order, with whatever is still read and returned."""
    random = numpy.random.default_rng(seed)
    picks = random.integers(0, 2**31, size=100)
    returned = random.integers(2, 14, size=4)

    def f(x, y):
        xp, numbers = xp_of(x), iter(picks)
        pool = [x, y]
        for _ in range(12):
            one, other = (pool[-1 - next(numbers) % min(len(pool), 4)] for _ in "ab")
            small = xp.maximum(xp.minimum(one, 2.0), -2.0)
            kind = next(numbers) % 7
            if kind == 4:
                other = small * 1
                other[1:] = small[:-1]
            made = [
                small @ other.T,
                small + other,
                small - other,
                small.T,
                other,
                small * small,
                xp.flip(small),
            ]
            pool.append(made[kind])
        return [pool[number] for number in returned]

    record(f, X, X).check(*PAIRS)


# -- one over the other -------------------------------------------------------------------------------------


@pytest.mark.plans("numpy")
def test_a_result_is_written_over_what_is_not_needed_any_more(record):
    recording = record(lambda x: (x @ x + 1) @ x, X)
    assert recording.places == {"b": (0, 128), "c": (0, 128)}
    recording.check(*CALLS)


@pytest.mark.plans("numpy")
def test_both_arguments_may_be_what_is_written_over(record):
    def f(x):
        b = x @ x
        return (b * b) @ x

    recording = record(f, X)
    assert recording.places["c"] == recording.places["b"]
    recording.check(*CALLS)


def read_again_behind(x):
    b = x @ x
    return (b + 1) @ b


def read_through_a_view_beside(x):
    b = x @ x
    return (b + b.T) @ x


def read_through_a_view_beside_from_the_left(x):
    b = x @ x
    return (b[::-1, :] - b) @ x


def of_another_dtype(x):
    b = x @ x
    return xp_of(x).any(b > 1, axis=1)


def of_another_shape(x):
    b = x[:1] @ x
    return (b + x) @ x


def of_the_sums_of_one_row(x):
    """Which have the shape of the row, and begin at zero before it is read."""
    b = x[:1] @ x
    return xp_of(x).sum(b * 2, axis=0, keepdims=True) @ x


def of_a_product(x):
    b = x @ x
    return (x @ b) @ x


def of_a_choice(x):
    b, c = x @ x, x @ x.T
    return xp_of(x).where(b > c, x + 1, b) @ x


def of_what_is_chosen_by(x):
    b = x @ x
    return xp_of(x).where(b != 0, x, 2 * x) @ x


OVER_NOTHING = [
    read_again_behind,
    read_through_a_view_beside,
    read_through_a_view_beside_from_the_left,
    of_another_dtype,
    of_another_shape,
    of_a_product,
]


@pytest.mark.plans("numpy")
@pytest.mark.parametrize("f", OVER_NOTHING, ids=lambda f: f.__name__)
def test_a_result_is_not_written_over_what_is_needed_or_does_not_fit(record, f):
    first, second = record(f, X).places.values()
    assert sum(first) <= second[0]


@pytest.mark.parametrize(
    "f",
    [*OVER_NOTHING, of_a_choice, of_what_is_chosen_by, of_the_sums_of_one_row],
    ids=lambda f: f.__name__,
)
def test_what_is_needed_is_there(record, f):
    record(f, X).check(*CALLS)


def written_to(x):
    b = x @ x
    b[1:, 0] = 7.0
    return b @ x


def written_to_and_read_as_it_was(x):
    b = x @ x
    c = b + 0
    b = xp_of(x).multiply(b, 1)
    before = b @ x
    b[0] = x[1]
    return before @ b @ c


def written_to_from_itself(x):
    b = x @ x
    b[1:] = b[:-1]
    return b @ x


def written_to_while_another_has_it(x):
    b = x @ x
    c = b @ x
    b[0] = 5.0
    return c @ b


@pytest.mark.parametrize(
    "f",
    [written_to, written_to_and_read_as_it_was, written_to_from_itself, written_to_while_another_has_it],
    ids=lambda f: f.__name__,
)
def test_parts_that_are_written_to(record, f):
    record(f, X).check(*CALLS)


@pytest.mark.plans("numpy")
def test_a_part_is_written_where_the_array_is_unless_that_is_read_again(record):
    recording = record(written_to, X)
    assert recording.places["b"] == recording.places["c"]
    assert "copyto" not in recording.steps
    recording = record(written_to_from_itself, X)
    assert recording.places["b"] != recording.places["d"]
    assert "copyto" in recording.steps


# -- views --------------------------------------------------------------------------------------------------


@pytest.mark.plans("numpy")
def test_views_of_buffers_are_made_once_and_others_at_each_call(record):
    of_buffer = record(lambda x: (x @ x).T @ x, X)
    of_argument = record(lambda x: x.T @ x, X)
    of_what_a_function_makes = record(lambda x: xp_of(x).sort(x, axis=0).T @ x, X)
    of_what_is_returned = record(lambda x: (lambda y: (y, y.T @ x))(x @ x), X)
    recordings = of_buffer, of_argument, of_what_a_function_makes, of_what_is_returned
    assert [recording.summary["views"] for recording in recordings] == [1, 0, 0, 0]
    for recording in recordings:
        recording.check(*CALLS)


def views_of_arguments(x, y):
    return x.T @ y, x[1:] @ y, xp_of(x).reshape(y, (2, 8)) + 1


def views_of_what_functions_make(x, y):
    made = xp_of(x).sort(x, axis=0)
    return made.T @ y, made[::2] + 1, (x @ y)[0]


def views_of_views(x, y):
    b = x @ y
    return b.T[1:] @ x, xp_of(x).reshape(b, (16,))[3] * 2, b[1:][:, 1:] + 1


def views_that_are_returned(x, y):
    b = x @ y
    return b.T, b[0], b[1:] @ x, y[0]


def views_that_are_returned_while_others_are_made(x, y):
    b = x @ y
    return b.T, (b[0] @ y @ x @ y) + 1, x @ y.T @ x @ y


def no_views(x, y):
    """What the functions that return views return here is in memory of its own."""
    xp, b = xp_of(x), x @ y
    return xp.reshape(b.T, (16,)) + 1, b[xp.asarray([2, 0]), :] @ x, xp.astype(b, xp.float32) * 2


def rows_of_a_constant(x, y):
    xp = xp_of(x)
    return xp.asarray(X)[xp.astype(x[:, 1], xp.int64), :] @ y


VIEWS = [
    views_of_arguments,
    views_of_what_functions_make,
    views_of_views,
    views_that_are_returned,
    views_that_are_returned_while_others_are_made,
    no_views,
    rows_of_a_constant,
]


@pytest.mark.parametrize(
    "f",
    VIEWS,
    ids=lambda f: f.__name__,
)
def test_views_are_of_the_arrays_of_this_call(record, f):
    record(f, X, X).check(*PAIRS)


def test_what_gives_views_of_several_arrays_gives_copies(record):
    """What is no view of one argument is made anew: views of the plan's memory would change later."""

    def f(x, y):
        first, second = xp_of(x).broadcast_arrays(x @ y, y @ x)
        rows = xp_of(x).unstack(x @ x)
        return first, second + 1, rows[0], rows[1] + rows[2]

    record(f, X, X).check(*PAIRS)


def test_the_real_part_of_one_number_is_read_as_such(record):
    """It begins where the number does, is as long, and is of another dtype."""
    z = numpy.asarray([1.0 + 2.0j])
    record(lambda z: xp_of(z).real(z * 1j) * 2 + 1, z).check([z], [-z])


@pytest.mark.plans("numpy")
def test_what_a_function_makes_goes_with_its_views(record):
    recording = record(lambda x: xp_of(x).sort(x, axis=0).T @ x + 1, X)
    lines = [line.strip() for line in recording.plan.source.splitlines()]
    (left,) = (line for line in lines if line.startswith("del "))
    assert left.count("x_") == 2
    recording.check(*CALLS)


def test_a_view_of_a_constant_is_copied_for_the_caller(record):
    row = numpy.arange(4.0)
    recording = record(lambda x: xp_of(x).broadcast_arrays(x + 1, row)[1], X)
    for _ in range(2):
        found = recording(X)
        numpy.testing.assert_array_equal(found, numpy.broadcast_to(row, X.shape))
        found[...] = 7.0


# -- results ------------------------------------------------------------------------------------------------


def returned_twice(x):
    b = x @ x
    return b, b, b


def returned_with_what_is_made_of_it(x):
    b = x @ x
    c = b + 1
    return b, c, c @ b, c * 2


def returned_as_it_came(x):
    return x @ x, x


def constants(x):
    return numpy.arange(3.0), x @ x, numpy.arange(3.0)


def numbers(x):
    total = xp_of(x).sum(x @ x)
    return total, total * 2, total > 1, (x @ x)[0, 0], total


@pytest.mark.parametrize(
    "f",
    [returned_twice, returned_with_what_is_made_of_it, returned_as_it_came, constants, numbers],
    ids=lambda f: f.__name__,
)
def test_results_stay_and_are_arrays_of_their_own(record, f):
    record(f, X).check(*CALLS)


def test_a_constant_that_is_returned_is_an_array_of_the_caller(record):
    recording = record(constants, X)
    for _ in range(2):
        first, _, second = recording(X)
        numpy.testing.assert_array_equal(first, numpy.arange(3.0))
        numpy.testing.assert_array_equal(second, numpy.arange(3.0))
        first[...] = 7.0


@pytest.mark.plans("numpy", "numba")
def test_what_a_function_makes_is_let_go_behind_its_last_reader(record):
    recording = record(lambda x: xp_of(x).sort(xp_of(x).sort(x, axis=0) + 1, axis=1), X)
    lines = [line.split("(")[0].strip() for line in recording.plan.source.splitlines()]
    name = next(line.removesuffix(" = sort") for line in lines if line.endswith(" = sort"))
    assert lines.index(f"del {name}") == lines.index(f"{name} = sort") + 2
    recording.check(*CALLS)


@pytest.mark.plans("numpy", "numba")
def test_results_are_written_into_new_arrays_and_numbers_are_copied(record):
    assert record(returned_with_what_is_made_of_it, X).summary["new"] == 4
    of_numbers = record(numbers, X)
    assert of_numbers.summary["new"] == 0
    assert all(isinstance(x, numpy.generic) for x in of_numbers(X))


def test_empty_arrays_have_a_place(record):
    x = numpy.ones((0, 3))
    f = record(lambda x: (x @ x.T, x.T @ x + 1, x * 2), x)
    f.check([x], [x])


# -- arguments that are written over ------------------------------------------------------------------------


def assert_written_over(record, f, over, donate=("x",), arrays=(X, X.T)):
    """Assert how many results are written over donated arguments, on each kind of plan."""
    recording = record(f, *arrays, donate=donate)
    assert recording.summary["over"] == over
    recording.check(*PAIRS)


def test_a_result_is_written_over_a_donated_argument(record):
    def f(x, y):
        return x + y

    assert_written_over(record, f, 1)
    recording = record(f, X, X, donate=("x",))
    x = X.copy()
    assert numpy.shares_memory(recording(x, X), x)
    numpy.testing.assert_array_equal(x, 2 * X)


def test_an_argument_is_not_written_over_before_its_last_reader(record):
    def read_later(x, y):
        new = xp_of(x).sin(y) * 0 + y
        return new + 1, x @ new

    assert_written_over(record, read_later, 0)


def test_an_argument_is_not_written_over_while_a_product_reads_it(record):
    assert_written_over(record, lambda x, y: x @ y, 0)


def test_an_argument_is_written_over_once_all_have_read_it(record):
    assert_written_over(record, lambda x, y: (x @ y) @ y, 1)


def test_an_argument_is_not_written_over_while_a_view_of_it_is_read(record):
    def read_beside(x, y):
        return x + x.T

    def read_later(x, y):
        return x + 1, x.T @ (x + 1) @ y

    assert_written_over(record, read_beside, 0)
    assert_written_over(record, read_later, 0)


def test_an_argument_that_is_returned_is_not_written_over(record):
    assert_written_over(record, lambda x, y: (y + 1, x), 0)
    assert_written_over(record, lambda x, y: (y + 1, x.T), 0)


def test_the_first_call_writes_over_nothing(kind_of_plan):
    """Its arguments have been read already, when the function was recorded."""
    f, x = xpnet.jit(lambda x: x + 1, donate=("x",)), X.copy()
    numpy.testing.assert_array_equal(f(x), X + 1)
    numpy.testing.assert_array_equal(x, X)


@pytest.mark.plans("numpy", "numba")
def test_a_donated_array_that_cannot_be_written_to_stays(record):
    recording, x = record(lambda x: x + 1, X, donate=("x",)), X.copy()
    x.flags.writeable = False
    numpy.testing.assert_array_equal(recording(x), X + 1)
    numpy.testing.assert_array_equal(x, X)


def test_arguments_that_are_exchanged(record):
    def f(x, y):
        first, second = y @ x, x @ y
        return first + 1, second + 2

    assert_written_over(record, f, 2, donate=("x", "y"))
    record(lambda x, y: (y + 1, x + 1), X, X, donate=("x", "y")).check(*PAIRS)


def test_a_donated_argument_is_not_written_over_by_what_is_unlike(record):
    assert_written_over(record, lambda x, y: (x @ y)[:, :2] + 1, 0)
    assert_written_over(record, lambda x, y: (x @ y) > 1, 0)
    assert_written_over(record, lambda x, y: (x @ y @ y).T, 0)


@pytest.mark.plans("numpy", "numba")
def test_a_number_is_not_written_over(record):
    recording = record(lambda x, y: (x + 1, y), numpy.float64(1), X, donate=("x",))
    assert recording.summary["over"] == 0
    x = numpy.asarray(1.0)
    assert isinstance(recording(x, X)[0], numpy.generic)
    assert x == 1


def test_a_donated_array_that_is_another_argument_too_stays(record):
    recording = record(lambda x, y: (x + 1, y), X, X, donate=("x",))
    x = X.copy()
    for one, other in (x, x), (x[:], x), (x, x[:]), (x, numpy.asarray(memoryview(x))):
        numpy.testing.assert_array_equal(recording(one, other)[0], X + 1)
        numpy.testing.assert_array_equal(x, X)


# -- the stretch of memory ----------------------------------------------------------------------------------


def test_parts_are_taken_one_behind_the_other():
    stretch = memory(64)
    assert [stretch.take(size) for size in (64, 1, 100, 128)] == [(0, 64), (64, 64), (128, 128), (256, 128)]
    assert stretch.size == 384


def test_a_free_part_is_taken_again_and_only_once():
    stretch = memory(64)
    parts = [stretch.take(64) for _ in range(3)]
    stretch.free(*parts[1])
    assert stretch.take(64) == parts[1]
    assert stretch.take(64) == (192, 64)


def test_the_smallest_part_that_is_large_enough_is_taken():
    stretch = memory(64)
    large, _, small, _ = (stretch.take(size) for size in (256, 64, 128, 64))
    stretch.free(*large)
    stretch.free(*small)
    assert stretch.take(100) == small
    assert stretch.take(300) == (512, 320)
    assert stretch.take(200) == large


def test_what_is_left_of_a_part_is_free():
    stretch = memory(64)
    part, _ = stretch.take(256), stretch.take(64)
    stretch.free(*part)
    assert stretch.take(64) == (0, 64)
    assert stretch.take(192) == (64, 192)
    assert stretch.take(64) == (320, 64)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)])
def test_neighbours_that_are_free_are_joined(order):
    stretch = memory(64)
    parts = [stretch.take(64) for _ in range(3)]
    end = stretch.take(64)
    for number in order:
        stretch.free(*parts[number])
    assert stretch.take(192) == (0, 192)
    assert stretch.take(64) == (end[0] + 64, 64)


def test_what_is_free_at_the_end_grows():
    stretch = memory(64)
    _, last = stretch.take(64), stretch.take(64)
    stretch.free(*last)
    assert stretch.take(256) == (64, 256)
    assert stretch.size == 320
