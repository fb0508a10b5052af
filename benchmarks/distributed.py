"""A training step in two processes, beside one process, beside two that exchange nothing, and beside PyTorch.

    mpiexec -n 2 python benchmarks/distributed.py

Each process has one thread, and as many examples as one process alone. All take turns in the same processes,
several times: what one process does alone, while the other one sleeps; what both do without an exchange,
which shows how much they take from each other; and what they do together. PyTorch is timed if it is
installed, with DistributedDataParallel over gloo.
"""

import argparse
import gc
import json
import os
import socket
import statistics
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path

# Before NumPy is there.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
from machine import description, keep
from training import RATE, STEPS, Xpnet, batch_of, weights

import xpnet
from xpnet import losses, optim
from xpnet.training import Steps

ALONE, APART, TOGETHER, SHARDED = "alone", "two, without an exchange", "two", "two, sharded"
TORCH = ("torch alone", "torch in two")
FLOATS = (2_410, 10_000, 8_344_552)
# At least such a part of the speed of one process.
AIMS = {
    ("784-512-512-10, batch 256", "efficiency"): 0.85,
    ("1024-2048-2048-1000, batch 512", "efficiency"): 0.93,
    ("1024-2048-2048-1000, batch 512", "efficiency, sharded"): 0.95,
}

group = xpnet.distributed.world()


def sleeping(communicator):
    """Wait for the other processes without a look at a message all the time."""
    request = communicator.Ibarrier()
    while not request.Test():
        time.sleep(0.0005)


def our_step(case, around=lambda adam: adam):
    """Return a training step as `Xpnet.training` has it, with what is made of Adam."""
    x, y = batch_of(case)
    net, optimizer = Xpnet().net(case.sizes), around(optim.Adam(RATE))

    def step(net, state, x, y):
        value, gradient = xpnet.value_and_grad(lambda net: losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), value

    step, state = xpnet.jit(step, donate=("net", "state")), optimizer.init(net)

    def run(times):
        nonlocal net, state
        for _ in range(times):
            net, state, _ = step(net, state, x, y)

    return run


def averaged(adam, group=group):
    return optim.chain(group.average(), adam)


def our_fit(case, group=None):
    size = 1 if group is None else group.size
    x, y = batch_of(case._replace(batch=case.batch * size))
    net, steps = Xpnet().net(case.sizes), Steps(losses.cross_entropy)

    class Watch(xpnet.callbacks.Callback):
        def step_end(self, _run):
            self.ends.append(time.perf_counter())

    watch = Watch()

    def run(times):
        many = {"x": np.concatenate([x] * (times + 1)), "y": np.concatenate([y] * (times + 1))}
        options = {"batch_size": len(x), "epochs": 1, "seed": 0, "progress": False, "group": group}
        watch.ends = []
        xpnet.fit(net, **many, loss=steps, optimizer=optim.Adam(RATE), callbacks=[watch], **options)
        return watch.ends[-1] - watch.ends[0]

    return run


def torch_step(case, together):
    import torch
    from torch import nn

    x, y = map(torch.asarray, batch_of(case))
    layers = []
    for w, b in weights(case.sizes):
        layers += [nn.Linear(*w.shape), nn.ReLU()]
        layers[-2].load_state_dict({"weight": torch.asarray(w.T), "bias": torch.asarray(b)})
    net = nn.Sequential(*layers[:-1])
    net = nn.parallel.DistributedDataParallel(net) if together else net
    optimizer = torch.optim.Adam(net.parameters(), RATE, fused=True)

    def run(times):
        for _ in range(times):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    return run


