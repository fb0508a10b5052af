"""Every layer beside its formula, written out in NumPy: one number after the other, as in a textbook."""

import functools
import inspect
import itertools
import math

import numpy
import pytest
from helpers import assert_on, assert_same, draw, rounding

import xpnet
from xpnet import nn

# -- formulas: what a layer makes of x, with its parameters and its state by their paths in p ----------------


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def gelu(x):
    return x / 2 * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def exact_gelu(x):
    return x / 2 * (1 + numpy.vectorize(math.erf)(x / math.sqrt(2)))


def shown(x, mask, other=0.0):
    return numpy.where(mask[:, :, None], x, other)


def softmax(x, axis=-1):
    return numpy.exp(x) / numpy.sum(numpy.exp(x), axis=axis, keepdims=True)


def dense(p, x, name=""):
    return x @ p[f"{name}weight"] + p[f"{name}bias"]


def standardized(x, axes):
    mean, variance = numpy.mean(x, axis=axes, keepdims=True), numpy.var(x, axis=axes, keepdims=True)
    return (x - mean) / numpy.sqrt(variance + 1e-5)


def layer_norm(p, x, name=""):
    return standardized(x, -1) * p[f"{name}weight"] + p[f"{name}bias"]


def rms_norm(p, x):
    return x / numpy.sqrt(numpy.mean(x**2, axis=-1, keepdims=True) + 1e-5) * p["weight"]


def batch_norm(p, x):
    return standardized(x, tuple(range(x.ndim - 1))) * p["weight"] + p["bias"]


def batch_norm_in_use(p, x):
    y = (x - p["running_mean"]) / numpy.sqrt(p["running_variance"] + 1e-5)
    return y * p["weight"] + p["bias"]


def group_norm(p, x, groups):
    each = [standardized(part, tuple(range(1, x.ndim))) for part in numpy.split(x, groups, axis=-1)]
    return numpy.concatenate(each, axis=-1) * p["weight"] + p["bias"]


