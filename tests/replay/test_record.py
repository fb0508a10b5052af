"""What a recording takes in: sizes, arrays from outside, and what it refuses with the line of the user's."""

import copy
import json
import math
import operator
import os
import pickle

import numpy
import pytest
from helpers import array, assert_same, rounding

import xpnet
from xpnet import nn, tree
from xpnet.errors import MixedArraysError, NotRecordableError
from xpnet.replay.graph import Variable
from xpnet.replay.record import RecordingNamespace

THIS = os.path.basename(__file__)


def namespace(x):
    return xpnet.array_namespace(x)


# -- sizes, axes, counts and bounds of slices ---------------------------------------------------------------

# Functions of 16 numbers and an integer, which must be the same on each replay.
SIZES = {
    "reshape": lambda xp, x, n: xp.reshape(x, (n, -1)),
    "broadcast_to": lambda xp, x, n: xp.broadcast_to(x, (n, 16)),
    "broadcast_shapes": lambda xp, x, n: xp.broadcast_to(x, (n, *x.shape)),
    "expand_dims": lambda xp, x, n: xp.expand_dims(xp.reshape(x, (2, 2, 2, 2)), axis=n),
    "squeeze": lambda xp, x, n: xp.squeeze(xp.reshape(x, (4, 4, 1, 1, 1)), axis=n),
    "sum": lambda xp, x, n: xp.sum(xp.reshape(x, (1, 2, 2, 2, 2)), axis=n),
    "concat": lambda xp, x, n: xp.concat([xp.reshape(x, (1, 2, 2, 2, 2))] * 2, axis=n),
    "moveaxis": lambda xp, x, n: xp.moveaxis(xp.reshape(x, (1, 2, 2, 2, 2)), n, 0),
    "flip": lambda xp, x, n: xp.flip(xp.reshape(x, (1, 2, 2, 2, 2)), axis=n),
    "tile": lambda xp, x, n: xp.tile(x, (n,)),
    "roll": lambda xp, x, n: xp.roll(x, n),
    "repeat": lambda xp, x, n: xp.repeat(x, n),
    "tril": lambda xp, x, n: xp.tril(xp.reshape(x, (4, 4)), k=n),
    "diff": lambda xp, x, n: xp.diff(x, n=n),
    "var": lambda xp, x, n: xp.var(x, correction=n),
    "vector_norm": lambda xp, x, n: xp.linalg.vector_norm(x, ord=n),
    "matrix_power": lambda xp, x, n: xp.linalg.matrix_power(xp.reshape(x, (4, 4)) / 9, n),
    "diagonal": lambda xp, x, n: xp.linalg.diagonal(xp.reshape(x, (2, 8)), offset=n),
    "tensordot": lambda xp, x, n: xp.tensordot(*[xp.reshape(x, (2, 2, 2, 2))] * 2, axes=n),
    "ones": lambda xp, x, n: xp.ones((n, 16), dtype=x.dtype, device=x.device) * x,
    "full": lambda xp, x, n: xp.full((n, 16), 2.0, dtype=x.dtype, device=x.device) * x,
    "arange": lambda xp, x, n: xp.arange(n, dtype=x.dtype, device=x.device) * x[0],
    "eye": lambda xp, x, n: xp.matmul(xp.eye(16, k=n, dtype=x.dtype, device=x.device), x),
    "linspace": lambda xp, x, n: xp.linspace(0.0, 1.0, n, dtype=x.dtype, device=x.device) * x[0],
    "rfft": lambda xp, x, n: xp.real(xp.fft.rfft(x, n=n)),
    "a slice": lambda xp, x, n: x[n:],
    "a slice of several": lambda xp, x, n: xp.reshape(x, (4, 4))[:n, ::n],
    "range": lambda xp, x, n: sum((x * i for i in range(n)), start=x),
    "a list": lambda xp, x, n: xp.reshape(x, tuple([1] * n + [16])),
    "operator.index": lambda xp, x, n: xp.reshape(x, (operator.index(n), -1)),
    "a list of layers": lambda xp, x, n: [x, x + 1, x + 2, x + 3, x * 2][n],
}


