"""The windows of an array: what convolution and pooling read.

The standard cannot say this without a copy. NumPy, CuPy and PyTorch show the windows as a view of the same
memory; the generic version runs on any library. `add_windows` is the adjoint: it adds windows into the array
that they are windows of.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import array_api_compat as compat
import numpy

Sizes = tuple[int, ...]


def count_windows(lengths: Sizes, sizes: Sizes, strides: Sizes, dilations: Sizes) -> Sizes:
    """Return how many windows fit along each axis: ``(length - dilation * (size - 1) - 1) // stride + 1``."""
    each = zip(lengths, sizes, strides, dilations, strict=True)
    return tuple((n - d * (size - 1) - 1) // s + 1 for n, size, s, d in each)


def windows(xp: Any, x: Any, *, sizes: Sizes, strides: Sizes, dilations: Sizes) -> Any:
    """Return the windows of the inner axes, those between the first and the last.

    Parameters
    ----------
    xp : namespace
    x : array, shape (batch, *lengths, channels)
    sizes : tuple of int
        How many elements a window has along each axis.
    strides : tuple of int
        From where one window begins to where the next one does.
    dilations : tuple of int
        From one element of a window to the next.

    Returns
    -------
    array, shape (batch, *counts, *sizes, channels)
        A view of x where the library has such views, which must not be written to.
    """
    counts = count_windows(tuple(x.shape[1:-1]), sizes, strides, dilations)
    shape = (x.shape[0], *counts, *sizes, x.shape[-1])
    if isinstance(x, numpy.ndarray):
        steps = _steps(x.strides, strides, dilations)
        return numpy.lib.stride_tricks.as_strided(x, shape, steps, writeable=False)
    if compat.is_cupy_array(x):
        import cupy

        return cupy.lib.stride_tricks.as_strided(x, shape, _steps(x.strides, strides, dilations))
    if compat.is_torch_array(x):
        return x.as_strided(shape, _steps(x.stride(), strides, dilations))
    parts = [x[key] for key in _places(counts, sizes, strides, dilations)]
    return xp.reshape(xp.stack(parts, axis=1 + len(sizes)), shape)


def add_windows(xp: Any, w: Any, *, shape: Sizes, strides: Sizes, dilations: Sizes, out: Any = None) -> Any:
    """Return zeros of shape (batch, *lengths, channels) with windows added where `windows` reads them.

    ``out`` is an array of NumPy's to write to.
    """
    axes = len(shape) - 2
    counts, sizes = tuple(w.shape[1 : 1 + axes]), tuple(w.shape[1 + axes : -1])
    if out is None:
        out = xp.zeros(shape, dtype=w.dtype, device=compat.device(w))
    else:
        out[...] = 0
    whole = (slice(None),) * (1 + axes)
    indices = itertools.product(*map(range, sizes))
    pairs = zip(indices, _places(counts, sizes, strides, dilations), strict=True)
    # From the last to the first: each sum is added up as in a loop over the windows, which a replay has.
    for index, key in reversed(list(pairs)):
        part = w[(*whole, *index, slice(None))]
        if compat.is_jax_array(out):
            out = out.at[key].add(part)
        else:
            out[key] += part
    return out


def _steps(steps: Any, strides: Sizes, dilations: Sizes) -> Sizes:
    """Return from where to where it goes in memory, for one step along each axis of the windows."""
    first, *inner, last = steps
    between = [step * stride for step, stride in zip(inner, strides, strict=True)]
    inside = [step * dilation for step, dilation in zip(inner, dilations, strict=True)]
    return (first, *between, *inside, last)


def _places(counts: Sizes, sizes: Sizes, strides: Sizes, dilations: Sizes) -> Iterator[tuple]:
    """Yield, for each element of a window, the key of that element in all windows."""
    for index in itertools.product(*map(range, sizes)):
        starts = [i * dilation for i, dilation in zip(index, dilations, strict=True)]
        each = zip(starts, counts, strides, strict=True)
        inner = [slice(start, start + (count - 1) * stride + 1, stride) for start, count, stride in each]
        yield (slice(None), *inner, slice(None))
