"""A training step on a GPU: xpnet beside PyTorch and JAX, and the matrix products alone.

As in `training.py`, each library has a process of its own, and all take turns within each round. The steps of
a turn are started one after the other, and the clock is stopped when the GPU has done the last one. A step is
forward, cross-entropy, backward and Adam, on a batch that lies on the GPU. In tf32, float16 and bfloat16, the
operands of the matrix products have fewer digits; parameters and Adam stay in float32, and in float16 the
loss is scaled.

`--device cpu --small` runs all of this on a CPU, to try the script.
"""

import argparse
import contextlib
import functools
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy
from machine import description, gpu_memory, keep
from tables import ran_on
from training import FLOOR, RATE, STEPS, Jax, Process, Torch, Xpnet, measure, ratios_text, row, serve

PRECISIONS = ("tf32", "float16", "bfloat16")
CASES = {  # widths of the layers, batch, precision
    **{f"{name}, float32": (step.sizes, step.batch, "float32") for name, step in STEPS.items()},
    **{f"4096-4096-4096-10, batch 8192, {p}": ((4096, 4096, 4096, 10), 8192, p) for p in PRECISIONS},
}
SMALL_CASES = {f"8-16-4, batch 8, {p}": ((8, 16, 4), 8, p) for p in ("float32", *PRECISIONS)}
OURS, EAGER = "xpnet", "torch"
# At most this part of the best peer's time, and of the time of the products alone in the largest network; so
# many seconds for a step of the smallest; and this part of PyTorch's memory.
BEST, PRODUCTS, SMALLEST, MEMORY = 1.0, 1 / 0.85, 40e-6, 1.0
LONGEST = 90  # seconds in which libraries prepare a case
STARTED = 20  # steps for which CUDA has room, so that starting them does not wait for any


# -- the libraries ------------------------------------------------------------------------------------------


class XpnetOn(Xpnet):
    def __init__(self, device):
        import xpnet

        self.device = xpnet.device(device)

    def step(self, sizes, x, y, precision):
        import xpnet

        optimizer = xpnet.optim.Adam(RATE)
        options = {} if precision == "float32" else {"precision": precision}
        if precision == "float16":
            optimizer = xpnet.optim.LossScaling(optimizer)

        def step(net, state, x, y):
            def loss(net, x, y):
                value = xpnet.losses.cross_entropy(net(x), y)
                return value * state["loss_scale"] if precision == "float16" else value

            value, gradient = xpnet.value_and_grad(loss)(net, x, y)
            return *optimizer.update(gradient, state, net), value

        step = xpnet.jit(step, donate=("net", "state"), **options)
        with xpnet.use_device(self.device):
            net = self.net(sizes)
            state, x, y = optimizer.init(net), xpnet.asarray(x), xpnet.asarray(y)

        def run():
            nonlocal net, state
            net, state, _ = step(net, state, x, y)

        return run

    def finish(self):
        if self.device.library.spec == "cuda":
            self.device.native.synchronize()

    def memory(self):
        if self.device.library.spec != "cuda":
            return None
        import cupy

        return cupy.get_default_memory_pool().total_bytes()  # it gives nothing back by itself


class TorchOn(Torch):
    """PyTorch as it is."""

    mode = None  # of torch.compile

    def __init__(self, device):
        super().__init__()
        self.device = device

    def set_precision(self, precision):
        """Tell PyTorch how to multiply matrices of float32; return the dtype for the others."""
        import torch

        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        return getattr(torch, precision, torch.float32)

    def compiled(self, f):
        import torch

        return f if self.mode is None else torch.compile(f, mode=self.mode)

    def step(self, sizes, x, y, precision):
        import torch

        dtype = self.set_precision(precision)
        net = self.net(sizes).to(self.device)
        on_gpu = self.device != "cpu"
        fused = {"fused": True} if self.mode is None or precision == "float16" else {}
        optimizer = torch.optim.Adam(net.parameters(), RATE, capturable=on_gpu, **fused)
        scaler = torch.amp.GradScaler(self.device, enabled=precision == "float16")
        x, y = torch.asarray(x, device=self.device), torch.asarray(y, device=self.device)
        low = dtype != torch.float32

        def loss(x, y):
            with torch.autocast(self.device, dtype) if low else contextlib.nullcontext():
                return torch.nn.functional.cross_entropy(net(x), y)

        # A scaler steps the optimizer itself.
        loss, update = self.compiled(loss), self.compiled(optimizer.step)

        def run():
            if self.mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad()
            scaler.scale(loss(x, y)).backward()
            if scaler.is_enabled():
                scaler.step(optimizer)
                scaler.update()
            else:
                update()

        return run

    def finish(self):
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()

    def memory(self):
        import torch

        return torch.cuda.max_memory_allocated() if self.device != "cpu" else None


