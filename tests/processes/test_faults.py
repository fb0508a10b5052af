"""Whatever happens to a process of a group, all end soon, with one clear error."""

import pytest

from processes.launch import launch, needs_mpi

pytestmark = needs_mpi

DISAGREE = "all processes of a group must come to the same operations in the same order, received operation "


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        (
            "kinds",
            ["2: on rank 0, sum of float64 (3,), at", "on rank 1, mean of float64 (3,), at", "programs.py:"],
        ),
        ("shapes", ["1: on rank 0, sum of float64 (3,), at", "on rank 1, sum of float64 (4,), at"]),
        ("fourth", ["of float64 (2,), array 4 of 5, at", "of float64 (3,), array 4 of 5, at"]),
        ("orders", ["sum of float64 (2,), at", "sum of float64 of another order of bytes (2,), at"]),
        (
            "keys",
            ["sum of float64 (2,), array 1 of 2, a, b, at", "sum of float64 (2,), array 1 of 2, a, z, at"],
        ),
        ("forgotten", ["sum of float64 (1,), the gradient of sum at programs.py:", "on rank 1, sum of"]),
        (
            "crossed",
            ["the gradient of sum at programs.py:", "on rank 1, sum of float64 (1,), the gradient of"],
        ),
        ("roots", ["on rank 0, broadcast from rank 0 of", "on rank 1, broadcast from rank 1 of"]),
        ("uneven", ["3: on rank 0, the end of the program; on rank 1, sum of float64 (3,), at"]),
        ("ends", ["on rank 0, sum of float64 (3,), at", "on rank 1, the end of the program", "no data"]),
    ],
)
def test_processes_that_come_to_other_operations(program, texts):
    run = launch(2, program)
    assert run.status != 0
    assert run.output.count(DISAGREE) == 1, run.output
    for text in texts:
        assert text in run.output, run.output


def test_an_error_on_one_process_ends_all():
    run = launch(2, "raises")
    assert run.status != 0
    assert run.output.count("Traceback") == 1
    assert "xpnet: rank 1 of 2 failed, and all end with it." in run.output
    assert "ValueError: wrong data" in run.output


def test_a_process_that_is_killed_ends_all():
    assert launch(2, "killed").status != 0


def test_all_end_though_nothing_can_be_printed():
    assert launch(2, "silent").status != 0


def test_who_caught_that_others_ended_does_not_wait_for_them():
    assert launch(2, "caught_at_the_end", seconds=60).status == 0


def test_who_came_late_once_is_not_taken_for_one_who_waits():
    run = launch(2, "late")
    assert run.status != 0
    assert "xpnet: rank 1 has waited 6 s" in run.output
    assert "and rank 0 has not come" in run.output


@pytest.mark.parametrize("program", ["stopped", "caught"])
def test_a_process_that_does_not_come_ends_all(program):
    run = launch(2, program)
    assert run.status != 0
    assert run.output.count("xpnet: rank 0 has waited 2 s for the others of its group, at") == 1, run.output
    assert "and rank 1 has not come" in run.output
