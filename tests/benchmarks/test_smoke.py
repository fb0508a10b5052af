"""The checks that a GPU goes through first, on a stand-in for one: they pass, and they find errors."""

import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy
import pytest

import xpnet
from tests.replay.host import COMPILER, Host
from tests.stand_ins import FakeDevice, OutOfMemoryError
from xpnet.backends.cupy import CUPY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# Those that are quick; `nox -s gpu -- --device cpu --small` runs all.
QUICK = [
    "memory and copies",
    "kernels flat",
    "capture and launch",
    "captured anew for other places",
    "arguments that move",
    "random numbers",
    "a training",
    "graphs around an exchange",
    "not a number before a relu",
    "batches of matrices in tf32",
    "products in plans in float32",
    "products in plans in bfloat16",
    "operands at 4 bytes in float32",
]


@pytest.fixture
def checks(monkeypatch):
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import checks
    import group_checks
    import product_checks

    assert group_checks.DTYPES
    assert product_checks.PRECISIONS
    return checks


@pytest.fixture
def smoke(checks):
    import smoke

    return smoke


@pytest.fixture
def stand_in(checks):
    with checks.device_of("cpu", (1, 3)) as stand_in:
        yield stand_in


def told(smoke, name, stand_in, tmp_path):
    smoke.run_check(name, stand_in, smoke.Report(tmp_path / "report"))
    return smoke.read(tmp_path / "report")[-1]


# -- the checks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_checks_pass(name, smoke, stand_in, tmp_path):
    event = told(smoke, name, stand_in, tmp_path)
    assert event["outcome"] == "passed", event["error"]


@pytest.mark.parametrize(
    "epilogue", ["alone", "BIAS", "RELU", "RELU_BIAS", "RELU_AUX", "RELU_AUX_BIAS", "DRELU", "DRELU_BGRAD"]
)
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16", "float64"])
def test_products(epilogue, precision, smoke, stand_in, tmp_path):
    event = told(smoke, f"products in {precision}, {epilogue}", stand_in, tmp_path)
    assert event["outcome"] == "passed", event["error"]


def test_every_function_of_the_device_is_in_a_check(checks):
    """Of each, the name; that it is right is what the checks ask."""
    functions = {name for name, value in vars(Host).items() if callable(value) and not name.startswith("_")}
    text = "".join((BENCHMARKS / name).read_text() for name in ("checks.py", "product_checks.py"))
    # Plans ask for streams themselves, and the stand-in alone is told to go on.
    assert {
        name for name in functions - {"ProductError", "queue", "finish"} if f"runtime.{name}(" not in text
    } == set()


# -- that they find errors ----------------------------------------------------------------------------------


def without_last_bit(multiply):
    def wrong(workspace, first, second, result, *more):
        multiply(workspace, first, second, result, *more)
        result[..., -1, -1] *= 1 + 1e-4

    return wrong


def without_bias(multiply):
    def wrong(workspace, first, second, result, bias, *more):
        multiply(workspace, first, second, result, 0 * bias, *more)

    return wrong


def with_other_mask(multiply):
    def wrong(workspace, first, second, result, *more):
        multiply(workspace, first, second, result, *more)
        more[-1][...] = ~more[-1]

    return wrong


def with_other_sum(multiply):
    def wrong(workspace, first, second, result, mask, total):
        multiply(workspace, first, second, result, mask, total)
        total += 1e-3

    return wrong


@pytest.mark.parametrize(
    ("wrong", "name", "message"),
    [
        (without_last_bit, "products in float32, alone", "8 of 8 cases failed"),
        (without_last_bit, "products in bfloat16, RELU", "cases failed, for the first: AssertionError"),
        (without_last_bit, "batches of matrices in float64", "cases failed"),
        (without_bias, "products in tf32, RELU_BIAS", "cases failed"),
        (with_other_mask, "products in float16, RELU_AUX", "cases failed"),
        (with_other_sum, "products in float32, DRELU_BGRAD", "elements are wrong"),
    ],
)
def test_wrong_products_are_found(wrong, name, message, smoke, stand_in, monkeypatch, tmp_path):
    right = stand_in.runtime.product

    def product(asked):
        multiply = right(asked)
        function = wrong(multiply)
        function.workspace = multiply.workspace
        return function

    monkeypatch.setattr(stand_in.runtime, "product", product)
    event = told(smoke, name, stand_in, tmp_path)
    assert event["outcome"] == "failed"
    assert message in event["kind"]
    assert "The cases: (1, " in event["error"] or "batches" in name


def test_what_is_refused_is_noted_and_a_product_alone_may_not_be(smoke, stand_in, monkeypatch, tmp_path):
    def refuse(asked):
        raise stand_in.runtime.ProductError("no algorithm")

    monkeypatch.setattr(stand_in.runtime, "product", refuse)
    event = told(smoke, "products in float32, DRELU", stand_in, tmp_path)
    assert (event["outcome"], len(event["notes"]["refused"])) == ("passed", 8)
    assert told(smoke, "products in float32, alone", stand_in, tmp_path)["outcome"] == "failed"


