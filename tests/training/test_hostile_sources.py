"""Files, data sets and loaders that are not as they should be: an error that says what to do, and no trace.

The network then is as before the epoch, and nothing stays behind: no thread, no open file, no generator.
"""

import gc
import itertools
import os
import signal
import sys
import textwrap
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from helpers import run_python

import xpnet
from training import test_interrupts
from training.cases import X, Y, classifier, same, train, weights
from training.sources import (
    BATCHES,
    INDEXED,
    Dataset,
    KerasSequence,
    Lazy,
    Loader,
    ManyAtOnce,
    Stateful,
    Unsized,
    batches_of,
    columns_of,
    dask_array,
    is_increasing,
    is_slice,
)
from training.test_interrupts import Steps, pressing
from xpnet import losses, nn
from xpnet.training.callbacks import Callback


class Epochs(Callback):
    """Notes the weights after each epoch."""

    def __init__(self):
        self.weights = []

    def epoch_end(self, run):
        self.weights.append(weights(run.net))


def assert_refused(error, message, *data, epoch=1, net=None, callbacks=(), **options):
    """Assert that a training ends with an error, and that the network is as it was before an epoch."""
    net, epochs = net or classifier(), Epochs()
    before = weights(net)
    x, y = data if len(data) == 2 else (*data, None)
    settings = {"shuffle": False} if len(data) == 2 or isinstance(x, Dataset) else {"batch_size": None}
    settings |= {"jit": False, "callbacks": [epochs, *callbacks]}
    with np.errstate(all="ignore"), pytest.raises(error, match=message) as caught:
        train(net, x, y, **(settings | options))
    assert len(epochs.weights) == epoch - 1
    assert same(weights(net), [before, *epochs.weights][-1])
    return caught.value


def changed(number, x=None, y=None):
    """Return batches of which one, counted from 1, has something else in it."""
    batches = batches_of(X, Y)
    old = batches[number - 1]
    batches[number - 1] = (old[0] if x is None else x(old[0]), old[1] if y is None else y(old[1]))
    return batches


def replaced(number, batch):
    batches = batches_of(X, Y)
    batches[number - 1] = batch
    return batches


def open_files():
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return set()
    found = set()
    for entry in folder.iterdir():
        try:
            found.add((entry.name, os.readlink(entry)))
        except OSError:  # that of the list itself
            continue
    return found


@pytest.fixture
def nothing_stays():
    """Assert that no thread and no open file is there after the test that was not there before."""
    gc.collect()
    threads, files = set(threading.enumerate()), open_files()
    yield
    assert set(threading.enumerate()) <= threads
    assert open_files() <= files


FORMS = {name: BATCHES[name] for name in ("list", "generator function", "loader", "with a state", "Keras")}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

# -- arguments that do not go together ----------------------------------------------------------------------


@pytest.mark.parametrize("form", [*FORMS.values(), iter], ids=[*FORMS, "iterator"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": Y}, "y must be left out .*received"),
        ({"batch_size": 16}, r"batch_size must be left out .*received 16\. \w"),
        ({"shuffle": "blocks"}, r"shuffle must be left out .*received 'blocks'\. \w"),
        ({"shuffle": lambda rows: rows}, r"shuffle must be left out .*received .*function.*\. \w"),
        ({"block_size": 4}, r"block_size must be left out .*received 4\. \w"),
        ({"validation": 0.2}, r"validation=0\.2 .*received batches.*\. \w"),
    ],
    ids=["y", "batch_size", "blocks", "order", "block_size", "share"],
)
def test_what_does_not_go_with_batches(form, options, message):
    settings = {"batch_size": None, "shuffle": True, "y": None, "epochs": 1} | options
    y = settings.pop("y")
    assert_refused((TypeError, ValueError), message, form(batches_of(X, Y)), y, **settings)


def test_size_beside_batches_to_predict():
    for form in (*FORMS.values(), iter):
        with pytest.raises((TypeError, ValueError), match=r"batch_size.*received.*16.*\. \w"):
            xpnet.predict(classifier(), form(batches_of(X, Y)), batch_size=16)


@pytest.mark.parametrize("block_size", [0, -1, 2.5, "4", True])
def test_size_of_blocks_that_is_none(block_size):
    message = "block_size must be a positive integer, received"
    assert_refused((TypeError, ValueError), message, X, Y, shuffle="blocks", block_size=block_size)


@pytest.mark.parametrize("shuffle", ["block", "true", 1, None])
def test_shuffle_that_is_none(shuffle):
    assert_refused((TypeError, ValueError), "blocks.*, shuffle must be .*, received", X, Y, shuffle=shuffle)


# -- how many batches ---------------------------------------------------------------------------------------

EMPTY = {
    "list": [],
    "loader": Loader([]),
    "loader without length": Unsized([]),
    "function of an iterator": lambda: iter(()),
    "function of a list": lambda: [],
    "Keras": KerasSequence([]),
    "data set": Dataset(X[:0], Y[:0]),
}


@pytest.mark.parametrize("batches", EMPTY.values(), ids=EMPTY)
def test_nothing_to_train_on(batches):
    assert_refused(ValueError, r"at least one .*received (none|0)", batches)


@pytest.mark.parametrize("batches", EMPTY.values(), ids=EMPTY)
def test_nothing_to_predict(batches):
    with pytest.raises(ValueError, match=r"at least one .*received (none|0)"):
        xpnet.predict(classifier(), batches)


@pytest.mark.parametrize("kind", ["loader", "function of an iterator", "function of a list", "Keras"])
def test_nothing_to_validate_on(kind):
    assert_refused(ValueError, r"(?s)at least one .*received (none|0)", X, Y, validation=EMPTY[kind])


