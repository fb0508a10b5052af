"""Compiled functions are kept between runs, and nothing that is wrong with their files does harm."""

import contextlib
import ctypes
import hashlib
import importlib
import os
import pickle
import re
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

import xpnet
from xpnet.replay.plans import numba as of_numba
from xpnet.replay.plans import numba_files

numba = pytest.importorskip("numba")
SOURCE = """\
def kernel(x):
    return x * {factor}
"""
ALIVE = []  # functions, as the package lets none go: LLVM has a lock meanwhile, for which no fork waits
REPLAY = Path(xpnet.__file__).parent / "replay"
unix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights, users and forks are those of Unix")


def hits(factor=2):
    """Call a function as a new process would, see that it is right, and say whether it came from a file."""
    return hits_of(numba_files.c_function, factor)


def hits_of(c_function, factor):
    kernel = c_function(SOURCE.format(factor=factor), "int64")
    ALIVE.append(kernel)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(kernel.address)(7) == 7 * factor
    return kernel.cache_hits


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The folder that XPNET_CACHE_DIR names, for a process that has not complained yet."""
    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(numba_files, "_said", False)
    forget()
    yield tmp_path
    forget()


def forget():
    """Let this process have compiled nothing."""
    for cached in (of_numba.native, of_numba.driver):
        cached.cache_clear()


def files(base):
    return sorted((base / "kernels").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file as it should be."""
    base = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XPNET_CACHE_DIR", str(base))
        hits()
    (file,) = files(base)
    return file


@pytest.fixture
def file(base, whole):
    """The place of the file, in a folder that is used."""
    return numba_files.private(base / "kernels") / whole.name


