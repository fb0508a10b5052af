"""What is called of CuPy, nvmath-python and cuBLASLt, where these are installed. No GPU is needed.

`nox -s cuda-bindings` installs them. cuBLASLt makes descriptors as soon as it finds a driver, and a stand-in
for one is enough: only the choice of an algorithm, and the product itself, need a GPU.
"""

import ast
import ctypes
import functools
import importlib
import inspect
import itertools
import pickle
import re
import shutil
import subprocess
import threading
import time
import types
from pathlib import Path

import numpy
import pytest

import xpnet
from xpnet import backends
from xpnet.distributed.nccl import _NUMBERS
from xpnet.replay.plans.cuda_products import ALIGNMENT_OF_BIAS, Matrix, Product

cupy = pytest.importorskip("cupy")
cupyx = pytest.importorskip("cupyx")

pytestmark = pytest.mark.peers

PACKAGE = Path(xpnet.__file__).parent

# As much of a driver as is asked for: its version, and that there is no device.
DRIVER = """
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuInit(unsigned int flags) { return 100; }
int cuGetProcAddress_v2(const char* name, void** f, int version, unsigned long long flags, void* status) {
    return 500;
}
"""


@pytest.fixture(scope="module")
def cublaslt(tmp_path_factory):
    """The module of nvmath-python, with the driver, or a stand-in for it."""
    pytest.importorskip("nvmath")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        compiler = shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            pytest.skip("there is no driver, and no C compiler to make a stand-in for it")
        source = tmp_path_factory.mktemp("driver") / "cuda.c"
        source.write_text(DRIVER)
        driver = source.with_name("libcuda.so.1")
        options = ["-shared", "-fPIC", f"-Wl,-soname,{driver.name}"]
        subprocess.run([compiler, *options, str(source), "-o", str(driver)], check=True)
        ctypes.CDLL(str(driver), mode=ctypes.RTLD_GLOBAL)  # who looks for that name from now on finds it
    return importlib.import_module("nvmath.bindings.cublasLt")


# -- names ------------------------------------------------------------------------------------------------


def chain(node):
    """Return the names of ``a.b.c``, or None."""
    if isinstance(node, ast.Name):
        return (node.id,)
    before = chain(node.value) if isinstance(node, ast.Attribute) else None
    return (*before, node.attr) if before else None


def names_in(path, roots):
    """Return the dotted names in a file that begin with one of some names."""
    found = (chain(node) for node in ast.walk(ast.parse((PACKAGE / path).read_text())))
    return sorted({".".join(names) for names in found if names and names[0] in roots and len(names) > 1})


OF_CUPY = [
    (path, name)
    for path in (
        *("replay/plans/cuda_runtime.py", "backends/cupy.py", "backends/cupy_special.py"),
        "distributed/nccl.py",
    )
    for name in names_in(path, {"cupy", "cupyx"})
]


@pytest.mark.parametrize(("path", "name"), OF_CUPY)
def test_what_is_named_of_cupy_exists(path, name):
    """Each name in the source, as ``cupy.cuda.Stream``."""
    root, *rest = name.split(".")
    value = importlib.import_module(root)
    for part in rest:
        if isinstance(value, types.ModuleType) or hasattr(value, part):
            value = getattr(value, part)
        else:  # of an object that only a device has: see METHODS
            assert part in {known.rpartition(".")[2] for known in METHODS}
            return


def test_what_is_named_of_nvmath_exists(cublaslt):
    cublas = importlib.import_module("nvmath.bindings.cublas")
    names = {
        "library": cublaslt,
        "cublasLt": cublaslt,
        "cublas": cublas,
    }
    found = names_in("replay/plans/cuda_runtime.py", set(names))
    assert len(found) > 15
    for name in found:
        root, *rest = name.split(".")
        value = names[root]
        for part in rest:
            value = getattr(value, part)
    enums = [cublaslt.MatmulDescAttribute, cublaslt.MatrixLayoutAttribute, cublaslt.MatmulPreferenceAttribute]
    for name in names_in("replay/plans/cuda_runtime.py", {"attribute"}):
        assert any(hasattr(enum, name.partition(".")[2]) for enum in enums)


