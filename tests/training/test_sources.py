"""One property for all sources of data: the same batches as from an array, of which few are in memory."""

import array
import ctypes
import itertools
import logging
import multiprocessing
import os
import re
import threading
import time
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
from helpers import rounding

import xpnet
from training.cases import X, Y, classifier, same, train, weights
from training.sources import (
    BATCHES,
    COLUMNS,
    DATASETS,
    INDEXED,
    Dataset,
    KerasSequence,
    Lazy,
    Loader,
    ManyAtOnce,
    Stateful,
    batches_of,
    columns_of_one,
    is_increasing,
    is_slice,
)
from xpnet import losses, nn
from xpnet.files.networks import read_parts, write_parts
from xpnet.training.callbacks import Callback, Checkpoint
from xpnet.training.orders import Blocks


class Training(NamedTuple):
    """What came of a training: all that must be the same from each source."""

    weights: list
    history: dict
    inputs: list
    targets: list


def trained(*data, jit=False, callbacks=(), first=None, **options):
    """Train on a source. Without `jit`, each batch is noted, also those of the validation."""
    inputs, targets = [], []

    class Start(Callback):
        def start(self, run):  # network and loss were tried before
            inputs.clear()
            targets.clear()

    class Note(nn.Module):
        """Notes the inputs; columns become an array."""

        def __call__(self, x):
            if isinstance(x, dict):
                x = xpnet.array_namespace(x["a"]).stack([x["a"], x["b"], x["c"]], axis=-1)
            if not jit:
                inputs.append(np.array(xpnet.to_numpy(x)))
            return x

    def loss(outputs, y):
        y = y["label"] if isinstance(y, dict) else y
        if not jit:
            targets.append(np.array(xpnet.to_numpy(y)))
        return losses.cross_entropy(outputs, y)

    net, y = nn.Sequential(first or Note(), *classifier()), data[1:]
    settings = {"epochs": 2, "loss": loss, "jit": jit, "callbacks": [Start(), *callbacks]}
    history = train(net, data[0], *(y or (None,)), **(settings | options))
    return Training(weights(net), {name: history[name] for name in history}, inputs, targets)


def trained_on_batches(batches, **options):
    return trained(batches, batch_size=None, **options)


@cache
def trained_on_arrays(_device, **options):
    return trained(X, Y, **options)


def expected(**options):
    """Return what comes of arrays, on the device that is in use."""
    return trained_on_arrays(xpnet.device(), **options)


def assert_same(found, right):
    assert found.history == right.history
    for one, other in zip(found[2:], right[2:], strict=True):
        assert same(one, other)
        assert [array.dtype for array in one] == [array.dtype for array in other]
    assert same(found.weights, right.weights)


def odd_rows_first(rows):
    return np.concatenate([rows[1::2], rows[::2]])


BLOCKS = {"shuffle": "blocks", "block_size": 3}
SHUFFLES = {
    "shuffled": {"shuffle": True},
    "as they stand": {"shuffle": False},
    "blocks": BLOCKS,
    "function": {"shuffle": odd_rows_first},
}
IN_ORDER = {"shuffle": False}
each_shuffle = pytest.mark.parametrize("shuffle", SHUFFLES.values(), ids=SHUFFLES)


def shuffles(*names):
    return pytest.mark.parametrize("shuffle", [SHUFFLES[name] for name in names], ids=names)


def pair(kind, tmp_path, x=X, y=Y):
    """Return inputs and targets from a kind of source of the table."""
    return INDEXED[kind](x, tmp_path / "x"), INDEXED[kind](y, tmp_path / "y")


# -- fit ----------------------------------------------------------------------------------------------------


# With "blocks", on each device, see below.
@shuffles("shuffled", "as they stand", "function")
@pytest.mark.parametrize("kind", INDEXED)
def test_fit_on_what_is_indexed(tmp_path, kind, shuffle):
    assert_same(trained(*pair(kind, tmp_path), **shuffle), expected(**shuffle))


@each_shuffle
@pytest.mark.parametrize("kind", ["hdf5 chunked", "zarr", "dask", "hdf5 contiguous", "memory map", "list"])
def test_rows_that_are_drawn_from_chunks_are_told(tmp_path, caplog, kind, shuffle):
    trained(*pair(kind, tmp_path), **shuffle)
    are_drawn = kind in ("hdf5 chunked", "zarr", "dask") and shuffle["shuffle"] is True
    told = 'x has chunks of 7 rows, .* shuffle="blocks" takes less time'
    assert [bool(re.search(told, line)) for line in caplog.messages] == [True] * are_drawn


@shuffles("shuffled", "as they stand", "function")
@pytest.mark.parametrize("kind", DATASETS)
def test_fit_on_a_data_set(kind, shuffle):
    assert_same(trained(DATASETS[kind](X, Y), **shuffle), expected(**shuffle))


@each_shuffle
@pytest.mark.parametrize("dataset", [Dataset, ManyAtOnce])
def test_fit_on_a_data_set_of_columns(dataset, shuffle):
    assert_same(trained(dataset(X, Y, columns_of_one), **shuffle), expected(**shuffle))


@each_shuffle
def test_fit_on_dicts_of_several_sources(tmp_path, shuffle):
    kinds = {"a": "hdf5 chunked", "b": "lazy, slices", "c": "pandas"}
    x = {name: INDEXED[kind](X[:, "abc".index(name)], tmp_path / name) for name, kind in kinds.items()}
    y = {"label": INDEXED["memory map"](Y, tmp_path / "label")}
    assert_same(trained(x, y, **shuffle), expected(**shuffle))


@pytest.mark.parametrize("kind", INDEXED)
def test_fit_on_each_device_on_what_is_indexed(device, tmp_path, kind):
    assert_same(trained(*pair(kind, tmp_path), **BLOCKS), expected(**BLOCKS))


