"""A training over a file that is larger than the memory it takes, beside the same rows in memory.

A file of HDF5 and one of zarr, in chunks and not compressed, hold rows of 784 numbers and a label. Each
process goes over all of it, or over the same rows in its memory, with `xpnet.fit`, an epoch at a time, and
the processes take turns, so that a slow moment of the machine meets all of them. The files are in the
memory of the system, as far as that is large enough: each is gone through once before anything is timed. The
first pass over one that is not is timed by itself, in the end. Beside them stands PyTorch's `DataLoader` over
the same file of HDF5, with a data set that reads row by row, for so many seconds as its turns are long.

The training over a file must come to the loss of that from memory, with the same order of the rows.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import description, keep
from tables import ran_on, table
from training import PAUSE, Process, Torch, Xpnet, differ, named, real_output

FILES = {"h5py": "rows.h5", "zarr": "rows.zarr"}  # by the package that reads them
NETWORKS = {"784-128-10": (784, 128, 10), "784-512-512-10": (784, 512, 512, 10)}
WIDTH, BATCH = 784, 128
ROW = 4 * WIDTH  # bytes
# Rows of a chunk and of a block, 1.6 and 6.4 MB: for each chunk, zarr takes a part of a millisecond.
CHUNKS = {"rows.h5": 512, "rows.zarr": 2048}
LABELS = 2**13  # of a chunk
AT_ONCE = 2**13  # rows that are made, or come into memory
# With the cache of chunks that HDF5 has by itself, a chunk is read as a whole and copied for any of its rows.
NO_CACHE = 0

MEMORY, SHUFFLED, FILE = 'memory, "blocks"', "memory, shuffle=True", 'file, "blocks"'
WORKERS = {f"DataLoader, {number} workers": number for number in (0, 2)}

# From the file, at least such a part of the speed from memory; and at most so many bytes in memory.
SPEED, BYTES = 0.9, 10**9
# What is left of the machine's memory for the system and all that does not grow with the data.
APART = 4 * 10**9


# -- the files ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path, mode="r"):
    """Open a file of either kind: what is in it has names, as in a dict."""
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, mode, rdcc_nbytes=NO_CACHE) as file:
            yield file
    else:
        import zarr

        yield zarr.open_group(path, mode=mode)


def make(path, rows):
    """Write a file, unless one of so many rows is there."""
    import numpy

    if path.exists():
        with opened(path) as file:
            if file["y"].shape[0] != rows:
                sys.exit(f"{path} must have {rows} rows, and has {file['y'].shape[0]}: remove it.")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(0)
    new = path.with_name(f"new-{path.name}")  # so that one which is not whole has another name
    with opened(new, "w") as file:
        add = file.create_dataset if path.suffix == ".h5" else file.create_array
        whole = {} if path.suffix == ".h5" else {"compressors": None}
        chunk, labels = min(CHUNKS[path.name], rows), min(LABELS, rows)
        x = add("x", shape=(rows, WIDTH), dtype="float32", chunks=(chunk, WIDTH), **whole)
        y = add("y", shape=(rows,), dtype="int64", chunks=(labels,), **whole)
        y[:] = random.integers(0, 10, rows)
        for start in range(0, rows, AT_ONCE):
            stop = min(start + AT_ONCE, rows)
            x[start:stop] = random.random((stop - start, WIDTH), dtype="float32")
    new.rename(path)


def forget(path):
    """Ask the system to keep none of a file in memory, and return whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for each in [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]:
        with each.open("rb") as file:
            os.fsync(file.fileno())  # what is not on the disk yet must stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


# -- a process ----------------------------------------------------------------------------------------------


def peak():
    """Return the bytes that this process had in memory at most, or None where that is not known."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)


def in_memory(data, rows):
    """Return so many rows of an array in a file."""
    import numpy

    found = numpy.empty((rows, *data.shape[1:]), data.dtype)
    for start in range(0, rows, AT_ONCE):
        stop = min(start + AT_ONCE, rows)
        found[start:stop] = data[start:stop]
    return found


def training(file, sizes, rows):
    """Return a function that does an epoch with so many rows in memory, or with None with the file."""
    import xpnet

    x, y = (file[name] if rows is None else in_memory(file[name], rows) for name in ("x", "y"))
    steps = xpnet.training.Steps(xpnet.losses.cross_entropy)  # which are recorded once for all epochs
    settings = {"loss": steps, "optimizer": xpnet.optim.Adam(1e-3), "epochs": 1, "batch_size": BATCH}

    def run(**order):
        net = Xpnet().net(sizes)
        start = time.perf_counter()
        history = xpnet.fit(net, x, y, **settings, **order, seed=0, progress=False)
        seconds = time.perf_counter() - start
        return {"speed": x.shape[0] / seconds, "loss": history["loss"][0], "bytes": peak()}

    return run


class Rows:
    """A data set as for PyTorch. Each process opens the file for itself, as it must."""

    def __init__(self, path):
        self.path, self.file = path, None
        with opened(path) as file:
            self.number = file["y"].shape[0]

    def __len__(self):
        return self.number

    def __getitem__(self, row):
        if self.file is None:
            import h5py

            self.file = h5py.File(self.path, rdcc_nbytes=NO_CACHE)
            self.x, self.y = self.file["x"], self.file["y"]
        return self.x[row], self.y[row]


def peer_training(path, sizes, workers):
    """Return a function that trains with PyTorch's `DataLoader` for some seconds, and goes on next time."""
    import torch

    net = Torch().net(sizes)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    loader = torch.utils.data.DataLoader(Rows(path), BATCH, shuffle=True, num_workers=workers)

    def losses():
        while True:
            for x, y in loader:
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(net(x), y)
                loss.backward()
                optimizer.step()
                yield loss.item()

    steps = losses()

    def run(seconds):
        for _ in range(2 * workers + 1):  # what was read while others had their turn
            next(steps)
        number, start = 0, time.perf_counter()
        while not number or time.perf_counter() < start + seconds:
            next(steps)
            number += 1
        return {"speed": BATCH * number / (time.perf_counter() - start)}

    return run