def parameters(function):
    """Return the names of a function's parameters, which Cython writes in the first line of a docstring."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        inside = re.search(r"\((.*?)\)( ->|$)", function.__doc__.strip().splitlines()[0])[1]
        names = [part.partition("=")[0].split()[-1].strip("*") for part in inside.split(",") if part.strip()]
        return [name for name in names if name]


# Methods and functions, and what they are called with: the number of arguments, and the names of others.
METHODS = {
    "cupy.RawModule": (0, ["code", "options"]),
    "cupy.RawModule.get_function": (1, []),
    "cupy.RawKernel.__call__": (3, []),
    "cupy.copyto": (2, []),
    "cupy.cuda.Device": (1, []),
    "cupy.cuda.Event": (0, ["disable_timing"]),
    "cupy.cuda.Event.record": (1, []),
    "cupy.cuda.Event.synchronize": (0, []),
    "cupy.cuda.Graph.launch": (1, []),
    "cupy.cuda.MemoryPointer.copy_from_device_async": (2, []),
    "cupy.cuda.MemoryPool": (0, []),
    "cupy.cuda.MemoryPool.free_all_blocks": (0, []),
    "cupy.cuda.MemoryPool.free_bytes": (0, []),
    "cupy.cuda.MemoryPool.get_limit": (0, []),
    "cupy.cuda.MemoryPool.malloc": (1, []),
    "cupy.cuda.MemoryPool.total_bytes": (0, []),
    "cupy.cuda.MemoryPool.used_bytes": (0, []),
    "cupy.cuda.Stream": (0, ["non_blocking"]),
    "cupy.cuda.Stream.begin_capture": (0, []),
    "cupy.cuda.Stream.end_capture": (0, []),
    "cupy.cuda.Stream.is_capturing": (0, []),
    "cupy.cuda.Stream.record": (0, []),
    "cupy.cuda.Stream.synchronize": (0, []),
    "cupy.cuda.Stream.wait_event": (1, []),
    "cupy.cuda.get_current_stream": (0, []),
    "cupy.cuda.is_available": (0, []),
    "cupy.cuda.runtime.driverGetVersion": (0, []),
    "cupy.cuda.runtime.getDeviceCount": (0, []),
    "cupy.cuda.runtime.runtimeGetVersion": (0, []),
    "cupy.cuda.using_allocator": (1, []),
    "cupy.empty": (2, []),
    "cupy.full": (2, []),
    "cupy.ndarray.get": (0, []),
    "cupy.ndarray.set": (1, ["stream"]),
    "cupy.zeros": (2, []),
    "cupy.add.at": (3, []),
    "cupyx.empty_pinned": (2, []),
}


@pytest.mark.parametrize("name", METHODS)
def test_cupy_takes_what_it_is_called_with(name):
    positional, named = METHODS[name]
    value = {"cupy": cupy, "cupyx": cupyx}[name.partition(".")[0]]
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    taken = [each for each in parameters(value) if each != "self"]
    assert len(taken) >= positional
    assert set(named) <= set(taken)


NCCL = {
    "NcclCommunicator.allGather": ["sendbuf", "recvbuf", "count", "datatype", "stream"],
    "NcclCommunicator.allReduce": ["sendbuf", "recvbuf", "count", "datatype", "op", "stream"],
    "NcclCommunicator.broadcast": ["sendbuff", "recvbuff", "count", "datatype", "root", "stream"],
    "NcclCommunicator.check_async_error": [],
    "NcclCommunicator.reduceScatter": ["sendbuf", "recvbuf", "recvcount", "datatype", "op", "stream"],
    "get_unique_id": [],
    "get_version": [],
    "groupEnd": [],
    "groupStart": [],
}


def test_nccl_is_called_as_it_is():
    nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        pytest.skip("NCCL is not installed")
    for name, expected in NCCL.items():
        value = functools.reduce(getattr, name.split("."), nccl)
        inside = re.search(r"\((.*?)\)", value.__doc__.strip().splitlines()[0])[1]
        taken = [each.split()[-1] for each in inside.split(", ") if each not in ("", "self")]
        assert taken == expected, name
    source = (PACKAGE / "distributed/nccl.py").read_text()
    called = set(re.findall(r"ommunicator\.(\w+)\(", source)) | set(re.findall(r"nccl\.(\w+)\(", source))
    assert called - {"NcclCommunicator"} == {name.rpartition(".")[2] for name in NCCL}
    for name in {*_NUMBERS.values(), "NCCL_UINT8", "NCCL_SUM"}:
        assert isinstance(int(getattr(nccl, name)), int)
    identity = nccl.get_unique_id()
    assert pickle.loads(pickle.dumps(identity)) == identity


ATTRIBUTES = {
    "cupy.cuda.Device": ["__enter__", "__exit__", "attributes", "id", "mem_info", "pci_bus_id"],
    "cupy.cuda.Event": ["done"],
    "cupy.cuda.MemoryPointer": ["__add__", "ptr"],
    "cupy.ndarray": ["base", "data", "device", "dtype", "flags", "nbytes", "shape"],
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_cupys_objects_have_what_is_read_of_them(name):
    value = cupy
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    assert all(hasattr(value, attribute) for attribute in ATTRIBUTES[name])


def test_what_is_different_about_cupy():
    assert cupy.cuda.Device.__hash__ is None  # so that none is a key of a cache
    assert (cupy.cuda.Stream.null.ptr, cupy.cuda.Stream.ptds.ptr) == (0, 2)
    assert not hasattr(cupy.ndarray, "__array_namespace__")  # so that array-api-compat is needed


def test_errors_are_known_by_their_modules():
    from cupy.cuda.memory import OutOfMemoryError
    from cupy.cuda.runtime import CUDARuntimeError

    assert issubclass(OutOfMemoryError, MemoryError)
    for kind in (OutOfMemoryError, CUDARuntimeError):
        assert backends.specs.library_of_type(kind).name == "CuPy"
    assert CUDARuntimeError.__name__.startswith("CUDA")
    for status in (2, 35, 46, 214, 700, 719):
        assert CUDARuntimeError(status).status == status


# Special functions that rules call, with arrays of floating-point numbers, or a number beside one.
SPECIAL = [
    "digamma", "entr", "erf", "erfc", "erfinv", "expit", "gamma", "gammaln", "i0", "i0e", "i1", "i1e",
    "erfcx", "inv_boxcox", "j0", "j1", "k0", "k1", "log_ndtr", "logit", "ndtr", "ndtri", "rgamma", "xlog1py",
    "xlogy", "y0", "y1", "zeta",
]  # fmt: skip
OF_TWO = {"inv_boxcox", "xlog1py", "xlogy", "zeta"}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_of_cupy_take_what_rules_give(name):
    function = getattr(backends.special_functions(importlib.import_module("array_api_compat.cupy")), name)
    both = 2 if name in OF_TWO else 1
    assert isinstance(function, cupy.ufunc)
    assert {"f" * both + "->f", "d" * both + "->d"} <= set(function.types)


def test_rules_call_no_other_special_function():
    """What CuPy lacks runs on the host; what a rule calls shall not."""
    rules = PACKAGE / "autodiff" / "rules"
    sources = ((rules / file).read_text() for file in ("special.py", "special_parts.py"))
    called = {name for text in sources for name in re.findall(r"xp\.special\.([a-z]\w*)\(", text)}
    assert called <= {*SPECIAL, "polygamma"}


# -- descriptors of cuBLASLt ------------------------------------------------------------------------------


def matrix(rows, columns, *, by_columns, matrices):
    step = (rows if by_columns else columns) + 2
    return Matrix(rows, columns, by_columns, step, matrices, 500 if matrices > 1 else 0)


EPILOGUES = ["", "BIAS", "RELU", "RELU_BIAS", "RELU_AUX", "RELU_AUX_BIAS", "DRELU", "DRELU_BGRAD"]
PRECISIONS = [("float64", "float32"), ("float32", "float32"), ("float32", "tf32")]
PRECISIONS += [("float16", "float16"), ("bfloat16", "bfloat16")]
PRODUCTS = [
    Product(
        first=matrix(6, 5, by_columns=first, matrices=matrices),
        second=matrix(5, 130, by_columns=second, matrices=matrices),
        dtype=dtype,
        result="float64" if dtype == "float64" else "float32",
        precision=precision,
        epilogue=epilogue,
        alignments=(8, 64),
    )
    for (dtype, precision), epilogue, first, second, matrices in itertools.product(
        PRECISIONS, EPILOGUES, (False, True), (False, True), (1, 3)
    )
    if not epilogue or (dtype != "float64" and matrices == 1)
]


class Descriptors:
    """What is read back of descriptors, by the names of the attributes."""

    def __init__(self, library):
        self._library = library

    def desc(self, what, *names):
        return self._read("matmul_desc", self._library.MatmulDescAttribute, what, names)

    def layout(self, what):
        names = "TYPE", "ORDER", "ROWS", "COLS", "LD", "BATCH_COUNT", "STRIDED_BATCH_OFFSET"
        return self._read("matrix_layout", self._library.MatrixLayoutAttribute, what, names)

    def preference(self, what, *names):
        return self._read("matmul_preference", self._library.MatmulPreferenceAttribute, what, names)

    def _read(self, kind, enum, what, names):
        read = getattr(self._library, f"{kind}_get_attribute")
        dtype_of = getattr(self._library, f"get_{kind}_attribute_dtype")
        found = []
        for name in names:
            value = numpy.zeros(1, dtype_of(enum[name]))
            written = numpy.zeros(1, numpy.uint64)
            read(what, enum[name], value.ctypes.data, value.nbytes, written.ctypes.data)
            assert written[0] == value.nbytes
            found.append(int(value[0]))
        return tuple(found)


@pytest.fixture
def multiply(cublaslt, monkeypatch):
    """Return a function that plans a product, with what the preference said; it chooses no algorithm."""
    cuda = importlib.import_module("xpnet.replay.plans.cuda_runtime")
    read = Descriptors(cublaslt)
    preferences = []

    def choose(_handle, _what, _a, _b, _c, _d, preference, number, found, count):
        names = [f"MIN_ALIGNMENT_{name}_BYTES" for name in "ABCD"]
        preferences.append(read.preference(preference, "MAX_WORKSPACE_BYTES", *names))
        assert number == 1
        assert found
        ctypes.c_int32.from_address(count).value = 1

    monkeypatch.setattr(cublaslt, "matmul_algo_get_heuristic", choose)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: types.SimpleNamespace(ptr=77))
    device = cuda.Cuda.__new__(cuda.Cuda)
    device._handle = 1
    return lambda product: (device.product(product), preferences[-1])


@pytest.mark.parametrize(
    "product", PRODUCTS, ids=lambda p: "-".join(map(str, (*p[2:6], p[0][2], p[1][2], p[0][4])))
)
def test_descriptors_hold_what_is_asked(product, cublaslt, multiply):
    """Row by row, memory holds the transposed matrix: the second operand comes first."""
    from nvmath import CudaDataType
    from nvmath.bindings import cublas

    read = Descriptors(cublaslt)
    made, preference = multiply(product)
    types_of = {
        "float16": "CUDA_R_16F",
        "bfloat16": "CUDA_R_16BF",
        "float32": "CUDA_R_32F",
        "float64": "CUDA_R_64F",
    }
    number = {name: CudaDataType[known].value for name, known in types_of.items()}
    compute = {"float64": "COMPUTE_64F"}.get(product.dtype, "COMPUTE_32F")
    compute += "_FAST_TF32" * (product.precision == "tf32")
    assert read.desc(made._what, "COMPUTE_TYPE", "SCALE_TYPE") == (
        cublas.ComputeType[compute], number[product.result],
    )  # fmt: skip
    assert read.desc(made._what, "TRANSA", "TRANSB") == (product.second.by_columns, product.first.by_columns)
    assert read.desc(made._what, "EPILOGUE") == (cublaslt.Epilogue[product.epilogue or "DEFAULT"],)
    has_bias = "BIAS" in product.epilogue or product.epilogue == "DRELU_BGRAD"
    has_mask = "AUX" in product.epilogue or "DRELU" in product.epilogue
    bias, mask, length = read.desc(made._what, "BIAS_POINTER", "EPILOGUE_AUX_POINTER", "EPILOGUE_AUX_LD")
    assert (bias, mask) == (ALIGNMENT_OF_BIAS * has_bias, ALIGNMENT_OF_BIAS * has_mask)
    assert length == (256 if has_mask else 0)  # bits for 130 columns, in multiples of 128
    by_column = cublaslt.Order.COL
    for layout, (kind, m) in zip(
        made._layouts, [(product.dtype, product.second), (product.dtype, product.first)], strict=False
    ):
        rows, columns = (m.rows, m.columns) if m.by_columns else (m.columns, m.rows)
        expected = (number[kind], by_column, rows, columns, m.step, m.matrices, m.apart)
        assert read.layout(layout) == expected
    result = number[product.result], by_column, 130, 6, 130, product.first.matrices, 6 * 130
    assert read.layout(made._layouts[2]) == result
    assert preference == (2**25, 64, 8, 256, 256)


def at(place, nbytes=0):
    """Return something that is at a place in memory, as an array of CuPy's."""
    return types.SimpleNamespace(data=types.SimpleNamespace(ptr=place), nbytes=nbytes)