@pytest.mark.parametrize("kind", DATASETS)
def test_fit_on_each_device_on_a_data_set(device, kind):
    assert_same(trained(DATASETS[kind](X, Y), **BLOCKS), expected(**BLOCKS))


@pytest.mark.parametrize("kind", BATCHES)
def test_fit_on_batches(device, kind):
    batches = BATCHES[kind](batches_of(X, Y))
    assert_same(trained_on_batches(batches), expected(**IN_ORDER))


@pytest.mark.parametrize("kind", COLUMNS)
def test_fit_on_batches_of_columns(device, kind):
    batches = COLUMNS[kind](batches_of(X, Y))
    assert_same(trained_on_batches(batches), expected(**IN_ORDER))


@shuffles("shuffled", "blocks")
@pytest.mark.parametrize("kind", ["hdf5 chunked", "lazy, slices", "items"])
def test_recorded_steps_on_what_is_indexed(device, tmp_path, kind, shuffle):
    found = trained(*pair(kind, tmp_path), jit=True, **shuffle)
    assert_same(found, expected(jit=True, **shuffle))


@pytest.mark.parametrize(
    "batches",
    [BATCHES["list"], BATCHES["generator function"], BATCHES["with a state"], BATCHES["another library"]],
    ids=["list", "generator function", "with a state", "another library"],
)
def test_recorded_steps_on_batches(device, batches):
    found = trained_on_batches(batches(batches_of(X, Y)), jit=True)
    assert_same(found, expected(jit=True, **IN_ORDER))


def test_batches_of_other_sizes_than_the_first(device):
    """Only the first axis may differ, and each size is a step of its own."""
    ends = [0, 5, 30, 31, 60]
    batches = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(ends)]
    found = trained_on_batches(batches, epochs=1)
    assert [len(x) for x in found.inputs] == [5, 25, 1, 29]
    assert same([np.concatenate(found.targets)], [Y])


def test_losses_of_batches_are_weighted_by_their_examples(device):
    """Weights that do not move have one loss, however the examples are parted."""
    losses_of = []
    for ends in ([0, 60], [0, 1, 20, 60]):
        batches = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(ends)]
        found = trained_on_batches(batches, epochs=1, optimizer=xpnet.optim.SGD(0.0), validation=batches)
        losses_of += [found.history["loss"][0], found.history["validation_loss"][0]]
    assert np.ptp(losses_of) < rounding(100, "float32")


def test_a_function_is_called_once_for_each_epoch():
    orders = [np.random.default_rng(epoch).permutation(60) for epoch in range(3)]
    left, rows_of = iter(orders), iter(orders)

    def batches():
        rows = next(left)
        yield from batches_of(X[rows], Y[rows])

    found = trained_on_batches(batches, epochs=3)
    assert next(left, None) is None
    assert_same(found, trained(X, Y, epochs=3, shuffle=lambda _: next(rows_of)))


def test_a_loader_is_gone_through_once_for_each_epoch():
    started, made = [], []

    class Counting(Loader):
        def __iter__(self):
            started.append(1)
            for batch in self.batches:
                made.append(1)
                yield batch

    trained_on_batches(Counting(batches_of(X, Y)), epochs=3)
    assert len(started) == 3
    assert len(made) == 12


@pytest.mark.parametrize(
    "make", [iter, lambda batches: (pair for pair in batches)], ids=["iterator", "generator"]
)
def test_an_iterator_serves_one_epoch(device, make):
    found = trained_on_batches(make(batches_of(X, Y)), epochs=1)
    assert_same(found, trained(X, Y, epochs=1, shuffle=False))


def test_keras_hears_of_the_end_of_each_epoch():
    batches = KerasSequence(batches_of(X, Y))
    trained_on_batches(batches, epochs=3)
    assert batches.epochs == 3


def test_batches_are_read_in_the_main_thread_when_they_are_needed():
    read = []

    def batches():
        for number, batch in enumerate(batches_of(X, Y), 1):
            read.append(number)
            yield batch

    class Look(Callback):
        def step_end(self, run):
            assert read[-1] == run.batch

    trained_on_batches(batches, callbacks=[Look()])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", ">i4", "uint64", "float16", ">f8"])
def test_dtypes_stay_those_of_an_array(dtype):
    x, y = (3 * X).astype(dtype), Y.astype("int8")
    for options in (SHUFFLES["shuffled"], BLOCKS):
        right = trained(x, y, first=in_single_precision(), **options)
        for data in ((Lazy(x), Lazy(y)), (Dataset(x, y),), (x, Lazy(y))):
            assert_same(trained(*data, first=in_single_precision(), **options), right)
    right = trained(x, y, first=in_single_precision(), shuffle=False)
    assert_same(trained_on_batches(batches_of(x, y), first=in_single_precision()), right)


@pytest.mark.parametrize("make", [lambda y: array.array("i", y), lambda y: (ctypes.c_int32 * 60)(*y)])
def test_what_lends_its_memory_is_an_array(make):
    """It has a length and items, but is no object that makes examples."""
    found = trained({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}, make(Y.tolist()))
    assert found.targets[0].dtype == "int32"
    assert_same(found, trained(X, Y.astype("int32")))


def test_structured_arrays_of_bools_on_each_device(device):
    names = {name: X[:, number] > 0 for number, name in enumerate("abc")}
    x = np.rec.fromarrays(list(names.values()), names=list(names)).view(np.ndarray)
    assert_same(trained(x, Y), trained((X > 0).astype("float32"), Y))


RECORDS = {
    "numbers": [("a", "float32"), ("b", "int32"), ("c", "bool")],
    "whole numbers and bools": [("a", "int8"), ("b", "int32"), ("c", "bool")],
    "bools": [("a", "bool"), ("b", "bool"), ("c", "bool")],
}


