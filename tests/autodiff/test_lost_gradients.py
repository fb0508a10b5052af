"""A gradient is never lost in silence: it flows, or an error says what was tried, or there rightly is none.

To check a way, add it to one of the tables: a function of a traced array of two numbers.
"""

import array as buffers
import cmath
import copy
import ctypes
import dataclasses
import decimal
import json
import math
import operator
import pickle
import random
import re
import statistics
import threading

import array_api_compat
import numpy
import pytest
import scipy.linalg.blas
import scipy.optimize
import scipy.special
import scipy.stats
from helpers import array, assert_same

import xpnet
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import MixedArraysError, NoGradientError


@dataclasses.dataclass
class Pair:
    first: object
    second: object


def assigned(target, key, value):
    target[key] = value
    return target


def in_a_thread(x):
    results = []
    thread = threading.Thread(target=lambda: results.append(x * x))
    thread.start()
    thread.join()
    return results[0]


def in_a_list(x):
    values = list(x)
    random.shuffle(values)
    return max(values) * min(values) + sorted(values)[0] * math.prod(values) + abs(-values[0])


def filled(x):
    target = numpy.empty(2, dtype=object)
    target[0], target[1] = x[0] * x[1], x[1]
    return target.sum()


def spaced(xp, x):
    start, stop = x
    return xp.linspace(start, stop, 3)


# What keeps the gradient.
FLOWS = {
    "copy.copy": lambda xp, x: copy.copy(x) ** 2,
    "copy.deepcopy": lambda xp, x: copy.deepcopy({"a": [x]})["a"][0] ** 2,
    "a copy is a handle of its own": lambda xp, x: assigned(copy.copy(x), 0, 0.0) * x,
    "dataclasses.replace": lambda xp, x: dataclasses.replace(Pair(x, 2 * x), first=x * x).first,
    "iteration": lambda xp, x: sum(one * one for one in x),
    "unpacking": lambda xp, x: (lambda first, second: first * second)(*x),
    "builtin functions": lambda xp, x: in_a_list(x),
    "pow": lambda xp, x: pow(x, 2) + pow(2.0, x),
    "a generator": lambda xp, x: math.prod(one for one in (x[i] for i in range(2))),
    "a thread": lambda xp, x: in_a_thread(x),
    "a mask": lambda xp, x: x * xp.astype(x > 1, x.dtype) * x,
    "a NumPy number beside it": lambda xp, x: numpy.float64(2.0) * x + numpy.float64(3.0) ** x,
    "an array of objects": lambda xp, x: filled(x),
    "asarray of a list": lambda xp, x: xp.asarray([x[1] * x[0], 2.0, x[1]]),
    "asarray with a copy": lambda xp, x: assigned(xp.asarray(x, copy=True), 0, 0.0) + x * x,
    "astype to another precision": lambda xp, x: xp.astype(x, xp.complex128) ** 2,
    "an order of a norm": lambda xp, x: xp.linalg.vector_norm(x, ord=x[0]),
    "linspace": lambda xp, x: spaced(xp, x),
    "full": lambda xp, x: xp.full(2, x[0], device=x.device) * x,
    "assignment": lambda xp, x: assigned(xp.zeros(2, dtype=x.dtype, device=x.device), 0, x[0] * x[1]),
    "xpnet.asarray": lambda xp, x: xpnet.asarray(x) ** 2,
    "xpnet.to_device": lambda xp, x: xpnet.to_device({"x": x}, xpnet.device())["x"] ** 2,
    "random.gauss": lambda xp, x: random.Random(0).gauss(x[0], 0.0) * x,
}