def loss(f):
    """Return the gradient of a function, which reads sizes as well."""

    def gradient(x, n):
        def total(x):
            y = f(namespace(x), x, n)
            return namespace(y).sum(y * y)

        return xpnet.grad(total)(x)

    return gradient


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("name", SIZES)
def test_a_number_of_the_host_that_is_a_size_is_compared(name, gradient, device):
    f = loss(SIZES[name]) if gradient else lambda x, n: SIZES[name](namespace(x), x, n)
    x, calls = array(numpy.linspace(0.5, 2, 16)), []

    def counted(x, n):
        calls.append(n)
        return f(x, n)

    recorded = xpnet.jit(counted)
    for n in (2, 4, 2, 4):
        expected = f(x, n)
        assert_same(recorded(x, numpy.int64(n)), expected, tolerance=rounding(100, "float64", 16))
        if device.library.spec == "cpu":
            assert_same(recorded(x, numpy.asarray(n)), expected, tolerance=rounding(100, "float64", 16))
    assert len(calls) == 2


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("name", SIZES)
def test_a_number_of_numpys_from_outside_is_recorded_as_one_of_pythons(name, gradient, device):
    f = loss(SIZES[name]) if gradient else lambda x, n: SIZES[name](namespace(x), x, n)
    x = array(numpy.linspace(0.5, 2, 16))

    def described(value):
        """Describe what a function was called with, of each array the shape."""
        if isinstance(value, list | tuple):
            return [described(item) for item in value]
        if isinstance(value, dict):
            return {key: described(item) for key, item in value.items()}
        return (value.shape, value.dtype) if tree.is_array(value) or type(value) is Variable else repr(value)

    def recorded(n):
        replay = xpnet.jit(lambda x: f(x, n))
        replay(x)
        operations = replay._replays[0].plan.graph.operations
        return [described([each.name, each.arguments, each.options]) for each in operations]

    for number in (numpy.int64(2), numpy.uint8(2), numpy.asarray(2)):
        if name == "a list" and type(number) is numpy.ndarray:
            continue  # which multiplies the list
        assert recorded(number) == recorded(2)


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("name", SIZES)
def test_an_array_that_is_a_size_is_refused(name, gradient, device):
    f = loss(SIZES[name]) if gradient else lambda x, n: SIZES[name](namespace(x), x, n)
    x = array(numpy.linspace(0.5, 2, 16))

    def argument(x, n):
        return f(x, n)

    def computed(x, n):
        return f(x, n + 1)

    def at_hand(x, n):
        return f(x, namespace(x).argmax(x))

    # A number of the host, which NumPy calls an array, is compared; what is computed from it is not.
    wrong = [computed, at_hand] if device.library.spec == "cpu" else [argument, computed, at_hand]
    for function in wrong:
        for n in (2, 3):
            with pytest.raises(NotRecordableError, match=r"Python (integer|branch)") as raised:
                xpnet.jit(function)(x, array(n, "int64"))
            assert THIS in str(raised.value)


def test_sizes_and_data_are_told_apart(xp):
    x, n = array(numpy.arange(6.0)), numpy.int64(2)

    def f(x, n):
        xp = namespace(x)
        rows = xp.reshape(x, (n, 3))
        return x[n] + rows[n - 1, 0], xp.full((3,), n), xp.broadcast_to(n, (n,)), xp.where(x > n, x, n)

    if type(x) is not numpy.ndarray:
        pytest.skip("only NumPy's numbers are arrays")
    recorded, calls = xpnet.jit(f), []
    for number in (n, n):
        for one, other in zip(recorded(x, number), f(x, number), strict=True):
            assert_same(one, other)
    recording = RecordingNamespace(xp)
    both = recording.argument(n)
    recording.record(lambda n: namespace(n).broadcast_to(n, (n,)), both)
    assert recording.settings == {both.variable: 2}
    (operation,) = recording.operations
    assert (operation.arguments, operation.options) == ((both.variable, (2,)), {})
    indexed = xpnet.jit(lambda x, n: calls.append(n) or x[n] * n)
    for number in (0, 3, 5):
        assert_same(indexed(x, numpy.asarray(number)), x[number] * number)
    assert len(calls) == 1  # an index is data