@pytest.mark.parametrize("dtype", RECORDS.values(), ids=RECORDS)
def test_records_become_the_same_columns(tmp_path, dtype):
    x = np.array(list(map(tuple, 3 * X)), dtype)
    right = trained(x, Y, **BLOCKS)
    for kind in ("hdf5 contiguous", "memory map", "lazy, slices"):
        assert_same(trained(INDEXED[kind](x, tmp_path / kind), Y, **BLOCKS), right)


class Masked(Lazy):
    """Rows as those of netCDF come, with a mask."""

    def __getitem__(self, index):
        return np.ma.masked_greater(super().__getitem__(index), 1e6)


def test_rows_of_which_none_is_masked():
    assert_same(trained(Masked(X), Y, **BLOCKS), expected(**BLOCKS))


def in_single_precision():
    def cast(x):
        xp = xpnet.array_namespace(x)
        return xp.astype(x, xp.float32)

    return nn.Lambda(cast)


def some_rows_twice(rows):
    return np.random.default_rng(1).choice(rows, 90)


def a_few_rows(rows):
    return rows[5:25]


@pytest.mark.parametrize("order", [some_rows_twice, a_few_rows], ids=["twice", "few"])
@pytest.mark.parametrize(
    "kind", ["lazy, slices", "lazy, increasing", "hdf5 chunked", "zarr", "items", "dask"]
)
def test_an_order_with_other_rows_than_all(tmp_path, kind, order):
    assert_same(trained(*pair(kind, tmp_path), shuffle=order), expected(shuffle=order))


@pytest.mark.parametrize("jit", [False, True])
def test_batches_that_are_written_into_the_same_arrays(jit):
    """As a reader does that fills one buffer again and again."""

    def batches():
        x, y = np.empty((15, 3), "float32"), np.empty(15, "int64")
        for new_x, new_y in batches_of(X, Y, 15):
            x[...], y[...] = new_x, new_y
            yield x, y

    options = {"jit": jit, "metrics": [xpnet.metrics.accuracy]}
    right = trained(X, Y, batch_size=15, shuffle=False, validation=(X, Y), **options)
    assert_same(trained_on_batches(batches, validation=batches, **options), right)


def test_reads_are_made_as_if_the_caller_made_them():
    """The thread has the settings of NumPy and the device that are in use where `fit` is called."""
    seen = set()

    class Look(Lazy):
        def __getitem__(self, index):
            seen.add((np.geterr()["over"], xpnet.device()))
            return super().__getitem__(index)

    with np.errstate(over="call"):
        trained(Look(X), Y)
        xpnet.predict(classifier(), Look(X), batch_size=16)
    assert seen == {("call", xpnet.device())}


def test_the_next_batch_is_read_while_a_step_is_taken():
    is_read, waited = threading.Event(), []

    class Look(Lazy):
        def __getitem__(self, index):
            rows = super().__getitem__(index)
            if len(self.reads) == 4:  # a row to see what it is like, a batch to try, the first, the second
                is_read.set()
            return rows

    class Wait(Callback):
        def step_end(self, run):
            if run.step == 1:
                waited.append(is_read.wait(30))

    trained(Look(X), Y, shuffle=False, callbacks=[Wait()])
    assert waited == [True]


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_a_loader(workers):
    data = pytest.importorskip("torch.utils.data")

    class Dying(Dataset):
        def __getitem__(self, number):
            if number == 40:
                os._exit(1)
            return super().__getitem__(number)

    def loader(dataset):
        return data.DataLoader(dataset, batch_size=16, num_workers=workers, multiprocessing_context="fork")

    assert_same(trained_on_batches(loader(Dataset(X, Y))), expected(**IN_ORDER))
    assert not multiprocessing.active_children()
    net = classifier()
    before = weights(net)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        train(net, loader(Dying(X, Y)), None, batch_size=None)
    assert same(weights(net), before)
    assert not multiprocessing.active_children()


# -- predict ------------------------------------------------------------------------------------------------


def predicted(x, columns=False, **options):
    class InOneArray(nn.Module):
        def __call__(self, x):
            if not isinstance(x, dict):
                return x
            return xpnet.array_namespace(x["a"]).stack([x["a"], x["b"], x["c"]], axis=-1)

    return xpnet.to_numpy(xpnet.predict(nn.Sequential(InOneArray(), *classifier()), x, jit=False, **options))


@pytest.mark.parametrize("kind", INDEXED)
def test_predict_what_is_indexed(device, tmp_path, kind):
    x = INDEXED[kind](X, tmp_path / "x")
    assert np.array_equal(predicted(x, batch_size=16), predicted(X, batch_size=16))


@pytest.mark.parametrize("kind", [kind for kind in DATASETS if kind != "lists of two"])  # perhaps two inputs
def test_predict_a_data_set(device, kind):
    found = predicted(DATASETS[kind](X, Y), batch_size=16)
    assert np.array_equal(found, predicted(X, batch_size=16))


@pytest.mark.parametrize("kind", BATCHES)
def test_predict_batches(device, kind):
    found = predicted(BATCHES[kind](batches_of(X, Y)))
    assert np.array_equal(found, predicted(X, batch_size=16))


@pytest.mark.parametrize("kind", COLUMNS)
def test_predict_batches_of_columns(device, kind):
    found = predicted(COLUMNS[kind](batches_of(X, Y)))
    assert np.array_equal(found, predicted(X, batch_size=16))


@pytest.mark.parametrize(
    "kind", ["generator function", "function of a list", "loader", "loader without length", "Keras"]
)
def test_predict_batches_of_inputs_alone(device, kind):
    found = predicted(BATCHES[kind]([x for x, _ in batches_of(X, Y)]))
    assert np.array_equal(found, predicted(X, batch_size=16))


