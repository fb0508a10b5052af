"""Arrays and networks to test with, tolerances, and assertions.

The latter look at namespace, device, dtype and shape before they look at values.

A tolerance comes from a bound, since the last digits depend on the machine: a processor adds up as many
numbers at once as fit into its registers, BLAS takes other blocks, another version another formula.
"""

import os
import subprocess
import sys
from itertools import pairwise

import array_api_compat
import numpy
import pytest

import xpnet
from xpnet import backends, nn, tree


def rounding(number, dtype, scale=1.0):
    """Return how far apart two results may be that come by so many roundings each, one after the other.

    A rounding errs by at most eps / 2 of what it rounds, and that is at most ``scale``. In whatever order
    they come, ``number`` of them err by at most number * eps / 2 together (N. J. Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, section 3.1), and two results by twice that. A sum of n numbers,
    or a product with an inner length of n, counts n roundings, of the sum of magnitudes.
    """
    return number * float(numpy.finfo(dtype).eps) * scale


def half_of_the_digits(dtype, scale=1.0):
    """Return how far apart two trainings may be, or other long computations that are well-conditioned.

    That is `rounding` of 1 / sqrt(eps) roundings: 67 million in double precision, 2,900 in single precision,
    which is more than all steps of a training in these tests make one behind the other, with what each step
    makes of the errors of those before. What is wrong by 1 % is far above.
    """
    return rounding(float(numpy.finfo(dtype).eps) ** -0.5, dtype, scale)


def needs_float16(xp):
    """Skip a test on a library that has no float16, which the standard does not ask for."""
    if not hasattr(xp, "float16"):
        pytest.skip("the library has no float16")


def draw(*shape, seed=0, dtype="float64"):
    """Return normally distributed numbers, as an array of NumPy."""
    return numpy.random.default_rng(seed).normal(size=shape).astype(dtype)


def array(x, dtype=None):
    """Return an array on the current device; integers are of double precision unless told otherwise."""
    x = numpy.asarray(x)
    if dtype is None and x.dtype.kind == "i":
        x = x.astype(float)
    return xpnet.asarray(x, device=xpnet.device(), dtype=dtype)


def on(device, values, dtype=None):
    """Return values, or a dict of values, as arrays on a device."""
    if isinstance(values, dict):
        return {name: on(device, value, dtype) for name, value in values.items()}
    return xpnet.asarray(values, device=device, dtype=dtype)


def batch(*shape, seed=0, dtype="float32", device=None):
    """Return normally distributed examples on a device: the current one unless told otherwise."""
    return on(device or xpnet.device(), draw(*shape, seed=seed), dtype)


def network(*features, dropout=0.0, seed=0, dtype="float32"):
    """Return dense layers with ReLU between them, and dropout in front of the last one if it has a rate."""
    layers = []
    for number, (inner, outer) in enumerate(pairwise(features)):
        layers += [nn.Dense(inner, outer, seed=seed + number, dtype=dtype), nn.ReLU()]
    layers.pop()
    if dropout:
        layers.insert(-1, nn.Dropout(dropout, seed=seed + len(features)))
    return nn.Sequential(*layers)


def run_python(*arguments, **environment):
    """Run Python with warnings as errors, on the default device, and return what it prints."""
    variables = {name: value for name, value in os.environ.items() if name != "XPNET_DEVICE"}
    result = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**variables, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


def assert_same(actual, expected, *, tolerance=None):
    """Assert that two arrays agree in library, device, dtype, shape and, within rounding, in values.

    ``expected`` may be a NumPy array or a list: then it is compared with ``actual`` as if it were of the same
    library, dtype and device. The ``tolerance`` is relative to the result, or to 1 if that is more; the
    default is for a hundred roundings.
    """
    if backends.library_of(expected) not in (None, backends.library_of(actual)):
        assert backends.library_of(expected).spec == "cpu", "arrays of two libraries"
    elif backends.library_of(expected) is not None:
        assert array_api_compat.device(actual) == array_api_compat.device(expected)
        assert actual.dtype == expected.dtype
    actual, expected = xpnet.to_numpy(actual), numpy.asarray(xpnet.to_numpy(expected))
    assert actual.shape == expected.shape
    if tolerance is None:
        tolerance = rounding(100, actual.dtype) if actual.dtype.kind in "fc" else 0
    numpy.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def assert_same_trees(actual, expected, *, tolerance=None):
    """Assert that two trees have the same leaves, state among them; see `assert_same`."""
    assert tree.paths(actual, state=True) == tree.paths(expected, state=True)
    for one, other in zip(tree.leaves(actual, state=True), tree.leaves(expected, state=True), strict=True):
        assert_same(one, other, tolerance=tolerance)


def assert_on(x, device, dtype=None, shape=None):
    """Assert where an array lives, and what it is like."""
    assert backends.device_of(x) == device
    if dtype is not None:
        assert x.dtype == getattr(device.namespace, dtype)
    if shape is not None:
        assert tuple(x.shape) == shape
