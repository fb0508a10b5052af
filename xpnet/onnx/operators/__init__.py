"""Export: the functions of the standard as operators of ONNX, one file for each chapter.

Each entry of `OPERATORS` is ``write(w, operation)``: it writes nodes with a `Writer` and returns the name of
the result, or NotImplemented where ONNX cannot say what the operation does. `direct` does so for a function
whose row in `replay/functions.py` has an operator. What is made of others is in `replay/decompositions.py`.
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
from xpnet.onnx.operators.elementwise import direct

__all__ = ["OPERATORS", "direct"]
