"""Each function has one row, whose texts compute what it computes, and whose decomposition does."""

import inspect
import math

import array_api_compat.numpy
import numpy
import pytest
from helpers import rounding

import xpnet
from xpnet.autodiff import context, extended_namespace
from xpnet.autodiff.primitive import PRIMITIVES, unary
from xpnet.replay.decompositions import DECOMPOSITIONS, IN_DTYPE_OF_RESULT
from xpnet.replay.functions import FUNCTIONS, ROWS, Function, floats

NUMBERS = [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, -0.5, 1e-8, -1e-30, 40.0]
INTEGERS = [0, 1, -1, 2, -3, 5, 100]


def pairs(values, dtype):
    """Return all pairs of some numbers, as two arrays."""
    return (x.reshape(-1) for x in numpy.meshgrid(*[numpy.asarray(values, dtype)] * 2))


def standard(name):
    """Return NumPy's function of a name."""
    xp = extended_namespace(numpy.zeros(1))
    for part in name.split("."):
        xp = getattr(xp, part)
    return xp


# -- the table --------------------------------------------------------------------------------------------


def test_a_function_has_one_row():
    assert len(FUNCTIONS) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_kind_is_explained(row):
    assert f'"{row.kind}"' in inspect.getdoc(Function)


@pytest.mark.parametrize("row", [row for row in ROWS if row.python], ids=lambda row: row.name)
def test_an_element_in_python_is_what_numpy_computes(row):
    dtype = {"bitwise": "int64", "logical": bool}.get(row.name.partition("_")[0], "float64")
    names = vars(numpy) | {"abs": numpy.abs}
    x, y = pairs({bool: [False, True], "int64": INTEGERS, "float64": NUMBERS}[dtype], dtype)
    arguments = (x, y) if "{1}" in row.python else (x,)
    if row.name == "where":
        arguments = (x > y, x, y)
    elif row.name == "astype":
        arguments = (x, x.dtype)
    with numpy.errstate(all="ignore"):
        expected = standard(row.name)(*arguments)
        texts = [[f"{name}[{i}]" for name in "abc"] for i in range(len(x))]
        given = dict(zip("abc", arguments, strict=False))
        found = [eval(row.python.format(*each), names, given) for each in texts]
    digits = rounding(4, "float64") if row.kind in ("elementary", "transcendental") else 0
    numpy.testing.assert_allclose(numpy.asarray(found, expected.dtype), expected, rtol=digits)


@pytest.mark.parametrize("row", [row for row in ROWS if row.onnx], ids=lambda row: row.name)
def test_an_operator_is_one_of_onnx_and_is_read(row):
    onnx = pytest.importorskip("onnx")
    from xpnet.onnx.nodes import NODES

    for operator in row.operators.values():
        assert onnx.defs.has(operator)
        assert operator in NODES


# -- decompositions ---------------------------------------------------------------------------------------

# Where the digits of 1 are those of the result: log(1 + x) is not log1p(x) near 0.
ROUNDED = {"expm1", "log1p", "logaddexp", "special.log1p", "special.logit", "special.erfc", "special.ndtr"}
# Where what it is computed with has no number and the function has one: a - floor(a / b) b of infinity, say.
POSITIVE = {"floor_divide", "hypot", "logaddexp", "remainder", "special.entr", "special.kl_div"}
POSITIVE |= {"special.rel_entr", "special.xlog1py", "special.xlogy"}


def of_elements():
    """The decompositions of elementwise functions of floating-point numbers, with numbers of arguments."""
    for name, decompose in DECOMPOSITIONS.items():
        of_norm = name.endswith("norm")
        other = name in ("signbit", "square", "trunc", "remainder", "floor_divide", "isfinite", "not_equal")
        if other or (name in IN_DTYPE_OF_RESULT and not of_norm):
            yield name, decompose


@pytest.mark.parametrize(("name", "decompose"), list(of_elements()))
def test_a_decomposition_is_the_function_for_zeros_infinity_and_nan(name, decompose):
    if name.startswith("special"):
        pytest.importorskip("scipy")
    xp = extended_namespace(numpy.zeros(1))
    arrays = list(pairs([0.0, 0.5, 1.0, 2.5, 40.0] if name in POSITIVE else NUMBERS, "float64"))
    if name == "atan2":
        arrays = [x[~numpy.isnan(arrays[1])] for x in arrays]
    with numpy.errstate(all="ignore"):
        try:
            found = decompose(xp, *arrays)
        except TypeError:  # of one array
            arrays = arrays[:1]
            found = decompose(xp, *arrays)
        expected = standard(name)(*arrays)
    assert found.dtype == expected.dtype
    near = rounding(4, "float64") if name in ROUNDED else 0
    numpy.testing.assert_allclose(found, expected, rtol=rounding(100, "float64"), atol=near)
    if name in ("atan2", "copysign"):
        is_number = ~numpy.isnan(expected)
        numpy.testing.assert_array_equal(numpy.signbit(found[is_number]), numpy.signbit(expected[is_number]))


