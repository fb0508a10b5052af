"""Batches that others make: a loader of PyTorch, a generator, a reader of files."""

import itertools
import logging
import operator
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import Device, asarray, column_names, library_of
from xpnet.distributed import Group
from xpnet.share import Share
from xpnet.training.destination import Destination, digest_of, digest_of_all, length, noted
from xpnet.training.finite import are_finite
from xpnet.training.lazy import map_named

_log = logging.getLogger("xpnet")

# After how many batches of an epoch without a known length the log says that there may be no end.
MANY_BATCHES = 2**17

_END = object()

# In the place of the number of batches that were left out, where it is not known.
UNKNOWN_DIGEST = 2**32


class Batches:
    """Batches from outside, as they come, on the device of a network.

    They are read in the thread of the caller, and none ahead of what is asked for.

    Parameters
    ----------
    names : sequence of str
        What errors call the parts of a batch, of which the last may be missing.
    given : iterable or callable
        The batches, or a function that returns an iterable of them for each epoch.
    parts : callable
        From a batch to its parts, arrays or dicts of such.
    where : Device
    dtype : dtype
        To which floating-point numbers are converted.
    epochs : int, default=1
        How many will be asked for.

    Attributes
    ----------
    columns : dict of str to list
        The columns of data frames, by names such as ``"x"`` and ``"x['a']"``.
    batch_size : int
        That of the first batch.
    number : int or None
        How many examples an epoch has: at most, if there is a length, and exactly once one has ended.
    group : Group or None
        Processes that go through the same epochs together: each gives its own share of each batch.
    check : callable or None
        Is called with each batch that comes from the host.

    Raises
    ------
    ValueError
        If there is no batch, or no other iteration for a second epoch.
    """

    def __init__(
        self,
        names: Sequence[str],
        given: Any,
        parts: Callable[[Any], Sequence[Any]],
        where: Device,
        dtype: Any,
        *,
        epochs: int = 1,
    ) -> None:
        self.names, self._given, self._parts = tuple(names), given, parts
        self._names = self.names
        self.destination = Destination(where, dtype)
        self.columns: dict[str, list[Any]] = {}
        self.check: Callable[..., None] | None = None
        self.group: Group | None = None
        self._is_function = not hasattr(given, "__iter__")
        self._iterable: Any = None
        self._iterator: Iterator[Any] | None = None
        self._is_restored = False
        self._digest = self._expected_digest = 0
        self._like: dict[str, tuple[Any, ...]] | None = None
        self._bad: tuple[int, list[Any]] | None = None
        self._waiting: list[Any] | None = None  # what was read and not asked for yet
        try:
            self._open(epochs)
            first = self._next(0)
            if first is None:
                raise ValueError(f"{self._what} must have at least one batch, received none.")
        except BaseException:
            self.close()
            raise
        self.names = self._names[: len(first)]
        self._waiting, self.batch_size = first, length(first[0])
        expected = self._length()
        self.number = None if expected is None else expected * self.batch_size
        self._from_host = any(isinstance(leaf, numpy.ndarray) for leaf in tree.leaves(first))

    is_loaded = False

    def join(self, group: Group) -> None:
        """Go through the epochs together with other processes."""
        self.group = group
        self.batch_size, own = sum(group.gather_objects(self.batch_size)), self.batch_size
        self.number = None if self.number is None else self.number // own * self.batch_size

    def own(self, *_values: Any) -> list[Any]:
        """Return nothing: all batches are for one purpose."""
        return []

    @property
    def _what(self) -> str:
        of = self.names[0].partition(" of ")[2]
        return f"batches of {of}" if of else "batches"

    @property
    def settings(self) -> dict[str, int]:
        """What is the same when a training goes on."""
        expected = self._length()
        return {} if expected is None else {"batches": expected}

    def first(self) -> tuple[tuple[Any, ...], list[Any]]:
        """Return the first batch, on the device and as it came; the epoch begins with it all the same."""
        assert self._waiting is not None
        return tuple(tree.map(self.destination.moved, self._waiting)), self._waiting

    def begin(self) -> None:
        """Begin an epoch: there is nothing to do."""

    def epoch(self, first: int = 0) -> Generator[tuple[Any, ...], None, None]:
        """Yield the batches of an epoch from a later one on."""
        groups = self._read(first)
        uploaded = self.destination.uploaded(groups, from_host=self._from_host, ahead=0)
        with closing(groups), closing(uploaded) as moved:
            for batch in moved:
                yield tuple(batch)

    def digest(self) -> int:
        """Return a number that tells the first batch from others."""
        return digest_of_all(self.first()[1])

    def share(self, number: int, batch: Any) -> Share | None:
        """Return which examples of a batch of all processes are those of this one; None if all are.

        Raises
        ------
        ValueError
            If there is a batch on some processes, and none on others.
        """
        if self.group is None:
            return None
        own = 0 if batch is None else length(batch[0])
        lengths = self.group.gather_objects(own)
        if not any(lengths):
            return None
        if 0 in lengths:
            other = next(rank for rank, number in enumerate(lengths) if number)
            raise ValueError(
                f"{self._what} must be as many on all processes, received an end after {number} on rank "
                f"{lengths.index(0)}, and more on rank {other}. Leave the last ones out there."
            )
        return Share(self.group, sum(lengths[: self.group.rank]), own, sum(lengths))

    comes_again = False

    # Batches from outside cannot be had again, so that steps are not looked at one by one, and those that are
    # on the device already were not looked at when they came.
    @property
    def unexplained(self) -> str:
        """What to look at where a loss is NaN, and `again` has no batch with a bad value."""
        if self._from_host:
            return "or scale x and y: the data alone are not to blame"
        return "or look for bad values in x and y, which came on the device and were not looked through"

    def again(self, _first: int = 0) -> Generator[tuple[int, tuple[Any, ...]], None, None]:
        """Yield the first batch of the epoch with a bad value, if there was one, with its number."""
        if self._bad is not None:
            number, batch = self._bad
            yield number, tuple(tree.map(self.destination.moved, batch))

    def place(self, _batch: int, number: int) -> str:
        """Say which example of a batch it is."""
        return f"row {number} of the batch"

    # -- where a training is --------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return where the epoch is, and the state of the iterable after the last batch, if it has one."""
        holder = self._holder()
        is_between = self._iterator is None  # a function makes a new iterable for the next epoch
        state = None if holder is None or (is_between and self._is_function) else holder.state_dict()
        return {"digest": self._digest, "state": _to_keep(state)}

    def restore(self, kept: Any) -> None:
        """Go on behind the batch after which `state` returned this."""
        self._expected_digest, state = kept["digest"], kept["state"]
        if state is None:
            return
        holder = self._holder()
        if holder is None:
            raise ValueError(
                f"resume needs {self._what} with load_state_dict, as those of the training had, received "
                f"{type(self._iterable).__name__}."
            )
        begins_anew = holder is not self._iterator
        if begins_anew:
            self.close()
        with noted(f"It was raised where {self._what} were given the state that the file has of them."):
            holder.load_state_dict(_as_it_was(state))
        if begins_anew:
            self._iterator = iter(holder)
        self._waiting, self._is_restored = None, True

    def _holder(self) -> Any:
        """Return what has the state: the iterable or, if it has none, its iterator."""
        both = (self._iterable, self._iterator)
        return next((x for x in both if hasattr(x, "state_dict") and hasattr(x, "load_state_dict")), None)

    # -- reading --------------------------------------------------------------------------------------------

    def _open(self, epochs: int = 1) -> None:
        self._bad = None
        self._iterable = self._given() if self._is_function else self._given
        if not hasattr(self._iterable, "__iter__"):
            raise TypeError(
                f"{self._what} must be an iterable of (x, y), or a function that returns one, received "
                f"{'a function that returns ' if self._is_function else ''}{type(self._iterable).__name__}."
            )
        self._iterator = iter(self._iterable)
        if epochs > 1 and self._iterator is self._given:
            self._iterator = None  # it stays as it is, for one epoch
            raise ValueError(
                f"{self._what} for {epochs} epochs must be an iterable that can begin anew, received a "
                f"{type(self._given).__name__}, which ends with the first one. Pass a function that returns "
                "a new one for each epoch, such as the generator function itself."
            )
        if _is_endless(self._iterator):
            raise ValueError(
                f"{self._what} must have an end, received itertools.{type(self._iterator).__name__}. Pass a "
                "function that returns as many as make an epoch: lambda: itertools.islice(batches, 1000)."
            )

    def close(self) -> None:
        """End the iteration, so that a generator closes its files, and a loader its processes."""
        iterator, self._iterator = self._iterator, None
        self._waiting = None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

    def _length(self) -> int | None:
        """Return how many batches an epoch has, if the iterable says so."""
        try:
            return len(self._iterable)
        except (TypeError, NotImplementedError):
            return None

    def _read(self, first: int) -> Generator[list[Any], None, None]:
        """Yield the batches of an epoch from a later one on, on the host, and close all in the end."""
        if self._iterator is None:
            self._open()
        number = first if self._is_restored else 0
        skipped, expected = first - number, self._length()
        self._digest = self._expected_digest if self._is_restored else 0
        self._is_restored, examples = False, 0
        try:
            while (batch := self._next(number)) is not None:
                number += 1
                self._check_that_there_is_an_end(number, expected)
                self._digest = digest_of(batch, self._digest)
                examples += length(batch[0])
                if number > first:
                    yield batch
                elif number == first:
                    self._say_what_was_skipped(first)
            self._check_end(number, first, expected)
            self.number = examples if skipped == first and self.group is None else None
        finally:
            self.close()

    def _say_what_was_skipped(self, number: int) -> None:
        is_other = self._expected_digest not in (self._digest, UNKNOWN_DIGEST)
        others = ", but they are others than then: some examples come twice, others not at all"
        _log.warning(
            "xpnet: %s: the first %d of this epoch were read and left out, as the training had been there%s. "
            "An iterable with state_dict and load_state_dict goes on where it was.",
            *(self._what, number, others if is_other else ""),
        )

    def _check_that_there_is_an_end(self, number: int, expected: int | None) -> None:
        if expected is not None and number > expected:
            raise ValueError(
                f"{self._what} must be as many as they say, received more than the {expected} of len(). Let "
                "__len__ return the number of batches, not of examples, or leave it out."
            )
        if expected is None and number == MANY_BATCHES:
            _log.warning(
                "xpnet: %s: this epoch has %d so far. If they have no end, pass a function that returns as "
                "many as make an epoch: lambda: itertools.islice(batches, 1000).",
                *(self._what, number),
            )

    def _check_end(self, number: int, first: int, expected: int | None) -> None:
        if number == 0:
            raise ValueError(
                f"{self._what} must have at least one batch in each epoch, received none. What ended with the"
                " epoch before cannot begin anew: pass a function that returns a new iterable."
            )
        if number < (first if expected is None else expected):
            least = f"the {first} of the training that is resumed" if expected is None else f"{expected}"
            raise ValueError(
                f"{self._what} must be as many as they say, {least}, received {number}. Let __len__ return "
                "the number of batches, or leave it out."
            )

    def _next(self, number: int) -> list[Any] | None:
        """Return the next batch, with so many before it in this epoch, on the host; None at the end."""
        if self._waiting is not None:
            batch, self._waiting = self._waiting, None
            return batch
        assert self._iterator is not None
        with noted(f"It was raised by {self._what}, in number {number + 1}."):
            item = next(self._iterator, _END)
        if item is _END:
            return None
        with noted(f"It is about batch {number + 1} of {self._what}."):
            parts = self._parts(item)
        ready: dict[int, Any] = {}
        for name, part in zip(self._names, parts, strict=False):
            if id(part) not in ready:  # a dict may be both x and y
                ready[id(part)] = map_named(lambda *leaf: self._leaf(number, *leaf), name, part)
        batch = [ready[id(part)] for part in parts]
        self._check_alike(number, batch)
        if self.check is not None:
            with noted(f"It is about batch {number + 1} of {self._what}."):
                self.check(*batch)
        if self._bad is None and not _is_finite(batch):
            self._bad = number, batch
        return batch

    def _leaf(self, number: int, name: str, value: Any) -> Any:
        array = self.destination.readable(f"{name} in batch {number + 1}", value)
        if (names := column_names(value)) is not None:
            self.columns[name] = names
        converted = self.destination.converted(array)
        is_given = converted is array and isinstance(array, numpy.ndarray)
        return array.copy() if is_given else converted  # a generator may fill the same memory again

    def _check_alike(self, number: int, batch: list[Any]) -> None:
        """Check that all parts have as many examples, and are like those of the first batch."""
        like: dict[str, tuple[Any, ...]] = {}
        lengths: dict[str, int] = {}

        def look(name: str, leaf: Any) -> None:
            like[name], lengths[name] = (leaf.dtype, tuple(leaf.shape[1:])), leaf.shape[0]

        for name, part in zip(self._names, batch, strict=False):
            map_named(look, name, part)
        if not all(lengths.values()) or len(set(lengths.values())) != 1:
            text = " and ".join(f"{length} in {name}" for name, length in lengths.items()) or "nothing"
            raise ValueError(
                f"a batch must have as many examples of each, and at least one; received {text} in batch "
                f"{number + 1} of {self._what}."
            )
        self._like = like if self._like is None else self._like
        if like == self._like:
            return
        for name in {**self._like, **like}:
            first, received = self._like.get(name), like.get(name)
            if first != received:
                raise ValueError(
                    f"{self._what} must be alike but in their number of examples: the first has {name} "
                    f"{_described(first)}, received {_described(received)} in batch {number + 1}. Pad what "
                    "differs in length, and convert what differs in kind."
                )


