"""The solver "lbfgs": all examples at once, by SciPy."""

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy
import scipy.optimize

from xpnet import tree
from xpnet.autodiff import array_namespace, value_and_grad
from xpnet.backends import asarray, to_numpy, use_device
from xpnet.sklearn.objective import shared_steps
from xpnet.training.examples import Examples
from xpnet.training.networks import jit_where_possible, place_of

# Numbers in a dense batch that is made of sparse data, at the most.
NUMBERS_IN_BATCH = 2**24


def minimize(net: Any, x: Any, y: dict[str, Any], loss: Callable[..., Any], **options: Any) -> Any:
    """Minimize a loss over all examples by L-BFGS, and leave the result in the network.

    R. H. Byrd, P. Lu and J. Nocedal, A Limited Memory Algorithm for Bound Constrained Optimization, 1995.

    Parameters
    ----------
    net : Penalized
    x : array or sparse matrix, shape (examples, features)
    y : dict
        Targets, and weights if there are some.
    loss : Objective
    **options
        Those of `scipy.optimize.minimize` for the method "L-BFGS-B".

    Returns
    -------
    scipy.optimize.OptimizeResult
    """
    where, dtype = place_of(net)
    examples = Examples({"x": x, "y": y}, where, dtype, sparse=net.takes_sparse)
    becomes_dense = hasattr(x, "toarray") and not examples.stays_sparse
    rows = max(1, NUMBERS_IN_BATCH // x.shape[1]) if becomes_dense else len(examples)
    examples.batch_size = rows
    net.train()
    shapes = tuple(tuple(leaf.shape) for leaf in tree.leaves(net))
    with use_device(where):
        shared_steps(loss, shapes).check(net, [examples])
        batches = list(examples.batches(rows)) if rows >= len(examples) else None
        weights = [_weight(targets) for _, targets in batches or examples.batches(rows)]
        shares = [weight / sum(weights) for weight in weights]
        net.alpha = net.alpha / len(shares)  # each batch has the whole penalty over its own weight
        leaves, structure = tree.flatten(net)
        start = numpy.concatenate([to_numpy(leaf).reshape(-1) for leaf in leaves], dtype=numpy.float64)
        ends = numpy.cumsum([0, *(math.prod(leaf.shape) for leaf in leaves)])
        step = _gradient_of(loss, shapes)

        def unpack(packed: numpy.ndarray) -> Any:
            parts = [packed[first:last] for first, last in pairwise(ends)]
            return tree.unflatten(
                structure,
                [
                    asarray(part.reshape(leaf.shape), device=where, dtype=leaf.dtype)
                    for part, leaf in zip(parts, leaves, strict=True)
                ],
            )

        def value_and_gradient(packed: numpy.ndarray) -> tuple[float, numpy.ndarray]:
            there = unpack(packed)
            total, gradient = 0.0, numpy.zeros_like(packed)
            for share, (x, y) in zip(shares, batches or examples.batches(rows), strict=True):
                value, part = step(there, x, y)
                total += share * float(to_numpy(value))
                gradient += share * to_numpy(part)
            return total, gradient

        result = scipy.optimize.minimize(
            value_and_gradient, start, method="L-BFGS-B", jac=True, options=options
        )
        tree.assign(unpack(result.x), net)
    return result


@lru_cache(maxsize=8)
def _gradient_of(loss: Callable[..., Any], _shapes: Any) -> Callable[..., Any]:
    """Return what is recorded once for networks of some shapes."""

    def value(net: Any, x: Any, y: dict[str, Any]) -> Any:
        return loss(net(x), y)

    def value_and_gradient(net: Any, x: Any, y: dict[str, Any]) -> tuple[Any, Any]:
        result, gradient = value_and_grad(value)(net, x, y)
        xp = array_namespace(result)
        return result, xp.concat([xp.reshape(g, (-1,)) for g in tree.leaves(gradient)])

    return jit_where_possible(value_and_gradient)


def _weight(targets: dict[str, Any]) -> float:
    weights = targets.get("weights")
    return float(to_numpy(weights).sum()) if weights is not None else float(targets["y"].shape[0])
