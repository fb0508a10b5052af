"""Settings that are numbers: those of any library are taken, all else is refused."""

import functools
import math
import types
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest

import xpnet
from xpnet import callbacks, losses, metrics, nn, optim, settings, tree
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
    "patience": [
        lambda n: callbacks.EarlyStopping(patience=n),
        lambda n: callbacks.ReduceLROnPlateau(patience=n),
    ],
    "epochs": [lambda n: fit(epochs=n)],
    "batch_size": [
        lambda n: fit(batch_size=n),
        lambda n: xpnet.predict(nn.Dense(3, 3, seed=0), Z, batch_size=n),
    ],
    "block_size": [lambda n: fit(shuffle="blocks", block_size=n)],
    "in_features": [lambda n: nn.Dense(n, 2, seed=0), lambda n: nn.LSTM(n, 2, seed=0)],
    "features": [
        lambda n: nn.LayerNorm(n),
        lambda n: nn.Embedding(3, n, seed=0),
        lambda n: nn.GRU(2, n, seed=0),
    ],
    "layers": [lambda n: nn.LSTM(2, 2, layers=n, seed=0), lambda n: nn.GRU(2, 2, layers=n, seed=0)],
    "heads": [lambda n: nn.MultiHeadAttention(4, n, seed=0)],
    "groups": [lambda n: nn.GroupNorm(n, 4), lambda n: nn.Conv2d(4, 4, 3, groups=n, seed=0)],
    "length": [
        lambda n: nn.ByteReader(n),
        lambda n: nn.mask_of_lengths(numpy.asarray([1, 2]), n),
    ],
    "size": [lambda n: nn.MaxPool(n), lambda n: nn.AvgPool((n, 2))],
    "stride": [lambda n: nn.MaxPool(2, stride=n), lambda n: nn.Conv2d(1, 1, 3, stride=n, seed=0)],
    "kernel_size": [
        lambda n: nn.Conv1d(1, 2, n, seed=0),
        lambda n: nn.ConvTranspose2d(1, 2, (3, n), seed=0),
    ],
    "dilation": [lambda n: nn.Conv2d(1, 1, 3, dilation=[n, 1], seed=0)],
    "hidden": [lambda n: nn.TransformerBlock(4, 2, hidden=n, seed=0)],
    "batch": [lambda n: nn.MultiHeadAttention(4, 2, seed=0).new_cache(n, 3)],
    "input_shape": [lambda n: str(nn.Dense(2, 2).summary((3, n)))],
    "classes": [lambda n: losses.check_labels([0, 1], n)],
    "examples": [lambda n: losses.check_weights([1] * (n if isinstance(n, int) else 2), n)],
    "k": [lambda n: metrics.top_k_accuracy(n)],
    "order": [lambda n: xpnet.check_gradients(lambda x: x * x, numpy.ones(2), order=n)],
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
    "rate": [lambda r: optim.constant(r), lambda r: nn.Dropout(r, seed=0)],
    "factor": [
        lambda r: optim.step_decay(0.1, every=2, factor=r),
        lambda r: callbacks.ReduceLROnPlateau(factor=r),
    ],
    "decay": [lambda r: callbacks.ExponentialMovingAverage(r)],
    "minimum": [lambda r: callbacks.ReduceLROnPlateau(minimum=r)],
    "warmup_fraction": [lambda r: optim.one_cycle(0.1, steps=30, warmup_fraction=r)],
    "initial_scale": [lambda r: optim.LossScaling(optim.SGD(0.1), initial_scale=r)],
    "negative_slope": [lambda r: nn.LeakyReLU(r)],
    "base": [lambda r: nn.SinusoidalPositions(4, base=r)],
    "deviation": [lambda r: drawn(initializers.normal(r))],
    "high": [lambda r: drawn(initializers.uniform(0, r))],
    "gain": [lambda r: drawn(initializers.orthogonal(r))],
    "delta": [lambda r: losses.huber(Z, Z, delta=r)],
    "label_smoothing": [lambda r: losses.cross_entropy(Z, LABELS, label_smoothing=r)],
    "class_weight": [
        lambda r: losses.cross_entropy(Z, LABELS, class_weight=[r, 1, 2]),
        lambda r: losses.binary_cross_entropy(Z, Z / 3, class_weight=[1, r]),
        lambda r: metrics.accuracy(Z, LABELS, class_weight=[r, 1, 2]),
    ],
    "positive_weight": [lambda r: losses.binary_cross_entropy(Z, Z / 3, positive_weight=r)],
    "min_delta": [
        lambda r: callbacks.EarlyStopping(min_delta=r),
        lambda r: callbacks.ReduceLROnPlateau(min_delta=r),
    ],
    "tolerance": [lambda r: xpnet.check_gradients(lambda x: x * x, numpy.ones(2), tolerance=r)],
}


