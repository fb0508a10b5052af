"""Export: from a recorded graph to a file of ONNX."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy
import onnx
from onnx import helper, numpy_helper

from xpnet import tree
from xpnet.backends import asarray, to_numpy
from xpnet.onnx.operators import OPERATORS, direct
from xpnet.onnx.recorded import Counted, Filled, LoopBody, RecordedNetwork, Size, for_any_batch
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.rewrite import without_dead
from xpnet.settings import is_integer
from xpnet.training.networks import evaluation_copy
from xpnet.writing import replace

# The oldest set of operators whose reductions take their axes as inputs.
OLDEST = 18

# Two sizes of a batch. What differs between their recordings depends on the batch. Their difference is a
# prime number, so that what is no multiple of the batch (half of it, say) is not taken for one.
_SIZES = (11, 64)


def export(
    net: Callable[..., Any],
    example: Any,
    path: str | os.PathLike[str],
    *,
    batch: str | None = "batch",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = OLDEST,
) -> None:
    """Write a network as an ONNX file, for other programs.

    Parameters
    ----------
    net : Module, estimator or callable
        A network, which is exported as it is in use (no dropout), a fitted estimator of `xpnet.sklearn`, or a
        function of arrays that is written with the array API standard. It is called with batches like the
        example, and is not changed.
    example : array or tuple of arrays, shape (examples, ...)
        The input, or the inputs. Only the shape and the dtype matter. A network of a dict is exported by a
        module around it that takes each array by itself.
    path : path
        The file. An older one stays whole until the new one is.
    batch : str or None, default="batch"
        The name of the first axis of each input, which is free: the file is for batches of any size. None
        exports for the shape of the example.
    input_names, output_names : sequence of str, optional
        By default "input" and "output", with numbers if there are several. The outputs of a classifier are
        "label" and "probabilities", that of a regressor is "variable".
    opset : int, default=18
        The version of ONNX's operators, 18 or later.

    Raises
    ------
    TypeError
        If the example is a dict, or the net is none of these.
    ValueError
        If ONNX has no counterpart for a function that the network calls, which is named, or for the labels of
        a classifier; what it computes depends on the size of the batch in another way than by its shape; or
        an option is out of range.

    Notes
    -----
    ONNX cannot read the bytes of a text: a network with an `nn.ByteReader` takes in the file what that has
    read, an array of integers. All lengths but the batch, such as that of a sequence, are those of the
    example.

    Of an estimator, the file says what `predict` and `predict_proba` do: the labels have the dtype of
    ``classes_``, the shape of "variable" is (batch, outputs), also if there is one output.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import onnx
    >>> import xpnet.onnx
    >>> net = xpnet.nn.Sequential(xpnet.nn.Dense(2, 3, seed=0), xpnet.nn.Tanh())
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     xpnet.onnx.export(net, np.ones((1, 2), dtype="float32"), f"{directory}/net.onnx")
    ...     [node.name for node in onnx.load(f"{directory}/net.onnx").graph.node]
    ['layers.0/matmul', 'layers.0/add', 'layers.1/tanh']
    """
    model = make_model(
        net, example, batch=batch, input_names=input_names, output_names=output_names, opset=opset
    )
    replace(path, [model.SerializeToString()])


def make_model(
    net: Any,
    example: Any,
    *,
    batch: str | None = "batch",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = OLDEST,
) -> onnx.ModelProto:
    """Return what `export` writes."""
    latest = onnx.defs.onnx_opset_version()
    if not (is_integer(opset) and OLDEST <= opset <= latest):
        raise ValueError(f"opset must be an integer from {OLDEST} to {latest}, received {opset!r}.")
    if not isinstance(batch, str | None):
        raise ValueError(f"batch must be the name of an axis or None, received {batch!r}.")
    labels: list[Any] = []
    if hasattr(net, "for_export"):
        net, example, outputs = net.for_export(example)
        output_names = list(outputs) if output_names is None else output_names
        labels = [_labels(x) for x in outputs.values()]
    elif not callable(net):
        raise TypeError(
            "net must be a network, a function or an estimator of xpnet.sklearn, received "
            f"{type(net).__name__}. skl2onnx exports a pipeline of scikit-learn's after "
            "xpnet.sklearn.register_onnx_converters()."
        )
    if isinstance(example, Mapping):
        inputs = ", ".join(map(str, example))
        raise TypeError(
            f"example must be an array or a tuple of arrays, received a dict with {inputs}. Export a Module "
            f"around the network with __call__(self, {inputs}), and a tuple of these arrays as the example."
        )
    examples = [to_numpy(asarray(x)) for x in (example if isinstance(example, tuple) else (example,))]
    if any(not x.shape or not x.size for x in examples):
        received = ", ".join(str(x.shape) for x in examples)
        raise ValueError(f"example must hold at least one example, received the shape {received}.")
    recording, shapes = _recorded(net, examples, for_one_size=batch is None)
    number = len(recording.graph.outputs)
    names = _names("output", output_names, number)
    model = Writer(recording, shapes, batch).model(
        _names("input", input_names, len(examples)),
        dict(zip(names, labels or [None] * number, strict=True)),
        int(opset),
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _labels(classes: numpy.ndarray | None) -> numpy.ndarray | None:
    """Return the labels of classes as ONNX has them, after a check."""
    if classes is None or classes.dtype.kind in "biuf":
        return classes
    found = classes.astype(object)
    if not all(isinstance(label, str) for label in found):
        raise ValueError(
            f"in ONNX, labels are numbers, truths or text, received classes_ of {classes.dtype}, such as "
            f"{classes[0]!r}. Fit the classifier with text, y.astype(str) say."
        )
    return found


def _recorded(
    net: Any, examples: list[numpy.ndarray], *, for_one_size: bool
) -> tuple[RecordedNetwork, dict[Variable, tuple[Any, ...]]]:
    """Record what a network does with a batch, and return the shapes of all that it makes."""
    # A copy, as a call may write state.
    f = to_numpy(evaluation_copy(net)) if isinstance(net, tree.Branch) else net
    if for_one_size:
        recording = RecordedNetwork(f, examples)
        return recording, recording.shapes
    small, large = (
        RecordedNetwork(_copy(f), [x.take(numpy.arange(size) % len(x), axis=0) for x in examples])
        for size in _SIZES
    )
    return small, for_any_batch(small, large, _SIZES)


def _copy(f: Any) -> Any:
    return tree.copied(f) if isinstance(f, tree.Branch) else f


def _names(kind: str, names: Sequence[str] | None, number: int) -> list[str]:
    if names is None:
        return [kind] if number == 1 else [f"{kind}_{index + 1}" for index in range(number)]
    if isinstance(names, str) or len(names) != number or len(set(names)) != number:
        raise ValueError(f"there must be a name for each of {number} {kind}(s), received {names!r}.")
    return list(names)


def _names_read(nodes: Iterable[Any]) -> Iterator[str]:
    """Yield the names that nodes read, also those that the steps of loops read."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _names_read(attribute.g.node)


