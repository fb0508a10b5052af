"""Files that were altered at random, and those that told something once; `tests/fuzz.py` tries more."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("memory is limited by means of Linux", allow_module_level=True)

import fuzz


@pytest.mark.parametrize("kind", fuzz.KINDS.values(), ids=list(fuzz.KINDS))
def test_altered_files(kind, tmp_path):
    assert fuzz.fuzz(kind, 200, tmp_path, seed=7) < 200


@pytest.mark.parametrize("kind", fuzz.KINDS.values(), ids=list(fuzz.KINDS))
def test_whole_files(kind, tmp_path):
    path = tmp_path / "file"
    kind.write(path)
    assert not isinstance(fuzz.read(kind, path.read_bytes(), path), str)


@pytest.mark.parametrize("file", sorted(fuzz.CORPUS.glob("onnx-[a-z]*")), ids=lambda file: file.name)
def test_whole_networks_of_the_corpus(file, tmp_path):
    assert not isinstance(fuzz.read(fuzz.KINDS["onnx"], file.read_bytes(), tmp_path / "file"), str)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: exec("1 + 1"),
        lambda path: __import__("os").system("true"),
        lambda path: bytearray(2 * fuzz.BYTES),
        lambda path: __import__("pickle").loads(b"cos\nsystem\n."),
    ],
)
def test_harm_would_be_seen(harm, tmp_path):
    class Harmful(fuzz.Networks):
        read = staticmethod(harm)

    with pytest.raises((AssertionError, MemoryError)):
        fuzz.read(Harmful(), b"", tmp_path / "file")


def test_a_file_that_takes_long_would_be_seen(tmp_path, monkeypatch):
    class Endless(fuzz.Networks):
        @staticmethod
        def read(path):
            while True:
                pass

    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    with pytest.raises(AssertionError, match="took more than"):
        fuzz.read(Endless(), b"", tmp_path / "file")
