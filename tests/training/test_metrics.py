import math
import pickle

import numpy as np
import pytest
import sklearn.metrics as reference
from helpers import rounding

import xpnet
from xpnet import metrics
from xpnet.training.metrics import Metric
from xpnet.training.metrics.functions import as_metric
from xpnet.training.totals import Totals

random = np.random.default_rng(0)
LOGITS = random.normal(size=(37, 4))
LABELS = random.integers(4, size=37)
OUTPUTS = random.normal(size=(37, 2))
TARGETS = OUTPUTS + 0.3 * random.normal(size=(37, 2))

FAR = TARGETS + np.asarray([0.0, 1000.0])
SEQUENCES = random.normal(size=(37, 5, 4))
IMAGES = random.normal(size=(37, 2, 3, 2))

# A metric, outputs, targets, and what scikit-learn makes of all of them.
CASES = {
    "accuracy": (metrics.accuracy, LOGITS, LABELS, reference.accuracy_score(LABELS, LOGITS.argmax(-1))),
    "accuracy of probabilities": (
        metrics.accuracy,
        LOGITS,
        0.9 * np.eye(4)[LABELS] + 0.1 / 4,
        reference.accuracy_score(LABELS, LOGITS.argmax(-1)),
    ),
    "accuracy of sequences": (
        metrics.accuracy,
        SEQUENCES,
        np.stack([LABELS] * 5, axis=1),
        reference.accuracy_score(np.repeat(LABELS, 5), SEQUENCES.argmax(-1).ravel()),
    ),
    "top 2": (
        metrics.top_k_accuracy(2),
        LOGITS,
        LABELS,
        reference.top_k_accuracy_score(LABELS, LOGITS, k=2),
    ),
    "top 3 of sequences": (
        metrics.top_k_accuracy(np.int64(3)),
        SEQUENCES,
        np.stack([LABELS] * 5, axis=1),
        reference.top_k_accuracy_score(np.repeat(LABELS, 5), SEQUENCES.reshape(-1, 4), k=3),
    ),
    "binary accuracy": (
        metrics.binary_accuracy,
        OUTPUTS,
        (TARGETS > 0) * 1.0,
        reference.accuracy_score((TARGETS > 0).ravel(), (OUTPUTS > 0).ravel()),
    ),
    "mean absolute error": (
        metrics.mean_absolute_error,
        OUTPUTS,
        TARGETS,
        reference.mean_absolute_error(TARGETS, OUTPUTS),
    ),
    "root mean squared error": (
        metrics.root_mean_squared_error,
        OUTPUTS,
        TARGETS * [1.0, 10.0],
        reference.root_mean_squared_error(TARGETS * [1.0, 10.0], OUTPUTS),
    ),
    "r2": (metrics.r2, OUTPUTS, TARGETS, reference.r2_score(TARGETS, OUTPUTS)),
    "r2 of one column": (
        metrics.r2,
        OUTPUTS[:, 0],
        TARGETS[:, 0],
        reference.r2_score(TARGETS[:, 0], OUTPUTS[:, 0]),
    ),
    "r2 of the means of columns": (
        metrics.r2,
        np.broadcast_to(np.mean(FAR, axis=0), FAR.shape).copy(),
        FAR,
        0.0,
    ),
    "r2 of images": (
        metrics.r2,
        IMAGES,
        IMAGES**3,
        reference.r2_score((IMAGES**3).reshape(37, -1), IMAGES.reshape(37, -1)),
    ),
}


def over_batches(metric, outputs, targets, device, size=16):
    """Return what a metric is over batches, of which the last is smaller."""
    totals = Totals([metric])
    for start in range(0, len(targets), size):
        part = [xpnet.asarray(x[start : start + size], device=device) for x in (outputs, targets)]
        totals.add(xpnet.asarray(float(start), device=device), *part)
    return totals.results()


@pytest.mark.parametrize("case", CASES)
def test_value(device, case):
    metric, outputs, targets, expected = CASES[case]
    outputs, targets = xpnet.asarray(outputs, device=device), xpnet.asarray(targets, device=device)
    assert metric(outputs, targets) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_sum_over_uneven_batches_is_exact(device, case):
    metric, outputs, targets, expected = CASES[case]
    results = over_batches(metric, outputs, targets, device)
    assert results[metric.name] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert results["loss"] == pytest.approx((16 * 16 + 32 * 5) / 37)


