"""`raise_on_nan`: finding the operation that made the first NaN.

How a training recovers from one is in `xpnet.training.loop`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from xpnet import tree
from xpnet.arrays import calling_line
from xpnet.autodiff import context
from xpnet.autodiff.namespace import TracedNamespace
from xpnet.autodiff.tracer import Node, Tracer


class _WatchedNamespace(TracedNamespace):
    """A traced namespace whose functions and gradient rules raise an error where they make a NaN."""

    def __init__(self, xp: Any) -> None:
        self._lines: dict[int, str] = {}  # where each node was made
        super().__init__(xp)

    def observed(self, name: str, function: Any) -> Any:
        if not callable(function) or isinstance(function, type):
            return function

        def watched(*arguments: Any, **parameters: Any) -> Any:
            result = function(*arguments, **parameters)
            line = calling_line()
            for x in tree.leaves(result):
                if type(x) is Tracer and x.node is not None:
                    self._lines[x.node.number] = line
                if self._has_nan(x):
                    made = "received" if self._has_nan((arguments, parameters)) else "made the first"
                    raise FloatingPointError(f"{name} {made} NaN, at {line}")
            return result

        return watched

    def observe_gradient(self, node: Node, g: Any, gradient: Any) -> None:  # type: ignore[override]
        if self._has_nan(gradient) and not self._has_nan(g):
            line = self._lines.get(node.number, "an unknown line")
            name = node.primitive.name
            raise FloatingPointError(f"the gradient of {name} made the first NaN; it was called at {line}")

    def _has_nan(self, values: Any) -> bool:
        return any(tree.is_array(x) and self._is_nan(x) for x in tree.leaves(values))

    def _is_nan(self, x: Any) -> bool:
        value, xp = x.value if type(x) is Tracer else x, self.plain
        is_number = xp.isdtype(value.dtype, ("real floating", "complex floating"))
        return is_number and bool(xp.any(xp.isnan(value)))


@contextlib.contextmanager
def raise_on_nan() -> Iterator[None]:
    """Raise an error at the operation that makes the first NaN, inside a ``with`` block.

    It looks at the result of each function and of each gradient rule inside `grad`, `fit` and their like.
    That takes many times as long, and waits for the device at each step: use it to find a fault.

    Raises
    ------
    FloatingPointError
        Naming the function, whether it or its gradient made the NaN, and the line that called it.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> def f(x):
    ...     xp = xpnet.array_namespace(x)
    ...     return xp.where(x > 0, xp.sqrt(x), 0.0)
    >>> with xpnet.raise_on_nan(), np.errstate(all="ignore"):  # doctest: +ELLIPSIS
    ...     xpnet.grad(f)(0.0)
    Traceback (most recent call last):
    FloatingPointError: the gradient of sqrt made the first NaN; it was called at ...
    """
    with context.using(kind=_WatchedNamespace, recording=context.current().recording):
        yield
