"""What threads count is right in whatever order their steps are done."""

from functools import partial
from random import Random

import pytest

pytest.importorskip("numba")

from xpnet.replay.plans import native_pool, pool, table

from .interleavings import Blocked, World, explore, generators, wander

POOL, TABLE, ROUNDS, PARTS, ROWS = 0, 100_000, 200_000, 300_000, 400_000
CALLER = 0


def memory_of(parts, workers):
    """The words of a pool, and of a table with rounds of so many parts, each with one row."""
    words = {POOL + 8 * word: name for word, name in (
        (pool.YIELD, "yield"), (pool.CLOCK, "clock"), (pool.ACQUIRE, "acquire"), (pool.RELEASE, "release"),
    )}  # fmt: skip
    words |= {POOL + 8 * pool.WORKERS: workers}
    words |= {own(number) + 8 * pool.LOCK: f"lock {number}" for number in range(workers)}
    words |= {TABLE + 8 * table.ROUNDS: len(parts), TABLE + 8 * table.FIRST_ROUND: ROUNDS}
    words |= {TABLE + 8 * table.MOST_PARTS: max(parts), TABLE + 8 * table.POOL: POOL}
    part = 0
    for number, count in enumerate(parts):
        place = ROUNDS + 8 * table.ROUND * number
        words |= {place + 8 * table.PARTS: count, place + 8 * table.FIRST_PART: PARTS + 8 * table.PART * part}
        for _ in range(count):
            place = PARTS + 8 * table.PART * part
            words |= {place + 8 * table.FIRST_ROW: ROWS + 16 * part, place + 8 * table.ROWS_OF_PART: 1}
            words |= {place + 8 * table.ROWS_BEFORE: part, ROWS + 16 * part: number}
            part += 1
        words[ROUNDS + 8 * (table.ROUND * number + table.ROWS_UNTIL)] = part
    return words


def own(number):
    return POOL + 8 * (pool.OWN + pool.WORKER * number)


class Plain:
    """The memory of the thread that is at work, for what is no step; and words that others may see."""

    memory, shared = {}, set()

    @classmethod
    def load(cls, address):
        assert address not in cls.shared
        check_that_it_is_there(cls.memory, address)
        return cls.memory.get(address, 0)

    @classmethod
    def store(cls, address, value):
        assert address not in cls.shared
        check_that_it_is_there(cls.memory, address)
        cls.memory[address] = value


def check_that_it_is_there(memory, address):
    assert address < TABLE or not memory.get("freed"), "a table is looked at whose memory is freed"


class Model:
    """What is done in memory, and what must hold."""

    def __init__(self, parts, stops=()):
        self.parts, self.stops = parts, stops
        self.rounds = [number for number, count in enumerate(parts) for _ in range(count)]

    def do(self, memory, thread, step, *arguments):
        Plain.memory = memory
        if step not in ("call", "foreign"):
            Plain.shared.add(arguments[0])
            check_that_it_is_there(memory, arguments[0])
        if step == "atomic_load":
            return memory.get(arguments[0], 0)
        if step == "atomic_store":
            memory[arguments[0]] = arguments[1]
            return None
        if step in ("atomic_add", "exchange"):
            before = memory.get(arguments[0], 0)
            memory[arguments[0]] = arguments[1] + before * (step == "atomic_add")
            return before
        if step == "put_if":
            place, expected, value = arguments
            if memory.get(place, 0) != expected:
                return False
            memory[place] = value
            return True
        return self.call(memory, *arguments) if step == "call" else self.foreign(memory, *arguments)

    def call(self, memory, number, words):
        part = (words - 16 - ROWS) // 16
        done = memory.get("done", ())
        assert memory.get("open"), "a part is done when no run is open"
        assert part not in done, f"part {part} is done twice"
        before = [other for other, its in enumerate(self.rounds) if its < number]
        assert set(before) <= set(done), f"part {part} is done before {before}"
        memory["done"] = tuple(sorted((*done, part)))
        return int(part in self.stops)

    def foreign(self, memory, _returned, function, arguments):
        if function == "acquire":
            if memory.get(arguments[0], 1):
                raise Blocked
            memory[arguments[0]] = 1
        elif function == "release":
            assert memory.get(arguments[0], 1), "a lock is released that no one holds"
            memory[arguments[0]] = 0
        elif function == "clock":
            memory[arguments[1]] = memory[arguments[1] + 8] = 0
        return 0


NOTHING = dict.fromkeys(("put_places", "flush_denormals", "set_settings", "pause"), lambda *_: None)
FUNCTIONS = generators(native_pool, **NOTHING, int32=int, _LOOKS=1, load=Plain.load, store=Plain.store)


def world(parts, runs, stops, workers=1):
    model = Model(parts, stops)
    # Workers sleep as soon as they have looked once.
    memory = memory_of(parts, workers) | {POOL + 8 * pool.SPIN: -1, POOL + 8 * pool.PATIENCE: 0}
    expected = sum(parts[: 1 + min((model.rounds[stop] for stop in stops), default=len(parts))])

    def caller():
        for _ in range(runs):
            memory["open"], memory["done"] = 1, ()
            stopped = yield from FUNCTIONS["run_together"](TABLE, 0, 1 + workers)
            assert stopped == (1 + min(stops) if stops else 0)
            assert memory["done"] == tuple(range(expected)), "a run ended before all was done"
            memory["open"] = 0
        # Who goes through it alone, behind an error, begins by forgetting that.
        yield "atomic_store", TABLE + 8 * table.STOPPED, 0
        inside = []
        for number in range(workers):
            inside.append((yield "atomic_load", own(number) + 8 * pool.INSIDE))
        memory["freed"] = TABLE not in inside
        for number in range(workers):
            memory[own(number) + 8 * pool.STOP] = 1
            yield from FUNCTIONS["ring"](POOL, number)

    Plain.memory = memory
    threads = [FUNCTIONS["work"](POOL, number) for number in range(workers)]
    return World(lambda: [caller(), *threads], model.do, memory)


@pytest.mark.parametrize(
    ("parts", "runs", "stops"),
    [
        ([2, 2, 1], 1, (1, 0)),
        ([1, 2], 1, (2, 1)),
        pytest.param([2], 2, (), marks=pytest.mark.slow),
        pytest.param([1, 2, 1], 1, (), marks=pytest.mark.slow),
        pytest.param([2, 1], 2, (), marks=pytest.mark.slow),
        pytest.param([2, 1], 2, (0,), marks=pytest.mark.slow),
        pytest.param([1, 2], 2, (2,), marks=pytest.mark.slow),
    ],
    ids=[
        "two errors",
        "errors in a later round",
        "one round twice",
        "three rounds",
        "two runs",
        "an error, and another run",
        "an error in a later round, and another run",
    ],
)
def test_in_any_order_each_part_is_done_once_and_after_those_before_it(parts, runs, stops):
    make = partial(world, parts, runs, stops)
    assert explore(make, lambda world: world.is_over(0) and world.is_over(1), most=50_000) > 1_000


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("stops", [(), (0,), (4, 2), (5,)], ids=str)
def test_in_some_orders_of_several_workers(workers, stops):
    for seed in range(500):
        wander(world([2, 3, 2], 3, stops, workers), 1 + workers, Random(seed), most=20_000)
