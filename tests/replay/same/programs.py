"""Random programs that call a function, change something, and call it again.

A program is a text. It makes arguments, which are trees of arrays and settings, and a function of them, and
then by turns changes something and calls the function. It is run twice from the beginning: with `jit`, and
with a function in the place of `jit` that gives back what it is given. After each call, the result and the
arguments must be the same, unless `jit` refuses with a `NotRecordableError`.

All arrays hold small integers that are only added and multiplied, so that results are exact, in whatever
order a library adds. A line that does not work without `jit` is left out of the program, so that no line
that is drawn needs to fit all of those before it.

To draw more settings, more that is read, or more changes, add to one of the tables.
"""

import ast
import collections
import contextlib
import copy
import dataclasses
import enum
import functools
import random
import types
import warnings
import zlib

import numpy

import xpnet
from xpnet import nn, tree
from xpnet.errors import NotRecordableError
from xpnet.tree import is_array

# -- the words of programs --------------------------------------------------------------------------------


class Mode(enum.Enum):
    FIRST = 1
    SECOND = 2


Point = collections.namedtuple("Point", "x y")


def parts(value):
    """Yield all that is in a value, in its order: arrays, and texts for all else."""
    kind = type(value).__name__
    if is_array(value):
        yield value
    elif isinstance(value, dict):
        yield f"{kind} of {len(value)}"
        for key, item in value.items():
            yield repr(key)
            yield from parts(item)
    elif isinstance(value, list | tuple | collections.deque):
        yield f"{kind} of {len(value)}"
        for item in value:
            yield from parts(item)
    elif isinstance(value, set | frozenset):
        yield f"{kind} {sorted(map(repr, value))}"
    elif has_attributes(value):
        yield kind
        for name, item in vars(value).items():
            if name != "_children":
                yield name
                yield from parts(item)
    elif callable(value) and not isinstance(value, type):
        yield f"{kind} to {value(3)!r}"
    else:
        yield f"{kind} {value!r}"


def has_attributes(value):
    """Say whether a value is an object of which only the attributes count."""
    others = type | enum.Enum | types.FunctionType | types.MethodType | functools.partial
    return hasattr(value, "__dict__") and not isinstance(value, others)


def weigh(text):
    """Return a small number that tells texts apart."""
    return zlib.crc32(text.encode()) % 97


def total(x):
    """Add up the elements of an array, weighed by their places."""
    xp = xpnet.array_namespace(x)
    if xp.isdtype(x.dtype, "complex floating"):
        return total(xp.real(x)) + 2 * total(xp.imag(x))
    x = flat(xp.astype(x, xp.float64))
    return xp.sum(x * xp.arange(1, x.shape[0] + 1, dtype=x.dtype, device=x.device))


def mix(*values):
    """Return a number that depends on all that is in some values, and on its order."""
    numbers = (total(part) if is_array(part) else weigh(part) for part in parts(values))
    return sum(place * number for place, number in enumerate(numbers, 1))


def arrays(value):
    return [part for part in parts(value) if is_array(part)]


def real(x):
    """Return the real part in double precision."""
    xp = xpnet.array_namespace(x)
    return xp.astype(xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x, xp.float64)


def cast(x, dtype):
    xp = xpnet.array_namespace(x)
    return xp.astype(x, getattr(xp, dtype))


def flat(x):
    return xpnet.array_namespace(x).reshape(x, (-1,))


def slope(x):
    """Return a gradient with respect to an array."""
    return xpnet.grad(lambda x: total(x * x))(real(x))


def table(f, count):
    """Return an array whose shape is what is counted."""
    xp = xpnet.array_namespace(f)
    return xp.ones((count, 2), dtype=xp.float64, device=f.device) + total(f)


def remember(module, number):
    """Write to the state of a module."""
    if "seen" in module.state and "seen" in vars(module):
        module.seen = module.seen + number


def rotate(items):
    """Put what is first behind all others."""
    if isinstance(items, dict):
        first = next(iter(items))
        items[first] = items.pop(first)
    else:
        items.append(items.pop(0))


