"""Memory, copies and errors of CuPy: with a stand-in for it, and at the end on a real GPU."""

import contextlib
import gc
import importlib
import re
import sys
import threading
import traceback
import types
import warnings

import numpy
import pytest
from stand_ins import CUDARuntimeError, FakeDevice, FakePool, OutOfMemoryError
from training.cases import X, Y, classifier, train, weights

import xpnet
from xpnet import backends, losses, optim
from xpnet.errors import DeviceLostError, DeviceUnavailableError, OutOfDeviceMemoryError

CUDA = next(library for library in backends.LIBRARIES if library.spec == "cuda")


# -- what CuPy's arrays and devices lack ------------------------------------------------------------------


@pytest.fixture
def unhashable(monkeypatch):
    """Let the devices of array-api-strict be without a hash for others, as those of CuPy are."""
    array_api_strict = pytest.importorskip("array_api_strict")
    original = array_api_strict.Device.__hash__

    def hash_of(device):
        if sys._getframe(1).f_globals["__name__"].startswith("array_api_strict."):
            return original(device)
        raise TypeError("unhashable type: 'Device'")

    monkeypatch.setattr(array_api_strict.Device, "__hash__", hash_of)
    with xpnet.use_device("strict:device1") as device:
        with pytest.raises(TypeError, match="unhashable"):
            hash(device.native)
        yield


METRICS = [
    xpnet.metrics.accuracy,
    xpnet.metrics.top_k_accuracy(1),
    lambda outputs, targets: xpnet.losses.cross_entropy(outputs, targets),
]


@pytest.mark.parametrize("jit", [False, True])
def test_a_training_where_devices_have_no_hash(unhashable, jit):
    history = train(
        classifier(), metrics=METRICS, validation=0.25, jit=jit, optimizer=optim.chain(optim.Adam(0.02))
    )
    assert history["accuracy"][-1] > 0.5


def test_a_regression_where_devices_have_no_hash(unhashable):
    layers = xpnet.nn.Dense(3, 4, seed=0), xpnet.nn.Dropout(0.5, seed=0), xpnet.nn.Dense(4, 1, seed=1)
    net = xpnet.nn.Sequential(*layers)
    metrics = [xpnet.metrics.r2, xpnet.metrics.mean_absolute_error, xpnet.metrics.root_mean_squared_error]
    train(net, X, X[:, :1], loss=losses.mse, metrics=metrics, validation=0.25)
    assert backends.device_of(xpnet.predict(net, X)).spec == "strict:device1"


def test_estimators_where_devices_have_no_hash(unhashable):
    pytest.importorskip("sklearn")
    from xpnet.sklearn import MLPClassifier

    for options in ({"solver": "adam", "early_stopping": True}, {"solver": "lbfgs"}):
        estimator = MLPClassifier((4,), max_iter=3, **options)
        with warnings.catch_warnings(action="ignore"):  # three rounds are too few
            assert xpnet.to_numpy(estimator.fit(X, Y).predict_proba(X)).shape == (60, 2)


def test_polygamma_of_a_number(fake_cupy, monkeypatch):
    """CuPy's takes arrays only."""
    ours = pytest.importorskip("scipy.special")

    def polygamma(n, x):
        assert isinstance(n, numpy.ndarray)
        return ours.polygamma(n, x)

    cupy, special = fake_cupy(), types.SimpleNamespace(polygamma=polygamma, erf=ours.erf)
    cupy.full = numpy.full
    scipy_of_cupy = types.ModuleType("cupyx.scipy")
    scipy_of_cupy.special = special
    monkeypatch.setitem(sys.modules, "cupyx.scipy", scipy_of_cupy)
    monkeypatch.delitem(sys.modules, CUDA.special, raising=False)
    found = importlib.import_module(CUDA.special)
    monkeypatch.delitem(sys.modules, CUDA.special)
    assert found.erf is ours.erf
    x = numpy.asarray([0.5, 2.0])
    for n in (0, 1, numpy.asarray([1, 2])):
        numpy.testing.assert_array_equal(found.polygamma(n, x), ours.polygamma(n, x))


# -- products ---------------------------------------------------------------------------------------------


def library_that_is_missing():
    raise RuntimeError("libcublasLt.so.13 was not found\nsearched in: /usr/lib")