@pytest.mark.parametrize("values", [[1, 2], [0.5, -0.0, 2.0], [at(0x100), at(2**47)]])
def test_a_list_is_handed_in_by_value(values):
    """As an array of size 1, the only one of the host that CuPy lets pass: the bytes of a struct."""
    cuda = importlib.import_module("xpnet.replay.plans.cuda_runtime")
    found = cuda.by_value(values)
    assert found.size == 1
    numbers = [x.data.ptr if isinstance(x, types.SimpleNamespace) else x for x in values]
    assert found.tobytes() == numpy.asarray(numbers).tobytes()
    assert found.nbytes == 8 * len(values)


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_a_product_is_called_with_its_operands(epilogue, cublaslt, multiply, monkeypatch):
    read, calls, taken = Descriptors(cublaslt), [], len(parameters(cublaslt.matmul))
    made, _ = multiply(next(p for p in PRODUCTS if p.epilogue == epilogue and p.dtype == "float32"))

    def matmul(*arguments):
        calls.append((arguments, read.desc(arguments[1], "BIAS_POINTER", "EPILOGUE_AUX_POINTER")))

    monkeypatch.setattr(cublaslt, "matmul", matmul)
    bias, mask = 0x500, 0x600
    more = {
        "BIAS": [bias], "RELU_BIAS": [bias], "RELU_AUX": [mask], "RELU_AUX_BIAS": [bias, mask],
        "DRELU": [mask], "DRELU_BGRAD": [mask, bias],
    }.get(epilogue, [])  # fmt: skip
    made(at(0x100, 40), at(0x200), at(0x300), at(0x400), *map(at, more))
    [((handle, what, one, a, a_layout, b, b_layout, zero, c, c_layout, d, d_layout, *rest), pointers)] = calls
    second, first, result = made._layouts
    assert (handle, what) == (1, made._what)
    assert (a, b, c, d) == (0x300, 0x200, 0x400, 0x400)
    assert (a_layout, b_layout, c_layout, d_layout) == (second, first, result, result)
    assert [ctypes.c_float.from_address(place).value for place in (one, zero)] == [1.0, 0.0]
    algorithm, *rest = rest
    assert algorithm == made._algorithm["algo"].ctypes.data
    assert rest == [0x100, 40, 77]
    assert pointers == (bias * (bias in more), mask * (mask in more))
    assert len(calls[0][0]) == taken


