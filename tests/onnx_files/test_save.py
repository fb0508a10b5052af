"""Networks that came from ONNX are saved and loaded as others are, and what a file says is checked."""

import copy
import functools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from files.test_files import damaged
from helpers import assert_on, rounding
from onnx import TensorProto, helper, numpy_helper

import xpnet
import xpnet.onnx
from onnx_files.test_export import instances, normal
from onnx_files.test_load import file_of
from xpnet import nn, tree
from xpnet.onnx import nodes
from xpnet.onnx.nodes import Body, Constant, Node

CORPUS = Path(__file__).parents[1] / "corpus"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def value_info(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def tensor(x, name=""):
    return numpy_helper.from_array(np.asarray(x), name)


def file_of_a_loop(path):
    """Write a file of two loops with arrays of their own, h = 0.5 + w h + x, one after the other."""

    def loop(matrix, sequence, result):
        nodes = [
            helper.make_node("MatMul", ["h", "w"], ["wh"]),
            helper.make_node("Add", ["wh", "x_t"], ["whx"]),
            helper.make_node("Add", ["whx", "half"], ["next"]),
            helper.make_node("Identity", ["next"], ["y_t"]),
        ]
        graph = helper.make_graph(
            nodes,
            "body",
            [value_info("h", 3), value_info("x_t", 3)],
            [value_info("next", 3), value_info("y_t", 3)],
            [tensor(matrix, "w"), tensor(np.float32(0.5), "half")],
        )
        names = {"inputs": ["start", sequence], "outputs": [f"{result}.last", result]}
        return helper.make_node("Scan", **names, name="loop", body=graph, num_scan_inputs=1)

    first = helper.make_node(
        "ConstantOfShape", ["three"], ["start"], value=tensor(np.asarray([0.25], "float32"))
    )
    a, b = normal(3, 3), normal(3, 3)
    nodes = [first, loop(a, "x", "between"), loop(b, "between", "y")]
    file_of(str(path), nodes, {"x": normal(4, 3)}, {"three": np.asarray([3])})
    return a, b


def by_hand(a, b, x):
    for w in (a, b):
        xp, rows = xpnet.array_namespace(w, x), []
        h = xp.full((3,), 0.25, dtype=x.dtype, device=x.device)
        for t in range(x.shape[0]):
            h = h @ w + x[t, ...] + 0.5
            rows.append(h)
        x = xp.stack(rows)
    return x


def inputs_of(loaded):
    """Return inputs for a network of the corpus."""
    shape = (3, 2)
    return [xpnet.asarray(np.ones(shape) / 3, dtype="float32", device=xpnet.device()) for _ in loaded.inputs]


def assert_same_network(again, net, *inputs):
    """Compare two networks of ONNX, and their outputs, bit for bit."""
    assert type(again) is xpnet.onnx.Network
    assert (again.body, again.constants) == (net.body, net.constants)
    assert (again.weights.keys(), again.fixed.keys()) == (net.weights.keys(), net.fixed.keys())
    outputs = (again(*inputs), net(*inputs))
    leaves = zip(
        tree.leaves([again, outputs[0]], state=True), tree.leaves([net, outputs[1]], state=True), strict=True
    )
    for found, expected in leaves:
        assert_on(found, xpnet.device(), str(expected.dtype).rpartition(".")[2], expected.shape)
        np.testing.assert_array_equal(xpnet.to_numpy(found), xpnet.to_numpy(expected))


def saved(net, path):
    """Save a network, and load it again."""
    xpnet.save(net, path)
    return xpnet.load(path)


# -- round trips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["attention", "convolution", "matrices", "scan"])
def test_network_comes_back(device, path, name):
    net = xpnet.onnx.load(CORPUS / f"onnx-{name}")
    assert_same_network(saved(net, path), net, *inputs_of(net))


@pytest.mark.parametrize(("name", "layer", "x"), list(instances()))
def test_every_layer_comes_back(name, layer, x, path):
    xpnet.onnx.export(layer.eval(), x, path)
    net = xpnet.onnx.load(path)
    assert_same_network(saved(net, path), net, x)


def test_a_network_of_an_earlier_file_has_another_name(path):
    xpnet.onnx.export(nn.Dense(2, 3, seed=0), normal(2, 2), path)
    net = xpnet.onnx.load(path)
    xpnet.save(net, path)

    def earlier(content):
        content["net"]["module"] = content["net"]["module"].replace(".Network", ".Graph")
        assert content["net"]["module"] == "xpnet.onnx.importing.Graph"
        return content

    damaged(path, earlier)
    assert_same_network(xpnet.load(path), net, xpnet.asarray(normal(2, 2), device=xpnet.device()))


def test_one_network_is_one_file(device, path):
    file_of_a_loop(path)
    with xpnet.use_device("cpu"):
        reference = xpnet.onnx.load(path)
    net = xpnet.onnx.load(path)
    xpnet.save(reference, path)
    expected = path.read_bytes()
    assert_same_network(saved(net, path), net, xpnet.asarray(normal(4, 3), device=device))
    assert path.read_bytes() == expected


def test_texts_come_back(path):
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier

    x, y = normal(60, 3), np.asarray(["small", "größer"])[(normal(60) > 0).astype(int)]
    model = MLPClassifier((4,), max_iter=300, random_state=0, tol=0.1).fit(x, y)
    onnx.save(skl2onnx.to_onnx(model, x[:1], options={"zipmap": False}), path)
    net = xpnet.onnx.load(path)
    again = saved(net, path)
    for labels, probabilities in (net(x), again(x)):
        np.testing.assert_array_equal(labels, model.predict(x))
        np.testing.assert_array_equal(probabilities, net(x)[1])


def test_into_a_network(device, path):
    file_of_a_loop(path)
    net, other = xpnet.onnx.load(path), xpnet.onnx.load(path)
    net.weights = {name: 2 * x for name, x in net.weights.items()}
    xpnet.save(net, path)
    assert xpnet.load(path, into=other) is other
    assert_same_network(other, net, xpnet.asarray(normal(4, 3), device=device))


def test_parts_of_another_network(device, path):
    file_of_a_loop(path)
    net, x = xpnet.onnx.load(path), xpnet.asarray(normal(4, 3), device=device)
    again = saved({"net": nn.Sequential(net, nn.ReLU()), "others": [nn.Dense(2, 2, seed=0), (net, 3)]}, path)
    assert_same_network(again["net"][0], net, x)
    assert_same_network(again["others"][1][0], net, x)


def test_weights_that_are_not_trained_any_more(device, path):
    file_of_a_loop(path)
    net = xpnet.onnx.load(path)
    net.fixed["loop.w"] = net.weights.pop("loop.w")
    again = saved(net, path)
    assert_same_network(again, net, xpnet.asarray(normal(4, 3), device=device))
    assert tree.paths(again) == ["weights.loop.loop.w"]


def test_training_goes_on_from_a_checkpoint(device, tmp_path):
    path, checkpoint = tmp_path / "net.onnx", tmp_path / "checkpoint"
    with xpnet.use_device("cpu"):
        net = nn.Sequential(nn.LSTM(2, 3, seed=0), nn.Dense(3, 1, seed=1))
        xpnet.onnx.export(net, normal(2, 4, 2), path)
    x, y = normal(12, 4, 2), normal(12, 4, 1)

    def train(**options):
        net = xpnet.onnx.load(path)
        settings = {"loss": xpnet.losses.mse, "optimizer": xpnet.optim.Adam(0.05), "epochs": 3}
        settings |= {"batch_size": 5, "seed": 0, "progress": False, "jit": False}
        return net, xpnet.fit(net, x, y, **settings, **options)

    class End(xpnet.callbacks.Callback):
        order = 9

        def step_end(self, run):
            if run.step == 5:
                raise KeyboardInterrupt

    expected, history = train()
    assert history["loss"][-1] < history["loss"][0]
    cut, history = train(callbacks=[xpnet.callbacks.Checkpoint(checkpoint, every=1), End()])
    assert len(history) == 1
    resumed, _ = train(resume=checkpoint)
    moved = xpnet.asarray(x, device=device)
    assert not np.array_equal(xpnet.to_numpy(cut(moved)), xpnet.to_numpy(expected(moved)))
    assert_same_network(resumed, expected, moved)
    assert_same_network(xpnet.load(checkpoint), cut, moved)


def test_onnx_is_imported_when_a_file_asks_for_it(path):
    xpnet.onnx.export(nn.ReLU(), normal(2, 3), path)
    xpnet.save(xpnet.onnx.load(path), path)

    def run(code):
        command = [sys.executable, "-c", f"import sys, xpnet; {code}", str(path)]
        result = subprocess.run(
            command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
        )
        return result.stdout + result.stderr

    code = "print('onnx' in sys.modules, type(xpnet.load(sys.argv[1])).__name__, 'onnx' in sys.modules)"
    assert run(code) == "False Network True\n"
    assert "`pip install onnx` installs it." in run("sys.modules['onnx'] = None; xpnet.load(sys.argv[1])")


# -- what else is done with networks ----------------------------------------------------------------------


def test_weights_of_loops_are_trained(device, path):
    a, b = (xpnet.asarray(w, device=device) for w in file_of_a_loop(path))
    net, x = xpnet.onnx.load(path), xpnet.asarray(normal(4, 3), device=device)
    # The arrays of the second loop have the names of those of the first.
    assert tree.paths(net) == ["weights.loop.loop.w", "weights.loop.w"]
    assert net.fixed.keys() == {"loop.half", "loop.loop.half"}
    assert net.summary((3,)).parameters == 18

    def loss(f, x):
        y = f(x)
        return xpnet.array_namespace(y).sum(y * y)

    grads = xpnet.grad(loss)(net, x).weights
    expected = xpnet.grad(lambda weights, x: loss(functools.partial(by_hand, *weights), x))([a, b], x)
    tolerance = rounding(100, "float32", max(float(abs(xpnet.to_numpy(g)).max()) for g in expected))
    for name, g in zip(("loop.w", "loop.loop.w"), expected, strict=True):
        assert_on(grads[name], device, "float32", (3, 3))
        np.testing.assert_allclose(xpnet.to_numpy(grads[name]), xpnet.to_numpy(g), rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        xpnet.to_numpy(xpnet.jit(lambda net, x: net(x))(net, x)), xpnet.to_numpy(net(x)), rtol=tolerance
    )


def test_statistics_in_loops_are_not_trained(path):
    names = ("scale", "bias", "mean", "variance")
    norm = helper.make_node("BatchNormalization", ["x_t", "scale", "bias", "mean", "variance"], ["y_t"])
    inside = {name: abs(normal(3)) for name in ("scale", "mean")}
    graph = helper.make_graph(
        [norm],
        "body",
        [value_info("x_t", 2, 3)],
        [value_info("y_t", 2, 3)],
        [tensor(x, name) for name, x in inside.items()],
    )
    node = helper.make_node("Scan", ["x"], ["y"], name="loop", body=graph, num_scan_inputs=1)
    outside = {name: abs(normal(3)) for name in names if name not in inside}
    file_of(str(path), [node], {"x": normal(4, 2, 3)}, outside)
    net = xpnet.onnx.load(path)
    assert net.weights.keys() == {"bias", "loop.scale"}
    assert net.fixed.keys() == {"variance", "loop.mean"}
    x = normal(4, 2, 3)
    expected = (x - inside["mean"]) / np.sqrt(outside["variance"] + 1e-5) * inside["scale"] + outside["bias"]
    np.testing.assert_allclose(
        net(x), expected, rtol=rounding(20, "float32"), atol=rounding(20, "float32", 10)
    )


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        lambda net: xpnet.to_device(net, xpnet.device()),
        nn.Module.eval,
        nn.Module.train,
    ],
    ids=["copy", "deepcopy", "pickle", "to_device", "eval", "train"],
)
def test_copies(device, path, copied):
    file_of_a_loop(path)
    net, x = xpnet.onnx.load(path), xpnet.asarray(normal(4, 3), device=device)
    net.weights = {name: 2 * array for name, array in net.weights.items()}
    again = saved(copied(net), path)
    assert_same_network(again, net, x)
    assert again.__dict__.get("training") is net.__dict__.get("training")


