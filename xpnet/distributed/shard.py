"""`Sharded`: an optimizer of which each process has a piece of the state, and moves that of the parameters.

The gradients of all are added up in pieces, each process moves the parameters in its own, and the moved
pieces are joined. So what an optimizer remembers takes the memory of one process, in all of them together. It
sees its piece of each parameter as an array with one axis, so that it must do the same with each element, or
add up by `xpnet.optim.total`: `places_of_state` tries that before the first step.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff import extended_namespace
from xpnet.backends import at_least_single, copied, in_dtype, to_numpy
from xpnet.distributed.operation import JOIN, SUM_IN_PIECES
from xpnet.distributed.operation import Operation as Exchange
from xpnet.distributed.pieces import Pieces
from xpnet.optim import LossScaling, Optimizer
from xpnet.optim.optimizer import checked_gradients
from xpnet.optim.transforms import OverPieces, Transform, over_pieces
from xpnet.replay.functions import ELEMENTWISE
from xpnet.replay.graph import Graph, Operation, Variable, substitute
from xpnet.replay.record import Recorded, RecordingNamespace, output
from xpnet.replay.rewrite import without_dead
from xpnet.settings import described


@dataclass(frozen=True)
class Sharded:
    """An optimizer in pieces, one for each process of a group; `Group.shard` makes it.

    In a group of one it does what the optimizer does.

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

    def __post_init__(self) -> None:
        is_one = hasattr(self.optimizer, "init") and hasattr(self.optimizer, "update")
        if not is_one or isinstance(self.optimizer, type | Transform | Sharded):
            raise TypeError(
                f"shard needs an optimizer, such as Adam(1e-3), received {described(self.optimizer)}."
            )

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
        if self.group.size == 1:
            return self.optimizer.init(params)
        self._places(params)
        with over_pieces(self._all_pieces):
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
        if self.group.size == 1:
            moved: tuple[Any, Any] = self.optimizer.update(grads, state, params)
            return moved
        gradients, leaves, structure = checked_gradients(grads, params)
        xp, paths = extended_namespace(*gradients, *leaves), ", ".join(tree.paths(params))
        add_up, join = (
            Exchange(self.group, kind, about=paths, pieces=self._pieces(leaves))
            for kind in (SUM_IN_PIECES, JOIN)
        )
        # As of `Group.mean`: a mean of numbers of two bytes may have a sum that is none of them.
        given = [at_least_single(xp, g) for g in gradients] if self.takes_mean else gradients
        own = xp.collective(*given, operation=add_up)
        if self.takes_mean:
            own = [in_dtype(xp, x / self.group.size, g.dtype) for x, g in zip(own, gradients, strict=True)]
        with over_pieces(self._all_pieces):
            pieces = tree.unflatten(structure, own), state, self._own(params)
            moved_pieces, state = self._chosen(params).update(*pieces)
        moved_leaves = tree.leaves(moved_pieces)
        joined = extended_namespace(*moved_leaves).collective(*moved_leaves, operation=join)
        return tree.unflatten(structure, joined), state

    def checked(self, state: Any) -> Any:
        """Return a state in which learning rates that were assigned as numbers are arrays.

        Raises
        ------
        ValueError
            See `Optimizer.checked`.
        """
        return self.optimizer.checked(state) if isinstance(self.optimizer, Optimizer | LossScaling) else state

    # -- states as they are in one process ------------------------------------------------------------------

    def whole(self, state: Any, params: Any) -> Any:
        """Put a state together on rank 0; all processes of the group call it.

        Parameters
        ----------
        state : dict
            What `init` or the last `update` returned.
        params : tree

        Returns
        -------
        dict or None
            The state as it is in one process, with arrays of NumPy's in place of pieces; None on other ranks.

        Raises
        ------
        ProcessesDisagreeError
            If another process came to something else.
        """
        if self.group.size == 1:
            return state
        places, by_path = self._places(params), _by_path(state)
        pieces = self._pieces(tree.leaves(params)).at([*places.values()])
        joined = self.group.processes.joined_on_rank_0(pieces, [to_numpy(by_path[path]) for path in places])
        if self.group.rank:
            return None
        by_path |= zip(places, joined, strict=True)
        return tree.unflatten(tree.flatten(state)[1], [*by_path.values()])

    def cut(self, state: Any, params: Any) -> Any:
        """Return what this process has of a state.

        Parameters
        ----------
        state : dict
            As it is in one process, such as `whole` returns it; or in pieces, which stay as they are.
        params : tree

        Returns
        -------
        dict
            As `init` returns it.
        """
        places = self.pieces_of_state(params)
        cut = [_piece(x, *places.get(path, ((), ...))) for path, x in _by_path(state).items()]
        return tree.unflatten(tree.flatten(state)[1], cut)

    def is_whole(self, state: Any, params: Any) -> bool:
        """Say whether a state is as in one process, and not in pieces."""
        by_path = _by_path(state)
        return all(
            tuple(getattr(by_path.get(path), "shape", (-1,))) == shape
            for path, (shape, _) in self.pieces_of_state(params).items()
        )

    def pieces_of_state(self, params: Any) -> dict[str, tuple[tuple[int, ...], slice]]:
        """Return, by their paths, which arrays of a state are in pieces: their shapes, and what is here."""
        if self.group.size == 1:
            return {}
        pieces = self._pieces(tree.leaves(params))
        slices = pieces.slices(self.group.rank)
        return {path: (pieces.shapes[n], slices[n]) for path, n in self._places(params).items()}

    def _places(self, params: Any) -> dict[str, int]:
        """Return of which parameters arrays of the state hold elements, by `places_of_state`."""
        leaves, structure = tree.flatten(params)
        what = self._chosen(params), structure, tuple(len(x.shape) for x in leaves)
        try:
            return places_of_state(*what)
        except TypeError as error:  # of what cannot be kept
            if "unhashable" not in str(error):
                raise
            return places_of_state.__wrapped__(*what)

    def _pieces(self, leaves: Sequence[Any]) -> Pieces:
        return Pieces.of([tuple(x.shape) for x in leaves], self.group.size)

    def _own(self, params: Any) -> Any:
        """Return what this process moves, in a tree like the parameters."""
        leaves, structure = tree.flatten(params)
        xp = extended_namespace(*leaves)
        slices = self._pieces(leaves).slices(self.group.rank)
        own = [xp.reshape(x, (-1,))[place] for x, place in zip(leaves, slices, strict=True)]
        return tree.unflatten(structure, own)

    @property
    def _all_pieces(self) -> OverPieces:
        return OverPieces(self.group.sum, self._is_everywhere)

    def _is_everywhere(self, truth: Any) -> Any:
        xp = extended_namespace(truth)
        return self.group.sum(xp.astype(xp.logical_not(truth), xp.float32)) == 0

    def _chosen(self, params: Any) -> Any:
        known = isinstance(self.optimizer, Optimizer | LossScaling)
        return self.optimizer.chosen(params) if known else self.optimizer


