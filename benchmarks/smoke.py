"""Each thing that plans ask of CUDA, once, against NumPy: `plans/cuda_runtime.py` and `backends/cupy.py`.

    python benchmarks/smoke.py --device cuda --report FILE

A check knows nothing of the others. They run in a process that is started anew, behind the check that was
under way, where one hangs, crashes, or leaves a device on which nothing works any more. Checks that may do so
come last, in another process. `--device cpu` runs them on the tests' stand-in for a CUDA device.
"""

import argparse
import contextlib
import faulthandler
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import group_checks  # noqa: F401  which adds its checks to the others, as the next one does
import product_checks  # noqa: F401
from checks import CHECKS, LAST, ON_GPU, SIZES, SMALL_SIZES, device_of
from machine import is_lost
from report import Report, read

SECONDS, START = 30, 60  # for a check, and until the first one begins


class _GivenUp(logging.Handler):
    """Where a plan cannot be made, xpnet does without, and says so. Here, that is an error."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def run_check(name, device, report):
    """Run a check; return whether others can follow in this process."""
    report.add(name, "started")
    start, handler = time.monotonic(), _GivenUp()
    logging.getLogger("xpnet").addHandler(handler)
    try:
        notes = CHECKS[name](device)
        assert not handler.said, handler.said[0]
        if name not in LAST:  # one that loses the device has said so itself
            device.finish()
    except Exception as error:
        report.fail_with(name, error)
    else:
        seconds = round(time.monotonic() - start, 2)
        report.add(name, "passed", seconds=seconds, **({"notes": notes} if notes else {}))
    finally:
        logging.getLogger("xpnet").removeHandler(handler)
    return not is_lost()


def work(options):
    """Run checks in this process, until one leaves a device that is of no use any more."""
    report = Report(options.report)
    with device_of(options.device, SMALL_SIZES if options.small else SIZES) as device:
        for name in options.checks:
            faulthandler.dump_traceback_later(0.8 * SECONDS)  # where it is, before it is killed
            if not run_check(name, device, report):
                return
            faulthandler.cancel_dump_traceback_later()


def supervise(names, options, report):
    """Run checks in processes, one after the other; where one is killed, go on behind the check it was at."""
    command = [sys.executable, "-X", "faulthandler", __file__, "--worker", "--device", options.device]
    command += ["--report", str(options.report), *(["--small"] if options.small else [])]
    while names:
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen([*command, *(f"--check={name}" for name in names)], stderr=said)
            size, end = options.report.stat().st_size, time.monotonic() + START
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
                if options.report.stat().st_size != size:
                    size, end = options.report.stat().st_size, time.monotonic() + SECONDS
            hung = process.poll() is None
            if hung:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it
                    process.wait(5)
            said.seek(0)
            text = said.read()
        sys.stderr.write(text[-2000:])
        events = read(options.report)
        done = {event["name"] for event in events if event["outcome"] in ("passed", "failed")}
        rest = [name for name in names if name not in done]
        if rest and (hung or process.returncode):
            why = "it took too long" if hung else f"the process ended with {process.returncode}"
            began = any(event["name"] == rest[0] for event in events)
            report.fail(rest[0], why if began else f"no check began: {text[-100:]}", f"{why}\n{text}")
            if not began:  # nor would the others
                return
            rest = rest[1:]
        names = rest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu is a stand-in for CUDA"
    )
    parser.add_argument("--report", type=Path, required=True, metavar="FILE", help="add what was found there")
    parser.add_argument("--small", action="store_true", help="matrices of fewer sizes")
    parser.add_argument("--check", action="append", dest="checks", choices=CHECKS, metavar="NAME")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return 0
    report = Report(options.report)
    names = [name for name in options.checks or CHECKS if options.device == "cuda" or name not in ON_GPU]
    report.add("", "collected", names=names)
    supervise([name for name in names if name not in LAST], options, report)
    supervise([name for name in names if name in LAST], options, report)
    events = read(options.report)
    failed = [event for event in events if event["outcome"] == "failed"]
    for event in failed:
        print(f"{event['name']}: {event['kind']}")
    print(f"{sum(event['outcome'] == 'passed' for event in events)} checks passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
