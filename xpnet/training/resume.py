"""Checkpoints: a training under way as a file, and back.

`Checkpoint` of `xpnet.training.callbacks` says when one is written.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import Device, to_numpy
from xpnet.distributed import Group
from xpnet.files.networks import Parts, unpack_parts, write_parts
from xpnet.random import check_host_state
from xpnet.training.batches import UNKNOWN_DIGEST, Batches
from xpnet.training.history import History
from xpnet.training.run import Callback, Run

# Bytes of a file that are handed to other processes at once.
_BYTES_AT_ONCE = 2**28


def write_checkpoint(run: Run, path: str | os.PathLike[str]) -> None:
    """Write all that is needed to go on with a training as if it had not been interrupted.

    All processes of a group call it, and rank 0 writes.
    """
    totals, source = run.totals.sums, run.source.state()
    stop = bool(run.group.largest(int(bool(run.stop))))
    if source is not None and run.group.size > 1:
        source = {"of_each": run.group.gather_objects(source)}
    optimizer_state = run.optimizer_state
    if run.sharded is not None:
        optimizer_state = run.sharded.whole(optimizer_state, run.net)
    if run.group.rank > 0:
        return
    states = {name: callback.state() for name, callback in _named(run.callbacks)}
    training = {
        "names": list(run.names),
        "data": run.data,
        "frozen": _frozen(run.net),
        "epoch": run.epoch,
        "batch": run.batch,
        "step": run.step,
        "stop": stop,
        "history": dict(run.history),
        "totals": totals,
        "random": run.random,
        "callbacks": {name: state for name, state in states.items() if state is not None},
    }
    parts = {"net": run.net, "optimizer": optimizer_state, "training": training}
    if source is not None:
        parts["source"] = source
    write_parts(path, parts)


class SavedTraining:
    """A file that `write_checkpoint` wrote.

    Parameters
    ----------
    path : path
    where : Device
        Where the network goes.
    random : numpy.random.Generator
        It gets the state from before the training, and by `restore` the one from where the training was.
    group : Group
        Rank 0 reads the file for all of them.

    Raises
    ------
    ValueError
        If it is no such file, or is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        where: Device,
        random: "numpy.random.Generator",
        group: Group,
    ) -> None:
        self._parts: Parts = unpack_parts(_read(path, group), path)
        if "training" not in self._parts or "optimizer" not in self._parts:
            raise ValueError(
                f"resume needs a file that xpnet.callbacks.Checkpoint wrote, received {path}, which holds a "
                "network alone. Read it with xpnet.load, and train that."
            )
        self._path, self._where = path, where
        self._training = self._parts.load("training", device=where)
        if not isinstance(self._training, dict):
            kind = type(self._training).__name__
            raise ValueError(f"{path} is damaged: its description of the training is a {kind}.")
        self._random = random
        _set_random(random, self._entry("random", _are_states)["start"])

    def epochs_left(self, epochs: int) -> int:
        """Return how many of so many epochs, which are begun or not, are to come."""
        done, batch = self._entry("epoch", _is_count), self._entry("batch", _is_count)
        return int(epochs - done + (batch > 0))

    def restore(self, run: Run) -> None:
        """Put a run where the training was.

        Raises
        ------
        ValueError
            If network, optimizer, data or metrics are not those of the training.
        """
        self._check_same("data", dict, int, run.data)
        self._check_same("names", list, str, list(run.names))
        self._check_frozen(run.net)
        net = self._parts.load("net", device=self._where, into=run.net)
        parts = self._parts.with_pieces("optimizer", run.pieces_of_state())
        state = parts.load("optimizer", device=self._where, into=run.optimizer_state)
        run.net, run.optimizer_state = net, state
        run.epoch, run.batch = self._entry("epoch", _is_count), self._entry("batch", _is_count)
        run.step, run.stop = self._entry("step", _is_count), self._entry("stop", lambda x: type(x) is bool)
        run.totals.sums = self._entry("totals", lambda x: _are_totals(x, run))
        run.random = self._entry("random", _are_states)
        run.history = History(self._entry("history", lambda x: _is_history(x, run)))
        _set_random(self._random, run.random["epoch"])
        if "source" in self._parts:
            kept = self._parts.load("source", device="cpu")
            kept = self._own_source(kept, run.group)
            if not _is_source(kept, run):
                raise ValueError(f"{self._path} is damaged: its source is not that of batches from outside.")
            run.source.restore(kept)

    def _own_source(self, kept: Any, group: Group) -> Any:
        """Return what a file keeps of the batches of this process."""
        of_each = kept["of_each"] if isinstance(kept, dict) and kept.keys() == {"of_each"} else [kept]
        if not isinstance(of_each, list) or not all(isinstance(x, dict) for x in of_each):
            return None
        if len(of_each) == group.size:
            return of_each[group.rank]
        if any(x.get("state") is not None for x in of_each):
            raise ValueError(
                f"batches with state_dict go on in as many processes as they had in {self._path}, "
                f"{len(of_each)}, received {group.size}. Start as many; or give batches without state_dict, "
                "whose first ones are read and left out."
            )
        return {"digest": UNKNOWN_DIGEST, "state": None}  # others had other batches

    def restore_callbacks(self, run: Run) -> None:
        """Give each callback the state that it had, in the order of those of its class."""
        states = self._entry("callbacks", lambda x: isinstance(x, dict))
        for name, callback in _named(run.callbacks):
            if name in states:
                try:
                    callback.restore(run, states[name])
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{self._path} has no state for {name} that fits: {error!r}.") from error

    def _check_same(self, name: str, kind: type, of: type, here: Any) -> None:
        def fits(x: Any) -> bool:
            values = x.values() if isinstance(x, dict) else x
            return isinstance(x, kind) and all(type(value) is of for value in values)

        there = self._entry(name, fits)
        if there != here:
            raise ValueError(
                f"resume needs the data, the batch size and the metrics of the training in {self._path}, "
                f"{there}, received {here}. To train its network in another way, read it with xpnet.load."
            )

    def _check_frozen(self, net: Any) -> None:
        """Check that the same parameters are trained: the optimizer's state may fit others as well."""
        there = self._training.get("frozen", [])  # which files from before do not have
        different = sorted({*there} ^ {*_frozen(net)})
        if different:
            was, now = ("frozen", "trained") if different[0] in there else ("trained", "frozen")
            raise ValueError(
                f"resume needs a network of which the same is trained as in {self._path}, where "
                f"{different[0]} is {was}; received one in which it is {now}. Freeze what was frozen; or, to "
                "train other parts from now on, read the network with xpnet.load and begin a new training."
            )

    def _entry(self, name: str, fits: Callable[[Any], bool]) -> Any:
        value = self._training.get(name)
        if not fits(value):
            kind = type(value).__name__
            raise ValueError(f"{self._path} is damaged: its {name}, a {kind}, is not one of a training.")
        return value


