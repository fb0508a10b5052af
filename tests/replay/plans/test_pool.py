"""Threads of plans: the same bits for any number of them, and they stand in nobody's way."""

import collections
import concurrent.futures
import ctypes
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial

import numpy
import pytest

import xpnet
from xpnet import losses, nn, optim
from xpnet.replay.plans import native, products, rounds, table
from xpnet.replay.plans import pool as of_pool
from xpnet.replay.plans.pool import pool

pytest.importorskip("numba")
random = numpy.random.default_rng(0)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")


@pytest.fixture(autouse=True)
def divided(monkeypatch):
    """Let threads do parts of all that plans do, also where one thread alone is faster."""
    if products.one_thread():
        pytest.skip(products.one_thread())
    monkeypatch.setattr(rounds, "WORTH_IT", 0)
    monkeypatch.setattr(rounds, "SHORTEST", 1)
    monkeypatch.setattr(pool(), "most", 64)
    learns = pool().words[of_pool.LEARNS]
    pool().words[of_pool.LEARNS] = 0
    yield
    pool().words[of_pool.LEARNS] = learns


def dense(size=40):
    layers = (
        nn.Dense(size, 33, seed=0),
        nn.Tanh(),
        nn.LayerNorm(33),
        nn.Dropout(0.2, seed=1),
        nn.Dense(33, 7, seed=2),
    )
    return nn.Sequential(*layers), random.normal(size=(50, size)).astype("float32"), random.integers(0, 7, 50)


def convolutions():
    layers = (
        nn.Conv2d(2, 5, 3, padding="same", seed=0),
        nn.BatchNorm(5),
        nn.ReLU(),
        nn.MaxPool(2),
        nn.Flatten(),
    )
    net = nn.Sequential(*layers, nn.Dense(5 * 5 * 4, 3, seed=1))
    return net, random.normal(size=(19, 10, 8, 2)).astype("float32"), random.integers(0, 3, 19)


def transformer():
    class Rows(nn.Module):
        def __call__(self, x):
            return xpnet.array_namespace(x).reshape(x, (-1, x.shape[-1]))

    layers = nn.Embedding(30, 16, seed=0), nn.TransformerBlock(16, 4, causal=True, seed=1), Rows()
    net = nn.Sequential(*layers, nn.Dense(16, 30, seed=2))
    return net, random.integers(0, 30, (6, 12)), random.integers(0, 30, 72)


def recurrent():
    net = nn.Sequential(nn.GRU(4, 9, seed=0), nn.Lambda(last), nn.Dense(9, 3, seed=1))
    return net, random.normal(size=(20, 6, 4)).astype("float32"), random.integers(0, 3, 20)


def last(x):
    return x[:, -1]


CASES = {"dense": dense, "convolutions": convolutions, "transformer": transformer, "recurrent": recurrent}


def training(case, number, steps=3):
    """Return the bytes of all that a training makes, with so many threads."""
    global random
    random = numpy.random.default_rng(0)
    net, x, y = case()
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(1e-2))

    def step(net, state, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), loss

    step, state, curve = xpnet.jit(step, donate=("net", "state")), optimizer.init(net), []
    with xpnet.use_threads(number):
        for _ in range(steps):
            net, state, loss = step(net, state, x, y)
            curve.append(loss)
    arrays = [x for x in xpnet.tree.leaves((net, state, curve)) if hasattr(x, "tobytes")]
    return b"".join(x.tobytes() for x in arrays)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bits_are_those_of_one_thread(case):
    expected = training(case, 1)
    for number in (2, 4, 2, 1):
        assert training(case, number) == expected


def work(size=64):
    """Return a function that is divided, what it is called with, and what it gives."""
    x, y = (random.integers(-4, 5, (size, size)).astype("float32") for _ in range(2))
    return xpnet.jit(lambda x, y: (x @ y + 1) @ y * 2), (x, y), (x @ y + 1) @ y * 2


def check(function, arguments, expected, times=1, number=4):
    with xpnet.use_threads(number):
        for _ in range(times):
            numpy.testing.assert_array_equal(function(*arguments), expected)


def workers():
    return [thread.name for thread in threading.enumerate()].count("xpnet")


def wait_for_workers(number):
    """They enter themselves."""
    while pool().words[of_pool.WORKERS] < number:
        time.sleep(1e-3)


def tables(function):
    """Return the tables of the plan that a function was replayed with."""
    (replay,) = function._recordings[0].plan._idle
    return [x for name, x in sorted(replay.__globals__.items()) if name.startswith("steps_")]


