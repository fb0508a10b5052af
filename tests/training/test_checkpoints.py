"""Trainings that go on from a file, and the files that are kept."""

import sys

import numpy as np
import pytest

import xpnet
from training import kills
from training.cases import X, Y, classifier, same, train, weights
from xpnet import losses, optim
from xpnet.files.networks import read_parts, write_parts
from xpnet.nn import Dense, Dropout, Sequential
from xpnet.training.callbacks import Callback, Checkpoint, EarlyStopping


def dropping(seed=0):
    return Sequential(Dense(3, 8, seed=seed), Dropout(0.3, seed=seed), Dense(8, 2, seed=seed + 1))


class StopAfter(Callback):
    """Ends a training as Ctrl-C does, after a step."""

    def __init__(self, step):
        self.step = step

    def step_end(self, run):
        if run.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [3, 4, 6, 9])  # in each of three epochs of four steps, and at the end of one
@pytest.mark.parametrize(
    ("jit", "optimizer"),
    [
        (False, optim.Adam(0.02)),
        (True, optim.Adam(0.02)),
        (True, optim.SGD(lambda step: 0.1 / (1 + step), momentum=0.9)),
    ],
)
def test_resumed_training_is_the_uninterrupted_one(tmp_path, device, jit, step, optimizer):
    settings = {
        "optimizer": optimizer,
        "validation": 0.1,
        "epochs": 3,
        "batch_size": 15,
        "metrics": [xpnet.metrics.accuracy, xpnet.metrics.r2],
        "loss": lambda outputs, targets: losses.mse(outputs, targets),
        "y": np.stack([Y, 1 - Y], axis=1).astype("float32"),
        "jit": jit,
    }
    expected, net = dropping(), dropping()
    whole = train(expected, **settings)
    path = tmp_path / "run.safetensors"
    train(net, callbacks=[Checkpoint(path, every=1), StopAfter(step + 1)], **settings)
    # Another network, and no seed: all of it comes from the file.
    resumed = dropping(seed=7)
    history = train(resumed, resume=path, **(settings | {"seed": None}))
    assert {name: history[name] for name in history} == {name: whole[name] for name in whole}
    assert same(weights(resumed), weights(expected))
    assert np.array_equal(xpnet.to_numpy(resumed[1].random_state), xpnet.to_numpy(expected[1].random_state))


def test_no_step_is_taken_twice(tmp_path):
    path, steps = tmp_path / "run.safetensors", []

    class Count(Callback):
        def step_end(self, run):
            steps.append(run.step)

        def epoch_start(self, run):
            steps.append(f"epoch {run.epoch}")

    # The checkpoint of step 6 is written after the interruption of this step was asked for.
    train(classifier(), callbacks=[Checkpoint(path, every=2), StopAfter(7)], epochs=3)
    train(classifier(), callbacks=[Count()], epochs=3, resume=path)
    assert steps == [7, 8, "epoch 3", 9, 10, 11, 12]


