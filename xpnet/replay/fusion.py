"""Which elementwise operations go into one kernel."""

from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.kernels import Kernel, is_elementwise

# A loop over many more arrays is no faster: the processor follows a limited number of streams, and the
# compiler checks each pair for overlap.
MOST_ARRAYS = 12
# A loop of many more operations takes long to compile.
MOST_OPERATIONS = 64


class Group:
    """Operations that are done at one place in the order.

    Attributes
    ----------
    place : int
        Where in the order.
    operations : list of Operation
    kernel : Kernel or None
        If they are elementwise.
    """

    def __init__(self, place: int, operation: Operation, kernel: Kernel | None) -> None:
        self.place = place
        self.operations = [operation]
        self.kernel = kernel
        self._into: Group | None = None

    @property
    def current(self) -> "Group":
        """The group that this one has become a part of."""
        return self if self._into is None else self._into.current

    def take(self, other: "Group", kernel: Kernel) -> None:
        """Do the operations of another group here, too."""
        self.operations = sorted([*self.operations, *other.operations], key=lambda o: o.result.number)
        self.kernel = kernel
        other._into = self


def fuse(graph: Graph, contiguous: set[Variable]) -> list[Group]:
    """Put elementwise operations together.

    A group can move down to a later one if nothing in between reads its results, and up to an earlier one if
    all that it reads is there by then.

    Parameters
    ----------
    graph : Graph
    contiguous : set of Variable
        The variables whose elements stand one after the other in memory; a kernel reads no others.

    Returns
    -------
    list of Group
        All operations, in order.
    """
    maker: dict[Variable, Group] = {}
    readers: dict[Variable, list[Group]] = {}
    groups: list[Group] = []

    def can_move_down(group: Group, to: Group) -> bool:
        results = (x for operation in group.operations for x in operation.results)
        reading = {reader.current for x in results for reader in readers.get(x, ())}
        return all(reader is group or reader.place >= to.place for reader in reading)

    def can_move_up(group: Group, to: Group) -> bool:
        made = {maker[x].current for o in group.operations for x in o.inputs if x in maker}
        return all(each is group or each.place <= to.place for each in made)

    for place, operation in enumerate(graph.operations):
        kernel = None
        if is_elementwise(operation) and contiguous.issuperset((*operation.inputs, operation.result)):
            kernel = Kernel.of([operation])
        group = Group(place, operation, kernel)
        groups.append(group)
        maker.update(dict.fromkeys(operation.results, group))
        for x in operation.inputs:
            readers.setdefault(x, []).append(group)
        if kernel is None:
            continue
        producers = {maker[x].current for x in operation.inputs if x in maker}
        for other in sorted(producers, key=lambda g: -g.place):
            here = group.current
            if other.kernel is None or other is here:
                continue
            if len(other.operations) + len(here.operations) > MOST_OPERATIONS:
                continue
            together = Kernel.of([*other.operations, *here.operations])
            if together is None or len(together.arrays) > MOST_ARRAYS:
                continue
            if can_move_down(other, here):
                here.take(other, together)
            elif can_move_up(here, other):
                other.take(here, together)
    return sorted({group.current for group in groups}, key=lambda g: g.place)