class TorchCompiled(TorchOn):
    mode = "default"


class TorchReduced(TorchOn):
    """Its graphs are captured by torch.compile."""

    mode = "reduce-overhead"


class TorchCaptured(TorchOn):
    """The whole step in one CUDA graph."""

    def step(self, sizes, x, y, precision):
        import torch

        if self.device == "cpu":
            raise NotImplementedError("CUDA graphs need a GPU")
        run = super().step(sizes, x, y, precision)
        aside = torch.cuda.Stream()
        with torch.cuda.stream(aside):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay


class JaxOn(Jax):
    def __init__(self, device):
        import jax

        self.device = jax.devices("gpu" if device != "cpu" else "cpu")[0]
        jax.config.update("jax_default_device", self.device)

    def step(self, sizes, x, y, precision):
        import jax
        from jax import numpy as jnp

        # By default, JAX takes tf32 for float32.
        names = {"float32": "float32", "tf32": "tensorfloat32"}
        jax.config.update("jax_default_matmul_precision", names.get(precision, "default"))
        dtype = getattr(jnp, precision, jnp.float32)
        scaled = precision == "float16"
        parameters = self.parameters(sizes)
        # The scale of the loss, and for how many steps it did not change.
        state = (self.state(parameters), jnp.asarray(2.0**16), jnp.asarray(0))

        def loss(parameters, x, y, scale):
            parameters, x = jax.tree.map(lambda v: v.astype(dtype), (parameters, x))
            logits = jax.nn.log_softmax(self.forward(parameters, x).astype("float32"))
            value = -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=-1))
            return value * scale if scaled else value

        def step(parameters, state, x, y):
            adam, scale, steps = state
            value, g = jax.value_and_grad(loss)(parameters, x, y, scale)
            if not scaled:
                parameters, adam = self.adam(parameters, g, adam, RATE)
                return parameters, (adam, scale, steps), value
            g = jax.tree.map(lambda g: g / scale, g)
            finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(g)]))
            new = self.adam(parameters, g, adam, RATE)
            parameters, adam = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, (parameters, adam))
            steps = jnp.where(finite, (steps + 1) % 2000, 0)
            grown = jnp.where(steps == 0, 2 * scale, scale)
            return parameters, (adam, jnp.where(finite, grown, scale / 2), steps), value

        step = jax.jit(step, donate_argnums=(0, 1))
        x, y = jax.device_put((x, y))

        def run():
            nonlocal parameters, state
            parameters, state, self.value = step(parameters, state, x, y)

        return run

    def finish(self):
        self.value.block_until_ready()

    def memory(self):
        return (self.device.memory_stats() or {}).get("peak_bytes_in_use")


class ProductsOn(TorchOn):
    """The matrix products of a step, and nothing else."""

    def step(self, sizes, x, _y, precision):
        import torch

        place = {"dtype": self.set_precision(precision), "device": self.device}
        arrays = [torch.asarray(x).to(**place), *(torch.rand(len(x), n, **place) for n in sizes[1:])]
        weights = [torch.rand(pair, **place) for pair in pairwise(sizes)]
        layers = list(zip(arrays, weights, arrays[1:], strict=False))
        products = [(a, w, torch.empty_like(b)) for a, w, b in layers]
        products += [(a.T, b, torch.empty_like(w)) for a, w, b in layers]
        products += [(b, w.T, torch.empty_like(a)) for a, w, b in layers[1:]]

        def run():
            for a, b, out in products:
                torch.matmul(a, b, out=out)

        return run


LIBRARIES = {
    OURS: XpnetOn,
    EAGER: TorchOn,
    "torch.compile": TorchCompiled,
    "torch.compile, reduce-overhead": TorchReduced,
    "torch in a CUDA graph": TorchCaptured,
    "JAX": JaxOn,
    FLOOR: ProductsOn,
}


def prepare(library, case):
    sizes, batch, precision = (CASES | SMALL_CASES)[case]
    random = numpy.random.default_rng(0)
    x = random.normal(size=(batch, sizes[0])).astype("float32")
    return library.step(sizes, x, random.integers(0, sizes[-1], size=batch), precision)


# -- the figures --------------------------------------------------------------------------------------------


