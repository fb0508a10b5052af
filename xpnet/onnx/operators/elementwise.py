"""Elementwise functions."""

from collections.abc import Callable
from math import log, pi, sqrt
from typing import Any

import numpy

from xpnet.onnx.operators.declare import OPERATORS, arguments, is_bool, is_float, says
from xpnet.replay.graph import Operation

_ONE = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "bitwise_invert": "BitwiseNot", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
    "exp": "Exp", "floor": "Floor", "isnan": "IsNaN", "isinf": "IsInf", "logical_not": "Not", "log": "Log",
    "negative": "Neg", "positive": "Identity", "reciprocal": "Reciprocal", "round": "Round", "sign": "Sign",
    "sin": "Sin", "sinh": "Sinh", "special.erf": "Erf", "special.expit": "Sigmoid", "sqrt": "Sqrt",
    "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip

_SAME_FOR_INTEGERS = {"ceil", "floor", "round", "trunc"}


def _one(kind: str) -> Callable:
    def write(w: Any, operation: Operation) -> Any:
        (x,) = operation.arguments
        if not is_float(w.dtype(x)):
            if operation.name in _SAME_FOR_INTEGERS:
                return w.node("Identity", x)
            if operation.name == "bitwise_invert" and is_bool(w.dtype(x)):
                return w.node("Not", x)
            if operation.name in ("isnan", "isinf"):
                return NotImplemented
        if is_bool(operation.result.dtype):
            return w.node(kind, w.tensor(x, bool) if operation.name == "logical_not" else x)
        return w.node(kind, w.tensor(x, operation.result.dtype))

    return write


OPERATORS.update({name: _one(kind) for name, kind in _ONE.items()})


def _common(w: Any, values: Any) -> Any:
    """Return the dtype in which arrays and numbers are compared: that of the arrays."""
    arrays = [w.dtype(x) for x in values if hasattr(x, "dtype")]
    return numpy.result_type(*arrays) if arrays else w.dtype(values[0])


def two(kind: str, comparison: bool = False) -> Callable:
    def write(w: Any, operation: Operation) -> str:
        values = operation.arguments
        dtype = _common(w, values) if comparison else operation.result.dtype
        return w.node(kind, *(w.tensor(x, dtype) for x in values))

    return write


OPERATORS.update(
    {
        "add": two("Add"), "subtract": two("Sub"), "multiply": two("Mul"), "divide": two("Div"),
        "pow": two("Pow"), "maximum": two("Max"), "minimum": two("Min"), "logical_and": two("And"),
        "logical_or": two("Or"), "logical_xor": two("Xor"),
        "equal": two("Equal", True), "less": two("Less", True), "less_equal": two("LessOrEqual", True),
        "greater": two("Greater", True), "greater_equal": two("GreaterOrEqual", True),
    }
)  # fmt: skip


def _bits(of_integers: str, of_truths: str) -> Callable:
    def write(w: Any, operation: Operation) -> str:
        dtype = operation.result.dtype
        kind = of_truths if is_bool(dtype) else of_integers
        return w.node(kind, *(w.tensor(x, dtype) for x in operation.arguments))

    return write


OPERATORS["bitwise_and"] = _bits("BitwiseAnd", "And")
OPERATORS["bitwise_or"] = _bits("BitwiseOr", "Or")
OPERATORS["bitwise_xor"] = _bits("BitwiseXor", "Xor")


@says("not_equal")
def _not_equal(w: Any, operation: Operation) -> str:
    dtype = _common(w, operation.arguments)
    return w.node("Not", w.node("Equal", *(w.tensor(x, dtype) for x in operation.arguments)))


def _floats(define: Callable) -> Callable:
    """Declare a function of floating-point arrays by ``define(node, number, *inputs)``."""

    def write(w: Any, operation: Operation) -> Any:
        dtype = operation.result.dtype
        values = [w.tensor(x, dtype) for x in operation.arguments]
        if not is_float(dtype):
            return NotImplemented
        return define(w.node, lambda number: w.tensor(number, dtype), *values)

    return write


OPERATORS.update(
    {
        # tanh(x / 2) (exp(x) + 1), which keeps the digits of small x.
        "expm1": _floats(
            lambda node, n, x: node(
                "Mul", node("Tanh", node("Mul", x, n(0.5))), node("Add", node("Exp", x), n(1.0))
            )
        ),
        "log1p": _floats(lambda node, n, x: node("Log", node("Add", x, n(1.0)))),
        "log2": _floats(lambda node, n, x: node("Mul", node("Log", x), n(1 / log(2)))),
        "log10": _floats(lambda node, n, x: node("Mul", node("Log", x), n(1 / log(10)))),
        "logaddexp": _floats(
            lambda node, n, a, b: node(
                "Add",
                node("Max", a, b),
                node("Log", node("Add", node("Exp", node("Neg", node("Abs", node("Sub", a, b)))), n(1.0))),
            )
        ),
        "hypot": _floats(
            lambda node, _n, a, b: node("Sqrt", node("Add", node("Mul", a, a), node("Mul", b, b)))
        ),
        "special.log1p": _floats(lambda node, n, x: node("Log", node("Add", x, n(1.0)))),
        "special.exp2": _floats(lambda node, n, x: node("Pow", n(2.0), x)),
    }
)


