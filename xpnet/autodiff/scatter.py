"""Writing into an array at a key, and adding into it: what gradients of indexing need.

The standard can assign (``x[key] = v``) but cannot add where a key names one element several times. Each
library has its own function for that; the generic version at the end runs on any library.
"""

from typing import Any

import array_api_compat as compat
import numpy

_BASIC = frozenset({int, slice, type(None), type(Ellipsis)})


def is_basic(keys: tuple) -> bool:
    """Say whether a key has neither arrays nor lists."""
    return all(type(key) in _BASIC for key in keys) if len(keys) != 1 else type(keys[0]) in _BASIC


def setitem(xp: Any, x: Any, key: Any, values: Any) -> Any:
    """Return a copy of ``x`` with ``values`` at ``key``."""
    if compat.is_jax_array(x):
        if getattr(key, "dtype", None) == xp.bool and not getattr(values, "shape", ()):
            mask = xp.reshape(key, (*key.shape, *(1,) * (x.ndim - key.ndim)))
            return xp.where(mask, xp.asarray(values, dtype=x.dtype), x)  # which `jax.jit` can compile, too
        return x.at[key].set(values)
    result = xp.asarray(x, copy=True)
    result[key] = values
    return result


def scatter_add(xp: Any, values: Any, key: Any, shape: tuple[int, ...]) -> Any:
    """Return zeros with ``values`` added at ``key``; what is named twice is added twice."""
    if isinstance(values, (numpy.ndarray, numpy.generic)):
        zeros = numpy.zeros(shape, dtype=values.dtype)
        if may_repeat(xp, key):
            numpy.add.at(zeros, key, values)
        else:
            zeros[key] = values
        return zeros
    zeros = xp.zeros(shape, dtype=values.dtype, device=compat.device(values))
    if compat.is_jax_array(values):
        return zeros.at[key].add(values)
    if not may_repeat(xp, key):
        if isinstance(key, tuple) and any(k is None for k in key):
            bare = tuple(k for k in key if k is not None)  # the standard assigns to no key with new axes
            values = xp.reshape(xp.broadcast_to(values, zeros[key].shape), zeros[bare].shape)
            key = bare
        zeros[key] = values
        return zeros
    if compat.is_cupy_array(values) and not xp.isdtype(values.dtype, "complex floating"):
        xp.add.at(zeros, key, values)  # with CUDA's atomic additions, which there are for real numbers
        return zeros
    # Indices into the flattened array, by indexing an array of them with the same key.
    flat = xp.reshape(xp.arange(compat.size(zeros), device=zeros.device), zeros.shape)
    indices = getitem(xp, flat, key)
    values = xp.reshape(xp.broadcast_to(values, indices.shape), (-1,))
    indices = xp.reshape(indices, (-1,))
    if compat.is_torch_array(values):
        flat = xp.reshape(zeros, (-1,)).index_add(0, indices, values)
    else:
        flat = _sum_by_index(xp, values, indices, compat.size(zeros))
    return xp.reshape(flat, shape)


def getitem(xp: Any, x: Any, key: Any) -> Any:
    """Return ``x[key]``, also for slices before an array of indices: the standard has `take` for that."""
    keys = key if isinstance(key, tuple) else (key,)
    *lead, last = keys or (...,)
    is_list = getattr(last, "ndim", 0) == 1 and xp.isdtype(last.dtype, "integral")
    if is_list and all(type(k) is slice and k == slice(None) for k in lead):
        return xp.take(x, last, axis=len(lead))
    return x[key]


def may_repeat(xp: Any, key: Any) -> bool:
    """Say whether a key may name one element several times."""
    keys = key if isinstance(key, tuple) else (key,)
    return not is_basic(keys) and any(
        isinstance(k, list) or (compat.is_array_api_obj(k) and not xp.isdtype(k.dtype, "bool")) for k in keys
    )


def _sum_by_index(xp: Any, values: Any, indices: Any, size: int) -> Any:
    """Return the sums of the values that share an index, an array of length ``size``.

    Sorted by index, the values of one index stand together. In each step of the loop, every value takes in
    the one that stands ``step`` places before, if that has its index, so that the last one of each index ends
    with the sum. A running sum over all would be shorter, but one NaN in it would spoil all that follows.
    """
    order = xp.argsort(indices)
    values, indices = xp.take(values, order), xp.take(indices, order)
    number, step = values.shape[0], 1
    while step < number:
        earlier = xp.where(indices[step:] == indices[:-step], values[:-step], 0.0)
        values = xp.concat([values[:step], values[step:] + earlier])
        step *= 2
    if number == 0:
        return xp.zeros(size, dtype=values.dtype, device=values.device)
    each = xp.arange(size, dtype=indices.dtype, device=values.device)
    ends = xp.searchsorted(indices, each, side="right")
    named = ends > xp.searchsorted(indices, each, side="left")
    return xp.where(named, xp.take(values, xp.where(named, ends - 1, 0)), 0.0)
