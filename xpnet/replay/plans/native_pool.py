"""Threads that go through a table together: what numba compiles of them.

A table's rows are in *parts*, and its parts in *rounds*: all parts of a round may be done at once, and the
next one begins when they are done. A thread claims one part after the other, and then waits for those that
others have claimed. So nobody waits for a thread that the system lets wait, unless it has a part.

Each time that a table is gone through is a *run* with a number. What is counted in a round goes on from that
number, and never back: a thread that comes back from a run that is over finds nothing to claim, and no one
needs to wait for it. Where the words are say `table.py` and `pool.py`.
"""

from numba import int32, njit

from xpnet.replay.plans.native import (
    atomic_add,
    atomic_load,
    atomic_store,
    call,
    exchange,
    flush_denormals,
    foreign,
    go,
    load,
    pause,
    put_if,
    put_places,
    set_settings,
    store,
)
from xpnet.replay.plans.pool import (
    ACQUIRE,
    BUSY,
    CALLERS,
    CLOCK,
    HELD,
    INSIDE,
    LAST_END,
    LEARNS,
    LEAST_IF_ASLEEP,
    LOCK,
    MONOTONIC,
    OWN,
    PATIENCE,
    RELEASE,
    RINGS,
    SETTINGS,
    SLEEPS,
    SPIN,
    STOP,
    TABLE,
    TIME,
    WORKER,
    WORKERS,
    YIELD,
)
from xpnet.replay.plans.table import (
    AGAIN,
    ALONE,
    BEFORE,
    CLAIMED,
    DONE,
    FIRST_PART,
    FIRST_ROUND,
    FIRST_ROW,
    MOST_PARTS,
    PART,
    PARTS,
    PENALTY,
    POOL,
    ROUND,
    ROUNDS,
    ROWS_BEFORE,
    ROWS_OF_PART,
    ROWS_UNTIL,
    RUN,
    RUN_APART,
    STARTED,
    STOPPED,
)

# Nanoseconds for which a table is gone through by one thread after several took longer, at least and at most.
_SHORTEST, _LONGEST = 2_000_000, 1_000_000_000
# How often a thread looks whether something is there between two looks at the clock.
_LOOKS = 16


@njit(error_model="numpy")
def _now(pool: int, place: int) -> int:
    """Return what the clock says, in nanoseconds; at the place are two words for it."""
    foreign(int32, load(pool + 8 * CLOCK), (int32(MONOTONIC), place))
    return load(place) * 1_000_000_000 + load(place + 8)


@njit(error_model="numpy")
def _own(pool: int, number: int) -> int:
    """Return where the words of a worker are."""
    return pool + 8 * (OWN + WORKER * number)


# -- a run ------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def _stop(table: int, row: int) -> None:
    """Say that a row stopped the table: of several, the first one."""
    seen = atomic_load(table + 8 * STOPPED)
    while (seen == 0 or row < seen) and not put_if(table + 8 * STOPPED, seen, row):
        seen = atomic_load(table + 8 * STOPPED)


@njit(error_model="numpy")
def _do(table: int, part: int) -> None:
    """Do the rows of a part."""
    row = load(part + 8 * FIRST_ROW)
    for index in range(load(part + 8 * ROWS_OF_PART)):
        if call(load(row), row + 16) != 0:
            _stop(table, load(part + 8 * ROWS_BEFORE) + index + 1)
            return
        row += 16 + 8 * load(row + 8)


