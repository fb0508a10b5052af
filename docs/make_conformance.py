"""Write docs/conformance.md: what the traced namespace has of the standard, function by function.

python docs/make_conformance.py    needs array-api-strict, PyTorch and JAX beside xpnet
"""

from operator import attrgetter
from pathlib import Path
from types import FunctionType
from typing import Any

import array_api_strict

import xpnet
from xpnet.autodiff.namespace import traced_namespace
from xpnet.autodiff.primitive import COMPOSITES, PRIMITIVES, record_opaque

PATH = Path(__file__).with_name("conformance.md")

LIBRARIES = {"NumPy": "cpu", "array-api-strict": "strict", "PyTorch": "torch", "JAX": "jax"}

# What the standard has and array-api-strict has not, or not in its public list.
ALSO = {"": ["broadcast_shapes", "isin"], "linalg": ["eig", "eigvals"]}

HEAD = """# Conformance

The traced namespace is what functions receive inside `xpnet.grad` and its like. It has the functions of
the [array API standard](https://data-apis.org/array-api/latest/), version 2024.12, and what 2025.12 adds
where the wrapped library has it. `python docs/make_conformance.py` writes this page, and a test fails
where it is stale.

`nox -s conformance -- PATH_TO_THE_SUITE` runs the standard's official test suite;
[CONTRIBUTING.md](../CONTRIBUTING.md) says how to get it.

**gradient**: *rule*, of its own; *composed*, of the functions that it is made of; *none*, as the result
does not change with small changes of the inputs, or holds no numbers with a gradient; *refused*: an
error is raised where the gradient of its result is needed. **second order**: gradients of gradients are
checked against finite differences. The last columns say which libraries have the function. `special` is
not of the standard: its functions are those of SciPy, of CuPy's copy of it, or the library's own, and where
these lack one, SciPy's on the host.
"""


# Functions of dtypes and shapes.
NO_ARRAYS = {"broadcast_shapes", "can_cast", "finfo", "iinfo", "isdtype", "result_type"}


def functions(extension: str) -> list[str]:
    """The names of the functions in the main namespace or an extension, in alphabetical order."""
    if extension == "special":  # which the standard does not have
        names = {name.partition(".")[2] for name in (*PRIMITIVES, *COMPOSITES) if name.startswith("special.")}
        return sorted(name for name in names if not name.startswith("_"))
    space = getattr(array_api_strict, extension) if extension else array_api_strict
    names = {name for name in space.__all__ if isinstance(getattr(space, name), FunctionType)}
    own = {name for name in names if name.startswith("__") or name.endswith("_array_api_strict_flags")}
    return sorted((names - own) | set(ALSO.get(extension, [])))


def gradient(name: str) -> str:
    """How the gradient of a function comes about."""
    primitive = PRIMITIVES.get(name) or PRIMITIVES.get(name.rpartition(".")[2])
    if name in COMPOSITES:
        return "composed"
    if primitive is None or primitive.recorder is record_opaque:
        return "none" if name in NO_ARRAYS else "refused"
    return "rule" if primitive.rules or primitive.joint else "none"


def has(xp: Any, name: str) -> bool:
    """Whether a traced namespace has a function."""
    try:
        return callable(attrgetter(name)(xp))
    except AttributeError:
        return False


def rows(libraries: list[str]) -> list[list[str]]:
    """The cells of the table for some libraries, by their device specs."""
    spaces = [traced_namespace(xpnet.device(spec).namespace) for spec in libraries]
    table = []
    for extension in ("", "linalg", "fft", "special"):
        for function in functions(extension):
            name = f"{extension}.{function}" if extension else function
            how = gradient(name)
            second = "yes" if how in ("rule", "composed") else "–"
            table.append([f"`{name}`", how, second, *("yes" if has(xp, name) else "no" for xp in spaces)])
    return table


def page() -> str:
    """The whole page."""
    lines = [["function", "gradient", "second order", *LIBRARIES], ["---"] * (3 + len(LIBRARIES))]
    lines += rows(list(LIBRARIES.values()))
    return HEAD + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
