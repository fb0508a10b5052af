"""A kernel as CUDA C: its source, and how many threads it is run with.

The text of one element of each function, of `tanh` say, is in `xpnet/replay/functions.py`.

There are three ways to go through an array, by what is to be found out:

- *flat*: a thread takes one element after the other, wherever it stands in its row;
- *rows*: a block of threads goes through a row together, in as many passes as its totals need;
- *strips*: a thread goes down a column, 32 columns beside each other, for totals that leave a row.

A total over several blocks is put together by the last one that ends, in the order of the blocks, so that it
is the same each time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from xpnet.replay.functions import ARITHMETIC, PICK, REDUCTIONS, SCATTER, dtype_of_text, row_of
from xpnet.replay.graph import Operation, Variable
from xpnet.replay.kernels.kernel import COLUMN, FULL, NUMBER, ROW, STACKED, Kernel, Part, Target
from xpnet.replay.kernels.passes import Passes, indented

# C's name of each dtype.
TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float16": "float16",
    "float32": "float",
    "float64": "double",
    "bfloat16": "bfloat16",
}

# Bytes of a block's memory that rows may be kept in.
MOST_KEPT = 40_960
THREADS = 256
STRIP, DEPTH = 32, 8  # threads beside and below each other, for totals that leave a row


def _functor(name: str) -> str:
    """Return the struct that puts two totals together."""
    element = row_of(name).c["f"].format("a", "b")
    of = f"template <class T> __device__ static T of(T a, T b) {{ return {element}; }}"
    return f"struct {name.title()} {{ {of} }};"


_FUNCTORS = "\n".join(_functor(name) for name in sorted({take_in for take_in, _ in REDUCTIONS.values()}))

PRELUDE = (
    f"""\
typedef long long Index;
struct Place {{ unsigned int x, y; }};

// Totals are put together by all threads of a block, each of which then has the result. They are so in pairs:
// equal numbers, where their number is a power of two, have a sum that was never rounded.
{_FUNCTORS}
"""
    + """