def parts_of(function):
    """Return the parts of each round."""
    return [parts for each in tables(function) for parts in each._stretch._rounds]


def go_in_threads(*functions):
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as executor:
        for future in [executor.submit(function) for function in functions]:
            future.result()


def test_workers_do_parts():
    """Else one thread would be compared with itself."""
    function, arguments, expected = work(200)
    inside = set()

    def look():
        while not done.is_set():
            for number in numpy.flatnonzero(pool().words[of_pool.OWN + of_pool.INSIDE :: of_pool.WORKER]):
                inside.add(int(number))

    done = threading.Event()
    looking = threading.Thread(target=look)
    looking.start()
    try:
        end = time.monotonic() + 20
        while not inside and time.monotonic() < end:
            check(function, arguments, expected)
    finally:
        done.set()
        looking.join()
    assert inside
    assert pool().size == 4


def test_there_are_as_many_threads_as_parts():
    function, arguments, expected = work(200)
    pool().stop()
    pool().most = 1
    check(function, arguments, expected, number=64)
    assert pool().size == pool().most == max(map(len, parts_of(function))) > 1


def test_one_plan_in_several_threads():
    some = work()
    go_in_threads(*[lambda: check(*some, times=200)] * 8)


def test_several_plans_in_several_threads():
    go_in_threads(*(partial(check, *work(size), times=100) for size in (8, 30, 64, 65, 100, 128)))


def test_eighty_threads_that_multiply_at_once():
    some = work(90)
    go_in_threads(*[lambda: check(*some, times=20, number=64)] * 80)


def test_many_tables_come_and_go():
    """Workers may look at one that was just gone through, when it is freed."""
    for size in range(2, 40):
        check(*work(size), times=3)
        gc.collect()
    assert len(pool()._kept) <= pool().size


@pytest.mark.parametrize("number", [1, 2, 4])
def test_what_stops_a_table_is_the_first_of_all(number):
    def f(x, i, j):
        xp = xpnet.array_namespace(x)
        return xp.take(x + 1, i, axis=0), xp.take(x * 2, j, axis=0)

    function = xpnet.jit(f)
    x, good = numpy.ones((64, 8), "float32"), numpy.arange(64)
    wrong = good.copy()
    wrong[[20, 50]] = 777, 888
    with xpnet.use_threads(number):
        function(x, good, good)
        for _ in range(300):
            with pytest.raises(IndexError, match="received 777"):
                function(x, wrong, good)
            with pytest.raises(IndexError, match="received 777"):
                function(x, good, wrong)
            assert (function(x, good, good)[1] == 2).all()


def test_denormal_numbers_are_zero_in_all_threads():
    tiny = numpy.full(100_000, 1e-39, "float32")
    function = xpnet.jit(lambda x: x * 1 + x)
    with xpnet.use_threads(4):
        for _ in range(20):
            assert not function(tiny).any()
    wait_for_workers(3)
    settings = pool().words[of_pool.OWN + of_pool.SETTINGS + 1 :: of_pool.WORKER][:3]
    assert (settings & native.FLUSH == native.FLUSH).all()
    assert (tiny * 1).all()


def test_one_thread_if_others_take_longer():
    """It is tried again later, and then for longer and longer not."""
    words = pool().words
    words[of_pool.LEARNS] = 1
    before, words[of_pool.SPIN] = words[of_pool.SPIN], 20 * 10**9  # awake all the time
    try:
        function, arguments, expected = work(300)
        check(function, arguments, expected, number=2)
        used = tables(function)[0]._words
        end = time.monotonic() + 20
        while not used[table.AGAIN] and time.monotonic() < end:
            used[table.ALONE] = 1  # which no one is faster than
            check(function, arguments, expected, number=2)
        assert used[table.PENALTY] > 0
        used[table.AGAIN] += 3600 * 10**9
        runs = int(used[table.RUN])
        check(function, arguments, expected, times=20, number=2)
        assert used[table.RUN] == runs
    finally:
        words[of_pool.SPIN] = before


def test_threads_that_have_nothing_to_do_sleep():
    check(*work(), times=10)
    time.sleep(0.1)
    sleeping = pool().words[of_pool.OWN + of_pool.SLEEPS :: of_pool.WORKER][: workers()]
    assert sleeping.all()
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    check(*work(), times=10)


def test_ctrl_c_is_heard():
    function, arguments, expected = work(1500)
    check(function, arguments, expected)
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which some programs ignore
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            check(function, arguments, expected, times=500)
    finally:
        signal.signal(signal.SIGINT, before)
    check(function, arguments, expected)


