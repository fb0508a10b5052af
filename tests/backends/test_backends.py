"""Device specs, the default device, what is usable here, and moving arrays between libraries and devices."""

import contextlib
import datetime
import importlib.util
import logging
import math
import threading
from decimal import Decimal
from fractions import Fraction

import array_api_compat
import numpy
import pytest
from conftest import SPECS
from helpers import assert_on, assert_same, rounding
from stand_ins import FakeDevice

import xpnet
from xpnet import backends
from xpnet.errors import DeviceUnavailableError, MixedArraysError

INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("torch", "jax", "cupy")}


def pytest_generate_tests(metafunc):
    # The other end of a move: the devices under test, and those of NumPy and array-api-strict.
    if "other" in metafunc.fixturenames:
        under_test = [SPECS[name] for name in metafunc.config.libraries]
        metafunc.parametrize("other", list(dict.fromkeys(["cpu", "strict", "strict:device1", *under_test])))


@pytest.fixture
def missing(monkeypatch, fresh):
    """Return a function that makes a library look as if it were not installed."""
    hidden = set()
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in hidden else original(name, *rest)
    )
    return hidden.add


def cuda_device(number=0):
    """A CUDA device that is not there, for the code around CuPy that knows only its device."""
    library = next(library for library in backends.LIBRARIES if library.spec == "cuda")
    return backends.Device(f"cuda:{number}", library, None, FakeDevice(number))


# -- specs ------------------------------------------------------------------------------------------------


def test_cpu_is_numpy():
    found = xpnet.device("cpu")
    assert (found.spec, found.library.name, found.native) == ("cpu", "NumPy", "cpu")
    assert found.namespace is array_api_compat.array_namespace(numpy.ones(1))


@pytest.mark.parametrize(
    ("spec", "native"),
    [("strict", "CPU_DEVICE"), ("strict:device1", "device1"), ("strict:device2", "device2")],
)
def test_strict_devices(spec, native):
    import array_api_strict

    found = xpnet.device(spec)
    assert found.namespace is array_api_strict
    assert found.native == array_api_strict.Device(native)


def test_devices_of_the_library_under_test(device):
    assert xpnet.device(device.spec) == device
    assert xpnet.device(device) is device
    assert hash(xpnet.device(device.spec)) == hash(device)
    x = device.namespace.asarray([1.0], device=device.native)
    assert backends.device_of(x) == device
    assert hash(backends.device_of(x)) == hash(device)
    # The spec of an array's device is a spec as good as any.
    assert xpnet.device(backends.device_of(x).spec) == device
    assert backends.plain_namespace(x) is device.namespace


def test_each_listed_device_is_a_spec(device):
    (status,) = [status for status in xpnet.devices() if status.name == device.library.name]
    assert status.problem is None
    for spec in status.devices:
        assert_on(xpnet.asarray([1.0], device=spec, dtype="float32"), xpnet.device(spec))


def test_devices_of_one_library_differ():
    assert xpnet.device("strict") != xpnet.device("strict:device1")
    assert xpnet.device("strict") != xpnet.device("cpu")
    assert cuda_device(0) != cuda_device(1)
    assert len({cuda_device(0), cuda_device(0), cuda_device(1)}) == 2  # though CuPy's own have no hash


@pytest.mark.parametrize("spec", ["gpu", "CPU", "", "numpy", "cpu ", "tensorflow:0"])
def test_unknown_spec(spec):
    with pytest.raises(ValueError, match=rf'a device spec is one of "cpu", .*; received "{spec}".*-m xpnet'):
        xpnet.device(spec)


@pytest.mark.parametrize("spec", ["cpu:0", "cpu:1", "cpu:x"])
def test_cpu_has_no_number(spec):
    with pytest.raises(ValueError, match=rf'takes no number, received "{spec}". Write "cpu"'):
        xpnet.device(spec)


@pytest.mark.parametrize("spec", [0, 1.5, ["cpu"], numpy.float32])
def test_spec_is_a_string(spec):
    with pytest.raises(TypeError, match='a device spec must be a string such as "cpu"'):
        xpnet.device(spec)


