"""What layers do alike: make their parameters, and check their settings and the shape of their input."""

from typing import Any

import numpy

from xpnet.autodiff import array_namespace
from xpnet.autodiff.call import FLOATING
from xpnet.backends import asarray, device
from xpnet.nn.initializers import Initializer
from xpnet.tree import Array


def drawn(
    initializer: Initializer, shape: tuple[int, ...], random: "numpy.random.Generator", dtype: str
) -> Array:
    """Draw a parameter on the host and put it on the current device.

    Raises
    ------
    TypeError
        If the initializer is no function.
    ValueError
        If it returns another shape, or the dtype does not hold floating-point numbers.
    """
    if not callable(initializer):
        raise TypeError(
            "weight_init must be a function of a shape and a generator, such as "
            f"xpnet.nn.initializers.he_normal, received {initializer!r}."
        )
    values = initializer(shape, random)
    if tuple(getattr(values, "shape", ())) != shape:
        raise ValueError(
            f"weight_init must return an array of shape {shape}, received "
            f"{tuple(getattr(values, 'shape', ())) or type(values).__name__}."
        )
    return _parameter(values, dtype)


def filled(value: float, shape: int | tuple[int, ...], dtype: str) -> Any:
    """Make a parameter or a state with equal elements on the current device.

    Raises
    ------
    ValueError
        If the dtype does not hold floating-point numbers.
    """
    return _parameter(numpy.full(shape, value), dtype)


def _parameter(values: Any, dtype: str) -> Any:
    here = device()
    made = asarray(values, device=here, dtype=dtype)
    if not here.namespace.isdtype(made.dtype, FLOATING):
        raise ValueError(f'a layer learns floating-point numbers, received dtype={dtype!r}. Try "float32".')
    return made


def check_features(x: Any, features: int, layer: str) -> None:
    """Check that an array has so many features, on its last axis, and that they are floating-point numbers.

    Raises
    ------
    ValueError
        If the last axis has another length.
    TypeError
        If x holds no floating-point numbers.
    """
    if len(x.shape) == 0 or x.shape[-1] != features:
        received = x.shape[-1] if len(x.shape) else "an array without axes"
        raise ValueError(
            f"expected {features} features on the last axis, received {received}. The layer is "
            f"{layer}, x has the shape {tuple(x.shape)}. Make the "
            "layer for as many features as x has, or give it other features."
        )
    if not array_namespace(x).isdtype(x.dtype, FLOATING):
        raise TypeError(
            f"{layer} needs floating-point numbers, received {x.dtype}. Convert x with "
            "xpnet.asarray(x, dtype='float32'), or batch by batch, in front of the layer, with "
            "xp.astype(x, xp.float32)."
        )


def check_axes(x: Any, axes: tuple[str, ...], layer: str) -> None:
    """Check that an array has the axes that a layer reads, and floating-point numbers.

    Raises
    ------
    ValueError
        If the number of axes is another.
    TypeError
        If x holds no floating-point numbers.
    """
    if len(x.shape) != len(axes):
        raise ValueError(
            f"{layer} needs the axes ({', '.join(axes)}), received an array of shape {tuple(x.shape)}. "
            "Bring it into this order with permute_dims; expand_dims or reshape add an axis that is missing."
        )
    check_features(x, x.shape[-1], layer)
