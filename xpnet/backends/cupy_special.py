"""CuPy's special functions, to be called as SciPy's are."""

from typing import Any

import cupy
from cupyx.scipy import special


def __getattr__(name: str) -> Any:
    return getattr(special, name)


def polygamma(n: Any, x: Any) -> Any:
    """Return a derivative of digamma. CuPy's own takes no number for ``n``."""
    return special.polygamma(cupy.full((), n) if isinstance(n, int) else n, x)
