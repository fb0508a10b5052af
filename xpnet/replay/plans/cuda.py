"""A plan for CuPy: kernels and matrix products in memory laid out beforehand, captured as one CUDA graph.

The plan's function launches one kernel, or one product, after the other. After a first call it is captured:
CUDA then starts all of them at once, for the arrays that were handed in. Arguments that come at another place
in each call, the batches, are copied to one place; for donated ones that do, parameters, it is captured anew.
What several processes do together stands between graphs.
"""

import contextlib
import inspect
import logging
import traceback
from collections.abc import Callable, Collection, Generator, Sequence
from functools import reduce
from math import gcd, prod
from typing import Any

import array_api_compat
import array_api_compat.numpy
import numpy

from xpnet.autodiff.namespace import PlainNamespace
from xpnet.backends import plain_namespace
from xpnet.replay.functions import BETWEEN_PROCESSES, VIEWS
from xpnet.replay.graph import Graph, Operation, Variable
from xpnet.replay.kernels import c
from xpnet.replay.kernels.c import CudaSource
from xpnet.replay.kernels.kernel import Kernel
from xpnet.replay.plans.at_once import at_once
from xpnet.replay.plans.cuda_launches import Launch, together
from xpnet.replay.plans.cuda_lowering import lowered, with_constants_handed_in, with_copies
from xpnet.replay.plans.cuda_products import (
    ALIGNMENT,
    ALIGNMENT_OF_BIAS,
    NARROW,
    RELU,
    NarrowType,
    Product,
    is_product,
    mask_shape,
    merged,
    narrow,
    operands,
    stored_as,
    widening,
)
from xpnet.replay.plans.memory import Prototypes
from xpnet.replay.plans.plan import MemoryPlan, Over, Variables, first_line
from xpnet.replay.plans.step import CALL, HANDED_OUT, PRODUCT, VIEW, Call, Scratch, Step

_log = logging.getLogger("xpnet")

# For how many places of the donated arguments a graph is kept. `fit` comes with new ones each epoch.
GRAPHS = 4