def test_loaded_network_is_exported_again(path):
    xpnet.onnx.export(nn.Sequential(nn.GRU(2, 3, seed=0), nn.Dense(3, 2, seed=1)), normal(2, 4, 2), path)
    net, x = xpnet.onnx.load(path), normal(5, 4, 2)
    again = saved(net, path)
    xpnet.onnx.export(again, x, path)
    exported = xpnet.onnx.load(path)
    assert exported.weights.keys() == {f"weights.{name}" for name in net.weights}
    np.testing.assert_allclose(exported(x), net(x), atol=rounding(100, "float32"))


# -- refusals ---------------------------------------------------------------------------------------------


def node(kind, inputs, outputs, *, opset=18, **attributes):
    return Node(kind, kind, tuple(inputs.split()), tuple(outputs.split()), tuple(attributes.items()), opset)


def network_of(*nodes, inputs=("x",), outputs=("y",), weights=None, **constants):
    """Make a network as reading a file does."""
    net = object.__new__(xpnet.onnx.Network)
    made = {name: Constant.of(np.asarray(x)) for name, x in constants.items()}
    body = Body(nodes, inputs, outputs)
    net.__setstate__({"weights": weights or {}, "fixed": {}, "constants": made, "body": body})
    return net


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kind": "Celu"}, "xpnet has no operator 'Celu'. It has Abs, "),
        ({"kind": "__class__"}, "has no operator"),
        ({"inputs": ["x"]}, "has a name, names of inputs and outputs, and attributes"),
        ({"outputs": (1,)}, "has a name, names of inputs and outputs, and"),
        ({"name": None}, "has a name, names of inputs and outputs, and"),
        ({"attributes": [("group", 1)]}, "has a name, names of inputs and outputs, and"),
        ({"attributes": (["group", 1],)}, "has a name, names of inputs and outputs, and"),
        ({"opset": True}, "the version of operators is an integer from 1 on, received True"),
        ({"opset": -(2**70)}, "the version of operators is an integer from 1 on"),
        (
            {"kind": "LayerNormalization", "attributes": (), "opset": 3},
            "no operator LayerNormalization in version 3",
        ),
        ({"attributes": (("group", True),)}, "has no attribute 'group' of bool"),
        ({"attributes": (("group", 2**63),)}, "has no attribute 'group' of int"),
        ({"attributes": (("group", (1,)),)}, "has no attribute 'group' of tuple"),
        ({"attributes": (("pads", [1, 1]),)}, "has no attribute 'pads' of list"),
        ({"attributes": (("pads", (1, 1.0)),)}, "has no attribute 'pads' of tuple"),
        ({"attributes": (("alpha", 1.0),)}, "has no attribute 'alpha' of float"),
        ({"attributes": (("auto_pad", b"VALID"),)}, "has no attribute 'auto_pad' of bytes"),
    ],
)
def test_node_that_is_none(attributes, message):
    usual = {
        "kind": "Conv",
        "name": "conv",
        "inputs": ("x", "w"),
        "outputs": ("y",),
        "attributes": (("group", 1),),
    }
    Node(**usual, opset=2**70)  # a later version than onnx knows
    with pytest.raises(ValueError, match=message):
        Node(**{**usual, "opset": 18, **attributes})


