"""Weights of examples and classes in `fit`: in the loss, the metrics, the validation, from every source."""

import functools

import numpy as np
import pytest
from helpers import network

import xpnet
from training.cases import X, Y, classifier, same, train, weights
from xpnet import losses, metrics, nn, optim

random = np.random.default_rng(2)
WEIGHTS = random.uniform(0.1, 2, size=60)
COUNTS = random.integers(0, 4, size=60)  # how often each example comes
ROWS = np.repeat(np.arange(60), COUNTS)


def whole(**options):
    """Settings with which each epoch is one step of all examples."""
    return {"batch_size": 1000, "shuffle": False, "epochs": 4} | options


def doubles(seed=0):
    return nn.Sequential(
        nn.Dense(3, 8, seed=seed, dtype="float64"), nn.Tanh(), nn.Dense(8, 2, seed=seed + 1, dtype="float64")
    )


def close(a, b):
    return all(np.allclose(x, y, rtol=1e-9, atol=1e-12) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "plain"])
def test_a_weight_is_how_often_an_example_comes(device, jit):
    watched = [metrics.accuracy]
    with xpnet.use_device(device):
        repeated, weighted = doubles(), doubles()
        expected = train(
            repeated, X[ROWS], Y[ROWS], **whole(validation=(X[ROWS], Y[ROWS]), metrics=watched, jit=jit)
        )
        found = train(
            weighted, **whole(sample_weight=COUNTS, validation=(X, Y, COUNTS), metrics=watched, jit=jit)
        )
    assert close(weights(repeated), weights(weighted))
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9)


def test_metrics_and_losses_of_batches_are_those_of_all(device):
    watched = [metrics.accuracy]
    with xpnet.use_device(device):
        net = doubles()
        history = train(
            net,
            batch_size=7,
            sample_weight=WEIGHTS,
            class_weight=[0.5, 3.0],
            metrics=watched,
            optimizer=optim.SGD(0.0),
            validation=(X, Y, WEIGHTS),
        )
    outputs = xpnet.to_numpy(xpnet.predict(net, X))
    given = {"sample_weight": WEIGHTS, "class_weight": np.asarray([0.5, 3.0])}
    for prefix in ("", "validation_"):
        np.testing.assert_allclose(
            history[f"{prefix}loss"], float(losses.cross_entropy(outputs, Y, **given)), rtol=1e-9
        )
        np.testing.assert_allclose(
            history[f"{prefix}accuracy"], metrics.accuracy(outputs, Y, **given), rtol=1e-9
        )


@pytest.mark.parametrize(
    "class_weight",
    [{0: 0.5, 1: 3.0}, {1: 6.0, 0: 1.0}, [0.5, 3.0], (0.5, 3), np.asarray([0.5, 3.0]), "balanced", {1: 6.0}],
    ids=["dict", "scaled", "list", "tuple", "array", "balanced", "missing"],
)
def test_weights_of_classes_are_those_of_their_examples(device, class_weight):
    each = {"balanced": 30 / np.bincount(Y), "scaled": [0.5, 3]}
    of_class = each["balanced"] if isinstance(class_weight, str) else np.asarray([0.5, 3.0])
    with xpnet.use_device(device):
        nets = [doubles(), doubles()]
        train(nets[0], **whole(class_weight=class_weight))
        train(nets[1], **whole(sample_weight=of_class[Y]))
    assert close(weights(nets[0]), weights(nets[1]))


def test_yes_and_no_have_weights():
    nets = [network(3, 8, 1), network(3, 8, 1)]
    targets = Y[:, None].astype("float32")
    options = whole(loss=losses.binary_cross_entropy)
    train(nets[0], X, targets, class_weight={1: 4.0}, **options)
    train(nets[1], X, targets, sample_weight=np.where(Y, 4.0, 1.0), **options)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*map(weights, nets), strict=True))