def test_predict_an_iterator(device):
    assert np.array_equal(predicted(iter(batches_of(X, Y))), predicted(X, batch_size=16))


def test_predict_with_a_recording(device, tmp_path):
    net, (x, _) = classifier(), pair("hdf5 chunked", tmp_path)
    right = xpnet.to_numpy(xpnet.predict(net, X, batch_size=16))
    assert np.array_equal(xpnet.to_numpy(xpnet.predict(net, x, batch_size=16)), right)
    assert np.array_equal(xpnet.to_numpy(xpnet.predict(net, lambda: iter(batches_of(X, Y)))), right)


# -- validation ---------------------------------------------------------------------------------------------

VALIDATION_X, VALIDATION_Y = X[::2] + 0.25, np.array(Y[::2])


@pytest.mark.parametrize("kind", INDEXED)
def test_validation_on_what_is_indexed(tmp_path, kind):
    found = trained(X, Y, validation=pair(kind, tmp_path, VALIDATION_X, VALIDATION_Y))
    assert_same(found, trained(X, Y, validation=(VALIDATION_X, VALIDATION_Y)))


@pytest.mark.parametrize("kind", DATASETS)
def test_validation_on_a_data_set(kind):
    found = trained(X, Y, validation=DATASETS[kind](VALIDATION_X, VALIDATION_Y))
    assert_same(found, trained(X, Y, validation=(VALIDATION_X, VALIDATION_Y)))


@shuffles("shuffled", "blocks")
@pytest.mark.parametrize("kind", INDEXED)
def test_validation_on_a_share_of_what_is_indexed(tmp_path, kind, shuffle):
    found = trained(*pair(kind, tmp_path), validation=0.25, **shuffle)
    assert_same(found, expected(validation=0.25, **shuffle))


@shuffles("as they stand", "function")
@pytest.mark.parametrize("kind", DATASETS)
def test_validation_on_a_share_of_a_data_set(kind, shuffle):
    found = trained(DATASETS[kind](X, Y), validation=0.25, **shuffle)
    assert_same(found, expected(validation=0.25, **shuffle))


def test_a_share_and_the_others_come_in_their_order():
    inputs = trained(X, Y, validation=0.25, epochs=1, shuffle=False).inputs
    x = X.astype("float32")
    training, validation = (
        [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in np.concatenate(batches)]
        for batches in (inputs[:3], inputs[3:])
    )
    assert len(validation) == 15
    assert training == sorted(set(range(60)) - set(validation))
    assert validation == sorted(validation)


@pytest.mark.parametrize("kind", BATCHES)
def test_validation_on_batches(kind):
    validation = BATCHES[kind](batches_of(VALIDATION_X, VALIDATION_Y, 11))
    found = trained(X, Y, validation=validation, batch_size=11)
    assert_same(found, trained(X, Y, validation=(VALIDATION_X, VALIDATION_Y), batch_size=11))


@pytest.mark.parametrize("kind", COLUMNS)
def test_validation_on_batches_of_columns(kind):
    batches, validation = (batches_of(*data, 11) for data in ((X, Y), (VALIDATION_X, VALIDATION_Y)))
    found = trained_on_batches(COLUMNS[kind](batches), validation=COLUMNS[kind](validation))
    right = trained(X, Y, validation=(VALIDATION_X, VALIDATION_Y), batch_size=11, shuffle=False)
    assert_same(found, right)


def test_validation_on_a_list_of_two_batches(device):
    """It is no pair of inputs and targets."""
    found = trained(X, Y, validation=batches_of(VALIDATION_X, VALIDATION_Y))
    assert_same(found, trained(X, Y, validation=(VALIDATION_X, VALIDATION_Y)))


def test_validation_on_a_pair_of_arrays_beside_batches(device):
    """The batches of the validation are of the size of the first one."""
    found = trained_on_batches(batches_of(X, Y, 20), validation=(X, Y))
    assert_same(found, trained(X, Y, batch_size=20, shuffle=False, validation=(X, Y)))


# -- resume -------------------------------------------------------------------------------------------------


class StopAfter(Callback):
    """Ends a training as Ctrl-C does, after a step."""

    def __init__(self, step):
        self.step = step

    def step_end(self, run):
        if run.step == self.step:
            raise KeyboardInterrupt


# After which steps a training of two epochs of four steps is interrupted and resumed: in the middle of an
# epoch, between two of them, and several times in one.
STOPS = [(3,), (4,), (1, 2), (5, 6, 7)]


def resumed(tmp_path, stops, make, **options):
    """Interrupt a training after each of some steps, and go on; return what came of it, and the last part."""
    path = tmp_path / "run.safetensors"
    for number, stop in enumerate(stops):
        # The checkpoint of the last step is not written any more.
        callbacks = [Checkpoint(path, every=1), StopAfter(stop + 1)]
        trained(*make(), callbacks=callbacks, resume=path if number else None, **options)
    return trained(*make(), resume=path, **options)


def assert_same_rest(found, right, first):
    """Assert that a training came to the same, by the same batches from one on."""
    assert found.history == right.history
    assert same(found.weights, right.weights)
    assert same(found.inputs, right.inputs[first:])
    assert same(found.targets, right.targets[first:])


def as_text(stops):
    return "-".join(map(str, stops))


@pytest.mark.parametrize("stops", [(4,), (5, 6, 7)], ids=as_text)
@shuffles("shuffled", "blocks")
@pytest.mark.parametrize("kind", ["sparse", "hdf5 chunked", "lazy, slices", "items"])
def test_resume_on_what_is_indexed(tmp_path, kind, shuffle, stops):
    found = resumed(tmp_path, stops, lambda: pair(kind, tmp_path), **shuffle)
    assert_same_rest(found, expected(**shuffle), stops[-1])


