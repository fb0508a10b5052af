"""A stand-in for a CUDA device: kernels are compiled as C++ for the processor, products are NumPy's.

A block's threads run one after the other, each until the next barrier, on stacks of their own.
"""

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy

from xpnet.replay.kernels.c import PRELUDE
from xpnet.replay.plans.cuda import CudaPlan
from xpnet.replay.plans.cuda_products import ALIGNMENT, ALIGNMENT_OF_BIAS
from xpnet.replay.plans.numba_files import private
from xpnet.replay.precision import rounded
from xpnet.writing import replace

RUNNING = threading.Lock()  # one kernel at a time: its threads take turns
# For the threads of a block, which all kernels share: those of the suite are thousands, and stay loaded.
MEMORY = numpy.empty((1024, 2**15), numpy.uint8)
COMPILER = shutil.which("g++") or shutil.which("clang++")

BUILTINS = r"""
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ucontext.h>
using namespace std;
#define __global__
#define __device__
#define __shared__ static
#define LISTS
#define inf ((double)INFINITY)
#define not_a_number ((double)NAN)
struct Three { int x, y, z; };
static Three threadIdx, blockIdx, blockDim, gridDim;

static const int MOST = 1024;
struct Thread { ucontext_t context; bool done; alignas(16) char stack[30 << 10]; };
static_assert(sizeof(Thread) <= 1 << 15, "as there is so much memory for each");
static Thread* threads;
static ucontext_t scheduler;
static int present;

static void __syncthreads() { swapcontext(&threads[present].context, &scheduler); }
static void __threadfence() {}
static unsigned int atomicAdd(unsigned int* x, unsigned int by) { *x += by; return *x - by; }
template <class To, class From> static To same_bits(From x) { To y; memcpy(&y, &x, sizeof y); return y; }
static unsigned int __float_as_uint(float x) { return same_bits<unsigned int>(x); }
static float __uint_as_float(unsigned int x) { return same_bits<float>(x); }
static unsigned short half_from_float(float x) { return same_bits<unsigned short>((_Float16)x); }
static float float_from_half(unsigned short x) { return same_bits<_Float16>(x); }
// All threads of a block come here, as a kernel takes care that they do.
template <class T> static T __shfl_xor_sync(unsigned int, T x, int lane) {
    static T values[MOST];
    int me = present;
    values[me] = x;
    __syncthreads();
    T other = (me ^ lane) < blockDim.x * blockDim.y ? values[me ^ lane] : x;
    __syncthreads();
    return other;
}
"""

RUN = r"""
static void (*body)();
static void begin() { body(); threads[present].done = true; __syncthreads(); }
static void run(void (*f)(), int gx, int gy, int bx, int by) {
    body = f;
    gridDim = {gx, gy, 1}; blockDim = {bx, by, 1};
    for (int b = gx * gy - 1; b >= 0; b--) {  // in another order than a device would
        for (int t = 0; t < bx * by; t++) {
            ucontext_t& context = threads[t].context;
            getcontext(&context);
            context.uc_stack.ss_sp = threads[t].stack; context.uc_stack.ss_size = sizeof threads[t].stack;
            context.uc_link = &scheduler; threads[t].done = false;
            makecontext(&context, begin, 0);
        }
        for (bool more = true; more;) {
            more = false;
            for (int t = 0; t < bx * by; t++) if (!threads[t].done) {
                present = t; threadIdx = {t % bx, t / bx, 0}; blockIdx = {b % gx, b / gx, 0};
                swapcontext(&scheduler, &threads[t].context);
                more = more || !threads[t].done;
            }
        }
    }
}
"""

# Where NumPy's C-API has `PyDataMem_SetHandler`, and what it calls what that takes.
SET_HANDLER, NAME_OF_HANDLERS = 304, b"mem_handler"
ALLOCATE = """
#include <cstdlib>
extern "C" void* allocate(size_t alignment, size_t size) {
    return aligned_alloc(alignment, (size / alignment + 1) * alignment);
}
extern "C" void release(void*, void* memory, size_t) { free(memory); }
"""

LAUNCH = "Thread* memory, int gx, int gy, int bx, int by"


def plan_on(host):
    """Return the class of plans that run on a stand-in."""

    class HostPlan(CudaPlan):
        def _runtime_of(self, like):
            return host

        def _build(self, over):
            super()._build(over)
            for step in self._layout._steps:
                assert_apart(self._layout, step.parts)

        def _keeps_nan(self, product, function):
            launched = list(host.launched)
            try:
                return super()._keeps_nan(product, function)
            finally:
                host.launched[:] = launched  # as this is no run of the plan

    return HostPlan


def assert_apart(layout, parts):
    """Assert that none of what a device does at once touches what another one writes."""

    def places(variables):
        """Return which memory they are in, and from where to where: those in no buffer have all of it."""
        for x in map(layout._root.get, variables):
            start, size = layout.buffers.get(x, (0, 1))
            yield None if x in layout.buffers else layout.over.get(x, x), start, start + size

    for one, other in itertools.permutations(parts, 2):
        touched = [*places(other.inputs), *places(other.results)]
        for memory, start, end in places(one.results):
            meet = [x for x in touched if x[0] is memory and start < x[2] and x[1] < end]
            assert not meet, f"{one.results} are written where {other.inputs} or {other.results} are"


