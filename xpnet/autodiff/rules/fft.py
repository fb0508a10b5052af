"""Discrete Fourier transforms.

A transform is a symmetric matrix, so its rule is the same transform of the gradient; what it padded is cut
off and what it cut off is padded with zeros. (In the sweep, gradients of complex values are conjugated, so
that no rule conjugates: see `xpnet.autodiff.backward`.)
"""

from typing import Any

from xpnet.autodiff.primitive import composite, function, untraced
from xpnet.autodiff.rules.elementwise import conj

# The scale of a transform, by the scale of its inverse.
_INVERSE = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def _resize(xp: Any, x: Any, axis: int, size: int) -> Any:
    """Cut an axis off, or fill it with zeros, to a given length."""
    axis = axis % len(x.shape)
    if x.shape[axis] > size:
        return x[(slice(None),) * axis + (slice(size), ...)]
    if x.shape[axis] < size:
        shape = tuple(size - length if a == axis else length for a, length in enumerate(x.shape))
        return xp.concat([x, xp.zeros(shape, dtype=x.dtype, device=x.device)], axis=axis)
    return x


def _axes(x: Any, s: Any, axes: Any) -> tuple[int, ...]:
    """Return the axes of an n-dimensional transform as non-negative numbers."""
    if axes is None:
        axes = range(-len(s), 0) if s is not None else range(len(x.shape))
    return tuple(axis % len(x.shape) for axis in axes)


def _fft_back(name: str) -> Any:
    def rule(xp: Any, g: Any, _y: Any, _x: Any, *, axis: int, norm: str, **_: Any) -> Any:
        return _resize(xp, getattr(xp.fft, name)(g, axis=axis, norm=norm), axis, _x.shape[axis])

    return rule


@function(_fft_back("fft"), extension="fft")
def fft(call: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    return call(x, n=n, axis=axis, norm=norm)


@function(_fft_back("ifft"), extension="fft")
def ifft(call: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    return call(x, n=n, axis=axis, norm=norm)


def _rfft_back(xp: Any, g: Any, _y: Any, _x: Any, *, n: int | None, axis: int, norm: str) -> Any:
    """Of the whole spectrum, rfft returns the first part; of the gradient, the sweep keeps the real part."""
    n = _x.shape[axis] if n is None else n
    whole = xp.fft.fft(_resize(xp, g, axis, n), axis=axis, norm=norm)
    return _resize(xp, xp.real(whole), axis, _x.shape[axis])


@function(_rfft_back, extension="fft")
def rfft(call: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    return call(x, n=n, axis=axis, norm=norm)


def _irfft_back(xp: Any, g: Any, _y: Any, _x: Any, *, axis: int, norm: str, **_: Any) -> Any:
    """Each frequency but the first, and the last of an even length, stands for two of the whole spectrum."""
    n = g.shape[axis]
    spectrum = xp.conj(xp.fft.rfft(g, axis=axis, norm=_INVERSE[norm]))
    k = xp.arange(spectrum.shape[axis], device=g.device)
    weights = 2 - xp.astype((k == 0) | (2 * k == n), g.dtype)
    shape = tuple(-1 if a == axis % len(g.shape) else 1 for a in range(len(g.shape)))
    return _resize(xp, spectrum * xp.reshape(weights, shape), axis, _x.shape[axis])


@function(_irfft_back, extension="fft")
def irfft(call: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    return call(x, n=n, axis=axis, norm=norm)


def _fftn_back(name: str) -> Any:
    def rule(xp: Any, g: Any, _y: Any, _x: Any, *, s: Any, axes: Any, norm: str) -> Any:
        axes = _axes(_x, s, axes)
        g = getattr(xp.fft, name)(g, axes=axes, norm=norm)
        for axis in axes:
            g = _resize(xp, g, axis, _x.shape[axis])
        return g

    return rule


@function(_fftn_back("fftn"), extension="fft")
def fftn(call: Any, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    return call(x, s=s, axes=axes, norm=norm)


@function(_fftn_back("ifftn"), extension="fft")
def ifftn(call: Any, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    return call(x, s=s, axes=axes, norm=norm)


def _rfftn_back(xp: Any, g: Any, _y: Any, _x: Any, *, s: Any, axes: Any, norm: str) -> Any:
    *others, last = _axes(_x, s, axes)
    for axis in others:
        g = _resize(xp, xp.fft.fft(g, axis=axis, norm=norm), axis, _x.shape[axis])
    return _rfft_back(xp, g, _y, _x, n=None if s is None else s[-1], axis=last, norm=norm)


@function(_rfftn_back, extension="fft")
def rfftn(call: Any, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    return call(x, s=s, axes=axes, norm=norm)


def _irfftn_back(xp: Any, g: Any, _y: Any, _x: Any, *, s: Any, axes: Any, norm: str) -> Any:
    *others, last = _axes(_x, s, axes)
    g = _irfft_back(xp, g, _y, _x, axis=last, norm=norm)
    for axis in others:
        g = _resize(xp, xp.fft.ifft(g, axis=axis, norm=norm), axis, _x.shape[axis])
    return g


@function(_irfftn_back, extension="fft")
def irfftn(call: Any, x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    return call(x, s=s, axes=axes, norm=norm)


@composite(extension="fft")
def hfft(xp: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    return xp.fft.irfft(conj(xp, x), n=n, axis=axis, norm=_INVERSE[norm])


@composite(extension="fft")
def ihfft(xp: Any, x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    return xp.conj(xp.fft.rfft(x, n=n, axis=axis, norm=_INVERSE[norm]))


@function(lambda xp, g, _y, _x, *, axes: xp.fft.ifftshift(g, axes=axes), extension="fft")
def fftshift(call: Any, x: Any, /, *, axes: Any = None) -> Any:
    return call(x, axes=axes)


@function(lambda xp, g, _y, _x, *, axes: xp.fft.fftshift(g, axes=axes), extension="fft")
def ifftshift(call: Any, x: Any, /, *, axes: Any = None) -> Any:
    return call(x, axes=axes)


@untraced(extension="fft")
def fftfreq(call: Any, n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    return call(n, d=d, dtype=dtype, device=device)


@untraced(extension="fft")
def rfftfreq(call: Any, n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    return call(n, d=d, dtype=dtype, device=device)