@pytest.mark.parametrize("stops", [(3,), (1, 2)], ids=as_text)
@each_shuffle
def test_resume_with_every_shuffle(tmp_path, shuffle, stops):
    make = lambda: (Lazy(X, is_increasing), Lazy(Y, is_increasing))
    assert_same_rest(resumed(tmp_path, stops, make, **shuffle), expected(**shuffle), stops[-1])


@pytest.mark.parametrize("stops", [(4,), (1, 2)], ids=as_text)
@pytest.mark.parametrize("kind", DATASETS)
def test_resume_on_a_data_set(tmp_path, kind, stops):
    found = resumed(tmp_path, stops, lambda: (DATASETS[kind](X, Y),))
    assert_same_rest(found, expected(), stops[-1])


@pytest.mark.parametrize("stops", [(4,), (5, 6, 7)], ids=as_text)
@pytest.mark.parametrize("kind", BATCHES)
def test_resume_on_batches(tmp_path, kind, stops):
    found = resumed(tmp_path, stops, lambda: (BATCHES[kind](batches_of(X, Y)),), batch_size=None)
    assert_same_rest(found, expected(**IN_ORDER), stops[-1])


@pytest.mark.parametrize("stops", [(4,), (1, 2)], ids=as_text)
@pytest.mark.parametrize("kind", COLUMNS)
def test_resume_on_batches_of_columns(tmp_path, kind, stops):
    found = resumed(tmp_path, stops, lambda: (COLUMNS[kind](batches_of(X, Y)),), batch_size=None)
    assert_same_rest(found, expected(**IN_ORDER), stops[-1])


@pytest.mark.parametrize("stops", STOPS, ids=as_text)
@shuffles("shuffled", "blocks")
def test_resume_beside_a_share_for_validation(tmp_path, shuffle, stops):
    found = resumed(tmp_path, stops, lambda: (Lazy(X), Lazy(Y)), validation=0.25, **shuffle)
    right = expected(validation=0.25, **shuffle)
    assert found.history == right.history
    assert same(found.weights, right.weights)


@pytest.mark.parametrize("stops", STOPS, ids=as_text)
def test_resume_on_batches_with_validation(tmp_path, stops):
    options = {"validation": lambda: iter(batches_of(X, Y)), "batch_size": None}
    found = resumed(tmp_path, stops, lambda: (Stateful(batches_of(X, Y)),), **options)
    right = trained_on_batches(batches_of(X, Y), validation=batches_of(X, Y))
    assert found.history == right.history
    assert same(found.weights, right.weights)


@pytest.mark.parametrize(
    ("stops", "made"), [((3,), [3]), ((4,), []), ((1, 2), [2, 3]), ((5, 6, 7), [3])], ids=str
)
def test_a_state_is_given_back_and_nothing_is_skipped(tmp_path, caplog, stops, made):
    sources = []

    def make():
        sources.append(Stateful(batches_of(X, Y)))
        return (sources[-1],)

    with caplog.at_level(logging.INFO, "xpnet"):
        resumed(tmp_path, stops, make, batch_size=None)
    second_epoch = [0, 1, 2, 3] if stops[-1] <= 4 else []
    assert sources[-1].made == made + second_epoch
    assert not caplog.records


def test_an_iteration_is_closed_before_a_state_is_given_back(tmp_path):
    """That from which the first batch came, on which the network is tried: its end may change the state."""
    events = []

    class Noting(Stateful):
        def __iter__(self):
            events.append("begins")
            try:
                yield from super().__iter__()
            finally:
                events.append("ends")

        def load_state_dict(self, state):
            events.append("loads")
            super().load_state_dict(state)

    resumed(tmp_path, (3,), lambda: (Noting(batches_of(X, Y)),), batch_size=None)
    once = ["begins", "ends"]
    assert events == once + once + ["loads"] + once + once


def test_states_of_several_kinds_of_values(tmp_path):
    random = np.random.default_rng(5)
    state = {
        "array": np.arange(3),
        "other": xpnet.asarray(np.arange(3), device="strict"),
        "nested": {"none": None, "list": [1, 2.5, "text", True], "tuple": (b"", [b"\n"]), "empty": {}},
        "large": random.bit_generator.state["state"]["state"],
        "bytes": b"\0\1\2",
        "numbers of NumPy": [np.int64(3), np.float32(0.5), np.bool_(True)],
    }
    given = []

    class Several(Stateful):
        def state_dict(self):
            return state | super().state_dict()

        def load_state_dict(self, state):
            given.append(state)
            super().load_state_dict(state)

    resumed(tmp_path, (3,), lambda: (Several(batches_of(X, Y)),), batch_size=None)
    (found,) = given
    assert found.pop("position") == 3
    for name in ("array", "other"):
        array, right = found.pop(name), state.pop(name)
        assert type(array) is type(right)
        assert np.array_equal(xpnet.to_numpy(array), xpnet.to_numpy(right))
    assert found == state
    kinds, right = (list(map(type, kept["numbers of NumPy"])) for kept in (found, state))
    assert kinds == right


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # what torchdata itself meets in torch
def test_a_stateful_loader_of_torchdata(tmp_path):
    torch = pytest.importorskip("torch")
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def make():
        data = torch.utils.data.TensorDataset(torch.asarray(X), torch.asarray(Y))
        return (loaders.StatefulDataLoader(data, batch_size=16),)

    found = resumed(tmp_path, (2, 3), make, batch_size=None)
    assert_same_rest(found, expected(**IN_ORDER), 3)


