"""Networks from ONNX files: those that xpnet exported, and those of PyTorch and skl2onnx."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import assert_on, half_of_the_digits, rounding
from onnx import TensorProto, helper, numpy_helper

import xpnet
import xpnet.onnx
from onnx_files.test_export import XP, instances, normal, run
from xpnet import nn


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "net.onnx")


def agrees(path, *inputs):
    """Load a file, and compare its outputs with those of onnxruntime."""
    tolerance = rounding(100, "float32")
    loaded = xpnet.onnx.load(path)
    moved = [xpnet.asarray(x, device=xpnet.device()) for x in inputs]
    outputs = loaded(*moved)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for found, expected in zip(outputs, run(path, *inputs), strict=True):
        assert_on(found, xpnet.device(), expected.dtype.name, expected.shape)
        np.testing.assert_allclose(xpnet.to_numpy(found), expected, rtol=tolerance, atol=tolerance)
    return loaded


# -- what xpnet exported ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer", "x"), list(instances()))
def test_every_layer_comes_back(name, layer, x, path, device):
    with xpnet.use_device("cpu"):
        xpnet.onnx.export(xpnet.to_device(layer, "cpu").eval(), x, path)
    agrees(path, x)


@pytest.mark.parametrize("name", XP)
def test_every_function_comes_back(name, path):
    xpnet.onnx.export(lambda x: XP[name](xpnet.array_namespace(x), x), normal(3, 3, 4), path)
    with np.errstate(divide="ignore", invalid="ignore"):  # of what `where` leaves out
        agrees(path, normal(4, 3, 4))


def test_loaded_network_can_be_trained_and_exported(device, path):
    xpnet.onnx.export(
        nn.Sequential(nn.Dense(3, 8, seed=0), nn.Tanh(), nn.Dense(8, 2, seed=1)), normal(2, 3), path
    )
    net = xpnet.onnx.load(path)
    x = normal(60, 3)
    y = (x.sum(axis=1) > 0).astype("int64")
    loss, optimizer = xpnet.losses.cross_entropy, xpnet.optim.Adam(0.05)
    history = xpnet.fit(net, x, y, loss=loss, optimizer=optimizer, epochs=20, seed=0, progress=False)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    xpnet.onnx.export(net, x, path)
    predicted = xpnet.to_numpy(xpnet.predict(net, x))
    tolerance = rounding(100, "float32", abs(predicted).max())
    np.testing.assert_allclose(run(path, x)[0], predicted, rtol=0, atol=tolerance)


def test_weights_are_what_was_trained(device, path):
    norm = nn.BatchNorm(3)
    norm.running_mean, norm.running_variance = normal(3), abs(normal(3))
    net = nn.Sequential(
        nn.SinusoidalPositions(4),
        nn.MaxPool(3, padding=1),
        nn.GELU(),
        nn.Dense(4, 3, seed=0),
        norm,
        nn.GlobalAvgPool(),
        nn.Dense(3, 2, seed=1),
    )
    x, y = normal(20, 6, 4), np.arange(20) % 2
    xpnet.onnx.export(net, x, path)
    loaded = xpnet.onnx.load(path)
    assert set(loaded.weights) == set(xpnet.tree.paths(net))
    fixed = {name: np.asarray(xpnet.to_numpy(array)) for name, array in loaded.fixed.items()}
    assert {"layers.4.running_mean", "layers.4.running_variance"} < fixed.keys()
    assert any(np.isneginf(array).any() for array in fixed.values())
    optimizer = xpnet.optim.AdamW(0.01, weight_decay=0.1)  # 0.1 * -inf would be no number
    history = xpnet.fit(
        loaded, x, y, loss=xpnet.losses.cross_entropy, optimizer=optimizer, epochs=3, seed=0, progress=False
    )
    assert np.isfinite(history["loss"]).all()
    for name, array in loaded.fixed.items():
        assert_on(array, device)
        np.testing.assert_array_equal(xpnet.to_numpy(array), fixed[name])
    assert all(np.isfinite(xpnet.to_numpy(array)).all() for array in loaded.weights.values())
    xpnet.onnx.export(loaded, x, path)
    again = xpnet.onnx.load(path)
    assert {name.removeprefix("weights.") for name in again.weights} == set(loaded.weights)


# -- what others exported ---------------------------------------------------------------------------------


def agrees_with_torch(net, x, path, device, roundings):
    """Export a network of PyTorch, and compare what is loaded with it and with onnxruntime."""
    import torch

    torch.onnx.export(net, (x,), path, verbose=False, external_data=False)
    agrees(path, x.numpy())
    with torch.no_grad():
        found = xpnet.onnx.load(path)(xpnet.asarray(x.numpy(), device=device))
        expected = net(x).numpy()
    tolerance = rounding(roundings, "float32", abs(expected).max())
    np.testing.assert_allclose(xpnet.to_numpy(found), expected, rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch itself
def test_convolutional_classifier_of_torch(device, path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 8, 3, padding="same", groups=4, dilation=2),
        torch.nn.GELU(),
        torch.nn.AvgPool2d(3, stride=1, padding=1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
        torch.nn.Softmax(dim=-1),
    ).eval()
    with torch.no_grad():
        for buffer in (net[1].running_mean, net[1].running_var):
            buffer.uniform_(0.5, 2.0)
    agrees_with_torch(net, torch.randn(2, 3, 16, 16), path, device, 300)  # inner lengths of up to 256
    # PyTorch has put the batch normalization into the convolution before it.
    expected = {name for name, _ in net.named_parameters() if not name.startswith("1.")}
    assert set(xpnet.onnx.load(path).weights) == expected


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch itself
def test_flattened_image_of_torch(device, path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(24, 3)
    ).eval()
    agrees_with_torch(net, torch.randn(2, 2, 8, 6), path, device, 50)  # inner lengths of 18 and 24


def test_classifier_of_skl2onnx(path):
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.datasets import load_iris
    from sklearn.neural_network import MLPClassifier

    x, y = load_iris(return_X_y=True)
    x = x.astype("float32")
    model = MLPClassifier((8,), max_iter=2000, random_state=0).fit(x, y)
    exported = skl2onnx.to_onnx(model, x[:1], options={"zipmap": False})
    onnx.save(exported, path)
    labels, probabilities = xpnet.onnx.load(path)(x)
    np.testing.assert_array_equal(xpnet.to_numpy(labels), model.predict(x))
    # The weights are rounded to single precision, and the scores are larger than the probabilities.
    np.testing.assert_allclose(probabilities, model.predict_proba(x), atol=half_of_the_digits("float32"))


def file_of(path, nodes, inputs, initializers=(), outputs=("y",), opset=18):
    """Write a file of some nodes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(x, name) for name, x in dict(initializers).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)