def write(x):
    """Change the elements of an array."""
    x[...] = 1 - x if x.dtype != bool else ~x


WORDS = {word.__name__: word for word in (Mode, Point, collections.OrderedDict, dataclasses.dataclass)}
WORDS |= {word.__name__: word for word in (collections.deque, functools.partial, types.SimpleNamespace)}
WORDS |= {word.__name__: word for word in (parts, weigh, total, mix, arrays, real, flat, slope, table)}
WORDS |= {word.__name__: word for word in (remember, rotate, write, cast)}
WORDS |= {"lru_cache": functools.lru_cache, "ModuleType": types.ModuleType}
WORDS |= {"branches": tree.branches, "copied": copy.deepcopy, "nn": nn, "numpy": numpy}


def maker(device):
    """Return a function that makes arrays on a device."""
    xp = device.namespace

    def array(shape, dtype="float64", layout="C", start=0):
        x = numpy.reshape((numpy.arange(numpy.prod(shape, dtype=int)) * 5 + start) % 7, shape)
        x = xpnet.asarray(x.astype(dtype), device=device)
        if layout == "F":
            axes = tuple(range(len(shape)))[::-1]
            x = xp.permute_dims(xp.asarray(xp.permute_dims(x, axes), copy=True), axes)
        elif layout == "strided" and shape:
            x = xp.repeat(x, 2, axis=-1)[..., ::2]
        elif layout == "broadcast" and shape and shape[-1]:
            x = xp.broadcast_to(x[..., :1], shape)
        elif layout == "reversed" and shape:
            x = xp.flip(x, axis=-1)
        elif device.spec != "cpu":
            pass
        elif layout == "scalar":
            x = x[()]
        elif layout == "swapped":
            x = x.astype(x.dtype.newbyteorder())
        elif layout == "frozen":
            x.flags.writeable = False
        return x

    return array


# -- tables -----------------------------------------------------------------------------------------------

# The settings of a line are equal, or look so, and are not the same.
ALIKE = [
    ["0", "0.0", "-0.0", "False", "0j", "-0j"],
    ["1", "1.0", "True", "2", "Mode.FIRST"],
    ["None", "'None'", "'mean'", "b'mean'", "'sum'", "()"],
    ["[1, 2]", "(1, 2)", "[1.0, 2]", "[2, 1]", "deque([1, 2])", "range(1, 3)", "[True, 2]", "Point(1, 2)"],
    ["{'p': 1, 'q': 2}", "{'q': 2, 'p': 1}", "{'p': 1, 'q': 2.0}", "OrderedDict(p=1, q=2)", "{True: 3}"],
    ["{1, 2}", "frozenset([1, 2])", "{1, 3}", "{True, 2}", "set()"],
    ["Options(0.0)", "Options(-0.0)", "Options(False)", "Options(1, [1, 2])", "Options(1, Options())"],
    ["SimpleNamespace(rate=1)", "SimpleNamespace(rate=1.0)", "Plain(rate=1)", "Plain(rate=True)", "Plain()"],
    ["lambda v: v + 1", "lambda v: v + 2", "lambda v: v + 2.0", "lambda v, w=1: v + w", "abs", "float"],
    ["partial(pow, 2)", "partial(pow, 3)", "partial(pow, exp=2)", "[1, 2].count", "[3, 3].count"],
    ["float('nan')", "float('inf')", "-float('nan')", "2**70", "2.0**70", "1e300"],
    ["numpy.float32", "numpy.dtype('float32')", "numpy.float64", "int", "Mode.SECOND", "slice(0, 2)"],
    ["[[0]]", "[[0.0]]", "[[-0.0]]", "{'p': [0]}", "{'p': [False]}", "[Options(0)]", "[Plain(rate=[0])]"],
]  # fmt: skip

