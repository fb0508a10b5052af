"""The checks of `smoke.py`: memory, kernels, graphs, and what xpnet asks of CuPy besides.

Two kinds of numbers show two kinds of errors. Small integers, which have no rounding errors in any precision
and any order, show that the right elements are added and multiplied. Random numbers show the precision, for
which `assert_close` has one bound.
"""

import contextlib
import functools
import gc
import itertools
import sys
import threading
from pathlib import Path

import numpy
from machine import is_lost

import xpnet
from xpnet import backends, losses, nn, optim, tree
from xpnet.autodiff import extended_namespace
from xpnet.errors import DeviceLostError, DeviceUnavailableError, OutOfDeviceMemoryError
from xpnet.replay.functions import BROADCASTING, FUNCTIONS
from xpnet.replay.kernels import c

ROOT = Path(__file__).parents[1]
SIZES, SMALL_SIZES = (1, 3, 64, 100, 129), (1, 3, 129)  # of matrices

CHECKS = {}  # by name, in the order in which they run
LAST, ON_GPU = set(), set()  # names of those that may end a process, and of those that no stand-in can do


def check(function, name=None, *, last=False, on_gpu=False):
    """Add a check, which is called with a `Device`. It may return notes."""
    name = name or function.__name__.replace("_", " ")
    CHECKS[name] = function
    LAST.update({name} if last else ())
    ON_GPU.update({name} if on_gpu else ())
    return function


on_gpu = functools.partial(check, on_gpu=True)


# -- devices ------------------------------------------------------------------------------------------------


class Device:
    """What checks run on.

    Attributes
    ----------
    device : xpnet's device
        Where arrays are.
    runtime : Cuda
        Or what stands in for it.
    sizes : tuple of int
        Of the matrices.
    """

    def __init__(self, spec, runtime, sizes):
        self.device, self.runtime, self.sizes = xpnet.device(spec), runtime, sizes

    def array(self, x):
        return xpnet.asarray(numpy.ascontiguousarray(x), device=self.device)

    def aligned(self, x):
        """Return an array that begins where products ask for it, as those of plans do."""
        new = self.runtime.array(self.runtime.memory(x.nbytes), 0, x.shape, x.dtype)
        new[...] = self.array(x)
        return new

    def finish(self):
        if self.device.spec != "cpu":
            self.device.native.synchronize()


@contextlib.contextmanager
def device_of(name, sizes=SIZES):
    """Return CuPy's device as it is, or NumPy's with plans for a stand-in."""
    if name == "cuda":
        from xpnet.replay.plans.cuda_runtime import Cuda

        with xpnet.use_device("cuda") as found:
            yield Device("cuda", Cuda(found.native.id), sizes)
        return
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from tests.replay.host import COMPILER, Host, plan_on
    from xpnet.replay import plans

    if COMPILER is None:
        raise RuntimeError("the stand-in for a CUDA device needs a C++ compiler, g++ or clang++; install one")
    host, plan_of = Host(), plans._plan_of
    plans._plan_of = lambda _: plan_on(host)
    try:
        yield Device("cpu", host, sizes)
    finally:
        plans._plan_of = plan_of


# -- what must hold -----------------------------------------------------------------------------------------


def assert_close(actual, expected, roundings=0, magnitude=None, dtype=None):
    """Assert that numbers are right but for so many roundings, of numbers of a magnitude, in a dtype.

    A sum of n terms in any order is off by less than n eps times the sum of the magnitudes of its terms; each
    function adds a few eps of its own. Without roundings, numbers must be equal. A NaN must be one.
    """
    actual, expected = numpy.asarray(xpnet.to_numpy(actual)), numpy.asarray(expected)
    assert actual.shape == expected.shape, f"expected the shape {expected.shape}, received {actual.shape}"
    bound = 0.0
    if roundings:
        limits = numpy.finfo(dtype or actual.dtype)
        bound = roundings * limits.eps * (abs(expected) if magnitude is None else magnitude)
        bound = numpy.broadcast_to(bound + limits.tiny, expected.shape)
    with numpy.errstate(invalid="ignore"):
        difference = abs(actual.astype("float64") - expected.astype("float64"))
        right = (actual == expected) | (difference <= bound) | ((actual != actual) & (expected != expected))
    if not right.all():
        place = tuple(map(int, numpy.argwhere(~right)[0]))
        allowed = bound[place] if roundings else 0
        raise AssertionError(
            f"{(~right).sum()} of {right.size} elements are wrong: at {place} expected {expected[place]!r} "
            f"within {allowed:.3g}, received {actual[place]!r}"
        )


