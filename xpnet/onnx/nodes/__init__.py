"""Load: operators of ONNX as functions of the standard, one file for each chapter.

Each entry of `NODES` is ``compute(xp, node, *values)``, which returns an array or several. What a node
needs to know as numbers (shapes, axes) is read with `integers`.
"""

from xpnet.onnx.nodes import (  # noqa: F401
    elementwise,
    indexing,
    linalg,
    loops,
    manipulation,
    reductions,
    windows,
)
from xpnet.onnx.nodes.node import NODES, Body, Constant, Node, compute

__all__ = ["NODES", "Body", "Constant", "Node", "compute"]
