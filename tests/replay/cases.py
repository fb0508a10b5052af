"""Functions whose kernels are compared with what NumPy does."""

import numpy
from helpers import rounding

import xpnet

WHOLE = (3, 4, 5)
SHAPES = [(), (1,), (5,), (4, 5), (1, 1, 5), (3, 1, 1), (3, 4, 1), (3, 4, 5), (1, 4, 1), (4, 1)]


def program(seed):
    """Return a function of some arrays, made of elementwise functions and reductions, and the arrays."""
    random = numpy.random.default_rng(seed)
    dtype = ["float32", "float64"][seed % 2]
    shapes = [WHOLE, WHOLE, *(SHAPES[i] for i in random.integers(len(SHAPES), size=3))]
    arrays = [random.normal(size=shape).astype(dtype) for shape in shapes]
    choices = random.integers(0, 2**31, size=60)

    def f(*arrays):
        xp = xpnet.array_namespace(*arrays)
        picks = iter(choices)
        binary = [xp.add, xp.subtract, xp.multiply, xp.maximum, xp.minimum, lambda a, b: a / (1 + b * b)]
        unary = [
            abs,
            xp.square,
            lambda x: -x,
            lambda x: xp.sqrt(1 + x * x),
            lambda x: xp.where(x > 0, x, 0.5),
        ]
        pool, ends = list(arrays), []
        for _ in range(8):
            kind = next(picks) % 4
            x, y = pool[next(picks) % len(pool)], pool[next(picks) % len(pool)]
            if kind == 0:
                pool.append(unary[next(picks) % len(unary)](x))
            elif kind == 3 and len(x.shape) == 3:
                reduce = [xp.sum, xp.max, xp.min][next(picks) % 3]
                axes = [None, -1, 0, (0, 1), (1, 2), 1][next(picks) % 6]
                y = reduce(x, axis=axes, keepdims=bool(next(picks) % 2))
                ends.append(y)
                pool.append(y if y.shape in SHAPES else x * 2)
            else:
                try:
                    pool.append(binary[next(picks) % len(binary)](x, y))
                except ValueError:
                    continue  # their shapes do not fit
        return [pool[-1], pool[-2], *ends]

    return f, arrays


TINY = 1e-310
EXACT = {
    "infinity stays": lambda x, y: (x + numpy.inf) - numpy.inf + y,
    "what is rounded away stays away": lambda x, y: (x + 1e16) - 1e16 + y * 0,
    "a division is one": lambda x, y: (x * 1) / 49.0 + y * 0,
    "overflow": lambda x, y: x * 1e200 * 1e200 * 1e-300 + y * 0,
    "the sign of zero": lambda x, y: 1 / (x * 0 + 0.0) + 1 / -(x - x) + y * 0,
    "a product is rounded before it is added": lambda x, y: x * 1.1 - (x + y * 0) * 1.1,
}


def standardize(xp, x, _):
    centered = x - xp.mean(x, axis=-1, keepdims=True)
    return centered / xp.sqrt(xp.mean(centered * centered, axis=-1, keepdims=True) + 1e-5)


def log_softmax(xp, x, _):
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1))[..., None]


def largest_margin(xp, x, labels):
    correct = xp.take_along_axis(x * 2, labels, axis=-1)
    return xp.max(x - correct, axis=-1) + xp.reshape(correct, x.shape[:-1])


def picked_from_an_argument_that_is_overwritten(xp, x, labels):
    return x + xp.sum(x, axis=-1, keepdims=True) + xp.take_along_axis(x, labels, axis=-1)


def scores(xp, x, labels):
    return xp.mean(xp.square(xp.take_along_axis(log_softmax(xp, x, labels), labels, axis=-1)[..., 0]))


ROWS = [standardize, log_softmax, largest_margin, picked_from_an_argument_that_is_overwritten, scores]


def gradient_of_rows(f):
    """Return a function that returns a loss of ``f(xp, x, labels)``, what that is, and the gradient of x."""

    def loss(x, labels):
        xp = xpnet.array_namespace(x)
        y = f(xp, x, labels)
        return xp.sum(xp.sin(y)), y

    return xpnet.value_and_grad(loss, has_aux=True)


def gated(xp, x, _):
    return x[..., :8] * xp.maximum(x[..., 8:], 0)


def largest_of_pairs(xp, x, _):
    first, second = xp.unstack(xp.reshape(x * 2, (-1, 2, x.shape[-1])), axis=1)
    return xp.maximum(first, second)


def neighbours(xp, x, _):
    return xp.stack([x[:, 1:] - x[:, :-1], x[:, 1:] + x[:, :-1], x[:, 1:]], axis=1)


def stacked_last(xp, x, _):
    return xp.stack([x + 1, x * x], axis=-1), xp.stack([x + 1, x - 1], axis=0)


def beside_its_first_row(xp, x, _):
    return x + xp.broadcast_to(x[:1], x.shape)


def totals_of_a_part(xp, x, _):
    part = x[:, 1]
    rows = xp.sum(part * part, axis=-1), xp.max(part + 1, axis=-1, keepdims=True)
    return rows, xp.sum(part * 2), xp.sum(part * 3, axis=0)


def picked_from_a_part(xp, x, labels):
    return xp.take_along_axis(x[:, 1], labels, axis=-1) * 2


VIEWS = [
    gated,
    largest_of_pairs,
    neighbours,
    stacked_last,
    beside_its_first_row,
    totals_of_a_part,
    picked_from_a_part,
]


def assert_within_roundings(results, expected, *, roundings=100):
    """Compare trees of arrays after so many roundings, of what is no larger than the largest element."""
    for one, other in zip(xpnet.tree.leaves(results), xpnet.tree.leaves(expected), strict=True):
        one, other = numpy.asarray(one), numpy.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype.kind in "fc":
            tolerance = rounding(roundings, one.dtype)
            largest = numpy.max(abs(other), initial=0, where=numpy.isfinite(other))
            numpy.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * largest)
        else:
            numpy.testing.assert_array_equal(one, other)


def assert_identical(one, other, name=""):
    """Compare arrays or numbers bit for bit, but for the bits of NaN."""
    assert (one.dtype, one.shape) == (other.dtype, other.shape), name
    numpy.testing.assert_array_equal(one, other, name)
    if one.dtype.kind == "f":
        signs = [numpy.signbit(x) & ~numpy.isnan(x) for x in (one, other)]
        numpy.testing.assert_array_equal(*signs, f"signs of {name}")


def check_views(f):
    """Compare a recorded function of views with what NumPy does, with and without its gradient."""
    random = numpy.random.default_rng(0)
    labels = random.integers(-16, 16, size=(6, 1))

    def outputs(x, labels):
        return f(xpnet.array_namespace(x), x, labels)

    def loss(x, labels):
        y = outputs(x, labels)
        return sum(xpnet.array_namespace(x).sum(leaf * leaf) for leaf in xpnet.tree.leaves(y)), y

    for plain in (outputs, xpnet.value_and_grad(loss, has_aux=True)):
        recorded = xpnet.jit(plain, donate=("x",))
        for _ in range(3):
            x = random.normal(size=(6, 4, 16)).astype("float32")
            expected = plain(x, labels)
            assert_within_roundings(recorded(x, labels), expected, roundings=300)