def test_two_threads_multiply_with_a_bias_of_their_own(cublaslt, multiply, monkeypatch):
    """One descriptor says to all threads where the bias is."""
    read, wrong = Descriptors(cublaslt), []
    made, _ = multiply(next(p for p in PRODUCTS if p.epilogue == "BIAS"))

    def matmul(_handle, what, _one, second, *_rest):
        time.sleep(0.0001)  # as the library lets other threads run
        if read.desc(what, "BIAS_POINTER") != (second,):
            wrong.append(second)

    def work(place):
        for _ in range(50):
            made(at(0x100), at(0x200), at(place), at(0x400), at(place))

    monkeypatch.setattr(cublaslt, "matmul", matmul)
    threads = [threading.Thread(target=work, args=(place,)) for place in (0x1000, 0x2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_cublaslt_refuses(cublaslt, multiply, monkeypatch):
    cuda = importlib.import_module("xpnet.replay.plans.cuda_runtime")
    relu = next(p for p in PRODUCTS if p.epilogue == "DRELU")
    with pytest.raises(cuda.ProductError, match="inner length of 1"):
        multiply(relu._replace(first=relu.first._replace(columns=1)))
    # As where there is no algorithm, and where the library raises an error.
    monkeypatch.setattr(cublaslt, "matmul_algo_get_heuristic", lambda *_: None)
    with pytest.raises(cuda.ProductError, match="knows no algorithm"):
        multiply(relu)

    def fails(*_):
        raise cublaslt.cuBLASLtError(15)

    for name in ("matmul_algo_get_heuristic", "matrix_layout_create", "matmul_desc_create"):
        monkeypatch.setattr(cublaslt, name, fails)
        with pytest.raises(cuda.ProductError, match="NOT_SUPPORTED"):
            multiply(relu)


def test_without_a_device_there_is_no_handle(cublaslt):
    """Which is an error of a kind that is expected."""
    if backends.cuda_problem() is None:
        pytest.skip("there is a device")
    with pytest.raises(cublaslt.cuBLASLtError):
        cublaslt.create()
