"""Threads that go through tables together: their memory, and how they begin and end.

What they do says `native_pool.py`. They are threads of Python's, each of which runs one function of native
code for ever, and needs the interpreter for nothing. They begin when a table first asks for them, and end
before this process forks, and at its exit.
"""

import atexit
import contextlib
import ctypes
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy

from xpnet import threads
from xpnet.replay.plans import controller, numba, numba_files

# Words that are read only: addresses of functions that let another thread run, tell the time, and acquire and
# release a lock; for how many nanoseconds a worker stays awake without work; how often a thread looks whether
# others are done before it lets others run; how many nanoseconds of work it takes to wake workers; and
# whether it is learned who is faster.
YIELD, CLOCK, ACQUIRE, RELEASE, SPIN, PATIENCE, LEAST_IF_ASLEEP, LEARNS = range(8)
# How many workers there are; whether a table is gone through together, and which one; when the last one was
# done with; how many callers go through tables; and whether none may begin to. Each has a line of the cache.
WORKERS, BUSY, TABLE, LAST_END, CALLERS, HELD = 8, 16, 24, 32, 40, 48
# Of each worker: how often it was rung, whether it sleeps, or must stop, and its lock; and in the next line
# which table it is in, the processor's settings for arithmetic as they were and are, and words for the clock.
OWN = 56
RINGS, SLEEPS, STOP, LOCK = range(4)
INSIDE, SETTINGS, TIME, WORKER = 8, 9, 11, 16

MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 0)


def why_not() -> str:
    """Return why plans have no threads of their own; "" if they may."""
    return "" if sys.platform == "linux" else "threads of plans have been tried on Linux alone"


