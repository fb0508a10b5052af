"""Files of `torch.save`: read without PyTorch and without code from them, or refused."""

import io
import math
import sys
import warnings
import zipfile

import numpy
import pytest
from torch_files import (
    STORAGES,
    Call,
    Name,
    Persistent,
    Raw,
    instructions,
    records,
    saved,
    storage,
    tensor,
    zipped,
)

import xpnet
from xpnet import nn
from xpnet.files.pickled import unpickle

NUMBERS = numpy.arange(12, dtype="<f4")
DATA = {"0": NUMBERS.tobytes()}
PLACE = storage("0", "float32", 12)
X = tensor(PLACE, 0, (3, 4), (4, 1))
ORDERED = Name("collections", "OrderedDict")


def read(content):
    return unpickle(content, "net.pt")


def made(value, data=DATA, **options):
    return zipped(records(value, data, **options))


@pytest.mark.parametrize("dtype", [name for name in STORAGES if name != "bfloat16"])
def test_each_dtype(dtype):
    x = (numpy.arange(12).reshape(3, 4) % 5).astype(dtype)
    found = read(saved({"a": x, "none": x[:0], "one": x[1, 2]}))
    assert [*found] == ["a", "none", "one"]
    assert found["a"].dtype == dtype
    numpy.testing.assert_array_equal(found["a"].values, x, strict=True)
    assert found["none"].values.shape == (0, 4)
    numpy.testing.assert_array_equal(found["one"].values, x[1, 2], strict=True)


def test_bfloat16():
    bits = numpy.asarray([0x3F80, 0xC000, 0x7F80, 0x0001], dtype="<u2")
    found = read(made({"a": tensor(storage("0", "bfloat16", 4), 0, (4,), (1,))}, {"0": bits.tobytes()}))["a"]
    assert found.dtype == "bfloat16"
    assert found.values.dtype == "float32"
    assert found.values.tolist() == [1.0, -2.0, math.inf, 2.0**-133]


def test_dtypes_without_a_class():
    place = Persistent(("storage", Name("torch.storage", "UntypedStorage"), "0", "cpu", 8))
    ordered = Call(ORDERED, ())
    arguments = (place, 1, (3,), (1,), False, ordered, Name("torch", "uint16"))
    value = {"a": Call(Name("torch._utils", "_rebuild_tensor_v3"), arguments)}
    found = read(made(value, {"0": numpy.arange(4, dtype="<u2").tobytes()}))["a"]
    assert (found.dtype, found.values.tolist()) == ("uint16", [1, 2, 3])


def test_views():
    value = {
        "transposed": tensor(PLACE, 0, (4, 3), (1, 4)),
        "part": tensor(PLACE, 5, (2, 2), (4, 2)),
        "repeated": tensor(PLACE, 3, (2, 2), (0, 1)),
    }
    found, x = read(made(value)), NUMBERS.reshape(3, 4)
    assert found["transposed"].values.tolist() == x.T.tolist()
    assert found["part"].values.tolist() == [[5, 7], [9, 11]]
    assert found["repeated"].values.tolist() == [[3, 4], [3, 4]]


def test_shared_arrays_take_memory_once():
    found = read(made({str(index): X for index in range(100)}))
    assert len(found) == 100
    assert {id(x.values) for x in found.values()} == {id(found["0"].values)}


def test_bytes_in_the_other_order():
    found = read(made({"a": X}, {"0": NUMBERS.astype(">f4").tobytes()}, order=b"big"))["a"]
    assert found.values.dtype.isnative
    assert found.values.tolist() == NUMBERS.reshape(3, 4).tolist()


def test_parameters_and_versions_of_modules():
    ordered = Call(ORDERED, ())
    parameter = Call(Name("torch._utils", "_rebuild_parameter"), (X, True, ordered))
    state = instructions({"_metadata": {"": {"version": 1}}})
    value = Raw(
        instructions(ordered) + b"(" + instructions("a") + instructions(parameter) + b"u" + state + b"b"
    )
    assert read(made(value))["a"].values.tolist() == NUMBERS.reshape(3, 4).tolist()


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_in_a_checkpoint(name):
    around = {
        "epoch": 3,
        "losses": [0.5, None],
        "optimizer": {"state": {0: {"step": X}}, "groups": [{"lr": 1.0}]},
    }
    assert [*read(made(around | {name: {"a": X, "b": X}}))] == ["a", "b"]


