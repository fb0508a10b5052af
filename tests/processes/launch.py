"""Programs that mpiexec runs in several processes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent

# Also as root, and with more processes than cores: for Open MPI 5, its launcher, and Open MPI 4.
ALLOWED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}

MPIEXEC = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")


def _problem():
    """Return why there are no groups of processes here, or nothing."""
    if MPIEXEC is None or importlib.util.find_spec("mpi4py") is None:
        return "mpiexec or mpi4py is missing, see `nox -s processes`"
    command = [MPIEXEC, "-n", "2", sys.executable, "-c", "pass"]
    try:
        subprocess.run(
            command, capture_output=True, text=True, env=os.environ | ALLOWED, timeout=60, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return f"mpiexec starts no processes here: {error}"
    return ""


needs_mpi = pytest.mark.skipif(bool(problem := _problem()), reason=problem or "MPI works")

# As many processes as an ordinary run has, and more of them.
SIZES = [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]


class Run(NamedTuple):
    """How a program ended: its exit status, and what it printed."""

    status: int
    output: str


def launch(size, program, *arguments, seconds=120):
    """Run a function of `programs.py`, or ``"file.function"`` of another file, in so many processes."""
    file, _, name = program.rpartition(".")
    return start(size, FOLDER / f"{file or 'programs'}.py", name, *arguments, seconds=seconds)


def start(size, path, *arguments, seconds=120):
    """Run a program in so many processes."""
    environment = os.environ | ALLOWED | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [MPIEXEC, "-n", str(size), sys.executable, path, *map(str, arguments)]
    run = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        timeout=seconds,
        check=False,
    )
    return Run(run.returncode, run.stdout)


def passes(size, program, *arguments):
    """Run a function by `launch` that is to end well on all processes."""
    run = launch(size, program, *arguments)
    assert run.status == 0, run.output
    assert run.output.count("passed") == size, run.output
    return run