@pytest.mark.parametrize(
    ("kind", "shape", "weight", "attributes"),
    [
        ("Conv", (2, 3, 7), (4, 3, 3), {"pads": [1, 0], "strides": [2]}),
        ("Conv", (2, 4, 6, 5), (6, 2, 3, 2), {"group": 2, "auto_pad": "SAME_UPPER"}),
        ("Conv", (1, 2, 6, 6), (2, 2, 2, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ("Conv", (1, 2, 5, 5, 5), (3, 2, 2, 2, 2), {"dilations": [1, 2, 2]}),
        ("MaxPool", (2, 3, 7, 7), None, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}),
        ("AveragePool", (2, 3, 7), None, {"kernel_shape": [3], "pads": [1, 1]}),
        ("AveragePool", (2, 3, 7), None, {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1}),
        ("GlobalMaxPool", (2, 3, 7, 2), None, {}),
        ("Gemm", (3, 4), (5, 4), {"transB": 1, "alpha": 0.5}),
        ("LayerNormalization", (3, 4), (4,), {}),
        ("PRelu", (3, 4), (4,), {}),
        ("Selu", (3, 4), None, {}),
        ("HardSigmoid", (3, 4), None, {}),
        ("Softplus", (3, 4), None, {}),
        ("Softsign", (3, 4), None, {}),
        ("ReduceSumSquare", (3, 4), None, {}),
        ("Flatten", (3, 4, 2), None, {"axis": 2}),
        ("Transpose", (3, 4, 2), None, {}),
        ("Split", (6, 4), None, {"num_outputs": 1}),
        ("Elu", (3, 4), None, {"alpha": 0.5}),
    ],
)
def test_operator(device, path, kind, shape, weight, attributes):
    x = normal(*shape)
    names = ["x"] if weight is None else ["x", "w"]
    arrays = {} if weight is None else {"w": normal(*weight)}
    file_of(path, [helper.make_node(kind, names, ["y"], **attributes)], {"x": x}, arrays)
    agrees(path, x)


@pytest.mark.parametrize("step", [1, 3, -1, -2])
def test_slices(device, path, step):
    places = [-(2**63), -7, -6, -5, -2, -1, 0, 1, 4, 5, 6]
    # onnxruntime takes the largest integer for the end of all, whatever the step.
    slices = list(itertools.product([*places, 2**63 - 1], [*places, *([2**63 - 1] if step > 0 else [])]))
    nodes = [
        helper.make_node("Slice", ["x", f"start{n}", f"end{n}", "axes", "steps"], [f"y{n}"])
        for n in range(len(slices))
    ]
    arrays = {"axes": np.asarray([1]), "steps": np.asarray([step])}
    for n, (start, end) in enumerate(slices):
        arrays |= {f"start{n}": np.asarray([start]), f"end{n}": np.asarray([end])}
    x = normal(2, 5)
    file_of(path, nodes, {"x": x}, arrays, outputs=[f"y{n}" for n in range(len(slices))])
    agrees(path, x)


def test_what_is_no_weight(path):
    arrays = {name: normal(3) for name in ("scale", "bias", "mean", "table")} | {"variance": abs(normal(3))}
    arrays |= {"half": np.float32(0.5), "border": np.asarray([-np.inf, 0, 0], dtype="float32")}
    nodes = [
        helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["a"]),
        helper.make_node("Constant", [], ["row"], value=numpy_helper.from_array(normal(3))),
        helper.make_node("Mul", ["a", "half"], ["b"]),
        helper.make_node("Max", ["b", "border", "row"], ["c"]),
        helper.make_node("Add", ["c", "table"], ["y"]),
    ]
    file_of(path, nodes, {"x": normal(2, 3)}, arrays)
    loaded = agrees(path, normal(2, 3))
    assert loaded.weights.keys() == {"scale", "bias", "table"}
    assert loaded.fixed.keys() == {"mean", "variance", "half", "border", "row"}


