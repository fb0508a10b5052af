"""Modules import only from those to their right, in the orders that are written for people."""

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDERS = {
    "xpnet": "CONTRIBUTING.md",
    "xpnet.replay": "xpnet/replay/__init__.py",
    "xpnet.training": "xpnet/training/__init__.py",
}

# Who imports from whom against the order, and why.
EXCEPTIONS = {
    "xpnet": {("files", "onnx"): "a file may hold a network of ONNX, which is imported when it is read"},
    "xpnet.replay": {},
    "xpnet.training": {},
}


def order(package):
    """Return the place of each module in a package, counted from the left."""
    text = (ROOT / ORDERS[package]).read_text("utf-8")
    groups = re.search(r"^ +(.+ ─ .+)$", text, re.MULTILINE)[1].split(" ─ ")
    return {name: place for place, group in enumerate(groups) for name in group.split(", ")}


def imports(path):
    """Yield the names that a file imports, anywhere in it, and those of modules that stand in a text."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"xpnet(\.\w+)+", str(node.value)):
            module = ROOT / "xpnet" / node.value.split(".")[1]
            if module.is_dir() or module.with_suffix(".py").is_file():
                yield node.value


@pytest.mark.parametrize("package", ORDERS)
def test_modules_import_only_from_those_to_their_right(package):
    folder, own, places = ROOT.joinpath(*package.split(".")), package.rpartition(".")[2], order(package)
    files = {path: path.relative_to(folder).parts[0].removesuffix(".py") for path in folder.rglob("*.py")}
    assert set(files.values()) - {"__init__"} <= places.keys()
    places.setdefault(own, -1)  # its `__init__` may import all others
    against = set()
    for path, module in files.items():
        for name in imports(path):
            if f"{name}.".startswith(f"{package}."):
                part = name.removeprefix(package).partition(".")[2].partition(".")[0]
                pair = own if module == "__init__" else module, part if part in files.values() else own
                if pair[0] != pair[1] and places[pair[0]] >= places[pair[1]]:
                    against.add(pair)
    assert against == EXCEPTIONS[package].keys()