@pytest.mark.parametrize(
    ("nvmath", "why"),
    [
        (None, r"ModuleNotFoundError: .*nvmath.*; `pip install"),
        (
            types.SimpleNamespace(create=library_that_is_missing),
            r"RuntimeError: .* was not found; `pip install",
        ),
    ],
)
def test_without_products_a_plan_says_why(fake_cupy, monkeypatch, nvmath, why):
    """A package that nvmath-python imports, or a library that it loads, may be missing as well as itself."""
    device = contextlib.nullcontext()
    device.attributes = {"MultiProcessorCount": 132}
    fake_cupy().cuda.Device = lambda number: device
    bindings = types.ModuleType("nvmath.bindings")
    bindings.cublasLt = nvmath
    monkeypatch.setitem(sys.modules, "nvmath", nvmath and types.ModuleType("nvmath"))
    monkeypatch.setitem(sys.modules, "nvmath.bindings", nvmath and bindings)
    monkeypatch.delitem(sys.modules, "xpnet.replay.plans.cuda_runtime", raising=False)
    cuda = importlib.import_module("xpnet.replay.plans.cuda_runtime").Cuda(0)
    monkeypatch.delitem(sys.modules, "xpnet.replay.plans.cuda_runtime")
    assert cuda.processors == 132
    assert re.search(why, cuda.problem)
    assert "\n" not in cuda.problem


# -- memory that is free ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "free"),
    [
        (FakePool(), 600 + 100),
        (FakePool(total=0, used=0), 600),
        (FakePool(limit=350), 350 - 200),
        (FakePool(limit=5000), 600 + 100),
    ],
)
def test_free_memory_counts_what_the_pool_holds(fake_cupy, pool, free):
    cupy = fake_cupy()
    cupy.pool = pool
    assert CUDA.free_memory(FakeDevice(1)) == free
    assert FakeDevice.current == [0]


# -- copies beside the calculations -----------------------------------------------------------------------


def test_uploads_are_ordered_by_events(fake_cupy):
    cupy = fake_cupy()
    uploads = CUDA.uploads()
    there = object()
    ready = uploads.begin([numpy.asarray([1, 2]), there, numpy.asarray([3.0])])
    # Memory that is given back may still be read by what was asked of the stream that computes.
    assert cupy.log == [
        "compute records compute.0",
        "upload waits for compute.0",
        "upload copies [1, 2]",
        "upload copies [3.0]",
        "upload records upload.4",
    ]
    first, second, third = ready()
    assert cupy.log[5:] == ["compute waits for upload.4"]
    assert first.tolist() == [1, 2]
    assert second is there
    assert third.tolist() == [3.0]


def test_pinned_memory_is_kept_until_its_copy_is_done(fake_cupy, monkeypatch):
    cupy = fake_cupy()
    pinned = []
    monkeypatch.setattr(
        cupy.cupyx, "empty_pinned", lambda *rest: pinned.append(numpy.empty(*rest)) or pinned[-1].view()
    )
    uploads = CUDA.uploads()
    for number in range(4):
        uploads.begin([numpy.asarray([number])])
        waits = [line for line in cupy.log if line.startswith("the host")]
        assert len(waits) == max(0, number - 1)  # for the copy before the last
        assert len(uploads._under_way) == min(number + 1, 2)
    copies = [line for line in cupy.log if " records upload" in line]
    assert waits == [f"the host waits for {line.split()[-1]}" for line in copies[:2]]
    assert [buffer.tolist() for buffer in pinned] == [[0], [1], [2], [3]]
    uploads.close()
    assert cupy.log[-1] == "the host waits for upload"


def test_an_upload_that_breaks_off_waits_for_what_is_under_way(fake_cupy):
    cupy = fake_cupy()

    def broken(self, event):
        raise KeyboardInterrupt

    cupy.cuda.Stream.wait_event = broken
    with pytest.raises(KeyboardInterrupt):
        CUDA.uploads().begin([numpy.asarray([1])])
    assert cupy.log[-1] == "the host waits for upload"


# -- errors -----------------------------------------------------------------------------------------------


class Large:
    """Stands for an array, and notes when it is let go."""

    def __init__(self, gone):
        self.gone = gone

    def __del__(self):
        self.gone.append(True)


