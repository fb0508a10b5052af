"""How a kernel goes through the rows of an array: what is loaded, made and stored in which pass.

What is known only at the end of a row, such as the largest element that a softmax subtracts, can be used in
the next *pass* through that row. Renderers for numba (`python.py`) and for CUDA (`c.py`) write the lines.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy

from xpnet.replay.functions import PICK, REDUCTIONS, STACK, dtypes_of
from xpnet.replay.graph import Variable
from xpnet.replay.kernels.kernel import COLUMN, FULL, NUMBER, ROW, STACKED, Kernel, Part, elements


class Passes:
    """The source of a kernel, as a function of its inputs, outputs, numbers and size.

    A row is gone through in several *passes* if something is known only at its end. What is made in one pass
    and read in a later one is kept in a row of its own.

    Parameters
    ----------
    kernel : Kernel
    outputs : sequence of Variable
        What is stored.
    over : dict of Variable to Variable
        The outputs that are written over an input, each with that: both are handed in as one.

    Attributes
    ----------
    numbers : list of float
        Constants that are handed in, so that one compiled function serves other sizes of a batch.
    source : str
    """

    def __init__(self, kernel: Kernel, outputs: Sequence[Variable], over: dict[Variable, Variable]) -> None:
        self.kernel = kernel
        self.numbers: list[float] = []
        self._inputs = inputs = {x: f"a{index}" for index, x in enumerate(kernel.inputs)}
        stores = {x: inputs[over[x]] if x in over else f"o{index}" for index, x in enumerate(outputs)}
        self._stacks = {x: name for x, name in stores.items() if kernel.kinds[x] == STACKED}
        self._stores = {x: f"{name}[{self._index(x)}]" for x, name in stores.items() if x not in self._stacks}
        # The pass in which a full variable is made, and before which any other is; and in which it is read.
        self._pass: dict[Variable, int] = {}
        self._readers: dict[Variable, set[int]] = {}
        self._last = 0
        self._schedule()
        for x in over:
            self._readers.setdefault(x, set()).add(self._last)
        # Lines before all rows, before each pass through a row, in each pass, and behind all rows.
        self._first: list[str] = []
        self._before: list[list[str]] = [[] for _ in range(self._last + 2)]
        self._inside: list[list[str]] = [[] for _ in range(self._last + 1)]
        self._behind: list[str] = []
        self._values: dict[Variable, str] = {}
        self._rows: dict[Variable, Any] = {}  # where the present row is, as the renderer writes it
        for x, name in inputs.items():
            self._load(x, name, f"{name}[{self._index(x)}]")
        late = {x: self._stores.pop(x) for x in over}
        for number, part in enumerate(kernel.parts):
            if part.operation.name == STACK:
                self._stack(part)
                continue
            write = self._total if part.operation.name in REDUCTIONS else self._make
            write(number, part)
        # At the end of the last pass: by then, the input that was there has been read.
        for x, place in late.items():
            self._inside[-1].append(self._store(place, self._values[x]))
        self.source = self._put_together({**inputs, **stores})

    def _schedule(self) -> None:
        """Find out what must wait for the end of which pass."""
        kinds = self.kernel.kinds
        for part in self.kernel.parts:
            # The first pass in which all is there that it reads.
            ready = max((self._pass.get(x, 0) for x, _ in part.read), default=0)
            full = [x for x, _ in part.read if kinds[x] == FULL]
            takes_row = self._takes_row(part)
            if takes_row:  # what is made here must be there to the end of the row: one pass later
                full = [x for x in full if x in self._pass]
                ready = max([ready, *(self._pass[x] + 1 for x in full)])
            elif full or kinds[part.result] == FULL:
                self._last = max(self._last, ready)
            for x in full:
                self._readers.setdefault(x, set()).add(ready)
            # A total along a row is known behind the pass that takes in its elements: before the next one.
            behind = bool(full) and kinds[part.result] == COLUMN and not takes_row
            self._pass[part.result] = ready + behind

    def _takes_row(self, part: Part) -> bool:
        """Say whether a part reads a whole row, once it is there, and no element when that is made."""
        return part.operation.name == PICK

    def _stack(self, part: Part) -> None:
        """Write how the rows of several arrays are stored beside each other."""
        arrays = [x for x, _ in part.read]
        for number, x in enumerate(arrays):
            place = self._index_in_row(number * part.columns, len(arrays) * part.columns)
            line = self._store(f"{self._stacks[part.result]}[{place}]", self._values[x])
            self._inside[self._pass[part.result]].append(line)

    def _index_in_row(self, start: int, step: int | str, column: str = "j") -> str:
        return f"i * {step} + {start} + {column}"

    def _is_kept(self, x: Variable) -> bool:
        """Say whether a variable made in one pass is read in a later one."""
        return self.kernel.kinds[x] == FULL and max(self._readers.get(x, {0})) > self._pass[x]

    def _arguments(self, part: Part) -> Iterator[tuple[Any, numpy.dtype]]:
        """Yield the arguments of one element, as text or as numbers, and in which dtype they are computed."""
        name, arguments = part.operation.name, elements(part.operation)
        dtypes = dtypes_of(name, arguments, part.operation.result.dtype)
        read = iter(part.read)
        for x, dtype in zip(arguments, dtypes, strict=True):
            if type(x) is Variable:
                value = self._values[next(read)[0]]
                yield value if x.dtype == dtype else self._cast(dtype, value), dtype
                continue
            number = x.item() if hasattr(x, "item") else x
            # A power is computed by its exponent: x**2 is x * x.
            if hasattr(x, "item") and isinstance(number, float) and name != "pow":
                self.numbers.append(number)
                yield self._cast(dtype, f"c{len(self.numbers) - 1}"), dtype
            else:
                if dtype.kind == "f" and type(number) is int and name != "pow":
                    number = float(number)  # it may be longer than a processor's
                yield self._cast(dtype, repr(number)), dtype

    def _load(self, x: Variable, name: str, element: str) -> None:
        """Write how an input is read."""
        kind = self.kernel.kinds[x]
        self._values[x] = f"{name}_"
        self._rows[x] = self._row(x, name)
        where = {NUMBER: [self._first], COLUMN: [self._before[0]]}.get(kind, self._inside)
        for number, lines in enumerate(where):
            if kind != FULL or number in self._readers.get(x, ()):
                lines.append(self._assign(x.dtype, f"{name}_", element))

    def _make(self, number: int, part: Part) -> None:
        """Write how an element is made, stored and kept."""
        x, value, lines = part.result, f"v{number}", self._where(part.result)
        lines.append(self._assign(x.dtype, value, self._text(part, lines)))
        self._values[x] = value
        if x in self._stores:
            store = self._store(self._stores[x], value)
            lines.append(store if self.kernel.kinds[x] == FULL else self._once(store))
        if self._is_kept(x):
            self._rows[x] = self._keep(x, f"k{number}")
            lines.append(self._store(f"k{number}[j]", value))
            for later in self._inside[self._pass[x] + 1 :]:
                later.append(self._assign(x.dtype, value, f"k{number}[j]"))

    def _where(self, x: Variable) -> list[str]:
        """Return the lines in which an element is loaded or made."""
        return (self._inside if self.kernel.kinds[x] == FULL else self._before)[self._pass.get(x, 0)]

    def _divisor(self, part: Part) -> str:
        """Return of how many elements a mean is; "" for another total."""
        if part.operation.name != "mean":
            return ""
        of_number = "size" if self.kernel.kinds[part.read[0][0]] == FULL else "rows"
        return {COLUMN: "columns", ROW: "rows"}.get(self.kernel.kinds[part.result], of_number)

    def _once(self, line: str) -> str:
        """Return a line that is run once for a row."""
        return line

    def _lines_of_row(self, head: str, *foot: str) -> list[str]:
        """Return what is done with a row: each pass is a loop that begins and ends with some lines."""
        lines: list[str] = []
        for before, inside in zip(self._before, self._inside, strict=False):
            lines += [*before, head, *indented(inside), *foot] if inside else before
        return [*lines, *self._before[-1]]

    # -- what a renderer writes ---------------------------------------------------------------------------

    def _index(self, x: Variable) -> str:
        """Return the index of an element."""
        raise NotImplementedError

    def _store(self, place: str, value: str) -> str:
        """Return the line that stores an element."""
        raise NotImplementedError

    def _cast(self, dtype: numpy.dtype, value: str) -> str:
        """Return an element in another dtype."""
        raise NotImplementedError

    def _assign(self, dtype: numpy.dtype, name: str, value: str) -> str:
        """Return the line that gives a name to an element."""
        raise NotImplementedError

    def _row(self, x: Variable, name: str) -> Any:
        """Return where the present row of an input is."""
        raise NotImplementedError

    def _keep(self, x: Variable, name: str) -> Any:
        """Write an array for the present row, and return where it is."""
        raise NotImplementedError

    def _text(self, part: Part, lines: list[str]) -> str:
        """Return an element of a result, and write what must come before it."""
        raise NotImplementedError

    def _total(self, number: int, part: Part) -> None:
        """Write how a total takes in the elements."""
        raise NotImplementedError

    def _put_together(self, names: dict[Variable, str]) -> str:
        """Return the function."""
        raise NotImplementedError


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
