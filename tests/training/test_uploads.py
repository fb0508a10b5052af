"""Where a data set lies in a training, and when its batches go up."""

import numpy as np
import pytest
import scipy.sparse
from helpers import assert_on

import xpnet
from training.cases import X, Y, classifier, train, weights
from xpnet.training import destination
from xpnet.training.examples import Examples

BYTES = X.size * 4 + Y.size * 8  # of X in single precision and of Y


class Uploads:
    """Copies as the device under test does, and writes what it is asked to a log."""

    def __init__(self, log):
        self.log = log
        self.number = 0

    def begin(self, arrays):
        number, self.number = self.number, self.number + 1
        self.log.append(f"begin {number}")
        moved = [xpnet.asarray(x, device=xpnet.device()) if isinstance(x, np.ndarray) else x for x in arrays]

        def ready():
            self.log.append(f"ready {number}")
            return moved

        return ready

    def close(self):
        self.log.append("close")


@pytest.fixture
def library(device):
    """Return a function that gives the library of the device under test memory and uploads of its own."""
    library = device.library
    if library.spec == "cpu":
        pytest.skip("the arrays of NumPy are on the host")
    before = {name: getattr(library, name) for name in ("free_memory", "uploads")}

    def change(**values):
        for name, value in values.items():
            object.__setattr__(library, name, value)

    yield change
    change(**before)


@pytest.fixture
def copies(device, monkeypatch):
    """The shapes of the arrays that go from the host to the device under test."""
    found = []
    original = device.namespace.asarray

    def asarray(x, **options):
        if isinstance(x, np.ndarray):
            found.append(x.shape)
        return original(x, **options)

    monkeypatch.setattr(device.namespace, "asarray", asarray)
    return found


def examples(device, x=X, y=Y):
    return Examples({"x": x, "y": y}, device, device.namespace.float32)


@pytest.mark.parametrize(("free", "stays"), [(None, False), (4 * BYTES - 4, False), (4 * BYTES, True)])
def test_a_data_set_that_fits_settles_on_the_device(device, library, free, stays):
    library(free_memory=lambda native: free if native == device.native else 0)
    data = examples(device).settle()
    assert [isinstance(x, np.ndarray) for x in data.values] == [not stays] * 2
    if stays:
        assert_on(data.values[0], device, "float32", X.shape)
        assert_on(data.values[1], device, "int64", Y.shape)


@pytest.mark.parametrize("jit", [False, True])
def test_the_rows_of_an_epoch_go_up_once(device, library, copies, jit):
    during = []

    class Count(xpnet.callbacks.Callback):
        def epoch_start(self, run):
            copies.clear()

        def epoch_end(self, run):
            during.append(list(copies))

    elsewhere, here = classifier(), classifier()
    expected = train(elsewhere, jit=jit)
    library(free_memory=lambda native: 10**9)
    history = train(here, jit=jit, callbacks=[Count()])
    assert during == [[(60,)]] * 3
    assert history["loss"] == expected["loss"]
    assert all(map(np.array_equal, weights(here), weights(elsewhere)))


def test_settled_data_of_all_kinds(device, library, monkeypatch, tmp_path, copies):
    if device.library.spec == "jax":
        return  # it has no assignment into parts of an array
    library(free_memory=lambda native: 10**9)
    monkeypatch.setattr(destination, "BYTES_AT_ONCE", 100)
    np.save(tmp_path / "x.npy", X)
    sparse = scipy.sparse.csr_array(X)
    x = {
        "file": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "foreign": X.astype(">f8"),
        "sparse": sparse,
        "flags": X > 0,
    }
    data = examples(device, x).settle()
    assert max(np.prod(shape) for shape in copies) <= 100  # in parts
    assert data.values[0]["sparse"].shape == X.shape
    for x, y in data.batches(16, data.rows[::-1]):
        rows = np.flatnonzero(np.isin(X[:, 0].astype("float32"), xpnet.to_numpy(x["file"])[:, 0]))[::-1]
        for name in ("file", "foreign", "sparse"):
            assert_on(x[name], device, "float32", (len(rows), 3))
            assert np.array_equal(xpnet.to_numpy(x[name]), X[rows].astype("float32"))
        assert np.array_equal(xpnet.to_numpy(x["flags"]), X[rows] > 0)
        assert np.array_equal(xpnet.to_numpy(y), Y[rows])


@pytest.mark.parametrize("rows", [[0, 60], [-1, 3]])
def test_rows_that_are_not_there(device, library, rows):
    library(free_memory=lambda native: 10**9)
    with pytest.raises(IndexError, match=rf"must be from 0 to 59, received {min(rows)} to {max(rows)}"):
        next(examples(device).settle().batches(2, np.asarray(rows)))


def test_both_parts_of_a_split_share_what_settled(device, library):
    library(free_memory=lambda native: 10**9)
    data = examples(device).settle()
    rest, part = data.split(0.3, np.random.default_rng(0))
    assert rest.values[0] is part.values[0] is data.values[0]


def test_a_batch_goes_up_while_the_step_before_is_computed(device, library, monkeypatch):
    log = []
    library(uploads=lambda: Uploads(log))
    monkeypatch.setattr("xpnet.training.examples.GATHERED_BYTES", 1)
    for number, (x, y) in enumerate(examples(device).batches(16)):
        log.append(f"step {number}")
        assert np.array_equal(xpnet.to_numpy(x), X[16 * number :][:16].astype("float32"))
        assert np.array_equal(xpnet.to_numpy(y), Y[16 * number :][:16])
    assert log == [
        *("begin 0", "begin 1", "ready 0", "step 0"),
        *("begin 2", "ready 1", "step 1"),
        *("begin 3", "ready 2", "step 2"),
        *("ready 3", "step 3"),
        "close",
    ]


def test_uploads_are_closed_when_a_training_breaks_off(device, library):
    log = []
    library(uploads=lambda: Uploads(log))
    data = examples(device).batches(16)
    next(data)
    data.close()
    assert log == ["begin 0", "ready 0", "close"]  # all batches go up together, as they are small


@pytest.mark.parametrize("jit", [False, True])
def test_a_training_with_uploads_is_the_same(device, library, monkeypatch, jit):
    monkeypatch.setattr("xpnet.training.examples.GATHERED_BYTES", 1)
    at_once, ahead, log = classifier(), classifier(), []
    expected = train(at_once, jit=jit, validation=0.25)
    library(uploads=lambda: Uploads(log), free_memory=lambda native: 0)
    history = train(ahead, jit=jit, validation=0.25)
    assert log.count("close") == log.count("begin 0") == 2 + 2 * 3  # to try, and in each epoch
    assert history["loss"] == expected["loss"]
    assert history["validation_loss"] == expected["validation_loss"]
    assert all(map(np.array_equal, weights(ahead), weights(at_once)))


def test_nothing_goes_up_that_is_there(device, library):
    library(uploads=lambda: pytest.fail("nothing is to be copied"))
    x, y = xpnet.asarray(X, device=device), xpnet.asarray(Y, device=device)
    assert len(list(examples(device, x, y).batches(16))) == 4