def test_out_of_memory_says_how_much_and_gives_back_what_was_begun(fake_cupy):
    cupy, gone, seen = fake_cupy(), [], []
    cupy.pool.free_all_blocks = lambda: seen.append(list(gone))

    def step():
        large = Large(gone)
        raise OutOfMemoryError from ValueError(large is None)

    with pytest.raises(OutOfDeviceMemoryError) as caught, backends.clear_errors():
        step()
    message = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    for part in ("allocating 512 bytes", "1,000 bytes 600 were free", "held 300, of which arrays used 200"):
        assert part in message
    assert "batch_size" in message
    assert seen == [[True]]  # the array first, then the memory
    # The line on which it happened is still to be seen.
    assert "step" in [frame.name for frame in traceback.extract_tb(caught.value.__cause__.__traceback__)]


@pytest.mark.parametrize(
    ("status", "name", "error", "message"),
    [
        (2, "cudaErrorMemoryAllocation", OutOfDeviceMemoryError, r"cudaErrorMemoryAllocation.*batch_size"),
        (35, "cudaErrorInsufficientDriver", DeviceUnavailableError, "driver is too old"),
        (46, "cudaErrorDevicesUnavailable", DeviceUnavailableError, "nvidia-smi"),
        (214, "cudaErrorECCUncorrectable", DeviceLostError, "cudaErrorECCUncorrectable.*anew.*resume"),
        (700, "cudaErrorIllegalAddress", DeviceLostError, "cudaErrorIllegalAddress.*anew.*resume"),
        (719, "cudaErrorLaunchFailure", DeviceLostError, "cudaErrorLaunchFailure.*anew.*resume"),
    ],
)
def test_errors_of_cuda_in_one_clear_line(fake_cupy, status, name, error, message):
    fake_cupy()
    cause = CUDARuntimeError(status, name)
    with pytest.raises(error, match=message) as caught, xpnet.use_device("cpu"):
        raise cause
    assert caught.value.__cause__ is cause
    assert "\n" not in str(caught.value)


def test_other_errors_stay_as_they_are(fake_cupy):
    fake_cupy()
    for error in (CUDARuntimeError(1, "cudaErrorInvalidValue"), ValueError("x"), MemoryError("host")):
        with pytest.raises(type(error)) as caught, backends.clear_errors():
            raise error
        assert caught.value is error


class FailAt(xpnet.callbacks.Callback):
    """Raises an error at the end of a step, and notes the weights before its epoch."""

    def __init__(self, step, error):
        self.step, self.error, self.weights = step, error, []

    def epoch_start(self, run):
        self.weights = weights(run.net)

    def step_end(self, run):
        if run.step == self.step:
            raise self.error


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("error", [OutOfMemoryError(), CUDARuntimeError(2, "cudaErrorMemoryAllocation")])
def test_a_training_that_runs_out_of_memory_can_go_on(fake_cupy, jit, error):
    cupy, net, fail = fake_cupy(), classifier(), FailAt(6, error)  # in the second epoch of four steps
    with pytest.raises(OutOfDeviceMemoryError, match="batch_size") as caught:
        train(net, callbacks=[fail], jit=jit)
    assert caught.value.__cause__ is error
    assert cupy.pool.freed == 1
    assert all(map(numpy.array_equal, weights(net), fail.weights))
    assert len(train(net, jit=jit)) == 3


def test_a_training_whose_validation_runs_out_of_memory_goes_back(fake_cupy):
    class Fail(xpnet.nn.Module):
        def __call__(self, x):
            if not self.training and fail.weights:
                raise CUDARuntimeError(2, "cudaErrorMemoryAllocation")
            return x

    fake_cupy()
    net, fail = xpnet.nn.Sequential(classifier(), Fail()), FailAt(0, None)
    with pytest.raises(OutOfDeviceMemoryError, match="batch_size"):
        train(net, validation=(X, Y), callbacks=[fail], jit=False)
    assert all(map(numpy.array_equal, weights(net), fail.weights))


def test_predictions_and_moves_that_run_out_of_memory(fake_cupy, monkeypatch):
    fake_cupy()

    def fails(*_, **__):
        raise OutOfMemoryError

    with pytest.raises(OutOfDeviceMemoryError, match="batch_size"):
        xpnet.predict(xpnet.nn.Lambda(fails), X)
    net = classifier()
    monkeypatch.setattr(backends.arrays, "asarray", fails)
    with pytest.raises(OutOfDeviceMemoryError, match="batch_size"):
        xpnet.to_device(net, "strict")


