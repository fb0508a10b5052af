"""PyTorch's special functions, to be called as SciPy's are.

Its Bessel functions have other names, and some of them 11 figures: SciPy's stand in their place.
"""

from typing import Any

import torch
from torch import special


def __getattr__(name: str) -> Any:
    return getattr(special, name)


def gammainc(a: Any, x: Any) -> Any:
    """Return the incomplete gamma function. PyTorch's own takes no numbers."""
    return special.gammainc(*_tensors(a, x))


def gammaincc(a: Any, x: Any) -> Any:
    """Return the upper incomplete gamma function. PyTorch's own takes no numbers."""
    return special.gammaincc(*_tensors(a, x))


def _tensors(a: Any, x: Any) -> list[torch.Tensor]:
    like = a if isinstance(a, torch.Tensor) else x
    both = (a, x)
    return [x if isinstance(x, torch.Tensor) else torch.full_like(like, x) for x in both]
