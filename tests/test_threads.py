"""How many threads there are: what the system and the environment say, and what the user does."""

import os
import subprocess
import sys
import threading

import numpy
import pytest

import xpnet
from xpnet import threads

VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"
LOCAL = "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    """Nothing says how many threads there are, on a machine with 16 processors."""
    for name in (*VARIABLES, *LOCAL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "processors", lambda: [16])
    monkeypatch.setattr(threads, "time_of", lambda: 16)
    for name in ("_for_all", "_most"):
        monkeypatch.setattr(threads, name, None)
    threads.default.cache_clear()
    yield
    threads.default.cache_clear()


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize(("value", "expected"), [
    ("1", 1), (" 3 ", 3), ("4,2", 4), ("99", 16), ("0", 16), ("-1", 16), ("", 16), ("many", 16), ("2.5", 16),
])  # fmt: skip
def test_variables_of_the_environment(name, value, expected, monkeypatch):
    monkeypatch.setenv(name, value)
    assert xpnet.get_threads() == expected


def test_the_least_of_them_holds(monkeypatch):
    for name, value in zip(VARIABLES, "437", strict=True):
        monkeypatch.setenv(name, value)
    assert xpnet.get_threads() == 3


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize(("value", "expected"), [("1", 16), ("2", 8), ("5", 3), ("40", 1)])
def test_processes_of_mpi_share_the_processors(name, value, expected, monkeypatch):
    monkeypatch.setenv(name, value)
    assert xpnet.get_threads() == expected


def test_processors_that_mpi_chose_for_a_process_are_not_divided_again(monkeypatch):
    monkeypatch.setenv(LOCAL[0], "4")
    monkeypatch.setattr(threads, "processors", lambda: [4])
    assert xpnet.get_threads() == 4


def test_there_are_at_most_64(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: [256])
    monkeypatch.setattr(threads, "time_of", lambda: 256)
    assert xpnet.get_threads() == 64


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
def test_processors_that_this_process_may_run_on():
    code = "import os; os.sched_setaffinity(0, {0}); import xpnet; print(xpnet.get_threads())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"": {"cpu__max": "250000 100000\n"}}, [3]),
        ("0::/\n", {"": {"cpu__max": "max 100000\n"}}, []),
        ("0::/a/b\n", {"a": {"cpu__max": "400000 100000"}, "a/b": {"cpu__max": "max 100000"}}, [4]),
        ("0::/a/b\n", {"a": {"cpu__max": "20000 100000"}, "a/b": {"cpu__max": "200000 100000"}}, [2, 1]),
        (
            "5:cpu,cpuacct:/a\n0::/\n",
            {"cpu,cpuacct/a": {"cpu__cfs_quota_us": "150000\n", "cpu__cfs_period_us": "100000\n"}},
            [2],
        ),
        ("5:cpu:/\n", {"cpu": {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}}, []),
        ("0::/gone\n", {"": {"cpu__max": "nothing of use"}}, []),
        ("0::/a\n", {"a": {"cpuset__cpus__effective": "0-3,8\n", "cpu__max": "max 100000\n"}}, [5]),
        ("0::/a\n", {"a": {"cpuset__cpus__effective": "7\n", "cpu__max": "200000 100000\n"}}, [2, 1]),
        ("0::/a\n", {"a": {"cpuset__cpus__effective": "\n"}}, []),
        ("4:cpuset:/a\n", {"cpuset/a": {"cpuset__effective_cpus": "2-3\n"}}, [2]),
        ("no group\n0::/\udcff\n", {"": {"cpu__max": "100000 100000"}}, [1]),
        ("", {}, []),
    ],
)
def test_limits_of_groups_of_processes(own, files, expected, tmp_path):
    root = tmp_path / "cgroup"
    for folder, those in files.items():
        write(root / folder, **those)
    (tmp_path / "own").write_text(own, "utf-8", "surrogateescape")
    assert threads._limits(root, tmp_path / "own") == expected


def test_no_groups_of_processes(tmp_path):
    assert threads._limits(tmp_path, tmp_path / "none") == []


def test_what_the_user_says():
    xpnet.set_threads(5)
    assert xpnet.get_threads() == 5
    with xpnet.use_threads(2):
        assert xpnet.get_threads() == 2
        with xpnet.use_threads(numpy.int64(3)):
            assert xpnet.get_threads() == 3
        seen = []
        thread = threading.Thread(target=lambda: seen.append(xpnet.get_threads()))
        thread.start()
        thread.join()
        assert seen == [5]
        xpnet.set_threads(64)
        assert xpnet.get_threads() == 2
    assert xpnet.get_threads() == 64
    xpnet.set_threads(None)
    assert xpnet.get_threads() == 16


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "2", 65])
def test_what_is_no_number_of_threads(wrong):
    xpnet.set_threads(3)
    for function in (xpnet.set_threads, lambda number: xpnet.use_threads(number).__enter__()):
        with pytest.raises(ValueError, match="number must be"):
            function(wrong)
        assert xpnet.get_threads() == 3


def test_threadpoolctl_sees_and_limits_them():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    from xpnet.replay.plans import products

    if products.one_thread():
        pytest.skip(products.one_thread())
    from xpnet.replay.plans.pool import pool

    pool()
    before = threadpoolctl.threadpool_info()
    assert [each["num_threads"] for each in before if each["internal_api"] == "xpnet"] == [16]
    with threadpoolctl.threadpool_limits(1):
        assert xpnet.get_threads() == 1
    assert xpnet.get_threads() == 16
    with xpnet.use_threads(2), threadpoolctl.threadpool_limits(3):
        assert xpnet.get_threads() == 2
        with xpnet.use_threads(8):
            assert xpnet.get_threads() == 3
    with threadpoolctl.threadpool_limits(3):
        with xpnet.use_threads(2), threadpoolctl.threadpool_limits(1):
            assert xpnet.get_threads() == 1
        assert xpnet.get_threads() == 3
        with threadpoolctl.threadpool_limits(4):
            assert xpnet.get_threads() == 4
        assert xpnet.get_threads() == 3
    xpnet.set_threads(20)
    with threadpoolctl.threadpool_limits(3):
        assert xpnet.get_threads() == 3
        xpnet.set_threads(30)
        assert xpnet.get_threads() == 3
    assert xpnet.get_threads() == 30
    with xpnet.use_threads(2):
        limits = threadpoolctl.threadpool_limits(1)
    limits.restore_original_limits()
    assert xpnet.get_threads() == 30
    xpnet.set_threads(None)
    assert xpnet.get_threads() == 16
    # NumPy's own library is limited beside it, and has its threads again.
    assert threadpoolctl.threadpool_info() == before


def test_threadpoolctl_sees_them_when_the_copy_of_openblas_is_gone(tmp_path):
    """As another process, which began at the same time, puts its own in the place."""
    pytest.importorskip("threadpoolctl")
    from xpnet.replay.plans import products

    if products.one_thread():
        pytest.skip(products.one_thread())
    code = """
import os, shutil, threadpoolctl
from xpnet.replay.plans import products
from xpnet.replay.plans.pool import pool
pool()
products.one_thread()  # which loads the copy
shutil.rmtree(os.environ["XPNET_CACHE_DIR"])
print([each["user_api"] for each in threadpoolctl.threadpool_info() if each["internal_api"] == "xpnet"])
"""
    environment = os.environ | {"XPNET_CACHE_DIR": str(tmp_path / "cache")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.stdout == "['blas']\n"


SUB_INTERPRETER = """
import sys
name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
interpreters = __import__(name)
run = getattr(interpreters, "exec", None) or interpreters.run_string
print(run(interpreters.create(), "import xpnet"))
"""


def test_sub_interpreters_are_refused():
    ended = subprocess.run(
        [sys.executable, "-c", SUB_INTERPRETER], capture_output=True, text=True, timeout=60
    )
    assert (
        "xpnet must be imported in the interpreter that the process began with" in ended.stdout + ended.stderr
    )
