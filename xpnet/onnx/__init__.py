"""ONNX: networks for other programs, and from them. It needs ``pip install onnx``."""

try:
    import onnx as _onnx  # noqa: F401
except ImportError:
    raise ImportError(
        "xpnet.onnx needs onnx, which is not installed. `pip install onnx` installs it."
    ) from None

from xpnet.onnx.exporting import export
from xpnet.onnx.importing import Network, load

__all__ = ["Network", "export", "load"]
