"""JAX, on all of its devices."""

from typing import Any

import numpy

from xpnet.backends.library import Library, number_of_device
from xpnet.errors import DeviceUnavailableError


def _find_jax_device(name: str) -> Any:
    import jax

    platform, _, number = name.partition(":")
    if platform.isdecimal():
        platform, number = "", name
    try:
        devices = jax.devices(platform or None)
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise DeviceUnavailableError(f'JAX cannot use "{name}" here: {first_line}') from None
    return devices[number_of_device(number, len(devices), f"jax:{platform}" if platform else "jax")]


def _jax_specs() -> list[str]:
    import jax

    return [_jax_spec(device) for device in jax.devices()]


def _jax_spec(native: Any) -> str:
    return f"jax:{native.platform}:{native.id}"


def _jax_namespace() -> Any:
    import jax.numpy

    return jax.numpy


def _jax_defaults() -> Any:
    import jax

    return jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision


JAX = Library(
    name="JAX",
    spec="jax",
    module="jax",
    install="pip install jax",
    namespace=_jax_namespace,
    find_device=_find_jax_device,
    device_specs=_jax_specs,
    spec_of=_jax_spec,
    to_numpy=numpy.asarray,
    special="jax.scipy.special",
    defaults=_jax_defaults,
)
