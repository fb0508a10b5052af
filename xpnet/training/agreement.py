"""What several processes must have in common before they train a network together."""

import contextlib
import logging
import pickle
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy

from xpnet import tree
from xpnet.distributed import Group
from xpnet.errors import ProcessesDisagreeError
from xpnet.files.description import describe
from xpnet.training.batches import Batches
from xpnet.training.data import Data
from xpnet.training.run import Run
from xpnet.version import __version__

_log = logging.getLogger("xpnet")


@contextlib.contextmanager
def told_by(group: Group) -> Iterator[None]:
    """Let rank 0 alone write warnings to the log, which all processes have."""

    def is_told(record: logging.LogRecord) -> bool:
        return group.rank == 0 or record.levelno > logging.WARNING

    _log.addFilter(is_told)
    try:
        yield
    finally:
        _log.removeFilter(is_told)


def same_random(group: Group, random: "numpy.random.Generator", *, is_fresh: bool) -> None:
    """Let random numbers that no seed says be those of rank 0 on all processes."""
    if is_fresh and group.size > 1:
        random.bit_generator.state = group.gather_objects(random.bit_generator.state)[0]


def check_resume(group: Group, resume: Any) -> None:
    """Check that all processes go on with a training, or none does. Rank 0 alone need find the file."""
    asked = group.gather_objects(resume is not None)
    if len({*asked}) > 1:
        raise ProcessesDisagreeError(
            "all processes must be given resume, of which rank 0 reads the file, or none; received it on rank "
            f"{asked.index(True)}, and not on rank {asked.index(False)}."
        )


def from_rank_0(group: Group, values: Any) -> Any:
    """Return a tree with the arrays that it has on rank 0."""
    leaves, structure = tree.flatten(values, state=True)
    if group.size == 1 or not leaves:
        return values
    arrays = iter(group.broadcast([x for x in leaves if tree.is_array(x)]))
    return tree.unflatten(structure, [next(arrays) if tree.is_array(x) else x for x in leaves])


def check_alike(run: Run, data: list[Data], random: "numpy.random.Generator", precision: str) -> None:
    """Check that all processes are about to do the same.

    Raises
    ------
    ProcessesDisagreeError
        If they are not. It names what differs, and two processes.
    """
    if run.group.size == 1:
        return
    here = _described(run, data, random, precision)
    everyone = run.group.gather_objects(here)
    for name in here:
        for rank, other in enumerate(everyone):
            if other.get(name) != everyone[0].get(name):
                raise ProcessesDisagreeError(
                    f"all processes must be given the same to train together, received {name}: "
                    f"{_differing(everyone[0].get(name), other.get(name))} on rank 0 and "
                    f"{_differing(other.get(name), everyone[0].get(name))} on rank {rank}."
                )
    _warn_of_same_batches(run.group, [each for each in data if isinstance(each, Batches)])


def _described(
    run: Run, data: list[Data], random: "numpy.random.Generator", precision: str
) -> dict[str, Any]:
    """Return what must be the same, by the names that an error has for it."""
    described: dict[str, Any] = {"the version of xpnet": __version__}
    for name, values in (("the network", run.net), ("the state of the optimizer", run.optimizer_state)):
        leaves = tree.leaves(values, state=True)
        kinds = [f"{x.dtype} {tuple(x.shape)}" if tree.is_array(x) else type(x).__name__ for x in leaves]
        paths = tree.paths(values, state=True)
        described[name] = [f"{path} {kind}" for path, kind in zip(paths, kinds, strict=True)]
    described["the layers"] = _structure(run.net)
    described["what of the network is trained"] = tree.paths(run.net)
    described["the optimizer"] = re.sub(" at 0x[0-9a-f]+", "", repr(run.optimizer))
    described |= {"data": run.data, "epochs": run.epochs, "the history": list(run.names)}
    described["callbacks"] = [type(callback).__name__ for callback in run.callbacks]
    described["precision"] = precision
    described["the seed, or the state of its generator"] = zlib.crc32(
        pickle.dumps(random.bit_generator.state)
    )
    for each in data:
        described[f"the settings of {each.names[0]}"] = each.settings
        if not isinstance(each, Batches):
            described[f"the first examples of {each.names[0]}, of which each process is given all"] = (
                each.digest()
            )
    return described


def _structure(net: Any) -> Any:
    """Return what a file would say of a network besides its arrays, if that can be said."""
    with contextlib.suppress(TypeError, ValueError):
        return describe(net, "", {})
    return None


def _differing(value: Any, other: Any) -> str:
    """Describe a value by the first of its parts that is not that of another one."""
    if isinstance(value, dict) and isinstance(other, dict):
        key = next(key for key in {**value, **other} if value.get(key) != other.get(key))
        return f"{key} {_differing(value.get(key), other.get(key))}"
    if isinstance(value, list) and isinstance(other, list):
        pairs = list(zip(value, other, strict=False))
        return next((_differing(x, y) for x, y in pairs if x != y), f"{len(value)} of them")
    return "without" if value is None else str(value)


def _warn_of_same_batches(group: Group, data: list[Batches]) -> None:
    for each in data:
        digests = group.gather_objects(each.digest())
        if len({*digests}) < group.size:
            _log.warning(
                "xpnet: %s: some processes have the same first batch. Each is to give its own part of every "
                "batch, by group.rank and group.size; else all of them compute the same.",
                each.names[0],
            )
