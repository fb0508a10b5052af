"""Initializers: their moments, bounds and shapes, and the orthogonality of the orthogonal ones."""

import math

import numpy
import pytest
from helpers import rounding

from xpnet.nn import initializers

# Each initializer with the variance that it promises for `inputs` and `outputs`.
VARIANCES = {
    "he": lambda inputs, _: 2 / inputs,
    "glorot": lambda inputs, outputs: 2 / (inputs + outputs),
    "lecun": lambda inputs, _: 1 / inputs,
}


@pytest.mark.parametrize("name", VARIANCES)
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("shape", [(400, 100), (100, 400), (3, 3, 40, 100)])
def test_moments(name, distribution, shape):
    initialize = getattr(initializers, f"{name}_{distribution}")
    kernel = math.prod(shape[:-2])
    variance = VARIANCES[name](shape[-2] * kernel, shape[-1] * kernel)
    x = initialize(shape, numpy.random.default_rng(0))
    assert (x.shape, x.dtype) == (shape, numpy.float64)
    assert abs(x.mean()) < 4 * math.sqrt(variance / x.size)
    fourth = {"normal": 3, "uniform": 9 / 5}[distribution]  # the fourth moment, as a multiple of variance²
    assert abs(x.var() / variance - 1) < 4 * math.sqrt((fourth - 1) / x.size)
    assert abs((x**4).mean() / variance**2 - fourth) < 0.2
    if distribution == "uniform":
        assert 0.99 < numpy.abs(x).max() / math.sqrt(3 * variance) <= 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.5, 0.25)])
def test_uniform(low, high):
    x = initializers.uniform(low, high)((200, 200), numpy.random.default_rng(0))
    assert low <= x.min() < low + 0.001
    assert high - 0.001 < x.max() < high
    assert abs(x.mean() - (low + high) / 2) < 0.01
    assert initializers.uniform()((3,), numpy.random.default_rng(0)).shape == (3,)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.5, 0.5)])
def test_uniform_without_room(low, high):
    with pytest.raises(ValueError, match=f"needs low < high, received low={low} and high={high}"):
        initializers.uniform(low, high)


def test_zeros():
    x = initializers.zeros((2, 3), numpy.random.default_rng(0))
    assert x.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_orthogonal(shape, gain):
    x = initializers.orthogonal(gain)(shape, numpy.random.default_rng(0))
    assert x.shape == shape
    matrix = x.reshape(-1, shape[-1]) / gain
    rows, columns = matrix.shape
    product = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    numpy.testing.assert_allclose(product, numpy.eye(min(rows, columns)), atol=rounding(100, "float64"))


def test_orthogonal_matrices_are_spread_evenly():
    # Without the signs of R, the first entry would be negative every time.
    random = numpy.random.default_rng(0)
    first = [initializers.orthogonal()((2, 2), random)[0, 0] for _ in range(400)]
    assert abs(numpy.mean(first)) < 0.15
    assert abs(numpy.var(first) - 0.5) < 0.1


@pytest.mark.parametrize(
    "initialize",
    [
        initializers.he_normal,
        initializers.he_uniform,
        initializers.glorot_normal,
        initializers.glorot_uniform,
        initializers.lecun_normal,
        initializers.lecun_uniform,
        initializers.orthogonal(),
    ],
)
@pytest.mark.parametrize("shape", [(), (3,)])
def test_needs_a_matrix(initialize, shape):
    with pytest.raises(ValueError, match=r"needs the shape of a matrix, \(in, out\), received"):
        initialize(shape, numpy.random.default_rng(0))


def test_normal():
    drawn = initializers.normal(0.5)((1000, 40), numpy.random.default_rng(0))
    assert abs(drawn.std() - 0.5) < 0.01
    assert abs(drawn.mean()) < 0.01
    with pytest.raises(ValueError, match=r"deviation must be at least 0, received -1"):
        initializers.normal(-1)
