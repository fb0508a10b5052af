"""One file of named arrays in the safetensors format: written so that nothing is lost, read with suspicion.

The format is a header in JSON and then the memory of the arrays. The safetensors library reads it, which
checks all of the header. It is written here: that library writes bfloat16 from few array libraries, and
orders what it writes differently in different versions.
"""

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import safetensors

from xpnet.backends import Device, asarray, device, to_numpy

# The dtypes of the standard, and bfloat16, by their names in the format.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# Texts, dates and durations, which NumPy alone has. The format has them not: they are written as their bytes.
OF_NUMPY = "USMm"

# What a file may say that a dtype is.
_DTYPE_TEXT = re.compile(
    r"[|<](b1|[iu][1248]|f[248]|c8|c16|[US][1-9]\d{0,8}|[Mm]8(\[\d{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)

# The longest header that the safetensors library reads.
_LONGEST_HEADER = 100_000_000


class Tensor(NamedTuple):
    """An array in a file.

    Attributes
    ----------
    values : numpy.ndarray
        In float32 where the dtype is bfloat16, which NumPy has not.
    dtype : str
        Its name.
    """

    values: numpy.ndarray
    dtype: str

    @property
    def kind(self) -> str:
        """The dtype and the shape, as in error messages."""
        return f"{self.dtype} {tuple(self.values.shape)}"

    def on(self, spec: str | Device | None) -> Any:
        """Return the array on a device, in float32 where that has no bfloat16; texts and dates as NumPy's."""
        if self.values.dtype.kind in OF_NUMPY:
            return self.values
        target = device(spec)
        known = self.dtype != "bfloat16" or hasattr(target.namespace, "bfloat16")
        return asarray(self.values, device=target, dtype=self.dtype if known else "float32")


def dtype_name(x: Any) -> str:
    """Return the name that the dtype of an array has in the standard."""
    return x.dtype.name if isinstance(x, numpy.ndarray) else str(x.dtype).rpartition(".")[2]


def kind(x: Any) -> str:
    """Return the dtype and the shape of an array, as in error messages."""
    return f"{dtype_name(x)} {tuple(x.shape)}"


def is_numpy_dtype(text: str) -> bool:
    """Say whether a text names a dtype of NumPy's that `from_bytes` knows."""
    return _DTYPE_TEXT.fullmatch(text) is not None


def from_bytes(content: bytes, shape: Sequence[int], text: str) -> numpy.ndarray:
    """Return numbers, texts or dates from their bytes, in the order of the machine.

    Parameters
    ----------
    content : bytes
    shape : sequence of int
    text : str
        The dtype, as NumPy says it.

    Raises
    ------
    ValueError
        If the dtype is another one, the bytes are not those of so many, or stand for no characters.
    """
    if not is_numpy_dtype(text):
        raise ValueError(f"{text!r} is no dtype of numbers, texts or dates")
    dtype = numpy.dtype(text)
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes are no {dtype} of the shape {tuple(shape)}")
    values = numpy.ndarray(shape, dtype, content)
    if dtype.kind == "U" and values.size and values.reshape(-1).view("<u4").max() > sys.maxunicode:
        raise ValueError("a text has something else than characters")
    return values.astype(dtype.newbyteorder("="))


def pack(arrays: dict[str, Any], metadata: dict[str, str]) -> list[Any]:
    """Return the content of a file in pieces of bytes.

    Parameters
    ----------
    arrays : dict of str to array or Tensor
    metadata : dict of str to str

    Raises
    ------
    TypeError
        If the format has no such dtype.
    ValueError
        If an array has a name that cannot be read again.
    """
    stored = {_checked(name): _stored(x, name) for name, x in arrays.items()}
    dtypes = {name: text for name, (_, _, text) in stored.items() if text}
    if dtypes:
        metadata = {**metadata, "dtypes": json.dumps(dtypes)}
    header: dict[str, Any] = {}
    data: list[numpy.ndarray] = []
    end = 0
    # The longest elements first, so that each array begins at a multiple of its element.
    for name in sorted(stored, key=lambda name: (-stored[name][1].itemsize, name)):
        dtype, bits, _ = stored[name]
        place = [end, end + bits.nbytes]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(bits.shape), "data_offsets": place}
        data.append(bits.reshape(-1).view(numpy.uint8))
        end += bits.nbytes
    digest = _digest(header, metadata, data)
    text = json.dumps({"__metadata__": {**metadata, "sha256": digest}, **header}).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise ValueError(
            f"what a file says besides the numbers in arrays must take at most {_LONGEST_HEADER} bytes, "
            f"received {len(text)}. Put long lists of numbers into arrays."
        )
    return [len(text).to_bytes(8, "little"), text, *data]