def test_a_size_among_the_attributes_of_a_module(device):
    class Rows(nn.Module):
        def __init__(self):
            self.n = numpy.int64(2)

        def __call__(self, x):
            return namespace(x).reshape(x, (x.shape[0], self.n, -1))

    net, x, recorded = Rows(), array(numpy.ones((3, 4))), xpnet.jit(lambda net, x: net(x))
    for n in (2, 4, 2):
        net.n = numpy.int64(n)
        assert recorded(net, x).shape == xpnet.predict(net, x).shape == (3, n, 4 // n)


def test_a_size_of_the_function_around_is_refused():
    def outer(x, n):
        return xpnet.scan(lambda c, e: (c, namespace(e).reshape(e, (n, -1))), x[0], x)[1]

    with pytest.raises(NotRecordableError, match="as an argument"):
        xpnet.jit(outer)(numpy.ones((3, 4)), numpy.int64(2))


# -- arrays from outside ------------------------------------------------------------------------------------


@pytest.mark.plans("numba", "numpy")
@pytest.mark.usefixtures("kind_of_plan")
@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
def test_arrays_from_outside_are_copied(gradient, xp):
    W, b, c = array([0.1, 0.2, 0.3]), array([1.0, 2.0, 3.0]), array(numpy.arange(6.0).reshape(2, 3))

    def f(x):
        xp = namespace(x)
        rows = xp.reshape(xp.permute_dims(c, (1, 0)), (2, 3))[1, ...] + xp.asarray(b)
        return xp.exp(x * W) * (b + b) + x * c[0, ...] + x * rows + xp.concat([b, W])[1:4]

    x = array([1.0, 2.0, 3.0])
    g = xpnet.grad(lambda x: namespace(x).sum(f(x))) if gradient else f
    recorded, expected = xpnet.jit(g), g(x)
    assert_same(recorded(x), expected)
    try:
        for constant in (W, b, c):
            constant[...] = 7.0
    except TypeError:
        pytest.skip("arrays that cannot be written to")
    for _ in range(2):
        assert_same(recorded(x), expected)


def test_a_buffer_that_is_written_while_recording(xp):
    x = array([1.0, 2.0])
    if not hasattr(type(x), "__setitem__") or "jax" in xp.__name__:
        pytest.skip("arrays that cannot be written to")

    def f(x):
        y, buffer = x * 0, array([0.0, 0.0])
        for i in range(4):
            buffer[...] = i - 1.0
            y = y + x * buffer
            buffer[...] = -buffer  # -0.0 and 0.0 are equal, and not the same
            y = y + namespace(x).copysign(x, buffer)
        return y

    recorded = xpnet.jit(f)
    for _ in range(3):
        assert_same(recorded(x), f(x))


def test_an_array_that_is_used_often_is_copied_once(xp):
    table, seen = array(numpy.arange(1000.0)), []
    namespace_of = RecordingNamespace(xp)

    def f(x):
        for _ in range(5):
            seen.append(namespace_of.lift(table).value)
        return x

    namespace_of.record(f, None)
    assert all(x is seen[0] for x in seen)


def test_results_that_are_constants_belong_to_the_caller(xp):
    table = array([1.0, 2.0])

    def f(x):
        xp = namespace(x)
        return x + 1, table, xp.zeros(2), xp.asarray(table), xp.ones(())

    recorded, x = xpnet.jit(f), array([3.0, 4.0])
    expected = [xpnet.to_numpy(y).copy() for y in recorded(x)]
    for _ in range(3):
        for y, value in zip(recorded(x), expected, strict=True):
            assert_same(y, value)
            if "jax" not in xp.__name__:
                y[...] = 9.0
        assert_same(table, [1.0, 2.0])
    if "jax" not in xp.__name__:
        table[...] = 5.0
        assert_same(recorded(x)[1], expected[1])


def test_an_owned_array_is_refused_by_name(xp):
    weight, other = array([[1.0, 2.0], [3.0, 4.0]]), array([1.0, 2.0])
    recording = RecordingNamespace(xp)
    recording.owned[id(weight)] = "layers.0.weight of the Sequential `net`"
    x = recording.argument(other)
    assert_same(recording.record(lambda x: x + other, x).value, other + other)
    for f in (lambda x: x @ weight, lambda x: namespace(x).sum(weight)):
        with pytest.raises(
            NotRecordableError, match=r"layers\.0\.weight of the Sequential `net`.*argument"
        ) as e:
            recording.record(f, x)
        assert THIS in str(e.value)
    if type(weight) is numpy.ndarray:
        with pytest.raises(NotRecordableError, match=r"layers\.0\.weight"):
            recording.record(lambda x: x @ weight.T[:, :], x)


def test_arrays_of_another_library_are_refused():
    with pytest.raises(MixedArraysError, match="numpy and array-api-strict"):
        xpnet.jit(lambda x: x * xpnet.asarray([1.0], device="strict"))(numpy.ones(1))
    with pytest.raises(MixedArraysError, match=r"a recorded array stays with its library.*return the array"):
        xpnet.jit(lambda x: xpnet.to_device(x, "strict"))(numpy.ones(1))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, spec: xpnet.to_device({"x": x}, spec)["x"] + 1,
        lambda x, spec: xpnet.asarray(x, device=spec) + 1,
        lambda x, spec: x.to_device(x.device) + 1,
        lambda x, spec: xpnet.grad(lambda x: 0.5 * xpnet.to_device(x, spec)[0] ** 2)(x) + 1,
        lambda x, spec: x + xpnet.to_device(namespace(x).ones(2, dtype=x.dtype), spec),
    ],
    ids=["to_device", "asarray", "method", "gradient", "constant"],
)
def test_what_is_on_the_device_already_comes_back_as_it_is(f, device):
    f = xpnet.jit(f)
    for value in (1.0, 2.0):
        assert_same(f(array([value, 0.0]), device.spec), array([value + 1, 1.0]))