class Host:
    """What `xpnet.replay.plans.cuda_runtime.Cuda` is for a device; see there for its functions."""

    alignment = ALIGNMENT
    has_numbers = False
    empty = None

    class ProductError(RuntimeError):
        pass

    def __init__(
        self, *, problem="", refuses=lambda product: False, keeps_nan=lambda product: True, processors=3
    ):
        self.problem, self.processors, self._refuses = problem, processors, refuses
        self._keeps_nan = keeps_nan  # says so of the ReLU behind a product
        self.launched = []  # the names of what ran, in order
        self.graphs = 0
        # Where a stream is named, what is started waits there for `finish`, as the host is ahead of a device.
        self.stream = None
        self._waiting = {}
        self._capturing = None

    def queue(self):
        return self.stream

    def finish(self):
        """Do what was started on all streams, turn by turn."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for works in itertools.zip_longest(*waiting, fillvalue=lambda: None):
            for work in works:
                with RUNNING:
                    work()

    def memory(self, nbytes):
        return numpy.zeros(max(nbytes, 1) + 256, numpy.uint8)

    def array(self, memory, offset, shape, dtype):
        start = -memory.ctypes.data % 256
        return numpy.ndarray(shape, dtype, memory, start + offset)

    def contiguous(self, arrays):
        return [numpy.asarray(x, order="C") for x in arrays]

    def pointer(self, x):
        return x.ctypes.data

    def assign(self, targets, values):
        if self._capturing is not None:
            raise RuntimeError("a call of a library cannot be captured by this stand-in")
        several = isinstance(targets, list)
        for target, value in zip(targets, values, strict=True) if several else [(targets, values)]:
            target[...] = value

    def copy(self, target, source):
        self._do("copy", lambda: numpy.copyto(target, source))

    def copies(self, arrays):
        made = [aligned(x.shape, x.dtype) for x in arrays]
        for new, x in zip(made, arrays, strict=True):
            self.copy(new, x)
        return made

    def _do(self, name, work):
        if self._capturing is not None:
            self._capturing.append((name, work))
            return
        if name != "copy":
            self.launched.append(name)
        if self.stream is not None:
            self._waiting.setdefault(self.stream, []).append(work)
            return
        with RUNNING:
            work()

    def kernel(self, source, grid):
        function = compiled(source)

        def launch(*arguments):
            arguments = [by_value(x) if type(x) is list else x for x in arguments]
            values = [
                ctypes.c_void_p(x.ctypes.data) if isinstance(x, numpy.ndarray)
                else ctypes.c_double(x) if isinstance(x, float) else ctypes.c_longlong(x)
                for x in arguments
            ]  # fmt: skip
            (gx, gy), (bx, by), _ = grid
            values = [ctypes.c_void_p(MEMORY.ctypes.data), gx, gy, bx, by, *values]
            # The arguments are kept until then.
            self._do("kernel", lambda _kept=arguments: function(*values))

        return launch

    def product(self, product):
        drelu = product.epilogue.startswith("DRELU")
        if (drelu and product.first.columns == 1) or self._refuses(product):
            raise self.ProductError(product.epilogue)

        def multiply(workspace, first, second, result, *more):
            assert workspace.nbytes >= multiply.workspace
            for x, alignment in zip((first, second), product.alignments, strict=True):
                assert x.ctypes.data % alignment == 0
            for x in (result, *more):
                is_bias = "BIAS" in product.epilogue and x is more[0]
                assert x.ctypes.data % (ALIGNMENT_OF_BIAS if is_bias else ALIGNMENT) == 0
                assert x.flags.c_contiguous
            matrices = (operand(product, product.first, first), operand(product, product.second, second))
            relu = numpy.maximum if self._keeps_nan(product) else numpy.fmax
            self._do(product.epilogue or "product", lambda: epilogue(product, relu, *matrices, result, *more))

        multiply.workspace = 100
        return multiply

    def active(self):
        return contextlib.nullcontext()

    def is_capturing(self):
        return self._capturing is not None

    def capture(self, function):
        self._capturing = recorded = []
        try:
            outputs = function()
        finally:
            self._capturing = None
        self.graphs += 1

        def launch():
            for name, work in recorded:
                self._do(name, work)

        return launch, outputs


def aligned(shape, dtype):
    """Return an array that begins where CuPy's would, and is no view: such a one owns its memory."""
    set_handler, ours = _handler()
    before = set_handler(ours)
    try:
        return numpy.empty(shape, dtype)
    finally:
        set_handler(before)