@pytest.mark.parametrize(
    ("dtype", "shape", "content"),
    [
        ("float80", (1,), bytes(10)),
        ("<U500000000", (0,), b""),
        ("int64", [1], bytes(8)),
        ("int64", (-1,), bytes(8)),
        ("int64", (2,), bytes(8)),
        ("int64", (1,), "        "),
        ("int64", (True,), bytes(8)),
        ("int8", (1,) * 70, bytes(1)),
        ("int8", (0, 2**70), b""),
        ("bool", (2,), b"\x01\x02"),
        ("object", (1,), bytes(8)),
        ("object", (2,), ("a",)),
        ("object", (1,), (1,)),
    ],
)
def test_constant_that_is_none(dtype, shape, content):
    with pytest.raises((ValueError, OverflowError)):
        Constant(dtype, shape, content)


@pytest.mark.parametrize(
    "x",
    [
        np.asarray(3),
        np.asarray([[True, False]]),
        np.zeros((0, 2), "uint8"),
        np.asarray([["a", "ü"]], dtype=object),
    ],
)
def test_constant_is_the_array(x):
    constant = Constant.of(x)
    np.testing.assert_array_equal(np.asarray(constant), x, strict=True)
    assert constant == Constant.of(x.copy())
    assert hash(constant) == hash(Constant.of(x.copy()))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            network_of(node("Relu", "b", "y"), node("Relu", "x", "b")),
            "what is made before it, received b, which is",
        ),
        (
            network_of(node("Relu", "x", "y z"), node("Add", "y z", "w"), outputs=("w",)),
            "received z, which is not",
        ),
        (network_of(node("Relu", "x", "z")), "received y, which is not"),
        (network_of(node("Relu", "", "y")), "Relu, a Relu, cannot take what it receives"),
        (network_of(node("Scan", "x", "y")), "Scan, a Scan, cannot take what it receives"),
        (network_of(node("Cast", "x", "y")), "Cast, a Cast, cannot take what it receives"),
        (
            network_of(node("Add", "t t", "y"), t=np.asarray(["a"], dtype=object)),
            "computes with numbers, received texts",
        ),
        (
            network_of(node("Add", "x w", "y"), weights={"w": "text"}),
            "must be arrays of numbers, received .* at w",
        ),
        (
            network_of(node("Add", "x w", "y"), weights={"w": np.asarray([10**99])}),
            "must be arrays of numbers",
        ),
        (
            network_of(node("Split", "x n", "y"), n=[1] * 100_000),
            "splits into 1 parts, received 100000 lengths",
        ),
        (
            network_of(node("Einsum", "x x", "y", equation="a" * 10**6 + "," + "b" * 10**6 + "->a")),
            "needs as many axes as",
        ),
    ],
)
def test_nodes_that_cannot_be_run(net, message, path):
    for each in (net, saved(net, path)):
        with pytest.raises(ValueError, match=message):
            each(normal(3))