X = numpy.random.default_rng(0).normal(size=(4, 3, 3))
OTHERS = {
    "all": ([X > -1], {"axis": 1}),
    "any": ([X], {"axis": (0, 2), "keepdims": True}),
    "bitwise_left_shift": ([numpy.arange(-4, 4), numpy.arange(8)], {}),
    "bitwise_right_shift": ([numpy.arange(-99, 99, 25), numpy.arange(8)], {}),
    "broadcast_arrays": ([X, X[0], X[0, 0]], {}),
    "clip": ([X, -0.5, 0.5], {}),
    "conj": ([X], {}),
    "count_nonzero": ([X > 0], {"axis": 1}),
    "linalg.cross": ([X, X[::-1]], {"axis": 1}),
    "linalg.diagonal": ([X], {"offset": -1}),
    "diff": ([X], {"axis": 1, "n": 2, "append": X}),
    "flip": ([X], {"axis": (0, -1)}),
    "full": ([(2, 3), X[0, 0, 0]], {}),
    "full_like": ([X, 3.0], {}),
    "isin": ([numpy.round(X), numpy.asarray([0.0, 1.0])], {"invert": True}),
    "linspace": ([X[0, 0, 0], 3.0, 5], {"endpoint": False}),
    "linalg.matrix_norm": ([X], {"ord": -math.inf, "keepdims": True}),
    "linalg.matrix_power": ([X, 5], {}),
    "meshgrid": ([X[0, 0], X[:, 0, 0], X[0, :, 0]], {}),
    "linalg.outer": ([X[0, 0], X[:, 0, 0]], {}),
    "real": ([X], {}),
    "repeat": ([X, 3], {"axis": -1}),
    "searchsorted": ([numpy.sort(X[0, 0]), X], {"side": "right"}),
    "stack": ([[X, X]], {"axis": -1}),
    "linalg.trace": ([X], {"offset": 1}),
    "unstack": ([X], {"axis": 1}),
    "vecdot": ([X, X], {"axis": 1}),
    "linalg.vector_norm": ([X], {"axis": (0, 1), "ord": 3}),
}


def test_all_decompositions_are_tried():
    tried = {name.removeprefix("linalg.") for name in OTHERS} | {name for name, _ in of_elements()}
    assert tried == DECOMPOSITIONS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_a_decomposition_is_the_function(name):
    arguments, options = OTHERS[name]
    xp = extended_namespace(X)
    found = DECOMPOSITIONS[name.removeprefix("linalg.")](xp, *arguments, **options)
    expected = standard(name)(*arguments, **options)
    several = isinstance(expected, tuple | list)
    near = rounding(100, "float64")
    for one, other in zip(found, expected, strict=True) if several else [(found, expected)]:
        numpy.testing.assert_allclose(one, other, rtol=near, atol=near)


# -- a new function ---------------------------------------------------------------------------------------


@pytest.fixture
def softsign(monkeypatch):
    """A function that the library has and xpnet has not: with a row and a rule, it has it, too."""
    monkeypatch.setattr(array_api_compat.numpy, "softsign", lambda x: x / (1 + abs(x)), raising=False)
    row = Function(
        "softsign",
        python="{0} / (1 + fabs({0}))",
        c=floats("{0} / (1 + fabs({0}))"),
        onnx="Softsign",
    )
    monkeypatch.setitem(FUNCTIONS, row.name, row)
    unary("softsign", lambda xp, g, _y, x: g / (1 + xp.abs(x)) ** 2)
    with context.using():  # others may have been made before there was a rule
        yield lambda x: xpnet.array_namespace(x).softsign(x)
    del PRIMITIVES["softsign"]


def test_a_new_function_is_a_row_and_a_rule(softsign, record):
    x = numpy.linspace(-3, 3, 24)
    recorded = record(lambda x: softsign(x) * 2 + 1, x)
    assert recorded.names == ["softsign", "multiply", "add"]
    recorded.check([x], [x / 7])


@pytest.mark.plans("numba", "cuda")
def test_a_new_function_is_a_part_of_kernels(softsign, record):
    x = numpy.linspace(-3, 3, 24)
    recorded = record(lambda x: softsign(x) * 2 + 1, x)
    assert recorded.steps == ["softsign_multiply_add"]
    (kernel,) = recorded.kernels
    assert "fabs" in kernel
    recorded.check([x], [x / 7])
    alone = record(softsign, x.reshape(4, 6).T)
    alone.check([x.reshape(6, 4)], [x.reshape(4, 6).T])


def test_a_new_function_has_a_gradient(softsign):
    x = numpy.linspace(-3, 3, 24)
    loss = lambda x: xpnet.array_namespace(x).sum(softsign(x))
    xpnet.check_gradients(loss, x)
    expected = 1 / (1 + abs(x)) ** 2
    for gradient in (xpnet.grad(loss), xpnet.jit(xpnet.grad(loss))):
        numpy.testing.assert_allclose(gradient(x), expected, rtol=rounding(10, "float64"))


def test_a_new_function_is_exported(softsign, tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    from xpnet.onnx import export, load

    path, x = tmp_path / "net.onnx", numpy.linspace(-3, 3, 24, dtype="float32")
    export(softsign, x, path)
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Softsign"]
    (found,) = ReferenceEvaluator(str(path)).run(None, {"input": x})
    for y in (found, load(path)(x)):
        numpy.testing.assert_allclose(y, softsign(x), rtol=rounding(10, "float32"))