def places(lengths, sizes, strides, dilations=(1, 1)):
    """Yield the number of each window along each axis, and which places of the axes it has."""
    each = zip(lengths, sizes, strides, dilations, strict=False)
    counts = [(n - d * (size - 1) - 1) // s + 1 for n, size, s, d in each]
    for at in itertools.product(*map(range, counts)):
        each = zip(at, sizes, strides, dilations, strict=False)
        yield at, [s * i + d * numpy.arange(size) for i, size, s, d in each]


def convolution(p, x, strides, padding, dilations=(1, 1), groups=1):
    x = numpy.pad(x, [(0, 0), *padding, (0, 0)])
    *sizes, width, out = p["weight"].shape
    found = {}
    for at, there in places(x.shape[1:-1], sizes, strides, dilations):
        window = x[:, *numpy.ix_(*there)]
        found[at] = numpy.zeros((x.shape[0], out))
        for o in range(out):
            start = o // (out // groups) * width
            product = window[..., start : start + width] * p["weight"][..., o]
            found[at][:, o] = product.reshape(len(x), -1).sum(axis=1) + p.get("bias", numpy.zeros(out))[o]
    counts = [n + 1 for n in max(found)]
    return numpy.stack(list(found.values()), axis=1).reshape(len(x), *counts, out)


def transposed_convolution(p, x, stride, dilation, cut, groups):
    batch, height, width, channels = x.shape
    *sizes, _, out = p["weight"].shape
    reach = [
        stride * (n - 1) + dilation * (size - 1) + 1 for n, size in zip((height, width), sizes, strict=True)
    ]
    y = numpy.zeros((batch, *reach, out))
    inside, outside = channels // groups, out // groups
    for i, j, k, l, g in itertools.product(*map(range, (height, width, *sizes, groups))):  # noqa: E741
        part, to = slice(g * inside, (g + 1) * inside), slice(g * outside, (g + 1) * outside)
        y[:, stride * i + dilation * k, stride * j + dilation * l, to] += (
            x[:, i, j, part] @ p["weight"][k, l][:, to]
        )
    return y[:, cut : reach[0] - cut, cut : reach[1] - cut] + p["bias"]


def pooled(x, reduce, sizes, strides, padding=0):
    x = numpy.pad(x, [(0, 0), *[(padding, padding)] * len(sizes), (0, 0)], constant_values=numpy.nan)
    found = {
        at: reduce(x[:, *numpy.ix_(*there)], axis=tuple(range(1, x.ndim - 1)))
        for at, there in places(x.shape[1:-1], sizes, strides)
    }
    counts = [n + 1 for n in max(found)]
    return numpy.stack(list(found.values()), axis=1).reshape(len(x), *counts, x.shape[-1])


def angle(t, i, features):
    return t * 10000.0 ** (-2 * i / features)


def sinusoidal(x, start=0):
    y = x.copy()
    for t, i in itertools.product(range(x.shape[-2]), range(x.shape[-1] // 2)):
        y[..., t, 2 * i] += math.sin(angle(t + start, i, x.shape[-1]))
        y[..., t, 2 * i + 1] += math.cos(angle(t + start, i, x.shape[-1]))
    return y


def rotary(x, start=0):
    y, half = x.copy(), x.shape[-1] // 2
    for t, i in itertools.product(range(x.shape[-2]), range(half)):
        turned = (x[..., t, i] + 1j * x[..., t, half + i]) * numpy.exp(1j * angle(t + start, i, 2 * half))
        y[..., t, i], y[..., t, half + i] = turned.real, turned.imag
    return y


def attention(p, x, context=None, mask=None, *, heads=2, causal=False, turn=lambda x: x, name=""):
    if context is None:
        context = x = x if mask is None else shown(x, mask)
    q, k, v = (
        numpy.split(dense(p, source, f"{name}{part}."), heads, axis=-1)
        for part, source in (("query", x), ("key", context), ("value", context))
    )
    seen = numpy.ones((len(x), x.shape[1], context.shape[1]), dtype=bool)
    seen = numpy.tril(seen) if causal else seen
    seen = seen if mask is None else seen & mask[:, None, :]
    each = []
    for query, key, value in zip(q, k, v, strict=True):
        scores = turn(query) @ turn(key).swapaxes(1, 2) / math.sqrt(query.shape[-1])
        each.append(softmax(numpy.where(seen, scores, -numpy.inf)) @ value)
    return dense(p, numpy.concatenate(each, axis=-1), f"{name}output.")


def transformer_block(p, x, mask=None, gelu=gelu):
    x = x if mask is None else shown(x, mask)
    x = x + attention(p, layer_norm(p, x, "attention_norm."), mask=mask, causal=True, name="attention.")
    return x + dense(p, gelu(dense(p, layer_norm(p, x, "dense_norm."), "expand.")), "contract.")


def one_direction(p, x, mask, step, name):
    """Go through each sequence by itself, and through each position that is there."""
    outputs = numpy.zeros((*x.shape[:2], p[f"{name}recurrent.weight"].shape[0]))
    for i in range(len(x)):
        memory = y = outputs[i, 0]
        for t in range(x.shape[1]):
            if mask is None or mask[i, t]:
                memory, y = step(p, x[i, t], memory, y, name)
            outputs[i, t] = y
    return outputs


def recurrent(p, x, mask, step, name=""):
    y = one_direction(p, x, mask, step, name)
    if f"{name}backward.input.weight" in p:
        turned = None if mask is None else mask[:, ::-1]
        back = one_direction(p, x[:, ::-1], turned, step, f"{name}backward.")
        y = numpy.concatenate([y, back[:, ::-1]], axis=-1)
    return recurrent(p, y, mask, step, f"{name}above.") if f"{name}above.input.weight" in p else y


def lstm(p, x, mask=None):
    def step(p, x, memory, y, name):
        gates = dense(p, x, f"{name}input.") + y @ p[f"{name}recurrent.weight"]
        write, forget, new, read = numpy.split(gates, 4, axis=-1)
        memory = sigmoid(forget) * memory + sigmoid(write) * numpy.tanh(new)
        return memory, sigmoid(read) * numpy.tanh(memory)

    return recurrent(p, x, mask, step)


def gru(p, x, mask=None):
    def step(p, x, _memory, y, name):
        reset, keep, new = numpy.split(dense(p, x, f"{name}input."), 3, axis=-1)
        own_reset, own_keep, own_new = numpy.split(dense(p, y, f"{name}recurrent."), 3, axis=-1)
        keep = sigmoid(keep + own_keep)
        return y, (1 - keep) * numpy.tanh(new + sigmoid(reset + own_reset) * own_new) + keep * y

    return recurrent(p, x, mask, step)


# -- the table: a layer, its input, its formula, and what else both are given --------------------------------

ROWS, SEQUENCES, IMAGES = draw(5, 6), draw(2, 5, 4), draw(2, 6, 5, 4)
NUMBERS = numpy.asarray([[2, 0, 2], [1, 3, 2]])
BYTES = numpy.asarray([[97, 256, 256], [98, 99, 100]], dtype="int32")
MASK = {"mask": numpy.asarray([[True, False, True, True, False], [True, True, True, False, False]])}
CONTEXT = {"context": draw(2, 5, 4, seed=1), **MASK}

LAYERS = [
    (lambda: nn.ReLU(), ROWS, lambda p, x: numpy.where(x > 0, x, 0)),
    (lambda: nn.LeakyReLU(0.2), ROWS, lambda p, x: numpy.where(x > 0, x, 0.2 * x)),
    (lambda: nn.ELU(1.5), ROWS, lambda p, x: numpy.where(x > 0, x, 1.5 * (numpy.exp(x) - 1))),
    (lambda: nn.GELU(), ROWS, lambda p, x: gelu(x)),
    (lambda: nn.GELU(approximate=False), ROWS, lambda p, x: exact_gelu(x)),
    (lambda: nn.Sigmoid(), ROWS, lambda p, x: sigmoid(x)),
    (lambda: nn.SiLU(), ROWS, lambda p, x: x * sigmoid(x)),
    (lambda: nn.Tanh(), ROWS, lambda p, x: numpy.tanh(x)),
    (lambda: nn.Softmax(axis=1), SEQUENCES, lambda p, x: softmax(x, axis=1)),
    (lambda: nn.LogSoftmax(axis=1), SEQUENCES, lambda p, x: numpy.log(softmax(x, axis=1))),
    (lambda: nn.Dense(6, 3), ROWS, dense),
    (lambda: nn.Dense(4, 3), IMAGES, dense),
    (lambda: nn.Dense(6, 3, bias=False), ROWS, lambda p, x: x @ p["weight"]),
    (lambda: nn.Embedding(4, 3), NUMBERS, lambda p, x: p["weight"][x]),
    (lambda: nn.Dropout(0.5).eval(), ROWS, lambda p, x: x),
    (lambda: nn.BatchNorm(4), IMAGES, batch_norm),
    (lambda: nn.BatchNorm(4).eval(), IMAGES, batch_norm_in_use),
    (lambda: nn.LayerNorm(4), IMAGES, layer_norm),
    (lambda: nn.RMSNorm(6), ROWS, rms_norm),
    (lambda: nn.GroupNorm(2, 4), IMAGES, lambda p, x: group_norm(p, x, 2)),
    (lambda: nn.GroupNorm(3, 6), ROWS, lambda p, x: group_norm(p, x, 3)),
    (
        lambda: nn.Conv1d(4, 3, 2, stride=2, padding=1, dilation=2),
        SEQUENCES,
        lambda p, x: convolution(p, x, (2,), [(1, 1)], (2,)),
    ),
    (
        lambda: nn.Conv2d(4, 3, (3, 2), stride=(2, 1), padding="same"),
        IMAGES,
        lambda p, x: convolution(p, x, (2, 1), [(0, 1), (0, 1)]),
    ),
    (
        lambda: nn.Conv2d(4, 6, (3, 2), dilation=(1, 3), groups=2, bias=False),
        IMAGES,
        lambda p, x: convolution(p, x, (1, 1), [(0, 0), (0, 0)], (1, 3), 2),
    ),
    (  # of one channel, whose windows are laid out in another order
        lambda: nn.Conv2d(1, 2, 2),
        IMAGES[..., :1],
        lambda p, x: convolution(p, x, (1, 1), [(0, 0), (0, 0)]),
    ),
    (
        lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding="same"),
        IMAGES,
        lambda p, x: transposed_convolution(p, x, 2, 1, 1, 1),
    ),
    (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, dilation=2, groups=2),
        IMAGES,
        lambda p, x: transposed_convolution(p, x, 2, 2, 1, 2),
    ),
    (lambda: nn.MaxPool(2), IMAGES[:, :, :4], lambda p, x: pooled(x, numpy.max, (2, 2), (2, 2))),
    (
        lambda: nn.MaxPool((3, 2), stride=(2, 1), padding=1),
        IMAGES,
        lambda p, x: pooled(x, numpy.nanmax, (3, 2), (2, 1), 1),
    ),
    (lambda: nn.AvgPool(2, stride=1), SEQUENCES, lambda p, x: pooled(x, numpy.mean, (2,), (1,))),
    (
        lambda: nn.AvgPool((3, 2), stride=(2, 1), padding=1),
        IMAGES,
        lambda p, x: pooled(x, numpy.nanmean, (3, 2), (2, 1), 1),
    ),
    (lambda: nn.GlobalAvgPool(), IMAGES, lambda p, x: numpy.mean(x, axis=(1, 2))),
    (
        lambda: nn.GlobalAvgPool(),
        SEQUENCES,
        lambda p, x, mask: numpy.nanmean(shown(x, mask, numpy.nan), axis=1),
        MASK,
    ),
    (lambda: nn.GlobalMaxPool(), IMAGES, lambda p, x: numpy.max(x, axis=(1, 2))),
    (
        lambda: nn.GlobalMaxPool(),
        SEQUENCES,
        lambda p, x, mask: numpy.nanmax(shown(x, mask, numpy.nan), axis=1),
        MASK,
    ),
    (lambda: nn.SinusoidalPositions(4), SEQUENCES, lambda p, x: sinusoidal(x)),
    (lambda: nn.SinusoidalPositions(4), SEQUENCES, lambda p, x, start: sinusoidal(x, start), {"start": 3}),
    (lambda: nn.RotaryPositions(4), IMAGES, lambda p, x: rotary(x)),
    (lambda: nn.RotaryPositions(4), IMAGES, lambda p, x, start: rotary(x, start), {"start": 3}),
    (lambda: nn.MultiHeadAttention(4, 2), SEQUENCES[:, :3], attention, CONTEXT),
    (
        lambda: nn.MultiHeadAttention(4, 2, causal=True),
        SEQUENCES,
        functools.partial(attention, causal=True),
        MASK,
    ),
    (
        lambda: nn.MultiHeadAttention(4, 2, causal=True, rotary=True),
        SEQUENCES,
        lambda p, x: attention(p, x, causal=True, turn=rotary),
    ),
    (lambda: nn.TransformerBlock(4, 2, causal=True), SEQUENCES, transformer_block, MASK),
    (
        lambda: nn.TransformerBlock(4, 2, causal=True, activation=nn.GELU(approximate=False)),
        SEQUENCES,
        lambda p, x: transformer_block(p, x, gelu=exact_gelu),
    ),
    (lambda: nn.LSTM(4, 3), SEQUENCES, lstm),
    (lambda: nn.LSTM(4, 3), SEQUENCES, lstm, MASK),
    (lambda: nn.LSTM(4, 3, layers=3, bidirectional=True), SEQUENCES, lstm),
    (lambda: nn.LSTM(4, 3, layers=2, bidirectional=True), SEQUENCES, lstm, MASK),
    (lambda: nn.GRU(4, 3), SEQUENCES, gru),
    (lambda: nn.GRU(4, 3), SEQUENCES, gru, MASK),
    (lambda: nn.GRU(4, 3, layers=3), SEQUENCES, gru),
    (lambda: nn.GRU(4, 3, layers=2, bidirectional=True), SEQUENCES, gru, MASK),
    (lambda: nn.Flatten(), IMAGES, lambda p, x: x.reshape(2, 120)),
    (lambda: nn.Lambda(lambda x: 2 * x), ROWS, lambda p, x: 2 * x),
    (
        lambda: nn.Sequential(nn.Dense(6, 3), nn.Dense(3, 2)),
        ROWS,
        lambda p, x: dense(p, dense(p, x, "layers.0."), "layers.1."),
    ),
    (
        lambda: nn.Intermediate(nn.Sequential(lambda x: x * x, nn.Tanh()), "layers.0"),
        ROWS,
        lambda p, x: x**2,
    ),
    (lambda: nn.Residual(lambda x: x * x), ROWS, lambda p, x: x + x**2),
    (lambda: nn.Residual(lambda x: x * x, shortcut=lambda x: 3 * x), ROWS, lambda p, x: 3 * x + x**2),
    (
        lambda: nn.Concatenate(lambda x: x, lambda x: x * x, axis=1),
        SEQUENCES,
        lambda p, x: numpy.concatenate([x, x**2], axis=1),
    ),
    (lambda: nn.ByteReader(3), ["a", "bcde"], lambda p, x: BYTES),
]


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: type(row[0]()).__name__)
def test_a_layer_computes_its_formula(device, row):
    make, x, formula, options = (*row, {})[:4]
    random = numpy.random.default_rng(0)

    def there(value):
        return xpnet.asarray(value, device=device) if isinstance(value, numpy.ndarray) else value

    def drawn(leaf):
        if "int" in str(leaf.dtype):  # the state of random numbers
            return leaf
        return there(random.uniform(0.1, 1, size=leaf.shape))  # above 0, as variances are

    layer = xpnet.tree.map(drawn, make(), state=True)
    paths, leaves = xpnet.tree.paths(layer, state=True), xpnet.tree.leaves(layer, state=True)
    p = {path: xpnet.to_numpy(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    expected = formula(p, x, **options)
    y = layer(there(x), **{name: there(value) for name, value in options.items()})
    assert_on(y, device, str(expected.dtype), expected.shape)
    # Numbers around 1, and no sum of as many as 100: rounding is far below, and a wrong formula far above.
    assert_same(y, expected, tolerance=rounding(5000, "float64"))


def test_every_layer_has_a_formula():
    public = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))} - {"Module"}
    assert public == {type(make()).__name__ for make, *_ in LAYERS}