# -- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("center", "spread", "dtype"),
    [(1.7e9, 1.0, "float64"), (20000.0, 10.0, "float32"), (0.0, 1.0, "float32")],
)
@pytest.mark.parametrize("size", [7, 100, 1000])
def test_r2_far_from_zero_is_that_of_scikit_learn(device, center, spread, dtype, size):
    """Single precision as on a device without double: JAX unless it is asked for more."""
    random = np.random.default_rng(1)
    targets = (center + spread * random.normal(size=(1000, 2))).astype(dtype)
    outputs = (targets + 0.5 * spread * random.normal(size=(1000, 2))).astype(dtype)
    found = over_batches(metrics.r2, outputs, targets, device, size)["r2"]
    expected = reference.r2_score(targets.astype("float64"), outputs.astype("float64"))
    assert 0.7 < expected < 0.8
    assert found == pytest.approx(expected, abs=rounding(1000, "float64"))


@pytest.mark.parametrize("center", [1.7e9, 20000.0])
def test_r2_in_single_precision_alone(monkeypatch, device, center):
    xp = device.namespace

    def narrow(x):
        return xp.astype(x, xp.float32) if xpnet.tree.is_array(x) else x

    monkeypatch.setattr(xpnet.training.metrics.numbers, "wide", narrow)
    random = np.random.default_rng(2)
    spread = center / 2000
    targets = (center + spread * random.normal(size=(3000, 1))).astype("float32")
    outputs = (targets + 0.5 * spread * random.normal(size=(3000, 1))).astype("float32")
    found = over_batches(metrics.r2, outputs, targets, device, 32)["r2"]
    # Of 1 - errors / spread, each a sum of 32 squares of rounded differences, but for what is merged.
    expected = reference.r2_score(targets.astype("float64"), outputs.astype("float64"))
    assert found == pytest.approx(expected, abs=rounding(2 * 40, "float32"))


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("value", [0.1, 7.0, 1.7e9])
def test_r2_of_constant_targets(device, value, size):
    targets = np.full((5, 2), value)
    nearly = targets * [1.0, 1 + 1e-9]
    for outputs in (targets, nearly, nearly * 2):
        expected = np.mean([1.0 if all(x == value) else 0.0 for x in outputs.T])
        assert over_batches(metrics.r2, outputs, targets, device, size)["r2"] == expected
    assert [reference.r2_score(np.ones((5, 2)), x) for x in (np.ones((5, 2)), np.zeros((5, 2)))] == [1.0, 0.0]


def test_r2_of_fewer_than_two_examples_is_nan(device):
    one = xpnet.asarray([[1.0, 2.0]], device=device)
    assert math.isnan(metrics.r2(one, one))
    assert over_batches(metrics.r2, np.ones((2, 1)), np.ones((2, 1)), device, 1)["r2"] == 1


@pytest.mark.parametrize("outlier", [0, 999])
def test_r2_with_an_outlier(device, outlier):
    targets = np.random.default_rng(3).normal(size=1000)
    outputs = targets + 0.5
    targets[outlier] = outputs[outlier] = 1e9
    rest = np.arange(1000) != outlier
    assert over_batches(metrics.r2, outputs, targets, device)["r2"] == pytest.approx(
        reference.r2_score(targets, outputs), rel=1e-12
    )
    # The squared deviations of the others are not lost in those of a first batch that is far away.
    near = over_batches(metrics.r2, outputs[rest], targets[rest], device)["r2"]
    assert near == pytest.approx(reference.r2_score(targets[rest], outputs[rest]), rel=1e-12)


# -- classes ----------------------------------------------------------------------------------------------


def test_ties_go_to_the_first_class(device):
    for scores in ([0.0] * 4, [1.0, 3.0, 3.0, 3.0], [-math.inf, 0.0, math.inf, math.inf]):
        outputs = xpnet.asarray([scores] * 4, device=device)
        labels = xpnet.asarray([0, 1, 2, 3], device=device)
        assert metrics.top_k_accuracy(1)(outputs, labels) == metrics.accuracy(outputs, labels) == 0.25
        for k in (2, 3, 4):
            assert metrics.top_k_accuracy(k)(outputs, labels) == k / 4
    assert metrics.top_k_accuracy(9)(outputs, labels) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "uint64", "int64"])