@pytest.mark.parametrize(("stops", "skipped"), [((3,), 3), ((1, 2), 2), ((5, 6), 2)], ids=str)
def test_batches_without_a_state_are_skipped_once(tmp_path, caplog, stops, skipped):
    calls = []

    def batches():
        calls.append([])
        for batch in batches_of(X, Y):
            calls[-1].append(1)
            yield batch

    with caplog.at_level(logging.INFO, "xpnet"):
        resumed(tmp_path, stops[:1], lambda: (batches,), batch_size=None)
        before, lines = len(calls), len(caplog.records)
        resumed(tmp_path, stops, lambda: (batches,), batch_size=None)
    epochs = 2 if stops[-1] < 4 else 1
    assert [len(made) for made in calls[-epochs:]] == [4] * epochs
    assert before > 1
    assert len(caplog.records) - lines == len(stops)  # a line for each time that the training went on
    assert str(skipped) in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    "order",
    [np.arange(60)[::-1], [59, *range(1, 60)], [*range(31), 0, *range(32, 60)]],
    ids=["all", "the first", "the last that was done"],
)
def test_other_batches_than_those_that_were_done_are_told(tmp_path, caplog, order):
    sources = iter([batches_of(X, Y), batches_of(X[order], Y[order])])
    with caplog.at_level(logging.INFO, "xpnet"):
        resumed(tmp_path, (2,), lambda: (next(sources),), batch_size=None)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "others than then" in line


def test_nothing_is_skipped_between_two_epochs(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "xpnet"):
        resumed(tmp_path, (4,), lambda: (lambda: iter(batches_of(X, Y)),), batch_size=None)
    assert not caplog.records


def test_an_iterator_serves_what_is_left_of_the_last_epoch(tmp_path):
    path, batches, options = tmp_path / "run.safetensors", batches_of(X, Y), {"epochs": 3}
    for step, left in ((2, 3), (6, 2), (10, 1)):
        callbacks = [Checkpoint(path, every=1), StopAfter(step + 1)]
        trained_on_batches(lambda: iter(batches), callbacks=callbacks, **options)
        if left > 1:
            with pytest.raises(ValueError, match=f"for {left} epochs must be an iterable"):
                trained_on_batches(iter(batches), resume=path, **options)
    found = trained_on_batches(iter(batches), resume=path, **options)
    assert_same_rest(found, trained(X, Y, **IN_ORDER, **options), 10)


@pytest.mark.parametrize("kind", BATCHES)
def test_resume_behind_the_last_batch_of_an_epoch(tmp_path, kind):
    """The training was killed before the validation."""

    class Stop(Callback):
        def epoch_end(self, run):
            raise KeyboardInterrupt

    path, options = tmp_path / "run.safetensors", {"validation": (X, Y)}
    source = BATCHES[kind](batches_of(X, Y, 32))
    trained_on_batches(source, callbacks=[Checkpoint(path, every=1), Stop()], **options)
    found = trained_on_batches(BATCHES[kind](batches_of(X, Y, 32)), resume=path, **options)
    right = trained(X, Y, batch_size=32, shuffle=False, **options)
    assert found.history == right.history
    assert same(found.weights, right.weights)


def checkpoint_of_batches(path, batches):
    trained_on_batches(batches, callbacks=[Checkpoint(path, every=1), StopAfter(4)])


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ((X, Y), {}),
        ((batches_of(X, Y, 10),), {"batch_size": None}),
        ((batches_of(X, Y)[:2],), {"batch_size": None}),
    ],
    ids=["arrays", "more batches", "fewer batches"],
)
def test_resume_on_something_else_than_the_batches_is_refused(tmp_path, data, options):
    path = tmp_path / "run.safetensors"
    checkpoint_of_batches(path, batches_of(X, Y))
    with pytest.raises(ValueError, match=r"resume needs .*received"):
        trained(*data, resume=path, **options)


def test_resume_on_batches_of_unknown_number_that_are_fewer_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpoint_of_batches(path, lambda: iter(batches_of(X, Y)))
    with pytest.raises(ValueError, match=r"(?s)3.*received.*2"):
        trained_on_batches(lambda: iter(batches_of(X, Y)[:2]), resume=path)


def test_resume_on_arrays_and_then_on_batches_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    trained(X, Y, callbacks=[Checkpoint(path, every=1), StopAfter(4)])
    with pytest.raises(ValueError, match=r"resume needs .*received"):
        trained_on_batches(batches_of(X, Y), resume=path)


@pytest.mark.parametrize("source", [{}, 5, [1], {"digest": "1", "state": None}, {"digest": 0}], ids=str)
def test_a_damaged_source_is_refused(tmp_path, source):
    data = (batches_of(X, Y), None)
    assert_damaged(tmp_path / "run.safetensors", source, *data, batch_size=None)


def test_a_source_beside_arrays_is_refused(tmp_path):
    assert_damaged(tmp_path / "run.safetensors", {"digest": 0, "state": None}, X, Y)


def assert_damaged(path, source, *data, **options):
    """Assert that a checkpoint with a source that is none is refused."""
    train(classifier(), *data, callbacks=[Checkpoint(path, every=1), StopAfter(4)], **options)
    parts = read_parts(path)
    others = {name: parts.load(name, device="cpu") for name in ("net", "optimizer", "training")}
    write_parts(path, others | {"source": source})
    with pytest.raises(ValueError, match="is damaged: its source"):
        train(classifier(), *data, resume=path, **options)


def test_an_error_where_a_state_is_given_back_says_so(tmp_path):
    class Refuses(Stateful):
        def load_state_dict(self, state):
            raise KeyError("mine")

    path = tmp_path / "run.safetensors"
    checkpoint_of_batches(path, Stateful(batches_of(X, Y)))
    with pytest.raises(KeyError, match="mine") as error:
        trained_on_batches(Refuses(batches_of(X, Y)), resume=path)
    assert "given the state" in error.value.__notes__[0]


@pytest.mark.parametrize("shuffle", [{"shuffle": True}, BLOCKS | {"block_size": 4}], ids=str)
def test_resume_with_other_blocks_is_refused(tmp_path, shuffle):
    path = tmp_path / "run.safetensors"
    trained(X, Y, callbacks=[Checkpoint(path, every=1), StopAfter(3)], **BLOCKS)
    with pytest.raises(ValueError, match=r"resume needs .*'block_size': 3.*received"):
        trained(X, Y, resume=path, **shuffle)


