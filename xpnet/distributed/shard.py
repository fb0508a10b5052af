"""`Sharded`: an optimizer of which each process has a piece of the state, and moves that of the parameters.

The gradients of all are added up in pieces, each process moves the parameters in its own, and the moved
pieces are joined. So what an optimizer remembers takes the memory of one process, in all of them together. It
sees its piece of each parameter as an array with one axis, so that it must do the same with each element, or
add up by `xpnet.optim.total`: `places_of_state` tries that before the first step.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff import extended_namespace
from xpnet.backends import copied, to_numpy
from xpnet.distributed.operation import JOIN, SUM_IN_PIECES, Operation
from xpnet.distributed.pieces import Pieces
from xpnet.errors import NotRecordableError
from xpnet.optim import LossScaling, Optimizer
from xpnet.optim.optimizer import checked_gradients
from xpnet.optim.transforms import Transform, adding_up
from xpnet.replay.functions import ELEMENTWISE
from xpnet.replay.graph import Graph, Variable
from xpnet.replay.record import RecordingNamespace, output
from xpnet.replay.rewrite import without_dead
from xpnet.settings import described


@dataclass(frozen=True)
class Sharded:
    """An optimizer in pieces, one for each process of a group; `Group.shard` makes it.

    Attributes
    ----------
    optimizer : Optimizer or LossScaling
    group : Group
    takes_mean : bool
        Whether the gradients of all processes are divided by their number, besides being added up.
    """

    optimizer: Any
    group: Any
    takes_mean: bool = True

    @property
    def learning_rate(self) -> Any:
        return self.optimizer.learning_rate

    def init(self, params: Any) -> Any:
        """Make the state to start from.

        Parameters
        ----------
        params : tree
            See `Optimizer.init`.

        Returns
        -------
        dict
            As of the optimizer; but in place of an array like a parameter stands what this process has of it,
            in an array with one axis.

        Raises
        ------
        ValueError
            See `Optimizer.init`; and if the optimizer does not do the same with each element.
        """
        self.places(params)
        return self._chosen(params).init(self._own(params))

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """Return better parameters, and the state for the next update.

        Parameters
        ----------
        grads : tree
            The gradient of this process with respect to each parameter.
        state : dict
            What `init` or the last `update` returned.
        params : tree
            The parameters, which are the same on all. They are not changed.

        Returns
        -------
        params : tree
            The same on all processes.
        state : dict

        Raises
        ------
        ValueError
            See `Optimizer.update`.
        ProcessesDisagreeError
            If another process came to something else.
        """
        gradients, leaves, structure = checked_gradients(grads, params)
        pieces = self._pieces(leaves)
        xp, about = extended_namespace(*gradients, *leaves), ", ".join(tree.paths(params))
        own = xp.collective(
            *gradients, operation=Operation(self.group, SUM_IN_PIECES, about=about, pieces=pieces)
        )
        if self.takes_mean:
            own = [g / self.group.size for g in own]
        with adding_up(self.group.sum):
            moved, state = self._chosen(params).update(
                tree.unflatten(structure, own), state, self._own(params)
            )
        join = Operation(self.group, JOIN, about=about, pieces=pieces)
        return tree.unflatten(structure, xp.collective(*tree.leaves(moved), operation=join)), state

    def checked(self, state: Any) -> Any:
        """Return a state in which learning rates that were assigned as numbers are arrays.

        Raises
        ------
        ValueError
            See `Optimizer.checked`.
        """
        return self.optimizer.checked(state) if isinstance(self.optimizer, Optimizer | LossScaling) else state

    # -- states as they are in one process ------------------------------------------------------------------

    def places(self, params: Any) -> dict[str, int]:
        """Return of which parameter arrays of a state hold elements: the numbers of parameters, by paths.

        Raises
        ------
        ValueError
            If the optimizer does not do the same with each element of a parameter.
        """
        return places_of_state(self._chosen(params), params)

    def pieces_of_state(self, params: Any) -> dict[str, tuple[tuple[int, ...], slice]]:
        """Return the shapes that such arrays have in one process, and which elements this one has."""
        pieces = self._pieces(tree.leaves(params))
        slices = pieces.slices(self.group.rank)
        return {path: (pieces.shapes[n], slices[n]) for path, n in self.places(params).items()}

    def whole(self, state: Any, params: Any) -> Any:
        """Return the state as it is in one process, on the host of rank 0, and None on others.

        All processes of the group call it.
        """
        places, by_path = self.places(params), dict(zip(tree.paths(state), tree.leaves(state), strict=True))
        pieces = self._pieces(tree.leaves(params)).at([*places.values()])
        joined = self.group.processes.joined_on_rank_0(pieces, [to_numpy(by_path[path]) for path in places])
        if self.group.rank:
            return None
        by_path |= zip(places, joined, strict=True)
        return tree.unflatten(tree.flatten(state)[1], [*by_path.values()])

    def cut(self, state: Any, params: Any) -> Any:
        """Return what this process has of a state that is as in one process; of pieces, these."""
        leaves, structure = tree.flatten(state)
        places = self.pieces_of_state(params)
        each = zip(tree.paths(state), leaves, strict=True)
        return tree.unflatten(structure, [_piece(x, *places.get(path, ((), ...))) for path, x in each])

    def _pieces(self, leaves: Sequence[Any]) -> Pieces:
        return Pieces.of([tuple(x.shape) for x in leaves], self.group.size)

    def _own(self, params: Any) -> Any:
        """Return what this process moves, in a tree like the parameters."""
        leaves, structure = tree.flatten(params)
        xp = extended_namespace(*leaves)
        slices = self._pieces(leaves).slices(self.group.rank)
        own = [xp.reshape(x, (-1,))[place] for x, place in zip(leaves, slices, strict=True)]
        return tree.unflatten(structure, own)

    def _chosen(self, params: Any) -> Any:
        chosen = getattr(self.optimizer, "chosen", None)
        return self.optimizer if chosen is None else chosen(params)


def sharded(optimizer: Any, group: Any, *, takes_mean: bool) -> Any:
    """Return an optimizer in pieces; itself in a group of one."""
    is_one = hasattr(optimizer, "init") and hasattr(optimizer, "update")
    if not is_one or isinstance(optimizer, type | Transform):
        raise TypeError(f"shard needs an optimizer, such as Adam(1e-3), received {described(optimizer)}.")
    return Sharded(optimizer, group, takes_mean) if group.size > 1 else optimizer


def _piece(x: Any, shape: tuple[int, ...], place: Any) -> Any:
    """Return some elements of an array of a shape, one after the other; anything else as it is."""
    if place is ... or not tree.is_array(x) or tuple(x.shape) != shape:
        return x
    return copied(extended_namespace(x).reshape(x, (-1,))[place])


def places_of_state(optimizer: Any, params: Any) -> dict[str, int]:
    """Return of which parameter arrays of an optimizer's state hold elements: their numbers, by paths.

    That is found, and that the optimizer does the same with each element, from small arrays in the place of
    the parameters, no two of which have the same shape.

    Raises
    ------
    ValueError
        If it does not, or keeps something else than an array like a parameter or a number.
    """
    leaves, structure = tree.flatten(params)

    def like_parameters(axes: Sequence[int]) -> Any:
        shapes = [(n + 3, *(2,) * (number - 1))[:number] for n, number in enumerate(axes)]
        return tree.unflatten(structure, [*map(numpy.ones, shapes)])

    flat, whole = like_parameters([1] * len(leaves)), like_parameters([len(x.shape) for x in leaves])
    number_of = {(n + 3,): n for n in range(len(leaves))}
    states = [optimizer.init(each) for each in (flat, whole)]
    paths, of_whole = ([*zip(tree.paths(state), tree.leaves(state), strict=True)] for state in states)
    found: dict[str, int] = {}
    for (path, x), (other, like) in itertools.zip_longest(paths, of_whole, fillvalue=("", 0.0)):
        shape = numpy.shape(x)
        number = number_of.get(shape)
        expected = () if number is None else numpy.shape(tree.leaves(whole)[number])
        if path != other or numpy.shape(like) != expected or (number is None and shape != ()):
            raise ValueError(
                "with shard=True, an optimizer must keep arrays like the parameters, and numbers, received "
                f"one that keeps an array with the shape {numpy.shape(like)} for {_kind(whole)}.{_INSTEAD}"
            )
        if number is not None:
            found[path] = number
    _check_elementwise(optimizer, states[1], whole)
    return found


_INSTEAD = " Train it with shard=False."


def _kind(params: Any) -> str:
    return f"parameters of the shapes {[numpy.shape(x) for x in tree.leaves(params)]}"


def _check_elementwise(optimizer: Any, state: Any, params: Any) -> None:
    """Check that an optimizer does the same with each element of a parameter, but for what it adds up."""
    recording = RecordingNamespace(numpy)
    given = [tree.map(recording.argument, each) for each in (params, state, params)]

    def added_up(sums: Any) -> Any:
        """Return what stands for sums as numbers that are known: what leads to them is not looked at."""
        if shapes := [x.shape for x in tree.leaves(sums) if x.shape != ()]:
            raise ValueError(
                "optim.total needs sums, of all elements of a parameter each, of the shape (), received "
                f"{shapes[0]}."
            )
        return tree.map(lambda x: recording.lift(numpy.ones_like(x.value)), sums)

    with adding_up(added_up):
        try:
            found = recording.record(optimizer.update, *given)
        except NotRecordableError as error:
            error.add_note(f"With shard=True, an optimizer is recorded to see what it does.{_INSTEAD}")
            raise
    ends = [output(x) for x in tree.leaves(found)]
    graph = without_dead(Graph(recording.inputs, recording.operations, ends))
    for operation in graph.operations:
        if any(x.shape != () for x in operation.inputs) and operation.name not in ELEMENTWISE:
            raise ValueError(
                "with shard=True, an optimizer must do the same with each element of the parameters, of "
                f"which each process has a part, received one that calls {operation.called}. Let "
                f"xpnet.optim.total add up sums over the elements, as clip_by_global_norm does.{_INSTEAD}"
            )
    shapes = [numpy.shape(x) for x in tree.leaves((params, state))]
    if [x.shape if type(x) is Variable else numpy.shape(x) for x in ends] != shapes:
        raise ValueError(
            f"an optimizer must return {_kind(params)} and a state like the one it was given, received "
            f"others.{_INSTEAD}"
        )