class Code:
    """What makes a directory when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def with_digest(name, data):
    return hashlib.sha256(name.encode() + data).digest() + data


def write(file, data):
    file.write_bytes(data)
    file.chmod(0o600)


def test_functions_are_kept_between_runs(base, caplog):
    assert hits() == 0
    assert hits() == 1
    assert hits(factor=3) == 0
    assert len(files(base)) == 2
    assert not caplog.records


def test_loops_of_plans_are_kept(base):
    x = numpy.arange(5.0)
    for expected in (0, 1):
        forget()
        f = xpnet.jit(lambda x: (x + 0.125) * 0.375 - x)
        numpy.testing.assert_array_equal(f(x), (x + 0.125) * 0.375 - x)
        (kernel,) = [x for x in f._recordings[0].plan._text.constants.values() if hasattr(x, "cache_hits")]
        assert kernel.cache_hits == expected
    assert len(files(base)) == 3  # with what goes through tables, and looks at arguments


def imported(text):
    """The modules of xpnet.replay that a text imports, or imports from."""
    for module, name in re.findall(r"^from xpnet\.replay\.([\w.]+) import \(?\s*(\w+)", text, re.MULTILINE):
        paths = [f"{path.replace('.', '/')}.py" for path in (module, f"{module}.{name}")]
        yield next(path for path in paths if (REPLAY / path).is_file())


def test_what_compiled_code_contains_is_compared():
    """A change in a module whose functions or numbers numba compiles into others has all compiled anew."""
    of_python = {f"plans/{name}.py" for name in ("blas", "controller", "matrices", "numba", "rounds")}
    texts = [(REPLAY / path).read_text("utf-8") for path in of_numba._MODULES if path != "plans/table.py"]
    found = {path for text in [of_numba._HEADER, *texts] for path in imported(text)}
    assert (found | {"plans/native_pool.py"}) - of_python == set(of_numba._MODULES)


def test_functions_in_compiled_code_have_names_of_their_own():
    """Where two files have functions of one name, the process that reads both calls one of them for both."""
    found = {}
    for path in of_numba._MODULES:
        module = importlib.import_module(f"xpnet.replay.{path.removesuffix('.py').replace('/', '.')}")
        for each in vars(module).values():
            if isinstance(each, numba.core.dispatcher.Dispatcher):
                name = each.py_func.__module__, each.py_func.__qualname__
                found.setdefault(name, set()).add(each)
    assert len(found) > 30
    assert not {name for name, functions in found.items() if len(functions) > 1}


DAMAGE = {
    "empty": lambda _: b"",
    "a part of the digest": lambda data: data[:10],
    "only the digest": lambda data: data[:32],
    "half": lambda data: data[: len(data) // 2],
    "a byte short": lambda data: data[:-1],
    "a byte longer": lambda data: data + b"\0",
    "a bit of the digest": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit of the code": lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    "random": lambda data: numpy.random.default_rng(0).bytes(len(data)),
    "zeros": lambda data: bytes(len(data)),
    "of another function": lambda data: with_digest("another", data[32:]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_compiled_and_written_anew(file, whole, caplog, damage):
    write(file, damage(whole.read_bytes()))
    assert hits() == 0
    assert hits() == 1
    assert files(file.parents[1]) == [file]
    assert not caplog.records


def test_a_file_that_numba_cannot_read_is_compiled_and_written_anew(file, caplog):
    write(file, with_digest(file.name, b"no pickle"))
    assert hits() == 0
    assert hits() == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_directory_in_the_place_of_a_file_does_no_harm(file, caplog):
    file.mkdir()
    assert hits() == 0
    assert hits() == 0
    assert files(file.parents[1]) == [file]
    assert len(caplog.records) == 1


def test_nothing_is_unpickled_before_its_digest_is_compared(file, tmp_path):
    code = pickle.dumps(Code(tmp_path / "run"))
    write(file, bytes(32) + code)
    assert hits() == 0
    assert not (tmp_path / "run").exists()
    write(file, with_digest(file.name, code))  # a digest is no signature: whoever can write can run code
    assert hits() == 0
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (sys, "version", "3.99"),
        (numba, "__version__", "0.99"),
        (numba.config, "USING_SVML", "another"),
        (numba.core.codegen.CPUCodegen, "magic_tuple", lambda _: ("another", "processor", "+features")),
    ],
    ids=["Python", "numba", "vector functions", "processor"],
)
def test_other_machine_code_is_in_another_file(file, whole, monkeypatch, where, name, value):
    shutil.copy(whole, file)
    monkeypatch.setattr(where, name, value)
    assert hits() == 0
    assert len(files(file.parents[1])) == 2
    monkeypatch.undo()
    monkeypatch.setenv("XPNET_CACHE_DIR", str(file.parents[1]))
    assert hits() == 1


def test_other_arguments_are_in_another_file(base):
    for dtype in ("int32", "int64"):
        numba_files.c_function(SOURCE.format(factor=2), dtype)
    assert len(files(base)) == 2


def in_memory(caplog, reason):
    """See that functions are compiled all the same, which is said once."""
    for factor in (2, 3):
        assert hits(factor) == 0
    (record,) = caplog.records
    assert record.name == "xpnet"
    assert "a loop is compiled in memory" in record.message
    assert reason in record.message
    assert "XPNET_CACHE_DIR" in record.message
    assert "\n" not in record.message


def test_a_file_in_the_place_of_the_folder(base, caplog):
    (base / "kernels").write_text("")
    in_memory(caplog, "File exists")
    assert (base / "kernels").read_text() == ""


def test_a_folder_beneath_a_file(base, monkeypatch, caplog):
    (base / "file").write_text("")
    monkeypatch.setenv("XPNET_CACHE_DIR", str(base / "file" / "more"))
    in_memory(caplog, "Not a directory")


@unix
def test_a_user_without_a_home(base, monkeypatch, caplog):
    import pwd

    def unknown(_):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("XPNET_CACHE_DIR")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    in_memory(caplog, "home directory")


def test_the_folder_in_a_home(base, monkeypatch):
    monkeypatch.delenv("XPNET_CACHE_DIR")
    monkeypatch.setattr(Path, "home", lambda: base)
    hits()
    assert len(files(base / ".cache" / "xpnet")) == 1


@unix
def test_a_folder_without_the_right_to_write(file, caplog):
    file.parent.chmod(0o500)
    root = os.geteuid() == 0  # who may write everywhere
    if root:
        os.chown(file.parent, 65534, -1)
        os.seteuid(65534)
    try:
        in_memory(caplog, "Permission denied")
    finally:
        if root:
            os.seteuid(0)
        file.parent.chmod(0o700)
    assert list(file.parent.iterdir()) == []


@unix
def test_a_full_disk(file, caplog):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))  # as a full disk, an error of write()
    try:
        in_memory(caplog, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(file.parent.iterdir()) == []


@unix
@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022])
def test_only_the_user_may_write(base, mask):
    before = os.umask(mask)
    try:
        assert hits() == 0
        assert hits() == 1
    finally:
        os.umask(before)
    (file,) = files(base)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@unix
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_to_which_others_may_write_is_not_used(file, tmp_path, caplog, mode):
    write(file, with_digest(file.name, pickle.dumps(Code(tmp_path / "run"))))
    before = file.read_bytes()
    file.parent.chmod(mode)
    in_memory(caplog, "no one else may write to it")
    assert not (tmp_path / "run").exists()
    assert files(tmp_path) == [file]
    assert file.read_bytes() == before


@unix
def test_a_folder_of_another_user_is_not_used(file, whole, monkeypatch, caplog):
    shutil.copy(whole, file)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    in_memory(caplog, "must belong to this user")
    assert files(file.parents[1]) == [file]


@unix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_to_which_others_may_write_is_not_used(file, tmp_path, caplog, mode):
    file.write_bytes(with_digest(file.name, pickle.dumps(Code(tmp_path / "run"))))
    file.chmod(mode)
    in_memory(caplog, "no one else may write to it")
    assert not (tmp_path / "run").exists()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600  # written anew
    assert hits() == 1


@pytest.mark.parametrize("name", ["geteuid", "register_at_fork"])
def test_systems_without_users_and_forks(base, monkeypatch, name):
    monkeypatch.delattr(os, name, raising=False)
    names = runpy.run_path(numba_files.__file__)
    for expected in (0, 1):
        assert hits_of(names["c_function"], 2) == expected


@unix
@pytest.mark.filterwarnings("ignore:.*fork")  # Python and JAX warn where there are other threads
def test_a_fork_waits_for_what_another_thread_compiles(base, monkeypatch):
    inside, go = threading.Event(), threading.Event()
    load = numba_files._Files.load_overload

    def pause(*arguments):
        inside.set()
        go.wait()
        return load(*arguments)

    monkeypatch.setattr(numba_files._Files, "load_overload", pause)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(hits, 2)
        inside.wait()
        # What is registered later is called earlier: the thread goes on once the fork has begun.
        os.register_at_fork(before=go.set)
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # the end of a process that hangs
            try:
                hits(3)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert first.result() == 0


FORK = """
import os, sys, threading
import numpy
import xpnet
from xpnet.replay.plans import numba_files

