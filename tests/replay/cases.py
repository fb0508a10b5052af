"""Functions whose kernels are compared with what NumPy does."""

import numpy

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
    "a division is one": lambda x, y: (x * 1) / TINY + y * 0,
    "overflow": lambda x, y: x * 1e200 * 1e200 * 1e-300 + y * 0,
    "the sign of zero": lambda x, y: 1 / (x * 0 + 0.0) + 1 / -(x - x) + y * 0,
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