def test_labels_of_any_integer_dtype(device, dtype):
    classes = 128 if dtype == "int8" else 256
    labels = np.arange(classes).astype(dtype)
    # A class more than an int8 can number.
    outputs = xpnet.asarray(np.eye(classes + 1)[labels], device=device)
    labels = xpnet.asarray(labels, device=device)
    for metric in (metrics.accuracy, metrics.top_k_accuracy(1), metrics.top_k_accuracy(2)):
        assert metric(outputs, labels) == 1
        assert metric(-outputs, labels) < 0.02


def test_a_label_that_is_no_class_is_not_right_where_nothing_waits(device):
    outputs = np.asarray([[0.0, -1.0], [-1.0, -2.0]])
    for metric in (metrics.accuracy, metrics.top_k_accuracy(1), metrics.top_k_accuracy(2)):
        assert over_batches(metric, outputs, np.asarray([-1, 2]), device)[metric.name] == 0


def test_a_logit_of_0_is_not_positive():
    assert metrics.binary_accuracy(np.asarray([0.0, 0.0, 0.5]), np.asarray([0.0, 0.0, 1.0])) == 1
    assert metrics.binary_accuracy(np.asarray([0.0, -0.0]), np.asarray([1.0, 1.0])) == 0


@pytest.mark.parametrize(("no", "yes"), [(0, 1), (-1, 1), (0.1, 0.9), (False, True), (0.0, 1.0)])
def test_answers_in_any_writing(device, no, yes):
    outputs = xpnet.asarray([3.0, -1.0, 0.2, -0.2], device=device)
    assert metrics.binary_accuracy(outputs, xpnet.asarray([yes, no, yes, yes], device=device)) == 0.75
    assert metrics.binary_accuracy(outputs, xpnet.asarray([no, yes, no, no], device=device)) == 0.25


def test_which_metric_is_of_logits():
    assert metrics.binary_accuracy.takes_logits
    assert not any(each.takes_logits for each in (metrics.accuracy, metrics.r2, metrics.top_k_accuracy(2)))


ALL = {
    "accuracy": (metrics.accuracy, LOGITS, LABELS),
    "top 1": (metrics.top_k_accuracy(1), LOGITS, LABELS),
    "top 4": (metrics.top_k_accuracy(4), LOGITS, LABELS),
    "binary accuracy": (metrics.binary_accuracy, OUTPUTS, np.ones((37, 2))),
    "mean absolute error": (metrics.mean_absolute_error, OUTPUTS, TARGETS),
    "root mean squared error": (metrics.root_mean_squared_error, OUTPUTS, TARGETS),
    "r2": (metrics.r2, OUTPUTS, TARGETS),
    "r2 of constant targets": (metrics.r2, OUTPUTS, np.ones((37, 2))),
}


@pytest.mark.parametrize("place", [(0, 0), (20, 1)])
@pytest.mark.parametrize("case", ALL)
def test_nan_is_not_right(device, case, place):
    metric, outputs, targets = ALL[case]
    outputs = outputs.copy()
    outputs[place] = math.nan
    assert math.isnan(over_batches(metric, outputs, targets, device)[metric.name])
    outputs, targets = xpnet.asarray(outputs, device=device), xpnet.asarray(targets, device=device)
    assert math.isnan(metric(outputs, targets))


# -- what is refused --------------------------------------------------------------------------------------

CLASSES = [metrics.accuracy, metrics.top_k_accuracy(2)]
NUMBERS = [metrics.r2, metrics.mean_absolute_error, metrics.root_mean_squared_error, metrics.binary_accuracy]
MANY = np.zeros((40, 1))  # all targets, beside the outputs of a batch