# -- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x07\x12\x00", b"\xff" * 50])
def test_no_onnx_file(path, content):
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(
        ValueError, match="cannot be read as an ONNX file, it is damaged or another kind of file"
    ):
        xpnet.onnx.load(path)


def test_unknown_operator_is_named(path):
    file_of(path, [helper.make_node("Celu", ["x"], ["y"])], {"x": normal(3)})
    with pytest.raises(ValueError, match=r"has the operator Celu, which xpnet does not have\. It has Abs, "):
        xpnet.onnx.load(path)


def test_weights_in_another_file_are_not_read(path, tmp_path):
    (tmp_path / "secret").write_bytes(b"\x00" * 400)
    file_of(path, [helper.make_node("Add", ["x", "w"], ["y"])], {"x": normal(100)}, {"w": normal(100)})
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    with open(path, "wb") as file:
        file.write(model.SerializeToString())
    with pytest.raises(ValueError, match="has the weights w in another file, which is not read"):
        xpnet.onnx.load(path)


def test_weights_of_a_loop_in_another_file_are_not_read(path):
    xpnet.onnx.export(nn.LSTM(2, 3, seed=0), normal(2, 4, 2), path)
    model = onnx.load(path)
    (loop,) = (node for node in model.graph.node if node.op_type == "Scan")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    tensor = body.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    Path(path).write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="has the weights w in another file, which is not read"):
        xpnet.onnx.load(path)


