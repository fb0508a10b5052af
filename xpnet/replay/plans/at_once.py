"""Steps that are done at once: kernels of one text of which none needs what another one makes.

An optimizer has one for each array, for instance. On CUDA they are one launch (`cuda_launches.py`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import floor

import numpy

from xpnet.replay.graph import Variable
from xpnet.replay.kernels.kernel import Kernel
from xpnet.replay.plans.step import Step


def at_once(
    steps: Sequence[Step],
    root: Mapping[Variable, Variable],
    returned: Iterable[Variable],
    elsewhere: Collection[Variable],
    text_of: Callable[[Kernel, Sequence[Variable]], str],
) -> list[Step]:
    """Put steps together that can be done at once.

    One moves down to the place of another one if nothing in between reads its results, and up if all that it
    reads is there by then; and if the plan then needs no more memory at any time than it does anyway.

    Parameters
    ----------
    steps : sequence of Step
        In order.
    root : mapping of Variable to Variable
        Whose memory each variable is in.
    returned : iterable of Variable
        What is needed behind all steps.
    elsewhere : collection of Variable
        What takes no memory of the plan.
    text_of : callable
        Returns the text of a kernel with some results.
    """
    order = _Order(steps, root, returned, elsewhere)
    alike: dict[str, list[int]] = {}
    for number, step in enumerate(steps):
        if step.kernel:
            alike.setdefault(text_of(step.kernel, step.results), []).append(number)
    for numbers in alike.values():
        for some in [*order.meeting(numbers)]:
            start, end = max(map(order.behind, some)), min(map(order.before, some))
            between = [order.place[number] for number in some if start < order.place[number] < end]
            # Else right behind what is made last, where there is no other step.
            place = max(between, default=(start + min(end, floor(start) + 1)) / 2)
            # The nearest first, as memory may not suffice for all.
            for number in sorted(some, key=lambda number: abs(order.place[number] - place)):
                order.move(number, place)
    return order.steps()


class _Order:
    """Where steps, which are known by their numbers, are done, and how much memory is in use there.

    Attributes
    ----------
    place : list of float
        Of each step, and one behind all of them. What makes an array is at a lower one than what reads it.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        root: Mapping[Variable, Variable],
        returned: Iterable[Variable],
        elsewhere: Collection[Variable],
    ) -> None:
        self._steps = steps
        self.place = [float(number) for number in range(len(steps) + 1)]
        # The step that makes each variable, and those that read its memory.
        self._maker = {x: number for number, step in enumerate(steps) for x in step.results}
        self._readers: dict[Variable, dict[int, None]] = {x: {} for x in root.values()}
        for number, read in enumerate([*(step.inputs for step in steps), returned]):
            for x in read:
                self._readers[root[x]][number] = None
        # Which steps make what each reads, and the memory of that and of what it makes, but for numbers.
        self._makers: list[set[int]] = []
        self._memory: list[set[Variable]] = []
        for step in steps:
            read = {y for x in step.inputs for y in (x, root[x])}
            self._makers.append({self._maker[x] for x in read if x in self._maker})
            memory = {root[x] for x in (*step.inputs, *step.results)}
            self._memory.append({x for x in memory if x.size > 1 and x not in elsewhere})
        self._in_use = numpy.zeros(len(self.place), "int64")
        self._count(set().union(*self._memory), 1)
        self._most = self._in_use.max()

    def behind(self, number: int) -> float:
        """Return the last place at which something is made that a step reads."""
        return max((self.place[maker] for maker in self._makers[number]), default=-1.0)

    def before(self, number: int) -> float:
        """Return the first place at which something is read that a step makes."""
        readers = {reader for x in self._steps[number].results for reader in self._readers[x]}
        return min((self.place[reader] for reader in readers), default=self.place[-1])

    def meeting(self, numbers: Iterable[int]) -> Iterator[list[int]]:
        """Yield those of some steps for which there may be one place."""
        some: list[int] = []
        end = 0.0
        for number in sorted(numbers, key=self.behind):
            if some and self.behind(number) >= end:
                yield some
                some = []
            end = min(end, self.before(number)) if some else self.before(number)
            some.append(number)
        yield some

    def move(self, number: int, place: float) -> None:
        """Do a step at another place, if it can be done there and there is memory."""
        before = self.place[number]
        if before != place and self.behind(number) < place < self.before(number):
            self._put(number, place)
            if self._in_use.max() > self._most:
                self._put(number, before)

    def _put(self, number: int, place: float) -> None:
        self._count(self._memory[number], -1)
        self.place[number] = place
        self._count(self._memory[number], 1)

    def _count(self, memory: Iterable[Variable], times: int) -> None:
        """Count memory as in use from when it is made until it is read last."""
        for x in memory:
            made = self.place[self._maker[x]]
            last = max((self.place[reader] for reader in self._readers[x]), default=made)
            self._in_use[int(made) : int(last) + 1] += times * x.nbytes

    def steps(self) -> list[Step]:
        """Return the steps in order, those at one place as one."""
        found: dict[float, list[Step]] = {}
        for step, place in zip(self._steps, self.place, strict=False):
            found.setdefault(place, []).append(step)
        return [Step.of_several(some) if len(some) > 1 else some[0] for _, some in sorted(found.items())]
