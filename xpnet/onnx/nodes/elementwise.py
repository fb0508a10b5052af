"""Elementwise functions from operators of ONNX.

That `tanh` is ``Tanh`` stands in its row of `xpnet/replay/functions.py`. Here is what is more than a name.
"""

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy

from xpnet import special
from xpnet.onnx.nodes.node import NODES, Node, beside, check_together, dtype_of, namespace_of, operator
from xpnet.replay.functions import FUNCTIONS


def _broadcast(*values: Any) -> tuple[Any, ...]:
    """Return arrays that are broadcast together, all where one is that is not on the host, if there is one.

    Integers of the host, which else are shapes and axes, are numbers beside it.
    """
    check_together(*values)
    other = next((x for x in values if not isinstance(x, numpy.ndarray)), None)
    return values if other is None else tuple(beside(x, other) for x in values)


def _same(name: str) -> Callable:
    def compute(xp: Any, _node: Node, *values: Any) -> Any:
        values = _broadcast(*values)
        return getattr(namespace_of(xp, values[0]), name)(*values)

    return compute


# Whatever a function is written as is read as that function, but for operators that are more than that.
NODES.update({kind: _same(row.name) for row in FUNCTIONS.values() for kind in row.operators.values()})
NODES["Identity"] = lambda xp, _node, x: x
NODES["Dropout"] = lambda xp, _node, x, *_: x
NODES["Relu"] = lambda xp, _node, x: xp.maximum(x, 0)
NODES["Sigmoid"] = lambda xp, _node, x: 0.5 + 0.5 * xp.tanh(0.5 * x)
NODES["Softplus"] = lambda xp, _node, x: xp.logaddexp(x, xp.zeros_like(x))
NODES["Softsign"] = lambda xp, _node, x: x / (1 + xp.abs(x))
NODES["LeakyRelu"] = lambda xp, node, x: xp.where(x > 0, x, node.get("alpha", 0.01) * x)
NODES["HardSigmoid"] = lambda xp, node, x: xp.clip(
    node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0.0, 1.0
)
NODES["HardSwish"] = lambda xp, _node, x: x * xp.clip(x / 6 + 0.5, 0.0, 1.0)


def _elu(xp: Any, x: Any, alpha: float) -> Any:
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


NODES["Elu"] = lambda xp, node, x: _elu(xp, x, node.get("alpha", 1.0))
NODES["Selu"] = lambda xp, node, x: (
    node.get("gamma", 1.0507009873554805) * _elu(xp, x, node.get("alpha", 1.6732632423543772))
)


@operator("PRelu")
def _prelu(xp: Any, _node: Node, x: Any, slope: Any) -> Any:
    x, slope = _broadcast(x, slope)
    return xp.where(x > 0, x, slope * x)


@operator("Erf")
def _erf(_xp: Any, _node: Node, x: Any) -> Any:
    return special.erf(x)


@operator("Gelu")
def _gelu(xp: Any, node: Node, x: Any) -> Any:
    if node.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + xp.tanh(sqrt(2 / pi) * (x + 0.044715 * (x * x * x))))
    return 0.5 * x * (1 + _erf(xp, node, x * sqrt(0.5)))


@operator("Div")
def _div(xp: Any, _node: Node, a: Any, b: Any) -> Any:
    a, b = _broadcast(a, b)
    xp = namespace_of(xp, a)
    if xp.isdtype(a.dtype, "integral"):  # towards 0
        quotient = xp.abs(a) // xp.abs(b)
        return xp.where((a < 0) ^ (b < 0), -quotient, quotient)
    return a / b


@operator("Mod")
def _mod(xp: Any, node: Node, a: Any, b: Any) -> Any:
    a, b = _broadcast(a, b)
    if node.get("fmod", 0):
        return a - b * xp.trunc(a / b)
    return namespace_of(xp, a).remainder(a, b)


@operator("BitShift")
def _shift(xp: Any, node: Node, x: Any, by: Any) -> Any:
    x, by = _broadcast(x, by)
    name = f"bitwise_{node.get('direction').lower()}_shift"
    return getattr(namespace_of(xp, x), name)(x, by)


@operator("Max", "Min", "Sum", "Mean")
def _several(xp: Any, node: Node, *values: Any) -> Any:
    values = _broadcast(*values)
    xp = namespace_of(xp, values[0])
    result = values[0]
    for x in values[1:]:
        match node.kind:
            case "Max":
                result = xp.maximum(result, x)
            case "Min":
                result = xp.minimum(result, x)
            case _:
                result = result + x
    return result / len(values) if node.kind == "Mean" else result


@operator("Clip")
def _clip(xp: Any, node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = node.get("min", low), node.get("max", high)
    check_together(x, *(end for end in (low, high) if hasattr(end, "shape")))
    x = x if low is None else xp.maximum(x, beside(low, x))
    return x if high is None else xp.minimum(x, beside(high, x))


@operator("Cast")
def _cast(xp: Any, node: Node, x: Any) -> Any:
    xp = namespace_of(xp, x)
    return xp.astype(x, dtype_of(xp, node.get("to")))
