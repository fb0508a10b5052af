"""Workers of joblib and Dask that fit estimators share the cores, and find what one process finds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["joblib", "dask"])
def test_workers_share_the_cores(kind):
    pytest.importorskip("sklearn")
    if kind == "dask":
        pytest.importorskip("distributed")  # as which dask.distributed is installed
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, Path(__file__).with_name("workers.py"), kind]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    (threads, scores), (of_workers, their_scores) = found["here"], found["workers"]
    assert scores == pytest.approx(their_scores)
    assert max(of_workers) <= max(1, max(threads) // 2)