def test_strict_device_that_is_not_there():
    with pytest.raises(
        DeviceUnavailableError, match=r'no device "device9"\. It has: strict, strict:device1, strict:device2'
    ):
        xpnet.device("strict:device9")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("torch:cuda", DeviceUnavailableError, 'PyTorch cannot use "cuda" here: '),
        ("torch:what", DeviceUnavailableError, 'PyTorch cannot use "what" here: '),
        ("jax:what", DeviceUnavailableError, 'JAX cannot use "what" here: '),
        ("jax:99", DeviceUnavailableError, '"jax:99" was asked for, but this machine has [0-9]+ such'),
        (
            "jax:cpu:99",
            DeviceUnavailableError,
            '"jax:cpu:99" was asked for, but this machine has [0-9]+ such',
        ),
        ("jax:cpu:x", ValueError, 'is a number, received "jax:cpu:x". Write "jax:cpu:0"'),
    ],
)
def test_devices_that_torch_and_jax_lack(device, spec, error, message):
    if device.library.spec != spec.partition(":")[0]:
        return
    if spec == "torch:cuda":
        import torch

        if torch.cuda.is_available():
            return
    with pytest.raises(error, match=message):
        xpnet.device(spec)


@pytest.mark.parametrize(
    ("spec", "same"), [("jax:0", "jax"), ("jax:cpu:0", "jax:cpu"), ("torch:cpu", "torch"), ("jax:", "jax")]
)
def test_specs_of_the_same_device(device, spec, same):
    if device.library.spec == spec.partition(":")[0]:
        assert xpnet.device(spec) == xpnet.device(same)


# -- CUDA where there is none, and auto -------------------------------------------------------------------


def test_cuda_without_cupy(missing, monkeypatch):
    missing("cupy")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(
        DeviceUnavailableError, match=r'"cuda:1" was asked for, but CuPy is not installed.*pip'
    ):
        xpnet.device("cuda:1")


def test_cuda_without_a_driver(missing, monkeypatch):
    missing("cupy")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeviceUnavailableError, match="no NVIDIA driver here"):
        xpnet.device("cuda")


def test_cuda_without_a_gpu(fake_cupy):
    fake_cupy(available=False)
    with pytest.raises(
        DeviceUnavailableError, match=r'"cuda" was asked for, but .*no usable NVIDIA GPU.*nvidia-smi'
    ):
        xpnet.device("cuda")


@pytest.mark.parametrize("error", [RuntimeError, OSError, ImportError, AttributeError, Exception])
def test_cuda_that_cannot_calculate(fake_cupy, error):
    def ones(*_, **__):
        raise error("libcublas.so.13 is missing\nand more")

    fake_cupy(ones=ones)
    with pytest.raises(
        DeviceUnavailableError, match=r"CuPy cannot run: libcublas.so.13 is missing\. `pip install"
    ):
        xpnet.device("cuda")


def test_cuda_that_cannot_say_why(fake_cupy):
    def ones(*_, **__):
        raise RuntimeError

    fake_cupy(ones=ones)
    with pytest.raises(DeviceUnavailableError, match="CuPy cannot run: RuntimeError"):
        xpnet.device("cuda")


def test_cuda_that_calculates_wrongly(fake_cupy):
    fake_cupy(ones=numpy.zeros)
    with pytest.raises(DeviceUnavailableError, match="wrong numbers"):
        xpnet.device("cuda")


@pytest.mark.skipif(not INSTALLED["cupy"], reason="for a machine with CuPy and without a GPU")
def test_real_cupy_without_a_gpu(fresh):
    import cupy

    if cupy.cuda.is_available():
        return
    assert "no usable NVIDIA GPU" in backends.cuda_problem()


def test_cuda_devices(fake_cupy):
    fake_cupy(count=2)
    assert xpnet.device("cuda") == xpnet.device("cuda:0")
    assert xpnet.device("cuda:1").native.id == 1
    with pytest.raises(DeviceUnavailableError, match=r'"cuda:2" was asked for, but this machine has 2 such'):
        xpnet.device("cuda:2")
    with pytest.raises(ValueError, match=r'is a number, received "cuda:x". Write "cuda:0"'):
        xpnet.device("cuda:x")
    (status,) = [status for status in xpnet.devices() if status.name == "CuPy"]
    assert (status.devices, status.problem) == (("cuda:0", "cuda:1"), None)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"])
@pytest.mark.parametrize(("rank", "number"), [(0, 0), (1, 1), (2, 0), (3, 1)])
def test_each_process_on_a_machine_has_another_gpu(fake_cupy, monkeypatch, name, rank, number):
    fake_cupy(count=2)
    monkeypatch.setenv(name, str(rank))
    assert xpnet.device("cuda").native.id == number
    assert xpnet.device("cuda:1").native.id == 1  # what is asked for by its number is that


def test_a_driver_that_is_too_old(fake_cupy):
    fake_cupy(available=False, driver=12080)
    with pytest.raises(
        DeviceUnavailableError,
        match=r"too old: it is for CUDA 12, and this CuPy for CUDA 13.*\.\[cuda12\]",
    ):
        xpnet.device("cuda")