@pytest.mark.parametrize("seed", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_every_generator_of_numpy_goes_on(tmp_path, seed):
    path, expected, resumed = tmp_path / "run.safetensors", classifier(), classifier()
    train(expected, seed=np.random.Generator(seed(3)))
    train(classifier(), seed=np.random.Generator(seed(3)), epochs=1, callbacks=[Checkpoint(path)])
    train(resumed, seed=np.random.Generator(seed(5)), resume=path)
    assert same(weights(resumed), weights(expected))


@pytest.mark.parametrize(("seed", "place"), [(np.random.MT19937, "pos"), (np.random.Philox, "buffer_pos")])
def test_a_file_says_no_place_beside_the_numbers_of_a_generator(tmp_path, seed, place):
    path = tmp_path / "run.safetensors"
    train(classifier(), seed=np.random.Generator(seed(3)), epochs=1, callbacks=[Checkpoint(path)])
    parts = read_parts(path)
    loaded = {name: parts.load(name, device="cpu") for name in ("net", "optimizer", "training")}
    for state in loaded["training"]["random"].values():
        (state if place in state else state["state"])[place] = -100
    write_parts(path, loaded)
    with pytest.raises(ValueError, match="place in the numbers of a generator"):
        train(classifier(), seed=np.random.Generator(seed(3)), resume=path)


def test_finished_training(tmp_path):
    path, net, resumed = tmp_path / "run.safetensors", classifier(), classifier(seed=4)
    history = train(net, callbacks=[Checkpoint(path)])
    again = train(resumed, resume=path)
    assert again["loss"] == history["loss"]
    assert same(weights(resumed), weights(net))


def test_state_of_callbacks_goes_on(tmp_path):
    class Worse(Callback):
        """Makes epochs after the second worse."""

        def epoch_end(self, run):
            if run.epoch > 2:
                run.net = xpnet.tree.map(lambda x: 0.5 * x, run.net)

    def callbacks(*others):
        stopping = EarlyStopping("loss", patience=3)
        best = Checkpoint(tmp_path / "best.safetensors", monitor="loss")
        return [Checkpoint(tmp_path / "last.safetensors"), best, stopping, Worse(), *others]

    expected = classifier()
    whole = train(expected, epochs=20, callbacks=callbacks())
    best = (tmp_path / "best.safetensors").read_bytes()
    assert len(whole) < 20
    for step in (9, 13, 17):
        (tmp_path / "best.safetensors").unlink()
        net = classifier()
        train(net, epochs=20, callbacks=callbacks(StopAfter(step)))
        history = train(net, epochs=20, callbacks=callbacks(), resume=tmp_path / "last.safetensors")
        assert history["loss"] == whole["loss"]
        assert same(weights(net), weights(expected))
        assert (tmp_path / "best.safetensors").read_bytes() == best


def test_resume_from_a_training_that_had_stopped(tmp_path):
    path = tmp_path / "run.safetensors"
    stopping = EarlyStopping("loss", patience=1, min_delta=10.0)
    history = train(classifier(), epochs=9, callbacks=[stopping, Checkpoint(path)])
    assert len(history) == 2
    assert len(train(classifier(), epochs=9, callbacks=[stopping], resume=path)) == 2


def test_resume_from_a_training_that_a_truth_of_numpys_stopped(tmp_path):
    class Stop(Callback):
        def epoch_end(self, run):
            run.stop = np.float32(run.epoch) > 1

    path = tmp_path / "run.safetensors"
    assert len(train(classifier(), epochs=9, callbacks=[Stop(), Checkpoint(path)])) == 2
    assert len(train(classifier(), epochs=9, resume=path)) == 2


# -- the files --------------------------------------------------------------------------------------------


def names(path):
    return sorted(file.name for file in path.iterdir())


def test_checkpoint_is_a_network_that_loads(tmp_path):
    net = classifier()
    train(net, epochs=2, callbacks=[Checkpoint(tmp_path / "net-{epoch}.safetensors")])
    assert names(tmp_path) == ["net-1.safetensors", "net-2.safetensors"]
    path = tmp_path / "net-2.safetensors"
    for loaded in (xpnet.load(path), xpnet.load(path, into=classifier(3))):
        assert same(weights(loaded), weights(net))


def test_last_files_and_the_best_are_kept(tmp_path):
    losses = iter([3.0, 1.0, 2.0, 4.0, 5.0])
    score = xpnet.metrics.Metric("score", lambda outputs, targets: (0.0,), lambda _: next(losses))
    callbacks = [
        Checkpoint(tmp_path / "{epoch}-{step}", keep=2),
        Checkpoint(tmp_path / "best-{epoch}", monitor="score", mode="min", keep=1),
    ]
    train(classifier(), epochs=5, metrics=[score], callbacks=callbacks)
    assert names(tmp_path) == ["4-16", "5-20", "best-2"]


def test_files_of_a_resumed_training_are_counted(tmp_path):
    path = tmp_path / "net-{step}"
    callbacks = [Checkpoint(path, keep=3, every=3), StopAfter(8)]
    train(classifier(), callbacks=callbacks)
    assert names(tmp_path) == ["net-3", "net-4", "net-6"]
    train(classifier(), callbacks=[Checkpoint(path, keep=3, every=3)], resume=tmp_path / "net-6")
    assert names(tmp_path) == ["net-12", "net-8", "net-9"]


def test_no_file_says_what_is_removed(tmp_path):
    (tmp_path / "precious").touch()
    callbacks = [Checkpoint(tmp_path / "{epoch}", keep=1)]
    train(classifier(), callbacks=callbacks)
    callbacks[0].restore(None, {"written": [[1, 4], [2, 8]], "best": None})
    for written in ([["precious", 1]], [["../precious", 1]], "precious"):
        with pytest.raises(ValueError, match=r"invalid literal|not enough values|too many values"):
            callbacks[0].restore(None, {"written": written, "best": None})


def test_what_a_killed_training_left_is_removed(tmp_path):
    left = ["net-12.safetensors.0123abcd.part", "net-1.safetensors.ffffffff.part"]
    others = ["net-x.safetensors.0123abcd.part", "net-1.safetensors.part", "other.safetensors.0123abcd.part"]
    for name in left + others:
        (tmp_path / name).touch()
    train(classifier(), epochs=1, callbacks=[Checkpoint(tmp_path / "net-{epoch}.safetensors")])
    assert names(tmp_path) == sorted([*others, "net-1.safetensors"])


def test_long_names(tmp_path):
    name = "é" * 115 + "-{epoch}-{step}.safetensors"
    files = [name.format(epoch=epoch, step=4 * epoch) for epoch in (1, 2)]
    left, other = (tmp_path / ("é" * 115 + f"{end}.0123abcd.part") for end in ("-12-345.saf", "-best.safet"))
    try:
        left.touch()
    except OSError:
        pytest.skip("the names of files are shorter here")
    other.touch()
    train(classifier(), epochs=2, callbacks=[Checkpoint(tmp_path / name)])
    assert names(tmp_path) == [*files, other.name]
    assert len(train(classifier(), epochs=3, resume=tmp_path / files[1])["loss"]) == 3


# -- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a positive integer, received 0"),
        ({"keep": 1.5}, r"keep must be a positive integer, received 1\.5"),
        ({"every": 2, "monitor": "loss"}, "loss is known after an epoch, not after every=2 steps"),
        ({"path": "w.{epoch:02d}-{val_loss:.2f}"}, r"received \{epoch:02d\}, \{val_loss:\.2f\}\. Leave"),
    ],
)
def test_bad_checkpoint(options, message):
    with pytest.raises(ValueError, match=message):
        Checkpoint(**({"path": "path"} | options))