class CudaPlan(MemoryPlan):
    """A plan that runs on a CUDA device. Its parameters are those of `Plan`."""

    rounds = True
    may_fail = True

    _runtime: Any  # `Cuda` of `cuda_runtime.py`
    _stored_as = staticmethod(stored_as)

    def __init__(self, graph: Graph, over: list[Variable | None], like: Any) -> None:
        runtime = self._runtime = self._runtime_of(like)
        with runtime.active():
            self._namespace = plain_namespace(like)
            graph, constants = with_constants_handed_in(graph)
            self._more_inputs = runtime.contiguous(constants)  # once, so that none moves
            graph = lowered(graph, self._namespace, array_api_compat.device(like))
            super().__init__(graph if runtime.problem else narrow(graph), over, like)

    def _runtime_of(self, like: Any) -> Any:
        """Return what launches, multiplies and captures."""
        from xpnet.replay.plans.cuda_runtime import Cuda

        return Cuda.of(like)

    def _build(self, over: list[Variable | None]) -> None:
        self._target = c.TARGET
        self._problem = self._runtime.problem  # why no graph can be captured, if so
        self._assign = self._runtime.assign  # one object, which the source names once
        # By the stream that they run on: what is idle for the host may still be at work there.
        self._idle_on: dict[Any, list[Callable]] = {}
        # What multiplies, by the operation; None where cuBLASLt cannot.
        self._planned: dict[Operation, Any] = {}
        # What products leave that could end with a ReLU, but for NaN.
        self._without_relu: set[Variable] = set()
        self._merge()
        super()._build(over)
        inputs = {x: index for index, x in enumerate(self.graph.inputs)}
        # Outputs that are arguments, or are written over them; the others are copied, and so is what the
        # function returns twice, which is two arrays.
        written_over = self._layout.over
        places = [written_over.get(x, x) if type(x) is Variable else None for x in self.graph.outputs]
        self._handed_in = {
            index: inputs[x] for index, x in enumerate(places) if x in inputs and x not in places[:index]
        }
        # Where in memory an argument may begin: at any of its elements, but for products.
        root = self._prototypes.root
        multiplied = {
            written_over.get(root[x], root[x])
            for operation, function in self._planned.items()
            if function
            for x in (*operation.inputs, *operation.results)
            if x in root
        }
        self._alignments = [ALIGNMENT if x in multiplied else 1 for x in self.graph.inputs]

    def _merge(self) -> None:
        """Copy what products need in another order, and let them do what comes right behind them."""
        self._prototypes = Prototypes(self.graph.inputs, stored_as)
        for operation in self.graph.operations:
            self._add_results(operation)
        whole = with_copies(self.graph, self._namespace, self._prototypes.__getitem__)
        for operation in whole.operations:
            self._add_results(operation)
        self.graph = merged(whole, lambda product: self._multiply(product) is not None)

    # -- what each operation becomes ----------------------------------------------------------------------

    def _add_results(self, operation: Operation) -> bool:
        """Add the results of an operation to the prototypes, and say whether they are views."""
        function, of_numpy = operation.function, PlainNamespace(array_api_compat.numpy)
        with contextlib.suppress(Exception):  # with a constant of CuPy's, say, as an index
            if operation.name != "getitem":
                function = reduce(getattr, operation.name.split("."), of_numpy)
            if operation.name in VIEWS and self._prototypes.add_views(operation, function):
                return True
        for x in operation.results:
            self._prototypes.add(x)
        return False

    def _lower(self, operation: Operation) -> Step:
        if self._add_results(operation):  # as views
            return Step.of(operation, Call.of(operation, VIEW))
        return self._product(operation) or self._as_recorded(operation)

    def _as_recorded(self, operation: Operation) -> Step:
        """Call a function as it was recorded, and put what it makes into buffers."""
        value = Call.of(operation)._replace(results=())
        # What rearranges narrow numbers has narrow results.
        widens = not isinstance(operation.result.dtype, NarrowType)
        if widens and any(isinstance(x.dtype, NarrowType) for x in operation.inputs):
            value = value._replace(function=widening(operation))
        targets = list(operation.results) if operation.several else operation.result
        # No graph has what others wait for: what is before it and behind it are graphs of their own.
        kind = HANDED_OUT if operation.name in BETWEEN_PROCESSES else CALL
        return Step.of(operation, Call(kind, self._assign, (targets, value), "assign"))

    def _product(self, operation: Operation) -> Step | None:
        """Return a product by cuBLASLt, or None where it is called as it was recorded."""
        function = self._multiply(operation)
        if function is None:
            return None
        (first, second, *more), (result, *others) = operation.arguments, operation.results
        workspace = Scratch("workspace", function.workspace)
        name = operation.options.get("epilogue", "product").lower()
        arguments = (workspace, first, second, result, *more, *others)
        return Step.of(operation, Call(PRODUCT, function, arguments, name))

    def _multiply(self, operation: Operation) -> Any:
        """Return what multiplies, as cuBLASLt plans it, or None where that cannot."""
        if operation not in self._planned:
            product = self._asked(operation)
            self._planned[operation] = product and self._tried(product, operation.result)
        return self._planned[operation]

    def _tried(self, product: Product, result: Variable) -> Any:
        try:
            function = self._runtime.product(product)
        except self._runtime.ProductError:
            return None
        if product.epilogue.startswith(RELU):
            if not self._keeps_nan(product, function):
                self._without_relu.add(result)
                return None
            self._without_relu.discard(result)  # with a mask, it did not
        return function

    def _keeps_nan(self, product: Product, function: Any) -> bool:
        """Try whether a ReLU behind a product keeps NaN, as NumPy's does, with zero in its mask.

        cuBLASLt does not say, and algorithms may differ: each product multiplies NaN with NaN once.
        """
        runtime, rows, columns = self._runtime, product.first.rows, product.second.columns

        def of_nan(dtype: Any, *shape: int) -> Any:
            memory = runtime.memory(prod(shape) * numpy.dtype(dtype).itemsize)
            memory[...] = 255  # all bits are set, which is a NaN in each format
            return runtime.array(memory, 0, shape, numpy.dtype(dtype))

        dtype = stored_as(NARROW.get(product.dtype, product.dtype))
        both = (of_nan(dtype, matrix.extent) for matrix in (product.first, product.second))
        result = of_nan(product.result, rows, columns)
        result[...] = 0
        mask = of_nan("uint8", *mask_shape(rows, columns))
        bias = [of_nan(product.result, columns)] if "BIAS" in product.epilogue else []
        more = [*bias, mask] if "AUX" in product.epilogue else bias
        function(runtime.memory(function.workspace), *both, result, *more)
        whole, rest = divmod(columns, 8)
        noted = mask[:, :whole].any() or (rest and (mask[:, whole] & 2**rest - 1).any())
        return bool((result != result).all() and not ("AUX" in product.epilogue and noted))

    def _asked(self, operation: Operation) -> Product | None:
        """Describe a product, or return None where it is none that cuBLASLt knows."""
        if self._runtime.problem or not is_product(operation):
            return None
        first, second, *more = operation.arguments
        epilogue = operation.options.get("epilogue", "")
        found = operands(self._prototypes[first], self._prototypes[second])
        if found is None or ("BIAS" in epilogue and not self._can_be_bias(*more)):
            return None
        return Product(
            *found,
            dtype=first.dtype.name,
            result=operation.result.dtype.name,
            precision=operation.precision,
            epilogue=epilogue,
            alignments=(self._alignment_of(first), self._alignment_of(second)),
        )

    def _can_be_bias(self, x: Variable) -> bool:
        return self._prototypes[x].flags.c_contiguous and self._alignment_of(x) >= ALIGNMENT_OF_BIAS

    def _alignment_of(self, x: Variable) -> int:
        """Return of how many bytes the place of an array is a multiple: buffers, and views of them."""
        return gcd(ALIGNMENT, self._prototypes.offset(x))

    def _kernel(self, kernel: Kernel, results: Variables, over: Over, arrays: Variables) -> tuple[Any, list]:
        block = CudaSource(kernel, results, over)
        grid = block.grid(kernel.size, self._runtime.processors)
        # Of its own: it must be zero when the kernel starts, and another one would leave there what is not.
        scratch = [Scratch(f"scratch_{results[0].number}", grid.scratch)] if grid.scratch else []
        return Launch(block, grid, block.source), [*arrays, *block.numbers, kernel.size, *scratch]

    def _in_order(self, steps: list[Step], donated: Collection[Variable]) -> list[Step]:
        def text_of(kernel: Kernel, results: Variables) -> str:
            return CudaSource(kernel, results, {}).source

        elsewhere = {*self.graph.inputs, *donated}
        return at_once(steps, self._prototypes.root, self.graph.returned, elsewhere, text_of)

    def _at_once(self, calls: list[Call]) -> list[Call]:
        kernel = self._runtime.kernel
        return [x._replace(function=kernel(x.function.source, x.function.grid)) for x in together(calls)]

    def _output(self, x: Any, _again: bool) -> Any:
        return x  # it is copied behind the function, as a graph makes no arrays

    # -- running it ---------------------------------------------------------------------------------------

    def _must_copy(self, inputs: list) -> list[int]:
        pointers = [self._runtime.pointer(x) for x in inputs]
        wholes = {id(x.base) for x in inputs}  # of which an argument is a part
        return [
            index
            for index in self._written
            if (x := inputs[index]).base is not None
            or id(x) in wholes
            or pointers.count(pointers[index]) > 1
            or pointers[index] % self._alignments[index]
        ]

    @property
    def _idle(self) -> list[Callable]:
        # What is captured in a graph around this one stays in use by that: nobody finds it again.
        where = object() if self._runtime.is_capturing() else self._runtime.queue()
        return self._idle_on.setdefault(where, [])

    def _bind(self) -> Callable:
        return _Bound(self, super()._bind())

    def __call__(self, inputs: Sequence, *, keep: bool = False) -> tuple:
        """Return the outputs for other inputs; with ``keep``, none of these is overwritten."""
        with self._runtime.active():
            return super().__call__([*inputs, *self._more_inputs], keep=keep)

    def explain(self) -> str:
        """Describe the plan: what was recorded, the memory, the function, and whether it is captured."""
        captured = f"not captured: {self._problem}" if self._problem else "captured as a CUDA graph"
        lost = len(self._without_relu)
        why = [f"{lost} products without the ReLU behind them, which would make NaN zero"] if lost else []
        return "\n".join([super().explain(), *why, captured])


