"""Groups of GPUs by NCCL, on a stand-in for it: no GPU has shown this."""

import pytest

from processes.launch import SIZES, launch, needs_mpi, passes

pytestmark = needs_mpi


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("program", ["operations", "sharded"])
def test_between_gpus(size, program):
    passes(size, f"gpus.{program}")


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("one_gpu", "through the memory of the host: some processes have the same GPU."),
        ("without_nccl", "through the memory of the host: on rank 1, CuPy finds no NCCL. `pip install"),
    ],
)
def test_gpus_that_nccl_cannot_join(program, text):
    assert text in passes(2, f"gpus.{program}").output


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("mixed", "on rank 0, sum by NCCL of float64 (3,)"),
        ("another_gpu", "received arrays on cuda:5 after some on cuda:0"),
        ("fails", "an exchange between GPUs failed: remote process exited. All processes end."),
        ("hangs", "an exchange between GPUs did not end within 2 s. All processes end."),
    ],
)
def test_an_error_ends_all(program, text):
    run = launch(2, f"gpus.{program}", seconds=25)
    assert run.status != 0
    assert text in run.output, run.output
