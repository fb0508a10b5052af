"""Parts of works: what they read and write is known, and what needs something is behind it."""

import ctypes
from dataclasses import replace
from itertools import pairwise, product

import numpy
import pytest

import xpnet
from xpnet import nn, optim
from xpnet.autodiff import windows
from xpnet.replay.plans import copies, products, rounds
from xpnet.replay.plans.copies import Indices
from xpnet.replay.plans.products import operand
from xpnet.replay.plans.rounds import Piece, Region, Work, evenly
from xpnet.replay.plans.table import LONGEST, Row

pytest.importorskip("numba")
random = numpy.random.default_rng(0)


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """What is worth while is as it is usually, however the suite is run."""
    monkeypatch.setattr(rounds, "WORTH_IT", 50_000)
    monkeypatch.setattr(rounds, "SHORTEST", 15_000)


# -- regions ------------------------------------------------------------------------------------------------


def bytes_of(region):
    """The bytes of a region."""
    if not region.every:
        return {*range(region.start, region.stop)}
    return {
        byte for start in range(region.start, region.stop, region.every)
        for byte in range(start, min(start + region.width, region.stop))
    }  # fmt: skip


def addresses(x):
    """The bytes of all elements of an array."""
    starts = {
        x.ctypes.data + sum(place * step for place, step in zip(index, x.strides, strict=True))
        for index in numpy.ndindex(x.shape)
    }
    return {start + byte for start in starts for byte in range(x.itemsize)}


def of_array(x):
    return Region.of(None, x.ctypes.data, x.shape, x.strides, x.itemsize)


def a_part(random, x):
    """A part of an array, with any steps and order of axes."""
    keys = []
    for length in x.shape:
        first, last = sorted(random.integers(0, length + 1, 2))
        keys.append(slice(first, max(last, first + 1), random.choice([1, 1, 2])))
    part = x[tuple(keys)]
    part = part[(slice(None, None, random.choice([-1, 1])), ...)]
    return part.transpose(random.permutation(part.ndim))


@pytest.mark.parametrize("seed", range(40))
def test_regions_have_all_elements_and_meet_where_elements_do(seed):
    random = numpy.random.default_rng(seed)
    x = numpy.zeros(random.integers(2, 6, random.integers(1, 4)), random.choice(["float32", "int8"]))
    for _ in range(20):
        parts = [part for part in (a_part(random, x), a_part(random, x)) if part.size]
        for part in parts:
            assert addresses(part) <= bytes_of(of_array(part))
        if len(parts) == 2:
            one, other = map(of_array, parts)
            assert one.meets(other) == other.meets(one)
            assert one.meets(other) or not (bytes_of(one) & bytes_of(other))


def test_tiles_and_rows_do_not_meet():
    x = numpy.zeros((8, 6), "float32")
    tiles = [of_array(x[a : a + 4, b : b + 3]) for a, b in product((0, 4), (0, 3))]
    assert not any(one.meets(other) for one in tiles for other in tiles if one is not other)
    assert not of_array(x[:, 0]).meets(of_array(x[:, 1]))
    assert of_array(x[2]).meets(of_array(x[:, 1]))
    assert not of_array(x)._replace(array="input").meets(of_array(x))


# -- what is said of pieces ---------------------------------------------------------------------------------


def run(row):
    words = [x.ctypes.data if isinstance(x, numpy.ndarray) else x for x in row.words]
    words = numpy.asarray(words, numpy.int64)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(row.function.address)(words.ctypes.data) == 0


def check(pieces, target, others):
    """Assert that pieces write and read what they say, and no two of them write to one place."""
    start = target.ctypes.data
    written = []
    for piece in pieces:
        arrays = [target, *others]
        kept = [x.copy() for x in arrays]
        said = [{*map(int, bytes_of(region))} for region in (*piece.reads, *piece.writes)]
        reads = set().union(*said)
        writes = set().union(*(bytes_of(region) for region in piece.writes))
        run(piece.row)
        result = target.copy()
        changed = numpy.flatnonzero(result.view("uint8").ravel() != kept[0].view("uint8").ravel()) + start
        assert {*changed.tolist()} <= writes
        # What it does not read may be anything.
        for x, before in zip(arrays, kept, strict=True):
            x[...] = before
            bits = x.view("uint8").reshape(-1)
            unread = [byte - x.ctypes.data not in reads and byte not in reads
                      for byte in range(x.ctypes.data, x.ctypes.data + x.nbytes)]  # fmt: skip
            bits[numpy.asarray(unread, bool)] ^= 0x55
        run(piece.row)
        places = numpy.asarray(sorted(writes)) - start
        places = places[(places >= 0) & (places < target.nbytes)]
        assert (target.view("uint8").ravel()[places] == result.view("uint8").ravel()[places]).all()
        for x, before in zip(arrays, kept, strict=True):
            x[...] = before
        written.append(writes)
    for number, one in enumerate(written):
        assert all(one.isdisjoint(other) for other in written[:number])


