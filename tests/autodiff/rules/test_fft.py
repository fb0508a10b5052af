import numpy
import pytest
from helpers import array, assert_same

import xpnet
from autodiff.cases import Case, complexes, named, signed

NORMS = ("backward", "ortho", "forward")


def transform(name, draw):
    """Both ends of the axis, lengths that pad and that cut off, even and odd, and each scale."""

    def case(*shape, **options):
        return Case(lambda xp, x: getattr(xp.fft, name)(x, **options), draw(*shape))

    return [
        *(case(5, norm=norm) for norm in NORMS),
        *(case(2, 4, n=n, norm="forward") for n in (3, 4, 6, 7, 9)),
        case(3, 2, axis=0),
        case(2, 3, 2, axis=-2, n=4),
        case(2, 1, n=1),
    ]


def transforms(name, draw):
    """All axes, some in any order, lengths that pad and that cut off, and each scale."""

    def case(*shape, **options):
        return Case(lambda xp, x: getattr(xp.fft, name)(x, **options), draw(*shape))

    return [
        *(case(2, 3, norm=norm) for norm in NORMS),
        case(2, 3, 4, axes=(-2, -1)),
        case(2, 3, 4, axes=(2, 0), norm="forward"),
        case(3, 2, axes=(0,)),
        *(case(3, 4, s=s, axes=(0, 1), norm="ortho") for s in ((2, 5), (4, 4))),
        case(2, 3, 4, s=(3, 3), axes=(-1, 0)),
    ]


CASES = {
    "fft.fft": transform("fft", complexes),
    "fft.ifft": transform("ifft", complexes),
    "fft.rfft": transform("rfft", signed),
    "fft.irfft": [
        *transform("irfft", complexes),
        Case(lambda xp, x: xp.fft.rfft(xp.fft.irfft(x, n=5)), complexes(2, 3)),
    ],
    "fft.hfft": transform("hfft", complexes),
    "fft.ihfft": transform("ihfft", signed),
    "fft.fftn": transforms("fftn", complexes),
    "fft.ifftn": transforms("ifftn", complexes),
    "fft.rfftn": transforms("rfftn", signed),
    "fft.irfftn": transforms("irfftn", complexes),
    "fft.fftshift": [
        Case(lambda xp, x: xp.fft.fftshift(x), (3, 4)),
        Case(lambda xp, x: xp.fft.fftshift(x, axes=-1), (2, 5)),
        Case(lambda xp, x: xp.fft.fftshift(x, axes=(0, 2)), complexes(3, 2, 5)),
    ],
    "fft.ifftshift": [
        Case(lambda xp, x: xp.fft.ifftshift(x), (3, 4)),
        Case(lambda xp, x: xp.fft.ifftshift(x, axes=-1), (2, 5)),
        Case(lambda xp, x: xp.fft.ifftshift(x, axes=(0, 2)), complexes(3, 2, 5)),
    ],
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()


@pytest.mark.parametrize("name", ["fft", "ifft", "fftn", "ifftn"])
def test_real_numbers_where_a_library_takes_them(name):
    """The standard asks for complex numbers."""

    def f(x):
        return getattr(x.__array_namespace__().fft, name)(x)

    xpnet.check_gradients(f, array([[1.0, -2.0, 3.0], [0.5, 0.0, 2.0]]), order=2)


def test_the_energy_of_a_spectrum_is_that_of_the_signal(xp):
    x = array([1.0 + 2j, -2.0, 3.0j, 0.5])

    def energy(x):
        xp = x.__array_namespace__()
        spectrum = xp.fft.fft(x, norm="ortho")
        return xp.sum(xp.real(spectrum * xp.conj(spectrum)))

    assert_same(xpnet.grad(energy)(x), 2 * x)


def test_frequencies_beside_traced_arrays(xp):
    """The derivative of a wave, by its spectrum: in the gradient, the operator is its own negative."""
    n = 8
    wave = array(numpy.sin(2 * numpy.pi * numpy.arange(n) / n))
    weights = array(numpy.cos(2 * numpy.pi * numpy.arange(n) / n))

    def f(x):
        xp = x.__array_namespace__()
        k = xp.fft.rfftfreq(n, d=1 / n, device=x.device)
        k = xp.astype(k, xp.complex128) * xp.asarray(1j, dtype=xp.complex128, device=x.device)
        return xp.sum(xp.fft.irfft(xp.fft.rfft(x) * k, n=n) * weights)

    assert_same(xpnet.grad(f)(wave), wave)