def start_torch(communicator):
    """Let PyTorch's processes find each other; return whether it is there."""
    try:
        import torch
    except ImportError:
        return False
    torch.set_num_threads(1)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = communicator.bcast(found.getsockname()[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=group.rank, world_size=group.size)
    return True


def timed(communicator, run, times, *, alone):
    """Return the seconds that it takes to do something once, on rank 0; alone, the others sleep."""
    sleeping(communicator)
    seconds = 0.0
    if group.rank == 0 or not alone:
        start = time.perf_counter()
        own = run(times)
        seconds = (time.perf_counter() - start if own is None else own) / times
    sleeping(communicator)
    return communicator.bcast(seconds)


def measured(communicator, functions, rounds, seconds):
    """Return the times of each of some functions, one a round, by its name."""
    times, found = {}, {name: [] for name in functions}
    for name, (run, alone) in functions.items():
        timed(communicator, run, 3, alone=alone)
        once = timed(communicator, run, 3, alone=alone)
        times[name] = max(2, round(seconds / once))
    for _ in range(rounds):
        for name, (run, alone) in functions.items():
            found[name].append(timed(communicator, run, times[name], alone=alone))
    return found


def of_steps(case, has_torch):
    functions = {
        ALONE: (our_step(case), True),
        APART: (our_step(case), False),
        TOGETHER: (our_step(case, averaged), False),
        SHARDED: (our_step(case, group.shard), False),
        "a group of one": (our_step(case, partial(averaged, group=xpnet.distributed.Group())), True),
        "fit alone": (our_fit(case), True),
        "fit in two": (our_fit(case, group), False),
    }
    if has_torch:
        functions |= {
            name: (torch_step(case, together), not together)
            for name, together in zip(TORCH, (False, True), strict=True)
        }
    return functions


def of_memory(case):
    """Return how many bytes a process has in steps at most: weights, state, and what is computed between."""
    found = {}
    for name, around in ((ALONE, lambda adam: adam), (TOGETHER, averaged), (SHARDED, group.shard)):
        tracemalloc.start()  # which sees all arrays of NumPy's, and the memory of plans
        run = our_step(case, around)
        run(1)
        gc.collect()
        tracemalloc.reset_peak()  # what is recorded takes more
        run(3)
        found[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def of_exchanges(communicator, floats, has_torch):
    from mpi4py import MPI

    x = np.ones(floats, "float32")
    recorded = xpnet.jit(lambda x: group.sum(x * 0.5)[0])

    def repeated(f):
        def run(times):
            for _ in range(times):
                f()

        return run, False

    functions = {
        "Allreduce": repeated(lambda: communicator.Allreduce(MPI.IN_PLACE, x)),
        "group.sum": repeated(lambda: group.sum(x)),
        "group.sum in jit": repeated(lambda: recorded(x)),
    }
    if has_torch:
        import torch

        y = torch.zeros(floats)
        functions["torch, gloo"] = repeated(lambda: torch.distributed.all_reduce(y))
    return functions


def row(case, times):
    """Return medians, and the ratios of pairs, by rounds."""
    medians = {name: statistics.median(values) for name, values in times.items()}

    def ratio(a, b):
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    pairs = {
        "efficiency": (ALONE, TOGETHER),
        "efficiency, sharded": (ALONE, SHARDED),
        "efficiency without an exchange": (ALONE, APART),
        "efficiency of fit": ("fit alone", "fit in two"),
        "a group of one": ("a group of one", ALONE),
        "efficiency of torch": TORCH,
        "of torch in two": (TOGETHER, TORCH[1]),
    }
    ratios = {name: ratio(a, b) for name, (a, b) in pairs.items() if a in times and b in times}
    return {"case": case, "seconds": medians, "ratios": ratios}


def show(found):
    print(f"\n{found['case']}")
    for name, seconds in found["seconds"].items():
        print(f"  {name:28} {seconds * 1e6:12,.1f} µs")
    for name, number in found.get("bytes", {}).items():
        print(f"  {name:28} {number / 2**20:12,.1f} MiB")
    for name, ratio in found["ratios"].items():
        aim = AIMS.get((found["case"], name))
        aim = f" (aim {aim})" if aim else ""
        print(f"  {name:36} {ratio:.3f}{aim}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FOLDER", help="write the results there")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="that each is timed in a round")
    parser.add_argument("--only", default="", help="run the cases whose names contain this")
    options = parser.parse_args()
    if group.size != 2:
        sys.exit("two processes are compared with one: mpiexec -n 2 python benchmarks/distributed.py")
    from mpi4py import MPI

    communicator = MPI.COMM_WORLD.Dup()
    has_torch = start_torch(communicator)
    rows = []
    for case in (case for case in STEPS if options.only in case):
        functions = of_steps(STEPS[case], has_torch)
        rows.append(row(case, measured(communicator, functions, options.rounds, options.seconds)))
        rows[-1]["bytes"] = of_memory(STEPS[case])
        if group.rank == 0:
            show(rows[-1])
    for floats in FLOATS:
        case = f"{floats:,} floats"
        if options.only in case:
            functions = of_exchanges(communicator, floats, has_torch)
            rows.append(row(case, measured(communicator, functions, options.rounds, options.seconds)))
            if group.rank == 0:
                show(rows[-1])
    if options.json and group.rank == 0:
        found = description("cpu") | {"mpi": MPI.Get_library_version().split(",")[0], "rows": rows}
        keep(Path(options.json) / "distributed-cpu.json", json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