def whole(*shape):
    return random.integers(-4, 5, shape).astype("float32")


@pytest.mark.parametrize("number", [2, 8])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((300, 5), (5, 7)),
        ((7, 5), (5, 300)),
        ((40, 5), (5,)),
        ((6, 4, 5), (5, 3)),
        ((2, 3, 40, 5), (3, 5, 40)),
    ],
)
def test_pieces_of_products(number, first, second):
    library = products.library()
    if isinstance(library, str):
        pytest.skip(library)
    x1, x2 = whole(*first), whole(*second)
    target = numpy.zeros_like(numpy.matmul(x1, x2))
    (work,) = products.works(library, *map(operand, (x1, x2, target)))
    check(work.divided(number)[0], target, [x1, x2])
    check(work.cut(evenly(work.count, number)), target, [x1, x2])


@pytest.mark.parametrize("seed", range(10))
def test_pieces_of_copies(seed):
    random = numpy.random.default_rng(seed)
    value = whole(*random.integers(2, 6, 3))
    target = numpy.full(value.shape, 99, "float32")
    turned = random.permutation(3)
    for adds in (False, True):
        (work,) = copies.works(operand(target.transpose(turned)), operand(value.transpose(turned)), adds=adds)
        assert work.count > 1 or value.size == max(value.shape)
        check(work.cut(evenly(work.count, 3)), target, [value])


@pytest.mark.parametrize("of_target", [False, True])
def test_pieces_of_copies_by_indices(of_target):
    index = numpy.asarray([3, 1, 0, 3, 2, 1])
    short, long = whole(4, 6), whole(6, 6)
    target, value = (short, long) if of_target else (long, short)
    by = Indices(operand(index), 0, of_target)
    (work,) = copies.works(operand(target), operand(value), by, adds=of_target)
    assert work.count == 6
    check(work.cut(evenly(work.count, 3)), target, [value])


def test_pieces_of_windows():
    shape, options = (3, 8, 2), {"strides": (1,), "dilations": (2,)}
    like = windows.windows(numpy, numpy.empty(shape, "float32"), sizes=(3,), **options)
    value, target = whole(*like.shape), numpy.full(shape, 99, "float32")
    zeros, added = copies.works_of_windows(operand(target), operand(value), **options)
    assert (zeros.count, added.count) == (48, 3)
    check(added.cut(evenly(added.count, 3)), target, [value])


# -- rounds -------------------------------------------------------------------------------------------------


class Numbered(Row):
    """A row with the numbers of its work and of the elements that it is for."""


