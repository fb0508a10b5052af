"""Replay: a function is recorded once, and its plan is run again and again without Python in between.

Modules import only from those to their right:

    jit, scan ─ iteration ─ plans ─ kernels ─ rewrite ─ record ─ graph ─ decompositions, functions, precision ─ same
"""  # noqa: E501

from xpnet.replay.jit import jit
from xpnet.replay.scan import scan

__all__ = ["jit", "scan"]
