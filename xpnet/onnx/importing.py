"""Load: from a file of ONNX to a network."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import numpy_helper

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import Device, asarray, device
from xpnet.nn.module import Module
from xpnet.onnx.nodes import NODES, Body, Constant, Node, compute
from xpnet.onnx.nodes.node import DTYPES, bounded_run

_device = device  # `load` has a parameter of that name


class Network(Module):
    """A network of an ONNX file: nodes that are computed one after the other.

    Attributes
    ----------
    weights : dict of str to array
        The arrays that are trained, by their names in the file: its initializers of finite floating-point
        numbers with one axis or more, but for the running statistics of normalizations. Those of a loop have
        the name of the loop in front.
    fixed : dict of str to array
        All other arrays of floating-point numbers, which are state. A file does not say what is trained: a
        table that is not, of positions say, can be moved here, ``net.fixed[name] = net.weights.pop(name)``.
    constants : dict of str to Constant
        Arrays of integers and truths, such as shapes, which stay on the host. ``numpy.asarray`` shows them.
    body : Body
        The nodes, and the names of inputs and outputs.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import xpnet
    >>> import xpnet.onnx
    >>> net = xpnet.nn.Dense(2, 3, seed=0)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     xpnet.onnx.export(net, np.ones((1, 2), "float32"), f"{directory}/net.onnx")
    ...     again = xpnet.onnx.load(f"{directory}/net.onnx")
    >>> sorted(array.shape for array in again.weights.values())
    [(2, 3), (3,)]
    """

    state = ("fixed",)

    def __init__(
        self, body: Body, arrays: dict[str, numpy.ndarray], trained: set[str], target: Device
    ) -> None:
        floats = {name: asarray(x, device=target) for name, x in arrays.items() if _is_float(x)}
        self.weights = {name: x for name, x in floats.items() if name in trained}
        self.fixed = {name: x for name, x in floats.items() if name not in trained}
        # Shapes and axes stay on the host, where they are read as numbers.
        self.constants = {name: Constant.of(x) for name, x in arrays.items() if name not in floats}
        self.body = body

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        # They come from a file, perhaps, and may be anything then.
        kinds = {"weights": dict, "fixed": dict, "constants": dict, "body": Body}
        wrong = [name for name, kind in kinds.items() if type(attributes.get(name)) is not kind]
        if wrong or not all(type(x) is Constant for x in attributes["constants"].values()):
            raise ValueError(f"a network of ONNX needs {', '.join(kinds)}, received others.")
        vars(self).update(attributes)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in their order."""
        return self.body.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in their order."""
        return self.body.outputs

    def __call__(self, *inputs: Any) -> Any:
        """Compute the outputs.

        Parameters
        ----------
        *inputs : array
            In the order of ``inputs``.

        Returns
        -------
        array or tuple of arrays
            The output, or the outputs in the order of ``outputs``.

        Raises
        ------
        ValueError
            If there are more or fewer inputs, or a node cannot take what it receives.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"the network takes {', '.join(self.inputs) or 'no inputs'}, received {len(inputs)} arrays."
            )
        arrays = self.fixed | self.weights
        if wrong := [name for name, x in arrays.items() if not _is_numbers(x)]:
            raise ValueError(f"weights must be arrays of numbers, received something else at {wrong[0]}.")
        constants = {name: numpy.asarray(x) for name, x in self.constants.items()}
        values = constants | arrays | dict(zip(self.inputs, inputs, strict=True))
        xp = array_namespace(*inputs, *arrays.values())
        with bounded_run(values):
            outputs = compute(xp, self.body, values)
        found = tuple(_as_array(xp, x, inputs) for x in outputs)
        return found[0] if len(found) == 1 else found


def _is_numbers(x: Any) -> bool:
    # NumPy has arrays of texts and of any objects, too.
    return tree.is_array(x) and (not isinstance(x, numpy.ndarray) or x.dtype.kind in "biufc")


def _is_float(x: numpy.ndarray) -> bool:
    return x.dtype.kind == "f"


def _as_array(xp: Any, x: Any, inputs: Any) -> Any:
    """Return a result as an array of the inputs' library and device."""
    return xp.asarray(x, device=inputs[0].device) if isinstance(x, numpy.ndarray) and inputs else x


def load(path: str | os.PathLike[str], *, device: str | Device | None = None) -> Network:
    """Read a network from an ONNX file, such as PyTorch and skl2onnx write.

    Parameters
    ----------
    path : path
        The file. It is read as data: nothing in it is run, and no other file is read, even if it names one.
    device : str, Device or None
        Where the weights go; None is the current device.

    Returns
    -------
    Network
        A module that is called with the inputs. Its weights can be trained.

    Raises
    ------
    ValueError
        If the file is damaged, has its weights in other files, or an operator that xpnet does not have,
        which is named.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import xpnet.onnx
    >>> net = xpnet.nn.Dense(2, 3, seed=0)
    >>> x = np.ones((4, 2), dtype="float32")
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     xpnet.onnx.export(net, x, f"{directory}/net.onnx")
    ...     loaded = xpnet.onnx.load(f"{directory}/net.onnx")
    >>> bool((loaded(x) == net(x)).all())
    True
    """
    content = Path(path).read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
        _check(model)
        graph = model.graph
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        whole = _Part(graph, opset)
        if missing := set(whole.body.outer) - whole.arrays.keys():
            raise ValueError(f"nothing makes {', '.join(sorted(missing))}")
    except _Unknown as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # the libraries that read it have many kinds of their own
        raise ValueError(
            f"{path} cannot be read as an ONNX file, it is damaged or another kind of file: "
            f"{str(error).strip()[:300] or type(error).__name__}."
        ) from None
    return Network(whole.body, whole.arrays, whole.trained - whole.statistics, _device(device))


