"""What several processes must have in common before they train a network together."""

import contextlib
import logging
import pickle
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import to_device, to_numpy
from xpnet.distributed import Group
from xpnet.distributed.shard import Sharded
from xpnet.errors import ProcessesDisagreeError
from xpnet.files.description import describe
from xpnet.training.batches import Batches
from xpnet.training.data import Data
from xpnet.training.destination import digest_of_all
from xpnet.training.networks import place_of
from xpnet.training.run import Run
from xpnet.training.steps import Steps
from xpnet.version import __version__

_log = logging.getLogger("xpnet")


@contextlib.contextmanager
def told_by(group: Group) -> Iterator[None]:
    """Let rank 0 alone write warnings to the log, which all processes have."""

    def is_told(record: logging.LogRecord) -> bool:
        return group.rank == 0 or record.levelno > logging.WARNING

    try:
        _log.addFilter(is_told)
        yield
    finally:
        _log.removeFilter(is_told)


def begin_together(
    group: Group, random: "numpy.random.Generator", *, has_seed: bool, resumes: bool, shard: bool
) -> None:
    """Let random numbers that no seed says be those of rank 0 on all processes.

    Raises
    ------
    ProcessesDisagreeError
        If some have a seed, go on with a training, or have a piece of the optimizer's state, and others not.
    """
    if group.size == 1:
        return
    given = {"seed": has_seed, "resume, of which rank 0 reads the file": resumes, "shard": shard}
    everyone = group.gather_objects((given, random.bit_generator.state))
    for name in given:
        found = [other[name] for other, _ in everyone]
        if len({*found}) > 1:
            raise ProcessesDisagreeError(
                f"all processes must be given {name}, or none, received it on rank {found.index(True)}, and "
                f"not on rank {found.index(False)}."
            )
    if not has_seed:
        random.bit_generator.state = everyone[0][1]


def from_rank_0(group: Group, values: Any, own: Collection[str] = ()) -> Any:
    """Return a tree with the arrays that it has on rank 0, but for those at some paths."""
    leaves, structure = tree.flatten(values, state=True)
    if group.size == 1 or not leaves:
        return values
    paths = tree.paths(values, state=True)
    is_sent = [tree.is_array(x) and path not in own for x, path in zip(leaves, paths, strict=True)]
    arrays = iter(group.broadcast([x for x, sent in zip(leaves, is_sent, strict=True) if sent]))
    return tree.unflatten(
        structure, [next(arrays) if sent else x for x, sent in zip(leaves, is_sent, strict=True)]
    )


def state_from_rank_0(sharded: Sharded, state: Any, net: Any) -> Any:
    """Return the state of an optimizer in pieces that was given: the one of rank 0, if that is whole.

    Raises
    ------
    ProcessesDisagreeError
        If rank 0 was given its piece, and another process none.
    """
    group = sharded.group
    is_whole = state is None or sharded.is_whole(state, net)
    is_sent = state is not None and is_whole and group.rank == 0
    everyone = group.gather_objects((is_whole, to_numpy(state) if is_sent else None))
    if everyone[0][0]:
        whole = everyone[0][1]
        return None if whole is None else to_device(whole, place_of(net)[0])
    if any(whole for whole, _ in everyone):
        raise ProcessesDisagreeError(
            "all processes must be given their pieces of optimizer_state, or rank 0 all of it, received its "
            f"piece on rank 0 and none on rank {[whole for whole, _ in everyone].index(True)}."
        )
    return state


def check_alike(
    run: Run, data: list[Data], random: "numpy.random.Generator", steps: Steps, weights: dict[str, Any]
) -> None:
    """Check that all processes are about to do the same.

    Raises
    ------
    ProcessesDisagreeError
        If they are not. It names what differs, and two processes.
    """
    if run.group.size == 1:
        return
    here = _described(run, data, random)
    here |= {"the loss": _named(steps.loss), "precision": steps.precision}
    here |= {name: to_numpy(numbers).tolist() for name, numbers in weights.items()}
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