def test_loop_over_nothing(path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("element", "result")]
    body = helper.make_graph([helper.make_node("Neg", ["element"], ["result"])], "body", ends[:1], ends[1:])
    file_of(path, [helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)], {"x": normal(3, 2)})
    agrees(path, normal(3, 2))
    with pytest.raises(ValueError, match=r"goes through 0 elements\. It must be at least one"):
        xpnet.onnx.load(path)(normal(0, 2))


def test_loops_in_loops_are_bounded_together(path):
    def loop(node, kind):
        ends = [helper.make_tensor_value_info(f"{kind}_{name}", TensorProto.FLOAT, None) for name in "ab"]
        graph = helper.make_graph([node(*(end.name for end in ends))], kind, ends[:1], ends[1:])
        return lambda a, b: helper.make_node("Scan", [a], [b], body=graph, num_scan_inputs=1)

    inner = loop(lambda a, b: helper.make_node("Neg", [a], [b]), "inner")
    outer = loop(inner, "outer")
    file_of(path, [outer("x", "y")], {"x": normal(3, 2)})
    agrees(path, normal(3, 2))
    loaded = xpnet.onnx.load(path)
    for _ in range(2):  # each run has its own bound
        loaded(normal(1, 40000))
    with pytest.raises(ValueError, match="at most 65536 together, of which 32766 are left"):
        loaded(normal(2, 32768))


def test_wrong_number_of_inputs(path):
    xpnet.onnx.export(nn.ReLU(), normal(2, 3), path)
    with pytest.raises(ValueError, match="the network takes input, received 2 arrays"):
        xpnet.onnx.load(path)(normal(2, 3), normal(2, 3))


@pytest.mark.parametrize(
    "nodes",
    [
        [("Tile", ["x", "many"], "y")],
        [("Expand", ["x", "wide"], "y")],
        [("ConstantOfShape", ["many"], "y")],
        [("Range", ["zero", "end", "one"], "y")],
        [("Reshape", ["x", "column"], "a"), ("Expand", ["a", "tall"], "b"), ("Mul", ["b", "row"], "y")],
        [("Reshape", ["x", "column"], "a"), ("Expand", ["a", "tall"], "b"), ("MatMul", ["b", "row"], "y")],
        [("Reshape", ["x", "column"], "a"), ("Tile", ["a", "times"], "b"), ("Gemm", ["b", "row"], "y")],
        [("Expand", ["no", "many_indices"], "a"), ("Gather", ["x", "a"], "y")],
        [("Concat", ["x"] * 1000, "a"), ("Concat", ["a"] * 1000, "y")],
        [("Pad", ["x", "pads"], "y")],
    ],
    ids=lambda nodes: nodes[-1][0],
)
def test_node_that_would_fill_the_memory(nodes, path):
    arrays = {
        "many": np.asarray([10**9]),
        "many_indices": np.asarray([2 * 10**6]),
        "wide": np.asarray([10**6, 10**3, 3]),
        "zero": np.float32(0),
        "no": np.asarray(0),
        "end": np.float32(10**9),
        "one": np.float32(1),
        "times": np.asarray([2**18, 1]),
        "column": np.asarray([3, 1]),
        "tall": np.asarray([2**18, 3, 1]),
        "row": np.ones((1, 64), dtype="float32"),
        "pads": np.asarray([0, 10**9]),
    }
    made = [
        helper.make_node(kind, names, [result], **({"axis": 0} if kind in ("Concat", "Gather") else {}))
        for kind, names, result in nodes
    ]
    read = {name: arrays[name] for _, names, _ in nodes for name in names if name in arrays}
    file_of(path, made, {"x": normal(3)}, read)
    with pytest.raises(ValueError, match=r"a node may make 1[0-9]{6} numbers of the inputs and weights"):
        xpnet.onnx.load(path)(normal(3))
