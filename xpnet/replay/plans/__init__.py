"""Plans: how a recorded graph is run, by the means of its library or one call after the other.

`make_plan` chooses by the library of the arrays: `cpu.py` for NumPy, `cuda.py` for CuPy, `plan.py` for JAX
and all others.
"""

import logging
from typing import TYPE_CHECKING, Any

import array_api_compat

from xpnet.backends import library_of, plain_namespace
from xpnet.replay.graph import Graph, Variable
from xpnet.replay.rewrite import in_precision

if TYPE_CHECKING:
    from xpnet.replay.plans.plan import Plan

__all__ = ["make_plan"]

_log = logging.getLogger("xpnet")


def _plan_of(x: Any) -> "type[Plan]":
    """Return how plans are run on the library of an array: by its own means, or one call after the other."""
    library = library_of(x)
    spec = library.spec if library else ""
    # Imported here, as they would be a good part of the time to import xpnet.
    if spec == "cpu":
        from xpnet.replay.plans.cpu import CpuPlan

        return CpuPlan
    if spec == "cuda":
        from xpnet.replay.plans.cuda import CudaPlan

        return CudaPlan
    from xpnet.replay.plans.plan import JaxPlan, Plan

    return JaxPlan if spec == "jax" else Plan


def make_plan(graph: Graph, over: list[Variable | None], like: Any, precision: str) -> "Plan":
    """Make the plan of a graph.

    Parameters
    ----------
    graph : Graph
    over : list of Variable or None
        For each output, the input that it may be written over.
    like : array
        An array of the library and the device.
    precision : str
        Of the operands of matrix products, see `jit`.
    """
    plan = _plan_of(like)
    if precision != "float32":
        xp, device = plain_namespace(like), array_api_compat.device(like)
        graph = in_precision(graph, precision, xp, device, by_plan=plan.rounds)
    try:
        return plan(graph, over, like)
    except Exception as error:
        if not plan.may_fail or isinstance(error, MemoryError):
            raise
        from xpnet.replay.plans.plan import Plan

        _log.warning(
            "xpnet: jit calls one operation after the other, as a faster plan failed with %s: %s",
            type(error).__name__,
            error,
        )
        return Plan(graph, over, like)
