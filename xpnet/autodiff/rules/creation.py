"""Functions that make arrays. Their results are traced arrays without a gradient.

Those that take no array at all (``zeros``, ``arange``, …) need no declaration.
"""

from typing import Any

from xpnet.autodiff.primitive import Primitive, composite
from xpnet.autodiff.tracer import Tracer

for name in ("empty_like", "ones_like", "zeros_like"):
    Primitive(name)


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
    return xp.full(x.shape, fill_value, dtype=x.dtype if dtype is None else dtype, device=device or x.device)