class Examples:
    """Single examples with their weights, as a data set of PyTorch."""

    def __len__(self):
        return 60

    def __getitem__(self, number):
        return X[number], Y[number], WEIGHTS[number]


class Lazy:
    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows):
        return self.array[rows]


def batches():
    for start in range(0, 60, 16):
        rows = slice(start, start + 16)
        yield X[rows], Y[rows], WEIGHTS[rows]


def dicts():
    for x, y, sample_weight in batches():
        yield {"x": x, "y": y, "sample_weight": sample_weight}


SOURCES = {
    "list of batches": lambda: {"x": list(batches()), "y": None, "batch_size": None},
    "generator": lambda: {"x": batches, "y": None, "batch_size": None},
    "dicts": lambda: {"x": dicts, "y": None, "batch_size": None},
    "examples": lambda: {"x": Examples(), "y": None},
    "read in parts": lambda: {"x": Lazy(X), "y": Lazy(Y), "sample_weight": Lazy(WEIGHTS)},
    "list": lambda: {"sample_weight": WEIGHTS.tolist()},
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_weights(device, source):
    options = {"shuffle": False, "metrics": [metrics.accuracy]}
    with xpnet.use_device(device):
        nets = [classifier(), classifier()]
        expected = train(nets[0], sample_weight=WEIGHTS, validation=(X, Y, WEIGHTS), **options)
        given = SOURCES[source]()
        parts = [given[name] for name in ("x", "y", "sample_weight") if given.get(name) is not None]
        validation = (
            (X, Y, given["sample_weight"])
            if source == "list"
            else tuple(parts)
            if len(parts) > 1
            else parts[0]
        )
        found = train(nets[1], **(options | given), validation=validation)
    assert same(weights(nets[0]), weights(nets[1]))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_a_share_for_validation_takes_its_weights_along(device):
    with xpnet.use_device(device):
        nets = [classifier(), classifier()]
        doubled = [
            train(net, sample_weight=factor * WEIGHTS, validation=0.5)
            for net, factor in zip(nets, (1, 2), strict=True)
        ]
    np.testing.assert_allclose(doubled[0]["validation_loss"], doubled[1]["validation_loss"], rtol=1e-5)
    plain = train(classifier(), validation=0.5)
    assert not np.allclose(plain["validation_loss"], doubled[0]["validation_loss"], rtol=1e-4)


def test_several_answers_have_weights_of_no_and_yes():
    answers = np.stack([Y, 1 - Y, Y], axis=1)
    nets = [network(3, 8, 3), network(3, 8, 3)]
    options = whole(loss=losses.binary_cross_entropy)
    train(nets[0], X, answers, class_weight=[1.0, 4.0], **options)
    train(nets[1], X, answers, sample_weight=np.where(answers, 4.0, 1.0), **options)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*map(weights, nets), strict=True))


@pytest.mark.parametrize("class_weight", [{1: 4.0}, [1.0, 4.0]], ids=["dict", "list"])
def test_outputs_without_an_axis_have_weights(class_weight):
    nets = [nn.Sequential(*network(3, 8, 1), lambda x: x[:, 0]) for _ in range(2)]
    options = whole(loss=losses.binary_cross_entropy)
    train(nets[0], X, Y, class_weight=class_weight, **options)
    train(nets[1], X, Y, sample_weight=np.where(Y, 4.0, 1.0), **options)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*map(weights, nets), strict=True))


def test_masks_of_sequences_are_weights(device):
    x, labels = random.normal(size=(12, 5, 3)), random.integers(0, 2, size=(12, 5))
    mask = np.arange(5) < random.integers(1, 6, size=(12, 1))
    with xpnet.use_device(device):
        nets = [doubles(), doubles()]
        train(nets[0], x, labels, **whole(sample_weight=mask, metrics=[metrics.accuracy]))
        train(nets[1], x[mask], labels[mask], **whole())
    assert close(weights(nets[0]), weights(nets[1]))


