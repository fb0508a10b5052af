"""Functions that make arrays. Their results are traced arrays without a gradient."""

from typing import Any

from xpnet.arrays import with_dlpack
from xpnet.autodiff.primitive import composite, function, untraced
from xpnet.autodiff.rules.indexing import refuse_rounding
from xpnet.autodiff.tracer import Tracer


@function()
def empty_like(call: Any, x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return call(x, dtype=dtype, device=device)


@function()
def ones_like(call: Any, x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return call(x, dtype=dtype, device=device)


@function()
def zeros_like(call: Any, x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return call(x, dtype=dtype, device=device)


@untraced()
def empty(call: Any, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return call(shape, dtype=dtype, device=device)


@untraced()
def ones(call: Any, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return call(shape, dtype=dtype, device=device)


@untraced()
def zeros(call: Any, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return call(shape, dtype=dtype, device=device)


@untraced()
def arange(
    call: Any, start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Any:
    return call(start, stop, step, dtype=dtype, device=device)


@untraced()
def eye(
    call: Any,
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> Any:
    return call(n_rows, n_cols, k=k, dtype=dtype, device=device)


@untraced(compute=lambda xp, x, **options: xp.from_dlpack(with_dlpack(x), **options))
def from_dlpack(call: Any, x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    options = {"device": device, "copy": copy}  # which not every library has
    return call(x, **{name: value for name, value in options.items() if value is not None})


@composite
def asarray(xp: Any, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    if isinstance(obj, list | tuple) and _has_tracer(obj):
        obj = _join(xp, obj, dtype)
    if type(obj) is not Tracer:
        return xp.lift(xp.plain.asarray(obj, dtype=dtype, device=device, copy=copy))
    x = obj
    if dtype is not None and dtype != x.dtype:
        x = xp.astype(x, dtype)
    if device is not None and device != x.device:
        x = xp.to_device(x, device)
    # Values are never written to, so a copy is a handle of its own: assigning to it leaves `obj` as it is.
    return Tracer(x.value, x.node, xp) if copy else x


def _join(xp: Any, items: Any, dtype: Any) -> Any:
    """Stack a nested list in which some numbers are traced; the others get their dtype and device."""
    items = [_join(xp, i, dtype) if isinstance(i, list | tuple) and _has_tracer(i) else i for i in items]
    arrays = [i for i in items if type(i) is Tracer]
    dtype = xp.result_type(*arrays) if dtype is None else dtype
    device = arrays[0].device
    return xp.stack([xp.asarray(i, dtype=dtype, device=device) for i in items])


@composite
def linspace(
    xp: Any,
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Any:
    ends = [x for x in (start, stop) if type(x) is Tracer]
    if not ends:
        return xp.lift(xp.plain.linspace(start, stop, num, dtype=dtype, device=device, endpoint=endpoint))
    shapes = [tuple(x.shape) for x in ends]
    if any(shapes):
        raise ValueError(
            f"linspace needs numbers or arrays of shape () for start and stop, received shape {max(shapes)}. "
            "Write start + (stop - start) * xp.linspace(0, 1, num), with axes of length 1 where they go."
        )
    if dtype is None and any(xp.has_gradient(x) for x in ends):
        dtype = xp.result_type(*ends)
    device = ends[0].device if device is None else device
    way = xp.linspace(0.0, 1.0, num, dtype=dtype, device=device, endpoint=endpoint)
    start, stop = (xp.asarray(x, dtype=way.dtype, device=device) for x in (start, stop))
    return start * (1 - way) + stop * way


def _has_tracer(items: Any) -> bool:
    return any(type(i) is Tracer or (isinstance(i, list | tuple) and _has_tracer(i)) for i in items)


@composite
def full(xp: Any, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    fill_value = xp.lift(fill_value)
    if type(fill_value) is not Tracer:
        return xp.lift(xp.plain.full(shape, fill_value, dtype=dtype, device=device))
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return xp.broadcast_to(xp.asarray(fill_value, dtype=dtype, device=device), shape)


@composite
def full_like(xp: Any, x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    if dtype is None:
        refuse_rounding("full_like", x, fill_value)
    return xp.full(x.shape, fill_value, dtype=x.dtype if dtype is None else dtype, device=device or x.device)
