"""The checked mode: each step of a plan for NumPy is compared with the functions that were recorded.

It is on where ``XPNET_CHECK`` is ``1`` in the environment when a function is recorded. On CUDA it is not:
what is captured there cannot be looked at from Python in between.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from xpnet.replay.graph import Graph, Operation, Variable, substitute

# How many roundings of the largest number a result may differ by: sums are in another order, say.
# Of those of float16, these are too many: at most such a part of it.
ROUNDINGS, MOST = 1000, 0.01


def check_is_on() -> bool:
    """Say whether plans that are made now compare their steps."""
    return os.environ.get("XPNET_CHECK") == "1"


class Check:
    """What the functions of a graph give, beside what a plan gives.

    What agrees is taken over from the plan, so that roundings do not add up. What is written over too early
    is noticed all the same: it was copied when it was made.

    Parameters
    ----------
    graph : Graph
    constants : mapping of Variable to array
        The variables that are neither handed in nor made.
    """

    def __init__(self, graph: Graph, constants: Mapping[Variable, numpy.ndarray]) -> None:
        self._graph, self._constants = graph, constants
        self._of_thread = threading.local()

    def begin(self, *arrays: numpy.ndarray) -> None:
        """Take in the arguments."""
        given = dict(zip(self._graph.inputs, map(numpy.array, arrays), strict=True))
        self._of_thread.values = given | dict(self._constants)

    def compare(self, step: str, variables: Sequence[Variable], arrays: Sequence[numpy.ndarray]) -> None:
        """Compare what a step made.

        Raises
        ------
        RuntimeError
            If it differs.
        """
        for x, found in zip(variables, arrays, strict=True):
            used: dict[Variable, Any] = {}
            with numpy.errstate(all="ignore"):
                expected = numpy.asarray(self._value(x, used))
                # A sum may be small where what is added is not.
                place = _difference(numpy.asarray(found), expected, max(map(_largest, used.values())))
            if place is not None and not any(map(_has_denormal, used.values())):
                raise RuntimeError(
                    f"a plan must do what was recorded; {step} gave {found[place]} at {place} of an array "
                    f"of {x.dtype} with the shape {x.shape}, where the functions give {expected[place]}. "
                    "Without XPNET_CHECK nothing is compared; please report it with the function."
                )
        self._of_thread.values |= zip(variables, map(numpy.array, arrays), strict=True)

    def _value(self, x: Variable, used: dict[Variable, Any]) -> Any:
        """Return what the functions give for a variable, and note what that is made of."""
        if x in self._of_thread.values:
            used[x] = self._of_thread.values[x]
        if x not in used:
            operation: Operation = self._graph.makers[x]
            given = operation.arguments, operation.options
            arguments, options = substitute(given, lambda y: self._value(y, used))
            made = operation.function(*arguments, **options)
            used.update(zip(operation.results, made if operation.several else [made], strict=True))
        return used[x]


def _has_denormal(x: Any) -> bool:
    """Say whether there is a number too small to be normal, which native code takes for zero, mostly."""
    x = numpy.asarray(x)
    return x.dtype.kind == "f" and bool(numpy.any((abs(x) < numpy.finfo(x.dtype).tiny) & (x != 0)))


def _largest(x: numpy.ndarray) -> float:
    """Return the size of the largest finite number."""
    x = numpy.asarray(x)
    return float(numpy.max(abs(x), initial=0, where=numpy.isfinite(x))) if x.dtype.kind in "fc" else 0.0


def _difference(found: numpy.ndarray, expected: numpy.ndarray, largest: float) -> tuple[int, ...] | None:
    """Return where two arrays differ by more than roundings of the largest number, or None."""
    same = (found == expected) | ((found != found) & (expected != expected))
    if expected.dtype.kind in "fc":
        finfo = numpy.finfo(expected.dtype)
        with numpy.errstate(invalid="ignore"):
            limit = min(ROUNDINGS * finfo.eps, MOST) * largest + ROUNDINGS * finfo.tiny
            same |= abs(found - expected) <= limit
    return None if same.all() else tuple(map(int, numpy.argwhere(~same)[0]))
