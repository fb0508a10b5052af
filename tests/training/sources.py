"""Sources of one and the same examples: arrays, files, objects that are read lazily, data sets, and loaders.

Each table has a function for each kind of source, by its name. A source of another package is skipped where
that is missing.
"""

import numpy as np
import pytest
import scipy.sparse

import xpnet

# -- what is indexed ----------------------------------------------------------------------------------------


class Lazy:
    """Rows that are read when they are asked for; it notes how many with each read.

    Parameters
    ----------
    array : ndarray
    accepts : callable
        Says of an index whether it is taken.
    """

    def __init__(self, array, accepts=lambda index: True):
        self.array, self.accepts = array, accepts
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = []

    def __getitem__(self, index):
        if not self.accepts(index):
            raise TypeError(f"this array takes no such index: {index!r}")
        rows = self.array[index]
        self.reads.append(len(rows))
        return np.array(rows)

    def __array__(self, *_arguments, **_options):
        raise AssertionError("the array was asked for as a whole")


def is_slice(index):
    return isinstance(index, slice) and index.step in (None, 1)


def is_increasing(index):
    """Say whether an index is one that h5py would take."""
    return is_slice(index) or bool(np.ndim(index) == 1 and np.all(np.diff(index) > 0))


class Items:
    """Single examples, by numbers of Python."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, number):
        assert type(number) is int
        return np.array(self.array[number])


class Part:
    """Some rows of an array, as somebody writes it who has read what is asked for."""

    def __init__(self, array, start, stop):
        self.array, self.start = array, start
        self.shape, self.dtype = (stop - start, *array.shape[1:]), array.dtype

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            return self.array[self.start + rows.start : self.start + rows.stop]
        return self.array[self.start + rows]


def part(array, path):
    others = np.zeros_like(array[:3])
    return Part(np.concatenate([others, array, others]), 3, 3 + len(array))


class Endless:
    """Examples that know how many they are, and that raise no IndexError at their end."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, number):
        return np.array(self.array[number % len(self.array)])


def hdf5(array, path, **options):
    h5py = pytest.importorskip("h5py")
    if not path.exists():
        with h5py.File(path, "w") as file:
            file.create_dataset("rows", data=array, **options)
    return h5py.File(path)["rows"]


def chunks(array):
    return (7, *array.shape[1:])


def zarr_array(array, path):
    zarr = pytest.importorskip("zarr")
    if not path.exists():
        written = zarr.create_array(path, shape=array.shape, chunks=chunks(array), dtype=array.dtype)
        written[...] = array
    return zarr.open_array(path, mode="r")


def memory_map(array, path):
    path = path.with_suffix(".npy")
    if not path.exists():
        np.save(path, array)
    return np.load(path, mmap_mode="r")


def dask_array(array, path):
    return pytest.importorskip("dask.array").from_array(array, chunks=chunks(array))


def pandas_frame(array, path):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(array) if array.ndim > 1 else pandas.Series(array)


def polars_frame(array, path):
    polars = pytest.importorskip("polars")
    return polars.DataFrame(array) if array.ndim > 1 else polars.Series(array)


def torch_tensor(array, path):
    return pytest.importorskip("torch").asarray(array)


# From an array, and a path at which a file is made if there is none, to the same data.
INDEXED = {
    "list": lambda array, path: array.tolist(),
    "tuple of arrays": lambda array, path: tuple(array),
    "another library": lambda array, path: xpnet.asarray(array, device="strict:device2"),
    "torch": torch_tensor,
    "sparse": lambda array, path: scipy.sparse.csr_array(array) if array.ndim > 1 else array,
    "pandas": pandas_frame,
    "polars": polars_frame,
    "hdf5 contiguous": hdf5,
    "hdf5 chunked": lambda array, path: hdf5(array, path, chunks=chunks(array)),
    "zarr": zarr_array,
    "part": part,
    "memory map": memory_map,
    "dask": dask_array,
    "lazy, slices": lambda array, path: Lazy(array, is_slice),
    "lazy, increasing": lambda array, path: Lazy(array, is_increasing),
    "lazy, anything": lambda array, path: Lazy(array),
    "items": lambda array, path: Items(array),
    "items without an end": lambda array, path: Endless(array),
}


# -- data sets of pairs or dicts ----------------------------------------------------------------------------


class Dataset:
    """Examples as the data sets of PyTorch have them."""

    def __init__(self, x, y, example=lambda x, y: (x, y)):
        self.x, self.y, self.example = x, y, example
        self.reads = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, number):
        assert type(number) is int
        self.reads.append(1)
        return self.example(self.x[number], self.y[number])


