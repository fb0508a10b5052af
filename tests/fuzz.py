"""Altered files: each gives a clear error or loads, and none does harm.

Files that xpnet wrote are altered at random: bits, bytes, lengths, pieces of other files, and what stands
behind the checksum, which is made right again. An alteration that reaches new lines of xpnet is kept and
altered further. ``python tests/fuzz.py 20000`` tries so many of each kind (`nox -s fuzz`); a part of them is
part of the suite, and so are the files in `tests/corpus/`: those with numbers reached new lines once, those
with words are whole networks.
"""

import contextlib
import encodings.cp437  # noqa: F401 which zipfile imports for some names
import gc
import io
import itertools
import json
import math
import pickletools
import random
import resource
import signal
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch_files

import xpnet
import xpnet.onnx
from xpnet.files import description, tensors
from xpnet.files.description import describe
from xpnet.files.pickled import unpickle
from xpnet.onnx.nodes import NODES
from xpnet.sklearn import MLPClassifier

CORPUS = Path(__file__).with_name("corpus")
SECONDS, BYTES = 5, 2**28

# What no reading of a file may do, by the names of Python's audit events.
FORBIDDEN = (
    "compile", "ctypes", "exec", "ftplib", "import", "marshal", "os.exec", "os.fork", "os.posix_spawn",
    "os.remove", "os.rename", "os.system", "pickle", "pty", "shutil", "socket", "subprocess", "urllib",
)  # fmt: skip
# The thread that reads, if one does: what others do meanwhile is no harm of the file's.
watched = None


def refuse(event, arguments):
    if watched == threading.get_ident() and event.startswith(FORBIDDEN):
        raise AssertionError(f"reading a file did {event} {arguments}")


sys.addaudithook(refuse)


@contextlib.contextmanager
def confined():
    """Allow neither much time, nor much memory, nor any code from a file."""
    global watched

    def late(*_):
        raise AssertionError(f"reading a file took more than {SECONDS} seconds")

    # What is freed only now may belong to anything that ran before, and its finalizers may do what they like.
    collects = gc.isenabled()
    gc.disable()
    # Time of the processor, as a busy machine may make any reading take long.
    usual = signal.signal(signal.SIGPROF, late)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    watched = threading.get_ident()
    try:
        yield
    finally:
        watched = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, usual)
        if collects:
            gc.enable()


# -- the kinds of files -----------------------------------------------------------------------------------


def network(seed=0):
    return xpnet.nn.Sequential(
        xpnet.nn.Dense(2, 3, seed=seed),
        xpnet.nn.LeakyReLU(),
        xpnet.nn.Dropout(0.5, seed=1),
        xpnet.nn.Dense(3, 2),
    )


