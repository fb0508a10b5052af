import math
import operator

import array_api_compat
import numpy
import pytest
from helpers import array, assert_same

import xpnet
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import MixedArraysError


def tracked(f, *arrays):
    """Call ``f`` with traced arrays that have a gradient."""
    return xpnet.vjp(f, *arrays)[0]


# -- operators ----------------------------------------------------------------------------------------------

ARITHMETIC = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lt", "le", "gt", "ge", "eq", "ne"]
BITWISE = ["and_", "or_", "xor", "lshift", "rshift"]


@pytest.mark.parametrize("name", ARITHMETIC)
def test_operators(name, device):
    op = getattr(operator, name)
    x, y = array([1.5, 2.0, 3.0]), array([[2.0], [0.5]])
    assert_same(tracked(op, x, y), op(x, y))
    assert_same(tracked(lambda x: op(x, 2.0), x), op(x, 2.0))
    assert_same(tracked(lambda x: op(2, x), x), op(2, x))
    assert_same(tracked(lambda x: op(x, y), x), op(x, y))
    if device.library.spec == "strict":
        with pytest.raises(TypeError):
            tracked(lambda y: op(x, y), y)
        assert_same(tracked(lambda y: op(xpnet.trace(x), y), y), op(x, y))
    else:
        assert_same(tracked(lambda y: op(x, y), y), op(x, y))


def test_matrix_products(device):
    x, y = array([[1.0, 2.0], [3.0, 4.0]]), array([5.0, 6.0])
    assert_same(tracked(operator.matmul, x, y), x @ y)
    assert_same(tracked(lambda x: x @ y, x), x @ y)
    if device.library.spec != "strict":
        assert_same(tracked(lambda y: x @ y, y), x @ y)


@pytest.mark.parametrize("name", BITWISE)
def test_bitwise_operators(name, device):
    op = getattr(operator, name)
    x, y = array([5, 6, 7], "int64"), array([1, 2, 0], "int64")
    for result in (op(xpnet.trace(x), xpnet.trace(y)), op(xpnet.trace(x), y)):
        assert_same(result.value, op(x, y))
    assert_same(op(xpnet.trace(x), 1).value, op(x, 1))
    assert_same(op(1, xpnet.trace(y)).value, op(1, y))
    if device.library.spec != "strict":
        assert_same(op(x, xpnet.trace(y)).value, op(x, y))


def test_unary_operators(xp):
    x = array([1.5, -2.0])
    for op in (operator.neg, operator.pos, operator.abs):
        assert_same(tracked(op, x), op(x))
    i = array([1, 2], "int64")
    assert_same((~xpnet.trace(i)).value, ~i)


def test_numpy_numbers_are_numbers(xp):
    x = array([1.0, 2.0])
    number = numpy.float64(2.5)
    assert_same(tracked(lambda x: x * number, x), x * 2.5)
    assert_same(tracked(lambda x: x.__array_namespace__().add(number, x), x), x + 2.5)
    assert_same(tracked(lambda x: x[numpy.int64(1)] * numpy.int64(3), x), array(6.0))


@pytest.mark.parametrize("other", ["text", None, [1.0, 2.0]])
def test_operators_refuse_what_is_no_array(other, xp):
    with pytest.raises(TypeError, match="array or a Python number"):
        xpnet.trace(array([1.0, 2.0])) + other


# -- in place -----------------------------------------------------------------------------------------------

IN_PLACE = ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"]


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operators_rebind(name, xp):
    x, y = array([1.5, 2.0]), array([3.0, 0.5])
    op = getattr(operator, name)

    def f(x):
        before = x
        x = x * 1.0
        other = x
        x = op(x, y)
        assert (x is other) == hasattr(y, f"__{name}__")  # JAX says `x = x + y`
        return x, before

    result, before = tracked(f, x)
    assert_same(result, getattr(operator, name[1:])(x, y))
    assert_same(before, array([1.5, 2.0]))
    assert_same(x, array([1.5, 2.0]))


@pytest.mark.parametrize("name", ["iand", "ior", "ixor", "ilshift", "irshift"])
def test_in_place_bitwise_operators_rebind(name, xp):
    x, y = array([5, 6], "int64"), array([1, 3], "int64")
    expected = getattr(operator, {"iand": "and_", "ior": "or_"}.get(name, name[1:]))(x, y)
    assert_same(getattr(operator, name)(xpnet.trace(x), y).value, expected)
    assert_same(x, array([5, 6], "int64"))


