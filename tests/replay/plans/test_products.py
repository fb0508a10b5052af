"""Products by the functions of BLAS have the bits that NumPy's have, wherever operands lie in memory.

Bits are compared where NumPy calls the same function with the same arguments, which adds up in the same order
on one processor. Elsewhere, numbers are whole and small, so that any order gives one sum.
"""

import ctypes
import threading
from itertools import product

import numpy
import pytest
from numpy.lib.stride_tricks import as_strided

import xpnet
from xpnet.replay.plans import blas, products

pytest.importorskip("numba")
DTYPES = "float32", "float64"
random = numpy.random.default_rng(0)


@pytest.fixture(scope="module")
def library():
    found = products.library()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(autouse=True)
def one_thread_of_numpy():
    """Several divide products in another way, which changes bits."""
    get, set_number = map(function_of_openblas, ("get", "set"))
    before = get() if get else 0
    if set_number:
        set_number(1)
    yield
    if set_number:
        set_number(before)


def works_of(library, *arrays):
    return products.works(library, *map(products.operand, arrays))


def multiplied(library, x1, x2, result, number=1):
    """Multiply by the rows of a table, into a result that has other numbers before."""
    (work,) = works_of(library, x1, x2, result)
    result[...] = numpy.nan
    for piece in [work.piece(0, work.count)] if number == 1 else work.divided(number)[0]:
        products.run(piece.row)
    return result


def as_by(function, library, x1, x2, result=None):
    """Say whether a product has the bits that a function of NumPy's gives in the same place."""
    if result is None:
        result = numpy.empty_like(numpy.matmul(x1, x2))
    expected = function(x1, x2, out=result).copy()
    return multiplied(library, x1, x2, result).tobytes() == expected.tobytes()


def drawn(*shape, dtype):
    return random.normal(size=shape).astype(dtype)


def whole(*shape, dtype):
    return random.integers(-4, 5, shape).astype(dtype)


def within(x, order="C"):
    """Return an array that is a part of a larger one, along each axis."""
    larger = numpy.full([n + 3 for n in x.shape], numpy.nan, x.dtype, order)
    part = larger[tuple(slice(1, n + 1) for n in x.shape)]
    part[...] = x
    return part


