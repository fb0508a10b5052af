"""`einops <https://einops.rocks>`_ on traced and recorded arrays.

Once this module is imported, the functions of einops take the arrays inside `grad`, through which gradients
flow, and inside `jit`.
Plain arrays keep the backend that einops has for their library.

>>> import einops
>>> import numpy as np
>>> import xpnet
>>> import xpnet.einops
>>> x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
>>> xpnet.grad(lambda x: einops.einsum(x, x, "i j, i j ->"))(x)
array([[2., 4.],
       [6., 8.]])
"""

import math
from collections.abc import Sequence
from typing import Any

from xpnet.arrays import ArrayObject
from xpnet.autodiff.namespace import array_namespace

try:
    from einops._backends import AbstractBackend
except ImportError as error:
    raise ImportError(
        "xpnet.einops needs einops 0.8 or newer, which cannot be imported. `pip install einops` installs it."
    ) from error

# An axis of an einsum: a letter, or for those behind an ellipsis their place, counted from the right.
Axis = str | int


class TracedBackend(AbstractBackend):
    """What einops computes with. It finds the class by itself, as a subclass of its own."""

    framework_name = "xpnet"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, ArrayObject)

    def is_float_type(self, x: Any) -> bool:
        return bool(x.namespace.isdtype(x.dtype, ("real floating", "complex floating")))

    def to_numpy(self, x: Any) -> Any:
        return x.__array__()

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return x.namespace.reshape(x, tuple(shape))

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return x.namespace.permute_dims(x, tuple(axes))

    def reduce(self, x: Any, operation: str, axes: Sequence[int]) -> Any:
        return getattr(x.namespace, operation)(x, axis=tuple(axes))

    def add_axis(self, x: Any, new_position: int) -> Any:
        return x.namespace.expand_dims(x, axis=new_position)

    def tile(self, x: Any, repeats: Sequence[int]) -> Any:
        return x.namespace.tile(x, tuple(repeats))

    def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
        return array_namespace(*tensors).stack(tensors)

    def concat(self, tensors: Sequence[Any], axis: int) -> Any:
        return array_namespace(*tensors).concat(tensors, axis=axis)

    def einsum(self, pattern: str, *x: Any) -> Any:
        return _einsum(array_namespace(*x), pattern, x)


def _einsum(xp: Any, pattern: str, arrays: Sequence[Any]) -> Any:
    """Multiply arrays one after another, and sum over an axis as soon as nothing that follows has it."""
    inputs, output = pattern.split("->")
    terms = inputs.split(",")
    if len(terms) != len(arrays):
        raise ValueError(
            f"einsum needs one array for each of the {len(terms)} inputs, received {len(arrays)}."
        )
    names = [_axes(term, len(x.shape)) for term, x in zip(terms, arrays, strict=True)]
    _check_lengths(names, arrays)
    hidden = max(len(one) - len(term.replace("...", "")) for term, one in zip(terms, names, strict=True))
    if hidden and "..." not in output:
        raise ValueError('einsum needs "..." on the right side too, where an input has axes behind it.')
    result_names = _axes(output, len(output.replace("...", "")) + hidden)

    product: Any = None
    known: list[Axis] = []
    for position, x in enumerate(arrays):
        kept = set(result_names).union(*names[position + 1 :])
        x, own = _diagonals(xp, x, names[position])
        x, own = _sum_over(xp, x, own, set(own) - kept - set(known))
        product, known = (x, own) if product is None else _multiply(xp, product, known, x, own, kept)
    return _arrange(xp, product, known, result_names)


def _axes(term: str, ndim: int) -> list[Axis]:
    """Return a name for each axis of an input of an einsum."""
    before, ellipsis, after = term.partition("...")
    hidden = ndim - len(before) - len(after)
    if hidden < 0 or (hidden and not ellipsis):
        raise ValueError(f"an input of einsum has {ndim} axes, but {len(before) + len(after)} are named.")
    return [*before, *range(-hidden, 0), *after]


def _check_lengths(names: list[list[Axis]], arrays: Sequence[Any]) -> None:
    """Check that an axis with a name has one length. Those behind an ellipsis are broadcast."""
    lengths: dict[Axis, int] = {}
    for own, x in zip(names, arrays, strict=True):
        for axis, length in zip(own, x.shape, strict=True):
            if isinstance(axis, str) and lengths.setdefault(axis, length) != length:
                shapes = ", ".join(str(tuple(x.shape)) for x in arrays)
                raise ValueError(
                    f"an axis of einsum must have one length, received {lengths[axis]} and {length} for one "
                    f"name. The arrays have the shapes {shapes}."
                )


def _diagonals(xp: Any, x: Any, names: list[Axis]) -> tuple[Any, list[Axis]]:
    """Take the diagonal of axes that have the same name."""
    for axis in set(names):
        while names.count(axis) > 1:
            first = names.index(axis)
            second = names.index(axis, first + 1)
            x = xp.linalg.diagonal(xp.moveaxis(x, (first, second), (-2, -1)))
            names = [*(one for i, one in enumerate(names) if i not in (first, second)), axis]
    return x, names


def _sum_over(xp: Any, x: Any, names: list[Axis], summed: set[Axis]) -> tuple[Any, list[Axis]]:
    if summed:
        x = xp.sum(x, axis=tuple(i for i, axis in enumerate(names) if axis in summed), dtype=x.dtype)
    return x, [axis for axis in names if axis not in summed]


def _multiply(
    xp: Any, x1: Any, names1: list[Axis], x2: Any, names2: list[Axis], kept: set[Axis]
) -> tuple[Any, list[Axis]]:
    """Multiply two arrays as stacks of matrices, and sum over the axes of both that are not kept."""
    stacked = [axis for axis in names1 if axis in names2 and axis in kept]
    summed = [axis for axis in names1 if axis in names2 and axis not in kept]
    rows = [axis for axis in names1 if axis not in names2]
    columns = [axis for axis in names2 if axis not in names1]
    x1 = _arrange(xp, x1, names1, stacked + rows + summed)
    x2 = _arrange(xp, x2, names2, stacked + summed + columns)
    stack1, free1, inner = _parts(x1.shape, len(stacked), len(rows))
    stack2, _, free2 = _parts(x2.shape, len(stacked), len(summed))
    product = xp.matmul(
        xp.reshape(x1, (*stack1, math.prod(free1), math.prod(inner))),
        xp.reshape(x2, (*stack2, math.prod(inner), math.prod(free2))),
    )
    product = xp.reshape(product, (*product.shape[: len(stacked)], *free1, *free2))
    return product, stacked + rows + columns


def _parts(shape: Any, first: int, second: int) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    shape = tuple(shape)
    return shape[:first], shape[first : first + second], shape[first + second :]


def _arrange(xp: Any, x: Any, names: list[Axis], order: list[Axis]) -> Any:
    return xp.permute_dims(x, tuple(names.index(axis) for axis in order))