def test_moves_to_another_device_are_refused():
    x = xpnet.asarray([1.0, 2.0], device="strict")
    with pytest.raises(NotRecordableError, match=r"of one device.*strict.*Move it before") as e:
        xpnet.jit(lambda x: xpnet.to_device(x, "strict:device1"))(x)
    assert THIS in str(e.value)


# -- arrays that follow other rules -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "instead"),
    [
        (
            lambda: numpy.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
            r"MaskedArray.*mask.*x\.filled\(value\)",
        ),
        (lambda: numpy.ma.masked, r"Masked.*mask.*x\.filled\(value\)"),
        (lambda: numpy.asmatrix([[1.0, 2.0]]), r"matrix.*product.*numpy\.asarray\(x\)"),
    ],
    ids=["masked", "a masked number", "matrix"],
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_masked_arrays_and_matrices_are_refused(wrong, instead):
    wrong, x, net = wrong(), numpy.ones((1, 2)), nn.Dense(2, 1, seed=0)

    def fit(x, y):
        xpnet.fit(net, x, y, loss=xpnet.losses.mse, optimizer=xpnet.optim.SGD(0.1), epochs=1, progress=False)

    for call in (
        lambda: xpnet.jit(lambda x: x + 1)(wrong),
        lambda: xpnet.jit(lambda t: t["a"][0] + 1)({"a": [x, wrong]}),
        lambda: xpnet.jit(lambda x: x * wrong)(x),
        lambda: xpnet.jit(lambda x: namespace(x).add(x, wrong))(x),
        lambda: xpnet.scan(lambda c, e: (c, e), x[0], wrong),
        lambda: xpnet.grad(lambda x: namespace(x).sum(x))(wrong),
        lambda: xpnet.value_and_grad(lambda x, t: namespace(x).sum(x))(x, {"t": wrong}),
        lambda: xpnet.grad(lambda x: namespace(x).sum(x * wrong))(x),
        lambda: xpnet.asarray(wrong),
        lambda: xpnet.to_numpy([wrong]),
        lambda: xpnet.array_namespace(wrong),
        lambda: xpnet.predict(net, wrong),
        lambda: fit(wrong, x),
        lambda: fit(x, wrong),
    ):
        with pytest.raises(TypeError, match=instead):
            call()