# -- forks --------------------------------------------------------------------------------------------------


def in_child(function, threads="error"):
    """Call a function in a forked process, and return how that ended.

    Python 3.12 and newer warn of threads that are alive: that is an error, or to "ignore".
    """
    with warnings.catch_warnings():
        warnings.simplefilter(threads)
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # the end of a process that hangs
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@forks
def test_forks_before_and_behind_replays():
    some = work()
    for _ in range(5):
        assert in_child(lambda: check(*some, times=5)) == 0
        check(*some, times=5)
    assert in_child(lambda: in_child(lambda: check(*some)) == 0 or os._exit(3)) == 0


@forks
def test_forks_during_a_replay_of_another_thread():
    some, ended = work(400), threading.Event()
    check(*some)  # what is recorded, NumPy does, and a fork meanwhile can stop its threads for good

    def go_on():
        while not ended.is_set():
            check(*some)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: check(*some, times=3), threads="ignore") == 0
    finally:
        ended.set()
        thread.join()


@forks
def test_no_warning_of_threads_at_a_fork():
    """BLAS's own are stopped by itself. Some of these may not yet have entered."""
    some = work()
    for times in (5, 1, 1, 1, 1, 1):
        check(*some, times=times)
        assert pool().size > 1
        assert in_child(lambda: None) == 0
        assert workers() == 0


@forks
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_before_a_fork(monkeypatch):
    """Both can begin threads."""

    class Interrupted(threading.Thread):
        def join(self, timeout=None):
            if interrupts:
                interrupts.pop()
                raise KeyboardInterrupt
            super().join(timeout)

    def go():
        check(*work(), times=5)
        wait_for_workers(3)

    interrupts = []
    pool().stop()
    monkeypatch.setattr(threading, "Thread", Interrupted)
    for _ in range(3):
        go()
        interrupts.append(1)
        assert in_child(go, threads="ignore") == 0
        assert not interrupts
    go()


def test_a_fork_waits_for_callers_and_callers_for_it():
    """BLAS has a lock: a child of a process with a thread that holds it would wait for ever."""
    function, arguments, expected = work(400)
    check(function, arguments, expected)
    callers, went_on = pool().words[of_pool.CALLERS :][:1], []

    def go_on():
        while not ended.is_set():
            check(function, arguments, expected)
            went_on.append(1)

    ended = threading.Event()
    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            while not callers:
                time.sleep(1e-4)
            pool()._before_fork()
            try:
                before = len(went_on)
                time.sleep(0.02)
                assert not callers[0]
                assert len(went_on) - before <= len(threads)  # who was through and had not yet said so
            finally:
                pool()._after_fork()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not callers[0]
    check(function, arguments, expected)


def twice(x):
    return xpnet.jit(lambda x: x @ x)(x)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    x = random.integers(-3, 4, (64, 64)).astype("float32")
    check(twice, (x,), x @ x)
    with multiprocessing.get_context(method).Pool(2) as processes:
        for found in processes.map(twice, [x] * 4):
            numpy.testing.assert_array_equal(found, x @ x)
    check(twice, (x,), x @ x)


def threads_here(_):
    return xpnet.get_threads()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_of_joblib(backend, monkeypatch):
    joblib = pytest.importorskip("joblib")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    x = random.integers(-3, 4, (64, 64)).astype("float32")
    for found in joblib.Parallel(2, backend)(joblib.delayed(twice)(x) for _ in range(4)):
        numpy.testing.assert_array_equal(found, x @ x)
    if backend == "loky":  # which divides the processors among its workers
        with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
            assert joblib.Parallel()(joblib.delayed(threads_here)(n) for n in range(2)) == [1, 1]


# -- the end of a program -----------------------------------------------------------------------------------

