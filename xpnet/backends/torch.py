"""PyTorch, on all of its devices."""

import importlib
from typing import Any

import numpy

from xpnet.backends.library import Library
from xpnet.errors import DeviceUnavailableError


def _find_torch_device(name: str) -> Any:
    import torch

    try:
        # A small array has a full device, "cuda:0" for "cuda", and shows that the device works.
        return torch.empty(0, device=name or "cpu").device
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise DeviceUnavailableError(f'PyTorch cannot use "{name}" here: {first_line}') from None


def _torch_specs() -> list[str]:
    import torch

    return ["torch:cpu", *(f"torch:cuda:{number}" for number in range(torch.cuda.device_count()))]


def _torch_to_numpy(x: Any) -> numpy.ndarray:
    import torch

    return (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True)  # NumPy has no bfloat16


def _torch_readable(host: numpy.ndarray) -> numpy.ndarray:
    """Copy what PyTorch cannot read: it knows no read-only memory and no negative strides."""
    return host if host.flags.writeable and all(stride >= 0 for stride in host.strides) else host.copy()


def _torch_defaults() -> Any:
    import torch

    return torch.get_default_dtype()


TORCH = Library(
    name="PyTorch",
    spec="torch",
    module="torch",
    install="pip install torch",
    namespace=lambda: importlib.import_module("array_api_compat.torch"),
    find_device=_find_torch_device,
    device_specs=_torch_specs,
    spec_of=lambda native: f"torch:{native}",
    to_numpy=_torch_to_numpy,
    special="xpnet.backends.torch_special",
    readable=_torch_readable,
    defaults=_torch_defaults,
)
