"""Load: from a file of ONNX to a network."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import numpy_helper

from xpnet.autodiff import array_namespace
from xpnet.backends import Device, asarray, device
from xpnet.nn.module import Module
from xpnet.onnx.nodes import NODES, Body, Node, compute
from xpnet.onnx.nodes.node import bounded_run

_device = device  # `load` has a parameter of that name


class Graph(Module):
    """A network of an ONNX file: nodes that are computed one after the other.

    Attributes
    ----------
    weights : dict of str to array
        The arrays that are trained, by their names in the file: its initializers of finite floating-point
        numbers with one axis or more, but for the running statistics of normalizations.
    fixed : dict of str to array
        All other arrays of floating-point numbers, which are state. A file does not say what is trained: a
        table that is not, of positions say, can be moved here, ``net.fixed[name] = net.weights.pop(name)``.
    constants : dict of str to numpy.ndarray
        Arrays of integers and truths, such as shapes.
    inputs, outputs : tuple of str

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

    def __init__(self, body: Body, target: Device) -> None:
        floats = {name: asarray(x, device=target) for name, x in body.arrays.items() if _is_float(x)}
        self.weights = {name: x for name, x in floats.items() if name in body.trained}
        self.fixed = {name: x for name, x in floats.items() if name not in body.trained}
        # Shapes and axes stay on the host, where they are read as numbers.
        self.constants = _Host({name: x for name, x in body.arrays.items() if name not in floats})
        self.nodes = tuple(body.nodes)
        self.inputs, self.outputs = tuple(body.inputs), tuple(body.outputs)

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
        values: dict[str, Any] = {**self.constants.arrays, **self.fixed, **self.weights}
        values.update(zip(self.inputs, inputs, strict=True))
        xp = array_namespace(*inputs, *self.weights.values(), *self.fixed.values())
        with bounded_run(values):
            compute(xp, self.nodes, values)
        found = tuple(_as_array(xp, values[name], inputs) for name in self.outputs)
        return found[0] if len(found) == 1 else found


class _Host:
    """Arrays of the host, which are no part of the network as a tree."""

    def __init__(self, arrays: dict[str, numpy.ndarray]) -> None:
        self.arrays = arrays

    def __repr__(self) -> str:
        return f"{len(self.arrays)} arrays"


def _is_float(x: numpy.ndarray) -> bool:
    return x.dtype.kind == "f"


def _as_array(xp: Any, x: Any, inputs: Any) -> Any:
    """Return a result as an array of the inputs' library and device."""
    return xp.asarray(x, device=inputs[0].device) if isinstance(x, numpy.ndarray) and inputs else x


def load(path: str | os.PathLike, *, device: str | Device | None = None) -> Graph:
    """Read a network from an ONNX file, such as PyTorch and skl2onnx write.

    Parameters
    ----------
    path : path
        The file. It is read as data: nothing in it is run, and no other file is read, even if it names one.
    device : str, Device or None
        Where the weights go; None is the current device.

    Returns
    -------
    Graph
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
        whole = _body(graph, opset)
        if whole.outer:
            raise ValueError(f"nothing makes {', '.join(whole.outer)}")
    except _Unknown as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # the libraries that read it have many kinds of their own
        raise ValueError(
            f"{path} cannot be read as an ONNX file, it is damaged or another kind of file: "
            f"{str(error).strip()[:300] or type(error).__name__}."
        ) from None
    return Graph(whole, _device(device))


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


def _body(graph: Any, opset: int) -> Body:
    weights = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    nodes = [_node(node, opset) for node in graph.node]
    # Numbers such as 0.5 or a border of minus infinity are no weights.
    trained = {name for name, x in weights.items() if _is_float(x) and x.ndim and numpy.isfinite(x).all()}
    trained.difference_update(*(node.inputs[3:] for node in nodes if node.kind == "BatchNormalization"))
    arrays = weights | {node.outputs[0]: node(None, [])[0] for node in nodes if node.kind == "Constant"}
    nodes = [node for node in nodes if node.kind != "Constant"]
    inputs = [x.name for x in graph.input if x.name not in arrays]
    outputs = [x.name for x in graph.output]
    known, outer = {"", *arrays, *inputs}, []
    for names, made in (*((node.inputs, node.outputs) for node in nodes), (outputs, ())):
        outer += [name for name in names if name not in known]
        known.update(outer, made)
    return Body(nodes, arrays, trained, inputs, outputs, outer)


def _node(node: Any, opset: int) -> Node:
    name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if name not in NODES:
        raise _Unknown(
            f"has the operator {name}, which xpnet does not have. It has {', '.join(sorted(NODES))}."
        )
    attributes: dict[str, Any] = {}
    inputs = list(node.input)
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.GraphProto):
            value = _body(value, opset)
            inputs += value.outer
        elif not isinstance(value, int | float) and not all(
            isinstance(x, int | float | bytes) for x in value
        ):
            raise _Unknown(f"has {attribute.name} in {name}, which xpnet cannot read.")
        attributes[attribute.name] = value
    return Node(name, node.name or name, tuple(inputs), tuple(node.output), attributes, opset)
