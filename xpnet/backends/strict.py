"""array-api-strict, which has the standard and nothing else, to test with."""

from typing import Any

import numpy

from xpnet.backends.library import Library
from xpnet.errors import DeviceUnavailableError


def _find_strict_device(name: str) -> Any:
    import array_api_strict

    try:
        return array_api_strict.Device(name or "CPU_DEVICE")
    except ValueError:
        specs = ", ".join(_strict_specs())
        raise DeviceUnavailableError(f'array-api-strict has no device "{name}". It has: {specs}.') from None


def _strict_specs() -> list[str]:
    import array_api_strict

    known: Any = array_api_strict.__array_namespace_info__().devices()
    return ["strict", *map(_strict_spec, known[1:])]


def _strict_spec(native: Any) -> str:
    return f"strict:{native._device}"


def _strict_to_numpy(x: Any) -> numpy.ndarray:
    import array_api_strict

    return numpy.asarray(x.to_device(array_api_strict.Device("CPU_DEVICE")))


def _strict_namespace() -> Any:
    import array_api_strict

    return array_api_strict


STRICT = Library(
    name="array-api-strict",
    spec="strict",
    module="array_api_strict",
    install="pip install array-api-strict",
    namespace=_strict_namespace,
    find_device=_find_strict_device,
    device_specs=_strict_specs,
    spec_of=_strict_spec,
    to_numpy=_strict_to_numpy,
    special="",
)
