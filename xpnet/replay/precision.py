"""Matrix products of operands with fewer digits, as the matrix units of a GPU compute them: the operands are
rounded, and the products are added up in float32.

A plan that has such units rounds by its own means. For others, rounding is written with functions of the
standard, so that a training behaves the same on any library.
"""

from typing import Any, NamedTuple

from xpnet.autodiff import array_namespace
from xpnet.replay.functions import PRODUCTS, REARRANGEMENTS
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.record import Recorded, RecordingNamespace


class Format(NamedTuple):
    """A format of floating-point numbers within those of float32.

    Attributes
    ----------
    digits : int
        How many binary digits a number has, with the one in front of the point.
    smallest : float
        The smallest number with so many; below, the last digit stands for the same as here.
    limit : float
        From here on, numbers are rounded to infinity.
    """

    digits: int
    smallest: float
    limit: float


FORMATS = {
    "tf32": Format(11, 2.0**-126, 2.0**128 - 2.0**116),
    "float16": Format(11, 2.0**-14, 65520.0),
    "bfloat16": Format(8, 2.0**-126, 2.0**128 - 2.0**119),
}

PRECISIONS = ("float32", *FORMATS)


def check_precision(precision: Any) -> None:
    """Check that a precision is one that products can be computed in."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, received {precision!r}.")


def rounded(x: Any, *, precision: str) -> Any:
    """Round float32 to the nearest number of another format; halfway, to that with an even last digit.

    Adding 2^s c to x, where c is near to x, leaves no room for the last s digits, and the processor rounds
    them away. For the even digit, c must be even: it is x, rounded like that without this condition. That
    is the splitting of Veltkamp and Dekker, done twice.

    References
    ----------
    Dekker, "A floating-point technique for extending the available precision", 1971,
    https://doi.org/10.1007/BF01397083.
    """
    xp = array_namespace(x)
    digits, smallest, limit = FORMATS[precision]
    factor = 2.0 ** (24 - digits)
    large = 2.0**64  # a power whose products with the factor are finite
    size = xp.abs(x)
    is_small = size < large
    y = xp.minimum(xp.where(is_small, size, size * (1 / large)), large)
    c = y * factor
    c = factor * xp.maximum((c + y) - c, smallest)
    y = (c + y) - c
    y = xp.where(is_small, y, y * large)
    y = xp.where(size >= limit, xp.inf, y)
    return xp.where(x < 0, -y, y)


def lower_products(graph: Graph, precision: str, xp: Any, device: Any, *, by_plan: bool) -> None:
    """Give the products of a graph operands of another precision.

    Each product of float32 arrays has the precision as its attribute then, and its operands are results of
    operations named ``rounded``, or views of such. An array that several products read is rounded once.

    Parameters
    ----------
    graph : Graph
    precision : str
    xp : namespace
        The library's own.
    device : device
        Where the arrays are.
    by_plan : bool
        Whether these operations stay for the plan to do, or are put in as functions of the standard.
    """
    rounding = _Rounding(precision, xp, device, by_plan=by_plan)
    for operation in graph.operations:
        if operation.name in PRODUCTS and all(x.dtype == xp.float32 for x in operation.arguments):
            operation.precision = precision
            x1, x2 = map(rounding.of, operation.arguments)
            operation.arguments = (x1, x2)
            operation.substitute(lambda x: x)
        elif operation.name == "scan_arrays":
            body = operation.options["body"]
            operation.options = operation.options | {"body": body.in_precision(precision)}
        rounding.operations.append(operation)
    graph.operations = rounding.operations
    graph.remove_dead()


class _Rounding:
    """The rounded arrays of a graph, with the operations that make them."""

    def __init__(self, precision: str, xp: Any, device: Any, *, by_plan: bool) -> None:
        self.operations: list[Operation] = []
        self._precision, self._xp, self._device, self._by_plan = precision, xp, device, by_plan
        self._known: dict[Variable, Variable] = {}

    def of(self, x: Any) -> Any:
        """Return what stands for an operand: a view of what is rounded, for a view."""
        if type(x) is not Variable:
            return rounded(x, precision=self._precision)
        if x not in self._known:
            made_by = x.operation
            if made_by is not None and _is_rearrangement(made_by):
                self._known[x] = self._view(made_by, self.of(made_by.inputs[0]))
            else:
                self._known[x] = self._rounded(x)
        return self._known[x]

    def _view(self, operation: Operation, x: Variable) -> Variable:
        again = Operation(operation.name, operation.function, operation.arguments, operation.options, False)
        again.substitute(lambda _: x)
        again.shares = operation.shares
        return self._add(again, operation.result)

    def _rounded(self, x: Variable) -> Variable:
        if self._by_plan:
            return self._add(Operation("rounded", rounded, (x,), {"precision": self._precision}, False), x)
        namespace = RecordingNamespace(self._xp)
        like = self._xp.zeros(x.shape, dtype=x.dtype, device=self._device)
        result = namespace.record(rounded, Recorded(like, x, namespace), precision=self._precision)
        self.operations += namespace.operations
        return result.variable

    def _add(self, operation: Operation, like: Variable) -> Variable:
        operation.results = [Variable(like.shape, like.dtype, operation)]
        self.operations.append(operation)
        return operation.result


def _is_rearrangement(operation: Operation) -> bool:
    """Say whether a result has the elements of its only argument, none of which is left out."""
    inputs = operation.inputs
    return (
        operation.name in REARRANGEMENTS
        and len(inputs) == 1
        and inputs[0].dtype == operation.result.dtype
        and inputs[0].size <= operation.result.size
    )
