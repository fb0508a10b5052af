"""What a plan asks of CUDA: memory, kernels, matrix products and graphs, by CuPy and nvmath-python.

This is the one file of `replay` that needs a GPU. Products go to cuBLASLt directly, since CuPy's own cannot
be captured in a graph: https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy

from xpnet.backends.cupy import how_to_install
from xpnet.replay.kernels.c import CUDA, OPTIONS, PRELUDE, Grid
from xpnet.replay.plans.cuda_products import (
    ALIGNMENT,
    ALIGNMENT_OF_BIAS,
    BIAS,
    DRELU,
    DRELU_BGRAD,
    RELU_AUX,
    RELU_AUX_BIAS,
    RELU_BIAS,
    Matrix,
    Product,
)
from xpnet.replay.plans.plan import first_line

# The most bytes that cuBLASLt may use beside its operands. NVIDIA advises 32 MiB from Hopper on.
WORKSPACE = 2**25

# CUDA's numbers for dtypes (cudaDataType).
_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}


class ProductError(RuntimeError):
    """A matrix product that cuBLASLt cannot do with an epilogue."""


class Cuda:
    """A CUDA device, as plans see it: a `Runtime`, and more.

    Attributes
    ----------
    problem : str
        Why nothing can be captured, or nothing.
    processors : int
        How many multiprocessors the device has.
    """

    alignment = ALIGNMENT
    has_numbers = False
    empty = None  # what is captured makes no arrays

    ProductError = ProductError

    def __init__(self, device: int) -> None:
        self._device = cupy.cuda.Device(device)
        self.processors = self._device.attributes["MultiProcessorCount"]
        self.problem, self._handle = "", 0
        try:
            from nvmath.bindings import cublasLt

            with self._device:
                self._handle = cublasLt.create()
        except Exception as error:  # what it imports, and the libraries that it looks for, may be missing
            self.problem = (
                f"nvmath-python cannot be used, {first_line(error)}; {how_to_install()} brings it and what "
                "it needs"
            )

    @staticmethod
    def of(x: Any) -> "Cuda":
        """Return the device of an array."""
        return _device(x.device.id)

    def active(self) -> Any:
        """Return a context in which it is the current device."""
        return self._device

    def queue(self) -> Any:
        """Return what is the same as long as all that is started comes one after the other."""
        stream = cupy.cuda.get_current_stream().ptr
        return (stream, threading.get_ident()) if stream == cupy.cuda.Stream.ptds.ptr else stream

    # -- memory -------------------------------------------------------------------------------------------

    def memory(self, nbytes: int) -> Any:
        """Return memory in which all bytes are zero."""
        return cupy.zeros(max(nbytes, 1), cupy.uint8)

    def array(self, memory: Any, offset: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in a part of memory."""
        return cupy.ndarray(shape, dtype, memory.data + offset)

    def contiguous(self, arrays: Sequence) -> list:
        """Return arrays with their elements one after the other."""
        return [x if x.flags.c_contiguous else cupy.ascontiguousarray(x) for x in arrays]

    def pointer(self, x: Any) -> int:
        """Return where an array is."""
        return x.data.ptr

    def assign(self, targets: Any, values: Any) -> None:
        """Copy arrays into others."""
        several = isinstance(targets, list)
        for target, value in zip(targets, values, strict=True) if several else [(targets, values)]:
            cupy.copyto(target, value)

    def copy(self, target: Any, source: Any) -> None:
        """Copy the bytes of an array to another one, on the current stream."""
        target.data.copy_from_device_async(source.data, source.nbytes)

    def copies(self, arrays: Sequence) -> list:
        """Return copies of arrays, which begin at multiples of 512 bytes as all that CuPy makes."""
        made = []
        for x in arrays:
            new = cupy.empty(x.shape, x.dtype)
            if x.flags.c_contiguous:
                self.copy(new, x)
            else:
                cupy.copyto(new, x)
            made.append(new)
        return made

    # -- work ---------------------------------------------------------------------------------------------

    def kernel(self, source: str, grid: Grid) -> Callable:
        """Return a function that launches a kernel, which takes lists of arrays or of numbers by value."""
        function = _compiled(CUDA + PRELUDE + source)
        blocks, threads, _ = grid

        def launch(*arguments: Any) -> None:
            function(blocks, threads, tuple(by_value(x) if type(x) is list else x for x in arguments))

        return launch

    def capture(self, function: Callable[[], tuple]) -> tuple[Callable[[], None], tuple]:
        """Return what starts again all that a function starts on the device, and what that returns."""
        pool = cupy.cuda.MemoryPool()
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream, cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                outputs = function()
            except BaseException:
                # It is the first error that says what happened.
                with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
                    stream.end_capture()
                raise
            graph = stream.end_capture()

        def launch(_pool: Any = pool) -> None:  # which is kept with the graph, and freed with it
            graph.launch(cupy.cuda.get_current_stream())

        return launch, outputs

    def is_capturing(self) -> bool:
        """Say whether what is started now is captured."""
        return cupy.cuda.get_current_stream().is_capturing()

    def product(self, product: Product) -> "_Multiply":
        """Return a function ``f(workspace, first, second, result, *more)`` that multiplies matrices.

        Its ``workspace`` says how many bytes of memory it needs. ``more`` are the bias or the mask that is
        read, if any, and the mask or the gradient of a bias that is written, if any.

        Raises
        ------
        ProductError
            If cuBLASLt has none for this epilogue, these dtypes and layouts.
        """
        from nvmath.bindings import cublasLt

        try:
            return _Multiply(self._handle, product)
        except cublasLt.cuBLASLtError as error:
            raise ProductError(f"{product}: {first_line(error)}") from error