PROGRAM = """
import os, sys, threading, time
import numpy, xpnet
from xpnet.replay.plans import pool, rounds
rounds.WORTH_IT, rounds.SHORTEST = 0, 1
xpnet.set_threads(4)
pool.pool().words[pool.LEARNS] = 0
x = numpy.ones((400, 400), "float32")
f = xpnet.jit(lambda x: x @ x + 1)
assert f(x)[0, 0] == 401
how = sys.argv[1]
if how == "asleep":
    time.sleep(0.05)
elif how == "exit":
    sys.exit(7)
elif how == "error":
    raise RuntimeError("as it should")
elif how == "busy":  # another thread is within a replay
    threading.Thread(target=lambda: [f(x) for _ in iter(int, 1)], daemon=True).start()
    time.sleep(0.05)
elif how == "joined":  # and one that has to come to its end first
    threading.Thread(target=lambda: [f(x) for _ in range(50)]).start()
elif how == "at exit":
    import atexit
    atexit.register(lambda: print(f(x)[0, 0]))
elif how == "signal":
    import signal
    os.kill(os.getpid(), signal.SIGTERM)
"""
ENDS = {"awake": 0, "asleep": 0, "exit": 7, "error": 1, "busy": 0, "joined": 0, "at exit": 0, "signal": -15}


@pytest.mark.parametrize(("how", "expected"), ENDS.items(), ids=ENDS)
def test_programs_come_to_their_end(how, expected, tmp_path):
    ended = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=120)
    assert ended.returncode == expected, ended.stderr
    assert ("as it should" in ended.stderr) == (how == "error")
    assert how == "error" or not ended.stderr
    assert ("401" in ended.stdout) == (how == "at exit")


def test_no_thread_can_be_started(monkeypatch):
    """What the system has no threads for, one thread does."""
    pool().stop()

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        check(*work())
    assert pool().size == 1
    pool()._retry = 0.0
    check(*work())
    assert pool().size == 4


def test_ctrl_c_while_threads_begin_and_end(monkeypatch):
    """No worker is forgotten, and no two have one place."""

    class Interrupted(threading.Thread):
        """Of Python's methods, those that wait."""

        def start(self):
            super().start()
            raise KeyboardInterrupt

        def join(self, timeout=None):
            if interrupts:
                interrupts.pop()
                raise KeyboardInterrupt
            super().join(timeout)

    pool().stop()
    interrupts = [1, 1]
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                pool().grow(3)
    wait_for_workers(2)
    check(*work(), number=3)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pool().stop()
    assert pool().size == 1
    check(*work(), times=10)
    assert workers() == 3


def test_tables_are_freed_while_threads_begin_and_end():
    """By the garbage collector, in whichever thread that is at work."""
    before = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for size in range(10, 30):
            check(*work(size))
            pool().stop()
    finally:
        gc.set_threshold(*before)


def test_threads_end_that_wait_to_enter():
    for size in range(2, 20):
        pool().grow(size)
        assert workers() == size - 1
        pool().stop()
        assert workers() == 0
    check(*work(), times=10)


def test_a_thread_that_did_not_begin_is_not_counted(monkeypatch):
    class Interrupted(threading.Thread):
        def start(self):
            raise KeyboardInterrupt

    pool().stop()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool().grow(2)
    assert pool().size == 1
    check(*work(), number=2)
    assert pool().size == 2


def test_a_table_that_a_worker_looks_at_is_kept():
    words, kept = pool().words, pool()._kept
    pool().stop()
    place = of_pool.OWN + of_pool.INSIDE
    words[place] = 123
    pool().keep(123, "memory")
    pool().keep(456, "other memory")
    assert list(kept) == [(123, "memory")]
    words[place] = 0
    pool().keep(789, "more")
    assert not kept


def test_a_table_is_kept_that_comes_while_it_is_looked_who_is_inside():
    class Words:
        def __getitem__(self, _):
            found = numpy.asarray([1])
            kept.append((2, "of a run that a worker has come into since"))
            return found

    other = object.__new__(of_pool.Pool)
    other.words, other._freeing = Words(), threading.Lock()
    other._kept = kept = collections.deque()
    other.keep(3, "where nobody is")
    assert [table for table, _ in kept] == [2]


def test_threads_that_come_first_at_once_have_one_pool():
    code = """
import threading
from xpnet.replay.plans import pool
found = []
threads = [threading.Thread(target=lambda: found.append(pool.pool())) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(set(map(id, found))))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def test_other_systems_have_none_yet(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    reason = "threads of plans have been tried on Linux alone"
    assert of_pool.why_not() == reason
    recorded = xpnet.jit(lambda x: x @ x + 1)
    recorded(numpy.ones((80, 80), "float32"))
    assert f"Threads: one, as {reason}" in recorded.explain()


def test_the_clock_is_that_of_python():
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(int(pool().words[of_pool.CLOCK]))
    found = numpy.zeros(2, numpy.int64)
    before = time.monotonic()
    assert function(of_pool.MONOTONIC, found.ctypes.data) == 0
    assert before <= found[0] + found[1] / 1e9 <= time.monotonic()
