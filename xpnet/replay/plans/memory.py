"""Where each variable is in memory.

`Prototypes` finds which arrays are views of which. `Layout` decides the rest: until which step each array is
needed, its lifetime (`_lifetimes`); which results take over the memory of donated arguments (`_donate`); and
where in the plan's memory each other result has its *buffer*, which makes room when it is done with
(`_allocate`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy

from xpnet.replay.graph import Graph, Operation, Variable, substitute
from xpnet.replay.kernels.kernel import FULL, View
from xpnet.replay.plans.step import Step


class Prototypes:
    """For each variable an array of NumPy's that lies in memory as it will.

    Parameters
    ----------
    inputs : iterable of Variable
        The arguments.
    stored_as : callable
        Gives the dtype of the memory for numbers of a dtype.

    Attributes
    ----------
    root : dict of Variable to Variable
        Whose memory each variable is in: its own, or that of what it is a view of.
    made_by_calls : set of Variable
        Results of functions that make arrays anew, in a layout that only a call shows.
    """

    def __init__(self, inputs: Iterable[Variable], stored_as: Callable[[Any], Any]) -> None:
        self._stored_as = stored_as
        self._arrays: dict[Variable, numpy.ndarray] = {}
        self.root: dict[Variable, Variable] = {}
        self.made_by_calls: set[Variable] = set()
        self._view_of: dict[Variable, Variable] = {}
        for x in inputs:
            self.add(x)

    def __getitem__(self, x: Variable) -> numpy.ndarray:
        return self._arrays[x]

    def add(self, x: Variable) -> None:
        """Add a variable in memory of its own, its elements one after the other."""
        self.root[x] = x
        self._arrays[x] = numpy.empty(x.shape, self._stored_as(x.dtype))

    def add_views(self, operation: Operation, function: Callable) -> bool:
        """Add the results of an operation if all are views of its one argument, and say whether they are.

        The function takes arrays of NumPy's, and is called with the prototypes.
        """
        base = operation.base
        if base is None:
            return False
        arguments, options = substitute((operation.arguments, operation.options), self.__getitem__)
        with numpy.errstate(all="ignore"):  # the values are whatever was in memory
            result = function(*arguments, **options)
        arrays = list(result) if operation.several else [result]
        if not all(isinstance(x, numpy.ndarray) and numpy.may_share_memory(x, self[base]) for x in arrays):
            return False
        for x, array in zip(operation.results, arrays, strict=True):
            self.root[x], self._arrays[x] = self.root[base], array
        if not operation.several:  # a part of a sequence is there only behind the call
            self._view_of[operation.result] = base
        return True

    def add_inside(self, x: Variable, y: Variable) -> None:
        """Let a variable be in the memory of another one."""
        self.root[x], self._arrays[x] = self.root[y], self._arrays[y]

    def for_kernels(
        self, shortest: int
    ) -> tuple[set[Variable], dict[Variable, Variable], dict[Variable, View]]:
        """Return what kernels can read.

        Returns
        -------
        contiguous : set of Variable
            The variables whose elements are known to stand one after the other.
        origin : dict of Variable to Variable
            Those of them that are views of all elements of another one in the same order, with that one.
        strided : dict of Variable to View
            The other views, with rows of at least a length.
        """
        contiguous = {
            x
            for x, array in self._arrays.items()
            if array.flags.c_contiguous and self.root[x] not in self.made_by_calls
        }
        origin: dict[Variable, Variable] = {}
        for x, base in self._view_of.items():
            if x.size == base.size and x.dtype == base.dtype and contiguous.issuperset((x, base)):
                origin[x] = origin.get(base, base)
        strided = {
            x: view
            for x, root in self.root.items()
            if root in contiguous
            and x not in contiguous
            and (view := View.of(root, self[root], self[x]))
            and view.columns >= shortest
        }
        return contiguous, origin, strided

    def offset(self, x: Variable) -> int:
        """Return how many bytes from the beginning of its memory a variable begins."""
        return self[x].ctypes.data - self[self.root[x]].ctypes.data

    def clear(self) -> None:
        """Free the arrays; whose memory each variable is in stays known."""
        self._arrays.clear()


def last_readers(reads: Sequence[Iterable[Variable]], returned: Iterable[Variable]) -> dict[Variable, int]:
    """Return the number of the last of some steps that reads each variable, given what each of them reads.

    What is returned is read behind all.
    """
    last = {x: number for number, read in enumerate(reads) for x in read}
    return last | dict.fromkeys(returned, len(reads))


def _alike(a: Variable, b: Variable) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


class Layout:
    """Where the results of steps are.

    Parameters
    ----------
    graph : Graph
    steps : sequence of Step
        In order.
    prototypes : Prototypes
        Of all variables.
    donated : mapping of Variable to Variable
        The outputs that may be written over an argument, each with that.
    anew : sequence of Variable
        Whose memory is handed out, so that the next call must not write to it.
    alignment : int
        Of how many bytes the places of buffers are multiples.

    Attributes
    ----------
    over : dict of Variable to Variable
        The results that are written over an argument, each with that.
    inside : dict of Variable to (Variable, Variable, int)
        The results that are written over a part of an argument, as their step reads it; with the argument and
        at which of its elements the part begins.
    anew : list of Variable
        The results for which an array is made at each call.
    buffers : dict of Variable to (int, int)
        Where in the plan's memory each buffer is: its first byte, and its number of bytes.
    nbytes : int
        The size of the plan's memory.
    """

    def __init__(
        self, graph: Graph, steps: Sequence[Step], prototypes: Prototypes,
        donated: Mapping[Variable, Variable], anew: Sequence[Variable], alignment: int,
    ) -> None:  # fmt: skip
        self._steps, self._root, self._made_by_calls = steps, prototypes.root, prototypes.made_by_calls
        self._elsewhere = prototypes.made_by_calls.union(graph.inputs)  # in no buffer
        # How often each step reads the memory of each variable.
        self._reads = [Counter(self._root[x] for x in step.inputs) for step in steps]
        self._last = self._lifetimes(graph.returned)
        self.over = self._donate(donated)
        self.inside = self._make_inside(prototypes)
        self.anew = [x for x in anew if x not in self._elsewhere and x not in self.over]
        self.buffers: dict[Variable, tuple[int, int]] = {}
        self.nbytes = self._allocate(alignment)

    def _lifetimes(self, returned: Sequence[Variable]) -> dict[Variable, int]:
        """Return the number of the last step that reads each variable's memory."""
        return last_readers(self._reads, [self._root[x] for x in returned])

    def _donate(self, donated: Mapping[Variable, Variable]) -> dict[Variable, Variable]:
        """Choose the outputs that are written over a donated argument."""
        over = {}
        for index, step in enumerate(self._steps):
            for part, x in step.made:
                y = donated.get(x)
                if y is None or x in self._elsewhere or self._root[x] is not x or not _alike(x, y):
                    continue
                # The argument is read before this step alone, or here by what writes in place.
                if self._last.get(y, -1) < index or self._can_take(y, x, part, index):
                    over[x] = y
        return over

    def _make_inside(self, prototypes: Prototypes) -> dict[Variable, tuple[Variable, Variable, int]]:
        """Let kernels make what becomes a part of a result there, if that is written over an argument.

        They do so where they read, for the last time, the same part of the argument, and what they make has
        no views.
        """
        inside = {}
        has_views = {root for x, root in self._root.items() if x is not root}
        made = {x: (index, part) for index, step in enumerate(self._steps) for part, x in step.made}
        for number, step in enumerate(self._steps):
            for x, result, offset in step.inside:
                argument, (index, part) = self.over.get(result), made.get(x, (0, None))
                if argument is None or part is None or part.kernel is None or x in has_views:
                    continue
                read = [v for v in part.inputs if self._root[v] is argument]
                is_last = self._last.get(argument) == index and self._last.get(x) == number
                if len(read) == self._reads[index][argument] == 1 and is_last and read[0] in part.in_place:
                    same = (read[0].size, read[0].dtype) == (x.size, x.dtype)
                    if same and part.kernel.kinds[x] == FULL and prototypes.offset(read[0]) == offset:
                        inside[x] = read[0], argument, offset // x.dtype.itemsize
                        prototypes.add_inside(x, read[0])
        return inside

    def _allocate(self, alignment: int) -> int:
        """Give each other result a buffer; one that is done with makes room for others."""
        memory = _Memory(alignment)
        in_no_buffer = {*self._elsewhere, *self.over, *self.inside, *self.anew}
        joined = self._joined(in_no_buffer, alignment)
        for index, step in enumerate(self._steps):
            for part, x in step.made:
                if x in in_no_buffer or step.is_view:
                    continue
                if x in joined:
                    if x not in self.buffers:
                        self.buffers |= joined[x].placed(memory)
                    continue
                candidates = (v for v in part.in_place if v in self.buffers)
                taken = next((v for v in candidates if self._can_take(v, x, part, index)), None)
                if taken is None:
                    self.buffers[x] = memory.take(max(x.nbytes, 1))
                else:
                    self.buffers[x] = self.buffers[taken]
                    self._last[taken] = -1  # it is the new one's to free
            for x in {self._root[v] for v in (*step.inputs, *step.results)}:
                if x in self.buffers and self._last.get(x, index) == index:
                    memory.free(*self.buffers[x])
        return memory.size

    def _joined(self, in_no_buffer: set[Variable], alignment: int) -> "dict[Variable, _Consecutive]":
        """Return the variables that are one after the other in memory with others, each with all of them."""
        found: dict[Variable, _Consecutive] = {}
        for index, step in enumerate(self._steps):
            if not step.consecutive or not in_no_buffer.isdisjoint(step.results):
                continue
            group = _Consecutive(alignment)
            for x, made_from in zip(step.results, step.inputs, strict=True):
                group.add(x)
                is_free = made_from not in in_no_buffer and made_from not in found
                if is_free and self._last.get(made_from) == index:
                    group.add(made_from, x)
                    self._last[made_from] = -1  # it is the result's to free
            found |= dict.fromkeys(group.offsets, group)
        return found

    def _can_take(self, taken: Variable, x: Variable, part: Step, index: int) -> bool:
        """Say whether a result of a part may be written over an input, which nothing else needs."""
        if part.kernel and part.kernel.kinds[x] != FULL:
            return False  # its elements are not written where those of the input were read
        # No other view of the input's memory is read here, and no other part of the step reads it.
        read = [v for v in part.inputs if self._root[v] is taken]
        alone = len(read) == self._reads[index][taken] and all(v is taken for v in read)
        last = self._last.get(taken, -1)
        return last == index and _alike(taken, x) and taken in part.in_place and alone

    # -- what was decided ---------------------------------------------------------------------------------

    def shares(self, x: Variable, y: Variable) -> bool:
        """Say whether a result is written over an input."""
        if x in self.inside:
            return self.inside[x][0] is y
        y = self.over.get(y, y)
        return self.over.get(x, x) is y or (x in self.buffers and self.buffers[x] == self.buffers.get(y))

    def written_over(self, step: Step) -> dict[Variable, Variable]:
        """Return the results of a step that are written over an input, each with that input."""
        # The first of them, as where it was decided.
        pairs = ((x, v) for x in step.results for v in reversed(step.in_place))
        return {x: v for x, v in pairs if self.shares(x, v)}

    def are_consecutive(self, arrays: Sequence[Variable]) -> bool:
        """Say whether arrays stand one after the other in memory."""
        places: list[Any] = [self.buffers.get(x) for x in arrays]
        return None not in places and all(sum(place) == after[0] for place, after in pairwise(places))

    def is_in_buffer(self, x: Variable) -> bool:
        """Say whether a variable is a buffer or a view of one, which are at the same place in each call."""
        return self._root[x] in self.buffers

    def left_behind(self) -> dict[int, list[Variable]]:
        """Return for each step, by its number, the arrays made by calls that nothing needs after it."""
        left: dict[int, list[Variable]] = {}
        for x, root in self._root.items():
            last = self._last.get(root, -1)
            if root in self._made_by_calls and 0 <= last < len(self._steps):
                left.setdefault(last, []).append(x)
        return left