def test_labels_that_are_ignored_are_examples_that_are_left_out(device):
    labels = np.where(np.arange(60) % 3 == 0, -1, Y)
    kept = labels >= 0
    loss = functools.partial(losses.cross_entropy, ignore_index=-1)
    with xpnet.use_device(device):
        nets = [doubles(), doubles()]
        found = train(nets[0], X, labels, loss=loss, **whole())
        expected = train(nets[1], X[kept], Y[kept], **whole())
    assert close(weights(nets[0]), weights(nets[1]))
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-9)


def test_the_last_examples_are_left_out(device):
    seen = []

    def noting(outputs, targets):
        seen.append(targets.shape[0])
        return losses.cross_entropy(outputs, targets)

    with xpnet.use_device(device):
        for shuffle in (True, "blocks"):
            train(classifier(), loss=noting, batch_size=16, drop_last=True, jit=False, shuffle=shuffle)
    assert set(seen) == {16}


def test_weights_of_other_losses():
    def own(outputs, targets, sample_weight=None):
        return losses.cross_entropy(outputs, targets, sample_weight=sample_weight) + 0

    nets = [classifier(), classifier()]
    train(nets[0], loss=own, sample_weight=WEIGHTS)
    train(nets[1], sample_weight=WEIGHTS)
    assert same(*map(weights, nets))


ignoring = functools.partial(losses.cross_entropy, ignore_index=-1)


def without(outputs, targets):
    return losses.cross_entropy(outputs, targets)


BOUND = functools.partial(losses.cross_entropy, class_weight=[1.0, 3.0])
FEW = (np.arange(60) == 0).astype("float64")  # is put aside by no seed below
NAN = np.where(np.arange(60) == 7, np.nan, 1.0)


