"""Elementwise functions as operators of ONNX.

That `tanh` is ``Tanh`` stands in its row of `xpnet/replay/functions.py`. Here is what is more than a name.
"""

from typing import Any

from xpnet.onnx.operators.declare import is_float, says
from xpnet.onnx.recorded import Size
from xpnet.replay.functions import dtype_of_text, dtypes_of, row_of
from xpnet.replay.graph import Operation


def direct(w: Any, operation: Operation) -> Any:
    """Write the operator that computes a function by itself."""
    kind = row_of(operation.name).operators.get(dtype_of_text(operation).kind)
    if kind is None:
        return NotImplemented
    numbers = [0 if type(x) is Size else x for x in operation.arguments]
    dtypes = dtypes_of(operation.name, numbers, operation.result.dtype)
    return w.node(kind, *map(w.tensor, operation.arguments, dtypes))


@says("floor_divide")
def _floor_divide(w: Any, operation: Operation) -> Any:
    """Write a quotient of integers, as that of ONNX is rounded towards zero."""
    dtype = operation.result.dtype
    if is_float(dtype):
        return NotImplemented
    a, b = (w.tensor(x, dtype) for x in operation.arguments)
    return w.node("Div", w.node("Sub", a, w.node("Mod", a, b)), b)


@says("astype", "asarray")
def _astype(w: Any, operation: Operation) -> str:
    return w.tensor(operation.arguments[0], operation.result.dtype)
