"""Matrix products as rows of a table: which function of BLAS does them, and what it is told.

Both are as `numpy.matmul` chooses them, and as `numpy.dot` does for matrices without anything between their
rows, so that results have the same bits. NumPy itself does what is left: a product of a matrix and its own
transpose, of which it computes half, and products of operands that BLAS cannot read where they are.
"""

import ctypes
from functools import cache
from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy

from xpnet.replay.plans import blas, numba
from xpnet.replay.plans.blas import DOT, GEMM, GEMV, Blas
from xpnet.replay.plans.matrices import leading_dimension
from xpnet.replay.plans.table import LONGEST, Row

# The words of a row: a function and which it is; the first of the products that it does and the one behind
# the last; whether BLAS transposes its operands, and three sizes; the operands; and along how many axes there
# are several products. Behind them stand these axes, the last one first.
FUNCTION, KIND, FIRST, LAST, TRANSPOSED_1, TRANSPOSED_2, SIZES = range(7)
OPERANDS = SIZES + 3
# Of an operand: its address, how many bytes behind it it begins, and the elements to the next row or element.
ADDRESS, OFFSET, STEP, OPERAND = range(4)
NUMBER_OF_AXES = OPERANDS + 3 * OPERAND
AXES = NUMBER_OF_AXES + 1
# Of an axis: its length, and for each operand the bytes to the next product.
LENGTH, APART, AXIS = 0, 1, 4

KINDS = {GEMM: 0, GEMV: 1, DOT: 2}
AS_IT_IS, TRANSPOSED = 111, 112  # CBLAS's numbers

# In a nanosecond, a processor multiplies about so many bytes of numbers, and reads or writes so many. A call
# takes so many nanoseconds.
MULTIPLIED, MOVED, CALL = 300, 16, 100
# Parts of a result have a multiple of so many rows: OpenBLAS with one thread then rounds most of them as
# within the whole. It divides what it is given into blocks, at whose edges it may round in another way, and
# they are others where a part ends. With several threads it makes parts of its own.
TOGETHER = 48


class Operand(NamedTuple):
    """An array, as a plan knows it.

    Attributes
    ----------
    word : Any
        Stands for its address among the words of a row.
    begins : Any
        Where it begins: equal for arrays that begin at the same place.
    shape, strides : tuple of int
        As NumPy has them.
    dtype : numpy.dtype
    offset : int
        How many bytes behind that address it begins.
    """

    word: Any
    begins: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    offset: int = 0

    def with_axis(self, axis: int) -> "Operand":
        """Return it with one more axis, of length 1."""
        shape, strides = list(self.shape), list(self.strides)
        shape.insert(axis, 1)
        strides.insert(axis, self.dtype.itemsize)
        return self._replace(shape=tuple(shape), strides=tuple(strides))

    def apart(self, leading: tuple[int, ...]) -> list[int]:
        """Return the bytes from one matrix to the next along each of the leading axes of the result."""
        found = [step * (length > 1) for length, step in zip(self.shape[:-2], self.strides[:-2], strict=True)]
        return [0] * (len(leading) - len(found)) + found


