"""Which steps native code does in place of Python: calls of a plan for NumPy as works of a table."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from xpnet.autodiff.scatter import is_basic
from xpnet.replay.graph import Variable
from xpnet.replay.plans import copies, cpu_kernels, products
from xpnet.replay.plans.copies import Indices
from xpnet.replay.plans.memory import Prototypes
from xpnet.replay.plans.products import Operand
from xpnet.replay.plans.rounds import Work
from xpnet.replay.plans.step import ADD, ADD_WINDOWS, COPY, KERNEL, PRODUCT, Call, Item, Member, Step
from xpnet.replay.plans.table import Where


class Works:
    """The works of calls, given where variables are.

    Parameters
    ----------
    prototypes : Prototypes
    where : callable
        Returns where a variable begins.
    """

    def __init__(self, prototypes: Prototypes, where: Callable[[Variable], Where]) -> None:
        self._prototypes, self._where = prototypes, where

    def of(self, call: Call, step: Step) -> Sequence[Work]:
        """Return what native code does in place of a call of a step; nothing where it cannot."""
        if call.kind == PRODUCT:
            library = products.library()
            operands = [x for x in map(self._operand, call.arguments) if x is not None]
            if isinstance(library, str) or len(operands) < len(call.arguments):
                return ()
            if call.function is numpy.vecdot:
                operands = [*products.of_vectors(*operands)]
            return products.works(library, *operands, name=call.name)
        if call.kind == COPY and call.options.keys() <= {"casting"}:
            target, value = call.arguments
            return self._copy(target, value, call.name)
        if call.kind == ADD:
            target, key, value = call.arguments
            return self._copy(Item(target, key), value, call.name, adds=True)
        if call.kind == ADD_WINDOWS:
            target, windows = self._operand(call.options["out"]), self._operand(call.arguments[0])
            if target is None or windows is None:
                return ()
            return copies.works_of_windows(
                target, windows, call.options["strides"], call.options["dilations"]
            )
        if call.kind == KERNEL and step.kernel:
            return [cpu_kernels.work(step.kernel, call, step.results, self._where)]
        return ()

    def _copy(self, target: Any, value: Any, name: str, *, adds: bool = False) -> Sequence[Work]:
        """Return what native code does in place of a copy, or of adding to what is there."""
        (target, of_target), (value, of_value) = _without_indices(target), _without_indices(value)
        place = self._operand(target)
        if place is not None and isinstance(value, bool | int | float | numpy.generic):
            value = numpy.full((), value, place.dtype)
        given = self._operand(value)
        if place is None or given is None or (of_target and of_value):
            return ()
        indices = None
        for array, axis in (*of_target, *of_value):
            found = self._operand(array)
            if found is None:
                return ()
            indices = Indices(found, axis, bool(of_target))
        return copies.works(place, given, indices, name=name, adds=adds)

    def _operand(self, x: Any) -> Operand | None:
        """Return where what a call names is; None if only a call shows that."""
        base, whole, seen = self._seen(x)
        if seen is None:
            return None
        offset = seen.ctypes.data - whole.ctypes.data
        array, begins = self._where(base) if type(base) is Variable else (f"constant {id(base)}", 0)
        return Operand(base, Where(array, begins + offset), seen.shape, seen.strides, seen.dtype, offset)

    def _seen(self, x: Any) -> tuple[Any, Any, numpy.ndarray | None]:
        """Return which variable or constant something is a part of, an array like it, and that part of this.

        The part is None where only a call shows it.
        """
        match x:
            case Variable() if self._prototypes.root[x] not in self._prototypes.made_by_calls:
                return x, self._prototypes[x], self._prototypes[x]
            case numpy.ndarray() if x.flags.aligned:
                return x, x, x
            case Item(array, key) if is_basic(keys := key if type(key) is tuple else (key,)):
                base, like, seen = self._seen(array)
                # With an ellipsis, one element is an array, too.
                part = None if seen is None else seen[keys if ... in keys else (*keys, ...)]
            case Member(array, name, arguments):
                base, like, seen = self._seen(array)
                part = getattr(seen, name, None)
                part = part if part is None or arguments is None else part(*arguments)
            case _:
                return None, None, None
        shares = isinstance(part, numpy.ndarray) and numpy.may_share_memory(part, like)
        return base, like, part if shares else None


def _without_indices(x: Any) -> tuple[Any, list[tuple[Any, int]]]:
    """Return something with all elements along an axis in place of those by indices, and these with the axis.

    An axis behind an ellipsis is counted from the end. What has no indices, or several, stays as it is.
    """
    key = x.key if type(x) is Item else ()
    keys = key if type(key) is tuple else (key,)
    arrays = [number for number, key in enumerate(keys) if getattr(key, "shape", ())]
    others = [key for key in keys if not getattr(key, "shape", ())]
    if len(arrays) != 1 or not all(key is None or key is ... or type(key) is slice for key in others):
        return x, []
    (number,) = arrays
    axis = number - len(keys) if ... in keys[:number] else number
    return Item(x.array, (*keys[:number], slice(None), *keys[number + 1 :])), [(keys[number], axis)]