def _by_path(state: Any) -> dict[str, Any]:
    return dict(zip(tree.paths(state), tree.leaves(state), strict=True))


def _piece(x: Any, shape: tuple[int, ...], place: Any) -> Any:
    """Return some elements of an array of a shape, one after the other; anything else as it is."""
    if place is ... or not tree.is_array(x) or tuple(x.shape) != shape:
        return x
    return copied(extended_namespace(x).reshape(x, (-1,))[place])


@lru_cache(4)
def places_of_state(optimizer: Any, structure: Any, axes: tuple[int, ...]) -> dict[str, int]:
    """Return of which parameter arrays of an optimizer's state hold elements: their numbers, by paths.

    That is found, and that the optimizer does the same with each element, from two recordings of what it
    does, with small arrays in the place of the parameters: of as many axes, and with one axis, as pieces
    have. No two of them have the same shape, and none has the same size in both.

    Parameters
    ----------
    optimizer : optimizer
        Whose groups of parameters are chosen by their paths.
    structure : object
        Of the parameters, see `tree.flatten`.
    axes : tuple of int
        How many each parameter has.

    Raises
    ------
    ValueError
        If it does not, or keeps something else than an array like a parameter or a number.
    """
    shapes = [(n + 3, *(2,) * (number - 1))[:number] for n, number in enumerate(axes)]
    flat = [(n + len(axes) + 3,) for n in range(len(axes))]
    numbers = {shape: n for n, shape in enumerate(flat)}
    of_whole, of_pieces = (tree.unflatten(structure, [*map(numpy.ones, each)]) for each in (shapes, flat))
    try:
        states = optimizer.init(of_whole), optimizer.init(of_pieces)
        found: dict[str, int] = {}
        for (path, x), (other, piece) in itertools.zip_longest(
            *(_by_path(state).items() for state in states), fillvalue=("", 0.0)
        ):
            number = numbers.get(numpy.shape(piece))
            expected = () if number is None else shapes[number]
            if path != other or numpy.shape(x) != expected or (number is None and numpy.shape(piece) != ()):
                raise ValueError(
                    "with shard=True, an optimizer must keep arrays like the parameters, and numbers, "
                    f"received one that keeps an array with the shape {numpy.shape(x)} at {path or other}."
                )
            if number is not None:
                found[path] = number
        each = zip(states, (of_whole, of_pieces), strict=True)
        texts = {_text_of(optimizer.update, params, state, params) for state, params in each}
        begins = {_text_of(optimizer.init, params) for params in (of_whole, of_pieces)}
        if len(texts) > 1 or len(begins) > 1:
            raise ValueError(
                "with shard=True, an optimizer must do the same with parameters of any shape, received one "
                "that does something else with others."
            )
    except Exception as error:
        error.add_note(
            "With shard=True, an optimizer is tried with small arrays of NumPy's in place of the parameters, "
            f"of the shapes {shapes}. Train it with shard=False."
        )
        raise
    return found