class _Matrix(NamedTuple):
    """The first matrix of an operand, with the bytes to the next row and column."""

    word: Any
    offset: int
    rows: int
    columns: int
    down: int
    along: int

    @property
    def transposed(self) -> "_Matrix":
        return _Matrix(self.word, self.offset, self.columns, self.rows, self.along, self.down)

    def part(self, first: int, last: int) -> "_Matrix":
        """Return some of its rows."""
        return self._replace(offset=self.offset + first * self.down, rows=last - first)

    def layout(self, itemsize: int) -> tuple[int, int] | None:
        """Return whether BLAS must transpose it, and its leading dimension; None if BLAS cannot read it."""
        read = leading_dimension(self.rows, self.columns, self.down // itemsize, self.along // itemsize)
        return (TRANSPOSED if read[0] else AS_IT_IS, read[1]) if read else None


class _Products(NamedTuple):
    """Products of matrices: the operands of the first, and the axes along which there are several."""

    x1: _Matrix
    x2: _Matrix
    result: _Matrix
    axes: list[tuple[int, int, int, int]]

    @classmethod
    def of(cls, x1: Operand, x2: Operand, result: Operand) -> "_Products":
        """Return what `numpy.matmul` multiplies: an operand of one axis is a row, or a column."""
        if len(x2.shape) == 1:
            x2, result = x2.with_axis(1), result.with_axis(len(result.shape))
        if len(x1.shape) == 1:
            x1, result = x1.with_axis(0), result.with_axis(len(result.shape) - 1)
        operands, leading = (x1, x2, result), result.shape[:-2]
        axes = zip(leading, *(x.apart(leading) for x in operands), strict=True)
        first, second, third = (_Matrix(x.word, x.offset, *x.shape[-2:], *x.strides[-2:]) for x in operands)
        return cls(first, second, third, [axis for axis in axes if axis[0] > 1])

    @property
    def transposed(self) -> "_Products":
        axes = [(length, apart_2, apart_1, apart) for length, apart_1, apart_2, apart in self.axes]
        return _Products(self.x2.transposed, self.x1.transposed, self.result.transposed, axes)

    def part(self, first: int, last: int) -> "_Products":
        """Return what gives some rows of the results."""
        return self._replace(x1=self.x1.part(first, last), result=self.result.part(first, last))

    @property
    def kind(self) -> str:
        """Which function does them, if results have no more columns than rows."""
        if self.x1.columns == 1 or self.result.columns > 1:
            return GEMM
        return GEMV if self.result.rows > 1 else DOT

    def told(self, kind: str, itemsize: int) -> list[int] | None:
        """Return the words from `TRANSPOSED_1` to `SIZES`, and three steps; None if BLAS cannot do them."""
        x1, x2, result, _ = self
        between = [x1.along // itemsize, x2.down // itemsize, result.down // itemsize]  # elements of vectors
        if kind == DOT:
            return [AS_IT_IS, AS_IT_IS, 0, 0, x1.columns, *between[:2], 1] if min(between[:2]) > 0 else None
        layouts = [x.layout(itemsize) for x in (x1, x2, result)]
        if kind == GEMV:
            if layouts[0] is None or min(between[1:]) <= 0:
                return None
            transposed, step = layouts[0]
            sizes = [x1.rows, x1.columns] if transposed == AS_IT_IS else [x1.columns, x1.rows]
            return [transposed, AS_IT_IS, *sizes, 0, step, *between[1:]]
        if None in layouts:
            return None
        (transposed_1, step_1), (transposed_2, step_2), (_, step) = layouts  # type: ignore[misc]
        sizes = [result.rows, result.columns, x1.columns]
        return [transposed_1, transposed_2, *sizes, step_1, step_2, step]


@cache
def library() -> Blas | str:
    """Return the functions that NumPy calls, after they were tried, or why products cannot call them."""
    if reason := numba.why_not():
        return reason
    found = blas.find()
    return found if isinstance(found, str) else _wrong(found) or found


def rows(library: Blas, x1: Operand, x2: Operand, result: Operand) -> list[Row]:
    """Return what does a product, as `numpy.matmul` defines it; nothing where NumPy must do it.

    Several rows do one that takes long, each a part of it.
    """
    dtype = result.dtype
    if (GEMM, dtype.name) not in library.addresses or {x1.dtype, x2.dtype} != {dtype}:
        return []
    strides = (*x1.strides, *x2.strides, *result.strides)
    if not prod((*x1.shape, *result.shape)) or any(stride % dtype.itemsize for stride in strides):
        return []
    products = _Products.of(x1, x2, result)
    by_itself = x1.begins == x2.begins and products.x1[2:] == products.x2.transposed[2:]
    if result.begins in (x1.begins, x2.begins) or (by_itself and 1 not in products.x1[2:4]):
        return []
    if products.result.columns > products.result.rows:
        products = products.transposed
    return _parts(library, products, dtype)


def of_vectors(x1: Operand, x2: Operand, result: Operand) -> tuple[Operand, Operand, Operand]:
    """Return the vectors that `numpy.vecdot` multiplies as rows and columns."""
    x1, x2 = x1.with_axis(len(x1.shape) - 1), x2.with_axis(len(x2.shape))
    return x1, x2, result.with_axis(len(result.shape)).with_axis(len(result.shape))


def _parts(library: Blas, products: _Products, dtype: Any) -> list[Row]:
    """Return rows that each do some of several products, or some rows of one."""
    kind, size, count = products.kind, products.result.rows, prod(axis[0] for axis in products.axes)
    inner = products.x1.columns
    of_a_number = max(inner / MULTIPLIED, 1 / MOVED) if kind == GEMM else inner / MOVED
    of_a_row = products.result.columns * dtype.itemsize * of_a_number  # nanoseconds
    if of_a_row > LONGEST:
        return []
    height = ceil(size / ceil(size * of_a_row / LONGEST))
    if height < size:
        height += -height % TOGETHER
    several = max(1, int(LONGEST / (height * of_a_row + CALL)))
    found = []
    for first, above in product(range(0, count, several), range(0, size, height)):
        part = products.part(above, min(above + height, size))
        last = min(first + several, count)
        words = _words(library, kind, part, dtype)
        if words is None:
            return []
        words[FIRST : LAST + 1] = first, last
        nanoseconds = (last - first) * (part.result.rows * of_a_row + CALL)
        found.append(Row(_function(dtype.name), words, nanoseconds))
    return found


def _words(library: Blas, kind: str, products: _Products, dtype: Any) -> list | None:
    """Return the words of a row that does the first of some products, or None where BLAS cannot do it."""
    layout = products.result.layout(dtype.itemsize)
    if kind == GEMM and layout is not None and layout[0] == TRANSPOSED:  # BLAS writes row by row
        products = products.transposed
    told = products.told(kind, dtype.itemsize)
    if told is None or max(told[2:]) > library.largest:
        return None
    words = [library.addresses[kind, dtype.name], KINDS[kind], 0, 1, *told[:5]]
    for x, step in zip(products[:3], told[5:], strict=True):
        words += [x.word, x.offset, step]
    words.append(len(products.axes))
    for axis in reversed(products.axes):
        words += axis
    return words


def _function(dtype: str) -> Any:
    """Return what does the rows of products."""
    return numba.native(f"""\
from xpnet.replay.plans.native_products import multiply


def kernel(words):
    return multiply(words, {dtype})
""")


def run(row: Row) -> None:
    """Do a row by itself, whose words are all numbers."""
    words = numpy.asarray(row.words, numpy.int64)
    ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(row.function.address)(words.ctypes.data)


def operand(x: numpy.ndarray) -> Operand:
    """Return an array that stays where it is."""
    return Operand(x.ctypes.data, x.ctypes.data, x.shape, x.strides, x.dtype)


# -- trying a library ---------------------------------------------------------------------------------------


def _wrong(found: Blas) -> str:
    """Try functions on matrices of whole numbers, whose sums are the same in any order; say what is wrong."""
    shapes = [(5, 3, 7), (7, 1, 5), (1, 6, 5), (5, 6, 1), (1, 9, 1)]
    for dtype, (height, inner, width) in product(("float32", "float64"), shapes):
        x1 = (numpy.arange(height * inner, dtype=dtype) % 7 - 3).reshape(height, inner)
        x2 = (numpy.arange(inner * width, dtype=dtype) % 5 - 2).reshape(inner, width)
        expected = numpy.dot(x1, x2)
        for order_1, order_2, order in product("CF", repeat=3):
            result = _framed(numpy.full_like(expected, numpy.nan), order)
            operands = [_framed(x1, order_1), _framed(x2, order_2), result]
            for row in rows(found, *(operand(x[1:-1, 1:-1]) for x in operands)):
                run(row)
            if not numpy.array_equal(result, _framed(expected, order), equal_nan=True):
                return (
                    f"{found.name} is not used, as it gives other numbers than numpy.dot for matrices of "
                    f"{dtype} with the shapes {x1.shape} and {x2.shape}"
                )
    return ""


def _framed(x: numpy.ndarray, order: Any) -> numpy.ndarray:
    """Return a matrix with NaN around it, by rows or by columns."""
    framed = numpy.full((x.shape[0] + 2, x.shape[1] + 2), numpy.nan, x.dtype, order)
    framed[1:-1, 1:-1] = x
    return framed