def test_nothing_is_left_for_a_later_epoch():
    """An object that gives the same iterator each time, as an open file does."""

    class Once:
        def __init__(self):
            self.batches = iter(batches_of(X, Y))

        def __iter__(self):
            yield from self.batches

    assert_refused(ValueError, r"at least one batch in each epoch, received none\. \w", Once(), epoch=2)
    assert_refused(
        ValueError, r"at least one batch in each epoch, received none\. \w", X, Y, validation=Once(), epoch=2
    )


ONE_SHOT = {
    "iterator": lambda: iter(batches_of(X, Y)),
    "generator": lambda: (pair for pair in batches_of(X, Y)),
    "map": lambda: map(tuple, batches_of(X, Y)),
    "repeat": lambda: itertools.repeat((X, Y)),
    "cycle": lambda: itertools.cycle(batches_of(X, Y)),
}
ONCE = r"for 3 epochs must be .*, received a \w+, which ends.*a function"


@pytest.mark.parametrize("make", ONE_SHOT.values(), ids=ONE_SHOT)
def test_an_iterator_for_several_epochs(make):
    batches = make()
    assert_refused(ValueError, ONCE, batches)
    assert same(next(batches), (X, Y) if isinstance(batches, itertools.repeat) else (X[:16], Y[:16]))


@pytest.mark.parametrize("make", ONE_SHOT.values(), ids=ONE_SHOT)
def test_an_iterator_for_several_validations(make):
    assert_refused(ValueError, ONCE, X, Y, validation=make())


@pytest.mark.parametrize("name", ["count", "repeat", "cycle"])
def test_what_has_no_end(name):
    endless = getattr(itertools, name)(*([] if name == "count" else [(X, Y)]))
    assert_refused(ValueError, rf"must have an end, received itertools.{name}\. \w", endless, epochs=1)
    assert_refused(ValueError, rf"must have an end, received itertools.{name}\. \w", lambda: endless)


def test_an_endless_epoch_ends_by_ctrl_c():
    class Press(Callback):
        def step_end(self, run):
            if run.step == 9:
                signal.raise_signal(signal.SIGINT)

    def batches():
        while True:
            yield from batches_of(X, Y)

    assert train(classifier(), batches, None, batch_size=None, epochs=1, callbacks=[Press()]).interrupted


def test_a_repetition_that_has_an_end():
    net = classifier()
    train(net, lambda: itertools.repeat((X, Y), 4), None, batch_size=None)
    right = classifier()
    train(right, 4 * [(X, Y)], None, batch_size=None)
    assert same(weights(net), weights(right))


class Claiming(Loader):
    """Batches whose length is not true."""

    def __init__(self, length):
        super().__init__(batches_of(X, Y))
        self.length = length

    def __len__(self):
        return self.length


@pytest.mark.parametrize(
    ("length", "received"), [(1, "more than the 1"), (3, "more than the 3"), (5, "4"), (1000, "4")]
)
def test_a_length_that_is_not_true(length, received):
    message = rf"must be as many as they say, .*received {received}.*\. \w"
    assert_refused(ValueError, message, Claiming(length))
    assert_refused(ValueError, message, X, Y, validation=Claiming(length))
    with pytest.raises(ValueError, match=message):
        xpnet.predict(classifier(), Claiming(length))


def test_a_length_that_is_not_true_any_more():
    class Shrinking(Loader):
        def __iter__(self):
            yield from self.batches
            self.batches = self.batches[:2]

        def __len__(self):
            return 4

    assert_refused(
        ValueError, r"as many as they say, 4, received 2\. \w", Shrinking(batches_of(X, Y)), epoch=2
    )


@pytest.mark.parametrize("error", [TypeError, NotImplementedError])
def test_a_length_that_is_not_known(error):
    """So a DataLoader of PyTorch says it, and so do data sets of its kind."""

    class Unknown(Loader):
        def __len__(self):
            raise error("no length")

    one, other = classifier(), classifier()
    train(one, Unknown(batches_of(X, Y)), None, batch_size=None)
    train(other, batches_of(X, Y), None, batch_size=None)
    assert same(weights(one), weights(other))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, r"received.*None"),
        (lambda: 3, r"received a function that returns int"),
        (lambda epoch: batches_of(X, Y), r"without arguments|no arguments|argument"),
        (Loader, r"class Loader|argument"),
    ],
    ids=["None", "number", "with an argument", "class"],
)
def test_functions_that_return_no_batches(function, message):
    assert_refused(TypeError, message, function)


@pytest.mark.parametrize("thing", [3.5, None, "batches", b"batches"], ids=repr)
def test_things_that_are_no_batches(thing):
    assert_refused(TypeError, r"(?s)(y must be|x must).*received", thing)


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp_path: X,
        lambda tmp_path: X.tolist(),
        lambda tmp_path: X[:, :2].tolist(),
        lambda tmp_path: {"x": X, "y": Y},
        lambda tmp_path: xpnet.asarray(X, device="strict"),
        lambda tmp_path: scipy.sparse.csr_array(X),
        lambda tmp_path: Lazy(X),
        lambda tmp_path: hdf5_file(tmp_path)["x"],
        lambda tmp_path: hdf5_file(tmp_path),
        lambda tmp_path: pytest.importorskip("zarr").group(tmp_path / "x"),
        lambda tmp_path: str(tmp_path),
        lambda tmp_path: pytest.importorskip("pandas").DataFrame(X),
    ],
    ids=[
        *("array", "rows", "pairs of numbers", "dict", "another library", "sparse", "lazy", "hdf5"),
        *("file of hdf5", "group of zarr", "path", "frame"),
    ],
)
def test_inputs_without_targets(tmp_path, make):
    """They are neither batches nor a data set."""
    x = make(tmp_path)
    name = repr(x) if isinstance(x, str) else type(x).__name__
    assert_refused(TypeError, rf"y must be the targets, received None beside {name}\. .*data\['x'\]", x)


