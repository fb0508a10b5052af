"""Replay: a function is recorded once, and its plan is run again and again without Python in between.

A call of `jit` finds a recording that serves it (`same`), or makes one: `record` writes down what the function
does as a `graph`, `rewrite` leaves out and shares, `kernels` puts elementwise functions together, and `plans`
decides where arrays are and writes the function that is replayed. To learn how it works, read `jit`, `same/facts`,
`record`, `graph`, `rewrite`, `plans/plan`, `plans/step`, `plans/memory`, `kernels/kernel` and `kernels/fusion`
first, in this order.

Modules import only from those to their right:

    jit, scan ─ iteration ─ plans ─ kernels ─ rewrite ─ record ─ graph ─ decompositions, functions, precision ─ same
"""  # noqa: E501

from xpnet.replay.jit import jit
from xpnet.replay.scan import scan

__all__ = ["jit", "scan"]