def train(path, **options):
    x = np.asarray([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    loss, optimizer = xpnet.losses.cross_entropy, xpnet.optim.Adam(0.01)
    settings = {"epochs": 2, "batch_size": 2, "seed": 0, "progress": False, "jit": False}
    net = network()
    stopping = xpnet.callbacks.EarlyStopping("loss")
    xpnet.fit(
        net,
        x,
        [0, 1, 1],
        loss=loss,
        optimizer=optimizer,
        callbacks=[stopping, *options.pop("more", [])],
        **settings,
        **options,
    )
    return net


class Networks:
    """Files of `xpnet.save`."""

    name = "safetensors"

    def write(self, path):
        xpnet.save(
            [network(), {"state": xpnet.optim.Adam(0.1).init(network())}, (1, None, 2.5, "text")], path
        )

    def read(self, path):
        loaded = xpnet.load(path)
        with contextlib.suppress(ValueError):
            xpnet.load(path, into=network())
        return loaded

    def check(self, loaded, path):
        """What loads can be saved, and is then the same."""
        xpnet.save(loaded, path)
        again = xpnet.load(path)
        arrays, arrays_again = {}, {}
        assert describe(loaded, "", arrays) == describe(again, "", arrays_again)
        for name, x in arrays.items():
            np.testing.assert_array_equal(x, arrays_again[name], strict=True)

    def alter(self, content, random, others):
        if random.random() < 0.5:
            return altered_bytes(content, random, others)
        return altered_inside(content, random)


class Checkpoints(Networks):
    """Files of `xpnet.callbacks.Checkpoint`."""

    name = "checkpoint"

    def write(self, path):
        class End(xpnet.callbacks.Callback):
            order = 9

            def step_end(self, run):
                if run.step == 3:
                    raise KeyboardInterrupt

        train(path, more=[xpnet.callbacks.Checkpoint(path, every=1), End()])

    def read(self, path):
        with np.errstate(all="ignore"):
            return train(path, resume=path)

    def check(self, loaded, path):
        assert xpnet.predict(loaded, [[0.0, 1.0]]).shape == (1, 2)


class Estimators(Networks):
    """Files of `xpnet.sklearn.MLPClassifier.save`."""

    name = "estimator"

    def write(self, path):
        x, y = np.arange(24.0).reshape(12, 2) % 5, np.asarray(["a", "b", "c"] * 4)
        options = {
            "hidden_layer_sizes": (np.int64(3), 2),
            "class_weight": {"a": np.float32(2), "b": 1, "c": 1},
        }
        options |= {"random_state": np.random.RandomState(0), "schedule": xpnet.optim.constant(0.1)}
        options |= {"validation_data": (x, y.astype(object)), "dropout": (0.1, 0.0), "early_stopping": True}
        estimator = MLPClassifier(**options)
        for _ in range(2):
            estimator.partial_fit(x, y, classes=["a", "b", "c"])
        estimator.save(path)

    def read(self, path):
        loaded = MLPClassifier.load(path)
        named = loaded.activation if isinstance(loaded.activation, list | tuple) else [loaded.activation]
        # Layers of the user's may fail in any way, or ask for any memory, when they are run.
        if loaded.module is None and all(isinstance(name, str) for name in named):
            with np.errstate(all="ignore"):
                loaded.predict_proba(np.zeros((3, loaded.n_features_in_)))
        return loaded

    def check(self, loaded, path):
        # Whether its optimizer is one for these weights is found in the next step, and when it is saved.
        loaded.save(path, include_optimizer=False)
        assert MLPClassifier.load(path).get_params().keys() == loaded.get_params().keys()


class Onnx(Networks):
    """Files of ONNX."""

    name = "onnx"

    def write(self, path):
        xpnet.onnx.export(network(), np.ones((1, 2), dtype="float32"), path)

    def read(self, path):
        loaded = xpnet.onnx.load(path)
        with np.errstate(all="ignore"):
            loaded(*(np.ones((3, 2), dtype="float32") for _ in loaded.inputs))
        return loaded

    def check(self, loaded, path):
        assert isinstance(loaded, xpnet.nn.Module)

    def alter(self, content, random, others):
        if random.random() < 0.3:
            return altered_bytes(content, random, others)
        try:
            model = onnx.ModelProto.FromString(content)
        except Exception:  # protobuf has errors of its own
            return altered_bytes(content, random, others)
        for _ in range(random.choice([1, 1, 2, 3])):
            alter_message(model, random)
        return model.SerializeToString()


class Graphs(Networks):
    """Files of `xpnet.save` with a network that came from ONNX."""

    name = "graph"

    def write(self, path):
        net = xpnet.nn.Sequential(xpnet.nn.LSTM(2, 3, seed=0), xpnet.nn.Dense(3, 2, seed=1))
        xpnet.onnx.export(net, np.ones((2, 4, 2), dtype="float32"), path)
        xpnet.save(xpnet.onnx.load(path), path)

    def read(self, path):
        loaded = xpnet.load(path)
        if isinstance(loaded, xpnet.onnx.Network):
            with np.errstate(all="ignore"):
                loaded(*(np.ones((3, 4, 2), dtype="float32") for _ in loaded.inputs))
        return loaded

    def alter(self, content, random, others):
        if random.random() < 0.3:
            return super().alter(content, random, others)
        return altered_inside(content, random, altered_leaf)


class Torch(Networks):
    """Files of `torch.save`."""

    name = "torch"

    def write(self, path):
        arrays = {"0.weight": np.ones((3, 2), "float32"), "0.bias": np.zeros(3, "float16")}
        arrays |= {"3.weight": np.ones((2, 3), "float32"), "3.bias": np.zeros(2, "float32")}
        around = {"epoch": 3, "losses": [0.5, (1, None)], "options": {"lr": 0.1}}
        path.write_bytes(torch_files.saved(arrays, lambda state: {**around, "state_dict": state}))
        xpnet.load_torch(path, into=network())  # loads what is loaded at the first call

    def read(self, path):
        loaded = unpickle(path.read_bytes(), path)
        with contextlib.suppress(ValueError):
            xpnet.load_torch(path, into=network())
        return loaded

    def check(self, loaded, path):
        length = path.stat().st_size
        assert all(x.values.nbytes <= 10 * length for x in loaded.values())
        xpnet.save({"values": [x.values for x in loaded.values() if x.dtype != "complex128"]}, path)

    def alter(self, content, random, others):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                records = {name: archive.read(name) for name in archive.namelist()}
        except Exception:  # there is no end to the errors of damaged zip files
            records = {}
        if not records or random.random() < 0.3:
            return altered_bytes(content, random, others)
        name = random.choice([*records, *[name for name in records if name.endswith("data.pkl")] * 5])
        change = random.choice([altered_bytes, altered_instructions])
        records[name] = change(records[name], random, [*records.values(), content])
        if random.random() < 0.1:
            records[random.choice(["net/constants.pkl", "net/byteorder", "a/data.pkl"])] = b"big"
        return torch_files.zipped(records)


KINDS = {kind.name: kind for kind in (Networks(), Checkpoints(), Estimators(), Onnx(), Graphs(), Torch())}


# -- alterations ------------------------------------------------------------------------------------------

INTERESTING = [0, 1, 2, 3, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def altered_bytes(content, random, others):
    """Alter a file as bytes, some times."""
    content = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        at = random.randrange(len(content) + 1)
        length = random.choice([1, 2, 4, 8, 16, 64])
        match random.randrange(7):
            case 0 if content:
                content[at % len(content)] ^= 1 << random.randrange(8)
            case 1:
                content[at : at + length] = random.randbytes(length)
            case 2:
                del content[at:]
            case 3:
                del content[at : at + length]
            case 4:
                content[at:at] = content[at : at + length] * random.choice([1, 2, 100])
            case 5:
                number = random.choice(INTERESTING)
                at = random.choice([0, at])
                content[at : at + 8] = number.to_bytes(8, "little")
            case 6:
                other = random.choice(others)
                start = random.randrange(len(other) + 1)
                content[at : at + length] = other[start : start + random.choice([length, 10**6])]
    return bytes(content)


def altered_instructions(content, random, _others):
    """Alter a pickle by whole instructions: leave out, repeat, exchange or put in some."""
    try:
        places = [place for _, _, place in pickletools.genops(content)]
    except Exception:  # of one that was altered before
        return content
    parts = [content[start:end] for start, end in itertools.pairwise([*places, len(content)])]
    for _ in range(random.choice([1, 1, 2, 4])):
        at, other = random.randrange(len(parts) + 1), random.choice(parts or [b"N"])
        match random.randrange(4):
            case 0:
                del parts[at : at + random.choice([1, 1, 2, 8])]
            case 1:
                parts[at:at] = [other] * random.choice([1, 1, 100])
            case 2:
                parts[at : at + 1] = [other]
            case 3:
                parts[at:at] = [random.choice(INSTRUCTIONS)]
    return b"".join(parts)


INSTRUCTIONS = [
    *(bytes([code]) for code in b"()]}.NRQbaeuts012\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"),
    b"cos\nsystem\n", b"ios\nsystem\n", b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n",
    b"ctorch\nLongStorage\n", b"ctorch\nuint64\n", b"ctorch.storage\nUntypedStorage\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"h\x00", b"q\x00", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x82\x01", b"X\x01\x00\x00\x00a",
    b"X\xff\xff\xff\x7f", b"\x96" + b"\xff" * 8, b"\x8d" + b"\xff" * 7 + b"\x00", b"\x8b\xff\xff\xff\x7f",
    b"\x95" + b"\x00" * 8, b"K\x02", b"M\x00\x01", b"J\xff\xff\xff\xff",
    *(b"\x8a\x09" + number.to_bytes(9, "little") for number in INTERESTING),
]  # fmt: skip


VALUES = [
    None, True, False, 0, -1, 2**70, 0.5, 1e400, "", "nan", "weight", "__class__", "__reduce__", [], {}, [[]],
    {"array": "0.layers.0.weight"}, {"module": "Sequential", "attributes": {"layers": 3}}, {"tuple": [1]},
    {"module": "os.system", "attributes": {}}, {"function": "exec"}, {"dict": [["a", 1]]}, {"float": "1e5"},
    {"numpy": "<f4", "bytes": "0000803f"}, {"numpy": "<U500000000", "bytes": ""},
    {"objects": [1], "shape": [2]},
    {"function": "xpnet.losses.mse"}, "<U1", "xpnet.losses.huber", "xpnet.optim.bound.Bound",
    {"list": [{"list": [{"list": []}]}]},
]  # fmt: skip


WORDS = ["array", "module", "settings", "function", "bytes", "random_state", "object", "dataclass", "float"]
NAMES = [
    *description._named(), *description._OF_ONNX, "0.layers.0.weight", "layers.0.weight", "layers.0.bias",
    "optimizer/step", "best/layers.0.weight", "estimator/parameters.validation_data.0", "00", "inf",
]  # fmt: skip


def altered_inside(content, random, alter=None):
    """Alter what stands behind the checksum of a file of xpnet's, and make the checksum right again."""
    try:
        size = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:size])
        metadata = dict(header.pop("__metadata__"))
        metadata.pop("sha256", None)
        inner = json.loads(metadata["xpnet"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return content
    for _ in range(random.choice([1, 1, 2, 3])):
        inner = random.choice([alter or altered_json, grafted])(inner, random)
    if random.random() < 0.3:
        header = random.choice([altered_json, altered_kind])(header, random)
    if random.random() < 0.1:
        metadata["dtypes"] = json.dumps(altered_dtypes(metadata.get("dtypes", "{}"), header, random))
    data = content[size:]
    metadata["xpnet"] = json.dumps(inner)
    metadata["sha256"] = tensors._digest(header, metadata, [data])
    text = json.dumps({"__metadata__": metadata, **header} if isinstance(header, dict) else header).encode()
    return len(text).to_bytes(8, "little") + text + data


def altered_json(value, random):
    """Alter one place of a value of JSON."""
    if isinstance(value, dict | list) and value and random.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random.choice(keys)
        changed = value.copy()
        match random.randrange(12):
            case 0:
                del changed[key]
            case 1 if isinstance(value, dict):
                changed[random.choice([*keys, "__class__", "__call__", "_children", "train"])] = changed.pop(
                    key
                )
            case 1:
                changed.insert(key, changed[key])
            case 2:
                changed[key] = changed[random.choice(keys)]
            case _:
                changed[key] = altered_json(value[key], random)
        return changed
    if type(value) is int and random.random() < 0.5:
        return value + random.choice([-1, 1, 2**31, -value, -2 * value])
    return random.choice(VALUES)


def grafted(value, random):
    """Put a part of a value of JSON in the place of another part, or what some name stands for."""
    changed = json.loads(json.dumps(value))
    places, rest = [], [changed] if isinstance(changed, dict | list) else []
    while rest:
        inside = rest.pop()
        for key in inside if isinstance(inside, dict) else range(len(inside)):
            places.append((inside, key))
            if isinstance(inside[key], dict | list):
                rest.append(inside[key])
    if places:
        inside, key = random.choice(places)
        other, other_key = random.choice(places)
        new = [other[other_key]] * 3 + [random.choice(VALUES), {random.choice(WORDS): random.choice(NAMES)}]
        inside[key] = json.loads(json.dumps(random.choice(new)))
    return changed


def altered_kind(header, random):
    """Give an array another dtype or shape for the same bytes."""
    name = random.choice(list(header)) if isinstance(header, dict) and header else ""
    try:
        entry = dict(header[name])
        shape, dtype = [int(length) for length in entry["shape"]], str(entry["dtype"])
    except (KeyError, TypeError, ValueError):  # of a header that was altered before
        return header
    end = random.choice([1, 1, 1, 2, 0])
    shapes = [[*shape, *[1] * end], [*[1] * end, *shape], shape[::-1], [math.prod(shape)]]
    entry["shape"] = random.choice(shapes)
    entry["dtype"] = random.choice(
        [other for other in tensors._DTYPES if other[-2:] == dtype[-2:]] or [dtype]
    )
    return header | {name: entry}


def altered_dtypes(text, header, random):
    """Say of an array that it holds texts or dates."""
    try:
        dtypes = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        dtypes = {}
    name = random.choice([*header, "estimator/parameters"]) if isinstance(header, dict) else ""
    return dtypes | {
        name: random.choice(["<U1", "<U2", "|S4", "<M8[s]", "<m8", "|O", "<V8", "<U0", "<f8", 3])
    }


def altered_leaf(value, random):
    """Alter a number or text of a value of JSON to another of its kind, or exchange two items of a list."""
    changed = json.loads(json.dumps(value))
    places, lists, rest = [], [], [changed] if isinstance(changed, dict | list) else []
    while rest:
        inside = rest.pop()
        if isinstance(inside, list) and len(inside) > 1:
            lists.append(inside)
        for key in inside if isinstance(inside, dict) else range(len(inside)):
            if isinstance(inside[key], dict | list):
                rest.append(inside[key])
            else:
                places.append((inside, key))
    if lists and random.random() < 0.3:
        chosen = random.choice(lists)
        a, b = random.randrange(len(chosen)), random.randrange(len(chosen))
        chosen[a], chosen[b] = chosen[b], random.choice([chosen[a], chosen[b]])
    elif places:
        inside, key = random.choice(places)
        same = [x[k] for x, k in places if type(x[k]) is type(inside[key])]
        new = {
            int: random.choice([-1, 0, 1, 2, 2**31, random.choice(INTERESTING)]),
            str: random.choice(OPERATORS),
        }
        inside[key] = random.choice([random.choice(same), new.get(type(inside[key]), 0.5)])
    return changed


OPERATORS = sorted(name for name in NODES if "." not in name)


def alter_message(message, random):
    """Alter one place of a message of protobuf."""
    while True:
        fields = [field for field, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
        field = random.choice(fields)
        value = getattr(message, field.name)
        repeated = not isinstance(value, int | float | str | bytes) and hasattr(value, "__len__")
        if field.type == field.TYPE_MESSAGE and repeated and len(value) and random.random() < 0.3:
            if random.random() < 0.5:
                del value[random.randrange(len(value))]
            else:
                value.add().CopyFrom(random.choice(list(value)))
            return
        if field.type != field.TYPE_MESSAGE:
            break
        if repeated and not len(value):
            return
        message = random.choice(list(value)) if repeated else value
    integers = [0, 1, 2, 3, 7, 11, -1, 2**31 - 1, -(2**31)]
    new = {
        str: random.choice([*OPERATORS, "", "x", "axis", "to", "output", "layers.0.weight", "constant"]),
        bytes: random.randbytes(random.choice([0, 4, 8, 24])),
        float: random.choice([0.0, -1.0, float("nan"), 1e38]),
        int: random.choice(integers),
    }
    if repeated:
        kind = type(value[0]) if len(value) else int
        with contextlib.suppress(TypeError, ValueError):
            if len(value) and random.random() < 0.6:
                value[random.randrange(len(value))] = new[kind]
            else:
                value.append(new[kind])
    else:
        with contextlib.suppress(TypeError, ValueError):
            setattr(message, field.name, new[type(value)])


# -- a run ------------------------------------------------------------------------------------------------


class Lines:
    """The lines of xpnet that were reached."""

    def __init__(self):
        self.seen = set()
        self.new = False

    def trace(self, frame, event, _):
        if "/xpnet/" not in frame.f_code.co_filename:
            return None
        place = frame.f_code, frame.f_lineno
        if place not in self.seen:
            self.seen.add(place)
            self.new = True
        return self.trace


def read(kind, content, path):
    """Read a file from a stranger; return what was loaded, or the error's message."""
    path.write_bytes(content)
    try:
        with confined():
            loaded = kind.read(path)
    except (ValueError, FloatingPointError, OverflowError) as error:
        if not isinstance(error, ValueError) and kind.name != "checkpoint":
            raise
        if len(str(error)) < 20:
            raise AssertionError(f"no clear error: {error!r}") from error
        return str(error)
    kind.check(loaded, path)
    return loaded


def fuzz(kind, number, directory, *, seed=0, keep=None):
    """Alter files of a kind; return how many of them loaded."""
    chance, path = random.Random(f"{kind.name} {seed}"), Path(directory) / "file"
    kind.write(path)
    corpus = [path.read_bytes(), *(file.read_bytes() for file in sorted(CORPUS.glob(f"{kind.name}-*")))]
    lines, loaded = Lines(), 0
    for content in corpus:  # also loads what is loaded at the first call
        read(kind, content, path)
    for index in range(-len(corpus), number):
        content = corpus[index] if index < 0 else kind.alter(chance.choice(corpus), chance, corpus)
        lines.new = False
        sys.settrace(lines.trace)
        try:
            result = read(kind, content, path)
        except BaseException:
            sys.settrace(None)
            if keep is not None:
                (keep / f"{kind.name}-failed-{seed}-{index}").write_bytes(content)
            raise
        finally:
            sys.settrace(None)
        loaded += index >= 0 and not isinstance(result, str)
        if lines.new and index >= 0:
            corpus.append(content)
            if keep is not None and len(content) < 20_000:
                (keep / f"{kind.name}-{seed}-{index}").write_bytes(content)
    return loaded


if __name__ == "__main__":
    import tempfile

    keep = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    for kind in KINDS.values():
        with tempfile.TemporaryDirectory() as directory:
            loaded = fuzz(kind, int(sys.argv[1]), directory, keep=keep)
        print(
            f"{sys.argv[1]} altered files of the kind {kind.name}: {loaded} loaded, the others gave an error"
        )
