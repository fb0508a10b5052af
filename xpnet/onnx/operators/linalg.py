"""Products, and what else of matrices ONNX has, as operators of ONNX."""

from typing import Any

from xpnet.onnx.operators.declare import arguments, says
from xpnet.replay.graph import Operation


@says("tensordot")
def _tensordot(w: Any, operation: Operation) -> str:
    a, b, axes = arguments(operation, "x1", "x2", axes=2)
    rank_a, rank_b = len(w.shape(a)), len(w.shape(b))
    if isinstance(axes, int):
        axes = tuple(range(rank_a - axes, rank_a)), tuple(range(axes))
    letters = [chr(ord("a") + place) for place in range(rank_a + rank_b)]
    left, right = letters[:rank_a], letters[rank_a:]
    for i, j in zip(*axes, strict=True):
        right[j] = left[i]
    both = set(left) & set(right)
    result = [letter for letter in (*left, *right) if letter not in both]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    dtype = operation.result.dtype
    return w.node("Einsum", w.tensor(a, dtype), w.tensor(b, dtype), equation=equation)


@says("det")
def _det(w: Any, operation: Operation) -> str:
    return w.node("Det", operation.arguments[0])