@njit(error_model="numpy")
def _take_part(pool: int, table: int, run: int) -> None:
    """Claim parts of a run and do them, round by round, until there are none."""
    place = load(table + 8 * FIRST_ROUND)
    for _ in range(load(table + 8 * ROUNDS)):
        start = run * RUN_APART
        end = start + load(place + 8 * PARTS)
        claimed = atomic_load(place + 8 * CLAIMED)
        while claimed < end:
            if put_if(place + 8 * CLAIMED, claimed, claimed + 1):
                _do(table, load(place + 8 * FIRST_PART) + 8 * PART * (claimed - start))
                atomic_add(place + 8 * DONE, 1)
            claimed = atomic_load(place + 8 * CLAIMED)
        looks = 0
        while atomic_load(place + 8 * DONE) < end:
            looks += 1
            if looks < load(pool + 8 * PATIENCE):
                pause()
            else:
                foreign(int32, load(pool + 8 * YIELD), ())
        # One that was stopped in the next round has parts there that are not done.
        stopped = atomic_load(table + 8 * STOPPED)
        if stopped != 0 and stopped <= load(place + 8 * ROWS_UNTIL):
            return
        place += 8 * ROUND


@njit(error_model="numpy")
def _open(pool: int, table: int) -> int:
    """Begin a run; return its number. Only then may anyone claim a part of it."""
    run = atomic_load(table + 8 * RUN) + 1
    place = load(table + 8 * FIRST_ROUND)
    for _ in range(load(table + 8 * ROUNDS)):
        atomic_store(place + 8 * DONE, run * RUN_APART)
        atomic_store(place + 8 * CLAIMED, run * RUN_APART)
        place += 8 * ROUND
    atomic_store(table + 8 * STOPPED, 0)
    atomic_store(table + 8 * RUN, run)
    atomic_store(pool + 8 * TABLE, table)
    return run


@njit(error_model="numpy")
def _close(pool: int, table: int, run: int) -> None:
    """End a run: also in rounds that were not come to, there is nothing to claim or to wait for."""
    atomic_store(pool + 8 * TABLE, 0)
    if atomic_load(table + 8 * STOPPED) != 0:
        place = load(table + 8 * FIRST_ROUND)
        for _ in range(load(table + 8 * ROUNDS)):
            atomic_store(place + 8 * CLAIMED, (run + 1) * RUN_APART)
            atomic_store(place + 8 * DONE, (run + 1) * RUN_APART)
            place += 8 * ROUND


# -- workers ----------------------------------------------------------------------------------------------


def ring(pool: int, number: int) -> int:
    """Let a worker look what there is to do."""
    own = _own(pool, number)
    atomic_add(own + 8 * RINGS, 1)
    if exchange(own + 8 * SLEEPS, 0) == 1:
        foreign(None, load(pool + 8 * RELEASE), (load(own + 8 * LOCK),))
    return 0


_ring = njit(error_model="numpy")(ring)


@njit(error_model="numpy")
def _wait(pool: int, own: int, heard: int) -> None:
    """Wait until a worker is rung: at first awake, then asleep."""
    began, looks = _now(pool, own + 8 * TIME), 0
    while atomic_load(own + 8 * RINGS) == heard:
        pause()
        looks += 1
        if looks % _LOOKS == 0 and _now(pool, own + 8 * TIME) - began > load(pool + 8 * SPIN):
            atomic_store(own + 8 * SLEEPS, 1)
            # Who rings from now on lets the lock go. Who rang before did not know that it is waited for.
            if atomic_load(own + 8 * RINGS) == heard or exchange(own + 8 * SLEEPS, 0) == 0:
                foreign(int32, load(pool + 8 * ACQUIRE), (load(own + 8 * LOCK), int32(1)))


def work(pool: int, number: int) -> int:
    """Do parts of what others go through, until told to stop."""
    own = _own(pool, number)
    flush_denormals(own + 8 * SETTINGS)
    heard = 0
    while True:
        _wait(pool, own, heard)
        heard = atomic_load(own + 8 * RINGS)
        if atomic_load(own + 8 * STOP) != 0:
            set_settings(own + 8 * SETTINGS)
            return 0
        table = atomic_load(pool + 8 * TABLE)
        # Said before it is looked at again: who frees tables sees it, or no run of the table is open.
        atomic_store(own + 8 * INSIDE, table)
        if table != 0 and atomic_load(pool + 8 * TABLE) == table:
            _take_part(pool, table, atomic_load(table + 8 * RUN))
        atomic_store(own + 8 * INSIDE, 0)


