"""Which elementwise operations go into one kernel."""

from collections.abc import Mapping

from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.kernels.kernel import Kernel, Target, View, part_of


class Group:
    """Operations that are done at one place in the order.

    Attributes
    ----------
    position : int
        Where in the order.
    operations : list of Operation
    kernel : Kernel or None
        If they fit in one loop.
    """

    def __init__(self, position: int, operation: Operation, kernel: Kernel | None) -> None:
        self.position = position
        self.operations = [operation]
        self.kernel = kernel
        self._into: Group | None = None

    @property
    def current(self) -> "Group":
        """The group that this one has become a part of."""
        group = self
        while group._into is not None:
            group = group._into
        return group

    def take(self, other: "Group", kernel: Kernel) -> None:
        """Do the operations of another group here, too."""
        self.operations = [part.operation for part in kernel.parts]
        self.kernel = kernel
        other._into = self


def fuse(
    graph: Graph,
    contiguous: set[Variable],
    origin: dict[Variable, Variable],
    strided: Mapping[Variable, View],
    target: Target,
) -> list[Group]:
    """Put elementwise operations together.

    A group can move down to a later one if nothing in between reads its results, and up to an earlier one if
    all that it reads is there by then.

    Parameters
    ----------
    graph : Graph
    contiguous : set of Variable
        The variables whose elements stand one after the other in memory.
    origin : dict of Variable to Variable
        For a view in another shape, with the same elements in the same order, the array that it is a view of.
    strided : dict of Variable to View
        The views whose elements do not stand one after the other, and which a kernel can read, too.
    target : Target
        What a kernel may be.

    Returns
    -------
    list of Group
        All operations, in order. Views in another shape that only kernels would read are left out.
    """
    return _Fusion(graph, contiguous, origin, strided, target).groups()


class _Fusion:
    def __init__(
        self,
        graph: Graph,
        contiguous: set[Variable],
        origin: dict[Variable, Variable],
        strided: Mapping[Variable, View],
        target: Target,
    ) -> None:
        self._graph, self._target = graph, target
        self._contiguous, self._origin, self._strided = contiguous, origin, strided
        self._maker: dict[Variable, Group] = {}
        self._readers: dict[Variable, list[Group]] = {}
        self._groups: list[Group] = []
        self._reshaped: list[Operation] = []  # views in another shape, which kernels see through
        for position, operation in enumerate(graph.operations):
            if not operation.several and operation.result in origin:
                self._reshaped.append(operation)
            else:
                self._add(Group(position, operation, self._kernel_of(operation)))

    def _first(self, x: Variable) -> Variable:
        return self._origin.get(x, x)

    def _read(self, operation: Operation) -> list[Variable]:
        return list(dict.fromkeys(map(self._first, operation.inputs)))

    def _kernel_of(self, operation: Operation) -> Kernel | None:
        """Return the kernel of one operation, if it can be in one."""
        readable = all(x in self._contiguous or x in self._strided for x in operation.inputs)
        if not readable or not self._contiguous.issuperset(operation.results):
            return None
        part = part_of(operation, self._first, self._strided, self._target)
        kernel = Kernel.of([part]) if part else None
        return kernel if kernel and self._target.accepts(kernel) else None

    def _add(self, group: Group) -> None:
        """Add a group of one operation, and join it with those that make what it reads, the nearest first."""
        (operation,) = group.operations
        self._groups.append(group)
        self._maker.update(dict.fromkeys(operation.results, group))
        read = self._read(operation)
        for x in read:
            self._readers.setdefault(x, []).append(group)
        producers = {self._maker[x].current for x in read if x in self._maker}
        for other in sorted(producers, key=lambda g: -g.position):
            self._join(other, group.current)

    def _join(self, earlier: Group, later: Group) -> None:
        """Make one group of two, if that can be one kernel and be done at the place of one of them."""
        together = None if earlier is later else self._together(earlier, later)
        if together is None:
            return
        if self._can_move_down(earlier, later):
            later.take(earlier, together)
        elif self._can_move_up(later, earlier):
            earlier.take(later, together)

    def _together(self, a: Group, b: Group) -> Kernel | None:
        target = self._target
        if a.kernel is None or b.kernel is None:
            return None
        if len(a.operations) + len(b.operations) > target.most_operations:
            return None
        kernel = Kernel.of([*a.kernel.parts, *b.kernel.parts])
        if kernel is None or len(kernel.arrays) > target.most_arrays or not target.accepts(kernel):
            return None
        return kernel

    def _can_move_down(self, group: Group, to: Group) -> bool:
        results = (x for operation in group.operations for x in operation.results)
        reading = {reader.current for x in results for reader in self._readers.get(x, ())}
        return all(reader is group or reader.position >= to.position for reader in reading)

    def _can_move_up(self, group: Group, to: Group) -> bool:
        read = (x for operation in group.operations for x in self._read(operation))
        making = {self._maker[x].current for x in read if x in self._maker}
        return all(maker is group or maker.position <= to.position for maker in making)

    def groups(self) -> list[Group]:
        """Return the groups in order, with the views in another shape that not only kernels read."""
        remaining = {group.current for group in self._groups}
        called = [group.operations[0] for group in remaining if group.kernel is None]
        named = {x for operation in called for x in operation.inputs}
        named.update(self._graph.returned)
        for operation in reversed(self._reshaped):
            if operation.result in named:
                named.update(operation.inputs)
                x = self._first(operation.result)
                position = self._maker[x].current.position if x in self._maker else -1
                remaining.add(Group(position, operation, None))
        # A view in another shape comes behind what makes it, and those of a view behind the view.
        return sorted(remaining, key=lambda g: (g.position, g.kernel is None, g.operations[0].result.number))
