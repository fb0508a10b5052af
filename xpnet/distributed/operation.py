"""What a group computes together, as one operation on several arrays, with a gradient rule.

Every operation is linear, so its gradient is its transpose. A gradient is that of the sum over all processes
of what each of them differentiates: a change of an array on one process changes the results on all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy

from xpnet.arrays import calling_line
from xpnet.autodiff import context
from xpnet.autodiff.primitive import function
from xpnet.backends import asarray, device_of, in_dtype, to_numpy
from xpnet.distributed.pieces import Pieces
from xpnet.errors import NotRecordableError

if TYPE_CHECKING:
    from xpnet.distributed.group import Group

# What a group computes of the arrays x of its processes, by name.
SUM, MEAN, BROADCAST, GATHER = "sum", "mean", "broadcast", "gather"
# Of the sum, a piece for each process; and whole arrays of the pieces that each has: see `Pieces`.
SUM_IN_PIECES, JOIN = "sum in pieces", "join"


@dataclass(frozen=True)
class Operation:
    """What all processes of a group do at once with some arrays of each.

    Attributes
    ----------
    group : Group
    kind : {"sum", "mean", "broadcast", "gather", "sum in pieces", "join"}
        A mean is added up alone: who asks for it divides, among other things that are done with the elements.
    root : int
        The process whose arrays all receive, of a broadcast.
    about : str
        What else must be the same on all: the paths of the arrays in their tree, or of which operation it is
        the gradient.
    line : str
        Where the operation was called, if there may be a gradient.
    pieces : Pieces or None
        How the arrays are cut.
    """

    group: "Group"
    kind: str
    root: int = 0
    about: str = ""
    line: str = ""
    pieces: Pieces | None = None

    def __call__(self, xp: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the results for plain arrays.

        A process that records calls the function once more than others. So nothing is exchanged then, and
        each array stands for those of all.
        """
        recording = context.current().recording
        if recording is not None and recording.is_step:
            raise NotRecordableError(
                f"the step of scan must not come to an operation of a group, received {self.kind}, at "
                f"{calling_line()}. Call it with what scan returns, or write a loop of Python's."
            )
        if self.group.size == 1 or recording is not None:
            return self._alone(xp, arrays)
        if array_api_compat.is_jax_array(arrays[0]) and any(map(_is_traced_by_jax, arrays)):
            return self._in_jax(arrays)
        self.group.processes.settle()
        if all(map(array_api_compat.is_cupy_array, arrays)):
            gpus = self.group.processes.between_gpus(self.kind, arrays)
            if gpus is not None:
                found: list[Any] = self.group.processes.on_gpus(gpus, self, arrays)
                return found
        if all(type(x) is numpy.ndarray for x in arrays):
            return self._on_host(*arrays)
        on_host = self._on_host(*map(to_numpy, arrays))
        each = zip(arrays, on_host, strict=True)
        return [in_dtype(xp, asarray(y, device=device_of(x)), x.dtype) for x, y in each]

    def _alone(self, xp: Any, arrays: Sequence[Any]) -> list[Any]:
        """Return the results for plain arrays that stand for those of all; zeros for pieces of others."""
        if self.kind == GATHER:
            return [xp.stack([x] * self.group.size) for x in arrays]
        if self.pieces is None:
            return [xp.asarray(x, copy=True) for x in arrays]
        own = self.pieces.slices(self.group.rank)
        if self.kind == SUM_IN_PIECES:
            return [
                xp.asarray(xp.reshape(x, (-1,))[part], copy=True) for x, part in zip(arrays, own, strict=True)
            ]
        joined = []
        for x, part, shape in zip(arrays, own, self.pieces.shapes, strict=True):
            around = (part.start, math.prod(shape) - part.stop)
            before, after = (xp.zeros((n,), dtype=x.dtype, device=array_api_compat.device(x)) for n in around)
            joined.append(xp.reshape(xp.concat([before, x, after]), shape))
        return joined

    def _shapes(self, arrays: Sequence[Any]) -> list[tuple[int, ...]]:
        """Return the shapes of the results."""
        if self.pieces is None:
            of_each = (self.group.size,) if self.kind == GATHER else ()
            return [(*of_each, *x.shape) for x in arrays]
        if self.kind == JOIN:
            return list(self.pieces.shapes)
        return [(part.stop - part.start,) for part in self.pieces.slices(self.group.rank)]

    def _on_host(self, *arrays: numpy.ndarray) -> list[numpy.ndarray]:
        found: list[numpy.ndarray]
        exchange = self.into_results([x.dtype for x in arrays])
        if exchange is None:
            found = self.group.processes.compute(self.kind, self.root, self.about, arrays)
            return found
        shapes = zip(self._shapes(arrays), arrays, strict=True)
        found = [numpy.empty(shape, x.dtype) for shape, x in shapes]
        exchange(found, arrays)
        return found

    def _in_jax(self, arrays: Sequence[Any]) -> list[Any]:
        """Return what stands for the results where JAX compiles: it calls this class when it runs."""
        import jax
        from jax.experimental import io_callback

        self.group.processes.settle = jax.effects_barrier
        shapes = zip(self._shapes(arrays), arrays, strict=True)
        results = [jax.ShapeDtypeStruct(shape, x.dtype) for shape, x in shapes]

        def on_host(*arrays: Any) -> Any:
            return self._on_host(*map(numpy.asarray, arrays))

        return list(io_callback(on_host, results, *arrays, ordered=True))

    def in_place(self, kinds: Sequence[tuple[Any, tuple[int, ...]]]) -> Any:
        """Return what adds up arrays of some dtypes and shapes where they are; None if nothing does."""
        if self.group.size == 1 or self.kind not in (SUM, MEAN):
            return None
        return self.group.processes.adding(self.kind, self.about, tuple(kinds))

    def into_results(self, dtypes: Sequence[Any]) -> Any:
        """Return what lets arrays of some dtypes be exchanged, of pieces, into arrays for the results."""
        if self.group.size == 1 or self.pieces is None:
            return None
        return self.group.processes.of_pieces(self.kind, self.about, self.pieces, dtypes)

    def starts(self) -> list[int]:
        """Return at which elements of the results the arrays begin, if they are joined."""
        slices = self.pieces.slices(self.group.rank) if self.pieces and self.kind == JOIN else ()
        return [part.start for part in slices]

    def transposed(self, xp: Any, gradients: Sequence[Any]) -> list[Any]:
        """Return the gradients of the arrays of this process, from those of the results on all."""
        kind = {MEAN: MEAN, JOIN: SUM_IN_PIECES, SUM_IN_PIECES: JOIN}.get(self.kind, SUM)
        about = f"the gradient of {self.kind} at {self.line}"
        back = Operation(self.group, kind, about=about, line=self.line, pieces=self.pieces)
        found: list[Any] = xp.collective(*gradients, operation=back)
        if self.kind == GATHER:
            return [g[self.group.rank, ...] for g in found]
        if self.kind == BROADCAST:
            # Chosen in the same way on all, so that gradients of gradients come to the same operations.
            is_root = xp.full((), self.group.rank == self.root, dtype=xp.bool, device=found[0].device)
            return [xp.where(is_root, g, xp.zeros_like(g)) for g in found]
        return found


def _is_traced_by_jax(x: Any) -> bool:
    import jax

    return isinstance(x, jax.core.Tracer)


def _transposed(xp: Any, gs: Any, _ys: Any, *_inputs: Any, operation: Operation) -> list[Any]:
    return operation.transposed(xp, gs)


@function(
    joint=_transposed,
    several=True,
    compute=lambda xp, *arrays, operation: xp.collective(*arrays, operation=operation),
)
def collective(call: Any, *arrays: Any, operation: Operation) -> Any:
    return call(*arrays, operation=operation)
