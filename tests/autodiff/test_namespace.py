import threading
import types

import array_api_compat
import numpy
import pytest
from helpers import array, assert_same

import xpnet
from xpnet.autodiff.namespace import traced_namespace
from xpnet.errors import MixedArraysError, NoGradientError


def test_plain_arrays_may_stand_beside_traced_ones(xp):
    x, y = array([1.0]), array([2.0])
    assert xpnet.array_namespace(x, y) is xpnet.array_namespace(x)
    traced = xpnet.trace(x).__array_namespace__()
    assert xpnet.array_namespace(xpnet.trace(x), y) is traced
    assert xpnet.array_namespace(y, xpnet.trace(x)) is traced
    assert xpnet.array_namespace(xpnet.trace(x), xpnet.trace(y)) is traced


def test_the_plain_namespace_is_the_standard_one(device):
    assert xpnet.array_namespace(array([1.0])) is array_api_compat.array_namespace(array([1.0]))


def test_arrays_of_two_places_have_no_namespace(device):
    spec, name = ("strict:device2", "array-api-strict") if device.spec == "cpu" else ("cpu", "NumPy")
    other = xpnet.asarray(numpy.ones(1), device=spec)
    for x in (array([1.0]), xpnet.trace(array([1.0]))):
        with pytest.raises(MixedArraysError, match=rf"{device.library.name}.*{name}.*xpnet\.to_device"):
            xpnet.array_namespace(x, other)
        with pytest.raises(MixedArraysError):
            xpnet.array_namespace(other, x)


def test_arrays_of_two_devices_have_no_namespace(device):
    if device.library.spec != "strict":
        pytest.skip("only array-api-strict has several devices on every machine")
    other = xpnet.asarray(numpy.ones(1), device="strict:device2")
    with pytest.raises(MixedArraysError, match=f"{device.spec}.*strict:device2"):
        xpnet.array_namespace(xpnet.trace(array([1.0])), other)


def test_what_is_no_array_has_no_namespace():
    with pytest.raises(TypeError):
        xpnet.array_namespace("text")


def test_there_is_one_namespace_for_a_library_in_all_threads():
    for _ in range(20):
        plain = types.ModuleType("plain")
        plain.isdtype = numpy.isdtype
        plain.exp = numpy.exp
        start, found = threading.Barrier(4), []

        def look(plain=plain, start=start, found=found):
            start.wait()
            found.append(traced_namespace(plain))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1


def test_constants_dtypes_and_information_are_those_of_the_library(device, xp):
    traced = xpnet.trace(array([1.0])).__array_namespace__()
    for name in ("float32", "int64", "bool", "complex64", "pi", "inf", "newaxis"):
        assert getattr(traced, name) is getattr(xp, name)
    assert traced.isdtype(traced.float32, "real floating")
    assert traced.finfo(traced.float64).eps == xp.finfo(xp.float64).eps
    assert traced.iinfo(traced.int64).max == xp.iinfo(xp.int64).max
    assert traced.result_type(xpnet.trace(array([1.0])), xp.float32) == xp.float64


@pytest.mark.parametrize("recorded", [False, True], ids=["traced", "recorded"])
def test_the_inspection_of_a_namespace_is_that_of_the_library(recorded, device, xp):
    found = []

    def look(x):
        found.append(xpnet.array_namespace(x))
        return x * 1.0

    (xpnet.jit(look) if recorded else lambda x: look(xpnet.trace(x)))(array([1.0]))
    info, expected = found[0].__array_namespace_info__(), xp.__array_namespace_info__()
    assert found[0].__array_api_version__ == "2024.12"
    assert info.capabilities() == expected.capabilities()
    assert info.default_device() == expected.default_device()
    assert info.devices() == list(expected.devices())  # a list until version 2025.12, in which it is a tuple
    assert info.default_dtypes() == expected.default_dtypes()
    assert info.default_dtypes(device=device.native) == expected.default_dtypes(device=device.native)
    for kind in (None, "bool", "integral", ("real floating", "complex floating")):
        assert info.dtypes(kind=kind) == expected.dtypes(kind=kind)
    assert info.dtypes(device=device.native, kind="real floating")["float64"] == xp.float64


def test_names_that_the_library_lacks_are_missing(xp):
    traced = xpnet.trace(array([1.0])).__array_namespace__()
    assert not hasattr(traced, "no_such_function")
    assert not hasattr(traced, "__no_such_thing__")
    assert not hasattr(traced.linalg, "__no_such_thing__")
    assert not hasattr(traced.linalg, "no_such_function")


def test_functions_of_constants_may_stand_beside_gradients(device):
    x = array([[2.0, 0.0], [0.0, 1.0]])

    def f(x):
        xp = x.__array_namespace__()
        u, s, vh = xp.linalg.svd(xpnet.stop_gradient(x))
        assert u.__array_namespace__() is xp
        assert s.device == x.device
        return xp.sum(s * vh[0, :] * vh[0, :]) * x[0, 0]

    value, gradient = xpnet.value_and_grad(f)(x)
    assert_same(value, array(4.0))
    assert_same(gradient, array([[2.0, 0.0], [0.0, 0.0]]))


def test_results_of_functions_without_a_rule_are_traced(xp):
    x = xpnet.trace(array([[2.0, 0.0], [0.0, 1.0]]))
    traced = x.__array_namespace__()
    result = traced.linalg.svd(x)
    assert all(part.__array_namespace__() is traced for part in result)
    if hasattr(xp.linalg.svd(x.value), "_fields"):
        assert_same(result.S.value, array([2.0, 1.0]))
    assert_same(traced.linalg.inv(x).value, array([[0.5, 0.0], [0.0, 1.0]]))


def test_a_function_is_declared_once():
    from xpnet.autodiff.primitive import Primitive

    with pytest.raises(ValueError, match="exp is defined already"):
        Primitive("exp")


@pytest.mark.parametrize(("arrays", "received"), [((None,), "NoneType"), ((1.0,), "float"), ((), "none")])
def test_a_namespace_needs_arrays(arrays, received):
    with pytest.raises(TypeError, match=f"array is needed.*received {received}"):
        xpnet.array_namespace(*arrays)


def test_a_function_that_writes_in_place_does_not_run():
    x = numpy.ones((2, 2))
    with pytest.raises(NoGradientError, match="fill_diagonal has no gradient rule"):
        xpnet.grad(lambda x: x.__array_namespace__().fill_diagonal(x, 0.0))(x)
    assert_same(x, numpy.ones((2, 2)))