FINITE = "sample_weight must be finite numbers of at least 0, received "
LENGTH = "as many examples of each, received 60 in x .* 59 in sample_weight"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sample_weight": -WEIGHTS}, ValueError, FINITE + "-"),
        ({"sample_weight": NAN}, ValueError, FINITE + "nan, first in row 7"),
        ({"sample_weight": np.inf * WEIGHTS}, ValueError, FINITE + "inf, first in row 0"),
        ({"sample_weight": WEIGHTS[:59]}, ValueError, LENGTH),
        ({"sample_weight": np.zeros(60)}, ValueError, "more than 0 for at least one example"),
        ({"sample_weight": np.ones((60, 3))}, ValueError, "sample_weight must have the shape"),
        ({"sample_weight": "balanced"}, TypeError, "sample_weight"),
        ({"validation": (X, Y, -WEIGHTS)}, ValueError, FINITE),
        (
            {"validation": 0.2, "sample_weight": FEW},
            ValueError,
            "more than 0 for at least one example, .* 12",
        ),
        (
            {"validation": 0.2, "y": np.where(FEW, Y, -1), "loss": ignoring},
            ValueError,
            "at least one target must count, received -1 alone",
        ),
        (
            {"loss": BOUND, "class_weight": [1.0, 2.0]},
            ValueError,
            "must be given once, received it in the loss",
        ),
        ({"class_weight": [1e-50, 1e-50]}, ValueError, "that float32 has, not all of them 0"),
        ({"class_weight": {0: 1e300}}, ValueError, "that float32 has"),
        ({"loss": lambda outputs, targets: (1.0, 2.0, 3.0)}, TypeError, "one number, .* received .* tuple"),
        (
            {"sample_weight": WEIGHTS, "loss": without},
            TypeError,
            r"must take it, .* without\(outputs",
        ),
        ({"class_weight": {0: 1.0}, "loss": without}, TypeError, "with class_weight, the loss must take it"),
        ({"sample_weight": WEIGHTS, "metrics": [without]}, TypeError, "without takes no sample_weight"),
        ({"class_weight": [1, 2], "metrics": [metrics.r2]}, TypeError, "r2 takes no class_weight"),
        ({"class_weight": {0: 1.0, 5: 2.0, 1: 1.0}}, ValueError, "as its keys, from 0 to 1, received 5"),
        (
            {"class_weight": {0: -1.0}},
            ValueError,
            "number of at least 0 for each class, received -1.0",
        ),
        ({"class_weight": [1.0, 2.0, 3.0]}, ValueError, "one number for each of the 2 classes"),
        ({"class_weight": "even"}, TypeError, 'class_weight must be a dict .* or "balanced"'),
        ({"class_weight": {0: 2.0}, "y": np.eye(2)[Y]}, ValueError, r"needs labels, .* shape \(16, 2\)"),
        ({"x": Lazy(X), "y": Lazy(Y), "class_weight": "balanced"}, ValueError, "targets that are in memory"),
        ({"x": batches, "y": None, "batch_size": None, "sample_weight": WEIGHTS}, TypeError, "be left out"),
        ({"drop_last": "yes"}, (TypeError, ValueError), "drop_last must be"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_weights_change_nothing(device, changes, error, message):
    with xpnet.use_device(device):
        net = classifier()
        before = weights(net)
        with pytest.raises(error, match=message):
            train(net, **changes)
    assert same(weights(net), before)


def test_weights_of_a_later_batch_that_are_bad_go_back():
    def spoilt():
        for number, (x, y, sample_weight) in enumerate(batches()):
            yield x, y, -sample_weight if number == 2 else sample_weight

    net = classifier()
    before = weights(net)
    with pytest.raises(ValueError, match="finite numbers of at least 0") as caught:
        train(net, spoilt, None, batch_size=None)
    assert "It is about batch 3 of batches." in caught.value.__notes__
    assert same(weights(net), before)


def test_batches_must_all_have_weights_or_none():
    def uneven():
        for number, batch in enumerate(batches()):
            yield batch[: 2 + number % 2]

    with pytest.raises(ValueError, match="the first has sample_weight not at all, received as float32"):
        train(classifier(), uneven, None, batch_size=None)


def nothing_counts():
    for x, y, _ in batches():
        yield x, y, np.zeros(len(y))


@pytest.mark.parametrize("validated", [False, True], ids=["training", "validation"])
def test_an_epoch_of_which_nothing_counts(device, validated):
    data = (
        {"validation": nothing_counts} if validated else {"x": nothing_counts, "y": None, "batch_size": None}
    )
    with xpnet.use_device(device):
        net = classifier()
        with pytest.raises(ValueError, match="at least one example must count in each epoch"):
            train(net, **data)


def test_a_metric_without_weights():
    plain = metrics.accuracy.unweighted("plain_accuracy")
    options = whole(optimizer=optim.SGD(0.0), validation=(X, Y), metrics=[metrics.accuracy, plain])
    net = classifier()
    weighted = train(net, class_weight=[1.0, 9.0], sample_weight=WEIGHTS, **options)
    alone = train(classifier(), **options)
    assert weighted["plain_accuracy"] == weighted["validation_plain_accuracy"] == alone["accuracy"]
    assert weighted["accuracy"] != alone["accuracy"]


@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
def test_a_training_goes_on_with_weights_if_it_had_them(tmp_path, name):
    given = {"sample_weight": WEIGHTS, "class_weight": {1: 2.0}}[name]
    train(classifier(), callbacks=[xpnet.callbacks.Checkpoint(tmp_path / "a")], **{name: given})
    with pytest.raises(ValueError, match=f"resume needs the data, .*'{name}': 1"):
        train(classifier(), epochs=4, resume=tmp_path / "a")
    train(classifier(), epochs=4, resume=tmp_path / "a", **{name: given})


def test_an_order_of_fewer_rows_leaves_out_what_is_too_little():
    seen = []

    def noting(outputs, targets):
        seen.append(targets.shape[0])
        return losses.cross_entropy(outputs, targets)

    train(classifier(), loss=noting, jit=False, drop_last=True, batch_size=16, shuffle=lambda rows: rows[:37])
    assert set(seen) == {16}