def _described(run: Run, data: list[Data], random: "numpy.random.Generator") -> dict[str, Any]:
    """Return what must be the same, by the names that an error has for it."""
    described: dict[str, Any] = {"the version of xpnet": __version__}
    described["the network"] = _kinds(run.net)
    described["the state of the optimizer"] = _kinds(run.optimizer_state, run.pieces_of_state())
    described["the layers"] = _structure(run.net)
    described["what of the network is trained"] = tree.paths(run.net)
    described["the optimizer"] = _named(run.optimizer_in_steps)
    described |= {"data": run.data, "epochs": run.epochs, "the history": list(run.names)}
    described["callbacks"] = [_with_numbers(callback) for callback in run.callbacks]
    described["the seed, or the state of its generator"] = zlib.crc32(
        pickle.dumps(random.bit_generator.state)
    )
    for each in data:
        described[f"the settings of {each.names[0]}"] = each.settings
        if not isinstance(each, Batches):
            described[f"the examples of {each.names[0]}, of which each process is given all"] = each.digest()
    return described


def _kinds(values: Any, pieces: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
    """Return the text of what each array of a tree is; of pieces, with their shapes in one process."""
    kinds = []
    for path, x in zip(tree.paths(values, state=True), tree.leaves(values, state=True), strict=True):
        shape, _ = pieces.get(path, (getattr(x, "shape", ()), None))
        kinds.append(f"{path} {f'{x.dtype} {tuple(shape)}' if tree.is_array(x) else type(x).__name__}")
    return kinds


def _named(x: Any) -> str:
    """Return the text of an object without what is of this process: addresses and its rank."""
    return re.sub(r" at 0x[0-9a-f]+|(?<=Group\()rank=\d+, ", "", repr(x))


def _with_numbers(callback: Any) -> str:
    """Return the class of a callback, of xpnet's also its settings that are numbers; paths may be others."""
    own = vars(callback) if type(callback).__module__.startswith("xpnet.") else {}
    numbers = {name: x for name, x in own.items() if isinstance(x, int | float)}
    return f"{type(callback).__name__} {numbers or ''}".strip()


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


def agree_after_epoch(run: Run) -> None:
    """Let all processes stop where one is to, and check that all have the same weights and state.

    Raises
    ------
    ProcessesDisagreeError
        See `check_same_weights`.
    """
    if run.group.size == 1:
        return
    run.stop = bool(run.group.largest(int(bool(run.stop))))
    check_same_weights(run, f"after epoch {run.epoch}")


def check_same_weights(run: Run, when: str) -> None:
    """Check that all processes have the same weights and state, and the same learning rate.

    Raises
    ------
    ProcessesDisagreeError
        If they do not, as after a callback that does different things. It names the first.
    """
    numbers = [x for x in tree.leaves(run.optimizer_state) if getattr(x, "shape", None) == ()]
    digests = run.group.gather_objects(digest_of_all([run.net, numbers]))
    if len({*digests}) == 1:
        return
    leaves, paths = tree.leaves(run.net, state=True), tree.paths(run.net, state=True)
    here = {path: digest_of_all([leaf]) for path, leaf in zip(paths, leaves, strict=True)}
    here |= {"number in the state of the optimizer": digest_of_all(numbers)}
    everyone = run.group.gather_objects(here)
    path = next(path for path in here if len({other[path] for other in everyone}) > 1)
    rank = next(rank for rank, other in enumerate(everyone) if other[path] != everyone[0][path])
    raise ProcessesDisagreeError(
        f"weights and state must stay the same on all processes, received another {path} on rank {rank} "
        f"than on rank 0, {when}. Let callbacks and schedules do the same on all; and layers of your own "
        "that keep statistics of a batch keep group.mean of them."
    )


def _warn_of_same_batches(group: Group, data: list[Batches]) -> None:
    for each in data:
        digests = group.gather_objects(each.digest())
        if len({*digests}) < group.size:
            _log.warning(
                "xpnet: %s: some processes have the same first batch. Each is to give its own part of every "
                "batch, by group.rank and group.size; else all of them compute the same.",
                each.names[0],
            )
