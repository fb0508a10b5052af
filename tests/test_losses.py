"""Losses against a reference written out by hand, against torch, and their gradients."""

import math

import numpy
import pytest
from helpers import assert_on, assert_same, needs_float16, on

import xpnet
from xpnet import losses

LABELS = numpy.asarray([2, 0, 3, 1, 1, 0])
WEIGHTS = numpy.asarray([0.5, 2.0, 1.0, 3.0])


def logits(device, dtype="float64", shape=(6, 4)):
    values = 3 * numpy.random.default_rng(0).normal(size=shape)
    return xpnet.asarray(values, device=device, dtype=dtype)


def probabilities(shape=(6, 4)):
    values = numpy.random.default_rng(1).random(shape)
    return values / values.sum(axis=-1, keepdims=True)


# -- references ----------------------------------------------------------------------------------------------


def reference_cross_entropy(z, labels, label_smoothing, class_weight, reduction):
    """The equation of the docstring, one row and one class after the other."""
    count, classes = z.shape
    w = numpy.ones(classes) if class_weight is None else class_weight
    each, total = numpy.zeros(count), 0.0
    for n in range(count):
        p = numpy.exp(z[n]) / numpy.exp(z[n]).sum()
        for c in range(classes):
            q = labels[n, c] if labels.ndim == 2 else float(labels[n] == c)
            t = (1 - label_smoothing) * q + label_smoothing / classes
            each[n] -= w[c] * t * math.log(p[c])
        total += w[labels[n]] if labels.ndim == 1 else 1.0
    return {"none": each, "sum": each.sum(), "mean": each.sum() / total}[reduction]


def reference_binary(z, t, weight):
    p = 1 / (1 + numpy.exp(-z))
    return -weight * t * numpy.log(p) - (1 - t) * numpy.log(1 - p)


def reference_huber(e, delta):
    return numpy.where(abs(e) <= delta, e * e / 2, delta * (abs(e) - delta / 2))