DTYPES = ["float64", "float64", "float32", "int64", "int32", "uint8", "bool", "complex128"]
SHAPES = [(), (1,), (3,), (2, 3), (3, 2), (3, 3), (0,), (2, 0), (1, 3), (2, 1, 2), (8,)]
LAYOUTS = ["C", "C", "F", "strided", "reversed", "broadcast", "scalar", "swapped", "frozen"]

# The classes of each program, which it may change.
CLASSES = """\
class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)
@dataclass
class Options:
    rate: object = 0
    more: object = None
@dataclass
class Pair:
    first: object
    second: object
class Net(nn.Module):
    state = ("seen",)
    scale = 2
    def __init__(self, **attributes):
        vars(self).update(attributes)
    def term(self):
        return mix(self.scale)
    def __call__(self, x):
        return real(x) * self.term()
class Other(Net):
    def term(self):
        return 5"""

# What a function may read besides its arguments: a place that is set, what makes it, and what is read.
OUTSIDE = [
    ("knob", "knob = {}", "knob"),
    ("box.value", "box = SimpleNamespace(value={})", "box.value"),
    ("plain.value", "plain = Plain(value={})", "plain.value"),
    ("plain.value", "plain = Plain(value={})", "plain"),
    ("plain.extra", "plain = Plain(value={})", "len(vars(plain))"),
    ("plain.extra", "plain = Plain(value={})", "getattr(plain, 'extra', 0)"),
    ("plain.extra", "plain = Plain(value={})", "hasattr(plain, 'extra')"),
    ("options", "options = Options({})", "options"),
    ("choices['p']", "choices = {{'p': {}}}", "choices['p']"),
    ("listed[0].value", "listed = [Plain(value={})]", "listed"),
    ("queue[0]", "queue = deque([{}])", "queue"),
    ("config.value", "config = ModuleType('config')\nconfig.value = {}", "config.value"),
    ("helped", "helped = {}\ndef helper(v=1):\n    return mix(v, helped)", "helper()"),
    ("helper.value", "def helper(v=1):\n    return mix(v, helper.value)\nhelper.value = {}", "helper()"),
    ("inner", "inner = {}\nthrough = partial(lambda v: mix(v, inner), 2)", "through()"),
    ("Settings.value", "class Settings:\n    value = {}", "Settings.value"),
    ("Settings.value", "class Settings:\n    value = {}\nsettings = Settings()", "settings.value"),
    ("settings.value", "class Settings:\n    value = {}\nsettings = Settings()", "settings.value"),
    ("Settings.extra", "class Settings:\n    value = {}\nsettings = Settings()",
     "hasattr(settings, 'extra')"),
    ("Table.value", "class Table(Plain):\n    value = {}\n"
     "    @classmethod\n    def of(cls):\n        return cls.value", "Table.of()"),
    ("made.rate", "class Made(Plain):\n    @property\n    def value(self):\n        return self.rate\n"
     "made = Made(rate={})", "made.value"),
    ("slotted.value", "class Slotted:\n    __slots__ = 'value'\nslotted = Slotted()\nslotted.value = {}",
     "slotted.value"),
    ("quiet.rate", "quiet = Net(rate={})", "quiet"),
    ("loud.rate", "loud = Net(weight=array((3,)), rate={})", "loud"),
    ("abs", "unused = {}", "abs(-2) if callable(abs) else abs"),
    ("later", "unused = {}", "later if 'later' in globals() else 0"),
    ("f.rate", "unused = {}", "getattr(f, 'rate', 1)"),
]  # fmt: skip