SHAPES = [
    (
        CLASSES,
        np.zeros((5, 1)),
        np.zeros(40, "int64"),
        r"at least two classes.*\(5, 1\).*binary_accuracy.*r2",
    ),
    (CLASSES, np.zeros((5, 1)), MANY, r"at least two classes, .*\(5, 1\).*metrics.binary_accuracy"),
    (CLASSES, np.zeros(5), np.zeros(40, "int64"), r"at least two classes.*shape \(5,\).*binary_accuracy"),
    (
        CLASSES,
        np.zeros((5, 3)),
        np.zeros((40, 1), "int64"),
        r"\(5, 3\) and targets of shape \(5, 1\).*\[:, 0\]",
    ),
    (CLASSES, np.zeros((5, 3)), np.zeros((40, 2)), r"\(5, 3\) and targets of shape \(5, 2\). Reshape"),
    (CLASSES, np.zeros((5, 3)), np.zeros((3, 3)), "as many targets as outputs, received 5 outputs and 3 t"),
    (CLASSES, np.zeros((5, 7, 3)), np.zeros(40, "int64"), r"\(5, 7, 3\) and targets of shape \(5,\)"),
    (CLASSES, np.zeros((5, 3)), np.zeros(40), r"needs integers as labels.*received .*float64\. .*metrics.r2"),
    (CLASSES, np.zeros((5, 3)), np.zeros(40, "bool"), r"needs integers as labels.*received .*bool"),
    (NUMBERS, np.zeros((5, 1)), np.zeros(40), r"received \(5, 1\) and \(5,\).*reshape"),
    (NUMBERS, np.zeros(5), MANY, r"received \(5,\) and \(5, 1\).*reshape"),
    (NUMBERS, np.zeros((5, 3)), np.zeros(40, "int64"), r"received \(5, 3\) and \(5,\).*metrics.accuracy"),
    (NUMBERS, np.zeros((0, 1)), np.zeros((0, 1)), r"needs at least one example, .*\(0, 1\)"),
]

VALUES = [
    (CLASSES, np.zeros((5, 3)), np.arange(40), "labels must be from 0 to 2 .* from 0 to 39"),
    (
        CLASSES,
        np.zeros((5, 3)),
        np.arange(40) % 3 - 1,
        r"labels must be from 0 to 2 .* from -1 to 1.*ignore_index=-1\), metrics\.accuracy\.ignoring\(-1\)\.",
    ),
    (
        CLASSES,
        np.zeros((5, 3)),
        np.eye(3)[[0] * 39 + [1]] + [0, 0, 1],
        "sum of 1.*from 2 to 2.*binary_accuracy",
    ),
    (CLASSES, np.zeros((5, 3)), np.zeros((40, 3)), "sum of 1 in each row.*from 0 to 0.*binary_accuracy"),
    (CLASSES, np.zeros((5, 2)), np.asarray([[-1.0, 2.0]] * 40), "numbers from -1 .*metrics.r2"),
    (CLASSES, np.zeros((5, 2)), np.full((40, 2), math.nan), "sum of 1 in each row"),
    (
        NUMBERS[3:],
        np.zeros(5),
        np.arange(40) % 3,
        "1 for yes and 0 or -1 for no.*from 0 to 2.*metrics.accuracy",
    ),
    (NUMBERS[3:], np.zeros(5), np.full(40, 1.5), "from 1.5 to 1.5.*metrics.r2"),
    (NUMBERS[3:], np.zeros(5), np.full(40, math.nan), "from nan to nan"),
]


@pytest.mark.parametrize("case", range(len(SHAPES + VALUES)))
def test_what_makes_no_sense_is_refused_before_a_training(device, case):
    refusing, outputs, targets, message = (SHAPES + VALUES)[case]
    outputs, targets = xpnet.asarray(outputs, device=device), xpnet.asarray(targets, device=device)
    for metric in refusing:
        with pytest.raises(ValueError, match=message):
            metric.check_targets(outputs, targets)
        with pytest.raises(ValueError, match=message):
            metric(outputs, targets)


@pytest.mark.parametrize("case", [i for i, case in enumerate(SHAPES) if "integers" not in case[3]])
def test_wrong_shapes_are_refused_in_each_batch(case):
    refusing, outputs, targets, message = SHAPES[case]
    for metric in refusing:
        with pytest.raises(ValueError, match=message):
            metric.totals(outputs, targets[: len(outputs)])


@pytest.mark.parametrize("metric", [*CLASSES, *NUMBERS, metrics.accuracy.of_part("part", max)])
def test_metrics_can_be_pickled(metric):
    again = pickle.loads(pickle.dumps(metric))
    assert (again.name, again.__doc__) == (metric.name, metric.__doc__)
    if metric in CLASSES:
        assert again(LOGITS, LABELS) == metric(LOGITS, LABELS)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("accuracy", r"received 'accuracy'\. Write xpnet\.metrics\.accuracy\."),
        ("f1", "received 'f1'[.]$"),
        (metrics.top_k_accuracy, r"received top_k_accuracy, which makes one\. Write top_k_accuracy\(5\)\."),
    ],
)
def test_what_is_no_metric(metric, message):
    with pytest.raises(TypeError, match=message):
        as_metric(metric)