SHAPES = [
    *((5, 3, 7), (32, 64, 10), (7, 784, 12), (64, 33, 65), (2, 2, 2), (130, 257, 90)),
    *((1, 9, 5), (1, 64, 64), (5, 9, 1), (64, 100, 1), (1, 7, 1), (1, 1000, 1)),  # vectors
    *((5, 1, 7), (1, 1, 7), (7, 1, 1), (1, 1, 1)),  # one product for each number
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_two_matrices_as_by_dot(library, shape, dtype):
    height, inner, width = shape
    for order_1, order_2 in product("CF", repeat=2):
        x1 = numpy.asarray(drawn(height, inner, dtype=dtype), order=order_1)
        x2 = numpy.asarray(drawn(inner, width, dtype=dtype), order=order_2)
        assert as_by(numpy.dot, library, x1, x2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_of_matrices_as_by_matmul(library, shape, dtype):
    height, inner, width = shape
    for order_1, order_2, order in product("CF", repeat=3):
        x1 = within(drawn(height, inner, dtype=dtype), order_1)
        x2 = within(drawn(inner, width, dtype=dtype), order_2)
        result = within(numpy.zeros((height, width), dtype), order)
        assert as_by(numpy.matmul, library, x1, x2, result)
        around = numpy.isnan(result.base).sum()
        assert around == result.base.size - result.size  # nothing else was written


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(((9,), (9, 4)), ((4, 9), (9,)), ((9,), (9,)), ((1,), (1, 4)), ((4, 1), (1,))),
        *(((3, 5, 4), (3, 4, 6)), ((3, 5, 4), (4, 6)), ((5, 4), (3, 4, 6)), ((3, 1, 5, 4), (2, 4, 6))),
        *(
            ((2, 3, 1, 8), (2, 3, 8, 8)),
            ((2, 3, 8, 8), (8,)),
            ((8,), (2, 3, 8, 4)),
            ((2, 3, 1, 8), (3, 8, 1)),
        ),
        *(((2, 3, 4, 1), (2, 3, 1, 4)), ((2, 1, 3, 5, 4), (3, 1, 4, 1)), ((1, 5, 4), (1, 4, 6))),
    ],
)
def test_several_as_by_matmul(library, first, second, dtype):
    for x1, x2 in product(
        *((x, within(x)) for x in (drawn(*first, dtype=dtype), drawn(*second, dtype=dtype)))
    ):
        result = numpy.empty(numpy.matmul(x1, x2).shape, dtype)
        assert as_by(numpy.matmul, library, x1, x2, result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_of_attention(library, dtype):
    """Queries, keys and values are parts of one array, seen head by head."""
    x = drawn(3, 10, 3, 4, 8, dtype=dtype)  # batch, length, which, heads, width
    q, k, v = (x[:, :, which].transpose(0, 2, 1, 3) for which in range(3))
    weights = numpy.empty((3, 4, 10, 10), dtype)
    assert as_by(numpy.matmul, library, q, k.mT, weights)
    assert as_by(numpy.matmul, library, weights.mT, v)
    back = numpy.empty((3, 10, 4, 8), dtype).transpose(0, 2, 1, 3)
    assert as_by(numpy.matmul, library, weights, v, back)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_operand_that_is_repeated(library, dtype):
    """Repeated along an axis of several products, it is read again."""
    x1, x2 = numpy.broadcast_to(drawn(5, 4, dtype=dtype), (3, 5, 4)), drawn(3, 4, 6, dtype=dtype)[::-1]
    assert as_by(numpy.matmul, library, x1, x2)


def test_infinity_and_nan(library):
    x1 = numpy.asarray([[0, 1], [numpy.inf, 1], [numpy.nan, 1]], "float32")
    for x2 in ([[0, 2], [1, 0]], [[0], [1]]):
        x2 = numpy.asarray(x2, "float32")
        got = multiplied(library, x1, x2, numpy.empty((3, x2.shape[1]), "float32"))
        with numpy.errstate(invalid="ignore"):
            numpy.testing.assert_array_equal(got, x1 @ x2)


# -- what NumPy does ----------------------------------------------------------------------------------------


def refused(library, x1, x2, result=None):
    return not works_of(library, x1, x2, numpy.empty_like(x1 @ x2) if result is None else result)


def test_other_dtypes(library):
    x = numpy.ones((3, 3), "float32")
    for dtype in ("int64", "float16", "complex64", "bool"):
        assert refused(library, x.astype(dtype), x.astype(dtype))
    assert refused(library, x, x.astype("float64"))


def test_nothing_to_multiply(library):
    for first, second in [((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 2, 3), (0, 3, 4))]:
        assert refused(library, numpy.ones(first), numpy.ones(second))


def test_a_matrix_and_its_transpose(library):
    """NumPy computes half of it, so that it is symmetric to the last digit."""
    x = drawn(7, 5, dtype="float32")
    several = drawn(2, 7, 5, dtype="float32")
    assert refused(library, x, x.T)
    assert refused(library, x.T, x)
    assert refused(library, several, several.mT)
    assert not refused(library, x, x.T.copy())
    assert not refused(library, x[:, :1], x[:, :1].T)


def test_elements_that_blas_cannot_step_to(library):
    x, y = drawn(6, 6, dtype="float64"), drawn(6, 6, dtype="float64")
    for part in (
        x[::-1],
        x[:, ::-1],
        x[::2, ::2],
        numpy.broadcast_to(x[0], (6, 6)),
        numpy.broadcast_to(x[:, :1], (6, 6)),
    ):
        assert refused(library, part, y[: part.shape[1]])
        assert refused(library, y[:, : part.shape[0]], part)
    assert refused(library, x, y[::-1, 0])
    assert refused(library, x[0], y, numpy.empty(6)[::-1])
    assert refused(library, x, y, numpy.empty((12, 12))[::2, ::2])


def test_unaligned_steps(library):
    records = numpy.zeros((4, 4), [("number", "float32"), ("letter", "S1")])
    assert refused(library, records["number"], numpy.ones((4, 4), "float32"))


def test_a_result_over_an_operand(library):
    x, y = drawn(4, 4, dtype="float32"), drawn(4, 4, dtype="float32")
    assert refused(library, x, y, x)
    assert refused(library, x, y, y)


def test_sizes_that_integers_of_the_library_do_not_hold(library):
    small = library._replace(largest=9)
    assert works_of(small, *(numpy.ones((9, 9)) for _ in range(3)))
    assert not works_of(small, numpy.ones((9, 10)), numpy.ones((10, 9)), numpy.ones((9, 9)))
    assert not works_of(small, numpy.ones((9, 10))[:, :9], numpy.ones((9, 9)), numpy.ones((9, 9)))
    assert not works_of(small, numpy.ones(10), numpy.ones(10), numpy.ones(()))


# -- long ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("number", [2, 3, 8, 40])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(((900, 30), (30, 70)), ((70, 30), (30, 900)), ((300, 40), (40,)), ((40,), (40, 300))),
        *(((20, 9, 8), (8, 9)), ((2, 200, 30), (2, 30, 199)), ((900, 1), (1, 50))),
        *(((3, 2, 30, 8), (2, 8, 9)), ((500, 8), (8, 500))),
    ],
)
def test_a_product_is_done_in_pieces(library, first, second, by_columns, number):
    x1, x2 = whole(*first, dtype="float32"), whole(*second, dtype="float32")
    result = numpy.zeros_like(numpy.matmul(x1, x2))
    if by_columns and result.ndim > 1:
        result = result.mT.copy().mT
    (work,) = works_of(library, x1, x2, result)
    pieces, bounds = work.divided(number)
    assert 1 < len(pieces) <= number
    whole_time = work.piece(0, work.count).row.nanoseconds
    assert whole_time <= sum(piece.row.nanoseconds for piece in pieces) <= whole_time + number * products.CALL
    numpy.testing.assert_array_equal(multiplied(library, x1, x2, result, number), x1 @ x2)
    if bounds:
        again = work.cut(bounds)
        assert [piece.row.words for piece in pieces] == [piece.row.words for piece in again]


