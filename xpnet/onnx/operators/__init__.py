"""The functions of the standard as operators of ONNX, one file for each chapter.

Each entry of `OPERATORS` is ``write(w, operation)``: it writes nodes with a `Writer` and returns the name of
the result, or NotImplemented where ONNX cannot say what the operation does.
"""

from xpnet.onnx.operators import (  # noqa: F401
    elementwise,
    extensions,
    indexing,
    linalg,
    manipulation,
    reductions,
)
from xpnet.onnx.operators.declare import OPERATORS

__all__ = ["OPERATORS"]
