"""Groups of processes: their operations, gradients and recordings, in as many processes as mpiexec starts."""

import importlib.util

import numpy as np
import pytest

from processes.launch import SIZES, needs_mpi, passes

pytestmark = needs_mpi


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "program",
    [
        "trees",
        "networks",
        "gradients",
        "recorded",
        "eager_or_recorded",
        "normalized",
        "handled",
        "forked",
    ],
)
def test_group(size, program):
    passes(size, program)


@pytest.mark.parametrize("spec", ["cpu", "strict", "torch", "jax"])
@pytest.mark.parametrize("size", SIZES)
def test_operations(size, spec):
    if spec in ("torch", "jax") and importlib.util.find_spec(spec) is None:
        pytest.skip(f"{spec} is not installed")
    passes(size, "operations", spec)


@pytest.mark.parametrize("size", SIZES[1:])
def test_training_is_that_of_one_process(size, tmp_path):
    found = []
    for number in (1, size):
        passes(number, "training", tmp_path / f"{number}.npz")
        with np.load(tmp_path / f"{number}.npz") as file:
            found.append([file[name] for name in file.files])
    for one, several in zip(*found, strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-9)