# What is read, by the kind of what stands at a place.
READS = {
    "all": [
        "y = y + {k} * mix({place})",
        "y = y + {k} * mix({place})",
        "y = y + (lambda v: v * mix({place}))({k})",
        "y = y + sum(k * mix(part) for k, part in enumerate([{place}, {name}]))",
        "if {place} is None: y = y + {k}",
        "y = y + mix(getattr({name}, 'rate', {k}))",
        "y = y + mix({place}) if hasattr({name}, 'extra') else y",
        "out += [real(x) * {k} + y for x in arrays({name})]",
        "out += [flat(real(x).T) + 2 * flat(real(x)) for x in arrays({name}) if len(x.shape) == 2]",
        "out += [x[1:] for x in arrays({name}) if len(x.shape) == 1]",
        "out += [slope(x) for x in arrays({name})]",
        "y = y + sum(total(module(x)) for module in branches({name}) for x in arrays({last}))",
        "y = y + {k} * sum(module.training + module.term() for module in branches({name}))",
        "y = y + mix(Net.scale)",
        "y = y + mix(default)",
        "for module in branches({name}): remember(module, y)",
        "def inner(v=mix({name})): return v + mix({place})\ny = y + inner()",
    ],
    "setting": [
        "if {place}: y = y + {k}",
        "y = y * {place} if isinstance({place}, int | float) and abs({place}) < 9 else y",
        "out += [flat(x)[: {place}] for x in arrays({name}) if type({place}) in (int, bool)]",
    ],
    "list": ["for k, item in enumerate({place}): y = y + k * mix(item)", "y = y + len({place})"],
    "dict": ["for k, key in enumerate({place}): y = y + k * mix({place}[key])", "y = y + mix(*{place})"],
    "set": ["y = y + len({place}) * {k}", "y = y + (1 in {place})"],
    "object": ["for k, name in enumerate(vars({place})): y = y + k * weigh(name)",
               "y = y + mix({place}.rate)"],
    "module": ["y = y + {place}.term()", "y = y + total({place}(array((3,))))", "remember({place}, y)"],
    "pair": ["y = y + mix({place}.first)"],
    "array": ["out.append({place} if len({place}.shape) == 1 else {place}.shape)", "y = y + total({place})"],
    "count": ["out += [flat(x)[: {place}] for x in arrays({name})]", "y = y + total({place}) + {place}",
              "out += [table(x, {place}) for x in arrays({name})]", "out += [x for x in range({place})]"],
}  # fmt: skip

# What is returned.
RETURNS = [
    "y", "y, out", "y, out, {place}", "{{'z': y, 'a': out, 'n': {place}}}", "Point(y, [{place}, out])",
    "OrderedDict(z=y, a={place})", "[y, ({names},)]", "Pair(y, out)", "Options(y, {place})", "{place}",
]  # fmt: skip

# What is changed, by the kind of what stands at a place.
CHANGES = {
    "setting": ["{place} = {alike}"] * 7 + ["del {place}", "{place} = {object}"],
    "list": ["{place}.append({setting})", "{place}.append({array})", "{place}.reverse()", "{place}.pop()",
             "rotate({place})", "{place}[0] = {setting}", "{place} = tuple({place})"],
    "dict": ["{place}['n'] = {setting}", "{place}['n'] = {array}", "rotate({place})", "{place}.popitem()",
             "{place}['p'] = {setting}", "{place} = OrderedDict({place})", "{place} = dict({place})"],
    "set": ["{place}.add({k})", "{place}.discard({k})", "{place}.clear()", "{place} = frozenset({place})"],
    "object": ["rotate(vars({place}))", "{place}.rate = {setting}", "{place}.rate = -0.0", "del {place}.rate",
               "{place}.extra = {setting}", "{place}.more = {setting}", "{place}.more.rate = {setting}",
               "{place} = {object}", "{place} = copied({place})"],
    "module": ["{place}.eval()", "{place}.train()", "{place}.rate = {setting}", "rotate(vars({place}))",
               "{place}.extra = {setting}", "del {place}.extra", "{place}.weight = {array}",
               "{place}.__class__ = Other", "{place}.__class__ = Net", "{place}.scale = {k}",
               "{place}.seen = array(())", "{place} = {module}", "{place} = {module}"],
    "pair": ["{place}.first = {array}", "{place}.second = {setting}", "{place}.first = {place}.second",
             "rotate(vars({place}))"],
    "array": ["write({place})", "write({place})", "{place} = {array}", "{place} = {array}", "{place} = {any}",
              "{place} = {place}[...]", "{place} = copied({place})", "{place} = {place}.T",
              "{place} = {setting}", "del {place}", "{place} = {module}", "{place} = {place} == 1",
              "{place} = flat({place})", "{place} = real({place})", "{place} = cast({place}, {dtype!r})",
              "{place} = cast({place}, {dtype!r})"],
    "count": ["{place} = {count}"] * 4 + ["write({place})"],
}  # fmt: skip

