"""The examples in docstrings and in the README run and give what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import xpnet

MODULES = [module.name for module in pkgutil.walk_packages(xpnet.__path__, "xpnet.")]
README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_docstrings(name):
    with xpnet.use_device("cpu"):
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_docs_of_the_estimators():
    text = (README.parent / "docs" / "sklearn.md").read_text("utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert names["classifier"].stopped_
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+) \| (`[^|]+`) \|", text, re.MULTILINE)
    shown = {}
    for row in rows:
        parameters, defaults = (re.findall(r"`\"?([^`]+?)\"?`", cell) for cell in row)
        shown |= dict(zip(parameters, defaults, strict=False))
    for estimator in (names["MLPClassifier"], names["MLPRegressor"]):
        for name, value in estimator().get_params().items():
            assert shown[name] == str(value) or name == "loss", name


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    # The first shows a layer of xpnet's own, and the last needs a GPU.
    names = {}
    for block in blocks[1:-1]:
        exec(block, names)
    assert names["history"]["validation_accuracy"][-1] > 0.95
    assert (tmp_path / "digits.safetensors").exists()
    assert names["gradient"].inner.weight.shape == (3, 3)


def test_rows_of_reliability_are_tests():
    text = (README.parent / "docs" / "reliability.md").read_text("utf-8")
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| what", "| ---"))
    ]
    assert len(rows) > 20
    for row in rows:
        file, name = re.fullmatch(r"\|.*\| `([\w/]+\.py)::(\w+)` \|", row).groups()
        assert f"def {name}(" in (README.parent / "tests" / file).read_text("utf-8"), row
