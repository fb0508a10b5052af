from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from helpers import assert_on

import xpnet
from xpnet.training.examples import Examples
from xpnet.training.orders import order_of

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


def examples(device, x=X, y=Y):
    return Examples({"x": x, "y": y}, device, device.namespace.float32)


@pytest.mark.parametrize("on_device", [False, True])
def test_batches_in_order(device, on_device):
    x, y = (xpnet.asarray(X, device=device), xpnet.asarray(Y, device=device)) if on_device else (X, Y)
    batches = list(examples(device, x, y).batches(4))
    assert [tuple(x.shape) for x, _ in batches] == [(4, 2), (4, 2), (2, 2)]
    for x, y in batches:
        assert_on(x, device, "float32")
        assert_on(y, device, "int64")
    assert np.array_equal(np.concatenate([xpnet.to_numpy(y) for _, y in batches]), Y)


@pytest.mark.parametrize("on_device", [False, True])
def test_shuffled_rows_stay_together(device, on_device):
    x, y = (xpnet.asarray(X, device=device), xpnet.asarray(Y, device=device)) if on_device else (X, Y)
    data = examples(device, x, y)
    orders = []
    for seed in (0, 0, 1):
        batches = list(data.batches(3, np.random.default_rng(seed).permutation(data.rows)))
        rows = np.concatenate([xpnet.to_numpy(y) for _, y in batches])
        assert sorted(rows) == list(range(10))
        assert np.array_equal(np.concatenate([xpnet.to_numpy(x) for x, _ in batches])[:, 0], 2.0 * rows)
        orders.append(tuple(rows))
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("first", range(5))
def test_batches_from_a_later_one_on(device, first):
    data = examples(device)
    for order in (None, data.rows[::-1]):
        later = [xpnet.to_numpy(y).tolist() for _, y in data.batches(3, order, first=first)]
        assert later == [xpnet.to_numpy(y).tolist() for _, y in data.batches(3, order)][first:]
    assert list(data.batches(3, first=4)) == []


@pytest.mark.parametrize("together", [1, 2, 3])
def test_batches_that_are_gathered_together(device, monkeypatch, together):
    monkeypatch.setattr(
        "xpnet.training.examples.GATHERED_BYTES", 8 * 2 * 3 * together
    )  # of the 3 numbers of an example
    batches = [xpnet.to_numpy(y).tolist() for _, y in examples(device).batches(2)]
    assert batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(
    ("rows", "received"),
    [
        ([0, -1], "-1 to 0"),
        ([0, 10], "0 to 10"),
        ([0.0, 1.0], "float64 of shape"),
        ([True, False], "bool of shape"),
        ([[0, 1]], "int64 of shape"),
    ],
)
def test_rows_that_are_not_there(device, on_device, rows, received):
    x, y = (xpnet.asarray(X, device=device), xpnet.asarray(Y, device=device)) if on_device else (X, Y)
    with pytest.raises(IndexError, match=f"rows must be from 0 to 9, received {received}"):
        next(examples(device, x, y).batches(2, np.asarray(rows)))


def test_any_sequence(device):
    data = examples(device, [[1, 2.5], [3, 4]], (0, 1))
    x, y = next(data.batches(2))
    assert_on(x, device, "float32", (2, 2))
    assert_on(y, device, shape=(2,))


def test_array_of_another_device():
    x = xpnet.asarray(X, device="strict:device1")
    batch, _ = next(examples(xpnet.device("cpu"), x, Y).batches(4))
    assert isinstance(batch, np.ndarray)


def test_split_is_a_partition():
    rest, part = examples(xpnet.device("cpu")).split(0.3, np.random.default_rng(0))
    assert (len(rest), len(part)) == (7, 3)
    rows = [y for data in (rest, part) for _, ys in data.batches(2) for y in ys]
    assert sorted(rows) == list(range(10))
    others = {
        tuple(examples(xpnet.device("cpu")).split(0.3, np.random.default_rng(s))[1].rows) for s in range(5)
    }
    assert len(others) > 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:9], "as many examples of each, received 10 in x and 9 in y"),
        (X[:0], Y[:0], "at least one example, received none in x and y"),
        (3.0, Y, "x must have an axis of examples"),
    ],
)
def test_data_that_do_not_fit(device, x, y, message):
    with pytest.raises(ValueError, match=message):
        examples(device, x, y)


def test_text_is_no_number():
    with pytest.raises(TypeError, match=r"x must hold numbers.*received text such as 'a'.*Encode"):
        examples(xpnet.device("cpu"), ["a", "b"], [0, 1])


@pytest.mark.parametrize("share", [0.01, 0.99, 1.5, -0.5])
def test_share_that_leaves_nothing(share):
    with pytest.raises(ValueError, match=f"at least one example on either side, received {share} of 10"):
        examples(xpnet.device("cpu")).split(share, np.random.default_rng(0))