# -- assignment in place ------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["uint8", "int64", "float64", 2.5])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("name", ["iadd", "itruediv", "iand"])
def test_assignment_in_place_is_recorded_as_the_library_does_it(name, dtype, other, xp):
    operate = getattr(operator, name)
    start, y = array([1, 1], dtype), array([1, 1], other) if isinstance(other, str) else other

    def result(f, x):
        try:
            return f(x, y)
        except Exception as error:
            return error

    expected = result(operate, xp.asarray(start, copy=True))
    actual = result(xpnet.jit(lambda x, y: operate(x, y)), start)
    if isinstance(expected, Exception):
        assert isinstance(actual, Exception)
        assert not isinstance(actual, NotRecordableError)
    else:
        for value in (actual, xpnet.jit(lambda x, y: operate(x, y))(start, y)):
            assert value.dtype == expected.dtype
            assert_same(value, expected)


def test_the_caller_sees_another_name_of_what_was_assigned_as_in_the_library(xp):
    def f(x):
        x = x + 0
        other = x
        x += 1
        return x, other

    x = array([1.0, 2.0])
    for one, expected in zip(xpnet.jit(f)(x), f(x), strict=True):
        assert_same(one, expected)


# -- what cannot be recorded --------------------------------------------------------------------------------

PLAIN, HOST = [0.0, 1.0, 2.0, 3.0], numpy.zeros(4)


def total(x):
    return namespace(x).sum(x)


REFUSED = {
    "format": lambda x: f"{total(x):.3f}",
    "float": lambda x: float(total(x)),
    "int": lambda x: int(total(x)),
    "complex": lambda x: complex(total(x)),
    "bool": lambda x: x if total(x) else -x,
    "in": lambda x: 3.0 in x,
    "hash": lambda x: {total(x): 1},
    "pickle": lambda x: pickle.dumps(x),
    "json": lambda x: json.dumps({"x": x}),
    "round": lambda x: round(total(x)),
    "math.sqrt": lambda x: math.sqrt(total(x)),
    "math.fsum": lambda x: math.fsum(x),
    "sorted": lambda x: sorted(x),
    "max": lambda x: max(x),
    "numpy.sum": lambda x: numpy.sum(x),
    "numpy.exp": lambda x: numpy.exp(x),
    "numpy.add into a buffer": lambda x: numpy.add(x, x, out=HOST),
    "numpy.asarray": lambda x: numpy.asarray(x),
    "item": lambda x: total(x).item(),
    "tolist": lambda x: x.tolist(),
    "a method": lambda x: x.cumsum(),
    "no attribute": lambda x: x.nothing,
    "memoryview": lambda x: memoryview(x),
    "a sum elsewhere": lambda x: numpy.from_dlpack(total(x)),
    "a size": lambda x: range(namespace(x).argmax(x)),
    "an element of a buffer": lambda x: HOST.__setitem__(0, total(x)),
    "a buffer": lambda x: HOST.__setitem__(slice(None), x),
    "a place in a buffer": lambda x: HOST.__setitem__(namespace(x).argmax(x), 1.0),
    "a list": lambda x: PLAIN[namespace(x).argmax(x)],
    "a table of NumPy's": lambda x: HOST[namespace(x).argsort(x)],
    "a row of a table": lambda x: HOST[namespace(x).argmax(x)],
    "a mask": lambda x: x[x > 1],
    "nonzero": lambda x: namespace(x).nonzero(x),
    "counts": lambda x: namespace(x).repeat(x, namespace(x).argsort(x)),
}


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded_is_refused_at_the_line(name, gradient, device):
    def f(x):
        REFUSED[name](x)
        return x * 2

    def step(x):
        # What has a gradient is refused before, with the words of gradients.
        return xpnet.grad(lambda w: namespace(w).sum(w * f(x)))(x) if gradient else f(x)

    with pytest.raises(NotRecordableError) as raised:
        xpnet.jit(step)(array([1.5, 0.5, 2.0, 3.0]))
    message = str(raised.value)
    assert f"{THIS}:" in message
    assert f'"{name}"' in message
    assert "jit" in message