def test_examples_one_by_one():
    pairs = list(zip(X, Y.tolist(), strict=True))
    message = "received a single number. Examples that come one by one .* __getitem__"
    assert_refused(ValueError, message, pairs)
    assert_refused(ValueError, message, lambda: pairs)


def test_dicts_for_a_network_that_takes_an_array():
    dicts = [{"pixels": x, "labels": y} for x, y in batches_of(X, Y)]
    assert_refused(TypeError, r"an array is needed, received dict\. Take one from it, x\['pixels'\]\.", dicts)


# -- what is in a batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (X[:16], r"(?s)pair.*dict.*received ndarray"),
        ((X[:16],), r"(?s)pair.*dict.*received.*tuple of 1"),
        ((X[:16], Y[:16], Y[:16], Y[:16]), r"(?s)pair.*dict.*received.*tuple of 4"),
        (3.0, r"(?s)pair.*dict.*received float"),
        (None, r"(?s)pair.*dict.*received.*None"),
        ("xy", r"(?s)pair.*dict.*received.*'xy'"),
        ({1, 2}, r"(?s)pair.*dict.*received.*set"),
        ({}, r"received (nothing|none|a dict|an empty)"),
        ((X[:16], Y[:15]), r"(?s)as many.*16.*15"),
        (({"a": X[:16], "b": X[:12]}, Y[:16]), r"(?s)as many.*16.*12"),
        ({"x": X[:16], "y": Y[:9]}, r"(?s)as many.*16.*9"),
        ((X[:16].astype(str), Y[:16]), r"(?s)x.*text"),
        ((X[:16], Y[:16].astype(str)), r"(?s)y.*text"),
        (({"a": X[:16], "city": ["Rome"] * 16}, Y[:16]), r"(?s)city.*text"),
        ((X[:16], None), r"(?s)y .*received"),
        ((X[:16], 1), r"(?s)y .*received"),
        ((np.float64(1), Y[:16]), r"(?s)x .*received"),
        (([[1.0], [1.0, 2.0]], Y[:2]), r"(?s)inhomogeneous|rows of equal length"),
        ((X[:0], Y[:0]), r"at least one; received 0 in x and 0 in y"),
    ],
    ids=[
        *("array", "tuple of 1", "tuple of 4", "number", "None", "text", "set", "empty dict"),
        *("lengths", "lengths in a dict", "lengths of x and y", "text in x", "text in y", "text in a column"),
        *("no targets", "one target", "one input", "ragged", "no examples"),
    ],
)
def test_a_batch_that_is_none(batch, message, number):
    error = assert_refused((TypeError, ValueError), message, replaced(number, batch))
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert f"batch {number}" in text


def test_a_dict_of_x_and_nothing_else():
    assert_refused(
        (TypeError, ValueError), "y", [{"x": x} for x, _ in batches_of(X, Y)], loss=lambda o, t: t["y"]
    )


UNLIKE = r"must be alike .*the first has .*, received {} in batch 3\. \w"


@each_form
@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"x": lambda x: x[:, :2]}, r"as float32 of shape \(examples, 2\)"),
        ({"x": lambda x: x[:, :, None]}, r"as float32 of shape \(examples, 3, 1\)"),
        ({"x": lambda x: x[:, 0]}, r"as float32 of shape \(examples\)"),
        ({"y": lambda y: y[:, None]}, r"as int64 of shape \(examples, 1\)"),
        ({"x": lambda x: x.astype(int)}, "as int64 of .*"),
        ({"x": lambda x: x > 0}, "as bool of .*"),
        ({"y": lambda y: y.astype(float)}, "as float32 of .*"),
        ({"x": lambda x: {"a": x}}, "not at all"),
        ({"y": lambda y: {"labels": y}}, "not at all"),
    ],
    ids=["columns", "axes", "no axis", "axis of y", "integers", "bools", "numbers", "dict", "dict of y"],
)
def test_a_batch_unlike_those_before(form, changes, received):
    assert_refused((TypeError, ValueError), UNLIKE.format(received), form(changed(3, **changes)))


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (lambda batch: {name: batch[name] for name in "abc"}, r"x\['label'\] .*, received not at all"),
        (lambda batch: batch | {"d": batch["a"]}, r"x\['d'\] not at all, received"),
        (lambda batch: (batch["a"], batch["label"]), "received not at all"),
        (lambda batch: batch | {"c": batch["c"].astype(int)}, r"x\['c'\] .*, received as int64"),
        (lambda batch: batch | {"c": batch["c"][:, None]}, r"x\['c'\] .*, received as .*\(examples, 1\)"),
    ],
    ids=["fewer", "more", "pair", "integers", "axes"],
)
def test_columns_unlike_those_before(change, received):
    class Columns(nn.Module):
        def __call__(self, x):
            return xpnet.array_namespace(x["a"]).stack([x["a"], x["b"], x["c"]], axis=-1)

    batches = columns_of(batches_of(X, Y))
    batches[2] = change(batches[2])
    options = {
        "net": nn.Sequential(Columns(), *classifier()),
        "loss": lambda outputs, batch: losses.cross_entropy(outputs, batch["label"]),
    }
    message = rf"must be alike .*the first has .*{received}.*in batch 3\. \w"
    assert_refused((TypeError, ValueError), message, batches, **options)
    assert_refused((TypeError, ValueError), message, lambda: iter(batches), **options)