def refused(content, message):
    with pytest.raises(ValueError, match=rf"(?s)^net\.pt cannot be read as a state_dict .*{message}"):
        read(content)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "received a int without one"),
        ({}, "received a dict without one"),
        (X, "received a Tensor without one"),
        ({"a": X, "more": {"b": 1}}, "received a dict of tensors with a dict at 'more'"),
        ({"model": {"a": X}, "ema": {"a": X}}, "received a dict with 'model', 'ema'"),
        ({0: X}, "received a dict of tensors with a Tensor at '0'"),
    ],
)
def test_what_is_no_state_dict_is_refused(value, message):
    refused(made(value), rf"{message}\. In PyTorch, write one alone, torch\.save\(.*weights_only=True\)")


@pytest.mark.peers
def test_the_line_for_plain_data(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    a = torch.ones(3)
    for value in ({"net": {"a": a}, "ema": {"a": a}}, {"a": a, "epoch": 3}):
        torch.save(value, tmp_path / "net.pt")
        with pytest.raises(ValueError, match=r"torch\.save\(") as caught:
            read((tmp_path / "net.pt").read_bytes())
        line = str(caught.value).partition("alone, ")[2].removesuffix(".")
        exec(line, {"torch": torch, "path": "net.pt"})
        assert [*read((tmp_path / "weights.pt").read_bytes())] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PLACE, 0, (3, 5), (4, 1)), r"shape \(3, 5\) must lie within its record of 12 elements"),
        ((PLACE, 9, (2, 2), (2, 1)), "must lie within its record"),
        ((PLACE, 0, (10**9, 10**9), (1, 1)), "must lie within its record"),
        ((PLACE, 0, (10**9, 10**9), (0, 0)), "show the same numbers again and again"),
        ((PLACE, 0, (2**61, 2**61), (0, 0)), "show the same numbers again and again"),
        ((PLACE, 0, (0, 2**61), (2**61, 2**61)), ""),
        ((PLACE, 0, (49,), (0,)), r"show the same .*\{name: x\.clone\(\) for name"),
        ((PLACE, 11, (3,), (-1,)), "integers of at least 0"),
        ((PLACE, -1, (3,), (1,)), "integers of at least 0"),
        ((PLACE, 0, (-3,), (1,)), "integers of at least 0"),
        ((PLACE, 0, (True,), (1,)), "integers of at least 0"),
        ((PLACE, 0.0, (3,), (1,)), "integers of at least 0"),
        ((PLACE, 2**70, (3,), (1,)), "integers of at least 0"),
        ((PLACE, 0, [3], (1,)), "integers of at least 0"),
        ((PLACE, 0, (3,), (1, 1)), "1 axes and 2 strides"),
        ((PLACE, 0, (1,) * 33, (1,) * 33), "33 axes"),
        (("0", 0, (3,), (1,)), "no plain one"),
        (
            (storage("0", "float32", 13), 0, (3,), (1,)),
            "its record net/data/0 must be as long",
        ),
        (
            (storage("0", "float64", 12), 0, (3,), (1,)),
            "its record net/data/0 must be as long",
        ),
        ((storage("0", "float32", -12), 0, (3,), (1,)), "its record net/data/0 must be as long"),
        ((storage("1", "float32", 12), 0, (3,), (1,)), "no record net/data/1"),
        ((storage("../data.pkl", "uint8", 12), 0, (3,), (1,)), r"no record net/data/\.\./data\.pkl"),
        ((Persistent("0"), 0, (3,), (1,)), "calls what cannot be called"),
        ((Persistent(("module", 1, 2, 3, 4)), 0, (3,), (1,)), "something else than a record"),
        (
            (Persistent(("storage", "FloatStorage", "0", "cpu", 12)), 0, (3,), (1,)),
            "something else than a record",
        ),
        ((Persistent(("storage", 1)), 0, (3,), (1,)), "2 arguments to storage"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_tensors_that_are_none_are_refused(arguments, message):
    refused(made({"a": tensor(*arguments)}), message)


def test_marks_of_a_tensor_are_refused():
    refused(made({"a": tensor(PLACE, 0, (3,), (1,), {"conj": True})}), "no plain one")


def test_overlapping_tensors_are_bounded_together():
    overlapping = {str(index): tensor(PLACE, 0, (12 - index,), (1,)) for index in range(4)}
    assert len(read(made(overlapping))) == 4
    refused(made(overlapping | {"more": tensor(PLACE, 2, (10,), (1,))}), "again and again")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(Name("os", "system"), ("true",)), r"needs os\.system, .* no code of a file"),
        (Call(Name("builtins", "eval"), ("1",)), r"needs builtins\.eval"),
        (Call(Name("mine", "Net"), ()), r"needs mine\.Net, .*\.state_dict\(\)"),
        (Name("torch._utils", "_rebuild_tensor"), r"needs torch\._utils\._rebuild_tensor,"),
        (Raw(instructions("os") + instructions("system") + b"\x93"), r"needs os\.system"),
        (Raw(b"(S'true'\nios\nsystem\n"), "an instruction STRING"),
        (Raw(b"(ios\nsystem\n"), "an instruction INST,"),
        (Raw(b"\x82\x01"), "an instruction EXT1"),
        (Call(Name("torch", "FloatStorage"), (3,)), "calls what cannot be called"),
        (Call("text", ()), "calls what cannot be called"),
        (Call(ORDERED, ([],)), "1 arguments to ordered"),
        (Call(ORDERED, []), "calls what cannot be called"),
        (
            Raw(instructions(ORDERED) + instructions({"__code__": 1}) + b"b"),
            "attributes",
        ),
        (Raw(instructions({}) + instructions(1) + b"b"), "gives attributes"),
        (Raw(instructions(X) + instructions({"values": 1}) + b"b"), "gives attributes"),
        (Raw(instructions(ORDERED) + instructions(()) + b"\x81"), "NEWOBJ"),
        (Raw(b"h\x05"), "KeyError"),
        (Raw(b"R"), "IndexError"),
        (Raw(b"t"), "IndexError"),
        (Raw(b"\x85"), "takes what is not there"),
        (Raw(b"Na"), "IndexError"),
        (Raw(b"]a"), "IndexError"),
        (Raw(b"NNa"), "appends to something else"),
        (Raw(instructions({(1, 2): 3})), "texts and integers as keys"),
        (Raw(b"}(Nu"), "texts and integers as keys"),
        (Raw(b"\xff"), "opcode"),
        (Raw(b"\x96" + (2**62).to_bytes(8, "little")), "expected 4611686018427387904 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_instructions_of_other_things_are_refused(value, message):
    refused(made(value), message)


def test_no_end_is_refused():
    refused(zipped({"net/data.pkl": b"\x80\x02N"}), "exhausted before")


def test_what_would_take_long_or_much_is_refused_soon():
    doubled = b"N" + b"q\x00h\x00\x86" * 100  # tuples of two times the same tuple, whose hash takes forever
    refused(made(Raw(b"}" + doubled + b"Ns")), "texts and integers as keys")
    refused(made(Raw(doubled + instructions("a") + b"\x93")), "something else than two texts")
    deep = Raw(b"]" * 10**5 + b"a" * (10**5 - 1))
    refused(made(deep), "received a list without one")
    far = Raw(b"Nr\xff\xff\xff\x7f")  # a place in the memo, which would be a list of two billion
    refused(made(far), "received a NoneType without one")
    circle = Raw(b"}q\x00" + instructions("a") + b"h\x00s")
    refused(made(circle), "received a dict without one")


def test_a_long_pickle_is_refused(monkeypatch):
    monkeypatch.setattr("xpnet.files.pickled._LONGEST", 100)
    refused(made({"a": X}), "at most 100 bytes long, received")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(records({"a": X}, DATA), zipfile.ZIP_DEFLATED), "not compressed"),
        (zipped({"a.npy": b""}), "one record data.pkl, received a zip file with 0"),
        (zipped({"a/data.pkl": b"", "b/data.pkl": b""}), "one record data.pkl, received a zip file with 2"),
        (zipped({**records({"a": X}, DATA), "net/constants.pkl": b"."}), r"TorchScript.*torch\.jit\.load"),
        (made({"a": X}, order=b"middle"), "say little or big, received b'middle'"),
        (made({"a": X})[:-30], "BadZipFile"),
        (b"PK\x03\x04", "BadZipFile"),
        (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
            r"before 1\.6.*torch\.save\(torch\.load",
        ),
        (b"\x80\x04N.", "or is another pickle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_refused(content, message):
    refused(content, message)


def test_safetensors_files_are_no_pickles(tmp_path):
    # The first byte of a pickle, as the length of the header is 128.
    header = b'{"weight":{"dtype":"F32","shape":[3,1],"data_offsets":[0,12]}}'.ljust(128)
    path = tmp_path / "net.safetensors"
    path.write_bytes((128).to_bytes(8, "little") + header + NUMBERS[:3].tobytes())
    net = xpnet.load_torch(path, into=nn.Dense(1, 3, bias=False))
    assert net.weight.tolist() == [[0.0, 1.0, 2.0]]


def test_damaged_numbers_are_refused():
    content = made({"a": X})
    refused(content.replace(NUMBERS.tobytes(), NUMBERS[::-1].tobytes()), "Bad CRC-32 for file 'net/data/0'")


def test_two_records_of_a_name_are_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("net/data.pkl", b"N.")
    refused(file.getvalue(), "two of its records have the same name")


def test_records_that_overlap_are_refused():
    content = made({"a": X}, {str(index): DATA["0"] * 10 for index in range(10)})
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as archive:
        for info in old.infolist()[:3]:
            archive.writestr(info, old.read(info))
        first = archive.getinfo("net/data/0")
        for index in range(1, 10):  # the same place in the file under many names
            info = zipfile.ZipInfo(f"net/data/{index}")
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size, info.compress_size = first.file_size, first.compress_size
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
    refused(file.getvalue(), "one by one and as they are")


def test_into_a_network_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # whoever imports it fails
    arrays = {"0.weight": NUMBERS.reshape(4, 3), "0.bias": NUMBERS[:4]}
    path = tmp_path / "net.pt"
    path.write_bytes(saved(arrays, lambda state: {"epoch": 3, "state_dict": state}))
    net = nn.Sequential(nn.Dense(3, 4), nn.ReLU())
    xpnet.load_torch(path, into=net)
    assert net[0].weight.tolist() == arrays["0.weight"].T.tolist()
    net[0].weight += 1  # it is an array of its own, not a part of the file
    assert net[0].bias.flags.writeable


def saved_by_torch(value, **options):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


@pytest.mark.peers
@pytest.mark.parametrize("dtype", [*STORAGES, "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_torch_of_each_dtype(dtype, protocol):
    torch = pytest.importorskip("torch")
    x = (torch.arange(24).reshape(2, 3, 4) % 2).to(getattr(torch, dtype))
    tensors = {"x": x, "view": x[:, 1:, ::2], "turned": x.permute(2, 0, 1), "none": x[:0], "one": x[1, 2, 3]}
    found = read(saved_by_torch(tensors, pickle_protocol=protocol))
    assert [*found] == [*tensors]
    for name, expected in tensors.items():
        assert found[name].dtype == dtype
        assert found[name].values.shape == tuple(expected.shape)
        assert found[name].values.tolist() == expected.tolist()


@pytest.mark.peers
def test_torch_of_networks():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.LSTM(3, 2))
    net[0].bias = net[1].bias  # shared
    optimizer = torch.optim.Adam(net.parameters())
    sum(x.sum() for x in net.parameters()).backward()
    optimizer.step()
    checkpoint = {"epoch": 1, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
    for value in (net.state_dict(), dict(net.named_parameters()), checkpoint):
        found = read(saved_by_torch(value))
        for name, expected in value.get("net", value).items():
            assert found[name].values.tolist() == expected.tolist()
    refused(saved_by_torch(net), r"needs torch\.nn\.modules\.container\.Sequential")
    refused(saved_by_torch(net.state_dict(), _use_new_zipfile_serialization=False), r"before 1\.6")
    refused(saved_by_torch({"a": torch.ones(3).to_sparse()}), "_rebuild_sparse_tensor")
    refused(saved_by_torch({"a": torch.ones(3).to(torch.float8_e5m2)}), "float8_e5m2")
    refused(saved_by_torch({"a": torch.ones(3, dtype=torch.complex64).conj()}), "no plain one")
    script = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # it is old
        torch.jit.save(torch.jit.script(net[0]), script)
    refused(script.getvalue(), "TorchScript")