def test_dicts_and_sparse_matrices(device):
    x = {"dense": X, "sparse": scipy.sparse.csr_array(X), "columns": scipy.sparse.csc_matrix(X)}
    data = examples(device, x, {"labels": Y, "weights": Y / 2})
    for x, y in data.batches(4, data.rows[::-1]):
        for name in ("dense", "sparse", "columns"):
            assert_on(x[name], device, "float32")
            assert np.array_equal(xpnet.to_numpy(x[name])[:, 0], 2.0 * xpnet.to_numpy(y["labels"]))
        assert np.array_equal(xpnet.to_numpy(y["weights"]), xpnet.to_numpy(y["labels"]) / 2)
    with pytest.raises(ValueError, match=r"received 10 in x and 10 in y\['labels'\] and 9 in y\['weights'\]"):
        examples(device, X, {"labels": Y, "weights": Y[1:]})


def test_batches_of_a_sparse_matrix_with_few_elements(device):
    dense = np.zeros((10, 40))
    dense[np.arange(8), np.arange(8) * 3] = dense[1, :5] = dense[2, 7] = np.arange(1, 9)[2]
    data = Examples(
        {"x": scipy.sparse.csr_array(dense), "y": Y}, device, device.namespace.float32, sparse=True
    )
    assert data.stays_sparse
    order, shapes, weight = data.rows[::-1], set(), np.eye(40, dtype="float32")[:, :20]
    for number, (x, y) in enumerate(data.batches(4, order)):
        assert_on(x.values, device, "float32")
        shapes.add((x.shape, tuple(x.values.shape)))
        product = xpnet.to_numpy(x @ xpnet.asarray(weight, device=device))
        assert np.array_equal(product, dense[order[4 * number : 4 * number + 4], :20])
        assert y.shape[0] == x.shape[0]
    assert len(shapes) == 2  # those of a whole batch and of the last


def test_a_sparse_matrix_with_many_elements_becomes_dense(device):
    data = Examples({"x": scipy.sparse.csr_array(X), "y": Y}, device, device.namespace.float32, sparse=True)
    assert not data.stays_sparse
    assert_on(next(data.batches(4))[0], device, "float32")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_kind_of_sparse_matrix(device, kind, sparse):
    dense = np.diag(np.arange(30.0))
    matrix = scipy.sparse.csr_array(dense).asformat(kind)
    data = Examples({"x": matrix, "y": np.arange(30)}, device, device.namespace.float32, sparse=sparse)
    (x, _), *_ = data.batches(30)
    if sparse:
        x = x @ xpnet.asarray(np.eye(30, dtype="float32"), device=device)
    assert np.array_equal(xpnet.to_numpy(x), dense)


def test_rows_of_a_sparse_matrix_that_come_several_times(device):
    dense = np.zeros((60, 40))
    dense[0], dense[1:, 0] = 1.0, 2.0
    matrix = scipy.sparse.csr_array(dense)
    data = Examples({"x": matrix, "y": np.arange(60)}, device, device.namespace.float32, sparse=True)
    assert data.stays_sparse
    (x, _), *_ = data.batches(3, np.asarray([0, 5, 0]))
    x = x @ xpnet.asarray(np.eye(40, dtype="float32"), device=device)
    assert np.array_equal(xpnet.to_numpy(x), dense[[0, 5, 0]])


def test_a_sparse_array_of_one_axis_is_read_like_a_dense_one(device):
    x = scipy.sparse.coo_array(([1.0], ([2],)), shape=(40,))
    data = Examples({"x": x, "y": np.arange(40)}, device, device.namespace.float32, sparse=True)
    (x, _), *_ = data.batches(4)
    assert np.array_equal(xpnet.to_numpy(x), [0, 0, 1, 0])


class Parts:
    """An array that is read in parts."""

    def __init__(self, values):
        self.shape, self.dtype, self._values = values.shape, values.dtype, values

    def __getitem__(self, index):
        return self._values[index]


class Numbers:
    """An object that makes examples, and counts them."""

    def __init__(self, number):
        self._number, self.made = number, 0

    def __len__(self):
        return self._number

    def __getitem__(self, number):
        self.made += 1
        return np.asarray(number)


KINDS = {"array": np.arange, "read": lambda n: Parts(np.arange(n)), "blocks": np.arange, "made": Numbers}


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_processes_share_each_batch_and_read_their_own_rows(size, kind, first):
    found, batch_size, rows = [], 16, 83  # the last batch has three examples, fewer than five processes
    for rank in range(size):
        y = KINDS[kind](rows)
        data = Examples({"y": y}, xpnet.device("cpu"), np.float32, batch_size=batch_size)
        shuffle, random = "blocks" if kind == "blocks" else True, np.random.default_rng(0)
        data.order = order_of(shuffle, None, rows=rows, elements=1, random=random)
        if size > 1:
            data.join(SimpleNamespace(rank=rank, size=size, gather_objects=lambda value: [value]))
        data.begin()
        before = y.made if kind == "made" else 0
        found.append([batch.tolist() for (batch,) in data.epoch(first)])
        if kind == "made":
            assert y.made - before == sum(map(len, found[-1]))
        for number, batch in enumerate(found[-1], first):
            assert data.place(number, len(batch) - 1) == f"row {batch[-1]}"
            assert (data.share(number, None) is None) == (size == 1)
    *batches, last = zip(*found, strict=True)
    data.group = None  # one process alone, in the same order
    *expected, expected_last = [batch.tolist() for (batch,) in data.epoch(first)]
    assert [list(chain(*parts)) for parts in batches] == expected
    assert all(x == expected_last for x in last) if size > 3 else list(chain(*last)) == expected_last
