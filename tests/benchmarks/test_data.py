"""The benchmark of files trains over all kinds of them, and says what it measured."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

SIZES = (784, 4, 10)


@pytest.fixture
def data(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    # Under its own name, and not that of a folder of tests.
    for name in ("training", "data"):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["rows.h5", "rows.zarr"])
def path(data, tmp_path, request):
    data.make(tmp_path / request.param, 1500)
    return tmp_path / request.param


def test_a_file_and_memory_come_to_the_same_loss(data, path):
    with data.opened(path) as file:
        over_file, from_memory = (data.training(file, SIZES, rows)(shuffle="blocks") for rows in (None, 1500))
    assert over_file["loss"] == from_memory["loss"]
    assert min(over_file["speed"], over_file["bytes"]) > 0


def test_a_file_that_is_there_is_used(data, path):
    before = path.stat()
    data.make(path, 1500)
    assert path.stat() == before
    with pytest.raises(SystemExit, match="must have 3 rows, and has 1500"):
        data.make(path, 3)


def test_a_file_that_is_forgotten_is_as_it_was(data, path):
    with data.opened(path) as file:
        before = file["x"][:]
    data.forget(path)
    with data.opened(path) as file:
        assert (file["x"][:] == before).all()


def test_memory_holds_what_there_is_room_for(data):
    assert data.rows_in_memory(1000) == 1000
    assert data.rows_in_memory(10**12) == 10**12 // 16


@pytest.mark.peers
@pytest.mark.parametrize("workers", [0, 2])
def test_peers_read_the_same_rows(data, tmp_path, workers):
    pytest.importorskip("torch")
    data.make(tmp_path / "rows.h5", 1500)
    rows = data.Rows(tmp_path / "rows.h5")
    with data.opened(tmp_path / "rows.h5") as file:
        assert len(rows) == 1500
        assert (rows[7][0] == file["x"][7]).all()
        assert rows[7][1] == file["y"][7]
    rows.file.close()
    assert data.peer_training(tmp_path / "rows.h5", SIZES, workers)(0)["speed"] > 0


def test_all_of_it(data, tmp_path):
    command = [sys.executable, "benchmarks/data.py", "--small", "--json", str(tmp_path)]
    command += ["--only", "zarr, 784-128-10", "--folder", str(tmp_path / "new" / "folder")]
    done = subprocess.run(
        command, cwd=BENCHMARKS.parent, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "\n| zarr, 784-128-10, 1 thread | " in done.stdout
    [row] = json.loads((tmp_path / "data-cpu.json").read_text())["rows"]
    assert row["rows"] == row["rows in memory"] == 20_000_000 // 3136
    assert row["speeds"].keys() == {data.FILE, data.MEMORY, data.SHUFFLED}
    assert row["bytes"] < data.BYTES


def test_what_is_not_known_is_left_open(data):
    row = {"case": "h5py, 784-8-10, 1 thread", "speeds": {data.FILE: 9e5, data.MEMORY: 1e6}}
    row |= {"ratios": {data.MEMORY: 0.9, data.SHUFFLED: 0.8}, "first pass": None, "bytes": None, "met": True}
    text = data.text_of({"versions": {"python": "3.12"}, "rows": [row]})
    assert "\n| h5py, 784-8-10, 1 thread | 900,000 | 1,000,000 | 0.90 | 0.80 | – | – | met |" in text