def _checked(name: str) -> str:
    """Return the name of an array, after a check that the format can hold it."""
    if name == "__metadata__" or not _is_text(name):
        raise ValueError(
            f"the name of an array in a file must be a text of whole characters other than __metadata__, "
            f"received {name!r}. Rename that key."
        )
    return name


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a half of a character, which UTF-8 has not
        return False
    return True


def _stored(x: Any, name: str) -> tuple[str, numpy.ndarray, str]:
    """Return the dtype of an array in the file, its elements as they lie there, and the dtype of NumPy's.

    The last is empty but for texts and dates, which are written as bytes.
    """
    if type(x) is numpy.ndarray and x.dtype.kind in OF_NUMPY and x.dtype.itemsize:
        x = x.astype(x.dtype.newbyteorder("<"), order="C", copy=False)
        return "uint8", numpy.ndarray((*x.shape, x.itemsize), numpy.uint8, x.tobytes()), x.dtype.str
    dtype = dtype_name(x)
    if dtype not in _NAMES:
        raise TypeError(
            f"a file holds arrays of {', '.join(_NAMES)}, and of NumPy's texts and dates; received {dtype} "
            f"at {name}. Convert it, or save its real and its imaginary part."
        )
    host = numpy.asarray(x.values if isinstance(x, Tensor) else to_numpy(x), order="C")
    if dtype == "bfloat16":  # the upper half of a float32
        host = (host.astype(numpy.float32).view(numpy.uint32) >> numpy.uint32(16)).astype(numpy.uint16)
    return dtype, host.astype(host.dtype.newbyteorder("<"), copy=False), ""


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
    return unpack(Path(path).read_bytes(), path)


def unpack(content: bytes, path: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the content of a file, as `read` does; the path is for error messages."""
    try:
        flat = safetensors.deserialize(content)
        size = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:size])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as a safetensors file, it is damaged or another kind of file: {error}."
        ) from None
    metadata = header.pop("__metadata__", None) or {}
    dtypes: dict[str, str] = {}
    if "sha256" in metadata and "xpnet" in metadata:
        digest = metadata.pop("sha256")
        if digest != _digest(header, metadata, [memoryview(content)[size:]]):
            raise ValueError(
                f"{path} was altered or damaged since it was written: its checksum is not that of its "
                "content. Take another copy."
            )
        dtypes = _dtypes(metadata.pop("dtypes", "{}"), path)
    return {name: _tensor(name, entry, dtypes.get(name), path) for name, entry in flat}, metadata


def _dtypes(text: str, path: Any) -> dict[str, str]:
    """Return the dtypes of the texts and dates in a file, by the names of the arrays."""
    try:
        return {name: str(dtype) for name, dtype in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its dtypes cannot be read, {error}.") from None


def _tensor(name: str, entry: dict[str, Any], of_numpy: str | None, path: Any) -> Tensor:
    dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
    if dtype is None:
        raise ValueError(f"{path} holds {entry['dtype']} numbers at {name}, which xpnet cannot read.")
    if of_numpy is not None:
        try:
            values = from_bytes(entry["data"], shape[:-1], of_numpy)
        except ValueError as error:
            raise ValueError(f"{path} is damaged at {name}: {error}.") from None
        return Tensor(values, values.dtype.name)
    values = numpy.frombuffer(entry["data"], bits_of(dtype).newbyteorder("<")).reshape(shape)
    return Tensor(from_bits(values, dtype), dtype)


def bits_of(dtype: str) -> numpy.dtype:
    """Return the dtype of NumPy's for the elements of a file: bfloat16 is the upper half of a float32."""
    return numpy.dtype("uint16" if dtype == "bfloat16" else dtype)


def from_bits(values: numpy.ndarray, dtype: str) -> numpy.ndarray:
    """Return the numbers that elements of `bits_of` stand for, in the order of the machine."""
    if dtype == "bfloat16":
        return (values.astype(numpy.uint32) << numpy.uint32(16)).view(numpy.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