# -- cross-entropy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_cross_entropy_follows_its_equation(device, kind, smoothing, weighted, reduction):
    z = logits(device)
    labels = LABELS if kind == "labels" else probabilities()
    weight = WEIGHTS if weighted else None
    expected = reference_cross_entropy(xpnet.to_numpy(z), labels, smoothing, weight, reduction)
    weight = None if weight is None else on(device, weight)
    options = {"label_smoothing": smoothing, "class_weight": weight, "reduction": reduction}
    received = losses.cross_entropy(z, on(device, labels), **options)
    assert_on(received, device, "float64", numpy.shape(expected))
    assert_same(received, expected)
    if device.library.spec == "torch":
        import torch

        theirs = torch.nn.functional.cross_entropy(
            z, on(device, labels), label_smoothing=smoothing, weight=weight, reduction=reduction
        )
        assert_same(received, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_gradients_of_cross_entropy(device, kind, smoothing):
    labels = on(device, LABELS if kind == "labels" else probabilities())
    weight = on(device, WEIGHTS)

    def loss(z):
        return losses.cross_entropy(z, labels, label_smoothing=smoothing, class_weight=weight)

    xpnet.check_gradients(loss, logits(device), order=2)
    value, gradient = xpnet.value_and_grad(loss)(logits(device))
    assert_same(value, loss(logits(device)))
    assert_on(gradient, device, "float64", (6, 4))


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot(device):
    z = logits(device)
    labels = on(device, LABELS)
    p = numpy.exp(xpnet.to_numpy(z))
    p /= p.sum(axis=1, keepdims=True)
    expected = (p - numpy.eye(4)[LABELS]) / 6
    assert_same(xpnet.grad(losses.cross_entropy)(z, labels), expected)
    # Labels may be closed over, or traced like the logits.
    assert_same(xpnet.grad(lambda z: losses.cross_entropy(z, labels))(z), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint16", "uint32"])
def test_labels_of_any_integer_dtype(device, xp, dtype):
    z = xp.zeros((2, 200), dtype=xp.float32, device=device.native)
    received = losses.cross_entropy(z, on(device, [3, 127], dtype), reduction="none")
    assert_on(received, device, "float32", (2,))
    assert_same(received, [math.log(200), math.log(200)])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label", [-1, 4, 1000])
def test_a_label_out_of_range_gives_nan_and_never_another_class(device, label, weighted):
    labels = on(device, [2, label, 0, 1, 1, 0])
    weight = on(device, WEIGHTS) if weighted else None

    def loss(z):
        each = losses.cross_entropy(z, labels, class_weight=weight, reduction="none")
        return xpnet.array_namespace(each).sum(each), each

    (_, each), gradient = xpnet.value_and_grad(loss, has_aux=True)(logits(device))
    expected = losses.cross_entropy(
        logits(device), on(device, [2, 0, 0, 1, 1, 0]), class_weight=weight, reduction="none"
    )
    isnan = numpy.isnan(xpnet.to_numpy(each))
    assert isnan.tolist() == [False, True, False, False, False, False]
    assert_same(xpnet.to_numpy(each)[~isnan], xpnet.to_numpy(expected)[~isnan])
    without_gradient = numpy.isnan(xpnet.to_numpy(gradient)).all(axis=1)
    assert without_gradient[1]
    if device.library.spec != "strict":  # where the generic scatter-add carries a NaN on to later rows
        assert without_gradient.tolist() == isnan.tolist()
    assert math.isnan(losses.cross_entropy(logits(device), labels, class_weight=weight))


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits(device, size):
    z = on(device, [[size, 0.0, -size], [size, 0.0, -size]], "float32")
    labels = on(device, [0, 2])
    value, gradient = xpnet.value_and_grad(losses.cross_entropy)(z, labels)
    assert_same(value, size)
    assert_same(gradient, [[0.0, 0.0, 0.0], [0.5, 0.0, -0.5]])


def test_a_class_can_be_ruled_out_by_minus_infinity(device):
    z = on(device, [[1.0, -math.inf, 1.0]])
    value, gradient = xpnet.value_and_grad(losses.cross_entropy)(z, on(device, [2]))
    assert_same(value, math.log(2))
    assert_same(gradient, [[0.5, 0.0, -0.5]])


def test_cross_entropy_of_a_sequence_is_that_of_its_rows(device, xp):
    z = logits(device, shape=(2, 3, 4))
    labels = on(device, LABELS.reshape(2, 3))
    options = {"class_weight": [0.5, 2.0, 1.0, 3.0], "label_smoothing": 0.1}
    expected = losses.cross_entropy(xp.reshape(z, (6, 4)), on(device, LABELS), **options)
    assert_same(losses.cross_entropy(z, labels, **options), expected)


def test_the_loss_has_the_dtype_of_the_output(device):
    z = logits(device, "float32")
    options = {"class_weight": on(device, WEIGHTS), "label_smoothing": 0.1}
    assert_on(losses.cross_entropy(z, on(device, LABELS), **options), device, "float32", ())
    assert_on(losses.cross_entropy(z, on(device, probabilities()), **options), device, "float32", ())
    yes = on(device, probabilities())
    weight = on(device, WEIGHTS)
    assert_on(losses.binary_cross_entropy(z, yes, positive_weight=weight), device, "float32", ())
    for loss in (losses.binary_cross_entropy, losses.mse, losses.mae, losses.huber):
        assert_on(loss(z, yes), device, "float32", ())
        assert_on(loss(z, on(device, numpy.ones((6, 4), dtype=int))), device, "float32", ())
        assert_on(loss(z, on(device, numpy.ones((6, 4), dtype=bool))), device, "float32", ())


def test_settings_may_be_numbers_of_numpy(device):
    z, number = logits(device, "float32"), numpy.float64(0.5)
    yes = on(device, probabilities())
    assert_on(losses.cross_entropy(z, on(device, LABELS), label_smoothing=number), device, "float32", ())
    assert_on(losses.binary_cross_entropy(z, yes, positive_weight=number), device, "float32", ())
    assert_on(losses.huber(z, yes, delta=number), device, "float32", ())


# -- the other losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [1.0, 2.5, "one for each output"])
def test_binary_cross_entropy_follows_its_equation(device, xp, weight, reduction):
    z, targets = logits(device), probabilities()
    weight = on(device, WEIGHTS) if isinstance(weight, str) else weight
    host_weight = weight if isinstance(weight, float) else WEIGHTS
    each = reference_binary(xpnet.to_numpy(z), targets, host_weight)
    expected = {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]

    def loss(z):
        return losses.binary_cross_entropy(
            z, on(device, targets), positive_weight=weight, reduction=reduction
        )

    assert_on(loss(z), device, "float64", numpy.shape(expected))
    assert_same(loss(z), expected)
    xpnet.check_gradients(loss, z, order=2)
    if device.library.spec == "torch":
        import torch

        theirs = torch.nn.functional.binary_cross_entropy_with_logits(
            z, on(device, targets), pos_weight=xp.asarray(weight), reduction=reduction
        )
        assert_same(loss(z), theirs)


def test_binary_cross_entropy_of_huge_and_zero_logits(device):
    z = on(device, [-1e4, -1e4, 0.0, 0.0, 1e4, 1e4], "float32")
    t = on(device, [0, 1, 0, 1, 0, 1])

    def total(z):
        return losses.binary_cross_entropy(z, t, reduction="sum")

    each = losses.binary_cross_entropy(z, t, reduction="none")
    assert_same(each, [0.0, 1e4, math.log(2), math.log(2), 1e4, 0.0])
    # At 0, where a last layer of zeros begins, the gradient is sigmoid(0) - t too.
    assert_same(xpnet.grad(total)(z), [0.0, -1.0, 0.5, -0.5, 1.0, 0.0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "options", "reference", "theirs"),
    [
        ("mse", {}, lambda e: e**2, "mse_loss"),
        ("mae", {}, abs, "l1_loss"),
        ("huber", {}, lambda e: reference_huber(e, 1.0), "huber_loss"),
        ("huber", {"delta": 0.3}, lambda e: reference_huber(e, 0.3), "huber_loss"),
    ],
)
def test_regression_losses_follow_their_equations(device, name, options, reference, theirs, reduction):
    predictions = logits(device, shape=(5, 2))
    targets = on(device, probabilities((5, 2)))
    each = reference(xpnet.to_numpy(predictions) - xpnet.to_numpy(targets))
    expected = {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]

    def loss(predictions, targets):
        return getattr(losses, name)(predictions, targets, reduction=reduction, **options)

    received = loss(predictions, targets)
    assert_on(received, device, "float64", numpy.shape(expected))
    assert_same(received, expected)
    xpnet.check_gradients(loss, predictions, targets, order=2)
    if device.library.spec == "torch":
        import torch

        function = getattr(torch.nn.functional, theirs)
        assert_same(received, function(predictions, targets, reduction=reduction, **options))


def test_gradients_of_regression_losses_at_their_kinks(device):
    error = on(device, [-2.0, -1.0, 0.0, 1.0, 2.0])
    zeros = on(device, numpy.zeros(5))
    grad = lambda loss: xpnet.grad(lambda e: loss(e, zeros, reduction="sum"))(error)
    assert_same(grad(losses.huber), [-1.0, -1.0, 0.0, 1.0, 1.0])
    assert_same(grad(losses.mae), [-1.0, -1.0, 0.0, 1.0, 1.0])
    curvature = xpnet.grad(lambda e: xpnet.grad(lambda e: losses.huber(e, zeros[:1], reduction="sum"))(e)[0])
    assert_same(curvature(zeros[:1]), [1.0])


# -- bad input -----------------------------------------------------------------------------------------------


def raises(message):
    return pytest.raises(ValueError, match=message)


def test_shapes_that_do_not_fit(device):
    z = logits(device)
    for wrong in (numpy.zeros(5, dtype=int), numpy.zeros((6, 1), dtype=int), probabilities((6, 3))):
        with raises(rf"received logits of shape \(6, 4\) and labels of shape \({wrong.shape[0]},"):
            losses.cross_entropy(z, on(device, wrong))
    with raises(r"received logits of shape \(4,\) and labels of shape \(\)"):
        losses.cross_entropy(z[0, :], on(device, 1))
    for name in ("mse", "mae", "huber"):
        with raises(
            rf"{name} needs predictions and targets of the same shape, received \(6, 1\) and \(6,\)\. Give"
        ):
            getattr(losses, name)(z[:, :1], z[:, 0])
    with raises(r"logits and targets of the same shape, received \(6, 1\) and \(6,\)\. Give both one shape"):
        losses.binary_cross_entropy(z[:, :1], z[:, 0])


def test_options_that_do_not_fit(device):
    z, labels = logits(device), on(device, LABELS)
    with raises(r"label_smoothing must be from 0 to 1, received 1.5\."):
        losses.cross_entropy(z, labels, label_smoothing=1.5)
    with raises(r"one number for each of the 4 classes, received shape \(3,\)"):
        losses.cross_entropy(z, labels, class_weight=[1.0, 2.0, 3.0])
    with raises(r"one number for each output, of shape \(4,\), received shape \(6,\)"):
        losses.binary_cross_entropy(z, z, positive_weight=z[:, 0])
    with raises(r"delta must be positive, received 0"):
        losses.huber(z, z, delta=0)
    for loss, targets in [(losses.cross_entropy, labels), (losses.mse, z), (losses.binary_cross_entropy, z)]:
        with raises(r'reduction must be "mean", "sum" or "none", received \'average\''):
            loss(z, targets, reduction="average")


def test_dtypes_that_do_not_fit(device):
    z, labels = logits(device), on(device, LABELS)
    with raises(r"labels of shape \(batch,\) must be integers, numbers of classes, received .*float64"):
        losses.cross_entropy(z, z[:, 0])
    for loss, targets in [(losses.cross_entropy, z), (losses.binary_cross_entropy, labels)]:
        with raises(r"logits must be real floating-point numbers, received .*int64.* output comes first"):
            loss(labels, targets)
    for loss in (losses.mse, losses.mae, losses.huber):
        with raises("predictions must be real floating-point numbers, received .*int64"):
            loss(labels, z[:, 0])


def test_an_empty_batch(device):
    z = logits(device)[:0, :]
    for labels in (on(device, LABELS)[:0], z):
        with raises(r"at least one example is needed, received an array of shape \(0, 4\)"):
            losses.cross_entropy(z, labels)
    for loss in (losses.binary_cross_entropy, losses.mse, losses.mae, losses.huber):
        with raises(r"at least one example is needed, received an array of shape \(0, 4\)"):
            loss(z, z)


def test_check_labels(device):
    losses.check_labels(on(device, LABELS), 4)
    losses.check_labels([[0, 1], [2, 3]], 4)
    with raises(r"from 0 to 2 for 3 classes, received labels from 0 to 3\. Number the classes from 0"):
        losses.check_labels(on(device, LABELS), 3)
    with raises("received labels from -1 to 2"):
        losses.check_labels(on(device, LABELS - 1), 4)
    with raises("labels must be integers, numbers of classes, received .*float64"):
        losses.check_labels(on(device, WEIGHTS), 4)
    with raises(r"at least one example is needed, received an array of shape \(0,\)"):
        losses.check_labels(on(device, LABELS[:0]), 4)


def test_check_probabilities(device):
    losses.check_probabilities(on(device, probabilities()))
    losses.check_probabilities(on(device, [True, False]))
    losses.check_probabilities(on(device, [0, 1]))
    with raises(r"probabilities from 0 to 1, received targets from -1 to 1\. Write 1 for yes"):
        losses.check_probabilities(on(device, [-1, 1]))
    for place in range(6):
        targets = numpy.zeros((3, 2))
        targets.flat[place:] = math.nan
        with raises(f"received targets that hold NaN, first in row {place // 2}"):
            losses.check_probabilities(on(device, targets))
    with raises("first in row 1"):
        losses.check_probabilities(on(device, [0.0, math.nan]))
    with raises("at least one example is needed"):
        losses.check_probabilities(on(device, WEIGHTS[:0]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bool"])
def test_targets_of_several_classes(device, dtype):
    look, z = losses.cross_entropy.check_targets, logits(device)
    look(z, on(device, numpy.eye(4)[LABELS], dtype))
    look(z, on(device, numpy.zeros((6, 4)), dtype))  # rows that count for nothing
    several = numpy.eye(4)[LABELS]
    several[4, :3] = 1
    with raises(
        "add up to at most 1 in each row; received targets of which a row adds up to 3. Use .*binary"
    ):
        look(z, on(device, several, dtype))
    with raises("cross_entropy needs an output for each class, received 1 output"):
        look(z[:, :1], on(device, several[:, :1], dtype))
    with raises("received targets that hold NaN, first in row 4"):
        look(z, on(device, numpy.where(numpy.arange(6)[:, None] > 3, math.nan, probabilities())))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_probabilities_that_were_rounded(dtype):
    targets = probabilities((50, 1000)).astype(dtype)
    losses.cross_entropy.check_targets(targets, targets)
    losses.cross_entropy.check_targets(targets, 0.5 * targets)
    with raises("a row adds up to 1.5"):
        losses.cross_entropy.check_targets(targets, 1.5 * targets)


def test_arrays_of_two_libraries(device):
    if device.library.spec != "cpu":
        with pytest.raises(xpnet.errors.MixedArraysError, match="to_device"):
            losses.cross_entropy(logits(device), LABELS)
        with pytest.raises(xpnet.errors.MixedArraysError, match="to_device"):
            losses.cross_entropy(logits(device), on(device, LABELS), class_weight=WEIGHTS)


# -- narrow numbers: float16 ends at 65,504, below the square of 256 and the sum of 70,000 ones --------------

NARROW = 70_000


@pytest.mark.parametrize("class_weight", [None, [1.0, 1.0]])
def test_many_examples_in_float16(device, class_weight):
    needs_float16(device.namespace)
    z = on(device, numpy.zeros((NARROW, 2)), "float16")
    labels = on(device, numpy.zeros(NARROW, dtype=int))
    loss, gradient = xpnet.value_and_grad(
        lambda z: 1024 * losses.cross_entropy(z, labels, class_weight=class_weight)
    )(z)
    assert_same(loss, on(device, 1024 * math.log(2), "float16"))
    assert_same(gradient[:1, :], on(device, [[-512 / NARROW, 512 / NARROW]], "float16"))


def test_many_classes_in_float16(device):
    needs_float16(device.namespace)
    z = on(device, numpy.zeros((1, NARROW)), "float16")
    assert_same(losses.cross_entropy(z, on(device, [0])), on(device, math.log(NARROW), "float16"))


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "binary_cross_entropy"])
def test_large_errors_of_many_examples_in_float16(device, name):
    needs_float16(device.namespace)
    outputs = numpy.zeros(NARROW)
    outputs[: NARROW // 100] = 400.0
    loss = getattr(losses, name)
    received = xpnet.value_and_grad(lambda z: loss(z, on(device, 0 * outputs, "float16")))(
        on(device, outputs, "float16")
    )
    expected = xpnet.value_and_grad(lambda z: loss(z, on(device, 0 * outputs)))(on(device, outputs))
    for narrow, wide in zip(received, expected, strict=True):
        assert narrow.dtype == device.namespace.float16
        narrow, wide = xpnet.to_numpy(narrow).astype(float), xpnet.to_numpy(wide)
        # Subnormal numbers of float16, such as 1 / 70,000, are multiples of 2**-24.
        numpy.testing.assert_allclose(narrow, wide, rtol=2**-9, atol=2**-24)