@pytest.mark.parametrize("name", ["exp", "reshape", "sum"])
def test_functions_of_the_library_itself_are_refused_at_the_line(name, xp):
    arguments = ((2, 2),) if name == "reshape" else ()
    with pytest.raises(NotRecordableError, match="namespace") as raised:
        xpnet.jit(lambda x: getattr(xp, name)(x, *arguments))(array([1.0, 2.0, 3.0, 4.0]))
    assert THIS in str(raised.value)


def test_a_row_of_an_array_from_outside_is_refused_at_the_line(device):
    if device.library.spec == "torch":
        pytest.skip("PyTorch takes an object of another library's for a sequence of indices")
    table = array([1.0, 2.0, 3.0])
    for f in (lambda x: x * table[namespace(x).argmax(x)], lambda x: table[namespace(x).argsort(x)]):
        with pytest.raises(NotRecordableError) as raised:
            xpnet.jit(f)(array([1.0, 2.0, 3.0]))
        assert f"{THIS}:" in str(raised.value)


def test_the_line_of_a_layer_of_the_user_is_named(device):
    class Printing(nn.Module):
        def __call__(self, x):
            return f"{total(x):.3f}"

    with pytest.raises(NotRecordableError, match=f"{THIS}.*total"):
        xpnet.jit(lambda net, x: net(x))(nn.Sequential(nn.ReLU(), Printing()), array([1.0]))


def test_an_error_of_the_user_stays_what_it_is_and_names_the_line(device):
    with pytest.raises(KeyError, match="name") as raised:
        xpnet.jit(lambda x: x * {}["name"])(array([1.0]))
    assert THIS in raised.value.__notes__[0]


def test_what_looks_at_no_values_is_recorded(xp):
    def f(x):
        texts = [str(x), repr(x), f"{x}", f"{x.shape} {x.dtype}"]
        assert all(isinstance(text, str) for text in texts)
        y = copy.copy(x) * len(x) + copy.deepcopy(x)
        assert x.size == 4
        first, *_ = x
        assert not hasattr(x, "nothing")
        assert None not in (x, first)
        assert (x == "text") is False
        assert first.__dlpack_device__() == x.__dlpack_device__()
        with pytest.raises(TypeError):
            range(namespace(x).sum(namespace(x).ones(2)))  # a constant, and no integer
        return y + sum(x) + first

    recorded, x = xpnet.jit(f), array([1.0, 2.0, 3.0, 4.0])
    for _ in range(2):
        assert_same(recorded(x), x * 5 + 11)


def test_a_part_under_a_mask_is_assigned(xp):
    def f(x, y):
        x = x + 0
        x[x > y] = 0.5
        return x

    recorded = xpnet.jit(f)
    for values in ([1.0, 3.0, 5.0], [5.0, 0.0, 1.0]):
        assert_same(recorded(array(values), array(2.0)), numpy.where(numpy.asarray(values) > 2, 0.5, values))
