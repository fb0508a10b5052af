"""What is written of a training while it goes on: tables, files for TensorBoard, lines in the log."""

import csv
import logging
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnet
from training.cases import classifier, same, train, weights
from xpnet import optim
from xpnet.training.callbacks import (
    Callback,
    Checkpoint,
    CSVLogger,
    LearningRateSchedule,
    ReduceLROnPlateau,
    TensorBoard,
)

SETTINGS = {"metrics": [xpnet.metrics.accuracy], "validation": 0.2, "epochs": 5}
NAMES = ["loss", "accuracy", "validation_loss", "validation_accuracy"]


class StopAfter(Callback):
    """Ends a training as Ctrl-C does, after a step."""

    def __init__(self, step):
        self.step = step

    def step_end(self, run):
        if run.step == self.step:
            raise KeyboardInterrupt


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# -- tables -------------------------------------------------------------------------------------------------


def test_table_has_a_row_for_each_epoch(device, tmp_path):
    path, sizes = tmp_path / "log.csv", []
    count = lambda run: sizes.append(len(rows(path)))
    schedule = LearningRateSchedule(lambda epoch: 0.5 / (1 + epoch))
    history = train(classifier(), callbacks=[schedule, CSVLogger(path), count], **SETTINGS)
    found = rows(path)
    assert sizes == [2, 3, 4, 5, 6]
    assert found[0] == ["epoch", *NAMES, "learning_rate"]
    for number, row in enumerate(found[1:]):
        assert row[0] == str(1 + number)
        assert [float(x) for x in row[1:5]] == [history[name][number] for name in NAMES]
        assert np.float32(row[5]) == np.float32(0.5 / (1 + number))


def test_learning_rate_in_the_table_is_that_of_the_epoch(tmp_path):
    path = tmp_path / "log.csv"
    plateau = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10.0)
    train(classifier(), optimizer=optim.SGD(0.5), callbacks=[plateau, CSVLogger(path)], epochs=4)
    assert [row[-1] for row in rows(path)[1:]] == ["0.5", "0.5", "0.25", "0.125"]


@pytest.mark.parametrize("every", [None, 1])
def test_table_of_a_resumed_training(tmp_path, every):
    path, saved = tmp_path / "log.csv", tmp_path / "run-{step}"
    table = CSVLogger(path)
    train(classifier(), callbacks=[table, Checkpoint(saved, every=every), StopAfter(10)], **SETTINGS)
    assert len(rows(path)) == 1 + 3  # of epochs of three steps
    # From the last epoch, or an earlier one, of which the rows are done again; also by another object.
    train(classifier(), callbacks=[table], resume=tmp_path / "run-9", **SETTINGS)
    whole = path.read_bytes()
    for step in (3, 6, 9) if every is None else (4, 6, 8):
        train(classifier(), callbacks=[CSVLogger(path)], resume=tmp_path / f"run-{step}", **SETTINGS)
        assert path.read_bytes() == whole
    path.unlink()
    train(classifier(), callbacks=[CSVLogger(path)], resume=tmp_path / "run-9", **SETTINGS)
    assert path.read_bytes() == whole
    train(classifier(), callbacks=[CSVLogger(tmp_path / "all.csv")], **SETTINGS)
    assert path.read_bytes() == (tmp_path / "all.csv").read_bytes()


def test_rates_of_epochs_before_a_table_are_left_out(tmp_path):
    path = tmp_path / "log.csv"
    train(classifier(), callbacks=[Checkpoint(tmp_path / "run")], epochs=2)
    history = train(classifier(), callbacks=[CSVLogger(path)], epochs=3, resume=tmp_path / "run")
    assert [float(row[1]) for row in rows(path)[1:]] == history["loss"]
    assert [row[2] for row in rows(path)[1:]] == ["", "", "0.02"]


