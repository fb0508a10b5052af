"""What a network does, recorded so that it can be said for batches of any size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from xpnet import tree
from xpnet.autodiff.namespace import TracedNamespace, active_recording, namespaces_of
from xpnet.autodiff.tracer import Tracer
from xpnet.backends import concrete, plain_namespace
from xpnet.nn.summary import watched_calls
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.recording import Recorded, RecordingNamespace


class Size(NamedTuple):
    """A number that depends on the number of examples in a batch: ``factor * batch + offset``."""

    factor: int
    offset: int


class Filled(NamedTuple):
    """A constant with equal elements, whose shape depends on the batch."""

    value: Any
    shape: tuple[int | Size, ...]


class Recording:
    """The operations of one call.

    Attributes
    ----------
    graph : Graph
    parameters : dict of Variable to (str, numpy.ndarray)
        The arrays of the network, with their names.
    inputs : list of Variable
    layers : dict of Operation to str
        The name of the layer that does an operation.
    """

    def __init__(self, f: Callable, examples: list[numpy.ndarray]) -> None:
        namespace = RecordingNamespace(plain_namespace(examples[0]))
        leaves, structure = tree.flatten(f, state=True)
        self.parameters: dict[Variable, tuple[str, numpy.ndarray]] = {}
        is_net = isinstance(f, tree.Branch)
        if is_net:
            for index, name in enumerate(tree.paths(f, state=True)):
                if tree.is_array(leaves[index]):
                    variable = namespace.variable(leaves[index])
                    self.parameters[variable] = name, leaves[index]
                    leaves[index] = Recorded(leaves[index], variable, namespace)
            f = tree.unflatten(structure, leaves)
        self.inputs = [namespace.variable(x) for x in examples]
        given = [Recorded(x, v, namespace) for x, v in zip(examples, self.inputs, strict=True)]
        self.layers: dict[Operation, str] = {}
        names = {id(module): name for name, module in tree.named_branches(f)} if is_net else {}
        inside = [""]

        def label() -> None:
            for operation in namespace.operations[len(self.layers) :]:
                self.layers[operation] = inside[-1]

        def enter(module: Any) -> None:
            label()
            inside.append(names[id(module)])

        def leave(_module: Any, _output: Any) -> None:
            label()
            inside.pop()

        token = active_recording.set(namespace)
        try:
            with namespaces_of(TracedNamespace), watched_calls(tree.branches(f), leave, enter):
                result = f(*given)
        finally:
            active_recording.reset(token)
        label()
        outputs = [_output(x) for x in tree.leaves(result, state=True)]
        self.graph = Graph([*self.parameters, *self.inputs], namespace.operations, outputs)


def _output(x: Any) -> Any:
    while isinstance(x, Tracer):
        x = x.value
    return x.variable if type(x) is Recorded and x.variable is not None else concrete(x)


def for_any_batch(small: Recording, large: Recording, sizes: tuple[int, int]) -> dict[Variable, tuple]:
    """Write what depends on the size of the batch into the operations of the first of two recordings.

    Returns
    -------
    dict of Variable to tuple
        The shape of each variable, with a `Size` where it depends on the batch, None where in another way.

    Raises
    ------
    ValueError
        If the recordings differ in more than numbers that are a multiple of the batch, plus something.
    """
    merge = _Merge(small, large, sizes)
    if len(small.graph.operations) != len(large.graph.operations):
        raise merge.refusal("the operations themselves")
    for a, b in zip(small.graph.operations, large.graph.operations, strict=True):
        if a.name != b.name:
            raise merge.refusal(a.name)
        merge.place = f"{a.name} in {small.layers[a]}" if small.layers.get(a) else a.name
        a.arguments = merge(a.arguments, b.arguments)
        a.options = merge(a.options, b.options)
        for x, y in zip(a.results, b.results, strict=True):
            merge.pair(x, y)
    merge.place = "the output"
    small.graph.outputs = merge(small.graph.outputs, large.graph.outputs)
    return merge.shapes


class _Merge:
    def __init__(self, small: Recording, large: Recording, sizes: tuple[int, int]) -> None:
        self._sizes = sizes
        self.place = "an input"
        self.shapes: dict[Variable, tuple] = {}
        self._same: dict[Variable, Variable] = {}
        for x, y in zip(small.graph.inputs, large.graph.inputs, strict=True):
            self.pair(x, y)

    def pair(self, x: Variable, y: Variable) -> None:
        """Note that two variables are the same, and what shape that is."""
        self._same[y] = x
        self.shapes[x] = tuple(self._length(a, b) for a, b in zip(x.shape, y.shape, strict=True))

    def _length(self, a: int, b: int) -> int | Size | None:
        try:
            return self(a, b)
        except ValueError:  # every second example, say: nothing needs to know
            return None

    def refusal(self, what: str) -> ValueError:
        return ValueError(
            f"{what} must not depend on the number of examples, other than as a multiple of it plus a "
            "number. Write it in another way, or export for one size of batch with batch=None."
        )

    def __call__(self, a: Any, b: Any) -> Any:
        if type(a) is not type(b):
            raise self.refusal(self.place)
        if type(a) is Variable:
            if self._same.get(b) is not a:
                raise self.refusal(self.place)
            return a
        if type(a) in (list, tuple):
            if len(a) != len(b):
                raise self.refusal(self.place)
            return type(a)(self(x, y) for x, y in zip(a, b, strict=True))
        if type(a) is dict:
            return {key: self(value, b[key]) for key, value in a.items()}
        if type(a) is slice:
            return slice(self(a.start, b.start), self(a.stop, b.stop), self(a.step, b.step))
        if isinstance(a, numpy.ndarray | numpy.generic):
            return self._constant(numpy.asarray(a), numpy.asarray(b))
        if type(a) is int and a != b:
            factor, rest = divmod(b - a, self._sizes[1] - self._sizes[0])
            if rest:
                raise self.refusal(self.place)
            return Size(factor, a - factor * self._sizes[0])
        if repr(a) != repr(b):
            raise self.refusal(self.place)
        return a

    def _constant(self, a: numpy.ndarray, b: numpy.ndarray) -> Any:
        if a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes():
            return a
        values = {x.tobytes() for array in (a, b) for x in array.reshape(-1)[:, None]}
        if len(values) == 1 and a.ndim == b.ndim:
            return Filled(a.reshape(-1)[0], tuple(self(x, y) for x, y in zip(a.shape, b.shape, strict=True)))
        raise self.refusal(f"a constant of {self.place}")