def a_work(random, number, arrays):
    """A work that reads some arrays and writes one, row by row, or all of it."""
    count = int(random.choice([1, 4, 8, 12]))
    target, *others = random.choice(arrays, random.integers(1, 4)).tolist()
    modes = [random.choice(["rows", "all"]) if count > 1 else "all" for _ in others]
    nanoseconds = float(random.choice([100, 20_000, 200_000, LONGEST / 2]))

    def region(array, mode, first, last):
        return (
            Region(array, 120 * first // count, 120 * last // count)
            if mode == "rows"
            else Region(array, 0, 120)
        )

    def piece(first, last):
        words = (number, first, last)
        row = Row(None, words, nanoseconds * (last - first) / count)
        reads = [region(array, mode, first, last) for array, mode in zip(others, modes, strict=True)]
        return Piece(row, reads, [region(target, "rows", first, last)])

    return Work(f"work {number}", nanoseconds, count, piece)


def meet(one, other):
    """Say whether the order of two pieces matters."""
    return any(
        a.meets(b)
        for first, second in (
            (one.reads, other.writes),
            (one.writes, other.reads),
            (one.writes, other.writes),
        )
        for a in first
        for b in second
    )


@pytest.mark.parametrize("seed", range(60))
def test_what_needs_something_is_behind_it(seed):
    random = numpy.random.default_rng(seed)
    works = [a_work(random, number, ["a", "b", "c", "d", None]) for number in range(random.integers(1, 30))]
    done = []  # each piece with its round, its part and its place there
    for number, each in enumerate(each for stretch in rounds.stretches(works) for each in stretch):
        for part_number, part in enumerate(each.parts):
            done += [(piece, number, part_number, place) for place, piece in enumerate(part.pieces)]
    for number, work in enumerate(works):  # all of each, once
        parts = sorted(piece.row.words[1:] for piece, *_ in done if piece.row.words[0] == number)
        assert [first for first, _ in parts] == [0, *(last for _, last in parts[:-1])]
        assert parts[-1][1] == work.count
    for piece, *place in done:
        for other, *before in done:
            if other.row.words[0] < piece.row.words[0] and meet(piece, other):
                same_part = before[:2] == place[:2] and before[2] < place[2]
                assert before[0] < place[0] or same_part


@pytest.mark.parametrize("seed", range(20))
def test_no_stretch_takes_long(seed):
    random = numpy.random.default_rng(seed)
    works = [a_work(random, number, ["a", "b", "c"]) for number in range(20)]
    for together in (True, False):
        found = rounds.stretches(works, together=lambda together=together: together)
        assert max(sum(each.nanoseconds for each in stretch) for stretch in found) <= LONGEST
        assert together or {len(each.parts) for stretch in found for each in stretch} == {1}
    assert rounds.stretches([]) == []


def test_what_takes_too_long_is_done_in_pieces():
    def piece(first, last):
        return Piece(Row(None, (), LONGEST * (last - first)), [], [Region(None, first, last)])

    for together, least in ((True, 16), (False, 2)):
        work = Work("long", 2 * LONGEST, 1000, lambda first, last: piece(first / 500, last / 500))
        found = rounds.stretches([work], together=lambda together=together: together)
        assert len(found) >= 2
        assert sum(len(each.parts) for stretch in found for each in stretch) >= least


def row_works(*counts):
    """Works of which each reads, row by row, what the one before it wrote."""

    def work(number, count):
        def piece(first, last):
            read, written = (
                Region(name, 960 * first // count, 960 * last // count)
                for name in (f"{number}", f"{number + 1}")
            )
            return Piece(Row(None, (number, first, last), 2e5), [read], [written])

        return Work(f"{number}", 2e5, count, piece)

    return [work(*each) for each in enumerate(counts)]


def test_rows_are_done_by_one_thread_from_the_beginning_to_the_end():
    ((only,),) = rounds.stretches(row_works(8, 16, 8, 32))
    assert [len(part.pieces) for part in only.parts] == [4] * 8
    # A work that cannot be cut at the same rows begins another round.
    ((first, second),) = rounds.stretches(row_works(12, 5))
    assert (len(first.parts), len(second.parts)) == (6, 5)  # of 2 rows, and of 1


def test_many_trifles_are_left_whole():
    """A network of a thousand narrow layers, say, of which dividing would take long."""
    works = [replace(work, nanoseconds=rounds.SHORTEST) for work in row_works(*[8] * 1000)]
    assert [len(each.parts) for stretch in rounds.stretches(works) for each in stretch] == [1] * 1000


def test_little_is_not_divided():
    works = row_works(8, 8)
    small = [Work(w.name, rounds.WORTH_IT / 3, w.count, w.piece) for w in works]
    assert [len(each.parts) for stretch in rounds.stretches(small) for each in stretch] == [1, 1]


@pytest.mark.parametrize(("count", "number", "bounds"), [
    (8, 2, [0, 4, 8]), (7, 2, [0, 4, 7]), (100, 3, [0, 48, 96, 100]), (784, 4, [0, 196, 392, 588, 784]),
    (3, 8, [0, 1, 2, 3]),
    (1, 1, [0, 1]), (2, 1, [0, 2]),
])  # fmt: skip
def test_where_a_work_is_cut(count, number, bounds):
    assert evenly(count, number) == bounds
    assert [last - first for first, last in pairwise(evenly(count, number))] == sorted(
        (last - first for first, last in pairwise(evenly(count, number))), reverse=True
    )


def test_a_training_step_is_as_few_rounds_as_its_sums_ask_for():
    """Forward row by row, what is added up over all rows, and each weight behind its gradient."""
    net = nn.Sequential(nn.Dense(784, 128, seed=0), nn.ReLU(), nn.Dense(128, 10, seed=1))
    optimizer = optim.Adam()
    x, y = random.normal(size=(128, 784)).astype("float32"), random.integers(0, 10, 128)

    def step(net, state, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: xpnet.losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), loss

    step = xpnet.jit(step, donate=("net", "state"))
    step(net, optimizer.init(net), x, y)
    if products.one_thread():
        pytest.skip(products.one_thread())
    lines = [line for line in step.explain().splitlines() if " of about " in line]
    assert [line.split()[2] for line in lines] == ["2", "1", "4"]
    assert "1 part, of about" in lines[1]
    assert "as it is too short for several" in lines[1]
    assert "multiply_add_sqrt_divide_subtract" in lines[-1]
    assert f"Threads: {xpnet.get_threads()} at most, for the parts of" in step.explain()