class Pool:
    """The threads of this process.

    Whatever interrupts a method, and in whichever thread the garbage collector frees a table, what is said
    here of the threads is true: each is noted before it begins, enters itself, and has its place until it has
    ended.

    Attributes
    ----------
    words : numpy.ndarray
        What they share with those who go through tables.
    size : int
        How many threads there are or will soon be, with the one that calls.
    most : int
        How many the tables have use for.
    """

    def __init__(self) -> None:
        length = OWN + WORKER * threads.MOST
        memory = numpy.zeros(length + 8, numpy.int64)
        self.words = memory[-memory.ctypes.data % 64 // 8 :][:length]
        self.size = self.most = 1
        libc, python = ctypes.CDLL(None), ctypes.pythonapi
        for word, function in (
            (YIELD, libc.sched_yield),
            (CLOCK, libc.clock_gettime),
            (ACQUIRE, python.PyThread_acquire_lock),
            (RELEASE, python.PyThread_release_lock),
        ):
            self.words[word] = ctypes.cast(function, ctypes.c_void_p).value or 0
        self.words[[SPIN, PATIENCE, LEAST_IF_ASLEEP, LEARNS]] = 100_000, 500, 1_000_000, 1
        self._lock = threading.RLock()
        self._workers: list[threading.Thread] = []  # since the last stop
        self._ending: list[threading.Thread] = []  # which were told to stop
        self._generation = 0  # how often that was
        self._places = 0  # how many of them have entered
        self._retry = 0.0  # when threads may be asked for again
        self._kept: deque[tuple[int, Any]] = deque()
        self._freeing = threading.Lock()
        # Their addresses are valid as long as they are there.
        self._compiled = [
            numba.native(f"from xpnet.replay.plans.native_pool import {name} as kernel", "int64", "int64")
            for name in ("work", "ring", "hold")
        ]
        of_two = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        self._work, self._ring, self._hold = (of_two(each.address) for each in self._compiled)
        controller.register()
        atexit.register(self.close)
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
        )

    @property
    def address(self) -> int:
        """Where the words are."""
        return int(self.words.ctypes.data)

    def grow(self, size: int) -> None:
        """Let there be so many threads, as far as the system has them."""
        with self._lock:
            self._wait_for_ending()
            while self.size < size and time.monotonic() >= self._retry:
                worker = threading.Thread(
                    target=self._live, args=(self._generation,), name="xpnet", daemon=True
                )
                self._workers.append(worker)
                try:
                    worker.start()
                except RuntimeError:  # there can be no more now, or the interpreter ends
                    self._retry = time.monotonic() + 1
                finally:
                    if worker.ident is None:
                        self._workers.remove(worker)
                    self.size = 1 + len(self._workers)

    def stop(self) -> None:
        """End all threads, each when it is done with its part."""
        with self._lock:
            self._generation += 1
            self.size, self.words[WORKERS] = 1, 0
            self._ending, self._workers = [*self._ending, *self._workers], []
            self._wait_for_ending()

    def close(self) -> None:
        """End all threads for good."""
        with self._lock:
            self._retry = math.inf
            self.stop()

    def keep(self, table: int, memory: Any) -> None:
        """Keep the memory of a table that no one goes through any more, until no worker looks at it.

        The garbage collector calls it, at any moment in any thread: it waits for nobody.
        """
        self._kept.append((table, memory))
        if self._freeing.acquire(blocking=False):
            try:
                count = len(self._kept)  # of those that come later, it is not looked who is inside
                inside = {*self.words[OWN + INSIDE :: WORKER].tolist()}
                for _ in range(count):
                    if self._kept[0][0] in inside:
                        self._kept.rotate(-1)
                    else:
                        self._kept.popleft()
            finally:
                self._freeing.release()

    def _live(self, generation: int) -> None:
        """Be a worker."""
        while not self._lock.acquire(timeout=1e-3):
            if generation != self._generation:  # who has the lock waits for the end of this thread
                return
        try:
            if generation != self._generation:
                return
            number = self._places
            own = self.words[OWN + WORKER * number :][:WORKER]
            lock = own[LOCK] or _new_lock()
            own[:] = 0
            own[LOCK] = lock
            self._places = self.words[WORKERS] = number + 1
        finally:
            self._lock.release()
        self._work(self.address, number)

    def _wait_for_ending(self) -> None:
        """Let those end that were told to stop. Until then their places are taken."""
        if not self._ending:
            return
        for number in range(self._places):
            self.words[OWN + WORKER * number + STOP] = 1
            self._ring(self.address, number)
        for worker in self._ending:
            worker.join()
            while os.path.exists(f"/proc/self/task/{worker.native_id}"):  # Python looks there at a fork
                time.sleep(1e-5)
        self._ending, self._places = [], 0

    def _before_fork(self) -> None:
        """End all threads, and wait until nobody goes through a table: locks of BLAS would stay locked."""
        self._lock.acquire()
        while self._hold(self.address, 1):
            time.sleep(1e-5)
        self.stop()

    def _after_fork(self) -> None:
        self.words[HELD] = 0
        with contextlib.suppress(RuntimeError):  # it is not held if Ctrl-C was pressed meanwhile
            self._lock.release()

    def _in_child(self) -> None:
        # What another thread was about has no one here who goes on with it.
        self.words[[BUSY, TABLE, WORKERS, CALLERS, HELD]] = self.words[OWN + INSIDE :: WORKER] = 0
        self._workers, self._ending, self._places, self.size = [], [], 0, 1
        self._generation += 1
        self._lock, self._freeing = threading.RLock(), threading.Lock()


def _new_lock() -> int:
    """Return the address of a lock of the interpreter's that is held."""
    allocate, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype, acquire.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]
    lock = allocate()
    acquire(lock, 1)
    return int(lock)


def pool() -> Pool:
    """Return the threads of this process."""
    with numba_files.lock:  # for which a fork waits
        return _pool()


_pool = cache(Pool)


def driver() -> Callable[[int, tuple], int]:
    """Return what goes through a table with as many threads as pay, see `native_pool.run_together`."""
    with numba_files.lock:
        return _driver()


@cache
def _driver() -> Callable[[int, tuple], int]:
    text = "from xpnet.replay.plans.native_pool import run_together as kernel"
    compiled = numba.native(text, "int64", "int64", "int64")
    types = (ctypes.c_int64, ctypes.c_int64, ctypes.py_object, ctypes.c_int64)
    run = ctypes.CFUNCTYPE(*types)(compiled.address)
    vars(run)["compiled"] = compiled  # whose address is valid as long as it is there
    ours, number_of = _pool(), threads.get_threads

    def run_together(table: int, arrays: tuple) -> int:
        number = min(number_of(), ours.most)
        if number > ours.size:
            ours.grow(number)
        return run(table, arrays, number)

    return run_together