def figures(case, options):
    """Return the times of the libraries, and what memory each took, from processes for this case alone."""
    processes, missing, memory = {}, {}, {}
    try:
        # All prepare at the same time, as some compile for long.
        for name in LIBRARIES:
            command = (__file__, "--device", options.device, "--serve", name)
            processes[name] = Process(
                *command, threads=options.threads, XLA_PYTHON_CLIENT_PREALLOCATE="false"
            )
            processes[name].send(case=case)
        end = time.monotonic() + LONGEST
        for name in list(processes):
            answer = processes[name].answer(max(0, round(end - time.monotonic())))
            if "missing" in answer:
                missing[name] = answer["missing"].splitlines()[0]
                print(f"  {name} is left out: {missing[name]}", flush=True)
                processes.pop(name).close()
        times = measure(processes, options.rounds, options.seconds)
        missing |= dict.fromkeys(processes.keys() - times.keys(), "a step failed")
        found = row(case, times)
        found["host"] = {name: processes[name].ask(times=STARTED)["host"] for name in times}
        found["allocated"] = {name: processes[name].ask(other="memory")["memory"] for name in times}
        for name in times:  # what a process took is what is free when it has ended
            before = gpu_memory()
            processes.pop(name).close()
            after = gpu_memory()
            memory[name] = None if None in (before, after) else before - after
        return found | {"memory": memory, "missing": missing}
    finally:
        for process in processes.values():
            process.close()


def aims(rows):
    """Yield for each aim what was measured; of what was not measured there is none."""
    for case, what, limit, value in _measured(rows):
        yield {"case": case, "what": what, "limit": limit, "median": value, "met": value <= limit}


def _measured(rows):
    smallest, largest = next(iter(CASES)), list(CASES)[-len(PRECISIONS) :]
    for found in rows:
        case, times = found["case"], found["seconds"]
        if OURS not in times:
            continue
        if found["best"] is not None:
            yield case, "xpnet of the best peer", BEST, found["ratios"][OURS][found["best"]]["median"]
        if FLOOR in times and case in largest:
            yield case, f"xpnet of the {FLOOR}", PRODUCTS, found["ratios"][OURS][FLOOR]["median"]
        if case == smallest:
            yield case, "µs of a step", SMALLEST * 1e6, times[OURS] * 1e6
        if found["memory"].get(OURS) is not None and found["memory"].get(EAGER):
            yield case, "memory of torch's", MEMORY, found["memory"][OURS] / found["memory"][EAGER]


def show(found):
    print(f"\n{found['case']}")
    for name, seconds in sorted(found["seconds"].items(), key=lambda item: item[1]):
        memory = found["memory"].get(name)
        text = "" if memory is None else f", {memory / 2**20:,.0f} MiB"
        ratios = ratios_text(found, name)
        print(f"  {name:32} {seconds * 1e6:12,.1f} µs, host {found['host'][name] * 1e6:,.1f}{text}{ratios}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write the results there")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each library on the CPU")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="that each library runs in a round")
    parser.add_argument(
        "--only", action="append", help="run the cases whose names contain this; can be repeated"
    )
    parser.add_argument("--go-on", action="store_true", help="keep the cases that the results have already")
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the script")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        # Made when it is asked for something, so that it is said where it cannot be.
        library = functools.cache(lambda: LIBRARIES[options.serve](options.device))
        serve(
            lambda case: prepare(library(), case),
            finish=lambda: library().finish(),
            others={"memory": lambda: {"memory": library().memory()}},
            missing=(Exception,),
        )
        return 0
    name = f"training-{options.device}{'-small' * options.small}.json"
    found, rows = description(options.device) | {"rounds": options.rounds}, []
    if options.go_on and options.json and (options.json / name).exists():
        before = json.loads((options.json / name).read_text())
        if before.items() >= found.items():  # and not of another machine, or day
            rows = [each for each in before["rows"] if OURS in each["seconds"]]
    print(f"{ran_on(found)}, medians of {options.rounds} rounds", flush=True)
    for each in rows:
        print(f"{each['case']} is in the results already")
    known = {each["case"] for each in rows}
    for case in SMALL_CASES if options.small else CASES:
        if case in known or not any(text in case for text in options.only or [""]):
            continue
        rows.append(figures(case, options))
        show(rows[-1])
        found |= {"rows": rows, "aims": list(aims(rows))}
        if options.json:  # after each case, as the time may be up in the next one
            keep(options.json / name, found)
    print()
    for aim in aims(rows):
        measured = f"at most {aim['limit']:.3g}, measured {aim['median']:.3g}"
        print(f"{aim['case']}, {aim['what']}: {measured}: {'met' if aim['met'] else 'NOT met'}")
    failed = [each["case"] for each in rows if OURS not in each["seconds"]]
    if failed:
        print(f"xpnet failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