@contextlib.contextmanager
def raises(kind, text):
    """Assert that an error of a kind is raised, with a text in its message."""
    try:
        yield
    except kind as error:
        if text in str(error):
            return
        raise
    raise AssertionError(f"{kind.__name__} was not raised")


def each(cases, f):
    """Check many cases; return those that are refused, and raise the first error, with all that failed."""
    failed, refused = {}, []
    for case in cases:
        try:
            if f(*case) == "refused":
                refused.append(" ".join(map(str, case)))
        except Exception as error:
            failed[case] = error
            if is_lost():
                break
    if failed:
        first = next(iter(failed.values()))
        raise AssertionError(
            f"{len(failed)} of {len(cases)} cases failed, for the first: {type(first).__name__}: {first} "
            f"The cases: {', '.join(map(str, failed))}"
        ) from first
    return {"refused": refused, "of": len(cases)} if refused else None


def integers(random, *shape, dtype="float32"):
    """Draw numbers with which no precision has rounding errors."""
    return random.integers(-3, 4, size=shape).astype(dtype)


def replay(device, f, draw, compare, **options):
    """Record a function, run it on new arrays, capture it, launch that; compare each time with NumPy's."""
    recorded = xpnet.jit(f, **options)
    for number in range(4):
        arrays = draw(numpy.random.default_rng(number))
        with numpy.errstate(all="ignore"):
            found = recorded(*map(device.array, arrays))
            expected = f(*arrays)
        for one, other in zip(tree.leaves(xpnet.to_numpy(found)), tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            compare(one, other)
    assert "not captured" not in recorded.explain(), recorded.explain().splitlines()[-1]


# -- memory and kernels -------------------------------------------------------------------------------------


@check
def memory_and_copies(device):
    runtime = device.runtime
    x = numpy.arange(24.0).reshape(4, 6)
    with runtime.active():
        memory = runtime.memory(1024)
        parts = [runtime.array(memory, offset, (4, 6), numpy.dtype("float64")) for offset in (0, 256)]
        assert_close(parts[0], numpy.zeros((4, 6)))
        assert runtime.pointer(parts[1]) - runtime.pointer(parts[0]) == 256
        runtime.assign(parts[0], device.array(x))
        runtime.copy(parts[1], parts[0])
        device.finish()
        assert_close(parts[1], x)
        runtime.assign(parts, [device.array(x + 1), device.array(x + 2)])
        copied = runtime.copies([parts[0], parts[1].T, device.array(x)[:, ::2]])
        runtime.assign(parts, [device.array(0 * x)] * 2)
        for one, other in zip(copied, (x + 1, (x + 2).T, x[:, ::2]), strict=True):
            assert_close(one, other)
        turned = device.array(x).T
        in_order = runtime.contiguous([turned, parts[0]])
        assert_close(in_order[0], x.T)
        assert in_order[1] is parts[0]
        assert not runtime.is_capturing()


def each_function(dtype):
    """Compare all functions of a dtype that kernels have."""
    kind = numpy.dtype(dtype).kind
    names = {name for name, row in FUNCTIONS.items() if kind in row.c}
    names -= {"astype", "where", "bitwise_left_shift", "bitwise_right_shift"}  # called below
    names -= {"maximum", "minimum"} if kind == "b" else set()  # not in the standard

    def f(x, y):
        xp = extended_namespace(x)
        x, y = xp.where(x == y, x, x), xp.where(x == y, y, y)  # so that the rest becomes one kernel with it
        results = {name: xp.astype(x, getattr(xp, name)) for name in ("float64", "float32", "bool")}
        if kind == "i":
            results |= {"left": x << 3, "right": x >> 3}
        for name in sorted(names):
            function = xp.special.erf if name == "special.erf" else getattr(xp, name)
            results[name] = function(x, y) if name in BROADCASTING else function(x)
        return results

    def draw(random):
        if kind == "f":
            x, y = random.normal(size=(2, 300)).astype(dtype)
            x[:6] = [numpy.nan, numpy.inf, -numpy.inf, 0.0, -0.0, 300.0]
            return x, y
        return tuple(random.integers(-(kind == "i"), 2 if kind == "b" else 100, size=(2, 300)).astype(dtype))

    def compare(device):
        # NVIDIA's and NumPy's functions are within 4 units in the last place each.
        replay(device, f, draw, lambda a, b: assert_close(a, b, 8 if b.dtype.kind == "f" else 0))

    check(compare, f"each function in {dtype}")


for dtype in ("float32", "float64", "int32", "bool"):
    each_function(dtype)


@check
def kernels_flat(device):
    """Arrays repeated along each axis, and more elements than threads."""

    def f(x, row, column, number):
        xp = xpnet.array_namespace(x)
        y = xp.maximum(x * row + column, number) - row
        return y, xp.stack([y, x], axis=1), xp.where(x > column, y, number)

    def draw(random):
        return [integers(random, *shape) for shape in ((5000, 130), (130,), (5000, 1), ())]

    replay(device, f, draw, assert_close)


@check
def kernels_of_views(device):
    """Transposed, reversed, repeated, with steps; of totals of any axes, and copies of what is reshaped."""

    def f(x, y):
        xp = xpnet.array_namespace(x)
        turned = xp.permute_dims(x, (2, 0, 1))
        whole = turned[:, ::-1] * y[None, :, :1] + turned[::2, :, :1][0]
        rows = xp.sum(x, axis=1), xp.max(turned, axis=(0, 2)), xp.sum(turned[:, ::2], axis=0)
        first, *_, last = xp.unstack(x, axis=1)
        return whole, rows, xp.reshape(turned, (-1, x.shape[1])) + y[1], first * last, x[0, 0, 0] * y

    replay(device, f, lambda random: (integers(random, 60, 70, 9), integers(random, 60, 70)), assert_close)


@check
def kernels_in_rows(device):
    """What is known at the end of a row; rows that are kept, and some that are too long for that."""

    def f(x, labels):
        xp = xpnet.array_namespace(x)
        shifted = x - xp.max(x, axis=-1, keepdims=True)
        logarithms = shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
        return logarithms, xp.take_along_axis(logarithms, labels, axis=-1)

    for rows, columns in ((500, 10), (3, 1000), (2, 20_000)):

        def draw(random, shape=(rows, columns)):
            x = random.normal(size=shape).astype("float32")
            return x, random.integers(-shape[1], shape[1], size=(shape[0], 1))

        # Of the terms of a row, and of the largest number that is subtracted, at most 8.
        replay(device, f, draw, lambda a, b, n=columns: assert_close(a, b, n + 8, abs(b) + 8))


@check
def kernels_in_strips(device):
    """Totals that leave a row, beside totals of all, by several blocks: the counters start at zero again."""

    def f(x):
        xp = xpnet.array_namespace(x)
        y = xp.abs(x)
        rows = xp.sum(x, axis=0), xp.max(x, axis=0), xp.sum(y * x, axis=0)
        return rows, xp.sum(y), xp.min(x), xp.sum(x, axis=1), xp.sum(x * 2, axis=0)

    for shape in ((1, 70), (300, 40), (300, 200), (70, 1000), (5000, 3)):
        replay(device, f, lambda random, shape=shape: [integers(random, *shape)], assert_close)


@check
def kernels_at_once(device):
    """Of each kind, for arrays of one block and of several."""

    def f(*arrays):
        xp = xpnet.array_namespace(*arrays)
        return [
            (2 * x + 1, xp.sum(x), x - xp.max(x, axis=-1, keepdims=True), xp.sum(x, axis=0)) for x in arrays
        ]

    def draw(random):
        return [integers(random, rows, columns) for columns in (5, 70) for rows in (2, 3, 300)]

    replay(device, f, draw, assert_close)


@check
def sums_in_double_precision(device):
    """Rounded once, at the end."""

    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.sum(x), xp.mean(x)

    recorded = xpnet.jit(f)
    for number in range(4):
        x = numpy.random.default_rng(number).normal(size=100_003).astype("float32")
        total, mean = recorded(device.array(x))
        assert_close(total, x.sum(dtype="float64"), 1)
        assert_close(mean, x.mean(dtype="float64"), 1)


# -- graphs -------------------------------------------------------------------------------------------------


@check
def capture_and_launch(device):
    runtime = device.runtime
    with runtime.active():
        grid = c.Grid((1, 1), (32, 1), 0)
        source = (
            'extern "C" __global__ void kernel(float* x, double step, Index size) {\n'
            "    for (Index i = threadIdx.x; i < size; i += blockDim.x) x[i] += (float)step;\n}\n"
        )
        kernel = runtime.kernel(source, grid)
        x = device.array(numpy.zeros(50, "float32"))
        kernel(x, 1.0, 50)
        launch, inside = runtime.capture(lambda: (kernel(x, 2.0, 50), runtime.is_capturing())[1:])
        assert inside == (True,)
        assert not runtime.is_capturing()
        for _ in range(3):
            launch()
        device.finish()
        assert_close(x, numpy.full(50, 7.0, "float32"))


@check
def captured_anew_for_other_places(device):
    """Two trainings with one step, each with parameters at places of their own."""
    step = xpnet.jit(lambda w, x: (w - x, xpnet.array_namespace(w).sum(w)), donate=("w",))
    one, two = (device.array(numpy.full(1000, value, "float32")) for value in (0, 1))
    x = numpy.arange(1000, dtype="float32")
    for k in range(1, 9):
        one, _ = step(one, device.array(x))
        two, total = step(two, device.array(2 * x))
        assert_close(one, -k * x)
        assert_close(two, 1 - 2 * k * x)
        assert_close(total, (1 - 2 * (k - 1) * x).sum())
    assert "not captured" not in step.explain()


@check
def arguments_that_move(device):
    """What comes at another place each time is copied; what overlaps is not written over."""
    random = numpy.random.default_rng(0)
    f = xpnet.jit(lambda w, x: (w + x, x * 2), donate=("w",))
    for _ in range(5):
        x = integers(random, 400)
        memory = device.array(x)
        y, z = f(memory[:200], memory[200:])
        assert_close(y, x[:200] + x[200:])
        assert_close(z, 2 * x[200:])
        assert_close(memory, x)


@check
def a_loop_in_a_plan(device):
    def step(carried, x, w):
        xp = xpnet.array_namespace(carried, w)
        carried = xp.minimum(xp.maximum(carried @ w, 0) + x, 3)
        return carried, carried * 2

    def f(carried, xs, w):
        last, ys = xpnet.scan(step, carried, xs * 2, w)
        return last + 1, ys

    def draw(random):
        return integers(random, 2, 3), integers(random, 5, 2, 3), integers(random, 3, 3)

    recorded = xpnet.jit(f)
    for number in range(4):
        arrays = draw(numpy.random.default_rng(number))
        found = recorded(*map(device.array, arrays))
        for one, other in zip(found, f(*arrays), strict=True):
            assert_close(one, other)


@check
def random_numbers(device):
    """Of a plan, the same as on the host, and others in each step."""
    nets = [nn.Dropout(0.5, seed=0) for _ in range(2)]
    ours, theirs = xpnet.to_device(nets[0], device.device), nets[1]
    recorded = xpnet.jit(lambda net, x: net(x))
    x = numpy.ones((100, 100), "float32")
    seen = []
    for _ in range(5):
        seen.append(xpnet.to_numpy(recorded(ours, device.array(x))))
        assert_close(seen[-1], theirs(x))
    assert not any((a == b).all() for a, b in itertools.pairwise(seen))


def train(net, device, steps=5):
    optimizer = optim.SGD(0.1, momentum=0.5)

    def step(net, state, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradient, state, net), loss

    step = xpnet.jit(step, donate=("net", "state")) if device else step
    random = numpy.random.default_rng(0)
    state = optimizer.init(net)
    for _ in range(steps):
        x, y = random.normal(size=(8, 4)).astype("float32"), random.integers(0, 3, size=8)
        net, state, _ = step(net, state, *(map(device.array, (x, y)) if device else (x, y)))
    return net


@check
def a_training(device):
    """With all epilogues that plans choose, in one graph."""

    def new():
        layers = nn.Dense(4, 5, seed=0), nn.ReLU(), nn.Dense(5, 5, seed=1), nn.ReLU(), nn.Dense(5, 3, seed=2)
        return nn.Sequential(*layers)

    found, expected = train(xpnet.to_device(new(), device.device), device), train(new(), None)
    for one, other in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        # Five steps forward and backward through three layers, each a sum of up to eight terms.
        assert_close(one, other, 5 * 2 * 3 * 8, numpy.max(abs(other)))


@check
def not_a_number_before_a_relu(device):
    """NumPy keeps it."""

    def f(x, w, b):
        return xpnet.array_namespace(x).maximum(x @ w + b, 0)

    def draw(random):
        x = integers(random, 40, 8)
        x[3, 2] = numpy.nan
        return x, integers(random, 8, 16), integers(random, 16)

    replay(device, f, draw, assert_close)


@on_gpu
def two_threads_with_one_plan(device):
    def f(x, w, b):
        return xpnet.array_namespace(x).maximum(x @ w + b, 0)

    recorded, wrong = xpnet.jit(f), []

    def work(number):
        try:
            random = numpy.random.default_rng(number)
            for _ in range(50):
                arrays = integers(random, 64, 32), integers(random, 32, 16), integers(random, 16)
                with xpnet.use_device(device.device):
                    assert_close(recorded(*map(device.array, arrays)), f(*arrays))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


# -- what xpnet asks of CuPy besides ------------------------------------------------------------------------


@on_gpu
def devices(device):
    from xpnet.backends import cupy as ours

    assert backends.cuda_problem() is None
    assert ours._old_driver() is None
    assert "cuda:0" in xpnet.devices()
    assert xpnet.device("cuda:0") == device.device
    with raises(DeviceUnavailableError, "numbered from 0"):
        xpnet.device("cuda:99")
    native = device.device.native
    assert 0 < device.device.library.free_memory(native) <= native.mem_info[1]
    x = numpy.arange(6.0).reshape(2, 3)
    assert_close(device.device.library.to_numpy(device.array(x).T), x.T)


@on_gpu
def uploads_on_another_stream(device):
    uploads = device.device.library.uploads()
    sources = [numpy.full((1000, 100), number, "float32") for number in range(8)]
    with contextlib.closing(uploads):
        # Each is used by what is computed next, while the one behind it is under way.
        ready = [uploads.begin([source, device.array(source)]) for source in sources[:2]]
        for number, source in enumerate(sources):
            there, same = ready.pop(0)()
            assert_close(there * 2, 2 * source)
            assert_close(same, source)
            if number + 2 < len(sources):
                ready.append(uploads.begin([sources[number + 2], device.array(sources[number + 2])]))


@on_gpu
def out_of_memory_and_back(device):
    import cupy

    def step():
        large = cupy.empty(device.device.library.free_memory(native) // 4, "uint8")
        return large, cupy.empty(2 * native.mem_info[1], "uint8")

    native, pool = device.device.native, cupy.get_default_memory_pool()
    gc.collect()
    used = pool.used_bytes()
    with raises(OutOfDeviceMemoryError, "batch_size"), backends.clear_errors():
        step()
    assert pool.used_bytes() <= used, f"{used} bytes were used before, {pool.used_bytes()} after"
    a_training(device)


@functools.partial(check, last=True, on_gpu=True)
def an_illegal_address(device):
    """What is said of a device that is lost, and that this is noticed."""
    import cupy

    kernel = cupy.RawKernel('extern "C" __global__ void kernel(float* x) { *x = 1; }', "kernel")
    with raises(DeviceLostError, "anew"), backends.clear_errors():
        kernel((1,), (1,), (numpy.intp(64),))
        device.finish()
    assert is_lost()
