"""Reading and writing parts of arrays: getitem, setitem, take, take_along_axis, windows, sparse."""

# ruff: noqa: ARG005 -- every rule has the same signature, whatever it reads

from typing import Any

from xpnet import tree
from xpnet.autodiff import scatter
from xpnet.autodiff.primitive import function, settled_key
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import NoGradientError


def refuse_rounding(what: str, x: Any, values: Any) -> None:
    """Raise an error if values with a gradient would go into an array of a dtype that holds none."""
    if type(values) is Tracer and values.node is not None and not values.namespace.has_gradient(x):
        raise NoGradientError(
            f"{what} needs an array that can hold a gradient, received one of {x.dtype} for values of "
            f"{values.dtype} whose gradient would be lost. Make it with dtype=values.dtype, or call "
            "xpnet.stop_gradient(values) first if no gradient shall flow through here."
        )


class _Array:
    """Stands in a recorded key where an array was, which is an input of the node."""

    def __repr__(self) -> str:
        return "<array>"


_ARRAY = _Array()


def _split(key: Any) -> tuple[Any, list]:
    """Separate the arrays of a key from what is known when it is recorded.

    An array that is the whole key stays alone: not every library takes a mask in a tuple.
    """
    items = key if isinstance(key, tuple) else (key,)
    items = items if scatter.is_basic(items) else settled_key(items)
    if scatter.is_basic(items):
        return items, []
    if not isinstance(key, tuple) and tree.is_array(items[0]):
        return _ARRAY, [items[0]]
    pattern = tuple(_ARRAY if tree.is_array(item) else item for item in items)
    return pattern, [item for item in items if tree.is_array(item)]


def _join(pattern: Any, arrays: tuple) -> Any:
    if not arrays:
        return pattern
    if pattern is _ARRAY:
        return arrays[0]
    rest = iter(arrays)
    return tuple(next(rest) if item is _ARRAY else item for item in pattern)


@function(
    lambda xp, g, _y, _x, *arrays, key: xp.scatter_add(g, _join(key, arrays), _x.shape),
    compute=lambda xp, x, *arrays, key: x[_join(key, arrays) if arrays else key],
)
def getitem(call: Any, x: Any, key: Any, /) -> Any:
    pattern, arrays = _split(key)
    return call(x, *arrays, key=pattern)


@function(
    lambda xp, g, _y, _x, _values, *arrays, key: xp.setitem(g, _join(key, arrays), 0.0),
    lambda xp, g, _y, _x, _values, *arrays, key: g[_join(key, arrays)],
    compute=lambda xp, x, values, *arrays, key: xp.setitem(x, _join(key, arrays), values),
)
def setitem(call: Any, x: Any, key: Any, values: Any, /) -> Any:
    """Return a copy of ``x`` with ``values`` at ``key``; ``x[key] = values`` comes here."""
    refuse_rounding("assignment", x, values)
    pattern, arrays = _split(key)
    return call(x, values, *arrays, key=pattern)


@function(
    lambda xp, g, _y, _values, *arrays, key, shape: scatter.getitem(xp, g, _join(key, arrays)),
    compute=lambda xp, values, *arrays, key, shape: xp.scatter_add(values, _join(key, arrays), shape),
)
def scatter_add(call: Any, values: Any, key: Any, shape: Any, /) -> Any:
    """Return zeros with ``values`` added at ``key``; what is named twice is added twice."""
    pattern, arrays = _split(key)
    return call(values, *arrays, key=pattern, shape=tuple(shape))


def _take_back(xp: Any, g: Any, _y: Any, _x: Any, indices: Any, *, axis: int | None) -> Any:
    axis = 0 if axis is None else axis % len(_x.shape)
    return xp.scatter_add(g, (slice(None),) * axis + (indices,), _x.shape)


@function(_take_back)
def take(call: Any, x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    return call(x, indices, axis=axis)


def _take_along_axis_back(xp: Any, g: Any, _y: Any, _x: Any, indices: Any, *, axis: int) -> Any:
    ndim = len(_x.shape)
    key = []
    for a in range(ndim):
        if a == axis % ndim:
            key.append(indices)
        else:
            along = xp.arange(_x.shape[a], device=g.device)
            key.append(xp.reshape(along, tuple(-1 if b == a else 1 for b in range(ndim))))
    return xp.scatter_add(g, tuple(key), _x.shape)


@function(_take_along_axis_back)
def take_along_axis(call: Any, x: Any, indices: Any, /, *, axis: int = -1) -> Any:
    return call(x, indices, axis=axis)


# -- windows, and the sum of what several of them have of one element: each is the adjoint of the other -----


@function(
    lambda xp, g, _y, _x, *, sizes, strides, dilations: xp.add_windows(
        g, shape=tuple(_x.shape), strides=strides, dilations=dilations
    )
)
def windows(call: Any, x: Any, /, *, sizes: Any, strides: Any, dilations: Any) -> Any:
    return call(x, sizes=sizes, strides=strides, dilations=dilations)


@function(
    lambda xp, g, _y, _w, *, shape, strides, dilations: xp.windows(
        g, sizes=tuple(_w.shape[len(shape) - 1 : -1]), strides=strides, dilations=dilations
    )
)
def add_windows(call: Any, w: Any, /, *, shape: Any, strides: Any, dilations: Any) -> Any:
    return call(w, shape=shape, strides=strides, dilations=dilations)


# -- sparse matrices: their transpose has rows and columns exchanged ----------------------------------------


@function(
    lambda xp, g, _y, _values, rows, columns, w, *, size: xp.sum(
        xp.take(g, rows, axis=0) * xp.take(w, columns, axis=0), axis=-1
    ),
    None,
    None,
    lambda xp, g, _y, values, rows, columns, _w, *, size: xp.sparse_matmul(
        values, columns, rows, g, size=_w.shape[0]
    ),
)
def sparse_matmul(call: Any, values: Any, rows: Any, columns: Any, w: Any, /, *, size: int) -> Any:
    return call(values, rows, columns, w, size=size)
