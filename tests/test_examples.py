"""The examples run at a small size, meet the bars that they assert themselves, and write their pictures."""

import runpy
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[1] / "examples"

PICTURES = {
    "essence.py": ["essence.png"],
    "digits.py": ["digits_learning.png", "digits_mistakes.png"],
    "convolution.py": ["convolution.png", "convolution_learning.png"],
    "photograph.py": ["photograph.png"],
    "heat.py": ["heat.png"],
    "tables.py": ["tables.png"],
    "regression.py": ["regression.png", "regression_learning.png"],
    "sklearn_drop_in.py": ["sklearn_drop_in.png"],
}


def test_every_example_is_listed_and_short():
    paths = {path.name: path for path in EXAMPLES.glob("*.py")}
    assert paths.keys() == PICTURES.keys()
    assert {name for name, path in paths.items() if len(path.read_text("utf-8").splitlines()) >= 120} == set()


@pytest.mark.parametrize("name", PICTURES)
def test_example(name, tmp_path, monkeypatch, capsys):
    output = tmp_path / "pictures"
    monkeypatch.setattr(sys, "argv", [name, "--small", "--device", "cpu", "--output", str(output)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert str(output) in capsys.readouterr().out
    for picture in PICTURES[name]:
        pixels = imread(output / picture)
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 0.05  # an empty picture is of one colour
    assert sorted(output.glob("*.png")) == sorted(output / picture for picture in PICTURES[name])