# -- the driver -------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def _asleep(pool: int, helpers: int) -> int:
    """Return how many of the first workers sleep."""
    asleep = 0
    for number in range(helpers):
        asleep += atomic_load(_own(pool, number) + 8 * SLEEPS)
    return asleep


@njit(error_model="numpy")
def _helpers(pool: int, table: int, threads: int, began: int) -> int:
    """Return how many workers pay for a table.

    None if they took longer than one thread a short while ago; or if they sleep, as waking them takes time,
    unless there is much to do, or one run follows the other.
    """
    helpers = min(threads - 1, atomic_load(pool + 8 * WORKERS), load(table + 8 * MOST_PARTS) - 1)
    if helpers <= 0 or load(pool + 8 * LEARNS) == 0:
        return helpers
    if load(table + 8 * ALONE) == 0 or began < load(table + 8 * AGAIN):
        return 0
    follows = began - atomic_load(pool + 8 * LAST_END) < load(pool + 8 * SPIN)
    pays = load(table + 8 * ALONE) >= load(pool + 8 * LEAST_IF_ASLEEP)
    return helpers if follows or pays or _asleep(pool, helpers) < helpers else 0


@njit(error_model="numpy")
def _learn(table: int, took: int, now: int, together: bool) -> None:
    """Remember how long one thread takes, and do without others for a while if these took longer."""
    alone = load(table + 8 * ALONE)
    if not together:
        # The least of all times, which grows a little in case that the machine became slower.
        more = min(took - alone, alone // 8) // 8
        store(table + 8 * ALONE, took if alone == 0 or took < alone else alone + more)
        return
    penalty = load(table + 8 * PENALTY)
    if took > alone:
        penalty = min(max(2 * penalty, _SHORTEST), _LONGEST)
        store(table + 8 * AGAIN, now + penalty)
    else:
        penalty -= penalty // 8
    store(table + 8 * PENALTY, penalty)


def hold(pool: int, held: int) -> int:
    """Say whether callers are held that come to go through a table; return how many go through one."""
    exchange(pool + 8 * HELD, held)
    return atomic_load(pool + 8 * CALLERS)


@njit(error_model="numpy")
def _enter(pool: int) -> None:
    """Count a caller, behind those that are held."""
    atomic_add(pool + 8 * CALLERS, 1)
    while atomic_load(pool + 8 * HELD) != 0:
        atomic_add(pool + 8 * CALLERS, -1)
        while atomic_load(pool + 8 * HELD) != 0:
            foreign(int32, load(pool + 8 * YIELD), ())
        atomic_add(pool + 8 * CALLERS, 1)


def run_together(table: int, arrays: int, threads: int) -> int:
    """Go through a table with a tuple of arrays, by so many threads at most, of which this is one.

    It returns 0, or the number of the row that stopped it. Who comes while others go through a table does it
    alone.
    """
    pool = load(table + 8 * POOL)
    _enter(pool)
    began = _now(pool, table + 8 * STARTED)
    put_places(table, arrays)
    helpers = _helpers(pool, table, threads, began)
    woken = _asleep(pool, helpers)
    together = helpers > 0 and exchange(pool + 8 * BUSY, 1) == 0
    if together:
        run = _open(pool, table)
        for number in range(helpers):
            _ring(pool, number)
        flush_denormals(table + 8 * BEFORE)
        _take_part(pool, table, run)
        set_settings(table + 8 * BEFORE)
        _close(pool, table, run)
        atomic_store(pool + 8 * BUSY, 0)
    else:
        go(table)
    now = _now(pool, table + 8 * STARTED)
    atomic_store(pool + 8 * LAST_END, now)
    # Workers that were woken are awake the next time.
    if threads > 1 and (woken == 0 or load(table + 8 * ALONE) >= load(pool + 8 * LEAST_IF_ASLEEP)):
        _learn(table, now - began, now, together)
    stopped = atomic_load(table + 8 * STOPPED)
    atomic_add(pool + 8 * CALLERS, -1)
    return stopped