class _Handler(ctypes.Structure):
    """NumPy's ``PyDataMem_Handler``: functions that allocate and free the memory of arrays."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


@functools.cache
def _handler():
    """Return NumPy's function that sets how arrays get their memory, and a way that `aligned` has."""
    path = _folder() / f"{_digest(ALLOCATE)}.so"
    _compile(path, "-shared", "-x", "c++", "-", text=ALLOCATE)
    library = ctypes.CDLL(str(path))
    allocate, release = (ctypes.cast(each, ctypes.c_void_p) for each in (library.allocate, library.release))
    # `empty` calls the one, and the end of an array the other. Nobody makes these arrays larger.
    handler = _Handler(b"aligned", 1, context=ALIGNMENT, malloc=allocate, free=release)
    new, pointer = ctypes.pythonapi.PyCapsule_New, ctypes.pythonapi.PyCapsule_GetPointer
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    pointer.restype, pointer.argtypes = ctypes.POINTER(ctypes.c_void_p), [ctypes.py_object, ctypes.c_char_p]
    functions = pointer(numpy._core._multiarray_umath._ARRAY_API, None)
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(functions[SET_HANDLER])
    for each in (handler, NAME_OF_HANDLERS):  # which arrays may need at the very end
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
    return set_handler, new(ctypes.addressof(handler), NAME_OF_HANDLERS, None)


def operand(product, matrix, x):
    """Return an operand as the product sees it: one matrix behind the other, from where an array begins."""
    steps = (1, matrix.step) if matrix.by_columns else (matrix.step, 1)
    x = numpy.lib.stride_tricks.as_strided(
        x,
        (matrix.matrices, matrix.rows, matrix.columns),
        [step * x.itemsize for step in (matrix.apart, *steps)],
        writeable=False,
    )
    return lambda: multiplied(product, x)


def multiplied(product, x):
    """Return the numbers that are multiplied."""
    if product.dtype == "float16":
        return x.view("float16").astype("float32")
    if product.dtype == "bfloat16":
        return (x.astype("uint32") << 16).view("float32")
    return rounded(numpy, x, precision="tf32") if product.precision == "tf32" else x


def is_positive(x):
    """Return what is noted in a mask."""
    return x > 0


def epilogue(product, relu, first, second, result, *more):
    """What cuBLASLt does, in the order of its documentation."""
    name, more = product.epilogue, list(more)
    x = first() @ second()
    if name:
        (x,) = x  # one matrix
    if "BIAS" in name:
        x = x + more.pop(0)
    columns = x.shape[-1]
    if name.startswith("DRELU"):
        bits = numpy.unpackbits(more.pop(0), axis=1, bitorder="little")[:, :columns]
        x = numpy.where(bits != 0, x, 0)
        if name == "DRELU_BGRAD":
            more.pop(0)[...] = x.sum(axis=0)
    elif "RELU" in name:
        if "AUX" in name:
            mask = more.pop(0)
            mask[...] = 0
            packed = numpy.packbits(is_positive(x), axis=1, bitorder="little")
            mask[:, : packed.shape[1]] = packed
        x = relu(x, 0)
    result[...] = x.reshape(result.shape)


def by_value(values):
    """Return numbers, or where arrays are, as they are handed in by value."""
    return numpy.array([x.ctypes.data if isinstance(x, numpy.ndarray) else x for x in values])


@functools.cache
def compiled(source):
    """Return a kernel as a function of its grid and its arguments, those by value by where they are."""
    head, _, _ = source[source.index("void kernel(") :].partition("{")
    arguments = head[head.index("(") + 1 : head.rindex(")")]
    arguments = arguments.replace("__restrict__", "").replace("LISTS const ", "")
    parts = [part.strip() for part in arguments.split(",")]
    names = [part.replace("*", " ").split()[-1] for part in parts]
    kept = "".join(
        f"static {part.rsplit(' ', 1)[0]} given_{name};\n" for part, name in zip(parts, names, strict=True)
    )
    text = "\n".join(
        [
            source, RUN, kept,
            f"static void start() {{ kernel({', '.join(f'given_{name}' for name in names)}); }}",
            f'extern "C" void launch({LAUNCH}, {arguments.replace("> ", ">& ")}) {{',
            *(f"    given_{name} = {name};" for name in names),
            "    threads = memory;",
            "    run(start, gx, gy, bx, by);",
            "}",
        ]
    )  # fmt: skip
    header = _included(BUILTINS + PRELUDE)
    path = header.with_name(f"{_digest(header.name + text)}.so")
    _compile(path, "-shared", "-include", str(header), "-x", "c++", "-", text=text)
    return ctypes.CDLL(str(path)).launch


@functools.cache
def _included(text):
    """Return a file with what all kernels begin with, which is compiled once: that takes half of the time."""
    header = _folder() / f"{_digest(text)}.h"
    replace(header, [text.encode()])
    _compile(header.with_suffix(".h.gch"), "-x", "c++-header", str(header))
    return header


def _folder():
    return private(Path(tempfile.gettempdir()) / f"xpnet-host-kernels-{os.getuid()}")


def _compile(path, *options, text=""):
    """Make a file, unless it is there."""
    if path.exists():
        return
    # Without contraction, so that results can be compared with NumPy's.
    options = ["-O1", "-std=c++17", "-fPIC", "-w", "-ffp-contract=off", *options]
    with tempfile.TemporaryDirectory(dir=path.parent) as own:  # as other processes compile the same
        made = Path(own) / path.name
        command = [COMPILER, *options, "-o", str(made)]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}\n{text}"
        made.rename(path)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:24]
