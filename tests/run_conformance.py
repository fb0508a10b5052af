"""Run the official suite of the array API standard over traced namespaces: `nox -s conformance -- PATH`.

The suite fails in places for the libraries themselves. So it runs over each library alone, too, and what
counts is what fails for the traced namespace only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# For each library: its device spec, and the module that the suite imports when it tests the library alone.
LIBRARIES = {
    "numpy": ("cpu", "array_api_compat.numpy"),
    "strict": ("strict", "array_api_strict"),
    "torch": ("torch", "array_api_compat.torch"),
    "jax": ("jax", "jax.numpy"),
    "cupy": ("cuda", "array_api_compat.cupy"),
}
TRACED = """exec('import xpnet; from xpnet.autodiff.namespace import traced_namespace as t; \
xp = t(xpnet.device("{spec}").namespace)')"""


def failures(
    suite: Path, module: str, examples: int, tests: list[str], seed: int = 0
) -> tuple[set[str], int]:
    """Run tests of the suite; return the names of those that failed, and the number of all."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--max-examples", str(examples)]
        command += [
            "--hypothesis-seed",
            str(seed),
            "--json-report",
            "--json-report-file",
            str(report),
            *tests,
        ]
        environment = os.environ | {"ARRAY_API_TESTS_MODULE": module, "JAX_ENABLE_X64": "1"}
        output = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
        if not report.exists():
            raise SystemExit(
                f"the suite in {suite} could not run:\n{output.stdout[-2000:]}{output.stderr[-2000:]}"
            )
        results = json.loads(report.read_text("utf-8"))["tests"]
    return {test["nodeid"] for test in results if test["outcome"] in ("failed", "error")}, len(results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", type=Path, help="a clone of data-apis/array-api-tests, with its submodule")
    parser.add_argument("--library", action="append", choices=LIBRARIES, help="numpy and strict by default")
    parser.add_argument("--max-examples", type=int, default=20)
    options = parser.parse_args()
    worse = False
    for library in options.library or ["numpy", "strict"]:
        spec, module = LIBRARIES[library]
        examples = options.max_examples
        alone, _ = failures(options.suite, module, examples, ["array_api_tests"])
        traced, number = failures(options.suite, TRACED.format(spec=spec), examples, ["array_api_tests"])
        new = sorted(traced - alone)
        if new:
            # The examples are random. What the library alone fails with others is a failure of its own.
            for seed in range(1, 13):
                new = sorted(set(new) - failures(options.suite, module, 100, new, seed)[0]) if new else []
        counts = f"{len(alone)} fail alone, {len(traced)} traced, {len(new)} traced only"
        print(f"{library}: {number} tests; {counts}")
        print("".join(f"  {name}\n" for name in new), end="")
        worse = worse or bool(new)
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
