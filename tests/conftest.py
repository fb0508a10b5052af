"""The libraries that the suite runs on: every test that asks for ``xp`` runs once on each."""

import contextlib
import gc
import os
import subprocess
import sys
import types
from itertools import groupby
from zlib import crc32

import pytest
from stand_ins import FakeCupy

# SciPy takes arrays of other libraries only if asked before it is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import xpnet
from xpnet import backends
from xpnet.errors import DeviceUnavailableError

# The device specs that stand for a library. The second device of array-api-strict refuses arrays of the
# first, so running there shows that nothing is created on the default device.
SPECS = {"numpy": "cpu", "strict": "strict:device1", "cupy": "cuda", "torch": "torch", "jax": "jax"}


def pytest_addoption(parser):
    parser.addoption(
        "--library",
        action="append",
        default=[],
        metavar="NAME",
        help=f"run on this library ({', '.join(SPECS)}); can be repeated or a comma-separated list. "
        "By default numpy, strict, and cupy where a GPU is usable.",
    )
    parser.addoption(
        "--cases",
        type=int,
        metavar="N",
        help="run N of the cases that each test has, always the same ones, and by default all",
    )
    parser.addoption(
        "--threads",
        type=int,
        metavar="N",
        help="divide all that plans do on the processor among N threads, however short it is",
    )
    parser.addoption(
        "--examples",
        type=int,
        metavar="N",
        help="compare the gradients of PyTorch and JAX at N random shapes, and those of N random programs. "
        "By default so few that the tests stay quick.",
    )


def _libraries(config):
    return [name for option in config.getoption("--library") for name in option.split(",")]


def pytest_configure(config):
    if (threads := config.getoption("--threads")) is not None:
        divide(threads)
    named = _libraries(config)
    for name in named:
        if name not in SPECS:
            raise pytest.UsageError(f"--library must be one of {', '.join(SPECS)}, received {name}")
        try:
            xpnet.device(SPECS[name])
        except DeviceUnavailableError as error:
            raise pytest.UsageError(f"--library {name} was asked for, but cannot run: {error}") from None
    if "jax" in named:
        import jax

        # Finite differences need float64, which JAX has only if asked.
        jax.config.update("jax_enable_x64", True)
    config.libraries = named or ["numpy", "strict", *(["cupy"] if backends.cuda_problem() is None else [])]


def divide(number):
    """Let so many threads do parts of all that plans do, also where one thread alone is faster."""
    from xpnet.replay.plans import pool, rounds

    rounds.WORTH_IT, rounds.SHORTEST = 0, 1
    xpnet.set_threads(number)
    pool.pool().words[pool.LEARNS] = 0


def pytest_report_header(config):
    lines = [f"libraries: {', '.join(config.libraries)}"]
    if not _libraries(config) and "cupy" not in config.libraries:
        lines.append(f"cupy is left out: {backends.cuda_problem()}")
    return lines


def pytest_collection_modifyitems(config, items):
    """Leave out what is the same on each library where NumPy is not tested, and more cases than asked for."""
    kept = items if "numpy" in config.libraries else [item for item in items if _is_for_a_library(item)]
    if (number := config.getoption("--cases")) is not None:
        kept = [item for _, cases in groupby(kept, _test) for item in _some([*cases], number)]
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept


def pytest_collection_finish():
    """Spare the tests in which garbage is collected from looking at what stays, all tests and modules."""
    gc.collect()
    gc.freeze()


PEERS = {"cupy", "jax", "torch"}


def _is_for_a_library(item):
    """Say whether a test asks for a device, names a library among its parameters, or is marked so."""
    parameters = item.callspec.id.split("-") if hasattr(item, "callspec") else ()
    says_so = {"device", "cuda"} & {*item.fixturenames} or PEERS & {*parameters}
    return bool(says_so) or item.get_closest_marker("peers") is not None


def _test(item):
    return item.nodeid.partition("[")[0]


def _some(cases, number):
    """Return so many cases of a test, evenly apart from each other."""
    first = crc32(_test(cases[0]).encode())
    number = min(number, len(cases))
    return [cases[i] for i in sorted((first + n * len(cases) // number) % len(cases) for n in range(number))]


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report):
    """Say how a process of pytest-xdist ended in the middle of a test: -11 is a wrong address, say."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = report.node.gateway._io.popen.wait(timeout=60)
        report.longrepr += f": the process ended with {status}, which is a signal if it is negative"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Fail a test that needs a library and does not say so: it would be left out wherever that library is."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and not _is_for_a_library(item):
        reason = report.longrepr[-1]
        if any(f"could not import '{name}" in reason for name in PEERS):
            report.outcome = "failed"
            report.longrepr = f"{reason}. A test that needs it says so: @pytest.mark.peers"
    return report


# Packages that some modules of tests import at their top.
OPTIONAL = {
    "PIL", "array_api_extra", "array_api_strict", "einops", "hypothesis", "matplotlib", "numba", "onnx",
    "onnxruntime", "pandas", "scipy", "sklearn",
}  # fmt: skip


class Module(pytest.Module):
    """A module of tests, which is skipped where a package is missing that it imports at its top."""

    def collect(self):
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            name = getattr(cause, "name", None) or ""
            if name.partition(".")[0] not in OPTIONAL and "pip install" not in str(cause):  # as xpnet says it
                raise
            pytest.skip(str(cause))


def pytest_pycollect_makemodule(module_path, parent):
    return Module.from_parent(parent, path=module_path)


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        specs = [SPECS[name] for name in metafunc.config.libraries]
        metafunc.parametrize("device", specs, indirect=True)


@pytest.fixture
def device(request):
    """The device under test, which is the default device while the test runs."""
    with xpnet.use_device(request.param) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def forget_what_jax_compiled():
    """Keep the memory small: JAX keeps each function that it compiles, and takes longer and longer."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture
def xp(device):
    """The namespace of the library under test."""
    return device.namespace


@pytest.fixture
def cuda():
    """The device ``"cuda"``, where there is one."""
    reason = backends.cuda_problem()
    if reason is not None:
        pytest.skip(reason)
    with xpnet.use_device("cuda") as found:
        yield found


@pytest.fixture
def fresh(monkeypatch):
    """Let what is remembered about this machine be found out anew, before and after a test."""
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    remembered = (backends.cuda_problem, backends.specs._find, backends.specs._find_auto)
    for function in remembered:
        function.cache_clear()
    yield
    monkeypatch.undo()
    for function in remembered:
        function.cache_clear()


@pytest.fixture
def fake_cupy(monkeypatch, fresh):
    """Return a function that puts a fake CuPy in the place of the real one."""

    def put(**options):
        cupy = FakeCupy(**options)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "cupy.cuda", cupy.cuda)
        monkeypatch.setitem(sys.modules, "cupyx", cupy.cupyx)
        # array_api_compat.cupy takes what it needs from the real CuPy.
        monkeypatch.setitem(sys.modules, "array_api_compat.cupy", types.ModuleType("array_api_compat.cupy"))
        return cupy

    return put
