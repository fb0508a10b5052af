"""What a network does, recorded so that it can be said for batches of any size."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy

from xpnet import tree
from xpnet.backends import plain_namespace
from xpnet.nn.summary import watched_calls
from xpnet.replay.decompositions import DECOMPOSITIONS, IN_DTYPE_OF_RESULT
from xpnet.replay.graph import Graph, Variable
from xpnet.replay.record import RecordingNamespace, output
from xpnet.replay.rewrite import converted, expand, simplified


class Size(NamedTuple):
    """A number that depends on the number of examples in a batch: ``factor * batch + offset``."""

    factor: int
    offset: int


class Filled(NamedTuple):
    """A constant with equal elements, whose shape depends on the batch."""

    value: Any
    shape: tuple[int | Size, ...]

    @property
    def dtype(self) -> Any:
        return self.value.dtype


class Counted(NamedTuple):
    """A constant that counts the examples, 0, 1, 2 and so on, along its one axis that is longer than 1."""

    dtype: Any
    shape: tuple[int | Size, ...]


class RecordedNetwork:
    """The operations of one call.

    Attributes
    ----------
    graph : Graph
    parameters : dict of Variable to (str, numpy.ndarray)
        The arrays of the network, with their names.
    trained : set of Variable
        Those that are parameters, frozen or not.
    inputs : list of Variable
    """

    def __init__(self, f: Callable, examples: list[numpy.ndarray]) -> None:
        xp = plain_namespace(examples[0])
        namespace = _Namespace(xp)
        leaves, structure = tree.flatten(f, state=True)
        self.parameters: dict[Variable, tuple[str, numpy.ndarray]] = {}
        self.trained: set[Variable] = set()
        is_net = isinstance(f, tree.Branch)
        if is_net:
            trained = set(tree.paths(f, frozen=True))
            for index, name in enumerate(tree.paths(f, state=True)):
                if tree.is_array(leaves[index]):
                    recorded = namespace.argument(leaves[index])
                    self.parameters[output(recorded)] = name, leaves[index]
                    self.trained.update([output(recorded)] if name in trained else [])
                    leaves[index] = recorded
            f = tree.unflatten(structure, leaves)
        given = [namespace.argument(x) for x in examples]
        self.inputs = [output(x) for x in given]
        names = {id(module): name for name, module in tree.named_branches(f)} if is_net else {}
        inside = [""]

        def enter(module: Any, _inputs: tuple) -> None:
            inside.append(names[id(module)])
            namespace.layer = inside[-1]

        def leave(_module: Any, _output: Any) -> None:
            inside.pop()
            namespace.layer = inside[-1]

        with watched_calls(tree.branches(f), leave, enter):
            result = namespace.record(f, *given)
        outputs = [output(x) for x in tree.leaves(result, state=True)]
        recorded = Graph([*self.parameters, *self.inputs], namespace.operations, outputs)
        self.graph = simplified(
            expand(converted(recorded, IN_DTYPE_OF_RESULT, xp), DECOMPOSITIONS, xp, "cpu")
        )

    @property
    def shapes(self) -> dict[Variable, tuple]:
        """The shape of each variable, also of those in loops."""
        shapes = {x: tuple(x.shape) for x in self.graph.variables}
        for operation in self.graph.operations:
            for step in operation.options.values():
                shapes.update(step.shapes if isinstance(step, RecordedNetwork) else {})
        return shapes


class _Namespace(RecordingNamespace):
    """A recording namespace that also records the step of each loop."""

    def scan_arrays(self, *values: Any, body: Any, length: int) -> Any:  # type: ignore[override,assignment]
        options = {"body": body, "length": length}
        results = self.call("scan_arrays", self._plain.scan_arrays, values, options)
        if results and isinstance(output(results[-1]), Variable):
            carried, sequences, constants = body.split(values)
            kinds = [(x.shape, x.dtype) for x in carried]
            kinds += [(x.shape[1:], x.dtype) for x in sequences]
            kinds += [(x.shape, x.dtype) for x in constants]
            # Of ones, as what a step does must not depend on values.
            step = LoopBody(body, [numpy.ones(*kind) for kind in kinds])
            operation = self.operations.pop()
            self.operations.append(replace(operation, options=operation.options | {"body": step}))
        return results


class LoopBody(RecordedNetwork):
    """The operations of one step of a loop.

    Attributes
    ----------
    carried, sequences : int
        How many of its inputs are carried from step to step, and how many are elements. The others stay the
        same.
    """

    def __init__(self, body: Any, examples: list[numpy.ndarray]) -> None:
        def step(*values: Any) -> Any:
            carried, elements, constants = body.split(values)
            self.carried, self.sequences = len(carried), len(elements)
            after, results = body.plain(carried, elements, constants)
            # In the order of ONNX: what is carried on, and then what each step leaves.
            return after, carried, results

        with numpy.errstate(all="ignore"):
            super().__init__(step, examples)


def for_any_batch(
    small: RecordedNetwork, large: RecordedNetwork, sizes: tuple[int, int]
) -> dict[Variable, tuple]:
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
    operations = []
    for a, b in zip(small.graph.operations, large.graph.operations, strict=True):
        if a.name != b.name:
            raise merge.refusal(a.name)
        merge.place = f"{a.called} in {a.layer}" if a.layer else a.called
        arguments, options = merge((a.arguments, a.options), (b.arguments, b.options))
        operations.append(replace(a, arguments=arguments, options=options))
        for x, y in zip(a.results, b.results, strict=True):
            merge.pair(x, y)
    merge.place = "the output"
    outputs = merge(small.graph.outputs, large.graph.outputs)
    small.graph = Graph(small.graph.inputs, operations, outputs)
    return merge.shapes


class _Merge:
    def __init__(self, small: RecordedNetwork, large: RecordedNetwork, sizes: tuple[int, int]) -> None:
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
        if type(a) is LoopBody:
            self.shapes.update(for_any_batch(a, b, self._sizes))
            return a
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
        if a.ndim == b.ndim:
            if len(values) == 1:
                return Filled(a.reshape(-1)[0], self(a.shape, b.shape))
            if a.ndim and all(
                max(x.shape) == x.size and (x.reshape(-1) == numpy.arange(x.size)).all() for x in (a, b)
            ):
                return Counted(a.dtype, self(a.shape, b.shape))
        raise self.refusal(f"a constant of {self.place}")
