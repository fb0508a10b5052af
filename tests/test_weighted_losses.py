"""Weights of examples and classes, masks, and labels that are ignored: against equations and PyTorch."""

import functools
import math

import numpy
import pytest
from helpers import assert_on, assert_same, half_of_the_digits, needs_float16, on

import xpnet
from xpnet import losses, nn, optim
from xpnet.losses.checks import NothingCountsError

random = numpy.random.default_rng(0)
Z = 2 * random.normal(size=(6, 3, 4))
TARGETS = random.normal(size=(6, 3, 4))
ANSWERS = random.random(size=(6, 3, 4)).round(1)
LABELS = random.integers(4, size=(6, 3))
OF_EXAMPLES = numpy.asarray([0.5, 0.0, 2.0, 1.0, 0.0, 3.0])
OF_ROWS = random.random(size=(6, 3)) * (random.random(size=(6, 3)) > 0.3)
OF_ALL = random.random(size=(6, 3, 4))
OF_CLASSES = numpy.asarray([0.5, 2.0, 0.0, 3.0])
OF_NO_AND_YES = numpy.asarray([0.5, 2.0])

# Each loss with its targets, and with options that weights have to get along with.
LOSSES = {
    "cross_entropy": (losses.cross_entropy, LABELS),
    "of classes": (functools.partial(losses.cross_entropy, class_weight=list(OF_CLASSES)), LABELS),
    "smoothed": (functools.partial(losses.cross_entropy, label_smoothing=0.1), LABELS),
    "of probabilities": (losses.cross_entropy, ANSWERS / ANSWERS.sum(-1, keepdims=True)),
    "binary_cross_entropy": (losses.binary_cross_entropy, ANSWERS),
    "of no and yes": (functools.partial(losses.binary_cross_entropy, class_weight=[0.5, 2.0]), ANSWERS),
    "positive": (functools.partial(losses.binary_cross_entropy, positive_weight=3.0), ANSWERS),
    "mse": (losses.mse, TARGETS),
    "mae": (losses.mae, TARGETS),
    "huber": (functools.partial(losses.huber, delta=0.7), TARGETS),
}
WEIGHTS = {
    "of examples": OF_EXAMPLES,
    "of rows": OF_ROWS,
    "mask of examples": OF_EXAMPLES > 0,
    "mask of rows": OF_ROWS > 0,
    "integers": (3 * OF_ROWS).astype("int64"),
    "of all": OF_ALL,
}


def spread(weights, like):
    """Return weights in the shape of the losses."""
    weights = numpy.reshape(weights, weights.shape + (1,) * (like.ndim - weights.ndim))
    return numpy.broadcast_to(weights, like.shape).astype(float)


def of_classes(name):
    """Return how much each loss counts by its class."""
    if name == "of classes":
        return OF_CLASSES[LABELS]
    return OF_NO_AND_YES[0] * (1 - ANSWERS) + OF_NO_AND_YES[1] * ANSWERS if name == "of no and yes" else 1.0


def weighted(name, kind):
    """Return a loss, its targets and weights, or skip where the weights have more axes than the losses."""
    loss, targets = LOSSES[name]
    if kind == "of all" and loss in [LOSSES[key][0] for key in list(LOSSES)[:4]]:
        pytest.skip("a loss for each row")
    return loss, targets, WEIGHTS[kind]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", LOSSES)
def test_weights_follow_their_equation(device, name, kind, reduction):
    loss, targets, weights = weighted(name, kind)
    z, y = on(device, Z), on(device, targets)
    each = xpnet.to_numpy(loss(z, y, reduction="none"))  # with the weights of classes in them
    full = spread(weights, each)
    total = (full * of_classes(name)).sum()
    expected = {"none": full * each, "sum": (full * each).sum(), "mean": (full * each).sum() / total}
    received = loss(z, y, sample_weight=on(device, weights), reduction=reduction)
    assert_on(received, device, "float64")
    assert_same(received, expected[reduction])