where = sys.argv[1]
inside, go = threading.Event(), threading.Event()

def pause(*_):
    if threading.current_thread() is thread:
        inside.set()
        go.wait()

def pause_before(owner, name):
    original = getattr(owner, name)
    setattr(owner, name, lambda *arguments: (pause(), original(*arguments))[1])

if where == "import":
    class Pause:
        def find_spec(self, name, path, target=None):
            if name == "numba.core.typing":
                pause()
    sys.meta_path.insert(0, Pause())
elif where == "target":
    from numba.core.cpu import CPUContext
    pause_before(CPUContext, "init")
else:
    pause_before(numba_files._Files, where)
os.register_at_fork(before=go.set)

x = numpy.arange(5.0)
f = xpnet.jit(lambda x: (x + 0.125) * 0.375 - x)
thread = threading.Thread(target=f, args=(x,))
thread.start()
inside.wait()
child = os.fork()
g = xpnet.jit(lambda x: (x - 0.5) * 0.75 + x)
for _ in range(2):
    numpy.testing.assert_array_equal(f(x), (x + 0.125) * 0.375 - x)
    numpy.testing.assert_array_equal(g(x), (x - 0.5) * 0.75 + x)
if child == 0:
    os._exit(0)
thread.join()
print("child:", os.waitpid(child, 0)[1])
"""


@unix
@pytest.mark.slow
@pytest.mark.parametrize("where", ["import", "target", "load_overload", "save_overload"])
def test_a_fork_while_another_thread_is_at_work_in_numba(base, where):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, where]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=100)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also a child that hangs
    assert said == "child: 0\n"