def test_columns_in_another_order():
    class Columns(nn.Module):
        def __call__(self, x):
            return xpnet.array_namespace(x["a"]).stack([x["a"], x["b"], x["c"]], axis=-1)

    def final(batches):
        net = nn.Sequential(Columns(), *classifier())
        loss = lambda outputs, batch: losses.cross_entropy(outputs, batch["label"])
        train(net, batches, None, batch_size=None, loss=loss)
        return weights(net)

    batches = columns_of(batches_of(X, Y))
    right = final(batches)
    batches[2] = dict(reversed(batches[2].items()))
    assert same(final(batches), right)


@each_form
@pytest.mark.parametrize("label", [2, -1, 2**40])
def test_labels_out_of_range_in_a_later_batch(form, label):
    batches = form(changed(3, y=lambda y: np.where(np.arange(16) == 5, label, y)))
    error = assert_refused(ValueError, "labels must be from 0 to 1 for 2 classes", batches)
    assert "batch 3" in "\n".join([str(error), *getattr(error, "__notes__", [])])


@pytest.mark.parametrize("accepts", [is_slice, is_increasing], ids=["slices", "increasing"])
@pytest.mark.parametrize("kind", ["lazy", "data set"])
def test_labels_out_of_range_in_a_later_row(kind, accepts):
    y = np.where(np.arange(60) == 40, 2, Y)
    data = (Lazy(X, accepts), Lazy(y, accepts)) if kind == "lazy" else (Dataset(X, y),)
    assert_refused(ValueError, "labels must be from 0 to 1 for 2 classes", *data)


def embedding():
    return nn.Sequential(nn.Embedding(10, 4, seed=0), nn.Lambda(lambda x: x[:, 0, :]), nn.Dense(4, 2, seed=1))


CODES = np.arange(60).reshape(60, 1) % 10


@each_form
@pytest.mark.parametrize("index", [10, -11])
def test_indices_out_of_range_in_a_later_batch(form, index):
    codes = np.where(np.arange(60)[:, None] == 40, index, CODES)
    batches = form(batches_of(codes, Y))
    error = assert_refused(IndexError, str(index), batches, net=embedding())
    assert "batch 3" in "\n".join([str(error), *getattr(error, "__notes__", [])])
    with pytest.raises(IndexError, match=str(index)):
        xpnet.predict(embedding(), form(batches_of(codes, Y)))


@pytest.mark.parametrize("kind", ["lazy", "data set"])
def test_indices_out_of_range_in_a_later_row(kind):
    codes = np.where(np.arange(60)[:, None] == 40, 10, CODES)
    data = (Lazy(codes), Lazy(Y)) if kind == "lazy" else (Dataset(codes, Y),)
    assert_refused(IndexError, "10", *data, net=embedding())
    with pytest.raises(IndexError, match="10"):
        xpnet.predict(embedding(), data[0], batch_size=16)


def with_nan(x=X, row=40):
    return np.where((np.arange(60) == row)[:, None] & (np.arange(3) == 1), np.nan, x)


@each_form
def test_place_of_a_nan_in_a_later_batch(form):
    message = r"epoch 1, batch 3, first in x at row 8 of the batch, column 1, which is nan\. Leave"
    assert_refused(FloatingPointError, message, form(batches_of(with_nan(), Y)))


def test_place_of_a_nan_in_a_batch_of_an_iterator():
    message = r"epoch 1, batch 3, first in x at row 8 of the batch, column 1, which is nan\. Leave"
    assert_refused(FloatingPointError, message, iter(batches_of(with_nan(), Y)), epochs=1)


def test_a_nan_in_a_batch_that_was_on_the_device():
    """It is not looked for there, and the text does not say that there is none."""
    net = xpnet.to_device(classifier(), "strict")
    batches = [
        tuple(xpnet.asarray(part, device="strict") for part in batch) for batch in batches_of(with_nan(), Y)
    ]
    message = r"epoch 1\. Lower the learning rate, or look for bad values in x and y, which came on the"
    assert_refused(FloatingPointError, message, batches, net=net)


def test_place_of_a_nan_in_a_later_epoch():
    def batches():
        calls.append(1)
        return iter(batches_of(X if len(calls) == 1 else with_nan(), Y))

    calls = []
    message = r"epoch 2, batch 3, first in x at row 8 of the batch, column 1, which is nan\. Leave"
    assert_refused(FloatingPointError, message, batches, epoch=2)


def test_a_nan_that_did_no_harm_in_an_earlier_epoch_is_not_blamed():
    epochs = iter([replaced(2, (with_nan()[32:48], Y[:16])), changed(3, x=lambda x: x + np.inf)])
    net = nn.Sequential(nn.Lambda(without_nan), *classifier())
    message = r"epoch 2, batch 3, first in x at row 0 of the batch, column 0, which is inf in float32\. Leave"
    assert_refused(FloatingPointError, message, lambda: next(epochs), epoch=2, net=net)


def without_nan(x):
    return np.where(np.isnan(x), np.float32(0), x)


def test_place_of_a_nan_in_a_batch_of_the_validation():
    message = (
        r"epoch 1, batch 3, first in x of validation at row 8 of the batch, column 1, which is nan\. Leave"
    )
    assert_refused(FloatingPointError, message, X, Y, validation=batches_of(with_nan(), Y))


@pytest.mark.parametrize("shuffle", [True, False, "blocks"])
@pytest.mark.parametrize("kind", ["lazy", "data set"])
def test_place_of_a_nan_in_a_later_row(kind, shuffle):
    data = (Lazy(with_nan()), Lazy(Y)) if kind == "lazy" else (Dataset(with_nan(), Y),)
    message = r"epoch 1, batch \d, first in x at row 40, column 1, which is nan\. Leave"
    assert_refused(FloatingPointError, message, *data, shuffle=shuffle)


