"""Optimizers of which each process has a piece."""

import importlib.util

import pytest

from processes.launch import SIZES, launch, needs_mpi, passes

pytestmark = needs_mpi


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(
    "program", ["optimizers", "dtypes", "refused", "states", "gradients", "in_turns", "overflows"]
)
def test_sharded(size, program):
    passes(size, f"shards.{program}")


@pytest.mark.parametrize("spec", ["strict", "torch", "jax"])
@pytest.mark.parametrize("size", SIZES[1:])
def test_other_libraries(size, spec):
    if spec in ("torch", "jax") and importlib.util.find_spec(spec) is None:
        pytest.skip(f"{spec} is not installed")
    passes(size, "shards.libraries", spec)


def test_all_processes_must_shard():
    run = launch(2, "shards.only_one")
    assert run.status != 0
    assert run.output.count("Traceback") == 1, run.output
    assert "on rank 0, mean of float64 (5, 33)" in run.output, run.output
    assert "on rank 1, sum in pieces of float64 (5, 33)" in run.output, run.output