def test_in_place_matrix_product(xp):
    m, x = array([[0.0, 1.0], [2.0, 0.0]]), array([[1.0, 2.0], [3.0, 4.0]])

    def f(x):
        y = x + 0
        y @= m
        return y.__array_namespace__().sum(y * x)

    _, gradient = xpnet.value_and_grad(f)(x)
    assert_same(gradient, x @ m + x @ m.T if hasattr(m, "T") else x)


def test_what_was_recorded_before_an_assignment_stays_right(xp):
    x = array([1.0, 2.0, 3.0])

    def f(x):
        xp = x.__array_namespace__()
        y = x * x
        z = xp.exp(y)
        y[0] = 10 * x[1]
        y += x
        x[1] = 0.0
        y *= x
        return xp.sum(z) + xp.sum(y)  # Σ exp(x²) + (10 x₁ + x₀) x₀ + (x₂² + x₂) x₂

    value, gradient = xpnet.value_and_grad(f)(x)
    a, b, c = 1.0, 2.0, 3.0
    e = 2 * numpy.asarray([a, b, c]) * numpy.exp(numpy.asarray([a, b, c]) ** 2)
    assert_same(value, array(numpy.exp([1.0, 4.0, 9.0]).sum() + (10 * b + a) * a + (c * c + c) * c))
    assert_same(gradient, array(e + numpy.asarray([10 * b + 2 * a, 10 * a, 3 * c * c + 2 * c])))
    assert_same(x, array([1.0, 2.0, 3.0]))


def test_arrays_of_the_caller_are_never_written_to(xp):
    x, y = array([1.0, 2.0]), array([5.0, 6.0])

    def f(x, y):
        x[0] = 7.0
        y += x
        z = y.__array_namespace__().asarray(y)
        z[1] = 0.0
        return y[0] + x[1]

    xpnet.grad(f, (0, 1))(x, y)
    xpnet.grad(f)(x, y)
    assert_same(x, array([1.0, 2.0]))
    assert_same(y, array([5.0, 6.0]))


def test_a_constant_array_that_is_filled_gets_a_gradient(xp):
    def f(x):
        xp = x.__array_namespace__()
        filled = xp.zeros(3, dtype=x.dtype, device=x.device)
        for i in range(3):
            filled[i] = x[i] ** (i + 1)
        return xp.sum(filled)

    assert_same(xpnet.grad(f)(array([2.0, 3.0, 4.0])), array([1.0, 6.0, 48.0]))


@pytest.mark.parametrize("y", [[1.0, 2.0], [2.5]])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("other", ["int64", "float32", "float64"])
@pytest.mark.parametrize("name", ["iadd", "imul", "itruediv", "ipow"])
def test_assignment_in_place_is_that_of_the_library(xp, name, dtype, other, y):
    operate, start = getattr(operator, name), array([1], dtype)
    y = array(y, other)

    def result(x):
        try:
            return operate(x, y)
        except Exception as error:
            return type(error)

    expected, traced = result(xp.asarray(start, copy=True)), xpnet.trace(start)
    actual = result(traced)
    if isinstance(expected, type):
        assert actual is expected
        assert_same(traced.value, start)
        with pytest.raises(expected) as raised:
            operate(xpnet.trace(start), y)
        assert not hasattr(raised.value, "__notes__") or "x = x + y" in raised.value.__notes__[0]
    else:
        assert_same(actual.value, expected)


# -- attributes ---------------------------------------------------------------------------------------------


def test_attributes_are_those_of_the_wrapped_array(device):
    x = array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

    def f(t):
        assert t.shape == x.shape
        assert t.ndim == 2
        assert t.dtype == x.dtype
        assert t.size == 6
        assert t.device == array_api_compat.device(x)
        assert array_api_compat.device(t) == array_api_compat.device(x)
        assert array_api_compat.size(t) == 6
        assert array_api_compat.is_array_api_obj(t)
        return t

    assert_same(tracked(f, x), x)
    assert_same(tracked(lambda t: t.T, x), array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]))
    assert_same(tracked(lambda t: t.mT, x), array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]))
    assert_same(tracked(lambda t: t.to_device(t.device), x), x)
    with pytest.raises(ValueError, match="2 axes, received 1"):
        xpnet.trace(x)[0, :].T  # noqa: B018