class _Unknown(Exception):
    """The file is whole, and has something that xpnet has not."""


def _check(model: Any) -> None:
    """Check what is in a file, and that it is all in it."""
    if not model.graph.node and not model.graph.output:
        raise ValueError("it holds no network")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise _Unknown(
                f"has the weights {tensor.name} in another file, which is not read. Save it as one file: "
                "torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(path), path)."
            )
    if (
        any(graph.sparse_initializer for graph in _graphs(model.graph))
        or model.functions
        or model.training_info
    ):
        raise _Unknown("has sparse weights or functions of its own, which xpnet cannot read.")
    onnx.checker.check_model(model)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph, and those of the loops in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _tensors(graph: Any) -> Iterator[Any]:
    for each in _graphs(graph):
        yield from each.initializer
        for node in each.node:
            yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


class _Part:
    """A graph of a file: all of it, or what a loop does at each step.

    Attributes
    ----------
    body : Body
    arrays : dict of str to numpy.ndarray
        Its initializers and constants, and those of the loops in it, which read them from here.
    trained : set of str
        Which of them look as if they were trained.
    statistics : set of str
        What normalizations read as running statistics, which is not trained.
    """

    def __init__(self, graph: Any, opset: int) -> None:
        self._opset = opset
        self.arrays = {x.name: _array(x, x.name) for x in graph.initializer}
        # Numbers such as 0.5 or a border of minus infinity are no weights.
        self.trained = {
            name for name, x in self.arrays.items() if _is_float(x) and x.ndim and numpy.isfinite(x).all()
        }
        self.statistics: set[str] = set()
        inputs = tuple(x.name for x in graph.input if x.name not in self.arrays)
        nodes = [node for each in _graphs(graph) for node in each.node]
        self._taken = {*inputs, *self.arrays, *(x for node in nodes for x in (*node.input, *node.output))}
        computed = tuple(node for each in graph.node if (node := self._node(each)) is not None)
        self.body = Body(computed, inputs, tuple(x.name for x in graph.output))

    def _node(self, node: Any) -> Node | None:
        """Return a node; None for a constant, which becomes one of the arrays."""
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if kind not in NODES:
            raise _Unknown(
                f"has the operator {kind}, which xpnet does not have. It has {', '.join(sorted(NODES))}."
            )
        name, inputs = node.name or kind, list(node.input)
        attributes = []
        for attribute in node.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, onnx.GraphProto):
                value = self._loop(name, value, inputs)
            elif isinstance(value, onnx.TensorProto):
                value = Constant.of(_array(value, name))
            elif isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, Sequence) and all(isinstance(x, int | float | bytes) for x in value):
                value = tuple(x.decode() if isinstance(x, bytes) else x for x in value)
            elif not isinstance(value, int | float):
                raise _Unknown(f"has {attribute.name} in {kind}, which xpnet cannot read.")
            attributes.append((attribute.name, value))
        made = Node(kind, name, tuple(inputs), tuple(node.output), tuple(attributes), self._opset)
        if kind == "Constant":
            self.arrays[made.outputs[0]] = _readable(made(None, [])[0], name)
            return None
        if kind == "BatchNormalization":
            self.statistics.update(inputs[3:])
        return made

    def _loop(self, loop: str, graph: Any, inputs: list[str]) -> Body:
        """Return what a loop does, take its arrays over, and add what it reads to its inputs."""
        part = _Part(graph, self._opset)
        names = {name: self._free_name(loop, name) for name in part.arrays}
        self.arrays |= {names[name]: x for name, x in part.arrays.items()}
        self.trained |= {names[name] for name in part.trained}
        self.statistics |= {names.get(name, name) for name in part.statistics}
        inputs += [names.get(name, name) for name in part.body.outer]
        return part.body

    def _free_name(self, loop: str, name: str) -> str:
        """Return a name for an array of a loop that nothing else has."""
        name = f"{loop}.{name}"
        while name in self._taken:
            name = f"{loop}.{name}"
        self._taken.add(name)
        return name


def _array(tensor: Any, name: str) -> numpy.ndarray:
    return _readable(numpy_helper.to_array(tensor), name)


def _readable(x: numpy.ndarray, name: str) -> numpy.ndarray:
    if x.dtype.name not in DTYPES or x.dtype.fields:  # as which onnx may have the bits of bfloat16
        raise _Unknown(f"has an array of {x.dtype} at {name}, which xpnet cannot read.")
    return x