# What a gradient cannot pass: the error says so.
REFUSED = {
    r"float\(\)": {
        "float": lambda x: float(x[0]),
        "math.sin": lambda x: math.sin(x[0]),
        "math.fsum": lambda x: math.fsum(x),
        "math.floor": lambda x: math.floor(x[0]),
        "statistics.fmean": lambda x: statistics.fmean(x),
        "%f": lambda x: operator.mod("%f", x[0]),
        "array.array": lambda x: buffers.array("d", x),
        "array.array[0] =": lambda x: assigned(buffers.array("d", [0.0]), 0, x[0]),
        "ctypes": lambda x: ctypes.c_double(x[0]),
    },
    r"complex\(\)": {"complex": lambda x: complex(x[0]), "cmath.exp": lambda x: cmath.exp(x[0])},
    r"int\(\)": {"int": lambda x: int(x[0])},
    r"round\(\)": {"round": lambda x: round(x[0]), "round to digits": lambda x: round(x[0], 2)},
    "an index": {
        "operator.index": lambda x: operator.index(x[0]),
        "range": lambda x: range(x[0]),
        "an index": lambda x: [10, 11][x[0]],
        "a slice": lambda x: [10, 11][x[0] :],
        "bytes": lambda x: bytes(x),
    },
    "pickle": {"pickle": pickle.dumps, "pickle of a tree": lambda x: pickle.dumps({"x": [x]})},
    "from_dlpack": {"numpy.from_dlpack": numpy.from_dlpack},
    "^wofz": {"scipy.special": lambda x: scipy.special.wofz(x)},
    r"numpy\.\w+|float\(\)": {
        "a[0] =": lambda x: assigned(numpy.zeros(2), 0, x[0]),
        "a[0] = of float32": lambda x: assigned(numpy.zeros(2, dtype="float32"), 0, x[0]),
        "a[:] =": lambda x: assigned(numpy.empty(2), slice(None), x),
        "a[mask] =": lambda x: assigned(numpy.zeros(2), numpy.asarray([True, True]), x),
        "a.flat[:] =": lambda x: assigned(numpy.zeros(2).flat, slice(None), x),
        "a.fill": lambda x: numpy.zeros(2).fill(x[0]),
        "a.put": lambda x: numpy.zeros(2).put(0, x[0]),
        "a.dot": lambda x: numpy.ones(2).dot(x),
        "a.clip": lambda x: numpy.ones(2).clip(x[0]),
        "a.sum": lambda x: numpy.ones(2).sum(initial=x[0]),
        "a[x]": lambda x: numpy.ones(2)[x],
        "+=": lambda x: operator.iadd(numpy.ones(2), x),
        "divmod": lambda x: divmod(numpy.ones(2), x),
        "numpy.asarray": numpy.asarray,
        "numpy.array of a list": lambda x: numpy.array([x[0], x[1]]),
        "numpy.array of lists": lambda x: numpy.array([[x[0], 1.0]]),
        "numpy.array of objects": lambda x: numpy.array(x, dtype=object),
        "numpy.float64": lambda x: numpy.float64(x[0]),
        "numpy.fromiter": lambda x: numpy.fromiter(x, float),
        "numpy.full": lambda x: numpy.full(2, x[0]),
        "numpy.copyto": lambda x: numpy.copyto(numpy.ones(2), x),
        "numpy.stack": lambda x: numpy.stack([x, x]),
        "numpy.concatenate": lambda x: numpy.concatenate([x, numpy.ones(2)]),
        "numpy.sin": numpy.sin,
        "numpy.mean": numpy.mean,
        "numpy.einsum": lambda x: numpy.einsum("i,i", x, x),
        "numpy.linalg.norm": numpy.linalg.norm,
        "numpy.where": lambda x: numpy.where([True, False], x, 0.0),
        "numpy.add.at": lambda x: numpy.add.at(numpy.ones(2), [0, 1], x),
        "numpy.add.reduce": numpy.add.reduce,
        "out=": lambda x: numpy.add(x, x, out=numpy.ones(2)),
        "where=": lambda x: numpy.add(x, x, where=[True, False]),
        "numpy.vectorize": lambda x: numpy.vectorize(math.sin)(x),
        "numpy.random": lambda x: numpy.random.default_rng(0).normal(x, 1.0),
        "numpy.savetxt": lambda x: numpy.savetxt("never written", x),
        "scipy.linalg.blas": lambda x: scipy.linalg.blas.ddot(x, x),
        "scipy.optimize": lambda x: scipy.optimize.minimize(lambda y: y @ y, x),
        "xpnet.to_numpy": xpnet.to_numpy,
        "xpnet.asarray of a list": lambda x: xpnet.asarray([x[0], 1.0], device="cpu"),
        "xpnet.save": lambda x: xpnet.save({"x": x}, "never written"),
    },
    "assignment|full_like": {
        "an array of integers": lambda x: assigned(like(x, 0), 0, x[0]),
        "an array of booleans": lambda x: assigned(like(x, 0) > 0, slice(None), x),
        "full_like": lambda x: x.__array_namespace__().full_like(like(x, 0), x[0]),
    },
}