def test_checkpoint_without_a_folder(tmp_path):
    net = classifier()
    before = weights(net)
    with pytest.raises(FileNotFoundError, match=r"a folder that is there, received .*none\. Make it"):
        train(net, callbacks=[Checkpoint(tmp_path / "none" / "path")])
    assert same(weights(net), before)


def test_checkpoint_where_no_file_can_be(tmp_path):
    net = classifier()
    before = weights(net)
    with pytest.raises(IsADirectoryError, match="nothing but a file may stand at it"):
        train(net, callbacks=[Checkpoint(tmp_path)])
    assert same(weights(net), before)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 15}, r"the batch size and the metrics of the training in .*'batch_size': 16"),
        ({"x": X[:50], "y": Y[:50]}, "'examples': 60, .* received {'examples': 50"),
        ({"metrics": [xpnet.metrics.accuracy]}, r"\['loss'\], received \['loss', 'accuracy'\]"),
        ({"net": dropping()}, "the network must fit the file"),
        ({"optimizer": optim.SGD(0.1)}, "the network must fit the file .*optimizer/transforms"),
        ({"seed": np.random.Generator(np.random.MT19937(0))}, "a seed of the kind that the training had"),
    ],
)
def test_resume_with_something_else_changes_nothing(tmp_path, changes, message):
    path = tmp_path / "run.safetensors"
    train(classifier(), epochs=1, callbacks=[Checkpoint(path)])
    net = changes.get("net", classifier(seed=5))
    before = weights(net)
    with pytest.raises(ValueError, match=message):
        train(**({"net": net, "resume": path} | changes))
    assert same(weights(net), before)


def test_resume_from_no_checkpoint(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError):
        train(classifier(), resume=path)
    xpnet.save(classifier(), path)
    with pytest.raises(
        ValueError, match=r"a file that xpnet\.callbacks\.Checkpoint wrote, .*a network alone"
    ):
        train(classifier(), resume=path)


# -- SIGKILL ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a signal of Unix")
@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_trainings_lose_nothing(tmp_path, mode, number):
    assert kills.survive(tmp_path, mode, number=number, seed=0)[0] == number
