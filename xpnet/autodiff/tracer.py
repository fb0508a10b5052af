"""The traced array, and the record of how it was made.

A `Tracer` behaves like an array of the standard. It is a small handle on a value and on a `Node`, the record
of the function that made the value. The handle can be rebound (``x += 1``, ``x[0] = 1``); a node never
changes, so what was recorded before stays right.
"""

from itertools import count
from typing import Any

from xpnet.arrays import ArrayObject
from xpnet.backends import to_numpy
from xpnet.errors import NoGradientError

# One counter numbers all nodes. A node's inputs have lower numbers than the node itself, so sorting by number
# puts any part of the graph in order.
numbers = count()


class Node:
    """A function that was called, its inputs and what its gradient rules will read.

    Attributes
    ----------
    number : int
        Its place in the order of all nodes.
    primitive : Primitive
        The function.
    inputs : tuple
        Nodes, and plain arrays or Python numbers where an input has no gradient.
    values : tuple
        What the rules get as inputs: the values of ``inputs``. Where no rule reads a value, it is not kept,
        and its node stands in for it, which rules may ask for shape and dtype.
    parameters : dict
        The function's keyword arguments.
    kept : array, sequence of array or None
        The result, if a rule reads it.
    shape : tuple of int
        Shape of the result; of a function with several results, a tuple of their shapes.
    dtype : dtype
        Data type of the result, or a tuple of those of several.
    """

    __slots__ = ("dtype", "inputs", "kept", "number", "parameters", "primitive", "shape", "values")

    def __init__(
        self,
        primitive: Any,
        inputs: tuple,
        values: tuple,
        parameters: dict,
        kept: Any,
        shape: Any,
        dtype: Any,
    ) -> None:
        self.number = next(numbers)
        self.primitive = primitive
        self.inputs = inputs
        self.values = values
        self.parameters = parameters
        self.kept = kept
        self.shape = shape
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Node({self.number}: {self.primitive.name} -> {self.dtype}{list(self.shape)})"


class Tracer(ArrayObject):
    """An array that remembers how it was made.

    It follows the array API standard, wraps a plain array, and is what functions receive inside `grad` and
    the other transforms. Where no gradient flows (labels, say), its node is None.
    """

    __slots__ = ("node",)

    _to_numpy = staticmethod(to_numpy)

    def __init__(self, value: Any, node: Node | None, namespace: Any) -> None:
        self.value = value
        self.node = node
        self.namespace = namespace

    def _become(self, other: "Tracer") -> None:
        self.value, self.node = other.value, other.node

    def __copy__(self) -> "Tracer":
        return Tracer(self.value, self.node, self.namespace)

    def __repr__(self) -> str:
        made_by = f" made by {self.node.primitive.name}" if self.node else ""
        return f"<traced {self.value!r}{made_by}>"

    def __bool__(self) -> bool:
        # A branch on a value loses no gradient: the branch that is taken is the one that is recorded.
        return bool(self.value)

    def _leave(self, what: str) -> Any:
        if self.node is not None:
            raise NoGradientError(
                f"{what} needs a plain array, received a traced one whose gradient would be lost. "
                "Keep to functions of its namespace (xp = xpnet.array_namespace(x)), or call "
                "xpnet.stop_gradient(x) first if no gradient shall flow through here."
            )
        return self.value