def _text_of(function: Any, *given: Any) -> str:
    """Return a text of what a function does with each element of some trees, but for what it adds up.

    Raises
    ------
    ValueError
        If it does something else than that.
    """
    recording = RecordingNamespace(numpy)

    def total(sums: Any) -> Any:
        makers = {x: operation for operation in recording.operations for x in operation.results}
        for x in tree.leaves(sums):
            _check_sum(x.variable if type(x) is Recorded and x.variable else x, makers)
        return tree.map(known, sums)

    def known(x: Any) -> Any:
        """Return what stands for a number that is the same on all: what leads to it is not looked at."""
        return recording.lift(numpy.ones_like(x.value))

    with over_pieces(OverPieces(total, known)):
        found = recording.record(function, *(tree.map(recording.argument, each) for each in given))
    ends = [output(x) if tree.is_array(x) else x for x in tree.leaves(found)]
    graph = without_dead(Graph(recording.inputs, recording.operations, ends))
    numbers = {x: n for n, x in enumerate(graph.variables)}

    def text(x: Any) -> str:
        if type(x) is Variable:
            return f"%{numbers[x]}"
        values = numpy.ravel(x)
        if not (values == values[:1]).all():  # zeros like a parameter are fine
            raise ValueError(
                "with shard=True, an optimizer must do the same with each element of the parameters, "
                f"received one with numbers of its own for each, {values}."
            )
        return str(values[0])

    for operation in graph.operations:
        if any(x.shape != () for x in operation.inputs) and operation.name not in ELEMENTWISE:
            raise ValueError(
                "with shard=True, an optimizer must do the same with each element of the parameters, of "
                f"which each process has a part, received one that calls {operation.called}. Let "
                "xpnet.optim.total add up sums over the elements, as clip_by_global_norm does."
            )
    lines = [
        f"{operation.name} {substitute((operation.arguments, operation.options), text, _is_array)}"
        for operation in graph.operations
    ]
    return "\n".join([*lines, *map(text, ends)])


def _is_array(x: Any) -> bool:
    return type(x) is Variable or isinstance(x, numpy.ndarray | numpy.generic)


# What makes other sums of sums, with numbers.
_LINEAR = {"add", "subtract", "negative", "multiply", "divide", "astype", "reshape", "squeeze"}


def _check_sum(x: Any, makers: Mapping[Variable, Operation]) -> None:
    """Check that `total` is given a sum over all elements of an array, or a sum of such.

    Raises
    ------
    ValueError
        If it is something else.
    """
    made = makers.get(x) if type(x) is Variable and x.shape == () else None
    if made is not None and made.short_name in ("sum", "vecdot") and made.inputs[0].shape != ():
        return
    others = made.inputs if made is not None else ()
    if made is None:
        received = f"an array of the shape {numpy.shape(x)}" if numpy.shape(x) else "a number that is known"
    elif made.short_name == "multiply" and len(others) > 1:
        received = "a product of sums"
    elif made.short_name == "divide" and others != made.arguments[:1]:
        received = "a quotient of sums"
    elif made.short_name in ("add", "subtract") and len(others) < len(made.arguments):
        received = "one with a number added to it, which would count once for each process"
    else:
        received = "" if made.short_name in _LINEAR else f"what {made.short_name} returns"
    if received:
        raise ValueError(
            "optim.total needs a sum over all elements of an array, by sum or vecdot, of the shape (), or a "
            f"sum of such, received {received}. Do the rest with what it returns."
        )
    for y in others:
        _check_sum(y, makers)