def _carried_out(started: Generator) -> tuple:
    """Return the outputs of a plan's function, after a call of all that it hands out."""
    while True:
        try:
            next(started)()
        except StopIteration as end:
            return tuple(end.value)


class _Bound:
    """The function of a plan with memory of its own, and its graphs."""

    def __init__(self, plan: CudaPlan, function: Callable) -> None:
        self._plan, self._runtime, self._function = plan, plan._runtime, function
        self._donated = set(plan._written)
        # Arguments that come at another place each time, and where they are copied.
        self._moving: dict[int, Any] = {}
        self._graphs: dict[tuple, tuple[Callable, tuple]] = {}
        self._before: list[int] | None = None
        self._hands_out = inspect.isgeneratorfunction(function)

    def __call__(self, *inputs: Any) -> tuple:
        """Compute the outputs, into the memory of the arguments and into new arrays."""
        outputs, handed_in = self._run(inputs), self._plan._handed_in
        fresh = iter(self._runtime.copies([x for i, x in enumerate(outputs) if i not in handed_in]))
        return tuple(inputs[handed_in[i]] if i in handed_in else next(fresh) for i in range(len(outputs)))

    def _run(self, inputs: Sequence) -> tuple:
        """Compute the outputs, into the memory of this plan or of the arguments."""
        pointers = [self._runtime.pointer(x) for x in inputs]
        # Arguments that begin where products cannot read them.
        elsewhere = {i for i, alignment in enumerate(self._plan._alignments) if pointers[i] % alignment}
        for index in elsewhere:
            self._move(index, inputs[index])
        found = None
        if not self._runtime.is_capturing():  # or it is a plan within a plan, as for `scan`
            found = self._graph(inputs, pointers)
        for index in self._moving if found else elsewhere:
            self._runtime.copy(self._moving[index], inputs[index])
        if found is None:
            outputs = self._function(*self._places(inputs, elsewhere))
            return _carried_out(outputs) if self._hands_out else outputs
        launch, outputs = found
        launch()
        return outputs

    def _move(self, index: int, x: Any) -> None:
        """Copy an argument to one place from now on."""
        if index not in self._moving:
            self._moving[index] = self._runtime.copies([x])[0]
            self._graphs.clear()

    def _places(self, inputs: Sequence, moved: Collection[int]) -> list:
        return [self._moving[index] if index in moved else x for index, x in enumerate(inputs)]

    def _graph(self, inputs: Sequence, pointers: list[int]) -> tuple[Callable, tuple] | None:
        """Return the graph for arguments at these places, once nothing but batches has another one."""
        found = self._graphs.get(self._key(pointers))
        if found is None and self._before is not None and not self._plan._problem:
            changed = {index for index, pointer in enumerate(pointers) if pointer != self._before[index]}
            for index in changed - self._donated:
                self._move(index, inputs[index])
            if not changed & self._donated:
                found = self._capture(self._places(inputs, self._moving), self._key(pointers))
        self._before = pointers
        return found

    def _key(self, pointers: list[int]) -> tuple:
        return tuple(p for index, p in enumerate(pointers) if index not in self._moving)

    def _capture(self, places: list, key: tuple) -> tuple[Callable, tuple] | None:
        try:
            captured = self._captured(places)
        except Exception as error:
            self._plan._problem = f"{first_line(error)}{self._where(error)}"
            _log.info("xpnet: a plan is replayed without a CUDA graph: %s", self._plan._problem)
            return None
        if len(self._graphs) == GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        self._graphs[key] = captured
        return captured

    def _captured(self, places: list) -> tuple[Callable, tuple]:
        """Return what does all that the function does: graphs, and between them what it hands out."""
        started = self._function(*places) if self._hands_out else None

        def next_part() -> tuple[Callable | None, tuple]:
            if started is None:
                return None, self._function(*places)
            try:
                return next(started), ()
            except StopIteration as end:
                return None, end.value

        parts: list[Callable] = []
        while True:
            graph, (handed_out, outputs) = self._runtime.capture(next_part)
            parts.append(graph)
            if handed_out is None:
                break
            parts.append(handed_out)

        def launch() -> None:
            for part in parts:
                part()

        return launch, outputs

    def _where(self, error: Exception) -> str:
        """Name the line of the plan that raised an error, which shows the function that was called."""
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == self._plan._code.co_filename:
                return f', at "{frame.line}"'
        return ""