def test_resume_on_a_file_what_began_on_arrays(tmp_path):
    path, shuffle = tmp_path / "run.safetensors", BLOCKS
    trained(X, Y, callbacks=[Checkpoint(path, every=1), StopAfter(4)], **shuffle)
    found = trained(*pair("hdf5 contiguous", tmp_path), resume=path, **shuffle)
    assert_same_rest(found, expected(**shuffle), 3)


# -- never whole --------------------------------------------------------------------------------------------

# So many columns that few batches are gathered at once.
MANY_X, MANY_Y = np.broadcast_to(np.zeros(1), (1000, 2000)), np.zeros(1000, "int64")
BATCH, BLOCK = 8, 10


def few_columns():
    return nn.Lambda(lambda x: x[:, :3])


# Beside each shuffle: of how many rows, how many a read may ask for, and how many may be there ahead of the
# steps: those that are read, those that are ready, and for blocks the rest of those that are in use.
READS = {
    "shuffled": ({"shuffle": True}, 200, BATCH, 2 * BATCH),
    "as they stand": ({"shuffle": False}, 200, BATCH, 2 * BATCH),
    "function": ({"shuffle": odd_rows_first}, 200, BATCH, 2 * BATCH),
    "blocks": ({"shuffle": "blocks", "block_size": BLOCK}, 1000, BLOCK, 3 * 16 * BLOCK),
    "blocks of a few rows": ({"shuffle": "blocks", "block_size": 2}, 200, 2, 3 * 16 * 2),
}
each_read = pytest.mark.parametrize(("shuffle", "rows", "most", "ahead"), READS.values(), ids=READS)


class LookAhead(Callback):
    """Waits now and then for what is read meanwhile, and notes how many rows are ahead of the steps."""

    def __init__(self, reads):
        self.reads, self.ahead = reads, 0

    def start(self, run):
        self.tried = sum(self.reads)  # the first batch, to try the network with

    def step_end(self, run):
        if run.step in (1, 3, 20):
            time.sleep(0.02)
        self.ahead = max(self.ahead, sum(self.reads) - self.tried - BATCH * run.step)


@each_read
@pytest.mark.parametrize(
    "accepts", [is_slice, is_increasing, lambda index: True], ids=["slices", "increasing", "any"]
)
def test_an_array_is_read_by_batches(accepts, shuffle, rows, most, ahead):
    x, y = Lazy(MANY_X[:rows], accepts), Lazy(MANY_Y[:rows], accepts)
    looks = [LookAhead(x.reads), LookAhead(y.reads)]
    trained(x, y, batch_size=BATCH, epochs=1, first=few_columns(), callbacks=looks, **shuffle)
    for lazy, look in zip((x, y), looks, strict=True):
        assert lazy.reads[:2] == [1, BATCH]  # a first row, to see what it is like, and a batch to try
        assert max(lazy.reads[2:]) <= most
        if shuffle["shuffle"] in (False, "blocks"):  # else, rows between those that are asked for may be read
            assert look.ahead <= ahead
            assert sum(lazy.reads) <= look.tried + rows


@each_read
@pytest.mark.parametrize("dataset", [Dataset, ManyAtOnce])
def test_a_data_set_is_read_by_batches(dataset, shuffle, rows, most, ahead):
    data = dataset(MANY_X[:rows], MANY_Y[:rows])
    look = LookAhead(data.reads)
    trained(data, batch_size=BATCH, epochs=1, first=few_columns(), callbacks=[look], **shuffle)
    assert max(data.reads) <= (16 * BLOCK if shuffle["shuffle"] == "blocks" else most)
    assert look.ahead <= ahead
    assert sum(data.reads) <= look.tried + rows


def test_an_array_is_predicted_by_batches():
    x = Lazy(MANY_X)
    xpnet.predict(nn.Sequential(few_columns(), *classifier()), x, batch_size=BATCH, jit=False)
    assert max(x.reads) <= BATCH
    assert sum(x.reads) <= len(MANY_X) + 1


@pytest.mark.parametrize("share", [False, True])
def test_an_array_is_validated_by_batches(share):
    x, y = Lazy(MANY_X), Lazy(MANY_Y)
    data, validation = ((x, y), 0.1) if share else ((MANY_X[:10], MANY_Y[:10]), (x, y))
    trained(*data, batch_size=BATCH, epochs=1, first=few_columns(), validation=validation)
    assert max(x.reads + y.reads) <= BATCH


def test_blocks_are_read_once_and_in_one_piece():
    x = Lazy(MANY_X, is_slice)
    options = {"shuffle": "blocks", "block_size": BLOCK, "first": few_columns()}
    trained(x, MANY_Y, batch_size=BATCH, epochs=1, **options)
    assert sum(reads == BLOCK for reads in x.reads) >= 90  # those of the batch that is tried are others


@pytest.mark.parametrize("use", ["fit", "predict", "validation", "data set"])
def test_rows_of_unknown_number_are_refused(use):
    class NoLength:
        def __getitem__(self, number):
            if number > 10**4:
                raise AssertionError("it was read without an end")
            return X[number % 60]

    uses = {
        "fit": lambda: trained(NoLength(), Y),
        "predict": lambda: predicted(NoLength()),
        "validation": lambda: trained(X, Y, validation=(NoLength(), Y)),
        "data set": lambda: trained(NoLength()),
    }
    with pytest.raises(TypeError, match=r"received (.*NoLength|None).*\. \w"):
        uses[use]()


# -- the order of "blocks" ----------------------------------------------------------------------------------