# What is changed anywhere.
ANYWHERE = [
    "Net.term = lambda self: 11", "Other.term = Net.term", "Net.extra = 4", "del Net.extra", "Net.scale = 3",
    "helper = lambda v=1: 8", "slope = flat", "listed.append({setting})", "quiet.eval()",
    "write(loud.weight)",
    "helper.__defaults__ = ({setting},)", "f.__defaults__ = ({setting},)", "f.__defaults__[0].clear()",
    "f.__defaults__[0].rate = {setting}", "box = SimpleNamespace(value={setting})", "loud.weight = {array}",
    "Settings = Plain(value={setting})", "settings.value = {setting}", "rotate(vars(plain))", "made = Made()",
    "{name} = copied({name})", "{names}, = copied(({names},))",
]  # fmt: skip

# -- drawing ----------------------------------------------------------------------------------------------


class Drawing:
    """Draws a program.

    Attributes
    ----------
    lines : list of str
        The program; some have several lines of text.
    places : dict of str
        The kinds of what stands where.
    texts : dict of str
        The texts of settings that stand there.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lines, self.places, self.texts = statements(CLASSES), {}, {}

    def one_of(self, items):
        return self.random.choice(list(items))

    def chance(self, probability=0.5):
        return self.random.random() < probability

    def program(self):
        for number in range(self.random.randrange(3)):
            self.lines.append(f"x{number} = {self.array(f'x{number}')}")
        names = ["a", "b", "c"][: self.random.randrange(1, 4)]
        self.names = ", ".join(names)
        for name in names:
            self.lines.append(f"{name} = {self.tree(name)}")
        self.inside = [place for place in self.places if place[0] in self.names]
        self.donate = tuple(name for name in names if self.chance(0.15))
        self.counted = self.chance(0.2)
        self.outside = []
        for _ in range(self.random.randrange(1, 4) if self.chance() else 0):
            place, text, read = self.one_of(OUTSIDE)
            self.lines += statements(text.format(self.setting(place)))
            self.outside.append(read)
        self.function()
        self.call()
        for _ in range(self.random.randrange(2, 8)):
            self.lines.append(self.change())
            while self.chance(0.3):
                self.lines.append(self.change())
            self.call()
        return self.lines

    # -- values, and what is known of them

    def setting(self, place=None):
        """Return the text of a setting, which will stand at a place."""
        text = self.one_of(self.one_of(ALIKE))
        if place:
            self.note(place, text)
        return text

    def alike(self, place):
        """Return the text of a setting that is perhaps equal to what stood at a place before."""
        line = next((line for line in ALIKE if self.texts.get(place) in line), ALIKE[0])
        return self.one_of(line) if self.chance(0.7) else self.setting()

    def note(self, place, text):
        """Remember what stands at a place, and what is in it."""
        self.texts[place], self.places[place] = text, "setting"
        if text[0] == "[" and text[-1] == "]":
            self.places[place] = "list"
            self.note(f"{place}[0]", text[1:-1].partition(",")[0])
        elif text.startswith(("{'", "OrderedDict")):
            self.places[place] = "dict"
            self.note(f"{place}['p']", "[0]" if "[0]" in text else "1")
        elif text.startswith(("{", "set")):
            self.places[place] = "set"
        elif text.startswith(("Options", "SimpleNamespace", "Plain")):
            self.places[place] = "object"
            self.note(f"{place}.rate", "1")

    def new_array(self):
        shape, dtype, layout = self.one_of(SHAPES), self.one_of(DTYPES), self.one_of(LAYOUTS)
        return f"array({shape}, {dtype!r}, {layout!r}, {self.random.randrange(7)})"

    def array(self, place):
        """Return the text of an array: a new one, one that stands elsewhere, or a part of one."""
        others = [name for name in self.places if name[0] == "x"]
        self.places[place] = "array"
        if others and self.chance():
            return self.one_of(others) + self.one_of(["", "", "[...]", "[1:]", ".T", "[0]"])
        return self.new_array()

    def count(self, place=None):
        """Return the text of a small number that says how many."""
        if place:
            self.places[place] = "count"
        number, dtype = self.random.randrange(4), self.one_of(["int64", "int32"])
        layout = self.one_of(["scalar", "scalar", "C"])
        return self.one_of([f"array((), {dtype!r}, {layout!r}, {number})"] * 3 + [str(number)])

    def tree(self, place, depth=2):
        """Return the text of a tree, which will stand at a place."""
        kind = self.random.randrange(13 if depth else 7)
        if kind < 4:
            return self.array(place)
        if kind < 6:
            return self.setting(place)
        if kind == 6:
            return self.count(place)
        if kind < 10:
            names = ["rate", "options", "weight", "inner", "seen", "bias"]
            names = self.random.sample(names, k=self.random.randrange(1, 5))
            self.places[place] = "module"
            return f"{self.one_of(['Net', 'Net', 'Other'])}({self.attributes(place, names, depth)})"
        if kind == 10:
            self.places[place] = "pair"
            kind = self.one_of(["Pair", "Pair", "Pair", "Plain"])
            return f"{kind}({self.attributes(place, ['first', 'second'], depth)})"
        if kind == 11:
            self.places[place] = "dict"
            keys = self.random.sample(["p", "q", "r"], k=2)
            items = [f"{key!r}: " + self.tree(f"{place}[{key!r}]", depth - 1) for key in keys]
            text = f"{{{', '.join(items)}}}"
            return self.one_of([text, text, f"OrderedDict({text})"])
        self.places[place] = "list"
        text = ", ".join(self.tree(f"{place}[{number}]", depth - 1) for number in range(2))
        return self.one_of([f"[{text}]", f"[{text}]", f"({text})", f"Point({text})"])

    def attributes(self, place, names, depth):
        def text(name):
            inside = f"{place}.{name}"
            if name in ("rate", "options"):
                return self.setting(inside)
            if name in ("weight", "seen"):
                return self.array(inside) if name == "weight" else "array(())"
            return self.tree(inside, depth - 1)

        return ", ".join(f"{name}={text(name)}" for name in names)

    def fill(self, template, place):
        """Put names and values into a template."""
        names = self.names.split(", ")

        def named(kind):
            return self.one_of([*(name for name, found in self.places.items() if found == kind), place])

        words = {"place": place, "name": self.one_of(names), "names": self.names, "last": names[-1]}
        words |= {"setting": self.setting(), "alike": self.alike(place), "array": self.new_array()}
        words |= {
            "any": named("array"),
            "module": named("module"),
            "object": named("object"),
            "count": self.count(),
        }
        words |= {"count": self.count(), "dtype": self.one_of(DTYPES)}
        return template.format(**words, k=self.random.randrange(1, 9))

    # -- the function

    def function(self):
        """Write the function, and what wraps it."""
        cell = self.setting("cell") if self.chance(0.3) else None
        readable = [*self.inside, *self.outside * 4] + (["cell"] * 4 if cell else [])
        body = ["y, out = 0, []"]
        if self.chance(0.8):
            body.append(f"y = y + mix({self.names})")
        if self.counted:
            body.append("entered.append(1)")
        for _ in range(self.random.randrange(1, 6)):
            place = self.one_of(readable)
            templates = READS["all"] if self.chance(0.7) else READS[self.places.get(place, "all")]
            body.append(self.fill(self.one_of(templates), place))
        # What is outside is not returned, as it could be written to then.
        body.append("return " + self.fill(self.one_of(RETURNS), self.one_of(self.inside)))
        default = f", default={self.setting()}" if self.chance(0.3) else ""
        body = "\n".join(body).replace("mix(default)", "mix(default)" if default else "mix(7)")
        lines = [f"def f({self.names}{default}):", *(f"    {line}" for line in body.splitlines())]
        if cell:
            change = ["    def set_cell(value):", "        nonlocal cell", "        cell = value"]
            lines = ["def make():", f"    cell = {cell}", *(f"    {line}" for line in lines), *change]
            lines += ["    return f, set_cell", "f, set_cell = make()"]
        self.lines += ["\n".join(lines)] if not cell else ["\n".join(lines[:-1]), lines[-1]]
        wrapped = self.one_of(
            ["f"] * 6 + [f"lambda {self.names}: f({self.names})", "partial(f)", "model.run"]
        )
        if wrapped == "model.run":
            method = f"    def run(self, {self.names}):\n        return f({self.names}), mix(self.value)"
            self.lines += [
                f"class Model(Plain):\n{method}",
                f"model = Model(value={self.setting('model.value')})",
            ]
        self.lines.append(f"g = jit({wrapped}{f', donate={self.donate}' if self.donate else ''})")

    def call(self):
        """Write a call of the function."""
        if self.donate or self.chance(0.2):
            call = f"spoil(*copied(({self.names},)))"
        elif self.counted and self.chance():
            call = f"settle({self.names})"
        else:
            first, _, last = self.names.rpartition(", ")
            call = f"call({self.names})" if self.chance(0.9) or not first else f"call({first}, {last}={last})"
        self.lines.append(call)

    def change(self):
        """Return a line that changes something."""
        if "cell" in self.places and self.chance(0.15):
            return f"set_cell({self.alike('cell')})"
        place = self.one_of(self.places)
        if self.chance(0.2):
            return self.fill(self.one_of(ANYWHERE), place)
        return self.fill(self.one_of(CHANGES[self.places[place]]), place)


# -- running ----------------------------------------------------------------------------------------------


class Run:
    """A program that runs.

    Attributes
    ----------
    calls : list of (object, Exception or None)
        What there was after each call: its result and the arguments as texts, and its error.
    entered : bool
        Whether the last call went through the lines of the function.
    """

    def __init__(self, jit, device, lines=()):
        self.calls, self.entered = [], False
        words = {"array": maker(device), "jit": jit, "entered": [], "__name__": "program"}
        self.names = WORDS | words | {"call": self.call, "spoil": self.spoil, "settle": self.settle}
        for line in lines:
            exec(line, self.names)
        if lines:
            self.names.clear()  # the classes stay in xpnet's tables, with all that they name

    def call(self, *arguments, **keywords):
        """Call the function of the program, and look at what there is after it."""
        self._call(arguments, keywords, lambda result: (result, arguments, keywords))

    def spoil(self, *arguments):
        """Call the function, and write over its arguments and its result."""
        result = self._call(arguments, {}, lambda result: result)
        overwrite((result, arguments))

    def settle(self, *arguments):
        """Call the function until it needs not be recorded."""
        for _ in range(4):
            self.call(*arguments)
        if self.entered and hasattr(self.names["g"], "explain"):
            found = [x for x in tree.leaves(arguments, state=True) if is_array(x)]
            modules = [id(module) for module in tree.branches(arguments)]
            native = all(getattr(x.dtype, "isnative", True) for x in found)
            if found and native and len(set(modules)) == len(modules) and self.calls[-1][1] is None:
                self.calls.append((None, AssertionError("the same call is recorded again and again")))
                return
        self.calls.append((None, None))

    def _call(self, arguments, keywords, look):
        function = self.names["g"]
        result = texts = error = None
        try:
            before = len(self.names["entered"])
            result = function(*arguments, **keywords)
            self.entered = len(self.names["entered"]) > before
            texts = described(look(result))
        except NotRecordableError as refusal:
            error = refusal
            with contextlib.suppress(Exception):  # what it does to state is seen by the next call
                result = function.__wrapped__(*arguments, **keywords)
        except Exception as other:
            error = other
        self.calls.append((texts, error))
        return result


def described(value):
    """Return what is in a value, as texts."""
    return [_text(part) if is_array(part) else part for part in parts(value)]


def _text(x):
    try:
        values = xpnet.to_numpy(x)
    except NotRecordableError:
        raise AssertionError(f"{x!r} got out") from None
    kind = "NumPy" if isinstance(x, numpy.ndarray | numpy.generic) else type(x).__name__
    values = values if values.dtype == bool else values + 0  # which makes 0.0 of -0.0
    return f"{kind} {x.dtype} {values.shape} {values.tolist()}"


def overwrite(value):
    """Write over all that can be written to."""
    if is_array(value):
        with contextlib.suppress(Exception):  # not each array can be written to
            write(value)
    elif has_attributes(value):
        overwrite(vars(value))
    elif isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            overwrite(item)
        if not isinstance(value, tuple):
            value.clear()


def eager(f, **_):
    """Stand in the place of `jit`."""
    return functools.wraps(f)(lambda *arguments, **keywords: f(*arguments, **keywords))


def working(lines, device):
    """Return the lines of a program that work without `jit`."""
    run, kept = Run(eager, device), []
    for line in lines:
        with contextlib.suppress(Exception):
            exec(line, run.names)
            kept.append(line)
    run.names.clear()
    return kept


def fault(lines, device):
    """Run a program without `jit` and with it; return what differs, as a text, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            right = Run(eager, device, lines)
        except Exception:  # as a part was left out that it needs
            return None
        found = Run(xpnet.jit, device, lines)
    for number, pair in enumerate(zip(found.calls, right.calls, strict=True), 1):
        (actual, error), (expected, right_error) = pair
        if error and right_error:
            return None  # what was written before it stays without `jit`, and is lost with it
        if isinstance(error, NotRecordableError):
            continue
        if error is not None:
            return f"call {number} raises {type(error).__name__}: {error}"
        if right_error is not None:
            return f"call {number} should raise {right_error!r}"
        if actual != expected:
            return f"call {number} gives\n  {actual}\nin place of\n  {expected}"
    return None


