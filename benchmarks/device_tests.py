"""For pytest: the tests that run on a device, in the order of what they prove, each result in a file at once.

    python -m pytest -p device_tests --report FILE --library cupy -n 12

Tests that ask for no device are left out, as they prove nothing there. One that hangs ends its process, with
the place in the report, and so does the test behind one that left a device on which nothing works any more;
in several processes, others go on.
"""

import faulthandler
import json
import os
from pathlib import Path

import pytest
from machine import is_lost
from report import Report

SECONDS = 60  # for a test
FIRST = (
    "backends/test_cupy.py",
    "replay/",
    "training/",
    "nn/",
    "test_losses.py",
    "test_weighted_losses.py",
    "optim/",
    "backends/",
)
LAST = ("autodiff/test_third_party.py", "autodiff/rules/")  # CuPy compiles thousands of kernels for these


def pytest_addoption(parser):
    group = parser.getgroup("device tests")
    group.addoption("--report", type=Path, required=True, metavar="FILE", help="add what was found there")
    group.addoption("--chosen", type=Path, metavar="FILE", help="a list of tests and files to run")


def pytest_configure(config):
    config.pluginmanager.register(_DeviceTests(config), "device tests of this session")


class _DeviceTests:
    def __init__(self, config):
        self._path = config.getoption("report")
        names = config.getoption("chosen")
        self._names = names and set(json.loads(names.read_text()))
        # With several processes, results come to the one that started them.
        self._is_worker = hasattr(config, "workerinput")
        self._report = None if self._is_worker else Report(self._path)
        self._stack = None
        self._failed = self._lost = self._has_collected = False

    # -- in the process that runs tests ---------------------------------------------------------------------

    def pytest_collection_modifyitems(self, config, items):
        chosen, rest = [], []
        for item in items:
            is_for_a_device = {"device", "cuda"} & set(getattr(item, "fixturenames", ()))
            is_named = self._names is None or {item.nodeid, _file(item.nodeid)} & self._names
            (chosen if is_for_a_device and is_named else rest).append(item)
        config.hook.pytest_deselected(items=rest)
        items[:] = sorted(chosen, key=lambda item: _rank(item.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self):
        if self._lost:
            os._exit(1)
        if self._is_worker and self._stack is None:
            self._stack = open(f"{self._path}.{os.getpid()}.stack", "w")  # noqa: SIM115
        if self._stack:
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=self._stack)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._lost, self._failed = self._failed and is_lost(), False

    # -- in the process that is told ------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report):
        self._failed = self._failed or report.failed
        if self._is_worker:
            return
        if report.failed:
            stacks = "".join(_taken(path) for path in self._path.parent.glob(f"{self._path.name}.*.stack"))
            crash = getattr(report.longrepr, "reprcrash", None)
            kind = crash.message if crash else report.longreprtext.replace(report.nodeid, "a test")
            self._report.fail(report.nodeid, kind, f"{report.longreprtext}\n{stacks}")
        elif report.when == "call" or report.skipped:
            outcome = "passed" if report.passed else "left out"
            self._report.add(report.nodeid, outcome, seconds=round(report.duration, 2))

    def pytest_collectreport(self, report):
        if report.failed and not self._is_worker:
            *_, last = report.longreprtext.strip().splitlines()
            self._report.fail(report.nodeid, last, report.longreprtext)

    def pytest_collection_finish(self, session):
        if not self._is_worker and session.items:
            self._collected([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids):
        self._collected(ids)

    def _collected(self, names):
        if not self._has_collected:  # which each process does
            self._has_collected = True
            self._report.add("", "collected", names=list(names))


def _file(name):
    return name.partition("::")[0]


def _rank(name):
    """Return where among others a test comes; those of one rank stay as they are."""
    path = _file(name).partition("tests/")[2]
    for number, start in enumerate(FIRST):
        if path.startswith(start):
            return number
    return len(FIRST) + path.startswith(LAST)


def _taken(path):
    """Return what a process that ended left, once."""
    text = path.read_text()
    if text:
        path.write_text("")
    return text
