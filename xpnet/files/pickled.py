"""Files that `torch.save` wrote: the arrays of a state_dict, read without running code.

Such a file is a zip file. A pickle in it says what there is, and names the records in which the numbers are.
A pickle is a program, which may call any function, so it is not run: `pickletools` reads its instructions,
and here those are followed that make texts, numbers, dicts, lists, tuples and arrays. What they may call
stands in one table. All else is refused, and what a file takes is at most some times its own length.

The format is that of PyTorch's ``torch/serialization.py`` and ``torch/_utils.py``.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy

from xpnet.files.tensors import Tensor, bits_of, from_bits
from xpnet.selection import some

# The classes of PyTorch that say the dtype of a record.
_STORAGES = {
    "torch.BoolStorage": "bool", "torch.ByteStorage": "uint8", "torch.CharStorage": "int8",
    "torch.ShortStorage": "int16", "torch.IntStorage": "int32", "torch.LongStorage": "int64",
    "torch.HalfStorage": "float16", "torch.BFloat16Storage": "bfloat16", "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64", "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128", "torch.storage.UntypedStorage": "uint8",
}  # fmt: skip
_DTYPES = {f"torch.{name}": name for name in (*_STORAGES.values(), "uint16", "uint32", "uint64")}

# The longest pickle that is read, enough for 50,000 arrays: of a byte it may make a hundred.
_LONGEST = 2**24

# How often the arrays may show the elements of a record. Those of a state_dict show each once.
_VIEWS = 4

_ADVICE = (
    "In PyTorch, write the arrays alone, torch.save(torch.load(path, weights_only=False).state_dict(), "
    '"weights.pt"), with ["model"] in the place of .state_dict() where they are in a dict. PyTorch may run '
    "code from the file then, so do it with one that you trust."
)


def is_pickled(content: bytes) -> bool:
    """Say whether a file is a zip file or a pickle. Those of the safetensors format have a bracket there."""
    return content[8:9] != b"{" and (content[:4] == b"PK\x03\x04" or content[:1] == b"\x80")


def unpickle(content: bytes, path: Any) -> dict[str, Tensor]:
    """Read the content of a file that `torch.save` wrote; the path is for error messages.

    Parameters
    ----------
    content : bytes
        It holds a state_dict, or a dict in which one value is a state_dict.

    Returns
    -------
    dict of str to Tensor
        In the order of the file. Arrays that PyTorch shares are the same here.

    Raises
    ------
    ValueError
        If it is no such file, is damaged, or holds anything that is not plain data.
    """
    try:
        return _state_dict(_Archive(content).content())
    except (zipfile.BadZipFile, EOFError, LookupError, NotImplementedError, RuntimeError) as error:
        problem = f"it is damaged, or another kind of file: {error!r}. Take another copy."
    except ValueError as error:
        problem = str(error)
    problem = problem.removesuffix(".")
    raise ValueError(f"{path} cannot be read as a state_dict that torch.save wrote: {problem}.")


def _state_dict(found: Any) -> dict[str, Tensor]:
    """Return the state_dict in what a file holds."""
    if _is_state_dict(found):
        return found
    values = found if type(found) is dict else {}
    inside = {name: x for name, x in values.items() if type(name) is str and _is_state_dict(x)}
    if len(inside) == 1:
        return inside.popitem()[1]
    # It is plain data, of which PyTorch runs no code.
    content, part = "torch.load(path, weights_only=True)", '["model"]'
    held = f"{type(found).__name__} without one"
    if inside:
        held = f"dict with {some(repr(name[:100]) for name in inside)}"
        part = f"[{next(iter(inside))[:100]!r}]"
    elif any(type(value) is Tensor for value in values.values()):
        other = next(
            pair for pair in values.items() if type(pair[0]) is not str or type(pair[1]) is not Tensor
        )
        held = f"dict of tensors with a {type(other[1]).__name__} at {str(other[0])[:100]!r}"
        content, part = f"{{str(name): x for name, x in {content}.items() if torch.is_tensor(x)}}", ""
    raise ValueError(
        "it must hold a dict of tensors by name, or a dict with one such dict in it, received a "
        f'{held}. In PyTorch, write one alone, torch.save({content}{part}, "weights.pt").'
    )


def _is_state_dict(value: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        type(value) is dict
        and bool(value)
        and all(type(name) is str and type(x) is Tensor for name, x in value.items())
    )


class _Global(NamedTuple):
    """The name of a function or class, in the place of what it names."""

    name: str


class _Storage(NamedTuple):
    """The bytes of a record, and what they are."""

    record: bytes
    dtype: str
    key: str


class _Archive:
    """The records of a file, and what its pickle makes of them."""

    def __init__(self, content: bytes) -> None:
        if content[:1] == b"\x80":
            raise ValueError(
                "it has the format of PyTorch before 1.6, or is another pickle. In PyTorch, write it anew, "
                'torch.save(torch.load(path), "weights.pt").'
            )
        self.zip = zipfile.ZipFile(io.BytesIO(content))
        entries = self.zip.infolist()
        self.names = {entry.filename for entry in entries}
        if len(self.names) < len(entries):
            raise ValueError("two of its records have the same name")
        roots = [name.removesuffix("data.pkl") for name in self.names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"it must have one record data.pkl, received a zip file with {len(roots)}")
        self.root = roots[0]
        if f"{self.root}constants.pkl" in self.names:
            raise ValueError(
                "it is a program of TorchScript. In PyTorch, write its arrays alone, "
                'torch.save(torch.jit.load(path).state_dict(), "weights.pt").'
            )
        plain = all(
            entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
            for entry in entries
        )
        # So that no memory is taken but what the file is long.
        if not plain or sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("its records must stand there one by one and as they are, not compressed")
        self.order = self._byte_order()
        self.storages: dict[str, bytes] = {}
        self.tensors: dict[Any, Tensor] = {}
        self.shown: dict[str, int] = {}

    def content(self) -> Any:
        """Return what the pickle holds."""
        name = f"{self.root}data.pkl"
        if (length := self.zip.getinfo(name).file_size) > _LONGEST:
            raise ValueError(f"its pickle must be at most {_LONGEST} bytes long, received {length}")
        return _followed(self.zip.read(name), self)

    def _byte_order(self) -> Literal["<", ">"]:
        name = f"{self.root}byteorder"
        order = self.zip.read(name) if name in self.names else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"its record byteorder must say little or big, received {order[:20]!r}")
        return "<" if order == b"little" else ">"

    # -- what the pickle may ask for: arguments come from the file, and may be anything ---------------------

    def storage(self, kind: Any, cls: Any, key: Any, _device: Any, number: Any) -> _Storage:
        """Return a record, from what the pickle says of it."""
        if kind != "storage" or type(cls) is not _Global or cls.name not in _STORAGES or type(key) is not str:
            raise ValueError("it names something else than a record of numbers")
        dtype, name = _STORAGES[cls.name], f"{self.root}data/{key}"
        if name not in self.names:
            raise ValueError(f"it has no record {name[:100]}, which its pickle names")
        if key not in self.storages:
            self.storages[key] = self.zip.read(name)
        record = self.storages[key]
        if not _are_counts(number) or number * bits_of(dtype).itemsize != len(record):
            raise ValueError(
                f"its record {name[:100]} must be as long as its pickle says, received {len(record)} bytes"
            )
        return _Storage(record, dtype, key)

    def tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, marks: Any = None
    ) -> Tensor:
        """Return what ``torch._utils._rebuild_tensor_v2`` makes."""
        if type(storage) is not _Storage or marks:  # marks of what PyTorch computes when it is asked
            raise ValueError("it holds a tensor that is no plain one")
        return self._view(storage, offset, shape, strides)

    def tensor_of_dtype(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        _grad: Any,
        _hooks: Any,
        dtype: Any,
        marks: Any = None,
    ) -> Tensor:
        """Return what ``torch._utils._rebuild_tensor_v3`` makes, for dtypes without a class of their own."""
        if type(storage) is not _Storage or type(dtype) is not _Global or dtype.name not in _DTYPES or marks:
            raise ValueError("it holds a tensor that is no plain one")
        return self._view(storage._replace(dtype=_DTYPES[dtype.name]), offset, shape, strides)

    def parameter(self, data: Any, _grad: Any, _hooks: Any) -> Tensor:
        """Return what ``torch._utils._rebuild_parameter`` makes."""
        if type(data) is not Tensor:
            raise ValueError("it holds a parameter that is no tensor")
        return data

    def ordered(self) -> dict[Any, Any]:
        """Return what ``collections.OrderedDict`` makes of nothing."""
        return {}

    def _view(self, storage: _Storage, offset: Any, shape: Any, strides: Any) -> Tensor:
        if not (type(shape) is type(strides) is tuple and _are_counts(offset, *shape, *strides)):
            raise ValueError("a tensor must have an offset, a shape and strides of integers of at least 0")
        place = (storage.key, storage.dtype, offset, shape, strides)
        if place not in self.tensors:
            if len(shape) != len(strides) or len(shape) > 32:
                raise ValueError(f"a tensor has {len(shape)} axes and {len(strides)} strides")
            bits = bits_of(storage.dtype)
            there, number = len(storage.record) // bits.itemsize, math.prod(shape)
            steps = ((n - 1) * step for n, step in zip(shape, strides, strict=True))
            if number and offset + sum(steps) >= there:
                raise ValueError(f"a tensor of shape {shape} must lie within its record of {there} elements")
            self.shown[storage.key] = self.shown.get(storage.key, 0) + number
            if self.shown[storage.key] > _VIEWS * there:
                raise ValueError(
                    "its tensors show the same numbers again and again. In PyTorch, write copies of them, "
                    'torch.save({name: x.clone() for name, x in torch.load(path).items()}, "weights.pt").'
                )
            values = numpy.ndarray(
                shape,
                bits.newbyteorder(self.order),
                storage.record,
                offset * bits.itemsize if number else 0,
                tuple(step * bits.itemsize for step in strides),
            )
            self.tensors[place] = Tensor(from_bits(values, storage.dtype), storage.dtype)
        return self.tensors[place]


# What a pickle may call.
_CALLED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _Archive.ordered,
    "torch._utils._rebuild_tensor_v2": _Archive.tensor,
    "torch._utils._rebuild_tensor_v3": _Archive.tensor_of_dtype,
    "torch._utils._rebuild_parameter": _Archive.parameter,
}
_KNOWN = {*_CALLED, *_STORAGES, *_DTYPES}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip


def _followed(content: bytes, archive: _Archive) -> Any:
    """Follow the instructions of a pickle, and return what it holds."""
    stack: list[Any] = []
    before: list[list[Any]] = []  # the stacks below marks
    memo: dict[int, Any] = {}
    read: Iterator[tuple[Any, Any, Any]] = pickletools.genops(content)
    for instruction, argument, _ in read:
        name = instruction.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            stack[-_SHORT_TUPLES[name] :] = [_last(stack, _SHORT_TUPLES[name])]
        elif name == "MARK":
            before.append(stack)
            stack = []
        elif name in ("TUPLE", "SETITEMS", "APPENDS"):
            inside, stack = stack, before.pop()
            _FILL[name](stack, inside)
        elif name in ("SETITEM", "APPEND"):
            inside = list(_last(stack, 1 if name == "APPEND" else 2))
            del stack[-len(inside) :]
            _FILL[f"{name}S"](stack, inside)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_known(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            names = _last(stack, 2)
            if not all(type(part) is str for part in names):  # as a text, what is shared may become endless
                raise ValueError("it names a class by something else than two texts")
            stack[-2:] = [_known(".".join(names))]
        elif name == "BINPERSID":
            stack.append(_called(_Archive.storage, archive, stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            known = _CALLED.get(function.name) if type(function) is _Global else None
            stack.append(_called(known, archive, arguments))
        elif name == "BUILD":  # attributes of a dict, in which state_dict says the versions of modules
            if type(stack.pop()) is not dict or type(stack[-1]) is not dict:
                raise ValueError("it gives attributes to something else than a dict")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(
                f"its pickle has an instruction {name}, of which no state_dict is made. {_ADVICE}"
            )
    raise ValueError("its pickle has no end")


def _last(stack: list[Any], number: int) -> tuple[Any, ...]:
    if len(stack) < number:
        raise ValueError("its pickle takes what is not there")
    return tuple(stack[-number:])


def _extend(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise ValueError("it appends to something else than a list")
    stack[-1].extend(items)


def _update(stack: list[Any], items: list[Any]) -> None:
    keys = items[::2]
    # The hash of a tuple of tuples of the same tuples could take forever.
    if type(stack[-1]) is not dict or len(items) % 2 or not all(type(key) in (str, int) for key in keys):
        raise ValueError("a dict in it must have texts and integers as keys")
    stack[-1].update(zip(keys, items[1::2], strict=True))


_FILL: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "SETITEMS": _update,
    "APPENDS": _extend,
}


def _known(name: str) -> _Global:
    if name not in _KNOWN:
        raise ValueError(
            f"it needs {name[:100]}, which is neither a plain tensor nor data, and no code of a file is run. "
            f"{_ADVICE}"
        )
    return _Global(name)


def _called(function: Callable[..., Any] | None, archive: _Archive, arguments: Any) -> Any:
    """Call what a pickle asks for."""
    if function is None or type(arguments) is not tuple:
        raise ValueError("its pickle calls what cannot be called")
    try:
        return function(archive, *arguments)
    except TypeError:  # there are more or less of them
        raise ValueError(f"its pickle gives {len(arguments)} arguments to {function.__name__}") from None


def _are_counts(*numbers: Any) -> bool:
    return all(type(number) is int and 0 <= number < 2**62 for number in numbers)
