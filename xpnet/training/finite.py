"""Which arrays are infinite or NaN."""

import math
from typing import Any

import numpy

from xpnet import tree
from xpnet.backends import is_on_host, plain_namespace


def became_bad(now: Any, before: Any) -> str | None:
    """Return the name of the first array of a tree with a value that became infinite or NaN, or None.

    This waits for the device once, unless there is one.
    """
    leaves = tree.leaves(now, state=True)
    if are_finite(leaves):
        return None
    old = tree.leaves(before, state=True)
    triples = zip(tree.paths(now, state=True), leaves, old, strict=True)
    return next((name for name, leaf, x in triples if not is_finite(leaf) and is_finite(x)), None)


def is_finite(x: Any) -> bool:
    return are_finite([x]) if tree.is_array(x) else math.isfinite(x)


def are_finite(arrays: list[Any]) -> bool:
    """Say whether all numbers in some arrays of one device are finite, waiting for it once."""
    if all(map(is_on_host, arrays)):  # in a third of the time, after each epoch of small networks
        return all(x.dtype.kind not in "fc" or numpy.isfinite(x).all() for x in arrays)
    with_points = [x for x in arrays if has_points(x)]
    if not with_points:
        return True
    xp = plain_namespace(with_points[0])
    return bool(xp.all(xp.stack([xp.all(xp.isfinite(x)) for x in with_points])))


def has_points(x: Any) -> bool:
    """Say whether an array has numbers with a point, which may be infinite or NaN."""
    return bool(plain_namespace(x).isdtype(x.dtype, ("real floating", "complex floating")))
