"""Which examples of a batch a process has, one of several that train a network together."""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from xpnet.scopes import having


@dataclass(frozen=True)
class Share:
    """The examples of a batch that this process has.

    Attributes
    ----------
    group : Group
        The processes that have the batch.
    start : int
        The place of the first example in the batch.
    number : int
        How many there are.
    batch : int
        How many examples the batch has.
    """

    group: Any
    start: int
    number: int
    batch: int

    @property
    def is_whole(self) -> bool:
        """Whether all processes have all examples, as there are fewer than processes."""
        return self.number == self.batch

    @property
    def is_counted(self) -> bool:
        """Whether the examples are counted on this process: those that all have are so on rank 0."""
        return not self.is_whole or self.group.rank == 0

    @property
    def copies(self) -> int:
        """On how many processes the same examples are."""
        return int(self.group.size) if self.is_whole else 1


def share_of(group: Any, examples: int) -> Share:
    """Return which of the examples of a batch this process of a group has.

    They are neighbours, and as many as on the others, or one more on the first ones. Of fewer examples than
    processes, each has all: what is computed of the same examples on all has the same mean.
    """
    if examples < group.size:
        return Share(group, 0, examples, examples)
    fewest, more = divmod(examples, group.size)
    return Share(group, group.rank * fewest + min(group.rank, more), fewest + (group.rank < more), examples)


_current: ContextVar[Share | None] = ContextVar("xpnet_share", default=None)

# The share of the batch that a network is computing with; None if it has all of it.
current_share = _current.get


def using_share(share: Share | None) -> AbstractContextManager[None]:
    """Let layers that look at a batch as a whole, or draw numbers for it, know which share of it they see."""
    return having(_current, share)
