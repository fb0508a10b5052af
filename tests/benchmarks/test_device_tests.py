"""The plugin that picks the tests for a device, and writes down each result at once."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

TESTS = """
import pytest

@pytest.fixture
def device():
    return 1

@pytest.fixture
def xp(device):
    return 2

def test_without_a_device(): raise AssertionError
def test_right(xp): pass
@pytest.mark.parametrize("number", range(3))
def test_wrong(device, number): assert number == 7, "the numbers differ"
def test_skipped(device): pytest.skip("no")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs tests with the plugin, and returns what it wrote."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from report import read

    def call(*arguments):
        environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(BENCHMARKS)}
        command = [sys.executable, "-m", "pytest", "-p", "device_tests", "-q", "--no-summary"]
        report = tmp_path / "report"
        # Whatever settings are in a folder above.
        command += ["--rootdir", str(tmp_path), "-p", "no:cacheprovider", "--report", str(report), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        return read(report)

    return call


def names(events, outcome):
    return [event["name"].rpartition("::")[2] for event in events if event["outcome"] == outcome]


def test_tests_for_a_device_are_written_down(run, tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    events = run()
    assert events[0]["names"] == [
        f"test_it.py::{name}"
        for name in ("test_right", "test_wrong[0]", "test_wrong[1]", "test_wrong[2]", "test_skipped")
    ]
    assert names(events, "passed") == ["test_right"]
    assert names(events, "left out") == ["test_skipped"]
    assert names(events, "failed") == [f"test_wrong[{number}]" for number in range(3)]
    failed = [event for event in events if event["outcome"] == "failed"]
    assert failed[0]["kind"].startswith("AssertionError: the numbers differ")
    assert "def test_wrong(device, number)" in failed[0]["error"]
    from report import kinds

    assert [each["count"] for each in kinds(failed)] == [3]


def test_only_some_tests_and_files(run, tmp_path):
    for name in ("test_it.py", "test_other.py", "test_third.py"):
        (tmp_path / name).write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name")
    (tmp_path / "names").write_text(json.dumps(["test_it.py::test_wrong[1]", "test_other.py"]))
    events = run("--chosen", "names", "--continue-on-collection-errors")
    broken = [event for event in events if event["name"] == "test_broken.py"]
    assert "No module named 'nothing_of_that_name'" in broken[0]["kind"]
    (collected,) = (event for event in events if event["outcome"] == "collected")
    assert collected["names"][0] == "test_it.py::test_wrong[1]"
    assert {name.partition("::")[0] for name in collected["names"][1:]} == {"test_other.py"}
    assert len(collected["names"]) == 6


def test_a_process_that_crashes_names_its_test(tmp_path, monkeypatch):
    """As pytest-xdist reports it, with the place where a test hung, which its process wrote before."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import device_tests
    from report import read

    path = tmp_path / "report"
    options = {"report": path, "names": None}
    plugin = device_tests._DeviceTests(types.SimpleNamespace(getoption=options.get))
    (tmp_path / "report.77.stack").write_text("Timeout!\nin test_b")
    for name in ("a.py::test_b[1]", "a.py::test_c"):
        text = f"worker 'gw1' crashed while running '{name}'"
        plugin.pytest_runtest_logreport(pytest.TestReport(name, ("a.py", 1, name), {}, "failed", text, "???"))
    plugin.pytest_xdist_node_collection_finished(["a", "b"])
    plugin.pytest_xdist_node_collection_finished(["a", "b"])
    one, other, collected = read(path)
    assert one["name"] == "a.py::test_b[1]"
    assert one["kind"] == other["kind"] == "worker 'gw1' crashed while running 'a test'"
    assert "Timeout!\nin test_b" in one["error"]
    assert "Timeout" not in other["error"]
    assert collected["names"] == ["a", "b"]


def test_behind_a_lost_device_a_process_ends(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import device_tests

    config = types.SimpleNamespace(getoption={"report": tmp_path / "report", "names": None}.get)
    plugin, ended = device_tests._DeviceTests(config), []
    monkeypatch.setattr(device_tests.os, "_exit", ended.append)
    for is_lost, outcome in ((False, "failed"), (True, "passed"), (True, "failed"), (False, "passed")):
        monkeypatch.setattr(device_tests, "is_lost", lambda is_lost=is_lost: is_lost)
        protocol = plugin.pytest_runtest_protocol()
        next(protocol)
        plugin.pytest_runtest_logreport(pytest.TestReport("a", ("a", 1, "a"), {}, outcome, "", "call"))
        assert next(protocol, None) is None
    assert ended == [1]  # before the last one


def test_the_order_of_the_suite(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import device_tests

    order = [
        "tests/backends/test_cupy.py",
        "tests/replay/test_jit.py",
        "tests/training/test_accumulate.py",
        "tests/nn/test_freezing.py",
        "tests/test_weighted_losses.py",
        "tests/optim/test_groups.py",
        "tests/test_tree.py",
        "tests/autodiff/rules/test_a.py",
    ]
    assert sorted(set(order), key=lambda path: device_tests._rank(f"{path}::test")) == order
    tests = BENCHMARKS.parent / "tests"
    assert all((tests / path).exists() for path in (*device_tests.FIRST, *device_tests.LAST))