def _read(path: str | os.PathLike[str], group: Group) -> bytes:
    """Return the content of a file that rank 0 can read."""
    if group.size == 1:
        return Path(path).read_bytes()
    content, error = b"", None
    try:
        content = Path(path).read_bytes() if group.rank == 0 else b""
    except OSError as found:
        error = found
    if error := group.gather_objects(error)[0]:
        raise error
    size = group.largest(len(content))
    array = numpy.frombuffer(content, numpy.uint8) if group.rank == 0 else numpy.empty(size, numpy.uint8)
    parts = [array[start : start + _BYTES_AT_ONCE] for start in range(0, size, _BYTES_AT_ONCE)]
    return b"".join(group.broadcast(part).tobytes() for part in parts)


def _frozen(net: Any) -> list[str]:
    """Return the paths of the parameters that are frozen."""
    trained = {*tree.paths(net)}
    return [path for path in tree.paths(net, frozen=True) if path not in trained]


def _is_count(x: Any) -> bool:
    return type(x) is int and x >= 0


def _are_totals(x: Any, run: Run) -> bool:
    if x is None or not run.batch:  # between two epochs
        return x is None and not run.batch
    metrics = [name for name in run.names if not name.startswith("validation_")]
    return (
        isinstance(x, list)
        and len(x) == len(metrics)
        and all(isinstance(totals, list) and _are_numbers(totals) for totals in x)
    )


def _are_numbers(x: Any) -> bool:
    return all(map(_are_numbers, x)) if isinstance(x, list) else isinstance(x, int | float)


def _are_states(x: Any) -> bool:
    return isinstance(x, dict) and x.keys() == {"start", "epoch"}


def _is_source(x: Any, run: Run) -> bool:
    is_kept = isinstance(x, dict) and x.keys() == {"digest", "state"} and _is_count(x["digest"])
    return is_kept and isinstance(run.source, Batches)


def _is_history(x: Any, run: Run) -> bool:
    return isinstance(x, dict) and all(
        name in run.names and isinstance(values, list) and all(isinstance(value, float) for value in values)
        for name, values in x.items()
    )


def _named(callbacks: Sequence[Callback]) -> list[tuple[str, Callback]]:
    names = [type(callback).__name__ for callback in callbacks]
    return [
        (f"{name}.{names[:index].count(name)}", callback)
        for index, (name, callback) in enumerate(zip(names, callbacks, strict=True))
    ]


def _set_random(random: "numpy.random.Generator", state: Any) -> None:
    """Put a generator in a state.

    Raises
    ------
    ValueError
        If it is the state of another kind of generator.
    """
    try:
        state = to_numpy(state)
        check_host_state(state)
        random.bit_generator.state = state
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"resume needs a seed of the kind that the training had: {error!r}. Pass the same seed."
        ) from None