@pytest.mark.parametrize("kind", ["hdf5 contiguous", "memory map", "lazy, slices"])
def test_place_of_a_nan_in_a_column_of_records(tmp_path, kind):
    x = np.array(list(map(tuple, with_nan())), [(name, "float32") for name in "abc"])
    message = r"epoch 1, batch 3, first in x at row 40, column 'b', which is nan\. Leave"
    assert_refused(FloatingPointError, message, INDEXED[kind](x, tmp_path / "x"), Y)


# -- errors inside the source -------------------------------------------------------------------------------


class OfTheirOwnError(Exception):
    """What only the source raises."""


def failing(at, error):
    """Return a function of batches that raises in the place of one, counted over all epochs."""
    made = itertools.count(1)

    def batches():
        for batch in batches_of(X, Y):
            if next(made) == at:
                raise error
            yield batch

    return batches


class FailingLazy(Lazy):
    """Raises an error when a row is read for the n-th time."""

    def __init__(self, array, row, times, error):
        super().__init__(array)
        self.row, self.times, self.error = row, times, error

    def __getitem__(self, index):
        self.times -= self.row in np.arange(len(self.array))[index]
        if self.times == 0:
            raise self.error
        return super().__getitem__(index)


class FailingDataset(Dataset):
    """Raises an error when an example is read for the n-th time."""

    def __init__(self, row, times, error):
        super().__init__(X, Y)
        self.row, self.times, self.error = row, times, error

    def __getitem__(self, number):
        self.times -= number == self.row
        if self.times == 0:
            raise self.error
        return super().__getitem__(number)


# Sources that fail in the batch that is tried, in the third one, and in the third one of the second epoch,
# from an error to the data. What is tried of batches is the first of the epoch; of rows it is read anew.
FAILING = {
    "batches": lambda error, at: (failing({"first": 1, "third": 3, "second epoch": 7}[at], error),),
    "lazy": lambda error, at: (FailingLazy(X, *PLACES[at], error), Y),
    "lazy targets": lambda error, at: (X, FailingLazy(Y, *PLACES[at], error)),
    "data set": lambda error, at: (FailingDataset(*PLACES[at], error),),
}
PLACES = {"first": (3, 1), "third": (40, 1), "second epoch": (40, 2)}  # a row, and the time that it is read
each_place = pytest.mark.parametrize("at", PLACES)
each_failing = pytest.mark.parametrize("make", FAILING.values(), ids=FAILING)

ERRORS = [OfTheirOwnError, OSError, TypeError, ValueError, IndexError, KeyError, AttributeError]


