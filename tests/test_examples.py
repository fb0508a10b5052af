"""The examples run at a small size, meet the bars that they assert themselves, and write their pictures."""

import runpy
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"

PICTURES = {
    "essence.py": ["essence.png"],
    "digits.py": ["digits_learning.png", "digits_mistakes.png"],
    "autoencoder.py": ["autoencoder.png"],
    "cancer.py": ["cancer.png"],
    "convolution.py": ["convolution.png", "convolution_learning.png"],
    "finetune.py": ["finetune.png"],
    "folders.py": ["folders.png"],
    "photograph.py": ["photograph.png"],
    "heat.py": ["heat.png"],
    "sentences.py": ["sentences.png"],
    "spirals.py": ["spirals.gif"],
    "tables.py": ["tables.png"],
    "tokens.py": ["tokens.png"],
    "writing.py": ["writing.png"],
    "processes.py": ["processes.png"],
    "regression.py": ["regression.png", "regression_learning.png"],
    "sklearn_drop_in.py": ["sklearn_drop_in.png"],
}


def test_every_example_is_listed_and_short():
    paths = {path.name: path for path in EXAMPLES.glob("*.py")}
    assert paths.keys() == PICTURES.keys()
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    assert {name for name in paths if f"](examples/{name})" not in readme} == set()
    assert {name for name, path in paths.items() if len(path.read_text("utf-8").splitlines()) >= 120} == set()


QUICK = {"essence.py", "digits.py"}
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PICTURES]


@pytest.mark.parametrize("name", EACH)
def test_example(name, tmp_path, monkeypatch, capsys):
    output = tmp_path / "pictures"
    monkeypatch.setattr(sys, "argv", [name, "--small", "--device", "cpu", "--output", str(output)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert str(output) in capsys.readouterr().out
    for picture in PICTURES[name]:
        pixels = imread(output / picture)
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 0.05  # an empty picture is of one colour
        if picture.endswith(".gif"):
            with Image.open(output / picture) as film:
                assert film.n_frames > 10  # pictures that are alike count as one
    written = {path for path in output.iterdir() if path.suffix in (".png", ".gif")}
    assert written == {output / picture for picture in PICTURES[name]}