# In the place of what files have no kind for: the key by which it is known, beside its values.
_KEPT_AS = "xpnet.kept_as"


def _to_keep(state: Any) -> Any:
    """Return a state as files keep it: bytes, single numbers and arrays of other libraries as NumPy's."""
    if isinstance(state, dict):
        return {key: _to_keep(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(_to_keep, state))
    if isinstance(state, bytes):
        return {_KEPT_AS: "bytes", "values": numpy.frombuffer(state, numpy.uint8)}
    if isinstance(state, numpy.generic):
        return {_KEPT_AS: "number", "values": numpy.asarray(state)}
    library = library_of(state)
    if library is None or library.spec == "cpu":
        return state
    return {_KEPT_AS: library.spec, "values": library.to_numpy(state)}


def _as_it_was(state: Any) -> Any:
    """Return a state that `_to_keep` made as the iterable gave it."""
    if isinstance(state, dict) and _KEPT_AS in state:
        kind, values = state[_KEPT_AS], state["values"]
        if kind == "number":
            return values[()]
        return values.tobytes() if kind == "bytes" else asarray(values, device=kind)
    if isinstance(state, dict):
        return {key: _as_it_was(value) for key, value in state.items()}
    return type(state)(map(_as_it_was, state)) if type(state) in (list, tuple) else state


def _described(kind: tuple[Any, ...] | None) -> str:
    if kind is None:
        return "not at all"
    dtype, shape = kind
    return f"as {dtype} of shape ({', '.join(map(str, ('examples', *shape)))})"


def _is_finite(batch: list[Any]) -> bool:
    """Say whether what comes from the host is finite; other devices would have to be waited for."""
    return are_finite([leaf for leaf in tree.leaves(batch) if isinstance(leaf, numpy.ndarray)])


def _is_endless(iterator: Any) -> bool:
    if isinstance(iterator, itertools.repeat):
        return operator.length_hint(iterator, -1) < 0
    return isinstance(iterator, itertools.count | itertools.cycle)