# -- a real GPU -------------------------------------------------------------------------------------------


def test_uploads_on_a_gpu(cuda):
    uploads = cuda.library.uploads()
    sources = [numpy.full((1000, 100), number, dtype="float32") for number in range(8)]
    moved = [uploads.begin([source])()[0] for source in sources]
    for source, copy in zip(sources, moved, strict=True):
        numpy.testing.assert_array_equal(xpnet.to_numpy(copy), source)
    uploads.close()


def test_out_of_memory_on_a_gpu(cuda):
    import cupy

    def step():
        large = cupy.empty(cuda.library.free_memory(cuda.native) // 4, dtype="uint8")
        return large, cupy.empty(2 * cuda.native.mem_info[1], dtype="uint8")

    gc.collect()  # or it might go later, with what others left behind
    used = cupy.get_default_memory_pool().used_bytes()
    with (
        pytest.raises(OutOfDeviceMemoryError, match=r"allocating .* bytes.*batch_size"),
        backends.clear_errors(),
    ):
        step()
    assert cupy.get_default_memory_pool().used_bytes() == used
    assert float(cupy.ones(3).sum()) == 3.0


def test_a_training_that_runs_out_of_memory_on_a_gpu(cuda):
    import cupy

    class Fill(xpnet.callbacks.Callback):
        def epoch_start(self, run):
            self.weights = weights(run.net)

        def step_end(self, run):
            if run.step == 6:
                cupy.empty(2 * cuda.native.mem_info[1], dtype="uint8")

    net, fill = classifier(), Fill()
    with pytest.raises(OutOfDeviceMemoryError, match="batch_size"):
        train(net, callbacks=[fill])
    assert all(map(numpy.array_equal, weights(net), fill.weights))
    assert len(train(net)) == 3


def test_a_hundred_steps_agree_with_those_on_the_cpu(cuda):
    nets = classifier(), xpnet.to_device(classifier(), "cpu")
    for a, b in zip(*map(weights, nets), strict=True):
        numpy.testing.assert_array_equal(a, b)
    settings = {"optimizer": optim.SGD(0.05, momentum=0.9), "epochs": 25}  # of four steps
    here, there = (train(net, **settings) for net in nets)
    assert here["loss"] == pytest.approx(there["loss"], rel=1e-4)
    for a, b in zip(*map(weights, nets), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def training_step(width):
    optimizer = optim.Adam(0.01)

    def step(net, state, x, y):
        value, gradient = xpnet.value_and_grad(lambda net: losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), value

    recorded = xpnet.jit(step, donate=("net", "state"))

    def run(steps):
        with xpnet.use_device("cuda"):
            net = xpnet.nn.Sequential(
                xpnet.nn.Dense(3, width, seed=0), xpnet.nn.ReLU(), xpnet.nn.Dense(width, 2, seed=1)
            )
            state = optimizer.init(net)
            x, y = xpnet.asarray(X, dtype="float32"), xpnet.asarray(Y)
            for _ in range(steps):
                net, state, value = recorded(net, state, x, y)
            return weights(net), float(value)

    return run


@pytest.mark.parametrize("widths", [(8, 16), (8, 8)])
def test_two_threads_on_one_gpu(cuda, widths):
    """Each with a plan of its own, which they record at the same time."""
    expected = [training_step(width)(50) for width in widths]
    found, together = {}, threading.Barrier(2, timeout=60)

    def work(number):
        run = training_step(widths[number])
        together.wait()
        found[number] = run(50)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (arrays, value) in enumerate(expected):
        assert found[number][1] == pytest.approx(value, rel=1e-5)
        for a, b in zip(found[number][0], arrays, strict=True):
            numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_two_gpus(cuda):
    """What is made, recorded and trained on the second one stays there."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    first, second = classifier(), xpnet.to_device(classifier(), "cuda:1")
    here, there = (train(net, validation=0.25) for net in (first, second))
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)
    for leaf in xpnet.tree.leaves(second):
        assert backends.device_of(leaf).spec == "cuda:1"
    assert backends.device_of(xpnet.predict(second, X)).spec == "cuda:1"
    assert backends.device_of(xpnet.asarray([1.0])).spec == "cuda:0"