def test_a_long_product_has_enough_pieces(library):
    """Also where BLAS takes longer for them."""
    x1, x2, result = numpy.ones((130, 9000)), numpy.ones((9000, 150)), numpy.ones((130, 150))
    (work,) = works_of(library, x1, x2, result)
    pieces, _ = work.divided(2)
    assert len(pieces) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "LONGEST", work.nanoseconds / 7)
        pieces, _ = work.divided(2)
    assert len(pieces) >= 7
    assert max(piece.row.nanoseconds for piece in pieces) <= work.nanoseconds / 6


def test_what_cannot_be_done_in_parts(library, monkeypatch):
    monkeypatch.setattr(products, "LONGEST", 100)
    assert refused(library, numpy.ones(5_000), numpy.ones(5_000), numpy.empty(()))


# -- the library --------------------------------------------------------------------------------------------


def function_of_openblas(verb):
    """A function that gets, or sets, how many threads NumPy's OpenBLAS has; None of another library."""
    loaded = ctypes.CDLL(blas._multiarray_umath.__file__)
    names = (f"{prefix}openblas_{verb}_num_threads{end}" for prefix in ("scipy_", "") for end in ("64_", ""))
    return next((getattr(loaded, name) for name in names if hasattr(loaded, name)), None)


@pytest.fixture
def threads():
    """What says how many threads the library has."""
    return function_of_openblas("get") or pytest.skip("the library does not say how many threads it has")


def test_the_threads_of_the_caller_are_as_they_were(library, threads):
    """Before, after and, for another thread, during a replay."""
    before, seen, ended = threads(), set(), threading.Event()

    def look():
        while not ended.wait(1e-4):
            seen.add(threads())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        step = xpnet.jit(lambda x, y: (x @ y) @ (y + 1))
        x, y = drawn(2, 90, 90, dtype="float32")
        for _ in range(100):
            step(x, y)
            seen.add(threads())
    finally:
        ended.set()
        looking.join()
    assert seen == {before} == {threads()}


def put(result, found):
    result[...] = found


def functions_of_python(library, integer, put=put):
    """A library whose product of matrices of float32 is written in Python and takes integers of a type."""
    enum, pointer, number = ctypes.c_int, ctypes.POINTER(ctypes.c_float), ctypes.c_float
    of_c = ctypes.CFUNCTYPE(
        *(None, enum, enum, enum, integer, integer, integer, number, pointer, integer),
        *(pointer, integer, number, pointer, integer),
    )
    calls = []

    def matrix(address, height, width, step, transposed=111):
        if transposed == 112:
            return matrix(address, width, height, step).T
        return as_strided(numpy.ctypeslib.as_array(address, (1,)), (height, width), (4 * step, 4))

    @of_c
    def gemm(order, by_columns_1, by_columns_2, m, n, k, one, x1, step_1, x2, step_2, zero, result, step):
        calls.append((order, one, zero))
        found = matrix(x1, m, k, step_1, by_columns_1) @ matrix(x2, k, n, step_2, by_columns_2)
        put(matrix(result, m, n, step), found)

    address = ctypes.cast(gemm, ctypes.c_void_p).value
    return gemm, calls, library._replace(addresses=library.addresses | {("gemm", "float32"): address})


@pytest.mark.parametrize("integer", [ctypes.c_int32, ctypes.c_int64])
def test_integers_of_both_widths(library, integer):
    _alive, calls, other = functions_of_python(library, integer)
    assert products._wrong(other) == ""
    assert set(calls) == {(101, 1.0, 0.0)}


def off_by_one(result, found):
    result[...] = found
    result[-1, -1] += 1


def beside(result, found):
    result[...] = found
    as_strided(result, (len(result), result.shape[1] + 1), result.strides)[:, -1] = 0


def added(result, found):
    result *= 0  # which leaves NaN
    result += found


@pytest.mark.parametrize("put", [off_by_one, beside, added])
def test_a_library_with_other_results_is_not_used(library, monkeypatch, put):
    _alive, _calls, other = functions_of_python(library, ctypes.c_int64, put)
    monkeypatch.setattr(blas, "find", lambda: other)
    monkeypatch.setattr(blas, "without_threads", lambda: "there is none without threads")
    reason = products.library.__wrapped__()
    assert library.name in reason
    assert "than numpy.dot for matrices of float32 with the shapes (5, 3) and (3, 7)" in reason


def test_a_library_that_was_not_found_says_why(monkeypatch):
    for name in ("find", "without_threads"):
        monkeypatch.setattr(blas, name, lambda: "there is none")
    assert products.library.__wrapped__() == "there is none"


def test_without_numba(monkeypatch):
    monkeypatch.setattr(products.numba, "numba_is_there", lambda: False)
    assert products.library.__wrapped__() == "numba is not installed"