def serve(path, way, network, rows):
    """Do what the lines of the input ask for."""
    with contextlib.ExitStack() as stack:
        if way in WORKERS:
            run = peer_training(path, NETWORKS[network], WORKERS[way])
        else:
            file = stack.enter_context(opened(path))
            run = training(file, NETWORKS[network], None if way == FILE else rows)
        for line in sys.stdin:
            print(json.dumps(run(**json.loads(line))), file=real_output, flush=True)


# -- all of them --------------------------------------------------------------------------------------------


def rows_in_memory(rows):
    """Return of how many rows there is room for beside a file that the system holds in memory."""
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return rows
    return min(rows, max(rows // 16, (there - APART) // ROW - rows))


def measure(path, case, network, threads, options):
    """Return what was measured with a file, a network and so many threads."""
    rows = rows_of(options)
    some = rows_in_memory(rows)
    blocks = {"shuffle": "blocks", "block_size": CHUNKS[path.name]}
    requests = {FILE: blocks, MEMORY: blocks, SHUFFLED: {"shuffle": True}}
    if path.suffix == ".h5" and importlib.util.find_spec("torch"):
        requests |= {way: {"seconds": options.seconds} for way in WORKERS}
    serving = (__file__, "--serve", str(path), network, str(some))
    processes = {way: Process(*serving, way, threads=threads) for way in requests if way != SHUFFLED}

    def turn(way):
        time.sleep(PAUSE)
        # The rows are in memory once, in whichever order they come.
        answer = processes[MEMORY if way == SHUFFLED else way].ask(**requests[way])
        if "missing" in answer:
            sys.exit(f"{case}, {way}: {answer['missing']}")
        return answer

    losses = {way: turn(way).get("loss") for way in requests}
    if some == rows and differ([losses[FILE]], [losses[MEMORY]]):
        sys.exit(f"{case}: the loss is {losses[FILE]} over the file, and {losses[MEMORY]} from memory")
    speeds = {way: [] for way in requests}
    for _ in range(options.rounds):
        for way, found in speeds.items():
            found.append(turn(way)["speed"])
    forgotten = forget(path)
    last = turn(FILE)
    for process in processes.values():
        process.close()
    ratios = {
        way: statistics.median(a / b for a, b in zip(speeds[FILE], speeds[way], strict=True))
        for way in (MEMORY, SHUFFLED)
    }
    return {
        "case": case,
        "rows": rows,
        "rows in memory": some,
        "speeds": {way: statistics.median(found) for way, found in speeds.items()},
        "ratios": ratios,
        "first pass": last["speed"] if forgotten else None,
        "bytes": last["bytes"],
        "met": ratios[MEMORY] >= SPEED and (last["bytes"] or 0) <= BYTES,
    }


def text_of(found):
    """Return a table of what was measured, and what it was measured on."""
    ways = list(dict.fromkeys(way for row in found["rows"] for way in row["speeds"]))

    def speed(value):
        return "–" if value is None else f"{value:,.0f}"

    lines = [
        [
            row["case"],
            *(speed(row["speeds"].get(way)) for way in ways),
            *(f"{row['ratios'][way]:.2f}" for way in (MEMORY, SHUFFLED)),
            speed(row["first pass"]),
            "–" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.0f}",
            "met" if row["met"] else "missed",
        ]
        for row in found["rows"]
    ]
    more = [f"file of {way}" for way in (MEMORY, SHUFFLED)]
    head = ["rows/s", *ways, *more, "file, first pass", "MB at most", "aims"]
    return f"{ran_on(found)}\n\n{table(head, lines)}"


def rows_of(options):
    return int(options.gigabytes * 1e9) // ROW


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FOLDER", help="write the results there")
    parser.add_argument("--gigabytes", type=float, default=8, help="that each file has")
    parser.add_argument("--folder", metavar="FOLDER", help="make the files there, use and leave them there")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="that PyTorch runs in a round")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--only", default="", help="run the cases whose names contain this")
    parser.add_argument("--small", action="store_true", help="try it: small files, one thread, one round")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        path, network, rows, way = options.serve
        serve(Path(path), way, network, int(rows))
        return
    if options.small:
        options.gigabytes, options.rounds, options.seconds, options.threads = 0.02, 1, 0.1, (1,)
    found = description("cpu") | {"rounds": options.rounds, "gigabytes": options.gigabytes, "rows": []}
    found["versions"] |= {name: importlib.metadata.version(name) for name in FILES}
    for kind, name in FILES.items():
        pairs = [(network, threads) for threads in options.threads for network in NETWORKS]
        cases = {f"{kind}, {named(*pair)}": pair for pair in pairs}
        cases = {case: pair for case, pair in cases.items() if options.only in case}
        # One file at a time, so that the system has room for it in memory.
        given = options.folder and contextlib.nullcontext(options.folder)
        with given or tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            if cases:
                make(path, rows_of(options))
            for case, pair in cases.items():
                row = measure(path, case, *pair, options)
                print(json.dumps(row), flush=True)
                found["rows"].append(row)
                if options.json:
                    keep(Path(options.json) / "data-cpu.json", found)
    print(f"\n{text_of(found)}")


if __name__ == "__main__":
    main()