@functools.cache
def _device(number: int) -> Cuda:
    return Cuda(number)


@functools.cache
def _compiled(source: str) -> Any:
    # CuPy keeps what it compiled on disk.
    return cupy.RawModule(code=source, options=OPTIONS).get_function("kernel")


def by_value(values: list) -> numpy.ndarray:
    """Return a struct of numbers, or of where arrays are: the only array of the host that CuPy hands in."""
    numbers = numpy.asarray([x if isinstance(x, int | float) else x.data.ptr for x in values])
    return numbers.view([("of", numbers.dtype, len(values))])


class _Multiply:
    """A product, planned once.

    cuBLASLt thinks of matrices column by column: row by row, the same memory holds the transposed matrix. So
    result = first @ second is asked for as result.T = second.T @ first.T.

    Attributes
    ----------
    workspace : int
        Bytes of memory that it needs beside its operands.
    """

    def __init__(self, handle: int, product: Product) -> None:
        from nvmath.bindings import cublas, cublasLt

        self._library, self._handle, self._product = cublasLt, handle, product
        # The descriptor says where bias and mask are: two threads must not write that at once.
        self._lock = threading.Lock()
        epilogue = product.epilogue
        if epilogue in (DRELU, DRELU_BGRAD) and product.first.columns == 1:
            raise ProductError("cuBLASLt has no gradient of a ReLU behind a product of an inner length of 1.")
        compute = {
            "float64": cublas.ComputeType.COMPUTE_64F,
            "tf32": cublas.ComputeType.COMPUTE_32F_FAST_TF32,
        }.get("float64" if product.dtype == "float64" else product.precision, cublas.ComputeType.COMPUTE_32F)
        scale = "float64" if product.dtype == "float64" else "float32"
        self._one, self._zero = numpy.ones(1, scale), numpy.zeros(1, scale)
        self._what = cublasLt.matmul_desc_create(compute, _TYPES[scale])
        attribute = cublasLt.MatmulDescAttribute
        self._set(attribute.TRANSA, product.second.by_columns)
        self._set(attribute.TRANSB, product.first.by_columns)
        rows, columns = product.first.rows, product.second.columns
        self._layouts = [
            self._layout(_TYPES[product.dtype], product.second),
            self._layout(_TYPES[product.dtype], product.first),
            self._layout(
                _TYPES[product.result],
                Matrix(rows, columns, False, columns, product.first.matrices, rows * columns),
            ),
        ]
        self._pointers = self._set_epilogue(epilogue, columns)
        self._algorithm = self._choose()
        self.workspace = int(self._algorithm["workspace_size"][0])
        if self.workspace and epilogue:
            self.workspace += 16  # as nvmath-python does, around a fault of cuBLASLt

    def _set(self, attribute: int, value: int) -> None:
        buffer = numpy.full(1, int(value), self._library.get_matmul_desc_attribute_dtype(attribute))
        self._library.matmul_desc_set_attribute(self._what, attribute, buffer.ctypes.data, buffer.nbytes)

    def _set_epilogue(self, epilogue: str, columns: int) -> list[int]:
        """Return which pointers the descriptor holds, in the order in which they are handed in."""
        library, attribute = self._library, self._library.MatmulDescAttribute
        pointers = [
            pointer
            for pointer, names in (
                (attribute.BIAS_POINTER, (BIAS, RELU_BIAS, RELU_AUX_BIAS)),
                (attribute.EPILOGUE_AUX_POINTER, (RELU_AUX, RELU_AUX_BIAS, DRELU, DRELU_BGRAD)),
                (attribute.BIAS_POINTER, (DRELU_BGRAD,)),
            )
            if epilogue in names
        ]
        if epilogue:
            self._set(attribute.EPILOGUE, library.Epilogue[epilogue])
        if attribute.EPILOGUE_AUX_POINTER in pointers:
            self._set(attribute.EPILOGUE_AUX_LD, -(-columns // 128) * 128)
        for pointer in pointers:  # without one, no algorithm would be found
            self._set(pointer, ALIGNMENT_OF_BIAS)
        return pointers

    def _layout(self, kind: int, matrix: Matrix) -> int:
        library, attribute = self._library, self._library.MatrixLayoutAttribute
        long, short = (matrix.rows, matrix.columns)[:: 1 if matrix.by_columns else -1]
        layout = library.matrix_layout_create(kind, long, short, matrix.step)
        for name, value in (
            (attribute.BATCH_COUNT, matrix.matrices),
            (attribute.STRIDED_BATCH_OFFSET, matrix.apart),
        ):
            buffer = numpy.full(1, value, library.get_matrix_layout_attribute_dtype(name))
            library.matrix_layout_set_attribute(layout, name, buffer.ctypes.data, buffer.nbytes)
        return layout

    def _choose(self) -> numpy.ndarray:
        """Ask for the algorithm that is likely to be the fastest."""
        library, attribute = self._library, self._library.MatmulPreferenceAttribute
        preference = library.matmul_preference_create()
        of_first, of_second = self._product.alignments
        for name, value in (
            (attribute.MAX_WORKSPACE_BYTES, WORKSPACE),
            (attribute.MIN_ALIGNMENT_A_BYTES, of_second),
            (attribute.MIN_ALIGNMENT_B_BYTES, of_first),
            (attribute.MIN_ALIGNMENT_C_BYTES, ALIGNMENT),
            (attribute.MIN_ALIGNMENT_D_BYTES, ALIGNMENT),
        ):
            buffer = numpy.full(1, value, library.get_matmul_preference_attribute_dtype(name))
            library.matmul_preference_set_attribute(preference, name, buffer.ctypes.data, buffer.nbytes)
        second, first, result = self._layouts
        found = numpy.zeros(1, library.matmul_heuristic_result_dtype)
        number = numpy.zeros(1, numpy.int32)
        try:
            library.matmul_algo_get_heuristic(
                self._handle, self._what, second, first, result, result, preference, 1,
                found.ctypes.data, number.ctypes.data,
            )  # fmt: skip
        finally:
            library.matmul_preference_destroy(preference)
        if not number[0]:
            raise ProductError(f"cuBLASLt knows no algorithm for {self._product}.")
        return found

    def __call__(self, workspace: Any, first: Any, second: Any, result: Any, *more: Any) -> None:
        b, a, d = self._layouts
        with self._lock:
            for pointer, x in zip(self._pointers, more, strict=True):
                self._set(pointer, x.data.ptr)
            self._library.matmul(
                self._handle, self._what, self._one.ctypes.data, second.data.ptr, b, first.data.ptr, a,
                self._zero.ctypes.data, result.data.ptr, d, result.data.ptr, d,
                self._algorithm["algo"].ctypes.data, workspace.data.ptr, workspace.nbytes,
                cupy.cuda.get_current_stream().ptr,
            )  # fmt: skip

    def __del__(self) -> None:
        for layout in getattr(self, "_layouts", ()):
            self._library.matrix_layout_destroy(layout)
        if hasattr(self, "_what"):
            self._library.matmul_desc_destroy(self._what)