# Functions of NumPy that have no rule: the result may be had, and the sweep refuses to go through it.
WITHOUT_RULE = {
    "arange": lambda xp, x: xp.arange(x[0], 3.0),
    "cbrt": lambda xp, x: xp.cbrt(x),
    "cov": lambda xp, x: xp.cov(x),
    "fft.fftfreq": lambda xp, x: xp.fft.fftfreq(2, d=x[0]),
    "from_dlpack": lambda xp, x: xp.from_dlpack(x),
    "histogram": lambda xp, x: xp.histogram(x, bins=2)[1],
    "interp": lambda xp, x: xp.interp(2.0, x, x),
    "linalg.cond": lambda xp, x: xp.linalg.cond(x * xp.eye(2)),
    "linalg.lstsq": lambda xp, x: xp.linalg.lstsq(xp.eye(2), x)[0],
    "median": lambda xp, x: xp.median(x),
    "sinc": lambda xp, x: xp.sinc(x),
    "trapezoid": lambda xp, x: xp.trapezoid(x),
}

# What Python, and other libraries, refuse in their own words.
FOREIGN = {
    "a function of the library itself": lambda x, xp: xp.sin(x),
    "an array of the library itself": lambda x, xp: assigned(xp.zeros(2), 0, x[0]),
    "asarray of the library itself": lambda x, xp: xp.asarray([x[0], x[1]]),
    "item": lambda x, xp: x[0].item(),
    "tolist": lambda x, xp: x.tolist(),
    "numpy": lambda x, xp: x.numpy(),
    "divmod": lambda x, xp: divmod(x, 2.0),
    "%d": lambda x, xp: operator.mod("%d", x[0]),
    "memoryview": lambda x, xp: memoryview(x),
    "numpy.frombuffer": lambda x, xp: numpy.frombuffer(x),
    "__array_interface__": lambda x, xp: x.__array_interface__,
    "json": lambda x, xp: json.dumps([x[0]]),
    "decimal": lambda x, xp: decimal.Decimal(x[0]),
    "statistics.mean": lambda x, xp: statistics.mean(x),
    "a key of a dict": lambda x, xp: {x[0]: 1},
}