def test_auto_is_cuda_where_it_is_usable(fake_cupy, caplog):
    fake_cupy()
    assert xpnet.device("auto") == xpnet.device("cuda")
    assert not caplog.records


def test_auto_falls_back_to_the_cpu_and_says_so_once(missing, caplog):
    missing("cupy")
    with caplog.at_level(logging.WARNING, "xpnet"):
        for _ in range(3):
            assert xpnet.device("auto") == xpnet.device("cpu")
        with xpnet.use_device("auto") as found:
            assert found.spec == "cpu"
    (record,) = caplog.records
    assert "auto is the CPU: " in record.message
    assert "CuPy is not installed" in record.message


@pytest.mark.parametrize(
    ("spec", "module", "name"),
    [
        ("torch", "torch", "PyTorch"),
        ("jax:cpu", "jax", "JAX"),
        ("strict", "array_api_strict", "array-api-strict"),
    ],
)
def test_library_that_is_not_installed(missing, spec, module, name):
    missing(module)
    with pytest.raises(
        DeviceUnavailableError, match=f"{name} is not installed. `pip install .*` installs it"
    ):
        xpnet.device(spec)
    (status,) = [status for status in xpnet.devices() if status.name == name]
    assert (status.version, status.devices) == (None, ())
    assert status.problem.startswith(f"{name} is not installed. `pip install ")


# -- the list of devices ----------------------------------------------------------------------------------


def test_devices_lists_each_library(missing):
    for name in ("torch", "jax"):  # importing these takes seconds
        missing(name)
    statuses = xpnet.devices()
    assert [status.name for status in statuses] == ["NumPy", "CuPy", "PyTorch", "JAX", "array-api-strict"]
    assert statuses[0] == backends.LibraryStatus("NumPy", numpy.__version__, ("cpu",), None)
    assert statuses[-1].devices[:3] == ("strict", "strict:device1", "strict:device2")
    for status in statuses:
        assert bool(status.devices) == (status.problem is None)
        assert status.problem is None or "pip install" in status.problem or "nvidia-smi" in status.problem


