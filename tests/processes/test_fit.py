"""A training by `fit` in several processes is that of one."""

from pathlib import Path

import numpy as np
import pytest

from processes.launch import SIZES, launch, needs_mpi, passes, start

pytestmark = needs_mpi

ROOT = Path(__file__).parents[2]


def files(folder):
    found = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            found[path.stem] = dict(file)
    return found


def assert_same(found, expected, rtol=1e-6):
    assert found.keys() == expected.keys()
    for name in found:
        # The bias before a BatchNorm has no gradient but rounding.
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=0.1 * rtol, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What trainings in one process give."""
    folder = tmp_path_factory.mktemp("alone")
    passes(1, "trainings.all_kinds", folder)
    return files(folder)


@pytest.mark.parametrize("program", ["all_kinds", "sharded"])
@pytest.mark.parametrize("size", SIZES[1:])
def test_training_is_that_of_one_process(size, program, alone, tmp_path):
    passes(size, f"trainings.{program}", tmp_path)
    found = files(tmp_path)
    assert found.keys() == alone.keys()
    for kind in found:
        assert_same(found[kind], alone[kind], rtol=1e-6 if "float16" not in kind else 1e-3)


@pytest.mark.parametrize("spec", ["strict", "torch", "jax"])
def test_training_on_other_libraries(spec, tmp_path):
    if spec in ("torch", "jax"):
        pytest.importorskip(spec)
    for size in (1, 2):
        passes(size, "trainings.library", spec, tmp_path)
    found = files(tmp_path)
    assert_same(found["2"], found["1"])


@pytest.mark.parametrize("size", SIZES[1:])
def test_estimators_are_those_of_one_process(size, tmp_path):
    pytest.importorskip("sklearn")
    folders = [tmp_path / str(number) for number in (1, size)]
    for number, folder in zip((1, size), folders, strict=True):
        folder.mkdir()
        passes(number, "trainings.estimators", folder)
    expected, found = map(files, folders)
    assert expected.keys() == {"classifier", "stopping", "regressor", "weighted"}
    for name in expected:
        assert_same(found[name], expected[name])


def test_estimators_without_a_seed_are_the_same_on_all():
    pytest.importorskip("sklearn")
    passes(2, "trainings.unseeded_estimators")


def test_the_example(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    run = start(2, ROOT / "examples" / "processes.py", "--small", "--device", "cpu", "--output", tmp_path)
    assert run.status == 0, run.output
    assert run.output.count("processes     2") == 1
    assert (tmp_path / "processes.png").exists()


@pytest.mark.parametrize("size", SIZES[1:])
def test_batches_from_outside_are_each_process_s_own(size, tmp_path):
    found = []
    for number in (1, size):
        folder = tmp_path / str(number)
        folder.mkdir()
        passes(number, "trainings.from_batches", folder)
        found.append(files(folder))
    for name in ("batches", "array"):
        assert_same(found[1][name], found[0][name])


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("1", "2"),
        ("2", "1"),
        ("1", "2 shard"),
        ("2 shard", "1"),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("4", "2"), ("2", "3"), ("4 shard", "3 shard"))),
    ],
)
def test_a_training_goes_on_with_another_number_of_processes(first, then, alone, tmp_path):
    (number, *shard), (other, *then_shard) = first.split(), then.split()
    assert launch(int(number), "trainings.interrupted", tmp_path, *shard).status == 0
    passes(int(other), "trainings.resumed", tmp_path, *then_shard)
    assert_same(files(tmp_path)["found"], alone["resumed"])
    table = (tmp_path / "table.csv").read_text().splitlines()
    assert len(table) == 1 + 20  # epochs


@pytest.mark.slow
def test_a_training_whose_processes_are_killed_again_and_again_ends_as_an_undisturbed_one(alone, tmp_path):
    random, kills = np.random.default_rng(0), 0
    while not (tmp_path / "found.npz").exists():
        run = launch(random.integers(1, 4), "trainings.killed_again", tmp_path, kills)
        assert "Traceback" not in run.output, run.output
        kills += run.status != 0
    assert kills == 50
    assert_same(files(tmp_path)["found"], alone["resumed"])


@pytest.mark.parametrize("program", ["seeds", "nan", "nan shard", "stops"])
def test_what_processes_share(program):
    name, *arguments = program.split()
    passes(2, f"trainings.{name}", *arguments)


@pytest.mark.parametrize("size", SIZES[1:])
def test_states_in_pieces_are_those_of_whole_arrays(size, tmp_path):
    passes(size, "trainings.states", tmp_path)
    found = files(tmp_path)
    for name in ("whole", "optimizer", "pieces", "first"):
        assert_same(found[name], found["plain"])


def test_an_optimizer_that_a_callback_replaces_is_in_pieces_too(tmp_path):
    passes(2, "trainings.replaced", tmp_path)
    found = files(tmp_path)
    assert_same(found["whole"], found["plain"])


def test_weights_that_no_longer_move_in_the_piece_of_one_process_are_told():
    assert passes(2, "trainings.stuck").output.count("some weights may no longer move, as transforms") == 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_all_after_one_step(name):
    passes(2, "trainings.pressed", name)


def test_a_loss_that_is_no_mean_is_told():
    assert passes(2, "trainings.no_mean").output.count("is not the mean of") == 1


def test_one_process_shows_the_progress():
    output = passes(2, "trainings.logs").output
    assert output.count("epoch 1/2") == output.count("epoch 2/2") == 1


def test_processes_with_the_same_batches_are_told():
    output = passes(2, "trainings.same_batches").output
    assert output.count("some processes have the same first batch") == 1


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        ("uneven", ["an end after 3 on rank 0, and more on rank 1"]),
        ("nan_in_validation", ["the validation loss must be finite", "at row 29, column 0, which is nan"]),
        ("nan_in_batches", ["batch 2, first in x at row 5 of the batch, column 1, which is nan"]),
        (
            "nan_with_groups_of_ones_own",
            ["batch 2, first in x at row 5 of the batch, column 1, which is nan"],
        ),
        ("bad_index", ["17"]),
        ("weights_overflow", ["FloatingPointError", "Lower the learning rate"]),
        ("diverging", ["weights and state must stay the same", "received another layers.0.weight on rank 1"]),
        ("diverging_before_an_epoch", ["received another layers.0.weight on rank 1", "before epoch 2"]),
        ("diverging_rate", ["received another number in the state of the optimizer on rank 1"]),
        ("own_statistics", ["must stay the same on all processes, received another mean on rank 1"]),
        ("nothing_to_resume", ["FileNotFoundError"]),
        ("orders", ["must put the examples in the same order, received another one on rank 1"]),
        ("raises", ["xpnet: rank 1 of 2 failed", "ValueError: wrong step"]),
        ("wrong_labels", ["xpnet: rank 0 of 2 failed", "ValueError"]),
    ],
)
def test_an_error_ends_all(program, texts):
    run = launch(2, f"trainings.{program}")
    assert run.status != 0
    assert run.output.count("Traceback") == 1, run.output
    for text in texts:
        assert text in run.output, run.output


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("network", "received the network: layers.1.weight float64 (16, 1) on rank 0 and layers.1.weight"),
        ("layers", "received the layers: "),
        ("length", "received data: examples 103 on rank 0 and examples 102 on rank 1"),
        ("rows", "received the examples of x, of which each process is given all: "),
        ("batch size", "received data: batch_size 20 on rank 0 and batch_size 21 on rank 1"),
        ("rate", "received the optimizer: Adam(learning_rate=0.01"),
        ("seed", "received the seed, or the state of its generator: "),
        ("a seed", "all processes must be given seed, or none, received it on rank 1, and not on rank 0"),
        ("epochs", "received epochs: 3 on rank 0 and 4 on rank 1"),
        ("loss", "received the loss: "),
        ("class weight", "received class_weight: "),
        ("last row", "received the examples of x, of which each process is given all: "),
        ("callback", "received callbacks: "),
        ("resume", "or none, received it on rank 1, and not on rank 0"),
        ("callbacks", "received callbacks: 0 of them on rank 0 and 1 of them on rank 1"),
        ("shard", "must be given shard, or none, received it on rank 1, and not on rank 0"),
    ],
)
def test_processes_that_are_given_different_things(what, text):
    run = launch(2, "trainings.differ", what)
    assert run.status != 0
    assert run.output.count("Traceback") == 1, run.output
    assert "all processes must be given " in run.output
    assert text in run.output, run.output
