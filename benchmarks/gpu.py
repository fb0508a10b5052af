"""All that can be checked and measured on a GPU: the tests, the examples and the benchmarks.

`nox -s gpu` installs what is needed and runs this. Where that is installed, or nothing can be, run it alone:

    python benchmarks/gpu.py --json benchmarks/results

A part that fails does not stop the others. It is named at the end, and in `gpu-cuda.json` beside the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import description

HERE = Path(__file__).parent
ROOT = HERE.parent
LIBRARIES = {"cuda": "cupy", "cpu": "numpy"}
KEPT = 4000  # characters of the output of a part that failed


def parts(options):
    """Return the commands by name."""
    small = ["--small"] if options.small else []
    json_folder = ["--json", str(options.json)] if options.json else []
    short = ["--rounds", "2", "--seconds", "0.02"] if options.small else []
    tests = ["-m", "pytest", "--library", LIBRARIES[options.device], "-q", *options.pytest]
    found = {"devices": ["-m", "xpnet"], "tests": tests}
    for path in sorted((ROOT / "examples").glob("*.py")):
        output = ["--output", str(Path(options.output, path.stem))]
        found[f"example {path.stem}"] = [str(path), "--device", options.device, *output, *small]
    for name, more in (("training_gpu", small), ("networks", [])):
        command = [str(HERE / f"{name}.py"), "--device", options.device, *json_folder, *short, *more]
        found[f"benchmark {name}"] = command
    return {name: command for name, command in found.items() if options.only in name}


def run(command):
    """Run a part; return whether it succeeded, how long it took, and the end of what it said."""
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(name, None)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        said = (said + line)[-KEPT:]
    code = process.wait()
    found = {"exit": code, "seconds": round(time.monotonic() - start, 1)}
    return found | ({"output": said} if code else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=LIBRARIES, help="cpu tries the script")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write the results there")
    parser.add_argument("--small", action="store_true", help="small examples and tiny benchmarks")
    parser.add_argument("--only", default="", help="run the parts whose names contain this")
    parser.add_argument("pytest", nargs="*", help="goes to pytest, after --")
    options = parser.parse_args()
    options.json = options.json and options.json.resolve()
    found = description(options.device) | {"parts": {}}
    with tempfile.TemporaryDirectory() as options.output:
        for name, command in parts(options).items():
            print(f"\n== {name}", flush=True)
            found["parts"][name] = run(command)
    failed = [name for name, part in found["parts"].items() if part["exit"]]
    if options.json:
        options.json.mkdir(parents=True, exist_ok=True)
        (options.json / f"gpu-{options.device}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{len(found['parts']) - len(failed)} parts succeeded, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
