"""The solver "lbfgs": all examples at once, by SciPy."""

from collections.abc import Callable
from typing import Any

import numpy
import scipy.optimize

from xpnet import tree
from xpnet.autodiff import value_and_grad
from xpnet.backends import asarray, device_of, to_numpy, use_device
from xpnet.training.batches import Examples
from xpnet.training.predict import jit_where_possible, place_of

# The numbers in a batch up to which dense batches are made of sparse data.
MODERATE = 2**24


def minimize(net: Any, x: Any, y: dict[str, Any], loss: Callable, **options: Any) -> Any:
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
    examples = Examples({"x": x, "y": y}, where, dtype)
    rows = len(examples) if not hasattr(x, "toarray") else max(1, MODERATE // x.shape[1])
    with use_device(where):
        batches = list(examples.batches(rows)) if rows >= len(examples) else None
        shares = [_weight(target) for _, target in batches or examples.batches(rows)]
        # Each batch has the whole penalty over its own weight.
        net.alpha = net.alpha / len(shares)
        step = jit_where_possible(value_and_grad(lambda net, x, y: loss(net(x), y)))
        leaves, structure = tree.flatten(net)

        def unpack(packed: numpy.ndarray) -> Any:
            sizes = [numpy.prod(leaf.shape, dtype=int) for leaf in leaves]
            parts = numpy.split(packed, numpy.cumsum(sizes)[:-1])
            shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
            new = [
                asarray(part, device=device_of(leaf), dtype=leaf.dtype)
                for part, leaf in zip(shaped, leaves, strict=True)
            ]
            return tree.unflatten(structure, new)

        def value_and_gradient(packed: numpy.ndarray) -> tuple[float, numpy.ndarray]:
            moved = unpack(packed).train()
            total, gradient = 0.0, numpy.zeros_like(packed)
            for share, (x, y) in zip(shares, batches or examples.batches(rows), strict=True):
                value, grads = step(moved, x, y)
                total += share / sum(shares) * float(to_numpy(value))
                gradient += share / sum(shares) * _pack(tree.leaves(grads))
            return total, gradient

        result = scipy.optimize.minimize(
            value_and_gradient, _pack(leaves), method="L-BFGS-B", jac=True, options=options
        )
        tree.assign(unpack(result.x), net)
    return result


def _pack(leaves: list) -> numpy.ndarray:
    return numpy.concatenate([numpy.reshape(to_numpy(leaf), -1) for leaf in leaves], dtype=numpy.float64)


def _weight(targets: dict[str, Any]) -> float:
    weights = targets.get("weights")
    return float(to_numpy(weights).sum()) if weights is not None else float(targets["y"].shape[0])
