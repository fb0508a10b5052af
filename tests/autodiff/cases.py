"""How the gradient rules are checked: each chapter's test has a table of calls by function name.

To check a rule, add a `Case` to the table of its chapter. A case is a call, and the arrays that it is made
with.
"""

from collections.abc import Callable
from typing import Any

import numpy
from helpers import assert_same

import xpnet

Draw = Callable[[numpy.random.Generator], numpy.ndarray]


def signed(*shape: int) -> Draw:
    """Numbers of either sign, far enough from 0 for finite differences of ``1 / x``."""
    return lambda random: random.uniform(0.5, 1.5, size=shape) * random.choice([-1.0, 1.0], size=shape)


def uniform(low: float, high: float, *shape: int) -> Draw:
    return lambda random: random.uniform(low, high, size=shape)


def complexes(*shape: int) -> Draw:
    """Complex numbers in all four quadrants, far enough from 0."""
    return lambda random: signed(*shape)(random) + 1j * signed(*shape)(random)


def values(*items: Any) -> Draw:
    return lambda _: numpy.asarray(items, dtype=float)


class Case:
    """A call with the arrays that it is made with.

    Parameters
    ----------
    call : callable
        ``call(xp, *arrays)``.
    *inputs : tuple of int or callable
        A shape, for `signed` numbers, or a function that draws an array.
    """

    def __init__(self, call: Callable, *inputs: Any) -> None:
        self._call = call
        self._inputs = inputs

    def arrays(self, dtypes: dict[str, str] | None = None) -> list[Any]:
        """Return the arrays on the current device, the same each time."""
        random = numpy.random.default_rng(7)
        drawn = [(signed(*i) if isinstance(i, tuple) else i)(random) for i in self._inputs]
        return [
            xpnet.asarray(x, device=xpnet.device(), dtype=(dtypes or {}).get(x.dtype.name)) for x in drawn
        ]

    def __call__(self, *arrays: Any) -> Any:
        return self._call(xpnet.array_namespace(*arrays), *arrays)

    def check_values(self) -> None:
        """Check that traced arrays give what plain ones give, and that both precisions agree on gradients."""
        wide: list[Any] = []
        for dtypes in ({}, {"float64": "float32", "complex128": "complex64"}):
            arrays = self.arrays(dtypes)
            result, pullback = xpnet.vjp(self, *arrays)
            expected = self(*arrays)
            for one, plain in zip(as_list(result), as_list(expected), strict=True):
                assert_same(one, plain)
            gradients = pullback(result)
            wide = wide or gradients
            for g, x, right in zip(gradients, arrays, wide, strict=True):
                assert g.dtype == x.dtype
                assert tuple(g.shape) == tuple(x.shape)
                narrow, right = xpnet.to_numpy(g), xpnet.to_numpy(right)
                scale = numpy.max(numpy.abs(right), initial=1.0)
                # The arrays are well-conditioned: rounding stays far below, and a wrong rule far above.
                tolerance = numpy.finfo(narrow.dtype).eps ** (2 / 3) * scale
                numpy.testing.assert_allclose(narrow, right, rtol=0, atol=tolerance)

    def check_gradients(self, order: int = 2) -> None:
        """Check the gradients of all arrays together, and of each one beside plain ones."""
        arrays = self.arrays()
        xpnet.check_gradients(self, *arrays, order=order)
        if len(arrays) > 1:
            for i in range(len(arrays)):

                def alone(x, i=i):
                    return self(*arrays[:i], x, *arrays[i + 1 :])

                xpnet.check_gradients(alone, arrays[i], order=order)


def as_list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple | list) else [results]


def named(table: dict[str, list[Case]]) -> dict[str, Any]:
    """Return the arguments of ``pytest.mark.parametrize`` for the cases of a table."""
    pairs = [(f"{name}-{index}", case) for name, cases in table.items() for index, case in enumerate(cases)]
    return {"argnames": "case", "argvalues": [case for _, case in pairs], "ids": [name for name, _ in pairs]}