@says("square")
def _square(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    return w.node("Mul", x, x)


@says("trunc")
def _trunc(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    if not is_float(w.dtype(x)):
        return w.node("Identity", x)
    return w.node("Mul", w.node("Sign", x), w.node("Floor", w.node("Abs", x)))


@says("isfinite")
def _isfinite(w: Any, operation: Operation) -> Any:
    (x,) = operation.arguments
    if not is_float(w.dtype(x)):
        return NotImplemented
    return w.node("Not", w.node("Or", w.node("IsNaN", x), w.node("IsInf", x)))


@says("remainder", "floor_divide")
def _remainder(w: Any, operation: Operation) -> str:
    dtype = operation.result.dtype
    a, b = (w.tensor(x, dtype) for x in operation.arguments)
    if is_float(dtype):
        quotient = w.node("Floor", w.node("Div", a, b))
        return quotient if operation.name == "floor_divide" else w.node("Sub", a, w.node("Mul", quotient, b))
    rest = w.node("Mod", a, b)
    return rest if operation.name == "remainder" else w.node("Div", w.node("Sub", a, rest), b)


def _is_negative(node: Callable, n: Callable, x: str) -> str:
    """Write whether there is a minus, also before zero."""
    return node("Or", node("Less", x, n(0.0)), node("Less", node("Reciprocal", x), n(0.0)))


def _signed(node: Callable, n: Callable, x: str, sign: str) -> str:
    size = node("Abs", x)
    return node("Where", _is_negative(node, n, sign), node("Neg", size), size)


def _atan2(node: Callable, n: Callable, y: str, x: str) -> str:
    # Where the quotient would be no number: two zeros, and two infinite lengths.
    far = node("And", node("IsInf", y), node("IsInf", x))
    quotient = node("Where", far, node("Div", node("Sign", y), node("Sign", x)), node("Div", y, x))
    angle = node("Where", node("Equal", y, n(0.0)), y, node("Atan", quotient))
    turned = node("Where", node("Equal", y, n(0.0)), n(0.0), node("Atan", quotient))
    turned = node("Add", turned, _signed(node, n, n(pi), y))
    return node("Where", _is_negative(node, n, x), turned, angle)


def _times_log(node: Callable, n: Callable, x: str, y: str) -> str:
    """Write x log(y), which is 0 where x is."""
    return node("Where", node("Equal", x, n(0.0)), n(0.0), node("Mul", x, node("Log", y)))


def _erfc(node: Callable, n: Callable, x: str) -> str:
    return node("Sub", n(1.0), node("Erf", x))


OPERATORS.update(
    {
        "atan2": _floats(_atan2),
        "copysign": _floats(_signed),
        "special.entr": _floats(lambda node, n, x: node("Neg", _times_log(node, n, x, x))),
        "special.erfc": _floats(_erfc),
        "special.kl_div": _floats(
            lambda node, n, x, y: node("Add", node("Sub", _times_log(node, n, x, node("Div", x, y)), x), y)
        ),
        "special.logit": _floats(
            lambda node, n, x: node("Log", node("Div", x, node("Sub", n(1.0), x))),
        ),
        "special.ndtr": _floats(
            lambda node, n, x: node("Mul", n(0.5), _erfc(node, n, node("Mul", x, n(-sqrt(0.5)))))
        ),
        "special.rel_entr": _floats(lambda node, n, x, y: _times_log(node, n, x, node("Div", x, y))),
        "special.xlog1py": _floats(lambda node, n, x, y: _times_log(node, n, x, node("Add", y, n(1.0)))),
        "special.xlogy": _floats(_times_log),
    }
)


@says("signbit")
def _signbit(w: Any, operation: Operation) -> str:
    (x,) = operation.arguments
    return _is_negative(w.node, lambda number: w.tensor(number, w.dtype(x)), w.tensor(x))


@says("conj", "real")
def _real(w: Any, operation: Operation) -> Any:
    (x,) = operation.arguments
    return w.node("Identity", x) if is_float(w.dtype(x)) else NotImplemented


@says("bitwise_left_shift", "bitwise_right_shift")
def _shift(w: Any, operation: Operation) -> Any:
    # ONNX shifts integers without a sign alone, and has powers of few dtypes.
    dtype = operation.result.dtype
    if dtype == numpy.uint64:
        return NotImplemented
    x, by = (w.tensor(x, "int64") for x in operation.arguments)
    factor = w.node("Pow", numpy.asarray(2), by)
    if operation.name == "bitwise_left_shift":
        shifted = w.node("Mul", x, factor)
    else:
        shifted = w.node("Div", w.node("Sub", x, w.node("Mod", x, factor)), factor)
    return shifted if dtype == numpy.int64 else w.cast(shifted, dtype)


@says("where")
def _where(w: Any, operation: Operation) -> str:
    condition, a, b = operation.arguments
    dtype = operation.result.dtype
    return w.node("Where", w.tensor(condition, bool), w.tensor(a, dtype), w.tensor(b, dtype))


@says("clip")
def _clip(w: Any, operation: Operation) -> str:
    x, low, high = arguments(operation, "x", "min", "max")
    dtype = operation.result.dtype
    name = w.tensor(x, dtype)
    name = name if low is None else w.node("Max", name, w.tensor(low, dtype))
    name = name if high is None else w.node("Min", name, w.tensor(high, dtype))
    return w.node("Identity", name) if low is None and high is None else name


@says("astype", "asarray")
def _astype(w: Any, operation: Operation) -> str:
    return w.cast(w.tensor(operation.arguments[0]), operation.result.dtype)
