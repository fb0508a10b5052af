"""Which elementwise operations go into one kernel."""

from collections.abc import Mapping

from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.kernels.kernel import Kernel, Target, View, part_of


class Group:
    """Operations that are done at one place in the order.

    Attributes
    ----------
    place : int
        Where in the order.
    operations : list of Operation
    kernel : Kernel or None
        If they fit in one loop.
    """

    def __init__(self, place: int, operation: Operation, kernel: Kernel | None) -> None:
        self.place = place
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
    maker: dict[Variable, Group] = {}
    readers: dict[Variable, list[Group]] = {}
    groups: list[Group] = []

    def first(x: Variable) -> Variable:
        return origin.get(x, x)

    def can_move_down(group: Group, to: Group) -> bool:
        results = (x for operation in group.operations for x in operation.results)
        reading = {reader.current for x in results for reader in readers.get(x, ())}
        return all(reader is group or reader.place >= to.place for reader in reading)

    def can_move_up(group: Group, to: Group) -> bool:
        made = {maker[x].current for o in group.operations for x in map(first, o.inputs) if x in maker}
        return all(each is group or each.place <= to.place for each in made)

    reshaped = []  # views in another shape, which kernels see through
    for place, operation in enumerate(graph.operations):
        if not operation.several and operation.result in origin:
            reshaped.append(operation)
            continue
        kernel = None
        readable = all(x in contiguous or x in strided for x in operation.inputs)
        if readable and contiguous.issuperset(operation.results):
            part = part_of(operation, first, strided, target)
            kernel = Kernel.of([part]) if part else None
            kernel = kernel if kernel and target.accepts(kernel) else None
        group = Group(place, operation, kernel)
        groups.append(group)
        maker.update(dict.fromkeys(operation.results, group))
        read = list(dict.fromkeys(map(first, operation.inputs)))
        for x in read:
            readers.setdefault(x, []).append(group)
        if kernel is None:
            continue
        # Join with the groups that make what it reads, the nearest first.
        producers = {maker[x].current for x in read if x in maker}
        for other in sorted(producers, key=lambda g: -g.place):
            here = group.current
            if other.kernel is None or here.kernel is None or other is here:
                continue
            if len(other.operations) + len(here.operations) > target.most_operations:
                continue
            together = Kernel.of([*other.kernel.parts, *here.kernel.parts])
            if together is None or len(together.arrays) > target.most_arrays:
                continue
            if not target.accepts(together):
                continue
            if can_move_down(other, here):
                here.take(other, together)
            elif can_move_up(here, other):
                other.take(here, together)
    # Of the views in another shape, those stay that something other than a kernel reads.
    remaining = {group.current for group in groups}
    alone = [group.operations[0] for group in remaining if len(group.operations) == 1]
    named = {x for operation in alone for x in operation.inputs}
    named.update(graph.returned)
    for operation in reversed(reshaped):
        if operation.result in named:
            named.update(operation.inputs)
            x = first(operation.result)
            remaining.add(Group(maker[x].current.place if x in maker else -1, operation, None))
    # A view in another shape comes behind what makes it, and those of a view behind the view.
    return sorted(remaining, key=lambda g: (g.place, g.kernel is None, g.operations[0].result.number))
