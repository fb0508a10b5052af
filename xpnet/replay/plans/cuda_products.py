"""Matrix products with what comes right behind them, as cuBLASLt can do it in one go.

A dense layer followed by ReLU is a product, to whose elements the bias is added and of which negative ones
become zero before they are written; which they were is noted in a mask of bits. Backward, the gradient behind
the ReLU is a product of which the masked elements become zero, with its sum, the gradient of the bias.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy

from xpnet.backends import plain_namespace
from xpnet.replay.functions import VIEWS
from xpnet.replay.graph import Graph, Instead, Operation, Variable
from xpnet.replay.plans.matrices import leading_dimension

# What is done with the elements of a product, in cuBLASLt's names.
BIAS, RELU, RELU_BIAS, RELU_AUX, RELU_AUX_BIAS = "BIAS", "RELU", "RELU_BIAS", "RELU_AUX", "RELU_AUX_BIAS"
DRELU, DRELU_BGRAD = "DRELU", "DRELU_BGRAD"

# Bytes: what the widest loads of cuBLASLt ask for, and what it asks for to read a bias.
ALIGNMENT, ALIGNMENT_OF_BIAS = 256, 16


class Matrix(NamedTuple):
    """How the elements of a matrix, or of several, stand in memory.

    Attributes
    ----------
    rows, columns : int
    by_columns : bool
        Whether the elements of a column stand beside each other; otherwise those of a row do.
    step : int
        Elements from one row, or column, to the next.
    matrices : int
    apart : int
        Elements from one matrix to the next.
    """

    rows: int
    columns: int
    by_columns: bool
    step: int
    matrices: int
    apart: int

    @classmethod
    def of(cls, x: numpy.ndarray) -> "Matrix | None":
        """Return how an array is laid out, or None where a product would need a copy of it."""
        if x.ndim < 2 or not x.size or any(stride % x.itemsize or stride < 0 for stride in x.strides):
            return None
        *leading, down, along = (stride // x.itemsize for stride in x.strides)
        *several, rows, columns = x.shape
        stacks = [(n, step) for n, step in zip(several, leading, strict=True) if n > 1]
        if any(step != n * inner for (_, step), (n, inner) in pairwise(stacks)):
            return None
        matrices, apart = prod(several), stacks[-1][1] if stacks else 0
        read = leading_dimension(rows, columns, down, along)
        return cls(rows, columns, *read, matrices, apart) if read else None

    @property
    def extent(self) -> int:
        """How many elements there are from the first to the last, with what is between them."""
        long, short = (self.columns, self.rows) if self.by_columns else (self.rows, self.columns)
        return (self.matrices - 1) * self.apart + (long - 1) * self.step + short

    @property
    def in_one(self) -> "Matrix":
        """All matrices below each other, as one, where the rows of all are equally far apart."""
        if self.by_columns or self.apart != self.rows * self.step:
            return self
        return Matrix(self.rows * self.matrices, self.columns, False, self.step, 1, 0)


def operands(first: numpy.ndarray, second: numpy.ndarray) -> tuple[Matrix, Matrix] | None:
    """Return what `matmul` multiplies of two arrays, or None where a product would need a copy of one."""
    shapes = operand_shapes(first.shape, second.shape)
    a, b = (Matrix.of(as_matrices(x, shape)) for x, shape in zip((first, second), shapes, strict=True))
    if a is None or b is None:
        return None
    if b.apart == 0 and a.in_one.matrices == 1:  # one large product in place of several
        return a.in_one, b._replace(matrices=1)
    return a, b


def operand_shapes(
    first: tuple[int, ...], second: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of two operands as matrices, as many of each: one axis is a row, or a column."""
    first = (1, *first) if len(first) == 1 else first
    second = (*second, 1) if len(second) == 1 else second
    leading = numpy.broadcast_shapes(first[:-2], second[:-2])
    return (*leading, *first[-2:]), (*leading, *second[-2:])


def as_matrices(x: Any, shape: tuple[int, ...]) -> Any:
    """Return an operand as it is repeated for a product; one axis may be a column."""
    x = x[:, None] if x.ndim == 1 and shape[-1] == 1 else x
    return plain_namespace(x).broadcast_to(x, shape)


class Product(NamedTuple):
    """What is asked of cuBLASLt.

    Attributes
    ----------
    first, second : Matrix
        The operands.
    dtype : str
        Of the operands.
    result : str
        The dtype of the result, which stands row by row.
    precision : str
        In which operands of float32 are multiplied: float32 or tf32.
    epilogue : str
        What is done with the elements, or nothing.
    alignments : tuple of int
        Of how many bytes the places of the two operands are multiples. Those of the result, of a mask and
        of the gradient of a bias are multiples of `ALIGNMENT`, that of a bias is one of `ALIGNMENT_OF_BIAS`.
    """

    first: Matrix
    second: Matrix
    dtype: str
    result: str
    precision: str
    epilogue: str
    alignments: tuple[int, int] = (ALIGNMENT, ALIGNMENT)