class Writer:
    """Writes a recorded graph as nodes of ONNX. The functions in `operators/` write with it.

    Attributes
    ----------
    shapes : dict of Variable to tuple
        With a `Size` where a length depends on the batch.
    makers : dict of Variable to Operation
    """

    def __init__(
        self, recording: RecordedNetwork, shapes: dict[Variable, tuple[Any, ...]], batch: str | None
    ) -> None:
        self._recording, self.shapes, self._batch = recording, shapes, batch
        self.makers: dict[Variable, Operation] = {}
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._known: dict[Any, str] = {}  # constants by what they are
        self._tensors: dict[Variable, str] = {}
        self._used: dict[str, int] = {}  # names, and how often each was asked for
        self._read: set[Variable] = set()
        self._place = self._loop = ""

    def model(self, inputs: list[str], outputs: dict[str, numpy.ndarray | None], opset: int) -> Any:
        """Return the model, with these names, and of each output the labels that it takes, or None."""
        graph = self._recording.graph
        self._used.update(dict.fromkeys([*inputs, *outputs], 1))
        self._tensors.update(zip(self._recording.inputs, inputs, strict=True))
        weights: dict[str, numpy.ndarray] = {}
        for x, (name, value) in self._recording.parameters.items():
            self._tensors[x] = self._unused(name)
            arrays = weights if x in self._recording.trained else self._constants
            arrays[self._tensors[x]] = value
        self._write_all(graph, outputs)
        read = set(_names_read(self._nodes))
        # What is not trained is no initializer, so that who reads the file can tell.
        constants = [
            helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(x, name))
            for name, x in self._constants.items()
            if name in read
        ]
        onnx_graph = helper.make_graph(
            [*constants, *self._nodes],
            "xpnet",
            [self._information(name, x) for name, x in zip(inputs, self._recording.inputs, strict=True)],
            [
                self._information(name, x, labels)
                for (name, labels), x in zip(outputs.items(), graph.outputs, strict=True)
            ],
            [numpy_helper.from_array(x, name) for name, x in weights.items() if name in read],
        )
        opsets = [helper.make_opsetid("", opset)]
        version = helper.find_min_ir_version_for(opsets)
        return helper.make_model(onnx_graph, opset_imports=opsets, ir_version=version, producer_name="xpnet")

    def _write_all(self, graph: Graph, outputs: dict[str, numpy.ndarray | None]) -> None:
        """Write the operations of a graph, and give names to its outputs, or to the labels that they take."""
        self._read.update(graph.returned, *(operation.inputs for operation in graph.operations))
        self.makers |= graph.makers
        for operation in graph.operations:
            self._write(operation)
        self._place = f"{self._loop}/output" if self._loop else "output"
        for (name, labels), x in zip(outputs.items(), graph.outputs, strict=True):
            if labels is None:
                node = helper.make_node("Identity", [self.tensor(x)], [name], name=name)
            else:
                node = helper.make_node("Gather", [self._constant(labels), self.tensor(x)], [name], name=name)
            self._nodes.append(node)
        self._drop_dead(outputs)
        self._drop_identities()

    def _write(self, operation: Operation) -> None:
        layer = operation.layer or self._loop
        self._place = f"{layer}/{operation.called}" if layer else operation.called
        write: Callable[..., Any] = OPERATORS.get(operation.short_name, direct)
        results = write(self, operation)
        if results is NotImplemented:
            arguments = ", ".join(str(x.dtype) for x in operation.inputs)
            called = operation.called if operation.called != operation.name else ""
            inside = "".join(f" in {place}" for place in (called, layer) if place)
            raise ValueError(
                f"an exported network is made of what ONNX has, received {operation.name} of {arguments}"
                f"{inside}, called with {operation.options or 'no options'}, for "
                "which it has no counterpart. Write it with other functions, or leave it out of the export."
            )
        names = [results] if isinstance(results, str) else results
        self._tensors.update(zip(operation.results, names, strict=True))

    def _unused(self, name: str) -> str:
        found = name
        while found in self._used:
            self._used[name] += 1
            found = f"{name}_{self._used[name]}"
        self._used[found] = 1
        return found

    def _drop_dead(self, outputs: Iterable[str]) -> None:
        """Leave out the nodes that lead to no output, such as what another node says together."""
        needed, kept = set(outputs), []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.output):
                kept.append(node)
                needed.update(_names_read([node]))
        self._nodes = kept[::-1]

    def _drop_identities(self) -> None:
        """Give each output's name to the node that makes it, where nothing else reads that."""
        makers = {name: node for node in self._nodes for name in node.output}
        readers = list(_names_read(self._nodes))
        kept = []
        for node in self._nodes:
            maker = makers.get(node.input[0]) if node.name == node.output[0] and node.input else None
            if node.op_type == "Identity" and maker is not None and readers.count(node.input[0]) == 1:
                maker.output[list(maker.output).index(node.input[0])] = node.output[0]
                makers[node.output[0]] = maker
            else:
                kept.append(node)
        self._nodes = kept

    def _information(self, name: str, x: Any, labels: numpy.ndarray | None = None) -> Any:
        shape = self.shape(x)
        lengths = [
            self._batch if size == Size(1, 0) else size if isinstance(size, int) else None for size in shape
        ]
        dtype = self.dtype(x) if labels is None else labels.dtype
        return helper.make_tensor_value_info(name, self.kind(dtype), lengths)

    # -- for operators ------------------------------------------------------------------------------------

    def node(self, kind: str, *inputs: Any, results: int = 1, **attributes: Any) -> Any:
        """Write a node; return the name of its result, or of each of several."""
        names = [self.tensor(x) for x in inputs]
        outputs = [self._unused(self._place) for _ in range(results)]
        self._nodes.append(helper.make_node(kind, names, outputs, name=outputs[0], **attributes))
        return outputs[0] if results == 1 else outputs

    def loop(self, step: LoopBody, inputs: Sequence[Any], results: list[Variable]) -> list[str]:
        """Write a loop; return the names of its results, "" for those that nothing reads."""
        carried, end = step.carried, step.carried + step.sequences
        names = [self._unused(f"{self._place}/input") for _ in range(end)]
        self._tensors.update(zip(step.inputs, [*names, *map(self.tensor, inputs[end:])], strict=True))
        # What is carried on comes first; of what each step leaves, the rest, only what is read.
        ends = [*results[-carried:], *results[:-carried]]
        chosen = [index for index, x in enumerate(ends) if index < carried or x in self._read]
        graph = Graph(step.graph.inputs, step.graph.operations, [step.graph.outputs[i] for i in chosen])
        graph = without_dead(graph)
        outputs = [self._unused(f"{self._place}/output") for _ in chosen]
        place, loop, nodes = self._place, self._loop, self._nodes
        self._loop, self._nodes = place, []
        self._write_all(graph, dict.fromkeys(outputs))
        body = helper.make_graph(
            self._nodes,
            place,
            [self._information(*pair) for pair in zip(names, step.inputs[:end], strict=True)],
            [self._information(*pair) for pair in zip(outputs, graph.outputs, strict=True)],
        )
        self._place, self._loop, self._nodes = place, loop, nodes
        made = self.node(
            "Scan", *inputs[:end], results=len(chosen), body=body, num_scan_inputs=step.sequences
        )
        found = dict(zip(chosen, [made] if isinstance(made, str) else made, strict=True))
        written = [found.get(index, "") for index in range(len(ends))]
        return [*written[carried:], *written[:carried]]

    def tensor(self, x: Any, dtype: Any = None) -> str:
        """Return the name of a tensor: of a variable, a constant or a number, converted to a dtype."""
        if isinstance(x, str):  # already one, "" for none
            return x
        if type(x) is Variable:
            name = self._tensors[x]
        elif type(x) is Filled:
            name = self.node("Expand", numpy.asarray(x.value), self.lengths(x.shape))
        elif type(x) is Counted:
            (length,) = (size for size in x.shape if type(size) is Size)
            numbers = self.cast(self.node("Range", numpy.asarray(0), length, numpy.asarray(1)), x.dtype)
            name = self.node("Reshape", numbers, self.lengths(x.shape))
        elif type(x) is Size:
            name = self.node("Squeeze", self.lengths((x,)))
        else:
            return self._constant(numpy.asarray(x, dtype=dtype))
        return name if dtype is None or self.dtype(x) == dtype else self.cast(name, dtype)

    def _constant(self, x: numpy.ndarray) -> str:
        key = x.dtype.str, x.shape, x.tobytes()
        if key not in self._known:
            self._known[key] = self._unused("constant")
            self._constants[self._known[key]] = x.astype(x.dtype.newbyteorder("="))
        return self._known[key]

    def cast(self, name: str, dtype: Any) -> str:
        cast: str = self.node("Cast", name, to=self.kind(dtype))
        return cast

    def lengths(self, shape: Sequence[int | Size]) -> str:
        """Return the name of a tensor that holds some lengths."""
        if None in shape:
            raise ValueError(
                f"a length must be a multiple of the number of examples plus a number, in {self._place} it "
                "is not. Write it in another way, or export for one size of batch with batch=None."
            )
        if all(isinstance(size, int) for size in shape):
            return self._constant(numpy.asarray(shape, dtype="int64"))
        parts = []
        for size in shape:
            if type(size) is Size:
                part = self.node("Shape", self._recording.inputs[0], start=0, end=1)
                if size.factor != 1:
                    part = self.node("Mul", part, numpy.asarray([size.factor], dtype="int64"))
                if size.offset:
                    part = self.node("Add", part, numpy.asarray([size.offset], dtype="int64"))
                parts.append(part)
            else:
                parts.append(self._constant(numpy.asarray([size], dtype="int64")))
        joined: str = parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)
        return joined

    def shape(self, x: Any) -> tuple[int | Size, ...]:
        return self.shapes[x] if type(x) is Variable else tuple(getattr(x, "shape", ()))

    def dtype(self, x: Any) -> numpy.dtype:
        """Return the dtype of a variable or constant; a Python number has that of its own kind."""
        if type(x) is Size:
            return numpy.dtype("int64")
        return numpy.dtype(getattr(x, "dtype", type(x)))

    def kind(self, dtype: Any) -> int:
        return int(helper.np_dtype_to_tensor_dtype(numpy.dtype(dtype)))
