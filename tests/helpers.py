"""Assertions that look at namespace, device, dtype and shape before they look at values."""

import array_api_compat
import numpy

import xpnet
from xpnet import backends


def assert_same(actual, expected, *, tolerance=None):
    """Assert that two arrays agree in library, device, dtype, shape and, within rounding, in values.

    ``expected`` may be a NumPy array or a list: then it is compared with ``actual`` as if it were of the same
    library, dtype and device.
    """
    if backends.library_of(expected) not in (None, backends.library_of(actual)):
        assert backends.library_of(expected).spec == "cpu", "arrays of two libraries"
    elif backends.library_of(expected) is not None:
        assert array_api_compat.device(actual) == array_api_compat.device(expected)
        assert actual.dtype == expected.dtype
    actual, expected = xpnet.to_numpy(actual), numpy.asarray(xpnet.to_numpy(expected))
    assert actual.shape == expected.shape
    if tolerance is None:
        tolerance = 100 * numpy.finfo(actual.dtype).eps if actual.dtype.kind in "fc" else 0
    numpy.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def assert_on(x, device, dtype=None, shape=None):
    """Assert where an array lives, and what it is like."""
    assert backends.device_of(x) == device
    if dtype is not None:
        assert x.dtype == getattr(device.namespace, dtype)
    if shape is not None:
        assert tuple(x.shape) == shape