def assert_shows_the_line(error):
    """Assert that the traceback of an error ends where the source raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert Path(last.filename).name == Path(__file__).name
    assert last.line.startswith("raise")


@each_failing
@each_place
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_inside_the_source(make, at, error):
    epoch = 2 if at == "second epoch" else 1
    raised = assert_refused(error, "of my own", *make(error("of my own"), at), epoch=epoch)
    assert_shows_the_line(raised)


@each_failing
@each_place
def test_the_end_of_an_iterator_inside_the_source(make, at):
    """It does not end the epoch in silence."""
    epoch = 2 if at == "second epoch" else 1
    assert_refused((RuntimeError, StopIteration), None, *make(StopIteration("of my own"), at), epoch=epoch)


@each_failing
@pytest.mark.parametrize("at", ["third", "second epoch"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit], ids=lambda error: error.__name__)
def test_an_exit_inside_the_source(nothing_stays, make, at, error):
    """The network has the weights of a step, as after Ctrl-C at another place."""
    steps, net, data = Steps(), classifier(), make(error("of my own"), at)
    x, y = data if len(data) == 2 else (*data, None)
    options = {"batch_size": None} if callable(x) else {"shuffle": False}
    try:
        history = train(net, x, y, jit=False, callbacks=[steps], **options)
    except SystemExit as exit:
        assert_shows_the_line(exit)
    else:
        assert error is KeyboardInterrupt
        assert history.interrupted
        assert len(history) == (at == "second epoch")
    assert any(same(weights(net), each) for each in steps.weights)


@pytest.mark.parametrize("kind", ["batches", "lazy", "data set"])
@pytest.mark.parametrize("error", [OfTheirOwnError, TypeError, OSError], ids=lambda error: error.__name__)
def test_an_error_inside_the_source_of_the_validation(kind, error):
    for at in ("first", "third"):
        data = FAILING[kind](error("of my own"), at)
        validation = data if len(data) == 2 else data[0]
        assert_shows_the_line(assert_refused(error, "of my own", X, Y, validation=validation))


@each_failing
@pytest.mark.parametrize("at", ["first", "third"])
@pytest.mark.parametrize("error", [OfTheirOwnError, TypeError, SystemExit], ids=lambda error: error.__name__)
def test_an_error_inside_the_source_of_a_prediction(make, at, error):
    x = make(error("of my own"), at)[0]
    if isinstance(x, np.ndarray):
        pytest.skip("there are no targets")
    size = {} if callable(x) else {"batch_size": 16}
    with pytest.raises(error, match="of my own") as caught:
        xpnet.predict(classifier(), x, jit=False, **size)
    assert_shows_the_line(caught.value)


def test_an_error_of_a_length_is_heard():
    class NoLength(Dataset):
        def __len__(self):
            raise OfTheirOwnError("of my own")

    assert_refused(OfTheirOwnError, "of my own", NoLength(X, Y))


# -- arrays and data sets that lie --------------------------------------------------------------------------


class Lying(Lazy):
    """Has fewer rows than it says, or returns other ones than it was asked for, but not of the first."""

    def __init__(self, array, *, shape=None, rows=lambda rows: rows):
        super().__init__(array)
        self.shape, self.rows = shape or array.shape, rows

    def __getitem__(self, index):
        rows = self.array[index]
        return rows if len(rows) == 1 else self.rows(rows)


@pytest.mark.parametrize(
    "lying",
    [
        {"shape": (64, 3)},
        {"rows": lambda rows: rows[:-1]},
        {"rows": lambda rows: np.concatenate([rows, rows])},
        {"rows": lambda rows: rows[:, :2]},
        {"rows": lambda rows: rows.astype(str)},
        {"rows": lambda rows: rows + 1j},
        {"rows": lambda rows: None},
        {"rows": lambda rows: rows[0]},
    ],
    ids=["more rows", "too few", "too many", "columns", "text", "complex", "nothing", "one row"],
)
def test_rows_that_are_not_as_the_array_says(lying):
    y = np.arange(lying.get("shape", X.shape)[0]) % 2
    assert_refused((TypeError, ValueError), r"(?s)x .*must.*received", Lying(X, **lying), y)


class Single(Lazy):
    def __init__(self, number):
        self.array, self.shape, self.dtype = np.asarray(number), (), np.dtype("float64")

    def __array__(self, *_arguments, **_options):
        return self.array


def test_an_array_without_an_axis_of_examples():
    with pytest.raises(ValueError, match="x must have an axis of examples, received a single number"):
        xpnet.predict(classifier(), Single(1.0))


def dask_of_masked():
    return pytest.importorskip("dask.array").ma.masked_less(dask_array(X, None), X.min() + 0.1)


class Masked(Lazy):
    """Rows as those of netCDF come, with a mask."""

    def __getitem__(self, index):
        return np.ma.masked_equal(super().__getitem__(index), X[40, 1])


@pytest.mark.parametrize("make", [dask_of_masked, lambda: Masked(X)], ids=["dask", "rows"])
def test_what_is_masked(make):
    message = r"x must hold a number at each place, received a MaskedArray in which 1 are masked"
    assert_refused(TypeError, message, make(), Y)


def test_a_batch_of_dask_that_is_masked():
    assert_refused(TypeError, r"x in batch 1 must .* in which 3 are masked", [(dask_of_masked(), Y)])


def test_a_dataset_of_hdf5_without_a_shape(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        empty = file.create_dataset("x", data=h5py.Empty("float32"))
        assert_refused(ValueError, "received 0 in x and 60 in y", empty, Y)
        with pytest.raises(ValueError, match="at least one example, received none in x"):
            xpnet.predict(classifier(), empty)


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: (FailingLazy(X, 0, 1, OfTheirOwnError()), Y), "first row of x is read"),
        (lambda: (FailingDataset(0, 1, OfTheirOwnError()),), "first example of x and y is read"),
    ],
    ids=["lazy", "data set"],
)
def test_an_error_in_the_first_row_names_what_is_read(make, place):
    error = assert_refused(OfTheirOwnError, None, *make())
    assert place in error.__notes__[0]


class Growing(Lazy):
    """Its first row has a smaller dtype than all rows have."""

    def __getitem__(self, index):
        rows = super().__getitem__(index)
        return rows.astype("int8") if len(rows) == 1 else rows


def test_integers_that_would_not_fit():
    """They would become other ones, and classes that there are."""
    y = np.where(np.arange(60) < 1, Y, Y + 256)
    assert_refused(ValueError, "y must give int8 .*received int64", X, Growing(y))
    dataset = Dataset(X, y, lambda x, y: (x, np.int8(y) if y < 2 else y))
    assert_refused(ValueError, "for y int8 .*received 16 of int64", dataset)


class Claims(Dataset):
    """A data set that says how many examples it has."""

    length = 80

    def __len__(self):
        return self.length


def test_a_data_set_with_fewer_examples_than_it_says():
    error = assert_refused(IndexError, "out of bounds", Claims(X, Y))
    assert any(frame.name == "__getitem__" for frame in traceback.extract_tb(error.__traceback__))


@pytest.mark.parametrize("length", [-1, 2.5, "60"], ids=str)
def test_a_length_that_is_no_number(length):
    data = Claims(X, Y)
    data.length = length
    assert_refused((TypeError, ValueError), None, data)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (lambda x, y: (x[:2], y), r"(?s)(40|batch 3).*received.*\(2,\)|shape"),
        (lambda x, y: (x, y, y), r"(?s)for sample_weight nothing of that name; received"),
        (lambda x, y: x, r"(?s)pair.*dict.*received"),
        (lambda x, y: {"x": x}, r"(?s)received"),
        (lambda x, y: (x, 0.5), r"(?s)for y int64.*received.*float64"),
        (lambda x, y: (x, "cat"), r"(?s)y.*text"),
        (lambda x, y: (x, None), r"(?s)y.*received"),
        (lambda x, y: None, r"(?s)pair.*dict.*received.*None"),
    ],
    ids=["shape", "triple", "inputs alone", "dict", "fraction", "text", "no target", "None"],
)
def test_an_example_unlike_the_others(example, message):
    class Mixed(Dataset):
        def __getitem__(self, number):
            return example(X[number], Y[number]) if number == 40 else super().__getitem__(number)

    assert_refused((TypeError, ValueError), message, Mixed(X, Y))


def test_too_few_examples_at_once():
    class Few(ManyAtOnce):
        def __getitems__(self, numbers):
            return super().__getitems__(numbers[:-1])

    assert_refused(ValueError, r"received 15 .*16 examples", Few(X, Y))


def test_y_beside_a_data_set_of_pairs():
    message = r"received a tuple of 2\. Return x alone; or leave y out, .* pairs \(x, y\)"
    assert_refused(TypeError, message, Dataset(X, Y), Y)
    assert_refused(TypeError, message, Dataset(X, X), X)  # of one shape


def test_examples_that_are_tuples_of_numbers():
    rows = Dataset(X, Y, lambda x, y: tuple(x.tolist()))
    one, other = classifier(), classifier()
    train(one, X, Y)
    train(other, rows, Y)
    assert same(weights(one), weights(other))


def hdf5_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["x"], file["y"] = X, Y
    return h5py.File(tmp_path / "rows.h5")


def test_a_file_that_is_closed(tmp_path):
    file = hdf5_file(tmp_path)
    x, y = file["x"], file["y"]
    file.close()
    assert_refused((ValueError, TypeError, RuntimeError, OSError), None, x, y)


@pytest.mark.parametrize(("step", "epoch"), [(2, 1), (17, 2)])
def test_a_file_that_is_closed_meanwhile(tmp_path, step, epoch):
    file = hdf5_file(tmp_path)

    class Close(Callback):
        def step_end(self, run):
            if run.step == step:
                file.close()

    # Fifteen batches, of which most are not read yet when the file is closed.
    options = {"batch_size": 4, "epoch": epoch, "callbacks": [Close()]}
    assert_refused((ValueError, TypeError, RuntimeError, OSError), None, file["x"], file["y"], **options)


# -- nothing stays behind -----------------------------------------------------------------------------------


class EndBy(Callback):
    """Ends a training after its sixth step, in the second epoch."""

    def __init__(self, end):
        self.end_by = end

    def step_end(self, run):
        if run.step == 6:
            self.end_by()


def fail():
    raise OfTheirOwnError("of my own")


def press():
    signal.raise_signal(signal.SIGINT)


def press_twice():
    press()
    press()


ENDS = {"good": lambda: None, "error": fail, "exit": sys.exit, "ctrl-c": press, "ctrl-c twice": press_twice}
each_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


def end_training(end, *data, **options):
    """Train until an end of the table."""
    x, y = data if len(data) == 2 else (*data, None)
    try:
        train(classifier(), x, y, callbacks=[EndBy(end)], jit=False, **options)
    except (OfTheirOwnError, SystemExit):
        assert end in (fail, sys.exit)


@each_end
@pytest.mark.parametrize(
    "options", [{}, {"shuffle": "blocks", "block_size": 3}, {"validation": 0.25}], ids=str
)
def test_no_thread_stays(nothing_stays, end, options):
    end_training(end, Lazy(X, is_slice), Lazy(Y, is_slice), **options)
    end_training(end, Dataset(X, Y), **options)


@each_failing
@each_place
def test_no_thread_stays_after_an_error_inside_the_source(nothing_stays, make, at):
    data = make(OfTheirOwnError(), at)
    assert_refused(OfTheirOwnError, None, *data, epoch=2 if at == "second epoch" else 1)


@pytest.mark.parametrize("place", ["training", "validation"])
def test_no_thread_stays_after_an_error_where_a_nan_is_looked_for(nothing_stays, place):
    """Nor while the error is held."""
    seen = []

    class Fails(nn.Module):
        """Fails where it sees the NaN for the second time."""

        def __call__(self, x):
            seen.extend([1] if np.isnan(x).any() else [])
            return fail() if len(seen) == 2 else x

    bad = Lazy(with_nan()), Lazy(Y)
    data, validation = (bad, None) if place == "training" else ((X, Y), bad)
    net = nn.Sequential(Fails(), *classifier())
    with pytest.raises(OfTheirOwnError) as held:
        train(net, *data, validation=validation, shuffle=False, jit=False)
    assert held.value
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("xpnet-reading")]


def test_no_thread_stays_after_a_prediction(nothing_stays):
    xpnet.predict(classifier(), Lazy(X), batch_size=16)
    for at in ("first", "third"):
        with pytest.raises(OfTheirOwnError):
            xpnet.predict(classifier(), FAILING["lazy"](OfTheirOwnError(), at)[0], batch_size=16)


@each_end
def test_no_file_stays_open(tmp_path, end):
    file = hdf5_file(tmp_path)
    before = open_files()
    end_training(end, file["x"], file["y"], validation=(file["x"], file["y"]))
    assert open_files() == before
    file.close()
    assert not {name for _, name in open_files() if "rows.h5" in name}


@each_end
def test_no_file_of_a_generator_stays_open(nothing_stays, tmp_path, end):
    path = tmp_path / "rows.txt"
    np.savetxt(path, np.column_stack([X, Y]))

    def batches():
        with open(path) as file:
            for lines in iter(lambda: list(itertools.islice(file, 16)), []):
                rows = np.loadtxt(lines, ndmin=2)
                yield rows[:, :3], rows[:, 3].astype("int64")

    end_training(end, batches, batch_size=None, validation=batches)


def noted(notes, name):
    """Return a function of batches that notes when it begins and when it is closed."""

    def batches():
        notes.append(f"{name} begins")
        try:
            yield from batches_of(X, Y)
        finally:
            notes.append(f"{name} ends")

    return batches


@each_end
def test_generators_are_closed(end):
    notes = []
    end_training(
        end, noted(notes, "training"), batch_size=None, epochs=2, validation=noted(notes, "validation")
    )
    training, validation = ([f"{name} begins", f"{name} ends"] for name in ("training", "validation"))
    # The first batch of each is read before all else, to try the network with.
    first = ["training begins", "validation begins", "training ends", "validation ends"]
    assert notes == first + training + (validation if end is ENDS["good"] else [])


@pytest.mark.parametrize("end", [fail, press], ids=["error", "ctrl-c"])
def test_generators_of_a_validation_are_closed(end):
    """Also if the validation does not come to its end."""
    notes, started = [], []

    class End(nn.Module):
        def __call__(self, x):
            if started and not self.training:
                end()
            return x

    class Start(Callback):
        def start(self, run):  # network and loss were tried before
            started.append(1)

    net, options = nn.Sequential(End(), *classifier()), {"batch_size": None, "jit": False, "epochs": 2}
    try:
        train(net, batches_of(X, Y), None, validation=noted(notes, "it"), callbacks=[Start()], **options)
    except OfTheirOwnError:
        assert end is fail
    assert notes[-2:] == ["it begins", "it ends"]


def test_generators_are_closed_where_network_or_data_do_not_fit():
    notes = []

    def spoilt():
        for _ in noted(notes, "it")():
            yield 3.0

    other, loss = nn.Sequential(nn.Dense(4, 2, seed=0)), lambda outputs, targets: fail()
    held = [
        assert_refused(ValueError, "features", noted(notes, "it"), net=other),
        assert_refused(OfTheirOwnError, None, noted(notes, "it"), loss=loss),
        assert_refused(OfTheirOwnError, None, X, Y, validation=noted(notes, "it"), loss=loss),
        assert_refused(TypeError, "must be a pair", noted(notes, "it"), validation=lambda: iter([X])),
        assert_refused(TypeError, "must be a pair", spoilt),
    ]
    with pytest.raises(ValueError, match="features") as caught:
        xpnet.predict(nn.Dense(4, 2, seed=0), noted(notes, "it"))
    # What is held by the errors is closed, too.
    assert notes == (len(held) + len([caught.value])) * ["it begins", "it ends"]


def test_a_generator_is_closed_after_a_nan():
    notes = []

    def batches():
        notes.append("begins")
        try:
            yield from batches_of(with_nan(), Y)
        finally:
            notes.append("ends")

    assert_refused(FloatingPointError, "batch 3", batches)
    assert notes[-1] == "ends"
    assert notes.count("begins") == notes.count("ends")


def test_iterators_without_close_are_let_go():
    class Numbers:
        def __init__(self):
            self.left = iter(batches_of(X, Y))

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.left)

    end_training(ENDS["good"], lambda: Numbers(), batch_size=None)


def test_a_state_is_left_as_it_was_by_ctrl_c():
    """The source that was given can be used again."""
    source = Stateful(batches_of(X, Y))
    end_training(press, source, batch_size=None)
    assert len(list(source)) == 4


@pytest.mark.parametrize("kind", ["training", "validation"])
def test_ctrl_c_that_ends_a_source_too(kind):
    """As it does the workers of a loader, which have the same terminal."""

    def batches():
        yield from batches_of(X, Y)[:2]
        if len(steps.weights) > 1:
            press()
            raise OfTheirOwnError("a worker ended")

    steps, net = Steps(), classifier()
    data = {"training": (batches, None), "validation": (batches_of(X, Y), batches)}[kind]
    history = train(net, data[0], None, validation=data[1], batch_size=None, callbacks=[steps])
    assert history.interrupted
    assert len(history) == 0
    assert same(weights(net), steps.weights[2 if kind == "training" else 4])


# The signal may meet Python while it closes a generator, which swallows it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["lazy", "blocks", "batches"])
@pytest.mark.parametrize("many", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment(nothing_stays, kind, many):
    def fit(net, *callbacks):
        options = {"epochs": 2, "jit": False, "callbacks": callbacks}
        if kind == "batches":
            batches = lambda: iter(batches_of(X, Y))
            return train(net, batches, None, batch_size=None, validation=batches, **options)
        shuffle = {"shuffle": "blocks", "block_size": 3} if kind == "blocks" else {}
        return train(net, Lazy(X), Lazy(Y), validation=0.25, **shuffle, **options)

    class Calls(Callback):
        def end(self, run):
            ended.append(test_interrupts.calls)

    steps, ended = Steps(), []
    fit(classifier(), steps)
    pressing(0, lambda: fit(classifier(), Calls()))
    usual, interrupted = signal.getsignal(signal.SIGINT), 0
    for moment in range(1, ended[0], max(1, ended[0] // (25 * many))):
        net = classifier()
        try:
            history = pressing(moment, lambda net=net: fit(net))
        except KeyboardInterrupt:  # before the training or after it
            history = None
        interrupted += history is not None and history.interrupted
        left = weights(net)
        assert any(same(left, each) for each in steps.weights), f"weights of no step, at call {moment}"
        assert signal.getsignal(signal.SIGINT) is usual
    assert interrupted > 5


# -- processes ----------------------------------------------------------------------------------------------

FORK = """
    import os, signal, sys
    import numpy as np
    import xpnet
    from training.cases import X, Y, classifier, train, weights
    from training.sources import Lazy
    from xpnet.training.callbacks import Callback

    signal.alarm(30)  # nothing may hang
    x, y = Lazy(X), Lazy(Y)
    options = {"jit": False, "batch_size": 4}

    class Fork(Callback):
        child = None

        def step_end(self, run):
            if run.step == 5:
                self.child = os.fork()
                if self.child == 0 and WHAT != "goes on":
                    if WHAT == "trains":
                        train(classifier(), x, y, **options)
                    os._exit(0)

    right, net, fork = classifier(), classifier(), Fork()
    train(right, X, Y, **options)
    try:
        train(net, x, y, callbacks=[fork], **options)
    except RuntimeError as error:  # no thread of the parent goes on in a fork
        os._exit(0 if fork.child == 0 and "a fork of it" in str(error) else 3)
    good = all(map(np.array_equal, weights(net), weights(right)))
    assert fork.child != 0
    assert good
    assert os.waitpid(fork.child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process cannot be forked here")
@pytest.mark.parametrize("what", ["ends", "trains", "goes on"])
def test_a_fork_during_a_training(what):
    run_python("-W", "ignore:.*fork:DeprecationWarning", "-c", f"WHAT = {what!r}\n" + textwrap.dedent(FORK))