@pytest.mark.parametrize("kind", ["of examples", "mask of rows"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_with_weights(device, name, kind):
    loss, targets, weights = weighted(name, kind)
    y, w = on(device, targets), on(device, weights)
    f = lambda z: loss(z, y, sample_weight=w)
    xpnet.check_gradients(f, on(device, Z), order=2)
    value, gradient = xpnet.value_and_grad(f)(on(device, Z))
    replayed = xpnet.jit(xpnet.value_and_grad(lambda z, y, w: loss(z, y, sample_weight=w)))
    for _ in range(3):
        again, its_gradient = replayed(on(device, Z), y, w)
        assert_same(again, value)
        assert_same(its_gradient, gradient)
    assert not xpnet.to_numpy(gradient)[spread(weights, Z) == 0].any()


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_one_change_nothing(device, name):
    loss, targets = LOSSES[name]
    z, y = on(device, Z), on(device, targets)
    for ones in (numpy.ones(6), numpy.ones((6, 3), bool)):
        for reduction in ("mean", "sum", "none"):
            received = loss(z, y, sample_weight=on(device, ones), reduction=reduction)
            assert_same(received, loss(z, y, reduction=reduction))
    assert_same(loss(z, y, sample_weight=[2.0] * 6), loss(z, y))
    assert_same(loss(z, y, sample_weight=(True,) * 6), loss(z, y))


@pytest.mark.parametrize("name", LOSSES)
def test_what_counts_for_nothing_may_be_anything(device, name):
    """Both in value and gradient the same, bit for bit, whatever stands there."""
    loss, targets = LOSSES[name]
    hidden = OF_ROWS == 0
    assert 0 < hidden.sum() < hidden.size
    for weights in (OF_ROWS, OF_ROWS > 0):
        found = []
        for garbage in (0.0, math.nan, math.inf, -math.inf):
            z, y = Z.copy(), targets.copy()
            z[hidden] = garbage
            y[hidden] = -7 if y.dtype.kind == "i" else garbage
            y, w = on(device, y), on(device, weights)
            f = xpnet.value_and_grad(lambda z, y=y, w=w: loss(z, y, sample_weight=w))
            found.append([xpnet.to_numpy(x) for x in f(on(device, z))])
        for value, gradient in found:
            assert math.isfinite(value)
            assert value == found[0][0]
            numpy.testing.assert_array_equal(gradient, found[0][1])
            assert not gradient[hidden].any()


@pytest.mark.parametrize("name", LOSSES)
def test_where_nothing_counts_the_mean_is_0(device, name):
    loss, targets = LOSSES[name]
    y = on(device, targets)
    for weights in (numpy.zeros(6), numpy.zeros((6, 3), bool)):
        w = on(device, weights)
        value, gradient = xpnet.value_and_grad(lambda z, w=w: loss(z, y, sample_weight=w))(on(device, Z))
        assert_same(value, 0.0)
        assert not xpnet.to_numpy(gradient).any()


def test_classes_that_count_for_nothing(device):
    z, labels = on(device, Z[:, 0, :]), on(device, numpy.full(6, 2))
    for smoothing in (0.0, 0.1):
        f = lambda z, a=smoothing: losses.cross_entropy(
            z, labels, class_weight=[1, 1, 0, 1], label_smoothing=a
        )
        value, gradient = xpnet.value_and_grad(f)(z)
        assert_same(value, 0.0)
        assert not xpnet.to_numpy(gradient).any()
    assert_same(losses.binary_cross_entropy(z, 0 * z, class_weight=[0, 1]), 0.0)


def test_gradients_in_the_weights(device):
    """Also of weights of 0, as for examples whose weights are learned."""
    predictions, y = on(device, Z), on(device, TARGETS)
    weights = on(device, OF_EXAMPLES)
    total = lambda w: losses.mse(predictions, y, sample_weight=w, reduction="sum")
    assert_same(xpnet.grad(total)(weights), ((Z - TARGETS) ** 2).sum((1, 2)))
    xpnet.check_gradients(lambda w: losses.mse(predictions, y, sample_weight=w), weights + 0.5)
    labels = on(device, LABELS)
    of_classes = lambda w: losses.cross_entropy(predictions, labels, sample_weight=w)
    xpnet.check_gradients(of_classes, weights + 0.5)


def test_narrow_numbers(device):
    needs_float16(device.namespace)
    number = 70_000  # more than float16 can count to
    z, weights = numpy.zeros((number, 2)), numpy.ones(number)
    weights[1:] = 2.0
    labels = on(device, numpy.zeros(number, int))
    for dtype in ("float16", "float64"):
        received = losses.cross_entropy(
            on(device, z, "float16"),
            labels,
            sample_weight=on(device, weights, dtype),
            class_weight=[2.0, 1.0],
        )
        assert_same(received, on(device, math.log(2), "float16"))
    with losses.noted_denominators() as noted:
        losses.mse(on(device, z, "float16"), on(device, z), sample_weight=on(device, weights))
    assert float(noted[0][1]) == 2 * weights.sum()


# -- labels that are ignored ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8"])
@pytest.mark.parametrize("index", [-100, 2, 77])
def test_ignored_labels_are_masked_labels(device, index, dtype):
    if index < 0 and dtype == "uint8":
        pytest.skip("no such label")
    ignored = OF_ROWS == 0
    labels = numpy.where(ignored, index, numpy.where(LABELS == 2, 3, LABELS))
    shown = on(device, numpy.where(ignored, 0, labels))
    for weights in (None, OF_EXAMPLES, OF_ALL[..., 0]):
        for options in ({}, {"class_weight": list(OF_CLASSES), "label_smoothing": 0.1}):
            more = {} if weights is None else {"sample_weight": on(device, weights)}
            mask = ~ignored if weights is None else numpy.where(ignored, 0.0, spread(weights, ignored))
            f = lambda z, more=more | options: losses.cross_entropy(
                z, on(device, labels, dtype), ignore_index=index, **more
            )
            g = lambda z, mask=mask, options=options: losses.cross_entropy(
                z, shown, sample_weight=on(device, mask), **options
            )
            for found, expected in zip(
                xpnet.value_and_grad(f)(on(device, Z)), xpnet.value_and_grad(g)(on(device, Z)), strict=True
            ):
                assert_same(found, expected)


def test_other_labels_that_are_no_class_give_nan(device):
    labels = numpy.where(OF_ROWS == 0, -100, LABELS)
    labels[-1, -1] = 4
    z, y = on(device, Z), on(device, labels)
    each = xpnet.to_numpy(losses.cross_entropy(z, y, ignore_index=-100, reduction="none"))
    assert numpy.isnan(each).sum() == 1
    assert math.isnan(each[-1, -1])
    assert not each[OF_ROWS == 0][:-1].any()
    for weight in (None, list(OF_CLASSES)):
        assert math.isnan(losses.cross_entropy(z, y, ignore_index=-100, class_weight=weight))
    assert math.isnan(losses.cross_entropy(z, on(device, 0 * labels - 99), ignore_index=-100))


def test_ignoring_all_gives_0(device):
    y = on(device, numpy.full((6, 3), -1))
    f = lambda z: losses.cross_entropy(z, y, ignore_index=-1, label_smoothing=0.1)
    value, gradient = xpnet.value_and_grad(f)(on(device, Z))
    assert_same(value, 0.0)
    assert not xpnet.to_numpy(gradient).any()


# -- against PyTorch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, OF_CLASSES], ids=["alike", "weighted"])
def test_ignored_labels_as_in_pytorch(device, weight, smoothing, reduction):
    torch = pytest.importorskip("torch")
    labels = numpy.where(OF_ROWS == 0, -100, LABELS)
    options = {"label_smoothing": smoothing, "reduction": reduction, "ignore_index": -100}

    def loss(z):
        each = losses.cross_entropy(
            z, on(device, labels), class_weight=None if weight is None else on(device, weight), **options
        )
        return xpnet.array_namespace(each).sum(each), each

    (_, value), gradient = xpnet.value_and_grad(loss, has_aux=True)(on(device, Z))
    theirs = torch.tensor(Z.reshape(-1, 4), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs,
        torch.tensor(labels.reshape(-1)),
        weight=None if weight is None else torch.tensor(weight),
        **options,
    )
    expected.sum().backward()
    assert_same(value, expected.detach().numpy().reshape(value.shape))
    assert_same(gradient, theirs.grad.numpy().reshape(Z.shape))


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mse", "mae", "huber"])
def test_weighted_losses_as_in_pytorch(device, name):
    torch = pytest.importorskip("torch")
    loss, targets = LOSSES[name]
    functional = {
        "binary_cross_entropy": torch.nn.functional.binary_cross_entropy_with_logits,
        "mse": torch.nn.functional.mse_loss,
        "mae": torch.nn.functional.l1_loss,
        "huber": functools.partial(torch.nn.functional.huber_loss, delta=0.7),
    }[name]
    theirs, weights = torch.tensor(Z, requires_grad=True), torch.tensor(spread(OF_ROWS, Z))
    each = functional(theirs, torch.tensor(targets), reduction="none")
    expected = (weights * each).sum() / weights.sum()
    expected.backward()
    f = lambda z: loss(z, on(device, targets), sample_weight=on(device, OF_ROWS))
    value, gradient = xpnet.value_and_grad(f)(on(device, Z))
    assert_same(value, expected.detach().numpy())
    assert_same(gradient, theirs.grad.numpy())


X = random.normal(size=(60, 5))
CLASSES = numpy.where(random.random(60) < 0.2, -100, random.integers(3, size=60))
NUMBERS = random.normal(size=(60, 3))
EXAMPLES = random.random(60) * (random.random(60) > 0.2)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("of", ["classes", "numbers"])
def test_a_hundred_steps_as_in_pytorch(device, of, jit):
    torch = pytest.importorskip("torch")
    net = xpnet.to_device(nn.Dense(5, 3, seed=0, dtype="float64"), device)
    twin = torch.nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        twin.weight.copy_(torch.tensor(xpnet.to_numpy(net.weight).T))
        twin.bias.zero_()
    y = CLASSES if of == "classes" else NUMBERS
    ours, theirs = optim.SGD(0.1, momentum=0.9), torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    weight = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)

    def loss(net, x, y, w):
        if of == "numbers":
            return losses.huber(net(x), y, sample_weight=w)
        options = {"class_weight": [1.0, 0.5, 3.0], "ignore_index": -100}
        return losses.cross_entropy(net(x), y, sample_weight=w, **options)

    def step(net, state, x, y, w):
        value, gradient = xpnet.value_and_grad(loss)(net, x, y, w)
        return *ours.update(gradient, state, net), value

    def their_loss(x, y, w):
        if of == "numbers":
            w = w[:, None].expand(-1, 3)
            each = torch.nn.functional.huber_loss(twin(x), y, reduction="none")
            return (w * each).sum() / w.sum()
        options = {"ignore_index": -100, "reduction": "none"}
        each = torch.nn.functional.cross_entropy(twin(x), y, weight=weight, **options)
        return (w * each).sum() / (w * weight[y.clamp(0)] * (y >= 0)).sum()

    step, state = xpnet.jit(step) if jit else step, ours.init(net)
    for number in range(100):
        rows = (numpy.arange(16) + 7 * number) % 60
        batch = X[rows], y[rows], EXAMPLES[rows]
        net, state, value = step(net, state, *(on(device, part) for part in batch))
        theirs.zero_grad()
        expected = their_loss(*map(torch.tensor, batch))
        expected.backward()
        theirs.step()
        assert_same(value, expected.detach().numpy(), tolerance=half_of_the_digits("float64"))
    tolerance = half_of_the_digits("float64")
    assert_same(net.weight, twin.weight.detach().numpy().T, tolerance=tolerance)
    assert_same(net.bias, twin.bias.detach().numpy(), tolerance=tolerance)


# -- what means are divided by -------------------------------------------------------------------------------


def test_denominators(device):
    z, y, labels = on(device, Z), on(device, TARGETS), on(device, LABELS)
    w = on(device, OF_ROWS)
    with losses.noted_denominators() as noted:
        results = [
            losses.mse(z, y),
            losses.mse(z, y, sample_weight=w),
            losses.cross_entropy(z, labels),
            losses.cross_entropy(z, labels, class_weight=list(OF_CLASSES), sample_weight=w),
            losses.cross_entropy(z, labels, ignore_index=1),
            losses.binary_cross_entropy(z, on(device, ANSWERS), class_weight=[1.0, 0.0], sample_weight=w),
        ]
        results.append(losses.mse(z, y, reduction="sum"))
        losses.mae(z, y, reduction="none")
    assert all(found[0] is result for found, result in zip(noted, results, strict=True))
    assert [weighted for _, _, weighted in noted] == [False, True, False, True, True, True, True]
    assert noted.pop()[1] is None  # of a sum
    assert [(type(noted[i][1]), noted[i][1]) for i in (0, 2)] == [(int, 72), (int, 18)]
    for (_, found, _), expected in zip(
        [noted[1], *noted[3:]],
        [
            4 * OF_ROWS.sum(),
            (OF_ROWS * OF_CLASSES[LABELS]).sum(),
            float((LABELS != 1).sum()),
            (OF_ROWS[..., None] * (1 - ANSWERS)).sum(),
        ],
        strict=True,
    ):
        assert_on(found, device, "float64", ())
        assert_same(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_denominators_are_noted_inside_transforms(device, dtype):
    y, w = on(device, TARGETS, dtype), on(device, OF_ROWS)

    def loss(z, y, w):
        with losses.noted_denominators() as noted:
            value = losses.mse(z, y, sample_weight=w)
        ((result, denominator, weighted),) = noted
        assert result is value
        assert weighted
        return value, denominator

    f = xpnet.value_and_grad(loss, has_aux=True)
    for each in (f, xpnet.jit(f)):
        for _ in range(3):
            (value, denominator), _ = each(on(device, Z, dtype), y, w)
            assert_same(denominator, 4 * OF_ROWS.sum().astype(dtype))
            assert_same(value, loss(on(device, Z, dtype), y, w)[0])


def test_means_of_batches_are_put_together(device):
    labels = numpy.where(OF_ROWS == 0, -1, LABELS)
    f = lambda rows: losses.cross_entropy(on(device, Z[rows]), on(device, labels[rows]), ignore_index=-1)
    with losses.noted_denominators() as noted:
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
            f(rows)
    total = sum(float(mean) * float(denominator) for mean, denominator, _ in noted)
    assert_same(f(slice(None)), total / sum(float(denominator) for _, denominator, _ in noted))
    f(slice(None))
    assert len(noted) == 3  # nothing is noted outside


# -- bad input -----------------------------------------------------------------------------------------------


def refused(error, message, loss, z, y, **options):
    with pytest.raises(error, match=message):
        loss(z, y, **options)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_that_do_not_fit(device, name):
    loss, targets = LOSSES[name]
    z, y = on(device, Z), on(device, targets)
    shape = r"sample_weight must have the shape \(6,\), a number for each example, or more axes of the losses"
    for wrong in ((5,), (6, 1), (3,), (6, 4), (1, 6), (6, 3, 5), ()):
        refused(ValueError, shape, loss, z, y, sample_weight=on(device, numpy.ones(wrong)))
    refused(ValueError, shape + r".*received shape \(2,\)", loss, z, y, sample_weight=[1, 2])
    for wrong in (3.0, "balanced", {"a": 1}):
        refused(TypeError, "sample_weight must be an array or a list", loss, z, y, sample_weight=wrong)
    for wrong, received in [(-1, "-1"), (math.nan, "nan"), (math.inf, "inf")]:
        message = f"sample_weight must be finite numbers of at least 0, received {received}, first in row 4"
        given = [1.0, 1.0, 1.0, 1.0, wrong, wrong]
        refused(ValueError, message, loss, z, y, sample_weight=given)
        if device.library.spec == "cpu":
            refused(ValueError, message, loss, z, y, sample_weight=numpy.asarray(given))
    refused(ValueError, "sample_weight must be numbers or bools", loss, z, y, sample_weight=["a"] * 6)


def test_weights_with_an_axis_too_many(device):
    z, y = on(device, Z[:, 0, :]), on(device, LABELS[:, 0])
    message = r"received shape \(6, 1\)\. sample_weight\[\.\.\., 0\] has the shape \(6,\)"
    refused(ValueError, message, losses.cross_entropy, z, y, sample_weight=on(device, numpy.ones((6, 1))))


def test_weights_on_a_device_are_not_waited_for(device):
    if device.library.spec == "cpu":
        pytest.skip("the host")
    z, y = on(device, Z), on(device, TARGETS)
    bad = numpy.asarray([1.0, math.nan, 1.0, 1.0, 1.0, 1.0])
    assert math.isnan(losses.mse(z, y, sample_weight=on(device, bad)))
    with pytest.raises(xpnet.errors.MixedArraysError, match="to_device"):
        losses.mse(z, y, sample_weight=OF_EXAMPLES)


def test_classes_that_do_not_fit(device):
    z, y, answers = on(device, Z), on(device, LABELS), on(device, ANSWERS)
    cross, binary = losses.cross_entropy, losses.binary_cross_entropy
    refused(
        ValueError, "each of the 2 classes, received shape .4,", binary, z, answers, class_weight=[1.0] * 4
    )
    for loss, targets in [(cross, y), (binary, answers)]:
        for wrong in ("balanced", {0: 1.0}, 2.0):
            refused(
                TypeError, "class_weight must be an array or a list", loss, z, targets, class_weight=wrong
            )
        message = "class_weight must be at least 0, received -1"
        refused(ValueError, message, loss, z, targets, class_weight=[1.0, -1.0])
    if device.library.spec == "cpu":
        message = "class_weight must be finite numbers of at least 0, received nan, first in row 1"
        bad = numpy.asarray([1.0, math.nan, 1.0, 1.0])
        refused(ValueError, message, cross, z, y, class_weight=bad)


def test_indices_that_do_not_fit(device):
    z, y = on(device, Z), on(device, LABELS)
    for wrong in (1.5, "pad", True, math.nan):
        refused(ValueError, "ignore_index must be an integer", losses.cross_entropy, z, y, ignore_index=wrong)
    message = r"ignore_index is for labels, .* received probabilities, of shape \(6, 3, 4\)\. Give the rows"
    refused(ValueError, message, losses.cross_entropy, z, on(device, ANSWERS), ignore_index=0)


def test_check_weights(device):
    for right in (OF_EXAMPLES, OF_ROWS, OF_ROWS > 0, OF_ROWS.astype("float32"), numpy.arange(6)):
        losses.check_weights(on(device, right), 6)
    losses.check_weights([1, 0, True], 3)
    for wrong, message in [
        (OF_EXAMPLES[:5], r"a number for each of the 6 examples, on its first axis, received shape \(5,\)"),
        (OF_ROWS.T, r"each of the 6 examples, .* received shape \(3, 6\)"),
        (numpy.asarray(1.0), r"each of the 6 examples, .* received shape \(\)"),
        (OF_EXAMPLES - 1, "finite numbers of at least 0, received -0.5, first in row 0"),
        (
            numpy.where(numpy.arange(18).reshape(6, 3) == 10, math.nan, OF_ROWS),
            "received nan, first in row 3",
        ),
        (numpy.asarray([1.0] * 5 + [math.inf]), "received inf, first in row 5"),
        (0 * OF_EXAMPLES, "more than 0 for at least one example, received 0 for all 6"),
        (OF_ROWS < 0, "more than 0 for at least one example, received 0 for all 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            losses.check_weights(on(device, wrong), 6)


def test_check_targets_knows_what_is_ignored(device):
    look, z = losses.cross_entropy.check_targets, on(device, Z)
    labels = numpy.where(OF_ROWS == 0, -100, LABELS)
    look(z, on(device, labels), ignore_index=-100)
    look(z, on(device, ANSWERS / ANSWERS.sum(-1, keepdims=True)), ignore_index=-100)
    with pytest.raises(
        ValueError, match=r"labels from -100 to 3.*cross_entropy\(\.\.\., ignore_index=-100\)"
    ):
        look(z, on(device, labels))
    with pytest.raises(ValueError, match="labels from -100 to 3"):
        look(z, on(device, labels), ignore_index=-1)
    with pytest.raises(ValueError, match="labels from 0 to 4"):
        look(z, on(device, numpy.where(labels == 3, 4, labels)), ignore_index=-100)
    with pytest.raises(NothingCountsError, match="at least one target must count, received 2 alone"):
        look(z, on(device, numpy.full((6, 3), 2, "uint8")), ignore_index=2)