def test_devices_survives_a_broken_installation(missing, monkeypatch):
    for name in ("torch", "jax"):
        missing(name)
    original = importlib.import_module

    def broken(name, *rest):
        if name == "array_api_strict":
            raise OSError("undefined symbol")
        return original(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert xpnet.devices()[-1] == backends.LibraryStatus(
        "array-api-strict", None, (), "undefined symbol. `pip install array-api-strict` may mend it."
    )


# -- the default device -----------------------------------------------------------------------------------


def test_default_is_the_cpu(monkeypatch):
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    assert xpnet.device().spec == "cpu"


@pytest.mark.parametrize(
    ("value", "spec"), [("strict:device1", "strict:device1"), ("cpu", "cpu"), ("", "cpu")]
)
def test_environment_sets_the_default(monkeypatch, value, spec):
    monkeypatch.setenv("XPNET_DEVICE", value)
    assert xpnet.device() == xpnet.device(spec)
    assert_on(xpnet.asarray([1.0]), xpnet.device(spec))
    assert_on(xpnet.nn.Dense(1, 1, seed=0).weight, xpnet.device(spec))
    assert xpnet.device("cpu").spec == "cpu"
    with xpnet.use_device("strict"):
        assert xpnet.device().spec == "strict"
    monkeypatch.delenv("XPNET_DEVICE")
    assert xpnet.device().spec == "cpu"


def test_environment_with_an_unknown_device(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "gpu")
    with pytest.raises(ValueError, match='received "gpu"'):
        xpnet.device()


def test_use_device_nests(monkeypatch):
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    with xpnet.use_device("strict") as outer:
        assert xpnet.device() is outer
        with xpnet.use_device("strict:device1") as inner:
            assert xpnet.device() is inner
            assert_on(xpnet.asarray([1.0]), inner)
            with xpnet.use_device(None) as same:
                assert same is inner
        assert xpnet.device() is outer
        with contextlib.suppress(KeyError), xpnet.use_device(inner):
            raise KeyError
        assert xpnet.device() is outer
        with pytest.raises(ValueError, match="gpu"), xpnet.use_device("gpu"):
            pass
        assert xpnet.device() is outer
    assert xpnet.device().spec == "cpu"


def test_each_thread_has_its_own_default():
    ready, seen = threading.Barrier(2, timeout=10), {}

    def work(spec):
        with xpnet.use_device(spec):
            ready.wait()
            seen[spec] = xpnet.device().spec, backends.device_of(xpnet.asarray([1.0])).spec
            ready.wait()

    with xpnet.use_device("cpu"):
        threads = [threading.Thread(target=work, args=(f"strict:device{n}",)) for n in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert xpnet.device().spec == "cpu"
    assert seen == {f"strict:device{n}": (f"strict:device{n}",) * 2 for n in (1, 2)}


def test_use_device_makes_the_cuda_device_current():
    with xpnet.use_device(cuda_device(1)):
        assert FakeDevice.current[-1] == 1
        with xpnet.use_device(cuda_device(3)):
            assert FakeDevice.current[-1] == 3
        assert FakeDevice.current[-1] == 1
        with xpnet.use_device("cpu"):
            assert xpnet.device().spec == "cpu"
    assert FakeDevice.current == [0]


# -- asarray ----------------------------------------------------------------------------------------------

VALUES = {
    "float32": numpy.asarray([[1.5, -2.0], [0.1, 3.0]], dtype="float32"),
    "float64": numpy.asarray([1 / 3, 2 / 3]),
    "int64": numpy.asarray([2**40, -3]),
    "int32": numpy.asarray([1, -2, 3], dtype="int32"),
    "uint8": numpy.asarray([0, 255], dtype="uint8"),
    "uint32": numpy.asarray([2**32 - 1, 5], dtype="uint32"),
    "bool": numpy.asarray([True, False, True]),
    "complex64": numpy.asarray([1 + 2j, 3j], dtype="complex64"),
}


@pytest.mark.parametrize("dtype", VALUES)
def test_asarray_moves_both_ways_and_keeps_the_dtype(device, other, dtype):
    values = VALUES[dtype].copy()
    x = xpnet.asarray(values, device=device)
    assert_on(x, device, dtype, values.shape)
    y = xpnet.asarray(x, device=other)
    assert_on(y, xpnet.device(other), dtype, values.shape)
    z = xpnet.asarray(y, device=device)
    assert_on(z, device, dtype, values.shape)
    for array in (x, y, z):
        back = xpnet.to_numpy(array)
        assert type(back) is numpy.ndarray
        assert back.dtype == dtype
        numpy.testing.assert_array_equal(back, VALUES[dtype])


ODD = {
    "0-d": numpy.asarray(3.0),
    "scalar": numpy.float64(3.0),
    "empty": numpy.zeros((0, 3)),
    "transposed": numpy.arange(6.0).reshape(2, 3).T,
    "strided": numpy.arange(12.0)[1::3],
    "backward": numpy.arange(4.0)[::-1],
    "broadcast": numpy.broadcast_to(numpy.asarray([1.0, 2.0]), (3, 2)),
    "big-endian": numpy.arange(3, dtype=">f8"),
    "subclass": numpy.ones(3).view(numpy.recarray),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("writeable", [False, True])
def test_asarray_of_odd_arrays(device, kind, writeable):
    values = numpy.copy(ODD[kind]) if writeable and kind != "backward" else ODD[kind]
    if isinstance(values, numpy.ndarray) and values is ODD[kind]:
        values = values.view()
        values.flags.writeable = writeable and values.base.flags.writeable
    x = xpnet.asarray(values, device=device)
    assert_on(x, device, "float64", numpy.shape(values))
    assert_same(x, numpy.asarray(values, dtype="float64"), tolerance=0)


@pytest.mark.parametrize(
    ("values", "dtype", "shape"),
    [
        ([1.0, 2.0], "float64", (2,)),
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        ((True, False), "bool", (2,)),
        (3.5, "float64", ()),
        (7, "int64", ()),
        (True, "bool", ()),
        ([], "float64", (0,)),
        (range(3), "int64", (3,)),
        ([numpy.float32(1), numpy.float32(2)], "float32", (2,)),
    ],
)
def test_asarray_of_sequences_and_numbers(device, values, dtype, shape):
    x = xpnet.asarray(values)
    assert_on(x, device, dtype, shape)
    assert_same(x, numpy.asarray(values), tolerance=0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_asarray_with_a_dtype(device, xp, dtype):
    for values in ([1.0, 0.0], numpy.asarray([1, 0]), xpnet.asarray([1.0, 0.0])):
        for wanted in (dtype, getattr(xp, dtype)):
            x = xpnet.asarray(values, device=device, dtype=wanted)
            assert_on(x, device, dtype, (2,))
            assert_same(x, numpy.asarray([1, 0], dtype=dtype), tolerance=0)


def test_asarray_with_an_unknown_dtype(device):
    with pytest.raises(ValueError, match=r'a dtype must be one of .*float32.*, received "float33"'):
        xpnet.asarray([1.0], dtype="float33")


def test_asarray_keeps_an_array_where_it_is(device):
    x = xpnet.asarray([1.0, 2.0])
    assert xpnet.asarray(x) is x
    assert xpnet.asarray(x, device=device) is x
    assert xpnet.asarray(x, device=device.spec, dtype=x.dtype) is x
    with xpnet.use_device("cpu" if device.spec != "cpu" else "strict"):
        assert xpnet.asarray(x) is x


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_dtypes_where_the_library_has_them(device, xp, dtype):
    if not hasattr(xp, dtype):
        return
    x = xpnet.asarray([1.5, -2.0], device=device, dtype=dtype)
    assert_on(x, device, dtype)
    assert xpnet.asarray(x, device=device) is x
    back = xpnet.to_numpy(x)
    assert str(back.dtype) == ("float32" if (device.library.spec, dtype) == ("torch", "bfloat16") else dtype)
    assert back.tolist() == [1.5, -2.0]
    if dtype == "float16":
        assert_on(xpnet.asarray(xpnet.asarray(back, device="cpu"), device=device), device, dtype)


def test_asarray_converts_on_the_host_before_it_moves(device, monkeypatch):
    # Some devices have no float64: initial weights, drawn in double precision, must not pass through there.
    seen = []
    original = device.namespace.asarray

    def spy(x, **options):
        seen.append(str(x.dtype))
        return original(x, **options)

    monkeypatch.setattr(device.namespace, "asarray", spy)
    xpnet.asarray(numpy.ones(2), device=device, dtype="float32")
    assert seen == ["float32"]


# -- trees ------------------------------------------------------------------------------------------------


def network_of_two_dtypes():
    return xpnet.nn.Sequential(
        xpnet.nn.Dense(3, 4, seed=0),
        xpnet.nn.ReLU(),
        xpnet.nn.Dropout(0.25, seed=1),
        xpnet.nn.Dense(4, 2, bias=False, seed=2, dtype="float64"),
    ).eval()


def test_to_device_moves_modules_with_their_state(device, other):
    net = network_of_two_dtypes()
    leaves = xpnet.tree.leaves(net, state=True)
    moved = xpnet.to_device(net, other)
    assert xpnet.tree.paths(moved, state=True) == xpnet.tree.paths(net, state=True)
    for leaf, before in zip(xpnet.tree.leaves(moved, state=True), leaves, strict=True):
        assert_on(leaf, xpnet.device(other), str(before.dtype).rpartition(".")[2], before.shape)
        assert_same(leaf, xpnet.to_numpy(before), tolerance=0)
    assert moved.layers[2].rate == 0.25
    assert not moved.layers[2].training
    assert all(a is b for a, b in zip(xpnet.tree.leaves(net, state=True), leaves, strict=True))
    assert all(backends.device_of(leaf) == device for leaf in leaves)
    x = numpy.ones((2, 3), dtype="float32")
    assert_same(
        moved(xpnet.asarray(x, device=other)),
        xpnet.to_numpy(net(xpnet.asarray(x, device=device))),
        tolerance=rounding(10, "float32"),
    )


def test_to_device_shares_what_is_there(device):
    net = network_of_two_dtypes()
    moved = xpnet.to_device(net, device)
    pairs = zip(xpnet.tree.leaves(moved, state=True), xpnet.tree.leaves(net, state=True), strict=True)
    assert moved is not net
    assert all(a is b for a, b in pairs)


def test_to_device_and_to_numpy_leave_other_leaves_alone(device, other):
    values = {"x": [xpnet.asarray([1.0]), None, "name", 3], "y": (numpy.float32(2.0), object)}
    moved = xpnet.to_device(values, other)
    assert_on(moved["x"][0], xpnet.device(other))
    assert_on(moved["y"][0], xpnet.device(other), "float32", ())
    assert moved["x"][1:] == [None, "name", 3]
    assert moved["y"][1] is object
    back = xpnet.to_numpy(moved)
    assert type(back["x"][0]) is type(back["y"][0]) is numpy.ndarray
    assert back["x"][1:] == [None, "name", 3]


def test_to_numpy_brings_modules_with_their_state(device):
    net = network_of_two_dtypes()
    leaves = xpnet.tree.leaves(net, state=True)
    brought = xpnet.tree.leaves(xpnet.to_numpy(net), state=True)
    assert len(brought) == len(leaves) == 4
    assert all(type(leaf) is numpy.ndarray for leaf in brought)
    for leaf, before in zip(brought, leaves, strict=True):
        assert_same(before, leaf, tolerance=0)
    assert all(backends.device_of(leaf) == device for leaf in xpnet.tree.leaves(net, state=True))


def test_to_numpy_makes_arrays_of_numpy_scalars():
    assert type(xpnet.to_numpy(numpy.float32(1.5))) is numpy.ndarray
    assert type(xpnet.asarray(numpy.float32(1.5))) is numpy.ndarray


def test_to_numpy_of_conjugated_values(device, xp):
    z = xp.conj(xpnet.asarray([1 + 2j]))  # PyTorch conjugates lazily
    assert xpnet.to_numpy(z).tolist() == [1 - 2j]
    assert xpnet.to_numpy(xp.conj(z)).tolist() == [1 + 2j]


# -- mixing -----------------------------------------------------------------------------------------------


def far(device):
    """An array on another device than the one under test."""
    return xpnet.asarray([[1.0, 2.0]], device="strict:device2", dtype="float32")


CALLS = {
    "array_namespace": lambda x, y: xpnet.array_namespace(x, y),
    "array_namespace, traced": lambda x, y: xpnet.array_namespace(xpnet.trace(x), y),
    "array_namespace, both traced": lambda x, y: xpnet.array_namespace(xpnet.trace(x), xpnet.trace(y)),
    "a layer": lambda x, y: xpnet.to_device(xpnet.nn.Dense(2, 1, seed=0), backends.device_of(x))(y),
    "dropout": lambda x, y: xpnet.to_device(xpnet.nn.Dropout(seed=0), backends.device_of(x))(y),
    "grad": lambda x, y: xpnet.grad(lambda x, y: xpnet.array_namespace(x).sum(x * y))(x, y),
    "grad of a layer": lambda x, y: xpnet.grad(lambda net, y: xpnet.array_namespace(y).sum(net(y)))(
        xpnet.to_device(xpnet.nn.Dense(2, 1, seed=0), backends.device_of(x)), y
    ),
    "a layer in grad": lambda x, y: xpnet.grad(
        lambda x: xpnet.array_namespace(x).sum(
            xpnet.to_device(xpnet.nn.Dense(2, 1, seed=0), backends.device_of(y))(x)
        )
    )(x),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("swapped", [False, True])
def test_mixed_arrays(device, call, swapped):
    x, y = xpnet.asarray([[3.0, 4.0]], dtype="float32"), far(device)
    names = [backends.device_of(x).spec, "strict:device2"]
    libraries = [device.library.name, "array-api-strict"]
    if swapped:
        x, y = y, x
    with pytest.raises(
        MixedArraysError, match=r"must share a library and a device.*xpnet\.to_device"
    ) as caught:
        CALLS[call](x, y)
    for name, library in zip(names, libraries, strict=True):
        assert f"{library} on {name}" in str(caught.value)


def test_arrays_of_one_device_are_no_mixture(device, xp):
    x = xpnet.asarray([[3.0, 4.0]], dtype="float32")
    assert xpnet.array_namespace(x, xp.sum(x), x) is xp
    assert xpnet.array_namespace(xpnet.trace(x), x) is xpnet.array_namespace(x, xpnet.trace(x))
    assert xpnet.array_namespace(xpnet.trace(x), x) is not xp


@pytest.mark.parametrize("value", [[1.0], 1.0, None, "cpu"])
def test_device_of_something_else(value):
    with pytest.raises(TypeError, match=r"an array is needed, received .*`xpnet\.asarray`"):
        backends.device_of(value)


def test_networks_run_inside_jax_jit(device):
    if device.library.spec != "jax":
        return
    import jax

    net, x = network_of_two_dtypes(), xpnet.asarray(numpy.ones((2, 3), dtype="float32"), device=device)
    assert_same(jax.jit(lambda x: net(x))(x), net(x), tolerance=rounding(10, "float32"))

    def loss(net, x):
        return xpnet.array_namespace(x).mean(net(x) ** 2)

    compiled = jax.jit(lambda x: xpnet.grad(loss)(net, x).layers[0].weight)(x)
    assert_same(compiled, xpnet.grad(loss)(net, x).layers[0].weight)


def test_traced_arrays_stay_traced(device):
    def f(x):
        wide = xpnet.asarray(x, dtype="float64")
        moved = xpnet.to_device({"x": wide}, device)["x"]
        return xpnet.array_namespace(moved).sum(moved * moved)

    x = xpnet.asarray([1.0, 2.0], device=device, dtype="float32")
    assert_same(xpnet.grad(f)(x), xpnet.asarray([2.0, 4.0], device=device, dtype="float32"))


# -- data as people have them --------------------------------------------------------------------------------

masked = numpy.ma.masked_array


@pytest.mark.parametrize(
    ("data", "expected", "dtype"),
    [
        (masked([1, 2]), [1, 2], "int64"),
        ([masked([1.0, 2.0]), [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], "float64"),
        (numpy.asarray([[1.5, True], [2, False]], dtype=object), [[1.5, 1.0], [2.0, 0.0]], "float64"),
        (numpy.asarray([1, True, numpy.int8(3)], dtype=object), [1, 1, 3], "int64"),
        (numpy.asarray([True, numpy.False_], dtype=object), [True, False], "bool"),
        ([Decimal("0.5"), Fraction(1, 4)], [0.5, 0.25], "float64"),
        (numpy.asarray([], dtype=object), [], "float64"),
        (range(3), [0, 1, 2], "int64"),
        (1.5, 1.5, "float64"),
    ],
    ids=repr,
)
def test_numbers_are_read(device, data, expected, dtype):
    x = xpnet.asarray(data, device=device, dtype="float32" if dtype == "float64" else None)
    assert_on(x, device, "float32" if dtype == "float64" else dtype)
    assert_same(x, expected)
    assert backends.as_numbers(data).dtype == dtype


def test_numbers_are_read_without_a_copy():
    x = numpy.ones((3, 2))
    assert backends.as_numbers(x) is x
    assert numpy.shares_memory(backends.as_numbers(masked(x)), x)
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    narrow = x.astype(bfloat16)
    assert backends.as_numbers(narrow) is narrow


ENCODE = r"numpy\.unique\(y, return_inverse=True\).*pandas\.get_dummies.*OrdinalEncoder.*cat\.codes"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            masked([1.0, 2.0, 3.0], [True, False, True]),
            r"in which 2 are masked\. Pass x\.filled\(value\)",
        ),
        ([masked([1.0], [True]), masked([2.0], [False])], "in which 1 are masked"),
        ([1.0, numpy.ma.masked], "in which 1 are masked"),
        (["a", "b"], f"received text such as 'a'.*{ENCODE}"),
        ([1.5, "b"], "received text such as 'b'"),
        (numpy.asarray([b"ab"]), "received text such as b'ab'"),
        (numpy.asarray(["a"], dtype=numpy.dtypes.StringDType()), "received text such as 'a'"),
        (["1.5", "2"], r"text such as '1\.5'. Read numbers .*numpy\.asarray\(x\)\.astype\('float64'\)"),
        (numpy.asarray([], dtype="U1"), "received an empty array of <U1"),
        ([1.0, None], "received missing values, None. Fill them in"),
        (None, "received missing values, None"),
        ([2**70, 1], rf"integers of more than 64 bits, such as {2**70}. .*x\.astype\('float64'\)"),
        (numpy.asarray([1j], dtype=object), "an object of the type complex"),
        (numpy.asarray(["2020-01-01"], dtype="M8[D]"), "dates such as 2020-01-01.*the month, the weekday"),
        ([datetime.date(2020, 1, 1)], "dates such as 2020-01-01"),
        (numpy.asarray([5], dtype="m8[s]"), r"durations such as 5 seconds.*numpy\.timedelta64\(1, 's'\)"),
        (numpy.zeros(2, dtype="V4"), "an object of the type void. Make an array"),
        (numpy.asarray([[1], [1, 2]], dtype=object), r"objects of the type list. numpy\.stack\(list\(x\)\)"),
        ((i for i in range(3)), r"an object of the type generator. Write list\(x\)"),
        ({1, 2}, r"an object of the type set. Write list\(x\)"),
        ({"a": 1}, "an object of the type dict. Make an array"),
    ],
)
def test_what_is_no_number_is_named(device, data, message):
    with pytest.raises(TypeError, match=f"x must hold .*{message}"):
        xpnet.asarray(data, device=device)


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
@pytest.mark.parametrize(("bad", "row"), [([1.0, numpy.nan], " in row 1"), (-numpy.inf, "")])
def test_what_no_integer_can_be_is_refused(device, dtype, bad, row):
    with pytest.raises(ValueError, match=rf"int\w* has no NaN and no infinity, received (nan|-inf){row}\."):
        xpnet.asarray(bad, device=device, dtype=dtype)


def test_rows_of_different_lengths(device):
    with pytest.raises(ValueError, match="inhomogeneous"):
        xpnet.asarray([[1.0], [1.0, 2.0]], device=device)


def frame(**columns):
    pandas = pytest.importorskip("pandas")
    kinds = {
        "float": [0.5, 1.5],
        "narrow": numpy.asarray([0.5, 1.5], dtype="float32"),
        "int": [1, 2],
        "bool": [True, False],
        "objects": pandas.Series([1, 2.5], dtype=object),
        "Int64": pandas.array([1, 2], dtype="Int64"),
        "Float64": pandas.array([0.5, 1.5], dtype="Float64"),
        "boolean": pandas.array([True, False], dtype="boolean"),
        "missing Int64": pandas.array([1, None], dtype="Int64"),
        "missing boolean": pandas.array([None, True], dtype="boolean"),
        "missing float": [None, 1.5],
        "numbers of categories": pandas.Categorical([3, 4]),
        "text": ["u", "v"],
        "string": pandas.array([None, "v"], dtype="string"),
        "category": pandas.Categorical(["low", "high"]),
        "dates": pandas.to_datetime(["2020-01-01", "2021-01-01"]),
        "zones": pandas.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("UTC"),
        "durations": pandas.to_timedelta([1, 2], unit="s"),
        "lists": [[1], [2, 3]],
        "None": pandas.Series([None, 1], dtype=object),
    }
    return pandas.DataFrame({name: kinds[kind] for name, kind in columns.items()})


NAN = math.nan


@pytest.mark.parametrize(
    ("kinds", "expected", "dtype"),
    [
        (["float", "int"], [[0.5, 1], [1.5, 2]], "float64"),
        (["float", "bool"], [[0.5, 1], [1.5, 0]], "float64"),
        (["narrow", "bool"], [[0.5, 1], [1.5, 0]], "float32"),
        (["int", "bool"], [[1, 1], [2, 0]], "int64"),
        (["bool", "boolean"], [[True, True], [False, False]], "bool"),
        (["objects", "int"], [[1, 1], [2.5, 2]], "float64"),
        (["Int64", "int"], [[1, 1], [2, 2]], "int64"),
        (["Float64", "boolean"], [[0.5, 1], [1.5, 0]], "float64"),
        (["missing Int64", "int"], [[1, 1], [NAN, 2]], "float64"),
        (["missing boolean", "Int64"], [[NAN, 1], [1, 2]], "float64"),
        (["missing float", "bool"], [[NAN, 1], [1.5, 0]], "float64"),
        (["numbers of categories", "bool"], [[3, 1], [4, 0]], "int64"),
    ],
)
def test_data_frames_of_numbers(kinds, expected, dtype):
    """As scikit-learn reads them."""
    data = frame(a=kinds[0], b=kinds[1])
    x = xpnet.asarray(data)
    assert x.dtype == dtype
    numpy.testing.assert_array_equal(x, expected)
    data.columns = ["a", "a"]  # pandas allows it
    numpy.testing.assert_array_equal(xpnet.asarray(data), expected)
    numpy.testing.assert_array_equal(xpnet.asarray(data.iloc[:, 0]), numpy.asarray(expected)[:, 0])
    assert xpnet.asarray(data[[]]).shape == (2, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": "float", "b": "text"}, f"received text such as 'u' in column 'b'. .*{ENCODE}"),
        ({"a": "string", "b": "bool"}, "received text such as 'v' in column 'a'"),
        ({"a": "category", "b": "float"}, f"received text such as 'low' in column 'a'. .*{ENCODE}"),
        ({"a": "int", "b": "dates"}, r"received dates such as 2020-01-01\S* in column 'b'. .*the month"),
        ({"a": "zones", "b": "int"}, "received dates such as 2020-01-01 .* in column 'a'"),
        ({"a": "durations", "b": "int"}, r"received durations such as .* in column 'a'"),
        ({"a": "int", "b": "None"}, "received missing values, None in column 'b'. Fill them in"),
        ({"a": "int", "b": "lists"}, "objects of the type list in column 'b'"),
        (
            {"a": "text", "b": "int", "c": "dates"},
            r"text such as 'u' in column 'a', dates such as \S* in column 'c'. .*numpy.unique.*the month",
        ),
        (
            {str(i): "text" for i in range(8)},
            "in column '4', text such as 'u' in column '5', and 2 more. Number",
        ),
    ],
)
def test_columns_that_hold_no_numbers_are_named(device, columns, message):
    with pytest.raises(TypeError, match=f"x must hold numbers in each column, .*{message}"):
        xpnet.asarray(frame(**columns), device=device)
