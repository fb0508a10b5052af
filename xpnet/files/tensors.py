"""One file of named arrays in the safetensors format: written so that nothing is lost, read with suspicion.

The format is a header in JSON and then the memory of the arrays. The safetensors library reads it, which
checks all of the header. It is written here: that library writes bfloat16 from few array libraries, and
orders what it writes differently in different versions.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import safetensors

from xpnet.backends import Device, asarray, device, to_numpy
from xpnet.writing import replace

# The dtypes of the standard, and bfloat16, by their names in the format.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Tensor(NamedTuple):
    """An array in a file.

    Attributes
    ----------
    values : numpy.ndarray
        In float32 where the dtype is bfloat16, which NumPy has not.
    dtype : str
    """

    values: numpy.ndarray
    dtype: str

    @property
    def kind(self) -> str:
        """The dtype and the shape, as in error messages."""
        return f"{self.dtype} {tuple(self.values.shape)}"

    def on(self, spec: str | Device | None) -> Any:
        """Return the array on a device, in float32 where that has no bfloat16."""
        target = device(spec)
        known = self.dtype != "bfloat16" or hasattr(target.namespace, "bfloat16")
        return asarray(self.values, device=target, dtype=self.dtype if known else "float32")


def dtype_name(x: Any) -> str:
    """Return the name that the dtype of an array has in the standard."""
    return x.dtype.name if isinstance(x, numpy.ndarray) else str(x.dtype).rpartition(".")[2]


def kind(x: Any) -> str:
    """Return the dtype and the shape of an array, as in error messages."""
    return f"{dtype_name(x)} {tuple(x.shape)}"


def write(path: str | os.PathLike, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write arrays of any library to a file, beside its place, and move it there when it is whole on disk.

    Raises
    ------
    TypeError
        If the format has no such dtype.
    OSError
        If it cannot be written. An older file stays as it was.
    """
    stored = {name: _stored(x, name) for name, x in arrays.items()}
    header: dict[str, Any] = {}
    data: list[numpy.ndarray] = []
    end = 0
    # The longest elements first, so that each array begins at a multiple of its element.
    for name in sorted(stored, key=lambda name: (-stored[name][1].itemsize, name)):
        dtype, bits = stored[name]
        place = [end, end + bits.nbytes]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(bits.shape), "data_offsets": place}
        data.append(bits.reshape(-1).view(numpy.uint8))
        end += bits.nbytes
    digest = _digest(header, metadata, data)
    text = json.dumps({"__metadata__": {**metadata, "sha256": digest}, **header}).encode()
    text += b" " * (-len(text) % 8)
    replace(path, [len(text).to_bytes(8, "little"), text, *data])


def _stored(x: Any, name: str) -> tuple[str, numpy.ndarray]:
    """Return the dtype of an array, and its elements as they lie in a file."""
    dtype = dtype_name(x)
    if dtype not in _NAMES:
        raise TypeError(
            f"a file holds arrays of {', '.join(_NAMES)}; received {dtype} at {name}. Convert it, or save "
            "its real and its imaginary part."
        )
    host = numpy.asarray(to_numpy(x), order="C")
    if dtype == "bfloat16":  # the upper half of a float32
        host = (host.astype(numpy.float32).view(numpy.uint32) >> numpy.uint32(16)).astype(numpy.uint16)
    return dtype, host.astype(host.dtype.newbyteorder("<"), copy=False)


def _digest(header: dict[str, Any], metadata: dict[str, str], data: Iterable[Any]) -> str:
    """Return a checksum of a whole file."""
    digest = hashlib.sha256(json.dumps([header, metadata], sort_keys=True).encode())
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all arrays and the metadata of a safetensors file of any program.

    It is read into memory and not mapped: a file that changes or shrinks meanwhile cannot do harm.

    Raises
    ------
    ValueError
        If it is no such file, is damaged, or holds a dtype that the standard has not.
    """
    content = Path(path).read_bytes()
    try:
        flat = safetensors.deserialize(content)
        size = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:size])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as a safetensors file, it is damaged or another kind of file: {error}."
        ) from None
    metadata = header.pop("__metadata__", None) or {}
    if "sha256" in metadata and "xpnet" in metadata:
        digest = metadata.pop("sha256")
        if digest != _digest(header, metadata, [memoryview(content)[size:]]):
            raise ValueError(
                f"{path} was altered or damaged since it was written: its checksum is not that of its "
                "content. Take another copy."
            )
    return {name: _tensor(name, entry, path) for name, entry in flat}, metadata


def _tensor(name: str, entry: dict[str, Any], path: Any) -> Tensor:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"{path} holds {entry['dtype']} numbers at {name}, which xpnet cannot read.")
    kind = numpy.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")
    values = numpy.frombuffer(entry["data"], kind).reshape(entry["shape"])
    if dtype == "bfloat16":
        values = (values.astype(numpy.uint32) << numpy.uint32(16)).view(numpy.float32)
    return Tensor(values.astype(values.dtype.newbyteorder("="), copy=False), dtype)