FLAGS = {
    "bias": [
        lambda f: nn.Dense(2, 2, bias=f, seed=0),
        lambda f: nn.Conv2d(1, 1, 3, bias=f, seed=0),
        lambda f: nn.MultiHeadAttention(4, 2, bias=f, seed=0),
    ],
    "bidirectional": [lambda f: nn.LSTM(2, 2, bidirectional=f, seed=0)],
    "approximate": [lambda f: nn.GELU(f)],
    "causal": [lambda f: nn.MultiHeadAttention(4, 2, causal=f, seed=0)],
    "rotary": [lambda f: nn.TransformerBlock(4, 2, rotary=f, seed=0)],
    "nesterov": [
        lambda f: optim.SGD(0.1, momentum=0.9, nesterov=f),
        lambda f: optim.accumulate_momentum(0.9, nesterov=f),
    ],
    "epsilon_hat": [lambda f: optim.Adam(epsilon_hat=f), lambda f: optim.scale_by_adam(epsilon_hat=f)],
    "progress": [lambda f: fit(progress=f)],
    "jit": [
        lambda f: fit(jit=f),
        lambda f: fit(loss=xpnet.training.Steps(losses.cross_entropy, jit=f)),
        lambda f: xpnet.predict(nn.Dense(3, 3, seed=0), Z, jit=f),
    ],
    "restore_best": [lambda f: callbacks.EarlyStopping(restore_best=f)],
    "warmup": [lambda f: callbacks.ExponentialMovingAverage(warmup=f)],
    "replace_weights": [lambda f: callbacks.ExponentialMovingAverage(replace_weights=f)],
    "overwrite": [lambda f: callbacks.CSVLogger("x", overwrite=f)],
    "takes_logits": [lambda f: metrics.Metric("loss", losses.mse, float, takes_logits=f)],
    "has_aux": [lambda f: xpnet.grad(lambda x: (x * x, x) if f else x * x, has_aux=f)(2.0)],
}
# Others that take a number, with one of those that they take. Some would be too much for a number of 8 bits.
CALLS = [
    (100, lambda n: nn.TransformerBlock(n, 2, seed=0)),
    (2, lambda n: nn.MultiHeadAttention(512, n, rotary=True, seed=0)),
    (100, lambda n: nn.GroupNorm(2, n)),
    (100, lambda n: nn.BatchNorm(n)),
    (100, lambda n: nn.LSTM(2, n, seed=0)),
    (3, lambda n: nn.Conv2d(1, 1, 3, padding=n, seed=0)),
    (0, lambda n: nn.MaxPool(2, padding=(n, 1))),
    (7, lambda n: nn.Dense(2, 2, seed=n)),
    (7, lambda n: nn.Dropout(seed=n)),
    (7, lambda n: fit(seed=n)),
    (7, lambda n: xpnet.check_gradients(lambda x: x * x, numpy.ones(2), seed=n)),
    (-1, lambda n: nn.Softmax(n)),
    (1, lambda n: nn.LogSoftmax(n)(Z)),
    (0, lambda n: nn.Concatenate(nn.ReLU(), nn.Tanh(), axis=n)(Z)),
    (3, lambda n: callbacks.ReduceLROnPlateau(cooldown=n)),
    (5, lambda n: nn.SinusoidalPositions(2)(Z[None, :, :2], start=n)),
    (5, lambda n: xpnet.jit(lambda x: nn.RotaryPositions(2)(x, start=n))(Z[:, :2])),
    (2, lambda n: losses.cross_entropy(Z, LABELS + 1, ignore_index=n)),
    (2, lambda n: metrics.accuracy.ignoring(n)(Z, LABELS)),
    (0.5, lambda r: metrics.r2.ignoring(r)(Z, Z)),
    (3, lambda n: xpnet.scan(lambda total, _: (total + 1, total), numpy.float32(0), length=n)),
    (0.5, lambda r: fit(validation=r)),
    (0.5, lambda r: fit(callbacks=[callbacks.LearningRateSchedule(lambda _: r)])),
    (0.5, lambda r: fit(optimizer=optim.SGD(lambda _: r))),
    (0.25, lambda r: optim.cosine(r, steps=5, final=r)),
    (0.25, lambda r: optim.warmup_cosine(r, warmup_steps=2, steps=5, initial=r, final=r)),
    (0.25, lambda r: optim.one_cycle(r, steps=50, initial_divisor=r, final_divisor=r)),
    *((3, schedule) for schedule in (
        optim.constant(0.5), optim.step_decay(1.0, every=2), optim.cosine(1.0, steps=5),
        optim.warmup_cosine(1.0, warmup_steps=2, steps=5), optim.one_cycle(1.0, steps=50),
    )),
]  # fmt: skip
OF_NUMPY = {
    int: [numpy.int64, numpy.int8, numpy.uint8, numpy.asarray],
    float: [numpy.float32, numpy.float64, numpy.asarray, lambda r: numpy.asarray(r, "float32"), Fraction],
    bool: [numpy.bool_, numpy.asarray],
}