def test_table_of_another_training_stays(tmp_path):
    path, net, table = tmp_path / "log.csv", classifier(2), CSVLogger(tmp_path / "log.csv")
    train(classifier(), callbacks=[table, Checkpoint(tmp_path / "run-{epoch}")])
    content, before = path.read_bytes(), weights(net)
    for again in (table, CSVLogger(path)):
        with pytest.raises(FileExistsError, match=r"must be a new file, .*pass overwrite=True"):
            train(net, callbacks=[again])
    # One that goes on from a file, but not from one of this training.
    train(classifier(1), callbacks=[CSVLogger(tmp_path / "2.csv"), Checkpoint(tmp_path / "run")], epochs=1)
    with pytest.raises(FileExistsError, match="must be a new file"):
        train(net, callbacks=[table], resume=tmp_path / "run")
    assert path.read_bytes() == content
    assert same(weights(net), before)
    train(net, callbacks=[CSVLogger(path, overwrite=True)])
    assert rows(path)[0] == ["epoch", "loss", "learning_rate"]
    assert path.read_bytes() != content


def test_table_that_others_change_meanwhile(tmp_path):
    path, seen = tmp_path / "log.csv", []

    def change(run):
        seen.append(path.read_bytes())
        if run.epoch == 1:
            path.unlink()
        elif run.epoch == 3:
            path.write_text("mine\n")

    with pytest.raises(FileExistsError, match="must be a new file"):
        train(classifier(), callbacks=[CSVLogger(path), change], epochs=5)
    assert [content.count(b"\n") for content in seen] == [2, 3, 4]
    assert seen[1].startswith(seen[0])
    assert path.read_text() == "mine\n"


def test_empty_file_and_one_that_a_training_began_are_taken(tmp_path):
    path = tmp_path / "log.csv"
    for content in ("", "epoch,lo", "epoch,loss,learning_rate\n"):
        path.write_text(content)
        train(classifier(), callbacks=[CSVLogger(path)])
        assert len(rows(path)) == 1 + 3


def test_state_of_a_table_that_does_not_fit(tmp_path):
    path = tmp_path / "log.csv"
    train(classifier(), callbacks=[CSVLogger(path), Checkpoint(tmp_path / "run")])

    class More(CSVLogger):
        def restore(self, run, state):
            super().restore(run, {"learning_rates": state["learning_rates"][:-1]})

    More.__name__ = "CSVLogger"
    with pytest.raises(ValueError, match=r"no state for CSVLogger\.0 that fits: .*rates of each epoch"):
        train(classifier(), callbacks=[More(path)], epochs=4, resume=tmp_path / "run")


@pytest.mark.parametrize("make", [CSVLogger, TensorBoard], ids=["table", "TensorBoard"])
def test_metric_with_the_name_of_another_column(tmp_path, make):
    if make is TensorBoard:
        pytest.importorskip("tensorboardX")
    metric = xpnet.metrics.Metric("learning_rate", lambda outputs, targets: (0.0,), lambda total: total)
    with pytest.raises(ValueError, match="others than epoch and learning_rate, received loss, learning_rate"):
        train(classifier(), metrics=[metric], callbacks=[make(tmp_path / "log")])
    assert list(tmp_path.iterdir()) == []


def test_table_without_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a folder that is there, received .*none\. Make it first"):
        train(classifier(), callbacks=[CSVLogger(tmp_path / "none" / "log.csv")])
    with pytest.raises(IsADirectoryError, match="nothing but a file may stand at it"):
        train(classifier(), callbacks=[CSVLogger(tmp_path)])


# -- TensorBoard --------------------------------------------------------------------------------------------


