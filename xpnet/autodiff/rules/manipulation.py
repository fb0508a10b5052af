"""Functions that change shapes, move axes, join and repeat arrays, or change their dtype or device."""

# ruff: noqa: ARG005 -- every rule has the same signature, whatever it reads

import math
from typing import Any

import array_api_compat

from xpnet.autodiff.primitive import composite, function, settled

# -- shapes and axes ----------------------------------------------------------------------------------------


def _reshape_back(xp: Any, g: Any, _y: Any, _x: Any, **_: Any) -> Any:
    return xp.reshape(g, _x.shape)


@function(_reshape_back)
def reshape(call: Any, x: Any, /, shape: Any, *, copy: bool | None = None) -> Any:
    return call(x, shape=shape if isinstance(shape, int) else tuple(shape), copy=copy)


@function(_reshape_back)
def squeeze(call: Any, x: Any, /, axis: Any) -> Any:
    return call(x, axis=axis)


@function(_reshape_back)
def expand_dims(call: Any, x: Any, /, axis: Any) -> Any:
    return call(x, axis=axis)


@function(lambda xp, g, _y, _x, *, axes: xp.permute_dims(g, _inverse(axes, len(_x.shape))))
def permute_dims(call: Any, x: Any, /, axes: Any) -> Any:
    return call(x, axes=tuple(axes))


def _inverse(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    axes = tuple(a % ndim for a in axes)
    return tuple(axes.index(a) for a in range(ndim))


@function(lambda xp, g, _y, _x: xp.matrix_transpose(g))
def matrix_transpose(call: Any, x: Any, /) -> Any:
    return call(x)


@function(
    lambda xp, g, _y, _x, *, source, destination: xp.moveaxis(g, destination, source),
    compute=lambda xp, x, *, source, destination: xp.moveaxis(x, source, destination),
)
def moveaxis(call: Any, x: Any, source: Any, destination: Any, /) -> Any:
    return call(x, source=source, destination=destination)


@function(lambda xp, g, _y, _x, *, axis: xp.flip(g, axis=axis))
def flip(call: Any, x: Any, /, *, axis: Any = None) -> Any:
    return call(x, axis=axis)


def _roll_back(xp: Any, g: Any, _y: Any, _x: Any, *, shift: Any, axis: Any) -> Any:
    back = -shift if isinstance(shift, int) else tuple(-s for s in shift)
    return xp.roll(g, back, axis=axis)


@function(_roll_back, compute=lambda xp, x, *, shift, axis: xp.roll(x, shift, axis=axis))
def roll(call: Any, x: Any, /, shift: Any, *, axis: Any = None) -> Any:
    return call(x, shift=shift, axis=axis)


@function(lambda xp, g, _y, _x, *, k: xp.tril(g, k=k))
def tril(call: Any, x: Any, /, *, k: int = 0) -> Any:
    return call(x, k=k)


@function(lambda xp, g, _y, _x, *, k: xp.triu(g, k=k))
def triu(call: Any, x: Any, /, *, k: int = 0) -> Any:
    return call(x, k=k)


# -- broadcasting: the sweep sums over the axes along which an array was stretched --------------------------


@function(lambda xp, g, _y, _x, *, shape: g, compute=lambda xp, x, *, shape: xp.broadcast_to(x, shape))
def broadcast_to(call: Any, x: Any, /, shape: Any) -> Any:
    return call(x, shape=tuple(shape))


@composite
def broadcast_arrays(xp: Any, *arrays: Any) -> list[Any]:
    ndim = max((len(x.shape) for x in arrays), default=0)
    padded = [(1,) * (ndim - len(x.shape)) + tuple(x.shape) for x in arrays]
    shape = tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))
    return [xp.broadcast_to(x, shape) for x in arrays]


@composite
def meshgrid(xp: Any, *arrays: Any, indexing: str = "xy") -> list[Any]:
    if indexing not in ("xy", "ij"):
        raise ValueError(f'meshgrid needs indexing "xy" or "ij", received {indexing!r}')
    order = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        order[:2] = [1, 0]
    shape = [0] * len(arrays)
    for x, axis in zip(arrays, order, strict=True):
        shape[axis] = x.shape[0]
    grids = []
    for x, axis in zip(arrays, order, strict=True):
        aligned = tuple(x.shape[0] if a == axis else 1 for a in range(len(arrays)))
        grids.append(xp.broadcast_to(xp.reshape(x, aligned), tuple(shape)))
    return grids


# -- joining and splitting ----------------------------------------------------------------------------------