def drawn(initializer):
    return initializer((4, 5), numpy.random.default_rng(0))


def remembered(made):
    """Return all that an object holds: the types of its numbers, and the dtypes of its arrays."""
    if tree.is_array(made):
        return str(made.dtype), made.shape, made.tobytes()
    if isinstance(made, functools.partial):
        return made.func, remembered([made.args, made.keywords])
    if isinstance(made, dict):
        return type(made), {key: remembered(value) for key, value in made.items()}
    if isinstance(made, list | tuple):
        return type(made), [remembered(value) for value in made]
    attributes = None if isinstance(made, types.FunctionType) else getattr(made, "__dict__", None)
    return type(made), made if attributes is None else remembered(attributes)


def cases(table):
    return [
        pytest.param(name, make, id=f"{name}-{i}")
        for name, all in table.items()
        for i, make in enumerate(all)
    ]


@pytest.mark.parametrize(
    ("value", "call"),
    [
        *((2, make) for all in COUNTS.values() for make in all),
        *((0.5, make) for all in RATES.values() for make in all),
        *((flag, make) for all in FLAGS.values() for make in all for flag in (True, False)),
        *CALLS,
    ],
)
def test_a_number_of_numpys_is_as_one_of_pythons(value, call):
    expected = remembered(call(value))
    for kind in OF_NUMPY[type(value)]:
        if value >= 0 or kind is not numpy.uint8:
            assert remembered(call(kind(value))) == expected


@pytest.mark.parametrize(
    "value",
    [0, -1, 2.0, numpy.float64(2), math.nan, math.inf, True, numpy.True_, "2", None, [2, 2, 2, 2]],
    ids=repr,
)
@pytest.mark.parametrize(("name", "make"), cases(COUNTS))
def test_what_is_no_positive_integer_is_refused(name, make, value):
    if value is None and name in ("batch_size", "block_size", "every", "hidden", "keep", "stride"):
        return  # a default
    with pytest.raises(ValueError, match=rf"{name} must be .*integers?.*, received "):
        make(value)


@pytest.mark.parametrize(
    "value",
    ["0.1", "nan", True, 10**400, numpy.True_, None, math.nan, math.inf, Decimal("0.1"), 1j, [0.1]],
    ids=repr,
)
@pytest.mark.parametrize(("name", "make"), cases(RATES))
def test_what_is_no_number_is_refused(name, make, value):
    if value is None and name == "tolerance":
        return  # a default
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


@pytest.mark.parametrize("value", [0, 1, numpy.int64(1), 1.0, "yes", None], ids=repr)
@pytest.mark.parametrize(("name", "make"), cases(FLAGS))
def test_what_is_neither_true_nor_false_is_refused(name, make, value):
    with pytest.raises(ValueError, match=f"{name} must be True or False, received "):
        make(value)
