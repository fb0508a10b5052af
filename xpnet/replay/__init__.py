"""Replay: a function is recorded once, and its plan is run again and again without Python in between.

A call of `jit` finds a recording that serves it (`same`), or makes one: `record` writes down what a function
does, as a `graph`; `rewrite` drops what is not needed and does equal things once; `kernels` puts elementwise
functions together; and `plans` decides where arrays are, and writes the function that is replayed. To learn
how a jit works, read `jit`, `record`, `graph`, `rewrite`, `plans/plan`, `plans/step`, `plans/memory`,
`kernels/kernel`, `kernels/fusion` and `same/facts`, in this order.

Modules import only from those to their right:

    jit, scan ─ iteration ─ plans ─ kernels ─ rewrite ─ record ─ graph ─ decompositions, functions, precision ─ same
"""  # noqa: E501

from xpnet.replay.jit import jit
from xpnet.replay.scan import scan

__all__ = ["jit", "scan"]