class _Consecutive:
    """Arrays one after the other, at multiples of so many bytes from the beginning of the first."""

    def __init__(self, alignment: int) -> None:
        self.offsets: dict[Variable, int] = {}
        self._sizes: dict[Variable, int] = {}
        self._alignment, self._size = alignment, 0

    def add(self, x: Variable, where: Variable | None = None) -> None:
        """Add an array behind the others, or where another one is at another time."""
        if where is not None:
            self.offsets[x], self._sizes[x] = self.offsets[where], self._sizes[where]
            return
        self.offsets[x] = self._size
        self._sizes[x] = -(-max(x.nbytes, 1) // self._alignment) * self._alignment
        self._size += self._sizes[x]

    def placed(self, memory: "_Memory") -> dict[Variable, tuple[int, int]]:
        """Return where in memory each array is, and its number of bytes."""
        start, _ = memory.take(self._size)
        return {x: (start + offset, self._sizes[x]) for x, offset in self.offsets.items()}


class _Memory:
    """Which parts of a stretch of memory are free: the smallest that fits is taken, neighbours are joined."""

    def __init__(self, alignment: int) -> None:
        self.size = 0
        self._alignment = alignment
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> tuple[int, int]:
        size = -(-size // self._alignment) * self._alignment
        fitting = [part for part in self._free if part[1] >= size]
        if fitting:
            offset, length = min(fitting, key=lambda part: part[1])
            self._free.remove((offset, length))
            if length > size:
                self.free(offset + size, length - size)
            return offset, size
        if self._free and sum(self._free[-1]) == self.size:  # the last part grows
            offset, _ = self._free.pop()
        else:
            offset = self.size
        self.size = offset + size
        return offset, size

    def free(self, offset: int, size: int) -> None:
        parts = sorted([*self._free, (offset, size)])
        self._free = []
        for start, length in parts:
            if self._free and sum(self._free[-1]) == start:
                start, before = self._free.pop()
                length += before
            self._free.append((start, length))
