"""What several processes compute together, as a function of arrays that is recorded like any other."""

from collections.abc import Callable
from typing import Any


def collective(xp: Any, *arrays: Any, operation: Callable[..., list[Any]]) -> list[Any]:
    """Return what all processes of a group make of the arrays of each.

    Parameters
    ----------
    xp : namespace
    *arrays : array
    operation : callable
        ``operation(xp, arrays)``, see `xpnet.distributed.operation`.
    """
    return operation(xp, arrays)
