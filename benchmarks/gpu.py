"""All that can be checked and measured on a GPU, in the order of what it proves.

`nox -s gpu` installs what is needed and runs this. Where that is installed, or nothing can be, run it alone:

    python benchmarks/gpu.py --minutes 6 --json benchmarks/results

Each part has a share of the time, and what it does not need goes to the later ones. A part that runs out of
it is ended with all of its processes, and so is all of it at Ctrl-C; one that fails does not stop the others.
What was found is in `gpu-cuda.json`, written anew every few seconds and after each part: of what failed, the
first of its kind in full, and all names, by which `--failed gpu-cuda.json` runs it again.
"""

import argparse
import atexit
import contextlib
import functools
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from machine import description, keep
from report import kinds, read

HERE = Path(__file__).parent
ROOT = HERE.parent
LIBRARIES = {"cuda": "cupy", "cpu": "numpy"}
KEPT = 10_000  # characters of the end of what a command says
SHOWN = 40  # lines that it may say here
OFTEN = 10  # seconds between two results
ANSWER = 120  # seconds in which a device must say whether it works
PROBLEM = "from xpnet import backends; print(backends.cuda_problem() or 'it works')"
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

FIRST_SIZES = ("784-128-10, batch 128, float32", "784-512-512-10, batch 256, float32")
FAILED, CUT_OFF, NOT_RUN, PASSED = "failed", "cut off", "not run", "passed"


class Part(NamedTuple):
    """What is run together.

    Attributes
    ----------
    weight : float
        Its share of the time that is left, beside the weights of the parts behind it.
    commands : dict of str to list of str
        By name; they run at the same time. In one, ``REPORT`` stands for the file that it writes events to.
    most : float
        Seconds that it may take.
    variables : dict of str to str
        Of the environment.
    """

    weight: float
    commands: dict
    most: float = math.inf
    variables: Mapping = MappingProxyType({})


REPORT = "REPORT"


def parts(options):
    """Return all parts by name, in order."""
    small = ["--small"] if options.small else []
    folder = ["--json", str(options.json)] if options.json else []
    device = ["--device", options.device]

    def example(path, *more):
        return [str(path), *device, "--output", str(Path(options.output, path.stem)), *more]

    def training(*more):
        rounds = ["--rounds", "2", "--seconds", "0.02"] if options.small else ["--rounds", "5"]
        return [str(HERE / "training_gpu.py"), *device, *folder, *rounds, *small, *more]

    examples = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
    tests = [
        *("-m", "pytest", "-p", "device_tests", "--report", REPORT, "--library", LIBRARIES[options.device]),
        *("-q", "--no-summary", "-p", "no:cacheprovider", "--continue-on-collection-errors"),
    ]
    if importlib.util.find_spec("xdist"):
        tests += ["-p", "xdist", "-n", str(options.processes), "--maxschedchunk", "4"]
    tests += options.pytest or (["tests/test_random.py"] if options.small else [])
    first = [] if options.small else [f"--only={size}" for size in FIRST_SIZES]
    networks = [str(HERE / "networks.py"), *device, *folder, "--rounds", "3", "--seconds", "0.3"]
    return {
        "smoke": Part(
            60, {"smoke": [str(HERE / "smoke.py"), *device, "--report", REPORT, *small]}, 60,
            {"CUBLASLT_LOG_LEVEL": "1"},  # so that it says why it refuses a product
        ),
        "digits": Part(20, {"digits": example(examples.pop("digits"), *small)}),
        "convolution": Part(25, {"convolution": example(examples.pop("convolution"), *small)}),
        "training": Part(90, {"training": training(*first)}),
        "tests": Part(
            120, {"tests": tests}, math.inf,
            {
                "CUPY_ACCELERATORS": "",  # of CUB, each kernel takes seconds to compile
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # some warn of each other
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # JAX would take the memory of all
                "PYTHONPATH": _path(ROOT, HERE),
            },
        ),
        "examples": Part(40, {name: example(path, "--small") for name, path in examples.items()}),
        "networks": Part(20, {"networks": networks}),
        "all trainings": Part(40, {"all trainings": training("--go-on")}),
        "devices": Part(5, {"devices": ["-m", "xpnet"]}),
    }  # fmt: skip


def _path(*folders):
    """Return what Python is to find modules in, besides where it finds them now."""
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))


# -- running a part -----------------------------------------------------------------------------------------