def scalars(folder):
    """Return what TensorBoard shows of a folder: a later file replaces what others have from its start on.

    A file is a row of records: the length in 8 bytes, its checksum in 4, an event, and its checksum.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = {}
    for path in sorted(Path(folder).iterdir()):
        data, start = path.read_bytes(), 0
        while start < len(data):
            (length,) = struct.unpack_from("<Q", data, start)
            event = Event.FromString(data[start + 12 : start + 12 + length])
            start += 12 + length + 4
            if event.session_log.status == SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            shown |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return shown


def as_single(history, names):
    values = {name: history[f"{names}{name}"] for name in ("loss", "accuracy")}
    return {(name, 1 + n): float(np.float32(x)) for name, all in values.items() for n, x in enumerate(all)}


def test_tensorboard_shows_the_history(device, tmp_path):
    pytest.importorskip("tensorboardX")
    seen = []
    look = lambda run: seen.append(len(scalars(tmp_path / "board" / "training")))
    board = TensorBoard(tmp_path / "board")
    history = train(classifier(), callbacks=[board, look], optimizer=optim.SGD(0.5), **SETTINGS)
    rates = {("learning_rate", epoch): 0.5 for epoch in range(1, 6)}
    assert scalars(tmp_path / "board" / "training") == as_single(history, "") | rates
    assert scalars(tmp_path / "board" / "validation") == as_single(history, "validation_")
    assert seen == [3, 6, 9, 12, 15]  # while it goes on


def test_tensorboard_of_a_resumed_training(tmp_path):
    pytest.importorskip("tensorboardX")
    path = tmp_path / "board"
    callbacks = [TensorBoard(path), Checkpoint(tmp_path / "run-{epoch}"), StopAfter(11)]
    train(classifier(), callbacks=callbacks, **SETTINGS)
    assert max(epoch for _, epoch in scalars(path / "training")) == 3
    for epoch in (3, 2):
        (again,) = callbacks[:1] if epoch == 3 else [TensorBoard(path)]
        resume = tmp_path / f"run-{epoch}"
        history = train(classifier(), callbacks=[again], resume=resume, **(SETTINGS | {"epochs": 5}))
        assert scalars(path / "validation") == as_single(history, "validation_")
        assert len(scalars(path / "training")) == 3 * 5
    assert len(list((path / "training").iterdir())) == 3


def test_directory_of_another_training_stays(tmp_path):
    pytest.importorskip("tensorboardX")
    board, net = TensorBoard(tmp_path / "board"), classifier()
    train(classifier(), callbacks=[board, Checkpoint(tmp_path / "run")], epochs=1)
    train(classifier(), callbacks=[Checkpoint(tmp_path / "other")], epochs=1)
    before, files = weights(net), sorted(tmp_path.rglob("*"))
    for again in (board, TensorBoard(tmp_path / "board")):
        with pytest.raises(FileExistsError, match=r"must be for this training alone, .*Choose another"):
            train(net, callbacks=[again])
        assert same(weights(net), before)
    with pytest.raises(FileExistsError, match="must be for this training alone"):
        train(net, callbacks=[board], resume=tmp_path / "other")
    assert sorted(tmp_path.rglob("*")) == files


def test_tensorboard_that_is_not_installed(monkeypatch, tmp_path):
    for name in ("tensorboardX", "tensorboardX.event_file_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="`pip install tensorboardX` installs it"):
        TensorBoard(tmp_path)


def test_no_file_says_what_others_are_called(tmp_path):
    pytest.importorskip("tensorboardX")
    for key in ("../../../x", "ABCDEFGH", "0123abcd5"):
        with pytest.raises(ValueError, match="eight digits"):
            TensorBoard(tmp_path).restore(None, {"key": key})


# -- lines in the log ---------------------------------------------------------------------------------------


def test_line_for_each_epoch_where_there_is_no_terminal(caplog):
    caplog.set_level(logging.INFO, logger="xpnet")
    history = train(classifier(), validation=0.2, progress=True)
    lines = [record.getMessage() for record in caplog.records]
    pairs = zip(history["loss"], history["validation_loss"], strict=True)
    assert [re.sub(r"\d+\.\d s", "T", line) for line in lines] == [
        f"epoch {1 + n}/3: loss {a:.3g}, validation_loss {b:.3g} (T)" for n, (a, b) in enumerate(pairs)
    ]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_no_line_where_none_is_asked_for(caplog, level):
    caplog.set_level(level, logger="xpnet")
    train(classifier(), progress=level == logging.WARNING)
    assert caplog.records == []


# -- functions ----------------------------------------------------------------------------------------------


def test_functions_are_called_after_each_epoch_in_order():
    seen = []

    class Note(Callback):
        def epoch_end(self, run):
            seen.append(("callback", run.epoch))

    def stop(run):
        seen.append(("function", run.epoch, len(run.history)))
        run.stop = run.epoch == 2

    history = train(classifier(), callbacks=[lambda run: seen.append(("first", run.epoch)), Note(), stop])
    assert len(history) == 2
    assert seen == [entry for n in (1, 2) for entry in (("first", n), ("callback", n), ("function", n, n))]


def test_method_of_an_object_is_a_function():
    seen = []
    train(classifier(), callbacks=[seen.append], epochs=2)
    assert [run.epoch for run in seen] == [2, 2]