def test_a_metric_that_is_no_number():
    each = Metric("each", lambda outputs, targets: (np.ones(3),), lambda ones: ones)
    with pytest.raises(TypeError, match=r"must be one number, received an array of shape \(3,\) from each"):
        each(LOGITS, LABELS)


def test_complex_outputs_and_single_numbers_are_refused():
    with pytest.raises(TypeError, match="r2 compares real numbers, received outputs of complex128"):
        metrics.r2(np.ones(3) * 1j, np.ones(3))
    with pytest.raises(ValueError, match=r"r2 needs at least one example, on the first axis, .*\(\)"):
        metrics.r2(np.asarray(1.0), np.asarray(1.0))


def test_other_numbers_of_outputs_and_targets_are_refused(device):
    outputs, labels = xpnet.asarray(LOGITS, device=device), xpnet.asarray(LABELS, device=device)
    for metric in CLASSES:
        metric.check_targets(outputs[:5, ...], labels)
        with pytest.raises(ValueError, match="as many targets as outputs, received 5 outputs and 37 targets"):
            metric(outputs[:5, ...], labels)
    for metric in NUMBERS[:3]:
        metric.check_targets(outputs[:5, ...], outputs)
        with pytest.raises(ValueError, match="as many targets as outputs, received 5 outputs and 37 targets"):
            metric(outputs[:5, ...], outputs)


@pytest.mark.parametrize("metric", [*CLASSES, *NUMBERS])
def test_several_outputs(device, metric):
    targets = xpnet.asarray([[0.0, 1.0], [1.0, 0.0]], device=device)
    part = metric.of_part("second", lambda outputs, targets: (outputs[1], targets["y"]))
    outputs = (None, targets)
    assert part(outputs, {"y": targets}) == metric(targets, targets)
    assert part.name == "second"
    for several in (outputs, {"a": targets}):
        with pytest.raises(TypeError, match=r"received outputs of type (tuple|dict)\. .*\.of_part"):
            metric.totals(several, targets)
        with pytest.raises(TypeError, match="outputs of type"):
            metric.check_targets(several, targets)
    with pytest.raises(TypeError, match=r"received targets of type list\. `xpnet.asarray` makes an array"):
        metric(targets, [[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"shape|of one shape"):
        part.check_targets((None, targets[:, 0]), {"y": targets})


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "2", None])
def test_k_is_a_positive_integer(k):
    with pytest.raises(ValueError, match=f"k must be a positive integer, received {k!r}"):
        metrics.top_k_accuracy(k)


# -- totals -----------------------------------------------------------------------------------------------


