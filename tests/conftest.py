"""The libraries that the suite runs on: every test that asks for ``xp`` runs once on each."""

import os
import sys
import types

import pytest
from stand_ins import FakeCupy

# SciPy takes arrays of other libraries only if asked before it is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import xpnet
from xpnet import backends
from xpnet.errors import DeviceUnavailableError

# The device specs that stand for a library. The second device of array-api-strict refuses arrays of the
# first, so running there shows that nothing is created on the default device.
SPECS = {
    "numpy": ["cpu"],
    "strict": ["strict", "strict:device1"],
    "cupy": ["cuda"],
    "torch": ["torch"],
    "jax": ["jax"],
}


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
        "--examples",
        type=int,
        metavar="N",
        help="compare the gradients of PyTorch and JAX at N random shapes, and those of N random programs. "
        "By default so few that the tests stay quick.",
    )


def _libraries(config):
    return [name for option in config.getoption("--library") for name in option.split(",")]


def pytest_configure(config):
    named = _libraries(config)
    for name in named:
        if name not in SPECS:
            raise pytest.UsageError(f"--library must be one of {', '.join(SPECS)}, received {name}")
        try:
            xpnet.device(SPECS[name][0])
        except DeviceUnavailableError as error:
            raise pytest.UsageError(f"--library {name} was asked for, but cannot run: {error}") from None
    if "jax" in named:
        import jax

        # Finite differences need float64, which JAX has only if asked.
        jax.config.update("jax_enable_x64", True)
    config.libraries = named or ["numpy", "strict", *(["cupy"] if backends.cuda_problem() is None else [])]


def pytest_report_header(config):
    lines = [f"libraries: {', '.join(config.libraries)}"]
    if not _libraries(config) and "cupy" not in config.libraries:
        lines.append(f"cupy is left out: {backends.cuda_problem()}")
    return lines


def pytest_collection_modifyitems(config, items):
    """Leave out what has nothing to do with the library under test, and takes long: it runs with NumPy."""
    if "numpy" not in config.libraries:
        left_out = [item for item in items if item.get_closest_marker("host")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("host")]


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
        specs = [spec for name in metafunc.config.libraries for spec in SPECS[name]]
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