def loop_of(*nodes, outputs=("c",), length=2**20):
    """Make a network with a loop of 60 steps, which reads ``a`` of some length."""
    body = Body(nodes, ("t",), outputs)
    scan = node("Scan", " ".join(("s", *body.outer)), "y", body=body, num_scan_inputs=1)
    made = [node("ConstantOfShape", "n", "s"), node("ConstantOfShape", "l", "a")]
    return network_of(*made, scan, n=[60], l=[length], k=[1024, -1])


@pytest.mark.parametrize(
    "net",
    [
        loop_of(node("Exp", "a", "b"), node("ReduceSum", "b", "c")),
        loop_of(node("Reshape", "a k", "b"), node("MatMul", "b b", "d"), node("ReduceSum", "d", "c")),
        loop_of(node("ReduceSum", "a", "c")),
        loop_of(*(node("Neg", "t", "c") for _ in range(1000))),
    ],
    ids=["elements", "product", "reads", "calls"],
)
def test_network_that_would_take_long(net, monkeypatch):
    monkeypatch.setattr(nodes.node, "MOST_WORK", 2**24)  # to see it sooner
    with pytest.raises(ValueError, match="must be in proportion to its inputs and weights"):
        net(normal(3))


def many(read):
    """Make a network of 30 nodes that make large arrays, some of which are read at the end."""
    made = [node("ConstantOfShape", "l", f"a{i}") for i in range(30)]
    return network_of(*made, node("Sum", " ".join(f"a{i}" for i in range(read)), "y"), l=[2**20])


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(nodes.node, "MOST_WORK", 2**60)
    assert many(5)(normal(3)).shape == (2**20,)  # the others are not kept
    with pytest.raises(ValueError, match="must be in proportion to its inputs and weights"):
        many(20)(normal(3))
    loop = loop_of(node("Neg", "t", "c"), node("Identity", "a", "b"), outputs=("b",) * 9, length=2**12)
    with pytest.raises(ValueError, match="a node may make"):  # all outputs of a loop together
        loop(normal(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("body", None),
        ("body", 3),
        ("weights", {"list": []}),
        ("fixed", None),
        ("constants", {"dict": [["a", 1]]}),
        ("inputs", {"tuple": ["x"]}),
    ],
)
def test_attributes_of_a_file_that_are_none_of_a_network(path, name, value):
    xpnet.onnx.export(nn.Dense(2, 3, seed=0), normal(2, 2), path)
    xpnet.save(xpnet.onnx.load(path), path)

    def change(content):
        content["net"]["attributes"][name] = value
        return content

    damaged(path, change)
    with pytest.raises(ValueError, match="description is damaged at"):
        xpnet.load(path)


def test_array_that_cannot_be_read_is_named(path):
    weights = helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    output = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "test", [], [output], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    with pytest.raises(ValueError, match=r"has an array of .*bfloat16.* at w, which xpnet cannot read"):
        xpnet.onnx.load(path)


def test_attribute_that_cannot_be_read_is_named(path):
    sparse = helper.make_sparse_tensor(tensor(np.ones(1, "float32"), "values"), tensor(np.asarray([0])), [2])
    file_of(str(path), [helper.make_node("Constant", [], ["y"], sparse_value=sparse)], {})
    with pytest.raises(ValueError, match="has sparse_value in Constant, which xpnet cannot read"):
        xpnet.onnx.load(path)
