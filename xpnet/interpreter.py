"""The interpreter of Python: sub-interpreters are refused, as what xpnet is built on hangs in them."""

import importlib
import sys
from typing import Any


def is_main() -> bool:
    """Say whether this is the interpreter that the process began with."""
    try:
        interpreters = importlib.import_module(
            "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
        )
    except ImportError:
        return True
    return _number(interpreters.get_current()) == _number(interpreters.get_main())


def _number(interpreter: Any) -> int:
    return int(interpreter[0] if isinstance(interpreter, tuple) else interpreter)


if not is_main():
    raise ImportError(
        "xpnet must be imported in the interpreter that the process began with; this is a sub-interpreter, "
        "in which NumPy is not safe and optree hangs. Use threads or processes"
    )
