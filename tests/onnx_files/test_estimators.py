"""Estimators as ONNX files, run by onnxruntime: alone, and in pipelines that skl2onnx converts."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from helpers import rounding
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import xpnet
import xpnet.onnx
from xpnet import nn
from xpnet.sklearn import MLPClassifier, MLPRegressor, register_onnx_converters

random = np.random.default_rng(0)
CLASS = np.arange(60) % 3
# Three groups far from each other, so that no label hangs on a rounding.
X = 4 * np.eye(3)[CLASS] + random.uniform(-0.5, 0.5, size=(60, 3))
SEVERAL = X > 2
SETTINGS = {"hidden_layer_sizes": (8,), "solver": "lbfgs", "alpha": 1.0, "random_state": 0}
BRIEF = {"hidden_layer_sizes": (8,), "tol": 1e6, "n_iter_no_change": 1, "random_state": 0}  # a few epochs

LABELS = {
    "two numbers": CLASS == 1,
    "two texts": np.asarray(["no", "ja"])[(CLASS == 1).astype(int)],
    "int64": CLASS + 5,
    "int8": (CLASS - 1).astype("int8"),
    "uint64": CLASS.astype("uint64"),
    "float32": CLASS.astype("float32"),
    "texts": np.asarray(["b", "ä", "日本語"])[CLASS],
    "objects": np.asarray(["b", "a", "c"], dtype=object)[CLASS],
    "several": SEVERAL.astype(int),
    "one": np.full(60, 7),
    "one text": np.full(60, "only"),
}


def classifier(**options):
    return MLPClassifier(**(SETTINGS | options))


def regressor(**options):
    return MLPRegressor(**(BRIEF | options))


def with_loops(features, outputs):
    """A network that has no dense layer at its front, and a loop."""
    layers = lambda x: x[:, :, None], nn.LSTM(1, 4, seed=0), lambda x: x[:, -1], nn.Dense(4, outputs, seed=0)
    return nn.Sequential(*layers)


def run(path_or_bytes, inputs):
    """Return the outputs by name."""
    session = onnxruntime.InferenceSession(path_or_bytes, providers=["CPUExecutionProvider"])
    return dict(zip((x.name for x in session.get_outputs()), session.run(None, inputs), strict=True))


def compare(found, model, x, dtype):
    """Compare outputs with predictions, which are made of products with inner lengths below 50."""
    predicted = model.predict(x)
    tolerance = rounding(100, dtype, scale=8.0)  # which is more than any input or score
    if not hasattr(model, "predict_proba"):
        assert list(found) == ["variable"]
        assert found["variable"].shape == (len(x), predicted.size // len(x))
        np.testing.assert_allclose(
            found["variable"], predicted.reshape(len(x), -1), rtol=tolerance, atol=tolerance
        )
        return
    assert list(found) == ["label", "probabilities"]
    assert found["label"].shape == predicted.shape
    assert (found["label"] == predicted).all()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(x), atol=tolerance)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "estimator.onnx")


# -- alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", LABELS)
def test_classifier(labels, dtype, path):
    x, y = X.astype(dtype), LABELS[labels]
    model = classifier().fit(x, y)
    xpnet.onnx.export(model, x, path)
    for batch in (1, 7):
        found = run(path, {"input": x[:batch]})
        is_text = model.classes_.dtype.kind in "UO"
        assert found["label"].dtype == (object if is_text else model.predict(x).dtype)
        assert found["probabilities"].dtype == dtype
        compare(found, model, x[:batch], dtype)
    assert labels.startswith("one") or len(np.unique(found["label"])) == len(np.unique(y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("options", "y"),
    [
        ({}, X[:, 0]),
        ({"activation": "gelu", "batch_norm": True}, X[:, :2]),
        ({"loss": "poisson"}, X[:, 0] + 1),
        ({"loss": "quantile", "quantile": (0.1, 0.5, 0.9)}, X[:, 0]),
        ({"loss": "huber", "activation": nn.ELU()}, X[:, 0]),
    ],
    ids=["one", "two", "poisson", "quantiles", "layer"],
)
def test_regressor(options, y, dtype, path):
    x = X.astype(dtype)
    model = regressor(**options).fit(x, y)
    xpnet.onnx.export(model, x, path)
    for batch in (1, 7):
        found = run(path, {"input": x[:batch]})
        assert found["variable"].dtype == dtype
        compare(found, model, x[:batch], dtype)


def test_calibrated(path):
    model = MLPClassifier(**BRIEF, calibrate=True).fit(X, CLASS)
    assert abs(model.temperature_ - 1) > 0.01
    xpnet.onnx.export(model, X, path)
    compare(run(path, {"input": X}), model, X, "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # of the data; the network computes in float32
def test_network_of_ones_own(dtype, path):
    x = X.astype(dtype)
    model = regressor(module=with_loops).fit(x, x[:, 0])
    xpnet.onnx.export(model, x, path)
    found = run(path, {"input": x})
    assert found["variable"].dtype == "float32"
    compare(found, model, x, "float32")


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_examples_as_data_frames_and_sparse_matrices(path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = classifier().fit(frame, CLASS)
    for example in (frame[:1], sparse.csr_matrix(X[:2]), X.tolist()):
        xpnet.onnx.export(model, example, path)
        compare(run(path, {"input": X}), model, frame, "float64")


def test_weights_of_any_library(device, path):
    model = regressor(device=device.spec).fit(X.astype("float32"), X[:, 0])
    xpnet.onnx.export(model, xpnet.asarray(X[:1], dtype="float32", device=device), path)
    compare(run(path, {"input": X.astype("float32")}), model, X.astype("float32"), "float32")


def test_names_and_weights_of_the_file(path):
    model = classifier().fit(X, CLASS)
    xpnet.onnx.export(model, X, path, input_names=["x"], output_names=["class", "share"])
    assert list(run(path, {"x": X})) == ["class", "share"]
    loaded = xpnet.onnx.load(path)
    assert sorted(loaded.weights) == [
        f"network.layers.{index}.{name}" for index in (0, 2) for name in ("bias", "weight")
    ]
    assert (xpnet.to_numpy(loaded(X)[0]) == CLASS).all()


def test_refusals(path, tmp_path):
    days = np.asarray(["2030-01-01", "2030-01-02", "2030-01-03"], dtype="datetime64[D]")
    model = classifier().fit(X, days[CLASS])
    with pytest.raises(ValueError, match=r"numbers, truths or text, received classes_ of datetime64\[D\]"):
        xpnet.onnx.export(model, X, path)
    with pytest.raises(NotFittedError):
        xpnet.onnx.export(classifier(), X, path)
    with pytest.raises(ValueError, match="expecting 3 features"):
        xpnet.onnx.export(model, X[:, :2], path)
    with pytest.raises(TypeError, match=r"received Pipeline\. skl2onnx exports"):
        xpnet.onnx.export(make_pipeline(model), X, path)
    assert list(tmp_path.iterdir()) == []


def test_export_does_not_import_scikit_learn():
    code = "import sys, xpnet.onnx; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# -- in pipelines -----------------------------------------------------------------------------------------


@pytest.fixture
def skl2onnx():
    converter = pytest.importorskip("skl2onnx")
    register_onnx_converters()
    return converter


def converted(skl2onnx, model, x, **options):
    return skl2onnx.to_onnx(model, x[:1], options=options or None).SerializeToString()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", LABELS)
def test_classifier_in_a_pipeline(labels, dtype, skl2onnx):
    x, y = X.astype(dtype), LABELS[labels]
    model = make_pipeline(StandardScaler(), classifier()).fit(x, y)
    file = converted(skl2onnx, model, x, zipmap=False)
    declared = onnx.load_from_string(file).graph.output
    assert [len(output.type.tensor_type.shape.dim) for output in declared] == [model.predict(x).ndim, 2]
    for batch in (1, 7):
        found = run(file, {"X": x[:batch]})
        assert found["probabilities"].dtype == dtype
        assert found["label"].dtype == (object if model.classes_.dtype.kind in "UO" else "int64")
        compare(found, model, x[:batch], dtype)


@pytest.mark.parametrize(
    "model",
    [
        regressor(),
        regressor(loss="poisson"),
        regressor(loss="quantile", quantile=(0.1, 0.9)),
        regressor(module=with_loops),
    ],
    ids=["one", "poisson", "quantiles", "loops"],
)
def test_regressor_in_a_pipeline(model, skl2onnx):
    x = X.astype("float32")
    model = make_pipeline(StandardScaler(), model).fit(x, CLASS)
    compare(run(converted(skl2onnx, model, x), {"X": x}), model, x, "float32")


# The oldest scikit-learn asks the newest SciPy for what that does no longer.
@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
@pytest.mark.parametrize(
    "model",
    [
        GridSearchCV(classifier(), {"alpha": [0.5, 1.0]}, cv=2),
        CalibratedClassifierCV(classifier(), cv=2),
        StackingClassifier([("net", classifier()), ("line", LogisticRegression())], classifier(), cv=2),
    ],
    ids=["search", "calibration", "stack"],
)
def test_classifier_in_models_of_models(model, skl2onnx):
    x, y = X.astype("float32"), LABELS["texts"]
    model.fit(x, y)
    compare(run(converted(skl2onnx, model, x, zipmap=False), {"X": x}), model, x, "float32")


def test_numbers_categories_and_texts_in_one_file(skl2onnx):
    x = pd.DataFrame(
        {
            "number": np.where(np.arange(60) % 7, X[:, 0], np.nan).astype("float32"),
            "kind": np.asarray(["left", "right"])[np.arange(60) % 2],
            "text": np.asarray(["über alles", "a word, two words", "日本 x2"])[CLASS],
        }
    )
    columns = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["number"]),
            ("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
            ("text", TfidfVectorizer(lowercase=False), "text"),
        ],
        sparse_threshold=1,
    )
    model = make_pipeline(columns, classifier()).fit(x, LABELS["texts"])
    words = {"tokenexp": r"[\p{L}\p{N}_]{2,}"}
    options = {MLPClassifier: {"zipmap": False}, TfidfVectorizer: words}
    file = skl2onnx.to_onnx(model, x[:1], options=options).SerializeToString()
    for batch in (1, 7, 60):
        inputs = {name: x[[name]][:batch].to_numpy() for name in x}
        compare(run(file, {**inputs, "kind": inputs["kind"].astype(object)}), model, x[:batch], "float32")


def test_probabilities_by_the_names_of_classes(skl2onnx):
    x = X.astype("float32")
    model = classifier().fit(x, LABELS["texts"])
    found = run(converted(skl2onnx, model, x), {"X": x[:1]})
    (probabilities,) = found["output_probability"]
    assert list(probabilities) == list(model.classes_)
    np.testing.assert_allclose(list(probabilities.values()), model.predict_proba(x[:1])[0], rtol=1e-4)
    separate = run(converted(skl2onnx, model, x, zipmap="columns"), {"X": x[:1]})
    assert list(separate) == ["output_label", *(f"s{name}" for name in model.classes_)]
