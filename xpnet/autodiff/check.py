"""Gradients against finite differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy

from xpnet import tree
from xpnet.autodiff.namespace import array_namespace
from xpnet.autodiff.transforms import vjp
from xpnet.backends import asarray, device_of, to_numpy
from xpnet.settings import at_least_zero, count


def check_gradients(
    f: Callable[..., Any], *arguments: Any, order: int = 1, seed: int = 0, tolerance: float | None = None
) -> None:
    """Check the gradients of a function against central finite differences.

    In random directions ``v`` of the arguments and ``u`` of the result, ``u · (f(x + εv) − f(x − εv)) / 2ε``
    is compared with what the transposed Jacobian says, ``v · (Jᵀ u)``.

    Parameters
    ----------
    f : callable
        A function of arrays or trees, which returns an array or a tree of arrays.
    *arguments : array or tree
        Where to check. Use float64 where the library has it: finite differences need the digits.
    order : int, default=1
        2 also checks the gradients of the gradients, and so on.
    seed : int, default=0
        Seed of the directions.
    tolerance : float, optional
        The largest relative difference that passes; by default the cube root of the dtype's precision, which
        is the rounding error of central differences, with a margin.

    Raises
    ------
    AssertionError
        If they differ, with both numbers.
    ValueError
        If ``order`` is no positive integer, ``seed`` no integer of at least 0, or ``tolerance`` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.check_gradients(lambda x: x * x * x, np.asarray([1.0, 2.0]), order=2)
    """
    order, seed = count("order", order), count("seed", seed, least=0)
    tolerance = None if tolerance is None else at_least_zero("tolerance", tolerance)
    arguments = tree.map(
        lambda x: asarray(x) if isinstance(x, float | complex) and not tree.is_array(x) else x, arguments
    )
    random = numpy.random.default_rng(seed)
    result, pullback = vjp(f, *arguments)
    directions = tree.map(lambda x: _direction(x, random), arguments)
    seeds = tree.map(lambda y: _direction(y, random), result)
    leaf = tree.leaves(arguments)[0]
    precision = float(array_namespace(leaf).finfo(leaf.dtype).eps)
    step = precision ** (1 / 3)
    if tolerance is None:
        tolerance = 100 * precision ** (2 / 3)

    def along(distance: float) -> Any:
        moved = tree.map(lambda x, v: x + v * distance, arguments, directions)
        return f(*moved)

    expected = (_dot(seeds, along(step)) - _dot(seeds, along(-step))) / (2 * step)
    received = _dot(directions, pullback(seeds))
    scale = max(1.0, abs(expected), abs(received))
    if not (math.isfinite(received) and abs(expected - received) <= tolerance * scale):
        raise AssertionError(
            f"the gradient must agree with finite differences within {tolerance:.1e}: by rules "
            f"{received:.10g}, by finite differences {expected:.10g}, relative difference "
            f"{abs(expected - received) / scale:.1e}"
        )
    if order > 1:
        check_gradients(
            lambda *x: vjp(f, *x)[1](seeds),
            *arguments,
            order=order - 1,
            seed=seed + 1,
            tolerance=tolerance,
        )


def _direction(x: Any, random: "numpy.random.Generator") -> Any:
    v = random.normal(size=tuple(x.shape))
    if array_namespace(x).isdtype(x.dtype, "complex floating"):
        v = v + 1j * random.normal(size=v.shape)
    return asarray(v, device=device_of(x), dtype=x.dtype)


def _dot(first: Any, second: Any) -> float:
    """Return the sum of the products, in double precision; of complex numbers, the real part."""
    pairs = zip(tree.leaves(to_numpy(first)), tree.leaves(to_numpy(second)), strict=True)
    return float(sum(numpy.sum(numpy.conj(a).astype(complex) * b).real for a, b in pairs))