def test_a_plan_that_is_given_up_is_an_error(smoke, stand_in, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("the compiler is missing")

    monkeypatch.setattr(stand_in.runtime, "kernel", fail)
    event = told(smoke, "arguments that move", stand_in, tmp_path)
    assert "a faster plan failed with RuntimeError: the compiler is missing" in event["kind"]


@pytest.mark.parametrize("name", ["captured anew for other places", "not a number before a relu"])
def test_a_plan_that_is_not_captured_is_an_error(name, smoke, stand_in, monkeypatch, tmp_path):
    monkeypatch.setattr(stand_in.runtime, "problem", "nvmath is missing")
    assert told(smoke, name, stand_in, tmp_path)["outcome"] == "failed"


def test_the_bound_of_rounding(checks):
    one = numpy.ones(3, "float32")
    eps = numpy.finfo("float32").eps
    checks.assert_close(one * (1 + 2 * eps), one, 2)
    for wrong in (one * (1 + 3 * eps), one * numpy.nan, one[:2]):
        with pytest.raises(AssertionError):
            checks.assert_close(wrong, one, 2)
    with pytest.raises(AssertionError, match=r"3 of 3 elements are wrong: at \(0,\) expected"):
        checks.assert_close(one * (1 + eps), one)
    nothing = one * numpy.nan
    checks.assert_close(nothing, nothing)
    with pytest.raises(AssertionError):
        checks.assert_close(one, nothing, 1)


# -- what is asked of CuPy, with a stand-in for that --------------------------------------------------------


@pytest.fixture
def with_fake_cupy(checks, fake_cupy, monkeypatch):
    cupy = fake_cupy()
    monkeypatch.setattr(checks, "a_training", lambda device: None)
    native = FakeDevice(0)
    return cupy, types.SimpleNamespace(
        device=types.SimpleNamespace(library=CUPY, native=native, spec="cuda:0"), array=numpy.array
    )


def test_the_check_of_uploads(checks, with_fake_cupy, monkeypatch):
    cupy, device = with_fake_cupy
    checks.uploads_on_another_stream(device)
    # Eight go up, and to the stand-in, eight of its own arrays look as if they had to.
    assert sum("copies" in line for line in cupy.log) == 16
    monkeypatch.setattr(type(cupy.empty((), "f")), "set", lambda x, *_, **__: x.fill(0))
    with pytest.raises(AssertionError, match="elements are wrong"):
        checks.uploads_on_another_stream(device)


def test_the_check_of_memory(checks, with_fake_cupy, monkeypatch):
    cupy, device = with_fake_cupy

    def empty(nbytes, dtype):
        if nbytes > device.device.native.mem_info[0]:
            raise OutOfMemoryError
        return numpy.empty(nbytes, dtype)

    cupy.empty = empty
    checks.out_of_memory_and_back(device)
    cupy.empty = lambda nbytes, dtype: numpy.empty(1, dtype)
    with pytest.raises(AssertionError, match="OutOfDeviceMemoryError was not raised"):
        checks.out_of_memory_and_back(device)


# -- processes ----------------------------------------------------------------------------------------------

FAKES = """
import atexit, contextlib, os, time
LAST, ON_GPU, SIZES, SMALL_SIZES = {"last", "at its end"}, set(), (1,), (1,)
seen = []
CHECKS = {
    "first": lambda device: {"note": 1},
    "fails": lambda device: 1 / 0,
    "hangs": lambda device: time.sleep(600),
    "after": lambda device: None,
    "crashes": lambda device: os.abort(),
    "behind": lambda device: None,
    "loses": lambda device: seen.append(1),
    "then": lambda device: 1 / 0 if seen else None,
    "last": lambda device: os._exit(3),
    "at its end": lambda device: atexit.register(os._exit, 4) and None,
}
@contextlib.contextmanager
def device_of(name, sizes):
    yield type("Device", (), {"finish": lambda self: None})()
"""
MACHINE = """
import checks
def is_lost():
    return bool(checks.seen)
"""


def test_checks_go_on_behind_one_that_ends_their_process(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from report import read

    for name in ("smoke.py", "report.py"):
        shutil.copy(BENCHMARKS / name, tmp_path)
    (tmp_path / "checks.py").write_text(FAKES)
    (tmp_path / "machine.py").write_text(MACHINE)
    for name in ("group_checks.py", "product_checks.py"):
        (tmp_path / name).write_text("")
    text = (tmp_path / "smoke.py").read_text()
    assert "\nSECONDS, START = 30, 60 " in text
    (tmp_path / "smoke.py").write_text(text.replace("START = 30, 60 ", "START = 0.5, 60 "))
    command = [sys.executable, str(tmp_path / "smoke.py"), "--report", str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "6 checks passed, 4 failed" in done.stdout
    events = {event["name"]: event for event in read(tmp_path / "report")}
    found = {name: event.get("kind", event["outcome"]) for name, event in events.items() if name}
    assert found == {
        "first": "passed",
        "fails": "ZeroDivisionError: division by zero",
        "hangs": "it took too long",
        "after": "passed",
        "crashes": "the process ended with -6",
        "behind": "passed",
        "loses": "passed",
        "then": "passed",
        "last": "the process ended with 3",
        "at its end": "passed",  # as CuPy may, behind a lost device
    }
    assert events["first"]["notes"] == {"note": 1}
    assert "in <lambda>" in events["hangs"]["error"]  # where it hung
    assert "Aborted" in events["crashes"]["error"]


def test_arrays_are_where_plans_put_them(stand_in):
    x = stand_in.aligned(numpy.arange(6.0).reshape(2, 3))
    assert stand_in.runtime.pointer(x) % 256 == 0
    numpy.testing.assert_array_equal(xpnet.to_numpy(x), numpy.arange(6.0).reshape(2, 3))
