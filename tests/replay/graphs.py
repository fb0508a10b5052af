"""Small functions, recorded: their graphs, kernels and memory, in a form that a test can name.

What these tests know of the insides of `xpnet.replay` stands here alone. A variable has a letter: ``a`` is
the first argument, and so on through the arguments and the results, in order.
"""

import re
from itertools import combinations, count
from string import ascii_lowercase

import numpy

import xpnet
from tests.replay.cases import assert_identical
from tests.replay.kinds import use
from xpnet import tree
from xpnet.replay.functions import VIEWS
from xpnet.replay.graph import Variable
from xpnet.replay.jit import _Recording
from xpnet.replay.kernels import c, python
from xpnet.replay.plans import numba
from xpnet.replay.plans.memory import _Memory
from xpnet.replay.plans.plan import MemoryPlan


class Recording:
    """A function of arrays as it was recorded for some, with its graph and its plan.

    Parameters
    ----------
    f : callable
    *arguments : array
    kernels : list of str
        Where the texts of kernels are put when a plan is made.
    donate : sequence of str
    precision : str
    """

    def __init__(self, f, *arguments, kernels, donate=(), precision="float32"):
        self.f = f
        self._names, self._donate = f.__code__.co_varnames, donate
        self.jit = xpnet.jit(f, donate=donate, precision=precision)
        before = len(kernels)
        recording = _Recording(f, (arguments, {}), self.jit._donated, precision)
        self.jit._recordings = [recording]
        self.plan, self.graph = recording.plan, recording.plan.graph
        self.kernels = kernels[before:]
        assert isinstance(self.plan, MemoryPlan), "the functions are called one after the other"

    def __call__(self, *arguments):
        """Call the recording, with memory in which nothing is left of the call before."""
        self._poison()
        return self.jit(*arguments)

    def _poison(self):
        """Set all bits in the buffers of the plan: NaN, -1 and a truth that is none."""
        for idle in self.plan._idle:
            for x in getattr(idle, "_function", idle).__globals__.values():
                if isinstance(x, numpy.ndarray) and getattr(x.base, "dtype", None) == numpy.uint8:
                    x.base[...] = 255

    def check(self, *calls):
        """Call the recording with several lists of arguments, and assert that it does as the function does.

        Results agree bit for bit, are arrays of their own where they are no views, and stay as they are in
        later calls; arguments that are not donated stay as they are.
        """
        kept = []
        for arguments in calls:
            given = [numpy.array(x) for x in arguments]
            expected = tree.leaves(self.f(*(numpy.array(x) for x in arguments)))
            found = tree.leaves(self(*given))
            for number, (one, other) in enumerate(zip(found, expected, strict=True)):
                assert isinstance(one, numpy.ndarray) >= isinstance(other, numpy.ndarray)
                assert_identical(numpy.asarray(one), numpy.asarray(other), f"result {number}")
            for name, x, before in zip(self._names, given, arguments, strict=False):
                if name not in self._donate:
                    assert_identical(x, numpy.asarray(before), f"argument {name}")
            own = [x for x in found if isinstance(x, numpy.ndarray) and x.base is None]
            for x, y in combinations(own, 2):
                assert not numpy.shares_memory(x, y), "two results are one array"
            kept += [(x, numpy.array(x)) for x in found]
        for now, before in kept:
            assert_identical(numpy.asarray(now), before, "a result of an earlier call")

    # -- the graph ----------------------------------------------------------------------------------------

    @property
    def _letters(self):
        letters = (f"{letter}{n or ''}" for n in count() for letter in ascii_lowercase)
        return dict(zip(self.graph.variables, letters, strict=False))

    @property
    def lines(self):
        """The operations and what is returned, as text."""
        shown = [self._line(operation) for operation in self.graph.operations]
        return [*shown, f"return {', '.join(map(self._text, self.graph.outputs))}"]

    def _line(self, operation):
        options = [f"{key}={self._text(value)}" for key, value in operation.options.items()]
        if operation.precision != "float32":
            options.append(f"precision={operation.precision}")
        arguments = ", ".join([*map(self._text, operation.arguments), *options])
        return f"{', '.join(map(self._text, operation.results))} = {operation.name}({arguments})"

    def _text(self, value):
        if type(value) is Variable:
            return self._letters[value]
        if type(value) in (list, tuple):
            return f"({', '.join(map(self._text, value))})"
        if isinstance(value, numpy.ndarray | numpy.generic):
            return str(value.item()) if value.size == 1 and not value.shape else f"array{value.shape}"
        if type(value) is slice:
            ends = [value.start, value.stop, *([] if value.step is None else [value.step])]
            return ":".join("" if x is None else str(x) for x in ends)
        return "..." if value is ... else getattr(value, "__name__", str(value))

    @property
    def names(self):
        """The names of the operations, in order."""
        return [operation.name for operation in self.graph.operations]

    def operation(self, name):
        """Return the only operation with a name."""
        (found,) = (operation for operation in self.graph.operations if operation.name == name)
        return found

    # -- the plan -----------------------------------------------------------------------------------------

    @property
    def steps(self):
        """What is called, in order, but for views; the names of all that a kernel does are joined."""
        views = {x.number for o in self.graph.operations if o.name in VIEWS for x in o.results}
        found = []
        for line in self.plan.source.splitlines()[1:-1]:
            made = re.match(r"\s*(?:# )?x_(\d+) = ", line)
            name = re.search(r"(?:assign\(.*?, )?(\w+?)(?:_\d+)?\(", line)
            if (
                name
                and not line.lstrip().startswith("if run")
                and name[1] != "empty"
                and not (made and int(made[1]) in views)
            ):
                found.append({"dot": "matmul", "product": "matmul"}.get(name[1], name[1]))
        return found

    @property
    def places(self):
        """Where in the plan's memory each buffer begins, and how long it is, in bytes."""
        return {self._letters[x]: place for x, place in self.plan.buffers.items() if x in self._letters}

    @property
    def summary(self):
        """What `explain` says of the memory: buffers, views, written over, new arrays."""
        found = re.search(
            r"(\d+) buffers .*; (\d+) views made once; (\d+) results .*, (\d+) into", self.plan.explain()
        )
        return {
            name: int(n) for name, n in zip(("buffers", "views", "over", "new"), found.groups(), strict=True)
        }

    @property
    def passes(self):
        """What the only kernel reads from arrays and stores, loop by loop.

        That is of each row (``i``), or of each element of a row (``j``). Arguments are called ``a0`` and so
        on there, results ``o0``, and rows that are kept for a later pass ``k0``.
        """
        (text,) = self.kernels
        found, scopes = [], []
        for line in text.splitlines():
            depth = len(line) - len(line.lstrip())
            scopes = [scope for scope in scopes if scope[0] < depth]
            loop = re.match(r" *for \(?(?:Index )?(\w)\b", line)
            if loop:
                scopes.append((depth, loop[1], len(found)))
            place = re.search(r"\b([aok]\d+)\[.*?\] = ", line)
            read = re.findall(r"\b[ak]\d+(?=\[)", line[place.end() :] if place else line.partition(" = ")[2])
            if scopes and (read or place):
                if not found or found[-1][0] != scopes[-1][1:]:
                    found.append((scopes[-1][1:], [], []))
                found[-1][1].extend(read)
                found[-1][2].extend([place[1]] if place else [])
        return [
            f"{scope[0]}: {' '.join(sorted(read))} -> {' '.join(stored)}" for scope, read, stored in found
        ]


def recorder(kind, monkeypatch):
    """Return a function that records as `Recording` does, for plans of one kind."""
    kernels = []
    host = use(kind, monkeypatch)
    if host:
        kernel = host.kernel
        monkeypatch.setattr(host, "kernel", lambda text, grid: (kernels.append(text), kernel(text, grid))[1])
    else:
        native = numba.native

        def kept(text, *arguments):
            if text.startswith("def kernel"):
                kernels.append(text)
            return native(text, *arguments)

        monkeypatch.setattr(numba, "native", kept)

    def record(f, *arguments, **options):
        return Recording(f, *arguments, kernels=kernels, **options)

    return record


def memory(alignment):
    """Return what says which parts of a stretch of memory are in use."""
    return _Memory(alignment)


def limit(monkeypatch, **limits):
    """Let the kernels of all plans be smaller than they might be."""
    for module in (python, c):
        monkeypatch.setattr(module, "TARGET", module.TARGET._replace(**limits))