class ManyAtOnce(Dataset):
    """A data set that reads a list of examples at once, and would take long for single ones."""

    def __getitem__(self, number):
        assert number == 0  # to see what they are like
        return super().__getitem__(number)

    def __getitems__(self, numbers):
        assert type(numbers) is list
        assert all(type(number) is int for number in numbers)
        self.reads.append(len(numbers))
        return [self.example(self.x[number], self.y[number]) for number in numbers]


def numbers_of_python(x, y):
    return x.tolist(), int(y)


def columns_of_one(x, y):
    return {"a": x[0], "b": x[1], "c": x[2], "label": y}


def torch_dataset(x, y):
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(torch.asarray(x), torch.asarray(y))


# From inputs and targets to a data set of pairs.
DATASETS = {
    "pairs": Dataset,
    "pairs of Python's numbers": lambda x, y: Dataset(x, y, numbers_of_python),
    "lists of two": lambda x, y: Dataset(x, y, lambda x, y: [x, y]),
    "dicts": lambda x, y: Dataset(x, y, lambda x, y: {"x": x, "y": y}),
    "many at once": ManyAtOnce,
    "torch": torch_dataset,
}


# -- batches from outside -----------------------------------------------------------------------------------


class Loader:
    """Batches that can be gone through again and again, of known number."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Unsized:
    """Batches that can be gone through again and again, of unknown number."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches


class KerasSequence:
    """Batches as a PyDataset of Keras has them: it may go on without an end, but has a length."""

    def __init__(self, batches):
        self.batches, self.epochs = batches, 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number % len(self.batches)]

    def on_epoch_end(self):
        self.epochs += 1


class Stateful:
    """Batches that know where they are, as those of torchdata do, and that can go on from there.

    It notes which ones it made since a state was given to it.
    """

    def __init__(self, batches):
        self.batches, self.made = batches, []
        self.position = self.first = 0

    def __iter__(self):
        self.position, self.first = self.first, 0
        while self.position < len(self.batches):
            self.made.append(self.position)
            self.position += 1
            yield self.batches[self.position - 1]
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.first = state["position"]
        self.made.clear()


def batches_of(x, y, size=16):
    return [(x[start : start + size], y[start : start + size]) for start in range(0, len(x), size)]


def in_library(batches):
    return [tuple(xpnet.asarray(array, device="strict:device2") for array in batch) for batch in batches]


def torch_loader(batches):
    torch = pytest.importorskip("torch")
    x, y = (torch.asarray(np.concatenate(arrays)) for arrays in zip(*batches, strict=True))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(batches[0][0]))


# From a list of pairs to the same batches.
BATCHES = {
    "list": lambda batches: batches,
    "tuple": tuple,
    "lists of two": lambda batches: [list(pair) for pair in batches],
    "lists of numbers": lambda batches: lambda: ((x.tolist(), y.tolist()) for x, y in batches),
    "another library": in_library,
    "dicts": lambda batches: [{"x": x, "y": y} for x, y in batches],
    "generator function": lambda batches: lambda: (pair for pair in batches),
    "function of a list": lambda batches: lambda: batches,
    "function of a zip": lambda batches: lambda: zip(*zip(*batches, strict=True), strict=True),
    "loader": Loader,
    "loader without length": Unsized,
    "Keras": KerasSequence,
    "with a state": Stateful,
    "torch": torch_loader,
}


def columns_of(batches):
    return [{"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "label": y} for x, y in batches]


def arrow_batches(batches):
    arrow = pytest.importorskip("pyarrow")
    return [arrow.RecordBatch.from_pydict(columns) for columns in columns_of(batches)]


def arrow_reader(batches):
    arrow, records = pytest.importorskip("pyarrow"), arrow_batches(batches)
    return lambda: arrow.RecordBatchReader.from_batches(records[0].schema, records)


def arrow_tables(batches):
    return [pytest.importorskip("pyarrow").table(columns) for columns in columns_of(batches)]


def frames(package):
    return lambda batches: [
        pytest.importorskip(package).DataFrame(columns) for columns in columns_of(batches)
    ]


# From a list of pairs to batches of the same numbers, as dicts of columns.
COLUMNS = {
    "dicts": columns_of,
    "generator function": lambda batches: lambda: iter(columns_of(batches)),
    "pandas": frames("pandas"),
    "polars": frames("polars"),
    "record batches": arrow_batches,
    "tables": arrow_tables,
    "reader of record batches": arrow_reader,
}