# What rightly has no gradient, as it does not change with small changes of x.
CONSTANT = {
    "a comparison": lambda xp, x: x > 1,
    "an integer": lambda xp, x: xp.astype(x, xp.int64),
    "an integer and back": lambda xp, x: xp.astype(xp.astype(x, xp.int64), x.dtype),
    "a boolean": lambda xp, x: xp.astype(x, xp.bool),
    "a rounded number": lambda xp, x: xp.asarray(x // 1.0, dtype=xp.int64),
    "an index": lambda xp, x: xp.argmax(x),
    "stop_gradient": lambda xp, x: xpnet.stop_gradient(x),
    "a copy of a constant": lambda xp, x: copy.deepcopy(xpnet.stop_gradient(x)),
}


def like(x, number):
    """Integers on the device of x."""
    xp = x.__array_namespace__()
    return xp.full(x.shape, number, dtype=xp.int64, device=x.device)


def numbers():
    return array([1.25, 2.5])


def rows(table):
    return pytest.mark.parametrize("f", table.values(), ids=table)


@rows(FLOWS)
def test_a_gradient_flows(f, xp):
    def traced(x):
        random.seed(0)
        run = lambda x: f(x.__array_namespace__(), x)
        return run(x) if type(x) is Tracer else xpnet.vjp(run, x)[0]

    xpnet.check_gradients(traced, numbers(), order=2)


@pytest.mark.parametrize(
    ("what", "f"),
    [pytest.param(what, f, id=name) for what, table in REFUSED.items() for name, f in table.items()],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_an_error_says_that_a_gradient_would_be_lost(what, f, xp):
    with pytest.raises(NoGradientError) as caught:
        xpnet.vjp(lambda x: f(x), numbers())  # a line of the user's
    assert re.search(rf"({what}).*would be lost.*xpnet\.stop_gradient\(", str(caught.value))
    assert __file__ in {str(frame.path) for frame in caught.traceback[1:]}


def test_an_error_is_shown_in_the_place_of_numpys_own():
    """NumPy replaces what `float(x)` raises in an assignment, whatever its class."""
    target = numpy.zeros(3)

    def f(x):
        target[0] = x[0]
        return x[1]

    for transform in (xpnet.grad, xpnet.jacobian, xpnet.checkpoint, xpnet.jit):
        with pytest.raises(
            NoGradientError, match=r"float\(\) needs a plain array.*xpnet\.stop_gradient"
        ) as caught:
            xpnet.vjp(transform(f), numpy.ones(2))[1](1.0)
        assert "into an array of NumPy's. Make that array with xp.zeros" in caught.value.__notes__[0]

    @xpnet.custom_gradient
    def custom(x):
        return x * 1.0, lambda g: assigned(target, 0, g[0] * x[0])

    with pytest.raises(NoGradientError, match=r"float\(\) needs a plain array"):
        xpnet.grad(lambda x: x @ custom(x))(numpy.ones(2))


def test_an_error_that_somebody_put_before_another_stays():
    def f(x):
        try:
            return float(x)
        except TypeError as error:
            raise ValueError("of the user's") from error

    with pytest.raises(ValueError, match="of the user's") as caught:
        xpnet.grad(f)(2.0)
    assert isinstance(caught.value.__cause__, NoGradientError)


@pytest.mark.parametrize(("name", "f"), WITHOUT_RULE.items(), ids=WITHOUT_RULE)
def test_the_sweep_refuses_what_has_no_rule(name, f):
    x = numpy.asarray([1.25, 2.5])
    run = lambda x: f(xpnet.array_namespace(x), x)
    result, pullback = xpnet.vjp(run, x)
    line = rf"{name} has no gradient rule.*called at .*lambda xp, x: .*Write it with other functions"
    with pytest.raises(NoGradientError, match=line):
        pullback(result)
    gradient, beside = xpnet.grad(lambda x: (x @ x, run(x)), has_aux=True)(x)
    assert_same(gradient, 2 * x)
    assert_same(beside, run(xpnet.trace(x)).value)


@pytest.mark.parametrize(
    ("name", "standard"),
    [("concatenate", "concat"), ("power", "pow"), ("arctan2", "atan2"), ("mod", "remainder")],
)
def test_the_name_in_the_standard_is_said(name, standard):
    arguments = (lambda x: ([x, x],)) if name == "concatenate" else (lambda x: (x, x))
    with pytest.raises(
        NoGradientError, match=rf"{name} has no.*Write xp\.{standard}, as the standard calls it, "
    ):
        xpnet.jacobian(lambda x: getattr(xpnet.array_namespace(x), name)(*arguments(x)))(numpy.ones(2))


def test_plain_arrays_beside_traced_ones_are_named_where_others_refuse_them():
    plain = numpy.ones(2)

    def f(x):
        return array_api_compat.array_namespace(x, plain).sum(x * plain)

    with pytest.raises(TypeError, match="Multiple namespaces") as caught:
        xpnet.grad(lambda x: xpnet.grad(f)(x) @ x)(numpy.ones(2))
    assert len(caught.value.__notes__) == 1
    assert "or wrap them with xpnet.trace" in caught.value.__notes__[0]


def test_functions_of_shapes_and_dtypes_need_no_gradient():
    found = []

    def f(x):
        for space in (numpy, xpnet.array_namespace(x)):
            found.append([space.ndim(x), space.shape(x), space.size(x), space.size(x[None, :], axis=0)])
            found.append([space.result_type(x, numpy.float32), space.common_type(x), space.iscomplexobj(x)])
        return x

    for gradient in (xpnet.grad(lambda x: f(x)[0]), xpnet.jit(xpnet.grad(lambda x: f(x)[0]))):
        assert_same(gradient(numpy.asarray([1.25, 2.5])), numpy.asarray([1.0, 0.0]))
    assert found == 4 * [[1, (2,), 2, 1], [numpy.float64, numpy.float64, False]]


@rows(FOREIGN)
def test_what_others_refuse(f, xp):
    with pytest.raises((TypeError, ValueError, AttributeError)):
        xpnet.vjp(lambda x: f(x, xp), numbers())


@rows(CONSTANT)
def test_what_has_no_gradient(f, xp):
    nodes = []

    def run(x):
        y = f(x.__array_namespace__(), x)
        nodes.append(y.node)
        return y

    xpnet.vjp(run, numbers())
    assert nodes == [None]


def test_methods_that_lead_out_are_named(device):
    name = {"numpy": "item", "torch": "detach", "jax": "tolist"}.get(device.library.module)
    if name is None:
        pytest.skip("array-api-strict has no such method")
    with pytest.raises(
        AttributeError, match=rf"no method {name}.*xpnet\.to_numpy\(xpnet\.stop_gradient\(x\)\)"
    ):
        xpnet.vjp(lambda x: getattr(x, name)(), numbers())


def test_a_traced_array_stays_with_its_library(device):
    spec = "strict" if device.spec == "cpu" else "cpu"
    for move in (
        lambda x: xpnet.to_device(x, spec),
        lambda x: xpnet.asarray(x, device=spec),
    ):
        with pytest.raises(MixedArraysError, match=rf'stays with its library.*"{spec}".*stop_gradient'):
            xpnet.vjp(move, numbers())


def test_a_text_is_for_people(xp):
    texts = []

    def f(x):
        texts.extend([f"{x[0]:.2f}", f"{x[0]}", f"{x}"])
        return x

    xpnet.vjp(f, numbers())
    assert texts[0] == "1.25"
    assert all(text.startswith("<traced") for text in texts[1:])


def test_constants_are_pickled_as_plain_arrays(xp):
    x = array([1.0, 2.0])
    assert_same(pickle.loads(pickle.dumps(xpnet.trace(x))), x)


def test_a_traced_array_that_outlives_its_transform_does_not_lose_its_gradient(xp):
    kept = []
    xpnet.grad(lambda x: kept.append(x * x) or x[0])(numbers())
    for leave in (lambda: float(kept[0][0]), lambda: numpy.asarray(kept[0])):
        with pytest.raises(NoGradientError):
            leave()
    with pytest.raises(NoGradientError):
        float(xpnet.grad(lambda y: y * kept[0][0])(array(3.0)))
    plain = xpnet.to_numpy(xpnet.stop_gradient(kept[0]))
    assert_same(plain, numpy.asarray([1.5625, 6.25]))


# -- functions that write -----------------------------------------------------------------------------------

WRITING = {
    "numpy.put_along_axis": lambda x: numpy.put_along_axis(x, numpy.asarray([1]), 5.0, axis=0),
    "numpy.fill_diagonal": lambda x: numpy.fill_diagonal(x[None, :], 5.0),
    "numpy.copyto": lambda x: numpy.copyto(x, numpy.zeros(2)),
    "numpy.add.at": lambda x: numpy.add.at(x, [0], 1.0),
    "out=": lambda x: numpy.add(numpy.ones(2), 1.0, out=x),
    "out= of a function": lambda x: numpy.cumsum(numpy.ones(2), out=x),
    "xp.put_along_axis": lambda x: x.__array_namespace__().put_along_axis(x, numpy.asarray([1]), 5.0, axis=0),
    "xp.copyto": lambda x: x.__array_namespace__().copyto(x, numpy.zeros(2)),
    "xp.median": lambda x: x.__array_namespace__().median(x, overwrite_input=True),
    "xp.nan_to_num": lambda x: x.__array_namespace__().nan_to_num(x, copy=False),
    "xp.nan_to_num by position": lambda x: x.__array_namespace__().nan_to_num(x, False),
}


@rows(WRITING)
def test_no_function_writes_into_a_traced_array(f):
    x = numpy.asarray([1.0, 2.0])
    with pytest.raises(TypeError, match=r"must not write into a traced array.*x\[key\] = values"):
        f(xpnet.trace(x))
    assert_same(x, numpy.asarray([1.0, 2.0]))


def test_functions_that_write_refuse_to_lose_a_gradient():
    x = numpy.asarray([0.1, 0.3])
    for f in (
        lambda xp, x: xp.put_along_axis(x, numpy.asarray([1]), 5.0, axis=0),
        lambda xp, x: xp.put_along_axis(xp.zeros(2), numpy.asarray([0, 1]), x, axis=0),
        lambda xp, x: xp.copyto(x, 0.0),
        lambda xp, x: xp.median(x, overwrite_input=True),
        lambda xp, x: xp.nan_to_num(x, copy=False),
    ):
        with pytest.raises(NoGradientError, match=r"has no gradient rule, and received an array whose"):
            xpnet.vjp(lambda x, f=f: f(x.__array_namespace__(), x), x)
    # It makes a copy of the array before it writes.
    with pytest.raises(AttributeError, match=r"standard.*no method copy\. .*stop_gradient"):
        xpnet.vjp(scipy.stats.false_discovery_control, x)
    assert_same(x, numpy.asarray([0.1, 0.3]))


def test_functions_of_pytorch_do_not_write_into_traced_arrays(device):
    if device.library.spec != "torch":
        pytest.skip("only PyTorch has such functions")
    x = xpnet.trace(numbers())
    with pytest.raises(TypeError, match=r"relu_ must not write into a traced array"):
        x.__array_namespace__().relu_(x)


def test_numpy_functions_write_constants_into_plain_arrays():
    x = numpy.zeros(2)
    numpy.copyto(x, xpnet.trace(numpy.asarray([1.0, 2.0])))
    assert_same(x, numpy.asarray([1.0, 2.0]))