def test_the_namespace_is_always_the_same_object(xp):
    seen = []

    def f(x):
        y = x.__array_namespace__().exp(x)
        seen.extend(
            [x.__array_namespace__(), array_api_compat.array_namespace(x, y), xpnet.array_namespace(y)]
        )
        return y

    tracked(f, array([1.0]))
    seen.append(array_api_compat.array_namespace(xpnet.trace(array([1, 2], "int64"))))
    assert all(namespace is seen[0] for namespace in seen)
    assert seen[0] is not xp


def test_repr_shows_the_value_and_the_function():
    x = numpy.asarray([1.0, 2.0])
    texts = []

    def f(x):
        y = x.__array_namespace__().exp(x)
        texts.extend([repr(y), repr(y.node), repr(y.node.primitive), repr(x.__array_namespace__())])
        return y

    tracked(f, x)
    assert texts[0] == "<traced array([2.71828183, 7.3890561 ]) made by exp>"
    assert texts[1].endswith(": exp -> float64[2])")
    assert texts[2] == "Primitive(exp)"
    assert texts[3] == "<xpnet.traced.array_api_compat.numpy>"
    assert repr(xpnet.trace(x)) == "<traced array([1., 2.])>"


def test_len_and_iteration(xp):
    x = array([[1.0, 2.0], [3.0, 4.0]])

    def f(x):
        assert len(x) == 2
        first, second = x
        assert sum(1 for _ in x) == 2
        return first * second

    result, pullback = xpnet.vjp(f, x)
    assert_same(result, array([3.0, 8.0]))
    assert_same(pullback(array([1.0, 10.0]))[0], array([[3.0, 40.0], [1.0, 20.0]]))
    number = xpnet.trace(array(1.0))
    with pytest.raises(TypeError, match="at least 1 axis"):
        len(number)
    with pytest.raises(TypeError, match="at least 1 axis"):
        iter(number)


def test_a_traced_array_has_no_hash():
    with pytest.raises(TypeError, match="unhashable"):
        hash(xpnet.trace(numpy.ones(1)))


# -- leaving the record -------------------------------------------------------------------------------------


def test_numpy_functions_take_values_without_a_gradient():
    x = xpnet.trace(numpy.ones(2))
    assert_same(numpy.exp(x), numpy.exp(numpy.ones(2)))
    assert_same(numpy.concatenate([x, numpy.zeros(1)]), numpy.asarray([1.0, 1.0, 0.0]))


def test_values_without_a_gradient_can_leave(xp):
    def f(x):
        constant = xpnet.stop_gradient(x)
        assert float(constant) == 2.0
        assert complex(constant) == 2.0
        xp = x.__array_namespace__()
        whole = xp.astype(x, xp.int64)
        assert int(whole) == 2
        assert [10, 11, 12][whole] == 12
        return x * float(constant)

    assert_same(xpnet.grad(f)(array(2.0)), array(2.0))


def test_plain_numpy_arrays_come_from_values_without_a_gradient():
    x = numpy.asarray([1.0, 2.0])
    assert_same(numpy.asarray(xpnet.trace(x)), x)
    assert_same(numpy.asarray(xpnet.trace(x), dtype="float32"), x.astype("float32"))
    assert_same(numpy.from_dlpack(xpnet.trace(x)), x)


# What Python and NumPy ask of a number.
PROTOCOLS = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "operator.index": operator.index,
    "range": range,
    "a list": lambda x: [10, 11, 12, 13][x],
    "a slice of a list": lambda x: [10, 11, 12, 13][x:],
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "math.gcd": lambda x: math.gcd(x, 4),
    "hex": hex,
    "len": len,
    "hash": hash,
    "list": list,
    "reversed": reversed,
    "numpy.from_dlpack": lambda x: numpy.from_dlpack(x).tolist(),
    "__dlpack_device__": lambda x: tuple(map(int, x.__dlpack_device__())),
    "numpy.asarray": lambda x: numpy.asarray(x).tolist(),
    "a format": lambda x: f"{x:5.2f}",
    "None in a tuple": lambda x: None in (x, 1),
    "a text in a tuple": lambda x: "text" in (x, 1),
}


def outcome(f, x):
    """Return what a function returns, or the class of its error."""
    try:
        return f(x)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("kind", [numpy.asarray, numpy.float64, numpy.int64])
def test_numbers_without_a_gradient_do_what_numpys_arrays_do(name, kind):
    f, x = PROTOCOLS[name], kind(2.5)
    expected, actual = outcome(f, numpy.asarray(x)), outcome(f, xpnet.trace(x))
    assert actual == expected
    assert type(actual) is type(expected)