KEEPER = """
import os, signal, sys
groups = set()
for line in sys.stdin:  # until whoever wrote them is gone
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


@functools.cache
def keeper():
    """Start what ends the commands where this process is killed: they would hold the device."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", KEEPER], stdin=subprocess.PIPE, text=True, process_group=0
    )
    atexit.register(process.communicate)
    return process


class Command:
    """A command in a process group of its own, of which so many lines are shown, and the end is kept."""

    def __init__(self, command, variables, shown=SHOWN):
        environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        environment |= {"PYTHONPATH": _path(ROOT)} | variables
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        print(f"+{self.process.pid}", file=keeper().stdin, flush=True)
        self.said, self._shown = "", shown
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self.process.stdout as lines:
            for number, line in enumerate(lines):
                if number < self._shown:
                    print(line[:500].rstrip("\n"), flush=True)
                elif number == self._shown > 0:
                    print("(and so on)", flush=True)
                self.said = (self.said + line)[-KEPT:]

    def end(self):
        """End the command, with all that it started, if they have not ended; return its exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it
            self.process.wait(10)
            print(f"-{self.process.pid}", file=keeper().stdin, flush=True)
        self._reader.join(5)
        return self.process.returncode


def run(part, seconds, names=None, note=lambda _: None):
    """Run a part for so many seconds at most, or what has one of some names; return what was found.

    `note` is called with what was found so far, every few seconds and at the end, whatever that is.
    """
    start = time.monotonic()
    running, ended = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        for name, command in part.commands.items():
            more = []
            if names is not None and name not in names:  # by its name, all of it
                if REPORT not in command:
                    continue
                more = _only(command, names, folder)
            command = [str(report) if word == REPORT else word for word in command]
            running[name] = Command([*command, *more], part.variables)
        commands, noted = dict(running), start
        try:
            while running and (now := time.monotonic()) < start + seconds:
                time.sleep(0.02)
                for name, command in list(running.items()):
                    if command.process.poll() is not None:
                        ended[name] = running.pop(name).end()
                if now > noted + OFTEN:
                    noted = now
                    note(_found(commands, ended, read(report), start))
        finally:
            for command in running.values():
                command.end()
            found = _found(commands, ended, read(report), start)
            note(found)
    return found


def _only(command, names, folder):
    """Return the arguments by which smoke or pytest run what has some names."""
    if "pytest" not in command:
        return [f"--check={name}" for name in names]
    path = Path(folder, "names")
    path.write_text(json.dumps(names))
    files = {name.partition("::")[0] for name in names}
    return ["--chosen", str(path), *sorted(file for file in files if Path(ROOT, file).exists())]


def _found(commands, ended, events, start):
    """Say what commands did, of which some have ended."""
    found = {"outcome": PASSED, "seconds": round(time.monotonic() - start, 1)}
    failed = [event for event in events if event["outcome"] == "failed"]
    if events:
        done = {event["name"] for event in events if event["outcome"] not in ("started", "collected")}
        left = [name for event in events for name in event.get("names", ()) if name not in done]
        counts = {word: sum(event["outcome"] == word for event in events) for word in ("passed", "left out")}
        # Tests by their files, of which there are few.
        found |= counts | {"failed": len(failed), "left": sorted({name.partition("::")[0] for name in left})}
        notes = {event["name"]: event["notes"] for event in events if "notes" in event}
        found |= {"notes": notes} if notes else {}
    told = 1 if failed else 0  # the exit status of a command that has told what failed
    for name, command in commands.items():
        if ended.get(name, 0) not in (0, told):
            last = (command.said.strip().splitlines() or ["nothing was said"])[-1]
            kind = f"{name} ended with {ended[name]}: {last[:300]}"
            failed.append({"name": name, "kind": kind, "error": command.said})
    cut_off = [name for name in commands if name not in ended]
    if failed:
        found |= {"outcome": FAILED, "failures": kinds(failed)}
    if cut_off:
        found |= {"outcome": CUT_OFF, "cut off": cut_off}
    said = {name: command.said[-1000:].splitlines() for name, command in commands.items()}
    return found | {"exits": ended, "said": said}


def again(part):
    """Return the names of what is to be run again of a part; None for all of it."""
    names = [name for kind in part.get("failures", ()) for name in kind["names"]]
    names += part.get("left", []) + ([] if "left" in part else part.get("cut off", []))
    return names or None


def problem(device):
    """Say why the device cannot be used now, or nothing."""
    if device == "cpu":
        return ""
    command = Command(["-c", PROBLEM], {}, shown=0)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.process.wait(ANSWER)
    hung = command.process.poll() is None
    command.end()
    said = (command.said.strip().splitlines() or ["nothing is said"])[-1]
    return "it does not answer" if hung else "" if said == "it works" else said


# -- the command --------------------------------------------------------------------------------------------


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=LIBRARIES, help="cpu tries the script")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write the results there")
    parser.add_argument("--minutes", type=float, default=60, help="that all of it may take (60)")
    parser.add_argument("--small", action="store_true", help="small examples, and little of the rest")
    parser.add_argument("--processes", type=int, default=min(12, os.cpu_count()), help="for the tests")
    parser.add_argument("--only", action="append", metavar="PART", help="run this part; can be repeated")
    parser.add_argument("--failed", type=Path, metavar="FILE", help="run what failed or is missing there")
    parser.add_argument("pytest", nargs="*", help="goes to pytest, after --")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes must be greater than 0, received {options.minutes:g}")
    options.json = options.json and options.json.resolve()
    options.output = ""
    known = parts(options)
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        parser.error(f"--only must be one of {', '.join(known)}; received {', '.join(unknown)}")
    options.before = {}
    if options.failed:
        try:
            options.before = json.loads(options.failed.read_text())["parts"]
            {part["outcome"] for part in options.before.values()}  # which each of them has
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            parser.error(f"--failed must be a result of this script, received {options.failed}: {error!r}")
        if options.json and options.failed.resolve() == _result(options):
            parser.error("--failed must be in another folder than --json, as its file would be written over")
    if options.json:
        try:
            options.json.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=options.json).close()
        except OSError as error:
            parser.error(f"--json must be a folder that can be written to, received {options.json}: {error}")
    return options


def _result(options):
    return options.json / f"gpu-{options.device}{'-small' * options.small}.json"


def _stop(*_):
    for number in STOPS:  # once is enough: what comes now is writing down what was found
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as options.output:
        return run_all(options)


def run_all(options):
    """Run the parts, and return the exit status."""
    for number in STOPS:
        signal.signal(number, _stop)
    end = time.monotonic() + 60 * options.minutes
    chosen = {name: part for name, part in parts(options).items() if name in (options.only or parts(options))}
    if options.failed:
        wrong = {name for name, part in options.before.items() if part["outcome"] != PASSED}
        chosen = {name: part for name, part in chosen.items() if name in wrong}
    found = description(options.device) | {"minutes": options.minutes, "problem": problem(options.device)}
    found["parts"] = {name: {"outcome": NOT_RUN} for name in chosen}
    if found["problem"]:
        print(f"Nothing was run, as {options.device} cannot be used: {found['problem']}", file=sys.stderr)
        return 2

    def note(name, result):
        found["parts"][name] = result
        write()

    def write():
        if options.json:
            try:
                keep(_result(options), found)
            except OSError as error:
                found["problem"] = f"the results cannot be written now: {error}"
                print(f"== {found['problem']}", flush=True)

    write()  # that none was run, should the first one end all
    try:
        for number, (name, part) in enumerate(chosen.items()):
            weights = sum(other.weight for other in list(chosen.values())[number:])
            seconds = min(part.most, (end - time.monotonic()) * part.weight / weights)
            if seconds < 1:
                break
            print(f"\n== {name}, for at most {seconds:.0f} s", flush=True)
            names = again(options.before.get(name, {}))
            result = run(part, seconds, names, lambda so_far, name=name: note(name, so_far))
            print(f"== {name}: {summary(result)}", flush=True)
            if result["outcome"] != PASSED and (reason := problem(options.device)):
                found["problem"] = f"the GPU was lost in {name}: {reason}"
                note(name, result)
                break
    except KeyboardInterrupt:
        found["problem"] = "it was stopped"
        note(name, found["parts"][name])
    show(found)
    return 1 if found["problem"] or any(part["outcome"] != PASSED for part in found["parts"].values()) else 0


def summary(part):
    counts = [f"{part[word]:,} {word}" for word in ("passed", "failed", "left out") if part.get(word)]
    left = [f"left: {', '.join(part['left'])[:500]}"] if part.get("left") else []
    return ", ".join([part["outcome"], *counts, *left, f"{part.get('seconds', 0)} s"])


def show(found):
    print()
    for name, part in found["parts"].items():
        for kind in part.get("failures", [])[:20]:  # the results have all
            print(f"{name}: {kind['count']} × {kind['kind'][:200]} ({kind['names'][0]})")
    for name, part in found["parts"].items():
        print(f"{name:14} {summary(part)[:300]}")
    if found["problem"]:
        print(f"\nNot all was run: {found['problem']}")


if __name__ == "__main__":
    sys.exit(main())