def smallest(lines, device):
    """Return a program with a fault of the same kind, from which nothing can be left out."""

    def kind(lines):
        return (fault(lines, device) or "").split()[2:4]

    text, shorter, wanted = None, "\n".join(lines), kind(lines)
    while text != shorter:
        text = shorter
        program = ast.parse(text)
        for _ in without_a_part(program):
            with contextlib.suppress(Exception):  # it is no program then
                fewer = ast.unparse(program)
                if len(fewer) < len(shorter) and kind(statements(fewer)) == wanted:
                    shorter = fewer
                    program.kept = True
    return statements(text)


def without_a_part(program):
    """Leave one part after the other out of a program, which stays left out if it has ``kept`` then."""
    program.kept = False
    for node in list(ast.walk(program)):
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                changes = [lambda found, item=item: [x for x in found if x is not item] for item in value]
            elif isinstance(value, ast.expr):
                inside = [ast.Constant(0), *(x for x in ast.walk(value) if isinstance(x, ast.expr))]
                changes = [lambda _, other=other: other for other in inside[::-1]]
            else:
                continue
            for change in changes[::-1]:  # what comes last needs what comes first
                before = getattr(node, name)
                setattr(node, name, change(before))
                yield
                if not program.kept:
                    setattr(node, name, before)
                program.kept = False


def statements(text):
    """Return the statements of a program."""

    def first(x):
        return min([x.lineno, *(each.lineno for each in getattr(x, "decorator_list", ()))])

    lines = text.splitlines(keepends=True)
    return ["".join(lines[first(x) - 1 : x.end_lineno]).rstrip() for x in ast.parse(text).body]