def _split(xp: Any, g: Any, _y: Any, *_arrays: Any, axis: int | None) -> list[Any]:
    if axis is None:
        sizes, axis = [math.prod(x.shape) for x in _arrays], 0
    else:
        sizes = [x.shape[axis] for x in _arrays]
    lead = (slice(None),) * (axis % len(g.shape))
    pieces, start = [], 0
    for x, size in zip(_arrays, sizes, strict=True):
        piece = g[(*lead, slice(start, start + size), ...)]
        pieces.append(xp.reshape(piece, x.shape))
        start += size
    return pieces


@function(joint=_split, compute=lambda xp, *arrays, axis: xp.concat(arrays, axis=axis))
def concat(call: Any, arrays: Any, /, *, axis: int | None = 0) -> Any:
    return call(*arrays, axis=axis)


@function(
    joint=lambda xp, g, _y, *_arrays, axis: xp.unstack(g, axis=axis),
    compute=lambda xp, *arrays, axis: xp.stack(arrays, axis=axis),
)
def stack(call: Any, arrays: Any, /, *, axis: int = 0) -> Any:
    return call(*arrays, axis=axis)


@function(lambda xp, g, _y, _x, *, axis: xp.stack(g, axis=axis), several=True)
def unstack(call: Any, x: Any, /, *, axis: int = 0) -> Any:
    return call(x, axis=axis)


# -- repeating ----------------------------------------------------------------------------------------------


def _tile_back(xp: Any, g: Any, _y: Any, _x: Any, *, repetitions: tuple[int, ...]) -> Any:
    ndim = len(g.shape)
    shape = (1,) * (ndim - len(_x.shape)) + tuple(_x.shape)
    repetitions = (1,) * (ndim - len(repetitions)) + repetitions
    pairs = tuple(size for pair in zip(repetitions, shape, strict=True) for size in pair)
    summed = xp.sum(xp.reshape(g, pairs), axis=tuple(range(0, 2 * ndim, 2)))
    return xp.reshape(summed, _x.shape)


@function(_tile_back, compute=lambda xp, x, *, repetitions: xp.tile(x, repetitions))
def tile(call: Any, x: Any, repetitions: Any, /) -> Any:
    return call(x, repetitions=tuple(repetitions))


def _repeat_back(xp: Any, g: Any, _y: Any, _x: Any, repeats: Any, *, axis: int | None) -> Any:
    flat_shape = (math.prod(_x.shape),) if axis is None else _x.shape
    axis = 0 if axis is None else axis % len(flat_shape)
    if isinstance(repeats, int):
        pairs = (*flat_shape[: axis + 1], repeats, *flat_shape[axis + 1 :])
        return xp.reshape(xp.sum(xp.reshape(g, pairs), axis=axis + 1), _x.shape)
    origins = xp.repeat(xp.arange(flat_shape[axis], device=g.device), repeats)
    return xp.reshape(xp.scatter_add(g, (slice(None),) * axis + (origins,), flat_shape), _x.shape)


@function(_repeat_back)
def repeat(call: Any, x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
    return call(x, settled(repeats), axis=axis)


# -- differences --------------------------------------------------------------------------------------------


@composite
def diff(xp: Any, x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    if n == 0:  # libraries then join nothing either
        return xp.asarray(x, copy=True)
    ends = [end for end in (prepend, x, append) if end is not None]
    x = xp.concat(ends, axis=axis) if len(ends) > 1 else x
    lead = (slice(None),) * (axis % len(x.shape))
    for _ in range(n):
        x = x[(*lead, slice(1, None), ...)] - x[(*lead, slice(None, -1), ...)]
    return x


# -- dtype and device: the sweep gives a gradient the dtype of its input ------------------------------------


@function(
    lambda xp, g, _y, _x, **_: g,
    compute=lambda xp, x, *, dtype, copy: xp.astype(x, dtype, copy=copy),
)
def _astype(call: Any, x: Any, *, dtype: Any, copy: bool) -> Any:
    return call(x, dtype=dtype, copy=copy)


@composite
def astype(xp: Any, x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    x = xp._astype(x, dtype=dtype, copy=copy)
    return x if device is None else xp.to_device(x, device)


@function(
    lambda xp, g, _y, _x, *, origin, **_: array_api_compat.to_device(g, origin),
    compute=lambda xp, x, *, device, origin, stream: array_api_compat.to_device(x, device, stream=stream),
)
def to_device(call: Any, x: Any, device: Any, /, *, stream: Any = None) -> Any:
    return call(x, device=device, origin=x.device, stream=stream)
