"""Settings that are numbers: those of any library are taken, all else is refused."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest

import xpnet
from xpnet import callbacks, losses, nn, optim, settings, tree
from xpnet.nn import initializers

Z, LABELS = numpy.asarray([[1.0, 2.0, 3.0]] * 4, dtype="float32"), numpy.zeros(4, dtype="int64")


def fit(**options):
    required = {"loss": losses.cross_entropy, "optimizer": optim.SGD(0.0), "epochs": 1, "progress": False}
    return xpnet.fit(nn.Dense(3, 3, seed=0), Z, LABELS, **(required | options))


# Each public function with a setting of some kind, by the name of the setting.
COUNTS = {
    "steps": [lambda n: optim.cosine(0.1, steps=n)],
    "every": [
        lambda n: optim.step_decay(0.1, every=n),
        lambda n: callbacks.Checkpoint("x", every=n),
    ],
    "keep": [lambda n: callbacks.Checkpoint("x", keep=n)],
    "warmup_steps": [lambda n: optim.warmup_cosine(0.1, warmup_steps=n, steps=10)],
    "growth_interval": [lambda n: optim.LossScaling(optim.SGD(0.1), growth_interval=n)],
    "patience": [lambda n: callbacks.EarlyStopping(patience=n)],
    "epochs": [lambda n: fit(epochs=n)],
    "batch_size": [
        lambda n: fit(batch_size=n),
        lambda n: xpnet.predict(nn.Dense(3, 3, seed=0), Z, batch_size=n),
    ],
    "in_features": [lambda n: nn.Dense(n, 2), lambda n: nn.LSTM(n, 2)],
    "features": [lambda n: nn.LayerNorm(n), lambda n: nn.Embedding(3, n), lambda n: nn.GRU(2, n)],
    "heads": [lambda n: nn.MultiHeadAttention(4, n)],
    "groups": [lambda n: nn.GroupNorm(n, 4), lambda n: nn.Conv2d(4, 4, 3, groups=n)],
    "length": [lambda n: nn.ByteReader(n)],
    "size": [lambda n: nn.MaxPool(n)],
    "stride": [lambda n: nn.MaxPool(2, stride=n), lambda n: nn.Conv2d(1, 1, 3, stride=n)],
}
RATES = {
    "learning_rate": [lambda r: optim.SGD(r), lambda r: optim.Adam(r), lambda r: optim.Lion(r)],
    "momentum": [
        lambda r: optim.SGD(0.1, momentum=r),
        lambda r: optim.RMSprop(momentum=r),
        lambda r: optim.accumulate_momentum(r),
        lambda r: nn.BatchNorm(3, momentum=r),
    ],
    "weight_decay": [
        lambda r: optim.SGD(0.1, weight_decay=r),
        lambda r: optim.AdamW(weight_decay=r),
        lambda r: optim.Lion(weight_decay=r),
    ],
    "beta1": [lambda r: optim.Adam(beta1=r), lambda r: optim.scale_by_lion(beta1=r)],
    "alpha": [lambda r: optim.RMSprop(alpha=r), lambda r: nn.ELU(r)],
    "epsilon": [lambda r: optim.Adam(epsilon=r), lambda r: nn.LayerNorm(3, epsilon=r)],
    "max_norm": [lambda r: optim.clip_by_global_norm(r)],
    "rate": [lambda r: optim.constant(r), lambda r: nn.Dropout(r)],
    "factor": [lambda r: optim.step_decay(0.1, every=2, factor=r)],
    "warmup_fraction": [lambda r: optim.one_cycle(0.1, steps=30, warmup_fraction=r)],
    "initial_scale": [lambda r: optim.LossScaling(optim.SGD(0.1), initial_scale=r)],
    "negative_slope": [lambda r: nn.LeakyReLU(r)],
    "base": [lambda r: nn.SinusoidalPositions(4, base=r)],
    "deviation": [lambda r: initializers.normal(r)],
    "high": [lambda r: initializers.uniform(0, r)],
    "gain": [lambda r: initializers.orthogonal(r)],
    "delta": [lambda r: losses.huber(Z, Z, delta=r)],
    "label_smoothing": [lambda r: losses.cross_entropy(Z, LABELS, label_smoothing=r)],
    "positive_weight": [lambda r: losses.binary_cross_entropy(Z, Z / 3, positive_weight=r)],
    "min_delta": [lambda r: callbacks.EarlyStopping(min_delta=r)],
}


def cases(table):
    return [
        pytest.param(name, make, id=f"{name}-{i}")
        for name, all in table.items()
        for i, make in enumerate(all)
    ]


@pytest.mark.parametrize("value", [2, numpy.int64(2), numpy.uint8(2), numpy.asarray(2)], ids=repr)
@pytest.mark.parametrize(("name", "make"), cases(COUNTS))
def test_integers_are_taken(name, make, value):
    made = make(value)
    if isinstance(made, nn.Module):  # to which a number of NumPy's is a parameter
        assert [type(x) for x in vars(made).values() if numpy.ndim(x) == 0 and tree.is_array(x)] == []


@pytest.mark.parametrize(
    "value",
    [0, -1, 2.0, numpy.float64(2), math.nan, math.inf, True, numpy.True_, "2", None, [2, 2, 2, 2]],
    ids=repr,
)
@pytest.mark.parametrize(("name", "make"), cases(COUNTS))
def test_what_is_no_positive_integer_is_refused(name, make, value):
    if value is None and name in ("every", "keep", "stride"):
        return  # a default
    with pytest.raises(ValueError, match=rf"{name} must be (a positive|an)? ?integers?.*, received "):
        make(value)


@pytest.mark.parametrize(
    "value", [0.5, numpy.float32(0.5), numpy.float64(0.5), numpy.asarray(0.5), Fraction(1, 2)], ids=repr
)
@pytest.mark.parametrize(("name", "make"), cases(RATES))
def test_numbers_are_taken(name, make, value):
    made = make(value)
    if isinstance(made, nn.Module):
        assert type(getattr(made, name)) is float
    elif tree.is_array(made):
        assert made.dtype == numpy.float32


@pytest.mark.parametrize(
    "value",
    ["0.1", "nan", True, 10**400, numpy.True_, None, math.nan, math.inf, Decimal("0.1"), 1j, [0.1]],
    ids=repr,
)
@pytest.mark.parametrize(("name", "make"), cases(RATES))
def test_what_is_no_number_is_refused(name, make, value):
    with pytest.raises(ValueError, match=rf"{name} must be (a finite number|from 2.*), received "):
        make(value)


@pytest.mark.parametrize(
    ("check", "taken", "refused", "must"),
    [
        (settings.number, [-1, 0, 2.5], [], ""),
        (settings.at_least_zero, [0, 2.5], [-1e-9], "at least 0"),
        (settings.positive, [1e-9, 2.5], [0, -1], "positive"),
        (settings.fraction, [0, 0.999], [1, -0.1], "at least 0 and less than 1"),
        (settings.up_to_one, [0, 1], [1.001, -0.1], "from 0 to 1"),
        (settings.integer, [-3, 0, 4], [0.5], "an integer"),
        (settings.count, [1, 4], [0, -1], "a positive integer"),
        (settings.flag, [True, False, numpy.True_], [0, 1, "yes", None, 1.0], "True or False"),
    ],
)
def test_ranges(check, taken, refused, must):
    for value in taken:
        made = check("it", value)
        assert made == value
        assert type(made) in (bool, int, float)
    for value in refused:
        with pytest.raises(ValueError, match=f"it must be {must}, received "):
            check("it", value)


def test_numbers_of_any_library(device):
    for dtype, value in (("float32", 0.5), ("int32", 2)):
        x = xpnet.asarray(value, device=device, dtype=dtype)
        assert settings.number("it", x) == value
        assert settings.is_integer(x) is (dtype == "int32")
        assert not settings.is_number(xpnet.asarray([value], device=device))
    assert not settings.is_number(xpnet.asarray(True, device=device))


@pytest.mark.parametrize("value", ["0", True, 1.5, -1, math.nan, [0.5]], ids=repr)
@pytest.mark.parametrize(
    "make",
    [lambda seed: nn.Dense(2, 2, seed=seed), lambda seed: nn.Dropout(seed=seed), lambda seed: fit(seed=seed)],
)
def test_what_is_no_seed_is_refused(make, value):
    with pytest.raises(ValueError, match=r"seed must be an integer of at least 0, .*, received "):
        make(value)


@pytest.mark.parametrize("name", ["progress", "jit"])
def test_what_is_neither_true_nor_false_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, received 1"):
        fit(**{name: 1})