template <class F, class T> __device__ T total_of_block(T x) {
    __shared__ T warps[32];
    for (int lane = 16; lane; lane /= 2) x = F::of(x, __shfl_xor_sync(0xffffffffu, x, lane));
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    const int several = blockDim.x / 32;  // a power of two
    x = warps[threadIdx.x % several];
    for (int lane = several / 2; lane; lane /= 2) x = F::of(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

// Says whether this block is the last of some to come here, which then sees what the others have written.
__device__ bool is_last(unsigned int* count, unsigned int blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        last = atomicAdd(count, 1u) == blocks - 1;
        if (last) *count = 0;  // for the next run
    }
    __syncthreads();
    __threadfence();
    return last;
}

// Narrow numbers are stored and loaded, and computed with as float.
struct bfloat16 {
    unsigned short bits;
    bfloat16() = default;
    __device__ bfloat16(float x) {
        unsigned int word = __float_as_uint(x);
        // To the nearest, and to an even one in the middle; NaN stays NaN.
        bits = x != x ? 0x7fc0 : (word + 0x7fff + (word >> 16 & 1)) >> 16;
    }
    __device__ operator float() const { return __uint_as_float((unsigned int)bits << 16); }
};
struct float16 {
    unsigned short bits;
    float16() = default;
    __device__ float16(float x) { bits = half_from_float(x); }
    __device__ operator float() const { return float_from_half(bits); }
};
"""
)

# Options of the compiler. Without --fmad=false it would round a product and the sum behind it once, together:
# x * y - x * y would not be zero, and a replay would not give what the functions give one by one.
OPTIONS = ("-std=c++17", "--fmad=false")

# What CUDA has, and other compilers do not.
CUDA = """\
#if __CUDA_ARCH__ >= 700
#define LISTS __grid_constant__
#else
#define LISTS
#endif
#define inf __longlong_as_double(0x7ff0000000000000ll)
#define not_a_number __longlong_as_double(0x7ff8000000000000ll)
__device__ unsigned short half_from_float(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ float float_from_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
"""


def _text(operation: Operation) -> str | None:
    if "shift" in operation.name and type(operation.arguments[1]) is not int:
        return None  # C leaves open what shifting by more than there is gives
    dtype = dtype_of_text(operation)
    return row_of(operation.name).c.get("f" if dtype.name == "bfloat16" else dtype.kind)


def _accepts(kernel: Kernel) -> bool:
    left = {kernel.kinds[part.result] for part in kernel.parts if part.operation.name in REDUCTIONS}
    picks = any(part.operation.name == PICK for part in kernel.parts)
    if ROW in left and (len(left) > 1 or picks):
        return False
    stacks = [x for x, kind in kernel.kinds.items() if kind == STACKED]  # which are there to be stored
    return CudaSource(kernel, stacks, {}).kept <= MOST_KEPT


class Grid(NamedTuple):
    """With how many threads a kernel is run.

    Attributes
    ----------
    blocks, threads : tuple of int
        Of blocks, and of the threads in each, beside and below each other.
    scratch : int
        Bytes of memory that the blocks share, which no other kernel uses, and which must be zero at the
        first run; 0 if they share nothing, and the kernel takes none.
    """

    blocks: tuple[int, int]
    threads: tuple[int, int]
    scratch: int


def _threads(wanted: int) -> int:
    """Return a number of threads for a block: a power of two, as `total_of_block` takes them in pairs."""
    return min(THREADS, max(32, 1 << (wanted - 1).bit_length()))


class _Total(NamedTuple):
    """What all blocks find out together: a variable of C, its type, and how it takes in others."""

    name: str
    type: str
    functor: str
    start: str
    store: str


class CudaSource(Passes):
    """The source of a kernel in CUDA C. Its parameters are those of `Passes`.

    Attributes
    ----------
    kept : int
        Bytes of a block's memory that are taken by rows that are kept from pass to pass.
    parameters, body : list of str
        What the kernel takes, and what it does. There, ``block`` is which of the ``blocks`` of its grid runs.
    strips : int
        How many blocks are beside each other, where they go down strips; else 0.
    """

    def __init__(self, kernel: Kernel, outputs: Sequence[Variable], over: dict[Variable, Variable]) -> None:
        left = [kernel.kinds[part.result] for part in kernel.parts if part.operation.name in REDUCTIONS]
        picks = any(part.operation.name == PICK for part in kernel.parts)
        # Which of the three ways to go through an array.
        self.way = "strips" if ROW in left else "rows" if COLUMN in left or picks else "flat"
        self.strips = -(-kernel.columns // STRIP) if self.way == "strips" else 0
        self.kept = 0
        self._shared: list[str] = []
        self._totals: list[_Total] = []
        super().__init__(kernel, outputs, over)

    def grid(self, size: int, processors: int) -> Grid:
        """Return with how many threads to go through an array, on a device of so many processors."""
        columns = self.kernel.columns
        rows = size // columns if columns else 0
        if self.way == "strips":
            strips = self.strips
            deep = max(1, min(rows // (4 * DEPTH), -(-4 * processors // strips)))
            left = 4 * strips + 8 * len(self._totals) * deep * columns if deep > 1 else 0
            return Grid((strips, deep), (STRIP, DEPTH), 8 + left)
        if self.way == "rows":
            threads = _threads(-(-columns // 4))
            blocks = min(rows, 2048 // threads * processors)
        else:
            threads = _threads(size)
            blocks = min(-(-size // threads), 8 * processors)
        return Grid((blocks, 1), (threads, 1), 8 + 8 * len(self._totals) * blocks if self._totals else 0)

    # -- lines --------------------------------------------------------------------------------------------

    def _index(self, x: Variable) -> str:
        return self._index_in(x, "j")

    def _index_in(self, x: Variable, column: str) -> str:
        """Return the index of the element in a column of the present row."""
        kind, columns = self.kernel.kinds[x], self.kernel.columns
        view = self.kernel.views.get(x)
        if kind == FULL and columns:
            return view.index_of("i", column, columns) if view else f"i * columns + {column}"
        index = {FULL: "i", ROW: column, COLUMN: "i", NUMBER: "0"}[kind]
        return view.index_of(index, "0", 1) if view else index

    def _store(self, place: str, value: str) -> str:
        return f"{place} = {value};"

    def _cast(self, dtype: Any, value: str) -> str:
        value = {"True": "true", "False": "false", "nan": "not_a_number"}.get(value, value)
        return f"({computed(dtype)})({value})"

    def _assign(self, dtype: Any, name: str, value: str) -> str:
        return f"const {computed(dtype)} {name} = {value};"

    def _row(self, x: Variable, name: str) -> str:
        return f"{name}[{self._index_in(x, '{0}')}]"

    def _keep(self, x: Variable, name: str) -> str:
        self.kept += self.kernel.columns * x.dtype.itemsize
        self._shared.append(f"__shared__ {TYPES[x.dtype.name]} {name}[{self.kernel.columns}];")
        return f"{name}[{{}}]"

    def _once(self, line: str) -> str:
        return f"if ({'threadIdx.x' if self.way == 'rows' else 'j'} == 0) {line}"

    def _text(self, part: Part, lines: list[str]) -> str:
        operation, dtype = part.operation, part.result.dtype
        if operation.name == PICK:
            row, index = part.read[0][0], self._values[part.read[1][0]]
            # An error cannot be raised here: what is not there is not a number.
            nothing = "inf - inf" if "float" in dtype.name else "0"
            is_there = f"-columns <= {index} && {index} < columns"
            if row in self._pass:  # which the other threads have made
                lines.append("__syncthreads();")
            element = self._rows[row].format(f"({index} < 0 ? {index} + columns : {index})")
            element, nothing = self._cast(dtype, element), self._cast(dtype, nothing)
            return f"({is_there}) ? {element} : {nothing}"
        if operation.name == SCATTER:
            element, index = (self._values[x] for x, _ in part.read)
            at = f"(j == {index} || j == {index} + columns)"
            return f"{at} ? {self._cast(dtype, element)} : {self._cast(dtype, '0')}"
        texts, dtypes = zip(*self._arguments(part), strict=True)
        if operation.name in ARITHMETIC and dtype.kind == "i":  # C leaves open what signed numbers do
            texts = tuple(f"(unsigned long long)({text})" for text in texts)
        if operation.name == "astype" and dtype.kind == "u" and dtypes[0].kind == "f":
            texts = (f"(long long)({texts[0]})",)
        element = _text(operation)
        assert element is not None
        return self._cast(dtype, element.format(*(f"({text})" for text in texts)))

    def _total(self, number: int, part: Part) -> None:
        x, (source, _) = part.result, part.read[0]
        kinds, dtype = self.kernel.kinds, computed(x.dtype)
        function, start = REDUCTIONS[part.operation.name]
        wide = "double" if start == "0.0" else dtype
        total, value, functor = f"t{number}", f"v{number}", function.title()
        lines = self._where(source)
        take_in = f"{total} = {functor}::of({total}, ({wide})({self._values[source]}));"
        divisor = f" / {divisor}" if (divisor := self._divisor(part)) else ""
        self._values[x] = value
        if kinds[x] == COLUMN:
            when = self._pass.get(source, 0)
            self._before[when].append(f"{wide} {total} = {start};")
            lines.append(take_in)
            behind = self._before[when + 1]
            behind.append(f"{total} = total_of_block<{functor}>({total});")
            behind.append(f"const {dtype} {value} = ({dtype})({total}{divisor});")
            if x in self._stores:
                behind.append(f"if (threadIdx.x == 0) {self._store(self._stores[x], value)}")
            return
        self._first.append(f"{wide} {total} = {start};")
        lines.append(take_in if kinds[source] == FULL else self._once(take_in))
        store = self._store(self._stores[x], f"({dtype})({total}{divisor})") if x in self._stores else ""
        self._totals.append(_Total(total, wide, functor, start, store))

    def _of_all_blocks(self) -> list[str]:
        """Put together numbers: each block leaves its totals, and the last one takes them all."""
        lines = [f"{t.name} = total_of_block<{t.functor}>({t.name});" for t in self._totals]
        leave, take = [], []
        for number, t in enumerate(self._totals):
            left = f"((double*)(scratch + 8))[{number} * blocks.x + "
            leave.append(f"if (threadIdx.x == 0) {left}block.x] = {t.name};")
            take += [
                f"{t.name} = {t.start};",
                "for (unsigned int each = threadIdx.x; each < blocks.x; each += blockDim.x)",
                f"    {t.name} = {t.functor}::of({t.name}, ({t.type}){left}each]);",
                f"{t.name} = total_of_block<{t.functor}>({t.name});",
            ]
        gate = "if (!is_last((unsigned int*)scratch, blocks.x)) return;"
        lines += ["if (blocks.x > 1) {", *indented([*leave, gate, *take]), "}"]
        return [*lines, "if (threadIdx.x == 0) {", *indented([t.store for t in self._totals]), "}"]

    def _of_strips(self) -> list[str]:
        """Put together rows: threads below each other first, then the blocks below each other."""
        # One after the other, so that the memory is the same for any number. A double holds each of them.
        lines, leave, take = [f"__shared__ double below[{DEPTH}][{STRIP}];"], [], []
        for number, t in enumerate(self._totals):
            lines += [
                f"below[threadIdx.y][threadIdx.x] = {t.name};",
                "__syncthreads();",
                f"if (threadIdx.y == 0) for (int y = 1; y < {DEPTH}; y++)",
                f"    {t.name} = {t.functor}::of({t.name}, ({t.type})below[y][threadIdx.x]);",
                "__syncthreads();",
            ]
            left = f"((double*)(scratch + (4 * blocks.x + 7) / 8 * 8))[({number} * blocks.y + "
            leave.append(f"if (threadIdx.y == 0 && j < columns) {left}block.y) * columns + j] = {t.name};")
            take += [
                f"{t.name} = {t.start};",
                "if (j < columns) for (unsigned int each = 0; each < blocks.y; each++)",
                f"    {t.name} = {t.functor}::of({t.name}, ({t.type}){left}each) * columns + j]);",
            ]
        gate = "if (!is_last((unsigned int*)scratch + block.x, blocks.y)) return;"
        lines += ["if (blocks.y > 1) {", *indented([*leave, gate, *take]), "}"]
        stores = indented([t.store for t in self._totals])
        return [*lines, "if (threadIdx.y == 0 && j < columns) {", *stores, "}"]

    def _put_together(self, names: dict[Variable, str]) -> str:
        kernel = self.kernel
        types = {name: x.dtype.name for x, name in names.items()}  # one that is written over has one name
        self.parameters = [f"{TYPES[x]}* __restrict__ {name}" for name, x in types.items()]
        self.parameters += [f"double c{index}" for index in range(len(self.numbers))]
        self.parameters += ["Index size", *(["char* scratch"] if self._totals else [])]
        head = [*self._shared]
        if kernel.columns:
            head += [f"const Index columns = {kernel.columns}, rows = size / columns;"]
        if self.way == "rows":
            row = self._lines_of_row("for (Index j = threadIdx.x; j < columns; j += blockDim.x) {", "}")
            row.append("__syncthreads();")
            loop = ["for (Index i = block.x; i < rows; i += blocks.x) {", *indented(row), "}"]
        elif self.way == "strips":
            head.append(f"const Index j = block.x * {STRIP} + threadIdx.x;")
            row = [*self._before[0], *self._inside[0]]
            start = f"Index i = block.y * {DEPTH} + threadIdx.y"
            rows = f"for ({start}; i < rows; i += blocks.y * {DEPTH}) {{"
            loop = ["if (j < columns) {", *indented([rows, *indented(row), "}"]), "}"]
        else:
            start = "block.x * (Index)blockDim.x + threadIdx.x"
            row = [*self._before[0], *self._inside[0]]
            element = "e" if kernel.columns else "i"
            if kernel.columns:
                row = ["const Index i = e / columns, j = e - i * columns;", *row]
            step = f"{element} += blocks.x * (Index)blockDim.x"
            loop = [f"for (Index {element} = {start}; {element} < size; {step}) {{", *indented(row), "}"]
        together = self._of_strips if self.way == "strips" else self._of_all_blocks
        behind = together() if self._totals else []
        self.body = [*head, *self._first, *loop, *behind]
        alone = "const Place block = {blockIdx.x, blockIdx.y}, blocks = {gridDim.x, gridDim.y};"
        return function(self.parameters, [alone, *self.body])


def function(parameters: list[str], body: list[str]) -> str:
    """Return the text of a kernel."""
    head = f'extern "C" __global__ void kernel({", ".join(parameters)}) {{'
    return "\n".join([head, *indented(body), "}", ""])


def computed(dtype: Any) -> str:
    """Return the type in which elements of a dtype are computed."""
    return "float" if dtype.name in ("float16", "bfloat16") else TYPES[dtype.name]


TARGET = Target(48, 256, _text, lambda _: TYPES, lambda *_: True, _accepts, shortest=0)