def is_product(operation: Operation) -> bool:
    """Say whether an operation is a product of floating-point numbers, as cuBLASLt has it."""
    if operation.short_name not in ("matmul", "product"):
        return False
    both = operation.arguments[:2]
    return (
        all(type(x) is Variable and x.size for x in (*both, operation.result))
        and both[0].dtype == both[1].dtype
        and both[0].dtype.name in ("float64", "float32", *NARROW)
    )


class NarrowType(NamedTuple):
    """A dtype of numbers that only kernels and products know, in 16 bits."""

    name: str
    kind: str = "f"
    itemsize: int = 2

    def __str__(self) -> str:
        return self.name


NARROW = {name: NarrowType(name) for name in ("float16", "bfloat16")}


def stored_as(dtype: Any) -> Any:
    """Return the dtype of the memory for numbers of a dtype."""
    return numpy.dtype(numpy.uint16) if isinstance(dtype, NarrowType) else dtype


def _narrowed(x: Any, dtype: NarrowType) -> Any:
    """Convert an array of float32 whose elements do not stand one after the other, which no kernel reads."""
    if dtype.name == "float16":
        return x.astype("float16").view("uint16")
    bits = x.copy().view("uint32")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # halfway, to an even one
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return (rounded * ~is_nan + 0x7FC0 * is_nan).astype("uint16")


def widening(operation: Operation) -> Callable:
    """Return the function of an operation that has narrow operands and that cuBLASLt does not know."""
    names = [getattr(getattr(x, "dtype", None), "name", "") for x in operation.arguments]

    def call(*arguments: Any, **options: Any) -> Any:
        wide = (_widened(x, name) for x, name in zip(arguments, names, strict=True))
        return operation.function(*wide, **options)

    return call


def _widened(x: Any, name: str) -> Any:
    if name == "float16":
        return x.view("float16").astype("float32")
    return (x.astype("uint32") << 16).view("float32") if name == "bfloat16" else x


def narrow(graph: Graph) -> Graph:
    """Return a graph in which operands of lower precision are of dtypes of their own.

    cuBLASLt rounds to tf32 itself; for others, it is given numbers of 16 bits, which are converted to once.
    """

    def converted(x: Variable, name: str) -> Operation:
        return Operation("astype", _narrowed, (x, NARROW[name]), {}, (Variable(x.shape, NARROW[name]),))

    def change(operation: Operation) -> Instead | None:
        if operation.name == "rounded":
            (x,), name = operation.arguments, operation.options["precision"]
            new = [converted(x, name)] if name in NARROW else []
            return new, [new[0].result if new else x]
        if operation.name in VIEWS and isinstance(operation.inputs[0].dtype, NarrowType):
            result = Variable(operation.result.shape, operation.inputs[0].dtype)
            return [replace(operation, results=(result,))], [result]
        if operation.precision in NARROW:
            # Constants were rounded when they were recorded.
            wide = [x for x in operation.inputs if not isinstance(x.dtype, NarrowType)]
            new = [converted(x, operation.precision) for x in wide]
            operands = {x: each.result for x, each in zip(wide, new, strict=True)}
            return [*new, operation.reading(operands)], operation.results
        return None

    return graph.rewritten(change)


