"""Files as `torch.save` writes them, made by hand: from what the pickle says, and records of numbers."""

import io
import math
import struct
import zipfile
from typing import Any, NamedTuple

import numpy

STORAGES = {
    "bool": "BoolStorage", "uint8": "ByteStorage", "int8": "CharStorage", "int16": "ShortStorage",
    "int32": "IntStorage", "int64": "LongStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "float32": "FloatStorage", "float64": "DoubleStorage", "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}  # fmt: skip


class Raw(bytes):
    """Instructions of a pickle, as they are."""


class Name(NamedTuple):
    """A function or class of a module."""

    module: str
    name: str


class Call(NamedTuple):
    """What a function makes of arguments."""

    function: Any
    arguments: Any


class Persistent(NamedTuple):
    """What the reader of the pickle must know, such as a record of numbers."""

    what: Any


def instructions(value):
    """Return the instructions of protocol 2 that make a value."""
    match value:
        case Raw():
            return bytes(value)
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return instructions(function) + instructions(arguments) + b"R"
        case Persistent(what):
            return instructions(what) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            content = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
            return b"\x8a" + bytes([len(content)]) + content
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            content = value.encode()
            return b"X" + len(content).to_bytes(4, "little") + content
        case tuple():
            return b"(" + b"".join(map(instructions, value)) + b"t"
        case list():
            return b"](" + b"".join(map(instructions, value)) + b"e"
        case dict():
            items = (instructions(x) for pair in value.items() for x in pair)
            return b"}(" + b"".join(items) + b"u"
    raise TypeError(value)


def storage(key, dtype, number):
    """Return the record of a key, with so many elements."""
    return Persistent(("storage", Name("torch", STORAGES[dtype]), key, "cpu", number))


def tensor(storage, offset, shape, strides, *rest):
    ordered = Call(Name("collections", "OrderedDict"), ())
    function = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(function, (storage, offset, shape, strides, False, ordered, *rest))


def zipped(records, compression=zipfile.ZIP_STORED):
    """Return a zip file with some records."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def records(value, data=None, order=b"little"):
    """Return the records of a file: what the pickle says, and numbers by their keys."""
    named = {f"net/data/{key}": content for key, content in (data or {}).items()}
    pickle = b"\x80\x02" + instructions(value) + b"."
    return {"net/data.pkl": pickle, "net/byteorder": order, **named, "net/version": b"3\n"}


def saved(arrays, around=lambda state: state):
    """Return a file with a state_dict of NumPy's arrays; ``around`` says what the pickle holds beside it."""
    state, data = {}, {}
    for index, (name, x) in enumerate(arrays.items()):
        x = numpy.asarray(x)
        strides = tuple(math.prod(x.shape[axis + 1 :]) for axis in range(x.ndim))
        state[name] = tensor(storage(str(index), x.dtype.name, x.size), 0, x.shape, strides)
        data[str(index)] = x.tobytes()
    return zipped(records(around(state), data))
