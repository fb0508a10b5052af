"""CuPy, on CUDA GPUs."""

import gc
import importlib
import importlib.util
import os
import shutil
import traceback
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy

from xpnet.backends.library import Library, number_of_device
from xpnet.errors import DeviceLostError, DeviceUnavailableError, OutOfDeviceMemoryError

# What launchers of several processes say of the number of this one on its machine, by names of environment
# variables: those of Open MPI, of MPICH and its like, and of Slurm.
_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def _number_on_machine() -> int:
    """Return the number of this process among those of its launcher on this machine; 0 without one."""
    found = (os.environ.get(name, "") for name in _LOCAL_RANKS)
    return next((int(number) for number in found if number.isdecimal()), 0)


def _find_cuda_device(name: str) -> Any:
    import cupy

    reason = cuda_problem()
    if reason:
        raise DeviceUnavailableError(reason)
    count = cupy.cuda.runtime.getDeviceCount()
    # Each process has a GPU of its own, if there are enough.
    number = number_of_device(name, count, "cuda") if name else _number_on_machine() % count
    return cupy.cuda.Device(number)


def how_to_install(cuda: int = 13) -> str:
    """Say how to install what xpnet needs for a version of CUDA. xpnet itself is in no index yet."""
    return f'`pip install ".[cuda{cuda}]"` in a copy of xpnet\'s repository'


@cache
def cuda_problem() -> str | None:
    """Say why CuPy cannot use a CUDA GPU here, or None if it can.

    Only a calculation shows that driver, compiler, headers and cuBLAS all work together.
    """
    if importlib.util.find_spec("cupy") is None:
        if shutil.which("nvidia-smi") is None:
            return "there is no NVIDIA driver here (nvidia-smi is missing), and CuPy is not installed."
        return f"CuPy is not installed. {how_to_install()} (or cuda12, by the driver) installs it."
    try:
        import cupy

        if not cupy.cuda.is_available():
            return (
                _old_driver() or "CuPy finds no usable NVIDIA GPU. `nvidia-smi` shows whether one is there."
            )
        ones = cupy.ones((2, 2), dtype=cupy.float32)
        if float((ones @ ones).sum()) != 8.0:
            return "CuPy's matrix product gives wrong numbers on this GPU. Update the driver and CuPy."
    except Exception as error:  # the libraries below CuPy have many kinds of their own
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"CuPy cannot run: {first_line}. {how_to_install()} brings CUDA's libraries along."
    return None


def _old_driver() -> str | None:
    """Say that the driver is too old for CuPy, if it is."""
    from cupy.cuda import runtime

    # 12080 is CUDA 12.8, and 0 no driver at all.
    driver, needed = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    if not 0 < driver < needed:
        return None
    instead = f", or {how_to_install(driver)} in place of this CuPy" if driver > 11 else ""
    return (
        f"the NVIDIA driver is too old: it is for CUDA {driver}, and this CuPy for CUDA {needed}. Install a "
        f"newer driver{instead}."
    )


def _cuda_specs() -> list[str]:
    import cupy

    return [f"cuda:{number}" for number in range(cupy.cuda.runtime.getDeviceCount())]


def _cuda_free_memory(native: Any) -> int:
    import cupy

    pool = cupy.get_default_memory_pool()
    with native:
        free, limit = native.mem_info[0] + pool.free_bytes(), pool.get_limit()
        return min(free, limit - pool.used_bytes()) if limit else free


class _CudaUploads:
    """Copies to a CUDA device beside its calculations: from pinned memory, on a stream of their own."""

    def __init__(self) -> None:
        import cupy

        # Another stream would wait for the default one, in which CuPy computes, and that one for it.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._under_way: deque[tuple[Any, list]] = deque()

    def begin(self, arrays: list) -> Callable[[], list]:
        import cupy
        import cupyx

        # Each call takes pinned memory until its copies are done, so the host may not run ahead for ever.
        while len(self._under_way) > 1:
            self._under_way.popleft()[0].synchronize()
        # This is memory of the stream that computes: what it was asked so far may still read what was there.
        moved = [cupy.empty(x.shape, x.dtype) if isinstance(x, numpy.ndarray) else x for x in arrays]
        copied, pinned = cupy.cuda.Event(disable_timing=True), []
        try:
            self._stream.wait_event(cupy.cuda.get_current_stream().record())
            for source, target in zip(arrays, moved, strict=True):
                if source is not target:
                    pinned.append(cupyx.empty_pinned(source.shape, source.dtype))
                    pinned[-1][...] = source
                    target.set(pinned[-1], stream=self._stream)
            copied.record(self._stream)
        except BaseException:  # Ctrl-C, say: no memory is given back to which something is being copied
            self.close()
            raise
        self._under_way.append((copied, pinned))

        def ready() -> list:
            cupy.cuda.get_current_stream().wait_event(copied)
            return moved

        return ready

    def close(self) -> None:
        self._stream.synchronize()
        self._under_way.clear()


# The numbers of CUDA's errors, which the runtime and the driver share.
_OUT_OF_MEMORY = 2
_DRIVER_TOO_OLD = 35
_UNAVAILABLE = 46  # another process has it for itself
_LOST = {
    *(214, 220, 226),  # uncorrectable errors of memory, of NVLink, and such as were contained
    *(700, 702, 714, 715, 716, 717, 718, 719, 721),  # a kernel that went wrong, after which nothing works
    999,
}


def _explain_cuda(error: Exception) -> Exception | None:
    import cupy

    code = getattr(error, "status", None) if type(error).__name__.startswith("CUDA") else None
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    if isinstance(error, MemoryError) or code == _OUT_OF_MEMORY:
        pool, device = cupy.get_default_memory_pool(), cupy.cuda.Device()
        free, total = device.mem_info
        held, used = pool.total_bytes(), pool.used_bytes()
        # The arrays of the calls that did not come to their end, and what plans held for them.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        pool.free_all_blocks()
        return OutOfDeviceMemoryError(
            f"what is computed must fit into the memory of cuda:{device.id}, but: {text}. Of its {total:,} "
            f"bytes {free:,} were free, and CuPy held {held:,}, of which arrays used {used:,}. Make the "
            "batches smaller (batch_size of `fit` and `predict`), or the network."
        )
    if code == _DRIVER_TOO_OLD:
        return DeviceUnavailableError(_old_driver() or f"the NVIDIA driver is too old: {text}. Update it.")
    if code == _UNAVAILABLE:
        return DeviceUnavailableError(
            f"the GPU cannot be used: {text}. `nvidia-smi` shows which program has it; end that one, or wait."
        )
    if code in _LOST:
        return DeviceLostError(
            f"the GPU stopped working for this process: {text}. Start the program anew, a training from its "
            "last checkpoint (resume of `fit`). If it happens again, look at `nvidia-smi -q` and the log of "
            "the system."
        )
    return None


CUPY = Library(
    name="CuPy",
    spec="cuda",
    module="cupy",
    install='pip install ".[cuda13]"',
    namespace=lambda: importlib.import_module("array_api_compat.cupy"),
    find_device=_find_cuda_device,
    device_specs=_cuda_specs,
    spec_of=lambda native: f"cuda:{native.id}",
    to_numpy=lambda x: x.get(),
    special="xpnet.backends.cupy_special",
    problem=cuda_problem,
    entered=lambda native: native,  # CuPy ignores ``device=`` in most functions
    free_memory=_cuda_free_memory,
    uploads=_CudaUploads,
    explain=_explain_cuda,
)
