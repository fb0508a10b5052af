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

# How many roundings a result may differ by, of its largest element: sums are in another order, say.
ROUNDINGS = 1000


def check_is_on() -> bool:
    """Say whether plans that are made now compare their steps."""
    return os.environ.get("XPNET_CHECK", "") not in ("", "0")


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
        given = dict(zip(self._graph.inputs, map(_copied, arrays), strict=True))
        self._of_thread.values = given | dict(self._constants)

    def compare(self, step: str, variables: Sequence[Variable], arrays: Sequence[numpy.ndarray]) -> None:
        """Compare what a step made.

        Raises
        ------
        RuntimeError
            If it differs.
        """
        values = self._of_thread.values
        for x, found in zip(variables, arrays, strict=True):
            with numpy.errstate(all="ignore"):
                expected = numpy.asarray(self._value(x))
            place = _difference(numpy.asarray(found), expected)
            if place is not None:
                raise RuntimeError(
                    f"a plan must do what was recorded; {step} gave {found[place]} at {place} of an array "
                    f"of {x.dtype} with the shape {x.shape}, where the functions give {expected[place]}. "
                    "Without XPNET_CHECK nothing is compared; please report it with the function."
                )
            values[x] = _copied(found)

    def _value(self, x: Any) -> Any:
        values = self._of_thread.values
        if type(x) is Variable and x not in values:
            operation: Operation = self._graph.makers[x]
            arguments, options = substitute((operation.arguments, operation.options), self._value)
            made = operation.function(*arguments, **options)
            made = made if operation.several else [made]
            values |= zip(operation.results, made, strict=True)
        return values[x]


def _copied(x: Any) -> numpy.ndarray:
    """Copy an array as a table reads it: without numbers that are too small to be normal."""
    x = numpy.array(x)
    if x.dtype.kind == "f":
        x[abs(x) < numpy.finfo(x.dtype).tiny] *= 0  # which keeps the sign
    return x


def _difference(found: numpy.ndarray, expected: numpy.ndarray) -> tuple[int, ...] | None:
    """Return where two arrays differ by more than roundings, or None."""
    same = (found == expected) | ((found != found) & (expected != expected))
    if expected.dtype.kind in "fc" and not same.all():
        largest = numpy.max(abs(expected), initial=0, where=numpy.isfinite(expected))
        finfo = numpy.finfo(expected.dtype)
        with numpy.errstate(all="ignore"):
            same |= abs(found - expected) <= ROUNDINGS * (finfo.eps * largest + finfo.tiny)
    return None if same.all() else tuple(map(int, numpy.argwhere(~same)[0]))