def mask_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the bytes of the mask of a result: a bit for each element, in rows of whole 16 bytes."""
    return rows, -(-columns // 128) * 16


def merged(graph: Graph, accepts: Callable[[Operation], bool]) -> Graph:
    """Return a graph in which operations right behind products are parts of these.

    ``accepts`` says of each of these whether it can be done; where it cannot, less is taken in.
    """
    return _Merge(graph, accepts).result


class _Merge:
    def __init__(self, graph: Graph, accepts: Callable[[Operation], bool]) -> None:
        self._graph, self._accepts = graph, accepts
        # What stands in the place of an operation: another one, or nothing.
        self._instead: dict[Operation, list[Operation]] = {}
        for operation in graph.operations:
            if _is_plain(operation) and operation not in self._instead:
                self._forward(operation)
        self.result = graph.replace(self._instead)

    def _forward(self, product: Operation) -> None:
        """Take in the bias and the ReLU behind a product."""
        x, last, bias = product.result, product, None
        reader = self._graph.only_reader(x)
        if reader is not None and reader.name == "add" and not reader.options:
            other = reader.arguments[reader.arguments[0] is x]
            if type(other) is Variable and other.shape == x.shape[-1:] and other.dtype == x.dtype:
                bias, x, last = other, reader.result, reader
        relu, masks = self._relu(x)
        if relu is not None and self._take_in_relu([product, last, relu], bias, masks):
            return
        if bias is not None:
            with_bias = self._merged([product, last], BIAS, bias, [x])
            if with_bias:
                self._put([product, last], with_bias)

    def _take_in_relu(self, parts: list[Operation], bias: Variable | None, masks: list[Operation]) -> bool:
        """Let a product end with its ReLU, and say whether it can."""
        h = parts[-1].result
        if masks and self._take_in_masks(parts, bias, masks):
            return True
        forward = self._merged(parts, RELU if bias is None else RELU_BIAS, bias, [h])
        if forward is None:
            return False
        self._put(parts, forward)
        for greater in masks:  # h > 0 where x > 0
            self._instead[greater] = [replace(greater, arguments=(h, 0))]
        return True

    def _take_in_masks(self, parts: list[Operation], bias: Variable | None, masks: list[Operation]) -> bool:
        """Let a product note for those that are made zero at the same elements, and say whether all can."""
        h = parts[-1].result
        mask = Variable(mask_shape(*h.shape), numpy.dtype(numpy.uint8))
        forward = self._merged(parts, RELU_AUX if bias is None else RELU_AUX_BIAS, bias, [h, mask])
        if forward is None:
            return False
        found = [self._backward(each, mask) for each in masks]
        backward = [each for each in found if each is not None]
        if len(backward) < len(masks):
            return False
        self._put(parts, forward)
        for greater, each in zip(masks, backward, strict=True):
            self._instead[greater] = []
            self._put(*each)
        return True

    def _relu(self, x: Variable) -> tuple[Operation | None, list[Operation]]:
        """Return the ReLU of a variable, and where it is compared with zero, if nothing else reads it."""
        readers = self._graph.readers[x]
        relus = [each for each in readers if each.name == "maximum" and _is_zero(each.arguments[1])]
        masks = [each for each in readers if each.name == "greater" and _is_zero(each.arguments[1])]
        alone = len(relus) == 1 and len(relus) + len(masks) == len(readers) and x not in self._graph.returned
        alone = alone and all(each.arguments[0] is x for each in (*relus, *masks))
        return (relus[0], masks) if alone else (None, [])

    def _backward(self, greater: Operation, mask: Variable) -> tuple[list[Operation], Operation] | None:
        """Return the parts of a product whose elements a mask makes zero, and what stands in their place."""
        where = self._graph.only_reader(greater.result)
        if where is None or where.name != "where" or where.arguments[0] is not greater.result:
            return None
        _, x, zero = where.arguments
        if type(x) is not Variable or not _is_zero(zero) or self._graph.only_reader(x) is not where:
            return None
        product = self._graph.makers.get(x)
        if product is None or product in self._instead or not _is_plain(product):
            return None
        parts = [product, where]
        for total in [each for each in self._graph.readers[where.result] if _sums_rows(each)][:1]:
            with_sum = self._merged(parts, DRELU_BGRAD, mask, [where.result, total.result])
            if with_sum:
                return [product, total, where], with_sum
        alone = self._merged(parts, DRELU, mask, [where.result])
        return (parts, alone) if alone else None

    def _merged(
        self, parts: list[Operation], epilogue: str, read: Variable | None, results: list[Variable]
    ) -> Operation | None:
        """Return a product in place of several operations, or None where it cannot be done."""
        first = parts[0]
        arguments = first.arguments if read is None else (*first.arguments, read)
        options = first.options | {"epilogue": epilogue}
        product = Operation(
            "product", None, arguments, options, tuple(results), len(results) > 1, precision=first.precision
        )
        return product if self._accepts(product) else None

    def _put(self, parts: list[Operation], product: Operation) -> None:
        """Put a product in the place of several operations: where the last of them is."""
        self._instead |= {part: [] for part in parts} | {parts[-1]: [product]}


def _is_plain(operation: Operation) -> bool:
    """Say whether an operation is a product of two matrices of float32, or rounded from it."""
    return operation.name == "matmul" and all(
        type(x) is Variable and len(x.shape) == 2 and x.dtype.name in ("float32", *NARROW) and x.size
        for x in (*operation.arguments, operation.result)
    )


def _is_zero(x: Any) -> bool:
    return isinstance(x, int | float) and x == 0


def _sums_rows(operation: Operation) -> bool:
    if operation.name != "sum" or len(operation.arguments) != 1:
        return False
    axis = operation.options.get("axis")
    rest = {key: value for key, value in operation.options.items() if key != "axis" and value}
    return axis in (0, (0,), [0]) and not rest and operation.result.dtype == operation.arguments[0].dtype
