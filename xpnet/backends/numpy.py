"""NumPy, on the CPU."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from xpnet.backends.library import Library


def _find_numpy_device(name: str) -> str:
    if name:
        raise ValueError(f'"cpu" is one device and takes no number, received "cpu:{name}". Write "cpu".')
    return "cpu"


def _numpy_broadcast_to(x: Any, /, shape: tuple[int, ...]) -> numpy.ndarray:
    if x.shape != ():
        return numpy.broadcast_to(x, shape)
    view = numpy.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    view.flags.writeable = False
    return view


def _numpy_matmul(x1: Any, x2: Any, /) -> numpy.ndarray:
    matrices = type(x1) is type(x2) is numpy.ndarray and x1.ndim == x2.ndim == 2
    return numpy.dot(x1, x2) if matrices else numpy.matmul(x1, x2)


def _numpy_reshape(x: Any, /, shape: tuple[int, ...], *, copy: bool | None = None) -> numpy.ndarray:
    return x.reshape(shape) if copy is None else numpy.reshape(x, shape, copy=copy)


# `sum` and its like call these reductions after a microsecond in Python; `dot` calls BLAS as `matmul` does.
_NUMPY_QUICK: dict[str, Callable] = {
    "broadcast_to": _numpy_broadcast_to,
    "matmul": _numpy_matmul,
    "max": partial(numpy.maximum.reduce, axis=None),
    "min": partial(numpy.minimum.reduce, axis=None),
    "prod": partial(numpy.multiply.reduce, axis=None),
    "reshape": _numpy_reshape,
    "sum": partial(numpy.add.reduce, axis=None),
}


NUMPY = Library(
    name="NumPy",
    spec="cpu",
    module="numpy",
    install="pip install numpy",
    namespace=lambda: importlib.import_module("array_api_compat.numpy"),
    find_device=_find_numpy_device,
    device_specs=lambda: ["cpu"],
    spec_of=lambda _native: "cpu",
    to_numpy=lambda x: x,
    special="scipy.special",
    quick=_NUMPY_QUICK,
)
