"""The gradient of each function that takes complex numbers, at complex numbers: none is the conjugate.

The tables of the chapters have arrays of real numbers for the most part. Here they get imaginary parts. This
runs on NumPy, which takes complex numbers in more functions than the standard asks for.
"""

import warnings

import numpy
import pytest

import xpnet
from autodiff.test_every_rule import CASES

# Functions of real numbers. NumPy refuses complex ones in most of them, and orders them in some.
REAL = {
    *("remainder", "logaddexp", "atan2", "hypot", "copysign", "nextafter"),
    *("maximum", "minimum", "clip", "max", "min", "sort", "logistic"),
    *("fft.rfft", "fft.rfftn", "fft.ihfft"),
    *(name for name in CASES if name.startswith("special.")),
}


def with_imaginary_parts(x):
    if x.dtype.kind != "f":
        return x
    random = numpy.random.default_rng(3)
    return x + 1j * random.uniform(0.1, 0.5, size=x.shape) * random.choice([-1.0, 1.0], size=x.shape)


def check(case):
    """Check a case unless it asks for real numbers by a dtype; say whether it was checked."""
    arrays = [with_imaginary_parts(x) for x in case.arrays()]
    with warnings.catch_warnings():
        warnings.simplefilter("error", numpy.exceptions.ComplexWarning)
        try:
            # What is conjugated is off by as much as it is itself; some of these matrices have eigenvalues so
            # near that finite differences are off by 1e-8.
            xpnet.check_gradients(case, *arrays, tolerance=1e-6)
        except numpy.exceptions.ComplexWarning:
            return False
    return True


@pytest.mark.parametrize("name", sorted(set(CASES) - REAL))
def test_gradients(name):
    with xpnet.use_device("cpu"):
        checked = [check(case) for case in CASES[name]]
    assert any(checked)