@pytest.mark.parametrize(
    "name", ["operator.index", "range", "a list", "a slice of a list", "math.gcd", "hex"]
)
def test_what_is_no_integer_is_no_index(name, xp):
    for x in (array(2.0), array([1.0, 2.0]), xp.sum(array([1.0, 2.0])), array([1, 2], "int64")):
        with pytest.raises(TypeError):
            PROTOCOLS[name](xpnet.trace(x))


def test_sums_are_exported(xp):
    """NumPy's sums are numbers, which have no `__dlpack__`."""
    x = xpnet.trace(array([1.0, 2.0]))
    total = x.__array_namespace__().sum(x)
    assert float(x.__array_namespace__().from_dlpack(total)) == 3.0
    if xpnet.device().spec != "strict:device1":
        assert_same(numpy.from_dlpack(total), numpy.asarray(3.0))
    assert total.__dlpack_device__() == x.__dlpack_device__()
    integer = x.__array_namespace__().argmax(x)
    assert operator.index(integer) == 1
    assert range(integer) == range(1)
    assert [10, 11, 12][integer] == 11
    assert [10, 11, 12][integer:] == [11, 12]


def test_numbers_are_rounded(xp):
    x = xpnet.trace(array(2.456))
    assert round(x) == 2
    assert type(round(x)) is int
    assert abs(round(x, 1) - 2.5) < 1e-6
    assert round(x.__array_namespace__().argmax(xpnet.trace(array([1.0, 2.0])))) == 1


@pytest.mark.parametrize("wrap", [xpnet.trace, lambda x: xpnet.grad(lambda x: f"{x:.2f}")(x)])
def test_the_format_of_a_number_is_for_one_number(wrap, xp):
    assert f"{xpnet.trace(array([1.0])):>200}".startswith("  ")
    with pytest.raises(TypeError, match=r"'\.2f' needs one number, received an array of shape \(2,\)"):
        f"{wrap(array([1.0, 2.0])):.2f}"


def test_nothing_can_be_deleted_from_an_array(xp):
    with pytest.raises(TypeError, match=r"no element of an array can be deleted, received the key 0"):
        del xpnet.trace(array([1.0, 2.0]))[0]


@pytest.mark.parametrize("other", [None, "text"])
def test_an_array_is_unlike_what_is_no_number(other, xp):
    x = xpnet.trace(array([1.0, 2.0]))
    assert (x == other) is False
    assert (other == x) is False
    assert (x != other) is True
    assert other not in (x, 1)
    assert xpnet.grad(lambda x: x * 2 if x != other else x)(array(3.0)) == 2.0
    with pytest.raises(TypeError, match="array or a Python number"):
        x < other  # noqa: B015


def test_branches_on_values(xp):
    def f(x):
        total = 0 * x
        while total < 10:
            total = total + x * x if x > 0 else total - x
        return total

    assert_same(xpnet.grad(f)(array(2.0)), array(12.0))
    assert_same(xpnet.grad(f)(array(-4.0)), array(-3.0))
    assert bool(xpnet.trace(array(True, "bool")))


# -- arrays of two libraries --------------------------------------------------------------------------------


def test_arrays_of_another_library_are_refused(device):
    spec, other = ("strict", "array-api-strict") if device.spec == "cpu" else ("cpu", "NumPy on cpu")
    y = xpnet.asarray(numpy.ones(2), device=spec)
    here = {
        "cpu": "numpy",
        "strict": "array_api_strict",
        "cuda": "cupy",
        "torch": "torch",
        "jax": "jax.numpy",
    }
    message = rf"one of {here[device.library.spec]} and.*{other}.*xpnet\.to_device"
    for f in (
        lambda x: x + y,
        lambda x: x.__array_namespace__().multiply(y, x),
        lambda x: x.__array_namespace__().concat([x, y]),
        lambda x: x + xpnet.trace(y),
        lambda x: x.__array_namespace__().exp(xpnet.trace(y)),
        lambda x: x.__array_namespace__().sum(y),
    ):
        with pytest.raises(MixedArraysError, match=message):
            xpnet.grad(f)(array([1.0, 2.0]))


def test_a_tracer_of_one_type_only():
    assert type(xpnet.trace(numpy.ones(1))) is Tracer


def test_methods_that_the_standard_lacks_are_named(xp):
    with pytest.raises(
        AttributeError, match=r"no method sum. Write xp\.sum\(x\), with xp = xpnet\.array_namespace"
    ):
        xpnet.grad(lambda x: (x * x).sum())(array([1.0]))
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        _ = xpnet.trace(array([1.0])).no_such_thing
