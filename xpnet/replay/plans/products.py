"""Matrix products as works for a table: which function of BLAS does them, and what it is told.

Both are as `numpy.matmul` chooses them, and as `numpy.dot` does for matrices without anything between their
rows, so that results that are not divided have the same bits. NumPy itself does what is left: a product of a
matrix and its own transpose, of which it computes half, and products of operands that BLAS cannot read where
they are.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy

from xpnet.replay.plans import blas, numba, pool
from xpnet.replay.plans.blas import DOT, GEMM, GEMV, Blas
from xpnet.replay.plans.matrices import leading_dimension
from xpnet.replay.plans.rounds import Piece, Region, Work, evenly
from xpnet.replay.plans.table import LONGEST, Row, Where

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
# BLAS copies its operands into an order of its own, some of them again for each tile of a result. As
# measured, that takes a share of the time of so much over the number of rows, for each row of tiles but one,
# and over the number of columns for those of columns. What is worth while is more for two tiles.
COPIED, WORTH_IT, WORTH_IT_FOR_TWO = 12, 0.06, 0.1


class Operand(NamedTuple):
    """An array, as a plan knows it.

    Attributes
    ----------
    word : Any
        Stands for its address among the words of a row.
    begins : Where
        Where it begins.
    shape, strides : tuple of int
        As NumPy has them.
    dtype : numpy.dtype
    offset : int
        How many bytes behind that address it begins.
    """

    word: Any
    begins: Where
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
    begins: Where

    @classmethod
    def of(cls, x: Operand) -> "_Matrix":
        (rows, columns), (down, along) = x.shape[-2:], x.strides[-2:]
        return cls(x.word, x.offset, rows, columns, down, along, x.begins)

    @property
    def transposed(self) -> "_Matrix":
        return _Matrix(self.word, self.offset, self.columns, self.rows, self.along, self.down, self.begins)

    def part(self, first: int, last: int) -> "_Matrix":
        """Return some of its rows."""
        behind = first * self.down
        begins = self.begins._replace(offset=self.begins.offset + behind)
        return self._replace(offset=self.offset + behind, rows=last - first, begins=begins)

    def region(self, itemsize: int, axes: Sequence[tuple[int, int, int]]) -> Region:
        """Return what some of several matrices take: the first along each axis, how many, and the step."""
        shape = self.rows, self.columns, *(number for _, number, _ in axes)
        strides = self.down, self.along, *(step for *_, step in axes)
        start = self.begins.offset + sum(first * step for first, _, step in axes)
        return Region.of(self.begins.array, start, shape, strides, itemsize)

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
        first, second, third = map(_Matrix.of, operands)
        return cls(first, second, third, [axis for axis in axes if axis[0] > 1])

    @property
    def transposed(self) -> "_Products":
        axes = [(length, apart_2, apart_1, apart) for length, apart_1, apart_2, apart in self.axes]
        return _Products(self.x2.transposed, self.x1.transposed, self.result.transposed, axes)

    @property
    def number(self) -> int:
        """How many products there are."""
        return prod(axis[0] for axis in self.axes)

    def part(self, first: int, last: int) -> "_Products":
        """Return what gives some rows of the results."""
        return self._replace(x1=self.x1.part(first, last), result=self.result.part(first, last))

    def regions(self, first: int, last: int, itemsize: int) -> list[Region]:
        """Return what operands and results of some of the products take."""
        places = _places([axis[0] for axis in self.axes], first, last)
        return [
            x.region(
                itemsize, [(*place, axis[number]) for place, axis in zip(places, self.axes, strict=True)]
            )
            for number, x in enumerate(self[:3], start=1)
        ]

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
    """Return the functions that NumPy calls, after they were tried, or why products cannot call them.

    They are those of a library without threads if there is one, as threads of plans do parts of products.
    """
    if reason := numba.why_not():
        return reason
    for found in (blas.without_threads(), blas.find()):
        wrong = found if isinstance(found, str) else _wrong(found)
        if not wrong:
            break
    return wrong or found


def one_thread() -> str:
    """Return why one thread goes through tables; "" if several may."""
    if reason := pool.why_not():
        return reason
    found = library()
    if isinstance(found, str):
        return found
    return str(blas.without_threads()) if found.has_threads else ""


def works(library: Blas, x1: Operand, x2: Operand, result: Operand, *, name: str = "matmul") -> list[Work]:
    """Return what does a product, as `numpy.matmul` defines it; nothing where NumPy must do it."""
    dtype = result.dtype
    if (GEMM, dtype.name) not in library.addresses or {x1.dtype, x2.dtype} != {dtype}:
        return []
    strides = (*x1.strides, *x2.strides, *result.strides)
    if not prod((*x1.shape, *result.shape)) or any(stride % dtype.itemsize for stride in strides):
        return []
    products = _Products.of(x1, x2, result)
    by_itself = x1.begins == x2.begins and products.x1[2:6] == products.x2.transposed[2:6]
    if result.begins in (x1.begins, x2.begins) or (by_itself and 1 not in products.x1[2:4]):
        return []
    found = _Tiles(library, products, dtype)
    if found.words(found.oriented) is None or found.of_a_row > LONGEST:
        return []
    rows, count = products.result.rows, products.number
    pieces = count if count > 1 else rows if found.kind != DOT else 1
    return [Work(name, found.nanoseconds(products) * count, pieces, found.piece, found.divided)]


def of_vectors(x1: Operand, x2: Operand, result: Operand) -> tuple[Operand, Operand, Operand]:
    """Return the vectors that `numpy.vecdot` multiplies as rows and columns."""
    x1, x2 = x1.with_axis(len(x1.shape) - 1), x2.with_axis(len(x2.shape))
    return x1, x2, result.with_axis(len(result.shape)).with_axis(len(result.shape))


class _Tiles:
    """How products are done: several of them in one call, or tiles of the result of one.

    Attributes
    ----------
    oriented : _Products
        As they are, or transposed if results have more columns than rows.
    kind : str
        Which function does them.
    of_a_row : float
        How many nanoseconds a row of a result takes, that has no more columns than rows.
    """

    def __init__(self, library: Blas, products: _Products, dtype: Any) -> None:
        self._library, self._products, self._dtype = library, products, dtype
        result = products.result
        self._is_turned = result.columns > result.rows
        self.oriented = self._turned(products)
        self.kind = self.oriented.kind
        inner = products.x1.columns
        of_a_number = max(inner / MULTIPLIED, 1 / MOVED) if self.kind == GEMM else inner / MOVED
        self.of_a_row = min(result.rows, result.columns) * dtype.itemsize * of_a_number

    def _turned(self, products: _Products) -> _Products:
        return products.transposed if self._is_turned else products

    def nanoseconds(self, products: _Products) -> float:
        """Return how long one product takes, whole or a tile."""
        whole, tile = self._products.result, products.result
        share = tile.rows * tile.columns / (whole.rows * whole.columns)
        return max(whole.rows, whole.columns) * self.of_a_row * share + CALL

    def words(self, products: _Products, first: int = 0, last: int = 1) -> list | None:
        """Return the words of a row that does some of several products, or None where BLAS cannot do it."""
        dtype, library, kind = self._dtype, self._library, self.kind
        layout = products.result.layout(dtype.itemsize)
        if kind == GEMM and layout is not None and layout[0] == TRANSPOSED:  # BLAS writes row by row
            products = products.transposed
        told = products.told(kind, dtype.itemsize)
        if told is None or max(told[2:]) > library.largest:
            return None
        words = [library.addresses[kind, dtype.name], KINDS[kind], first, last, *told[:5]]
        for x, step in zip(products[:3], told[5:], strict=True):
            words += [x.word, x.offset, step]
        words.append(len(products.axes))
        for axis in reversed(products.axes):
            words += axis
        return words

    def piece(self, first: int, last: int) -> Piece:
        """Return what does some of the products or, of one product, some rows."""
        if self._products.number > 1:
            return self._tile(self._products, first, last)
        return self._tile(self._products.part(first, last))

    def _tile(self, products: _Products, first: int = 0, last: int = 1) -> Piece:
        words = self.words(self._turned(products), first, last)
        assert words is not None  # as for the whole
        row = Row(_function(self._dtype.name), words, (last - first) * self.nanoseconds(products))
        *read, written = products.regions(first, last, self._dtype.itemsize)
        return Piece(row, read, [written])

    def divided(self, number: int) -> tuple[list[Piece], list[int] | None]:
        """Return pieces for about so many threads, and where they are cut if one follows the other."""
        products, count = self._products, self._products.number
        most = self.nanoseconds(products) / LONGEST  # of one product
        if count > 1 and (count >= number or most <= 1):
            bounds = evenly(count, number)
            return [self.piece(*pair) for pair in pairwise(bounds)], bounds
        down, along = self._grid(ceil(number / count), ceil(most))
        rows, columns = evenly(products.result.rows, down), evenly(products.result.columns, along)
        tiles = [
            products.part(*pair).transposed.part(*other).transposed
            for pair in pairwise(rows)
            for other in pairwise(columns)
        ]
        pieces = [self._tile(tile, index, index + 1) for index in range(count) for tile in tiles]
        return pieces, rows if count == along == 1 else None

    def _grid(self, number: int, least: int) -> tuple[int, int]:
        """Return how many rows and columns of tiles a result has: for so many threads, but at least so many.

        Rows alone are preferred, as what follows can be done row by row.
        """
        rows, columns = self._products.result.rows, self._products.result.columns
        if self.kind != GEMM:
            number = 1 if self.kind == DOT else max(number, least)
            return (min(number, rows), 1) if rows > 1 else (1, min(number, columns))
        sides = [2**power for power in range(max(number, least).bit_length() + 1)]
        grids = [(a, b) for a, b in product(sides, sides) if a <= rows and b <= columns]
        costs = {(a, b): COPIED * ((a - 1) / rows + (b - 1) / columns) for a, b in grids}

        def is_worth_it(grid: tuple[int, int]) -> bool:
            tiles = grid[0] * grid[1]
            return tiles <= number and costs[grid] <= (WORTH_IT_FOR_TWO if tiles == 2 else WORTH_IT)

        def order(grid: tuple[int, int]) -> tuple:
            return -grid[0] * grid[1], grid[1] > 1, costs[grid]

        found = min(filter(is_worth_it, grids), key=order)
        if found[0] * found[1] >= least:
            return found
        enough = [grid for grid in grids if grid[0] * grid[1] >= least]
        return min(enough, key=costs.__getitem__, default=found)


def _places(lengths: Sequence[int], first: int, last: int) -> list[tuple[int, int]]:
    """Return which of some that are counted along axes are meant: the first along each axis, and how many.

    Others are among them where there is no such range.
    """
    if not lengths:
        return []
    inner = prod(lengths[1:])
    start, stop = first // inner, (last - 1) // inner + 1
    if stop - start > 1:
        return [(start, stop - start), *((0, length) for length in lengths[1:])]
    behind = start * inner
    return [(start, 1), *_places(lengths[1:], first - behind, last - behind)]


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
    address = x.ctypes.data
    return Operand(address, Where(None, address), x.shape, x.strides, x.dtype)


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
            for work in works(found, *(operand(x[1:-1, 1:-1]) for x in operands)):
                run(work.piece(0, work.count).row)
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
