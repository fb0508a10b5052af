"""Converters for skl2onnx, with which a whole pipeline becomes one ONNX file."""

from typing import Any

from xpnet.sklearn.classifier import MLPClassifier
from xpnet.sklearn.regressor import MLPRegressor


def register_onnx_converters() -> None:
    """Teach skl2onnx the estimators of `xpnet.sklearn`, so that it converts pipelines with them.

    Call it once in a program, before `skl2onnx.to_onnx`. It needs ``pip install skl2onnx``.

    Notes
    -----
    skl2onnx gives labels as integers of 64 bits or as text. `xpnet.onnx.export` writes an estimator alone,
    and needs no skl2onnx.

    Examples
    --------
    >>> import numpy as np
    >>> import skl2onnx
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from xpnet.sklearn import MLPClassifier, register_onnx_converters
    >>> X = np.linspace(-1, 1, 200, dtype="float32").reshape(-1, 1)
    >>> pipeline = make_pipeline(StandardScaler(), MLPClassifier(solver="lbfgs", random_state=0))
    >>> pipeline = pipeline.fit(X, np.where(X[:, 0] > 0, "yes", "no"))
    >>> register_onnx_converters()
    >>> model = skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": False})
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    from skl2onnx import update_registered_converter

    options = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True], "nocl": [False]}
    update_registered_converter(
        MLPClassifier, "XpnetMLPClassifier", _declare_classifier, _convert, options=options
    )
    update_registered_converter(MLPRegressor, "XpnetMLPRegressor", _declare_regressor, _convert)


def _declare_classifier(operator: Any) -> None:
    """Say of which types and shapes the labels and the probabilities are."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    label, probabilities = operator.outputs
    classes = operator.raw_operator.classes_
    batch = _batch(operator)
    several = operator.raw_operator._several_labels
    kind = Int64TensorType if classes.dtype.kind in "biuf" else StringTensorType
    label.set_type(kind([batch, len(classes)] if several else [batch]))
    probabilities.type.shape = [batch, max(len(classes), 2)]


def _declare_regressor(operator: Any) -> None:
    operator.outputs[0].type.shape = [_batch(operator), operator.raw_operator.n_outputs_]


def _batch(operator: Any) -> Any:
    """Return the length of a batch, after a check that the features are one array."""
    from skl2onnx.common.utils import check_input_and_output_numbers

    check_input_and_output_numbers(operator, input_count_range=1)
    return operator.inputs[0].get_first_dimension()


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of an estimator to the graph of a pipeline."""
    from skl2onnx.common.data_types import guess_proto_type

    from xpnet.onnx.exporting import make_model

    graph = make_model(operator.raw_operator, None, opset=container.target_opset).graph
    _rename(graph, scope.get_unique_variable_name("xpnet") + "/")
    (given,), (taken,) = operator.inputs, graph.input

    def connect(source: str, target: str, was: int, becomes: int) -> None:
        name = scope.get_unique_operator_name("xpnet")
        kind, options = ("Identity", {}) if was == becomes else ("Cast", {"to": becomes})
        container.add_node(kind, source, target, name=name, **options)

    connect(given.full_name, taken.name, guess_proto_type(given.type), taken.type.tensor_type.elem_type)
    container.nodes.extend(graph.node)
    container.initializers.extend(graph.initializer)
    for made, declared in zip(graph.output, operator.outputs, strict=True):
        connect(
            made.name, declared.full_name, made.type.tensor_type.elem_type, guess_proto_type(declared.type)
        )


def _rename(graph: Any, prefix: str) -> None:
    """Put a prefix in front of all names, also in the steps of loops, as the pipeline may have the same."""
    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = prefix + named.name
    for node in graph.node:
        node.name = prefix + node.name
        for names in (node.input, node.output):
            names[:] = [name and prefix + name for name in names]  # "" is none
        for attribute in node.attribute:
            _rename(attribute.g, prefix)