def orders(rows, *, epochs=1, batch_size=16, **options):
    """Return the order in which the rows come in each epoch of a training by blocks."""
    seen = []

    class Start(Callback):
        def start(self, run):  # the first batch was tried before
            seen.clear()

        def epoch_start(self, run):
            seen.append([])

    def loss(outputs, numbers):
        if seen:
            seen[-1].append(np.array(xpnet.to_numpy(numbers)))
        return xpnet.array_namespace(outputs).mean(outputs)

    options.setdefault("x", np.zeros((rows, 1), "float32"))
    settings = {"loss": loss, "optimizer": xpnet.optim.SGD(0.0), "shuffle": "blocks", "jit": False}
    settings |= {"epochs": epochs, "batch_size": batch_size, "callbacks": [Start()], "y": np.arange(rows)}

    def one_column(x):
        x = x["first"] if isinstance(x, dict) else x
        xp = xpnet.array_namespace(x)
        return xp.astype(x[:, :1], xp.float32)

    train(nn.Sequential(nn.Lambda(one_column), nn.Dense(1, 1, seed=0)), **(settings | options))
    return [np.concatenate(batches) for batches in seen]


def assert_near(order, numbers, block_size):
    """Assert that the rows of each block come within sixteen blocks."""
    for block in range(-(-len(numbers) // block_size)):
        places = np.flatnonzero(np.isin(order, numbers[block * block_size : (block + 1) * block_size]))
        assert places.max() - places.min() < 16 * block_size


SIZES = [
    (200, 1),
    (200, 4),
    (203, 4),
    (200, 7),
    (50, 3),
    (200, 200),
    (200, 10**6),
    (1, 1),
    (2, 5),
    (16, 1),
    (17, 1),
]
each_size = pytest.mark.parametrize(("rows", "block_size"), SIZES, ids=str)


@each_size
def test_blocks_are_permuted(rows, block_size):
    for order in orders(rows, block_size=block_size, epochs=2):
        assert np.array_equal(np.sort(order), np.arange(rows))
        assert_near(order, np.arange(rows), block_size)


@each_size
def test_where_blocks_that_are_shuffled_together_end(rows, block_size):
    """A file is read so far: never nothing, and no more than sixteen blocks."""
    order = Blocks(block_size, np.random.default_rng(0))
    for _ in range(3):
        order(np.arange(rows))
        lengths = np.diff(order.ends, prepend=0)
        assert order.ends[-1] == rows
        assert lengths.min() > 0
        assert lengths.max() <= 16 * block_size


@each_size
def test_order_of_blocks_is_another_one_each_epoch(rows, block_size):
    first, second = orders(rows, block_size=block_size, epochs=2)
    assert rows < 3 or not np.array_equal(first, second)
    assert rows < 3 or not np.array_equal(first, np.arange(rows))


def test_rows_and_blocks_are_both_shuffled():
    (order,) = orders(640, block_size=4)
    steps = np.diff(order)
    assert np.mean(steps == 1) < 0.1  # neighbours are parted
    places = np.empty(640)
    places[order] = np.arange(640)
    blocks = places.reshape(160, 4).mean(axis=1)
    assert abs(np.corrcoef(blocks, np.arange(160))[0, 1]) < 0.3  # early blocks come late


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 7},
        {"batch_size": 10**6},
        {"x": np.ones((200, 5))},
        {"x": Lazy(np.zeros((200, 1)), is_slice)},
        {"x": {"first": np.zeros((200, 1)), "second": np.zeros((200, 3))}},
    ],
    ids=["small batches", "one batch", "columns", "lazy", "dict"],
)
def test_order_of_blocks_does_not_depend_on_anything_else(changes):
    right = orders(200, block_size=4, epochs=2)
    assert same(orders(200, block_size=4, epochs=2, **changes), right)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"block_size": 5}, {"rows": 201}], ids=str)
def test_order_of_blocks_depends_on_seed_and_size_and_rows(changes):
    settings = {"rows": 200, "block_size": 4, "seed": 0}
    (one,), (other,) = orders(**settings), orders(**(settings | changes))
    assert not np.array_equal(one, other[other < 200])


@pytest.mark.parametrize(
    ("rows", "elements", "block_size"), [(200, 1, 4), (60, 1, 1), (130, 3 * 2**15, 2)], ids=str
)
def test_default_size_of_blocks(rows, elements, block_size):
    """A block has at most a 64th of the rows, and 262,144 elements."""
    x = np.broadcast_to(np.int8(0), (rows, elements))
    (order,) = orders(rows, x=x, batch_size=4)
    assert np.array_equal(order, orders(rows, block_size=block_size)[0])


def test_blocks_of_more_rows_than_there_are():
    """They take no more memory than one of all rows."""
    (right,) = orders(200, block_size=200)
    assert np.array_equal(orders(200, block_size=2**63)[0], right)


def test_blocks_beside_a_share_for_validation():
    """The rows that are left are in blocks as they stand in the file."""
    (all_rows,) = orders(400, validation=0.25, shuffle=False)
    left = all_rows[:300]
    assert len(np.unique(left)) == 300
    (order,) = orders(400, validation=0.25, block_size=3)
    assert np.array_equal(np.sort(order[:300]), np.sort(left))
    assert np.array_equal(order[300:], all_rows[300:])
    assert_near(order[:300], np.sort(left), 3)


def test_blocks_of_sparse_rows():
    x = scipy.sparse.random_array((200, 100), density=0.02, rng=np.random.default_rng(0), format="csr")
    seen = iter(orders(200, block_size=4, epochs=2))

    def fit(**options):
        net = nn.Dense(100, 2, seed=0)
        train(net, x, np.arange(200) % 2, epochs=2, **options)
        return weights(net)

    assert same(fit(shuffle="blocks", block_size=4), fit(shuffle=lambda _: next(seen)))
