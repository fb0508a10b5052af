"""Libraries and devices: from a device spec such as ``"cuda:1"`` to arrays on that device.

Each library has a file that says what is particular to it, and its place in `LIBRARIES` in `specs.py`.
"""

from xpnet.arrays import concrete
from xpnet.backends.arrays import (
    asarray,
    at_least_single,
    check_together,
    copied,
    describe,
    device_of,
    in_dtype,
    is_known,
    is_numpy_number,
    is_on_host,
    library_of,
    numpy_dtype,
    plain_namespace,
    quick_functions,
    special_functions,
    to_device,
    to_numpy,
)
from xpnet.backends.cupy import cuda_problem
from xpnet.backends.library import Device, Library
from xpnet.backends.reading import as_numbers, column_names, columns_of, has_bool_columns, unmasked
from xpnet.backends.specs import (
    LIBRARIES,
    LibraryStatus,
    clear_errors,
    device,
    devices,
    use_device,
)

__all__ = [
    "LIBRARIES",
    "Device",
    "Library",
    "LibraryStatus",
    "as_numbers",
    "asarray",
    "at_least_single",
    "check_together",
    "clear_errors",
    "column_names",
    "columns_of",
    "concrete",
    "copied",
    "cuda_problem",
    "describe",
    "device",
    "device_of",
    "devices",
    "has_bool_columns",
    "in_dtype",
    "is_known",
    "is_numpy_number",
    "is_on_host",
    "library_of",
    "numpy_dtype",
    "plain_namespace",
    "quick_functions",
    "special_functions",
    "to_device",
    "to_numpy",
    "unmasked",
    "use_device",
]
