"""How many threads a plan on the processor may use.

As many as there are processors for this process, unless one of the environment variables that other libraries
are told by says less, or `set_threads` or `use_threads` says something else.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache
from math import ceil
from pathlib import Path

from xpnet import settings
from xpnet.scopes import having

MOST = 64
# The variables that say how many threads the libraries have that plans take the place of.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# How many processes of a group are on this machine, as Open MPI and MPICH say.
_LOCAL_PROCESSES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")

# What Linux says of a group of processes, in the second version of groups and in the first one: how much time
# of processors it has in a period, and the numbers of its processors.
_TIME = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
_PROCESSORS = ("cpuset.cpus.effective",), ("cpuset.effective_cpus",)

_for_all: int | None = None
# The limit of another library, if there is one, and what it was told before.
_most: int | None = None
_without_limit = MOST
_here: ContextVar[int | None] = ContextVar("xpnet_threads", default=None)


def get_threads() -> int:
    """Return how many threads `jit` may use here for what it does on the processor.

    Returns
    -------
    int
        What `use_threads` says, or `set_threads`. Unless one of these does, as many as there are processors:
        those that this process may run on, or fewer where the system lets it have less of their time (a
        container with a limit, say), where the environment variables ``OMP_NUM_THREADS``,
        ``OPENBLAS_NUM_THREADS`` or ``NUMBA_NUM_THREADS`` say so, as the workers of joblib are told, or where
        processes that MPI started share the machine. At most 64. What the system and the environment say
        is read once.

    Notes
    -----
    In a function under `jit`, it is a number like others of Python's: the one that was recorded.

    Examples
    --------
    >>> import xpnet
    >>> with xpnet.use_threads(3):
    ...     print(xpnet.get_threads())
    3
    """
    return min(_here.get() or _for_all or default(), _most or MOST)


def told() -> int:
    """Return how many threads there are to another library, which sets that again when its limit ends."""
    global _without_limit
    if _most is None:
        _without_limit = get_threads()
    return _most or _without_limit


def limit(number: int) -> None:
    """Let there be at most so many threads, whatever the user says; as many again as were told before."""
    global _most
    is_end = _most is not None and number == _without_limit
    _most = None if is_end or number >= MOST else max(1, number)


def set_threads(number: int | None) -> None:
    """Say how many threads `jit` may use for what it does on the processor.

    Results do not depend on it. With 1, everything is done by the thread that calls. What `jit` does not do
    itself, NumPy and its library do with threads of their own, which this does not change.

    Parameters
    ----------
    number : int or None
        From 1 to 64; None for as many as `get_threads` tells by itself.

    Raises
    ------
    ValueError
        If the number is not such an integer.

    See Also
    --------
    use_threads : The same for a ``with`` block.

    Examples
    --------
    >>> import xpnet
    >>> xpnet.set_threads(2)
    >>> xpnet.get_threads()
    2
    >>> xpnet.set_threads(None)
    """
    global _for_all
    _for_all = None if number is None else _checked(number)


def use_threads(number: int) -> AbstractContextManager[None]:
    """Let `jit` use so many threads within a ``with`` block, for calls of the thread that enters it.

    It is for calls of recorded functions: inside one, it has no effect when that is replayed. Threads that
    begin in the block do not inherit it.

    Parameters
    ----------
    number : int
        From 1 to 64.

    Raises
    ------
    ValueError
        If the number is not such an integer.

    See Also
    --------
    set_threads : The same for all that follows, in all threads.

    Examples
    --------
    >>> import numpy
    >>> import xpnet
    >>> double = xpnet.jit(lambda x: x * 2)
    >>> with xpnet.use_threads(1):
    ...     double(numpy.ones(2))
    array([2., 2.])
    """
    return having(_here, _checked(number))


def _checked(number: int) -> int:
    found = settings.count("number", number)
    if found > MOST:
        raise ValueError(f"number must be at most {MOST}; received {number!r}")
    return found


@cache
def default() -> int:
    """Return how many threads there are unless someone says."""
    counts = [MOST, *processors(), *filter(None, map(_number_in, _VARIABLES))]
    local = max(filter(None, map(_number_in, _LOCAL_PROCESSES)), default=1)
    return max(1, min(*counts, time_of() // local))


def processors() -> list[int]:
    """Return how many processors this process may run on, where the system says."""
    return [len(os.sched_getaffinity(0))] if hasattr(os, "sched_getaffinity") else []


def time_of() -> int:
    """Return the time of how many processors there is, for all processes here that MPI started."""
    return min([os.cpu_count() or 1, *_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _number_in(variable: str) -> int | None:
    """Return the positive number that an environment variable begins with; OpenMP's may be a list."""
    text = os.environ.get(variable, "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _limits(root: Path, own: Path) -> list[int]:
    """Return how many processors, or the time of how many, the groups have that this process belongs to."""
    try:
        lines = own.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        # The second version has one tree for all; in the first one, each controller has one of its own.
        is_own = not {"cpu", "cpuset"}.isdisjoint(controllers.split(","))
        for folder in (root / controllers, root) if is_own else (root,):
            inner = folder / group.lstrip("/")
            for each in (inner, *inner.parents):
                if each == folder.parent:
                    break
                found += [*_limit(each)]
    return found


def _limit(folder: Path) -> Iterator[int]:
    for names in _TIME:
        quota, period, *_ = [*_words(folder, names), "", ""]
        if quota.isdecimal() and period.isdecimal() and int(period):  # else there is none: "max", or -1
            yield max(1, ceil(int(quota) / int(period)))
    for names in _PROCESSORS:
        ranges = [each.split("-") for each in ",".join(_words(folder, names)).split(",")]  # 0-3,8
        if all(number.isdecimal() for each in ranges for number in each):
            yield sum(int(each[-1]) - int(each[0]) + 1 for each in ranges)


def _words(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Return the words in some files of a group; none where one of them cannot be read."""
    try:
        return " ".join((folder / name).read_text() for name in names).split()
    except (OSError, ValueError):
        return []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=default.cache_clear)