def test_many_batches_in_single_precision(device):
    """What is summed in single precision loses digits with each, and stands still at 2**24."""
    xp, batches = device.namespace, 70_000 if device.library.spec == "cpu" else 3_000
    count = Metric("count", lambda outputs, targets: (xp.asarray(1000.0, dtype=xp.float32),), lambda n: n)
    totals = Totals([count])
    loss = xp.asarray(0.1, dtype=xp.float32, device=device.native)
    targets = xp.ones(1, device=device.native)
    for _ in range(batches):
        totals.add(loss, targets, targets)
    assert totals.results()["loss"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert totals.results()["count"] == batches * 1000


def test_counts_beyond_what_a_float32_can_tell_apart():
    totals = Totals([metrics.accuracy])
    outputs, labels = np.zeros((3, 2), "float32"), np.zeros(3, "int64")
    totals.sums = [[2.0**24, 2**24], [2.0**24, 2.0**24, 0.0]]
    totals.add(np.float32(1), outputs, labels)
    assert totals.sums == [[2**24 + 3, 2**24 + 3], [2**24 + 3, 2**24 + 3, 0]]


@pytest.mark.parametrize("batches", [1, 255, 256, 257, 600])
def test_totals_do_not_depend_on_when_they_are_read(device, batches):
    random = np.random.default_rng(0)
    data = [
        [xpnet.asarray(random.normal(size=(3, 2)), device=device) for _ in range(2)] for _ in range(batches)
    ]
    whole, read, resumed = (Totals([metrics.r2, metrics.mean_absolute_error]) for _ in range(3))
    for index, (outputs, targets) in enumerate(data):
        loss = outputs[0, 0]
        whole.add(loss, outputs, targets)
        read.add(loss, outputs, targets)
        resumed.add(loss, outputs, targets)
        if index % 7 == 3:
            read.results()
            sums, resumed = resumed.sums, Totals([metrics.r2, metrics.mean_absolute_error])
            resumed.sums = sums
    assert whole.sums == read.sums == resumed.sums
    assert whole.results() == read.results() == resumed.results()


def test_large_totals_do_not_wait_for_long(monkeypatch):
    on_host, waiting = xpnet.training.totals.to_host, []
    monkeypatch.setattr(
        xpnet.training.totals, "to_host", lambda totals: waiting.append(batch) or on_host(totals)
    )
    large = Metric("large", lambda outputs, targets: (np.ones(2**20),), lambda x: x[0])
    totals = Totals([large])
    for batch in range(9):  # noqa: B007  # read above
        totals.add(0.0, np.ones(1), np.ones(1))
    assert sorted(set(waiting)) == [3, 7]
    assert totals.results() == {"loss": 0, "large": 9}


def test_a_metric_that_is_merged_in_its_own_way(device):
    largest = Metric(
        "largest",
        lambda outputs, targets: (device.namespace.max(abs(outputs - targets)),),
        lambda error: error,
        merge=lambda totals, more: (max(totals[0], more[0]),),
    )
    assert over_batches(largest, OUTPUTS, TARGETS, device, 5)["largest"] == abs(OUTPUTS - TARGETS).max()


def test_function_is_averaged_over_examples():
    metric = as_metric(lambda outputs, targets: abs(outputs - targets).mean())
    assert isinstance(metric, Metric)
    totals = Totals([metric])
    totals.add(0.0, np.asarray([1.0, 2.0, 3.0]), np.zeros(3))
    totals.add(0.0, np.asarray([10.0]), np.zeros(1))
    assert totals.results()[metric.name] == pytest.approx(16 / 4)


def test_function_of_half_precision_does_not_overflow(device):
    xp = device.namespace
    half = "float16" if hasattr(xp, "float16") else "float32"
    mean = as_metric(lambda outputs, targets: xp.mean(outputs))
    outputs = xpnet.asarray(np.full(4000, 60), device=device, dtype=half)
    totals = Totals([mean])
    for _ in range(3):
        totals.add(0.0, outputs, outputs)
    assert totals.results()[mean.name] == 60
    assert as_metric(lambda outputs, targets: np.float16(60))(np.ones(4000), np.ones(4000)) == 60


@pytest.mark.parametrize("received", [np.ones(3), np.ones(1), None, "0.5", (0.5,)])
def test_function_that_returns_no_number(received):
    def score(outputs, targets):
        return received

    with pytest.raises(TypeError, match=r"must return one number for a batch, received .* from score"):
        as_metric(score)(np.ones(3), np.ones(3))


def test_function_keeps_what_it_says_of_itself():
    def score(outputs, targets):
        return 0.5

    assert as_metric(score).check_targets is None
    assert not as_metric(score).takes_logits
    score.check_targets, score.takes_logits = lambda outputs, targets: 1 / 0, True
    assert as_metric(score).takes_logits
    with pytest.raises(ZeroDivisionError):
        as_metric(score)(np.ones(3), np.ones(3))


def test_bad_metrics():
    with pytest.raises(TypeError, match=r"one of xpnet.metrics or a function.*received 'accuracy'"):
        as_metric("accuracy")


class ReadInParts:
    """Examples that are made when they are asked for."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, i):
        return tuple(array[i] for array in self.arrays)


@pytest.mark.parametrize("name", ["accuracy", "accuracy of sequences", "binary accuracy", "r2"])
def test_of_data_that_are_read_in_parts(name):
    metric, outputs, targets, expected = CASES[name]
    net = xpnet.nn.Sequential(xpnet.nn.Dense(outputs.shape[-1], outputs.shape[-1], seed=0))
    net[0].weight, net[0].bias = np.eye(outputs.shape[-1]), np.zeros(outputs.shape[-1])
    options = {"loss": lambda y, _: xpnet.losses.mse(y, y * 0), "optimizer": xpnet.optim.SGD(0.0)}
    data = ReadInParts(outputs, targets)  # the last batch has fewer examples
    history = xpnet.fit(net, data, validation=data, metrics=[metric], epochs=2, batch_size=16, **options)
    for scores in (history[metric.name], history[f"validation_{metric.name}"]):
        assert scores == pytest.approx([expected] * 2)
